/** The histogram of a target: its scores against a dense implementation, its fits against known answers, and planted mixtures. */
import fc from "fast-check";
import { bigramHistogram, type Histogram, type TokenStream, type Windows, windowsOf } from "gradmix/data";
import { describe, expect, test } from "vitest";
import {
  type CountedDomain,
  type Piece,
  type PieceGroup,
  scoreGroups,
  type Stretch,
} from "#dist/data/bigram-scores.js";
import { calibrate, likelihoods, mixtureShares } from "#dist/data/mixture-fit.js";
import { foldIn, key, uniformAt } from "#dist/tensor/rng.js";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";

/** Uniform numbers, one after another. */
function numbers(seed: number): () => number {
  const of = foldIn(key(91), seed);
  let n = 0;
  return () => uniformAt(of, n++);
}

const streamOf = (...documents: number[][]): TokenStream => {
  const starts = [0];
  for (const document of documents) starts.push(starts[starts.length - 1] + document.length);
  return { tokens: Uint32Array.from(documents.flat()), documents: Float64Array.from(starts) };
};

/** The total variation distance. */
const variation = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) / 2;

describe("scores of pieces", () => {
  /** The formulas of src/data/bigram-scores.ts, over all tokens, with Maps: unigram and bigram scores [groups][domains · pieces][2]. */
  function dense(groups: readonly PieceGroup[], domains: readonly CountedDomain[], length: number) {
    const textOf = ({ stream, stretches }: CountedDomain, hole: Stretch | null) => {
      const ids = stream.tokens.subarray(0, stream.tokens.length);
      const count = new Map<string, number>();
      let total = 0;
      const add = (name: string): void => void count.set(name, (count.get(name) ?? 0) + 1);
      for (const { from, to } of stretches)
        for (let t = from; t < to; t++) {
          if (hole !== null && t >= hole.from && t < hole.to) continue;
          total++;
          add(`${ids[t]}`);
          if (t > from) add(`${ids[t - 1]} ${ids[t]}`);
        }
      return { total, of: (name: string) => count.get(name) ?? 0 };
    };
    const whole = domains.map((domain) => textOf(domain, null));
    const background = (b: number): number =>
      5e-6 + whole.reduce((sum, { total, of }) => sum + of(`${b}`) / total / whole.length, 0);
    return groups.map(({ pieces, holes }) =>
      domains.flatMap((domain, i) => {
        const text = textOf(domain, holes[i]);
        return pieces.map(({ stream, start }) => {
          let [unigram, bigram] = [0, 0];
          for (let t = start; t < start + length; t++) {
            const [a, b] = stream.tokens.subarray(t, t + 2);
            const q = background(b);
            const p = (text.of(`${b}`) + 1500 * q) / (text.total + 1500);
            unigram += Math.log(p / q);
            bigram += Math.log((text.of(`${a} ${b}`) + 20 * p) / (text.of(`${a}`) + 20) / p);
          }
          return [unigram, bigram] as const;
        });
      }),
    );
  }
  const compare = (
    groups: readonly PieceGroup[],
    domains: readonly CountedDomain[],
    length: number,
  ): void => {
    const found = scoreGroups(groups, domains, length);
    expect(found.length).toBe(groups.length);
    dense(groups, domains, length).forEach((wanted, g) => {
      expectNear(found[g].unigram, wanted.map(([x]) => x), 1e-6, 10 * length); // prettier-ignore
      expectNear(found[g].bigram, wanted.map(([, y]) => y), 1e-6, 10 * length); // prettier-ignore
    });
  };

  // Ids on both sides of where they are looked up otherwise, and of 2³¹.
  const ids = [0, 1, 2, 3, 65_536, 2 ** 20 - 1, 2 ** 20, 2 ** 20 + 1, 2 ** 32 - 1];
  const text = fc
    .array(fc.constantFrom(...ids), { minLength: 12, maxLength: 60 })
    .map((tokens) => streamOf(tokens));
  test("equal those of a dense implementation, whatever part of a domain is left out", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(text, fc.nat(11), fc.nat(11), fc.boolean()), { minLength: 1, maxLength: 4 }),
        text,
        fc.integer({ min: 1, max: 5 }),
        (given, target, length) => {
          const domains = given.map(([stream, middle, , cut]): CountedDomain => {
            const n = stream.tokens.length;
            return {
              stream,
              stretches: cut
                ? [{ from: 1, to: middle + 1 }, { from: middle + 1, to: n }] // prettier-ignore
                : [{ from: 0, to: n }],
            };
          });
          const holes = given.map(
            ([stream, middle, size, cut]) =>
            size === 0 ? null : { from: middle + 1, to: Math.min(stream.tokens.length, middle + 1 + (cut ? 3 : size)) }, // prettier-ignore
          );
          const piecesOf = (stream: TokenStream, step: number): Piece[] =>
            Array.from({ length: Math.floor((stream.tokens.length - length - 1) / step) + 1 }, (_, j) => ({
              ...{ stream, start: j * step },
            }));
          const groups = [
            { pieces: piecesOf(target, length), holes: domains.map(() => null) },
            { pieces: given.flatMap(([stream]) => piecesOf(stream, 4)), holes },
            { pieces: [], holes },
          ];
          compare(groups, domains, length);
        },
      ),
      { numRuns: 150 },
    );
  });

  test("are right for more pairs than a table has room for at first", () => {
    const next = numbers(1);
    const domains = [2000, 3000].map((n) => {
      const stream = streamOf(Array.from({ length: n }, () => Math.floor(next() * 3000)));
      return { stream, stretches: [{ from: 0, to: n }] };
    });
    const pieces = Array.from({ length: 40 }, (_, j) => ({ stream: domains[j % 2].stream, start: 30 * j }));
    compare([{ pieces, holes: [null, { from: 100, to: 1000 }] }], domains, 30);
  });
});

