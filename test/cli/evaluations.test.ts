/** When a run evaluates, on how much text, and how it reports the cost. */
import {
  type EvaluationFacts,
  type EvaluationPlan,
  type EvaluationSeries,
  evaluationAfter,
  evaluationPasses,
  heldOutOf,
  planAsRead,
  planEvaluations,
} from "#dist/cli/evaluations.js";
import { costOf, formatCost } from "#dist/cli/cost.js";
import { createMixer, type RuleOptions } from "gradmix/dga";
import { evaluationWindows, type Windows } from "gradmix/data";
import { language, windows } from "../dga/languages.ts";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

const facts: fc.Arbitrary<EvaluationFacts> = fc.record({
  steps: fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 30_000 })),
  batch: fc.integer({ min: 1, max: 64 }),
  context: fc.constantFrom(1, 8, 64, 100, 1024, 5000),
  target: fc.option(fc.integer({ min: 1, max: 3000 })),
  domains: fc.array(fc.integer({ min: 1, max: 3000 }), { maxLength: 100 }),
});
const shares = fc.double({ min: 0, max: 1, noNaN: true });
const tokens = fc.option(fc.integer({ min: 1, max: 100_000 }));

/** Steps after which something is evaluated, and windows that are read there, walked one by one. */
function walk(
  plan: EvaluationPlan,
  { steps, context, target, domains }: EvaluationFacts,
): { target: number[]; domains: number[]; windows: number } {
  const read = (sets: readonly number[], most: number): number =>
    sets.reduce((sum, count) => sum + Math.min(count, Math.ceil(most / context)), 0);
  const out = { target: [] as number[], domains: [] as number[], windows: 0 };
  for (let step = 0; step <= steps; step++) {
    const wanted = evaluationAfter(plan, step);
    if (wanted === null) continue;
    if (wanted.target !== null) {
      out.target.push(step);
      out.windows += read([target ?? 0], wanted.target);
    }
    if (wanted.domains !== null) {
      out.domains.push(step);
      out.windows += read(domains, wanted.domains);
    }
  }
  return out;
}

