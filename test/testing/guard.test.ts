/**
 * The combinator `guard` against its formulas in plain code, and its guarantees: limits are kept, nothing changes while no domain is in danger, exact
 * resume.
 */
import {
  combinators,
  createMixer,
  guardDefaults,
  type GuardOptions,
  projectBounds,
  restoreMixer,
  type Rule,
  type RuleState,
  rules,
  type Signal,
  sumOf,
  update,
} from "gradmix/dga";
import { names, signal } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const inner = (): Rule => rules.dga({ name: "dga", normalise: "raw", beta: 1, eta: 0.5 });
const guarded = (options: Partial<GuardOptions> = {}, rule: Rule = inner()): Rule =>
  combinators.guard(rule, { limits: { "*": 1.02 }, ...options });

interface HeldOut {
  readonly losses: readonly (number | null)[];
  readonly errors: readonly (number | null)[];
}
/** Losses around references, some unknown, with errors; alignments of the rule inside; updates without held-out losses. */
const updates = (k: number): fc.Arbitrary<{ given: Signal; heldOut: HeldOut | null }[]> =>
  fc.array(
    fc.record({
      given: signal(k, { mild: true }).map(({ heldOutLosses, ...rest }): Signal => {
        void heldOutLosses;
        return rest;
      }),
      heldOut: fc.option(
        fc.record({
          losses: fc.array(fc.option(fc.double({ min: 2.8, max: 3.6, noNaN: true }), { freq: 6 }), {
            minLength: k,
            maxLength: k,
          }),
          errors: fc.array(fc.option(fc.double({ min: 0, max: 0.1, noNaN: true })), {
            minLength: k,
            maxLength: k,
          }),
        }),
        { freq: 4 },
      ),
    }),
    { minLength: 1, maxLength: 12 },
  );
const whole = ({ given, heldOut }: { given: Signal; heldOut: HeldOut | null }): Signal =>
  heldOut === null ? given : { ...given, heldOutLosses: heldOut.losses, heldOutErrors: heldOut.errors };

const multipliers = ({ memory }: RuleState): readonly number[] => memory["guardMultipliers"];
const REFERENCE = 3;
const boundsOf = (lambdas: readonly number[], caps: readonly number[], most: number): number[] => {
  const asked = lambdas.map((lambda, i) => Math.min(caps[i], (Math.exp(lambda) - 1) / (8 * lambdas.length)));
  const sum = sumOf(asked);
  return sum > most ? asked.map((bound) => (bound / sum) * most) : asked;
};

