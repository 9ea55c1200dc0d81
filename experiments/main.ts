/**
 * `npm run experiments` lists the experiments. With a name, it runs those cells of that experiment that have no result yet, on several processes of one thread each. With
 * `report`, it writes docs/evidence.md and its figures from the results. To continue a command that was stopped, run it again.
 *
 * Options: --seeds N (3), --processes N (one per core), --corpora DIR (GRADMIX_CORPORA, else corpora), --out DIR (experiments/results), and --steps N for
 * trials, whose results need a folder of their own.
 */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { GradmixError } from "gradmix";
import { type Cell, distinct, estimatedSeconds, keyOf } from "./cell.ts";
import { experiments } from "./definitions/index.ts";
import { domainsOf } from "./domains.ts";
import { type Experiment, type Settings, usual } from "./experiment.ts";
import { type Failure, runPool } from "./pool.ts";
import { type Lookup, openStore, readResults } from "./results.ts";
import { minutesOf, writeReport } from "./report.ts";
import { type Corpora, findCorpora, textOf } from "./text.ts";

const root = join(import.meta.dirname, "../..");
const RESULTS = "experiments/results";

const say = (line: string): void => void process.stderr.write(`${line}\n`);

function readOptions(args: readonly string[]): {
  name: string | undefined;
  settings: Settings;
  processes: number;
  corpora: string;
  out: string;
} {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      seeds: { type: "string" },
      steps: { type: "string" },
      processes: { type: "string" },
      corpora: { type: "string" },
      out: { type: "string" },
    },
  });
  const count = (option: "seeds" | "steps" | "processes"): number | null => {
    const text = values[option];
    if (text === undefined) return null;
    const number = /^\d+$/.test(text) ? Number(text) : NaN;
    if (!(number >= 1 && Number.isSafeInteger(number)))
      throw new GradmixError("config", `--${option}: "${text}" is not a whole number of 1 or more`);
    return number;
  };
  if (positionals.length > 1)
    throw new GradmixError("config", `give one experiment, not several (${positionals.join(", ")})`);
  const steps = count("steps");
  if (steps !== null && values.out === undefined)
    throw new GradmixError(
      "config",
      "--steps: this option is for trials; give a folder for their results with --out",
    );
  return {
    name: positionals[0],
    settings: { seeds: count("seeds") ?? usual.seeds, steps },
    processes: count("processes") ?? availableParallelism(),
    corpora: values.corpora ?? process.env["GRADMIX_CORPORA"] ?? "corpora",
    out: values.out ?? RESULTS,
  };
}

function list(): void {
  const width = Math.max(...experiments.map(({ name }) => name.length));
  for (const experiment of experiments)
    console.log(
      `${experiment.name.padEnd(width)}  ${String(minutesOf(experiment)).padStart(3)} min on 2 cores  ${experiment.title}`,
    );
  console.log(`${"report".padEnd(width)}  writes docs/evidence.md from the results`);
}

/** The cells without a result. */
function missing(experiment: Experiment, settings: Settings, results: Lookup): Cell[] {
  return distinct(experiment.cells(settings, results)).filter((cell) => results(cell) === undefined);
}

/** Reads and cuts the text once, so that the processes do not each do it. */
async function prepare(cells: readonly Cell[], corpora: Corpora): Promise<void> {
  const seen = new Set<string>();
  for (const cell of cells) {
    const { target: _target, targetTokens: _tokens, ...own } = cell.text;
    const key = JSON.stringify(own.cut === undefined ? own.vocabulary : own);
    if (seen.has(key)) continue;
    seen.add(key);
    const text = await textOf(corpora, own.vocabulary);
    if (own.cut?.by === "clusters") await domainsOf(cell, text);
  }
}

async function run(
  experiment: Experiment,
  { settings, processes, corpora: folder, out }: ReturnType<typeof readOptions>,
): Promise<number> {
  const corpora = findCorpora(folder);
  const store = openStore(out, experiment.name, corpora.hash);
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.once(name, () =>
      stop.abort(new GradmixError("config", `stopped (${name}); run the same command again to continue`)),
    );
  const failed = new Set<string>();
  for (;;) {
    const cells = missing(experiment, settings, store.lookup).filter((cell) => !failed.has(keyOf(cell)));
    if (cells.length === 0) break;
    say(`${experiment.name}: ${cells.length} runs, ${processes} processes; preparing text`);
    await prepare(cells, corpora);
    const progress = progressOf(cells, processes);
    const failures: Failure<Cell>[] = await runPool<Cell, Parameters<typeof store.add>[1]>(cells, {
      worker: join(import.meta.dirname, "worker.js"),
      args: [folder],
      processes,
      signal: stop.signal,
      onResult(cell, result) {
        store.add(cell, result);
        say(progress(cell));
      },
    });
    for (const { job, reason } of failures) {
      failed.add(keyOf(job));
      say(`failed: ${reason} (${JSON.stringify(job)})`);
    }
  }
  say(
    failed.size === 0
      ? `${experiment.name}: done; npm run experiments -- report writes the results to docs/evidence.md`
      : `${experiment.name}: ${failed.size} runs failed; run the same command again to retry them`,
  );
  return failed.size === 0 ? 0 : 1;
}

/** Returns the line to print for each finished cell, with the time left, estimated from the speed so far. */
function progressOf(cells: readonly Cell[], processes: number): (done: Cell) => string {
  const start = performance.now();
  const whole = cells.reduce((sum, cell) => sum + estimatedSeconds(cell), 0);
  let [count, gone] = [0, 0];
  return (cell) => {
    count++;
    gone += estimatedSeconds(cell);
    const pace = (performance.now() - start) / 1000 / gone;
    const left = Math.ceil(((whole - gone) * pace) / 60);
    return `${count} of ${cells.length}, about ${left} min left on ${processes} processes`;
  };
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options.name === undefined) {
    list();
    return 0;
  }
  if (options.name === "report") {
    await writeReport(readResults(options.out), join(root, "docs"));
    return 0;
  }
  const experiment = experiments.find(({ name }) => name === options.name);
  if (experiment === undefined)
    throw new GradmixError(
      "config",
      `there is no experiment "${options.name}"; there are ${experiments.map(({ name }) => name).join(", ")}, and report`,
    );
  return run(experiment, options);
}

process.chdir(root);
try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof GradmixError || (error instanceof Error && "code" in error))) throw error;
  say(`experiments: ${error.message}`);
  process.exitCode = 2;
}
