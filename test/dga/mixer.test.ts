/** The mixer: when it updates, its averages, and that a saved state continues to the same bits. */
import {
  advance,
  averageWeights,
  combine,
  createMixer,
  createRule,
  currentWeights,
  dgaDefaults,
  dgaNormalisations,
  type DgaOptions,
  type Mixer,
  type MixerOptions,
  type MixerState,
  restoreMixer,
  type Rule,
  type RuleOptions,
  sumOf,
  update,
  updateDue,
} from "#dist/dga/index.js";
import { nextUpdate } from "#dist/dga/mixer.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { names, signal } from "gradmix/testing";
import { random } from "./arbitraries.ts";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const saved = (state: MixerState): unknown => JSON.parse(JSON.stringify(state));

describe("createMixer", () => {
  test.each([
    [{ domains: [] }, /^domains: at least one/],
    [{ domains: ["a", "b", "a"] }, /^domains: two are called "a"$/],
    [{ updateEvery: 0 }, /^createMixer: updateEvery: 0 does not fit; it must be an integer of at least 1$/],
    [{ updateEvery: 1.5 }, /^createMixer: updateEvery: 1\.5 /],
    [{ updateEvery: Infinity }, /^createMixer: updateEvery: Infinity /],
    [{ updateAfter: -1 }, /^createMixer: updateAfter: -1 /],
    [{ updateAfter: NaN }, /^createMixer: updateAfter: NaN /],
    [{ rule: { name: "dga", beta: 2 } }, /^dga: beta: 2 /],
    [{ rule: { name: "dga", floor: 0.5 } }, /^dga: floor: 0\.5 /],
  ] as [Partial<MixerOptions>, RegExp][])("refuses %j", (options, message) => {
    const error = errorOf(() => createMixer({ domains: ["a", "b"], rule: { name: "dga" }, ...options }));
    expect(error.code).toBe("config");
    expect(error.message).toMatch(message);
  });
});

describe("facts of the run", () => {
  const domains = ["a", "b", "c"];
  const facts = { sizes: { a: 10, b: 20, c: 70 }, tokens: 90, histogram: { c: 3, a: 1 } };
  const signals = fc.sample(signal(3, { mild: true }), { numRuns: 6, seed: 5 });
  const path = (options: Omit<MixerOptions, "domains">): unknown[] => {
    const mixer = createMixer({ domains, ...options });
    let state = mixer.initial;
    return [
      state,
      ...signals.map((given, t) => {
        state = update(mixer, state, { ...given, tokensSeen: [1, 2, 3].map((n) => n * (t + 1)) });
        return state;
      }),
    ];
  };
  const { sizes, tokens, histogram } = facts;

  test.each<[RuleOptions, RuleOptions]>([
    [{ name: "dga" }, { name: "dga", sizes, tokens, prior: histogram }],
    [
      { name: "dga", prior: [1, 1, 1], tokens: 30 },
      { name: "dga", prior: [1, 1, 1], sizes, tokens: 30 },
    ],
    // The paper's has neither prior nor caps, unless they are its options.
    [
      { name: "dga", normalise: "raw" },
      { name: "dga", normalise: "raw" },
    ],
    [
      { name: "dga", normalise: "raw", repetitions: 0.5 },
      { name: "dga", normalise: "raw", repetitions: 0.5, sizes, tokens },
    ],
    [{ name: "ado" }, { name: "ado", sizes }],
    [{ name: "temperature", exponent: 1 } as RuleOptions, { name: "temperature", exponent: 1, sizes }],
    [{ name: "importanceSampling" } as RuleOptions, { name: "importanceSampling", histogram }],
    [{ name: "doge" }, { name: "doge" }],
  ])("are passed to the rule that takes them: %j", (rule, same) => {
    expect(path({ rule, ...facts })).toEqual(path({ rule: same }));
    // Options that are undefined are not given, and facts neither.
    expect(path({ rule: same, combinators: [] })).toEqual(path({ rule: same }));
  });

  test("are passed to combinators, even around a rule object", () => {
    const cap = { name: "repetitionCap", repetitions: 2 } as const;
    const wanted = path({ rule: combine(createRule({ name: "doge" }), [{ ...cap, sizes, tokens }]) });
    expect(path({ rule: { name: "doge" }, combinators: [cap], sizes, tokens })).toEqual(wanted);
    expect(path({ rule: createRule({ name: "doge" }), combinators: [cap], sizes, tokens })).toEqual(wanted);
    expect(wanted).not.toEqual(path({ rule: { name: "doge" } }));
  });

  test.each([
    [{ sizes: { a: 1, b: 2 } }, 'sizes: there is no number for domain "c"; every domain needs one'],
    [{ sizes: { a: 1, b: 0, c: 1 } }, 'sizes: "b" has 0; sizes are finite and positive'],
    [
      { sizes: 7 },
      "createMixer: sizes: 7 does not fit; it must be a list with a number per domain, or numbers by name",
    ],
    [{ tokens: 0 }, "createMixer: tokens: 0 does not fit; it must be more than 0 and finite"],
    [{ histogram: { code: 1 } }, 'histogram: there is no domain "code"; the domains are a, b, c'],
    [{ histogram: [0, 0, 0] }, "histogram: all counts are 0, so no domain could be drawn"],
    [{ combinators: {} }, "createMixer: combinators: an object does not fit; it must be a list"],
  ])("are checked even if the rule does not take them: %j", (given, message) => {
    const options = { domains, rule: { name: "uniform" }, ...given } as unknown as MixerOptions;
    expect(errorOf(() => createMixer(options))).toMatchObject({ code: "config", message });
  });

  test.each(["sizes", "tokens", "histogram"] as const)(
    "%s are refused for a rule object, which can no longer take them",
    (fact) => {
      const rule = createRule({ name: "dga" });
      const error = errorOf(() => createMixer({ domains, rule, [fact]: facts[fact] }));
      expect(error).toMatchObject({
        code: "config",
        message: `createMixer: ${fact}: the rule "dga" is an object, whose options are already set; pass ${fact} when you make the rule, or pass options as rule`,
      });
    },
  );
});

