/** What the ops of two operands share: numbers as operands, broadcasting, and how a kernel reads them. */
import type { KernelParams } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import type { DType } from "../../tensor/dtype.ts";
import { broadcastShapes, broadcastStrides, sameShape, type Shape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { wantTensor } from "../checks.ts";
import { filled, type Spec } from "../op.ts";

/** An operand of an elementwise op: a tensor, or a number that is broadcast. */
export type Operand = Tensor | number;

/**
 * Both operands as tensors; a number takes the type of the other one, rounded to f32 if it is f32. Throws `shape` for other values, and for two
 * numbers unless `like` determines their backend.
 */
export function toTensors(
  name: string,
  a: Operand,
  b: Operand,
  like: Tensor | null = null,
): [Tensor, Tensor] {
  if (typeof a !== "number") wantTensor(name, "operand 0", a);
  if (typeof b !== "number") wantTensor(name, "operand 1", b);
  const other = a instanceof Tensor ? a : b instanceof Tensor ? b : null;
  const home = other ?? like;
  if (home === null)
    throw new GradmixError("shape", `${name}: one of the operands must be a tensor, both are numbers`);
  const dtype = other?.dtype ?? "f32";
  const wrap = (x: Operand): Tensor => (typeof x === "number" ? scalar(name, x, dtype, home) : x);
  return [wrap(a), wrap(b)];
}

function scalar(name: string, x: number, dtype: DType, like: Tensor): Tensor {
  if (dtype === "i32" && x !== (x | 0))
    throw new GradmixError(
      "shape",
      `${name}: ${x} is not an integer of 32 bits, as the other operand's type i32 needs; cast that to f32`,
    );
  return filled(dtype === "f32" ? Math.fround(x) : x, { shape: [], dtype }, like);
}

/** The broadcast of two shapes. */
export function jointShape(name: string, a: Spec, b: Spec): Shape {
  return sameShape(a.shape, b.shape) ? a.shape : broadcastShapes(a.shape, b.shape, name);
}

const STEP: readonly number[] = [1];
const STAY: readonly number[] = [0];
type Walk = Omit<KernelParams["binary"], "kind">;

/**
 * How a kernel reads a and b for c. An operand that has all elements, or a single one, is one long row: for small tensors, this bookkeeping is most
 * of the cost of a call.
 */
export function walk<K>(kind: K, a: Tensor, b: Tensor, c: Tensor): Walk & { kind: K } {
  if ((a.size === c.size || a.size === 1) && (b.size === c.size || b.size === 1)) {
    const aStrides = a.size === c.size ? STEP : STAY;
    return { kind, shape: [c.size], aStrides, bStrides: b.size === c.size ? STEP : STAY };
  }
  const { shape } = c;
  const [aStrides, bStrides] = [broadcastStrides(a.shape, shape), broadcastStrides(b.shape, shape)];
  return { kind, shape, aStrides, bStrides };
}
