/**
 * `checkRule` checks on random input the invariants that the weights of domains must obey. It throws one error with every violated invariant, the
 * smallest counter-example that fast-check finds, and how to run it again.
 */
import fc from "fast-check";
import type { Signal } from "../dga/rule.ts";
import { checkRuleMembers } from "../dga/rule-checks.ts";
import { GradmixError } from "../errors.ts";
import {
  boolean,
  callback,
  checkOptions,
  integerIn,
  numberIn,
  object,
  oneOf,
  required,
  string,
  valueThat,
} from "../options.ts";
import { names } from "./arbitraries.ts";
import type { Context, Invariant, Knobs, MakeRule, Promises } from "./invariant.ts";
import { invariants } from "./invariants.ts";

/** Identifies a failed case, so that it can be run again; a failed check prints it. */
export interface Replay {
  /** Name of the invariant that failed. */
  readonly invariant: string;
  /** Seed of the random input. */
  readonly seed: number;
  /** Path of the counter-example, as fast-check prints it. */
  readonly path: string;
}

/** Options of `checkRule`. */
export interface CheckRuleOptions {
  /** What the rule guarantees, where it differs from the defaults of `Promises`. */
  readonly promises?: Partial<Promises>;
  /** Options of the rule that the check may vary, passed to `make` as `knobs`. Default: none. */
  readonly knobs?: readonly (keyof Knobs)[];
  /** Numbers of domains to try, 1 ≤ least ≤ most. Default 1 to 8; a rule with a floor or a ceiling may need fewer or more. */
  readonly domains?: {
    /** The smallest number of domains. */
    readonly least: number;
    /** The largest number of domains. */
    readonly most: number;
  };
  /** The direction of the mirror step, computed from the parts of the signal that the rule needs. Default: the alignments. */
  readonly direction?: (given: Signal) => ArrayLike<number>;
  /** Random cases per invariant. Default 100. */
  readonly numRuns?: number;
  /** Number of updates of the long run. Default 10,000. */
  readonly longRun?: number;
  /** Seed of fast-check's generator. Default 1, so that a check has the same result every time. */
  readonly seed?: number;
  /** Runs only this case, which a failed check printed. */
  readonly replay?: Replay;
}

const list = (known: readonly string[]): ReturnType<typeof valueThat> =>
  valueThat(
    `a list of ${known.map((name) => `"${name}"`).join(", ")}`,
    (value) => Array.isArray(value) && value.every((name) => known.some((one) => one === name)),
  );

function check(options: CheckRuleOptions): void {
  checkOptions("checkRule", options, {
    promises: object,
    knobs: list(["eta", "beta", "start"]),
    domains: object,
    direction: callback,
    numRuns: integerIn(1),
    longRun: integerIn(1),
    seed: integerIn(-(2 ** 31), 2 ** 32),
    replay: object,
  });
  checkOptions<Partial<Promises>>("checkRule: promises", options.promises ?? {}, {
    shiftInvariant: boolean,
    monotone: list(["alignments", "preconditionedAlignments", "losses"]),
    equivariant: boolean,
    keepsSupport: boolean,
    splits: boolean,
    splitsOne: boolean,
    mirror: boolean,
    unmeasured: oneOf("keeps", "remembers", "moves", "refuses"),
    floor: numberIn({ min: 0, max: 1 }),
    ceiling: numberIn({ min: 0, max: 1 }),
  });
  const { domains, replay } = options;
  if (domains !== undefined) {
    const least = integerIn(1);
    checkOptions("checkRule: domains", domains, { least: required(least), most: required(least) });
    integerIn(domains.least)("checkRule: domains: most", domains.most);
  }
  if (replay !== undefined)
    checkOptions("checkRule: replay", replay, {
      invariant: required(
        valueThat("the name of an invariant", (name) => invariants.some((one) => one.name === name)),
      ),
      seed: required(integerIn(-(2 ** 31), 2 ** 32)),
      path: required(string),
    });
}

function contextOf(make: MakeRule, options: CheckRuleOptions): Context {
  const { least, most } = options.domains ?? { least: 1, most: 8 };
  callback("checkRule: make", make);
  const rule = make(names(most), {});
  checkRuleMembers("checkRule: what make returned", rule);
  const { floor = 0, ceiling = 1, splits = floor === 0 && ceiling === 1 } = options.promises ?? {};
  return {
    make,
    rule,
    promises: {
      shiftInvariant: rule.needs.includes("alignments") && !rule.needs.includes("norms"),
      monotone: (["alignments", "preconditionedAlignments"] as const).filter((name) =>
        rule.needs.includes(name),
      ),
      equivariant: true,
      keepsSupport: true,
      splitsOne: splits,
      mirror: false,
      unmeasured: "keeps",
      ...options.promises,
      splits,
      floor,
      ceiling,
    },
    settable: new Set(options.knobs),
    sizes: fc.integer({ min: least, max: most }),
    longRun: options.longRun ?? 10_000,
    most,
    direction: options.direction ?? ((given) => given.alignments ?? []),
  };
}

/** The violation of an invariant in one line, or null. */
function faultOf(one: Invariant, context: Context, options: CheckRuleOptions): string | null {
  const { numRuns = 100, seed = 1, replay } = options;
  const found = one.run(context, {
    numRuns: one.singleCase ? 1 : numRuns,
    ...(replay === undefined ? { seed } : { seed: replay.seed, path: replay.path }),
  });
  if (!found.failed) return null;
  const { errorInstance: cause, counterexample, counterexamplePath } = found;
  const what = cause instanceof Error ? cause.message : String(cause);
  // The whole path has one entry per step of shrinking. The first entry leads to the case that failed, and shrinking repeats from there.
  const path = counterexamplePath?.split(":")[0] ?? "0";
  const replayOption = JSON.stringify({ invariant: one.name, seed: found.seed, path });
  return `"${one.name}": ${what}; the smallest case: ${fc.stringify((counterexample as [unknown] | null)?.[0])}; to run it again: { replay: ${replayOption} }`;
}

/**
 * Runs every invariant that applies to the rule and returns their names. Throws `numeric` if some are violated, with one line for each: its name, the
 * violation, the smallest counter-example and the `replay` that runs it again. `promises` describes guarantees beyond those that all rules must keep.
 * Throws `config` for options that are unknown or out of range.
 */
export function checkRule(make: MakeRule, options: CheckRuleOptions = {}): string[] {
  check(options);
  const context = contextOf(make, options);
  const { replay } = options;
  const chosen = invariants.filter(
    (one) => one.applies(context) && (replay === undefined || one.name === replay.invariant),
  );
  const faults = chosen.flatMap((one) => faultOf(one, context, options) ?? []);
  const [first, ...others] = faults;
  if (first !== undefined)
    throw new GradmixError("numeric", [
      `rule "${context.rule.name}" breaks ${faults.length} of ${chosen.length} invariants: ${first}`,
      ...others,
    ]);
  return chosen.map(({ name }) => name);
}
