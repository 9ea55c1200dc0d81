/** Trains the runs of a comparison, one after another. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import { checkComparable, type Found, type Outcome } from "../report/comparison.ts";
import { readRunHead } from "../runs/record.ts";
import type { StepMetrics } from "../runs/lines.ts";
import { shellWord } from "../shell-word.ts";
import { begunRun, isBegun, isSamePlan, outcomeOf, saveJson, savePlan } from "./compare-folder.ts";
import type { PlannedRun } from "./compare-plan.ts";
import { startCompareProgress } from "./compare-progress.ts";
import { formatRoughly } from "./compare-table.ts";
import type { Interrupt } from "./interrupt.ts";
import type { Output } from "./output.ts";
import { dataPlanOf } from "./plan.ts";
import type { StatusLine } from "./progress.ts";
import type { readData } from "./read-data.ts";
import { openRunFolder, type ResumeFrom } from "./run-folder.ts";
import { comparisonFiles } from "./run-names.ts";
import type { Comparison } from "./compare-arguments.ts";

/** A run whose loss became invalid. */
export interface Failure {
  readonly name: string;
  readonly reason: string;
}

/** The result of a finished run, and the facts that it recorded. */
export type Done = Outcome & Found;

interface AllRuns {
  readonly outcomes: readonly Done[];
  readonly failures: readonly Failure[];
  readonly stopped: boolean;
}

interface Session {
  readonly interrupt: Interrupt;
  readonly screen: Output;
  readonly status: StatusLine;
  readonly quiet: boolean;
  tell(line: string): void;
  /** Sets the folder of the current run; null between two runs. */
  hold(run: { close(): void } | null): void;
}

/**
 * Runs the remaining runs, and adds their results to `done`. A run whose loss becomes invalid is skipped; any other error ends the comparison.
 */
export async function runAll(
  comparison: Comparison,
  done: (Done | null)[],
  session: Session,
): Promise<AllRuns> {
  const { runs, folder } = comparison;
  const { interrupt, tell } = session;
  const outcomes: Done[] = [];
  const failures: Failure[] = [];
  const printed = new Set<string>();
  const tellOnce = (line: string): void => {
    if (!printed.has(line)) tell(line);
    printed.add(line);
  };
  const read = sharedReader();
  const comparable = (found: Found, { target }: PlannedRun): void => {
    const first = done.find((one) => one?.target === target) ?? null;
    if (first !== null) checkComparable([first, found]);
  };
  const names = new Set(runs.flatMap(({ name }, i) => (done[i] === null ? [] : [name])));
  const { screen, status } = session;
  const progress = startCompareProgress({ screen, status, runs, done: names });
  const kept = names.size;
  if (kept > 0) tell(`${kept} of ${runs.length} runs are done already`);
  for (const [i, run] of runs.entries()) {
    const before = done[i] ?? null;
    if (before !== null) {
      outcomes.push(before);
      continue;
    }
    try {
      await makeTokenizer(run, comparison, { onEvent: tellOnce, signal: interrupt.signal });
      const stopped = await runOne(run, begunRun(run), read, {
        ...session,
        onEvent: (line) => tellOnce(comparison.lineOf(run.rule, line)),
        onFacts: (facts) => comparable({ folder: run.config.run.out, facts }, run),
        onStep(metrics) {
          if (!session.quiet) progress.step(run, metrics);
        },
      });
      if (stopped) return { outcomes, failures, stopped: true };
    } catch (error) {
      if (interrupt.signal.aborted && error === interrupt.signal.reason)
        return { outcomes, failures, stopped: true };
      if (!(error instanceof GradmixError)) throw error;
      if (error.code === "numeric") {
        // The advice for a single run does not apply: all runs share one learning rate.
        const { message } = error.cause instanceof GradmixError ? error.cause : error;
        failures.push({ name: run.name, reason: message });
        tell(`${run.name} is left out: ${message}`);
        progress.end(run);
        continue;
      }
      const refused = refusals.includes(error.code) && done.filter((one) => one !== null).length === kept;
      const restored = refused && restorePlan(comparison) ? "; the comparison keeps its earlier plan" : "";
      const more = isBegun(runs)
        ? `${restored}; gradmix compare ${shellWord(folder)} continues from the finished runs`
        : "";
      throw new GradmixError(error.code, `${run.name}: ${error.message}${more}`, { cause: error });
    }
    const outcome = outcomeOf(run);
    if (outcome === null)
      throw new GradmixError(
        "data",
        `${run.name}: its folder ${run.config.run.out} has no complete result; were files of it removed? run the same command again`,
      );
    done[i] = outcome;
    outcomes.push(outcome);
    progress.end(run);
    tell(
      `${run.name}: held-out target ${outcome.loss.toFixed(3)}, ${formatRoughly(outcome.seconds)} of training`,
    );
  }
  return { outcomes, failures, stopped: false };
}

