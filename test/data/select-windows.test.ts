/** The selection of windows: against a slow oracle of the same formulas, and on text whose best windows are known. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { bigramHistogram, type Selection, selectWindows, type TokenStream, windowsOf } from "gradmix/data";
import { reselectInTurns, selectInTurns } from "#dist/data/select-windows.js";
import { GradmixError } from "#dist/errors.js";

const T = 4;

const streamOf = (tokens: readonly number[]): TokenStream => ({
  tokens: Uint16Array.from(tokens),
  documents: Float64Array.of(0, tokens.length),
});
const windows = (name: string, tokens: readonly number[], time = T) =>
  windowsOf(name, streamOf(tokens), time);

/** Uniform numbers from a seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Text of one of several languages: each token is followed by one of two others, which depend on the language. */
function written(language: number, length: number, random: () => number): number[] {
  const tokens = [0];
  while (tokens.length < length)
    tokens.push((tokens[tokens.length - 1] * (3 + 2 * language) + 1 + Math.floor(2 * random())) % 31);
  return tokens;
}

const rowsOf = (source: Selection["domains"][number], indices: readonly number[]): string[] => {
  const { inputs } = source.batchOf(indices);
  return indices.map((_, row) => inputs.slice(row * T, (row + 1) * T).join(" "));
};

/** The inputs of all windows of a source. */
const inputsOf = (source: Selection["domains"][number]): string[] =>
  rowsOf(
    source,
    Array.from({ length: source.count }, (_, index) => index),
  );

/** How often something occurs in pieces of text. */
const counted = (pieces: readonly (readonly number[])[], ...sequence: readonly number[]): number =>
  pieces.reduce(
    (sum, piece) => sum + piece.filter((_, t) => sequence.every((token, j) => piece[t + j] === token)).length,
    0,
  );

// With many tokens, ratios are not in a table.
test.each([0, 1400])(
  "a window's score is that of the bigrams of the target against those of all text without the window, and the best of each block are kept (%i more tokens)",
  (more) => {
    // Two domains of three blocks, and a target that is long enough.
    const random = randomOf(3);
    const target = written(0, 4500, random);
    const texts = [
      [...written(0, 200, random), ...written(1, 170, random)],
      [...written(1, 120, random), ...written(2, 150, random), ...written(0, 40, random)],
    ];
    if (more > 0) texts.push(Array.from({ length: more }, (_, i) => 100 + i));
    const sets = texts.map((text, i) => windows(`d${i}`, text));
    const given = { weights: texts.map(() => 0.5), tokens: 0, leastShare: 0.3 };
    const found = selectWindows(windows("target", target), sets, given);

    // The target is counted in ten parts.
    const parts = Array.from({ length: 10 }, (_, p) => target.slice(p * 450, (p + 1) * 450));
    const all = texts.flat().length;
    const background = (token: number): number => 5e-6 + counted(texts, token) / all;
    const likelihood = (
      pieces: readonly (readonly number[])[],
      [a, b]: readonly [number, number],
      without: readonly number[],
    ): number => {
      const times = (...tokens: readonly number[]): number =>
        counted(pieces, ...tokens) - counted([without], ...tokens);
      const single = (times(b) + 1500 * background(b)) / (pieces.flat().length - without.length + 1500);
      return (times(a, b) + 20 * single) / (times(a) + 20);
    };
    sets.slice(0, 2).forEach((set, i) => {
      const kept = Math.round(found.shares[i] * set.count);
      expect(found.domains[i].count).toBe(kept);
      const blocks = Math.ceil(set.count / 32);
      expect(blocks).toBeGreaterThan(2);
      const scores = Array.from({ length: set.count }, (_, w): number => {
        const window = texts[i].slice(w * T, (w + 1) * T + 1);
        const ratios = window.slice(1).map((b, t): number => {
          const pair = [window[t], b] as const;
          return Math.log(likelihood(parts, pair, []) / likelihood(texts, pair, window));
        });
        return ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length;
      });
      const best = Array.from({ length: blocks }, (_, block) => {
        const own = Array.from(scores.keys()).filter((w) => w % blocks === block);
        const take = Array.from({ length: kept }, (_, g) => g).filter((g) => g % blocks === block).length;
        return own.sort((one, other) => scores[other] - scores[one]).slice(0, take);
      });
      expect(inputsOf(found.domains[i]).sort()).toEqual(rowsOf(set, best.flat()).sort());
    });
  },
);

