/** The setup of a session (its domains, its rule and their options): the fields of `init`, checked and with defaults, and the mixer that is made of them. */
import { beginning, GradmixError, PlacedError } from "../errors.ts";
import { formatJson, isObject } from "../json.ts";
import { show } from "../options.ts";
import { firstRepeated } from "../repeated.ts";
import { combinatorsFrom } from "../dga/combinators/index.ts";
import type { RunFacts } from "../dga/facts.ts";
import { createMixer, type Mixer } from "../dga/mixer.ts";
import { ruleOptionsFrom } from "../dga/rules/index.ts";
import { unusedFacts } from "./unused-facts.ts";
import {
  anything,
  inside,
  integerFrom,
  list,
  converted,
  numberFrom,
  object,
  optional,
  plainObject,
  problem,
  read,
  type Schema,
  valueThat,
} from "../schema.ts";
import {
  allNumbersFor,
  byName,
  messageFault,
  MessageError,
  type Names,
  namesOf,
  numbersFor,
  pathOf,
} from "./fields.ts";

/** A setup as plain JSON. The names are those of the fields of `init`; null stands for a fact or an option that was left out. */
export interface Setup {
  readonly domains: readonly string[];
  /** Options of the rule, including its `name`. */
  readonly rule: Readonly<Record<string, unknown>>;
  readonly combinators: readonly unknown[];
  readonly sizes: Readonly<Record<string, number>> | null;
  readonly tokens: number | null;
  readonly histogram: Readonly<Record<string, number>> | null;
  readonly updateEvery: number | null;
  readonly updateAfter: number;
  /** Number of training steps that were taken before the session began. */
  readonly step: number;
}

export const setupFields: readonly (keyof Setup)[] = [
  "domains",
  "rule",
  "combinators",
  "sizes",
  "tokens",
  "histogram",
  "updateEvery",
  "updateAfter",
  "step",
];

/** The mixer and the names that are made of a setup. */
export interface Machine {
  readonly mixer: Mixer;
  readonly names: Names;
}

/** Machines by setup. Setups never change, so a machine stays valid. */
const machines = new WeakMap<Setup, Machine>();

/** The machine of a setup. Throws `MessageError`, naming the field, if the mixer cannot be made. */
export function machineOf(setup: Setup): Machine {
  const known = machines.get(setup);
  if (known !== undefined) return known;
  const { domains, rule, combinators, updateEvery, updateAfter } = setup;
  const facts = factsOf(setup);
  let mixer: Mixer;
  try {
    mixer = createMixer({
      domains,
      rule: ruleOptionsFrom(rule, facts),
      combinators: combinatorsFrom(combinators),
      ...facts,
      updateEvery: updateEvery ?? 1,
      updateAfter,
    });
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    const [field = "rule"] = error instanceof PlacedError ? error.place : [];
    throw new MessageError(field, error.message, { cause: error });
  }
  const machine = { mixer, names: namesOf(domains) };
  machines.set(setup, machine);
  return machine;
}

function factsOf({ sizes, tokens, histogram }: Setup): RunFacts {
  return {
    ...(sizes === null ? {} : { sizes }),
    ...(tokens === null ? {} : { tokens }),
    ...(histogram === null ? {} : { histogram }),
  };
}

/** The facts of a valid setup that have no effect, with the reasons. */
export function unusedOf(setup: Setup): { readonly field: string; readonly reason: string }[] {
  const { name } = ruleOptionsFrom(setup.rule, factsOf(setup));
  return unusedFacts(name, setup.rule, combinatorsFrom(setup.combinators), factsOf(setup)).map(
    ({ fact, reason }) => ({ field: fact, reason }),
  );
}

/** The setup that an `init` describes. Only `domains` is required. Throws `MessageError`, naming the field, for a field that does not fit. */
export function setupOf(message: Readonly<Record<string, unknown>>): Setup {
  const { domains } = read(object<Pick<Setup, "domains">>({ domains: domainNames }), message, messageFault);
  const partial = read(partFor(namesOf(domains)), message, messageFault);
  return {
    domains,
    rule: partial.rule ?? { name: "dga" },
    combinators: partial.combinators ?? [],
    sizes: partial.sizes ?? null,
    tokens: partial.tokens ?? null,
    histogram: partial.histogram ?? null,
    updateEvery: partial.updateEvery ?? null,
    updateAfter: partial.updateAfter ?? 0,
    step: partial.step ?? 0,
  };
}

const name: Schema<string> = valueThat(
  "a name",
  (value): value is string => typeof value === "string" && value !== "",
);

const domainNames: Schema<readonly string[]> = (value, at) => {
  const names = list(name)(value, at);
  if (names.length === 0) throw problem(at, "is empty; it must have at least one name");
  const repeated = firstRepeated(names);
  if (repeated >= 0)
    throw problem(inside(at, repeated), `is ${show(names[repeated])}, which is in the list twice`);
  return names;
};

/** Reads the fields of a setup that a message has; a field that is missing or null is left out. */
function partFor(names: Names): Schema<Partial<Setup>> {
  const positive = numberFrom(0, "open");
  const shares: Schema<Readonly<Record<string, number>>> = (value, at) => {
    const found = numbersFor(names, numberFrom(0))(value, at).map((share) => share || 0);
    if (!found.some((share) => share > 0))
      throw problem(at, "has no share above 0, so no domain could be drawn");
    return byName(names.list, found);
  };
  return object<Partial<Setup>>({
    domains: optional(domainNames),
    rule: optional(plainObject),
    combinators: optional(list(anything)),
    sizes: optional(converted(allNumbersFor(names, positive), (sizes) => byName(names.list, sizes))),
    tokens: optional(positive),
    histogram: optional(shares),
    updateEvery: optional(integerFrom(1)),
    updateAfter: optional(integerFrom(0)),
    step: optional(integerFrom(0)),
  });
}

/**
 * Throws `MessageError` for the first field of an `init` that contradicts `setup`. `steps` is the trainer's present step. `whose` is the
 * name of the setup's owner in the message: "the session" or "the state".
 */
export function checkAgrees(
  message: Readonly<Record<string, unknown>>,
  setup: Setup,
  steps: number,
  whose: string,
): void {
  const given = read(partFor(machineOf(setup).names), message, messageFault);
  for (const name of setupFields) {
    const value = given[name];
    if (value === undefined || canonical(value) === canonical(setup[name])) continue;
    // A trainer that continues may also send its present step.
    if (name === "step" && value === steps) continue;
    const was = name === "step" ? `${setup.step} (and is at ${steps} now)` : brief(setup[name]);
    throw new MessageError(
      firstDifference(name, value, setup[name]),
      `${whose} has ${was}, not ${brief(value)}; a session keeps the fields with which it began, so leave this one out or send the same value`,
    );
  }
}

/** The path of the first member in which two values of a field differ; the field itself if they are not objects. */
function firstDifference(name: string, one: unknown, other: unknown): string {
  if (!isObject(one) || !isObject(other)) return name;
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const key = keys.find((key) => canonical(one[key]) !== canonical(other[key]));
  return key === undefined ? name : pathOf(name, key);
}

const brief = (value: unknown): string => beginning(formatJson(value), 80);

/** JSON text with sorted members, so that values which differ only in the order of members have the same text. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (!isObject(value)) return JSON.stringify(value) ?? "null";
  const members = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members.join(",")}}`;
}
