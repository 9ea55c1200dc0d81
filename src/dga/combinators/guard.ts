/**
 * A guard: domains whose held-out loss may rise by no more than a share over its reference.
 *
 * The rule inside chooses weights w that are good for its target; the constraints are rᵢ(θ) = Lᵢ/referenceᵢ ≤ limitᵢ. Weights act on the losses only through
 * the training to come, so this is solved while it trains, by dual ascent with a multiplier λᵢ ≥ 0 for each constraint: λᵢ ← [λᵢ + ρ·vᵢ]₊, with vᵢ by how much the
 * constraint is broken. λᵢ buys weight: a domain gets at least bᵢ = s·(exp(λᵢ) − 1), and what is sampled is the point closest to w in KL divergence within these
 * bounds. Where no constraint was broken all λ are 0, and the weights are those of the rule.
 *
 * Three things keep this from swinging. vᵢ is that of the ratio as it will be at the next measurement, 2rᵢ − rᵢ′ (optimistic dual ascent: A. Rakhlin and K. Sridharan,
 * NeurIPS 2013). A step of λ is bounded, the way down more than the way up. And an ascent begins at the weight that the domain had anyway, below which a bound binds
 * nothing.
 */
import { GradmixError } from "../../errors.ts";
import { checkOptions, checkRange, numberIn, object, required, show } from "../../options.ts";
import { heldOutNumbers, type HeldOutNumbers, remembered, type Rule, type RuleState } from "../rule.ts";
import { byDomain, type ByDomain, numbersByDomain } from "../rules/by-domain.ts";
import { projectBounds, sumOf } from "../simplex.ts";
import { type OwnMemory, wrap } from "./wrap.ts";

/** Options of the combinator `guard`, which keeps domains from being forgotten. */
export interface GuardOptions {
  /**
   * By domain, "*" for all that are not named: what its held-out loss may be at most, as a share of its reference. 1.02 is a rise of 2 %. At least 1. A domain that is not named is not
   * guarded.
   */
  readonly limits: Readonly<Record<string, number>>;
  /**
   * Held-out losses to compare with, per domain or by name; 0 or not named: what the signal says (`heldOutReferences`), else the first loss that it tells.
   */
  readonly references?: ByDomain;
  /** What a guard may ask for a domain at most, as a weight, per domain or by name. Default 1. */
  readonly caps?: ByDomain;
  /** What all guards together may ask for at most, 0 < most < 1; the rest stays the rule's. Default: `guardDefaults`. */
  readonly most?: number;
  /** ρ: how far λ moves for a loss that is its whole reference above the limit. Default: `guardDefaults`. */
  readonly rate?: number;
}

/** What `guard` takes where nothing is said. */
export const guardDefaults = {
  /** Default of `most`. */
  most: 0.8,
  /** Default of `rate`. */
  rate: 50,
};

/** k·s: λ = 1 buys 1.7 times s, an eighth of the mean weight. */
const SEED = 1 / 8;
/** The most that λ moves at once, up and down. */
const RISE = 1;
const FALL = 0.25;
/** A rise counts only where it is more than so many of its standard errors. */
export const SURE = 2;

/**
 * No guarded domain's held-out loss rises above its reference by more than its limit allows, as far as weights can hold it there. Looks at `heldOutLosses`, in the updates that have
 * them. A rise that is within twice its standard error (`heldOutErrors`) changes nothing.
 *
 * Bounds hold for what is sampled, as those of `floor` do; what is around the guard (a cap, another floor) goes before it. Throws `config` for a name that is no domain, and limits below 1.
 */
export function guard(rule: Rule, options: GuardOptions): Rule {
  checkOptions("guard", options, {
    limits: required(object),
    references: numbersByDomain,
    caps: numbersByDomain,
    most: numberIn({ min: 0, max: 1, openMin: true, openMax: true }),
    rate: numberIn({ min: 0, openMin: true }),
  });
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

/** Throws `config` unless there is a limit, and none is below 1. */
function checkLimits(limits: GuardOptions["limits"], what: string = "guard: limits"): void {
  const entries = Object.entries(limits);
  if (entries.length === 0)
    throw new GradmixError("config", `${what}: none is given; name a domain, or "*" for all`);
  for (const [name, limit] of entries)
    checkRange(`${what}: ${name}`, limit, { min: 1, max: Infinity, openMax: true });
}

/** The limit of each domain; null for one that is not guarded. Throws `config` for a name that is no domain. */
export function limitsOf(
  limits: GuardOptions["limits"],
  domains: readonly string[],
  what: string = "guard: limits",
): (number | null)[] {
  const { ["*"]: all = null, ...named } = limits;
  byDomain(named, domains, what);
  const own = new Map(Object.entries(named));
  return domains.map((name) => own.get(name) ?? all);
}

/** λ of each domain from the memory of a rule with a guard somewhere around it, the outermost; null where there is none. */
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
      const nothing = domains.map(() => 0);
      return {
        guardReferences: referencesOf(options, domains),
        guardRatios: nothing,
        guardMultipliers: nothing,
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

/** The memory after held-out losses. */
function ascended(
  own: RuleState["memory"],
  { losses, references, errors }: HeldOutNumbers,
  { domains, weights }: RuleState,
  { limits, rate, most }: Required<Pick<GuardOptions, "limits" | "rate" | "most">>,
): RuleState["memory"] {
  const seed = SEED / domains.length;
  // With λ above this a bound would be more than all guards may ask for.
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
    // A loss of 0 cannot be compared with: another time there may be one.
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

/** By how much a constraint is broken, as a share of the reference; not positive where the rise is no more than `noise`. */
function violation(ratio: number, before: number, limit: number, noise: number): number {
  // Half of both, so that nothing overflows.
  const ahead = ratio + Math.min(ratio - before, Number.MAX_VALUE - ratio);
  const above = ahead - Math.max(limit, 1 + noise);
  return ratio <= 1 + noise ? Math.min(0, above) : above;
}

/** b = s·(exp(λ) − 1), and back. */
const boundOf = (lambda: number, seed: number): number => seed * Math.expm1(lambda);
const multiplierOf = (bound: number, seed: number): number => Math.log1p(bound / seed);

/** The least weight of each domain; together not more than `most`. */
function boundsOf(multipliers: readonly number[], caps: readonly number[], most: number): Float64Array {
  const seed = SEED / multipliers.length;
  const asked = Float64Array.from(multipliers, (lambda, i) => Math.min(caps[i]!, boundOf(lambda, seed)));
  const total = sumOf(asked);
  return total <= most ? asked : asked.map((bound) => bound * (most / total));
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
