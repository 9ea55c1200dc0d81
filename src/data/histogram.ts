/** How much of a target each domain resembles, told by bigrams alone: a histogram for importance sampling, and a prior for rules that move weights. */
import { GradmixError } from "../errors.ts";
import { checkOptions, integerIn } from "../options.ts";
import { type CountedDomain, type Piece, scorePieces, type Stretch } from "./bigram-scores.ts";
import { calibrate, equalWeights, mixtureShares, posteriors, type Scores } from "./mixture-fit.ts";
import type { TokenStream, Windows } from "./tokens.ts";

export interface HistogramOptions {
  /** Tokens in a piece (default 64; fewer where the target is shorter). */
  readonly length?: number;
  /** Pieces of the target that are looked at, taken evenly, at most (default 1,024; fewer of more than 16,384 domains). */
  readonly pieces?: number;
  /** Tokens of a domain that are counted, in 32 stretches taken evenly, at most (default 262,144). */
  readonly domainTokens?: number;
}

/** Shares of a target, in the order of the domains. */
export interface Histogram {
  /** Estimates of the α for which the target is like mix(α); ≥ 0, sum 1 [k]. */
  readonly shares: Float64Array;
  /** Pieces of the target to which domain i gives the highest likelihood [k]: not calibrated, for comparison. */
  readonly counts: Float64Array;
  /** Pieces of the target that were looked at. */
  readonly windows: number;
}

const defaults: Required<HistogramOptions> = { length: 64, pieces: 1024, domainTokens: 2 ** 18 };
/** Scores that are kept at once, of each kind: pieces of the target times domains. */
const MOST_SCORES = 2 ** 24;
/** Pieces of the domains themselves with which scores are calibrated. */
const OWN_PIECES = 384;
const OWN_PIECES_OF_ONE = 64;
/** Stretches of a domain that is not counted as a whole. */
const STRETCHES = 32;

/**
 * The histogram of a target over domains, of the training text of both (`windowsOf`), which must come from one tokenizer.
 *
 * Pieces of the target get the log-likelihood of a smoothed bigram model of each domain. These are far too sure of themselves, and domains that are large or varied attract
 * what is not theirs; so they are calibrated on pieces of the domains themselves, each scored as if its document were not there. The shares
 * are then those of the mixture (Saerens et al. 2002) that makes the target likely, fitted only as far as pieces of it that are left out agree. Where nothing speaks
 * for a domain more than for another, they stay equal.
 *
 * Deterministic; at most some seconds for 10,000 domains. Throws `config` for no domains, and for options that do not fit.
 */
export function bigramHistogram(
  target: Windows,
  domains: readonly Windows[],
  options: HistogramOptions = {},
): Histogram {
  checkOptions<HistogramOptions>("bigramHistogram", options, {
    length: integerIn(1),
    pieces: integerIn(1),
    domainTokens: integerIn(1),
  });
  if (domains.length === 0) throw new GradmixError("config", "bigramHistogram: no domain was given");
  const k = domains.length;
  const pairs = target.stream.tokens.length - 1;
  const length = Math.min(options.length ?? defaults.length, pairs);
  const most = Math.min(options.pieces ?? defaults.pieces, Math.max(1, Math.floor(MOST_SCORES / k)));
  const counted = domains.map(({ stream }) => ({
    stream,
    stretches: stretchesOf(stream, options.domainTokens ?? defaults.domainTokens, length),
  }));
  const asked = evenly(Math.floor(pairs / length), most).map((j) => ({
    stream: target.stream,
    start: j * length,
    domain: -1,
  }));
  const own = ownPieces(counted, length);
  const scores = scorePieces([...asked, ...own], counted, length);
  const [ofTarget, ofOwn] = cutScores(scores, k, asked.length);
  const labels = Int32Array.from(own, ({ domain }) => domain);
  const calibration = calibrate(ofOwn, labels, k);
  const examples = { posteriors: posteriors(ofOwn, calibration), weights: equalWeights(labels, k) };
  return {
    shares: mixtureShares(posteriors(ofTarget, calibration), examples, k),
    counts: favourites(ofTarget, k),
    windows: asked.length,
  };
}

/** Up to `most` of 0, 1, …, count − 1, evenly. */
function evenly(count: number, most: number): number[] {
  const taken = Math.min(count, most);
  return Array.from({ length: taken }, (_, j) => Math.floor(((j + 0.5) * count) / taken));
}

/** All of a stream, or stretches of it that make up `most` tokens. */
function stretchesOf({ tokens }: TokenStream, most: number, length: number): Stretch[] {
  const n = tokens.length;
  if (n <= most) return [{ from: 0, to: n }];
  // None is shorter than a piece.
  const count = Math.max(1, Math.min(STRETCHES, Math.floor(most / (length + 1))));
  const size = Math.floor(most / count);
  return Array.from({ length: count }, (_, j) => {
    const from = Math.floor((j * (n - size)) / Math.max(1, count - 1));
    return { from, to: from + size };
  });
}

/** Pieces of the domains, as many of each; of very many domains, one of some. A domain of less than two pieces has none. */
function ownPieces(domains: readonly CountedDomain[], length: number): Piece[] {
  const each = Math.min(OWN_PIECES_OF_ONE, Math.max(1, Math.ceil(OWN_PIECES / domains.length)));
  return evenly(domains.length, OWN_PIECES).flatMap((domain) => {
    const { stream, stretches } = domains[domain];
    const starts = stretches.flatMap(({ from, to }) =>
      Array.from({ length: Math.floor((to - from - 1) / length) }, (_, j) => from + j * length),
    );
    return starts.length < 2
      ? []
      : evenly(starts.length, each).map((j) => ({ stream, start: starts[j], domain }));
  });
}

/** Scores [k · pieces] as those of the first `at` pieces and those of the rest. */
function cutScores({ unigram, bigram }: Scores, k: number, at: number): [Scores, Scores] {
  const pieces = unigram.length / k;
  const part = (scores: Float32Array, from: number, to: number): Float32Array => {
    const out = new Float32Array(k * (to - from));
    for (let i = 0; i < k; i++) out.set(scores.subarray(i * pieces + from, i * pieces + to), i * (to - from));
    return out;
  };
  const scoresOf = (from: number, to: number): Scores => ({
    unigram: part(unigram, from, to),
    bigram: part(bigram, from, to),
  });
  return [scoresOf(0, at), scoresOf(at, pieces)];
}

function favourites({ unigram, bigram }: Scores, k: number): Float64Array {
  const pieces = unigram.length / k;
  const counts = new Float64Array(k);
  for (let w = 0; w < pieces; w++) {
    let best = 0;
    for (let i = 1; i < k; i++)
      if (
        unigram[i * pieces + w] + bigram[i * pieces + w] >
        unigram[best * pieces + w] + bigram[best * pieces + w]
      )
        best = i;
    counts[best]++;
  }
  return counts;
}