test("several steps with the same weights count like single steps", () => {
  const mixer = createMixer({ domains: ["a", "b"], rule: { name: "static", weights: [0.25, 0.75] } });
  const once = advance(advance(advance(mixer.initial)));
  expect(advance(mixer.initial, 3)).toEqual(once);
  expect(advance(mixer.initial, 0)).toEqual(mixer.initial);
});

const mixers = fc
  .record({
    k: fc.integer({ min: 1, max: 6 }),
    updateEvery: fc.integer({ min: 1, max: 7 }),
    updateAfter: fc.nat(20),
    eta: fc.double({ min: 0, max: 3, noNaN: true }),
    beta: fc.double({ min: 0.01, max: 1, noNaN: true }),
    floor: fc.double({ min: 0, max: 0.1, noNaN: true }),
  })
  .map(({ k, updateEvery, updateAfter, ...rule }) =>
    createMixer({
      domains: names(k),
      rule: { name: "dga", normalise: "cosine", ...rule },
      updateEvery,
      updateAfter,
    }),
  );

test("without options, updates follow the rule's schedule, or happen every tenth step", () => {
  const schedule = { updateEvery: 3, measureEvery: 2 };
  const bare = createRule({ name: "dga", normalise: "raw" });
  const own = { ...bare, schedule };
  const everyOf = (rule: Rule, more: Partial<MixerOptions> = {}): number[] => {
    const { updateEvery, updateAfter } = createMixer({ domains: ["a", "b"], rule, ...more });
    return [updateEvery, updateAfter];
  };
  expect(everyOf(bare)).toEqual([10, 0]);
  expect(everyOf(own)).toEqual([3, 0]);
  expect(everyOf(own, { updateEvery: 7, updateAfter: 4 })).toEqual([7, 4]);
  for (const wrong of [{ updateEvery: 0 }, { measureEvery: 1.5 }, { updateEvery: NaN }]) {
    const error = errorOf(() => everyOf({ ...own, schedule: { ...schedule, ...wrong } }));
    expect(error.code).toBe("config");
    expect(error.message).toMatch(/^rule "dga": schedule: (updateEvery|measureEvery): /);
  }
  // Combinators keep the schedule of what is inside them.
  expect(
    everyOf(own, {
      combinators: [
        { name: "ema", beta: 0.5 },
        { name: "floor", least: 0.1 },
      ],
    }),
  ).toEqual([3, 0]);
});

