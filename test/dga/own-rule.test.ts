/** A rule of a user's own: members that are missing or wrong, and what `init` and `update` return, are refused before weights are drawn. */
import {
  advance,
  averageWeights,
  combinators,
  combine,
  createMixer,
  currentWeights,
  initialState,
  restoreMixer,
  type Rule,
  type RuleState,
  uniformWeights,
  update,
  updateDue,
} from "gradmix/dga";
import { checkRule } from "gradmix/testing";
import { describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";

const domains = ["web", "code"];

/** A correct rule with one vector in its memory. */
const own: Rule = {
  name: "own",
  needs: ["losses"],
  init: (names) => initialState("own", names, uniformWeights(names.length), { seen: [0] }),
  update: (state) => ({ ...state, updates: state.updates + 1, memory: { seen: [1] } }),
};

/** Calls as a program without types would. */
const untyped = (call: (...given: never[]) => unknown, ...given: unknown[]): (() => unknown) => {
  return () => Reflect.apply(call, undefined, given);
};

describe("the members of a rule", () => {
  const cases: [what: string, members: object, message: string][] = [
    ["init is missing", { init: undefined }, "init is missing; a rule has name, needs, init and update"],
    ["init is no function", { init: null }, "init: null does not fit; it must be a function"],
    [
      "update is missing",
      { update: undefined },
      "update is missing; a rule has name, needs, init and update",
    ],
    ["needs is missing", { needs: undefined }, "needs is missing; a rule has name, needs, init and update"],
    [
      "needs is a word",
      { needs: "losses" },
      'needs: "losses" does not fit; it must be a list of parts of the signal',
    ],
    [
      "needs has a typing mistake",
      { needs: ["loses"] },
      'needs: "loses" is not known; did you mean "losses"?',
    ],
    [
      "stepsOn has a typing mistake",
      { stepsOn: "alignment" },
      'stepsOn: "alignment" is not known; did you mean "alignments"?',
    ],
    [
      "the name is empty",
      { name: "" },
      'name: "" does not fit; it must be a string with at least one character',
    ],
    ["the schedule is a number", { schedule: 5 }, "schedule: 5 does not fit; it must be an object"],
  ];
  test.each(cases)("%s", (_, members, message) => {
    const rule = { ...own, ...members };
    const takers: [where: string, take: () => unknown][] = [
      ["createMixer: rule", untyped(createMixer, { domains, rule })],
      ["ema: rule", untyped(combinators.ema, rule, 0.5)],
      ["etaSchedule: rule", untyped(combinators.etaSchedule, rule, () => 1)],
      ["shrinkage: rule", untyped(combinators.shrinkage, rule)],
      ["combine: rule", untyped(combine, rule, [])],
      ["checkRule: what make returned", untyped(checkRule, () => rule)],
    ];
    for (const [where, take] of takers)
      expect(errorOf(take)).toMatchObject({ code: "config", message: `${where}: ${message}` });
  });

  test("a rule in place of make", () => {
    expect(errorOf(untyped(checkRule, own)).message).toBe(
      "checkRule: make: an object does not fit; it must be a function",
    );
  });
});

/** What a wrong rule returns, made from a correct state; the end of the message. */
const wrong: [what: string, make: (state: RuleState) => unknown, message: string | RegExp][] = [
  ["nothing", () => undefined, /^undefined, not a state, which has rule, domains, weights, updates and memory; /],
  ["a promise", (state) => Promise.resolve(state), /^a promise, not a state/],
  ["only weights", ({ weights }) => ({ weights }), /^an object, not a state/],
  ["a state of another rule", (state) => ({ ...state, rule: "other" }), 'a state of the rule "other"; its rule must be "own"'],
  ["domains in another order", (state) => ({ ...state, domains: state.domains.toReversed() }), "a state of other domains, or in another order"],
  ["a count that is not whole", (state) => ({ ...state, updates: 0.5 }), "a state whose updates are 0.5, not a whole number of at least 0"],
  ["a typed array, which JSON does not keep", (state) => ({ ...state, weights: Float64Array.from(state.weights) }), "weights that are an object, not a list of numbers (Array.from makes one)"],
  ["too few weights", (state) => ({ ...state, weights: [1] }), "1 weights for 2 domains"],
  ["NaN", (state) => ({ ...state, weights: [0.5, NaN] }), 'a weight of NaN for domain "code"; weights are finite and ≥ 0'],
  ["a negative weight", (state) => ({ ...state, weights: [-0.5, 1.5] }), 'a weight of -0.5 for domain "web"; weights are finite and ≥ 0'],
  ["a text", (state) => ({ ...state, weights: [0.5, "0.5"] }), 'a weight of "0.5" for domain "code"; weights are finite and ≥ 0'],
  ["weights that were not normalised", (state) => ({ ...state, weights: [2, 3] }), "weights that sum to 5, not to 1"],
  ["a memory with a typed array", (state) => ({ ...state, memory: { seen: Float64Array.of(0) } }), 'a memory whose "seen" is an object, not a list of numbers (Array.from makes one)'],
  ["a member that would not be saved", (state) => ({ ...state, hidden: [1] }), 'a state with "hidden", which is not saved with it; a state has rule, domains, weights, updates, memory, and memory holds lists of numbers'],
  ["a memory with NaN", (state) => ({ ...state, memory: { seen: [NaN] } }), 'a memory whose "seen" has NaN at 0; numbers are finite'],
]; // prettier-ignore

/** What only `update` can do wrong, because `init` fixes the names and lengths of the memory. */
const changed: typeof wrong = [
  ["another length in the memory", (state) => ({ ...state, memory: { seen: [1, 2] } }), 'a memory whose "seen" has 2 numbers; init gave it 1'],
  ["another name in the memory", (state) => ({ ...state, memory: { read: [1] } }), 'a memory whose "seen" is undefined, not a list of numbers (Array.from makes one)'],
  ["one more vector", (state) => ({ ...state, memory: { seen: [1], read: [1] } }), 'a memory with "seen", "read"; that of init has "seen"'],
]; // prettier-ignore

describe.each(["init", "update"] as const)("what %s returns", (by) => {
  test.each(by === "init" ? wrong : [...wrong, ...changed])("%s", (_, make, message) => {
    const made = (state: RuleState): RuleState => make(state) as RuleState;
    const rule: Rule =
      by === "init"
        ? { ...own, init: (names) => made(own.init(names)) }
        : { ...own, update: (state, signal) => made(own.update(state, signal)) };
    // Bounds around the rule would otherwise turn invalid weights into valid ones.
    for (const around of [
      rule,
      combinators.floor(rule, 0.1),
      combinators.ema(combinators.warmup(rule, 0), 0.5),
    ]) {
      const fault = errorOf(() => {
        const mixer = createMixer({ domains, rule: around });
        update(mixer, mixer.initial, { losses: [1, 2] });
      });
      expect(fault.code).toBe("config");
      const start = `rule "own": ${by} returned `;
      expect(fault.message.slice(0, start.length)).toBe(start);
      const rest = fault.message.slice(start.length);
      if (typeof message === "string") expect(rest).toBe(message);
      else expect(rest).toMatch(message);
    }
  });
});

test("every state that a correct rule of one's own reaches can be restored", () => {
  for (const rule of [own, combinators.floor(combinators.ema(own, 0.5), 0.1)]) {
    const mixer = createMixer({ domains, rule });
    const state = advance(update(mixer, mixer.initial, { losses: [1, 2] }));
    expect(restoreMixer(mixer, JSON.parse(JSON.stringify(state)))).toEqual(state);
  }
});

test("a rule that changes what it is given changes neither the mixer nor earlier states", () => {
  const given = Object.freeze([...domains]);
  const rude: Rule = {
    ...own,
    init(names) {
      const state = own.init(names);
      (names as string[]).reverse();
      return state;
    },
    update(state, signal, change) {
      const next = own.update({ ...state, weights: [0.25, 0.75] }, signal, change);
      for (const list of [state.weights, state.domains, ...Object.values(state.memory)])
        (list as unknown[]).fill(list === state.domains ? "spoilt" : 0);
      (state as { updates: number }).updates = 99;
      return { ...next, domains };
    },
  };
  for (const rule of [
    rude,
    combinators.ema(rude, 0.5),
    combinators.warmup(rude, 1),
    combinators.floor(combinators.warmup(rude, 2), 0.1),
  ]) {
    const mixer = createMixer({ domains: given, rule });
    expect(mixer.domains).toEqual(domains);
    const before = JSON.stringify(mixer);
    let state = mixer.initial;
    for (let n = 0; n < 3; n++) {
      const text = JSON.stringify(state);
      const next = update(mixer, state, { losses: [1, 2] });
      expect(JSON.stringify(state)).toBe(text);
      state = next;
    }
    expect(JSON.stringify(mixer)).toBe(before);
    expect(restoreMixer(mixer, JSON.parse(JSON.stringify(state)))).toEqual(state);
  }
});

test("something that is not a state of the mixer", () => {
  const mixer = createMixer({ domains, rule: own });
  const advice = "pass mixer.initial, or what advance, update or restoreMixer returned";
  for (const given of [undefined, null, {}, mixer])
    for (const [name, call] of [
      ["advance", untyped(advance, given)],
      ["updateDue", untyped(updateDue, mixer, given)],
      ["update", untyped(update, mixer, given, {})],
      ["currentWeights", untyped(currentWeights, given)],
      ["averageWeights", untyped(averageWeights, given)],
    ] as const)
      expect(errorOf(call)).toMatchObject({
        code: "config",
        message: `${name}: ${given === undefined || given === null ? String(given) : "an object"} is not the state of a mixer; ${advice}`,
      });
  const other = createMixer({ domains: ["a", "b", "c"], rule: { name: "uniform" } });
  expect(errorOf(() => update(mixer, other.initial, { losses: [1, 2] }))).toMatchObject({
    code: "config",
    message:
      'update: the state belongs to another mixer: its rule is "uniform" over 3 domains, not "own" over 2',
  });
  expect(errorOf(untyped(update, mixer, mixer.initial, null)).message).toBe(
    "update: the signal is null, not an object",
  );
  for (const steps of [-1, 0.5, NaN, "2"])
    expect(errorOf(untyped(advance, mixer.initial, steps)).message).toMatch(
      /^advance: steps: .* does not fit; it must be an integer of at least 0$/,
    );
});
