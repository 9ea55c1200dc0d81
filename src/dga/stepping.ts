/** A training step: the gradient with what its pass measures of the examples, the optimizer's step, and the loss scale. */
import { gradients } from "../autograd/grad.ts";
import { alignSink } from "../autograd/sinks/align.ts";
import { splitSink } from "../autograd/sinks/split.ts";
import { sumSink } from "../autograd/sinks/sum.ts";
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { tokenCount } from "../nn/examples.ts";
import type { Examples, Model, TrainingPass } from "../nn/model.ts";
import type { Optimizer } from "../nn/optimizer.ts";
import { show } from "../options.ts";
import { foldIn, key } from "../tensor/rng.ts";
import { formatShape } from "../tensor/shape.ts";
import { empty, isTensor, keep, type Tensor } from "../tensor/tensor.ts";
import type { Drawn } from "./drawing.ts";
import { domainOffsets, gather, pairsOf, type StepMeasurements } from "./gathered.ts";
import { allFinite, backoff, grow } from "./loss-scale.ts";
import { total } from "./measurements.ts";
import { refreshDirection } from "./measuring.ts";
import { advance, nextUpdate } from "./mixer.ts";
import { lossesOf, meanGradient, readAndDispose } from "./passes.ts";
import { wantNorms } from "./plan.ts";
import { currentMixture, directionOf, type Training } from "./training.ts";

/** What a step did with one domain. */
export interface TrainedDomain {
  /** Index of the domain. */
  readonly domain: number;
  /** Mean loss per token of the domain's examples in the batch. */
  readonly loss: number;
  /** Training tokens of the domain so far. */
  readonly tokens: number;
  /** Epochs of the domain so far, as a fraction. */
  readonly epochs: number;
}

/** What a step of the optimizer did. */
export interface OptimizerStep {
  /** Steps done, this one included. */
  readonly step: number;
  /** Training tokens seen so far. */
  readonly tokens: number;
  /** Mean loss per token, in nats. */
  readonly loss: number;
  /** Norm of the gradient before clipping; not finite on a skipped step. */
  readonly gradNorm: number;
  /** Factor of the losses for the backward pass of this step; null without loss scaling. */
  readonly lossScale: number | null;
  /**
   * Whether the gradient overflowed, so that the optimizer took no step: the data was consumed, but parameters and moments did not change. Only with
   * loss scaling.
   */
  readonly skipped: boolean;
  /** Learning rate of the step. */
  readonly lr: number;
  /** Weights of the mixer at this step: one per domain, or with bases one per basis. */
  readonly weights: Float64Array;
  /** Weights with which the batch was drawn, one per domain: `weights`, or with bases their mixture. */
  readonly domainWeights: Float64Array;
  /** The domains in the batch, ascending; the cost of a step does not depend on the others. */
  readonly trained: readonly TrainedDomain[];
}

/**
 * Draws a batch and takes a training step. Throws `numeric` if the loss is not finite, or if the gradient is not finite and no smaller loss scale is
 * left, and `data` for a batch without tokens.
 */
