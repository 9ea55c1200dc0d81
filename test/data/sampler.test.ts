/** The order of the data: permutations, the sampler, windows and batches. */
import fc from "fast-check";
import {
  assembleBatch,
  createSampler,
  type Draw,
  evaluationWindows,
  readWindow,
  splitStream,
  tokenWriter,
  windowsOf,
} from "gradmix/data";
import { describe, expect, test } from "vitest";
import { permute } from "#dist/data/permutation.js";
import { corpusWriter } from "#dist/data/tokens.js";
import { foldIn, key } from "#dist/tensor/rng.js";
import { errorOf } from "../errors.ts";

const counts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 6 });
const domainsOf = (sizes: readonly number[]) =>
  sizes.map((count, i) => ({ name: `d${i}`, count, tokensOf: (index: number) => 10 + index }));

/** Weights on the simplex for k domains, some of them 0. */
const weightsOf = (k: number): fc.Arbitrary<number[]> =>
  fc
    .array(
      fc.oneof(
        { weight: 1, arbitrary: fc.constant(0) },
        { weight: 3, arbitrary: fc.double({ min: 1e-6, max: 1, noNaN: true }) },
      ),
      {
        minLength: k,
        maxLength: k,
      },
    )
    .filter((values) => values.some((value) => value > 0))
    .map((values) => {
      const sum = values.reduce((a, b) => a + b, 0);
      return values.map((value) => value / sum);
    });

test("a sampler keeps its own list of domains", () => {
  const domains = domainsOf([5, 7]);
  const options = { domains, seed: 3 };
  const [kept, changed] = [createSampler(options), createSampler({ ...options, domains: [...domains] })];
  domains.pop();
  expect(kept.draw([0.5, 0.5], 20)).toEqual(changed.draw([0.5, 0.5], 20));
});

test("a permutation reaches every place once, and differs between keys", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 600 }), fc.maxSafeNat(), (n, seed) => {
      const places = Array.from({ length: n }, (_, i) => permute(key(seed), n, i));
      expect([...places].sort((a, b) => a - b)).toEqual(places.map((_, i) => i));
    }),
  );
  const order = (seed: number): number[] => Array.from({ length: 50 }, (_, i) => permute(key(seed), 50, i));
  expect(order(1)).not.toEqual(order(2));
  expect(permute(key(5), 2 ** 32, 2 ** 31)).toBeLessThan(2 ** 32);
});

test.each([3, 4, 5])("all orders of %i windows are equally likely", (n) => {
  const orders = new Map<string, number>();
  const expected = 80;
  const count = [1, 1, 2, 6, 24, 120][n] ?? 0;
  for (let seed = 0; seed < expected * count; seed++) {
    const order = Array.from({ length: n }, (_, i) => permute(foldIn(key(seed), 3), n, i)).join();
    orders.set(order, (orders.get(order) ?? 0) + 1);
  }
  expect(orders.size).toBe(count);
  const chiSquare = [...orders.values()].reduce((sum, hits) => sum + (hits - expected) ** 2 / expected, 0);
  // Three standard deviations of χ² and a little for its skew: near its 99.9 % quantile for these degrees of freedom.
  expect(chiSquare).toBeLessThan(count - 1 + 3.3 * Math.sqrt(2 * (count - 1)) + 3);
});

