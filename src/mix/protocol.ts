/**
 * The protocol of `gradmix mix`, version 1, as a pure function: (session, message) → (session, reply). Sessions and messages are plain JSON; there is no clock, no
 * file and no randomness, so the same messages give the same replies. docs/trainers.md has the fields.
 */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { averageWeights, advance, type MixerState, nextUpdate, restoreMixer, update } from "../dga/mixer.ts";
import {
  allNumbersOf,
  booleanOf,
  byName,
  checkNames,
  integerOf,
  MessageError,
  shown,
  suggestion,
} from "./fields.ts";
import { type Ignored, measurementFields, type Observation, observationOf } from "./observation.ts";
import {
  canonical,
  checkAgrees,
  type Machine,
  machineOf,
  type Setup,
  setupFields,
  setupOf,
} from "./setup.ts";

/** All that decides the replies to come. Plain JSON; never changed, only replaced. */
export interface Session {
  readonly version: 1;
  readonly setup: Setup;
  /** Its steps are counted from `setup.step`. */
  readonly mixer: MixerState;
  /** The trainer's step at the last update; null before there was one. */
  readonly updatedAt: number | null;
  readonly multipliers: Multipliers;
  /** The last observation, so that it can be told when it comes again. */
  readonly last: Last | null;
}

interface Multipliers {
  readonly asked: boolean;
  /** What the trainer draws with, by domain, on the simplex; null: every domain alike. */
  readonly shares: readonly number[] | null;
}

interface Last {
  readonly digest: string;
  readonly changed: boolean;
  readonly updated: boolean;
  readonly measured: number;
  readonly ignored: readonly Ignored[];
}

export type Message = Readonly<Record<string, unknown>>;

export interface WeightsReply {
  readonly type: "weights";
  readonly v?: 1;
  readonly step: number;
  readonly changed: boolean;
  readonly weights: Readonly<Record<string, number>>;
  readonly lossMultipliers?: Readonly<Record<string, number>>;
  readonly averaged?: Readonly<Record<string, number>>;
  readonly diagnostics: {
    readonly updates: number;
    readonly updated: boolean;
    readonly measured: number;
    /** −Σ αᵢ ln αᵢ. */
    readonly entropy: number;
    readonly ignored: readonly Ignored[];
  };
  readonly state?: Session;
}

export interface StateReply {
  readonly type: "state";
  readonly state: Session;
}

export interface ErrorReply {
  readonly type: "error";
  readonly field: string | null;
  readonly error: string;
}

export type Reply = WeightsReply | StateReply | ErrorReply;

export interface Answer {
  /** null before the first `init`. */
  readonly session: Session | null;
  readonly reply: Reply;
}

const handlers = { init, observe, snapshot } as const;

/** The answer to a message that is JSON already; one that cannot be used leaves the session as it was. */
export function answer(session: Session | null, message: unknown): Answer {
  try {
    if (!isObject(message))
      throw new MessageError(null, `${shown(message)} is not a message: an object with a type`);
    const { type } = message;
    const types = Object.keys(handlers);
    if (typeof type !== "string" || !Object.hasOwn(handlers, type)) {
      const hint =
        typeof type === "string"
          ? suggestion(type, types, `there are ${types.join(", ")}`)
          : `there are ${types.join(", ")}`;
      throw new MessageError(
        "type",
        `${type === undefined ? "it is missing" : `${shown(type)} is no type of message`}; ${hint}`,
      );
    }
    return handlers[type as keyof typeof handlers](session, message);
  } catch (error) {
    return { session, reply: errorReply(error) };
  }
}

/** The same for a line of text, without its end. */
export function answerLine(session: Session | null, line: string): Answer {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch (error) {
    return { session, reply: errorReply(notJson(line, error)) };
  }
  return answer(session, message);
}

/** Errors are one line, whatever was in the message. */
const LONGEST_ERROR = 1000;

export function errorReply(error: unknown): ErrorReply {
  const field = error instanceof MessageError ? error.field : null;
  const known = error instanceof GradmixError;
  const text = known
    ? error.message
    : error instanceof RangeError
      ? "it is nested too deep"
      : `internal error: ${error instanceof Error ? error.message : String(error)}`;
  const line = text.replaceAll(/\s*[\n\r]\s*/g, " ");
  return {
    type: "error",
    field,
    error: line.length > LONGEST_ERROR ? `${line.slice(0, LONGEST_ERROR)}…` : line,
  };
}

