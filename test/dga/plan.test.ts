/** The needs of a rule determine the measurements of the trainer; options of a trainer that fit together are accepted, others refused in one line. */
import {
  type Bases,
  createBases,
  createMixer,
  estimatorNames,
  type Mixer,
  type Rule,
  type SignalName,
  rules,
} from "gradmix/dga";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  checkOptionSet,
  hardlyDrawn,
  measuredFrom,
  measuredSteps,
  type Plan,
  planOf,
  signalOf,
} from "#dist/dga/plan.js";
import { codeOf } from "../errors.ts";

const nothing: Plan = {
  aligns: false,
  preconditioned: false,
  gram: false,
  targets: false,
  reference: false,
  heldOut: false,
};

/** The measurements that each name needs by itself. */
const asked: Record<SignalName, Partial<Plan>> = {
  alignments: { aligns: true },
  standardErrors: { aligns: true },
  norms: { aligns: true },
  targetNorm: { aligns: true },
  losses: {},
  targetLoss: { aligns: true },
  preconditionedAlignments: { aligns: true, preconditioned: true },
  preconditionedTargetNorm: { aligns: true, preconditioned: true },
  gram: { gram: true },
  targets: { targets: true },
  referenceLosses: { reference: true },
  heldOutLosses: { heldOut: true },
  tokensSeen: {},
  tokens: {},
};
const all = Object.keys(asked) as SignalName[];
const aligning = all.filter((name) => asked[name].aligns === true);

test("a rule that needs several signals gets all of them; with several targets, the norms come with the targets", () => {
  for (const name of all) expect(planOf([name]), name).toEqual({ ...nothing, ...asked[name] });
  fc.assert(
    fc.property(fc.subarray(all), (needs) => {
      const own = needs.filter((name) => name !== "norms" || !needs.includes("targets"));
      expect(planOf(needs)).toEqual(Object.assign({}, nothing, ...own.map((name) => asked[name])));
    }),
  );
});

test("a domain is hardly drawn if less than one of its examples is expected in the measured steps", () => {
  expect(measuredSteps(5, { measureEvery: 2 })).toBe(3);
  expect(measuredSteps(1, { measureEvery: 2 })).toBe(1);
  expect(measuredSteps(6, { measureEvery: 2 })).toBe(3);
  expect(hardlyDrawn([0.6, 0.25, 0.15, 0], 4)).toEqual([2]);
  expect(hardlyDrawn([0.6, 0.25, 0.15, 0], 7)).toEqual([]);
  expect(hardlyDrawn([0.6, 0.25, 0.15, 0], 1)).toEqual([0, 1, 2]);
});

const ruleOf = (needs: readonly SignalName[]): Rule => ({
  ...rules.uniform(),
  name: "r",
  needs,
  init: (domains) => ({ ...rules.uniform().init(domains), rule: "r" }),
});
const names = ["a", "b", "c"];
const mixed = createBases({ x: [0.5, 0.5, 0], y: [0, 0.5, 0.5] }, names);
const single = createBases({ x: [1, 0, 0], y: [0, 0, 1] }, names);

type Fit = Parameters<typeof checkOptionSet>[0];
type Options = Partial<Omit<Fit, "mixer">> & { readonly called?: readonly string[] };

/** "" where a trainer of a rule with these needs takes the options. */
function refusal(needs: readonly SignalName[], { called, ...options }: Options = {}): string {
  const domains = called ?? options.bases?.names ?? names;
  const mixer: Mixer = createMixer({ domains, rule: ruleOf(needs) });
  const told = codeOf(() => checkOptionSet({ mixer, domains: names, target: {}, ...options }));
  return told === "no error" ? "" : told;
}
const step = { from: "step" } as const;
const some = { targets: new Map([["t", {}]]), reference: {}, heldOut: {} };

test("the mixer must have the domains of the windows, or the names of the bases over them", () => {
  expect(refusal([])).toBe("");
  for (const length of [2, 4])
    expect(refusal([], { domains: { length } })).toBe(
      `config: createTrainer: domains: ${length} sources of examples for a mixer of 3 domains`,
    );
  for (const bases of [mixed, single]) {
    expect(refusal([], { bases })).toBe("");
    expect(refusal([], { bases, domains: { length: 2 } })).toBe(
      "config: createTrainer: domains: 2 sources of examples for bases over 3 domains",
    );
    for (const called of [["y", "x"], ["x"], names])
      expect(refusal([], { bases, called })).toBe(
        "config: bases: the mixer must have their 2 names as its domains",
      );
  }
});

