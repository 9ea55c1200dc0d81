/**
 * ADO, adaptive data optimization (Jiang et al., arXiv 2410.11820): fits a learning curve L(n) = ε + b·n^−c to every domain's losses and prefers the
 * domains whose loss falls fastest.
 *
 *     ρᵢ ∝ μᵢ·hᵢ^s·(−∂Lᵢ/∂n),  −∂Lᵢ/∂n = c·b·n^−c / n
 *     π = γ₂·ρ + (1 − γ₂)·π̄, no entry below δ;  h ← γ₁·π + (1 − γ₁)·h;  π̄ ← π̄ + (π − π̄)/(t + 1)
 *
 * n counts the training tokens of all domains, since domains teach each other (the paper's choice; c·b·n^−c is compared at the same n, so 1/n
 * cancels). h gives a domain credit for the tokens that it contributed; μ is a prior, in the paper the domains' shares of the text.
 *
 * Differences from the paper: the fit is least squares over a grid of c in (0, 0.8] with b, ε ≥ 0, instead of a Huber loss on logarithms from many
 * starts with soft bounds; the curve is refitted at every update (theirs: every 1,000 steps, on smoothed losses) from at most 64 points, every second
 * of which is removed when they are full; the floor is a KL projection. In the authors' public code the floor applies to ρ, π̄ averages ρ, and h
 * follows the batches that were drawn; here all three use π.
 */
import { PlacedError } from "../../errors.ts";
import { checkOptions, checkRange, integerIn, numberIn, oneOf, type OptionChecks } from "../../options.ts";
import {
  checkDomains,
  initialState,
  measuredDomains,
  need,
  remembered,
  type Rule,
  type RuleState,
  type Signal,
  wantState,
} from "../rule.ts";
import { normalise, projectFloor, sumOf, type Weights, within } from "../simplex.ts";
import { type ByDomain, numbersByDomain, sizesOf, startOf, ownOptions } from "./by-domain.ts";

/** Options of the rule `ado`. */
export interface AdoOptions {
  /** Selects this rule. */
  readonly name: "ado";
  /** Tokens nᵢ of each domain; the prior is then μ ∝ n, as in the paper. The command `gradmix train` fills in the tokens of its domains. */
  readonly sizes?: ByDomain;
  /** The prior μ, and the weights until there are curves. Default: in proportion to `sizes`, else uniform. */
  readonly start?: ByDomain;
  /** γ₁, 0 < γ₁ ≤ 1: the rate of the credit h. Default 0.1, as in the paper. */
  readonly creditRate?: number;
  /** γ₂, 0 < γ₂ ≤ 1: the share of ρ in π. Default 0.1, as in the paper. */
  readonly policyRate?: number;
  /** s ≥ 0: the exponent of the credit. Default 0.5, as in the paper. */
  readonly creditExponent?: number;
  /** δ: the smallest weight, 0 ≤ δ < 1/k. Default 0.01, as in the paper, or 1/(2k) if that is smaller. */
  readonly floor?: number;
  /** Measurements of a domain before its curve is used, at least 3 (a curve has three parameters). Default 5. */
  readonly minPoints?: number;
}

const POINTS = 64;
/** Exponents tried in the fit; the paper bounds them by 0.8. */
const EXPONENTS: readonly number[] = Array.from({ length: 32 }, (_, i) => (0.8 * (i + 1)) / 32);

export const adoChecks: OptionChecks<AdoOptions> = {
  name: oneOf("ado"),
  sizes: numbersByDomain,
  start: numbersByDomain,
  creditRate: numberIn({ min: 0, max: 1, openMin: true }),
  policyRate: numberIn({ min: 0, max: 1, openMin: true }),
  creditExponent: numberIn({ min: 0 }),
  floor: numberIn({ min: 0, max: 1 }),
  minPoints: integerIn(3, POINTS / 2),
};

export function ado(options: AdoOptions = { name: "ado" }): Rule {
  checkOptions("ado", options, adoChecks);
  options = ownOptions(options);
  const { creditRate = 0.1, policyRate = 0.1, creditExponent = 0.5, minPoints = 5 } = options;
  const floorOf = (k: number): number => options.floor ?? Math.min(0.01, 1 / (2 * k));
  return {
    name: "ado",
    needs: ["losses", "tokensSeen"],
    init(domains) {
      checkDomains(domains);
      const k = domains.length;
      checkRange("ado: floor", floorOf(k), { min: 0, max: 1 / k, openMax: k > 1 });
      // Sizes are checked even where `start` takes their place.
      const bySize = options.sizes === undefined ? null : normalise(sizesOf(options.sizes, domains));
      const given = options.start === undefined && bySize !== null ? bySize : startOf(options.start, domains);
      const prior = Array.from(projectFloor(given, floorOf(k)));
      return initialState("ado", domains, prior, {
        prior,
        credit: prior,
        average: prior,
        /** Number of points so far. */
        count: [0],
        /** Training tokens n at each point. */
        seen: new Array<number>(POINTS).fill(0),
        /** Losses [points, k]; −1 where a domain was not measured. */
        losses: new Array<number>(POINTS * k).fill(-1),
      });
    },
    update(state, signal) {
      wantState("ado", state);
      const k = state.domains.length;
      const losses = lossesOf(state, signal);
      const n = sumOf(need("ado", state, signal, "tokensSeen"));
      const own = (name: string): readonly number[] => remembered("ado", state.memory, name);
      const [prior, credit, average] = [own("prior"), own("credit"), own("average")];
      const measured = measuredDomains("ado", state, signal);
      const before: Curves = { count: own("count")[0]!, seen: own("seen"), losses: own("losses") };
      const curves = withPoint(before, n, k, (i) => (measured === null || measured[i]! ? losses[i]! : -1));
      const speeds = speedsOf(curves, n, k, minPoints);
      // A domain without a curve keeps its weight, as an unmeasured one does in any rule.
      const curved = Array.from(speeds, (speed) => !Number.isNaN(speed));
      const stepped = within(state.weights, curved, (part, total, indices) => {
        const atIndices = (values: ArrayLike<number>): number[] => indices.map((i) => values[i]!);
        const rho = preference(atIndices(prior), atIndices(credit), atIndices(speeds), creditExponent);
        if (rho === null) return part;
        const earlier = normalise(atIndices(average));
        const mixed = rho.map((r, i) => policyRate * r + (1 - policyRate) * earlier[i]!);
        return projectFloor(normalise(mixed), Math.min(floorOf(k) / total, 1 / mixed.length));
      });
      const policy = projectFloor(stepped, floorOf(k));
      const t = state.updates + 1;
      return {
        ...state,
        weights: Array.from(policy),
        updates: t,
        memory: {
          prior,
          credit: credit.map((h, i) => creditRate * policy[i]! + (1 - creditRate) * h),
          average: average.map((a, i) => a + (policy[i]! - a) / (t + 1)),
          ...{ count: [curves.count], seen: curves.seen, losses: curves.losses },
        },
      };
    },
    memoryFault,
  };
}

