/** From an `observe` message to the signal of a rule: which domains were measured, what the rule looks at, and what it does not. */
import { createHash } from "node:crypto";
import type { Rule, Signal, SignalName, TargetSignal } from "../dga/rule.ts";
import {
  allNumbersOf,
  type Bounds,
  checkNames,
  integerOf,
  membersOf,
  MessageError,
  type Names,
  namesOf,
  numberOf,
  numbersOf,
  pathOf,
  placeOf,
  shown,
} from "./fields.ts";
import { dot, sketchesOf } from "./sketches.ts";

/** A field that was given and changed nothing, and why. */
export interface Ignored {
  readonly field: string;
  readonly reason: string;
}

export interface Observation {
  readonly step: number;
  /** What the rule is told; null where nothing that it needs was measured. */
  readonly signal: Signal | null;
  /** Domains that were measured, of what the rule needs. */
  readonly measured: number;
  readonly ignored: readonly Ignored[];
  /** Says the same for observations that say the same. */
  readonly digest: string;
}

/** Fields that measure. */
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

const perDomain = {
  alignments: {},
  preconditionedAlignments: {},
  norms: { min: 0 },
  losses: {},
  referenceLosses: {},
} as const satisfies Partial<Record<SignalName, Bounds>>;

/** Of text that is held out; a domain whose text was not looked at is missing, which says nothing of what else was measured of it. */
const heldOut = ["heldOutLosses", "heldOutReferences", "heldOutErrors"] as const;
type HeldOut = (typeof heldOut)[number];

const numbers = {
  targetNorm: { min: 0 },
  preconditionedTargetNorm: { min: 0 },
  targetLoss: {},
} as const satisfies Partial<Record<SignalName, Bounds>>;

type PerDomain = keyof typeof perDomain;
type Single = keyof typeof numbers;

const keysOf = <K extends string>(table: Readonly<Record<K, unknown>>): K[] => Object.keys(table) as K[];

/** What a message says, field by field; what it leaves out is missing here too. NaN stands for what was not measured. */
interface Said {
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
  /** The fields that were given, as they are called in the message. */
  readonly given: readonly string[];
  /** What the sketches gave, in the place of fields of their own. */
  readonly sketched: readonly SignalName[];
}

/** `targets` are the names of the rule's targets, in its order. Throws `MessageError` for what cannot be used. */
export function observationOf(
  message: Readonly<Record<string, unknown>>,
  rule: Rule,
  names: Names,
  targets: readonly string[],
): Observation {
  const said = saidOf(message, rule, names, targets);
  const { signal, measured, ignored } = signalOf(said, rule, names);
  return { step: said.step, signal, measured, ignored, digest: digestOf(said) };
}

