/**
 * Distribution reweighting (Fan, Grangier, Ablin 2024, Algorithm 2): a rule moves the weights w of N basis distributions instead of those of k
 * domains, and all N alignments come from one batch.
 *
 * Nothing else changes: the mixer is made for `bases.names`, its weights are w, and the domain weights are α = `mixtureOf(bases, w)`. By the chain
 * rule, the alignment of basis j is the mean over i ~ pⱼ of the domains' alignments. So a single batch of examples, drawn from any proposal q over
 * the domains that covers the bases, gives all of them with the importance weights pⱼ(i)/q(i).
 */
import { GradmixError } from "../errors.ts";
import { type Choice, cumulativeTable } from "../data/alias.ts";
import { type Bases, checkBases, mixtureOf } from "./bases.ts";
import { checkOptions, numberIn, object, integerIn, numberList, show } from "../options.ts";
import { type ExampleMeasurements, type Measurements, squarePerToken } from "./measurements.ts";
import type { Weights } from "./simplex.ts";

/** Options of `proposal`. */
export interface ProposalOptions {
  /** λ, 0 < λ ≤ 1: the share of the plain mean of the bases in the proposal. Default 0.5. */
  readonly defensive?: number;
  /** Array for the result [k], overwritten. Default: a new array. */
  readonly out?: Weights;
}

/**
 * A proposal distribution q = (1 − λ)·α + λ·(mean of the bases) over the domains [k], a defensive mixture (T. Hesterberg, Technometrics 37(2), 1995).
 * It weighs the bases with vⱼ = (1 − λ)·wⱼ + λ/N. Since q ≥ vⱼ pⱼ everywhere, the importance weights are bounded, pⱼ(i)/q(i) ≤ 1/vⱼ ≤ N/λ, whatever w
 * is; a basis with more weight is measured more precisely (≤ 1/((1 − λ)·wⱼ)), and q is positive wherever a basis is. Throws `config` for invalid
 * weights or options.
 */
export function proposal(bases: Bases, weights: ArrayLike<number>, options: ProposalOptions = {}): Weights {
  checkOptions("proposal", options, { defensive: numberIn({ min: 0, max: 1, openMin: true }), out: object });
  checkBases("proposal: bases", bases);
  numberList("proposal: weights", weights);
  const { defensive = 0.5, out } = options;
  const share = defensive / bases.names.length;
  return mixtureOf(
    bases,
    Float64Array.from(weights, (weight) => (1 - defensive) * weight + share),
    out,
  );
}

/** Measurements of bases from one batch, including losses and norms if the examples have them. */
export type BasisMeasurements = Measurements &
  Required<Pick<Measurements, "standardErrors" | "effectiveSizes">>;

/**
 * Computes the alignments of all bases from one batch by importance sampling from `q` [k], in time proportional to the number of non-zeros.
 *
 * The estimate is a self-normalised ratio (A. Owen, Monte Carlo theory, methods and examples, ch. 9): consistent, with a bias of the order of
 * 1/effective size. Its standard error is that of the delta method, √(m/(m − 1)·Σ ω²(dₑ − aⱼnₑ)²)/Σ ωnₑ with m the effective size. If a basis weighs
 * all its examples alike, its alignment equals that of `domainAlignments` bit for bit. A basis none of whose domains were drawn has alignment 0 and 0
 * tokens: rules treat it as not measured, so it neither gains nor loses. Its norm is the root mean square over single examples' gradients
 * (`Measurements`): the norm of their mean does not follow from numbers of single examples, and this one does not depend on how many were drawn.
 *
 * Throws `shape` for arrays whose lengths differ, and `config` for an example of a domain that q never draws.
 */
