/**
 * Checks of rules and of the states that they make. A rule can be a user's own, in a program without types, so that what it returns is checked before
 * weights are drawn from it: a state that passes is one that `restoreMixer` accepts.
 */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { nearest } from "../nearest.ts";
import { callback, oneOf, type OptionChecks, show, valueThat } from "../options.ts";
import type { ChangeStep, Rule, RuleState, Signal, SignalName } from "./rule.ts";
import { liesOnSimplex, sumOf } from "./simplex.ts";

/** One member per name, so that a name that is added to the type without a line here does not compile. */
const signalNames: readonly string[] = Object.keys({
  alignments: true,
  standardErrors: true,
  norms: true,
  targetNorm: true,
  losses: true,
  targetLoss: true,
  preconditionedAlignments: true,
  preconditionedTargetNorm: true,
  gram: true,
  targets: true,
  referenceLosses: true,
  tokensSeen: true,
  heldOutLosses: true,
  tokens: true,
} satisfies Record<SignalName, true>);

/** What a signal may contain: what rules may ask for, and what is supplied beside it. */
const ofSignals: ReadonlySet<string> = new Set([
  ...signalNames,
  // The last two are parts of what estimators return.
  ...["targetExamples", "heldOutReferences", "heldOutErrors", "effectiveSizes", "tied"],
]);

/** Throws `config` for something other than a signal, and for a name that no signal has: a misspelt measurement would count as missing. */
export function checkSignal(signal: unknown): void {
  if (!isObject(signal))
    throw new GradmixError("config", `update: the signal is ${show(signal)}, not an object`);
  const strange = Object.keys(signal).find((name) => !ofSignals.has(name));
  if (strange === undefined) return;
  const close = nearest(strange, ofSignals);
  throw new GradmixError(
    "config",
    `update: the signal has ${show(strange)}, which is no measurement; ${close === null ? `there are ${[...ofSignals].join(", ")}` : `did you mean ${close}?`}`,
  );
}

const signalName = oneOf(...signalNames);
const schedule = valueThat("an object", isObject);
const list = valueThat("a list of parts of the signal", (value) => Array.isArray(value));

const members: OptionChecks<Rule> = {
  name: valueThat(
    "a string with at least one character",
    (value) => typeof value === "string" && value !== "",
  ),
  needs(name, value) {
    list(name, value);
    if (Array.isArray(value)) value.forEach((one) => signalName(name, one));
  },
  init: callback,
  update: callback,
  stepsOn: signalName,
  schedule,
  targets: valueThat(
    "a list of names",
    (value) => Array.isArray(value) && value.every((name) => typeof name === "string"),
  ),
  memoryFault: callback,
};

const optional: ReadonlySet<string> = new Set(["stepsOn", "schedule", "targets", "memoryFault"]);

/** Whether a value is meant as a rule and not as options of a rule: it has one of the functions of a rule. */
export function isRule(value: object): value is Rule {
  return "update" in value || "init" in value;
}

/** Throws `config`, naming `where` and the member, unless the value has the members of a rule. A rule may have further members. */
export function checkRuleMembers(where: string, value: unknown): asserts value is Rule {
  if (typeof value !== "object" || value === null)
    throw new GradmixError("config", `${where}: ${show(value)} is not a rule, which is an object`);
  for (const [name, check] of Object.entries(members)) {
    const member: unknown = Reflect.get(value, name);
    if (member !== undefined) check(`${where}: ${name}`, member);
    else if (!optional.has(name))
      throw new GradmixError(
        "config",
        `${where}: ${name} is missing; a rule has name, needs, init and update`,
      );
  }
}

/** The checked initial state. The rule gets a list of its own, so that it can do with it what it likes. */
export function initialOf(rule: Rule, domains: readonly string[]): RuleState {
  return checkedState(rule, rule.init([...domains]), "init", domains, null);
}

/** The checked state after an update. The rule gets a copy of the state, so that a rule that changes it cannot change the past. */
export function updatedBy(rule: Rule, state: RuleState, signal: Signal, change?: ChangeStep): RuleState {
  const made = rule.update(copyOf(state), signal, change);
  return checkedState(rule, made, "update", state.domains, state.memory);
}

function copyOf(state: RuleState): RuleState {
  const memory = Object.entries(state.memory).map(([name, values]) => [name, [...values]] as const);
  return {
    ...state,
    domains: [...state.domains],
    weights: [...state.weights],
    memory: Object.fromEntries(memory),
  };
}

