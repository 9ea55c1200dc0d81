/** Measurements of training steps: gathered per example, converted to numbers of domains, saved and read back. */
import { createBases } from "gradmix/dga";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  checkGathered,
  domainOffsets,
  gather,
  type Gathered,
  gatheredAlignments,
  lossesByDomain,
  emptyGathered,
  pairsOf,
  savedGathered,
  type StepMeasurements,
} from "#dist/dga/gathered.js";
import { domainNorms } from "#dist/dga/statistics.js";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const k = 4;
const names = ["a", "b", "c", "d"];
const q = new Float64Array(k).fill(1 / k);
/** Numbers of similar magnitude, because most doubles with a random exponent are close to 0. */
const number = fc.integer({ min: -70, max: 70 }).map((eighths) => eighths / 8);

/** An example of a step: its domain, its tokens, and a gradient of two parameters. */
interface Example {
  readonly domain: number;
  readonly tokens: number;
  readonly gradient: readonly [number, number];
  readonly loss: number;
}
const example = fc.record({
  domain: fc.nat(k - 1),
  tokens: fc.nat(3),
  gradient: fc.tuple(number, number),
  loss: number,
});
/** Steps, each sorted by domain. Examples without tokens have no loss and no gradient. */
const steps = fc.array(
  fc
    .array(example, { maxLength: 8 })
    .map((step) =>
      step
        .map((one): Example => (one.tokens > 0 ? one : { ...one, gradient: [0, 0], loss: 0 }))
        .sort((a, b) => a.domain - b.domain),
    ),
  { maxLength: 5 },
);

const target = [0.5, -2] as const;
type Plane = readonly [number, number];
const dot = (a: Plane, b: Plane): number => a[0] * b[0] + a[1] * b[1];
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const sumOf = (gradients: readonly Plane[]): Plane => [
  sum(gradients.map(([x]) => x)),
  sum(gradients.map(([, y]) => y)),
];

function told(step: readonly Example[]): StepMeasurements {
  const domainOf = step.map(({ domain }) => domain);
  const tokens = Float64Array.from(step, (one) => one.tokens);
  const offsets = domainOffsets(domainOf);
  const squares = Float64Array.from(step, ({ gradient }) => dot(gradient, gradient));
  const groupSquares = Float64Array.from(offsets.slice(1), (end, g) => {
    const whole = sumOf(step.slice(offsets[g], end).map(({ gradient }) => gradient));
    return dot(whole, whole);
  });
  return {
    domainOf,
    tokens,
    losses: step.map(({ loss }) => loss),
    dots: step.map(({ gradient }) => dot(gradient, target)),
    squaredNorms: squares,
    referenceLosses: step.map(({ loss }) => 2 * loss + 1),
    pairs: pairsOf(domainOf, tokens, offsets, squares, groupSquares),
  };
}

function gatheredOf(all: readonly (readonly Example[])[]): Gathered {
  const gathered = emptyGathered();
  for (const step of all) gather(gathered, told(step));
  gathered.targetNorms.push(3, 5);
  gathered.targetLosses.push(1, 2.5);
  return gathered;
}

test("products of pairs are those of any two different examples of a domain in a step", () => {
  fc.assert(
    fc.property(steps, (all) => {
      for (const step of all) {
        const wanted = new Map<number, { dots: number; tokens: number }>();
        step.forEach((one, s) =>
          step.forEach((other, t) => {
            if (s === t || one.domain !== other.domain || one.tokens * other.tokens === 0) return;
            const { dots, tokens } = wanted.get(one.domain) ?? { dots: 0, tokens: 0 };
            wanted.set(one.domain, {
              dots: dots + dot(one.gradient, other.gradient),
              tokens: tokens + one.tokens * other.tokens,
            });
          }),
        );
        const found = told(step).pairs;
        expect(found.map(({ domain, tokens }) => [domain, tokens])).toEqual(
          [...wanted].map(([domain, { tokens }]) => [domain, tokens]),
        );
        expectNear(
          found.map(({ dots }) => dots),
          [...wanted.values()].map(({ dots }) => dots),
          1e-12,
          1000,
        );
      }
    }),
  );
});

test("domainOffsets gives the places where domains begin and end", () => {
  expect(domainOffsets([2])).toEqual([0, 1]);
  expect(domainOffsets([0, 0, 3, 3, 3, 5])).toEqual([0, 2, 5, 6]);
});

