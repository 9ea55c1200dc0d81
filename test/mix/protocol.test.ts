/** The protocol as a function: it drives every rule as the library does, continues from its own state, and refuses invalid messages without any effect. */
import {
  averageWeights,
  advance,
  combinatorNames,
  type CombinatorOptions,
  createMixer,
  type MixerOptions,
  type MixerState,
  ruleNames,
  type RuleOptions,
  type Signal,
  update,
} from "gradmix/dga";
import { type FullSignal, names, signal, targetNames } from "gradmix/testing";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  answer,
  answerLine,
  type ErrorReply,
  errorReply,
  initFields,
  observeFields,
  type Reply,
  type Session,
  type WeightsReply,
} from "#dist/mix/protocol.js";
import { random } from "../dga/arbitraries.ts";
import { expectNear } from "../near.ts";

const K = 4;
const domains = names(K);
const byName = (values: ArrayLike<number>, mask?: readonly boolean[]): Record<string, number> =>
  Object.fromEntries(
    domains.flatMap((name, i) => (mask === undefined || mask[i] ? [[name, values[i]] as const] : [])),
  );

const sizes = { domain0: 10, domain1: 20, domain2: 70, domain3: 5 };
const facts = { sizes, tokens: 40, histogram: { domain3: 1, domain1: 3 } };
const table: readonly RuleOptions[] = [
  { name: "uniform" },
  { name: "static", weights: [0.1, 0.2, 0.3, 0.4] },
  { name: "temperature" } as RuleOptions,
  { name: "importanceSampling" } as RuleOptions,
  { name: "dga" },
  { name: "dga", normalise: "cosine" },
  { name: "dga", normalise: "adam" },
  { name: "doge" },
  { name: "doge", towards: "target" },
  { name: "grape", targets: targetNames },
  { name: "rnb" },
  { name: "doremi" },
  { name: "odm" },
  { name: "ado" },
];

test("the table has every rule", () => {
  expect(new Set(table.map(({ name }) => name))).toEqual(new Set(ruleNames));
});

/** The message of a trainer for a signal in which `mask` was measured: all fields, or those that `needs` names. */
function observe(
  given: FullSignal,
  mask: readonly boolean[],
  options: {
    step: number;
    tokens: readonly number[] | null;
    needs: readonly string[] | null;
    lists: boolean;
    fixed: boolean;
  },
): Record<string, unknown> {
  const of = (values: ArrayLike<number>): Record<string, number> => byName(values, mask);
  const row = (i: number): number[] => Array.from({ length: K }, (_, j) => given.gram[i * K + j] ?? NaN);
  const measured = domains.flatMap((_, i) => (mask[i] ? [i] : []));
  const all: Record<string, unknown> = {
    alignments: of(given.alignments),
    standardErrors: of(given.standardErrors),
    norms: of(given.norms),
    losses: of(given.losses),
    referenceLosses: of(given.referenceLosses),
    preconditionedAlignments: of(given.preconditionedAlignments),
    targetNorm: given.targetNorm,
    preconditionedTargetNorm: given.preconditionedTargetNorm,
    targetLoss: given.targetLoss,
    tokensSeen: byName(given.tokensSeen),
    gram: options.lists
      ? measured.map((i) => measured.map((j) => row(i)[j]))
      : Object.fromEntries(measured.map((i) => [domains[i], of(row(i))])),
    heldOutLosses: byName(given.heldOutLosses, options.fixed ? mask : undefined),
    heldOutReferences: byName(given.losses, mask),
    heldOutErrors: { domain0: 0.1 },
    targets: Object.fromEntries(
      given.targets.map(({ name, alignments, norm, loss }) => [
        name,
        { alignments: of(alignments), norm, loss },
      ]),
    ),
  };
  const chosen = Object.entries(all).filter(([name]) => options.needs?.includes(name) ?? true);
  return {
    type: "observe",
    step: options.step,
    ...Object.fromEntries(chosen),
    ...("gram" in Object.fromEntries(chosen) && options.lists
      ? { gramDomains: measured.map((i) => domains[i]) }
      : {}),
    ...(options.tokens === null ? {} : { tokens: of(options.tokens) }),
  };
}

const step = fc.record({
  given: signal(K, { mild: true }),
  mask: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()),
  ahead: fc.integer({ min: 1, max: 9 }),
  whole: fc.boolean(),
  lists: fc.boolean(),
  cut: fc.boolean(),
});

/** The reply to a message that goes over a wire. */
function send(session: Session | null, message: unknown): { session: Session; reply: Reply } {
  const { session: next, reply } = answerLine(session, JSON.stringify(message));
  if (next === null) throw new Error(JSON.stringify(reply));
  return { session: frozen(next), reply: JSON.parse(JSON.stringify(reply)) as Reply };
}

function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) frozen(inner);
  }
  return value;
}

const weightsOf = (reply: Reply): WeightsReply => {
  if (reply.type !== "weights") throw new Error(JSON.stringify(reply));
  return reply;
};
const errorOf = (reply: Reply): ErrorReply => {
  if (reply.type !== "error") throw new Error(JSON.stringify(reply));
  return reply;
};

