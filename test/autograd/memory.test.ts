/** Results of tensors are on the backend of the tensors, whatever the current backend: for every op and rule, every sink, every model. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { jvp, vjp } from "#dist/autograd/grad.js";
import type { Op } from "#dist/autograd/op.js";
import { ops } from "#dist/autograd/ops/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { tensor, type Tensor } from "#dist/tensor/tensor.js";
import {
  alignSink,
  forwardDerivative,
  gradients,
  normSink,
  perExampleSink,
  sketchSink,
  slice,
  sumSink,
} from "gradmix";
import { adamw } from "gradmix/nn";
import { arenaLike } from "#dist/nn/parameters.js";
import { batchOf, configs, ids, scrambled } from "../nn/models.ts";
import { applySample, samples, upload } from "./samples.ts";

const home = createReferenceBackend();
beforeEach(() => void setCurrentMemory(home));
afterEach(() => void setCurrentMemory(null));

const like = (t: Tensor): Tensor => tensor(new Array<number>(t.size).fill(0.5), t.shape);

describe.each(Object.keys(ops))("%s", (name) => {
  const op = ops[name];

  it.each(samples[name].map((sample, n) => [n, sample] as const))("sample %d", (_, sample) => {
    const all = sample.inputs().map(upload);
    const wrt = all.flatMap((t, slot) => (t.dtype === "f32" && sample.wrt === undefined ? [slot] : []));
    const f = (...given: Tensor[]): Tensor[] =>
      applySample(
        op,
        all.map((t, slot) => (wrt.includes(slot) ? given[wrt.indexOf(slot)] : t)),
        sample.attrs,
      );
    const primals = wrt.map((slot) => all[slot]);
    const tangents = primals.map(like);
    const cotangents = f(...primals).map(like);
    setCurrentMemory(null);
    const outputs = f(...primals);
    const found = [...outputs, ...((op as Op<unknown>).compose?.(all, sample.attrs) ?? [])];
    if (wrt.length > 0) {
      found.push(...jvp(f, primals, tangents).tangents, ...vjp(f, primals).pullback(cotangents));
      // The results of the rules' own derivatives, which use other ops.
      if (op.constant !== true) {
        const gradient = (...x: Tensor[]): Tensor[] => vjp(f, x).pullback(cotangents);
        found.push(...jvp(gradient, primals, tangents).tangents, ...vjp(gradient, primals).pullback(primals));
      }
    }
    expect(found.length).toBeGreaterThan(0);
    for (const t of found) expect(t.memory).toBe(home);
  });
});

describe.each(configs)("$preset", (config) => {
  it("forwardDerivative, every sink and the optimizer's step", async () => {
    const model = await scrambled(config);
    const { list } = model.parameters;
    const { tokens, targets } = batchOf(config, 3, 4);
    const [inputs, wanted] = [ids(tokens), ids(targets)];
    const losses = (): Tensor => model.losses({ inputs, targets: wanted });
    const direction = arenaLike(model.parameters);
    const gradient = arenaLike(model.parameters);
    const sinks = [
      sumSink({ gradientOf: gradient.of }),
      perExampleSink(3, list),
      sketchSink({ segments: [0, 1, 3], parameters: list, rank: 4 }),
      alignSink({ segments: [0, 1, 3], examples: 3, direction: { given: direction.of } }),
      normSink({ examples: 3, segments: [0, 1, 3] }),
    ];
    setCurrentMemory(null);
    const optimizer = adamw(model.parameters);
    for (const sink of sinks) expect(gradients(losses, { parameters: list, sink }).memory).toBe(home);
    const along = new Map(list.map((parameter) => [parameter, direction.of(parameter)]));
    expect(forwardDerivative(losses, along).derivatives.memory).toBe(home);
    expect(optimizer.step(gradient.arena, 0.1).memory).toBe(home);
  });
});

it("a slice of consecutive whole rows takes no memory", () => {
  const x = tensor(
    Array.from({ length: 24 }, (_, i) => i),
    [4, 3, 2],
  );
  const before = home.liveBytes;
  for (const [starts, sizes] of [
    [
      [1, 0, 0],
      [2, 3, 2],
    ],
    [
      [2, 1, 0],
      [1, 2, 2],
    ],
    [
      [3, 2, 1],
      [1, 1, 1],
    ],
  ])
    slice(x, starts, sizes);
  expect(home.liveBytes).toBe(before);
  slice(x, [0, 1, 0], [2, 2, 2]);
  expect(home.liveBytes).toBeGreaterThan(before);
});
