/**
 * What combinators share: a rule around a rule. The outer state holds the inner one in its memory: `weights` are the inner rule's, and what
 * the inner rule remembers follows under `inner.`, so combinators nest and a saved state is checked like any other.
 */
import { type ChangeStep, remembered, type Rule, type RuleState } from "../rule.ts";
import type { Signal, SignalName, Step } from "../rule.ts";

export interface Wrapping {
  /** Goes before the inner rule's name: `name(inner)`. */
  readonly name: string;
  /** Asked for beside what the inner rule needs; around fixed weights only with `always`. */
  readonly needs?: readonly SignalName[];
  /** Around fixed weights too there is something to do at an update. */
  readonly always?: boolean;
  /** What is remembered beside the inner rule's memory. */
  readonly memory?: OwnMemory;
  /** The weights to sample with, from those of the inner rule and, after the first state, from those sampled before. */
  weights?(
    inner: ArrayLike<number>,
    before: ArrayLike<number> | null,
    domains: readonly string[],
    memory: RuleState["memory"],
  ): ArrayLike<number>;
  /** The step that the inner rule takes, from the one that it was about to take. `updates` were taken before. */
  step?(step: Step, given: Signal, state: RuleState, updates: number): Step;
  /** Is this update dropped, once its signal has been checked? */
  drops?(updates: number): boolean;
}

/** Vectors of finite numbers, by names of which none is "weights" or "updates". */
export interface OwnMemory {
  first(domains: readonly string[]): RuleState["memory"];
  /** After a signal. `state` is the one before, whose weights were sampled with. */
  next(own: RuleState["memory"], given: Signal, state: RuleState): RuleState["memory"];
  /** As `Rule.memoryFault`. */
  fault(own: RuleState["memory"]): string | null;
}

const PREFIX = "inner.";

export function wrap(inner: Rule, wrapping: Wrapping): Rule {
  const { name, needs = [], always = false, memory, weights, step, drops } = wrapping;
  const whole = `${name}(${inner.name})`;
  const rests = inner.needs.length === 0 && !always;
  const outer = (made: RuleState, before: RuleState | null, own: RuleState["memory"]): RuleState => ({
    rule: whole,
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
    name: whole,
    // Fixed weights need no measurement, whatever is around them but a guard.
    needs: rests ? [] : [...new Set([...inner.needs, ...needs])],
    ...(inner.stepsOn === undefined ? {} : { stepsOn: inner.stepsOn }),
    init: (domains) => outer(inner.init(domains), null, memory?.first(domains) ?? {}),
    update(state, given, change) {
      if (rests) return state;
      const [own, innerMemory] = parted(state.memory);
      const old: RuleState = {
        rule: inner.name,
        domains: state.domains,
        weights: remembered(whole, state.memory, "weights"),
        updates: remembered(whole, state.memory, "updates")[0]!,
        memory: innerMemory,
      };
      // What is next to the rule changes its step first.
      const changed: ChangeStep = (own) => {
        const next = step === undefined ? own : step(own, given, state, state.updates);
        return change === undefined ? next : change(next);
      };
      const next = inner.update(old, given, inner.stepsOn === undefined ? undefined : changed);
      const ownNext = memory?.next(own, given, state) ?? {};
      return outer(drops?.(state.updates) === true ? old : next, state, ownNext);
    },
    memoryFault(saved) {
      const [own, innerMemory] = parted(saved);
      return memory?.fault(own) ?? inner.memoryFault?.(innerMemory) ?? null;
    },
  };
}

/** What a combinator remembers itself, and what the rule inside does. */
function parted(memory: RuleState["memory"]): [own: RuleState["memory"], inner: RuleState["memory"]] {
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
