/** Parts of the estimators: their options, a backward pass, and reading numbers. */
import { gradients } from "../autograd/grad.ts";
import { sumSink } from "../autograd/sinks/sum.ts";
import { wantResult, wantTensor } from "../autograd/checks.ts";
import { GradmixError } from "../errors.ts";
import { formatShape, sameShape } from "../tensor/shape.ts";
import { checkExamples, exampleCount, tokenCount } from "../nn/examples.ts";
import { checkModel, type Examples, type Model } from "../nn/model.ts";
import type { Preconditioner } from "../nn/optimizer.ts";
import { type Arena, checkParameters, checkArena } from "../nn/parameters.ts";
import { keep, scope, type Tensor } from "../tensor/tensor.ts";
import {
  callback,
  checkOptions,
  integerIn,
  numberIn,
  object,
  type OptionChecks,
  required,
  list,
} from "../options.ts";
import { lossScaleCheck } from "./loss-scale.ts";
import type { Named, Selection } from "./selection.ts";

/**
 * Backward pass of the mean loss per token, Σ losses / tokens, times `lossScale`, into `into` (overwritten, or added to). Returns the examples'
 * summed losses [examples] without the scale; they belong to the caller's scope.
 */
export function meanGradient<B extends Examples>(
  model: Model<NoInfer<B>>,
  batch: B,
  into: Arena,
  accumulate = false,
  parameters?: readonly Tensor[],
  lossScale = 1,
): Tensor {
  checkMeasured("meanGradient", model);
  const selected = parameters ?? model.parameters.list;
  checkArena("meanGradient: into", into);
  checkExamples("meanGradient", batch);
  const weights = new Float64Array(exampleCount(batch)).fill(lossScale / Math.max(1, tokenCount(batch)));
  const sink = sumSink({ gradientOf: into.of, accumulate });
  try {
    return gradients(() => model.losses(batch), { parameters: selected, sink, weights });
  } finally {
    sink.dispose();
  }
}

/** Options of the estimators. */
export interface EstimateOptions {
  /** Largest number of examples per pass, to limit memory; a domain is never split. Default: all at once. */
  readonly maxExamples?: number;
  /** Buffer for the target's gradient, reused between calls. Default: allocated for this call. */
  readonly direction?: Arena;
  /**
   * Selects the parameters whose gradients are used, by name, for instance `lastBlocks(model, 2)`. Alignments and norms are those of these gradients,
   * and the backward passes stop below the lowest selected parameter. Default: all.
   */
  readonly parameters?: Selection;
  /** Options of the estimator "sketch". */
  readonly sketch?: {
    /** Rank r of the sketch: matrices are projected to r × r numbers. */
    readonly rank?: number;
    /** Seed of the projections. */
    readonly seed?: number;
  };
  /** Diagonal preconditioner P. If given, ⟨∇Lᵢ, P ∇L_target⟩ and ‖P ∇L_target‖ replace ⟨∇Lᵢ, ∇L_target⟩ and ‖∇L_target‖. */
  readonly precondition?: Preconditioner;
  /**
   * A power of two by which losses are multiplied before a backward pass, for backends whose products would lose small gradients (loss-scale.ts). The
   * results do not contain it, except for the direction: `targetDirection` leaves the gradient times this scale there, and `exampleNumbers` expects
   * it so. Default: none.
   */
  readonly lossScale?: number;
}

const estimateChecks: OptionChecks<EstimateOptions> = {
  maxExamples: integerIn(1),
  direction: checkArena,
  parameters: callback,
  sketch: object,
  precondition: object,
  lossScale: lossScaleCheck,
};

/** Throws `config` unless it is a model with parameters. */
export function checkMeasured(where: string, model: Named): void {
  checkModel(`${where}: model`, model);
  checkParameters(`${where}: model: parameters`, model.parameters);
}

/** The same, and throws `data` unless these are batches. */
export function checkBatches(where: string, model: Named, batches: readonly Examples[]): void {
  checkMeasured(where, model);
  list(`${where}: batches`, batches);
  for (const [i, batch] of batches.entries()) checkExamples(`${where}: batch ${i}`, batch);
}

/** Checks the options. Throws `config`, naming the function and the option. `more` are options that only this function has. */
export function checkEstimate<More extends object = object>(
  where: string,
  options: EstimateOptions & More,
  more?: OptionChecks<More>,
): void {
  checkOptions<EstimateOptions>(where, options, { ...estimateChecks, ...more });
  if (options.sketch !== undefined)
    checkOptions(`${where}: sketch`, options.sketch, { rank: integerIn(1), seed: integerIn(0) });
  if (options.precondition !== undefined)
    checkOptions(`${where}: precondition`, options.precondition, {
      v: required(checkArena),
      bias: required(numberIn({ min: 0, max: 1, openMin: true })),
      eps: required(numberIn({ min: 0, openMin: true })),
    });
}

/** The loss scale; 1 without one. */
export function scaleOf({ lossScale = 1 }: EstimateOptions): number {
  return lossScale;
}

/**
 * The factor of every example's summed loss in a pass that measures examples. It is 1 without a loss scale S, and S/tokens rounded down to a power of
 * two with one, because S is meant for a mean per token and sums would overflow.
 */
export function exampleWeight(batch: Examples, options: EstimateOptions): number {
  if (options.lossScale === undefined) return 1;
  return scaleOf(options) / 2 ** Math.ceil(Math.log2(Math.max(1, tokenCount(batch))));
}

/** Ranges of whole domains with at most `maxExamples` examples (or a single larger domain). */
export function chunks(domains: readonly Examples[], maxExamples: number): [number, number][] {
  const ranges: [number, number][] = [];
  let first = 0;
  let examples = 0;
  domains.forEach((domain, i) => {
    const count = exampleCount(domain);
    if (i > first && examples + count > maxExamples) {
      ranges.push([first, i]);
      first = i;
      examples = 0;
    }
    examples += count;
  });
  if (domains.length > first) ranges.push([first, domains.length]);
  return ranges;
}

/** The model's summed losses of the batch's examples, without gradients. */
export async function lossesOf<B extends Examples>(
  model: Model<NoInfer<B>>,
  batch: B,
): Promise<Float64Array> {
  return readAndDispose(
    keep(
      scope(() => {
        const losses: unknown = model.losses(batch);
        wantResult("model.losses", losses, false);
        wantTensor("model.losses", "what it returned", losses);
        if (!sameShape(losses.shape, [exampleCount(batch)]))
          throw new GradmixError(
            "shape",
            `model.losses: it returned ${formatShape(losses.shape)} for ${exampleCount(batch)} examples; one summed loss per example is needed, [${exampleCount(batch)}]`,
          );
        return losses;
      }),
    ),
  );
}

/** Reads the numbers of a tensor and disposes it. Meanwhile it is outside every scope, because a scope may end before the numbers arrive. */
export async function readAndDispose(t: Tensor): Promise<Float64Array> {
  keep(t);
  try {
    return Float64Array.from(await t.data());
  } finally {
    t.dispose();
  }
}
