/** Options of a trainer: missing ones, invalid ones, and combinations that cannot be trained. Nothing is made, so the model may be a dummy. */
import { type Dataset, rowsOf } from "gradmix/data";
import { createBases, createMixer, estimatorNames, type RuleOptions, type TrainerOptions } from "gradmix/dga";
import { GradmixError } from "gradmix";
import type { Model } from "gradmix/nn";
import { describe, expect, test } from "vitest";
import { alignmentDefaults, type AlignmentOptions } from "#dist/dga/alignment-options.js";
import { checkTrainer, resolveAlignment } from "#dist/dga/trainer-options.js";
import { codeOf } from "../errors.ts";
import { language, time, windows } from "./languages.ts";

const names = ["a", "b"];
const sources = names.map((name, i) => windows(name, [language(i + 1, 100)]));
const [source] = sources;
const pretend = { parameters: {}, losses() {} } as unknown as Model;
const bases = createBases({ a: [0.5, 0.5], b: [0, 1] }, names);
const good: TrainerOptions = {
  model: pretend,
  mixer: createMixer({ domains: names, rule: { name: "dga", normalise: "raw" } }),
  domains: sources,
  target: source,
  batch: 1,
  schedule: () => 0.1,
  seed: 0,
};
const told = (change: object): string => codeOf(() => checkTrainer({ ...good, ...change }));
const without = (of: object, name: string): object =>
  Object.fromEntries(Object.entries(of).filter(([key]) => key !== name));

test("options that are left out have their documented defaults", () => {
  expect(alignmentDefaults).toEqual({
    estimator: "segmented",
    measureEvery: 2,
    probes: 0,
    domainExamples: 4,
    targetExamples: 8,
    refreshEvery: 10,
    blockShare: 1,
    bases: "shared",
  });
});

test("some defaults depend on the mixer: the target's examples per step stay the same, and a rule's schedule comes first", () => {
  const scheduled = { updateEvery: 5, measureEvery: 1 };
  const resolved = (
    options: AlignmentOptions | undefined,
    updateEvery: number,
    rule: object = {},
  ): number[] => {
    const mixer = createMixer({ domains: names, rule: { name: "dga", prior: [1, 1] }, updateEvery });
    const found = resolveAlignment(options, { ...mixer, rule: { ...mixer.rule, ...rule } });
    return [found.targetExamples, found.measureEvery];
  };
  const targetExamples = [1, 2, 3, 5, 9, 10, 40].map((every) => resolved({}, every)[0]);
  expect(targetExamples).toEqual([1, 2, 2, 4, 7, 8, 8]);
  // A refresh between updates also computes the gradient.
  expect(resolved({ refreshEvery: 5 }, 40)).toEqual([4, 2]);
  expect(resolved({ refreshEvery: 20 }, 40)).toEqual([8, 2]);
  expect(resolved(undefined, 5, { schedule: scheduled })).toEqual([4, 1]);
  expect(resolved({ targetExamples: 6, measureEvery: 3 }, 5, { schedule: scheduled })).toEqual([6, 3]);
  const probesOf = (options: AlignmentOptions, rule: RuleOptions, updateEvery = 10): number =>
    resolveAlignment(options, createMixer({ domains: names, rule, updateEvery })).probes;
  expect([1, 2, 3, 5, 9, 100].map((every) => probesOf({}, { name: "dga", prior: [1, 1] }, every))).toEqual([
    1, 1, 1, 2, 4, 4,
  ]);
  expect(probesOf({ probes: 2 }, { name: "dga", prior: [1, 1] }, 1)).toBe(2);
  // A rule of one's own says how often its own number is meant.
  const mixer = createMixer({ domains: names, rule: { name: "dga", prior: [1, 1] }, updateEvery: 5 });
  const own = { ...mixer.rule, schedule: { updateEvery: 5, probes: 7 } };
  expect(resolveAlignment({}, { ...mixer, rule: own }).probes).toBe(7);
  expect(resolveAlignment({}, { ...mixer, updateEvery: 2, rule: own }).probes).toBe(3);
  expect(probesOf({}, { name: "dga" }, 1)).toBe(0);
  expect(probesOf({}, { name: "dga", prior: [1, 1] })).toBe(4);
  expect(probesOf({ probes: 2 }, { name: "dga", prior: [1, 1] })).toBe(2);
  for (const rule of [{}, { prior: [1, 1], normalise: "raw" }] as const)
    expect(probesOf({}, { name: "dga", ...rule })).toBe(0);
  // Around a prior, the steps align the head only; a batch, and other forms of the rule, all parameters.
  const shareOf = (options: AlignmentOptions, rule: RuleOptions): number =>
    resolveAlignment(options, createMixer({ domains: names, rule })).blockShare;
  const around = { name: "dga", prior: [1, 1] } as const;
  expect(shareOf({}, around)).toBe(0);
  expect(shareOf({ blockShare: 0.5 }, around)).toBe(0.5);
  expect(shareOf({ from: "batch" }, around)).toBe(1);
  expect(shareOf({ from: "batch", blockShare: 0.5 }, around)).toBe(0.5);
  for (const rule of [{ name: "dga" }, { ...around, normalise: "raw" }, { name: "doge" }] as const)
    expect(shareOf({}, rule)).toBe(1);
  const whole = { ...mixer.rule, schedule: { blockShare: 0.25 } };
  expect(resolveAlignment({}, { ...mixer, rule: whole }).blockShare).toBe(0.25);
  // A separate batch keeps its size.
  for (const options of [{ from: "batch" }, { domainExamples: 2 }] as const)
    expect(resolved(options, 1)).toEqual([8, 2]);
});

