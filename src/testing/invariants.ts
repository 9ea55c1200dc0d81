/** The invariants of `checkRule`, one entry each. */
import fc from "fast-check";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";
import { createMixer, restoreMixer, update } from "../dga/mixer.ts";
import type { RuleState, Signal, SignalName } from "../dga/rule.ts";
import { gramOf, names, nonFinite, simplexPoint, targetNames } from "./arbitraries.ts";
import {
  differ,
  first,
  follow,
  type Invariant,
  invariant,
  type Measured,
  moves,
  offSimplex,
  outOfBounds,
  pick,
  replaced,
  runs,
  signalOf,
  tolerance,
} from "./invariant.ts";
import { mirrorInvariants } from "./mirror-invariants.ts";
import { stepInvariants } from "./step-invariants.ts";
import { unmeasuredInvariants } from "./unmeasured-invariants.ts";

const copy = (state: RuleState): RuleState => JSON.parse(JSON.stringify(state)) as RuleState;

/** Pseudo-random signals for long runs, with what a rule needs; alignments are sometimes extremely large. */
function longSignal(k: number, seed: number, step: number, needs: readonly SignalName[]): Measured {
  const draws = foldIn(key(seed), step);
  const at = (i: number): number => uniformAt(draws, i);
  const scale = step % 997 === 0 ? 1e30 : 1;
  const list = (of: (i: number) => number): number[] => Array.from({ length: k }, (_, i) => of(i));
  const parts: { readonly [Name in SignalName]: () => Signal[Name] } = {
    // Domain 0 usually has the largest numbers, and the last domain the smallest.
    alignments: () => list((i) => scale * (2 * at(i) - 1 - i / 4)),
    standardErrors: () => list((i) => at(k + i)),
    norms: () => list((i) => scale * (0.1 + at(2 * k + i))),
    targetNorm: () => 1,
    preconditionedAlignments: () => list((i) => scale * (2 * at(i) - 1 - i / 4)),
    preconditionedTargetNorm: () => 1,
    losses: () => list((i) => 4 * at(3 * k + i) + i / 4),
    targetLoss: () => 2,
    referenceLosses: () => list((i) => 4 * at(4 * k + i)),
    heldOutLosses: () => list((i) => 1 + at(7 * k + i) / 4 + (i * (step % 300)) / 3000),
    tokensSeen: () => list(() => 1000 * (step + 1)),
    gram: () => gramOf(Array.from({ length: k }, (_, i) => [1, at(5 * k + i) - i / 4, at(6 * k + i)])),
    tokens: () => list(() => 64),
    targets: () =>
      targetNames.map((name, m) => ({
        name,
        alignments: list((i) => scale * (2 * at((8 + m) * k + i) - 1 + (m === 0 ? -i : i) / 4)),
        norm: 1,
        loss: 2,
      })),
  };
  return Object.fromEntries(needs.map((name) => [name, parts[name]()]));
}

