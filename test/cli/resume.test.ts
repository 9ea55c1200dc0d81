/** Options that a resumed run may change: the number of steps if all completed steps stay valid, and the backend or SIMD level on request. */
import { jsonLayer, type Layer, resolveConfig } from "#dist/cli/config.js";
import { type Engine, engineChanges, savedEngine } from "#dist/cli/engine.js";
import {
  checkRepetitions,
  planTraining,
  stepChanges,
  type TrainingPlan,
  unreachedRate,
} from "#dist/cli/training.js";
import { GradmixError } from "#dist/errors.js";
import { createSchedule, usualWarmup } from "gradmix/nn";
import fc from "fast-check";
import { expect, test } from "vitest";

const layer = (training: object): Layer =>
  jsonLayer({ data: { domains: { a: "a" }, target: "t" }, training }, "c.json");
const planOf = (training: object): TrainingPlan => planTraining(resolveConfig([layer(training)]));

const cases = fc.record({
  schedule: fc.constantFrom("cosine", "wsd", "constant" as const),
  from: fc.integer({ min: 1, max: 40 }),
  to: fc.integer({ min: 1, max: 60 }),
  warmup: fc.nat(15),
  share: fc.double({ min: 0, max: 1, noNaN: true }),
});

test("the number of steps can change exactly if every finished step had the learning rate of the new schedule", () => {
  fc.assert(
    fc.property(cases, ({ schedule: name, from, to, warmup, share }) => {
      const done = Math.round(from * share);
      const common = { schedule: name, warmup, lr: 0.01 };
      const [then, now] = [planOf({ ...common, steps: from }), planOf({ ...common, steps: to })];
      const rates = (steps: number): number[] => {
        const rate = createSchedule({ name, lr: 0.01, minRatio: 0.1, warmup, steps });
        return Array.from({ length: done }, (_, step) => rate(step));
      };
      const same = JSON.stringify(rates(from)) === JSON.stringify(rates(to));
      const change = (countsTokens: boolean): unknown => {
        try {
          return stepChanges(then, now, done, countsTokens);
        } catch (error) {
          if (error instanceof GradmixError) return error.message;
          throw error;
        }
      };
      if (from === to) expect([change(false), change(true)]).toEqual([{}, {}]);
      else if (to < done)
        expect(change(false)).toMatch(
          new RegExp(`: ${done} steps are already done; to continue from its parameters, .*--init-from$`),
        );
      else if (!same)
        expect(change(false)).toMatch(
          /^--steps: .* would have had another learning rate; only constant, and wsd before its decay, can be extended/,
        );
      else {
        expect(change(false)).toEqual({ steps: { from, to } });
        expect(change(true)).toMatch(/its combinators depend on the number of tokens of the run/);
      }
    }),
    { numRuns: 500 },
  );
});

test("without --warmup, the warm-up follows from the first number of steps, and a longer run keeps it", () => {
  const start = resolveConfig([layer({ steps: 100, schedule: "constant" })]);
  const longer = resolveConfig([layer({ steps: 400 }), layer(start.training)]);
  expect([start.training.warmup, longer.training.warmup]).toEqual([25, 25]);
  expect(stepChanges(planTraining(start), planTraining(longer), 100, false)).toEqual({
    steps: { from: 100, to: 400 },
  });
  const [given, byTokens] = [
    { steps: 100, warmup: 0 },
    { tokens: 64_000, batch: 10 },
  ].map((training) => resolveConfig([layer(training)]));
  expect(given.training.warmup).toBe(0);
  expect(byTokens.training.warmup).toBe(usualWarmup(Math.ceil(6400 / byTokens.model.context)));
});

test("a warm-up that is longer than the run is reported, with the share of the learning rate that is reached", () => {
  const of = (training: object): string | null => unreachedRate(resolveConfig([layer(training)]));
  // The options of a longer run, with the warm-up that was recorded there.
  const { training } = resolveConfig([layer({ steps: 1000 })]);
  expect(unreachedRate(resolveConfig([layer({ steps: 24 }), layer(training)]))).toBe(
    "the warm-up of 60 steps is longer than the run of 24, so the learning rate reaches only 40 % of --lr; the default is --warmup 6",
  );
  expect(of({ tokens: 64, batch: 1, warmup: 7 })).toMatch(
    /^the warm-up of 7 steps is longer than the run of \d, /,
  );
  for (const steps of [1, 3, 4, 24, 1000]) expect(of({ steps })).toBeNull();
  expect(of({ steps: 5, warmup: 5 })).toBeNull();
});

test("another length is refused if the rule would limit a domain differently, with the names of the domain and the option", () => {
  const [then, now] = [planOf({ steps: 5 }), planOf({ steps: 9 })];
  expect(() => checkRepetitions(then, now, null)).not.toThrow();
  expect(() => checkRepetitions(then, now, "wiki")).toThrow(
    /^--steps: the run of 5 steps cannot become a run of 9 steps: the rule's limit on the repetitions of domain "wiki" .*--rule-options '\{"repetitions": …\}'.*--init-from$/,
  );
});

test("a constant schedule can always be extended, wsd before its decay, cosine only within the warm-up", () => {
  const extends_ = (schedule: string, done: number): boolean => {
    const plan = (steps: number): TrainingPlan => planOf({ schedule, steps, warmup: 5 });
    try {
      stepChanges(plan(100), plan(200), done, false);
      return true;
    } catch {
      return false;
    }
  };
  expect([extends_("constant", 100), extends_("wsd", 80), extends_("wsd", 81)]).toEqual([true, true, false]);
  expect([extends_("cosine", 5), extends_("cosine", 7)]).toEqual([true, false]);
});

test("differences in the engine are reported if both versions are known", () => {
  const engine: Engine = { backend: "cpu", simd: "relaxed", precision: "f32", version: "1.0.0" };
  expect(engineChanges(savedEngine({ engine }), engine)).toEqual({});
  for (const name of Object.keys(engine) as (keyof Engine)[])
    expect(engineChanges(savedEngine({ engine: { ...engine, [name]: "other" } }), engine)).toEqual({
      [name]: { from: "other", to: engine[name] },
    });
  // A checkpoint from before knows its backend alone.
  expect(engineChanges(savedEngine({ backend: "webgpu" }), engine)).toEqual({
    backend: { from: "webgpu", to: "cpu" },
  });
  expect(engineChanges(savedEngine({}), engine)).toEqual({});
});