describe("calibration", () => {
  /** Scores of pieces whose labels are drawn with the probabilities softmax(θ₁x + θ₂y + b). */
  function drawn(k: number, pieces: number, theta: readonly [number, number], bias: readonly number[]) {
    const next = numbers(k);
    const scores = { unigram: new Float32Array(k * pieces), bigram: new Float32Array(k * pieces) };
    const labels = new Int32Array(pieces);
    for (let w = 0; w < pieces; w++) {
      const logits: number[] = [];
      for (let i = 0; i < k; i++) {
        const [x, y] = [6 * (next() - 0.5), 40 * (next() - 0.5)];
        scores.unigram[i * pieces + w] = x;
        scores.bigram[i * pieces + w] = y;
        logits.push(theta[0] * x + theta[1] * y + bias[i]);
      }
      const weights = logits.map(Math.exp);
      let left = next() * weights.reduce((a, b) => a + b);
      labels[w] = weights.findIndex((weight) => (left -= weight) < 0);
    }
    return { scores, labels };
  }

  test("finds the temperatures and the biases of the distribution that drew the labels", () => {
    const [theta, bias] = [[0.6, 0.08], [0, 0.5, -0.5]] as const; // prettier-ignore
    const { scores, labels } = drawn(3, 20_000, theta, bias);
    // As many of each label, as the calibration counts them.
    const counts = [0, 0, 0];
    for (const label of labels) counts[label]++;
    const found = calibrate(scores, labels, 3);
    expectNear(found.temperature[0], theta[0], 0.05);
    expectNear(found.temperature[1], theta[1], 0.05);
    // Classes that count alike have their bias moved by the logarithm of how often they were there.
    const wanted = bias.map((b, i) => b - Math.log(counts[i]));
    for (const i of [1, 2]) expectNear(found.bias[i] - found.bias[0], wanted[i] - wanted[0], 0.08, 1);
  });

  test("stays finite if all pieces are classified without error, and near the defaults without pieces", () => {
    const k = 3;
    const labels = Int32Array.from({ length: 9 }, (_, w) => w % k);
    const apart = Float32Array.from({ length: k * 9 }, (_, at) => (Math.floor(at / 9) === at % 9 % k ? 50 : 0)); // prettier-ignore
    const sure = calibrate({ unigram: apart, bigram: apart }, labels, k);
    for (const value of [...sure.temperature, ...sure.bias]) expect(Number.isFinite(value)).toBe(true);
    expect(sure.temperature[0] + sure.temperature[1]).toBeGreaterThan(0.1);
    const empty = new Float32Array(0);
    const none = calibrate({ unigram: empty, bigram: empty }, new Int32Array(0), k);
    expect(none).toEqual({ temperature: [0.1, 0.05], bias: new Float64Array(k) });
  });

  test("components count equally, however many pieces they have", () => {
    const { scores, labels } = drawn(2, 4000, [0.5, 0.05], [0, 0]);
    // The pieces of the first component twice.
    const twice = [...labels.keys()].flatMap((w) => (labels[w] === 0 ? [w, w] : [w]));
    const pick = (of: Float32Array): Float32Array =>
      Float32Array.from([0, 1].flatMap((i) => twice.map((w) => of[i * 4000 + w])));
    const once = calibrate(scores, labels, 2);
    const again = calibrate(
      { unigram: pick(scores.unigram), bigram: pick(scores.bigram) },
      Int32Array.from(twice, (w) => labels[w]),
      2,
    );
    expectNear(again.temperature, once.temperature, 0.02);
    expectNear(again.bias[1] - again.bias[0], once.bias[1] - once.bias[0], 0.02, 1);
  });

  test("scores without information get no weight, and if some components have no labels, there is no bias", () => {
    const next = numbers(5);
    const noise = Float32Array.from({ length: 4 * 2000 }, () => 60 * (next() - 0.5));
    const labels = Int32Array.from({ length: 2000 }, () => Math.floor(next() * 3));
    const found = calibrate({ unigram: noise, bigram: noise.map((x) => -x) }, labels, 4);
    // The two scores are opposite here, so only the difference of their temperatures matters.
    expectNear(found.temperature[0] - found.temperature[1], 0, 0.005, 1);
    expect([...found.bias]).toEqual([0, 0, 0, 0]);
  });
});

