/** Trains step by step: evaluates, saves checkpoints, tells of each step, and leaves the weights and the model at the end. */
import type { Bases } from "../dga/bases.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import type { Trainer, WeightPair } from "../dga/trainer.ts";
import { GradmixError } from "../errors.ts";
import { formatJson, type Json, parseJson } from "../json.ts";
import type { GPT } from "../nn/gpt.ts";
import { toHuggingFace } from "../nn/huggingface.ts";
import { withCheckpoint } from "./advice.ts";
import { createMetrics, type Evaluation, evaluated } from "./metrics.ts";
import type { CyclePlan } from "./plan.ts";
import type { Data } from "./read-data.ts";
import type { NamedWeights, RunHooks, RunResult, StepMetrics } from "./run-events.ts";

/** What a run is made of once it is set up. */
export interface Parts {
  readonly trainer: Trainer;
  readonly model: GPT;
  readonly data: Data;
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
  const { trainer, data, names, bases, resumed } = parts;
  const { steps, evalEvery, evalTokens, checkpointEvery } = cycle;
  const { signal } = hooks;
  const metricsOf = createMetrics(names, bases, trainer.seen);
  const saving = createSaving(hooks, parts);
  let last: StepMetrics | null = null;
  /** The last step's line, as long as its evaluation is still to come. */
  let unevaluated = unevaluatedOf(resumed);
  const tell = (metrics: StepMetrics): void => {
    last = metrics;
    hooks.onStep(metrics);
  };
  /** Evaluates the last step and tells of it. Cut short by the signal, it tells what is known; the evaluation is made up for when the run goes on. */
  const finishStep = async (step: StepMetrics): Promise<void> => {
    unevaluated = step;
    const start = performance.now();
    try {
      const evaluation = await evaluate(trainer, data, names, evalTokens, signal);
      unevaluated = null;
      tell({ ...step, seconds: step.seconds + (performance.now() - start) / 1000, evaluation });
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
      tell(step);
    }
  };
  try {
    if (unevaluated !== null) await finishStep(unevaluated);
    while (trainer.steps < steps && !signal.aborted) {
      const start = performance.now();
      const step = await trainer.step();
      const metrics = metricsOf(step, null, (performance.now() - start) / 1000);
      if ((evalEvery > 0 && step.step % evalEvery === 0) || step.step === steps) await finishStep(metrics);
      else tell(metrics);
      if (checkpointEvery > 0 && step.step % checkpointEvery === 0) await saving.save(unevaluated);
      // Lets signals and timers have their turn: kernels on the CPU never wait.
      await new Promise((next) => setImmediate(next));
    }
    await saving.save(unevaluated);
    const interrupted = trainer.steps < steps || unevaluated !== null;
    const evaluation =
      lastEvaluation(last) ?? (interrupted ? null : await evaluate(trainer, data, names, evalTokens, signal));
    const result = resultOf(parts, evaluation?.target ?? null, interrupted);
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

const lastEvaluation = (line: StepMetrics | null): Evaluation | null => line?.evaluation ?? null;

interface Saving {
  /** A checkpoint, unless the newest is of this step. `unevaluated` is the step's line when its evaluation is still to come. */
  save(unevaluated: StepMetrics | null): Promise<void>;
  /** The step of the newest checkpoint. */
  saved(): number | null;
  /** The last checkpoint was begun and not finished. */
  failed(): boolean;
}

function createSaving({ store }: RunHooks, { trainer, kept, resumed }: Parts): Saving {
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
      store.saveCheckpoint(trainer.steps, { json: { ...json, ...kept, ...left }, arrays }, lines);
      saved = trainer.steps;
      saving = false;
    },
  };
}

/** What the run says when it ends. */
function resultOf(
  { trainer, names, bases }: Parts,
  targetLoss: number | null,
  interrupted: boolean,
): RunResult {
  const weights = trainer.weights();
  const named = (of: readonly string[], { final, averaged }: WeightPair): NamedWeights => ({
    final: new Map(of.map((name, i) => [name, final[i]])),
    averaged: new Map(of.map((name, i) => [name, averaged[i]])),
  });
  return {
    step: trainer.steps,
    tokens: trainer.tokens,
    loss: trainer.loss ?? NaN,
    targetLoss,
    weights: {
      ...named(names, weights.domains),
      ...(bases === null ? {} : { bases: named(bases.names, weights) }),
    },
    interrupted,
  };
}

async function saveModel({ store }: RunHooks, { model, data }: Parts): Promise<void> {
  const { tokenizer } = data;
  const files = await toHuggingFace(model, {
    tokenizer: tokenizer.toJSON(),
    endOfText: tokenizer.endOfText,
  });
  for (const [name, contents] of files) store.saveFile(`model/${name}`, contents);
}

/** The line of a checkpoint's step, when the run was stopped while it evaluated. */
function unevaluatedOf(resumed: Checkpoint | null): StepMetrics | null {
  // The checkpoint's checksum says that it is what was written.
  const text = resumed?.json["unevaluated"];
  if (typeof text !== "string") return null;
  const line = parseJson(text, { source: "the last step", code: "checkpoint" });
  return line instanceof Map
    ? (Object.fromEntries(line as ReadonlyMap<string, Json>) as unknown as StepMetrics)
    : null;
}

async function evaluate(
  trainer: Trainer,
  data: Data,
  names: readonly string[],
  tokens: number,
  signal: AbortSignal,
): Promise<Evaluation> {
  const domains = new Map<string, number>();
  for (const i of evaluated(names.length)) {
    const { heldOut } = data.domains[i];
    if (heldOut !== null) domains.set(names[i], await trainer.evaluate(heldOut, tokens, signal));
  }
  const held = data.target?.heldOut ?? null;
  return { target: held === null ? null : await trainer.evaluate(held, tokens, signal), domains };
}
