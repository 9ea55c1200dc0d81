/** Are derivatives right? By central finite differences in double precision, and the two modes against each other. */
import { jvp, type TensorFunction, vjp } from "../autograd/grad.ts";
import { createReferenceBackend } from "../backends/reference/index.ts";
import { GradmixError } from "../errors.ts";
import { boolean, checkOptions, integerIn, list, numberIn, show } from "../options.ts";
import type { DType } from "../tensor/dtype.ts";
import { type Memory, setCurrentMemory } from "../tensor/memory.ts";
import { formatShape, type Shape, stridesOf } from "../tensor/shape.ts";
import { scope, tensor, Tensor } from "../tensor/tensor.ts";

export interface CheckGradientsOptions {
  /** Inputs to differentiate, by position. Default: all of type f32. */
  readonly wrt?: readonly number[];
  /** 2: derivatives of the derivatives too. Default 1. */
  readonly order?: 1 | 2;
  /** Are tangents checked too? Default true; false for a function whose ops have no jvp. */
  readonly forwardMode?: boolean;
  /** Of the differences, times the larger of 1 and the element's size. Default 1e-5. */
  readonly step?: number;
  /** Largest deviation of a derivative, relative to the largest of its input's. Default 1e-6; rounding of the differences is allowed on top. */
  readonly tolerance?: number;
  /** Of the random directions. Default 1. */
  readonly seed?: number;
}

interface Numbers {
  readonly data: ArrayLike<number>;
  readonly shape: Shape;
  readonly dtype: DType;
}

interface Settings {
  readonly step: number;
  readonly tolerance: number;
  readonly forwardMode: boolean;
  readonly seed: number;
}

/**
 * Throws `autograd` unless the derivatives of `f` at `inputs` are right, naming the input, the element and both numbers. Everything is computed again in double
 * precision, on a reference backend of its own:
 *
 * - reverse mode: each element of the vjp for random cotangents, against central differences of f along that element;
 * - forward mode: ⟨J·t, ct⟩ = ⟨t, Jᵀ·ct⟩ for random tangents t, input by input;
 * - with `order: 2`, the same of the gradient and of the derivative along a direction.
 *
 * `f` is called many times, twice for each element of the inputs; it must give the same each time, and may use what it is given and what it makes itself
 * (tensors from outside live on another backend, which is an error). Outputs of type i32 are not looked at. Differences mean nothing at kinks, such as that of
 * relu at 0: choose inputs off them. While it computes, f runs in f64; whether it is precise enough in f32 is another question.
 *
 * Throws `config` for options that do not fit and for a function whose values at the inputs are not finite.
 */
export async function checkGradients(
  f: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: CheckGradientsOptions = {},
): Promise<void> {
  checkOptions("checkGradients", options, {
    wrt: list,
    order: integerIn(1, 2),
    forwardMode: boolean,
    step: numberIn({ min: 0, openMin: true }),
    tolerance: numberIn({ min: 0, openMin: true }),
    seed: integerIn(0),
  });
  const { order = 1, step = 1e-5, tolerance = 1e-6, forwardMode = true, seed = 1 } = options;
  const given: Numbers[] = [];
  for (const [i, t] of inputs.entries()) {
    if (!(t instanceof Tensor))
      throw new GradmixError("config", `checkGradients: input ${i} is ${show(t)}, not a tensor`);
    given.push({ data: await t.data(), shape: t.shape, dtype: t.dtype });
  }
  const wrt = options.wrt ?? given.flatMap(({ dtype }, i) => (dtype === "f32" ? [i] : []));
  const wrong = wrt.find((i) => given.at(i)?.dtype !== "f32" || !Number.isInteger(i) || i < 0);
  if (wrong !== undefined || wrt.length === 0)
    throw new GradmixError(
      "config",
      wrong === undefined
        ? "checkGradients: wrt: there is no f32 input to differentiate"
        : `checkGradients: wrt: input ${show(wrong)} is none of the f32 inputs`,
    );
  const backend = createReferenceBackend({ precision: "f64" });
  const previous = setCurrentMemory(backend);
  try {
    scope(() => {
      const all = given.map(({ data, shape, dtype }) => tensor(Array.from(data), shape, dtype));
      const settings = { step, tolerance, forwardMode, seed };
      const of: TensorFunction = (...primals) => {
        const outputs = f(...all.map((t, i) => (wrt.includes(i) ? primals[wrt.indexOf(i)] : t)));
        return (outputs instanceof Tensor ? [outputs] : [...outputs]).filter((t) => t.dtype === "f32");
      };
      const primals = wrt.map((i) => all[i]);
      const nameOf = (i: number): string => `input ${wrt[i]}`;
      const cotangents = checkOnce("", of, primals, nameOf, settings);
      if (order === 1) return;
      // Their tangents are the second argument's random numbers, other than those that are checked with.
      const along = primals.map((t, i) => random(t.shape, seed + 77, i));
      const finer = { ...settings, tolerance: 10 * tolerance };
      const gradient: TensorFunction = (...x) => vjp(of, x).pullback(cotangents);
      checkOnce(" of the gradient", gradient, primals, nameOf, finer);
      if (!forwardMode) return;
      checkOnce(" of the tangent", (...x) => jvp(of, x, along).tangents, primals, nameOf, finer);
    });
  } finally {
    setCurrentMemory(previous);
    void backend.dispose();
  }
}

