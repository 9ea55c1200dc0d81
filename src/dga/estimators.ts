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
  readonly parameters: Pick<Parameters, "list" | "value" | "byName">;
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
 * Backward pass of the mean loss per token, Σ losses / tokens, into `into` (overwritten, or added to). Returns the
 * examples' summed losses [examples], kept: the caller disposes them.
 */
export function meanGradient(
  model: LossModel,
  batch: Batch,
  into: Arena,
  accumulate = false,
  parameters: readonly Tensor[] = model.parameters.list,
): Tensor {
  const weights = new Float64Array(exampleCount(batch)).fill(1 / Math.max(1, tokenCount(batch)));
  return keep(
    scope(() => {
      const { inputs, targets } = upload(batch);
      return gradients(() => model.losses(inputs, targets), {
        parameters,
        sink: sumSink({ gradientOf: into.of, accumulate }),
        weights,
      });
    }),
  );
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
  /** ⟨∇Lᵢ, P ∇L_target⟩ and ‖P ∇L_target‖ in place of ⟨∇Lᵢ, ∇L_target⟩ and ‖∇L_target‖. */
  readonly precondition?: Preconditioner;
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

/** Alignments of the domains' batches with the target's batch. */
export async function estimateAlignments(
  name: EstimatorName,
  model: LossModel,
  target: Batch,
  domains: readonly Batch[],
  options: EstimateOptions = {},
): Promise<Alignments> {
  const direction = options.direction ?? arenaLike(model.parameters);
  try {
    const { targetLoss, targetNorm } = await targetDirection(model, target, direction, options);
    const found =
      name === "perDomain"
        ? await perDomain(model, domains, direction, options)
        : await byRows(name, model, domains, direction, options);
    return { ...found, tokens: Float64Array.from(domains, tokenCount), targetNorm, targetLoss };
  } finally {
    if (options.direction === undefined) direction.dispose();
  }
}

/** The target's (preconditioned) gradient into `direction`, with its norm and the target's mean loss. */
export async function targetDirection(
  model: LossModel,
  target: Batch,
  direction: Arena,
  options: EstimateOptions = {},
): Promise<{ targetLoss: number; targetNorm: number }> {
  if (tokenCount(target) === 0)
    throw new GradmixError("data", "the target batch has no tokens to learn from");
  clearRest(direction, options);
  const losses = await take(meanGradient(model, target, direction, false, watched(model, options)));
  if (options.precondition !== undefined) precondition(direction.arena, options.precondition);
  return {
    targetLoss: sum(losses) / tokenCount(target),
    targetNorm: Math.sqrt(await reduceArena("sumSquares", [direction.arena])),
  };
}

/** What no pass writes is 0. */
function clearRest(arena: Arena, { parameters }: EstimateOptions): void {
  if (parameters !== undefined) run("fill", { value: 0 }, [], [arena.arena]);
}

/** direction ← direction / (√(v/bias) + ε). */
function precondition(direction: Tensor, { v, bias, eps }: Preconditioner): void {
  scope(() => {
    const scale = empty([direction.size], "f32", direction.memory);
    run("affine", { scale: 1 / bias, shift: 0 }, [v.arena], [scale]);
    run("unary", { kind: "sqrt" }, [scale], [scale]);
    run("affine", { scale: 1, shift: eps }, [scale], [scale]);
    const shape = [direction.size];
    run("binary", { kind: "div", shape, aStrides: [1], bStrides: [1] }, [direction, scale], [direction]);
  });
}

type DomainPart = Omit<Alignments, "targetNorm" | "targetLoss" | "tokens">;

async function perDomain(
  model: LossModel,
  domains: readonly Batch[],
  direction: Arena,
  options: EstimateOptions,
): Promise<DomainPart> {
  const parameters = watched(model, options);
  const k = domains.length;
  const alignments = new Float64Array(k);
  const norms = new Float64Array(k);
  const losses = new Float64Array(k);
  const gradient = arenaLike(model.parameters);
  try {
    clearRest(gradient, options);
    for (let i = 0; i < k; i++) {
      const summed = await take(meanGradient(model, domains[i], gradient, false, parameters));
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
  options: EstimateOptions,
): Promise<DomainPart> {
  const parameters = watched(model, options);
  const k = domains.length;
  const alignments = new Float64Array(k);
  const standardErrors = new Array<number | null>(k).fill(null);
  const norms = name === "segmented" ? new Float64Array(k) : null;
  const losses = new Float64Array(k);
  for (const [first, last] of chunks(domains, options.maxExamples ?? Infinity)) {
    const part = domains.slice(first, last);
    const batch = concatenate(part);
    const measured =
      name === "segmented"
        ? await segmentedPass(model, batch, part.map(exampleCount), direction, parameters)
        : await forwardPass(model, batch, direction, parameters);
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
  /** ‖∇ (summed loss of example)‖². */
  readonly squaredNorms: Float64Array | null;
  readonly groupSquaredNorms: Float64Array | null;
}

/** Numbers of every example of a batch, with the direction that `targetDirection` left: one segmented pass for each `maxExamples` of them. */
export async function exampleNumbers(
  model: LossModel,
  batch: Batch,
  direction: Arena,
  options: EstimateOptions = {},
): Promise<{ dots: Float64Array; squaredNorms: Float64Array; losses: Float64Array }> {
  const count = exampleCount(batch);
  const parameters = watched(model, options);
  const out = {
    dots: new Float64Array(count),
    squaredNorms: new Float64Array(count),
    losses: new Float64Array(count),
  };
  const most = Math.max(1, Math.min(count, options.maxExamples ?? count));
  for (let first = 0; first < count; first += most) {
    const last = Math.min(count, first + most);
    const part: Batch = {
      inputs: batch.inputs.subarray(first * batch.time, last * batch.time),
      targets: batch.targets.subarray(first * batch.time, last * batch.time),
      tokens: Array.from({ length: last - first }, (_, j) => batch.tokens[first + j]),
      time: batch.time,
    };
    const numbers = await segmentedPass(model, part, [last - first], direction, parameters);
    out.dots.set(numbers.dots, first);
    out.losses.set(numbers.losses, first);
    if (numbers.squaredNorms !== null) out.squaredNorms.set(numbers.squaredNorms, first);
  }
  return out;
}

/**
 * The Gram matrix ⟨∇Lᵢ, ∇Lⱼ⟩ of the domains' gradients (mean losses per token), row-major [k, k], with the losses. Gradients are held in
 * blocks of at most `held` (default 32) whole gradients, and computed again for later blocks: k + k²/(2·held) backward passes.
 */
export async function estimateGram(
  model: LossModel,
  domains: readonly Batch[],
  options: EstimateOptions & { readonly held?: number } = {},
): Promise<{ gram: Float64Array; losses: Float64Array }> {
  const k = domains.length;
  const held = Math.max(1, options.held ?? 32);
  const parameters = watched(model, options);
  const gram = new Float64Array(k * k);
  const losses = new Float64Array(k);
  const arenas: Arena[] = [];
  const gradientOf = async (i: number, into: Arena): Promise<void> => {
    const summed = await take(meanGradient(model, domains[i], into, false, parameters));
    losses[i] = sum(summed) / Math.max(1, tokenCount(domains[i]));
  };
  const enter = async (i: number, j: number, a: Arena, b: Arena): Promise<void> => {
    const value =
      i === j ? await reduceArena("sumSquares", [a.arena]) : await reduceArena("dot", [a.arena, b.arena]);
    gram[i * k + j] = gram[j * k + i] = value;
  };
  try {
    for (let n = 0; n < Math.min(held, k) + (k > held ? 1 : 0); n++) {
      arenas.push(arenaLike(model.parameters));
      clearRest(arenas[n], options);
    }
    for (let first = 0; first < k; first += held) {
      const last = Math.min(k, first + held);
      for (let i = first; i < last; i++) {
        await gradientOf(i, arenas[i - first]);
        for (let j = first; j <= i; j++) await enter(i, j, arenas[i - first], arenas[j - first]);
      }
      for (let i = last; i < k; i++) {
        await gradientOf(i, arenas[held]);
        for (let j = first; j < last; j++) await enter(i, j, arenas[held], arenas[j - first]);
      }
    }
  } finally {
    for (const arena of arenas) arena.dispose();
  }
  return { gram, losses };
}

async function segmentedPass(
  model: LossModel,
  batch: Batch,
  groupSizes: readonly number[],
  direction: Arena,
  parameters: readonly Tensor[],
): Promise<RowNumbers> {
  const groups = [0];
  for (const size of groupSizes) groups.push(groups[groups.length - 1] + size);
  const sink = alignSink({ examples: exampleCount(batch), groups, direction: { given: direction.of } });
  try {
    const losses = keep(
      scope(() => {
        const { inputs, targets } = upload(batch);
        return gradients(() => model.losses(inputs, targets), { parameters, sink });
      }),
    );
    const { dots, squaredNorms, groupSquaredNorms } = await sink.result();
    return { dots, squaredNorms, groupSquaredNorms, losses: await take(losses) };
  } finally {
    sink.dispose();
  }
}

async function forwardPass(
  model: LossModel,
  batch: Batch,
  direction: Arena,
  parameters: readonly Tensor[],
): Promise<RowNumbers> {
  const tangents = new Map(parameters.map((p) => [p, direction.of(p)]));
  const { losses, derivatives } = scope(() => {
    const { inputs, targets } = upload(batch);
    return forwardDerivative(() => model.losses(inputs, targets), tangents);
  });
  keep(losses);
  keep(derivatives);
  return {
    losses: await take(losses),
    dots: await take(derivatives),
    squaredNorms: null,
    groupSquaredNorms: null,
  };
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
