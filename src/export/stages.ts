/** Approximates a trajectory of weights by a few stages of constant weights. */
import { SUM_TOLERANCE, sumOf } from "../dga/simplex.ts";
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { show, list } from "../options.ts";
import type { MixtureStage } from "./mixture.ts";

/** Constant weights with which `tokens` training tokens were drawn. */
export interface TrajectoryPiece {
  /** Training tokens of the piece. */
  readonly tokens: number;
  /** Weights of the domains, in their order. */
  readonly weights: readonly number[];
}

/** A longer trajectory is first reduced to this many pieces of about equal length. */
const MOST_PIECES = 400;

/** Throws `config`, naming its place, for a piece without a number of tokens, and for one whose weights are not those of the first piece's domains. */
function checkPiece(piece: TrajectoryPiece, at: number, all: readonly TrajectoryPiece[]): void {
  const invalid = (what: string): GradmixError =>
    new GradmixError("config", `fitStages: piece ${at} of the trajectory ${what}`);
  const given: unknown = piece;
  if (!isObject(given) || !Array.isArray(given["weights"]))
    throw invalid(`is ${show(given)}, not { tokens, weights }`);
  const { tokens, weights } = piece;
  if (!(tokens >= 0 && tokens < Infinity)) throw invalid(`has ${show(tokens)} tokens`);
  const count = all[0]!.weights.length;
  if (weights.length !== count)
    throw invalid(`has ${weights.length} weights, but the first piece has ${count}`);
  const bad = weights.find((weight) => !(weight >= 0 && weight < Infinity));
  if (bad !== undefined) throw invalid(`has a weight of ${show(bad)}; weights are finite and ≥ 0`);
  const sum = sumOf(weights);
  if (Math.abs(sum - 1) > SUM_TOLERANCE) throw invalid(`has weights that sum to ${sum}, not to 1`);
}

/**
 * Finds the `count` stages of constant weights that are closest to a trajectory: those with the smallest Σ tokens·KL(weights of the piece ‖ weights
 * of its stage), by dynamic programming (optimal over all ends of pieces). KL is in nats per drawn token, so a rare domain that doubles counts in
 * proportion to its share; squared error would see only the domains with large weights. For both, the best weights of a stage are the mean over its
 * tokens, so over a stage each domain gets as many tokens as in the run.
 *
 * Neighbours with the same weights are one piece. A trajectory of more than 400 pieces is first reduced to 400 of about equal length. If there are
 * fewer pieces than `count`, there are as many stages as pieces. Throws `config` for a trajectory without tokens, for a piece whose weights are not on
 * the simplex, and unless `count` is an integer of at least 1.
 */
export function fitStages(trajectory: readonly TrajectoryPiece[], count: number): MixtureStage[] {
  if (!Number.isSafeInteger(count) || count < 1)
    throw new GradmixError("config", `fitStages: count is ${count}, not a whole number of at least 1`);
  list("fitStages: trajectory", trajectory);
  for (const [at, piece] of trajectory.entries()) checkPiece(piece, at, trajectory);
  const pieces = joinTo(MOST_PIECES, joinEqual(trajectory.filter(({ tokens }) => tokens > 0)));
  if (pieces.length === 0) throw new GradmixError("config", "fitStages: the trajectory has no tokens");
  const n = pieces.length;
  const stages = Math.min(count, n);
  const cost = costs(pieces);
  // best[j]: the smallest cost of the first j pieces in s stages; from[s][j]: where the last of these stages starts.
  let best = Array.from({ length: n + 1 }, (_, j) => (j === 0 ? 0 : cost(0, j)));
  const from: Int32Array[] = [];
  for (let s = 2; s <= stages; s++) {
    const next = Array.from({ length: n + 1 }, () => Infinity);
    const start = new Int32Array(n + 1);
    for (let j = s; j <= n; j++)
      for (let i = s - 1; i < j; i++) {
        const total = best[i]! + cost(i, j);
        if (total < next[j]!) [next[j], start[j]] = [total, i];
      }
    best = next;
    from.push(start);
  }
  const bounds = [n];
  for (const start of from.toReversed()) bounds.unshift(start[bounds[0]!]!);
  if (bounds[0] !== 0) bounds.unshift(0);
  return bounds.slice(0, -1).map((first, s) => {
    const tokensBefore = pieces.slice(0, first).reduce((sum, { tokens }) => sum + tokens, 0);
    return { start: tokensBefore, weights: join(pieces.slice(first, bounds[s + 1])).weights };
  });
}

/** Σ tokens·KL(weights ‖ their mean) of the pieces [i, j), in nats: tokens·H(mean) − Σ tokens·H(weights). */
function costs(pieces: readonly TrajectoryPiece[]): (i: number, j: number) => number {
  const n = pieces.length;
  const k = pieces[0]!.weights.length;
  // Sums before each piece: of tokens, of tokens·weights [n + 1, k], and of tokens·Σ w log w.
  const tokens = new Float64Array(n + 1);
  const sums = new Float64Array((n + 1) * k);
  const own = new Float64Array(n + 1);
  pieces.forEach((piece, t) => {
    tokens[t + 1] = tokens[t]! + piece.tokens;
    own[t + 1] = own[t]! + piece.tokens * piece.weights.reduce((sum, w) => sum + xlogx(w), 0);
    for (let d = 0; d < k; d++) sums[(t + 1) * k + d] = sums[t * k + d]! + piece.tokens * piece.weights[d]!;
  });
  const known = new Float64Array(n * (n + 1)).fill(NaN);
  return (i, j) => {
    const at = i * (n + 1) + j;
    if (!Number.isNaN(known[at]!)) return known[at]!;
    const total = tokens[j]! - tokens[i]!;
    let of = 0;
    for (let d = 0; d < k; d++) of += xlogx((sums[j * k + d]! - sums[i * k + d]!) / total);
    known[at] = Math.max(0, own[j]! - own[i]! - total * of);
    return known[at];
  };
}

/** Rounding may leave a weight slightly below 0. */
function xlogx(x: number): number {
  return x > 0 ? x * Math.log(x) : 0;
}

function joinEqual(pieces: readonly TrajectoryPiece[]): TrajectoryPiece[] {
  const joined: TrajectoryPiece[] = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (last !== undefined && last.weights.every((weight, d) => weight === piece.weights[d]))
      joined[joined.length - 1] = { tokens: last.tokens + piece.tokens, weights: last.weights };
    else joined.push(piece);
  }
  return joined;
}

/** Groups the pieces by the position of their middle. */
function joinTo(most: number, pieces: readonly TrajectoryPiece[]): TrajectoryPiece[] {
  if (pieces.length <= most) return [...pieces];
  const total = pieces.reduce((sum, { tokens }) => sum + tokens, 0);
  const groups = Array.from({ length: most }, (): TrajectoryPiece[] => []);
  let before = 0;
  for (const piece of pieces) {
    groups[Math.min(most - 1, Math.floor(((before + piece.tokens / 2) / total) * most))]!.push(piece);
    before += piece.tokens;
  }
  return groups.filter((group) => group.length > 0).map(join);
}

/** One piece with the mean weights. */
function join(pieces: readonly TrajectoryPiece[]): TrajectoryPiece {
  if (pieces.length === 1) return pieces[0]!;
  const tokens = pieces.reduce((sum, piece) => sum + piece.tokens, 0);
  const weights = pieces[0]!.weights.map(
    (_, d) => pieces.reduce((sum, piece) => sum + piece.tokens * piece.weights[d]!, 0) / tokens,
  );
  return { tokens, weights };
}
