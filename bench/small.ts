/**
 * The overhead of small work beside its arithmetic, on one thread of the cpu backend: microseconds of a call on tensors of a few elements, of a chain of twenty
 * additions, and of a training step of a small multilayer perceptron (forward, backward, SGD). The cases take turns in every round; `microseconds` is the median over
 * the rounds, `least` the best round, and `ofAddOne` the median as a multiple of that of `add(a, 1)`, which has the least overhead.
 *
 * Options: --elements N (64), --calls N per turn (20,000; for steps a twentieth), --rounds N (15), --batch N (8), --widths 16,32,4 of the perceptron, --peers FOLDER:
 * `@tensorflow/tfjs`, `@tensorflow/tfjs-backend-wasm` and `@jax-js/jax`, if they are installed in this folder, do the same work in the same rounds.
 */
import {
  add,
  crossEntropy,
  gradients,
  init,
  linear,
  mul,
  scope,
  shutdown,
  sum,
  sumSink,
  tensor,
  type Tensor,
} from "gradmix";
import { arenaLike, createParameters, type Parameters, sgd } from "gradmix/nn";
import { readOptions } from "./_options.js";
import { type Case, CHAIN, type Net, netOf, peerCases } from "./_small-peers.js";
import { median } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["elements", "calls", "rounds", "batch", "widths", "peers"]);
  const [elements, calls, rounds] = [
    read.count("elements", 64),
    read.count("calls", 20_000),
    read.count("rounds", 15),
  ];
  const net = netOf(read.count("batch", 8), read.counts("widths", [16, 32, 4]));
  await init({ backend: "cpu", threads: 1, vectorBits: "auto" });
  const peers = read.text("peers");
  const cases: Case[] = [...ownCases(elements, net), ...(await peerCases(peers, elements, net))];
  const times = cases.map(() => new Array<number>());
  for (let round = 0; round < rounds; round++)
    for (const [n, { share, begin, call }] of cases.entries()) {
      const count = Math.max(1, Math.round(calls * share));
      await begin?.();
      const began = performance.now();
      for (let i = 0; i < count; i++) {
        const waits = call();
        if (waits !== undefined) await waits;
      }
      times[n]?.push(((performance.now() - began) / count) * 1e3);
    }
  await shutdown();
  const medians = times.map(median);
  return {
    node: process.version,
    elements,
    net: `${net.batch} rows, ${net.widths.join()}`,
    calls: cases.map(({ name }, n) => ({
      call: name,
      microseconds: medians[n],
      least: Math.min(...(times[n] ?? [])),
      ofAddOne: (medians[n] ?? NaN) / (medians[0] ?? NaN),
    })),
  };
}

function ownCases(elements: number, net: Net): Case[] {
  const filled = (shape: readonly number[]): Tensor =>
    tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1), shape);
  const [a, b, one] = [filled([elements]), filled([elements]), filled([1])];
  const [rows, others, row] = [filled([elements, 4]), filled([elements, 4]), filled([4])];
  const op = (name: string, call: () => Tensor): Case => ({
    ...{ name, share: 1 },
    call: () => scope(() => void call()),
  });
  const chain = (): void => {
    let x = a;
    for (let i = 0; i < CHAIN; i++) x = add(x, b);
  };
  return [
    op("add(a, 1)", () => add(a, 1)),
    op("add(a, b)", () => add(a, b)),
    op("mul(a, b)", () => mul(a, b)),
    op("add(a, b), two axes", () => add(rows, others)),
    op("add(a, b), b a row", () => add(rows, row)),
    op("add(a, b), b of one element", () => add(a, one)),
    op("sum(a)", () => sum(a)),
    { name: `${CHAIN} adds`, share: 1 / CHAIN, call: () => scope(chain) },
    { name: "step of an MLP", share: 1 / CHAIN, call: ownStep(net) },
  ];
}

/** Forward, backward and SGD at a fixed rate, without reading anything back. */
function ownStep({ batch, widths, inputs, targets, weightOf }: Net): () => void {
  const [width = 0, hidden = 0, out = 0] = widths;
  const dense = (name: string, rows: number, columns: number) => [
    {
      name: `${name}.weight`,
      shape: [rows, columns],
      init: { kind: "constant" as const, value: 0 },
      decay: true,
    },
    { name: `${name}.bias`, shape: [rows], init: { kind: "constant" as const, value: 0 }, decay: false },
  ];
  const parameters: Parameters = createParameters(
    [...dense("0", hidden, width), ...dense("1", out, hidden)],
    1,
  );
  const [w0, b0, w1, b1] = parameters.list;
  if (w0 === undefined || b0 === undefined || w1 === undefined || b1 === undefined) throw new Error("layers");
  for (const w of [w0, w1]) w.write(weightOf(w.size));
  const gradient = arenaLike(parameters);
  const [x, y] = [tensor(inputs, [batch, width]), tensor(targets)];
  const optimizer = sgd(parameters, { clip: 0 });
  const sink = sumSink({ gradientOf: (p) => gradient.of(p) });
  const weights = tensor(new Float32Array(batch).fill(1 / batch));
  const loss = (): Tensor => crossEntropy(linear(linear(x, w0, b0, { activation: "relu" }), w1, b1), y);
  return () =>
    scope(() => {
      gradients(loss, { parameters: parameters.list, sink, weights });
      optimizer.step(gradient.arena, 0.01);
    });
}
