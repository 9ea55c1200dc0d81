/** Invariants about unmeasured domains: a missing measurement is not a measurement of zero. */
import fc from "fast-check";
import type { Signal } from "../dga/rule.ts";
import { GradmixError } from "../errors.ts";
import { names, simplexPoint } from "./arbitraries.ts";
import {
  type Context,
  differ,
  first,
  type Invariant,
  invariant,
  type Measured,
  moves,
  replaced,
  type Run,
  runs,
  tolerance,
} from "./invariant.ts";

/** Values that may stand in place of a number that was not measured. */
const junk: fc.Arbitrary<number> = fc.constantFrom(0, NaN, 1e9, -1e30, Infinity);

/** Everything that is measured per domain. `tokensSeen` is counted, not measured. */
const measurable = [
  "alignments",
  "preconditionedAlignments",
  "norms",
  "losses",
  "referenceLosses",
  "standardErrors",
  "gram",
  "targets",
] as const;

/** The signal with 0 tokens for the domains that are not `measured`, and `value` in place of their numbers; with null these stay. */
function leaveOut(given: Measured, k: number, measured: readonly boolean[], value: number | null): Measured {
  let out: Measured = { ...given, tokens: measured.map((is) => (is ? 64 : 0)) };
  if (value !== null)
    for (let at = 0; at < k; at++)
      if (!measured[at]) for (const name of measurable) out = replaced(out, name, k, at, value);
  return out;
}

/** A run, and the domains that each of its updates measured. */
const partial = (context: Context): fc.Arbitrary<{ run: Run; measured: boolean[][] }> =>
  runs(context, false).chain((run) =>
    fc.record({
      run: fc.constant(run),
      measured: fc.array(fc.array(fc.boolean(), { minLength: run.k, maxLength: run.k }), {
        minLength: run.signals.length,
        maxLength: run.signals.length,
      }),
    }),
  );

export const unmeasuredInvariants: readonly Invariant[] = [
  invariant(
    "the numbers of a domain that was not measured are ignored",
    (context) => context.promises.unmeasured !== "refuses" && moves(context),
    (context) => fc.tuple(partial(context), junk),
    ({ make }, [{ run, measured }, value]) => {
      const { k, signals } = run;
      const rule = make(names(k), {});
      let state = rule.init(names(k));
      for (const [t, given] of signals.entries()) {
        const next = rule.update(state, leaveOut(given, k, measured[t]!, null));
        const other = rule.update(state, leaveOut(given, k, measured[t]!, value));
        if (JSON.stringify(next) !== JSON.stringify(other))
          return `update ${t} with ${value} in its place gave ${fc.stringify(other)}, not ${fc.stringify(next)}`;
        state = next;
      }
      return null;
    },
  ),
  invariant(
    "a domain that was not measured keeps its weight",
    (context) =>
      context.promises.unmeasured !== "refuses" &&
      context.promises.unmeasured !== "moves" &&
      context.promises.floor === 0 &&
      context.promises.ceiling === 1 &&
      moves(context),
    (context) =>
      partial(context).chain((given) =>
        fc.tuple(fc.constant(given), simplexPoint(given.run.k, { positive: true })),
      ),
    ({ make, settable, promises }, [{ run, measured }, point]) => {
      const { k, signals } = run;
      const rule = make(names(k), {
        ...(settable.has("beta") ? { beta: 1 } : {}),
        ...(settable.has("start")
          ? { start: Object.fromEntries(names(k).map((name, i) => [name, point[i]!])) }
          : {}),
      });
      let state = rule.init(names(k));
      const ever = measured[0]!.map(() => false);
      for (const [t, given] of signals.entries()) {
        const { weights } = state;
        const current = measured[t]!;
        state = rule.update(state, leaveOut(given, k, current, null));
        // A rule that remembers moves domains in every update, by their earlier measurements.
        current.forEach((is, i) => (ever[i] ||= is));
        const stay = promises.unmeasured === "keeps" ? current : ever;
        const moved = first(
          weights.map((weight, i) =>
            stay[i]! || Math.abs(state.weights[i]! - weight) <= tolerance.rounding
              ? null
              : `the weight of domain ${i} went from ${weight} to ${state.weights[i]} in update ${t}`,
          ),
        );
        if (moved !== null) return moved;
        if (current.every((is) => !is) && promises.unmeasured === "keeps") {
          const fault = differ(state.weights, weights, tolerance.rounding);
          if (fault !== null) return `nothing was measured, and ${fault}`;
        }
      }
      return null;
    },
  ),
  invariant(
    "a signal that leaves a domain out is refused",
    (context) => context.promises.unmeasured === "refuses" && moves(context),
    (context) => partial(context),
    ({ make }, { run: { k, signals }, measured }) => {
      const rule = make(names(k), {});
      const given: Signal = leaveOut(signals[0]!, k, measured[0]!, 0);
      if (measured[0]!.every((is) => is)) return null;
      try {
        rule.update(rule.init(names(k)), given);
      } catch (error) {
        return error instanceof GradmixError ? null : `it is not a GradmixError: ${String(error)}`;
      }
      return "it was accepted";
    },
  ),
];