export async function takeStep<B extends Examples>(
  training: Training<B>,
  lr: number,
): Promise<OptimizerStep> {
  const { options, plan, drawing, scaling, state } = training;
  const { mixer } = options;
  const step = state.mixer.steps + 1;
  const mixture = currentMixture(training);
  // Steps of a warm-up that no update covers are not measured.
  const stepsSinceUpdate = state.mixer.steps - (nextUpdate(mixer, state.mixer.steps) - mixer.updateEvery);
  const { refreshEvery, measureEvery } = training.alignment;
  const aligned = training.gathers && stepsSinceUpdate >= 0 && stepsSinceUpdate % measureEvery === 0;
  const observed = training.gathers ? aligned : training.recordsLosses && stepsSinceUpdate >= 0;
  // A refresh that is due between two measuring steps happens at the next of them.
  const refreshes =
    Math.floor(stepsSinceUpdate / refreshEvery) >
    Math.floor((stepsSinceUpdate - measureEvery) / refreshEvery);
  const first = state.gathered.targetNorms.length === 0;
  if (aligned && (first || refreshes)) await refreshDirection(training, first);
  const drawn = drawing.training(mixture);
  const lossScale = state.scales?.step.scale ?? null;
  const tokens = tokenCount(drawn.batch);
  if (tokens === 0)
    throw new GradmixError(
      "data",
      `none of the examples drawn for step ${step} has a token to learn from; use a larger batch, or leave out examples without tokens`,
    );
  const reference = observed && plan.reference ? options.reference : undefined;
  const model = inTraining(options.model, { step, seed: stepSeed(options.seed, step) });
  const measured = aligned
    ? await alignedGradient(training, model, drawn, lossScale ?? 1)
    : await trainingGradient(training, model, drawn, lossScale ?? 1, reference);
  const { gradNorm, overflowed } = await optimize(training, lr, measured);
  const loss = total(measured.losses) / tokens;
  if (
    !Number.isFinite(loss) ||
    (!Number.isFinite(gradNorm) && (lossScale === null || lossScale === scaling?.min))
  )
    throw new GradmixError(
      "numeric",
      `the ${Number.isFinite(loss) ? "gradient" : "loss"} became ${Number.isFinite(loss) ? gradNorm : loss} at step ${step}; lower the learning rate`,
    );
  // After an overflow, the losses of a step are valid but its alignments are not.
  if (observed && !(overflowed && training.gathers)) gather(state.gathered, measured);
  state.tokens += tokens;
  state.loss = loss;
  state.mixer = advance(state.mixer);
  return {
    step,
    tokens: state.tokens,
    loss,
    gradNorm,
    lossScale,
    skipped: !Number.isFinite(gradNorm),
    lr,
    weights: mixture.weights,
    domainWeights: mixture.domainWeights,
    trained: lossByDomain(measured).map(([domain, own]) => ({ domain, loss: own, ...drawing.seen(domain) })),
  };
}

/** The model, whose losses are those of a training step. */
function inTraining<B extends Examples>(model: Model<B>, pass: TrainingPass): Model<B> {
  return { parameters: model.parameters, losses: (batch) => model.losses(batch, pass) };
}

/** Separates the random numbers of training steps from others of the same seed, such as those of the first parameters. */
const OF_STEPS = 0x57e9;

/** The seed of a step's random numbers: 53 bits. */
function stepSeed(seed: number, step: number): number {
  const [high, low] = foldIn(foldIn(key(seed), OF_STEPS), step);
  return (high >>> 11) * 2 ** 32 + low;
}

/** Computes the training gradient, times the loss scale, into `gradient`, and returns what its pass measured of the examples. */
async function trainingGradient<B extends Examples>(
  { device: { gradient } }: Training<B>,
  model: Model<B>,
  { batch, domainOf }: Drawn<B>,
  lossScale: number,
  reference: Model<B> | undefined,
): Promise<StepMeasurements> {
  const { list } = model.parameters;
  return {
    domainOf,
    tokens: batch.tokens,
    losses: await readAndDispose(meanGradient(model, batch, gradient, false, list, lossScale)),
    dots: [],
    squaredNorms: [],
    pairs: [],
    referenceLosses: reference === undefined ? [] : await lossesOf(reference, batch),
  };
}

