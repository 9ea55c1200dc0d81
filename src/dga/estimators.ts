/**
 * Alignment estimators: how far the gradient of each domain points in the direction of the target's gradient.
 *
 * All of them measure, at the current parameters, aᵢ = ⟨∇Lᵢ, ∇L_target⟩, where L is the mean loss per token of a batch. They differ in cost and in
 * what else they measure:
 *
 * | estimator   | passes                                     | domain norms | standard errors |
 * | ----------- | ------------------------------------------ | ------------ | --------------- |
 * | `perDomain` | one backward pass per domain (the paper's) | yes          | no              |
 * | `segmented` | one backward pass over all rows, segmented | yes          | yes             |
 * | `forward`   | one forward-mode pass over all rows        | no           | yes             |
 * | `sketch`    | one backward pass over all rows, projected | projected    | of projection   |
 *
 * Each needs one backward pass over the target batch first. The first three are exact. `sketch` is a random projection (sketches.ts): the sketches of
 * domains can be kept and aligned with any number of targets.
 */
import { forwardDerivative, gradients } from "../autograd/grad.ts";
import { alignSink } from "../autograd/sinks/align.ts";
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { type Arena, arenaLike, checkArena } from "../nn/parameters.ts";
import { concatenate, cutExamples, exampleCount, tokenCount, checkExamples } from "../nn/examples.ts";
import type { Examples, Model } from "../nn/model.ts";
import type { Preconditioner } from "../nn/optimizer.ts";
import { integerIn, oneOf } from "../options.ts";
import { empty, keep, scope, type Tensor } from "../tensor/tensor.ts";
import { type EstimatorName, estimatorNames } from "./alignment-options.ts";
import {
  type Alignments,
  type ExampleMeasurements,
  measurementsOf,
  type TargetMeasurements,
  total,
} from "./measurements.ts";
import {
  checkEstimate,
  chunks,
  type EstimateOptions,
  exampleWeight,
  meanGradient,
  scaleOf,
  readAndDispose,
  checkBatches,
  checkMeasured,
} from "./passes.ts";
import { selectedParameters } from "./selection.ts";
import { alignSketches, sketchGradients } from "./sketches.ts";

/**
 * Measures the alignments of the domains' batches with the target's batch at the current parameters. Where a pass uses a parameter twice (tied
 * weights), "segmented" gives no norms and names the parameter in `tied`; "perDomain" computes whole gradients and so still gives norms.
 */
export async function estimateAlignments<B extends Examples>(
  name: EstimatorName,
  model: Model<NoInfer<B>>,
  target: B,
  domains: readonly B[],
  options: EstimateOptions = {},
): Promise<Alignments> {
  oneOf(...estimatorNames)("estimateAlignments: name", name);
  checkEstimate("estimateAlignments", options);
  checkBatches("estimateAlignments", model, domains);
  checkExamples("estimateAlignments: target", target);
  if (domains.length === 0)
    throw new GradmixError("config", "estimateAlignments: at least one domain's batch is needed");
  if (name === "sketch") {
    if (options.precondition !== undefined)
      throw new GradmixError(
        "config",
        "estimator sketch: it cannot precondition; use segmented, perDomain or forward",
      );
    if (tokenCount(target) === 0)
      throw new GradmixError("data", "the target batch has no tokens to learn from");
    const sketched = await sketchGradients(model, domains, options);
    return alignSketches(sketched, await sketchGradients(model, [target], options));
  }
  const direction = options.direction ?? arenaLike(model.parameters);
  try {
    const { targetLoss, targetNorm } = await targetDirection(model, target, direction, options);
    const found =
      name === "perDomain"
        ? await perDomain(model, domains, direction, options)
        : await byRows(name, model, domains, direction, options);
    return { ...found, targetNorm, targetLoss };
  } finally {
    if (options.direction === undefined) direction.dispose();
  }
}

