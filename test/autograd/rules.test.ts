/**
 * Every registered op × {forward, vjp, jvp, derivatives of derivatives}, by `checkGradients` in double precision, and on
 * every backend against the double-precision reference.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkGradients } from "gradmix/testing";
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

/** One sample on the current backend: the function of the differentiated inputs, and those inputs. */
interface Problem {
  readonly f: TensorFunction;
  readonly all: Tensor[];
  readonly wrt: readonly number[];
  readonly primals: Tensor[];
}

function problem(op: Op<never>, sample: Sample): Problem {
  const all = sample.inputs().map(upload);
  const wrt =
    sample.wrt?.map((slot) => (slot < 0 ? slot + all.length : slot)) ??
    all.flatMap((t, slot) => (t.dtype === "f32" ? [slot] : []));
  return {
    all,
    wrt,
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
const known = new Map<Sample, Awaited<ReturnType<typeof evaluate>>>();
/** Results of the oracle for a sample, computed once for all backends. */
async function oracleOf(op: Op<never>, sample: Sample): ReturnType<typeof evaluate> {
  setCurrentMemory(oracle);
  const found = known.get(sample) ?? (await evaluate(op, sample));
  known.set(sample, found);
  return found;
}
const names = Object.keys(ops);

it("every op has samples, and every sample belongs to an op", () => {
  expect(Object.keys(samples).sort()).toEqual([...names].sort());
  expect(names.filter((name) => samples[name].length === 0)).toEqual([]);
});

it("every op has derivative rules, or is built from other ops, or is declared constant", () => {
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

  it.each(samples[name].map((sample, n) => [n, sample] as const))(
    "first and second derivatives %d",
    async (_, sample) => {
      const { f, all, wrt, primals } = problem(op, sample);
      if (primals.length === 0) {
        // Only ops of integers reach this; an op with a gradient has a sample that shows it.
        const shown = samples[name].some(({ inputs }) => inputs().some(({ dtype }) => dtype === "f32"));
        expect(op.constant === true || shown).toBe(true);
        return;
      }
      if (op.constant !== true)
        await checkGradients((...x) => applySample(op, x, sample.attrs), all, { wrt, order: 2 });
      const { outputs, pullback } = vjp(f, primals);
      const pulled = await many(pullback(outputs.map((t, n) => random(t, 200 + n))));
      const tangents = primals.map((t, n) => random(t, 100 + n));
      const pushed = await many(jvp(f, primals, tangents).tangents);
      for (const numbers of [pulled, pushed])
        expect(numbers.flat().some((x) => x !== 0)).toBe(op.constant !== true);
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
      const want = await oracleOf(ops[name], sample);
      setCurrentMemory(backend);
      const before = backend.liveBytes;
      const got = await evaluate(ops[name], sample);
      expect(Object.keys(got)).toEqual(Object.keys(want));
      for (const what of Object.keys(want)) close(got[what], want[what], 5e-5, what);
      expect(backend.liveBytes).toBe(before);
    }
  });
});
