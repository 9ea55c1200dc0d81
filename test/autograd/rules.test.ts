/**
 * Every registered op × {forward, vjp, jvp, derivatives of derivatives}, by finite differences in double precision, and on
 * every backend against the double-precision reference.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { GradmixError } from "#dist/errors.js";
import { jvp, type TensorFunction, vjp } from "#dist/autograd/grad.js";
import type { Op } from "#dist/autograd/op.js";
import { ops } from "#dist/autograd/ops/index.js";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { scope, tensor, type Tensor } from "#dist/tensor/tensor.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";
import { applySample, type Sample, samples, upload } from "./samples.ts";

const STEP = 1e-5;

/** One sample on the current backend: the function of the differentiated inputs, and those inputs. */
interface Problem {
  readonly f: TensorFunction;
  readonly all: Tensor[];
  readonly primals: Tensor[];
}

function problem(op: Op<never>, sample: Sample): Problem {
  const all = sample.inputs().map(upload);
  const wrt =
    sample.wrt?.map((slot) => (slot < 0 ? slot + all.length : slot)) ??
    all.flatMap((t, slot) => (t.dtype === "f32" ? [slot] : []));
  return {
    all,
    primals: wrt.map((slot) => all[slot]),
    f: (...given) =>
      applySample(
        op,
        all.map((t, slot) => (wrt.includes(slot) ? given[wrt.indexOf(slot)] : t)),
        sample.attrs,
      ),
  };
}

const random = (like: Tensor, seed: number): Tensor => tensor(values(like.size, seed), like.shape);
const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const many = (ts: readonly Tensor[]): Promise<number[][]> => Promise.all(ts.map(numbers));
const dot = (a: readonly number[][], b: readonly number[][]): number =>
  a.flat().reduce((sum, x, n) => sum + x * b.flat()[n], 0);

/** Central difference of f's outputs along the tangents. */
async function difference(
  f: TensorFunction,
  primals: readonly Tensor[],
  tangents: readonly Tensor[],
): Promise<number[][]> {
  const [x, v] = [await many(primals), await many(tangents)];
  const at = async (step: number): Promise<number[][]> => {
    const moved = x.map((data, p) =>
      tensor(
        data.map((value, n) => value + step * v[p][n]),
        primals[p].shape,
      ),
    );
    const outputs = f(...moved);
    return many(Array.isArray(outputs) ? outputs : [outputs]);
  };
  const [up, down] = [await at(STEP), await at(-STEP)];
  return up.map((output, o) => output.map((value, n) => (value - down[o][n]) / (2 * STEP)));
}

function close(got: readonly number[][], want: readonly number[][], tolerance: number, what: string): void {
  expect(
    got.map((x) => x.length),
    what,
  ).toEqual(want.map((x) => x.length));
  got.forEach((x, o) =>
    x.forEach((value, n) => {
      const error = Math.abs(value - want[o][n]) / Math.max(1, Math.abs(want[o][n]));
      if (!(error <= tolerance))
        expect.fail(`${what}: output ${o}, element ${n} is ${value}, not ${want[o][n]}`);
    }),
  );
}

/** Everything that the rules give for a sample, as numbers; frees all of it. */
async function evaluate(op: Op<never>, sample: Sample): Promise<{ [what: string]: number[][] }> {
  const results = scope(() => {
    const { f, primals } = problem(op, sample);
    const forward = [f(...primals)].flat();
    if (primals.length === 0) return { forward };
    const directions = primals.map((t, n) => random(t, 600 + n));
    return {
      forward,
      vjp: vjp(f, primals).pullback(forward.map((t, n) => random(t, 500 + n))),
      jvp: jvp(f, primals, directions).tangents,
    };
  });
  const out: { [what: string]: number[][] } = {};
  for (const [what, tensors] of Object.entries(results)) out[what] = await many(tensors);
  for (const t of Object.values(results).flat()) t.dispose();
  return out;
}

const oracle = createReferenceBackend({ precision: "f64" });
const names = Object.keys(ops);

it("every op has samples, and every sample an op", () => {
  expect(Object.keys(samples).sort()).toEqual([...names].sort());
  expect(names.filter((name) => samples[name].length === 0)).toEqual([]);
});

it("every op has rules or says why not", () => {
  const without = names.filter((name) => {
    const op = ops[name];
    return op.constant !== true && (op.vjp === undefined || op.jvp === undefined) && op.compose === undefined;
  });
  expect(without).toEqual([]);
});

