/** checkRule accepts rules that keep the invariants, and catches each way to break one, by its name. */
import {
  exponentiatedGradient,
  initialState,
  measuredDomains,
  mirrorStep,
  movingAverage,
  need,
  normalise,
  type Rule,
  rules,
  type RuleState,
  uniformWeights,
  within,
} from "gradmix/dga";
import {
  checkRule,
  type CheckRuleOptions,
  type Knobs,
  type MakeRule,
  type Replay,
  vertex,
  nearlyDegenerate,
} from "gradmix/testing";
import { GradmixError } from "gradmix";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";

/** Numbers that belong to names, so that they follow them through any order. */
const number = (name: string): number => Number(name.replace("domain", "")) + 1;
const byName = (domains: readonly string[]): Record<string, number> =>
  Object.fromEntries(domains.map((name) => [name, number(name)]));

/** Invariants that need no promise. */
const always = ["stays on the simplex", "its state survives JSON", "one domain has weight 1"];
const ofUpdates = [
  ...always,
  "changes no state and none of its signals",
  "refuses what is not finite",
  "permuting the domains permutes the weights",
  "keeps the support",
  "stays on the simplex over a long run",
];

describe("the rules of this package", () => {
  test("uniform", () => {
    expect(checkRule(() => rules.uniform())).toEqual(expect.arrayContaining(always));
  });
  test("static and importanceSampling", () => {
    const shares: MakeRule = (domains) => {
      const weights = normalise(Object.values(byName(domains)));
      return rules.static({
        name: "static",
        weights: Object.fromEntries(domains.map((name, i) => [name, weights[i]])),
      });
    };
    expect(checkRule(shares, { promises: { splits: false } })).toEqual(expect.arrayContaining(always));
    const histogram: MakeRule = (domains) =>
      rules.importanceSampling({ name: "importanceSampling", histogram: byName(domains) });
    expect(checkRule(histogram, { promises: { splits: false } })).toEqual(expect.arrayContaining(always));
  });
  // test/dga/every-rule.test.ts runs all of them.
  test("dga has every invariant that any rule can have", () => {
    const done = checkRule((_, knobs) => rules.dga({ name: "dga", normalise: "raw", ...knobs }), {
      knobs: ["eta", "beta", "start"],
      promises: { mirror: true },
      longRun: 500,
    });
    expect(done).toEqual(expect.arrayContaining(ofUpdates));
    expect(done.length).toBe(24);
  });
  test("dga with a floor", () => {
    const make: MakeRule = (_, knobs) =>
      rules.dga({ name: "dga", normalise: "cosine", floor: 0.05, ...knobs });
    expect(
      checkRule(make, { promises: { floor: 0.05 }, knobs: ["eta", "beta", "start"], longRun: 500 }),
    ).toEqual(expect.arrayContaining(ofUpdates));
  });
});

/** Algorithm 1 with raw alignments, to break. */
const algorithm = (
  change: {
    step?: (weights: readonly number[], a: Float64Array, eta: number) => ArrayLike<number>;
    average?: typeof movingAverage;
    /** The weights that the step starts from: what it had without the average, or what was sampled with. */
    from?: "alpha" | "weights";
    update?: Rule["update"];
  },
  { eta = 1, beta = 0.3 }: Knobs = {},
): Rule => ({
  name: "mine",
  needs: ["alignments"],
  init: (domains) => {
    const weights = Array.from(uniformWeights(domains.length));
    return { ...initialState("mine", domains, weights), memory: { alpha: weights } };
  },
  update:
    change.update ??
    ((state, signal, changeStep) => {
      const direction = need("mine", state, signal, "alignments");
      const among = measuredDomains("mine", state, signal);
      const from = change.from === "weights" ? state.weights : state.memory["alpha"];
      const step = { eta, direction, among };
      const alpha = Array.from(
        change.step === undefined
          ? mirrorStep(from, step, changeStep)
          : within(from, among, (part, _, indices) =>
              Float64Array.from(
                change.step?.(
                  [...part],
                  Float64Array.from(indices, (i) => direction[i]),
                  eta,
                ) ?? [],
              ),
            ),
      );
      const weights = (change.average ?? movingAverage)(state.weights, alpha, beta);
      return { ...state, weights: Array.from(weights), updates: state.updates + 1, memory: { alpha } };
    }),
});

const normalised = (values: Float64Array): Float64Array => {
  const sum = values.reduce((s, x) => s + x, 0);
  return values.map((x) => x / sum);
};

