/** Rules, combinators and bases through the command: results, refusals, and that a run continues to the same bits. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { timeless } from "./timeless.ts";
import { lastGiven } from "./last-given.ts";
import { runCommand } from "./served.ts";

let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-rules-"));
  const lines = (words: string, n: number): string =>
    Array.from({ length: n }, (_, i) =>
      JSON.stringify({ text: `${words} ${(i * 7919) % 97}. `.repeat(3) }),
    ).join("\n");
  writeFileSync(join(folder, "prose.jsonl"), lines("the dog sleeps while the quick fox jumps over it", 60));
  writeFileSync(join(folder, "code.jsonl"), lines("for (let i = 0; i < n; i++) sum += items[i]", 40));
  writeFileSync(join(folder, "list.jsonl"), lines("one, two, three, four, five, six, seven", 40));
  writeFileSync(join(folder, "target.jsonl"), lines("while (j < n) total += items[j++]", 24));
  writeFileSync(join(folder, "other.jsonl"), lines("a cat sleeps under the old table", 24));
  const bases = { left: { prose: 0.5, code: 0.5 }, right: { code: 0.25, list: 0.75 } };
  writeFileSync(join(folder, "bases.json"), JSON.stringify(bases));
  writeFileSync(
    join(folder, "bases.csv"),
    "basis,domain,weight\nleft,prose,0.5\nleft,code,0.5\nright,code,0.25\nright,list,0.75\n",
  );
  writeFileSync(join(folder, "heavy.csv"), "basis,domain,weight\nleft,prose,0.5\nleft,code,0.7\n");
  writeFileSync(join(folder, "unknown.csv"), "basis,domain,weight\nleft,prose,0.5\nleft,cod,0.5\n");
  writeFileSync(join(folder, "empty.json"), JSON.stringify({ left: { prose: 1 }, right: {} }));
  writeFileSync(
    join(folder, "heavy-config.json"),
    JSON.stringify({ mixing: { bases: { left: { prose: 1, code: 0.5 } } } }),
  );
  writeFileSync(join(folder, "short.json"), JSON.stringify({ left: [0.5, 0.5] }));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

const domains = ["prose", "code", "list"].flatMap((name) => ["--domain", `${name}=${name}.jsonl`]);
const small =
  "--tokenizer byte --dim 16 --layers 1 --heads 2 --context 16 --batch 4 --update-every 2 --align-domain-examples 2 --align-target-examples 2 --eval-tokens 64 --eval-every 0 --checkpoint-every 3 --warmup 2 --threads 1".split(
    " ",
  );
const withTarget = ["--target", "target.jsonl"];

function gradmix(...args: string[]): { code: number | null; out: string; err: string } {
  const words = ["train", ...lastGiven([...domains, ...small, ...args])];
  const { status, stdout, stderr } = runCommand(words, { cwd: folder });
  return { code: status, out: stdout, err: stderr };
}

interface Line {
  seconds: number;
  weights: Record<string, number>;
  domains: Record<string, { weight?: number; loss: number | null }>;
  alignments?: Record<string, { value: number; effectiveSize?: number }>;
  evaluation?: { domains: Record<string, number> };
}
const metrics = (run: string): Line[] =>
  readFileSync(join(folder, run, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);
interface Weights {
  final: Record<string, number>;
  averaged: Record<string, number>;
}
const weights = (run: string): Weights & { bases?: Weights } =>
  JSON.parse(readFileSync(join(folder, run, "weights.json"), "utf8")) as Weights & { bases?: Weights };

describe("every rule can be chosen by its name", () => {
  const several = ["--targets", "code=target.jsonl", "--targets", "prose=other.jsonl"];
  test.each<[string, string[]]>([
    ["temperature", []],
    ["doge", ["--eta", "1"]],
    ["doge", [...withTarget, "--rule-options", '{"towards":"target","eta":0.5}']],
    ["grape", several],
    ["rnb", ["--rule-options", '{"lambda":3}']],
    ["odm", []],
    ["ado", ["--rule-options", '{"minPoints":3}', "--floor", "0.05"]],
    ["dga", [...withTarget, "--normalise", "adam", "--combinators", '[{"name":"ceiling","most":0.5}]']],
    [
      "dga",
      [
        ...withTarget,
        "--normalise",
        "raw",
        "--combinators",
        '[{"name":"shrinkage"},{"name":"repetitionCap","repetitions":3}]',
      ],
    ],
  ])("%s %j", (rule, args) => {
    const out = `by-name-${rule}-${args.length}-${args.at(-1)?.length ?? 0}`;
    const { code, err } = gradmix("--rule", rule, ...args, "--steps", "9", "--out", out);
    expect(err).not.toContain("Error");
    expect(code).toBe(0);
    const { final } = weights(out);
    expect(Object.keys(final)).toEqual(["prose", "code", "list"]);
    expectNear(
      Object.values(final).reduce((a, b) => a + b),
      1,
      1e-12,
    );
    if (rule === "temperature") {
      expect(final["prose"]).toBeGreaterThan(final["code"]);
      expect(final["prose"]).toBeLessThan(0.5);
    }
    if (args.includes("--combinators") && args.join().includes("ceiling"))
      expect(Math.max(...Object.values(final))).toBeLessThanOrEqual(0.5 + 1e-12);
  });

  test("doremi compares with the model of an earlier run", () => {
    expect(gradmix("--rule", "uniform", "--steps", "4", "--out", "reference").code).toBe(0);
    const run = gradmix("--rule", "doremi", "--reference", "reference", "--steps", "6", "--out", "doremi");
    expect(run.err).not.toContain("Error");
    expect(run.code).toBe(0);
    // A model after few steps is worse than the reference on some domain.
    expect(new Set(Object.values(weights("doremi").final)).size).toBeGreaterThan(1);

    const doremi = ["--rule", "doremi", "--steps", "2", "--out", "refused", "--reference"];
    const errorOutput = (...args: string[]): string => gradmix(...doremi, ...args).err.trim();
    // A model whose tokens mean something else, and one with shorter windows.
    expect(
      gradmix(
        "--rule",
        "uniform",
        "--steps",
        "2",
        "--tokenizer",
        "bpe",
        "--vocab-size",
        "260",
        "--out",
        "bpe",
      ).code,
    ).toBe(0);
    expect(errorOutput("bpe").split("\n").at(-1)).toMatch(
      /^gradmix: --reference: bpe has another tokenizer; train both with/,
    );
    expect(errorOutput("reference", "--context", "32").split("\n").at(-1)).toMatch(
      /--reference: reference has windows of 16 tokens, but this run has windows of 32; use --context 16/,
    );
    const config = join(folder, "reference", "model", "config.json");
    const before = readFileSync(config, "utf8");
    writeFileSync(config, before.replace(/"vocab_size": *\d+/, '"vocab_size": 300'));
    expect(errorOutput("reference").split("\n").at(-1)).toMatch(/embed_tokens/);
    expect(existsSync(join(folder, "refused"))).toBe(false);

    // The reference has changed, so the run cannot be continued.
    const { code, err } = gradmix("--resume", "doremi");
    expect(code).toBe(2);
    expect(err).toContain("the model in reference is not the one that the run began with");
    writeFileSync(config, before);
    expect(gradmix("--resume", "doremi").err).not.toContain("not the one");
  });

  test("an option that has no effect is reported", () => {
    const { code, err } = gradmix("--rule", "odm", "--eta", "2", "--steps", "1", "--out", "unused");
    expect(code).toBe(0);
    expect(err).toContain("mixing.eta has no effect: rule odm does not use it");
  });

  test("with many domains, lines are short and the weights file is complete", () => {
    const many = Object.fromEntries(
      Array.from({ length: 130 }, (_, i) => [`part ${i}`, [i % 2 === 0 ? "prose.jsonl" : "code.jsonl"]]),
    );
    writeFileSync(
      join(folder, "many.json"),
      JSON.stringify({ data: { domains: many, target: ["target.jsonl"], tokenizer: "byte" } }),
    );
    const words = ["train", "many.json", ...small.slice(2), "--steps", "3", "--out", "many"];
    const result = runCommand(words, { cwd: folder });
    expect(result.stderr).toContain("and 122 more; target");
    expect(result.status).toBe(0);
    expect(Object.keys(weights("many").final).length).toBe(130);
    for (const line of metrics("many")) {
      expect(Object.keys(line.weights).length).toBe(100);
      expect(Object.keys(line.domains).length).toBeLessThanOrEqual(4);
    }
    const { evaluation } = metrics("many")[2];
    expect(Object.keys(evaluation?.domains ?? {}).length).toBe(65);
  });
});

describe("bases", () => {
  const args = [...withTarget, "--rule", "dga", "--steps", "8"];
  test("have weights in place of the domains; JSON and CSV are equivalent; a resumed run continues to the same bits", () => {
    expect(gradmix(...args, "--bases", "bases.json", "--out", "json").code).toBe(0);
    expect(gradmix(...args, "--bases", "bases.csv", "--out", "csv").code).toBe(0);
    const inline = {
      data: { target: ["target.jsonl"] },
      mixing: { bases: JSON.parse(readFileSync(join(folder, "bases.json"), "utf8")) as unknown },
    };
    writeFileSync(join(folder, "inline-config.json"), JSON.stringify(inline));
    expect(gradmix("inline-config.json", "--steps", "8", "--out", "inline").code).toBe(0);
    const found = weights("json");
    expect(weights("inline")).toEqual(found);
    expect(weights("csv")).toEqual(found);
    const w = found.bases?.final ?? {};
    expect(Object.keys(w)).toEqual(["left", "right"]);
    expectNear(found.final["prose"], 0.5 * w["left"], 1e-14);
    expectNear(found.final["code"], 0.5 * w["left"] + 0.25 * w["right"], 1e-14);
    expectNear(found.final["list"], 0.75 * w["right"], 1e-14);
    const lines = metrics("json");
    expect(Object.keys(lines[0].weights)).toEqual(["left", "right"]);
    for (const { domains: seen } of lines)
      for (const one of Object.values(seen)) {
        expect(one.loss).not.toBeNull();
        expect(one.weight).toBeGreaterThan(0);
      }
    const measured = lines.find((line) => line.alignments !== undefined)?.alignments;
    expect(measured?.["left"].effectiveSize).toBeGreaterThan(1);

    // The last checkpoint is lost: the one before it leads to the same weights.
    const done = readFileSync(join(folder, "json", "weights.json"), "utf8");
    rmSync(join(folder, "json", "weights.json"));
    for (const name of readdirSync(join(folder, "json", "checkpoints")))
      if (name.includes("0008")) rmSync(join(folder, "json", "checkpoints", name));
    const resumed = gradmix(...args, "--bases", "bases.json", "--resume", "json");
    expect(resumed.err).toContain("continuing from step 6");
    expect(resumed.code).toBe(0);
    expect(readFileSync(join(folder, "json", "weights.json"), "utf8")).toBe(done);
    expect(metrics("json").map(timeless)).toEqual(lines.map(timeless));
    // The content of the file counts, not only its name.
    const text = readFileSync(join(folder, "bases.json"), "utf8");
    writeFileSync(
      join(folder, "bases.json"),
      text.replaceAll("0.5", "0.50").replace("0.25", "0.3").replace("0.75", "0.7"),
    );
    expect(gradmix("--resume", "json").err).toContain(
      "--resume: the bases in bases.json are not those with which the run began; restore them, or start a new run from the checkpoint with --init-from\n",
    );
    writeFileSync(join(folder, "bases.json"), text.replace(/"left"/, '"other"'));
    expect(gradmix("--resume", "json").err).toContain("--resume: the bases in bases.json are not those");
    writeFileSync(join(folder, "bases.json"), text);

    // Only the bases differ, so it is another run.
    const { code, err } = gradmix(...args, "--bases", "bases.csv", "--resume", "json");
    expect(code).toBe(2);
    expect(err).toContain("mixing.bases");
  });

  test.each<[string, string[], RegExp]>([
    [
      "a file that is not there",
      ["--bases", "none.json"],
      /--bases: none\.json cannot be read \(no such file/,
    ],
    [
      "another kind of file",
      ["--bases", "bases.txt"],
      /--bases: bases\.txt ends in neither \.json nor \.csv/,
    ],
    [
      "a sum that is not 1",
      ["--bases", "heavy.csv"],
      /heavy\.csv: basis "left": its weights sum to 1\.2, not to 1/,
    ],
    [
      "a domain that is none",
      ["--bases", "unknown.csv"],
      /unknown\.csv.*line 3.*"cod"; did you mean "code"\?/,
    ],
    [
      "a floor of a domain, where bases have the weights",
      ["--bases", "bases.json", "--floor", "code=0.1"],
      /--floor: "code" is not a basis; with --bases the rule moves the weights of the bases: left, right/,
    ],
    [
      "initial weights of the domains, where bases have the weights",
      ["--bases", "bases.json", "--weights", "prose=0.2,code=0.3,list=0.5"],
      /--weights: "prose" is not a basis; /,
    ],
    ["a basis without weight", ["--bases", "empty.json"], /empty\.json: basis "right": it has no weight/],
    [
      "a basis in the config file that is none",
      ["heavy-config.json"],
      /mixing\.bases: basis "left": its weights sum to 1\.5, not to 1/,
    ],
    ["a wrong number of domains", ["--bases", "short.json"], /short\.json.*2 values for 3 domains/],
    ["an unknown rule", ["--rule", "dogee"], /--rule: "dogee" is not one of .*; did you mean doge\?/],
    [
      "an unknown option of a rule",
      ["--rule-options", '{"etta":1}'],
      /dga: there is no option "etta"; did you mean "eta"\?/,
    ],
    ["an option out of range", ["--rule-options", '{"beta":2}'], /beta: 2 does not fit/],
    [
      "text that is not JSON",
      ["--rule-options", "{eta"],
      /--rule-options, line 1, column 2: a name in quotes expected, not "eta"/,
    ],
    [
      "an unknown combinator",
      ["--combinators", '[{"name":"celing","most":1}]'],
      /combinators\[0\]: there is no combinator "celing"; did you mean "ceiling"\?/,
    ],
    [
      "a ceiling that is too low",
      ["--combinators", '[{"name":"ceiling","most":0.2}]'],
      /ceiling: most: 0\.2 does not fit/,
    ],
    [
      "a rule without its target",
      ["--rule", "doge", "--rule-options", '{"towards":"target"}'],
      /--rule doge needs a target: add --target GLOB/,
    ],
    ["a rule without its targets", ["--rule", "grape"], /--rule grape needs targets/],
    ["a rule without its reference", ["--rule", "doremi"], /--rule doremi needs a reference model/],
    [
      "a reference that is not there",
      ["--rule", "doremi", "--reference", "nowhere"],
      /--reference: nowhere.*cannot be read/,
    ],
    [
      "another estimator for a shared batch",
      ["--bases", "bases.json", "--align-estimator", "perDomain", "--domain", "extra=not-there.jsonl"],
      /estimator perDomain: a shared batch of bases takes segmented/,
    ],
    [
      "several targets from the steps",
      ["--rule", "grape", "--targets", "code=not-there.jsonl", "--align-from", "step"],
      /rule grape: it needs several targets, which the training steps do not measure/,
    ],
    [
      "bases with a rule that cannot use them",
      ["--rule", "odm", "--bases", "bases.json"],
      /rule odm: with bases/,
    ],
  ])("%s is refused in one line, and nothing is written", (name, extra, message) => {
    const target = name.startsWith("a rule without its target") ? [] : withTarget;
    const { code, err } = gradmix(...target, ...extra, "--steps", "2", "--out", "refused");
    expect(code).toBe(2);
    const lastLine = err.trim().split("\n").at(-1) ?? "";
    expect(lastLine).toMatch(message);
    expect(existsSync(join(folder, "refused"))).toBe(false);
  });
});