test("losses, alignments, norms and errors cover all examples of a domain", () => {
  fc.assert(
    fc.property(steps, (all) => {
      const gathered = gatheredOf(all);
      const found = gatheredAlignments(gathered, k, undefined, q);
      const losses = lossesByDomain(gathered, k);
      const examples = all.flat();
      names.forEach((_, i) => {
        const own = examples.filter(({ domain }) => domain === i);
        const tokens = sum(own.map((one) => one.tokens));
        expect(found.tokens[i]).toBe(tokens);
        const per = (value: number): number => (tokens > 0 ? value / tokens : 0);
        const close = (value: number | undefined, wanted: number): void =>
          expectNear(value ?? NaN, wanted, 1e-12, 1000);
        close(found.losses[i], per(sum(own.map(({ loss }) => loss))));
        close(losses.losses[i], per(sum(own.map(({ loss }) => loss))));
        close(losses.referenceLosses[i], per(sum(own.map(({ loss }) => 2 * loss + 1))));
        close(found.alignments[i], per(dot(sumOf(own.map(({ gradient }) => gradient)), target)));
        const counted = own.filter((one) => one.tokens > 0).length;
        expect(found.standardErrors?.[i] === null).toBe(counted < 2);
      });
      expect(losses.tokens).toEqual(found.tokens);
      expect(found).toMatchObject({ targetNorm: 4, targetLoss: 1.75 });
      const parts = names.map((_, i) => {
        const counted = examples.filter(({ domain, tokens }) => domain === i && tokens > 0);
        const pairs = all.flatMap((step) => told(step).pairs.filter(({ domain }) => domain === i));
        return {
          pairDots: sum(pairs.map(({ dots }) => dots)),
          pairTokens: sum(pairs.map(({ tokens }) => tokens)),
          squares: sum(counted.map(({ gradient, tokens }) => dot(gradient, gradient) / tokens ** 2)),
          examples: counted.length,
        };
      });
      expectNear(found.norms ?? [], domainNorms(parts), 1e-9, 1000);
    }),
  );
});

test("bases that are domains have the numbers of these domains, in the order of the bases", () => {
  const bases = createBases({ x: [0, 0, 1, 0], y: [1, 0, 0, 0] }, names);
  fc.assert(
    fc.property(steps, (all) => {
      const gathered = gatheredOf(all);
      const domains = gatheredAlignments(gathered, k, undefined, q);
      const { alignments, standardErrors, norms, tokens, losses, ...rest } = gatheredAlignments(
        gathered,
        k,
        bases,
        q,
      );
      const picked = (values: ArrayLike<number | null> | undefined): unknown[] => [values?.[2], values?.[0]];
      expect([...alignments]).toEqual(picked(domains.alignments));
      expect(standardErrors).toEqual(picked(domains.standardErrors));
      expect([...(norms ?? [])]).toEqual(picked(domains.norms));
      expect([...tokens]).toEqual(picked(domains.tokens));
      expect([...losses]).toEqual(picked(domains.losses));
      expect(rest).toEqual({ targetNorm: 4, targetLoss: 1.75 });
    }),
  );
});

test("the norm of a basis over several domains is the root mean square over its examples, per token", () => {
  const bases = createBases({ x: [0.5, 0.5, 0, 0] }, names);
  fc.assert(
    fc.property(steps, (all) => {
      const own = all.flat().filter(({ domain, tokens }) => domain < 2 && tokens > 0);
      const squares = own.map(({ gradient, tokens }) => dot(gradient, gradient) / tokens ** 2);
      const wanted = own.length > 0 ? Math.sqrt(sum(squares) / own.length) : 0;
      const found = gatheredAlignments(gatheredOf(all), k, bases, q);
      expectNear(found.norms, [wanted], 1e-12, 100);
      expect(found).toMatchObject({ targetNorm: 4, targetLoss: 1.75 });
    }),
  );
});

test("without norms of examples, as with tied weights, domains and bases have no norms", () => {
  const step: Example[] = [
    { domain: 0, tokens: 2, gradient: [1, 2], loss: 3 },
    { domain: 1, tokens: 1, gradient: [2, 0], loss: 1 },
  ];
  const whole = gatheredOf([step]);
  const tied = { ...gatheredOf([step]), squaredNorms: [] };
  for (const bases of [
    undefined,
    createBases({ x: [1, 0, 0, 0], y: [0, 1, 0, 0] }, names),
    createBases({ x: [0.5, 0.5, 0, 0], y: [0, 0.5, 0.5, 0] }, names),
  ]) {
    const { norms, ...rest } = gatheredAlignments(whole, k, bases, q);
    expect(norms?.every((norm, i) => norm > 0 || rest.tokens[i] === 0)).toBe(true);
    expect(gatheredAlignments(tied, k, bases, q)).toStrictEqual(rest);
  }
  expect(gatheredAlignments(emptyGathered(), k, undefined, q)).toMatchObject({
    targetNorm: 0,
    targetLoss: 0,
  });
  // So it is with losses of a reference.
  const { referenceLosses, losses } = lossesByDomain({ ...whole, referenceLosses: [] }, k);
  expect([...referenceLosses]).toEqual([0, 0, 0, 0]);
  expect([...losses]).toEqual([1.5, 1, 0, 0]);
});

