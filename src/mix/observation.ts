/** Turns an `observe` message into the signal of a rule: which domains were measured, which fields the rule uses, and which it ignores. */
import { createHash } from "node:crypto";
import type { Rule, Signal, SignalName, TargetSignal } from "../dga/rule.ts";
import {
  closed,
  count,
  inside,
  integerFrom,
  map,
  number,
  numberFrom,
  object,
  optional,
  problem,
  read,
  type Schema,
} from "../schema.ts";
import {
  allNumbersFor,
  messageFault,
  MessageError,
  type Names,
  namesOf,
  numbersFor,
  pathOf,
  placeOf,
} from "./fields.ts";
import { dot, type SentSketches, sketchesFor } from "./sketches.ts";
import { gramFor } from "./gram.ts";

/** A field of a message that had no effect, and the reason. */
export interface Ignored {
  readonly field: string;
  readonly reason: string;
}

/** An `observe` message after all checks. */
export interface Observation {
  readonly step: number;
  /** The signal for the rule; null if no value that the rule needs was measured. */
  readonly signal: Signal | null;
  /** Number of domains for which all values that the rule needs were measured. */
  readonly measured: number;
  readonly ignored: readonly Ignored[];
  /** SHA-256 of the fields of the message; equal messages have equal digests. */
  readonly digest: string;
}

/** Fields of an `observe` message that contain measurements. */
export const measurementFields: readonly string[] = [
  "alignments",
  "standardErrors",
  "norms",
  "targetNorm",
  "targetExamples",
  "losses",
  "targetLoss",
  "referenceLosses",
  "tokens",
  "tokensSeen",
  "gram",
  "gramDomains",
  "sketches",
  "targets",
  "preconditionedAlignments",
  "preconditionedTargetNorm",
  "heldOutLosses",
  "heldOutReferences",
  "heldOutErrors",
];

const perDomain = [
  "alignments",
  "preconditionedAlignments",
  "norms",
  "losses",
  "referenceLosses",
] as const satisfies readonly SignalName[];
type PerDomain = (typeof perDomain)[number];

/** Fields about held-out text. A domain is missing if its held-out text was not evaluated, whether or not its other values were measured. */
const heldOut = ["heldOutLosses", "heldOutReferences", "heldOutErrors"] as const;
type HeldOut = (typeof heldOut)[number];

const numbers = [
  "targetNorm",
  "preconditionedTargetNorm",
  "targetLoss",
] as const satisfies readonly SignalName[];
type Single = (typeof numbers)[number];

/** The measurements of a message. Fields that the message leaves out are missing or null. Inside an array, NaN means that the value was not measured. */
interface Measurements {
  readonly step: number;
  readonly values: ReadonlyMap<PerDomain, Float64Array>;
  readonly singles: ReadonlyMap<Single, number>;
  readonly heldOut: ReadonlyMap<HeldOut, Float64Array>;
  readonly standardErrors: Float64Array | null;
  readonly tokens: Float64Array | null;
  readonly tokensSeen: Float64Array | null;
  readonly gram: Float64Array | null;
  readonly targets: readonly TargetSignal[] | null;
  readonly targetExamples: number | null;
  /** Names of the measurement fields that the message has. */
  readonly given: readonly string[];
  /** Signals that were computed from the sketches. */
  readonly sketched: readonly SignalName[];
}

/**
 * Reads an `observe` message. `targets` are the names of the rule's targets, in its order. Throws `MessageError`, naming the field, for a message that cannot
 * be used.
 */
export function observationOf(
  message: Readonly<Record<string, unknown>>,
  rule: Rule,
  names: Names,
  targets: readonly string[],
): Observation {
  const measurements = measurementsOf(message, rule, names, targets);
  const { signal, measured, ignored } = signalOf(measurements, rule, names);
  return { step: measurements.step, signal, measured, ignored, digest: digestOf(measurements) };
}

/** The measurement fields of a message, each checked on its own. */
type Sent = Partial<Record<PerDomain | HeldOut | "standardErrors" | "tokens" | "tokensSeen", Float64Array>> &
  Partial<Record<Single, number>> & {
    readonly step: number;
    readonly targetExamples?: number;
    readonly gram: Float64Array | null;
    readonly sketches?: SentSketches;
    readonly targets?: readonly TargetSignal[];
  };

