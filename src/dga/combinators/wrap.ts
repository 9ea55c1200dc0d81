/**
 * What combinators share: a rule around a rule. The outer state holds the inner one in its memory: `weights` are the inner rule's, and what
 * the inner rule remembers follows under `inner.`, so combinators nest and a saved state is checked like any other.
 */
import type { ChangeStep, Rule, RuleState, Signal, SignalName, Step } from "../rule.ts";

export interface Wrapping {
  /** Goes before the inner rule's name: `name(inner)`. */
  readonly name: string;
  /** Asked for beside what the inner rule needs. */
  readonly needs?: readonly SignalName[];
  /** The weights to sample with, from those of the inner rule and, after the first state, from those sampled before. */
  weights?(
    inner: ArrayLike<number>,
    before: ArrayLike<number> | null,
    domains: readonly string[],
  ): ArrayLike<number>;
  /** The step that the inner rule takes, from the one that it was about to take. `updates` were taken before. */
  step?(step: Step, given: Signal, state: RuleState, updates: number): Step;
  /** Is this update dropped, once its signal has been checked? */
  drops?(updates: number): boolean;
}

const PREFIX = "inner.";

export function wrap(inner: Rule, { name, needs = [], weights, step, drops }: Wrapping): Rule {
  const whole = `${name}(${inner.name})`;
  const outer = (made: RuleState, before: RuleState | null): RuleState => ({
    rule: whole,
    domains: [...made.domains],
    weights: Array.from(weights?.(made.weights, before?.weights ?? null, made.domains) ?? made.weights),
    updates: before === null ? 0 : before.updates + 1,
    memory: {
      weights: made.weights,
      updates: [made.updates],
      ...Object.fromEntries(Object.entries(made.memory).map(([key, value]) => [PREFIX + key, value])),
    },
  });
  const memoryOf = (memory: RuleState["memory"]): RuleState["memory"] =>
    Object.fromEntries(
      Object.entries(memory)
        .filter(([key]) => key.startsWith(PREFIX))
        .map(([key, value]) => [key.slice(PREFIX.length), value]),
    );
  return {
    name: whole,
    // Fixed weights need no measurement, whatever is around them.
    needs: inner.needs.length === 0 ? [] : [...new Set([...inner.needs, ...needs])],
    ...(inner.stepsOn === undefined ? {} : { stepsOn: inner.stepsOn }),
    init: (domains) => outer(inner.init(domains), null),
    update(state, given, change) {
      if (inner.needs.length === 0) return state;
      const old: RuleState = {
        rule: inner.name,
        domains: state.domains,
        weights: state.memory["weights"],
        updates: state.memory["updates"][0],
        memory: memoryOf(state.memory),
      };
      // What is next to the rule changes its step first.
      const changed: ChangeStep = (own) => {
        const next = step === undefined ? own : step(own, given, state, state.updates);
        return change === undefined ? next : change(next);
      };
      const next = inner.update(old, given, inner.stepsOn === undefined ? undefined : changed);
      return outer(drops?.(state.updates) === true ? old : next, state);
    },
    memoryFault: (memory) => inner.memoryFault?.(memoryOf(memory)) ?? null,
  };
}
