/**
 * Is axis 0 still the batch? Whoever asks for numbers of single examples needs losses whose example b depends on row b alone of every
 * value that depends on parameters, from the use of a parameter up to the loss. Each op says of each of its inputs whether it keeps axis 0
 * (`Op.keepsBatch`); here that is followed from op to op.
 *
 * A value is cut along axis 0 into blocks that never meet: examples, or, in a flattened batch [B·T, …], the rows of each. Of n rows there are at
 * first n blocks; a reshape leaves as many as fit both shapes, and an op that mixes the rows leaves one. Losses [B] of B blocks are those of B examples.
 */
import { GradmixError } from "../errors.ts";
import { formatShape, type Shape } from "../tensor/shape.ts";
import type { Op, Spec } from "./op.ts";

/** What is known of axis 0 of a value. */
export interface Blocks {
  /** A divisor of the extent of axis 0. */
  readonly count: number;
  /** Why there are no more; null where no op took any. */
  readonly reason: string | null;
}

/** The answer of an op for the input `slot`; see `Op.keepsBatch`. */
export type KeepsBatch<A> = (slot: number, inputs: readonly Spec[], output: Spec, attrs: A) => boolean;

/** An answer that asks for no attributes. */
type Keeps = (slot: number, inputs: readonly Spec[], output: Spec) => boolean;

/** Elementwise, with broadcasting: kept unless axis 0 is broadcast, or moved by leading axes of another operand. */
export const keepsElementwise: Keeps = (slot, inputs, output) => {
  const { shape } = inputs[slot]!;
  return shape.length > 0 && shape.length === output.shape.length && shape[0] === output.shape[0];
};

/** Works along the last axis of each row: kept where that is not axis 0. */
export const keepsRows: Keeps = (slot, inputs, output) => {
  const { shape } = inputs[slot]!;
  return shape.length > 1 && shape[0] === output.shape[0];
};

/** Input 0 is worked on by rows; the others (weights, gains) are for all rows. */
export const keepsRowsOfFirst: Keeps = (slot, inputs, output) =>
  slot === 0 && keepsRows(slot, inputs, output);

/** Rows go anywhere. */
export const mixesBatch: Keeps = () => false;

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));

/**
 * What is known of an op's output. `known`: of each input, the blocks of a value, "all" for a parameter whose rule takes it row by row, and null for
 * what need not be followed. null when no input is.
 */
export function follow<A>(
  op: Op<A>,
  attrs: A,
  inputs: readonly Spec[],
  output: Spec,
  known: readonly (Blocks | "all" | null)[],
): Blocks | null {
  let found: Blocks | null = null;
  const rows = output.shape.at(0) ?? 1;
  for (const [slot, blocks] of known.entries()) {
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
    found = found === null ? own : both(found, own, op.name);
  }
  return found;
}

const mixes = (op: string, from: Shape, to: Shape): string =>
  `${op} (${formatShape(from)} → ${formatShape(to)}) mixes the examples along axis 0`;

function both(a: Blocks, b: Blocks, op: string): Blocks {
  const count = gcd(a.count, b.count);
  if (count === a.count && (count !== b.count || a.reason !== null)) return a;
  if (count === b.count) return b;
  return { count, reason: `${op} joins batches of ${a.count} and of ${b.count} rows` };
}

/** Of a parameter that an op uses without a rule for single examples. */
export function shared(parameter: { readonly name: string | undefined }, op: string): Blocks {
  return {
    count: 1,
    reason: `parameter ${parameter.name ?? "(unnamed)"} is used by ${op}, which has no per-example rule; use linear, embedding, layerNorm or rmsNorm for it`,
  };
}

/** Throws `autograd` unless the losses are those of single examples. `who` asks. */
export function wantExamples(who: string, losses: Spec, blocks: Blocks | null): void {
  if (blocks === null || blocks.count === losses.shape[0]) return;
  throw new GradmixError(
    "autograd",
    `${who}: ${blocks.reason ?? "the batch is not axis 0 of the losses"}; numbers of single examples need a loss that keeps them apart (sumSink does not)`,
  );
}