function notJson(line: string, error: unknown): MessageError {
  const reason = error instanceof Error ? error.message : String(error);
  const numbers = /\b(NaN|-?Infinity)\b/.exec(line)?.[0];
  const hint =
    line.trim() === ""
      ? "; it is empty"
      : numbers === undefined
        ? ""
        : `; JSON has no ${numbers}: leave out what was not measured`;
  return new MessageError(null, `the line is no JSON (${reason})${hint}`, { cause: error });
}

export const initFields: readonly string[] = [
  "type",
  "v",
  "seed",
  "state",
  "shares",
  "lossMultipliers",
  "snapshot",
  ...setupFields,
];

function init(session: Session | null, message: Message): Answer {
  checkNames(Object.entries(message), initFields, "");
  const { v = 1, seed = null, state = null } = message;
  if (v !== 1)
    throw new MessageError("v", `${shown(v)} is not a version of the protocol that is spoken here; 1 is`);
  if (seed !== null) integerOf(seed, "seed", 0);
  const base = baseOf(session, message, state);
  const next = { ...base, multipliers: multipliersOf(message, base) };
  const ignored = seed === null ? [] : [{ field: "seed", reason: "no rule draws anything" }];
  const reply = weightsReply(next, message, { changed: false, updated: false, measured: 0, ignored });
  return { session: next, reply: versioned(reply) };
}

/** The session that an `init` begins or goes on with. */
function baseOf(session: Session | null, message: Message, state: unknown): Session {
  if (state !== null) {
    const restored = restoreSession(state);
    if (session !== null && canonical(restored.setup) !== canonical(session.setup))
      throw new MessageError(
        "state",
        "it is of another session: its domains, rule or facts are not those of this one",
      );
    checkAgrees(message, restored.setup, stepOf(restored), "the state");
    return restored;
  }
  if (session !== null) {
    checkAgrees(message, session.setup, stepOf(session), "the session");
    return session;
  }
  const setup = setupOf(message);
  return {
    version: 1,
    setup,
    mixer: machineOf(setup).mixer.initial,
    updatedAt: null,
    multipliers: { asked: false, shares: null },
    last: null,
  };
}

export const observeFields: readonly string[] = [
  "type",
  "step",
  "shares",
  "lossMultipliers",
  "averaged",
  "snapshot",
  ...measurementFields,
];

function observe(session: Session | null, message: Message): Answer {
  if (session === null) throw new MessageError("type", "there is no session yet; send init first");
  checkNames(Object.entries(message), observeFields, "");
  const machine = machineOf(session.setup);
  const { mixer, names } = machine;
  const targets = session.setup.rule["targets"];
  const found = observationOf(
    message,
    mixer.rule,
    names,
    Array.isArray(targets) ? (targets as readonly string[]) : [],
  );
  const multipliers = multipliersOf(message, session);
  const repeated = checkStep(session, found);
  if (repeated !== null) {
    const next = { ...session, multipliers };
    return { session: next, reply: weightsReply(next, message, repeated) };
  }
  const next = { ...observed(session, machine, found), multipliers };
  return { session: next, reply: weightsReply(next, message, next.last) };
}

/** Throws for a step that is over; what was replied where the last one comes again; null for a new step. */
function checkStep(session: Session, { step, digest }: Observation): Last | null {
  const now = stepOf(session);
  const { last } = session;
  if (step > now || (step === now && last === null)) return null;
  if (step < now)
    throw new MessageError(
      "step",
      `step ${step} comes after step ${now}; a trainer that went back to a checkpoint sends init with the state that it kept there`,
    );
  if (last !== null && last.digest !== digest)
    throw new MessageError(
      "step",
      `step ${step} was observed before, with other numbers; send all that is measured at a step at once`,
    );
  return last;
}

