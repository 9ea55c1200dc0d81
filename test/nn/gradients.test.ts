/** Derivatives of whole models, in both configurations: against finite differences, per example, in forward mode, with checkpoints. */
import { beforeEach, describe, expect, it } from "vitest";
import {
  forwardDerivative,
  gradients,
  GradmixError,
  perExampleSink,
  scope,
  sumSink,
  tensor,
  type Tensor,
} from "gradmix";
import { arenaLike, createGPT, type GPT } from "gradmix/nn";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";
import { batchOf, configs, differs, dot, ids, numbers, scrambled, type TokenBatch } from "./models.ts";

const lossesOf = (model: GPT, { tokens, targets }: TokenBatch): Tensor =>
  model.losses({ inputs: ids(tokens), targets: ids(targets) });

/** The gradient of the summed losses, in the layout of the parameter arena. */
async function gradientOf(model: GPT, batch: TokenBatch, weights?: number[]): Promise<number[]> {
  const arena = arenaLike(model.parameters);
  const sink = sumSink({ gradientOf: (p) => arena.of(p) });
  gradients(() => lossesOf(model, batch), {
    parameters: model.parameters.list,
    sink,
    ...(weights && { weights }),
  }).dispose();
  const out = await numbers(arena.arena);
  arena.dispose();
  return out;
}

describe.each(configs)("$preset, f64", (config) => {
  let backend: Backend;
  let model: GPT;
  beforeEach(async () => {
    backend = createReferenceBackend({ precision: "f64" });
    setCurrentMemory(backend);
    model = await scrambled(config);
  });

  it("the gradient equals central differences in random directions", async () => {
    const batch = batchOf(config, 3, 5);
    const gradient = await gradientOf(model, batch);
    const { value } = model.parameters;
    const at = await numbers(value);
    const eps = 1e-5;
    const loss = async (): Promise<number> =>
      (await numbers(scope(() => lossesOf(model, batch)))).reduce((a, b) => a + b, 0);
    const check = async (what: string, direction: number[]): Promise<void> => {
      const moved = async (sign: number): Promise<number> => {
        value.write(at.map((x, n) => x + sign * eps * direction[n]));
        return loss();
      };
      const measured = ((await moved(1)) - (await moved(-1))) / (2 * eps);
      value.write(at);
      expect(measured, what).not.toBe(0);
      expect(
        Math.abs(dot(gradient, direction) - measured) / Math.max(1, Math.abs(measured)),
        what,
      ).toBeLessThan(1e-7);
    };
    for (let k = 0; k < 3; k++) await check(`direction ${k}`, values(value.size, 900 + k));
    // One parameter at a time, so that no small one hides behind the others.
    for (const p of model.parameters.list) {
      const only = new Array<number>(value.size).fill(0);
      values(p.size, p.offset + 3).forEach((x, n) => (only[p.offset + n] = x));
      await check(p.name ?? "", only);
    }
  });

  it("⟨∇loss_b, V⟩ is the same from one forward pass and from one backward pass per example", async () => {
    const batch = batchOf(config, 3, 6);
    const arena = arenaLike(model.parameters);
    arena.arena.write(values(arena.arena.size, 77));
    const direction = await numbers(arena.arena);
    const tangents = new Map(model.parameters.list.map((p) => [p, arena.of(p)]));
    const { derivatives, losses } = forwardDerivative(() => lossesOf(model, batch), tangents);
    const want: number[] = [];
    for (let b = 0; b < 3; b++) {
      const weights = [0, 1, 2].map((e) => Number(e === b));
      const one = await gradientOf(model, batch, weights);
      want.push(model.parameters.list.reduce((s, p) => s + partDot(one, direction, p), 0));
    }
    expect(differs(await numbers(derivatives), want, 1e-11)).toBeNull();
    expect(await numbers(losses)).toEqual(await numbers(lossesOf(model, batch)));
  });

  it("later tokens do not affect earlier positions", async () => {
    const { tokens } = batchOf(config, 1, 6);
    const changed = [tokens[0].map((id, t) => (t < 4 ? id : (id + 1) % config.vocabSize))];
    const { vocabSize } = config;
    const [a, b] = await Promise.all([tokens, changed].map((rows) => numbers(model.logits(ids(rows)))));
    expect(b.slice(0, 4 * vocabSize)).toEqual(a.slice(0, 4 * vocabSize));
    expect(b.slice(4 * vocabSize)).not.toEqual(a.slice(4 * vocabSize));
  });
});

