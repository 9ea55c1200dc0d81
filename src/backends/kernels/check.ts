/** Checks calls of kernels against the table. */
import { GradmixError } from "../../errors.ts";
import { show } from "../../options.ts";
import type { View } from "../../tensor/memory.ts";
import { formatShape, sizeOf } from "../../tensor/shape.ts";
import {
  type Inputs,
  type KernelName,
  kernelNames,
  type KernelParams,
  kernels,
  type Outputs,
} from "./index.ts";
import type { NamedViews, OperandSpec, ParamCheck } from "./spec.ts";

/** An operand of a kernel, as in the table. */
type TableOperand = OperandSpec<never> & { readonly name: string };

/** The inputs or the outputs of a kernel, as in the table. */
interface Side {
  readonly inOrder: readonly TableOperand[];
  readonly byName: ReadonlyMap<string, TableOperand>;
  /** Number of required operands. */
  readonly required: number;
}

/** A parameter of a kernel, as in the table. */
interface TableParam {
  readonly name: string;
  readonly check: ParamCheck;
}

/** The table's entry for a kernel in a form that is fast to check, because every call is checked. */
interface Checks {
  readonly params: readonly TableParam[];
  readonly inputs: Side;
  readonly outputs: Side;
  readonly together: ((params: never, inputs: never, outputs: never) => string | null) | null;
}

function sideOf(specs: Readonly<Record<string, OperandSpec<never>>>): Side {
  const operands = Object.entries(specs).map(([name, spec]) => ({ name, ...spec }));
  return {
    inOrder: operands,
    byName: new Map(operands.map((operand) => [operand.name, operand])),
    required: operands.filter(({ optional }) => !optional).length,
  };
}

function checksOf(kernel: KernelName): Checks {
  const { params, inputs, outputs, together = null } = kernels[kernel];
  return {
    together,
    params: Object.entries<ParamCheck>(params).map(([name, check]) => ({ name, check })),
    inputs: sideOf(inputs),
    outputs: sideOf(outputs),
  };
}

const checks = Object.fromEntries(kernelNames.map((kernel) => [kernel, checksOf(kernel)])) as Readonly<
  Record<KernelName, Checks>
>;

/** The inputs or the outputs of a kernel, in the order of the table. */
export const operandsOf = (kernel: KernelName, side: "inputs" | "outputs"): readonly TableOperand[] => [
  ...checks[kernel][side].inOrder,
];

/** Applies `fn` to each operand that is present and keeps the names; an operand that is missing becomes null. */
function mapOperands<V, W>(operands: NamedViews<V>, fn: (operand: V) => W): NamedViews<W> {
  const mapped: Record<string, W | null> = {};
  for (const [name, operand] of Object.entries(operands))
    mapped[name] = operand === null || operand === undefined ? null : fn(operand);
  return mapped;
}

/** Applies `fn` to each of a kernel's inputs and keeps their names, which an index signature would lose. */
export const mapInputs = <K extends KernelName, V, W>(
  inputs: Inputs<K, V>,
  fn: (operand: V) => W,
): Inputs<K, W> => mapOperands<V, W>(inputs, fn) as Inputs<K, W>;

/** Applies `fn` to each of a kernel's outputs and keeps their names. */
export const mapOutputs = <K extends KernelName, V, W>(
  outputs: Outputs<K, V>,
  fn: (operand: V) => W,
): Outputs<K, W> => mapOperands<V, W>(outputs, fn) as Outputs<K, W>;

/**
 * Checks the parameters, sizes and types of a call against the table, and that strides stay inside the operands. Throws `shape`, naming the kernel and the
 * parameter or operand.
 * The contents of i32 operands (ids, targets, segments) cannot be checked here: kernels skip ids outside a table.
 */
export function checkCall<K extends KernelName>(
  kernel: K,
  params: KernelParams[K],
  inputs: Inputs<K>,
  outputs: Outputs<K>,
): void {
  const { params: known, inputs: ins, outputs: outs, together } = checks[kernel];
  const given = params as Readonly<Record<string, unknown>>;
  // `in` is much faster than lookups by the table's names, because engines remember the positions of properties of literals. Calls give most names in the
  // order of the table, so the table's row is usually the next one.
  let checked = 0;
  let row = 0;
  for (const name in given) {
    let next = known[row++];
    if (next === undefined || next.name !== name) {
      row = rowAfter(known, name);
      if (row === 0) continue;
      next = known[row - 1]!;
    }
    const value = given[name];
    if (!next.check.fits(value)) throw misfit(kernel, next, value);
    checked++;
  }
  if (checked < known.length)
    for (const param of known)
      if (!param.check.fits(given[param.name])) throw misfit(kernel, param, given[param.name]);
  checkOperands(kernel, params, ins, inputs, inputs);
  checkOperands(kernel, params, outs, outputs, inputs);
  // The operands and `together` belong to the same kernel.
  const problem = together === null ? null : together(params as never, inputs as never, outputs as never);
  if (problem !== null) throw new GradmixError("shape", `${kernel}: ${problem}`);
}

/** The row behind that of this name; 0 if there is none. (A closure inside the loop above would cost an allocation for each parameter.) */
function rowAfter(known: readonly TableParam[], name: string): number {
  for (let row = 0; row < known.length; row++) if (known[row]!.name === name) return row + 1;
  return 0;
}

const misfit = (kernel: KernelName, { name, check }: TableParam, value: unknown): GradmixError =>
  new GradmixError("shape", `${kernel}: ${name} is ${show(value)}, not ${check.what}`);

function checkOperands(
  kernel: KernelName,
  params: object,
  { inOrder, byName, required }: Side,
  operands: NamedViews,
  inputs: NamedViews,
): void {
  let missing = required;
  let row = 0;
  for (const name in operands) {
    const operand = operands[name];
    const next = inOrder[row++];
    const spec = next !== undefined && next.name === name ? next : byName.get(name);
    if (spec === undefined) throw new GradmixError("shape", `${kernel}: there is no operand "${name}"`);
    if (operand === null || operand === undefined) continue;
    if (!spec.optional) missing--;
    const { size, dtype } = spec;
    if (size !== null) {
      // `params` and `size` belong to the same kernel.
      const expected = typeof size === "string" ? elements(inputs[size]) : size(params as never);
      if (sizeOf(operand.shape) !== expected)
        throw new GradmixError(
          "shape",
          `${kernel}: operand "${name}" has shape ${formatShape(operand.shape)}, ${expected} elements are needed`,
        );
    }
    if (dtype !== null && operand.dtype !== dtype)
      throw new GradmixError("shape", `${kernel}: operand "${name}" has the type ${operand.dtype}`);
  }
  if (missing === 0) return;
  for (const { name, optional } of inOrder)
    if (!optional && (operands[name] ?? null) === null)
      throw new GradmixError("shape", `${kernel}: operand "${name}" is missing`);
}

const elements = (view: View | null | undefined): number =>
  view === null || view === undefined ? 0 : sizeOf(view.shape);
