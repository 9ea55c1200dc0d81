/**
 * The mixer: a rule, when it is due, and the history of its weights, as plain JSON. Pure functions from state to state.
 */
import { GradmixError } from "../errors.ts";
import type { Rule, RuleState, Signal } from "./rule.ts";
import { checkRange } from "./rule.ts";
import { createRule, type RuleOptions } from "./rules/index.ts";

export interface MixerOptions {
  readonly domains: readonly string[];
  /** One of the built-in rules by its options, or a rule of your own. */
  readonly rule: RuleOptions | Rule;
  /** T_r: training steps between two updates. Default 10. */
  readonly updateEvery?: number;
  /** Training steps before the first update may happen. Default 0. */
  readonly warmup?: number;
}

/** Plain JSON: save it, restore it, go on to the same bits. */
export interface MixerState {
  readonly version: 1;
  readonly rule: RuleState;
  /** Training steps taken. */
  readonly steps: number;
  /** Σ over steps of the weights that were sampled with. */
  readonly weightSums: readonly number[];
}

export interface Mixer {
  readonly rule: Rule;
  readonly domains: readonly string[];
  readonly updateEvery: number;
  readonly warmup: number;
  readonly initial: MixerState;
}

/** Throws `config` for impossible options. */
export function createMixer({ domains, rule, updateEvery = 10, warmup = 0 }: MixerOptions): Mixer {
  if (domains.length === 0) throw new GradmixError("config", "domains: at least one is needed");
  if (new Set(domains).size < domains.length) throw new GradmixError("config", "domains: two have the same name");
  checkInteger("updateEvery", updateEvery, 1);
  checkInteger("warmup", warmup, 0);
  const made = "update" in rule ? rule : createRule(rule);
  const initial: MixerState = { version: 1, rule: made.init(domains), steps: 0, weightSums: domains.map(() => 0) };
  return { rule: made, domains: [...domains], updateEvery, warmup, initial };
}

function checkInteger(field: string, value: number, min: number): void {
  checkRange(field, value, { min, max: Infinity, openMax: true });
  if (!Number.isInteger(value)) throw new GradmixError("config", `${field}: ${value} is not an integer`);
}

/** Notes that a training step was taken with the current weights. */
export function advance(state: MixerState): MixerState {
  const { weights } = state.rule;
  return { ...state, steps: state.steps + 1, weightSums: state.weightSums.map((sum, i) => sum + weights[i]) };
}

/** Is an update due after the steps taken so far? Never for fixed weights. */
export function updateDue(mixer: Mixer, state: MixerState): boolean {
  return (
    mixer.rule.needs.length > 0 &&
    state.steps > 0 &&
    state.steps >= mixer.warmup &&
    state.steps % mixer.updateEvery === 0
  );
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
  return Float64Array.from(state.weightSums, (sum) => sum / state.steps);
}

/** Reads a saved state back. Throws `checkpoint`, naming what differs from `mixer`. */
export function restoreMixer(mixer: Mixer, json: unknown): MixerState {
  const wrong = (what: string): GradmixError => new GradmixError("checkpoint", `mixer state: ${what}`);
  if (!isRecord(json) || json["version"] !== 1) throw wrong("it is not a mixer state of version 1");
  const rule = json["rule"];
  if (!isRecord(rule)) throw wrong("it has no rule");
  if (rule["rule"] !== mixer.rule.name)
    throw wrong(`it belongs to the rule "${String(rule["rule"])}", not to "${mixer.rule.name}"`);
  const domains = rule["domains"];
  const k = mixer.domains.length;
  if (!Array.isArray(domains) || domains.length !== k || domains.some((name, i) => name !== mixer.domains[i]))
    throw wrong(`its domains are ${String(domains)}, not ${mixer.domains.join(",")}`);
  const vector = (value: unknown, name: string): number[] => {
    if (!Array.isArray(value) || value.length !== k) throw wrong(`${name} has not one number for each of ${k} domains`);
    return value.map((entry: unknown, i) => {
      if (typeof entry !== "number" || !Number.isFinite(entry))
        throw wrong(`${name} of domain "${mixer.domains[i]}" is ${String(entry)}`);
      return entry;
    });
  };
  const count = (value: unknown, name: string): number => {
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0) throw wrong(`${name} is ${String(value)}`);
    return value;
  };
  const memory = rule["memory"];
  if (!isRecord(memory)) throw wrong("it has no memory");
  const expected = mixer.initial.rule.memory;
  for (const name of Object.keys(expected)) if (!Object.hasOwn(memory, name)) throw wrong(`memory.${name} is missing`);
  const weights = vector(rule["weights"], "weights");
  const total = weights.reduce((a, b) => a + b, 0);
  if (Math.abs(total - 1) > 1e-9 || weights.some((w) => w < 0)) throw wrong(`weights do not lie on the simplex`);
  return {
    version: 1,
    rule: {
      rule: mixer.rule.name,
      domains: [...mixer.domains],
      weights,
      updates: count(rule["updates"], "updates"),
      memory: Object.fromEntries(Object.entries(memory).map(([name, value]) => [name, vector(value, `memory.${name}`)])),
    },
    steps: count(json["steps"], "steps"),
    weightSums: vector(json["weightSums"], "weightSums"),
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
