/** A domain's alignment and its standard error from measurements of its examples. */
import { GradmixError } from "../errors.ts";
import { integerIn, numberList, show } from "../options.ts";

/** Alignment of one domain with the target. */
export interface DomainAlignment {
  /** ⟨∇L, ∇L_target⟩, where L is the domain's mean loss per token: Σ dots / Σ tokens; 0 for a batch without tokens. */
  readonly alignment: number;
  /** Standard error of the alignment over examples; null with fewer than two examples. */
  readonly standardError: number | null;
}

/**
 * Computes the alignment of one domain. `dots[j]` is ⟨∇(summed loss of example j), ∇L_target⟩ and `tokens[j]` the example's counted tokens. Examples
 * are the sampled units, so the mean per token is a ratio r = Σd/Σn, whose standard error is √(n/(n−1)·Σ(dⱼ − r·nⱼ)²)/Σn (delta method; Cochran,
 * Sampling Techniques, 3rd ed., §6.4). It does not include the target's own sampling error. Examples without tokens are ignored. Throws `shape` for
 * lists of different lengths, and `numeric` for token counts below 0 or not finite, and for what is no number. Products that are not finite give an
 * alignment that is not finite, which rules refuse.
 */
export function domainAlignments(dots: ArrayLike<number>, tokens: ArrayLike<number>): DomainAlignment {
  numberList("domainAlignments: dots", dots);
  numberList("domainAlignments: tokens", tokens);
  if (dots.length !== tokens.length)
    throw new GradmixError("shape", `${dots.length} dots for ${tokens.length} token counts`);
  let n = 0;
  let sum = 0;
  let count = 0;
  for (let j = 0; j < dots.length; j++) {
    if (!(tokens[j]! >= 0 && tokens[j]! < Infinity))
      throw new GradmixError(
        "numeric",
        `domainAlignments: tokens: ${show(tokens[j])} at ${j}; they are finite and ≥ 0`,
      );
    if (typeof dots[j] !== "number" || typeof tokens[j] !== "number")
      throw new GradmixError(
        "numeric",
        `domainAlignments: ${show(dots[j])} dots and ${show(tokens[j])} tokens at ${j}; both must be numbers`,
      );
    if (tokens[j] === 0) continue;
    n++;
    sum += dots[j]!;
    count += tokens[j]!;
  }
  if (n === 0) return { alignment: 0, standardError: null };
  const alignment = sum / count;
  if (n < 2) return { alignment, standardError: null };
  let squares = 0;
  for (let j = 0; j < dots.length; j++)
    if (tokens[j] !== 0) squares += (dots[j]! - alignment * tokens[j]!) ** 2;
  return { alignment, standardError: Math.sqrt((n / (n - 1)) * squares) / count };
}

/** The sums over one domain's examples from which its gradient norm is estimated. */
export interface NormParts {
  /** Σ ⟨dₛ, dₜ⟩ over ordered pairs of different examples that were measured at the same parameters, where d are gradients of summed losses. */
  readonly pairDots: number;
  /** Σ nₛ nₜ over the same pairs. */
  readonly pairTokens: number;
  /** Σ ‖dₛ/nₛ‖² over all examples, and their number. */
  readonly squares: number;
  readonly examples: number;
}

/**
 * Estimates ‖gᵢ‖ of the domains' gradients from single examples and their groups.
 *
 * The mean of the pairs' products is an unbiased estimate of ‖gᵢ‖², since different examples are drawn independently (a U-statistic; Hoeffding 1948):
 * it contains neither the noise of single examples nor their number. Noise may make it too small, or even negative. Then the norm is what the mean of
 * the examples has from noise alone, ‖g‖² of one example divided by their number. A domain without a pair (never two examples in a step) is assumed
 * to be as coherent as all domains with pairs together; if there are no pairs at all, its norm is the root mean square over single examples.
 */
export function domainNorms(parts: readonly NormParts[]): Float64Array {
  const single = parts.map(({ squares, examples }) => squares / Math.max(1, examples));
  // Sums over the domains of the estimates of ‖gᵢ‖², and of the mean squares of single examples.
  let [squareSum, singleSum] = [0, 0];
  parts.forEach(({ pairDots, pairTokens, examples }, i) => {
    if (pairTokens === 0) return;
    squareSum += (pairDots / pairTokens) * examples;
    singleSum += single[i]! * examples;
  });
  const coherence = singleSum > 0 ? squareSum / singleSum : 1;
  return Float64Array.from(parts, ({ pairDots, pairTokens, examples }, i) => {
    const square = pairTokens > 0 ? pairDots / pairTokens : coherence * single[i]!;
    return Math.sqrt(Math.max(square, single[i]! / Math.max(1, examples)));
  });
}

/**
 * Computes the alignment of every domain from examples in any order; `domainOf[j]` < k is the domain of example j. A domain may have no examples.
 * Throws `shape` for lists of different lengths and for an invalid domain index, and `config` unless k is a whole number.
 */
export function alignmentsByDomain(
  dots: ArrayLike<number>,
  tokens: ArrayLike<number>,
  domainOf: ArrayLike<number>,
  k: number,
): DomainAlignment[] {
  numberList("alignmentsByDomain: dots", dots);
  numberList("alignmentsByDomain: tokens", tokens);
  numberList("alignmentsByDomain: domainOf", domainOf);
  integerIn(0)("alignmentsByDomain: k", k);
  if (dots.length !== domainOf.length)
    throw new GradmixError("shape", `${dots.length} dots for ${domainOf.length} domain indices`);
  // Only one domain's numbers reach domainAlignments at a time, so a list of another length would not be noticed there.
  if (dots.length !== tokens.length)
    throw new GradmixError("shape", `${dots.length} dots for ${tokens.length} token counts`);
  const dotsOf = Array.from({ length: k }, (): number[] => []);
  const tokensOf = Array.from({ length: k }, (): number[] => []);
  for (let j = 0; j < dots.length; j++) {
    const domain = domainOf[j]!;
    if (!Number.isInteger(domain) || domain < 0 || domain >= k)
      throw new GradmixError("shape", `example ${j} is of domain ${domain}, but there are ${k}`);
    dotsOf[domain]!.push(dots[j]!);
    tokensOf[domain]!.push(tokens[j]!);
  }
  return dotsOf.map((own, i) => domainAlignments(own, tokensOf[i]!));
}
