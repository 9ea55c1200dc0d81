/**
 * `checkRule` holds a rule to what the weights of domains must obey, on random input, and throws the smallest counter-example that
 * fast-check finds, with the name of the invariant that it breaks.
 */
import fc from "fast-check";
import type { Rule, RuleState, Signal } from "../dga/rule.ts";
import { klDivergence, normalise, sumOf } from "../dga/simplex.ts";
import { GradmixError } from "../errors.ts";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";
import {
  type FullSignal,
  gramOf,
  names,
  nonFinite,
  signal,
  simplexPoint,
  targetNames,
  updateSequence,
} from "./arbitraries.ts";

/** What a checked rule lets `checkRule` set; only those named in `knobs` are given. */
export interface Knobs {
  /** Step size; 0 must not move the weights. */
  readonly eta?: number;
  /** Weight of the new value in the moving average of the weights; 1 must be no average. */
  readonly beta?: number;
  /** Where the weights start, by domain name. */
  readonly start?: Readonly<Record<string, number>>;
}

/** A rule for these domains. Options by domain must follow the names, since domains come in several orders and numbers. */
export type MakeRule = (domains: readonly string[], knobs: Knobs) => Rule;

export interface Promises {
  /** A constant added to all alignments changes nothing. Default: the rule needs alignments and no norms. */
  readonly shiftInvariant: boolean;
  /** Raising one domain's number never lowers its weight. Default: the kinds of alignments that the rule needs. */
  readonly monotone: readonly ("alignments" | "preconditionedAlignments" | "losses")[];
  /** Renaming and reordering the domains does nothing else. Default true. */
  readonly equivariant: boolean;
  /** A positive weight stays positive, and (with the knob `start` and no floor) a weight of 0 stays 0. Default true. */
  readonly keepsSupport: boolean;
  /** Splitting every domain into two equal halves keeps each total. Default: there is neither floor nor cap. */
  readonly splits: boolean;
  /** So does splitting one of them alone (needs the knob `start`). Not when a mean over the domains has a say. Default: `splits`. */
  readonly splitsOne: boolean;
  /** With β = 1 the new weights are the argmin of −η⟨a, α⟩ + KL(α‖old). Needs the knob `eta`. Default false. */
  readonly mirror: boolean;
  /** No weight is below it. Default 0. */
  readonly floor: number;
  /** No weight is above it. Default 1. */
  readonly ceiling: number;
}

export interface CheckRuleOptions {
  readonly promises?: Partial<Promises>;
  readonly knobs?: readonly (keyof Knobs)[];
  /** Numbers of domains to try, 1 ≤ least ≤ most. Default 1 to 8; a floor or a ceiling may ask for fewer or more. */
  readonly domains?: { readonly least: number; readonly most: number };
  /** The direction of the mirror step. Default: the alignments. */
  readonly direction?: (given: Signal) => ArrayLike<number>;
  /** Random cases per invariant. Default 100. */
  readonly numRuns?: number;
  /** Updates of the long run. Default 10,000. */
  readonly longRun?: number;
  /** Of fast-check's generator. Default 1, so that a check says the same every time. */
  readonly seed?: number;
}

/** Rounding that shows in weights: after a few updates, and where a sum is concerned. */
const CLOSE = 1e-9;
const SUM = 1e-12;

interface Context {
  readonly make: MakeRule;
  readonly promises: Promises;
  readonly has: ReadonlySet<keyof Knobs>;
  readonly sizes: fc.Arbitrary<number>;
  readonly longRun: number;
  readonly most: number;
  readonly direction: (given: Signal) => ArrayLike<number>;
}

/** An invariant: whether it applies, and its property, whose predicate says what is wrong or null. */
interface Invariant {
  readonly name: string;
  applies(context: Context, rule: Rule): boolean;
  run(context: Context, params: fc.Parameters<unknown>): fc.RunDetails<unknown>;
}