export const invariants: readonly Invariant[] = [
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
    moves,
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
      if (JSON.stringify(make(names(k), {}).init(names(k))) !== JSON.stringify(state))
        return "a second initial state differs from the first";
      for (const given of signals) {
        if (fc.stringify(copy(state)) !== fc.stringify({ ...state })) return "JSON changes the state";
        const next = make(names(k), {}).update(state, given);
        // A second instance shows whether the rule stores anything outside its state.
        const resumed = make(names(k), {}).update(copy(state), given);
        if (JSON.stringify(next) !== JSON.stringify(resumed)) return "a restored state continues differently";
        if ((make(names(k), {}).memoryFault?.(next.memory) ?? null) !== null)
          return "memoryFault refuses the rule's own memory";
        state = next;
      }
      return null;
    },
  ),
  invariant(
    "a mixer takes its states, counts its updates and restores them",
    () => true,
    (context) => runs(context, false),
    ({ make, rule: { needs } }, { k, signals }) => {
      const mixer = createMixer({ domains: names(k), rule: make(names(k), {}) });
      let state = mixer.initial;
      for (const given of signals) {
        const { updates } = state.rule;
        state = update(mixer, state, given);
        // A rule with fixed weights has no updates.
        if (needs.length > 0 && state.rule.updates !== updates + 1)
          return `after an update, updates is ${state.rule.updates}, not ${updates + 1}`;
        const restored = restoreMixer(mixer, JSON.parse(JSON.stringify(state)));
        if (fc.stringify(restored.rule) !== fc.stringify(state.rule))
          return `restoreMixer gave ${fc.stringify(restored.rule)}, not ${fc.stringify(state.rule)}`;
      }
      return null;
    },
  ),
  invariant(
    "refuses what is not finite",
    ({ rule }) => rule.needs.some((name) => name !== "tokens"),
    (context) =>
      context.sizes.chain((k) =>
        fc.record({
          k: fc.constant(k),
          given: signalOf(context, k, false),
          at: fc.nat(k - 1),
          value: nonFinite,
        }),
      ),
    ({ make }, { k, given, at, value }) => {
      const rule = make(names(k), {});
      const state = rule.init(names(k));
      const before = JSON.stringify(state);
      return first(
        rule.needs.map((name) => {
          if (name === "tokens") return null;
          const bad = replaced(given, name, k, at, value);
          let message: string | null = null;
          try {
            rule.update(state, bad);
          } catch (error) {
            message = error instanceof Error ? error.message : String(error);
          }
          if (JSON.stringify(state) !== before) return `${name} of ${value} changed the state`;
          if (message === null) return `${name} of ${value} was accepted`;
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
    (context) => fc.array(signalOf(context, 1, false), { minLength: 1, maxLength: 6 }),
    ({ make }, signals) =>
      first(
        follow(make(names(1), {}), names(1), signals).map(({ weights }) =>
          differ(weights, [1], tolerance.rounding),
        ),
      ),
  ),
  invariant(
    "η = 0 changes nothing",
    (context) => context.settable.has("eta") && moves(context),
    (context) => runs(context, false),
    ({ make }, { k, signals }) => {
      const [start, ...after] = follow(make(names(k), { eta: 0 }), names(k), signals);
      return first(after.map(({ weights }) => differ(weights, start.weights, tolerance.rounding)));
    },
  ),
  invariant(
    "β weights the new value, and β = 1 is no average",
    (context) => context.settable.has("beta") && moves(context),
    (context) => fc.tuple(runs(context, true), fc.double({ min: 0.01, max: 1, noNaN: true })),
    ({ make }, [{ k, signals }, beta]) => {
      const plain = follow(make(names(k), { beta: 1 }), names(k), signals);
      const averaged = follow(make(names(k), { beta }), names(k), signals);
      return first(
        plain.slice(1).map(({ weights }, t) =>
          differ(
            averaged[t + 1]!.weights,
            weights.map((w, i) => (1 - beta) * averaged[t]!.weights[i]! + beta * w),
            tolerance.computations,
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
      const shuffled = order.map((i) => names(k)[i]!);
      const plain = follow(make(names(k), {}), names(k), signals);
      const other = follow(
        make(shuffled, {}),
        shuffled,
        signals.map((s) => pick(s, k, order)),
      );
      return first(
        other.map(({ weights }, t) =>
          differ(
            weights,
            order.map((i) => plain[t]!.weights[i]!),
            tolerance.computations,
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
        alignments: Array.from(s.alignments ?? [], (a) => a + shift),
      }));
      const plain = follow(make(names(k), {}), names(k), signals);
      const other = follow(make(names(k), {}), names(k), moved);
      return first(other.map(({ weights }, t) => differ(weights, plain[t]!.weights, tolerance.computations)));
    },
  ),
  invariant(
    "monotone: raising a domain's number never lowers its weight",
    ({ promises }) => promises.monotone.length > 0,
    (context) =>
      context.sizes.chain((k) =>
        fc.record({
          k: fc.constant(k),
          given: signalOf(context, k, true),
          at: fc.nat(k - 1),
          amount: fc.double({ min: 0.01, max: 3, noNaN: true }),
        }),
      ),
    ({ make, promises }, { k, given, at, amount: by }) =>
      first(
        promises.monotone.map((name) => {
          const raised = {
            ...given,
            [name]: Array.from(given[name] ?? [], (v, i) => (i === at ? v + by : v)),
          };
          const after = (s: Measured): number => follow(make(names(k), {}), names(k), [s])[1]!.weights[at]!;
          const [less, more] = [after(given), after(raised)];
          return more >= less - tolerance.computations
            ? null
            : `${name}: the weight of domain ${at} fell from ${less} to ${more}`;
        }),
      ),
  ),
  invariant(
    "keeps the support",
    (context) => context.promises.keepsSupport && moves(context),
    (context) => runs(context, false).chain((run) => fc.tuple(fc.constant(run), simplexPoint(run.k))),
    ({ make, promises, settable }, [{ k, signals }, point]) => {
      const start = Object.fromEntries(names(k).map((name, i) => [name, point[i]!]));
      const states = follow(make(names(k), settable.has("start") ? { start } : {}), names(k), signals);
      return first(
        states[0].weights.map((weight, i) => {
          const lost = states.find(({ weights }) =>
            weight > 0 ? weights[i] === 0 : promises.floor === 0 && weights[i]! > 0,
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
      const coarse = follow(make(names(k), {}), names(k), signals);
      const split = follow(
        make(names(2 * k), {}),
        names(2 * k),
        signals.map((s) => pick(s, k, halves)),
      );
      return first(
        coarse.map(({ weights }, t) =>
          differ(
            weights.map((_, i) => split[t]!.weights[2 * i]! + split[t]!.weights[2 * i + 1]!),
            weights,
            tolerance.computations,
          ),
        ),
      );
    },
  ),
  invariant(
    "splitting one domain into equal halves keeps its total",
    ({ promises, settable }) => promises.splitsOne && settable.has("start"),
    (context) => runs(context, true).chain((run) => fc.tuple(fc.constant(run), fc.nat(run.k - 1))),
    ({ make }, [{ k, signals }, at]) => {
      // The second half comes last.
      const parts = [...Array(k).keys(), at];
      const startOf = (weights: readonly number[]): Record<string, number> =>
        Object.fromEntries(weights.map((weight, i) => [`domain${i}`, weight]));
      const even = parts.slice(0, k).map(() => 1 / k);
      const halves = parts.map((i) => (i === at ? 0.5 / k : 1 / k));
      const coarse = follow(make(names(k), { start: startOf(even) }), names(k), signals);
      const split = follow(
        make(names(k + 1), { start: startOf(halves) }),
        names(k + 1),
        signals.map((s) => pick(s, k, parts)),
      );
      return first(
        coarse.map(({ weights }, t) =>
          differ(
            weights.map((_, i) => split[t]!.weights[i]! + (i === at ? split[t]!.weights[k]! : 0)),
            weights,
            tolerance.computations,
          ),
        ),
      );
    },
  ),
  ...unmeasuredInvariants,
  ...mirrorInvariants,
  ...stepInvariants,
  invariant(
    "stays on the simplex over a long run",
    moves,
    (context) => fc.constantFrom(Math.max(1, context.most - 1)),
    ({ make, rule: { needs }, promises, longRun }, k) => {
      const rule = make(names(k), {});
      let state = rule.init(names(k));
      for (let step = 0; step < longRun; step++) {
        state = rule.update(state, longSignal(k, 7, step, needs));
        const fault = offSimplex(state.weights, k) ?? outOfBounds(state.weights, promises);
        if (fault !== null) return `after ${step + 1} updates ${fault}`;
        if (promises.keepsSupport && state.weights.some((w) => w === 0) && step === longRun - 1)
          return "a weight became 0";
      }
      return null;
    },
    { once: true },
  ),
];
