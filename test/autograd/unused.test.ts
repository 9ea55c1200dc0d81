/** Results of sinks by default: 0 for a parameter that a pass does not use, also after a pass that used it; the default options. */
import { beforeEach, expect, it } from "vitest";
import {
  add,
  alignSink,
  full,
  gradients,
  linear,
  segmentSink,
  sketchSink,
  slice,
  sum,
  sumSink,
  tensor,
  type Tensor,
} from "gradmix";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";

// It fills fresh memory with NaN.
beforeEach(() => void setCurrentMemory(createReferenceBackend()));

it.each([[[1]], [[3]], [[3, 2]]])("of shape %j", async (shape) => {
  const used = tensor(values(6, 1), [3, 2]);
  const other = tensor(
    values(
      shape.reduce((a, b) => a * b),
      2,
    ),
    shape,
  );
  const parameters = [used, other];
  const x = tensor(values(8, 3), [4, 2]);
  const without = (): Tensor => sum(linear(x, used), 1);
  // A weight, a bias, or the bias of a layer of one.
  const one = slice(used, [0, 0], [shape[0], 2]);
  const both = (): Tensor =>
    add(without(), sum(shape.length === 2 ? linear(x, other) : linear(x, one, other), 1));

  const sums = new Map(parameters.map((p) => [p, full(p.shape, NaN)]));
  const gradientOf = (p: Tensor): Tensor => sums.get(p) ?? expect.unreachable();
  const segments = segmentSink({ segments: [0, 1, 4], parameters });
  const sketches = sketchSink({ segments: [0, 1, 4], parameters, rank: 2 });
  const sinks = [
    segments,
    sketches,
    sumSink({ gradientOf }),
    alignSink({ examples: 4, direction: { first: 1 }, total: { gradientOf } }),
  ];
  const numbers = async (t: Tensor | undefined): Promise<number[]> =>
    Array.from((await t?.data()) ?? expect.unreachable());
  const found = async (): Promise<number[]> => {
    const all = await sketches.result();
    // By segment, the used parameter's four numbers first.
    const own = all.filter((_, i) => i % (all.length / 2) >= 4);
    return [...own, ...(await numbers(segments.result().get(other))), ...(await numbers(sums.get(other)))];
  };
  for (const [loss, zero] of [
    [without, true],
    [both, false],
    [without, true],
  ] as const)
    for (const sink of sinks) {
      gradients(loss, { parameters, sink });
      if (sink === sinks[0] || sink === sinks[1]) continue;
      expect((await found()).every((value) => value === 0)).toBe(zero);
      sums.get(other)?.write(new Array<number>(other.size).fill(NaN));
    }
});

it("sketches have rank 16 and the seed 1 by default", async () => {
  const weight = tensor(values(400, 1), [20, 20]);
  const x = tensor(values(40, 2), [2, 20]);
  const found: number[][] = [];
  for (const options of [{}, { rank: 16, seed: 1 }, { rank: 16, seed: 2 }, { rank: 15, seed: 1 }]) {
    const sink = sketchSink({ segments: [0, 2], parameters: [weight], ...options });
    gradients(() => sum(linear(x, weight), 1), { parameters: [weight], sink });
    found.push([...(await sink.result())]);
  }
  expect(found[1]).toEqual(found[0]);
  for (const other of found.slice(2)) expect(other).not.toEqual(found[0]);
});
