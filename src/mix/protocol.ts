/**
 * The protocol of `gradmix mix`, version 1, as a pure function: (session, message) → (session, reply). Sessions and messages are plain JSON. The function uses
 * no clock, no files and no randomness, so the same messages give the same replies. docs/trainers.md describes the fields.
 */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { averageWeights, advance, type MixerState, nextUpdate, restoreMixer, update } from "../dga/mixer.ts";
import {
  anything,
  boolean,
  closed,
  count,
  list,
  nullable,
  numberFrom,
  object,
  onlyNames,
  orNull,
  read,
  type Schema,
  shown,
  string,
  suggestion,
  version,
  withDefault,
} from "../schema.ts";
import { allNumbersFor, byName, causeOf, MessageError, messageFault } from "./fields.ts";
import { type Ignored, measurementFields, type Observation, observationOf } from "./observation.ts";
import {
  canonical,
  checkAgrees,
  type Machine,
  machineOf,
  type Setup,
  setupFields,
  setupOf,
  unusedOf,
} from "./setup.ts";

/** The complete state of a session: later replies depend only on it and on the messages. Plain JSON that is never modified; each message makes a new one. */
export interface Session {
  readonly version: 1;
  readonly setup: Setup;
  /** State of the mixer, which counts steps from `setup.step`. */
  readonly mixer: MixerState;
  /** The trainer's step at the last update; null before the first update. */
  readonly updatedAt: number | null;
  readonly multipliers: Multipliers;
  /** The last observation, to recognise a message that is sent a second time; null before the first. */
  readonly last: Last | null;
}

/** Whether replies contain loss multipliers, and the shares that they are computed with. */
interface Multipliers {
  /** Whether the trainer requested loss multipliers. */
  readonly asked: boolean;
  /** Probabilities with which the trainer draws the domains; they lie on the simplex. null: all domains are drawn equally often. */
  readonly shares: readonly number[] | null;
}

/** The last observation and the outcome that was replied. */
interface Last {
  readonly digest: string;
  readonly changed: boolean;
  readonly updated: boolean;
  readonly measured: number;
  readonly ignored: readonly Ignored[];
}

/** A message from a trainer. */
export type Message = Readonly<Record<string, unknown>>;

/** The reply to `init` and `observe`. */
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
    /** Entropy of the weights, −Σ αᵢ ln αᵢ, in nats. */
    readonly entropy: number;
    readonly ignored: readonly Ignored[];
  };
  readonly state?: Session;
}

/** The reply to `snapshot`. */
export interface StateReply {
  readonly type: "state";
  readonly state: Session;
}

/** The reply to a message that cannot be used. */
export interface ErrorReply {
  readonly type: "error";
  /** Path of the field that does not fit; null for the whole message. */
  readonly field: string | null;
  readonly error: string;
}

export type Reply = WeightsReply | StateReply | ErrorReply;

/** A reply, and the session after the message. */
export interface Answer {
  /** The session after the message; null before the first `init`. */
  readonly session: Session | null;
  readonly reply: Reply;
}

const handlers = { init, observe, snapshot } as const;

/** Answers a parsed message. A message that cannot be used is answered by an error and leaves the session unchanged. */
export function answer(session: Session | null, message: unknown): Answer {
  try {
    if (!isObject(message))
      throw new MessageError(null, `${shown(message)} is not a message; a message is an object with a type`);
    const { type } = message;
    const types = Object.keys(handlers);
    if (typeof type !== "string" || !Object.hasOwn(handlers, type)) {
      const hint =
        typeof type === "string"
          ? suggestion(type, types, `the types are ${types.join(", ")}`)
          : `the types are ${types.join(", ")}`;
      throw new MessageError(
        "type",
        `${type === undefined ? "it is missing" : `${shown(type)} is not a type of message`}; ${hint}`,
      );
    }
    return handlers[type as keyof typeof handlers](session, message);
  } catch (error) {
    return { session, reply: errorReply(error) };
  }
}

/** Answers a line of text, without its newline. */
export function answerLine(session: Session | null, line: string): Answer {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch (error) {
    return { session, reply: errorReply(notJson(line, error)) };
  }
  return answer(session, message);
}

/** Largest number of characters of an error, which may quote a part of the message. */
const LONGEST_ERROR = 1000;

/** The reply for an error. Its text is one line of limited length. */
export function errorReply(error: unknown): ErrorReply {
  const field = error instanceof MessageError ? error.field : null;
  const known = error instanceof GradmixError;
  const text = known
    ? error.message
    : isStackOverflow(error)
      ? "the message is nested too deeply"
      : `internal error: ${error instanceof Error ? error.message : String(error)}`;
  const line = text.replaceAll(/\s*[\n\r]\s*/g, " ");
  return {
    type: "error",
    field,
    error: line.length > LONGEST_ERROR ? `${line.slice(0, LONGEST_ERROR)}…` : line,
  };
}

