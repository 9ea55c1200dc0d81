/** What rules declare, pass to combinators, remember, and refuse: by complete tables. */
import {
  combinatorNames,
  type CombinatorOptions,
  combinators,
  combine,
  createMixer,
  createRule,
  normalisations,
  restoreMixer,
  type Rule,
  type RuleOptions,
  rules,
  type Signal,
  type SignalName,
  type Step,
} from "gradmix/dga";
import { names, signal } from "gradmix/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const abc = ["a", "b", "c"];

describe("the signals that a rule needs, and the one it steps on", () => {
  const target: SignalName[] = ["alignments", "norms", "targetNorm"];
  const adam: SignalName[] = ["preconditionedAlignments", "norms", "preconditionedTargetNorm"];
  const several = { name: "grape", targets: ["t"] } as const;
  test.each<[RuleOptions, SignalName[], SignalName | undefined]>([
    [{ name: "uniform" }, [], undefined],
    [{ name: "static", weights: [0.5, 0.3, 0.2] }, [], undefined],
    [{ name: "temperature", sizes: [1, 2, 3] }, [], undefined],
    [{ name: "importanceSampling", histogram: [1, 2, 3] }, [], undefined],
    [{ name: "dga" }, ["alignments", "standardErrors"], "alignments"],
    [{ name: "dga", normalise: "tracked" }, ["alignments", "standardErrors"], "alignments"],
    [{ name: "dga", normalise: "raw" }, ["alignments"], "alignments"],
    [{ name: "dga", normalise: "clipped" }, target, "alignments"],
    [{ name: "dga", normalise: "cosine" }, target, "alignments"],
    [{ name: "dga", normalise: "doge" }, ["alignments", "norms"], "alignments"],
    [{ name: "dga", normalise: "adam" }, adam, "preconditionedAlignments"],
    [{ name: "doge" }, ["gram"], "gram"],
    [{ name: "doge", towards: "target" }, ["alignments", "norms"], "alignments"],
    [several, ["targets", "norms"], "targets"],
    [{ ...several, normalise: "cosine" }, ["targets", "norms"], "targets"],
    [{ ...several, normalise: "raw" }, ["targets"], "targets"],
    [{ name: "rnb" }, ["gram"], undefined],
    [{ name: "doremi" }, ["losses", "referenceLosses"], "losses"],
    [{ name: "odm" }, ["losses"], undefined],
    [{ name: "ado" }, ["losses", "tokensSeen"], undefined],
  ])("%j", (options, needs, stepsOn) => {
    const rule = createRule(options);
    expect(rule.needs).toEqual(needs);
    expect(rule.stepsOn).toBe(stepsOn);
    // Combinators need the same signals; shrinkage also needs the errors, listed once.
    const around = combine(combine(rule, [{ name: "ema", beta: 0.5 }]), [{ name: "warmup", updates: 1 }]);
    expect(around.needs).toEqual(needs);
    expect(around.stepsOn).toBe(stepsOn);
    if (stepsOn === "alignments" || stepsOn === "preconditionedAlignments")
      expect(combine(rule, [{ name: "shrinkage" }, { name: "shrinkage" }]).needs).toEqual([
        ...needs.filter((name) => name !== "standardErrors"),
        "standardErrors",
      ]);
  });
});

describe("the step that a rule offers to combinators", () => {
  /** The one step of an update. */
  const stepOf = (rule: Rule, given: Signal, k = 3): Step => {
    const seen: Step[] = [];
    rule.update(rule.init(names(k)), given, (step) => {
      seen.push(step);
      return step;
    });
    expect(seen.length).toBe(1);
    return seen[0];
  };
  const targets = ["first", "second"];
  const stepping: [Rule, number][] = [
    ...normalisations.map((normalise): [Rule, number] => [
      rules.dga({ name: "dga", normalise, eta: 0.3 }),
      0.3,
    ]),
    [rules.doge({ name: "doge", eta: 0.3 }), 0.3],
    [rules.doge({ name: "doge", towards: "target" }), 0.01],
    ...(["raw", "clipped", "cosine"] as const).map((normalise): [Rule, number] => [
      rules.grape({ name: "grape", targets, normalise }),
      1.5,
    ]),
    [rules.doremi(), 1],
  ];
  test("has the rule's η, and NaN for domains that were not measured, which take no part", () => {
    fc.assert(
      fc.property(signal(3, { mild: true }), fc.subarray([0, 1, 2]), (given, on) => {
        const tokens = [0, 1, 2].map((i) => (on.includes(i) ? 4 : 0));
        for (const [rule, eta] of stepping) {
          const { among, direction, eta: own } = stepOf(rule, { ...given, tokens });
          expect(own).toBe(eta);
          expect(among ?? [true, true, true]).toEqual(tokens.map((n) => n > 0));
          expect(Array.from(direction, Number.isNaN)).toEqual(tokens.map((n) => n === 0));
        }
      }),
      { numRuns: 30 },
    );
  });
  test("scales standard errors like alignments, and gives null where it would divide by 0", () => {
    const given: Signal = {
      alignments: [1, 2, 3],
      preconditionedAlignments: [1, 2, 3],
      norms: [0, 2, 0.5],
      targetNorm: 4,
      preconditionedTargetNorm: 8,
    };
    const errors = (normalise: (typeof normalisations)[number], more: Signal = {}): unknown[] => {
      const { errorOf: scaled } = stepOf(rules.dga({ name: "dga", normalise }), { ...given, ...more });
      return [0, 1, 2].map((i) => scaled?.(i, 6));
    };
    expect(errors("raw")).toEqual([6, 6, 6]);
    expect(errors("clipped")).toEqual([6 / 4, 6 / 8, 6 / 4]);
    expect(errors("cosine")).toEqual([null, 6 / 8, 6 / 2]);
    expect(errors("adam")).toEqual([null, 6 / 16, 6 / 4]);
    expectNear(errors("doge") as number[], [7.2, 7.2, 7.2], 1e-15);
    expect(errors("doge", { norms: [0, 0, 0] })).toEqual([null, null, null]);
    for (const normalise of ["cosine", "adam"] as const)
      expect(errors(normalise, { targetNorm: 0, preconditionedTargetNorm: 0 })).toEqual([null, null, null]);
  });
});

