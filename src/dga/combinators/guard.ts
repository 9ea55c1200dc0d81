/**
 * A guard: for each guarded domain, the held-out loss may rise above its reference by at most a given share.
 *
 * The inner rule chooses weights w that are good for its target; the constraints are rᵢ(θ) = Lᵢ/referenceᵢ ≤ limitᵢ. Weights act on the losses only
 * through the training that follows, so the problem is solved during training, by dual ascent with a multiplier λᵢ ≥ 0 per constraint: λᵢ ← [λᵢ +
 * ρ·vᵢ]₊, where vᵢ is the amount by which the constraint is violated. The multiplier gives the domain a weight of at least bᵢ = s·(exp(λᵢ) − 1), and
 * the sampled weights are the point closest to w in KL divergence within these bounds. As long as no constraint was violated, all λ are 0 and the
 * weights are those of the rule.
 *
 * Three measures prevent oscillation. vᵢ uses the ratio extrapolated to the next measurement, 2rᵢ − rᵢ′ (optimistic dual ascent: A. Rakhlin and K.
 * Sridharan, NeurIPS 2013). The step of λ is bounded, more strictly downwards than upwards. And an ascent begins at the weight that the domain
 * already had, because a bound below it has no effect.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptions, checkRange, hasMembers, numberIn, required, show, valueThat } from "../../options.ts";
import { heldOutNumbers, type HeldOutNumbers, remembered, type Rule, type RuleState } from "../rule.ts";
import { byDomain, type ByDomain, numbersByDomain, ownOptions } from "../rules/by-domain.ts";
import { projectBounds, sumOf } from "../simplex.ts";
import { type OwnMemory, wrap } from "./wrap.ts";

/** Options of the combinator `guard`, which keeps domains from being forgotten. */
export interface GuardOptions {
  /**
   * The highest held-out loss of each domain, as a multiple of its reference, by domain name; "*" stands for all domains that are not named. 1.02
   * allows a rise of 2 %. At least 1. A domain that is not named is not guarded.
   */
  readonly limits: Readonly<Record<string, number>>;
  /**
   * Held-out losses to compare with, one per domain or by name. For 0, or a domain that is not named, the guard uses `heldOutReferences` of the
   * signal, or else the first held-out loss in a signal.
   */
  readonly references?: ByDomain;
  /** The largest weight that a guard may demand for a domain, one per domain or by name. Default 1. */
  readonly caps?: ByDomain;
  /** The largest total weight that all guards together may demand, 0 < most < 1; the rest follows the rule. Default: `guardDefaults`. */
  readonly most?: number;
  /** ρ: how far λ moves for a loss that exceeds the limit by the whole reference. Default: `guardDefaults`. */
  readonly rate?: number;
}

/** Defaults of the options of `guard`. */
export const guardDefaults = {
  /** Default of `most`. */
  most: 0.8,
  /** Default of `rate`. */
  rate: 50,
};

/** k·s, where s is the scale of the bounds: λ = 1 gives a weight of 1.7·s, with s an eighth of the mean weight. */
const SEED = 1 / 8;
/** The largest change of λ in one update, upwards and downwards. */
const RISE = 1;
const FALL = 0.25;
/** A rise counts only if it exceeds this many of its standard errors. */
export const SURE = 2;

/**
 * Keeps the held-out loss of each guarded domain within its limit over its reference, as far as weights can do so. It reads `heldOutLosses` in the
 * updates that have them. A rise within twice its standard error (`heldOutErrors`) changes nothing.
 *
 * The bounds hold for the sampled weights, like those of `floor`; combinators around the guard (a cap, another floor) take precedence. Throws
 * `config` for an unknown domain and for limits below 1.
 */
export function guard(rule: Rule, options: GuardOptions): Rule {
  checkOptions("guard", options, {
    limits: required(valueThat("an object with limits by name", hasMembers)),
    references: numbersByDomain,
    caps: numbersByDomain,
    most: numberIn({ min: 0, max: 1, openMin: true, openMax: true }),
    rate: numberIn({ min: 0, openMin: true }),
  });
  options = ownOptions(options);
  const { most = guardDefaults.most } = options;
  checkLimits(options.limits);
  return wrap(rule, {
    name: "guard",
    needs: ["heldOutLosses"],
    always: true,
    memory: memoryOf(options),
    weights(inner, _, domains, memory) {
      const multipliers = remembered("guard", memory, "guardMultipliers");
      const bounds = boundsOf(multipliers, capsOf(options, domains), most);
      return projectBounds(inner, bounds, new Float64Array(domains.length).fill(1));
    },
  });
}

/** Throws `config` unless there is at least one limit and no limit is below 1. */
function checkLimits(limits: GuardOptions["limits"], what: string = "guard: limits"): void {
  const entries = Object.entries(limits);
  if (entries.length === 0)
    throw new GradmixError("config", `${what}: none is given; name a domain, or "*" for all`);
  for (const [name, limit] of entries)
    checkRange(`${what}: ${name}`, limit, { min: 1, max: Infinity, openMax: true });
}