test("dga has a schedule only in its default form, and another one with a prior", () => {
  const scheduleOf = (options: Omit<DgaOptions, "name">): unknown =>
    createRule({ name: "dga", ...options }).schedule;
  const { aroundPrior, withoutPrior } = dgaDefaults.schedules;
  expect(scheduleOf({})).toEqual(withoutPrior);
  expect(scheduleOf({ start: [1, 0], floor: 0.1 })).toEqual(withoutPrior);
  expect(scheduleOf({ prior: [1, 2] })).toEqual(aroundPrior);
  for (const normalise of dgaNormalisations)
    expect(scheduleOf({ normalise }) === undefined).toBe(normalise !== "tracked");
});

test("the domains are checked whatever the rule does", () => {
  const { rule } = createMixer({ domains: ["a"], rule: { name: "uniform" } });
  const own = { ...rule, init: () => rule.init(["a"]) };
  expect(errorOf(() => createMixer({ domains: ["a", "a"], rule: own })).message).toBe(
    'domains: two are called "a"',
  );
});

describe("updateDue", () => {
  const dueAt = (options: Partial<MixerOptions>, steps: number): number[] => {
    const mixer = createMixer({ domains: ["a", "b"], rule: { name: "dga" }, ...options });
    const due: number[] = [];
    let state = mixer.initial;
    for (let step = 1; step <= steps; step++) {
      state = advance(state);
      if (updateDue(mixer, state)) due.push(step);
    }
    return due;
  };

  test("is true every T_r steps, but not during the warm-up and not for fixed weights", () => {
    expect(dueAt({ updateEvery: 5 }, 16)).toEqual([5, 10, 15]);
    expect(dueAt({ updateEvery: 5, updateAfter: 7 }, 16)).toEqual([10, 15]);
    expect(dueAt({ updateEvery: 5, updateAfter: 10 }, 16)).toEqual([10, 15]);
    expect(dueAt({ updateEvery: 1 }, 3)).toEqual([1, 2, 3]);
    expect(dueAt({ updateEvery: 1, rule: { name: "uniform" } }, 5)).toEqual([]);
    const mixer = createMixer({
      domains: ["a"],
      rule: { name: "dga", normalise: "cosine" },
      updateEvery: 1,
    });
    expect(updateDue(mixer, mixer.initial)).toBe(false);
  });

  test("the next update is the first step at which one is due", () => {
    fc.assert(
      fc.property(mixers, fc.nat(60), (mixer, steps) => {
        let next = steps + 1;
        while (next % mixer.updateEvery !== 0 || next < mixer.updateAfter) next++;
        expect(nextUpdate(mixer, steps)).toBe(next);
        for (let s = steps + 1; s <= next; s++)
          expect(updateDue(mixer, { ...mixer.initial, steps: s })).toBe(s === next);
      }),
    );
  });
});

/** Steps of a run; every `updateEvery`-th has a signal. */
function drive(
  mixer: Mixer,
  from: MixerState,
  until: number,
): { state: MixerState; sampled: Float64Array[] } {
  const k = mixer.domains.length;
  const sampled: Float64Array[] = [];
  let state = from;
  while (state.steps < until) {
    sampled.push(currentWeights(state));
    state = advance(state);
    if (!updateDue(mixer, state)) continue;
    const draw = random(state.steps);
    const values = Array.from({ length: k }, () => draw() - 0.4);
    state = update(mixer, state, { alignments: values, norms: values.map(() => 1 + draw()), targetNorm: 1 });
  }
  return { state, sampled };
}

