/** What the parts of a trainer share: its options with what follows from them, its memory on the device, and its state. */
import type { Examples } from "../nn/model.ts";
import { adamw, checkOptimizer as checkIsOptimizer, type Optimizer } from "../nn/optimizer.ts";
import { type Arena, arenaLike, checkParameters, orDispose, type Parameters } from "../nn/parameters.ts";
import { GradmixError } from "../errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { createDrawing, type Drawing, type Mixture } from "./drawing.ts";
import { type Gathered, emptyGathered } from "./gathered.ts";
import type { ReferenceLosses } from "./held-out.ts";
import { firstScales, type LossScaleOptions, lossScaleOptions, type Scales } from "./loss-scale.ts";
import { currentWeights, type MixerState } from "./mixer.ts";
import { type Plan, planOf } from "./plan.ts";
import { blockCount, selectedParameters } from "./selection.ts";
import {
  alignedParameters,
  checkTrainer,
  heldOutDefaults,
  resolveAlignment,
  type ResolvedAlignment,
  type TrainerOptions,
} from "./trainer-options.ts";

/** State that determines how a trainer continues, in addition to the arenas and the samplers. Saved and restored. */
export interface TrainerState {
  mixer: MixerState;
  /** Training tokens seen so far. */
  tokens: number;
  /** Mean loss per token of the last step. */
  loss: number | null;
  gathered: Gathered;
  scales: Scales | null;
  /** Factor that is contained in the target's gradient in `direction`. */
  directionScale: number;
  /** Losses that held-out losses are compared with; null before the first step and for rules that need none. */
  reference: ReferenceLosses | null;
}

/** Everything that a trainer holds on the device. */
export interface Device {
  readonly optimizer: Optimizer;
  readonly gradient: Arena;
  /** The target's gradient; null for rules that do not align. */
  readonly direction: Arena | null;
  dispose(): void;
}

export interface Training<B extends Examples> {
  readonly options: TrainerOptions<B>;
  /** Alignment options with their defaults; `parameters` selects what `blockShare` asks for. */
  readonly alignment: ResolvedAlignment;
  /** The parameters whose gradients the training steps align; empty if they align none. */
  readonly aligned: ReadonlySet<Tensor>;
  readonly plan: Plan;
  /** Held-out options with their defaults; the sets are in `options`. */
  readonly heldOut: typeof heldOutDefaults;
  /** Whether the training steps measure every example's alignment. */
  readonly gathers: boolean;
  /** Whether the training steps record losses; some rules need nothing else. */
  readonly recordsLosses: boolean;
  readonly scaling: Required<LossScaleOptions> | null;
  readonly drawing: Drawing<B>;
  readonly device: Device;
  readonly state: TrainerState;
  /** The mixture that the steps draw from until the weights change; null before it is made. */
  mixture: Mixture | null;
}

/** Allocates the state of a trainer. Throws like `createTrainer`; then nothing is allocated. */
export function createTraining<B extends Examples>(given: TrainerOptions<B>): Training<B> {
  checkTrainer(given);
  const options = withOwnLists(given);
  checkParameters("createTrainer: model: parameters", options.model.parameters);
  const { model, mixer, lossScale = null } = options;
  const { needs } = mixer.rule;
  const scaling = lossScale === null ? null : lossScaleOptions(lossScale);
  const plan = planOf(needs);
  const alignment = alignmentFor(options);
  const gathers = plan.aligns && alignment.from === "step";
  const aligned = new Set(gathers ? selectedParameters(model, alignment) : []);
  const drawing = createDrawing(options);
  const device = makeDevice(model.parameters, options.optimizer ?? adamw, plan.aligns || plan.targets);
  orDispose(() => checkOptimizer(device.optimizer, mixer.rule.name, plan), device);
  return {
    options,
    alignment,
    aligned,
    plan,
    heldOut: {
      tokens: options.heldOut?.tokens ?? heldOutDefaults.tokens,
      every: options.heldOut?.every ?? heldOutDefaults.every,
    },
    gathers,
    recordsLosses: gathers || (needs.length > 0 && !plan.aligns),
    scaling,
    drawing,
    device,
    state: {
      mixer: mixer.initial,
      tokens: 0,
      loss: null,
      gathered: emptyGathered(),
      scales: firstScales(scaling),
      directionScale: 1,
      reference: null,
    },
    mixture: null,
  };
}

