/**
 * What combinators share: a rule around a rule. The outer state holds the inner one in its memory: `weights` are the inner rule's, and what
 * the inner rule remembers follows under `inner.`, so combinators nest and a saved state is checked like any other.
 */
import { GradmixError } from "../../errors.ts";
import type { Rule, RuleState, Signal, SignalName } from "../rule.ts";

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
  /** The signal that the inner rule gets; null for none, which leaves it as it is. `updates` were taken before. */
  signal?(given: Signal, state: RuleState, updates: number): Signal | null;
}

const PREFIX = "inner.";

/**
 * Which of the parts of the signal, in which a rule's step is linear, this rule asks for; none for fixed weights. Throws `config` for a rule
 * that steps on something else, which a combinator of that name would leave as it is without a word.
 */
export function stepsOn<T extends SignalName>(name: string, rule: Rule, parts: readonly T[]): readonly T[] {
  const found = parts.filter((part) => rule.needs.includes(part));
  if (found.length === 0 && rule.needs.length > 0)
    throw new GradmixError(
      "config",
      `${name}: the rule "${rule.name}" steps on ${rule.needs.join(", ")}; it can be around one that steps on ${parts.join(" or ")}`,
    );
  return found;
}

export function wrap(inner: Rule, { name, needs = [], weights, signal }: Wrapping): Rule {
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
    init: (domains) => outer(inner.init(domains), null),
    update(state, given) {
      if (inner.needs.length === 0) return state;
      const old: RuleState = {
        rule: inner.name,
        domains: state.domains,
        weights: state.memory["weights"],
        updates: state.memory["updates"][0],
        memory: memoryOf(state.memory),
      };
      const seen = signal === undefined ? given : signal(given, state, state.updates);
      // A signal that will not be used is still checked.
      const next = inner.update(old, seen ?? given);
      return outer(seen === null ? old : next, state);
    },
    memoryFault: (memory) => inner.memoryFault?.(memoryOf(memory)) ?? null,
  };
}
