/** Whole models in training: they learn a batch by heart, do not depend on its order, and keep their memory flat. */
import { describe, expect, it } from "vitest";
import { gradients, scope, sumSink, type Tensor } from "gradmix";
import { adamw, arenaLike, createGPT } from "gradmix/nn";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { batchOf, configs, differs, ids, numbers, scrambled } from "./models.ts";

const sum = (xs: readonly number[]): number => xs.reduce((a, b) => a + b, 0);

describe.each(backends)("on $name", ({ create }) => {
  it.each(configs)(
    "$preset: learns a batch by heart, in the same memory from the second step on",
    async (config) => {
      const backend = await create();
      setCurrentMemory(backend);
      const model = createGPT(config, { seed: 3 });
      const { tokens, targets } = batchOf(config, 4, 6);
      const counted = targets.flat().filter((target) => target >= 0).length;
      const optimizer = adamw(model.parameters);
      const gradient = arenaLike(model.parameters);
      const sink = sumSink({ gradientOf: gradient.of });
      const live: number[] = [];
      const losses: number[] = [];
      for (let step = 0; step < 120; step++) {
        const each = scope((): Tensor => {
          const each = gradients(() => model.losses(ids(tokens), ids(targets)), {
            parameters: model.parameters.list,
            sink,
            weights: tokens.map(() => 1 / counted),
          });
          optimizer.step(gradient.arena, 0.02).dispose();
          return each;
        });
        losses.push(sum(await numbers(each)) / counted);
        each.dispose();
        live.push(backend.liveBytes);
      }
      // A fresh model knows nothing: ln(vocabulary).
      expect(losses[0]).toBeCloseTo(Math.log(config.vocabSize), 1);
      expect(losses.at(-1)).toBeLessThan(0.1);
      expect(new Set(live.slice(1)).size).toBe(1);
      optimizer.dispose();
      gradient.dispose();
      model.dispose();
      expect(backend.liveBytes).toBe(0);
      await backend.dispose();
    },
  );

  it.each(configs)("$preset: the order of the examples does not matter", async (config) => {
    const backend = await create();
    setCurrentMemory(backend);
    const model = await scrambled(config);
    const { tokens, targets } = batchOf(config, 4, 6);
    const order = [2, 0, 3, 1];
    const gradient = arenaLike(model.parameters);
    const runs = [];
    for (const rows of [[0, 1, 2, 3], order]) {
      const losses = gradients(
        () => model.losses(ids(rows.map((b) => tokens[b])), ids(rows.map((b) => targets[b]))),
        { parameters: model.parameters.list, sink: sumSink({ gradientOf: gradient.of }) },
      );
      runs.push({ losses: await numbers(losses), gradient: await numbers(gradient.arena) });
    }
    const [plain, shuffled] = runs;
    expect(
      differs(
        shuffled.losses,
        order.map((b) => plain.losses[b]),
        2e-6,
      ),
    ).toBeNull();
    expect(differs(shuffled.gradient, plain.gradient, 2e-5)).toBeNull();
    expect(new Set(plain.losses).size).toBe(4);
    await backend.dispose();
  });
});