/** Messages move the weights like calls of the library, and continue from any state to the same bits. */
function checkDriven(rule: RuleOptions, around: readonly CombinatorOptions[], numRuns: number): void {
  fc.assert(
    fc.property(
      fc.array(step, { minLength: 1, maxLength: 8 }),
      fc.boolean(),
      fc.constantFrom(null, 1, 5),
      fc.nat(12),
      (steps, plain, updateEvery, updateAfter) => {
        const options = { rule, combinators: plain ? [] : around, ...facts };
        const mixer = createMixer({ domains, ...options, updateEvery: updateEvery ?? 1, updateAfter });
        const init = { type: "init", v: 1, domains, ...options, updateEvery, updateAfter, seed: 1 };
        let direct: MixerState = mixer.initial;
        let straight = send(null, init);
        let resumed = straight;
        let [now, updatedAt] = [0, 0];
        for (const { given, mask, ahead, whole, lists, cut } of steps) {
          now += ahead;
          const tokens = cut ? null : [5, 6, 7, 8];
          // Fixed weights with a guard around them.
          const fixed = mixer.rule.needs.join() === "heldOutLosses";
          const needs = whole ? null : mixer.rule.needs;
          const message = observe(given, mask, { step: now, tokens, needs, lists, fixed });
          if (cut) {
            const { reply } = send(resumed.session, { type: "snapshot" });
            if (reply.type !== "state") throw new Error(JSON.stringify(reply));
            resumed = send(null, { type: "init", state: reply.state });
            expect(weightsOf(resumed.reply).weights).toEqual(weightsOf(straight.reply).weights);
          }
          straight = send(straight.session, message);
          resumed = send(resumed.session, message);
          expect(resumed).toEqual(straight);

          direct = advance(direct, ahead);
          const due =
            updateEvery === null
              ? now >= updateAfter
              : Math.floor(now / updateEvery) > Math.floor(updatedAt / updateEvery) &&
                now >= Math.ceil(updateAfter / updateEvery) * updateEvery;
          const updates = due && mask.some(Boolean) && mixer.rule.needs.length > 0;
          const told: Signal = {
            ...given,
            tokens: mask.map((is, i) => (is ? (tokens?.[i] ?? 1) : 0)),
            heldOutLosses: given.heldOutLosses.map((loss, i) => (fixed && !mask[i] ? null : loss)),
            // With nothing but what the rule needs these are not sent.
            heldOutReferences: domains.map((_, i) => (whole && mask[i] ? (given.losses[i] ?? null) : null)),
            heldOutErrors: domains.map((_, i) => (whole && i === 0 ? 0.1 : null)),
          };
          const before = direct.rule.weights;
          if (updates) [direct, updatedAt] = [update(mixer, direct, told), now];
          const reply = weightsOf(straight.reply);
          expect(reply.weights).toEqual(byName(direct.rule.weights));
          expect(reply.step).toBe(now);
          expect(reply.changed).toBe(direct.rule.weights.some((weight, i) => weight !== before[i]));
          expect(reply.diagnostics).toMatchObject({ updates: direct.rule.updates, updated: updates });
        }
        const asked = send(straight.session, {
          ...{ type: "observe", step: now + 1, averaged: true, snapshot: true },
        });
        const last = weightsOf(asked.reply);
        expect(last.averaged).toEqual(byName(averageWeights(advance(direct))));
        expect(last.state).toEqual(asked.session);
      },
    ),
    { numRuns },
  );
}

test.each(table.map((rule) => [JSON.stringify(rule), rule] as const))(
  "%s moves the weights like the library, from any saved state",
  (_, rule) =>
    checkDriven(
      rule,
      [
        { name: "floor", least: 0.01 },
        { name: "ema", beta: 0.5 },
      ],
      25,
    ),
);

const combined: readonly CombinatorOptions[] = [
  { name: "ema", beta: 0.3 },
  { name: "floor", least: 0.1 },
  { name: "ceiling", most: 0.5 },
  { name: "tokenBudget", budgets: [20, 15, 10, 30] },
  { name: "repetitionCap", repetitions: 1 },
  { name: "warmup", updates: 2 },
  { name: "etaSchedule", decay: "linear", updates: 5 },
  { name: "shrinkage" },
  { name: "guard", limits: { "*": 1.1 } },
];

test("the list has every combinator", () => {
  expect(combined.map(({ name }) => name).toSorted()).toEqual(combinatorNames.toSorted());
});

test.each(combined.map((one) => [one.name, one] as const))(
  "the same holds with %s around the rule",
  (_, one) => checkDriven({ name: "dga", normalise: "raw", beta: 1 }, [one], 8),
);

test("the same holds with a guard around fixed weights", () =>
  checkDriven({ name: "uniform" }, [{ name: "guard", limits: { domain1: 1, domain2: 1.01 } }], 20));

const first = (init: object = {}): Session =>
  send(null, { type: "init", domains: ["web", "code"], ...init }).session;
const cosine = { name: "dga", normalise: "cosine" };
const measured = {
  type: "observe",
  step: 10,
  alignments: { web: 0.1, code: 0.4 },
  norms: { web: 1, code: 2 },
  targetNorm: 3,
};

