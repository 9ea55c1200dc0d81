/** Checks derivatives: by central finite differences in double precision, and the two modes against each other. */
import { wantResult } from "../autograd/checks.ts";
import { type Blocks, follow } from "../autograd/batch.ts";
import { randomUniform } from "../autograd/create.ts";
import { jvp, type TensorFunction, vjp } from "../autograd/grad.ts";
import { type Application, type Transform, withTransform } from "../autograd/op.ts";
import { affine } from "../autograd/ops/arithmetic.ts";
import { createReferenceBackend } from "../backends/reference/index.ts";
import { GradmixError } from "../errors.ts";
import { boolean, checkOptions, integerIn, list, numberIn, show, callback } from "../options.ts";
import type { DType } from "../tensor/dtype.ts";
import { type Memory, setCurrentMemory } from "../tensor/memory.ts";
import { foldIn, key } from "../tensor/rng.ts";
import { formatShape, type Shape, stridesOf } from "../tensor/shape.ts";
import { scope, tensor, Tensor } from "../tensor/tensor.ts";

/** Options of `checkGradients`. */
export interface CheckGradientsOptions {
  /** Inputs to differentiate, by position. Default: all of type f32. */
  readonly wrt?: readonly number[];
  /** Highest order of the derivatives to check; 2 includes derivatives of derivatives. Default 1. */
  readonly order?: 1 | 2;
  /** Whether forward-mode derivatives are checked too. Default true; use false for a function whose ops have no jvp. */
  readonly forwardMode?: boolean;
  /** Step of the finite differences, multiplied by the larger of 1 and the element's size. Default 1e-5. */
  readonly step?: number;
  /**
   * Largest allowed error of a derivative, relative to the largest derivative of its input. Default 1e-6; the rounding of the differences is allowed
   * in addition.
   */
  readonly tolerance?: number;
  /** Seed of the random directions. Default 1. */
  readonly seed?: number;
}

interface Numbers {
  readonly data: ArrayLike<number>;
  readonly shape: Shape;
  readonly dtype: DType;
}

/** A function and the inputs at which it is checked. */
interface Problem {
  readonly f: TensorFunction;
  readonly primals: readonly Tensor[];
  /** Name of a primal in messages. */
  readonly nameOf: (i: number) => string;
  /** Names the output of f in messages, after "the vjp". */
  readonly of: string;
  readonly step: number;
  readonly tolerance: number;
  readonly seed: number;
}

/** What was computed at the primals. */
interface Found {
  readonly x: readonly ArrayLike<number>[];
  readonly cotangents: readonly Tensor[];
  readonly ct: readonly ArrayLike<number>[];
  /** The pulled-back cotangents Jᵀ·ct. */
  readonly pulled: readonly ArrayLike<number>[];
  /** Σ|f·ct|, the scale of rounding errors. */
  readonly terms: number;
}