describe("a saved memory", () => {
  const one = rules.grape({ name: "grape", targets: ["s"] });
  const two = rules.grape({ name: "grape", targets: ["s", "t"] });
  const raw = rules.dga({ name: "dga", normalise: "raw" });
  const tracked = rules.dga();
  const zeros = [0, 0, 0];
  const nothing = { alpha: [0.5, 0.25, 0.25], means: zeros, tokens: zeros, variances: zeros, noise: [0, 0] };
  const off = "does not lie on the simplex";
  const cases: [Rule, Record<string, number[]>, string | null][] = [
    [raw, { alpha: [0, 0.4, 0.6] }, null],
    [raw, { alpha: [0.2, 0.2, 0.6 + 0.9e-9] }, null],
    [raw, { alpha: [0.2, 0.2, 0.6 - 0.9e-9] }, null],
    [raw, { alpha: [0.2, 0.2, 0.6 + 1.5e-9] }, `alpha ${off}`],
    [raw, { alpha: [0.2, 0.2, 0.6 - 1.5e-9] }, `alpha ${off}`],
    [raw, { alpha: [1.5, -0.5, 0] }, `alpha ${off}`],
    [tracked, { ...nothing, alpha: [0, 0.4, 0.6] }, null],
    [tracked, { ...nothing, alpha: [1.5, -0.5, 0] }, `alpha ${off}`],
    [tracked, { ...nothing, means: [-1, 0, 1], tokens: [1, 0, 2], variances: [1, 0, 0.5] }, null],
    [tracked, { ...nothing, tokens: [0, -1, 0] }, "tokens has a number below 0"],
    [tracked, { ...nothing, variances: [0, 0, -1e-300] }, "variances has a number below 0"],
    [tracked, { ...nothing, noise: [-1, 1] }, "noise has a number below 0"],
    [tracked, { ...nothing, noise: [1, -1] }, "noise has a number below 0"],
    [one, { alpha: [0, 0, 1] }, null],
    [one, { alpha: [1.5, -0.5, 0] }, `alpha ${off}`],
    [two, { targets: [0, 1] }, null],
    [two, { targets: [0.5, 0.6] }, `targets ${off}`],
    [rules.doremi(), { excess: [0, -1, 2] }, null],
    [rules.doremi(), { excess: [0, -0.5, 0] }, "an excess loss is negative"],
    [rules.odm(), { known: [0, 1, 1], rewards: [0, -2, 3] }, null],
    [rules.odm(), { known: [0, 1, 0.5] }, "an entry of known is neither 0 nor 1"],
    [rules.ado(), { count: [64], prior: [0, 0, 1], credit: [0, 0, 1], average: [0, 0, 1] }, null],
    [rules.ado(), { count: [-1] }, "count is -1"],
    [rules.ado(), { count: [65] }, "count is 65"],
    [rules.ado(), { count: [0.5] }, "count is 0.5"],
    [rules.ado(), { prior: [0.5, -0.1, 0.6] }, "an entry of prior is negative"],
    [rules.ado(), { average: [0.5, -0.1, 0.6] }, "an entry of average is negative"],
    [rules.ado(), { credit: [0.5, -0.1, 0.6] }, "an entry of credit is negative"],
  ];
  test.each(cases.map(([rule, memory, fault]) => [rule.name, memory, fault, rule] as const))(
    "of %s: %j: %s",
    (_, changed, fault, inner) => {
      // Around a rule its memory is checked as well.
      const wrapped = Object.fromEntries(
        Object.entries(changed).map(([name, values]) => [`inner.${name}`, values]),
      );
      for (const [rule, values] of [
        [inner, changed],
        [combine(inner, [{ name: "ema", beta: 0.5 }]), wrapped],
      ] as const) {
        const mixer = createMixer({ domains: abc, rule });
        const { initial } = mixer;
        expect(restoreMixer(mixer, JSON.parse(JSON.stringify(initial)))).toEqual(initial);
        const memory = { ...initial.rule.memory, ...values };
        const json: unknown = { ...initial, rule: { ...initial.rule, memory } };
        if (fault === null) expect(restoreMixer(mixer, json).rule.memory).toEqual(memory);
        else
          expect(errorOf(() => restoreMixer(mixer, json))).toMatchObject({
            code: "checkpoint",
            message: `mixer state: rule.memory does not fit: ${fault}`,
          });
      }
    },
  );
});