describe("steps", () => {
  const session = first({ rule: cosine });
  const { session: after, reply } = send(session, measured);

  test("a repeated step gets the same reply and moves nothing, whatever the order of its fields", () => {
    const turned = Object.fromEntries(Object.entries(measured).reverse());
    for (const again of [measured, { ...turned, alignments: { code: 0.4, web: 0.1 } }]) {
      const repeated = send(after, again);
      expect(repeated.reply).toEqual(reply);
      expect(repeated.session).toEqual(after);
    }
  });

  test.each([
    [
      { ...measured, alignments: { web: 0.1, code: 0.5 } },
      /^step 10 was already observed, with other numbers/,
    ],
    [{ ...measured, targetNorm: 4 }, /^step 10 was already observed/],
    [{ ...measured, losses: { web: 1 } }, /^step 10 was already observed/],
    [{ ...measured, step: 9 }, /^step 9 is before step 10, the last one; .*send init with the state/],
  ])("a repeated step with other numbers, or an earlier step, is refused: %j", (message, error) => {
    const { session: same, reply } = answer(after, message);
    expect(same).toBe(after);
    expect(errorOf(reply)).toMatchObject({ field: "step", error: expect.stringMatching(error) as unknown });
  });

  test("a repeated step is compared in every number", () => {
    const of = { alignments: { web: 1, code: 2 }, norm: 1, loss: 1 };
    const full = {
      type: "observe",
      step: 1,
      ...{ alignments: { web: 1, code: 2 }, standardErrors: { web: 1, code: 2 }, norms: { web: 1, code: 2 } },
      ...{ losses: { web: 1, code: 2 }, referenceLosses: { web: 1, code: 2 }, tokens: { web: 1, code: 2 } },
      ...{ tokensSeen: { web: 1, code: 2 }, preconditionedAlignments: { web: 1, code: 2 } },
      ...{ targetNorm: 1, targetLoss: 1, preconditionedTargetNorm: 1, targetExamples: 3 },
      ...{
        gram: { web: { web: 1, code: 2 }, code: { web: 2, code: 9 } },
        targets: { first: of, second: of },
      },
    };
    const seen = send(first({ rule: cosine }), full).session;
    expect(send(seen, full).session).toEqual(seen);
    const text = JSON.stringify(full);
    const numbers = [...text.matchAll(/(?<=:)\d+/g)].slice(1);
    expect(numbers.length).toBe(8 * 2 + 4 + 4 + 2 * 4);
    for (const { index, 0: number } of numbers) {
      const other = `${text.slice(0, index)}${Number(number) + 1}${text.slice(index + number.length)}`;
      expect(errorOf(answerLine(seen, other).reply), other).toMatchObject({ field: "step" });
    }
  });

  test("a trainer that goes back can restore the session's state", () => {
    const further = send(after, { ...measured, step: 20 });
    const back = send(further.session, { type: "init", state: after });
    expect(back.session).toEqual(after);
    expect(send(back.session, { ...measured, step: 20 })).toEqual(further);
  });

  test("a session may begin at any step, and a rule that is not due replies with the step of its next update", () => {
    const late = first({ step: 13, updateEvery: 10 });
    const waiting = weightsOf(send(late, { type: "observe", step: 19, alignments: { web: 1 } }).reply);
    expect(waiting).toMatchObject({ changed: false, diagnostics: { updated: false, measured: 1 } });
    expect(waiting.diagnostics.ignored).toContainEqual({
      field: "alignments",
      reason: "the next update is due at step 20",
    });
    const told = send(late, { type: "observe", step: 25, alignments: { web: 1 } }).session;
    expect(told.updatedAt).toBe(25);
    expect(
      weightsOf(send(told, { type: "observe", step: 29, alignments: { web: 1 } }).reply).diagnostics.updated,
    ).toBe(false);
    expect(
      weightsOf(send(told, { type: "observe", step: 30, alignments: { web: 1 } }).reply).diagnostics.updated,
    ).toBe(true);
    expect(
      weightsOf(send(first(), { type: "observe", step: 0, alignments: { web: 1 } }).reply).diagnostics
        .updated,
    ).toBe(true);
  });
});

describe("init", () => {
  const session = send(first({ sizes: { web: 1, code: 2 }, rule: { name: "dga", eta: 2 } }), {
    ...measured,
    norms: null,
    targetNorm: null,
  }).session;

  test("with the same options continues the session; options that are left out keep their values", () => {
    for (const same of [
      {},
      { domains: ["web", "code"] },
      { rule: { eta: 2, name: "dga" }, sizes: { code: 2, web: 1 }, updateEvery: null, step: 0 },
      { step: 10 },
      { state: session },
    ]) {
      const again = send(session, { type: "init", ...same });
      expect(again.session).toEqual(session);
      expect(weightsOf(again.reply)).toMatchObject({ v: 1, step: 10, changed: false });
    }
  });

  test.each<[object, string, RegExp]>([
    [{ domains: ["code", "web"] }, "domains", /^the session has \["web","code"\], not \["code","web"\]/],
    [{ rule: { name: "dga", eta: 3 } }, "rule.eta", /a session keeps the fields with which it began/],
    [{ rule: { name: "odm" } }, "rule.name", /^the session has/],
    [{ sizes: { web: 1, code: 3 } }, "sizes.code", /^the session has/],
    [{ tokens: 5 }, "tokens", /^the session has null, not 5/],
    [{ updateEvery: 3 }, "updateEvery", /^the session has null, not 3/],
    [{ step: 7 }, "step", /^the session has 0 \(and is at 10 now\), not 7/],
    [{ state: first() }, "state", /belongs to another session/],
  ])("with other options is refused: %j", (message, field, error) => {
    const made = answer(session, { type: "init", ...message });
    expect(made.session).toBe(session);
    expect(errorOf(made.reply)).toMatchObject({ field, error: expect.stringMatching(error) as unknown });
  });

  test.each<[object, string | null, RegExp]>([
    [{}, "domains", /^it is missing/],
    [{ domains: [] }, "domains", /at least one name/],
    [{ domains: "web" }, "domains", /^it is "web", not a list/],
    [{ domains: ["a", 3] }, "domains.1", /^it is 3, not a name/],
    [{ domains: ["a", "a"] }, "domains.1", /twice/],
    [{ v: 2 }, "v", /^it is 2, and this gradmix reads 1/],
    [{ seed: -1 }, "seed", /whole number/],
    [{ rule: "dga" }, "rule", /not an object/],
    [{ rule: { name: "dgaa" } }, "rule", /did you mean "dga"\?/],
    [{ rule: { name: "dga", eta: -1 } }, "rule", /^dga: eta: -1/],
    [{ rule: { name: "dga", update: 1 } }, "rule", /there is no option "update"/],
    [
      JSON.parse('{"rule":{"name":"dga","__proto__":{"eta":5}}}') as object,
      "rule",
      /there is no option "__proto__"/,
    ],
    [{ combinators: [{ name: "flor" }] }, "combinators", /did you mean "floor"\?/],
    [{ combinators: [{ name: "floor", least: 2 }] }, "combinators", /^combinators\[0\]: floor/],
    [{ sizes: { web: 1 } }, "sizes.code", /^it is missing/],
    [{ sizes: { web: 1, code: 0 } }, "sizes.code", /^it is 0, not a finite number above 0/],
    [{ sizes: { web: 1, cod: 1 } }, "sizes.cod", /did you mean "code"\?/],
    [{ sizes: [1, 2] }, "sizes", /not an object with a number per domain, such as \{"web": …\}$/],
    [{ tokens: { web: 1 } }, "tokens", /^it is an object, not a finite number/],
    [{ histogram: { web: 0 } }, "histogram", /has no share above 0/],
    [{ updateEvery: 0 }, "updateEvery", /^it is 0, not a whole number of at least 1/],
    [{ updateAfter: 1.5 }, "updateAfter", /^it is 1\.5, not/],
    [{ shares: { web: 1 } }, "shares.code", /^it is missing/],
    [{ shares: { web: 0, code: 0 } }, "shares", /all shares are 0/],
    [{ lossMultipliers: "yes" }, "lossMultipliers", /not true or false/],
    [{ snapshot: 1 }, "snapshot", /not true or false/],
    [{ domain: [] }, "domain", /did you mean "domains"\?/],
    [{ state: 3 }, "state", /^the session cannot continue from it: it is 3, not an object/],
  ])("is refused for %j", (message, field, error) => {
    const domains = { domains: ["web", "code"] };
    const made = answer(null, {
      type: "init",
      ...(field === "domains" && !("domains" in message) ? {} : domains),
      ...message,
    });
    expect(made.session).toBe(null);
    expect(errorOf(made.reply)).toMatchObject({ field, error: expect.stringMatching(error) as unknown });
  });

  test("any damage to a state is refused or accepted, without any other error", () => {
    const text = JSON.stringify(session);
    const next = random(5);
    const paths = [...text.matchAll(/"(\w+)":/g)].map(({ 1: name }) => name ?? "");
    for (let i = 0; i < 300; i++) {
      const name = paths[Math.floor(next() * paths.length)] ?? "";
      const value = ["null", "-1", '"x"', "[]", "{}", "1e300", "true"][Math.floor(next() * 7)] ?? "";
      const hurt = text.replace(
        new RegExp(`"${name}":("[^"]*"|[^,{}[\\]]+|\\[[^\\]]*\\])`),
        `"${name}":${value}`,
      );
      const { session: made, reply } = answerLine(null, `{"type":"init","state":${hurt}}`);
      if (reply.type === "error") expect([made, reply.field]).toEqual([null, "state"]);
      else expect(reply.type).toBe("weights");
    }
  });
});

