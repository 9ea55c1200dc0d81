/** Estimates by bigrams how much of a target resembles each domain: a histogram for importance sampling, and a prior for rules that move weights. */
import { GradmixError } from "../errors.ts";
import { firstAbove } from "./sorted.ts";
import { boolean, checkOptions, integerIn, list } from "../options.ts";
import {
  type CountedDomain,
  type Piece,
  type PieceGroup,
  scoreGroupsInSteps,
  type Stretch,
} from "./bigram-scores.ts";
import { evenly, stretchesOf } from "./stretches.ts";
import { calibrateInSteps, likelihoods, mixtureSharesInSteps, type Scores } from "./mixture-fit.ts";
import type { CancelSignal } from "../cancel.ts";
import { runSteps, runStepsInTurns, type Steps } from "./steps.ts";
import { checkWindows, type Windows } from "./tokens.ts";

/** Options of `bigramHistogram`. */
export interface HistogramOptions {
  /** Tokens per window, independent of the length of the `Windows` (default 64; fewer if the target is shorter). */
  readonly windowTokens?: number;
  /** Largest number of the target's windows that are scored, evenly spaced (default 1,024; fewer if there are more than 4,096 domains). */
  readonly windows?: number;
  /** Largest number of tokens counted per domain, in 32 evenly spaced stretches (default 262,144). */
  readonly domainTokens?: number;
  /** Also computes the standard errors, which takes as long again for each of ten parts of the target's windows. Default false. */
  readonly standardErrors?: boolean;
}

/** Shares of a target, in the order of the domains. */
export interface Histogram {
  /** Estimate of the shares α for which the target resembles the mixture mix(α); ≥ 0, sum 1 [k]. */
  readonly shares: Float64Array;
  /** Number of the target's windows to which domain i gives the highest likelihood [k]; not calibrated, for comparison. */
  readonly counts: Float64Array;
  /** Number of the target's windows that were scored. */
  readonly windows: number;
  /**
   * Standard errors of the shares [k], by leaving out a tenth of the target at a time (the jackknife): the error of sampling the target, not
   * that of the classifier. null if they were not requested, and for a single window.
   */
  readonly standardErrors: Float64Array | null;
}

const defaults = { windowTokens: 64, windows: 1024, domainTokens: 2 ** 18 };
/** Number of parts of the target; each is left out once. */
const JACKKNIFE = 10;
/** Largest number of scores in memory at once, of each kind: pieces of the target times domains. */
const MOST_SCORES = 2 ** 22;
/** Number of pieces of the domains themselves on which the scores are calibrated. */
const OWN_PIECES = 384;
const OWN_PIECES_OF_ONE = 64;
/**
 * Largest number of tokens left out on each side of a domain's own piece, within its document; and the divisor of a domain's tokens that
 * bounds it.
 */
const LEFT_OUT = 8192;
const LEFT_OUT_SHARE = 8;

/**
 * The histogram of a target over domains: the share of it that resembles each of them. All text must come from one tokenizer, and is the
 * training text (`windowsOf`).
 *
 * Each window of the target gets its likelihood under a smoothed bigram model of each domain. These models are far too confident, and favour
 * domains that are large or varied. They are therefore calibrated on windows of the domains themselves; a domain scores its own windows
 * without the text around them. The shares are those of the mixture that makes the target likely. They are found in a few steps that start
 * from equal shares, and that continue only as long as windows of the target that are left out agree (`mixtureShares`). If nothing
 * distinguishes one domain from another, the shares stay equal: a few windows do not give a sparse histogram.
 *
 * The same text gives the same shares. It takes some tenths of a second for 24 domains, and some seconds for 10,000. Throws `config` if there
 * are no domains, and for invalid options.
 */
export function bigramHistogram(
  target: Windows,
  domains: readonly Windows[],
  options: HistogramOptions = {},
): Histogram {
  return runSteps(histogramSteps(target, domains, options));
}

/** The same, but regularly lets the event loop run; rejects with the reason of `signal` once that is aborted. Not part of the package's interface. */
export function countHistogram(
  target: Windows,
  domains: readonly Windows[],
  options: HistogramOptions,
  signal: CancelSignal,
): Promise<Histogram> {
  return runStepsInTurns(histogramSteps(target, domains, options), signal);
}

function* histogramSteps(
  target: Windows,
  domains: readonly Windows[],
  options: HistogramOptions,
): Steps<Histogram> {
  checkOptions<HistogramOptions>("bigramHistogram", options, {
    windowTokens: integerIn(1),
    windows: integerIn(1),
    domainTokens: integerIn(1),
    standardErrors: boolean,
  });
  checkWindows("bigramHistogram: target", target);
  list("bigramHistogram: domains", domains);
  for (const [i, domain] of domains.entries()) checkWindows(`bigramHistogram: domains: ${i}`, domain);
  if (domains.length === 0) throw new GradmixError("config", "bigramHistogram: no domain was given");
  const k = domains.length;
  const pairs = target.stream.tokens.length - 1;
  const length = Math.min(options.windowTokens ?? defaults.windowTokens, pairs);
  const most = Math.min(options.windows ?? defaults.windows, Math.max(1, Math.floor(MOST_SCORES / k)));
  const counted = domains.map(({ stream }) => ({
    stream,
    stretches: stretchesOf(stream, options.domainTokens ?? defaults.domainTokens, length),
  }));
  const asked = evenly(Math.floor(pairs / length), most).map((j) => ({
    stream: target.stream,
    start: j * length,
  }));
  const own = ownPieces(counted, length);
  const scored = yield* scoreGroupsInSteps(
    [{ pieces: asked, holes: counted.map(() => null) }, ...own.map(({ group }) => group)],
    counted,
    length,
  );
  const ofTarget = scored[0]!;
  const labels = Int32Array.from(own.flatMap((round) => round.labels));
  const ofOwn = joinScores(scored.slice(1), k, labels.length);
  const calibration = yield* calibrateInSteps(ofOwn, labels, k);
  const likely = likelihoods(ofTarget, calibration);
  return {
    shares: yield* mixtureSharesInSteps(likely, k),
    counts: favourites(ofTarget, k),
    windows: asked.length,
    standardErrors: options.standardErrors === true && asked.length > 1 ? yield* jackknife(likely, k) : null,
  };
}

