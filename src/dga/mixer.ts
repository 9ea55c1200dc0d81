/** The mixer: a rule, its update schedule and the history of its weights, as plain JSON. Pure functions from state to state. */
import { GradmixError } from "../errors.ts";
import { type CombinatorOptions, combine } from "./combinators/index.ts";
import { checkFacts, factChecks, type RunFacts } from "./facts.ts";
import { checkDomains, type Rule, type RuleSchedule, type RuleState, type Signal } from "./rule.ts";
import { checkedState, checkRuleMembers, checkSignal, initialOf, isRule, updatedBy } from "./rule-checks.ts";
import { isObject } from "../json.ts";
import {
  checkOptions,
  integerIn,
  list,
  numberIn,
  object,
  required,
  show,
  objectWith,
  type OptionCheck,
} from "../options.ts";
import * as schema from "../schema.ts";
import { createRule, type RuleOptions } from "./rules/index.ts";
import { liesOnSimplex, normalise, sumOf } from "./simplex.ts";

/**
 * Options of `createMixer`. The facts of the run (`RunFacts`) supply options of the rule and the `combinators` that are left out; explicit options
 * take precedence.
 */
export interface MixerOptions extends RunFacts {
  /** Names of the domains, in the order of the weights. */
  readonly domains: readonly string[];
  /** Options of a built-in rule, or a rule of your own. */
  readonly rule: RuleOptions | Rule;
  /** Combinators around the rule, the innermost first. Default none. */
  readonly combinators?: readonly CombinatorOptions[];
  /** Training steps between two weight updates, T_r of the paper. Default: that of the rule's `schedule`, else 10. */
  readonly updateEvery?: number;
  /** Training steps before the first weight update may happen. Default 0. */
  readonly updateAfter?: number;
}

/** State of a mixer: plain JSON that can be saved and restored, and from which a run continues bit for bit. */
export interface MixerState {
  /** Version of this format. */
  readonly version: 1;
  /** State of the rule, with the current weights. */
  readonly rule: RuleState;
  /** Names of the rule's targets, for a rule with several: its memory has numbers in their order. */
  readonly targets?: readonly string[];
  /** Training steps taken. */
  readonly steps: number;
  /** Sum over the steps of the sampled weights. */
  readonly weightSums: readonly number[];
}

/** A rule with its domains and its update schedule; `createMixer` makes one. It holds no state: that is a `MixerState`. */
export interface Mixer {
  /** The rule, with its combinators around it. */
  readonly rule: Rule;
  /** Names of the domains, in the order of the weights. */
  readonly domains: readonly string[];
  /** Training steps between two updates. */
  readonly updateEvery: number;
  /** Training steps before the first update may happen. */
  readonly updateAfter: number;
  /** The state before the first step. */
  readonly initial: MixerState;
}

/** Defaults of the options of `createMixer`; of `updateEvery` for rules without a `schedule`. */
export const mixerDefaults = { updateEvery: 10, updateAfter: 0 };

/** Makes a mixer. Throws `config` for invalid options, and for facts that cannot be used because the rule is an object, whose options are already set. */
export function createMixer(options: MixerOptions): Mixer {
  checkOptions("createMixer", options, {
    domains: required(list),
    rule: required(object),
    updateEvery: integerIn(1),
    combinators: list,
    updateAfter: integerIn(0),
    ...factChecks,
  });
  const { domains, rule, combinators = [], updateAfter = mixerDefaults.updateAfter } = options;
  checkDomains(domains);
  checkFacts(options, domains);
  if (isRule(rule)) checkRuleMembers("createMixer: rule", rule);
  if (isRule(rule) && combinators.length === 0)
    for (const fact of Object.keys(factChecks))
      if (Reflect.get(options, fact) !== undefined)
        throw new GradmixError(
          "config",
          `createMixer: ${fact}: the rule "${rule.name}" is an object, whose options are already set; pass ${fact} when you make the rule, or pass options as rule`,
        );
  const combined = combine(isRule(rule) ? rule : createRule(rule, options), combinators, options);
  if (combined.schedule !== undefined)
    checkOptions<RuleSchedule>(`rule "${combined.name}": schedule`, combined.schedule, {
      updateEvery: integerIn(1),
      measureEvery: integerIn(1),
      probes: integerIn(0),
      blockShare: numberIn({ min: 0, max: 1 }),
    });
  const updateEvery = options.updateEvery ?? combined.schedule?.updateEvery ?? mixerDefaults.updateEvery;
  const initial: MixerState = {
    version: 1,
    rule: initialOf(combined, domains),
    ...(combined.targets === undefined ? {} : { targets: [...combined.targets] }),
    steps: 0,
    weightSums: domains.map(() => 0),
  };
  return { rule: combined, domains: [...domains], updateEvery, updateAfter, initial };
}

/** Records training steps that were taken with the current weights. `steps` defaults to 1. Throws `config` for a number of steps that is not whole. */
export function advance(state: MixerState, steps: number = 1): MixerState {
  checkIsState("advance", state);
  countOfSteps("advance: steps", steps);
  const { weights } = state.rule;
  return {
    ...state,
    steps: state.steps + steps,
    weightSums: state.weightSums.map((sum, i) => sum + steps * weights[i]!),
  };
}