describe.each(names)("%s", (name) => {
  const op = ops[name];
  beforeAll(() => void setCurrentMemory(oracle));

  it.each(samples[name].map((sample, n) => [n, sample] as const))("forward %d", async (_, sample) => {
    const { f, primals, all } = problem(op, sample);
    const [output] = await many([f(...primals)].flat());
    const expected = sample.expected ?? null;
    if (expected === null) {
      expect(op.compose, "without an expectation there is a composition").toBeDefined();
      const composed = (op as Op<unknown>).compose?.(all, sample.attrs) ?? [];
      close([output], await many(composed.slice(0, 1)), 1e-12, name);
    } else if (sample.wrt === undefined) close([output], [expected(...(await many(all)))], 1e-6, name);
    else expect(output.every(Number.isFinite)).toBe(true);
  });

  it.each(samples[name].map((sample, n) => [n, sample] as const))("vjp and jvp %d", async (_, sample) => {
    const { f, primals } = problem(op, sample);
    if (primals.length === 0) {
      // Of integers alone; what has a gradient has a sample that shows it.
      const shown = samples[name].some(({ inputs }) => inputs().some(({ dtype }) => dtype === "f32"));
      expect(op.constant === true || shown).toBe(true);
      return;
    }
    const tangents = primals.map((t, n) => random(t, 100 + n));
    const { outputs, pullback } = vjp(f, primals);
    const cotangents = outputs.map((t, n) => random(t, 200 + n));
    const pulled = await many(pullback(cotangents));
    const pushed = await many(jvp(f, primals, tangents).tangents);
    const v = await many(tangents);
    const ct = await many(cotangents);
    if (op.constant === true) {
      expect(pulled.flat().every((x) => x === 0)).toBe(true);
      expect(pushed.flat().every((x) => x === 0)).toBe(true);
      return;
    }
    const slope = await difference(f, primals, tangents);
    close(pushed, slope, 1e-7, "jvp");
    close([[dot(pulled, v)]], [[dot(slope, ct)]], 1e-7, "vjp");
    // Exact up to rounding, element by element of a random projection.
    close([[dot(pushed, ct)]], [[dot(pulled, v)]], 1e-11, "⟨jvp, ct⟩ = ⟨tangent, vjp⟩");
    expect(pulled.flat().some((x) => x !== 0)).toBe(true);
  });

  it.each(samples[name].map((sample, n) => [n, sample] as const))(
    "derivatives of derivatives %d",
    async (_, sample) => {
      const { f, primals } = problem(op, sample);
      if (op.constant === true || primals.length === 0) return;
      const ct = [f(...primals)].flat().map((t, n) => random(t, 300 + n));
      const gradient: TensorFunction = (...x) => {
        const { pullback } = vjp(f, x);
        return pullback(ct);
      };
      const derivative: TensorFunction = (...x) =>
        jvp(
          f,
          x,
          primals.map((t, n) => random(t, 400 + n)),
        ).tangents;
      const tangents = primals.map((t, n) => random(t, 100 + n));
      const v = await many(tangents);
      for (const [what, g] of [
        ["gradient", gradient],
        ["derivative", derivative],
      ] as const) {
        const slope = await difference(g, primals, tangents);
        close(await many(jvp(g, primals, tangents).tangents), slope, 1e-6, `jvp of the ${what}`);
        const { outputs, pullback } = vjp(g, primals);
        const cotangents = outputs.map((t, n) => random(t, 200 + n));
        const pulled = await many(pullback(cotangents));
        close([[dot(pulled, v)]], [[dot(slope, await many(cotangents))]], 1e-6, `vjp of the ${what}`);
      }
    },
  );

  it("differentiating a constant input of a rule is an error, not a wrong number", () => {
    for (const sample of samples[name]) {
      if (sample.wrt === undefined) continue;
      const inputs = sample.inputs().map(upload);
      const f: TensorFunction = (x) => applySample(op, [x, ...inputs.slice(1)], sample.attrs);
      expect(() => jvp(f, [inputs[0]], [inputs[0]])).toThrow(/second derivative/);
      const { outputs, pullback } = vjp(f, [inputs[0]]);
      expect(() => pullback(outputs)).toThrow(GradmixError);
    }
  });
});

describe.each(backends)("on $name", ({ create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(async () => {
    await backend.dispose();
  });

  it.each(names)("%s", async (name) => {
    for (const sample of samples[name]) {
      setCurrentMemory(oracle);
      const want = await evaluate(ops[name], sample);
      setCurrentMemory(backend);
      const before = backend.liveBytes;
      const got = await evaluate(ops[name], sample);
      expect(Object.keys(got)).toEqual(Object.keys(want));
      for (const what of Object.keys(want)) close(got[what], want[what], 5e-5, what);
      expect(backend.liveBytes).toBe(before);
    }
  });
});
