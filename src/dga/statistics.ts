/** From per-example numbers to a domain's alignment and its standard error. */
import { GradmixError } from "../errors.ts";

/** Alignment of one domain with the target. */
export interface DomainAlignment {
  /** ⟨∇L, ∇L_target⟩ with L the domain's mean loss per token: Σ dots / Σ tokens; 0 for a batch without tokens. */
  readonly alignment: number;
  /** Its standard error over examples; null with fewer than two. */
  readonly standardError: number | null;
}

/**
 * One domain's. `dots[j]` is ⟨∇(summed loss of example j), ∇L_target⟩, `tokens[j]` the example's counted tokens. Examples are the sampled
 * units, so the mean per token is a ratio r = Σd/Σn, whose standard error is √(n/(n−1)·Σ(dⱼ − r·nⱼ)²)/Σn (delta method; Cochran, Sampling
 * Techniques, 3rd ed., §6.4). The target's own sampling error is not in it. Examples without tokens say nothing and do not count.
 */
export function domainAlignments(dots: ArrayLike<number>, tokens: ArrayLike<number>): DomainAlignment {
  if (dots.length !== tokens.length)
    throw new GradmixError("shape", `${dots.length} dots for ${tokens.length} token counts`);
  let n = 0;
  let sum = 0;
  let count = 0;
  for (let j = 0; j < dots.length; j++) {
    if (tokens[j] === 0) continue;
    n++;
    sum += dots[j]!;
    count += tokens[j]!;
  }
  if (n === 0) return { alignment: 0, standardError: null };
  const alignment = sum / count;
  if (n < 2) return { alignment, standardError: null };
  let squares = 0;
  for (let j = 0; j < dots.length; j++) squares += (dots[j]! - alignment * tokens[j]!) ** 2;
  return { alignment, standardError: Math.sqrt((n / (n - 1)) * squares) / count };
}

/** What the gradients of one domain's examples told of its gradient's norm. */
export interface NormParts {
  /** Σ ⟨dₛ, dₜ⟩ over ordered pairs of different examples that were measured at the same parameters, d being gradients of summed losses. */
  readonly pairDots: number;
  /** Σ nₛ nₜ over the same pairs. */
  readonly pairTokens: number;
  /** Σ ‖dₛ/nₛ‖² over all examples, and how many they are. */
  readonly squares: number;
  readonly examples: number;
}

/**
 * ‖gᵢ‖ of the domains' gradients, from single examples and their groups.
 *
 * The mean of the pairs' products is an unbiased estimate of ‖gᵢ‖², since different examples are drawn independently (a U-statistic; Hoeffding 1948): neither
 * the noise of single examples nor their number is in it. Where that noise hides it, which may make it negative, it is taken to be what the
 * mean of the examples has from noise alone, ‖g‖² of one of them over their number. A domain without a pair (never two examples in a step) is taken to be as coherent as all
 * those with pairs together; where there are no pairs at all, its norm is the root mean square of single examples'.
 */
export function domainNorms(parts: readonly NormParts[]): Float64Array {
  const single = parts.map(({ squares, examples }) => squares / Math.max(1, examples));
  // Σ over the domains of estimates of ‖gᵢ‖², and of what single examples have.
  let [shared, alone] = [0, 0];
  parts.forEach(({ pairDots, pairTokens, examples }, i) => {
    if (pairTokens === 0) return;
    shared += (pairDots / pairTokens) * examples;
    alone += single[i]! * examples;
  });
  const coherence = alone > 0 ? shared / alone : 1;
  return Float64Array.from(parts, ({ pairDots, pairTokens, examples }, i) => {
    const square = pairTokens > 0 ? pairDots / pairTokens : coherence * single[i]!;
    return Math.sqrt(Math.max(square, single[i]! / Math.max(1, examples)));
  });
}

/** Every domain's, of examples in any order; `domainOf[j]` < k is the domain of example j. A domain may have none. */
export function alignmentsByDomain(
  dots: ArrayLike<number>,
  tokens: ArrayLike<number>,
  domainOf: ArrayLike<number>,
  k: number,
): DomainAlignment[] {
  if (dots.length !== domainOf.length)
    throw new GradmixError("shape", `${dots.length} dots for ${domainOf.length} domain indices`);
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
