/** AdamW against its formulas in plain doubles: decay and no decay, clipping, going on from saved moments; options. */
import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { GradmixError } from "gradmix";
import { adamw, type AdamWOptions, arenaLike, createParameters, type ParameterSpec } from "gradmix/nn";
import { run } from "#dist/backends/backend.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { empty } from "#dist/tensor/tensor.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";
import { numbers } from "./models.ts";
import { expectNear } from "../near.ts";

const normal = { kind: "normal", deviation: 0.5 } as const;
const specs: ParameterSpec[] = [
  { name: "gain", shape: [5], init: { kind: "constant", value: 1 }, decay: false },
  { name: "a.weight", shape: [3, 7], init: normal, decay: true },
  { name: "a.bias", shape: [3], init: { kind: "constant", value: 0 }, decay: false },
  { name: "b.weight", shape: [70], init: normal, decay: true },
];

interface Scalar {
  value: number;
  m: number;
  v: number;
  decay: boolean;
}

/** Loshchilov & Hutter 2019, Algorithm 2, for one number. */
function step(p: Scalar, g: number, t: number, lr: number, o: Required<AdamWOptions>): void {
  p.m = o.beta1 * p.m + (1 - o.beta1) * g;
  p.v = o.beta2 * p.v + (1 - o.beta2) * g * g;
  const update = p.m / (1 - o.beta1 ** t) / (Math.sqrt(p.v / (1 - o.beta2 ** t)) + o.eps);
  p.value -= lr * (update + (p.decay ? o.weightDecay * p.value : 0));
}

const variants: { name: string; options: AdamWOptions; scale: number }[] = [
  { name: "defaults, clipped", options: {}, scale: 3 },
  { name: "defaults, a small gradient", options: {}, scale: 1e-3 },
  { name: "never clipped", options: { clip: 0, weightDecay: 0.3 }, scale: 100 },
  {
    name: "other constants",
    options: { beta1: 0, beta2: 0.5, eps: 1e-3, weightDecay: 0, clip: 0.1 },
    scale: 1,
  },
];

describe.each(backends)("on $name", ({ create }) => {
  it.each(variants)("AdamW: $name", async ({ options, scale }) => {
    const backend = await create();
    setCurrentMemory(backend);
    const parameters = createParameters(specs, 4);
    const gradient = arenaLike(parameters);
    const optimizer = adamw(parameters, options);
    const o = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, clip: 1, ...options };
    const start = await numbers(parameters.value);
    const want = parameters.list.map((p, n) =>
      Array.from({ length: p.size }, (_, i): Scalar => ({
        value: start[p.offset + i],
        m: 0,
        v: 0,
        decay: specs[n].decay,
      })),
    );
    for (let t = 1; t <= 5; t++) {
      const lr = 0.02 / t;
      const g = parameters.list.map((p, n) => values(p.size, 10 * t + n, -scale, scale));
      parameters.list.forEach((p, n) => gradient.of(p).write(g[n]));
      const sumsq = optimizer.step(gradient.arena, lr);
      const squared = g.flat().reduce((s, x) => s + x * x, 0);
      expectNear((await sumsq.item()) / squared, 1, 1e-6);
      sumsq.dispose();
      const factor = o.clip > 0 ? Math.min(1, o.clip / Math.sqrt(squared)) : 1;
      want.forEach((ps, n) => ps.forEach((p, i) => step(p, g[n][i] * factor, t, lr, o)));
      // The gradient is only read.
      expect(await numbers(gradient.of(parameters.list[1]))).toEqual(g[1]);
    }
    for (const [n, p] of parameters.list.entries()) {
      const rows = [await numbers(p), await numbers(optimizer.m.of(p)), await numbers(optimizer.v.of(p))];
      want[n].forEach(({ value, m, v }, i) => {
        for (const [got, wanted] of [
          [rows[0][i], value],
          [rows[1][i], m],
          [rows[2][i], v],
        ])
          expect(Math.abs(got - wanted), `${p.name} ${i}`).toBeLessThan(
            3e-6 * Math.max(0.05, Math.abs(wanted)),
          );
      });
    }
    expect(optimizer.steps).toBe(5);
    await backend.dispose();
  });

  it.each([
    { clip: 1, scale: 3 },
    { clip: 1, scale: 1e-3 },
    { clip: 0, scale: 3 },
  ])("undoes a loss scale to the bit (clip $clip, gradients up to $scale)", async ({ clip, scale }) => {
    const backend = await create();
    setCurrentMemory(backend);
    const live = backend.liveBytes;
    const ends = [];
    // A norm that the caller has already, or none.
    for (const [lossScale, given] of [[1], [2 ** 16], [2 ** 16, true], [2 ** -7]] as const) {
      const parameters = createParameters(specs, 4);
      const gradient = arenaLike(parameters);
      const squaredNorm = given === true ? empty([1]) : null;
      const optimizer = adamw(parameters, { clip });
      const norms = [];
      for (let t = 1; t <= 3; t++) {
        gradient.arena.write(values(gradient.arena.size, t, -scale, scale).map((g) => g * lossScale));
        if (squaredNorm !== null) run("sumSquares", {}, [gradient.arena], [squaredNorm]);
        const options = { lossScale, ...(squaredNorm === null ? {} : { squaredNorm }) };
        const sumsq = optimizer.step(gradient.arena, 0.02, options);
        norms.push((await sumsq.item()) / lossScale ** 2);
        expect(sumsq).not.toBe(squaredNorm);
        sumsq.dispose();
      }
      ends.push([norms, await numbers(parameters.value), await numbers(optimizer.v.arena)]);
      squaredNorm?.dispose();
      for (const held of [optimizer, gradient, parameters]) held.dispose();
    }
    for (const end of ends) expect(end).toEqual(ends[0]);
    expect(backend.liveBytes).toBe(live);
    await backend.dispose();
  });

  it("goes on from saved moments to the same bits", async () => {
    const backend = await create();
    setCurrentMemory(backend);
    const train = async (optimizer: ReturnType<typeof adamw>, from: number, to: number): Promise<void> => {
      for (let t = from; t < to; t++) {
        gradient.arena.write(values(gradient.arena.size, t));
        optimizer.step(gradient.arena, 0.01).dispose();
      }
    };
    const parameters = createParameters(specs, 1);
    const gradient = arenaLike(parameters);
    const start = await parameters.value.data();
    const whole = adamw(parameters);
    await train(whole, 0, 6);
    const want = await numbers(parameters.value);

    parameters.value.write(start);
    const first = adamw(parameters);
    await train(first, 0, 3);
    const second = adamw(parameters);
    second.m.arena.write(await first.m.arena.data());
    second.v.arena.write(await first.v.arena.data());
    second.steps = first.steps;
    await train(second, 3, 6);
    expect(await numbers(parameters.value)).toEqual(want);
    await backend.dispose();
  });
});

