/** Sums of products over labelled axes, made of transpose, reshape, matmul and sum. */
import { GradmixError } from "../../errors.ts";
import { show } from "../../options.ts";
import { formatShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { wantTensors } from "../checks.ts";
import { wantType } from "../op.ts";
import { reshape, sum } from "./broadcast.ts";
import { matmul } from "./matmul.ts";
import { transpose } from "./shape.ts";

/** A tensor with the label of each of its axes. */
interface Labelled {
  readonly t: Tensor;
  readonly labels: readonly string[];
}

const refuse = (spec: unknown, reason: string): GradmixError =>
  new GradmixError("shape", `einsum: ${show(spec)} ${reason}`);

/** Labels of one operand or of the result. */
function labelsOf(spec: string, term: string): string[] {
  if (term.includes("."))
    throw refuse(spec, "has an ellipsis, which is not supported; label every axis or reshape");
  const labels = term.split("");
  for (const [at, label] of labels.entries()) {
    if (!/^[A-Za-z]$/.test(label))
      throw refuse(spec, `has ${show(label)}, which is not a label; labels are letters`);
    if (labels.indexOf(label) !== at)
      throw refuse(spec, `repeats "${label}" within "${term}"; diagonals are not supported`);
  }
  return labels;
}

/** The labels of the operands and of the result; without "->" those that occur once, in alphabetical order. */
function parse(spec: unknown): { terms: string[][]; result: string[] } {
  if (typeof spec !== "string") throw refuse(spec, `is not a specification such as "ij,jk->ik"`);
  const [left = "", right, ...more] = spec.replaceAll(" ", "").split("->");
  if (more.length > 0) throw refuse(spec, `has more than one "->"`);
  const terms = left.split(",").map((term) => labelsOf(spec, term));
  const all = terms.flat();
  if (right === undefined) {
    const once = all.filter((label) => all.indexOf(label) === all.lastIndexOf(label));
    return { terms, result: once.sort((a, b) => (a < b ? -1 : 1)) };
  }
  const result = labelsOf(spec, right);
  const unknown = result.find((label) => !all.includes(label));
  if (unknown !== undefined) throw refuse(spec, `wants "${unknown}" in the result, but no operand has it`);
  return { terms, result };
}

/** Throws `shape` unless the operands have the axes of the specification, and one extent per label. */
function extentsOf(
  spec: string,
  terms: readonly string[][],
  operands: readonly Tensor[],
): Map<string, number> {
  const extents = new Map<string, number>();
  if (terms.length !== operands.length)
    throw refuse(spec, `names ${terms.length} operands, but ${operands.length} were given`);
  for (const [n, labels] of terms.entries()) {
    const operand = operands[n]!;
    const { shape } = operand;
    wantType("einsum", `operand ${n}`, operand, "f32");
    if (labels.length !== shape.length)
      throw refuse(spec, `labels ${labels.length} axes of operand ${n}, which is ${formatShape(shape)}`);
    for (const [axis, label] of labels.entries()) {
      const known = extents.get(label) ?? shape[axis]!;
      if (known !== shape[axis])
        throw refuse(
          spec,
          `has "${label}" with extents ${known} and ${shape[axis]} (operand ${n} is ${formatShape(shape)})`,
        );
      extents.set(label, known);
    }
  }
  return extents;
}

/** Sums over the axes whose labels are not kept. */
function sumToLabels({ t, labels }: Labelled, labelsKept: ReadonlySet<string>): Labelled {
  const axes = labels.flatMap((label, axis) => (labelsKept.has(label) ? [] : [axis]));
  return axes.length === 0
    ? { t, labels }
    : { t: sum(t, axes), labels: labels.filter((l) => labelsKept.has(l)) };
}

const joined = (labels: readonly string[]): string => labels.join("");

/** The axes in the order of `labels`; t itself if they are in order. */
function inOrder({ t, labels }: Labelled, order: readonly string[]): Tensor {
  if (joined(labels) === joined(order)) return t;
  return transpose(
    t,
    order.map((label) => labels.indexOf(label)),
  );
}

/** Σ of a·b over the labels that both have but that are not kept, by one matrix product. */
function contract(
  a: Labelled,
  b: Labelled,
  labelsKept: ReadonlySet<string>,
  extents: ReadonlyMap<string, number>,
): Labelled {
  const mine = (labels: readonly string[], other: readonly string[]): string[] =>
    labels.filter((label) => !other.includes(label));
  const shared = a.labels.filter((label) => b.labels.includes(label));
  const batch = shared.filter((label) => labelsKept.has(label));
  const inner = shared.filter((label) => !labelsKept.has(label));
  const [rows, columns] = [mine(a.labels, b.labels), mine(b.labels, a.labels)];
  const sizes = (labels: readonly string[]): number[] => labels.map((label) => extents.get(label) ?? 1);
  const size = (labels: readonly string[]): number => sizes(labels).reduce((n, extent) => n * extent, 1);
  /** The operand as [batch, first, second] or, if its axes are in that order, as [batch, second, first]. */
  const matrices = (x: Labelled, first: readonly string[], second: readonly string[]) => {
    const turned =
      joined(x.labels) !== joined([...batch, ...first, ...second]) &&
      joined(x.labels) === joined([...batch, ...second, ...first]);
    const [one, two] = turned ? [second, first] : [first, second];
    const shape = [...(batch.length > 0 ? [size(batch)] : []), size(one), size(two)];
    return { t: reshape(inOrder(x, [...batch, ...one, ...two]), shape), turned };
  };
  const [left, right] = [matrices(a, rows, inner), matrices(b, inner, columns)];
  const product = matmul(left.t, right.t, { transposeA: left.turned, transposeB: right.turned });
  const labels = [...batch, ...rows, ...columns];
  return { t: reshape(product, sizes(labels)), labels };
}

/**
 * Einstein summation: the sum, over all labels that are not in the result, of the products of the operands. `"ij,jk->ik"` is a matrix product,
 * `"ij->ji"` a transpose, `"bhtd,bhsd->bhts"` the scores of attention, `"i,i->"` an inner product. Labels are letters, one per axis; spaces are
 * ignored; without `->` the result has the labels that occur once, in alphabetical order. Operands (f32) are multiplied from left to right, each pair
 * by one `matmul`.
 *
 * Throws `shape` for invalid specifications and operands that do not fit, for a label that is repeated within one operand (a diagonal), and for an
 * ellipsis.
 */
export function einsum(spec: string, ...operands: Tensor[]): Tensor<"f32"> {
  const { terms, result } = parse(spec);
  wantTensors("einsum", operands);
  const extents = extentsOf(spec, terms, operands);
  const needed = (from: number): Set<string> => new Set([...result, ...terms.slice(from).flat()]);
  const own = terms.map((labels, n): Labelled => {
    const elsewhere = new Set([...result, ...terms.filter((_, other) => other !== n).flat()]);
    return sumToLabels({ t: operands[n]!, labels }, elsewhere);
  });
  let found = own[0]!;
  for (const [at, factor] of own.slice(1).entries()) {
    const labelsKept = needed(at + 2);
    // Axis 0 of the result should be axis 0 of the first factor: then it stays in its place.
    const [first] = result;
    const swap = first !== undefined && factor.labels.includes(first) && !found.labels.includes(first);
    found = swap
      ? contract(factor, found, labelsKept, extents)
      : contract(found, factor, labelsKept, extents);
  }
  const out = inOrder(found, result);
  // The result is never the handle of an operand.
  return operands.includes(out) ? reshape(out, out.shape) : out;
}