describe("unmixing", () => {
  /** Pieces of k kinds, each kind of one component with probability `right`, in an order in which every part has all; as many of a kind as of the component. */
  const mixed = (shares: readonly number[], right: number, pieces: number): Float32Array => {
    const k = shares.length;
    // Pieces of component j are of kind j, otherwise of the kind before it.
    const kinds = shares.map((_, e) => right * shares[e] + (1 - right) * shares[(e + 1) % k]);
    const out = new Float32Array(k * pieces).fill(1e-20);
    for (let w = 0; w < pieces; w++) {
      let left = (((w * 37) % pieces) + 0.5) / pieces;
      const kind = kinds.findIndex((share) => (left -= share) < 0);
      out[kind * pieces + w] = right;
      out[((kind + 1) % k) * pieces + w] = 1 - right;
    }
    return out;
  };

  test("recovers planted shares better than the mean posterior", () => {
    const shares = [0.7, 0.2, 0.06, 0.04];
    const target = mixed(shares, 0.8, 500);
    const found = mixtureShares(target, 4);
    const mean = shares.map(
      (_, i) => target.subarray(i * 500, (i + 1) * 500).reduce((a, b) => a + b, 0) / 500,
    );
    expect(variation(found, shares)).toBeLessThan(0.5 * variation(mean, shares));
    expectNear(found.reduce((a, b) => a + b), 1, 1e-12); // prettier-ignore
  });

  test("a single piece gets one step, which gives the mean posterior", () => {
    expectNear(mixtureShares(Float32Array.of(0.9, 0.3), 2), [0.75, 0.25], 1e-7);
  });

  test("gives equal shares to components that cannot be distinguished", () => {
    const target = Float32Array.from([1, 1, 1e-20].flatMap((p) => [p, p, p, p]));
    const found = mixtureShares(target, 3);
    expect(found[0]).toBe(found[1]);
    expect(found[2]).toBeLessThan(0.01);
  });

  test("does not give everything to one of two components that are almost alike", () => {
    const target = Float32Array.from([1, 0.97, 1e-20].flatMap((p) => new Array<number>(600).fill(p)));
    const found = mixtureShares(target, 3);
    expect(found[0]).toBeGreaterThanOrEqual(found[1]);
    expect(found[1]).toBeGreaterThan(0.4);
  });

  test("does not change the shares if pieces that were left out do not agree", () => {
    // Each of the three pieces belongs to another component.
    const target = Float32Array.from({ length: 9 }, (_, at) => (Math.floor(at / 3) === at % 3 ? 1 : 0.01));
    expect([...mixtureShares(target, 3)]).toEqual([1 / 3, 1 / 3, 1 / 3]);
  });

  test("likelihoods follow from θ and the bias; the largest of a piece is 1, and none is 0", () => {
    const scores = { unigram: Float32Array.of(1, 0, 0, 4e4), bigram: Float32Array.of(0, 2, 4, 0) };
    const found = likelihoods(scores, { temperature: [0.5, 0.25], bias: Float64Array.of(0, Math.log(2)) });
    expectNear(found, [Math.exp(0.5) / (2 * Math.exp(1)), 1e-20, 1, 1], 1e-6);
    expect(found[1]).toBeGreaterThan(0);
  });
});