describe("weights", () => {
  test("the average is the mean of the sampled weights over the steps", () => {
    fc.assert(
      fc.property(mixers, fc.integer({ min: 1, max: 100 }), (mixer, steps) => {
        const { state, sampled } = drive(mixer, mixer.initial, steps);
        const average = averageWeights(state);
        expect(sampled.length).toBe(steps);
        average.forEach((w, i) => expectNear(w, sumOf(sampled.map((s) => s[i])) / steps, 1e-12));
        expect(Math.abs(sumOf(average) - 1)).toBeLessThanOrEqual(1e-12);
      }),
    );
  });

  test("before the first step, the average is the initial weights", () => {
    const mixer = createMixer({ domains: ["a", "b"], rule: { name: "static", weights: [0.25, 0.75] } });
    expect(averageWeights(mixer.initial)).toEqual(Float64Array.of(0.25, 0.75));
  });

  test("currentWeights is a copy", () => {
    const mixer = createMixer({ domains: ["a", "b"], rule: { name: "uniform" } });
    currentWeights(mixer.initial)[0] = 7;
    expect(currentWeights(mixer.initial)[0]).toBe(0.5);
  });

  test("a bad signal does not change the state", () => {
    fc.assert(
      fc.property(mixers, signal(6), (mixer, given) => {
        const k = mixer.domains.length;
        const { state } = drive(mixer, mixer.initial, 12);
        const before = JSON.stringify(state);
        const bad = {
          ...given,
          norms: given.norms,
          alignments: Array.from(given.alignments)
            .slice(0, k)
            .with(k - 1, NaN),
        };
        const error = errorOf(() =>
          update(mixer, state, { ...bad, norms: Array.from(given.norms).slice(0, k) }),
        );
        expect(error).toMatchObject({
          code: "numeric",
          message: expect.stringContaining(`"domain${k - 1}"`),
        });
        expect(JSON.stringify(state)).toBe(before);
      }),
    );
  });
});

test("a state that was changed by hand is refused, and names what does not fit", () => {
  const mixer = createMixer({ domains: ["a", "b"], rule: { name: "dga" } });
  const given = { alignments: [1, 2], standardErrors: [0.1, 0.1], tokens: [9, 9] };
  const { initial } = mixer;
  const refused = (change: object): string =>
    errorOf(() => update(mixer, { ...initial, rule: { ...initial.rule, ...change } }, given)).message;
  const memory = (change: (values: readonly number[]) => number[]): object => ({
    memory: Object.fromEntries(
      Object.entries(initial.rule.memory).map(([name, values]) => [name, change(values)]),
    ),
  });
  for (const [change, what] of [
    [{ weights: [2, 1] }, "weights that sum to 3, not to 1"],
    [{ weights: [NaN, 1] }, 'a weight of NaN for domain "a"'],
    [{ domains: ["b", "a"] }, "a state of other domains, or in another order"],
    [{ memory: {} }, "a memory with no vector"],
    [memory(() => []), "has 0 numbers"],
    [memory((values) => values.map(() => NaN)), "has NaN at 0"],
  ] as const) {
    expect(refused(change)).toMatch(/^update: the state of the rule "dga" cannot be used: /);
    expect(refused(change)).toContain(what);
  }
  for (const gone of ["weightSums", "steps"] as const) {
    const { [gone]: _, ...rest } = initial;
    expect(errorOf(() => advance(rest as MixerState)).message).toMatch(
      /^advance: an object is not the state/,
    );
  }
});

test("update refuses a name that no signal has, and suggests the one that was meant", () => {
  const mixer = createMixer({ domains: ["a", "b"], rule: { name: "dga", normalise: "raw" } });
  const signal = { alignments: [1, 2], targetNorm: 1 };
  for (const [name, hint] of [
    ["tokenz", /did you mean tokens\?/],
    ["alignment", /did you mean alignments\?/],
    ["x9", /there are alignments, /],
  ] as const)
    // prettier-ignore
    expect(errorOf(() => update(mixer, mixer.initial, { ...signal, [name]: [0, 0] }))).toMatchObject({
      code: "config",
      message: expect.stringMatching(hint) as unknown,
    });
  // What estimators return, whole.
  const whole = { ...signal, effectiveSizes: [1, 1], tied: undefined, tokens: [1, 1], losses: [1, 1] };
  expect(update(mixer, mixer.initial, whole)).toEqual(update(mixer, mixer.initial, signal));
});

test("dga refuses a limit on repetitions that it could not compute", () => {
  const sizes = [10, 20];
  for (const given of [{}, { sizes }, { tokens: 90 }])
    for (const normalise of ["tracked", "raw"] as const)
      expect(
        errorOf(() => createMixer({ domains: ["a", "b"], rule: { name: "dga", repetitions: 2, normalise, ...given } })).message, // prettier-ignore
      ).toMatch(/^dga: repetitions: a limit needs the tokens of each domain \(sizes\) and of the run/);
});