/** Codes of errors by which a run is refused before its first step. */
const refusals: readonly string[] = ["config", "data", "checkpoint"];

/** Writes the plan of before a continuation again; false if the continuation did not change it. */
function restorePlan(comparison: Comparison): boolean {
  const { before, folder } = comparison;
  if (before === null || isSamePlan(before, comparison)) return false;
  savePlan(folder, before);
  return true;
}

/** Results of the finished runs; null for the others. Throws `checkpoint` for a run with other options, `data` for runs that cannot be compared. */
export function doneBefore(runs: readonly PlannedRun[]): (Done | null)[] {
  const done = runs.map((run) => (begunRun(run) === null ? null : outcomeOf(run)));
  for (const target of new Set(runs.map(({ target }) => target)))
    checkComparable(done.flatMap((one) => (one !== null && one.target === target ? [one] : [])));
  return done;
}

/** Trains the tokenizer that all runs share, unless it exists. */
async function makeTokenizer(
  { config }: PlannedRun,
  { folder, runs, given }: Comparison,
  hooks: Parameters<typeof readData>[2],
): Promise<void> {
  const path = join(folder, comparisonFiles.tokenizer);
  if (config.data.tokenizer !== path || existsSync(path)) return;
  const { learnTokenizer } = await import("./choose-tokenizer.ts");
  // It is trained without the text on which the runs are evaluated.
  const targets = new Map(
    runs.flatMap(({ target, config }) => (target === null ? [] : [[target, config.data.target] as const])),
  );
  const vocabSize = given.values.get("data.vocabSize");
  const data = { ...dataPlanOf(config), vocabSize: typeof vocabSize === "number" ? vocabSize : null };
  const several = targets.size > 0 ? { target: [], targets } : {};
  const tokenizer = await learnTokenizer({ ...data, ...several, tokenizer: "bpe" }, hooks);
  saveJson(folder, comparisonFiles.tokenizer, tokenizer.toJSON());
}

/** Reads the text once for all runs of a target. A resumed run reads the text itself, and compares it with the text it began with. */
function sharedReader(): typeof readData {
  const kept = new Map<string, ReturnType<typeof readData>>();
  let target = "";
  return async (plan, known, hooks, inputs) => {
    const { readData } = await import("./read-data.ts");
    if (known.corpus !== undefined) return readData(plan, known, hooks, inputs);
    if (formatJson(plan.target) !== target) kept.clear();
    target = formatJson(plan.target);
    const key = formatJson({ ...plan, out: null, tokens: known.tokenizer?.toJSON() ?? null });
    const data = kept.get(key) ?? readData(plan, known, hooks, inputs);
    kept.set(key, data);
    return data;
  };
}

interface RunListeners extends Session {
  onEvent(line: string): void;
  onFacts(facts: Found["facts"]): void;
  onStep(metrics: StepMetrics): void;
}

/** Runs one run from where it stopped. Returns whether a signal interrupted it. */
async function runOne(
  { config }: PlannedRun,
  resume: ResumeFrom | null,
  read: typeof readData,
  { interrupt, hold, onEvent, onFacts, onStep }: RunListeners,
): Promise<boolean> {
  const { runTraining } = await import("./run.ts");
  const folder = openRunFolder(config, resume);
  hold(folder);
  try {
    const { interrupted } = await runTraining(
      config,
      {
        onStart: folder.appendMetrics,
        onStep(metrics) {
          folder.appendMetrics(metrics);
          onStep(metrics);
        },
        onResume: folder.appendMetrics,
        onEvent,
        signal: interrupt.signal,
        store: {
          ...folder,
          saveFile(name, contents) {
            folder.saveFile(name, contents);
            // Whether the run can be compared is known before its first step.
            if (name === "run.json") onFacts(readRunHead(config.run.out).facts);
          },
        },
      },
      read,
    );
    return interrupted;
  } finally {
    folder.close();
    hold(null);
  }
}
