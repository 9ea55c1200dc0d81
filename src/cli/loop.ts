/** Trains step by step: evaluates, saves checkpoints, reports each step, and writes the weights and the model at the end. */
import type { Bases } from "../dga/bases.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import { multipliersOf } from "../dga/combinators/guard.ts";
import type { RuleState } from "../dga/rule.ts";
import { contradictionIn } from "../dga/rules/dga.ts";
import type { HeldOutLosses, Trainer, WeightPair } from "../dga/trainer.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import type { GPT } from "../nn/gpt.ts";
import { withCheckpoint } from "./advice.ts";
import { type Best, type BestKeeper, createBestKeeper, modelFiles } from "./best.ts";
import type { RunCost } from "./cost.ts";
import { createEpochWatch, type EpochWatch } from "./epoch-watch.ts";
import { type EvaluationPlan, evaluationAfter, type HeldOut, type Wanted } from "./evaluations.ts";
import { guardOutcomes } from "./guarding.ts";
import { createMetrics, guardMetrics } from "./metrics.ts";
import type { GuardLimits } from "./mixing.ts";
import type { CyclePlan } from "./plan.ts";
import type { Data } from "./read-data.ts";
import type { RunHooks, RunResult } from "./run-events.ts";
import { modelFolder } from "./run-places.ts";
import type { Evaluation, NamedWeights, StartLine, StepMetrics } from "../runs/lines.ts";
import { stepLine } from "../runs/record.ts";
import { count, object, parseOrdered, type Schema } from "../schema.ts";

/** The parts of a run after its setup. */
export interface Parts {
  readonly trainer: Trainer;
  readonly model: GPT;
  readonly data: Data;
  readonly heldOut: HeldOut;
  readonly evaluations: EvaluationPlan;
  readonly cost: RunCost;
  readonly guard: GuardLimits | null;
  /** Number of epochs from which the held-out loss of a domain is watched. */
  readonly watchedFrom: number;
  /** Names of the domains. */
  readonly names: readonly string[];
  readonly bases: Bases | null;
  /** Whether the run counted the histogram of its target. */
  readonly countedHistogram: boolean;
  /** What every checkpoint contains in addition to the trainer's state. */
  readonly kept: Readonly<Record<string, unknown>>;
  /** The checkpoint from which the run continues; null for a new run. */
  readonly resumed: Checkpoint | null;
}

/** A run while it trains. */
interface Loop {
  readonly parts: Parts;
  readonly hooks: RunHooks;
  /** Number of steps of the whole run. */
  readonly steps: number;
  /** Keeps the model with the best loss on the target; null if the run does not. */
  readonly keeper: BestKeeper | null;
  readonly watch: EpochWatch;
  readonly saving: Saving;
  readonly progress: Progress;
}

/** What changes from step to step. */
interface Progress {
  /** The last line that was reported. */
  last: StepMetrics | null;
  /** Losses of guarded domains after the last step of the run. */
  guarded: HeldOutLosses | null;
  /** The last step's line until its evaluation is complete; `START` takes its place before the first step. */
  unevaluated: Unevaluated | null;
}

/**
 * Trains to the last step. Throws `numeric` if the loss becomes invalid, and the errors of files and the device, each with advice on how to
 * continue from the last checkpoint.
 */
export async function trainLoop(cycle: CyclePlan, hooks: RunHooks, parts: Parts): Promise<RunResult> {
  const loop = await loopOf(cycle, hooks, parts);
  const { progress, saving } = loop;
  try {
    if (progress.unevaluated !== null) await finishStep(loop, progress.unevaluated);
    await runSteps(loop, cycle.checkpointEvery);
    await saving.save(progress.unevaluated);
    return await endRun(loop);
  } catch (error) {
    // A checkpoint may still fit on the disk if another file did not.
    if (error instanceof GradmixError && error.code === "io" && !saving.failed())
      await saving.save(progress.unevaluated).catch(() => {
        // The first error is the important one.
      });
    throw withCheckpoint(error, parts.trainer.steps, saving.saved(), cycle.advice);
  }
}

