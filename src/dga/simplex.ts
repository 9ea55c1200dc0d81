/**
 * Arithmetic on the probability simplex {α : αᵢ ≥ 0, Σ αᵢ = 1}, in Float64. Pure functions: no argument is changed.
 *
 * All functions return weights that sum to 1 up to rounding (a few 1e-16), however many domains there are. Those that change weights throw `numeric`
 * if all of them are 0.
 */
import { GradmixError } from "../errors.ts";
import { checkRange, show, numberList, callback, isNumberList } from "../options.ts";

/** Weights of domains: numbers of at least 0 that sum to 1. */
export type Weights = Float64Array;

/** The largest difference from 1 that is allowed for the sum of weights given by a user. */
export const SUM_TOLERANCE = 1e-6;

/** The smallest weight that an exponentiated-gradient step leaves to a domain with positive weight: the smallest normal double. */
const LEAST_WEIGHT = 2 ** -1022;

/**
 * Throws unless there are `length` numbers (`config`) and all are finite and ≥ 0 (`numeric`). The functions of this file are for rules of a user's own
 * too, and without the check a wrong list would give NaN, or weights that look right.
 */
function checkNumbers(what: string, values: ArrayLike<number>, wanted?: number): void {
  numberList(what, values);
  const length = wanted ?? values.length;
  if (values.length !== length)
    throw new GradmixError("config", `${what}: ${values.length} numbers for ${length} weights`);
  for (let i = 0; i < length; i++)
    if (!Number.isFinite(values[i]) || values[i]! < 0)
      throw new GradmixError("numeric", `${what}: ${show(values[i])} at ${i}; they are finite and ≥ 0`);
}

/** Like `checkNumbers`, and throws `numeric` if all of the weights are 0. */
function checkWeights(what: string, weights: ArrayLike<number>): void {
  checkNumbers(what, weights);
  for (let i = 0; i < weights.length; i++) if (weights[i]! > 0) return;
  if (weights.length > 0)
    throw new GradmixError("numeric", `${what}: all of them are 0; at least one must be positive`);
}

/** k equal weights. Throws `config` unless k is a whole number. */
export function uniformWeights(k: number): Weights {
  checkRange("uniformWeights: k", k, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true });
  return new Float64Array(k).fill(1 / k);
}

/** The sum of the values with Neumaier's compensation, so that the error does not grow with their number. Throws `config` for a value that is no number. */
export function sumOf(values: ArrayLike<number>): number {
  numberList("sumOf: values", values);
  let sum = 0;
  let lost = 0;
  for (let i = 0; i < values.length; i++) {
    const value: unknown = values[i];
    // Texts would be joined, not added.
    if (typeof value !== "number")
      throw new GradmixError("config", `sumOf: ${show(value)} at ${i} is not a number`);
    const next = sum + value;
    lost += Math.abs(sum) >= Math.abs(value) ? sum - next + value : value - next + sum;
    sum = next;
  }
  // If the sum overflows, the compensation is NaN.
  return Number.isFinite(sum) ? sum + lost : sum;
}

/** Divides the values by their sum. Throws `numeric` unless all are finite and ≥ 0 and their sum is positive. */
export function normalise(values: ArrayLike<number>, what = "weights"): Weights {
  numberList(`normalise: ${what}`, values);
  const out = Float64Array.from(values);
  for (const value of out)
    if (!Number.isFinite(value) || value < 0)
      throw new GradmixError("numeric", `${what}: ${value} cannot be a weight; weights are finite and ≥ 0`);
  const sum = sumOf(out);
  if (sum <= 0)
    throw new GradmixError("numeric", `${what}: they sum to ${sum}; at least one must be positive`);
  // The sum of huge values overflows; scaling all of them down first does not change their ratios.
  if (sum === Infinity) return normalise(out.map((value) => value * 2 ** -600));
  return out.map((value) => value / sum);
}