/** The session after an observation of a new step. */
function observed(
  session: Session,
  { mixer }: Machine,
  found: Observation,
): Session & { readonly last: Last } {
  const { setup, updatedAt } = session;
  const { step, signal, digest } = found;
  const advanced = advance(session.mixer, step - stepOf(session));
  const due = dueAt(session, mixer);
  if (signal === null || step < due) {
    const waiting: readonly Ignored[] =
      signal === null
        ? []
        : Object.keys(signal).map((field) => ({ field, reason: `the next update is due at step ${due}` }));
    const last = {
      digest,
      changed: false,
      updated: false,
      measured: found.measured,
      ignored: [...found.ignored, ...waiting],
    };
    return { ...session, setup, mixer: advanced, updatedAt, last };
  }
  let updated: MixerState;
  try {
    updated = update(mixer, advanced, signal);
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    throw new MessageError(fieldOf(error), error.message, { cause: error });
  }
  const changed = updated.rule.weights.some((weight, i) => weight !== advanced.rule.weights[i]);
  const last = { digest, changed, updated: true, measured: found.measured, ignored: found.ignored };
  return { ...session, mixer: updated, updatedAt: step, last };
}

/** The first step at which an update is due. */
function dueAt({ setup, updatedAt }: Session, mixer: Machine["mixer"]): number {
  return setup.updateEvery === null ? setup.updateAfter : nextUpdate(mixer, updatedAt ?? setup.step);
}

/** A rule says "name of domain "x" is …" of a number that it cannot use. */
function fieldOf({ message }: GradmixError): string | null {
  const [, name, domain] = /: (\w+) of domains? "(.*?)" /.exec(message) ?? [];
  return name === undefined || domain === undefined ? null : `${name}.${domain}`;
}

function snapshot(session: Session | null, message: Message): Answer {
  if (session === null) throw new MessageError("type", "there is no session yet; send init first");
  checkNames(Object.entries(message), ["type"], "");
  return { session, reply: { type: "state", state: session } };
}

function multipliersOf(message: Message, { setup, multipliers }: Session): Multipliers {
  const { shares = null, lossMultipliers = null } = message;
  const asked = lossMultipliers === null ? null : booleanOf(lossMultipliers, "lossMultipliers");
  if (shares === null) return { ...multipliers, asked: asked ?? multipliers.asked };
  const given = allNumbersOf(shares, "shares", machineOf(setup).names, { min: 0 });
  const largest = given.reduce((most, share) => Math.max(most, share), 0);
  if (largest === 0) throw new MessageError("shares", "all shares are 0, so that no domain could be drawn");
  // Divided by the largest first: a sum of huge counts overflows.
  const scaled = given.map((share) => share / largest);
  const total = scaled.reduce((sum, share) => sum + share, 0);
  return { asked: asked ?? true, shares: Array.from(scaled, (share) => share / total) };
}

export function stepOf({ setup, mixer }: Session): number {
  return setup.step + mixer.steps;
}

/** The present weights, as after `init`. */
export function currentReply(session: Session): WeightsReply {
  const nothing = { changed: false, updated: false, measured: 0, ignored: [] };
  return versioned(weightsReply(session, {}, nothing));
}

const versioned = ({ type, ...reply }: WeightsReply): WeightsReply => ({ type, v: 1, ...reply });

function weightsReply(session: Session, message: Message, last: Omit<Last, "digest">): WeightsReply {
  const { setup, mixer, multipliers } = session;
  const { domains } = setup;
  const { weights, updates } = mixer.rule;
  const wants = (name: string): boolean => {
    const value = message[name];
    return value !== undefined && value !== null && booleanOf(value, name);
  };
  const { changed, updated, measured } = last;
  const factors = multipliers.asked ? factorsOf(weights, multipliers.shares) : null;
  const unreachable =
    factors === null ? [] : domains.filter((_, i) => factors[i] === null && weights[i]! > 0);
  return {
    type: "weights",
    step: stepOf(session),
    changed,
    weights: byName(domains, weights),
    ...(factors === null
      ? {}
      : {
          lossMultipliers: Object.fromEntries(
            domains.flatMap((name, i): [string, number][] => {
              const factor = factors[i] ?? null;
              return factor === null ? [] : [[name, factor]];
            }),
          ),
        }),
    ...(wants("averaged") ? { averaged: byName(domains, averageWeights(mixer)) } : {}),
    diagnostics: {
      updates,
      updated,
      measured,
      entropy: 0 - weights.reduce((sum, weight) => sum + (weight > 0 ? weight * Math.log(weight) : 0), 0),
      ignored: [
        ...last.ignored,
        ...unreachable.map((name): Ignored => ({
          field: `shares.${name}`,
          reason: "its share is 0, so that no multiplier gives the domain its weight",
        })),
      ],
    },
    ...(wants("snapshot") ? { state: session } : {}),
  };
}

