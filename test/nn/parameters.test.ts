/** The parameter arena: layout, initial values, what a failed creation leaves behind; and invalid configurations. */
import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { foldIn, GradmixError, key, randomNormal } from "gradmix";
import {
  adamw,
  arenaLike,
  createGPT,
  createParameters,
  type GPTConfig,
  parameterCount,
  type ParameterSpec,
  resolveGPTConfig,
} from "gradmix/nn";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { codeOf } from "../errors.ts";
import { configs, numbers } from "./models.ts";

const arbitrarySpecs = fc.uniqueArray(
  fc.record({
    name: fc.string({ minLength: 1, maxLength: 6 }),
    shape: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 2 }),
    init: fc.oneof(
      fc.record({ kind: fc.constant("normal" as const), deviation: fc.constantFrom(0.5, 2) }),
      fc.record({ kind: fc.constant("constant" as const), value: fc.constantFrom(0, 1) }),
    ),
    decay: fc.boolean(),
  }),
  { selector: ({ name }) => name, minLength: 1, maxLength: 6 },
);

describe("the arena", () => {
  it("decayed parameters come first, aligned and without overlap; values depend on name and seed, not on the order", async () => {
    setCurrentMemory(createReferenceBackend());
    await fc.assert(
      fc.asyncProperty(arbitrarySpecs, fc.integer({ min: 0, max: 2 ** 53 - 1 }), async (specs, seed) => {
        const parameters = createParameters(specs, seed);
        const reversed = createParameters(specs.toReversed(), seed);
        const taken = new Set<number>();
        for (const [n, spec] of specs.entries()) {
          const p = parameters.list[n];
          expect([p.name, p.shape]).toEqual([spec.name, spec.shape]);
          expect(parameters.byName.get(spec.name)).toBe(p);
          expect(p.offset % 4).toBe(0);
          expect(p.offset < parameters.decayed).toBe(spec.decay);
          expect(p.offset + p.size <= parameters.decayed).toBe(spec.decay);
          for (let i = p.offset; i < p.offset + p.size; i++) {
            expect(taken.has(i)).toBe(false);
            taken.add(i);
          }
          expect(await numbers(reversed.byName.get(spec.name)!)).toEqual(await numbers(p));
        }
        expect(parameters.count).toBe(taken.size);
        // Padding is zero: it takes part in the optimizer's steps.
        (await numbers(parameters.value)).forEach((x, i) => {
          if (!taken.has(i)) expect(x).toBe(0);
        });
        parameters.dispose();
        reversed.dispose();
      }),
      { numRuns: 30 },
    );
  });

  it("an arena of gradients has the same layout, and accepts only its own parameters", async () => {
    setCurrentMemory(createReferenceBackend());
    const [a, b] = [1, 2].map((seed) => createGPT(configs[0], { seed }).parameters);
    const arena = arenaLike(a);
    for (const p of a.list) expect([arena.of(p).offset, arena.of(p).shape]).toEqual([p.offset, p.shape]);
    expect(new Set(await numbers(arena.arena))).toEqual(new Set([0]));
    expect(() => arena.of(b.list[0])).toThrow(
      new GradmixError("autograd", "embedding.weight is not a parameter of this arena"),
    );
  });

  it("normal values use the seed's key, with the FNV-1a hash of the name folded in", async () => {
    setCurrentMemory(createReferenceBackend());
    // From the test suite of the hash's authors.
    const hashes = { a: 0xe40c292c, foobar: 0xbf9cf968 };
    const init = { kind: "normal", deviation: 0.5 } as const;
    const specs = Object.keys(hashes).map((name) => ({ name, shape: [3, 5], init, decay: true }));
    const given = specs.map((spec) => ({ ...spec, shape: [...spec.shape] }));
    const parameters = createParameters(given, 7);
    // Later changes of the caller's objects do not change the parameters' specs.
    for (const spec of given) Object.assign(spec, { name: "other", block: 9 }, spec.shape.fill(1));
    expect(parameters.specs).toEqual(specs);
    const { byName } = parameters;
    for (const [name, hash] of Object.entries(hashes)) {
      const noise = await numbers(randomNormal(foldIn(key(7), hash), [3, 5]));
      expect(await numbers(byName.get(name)!)).toEqual(noise.map((x) => 0.5 * x));
    }
  });

  it.each<[object, RegExp]>([
    [{ name: 3 }, /^config: createParameters: name: 3 does not fit/],
    [{ name: undefined }, /^config: createParameters: name is missing/],
    [{ decay: undefined }, /^config: createParameters: decay is missing/],
    [{ decay: 1 }, /^config: createParameters: decay: 1 does not fit/],
    [{ init: undefined }, /^config: createParameters: init is missing/],
    [{ shape: undefined }, /^config: createParameters: shape is missing/],
    [{ shape: 3 }, /^config: createParameters: shape: 3 does not fit/],
    [{ shape: [-1] }, /^shape: parameter "w": \[-1\] is not a shape/],
    [{ shape: [0.5, 2] }, /^shape: parameter "w"/],
    [{ decays: true }, /^config: createParameters: there is no option "decays"; did you mean "decay"/],
    [{ block: -1 }, /^config: createParameters: block: -1 does not fit/],
    [{ block: 0.5 }, /^config: createParameters: block: 0.5 does not fit/],
    [{ block: "before" }, /^config: createParameters: block: "before" does not fit/],
    [{ block: "after" }, /^no error/],
    [{ block: 0 }, /^no error/],
    [{ init: { kind: "uniform" } }, /^config: createParameters: init of "w": kind: "uniform" is not known/],
    [{ init: { kind: "normal" } }, /^config: createParameters: init of "w": deviation is missing/],
    [{ init: { kind: "normal", deviation: -1 } }, /^config: createParameters: init of "w": deviation: -1/],
    [{ init: { kind: "normal", deviation: 1, value: 1 } }, /^config: createParameters: init of "w": there is no/],
    [{ init: { kind: "normal", deviation: 0 } }, /^no error/],
    [{ init: { kind: "constant" } }, /^config: createParameters: init of "w": value is missing/],
    [{ init: { kind: "constant", value: NaN } }, /^config: createParameters: init of "w": value: NaN/],
    [{ init: { kind: "constant", value: 1, deviation: 1 } }, /^config: createParameters: init of "w": there is no/],
    [{ init: { kind: "constant", value: -1 } }, /^no error/],
    [{ init: { kind: "constant", value: -1e39 } }, /^config: createParameters: init of "w": value: -1e\+39/],
    [{ init: { kind: "normal", deviation: 1e39 } }, /^config: createParameters: init of "w": deviation: 1e\+39/],
  ])("a spec with %j", (change, message) => {
    const backend = createReferenceBackend();
    setCurrentMemory(backend);
    const spec: ParameterSpec = {
      name: "w",
      shape: [2],
      init: { kind: "constant", value: 0 },
      decay: true,
    };
    expect(codeOf(() => createParameters([{ ...spec, ...change }], 0).dispose())).toMatch(message);
    expect(backend.liveBytes).toBe(0);
  }); // prettier-ignore

  it("two parameters with one name, and invalid seeds, are refused", () => {
    const backend = createReferenceBackend();
    setCurrentMemory(backend);
    const spec: ParameterSpec = {
      name: "w",
      shape: [2],
      init: { kind: "constant", value: 0 },
      decay: true,
    };
    expect(() => createParameters([spec, spec], 0)).toThrow(
      new GradmixError("config", 'two parameters are called "w"'),
    );
    for (const [seed, range] of [
      [-1, " of at least 0"],
      [0.5, " of at least 0"],
      [NaN, " of at least 0"],
      [2 ** 53, `, at least 0 and at most ${Number.MAX_SAFE_INTEGER}`],
    ] as const)
      expect(() => createParameters([spec], seed)).toThrow(
        new GradmixError("config", `seed: ${seed} does not fit; it must be an integer${range}`),
      );
    expect(backend.liveBytes).toBe(0);
  });

  it("tensors are freed if memory runs out, and when the arena is disposed", () => {
    const probe = createReferenceBackend();
    setCurrentMemory(probe);
    const model = createGPT(configs[0]);
    const [live, peak] = [probe.liveBytes, probe.peakBytes];
    const optimizer = adamw(model.parameters);
    const withOptimizer = probe.liveBytes;
    optimizer.dispose();
    model.dispose();
    expect(probe.liveBytes).toBe(0);
    for (const memoryLimit of [100, live - 1, peak - 1]) {
      const backend = createReferenceBackend({ memoryLimit });
      setCurrentMemory(backend);
      expect(() => createGPT(configs[0])).toThrow(/\d+ bytes were requested .* the limit is \d+/);
      expect(backend.liveBytes).toBe(0);
    }
    const backend = createReferenceBackend({ memoryLimit: withOptimizer - 1 });
    setCurrentMemory(backend);
    const { parameters } = createGPT(configs[0]);
    expect(() => adamw(parameters)).toThrow(/bytes were requested/);
    expect(backend.liveBytes).toBe(live);
  });
});

