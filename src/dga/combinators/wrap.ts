/**
 * What combinators share: a rule around a rule. The outer state keeps the inner state in its memory: `weights` are those of the inner rule, and the
 * memory of the inner rule follows under `inner.`. So combinators can be nested, and a saved state is checked like that of any rule.
 */
import { type ChangeStep, remembered, type Rule, type RuleState } from "../rule.ts";
import type { Signal, SignalName, Step } from "../rule.ts";
import { checkRuleMembers, initialOf, updatedBy } from "../rule-checks.ts";
import { liesOnSimplex } from "../simplex.ts";

export interface Wrapping {
  /** Prefix of the inner rule's name: `name(inner)`. */
  readonly name: string;
  /** Signals that the combinator needs in addition to those of the inner rule. Around fixed weights they are only measured if `always` is set. */
  readonly needs?: readonly SignalName[];
  /** Whether the combinator acts at updates even around fixed weights. */
  readonly always?: boolean;
  /** Memory of the combinator itself, in addition to that of the inner rule. */
  readonly memory?: OwnMemory;
  /** The sampled weights, computed from those of the inner rule and, after the first state, from those sampled before. */
  weights?(
    inner: ArrayLike<number>,
    before: ArrayLike<number> | null,
    domains: readonly string[],
    memory: RuleState["memory"],
  ): ArrayLike<number>;
  /** Changes the step that the inner rule is about to take. `updates` is the number of earlier updates. */
  step?(step: Step, given: Signal, state: RuleState, updates: number): Step;
  /** Whether this update is ignored after its signal has been checked. */
  drops?(updates: number): boolean;
}

/** Named vectors of finite numbers. The names "weights" and "updates" are reserved. */
export interface OwnMemory {
  first(domains: readonly string[]): RuleState["memory"];
  /** The memory after a signal. `state` is the state before it, whose weights were sampled. */
  next(own: RuleState["memory"], given: Signal, state: RuleState): RuleState["memory"];
  /** See `Rule.memoryFault`. */
  fault(own: RuleState["memory"]): string | null;
}

const PREFIX = "inner.";

export function wrap(inner: Rule, wrapping: Wrapping): Rule {
  const { name, needs = [], always = false, memory, weights, step, drops } = wrapping;
  checkRuleMembers(`${name}: rule`, inner);
  const fullName = `${name}(${inner.name})`;
  const rests = inner.needs.length === 0 && !always;
  const outer = (made: RuleState, before: RuleState | null, own: RuleState["memory"]): RuleState => ({
    rule: fullName,
    domains: [...made.domains],
    weights: Array.from(weights?.(made.weights, before?.weights ?? null, made.domains, own) ?? made.weights),
    updates: before === null ? 0 : before.updates + 1,
    memory: {
      weights: made.weights,
      updates: [made.updates],
      ...own,
      ...Object.fromEntries(Object.entries(made.memory).map(([key, value]) => [PREFIX + key, value])),
    },
  });
  return {
    name: fullName,
    // Fixed weights need no measurement, whatever is around them, except for a guard.
    needs: rests ? [] : [...new Set([...inner.needs, ...needs])],
    ...(inner.stepsOn === undefined ? {} : { stepsOn: inner.stepsOn }),
    ...(inner.schedule === undefined ? {} : { schedule: inner.schedule }),
    ...(inner.targets === undefined ? {} : { targets: inner.targets }),
    init: (domains) => outer(initialOf(inner, domains), null, memory?.first(domains) ?? {}),
    update(state, given, change) {
      if (rests) return state;
      const [own, innerMemory] = splitMemory(state.memory);
      const old: RuleState = {
        rule: inner.name,
        domains: state.domains,
        weights: remembered(fullName, state.memory, "weights"),
        updates: remembered(fullName, state.memory, "updates")[0]!,
        memory: innerMemory,
      };
      // The innermost combinator changes the step first.
      const changed: ChangeStep = (own) => {
        const next = step === undefined ? own : step(own, given, state, state.updates);
        return change === undefined ? next : change(next);
      };
      const next = updatedBy(inner, old, given, inner.stepsOn === undefined ? undefined : changed);
      const ownNext = memory?.next(own, given, state) ?? {};
      return outer(drops?.(state.updates) === true ? old : next, state, ownNext);
    },
    memoryFault(saved) {
      const [own, innerMemory] = splitMemory(saved);
      const updates = remembered(fullName, saved, "updates")[0]!;
      if (!liesOnSimplex(remembered(fullName, saved, "weights")))
        return "weights does not lie on the simplex";
      if (!Number.isSafeInteger(updates) || updates < 0)
        return `updates is ${updates}, not a whole number of at least 0`;
      return memory?.fault(own) ?? inner.memoryFault?.(innerMemory) ?? null;
    },
  };
}

/** Splits a memory into that of the combinator and that of the inner rule. */
function splitMemory(memory: RuleState["memory"]): [own: RuleState["memory"], inner: RuleState["memory"]] {
  const entries = Object.entries(memory);
  return [
    Object.fromEntries(
      entries.filter(([key]) => !key.startsWith(PREFIX) && key !== "weights" && key !== "updates"),
    ),
    Object.fromEntries(
      entries
        .filter(([key]) => key.startsWith(PREFIX))
        .map(([key, value]) => [key.slice(PREFIX.length), value]),
    ),
  ];
}