const asList = (result: Tensor | readonly Tensor[]): readonly Tensor[] =>
  result instanceof Tensor ? [result] : result;

/** The elements, at once: the reference backend never waits. */
function read(t: Tensor): ArrayLike<number> {
  const memory: Memory = t.memory;
  if (memory.readNow === undefined)
    throw new GradmixError(
      "backend",
      `checkGradients: the function gave a tensor on ${memory.name}; it must be made of what it is given`,
    );
  return memory.readNow(t.buffer, t.offset, t.size);
}

const dot = (a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]): number =>
  a.reduce((sum, x, i) => Array.from(x).reduce((part, value, n) => part + value * b[i][n], sum), 0);

/** Numbers in [−1, 1), the same for the same seed (mulberry32). */
function random(shape: Shape, seed: number, stream: number): Tensor {
  let state = (Math.imul(seed, 0x9e3779b1) + Math.imul(stream + 1, 0x85ebca6b)) >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
  const size = shape.reduce((product, extent) => product * extent, 1);
  return tensor(Array.from({ length: size }, next), shape);
}

/** Row-major position → index along each axis. */
const indexOf = (at: number, shape: Shape): string =>
  formatShape(stridesOf(shape).map((stride, axis) => Math.floor(at / stride) % shape[axis]));

/** Checks f in both modes; gives the cotangents that it used. `of` says what f is, in messages. */
function checkOnce(
  of: string,
  f: TensorFunction,
  primals: readonly Tensor[],
  nameOf: (i: number) => string,
  { step, tolerance, forwardMode, seed }: Settings,
): Tensor[] {
  const { outputs, pullback } = vjp(f, primals);
  const values = outputs.map(read);
  if (!values.every((data) => Array.from(data).every(Number.isFinite)))
    throw new GradmixError(
      "config",
      `checkGradients: the function${of === "" ? "" : ` (values${of})`} is not finite at the inputs`,
    );
  const cotangents = outputs.map((t, i) => random(t.shape, seed, 100 + i));
  const ct = cotangents.map(read);
  const pulled = pullback(cotangents).map(read);
  const x = primals.map(read);
  /** ⟨f, ct⟩ with element `at` of input `i` moved. */
  const moved = (i: number, at: number, by: number): number =>
    scope(() => {
      const there = x.map((data, n) => {
        const numbers = Array.from(data);
        if (n === i) numbers[at] += by;
        return tensor(numbers, primals[n].shape);
      });
      return dot(asList(f(...there)).map(read), ct);
    });
  // What rounding makes of ⟨f, ct⟩, whose terms may cancel.
  const terms = values.reduce(
    (sum, data, i) => Array.from(data).reduce((part, value, n) => part + Math.abs(value * ct[i][n]), sum),
    0,
  );
  for (const [i, data] of x.entries()) {
    const slopes = Array.from(data, (value, at) => {
      const h = step * Math.max(1, Math.abs(value));
      return (moved(i, at, h) - moved(i, at, -h)) / (2 * h);
    });
    const rounding = (64 * Number.EPSILON * terms) / step;
    compare(`vjp${of}`, "central differences give", nameOf(i), primals[i].shape, pulled[i], slopes, rounding);
  }
  if (forwardMode) for (const i of x.keys()) checkTangent(i);
  return cotangents;

  function compare(
    rule: string,
    other: string,
    input: string,
    shape: Shape,
    got: ArrayLike<number>,
    want: ArrayLike<number>,
    rounding: number,
  ): void {
    const allowed = tolerance * Math.max(0, ...Array.from(want, Math.abs)) + rounding;
    const at = Array.from(want).findIndex((value, n) => !(Math.abs(got[n] - value) <= allowed));
    if (at >= 0)
      throw new GradmixError(
        "autograd",
        `checkGradients: ${input}, element ${indexOf(at, shape)}: the ${rule} gives ${got[at]}, ${other} ${want[at]}`,
      );
  }

  /** ⟨J·t, ct⟩ for a tangent of input `i` alone. */
  function pushed(i: number, t: Tensor): number {
    return scope(() => {
      const tangents = primals.map((p, n) => (n === i ? t : tensor(new Float64Array(p.size), p.shape)));
      return dot(jvp(f, primals, tangents).tangents.map(read), ct);
    });
  }

  function checkTangent(i: number): void {
    const { shape, size } = primals[i];
    const t = random(shape, seed, 200 + i);
    const scale = Array.from(pulled[i], Math.abs).reduce((sum, value) => sum + value, 0);
    const [ahead, back] = [pushed(i, t), dot([read(t)], [pulled[i]])];
    // Both are exact but for rounding.
    if (Math.abs(ahead - back) <= 1e-9 * scale + 1e-12 * terms) return;
    // By which element?
    const parts = Array.from({ length: size }, (_, at) => {
      const one = new Float64Array(size);
      one[at] = 1;
      return pushed(i, tensor(one, shape));
    });
    compare(`jvp${of}`, "the vjp gives", nameOf(i), shape, parts, pulled[i], 0);
    throw new GradmixError(
      "autograd",
      `checkGradients: ${nameOf(i)}: the jvp${of} gives ⟨J·t, ct⟩ = ${ahead}, the vjp ⟨t, Jᵀ·ct⟩ = ${back}; a derivative must be linear`,
    );
  }
}
