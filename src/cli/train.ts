/** `gradmix train`: checks the arguments, opens the run folder, trains and shows the progress. */
import { resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import {
  checkSameConfig,
  commandLineLayer,
  domainPaths,
  fileLayer,
  flatten,
  type Layer,
  resolveConfig,
  withoutPaths,
  withOneSource,
} from "./config.ts";
import { cpuOptions } from "./config-checks.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { openOutput, type Output } from "./output.ts";
import { formatResult, startProgress } from "./progress.ts";
import { checkFree, findRun, openRunFolder, type ResumeFrom } from "./run-folder.ts";
import { preparedLayer } from "./prepared-options.ts";
import type { RunTraining } from "./run-events.ts";
import { withEventFiles, writePage, writeTable } from "./side-files.ts";
import { totalSteps, type TrainConfig } from "./train-config.ts";
import type { Raw } from "./values.ts";

export interface TrainArguments {
  /** Path of a config file; null if none was given. */
  config: string | null;
  /** The given flags, by key path. */
  given: ReadonlyMap<string, Raw>;
  /** A run folder or one of its checkpoints; null for a new run. */
  resume: string | null;
}

/** Streams for the result and for the progress. */
export interface Outputs {
  readonly out: Output;
  readonly err: Output;
}

/** The checked arguments. */
interface Plan {
  config: TrainConfig;
  resume: ResumeFrom | null;
}

/** Checks the arguments and the run folder, and writes nothing. Throws `config` or `checkpoint`. */
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
  for (const { values } of [...withOneSource(layers)].reverse())
    checkSameConfig(resume.config, values, resume.folder);
  const out = layers.map(({ values }) => values.get("run.out")).find((value) => value !== undefined);
  if (out !== undefined && !(typeof out === "string" && resolve(out) === resolve(resume.folder)))
    throw new GradmixError("config", `--out: a resumed run stays in its folder, ${resume.folder}`);
  const recorded: Layer = {
    values: new Map([...flatten(resume.config)].filter(([, value]) => value !== null)),
    label: (key) => `${resume.folder}: ${key}`,
  };
  // What the run recorded about the cpu does not hold for another backend that is asked for.
  const backend = layers.map(({ values }) => values.get("run.backend")).find((value) => value !== undefined);
  const leaves = backend === "webgpu" || backend === "reference";
  const saved = leaves ? withoutPaths(recorded, cpuOptions) : recorded;
  // The domains are those of the run, of which the arguments may repeat only some. Its folder keeps the name that --resume gives it.
  const others = layers.map((layer) => withoutPaths(layer, [...domainPaths, "run.out"]));
  return { config: resolveConfig([...others, saved]), resume };
}

/** Resolves the configuration. The options of `--init-from` and of a prepared folder come before the defaults. */
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

/** For example `runs/20260130-134501`. */
export function defaultFolder(date: Date, prefix: string = ""): string {
  const [day = "", time = ""] = date.toISOString().split("T");
  return `runs/${prefix}${day.replaceAll("-", "")}-${time.slice(0, 8).replaceAll(":", "")}`;
}

/** The state of a run, which decides what an interruption does. */
type Phase = "reading" | "training";

const offers: { readonly [P in Phase]: string } = {
  reading: "stopping before the first step; Ctrl-C again to stop at once",
  training: "stopping after this step, with a checkpoint; Ctrl-C again to stop at once",
};

/** Runs the command and returns the exit code. `trainer` is the function that trains. */
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
  // The lock is released however the process ends.
  const release = (): void => folder.close();
  process.once("exit", release);
  const interrupt = listenForInterrupt({
    output: err,
    line: () => progress.line(offers[phase]),
    atOnce: release,
  });
  try {
    // Loaded only here, because `--help` and refusals do not need its code.
    const runTraining = trainer ?? (await import("./run.ts")).runTraining;
    const result = await withEventFiles(config, tell, (events) =>
      runTraining(config, {
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
          load() {
            const saved = folder.load();
            if (saved === null && resume !== null && !quiet)
              progress.line(`${resume.folder} has no checkpoint, so the run begins again at its first step`);
            return saved;
          },
          begin() {
            folder.begin();
            events.begin();
            phase = "training";
          },
        },
      }),
    );
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
