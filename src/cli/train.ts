/** `gradmix train`: checks everything, opens the run folder, runs the trainer and shows how it goes. */
import type { RunTraining, TrainConfig } from "../dga/config.ts";
import { totalSteps } from "../dga/config.ts";
import { GradmixError } from "../errors.ts";
import {
  checkSameConfig,
  commandLineLayer,
  fileLayer,
  flatten,
  type Layer,
  resolveConfig,
} from "./config.ts";
import { formatResult, type Progress, startProgress } from "./progress.ts";
import { checkFree, findRun, openRunFolder, type ResumeFrom } from "./run-folder.ts";
import type { Raw } from "./values.ts";

export interface TrainArguments {
  /** Path of a config file. */
  config: string | null;
  /** Flags that were given, by key path. */
  given: ReadonlyMap<string, Raw>;
  /** A run folder or a checkpoint in one. */
  resume: string | null;
}

/** What is left to do once the arguments are checked. */
interface Plan {
  config: TrainConfig;
  resume: ResumeFrom | null;
}

/** Checks the arguments and the run folder; writes nothing. Throws `config` or `checkpoint`. */
function plan({ config: file, given, resume: path }: TrainArguments): Plan {
  const layers: Layer[] = [commandLineLayer(given)];
  if (file !== null) layers.push(fileLayer(file));
  if (path === null) {
    const config = resolveConfig(layers);
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

function defaultFolder(date: Date): string {
  const [day = "", time = ""] = date.toISOString().split("T");
  return `runs/${day.replaceAll("-", "")}-${time.slice(0, 8).replaceAll(":", "")}`;
}

/** Runs the command; gives the exit code. `trainer` is what trains. */
export async function train(args: TrainArguments, trainer?: RunTraining): Promise<number> {
  const { config, resume } = plan(args);
  // Only here: `--help` and a refusal need none of its code.
  const runTraining = trainer ?? (await import("./run.ts")).runTraining;
  const folder = openRunFolder(config, resume);
  const progress = startProgress(process.stderr, totalSteps(config));
  const quiet = config.run.quiet;
  const interrupt = listenForInterrupt(progress);
  try {
    const result = await runTraining(config, {
      onStep(metrics) {
        folder.appendMetrics(metrics);
        if (!quiet) progress.step(metrics);
      },
      onEvent(line) {
        if (!quiet) progress.line(line);
      },
      signal: interrupt.signal,
      store: folder,
    });
    progress.end();
    process.stdout.write(formatResult(result, config.run.out));
    return result.interrupted ? interrupt.exitCode() : 0;
  } finally {
    progress.end();
    interrupt.stop();
    folder.close();
  }
}

interface Interrupt {
  signal: AbortSignal;
  exitCode(): number;
  stop(): void;
}

/** The first Ctrl-C asks for a clean end, the second one ends at once. SIGTERM and SIGHUP count as Ctrl-C. */
function listenForInterrupt(progress: Progress): Interrupt {
  const codes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
  const controller = new AbortController();
  let code = 130;
  const listener = (name: NodeJS.Signals): void => {
    code = codes[name as keyof typeof codes];
    if (controller.signal.aborted) process.exit(code);
    progress.line("stopping after this step, with a checkpoint; Ctrl-C again to stop at once");
    controller.abort();
  };
  const names = Object.keys(codes) as (keyof typeof codes)[];
  for (const name of names) process.on(name, listener);
  return {
    signal: controller.signal,
    exitCode: () => code,
    stop() {
      for (const name of names) process.off(name, listener);
    },
  };
}