/** Writes the target's (preconditioned) gradient, times the loss scale, into `direction`, and returns its norm and the target's mean loss. */
export async function targetDirection<B extends Examples>(
  model: Model<NoInfer<B>>,
  target: B,
  direction: Arena,
  options: EstimateOptions = {},
): Promise<TargetMeasurements> {
  checkEstimate("targetDirection", options);
  checkMeasured("targetDirection", model);
  checkExamples("targetDirection", target);
  checkArena("targetDirection: direction", direction);
  if (tokenCount(target) === 0)
    throw new GradmixError("data", "the target batch has no tokens to learn from");
  const scale = scaleOf(options);
  clearRest(direction, options);
  const losses = await readAndDispose(
    meanGradient(model, target, direction, false, selectedParameters(model, options), scale),
  );
  if (options.precondition !== undefined) precondition(direction.arena, options.precondition);
  return {
    targetLoss: total(losses) / tokenCount(target),
    targetNorm: Math.sqrt(await dotOf(direction.arena, direction.arena)) / scale,
  };
}

/** Sets to 0 what no pass writes. */
function clearRest(arena: Arena, { parameters }: EstimateOptions): void {
  if (parameters !== undefined) run("fill", { value: 0 }, {}, { out: arena.arena });
}

/** Preconditions in place: direction ← direction / (√(v/bias) + ε). */
function precondition(direction: Tensor, { v, bias, eps }: Preconditioner): void {
  scope(() => {
    const scale = empty([direction.size], "f32", direction.memory);
    run("affine", { scale: 1 / bias, shift: 0 }, { x: v.arena }, { y: scale });
    run("unary", { kind: "sqrt" }, { x: scale }, { y: scale });
    run("affine", { scale: 1, shift: eps }, { x: scale }, { y: scale });
    const shape = [direction.size];
    run(
      "binary",
      { kind: "div", shape, aStrides: [1], bStrides: [1] },
      { a: direction, b: scale },
      { c: direction },
    );
  });
}

// From here on, `direction` holds the loss scale times V.

type DomainPart = Omit<Alignments, keyof TargetMeasurements>;

async function perDomain<B extends Examples>(
  model: Model<NoInfer<B>>,
  domains: readonly B[],
  direction: Arena,
  options: EstimateOptions,
): Promise<DomainPart> {
  const parameters = selectedParameters(model, options);
  const scale = scaleOf(options);
  const k = domains.length;
  const alignments = new Float64Array(k);
  const norms = new Float64Array(k);
  const losses = new Float64Array(k);
  const gradient = arenaLike(model.parameters);
  try {
    for (let i = 0; i < k; i++) {
      const summed = await readAndDispose(
        meanGradient(model, domains[i]!, gradient, false, parameters, scale),
      );
      losses[i] = total(summed) / Math.max(1, tokenCount(domains[i]!));
      alignments[i] = (await dotOf(gradient.arena, direction.arena)) / scale ** 2;
      norms[i] = Math.sqrt(await dotOf(gradient.arena, gradient.arena)) / scale;
    }
  } finally {
    gradient.dispose();
  }
  return { alignments, norms, tokens: Float64Array.from(domains, tokenCount), losses };
}

async function byRows<B extends Examples>(
  name: "segmented" | "forward",
  model: Model<NoInfer<B>>,
  domains: readonly B[],
  direction: Arena,
  options: EstimateOptions,
): Promise<DomainPart> {
  const k = domains.length;
  const norms = new Float64Array(k);
  const examples = {
    domainOf: domains.flatMap((domain, i) => new Array<number>(exampleCount(domain)).fill(i)),
    tokens: domains.flatMap(({ tokens }) => Array.from(tokens)),
    dots: new Float64Array(total(domains.map(exampleCount))),
    losses: new Float64Array(total(domains.map(exampleCount))),
  };
  let start = 0;
  let tied: string | undefined;
  const { maxExamples = Infinity } = options;
  for (const [first, last] of chunks(domains, maxExamples)) {
    const part = domains.slice(first, last);
    const batch = concatenate(part);
    const measured =
      name === "segmented"
        ? await segmentedPass(model, batch, part.map(exampleCount), direction, options)
        : await forwardPass(model, batch, direction, options);
    examples.dots.set(measured.dots, start);
    examples.losses.set(measured.losses, start);
    start += exampleCount(batch);
    tied ??= measured.tied;
    measured.groupSquaredNorms?.forEach((square, i) => {
      norms[first + i] = Math.sqrt(square) / Math.max(1, tokenCount(part[i]!));
    });
  }
  return {
    ...measurementsOf(examples, k, name === "segmented" && tied === undefined ? norms : undefined),
    ...(tied === undefined ? {} : { tied }),
  };
}

