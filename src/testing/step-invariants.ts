/** Invariants of combinators that change the step of a rule, for rules that declare what they step on (`stepsOn`). */
import fc from "fast-check";
import { etaSchedule } from "../dga/combinators/eta-schedule.ts";
import { shrinkage } from "../dga/combinators/shrinkage.ts";
import { names } from "./arbitraries.ts";
import {
  type Context,
  differ,
  first,
  follow,
  type Invariant,
  invariant,
  runs,
  tolerance,
} from "./invariant.ts";

const aligned = ({ rule }: Context): boolean =>
  rule.stepsOn === "alignments" || rule.stepsOn === "preconditionedAlignments";

export const stepInvariants: readonly Invariant[] = [
  invariant(
    "a schedule of η is a smaller η",
    ({ rule, settable }) => rule.stepsOn !== undefined && settable.has("eta"),
    (context) =>
      fc.tuple(
        runs(context, false),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 3, noNaN: true }),
      ),
    ({ make }, [{ k, signals }, factor, eta]) => {
      const scheduled = follow(
        etaSchedule(make(names(k), { eta }), () => factor),
        names(k),
        signals,
      );
      const smaller = follow(make(names(k), { eta: factor * eta }), names(k), signals);
      return first(
        smaller.map(({ weights }, t) => differ(scheduled[t]!.weights, weights, tolerance.rounding)),
      );
    },
  ),
  invariant(
    "with a step of η = 0 the weights stay",
    // If weights move for other reasons than the step, they never stay.
    ({ rule, promises }) => rule.stepsOn !== undefined && promises.unmeasured !== "moves",
    (context) => runs(context, false),
    ({ make }, { k, signals }) => {
      const still = etaSchedule(make(names(k), {}), () => 0);
      const [start, ...rested] = follow(still, names(k), signals);
      return first(rested.map(({ weights }) => differ(weights, start.weights, tolerance.rounding)));
    },
  ),
  invariant(
    "shrinkage with errors of 0 changes nothing, and with huge errors the weights stay",
    (context) => aligned(context) && context.promises.unmeasured !== "moves",
    (context) => fc.tuple(runs(context, false), fc.constantFrom(1e100, 1e300)),
    ({ make }, [{ k, signals }, huge]) => {
      const rule = make(names(k), {});
      const shrunk = shrinkage(rule);
      const exact = signals.map((given) => ({ ...given, standardErrors: new Array<number>(k).fill(0) }));
      const noisy = signals.map((given) => ({ ...given, standardErrors: new Array<number>(k).fill(huge) }));
      const plain = follow(rule, names(k), exact);
      const same = follow(shrunk, names(k), exact);
      const [start, ...rested] = follow(shrunk, names(k), noisy);
      return first([
        ...plain.map(({ weights }, t) => differ(same[t]!.weights, weights, 0)),
        ...rested.map(({ weights }) => differ(weights, start.weights, tolerance.rounding)),
      ]);
    },
  ),
];
