/**
 * The cost of alignments and norms of segments as the segments get shorter, on the cpu backend: the time of a pass that gives them and the gradient, divided by that
 * of a plain backward pass of the same batch, for a multilayer perceptron. One row per segment is the case of a table in which every row is an example.
 *
 * The passes take turns, and each figure is a median over the turns: `plainMilliseconds` is the plain pass; `aligned` has the alignments along a given
 * direction, the norms and the gradient; `first` has the same along the gradient of the first tenth of the rows, which form one more segment; `norms` has the norms and the
 * gradient; `grouped` is `aligned` with the norms of four groups of segments as well.
 *
 * Options: --rows 1,2,4,8,16,64 (rows per segment), --batch N (256 rows), --widths 128,256,10, --threads N (1), --rounds N (200).
 */
import {
  alignSink,
  crossEntropy,
  type Direction,
  gradients,
  type GradientSink,
  init,
  linear,
  scope,
  shutdown,
  sumSink,
  tensor,
  type Tensor,
} from "gradmix";
import { arenaLike, createParameters } from "gradmix/nn";
import { readOptions } from "./_options.js";
import { median } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

interface Pass {
  readonly name: string;
  readonly sink: GradientSink;
  readonly finish: () => Promise<unknown>;
  readonly dispose: () => void;
  readonly times: number[];
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["rows", "batch", "widths", "threads", "rounds"]);
  const sizes = read.counts("rows", [1, 2, 4, 8, 16, 64]);
  const [batch, threads, rounds] = [
    read.count("batch", 256),
    read.count("threads", 1),
    read.count("rounds", 200),
  ];
  const widths = read.counts("widths", [128, 256, 10]);
  const { capabilities } = await init({ backend: "cpu", threads, vectorBits: "auto" });
  const rows = [];
  // The first figures would otherwise be those of code that is still being compiled.
  await costs(widths, batch, sizes[0] ?? 1, rounds);
  for (const size of sizes)
    rows.push({ rowsPerSegment: size, ...(await costs(widths, batch, size, rounds)) });
  await shutdown();
  const { simd, vectorBits } = capabilities;
  return { node: process.version, simd, vectorBits, threads, batch, widths: widths.join(), rows };
}

async function costs(
  widths: readonly number[],
  batch: number,
  size: number,
  rounds: number,
): Promise<Record<string, number>> {
  const layers = widths.slice(1).map((out, i) => ({ out, inner: widths[i] ?? 0 }));
  const parameters = createParameters(
    layers.flatMap(({ out, inner }, i) => [
      {
        name: `${i}.weight`,
        shape: [out, inner],
        init: { kind: "normal" as const, deviation: Math.sqrt(2 / inner) },
        decay: true,
      },
      { name: `${i}.bias`, shape: [out], init: { kind: "constant" as const, value: 0 }, decay: false },
    ]),
    1,
  );
  const [gradient, direction] = [arenaLike(parameters), arenaLike(parameters)];
  direction.arena.write(Float32Array.from({ length: direction.arena.size }, (_, i) => Math.sin(i)));
  const inputs = tensor(
    Float32Array.from({ length: batch * (widths[0] ?? 0) }, (_, i) => Math.cos(3 * i)),
    [batch, widths[0] ?? 0],
  );
  const targets = tensor(
    Int32Array.from({ length: batch }, (_, i) => i % (widths.at(-1) ?? 1)),
    [batch],
    "i32",
  );
  const losses = (): Tensor =>
    scope(() => {
      let x = inputs;
      layers.forEach((_, i) => {
        const [weight, bias] = parameters.list.slice(2 * i);
        if (weight === undefined || bias === undefined) return;
        x = linear(x, weight, bias, { activation: i < layers.length - 1 ? "relu" : "none" });
      });
      return crossEntropy(x, targets);
    });

  const cut = (from: number): number[] => {
    const offsets = from === 0 ? [0] : [0, from];
    for (let at = from + size; at < batch; at += size) offsets.push(at);
    return [...offsets, batch];
  };
  const total = { gradientOf: (p: Tensor): Tensor => gradient.of(p) };
  const given = { given: (p: Tensor): Tensor => direction.of(p) };
  const aligned = (
    name: string,
    along: Direction | null,
    segments: readonly number[],
    groups: readonly number[] | null = null,
  ): Pass => {
    const sink = alignSink({
      examples: batch,
      segments,
      direction: along,
      total,
      ...(groups === null ? {} : { groups }),
    });
    return { name, sink, finish: () => sink.result(), dispose: () => sink.dispose(), times: [] };
  };
  const plain = sumSink(total);
  const whole = cut(0);
  const count = whole.length - 1;
  const passes: Pass[] = [
    {
      name: "plain",
      sink: plain,
      finish: () => gradient.arena.view([1], 0).data(),
      dispose: () => plain.dispose(),
      times: [],
    },
    aligned("aligned", given, whole),
    aligned("first", { first: 1 }, cut(Math.ceil(batch / 10))),
    aligned("norms", null, whole),
    aligned(
      "grouped",
      given,
      whole,
      [0, 1, 2, 3, 4].map((g) => Math.floor((g * count) / 4)),
    ),
  ];
  // The first tenth is for warming up.
  const warm = Math.ceil(rounds / 10);
  for (let round = 0; round < warm + rounds; round++)
    for (const { sink, finish, times } of passes) {
      const began = performance.now();
      scope(() => void gradients(losses, { parameters: parameters.list, sink }));
      await finish();
      if (round >= warm) times.push(performance.now() - began);
    }
  const medianOf = ({ times }: Pass): number => median(times);
  const [first, ...rest] = passes;
  const plainMilliseconds = first === undefined ? NaN : medianOf(first);
  for (const pass of passes) pass.dispose();
  for (const it of [gradient, direction, parameters]) it.dispose();
  for (const it of [inputs, targets]) it.dispose();
  return {
    plainMilliseconds,
    ...Object.fromEntries(rest.map((pass) => [pass.name, medianOf(pass) / plainMilliseconds])),
  };
}
