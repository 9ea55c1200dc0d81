/** `gradmix histogram`: reads text as `gradmix train` does, and shows what share of the target each domain has. */
import type { Histogram } from "../data/histogram.ts";
import { formatJson } from "../json.ts";
import { writeFileAtomic } from "../node/files.ts";
import { commandLineLayer, fileLayer, type Layer } from "./config.ts";
import { listenForInterrupt } from "./interrupt.ts";
import type { OptionRow } from "./options.ts";
import { displayWidth, startProgress } from "./progress.ts";
import { configOf, type Outputs } from "./train.ts";
import { dataSeed } from "./train-config.ts";
import { type Raw, wrong } from "./values.ts";

/** The options of `gradmix train` that say which text is read, and how. */
export function histogramTakes({ section, path }: OptionRow): boolean {
  return (
    (section === "data" && path !== "data.targets") ||
    ["model.context", "model.initFrom", "training.seed", "run.quiet"].includes(path)
  );
}

export interface HistogramArguments {
  /** Path of a config file, whose other options are left aside. */
  readonly config: string | null;
  /** Flags that were given, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  /** The rows of the table that the command takes. */
  readonly rows: readonly OptionRow[];
  /** The file that the shares are written to; null: none. */
  readonly out: string | null;
}

/** Runs the command; gives the exit code. Throws `config`, `data` and `io`. */
export async function showHistogram(
  { config: file, given, rows, out: path }: HistogramArguments,
  { out, err }: Outputs,
): Promise<number> {
  const taken = new Set(rows.map((row) => row.path));
  const layers = [commandLineLayer(given), ...(file === null ? [] : [fileLayer(file)])].map(
    ({ values, label }): Layer => ({ values: new Map([...values].filter(([key]) => taken.has(key))), label }),
  );
  // No rule runs, so that nothing is asked for that one needs.
  const noRule: Layer = { values: new Map([["mixing.rule", "uniform"]]), label: (key) => key };
  const config = await configOf([noRule, ...layers]);
  if (config.data.target.length === 0) throw wrong("gradmix histogram needs a target: add --target GLOB");
  const progress = startProgress(err, 0);
  const interrupt = listenForInterrupt({
    output: err,
    line: () => progress.line("stopping; Ctrl-C again to stop at once"),
    atOnce: () => {},
  });
  try {
    // Only here: `--help` and a refusal need none of their code.
    const [{ readData }, { readStart }, { measureHistogram }] = await Promise.all([
      import("./read-data.ts"),
      import("./start.ts"),
      import("./histogram.ts"),
    ]);
    const { initFrom, context } = config.model;
    const hooks = {
      onEvent(line: string) {
        if (!config.run.quiet) progress.line(line);
      },
      signal: interrupt.signal,
    };
    const data = await readData(
      { ...config.data, context, seed: dataSeed(config), out: null },
      { tokenizer: initFrom === null ? null : readStart(initFrom).tokenizer, corpus: undefined },
      hooks,
    );
    const names = [...data.facts.domains.keys()];
    const found = measureHistogram(data);
    if (path !== null) {
      const shares = new Map(names.map((name, i) => [name, found.shares[i]]));
      writeFileAtomic(path, [new TextEncoder().encode(`${formatJson(shares, 2)}\n`)]);
    }
    await err.flush();
    out.write(formatTable(names, found));
    if (path !== null) out.write(`written to ${path}\n`);
    return 0;
  } catch (error) {
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
    progress.line("stopped; nothing was written");
    return interrupt.exitCode();
  } finally {
    interrupt.stop();
    await out.flush();
    await err.flush();
  }
}

/** A line for each domain, the largest share first: its name, its share, and the windows that its bigrams like best. */
export function formatTable(names: readonly string[], { shares, counts, windows }: Histogram): string {
  const order = [...names.keys()].sort((i, j) => shares[j]! - shares[i]! || i - j);
  const width = Math.max("domain".length, ...names.map(displayWidth));
  const line = (name: string, share: string, count: string): string =>
    `${name}${" ".repeat(width - displayWidth(name))}  ${share.padStart(6)}  ${count.padStart(12)}\n`;
  return (
    line("domain", "share", "best windows") +
    order.map((i) => line(names[i]!, shares[i]!.toFixed(4), String(counts[i]))).join("") +
    `of ${windows.toLocaleString("en")} ${windows === 1 ? "window" : "windows"} of the target\n`
  );
}
