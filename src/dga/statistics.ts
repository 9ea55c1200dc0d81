/** From per-example numbers to a domain's alignment and its standard error. */

export interface DomainAlignment {
  /** ⟨∇L, ∇L_target⟩ with L the domain's mean loss per token: Σ dots / Σ tokens; 0 for a batch without tokens. */
  readonly alignment: number;
  /** Its standard error over examples; null with fewer than two. */
  readonly standardError: number | null;
}

/**
 * `dots[j]` is ⟨∇(summed loss of example j), ∇L_target⟩, `tokens[j]` the example's counted tokens. Examples are the sampled units, so
 * the mean per token is a ratio r = Σd/Σn, whose standard error is √(n/(n−1)·Σ(dⱼ − r·nⱼ)²)/Σn (delta method; Cochran, Sampling
 * Techniques, 3rd ed., §6.4). The target's own sampling error is not in it.
 */
export function domainAlignments(dots: ArrayLike<number>, tokens: ArrayLike<number>): DomainAlignment {
  const n = dots.length;
  let sum = 0;
  let count = 0;
  for (let j = 0; j < n; j++) {
    sum += dots[j];
    count += tokens[j];
  }
  if (count === 0) return { alignment: 0, standardError: null };
  const alignment = sum / count;
  if (n < 2) return { alignment, standardError: null };
  let squares = 0;
  for (let j = 0; j < n; j++) squares += (dots[j] - alignment * tokens[j]) ** 2;
  return { alignment, standardError: Math.sqrt((n / (n - 1)) * squares) / count };
}
