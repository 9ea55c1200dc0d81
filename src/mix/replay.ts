/** A rule on what was measured before: the lines of a run's metrics.jsonl, or messages of the protocol that were kept. */
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import type { SignalName } from "../dga/rule.ts";
import { MessageError, shown } from "./fields.ts";
import type { Line } from "./lines.ts";
import { answer, type Message, type Session, type WeightsReply } from "./protocol.ts";
import { machineOf } from "./setup.ts";

export interface ReplayOptions {
  /** What messages call the file. */
  readonly source: string;
  /** The fields of `init` that are known; they go before those of an `init` in the file. Without `domains` these are the file's. */
  readonly init: Message;
  /** The alignments of a run's lines are those with the step that Adam would take for the target. */
  readonly preconditioned: boolean;
  /** The run moved the weights of bases: tokens that a line tells are those of domains. */
  readonly bases: boolean;
}

/** What the lines tell of a run's signals: whose alignments, and of what. */
type Told = Pick<ReplayOptions, "preconditioned" | "bases">;

const toldBy = ({ preconditioned, bases }: Told): readonly SignalName[] => [
  "standardErrors",
  "norms",
  ...(bases ? [] : (["tokensSeen"] as const)),
  "tokens",
  ...(preconditioned
    ? (["preconditionedAlignments", "preconditionedTargetNorm"] as const)
    : (["alignments", "targetNorm"] as const)),
];

/** The weights at the start and after each update. Throws `data` with the line for what cannot be used. */
export async function* replay(
  lines: AsyncIterable<Line>,
  { source, init, ...told }: ReplayOptions,
): AsyncGenerator<WeightsReply, void> {
  let session: Session | null = null;
  let number = 0;
  const send = (message: Message): WeightsReply => {
    const made = answer(session, message);
    const { reply } = made;
    if (reply.type === "error")
      throw new GradmixError(
        "data",
        `${source}, line ${number}: ${reply.field === null ? "" : `${reply.field}: `}${reply.error}`,
      );
    if (reply.type === "state")
      throw new GradmixError("data", `${source}, line ${number}: a snapshot moves no weights`);
    session = made.session;
    return reply;
  };
  for await (const line of lines) {
    number++;
    const value = parsed(line, `${source}, line ${number}`);
    const { type } = value;
    if (type === "init") {
      if (session === null) yield send({ ...value, ...init });
      continue;
    }
    // What was replied, and asked for a state, is no part of what was measured.
    if (type !== undefined && type !== "observe") continue;
    const message = type === "observe" ? value : observeOf(value, told);
    if (session === null) {
      const names = isObject(value["weights"]) ? { domains: Object.keys(value["weights"]) } : {};
      if (type === "observe" || message !== null || "domains" in names) {
        const first = send({ type: "init", ...names, ...init });
        if (type === undefined) checkTold(session, source, told);
        yield first;
      }
    }
    if (message === null) continue;
    if (type === undefined) checkTold(session, source, told);
    const reply = send(message);
    if (reply.diagnostics.updated) yield reply;
  }
  if (number === 0) throw new GradmixError("data", `${source}: it has no lines`);
}

function parsed(line: Line, place: string): Message {
  if (line instanceof MessageError) throw new GradmixError("data", `${place}: ${line.message}`);
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new GradmixError(
      "data",
      `${place}: it is no JSON (${error instanceof Error ? error.message : String(error)})`,
      {
        cause: error,
      },
    );
  }
  if (!isObject(value))
    throw new GradmixError("data", `${place}: ${shown(value)} is no line of metrics.jsonl, and no message`);
  return value;
}

/** A line of metrics.jsonl as a message; null for one that measured nothing. */
function observeOf(line: Message, { preconditioned, bases }: Told): Message | null {
  const { step, alignments, targetNorm, targetExamples, domains } = line;
  if (!isObject(alignments)) return null;
  const of = (part: string): Record<string, unknown> | null => {
    const values = Object.entries(alignments).map(([name, own]) => [name, isObject(own) ? own[part] : null]);
    return values.every(([, value]) => value === undefined || value === null)
      ? null
      : (Object.fromEntries(values) as Record<string, unknown>);
  };
  const seen =
    isObject(domains) && !bases
      ? Object.fromEntries(
          Object.entries(domains).map(([name, own]) => [name, isObject(own) ? own["tokens"] : null]),
        )
      : null;
  return {
    type: "observe",
    step,
    [preconditioned ? "preconditionedAlignments" : "alignments"]: of("value") ?? {},
    [preconditioned ? "preconditionedTargetNorm" : "targetNorm"]: targetNorm,
    standardErrors: of("standardError"),
    norms: of("norm"),
    tokens: of("tokens"),
    targetExamples,
    ...(seen === null || Object.keys(seen).length < Object.keys(alignments).length
      ? {}
      : { tokensSeen: seen }),
  };
}

/** Throws `config` for a rule that needs what the lines of a run do not tell. */
function checkTold(session: Session | null, source: string, told: Told): void {
  if (session === null) return;
  const { rule } = machineOf(session.setup).mixer;
  const known = toldBy(told);
  const missing = rule.needs.find((name) => !known.includes(name));
  if (missing !== undefined)
    throw new GradmixError(
      "config",
      `${source}: the lines of this run have ${known.slice(-2).join(" and ")}, and rule ${rule.name} needs ${missing}; replay lines of observe that have them`,
    );
}