/**
 * The exponentiated-gradient step, α′ ∝ α ⊙ exp(+η·direction): mirror ascent with the entropy, the argmin over the simplex of −η⟨direction, α′⟩ +
 * KL(α′‖α). Domains with a larger direction gain.
 *
 * It is computed on logarithms after subtracting the maximum, so any finite direction is safe. The support is kept: a weight of 0 stays exactly 0,
 * and a positive one stays positive (at least 2^−1022, so that a domain can return).
 *
 * Throws `numeric` for a direction or a weight that is not finite, and for weights that are all 0; and `config` for lists of different lengths and
 * for an η that is not finite.
 */
export function exponentiatedGradient(
  alpha: ArrayLike<number>,
  direction: ArrayLike<number>,
  eta: number,
): Weights {
  checkWeights("the weights of the mirror step", alpha);
  const k = alpha.length;
  numberList("the direction of the mirror step", direction);
  // A negative η is a step down; it is mirrorStep that takes steps up only.
  const finite = { min: -Infinity, max: Infinity, openMin: true, openMax: true };
  checkRange("the step size η of the mirror step", eta, finite);
  if (direction.length !== k)
    throw new GradmixError(
      "config",
      `the direction of the mirror step has ${direction.length} numbers for ${k} weights`,
    );
  for (let i = 0; i < k; i++)
    if (!Number.isFinite(direction[i]))
      throw new GradmixError("numeric", `the direction of the mirror step is ${direction[i]} at ${i}`);
  if (eta === 0) return Float64Array.from(alpha);
  // The direction with the largest η·a is subtracted first, so that a constant added to all of them changes nothing, not even by rounding of η·a.
  const sign = Math.sign(eta);
  let top = -sign * Infinity;
  for (let i = 0; i < k; i++) if (alpha[i]! > 0 && sign * direction[i]! > sign * top) top = direction[i]!;
  const logits = new Float64Array(k);
  let peak = -Infinity;
  for (let i = 0; i < k; i++) {
    logits[i] = alpha[i]! > 0 ? Math.log(alpha[i]!) + eta * (direction[i]! - top) : -Infinity;
    peak = Math.max(peak, logits[i]!);
  }
  const scaled = logits.map((logit) => Math.exp(logit - peak));
  const sum = sumOf(scaled);
  return scaled.map((value, i) => (alpha[i]! > 0 ? Math.max(value / sum, LEAST_WEIGHT) : 0));
}

/**
 * (1 − β)·average + β·next of two points of the simplex. β is the weight of the NEW value; with β = 1 there is no averaging (the convention of the
 * DGA paper). Each weight stays between its two values, so a floor that both respect is kept. Throws `config` for a β outside [0, 1] and for lists of
 * different lengths, and `numeric` for weights that are not finite and ≥ 0.
 */
export function movingAverage(average: ArrayLike<number>, next: ArrayLike<number>, beta: number): Weights {
  checkRange("movingAverage: beta", beta, { min: 0, max: 1 });
  checkNumbers("movingAverage: average", average);
  checkNumbers("movingAverage: next", next, average.length);
  if (beta === 1) return Float64Array.from(next);
  const mixed = Float64Array.from(next, (b, i) => {
    const a = average[i]!;
    // This form leaves equal weights unchanged; the clamp keeps rounding within both ends.
    return Math.min(Math.max(a + beta * (b - a), Math.min(a, b)), Math.max(a, b));
  });
  return settled(mixed);
}

/** Removes rounding errors that add up over thousands of steps. Sums within a small tolerance are left alone, so that weights at rest do not move. */
function settled(alpha: Weights): Weights {
  return Math.abs(sumOf(alpha) - 1) > 1e-14 ? normalise(alpha) : alpha;
}

/**
 * The KL projection on {α : αᵢ ≥ floor}, argmin of KL(α′‖α): α′ᵢ = max(floor, c·αᵢ) with the c for which they sum to 1. It keeps the order of the
 * weights and the ratios of those above the floor. Throws `config` unless 0 ≤ floor ≤ 1/k. A point that respects the floor is returned unchanged; a
 * weight of 0 is raised too.
 */
