/**
 * What one op costs beside its arithmetic: microseconds a call on tensors of a few elements, on one thread of the cpu backend. The calls take turns, and each
 * is also given as a multiple of `add(a, 1)`, which has the least to keep account of.
 *
 * Options: --elements N (64), --calls N a turn (20,000), --rounds N (15).
 */
import { add, init, mul, scope, shutdown, sum, tensor, type Tensor } from "gradmix";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["elements", "calls", "rounds"]);
  const [elements, calls, rounds] = [
    read.count("elements", 64),
    read.count("calls", 20_000),
    read.count("rounds", 15),
  ];
  await init({ backend: "cpu", threads: 1 });
  const filled = (shape: readonly number[]): Tensor =>
    tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1), shape);
  const [a, b, one] = [filled([elements]), filled([elements]), filled([1])];
  const [rows, others, row] = [filled([elements, 4]), filled([elements, 4]), filled([4])];
  const cases: readonly (readonly [name: string, call: () => Tensor])[] = [
    ["add(a, 1)", () => add(a, 1)],
    ["add(a, b)", () => add(a, b)],
    ["mul(a, b)", () => mul(a, b)],
    ["add(a, b), two axes", () => add(rows, others)],
    ["add(a, b), b a row", () => add(rows, row)],
    ["add(a, b), b of one element", () => add(a, one)],
    ["sum(a)", () => sum(a)],
  ];
  const times = cases.map(() => new Array<number>());
  for (let round = 0; round < rounds; round++)
    for (const [n, [, call]] of cases.entries()) {
      const began = performance.now();
      for (let i = 0; i < calls; i++) scope(() => void call());
      times[n]?.push(((performance.now() - began) / calls) * 1e3);
    }
  await shutdown();
  const medians = times.map((all) => all.toSorted((x, y) => x - y)[all.length >> 1] ?? NaN);
  const least = times.map((all) => Math.min(...all));
  return {
    node: process.version,
    calls: cases.map(([call], n) => ({
      call,
      microseconds: medians[n],
      least: least[n],
      ofAddOne: (least[n] ?? NaN) / (least[0] ?? NaN),
    })),
  };
}