function measurementSchema(rule: Rule, names: Names, targets: readonly string[]): Schema<Sent> {
  const [finite, notNegative] = [optional(numbersFor(names)), optional(numbersFor(names, numberFrom(0)))];
  const fields = object<Omit<Sent, "gram">>({
    step: count,
    alignments: finite,
    preconditionedAlignments: finite,
    norms: notNegative,
    losses: finite,
    referenceLosses: finite,
    targetNorm: optional(numberFrom(0)),
    preconditionedTargetNorm: optional(numberFrom(0)),
    targetLoss: optional(number),
    heldOutLosses: notNegative,
    heldOutReferences: notNegative,
    heldOutErrors: notNegative,
    standardErrors: notNegative,
    tokens: notNegative,
    tokensSeen: optional(allNumbersFor(names, numberFrom(0))),
    targetExamples: optional(integerFrom(1)),
    sketches: optional(sketchesFor(names)),
    targets: optional(targetsFor(rule, names, targets)),
  });
  const gram = gramFor(names);
  return (value, at) => ({ ...fields(value, at), gram: gram(value, at) });
}

function measurementsOf(
  message: Readonly<Record<string, unknown>>,
  rule: Rule,
  names: Names,
  targets: readonly string[],
): Measurements {
  const has = (name: string): boolean => message[name] !== undefined && message[name] !== null;
  const given = measurementFields.filter(has);
  if (has("sketches"))
    for (const name of ["alignments", "norms", "targetNorm", "gram"])
      if (has(name)) throw new MessageError(name, "it follows from the sketches; send only one of the two");
  const sent = read(measurementSchema(rule, names, targets), message, messageFault);
  const values = present<PerDomain, Float64Array>(sent, perDomain);
  const singles = present<Single, number>(sent, numbers);
  const held = present<HeldOut, Float64Array>(sent, heldOut);
  if (held.size > 0 && !held.has("heldOutLosses"))
    throw new MessageError(
      "heldOutLosses",
      `it is missing; ${[...held.keys()].join(" and ")} can only be sent together with it`,
    );
  let { gram } = sent;
  const sketched: SignalName[] = [];
  if (sent.sketches !== undefined) {
    const found = fromSketches(sent.sketches, rule);
    gram = found.gram;
    if (gram !== null) sketched.push("gram");
    for (const name of ["alignments", "norms"] as const) {
      const computed = found[name];
      if (computed === null) continue;
      values.set(name, computed);
      sketched.push(name);
    }
    if (found.targetNorm !== null) {
      singles.set("targetNorm", found.targetNorm);
      sketched.push("targetNorm");
    }
  }
  const { step, standardErrors = null, tokens = null, tokensSeen = null, targetExamples = null } = sent;
  return {
    ...{ step, values, singles, heldOut: held, standardErrors, tokens, tokensSeen, gram, targetExamples },
    targets: sent.targets ?? null,
    ...{ given, sketched },
  };
}

/** The fields among `keys` that were sent, by name. */
function present<K extends string, V>(sent: Readonly<Partial<Record<K, V>>>, keys: readonly K[]): Map<K, V> {
  return new Map(
    keys.flatMap((key): [K, V][] => {
      const value = sent[key];
      return value === undefined ? [] : [[key, value]];
    }),
  );
}

function fromSketches(
  { domains, target }: SentSketches,
  { needs }: Rule,
): {
  readonly alignments: Float64Array | null;
  readonly norms: Float64Array | null;
  readonly targetNorm: number | null;
  readonly gram: Float64Array | null;
} {
  const k = domains.length;
  if (target === null && needs.some((name) => name === "alignments" || name === "targetNorm"))
    throw new MessageError("sketches.target", "it is missing; the rule aligns domains with the target");
  let gram: Float64Array | null = null;
  if (needs.includes("gram")) {
    gram = new Float64Array(k * k).fill(NaN);
    for (const [i, a] of domains.entries())
      for (const [j, b] of domains.entries())
        if (a !== null && b !== null && j <= i) gram[i * k + j] = gram[j * k + i] = dot(a, b);
  }
  return {
    alignments:
      target === null
        ? null
        : Float64Array.from(domains, (sketch) => (sketch === null ? NaN : dot(sketch, target))),
    norms: Float64Array.from(domains, (sketch) => (sketch === null ? NaN : Math.sqrt(dot(sketch, sketch)))),
    targetNorm: target === null ? null : Math.sqrt(dot(target, target)),
    gram,
  };
}

