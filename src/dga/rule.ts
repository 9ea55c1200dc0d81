/**
 * The interface of update rules: pure functions on plain data.
 *
 * A rule makes an initial state from the names of the domains and turns a state and a signal into the next state. States are JSON; the sampler draws
 * domains with the `weights` of a state. A new rule is a file in rules/ and a line in rules/index.ts; a combinator is a function from rule to rule
 * that keeps its own memory beside that of the inner rule.
 */
import { GradmixError, PlacedError } from "../errors.ts";
import { describe, hasMembers, isNumberList, numberList, show } from "../options.ts";
import { firstRepeated } from "../repeated.ts";

/** What was measured about the domains at one step; arrays have one entry per domain. */
export interface Signal {
  /** aᵢ = ⟨∇Lᵢ, ∇L_target⟩, where L are mean losses per token. */
  readonly alignments?: ArrayLike<number>;
  /** Standard error of each aᵢ; null if it is unknown. */
  readonly standardErrors?: readonly (number | null)[];
  /** ‖∇Lᵢ‖, the norm of each domain's gradient. */
  readonly norms?: ArrayLike<number>;
  /** ‖∇L_target‖, the norm of the target's gradient. */
  readonly targetNorm?: number;
  /** Lᵢ, the mean loss per token of each domain, in nats. */
  readonly losses?: ArrayLike<number>;
  /** L_target, the mean loss per token of the target, in nats. */
  readonly targetLoss?: number;
  /** ⟨∇Lᵢ, ∇L_target / (√v̂ + ε)⟩: the alignments with a step of Adam, whose second moments are v̂. */
  readonly preconditionedAlignments?: ArrayLike<number>;
  /** ‖∇L_target / (√v̂ + ε)‖, the norm of the preconditioned target gradient. */
  readonly preconditionedTargetNorm?: number;
  /** ⟨∇Lᵢ, ∇Lⱼ⟩, row-major [k, k], symmetric. */
  readonly gram?: ArrayLike<number>;
  /** Measurements with several targets, one entry per target: a_mi = ⟨∇Lᵢ, ∇L_m⟩ [k], ‖∇L_m‖ and L_m, in the order of the rule's option `targets`. */
  readonly targets?: readonly TargetSignal[];
  /** Mean loss per token of a reference model on the same text, per domain. */
  readonly referenceLosses?: ArrayLike<number>;
  /** Number of examples of the target; its gradient is measured on a sample of them. */
  readonly targetExamples?: number;
  /** Training tokens drawn from each domain so far. */
  readonly tokensSeen?: ArrayLike<number>;
  /**
   * Mean loss per token on held-out text of each domain, the same text every time; null for a domain whose text is not measured. Only present in
   * updates that measured it.
   */
  readonly heldOutLosses?: readonly (number | null)[];
  /** Reference of each of the `heldOutLosses`, on the same text; null, or left out, if there is none. */
  readonly heldOutReferences?: readonly (number | null)[];
  /** Standard error of heldOutLosses[i] − heldOutReferences[i], paired by example; null, or left out, if it is unknown. */
  readonly heldOutErrors?: readonly (number | null)[];
  /**
   * Counted tokens behind each domain's numbers; left out if all domains were measured. A domain with 0 was not measured: its entries in the other
   * arrays, in its row and column of `gram` and in `standardErrors` are ignored. `tokensSeen` is a count of the run, not a measurement, and is valid
   * for all domains.
   */
  readonly tokens?: ArrayLike<number>;
}

/** Measurements with one of several targets. */
export interface TargetSignal {
  /** Name of the target. */
  readonly name: string;
  /** ⟨∇Lᵢ, ∇L_target⟩, one entry per domain [k]. */
  readonly alignments: ArrayLike<number>;
  /** ‖∇L_target‖, the norm of the target's gradient. */
  readonly norm: number;
  /** L_target, the mean loss per token. */
  readonly loss: number;
}

/** The parts of a signal that a rule may request. The others are supplied whenever they are known. */
export type SignalName = Exclude<keyof Signal, "targetExamples" | "heldOutReferences" | "heldOutErrors">;

/** State of a rule: plain JSON. `update` returns a new state and never changes the given one. */
export interface RuleState {
  /** Name of the rule. */
  readonly rule: string;
  /** Names of the domains, in the order of the weights. */
  readonly domains: readonly string[];
  /** The weights to sample with; they lie on the simplex. */
  readonly weights: readonly number[];
  /** Updates taken so far. */
  readonly updates: number;
  /** Everything else that the rule remembers: vectors of finite numbers, whose names and lengths `init` determines. */
  readonly memory: Readonly<Record<string, readonly number[]>>;
}