test("a rule must get the target, targets, reference or held-out text that it needs, and no other", () => {
  const bare = { target: null };
  for (const name of all) {
    const { aligns = false, targets = false, reference = false, heldOut = false } = asked[name];
    const missing = aligns
      ? "it aligns domains with a target; give a target"
      : targets
        ? "it aligns domains with several targets; give targets"
        : reference
          ? "it compares with a reference model; give a reference"
          : heldOut
            ? "it needs losses on held-out text; give heldOut"
            : null;
    const wanted = missing === null ? "" : `config: rule r: ${missing}`;
    expect(refusal([name], bare), name).toBe(wanted);
    expect(refusal([name], { ...bare, targets: new Map() }), name).toBe(wanted);
    expect(refusal([name], some), name).toBe("");
  }
});

test("only one kind of measurement is possible at a time", () => {
  const kinds = ["alignments", "gram", "targets", "referenceLosses"] as const;
  fc.assert(
    fc.property(fc.subarray([...kinds]), (needs) => {
      expect(refusal(needs, some)).toBe(
        needs.length <= 1
          ? ""
          : `config: rule r: it needs ${needs.join(", ")}, which the trainer does not measure together`,
      );
    }),
  );
  for (const name of aligning) {
    const clash = name === "alignments";
    expect(refusal(["preconditionedAlignments", name])).toBe(
      clash ? "config: rule r: plain and preconditioned alignments are not measured together" : "",
    );
    expect(refusal(["alignments", name])).toBe(
      asked[name].preconditioned === true
        ? "config: rule r: plain and preconditioned alignments are not measured together"
        : "",
    );
  }
});

test("with bases, a rule can use only alignments with one target, or no signal", () => {
  const ofDomains =
    "config: rule r: held-out losses are losses of domains, so bases do not have them; leave out the guard or the bases";
  for (const bases of [mixed, single])
    for (const name of all)
      expect(refusal([name], { ...some, bases }), name).toBe(
        asked[name].aligns === true
          ? ""
          : name === "heldOutLosses"
            ? ofDomains
            : `config: rule r: with bases a rule can use alignments with one target only; it needs ${name}`,
      );
  expect(refusal(["alignments", "heldOutLosses"], { ...some, bases: mixed })).toBe(ofDomains);
  for (const bases of [mixed, single]) {
    expect(refusal(["alignments"], { bases, alignment: { ...step, probes: 0 } })).toBe("");
    expect(refusal(["alignments"], { bases, alignment: { ...step, probes: 1 } })).toBe(
      "config: alignment: probes measure single domains, and the weights are those of bases; leave out probes",
    );
  }
});

test("training steps measure neither Gram matrices nor several targets, and one option selects what is aligned", () => {
  for (const name of all) {
    const { gram = false, targets = false } = asked[name];
    expect(refusal([name], { ...some, alignment: step }), name).toBe(
      gram || targets
        ? `config: rule r: it needs ${gram ? "a Gram matrix" : "several targets"}, which the training steps do not measure; leave out from, or use "batch"`
        : "",
    );
  }
  const parameters = (): boolean => true;
  for (const from of [{}, { from: "step" }, { from: "batch" }] as const) {
    for (const selection of [{ parameters }, { blockShare: 0 }, { blockShare: 1 }])
      expect(refusal(["alignments"], { alignment: { ...from, ...selection } })).toBe("");
    expect(refusal(["alignments"], { alignment: { ...from, parameters, blockShare: 1 } })).toBe(
      "config: alignment: parameters and blockShare both select what is aligned; leave out one of them",
    );
  }
});

test("an estimator is refused if it cannot measure what the rule needs, unless the steps measure it", () => {
  const lacks: Partial<Record<(typeof estimatorNames)[number], Partial<Record<SignalName, string>>>> = {
    sketch: {
      preconditionedAlignments: "it cannot precondition, which rule r asks for; use estimator = segmented",
      preconditionedTargetNorm: "it cannot precondition, which rule r asks for; use estimator = segmented",
    },
    perDomain: {
      standardErrors: "it gives no standard errors, which rule r asks for; use estimator = segmented",
    },
    forward: {
      norms:
        "it gives no gradient norms, which rule r asks for; use estimator = segmented, or a rule without norms (rules of gradmix that have the option: normalise = raw)",
    },
  };
  for (const estimator of estimatorNames)
    for (const name of aligning) {
      const lack = lacks[estimator]?.[name];
      const wanted = lack === undefined ? "" : `config: estimator ${estimator}: ${lack}`;
      expect(refusal([name], { alignment: { estimator } }), `${estimator}, ${name}`).toBe(wanted);
      expect(refusal([name], { alignment: { estimator, from: "batch" } })).toBe(wanted);
      expect(refusal([name], { alignment: { estimator, ...step } })).toBe("");
    }
});