describe("how much is kept", () => {
  const random = randomOf(11);
  const target = windows("target", written(0, 12_000, random));
  const alike = windows("alike", written(0, 4001, random));
  const other = windows("other", written(1, 4001, random));
  const trust = 1 - 4000 / 12_000;

  test("a domain in the target's language keeps nearly all, one in another language the least share", () => {
    const { shares } = selectWindows(target, [alike, other], { weights: [1, 1], tokens: 0 });
    expectNear(shares[1], 1 - (1 - 0.25) * trust, 0.5 / other.count + 1e-12);
    expect(shares[0]).toBeGreaterThan(0.8);
  });

  test("says why it keeps all windows, and only then", () => {
    const whole = (tokens: number, weights: number[], leastShare: number, of = target): string | null =>
      selectWindows(of, [alike, other], { tokens, weights, leastShare }).whole;
    expect(whole(0, [1, 1], 0.5)).toBeNull();
    expect(whole(0, [1, 1], 1)).toBe("all text was asked for");
    expect(whole(32_000, [1, 0], 0.5)).toContain("reads all of the text 4 times or more");
    expect(whole(31_000, [1, 0], 0.5)).toBeNull();
    expect(whole(8000, [1, 1], 0.5)).toBe("the run is expected to read all of each domain");
    const few = (n: number) => windows("few", written(0, n, randomOf(5)));
    expect(whole(0, [1, 1], 0.5, few(4000))).toBe(
      "the target has 4,000 training tokens, and up to 4,000 do not show which windows resemble it",
    );
    // A domain of a single window keeps it.
    const { whole: one } = selectWindows(target, [windows("one", [1, 2, 3, 4, 5])], {
      tokens: 0,
      weights: [1],
    });
    expect(one).toBe(
      "the windows of each domain resemble the target as much as its own text does, or are too few to divide",
    );
  });

  test("no more is left out than the run can do without, whatever the weights, and each share is one that the definition allows", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 2, maxLength: 2 }),
        fc.integer({ min: 0, max: 40_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (weights, tokens, leastShare) => {
          fc.pre(weights[0] + weights[1] > 0);
          const { shares, domains, sizes } = selectWindows(target, [alike, other], {
            ...{ weights, tokens, leastShare },
          });
          const sum = weights[0] + weights[1];
          [alike, other].forEach(({ count, stream }, i) => {
            const read = Math.max(leastShare, tokens / (4 * 8000), (weights[i] / sum) * (tokens / 4000));
            const least = Math.max(1 / count, read >= 1 ? 1 : 1 - (1 - read) * trust);
            // Whole windows are kept, and the share is that of what is kept.
            const kept = domains[i].count;
            expect(shares[i]).toBe(kept / count);
            expect(sizes[i]).toBe(Math.round(shares[i] * stream.tokens.length));
            if (i === 0) expect(kept).toBeGreaterThanOrEqual(least * count - 0.5 - 1e-6);
            else expect(Math.abs(kept - least * count)).toBeLessThanOrEqual(0.5 + 1e-6);
          });
        },
      ),
      { numRuns: 20 },
    );
  });

  test("a target of 4,000 tokens or fewer selects nothing, and one token more selects almost nothing", () => {
    const long = windows("long", written(1, 16_001, random));
    for (const [length, kept] of [
      [4000, 4000],
      [4001, Math.round(4000 * (1 - 0.75 / 4001))],
    ] as const) {
      const few = windows("target", written(0, length, randomOf(5)));
      const { shares, domains } = selectWindows(few, [long], { weights: [1], tokens: 0 });
      expect(domains[0].count).toBe(kept);
      expect(shares[0]).toBe(kept / 4000);
      if (length === 4000) expect(domains[0]).toBe(long);
    }
  });

  test("of a domain of few windows, what is kept is what the share and the size say", () => {
    for (const count of [1, 2, 3, 5]) {
      const few = windows("few", written(1, count * T + 1, random));
      const { domains, shares, sizes } = selectWindows(target, [few, other], {
        ...{ weights: [0, 1], tokens: 0 },
      });
      // The least share is 0.5 here.
      expect(domains[0].count).toBe(Math.max(1, Math.round(0.5 * count)));
      expect(shares[0]).toBe(domains[0].count / count);
      expect(sizes[0]).toBe(Math.round((few.stream.tokens.length * domains[0].count) / count));
    }
  });

  test("a run that reads all text gets the domains themselves", () => {
    const given = { weights: [1, 1], tokens: 4 * 8001 };
    expect(selectWindows(target, [alike, other], given).domains).toEqual([alike, other]);
    const whole = { weights: [1, 1], tokens: 0, leastShare: 1 };
    expect(selectWindows(target, [alike, other], whole).domains[0]).toBe(alike);
  });
});

