/** Trains step by step: evaluates, saves checkpoints, tells of each step, and leaves the weights and the model at the end. */
import type { Bases } from "../dga/bases.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import { multipliersOf } from "../dga/combinators/guard.ts";
import type { HeldOutLosses, Trainer, WeightPair } from "../dga/trainer.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import type { GPT } from "../nn/gpt.ts";
import { withCheckpoint } from "./advice.ts";
import { type Best, keepBest, modelFiles } from "./best.ts";
import type { RunCost } from "./cost.ts";
import { createEpochWatch } from "./epoch-watch.ts";
import { type EvaluationPlan, evaluationAfter, type HeldOut, type Wanted } from "./evaluations.ts";
import { guardOutcomes } from "./guarding.ts";
import { createMetrics, guardMetrics } from "./metrics.ts";
import type { GuardLimits } from "./mixing.ts";
import type { CyclePlan } from "./plan.ts";
import type { Data } from "./read-data.ts";
import type { RunHooks, RunResult } from "./run-events.ts";
import type { Evaluation, NamedWeights, StartLine, StepMetrics } from "../runs/lines.ts";
import { stepLine } from "../runs/record.ts";
import { count, object, parseOrdered, type Schema } from "../schema.ts";

/** What a run is made of once it is set up. */
export interface Parts {
  readonly trainer: Trainer;
  readonly model: GPT;
  readonly data: Data;
  readonly heldOut: HeldOut;
  readonly evaluations: EvaluationPlan;
  readonly cost: RunCost;
  readonly guard: GuardLimits | null;
  /** Epochs from which on a domain's held-out loss is watched. */
  readonly watchedFrom: number;
  /** The domains. */
  readonly names: readonly string[];
  readonly bases: Bases | null;
  /** What every checkpoint holds beside the trainer's state. */
  readonly kept: Readonly<Record<string, unknown>>;
  /** What the run goes on from. */
  readonly resumed: Checkpoint | null;
}

