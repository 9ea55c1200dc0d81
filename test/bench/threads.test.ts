/** The predictions of the benchmark of threads (bench/_threads.ts), checked by hand. */
import { expect, test } from "vitest";
import { predictedSeconds, serialSeconds, type StepWork } from "../../bench/_threads.ts";
import { expectNear } from "../near.ts";

const work: StepWork = {
  host: 1,
  handOver: 0.25,
  kernels: [
    // Two launches of 4 tasks each.
    { kernel: "even", launches: 2, tasks: 8, shared: 8, alone: 0 },
    { kernel: "small", launches: 5, tasks: 5, shared: 0, alone: 2 },
  ],
};

test("on one thread, a step takes the sum of its parts, without hand-overs", () => {
  expect(serialSeconds(work)).toBe(3);
  expect(predictedSeconds(work, 1)).toBe(11);
});

test("threads divide only the shared launches, and each launch costs a hand-over", () => {
  expect(predictedSeconds(work, 2)).toBe(3 + 4 + 0.5);
  expect(predictedSeconds(work, 4)).toBe(3 + 2 + 0.5);
});

test("tasks are not divided: three threads take as long as two rounds of tasks, and sixteen take at least as long as one task", () => {
  expect(predictedSeconds(work, 3)).toBe(3 + 4 + 0.5);
  expectNear([predictedSeconds(work, 16)], [3 + 2 + 0.5], 1e-12);
});
