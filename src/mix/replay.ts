/** Runs a rule on earlier measurements: the lines of a run's metrics.jsonl, or stored messages of the protocol. */
import { GradmixError } from "../errors.ts";
import type { SignalName } from "../dga/rule.ts";
import {
  anything,
  count as countOf,
  faultOf,
  map,
  number,
  object,
  optional,
  orNull,
  parse,
  plainObject,
  read,
  type Source,
} from "../schema.ts";
import { MessageError } from "./fields.ts";
import type { Line } from "./lines.ts";
import { answer, type Message, restoreSession, type Session, stepOf, type WeightsReply } from "./protocol.ts";
import { machineOf } from "./setup.ts";

/** Options of `replay`. */
export interface ReplayOptions {
  /** Name of the file in error messages. */
  readonly source: string;
  /** Fields of `init`. They take precedence over those of an `init` in the file. If `domains` is left out, it is taken from the file. */
  readonly init: Message;
  /** Whether the alignments in the lines of a run are with Adam's step for the target instead of the target's gradient. */
  readonly preconditioned: boolean;
  /** Whether the lines are those of a run, which writes each step once, in order. */
  readonly isRun: boolean;
  /** Whether the rule of the run updated the weights of bases. The token counts in its lines are then of domains and cannot be used. */
  readonly bases: boolean;
}

/** How to interpret the measurements in the lines of a run. */
type Recorded = Pick<ReplayOptions, "preconditioned" | "bases">;

/** The signals that the lines of such a run contain. */
const recordedSignals = ({ preconditioned, bases }: Recorded): readonly SignalName[] => [
  "standardErrors",
  "norms",
  ...(bases ? [] : (["tokensSeen"] as const)),
  "tokens",
  ...(preconditioned
    ? (["preconditionedAlignments", "preconditionedTargetNorm"] as const)
    : (["alignments", "targetNorm"] as const)),
];

/**
 * Yields the weights at the start and after each update, once each. An `observe` that is refused is left out if the next line is the error that refused
 * it in the recorded session too. Throws `data`, naming the line, for any other line that cannot be used, and `config` for a rule that needs signals which
 * the run did not record.
 */
export async function* replay(
  lines: AsyncIterable<Line>,
  { source, init, isRun, ...recorded }: ReplayOptions,
): AsyncGenerator<WeightsReply, void> {
  let session: Session | null = null;
  let count = 0;
  /** The refusal of the line before, until the line after it says whether the recorded session refused it too. */
  let refused: GradmixError | null = null;
  /** Number of updates at the last reply. */
  let updates = 0;
  const send = (message: Message): WeightsReply => {
    const made = answer(session, message);
    const { reply } = made;
    if (reply.type === "error") {
      const { field, error } = reply;
      // The options of the replay, or of the run, are not in the line.
      const ours = message["type"] === "init" && Object.hasOwn(init, field?.split(".")[0] ?? "");
      const where = ours ? `${source}, the options of its replay` : `${source}, line ${count}`;
      throw new GradmixError("data", `${where}: ${field === null ? "" : `${field}: `}${error}`);
    }
    if (reply.type === "state")
      throw new GradmixError(
        "data",
        `${source}, line ${count}: a snapshot does not change the weights; leave it out`,
      );
    session = made.session;
    return reply;
  };
  /** The number of domains; null before they are known. */
  const known = (): number | null => {
    const names: unknown = session?.setup.domains ?? init["domains"];
    return Array.isArray(names) ? names.length : null;
  };
  let step = 0;
  for await (const line of lines) {
    count++;
    const value = messageOf(line, place(source, count));
    const { type } = value;
    if (refused !== null && type !== "error") throw refused;
    refused = null;
    if (isRun) step = nextStep(value, step, place(source, count));
    if (type === "init") {
      const before: number | null = session === null ? null : stepOf(session);
      const reply = send(
        before === null ? { ...value, ...init } : continuing(value, init, before, place(source, count)),
      );
      updates = reply.diagnostics.updates;
      if (reply.step !== before) yield reply;
      continue;
    }
    // Replies and requests for a snapshot contain no measurements.
    if (type !== undefined && type !== "observe") continue;
    const message =
      type === "observe" ? value : observeOf(value, { ...recorded, all: known() }, place(source, count));
    if (session === null) {
      const { weights } = read(namedWeights, value, faultOf(place(source, count)));
      const names = weights === undefined ? {} : { domains: [...weights.keys()] };
      // A line of a run may have no measurements yet; another line with weights (a reply, a file of weights) says nothing to replay.
      if (type === "observe" || message !== null || (isRun && "domains" in names)) {
        const first = send({ type: "init", ...names, ...init });
        if (type === undefined) checkRecorded(session, source, recorded);
        yield first;
      }
    }
    if (message === null) continue;
    if (type === undefined) checkRecorded(session, source, recorded);
    let reply: WeightsReply;
    try {
      reply = send(message);
    } catch (error) {
      if (type !== "observe" || !(error instanceof GradmixError)) throw error;
      refused = error;
      continue;
    }
    // An observation that was sent a second time has the reply of the first.
    const { updated, updates: now } = reply.diagnostics;
    if (updated && now !== updates) yield reply;
    updates = now;
  }
  if (refused !== null) throw refused;
  if (session === null)
    throw new GradmixError(
      "data",
      count === 0
        ? `${source}: it has no lines`
        : `${source}: none of its lines is an init, an observe or the step of a run with measurements, so there is nothing to replay`,
    );
}