async function loopOf({ steps, keepBest }: CyclePlan, hooks: RunHooks, parts: Parts): Promise<Loop> {
  const { trainer, names, resumed } = parts;
  const keeper = keepBest ? await createBestKeeper(hooks, parts.model, parts.data, resumed) : null;
  tellOtherText(keeper?.best ?? null, parts.evaluations, hooks);
  const watch = createEpochWatch(
    parts.watchedFrom,
    (name) => trainer.seen(names.indexOf(name)).epochs,
    resumed?.json["epochWatch"],
  );
  const saving = createSaving(hooks, parts, () => {
    const best = keeper?.saved();
    return { json: { epochWatch: watch.saved(), ...best?.json }, arrays: best?.arrays ?? {} };
  });
  const unevaluated = resumed === null ? START : unevaluatedOf(resumed);
  return { parts, hooks, steps, keeper, watch, saving, progress: { last: null, guarded: null, unevaluated } };
}

/** Trains until the last step, or until the signal interrupts the run. */
async function runSteps(loop: Loop, checkpointEvery: number): Promise<void> {
  const { parts, hooks, steps, watch, saving, progress } = loop;
  const { trainer, names, bases, data, countedHistogram } = parts;
  const metricsOf = createMetrics(names, bases, trainer.seen, data.target?.train.count ?? null, () =>
    multipliersOf(trainer.mixer.rule),
  );
  while (trainer.steps < steps && !hooks.signal.aborted) {
    const start = performance.now();
    const before = trainer.mixer.rule;
    const step = await trainer.step();
    if (step.step === steps) progress.guarded = step.heldOut;
    watch.note("guard", knownLosses(names, step.heldOut)).forEach(hooks.onEvent);
    if (beginsToContradict(before, trainer.mixer.rule))
      hooks.onEvent(contradictedAfter(step.step, countedHistogram));
    await finishStep(loop, metricsOf(step, null, (performance.now() - start) / 1000));
    if (checkpointEvery > 0 && step.step % checkpointEvery === 0) await saving.save(progress.unevaluated);
    // Kernels on the CPU never wait, so this gives signals and timers their turn.
    await new Promise((next) => setImmediate(next));
  }
}

/**
 * Evaluates what the plan requires after this step, and reports the step. If the signal interrupts the evaluation, the step is reported
 * without it, and the resumed run repeats it.
 */
async function finishStep(
  { parts, hooks, steps, keeper, watch, progress }: Loop,
  line: Unevaluated,
): Promise<void> {
  const { trainer, heldOut, evaluations, names } = parts;
  const { signal } = hooks;
  const report = (metrics: StepMetrics): void => {
    progress.last = metrics;
    hooks.onStep(metrics);
  };
  progress.unevaluated = line;
  const start = performance.now();
  let evaluation: Evaluation | null;
  try {
    if (line.step === steps) progress.guarded ??= await trainer.heldOut(signal);
    evaluation = await evaluate(trainer, heldOut, evaluationAfter(evaluations, line.step), signal);
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    if ("loss" in line) report(line);
    return;
  }
  if (evaluation !== null) {
    const { target, domains } = evaluation;
    if (target !== null)
      await keeper?.consider(
        { step: line.step, targetLoss: target, tokens: evaluations.target?.tokens ?? 0 },
        namedWeights(parts),
      );
    watch.note("evaluation", domains).forEach(hooks.onEvent);
  }
  progress.unevaluated = null;
  const seconds = (performance.now() - start) / 1000;
  if ("loss" in line) {
    const guard = progress.guarded === null ? null : guardMetrics(names, progress.guarded, null);
    report(evaluated(line, seconds, { guard, evaluation }));
  } else if (evaluation !== null) hooks.onStart(startLine(parts, seconds, evaluation));
}

