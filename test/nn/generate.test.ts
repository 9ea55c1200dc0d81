/** Generation: tokens follow the model's distribution, within the given options. */
import { beforeEach, describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { GradmixError, type Tensor, tensor } from "gradmix";
import { createGPT, generate, type GenerateOptions, type GPT, sampleToken } from "gradmix/nn";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { configs, ids, numbers, scrambled } from "./models.ts";

let backend: Backend;
beforeEach(() => {
  backend = createReferenceBackend();
  setCurrentMemory(backend);
});

async function collect(
  model: GPT,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): Promise<number[]> {
  const out: number[] = [];
  for await (const token of generate(model, prompt, options)) out.push(token);
  return out;
}

/** The likeliest token after `tokens`, by the model's own logits. */
async function likeliest(model: GPT, tokens: readonly number[]): Promise<number> {
  const all = await numbers(model.logits(ids([tokens])));
  const last = all.slice(-model.config.vocabSize);
  return last.indexOf(Math.max(...last));
}

describe.each(backends)("on $name", ({ create }) => {
  it.each(configs)(
    "$preset: the same seed gives the same text; no memory is left in use; temperature 0 takes the likeliest token",
    async (config) => {
      const own = await create();
      setCurrentMemory(own);
      const model = await scrambled(config);
      const live = own.liveBytes;
      const options = { maxTokens: 20, temperature: 1, seed: 9 };
      const first = await collect(model, [1, 2], options);
      expect(first.length).toBe(20);
      expect(await collect(model, [1, 2], options)).toEqual(first);
      expect(await collect(model, [1, 2], { ...options, seed: 10 })).not.toEqual(first);
      expect(own.liveBytes).toBe(live);

      // Longer than the context: the model sees the last `context` tokens.
      const tokens = [1, 2];
      const greedy = await collect(model, Int32Array.of(1, 2), { maxTokens: 12, temperature: 0 });
      for (const token of greedy) {
        expect(token).toBe(await likeliest(model, tokens.slice(-config.context)));
        tokens.push(token);
      }
      // One token to choose from is the likeliest.
      expect(await collect(model, [1, 2], { maxTokens: 12, topK: 1, seed: 3 })).toEqual(greedy);
      await own.dispose();
    },
  );
});

it("stops before the token that ends the text, or when the caller stops", async () => {
  const model = await scrambled(configs[0]);
  const live = backend.liveBytes;
  const options = { maxTokens: 200, seed: 4, temperature: 2 };
  const all = await collect(model, [0], options);
  const stop = all[17];
  const cut = all.indexOf(stop);
  expect(await collect(model, [0], { ...options, stop })).toEqual(all.slice(0, cut));
  const some: number[] = [];
  for await (const token of generate(model, [0], options)) if (some.push(token) === 5) break;
  expect(some).toEqual(all.slice(0, 5));
  expect(await collect(model, [0], { ...options, maxTokens: 0 })).toEqual([]);
  expect(backend.liveBytes).toBe(live);
});

it("by default it gives 100 tokens, at temperature 1, from all tokens, with seed 0", async () => {
  const model = await scrambled(configs[0]);
  const written = { maxTokens: 100, temperature: 1, topK: 0, seed: 0 };
  expect(await collect(model, [0])).toEqual(await collect(model, [0], written));
});

it("of a prompt longer than the context, the end is used", async () => {
  const model = await scrambled(configs[1]);
  const prompt = Array.from({ length: 30 }, (_, i) => (i * 7) % 11);
  const options = { maxTokens: 8, seed: 1 };
  expect(await collect(model, prompt, options)).toEqual(await collect(model, prompt.slice(-6), options));
});

it("draws from softmax(logits/temperature)", async () => {
  // A model that ignores what it sees: the same known distribution every time.
  const logits = [0, 1, 2, -1, 0.5, -Infinity, 1.5];
  const constant: GPT = {
    ...createGPT({ ...configs[0], vocabSize: 7 }),
    logits: (tokens: Tensor) =>
      tensor(Array.from({ length: tokens.size }, () => logits).flat(), [1, tokens.size, 7]),
  };
  for (const [temperature, topK] of [
    [1, 0],
    [0.5, 0],
    [2, 3],
  ]) {
    const draws = 3000;
    const got = new Array<number>(7).fill(0);
    for (const token of await collect(constant, [0], { maxTokens: draws, temperature, topK })) got[token]++;
    const kept = topK === 3 ? [1, 2, 6] : [0, 1, 2, 3, 4, 6];
    const weights = logits.map((x, id) => (kept.includes(id) ? Math.exp(x / temperature) : 0));
    const total = weights.reduce((a, b) => a + b, 0);
    weights.forEach((w, id) => {
      const p = w / total;
      // Five standard errors, of a fixed seed.
      const slack = 5 * Math.sqrt((p * (1 - p)) / draws);
      expect(Math.abs(got[id] / draws - p), `token ${id}`).toBeLessThanOrEqual(slack);
    });
  }
});

describe("sampleToken", () => {
  const logitsArbitrary = fc.array(
    fc.oneof(
      fc.double({ min: -50, max: 50, noNaN: true }),
      fc.constantFrom(0, 1, -Infinity),
      fc.double({ min: -1e300, max: 1e300, noNaN: true }),
    ),
    { minLength: 1, maxLength: 12 },
  );
  const u = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const temperature = fc.oneof(
    fc.constant(0),
    fc.double({ min: 1e-300, max: 100, noNaN: true }),
    fc.double({ min: 0, max: 2, noNaN: true }),
  );

  it("returns one of the topK likeliest tokens with a probability above 0", () => {
    fc.assert(
      fc.property(logitsArbitrary, temperature, fc.nat(15), u, (logits, t, topK, u) => {
        fc.pre(logits.some((x) => x > -Infinity));
        const pick = sampleToken(logits, t, topK, u);
        expect(logits[pick]).toBeGreaterThan(-Infinity);
        const before = logits.filter((x) => x > logits[pick]).length;
        if (topK > 0) expect(before).toBeLessThan(topK);
        if (t === 0) expect(pick).toBe(logits.indexOf(Math.max(...logits)));
      }),
      { numRuns: 1000 },
    );
  });

  it("is the inverse of the cumulative distribution, in the order of the ids", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 1, maxLength: 9 }),
        u,
        (x, u) => {
          const weights = x.map(Math.exp);
          const total = weights.reduce((a, b) => a + b, 0);
          const pick = sampleToken(x, 1, 0, u);
          const below = weights.slice(0, pick).reduce((a, b) => a + b, 0) / total;
          expect(below).toBeLessThanOrEqual(u + 1e-12);
          expect(below + weights[pick] / total).toBeGreaterThanOrEqual(u - 1e-12);
        },
      ),
    );
  });

  it("a number on the border of two tokens gives the second", () => {
    for (let i = 0; i < 8; i++) expect(sampleToken(new Array<number>(8).fill(3), 1, 0, i / 8)).toBe(i);
  });

  it.each<[Parameters<typeof sampleToken>, string]>([
    [[[1, 2], NaN, 0, 0.5], "temperature: NaN"],
    [[[1, 2], -1, 0, 0.5], "temperature: -1"],
    [[[1, 2], 1, -1, 0.5], "topK: -1"],
    [[[1, 2], 1, 1.5, 0.5], "topK: 1.5"],
    [[[1, 2], 1, 0, 1], "u: 1"],
    [[[1, 2], 1, 0, NaN], "u: NaN"],
    [[[1, 2], 1, 0, -0.1], "u: -0.1"],
  ])("refuses arguments out of range: %o", (args, what) => {
    expect(() => sampleToken(...args)).toThrow(`sampleToken: ${what} does not fit`);
  });

  it.each([
    [[0, NaN], "NaN"],
    [[-Infinity, -Infinity], "-Infinity"],
    [[0, Infinity], "Infinity"],
  ])("refuses %o", (logits, top) => {
    for (const t of [0, 1])
      expect(() => sampleToken(logits, t, 0, 0.5)).toThrow(
        new GradmixError("numeric", `generate: the largest logit is ${top}; the model's weights are broken`),
      );
  });
});