/** The same in one pass that also computes every example's inner product with the target's gradient, and norms. */
async function alignedGradient<B extends Examples>(
  training: Training<B>,
  model: Model<B>,
  { batch, domainOf }: Drawn<B>,
  lossScale: number,
): Promise<StepMeasurements> {
  const { options, aligned, device, state } = training;
  const { mixer } = options;
  const examples = domainOf.length;
  const groups = domainOffsets(domainOf);
  const gradientOf = device.gradient.of;
  const measuring = alignSink({
    examples,
    groups,
    direction: { given: directionOf(training).of },
    total: { gradientOf },
  });
  const summing = sumSink({ gradientOf });
  const sink = splitSink(aligned, measuring, summing);
  const tokens = tokenCount(batch);
  try {
    const weights = new Float64Array(examples).fill(lossScale / tokens);
    const { list: parameters } = model.parameters;
    const losses = await readAndDispose(gradients(() => model.losses(batch), { parameters, sink, weights }));
    const found = await measuring.result();
    const { tied } = found;
    if (tied !== null) wantNorms(mixer.rule, undefined, tied);
    // The pass scaled every loss by S/tokens; the measurements are those of the unscaled sums.
    const unweighted = (square: number): number => (square / lossScale ** 2) * tokens ** 2;
    const squaredNorms = tied === null ? found.squaredNorms.map(unweighted) : new Float64Array(0);
    return {
      domainOf,
      tokens: batch.tokens,
      losses,
      dots: found.dots.map((dot) => (dot / (lossScale * state.directionScale)) * tokens),
      squaredNorms,
      pairs:
        tied === null
          ? pairsOf(
              domainOf,
              Float64Array.from(batch.tokens),
              groups,
              squaredNorms,
              found.groupSquaredNorms.map(unweighted),
            )
          : [],
      // No rule both aligns and compares with a reference.
      referenceLosses: [],
    };
  } finally {
    measuring.dispose();
    summing.dispose();
  }
}

/**
 * Takes an optimizer step with the gradient that `trainingGradient` computed, and returns its norm. After an overflow with loss scaling it takes no
 * step and halves the scale.
 */
async function optimize<B extends Examples>(
  { device: { optimizer, gradient }, scaling, state: { scales } }: Training<B>,
  lr: number,
  measured: StepMeasurements,
): Promise<{ gradNorm: number; overflowed: boolean }> {
  if (scaling === null || scales === null) {
    const sumsq = stepOf(optimizer, gradient.arena, lr);
    return { gradNorm: Math.sqrt((await readAndDispose(sumsq))[0]!), overflowed: false };
  }
  const { step } = scales;
  const squaredNorm = keep(empty([1], "f32", gradient.arena.memory));
  try {
    run("sumSquares", {}, { x: gradient.arena }, { out: squaredNorm });
    const gradNorm = Math.sqrt((await squaredNorm.data())[0]!) / step.scale;
    if (Number.isFinite(gradNorm))
      stepOf(optimizer, gradient.arena, lr, { lossScale: step.scale, squaredNorm }).dispose();
    // Numbers of single examples may overflow although their sum does not.
    const overflowed = !allFinite([gradNorm, measured.dots, measured.squaredNorms, measured.pairs]);
    scales.step = overflowed ? backoff(step, scaling) : grow(step, scaling);
    return { gradNorm, overflowed };
  } finally {
    squaredNorm.dispose();
  }
}

/** The optimizer's step. Throws `config` for an optimizer of the user's that does not return the squared norm. */
function stepOf(optimizer: Optimizer, ...[gradient, lr, options]: Parameters<Optimizer["step"]>): Tensor {
  const squaredNorm: unknown = optimizer.step(gradient, lr, options);
  if (!isTensor(squaredNorm) || squaredNorm.size !== 1)
    throw new GradmixError(
      "config",
      `optimizer ${optimizer.name}: step returned ${isTensor(squaredNorm) ? `a tensor ${formatShape(squaredNorm.shape)}` : show(squaredNorm)}; it must return the squared norm of the gradient, a tensor [1]`,
    );
  return squaredNorm;
}

/** Mean loss per token of each domain in the batch. */
function lossByDomain({ losses, domainOf, tokens }: StepMeasurements): [number, number][] {
  const out: [number, number][] = [];
  for (let first = 0, end = 0; first < losses.length; first = end) {
    let [sum, count] = [0, 0];
    for (; end < losses.length && domainOf[end] === domainOf[first]; end++) {
      sum += losses[end]!;
      count += tokens[end]!;
    }
    out.push([domainOf[first]!, sum / Math.max(1, count)]);
  }
  return out;
}