describe("the sampler", () => {
  test("gives each window once per epoch, counts what it gave, and never draws from a domain with weight 0", () => {
    fc.assert(
      fc.property(
        counts.chain((sizes) =>
          fc.tuple(fc.constant(sizes), fc.array(weightsOf(sizes.length), { minLength: 1, maxLength: 4 })),
        ),
        fc.maxSafeNat(),
        fc.constantFrom("multinomial" as const, "systematic" as const),
        ([sizes, weightings], seed, mode) => {
          const domains = domainsOf(sizes);
          const sampler = createSampler({ domains, seed, mode });
          const seen: Draw[] = [];
          for (const weights of weightings) {
            const draws = sampler.draw(weights, 37);
            expect(draws.length).toBe(37);
            for (const { domain } of draws) expect(weights[domain]).toBeGreaterThan(0);
            seen.push(...draws);
          }
          sizes.forEach((count, domain) => {
            const mine = seen.filter((draw) => draw.domain === domain);
            mine.forEach(({ epoch }, i) => expect(epoch).toBe(Math.floor(i / count)));
            for (let from = 0; from < mine.length; from += count) {
              const windows = mine.slice(from, from + count).map((draw) => draw.window);
              expect(new Set(windows).size).toBe(windows.length);
              for (const window of windows) expect(window).toBeLessThan(count);
            }
            expect(sampler.epochs()[domain]).toBe(mine.length / count);
            expect(sampler.tokens()[domain]).toBe(mine.reduce((n, { window }) => n + 10 + window, 0));
          });
        },
      ),
    );
  });

  test("continues from a saved state like an uninterrupted one", () => {
    fc.assert(
      fc.property(
        counts.chain((sizes) =>
          fc.tuple(fc.constant(sizes), weightsOf(sizes.length), weightsOf(sizes.length)),
        ),
        fc.maxSafeNat(),
        fc.nat(30),
        fc.constantFrom("multinomial" as const, "systematic" as const),
        ([sizes, before, after], seed, cut, mode) => {
          const domains = domainsOf(sizes);
          const whole = createSampler({ domains, seed, mode });
          whole.draw(before, cut);
          const saved = JSON.stringify(whole.state());
          const rest = [whole.draw(after, 20), whole.drawFrom(0, 3)];
          const other = createSampler({ domains, seed, mode });
          other.restore(JSON.parse(saved));
          expect([other.draw(after, 20), other.drawFrom(0, 3)]).toEqual(rest);
          expect(other.state()).toEqual(whole.state());
        },
      ),
    );
  });

  test("systematic draws take ⌊nα⌋ or ⌈nα⌉ examples of a domain", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }).chain(weightsOf),
        fc.maxSafeNat(),
        fc.integer({ min: 1, max: 200 }),
        (weights, seed, n) => {
          const sampler = createSampler({
            domains: domainsOf(weights.map(() => 7)),
            seed,
            mode: "systematic",
          });
          const hits = weights.map(() => 0);
          for (const { domain } of sampler.draw(weights, n)) hits[domain] = (hits[domain] ?? 0) + 1;
          hits.forEach((hit, i) => expect(Math.abs(hit - n * (weights[i] ?? 0))).toBeLessThan(1 + 1e-9));
        },
      ),
    );
  });

  test.each(["multinomial", "systematic"] as const)("frequencies follow the weights (%s)", (mode) => {
    const weights = [0.5, 0.3, 0.15, 0.05, 0];
    const n = 20_000;
    const sampler = createSampler({ domains: domainsOf([3, 4, 5, 6, 7]), seed: 7, mode });
    const hits = [0, 0, 0, 0, 0];
    for (let i = 0; i < 100; i++)
      for (const { domain } of sampler.draw(weights, n / 100)) hits[domain] = (hits[domain] ?? 0) + 1;
    const chiSquare = hits
      .slice(0, 4)
      .reduce((sum, hit, i) => sum + (hit - n * (weights[i] ?? 0)) ** 2 / (n * (weights[i] ?? 1)), 0);
    // 99.9 % quantile for 3 degrees of freedom.
    expect(chiSquare).toBeLessThan(16.3);
    expect(hits[4]).toBe(0);
  });

  test("has a separate key for the order of every epoch, domain and seed", () => {
    const sizes = [30, 30, 31];
    const orders = [1, 2].flatMap((seed) => {
      const sampler = createSampler({ domains: domainsOf(sizes), seed });
      return sizes.flatMap((count, domain) =>
        [0, 1, 2].map((epoch) => {
          const order = sampler.drawFrom(domain, count).map(({ window }) => window);
          // The definition: a permutation whose key is folded from the seed, the domain and the epoch.
          const own = foldIn(foldIn(key(seed), domain + 1), epoch);
          expect(order).toEqual(Array.from({ length: count }, (_, i) => permute(own, count, i)));
          return order.join();
        }),
      );
    });
    expect(new Set(orders).size).toBe(orders.length);
  });

  test("systematic draws of few rows give every domain its weight on average", () => {
    const weights = [0.4, 0.35, 0.25];
    for (const rows of [1, 2]) {
      const sampler = createSampler({ domains: domainsOf([3, 4, 5]), seed: 11, mode: "systematic" });
      const rounds = 6000;
      // The domain of the first row: its share of [0, 1/rows), since the offset is uniform there.
      const hits = [0, 0, 0];
      for (let i = 0; i < rounds; i++) hits[sampler.draw(weights, rows)[0].domain]++;
      const expected = rows === 1 ? weights : [0.8, 0.2, 0];
      hits.forEach((hit, i) => {
        const deviation = Math.sqrt(rounds * expected[i] * (1 - expected[i]));
        expect(Math.abs(hit - rounds * expected[i])).toBeLessThanOrEqual(4 * deviation);
      });
    }
  });

  test("refuses weights that are not on the simplex, names the domain, and draws nothing", () => {
    const sampler = createSampler({ domains: domainsOf([3, 4]), seed: 1 });
    const before = sampler.state();
    for (const [weights, message] of [
      [[0.5], /1 values for 2 domains/],
      [[1.2, -0.2], /"d1" has -0\.2/],
      [[NaN, 1], /"d0" has NaN/],
      [[Infinity, 0], /"d0" has Infinity/],
      [[0.5, 0.4], /sum to 0\.9, not to 1/],
      [[0, 0], /sum to 0, not to 1/],
    ] as const)
      expect(() => sampler.draw(weights, 4)).toThrow(message);
    expect(sampler.state()).toEqual(before);
  });

  test("refuses sources that it cannot draw from", () => {
    const domains = domainsOf([3, 4]);
    const sampler = createSampler({ domains, seed: 1 });
    for (const domain of [2, -1, 0.5, NaN])
      for (const call of [() => sampler.seen(domain), () => sampler.drawFrom(domain, 1)])
        expect(errorOf(call)).toMatchObject({ code: "config", message: expect.stringMatching(/^domain: /) });
    for (const seed of [-1, 0.5, NaN])
      expect(() => createSampler({ domains, seed })).toThrow(/seed: .* must be an integer of at least 0/);
    expect(() => createSampler({ domains, seed: 2 ** 53 })).toThrow(/seed: .* at most 9007199254740991/);
    expect(() => createSampler({ domains: domainsOf([3, 0]), seed: 1 })).toThrow(
      /"d1": the number of examples is 0; it must be a whole number of at least 1/,
    );
    const text = [{ ...domains[0], count: "100" as unknown as number }];
    expect(() => createSampler({ domains: text, seed: 1 })).toThrow(/"d0": the number of examples is "100";/);
  });

  test("accepts domains whose tokensOf is a method", () => {
    const sampler = createSampler({
      domains: [
        {
          name: "d",
          count: 2,
          tokensOf() {
            return this.count + 5;
          },
        },
      ],
      seed: 1,
    });
    sampler.draw([1], 3);
    expect(sampler.tokens()).toEqual([21]);
  });

  test("refuses states of other samplers", () => {
    const sampler = createSampler({ domains: domainsOf([3, 4]), seed: 1 });
    const good = sampler.state();
    for (const [state, message] of [
      [null, /not an object/],
      [{ ...good, version: 2 }, /version is 2, not 1/],
      [{ ...good, seed: 2 }, /seed is 2, not 1/],
      [{ ...good, taken: [1] }, /taken has 1 items, not 2/],
      [{ ...good, tokens: [1, -1] }, /tokens\.1 is -1/],
      [{ ...good, draws: 0.5 }, /draws is 0\.5/],
    ] as const)
      expect(() => sampler.restore(state)).toThrow(message);
    expect(sampler.state()).toEqual(good);
  });
});