describe("the multipliers", () => {
  const cases = fc.integer({ min: 1, max: 5 }).chain((k) =>
    fc.record({
      k: fc.constant(k),
      run: updates(k),
      limits: fc.array(fc.double({ min: 1, max: 1.1, noNaN: true }), { minLength: k, maxLength: k }),
      caps: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: k, maxLength: k }),
      most: fc.double({ min: 0.1, max: 0.9, noNaN: true }),
      rate: fc.double({ min: 1, max: 100, noNaN: true }),
    }),
  );
  test("rise by ρ times the excess above the limit, within bounds; the weights are the closest in KL within these bounds", () => {
    let acted = 0;
    fc.assert(
      fc.property(cases, ({ k, run, limits, caps, most, rate }) => {
        const domains = names(k);
        const options = {
          limits: Object.fromEntries(domains.map((name, i) => [name, limits[i]])),
          references: domains.map(() => REFERENCE),
          ...{ caps, most, rate },
        };
        const [rule, bare] = [guarded(options), inner()];
        let [state, alone] = [rule.init(domains), bare.init(domains)];
        const lambdas = domains.map(() => 0);
        const ratios = domains.map((): number | null => null);
        for (const one of run) {
          const before = state.weights;
          state = rule.update(state, whole(one));
          alone = bare.update(alone, one.given);
          for (let i = 0; i < k && one.heldOut !== null; i++) {
            const loss = one.heldOut.losses[i];
            if (loss === null) continue;
            const ratio = loss / REFERENCE;
            const noise = (2 * (one.heldOut.errors[i] ?? 0)) / REFERENCE;
            const ahead = 2 * ratio - (ratios[i] ?? ratio);
            let v = ahead - Math.max(limits[i], 1 + noise);
            if (ratio <= 1 + noise) v = Math.min(0, v);
            ratios[i] = ratio;
            const step = Math.max(-0.25, Math.min(1, rate * v));
            const sampled = Math.log(1 + 8 * k * Math.min(most, before[i]));
            const from = v > 0 ? Math.max(lambdas[i], sampled) : lambdas[i];
            lambdas[i] = Math.min(Math.log(1 + 8 * k * most), Math.max(0, from + step));
          }
          expectNear(multipliers(state), lambdas, 1e-9);
          const bounds = boundsOf(multipliers(state), caps, most);
          if (bounds.some((bound, i) => bound > alone.weights[i])) acted++;
          state.weights.forEach((weight, i) => expect(weight).toBeGreaterThanOrEqual(bounds[i] - 1e-12));
          expect(Math.abs(sumOf(state.weights) - 1)).toBeLessThanOrEqual(1e-12);
          expectNear(
            state.weights,
            projectBounds(
              alone.weights,
              bounds,
              domains.map(() => 1),
            ),
            1e-9,
          );
        }
      }),
      { numRuns: 300, seed: 1 },
    );
    expect(acted).toBeGreaterThan(50);
  });

  test("if no loss is above its limit, the weights are those of the inner rule, to the bit", () => {
    const low = fc.integer({ min: 1, max: 6 }).chain((k) => updates(k).map((run) => ({ k, run })));
    fc.assert(
      fc.property(low, ({ k, run }) => {
        const rule = guarded({ references: names(k).map(() => 3.6), limits: { "*": 1.3 } });
        let [state, alone] = [rule.init(names(k)), inner().init(names(k))];
        for (const one of run) {
          state = rule.update(state, whole(one));
          alone = inner().update(alone, one.given);
          expect(state.weights).toEqual(alone.weights);
        }
      }),
    );
  });

  test("a rise within twice its standard error has no effect, a larger one has", () => {
    for (const limit of [1, 1.001])
      for (const error of [0.01, 0.1, 0.7]) {
        const rule = guarded({ limits: { "*": limit }, references: [3, 3] });
        const after = (rise: number): readonly number[] => {
          const start = rule.init(["a", "b"]);
          const given = { alignments: [1, 0], heldOutErrors: [error, error] };
          return multipliers(rule.update(start, { ...given, heldOutLosses: [3, 3 + rise] }));
        };
        expect(after(1.999 * error)).toEqual([0, 0]);
        const [a, b] = after(2.001 * error + 0.003);
        expect(a).toBe(0);
        expect(b).toBeGreaterThan(0);
      }
  });

  test("a trend towards the limit moves the weights before the limit is reached; constant losses do not", () => {
    const rule = guarded({ references: [3, 3] });
    const follow = (losses: readonly number[]): readonly number[] => {
      let state = rule.init(["a", "b"]);
      for (const loss of losses) state = rule.update(state, { alignments: [1, 0], heldOutLosses: [3, loss] });
      return multipliers(state);
    };
    expect(follow([3, 3.05])[1]).toBeGreaterThan(0);
    expect(follow([3.05, 3.05])[1]).toBe(0);
  });
});

test("a guard that cannot hold stays within its maximum, and lets go as quickly as any other", () => {
  const rule = guarded({ references: [3, 3] }, rules.static({ name: "static", weights: [0.99, 0.01] }));
  const step = (state: RuleState, loss: number): RuleState =>
    rule.update(state, { heldOutLosses: [3, loss] });
  let state = rule.init(["a", "b"]);
  let before = 0;
  for (let n = 0; n < 50; n++) {
    state = step(state, 4);
    expect(state.weights[1]).toBeGreaterThanOrEqual(before);
    before = state.weights[1];
  }
  expectNear(state.weights, [1 - guardDefaults.most, guardDefaults.most], 1e-12);
  // The way back takes as long, however long the limit was exceeded.
  for (let n = 0; n < 13; n++) state = step(state, 2);
  expect(state.weights[1]).toBeLessThan(0.05);
});