describe("what is kept", () => {
  const random = randomOf(17);
  /** A text in which each window of T tokens is in one of two languages, at random. */
  const mixed = (length: number): { tokens: number[]; first: boolean[] } => {
    const first = Array.from({ length }, () => random() < 0.5);
    const tokens = first.flatMap((one) => {
      const piece = written(one ? 0 : 1, 12 + T, random);
      return piece.slice(12);
    });
    return { tokens: [...tokens, 0], first };
  };
  const target = windows("target", written(0, 20_000, random));

  test("of windows in two languages, those in the target's", () => {
    const { tokens, first } = mixed(3000);
    const domain = windows("mixed", tokens);
    const found = selectWindows(target, [domain], { weights: [1], tokens: 0 });
    const own = new Set(first.flatMap((one, w) => (one ? [tokens.slice(w * T, (w + 1) * T).join(" ")] : [])));
    const kept = inputsOf(found.domains[0]);
    const hits = kept.filter((text) => own.has(text)).length;
    // By chance it would be about half.
    expect(hits / kept.length).toBeGreaterThan(0.97);
    // A mixture of both languages has half of its windows as good as the target.
    expect(found.shares[0]).toBeLessThan(0.6);
  });

  test("each window is kept once, and has the tokens that it has in the domain", () => {
    const domain = windows("mixed", mixed(700).tokens.slice(0, -3));
    const source = selectWindows(target, [domain], { weights: [1], tokens: 0 }).domains[0];
    const whole = Array.from({ length: domain.count }, (_, w) => JSON.stringify(domain.batchOf([w])));
    const kept = Array.from({ length: source.count }, (_, g) => {
      const batch = source.batchOf([g]);
      expect(source.tokensOf(g)).toBe(batch.tokens[0]);
      return JSON.stringify(batch);
    });
    expect(kept.length).toBeLessThan(whole.length);
    const times = (texts: readonly string[], text: string): number =>
      texts.filter((one) => one === text).length;
    for (const text of new Set(kept)) expect(times(kept, text)).toBeLessThanOrEqual(times(whole, text));
    expect([source.name, source.time]).toEqual(["mixed", T]);
    // With it, a model checks the whole domain before a run.
    expect(source.of).toBe(domain);
    for (const bad of [source.count, -1, 0.5, NaN])
      for (const read of [() => source.batchOf([bad]), () => source.tokensOf(bad)])
        expect(read).toThrow(expect.objectContaining({ code: "data" }));
  });

  test("the order in which windows are requested changes nothing, and the shares alone give the same windows again", async () => {
    const domain = windows("mixed", mixed(500).tokens);
    const options = { weights: [1], tokens: 0 };
    const [one, other] = [0, 1].map(() => selectWindows(target, [domain], options));
    const backwards = Array.from(
      { length: other.domains[0].count },
      (_, g) => other.domains[0].count - 1 - g,
    );
    for (const g of backwards) other.domains[0].batchOf([g]);
    expect(inputsOf(other.domains[0])).toEqual(inputsOf(one.domains[0]));
    const { signal } = new AbortController();
    const again = await reselectInTurns(target, [domain], one.shares, signal);
    expect(inputsOf(again.domains[0])).toEqual(inputsOf(one.domains[0]));
    expect(again.shares).toEqual(one.shares);
    await expect(selectInTurns(target, [domain], options, AbortSignal.abort("stop"))).rejects.toBe("stop");
  });

  test("a share of less than a quarter keeps the best of larger blocks", async () => {
    const good = 113;
    const all = 6400;
    const first = Array.from({ length: all }, (_, w) => w < good);
    for (let w = all - 1; w > 0; w--) {
      const other = Math.floor((w + 1) * random());
      [first[w], first[other]] = [first[other], first[w]];
    }
    const tokens = first.flatMap((one) => written(one ? 0 : 1, 12 + T, random).slice(12));
    const domain = windows("rare", [...tokens, 0]);
    const long = windows("target", written(0, 400_000, random));
    const found = selectWindows(long, [domain], { weights: [1], tokens: 0, leastShare: 0.01 });
    expect(found.shares[0]).toBeLessThan(1 / 32);
    const own = new Set(first.flatMap((one, w) => (one ? [tokens.slice(w * T, (w + 1) * T).join(" ")] : [])));
    const kept = inputsOf(found.domains[0]);
    // If at most one window per 32 could be kept, there would be about 87 of them.
    expect(kept.filter((text) => own.has(text)).length).toBeGreaterThan(0.9 * good);
    const { signal } = new AbortController();
    const again = await reselectInTurns(long, [domain], found.shares, signal);
    expect(inputsOf(again.domains[0])).toEqual(kept);
  });

  test("of very large domains, a part is counted, and windows outside it are scored as well", () => {
    const { tokens, first } = mixed(30_000);
    const domain = windows("large", tokens);
    const found = selectWindows(target, [domain], { weights: [1], tokens: 0 });
    const own = new Set(first.flatMap((one, w) => (one ? [tokens.slice(w * T, (w + 1) * T).join(" ")] : [])));
    const kept = inputsOf(found.domains[0]);
    expect(kept.filter((text) => own.has(text)).length / kept.length).toBeGreaterThan(0.97);
  });
});