test("the state of another rule is refused by the name of the first field that does not belong to it", () => {
  const inner = [
    rules.dga(),
    rules.dga({ name: "dga", normalise: "raw" }),
    rules.grape({ name: "grape", targets: ["t"], normalise: "raw" }),
    rules.doremi(),
    rules.odm(),
    rules.ado(),
  ];
  const [given] = fc.sample(signal(3), { numRuns: 1, seed: 1 });
  const full: Signal = { ...given, targets: [{ name: "t", alignments: [1, 2, 3], norm: 1, loss: 1 }] };
  const other = rules.uniform().init(abc);
  for (const rule of [...inner, ...inner.map((one) => combinators.ema(one, 0.5))]) {
    expect(() => rule.update(rule.init(abc), full)).not.toThrow();
    expect(errorOf(() => rule.update(other, full))).toMatchObject({
      code: "config",
      message: expect.stringMatching(/: the memory of the state has no "\w+"; pass `update` a state/),
    });
  }
});

describe("refusals and their messages", () => {
  const cosine = rules.dga({ name: "dga", normalise: "cosine" });
  const raw = rules.dga({ name: "dga", normalise: "raw" });
  const stay = "the weights stay as they are";
  const update = (rule: Rule, given: object) => () => rule.update(rule.init(abc), given);
  const make =
    (options: object, domains: unknown = abc) =>
    () =>
      createRule(options as RuleOptions).init(domains as string[]);
  const gram = [1, 0, 0, 0, 1, 0, 0, 0, 1];
  const given = { alignments: [1, 2, 3], norms: [1, 1, 1], targetNorm: 1 };
  const s = rules.grape({ name: "grape", targets: ["s"] });
  const own = { name: "s", alignments: [1, 2, 3], norm: 1, loss: 1 };
  const shrunk = combine(raw, [{ name: "shrinkage" }]);
  const falling = { losses: [1, 2, 3], tokensSeen: [1, 2, 3] };
  const many = names(21);

  test.each<[code: string, message: string, call: () => unknown]>([
    ["config", 'domains: "abc" does not fit; it must be a list of names', make({ name: "uniform" }, "abc")],
    [
      "config",
      "domains: a list does not fit; it must be a list of names",
      make({ name: "uniform" }, ["a", 1]),
    ],
    ["config", "domains: at least one is needed", make({ name: "uniform" }, [])],
    ["config", 'domains: two are called "b"', make({ name: "uniform" }, ["a", "b", "c", "b", "c"])],

    ["config", "dga: the signal has no alignments", update(raw, {})],
    ["config", "dga: the signal has no alignments", update(raw, { alignments: null })],
    ["config", 'dga: alignments is "123", not a list of numbers', update(raw, { alignments: "123" })],
    [
      "config",
      "dga: alignments is an object, not a list of numbers",
      update(raw, { alignments: new DataView(new ArrayBuffer(24)) }),
    ],
    [
      "config",
      "dga: alignments is an object, not a list of numbers",
      update(raw, { alignments: { length: 3 } }),
    ],
    ["config", "dga: 2 alignments for 3 domains", update(raw, { alignments: [1, 2] })],
    ["config", "dga: 4 alignments for 3 domains", update(raw, { alignments: [1, 2, 3, 4] })],
    [
      "numeric",
      `dga: alignments of domain "b" is Infinity; ${stay}`,
      update(raw, { alignments: [1, Infinity, NaN] }),
    ],
    ["numeric", `dga: alignments of domain "c" is "3"; ${stay}`, update(raw, { alignments: [1, 2, "3"] })],
    ["config", "dga: 2 tokens for 3 domains", update(raw, { alignments: [1, 2, 3], tokens: [1, 1] })],
    [
      "numeric",
      `dga: tokens of domain "a" is -1; ${stay}`,
      update(raw, { alignments: [1, 2, 3], tokens: [-1, 1, -2] }),
    ],
    ["numeric", `dga: norms of domain "a" is -1; ${stay}`, update(cosine, { ...given, norms: [-1, 1, -2] })],
    [
      "numeric",
      `ado: tokensSeen of domain "a" is -1; ${stay}`,
      update(rules.ado(), { ...falling, tokensSeen: [-1, -2, 3] }),
    ],
    // A count of the run must be valid even for domains that were not measured.
    [
      "numeric",
      `ado: tokensSeen of domain "b" is -2; ${stay}`,
      update(rules.ado(), { ...falling, tokensSeen: [1, -2, 3], tokens: [1, 0, 1] }),
    ],
    [
      "numeric",
      `dga: targetNorm, the norm of the target's gradient, is -1; ${stay}`,
      update(cosine, { ...given, targetNorm: -1 }),
    ],
    [
      "numeric",
      `dga: targetNorm, the norm of the target's gradient, is Infinity; ${stay}`,
      update(cosine, { ...given, targetNorm: Infinity }),
    ],
    [
      "numeric",
      `dga: targetNorm, the norm of the target's gradient, is "1"; ${stay}`,
      update(cosine, { ...given, targetNorm: "1" }),
    ],
    ["config", "dga: the signal has no targetNorm", update(cosine, { ...given, targetNorm: undefined })],

    ["config", "rnb: the signal has no gram", update(rules.rnb(), {})],
    ["config", "rnb: gram is 3, not a list of numbers", update(rules.rnb(), { gram: 3 })],
    ["config", "rnb: a Gram matrix of 3 numbers for 3 domains", update(rules.rnb(), { gram: [1, 2, 3] })],
    [
      "numeric",
      `rnb: gram of domains "b" and "b" is -1; ${stay}`,
      update(rules.rnb(), { gram: gram.with(4, -1) }),
    ],
    [
      "numeric",
      `rnb: gram of domains "a" and "c" is Infinity; ${stay}`,
      update(rules.rnb(), { gram: gram.with(2, Infinity) }),
    ],
    [
      "numeric",
      `rnb: gram of domains "c" and "b" is "0"; ${stay}`,
      update(rules.rnb(), { gram: (gram as unknown[]).with(7, "0") }),
    ],
    [
      "numeric",
      `rnb: gram of domains "a" and "c" is 0.5 and in the transposed entry 0.25; it must be symmetric; ${stay}`,
      update(rules.rnb(), { gram: gram.with(2, 0.5).with(6, 0.25) }),
    ],
    [
      "numeric",
      `rnb: gram of domains "b" and "c" is 0.25 and in the transposed entry 0.5; it must be symmetric; ${stay}`,
      update(rules.rnb(), { gram: gram.with(5, 0.25).with(7, 0.5) }),
    ],
    [
      "config",
      "target: 2 values for 3 domains",
      () => rules.rnb({ name: "rnb", target: [0.5, 0.5] }).init(abc),
    ],
    [
      "config",
      "target: they sum to 1.5, not to 1",
      () => rules.rnb({ name: "rnb", target: [0.5, 0.5, 0.5] }).init(abc),
    ],

    ["config", "shrinkage: the signal has no standardErrors", update(shrunk, { alignments: [1, 2, 3] })],
    [
      "config",
      "shrinkage: standardErrors is 3, not a list of numbers",
      update(shrunk, { alignments: [1, 2, 3], standardErrors: 3 }),
    ],
    [
      "numeric",
      `shrinkage: standardErrors of domain "b" is Infinity; ${stay}`,
      update(shrunk, { alignments: [1, 2, 3], standardErrors: [1, Infinity, 1] }),
    ],
    [
      "numeric",
      `shrinkage: standardErrors of domain "c" is -1; ${stay}`,
      update(shrunk, { alignments: [1, 2, 3], standardErrors: [0, null, -1] }),
    ],
    [
      "numeric",
      `shrinkage: standardErrors of domain "c" is "1"; ${stay}`,
      update(shrunk, { alignments: [1, 2, 3], standardErrors: [0, null, "1"] }),
    ],

    ["config", "grape: the signal has no targets", update(s, { norms: [1, 1, 1] })],
    ["config", "grape: the signal has no targets", update(s, { norms: [1, 1, 1], targets: null })],
    ["config", 'grape: "s" targets were measured, not 1', update(s, { norms: [1, 1, 1], targets: "s" })],
    ["config", "grape: 2 targets were measured, not 1", update(s, { norms: [1, 1, 1], targets: [own, own] })],
    [
      "config",
      'grape: target 1 is "x", not "s"',
      update(s, { norms: [1, 1, 1], targets: [{ ...own, name: "x" }] }),
    ],
    ["config", 'grape: target 1 is undefined, not "s"', update(s, { norms: [1, 1, 1], targets: [null] })],
    ["config", 'grape: target 1 is undefined, not "s"', update(s, { norms: [1, 1, 1], targets: [7] })],
    [
      "config",
      'grape: alignments with target "s" is undefined, not a list of numbers',
      update(s, { norms: [1, 1, 1], targets: [{ ...own, alignments: undefined }] }),
    ],
    [
      "numeric",
      `grape: alignments with target "s" of domain "a" is NaN; ${stay}`,
      update(s, { norms: [1, 1, 1], targets: [{ ...own, alignments: [NaN, 1, 1] }] }),
    ],
    ...[
      [0, 1],
      [-1, 1],
      [Infinity, 1],
      ["1", 1],
      [1, -1],
      [1, Infinity],
      [1, "1"],
    ].map(([loss, norm]): [string, string, () => unknown] => [
      "numeric",
      `grape: target "s" has a loss of ${JSON.stringify(loss) === "null" ? loss : JSON.stringify(loss)} and a gradient of norm ${JSON.stringify(norm) === "null" ? norm : JSON.stringify(norm)}; ${stay}`,
      update(s, { norms: [1, 1, 1], targets: [{ ...own, loss, norm }] }),
    ]),
    ...[["s", 1], [1, "s"], []].map((targets): [string, string, () => unknown] => [
      "config",
      "grape: targets: a list does not fit; it must be a list of at least one target name, without duplicates",
      make({ name: "grape", targets }),
    ]),
    [
      "config",
      "targetWeights: they sum to 1.5, not to 1",
      make({ name: "grape", targets: ["s", "t"], targetWeights: [1, 0.5] }),
    ],
    [
      "config",
      'targetWeights: there is no target "zzzz"; the targets are s, t',
      make({ name: "grape", targets: ["s", "t"], targetWeights: { zzzz: 1 } }),
    ],

    [
      "numeric",
      `ado: losses of domain "a" is -1, but ado fits curves to losses ≥ 0; ${stay}`,
      update(rules.ado(), { ...falling, losses: [-1, -2, 1] }),
    ],
    [
      "numeric",
      `ado: losses of domain "c" is -2, but ado fits curves to losses ≥ 0; ${stay}`,
      update(rules.ado(), { ...falling, losses: [0, 0, -2] }),
    ],
    [
      "config",
      "ado: floor: 0.5 does not fit; it must be at least 0 and less than 0.5",
      make({ name: "ado", floor: 0.5 }, ["a", "b"]),
    ],
    [
      "config",
      "dga: floor: 0.5 does not fit; it must be at least 0 and less than 0.5",
      make({ name: "dga", floor: 0.5 }, ["a", "b"]),
    ],

    ["config", 'start: there is no domain "zz"; there are 21', make({ name: "dga", start: { zz: 1 } }, many)],
    [
      "config",
      `start: there is no domain "zz"; the domains are ${many.slice(1).join(", ")}`,
      make({ name: "dga", start: { zz: 1 } }, many.slice(1)),
    ],
    [
      "config",
      'start: there is no domain "domain"; did you mean "domain0"?',
      make({ name: "dga", start: { domain: 1 } }, many),
    ],
    ["config", "start: 2 values for 3 domains", make({ name: "dga", start: [0.5, 0.5] })],
    ["config", "start: they sum to 0, not to 1", make({ name: "dga", start: [0, 0, 0] })],
    // A forgotten domain would have the weight 0 for the whole run.
    [
      "config",
      'start: there is no number for domain "b"; every domain needs one',
      make({ name: "dga", start: { a: 1 } }),
    ],
    [
      "config",
      'weights: there is no number for domain "c"; every domain needs one',
      make({ name: "static", weights: { a: 0.5, b: 0.5 } }),
    ],
    [
      "config",
      'target: there is no number for domain "a"; every domain needs one',
      make({ name: "rnb", target: { b: 0.5, c: 0.5 } }),
    ],
    [
      "config",
      'targetWeights: there is no number for target "t"; every target needs one',
      make({ name: "grape", targets: ["s", "t"], targetWeights: { s: 1 } }),
    ],
    [
      "config",
      'start: "b" has Infinity; weights are finite and ≥ 0',
      make({ name: "dga", start: [1, Infinity, -1] }),
    ],
    [
      "config",
      'sizes: there is no number for domain "b"; every domain needs one',
      make({ name: "temperature", sizes: { a: 1 } }),
    ],
    [
      "config",
      'sizes: "a" has Infinity; sizes are finite and positive',
      make({ name: "temperature", sizes: [Infinity, 0, 1] }),
    ],
    ["config", 'sizes: "b" has 0; sizes are finite and positive', make({ name: "ado", sizes: [1, 0, -1] })],
    [
      "config",
      'histogram: "a" has Infinity; counts are finite and ≥ 0',
      make({ name: "importanceSampling", histogram: [Infinity, -1, 1] }),
    ],
    [
      "config",
      "histogram: all counts are 0, so no domain could be drawn",
      make({ name: "importanceSampling", histogram: [0, 0, 0] }),
    ],
    [
      "config",
      'importanceSampling: there is no option "x"; its options are name, histogram',
      make({ name: "importanceSampling", histogram: [1, 0, 0], x: 1 }),
    ],
    ["config", 'uniform: there is no option "x"; its options are name', make({ name: "uniform", x: 1 })],
  ])("%s: %s", (code, message, call) => {
    expect(errorOf(call)).toMatchObject({ code, message });
  });

  test("numbers of domains that were not measured are ignored, and 0 is a measurement", () => {
    const k = 4;
    const rule = rules.rnb();
    const full = [4, 1, 2, 0, 1, 4, 2, 0, 2, 2, 4, 0, 0, 0, 0, 0];
    // The row and column of one that was not measured may hold anything.
    const junk = full.map((value, at) =>
      Math.floor(at / k) === 1 || at % k === 1 ? [NaN, -9, "x"][at % 3] : value,
    );
    const tokens = [1, 0, 1, 1];
    expect(rule.update(rule.init(names(k)), { gram: junk as number[], tokens })).toEqual(
      rule.update(rule.init(names(k)), { gram: full, tokens }),
    );
    const zero = cosine.update(cosine.init(abc), { alignments: [0, 0, 0], norms: [0, 0, 0], targetNorm: 0 });
    expectNear(zero.weights, [1 / 3, 1 / 3, 1 / 3], 1e-15);
    expect(() =>
      combine(raw, [{ name: "shrinkage" }]).update(shrunk.init(abc), {
        alignments: [1, 2, 3],
        standardErrors: [0, null, 0],
      }),
    ).not.toThrow();
  });

  test("the two halves of a Gram matrix may differ by at most a thousandth of the product of the norms", () => {
    const at = (difference: number) =>
      update(rules.rnb(), { gram: [4, 1, 0, 1 + difference, 9, 0, 0, 0, 1] });
    // Norms 2 and 3; the halves are compared by half.
    expect(at(0.0119)).not.toThrow();
    expect(at(-0.0119)).not.toThrow();
    for (const difference of [0.0121, -0.0121])
      expect(errorOf(at(difference)).message).toContain("it must be symmetric");
    // Entries whose product, and whose difference, no double holds.
    const huge = [1e308, -1e308, -1e308, 1e308].map((value) => value * 1.7);
    expect(() => rules.rnb().update(rules.rnb().init(["a", "b"]), { gram: huge })).not.toThrow();
    expect(
      errorOf(() => rules.rnb().update(rules.rnb().init(["a", "b"]), { gram: huge.with(1, 1.7e308) })).code,
    ).toBe("numeric");
  });
});

