/** Long computations in steps: the same result at once and in turns, and an end when they are aborted. */
import { afterEach, expect, test, vi } from "vitest";
import { runSteps, runStepsInTurns, type Steps } from "#dist/data/steps.js";

function* sumOf(numbers: readonly number[]): Steps<number> {
  let sum = 0;
  for (const number of numbers) {
    yield;
    sum += number;
  }
  return sum;
}

afterEach(() => {
  vi.restoreAllMocks();
});

test("all steps run, with and without pauses", async () => {
  const { signal } = new AbortController();
  for (const numbers of [[], [3], [1, 2, 4]]) {
    const sum = numbers.reduce((a, b) => a + b, 0);
    expect(runSteps(sumOf(numbers))).toBe(sum);
    expect(await runStepsInTurns(sumOf(numbers), signal)).toBe(sum);
  }
});

test("between long steps, other tasks run, and an abort is noticed", async () => {
  // Every look at the clock is a second later.
  let seconds = 0;
  vi.spyOn(performance, "now").mockImplementation(() => 1e12 + 1000 * seconds++);
  const controller = new AbortController();
  const reason = new Error("enough");
  let taken = 0;
  function* endless(): Steps<never> {
    for (;;) {
      taken++;
      yield;
    }
  }
  setImmediate(() => controller.abort(reason));
  await expect(runStepsInTurns(endless(), controller.signal)).rejects.toBe(reason);
  expect(taken).toBeLessThan(10);
});