/** Measures what is still missing at the end, and writes the weights and, if the run is complete, the model. */
async function endRun({ parts, hooks, steps, keeper, progress }: Loop): Promise<RunResult> {
  const { trainer, guard } = parts;
  const { signal, store } = hooks;
  const interrupted = trainer.steps < steps || progress.unevaluated !== null;
  const targetLoss = targetOf(progress.last) ?? (interrupted ? null : await targetAtEnd(parts, signal));
  if (!interrupted && guard !== null) progress.guarded ??= await trainer.heldOut(signal);
  const result = {
    ...resultOf(parts, targetLoss, interrupted),
    guards: interrupted ? null : outcomesOf(parts, progress.guarded),
    best: keeper?.best ?? null,
  };
  store.saveFile("weights.json", `${formatJson(result.weights, 2)}\n`);
  if (!interrupted) await saveModel(hooks, parts);
  return result;
}

/** The line of a step, with the results of the evaluation after it and its duration in seconds. */
function evaluated(
  line: StepMetrics,
  seconds: number,
  { guard, evaluation }: { guard: StepMetrics["guard"] | null; evaluation: Evaluation | null },
): StepMetrics {
  return {
    ...line,
    seconds: line.seconds + seconds,
    ...(guard === null || guard === undefined || line.guard !== undefined ? {} : { guard }),
    ...(evaluation === null ? {} : { evaluation, evaluationSeconds: seconds }),
  };
}

function startLine({ cost, guard }: Parts, seconds: number, evaluation: Evaluation): StartLine {
  return {
    ...START,
    event: "start",
    seconds,
    evaluation,
    cost: {
      alignment: cost.alignment,
      ...(guard === null ? {} : { guard: cost.guard }),
      evaluation: cost.evaluation,
    },
  };
}

/** Reports if a resumed run evaluates on more of the target than before, or on less. */
function tellOtherText(best: Best | null, { target }: EvaluationPlan, { onEvent }: RunHooks): void {
  if (best === null || target === null || best.tokens === target.tokens) return;
  onEvent(
    `the best step so far was measured on ${best.tokens} tokens of the target, and later steps are measured on ${target.tokens}; their losses are still compared`,
  );
}

/** Whether this update raised the contradiction S (docs/rules.md) to 1 or more. From then on, the steps of the weights are at least twice as long. */
function beginsToContradict(before: RuleState, after: RuleState): boolean {
  const [from, to] = [contradictionIn(before) ?? 0, contradictionIn(after) ?? 0];
  return from < 1 && to >= 1;
}

/** The line for a step after which the weights leave the prior faster. `counted`: the run counted the histogram that is the prior. */
export function contradictedAfter(step: number, counted: boolean): string {
  const advice = counted ? "" : "; if that histogram belongs to another target, start again without it";
  return `after step ${step}, the measurements disagree with the histogram: its mixture helps the target less than equal weights would. From here on the weights follow the measurements more closely${advice}`;
}

function knownLosses(names: readonly string[], found: HeldOutLosses | null): ReadonlyMap<string, number> {
  return new Map(
    names.flatMap((name, i) => {
      const loss = found?.losses[i] ?? null;
      return loss === null ? [] : [[name, loss]];
    }),
  );
}

/** Outcomes of the guards; null without guards, and if they were not evaluated at the end. */
function outcomesOf({ guard, names }: Parts, found: HeldOutLosses | null): RunResult["guards"] {
  return guard === null || found === null ? null : guardOutcomes(guard, names, found);
}

const targetOf = (line: StepMetrics | null): number | null => line?.evaluation?.target ?? null;

/** Takes the place of a step's line before the first step, until the evaluation there is complete. */
const START = { step: 0 } as const;

/** The line of the last step, or `START` before the first one. */
type Unevaluated = StepMetrics | typeof START;