/** A language of 60 tokens: each token is followed by one of four tokens that only this language has, with probability `own`, otherwise by one of four that all share. */
function textOf(seed: number, tokens: number, own = 0.5, walk = 0): number[] {
  const [rules, common, next] = [foldIn(key(31), seed), key(32), numbers(1000 + 7 * seed + walk)];
  const out = [seed % 60];
  while (out.length < tokens) {
    const at = 4 * out[out.length - 1] + Math.floor(4 * next());
    out.push(Math.floor(60 * uniformAt(next() < own ? rules : common, at)));
  }
  return out;
}

const domainOf = (seed: number, tokens = 6000, own = 0.5): Windows<TokenStream> =>
  windowsOf(`domain${seed}`, streamOf(textOf(seed, tokens, own)), 16);

/** Windows of held-out text of each domain, as often as `shares` say, in an order that mixes them. */
function planted(shares: readonly number[], windows: number, own = 0.5): Windows<TokenStream> {
  const counts = shares.map((share) => Math.round(share * windows));
  const documents = counts.flatMap((count, seed) =>
    Array.from({ length: count }, (_, j) => textOf(seed, 64, own, 1 + j)),
  );
  const mixed = documents.map((_, w) => documents[(w * 997) % documents.length]);
  return windowsOf("target", streamOf(...mixed), 16);
}