it("a step is free of scale when it is clipped, and moves no further than lr without decay", async () => {
  setCurrentMemory(createReferenceBackend({ precision: "f64" }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.double({ min: -1e3, max: 1e3, noNaN: true }), { minLength: 5, maxLength: 5 }),
      fc.double({ min: 2, max: 1e6, noNaN: true }),
      async (g, factor) => {
        fc.pre(g.some((x) => Math.abs(x) > 1));
        const moved = [];
        for (const scale of [1, factor]) {
          const parameters = createParameters([specs[0]], 0);
          const gradient = arenaLike(parameters);
          gradient.of(parameters.list[0]).write(g.map((x) => x * scale));
          adamw(parameters).step(gradient.arena, 0.1);
          moved.push(await numbers(parameters.list[0]));
        }
        for (const [i, x] of moved[0].entries()) {
          expectNear(x, moved[1][i], 1e-9);
          expect(Math.abs(x - 1)).toBeLessThanOrEqual(0.1 + 1e-12);
          // Against the gradient.
          if (Math.abs(g[i]) > 1e-3) expect(Math.sign(1 - x)).toBe(Math.sign(g[i]));
        }
      },
    ),
    { numRuns: 50 },
  );
});

it.each([
  [{ beta1: 1 }, "adamw: beta1: 1 does not fit; it must be at least 0 and less than 1"],
  [{ beta2: -0.1 }, "adamw: beta2: -0.1 does not fit; it must be at least 0 and less than 1"],
  [{ eps: 0 }, "adamw: eps: 0 does not fit; it must be more than 0 and finite"],
  [{ weightDecay: NaN }, "adamw: weightDecay: NaN does not fit; it must be at least 0 and finite"],
  [{ clip: Infinity }, "adamw: clip: Infinity does not fit; it must be at least 0 and finite"],
] as const)("%o is refused", (options, message) => {
  const backend = createReferenceBackend();
  setCurrentMemory(backend);
  const parameters = createParameters(specs, 0);
  const live = backend.liveBytes;
  expect(() => adamw(parameters, options)).toThrow(new GradmixError("config", message));
  expect(backend.liveBytes).toBe(live);
});