test("several guards share the maximum, and the rule keeps the rest", () => {
  const rule = guarded({ references: [3, 3, 3] }, rules.static({ name: "static", weights: [1, 0, 0] }));
  let state = rule.init(["a", "b", "c"]);
  for (let n = 0; n < 20; n++) state = rule.update(state, { heldOutLosses: [3, 5, 5] });
  expectNear(state.weights, [1 - guardDefaults.most, guardDefaults.most / 2, guardDefaults.most / 2], 1e-12);
});

test("the reference is the given one, otherwise that of the signal, otherwise the first loss; it does not change", () => {
  const references = (options: Partial<GuardOptions>, ...signals: Partial<Signal>[]): readonly number[] => {
    const rule = guarded(options);
    let state = rule.init(["a", "b", "c"]);
    for (const given of signals) state = rule.update(state, { alignments: [0, 0, 0], ...given });
    return state.memory["guardReferences"];
  };
  const first = { heldOutLosses: [3, 4, null], heldOutReferences: [2.5, null, 9] };
  const second = { heldOutLosses: [5, 6, 7], heldOutReferences: [8, 8, 8] };
  expect(references({}, {})).toEqual([0, 0, 0]);
  expect(references({}, first)).toEqual([2.5, 4, 0]);
  expect(references({}, first, {}, second)).toEqual([2.5, 4, 8]);
  expect(references({ references: { a: 1.5 } }, first, second)).toEqual([1.5, 4, 8]);
  // A loss of 0 cannot be a reference.
  expect(references({}, { heldOutLosses: [0, 1, 1] })).toEqual([0, 1, 1]);
  expect(references({ limits: { b: 1 } }, first, second)).toEqual([0, 4, 0]);
});

test("only the named domains are guarded, and * stands for the others", () => {
  const rule = guarded({ limits: { "*": 1.5, b: 1 }, references: [3, 3, 3] });
  const found = (loss: number): readonly number[] => {
    const given = { alignments: [0, 0, 0], heldOutLosses: [loss, loss, loss] };
    return multipliers(rule.update(rule.init(["a", "b", "c"]), given)).map((lambda) => Math.sign(lambda));
  };
  expect(found(2.9)).toEqual([0, 0, 0]);
  expect(found(3.1)).toEqual([0, 1, 0]);
  expect(found(5)).toEqual([1, 1, 1]);
});

test("around fixed weights it acts, needs held-out losses, and does nothing in updates without them", () => {
  const rule = guarded({ references: [3, 3] }, rules.static({ name: "static", weights: [1, 0] }));
  expect(rule.needs).toEqual(["heldOutLosses"]);
  expect(guarded().needs).toEqual([...inner().needs, "heldOutLosses"]);
  const start = rule.init(["a", "b"]);
  expect(start.weights).toEqual([1, 0]);
  const acted = rule.update(start, { heldOutLosses: [3, 3.3] });
  expect(acted.weights[1]).toBeGreaterThan(0.05);
  const next = rule.update(acted, {});
  expect(next.weights).toEqual(acted.weights);
  expect(next.updates).toBe(2);
});

test("its state can be saved and restored in a mixer, and continues to the same bits; negative numbers are refused", () => {
  const mixer = createMixer({ domains: names(3), rule: combinators.floor(guarded(), 0.01) });
  fc.assert(
    fc.property(updates(3), updates(3), (first, second) => {
      let state = mixer.initial;
      for (const one of first) state = update(mixer, state, whole(one));
      let restored = restoreMixer(mixer, JSON.parse(JSON.stringify(state)));
      for (const one of second) {
        state = update(mixer, state, whole(one));
        restored = update(mixer, restored, whole(one));
      }
      expect(restored).toEqual(state);
    }),
    { numRuns: 30 },
  );
  const { rule, ...rest } = mixer.initial;
  for (const name of ["guardReferences", "guardRatios", "guardMultipliers"]) {
    const memory = { ...rule.memory, [`inner.${name}`]: [0, -1, 0] };
    expect(errorOf(() => restoreMixer(mixer, { ...rest, rule: { ...rule, memory } })).message).toBe(
      `mixer state: rule.memory does not fit: ${name} has a number below 0`,
    );
  }
});