/** The mirror step α ← α ⊙ exp(η·direction) that a rule is about to take. */
export interface Step {
  /** Step size η ≥ 0. */
  readonly eta: number;
  /** Direction of the step, one entry per domain; NaN for domains that do not take part. */
  readonly direction: Float64Array;
  /** Which domains take part; null means all. The others keep their weights. */
  readonly among: readonly boolean[] | null;
  /**
   * Computes the standard error of direction[i] from that of the alignment behind it; null if it has none (a zero gradient has no cosine). Only for
   * rules that step on alignments with one target.
   */
  readonly errorOf?: (i: number, standardError: number) => number | null;
}

/** A function with which a combinator changes a step. */
export type ChangeStep = (step: Step) => Step;

/** How often a rule wants to update, and what it wants to have measured of training steps. What is left out has the usual default. */
export interface RuleSchedule {
  /** Training steps between two updates. */
  readonly updateEvery?: number;
  /** Training steps between two steps whose examples are measured. */
  readonly measureEvery?: number;
  /** The largest number of domains per update that are measured although the steps hardly draw them; in proportion fewer if updates come more often. */
  readonly probes?: number;
  /** Share of the model's blocks, the last ones, whose gradients are aligned; see `AlignmentOptions`. */
  readonly blockShare?: number;
}

/** A rule that moves the weights of domains: two pure functions on plain JSON. */
export interface Rule {
  /** Name of the rule; states of the rule carry it. */
  readonly name: string;
  /** The parts of the signal that `update` needs; empty for fixed weights, which never need a measurement. */
  readonly needs: readonly SignalName[];
  /** Makes the initial state. Throws `config` if the options do not fit the domains. */
  init(domains: readonly string[]): RuleState;
  /**
   * Computes the next state from a signal; the given state is never changed. A rule with `stepsOn` passes its step through `change`, if that is
   * given, and takes the returned step. Throws `numeric`, naming the domain, for a signal that is not finite.
   */
  update(state: RuleState, signal: Signal, change?: ChangeStep): RuleState;
  /**
   * The part of the signal from which the direction of the mirror step is computed. Left out if the rule takes no such step, or none that combinators
   * can change.
   */
  readonly stepsOn?: SignalName;
  /** The schedule that the rule's constants are meant for. A mixer and a trainer follow it where their own options say nothing. Left out if any schedule suits. */
  readonly schedule?: RuleSchedule;
  /** Names of the targets, in the order of `signal.targets`, of a rule with several. A trainer checks its targets by them, and a saved state has them. */
  readonly targets?: readonly string[];
  /**
   * Describes in a few words what is invalid in the memory of a saved state, or returns null. The names, the lengths and that the numbers are finite
   * have been checked before. Left out if any memory is valid.
   */
  memoryFault?(memory: RuleState["memory"]): string | null;
}

/** The named vector of a rule's memory. Throws `config` if there is none, because the state does not belong to this rule. */
export function remembered(rule: string, memory: RuleState["memory"], name: string): readonly number[] {
  const values = memory[name];
  if (values === undefined)
    throw new GradmixError(
      "config",
      `${rule}: the memory of the state has no "${name}"; pass \`update\` a state made by \`init\` or \`update\` of the same rule`,
    );
  return values;
}

/** Throws `config` for something other than the state of a rule. */
export function wantState(rule: string, state: RuleState): void {
  const given: unknown = state;
  if (
    typeof given !== "object" ||
    given === null ||
    !(
      "domains" in given &&
      Array.isArray(given.domains) &&
      "weights" in given &&
      Array.isArray(given.weights) &&
      "memory" in given &&
      hasMembers(given.memory)
    )
  )
    throw new GradmixError(
      "config",
      `${rule}: ${show(given)} is not the state of a rule; pass what its init or its update returned`,
    );
}

/** Throws `config` for something other than a signal. */
function wantSignal(rule: string, signal: Signal): void {
  const given: unknown = signal;
  if (typeof given !== "object" || given === null)
    throw new GradmixError("config", `${rule}: the signal is ${show(given)}, not an object`);
}

/** Which domains the signal measured; null means all. */
export function measuredDomains(rule: string, state: RuleState, signal: Signal): readonly boolean[] | null {
  wantState(rule, state);
  wantSignal(rule, signal);
  if (signal.tokens === undefined) return null;
  const counts = numbers(rule, state, signal.tokens, "tokens", null);
  const bad = counts.findIndex((count) => count < 0);
  if (bad >= 0) throw notUsable(rule, state, "tokens", bad, counts[bad]);
  return counts.every((count) => count > 0) ? null : Array.from(counts, (count) => count > 0);
}

