/** From per-example numbers to a domain's alignment and its standard error. */
import { GradmixError } from "../errors.ts";

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
    sum += dots[j];
    count += tokens[j];
  }
  if (n === 0) return { alignment: 0, standardError: null };
  const alignment = sum / count;
  if (n < 2) return { alignment, standardError: null };
  let squares = 0;
  for (let j = 0; j < dots.length; j++) squares += (dots[j] - alignment * tokens[j]) ** 2;
  return { alignment, standardError: Math.sqrt((n / (n - 1)) * squares) / count };
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
    const domain = domainOf[j];
    if (!Number.isInteger(domain) || domain < 0 || domain >= k)
      throw new GradmixError("shape", `example ${j} is of domain ${domain}, but there are ${k}`);
    dotsOf[domain].push(dots[j]);
    tokensOf[domain].push(tokens[j]);
  }
  return dotsOf.map((own, i) => domainAlignments(own, tokensOf[i]));
}