/** α/q; null where nothing is drawn. */
function factorsOf(weights: readonly number[], shares: readonly number[] | null): (number | null)[] {
  return weights.map((weight, i) => {
    const share = shares === null ? 1 / weights.length : shares[i]!;
    return share > 0 ? weight / share : null;
  });
}

/** Reads a session back. Throws `MessageError` at "state" for what none of ours can be. */
export function restoreSession(json: unknown): Session {
  try {
    return sessionOf(json);
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    const at = error instanceof MessageError && error.field !== null ? `${error.field}: ` : "";
    throw new MessageError("state", `it cannot be gone on from: ${at}${error.message}`, { cause: error });
  }
}

function sessionOf(json: unknown): Session {
  if (!isObject(json) || json["version"] === undefined)
    throw new MessageError(null, `${shown(json)} is not a state`);
  if (json["version"] !== 1)
    throw new MessageError(
      "version",
      `it is ${shown(json["version"])}, and this gradmix knows 1; go on with the gradmix that wrote the state`,
    );
  checkNames(Object.entries(json), ["version", "setup", "mixer", "updatedAt", "multipliers", "last"], "");
  const { setup: saved, multipliers, last } = json;
  if (!isObject(saved)) throw new MessageError("setup", `${shown(saved)} is not an object`);
  checkNames(Object.entries(saved), setupFields, "setup");
  const setup = setupOf(saved);
  const { mixer: machine, names } = machineOf(setup);
  const mixer = restoreMixer(machine, json["mixer"]);
  const updatedAt = json["updatedAt"] === null ? null : integerOf(json["updatedAt"], "updatedAt", setup.step);
  if (updatedAt !== null && updatedAt > setup.step + mixer.steps)
    throw new MessageError("updatedAt", `${updatedAt} is after its last step, ${setup.step + mixer.steps}`);
  if (!isObject(multipliers)) throw new MessageError("multipliers", `${shown(multipliers)} is not an object`);
  checkNames(Object.entries(multipliers), ["asked", "shares"], "multipliers");
  const { shares } = multipliers;
  return {
    version: 1,
    setup,
    mixer,
    updatedAt,
    multipliers: {
      asked: booleanOf(multipliers["asked"], "multipliers.asked"),
      shares: shares === null ? null : sharesFrom(shares, names.list.length),
    },
    last: last === null ? null : lastOf(last),
  };
}

function sharesFrom(json: unknown, k: number): number[] {
  const fits =
    Array.isArray(json) &&
    json.length === k &&
    json.every((share) => typeof share === "number" && share >= 0 && share <= 1);
  if (!fits) throw new MessageError("multipliers.shares", `${shown(json)} is not ${k} shares`);
  return json as number[];
}

function lastOf(json: unknown): Last {
  if (!isObject(json)) throw new MessageError("last", `${shown(json)} is not an object`);
  checkNames(Object.entries(json), ["digest", "changed", "updated", "measured", "ignored"], "last");
  const { digest, ignored } = json;
  if (typeof digest !== "string") throw new MessageError("last.digest", `${shown(digest)} is not a text`);
  if (!Array.isArray(ignored) || !ignored.every(isIgnored))
    throw new MessageError("last.ignored", `${shown(ignored)} is not a list of fields and reasons`);
  return {
    digest,
    changed: booleanOf(json["changed"], "last.changed"),
    updated: booleanOf(json["updated"], "last.updated"),
    measured: integerOf(json["measured"], "last.measured", 0),
    ignored,
  };
}

function isIgnored(value: unknown): value is Ignored {
  return isObject(value) && typeof value["field"] === "string" && typeof value["reason"] === "string";
}
