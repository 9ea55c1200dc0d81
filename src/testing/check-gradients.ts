/** Are derivatives right? By central finite differences in double precision, and the two modes against each other. */
import { type Blocks, follow } from "../autograd/batch.ts";
import { randomUniform } from "../autograd/create.ts";
import { jvp, type TensorFunction, vjp } from "../autograd/grad.ts";
import { type Application, type Transform, withTransform } from "../autograd/op.ts";
import { affine } from "../autograd/ops/arithmetic.ts";
import { createReferenceBackend } from "../backends/reference/index.ts";
import { GradmixError } from "../errors.ts";
import { boolean, checkOptions, integerIn, list, numberIn, show } from "../options.ts";
import type { DType } from "../tensor/dtype.ts";
import { type Memory, setCurrentMemory } from "../tensor/memory.ts";
import { foldIn, key } from "../tensor/rng.ts";
import { formatShape, type Shape, stridesOf } from "../tensor/shape.ts";
import { scope, tensor, Tensor } from "../tensor/tensor.ts";

/** Options of `checkGradients`. */
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

/** A function and where it is checked. */
interface Problem {
  readonly f: TensorFunction;
  readonly primals: readonly Tensor[];
  /** Of a primal, in messages. */
  readonly nameOf: (i: number) => string;
  /** What f gives, after "the vjp" in messages. */
  readonly of: string;
  readonly step: number;
  readonly tolerance: number;
  readonly seed: number;
}

/** What is known of it at the primals. */
interface Found {
  readonly x: readonly ArrayLike<number>[];
  readonly cotangents: readonly Tensor[];
  readonly ct: readonly ArrayLike<number>[];
  /** Jᵀ·ct. */
  readonly pulled: readonly ArrayLike<number>[];
  /** Σ|f·ct|, by which rounding goes. */
  readonly terms: number;
}

/**
 * Throws `autograd` unless the derivatives of `f` at `inputs` are right, naming the input, the element and both numbers. Everything is computed again in double
 * precision, on a reference backend of its own:
 *
 * - reverse mode: each element of the vjp for random cotangents, against central differences of f along that element;
 * - forward mode: ⟨J·t, ct⟩ = ⟨t, Jᵀ·ct⟩ for random tangents t, input by input;
 * - the batch: where the ops say that blocks of rows stay apart (`keepsBatch`), rows of the output have no derivative by rows of other blocks;
 * - with `order: 2`, all but the last of the gradient and of the derivative along a direction.
 *
 * `f` is called many times, twice for each element of the inputs; it must give the same each time, and may use what it is given and what it makes itself
 * (tensors from outside live on another backend, which is an error). Outputs of type i32 are not looked at. Differences mean nothing at kinks, such as that of
 * relu at 0: choose inputs off them. Infinite elements of inputs (masks) are not moved. While it computes, f runs in f64; whether it is precise enough in f32 is another question.
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
      const f0: TensorFunction = (...primals) => {
        const outputs = f(...all.map((t, i) => (wrt.includes(i) ? primals[wrt.indexOf(i)]! : t)));
        return asList(outputs).filter((t) => t.dtype === "f32");
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

const asList = (result: Tensor | readonly Tensor[]): Tensor[] =>
  result instanceof Tensor ? [result] : [...result];
const sumOf = (x: ArrayLike<number>, of: (value: number, n: number) => number): number =>
  Array.from(x).reduce((sum, value, n) => sum + of(value, n), 0);

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
  a.reduce((sum, x, i) => sum + sumOf(x, (value, n) => value * b[i]![n]!), 0);

/** Numbers in [−1, 1), the same for the same seed. */
const random = (shape: Shape, seed: number, stream: number): Tensor =>
  affine(randomUniform(foldIn(key(seed), stream), shape), 2, -1);

/** Row-major position → index along each axis. */
const indexOf = (at: number, shape: Shape): string =>
  formatShape(stridesOf(shape).map((stride, axis) => Math.floor(at / stride) % shape[axis]!));