it.each<[number[], GenerateOptions, string]>([
  [[], {}, "prompt: at least one token is needed"],
  [[3, 11], {}, "generate: prompt: 11 does not fit; it must be an integer, at least 0 and at most 10"],
  [[-1], {}, "generate: prompt: -1 does not fit; it must be an integer, at least 0 and at most 10"],
  [[1.5], {}, "generate: prompt: 1.5 does not fit; it must be an integer, at least 0 and at most 10"],
  [[1], { maxTokens: -1 }, "generate: maxTokens: -1 does not fit; it must be an integer of at least 0"],
  [[1], { maxTokens: NaN }, "generate: maxTokens: NaN does not fit; it must be an integer of at least 0"],
  [[1], { temperature: -0.5 }, "generate: temperature: -0.5 does not fit; it must be at least 0 and finite"],
  [[1], { temperature: NaN }, "generate: temperature: NaN does not fit; it must be at least 0 and finite"],
  [[1], { topK: 2.5 }, "generate: topK: 2.5 does not fit; it must be an integer of at least 0"],
  [[1], { stop: 11 }, "generate: stop: 11 does not fit; it must be an integer, at least 0 and at most 10"],
  [[1], { seed: -1 }, "generate: seed: -1 does not fit; it must be an integer of at least 0"],
])("prompt %o with %o is refused at the first token", async (prompt, options, message) => {
  const model = createGPT(configs[0]);
  await expect(generate(model, prompt, options).next()).rejects.toThrow(new GradmixError("config", message));
});

it("weights that give NaN are refused", async () => {
  const model = createGPT(configs[0]);
  model.parameters.byName.get("norm.weight")?.write(new Array<number>(8).fill(NaN));
  await expect(collect(model, [1])).rejects.toThrow(/^generate: the largest logit is NaN/);
});
