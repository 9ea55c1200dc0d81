/**
 * The mixer: a rule, when it is due, and the history of its weights, as plain JSON. Pure functions from state to state.
 */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { type CombinatorOptions, combine } from "./combinators/index.ts";
import { checkFacts, factChecks, type RunFacts } from "./facts.ts";
import { checkDomains, type Rule, type RuleState, type Signal } from "./rule.ts";
import { checkOptions, integerIn, list, object, required, show, withDefaults } from "../options.ts";
import { createRule, type RuleOptions } from "./rules/index.ts";
import { liesOnSimplex, normalise, sumOf } from "./simplex.ts";

/** Facts of the run go to what takes them, of the rule and of `combinators`; options that say the same go before them. */
export interface MixerOptions extends RunFacts {
  /** Names of the domains, in the order of the weights. */
  readonly domains: readonly string[];
  /** One of the built-in rules by its options, or a rule of your own. */
  readonly rule: RuleOptions | Rule;
  /** Put around the rule in this order. Default none. */
  readonly combinators?: readonly CombinatorOptions[];
  /** T_r: training steps between two updates. Default 10. */
  readonly updateEvery?: number;
  /** Training steps before the first update may happen. Default 0. */
  readonly updateAfter?: number;
}

/** Plain JSON: save it, restore it, go on to the same bits. */
export interface MixerState {
  /** Version of this format. */
  readonly version: 1;
  /** State of the rule, with the current weights. */
  readonly rule: RuleState;
  /** Training steps taken. */
  readonly steps: number;
  /** Σ over steps of the weights that were sampled with. */
  readonly weightSums: readonly number[];
}

/** A rule with its domains and its schedule of updates; `createMixer` makes one. It holds no state: that is a `MixerState`. */
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

/** What `createMixer` takes where nothing is said. */
export const mixerDefaults = { updateEvery: 10, updateAfter: 0 };

/** Throws `config` for impossible options, and for facts that nothing could take because the rule is an object, which has its options already. */
export function createMixer(options: MixerOptions): Mixer {
  checkOptions("createMixer", options, {
    domains: required(list),
    rule: required(object),
    updateEvery: integerIn(1),
    combinators: list,
    updateAfter: integerIn(0),
    ...factChecks,
  });
  const { domains, rule, combinators = [], updateEvery, updateAfter } = withDefaults(mixerDefaults, options);
  checkDomains(domains);
  checkFacts(options, domains);
  if (isRule(rule) && combinators.length === 0)
    for (const fact of Object.keys(factChecks))
      if (Reflect.get(options, fact) !== undefined)
        throw new GradmixError(
          "config",
          `createMixer: ${fact}: the rule "${rule.name}" is an object, which has its options already; give it ${fact} when it is made, or give its options as rule`,
        );
  const made = combine(isRule(rule) ? rule : createRule(rule, options), combinators, options);
  const initial: MixerState = {
    version: 1,
    rule: made.init(domains),
    steps: 0,
    weightSums: domains.map(() => 0),
  };
  return { rule: made, domains: [...domains], updateEvery, updateAfter, initial };
}

/** Options may come from a file, and have any name in them. */
const isRule = (rule: RuleOptions | Rule): rule is Rule =>
  "update" in rule && typeof rule.update === "function";

/** Notes that training steps were taken with the current weights: one, or so many. */
export function advance(state: MixerState, steps: number = 1): MixerState {
  const { weights } = state.rule;
  return {
    ...state,
    steps: state.steps + steps,
    weightSums: state.weightSums.map((sum, i) => sum + steps * weights[i]!),
  };
}

/** Is an update due after the steps taken so far? Never for fixed weights. */
export function updateDue(mixer: Mixer, state: MixerState): boolean {
  return nextUpdate(mixer, state.steps - 1) === state.steps;
}

/**
 * The number of steps after which the next update is due when `steps` were taken: the first multiple of `updateEvery` that is more, and not less than
 * `updateAfter`. Infinity for fixed weights. What steps measure for an update is of the `updateEvery` steps before it.
 */