describe("the histogram of a target", () => {
  const k = 6;
  const domains = Array.from({ length: k }, (_, seed) => domainOf(seed, seed === 0 ? 24_000 : 3000));
  const uniform = new Array<number>(k).fill(1 / k);
  const plants: readonly (readonly [string, readonly number[], number])[] = [
    ["equal", uniform, 0.05],
    ["one", [0, 0, 0, 1, 0, 0], 0.05],
    ["the largest", [1, 0, 0, 0, 0, 0], 0.05],
    ["half and half", [0, 0.5, 0, 0, 0.5, 0], 0.07],
    ["falling", [0.4, 0.25, 0.15, 0.1, 0.06, 0.04], 0.07],
  ];
  test.each(plants)("finds a planted mixture: %s", (_, shares, tolerance) => {
    for (const own of [0.5, 0.3]) {
      const of = own === 0.5 ? domains : domains.map((_, seed) => domainOf(seed, 6000, own));
      const found = bigramHistogram(planted(shares, 600, own), of);
      expect(variation(found.shares, shares), String(own)).toBeLessThan(tolerance);
      expectNear(found.shares.reduce((a, b) => a + b), 1, 1e-12); // prettier-ignore
      expect(Math.min(...found.shares)).toBeGreaterThanOrEqual(0);
      expect(found.counts.reduce((a, b) => a + b)).toBe(found.windows);
    }
  });

  test("the order of the target's documents has no effect", () => {
    const sorted = [1, 4].flatMap((seed) =>
      Array.from({ length: 30 }, (_, j) => textOf(seed, 64, 0.5, 1 + j)),
    );
    const { shares } = bigramHistogram(windowsOf("target", streamOf(...sorted), 16), domains);
    expect(variation(shares, [0, 0.5, 0, 0, 0.5, 0])).toBeLessThan(0.1);
  });

  test("fifteen windows distinguish one domain from a mixture, and keep equal shares from becoming sparse", () => {
    expect(bigramHistogram(planted([0, 1, 0, 0, 0, 0], 15), domains).shares[1]).toBeGreaterThan(0.8);
    const many = Array.from({ length: 24 }, (_, seed) => domainOf(seed, 2000, 0.15));
    const target = planted(new Array<number>(15).fill(1 / 15), 15, 0.15);
    const { shares, counts } = bigramHistogram(target, many);
    // By maximum likelihood, many domains have no share.
    expect(counts.filter((count) => count === 0).length).toBeGreaterThanOrEqual(9);
    expect(Math.min(...shares)).toBeGreaterThan(0.01);
    expect(Math.max(...shares)).toBeLessThan(0.15);
  });

  test("gives on request the standard errors of the shares, which are larger if neighbouring windows are alike", () => {
    const halves = [0, 0.5, 0, 0, 0.5, 0];
    expect(bigramHistogram(planted(halves, 60), domains).standardErrors).toBe(null);
    expect(bigramHistogram(planted([0, 1, 0, 0, 0, 0], 1), domains, { standardErrors: true, windowTokens: 64 }).standardErrors).toBe(null); // prettier-ignore
    const order = (sorted: boolean): Windows<TokenStream> =>
      windowsOf(
        "target",
        streamOf(
          ...Array.from({ length: 100 }, (_, j) =>
            textOf((sorted ? j < 50 : j % 2 === 0) ? 1 : 4, 64, 0.5, 1 + j),
          ),
        ),
        16,
      );
    // The windows are easy to distinguish. If the languages alternate, leaving out any tenth changes little.
    const turns = bigramHistogram(order(false), domains, { standardErrors: true });
    expect(turns.standardErrors?.length).toBe(k);
    expect(turns.standardErrors?.[1]).toBeLessThan(0.06);
    // Five of the ten tenths belong to one domain each, so the standard error of the mean of the ten is √(0.25/9).
    const target = order(true);
    const { standardErrors, shares } = bigramHistogram(target, domains, { standardErrors: true });
    expectNear([standardErrors?.[1] ?? NaN, standardErrors?.[4] ?? NaN], [1 / 6, 1 / 6], 0.15);
    expect(shares).toEqual(bigramHistogram(target, domains).shares);
  });

  test("the shares are in the order of the domains", () => {
    const target = planted(plants[4][1], 300);
    const order = [3, 0, 5, 1, 4, 2];
    const there = bigramHistogram(target, domains);
    const back = bigramHistogram(target, order.map((i) => domains[i])); // prettier-ignore
    expectNear(back.shares, order.map((i) => there.shares[i]), 1e-5, 1); // prettier-ignore
    expect([...back.counts]).toEqual(order.map((i) => there.counts[i]));
  });

  test("the amount of text of a domain has little effect", () => {
    const target = planted(plants[4][1], 600);
    const before = bigramHistogram(target, domains).shares;
    for (const i of [0, 2]) {
      const longer = domains.map((domain, j) =>
        i === j ? domainOf(j, 2 * domain.stream.tokens.length) : domain,
      );
      expect(variation(bigramHistogram(target, longer).shares, before)).toBeLessThan(0.04);
    }
    const { shares } = bigramHistogram(target, domains, { domainTokens: 1500 });
    expect(variation(shares, before)).toBeLessThan(0.08);
  });

  test("if two domains have the same text, each gets half of its share", () => {
    const target = planted([0, 0.6, 0.4, 0, 0, 0], 600);
    const { shares } = bigramHistogram(target, [...domains, domains[1]]);
    expectNear(shares[1], shares[k], 1e-6);
    expectNear(shares[1] + shares[k], 0.6, 0.12);
  });

  test("works for one domain, for very many, and for little text", () => {
    expect([...bigramHistogram(planted([1], 20), [domains[0]]).shares]).toEqual([1]);
    const many = Array.from({ length: 500 }, (_, seed) => domainOf(seed % 7, 200));
    const { shares } = bigramHistogram(planted([0, 0, 1], 60), many);
    const byLanguage = new Array<number>(7).fill(0);
    shares.forEach((share, i) => (byLanguage[i % 7] += share));
    expect(byLanguage[2]).toBeGreaterThan(0.8);
    // A target shorter than a window, and domains too short to be calibrated on.
    const short = windowsOf("target", streamOf(textOf(1, 20, 0.5, 5)), 4);
    const little = [0, 1].map((seed) => windowsOf(`d${seed}`, streamOf(textOf(seed, 30)), 4));
    const found = bigramHistogram(short, little);
    expect(found.windows).toBe(1);
    expectNear(found.shares[0] + found.shares[1], 1, 1e-12);
    expect(found.shares[1]).toBeGreaterThan(0.5);
  });

  test("uses the requested number of windows, evenly spaced, and at most those that exist", () => {
    // The second half is another language.
    const target = windowsOf("t", streamOf(textOf(0, 3200, 0.5, 1), textOf(1, 3200, 0.5, 1)), 16);
    const counted = (options: object): Histogram => bigramHistogram(target, domains.slice(0, 2), options);
    expect(counted({}).windows).toBe(99);
    expect(counted({ windowTokens: 32 }).windows).toBe(199);
    const few = counted({ windows: 10 });
    expect(few.windows).toBe(10);
    expect([...few.counts]).toEqual([5, 5]);
    expect(codeOf(() => bigramHistogram(target, []))).toBe("config: bigramHistogram: no domain was given");
  });

  test("does not change its arguments, and gives the same result again", () => {
    const target = planted(uniform, 60);
    const before = Array.from(target.stream.tokens);
    const first = bigramHistogram(target, domains);
    expect(bigramHistogram(target, domains)).toEqual(first);
    expect(Array.from(target.stream.tokens)).toEqual(before);
  });
});
