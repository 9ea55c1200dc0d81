/**
 * Alignment estimators: how far the gradient of each domain points along the gradient of the target.
 *
 * All of them measure, at the current parameters, aᵢ = ⟨∇Lᵢ, ∇L_target⟩ with L the mean loss per token of a batch. They
 * differ in cost and in what else they know:
 *
 * | estimator   | passes                                     | domain norms | standard errors |
 * | ----------- | ------------------------------------------ | ------------ | --------------- |
 * | `perDomain` | one backward pass a domain (the paper's)   | yes          | no              |
 * | `segmented` | one backward pass over all rows, segmented | yes          | yes             |
 * | `forward`   | one forward-mode pass over all rows        | no           | yes             |
 *
 * each after one backward pass over the target batch.
 */
import { forwardDerivative, gradients } from "../autograd/grad.ts";
import { alignSink } from "../autograd/sinks/align.ts";
import { sumSink } from "../autograd/sinks/sum.ts";
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { type Arena, arenaLike, type Parameters } from "../nn/parameters.ts";
import { empty, keep, scope, type Tensor, tensor } from "../tensor/tensor.ts";
import { type DomainAlignment, domainAlignments } from "./statistics.ts";

export type EstimatorName = "perDomain" | "segmented" | "forward";
export const estimatorNames: readonly EstimatorName[] = ["perDomain", "segmented", "forward"];

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
  readonly parameters: Pick<Parameters, "list" | "value">;
  /** inputs, targets i32 [examples, time] → each example's summed loss [examples]. */
  losses(inputs: Tensor, targets: Tensor): Tensor;
}