describe("observe", () => {
  const session = first({ rule: cosine });

  test.each<[object, string | null, RegExp]>([
    [{ step: undefined }, "step", /^it is missing/],
    [{ step: -1 }, "step", /whole number/],
    [{ step: 1.5 }, "step", /whole number/],
    [{ alignments: { web: 1, cod: 1 } }, "alignments.cod", /did you mean "code"\?/],
    [{ alignments: { web: 1, code: "2" } }, "alignments.code", /^it is "2", not a finite number/],
    [{ alignments: [1, 2] }, "alignments", /not an object with a number per domain, such as/],
    [{ alignments: 3 }, "alignments", /^it is 3, not an object with a number per domain/],
    [{ alignments: { web: 1 } }, "alignments.code", /^it is missing, but norms has a number for this domain/],
    [{ norms: { web: 1, code: -1 } }, "norms.code", /at least 0/],
    [{ norms: undefined }, "norms", /^it is missing; rule dga needs it together with alignments, targetNorm/],
    [{ targetNorm: -1 }, "targetNorm", /at least 0/],
    [{ tokens: { web: 1 } }, "tokens.code", /^it is missing, but the domain was measured/],
    [{ tokens: { web: 1, code: -1 } }, "tokens.code", /at least 0/],
    [
      { alignments: { web: 1 }, norms: { web: 1 }, tokens: { web: 1, code: 2 } },
      "alignments.code",
      /tokens has a number for this domain/,
    ],
    [{ losses: { web: null, code: true } }, "losses.code", /^it is true, not a finite number/],
    [{ targetExamples: 0 }, "targetExamples", /whole number of at least 1/],
    [{ tokensSeen: { web: 1 } }, "tokensSeen.code", /^it is missing/],
    [{ aligments: {} }, "aligments", /did you mean "alignments"\?/],
    [{ gramDomains: ["web"] }, "gramDomains", /names the rows of gram, but gram is missing/],
    [{ gram: [[1]] }, "gram", /^it has 1 rows for 2 domains/],
    [{ gram: [[1, 2], [2]] }, "gram.code", /^it has 1 items, not 2/],
    [
      {
        gram: [
          [1, null],
          [2, 1],
        ],
      },
      "gram.web.code",
      /^it is null, not/,
    ],
    [{ gram: { web: { web: 1, code: 2 } } }, "gram.code", /it has no row/],
    [{ gram: { web: { web: 1 }, code: { code: 2 } } }, "gram.web.code", /^it is missing/],
    [{ gram: [[1]], gramDomains: ["wbe"] }, "gramDomains.wbe", /did you mean "web"\?/],
    [
      {
        gram: [
          [1, 1],
          [1, 1],
        ],
        gramDomains: ["web", "web"],
      },
      "gramDomains",
      /twice/,
    ],
    [{ sketches: { web: "AAAA" } }, "alignments", /it follows from the sketches/],
    [
      { heldOutErrors: { web: 1 } },
      "heldOutLosses",
      /^it is missing; heldOutErrors can only be sent together with it/,
    ],
    [{ heldOutLosses: { web: -1 } }, "heldOutLosses.web", /at least 0/],
    [{ targets: { first: { alignments: {}, norm: 1 } } }, "targets.first.loss", /^it is missing/],
    [{ targets: { first: { alignments: {}, norm: 1, loss: 0 } } }, "targets.first.loss", /above 0/],
    [{ shares: { web: 1, code: -1 } }, "shares.code", /at least 0/],
    [{ averaged: 1 }, "averaged", /not true or false/],
  ])("is refused for %j", (change, field, error) => {
    const made = answer(session, JSON.parse(JSON.stringify({ ...measured, ...change })));
    expect(made.session).toBe(session);
    expect(errorOf(made.reply)).toMatchObject({ field, error: expect.stringMatching(error) as unknown });
  });

  test("an error of the rule names the field", () => {
    const ado = first({ rule: { name: "ado" } });
    const given = { type: "observe", step: 1, losses: { web: 1, code: -2 }, tokensSeen: { web: 1, code: 1 } };
    expect(errorOf(answer(ado, given).reply).field).toBe("losses.code");
    const rnb = first({ rule: { name: "rnb" } });
    expect(
      errorOf(
        answer(rnb, {
          type: "observe",
          step: 1,
          gram: [
            [1, 2],
            [3, 4],
          ],
        }).reply,
      ),
    ).toMatchObject({
      error: expect.stringContaining("symmetric") as unknown,
    });
    const grape = first({ rule: { name: "grape", targets: ["math", "law"] } });
    const of = { alignments: { web: 1, code: 1 }, norm: 1, loss: 1 };
    const some = { type: "observe", step: 1, norms: { web: 1, code: 1 } };
    expect(errorOf(answer(grape, { ...some, targets: { math: of } }).reply).field).toBe("targets.law");
    expect(errorOf(answer(grape, { ...some, targets: { math: of, lwa: of } }).reply)).toMatchObject({
      field: "targets.lwa",
      error: 'it is not a target; did you mean "law"?',
    });
  });

  test("the field of a rule's error does not come from its message, which a name could imitate", () => {
    const odd = ': norms of domain "a" is 3';
    const fieldOf = (name: string, measured: object): string | null => {
      const session = first({ domains: [odd, "web"], rule: { name } });
      return errorOf(answer(session, { type: "observe", step: 1, ...measured }).reply).field;
    };
    expect(fieldOf("ado", { losses: { web: 1, [odd]: -2 }, tokensSeen: { web: 1, [odd]: 1 } })).toBe(
      `losses.${odd}`,
    );
    expect(fieldOf("rnb", { gram: [[1, 0], [5, 2]] })).toBe(`gram.${odd}`); // prettier-ignore
    // A message cannot bring such numbers to this rule.
    const grape = createMixer({ domains: [odd, "web"], rule: { name: "grape", targets: ["law"] } });
    const law = { name: "law", alignments: [NaN, 1], norm: 1, loss: 1 };
    expect(() => update(grape, grape.initial, { norms: [1, 1], targets: [law] })).toThrow(
      expect.objectContaining({ place: ["targets", "law", "alignments", odd] }),
    );
  });

  test("the reply lists fields that the rule ignores and fields that measure nothing", () => {
    const reply = weightsOf(
      send(first(), { type: "observe", step: 3, losses: { web: 1 }, tokensSeen: { web: 1, code: 2 } }).reply,
    );
    expect(reply).toMatchObject({ step: 3, changed: false, diagnostics: { updated: false, measured: 0 } });
    expect(reply.diagnostics.ignored).toEqual([
      { field: "losses", reason: "rule dga does not use it" },
      { field: "tokensSeen", reason: "rule dga does not use it" },
    ]);
    const none = weightsOf(send(first(), { type: "observe", step: 3, alignments: { web: null } }).reply);
    expect(none.diagnostics.ignored).toEqual([{ field: "alignments", reason: "no domain was measured" }]);
    const seeded = weightsOf(send(null, { type: "init", domains: ["a"], seed: 3 }).reply);
    expect(seeded.diagnostics.ignored).toEqual([{ field: "seed", reason: "no rule draws random numbers" }]);
  });

  test("the reply to init lists the facts that have no effect on the rule", () => {
    const facts = { sizes: { a: 1, b: 2 }, tokens: 5, histogram: { a: 1 } };
    const ignored = (fields: object): string[] => {
      const { reply } = send(null, { type: "init", domains: ["a", "b"], ...fields });
      return weightsOf(reply).diagnostics.ignored.map(({ field }) => field);
    };
    expect(ignored({ rule: { name: "rnb" }, ...facts })).toEqual(["sizes", "tokens", "histogram"]);
    expect(ignored({ rule: { name: "dga" }, ...facts })).toEqual([]);
    expect(ignored({ rule: { name: "dga", normalise: "cosine" }, ...facts })).toEqual(["sizes", "tokens", "histogram"]); // prettier-ignore
    expect(ignored({ rule: { name: "dga", prior: { a: 1, b: 1 } }, ...facts })).toEqual(["histogram"]);
    expect(ignored({ rule: { name: "dga" }, tokens: 5 })).toEqual(["tokens"]);
    expect(ignored({ rule: { name: "temperature" }, ...facts })).toEqual(["tokens", "histogram"]);
    expect(ignored({ rule: { name: "importanceSampling" }, ...facts })).toEqual(["sizes", "tokens"]);
    const cap = { name: "repetitionCap", repetitions: 9 };
    expect(ignored({ rule: { name: "rnb" }, combinators: [cap], ...facts })).toEqual(["histogram"]);
    const { reply } = send(null, { type: "init", domains: ["a"], rule: { name: "dga" }, sizes: { a: 3 } });
    expect(weightsOf(reply).diagnostics.ignored).toEqual([
      { field: "sizes", reason: "rule dga limits repetitions only if it knows the tokens of each domain and of the run" },
    ]); // prettier-ignore
  });

  test("a Gram matrix may be sent by names, in any order, or as one half", () => {
    const session = first({ domains: ["a", "b", "c"], rule: { name: "rnb", target: [0.2, 0.3, 0.5] } });
    const sent = (gram: object): WeightsReply =>
      weightsOf(send(session, { type: "observe", step: 1, ...gram }).reply);
    const wanted = sent({ gram: [[4, 1, -1], [1, 3, 2], [-1, 2, 5]] }); // prettier-ignore
    expect(wanted).toMatchObject({ changed: true, diagnostics: { measured: 3, ignored: [] } });
    for (const same of [
      { gram: [[5, -1, 2], [-1, 4, 1], [2, 1, 3]], gramDomains: ["c", "a", "b"] }, // prettier-ignore
      { gram: { b: { b: 3, a: 1, c: 2 }, a: { c: -1, a: 4, b: 1 }, c: { a: -1, b: 2, c: 5 } } },
      { gram: { a: { a: 4, b: 1, c: -1 }, b: { b: 3, c: 2 }, c: { c: 5 } } },
      { gram: { c: { a: -1, b: 2, c: 5 }, a: { a: 4 }, b: { a: 1, b: 3 } } },
    ])
      expect(sent(same)).toEqual(wanted);
    const part = sent({ gram: [[5, 2], [2, 3]], gramDomains: ["c", "b"] }); // prettier-ignore
    expect(part.weights["a"]).toBe(1 / 3);
    expect(sent({ gram: { b: { b: 3, c: 2 }, c: { c: 5 }, a: null } })).toEqual(part);
  });

  test("a domain with 0 tokens counts as not measured, whatever else is sent", () => {
    const init = { rule: { name: "dga", normalise: "raw", beta: 1 }, domains: ["a", "b", "c"] };
    const sent = (alignments: object, tokens: object): unknown =>
      weightsOf(send(first(init), { type: "observe", step: 1, alignments, tokens }).reply).weights;
    const wanted = sent({ a: 1, b: 2 }, { a: 3, b: 3 });
    expect(sent({ a: 1, b: 2, c: 7 }, { a: 3, b: 3, c: 0 })).toEqual(wanted);
    expect(sent({ a: 1, b: 2, c: null }, { a: 3, b: 3, c: 0 })).toEqual(wanted);
  });
});