/** The report of a rule that must not pass: a line per invariant that it breaks. */
function brokenBy(make: MakeRule, options: CheckRuleOptions = {}): string {
  try {
    checkRule(make, options);
  } catch (error) {
    if (error instanceof GradmixError && error.code === "numeric") return error.message;
    throw error;
  }
  throw new Error("the rule passed");
}

// The test of a slow drift has the whole long run.
const all: CheckRuleOptions = {
  longRun: 500,
  numRuns: 50,
  knobs: ["eta", "beta"],
  promises: { mirror: true },
};
const good = algorithm({});

describe("a broken rule is caught", () => {
  test("no invariant is reported if nothing is broken", () => {
    expect(checkRule((_, knobs) => algorithm({}, knobs), all).length).toBe(20);
  });

  test("nor for the formula as the documentation prints it, which rounds at η = 0", () => {
    const step: Parameters<typeof algorithm>[0]["step"] = (w, a, eta) => {
      const top = Math.max(...a);
      const scaled = w.map((x, i) => Math.max(1e-300, x * Math.exp(eta * (a[i] - top))));
      const sum = scaled.reduce((s, x) => s + x, 0);
      return scaled.map((x) => x / sum);
    };
    expect(checkRule((_, knobs) => algorithm({ step }, knobs), all).length).toBe(20);
  });

  test("every invariant that it breaks is reported, with the signals that the rule needs and no others", () => {
    const report = brokenBy(
      (_, knobs) => algorithm({ step: (w, a, eta) => exponentiatedGradient(w, a, -eta) }, knobs),
      all,
    );
    const lines = report.replace(/^rule "mine" breaks 5 of 20 invariants: /, "").split("\n");
    expect(lines.map((line) => line.slice(1, 5))).toEqual(["mono", "mirr", "clos", "tele", "regr"]);
    for (const line of lines) {
      expect(line).toContain('"alignments":[');
      expect(line).not.toMatch(/norms|losses|gram|targets/);
      expect(line).toMatch(/\{ replay: \{"invariant":"[^"]+","seed":1,"path":"\d+"\} \}$/);
    }
  });

  /** Mirror ascent on the losses, without knobs, and with one thing changed. */
  const plain = (change: Partial<Rule>): Rule => ({
    name: "plain",
    needs: ["losses"],
    stepsOn: "losses",
    init: (domains) =>
      initialState("plain", domains, uniformWeights(domains.length), { seen: domains.map(() => 0) }),
    update(state, given, changeStep) {
      const direction = need("plain", state, given, "losses");
      const among = measuredDomains("plain", state, given);
      const weights = Array.from(mirrorStep(state.weights, { eta: 0.1, direction, among }, changeStep));
      return { ...state, weights, updates: state.updates + 1 };
    },
    ...change,
  });
  const after =
    (change: (next: RuleState) => object): Rule["update"] =>
    (...given) =>
      change(plain({}).update(...given)) as RuleState;

  test("a rule without knobs keeps them all", () => {
    expect(checkRule(() => plain({}), { longRun: 100 })).toContain("with a step of η = 0 the weights stay");
  });

  const taken = /"a mixer takes its states, counts its updates and restores them"/;
  test.each<[string, Partial<Rule>, RegExp]>([
    ["updates that are not counted", { update: after((s) => ({ ...s, updates: s.updates - 1 })) }, taken],
    ["updates that are counted twice", { update: after((s) => ({ ...s, updates: s.updates + 1 })) }, taken],
    ["a state with another rule's name", { update: after((s) => ({ ...s, rule: "other" })) }, taken],
    [
      "an initial state with another rule's name",
      { init: (domains) => initialState("other", domains, uniformWeights(domains.length)) },
      taken,
    ],
    ["a vector that is forgotten", { update: after((s) => ({ ...s, memory: {} })) }, taken],
    [
      "a vector that grows",
      { update: after((s) => ({ ...s, memory: { seen: [...s.memory["seen"], 1] } })) },
      taken,
    ],
    ["a member that is not saved", { update: after((s) => ({ ...s, hidden: [1] })) }, taken],
    ["a memory that it refuses itself", { memoryFault: () => "is never right" }, /"a mixer takes|"its state/],
    ["a schedule with a typing mistake", { schedule: { updateEvry: 5 } as object }, taken],
    ["a schedule out of range", { schedule: { updateEvery: 0 } }, taken],
    [
      "an initial state by chance",
      {
        init: (domains) =>
          initialState("plain", domains, uniformWeights(domains.length), { seen: [Math.random()] }),
      },
      /"its state survives JSON": a second initial state differs/,
    ],
    [
      "a change of the step that is ignored",
      { update: (state, given) => plain({}).update(state, given) },
      /"with a step of η = 0 the weights stay"/,
    ],
    [
      "a change of the step that is called and ignored",
      {
        update(state, given, change) {
          plain({}).update(state, given, change);
          return plain({}).update(state, given);
        },
      },
      /"with a step of η = 0 the weights stay"/,
    ],
  ])("also without knobs: %s", (_, change, invariant) => {
    expect(brokenBy(() => plain(change), { longRun: 100 })).toMatch(invariant);
  });

  test("a single case can be run again from the printed line", () => {
    const make: MakeRule = (_, knobs) => algorithm({ step: (w, a) => exponentiatedGradient(w, a, 1) }, knobs);
    const lines = brokenBy(make, { ...all, seed: 77 }).split("\n");
    expect(lines.length).toBeGreaterThan(1);
    for (const line of lines) {
      const replay = JSON.parse(/replay: (\{.*\}) \}$/.exec(line)?.[1] ?? "") as Replay;
      expect(replay.seed).toBe(77);
      const again = brokenBy(make, { ...all, replay });
      expect(again).toBe(
        `rule "mine" breaks 1 of 1 invariants: ${line.slice(line.indexOf(`"${replay.invariant}`))}`,
      );
    }
  });

  test.each<[string, unknown, RegExp]>([
    ["an option", { knob: ["eta"] }, /there is no option "knob"; did you mean "knobs"\?/],
    ["a knob", { knobs: ["etta"] }, /^checkRule: knobs: a list does not fit/],
    [
      "a promise",
      { promises: { miror: true } },
      /^checkRule: promises: there is no option "miror"; did you mean "mirror"\?/,
    ],
    ["a value", { promises: { mirror: "yes" } }, /^checkRule: promises: mirror: "yes"/],
    [
      "a range",
      { domains: { least: 4, most: 3 } },
      /^checkRule: domains: most: 3 does not fit; it must be an integer of at least 4/,
    ],
    ["runs", { numRuns: 0 }, /^checkRule: numRuns: 0/],
    [
      "a replay",
      { replay: { invariant: "none", seed: 1, path: "0" } },
      /^checkRule: replay: invariant: "none"/,
    ],
    ["no object", null, /^checkRule: the options are null/],
  ])("invalid options are refused: %s", (_, options, message) => {
    const error = errorOf(() => checkRule(() => rules.uniform(), options as CheckRuleOptions));
    expect(error.code).toBe("config");
    expect(error.message).toMatch(message);
  });

  test.each<[string, Parameters<typeof algorithm>[0], RegExp]>([
    ["the minus sign", { step: (w, a, eta) => exponentiatedGradient(w, a, -eta) }, /"monotone/],
    // α̂ᵢ = aᵢ·exp(−lr·aᵢ), published as a baseline called DGA; as printed, divided by its sum, and without what is negative.
    [
      "a formula called DGA",
      {
        step: (_, a, eta) => a.map((x) => x * Math.exp(-eta * x)),
        average: (_, now) => Float64Array.from(now),
      },
      /"stays on the simplex"/,
    ],
    [
      "the same, normalised",
      { step: (_, a, eta) => normalised(a.map((x) => x * Math.exp(-eta * x))) },
      /"stays on the simplex"/,
    ],
    [
      "the same, normalised and cut off at 0",
      { step: (_, a, eta) => normalised(a.map((x) => Math.max(1e-9, x * Math.exp(-eta * Math.max(-5, x))))) },
      /"closed form/,
    ],
    [
      "a missing domain taken as 0",
      {
        update: (state, signal) => {
          const a = need("mine", state, signal, "alignments").map((x) => (Number.isNaN(x) ? 0 : x));
          return good.update(state, { alignments: a });
        },
      },
      /"a domain that was not measured keeps its weight": the weight of domain \d went from/,
    ],
    [
      "the numbers of a missing domain are used",
      {
        update: (state, { alignments = [] }) =>
          good.update(state, { alignments: Array.from(alignments, (x) => (Number.isFinite(x) ? x : 0)) }),
      },
      /"the numbers of a domain that was not measured are ignored": update 0 with/,
    ],
    [
      "a step that starts from the average",
      { from: "weights" },
      /"β weights the new value, and β = 1 is no average"/,
    ],
    [
      "a forgotten normalisation",
      {
        step: (w, a, eta) => w.map((x, i) => x * Math.exp(eta * Math.min(a[i], 3))),
        // The average of this package would make up for it.
        average: (old, now, beta) => Float64Array.from(old, (x, i) => x + beta * (now[i] - x)),
      },
      /"stays on the simplex"/,
    ],
    [
      "the average reversed",
      { average: (old, now, beta) => movingAverage(now, old, beta) },
      /β weights the new/,
    ],
    [
      "an order of the domains",
      {
        step: (w, a, eta) =>
          exponentiatedGradient(
            w,
            a.map((x, i) => x + i / 10),
            eta,
          ),
      },
      /permuting the domains/,
    ],
    ["η forgotten", { step: (w, a) => exponentiatedGradient(w, a, 1) }, /η = 0 changes nothing/],
    ["twice the step", { step: (w, a, eta) => exponentiatedGradient(w, a, 2 * eta) }, /argmin/],
    [
      "exp without the maximum taken off",
      { step: (w, a, eta) => w.map((x, i) => x * Math.exp(eta * a[i])) },
      /"stays on the simplex"/,
    ],
    [
      "a state that is changed",
      {
        update: (state, signal) => {
          (state.memory["alpha"] as number[])[0] += 1e-3;
          return good.update(state, signal);
        },
      },
      /"changes no state/,
    ],
    [
      "NaN that is let in",
      {
        update: (state, signal) => {
          const safe = Array.from(signal.alignments ?? [], (a) => (Number.isFinite(a) ? a : 0));
          return good.update(state, { alignments: safe });
        },
      },
      /"refuses what is not finite": alignments of (NaN|-?Infinity) was accepted/,
    ],
    [
      "a typed array in the state",
      {
        update: (state, signal) => {
          const next = good.update(state, signal);
          return { ...next, weights: Float64Array.from(next.weights) as unknown as number[] };
        },
      },
      /"its state survives JSON"/,
    ],
    [
      "alignments divided by their sum",
      {
        step: (w, a, eta) => {
          const sum = a.reduce((s, x) => s + Math.abs(x), 0);
          return exponentiatedGradient(
            w,
            a.map((x) => (sum > 0 ? x / sum : 0)),
            eta,
          );
        },
      },
      /constant added|monotone|argmin/,
    ],
  ])("%s", (_, change, message) => {
    const found = brokenBy((__, knobs) => algorithm(change, knobs), all);
    expect(found).toMatch(/^rule "mine" breaks \d+ of \d+ invariants: "/);
    expect(found).toMatch(message);
    expect(found).toMatch(/the smallest case: /);
  });

  test("memory outside the state", () => {
    const make: MakeRule = (_, knobs) => {
      let steps = 0;
      const rule = algorithm({}, knobs);
      return { ...rule, update: (state, signal) => ({ ...rule.update(state, signal), updates: ++steps }) };
    };
    // Every instance starts to count anew, so two of them differ after the first update of either.
    const shared = make([], {});
    expect(brokenBy(() => shared)).toMatch(/survives JSON/);
  });

  test("weights that vanish", () => {
    const vanishing = algorithm({
      step: (w, a) => normalise(exponentiatedGradient(w, a, 1).map((x) => (x < 1e-3 ? 0 : x))),
      average: (_, now) => Float64Array.from(now),
    });
    expect(brokenBy(() => vanishing)).toMatch(/"keeps the support": domain \d went from/);
  });

  test("a floor and a ceiling that are declared and not kept", () => {
    const make: MakeRule = (_, knobs) => algorithm({}, knobs);
    expect(brokenBy(make, { promises: { floor: 0.05 } })).toMatch(/not in \[0.05, 1\]/);
    expect(brokenBy(make, { promises: { ceiling: 0.6 }, domains: { least: 2, most: 8 } })).toMatch(
      /not in \[0, 0.6\]/,
    );
  });

  test("a drift that shows only after thousands of updates", () => {
    const lost: Parameters<typeof algorithm>[0] = {
      average: (old) => Float64Array.from(old, (x) => x * (1 + 2 ** -51)),
    };
    expect(brokenBy((_, knobs) => algorithm(lost, knobs), { promises: { splits: false } })).toMatch(
      /"stays on the simplex over a long run": after \d{3,}/,
    );
  });
});

test("vertices and nearly degenerate weights have their properties", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 9 }).chain((k) => fc.tuple(vertex(k), nearlyDegenerate(k))),
      ([corner, close]) => {
        expect([...corner].filter((w) => w === 1).length).toBe(1);
        expect(corner.filter((w) => w === 0).length).toBe(corner.length - 1);
        expect(close.every((w) => w > 0)).toBe(true);
        expect(close.filter((w) => w > 1e-11).length).toBe(1);
      },
    ),
  );
});