/**
 * Throws `autograd` if a derivative of `f` at `inputs` is incorrect, naming the input, the element and both numbers. Everything is computed again in
 * double precision, on a separate reference backend:
 *
 * - reverse mode: each element of the vjp for random cotangents, against central differences of f along that element;
 * - forward mode: ⟨J·t, ct⟩ = ⟨t, Jᵀ·ct⟩ for random tangents t, input by input;
 * - batches: if the ops declare that blocks of rows are independent (`keepsBatch`), rows of the output have no derivative with respect to rows of
 *   other blocks;
 * - ops with `compose`: it gives the same numbers as `forward`, to within ten times the tolerance;
 * - with `order: 2`, the first two checks for the gradient and for the derivative along a direction.
 *
 * `f` is called many times, twice per element of the inputs. It must return the same each time, and may only use its arguments and tensors that it
 * makes itself. A tensor from outside lives on another backend, which is an error, so pass it as an input; inputs of type i32, such as indices and masks,
 * are handed on without being differentiated. Outputs of type i32 are ignored. Differences are meaningless at
 * kinks, such as that of relu at 0, so choose inputs away from them. Infinite elements of inputs (masks) are not moved. During the check, f runs in
 * f64, so the check does not say whether f is precise enough in f32.
 *
 * Throws `config` for invalid options, for a function whose values at the inputs are not finite, and if no input has an element.
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
  callback("checkGradients: f", f);
  list("checkGradients: inputs", inputs);
  const { order = 1, step = 1e-5, tolerance = 1e-6, forwardMode = true, seed = 1 } = options;
  const given: Numbers[] = [];
  for (const [i, t] of inputs.entries()) {
    if (!(t instanceof Tensor))
      throw new GradmixError("config", `checkGradients: input ${i} is ${show(t)}, not a tensor`);
    given.push({ data: await t.data(), shape: t.shape, dtype: t.dtype });
  }
  const wrt = options.wrt ?? given.flatMap(({ dtype }, i) => (dtype === "f32" ? [i] : []));
  const invalid = wrt.find((i) => given.at(i)?.dtype !== "f32" || !Number.isInteger(i) || i < 0);
  if (invalid !== undefined || wrt.length === 0)
    throw new GradmixError(
      "config",
      invalid === undefined
        ? "checkGradients: wrt: there is no f32 input to differentiate"
        : `checkGradients: wrt: input ${show(invalid)} is not one of the f32 inputs`,
    );
  if (wrt.every((i) => given[i]!.data.length === 0))
    throw new GradmixError(
      "config",
      "checkGradients: no input to differentiate has an element, so there is nothing to check",
    );
  const backend = createReferenceBackend({ precision: "f64" });
  const previous = setCurrentMemory(backend);
  try {
    scope(() => {
      const all = given.map(({ data, shape, dtype }) => tensor(Array.from(data), shape, dtype));
      wantOwn(backend, () => f(...all));
      const f0: TensorFunction = (...primals) => {
        const outputs = f(...all.map((t, i) => (wrt.includes(i) ? primals[wrt.indexOf(i)]! : t)));
        wantResult("checkGradients", outputs, true);
        const differentiable = asList(outputs).filter((t) => t.dtype === "f32");
        if (differentiable.length === 0)
          throw new GradmixError(
            "config",
            "checkGradients: the function returned no f32 tensor, so there is nothing to check",
          );
        return differentiable;
      };
      const primals = wrt.map((i) => all[i]!);
      const first: Problem = {
        f: f0,
        primals,
        nameOf: (i) => `input ${wrt[i]}`,
        of: "",
        step,
        tolerance,
        seed,
      };
      const { cotangents } = checkDerivatives(first, forwardMode);
      checkBatch(first);
      checkCompositions({ ...first, tolerance: 10 * tolerance });
      if (order === 1) return;
      const second = { ...first, tolerance: 10 * tolerance };
      const gradient: TensorFunction = (...x) => vjp(f0, x).pullback(cotangents);
      checkDerivatives({ ...second, f: gradient, of: " of the gradient" }, forwardMode);
      if (!forwardMode) return;
      const along = primals.map((t, i) => random(t.shape, seed, 300 + i));
      const tangent: TensorFunction = (...x) => jvp(f0, x, along).tangents;
      checkDerivatives({ ...second, f: tangent, of: " of the tangent" }, forwardMode);
    });
  } finally {
    setCurrentMemory(previous);
    void backend.dispose();
  }
}

/** Throws `autograd`, naming it, for a tensor from outside that `f` uses or returns: one that is not on the backend of the check. */
function wantOwn(own: Memory, f: () => Tensor | readonly Tensor[]): void {
  const check = (t: Tensor): void => {
    if (t.memory !== own)
      throw new GradmixError(
        "autograd",
        `checkGradients: f uses the ${t.dtype} tensor ${t.name ?? ""}${formatShape(t.shape)} from outside; pass it as an input (tensors of type i32 may be inputs too)`,
      );
  };
  const watcher: Transform = {
    observe: (inputs) => inputs.forEach(check),
    tracks: () => false,
    record: () => {},
  };
  scope(() => {
    const outputs = withTransform(watcher, f);
    wantResult("checkGradients", outputs, true);
    asList(outputs).forEach(check);
  });
}

const asList = (result: Tensor | readonly Tensor[]): Tensor[] =>
  result instanceof Tensor ? [result] : [...result];
const sumOf = (x: ArrayLike<number>, of: (value: number, n: number) => number): number =>
  Array.from(x).reduce((sum, value, n) => sum + of(value, n), 0);

/** Reads the elements synchronously: the reference backend never waits. */
function read(t: Tensor): ArrayLike<number> {
  const memory: Memory = t.memory;
  if (memory.readNow === undefined)
    throw new GradmixError(
      "backend",
      `checkGradients: the function returned a tensor on ${memory.name}; it must compute only with its arguments`,
    );
  return memory.readNow(t.buffer, t.offset, t.size);
}

const dot = (a: readonly ArrayLike<number>[], b: readonly ArrayLike<number>[]): number =>
  a.reduce((sum, x, i) => sum + sumOf(x, (value, n) => value * b[i]![n]!), 0);

/** Random numbers in [−1, 1) that depend only on the seed. */
const random = (shape: Shape, seed: number, stream: number): Tensor =>
  affine(randomUniform(foldIn(key(seed), stream), shape), 2, -1);

