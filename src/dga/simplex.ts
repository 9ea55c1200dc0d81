/**
 * Arithmetic on the probability simplex {α : αᵢ ≥ 0, Σ αᵢ = 1}, in Float64. Pure functions: nothing is changed in place.
 */
import { GradmixError } from "../errors.ts";

export type Weights = Float64Array;

/** How far a sum of weights given by a user may be from 1. */
export const SUM_TOLERANCE = 1e-6;

export function uniformWeights(k: number): Weights {
  return new Float64Array(k).fill(1 / k);
}

/** values / Σ values. Throws `numeric` unless all are finite, ≥ 0 and their sum is positive. */
export function normalise(values: ArrayLike<number>, what = "weights"): Weights {
  const out = Float64Array.from(values);
  let sum = 0;
  for (const value of out) {
    if (!Number.isFinite(value) || value < 0)
      throw new GradmixError("numeric", `${what}: ${value} cannot be a weight; weights are finite and ≥ 0`);
    sum += value;
  }
  if (sum <= 0) throw new GradmixError("numeric", `${what}: they sum to ${sum}; at least one must be positive`);
  // Huge values overflow the sum; halving all of them first changes no ratio.
  if (!Number.isFinite(sum)) return normalise(out.map((value) => value * 2 ** -600), what);
  for (let i = 0; i < out.length; i++) out[i] /= sum;
  return out;
}

/**
 * The exponentiated-gradient step, α′ ∝ α ⊙ exp(η·direction): mirror ascent under the entropy, argmin of −η⟨direction, α′⟩ +
 * KL(α′‖α). Computed on logarithms with the maximum taken off, so any finite direction is safe; a weight of 0 stays 0. The sign is +:
 * a domain whose direction is larger gains.
 */
export function exponentiatedGradient(alpha: ArrayLike<number>, direction: ArrayLike<number>, eta: number): Weights {
  const k = alpha.length;
  if (eta === 0 || k === 1) return Float64Array.from(alpha);
  // The directions' maximum goes first, so that a constant added to all of them changes nothing, not even by rounding of η·a.
  let top = -Infinity;
  for (let i = 0; i < k; i++) if (alpha[i] > 0) top = Math.max(top, direction[i]);
  const logits = new Float64Array(k);
  let peak = -Infinity;
  for (let i = 0; i < k; i++) {
    logits[i] = alpha[i] > 0 ? Math.log(alpha[i]) + eta * (direction[i] - top) : -Infinity;
    peak = Math.max(peak, logits[i]);
  }
  let sum = 0;
  for (let i = 0; i < k; i++) sum += logits[i] = Math.exp(logits[i] - peak);
  for (let i = 0; i < k; i++) logits[i] /= sum;
  return logits;
}

/** (1 − β)·average + β·next: β weights the NEW value, β = 1 is no average (the convention of the DGA paper). */
export function movingAverage(average: ArrayLike<number>, next: ArrayLike<number>, beta: number): Weights {
  if (beta === 1) return Float64Array.from(next);
  const out = new Float64Array(next.length);
  for (let i = 0; i < out.length; i++) out[i] = (1 - beta) * average[i] + beta * next[i];
  return out;
}

/**
 * The KL projection on {α : αᵢ ≥ floor}: weights below the floor are raised to it and the others scaled down by one factor, repeated
 * until none is below. Keeps the order of the weights. Needs 0 ≤ floor ≤ 1/k.
 */
export function projectFloor(alpha: ArrayLike<number>, floor: number): Weights {
  const out = Float64Array.from(alpha);
  if (floor <= 0) return out;
  const raised = new Uint8Array(out.length);
  for (;;) {
    let free = 0;
    let count = 0;
    for (let i = 0; i < out.length; i++)
      if (raised[i] === 1) count++;
      else free += alpha[i];
    const scale = (1 - count * floor) / free;
    let changed = false;
    for (let i = 0; i < out.length; i++) {
      if (raised[i] === 1) continue;
      out[i] = alpha[i] * scale;
      if (!(out[i] >= floor)) {
        raised[i] = 1;
        out[i] = floor;
        changed = true;
      }
    }
    if (!changed) return out;
    if (raised.every((r) => r === 1)) return uniformWeights(out.length);
  }
}

/** Throws `config` unless `weights` lie on the simplex of these domains, naming the domain. Returns them summing to 1 exactly (up to rounding). */
export function checkSimplex(weights: ArrayLike<number>, domains: readonly string[], what = "weights"): Weights {
  if (weights.length !== domains.length)
    throw new GradmixError("config", `${what}: ${weights.length} values for ${domains.length} domains`);
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    const value = weights[i];
    if (!Number.isFinite(value) || value < 0)
      throw new GradmixError("config", `${what}: "${domains[i]}" has ${value}; weights are finite and ≥ 0`);
    sum += value;
  }
  if (Math.abs(sum - 1) > SUM_TOLERANCE)
    throw new GradmixError("config", `${what}: they sum to ${sum}, not to 1`);
  return normalise(weights, what);
}

/** −Σ αᵢ log αᵢ, in nats. */
export function entropy(alpha: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < alpha.length; i++) if (alpha[i] > 0) sum -= alpha[i] * Math.log(alpha[i]);
  return sum;
}

/** KL(p‖q) = Σ pᵢ log(pᵢ/qᵢ), in nats; ∞ where p has weight and q has none. */
export function klDivergence(p: ArrayLike<number>, q: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < p.length; i++) if (p[i] > 0) sum += q[i] > 0 ? p[i] * Math.log(p[i] / q[i]) : Infinity;
  return sum;
}