const stateMembers: readonly string[] = Object.keys({
  rule: true,
  domains: true,
  weights: true,
  updates: true,
  memory: true,
} satisfies Record<keyof RuleState, true>);

/**
 * Returns what `init` or `update` of a rule made or, with "given", what a user passed on, if it is a state for these domains. `memory` is a memory of
 * the rule, whose names and lengths have to stay; null for `init`, which fixes them. Throws `config` for anything else; not `numeric`, which a trainer explains by the learning rate.
 */
export function checkedState(
  { name }: Rule,
  made: unknown,
  by: "init" | "update" | "given",
  domains: readonly string[],
  memory: RuleState["memory"] | null,
): RuleState {
  const refuse = (what: string): GradmixError =>
    new GradmixError(
      "config",
      by === "given"
        ? `update: the state of the rule "${name}" cannot be used: ${what}; pass mixer.initial, or what update or restoreMixer returned`
        : `rule "${name}": ${by} returned ${what}`,
    );
  if (!isState(made)) {
    const kind = isObject(made) && typeof made["then"] === "function" ? "a promise" : show(made);
    throw refuse(
      `${kind}, not a state, which has rule, domains, weights, updates and memory; ${by === "init" ? "initialState makes one" : "return { ...state, weights, updates: state.updates + 1 }"}`,
    );
  }
  const stranger = Object.keys(made).find((member) => !stateMembers.includes(member));
  if (stranger !== undefined)
    throw refuse(
      `a state with ${show(stranger)}, which is not saved with it; a state has ${stateMembers.join(", ")}, and memory holds lists of numbers`,
    );
  if (made.rule !== name) throw refuse(`a state of the rule ${show(made.rule)}; its rule must be "${name}"`);
  if (made.domains.length !== domains.length || domains.some((domain, i) => made.domains[i] !== domain))
    throw refuse("a state of other domains, or in another order");
  if (!Number.isSafeInteger(made.updates) || made.updates < 0)
    throw refuse(`a state whose updates are ${show(made.updates)}, not a whole number of at least 0`);
  checkWeights(made.weights, domains, refuse);
  const names = memory === null ? null : Object.keys(memory);
  if (names !== null && Object.keys(made.memory).length !== names.length)
    throw refuse(`a memory with ${listed(Object.keys(made.memory))}; that of init has ${listed(names)}`);
  for (const one of names ?? Object.keys(made.memory)) {
    const values: unknown = made.memory[one];
    if (!Array.isArray(values))
      throw refuse(
        `a memory whose "${one}" is ${show(values)}, not a list of numbers (Array.from makes one)`,
      );
    const length = memory?.[one]?.length ?? values.length;
    if (values.length !== length)
      throw refuse(`a memory whose "${one}" has ${values.length} numbers; init gave it ${length}`);
    const bad = values.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0)
      throw refuse(`a memory whose "${one}" has ${show(values[bad])} at ${bad}; numbers are finite`);
  }
  return made;
}

function isState(made: unknown): made is RuleState {
  return (
    isObject(made) &&
    Array.isArray(made["domains"]) &&
    made["weights"] !== undefined &&
    "rule" in made &&
    "updates" in made &&
    isObject(made["memory"])
  );
}

function checkWeights(
  weights: unknown,
  domains: readonly string[],
  refuse: (what: string) => GradmixError,
): void {
  if (!Array.isArray(weights))
    throw refuse(`weights that are ${show(weights)}, not a list of numbers (Array.from makes one)`);
  if (weights.length !== domains.length)
    throw refuse(`${weights.length} weights for ${domains.length} domains`);
  const numbers: readonly unknown[] = weights;
  const bad = numbers.findIndex(
    (weight) => typeof weight !== "number" || !(weight >= 0 && weight < Infinity),
  );
  if (bad >= 0)
    throw refuse(
      `a weight of ${show(numbers[bad])} for domain "${domains[bad]}"; weights are finite and ≥ 0`,
    );
  if (!liesOnSimplex(weights)) throw refuse(`weights that sum to ${sumOf(weights)}, not to 1`);
}

const listed = (names: readonly string[]): string =>
  names.length === 0 ? "no vector" : names.map((name) => `"${name}"`).join(", ");
