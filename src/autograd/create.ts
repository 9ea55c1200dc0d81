/** Makes tensors: constants, ranges, random numbers. They live on the current backend. */
import { run } from "../backends/backend.ts";
import type { RandomKind } from "../backends/kernels/index.ts";
import { GradmixError } from "../errors.ts";
import { integerIn, show } from "../options.ts";
import { checkDType, type DType } from "../tensor/dtype.ts";
import { checkKey, type Key } from "../tensor/rng.ts";
import { checkShape, formatShape, type Shape, sizeOf } from "../tensor/shape.ts";
import { empty, type Tensor } from "../tensor/tensor.ts";

/** A tensor with the same value everywhere. With dtype "i32" the value is a 32-bit integer. Default type f32. */
export function full<D extends DType = "f32">(shape: Shape, value: number, dtype?: D): Tensor<D>;
export function full(shape: Shape, value: number, dtype: DType = "f32"): Tensor {
  return constant("full", shape, value, dtype);
}

/** A tensor of zeros. Default type f32. Throws `shape` for extents that are not whole numbers of at least 0. */
export function zeros<D extends DType = "f32">(shape: Shape, dtype?: D): Tensor<D>;
export function zeros(shape: Shape, dtype: DType = "f32"): Tensor {
  return constant("zeros", shape, 0, dtype);
}

/** A tensor of ones. Default type f32. Throws `shape` for extents that are not whole numbers of at least 0. */
export function ones<D extends DType = "f32">(shape: Shape, dtype?: D): Tensor<D>;
export function ones(shape: Shape, dtype: DType = "f32"): Tensor {
  return constant("ones", shape, 1, dtype);
}

function constant<D extends DType>(name: string, shape: Shape, value: number, dtype: D): Tensor<D> {
  checkShape(shape, name);
  checkDType(dtype, name);
  if (typeof value !== "number" || (dtype === "i32" && value !== (value | 0)))
    throw new GradmixError(
      "shape",
      `${name}: ${show(value)} is not ${dtype === "i32" ? "an integer of 32 bits, as i32 needs" : "a number"}`,
    );
  const out = empty(shape, dtype);
  run("fill", { value }, {}, { out });
  return out;
}

/** The identity matrix [n, n]. */
export function eye(n: number): Tensor<"f32"> {
  const out = constant("eye", [n, n], 0, "f32");
  const one = constant("eye", [1], 1, "f32");
  const diagonal = { shape: [n], inStrides: [0], inOffset: 0, outStrides: [n + 1], outOffset: 0 };
  run("stridedCopy", diagonal, { x: one }, { y: out });
  one.dispose();
  return out;
}

/** f32 represents every integer up to here. */
const EXACT = 2 ** 24;

/** The integers 0, 1 … count − 1 as a tensor [count]. Default type f32. */
export function arange<D extends DType = "f32">(count: number, dtype?: D): Tensor<D>;
export function arange(count: number, dtype: DType = "f32"): Tensor {
  integerIn(0)("arange: count", count);
  checkDType(dtype, "arange");
  if (count - 1 > (dtype === "f32" ? EXACT : 2 ** 31 - 1))
    throw new GradmixError(
      "shape",
      `arange: ${dtype} does not hold every integer below ${count}${dtype === "f32" ? "; use i32" : ""}`,
    );
  const out = empty([count], dtype);
  out.write(Int32Array.from({ length: count }, (_, i) => i));
  return out;
}

function random<D extends DType>(
  name: string,
  kind: RandomKind,
  dtype: D,
  key: Key,
  shape: Shape,
): Tensor<D> {
  checkShape(shape, name);
  checkKey(name, key);
  if (sizeOf(shape) > 2 ** 32)
    throw new GradmixError(
      "shape",
      `${name}: ${formatShape(shape)} has over 2³² elements; draw fewer from one key`,
    );
  const out = empty(shape, dtype);
  const [key0, key1] = key;
  run("random", { kind, key0, key1, offset: 0 }, {}, { out });
  return out;
}

/** 32 random bits per element, as i32, determined by the key. */
export function randomBits(key: Key, shape: Shape): Tensor<"i32"> {
  return random("randomBits", "bits", "i32", key, shape);
}

/** Random numbers, uniform in [0, 1), determined by the key. */
export function randomUniform(key: Key, shape: Shape): Tensor<"f32"> {
  return random("randomUniform", "uniform", "f32", key, shape);
}

/** Random numbers with the standard normal distribution, determined by the key. */
export function randomNormal(key: Key, shape: Shape): Tensor<"f32"> {
  return random("randomNormal", "normal", "f32", key, shape);
}