/** Reads the measurements per target: in the rule's order if the rule uses targets, in the order of the message otherwise. */
function targetsFor(
  { needs }: Rule,
  names: Names,
  expected: readonly string[],
): Schema<readonly TargetSignal[]> {
  const targets = map(
    closed<Omit<TargetSignal, "name">>({
      alignments: numbersFor(names),
      norm: numberFrom(0),
      loss: numberFrom(0, "open"),
    }),
  );
  const known = namesOf(expected, "target");
  return (value, at) => {
    const found = targets(value, at);
    if (!needs.includes("targets")) return Array.from(found, ([name, target]) => ({ name, ...target }));
    for (const name of found.keys()) placeOf(name, at, known);
    return expected.map((name) => {
      const target = found.get(name);
      if (target === undefined) throw problem(inside(at, name), "is missing; the rule needs every target");
      return { name, ...target };
    });
  };
}

/** The signal of the fields that the rule uses; the other fields are listed as ignored. */
function signalOf(
  measurements: Measurements,
  rule: Rule,
  names: Names,
): Pick<Observation, "signal" | "measured" | "ignored"> {
  const { given, sketched, values } = measurements;
  const { needs, name: called } = rule;
  const has = (name: SignalName): boolean => given.includes(name) || sketched.includes(name);
  // Standard errors may be unknown, and token counts of the run and held-out losses alone are no measurement for the rule.
  const wanted = needs.filter(
    (name) => name !== "standardErrors" && name !== "tokensSeen" && name !== "heldOutLosses",
  );
  // A guard around fixed weights uses only held-out losses; around another rule it uses them in addition to what that rule needs.
  const guarded = needs.includes("heldOutLosses");
  const present = wanted.length === 0 && guarded ? needs.filter(has) : wanted.filter(has);
  const looksAt = (field: string): boolean =>
    needs.includes(field as SignalName) ||
    (field === "tokens" && wanted.length > 0) ||
    (field === "targetExamples" && needs.includes("alignments")) ||
    (field === "gramDomains" && needs.includes("gram")) ||
    (field.startsWith("heldOut") && guarded) ||
    (field === "sketches" && sketched.some((name) => needs.includes(name)));
  const ignored = given
    .filter((field) => !looksAt(field))
    .map((field): Ignored => ({ field, reason: `rule ${called} does not use it` }));
  const unused = (reason: string): Pick<Observation, "signal" | "measured" | "ignored"> => ({
    signal: null,
    measured: 0,
    ignored: [...ignored, ...given.filter(looksAt).map((field): Ignored => ({ field, reason }))],
  });
  if (present.length === 0) {
    const alone = has("standardErrors") && needs.includes("standardErrors");
    if (alone) throw missing(wanted[0]!, ["standardErrors"], called);
    return unused(`rule ${called} also needs ${wanted.join(", ")}`);
  }
  for (const name of [...wanted, ...needs.filter((need) => need === "tokensSeen")])
    if (!has(name)) throw missing(name, present, called);

  const measured = measuredOf(measurements, wanted, names);
  const count = measured.filter(Boolean).length;
  if (count === 0) return unused("no domain was measured");
  const all = count === measured.length;
  const { standardErrors, tokensSeen, gram, targets, targetExamples } = measurements;
  const tokens = wanted.length === 0 ? null : measurements.tokens;
  const signal: Signal = {
    ...(Object.fromEntries(
      [...values, ...measurements.singles].filter(([name]) => needs.includes(name)),
    ) as Partial<Record<PerDomain, Float64Array> & Record<Single, number>>),
    ...(guarded ? heldOutOf(measurements) : {}),
    ...(needs.includes("standardErrors")
      ? {
          standardErrors: measured.map((is, i) => {
            const error = standardErrors?.[i] ?? NaN;
            return is && !Number.isNaN(error) ? error : null;
          }),
        }
      : {}),
    ...(tokensSeen === null ? {} : { tokensSeen }),
    ...(gram === null ? {} : { gram }),
    ...(targets === null ? {} : { targets }),
    ...(targetExamples === null ? {} : { targetExamples }),
    ...(tokens === null && all ? {} : { tokens: measured.map((is, i) => (is ? (tokens?.[i] ?? 1) : 0)) }),
  };
  return { signal, measured: count, ignored };
}