test("every option is accepted at the limits of its range", () => {
  const fine: object[] = [
    {},
    {
      targets: new Map([["t", source]]),
      reference: pretend,
      bases,
      sampling: "multinomial",
      lossScale: null,
    },
    { targets: new Map(), sampling: "systematic", lossScale: {}, optimizer: () => null, alignment: {} },
    { target: null, mixer: createMixer({ domains: names, rule: { name: "uniform" } }) },
    { batch: 1000, seed: Number.MAX_SAFE_INTEGER },
    ...estimatorNames.map((estimator) => ({ alignment: { estimator } })),
    { alignment: { domainExamples: 1, targetExamples: 1, refreshEvery: 1, parameters: () => true } },
    { alignment: { from: "batch", bases: "direct" } },
    { alignment: { from: "step", bases: "shared" } },
    { alignment: { from: "step", probes: 0 }, bases },
    { alignment: { probes: 1000 } },
    { alignment: { blockShare: 0 } },
    { alignment: { blockShare: 1 } },
    { alignment: { from: "step", parameters: () => true } },
  ];
  for (const change of fine) expect(told(change), JSON.stringify(change)).toBe("no error");
});

describe("an option is refused by name", () => {
  test("that is missing", () => {
    for (const name of Object.keys(good))
      expect(codeOf(() => checkTrainer(without(good, name) as TrainerOptions))).toBe(
        `config: createTrainer: ${name} is missing`,
      );
    expect(told({ domains: [], mixer: { ...good.mixer, domains: [] } })).toBe(
      "config: createTrainer: at least one domain is needed",
    );
  });

  /** Each without one of its parts. */
  const parts = (whole: object, needed: readonly string[]): unknown[] => [
    null,
    5,
    "x",
    () => {},
    ...needed.map((name) => without(whole, name)),
  ];
  const mixerParts = ["rule", "domains", "updateEvery", "initial"];
  const datasetParts = ["name", "count", "tokensOf", "batchOf"];
  const wrong: Readonly<Record<string, readonly unknown[]>> = {
    model: parts(pretend, ["parameters", "losses"]),
    reference: parts(pretend, ["parameters", "losses"]),
    mixer: parts(good.mixer, mixerParts),
    bases: parts(bases, ["names", "domains", "offsets"]),
    target: parts(source, datasetParts).slice(1),
    domains: [
      null,
      source,
      new Map(),
      ...parts(source, datasetParts).flatMap((one) => [[one], [source, one], [one, source]]),
    ],
    targets: [
      null,
      [],
      { t: source },
      ...parts(source, datasetParts).flatMap((one) => [
        new Map([["t", one]]),
        new Map([
          ["s", source as unknown],
          ["t", one],
        ]),
      ]),
    ],
    batch: [0, -1, 1.5, "1", Infinity, null],
    seed: [-1, 0.5, 2 ** 53, "1", null],
    schedule: [0.1, null, {}],
    optimizer: [{}, null, "adamw"],
    alignment: [null, 5, () => {}],
    lossScale: [5, "on", () => {}],
    sampling: ["random", null, 1],
    momentum: [0.9],
  };
  test.each(Object.keys(wrong))("%s", (name) => {
    for (const value of wrong[name]) {
      const message = told({ [name]: value });
      expect(message, `${name}: ${String(value)}`).toMatch(/^config: createTrainer: /);
      expect(message).toContain(name);
      // Not one that it happens not to fit together with.
      expect(message).toMatch(
        /does not fit; it must be|it has no \w+; it must be|is not known|there is no option/,
      );
    }
  });

  const alignments: Readonly<Record<string, readonly unknown[]>> = {
    estimator: ["exact", null],
    from: ["steps", null],
    bases: ["both", null],
    domainExamples: [0, 0.5],
    targetExamples: [0, 0.5],
    refreshEvery: [0, 0.5],
    parameters: ["head", null],
    examples: [4],
  };
  test.each(Object.keys(alignments))("alignment: %s", (name) => {
    for (const value of alignments[name])
      expect(told({ alignment: { [name]: value } })).toMatch(
        name === "examples"
          ? /^config: createTrainer: alignment: there is no option "examples"/
          : new RegExp(`^config: createTrainer: alignment: ${name}: `),
      );
  });

  test("held-out sets that are all null", () => {
    expect(told({ heldOut: { sets: [null, null] } })).toBe(
      "config: createTrainer: heldOut: every set is null, so nothing would be measured; give the examples of one domain or more",
    );
    expect(told({ heldOut: { sets: [null, source] } })).toBe("no error");
  });

  test("that does not fit the rule", () => {
    expect(told({ target: null })).toMatch(/^config: rule dga: .*give a target$/);
  });
});