/** A stream of documents with the given lengths; token i of the stream is i, ends of documents included. */
function stream(lengths: readonly number[], vocabSize = 70_000) {
  const writer = tokenWriter(vocabSize, 65_535);
  let next = 0;
  for (const length of lengths) {
    writer.document(Array.from({ length }, () => next++));
    next++;
  }
  return writer.finish();
}

describe("windows", () => {
  test("cover every pair of neighbours exactly once; padding does not count", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(60), { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 20 }),
        (lengths, time) => {
          const tokens = stream(lengths);
          const pairs = tokens.tokens.length - 1;
          if (pairs < time) {
            expect(() => windowsOf("d", tokens, time)).toThrow(
              new RegExp(`"d": ${pairs + 1} tokens are less than one window of ${time} \\+ 1`),
            );
            const short = evaluationWindows("d", tokens, time);
            expect(short === null).toBe(pairs < 1);
            if (short !== null) expect([short.count, short.tokensOf(0)]).toEqual([1, pairs]);
            return;
          }
          const windows = windowsOf("d", tokens, time);
          const seen: [number, number][] = [];
          for (let w = 0; w < windows.count; w++) {
            const inputs = new Int32Array(time);
            const targets = new Int32Array(time);
            readWindow(windows, w, inputs, targets, 0);
            const valid = windows.tokensOf(w);
            expect(valid).toBeGreaterThan(0);
            for (let t = 0; t < time; t++)
              if (t < valid) seen.push([inputs[t] ?? 0, targets[t] ?? 0]);
              else expect([inputs[t], targets[t]]).toEqual([0, -1]);
          }
          expect(seen).toEqual(
            Array.from({ length: pairs }, (_, i) => [tokens.tokens[i], tokens.tokens[i + 1]]),
          );
        },
      ),
    );
  });

  test("drop a partial last window on request", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 90 }), fc.integer({ min: 1, max: 20 }), (length, time) => {
        fc.pre(length >= time);
        const dropped = windowsOf("d", stream([length]), time, { partial: "drop" });
        expect(dropped.count).toBe(Math.floor(length / time));
        for (let w = 0; w < dropped.count; w++) expect(dropped.tokensOf(w)).toBe(time);
      }),
    );
  });

  test("streams keep documents and can be cut anywhere", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(9), { minLength: 1, maxLength: 6 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (lengths, share) => {
          const whole = stream(lengths);
          let end = 0;
          const starts = lengths.map((n) => (end += n + 1));
          expect([...whole.documents]).toEqual([0, ...starts]);
          const at = Math.round(share * whole.tokens.length);
          const [head, tail] = splitStream(whole, at);
          expect([...head.tokens, ...tail.tokens]).toEqual([...whole.tokens]);
          // Boundaries stay where they are, the cut is one more, and none stands twice.
          const within = (from: number, to: number): number[] =>
            [...new Set([from, ...starts.filter((start) => start > from && start < to), to])].map(
              (x) => x - from,
            );
          expect([...head.documents]).toEqual(within(0, at));
          expect([...tail.documents]).toEqual(within(at, whole.tokens.length));
        },
      ),
    );
  });

  test("streams of one writer can be moved behind those of another, and writing continues", () => {
    const writers = [corpusWriter(300, 299), corpusWriter(300, 299)];
    writers[0].document([1, 2]);
    writers[1].document([3]);
    writers[1].document([]);
    writers[0].moveFrom(writers[1]);
    writers[0].append([4]);
    writers[0].end();
    writers[1].document([5]);
    const [first, second] = writers.map((writer) => writer.finish());
    expect([...first.tokens]).toEqual([1, 2, 299, 3, 299, 299, 4, 299]);
    expect([...first.documents]).toEqual([0, 3, 5, 6, 8]);
    expect([[...second.tokens], [...second.documents]]).toEqual([
      [5, 299],
      [0, 2],
    ]);
  });

  test("ids take two bytes if the vocabulary fits", () => {
    expect(stream([3], 65_536).tokens).toBeInstanceOf(Uint16Array);
    expect(stream([3], 65_537).tokens).toBeInstanceOf(Uint32Array);
  });
});

test("a batch has the drawn windows, in the order of the draws or stably sorted by domain", () => {
  const sources = [windowsOf("a", stream([40]), 4), windowsOf("b", stream([30]), 4)];
  const draws: Draw[] = [1, 0, 1, 0].map((domain, i) => ({ domain, window: (5 * i) % 7, epoch: 0 }));
  const plain = assembleBatch(draws, sources);
  expect([...plain.domainOf]).toEqual([1, 0, 1, 0]);
  const sorted = assembleBatch(draws, sources, { sortByDomain: true });
  expect([...sorted.domainOf]).toEqual([0, 0, 1, 1]);
  expect([...sorted.inputs.filter((_, i) => i % 4 === 0)]).toEqual([5, 1, 0, 3].map((window) => window * 4));
  expect([...sorted.tokens]).toEqual([4, 4, 4, 4]);
});
