/**
 * The table of kernels: what each computes, its parameters, its operands, and how closely a backend must agree with the double-precision reference. A
 * backend implements all of them; tests enumerate this table.
 *
 * Conventions: everything is contiguous and row-major; extents and strides count elements; operands are f32 unless a comment says i32; operands with
 * a "?" are optional. Sums run in a fixed order that depends only on the shapes, so results have the same bits for any number of threads. NaN in
 * gives NaN out, also for relu, max and min (exceptions: the results of `compare`, the operand that `select` does not choose, 1ᵖ and x⁰, and elements that `dropout` drops). An output may
 * be an input where the table says `inPlaceOf`: exactly that input (same offset and size); no other output may overlap an input or another output.
 * Segment and group offsets ascend.
 *
 * Statistics that determine norms and alignments (dots, sumsq, groupSumsq, vSumsq, the results of dot and sumSquares) are summed with more than
 * single precision: on the cpu in doubles (a segment's gradient tile by tile, each tile of 32 in f32, or its rows' alignments in chunks of
 * ALIGN_CHUNK), on a GPU by compensated sums (Neumaier 1974) in parts of fixed size. However long a sum is and however much cancels, a sum Σ x·y of
 * f32 numbers has |error| ≤ STATISTICS·‖x‖·‖y‖.
 */
import type { View } from "../../tensor/memory.ts";
import { attention, type AttentionKernels } from "./attention.ts";
import { axes, type AxisKernels } from "./axes.ts";
import { elementwise, type ElementwiseKernels } from "./elementwise.ts";
import { type OptimizerKernels, optimizers } from "./optimizers.ts";
import { type ProductKernels, products } from "./products.ts";
import { type RowKernels, rows } from "./rows.ts";
import type { Named, Specs } from "./spec.ts";
import { type TableKernels, tables } from "./tables.ts";

export type { AttentionParams, MaskedAttentionParams } from "./attention.ts";
export type { AdamParams } from "./optimizers.ts";
export type { NamedViews } from "./spec.ts";
export { MAX_RANK } from "./spec.ts";
export * from "./kinds.ts";

interface Signatures
  extends
    ElementwiseKernels,
    AxisKernels,
    RowKernels,
    ProductKernels,
    TableKernels,
    AttentionKernels,
    OptimizerKernels {}

/** Name of a kernel. */
export type KernelName = keyof Signatures;

/** Parameters of each kernel. */
export type KernelParams = { readonly [K in KernelName]: Signatures[K]["params"] };

type InputsOf<V> = { readonly [K in KernelName]: Named<Signatures[K]["inputs"], V> };
type OutputsOf<V> = { readonly [K in KernelName]: Named<Signatures[K]["outputs"], V> };
/** Inputs of a kernel by name, each of type `V`; optional ones may be null or left out. */
export type Inputs<K extends KernelName, V = View> = InputsOf<V>[K];
/** Outputs of a kernel by name, each of type `V`; optional ones may be null or left out. */
export type Outputs<K extends KernelName, V = View> = OutputsOf<V>[K];

/** Largest error of a statistic Σ x·y, in units of ‖x‖·‖y‖. */
export const STATISTICS = 1e-6;

/** The table: the specification of every kernel by name. */
export const kernels: Specs<Signatures> = {
  ...elementwise,
  ...axes,
  ...rows,
  ...products,
  ...tables,
  ...attention,
  ...optimizers,
};

export const kernelNames: readonly KernelName[] = Object.keys(kernels).filter(isKernelName);

function isKernelName(name: string): name is KernelName {
  return name in kernels;
}