describe("initial values", () => {
  const config: GPTConfig = { vocabSize: 100, dim: 64, layers: 8, heads: 4, context: 128 };
  it.each(["llama", "gpt2"] as const)(
    "%s: N(0, 0.02²), N(0, 0.02²/2L) into the residual stream; ones and zeros",
    async (preset) => {
      setCurrentMemory(createReferenceBackend());
      const { parameters } = createGPT({ ...config, preset }, { seed: 3 });
      const seen = new Map<string, string>();
      for (const p of parameters.list) {
        const data = await numbers(p);
        const name = p.name ?? "";
        if (p.rank === 1) expect(new Set(data), name).toEqual(new Set([name.endsWith("bias") ? 0 : 1]));
        else {
          const want = /out|down/.test(name) ? 0.02 / Math.sqrt(16) : 0.02;
          const mean = data.reduce((a, b) => a + b, 0) / data.length;
          const deviation = Math.sqrt(data.reduce((a, b) => a + (b - mean) ** 2, 0) / data.length);
          // Five standard errors.
          expect(Math.abs(mean) / want, name).toBeLessThan(5 / Math.sqrt(data.length));
          expect(Math.abs(deviation / want - 1), name).toBeLessThan(5 / Math.sqrt(2 * data.length));
          const start = data.slice(0, 4).join();
          expect(seen.get(start), name).toBeUndefined();
          seen.set(start, name);
        }
      }
      expect(parameters.count).toBe(parameterCount({ ...config, preset }));
    },
  );

  it.each(configs)(
    "$preset: the same on every backend up to f32 rounding, and different for other seeds",
    async (config) => {
      const all: number[][] = [];
      for (const { create } of backends) {
        const backend = await create();
        setCurrentMemory(backend);
        all.push(await numbers(createGPT(config, { seed: 5 }).parameters.value));
        await backend.dispose();
      }
      for (const other of all.slice(1))
        other.forEach((x, i) => expect(Math.abs(x - all[0][i])).toBeLessThan(1e-7));
      setCurrentMemory(createReferenceBackend());
      expect(await numbers(createGPT(config, { seed: 6 }).parameters.value)).not.toEqual(all[0]);
      expect(await numbers(createGPT(config).parameters.value)).toEqual(
        await numbers(createGPT(config, { seed: 0 }).parameters.value),
      );
    },
  );
});

