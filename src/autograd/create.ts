/** Making tensors: constants, ranges, random numbers. They live on the current backend. */
import { run } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import type { Key } from "../tensor/rng.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";
import { empty, type Tensor, tensor } from "../tensor/tensor.ts";

/** A tensor of one value. */
export function full(shape: Shape, value: number, dtype: DType = "f32"): Tensor {
  const out = empty(shape, dtype);
  if (out.size > 0) run("fill", { value }, [], [out]);
  return out;
}

export function zeros(shape: Shape, dtype: DType = "f32"): Tensor {
  return full(shape, 0, dtype);
}

export function ones(shape: Shape, dtype: DType = "f32"): Tensor {
  return full(shape, 1, dtype);
}

/** The identity matrix [n, n]. */
export function eye(n: number): Tensor {
  const data = new Float32Array(n * n);
  for (let i = 0; i < n; i++) data[i * (n + 1)] = 1;
  return tensor(data, [n, n]);
}

/** 0, 1 … count − 1. */
export function arange(count: number, dtype: DType = "f32"): Tensor {
  return tensor(
    Float64Array.from({ length: count }, (_, i) => i),
    [count],
    dtype,
  );
}

function random(kind: "bits" | "uniform" | "normal", [key0, key1]: Key, shape: Shape): Tensor {
  const out = empty(shape, kind === "bits" ? "i32" : "f32");
  if (sizeOf(shape) > 2 ** 32)
    throw new GradmixError("shape", `random: ${sizeOf(shape)} numbers from one key; draw at most 2³²`);
  if (out.size > 0) run("random", { kind, key0, key1, offset: 0 }, [], [out]);
  return out;
}

/** 32 random bits an element, i32. */
export function randomBits(key: Key, shape: Shape): Tensor {
  return random("bits", key, shape);
}

/** Uniform in [0, 1). */
export function randomUniform(key: Key, shape: Shape): Tensor {
  return random("uniform", key, shape);
}

/** Standard normal. */
export function randomNormal(key: Key, shape: Shape): Tensor {
  return random("normal", key, shape);
}
