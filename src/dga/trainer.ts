/**
 * The trainer: trains a model while its mixer finds the weights of the domains (Fan, Grangier, Ablin 2024, Algorithm 1).
 *
 * Every step draws a batch from mix(α) and takes an optimizer step. Every T_r steps the alignments of all domains with the target are measured at the
 * new parameters, and the rule moves the weights. The alignments come either from a separate batch (`from: "batch"`, the paper's way) or from the
 * training steps themselves (`from: "step"`): each measured training gradient then also yields the inner product of every example with a target
 * gradient that is refreshed regularly.
 *
 * It uses no files and no clock: a step returns what it did, the whole state can be saved and restored, and the same state continues bit for bit.
 */
import type { CancelSignal } from "../cancel.ts";
import { checkDataset, type Dataset } from "../data/dataset.ts";
import { GradmixError } from "../errors.ts";
import type { Examples, Model, TokenBatch } from "../nn/model.ts";
import { abortSignal, numberIn, show } from "../options.ts";
import { mixtureOf } from "./bases.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { meanLoss } from "./evaluation.ts";
import { emptyGathered } from "./gathered.ts";
import {
  heldOutAtUpdate,
  type HeldOutLosses,
  heldOutNow,
  noteReference,
  signalOfHeldOut,
} from "./held-out.ts";
import type { Alignments } from "./measurements.ts";
import { measure } from "./measuring.ts";
import { averageWeights, currentWeights, type MixerState, update, updateDue } from "./mixer.ts";
import type { Signal } from "./rule.ts";
import { restore, save } from "./saved.ts";
import { type OptimizerStep, takeStep } from "./stepping.ts";
import type { TrainerOptions } from "./trainer-options.ts";
import { createTraining, type Training } from "./training.ts";
import { createTurns } from "./turns.ts";

export type { TrainedDomain } from "./stepping.ts";
export type { AlignmentOptions } from "./alignment-options.ts";
export type { HeldOutOptions, TrainerOptions } from "./trainer-options.ts";
export type { HeldOutLosses } from "./held-out.ts";

/** What one step did. `weights` and `alignments` have one entry per domain or, with bases, one per basis. */
export interface TrainStep extends OptimizerStep {
  /** The alignments of the update after this step; null on steps without one. */
  readonly alignments: Alignments | null;
  /** The held-out losses that were measured for the rule after this step; null on steps without them. */
  readonly heldOut: HeldOutLosses | null;
}

/** Weights of a run, one entry per domain. */
export interface WeightPair {
  /** Weights after the last step. */
  readonly final: Float64Array;
  /** Mean of the weights over the steps so far. */
  readonly averaged: Float64Array;
}

/** Trains a model while its mixer moves the weights of the domains. `createTrainer` makes one. */
export interface Trainer<B extends Examples = TokenBatch> {
  /** The model that is trained. */
  readonly model: Model<B>;
  /**
   * Takes one training step, and a weight update if it is due. Throws `numeric`, naming the step, if the loss or the gradient is not finite (with
   * loss scaling: if the loss is not finite, or no smaller scale is left), and `data` if no example of the batch has a token. After an error in the
   * middle of a step, the trainer can only continue by `restore`.
   *
   * Only one call of `step`, `evaluate`, `heldOut`, `save`, `restore` or `dispose` may run at a time: a second one throws `busy` and changes nothing.
   * Except for `dispose`, this is also so among all trainers of one model. They may take turns, and each then continues from the parameters as they are.
   */
  step(): Promise<TrainStep>;
  /** Number of training steps taken. */
  readonly steps: number;
  /** Training tokens seen so far. */
  readonly tokens: number;
  /** Mean loss per token of the last step; null before the first. */
  readonly loss: number | null;
  /** Current state of the mixer. */
  readonly mixer: MixerState;
  /** The current weights and their mean over the steps so far; with bases, `domains` has the domain weights that follow from them. */
  weights(): WeightPair & {
    /** Weights of the domains; without bases these equal the weights themselves. */
    readonly domains: WeightPair;
  };
  /** Training tokens and epochs of one domain (by index) so far. */
  seen(domain: number): {
    /** Tokens of the domain so far. */
    readonly tokens: number;
    /** Epochs of the domain so far, as a fraction. */
    readonly epochs: number;
  };
  /** Mean loss per token, in nats, over the first examples of `source` that hold `tokens` tokens. Rejects with the reason of `signal` once it is aborted. */
  evaluate(source: Dataset<B>, tokens: number, signal?: CancelSignal): Promise<number>;
  /**
   * The held-out losses that the rule needs, at the current parameters; null for a rule that needs none. It does not change the training that
   * follows. Rejects like `evaluate`.
   */
  heldOut(signal?: CancelSignal): Promise<HeldOutLosses | null>;
  /** Saves everything that `restore` needs to continue bit for bit. Throws `numeric` if a parameter is not finite. */
  save(): Promise<Checkpoint>;
  /**
   * Continues from a checkpoint. Throws `checkpoint`, naming what does not fit; then nothing has changed. A checkpoint has the names of the domains, of the
   * rule and its combinators, and of the optimizer, the seed, and the layout of the state. It has neither the text nor the other options (batch, schedule, step
   * sizes and so on). Those may differ on purpose, so to continue bit for bit, make the trainer with the same ones.
   */
  restore(checkpoint: Checkpoint): void;
  /** Frees the optimizer and the memory for alignments. The model is not disposed. */
  dispose(): void;
}