/** Index along each axis of a row-major position, for messages. */
const indexOf = (at: number, shape: Shape): string =>
  formatShape(stridesOf(shape).map((stride, axis) => Math.floor(at / stride) % shape[axis]!));

/** Throws unless all pairs of numbers agree, up to the tolerance relative to the largest, and to rounding. */
function wantSame(
  { of, nameOf, primals, tolerance }: Problem,
  i: number,
  [rule, found]: readonly [string, ArrayLike<number>],
  [other, want]: readonly [string, ArrayLike<number>],
  rounding: number,
): void {
  const scale = Array.from(want, Math.abs).reduce((most, value) => (value > most ? value : most), 0);
  const allowed = tolerance * scale + rounding;
  const at = Array.from(want).findIndex((value, n) => !(Math.abs(found[n]! - value) <= allowed));
  if (at >= 0)
    throw new GradmixError(
      "autograd",
      `checkGradients: ${nameOf(i)}, element ${indexOf(at, primals[i]!.shape)}: the ${rule}${of} gives ${found[at]}, ${other} ${want[at]}`,
    );
}

/** Checks the vjp by differences and, with `forwardMode`, the jvp by the vjp. */
function checkDerivatives(problem: Problem, forwardMode: boolean): Found {
  const { f, primals, of, seed } = problem;
  const { outputs, pullback } = vjp(f, primals);
  const values = outputs.map(read);
  if (!values.every((data) => Array.from(data).every(Number.isFinite)))
    throw new GradmixError(
      "config",
      `checkGradients: the function is not finite at the inputs${of === "" ? "" : ` (values${of})`}`,
    );
  const cotangents = outputs.map((t, i) => random(t.shape, seed, 100 + i));
  const ct = cotangents.map(read);
  const terms = values.reduce((sum, data, i) => sum + sumOf(data, (v, n) => Math.abs(v * ct[i]![n]!)), 0);
  const found = {
    x: primals.map(read),
    cotangents,
    ct,
    pulled: pullback(cotangents).map(read),
    terms,
  };
  for (const i of primals.keys()) {
    checkByDifferences(problem, found, i);
    if (forwardMode) checkTangent(problem, found, i);
  }
  return found;
}

function checkByDifferences(problem: Problem, { x, ct, pulled, terms }: Found, i: number): void {
  const { f, primals, step } = problem;
  /** ⟨f, ct⟩ after moving one element of the input. */
  const moved = (at: number, delta: number): number =>
    scope(() => {
      const movedInputs = x.map((data, n) =>
        tensor(
          Array.from(data, (value, e) => (n === i && e === at ? value + delta : value)),
          primals[n]!.shape,
        ),
      );
      return dot(asList(f(...movedInputs)).map(read), ct);
    });
  const found = pulled[i]!;
  const slopes = Array.from(x[i]!, (value, at) => {
    // Infinities, as in masks, cannot be moved.
    if (!Number.isFinite(value)) return found[at]!;
    const h = step * Math.max(1, Math.abs(value));
    return (moved(at, h) - moved(at, -h)) / (2 * h);
  });
  const rounding = (64 * Number.EPSILON * terms) / step;
  wantSame(problem, i, ["vjp", found], ["central differences give", slopes], rounding);
}

function checkTangent(problem: Problem, { ct, pulled, terms }: Found, i: number): void {
  const { f, primals, nameOf, of, seed } = problem;
  const { shape, size } = primals[i]!;
  /** ⟨J·t, ct⟩ for a tangent of this input alone. */
  const pushed = (t: Tensor): number =>
    scope(() => {
      const tangents = primals.map((p, n) => (n === i ? t : tensor(new Float64Array(p.size), p.shape)));
      return dot(jvp(f, primals, tangents).tangents.map(read), ct);
    });
  const t = random(shape, seed, 200 + i);
  const [forward, reverse] = [pushed(t), dot([read(t)], [pulled[i]!])];
  // Both are exact up to rounding.
  if (Math.abs(forward - reverse) <= 1e-9 * sumOf(pulled[i]!, Math.abs) + 1e-12 * terms) return;
  // Finds the element that causes the difference.
  const parts = Array.from({ length: size }, (_, at) =>
    scope(() =>
      pushed(
        tensor(
          Float64Array.from({ length: size }, (_, n) => (n === at ? 1 : 0)),
          shape,
        ),
      ),
    ),
  );
  wantSame(problem, i, ["jvp", parts], ["the vjp gives", pulled[i]!], 0);
  throw new GradmixError(
    "autograd",
    `checkGradients: ${nameOf(i)}: the jvp${of} gives ⟨J·t, ct⟩ = ${forward}, the vjp ⟨t, Jᵀ·ct⟩ = ${reverse}; a derivative must be linear`,
  );
}

