/**
 * The one interface of update rules: pure functions on plain data.
 *
 * A rule makes a first state from the domains' names and turns a state and a signal into the next state. States are JSON; `weights` of
 * a state is what the sampler draws domains with. A new rule is a file in rules/ and a line in rules/index.ts; a combinator is a function
 * from rule to rule that keeps what it remembers beside the inner rule's memory.
 */
import { GradmixError } from "../errors.ts";
import { checkNames } from "../options.ts";

/** What was measured about the domains at one step; arrays have one entry a domain. */
export interface Signal {
  /** aᵢ = ⟨∇Lᵢ, ∇L_target⟩, of mean losses per token. */
  readonly alignments?: ArrayLike<number>;
  /** Of each aᵢ; null where it is not known. */
  readonly standardErrors?: readonly (number | null)[];
  /** ‖∇Lᵢ‖. */
  readonly norms?: ArrayLike<number>;
  /** ‖∇L_target‖. */
  readonly targetNorm?: number;
  /** Lᵢ, mean loss per token. */
  readonly losses?: ArrayLike<number>;
  readonly targetLoss?: number;
  /** ⟨∇Lᵢ, ∇L_target / (√v̂ + ε)⟩: the alignments of a step of Adam, whose second moments are v̂. */
  readonly preconditionedAlignments?: ArrayLike<number>;
  /** ‖∇L_target / (√v̂ + ε)‖. */
  readonly preconditionedTargetNorm?: number;
  /** ⟨∇Lᵢ, ∇Lⱼ⟩, row-major [k, k], symmetric. */
  readonly gram?: ArrayLike<number>;
  /** With several targets, one entry each: a_mi = ⟨∇Lᵢ, ∇L_m⟩ [k], ‖∇L_m‖, L_m, in the order the rule was told their names. */
  readonly targets?: readonly TargetSignal[];
  /** Lᵢ of a reference model on the same text, mean loss per token. */
  readonly referenceLosses?: ArrayLike<number>;
  /** Training tokens that each domain has given so far. */
  readonly tokensSeen?: ArrayLike<number>;
  /**
   * Counted tokens behind each domain's numbers; left out when all domains were measured. A domain with 0 was not: whatever stands in its
   * place in the other arrays is not looked at.
   */
  readonly tokens?: ArrayLike<number>;
}

/** What was measured of one of several targets. */
export interface TargetSignal {
  readonly name: string;
  readonly alignments: ArrayLike<number>;
  readonly norm: number;
  readonly loss: number;
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
  /** What else the rule remembers: vectors of finite numbers, whose names and lengths `init` fixes. */
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
  /**
   * What is wrong with the memory of a state that was read from a file (its names, its lengths and finite numbers are checked already), in
   * a few words; null when nothing is. Left out: any memory will do.
   */
  memoryFault?(memory: RuleState["memory"]): string | null;
}

/** Which domains the signal measured, or null for all of them. */
export function measuredDomains(rule: string, state: RuleState, signal: Signal): readonly boolean[] | null {
  if (signal.tokens === undefined) return null;
  const counts = Array.from(signal.tokens);
  checkLength(rule, state, counts.length, "tokens");
  const bad = counts.findIndex((count) => !Number.isFinite(count) || count < 0);
  if (bad >= 0) throw notUsable(rule, state, "tokens", bad, counts[bad]);
  return counts.every((count) => count > 0) ? null : counts.map((count) => count > 0);
}

/** The parts of a signal that hold a number a domain. */
export type DomainNumbers =
  "alignments" | "preconditionedAlignments" | "norms" | "losses" | "referenceLosses" | "tokensSeen";

/**
 * The named part of the signal, checked: there (else `config`), one value a domain, finite, and not negative if it is `norms` or
 * `tokensSeen` (else `numeric`). Domains that were not measured have 0.
 */
export function need(rule: string, state: RuleState, signal: Signal, name: DomainNumbers): Float64Array {
  const values = signal[name];
  if (values === undefined) throw new GradmixError("config", `${rule}: the signal has no ${name}`);
  checkLength(rule, state, values.length, name);
  const measured = name === "tokensSeen" ? null : measuredDomains(rule, state, signal);
  const out = Float64Array.from(values, (value, i) => (measured === null || measured[i] ? value : 0));
  const least = name === "norms" || name === "tokensSeen" ? 0 : -Infinity;
  const bad = out.findIndex((value) => !Number.isFinite(value) || value < least);
  if (bad >= 0) throw notUsable(rule, state, name, bad, out[bad]);
  return out;
}

/** The norm of the target's gradient, checked like `need`. */
export function needTargetNorm(
  rule: string,
  signal: Signal,
  name: "targetNorm" | "preconditionedTargetNorm" = "targetNorm",
): number {
  const norm = signal[name];
  if (norm === undefined) throw new GradmixError("config", `${rule}: the signal has no ${name}`);
  if (!Number.isFinite(norm) || norm < 0)
    throw new GradmixError(
      "numeric",
      `${rule}: the norm of the target's gradient is ${norm}; the weights stay as they are`,
    );
  return norm;
}

/** The Gram matrix of the domains' gradients, row-major [k, k], checked like `need`; entries of domains that were not measured are 0. */
export function needGram(rule: string, state: RuleState, signal: Signal): Float64Array {
  const { gram } = signal;
  const k = state.domains.length;
  if (gram === undefined) throw new GradmixError("config", `${rule}: the signal has no gram`);
  if (gram.length !== k * k)
    throw new GradmixError("config", `${rule}: a Gram matrix of ${gram.length} numbers for ${k} domains`);
  const measured = measuredDomains(rule, state, signal);
  const there = (i: number): boolean => measured === null || measured[i];
  const out = Float64Array.from(gram, (value, at) =>
    there(Math.floor(at / k)) && there(at % k) ? value : 0,
  );
  const bad = out.findIndex((value, at) => !Number.isFinite(value) || (at % (k + 1) === 0 && value < 0));
  if (bad >= 0) {
    const [i, j] = [state.domains[Math.floor(bad / k)], state.domains[bad % k]];
    throw new GradmixError(
      "numeric",
      `${rule}: gram of domains "${i}" and "${j}" is ${out[bad]}; the weights stay as they are`,
    );
  }
  return out;
}

function checkLength(rule: string, state: RuleState, length: number, name: string): void {
  const k = state.domains.length;
  if (length !== k) throw new GradmixError("config", `${rule}: ${length} ${name} for ${k} domains`);
}

function notUsable(rule: string, state: RuleState, name: string, i: number, value: number): GradmixError {
  return new GradmixError(
    "numeric",
    `${rule}: ${name} of domain "${state.domains[i]}" is ${value}; the weights stay as they are`,
  );
}

/** A state with fixed weights and no memory. */
export function fixedState(rule: string, domains: readonly string[], weights: ArrayLike<number>): RuleState {
  return { rule, domains: [...domains], weights: Array.from(weights), updates: 0, memory: {} };
}

/** Throws `config` for an option that the rule does not have, offering the nearest one. */
export function checkOptionNames(rule: string, options: object, known: readonly string[]): void {
  const names = Object.keys(options).filter((name) => name !== "name");
  checkNames(rule, names, known);
}