/** The limit of each domain; null for one that is not guarded. Throws `config` for an unknown domain. */
export function limitsOf(
  limits: GuardOptions["limits"],
  domains: readonly string[],
  what: string = "guard: limits",
): (number | null)[] {
  const { ["*"]: all = null, ...named } = limits;
  if (all !== null && domains.includes("*"))
    throw new GradmixError(
      "config",
      `${what}: "*" stands for all domains that are not named, and a domain is called so too; give the domain another name`,
    );
  byDomain(named, domains, what);
  const own = new Map(Object.entries(named));
  return domains.map((name) => own.get(name) ?? all);
}

/** λ of each domain from the memory of a rule that contains a guard (of several, the outermost); null if there is none. */
export function multipliersOf({ memory }: RuleState): readonly number[] | null {
  const found = Object.entries(memory).find(([key]) => /(^|\.)guardMultipliers$/.test(key));
  return found === undefined ? null : found[1];
}

function memoryOf(options: GuardOptions): OwnMemory {
  const { rate = guardDefaults.rate, most = guardDefaults.most } = options;
  return {
    first(domains) {
      limitsOf(options.limits, domains);
      capsOf(options, domains);
      const zeros = domains.map(() => 0);
      return {
        guardReferences: referencesOf(options, domains),
        guardRatios: zeros,
        guardMultipliers: zeros,
      };
    },
    next(own, given, state) {
      const found = heldOutNumbers("guard", state, given);
      return found === null ? own : ascended(own, found, state, { limits: options.limits, rate, most });
    },
    fault(own) {
      const negative = Object.entries(own).find(([, values]) => values.some((value) => value < 0));
      return negative === undefined ? null : `${negative[0]} has a number below 0`;
    },
  };
}

/** The memory after an update with held-out losses. */
function ascended(
  own: RuleState["memory"],
  { losses, references, errors }: HeldOutNumbers,
  { domains, weights }: RuleState,
  { limits, rate, most }: Required<Pick<GuardOptions, "limits" | "rate" | "most">>,
): RuleState["memory"] {
  const seed = SEED / domains.length;
  // With a larger λ, the bound would exceed what all guards together may demand.
  const highest = multiplierOf(most, seed);
  const guarded = limitsOf(limits, domains);
  const known = {
    references: remembered("guard", own, "guardReferences"),
    ratios: remembered("guard", own, "guardRatios"),
    multipliers: remembered("guard", own, "guardMultipliers"),
  };
  const next = {
    guardReferences: [...known.references],
    guardRatios: [...known.ratios],
    guardMultipliers: [...known.multipliers],
  };
  guarded.forEach((limit, i) => {
    const loss = losses[i] ?? null;
    if (limit === null || loss === null) return;
    const reference = known.references[i] || (references[i] ?? loss);
    // A loss of 0 cannot be a reference; a later one may be positive.
    if (reference === 0) return;
    const ratio = Math.min(loss / reference, Number.MAX_VALUE);
    const before = known.ratios[i] || ratio;
    const step = rate * violation(ratio, before, limit, (SURE * (errors[i] ?? 0)) / reference);
    const lambda = known.multipliers[i]!;
    const from = step > 0 ? Math.max(lambda, multiplierOf(Math.min(weights[i]!, most), seed)) : lambda;
    next.guardReferences[i] = reference;
    next.guardRatios[i] = ratio;
    next.guardMultipliers[i] = Math.min(highest, Math.max(0, from + Math.max(-FALL, Math.min(RISE, step))));
  });
  return next;
}

/** The amount by which a constraint is violated, as a share of the reference; not positive if the rise is at most `noise`. */
function violation(ratio: number, before: number, limit: number, noise: number): number {
  // The extrapolation is capped, so that nothing overflows.
  const ahead = ratio + Math.min(ratio - before, Number.MAX_VALUE - ratio);
  const excess = ahead - Math.max(limit, 1 + noise);
  return ratio <= 1 + noise ? Math.min(0, excess) : excess;
}

/** The bound b = s·(exp(λ) − 1), and its inverse. */
const boundOf = (lambda: number, seed: number): number => seed * Math.expm1(lambda);
const multiplierOf = (bound: number, seed: number): number => Math.log1p(bound / seed);

/** The smallest weight of each domain; their sum is at most `most`. */
function boundsOf(multipliers: readonly number[], caps: readonly number[], most: number): Float64Array {
  const seed = SEED / multipliers.length;
  const demanded = Float64Array.from(multipliers, (lambda, i) => Math.min(caps[i]!, boundOf(lambda, seed)));
  const total = sumOf(demanded);
  return total <= most ? demanded : demanded.map((bound) => bound * (most / total));
}

function referencesOf({ references }: GuardOptions, domains: readonly string[]): number[] {
  const given =
    references === undefined ? domains.map(() => 0) : byDomain(references, domains, "guard: references");
  return checked(given, domains, "references", Infinity);
}

function capsOf({ caps }: GuardOptions, domains: readonly string[]): number[] {
  if (caps === undefined) return domains.map(() => 1);
  return checked(byDomain(caps, domains, "guard: caps", { mustName: true }), domains, "caps", 1);
}

/** Throws `config`, naming the domain, for a number that is not finite, negative or above `most`. */
function checked(values: number[], domains: readonly string[], what: string, most: number): number[] {
  const bad = values.findIndex((value) => !Number.isFinite(value) || value < 0 || value > most);
  if (bad < 0) return values;
  throw new GradmixError(
    "config",
    `guard: ${what}: "${domains[bad]}" has ${show(values[bad])}; they are finite, at least 0${most === Infinity ? "" : ` and at most ${most}`}`,
  );
}