function invariant<T>(
  name: string,
  applies: (context: Context, rule: Rule) => boolean,
  input: (context: Context) => fc.Arbitrary<T>,
  fault: (context: Context, given: T) => string | null,
): Invariant {
  return {
    name,
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

/** k domains and some signals. */
const runs = (context: Context, mild: boolean): fc.Arbitrary<{ k: number; signals: FullSignal[] }> =>
  context.sizes.chain((k) => fc.record({ k: fc.constant(k), signals: updateSequence(k, { mild }) }));

function follow(rule: Rule, domains: readonly string[], signals: readonly Signal[]): RuleState[] {
  let state = rule.init(domains);
  return [state, ...signals.map((given) => (state = rule.update(state, given)))];
}

const copy = (state: RuleState): RuleState => JSON.parse(JSON.stringify(state)) as RuleState;
const needsUpdates = (_: Context, rule: Rule): boolean => rule.needs.length > 0;

/** The signal of the domains at `indices`. */
function pick(given: FullSignal, indices: readonly number[]): FullSignal {
  const of = (values: ArrayLike<number>): number[] => indices.map((i) => values[i]);
  const k = given.norms.length;
  return {
    ...given,
    alignments: of(given.alignments),
    standardErrors: of(given.standardErrors),
    preconditionedAlignments: of(given.preconditionedAlignments),
    norms: of(given.norms),
    losses: of(given.losses),
    referenceLosses: of(given.referenceLosses),
    tokensSeen: of(given.tokensSeen),
    gram: indices.flatMap((i) => indices.map((j) => given.gram[i * k + j])),
    targets: given.targets.map((target) => ({ ...target, alignments: of(target.alignments) })),
  };
}

/** The signal with one number of a domain (or the number that is no domain's) replaced. */
function spoilt(given: FullSignal, name: keyof FullSignal, at: number, value: number): Signal {
  if (name === "gram") return { ...given, gram: Array.from(given.gram).with(at * given.norms.length, value) };
  if (name === "targets")
    return {
      ...given,
      targets: given.targets.map((target) => ({
        ...target,
        alignments: Array.from(target.alignments).with(at, value),
      })),
    };
  const whole = given[name];
  return { ...given, [name]: typeof whole === "number" ? value : Array.from(whole).with(at, value) };
}

function offSimplex(weights: readonly number[], k: number): string | null {
  if (weights.length !== k) return `${weights.length} weights for ${k} domains`;
  const bad = weights.findIndex((w) => !(w >= 0));
  if (bad >= 0) return `the weight of domain ${bad} is ${weights[bad]}`;
  const sum = sumOf(weights);
  return Math.abs(sum - 1) <= SUM ? null : `the weights sum to ${sum}`;
}

function outOfBounds(weights: readonly number[], { floor, ceiling }: Promises): string | null {
  const bad = weights.findIndex((w) => w < floor - SUM || w > ceiling + SUM);
  return bad < 0 ? null : `the weight of domain ${bad} is ${weights[bad]}, not in [${floor}, ${ceiling}]`;
}

function differ(found: ArrayLike<number>, wanted: ArrayLike<number>, tolerance: number): string | null {
  for (let i = 0; i < wanted.length; i++)
    if (!(Math.abs(found[i] - wanted[i]) <= tolerance))
      return `the weight of domain ${i} is ${found[i]}, not ${wanted[i]}`;
  return null;
}

const first = (faults: Iterable<string | null>): string | null => {
  for (const fault of faults) if (fault !== null) return fault;
  return null;
};

/** Pseudo-random signals for long runs; now and then alignments are absurdly large. */
function longSignal(k: number, seed: number, step: number): FullSignal {
  const draws = foldIn(key(seed), step);
  const at = (i: number): number => uniformAt(draws, i);
  const scale = step % 997 === 0 ? 1e30 : 1;
  const list = (of: (i: number) => number): number[] => Array.from({ length: k }, (_, i) => of(i));
  return {
    // Domain 0 is mostly the best and the last one the worst.
    alignments: list((i) => scale * (2 * at(i) - 1 - i / 4)),
    standardErrors: list((i) => at(k + i)),
    norms: list((i) => scale * (0.1 + at(2 * k + i))),
    targetNorm: 1,
    preconditionedAlignments: list((i) => scale * (2 * at(i) - 1 - i / 4)),
    preconditionedTargetNorm: 1,
    losses: list((i) => 4 * at(3 * k + i) + i / 4),
    targetLoss: 2,
    referenceLosses: list((i) => 4 * at(4 * k + i)),
    tokensSeen: list(() => 1000 * (step + 1)),
    gram: gramOf(Array.from({ length: k }, (_, i) => [1, at(5 * k + i) - i / 4, at(6 * k + i)])),
    targets: targetNames.map((name, m) => ({
      name,
      alignments: list((i) => scale * (2 * at((7 + m) * k + i) - 1 + (m === 0 ? -i : i) / 4)),
      norm: 1,
      loss: 2,
    })),
  };
}

const invariants: readonly Invariant[] = [
  invariant(
    "stays on the simplex",
    () => true,
    (context) => runs(context, false),
    ({ make, promises }, { k, signals }) =>
      first(
        follow(make(names(k), {}), names(k), signals).map(
          ({ weights }) => offSimplex(weights, k) ?? outOfBounds(weights, promises),
        ),
      ),
  ),
  invariant(
    "changes no state and none of its signals",
    needsUpdates,
    (context) => runs(context, false),
    ({ make }, { k, signals }) => {
      const rule = make(names(k), {});
      let state = rule.init(names(k));
      for (const given of signals) {
        const before = [JSON.stringify(state), JSON.stringify(given)];
        const next = rule.update(state, given);
        if (JSON.stringify(state) !== before[0]) return "the given state was changed";
        if (JSON.stringify(given) !== before[1]) return "the given signal was changed";
        state = next;
      }
      return null;
    },
  ),
  invariant(
    "its state survives JSON",
    () => true,
    (context) => runs(context, false),
    ({ make }, { k, signals }) => {
      let state = make(names(k), {}).init(names(k));
      for (const given of signals) {
        if (fc.stringify(copy(state)) !== fc.stringify({ ...state })) return "JSON changes the state";
        const next = make(names(k), {}).update(state, given);
        // Another instance, so that nothing is remembered outside the state.
        const resumed = make(names(k), {}).update(copy(state), given);
        if (JSON.stringify(next) !== JSON.stringify(resumed)) return "a restored state goes on differently";
        if ((make(names(k), {}).memoryFault?.(next.memory) ?? null) !== null)
          return "memoryFault refuses the rule's own memory";
        state = next;
      }
      return null;
    },
  ),
  invariant(
    "refuses what is not finite",
    (_, rule) => rule.needs.some((name) => name !== "tokens"),
    (context) =>
      context.sizes.chain((k) =>
        fc.record({ k: fc.constant(k), given: signal(k), at: fc.nat(k - 1), value: nonFinite }),
      ),
    ({ make }, { k, given, at, value }) => {
      const rule = make(names(k), {});
      const state = rule.init(names(k));
      const before = JSON.stringify(state);
      return first(
        rule.needs.map((name) => {
          if (name === "tokens") return null;
          const bad = spoilt(given, name, at, value);
          let message: string | null = null;
          try {
            rule.update(state, bad);
          } catch (error) {
            message = error instanceof Error ? error.message : String(error);
          }
          if (JSON.stringify(state) !== before) return `${name} of ${value} changed the state`;
          if (message === null) return `${name} of ${value} was taken`;
          if (typeof given[name] !== "number" && !message.includes(`domain${at}`))
            return `the error does not name the domain: ${message}`;
          return null;
        }),
      );
    },
  ),
  invariant(
    "one domain has weight 1",
    ({ promises }) => promises.ceiling >= 1,
    () => updateSequence(1),
    ({ make }, signals) =>
      first(follow(make(names(1), {}), names(1), signals).map(({ weights }) => differ(weights, [1], SUM))),
  ),
  invariant(
    "η = 0 changes nothing",
    ({ has }, rule) => has.has("eta") && rule.needs.length > 0,
    (context) => runs(context, false),
    ({ make }, { k, signals }) => {
      const [start, ...after] = follow(make(names(k), { eta: 0 }), names(k), signals);
      return first(after.map(({ weights }) => differ(weights, start.weights, 0)));
    },
  ),
  invariant(
    "β weights the new value, and β = 1 is no average",
    ({ has }, rule) => has.has("beta") && rule.needs.length > 0,
    (context) => fc.tuple(runs(context, true), fc.double({ min: 0.01, max: 1, noNaN: true })),
    ({ make }, [{ k, signals }, beta]) => {
      const plain = follow(make(names(k), { beta: 1 }), names(k), signals);
      const averaged = follow(make(names(k), { beta }), names(k), signals);
      return first(
        plain.slice(1).map(({ weights }, t) =>
          differ(
            averaged[t + 1].weights,
            weights.map((w, i) => (1 - beta) * averaged[t].weights[i] + beta * w),
            CLOSE,
          ),
        ),
      );
    },
  ),
  invariant(
    "permuting the domains permutes the weights",
    ({ promises }) => promises.equivariant,
    (context) =>
      runs(context, false).chain((run) =>
        fc.tuple(
          fc.constant(run),
          fc.shuffledSubarray([...Array(run.k).keys()], { minLength: run.k, maxLength: run.k }),
        ),
      ),
    ({ make }, [{ k, signals }, order]) => {
      const shuffled = order.map((i) => names(k)[i]);
      const plain = follow(make(names(k), {}), names(k), signals);
      const other = follow(
        make(shuffled, {}),
        shuffled,
        signals.map((s) => pick(s, order)),
      );
      return first(
        other.map(({ weights }, t) =>
          differ(
            weights,
            order.map((i) => plain[t].weights[i]),
            CLOSE,
          ),
        ),
      );
    },
  ),
  invariant(
    "a constant added to all alignments changes nothing",
    ({ promises }) => promises.shiftInvariant,
    (context) => fc.tuple(runs(context, true), fc.double({ min: -1000, max: 1000, noNaN: true })),
    ({ make }, [{ k, signals }, shift]) => {
      const moved = signals.map((s) => ({
        ...s,
        alignments: Array.from(s.alignments, (a) => a + shift),
      }));
      const plain = follow(make(names(k), {}), names(k), signals);
      const other = follow(make(names(k), {}), names(k), moved);
      return first(other.map(({ weights }, t) => differ(weights, plain[t].weights, CLOSE)));
    },
  ),
  invariant(
    "monotone: raising a domain's number never lowers its weight",
    ({ promises }) => promises.monotone.length > 0,
    (context) =>
      context.sizes.chain((k) =>
        fc.record({
          k: fc.constant(k),
          given: signal(k, { mild: true }),
          at: fc.nat(k - 1),
          by: fc.double({ min: 0.01, max: 3, noNaN: true }),
        }),
      ),
    ({ make, promises }, { k, given, at, by }) =>
      first(
        promises.monotone.map((name) => {
          const raised = { ...given, [name]: Array.from(given[name], (v, i) => (i === at ? v + by : v)) };
          const [less, more] = [given, raised].map(
            (s) => follow(make(names(k), {}), names(k), [s])[1].weights[at],
          );
          return more >= less - CLOSE
            ? null
            : `${name}: the weight of domain ${at} fell from ${less} to ${more}`;
        }),
      ),
  ),
  invariant(
    "keeps the support",
    ({ promises }, rule) => promises.keepsSupport && rule.needs.length > 0,
    (context) => runs(context, false).chain((run) => fc.tuple(fc.constant(run), simplexPoint(run.k))),
    ({ make, promises, has }, [{ k, signals }, point]) => {
      const start = Object.fromEntries(names(k).map((name, i) => [name, point[i]]));
      const states = follow(make(names(k), has.has("start") ? { start } : {}), names(k), signals);
      return first(
        states[0].weights.map((weight, i) => {
          const lost = states.find(({ weights }) =>
            weight > 0 ? weights[i] === 0 : promises.floor === 0 && weights[i] > 0,
          );
          return lost === undefined ? null : `domain ${i} went from ${weight} to ${lost.weights[i]}`;
        }),
      );
    },
  ),
  invariant(
    "splitting the domains into equal halves keeps their totals",
    ({ promises }) => promises.splits,
    (context) => runs(context, true),
    ({ make }, { k, signals }) => {
      const halves = Array.from({ length: 2 * k }, (_, i) => i >> 1);
      const whole = follow(make(names(k), {}), names(k), signals);
      const split = follow(
        make(names(2 * k), {}),
        names(2 * k),
        signals.map((s) => pick(s, halves)),
      );
      return first(
        whole.map(({ weights }, t) =>
          differ(
            weights.map((_, i) => split[t].weights[2 * i] + split[t].weights[2 * i + 1]),
            weights,
            CLOSE,
          ),
        ),
      );
    },
  ),
  invariant(
    "splitting one domain into equal halves keeps its total",
    ({ promises, has }) => promises.splitsOne && has.has("start"),
    (context) => runs(context, true).chain((run) => fc.tuple(fc.constant(run), fc.nat(run.k - 1))),
    ({ make }, [{ k, signals }, at]) => {
      // The second half comes last.
      const parts = [...Array(k).keys(), at];
      const startOf = (weights: readonly number[]): Record<string, number> =>
        Object.fromEntries(weights.map((weight, i) => [`domain${i}`, weight]));
      const even = parts.slice(0, k).map(() => 1 / k);
      const halves = parts.map((i) => (i === at ? 0.5 / k : 1 / k));
      const whole = follow(make(names(k), { start: startOf(even) }), names(k), signals);
      const split = follow(
        make(names(k + 1), { start: startOf(halves) }),
        names(k + 1),
        signals.map((s) => pick(s, parts)),
      );
      return first(
        whole.map(({ weights }, t) =>
          differ(
            weights.map((_, i) => split[t].weights[i] + (i === at ? split[t].weights[k] : 0)),
            weights,
            CLOSE,
          ),
        ),
      );
    },
  ),
  invariant(
    "mirror descent: the update is the argmin of −η⟨a, α⟩ + KL(α‖old)",
    ({ promises, has }) => promises.mirror && has.has("eta"),
    (context) =>
      context.sizes.chain((k) =>
        fc.record({
          k: fc.constant(k),
          eta: fc.double({ min: 0.05, max: 2, noNaN: true }),
          given: signal(k, { mild: true }),
          rivals: fc.array(simplexPoint(k), { minLength: 3, maxLength: 3 }),
        }),
      ),
    ({ make, has, direction }, { k, eta, given, rivals }) => {
      const rule = make(names(k), has.has("beta") ? { eta, beta: 1 } : { eta });
      const [old, { weights }] = follow(rule, names(k), [given]);
      const a = direction(given);
      const cost = (p: ArrayLike<number>): number =>
        -eta * sumOf(Array.from(p, (w, i) => w * a[i])) + klDivergence(p, old.weights);
      // Rivals on the whole simplex, and on the way to them, where a wrong optimum shows even if it is near.
      return first(
        rivals.flatMap((rival) =>
          [1, 0.1, 0.01].map((share) => {
            const p = normalise(weights.map((w, i) => (1 - share) * w + share * rival[i]));
            return cost(weights) <= cost(p) + CLOSE
              ? null
              : `${fc.stringify([...p])} is better by ${cost(weights) - cost(p)}`;
          }),
        ),
      );
    },
  ),
  invariant(
    "stays on the simplex over a long run",
    needsUpdates,
    (context) => fc.constantFrom(Math.max(1, context.most - 1)),
    ({ make, promises, longRun }, k) => {
      const rule = make(names(k), {});
      let state = rule.init(names(k));
      for (let step = 0; step < longRun; step++) {
        state = rule.update(state, longSignal(k, 7, step));
        const fault = offSimplex(state.weights, k) ?? outOfBounds(state.weights, promises);
        if (fault !== null) return `after ${step + 1} updates ${fault}`;
        if (promises.keepsSupport && state.weights.some((w) => w === 0) && step === longRun - 1)
          return "a weight became 0";
      }
      return null;
    },
  ),
];

/**
 * Runs every invariant that applies to the rule and returns their names. Throws `numeric` at the first that does not hold: its name, what
 * is wrong, and the minimal counter-example. What a rule promises beyond what all rules must keep is in `promises`.
 */
export function checkRule(make: MakeRule, options: CheckRuleOptions = {}): string[] {
  const { least, most } = options.domains ?? { least: 1, most: 8 };
  const rule = make(names(most), {});
  const aligned = rule.needs.includes("alignments");
  const floor = options.promises?.floor ?? 0;
  const ceiling = options.promises?.ceiling ?? 1;
  const promises: Promises = {
    shiftInvariant: aligned && !rule.needs.includes("norms"),
    monotone: (["alignments", "preconditionedAlignments"] as const).filter((name) =>
      rule.needs.includes(name),
    ),
    equivariant: true,
    keepsSupport: true,
    splits: floor === 0 && ceiling === 1,
    splitsOne: options.promises?.splits ?? (floor === 0 && ceiling === 1),
    mirror: false,
    floor,
    ceiling,
    ...options.promises,
  };
  const context: Context = {
    make,
    promises,
    has: new Set(options.knobs),
    sizes: fc.integer({ min: least, max: most }),
    longRun: options.longRun ?? 10_000,
    most,
    direction: options.direction ?? ((given) => given.alignments ?? []),
  };
  const done: string[] = [];
  for (const one of invariants) {
    if (!one.applies(context, rule)) continue;
    const long = one.name.endsWith("long run");
    const details = one.run(context, {
      seed: options.seed ?? 1,
      numRuns: long ? 1 : (options.numRuns ?? 100),
    });
    if (details.failed) {
      const { errorInstance: cause, counterexample } = details;
      const what = cause instanceof Error ? cause.message : String(cause);
      throw new GradmixError(
        "numeric",
        `rule "${rule.name}" breaks "${one.name}": ${what}; the smallest case: ${fc.stringify(counterexample?.[0 as never])}`,
      );
    }
    done.push(one.name);
  }
  return done;
}