export interface Alignments {
  /** aᵢ, one a domain. */
  readonly alignments: Float64Array;
  /** Standard error of each aᵢ over the domain's examples, the target batch taken as given; null where it is not known. */
  readonly standardErrors: readonly (number | null)[] | null;
  /** ‖∇Lᵢ‖, or null when the estimator does not see it. */
  readonly norms: Float64Array | null;
  /** Counted tokens that were measured of each domain; 0 for one of which nothing was. */
  readonly tokens: Float64Array;
  readonly targetNorm: number;
  /** Mean loss per token of each domain's batch, and of the target's. */
  readonly losses: Float64Array;
  readonly targetLoss: number;
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
 * Backward pass of the mean loss per token, Σ losses / tokens, into `into` (overwritten, or added to). Returns the
 * examples' summed losses [examples], kept: the caller disposes them.
 */
export function meanGradient(model: LossModel, batch: Batch, into: Arena, accumulate = false): Tensor {
  const weights = new Float64Array(exampleCount(batch)).fill(1 / Math.max(1, tokenCount(batch)));
  return keep(
    scope(() => {
      const { inputs, targets } = upload(batch);
      return gradients(() => model.losses(inputs, targets), {
        parameters: model.parameters.list,
        sink: sumSink({ gradientOf: into.of, accumulate }),
        weights,
      });
    }),
  );
}

export interface EstimateOptions {
  /** Most examples in one pass, to bound memory; a domain is never split. Default: all at once. */
  readonly maxExamples?: number;
  /** Reused between calls; otherwise made for this one. */
  readonly direction?: Arena;
}

/** Alignments of the domains' batches with the target's batch. */
export async function estimateAlignments(
  name: EstimatorName,
  model: LossModel,
  target: Batch,
  domains: readonly Batch[],
  options: EstimateOptions = {},
): Promise<Alignments> {
  if (tokenCount(target) === 0)
    throw new GradmixError("data", "the target batch has no tokens to learn from");
  const direction = options.direction ?? arenaLike(model.parameters);
  try {
    const targetLosses = await take(meanGradient(model, target, direction));
    const targetLoss = sum(targetLosses) / tokenCount(target);
    const targetNorm = Math.sqrt(await reduceArena("sumSquares", [direction.arena]));
    const found =
      name === "perDomain"
        ? await perDomain(model, domains, direction)
        : await byRows(name, model, domains, direction, options.maxExamples ?? Infinity);
    return { ...found, tokens: Float64Array.from(domains, tokenCount), targetNorm, targetLoss };
  } finally {
    if (options.direction === undefined) direction.dispose();
  }
}

type DomainPart = Omit<Alignments, "targetNorm" | "targetLoss" | "tokens">;

async function perDomain(model: LossModel, domains: readonly Batch[], direction: Arena): Promise<DomainPart> {
  const k = domains.length;
  const alignments = new Float64Array(k);
  const norms = new Float64Array(k);
  const losses = new Float64Array(k);
  const gradient = arenaLike(model.parameters);
  try {
    for (let i = 0; i < k; i++) {
      const summed = await take(meanGradient(model, domains[i], gradient));
      losses[i] = sum(summed) / Math.max(1, tokenCount(domains[i]));
      alignments[i] = await reduceArena("dot", [gradient.arena, direction.arena]);
      norms[i] = Math.sqrt(await reduceArena("sumSquares", [gradient.arena]));
    }
  } finally {
    gradient.dispose();
  }
  return { alignments, standardErrors: null, norms, losses };
}

async function byRows(
  name: "segmented" | "forward",
  model: LossModel,
  domains: readonly Batch[],
  direction: Arena,
  maxExamples: number,
): Promise<DomainPart> {
  const k = domains.length;
  const alignments = new Float64Array(k);
  const standardErrors = new Array<number | null>(k).fill(null);
  const norms = name === "segmented" ? new Float64Array(k) : null;
  const losses = new Float64Array(k);
  for (const [first, last] of chunks(domains, maxExamples)) {
    const part = domains.slice(first, last);
    const batch = concatenate(part);
    const measured =
      name === "segmented"
        ? await segmentedPass(model, batch, part.map(exampleCount), direction)
        : await forwardPass(model, batch, direction);
    let start = 0;
    part.forEach((domain, i) => {
      const end = start + exampleCount(domain);
      const tokens = tokenCount(domain);
      const { alignment, standardError }: DomainAlignment = domainAlignments(
        measured.dots.subarray(start, end),
        domain.tokens,
      );
      alignments[first + i] = alignment;
      standardErrors[first + i] = standardError;
      losses[first + i] = sum(measured.losses.subarray(start, end)) / Math.max(1, tokens);
      if (norms !== null && measured.groupSquaredNorms !== null)
        norms[first + i] = Math.sqrt(measured.groupSquaredNorms[i]) / Math.max(1, tokens);
      start = end;
    });
  }
  return { alignments, standardErrors, norms, losses };
}

interface RowNumbers {
  /** ⟨∇ (summed loss of example), ∇L_target⟩. */
  readonly dots: Float64Array;
  readonly losses: Float64Array;
  readonly groupSquaredNorms: Float64Array | null;
}

async function segmentedPass(
  model: LossModel,
  batch: Batch,
  groupSizes: readonly number[],
  direction: Arena,
): Promise<RowNumbers> {
  const groups = [0];
  for (const size of groupSizes) groups.push(groups[groups.length - 1] + size);
  const sink = alignSink({ examples: exampleCount(batch), groups, direction: { given: direction.of } });
  try {
    const losses = keep(
      scope(() => {
        const { inputs, targets } = upload(batch);
        return gradients(() => model.losses(inputs, targets), { parameters: model.parameters.list, sink });
      }),
    );
    const { dots, groupSquaredNorms } = await sink.result();
    return { dots, groupSquaredNorms, losses: await take(losses) };
  } finally {
    sink.dispose();
  }
}

async function forwardPass(model: LossModel, batch: Batch, direction: Arena): Promise<RowNumbers> {
  const tangents = new Map(model.parameters.list.map((p) => [p, direction.of(p)]));
  const { losses, derivatives } = scope(() => {
    const { inputs, targets } = upload(batch);
    return forwardDerivative(() => model.losses(inputs, targets), tangents);
  });
  keep(losses);
  keep(derivatives);
  return { losses: await take(losses), dots: await take(derivatives), groupSquaredNorms: null };
}

/** Ranges of whole domains with at most `maxExamples` examples (or a single larger domain). */
function chunks(domains: readonly Batch[], maxExamples: number): [number, number][] {
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
function concatenate(batches: readonly Batch[]): Batch {
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

/** The numbers of a kept tensor, which is let go of. */
export async function take(t: Tensor): Promise<Float64Array> {
  try {
    return Float64Array.from(await t.data());
  } finally {
    t.dispose();
  }
}

async function reduceArena(kernel: "dot" | "sumSquares", arenas: readonly Tensor[]): Promise<number> {
  const out = keep(empty([1], "f32", arenas[0].memory));
  run(kernel, {}, arenas, [out]);
  return (await take(out))[0];
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}