interface Saving {
  /** Saves a checkpoint unless the newest one is of this step. `unevaluated` is the step's line if its evaluation is not complete. */
  save(unevaluated: Unevaluated | null): Promise<void>;
  /** Step of the newest checkpoint. */
  saved(): number | null;
  /** Whether the last checkpoint was started and not completed. */
  failed(): boolean;
}

/** `more` returns what a checkpoint contains of the run's own state, in addition to what every checkpoint contains. */
function createSaving(
  { store }: RunHooks,
  { trainer, kept, resumed }: Parts,
  more: () => Checkpoint,
): Saving {
  let saved = resumed === null ? null : trainer.steps;
  let saving = false;
  return {
    saved: () => saved,
    failed: () => saving,
    async save(unevaluated) {
      if (trainer.steps === saved) return;
      saving = true;
      const { json, arrays } = await trainer.save();
      const left = unevaluated === null ? {} : { unevaluated: formatJson(unevaluated) };
      // A line without its evaluation is written again.
      const lines = unevaluated === null ? trainer.steps : trainer.steps - 1;
      const own = more();
      store.saveCheckpoint(
        trainer.steps,
        { json: { ...json, ...kept, ...own.json, ...left }, arrays: { ...arrays, ...own.arrays } },
        lines,
      );
      saved = trainer.steps;
      saving = false;
    },
  };
}

/** The result of a run. */
function resultOf(
  parts: Parts,
  targetLoss: number | null,
  interrupted: boolean,
): Omit<RunResult, "guards" | "best"> {
  const { trainer } = parts;
  return {
    step: trainer.steps,
    tokens: trainer.tokens,
    loss: trainer.loss ?? NaN,
    targetLoss,
    weights: namedWeights(parts),
    interrupted,
  };
}

function namedWeights({ trainer, names, bases }: Parts): RunResult["weights"] {
  const weights = trainer.weights();
  const named = (of: readonly string[], { final, averaged }: WeightPair): NamedWeights => ({
    final: new Map(of.map((name, i) => [name, final[i]!])),
    averaged: new Map(of.map((name, i) => [name, averaged[i]!])),
  });
  return {
    ...named(names, weights.domains),
    ...(bases === null ? {} : { bases: named(bases.names, weights) }),
  };
}

async function saveModel({ store }: RunHooks, { model, data }: Parts): Promise<void> {
  store.saveFolder(modelFolder, await modelFiles(model, data));
}

const stepOf = object<{ step: number }>({ step: count });
/** The start has no line of its own. */
const unevaluatedLine: Schema<Unevaluated> = (value, at) =>
  stepOf(value, at).step === START.step ? START : stepLine(value, at);

/** The line of a checkpoint's step, if the run was stopped during its evaluation. */
function unevaluatedOf(resumed: Checkpoint): Unevaluated | null {
  const text = resumed.json["unevaluated"];
  if (typeof text !== "string") return null;
  return parseOrdered(unevaluatedLine, text, { source: "the checkpoint's last step", code: "checkpoint" });
}

/** Measures the losses that are wanted; null if none are. */
async function evaluate(
  trainer: Trainer,
  { target, domains }: HeldOut,
  wanted: Wanted | null,
  signal: AbortSignal,
): Promise<Evaluation | null> {
  if (wanted === null) return null;
  const losses = new Map<string, number>();
  if (wanted.domains !== null)
    for (const [name, windows] of domains)
      losses.set(name, await trainer.evaluate(windows, wanted.domains, signal));
  return {
    target:
      target === null || wanted.target === null
        ? null
        : await trainer.evaluate(target, wanted.target, signal),
    domains: losses,
  };
}

/** The loss on the target of a run that has no step left with which to report it; null without a target. */
async function targetAtEnd(
  { trainer, heldOut, evaluations }: Parts,
  signal: AbortSignal,
): Promise<number | null> {
  const wanted = evaluationAfter(evaluations, evaluations.steps);
  const found = await evaluate(trainer, heldOut, wanted && { ...wanted, domains: null }, signal);
  return found?.target ?? null;
}