export function basisAlignments(
  bases: Bases,
  q: ArrayLike<number>,
  examples: ExampleMeasurements,
): BasisMeasurements {
  checkBases("basisAlignments: bases", bases);
  numberList("basisAlignments: q", q);
  object("basisAlignments: examples", examples);
  for (const name of ["domainOf", "tokens", "dots"] as const)
    numberList(`basisAlignments: examples: ${name}`, examples[name]);
  const { names, offsets, columns, values } = bases;
  const { tokens, dots, losses, squaredNorms } = examples;
  const [n, count] = [names.length, dots.length];
  const { first, next } = chained(bases, q, examples);

  const alignments = new Float64Array(n);
  const standardErrors = new Array<number | null>(n).fill(null);
  const effectiveSizes = new Float64Array(n);
  const tokensOf = new Float64Array(n);
  const lossesOf = losses === undefined ? null : new Float64Array(n);
  const norms = squaredNorms === undefined ? null : new Float64Array(n);
  // The examples that a basis has weight on. A domain occurs at most once in a row, so each example does too.
  const drawn = new Int32Array(count);
  const ratios = new Float64Array(count);
  for (let j = 0; j < n; j++) {
    let size = 0;
    let most = 0;
    for (let entry = offsets[j]!; entry < offsets[j + 1]!; entry++) {
      const domain = columns[entry]!;
      if (first[domain] === 0) continue;
      const ratio = values[entry]! / q[domain]!;
      most = Math.max(most, ratio);
      for (let e = first[domain]!; e !== 0; e = next[e]!) {
        drawn[size] = e - 1;
        ratios[size++] = ratio;
      }
    }
    if (!(most > 0)) continue;
    let [weights, squares, weighted, sum, loss, norm] = [0, 0, 0, 0, 0, 0];
    for (let s = 0; s < size; s++) {
      // Only their ratios matter; scaled by the largest, nothing overflows, and equal ones are not even rounded.
      const omega = (ratios[s]! /= most);
      const e = drawn[s]!;
      weights += omega;
      squares += omega * omega;
      weighted += omega * tokens[e]!;
      sum += omega * dots[e]!;
      tokensOf[j]! += tokens[e]!;
      if (losses !== undefined) loss += omega * losses[e]!;
      if (squaredNorms !== undefined) norm += omega * squarePerToken(squaredNorms[e]!, tokens[e]!);
    }
    const alignment = sum / weighted;
    alignments[j] = alignment;
    const effective = (weights * weights) / squares;
    effectiveSizes[j] = effective;
    if (lossesOf !== null) lossesOf[j] = loss / weighted;
    if (norms !== null) norms[j] = Math.sqrt(norm / weights);
    // An effective size of 1, up to rounding, is a single example.
    if (effective <= 1 + 1e-9) continue;
    let residuals = 0;
    for (let s = 0; s < size; s++) {
      const e = drawn[s]!;
      residuals += (ratios[s]! * (dots[e]! - alignment * tokens[e]!)) ** 2;
    }
    standardErrors[j] = Math.sqrt((effective / (effective - 1)) * residuals) / weighted;
  }
  return {
    alignments,
    standardErrors,
    effectiveSizes,
    tokens: tokensOf,
    ...(lossesOf === null ? {} : { losses: lossesOf }),
    ...(norms === null ? {} : { norms }),
  };
}

/**
 * Examples with tokens by domain, as linked lists in their order: `first[i]` and `next[e]` are numbers of examples counted from 1, and 0 ends a list.
 * Throws like `basisAlignments`.
 */
function chained(
  { domains }: Bases,
  q: ArrayLike<number>,
  { domainOf, tokens, dots, losses, squaredNorms }: ExampleMeasurements,
): { readonly first: Int32Array; readonly next: Int32Array } {
  const [k, count] = [domains.length, dots.length];
  if (q.length !== k) throw new GradmixError("shape", `q: ${q.length} values for ${k} domains`);
  for (const [name, array] of Object.entries({ domainOf, tokens, losses, squaredNorms }))
    if (array !== undefined && array.length !== count)
      throw new GradmixError("shape", `${count} dots for ${array.length} ${name}`);
  const first = new Int32Array(k);
  const next = new Int32Array(count + 1);
  for (let e = count - 1; e >= 0; e--) {
    const domain = domainOf[e]!;
    if (!Number.isInteger(domain) || domain < 0 || domain >= k)
      throw new GradmixError("shape", `example ${e} is of domain ${domain}, but there are ${k}`);
    if (!(q[domain]! > 0))
      throw new GradmixError(
        "config",
        `example ${e} is of domain "${domains[domain]}", to which the proposal gives the weight ${q[domain]}; draw the examples with the weights q`,
      );
    // Infinite tokens would make the alignment 0.
    const count: unknown = tokens[e];
    if (!(typeof count === "number" && count >= 0 && count < Infinity))
      throw new GradmixError(
        "numeric",
        `example ${e} has ${show(tokens[e])} tokens; they are finite and ≥ 0`,
      );
    if (typeof dots[e] !== "number")
      throw new GradmixError("numeric", `example ${e} has ${show(dots[e])} as its product, not a number`);
    if (tokens[e] === 0) continue;
    next[e + 1] = first[domain]!;
    first[domain] = e + 1;
  }
  return { first, next };
}

/** Draws a domain from basis j, for the sampler's `draw`. A draw takes O(log non-zeros of the row); the table takes 8 bytes per non-zero. Throws `config` for a basis that does not exist. */
export function basisChoice(bases: Bases, j: number): Choice {
  checkBases("basisChoice: bases", bases);
  integerIn(0, bases.names.length - 1)("basisChoice: j", j);
  const columns = bases.columns.subarray(bases.offsets[j], bases.offsets[j + 1]);
  const inRow = cumulativeTable(bases.values.subarray(bases.offsets[j], bases.offsets[j + 1]));
  return { size: bases.domains.length, at: (u) => columns[inRow.at(u)]! };
}