describe("sketches", () => {
  const next = random(7);
  const sketch = (n: number): Float32Array => Float32Array.from({ length: n }, () => next() - 0.5);
  const base64 = (of: Float32Array): string =>
    Buffer.from(of.buffer, of.byteOffset, of.byteLength).toString("base64");
  const dot = (a: Float32Array, b: Float32Array): number =>
    a.reduce((sum, value, n) => sum + value * b[n], 0);
  const [web, code, target] = [sketch(33), sketch(33), sketch(33)];
  const sent = { web: base64(web), code: base64(code), target: base64(target) };
  const norms = { web: Math.sqrt(dot(web, web)), code: Math.sqrt(dot(code, code)) };

  test.each<[object, object]>([
    [
      cosine,
      {
        alignments: { web: dot(web, target), code: dot(code, target) },
        norms,
        targetNorm: Math.sqrt(dot(target, target)),
      },
    ],
    [
      { name: "rnb" },
      {
        gram: [
          [dot(web, web), dot(web, code)],
          [dot(code, web), dot(code, code)],
        ],
      },
    ],
  ])("give the same as the numbers that they contain: %j", (rule, numbers) => {
    const session = first({ rule });
    const [found, wanted] = [{ sketches: sent }, numbers].map((part) =>
      weightsOf(send(session, { type: "observe", step: 1, ...part }).reply),
    );
    expect(found?.weights).toEqual(wanted?.weights);
    expect(found?.changed).toBe(true);
    expect(found?.diagnostics).toMatchObject({ measured: 2, ignored: [] });
  });

  test("of some domains measure only those", () => {
    const { reply } = send(first({ rule: cosine }), {
      type: "observe",
      step: 1,
      sketches: { ...sent, code: null },
    });
    expect(weightsOf(reply).diagnostics.measured).toBe(1);
  });

  test.each<[object, string, RegExp]>([
    [{ ...sent, web: "AAA" }, "sketches.web", /"AAA", not base64/],
    [{ ...sent, web: "A*==" }, "sketches.web", /"A\*==", not base64/],
    [{ ...sent, web: "" }, "sketches.web", /^it has 0 bytes/],
    [{ ...sent, web: "AAAAAAA=" }, "sketches.web", /^it has 5 bytes/],
    [{ ...sent, web: 3 }, "sketches.web", /^it is 3, not base64/],
    [
      { ...sent, code: base64(sketch(32)) },
      "sketches.code",
      /^it has 32 numbers, but the sketch of "web" has 33/,
    ],
    [
      { ...sent, web: base64(Float32Array.of(...web.subarray(1), NaN)) },
      "sketches.web",
      /^it has the number NaN at index 32/,
    ],
    [
      { ...sent, web: base64(Float32Array.of(-Infinity, ...web.subarray(1))) },
      "sketches.web",
      /^it has the number -Infinity at index 0/,
    ],
    [{ ...sent, cod: sent.code }, "sketches.cod", /did you mean "code"\?/],
    [{ web: sent.web, code: sent.code }, "sketches.target", /^it is missing/],
  ])("are refused: %#", (sketches, field, error) => {
    const session = first({ rule: cosine });
    const made = answer(session, { type: "observe", step: 1, sketches });
    expect(made.session).toBe(session);
    expect(errorOf(made.reply)).toMatchObject({ field, error: expect.stringMatching(error) as unknown });
  });

  test('a domain called "target" cannot have a sketch', () => {
    const session = first({ domains: ["target", "b"] });
    expect(errorOf(answer(session, { type: "observe", step: 1, sketches: sent }).reply).error).toMatch(
      /is ambiguous/,
    );
  });
});