describe("restoreMixer", () => {
  test("refuses what a combinator remembers of its rule as it does that of a rule", () => {
    const around = createMixer({ domains: ["a", "b"], rule: { name: "doremi" }, combinators: [{ name: "floor", least: 0.1 }] }); // prettier-ignore
    const { initial } = around;
    for (const [memory, message] of [
      [{ weights: [7, -6] }, /weights does not lie on the simplex/],
      [{ updates: [-2.5] }, /updates is -2\.5, not a whole number of at least 0/],
    ] as const) {
      const rule = { ...initial.rule, memory: { ...initial.rule.memory, ...memory } };
      expect(errorOf(() => restoreMixer(around, { ...initial, rule }))).toMatchObject({
        code: "checkpoint",
        message: expect.stringMatching(message) as unknown,
      });
    }
    expect(restoreMixer(around, initial)).toEqual(initial);
  });

  test("a run that is saved and restored midway ends with the same bits", () => {
    fc.assert(
      fc.property(mixers, fc.nat(60), fc.nat(60), (mixer, first, more) => {
        const whole = drive(mixer, mixer.initial, first + more);
        const half = drive(mixer, mixer.initial, first).state;
        const resumed = drive(mixer, restoreMixer(mixer, saved(half)), first + more);
        expect(JSON.stringify(resumed.state)).toBe(JSON.stringify(whole.state));
        expect(resumed.sampled).toEqual(whole.sampled.slice(first));
      }),
    );
  });

  const mixer = createMixer({
    domains: ["wiki", "code"],
    rule: { name: "dga", normalise: "cosine" },
    updateEvery: 1,
  });
  const good = drive(mixer, mixer.initial, 5).state;
  const edit = (path: readonly string[], value: unknown): unknown => {
    const copy = saved(good) as Record<string, unknown>;
    let at = copy;
    for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
    const last = path[path.length - 1];
    if (value === undefined) delete at[last];
    else at[last] = value;
    return copy;
  };

  test.each([
    ["nothing", null, /is null, not an object/],
    ["a list", [], /is a list, not an object/],
    ["another version", edit(["version"], 2), /version is 2, not 1/],
    ["no rule", edit(["rule"], undefined), /rule is missing; it must be an object/],
    [
      "another rule",
      edit(["rule", "rule"], "doge"),
      /rule\.rule is "doge": the state belongs to that rule, not to "dga"/,
    ],
    ["no domains", edit(["rule", "domains"], undefined), /rule\.domains is missing/],
    ["another k", edit(["rule", "domains"], ["wiki", "code", "web"]), /rule\.domains has 3 items, not 2/],
    ["other domains", edit(["rule", "domains"], ["wiki", "web"]), /rule\.domains\.1 is "web", not "code"/],
    [
      "domains in another order",
      edit(["rule", "domains"], ["code", "wiki"]),
      /rule\.domains\.0 is "code", not "wiki"/,
    ],
    ["too few weights", edit(["rule", "weights"], [1]), /rule\.weights has 1 items, not 2/],
    [
      "a NaN, which JSON writes as null",
      edit(["rule", "weights"], [1, null]),
      /rule\.weights\.code is null, not a finite number/,
    ],
    [
      "weights off the simplex",
      edit(["rule", "weights"], [0.6, 0.6]),
      /rule\.weights does not lie on the simplex/,
    ],
    [
      "a negative weight",
      edit(["rule", "weights"], [1.5, -0.5]),
      /rule\.weights does not lie on the simplex/,
    ],
    ["no memory", edit(["rule", "memory"], undefined), /rule\.memory is missing/],
    [
      "no α",
      edit(["rule", "memory", "alpha"], undefined),
      /rule\.memory\.alpha is missing; it must be a list of 2/,
    ],
    ["α off the simplex", edit(["rule", "memory", "alpha"], [0, 0]), /alpha does not lie on the simplex/],
    [
      "memory of something else",
      edit(["rule", "memory", "losses"], [1, 2]),
      /rule\.memory\.losses is an unknown field; there are alpha/,
    ],
    ["no updates", edit(["rule", "updates"], undefined), /rule\.updates is missing/],
    ["steps that are no count", edit(["steps"], 1.5), /steps is 1\.5/],
    ["negative steps", edit(["steps"], -1), /steps is -1/],
    ["sums of other steps", edit(["steps"], 9), /weightSums that do not add up to the 9 steps/],
    ["a string for a number", edit(["weightSums"], ["1", 4]), /weightSums\.wiki is "1", not a finite number/],
  ])("refuses %s", (_, json, message) => {
    const error = errorOf(() => restoreMixer(mixer, json));
    expect(error.code).toBe("checkpoint");
    expect(error.message).toMatch(/^mixer state: /);
    expect(error.message).toMatch(message);
  });

  test("accepts rounding errors and refuses larger ones", () => {
    const five = { ...good, rule: { ...good.rule, weights: [0, 1] }, weightSums: [0, 5] };
    expect(restoreMixer(mixer, saved(five))).toEqual(five);
    for (const sign of [1, -1]) {
      expect(restoreMixer(mixer, { ...five, weightSums: [2, 3 + sign * 4.9e-9] }).weightSums[1]).not.toBe(3);
      expect(
        errorOf(() => restoreMixer(mixer, { ...five, weightSums: [2, 3 + sign * 5.1e-9] })).message,
      ).toBe("mixer state: has weightSums that do not add up to the 5 steps");
    }
    expect(errorOf(() => restoreMixer(mixer, { ...five, weightSums: [6, -1] })).message).toContain(
      "do not add up",
    );
    for (const bad of [2 ** 53, -1, "5", null, NaN]) {
      const message = (json: unknown): string => errorOf(() => restoreMixer(mixer, json)).message;
      expect(message({ ...five, steps: bad })).toMatch(/^mixer state: steps is /);
      expect(message({ ...five, rule: { ...five.rule, updates: bad } })).toMatch(
        /^mixer state: rule\.updates is /,
      );
    }
    expect(restoreMixer(mixer, { ...five, rule: { ...five.rule, updates: 0 } }).rule.updates).toBe(0);
  });

  test("accepts any memory of a rule that does not check it; of several unknown fields, the first is named", () => {
    const doge = createMixer({ domains: ["wiki", "code"], rule: { name: "doge" } });
    expect(restoreMixer(doge, saved(doge.initial))).toEqual(doge.initial);
    const memory = { b: [1], a: [2] };
    expect(
      errorOf(() => restoreMixer(doge, { ...doge.initial, rule: { ...doge.initial.rule, memory } })).message,
    ).toBe("mixer state: rule.memory.b is an unknown field; there are none");
    for (const bad of [Infinity, -Infinity, NaN])
      expect(errorOf(() => restoreMixer(mixer, { ...good, weightSums: [bad, 1] })).message).toBe(
        `mixer state: weightSums.wiki is ${bad}, not a finite number`,
      );
  });

  test("errors name numbers that belong to no domain by their index", () => {
    const other = createMixer({ domains: ["wiki", "code"], rule: { name: "ado" } });
    const memory = { ...other.initial.rule.memory, seen: [...new Array<number>(63).fill(0), "x"] };
    const json = { ...other.initial, rule: { ...other.initial.rule, memory } };
    expect(errorOf(() => restoreMixer(other, json)).message).toBe(
      'mixer state: rule.memory.seen.63 is "x", not a finite number',
    );
  });

  test("refuses or accepts any damage to one field, and throws only GradmixErrors", () => {
    const paths = [
      ["version"],
      ["rule"],
      ["rule", "rule"],
      ["rule", "domains"],
      ["rule", "weights"],
      ["rule", "updates"],
      ["rule", "memory"],
      ["rule", "memory", "alpha"],
      ["steps"],
      ["weightSums"],
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...paths),
        fc.oneof(fc.jsonValue(), fc.constant({ toString: null })),
        (path, value) => {
          let restored: MixerState;
          try {
            restored = restoreMixer(mixer, edit(path, value));
          } catch (error) {
            expect(error).toMatchObject({ code: "checkpoint" });
            return;
          }
          const next = update(mixer, restored, { alignments: [1, 0], norms: [1, 1], targetNorm: 1 });
          expect(Math.abs(sumOf(next.rule.weights) - 1)).toBeLessThanOrEqual(1e-9);
        },
      ),
    );
  });
});