describe("combinators", () => {
  const options: { readonly [N in CombinatorOptions["name"]]: Extract<CombinatorOptions, { name: N }> } = {
    ema: { name: "ema", beta: 0.5 },
    floor: { name: "floor", least: 0.1 },
    ceiling: { name: "ceiling", most: 0.8 },
    tokenBudget: { name: "tokenBudget", budgets: [50, 0, 50], tokens: 100 },
    repetitionCap: { name: "repetitionCap", repetitions: 4, sizes: [20, 20, 20], tokens: 100 },
    warmup: { name: "warmup", updates: 2 },
    etaSchedule: { name: "etaSchedule", decay: "linear", updates: 4 },
    shrinkage: { name: "shrinkage" },
    guard: { name: "guard", limits: { "*": 1.02 } },
  };
  test("a guard also works around fixed weights", () => {
    expect(combine(rules.dga(), [options.guard]).name).toBe("guard(dga)");
    expect(combine(createRule({ name: "uniform" }), [options.guard]).needs).toEqual(["heldOutLosses"]);
  });
  test.each(Object.values(options).filter(({ name }) => name !== "guard"))(
    "$name is part of the name, and around fixed weights it needs no signal",
    (one) => {
      expect(combine(rules.dga(), [one]).name).toBe(`${one.name}(dga)`);
      const rule = combine(createRule({ name: "uniform" }), [one]);
      expect(rule.name).toBe(`${one.name}(uniform)`);
      expect(rule.needs).toEqual([]);
      const state = rule.init(abc);
      expect(rule.update(state, {})).toBe(state);
    },
  );
  test.each<[unknown, string]>([
    ...(
      [
        [null, "null has"],
        [undefined, "undefined has"],
        ["floor", '"floor" has'],
        [3, "3 has"],
        [[], "a list has"],
        [{}, "the options have"],
      ] as const
    ).map(([given, what]): [unknown, string] => [
      given,
      `${what} no name of a combinator; the combinators are ${combinatorNames.join(", ")}`,
    ]),
    [{ name: "ema" }, "ema: beta is missing"],
    [{ name: "floor" }, "floor: least is missing"],
    [{ name: "ceiling" }, "ceiling: most is missing"],
    [{ name: "warmup" }, "warmup: updates is missing"],
    [{ name: "tokenBudget", tokens: 1 }, "tokenBudget: budgets is missing"],
    [
      { name: "tokenBudget", budgets: [30, 0, 45], tokens: 100 },
      "tokenBudget: budgets: all domains together can supply only 0.75 of the run's tokens; train on fewer tokens, or allow more tokens of a domain",
    ],
    [
      { name: "repetitionCap", sizes: [20, 5, 5], repetitions: 2, tokens: 100 },
      "repetitionCap: sizes: all domains together can supply only 0.6 of the run's tokens; train on fewer tokens, or allow more repetitions",
    ],
    [{ name: "tokenBudget", budgets: [1, 1, 1] }, "tokenBudget: it needs tokens"],
    [
      { name: "tokenBudget", budgets: "x", tokens: 1 },
      'tokenBudget: budgets: "x" does not fit; it must be a list with a number per domain, or numbers by name',
    ],
    [
      { ...options.tokenBudget, budgets: [-1, NaN, 1] },
      'tokenBudget: budgets: "a" has -1; they are finite and ≥ 0',
    ],
    [
      { ...options.tokenBudget, budgets: [1, Infinity, NaN] },
      'tokenBudget: budgets: "b" has Infinity; they are finite and ≥ 0',
    ],
    [{ name: "repetitionCap", sizes: [1, 1, 1], tokens: 1 }, "repetitionCap: repetitions is missing"],
    [{ name: "repetitionCap", repetitions: 1, tokens: 1 }, "repetitionCap: it needs sizes"],
    [{ name: "repetitionCap", repetitions: 1, sizes: [1, 1, 1] }, "repetitionCap: it needs tokens"],
    [
      { ...options.repetitionCap, sizes: 3 },
      "repetitionCap: sizes: 3 does not fit; it must be a list with a number per domain, or numbers by name",
    ],
    [
      { ...options.repetitionCap, sizes: { a: 1, b: 1 } },
      'repetitionCap: sizes: there is no number for domain "c"; every domain needs one',
    ],
    [{ name: "etaSchedule", updates: 1 }, "etaSchedule: decay is missing"],
    [{ name: "etaSchedule", decay: "linear" }, "etaSchedule: updates is missing"],
    [{ name: "shrinkage", by: 1 }, 'shrinkage: there is no option "by"; it has none'],
    [{ name: "guard" }, "guard: limits is missing"],
    [{ name: "emma" }, 'there is no combinator "emma"; did you mean "ema"?'],
    [
      { name: "constructor" },
      `there is no combinator "constructor"; the combinators are ${combinatorNames.join(", ")}`,
    ],
  ])("%j is refused: %s", (given, message) => {
    const uniform = createRule({ name: "uniform" });
    const call = (): unknown => combine(uniform, [options.ema, given as CombinatorOptions]).init(abc);
    const error = errorOf(call);
    expect(error.code).toBe("config");
    // Faults that concern the domains are found once the domains are known.
    expect(error.message.replace(/^combinators\[1\]: /, "")).toBe(message);
  });
  test("check their options also if they are called directly", () => {
    for (const [updates, range] of [
      [-1, " of at least 0"],
      [0.5, " of at least 0"],
      [Infinity, " of at least 0"],
      [2 ** 53, `, at least 0 and at most ${Number.MAX_SAFE_INTEGER}`],
    ] as const)
      expect(errorOf(() => combinators.warmup(rules.dga(), updates))).toMatchObject({
        code: "config",
        message: `warmup: updates: ${updates} does not fit; it must be an integer${range}`,
      });
    const off = { tokens: 100 } as unknown as { tokens: number; budgets: number[] };
    expect(errorOf(() => combinators.tokenBudget(rules.dga(), off)).message).toBe(
      "tokenBudget: budgets is missing",
    );
    expect(errorOf(() => combinators.tokenBudget(rules.dga(), { budgets: [1], tokens: 0 })).message).toMatch(
      /^tokenBudget: tokens: 0 /,
    );
    const sizes = [1, 1, 1];
    for (const [name, bad] of [
      ["repetitions", 0],
      ["tokens", Infinity],
      ["sizes", null],
    ] as const)
      expect(
        errorOf(() =>
          combinators.repetitionCap(rules.dga(), { sizes, repetitions: 1, tokens: 1, [name]: bad }),
        ).message,
      ).toMatch(new RegExp(`^repetitionCap: ${name}: ${bad} `));
    expect(errorOf(() => combinators.etaSchedule(rules.dga(), 3 as never))).toMatchObject({
      code: "config",
      message: "etaSchedule: factor: 3 does not fit; it must be a function",
    });
    expect(errorOf(() => combinators.etaSchedule(rules.rnb(), () => 1)).message).toBe(
      'etaSchedule: the rule "rnb" has no step size η; leave the schedule out',
    );
    const message = (rule: Rule): string => errorOf(() => combine(rule, [options.shrinkage])).message;
    expect(message(rules.rnb())).toContain(
      'shrinkage: the rule "rnb" uses gram for its step; shrinkage works only around a rule that',
    );
    expect(message(rules.ado())).toContain(
      'shrinkage: the rule "ado" uses losses, tokensSeen for its step; shrinkage works',
    );
    for (const list of [{ name: "ema" }, null])
      expect(errorOf(() => combine(rules.dga(), list as never)).message).toMatch(
        /^combinators: .* it must be a list of options$/,
      );
  });
  test("errors of other code are rethrown unchanged", () => {
    const broken = { ...rules.dga(), get needs(): never { throw new TypeError("broken"); } }; // prettier-ignore
    expect(() => combine(broken, [options.ema])).toThrow(TypeError);
  });
});