/** Throws `numeric` when the loss is lost, and what the files or the device throw, each with how to go on from the last checkpoint. */
export async function trainLoop(cycle: CyclePlan, hooks: RunHooks, parts: Parts): Promise<RunResult> {
  const { trainer, heldOut, evaluations, names, bases, resumed } = parts;
  const { steps, checkpointEvery } = cycle;
  const { signal } = hooks;
  const metricsOf = createMetrics(names, bases, trainer.seen, parts.data.target?.train.count ?? null, () =>
    multipliersOf(trainer.mixer.rule),
  );
  const keeper = cycle.keepBest ? await keepBest(hooks, parts.model, parts.data, resumed) : null;
  tellOtherText(keeper?.best ?? null, evaluations, hooks);
  const watch = createEpochWatch(
    parts.watchedFrom,
    (name) => trainer.seen(names.indexOf(name)).epochs,
    resumed?.json["epochWatch"],
  );
  const saving = createSaving(hooks, parts, () => ({
    json: { epochWatch: watch.saved(), ...keeper?.saved().json },
    arrays: keeper?.saved().arrays ?? {},
  }));
  let last: StepMetrics | null = null;
  /** Of guarded domains, after the last step. */
  let guarded: HeldOutLosses | null = null;
  /** The last step's line, or what stands for the one before the first step, as long as its evaluation is still to come. */
  let unevaluated: Unevaluated | null = resumed === null ? START : unevaluatedOf(resumed);
  const tell = (metrics: StepMetrics): void => {
    last = metrics;
    hooks.onStep(metrics);
  };
  /** Evaluates what the plan says after this step, and tells of it. Cut short by the signal, it tells what is known; the evaluation is made up for when the run goes on. */
  const finish = async (line: Unevaluated): Promise<void> => {
    unevaluated = line;
    const start = performance.now();
    let evaluation: Evaluation | null;
    try {
      if (line.step === steps) guarded ??= await trainer.heldOut(signal);
      evaluation = await evaluate(trainer, heldOut, evaluationAfter(evaluations, line.step), signal);
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
      if ("loss" in line) tell(line);
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
    unevaluated = null;
    const seconds = (performance.now() - start) / 1000;
    if ("loss" in line) {
      const guard = guarded === null ? null : guardMetrics(names, guarded, null);
      tell(evaluated(line, seconds, { guard, evaluation }));
    } else if (evaluation !== null) hooks.onStart(startLine(parts, seconds, evaluation));
  };
  try {
    if (unevaluated !== null) await finish(unevaluated);
    while (trainer.steps < steps && !signal.aborted) {
      const start = performance.now();
      const step = await trainer.step();
      if (step.step === steps) guarded = step.heldOut;
      watch.note("guard", knownLosses(names, step.heldOut)).forEach(hooks.onEvent);
      const metrics = metricsOf(step, null, (performance.now() - start) / 1000);
      await finish(metrics);
      if (checkpointEvery > 0 && step.step % checkpointEvery === 0) await saving.save(unevaluated);
      // Lets signals and timers have their turn: kernels on the CPU never wait.
      await new Promise((next) => setImmediate(next));
    }
    await saving.save(unevaluated);
    const interrupted = trainer.steps < steps || unevaluated !== null;
    const targetLoss = targetOf(last) ?? (interrupted ? null : await targetAtEnd(parts, signal));
    if (!interrupted && parts.guard !== null) guarded ??= await trainer.heldOut(signal);
    const result = {
      ...resultOf(parts, targetLoss, interrupted),
      guards: interrupted ? null : outcomesOf(parts, guarded),
      best: keeper?.best ?? null,
    };
    hooks.store.saveFile("weights.json", `${formatJson(result.weights, 2)}\n`);
    if (!interrupted) await saveModel(hooks, parts);
    return result;
  } catch (error) {
    // Where a file other than the checkpoint found no room, the checkpoint may.
    if (error instanceof GradmixError && error.code === "io" && !saving.failed())
      await saving.save(unevaluated).catch(() => {
        // The first error is the one to tell.
      });
    throw withCheckpoint(error, trainer.steps, saving.saved(), cycle.advice);
  }
}

/** The line of a step with what was found after it, which took so many seconds. */
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

/** A resumed run may evaluate on more of the target, or less. */
function tellOtherText(best: Best | null, { target }: EvaluationPlan, { onEvent }: RunHooks): void {
  if (best === null || target === null || best.tokens === target.tokens) return;
  onEvent(
    `the best step so far was measured on ${best.tokens} tokens of the target, and later steps are measured on ${target.tokens}; their losses are still compared`,
  );
}

function knownLosses(names: readonly string[], found: HeldOutLosses | null): ReadonlyMap<string, number> {
  return new Map(
    names.flatMap((name, i) => {
      const loss = found?.losses[i] ?? null;
      return loss === null ? [] : [[name, loss]];
    }),
  );
}

/** null without guards, and where they were not looked at in the end. */
function outcomesOf({ guard, names }: Parts, found: HeldOutLosses | null): RunResult["guards"] {
  return guard === null || found === null ? null : guardOutcomes(guard, names, found);
}

const targetOf = (line: StepMetrics | null): number | null => line?.evaluation?.target ?? null;

/** What stands before the first step, until it is evaluated, for a line. */
const START = { step: 0 } as const;

/** The line of the last step, or what stands for the one before the first. */
type Unevaluated = StepMetrics | typeof START;

interface Saving {
  /** A checkpoint, unless the newest is of this step. `unevaluated` is the step's line when its evaluation is still to come. */
  save(unevaluated: Unevaluated | null): Promise<void>;
  /** The step of the newest checkpoint. */
  saved(): number | null;
  /** The last checkpoint was begun and not finished. */
  failed(): boolean;
}

/** `more` is what a checkpoint holds of the run's own, beside what every one does. */
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
      // A line without its evaluation is written anew.
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

/** What the run says when it ends. */
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
  const files = await modelFiles(model, data);
  for (const [name, contents] of files) store.saveFile(`model/${name}`, contents);
}

const stepOf = object<{ step: number }>({ step: count });
/** The start has no line of its own. */
const unevaluatedLine: Schema<Unevaluated> = (value, at) =>
  stepOf(value, at).step === START.step ? START : stepLine(value, at);

/** The line of a checkpoint's step, when the run was stopped while it evaluated. */
function unevaluatedOf(resumed: Checkpoint): Unevaluated | null {
  const text = resumed.json["unevaluated"];
  if (typeof text !== "string") return null;
  return parseOrdered(unevaluatedLine, text, { source: "the checkpoint's last step", code: "checkpoint" });
}

/** null where nothing is wanted. */
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

/** The loss on the target, of a run that had no step left to tell it with; null without a target. */
async function targetAtEnd(
  { trainer, heldOut, evaluations }: Parts,
  signal: AbortSignal,
): Promise<number | null> {
  const wanted = evaluationAfter(evaluations, evaluations.steps);
  const found = await evaluate(trainer, heldOut, wanted && { ...wanted, domains: null }, signal);
  return found?.target ?? null;
}