export function projectFloor(alpha: ArrayLike<number>, floor: number): Weights {
  checkWeights("projectFloor: weights", alpha);
  checkRange("projectFloor: floor", floor, { min: 0, max: 1 / alpha.length });
  const out = Float64Array.from(alpha);
  if (out.every((weight) => weight >= floor)) return out;
  // With the weights in descending order, the first m stay free: c = (1 − (k − m)·floor) / (their sum), for the largest m whose last weight, scaled,
  // still reaches the floor.
  const k = out.length;
  const sorted = out.toSorted().reverse();
  let m = 0;
  let sum = 0;
  while (m < k && sorted[m]! * (1 - (k - m - 1) * floor) >= floor * (sum + sorted[m]!)) sum += sorted[m++]!;
  // Only a floor of 1/k leaves none free, because of rounding.
  if (m === 0) return uniformWeights(k);
  const c = (1 - (k - m) * floor) / sumOf(sorted.subarray(0, m));
  return out.map((weight) => Math.max(floor, c * weight));
}

/**
 * Changes the weights among some of the domains: `change` receives their weights, divided by their total, and its result is scaled to that total. The
 * other weights, and the support of these, stay. `among` null means all domains; a single domain keeps its weight. Throws `config` for an `among` of
 * another length.
 */
export function within(
  alpha: ArrayLike<number>,
  among: readonly boolean[] | null,
  change: (part: Weights, total: number, indices: readonly number[]) => Weights,
): Weights {
  numberList("within: weights", alpha);
  callback("within: change", change);
  if (among !== null && (!Array.isArray(among) || among.length !== alpha.length))
    throw new GradmixError(
      "config",
      `among: ${Array.isArray(among) ? `${among.length} values` : show(among)} for ${alpha.length} domains; give true or false for each, or null for all`,
    );
  const out = Float64Array.from(alpha);
  const indices = [...out.keys()].filter((i) => among === null || among[i]);
  if (indices.length === out.length) return change(out, 1, indices);
  const total = sumOf(indices.map((i) => alpha[i]!));
  if (indices.length < 2 || total === 0) return out;
  const part = change(
    Float64Array.from(indices, (i) => alpha[i]! / total),
    total,
    indices,
  );
  indices.forEach((i, j) => (out[i] = part[j]! > 0 ? Math.max(total * part[j]!, LEAST_WEIGHT) : 0));
  return settled(out);
}

/**
 * Limits weights by caps: the excess over the caps goes to all domains in proportion to the room below their caps, capᵢ − αᵢ. (`projectBounds`
 * distributes it in proportion to the weights, so that the next largest domains reach their caps too.) If the caps sum to less than 1, the weights
 * are in proportion to them. Caps that are not exceeded change nothing. Throws `config` for lists of different lengths, and `numeric` for numbers that
 * are not finite and ≥ 0.
 */
export function spreadExcess(alpha: ArrayLike<number>, caps: ArrayLike<number>): Weights {
  checkWeights("spreadExcess: weights", alpha);
  checkNumbers("spreadExcess: caps", caps, alpha.length);
  const all = sumOf(caps);
  if (all <= 1) return normalise(caps, "caps");
  const within = Float64Array.from(alpha, (weight, i) => Math.min(weight, caps[i]!));
  // Weights that sum to 1 up to rounding may leave none.
  const excess = Math.max(0, 1 - sumOf(within));
  if (within.every((weight, i) => weight === alpha[i])) return within;
  const room = sumOf(within.map((weight, i) => caps[i]! - weight));
  const share = room > 0 ? excess / room : 0;
  return normalise(within.map((weight, i) => Math.min(caps[i]!, weight + share * (caps[i]! - weight))));
}

/**
 * Limits weights by caps on how much each domain can supply. The domains with positive weight can supply C = Σ capᵢ times what is drawn, so C − 1 of
 * it is spare. A share min(1, 1/(C − 1)) of the result is `spreadExcess(α)`, which uses the spare supply of these domains evenly. The rest is the KL
 * projection (`projectBounds`), which keeps the ratios of the weights below their caps. So with much to spare, the domains with the largest weights
 * replace those at their caps; with little, all of these domains do. Caps that are not exceeded change nothing.
 *
 * A weight of 0 stays 0 while the others can supply everything. Otherwise the others are at their caps, and the weights of 0 share the rest in
 * proportion to their caps. If all caps sum to less than 1, the weights are in proportion to them. Throws like `spreadExcess`.
 */