describe("in a checkpoint", () => {
  const saved = (all: readonly (readonly Example[])[]): Record<string, unknown> =>
    JSON.parse(JSON.stringify(savedGathered(gatheredOf(all)))) as Record<string, unknown>;

  test("the restored state is equal, and a copy", () => {
    fc.assert(
      fc.property(steps, (all) => {
        const gathered = gatheredOf(all);
        // JSON has no −0.
        expect(JSON.stringify(checkGathered(saved(all), k))).toBe(JSON.stringify(gathered));
        const copy = savedGathered(gathered);
        gather(gathered, told([{ domain: 0, tokens: 1, gradient: [1, 1], loss: 1 }]));
        expect(JSON.stringify(copy)).toBe(JSON.stringify({ ...gatheredOf(all), version: 2 }));
      }),
    );
  });

  const step: Example[] = [
    { domain: 0, tokens: 3, gradient: [1, 2], loss: 3 },
    { domain: 0, tokens: 0, gradient: [0, 0], loss: 0 },
    { domain: 3, tokens: 1, gradient: [2, 0], loss: 1 },
    { domain: 3, tokens: 2, gradient: [2, 1], loss: 1 },
  ];
  const good = saved([step]);
  const read = (change: Record<string, unknown>): Gathered => checkGathered({ ...good, ...change }, k);

  test("fields that the rule did not need, or that older versions did not have, may be missing", () => {
    const wanted = checkGathered(good, k);
    for (const name of ["dots", "squaredNorms", "referenceLosses"])
      expect(read({ [name]: [] })).toEqual({ ...wanted, [name]: [] });
    const none = { pairDomains: [], pairDots: [], pairTokens: [] };
    expect(read({ pairDomains: undefined, pairDots: undefined, pairTokens: undefined })).toEqual({
      ...wanted,
      ...none,
    });
    expect(read({ targetNorms: [], targetLosses: [] })).toEqual({
      ...wanted,
      targetNorms: [],
      targetLosses: [],
    });
    // Squared norms of mean losses per token, with 1 in place of 0 tokens.
    expect(read({ version: undefined, squaredNorms: [5, 7, 4, 5] })).toEqual({
      ...wanted,
      squaredNorms: [45, 7, 4, 20],
    });
  });

  test("all other differences are refused", () => {
    const lists = Object.keys(emptyGathered());
    const domainLists = ["domainOf", "pairDomains"];
    const refused = (change: Record<string, unknown>, why: string): void =>
      expect(
        codeOf(() => read(change)),
        JSON.stringify(change),
      ).toMatch(new RegExp(`^checkpoint: checkpoint: what the steps gathered: ${why}`));
    for (const json of [null, 5, "x", undefined])
      expect(codeOf(() => checkGathered(json, k))).toMatch(
        /what the steps gathered: is .*; it must be an object$|, not an object$/,
      );
    for (const version of [0, 1, 3, "2", null])
      refused({ version }, `version is ${version === "2" ? '"2"' : String(version)}, not 2`);
    for (const name of lists) {
      const values = good[name] as number[];
      if (!name.startsWith("pair")) refused({ [name]: undefined }, `${name} is missing; it must be a list`);
      refused({ [name]: { length: values.length } }, `${name} is an object, not a list`);
      for (const bad of [null, "1", NaN, Infinity, -Infinity])
        refused(
          { [name]: [...values.slice(0, -1), bad] },
          `${name}\\.${values.length - 1} is ${bad === "1" ? '"1"' : String(bad)}, not a (finite|whole) number`,
        );
    }
    for (const name of ["tokens", "losses", "dots", "squaredNorms", "referenceLosses"])
      for (const length of name === "tokens" || name === "losses" ? [0, 3, 5] : [3, 5])
        refused({ [name]: new Array(length).fill(1) }, `has ${length} ${name} for 4 examples`);
    for (const name of ["pairDots", "pairTokens"])
      for (const length of [0, 2])
        refused({ [name]: new Array(length).fill(1) }, `has ${length} ${name} for 1 pairs`);
    for (const name of domainLists)
      for (const bad of [-1, 0.5, k])
        refused(
          { [name]: [...(good[name] as number[]).slice(0, -1), bad] },
          `${name}\\.\\d is ${bad === k ? `${k}, but there are ${k} domains` : `${bad}, not a whole number`}`,
        );
    for (const name of domainLists)
      for (const edge of [0, k - 1]) read({ [name]: (good[name] as number[]).map(() => edge) });
  });
});