it("the parameter counts of well-known models are right", () => {
  const gpt2: GPTConfig = {
    preset: "gpt2",
    vocabSize: 50257,
    dim: 768,
    layers: 12,
    heads: 12,
    context: 1024,
  };
  // 124,439,808 with a tied head.
  expect(parameterCount(gpt2)).toBe(124_439_808 + 50257 * 768);
  const llama2: GPTConfig = {
    vocabSize: 32000,
    dim: 4096,
    layers: 32,
    heads: 32,
    hiddenDim: 11008,
    context: 4096,
  };
  expect(parameterCount(llama2)).toBe(6_738_415_616);
});

it("defaults", () => {
  expect(resolveGPTConfig({ vocabSize: 7, dim: 48, layers: 1, heads: 2, context: 9 })).toEqual({
    preset: "llama",
    vocabSize: 7,
    dim: 48,
    layers: 1,
    heads: 2,
    kvHeads: 2,
    hiddenDim: 128,
    context: 9,
    normEps: 1e-5,
    ropeTheta: 10_000,
  });
  expect(
    resolveGPTConfig({ preset: "gpt2", vocabSize: 7, dim: 48, layers: 1, heads: 2, context: 9 }).hiddenDim,
  ).toBe(192);
});

it.each<[Partial<Record<keyof GPTConfig, unknown>>, string]>([
  [{ preset: "bert" }, 'GPT: preset: "bert" is not known; it must be one of "llama", "gpt2"'],
  [{ vocabSize: undefined }, "GPT: vocabSize is missing"],
  [{ dim: 0 }, "GPT: dim: 0 does not fit; it must be an integer of at least 1"],
  [{ layers: 1.5 }, "GPT: layers: 1.5 does not fit; it must be an integer of at least 1"],
  [{ heads: NaN }, "GPT: heads: NaN does not fit; it must be an integer of at least 1"],
  [{ heads: 3 }, "heads: 3 does not divide dim 8"],
  [{ kvHeads: 3 }, "kvHeads: 3 does not divide heads 4"],
  [{ hiddenDim: -4 }, "GPT: hiddenDim: -4 does not fit; it must be an integer of at least 1"],
  [{ context: "8" }, 'GPT: context: "8" does not fit; it must be an integer of at least 1'],
  [{ normEps: 0 }, "GPT: normEps: 0 does not fit; it must be more than 0 and finite"],
  [{ ropeTheta: Infinity }, "GPT: ropeTheta: Infinity does not fit; it must be more than 0 and finite"],
  [{ heads: 8, kvHeads: 8 }, "heads: rotary positions need an even head width, not 1 (dim 8 / heads 8)"],
  [{ preset: "gpt2", kvHeads: 2 }, "kvHeads: gpt2 has no grouped heads; leave it out or use 4"],
])("%o is refused", (wrong, message) => {
  const config = { ...configs[0], ...wrong } as GPTConfig;
  expect(() => resolveGPTConfig(config)).toThrow(new GradmixError("config", message));
  expect(() => parameterCount(config)).toThrow(message);
});