/** The jackknife over neighbours, which are often of one document: √((G − 1)/G · Σ (θ_g − θ̄)²) with θ_g the shares without part g. */
function* jackknife(likelihood: Float32Array, k: number): Steps<Float64Array> {
  const pieces = likelihood.length / k;
  const parts = Math.min(JACKKNIFE, pieces);
  const without: Float64Array[] = [];
  for (let g = 0; g < parts; g++) {
    yield;
    const border = (j: number): number => Math.floor((j * pieces) / parts);
    const [from, to] = [border(g), border(g + 1)];
    const left = pieces - (to - from);
    const kept = new Float32Array(k * left);
    for (let i = 0; i < k; i++) {
      const row = likelihood.subarray(i * pieces, (i + 1) * pieces);
      kept.set(row.subarray(0, from), i * left);
      kept.set(row.subarray(to), i * left + from);
    }
    without.push(yield* mixtureSharesInSteps(kept, k));
  }
  return Float64Array.from({ length: k }, (_, i) => {
    const mean = without.reduce((sum, shares) => sum + shares[i]!, 0) / parts;
    const squares = without.reduce((sum, shares) => sum + (shares[i]! - mean) ** 2, 0);
    return Math.sqrt(((parts - 1) / parts) * squares);
  });
}

/** A group of pieces, one per domain. The domains are scored without these pieces. */
interface Round {
  readonly group: PieceGroup;
  /** The domains of the pieces. */
  readonly labels: readonly number[];
}

/**
 * Pieces of the domains themselves, one of each in a round; of very many domains, of some. In a round every domain is scored without the text around one of its pieces, its own
 * pieces or another's, so that none is at an advantage. A domain of less than two pieces has none.
 */
function ownPieces(domains: readonly CountedDomain[], length: number): Round[] {
  const rounds = Math.min(OWN_PIECES_OF_ONE, Math.max(1, Math.ceil(OWN_PIECES / domains.length)));
  const starts = domains.map(({ stretches }) => {
    const all = stretches.flatMap(({ from, to }) =>
      Array.from({ length: Math.floor((to - from - 1) / length) }, (_, j) => from + j * length),
    );
    return all.length < 2 ? [] : evenly(all.length, rounds).map((j) => all[j]);
  });
  const among = evenly(domains.length, OWN_PIECES);
  return Array.from({ length: rounds }, (_, round) => {
    const labels = among.filter((i) => round < starts[i]!.length);
    const pieces = labels.map((i): Piece => ({ stream: domains[i]!.stream, start: starts[i]![round]! }));
    const holes = domains.map((domain, i) =>
      starts[i]!.length === 0 ? null : contextOf(domain, starts[i]![round % starts[i]!.length]!, length),
    );
    return { labels, group: { pieces, holes } };
  });
}

/** The stretch of a piece with the text around it in its document. */
function contextOf(
  { stream: { documents }, stretches }: CountedDomain,
  start: number,
  length: number,
): Stretch {
  const total = stretches.reduce((sum, { from, to }) => sum + to - from, 0);
  const reach = Math.min(LEFT_OUT, Math.floor(total / LEFT_OUT_SHARE));
  const end = start + length + 1;
  let [from, to] = [Math.max(0, start - reach), end + reach];
  for (const stretch of stretches)
    if (stretch.from <= start && end <= stretch.to)
      [from, to] = [Math.max(from, stretch.from), Math.min(to, stretch.to)];
  // The document in which the piece begins, and the one in which it ends.
  const next = firstAbove(documents, start);
  if (next > 0) from = Math.max(from, documents[next - 1]!);
  const after = firstAbove(documents, end - 1);
  if (after < documents.length) to = Math.min(to, documents[after]!);
  return { from, to };
}

/** Scores of several groups [k · pieces] as those of one. */
function joinScores(parts: readonly Scores[], k: number, pieces: number): Scores {
  const join = (of: (part: Scores) => Float32Array): Float32Array => {
    const out = new Float32Array(k * pieces);
    let at = 0;
    for (const scores of parts.map(of)) {
      const count = scores.length / k;
      for (let i = 0; i < k; i++) out.set(scores.subarray(i * count, (i + 1) * count), i * pieces + at);
      at += count;
    }
    return out;
  };
  return { unigram: join(({ unigram }) => unigram), bigram: join(({ bigram }) => bigram) };
}

function favourites({ unigram, bigram }: Scores, k: number): Float64Array {
  const pieces = unigram.length / k;
  const counts = new Float64Array(k);
  for (let w = 0; w < pieces; w++) {
    let best = 0;
    for (let i = 1; i < k; i++)
      if (
        unigram[i * pieces + w]! + bigram[i * pieces + w]! >
        unigram[best * pieces + w]! + bigram[best * pieces + w]!
      )
        best = i;
    counts[best]!++;
  }
  return counts;
}
