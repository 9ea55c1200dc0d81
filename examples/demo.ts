/**
 * `npm run demo`: Dynamic Gradient Alignment against uniform mixing, on text that every installation has.
 *
 * Five domains come out of node_modules (type declarations, JavaScript, Markdown, licences, JSON). A few Markdown documents, in none of the
 * domains, are the target. Two small models train on equally many tokens, one with equal weights, one with rule `dga` at its defaults: its weights start at the histogram
 * of the target over the domains, and follow the alignments of the training steps. Both models are then measured on target documents that neither has seen. The same can be done
 * by hand: the two commands are printed.
 *
 * Options: --steps N (160), --out DIR (runs/demo), --seed N (1), --threads N.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { listFiles } from "gradmix/data";
import { drawRuns, type DrawnRun } from "./picture.js";

const { values: options } = parseArgs({
  options: {
    steps: { type: "string", default: "160" },
    out: { type: "string" },
    seed: { type: "string", default: "1" },
    threads: { type: "string" },
  },
});

const root = join(import.meta.dirname, "../..");
process.chdir(root);
const command = join(root, "dist/cli/main.js");
/** Text of one domain, at most: enough for the demo, and read in a second. */
const domainBytes = 900_000;
const targetBytes = 260_000;

const kinds: Record<string, string[]> = {
  types: ["node_modules/**/*.d.ts"],
  javascript: ["node_modules/**/*.{js,mjs,cjs}"],
  markdown: ["node_modules/**/*.md"],
  licences: ["node_modules/**/{LICENSE,LICENCE,License,license}{,.txt}"],
  json: ["node_modules/**/*.json"],
};

/** A shuffle that depends on the names only. */
const rank = (file: string): string => createHash("sha256").update(file).digest("hex");

async function pick(globs: string[], most: number, not: ReadonlySet<string> = new Set()): Promise<string[]> {
  const found = await listFiles(globs, { skipUnreadable: true });
  const files = found.filter((file) => !not.has(file)).sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  const picked: string[] = [];
  let bytes = 0;
  for (const file of files) {
    const { size } = statSync(file);
    // Bundles and tables of data are not typical of a domain.
    if (size < 200 || size > 120_000 || !isText(file)) continue;
    picked.push(file);
    bytes += size;
    if (bytes >= most) break;
  }
  return picked.sort();
}

function isText(file: string): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(file));
    return true;
  } catch {
    return false;
  }
}

function freeFolder(): string {
  if (options.out !== undefined) return options.out;
  for (let n = 1; ; n++) {
    const folder = n === 1 ? "runs/demo" : `runs/demo-${n}`;
    if (!existsSync(folder)) return folder;
  }
}

interface Line {
  step: number;
  /** The line of before the first step has none. */
  weights?: Record<string, number>;
  evaluation?: { target: number | null };
}

const out = freeFolder();
const target = await pick(kinds["markdown"] ?? [], targetBytes);
const domains: Record<string, string[]> = {};
for (const [name, globs] of Object.entries(kinds))
  domains[name] = await pick(globs, domainBytes, new Set(target));

mkdirSync(out, { recursive: true });
const steps = Number(options.steps);
const config = {
  data: { domains, target, heldOut: 0.2, vocabSize: 1024 },
  model: { dim: 128, layers: 4, heads: 4, context: 128 },
  training: { steps, batch: 16, seed: Number(options.seed), lr: 0.003 },
  // More than the default: the picture and the numbers at the end are what the demo is for.
  run: { evalShare: 0.1, checkpointEvery: 0 },
};
const file = join(out, "config.json");
writeFileSync(file, `${JSON.stringify(config, null, 2)}\n`);

const sizes = Object.entries({ ...domains, target }).map(([name, files]) => `${name} ${files.length}`);
console.log(`Files: ${sizes.join(", ")}. The target's files are in no domain.\n`);

const runs: DrawnRun[] = [];
for (const rule of ["uniform", "dga"]) {
  const folder = join(out, rule);
  const args = ["train", file, "--rule", rule, "--out", folder];
  if (options.threads !== undefined) args.push("--threads", options.threads);
  console.log(`$ gradmix ${args.join(" ")}`);
  const { status } = spawnSync(process.execPath, [command, ...args], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
  console.log("");
  const lines = readFileSync(join(folder, "metrics.jsonl"), "utf8").trim().split("\n");
  const metrics = lines.map((line) => JSON.parse(line) as Line);
  runs.push({
    name: rule,
    losses: metrics.flatMap(({ step, evaluation }) =>
      evaluation === undefined || evaluation.target === null ? [] : [{ step, loss: evaluation.target }],
    ),
    weights: metrics.flatMap(({ step, weights }) => (weights === undefined ? [] : [{ step, weights }])),
  });
}

const picture = join(out, "report.svg");
writeFileSync(picture, drawRuns(runs, "Held-out target: Markdown documents"));

const [uniform, dga] = runs.map((run) => {
  const { final } = JSON.parse(readFileSync(join(out, run.name, "weights.json"), "utf8")) as {
    final: Record<string, number>;
  };
  return { loss: run.losses.at(-1)?.loss ?? NaN, weights: final };
});
if (uniform === undefined || dga === undefined) throw new Error("two runs were expected");
const row = (name: string, a: string, b: string): void => {
  console.log(`  ${name.padEnd(26)}${a.padStart(10)}${b.padStart(10)}`);
};
console.log(`After ${steps} steps on equally many tokens:\n`);
row("", "uniform", "dga");
row("loss on the target", uniform.loss.toFixed(4), dga.loss.toFixed(4));
row("perplexity", Math.exp(uniform.loss).toFixed(2), Math.exp(dga.loss).toFixed(2));
for (const name of Object.keys(domains))
  row(`weight of ${name}`, (uniform.weights[name] ?? NaN).toFixed(3), (dga.weights[name] ?? NaN).toFixed(3));
const difference = uniform.loss - dga.loss;
console.log(
  difference > 0
    ? `\nDGA's model is better on the target by ${difference.toFixed(4)} nats per token.`
    : `\nDGA's model is not better on the target here: ${(-difference).toFixed(4)} nats per token worse than uniform mixing.`,
);
console.log(
  `Picture: ${picture}. Models, weights and metrics: ${join(out, "uniform")}, ${join(out, "dga")}.`,
);