/** Whether the call stack is full, as after functions that follow a deeply nested value. Other errors of ranges are faults of the program. */
const isStackOverflow = (error: unknown): boolean =>
  error instanceof RangeError && error.message === "Maximum call stack size exceeded";

function notJson(line: string, error: unknown): MessageError {
  const reason = error instanceof Error ? error.message : String(error);
  const numbers = /\b(NaN|-?Infinity)\b/.exec(line)?.[0];
  const hint =
    line.trim() === ""
      ? "; the line is empty"
      : numbers === undefined
        ? ""
        : `; JSON has no ${numbers}; leave out numbers that were not measured`;
  return new MessageError(null, `the line is not JSON (${reason})${hint}`, { cause: error });
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

const initNames = onlyNames(initFields);
/** The fields of `init` that the session itself reads; the others are read as a setup. */
const initHead = object<{ v: 1; seed: number | null; state: unknown }>({
  v: withDefault(version(1, "send messages of this version"), 1),
  seed: orNull(count),
  state: orNull(anything),
});
const initSchema: typeof initHead = (value, at) => initHead(initNames(value, at), at);

function init(session: Session | null, message: Message): Answer {
  const { seed, state } = read(initSchema, message, messageFault);
  const base = baseOf(session, message, state);
  const next = { ...base, multipliers: multipliersOf(message, base) };
  const ignored = [
    ...(seed === null ? [] : [{ field: "seed", reason: "no rule draws random numbers" }]),
    ...unusedOf(base.setup).filter(({ field }) => (message[field] ?? null) !== null),
  ];
  const reply = weightsReply(next, message, { changed: false, updated: false, measured: 0, ignored });
  return { session: next, reply: versioned(reply) };
}

/** The session that an `init` starts or continues. Throws `MessageError` for fields that contradict the session it continues. */
function baseOf(session: Session | null, message: Message, state: unknown): Session {
  if (state !== null) {
    const restored = restoreSession(state);
    if (session !== null && canonical(restored.setup) !== canonical(session.setup))
      throw new MessageError(
        "state",
        "it belongs to another session, whose init had other domains, another rule or other facts",
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

const observeNames = onlyNames(observeFields);

function observe(session: Session | null, message: Message): Answer {
  if (session === null) throw new MessageError("type", "there is no session yet; send init first");
  read(observeNames, message, messageFault);
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

/**
 * Returns null for a new step, and the previous outcome if the last observation is sent a second time. Throws for a step that has passed, and for other
 * measurements of the last step.
 */
function checkStep(session: Session, { step, digest }: Observation): Last | null {
  const now = stepOf(session);
  const { last } = session;
  if (step > now || (step === now && last === null)) return null;
  if (step < now)
    throw new MessageError(
      "step",
      `step ${step} is before step ${now}, the last one; after a return to a checkpoint, send init with the state that was saved with it`,
    );
  if (last !== null && last.digest !== digest)
    throw new MessageError(
      "step",
      `step ${step} was already observed, with other numbers; send all measurements of a step in one message`,
    );
  return last;
}

/** The session after an observation of a new step. */
function observed(
  session: Session,
  { mixer }: Machine,
  found: Observation,
): Session & { readonly last: Last } {
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
    return { ...session, mixer: advanced, last };
  }
  let updated: MixerState;
  try {
    updated = update(mixer, advanced, signal);
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    throw new MessageError(causeOf(error), error.message, { cause: error });
  }
  const changed = updated.rule.weights.some((weight, i) => weight !== advanced.rule.weights[i]);
  const last = { digest, changed, updated: true, measured: found.measured, ignored: found.ignored };
  return { ...session, mixer: updated, updatedAt: step, last };
}

/** The first step at which an update is due. */
function dueAt({ setup, updatedAt }: Session, mixer: Machine["mixer"]): number {
  return setup.updateEvery === null ? setup.updateAfter : nextUpdate(mixer, updatedAt ?? setup.step);
}

function snapshot(session: Session | null, message: Message): Answer {
  if (session === null) throw new MessageError("type", "there is no session yet; send init first");
  read(onlyNames(["type"]), message, messageFault);
  return { session, reply: { type: "state", state: session } };
}

function multipliersOf(message: Message, { setup, multipliers }: Session): Multipliers {
  const schema = object<{ shares: Float64Array | null; lossMultipliers: boolean | null }>({
    lossMultipliers: orNull(boolean),
    shares: orNull(allNumbersFor(machineOf(setup).names, numberFrom(0))),
  });
  const { shares: given, lossMultipliers: asked } = read(schema, message, messageFault);
  if (given === null) return { ...multipliers, asked: asked ?? multipliers.asked };
  const largest = given.reduce((most, share) => Math.max(most, share), 0);
  if (largest === 0) throw new MessageError("shares", "all shares are 0, so no domain could be drawn");
  // The shares are divided by the largest first, because the sum of huge counts could overflow.
  const scaled = given.map((share) => share / largest);
  const total = scaled.reduce((sum, share) => sum + share, 0);
  return { asked: asked ?? true, shares: Array.from(scaled, (share) => share / total) };
}

/** The trainer's present step. */
export function stepOf({ setup, mixer }: Session): number {
  return setup.step + mixer.steps;
}

/** The reply with the present weights, as after `init`. */
export function currentReply(session: Session): WeightsReply {
  const noObservation = { changed: false, updated: false, measured: 0, ignored: [] };
  return versioned(weightsReply(session, {}, noObservation));
}

const versioned = ({ type, ...reply }: WeightsReply): WeightsReply => ({ type, v: 1, ...reply });

/** Optional parts of a reply that a message can request. */
const wanted = object<Record<"averaged" | "snapshot", boolean | null>>({
  averaged: orNull(boolean),
  snapshot: orNull(boolean),
});

function weightsReply(session: Session, message: Message, last: Omit<Last, "digest">): WeightsReply {
  const { setup, mixer, multipliers } = session;
  const { domains } = setup;
  const { weights, updates } = mixer.rule;
  const wants = read(wanted, message, messageFault);
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
    ...(wants.averaged === true ? { averaged: byName(domains, averageWeights(mixer)) } : {}),
    diagnostics: {
      updates,
      updated,
      measured,
      entropy: 0 - weights.reduce((sum, weight) => sum + (weight > 0 ? weight * Math.log(weight) : 0), 0),
      ignored: [
        ...last.ignored,
        ...unreachable.map((name): Ignored => ({
          field: `shares.${name}`,
          reason: "its share is 0, so no multiplier can give the domain its weight",
        })),
      ],
    },
    ...(wants.snapshot === true ? { state: session } : {}),
  };
}

/** The loss multipliers αᵢ/qᵢ of weights α and shares q; null for a domain with the share 0. */
function factorsOf(weights: readonly number[], shares: readonly number[] | null): (number | null)[] {
  return weights.map((weight, i) => {
    const share = shares === null ? 1 / weights.length : shares[i]!;
    return share > 0 ? weight / share : null;
  });
}

/** Reads a stored session. Throws `MessageError` for the field "state" if it is not a valid session. */
export function restoreSession(json: unknown): Session {
  try {
    return sessionOf(json);
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    const at = error instanceof MessageError && error.field !== null ? `${error.field}: ` : "";
    throw new MessageError("state", `the session cannot continue from it: ${at}${error.message}`, {
      cause: error,
    });
  }
}

/** Schema of a session; `sessionOf` checks the parts that depend on the rule. */
export const sessionSchema: Schema<
  Omit<Session, "setup" | "mixer"> & { readonly setup: Message; readonly mixer: unknown }
> = closed<Omit<Session, "setup" | "mixer"> & { readonly setup: Message; readonly mixer: unknown }>({
  version: version(1, "continue with the version of gradmix that wrote the state"),
  setup: onlyNames(setupFields),
  mixer: anything,
  updatedAt: nullable(count),
  multipliers: closed<Multipliers>({ asked: boolean, shares: nullable(list(numberFrom(0))) }),
  last: nullable(
    closed<Last>({
      digest: string,
      changed: boolean,
      updated: boolean,
      measured: count,
      ignored: list(closed<Ignored>({ field: string, reason: string })),
    }),
  ),
});

function sessionOf(json: unknown): Session {
  const { setup: saved, mixer: state, ...rest } = read(sessionSchema, json, messageFault);
  const setup = setupOf(saved);
  const { mixer: machine, names } = machineOf(setup);
  const mixer = restoreMixer(machine, state);
  const { updatedAt, multipliers } = rest;
  const end = setup.step + mixer.steps;
  if (updatedAt !== null && !(updatedAt >= setup.step && updatedAt <= end))
    throw new MessageError(
      "updatedAt",
      `${updatedAt} is not one of the steps ${setup.step} to ${end} of the state`,
    );
  if (multipliers.shares !== null) {
    const { length } = multipliers.shares;
    if (length !== names.list.length || multipliers.shares.some((share) => share > 1))
      throw new MessageError(
        "multipliers.shares",
        `its ${length} numbers are not ${names.list.length} shares, one per domain`,
      );
  }
  return { ...rest, setup, mixer };
}
