/** Parts of the invariants of `checkRule`: what they know of the rule, how they run, and the tolerances. */
import fc from "fast-check";
import type { Rule, RuleState, Signal } from "../dga/rule.ts";
import { sumOf } from "../dga/simplex.ts";
import { GradmixError } from "../errors.ts";
import { type FullSignal, signalParts } from "./arbitraries.ts";

/** The rounding errors that `checkRule` allows, as absolute differences of weights (which are of order 1). */
export const tolerance = {
  /** After a single sum or step: the simplex, bounds, weights that must not change. */
  rounding: 1e-12,
  /** Between two ways to compute the same weights over several updates. */
  computations: 1e-9,
} as const;

/** Options of the rule that `checkRule` may set; only those named in the option `knobs` are passed. */
export interface Knobs {
  /** Step size; with 0 the weights must not change. */
  readonly eta?: number;
  /** Weight of the new value in the moving average of the weights; with 1 there must be no averaging. */
  readonly beta?: number;
  /** Initial weights, by domain name. */
  readonly start?: Readonly<Record<string, number>>;
}

/** Makes the rule for these domains. Options by domain must use the names, since domains come in different orders and numbers. */
export type MakeRule = (domains: readonly string[], knobs: Knobs) => Rule;

/** What a rule guarantees. This decides which invariants `checkRule` runs. */
export interface Promises {
  /** A constant added to all alignments changes nothing. Default: true if the rule needs alignments and no norms. */
  readonly shiftInvariant: boolean;
  /** The parts of the signal for which raising one domain's number never lowers its weight. Default: the kinds of alignments that the rule needs. */
  readonly monotone: readonly ("alignments" | "preconditionedAlignments" | "losses")[];
  /** Renaming and reordering the domains only renames and reorders the weights. Default true. */
  readonly equivariant: boolean;
  /** A positive weight stays positive, and (with the knob `start` and no floor) a weight of 0 stays 0. Default true. */
  readonly keepsSupport: boolean;
  /** Splitting every domain into two equal halves preserves each total. Default: true if there is neither floor nor ceiling. */
  readonly splits: boolean;
  /** Splitting a single domain also preserves its total (needs the knob `start`). False if the rule uses a mean over the domains. Default: `splits`. */
  readonly splitsOne: boolean;
  /** With β = 1 every update is the mirror step α ← α ⊙ exp(+η·direction), normalised, on the option `direction`. Needs the knob `eta`. Default false. */
  readonly mirror: boolean;
  /**
   * What happens to the weight of a domain that a signal did not measure (its `tokens` are 0). "keeps": it stays. "remembers": the rule uses earlier
   * measurements, and a domain that was never measured keeps its weight. "moves": it changes for reasons other than the missing measurement.
   * "refuses": the rule throws for such a signal. Default "keeps". With a floor or a ceiling, the weight may move as far as these require.
   */
  readonly unmeasured: "keeps" | "remembers" | "moves" | "refuses";
  /** Smallest weight that the rule returns. Default 0. */
  readonly floor: number;
  /** Largest weight that the rule returns. Default 1. */
  readonly ceiling: number;
}

/** What an invariant knows of the rule. */
export interface Context {
  readonly make: MakeRule;
  /** An instance of the rule, for its name and needs. */
  readonly rule: Rule;
  readonly promises: Promises;
  readonly settable: ReadonlySet<keyof Knobs>;
  readonly sizes: fc.Arbitrary<number>;
  readonly longRun: number;
  readonly most: number;
  readonly direction: (given: Signal) => ArrayLike<number>;
}

/** An invariant: whether it applies, and its property, whose predicate returns the violation or null. */
export interface Invariant {
  readonly name: string;
  /** Whether it is one long case instead of many random ones. */
  readonly singleCase: boolean;
  applies(context: Context): boolean;
  run(context: Context, params: fc.Parameters<unknown>): fc.RunDetails<unknown>;
}

export function invariant<T>(
  name: string,
  applies: (context: Context) => boolean,
  input: (context: Context) => fc.Arbitrary<T>,
  fault: (context: Context, given: T) => string | null,
  { once: singleCase = false }: { readonly once?: boolean } = {},
): Invariant {
  return {
    name,
    singleCase,
    applies,
    run: (context, params) =>
      fc.check(
        fc.property(input(context), (given) => {
          const found = fault(context, given);
          if (found !== null) throw new GradmixError("numeric", found);
        }),
        params as fc.Parameters<[T]>,
      ) as fc.RunDetails<unknown>,
  };
}