function saidOf(
  message: Readonly<Record<string, unknown>>,
  rule: Rule,
  names: Names,
  targets: readonly string[],
): Said {
  const has = (name: string): boolean => message[name] !== undefined && message[name] !== null;
  const given = measurementFields.filter(has);
  if (!has("step")) throw new MessageError("step", "it is missing; it is the number of training steps taken");
  const step = integerOf(message["step"], "step", 0);
  const values = new Map(
    keysOf(perDomain)
      .filter(has)
      .map((name) => [name, numbersOf(message[name], name, names, perDomain[name])]),
  );
  const singles = new Map(
    keysOf(numbers)
      .filter(has)
      .map((name) => [name, numberOf(message[name], name, numbers[name])]),
  );
  const held = new Map(
    heldOut.filter(has).map((name) => [name, numbersOf(message[name], name, names, { min: 0 })]),
  );
  if (held.size > 0 && !held.has("heldOutLosses"))
    throw new MessageError("heldOutLosses", `it is missing; ${[...held.keys()].join(" and ")} belong to it`);
  let gram = has("gram") ? gramOf(message["gram"], message["gramDomains"], names) : null;
  if (gram === null && has("gramDomains"))
    throw new MessageError("gramDomains", "there is no gram whose rows it could name");
  const sketched: SignalName[] = [];
  if (has("sketches")) {
    for (const name of ["alignments", "norms", "targetNorm", "gram"] as const)
      if (has(name)) throw new MessageError(name, "the sketches say it too; send one of them");
    const found = fromSketches(message["sketches"], rule, names);
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
  return {
    step,
    values,
    singles,
    heldOut: held,
    standardErrors: has("standardErrors")
      ? numbersOf(message["standardErrors"], "standardErrors", names, { min: 0 })
      : null,
    tokens: has("tokens") ? numbersOf(message["tokens"], "tokens", names, { min: 0 }) : null,
    tokensSeen: has("tokensSeen")
      ? allNumbersOf(message["tokensSeen"], "tokensSeen", names, { min: 0 })
      : null,
    gram,
    targets: has("targets") ? targetsOf(message["targets"], rule, names, targets) : null,
    targetExamples: has("targetExamples") ? integerOf(message["targetExamples"], "targetExamples", 1) : null,
    given,
    sketched,
  };
}

/** [k, k]; NaN in the rows and columns of domains that were not measured. */
function gramOf(value: unknown, order: unknown, names: Names): Float64Array {
  const k = names.list.length;
  const out = new Float64Array(k * k).fill(NaN);
  if (Array.isArray(value)) {
    const places = order === undefined || order === null ? [...names.list.keys()] : placesOf(order, names);
    const { length } = places;
    if (value.length !== length)
      throw new MessageError(
        "gram",
        `${value.length} rows for ${length} domains; gramDomains names the rows`,
      );
    for (const [i, place] of places.entries()) {
      const row: unknown = value[i];
      const field = pathOf("gram", names.list[place]!);
      if (!Array.isArray(row) || row.length !== length)
        throw new MessageError(field, `its row is ${shown(row)}, not a list of ${length} numbers`);
      for (const [j, other] of places.entries())
        out[place * k + other] = numberOf(row[j], pathOf(field, names.list[other]!));
    }
    return out;
  }
  if (order !== undefined && order !== null)
    throw new MessageError("gramDomains", "it names the rows of a gram that is lists; this one has names");
  const rows = membersOf(value, "gram", "rows by domain, or a list of rows");
  const there = new Set(rows.flatMap(([name, row]) => (row === null ? [] : [placeOf(name, "gram", names)])));
  for (const [name, row] of rows) {
    const i = placeOf(name, "gram", names);
    if (row === null) continue;
    const field = pathOf("gram", name);
    const entries = numbersOf(row, field, names);
    for (const [j, entry] of entries.entries()) {
      if (Number.isNaN(entry)) continue;
      if (!there.has(j))
        throw new MessageError(
          pathOf("gram", names.list[j]!),
          `it has no row, and a number in that of "${name}"`,
        );
      out[i * k + j] = entry;
    }
  }
  // One half of a symmetric matrix says it all.
  for (const i of there)
    for (const j of there)
      if (Number.isNaN(out[i * k + j])) {
        out[i * k + j] = out[j * k + i]!;
        if (Number.isNaN(out[i * k + j]))
          throw new MessageError(
            pathOf(pathOf("gram", names.list[i]!), names.list[j]!),
            "it is missing; every two measured domains need their inner product",
          );
      }
  return out;
}

function placesOf(order: unknown, names: Names): number[] {
  if (!Array.isArray(order)) throw new MessageError("gramDomains", `${shown(order)} is not a list of names`);
  const places = (order as readonly unknown[]).map((name) => {
    if (typeof name !== "string") throw new MessageError("gramDomains", `${shown(name)} is not a name`);
    return placeOf(name, "gramDomains", names);
  });
  if (new Set(places).size !== places.length)
    throw new MessageError("gramDomains", "it names a domain twice");
  return places;
}

function fromSketches(
  value: unknown,
  { needs }: Rule,
  names: Names,
): {
  readonly alignments: Float64Array | null;
  readonly norms: Float64Array | null;
  readonly targetNorm: number | null;
  readonly gram: Float64Array | null;
} {
  const { domains, target } = sketchesOf(value, names);
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

/** In the rule's order where it has targets, else in the message's. */
function targetsOf(
  value: unknown,
  { needs }: Rule,
  names: Names,
  expected: readonly string[],
): readonly TargetSignal[] {
  const members = membersOf(value, "targets", "an object with a target's measurements by its name");
  const read = new Map(
    members.map(([name, own]): [string, TargetSignal] => {
      const field = pathOf("targets", name);
      const parts = new Map(membersOf(own, field, "an object with alignments, norm and loss"));
      checkNames([...parts], ["alignments", "norm", "loss"], field);
      for (const part of ["alignments", "norm", "loss"])
        if (!parts.has(part)) throw new MessageError(`${field}.${part}`, "it is missing");
      return [
        name,
        {
          name,
          alignments: numbersOf(parts.get("alignments"), `${field}.alignments`, names),
          norm: numberOf(parts.get("norm"), `${field}.norm`, { min: 0 }),
          loss: numberOf(parts.get("loss"), `${field}.loss`, { min: 0, openMin: true }),
        },
      ];
    }),
  );
  if (!needs.includes("targets")) return [...read.values()];
  const known = namesOf(expected, "target");
  for (const name of read.keys()) placeOf(name, "targets", known);
  return expected.map((name) => {
    const target = read.get(name);
    if (target === undefined)
      throw new MessageError(pathOf("targets", name), "it is missing; the rule needs every target");
    return target;
  });
}

/** The parts that the rule looks at, as a signal, and the rest as ignored. */
function signalOf(
  said: Said,
  rule: Rule,
  names: Names,
): Pick<Observation, "signal" | "measured" | "ignored"> {
  const { given, sketched, values } = said;
  const { needs, name: called } = rule;
  const has = (name: SignalName): boolean => given.includes(name) || sketched.includes(name);
  // Errors are not known where they are missing, and counts of the run alone measure nothing.
  const wanted = needs.filter(
    (name) => name !== "standardErrors" && name !== "tokensSeen" && name !== "heldOutLosses",
  );
  // A guard around fixed weights looks at held-out losses alone; around a rule it takes them with what the rule needs.
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
    .map((field): Ignored => ({ field, reason: `rule ${called} does not look at it` }));
  const unused = (reason: string): Pick<Observation, "signal" | "measured" | "ignored"> => ({
    signal: null,
    measured: 0,
    ignored: [...ignored, ...given.filter(looksAt).map((field): Ignored => ({ field, reason }))],
  });
  if (present.length === 0) {
    const alone = has("standardErrors") && needs.includes("standardErrors");
    if (alone) throw missing(wanted[0]!, ["standardErrors"], called);
    return unused(`rule ${called} needs ${wanted.join(", ")} with it`);
  }
  for (const name of [...wanted, ...needs.filter((need) => need === "tokensSeen")])
    if (!has(name)) throw missing(name, present, called);

  const measured = measuredOf(said, wanted, names);
  const count = measured.filter(Boolean).length;
  if (count === 0) return unused("no domain was measured");
  const all = count === measured.length;
  const { standardErrors, tokensSeen, gram, targets, targetExamples } = said;
  const tokens = wanted.length === 0 ? null : said.tokens;
  const signal: Signal = {
    ...(Object.fromEntries([...values, ...said.singles].filter(([name]) => needs.includes(name))) as Partial<
      Record<PerDomain, Float64Array> & Record<Single, number>
    >),
    ...(guarded ? heldOutOf(said) : {}),
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

/** null where nothing is known. */
function heldOutOf({ heldOut }: Said): Pick<Signal, HeldOut> {
  return Object.fromEntries(
    [...heldOut].map(([name, values]) => [
      name,
      Array.from(values, (value) => (Number.isNaN(value) ? null : value)),
    ]),
  );
}

function missing(name: string, beside: readonly string[], rule: string): MessageError {
  return new MessageError(name, `it is missing; rule ${rule} needs it beside ${beside.join(", ")}`);
}

/** Which domains were measured: those that have all that the rule needs of a domain. Throws for one that has a part of it. */
function measuredOf(said: Said, wanted: readonly SignalName[], { list }: Names): boolean[] {
  const k = list.length;
  const held = said.heldOut.get("heldOutLosses");
  if (wanted.length === 0) return list.map((_, i) => held !== undefined && !Number.isNaN(held[i]));
  const parts = wanted.flatMap((name): { field: string; has: (i: number) => boolean }[] => {
    const own = said.values.get(name as PerDomain);
    if (own !== undefined) return [{ field: name, has: (i) => !Number.isNaN(own[i]) }];
    const { gram, targets } = said;
    if (name === "gram" && gram !== null)
      return [{ field: name, has: (i) => !Number.isNaN(gram[i * k + i]) }];
    if (name === "targets" && targets !== null)
      return targets.map((target) => ({
        field: `${pathOf("targets", target.name)}.alignments`,
        has: (i) => !Number.isNaN(target.alignments[i]),
      }));
    return [];
  });
  const { tokens, standardErrors } = said;
  return list.map((name, i) => {
    const without = parts.find(({ has }) => !has(i));
    const withIt = parts.find(({ has }) => has(i));
    // Whatever else is said of a domain without tokens, nothing was measured.
    if (tokens?.[i] === 0) return false;
    if (without !== undefined && withIt !== undefined)
      throw new MessageError(
        pathOf(without.field, name),
        `it is missing, and ${withIt.field} has a number for it; a domain that was measured needs all that the rule looks at`,
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
          `it is missing, and ${stray} has a number for it; leave both out for a domain that was not measured`,
        );
      return false;
    }
    if (tokens !== null && Number.isNaN(tokens[i]))
      throw new MessageError(
        pathOf("tokens", name),
        "it is missing, and the domain was measured; give the tokens of every measured domain, or of none",
      );
    return true;
  });
}

function digestOf(said: Said): string {
  const hash = createHash("sha256");
  const add = (name: string, values: Float64Array | null): void => {
    if (values === null) return;
    hash.update(`${name} ${values.length}\n`);
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  };
  hash.update(`${said.given.join(" ")}\n`);
  add("step", Float64Array.of(said.step));
  for (const name of keysOf(perDomain)) add(name, said.values.get(name) ?? null);
  for (const [name, value] of said.singles) add(name, Float64Array.of(value));
  add("standardErrors", said.standardErrors);
  for (const name of heldOut) add(name, said.heldOut.get(name) ?? null);
  add("tokens", said.tokens);
  add("tokensSeen", said.tokensSeen);
  add("gram", said.gram);
  for (const { name, alignments, norm, loss } of said.targets ?? []) {
    add(`target ${JSON.stringify(name)}`, Float64Array.from(alignments));
    add("norm, loss", Float64Array.of(norm, loss));
  }
  if (said.targetExamples !== null) add("targetExamples", Float64Array.of(said.targetExamples));
  return hash.digest("hex");
}