describe("by a share", () => {
  const byShare = fc.record({ share: shares, every: fc.constant(null), tokens });

  test("evaluations read no more than the share allows, except for the mandatory ones; the counted cost is what the steps read", () => {
    fc.assert(
      fc.property(byShare, facts, (options, given) => {
        const { steps, batch, context, target, domains } = given;
        const plan = planEvaluations(options, given);
        const { windows } = walk(plan, given);
        expect(evaluationPasses(plan)).toBe(windows);
        const least = (fewest: number): number => Math.ceil((options.tokens ?? fewest) / context);
        const ofDomains = domains.reduce((sum, count) => sum + Math.min(count, least(1)), 0);
        const obliged = target === null ? 2 * ofDomains : 2 * Math.min(target, least(1024)) + ofDomains;
        const budget = options.share * 3 * batch * steps;
        expect(windows).toBeLessThanOrEqual(Math.max(budget, obliged) * (1 + 1e-12));
      }),
      { numRuns: 500 },
    );
  });

  test("the first and the last step are always evaluated; the domains are evaluated at some of the target's steps", () => {
    fc.assert(
      fc.property(byShare, facts, (options, given) => {
        const plan = planEvaluations(options, given);
        const at = walk(plan, given);
        const { steps, target, domains } = given;
        const first = target === null ? at.domains : at.target;
        expect([first.at(0), first.at(-1)]).toEqual(
          target === null && domains.length === 0 ? [undefined, undefined] : [0, steps],
        );
        if (domains.length > 0) expect(at.domains.at(-1)).toBe(steps);
        for (const series of [at.target, at.domains]) expect(series.length).toBeLessThanOrEqual(100);
        if (target === null || domains.length === 0) return;
        expect(at.target).toEqual(expect.arrayContaining(at.domains));
        if (at.domains.length > 1) expect(at.domains[0]).toBe(0);
      }),
      { numRuns: 500 },
    );
  });

  test("evaluations are evenly spaced, to within one step", () => {
    fc.assert(
      fc.property(byShare, facts, (options, given) => {
        const plan = planEvaluations(options, given);
        const at = walk(plan, given);
        const series = given.target === null ? at.domains : at.target;
        const gaps = series.slice(1).map((step, i) => step - series[i]);
        expect(Math.max(0, ...gaps) - Math.min(...gaps)).toBeLessThanOrEqual(1);
        if (at.target.length === 0) return;
        const places = at.domains.map((step) => at.target.indexOf(step));
        const jumps = places.slice(1).map((place, i) => place - places[i]);
        expect(Math.max(0, ...jumps) - Math.min(...jumps)).toBeLessThanOrEqual(1);
      }),
      { numRuns: 300 },
    );
  });

  test("most of the share is used if there is enough text", () => {
    const large = facts.map((given) => ({
      ...given,
      steps: 200 + given.steps,
      batch: 16,
      context: 64,
      target: 1_000_000,
      domains: given.domains.map(() => 1_000_000),
    }));
    fc.assert(
      fc.property(large, (given) => {
        const plan = planEvaluations({ share: 0.05, every: null, tokens: null }, given);
        const budget = 0.05 * 3 * 16 * given.steps;
        expect(evaluationPasses(plan)).toBeGreaterThan(0.7 * budget - given.domains.length);
      }),
    );
  });

  test("four times the tokens give twice as many evaluations on twice as much text", () => {
    const target = (steps: number): EvaluationSeries | null =>
      planEvaluations(
        { share: 0.1, every: null, tokens: null },
        { steps, batch: 32, context: 8, target: 1e9, domains: [] },
      ).target;
    // 0.1·3·32·steps windows of 8: 76.8 tokens a step.
    expect(target(1000)).toMatchObject({ times: 17, tokens: 4512 });
    expect(target(4000)).toMatchObject({ times: 34, tokens: 9032 });
  });

  test("a plan calculated by hand: 240 steps of 16 windows, 24 domains", () => {
    const given = {
      steps: 240,
      batch: 16,
      context: 64,
      target: 300,
      domains: Array(24).fill(150) as number[],
    };
    const options = { share: 0.03, every: null, tokens: null };
    // 345.6 windows: 230.4 for the target, of 14,746 tokens, 7 times 32; 121.6 are left, 5 for each domain.
    expect(planEvaluations(options, given)).toEqual({
      steps: 240,
      context: 64,
      target: { after: [0, 40, 80, 120, 160, 200, 240], tokens: 2048, times: 7, windows: 32 },
      domains: { after: [240], tokens: 320, times: 1, windows: 120 },
    });
    // 1,000 tokens are 16 windows: of each domain once, which is a third of 1,152 windows, and 48 times of the target.
    const some = planEvaluations({ ...options, share: 0.1, tokens: 1000 }, given);
    expect(some.target).toMatchObject({ tokens: 1000, times: 48, windows: 16 });
    expect(some.domains).toMatchObject({ after: [240], tokens: 1000, times: 1, windows: 384 });
    // The domains get more than a third of the 921.6 windows, since they need it.
    const fewer = planEvaluations({ ...options, share: 0.08, tokens: 1000 }, given);
    expect(fewer.target).toMatchObject({ times: 33, windows: 16 });
    expect(fewer.domains).toMatchObject({ times: 1, windows: 384 });
  });

  test("a plan calculated by hand, with numbers that divide evenly", () => {
    const options = { share: 0.5, every: null, tokens: null };
    const given = { steps: 24, batch: 4, context: 64, target: 10_000, domains: [] };
    // 144 windows are 9,216 tokens, √36 evaluations of 24 windows.
    expect(planEvaluations(options, given).target).toEqual({
      after: [0, 5, 10, 14, 19, 24],
      tokens: 1536,
      times: 6,
      windows: 24,
    });
    // As often as there are steps, and once before them; a small set is read again and again.
    expect(planEvaluations(options, { ...given, steps: 3, target: 2 }).target).toEqual({
      after: [0, 1, 2, 3],
      tokens: 128,
      times: 4,
      windows: 2,
    });
    // Least tokens are whole windows, up.
    expect(planEvaluations(options, { ...given, steps: 3, context: 100 }).target).toMatchObject({
      tokens: 1100,
      times: 2,
      windows: 11,
    });
    // 144 windows are 4,608 tokens for each of two sets, √18 evaluations of 36 windows; one set has only 5.
    expect(planEvaluations(options, { ...given, target: null, domains: [10_000, 5] }).domains).toEqual({
      after: [0, 8, 16, 24],
      tokens: 31 * 64,
      times: 4,
      windows: 36,
    });
  });

  test("with a share of 0, only the mandatory evaluations happen", () => {
    const given = { steps: 9, batch: 4, context: 64, target: 300, domains: [5, 1] };
    expect(planEvaluations({ share: 0, every: null, tokens: null }, given)).toEqual({
      steps: 9,
      context: 64,
      target: { after: [0, 9], tokens: 1024, times: 2, windows: 16 },
      domains: { after: [9], tokens: 64, times: 1, windows: 2 },
    });
    expect(planEvaluations({ share: 0, every: null, tokens: null }, { ...given, target: null })).toEqual({
      steps: 9,
      context: 64,
      target: null,
      domains: { after: [0, 9], tokens: 64, times: 2, windows: 2 },
    });
  });
});