/**
 * The `init` of a trainer that started again at `step` of the session. It goes back to the step of its state. That state belongs to the weights of the
 * recorded session, so options of the replay cannot be combined with it. Throws `data` for that.
 */
function continuing(line: Message, init: Message, step: number, source: Source): Message {
  const { state, ...rest } = line;
  if (state === undefined || state === null) return { ...rest, ...init };
  if (Object.keys(init).length === 0) return line;
  const back = backStep(state, source);
  if (back === step) return { ...rest, ...init };
  throw faultOf(source)(
    "state",
    `goes from step ${step} to step ${back}, with the weights of the recorded session; a replay with other options has no weights to go back to, so replay the part before this line alone`,
  );
}

/** The step of a state. Throws `data` if it cannot be used. */
function backStep(state: unknown, source: Source): number {
  try {
    return stepOf(restoreSession(state));
  } catch (error) {
    if (!(error instanceof MessageError)) throw error;
    throw faultOf(source)("state", error.message);
  }
}

const place = (source: string, line: number): Source => ({ source: `${source}, line ${line}`, code: "data" });

function messageOf(line: Line, source: Source): Message {
  if (line instanceof MessageError) throw faultOf(source)("", line.message);
  return parse(plainObject, line, { ...source, advice: "give lines of metrics.jsonl, or messages" });
}

const stepOfLine = object<{ step: number; event: unknown }>({ step: countOf, event: anything });

/** The step of a line of a run. Throws `data` for a line that does not follow the one of step `before`: with a part missing or repeated, the weights would be others. */
function nextStep(line: Message, before: number, source: Source): number {
  const { step, event } = read(stepOfLine, line, faultOf(source));
  const wanted = event === undefined || event === null ? before + 1 : before;
  if (step !== wanted)
    throw faultOf(source)(
      "step",
      `is ${step}, and the line before has ${before}; a run writes each step once, in order`,
    );
  return step;
}

/** The members of a line of metrics.jsonl that are used. */
interface MeasuredLine {
  readonly alignments?: ReadonlyMap<string, Measured>;
  readonly targetNorm: unknown;
  readonly targetExamples: unknown;
  readonly domains?: ReadonlyMap<string, { readonly tokens: number | null }>;
}

type Measured = Readonly<Record<"value" | "standardError" | "norm" | "tokens", number | null>>;

const namedWeights = object<{ weights?: ReadonlyMap<string, unknown> }>({ weights: optional(map(anything)) });

const measuredLine = object<MeasuredLine>({
  alignments: optional(
    map(
      object<Measured>({
        value: orNull(number),
        standardError: orNull(number),
        norm: orNull(number),
        tokens: orNull(number),
      }),
    ),
  ),
  targetNorm: anything,
  targetExamples: anything,
  domains: optional(map(object<{ tokens: number | null }>({ tokens: orNull(number) }))),
});

/** Turns a line of metrics.jsonl into an `observe` message; null for a line without alignments. `all`: the number of domains, if it is known. */
function observeOf(
  line: Message,
  { preconditioned, bases, all }: Recorded & { readonly all: number | null },
  source: Source,
): Message | null {
  const { alignments, targetNorm, targetExamples, domains } = read(measuredLine, line, faultOf(source));
  if (alignments === undefined) return null;
  const of = (part: keyof Measured): Readonly<Record<string, number | null>> | null => {
    const values = Array.from(alignments, ([name, own]) => [name, own[part]] as const);
    return values.every(([, value]) => value === null) ? null : Object.fromEntries(values);
  };
  const seen =
    domains === undefined || bases
      ? null
      : Object.fromEntries(Array.from(domains, ([name, { tokens }]) => [name, tokens]));
  return {
    type: "observe",
    step: line["step"],
    [preconditioned ? "preconditionedAlignments" : "alignments"]: of("value") ?? {},
    [preconditioned ? "preconditionedTargetNorm" : "targetNorm"]: targetNorm,
    standardErrors: of("standardError"),
    norms: of("norm"),
    tokens: of("tokens"),
    targetExamples,
    // With many domains, a line has only those of the batch, and the rule needs the tokens of all or none.
    ...(seen === null || Object.keys(seen).length < (all ?? alignments.size) ? {} : { tokensSeen: seen }),
  };
}

/** Throws `config` for a rule that needs a signal which the lines of the run do not contain. */
function checkRecorded(session: Session | null, source: string, recorded: Recorded): void {
  if (session === null) return;
  const { rule } = machineOf(session.setup).mixer;
  const known = recordedSignals(recorded);
  const missing = rule.needs.find((name) => !known.includes(name));
  if (missing !== undefined)
    throw new GradmixError(
      "config",
      `${source}: the lines of this run have ${known.slice(-2).join(" and ")}, but rule ${rule.name} needs ${missing}; replay observe messages that have them`,
    );
}