export function nextUpdate({ rule, updateEvery, updateAfter }: Mixer, steps: number): number {
  if (rule.needs.length === 0) return Infinity;
  return updateEvery * Math.max(1, Math.floor(steps / updateEvery) + 1, Math.ceil(updateAfter / updateEvery));
}

/** The state after the rule has seen a signal. Throws `numeric` for a signal that is not finite; `state` is never changed. */
export function update(mixer: Mixer, state: MixerState, signal: Signal): MixerState {
  return { ...state, rule: mixer.rule.update(state.rule, signal) };
}

/** The weights to sample with. */
export function currentWeights(state: MixerState): Float64Array {
  return Float64Array.from(state.rule.weights);
}

/** The mean over steps of the weights that were sampled with; the current ones before the first step. */
export function averageWeights(state: MixerState): Float64Array {
  if (state.steps === 0) return currentWeights(state);
  // The sums add up to the number of steps, but for rounding.
  return normalise(state.weightSums);
}

/** Reads a saved state back. Throws `checkpoint`, naming what differs from `mixer`. */
export function restoreMixer(mixer: Mixer, json: unknown): MixerState {
  const wrong = (what: string): GradmixError => new GradmixError("checkpoint", `mixer state: ${what}`);
  if (!isObject(json) || json["version"] !== 1) throw wrong("it is not a mixer state of version 1");
  const rule = json["rule"];
  if (!isObject(rule)) throw wrong("it has no rule");
  if (rule["rule"] !== mixer.rule.name)
    throw wrong(`it belongs to the rule ${show(rule["rule"])}, not to "${mixer.rule.name}"`);
  const domains = rule["domains"];
  const k = mixer.domains.length;
  if (!Array.isArray(domains)) throw wrong("its rule has no domains");
  if (domains.length !== k) throw wrong(`it has ${domains.length} domains, not ${k}`);
  const other = domains.findIndex((name, i) => name !== mixer.domains[i]);
  if (other >= 0)
    throw wrong(`its domain ${other + 1} is ${show(domains[other])}, not "${mixer.domains[other]}"`);
  const vector = (value: unknown, name: string, length: number): number[] => {
    if (!Array.isArray(value) || value.length !== length)
      throw wrong(`${name} does not hold ${length} numbers`);
    return value.map((entry: unknown, i) => {
      if (typeof entry !== "number" || !Number.isFinite(entry))
        throw wrong(`${name} has ${show(entry)} at ${length === k ? `domain "${mixer.domains[i]}"` : i}`);
      return entry;
    });
  };
  const count = (value: unknown, name: string): number => {
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
      throw wrong(`${name} is ${show(value)}`);
    return value;
  };

  const weights = vector(rule["weights"], "weights", k);
  if (!liesOnSimplex(weights)) throw wrong("weights do not lie on the simplex");
  const steps = count(json["steps"], "steps");
  const weightSums = vector(json["weightSums"], "weightSums", k);
  if (Math.abs(sumOf(weightSums) - steps) > 1e-9 * steps || weightSums.some((w) => w < 0))
    throw wrong(`weightSums do not add up to the ${steps} steps`);

  const saved = rule["memory"];
  if (!isObject(saved)) throw wrong("its rule has no memory");
  const expected = mixer.initial.rule.memory;
  const stranger = Object.keys(saved).find((name) => !Object.hasOwn(expected, name));
  if (stranger !== undefined)
    throw wrong(`memory.${stranger} is nothing that "${mixer.rule.name}" remembers`);
  const memory = Object.fromEntries(
    Object.entries(expected).map(([name, { length }]) => [
      name,
      vector(saved[name], `memory.${name}`, length),
    ]),
  );
  const fault = mixer.rule.memoryFault?.(memory) ?? null;
  if (fault !== null) throw wrong(`memory: ${fault}`);

  return {
    version: 1,
    rule: {
      rule: mixer.rule.name,
      domains: [...mixer.domains],
      weights,
      updates: count(rule["updates"], "updates"),
      memory,
    },
    steps,
    weightSums,
  };
}
