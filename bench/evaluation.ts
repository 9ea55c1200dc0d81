/**
 * The speed of evaluation (losses of held-out windows, forward only) in tokens per second, relative to that of training steps of the same model, in turns. Batches of
 * evaluation are multiples of the step's; `overTraining` is the paired median of the ratio of both speeds.
 *
 * Options: --models mixture,small, --threads 1,2, --batches 1,2,4,8 (of the step's windows), --rounds N (7), --seconds N per turn (0.25).
 */
import { init, keep, scope, shutdown } from "gradmix";
import { shapeOf } from "./_models.js";
import { readOptions } from "./_options.js";
import { gptOf, plainStep, windowsFor } from "./_step.js";
import { median, pairedMedian } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["models", "threads", "batches", "rounds", "seconds"]);
  const [rounds, seconds] = [read.count("rounds", 7), read.positive("seconds", 0.25)];
  const rows: Record<string, unknown>[] = [];
  for (const name of read.names("models", ["mixture", "small"]))
    for (const threads of read.counts("threads", [1, 2])) {
      await init({ backend: "cpu", threads, vectorBits: "auto" });
      const shape = shapeOf(name);
      const model = gptOf(shape);
      const step = plainStep(shape, model);
      const cases = [
        { windows: shape.B, call: step },
        ...read.counts("batches", [1, 2, 4, 8]).map((times) => {
          const batch = windowsFor(shape, times * shape.B);
          const call = async (): Promise<void> => {
            const losses = keep(scope(() => model.losses(batch)));
            await losses.data();
            losses.dispose();
          };
          return { windows: times * shape.B, call };
        }),
      ];
      const rates: number[][] = cases.map(() => []);
      for (let round = -1; round < rounds; round++)
        for (const [i, { windows, call }] of cases.entries()) {
          const began = performance.now();
          let calls = 0;
          do {
            await call();
            calls++;
          } while (performance.now() - began < 1000 * seconds);
          if (round >= 0) rates[i]?.push((1000 * calls * windows * shape.T) / (performance.now() - began));
        }
      const [training = [], ...evaluations] = rates;
      evaluations.forEach((own, i) =>
        rows.push({
          model: name,
          threads,
          windows: cases[i + 1]?.windows,
          tokensPerSecond: Math.round(median(own)),
          training: Math.round(median(training)),
          overTraining: pairedMedian(own, training),
        }),
      );
      await shutdown();
    }
  return { node: process.version, rows };
}
