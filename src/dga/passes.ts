/** What estimators are made of: batches, the model they ask, one backward pass, and what they say. */
import { gradients } from "../autograd/grad.ts";
import { sumSink } from "../autograd/sinks/sum.ts";
import { GradmixError } from "../errors.ts";
import type { Arena, Parameters } from "../nn/parameters.ts";
import { keep, scope, type Tensor, tensor } from "../tensor/tensor.ts";
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

/** Examples of equal length. `targets` < 0 are ignored, so that examples may be ragged. */
export interface Batch {
  /** Token ids, [examples · time]. */
  readonly inputs: Int32Array;
  readonly targets: Int32Array;
  /** Counted (not ignored) targets of each example. */
  readonly tokens: ArrayLike<number>;
  readonly time: number;
}

/** What an estimator asks of a model; `GPT` is one. */
export interface LossModel {
  /** All parameters as views of one arena (`value`), in a layout that the gradient arena shares. */
  readonly parameters: Pick<Parameters, "list" | "value" | "byName">;
  /** inputs, targets i32 [examples, time] → each example's summed loss [examples]. */
  losses(inputs: Tensor, targets: Tensor): Tensor;
}

export interface Alignments {
  /** aᵢ, one a domain. */
  readonly alignments: Float64Array;
  /** Standard error of each aᵢ over the domain's examples, the target batch taken as given; null where it is not known. */
  readonly standardErrors: readonly (number | null)[] | null;
  /**
   * ‖∇Lᵢ‖, or null when the estimator does not see it. From a batch it is the norm of that batch's gradient; from the training steps an estimate that does
   * not grow when few examples are drawn (`domainNorms`); of bases that share a batch the root mean square of single examples' norms.
   */
  readonly norms: Float64Array | null;
  /** Counted tokens that were measured of each domain; 0 for one of which nothing was. */
  readonly tokens: Float64Array;
  readonly targetNorm: number;
  /** Mean loss per token of each domain's batch, and of the target's. */
  readonly losses: Float64Array;
  readonly targetLoss: number;
  /** With bases measured from one batch: how many examples of a basis's own that batch is worth (Kish). */
  readonly effectiveSizes?: Float64Array;
}

export function exampleCount(batch: Batch): number {
  return batch.inputs.length / batch.time;
}

export function tokenCount(batch: Batch): number {
  let sum = 0;
  for (let i = 0; i < batch.tokens.length; i++) sum += batch.tokens[i];
  return sum;
}

/** The batch's tensors, in the current scope. */
export function upload(batch: Batch): { inputs: Tensor; targets: Tensor } {
  const shape = [exampleCount(batch), batch.time];
  return { inputs: tensor(batch.inputs, shape, "i32"), targets: tensor(batch.targets, shape, "i32") };
}

/**
 * Backward pass of the mean loss per token, Σ losses / tokens, times `lossScale`, into `into` (overwritten, or added to). Returns the
 * examples' summed losses [examples], without the scale; they belong to the caller's scope.
 */
export function meanGradient(
  model: LossModel,
  batch: Batch,
  into: Arena,
  accumulate = false,
  parameters: readonly Tensor[] = model.parameters.list,
  lossScale = 1,
): Tensor {
  checkBatch("meanGradient", batch);
  const weights = new Float64Array(exampleCount(batch)).fill(lossScale / Math.max(1, tokenCount(batch)));
  const sink = sumSink({ gradientOf: into.of, accumulate });
  try {
    return scope(() => {
      const { inputs, targets } = upload(batch);
      return gradients(() => model.losses(inputs, targets), { parameters, sink, weights });
    });
  } finally {
    sink.dispose();
  }
}

/** Second moments of Adam, by which an alignment can be preconditioned: P = 1/(√(v/bias) + ε). */
export interface Preconditioner {
  /** v, in the layout of the parameters. */
  readonly v: Arena;
  /** 1 − β₂ᵗ. */
  readonly bias: number;
  readonly eps: number;
}

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
  readonly sketch?: { readonly rank?: number; readonly seed?: number };
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

/**
 * Throws `shape`, naming the batch, unless its arrays are of one batch: whole windows, a target for each input, a count for each window.
 */
export function checkBatch(what: string, { inputs, targets, tokens, time }: Batch): void {
  const examples = inputs.length / time;
  if (!Number.isSafeInteger(time) || time < 1 || !Number.isInteger(examples))
    throw new GradmixError("shape", `${what}: ${inputs.length} inputs are not windows of ${time}`);
  if (targets.length !== inputs.length || tokens.length !== examples)
    throw new GradmixError(
      "shape",
      `${what}: ${targets.length} targets and ${tokens.length} counts of tokens for ${examples} windows of ${time}`,
    );
}

/** The loss scale, 1 without one. */
export function scaleOf({ lossScale = 1 }: EstimateOptions): number {
  return lossScale;
}

/**
 * What every example's summed loss is multiplied by in a pass that measures examples: 1, or with a loss scale S/tokens to the next power of
 * two below, since S is meant for a mean per token and would overflow with sums.
 */
export function exampleWeight(batch: Batch, options: EstimateOptions): number {
  if (options.lossScale === undefined) return 1;
  return scaleOf(options) / 2 ** Math.ceil(Math.log2(Math.max(1, tokenCount(batch))));
}

/**
 * For `parameters`: the last `count` blocks of a GPT with what comes after them (the final norm and the head); 0 is those two alone. R&B aligns
 * last layers only: the backward pass ends there.
 */
export function lastBlocks(model: LossModel, count: number): (name: string) => boolean {
  const block = (name: string): number | null => {
    const found = /^blocks\.(\d+)\./.exec(name);
    return found === null ? null : Number(found[1]);
  };
  const names = [...model.parameters.byName.keys()];
  const blocks = 1 + Math.max(-1, ...names.map((name) => block(name) ?? -1));
  if (!Number.isInteger(count) || count < 0 || count > blocks)
    throw new GradmixError("config", `lastBlocks: ${count} is not a number of blocks from 0 to ${blocks}`);
  return (name) => {
    const own = block(name);
    return own === null ? /^(norm|head)\./.test(name) : own >= blocks - count;
  };
}

/** The parameters that `options` names. Throws `config` when there is none. */
export function watched(model: LossModel, { parameters }: EstimateOptions = {}): readonly Tensor[] {
  if (parameters === undefined) return model.parameters.list;
  const chosen = [...model.parameters.byName].flatMap(([name, p]) => (parameters(name) ? [p] : []));
  if (chosen.length === 0)
    throw new GradmixError("config", "parameters: none of the model's has such a name");
  return chosen;
}

/** Ranges of whole domains with at most `maxExamples` examples (or a single larger domain). */
export function chunks(domains: readonly Batch[], maxExamples: number): [number, number][] {
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

/** One batch of all examples, in order. All must have the same length. */
export function concatenate(batches: readonly Batch[]): Batch {
  batches.forEach((batch, i) => checkBatch(`batch ${i}`, batch));
  const time = batches[0].time;
  if (batches.some((b) => b.time !== time))
    throw new GradmixError(
      "shape",
      `batches of different lengths: ${batches.map((b) => b.time).join(", ")} tokens`,
    );
  const join = (parts: readonly ArrayLike<number>[]): Int32Array => {
    const out = new Int32Array(parts.reduce((n, part) => n + part.length, 0));
    let at = 0;
    for (const part of parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  };
  return {
    inputs: join(batches.map((b) => b.inputs)),
    targets: join(batches.map((b) => b.targets)),
    tokens: join(batches.map((b) => b.tokens)),
    time,
  };
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

export function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}
