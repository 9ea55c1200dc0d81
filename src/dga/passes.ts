/** What estimators are made of: their options, one backward pass, and reading numbers. */
import { gradients } from "../autograd/grad.ts";
import { sumSink } from "../autograd/sinks/sum.ts";
import { GradmixError } from "../errors.ts";
import { checkExamples, exampleCount, tokenCount } from "../nn/examples.ts";
import type { Examples, Model } from "../nn/model.ts";
import type { Preconditioner } from "../nn/optimizer.ts";
import type { Arena } from "../nn/parameters.ts";
import { keep, scope, type Tensor } from "../tensor/tensor.ts";
import {
  callback,
  checkOptions,
  integerIn,
  numberIn,
  object,
  type OptionChecks,
  required,
} from "../options.ts";
import { lossScaleCheck } from "./loss-scale.ts";

/**
 * Backward pass of the mean loss per token, Σ losses / tokens, times `lossScale`, into `into` (overwritten, or added to). Returns the
 * examples' summed losses [examples], without the scale; they belong to the caller's scope.
 */
export function meanGradient<B extends Examples>(
  model: Model<NoInfer<B>>,
  batch: B,
  into: Arena,
  accumulate = false,
  parameters: readonly Tensor[] = model.parameters.list,
  lossScale = 1,
): Tensor {
  checkExamples("meanGradient", batch);
  const weights = new Float64Array(exampleCount(batch)).fill(lossScale / Math.max(1, tokenCount(batch)));
  const sink = sumSink({ gradientOf: into.of, accumulate });
  try {
    return gradients(() => model.losses(batch), { parameters, sink, weights });
  } finally {
    sink.dispose();
  }
}

/** Options of the estimators. */
export interface EstimateOptions {
  /** Most examples in one pass, to bound memory; a domain is never split. Default: all at once. */
  readonly maxExamples?: number;
  /** Reused between calls; otherwise made for this one. */
  readonly direction?: Arena;
  /**
   * Names of the parameters that are looked at, for instance `lastBlocks(model, 2)`: alignments and norms are those of their gradients, and
   * the backward passes stop where none of them is further up. Default: all.
   */
  readonly parameters?: (name: string) => boolean;
  /** Of the estimator "sketch": r, and the seed of its projections. */
  readonly sketch?: {
    /** r: matrices are projected to r × r numbers. */
    readonly rank?: number;
    /** Seed of the projections. */
    readonly seed?: number;
  };
  /** ⟨∇Lᵢ, P ∇L_target⟩ and ‖P ∇L_target‖ in place of ⟨∇Lᵢ, ∇L_target⟩ and ‖∇L_target‖. */
  readonly precondition?: Preconditioner;
  /**
   * A power of two by which losses are multiplied before a backward pass, for backends whose products would lose small gradients
   * (loss-scale.ts). Results are without it, but for the direction: `targetDirection` leaves there the gradient times this scale, and
   * `exampleNumbers` takes it so. Default: none.
   */
  readonly lossScale?: number;
}

const estimateChecks: OptionChecks<EstimateOptions> = {
  maxExamples: integerIn(1),
  direction: object,
  parameters: callback,
  sketch: object,
  precondition: object,
  lossScale: lossScaleCheck,
};

/** Throws `config`, naming the function and the option. `more` are options that only this function takes. */
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
      v: required(object),
      bias: required(numberIn({ min: 0, max: 1, openMin: true })),
      eps: required(numberIn({ min: 0, openMin: true })),
    });
}

/** The loss scale, 1 without one. */
export function scaleOf({ lossScale = 1 }: EstimateOptions): number {
  return lossScale;
}

/**
 * What every example's summed loss is multiplied by in a pass that measures examples: 1, or with a loss scale S/tokens to the next power of
 * two below, since S is meant for a mean per token and would overflow with sums.
 */
export function exampleWeight(batch: Examples, options: EstimateOptions): number {
  if (options.lossScale === undefined) return 1;
  return scaleOf(options) / 2 ** Math.ceil(Math.log2(Math.max(1, tokenCount(batch))));
}

/**
 * For `parameters`: the last `count` blocks of a model with what comes after them (of a GPT the final norm and the head); 0 is what comes after them alone.
 * Blocks are those of the parameters' specs (`ParameterSpec.block`). R&B aligns last layers only: the backward pass ends there. Throws `config` for more blocks
 * than there are.
 */
export function lastBlocks(model: Named, count: number): (name: string) => boolean {
  const { specs } = model.parameters;
  const blocks = specs.reduce(
    (most, { block }) => (typeof block === "number" ? Math.max(most, block + 1) : most),
    0,
  );
  if (!Number.isInteger(count) || count < 0 || count > blocks)
    throw new GradmixError("config", `lastBlocks: ${count} is not a number of blocks from 0 to ${blocks}`);
  const last = new Set(
    specs.flatMap(({ name, block }) =>
      block === "after" || (block !== undefined && block >= blocks - count) ? [name] : [],
    ),
  );
  return (name) => last.has(name);
}

/** All that is asked of a model whose examples do not matter. */
type Named = Pick<Model<never>, "parameters">;

/** The parameters that `options` names. Throws `config` when there is none. */
export function watched(model: Named, { parameters }: EstimateOptions = {}): readonly Tensor[] {
  if (parameters === undefined) return model.parameters.list;
  const chosen = [...model.parameters.byName].flatMap(([name, p]) => (parameters(name) ? [p] : []));
  if (chosen.length === 0)
    throw new GradmixError("config", "parameters: none of the model's has such a name");
  return chosen;
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
  return take(keep(scope(() => model.losses(batch))));
}

/** The numbers of a tensor, which is let go of. It is out of every scope meanwhile: a scope may end before the numbers are there. */
export async function take(t: Tensor): Promise<Float64Array> {
  keep(t);
  try {
    return Float64Array.from(await t.data());
  } finally {
    t.dispose();
  }
}
