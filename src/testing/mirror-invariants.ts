/**
 * What mirror ascent with the entropy, α ← α ⊙ exp(+η·a), normalised, implies for the weights αₜ before update t and their directions aₜ. Each
 * invariant follows from the step, and each finds other mistakes: the first checks a single step, the others what is carried from one step to the
 * next.
 */
import fc from "fast-check";
import type { Signal } from "../dga/rule.ts";
import { klDivergence, normalise, sumOf } from "../dga/simplex.ts";
import { names, simplexPoint } from "./arbitraries.ts";
import {
  type Context,
  differ,
  first,
  follow,
  type Invariant,
  invariant,
  type Measured,
  signalOf,
  tolerance,
} from "./invariant.ts";

interface MirrorRun {
  readonly k: number;
  readonly eta: number;
  readonly start: readonly number[];
  readonly signals: readonly Measured[];
}

const applies = ({ promises, settable }: Context): boolean => promises.mirror && settable.has("eta");

const input = (context: Context): fc.Arbitrary<MirrorRun> =>
  context.sizes.chain((k) =>
    fc.record({
      k: fc.constant(k),
      eta: fc.double({ min: 0.05, max: 2, noNaN: true }),
      start: simplexPoint(k, { positive: true }).map((point) => Array.from(point)),
      signals: fc.array(signalOf(context, k, true), { minLength: 1, maxLength: 6 }),
    }),
  );

/** The weights before each update and after the last, without a moving average. */
function weightsOf(
  { make, settable }: Context,
  { k, eta, start }: MirrorRun,
  signals: readonly Signal[],
): (readonly number[])[] {
  const rule = make(names(k), {
    eta,
    ...(settable.has("beta") ? { beta: 1 } : {}),
    ...(settable.has("start")
      ? { start: Object.fromEntries(names(k).map((name, i) => [name, start[i]!])) }
      : {}),
  });
  return follow(rule, names(k), signals).map(({ weights }) => weights);
}

/** The sum of the directions over the updates. */
const summed = (directions: readonly ArrayLike<number>[], k: number): number[] =>
  Array.from({ length: k }, (_, i) => sumOf(directions.map((a) => a[i]!)));

/** (1/η)·ln Σᵢ αᵢ exp(η·aᵢ), the potential of a step. */
function potential(alpha: ArrayLike<number>, a: ArrayLike<number>, eta: number): number {
  const supported = Array.from(a).filter((_, i) => alpha[i]! > 0);
  const top = Math.max(...supported);
  return (
    top + Math.log(sumOf(Array.from(alpha, (w, i) => (w > 0 ? w * Math.exp(eta * (a[i]! - top)) : 0)))) / eta
  );
}

/** Whether two sums of directions of order 1 differ by more than rounding. */
const differs = (found: number, wanted: number): boolean =>
  !(Math.abs(found - wanted) <= tolerance.computations * Math.max(1, Math.abs(wanted)));

/** How often each signal is repeated in the invariant about regret. */
const REPEATS = 20;

export const mirrorInvariants: readonly Invariant[] = [
  invariant(
    "mirror descent: the update is the argmin of −η⟨a, α⟩ + KL(α‖old)",
    applies,
    (context) =>
      input(context).chain((run) =>
        fc.tuple(fc.constant(run), fc.array(simplexPoint(run.k), { minLength: 3, maxLength: 3 })),
      ),
    (context, [run, rivals]) => {
      const { eta, signals } = run;
      const weightsSoFar = weightsOf(context, run, signals.slice(0, 1));
      const [old, weights] = [weightsSoFar[0]!, weightsSoFar[1]!];
      const a = context.direction(signals[0]!);
      const cost = (p: ArrayLike<number>): number =>
        -eta * sumOf(Array.from(p, (w, i) => w * a[i]!)) + klDivergence(p, old);
      // Rivals on the whole simplex and on the way to them, where a wrong optimum shows even if it is close.
      return first(
        rivals.flatMap((rival) =>
          [1, 0.1, 0.01].map((share) => {
            const p = normalise(weights.map((w, i) => (1 - share) * w + share * rival[i]!));
            return cost(weights) <= cost(p) + tolerance.computations
              ? null
              : `${fc.stringify([...p])} is better by ${cost(weights) - cost(p)}`;
          }),
        ),
      );
    },
  ),
  invariant(
    "closed form: after any updates in any order the weights are α₀ ⊙ exp(η·Σa), normalised",
    applies,
    input,
    (context, run) => {
      const { k, eta, signals } = run;
      const forward = weightsOf(context, run, signals);
      const total = summed(signals.map(context.direction), k);
      const logits = total.map((sum, i) => Math.log(forward[0]![i]!) + eta * sum);
      const top = Math.max(...logits);
      const wanted = normalise(logits.map((logit) => Math.exp(logit - top)));
      const backward = weightsOf(context, run, signals.toReversed());
      return first([
        differ(forward[signals.length]!, wanted, tolerance.computations),
        differ(backward[signals.length]!, wanted, tolerance.computations),
      ]);
    },
  ),
  invariant(
    "telescoping: the potentials of the steps add up to the potential of their sum",
    applies,
    input,
    (context, run) => {
      const { k, eta, signals } = run;
      const directions = signals.map(context.direction);
      const weights = weightsOf(context, run, signals);
      const steps = sumOf(directions.map((a, t) => potential(weights[t]!, a, eta)));
      const total = potential(weights[0]!, summed(directions, k), eta);
      return differs(steps, total) ? `the steps add up to ${steps}, not to ${total}` : null;
    },
  ),
  invariant(
    "regret: Σ⟨αₜ, aₜ⟩ ≥ Σ aₜᵢ − ln(1/α₀ᵢ)/η − (η/8)·Σ rangeₜ² for every domain i",
    applies,
    input,
    (context, run) => {
      const { k, eta } = run;
      // Long enough for the gains to exceed ln(1/α₀ᵢ)/η.
      const signals = run.signals.flatMap((given) => new Array<Measured>(REPEATS).fill(given));
      const directions = signals.map(context.direction);
      const weights = weightsOf(context, run, signals);
      const gained = sumOf(
        directions.map((a, t) => sumOf(Array.from(a, (value, i) => weights[t]![i]! * value))),
      );
      // Hoeffding's lemma bounds each step's potential by its mean and an eighth of its squared range.
      const ranges = directions.map((a) => Math.max(...Array.from(a)) - Math.min(...Array.from(a)));
      const slack = (eta / 8) * sumOf(ranges.map((range) => range ** 2));
      return first(
        summed(directions, k).map((sum, i) => {
          const least = sum + Math.log(weights[0]![i]!) / eta - slack;
          return gained >= least || !differs(gained, least)
            ? null
            : `the weights gained ${gained}, less than the ${least} that domain ${i} allows`;
        }),
      );
    },
  ),
];