export function limitByCaps(alpha: ArrayLike<number>, caps: ArrayLike<number>): Weights {
  checkWeights("limitByCaps: weights", alpha);
  checkNumbers("limitByCaps: caps", caps, alpha.length);
  if (sumOf(caps) <= 1) return normalise(caps, "caps");
  const none = new Float64Array(alpha.length);
  const used = Float64Array.from(caps, (cap, i) => (alpha[i]! > 0 ? cap : 0));
  const spare = sumOf(used) - 1;
  if (spare <= 0) return projectBounds(alpha, none, caps);
  const even = spreadExcess(alpha, used);
  if (spare <= 1 || even.every((weight, i) => weight === alpha[i])) return even;
  const near = projectBounds(alpha, none, used);
  return near.map((weight, i) => weight + (even[i]! - weight) / spare);
}

/** Mixes in uniform weights: (1 − share)·α + share/k. Throws `config` for a share outside [0, 1]. */
export function mixUniform(alpha: Weights, share: number): Weights {
  checkRange("mixUniform: share", share, { min: 0, max: 1 });
  checkNumbers("mixUniform: weights", alpha);
  return share === 0
    ? alpha.slice()
    : normalise(alpha.map((weight) => (1 - share) * weight + share / alpha.length));
}

/**
 * Throws `config`, naming the domain, unless `weights` lie on the simplex of these domains to within SUM_TOLERANCE. Returns weights that sum to 1 up
 * to rounding.
 */
export function checkSimplex(
  weights: ArrayLike<number>,
  domains: readonly string[],
  what = "weights",
): Weights {
  numberList(what, weights);
  if (!Array.isArray(domains))
    throw new GradmixError("config", `${what}: the domains are ${show(domains)}, not a list of names`);
  if (weights.length !== domains.length)
    throw new GradmixError("config", `${what}: ${weights.length} values for ${domains.length} domains`);
  for (let i = 0; i < weights.length; i++) {
    const value = weights[i]!;
    if (!Number.isFinite(value) || value < 0)
      throw new GradmixError(
        "config",
        `${what}: "${domains[i]}" has ${show(value)}; weights are finite and ≥ 0`,
      );
  }
  const sum = sumOf(weights);
  if (Math.abs(sum - 1) > SUM_TOLERANCE)
    throw new GradmixError("config", `${what}: they sum to ${sum}, not to 1`);
  return normalise(weights, what);
}

/** Whether numbers that were read from a file lie on the simplex, up to rounding. */
export function liesOnSimplex(numbers: readonly number[]): boolean {
  return (
    isNumberList(numbers) && Math.abs(sumOf(numbers) - 1) <= 1e-9 && numbers.every((weight) => weight >= 0)
  );
}

/** Entropy −Σ αᵢ log αᵢ, in nats. Throws `numeric` for weights that are not finite and ≥ 0. */
export function entropy(alpha: ArrayLike<number>): number {
  checkNumbers("entropy: weights", alpha);
  let sum = 0;
  for (let i = 0; i < alpha.length; i++) if (alpha[i]! > 0) sum -= alpha[i]! * Math.log(alpha[i]!);
  return sum;
}

/** Kullback–Leibler divergence KL(p‖q) = Σ pᵢ log(pᵢ/qᵢ), in nats; ∞ if q is 0 where p is positive. Throws like `entropy`, and `config` for lists of different lengths. */
export function klDivergence(p: ArrayLike<number>, q: ArrayLike<number>): number {
  checkNumbers("klDivergence: p", p);
  checkNumbers("klDivergence: q", q, p.length);
  let sum = 0;
  for (let i = 0; i < p.length; i++) if (p[i]! > 0) sum += p[i]! * Math.log(p[i]! / q[i]!);
  return sum;
}