/** What a pass measured of a batch's examples; see `ExampleMeasurements`. */
interface ExamplePass {
  readonly dots: Float64Array;
  readonly losses: Float64Array;
  readonly squaredNorms?: Float64Array;
  /** ‖∇ Σ ℓₑ‖² over the examples of each group. */
  readonly groupSquaredNorms?: Float64Array;
  /** Name of the parameter because of which there are no norms. */
  readonly tied?: string;
}

/**
 * Measures every example of a batch along the direction that `targetDirection` computed, with one segmented pass per `maxExamples` examples. Where a
 * pass uses a parameter twice (tied weights), there are no norms and `tied` names the parameter.
 */
export async function exampleNumbers<B extends Examples>(
  model: Model<NoInfer<B>>,
  batch: B,
  direction: Arena,
  options: EstimateOptions = {},
): Promise<
  Omit<ExampleMeasurements, "domainOf"> & {
    /** ⟨∇ℓₑ, direction⟩ of the summed loss ℓₑ of each example [examples]. */
    readonly dots: Float64Array;
    /** Summed loss of each example [examples]. */
    readonly losses: Float64Array;
    /** ‖∇ℓₑ‖² of each example [examples], if they were requested and can be computed. */
    readonly squaredNorms?: Float64Array;
    /** Name of a parameter that the pass used twice (tied weights), so that norms cannot be computed. */
    readonly tied?: string;
  }
> {
  checkEstimate("exampleNumbers", options);
  checkMeasured("exampleNumbers", model);
  checkExamples("exampleNumbers", batch);
  checkArena("exampleNumbers: direction", direction);
  const count = exampleCount(batch);
  const dots = new Float64Array(count);
  const losses = new Float64Array(count);
  const squaredNorms = new Float64Array(count);
  let tied: string | undefined;
  const { maxExamples = count } = options;
  for (let first = 0; first < count; first += maxExamples) {
    const last = Math.min(count, first + maxExamples);
    const part = cutExamples(batch, first, last);
    const numbers = await segmentedPass(model, part, [last - first], direction, options);
    dots.set(numbers.dots, first);
    losses.set(numbers.losses, first);
    if (numbers.squaredNorms !== undefined) squaredNorms.set(numbers.squaredNorms, first);
    tied ??= numbers.tied;
  }
  return { tokens: batch.tokens, dots, losses, ...(tied === undefined ? { squaredNorms } : { tied }) };
}

/** Default number of gradients that are held at once for a Gram matrix. */
export const GRAM_HELD = 32;

/**
 * Computes the Gram matrix ⟨∇Lᵢ, ∇Lⱼ⟩ of the domains' gradients (of mean losses per token), row-major [k, k], and the losses. Gradients are held in
 * blocks of at most `held` (default 32) and computed again for later blocks: k + k²/(2·held) backward passes.
 */