/**
 * Makes a trainer. Throws `config` if the options do not fit together, and `data`, naming the domain, if its examples do not fit the model or each
 * other. The caller disposes the model.
 */
export function createTrainer<B extends Examples = TokenBatch>(options: TrainerOptions<B>): Trainer<B> {
  const training = createTraining(options);
  const { drawing, device, state } = training;
  // Those of the trainer, which the caller cannot change.
  const { model, schedule, batch, bases } = training.options;

  /** The error of a step that failed half-way and left no valid state; null if there was none. */
  let failure: unknown = null;
  const checkUsable = (): void => {
    if (failure === null) return;
    throw new GradmixError(
      failure instanceof GradmixError ? failure.code : "numeric",
      `the trainer cannot go on after an error (${failure instanceof Error ? failure.message : show(failure)}); restore a checkpoint`,
      { cause: failure },
    );
  };

  async function step(): Promise<TrainStep> {
    checkUsable();
    const lr = schedule(state.mixer.steps);
    numberIn({ min: 0 })(`schedule(${state.mixer.steps})`, lr);
    try {
      await noteReference(training);
      return { ...(await takeStep(training, lr)), ...(await mix(training)) };
    } catch (error) {
      failure = error;
      throw error;
    }
  }

  function weights(): ReturnType<Trainer["weights"]> {
    const own = { final: currentWeights(state.mixer), averaged: averageWeights(state.mixer) };
    if (bases === undefined) return { ...own, domains: own };
    const domains = { final: mixtureOf(bases, own.final), averaged: mixtureOf(bases, own.averaged) };
    return { ...own, domains };
  }

  const turns = createTurns("trainer", model.parameters);
  return {
    model,
    get steps() {
      return state.mixer.steps;
    },
    get tokens() {
      return state.tokens;
    },
    get loss() {
      return state.loss;
    },
    get mixer() {
      return state.mixer;
    },
    weights,
    seen: drawing.seen,
    step: () => turns.run("step", step),
    evaluate: (source, tokens, signal) =>
      turns.run("evaluate", async () => {
        checkDataset("evaluate: source", source);
        checkSignal("evaluate", signal);
        return meanLoss(model, source, tokens, batch, signal);
      }),
    heldOut: (signal) =>
      turns.run("heldOut", async () => {
        checkUsable();
        checkSignal("heldOut", signal);
        return heldOutNow(training, signal);
      }),
    save: () =>
      turns.run("save", async () => {
        checkUsable();
        return save(training);
      }),
    restore: (checkpoint) =>
      turns.runNow("restore", () => {
        restore(training, checkpoint, () => {
          failure = new GradmixError("checkpoint", "the checkpoint was not written whole to the device");
        });
        failure = null;
      }),
    dispose: () => turns.end("dispose", device.dispose),
  };
}

/** Throws `config` for something other than a signal; it may be left out. */
function checkSignal(where: string, signal: unknown): void {
  if (signal !== undefined) abortSignal(`${where}: signal`, signal);
}

/** The mixer's part of a step: if an update is due, measures and calls the rule. Returns the measurements that belong in a log. */
async function mix<B extends Examples>(
  training: Training<B>,
): Promise<Pick<TrainStep, "alignments" | "heldOut">> {
  const { options, gathers, state } = training;
  const nothingFound = { alignments: null, heldOut: null };
  if (!updateDue(options.mixer, state.mixer)) return nothingFound;
  // If all steps overflowed, and there were no probes, there is no measurement for the rule.
  const found = gathers && state.gathered.domainOf.length === 0 ? null : await measure(training);
  state.gathered = emptyGathered();
  if (found === null) return nothingFound;
  const heldOut = await heldOutAtUpdate(training);
  const signal = heldOut === null ? found.signal : { ...found.signal, ...signalOfHeldOut(heldOut) };
  state.mixer = updated(training, signal);
  training.mixture = null;
  return { alignments: found.alignments, heldOut };
}

/**
 * The mixer's state after a signal. Measurements at diverged parameters are not finite, so the error gives the same advice as for a loss that is not
 * finite.
 */
function updated<B extends Examples>({ options, state }: Training<B>, signal: Signal): MixerState {
  try {
    return update(options.mixer, state.mixer, signal);
  } catch (error) {
    if (!(error instanceof GradmixError) || error.code !== "numeric") throw error;
    throw new GradmixError(
      "numeric",
      `${error.message}, at step ${state.mixer.steps}; lower the learning rate`,
      {
        cause: error,
      },
    );
  }
}