function memoryFault(memory: RuleState["memory"]): string | null {
  const own = (name: string): readonly number[] => remembered("ado", memory, name);
  const count = own("count")[0]!;
  if (!Number.isInteger(count) || count < 0 || count > POINTS) return `count is ${count}`;
  const negative = ["prior", "average", "credit"].find((name) => own(name).some((value) => value < 0));
  return negative === undefined ? null : `an entry of ${negative} is negative`;
}

/** The losses of a signal. Throws `numeric` for one below 0. */
function lossesOf(state: RuleState, signal: Signal): ArrayLike<number> {
  const losses = need("ado", state, signal, "losses");
  const negative = state.domains.findIndex((_, i) => losses[i]! < 0);
  if (negative >= 0)
    throw new PlacedError(
      "numeric",
      `ado: losses of domain "${state.domains[negative]}" is ${losses[negative]}, but ado fits curves to losses ≥ 0; the weights stay as they are`,
      ["losses", state.domains[negative]!],
    );
  return losses;
}

/** The losses over time, of which the last entries are free. */
interface Curves {
  /** Number of points. */
  readonly count: number;
  /** Training tokens n at each point. */
  readonly seen: readonly number[];
  /** Losses [points, k]; −1 where a domain was not measured. */
  readonly losses: readonly number[];
}

/** Adds a point at n tokens to the curves. If there is no room, every second of the earlier points is removed. */
function withPoint(before: Curves, n: number, k: number, lossOf: (domain: number) => number): Curves {
  const [seen, losses] = [[...before.seen], [...before.losses]];
  let { count } = before;
  if (count === POINTS) {
    for (let p = 1; 2 * p < POINTS; p++) {
      seen[p] = seen[2 * p]!;
      losses.copyWithin(p * k, 2 * p * k, (2 * p + 1) * k);
    }
    count = POINTS / 2;
  }
  seen[count] = n;
  for (let i = 0; i < k; i++) losses[count * k + i] = lossOf(i);
  return { count: count + 1, seen, losses };
}

/** How fast the loss of each domain falls at n tokens; NaN for a domain with fewer points than `minPoints`. */
function speedsOf({ count, seen, losses }: Curves, n: number, k: number, minPoints: number): Float64Array {
  return Float64Array.from({ length: k }, (_, i) => {
    const points = [...Array(count).keys()].filter((p) => seen[p]! > 0 && losses[p * k + i]! >= 0);
    if (points.length < minPoints) return NaN;
    const curve = points.map((p) => losses[p * k + i]!);
    return fallingSpeed(
      points.map((p) => seen[p]!),
      curve,
      n,
    );
  });
}

/** μ ⊙ h^s ⊙ speed, normalised; null if no loss falls. */
function preference(
  prior: readonly number[],
  credit: readonly number[],
  speeds: readonly number[],
  exponent: number,
): Weights | null {
  const shares = speeds.map((speed, i) => prior[i]! * credit[i]! ** exponent * speed);
  return sumOf(shares) > 0 ? normalise(shares) : null;
}

/** n·(−∂L/∂n) = c·b·n^−c at `n` of the least-squares curve ε + b·n^−c with ε, b ≥ 0; 0 for losses that do not fall. */
function fallingSpeed(seen: readonly number[], losses: readonly number[], n: number): number {
  let best = { error: Infinity, speed: 0 };
  for (const c of EXPONENTS) {
    // Relative to n, so that the powers are of order one.
    const x = seen.map((value) => (value / n) ** -c);
    const [mx, my] = [sumOf(x) / x.length, sumOf(losses) / losses.length];
    const xx = sumOf(x.map((value) => (value - mx) ** 2));
    const xy = sumOf(x.map((value, p) => (value - mx) * losses[p]!));
    // If all points have the same n, this is NaN, and so is the error.
    let b = Math.max(0, xy / xx);
    let epsilon = my - b * mx;
    if (epsilon < 0) {
      epsilon = 0;
      b = sumOf(x.map((value, p) => value * losses[p]!)) / sumOf(x.map((value) => value * value));
    }
    const error = sumOf(x.map((value, p) => (epsilon + b * value - losses[p]!) ** 2));
    if (error < best.error) best = { error, speed: c * b };
  }
  return best.speed;
}
