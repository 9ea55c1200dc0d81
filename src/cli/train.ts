/** `gradmix train`: checks everything, opens the run folder, runs the trainer and shows how it goes. */
import { GradmixError } from "../errors.ts";
import {
  checkSameConfig,
  commandLineLayer,
  fileLayer,
  flatten,
  type Layer,
  resolveConfig,
} from "./config.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { openOutput, type Output } from "./output.ts";
import { formatResult, startProgress } from "./progress.ts";
import { checkFree, findRun, openRunFolder, type ResumeFrom } from "./run-folder.ts";
import { preparedLayer } from "./prepared-folder.ts";
import type { RunTraining } from "./run-events.ts";
import { eventFiles, writePage, writeTable } from "./side-files.ts";
import { totalSteps, type TrainConfig } from "./train-config.ts";
import type { Raw } from "./values.ts";

export interface TrainArguments {
  /** Path of a config file. */
  config: string | null;
  /** Flags that were given, by key path. */
  given: ReadonlyMap<string, Raw>;
  /** A run folder or a checkpoint in one. */
  resume: string | null;
}

/** Where the result goes, and where progress goes. */
export interface Outputs {
  readonly out: Output;
  readonly err: Output;
}

/** What is left to do once the arguments are checked. */
interface Plan {
  config: TrainConfig;
  resume: ResumeFrom | null;
}

/** Checks the arguments and the run folder; writes nothing. Throws `config` or `checkpoint`. */
async function plan({ config: file, given, resume: path }: TrainArguments): Promise<Plan> {
  const layers: Layer[] = [commandLineLayer(given)];
  if (file !== null) layers.push(fileLayer(file));
  if (path === null) {
    const config = await configOf(layers);
    if (config.run.out === "") config.run.out = defaultFolder(new Date());
    checkFree(config.run.out);
    return { config, resume: null };
  }
  const resume = findRun(path);
  for (const { values } of [...layers].reverse()) checkSameConfig(resume.config, values, resume.folder);
  const out = layers.map(({ values }) => values.get("run.out")).find((value) => value !== undefined);
  if (out !== undefined && out !== resume.folder)
    throw new GradmixError("config", `--out: a resumed run stays in its folder, ${resume.folder}`);
  const saved: Layer = {
    values: new Map([...flatten(resume.config)].filter(([, value]) => value !== null)),
    label: (key) => `${resume.folder}: ${key}`,
  };
  return { config: resolveConfig([...layers, saved]), resume };
}

/** With a model to begin with, or a prepared folder, their options go before the defaults. */
export async function configOf(given: readonly Layer[]): Promise<TrainConfig> {
  const layers = [...given, preparedLayer(given)];
  const from = layers.map(({ values }) => values.get("model.initFrom")).find((value) => value !== undefined);
  if (typeof from !== "string") return resolveConfig(layers);
  const { checkStart, readStart, startLayer } = await import("./start.ts");
  const start = readStart(from);
  const config = resolveConfig([...layers, startLayer(start)]);
  checkStart(start, config.data, config.model);
  return config;
}

/** `runs/20260130-134501` */
export function defaultFolder(date: Date, prefix: string = ""): string {
  const [day = "", time = ""] = date.toISOString().split("T");
  return `runs/${prefix}${day.replaceAll("-", "")}-${time.slice(0, 8).replaceAll(":", "")}`;
}

/** Where a run is; decides what an interruption does. */
type Phase = "reading" | "training";

const offers: { readonly [P in Phase]: string } = {
  reading: "stopping before the first step; Ctrl-C again to stop at once",
  training: "stopping after this step, with a checkpoint; Ctrl-C again to stop at once",
};

/** Runs the command; gives the exit code. `trainer` is what trains. */
export async function train(
  args: TrainArguments,
  trainer?: RunTraining,
  { out, err }: Outputs = { out: openOutput(process.stdout), err: openOutput(process.stderr) },
): Promise<number> {
  const { config, resume } = await plan(args);
  const folder = openRunFolder(config, resume);
  const progress = startProgress(err, totalSteps(config));
  const quiet = config.run.quiet;
  const tell = (line: string): void => progress.line(line);
  let phase: Phase = "reading";
  // However the process ends, its lock goes with it.
  const release = (): void => folder.close();
  process.once("exit", release);
  const interrupt = listenForInterrupt({
    output: err,
    line: () => progress.line(offers[phase]),
    atOnce: release,
  });
  try {
    // Only here: `--help` and a refusal need none of its code.
    const runTraining = trainer ?? (await import("./run.ts")).runTraining;
    const events = await eventFiles(config, tell);
    const result = await runTraining(config, {
      onStart(line) {
        folder.appendMetrics(line);
        events.add(line);
        if (!quiet) progress.start(line.evaluation);
      },
      onStep(metrics) {
        folder.appendMetrics(metrics);
        events.add(metrics);
        if (!quiet) progress.step(metrics);
      },
      onResume: (line) => folder.appendMetrics(line),
      onEvent(line) {
        if (!quiet) progress.line(line);
      },
      signal: interrupt.signal,
      store: {
        ...folder,
        begin() {
          folder.begin();
          events.begin();
          phase = "training";
        },
      },
    });
    events.close();
    const page = await writePage([config.run.out], tell);
    await writeTable(config.run.out, tell);
    progress.end();
    await err.flush();
    out.write(formatResult(result, config.run.out, page));
    return result.interrupted ? interrupt.exitCode() : 0;
  } catch (error) {
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
    progress.line(
      resume === null
        ? "stopped before the first step; nothing was written"
        : `stopped before the first step; ${resume.folder} is as it was`,
    );
    return interrupt.exitCode();
  } finally {
    progress.end();
    interrupt.stop();
    folder.close();
    process.off("exit", release);
    await out.flush();
    await err.flush();
  }
}