describe("loss multipliers", () => {
  const domains = ["web", "code"];
  const rule = { name: "static", weights: [0.25, 0.75] };
  const init = (more: object): WeightsReply =>
    weightsOf(send(null, { type: "init", domains, rule, ...more }).reply);

  test("are the weights divided by the drawn shares, and are sent from then on", () => {
    expect(init({}).lossMultipliers).toBeUndefined();
    expect(init({ lossMultipliers: true }).lossMultipliers).toEqual({ web: 0.5, code: 1.5 });
    expect(init({ shares: { web: 3, code: 1 }, lossMultipliers: false }).lossMultipliers).toBeUndefined();
    const shares = { web: 3e307, code: 1e307 };
    const { session } = send(null, { type: "init", domains, rule, shares });
    const later = weightsOf(send(session, { type: "observe", step: 1 }).reply);
    expectNear(later.lossMultipliers?.["web"], 1 / 3, 1e-15);
    expectNear(later.lossMultipliers?.["code"], 3, 1e-15);
    const other = weightsOf(send(session, { type: "observe", step: 1, shares: { web: 1, code: 1 } }).reply);
    expect(other.lossMultipliers).toEqual({ web: 0.5, code: 1.5 });
  });

  test("leave out a domain that is not drawn, and report it if it has weight", () => {
    const reply = init({ shares: { web: 0, code: 1 } });
    expect(reply.lossMultipliers).toEqual({ code: 0.75 });
    expect(reply.diagnostics.ignored).toEqual([
      { field: "shares.web", reason: "its share is 0, so no multiplier can give the domain its weight" },
    ]);
  });
});