test.each<[Partial<Record<keyof GuardOptions, unknown>>, string]>([
  [{ limits: undefined }, "guard: limits is missing"],
  [{ limits: {} }, 'guard: limits: none is given; name a domain, or "*" for all'],
  [{ limits: { cod: 1.1 } }, 'guard: limits: there is no domain "cod"; did you mean "code"?'],
  [{ limits: { code: 0.99 } }, "guard: limits: code: 0.99 does not fit; it must be at least 1 and finite"],
  [
    { limits: { "*": Infinity } },
    "guard: limits: *: Infinity does not fit; it must be at least 1 and finite",
  ],
  [{ references: [1] }, "guard: references: 1 values for 2 domains"],
  [{ references: [1, -1] }, 'guard: references: "web" has -1; they are finite, at least 0'],
  [{ caps: { code: 0.5 } }, 'guard: caps: there is no number for domain "web"; every domain needs one'],
  [{ caps: [0.5, 1.5] }, 'guard: caps: "web" has 1.5; they are finite, at least 0 and at most 1'],
  [{ most: 1 }, "guard: most: 1 does not fit; it must be more than 0 and less than 1"],
  [{ rate: 0 }, "guard: rate: 0 does not fit; it must be more than 0 and finite"],
])("%j is refused: %s", (options, message) => {
  const error = errorOf(() => guarded(options as Partial<GuardOptions>).init(["code", "web"]));
  expect(error).toMatchObject({ code: "config", message });
});

test.each<[Partial<Signal>, "config" | "numeric", string]>([
  [{ heldOutLosses: [1] }, "config", "guard: 1 heldOutLosses for 2 domains"],
  [
    { heldOutLosses: [1, NaN] },
    "numeric",
    'guard: heldOutLosses of domain "b" is NaN; the weights stay as they are',
  ],
  [
    { heldOutLosses: [1, -1] },
    "numeric",
    'guard: heldOutLosses of domain "b" is -1; the weights stay as they are',
  ],
  [
    { heldOutLosses: [1, 1], heldOutErrors: [Infinity, 1] },
    "numeric",
    'guard: heldOutErrors of domain "a" is Infinity; the weights stay as they are',
  ],
  [
    { heldOutLosses: [1, 1], heldOutReferences: [1, -2] },
    "numeric",
    'guard: heldOutReferences of domain "b" is -2; the weights stay as they are',
  ],
])("a signal with %j is refused", (given, code, message) => {
  const rule = guarded();
  const error = errorOf(() => rule.update(rule.init(["a", "b"]), { alignments: [0, 0], ...given }));
  expect(error).toMatchObject({ code, message });
});

describe("floors and ceilings by name", () => {
  const fixed = (weights: readonly number[]): Rule => rules.static({ name: "static", weights });
  test("hold for the named domains, and keep the ratios of the others", () => {
    const floors = combinators.floor(fixed([0.9, 0.06, 0.04]), { b: 0.2 }).init(["a", "b", "c"]);
    expectNear(floors.weights, [0.8 * (0.9 / 0.94), 0.2, 0.8 * (0.04 / 0.94)], 1e-12);
    const ceilings = combinators.ceiling(fixed([0.9, 0.06, 0.04]), { a: 0.5 }).init(["a", "b", "c"]);
    expectNear(ceilings.weights, [0.5, 0.3, 0.2], 1e-12);
    const listed = combinators.ceiling(fixed([0.9, 0.06, 0.04]), [0.5, 1, 1]).init(["a", "b", "c"]);
    expect(listed.weights).toEqual(ceilings.weights);
  });
  test.each<[() => Rule, string]>([
    [
      () => combinators.floor(inner(), { cod: 0.1 }),
      'floor: least: there is no domain "cod"; did you mean "code"?',
    ],
    [() => combinators.floor(inner(), [0.6, 0.5]), "floor: least: the floors sum to 1.1; weights sum to 1"],
    [
      () => combinators.floor(inner(), { code: -1 }),
      'floor: least: "code": -1 does not fit; it must be at least 0 and at most 1',
    ],
    [
      () => combinators.ceiling(inner(), [0.4, 0.5]),
      "ceiling: most: the ceilings sum to 0.9; weights sum to 1",
    ],
    [
      () => combinators.ceiling(inner(), { web: 2 }),
      'ceiling: most: "web": 2 does not fit; it must be at least 0 and at most 1',
    ],
  ])("%s is refused: %s", (make, message) => {
    expect(errorOf(() => make().init(["code", "web"])).message).toBe(message);
  });
});