test("the target and the domains with held-out text are evaluated; of many domains, every so many-th", () => {
  const names = Array.from({ length: 250 }, (_, i) => `d${i}`);
  const set = (name: string): Windows => windows(name, [language(1, 40)]);
  const domains = names.map((name, i) => ({ train: set(name), heldOut: i === 3 ? null : set(name) }));
  const found = heldOutOf({ target: null, domains }, names);
  expect(found.target).toBeNull();
  expect([...found.domains.keys()]).toEqual(names.filter((_, i) => i % 3 === 0 && i !== 3));
  for (const [name, { name: own }] of found.domains) expect(own).toBe(name);
  const target = { train: set("t"), heldOut: set("t") };
  expect(heldOutOf({ target, domains: [] }, [])).toEqual({ target: target.heldOut, domains: new Map() });
});

describe("evaluation at an interval", () => {
  test("covers all sets every N steps and at the end, but not before the first step, on the given number of tokens or 8,192", () => {
    fc.assert(
      fc.property(fc.nat(60), tokens, facts, (every, given, plans) => {
        const plan = planEvaluations({ share: null, every, tokens: given }, plans);
        const at = walk(plan, plans);
        const due = Array.from({ length: plans.steps }, (_, i) => i + 1).filter(
          (step) => step === plans.steps || (every > 0 && step % every === 0),
        );
        expect(at.target).toEqual(plans.target === null ? [] : due);
        expect(at.domains).toEqual(plans.domains.length === 0 ? [] : due);
        for (const series of [plan.target, plan.domains])
          if (series !== null) expect(series.tokens).toBe(given ?? 8192);
        expect(evaluationPasses(plan)).toBe(at.windows);
      }),
      { numRuns: 200 },
    );
  });
});