/** Follows what the ops declare about axis 0. */
class Follower implements Transform {
  readonly blocks = new Map<Tensor, Blocks>();
  readonly names = new Set<string>();

  constructor(input: Tensor) {
    this.blocks.set(input, { count: input.shape.at(0) ?? 1, reason: null });
  }

  tracks(inputs: readonly Tensor[]): boolean {
    return inputs.some((t) => this.blocks.has(t));
  }

  record<A>({ op, attrs, inputs, outputs }: Application<A>): void {
    this.names.add(op.name);
    const known = inputs.map((t) => this.blocks.get(t) ?? null);
    for (const t of outputs) {
      const blocks = follow(op, attrs, inputs, t, known);
      if (blocks !== null) this.blocks.set(t, blocks);
    }
  }
}

/** Throws unless blocks of rows that the ops declare independent are so: cotangents of one block must only reach the same block of the input. */
function checkBatch({ f, primals, nameOf, seed }: Problem): void {
  for (const [i, input] of primals.entries()) {
    const follower = new Follower(input);
    const outputs = withTransform(follower, () => asList(f(...primals)));
    for (const [o, output] of outputs.entries()) {
      const { count } = follower.blocks.get(output) ?? { count: 1 };
      const inside = (at: number, size: number, block: number): boolean =>
        Math.floor((at * count) / size) === block;
      // A single block is trivially independent.
      for (let block = 0; block < (count > 1 ? count : 0); block++) {
        const pulled = scope(() => {
          const ct = read(random(output.shape, seed, 400));
          const part = Array.from(ct, (value, at) => (inside(at, output.size, block) ? value : 0));
          return read(vjp(f, primals).pullback(cotangentsOf(outputs, o, part))[i]!);
        });
        const at = Array.from(pulled).findIndex((v, n) => v !== 0 && !inside(n, input.size, block));
        if (at >= 0)
          throw new GradmixError(
            "autograd",
            `checkGradients: ${nameOf(i)}, element ${indexOf(at, input.shape)}: block ${block} of the ${count} blocks of rows of output ${o} depends on it, and ${[...follower.names].join(", ")} declare in keepsBatch that these blocks are independent`,
          );
      }
    }
  }
}

/** Collects the applications of ops that have another form, `compose`, and keeps their tensors. */
class Compositions implements Transform {
  readonly found: { readonly name: string; compose(): Tensor[]; readonly outputs: readonly Tensor[] }[] = [];
  readonly #held: Tensor[] = [];

  tracks(): boolean {
    return true;
  }

  record<A>({ op, attrs, inputs, outputs }: Application<A>): void {
    if (op.compose === undefined) return;
    for (const t of [...inputs, ...outputs]) this.#held.push(t.retain());
    this.found.push({ name: op.name, compose: () => op.compose!([...inputs] as never, attrs), outputs });
  }

  release(): void {
    for (const t of this.#held) t.release();
  }
}

/** Throws unless the compositions of ops give the numbers of the ops themselves, to within the tolerance. */
function checkCompositions({ f, primals, tolerance }: Problem): void {
  const compositions = new Compositions();
  try {
    withTransform(compositions, () => f(...primals));
    for (const { name, compose, outputs } of compositions.found)
      scope(() =>
        compose().forEach((composed, o) => {
          const [found, wanted] = [read(composed), read(outputs[o]!)];
          const scale = Array.from(wanted, Math.abs).reduce(
            (most, value) => (value > most ? value : most),
            0,
          );
          const differs = (value: number, n: number): boolean =>
            !Object.is(value, found[n]) && !(Math.abs(value - found[n]!) <= tolerance * Math.max(1, scale));
          const at = Array.from(wanted).findIndex(differs);
          if (at >= 0)
            throw new GradmixError(
              "autograd",
              `checkGradients: ${name}: output ${o}, element ${indexOf(at, outputs[o]!.shape)}: compose gives ${found[at]}, forward gives ${wanted[at]}; both must be the same function`,
            );
        }),
      );
  } finally {
    compositions.release();
  }
}

/** Zeros, except for the output `o`. */
const cotangentsOf = (outputs: readonly Tensor[], o: number, data: ArrayLike<number>): Tensor[] =>
  outputs.map((t, n) => tensor(n === o ? data : new Float64Array(t.size), t.shape));
