/**
 * A simple baseline for the library's `bigramHistogram`, without calibration: each window of the target counts for the domain whose smoothed bigram model gives it the highest likelihood.
 */
import type { TokenStream, Windows } from "gradmix/data";

/** Pseudo-counts of the unigram in a bigram, and of all domains' unigram in a domain's. */
const smoothing = { bigram: 20, unigram: 200 };

type Bigram = (first: number, second: number) => number;

/** Returns the shares of the target's windows [domains]. */
export function histogramOf(
  target: Windows<TokenStream>,
  domains: readonly Windows<TokenStream>[],
  vocabulary: number,
): number[] {
  const { stream, time } = target;
  const models = bigramsOf(domains, vocabulary);
  const counts = domains.map(() => 0);
  let windows = 0;
  for (let from = 0; from + 1 < stream.tokens.length; from += time, windows++) {
    const pairs = Array.from(stream.tokens.subarray(from, from + time + 1));
    const scores = models.map((model) =>
      pairs.slice(1).reduce((sum, second, t) => sum + Math.log(model(pairs[t], second)), 0),
    );
    counts[scores.indexOf(Math.max(...scores))]++;
  }
  return counts.map((count) => count / windows);
}

/** Returns p(second | first) of each domain: counts, smoothed by the domain's unigrams, which are smoothed by the mean of all domains' unigrams. */
function bigramsOf(domains: readonly Windows<TokenStream>[], vocabulary: number): Bigram[] {
  const common = new Float64Array(vocabulary).fill(1e-6 / vocabulary);
  const counted = domains.map(({ stream: { tokens } }) => {
    const unigram = new Float64Array(vocabulary);
    const firsts = new Float64Array(vocabulary);
    const pairs = new Map<number, number>();
    for (let t = 0; t < tokens.length; t++) {
      unigram[tokens[t]]++;
      if (t === 0) continue;
      const pair = tokens[t - 1] * vocabulary + tokens[t];
      pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
      firsts[tokens[t - 1]]++;
    }
    for (let v = 0; v < vocabulary; v++) common[v] += unigram[v] / tokens.length / domains.length;
    return { unigram, firsts, pairs, length: tokens.length };
  });
  return counted.map(({ unigram, firsts, pairs, length }) => (first, second) => {
    const single = (unigram[second] + smoothing.unigram * common[second]) / (length + smoothing.unigram);
    const both = pairs.get(first * vocabulary + second) ?? 0;
    return (both + smoothing.bigram * single) / (firsts[first] + smoothing.bigram);
  });
}