test("with η = 0, smoothing has no effect either", () => {
  const start = [0.7, 0.2, 0.1];
  const given: Signal = { gram: [1, 0, 0, 0, 1, 0, 0, 0, 1], losses: [3, 2, 1], referenceLosses: [1, 1, 1] };
  for (const rule of [
    rules.doge({ name: "doge", eta: 0, smoothing: 0.5, start }),
    rules.doremi({ name: "doremi", eta: 0, smoothing: 0.5, start }),
  ])
    expect(rule.update(rule.init(abc), given).weights).toEqual(rule.init(abc).weights);
});

test('a guard whose limits have "*" refuses a domain of that name, which they cannot mean alone', () => {
  const guarded = (limits: Record<string, number>): Rule =>
    combinators.guard(rules.uniform({ name: "uniform" }), { limits });
  expect(errorOf(() => guarded({ "*": 1.02 }).init(["*", "b"]))).toMatchObject({
    code: "config",
    message:
      'guard: limits: "*" stands for all domains that are not named, and a domain is called so too; give the domain another name',
  });
  expect(guarded({ b: 1.02 }).init(["*", "b"]).weights).toEqual([0.5, 0.5]);
});

describe("numbers at the limits of doubles", () => {
  test("temperature: sizes whose powers overflow", () => {
    const { weights } = createRule({ name: "temperature", sizes: [1e200, 2e200], exponent: 3 }).init([
      "a",
      "b",
    ]);
    expectNear(weights, [1 / 9, 8 / 9], 1e-15);
    const tiny = createRule({ name: "temperature", sizes: [1e-200, 2e-200], exponent: 3 }).init(["a", "b"]);
    expectNear(tiny.weights, [1 / 9, 8 / 9], 1e-15);
    const none = createRule({ name: "temperature", sizes: [] });
    expect(errorOf(() => none.init([])).message).toBe("domains: at least one is needed");
  });
  test("grape: the rates of very small losses are bounded", () => {
    const rule = rules.grape({ name: "grape", targets: ["s", "t"], normalise: "raw" });
    const target = (name: string, alignments: number[]) => ({ name, alignments, norm: 1, loss: 1e-300 });
    const next = rule.update(rule.init(abc), {
      targets: [target("s", [1e300, 0, -1e300]), target("t", [-1e300, 0, 1e300])],
    });
    for (const values of [next.weights, ...Object.values(next.memory)])
      expect(values.every(Number.isFinite)).toBe(true);
  });
  test("odm: the rewards of extreme losses are bounded in both directions", () => {
    const rule = rules.odm({ name: "odm", decay: 0 });
    const state = rule.update(rule.init(abc), { losses: [1.7e308, -1.7e308, 1] });
    expect(state.memory["rewards"]).toEqual([1e300, -1e300, 3]);
  });
  test("ado: the floor is at most half of the equal share", () => {
    const least = (k: number): number =>
      Math.min(
        ...rules.ado({ name: "ado", start: [1, ...new Array<number>(k - 1).fill(0)] }).init(names(k)).weights,
      );
    expect(least(40)).toBe(0.01);
    expect(least(50)).toBe(0.01);
    expect(least(100)).toBe(1 / 200);
    expect(rules.ado({ name: "ado", floor: 1 }).init(["a"]).weights).toEqual([1]);
    expect(rules.dga({ name: "dga", floor: 1 }).init(["a"]).weights).toEqual([1]);
  });
  test("ado: points at one n, or losses whose squares overflow, give no falling curve", () => {
    const rule = rules.ado({ name: "ado", policyRate: 1, floor: 0, minPoints: 3 });
    const run = (of: (t: number) => Signal): readonly number[] => {
      let state = rule.init(abc);
      for (let t = 1; t <= 4; t++) state = rule.update(state, of(t));
      return state.weights;
    };
    expect(run((t) => ({ losses: [9 - t, 8 - t, 7 - 2 * t + 3], tokensSeen: [5, 5, 5] }))).toEqual(
      rule.init(abc).weights,
    );
    const huge = run((t) => ({ losses: [1e200 / t, 9 / t, 5], tokensSeen: [t, 0, 0] }));
    expectNear(huge, [0, 1, 0], 1e-12);
  });
  test("ado: a first token counts as a point, and so does a loss of 0", () => {
    const rule = rules.ado({ name: "ado", policyRate: 1, floor: 0, minPoints: 3 });
    let state = rule.init(abc);
    for (let t = 1; t <= 3; t++) state = rule.update(state, { losses: [3 / t, 1, 0], tokensSeen: [t, 0, 0] });
    expectNear(state.weights, [1, 0, 0], 1e-12);
  });
});