/** The held-out fields as parts of a signal; null for domains whose held-out text was not evaluated. */
function heldOutOf({ heldOut }: Measurements): Pick<Signal, HeldOut> {
  return Object.fromEntries(
    [...heldOut].map(([name, values]) => [
      name,
      Array.from(values, (value) => (Number.isNaN(value) ? null : value)),
    ]),
  );
}

function missing(name: string, beside: readonly string[], rule: string): MessageError {
  return new MessageError(name, `it is missing; rule ${rule} needs it together with ${beside.join(", ")}`);
}

/** Whether each domain was measured, which means that it has all values in `wanted`. Throws for a domain that has only some of them. */
function measuredOf(measurements: Measurements, wanted: readonly SignalName[], { list }: Names): boolean[] {
  const k = list.length;
  const held = measurements.heldOut.get("heldOutLosses");
  if (wanted.length === 0) return list.map((_, i) => held !== undefined && !Number.isNaN(held[i]));
  const parts = wanted.flatMap((name): { field: string; has: (i: number) => boolean }[] => {
    const own = measurements.values.get(name as PerDomain);
    if (own !== undefined) return [{ field: name, has: (i) => !Number.isNaN(own[i]) }];
    const { gram, targets } = measurements;
    if (name === "gram" && gram !== null)
      return [{ field: name, has: (i) => !Number.isNaN(gram[i * k + i]) }];
    if (name === "targets" && targets !== null)
      return targets.map((target) => ({
        field: `${pathOf("targets", target.name)}.alignments`,
        has: (i) => !Number.isNaN(target.alignments[i]),
      }));
    return [];
  });
  const { tokens, standardErrors } = measurements;
  return list.map((name, i) => {
    const without = parts.find(({ has }) => !has(i));
    const withIt = parts.find(({ has }) => has(i));
    // A domain with 0 tokens was not measured, even if it has other values.
    if (tokens?.[i] === 0) return false;
    if (without !== undefined && withIt !== undefined)
      throw new MessageError(
        pathOf(without.field, name),
        `it is missing, but ${withIt.field} has a number for this domain; send all measurements that the rule uses for the domain, or none`,
      );
    if (without !== undefined) {
      const stray =
        tokens !== null && !Number.isNaN(tokens[i])
          ? "tokens"
          : standardErrors !== null && !Number.isNaN(standardErrors[i])
            ? "standardErrors"
            : null;
      if (stray !== null)
        throw new MessageError(
          pathOf(without.field, name),
          `it is missing, but ${stray} has a number for this domain; leave both out if the domain was not measured`,
        );
      return false;
    }
    if (tokens !== null && Number.isNaN(tokens[i]))
      throw new MessageError(
        pathOf("tokens", name),
        "it is missing, but the domain was measured; send the tokens of all measured domains, or of none",
      );
    return true;
  });
}

function digestOf(measurements: Measurements): string {
  const hash = createHash("sha256");
  const add = (name: string, values: Float64Array | null): void => {
    if (values === null) return;
    hash.update(`${name} ${values.length}\n`);
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  };
  hash.update(`${measurements.given.join(" ")}\n`);
  add("step", Float64Array.of(measurements.step));
  for (const name of perDomain) add(name, measurements.values.get(name) ?? null);
  for (const [name, value] of measurements.singles) add(name, Float64Array.of(value));
  add("standardErrors", measurements.standardErrors);
  for (const name of heldOut) add(name, measurements.heldOut.get(name) ?? null);
  add("tokens", measurements.tokens);
  add("tokensSeen", measurements.tokensSeen);
  add("gram", measurements.gram);
  for (const { name, alignments, norm, loss } of measurements.targets ?? []) {
    add(`target ${JSON.stringify(name)}`, Float64Array.from(alignments));
    add("norm, loss", Float64Array.of(norm, loss));
  }
  if (measurements.targetExamples !== null)
    add("targetExamples", Float64Array.of(measurements.targetExamples));
  return hash.digest("hex");
}