describe("the order of the domains", () => {
  const others = ["x", "y", "z"];
  const three = createMixer({ domains: others, rule: { name: "uniform" } });
  const inOrder = (...given: string[]): string =>
    told({ mixer: three, target: null, domains: given.map((name) => windows(name, [language(1, 100)])) });

  test("is the mixer's; one that gives a domain the weight of another is refused", () => {
    expect(inOrder("x", "z", "y")).toBe(
      'config: createTrainer: domains[1] is the text of "z", but the mixer\'s domain 1 is "y"; give the domains in the order of the mixer: "x", "y", "z"',
    );
    expect(inOrder("other", "x", "z")).toMatch(/domains\[1\] is the text of "x"/);
    expect(told({ bases, mixer: createMixer({ domains: ["a", "b"], rule: { name: "uniform" } }), domains: sources.toReversed() })).toMatch(/domains\[0\] is the text of "b"/); // prettier-ignore
  });

  test("is not known from other names, nor from one text that is several domains", () => {
    for (const given of [
      ["1", "2", "3"],
      ["x", "2", "z"],
      ["x", "x", "x"],
    ])
      // prettier-ignore
      expect(inOrder(...given)).toBe("no error");
  });
});

describe("domains of one batch", () => {
  const rows = (name: string, width: number, count = 2): Dataset<never> =>
    rowsOf(name, {
      inputs: new Float32Array(width * count),
      width,
      targets: new Int32Array(count),
    }) as unknown as Dataset<never>;
  const failing = (name: string, error: Error, count = 1): Dataset<never> => ({
    ...rows(name, 2),
    count,
    batchOf() {
      throw error;
    },
  });
  /** A dataset with a single example, which fails for any other index. */
  const lone = (name: string): Dataset<never> => {
    const one = rows(name, 2, 1);
    return {
      ...one,
      batchOf(indices) {
        expect([...indices]).toEqual([0]);
        return one.batchOf(indices);
      },
    };
  };
  const third = createMixer({ domains: ["1", "2", "3"], rule: { name: "uniform" } });
  const together = (...domains: Dataset<never>[]): string => told({ domains, target: null, mixer: third });

  test("domains that cannot be joined are named; other errors are rethrown", () => {
    expect(together(lone("x"), lone("y"), lone("z"))).toBe("no error");
    for (const domains of [
      [rows("x", 2), rows("y", 2), rows("z", 3)],
      [rows("x", 2), rows("z", 3), rows("y", 2)],
    ])
      expect(together(...domains)).toBe(
        'data: "x" and "z" cannot be drawn into one batch: batches 0 and 1 do not go together: inputs is 2 numbers per example in the one and 3 in the other',
      );
    expect(together(rows("x", 2), rows("y", 2), failing("z", new RangeError("disk")))).toBe(
      "RangeError: disk",
    );
    // A domain without examples is refused when it is drawn from, and is not compared here.
    for (const empty of [0, 1, 2]) {
      const domains = [rows("x", 2), rows("y", 2), rows("z", 2)];
      domains[empty] = failing("empty", new RangeError("empty"), 0);
      expect(together(...domains)).toBe("no error");
      const other = (empty + 1) % 3;
      domains[other] = rows("wide", 3);
      expect(together(...domains)).toMatch(/^data: ".*" and ".*" cannot be drawn into one batch/);
    }
    const short = windows("short", [language(1, 90)]);
    expect(told({ domains: [source, { ...short, time: 5 }] })).toMatch(
      /^data: "a" has windows of 16 tokens, "short" of 5;/,
    );
  });

  test("a target or held-out examples of another kind than the domains' are refused by name; windows may differ in length", () => {
    const domains = [rows("x", 2), rows("y", 2), rows("z", 2)];
    const one = (change: object): string => told({ domains, target: null, mixer: third, ...change });
    const integers = {
      ...rows("whole", 2),
      batchOf: () => ({ inputs: new Int32Array(2), width: 2, tokens: [1] }),
    };
    const more = {
      ...rows("more", 2),
      batchOf: () => ({
        inputs: new Float32Array(2),
        width: 2,
        targets: new Int32Array(1),
        more: 1,
        tokens: [1],
      }),
    };
    for (const [wrong, why] of [
      [rows("wide", 3), "inputs is 2 numbers per example in the one and 3 in the other"],
      [integers, "inputs is Float32Array in the one and Int32Array in the other"],
      [more, "more is undefined in the one and 1 in the other"],
      [{ ...rows("none", 2), batchOf: () => 5 }, ""],
    ] as const) {
      const named = `${wrong.name}") does not fit the domain "x": `;
      const targets = new Map([["fine", rows("t", 2)], ["u", wrong]]); // prettier-ignore
      for (const [change, what] of [
        [{ target: wrong }, "the target"],
        [{ targets }, 'the target "u"'],
        [{ heldOut: { sets: [null, rows("h", 2), wrong] } }, 'the held-out set of "3"'],
      ] as const) {
        expect(one(change)).toContain(`data: createTrainer: ${what} ("${named}`);
        expect(one(change)).toContain(why);
      }
    }
    expect(one({ target: failing("empty", new RangeError("empty"), 0) })).toBe("no error");
    expect(one({ target: failing("t", new RangeError("disk")) })).toBe("RangeError: disk");
    const long = windows("long", [language(1, 90)], 2 * time);
    expect(told({ target: long, heldOut: { sets: [long, null] } })).toBe("no error");
    expect(told({ target: rows("rows", 2) })).toMatch(
      /^data: createTrainer: the target \("rows"\) does not fit the domain "a"/,
    );
  });

  test("the model checks all sources, the reference the domains; errors name which", () => {
    const asked: string[] = [];
    const asking = (
      who: string,
      refuses?: string,
      error: Error = new GradmixError("shape", "too wide"),
    ): Model => ({
      ...pretend,
      check({ name }) {
        asked.push(`${who} ${name}`);
        if (name === refuses) throw error;
      },
    });
    const extra = {
      targets: new Map([["t", { ...source, name: "other" }]]),
      target: { ...source, name: "target" },
    };
    expect(told({ ...extra, model: asking("model"), reference: asking("reference") })).toBe("no error");
    const everything = ["model a", "model b", "model target", "model other"];
    expect(asked).toEqual([...everything, "reference a", "reference b"]);
    for (const name of ["a", "b", "target", "other"])
      expect(told({ ...extra, model: asking("model", name) })).toBe("shape: too wide");
    expect(told({ reference: asking("reference", "b") })).toBe("shape: reference: too wide");
    expect(told({ reference: asking("reference", "b", new RangeError("disk")) })).toBe("RangeError: disk");
  });
});