/**
 * The KL projection on {α : floorᵢ ≤ αᵢ ≤ capᵢ}, argmin of KL(α′‖α): α′ᵢ = min(capᵢ, max(floorᵢ, c·αᵢ)) with the c for which they sum to 1. With one
 * floor and one cap for all domains it keeps the order of the weights, and the ratios of those that touch neither bound. A point that respects the
 * bounds is returned unchanged. If the positive weights cannot fill the simplex, weights of 0 share the rest in proportion to the room below their
 * caps.
 *
 * Throws `config` if no point respects the bounds: Σ floorᵢ > 1, Σ capᵢ < 1 or a floor above its cap; also for lists of different lengths. Throws
 * `numeric` for weights that are not finite and ≥ 0.
 */
export function projectBounds(
  alpha: ArrayLike<number>,
  floors: ArrayLike<number>,
  caps: ArrayLike<number>,
): Weights {
  numberList("projectBounds: weights", alpha);
  numberList("projectBounds: floors", floors);
  numberList("projectBounds: caps", caps);
  const out = Float64Array.from(alpha);
  const k = out.length;
  if (floors.length !== k || caps.length !== k)
    throw new GradmixError(
      "config",
      `projectBounds: ${floors.length} floors and ${caps.length} caps for ${k} weights`,
    );
  const isWithin = out.every((weight, i) => weight >= floors[i]! && weight <= caps[i]!);
  if (isWithin && out.some((weight) => weight > 0)) return out;
  for (let i = 0; i < k; i++)
    if (!(floors[i]! >= 0 && floors[i]! <= caps[i]!))
      throw new GradmixError(
        "config",
        `weights: the floor ${floors[i]} of domain ${i} is above its cap ${caps[i]}`,
      );
  const [low, high] = [sumOf(floors), sumOf(caps)];
  if (low > 1 + 1e-12 || high < 1 - 1e-12)
    throw new GradmixError(
      "config",
      `weights: none lie between floors that sum to ${low} and caps that sum to ${high}; floors must sum to at most 1, caps to at least 1`,
    );
  checkWeights("projectBounds: weights", out);
  const at = (c: number): Weights =>
    out.map((weight, i) => Math.min(caps[i]!, Math.max(floors[i]!, c * weight)));
  // Σ at(c) is piecewise linear and never falls in c. It has a kink where a weight leaves its floor and where it reaches its cap. A weight of 0 has
  // none: its quotients are not finite.
  const kinks = [floors, caps].flatMap((bounds) => Array.from(out, (weight, i) => bounds[i]! / weight));
  const sorted = Float64Array.from(kinks.filter(Number.isFinite)).sort();
  let [first, last] = [0, sorted.length];
  while (first < last) {
    const middle = (first + last) >> 1;
    if (sumOf(at(sorted[middle]!)) >= 1) last = middle;
    else first = middle + 1;
  }
  if (first === sorted.length) return settle(at(Number.MAX_VALUE), floors, caps);
  const [from, to] = [first === 0 ? 0 : sorted[first - 1]!, sorted[first]!];
  const [sumAtLow, sumAtHigh] = [sumOf(at(from)), sumOf(at(to))];
  // Floors that sum to 1 leave no room.
  const share = sumAtHigh > sumAtLow ? (1 - sumAtLow) / (sumAtHigh - sumAtLow) : 0;
  return settle(at(from + share * (to - from)), floors, caps);
}

/** Distributes what is missing to 1 (or in excess) over the room that the bounds leave, in proportion to it. */
function settle(weights: Weights, floors: ArrayLike<number>, caps: ArrayLike<number>): Weights {
  const missing = 1 - sumOf(weights);
  if (Math.abs(missing) <= 1e-15) return weights;
  const room = weights.map((weight, i) => (missing > 0 ? caps[i]! - weight : weight - floors[i]!));
  const total = sumOf(room);
  if (total <= 0) return weights;
  const share = Math.min(1, Math.abs(missing) / total) * Math.sign(missing);
  return weights.map((weight, i) => Math.min(caps[i]!, Math.max(floors[i]!, weight + share * room[i]!)));
}