/** The parts of a signal that the rule needs, and no others, so that a rule that reads more than its `needs` fails. */
export type Measured = Partial<FullSignal> & Pick<Signal, "tokens">;

/** Signals for k domains with what the rule needs. Other parts are not generated, which takes most of the time for a rule that needs little. */
export function signalOf({ rule: { needs } }: Context, k: number, mild: boolean): fc.Arbitrary<Measured> {
  const tokens = fc.constant<readonly number[]>(new Array<number>(k).fill(64));
  const parts = { ...signalParts(k, mild), tokens };
  return fc.record<Measured>(Object.fromEntries(needs.map((name) => [name, parts[name]])));
}

export interface Run {
  readonly k: number;
  readonly signals: Measured[];
}

/** A number of domains k and the signals of 1 to 6 updates. */
export const runs = (context: Context, mild: boolean): fc.Arbitrary<Run> =>
  context.sizes.chain((k) =>
    fc.record({
      k: fc.constant(k),
      signals: fc.array(signalOf(context, k, mild), { minLength: 1, maxLength: 6 }),
    }),
  );

/** The states after each update, the initial one first. */
export function follow(
  rule: Rule,
  domains: readonly string[],
  signals: readonly Signal[],
): [RuleState, ...RuleState[]] {
  let state = rule.init(domains);
  return [state, ...signals.map((given) => (state = rule.update(state, given)))];
}

/** Whether the rule can move the weights at all. */
export const moves = ({ rule }: Context): boolean => rule.needs.length > 0;

/** The signal restricted to the domains at `indices`. */
export function pick(given: Measured, k: number, indices: readonly number[]): Measured {
  const of = (values: ArrayLike<number>): number[] => indices.map((i) => values[i]!);
  const { gram, targets, ...rest } = given;
  const picked: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(rest))
    picked[name] = typeof value === "number" ? value : of(value);
  if (gram !== undefined) picked["gram"] = indices.flatMap((i) => indices.map((j) => gram[i * k + j]));
  if (targets !== undefined)
    picked["targets"] = targets.map((target) => ({ ...target, alignments: of(target.alignments) }));
  return picked;
}

/** The signal with the numbers of one domain replaced (or a number that belongs to no domain); of a Gram matrix, the domain's row and column. */
export function replaced(
  given: Measured,
  name: keyof FullSignal,
  k: number,
  at: number,
  value: number,
): Measured {
  if (given[name] === undefined) return given;
  if (name === "gram")
    return {
      ...given,
      gram: Array.from(given.gram ?? [], (g, e) => (Math.floor(e / k) === at || e % k === at ? value : g)),
    };
  if (name === "targets")
    return {
      ...given,
      targets: (given.targets ?? []).map((target) => ({
        ...target,
        alignments: Array.from(target.alignments).with(at, value),
      })),
    };
  const values = given[name];
  return {
    ...given,
    [name]: typeof values === "number" ? value : Array.from(values as ArrayLike<number>).with(at, value),
  };
}

export function offSimplex(weights: readonly number[], k: number): string | null {
  if (weights.length !== k) return `${weights.length} weights for ${k} domains`;
  const bad = weights.findIndex((w) => !(w >= 0));
  if (bad >= 0) return `the weight of domain ${bad} is ${weights[bad]}`;
  const sum = sumOf(weights);
  return Math.abs(sum - 1) <= tolerance.rounding ? null : `the weights sum to ${sum}`;
}

export function outOfBounds(weights: readonly number[], { floor, ceiling }: Promises): string | null {
  const bad = weights.findIndex((w) => w < floor - tolerance.rounding || w > ceiling + tolerance.rounding);
  return bad < 0 ? null : `the weight of domain ${bad} is ${weights[bad]}, not in [${floor}, ${ceiling}]`;
}

export function differ(found: ArrayLike<number>, wanted: ArrayLike<number>, within: number): string | null {
  for (let i = 0; i < wanted.length; i++)
    if (!(Math.abs(found[i]! - wanted[i]!) <= within))
      return `the weight of domain ${i} is ${found[i]}, not ${wanted[i]}`;
  return null;
}

/** The first violation, or null. */
export function first(faults: Iterable<string | null>): string | null {
  for (const fault of faults) if (fault !== null) return fault;
  return null;
}