/** The parts of a signal with one number per domain. */
export type DomainNumbers =
  "alignments" | "preconditionedAlignments" | "norms" | "losses" | "referenceLosses" | "tokensSeen";

/**
 * The named part of the signal, checked: present (else `config`), one value per domain, finite, and not negative for `norms` and `tokensSeen` (else
 * `numeric`). Domains that were not measured have NaN, so that they cannot be mistaken for numbers: see `within`.
 */
export function need(rule: string, state: RuleState, signal: Signal, name: DomainNumbers): Float64Array {
  wantState(rule, state);
  const measured = name === "tokensSeen" ? null : measuredDomains(rule, state, signal);
  const out = numbers(rule, state, partOf(rule, signal, name), name, measured);
  if (name !== "norms" && name !== "tokensSeen") return out;
  const bad = out.findIndex((value) => value < 0);
  if (bad >= 0) throw notUsable(rule, state, name, bad, out[bad]);
  return out;
}

/** The norm of the target's gradient, checked like the parts that `need` returns. */
export function needTargetNorm(
  rule: string,
  signal: Signal,
  name: "targetNorm" | "preconditionedTargetNorm" = "targetNorm",
): number {
  const norm: unknown = partOf(rule, signal, name);
  if (typeof norm !== "number" || !Number.isFinite(norm) || norm < 0)
    throw new GradmixError(
      "numeric",
      `${rule}: ${name}, the norm of the target's gradient, is ${show(norm)}; the weights stay as they are`,
    );
  return norm;
}

/** The largest difference between the two halves of a Gram matrix, relative to the product of the two norms, that rounding in single precision explains. */
const ASYMMETRY = 1e-3;

/**
 * The Gram matrix of the domains' gradients, row-major [k, k], checked like the parts that `need` returns; NaN in the rows and columns of unmeasured
 * domains.
 */
export function needGram(rule: string, state: RuleState, signal: Signal): Float64Array {
  wantState(rule, state);
  const k = state.domains.length;
  const gram: unknown = partOf(rule, signal, "gram");
  if (!isNumberList(gram))
    throw new GradmixError("config", `${rule}: gram is ${show(gram)}, not a list of numbers`);
  if (gram.length !== k * k)
    throw new GradmixError("config", `${rule}: a Gram matrix of ${gram.length} numbers for ${k} domains`);
  const measured = measuredDomains(rule, state, signal);
  const out = new Float64Array(k * k).fill(NaN);
  const invalid = (i: number, j: number, what: string): GradmixError =>
    new PlacedError(
      "numeric",
      `${rule}: gram of domains "${state.domains[i]}" and "${state.domains[j]}" is ${what}; the weights stay as they are`,
      ["gram", state.domains[i]!],
    );
  const indices = state.domains.map((_, i) => i).filter((i) => measured === null || measured[i]);
  for (const i of indices)
    for (const j of indices) {
      const value = gram[i * k + j];
      if (typeof value !== "number" || !Number.isFinite(value) || (i === j && value < 0))
        throw invalid(i, j, show(value));
      out[i * k + j] = value;
    }
  for (const i of indices)
    for (const j of indices) {
      const [upper, lower] = [out[i * k + j]!, out[j * k + i]!];
      // The square roots are taken first: products of huge entries overflow.
      const largest = Math.sqrt(out[i * (k + 1)]!) * Math.sqrt(out[j * (k + 1)]!);
      if (Math.abs(upper / 2 - lower / 2) > ASYMMETRY * largest)
        throw invalid(i, j, `${upper} and in the transposed entry ${lower}; it must be symmetric`);
    }
  return out;
}

/**
 * The standard errors of the alignments, checked: present (else `config`), each null (unknown) or finite and not negative (else `numeric`). null for
 * domains that were not measured.
 */
export function needErrors(rule: string, state: RuleState, signal: Signal): (number | null)[] {
  wantState(rule, state);
  const errors: unknown = partOf(rule, signal, "standardErrors");
  checkList(rule, state, errors, "standardErrors");
  const measured = measuredDomains(rule, state, signal);
  return state.domains.map((_, i) => {
    const error = errors[i];
    if (error === null || (measured !== null && !measured[i])) return null;
    if (typeof error !== "number" || !Number.isFinite(error) || error < 0)
      throw notUsable(rule, state, "standardErrors", i, error);
    return error;
  });
}

/** The held-out part of a signal, checked; null per domain for what is unknown. */
export interface HeldOutNumbers {
  /** Held-out loss of each domain, mean per token. */
  readonly losses: readonly (number | null)[];
  /** Reference of each loss. */
  readonly references: readonly (number | null)[];
  /** Standard error of each difference between loss and reference. */
  readonly errors: readonly (number | null)[];
}