/** A copy of the options and of the lists in them, which the caller may change afterwards. */
function withOwnLists<B extends Examples>(options: TrainerOptions<B>): TrainerOptions<B> {
  const { domains, targets, heldOut, alignment } = options;
  return {
    ...options,
    domains: [...domains],
    ...(targets === undefined ? {} : { targets: new Map(targets) }),
    ...(heldOut === undefined ? {} : { heldOut: { ...heldOut, sets: [...heldOut.sets] } }),
    ...(alignment === undefined ? {} : { alignment: { ...alignment } }),
  };
}

/**
 * The alignment options with their defaults for this model. Throws `config` for a share of the blocks that was given and selects no matrix; the share
 * that a rule asks for then means all parameters.
 */
function alignmentFor<B extends Examples>({
  model,
  mixer,
  alignment = {},
}: TrainerOptions<B>): ResolvedAlignment {
  const { specs } = model.parameters;
  const resolved = resolveAlignment(alignment, mixer);
  const parameters = alignedParameters(resolved, specs);
  if (parameters !== undefined) return { ...resolved, parameters };
  const { blockShare = 1 } = alignment;
  if (blockShare < 1)
    throw new GradmixError(
      "config",
      `createTrainer: alignment: blockShare: ${blockShare} selects no matrix of this model, whose ${blockCount(specs) === 0 ? "parameters are in no blocks" : "head is tied to the embedding or missing"}; leave it out, or select by name with parameters`,
    );
  return resolved;
}

export function currentMixture<B extends Examples>(training: Training<B>): Mixture {
  return (training.mixture ??= training.drawing.prepare(currentWeights(training.state.mixer)));
}

/** The arena of the target's gradient. Throws `config` for a rule that does not align. */
export function directionOf<B extends Examples>({ device, options }: Training<B>): Arena {
  if (device.direction === null)
    throw new GradmixError("config", `rule ${options.mixer.rule.name}: it computes no alignments`);
  return device.direction;
}

/** Allocates a trainer's memory. If memory runs out, everything allocated so far is freed. */
function makeDevice(
  parameters: Parameters,
  optimizerOf: (parameters: Parameters) => Optimizer,
  directed: boolean,
): Device {
  const made: { dispose(): void }[] = [];
  const own = <T extends { dispose(): void }>(it: T): T => {
    made.push(it);
    return it;
  };
  const dispose = (): void => {
    for (const it of made) it.dispose();
  };
  return orDispose(
    () => ({
      optimizer: own(madeBy(optimizerOf, parameters)),
      gradient: own(arenaLike(parameters)),
      direction: directed ? own(arenaLike(parameters)) : null,
      dispose,
    }),
    { dispose },
  );
}

/** The optimizer that a function makes. Throws `config` unless it is one, and of these parameters. */
function madeBy(optimizerOf: (parameters: Parameters) => Optimizer, parameters: Parameters): Optimizer {
  const optimizer = optimizerOf(parameters);
  checkIsOptimizer("createTrainer: optimizer", optimizer);
  if (optimizer.parameters === undefined || optimizer.parameters === parameters) return optimizer;
  optimizer.dispose();
  throw new GradmixError(
    "config",
    `createTrainer: optimizer: the function made an ${optimizer.name} of other parameters than the model's; make it with those that the function is given: (parameters) => adamw(parameters)`,
  );
}

/** Arrays of a checkpoint that are not the optimizer's. */
const ownArrays: readonly string[] = ["value", "direction"];

/** Throws `config` for an optimizer that lacks what the rule needs, and for names in its state that the trainer needs. */
function checkOptimizer(optimizer: Optimizer, rule: string, plan: Plan): void {
  const reserved = Object.keys(optimizer.state).find((name) => ownArrays.includes(name));
  if (reserved !== undefined)
    throw new GradmixError(
      "config",
      `optimizer ${optimizer.name}: its state cannot be called "${reserved}", as an array of the trainer's checkpoints is; give it another name`,
    );
  if (plan.preconditioned && optimizer.preconditioner === undefined)
    throw new GradmixError(
      "config",
      `rule ${rule}: it asks for alignments preconditioned by second moments, and optimizer ${optimizer.name} has none; use one that has them, such as adamw, or another normalise than adam`,
    );
}
