/**
 * The one interface of update rules: pure functions on plain data.
 *
 * A rule makes a first state from the domains' names and turns a state and a signal into the next state. States are JSON; `weights` of
 * a state is what the sampler draws domains with. A new rule is a file in rules/ and a line in rules/index.ts.
 */
import { GradmixError } from "../errors.ts";

/** What was measured about the domains at one step; arrays have one entry a domain. */
export interface Signal {
  /** aᵢ = ⟨∇Lᵢ, ∇L_target⟩, of mean losses per token. */
  readonly alignments?: ArrayLike<number>;
  readonly standardErrors?: readonly (number | null)[];
  /** ‖∇Lᵢ‖. */
  readonly norms?: ArrayLike<number>;
  /** ‖∇L_target‖. */
  readonly targetNorm?: number;
  /** Lᵢ, mean loss per token. */
  readonly losses?: ArrayLike<number>;
  readonly targetLoss?: number;
}

/** The parts of a signal that a rule may ask for. */
export type SignalName = keyof Signal;

export interface RuleState {
  readonly rule: string;
  readonly domains: readonly string[];
  /** What to sample with: on the simplex. */
  readonly weights: readonly number[];
  /** Updates taken so far. */
  readonly updates: number;
  /** What else the rule remembers: vectors of one entry a domain. */
  readonly memory: Readonly<Record<string, readonly number[]>>;
}

export interface Rule {
  readonly name: string;
  /** What `update` needs; empty for fixed weights, which never need a measurement. */
  readonly needs: readonly SignalName[];
  /** Throws `config` when the options do not fit the domains. */
  init(domains: readonly string[]): RuleState;
  /** Throws `numeric`, naming the domain, when the signal is not finite; the given state is never changed. */
  update(state: RuleState, signal: Signal): RuleState;
}

/** The named part of the signal, checked to be there, of the right length and finite. */
export function need(
  rule: string,
  state: RuleState,
  signal: Signal,
  name: "alignments" | "norms" | "losses",
): Float64Array {
  const values = signal[name];
  if (values === undefined) throw new GradmixError("config", `${rule}: the signal has no ${name}`);
  if (values.length !== state.domains.length)
    throw new GradmixError("config", `${rule}: ${values.length} ${name} for ${state.domains.length} domains`);
  const out = Float64Array.from(values);
  const bad = out.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0)
    throw new GradmixError("numeric", `${rule}: ${name} of domain "${state.domains[bad]}" is ${out[bad]}; the weights stay as they are`);
  return out;
}

/** A state with fixed weights and no memory. */
export function fixedState(rule: string, domains: readonly string[], weights: ArrayLike<number>): RuleState {
  return { rule, domains: [...domains], weights: Array.from(weights), updates: 0, memory: {} };
}

/** Throws `config` unless lower ≤ value ≤ upper (or < with `open`). */
export function checkRange(
  field: string,
  value: number,
  range: { min: number; max: number; openMin?: boolean; openMax?: boolean },
): void {
  const { min, max, openMin = false, openMax = false } = range;
  const fits = (openMin ? value > min : value >= min) && (openMax ? value < max : value <= max);
  if (!fits || Number.isNaN(value)) {
    const low = openMin ? `more than ${min}` : `at least ${min}`;
    const high = max === Infinity ? "finite" : openMax ? `less than ${max}` : `at most ${max}`;
    throw new GradmixError("config", `${field}: ${value} is out of range; it must be ${low} and ${high}`);
  }
}