/**
 * The held-out losses of a signal with their references and errors; null for a signal without them. Throws `config` for lists of another length, and
 * `numeric`, naming the domain, for an entry that is neither null nor finite and at least 0.
 */
export function heldOutNumbers(rule: string, state: RuleState, signal: Signal): HeldOutNumbers | null {
  wantState(rule, state);
  wantSignal(rule, signal);
  const { heldOutLosses, heldOutReferences, heldOutErrors } = signal;
  if (heldOutLosses === undefined) return null;
  const entriesOf = (values: unknown, name: string): (number | null)[] => {
    if (values === undefined) return state.domains.map(() => null);
    checkList(rule, state, values, name);
    return state.domains.map((_, i) => {
      const value = values[i];
      if (value === null) return null;
      if (typeof value !== "number" || !Number.isFinite(value) || value < 0)
        throw notUsable(rule, state, name, i, value);
      return value;
    });
  };
  return {
    losses: entriesOf(heldOutLosses, "heldOutLosses"),
    references: entriesOf(heldOutReferences, "heldOutReferences"),
    errors: entriesOf(heldOutErrors, "heldOutErrors"),
  };
}

/** The named part of the signal. Throws `config` if the signal does not have it. */
function partOf<N extends SignalName>(rule: string, signal: Signal, name: N): NonNullable<Signal[N]> {
  wantSignal(rule, signal);
  const value = signal[name];
  if (value === undefined || value === null)
    throw new GradmixError("config", `${rule}: the signal has no ${name}`);
  return value;
}

function checkList(
  rule: string,
  state: RuleState,
  values: unknown,
  name: string,
): asserts values is ArrayLike<unknown> {
  const k = state.domains.length;
  if (!isNumberList(values))
    throw new GradmixError("config", `${rule}: ${name} is ${show(values)}, not a list of numbers`);
  if (values.length !== k)
    throw new GradmixError("config", `${rule}: ${values.length} ${name} for ${k} domains`);
}

/**
 * One finite number per measured domain, and NaN for the others. Signals may come from files, where NaN is written as null. `place` names the members
 * of the signal on the way to the values.
 */
export function numbers(
  rule: string,
  state: RuleState,
  values: unknown,
  name: string,
  measured: readonly boolean[] | null,
  place: readonly string[] = [name],
): Float64Array {
  checkList(rule, state, values, name);
  return Float64Array.from(state.domains, (_, i) => {
    const value = values[i];
    if (measured !== null && !measured[i]) return NaN;
    if (typeof value !== "number" || !Number.isFinite(value))
      throw notUsable(rule, state, name, i, value, place);
    return value;
  });
}

function notUsable(
  rule: string,
  state: RuleState,
  name: string,
  i: number,
  value: unknown,
  place: readonly string[] = [name],
): PlacedError {
  const domain = state.domains[i]!;
  return new PlacedError(
    "numeric",
    `${rule}: ${name} of domain "${domain}" is ${show(value)}; the weights stay as they are`,
    [...place, domain],
  );
}

/** The initial state of a rule, on the simplex. Throws `config` unless there is at least one domain and all names are different. */
export function initialState(
  rule: string,
  domains: readonly string[],
  weights: ArrayLike<number>,
  memory: Readonly<Record<string, ArrayLike<number>>> = {},
): RuleState {
  checkDomains(domains);
  numberList(`rule "${rule}": initialState: weights`, weights);
  if (!hasMembers(memory))
    throw new GradmixError(
      "config",
      `rule "${rule}": initialState: memory: ${describe(memory)} is not an object`,
    );
  for (const [name, values] of Object.entries(memory))
    numberList(`rule "${rule}": initialState: memory: ${name}`, values);
  return {
    rule,
    domains: [...domains],
    weights: Array.from(weights),
    updates: 0,
    memory: Object.fromEntries(Object.entries(memory).map(([name, values]) => [name, Array.from(values)])),
  };
}

/** Throws `config` unless there is at least one domain, all names are strings and all are different. */
export function checkDomains(domains: readonly string[]): void {
  const given: unknown = domains;
  if (!Array.isArray(given) || given.some((name) => typeof name !== "string"))
    throw new GradmixError("config", `domains: ${show(given)} does not fit; it must be a list of names`);
  if (domains.length === 0) throw new GradmixError("config", "domains: at least one is needed");
  const repeated = firstRepeated(domains);
  if (repeated >= 0) throw new GradmixError("config", `domains: two are called "${domains[repeated]}"`);
}
