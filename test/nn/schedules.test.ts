/** Properties of the learning-rate schedules, and their values at the corners. */
import { describe, expect, it } from "vitest";
import * as fc from "fast-check";
import { GradmixError } from "gradmix";
import { createSchedule, type ScheduleOptions, usualWarmup } from "gradmix/nn";
import { expectNear } from "../near.ts";

const options = fc
  .record({
    name: fc.constantFrom("cosine", "wsd", "constant"),
    lr: fc.double({ min: 1e-6, max: 10, noNaN: true }),
    minRatio: fc.double({ min: 0, max: 1, noNaN: true }),
    warmup: fc.integer({ min: 0, max: 30 }),
    steps: fc.integer({ min: 1, max: 120 }),
    decayShare: fc.double({ min: 0, max: 1, noNaN: true }),
  })
  .filter(({ warmup, steps }) => warmup <= steps);

/** The rates of all steps. */
const rates = (o: ScheduleOptions): number[] => {
  const schedule = createSchedule(o);
  return Array.from({ length: o.steps }, (_, step) => schedule(step));
};

describe("every schedule", () => {
  it("rises to lr in equal steps, never rises again, and stays between minRatio·lr and lr", () => {
    fc.assert(
      fc.property(options, (o) => {
        const all = rates(o);
        const low = o.lr * o.minRatio;
        all.forEach((rate, step) => {
          if (step < o.warmup) expectNear(rate / o.lr, (step + 1) / o.warmup, 1e-12);
          else {
            expect(rate).toBeGreaterThanOrEqual(low - 1e-12 * o.lr);
            expect(rate).toBeLessThanOrEqual(o.lr * (1 + 1e-12));
            if (step > o.warmup) expect(rate).toBeLessThanOrEqual(all[step - 1] * (1 + 1e-12));
          }
        });
        // Past its end it stays at the end.
        const schedule = createSchedule(o);
        if (o.name !== "constant") expectNear(schedule(o.steps + 1000), low, 1e-12, o.lr);
      }),
    );
  });

  it("cosine never falls faster than π/2 times its mean slope", () => {
    fc.assert(
      fc.property(options, (o) => {
        const all = rates({ ...o, name: "cosine" });
        const steepest = ((Math.PI / 2) * o.lr * (1 - o.minRatio)) / Math.max(1, o.steps - o.warmup);
        for (let step = o.warmup + 1; step < all.length; step++)
          expect(all[step - 1] - all[step]).toBeLessThanOrEqual(steepest * (1 + 1e-9) + 1e-12 * o.lr);
      }),
    );
  });
});

it("a step that is not a whole number of at least 0 has no rate", () => {
  for (const name of ["cosine", "wsd", "constant"] as const)
    for (const warmup of [0, 3]) {
      const schedule = createSchedule({ name, lr: 1, steps: 10, warmup });
      for (const step of [-1, 0.5, NaN, Infinity, "2", undefined, null])
        expect(() => schedule(step as number)).toThrow(GradmixError);
    }
});

it("the rate at minRatio is that of the last step of wsd, and of the step after it of cosine", () => {
  fc.assert(
    fc.property(options, (o) => {
      if (o.warmup >= o.steps || o.decayShare * o.steps < 1e-9) return;
      const low = o.lr * o.minRatio;
      expectNear(createSchedule({ ...o, name: "wsd" })(o.steps - 1), low, 1e-12, o.lr);
      const cosine = createSchedule({ ...o, name: "cosine" });
      expectNear(cosine(o.steps), low, 1e-12, o.lr);
      if (o.minRatio < 0.999) expect(cosine(o.steps - 1)).toBeGreaterThan(low);
    }),
  );
});

it("cosine is halfway between the rates in the middle between warm-up and end", () => {
  const all = rates({ name: "cosine", lr: 2, minRatio: 0.25, warmup: 10, steps: 110 });
  expect(all[10]).toBe(2);
  expectNear(all[60], 1.25, 1e-12);
  expectNear(all[109], 0.5, 1e-3);
});

it("wsd is constant, then falls linearly to minRatio·lr at the last step", () => {
  const all = rates({ name: "wsd", lr: 1, minRatio: 0.1, warmup: 5, steps: 100, decayShare: 0.2 });
  expect(all.slice(5, 80)).toEqual(new Array(75).fill(1));
  expectNear(all[89], 0.55, 1e-12);
  expectNear(all[99], 0.1, 1e-12);
  for (let step = 80; step < 100; step++) expectNear(all[step - 1] - all[step], 0.045, 1e-12);
});

it("constant stays at lr; by default, there is no warm-up and the rate falls to a tenth", () => {
  expect(new Set(rates({ name: "constant", lr: 0.3, steps: 20 }))).toEqual(new Set([0.3]));
  expectNear(createSchedule({ name: "cosine", lr: 1, steps: 10 })(10), 0.1, 1e-12);
  expect(createSchedule({ name: "wsd", lr: 1, steps: 10 })(7)).toBe(1);
});

it("usualWarmup is a quarter of a short run, and 60 steps of a longer one", () => {
  expect([0, 3, 4, 100, 239, 240, 1e6].map(usualWarmup)).toEqual([0, 0, 1, 25, 59, 60, 60]);
  for (const steps of [-1, 2.5, NaN])
    expect(() => usualWarmup(steps)).toThrow(
      new GradmixError(
        "config",
        `usualWarmup: steps: ${steps} does not fit; it must be an integer of at least 0`,
      ),
    );
});

it.each([
  [
    { name: "linear" as "wsd" },
    'createSchedule: name: "linear" is not known; it must be one of "cosine", "wsd", "constant"',
  ],
  [{ lr: -1 }, "createSchedule: lr: -1 does not fit; it must be at least 0 and finite"],
  [{ lr: NaN }, "createSchedule: lr: NaN does not fit; it must be at least 0 and finite"],
  [{ minRatio: 1.1 }, "createSchedule: minRatio: 1.1 does not fit; it must be at least 0 and at most 1"],
  [{ warmup: 1.5 }, "createSchedule: warmup: 1.5 does not fit; it must be an integer of at least 0"],
  [{ steps: -3 }, "createSchedule: steps: -3 does not fit; it must be an integer of at least 0"],
  [{ decayShare: 2 }, "createSchedule: decayShare: 2 does not fit; it must be at least 0 and at most 1"],
])("%o is refused", (wrong, message) => {
  expect(() => createSchedule({ name: "cosine", lr: 1, steps: 10, ...wrong })).toThrow(
    new GradmixError("config", message),
  );
});