test("names with a special meaning for objects are handled like all others", () => {
  const strange = ["__proto__", "constructor", "7", "é\u0301", "a.b"];
  const numbers = (values: readonly number[]): string =>
    `{${strange.map((name, i) => `${JSON.stringify(name)}:${values[i]}`).join(",")}}`;
  let { session, reply } = answerLine(
    null,
    `{"type":"init","domains":${JSON.stringify(strange)},"sizes":${numbers([1, 2, 3, 4, 5])},"rule":{"name":"dga","normalise":"raw","beta":1}}`,
  );
  ({ session, reply } = answerLine(
    session,
    `{"type":"observe","step":1,"alignments":${numbers([1, 2, 3, 4, 5])}}`,
  ));
  const text = JSON.stringify(reply);
  const found = JSON.parse(text) as WeightsReply;
  expect(Object.keys(found.weights).toSorted()).toEqual(strange.toSorted());
  const direct = createMixer({ domains: strange, rule: { name: "dga", normalise: "raw", beta: 1 } });
  const { weights } = update(direct, direct.initial, { alignments: [1, 2, 3, 4, 5] }).rule;
  expect(
    strange.map((name) => Object.getOwnPropertyDescriptor(found.weights, name)?.value as number),
  ).toEqual(weights);
  const resumed = send(null, { type: "init", state: JSON.parse(JSON.stringify(session)) as unknown });
  expect(resumed.session).toEqual(session);
});

test.each<[string, string | null, RegExp]>([
  ["", null, /^the line is not JSON .*; the line is empty$/],
  ["hello", null, /^the line is not JSON/],
  [
    '{"type":"observe","step":1,"alignments":{"web":NaN}}',
    null,
    /JSON has no NaN; leave out numbers that were not measured$/,
  ],
  ['{"type":"observe","step":1,"targetNorm":-Infinity}', null, /JSON has no -?Infinity/],
  ['{"type":"observe","step":1,"targetNorm":1e999}', "targetNorm", /^it is Infinity, not a finite number/],
  ["[]", null, /^a list is not a message/],
  ["3", null, /^3 is not a message/],
  ["null", null, /^null is not a message/],
  ["{}", "type", /^it is missing; the types are init, observe, snapshot$/],
  ['{"type":"obsrve"}', "type", /did you mean "observe"\?/],
  ['{"type":"toString"}', "type", /not a type of message/],
  ['{"type":"snapshot","step":1}', "step", /it is an unknown field; there are type/],
])("a line that is not a message is refused: %s", (line, field, error) => {
  const session = first();
  const made = answerLine(session, line);
  expect(made.session).toBe(session);
  expect(errorOf(made.reply)).toMatchObject({ field, error: expect.stringMatching(error) as unknown });
});

test("the first message must be init", () => {
  for (const message of [measured, { type: "snapshot" }])
    expect(errorOf(answer(null, message).reply)).toMatchObject({
      field: "type",
      error: "there is no session yet; send init first",
    });
});

test("huge and deeply nested input is refused in a short message", () => {
  const name = "x".repeat(1e6);
  const session = first();
  const lines = [
    `{"type":"observe","step":1,"alignments":{"${name}":1}}`,
    `{"type":"${name}"}`,
    `{"${name}":1,"type":"observe"}`,
    `{"type":"init","rule":${"[".repeat(1e5)}${"]".repeat(1e5)}}`,
    `{"type":"init","combinators":${"[".repeat(1e5)}${"]".repeat(1e5)}}`,
    "[".repeat(1e6),
  ];
  for (const line of lines) {
    const { session: same, reply } = answerLine(session, line);
    expect(same).toBe(session);
    expect(JSON.stringify(errorOf(reply)).length).toBeLessThan(2000);
  }
});

