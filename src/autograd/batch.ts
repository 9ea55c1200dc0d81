/**
 * Checks that axis 0 is still the batch. Whoever needs numbers of single examples needs losses whose example b depends only on row b of every value
 * that depends on parameters, from the use of a parameter up to the loss. Each op declares for each of its inputs whether it keeps axis 0
 * (`Op.keepsBatch`); here that is followed from op to op.
 *
 * A value is divided along axis 0 into blocks that never mix: examples or, in a flattened batch [B·T, …], the rows of each. A value with n rows
 * starts with n blocks; a reshape leaves as many as fit both shapes, and an op that mixes the rows leaves one. Losses [B] of B blocks are those of B
 * examples.
 */
import { GradmixError } from "../errors.ts";
import { formatShape, type Shape } from "../tensor/shape.ts";
import type { Op, Spec } from "./op.ts";

/** What is known of axis 0 of a value. */
export interface Blocks {
  /** Number of blocks, a divisor of the extent of axis 0. */
  readonly count: number;
  /** Why there are not more blocks; null if no op reduced them. */
  readonly reason: string | null;
}

/** Decides for the input `slot` of an op; see `Op.keepsBatch`. */
export type KeepsBatch<A> = (slot: number, inputs: readonly Spec[], output: Spec, attrs: A) => boolean;

/** A decision that does not depend on attributes. */
type Keeps = (slot: number, inputs: readonly Spec[], output: Spec) => boolean;

/** Elementwise with broadcasting: kept unless axis 0 is broadcast, or moved by leading axes of another operand. */
export const keepsElementwise: Keeps = (slot, inputs, output) => {
  const { shape } = inputs[slot]!;
  return shape.length > 0 && shape.length === output.shape.length && shape[0] === output.shape[0];
};

/** Works along the last axis of each row: kept if that is not axis 0. */
export const keepsRows: Keeps = (slot, inputs, output) => {
  const { shape } = inputs[slot]!;
  return shape.length > 1 && shape[0] === output.shape[0];
};

/** Input 0 is processed by rows; the others (weights, gains) apply to all rows. */
export const keepsRowsOfFirst: Keeps = (slot, inputs, output) =>
  slot === 0 && keepsRows(slot, inputs, output);

/** Rows may mix. */
export const mixesBatch: Keeps = () => false;

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/**
 * Computes what is known of an op's output. `known` has for each input the blocks of a value, "all" for a parameter whose rule takes it row by row,
 * or null for an input that need not be followed. The result is null if all are null.
 */
export function follow<A>(
  op: Op<A>,
  attrs: A,
  inputs: readonly Spec[],
  output: Spec,
  known: readonly (Blocks | "all" | null)[],
): Blocks | null {
  let found: Blocks | null = null;
  const rows = output.shape[0] ?? 1;
  for (let slot = 0; slot < known.length; slot++) {
    const blocks = known[slot]!;
    if (blocks === null) continue;
    let own: Blocks;
    if (blocks === "all") own = { count: rows, reason: null };
    else {
      const count = op.keepsBatch(slot, inputs, output, attrs) ? gcd(blocks.count, rows) : 1;
      own =
        count === blocks.count
          ? blocks
          : { count, reason: mixes(op.name, inputs[slot]!.shape, output.shape) };
    }
    found = found === null ? own : commonBlocks(found, own, op.name);
  }
  return found;
}

const mixes = (op: string, from: Shape, to: Shape): string =>
  `${op} (${formatShape(from)} → ${formatShape(to)}) mixes the examples along axis 0`;

function commonBlocks(a: Blocks, b: Blocks, op: string): Blocks {
  const count = gcd(a.count, b.count);
  if (count === a.count && (count !== b.count || a.reason !== null)) return a;
  if (count === b.count) return b;
  return { count, reason: `${op} joins batches of ${a.count} and of ${b.count} rows` };
}

/** The blocks of a parameter that an op uses without a rule for single examples. */
export function shared(parameter: { readonly name: string | undefined }, op: string): Blocks {
  return {
    count: 1,
    reason: `parameter ${parameter.name ?? "(unnamed)"} is used by ${op}, which has no per-example rule; use linear, embedding, layerNorm or rmsNorm for it, or measure other parameters only (in a trainer: alignment.parameters)`,
  };
}

/** Throws `autograd` unless the losses are those of single examples. `who` is the name of the caller in the message. */
export function wantExamples(caller: string, losses: Spec, blocks: Blocks | null): void {
  if (blocks === null || blocks.count === losses.shape[0]) return;
  throw new GradmixError(
    "autograd",
    `${caller}: ${blocks.reason ?? "the batch is not axis 0 of the losses"}; numbers of single examples need a loss that keeps them apart (sumSink does not)`,
  );
}