test("the plan as it is read counts the tokens that there are, in whole windows, and reads the same", () => {
  const set = (length: number): Windows =>
    evaluationWindows("set", { tokens: new Uint16Array(length), documents: Float64Array.of(0, length) }, 16) ?? expect.unreachable(); // prettier-ignore
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 400 }),
      fc.array(fc.integer({ min: 2, max: 400 }), { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 500 }),
      (length, lengths, tokens) => {
        const heldOut = { target: set(length), domains: new Map(lengths.map((n, i) => [`d${i}`, set(n)])) };
        const sets = [...heldOut.domains.values()];
        const plan = planEvaluations(
          { share: null, every: 0, tokens },
          {
            steps: 4,
            batch: 2,
            context: 16,
            target: heldOut.target.count,
            domains: sets.map(({ count }) => count),
          },
        );
        const asRead = planAsRead(plan, heldOut);
        const read = (of: Windows, most: number): number => {
          let [at, sum] = [0, 0];
          while (at < of.count && sum < most) sum += of.tokensOf(at++);
          return sum;
        };
        for (const [own, before, of] of [
          [asRead.target, plan.target, [heldOut.target]],
          [asRead.domains, plan.domains, sets],
        ] as const) {
          expect(own?.tokens).toBe(Math.max(...of.map((one) => read(one, tokens))));
          for (const one of of) expect(read(one, own?.tokens ?? 0)).toBe(read(one, before?.tokens ?? 0));
        }
      },
    ),
  );
});

describe("the line of costs", () => {
  const plan = (
    rule: RuleOptions,
    steps: number,
    given: Partial<EvaluationFacts> & { share?: number; every?: number; tokens?: number } = {},
  ): string => {
    const mixer = createMixer({ domains: Array.from({ length: 24 }, (_, i) => `d${i}`), rule });
    const { tokens = null, every = null, share = every === null ? 0.03 : null, ...more } = given;
    const evaluations = planEvaluations(
      { share, every, tokens },
      { steps, batch: 16, context: 64, target: 300, domains: Array(24).fill(150) as number[], ...more },
    );
    const alignment = { from: "step" as const };
    const cost = costOf(
      { mixer, alignment, bases: null, specs: [], targets: 0, steps, batch: 16, time: 64 },
      evaluations,
    );
    return formatCost(cost, evaluations, mixer.rule.needs);
  };

  test("names the steps, the updates and each added cost", () => {
    // 24 refreshes of 8 windows over 240 steps of 16 cost 5 %; measuring every second step costs 4 tokens of 64, which is 3 %.
    expect(plan({ name: "dga", prior: Array<number>(24).fill(1) }, 240)).toBe(
      "240 steps, 24 updates of the weights; alignment +8 %, evaluation +3 % of training (the target 7 times on 2,048 tokens, the domains once on up to 320 tokens each)",
    );
    // Without a prior, 48 refreshes of 4 windows and every step measured.
    expect(plan({ name: "dga" }, 240)).toMatch(
      /^240 steps, 48 updates of the weights; alignment \+11 %, evaluation \+3 % of training/,
    );
    expect(plan({ name: "uniform" }, 240)).toMatch(/^240 steps; evaluation \+3 % of training \(the target/);
    expect(plan({ name: "doremi" }, 2400)).toMatch(
      /^2,400 steps, 240 updates of the weights; reference losses \+33 %, evaluation/,
    );
    expect(plan({ name: "odm" }, 10)).toMatch(/^10 steps, 1 update of the weights; evaluation \+12 % of/);
    expect(plan({ name: "uniform" }, 240, { target: null, domains: [] })).toBe(
      "240 steps; evaluation +0 % of training",
    );
    expect(plan({ name: "uniform" }, 1, { target: 4, every: 0, tokens: 1 })).toMatch(
      /^1 step; evaluation \+52 % of training \(the target once on 1 token, the domains once on up to 1 token each\)$/,
    );
    // A set that is smaller than the allowance is read completely.
    expect(plan({ name: "uniform" }, 240, { target: 4, every: 0 })).toMatch(
      /\(the target once on 256 tokens, the domains once on up to 8,192 tokens each\)$/,
    );
    expect(plan({ name: "uniform" }, 1000, { target: 4, domains: [], share: 0 })).toBe(
      "1,000 steps; evaluation +0.02 % of training (the target twice on 256 tokens)",
    );
  });
});