export async function estimateGram<B extends Examples>(
  model: Model<NoInfer<B>>,
  domains: readonly B[],
  options: EstimateOptions & { readonly held?: number } = {},
): Promise<{
  /** ⟨∇Lᵢ, ∇Lⱼ⟩, row-major [k, k]. */
  gram: Float64Array;
  /** Lᵢ, the mean loss per token of each domain [k]. */
  losses: Float64Array;
}> {
  checkEstimate("estimateGram", options, { held: integerIn(1) });
  checkBatches("estimateGram", model, domains);
  const k = domains.length;
  const { held = GRAM_HELD } = options;
  const parameters = selectedParameters(model, options);
  const scale = scaleOf(options);
  const gram = new Float64Array(k * k);
  const losses = new Float64Array(k);
  const arenas: Arena[] = [];
  const gradientOf = async (i: number, into: Arena): Promise<void> => {
    const summed = await readAndDispose(meanGradient(model, domains[i]!, into, false, parameters, scale));
    losses[i] = total(summed) / Math.max(1, tokenCount(domains[i]!));
  };
  const enter = async (i: number, j: number, a: Arena, b: Arena): Promise<void> => {
    const value = await dotOf(a.arena, b.arena);
    gram[i * k + j] = gram[j * k + i] = value / scale ** 2;
  };
  try {
    // One arena more than the block, for the gradients that are compared with it.
    for (let n = 0; n < Math.min(held + 1, k); n++) arenas.push(arenaLike(model.parameters));
    for (let first = 0; first < k; first += held) {
      const last = Math.min(k, first + held);
      for (let i = first; i < last; i++) {
        await gradientOf(i, arenas[i - first]!);
        for (let j = first; j <= i; j++) await enter(i, j, arenas[i - first]!, arenas[j - first]!);
      }
      for (let i = last; i < k; i++) {
        await gradientOf(i, arenas[held]!);
        for (let j = first; j < last; j++) await enter(i, j, arenas[held]!, arenas[j - first]!);
      }
    }
  } finally {
    for (const arena of arenas) arena.dispose();
  }
  return { gram, losses };
}

async function segmentedPass<B extends Examples>(
  model: Model<NoInfer<B>>,
  batch: B,
  groupSizes: readonly number[],
  direction: Arena,
  options: EstimateOptions,
): Promise<ExamplePass> {
  const parameters = selectedParameters(model, options);
  const weight = exampleWeight(batch, options);
  const examples = exampleCount(batch);
  const groups = [0];
  for (const size of groupSizes) groups.push(groups[groups.length - 1]! + size);
  const sink = alignSink({ examples, groups, direction: { given: direction.of } });
  try {
    const weights = new Float64Array(examples).fill(weight);
    const losses = await readAndDispose(gradients(() => model.losses(batch), { parameters, sink, weights }));
    const found = await sink.result();
    const dots = divided(found.dots, weight * scaleOf(options));
    if (found.tied !== null) return { dots, losses, tied: found.tied };
    return {
      dots,
      losses,
      squaredNorms: divided(found.squaredNorms, weight ** 2),
      groupSquaredNorms: divided(found.groupSquaredNorms, weight ** 2),
    };
  } finally {
    sink.dispose();
  }
}

async function forwardPass<B extends Examples>(
  model: Model<NoInfer<B>>,
  batch: B,
  direction: Arena,
  options: EstimateOptions,
): Promise<ExamplePass> {
  const tangents = new Map(selectedParameters(model, options).map((p) => [p, direction.of(p)]));
  const { losses, derivatives } = forwardDerivative(() => model.losses(batch), tangents);
  const [values, dots] = await Promise.all([readAndDispose(losses), readAndDispose(derivatives)]);
  return { losses: values, dots: divided(dots, scaleOf(options)) };
}

function divided(values: Float64Array, divisor: number): Float64Array {
  return values.map((value) => value / divisor);
}

/** The inner product ⟨x, y⟩ of two arenas. */
async function dotOf(x: Tensor, y: Tensor): Promise<number> {
  const out = keep(
    scope(() => {
      const sum = empty([1], "f32", x.memory);
      if (x === y) run("sumSquares", {}, { x }, { out: sum });
      else run("dot", {}, { x, y }, { out: sum });
      return sum;
    }),
  );
  return (await readAndDispose(out))[0]!;
}