test("bad options and texts are refused", () => {
  const random = randomOf(1);
  const target = windows("target", written(0, 5000, random));
  const domain = windows("d", written(1, 500, random));
  const select =
    (options: object, domains: readonly unknown[] = [domain]) =>
    (): unknown =>
      Reflect.apply(selectWindows, undefined, [target, domains, { weights: [1], tokens: 10, ...options }]);
  expect(select({})).not.toThrow();
  for (const [options, message] of [
    [{ weights: [1, 1] }, "weights: 2 values for 1 domains"],
    [{ weights: [-1] }, "weights: value 0 is -1"],
    [{ weights: [NaN] }, "weights: value 0 is NaN"],
    [{ weights: [Infinity] }, "weights: value 0 is Infinity"],
    [{ weights: [0] }, "all values are 0"],
    [{ weights: undefined }, "weights"],
    [{ tokens: -1 }, "tokens"],
    [{ leastShare: 1.5 }, "leastShare"],
    [{ share: 0.5 }, "share"],
  ] as const)
    expect(select(options)).toThrow(
      expect.objectContaining({ code: "config", message: expect.stringContaining(message) as string }),
    );
  expect(select({}, ["d"])).toThrow(GradmixError);
  expect(select({}, [windows("longer", written(1, 500, random), 8)])).toThrow(
    expect.objectContaining({ code: "data" }),
  );
});

test("with a histogram of the target as the weights, a domain that is the target's own language is not thinned", () => {
  const random = randomOf(23);
  const target = windows("target", written(0, 30_000, random), 64);
  const sets = [0, 1, 2].map((language) => windows(`d${language}`, written(language, 60_000, random), 64));
  const { shares: weights } = bigramHistogram(target, sets);
  const { shares } = selectWindows(target, sets, { weights, tokens: 6000 });
  expect(weights[0]).toBeGreaterThan(0.9);
  expect(shares[0]).toBeGreaterThan(0.8);
  expect(Math.max(shares[1], shares[2])).toBeLessThan(0.36);
});

test("the target's own windows are scored without their part of the target: rare pairs do not make it unlike text of the same kind", () => {
  const random = randomOf(29);
  // Pairs hardly ever repeat.
  const noise = (length: number): number[] => Array.from({ length }, () => Math.floor(3000 * random() ** 2));
  const target = windows("target", noise(12_000), 16);
  const { shares } = selectWindows(target, [windows("alike", noise(12_000), 16)], {
    ...{ weights: [1], tokens: 0 },
  });
  expect(shares[0]).toBeGreaterThan(0.7);
});