/** Throws unless each number is the other's, up to the tolerance of the largest and to rounding. */
function wantSame(
  { of, nameOf, primals, tolerance }: Problem,
  i: number,
  [rule, got]: readonly [string, ArrayLike<number>],
  [other, want]: readonly [string, ArrayLike<number>],
  rounding: number,
): void {
  const scale = Array.from(want, Math.abs).reduce((most, value) => (value > most ? value : most), 0);
  const allowed = tolerance * scale + rounding;
  const at = Array.from(want).findIndex((value, n) => !(Math.abs(got[n]! - value) <= allowed));
  if (at >= 0)
    throw new GradmixError(
      "autograd",
      `checkGradients: ${nameOf(i)}, element ${indexOf(at, primals[i]!.shape)}: the ${rule}${of} gives ${got[at]}, ${other} ${want[at]}`,
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
  /** ⟨f, ct⟩ with one element of the input moved. */
  const moved = (at: number, by: number): number =>
    scope(() => {
      const there = x.map((data, n) =>
        tensor(
          Array.from(data, (value, e) => (n === i && e === at ? value + by : value)),
          primals[n]!.shape,
        ),
      );
      return dot(asList(f(...there)).map(read), ct);
    });
  const found = pulled[i]!;
  const slopes = Array.from(x[i]!, (value, at) => {
    // Infinity, as masks have it, cannot be moved.
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
  const [ahead, back] = [pushed(t), dot([read(t)], [pulled[i]!])];
  // Both are exact but for rounding.
  if (Math.abs(ahead - back) <= 1e-9 * sumOf(pulled[i]!, Math.abs) + 1e-12 * terms) return;
  // By which element?
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
    `checkGradients: ${nameOf(i)}: the jvp${of} gives ⟨J·t, ct⟩ = ${ahead}, the vjp ⟨t, Jᵀ·ct⟩ = ${back}; a derivative must be linear`,
  );
}

/** Follows what the ops say of axis 0. */
class Follower implements Transform {
  readonly blocks = new Map<Tensor, Blocks>();
  readonly names = new Set<string>();

  constructor(input: Tensor) {
    this.blocks.set(input, { count: input.shape.at(0) ?? 1, reason: null });
  }

  tracks(inputs: readonly Tensor[]): boolean {
    return inputs.some((t) => this.blocks.has(t));
  }

  note<A>({ op, attrs, inputs, outputs }: Application<A>): void {
    this.names.add(op.name);
    const known = inputs.map((t) => this.blocks.get(t) ?? null);
    for (const t of outputs) {
      const blocks = follow(op, attrs, inputs, t, known);
      if (blocks !== null) this.blocks.set(t, blocks);
    }
  }
}

/** Throws unless blocks of rows that the ops keep apart are apart: cotangents of one block must give the input's same block alone. */
function checkBatch({ f, primals, nameOf, seed }: Problem): void {
  for (const [i, input] of primals.entries()) {
    const follower = new Follower(input);
    const outputs = withTransform(follower, () => asList(f(...primals)));
    for (const [o, output] of outputs.entries()) {
      const { count } = follower.blocks.get(output) ?? { count: 1 };
      const inside = (at: number, size: number, block: number): boolean =>
        Math.floor((at * count) / size) === block;
      // One block is apart from none.
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
            `checkGradients: ${nameOf(i)}, element ${indexOf(at, input.shape)}: block ${block} of the ${count} blocks of rows of output ${o} depends on it, and ${[...follower.names].join(", ")} say in keepsBatch that these blocks stay apart`,
          );
      }
    }
  }
}

/** Zeros but for the output `o`. */
const cotangentsOf = (outputs: readonly Tensor[], o: number, data: ArrayLike<number>): Tensor[] =>
  outputs.map((t, n) => tensor(n === o ? data : new Float64Array(t.size), t.shape));
