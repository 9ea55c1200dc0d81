/** The optimizers against their formulas in plain doubles: with and without decay, clipping, loss scales, continuing from a saved state; and refusals. */
import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { add, GradmixError, mul, reshape, scope, sign, square, sub, sum, type Tensor, tensor } from "gradmix";
import {
  adam,
  type AdamOptions,
  adamw,
  type AdamWOptions,
  arenaLike,
  assign,
  createParameters,
  type Optimizer,
  type OptimizerStepOptions,
  type Parameters,
  type ParameterSpec,
  restoreOptimizer,
  type SavedOptimizer,
  saveOptimizer,
  sgd,
  type SGDOptions,
} from "gradmix/nn";
import { run } from "#dist/backends/backend.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { empty } from "#dist/tensor/tensor.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";
import { numbers } from "./models.ts";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const normal = { kind: "normal", deviation: 0.5 } as const;
const specs: ParameterSpec[] = [
  { name: "gain", shape: [5], init: { kind: "constant", value: 1 }, decay: false },
  { name: "a.weight", shape: [3, 7], init: normal, decay: true },
  { name: "a.bias", shape: [3], init: { kind: "constant", value: 0 }, decay: false },
  { name: "b.weight", shape: [70], init: normal, decay: true },
];

type Make = (parameters: Parameters) => Optimizer;
/** One step of one number, in doubles. */
type Formula = (p: Record<string, number>, g: number, t: number, lr: number, decay: number) => void;

/** Loshchilov & Hutter 2019, Algorithm 2: with decoupled decay (AdamW), and with L2 regularisation (Adam). */
const adamFormula =
  (o: { beta1: number; beta2: number; eps: number }, decoupled: boolean): Formula =>
  (p, gradient, t, lr, decay) => {
    const g = decoupled ? gradient : gradient + decay * p["value"];
    p["m"] = o.beta1 * p["m"] + (1 - o.beta1) * g;
    p["v"] = o.beta2 * p["v"] + (1 - o.beta2) * g * g;
    const update = p["m"] / (1 - o.beta1 ** t) / (Math.sqrt(p["v"] / (1 - o.beta2 ** t)) + o.eps);
    p["value"] -= lr * (update + (decoupled ? decay * p["value"] : 0));
  };

/** Sutskever et al. 2013 as PyTorch writes it: the rate outside of the velocity. */
const sgdFormula =
  (momentum: number, nesterov: boolean): Formula =>
  (p, gradient, _t, lr, decay) => {
    const g = gradient + decay * p["value"];
    const velocity = momentum * (p["momentum"] ?? 0) + g;
    if (momentum > 0) p["momentum"] = velocity;
    p["value"] -= lr * (nesterov ? g + momentum * velocity : velocity);
  };

interface Variant {
  readonly name: string;
  readonly make: Make;
  readonly formula: Formula;
  /** Scale of the gradients. */
  readonly scale: number;
  readonly clip: number;
  readonly decay: number;
}

