/** What a session mixes and by which rule: the fields of `init`, checked and with their defaults, and the mixer that they make. */
import { GradmixError } from "../errors.ts";
import { formatJson, isObject } from "../json.ts";
import { combinatorsFrom } from "../dga/combinators/index.ts";
import type { RunFacts } from "../dga/facts.ts";
import { createMixer, type Mixer } from "../dga/mixer.ts";
import { ruleOptionsFrom } from "../dga/rules/index.ts";
import {
  allNumbersOf,
  byName,
  integerOf,
  MessageError,
  type Names,
  namesOf,
  numberOf,
  numbersOf,
  pathOf,
  shown,
} from "./fields.ts";

/** Plain JSON, with the names of `init`; what may be left out is null. */
export interface Setup {
  readonly domains: readonly string[];
  /** With its `name`. */
  readonly rule: Readonly<Record<string, unknown>>;
  readonly combinators: readonly unknown[];
  readonly sizes: Readonly<Record<string, number>> | null;
  readonly tokens: number | null;
  readonly histogram: Readonly<Record<string, number>> | null;
  readonly updateEvery: number | null;
  readonly updateAfter: number;
  /** Training steps that were taken before the session began. */
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

/** A setup with what is made of it once. */
export interface Machine {
  readonly mixer: Mixer;
  readonly names: Names;
}

/** Setups never change, so that what is made of one holds for as long as there is one. */
const machines = new WeakMap<Setup, Machine>();

/** Throws for a rule that cannot be made of the options, naming the field. */
export function machineOf(setup: Setup): Machine {
  const known = machines.get(setup);
  if (known !== undefined) return known;
  const { domains, rule, combinators, sizes, tokens, histogram, updateEvery, updateAfter } = setup;
  const facts: RunFacts = {
    ...(sizes === null ? {} : { sizes }),
    ...(tokens === null ? {} : { tokens }),
    ...(histogram === null ? {} : { histogram }),
  };
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
    const place = /^(combinators)\b|^domains\b/.exec(error.message)?.[0] ?? "rule";
    throw new MessageError(place, error.message, { cause: error });
  }
  const machine = { mixer, names: namesOf(domains) };
  machines.set(setup, machine);
  return machine;
}

/** The setup that an `init` with at least `domains` describes. */
export function setupOf(message: Readonly<Record<string, unknown>>): Setup {
  const domains = domainsOf(message["domains"]);
  const names = namesOf(domains);
  const partial = partOf(message, names);
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

/** Those fields of a setup that a message gives, checked. null is what was not given, in all but the state's own. */
function partOf(message: Readonly<Record<string, unknown>>, names: Names): Partial<Setup> {
  const field = <T>(name: keyof Setup, read: (value: unknown) => T): { [K in typeof name]?: T } => {
    const value = message[name];
    return value === undefined || value === null ? {} : { [name]: read(value) };
  };
  return {
    ...field("domains", domainsOf),
    ...field("rule", (value) => {
      if (!isObject(value))
        throw new MessageError("rule", `${shown(value)} is not an object with a name and options`);
      return value;
    }),
    ...field("combinators", (value) => {
      if (!Array.isArray(value))
        throw new MessageError("combinators", `${shown(value)} is not a list of objects`);
      return value as readonly unknown[];
    }),
    ...field("sizes", (value) =>
      byName(names.list, allNumbersOf(value, "sizes", names, { min: 0, openMin: true })),
    ),
    ...field("tokens", (value) => numberOf(value, "tokens", { min: 0, openMin: true })),
    ...field("histogram", (value) => {
      const shares = numbersOf(value, "histogram", names, { min: 0 }).map((share) => share || 0);
      if (!shares.some((share) => share > 0))
        throw new MessageError("histogram", "all shares are 0, so that no domain could be drawn");
      return byName(names.list, shares);
    }),
    ...field("updateEvery", (value) => integerOf(value, "updateEvery", 1)),
    ...field("updateAfter", (value) => integerOf(value, "updateAfter", 0)),
    ...field("step", (value) => integerOf(value, "step", 0)),
  } as Partial<Setup>;
}

function domainsOf(value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.length === 0)
    throw new MessageError(
      "domains",
      value === undefined
        ? "it is missing; it is a list of names"
        : `${shown(value)} is not a list of at least one name`,
    );
  const places = new Map<string, number>();
  for (const [i, name] of value.entries()) {
    if (typeof name !== "string" || name === "")
      throw new MessageError(`domains.${i}`, `${shown(name)} is not a name`);
    if (places.has(name)) throw new MessageError(`domains.${i}`, `${shown(name)} stands there twice`);
    places.set(name, i);
  }
  return [...places.keys()];
}

/**
 * Throws at the first field of an `init` that says something else than `setup`, at which a session stands that has taken `steps` steps. `whose` is what the
 * message calls the setup.
 */
export function checkAgrees(
  message: Readonly<Record<string, unknown>>,
  setup: Setup,
  steps: number,
  whose: string,
): void {
  const given = partOf(message, machineOf(setup).names);
  for (const name of setupFields) {
    const value = given[name];
    if (value === undefined || canonical(value) === canonical(setup[name])) continue;
    // A trainer that goes on may say where it is.
    if (name === "step" && value === steps) continue;
    const was = name === "step" ? `${setup.step}, and is at ${steps} now` : brief(setup[name]);
    throw new MessageError(
      firstDifference(name, value, setup[name]),
      `${whose} has ${was}, not ${brief(value)}; it goes on as it began, and what is left out stays`,
    );
  }
}

function firstDifference(name: string, one: unknown, other: unknown): string {
  if (!isObject(one) || !isObject(other)) return name;
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const key = keys.find((key) => canonical(one[key]) !== canonical(other[key]));
  return key === undefined ? name : pathOf(name, key);
}

const brief = (value: unknown): string => {
  const text = formatJson(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
};

/** JSON in which the order of members does not show. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (!isObject(value)) return JSON.stringify(value) ?? "null";
  const members = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${members.join(",")}}`;
}