const partDot = (a: readonly number[], b: readonly number[], p: Tensor): number =>
  dot(a.slice(p.offset, p.offset + p.size), b.slice(p.offset, p.offset + p.size));

describe.each(backends)("on $name", ({ create }) => {
  it.each(configs)(
    "$preset: per-example gradients equal those of passes over single examples",
    async (config) => {
      const backend = await create();
      setCurrentMemory(backend);
      const model = await scrambled(config);
      const batch = batchOf(config, 3, 6);
      const sink = perExampleSink(3, model.parameters.list);
      gradients(() => lossesOf(model, batch), { parameters: model.parameters.list, sink });
      for (let b = 0; b < 3; b++) {
        const alone = await gradientOf(model, { tokens: [batch.tokens[b]], targets: [batch.targets[b]] });
        for (const p of model.parameters.list) {
          const rows = await numbers(sink.result().get(p)!);
          const got = rows.slice(b * p.size, (b + 1) * p.size);
          expect(differs(got, alone.slice(p.offset, p.offset + p.size), 2e-5), `${p.name}, ${b}`).toBeNull();
        }
      }
      await backend.dispose();
    },
  );

  it.each(configs)("$preset: recomputed blocks give the same bits", async (config) => {
    const backend = await create();
    setCurrentMemory(backend);
    const batch = batchOf(config, 3, 6);
    const runs = [];
    for (const checkpoint of [false, true]) {
      const model = await scrambled(config, { checkpoint });
      runs.push({
        losses: await numbers(lossesOf(model, batch)),
        gradient: await gradientOf(model, batch),
      });
      model.dispose();
    }
    expect(runs[0].gradient.some((g) => g !== 0)).toBe(true);
    expect(runs[1]).toEqual(runs[0]);
    await backend.dispose();
  });
});

it("recomputed blocks save memory", () => {
  const config = { ...configs[0], layers: 8, context: 32 };
  const peaks = [false, true].map((checkpoint) => {
    const backend = createReferenceBackend();
    setCurrentMemory(backend);
    const model = createGPT(config, { checkpoint });
    const before = backend.peakBytes;
    const arena = arenaLike(model.parameters);
    scope(() =>
      gradients(() => lossesOf(model, batchOf(config, 8, 32)), {
        parameters: model.parameters.list,
        sink: sumSink({ gradientOf: (p) => arena.of(p) }),
      }),
    );
    return backend.peakBytes - before;
  });
  expect(peaks[1]).toBeLessThan(0.5 * peaks[0]);
});

it("without a backward pass, and in forward mode, memory does not grow with the number of layers", () => {
  const peaks = [2, 12].map((layers) => {
    const backend = createReferenceBackend();
    setCurrentMemory(backend);
    const model = createGPT({ ...configs[0], layers, context: 64 });
    const tangents = arenaLike(model.parameters);
    const batch = batchOf(configs[0], 8, 64);
    const peak = (fn: () => unknown): number => {
      const before = backend.liveBytes;
      // The model's own initialisation peaked lower.
      scope(fn);
      return backend.peakBytes - before;
    };
    return [
      peak(() => lossesOf(model, batch)),
      peak(() =>
        forwardDerivative(
          () => lossesOf(model, batch),
          new Map(model.parameters.list.map((p) => [p, tangents.of(p)])),
        ),
      ),
    ];
  });
  expect(peaks[1]).toEqual(peaks[0]);
});

it("tokens of another shape are refused", () => {
  setCurrentMemory(createReferenceBackend());
  const model = createGPT(configs[0]);
  const refused = (tokens: Tensor): void => {
    expect(() => model.logits(tokens)).toThrow(GradmixError);
    expect(() => model.logits(tokens)).toThrow(/^gpt: tokens \[.*\] are not \[batch, time\]/);
  };
  refused(tensor([1, 2], [2], "i32"));
  refused(tensor([1, 2, 3, 4, 5, 6, 7], [1, 7], "i32"));
  refused(tensor([], [2, 0], "i32"));
  // Not refused: time up to the context.
  expect(model.logits(tensor([1, 2, 3, 4, 5, 6], [1, 6], "i32")).shape).toEqual([1, 6, 11]);
});