const usual = { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
const odd = { beta1: 0, beta2: 0.5, eps: 1e-3 };
const adamwVariant = (
  name: string,
  options: AdamWOptions,
  scale: number,
  expected: { clip?: number; decay?: number; betas?: typeof usual } = {},
): Variant => {
  const { clip = 1, decay = 0.1, betas = usual } = expected;
  const formula = adamFormula(betas, true);
  return { name: `adamw, ${name}`, make: (p) => adamw(p, options), formula, scale, clip, decay };
};
const adamVariant = (name: string, options: AdamOptions, scale: number, decay: number): Variant => {
  const formula = adamFormula({ ...usual, beta2: 0.999 }, false);
  return { name: `adam, ${name}`, make: (p) => adam(p, options), formula, scale, clip: 1, decay };
};
const sgdVariant = (name: string, options: SGDOptions, scale: number, clip = 1, decay = 0): Variant => {
  const formula = sgdFormula(options.momentum ?? 0, options.nesterov ?? false);
  return { name: `sgd, ${name}`, make: (p) => sgd(p, options), formula, scale, clip, decay };
};

const variants: readonly Variant[] = [
  adamwVariant("defaults, clipped", {}, 3),
  adamwVariant("defaults, a small gradient", {}, 1e-3),
  adamwVariant("never clipped", { clip: 0, weightDecay: 0.3 }, 100, { clip: 0, decay: 0.3 }),
  adamwVariant("other constants", { ...odd, weightDecay: 0, clip: 0.1 }, 1, {
    clip: 0.1,
    decay: 0,
    betas: odd,
  }),
  adamVariant("defaults, clipped", {}, 3, 0),
  adamVariant("decay in the gradient", { weightDecay: 0.3 }, 1e-3, 0.3),
  sgdVariant("defaults, clipped", {}, 3),
  sgdVariant("decay, never clipped", { weightDecay: 0.3, clip: 0 }, 2, 0, 0.3),
  sgdVariant("momentum, decay", { momentum: 0.9, weightDecay: 0.3 }, 3, 1, 0.3),
  sgdVariant(
    "Nesterov, decay, never clipped",
    { momentum: 0.9, nesterov: true, weightDecay: 0.1, clip: 0 },
    1,
    0,
    0.1,
  ),
];

/** One of each kind. */
const kinds: readonly { name: string; make: (parameters: Parameters, clip?: number) => Optimizer }[] = [
  { name: "adamw", make: (p, clip = 1) => adamw(p, { clip }) },
  { name: "adam", make: (p, clip = 1) => adam(p, { clip, weightDecay: 0.1 }) },
  { name: "sgd", make: (p, clip = 1) => sgd(p, { clip, weightDecay: 0.1 }) },
  { name: "sgd with momentum", make: (p, clip = 1) => sgd(p, { clip, momentum: 0.9, nesterov: true }) },
];

describe.each(backends)("on $name", ({ create }) => {
  it.each(variants)(
    "five steps follow the formulas: $name",
    async ({ make, formula, scale, clip, decay }) => {
      const backend = await create();
      setCurrentMemory(backend);
      const parameters = createParameters(specs, 4);
      const gradient = arenaLike(parameters);
      const optimizer = make(parameters);
      const states = Object.keys(optimizer.state);
      const start = await numbers(parameters.value);
      const want = parameters.list.map((p) =>
        Array.from({ length: p.size }, (_, i): Record<string, number> => ({
          value: start[p.offset + i],
          ...Object.fromEntries(states.map((name) => [name, 0])),
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
        const factor = clip > 0 ? Math.min(1, clip / Math.sqrt(squared)) : 1;
        want.forEach((ps, n) =>
          ps.forEach((p, i) => formula(p, g[n][i] * factor, t, lr, specs[n].decay ? decay : 0)),
        );
        // The gradient is only read.
        expect(await numbers(gradient.of(parameters.list[1]))).toEqual(g[1]);
      }
      for (const [n, p] of parameters.list.entries()) {
        const rows = new Map([["value", await numbers(p)]]);
        for (const name of states) rows.set(name, await numbers(optimizer.state[name].of(p)));
        want[n].forEach((numbers, i) => {
          expect(Object.keys(numbers)).toEqual([...rows.keys()]);
          for (const [name, wanted] of Object.entries(numbers))
            expect(Math.abs(rows.get(name)![i] - wanted), `${p.name}: ${name} ${i}`).toBeLessThan(
              3e-6 * Math.max(0.05, Math.abs(wanted)),
            );
        });
      }
      expect(optimizer.steps).toBe(5);
      await backend.dispose();
    },
  );

  it.each(
    kinds.flatMap(({ name, make }) =>
      [
        { clip: 1, scale: 3 },
        { clip: 1, scale: 1e-3 },
        { clip: 0, scale: 3 },
      ].map((one) => ({ name, make, ...one })),
    ),
  )(
    "$name undoes a loss scale to the bit (clip $clip, gradients up to $scale)",
    async ({ make, clip, scale }) => {
      const backend = await create();
      setCurrentMemory(backend);
      const live = backend.liveBytes;
      const ends = [];
      // A norm that the caller has already, or none.
      for (const [lossScale, given] of [[1], [2 ** 16], [2 ** 16, true], [2 ** -7]] as const) {
        const parameters = createParameters(specs, 4);
        const gradient = arenaLike(parameters);
        const squaredNorm = given === true ? empty([1]) : null;
        const optimizer = make(parameters, clip);
        const norms = [];
        for (let t = 1; t <= 3; t++) {
          gradient.arena.write(values(gradient.arena.size, t, -scale, scale).map((g) => g * lossScale));
          if (squaredNorm !== null) run("sumSquares", {}, { x: gradient.arena }, { out: squaredNorm });
          const options = { lossScale, ...(squaredNorm === null ? {} : { squaredNorm }) };
          const sumsq = optimizer.step(gradient.arena, 0.02, options);
          norms.push((await sumsq.item()) / lossScale ** 2);
          expect(sumsq).not.toBe(squaredNorm);
          sumsq.dispose();
        }
        const states = Object.values(optimizer.state).map(({ arena }) => numbers(arena));
        ends.push([norms, await numbers(parameters.value), await Promise.all(states)]);
        squaredNorm?.dispose();
        for (const held of [optimizer, gradient, parameters]) held.dispose();
      }
      for (const end of ends) expect(end).toEqual(ends[0]);
      expect(backend.liveBytes).toBe(live);
      await backend.dispose();
    },
  );

  it.each(
    kinds.flatMap(({ name, make }) =>
      [1, 0].flatMap((clip) => [1, 4].map((lossScale) => ({ name, make, clip, lossScale }))),
    ),
  )(
    "$name changes nothing if the norm is not finite (clip $clip, loss scale $lossScale)",
    async ({ make, clip, lossScale }) => {
      const backend = await create();
      setCurrentMemory(backend);
      const parameters = createParameters(specs, 4);
      const gradient = arenaLike(parameters);
      const optimizer = make(parameters, clip);
      const { size } = gradient.arena;
      // The state after a step is not 0.
      gradient.arena.write(values(size, 1));
      optimizer.step(gradient.arena, 0.02, { lossScale }).dispose();
      const now = async (): Promise<number[][]> =>
        Promise.all(
          [parameters.value, ...Object.values(optimizer.state).map(({ arena }) => arena)].map(numbers),
        );
      const before = await now();
      // Squares overflow at 1e20, and 0·∞ would be NaN.
      for (const [count, wrong] of [1e20, Infinity, -Infinity, NaN].entries()) {
        gradient.arena.write(values(size, 2).map((g, i) => (i % 50 === 7 ? wrong : g)));
        const sumsq = optimizer.step(gradient.arena, 0.02, { lossScale });
        expect(await sumsq.item()).toBe(Number.isNaN(wrong) ? NaN : Infinity);
        sumsq.dispose();
        expect(await now()).toEqual(before);
        expect(optimizer.steps).toBe(count + 2);
      }
      gradient.arena.write(values(size, 3));
      optimizer.step(gradient.arena, 0.02, { lossScale }).dispose();
      for (const [i, part] of (await now()).entries()) {
        expect(part).not.toEqual(before[i]);
        expect(part.every(Number.isFinite)).toBe(true);
      }
      await backend.dispose();
    },
  );

  it.each(kinds)("$name continues from a saved state to the same bits", async ({ make }) => {
    const backend = await create();
    setCurrentMemory(backend);
    const train = async (optimizer: Optimizer, from: number, to: number): Promise<void> => {
      for (let t = from; t < to; t++) {
        gradient.arena.write(values(gradient.arena.size, t));
        optimizer.step(gradient.arena, 0.01).dispose();
      }
    };
    const parameters = createParameters(specs, 1);
    const gradient = arenaLike(parameters);
    const start = await parameters.value.data();
    const whole = make(parameters);
    await train(whole, 0, 6);
    const want = await numbers(parameters.value);

    parameters.value.write(start);
    const first = make(parameters);
    await train(first, 0, 3);
    const saved = await saveOptimizer(first);
    // A copy: steps that follow do not change it.
    await train(first, 3, 4);
    expect(saved.json).toEqual({ name: first.name, steps: 3 });
    parameters.value.write(start);
    await train(make(parameters), 0, 3);
    const second = make(parameters);
    restoreOptimizer(second, structuredClone(saved));
    await train(second, 3, 6);
    expect(await numbers(parameters.value)).toEqual(want);
    expect(await saveOptimizer(second)).toEqual(await saveOptimizer(whole));
    await backend.dispose();
  });
});

/** Signs of a moving average (Bernstein et al. 2018, "Signum"), out of public functions alone. */
function signum(parameters: Parameters): Optimizer {
  const average = arenaLike(parameters);
  const optimizer: Optimizer = {
    name: "signum",
    state: { average },
    steps: 0,
    step: (gradient, lr) =>
      scope(() => {
        const next = add(mul(average.arena, 0.9), mul(gradient, 0.1));
        assign(average.arena, next);
        assign(parameters.value, sub(parameters.value, mul(sign(next), lr)));
        optimizer.steps++;
        return reshape(sum(square(gradient), [0]), [1]);
      }),
    dispose: average.dispose,
  };
  return optimizer;
}

it.each(backends)("an optimizer can be built from ops: on $name", async ({ create }) => {
  const backend = await create();
  setCurrentMemory(backend);
  const parameters = createParameters(specs, 4);
  const gradient = arenaLike(parameters);
  const optimizer = signum(parameters);
  const start = await numbers(parameters.value);
  const want = start.map((value) => ({ value, average: 0 }));
  const live = backend.liveBytes;
  for (let t = 1; t <= 3; t++) {
    const g = values(start.length, t);
    gradient.arena.write(g);
    const squared = optimizer.step(gradient.arena, 0.25);
    expectNear(await squared.item(), g.reduce((s, x) => s + x * x, 0), 1e-5); // prettier-ignore
    squared.dispose();
    want.forEach((p, i) => {
      p.average = 0.9 * p.average + 0.1 * g[i];
      p.value -= 0.25 * Math.sign(p.average);
    });
  }
  expect(backend.liveBytes).toBe(live);
  expectNear(await numbers(parameters.value), want.map(({ value }) => value), 1e-6); // prettier-ignore
  const saved = await saveOptimizer(optimizer);
  expectNear(saved.arrays["average"], want.map(({ average }) => average), 1e-6); // prettier-ignore
  const other = signum(parameters);
  restoreOptimizer(other, saved);
  expect(await saveOptimizer(other)).toEqual(saved);
  await backend.dispose();
});

it("assign refuses other shapes, other types, and overlapping memory", async () => {
  setCurrentMemory(createReferenceBackend());
  const target = tensor([1, -0, 3, 4], [4]);
  assign(target.view([2], 1), tensor([-0, 7], [2]));
  expect(await numbers(target)).toEqual([1, -0, 7, 4]);
  expect(codeOf(() => assign(target, tensor([1, 2, 3, 4], [2, 2])))).toBe(
    "shape: assign: f32 [2, 2] does not fit into f32 [4]",
  );
  expect(codeOf(() => assign(target, tensor([1, 2, 3, 4], [4], "i32")))).toBe(
    "shape: assign: i32 [4] does not fit into f32 [4]",
  );
  for (const own of [target, target.view([4], 0)])
    expect(codeOf(() => assign(target, own))).toMatch(/^autograd: assign: the values are in/);
  expect(codeOf(() => assign(target.view([2], 0), target.view([2], 1)))).toMatch(/^autograd: assign/);
  expect(codeOf(() => assign(target.view([2], 1), target.view([2], 0)))).toMatch(/^autograd: assign/);
  assign(target.view([2], 0), target.view([2], 2));
  expect(await numbers(target)).toEqual([7, 4, 7, 4]);
});

it("a clipped step does not depend on the scale of the gradient, and is at most lr without decay", async () => {
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

describe("a saved state that does not fit is refused, and changes nothing", () => {
  const make = (): { parameters: Parameters; optimizer: Optimizer } => {
    setCurrentMemory(createReferenceBackend());
    const parameters = createParameters(specs, 1);
    const optimizer = adamw(parameters);
    const gradient = arenaLike(parameters);
    gradient.arena.write(values(gradient.arena.size, 1));
    optimizer.step(gradient.arena, 0.1).dispose();
    return { parameters, optimizer };
  };
  const size = make().parameters.value.size;
  const arrays = { m: new Float32Array(size), v: new Float32Array(size) };
  const json = { name: "adamw", steps: 4 };

  it.each<[unknown, string]>([
    [null, "is null, not an object"],
    [{ json }, "arrays is missing; it must be an object"],
    [{ json: { ...json, name: "sgd" }, arrays }, 'the state is of the optimizer "sgd", not of "adamw"'],
    [{ json: { steps: 1 }, arrays }, "name is missing; it must be a string"],
    [{ json: { ...json, steps: -1 }, arrays }, "steps is -1, not a whole number of at least 0"],
    [{ json: { ...json, steps: 0.5 }, arrays }, "steps is 0.5, not a whole number of at least 0"],
    [{ json, arrays: { m: arrays.m } }, `it has no v, which takes ${size} values`],
    [{ json, arrays: { ...arrays, momentum: arrays.m } }, 'adamw has no "momentum" in its state'],
    [{ json, arrays: { ...arrays, v: new Float64Array(size) } }, "v is Float64Array, not a Float32Array"],
    [
      { json, arrays: { ...arrays, v: arrays.v.slice(1) } },
      `v has ${size - 1} values, the model has ${size}`,
    ],
    [{ json, arrays: { ...arrays, v: arrays.v.with(5, NaN) } }, "v has NaN at 5"],
    [{ json, arrays: { ...arrays, v: arrays.v.with(5, -Infinity) } }, "v has -Infinity at 5"],
  ])("case %#", async (saved, message) => {
    const { optimizer } = make();
    const before = await saveOptimizer(optimizer);
    expect(codeOf(() => restoreOptimizer(optimizer, saved as SavedOptimizer))).toBe(
      `checkpoint: checkpoint: ${message}`,
    );
    expect(await saveOptimizer(optimizer)).toEqual(before);
  });

  it("of an optimizer whose steps cannot be set, or whose arenas were disposed", async () => {
    const fixed = (name: string, change: (optimizer: Optimizer) => object): void => {
      const { optimizer } = make();
      const before = Object.values(optimizer.state).map(({ arena }) => arena.toString());
      const own = Object.defineProperties({ ...optimizer }, change(optimizer) as PropertyDescriptorMap);
      expect(
        codeOf(() => restoreOptimizer(own, { json, arrays })),
        name,
      ).toBe(
        'config: restoreOptimizer: the steps of the optimizer "adamw" cannot be set to 4; give it a property steps that can be written',
      );
      expect(own.steps).toBe(1);
      expect(Object.values(optimizer.state).map(({ arena }) => arena.toString())).toEqual(before);
    };
    fixed("only a getter", () => ({ steps: { get: () => 1 } }));
    fixed("a setter that ignores it", () => ({ steps: { get: () => 1, set: () => {} } }));
    fixed("read-only", () => ({ steps: { value: 1, writable: false } }));
    const { optimizer } = make();
    optimizer.state["v"].dispose();
    const first = optimizer.state["m"].arena.toString();
    expect(codeOf(() => restoreOptimizer(optimizer, { json, arrays }))).toMatch(/^disposed: /);
    expect([optimizer.steps, optimizer.state["m"].arena.toString()]).toEqual([1, first]);
  });

  it("a state that could not be restored is not saved", async () => {
    const { optimizer } = make();
    optimizer.state["v"].arena.write(arrays.v.with(0, Infinity));
    await expect(saveOptimizer(optimizer)).rejects.toThrow(
      new GradmixError(
        "numeric",
        'saveOptimizer: "v" of adamw is not finite after step 1; lower the learning rate',
      ),
    );
  });
});

it("the preconditioner is v, 1 − β₂ᵗ and ε, from the first step on", () => {
  setCurrentMemory(createReferenceBackend());
  const parameters = createParameters(specs, 0);
  const gradient = arenaLike(parameters);
  for (const [optimizer, beta2] of [
    [adamw(parameters, { beta2: 0.8, eps: 1e-3 }), 0.8],
    [adam(parameters, { eps: 1e-3 }), 0.999],
  ] as const) {
    expect(optimizer.preconditioner()).toBeNull();
    optimizer.step(gradient.arena, 0).dispose();
    optimizer.step(gradient.arena, 0).dispose();
    const { v, bias, eps } = optimizer.preconditioner()!;
    expect([v, eps]).toEqual([optimizer.state.v, 1e-3]);
    expectNear(bias, 1 - beta2 ** 2, 1e-15);
  }
  expect(sgd(parameters, { momentum: 0.5 }).preconditioner).toBeUndefined();
});

it.each(kinds)(
  "$name refuses an invalid rate, gradient or option before it changes anything",
  async ({ make }) => {
    const backend = createReferenceBackend();
    setCurrentMemory(backend);
    const parameters = createParameters(specs, 0);
    const gradient = arenaLike(parameters).arena;
    const optimizer = make(parameters);
    const before = await numbers(parameters.value);
    const live = backend.liveBytes;
    const { name } = optimizer;
    const refused = (g: Tensor, lr: number, options?: OptimizerStepOptions): string =>
      codeOf(() => optimizer.step(g, lr, options));
    for (const lr of [-1, NaN, Infinity, 1e39])
      expect(refused(gradient, lr)).toBe(
        `config: ${name}.step: lr: ${lr} does not fit; it must be at least 0 and at most 3.4028234663852886e+38`,
      );
    expect(refused(gradient, 1, { lossScale: 0 })).toContain(
      `config: ${name}.step: lossScale: 0 does not fit`,
    );
    expect(refused(gradient.view([3]), 1)).toContain(
      `shape: ${name}.step: a gradient of 3 f32 for parameters`,
    );
    // The step would read numbers that it has already changed.
    for (const { arena } of [{ arena: parameters.value }, ...Object.values(optimizer.state)])
      for (const own of [arena, arena.view(arena.shape)])
        expect(refused(own, 1)).toContain(
          `autograd: ${name}.step: the gradient is in the memory that the step changes`,
        );
    expect([optimizer.steps, await numbers(parameters.value)]).toEqual([0, before]);
    expect(backend.liveBytes).toBe(live);
    optimizer.dispose();
  },
);

it.each(kinds)("$name uses the backend of its parameters, whichever is the current one", async ({ make }) => {
  const [home, other] = [createReferenceBackend(), createReferenceBackend()];
  setCurrentMemory(home);
  const parameters = createParameters(specs, 1);
  const gradient = arenaLike(parameters).arena;
  gradient.write(values(gradient.size, 1));
  setCurrentMemory(other);
  const optimizer = make(parameters);
  for (const options of [{}, { lossScale: 4 }]) {
    const norm = optimizer.step(gradient, 0.1, options);
    expect(norm.memory).toBe(home);
    norm.dispose();
  }
  expect(other.peakBytes).toBe(0);
  for (const it of [optimizer, gradient, parameters]) it.dispose();
}); // prettier-ignore

it("an optimizer takes one arena per state, none without momentum, and frees them if memory runs out", () => {
  const probe = createReferenceBackend();
  setCurrentMemory(probe);
  const parameters = createParameters(specs, 0);
  const bytes = parameters.value.size * 4;
  const made = (optimizer: Optimizer): number => {
    const held = probe.liveBytes;
    optimizer.dispose();
    return (held - probe.liveBytes) / bytes;
  };
  expect(made(sgd(parameters))).toBe(0);
  expect(made(sgd(parameters, { momentum: 0.5 }))).toBe(1);
  expect(made(adam(parameters))).toBe(2);
});

it.each([
  [{ beta1: 1 }, "adamw: beta1: 1 does not fit; it must be at least 0 and less than 1"],
  [{ beta2: -0.1 }, "adamw: beta2: -0.1 does not fit; it must be at least 0 and less than 1"],
  [
    { eps: 0 },
    "adamw: eps: 0 does not fit; it must be at least 1.1754943508222875e-38 and at most 3.4028234663852886e+38",
  ],
  [
    { weightDecay: NaN },
    "adamw: weightDecay: NaN does not fit; it must be at least 0 and at most 3.4028234663852886e+38",
  ],
  [{ clip: Infinity }, "adamw: clip: Infinity does not fit; it must be at least 0 and finite"],
] as const)("adamw: %o is refused", (options, message) => {
  const backend = createReferenceBackend();
  setCurrentMemory(backend);
  const parameters = createParameters(specs, 0);
  const live = backend.liveBytes;
  expect(() => adamw(parameters, options)).toThrow(new GradmixError("config", message));
  expect(backend.liveBytes).toBe(live);
});

it.each<[SGDOptions, string]>([
  [{ nesterov: true }, "sgd: nesterov: needs a momentum above 0; none is given"],
  [{ momentum: 1 }, "sgd: momentum: 1 does not fit; it must be at least 0 and less than 1"],
  [{ momentum: -0.5 }, "sgd: momentum: -0.5 does not fit; it must be at least 0 and less than 1"],
])("sgd: %o is refused", (options, message) => {
  setCurrentMemory(createReferenceBackend());
  expect(() => sgd(createParameters(specs, 0), options)).toThrow(new GradmixError("config", message));
});