test("a batch that bases share needs the segmented estimator; with one batch per basis or domain, any estimator works", () => {
  const told = (bases: Bases | undefined, alignment: NonNullable<Fit["alignment"]>): string =>
    refusal(["alignments"], { ...(bases === undefined ? {} : { bases }), alignment });
  expect(told(mixed, {})).toBe("");
  for (const estimator of estimatorNames) {
    const wanted =
      estimator === "segmented"
        ? ""
        : `config: estimator ${estimator}: a shared batch of bases takes segmented; use segmented, or bases = direct`;
    expect(told(mixed, { estimator })).toBe(wanted);
    expect(told(mixed, { estimator, bases: "shared" })).toBe(wanted);
    expect(told(mixed, { estimator, bases: "direct" })).toBe("");
    expect(told(mixed, { estimator, ...step })).toBe("");
    expect(told(single, { estimator })).toBe("");
    expect(told(undefined, { estimator })).toBe("");
  }
});

test("a signal holds the measurements under the names that the rule needs", () => {
  const measured = {
    alignments: Float64Array.of(1, 2),
    standardErrors: [0.5, null],
    norms: Float64Array.of(3, 4),
    tokens: Float64Array.of(5, 6),
    losses: Float64Array.of(7, 8),
    targetNorm: 9,
    targetLoss: 10,
  };
  const { alignments, targetNorm, ...rest } = measured;
  expect(signalOf(ruleOf(["alignments"]), measured)).toStrictEqual(measured);
  expect(signalOf(ruleOf(["preconditionedAlignments"]), measured)).toStrictEqual({
    preconditionedAlignments: alignments,
    preconditionedTargetNorm: targetNorm,
    ...rest,
  });
  // Members that were not measured are left out, not undefined.
  const { standardErrors: _, ...certain } = measured;
  expect(signalOf(ruleOf(["norms"]), certain)).toStrictEqual(certain);
  const { norms: __, ...rows } = measured;
  expect(signalOf(ruleOf(["alignments"]), { ...rows, tied: "w" })).toStrictEqual(rows);
  const advice =
    'take alignment { from: "batch", estimator: "perDomain" }, which has whole gradients, or a rule without norms (rules of gradmix that have the option: normalise = raw)';
  for (const [tied, why] of [
    [{}, "they were not measured"],
    [
      { tied: "w" },
      "parameter w is used twice in one pass (tied weights), so that its norm cannot be added up use by use",
    ],
  ] as const)
    expect(codeOf(() => signalOf(ruleOf(["alignments", "norms"]), { ...rows, ...tied }))).toBe(
      `config: rule r: it needs the norms of the domains' gradients, and ${why}; ${advice}`,
    );
});

test("alignments come from training steps, unless an option says otherwise or the steps cannot measure them", () => {
  const bare = { gram: false, targets: false };
  const parameters = (): boolean => true;
  expect(measuredFrom({}, bare)).toBe("step");
  expect(measuredFrom({ estimator: "segmented" }, bare)).toBe("batch");
  expect(measuredFrom({ domainExamples: 4 }, bare)).toBe("batch");
  expect(measuredFrom({ parameters, blockShare: 0 }, bare)).toBe("step");
  for (const bases of ["shared", "direct"] as const) expect(measuredFrom({ bases }, bare)).toBe("batch");
  expect(measuredFrom({}, { ...bare, gram: true })).toBe("batch");
  expect(measuredFrom({}, { ...bare, targets: true })).toBe("batch");
  // A given option is kept; checkFit refuses those that do not fit together.
  const all = { estimator: "sketch", domainExamples: 4, parameters, bases: "direct" } as const;
  for (const from of ["batch", "step"] as const) {
    expect(measuredFrom({ from }, bare)).toBe(from);
    expect(measuredFrom({ ...all, from }, { gram: true, targets: true })).toBe(from);
  }
});