/** Accepts a mixer. */
export const checkMixer: OptionCheck = objectWith(
  "a mixer of createMixer",
  "rule",
  "domains",
  "updateEvery",
  "initial",
);

/** Whether a weight update is due after the steps taken so far. Always false for fixed weights. */
export function updateDue(mixer: Mixer, state: MixerState): boolean {
  checkMixer("updateDue: mixer", mixer);
  checkIsState("updateDue", state);
  return nextUpdate(mixer, state.steps - 1) === state.steps;
}

/**
 * The number of steps after which the next update is due when `steps` were taken: the next multiple of `updateEvery` that is at least `updateAfter`.
 * Infinity for fixed weights. The measurements of training steps for an update come from the `updateEvery` steps before it.
 */
export function nextUpdate({ rule, updateEvery, updateAfter }: Mixer, steps: number): number {
  if (rule.needs.length === 0) return Infinity;
  return updateEvery * Math.max(1, Math.floor(steps / updateEvery) + 1, Math.ceil(updateAfter / updateEvery));
}

const countOfSteps = integerIn(0);

/** Throws `config` for something other than the state of a mixer, such as the mixer itself. */
function checkIsState(where: string, state: MixerState): void {
  const given: unknown = state;
  if (
    !isObject(given) ||
    !isObject(given["rule"]) ||
    !Array.isArray(given["rule"]["weights"]) ||
    !Array.isArray(given["weightSums"]) ||
    typeof given["steps"] !== "number"
  )
    throw new GradmixError(
      "config",
      `${where}: ${show(given)} is not the state of a mixer; pass mixer.initial, or what advance, update or restoreMixer returned`,
    );
}

/**
 * The state after the rule has processed a signal. Throws `numeric` for a signal that is not finite, and `config` for a signal with an unknown name, for a
 * state of another mixer, and if a rule of your own returns something other than a state. `state` is never changed.
 */
export function update(mixer: Mixer, state: MixerState, signal: Signal): MixerState {
  checkMixer("update: mixer", mixer);
  const { rule, domains, initial } = mixer;
  checkIsState("update", state);
  if (state.rule.rule !== rule.name || state.rule.weights.length !== domains.length)
    throw new GradmixError(
      "config",
      `update: the state belongs to another mixer: its rule is ${show(state.rule.rule)} over ${state.rule.weights.length} domains, not "${rule.name}" over ${domains.length}`,
    );
  const { targets } = rule;
  if (targets !== undefined && JSON.stringify(state.targets ?? targets) !== JSON.stringify(targets))
    throw new GradmixError(
      "config",
      `update: the state belongs to a mixer with other targets, or in another order: ${show(state.targets)}, not ${show(targets)}`,
    );
  checkSignal(signal);
  checkedState(rule, state.rule, "given", domains, initial.rule.memory);
  return { ...state, rule: updatedBy(rule, state.rule, signal) };
}

/** The weights that are sampled now, one per domain. */
export function currentWeights(state: MixerState): Float64Array {
  checkIsState("currentWeights", state);
  return Float64Array.from(state.rule.weights);
}

/** The mean over the steps of the sampled weights; before the first step, the current weights. */
export function averageWeights(state: MixerState): Float64Array {
  checkIsState("averageWeights", state);
  if (state.steps === 0) return currentWeights(state);
  // The sums add up to the number of steps, up to rounding.
  return normalise(state.weightSums);
}

/** Reads a saved state back. Throws `checkpoint`, naming what differs from `mixer`. */
export function restoreMixer(mixer: Mixer, json: unknown): MixerState {
  checkMixer("restoreMixer: mixer", mixer);
  const whole = schema.where(mixerState(mixer), ({ steps, weightSums }) =>
    Math.abs(sumOf(weightSums) - steps) > 1e-9 * steps || weightSums.some((w) => w < 0)
      ? `has weightSums that do not add up to the ${steps} steps`
      : null,
  );
  return schema.read(whole, json, schema.faultOf({ source: "mixer state", code: "checkpoint" }));
}

function mixerState({ rule, domains, initial }: Mixer): schema.Schema<MixerState> {
  const vector = schema.listFor(domains, schema.number);
  const known = Object.entries(initial.rule.memory);
  const memory = schema.closed<RuleState["memory"]>(
    Object.fromEntries(
      // Errors name a number by its domain, or by its index if the vector is not per domain.
      known.map(([name, { length }]) => [
        name,
        length === domains.length ? vector : schema.list(schema.number, length),
      ]),
    ),
  );
  return schema.object<MixerState>({
    version: schema.oneOf(1),
    rule: schema.object<RuleState>({
      rule: schema.where(schema.string, (name) =>
        name === rule.name ? null : `is "${name}": the state belongs to that rule, not to "${rule.name}"`,
      ),
      domains: schema.tuple(domains.map((name) => schema.oneOf(name))),
      weights: schema.where(vector, (weights) =>
        liesOnSimplex(weights) ? null : "does not lie on the simplex",
      ),
      updates: schema.count,
      memory: schema.where(memory, (found) => {
        const fault = rule.memoryFault?.(found) ?? null;
        return fault === null ? null : `does not fit: ${fault}`;
      }),
    }),
    // Older states do not name the targets.
    targets: schema.optional(schema.tuple((rule.targets ?? []).map((name) => schema.oneOf(name)))),
    steps: schema.count,
    weightSums: vector,
  });
}