test("only a full call stack is reported as deep nesting; other errors of ranges are internal", () => {
  const deep = `{"type":"init","rule":{"name":"dga","prior":${"[".repeat(1e5)}${"]".repeat(1e5)}}}`;
  expect(errorOf(answerLine(first(), deep).reply)).toMatchObject({
    field: null,
    error: "the message is nested too deeply",
  });
  const thrownBy = (fails: () => unknown): unknown => {
    try {
      return fails();
    } catch (error) {
      return error;
    }
  };
  const length = thrownBy(() => new Array(-1));
  expect(length).toBeInstanceOf(RangeError);
  expect(errorReply(length)).toMatchObject({ field: null, error: "internal error: Invalid array length" });
});

test("10,000 random lines: each gets one reply of one line, and a refused line has no effect", () => {
  const next = random(11);
  const pick = <T>(of: readonly T[]): T => of[Math.floor(next() * of.length)];
  const [example] = fc.sample(signal(K, { mild: true }), { numRuns: 1, seed: 1 });
  if (example === undefined) throw new Error("no sample");
  const rules: RuleOptions[] = [
    { name: "dga" },
    { name: "rnb" },
    { name: "grape", targets: targetNames },
    { name: "ado" },
  ];
  let session: Session | null = null;
  const replies = { weights: 0, state: 0, error: 0 };
  for (let i = 0; i < 10_000; i++) {
    if (i % 2500 === 0) session = send(null, { type: "init", domains, rule: rules[i / 2500] }).session;
    const whole = JSON.stringify(
      pick([
        observe(example, [true, next() < 0.5, true, true], {
          step: i,
          tokens: null,
          needs: null,
          lists: next() < 0.5,
          fixed: false,
        }),
        { type: "snapshot" },
        { type: "init", state: session, snapshot: true },
        { type: "observe", step: i, shares: { domain0: 1, domain1: 1, domain2: 0, domain3: 2 } },
      ]),
    );
    const line = damaged(whole, next, pick);
    const before: Session | null = session;
    const { session: after, reply }: { session: Session | null; reply: Reply } = answerLine(before, line);
    replies[reply.type]++;
    if (reply.type === "error") {
      // Not by `expect`, which takes longer than the rest.
      if (after !== before || /internal error|[\n\r]/.test(reply.error))
        expect.fail(`${line.slice(0, 500)} → ${reply.error}`);
    }
    session = frozen(after);
  }
  // Damage in a place that does not matter is accepted.
  expect(replies.error).toBeGreaterThan(5000);
  expect(replies.weights).toBeGreaterThan(500);
  expect(replies.state).toBeGreaterThan(50);
});

function damaged(line: string, next: () => number, pick: <T>(of: readonly T[]) => T): string {
  const at = Math.floor(next() * line.length);
  const value = (): string =>
    pick([
      "null",
      "-1",
      "1e400",
      "NaN",
      '"x"',
      "[]",
      "{}",
      "true",
      "[[1,2],[3]]",
      '{"domain0":{}}',
      "1e308",
      '"AAAA"',
      "0",
    ]);
  switch (Math.floor(next() * 6)) {
    case 0:
      return line.slice(0, at);
    case 1:
      return `${line.slice(0, at)}${String.fromCharCode(32 + Math.floor(next() * 95))}${line.slice(at + 1)}`;
    case 2: {
      const members = [...line.matchAll(/"(\w+)":/g)];
      const { index, 0: found } = pick(members);
      // Replaces a number, a text, or everything up to the next comma.
      const rest = line
        .slice(index + found.length)
        .replace(/^("[^"]*"|[^,{}[\]]+|\{\}|\[[^\]]*\]|\{[^{}]*\})/, value());
      return `${line.slice(0, index)}${found}${rest}`;
    }
    case 3:
      return line.replaceAll(
        `"domain${Math.floor(next() * K)}"`,
        pick(['"domin0"', '"__proto__"', '""', '"domain0"']),
      );
    case 4:
      return `${line.slice(0, -1)},"${pick([...initFields, ...observeFields, "x"])}":${value()}}`;
    default:
      return line;
  }
}

test("facts in init have the same effect as in createMixer", () => {
  const options: MixerOptions = {
    domains,
    rule: { name: "dga" },
    combinators: [{ name: "repetitionCap", repetitions: 4 }],
    ...facts,
  };
  const { session } = send(null, { type: "init", ...options });
  expect(session.mixer).toEqual(JSON.parse(JSON.stringify(createMixer(options).initial)));
});

const text = readFileSync(join(import.meta.dirname, "../../docs/trainers.md"), "utf8");

test("the session in the documentation has the replies that it shows", () => {
  const lines = [...text.matchAll(/^ {4}([→←]) (.*)$/gm)].map(([, side, line = ""]) => ({ side, line }));
  expect(lines.length).toBe(10);
  const short = (_: string, value: unknown): unknown =>
    typeof value === "number" ? Number(value.toPrecision(3)) : value;
  let session: Session | null = null;
  lines.forEach(({ side, line }, i) => {
    if (side !== "→") return;
    const made: { session: Session | null; reply: Reply } = answerLine(session, line);
    session = made.session;
    const [start = "", rest] = (lines[i + 1]?.line ?? "").split("…");
    const found = JSON.stringify(made.reply, short);
    expect(rest === undefined ? found : found.slice(0, start.length)).toBe(start);
  });
});

test("the documentation names every field", () => {
  const fieldsOf = (heading: string): string[] => {
    const section = text.split(`### ${heading}\n`)[1]?.split("\n### ")[0] ?? "";
    const rows = section.split("\n").filter((line) => line.startsWith("| `"));
    return rows.flatMap((row) =>
      [...(row.split("|")[1] ?? "").matchAll(/`(\w+)`/g)].map(({ 1: name }) => name ?? ""),
    );
  };
  expect(fieldsOf("init").toSorted()).toEqual(initFields.filter((name) => name !== "type").toSorted());
  expect(fieldsOf("observe").toSorted()).toEqual(observeFields.filter((name) => name !== "type").toSorted());
});
