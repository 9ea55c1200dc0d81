/** Holds the session of a process, and keeps it in files: nothing is replied that is not on disk. */
import { existsSync } from "node:fs";
import { GradmixError } from "../errors.ts";
import { reading, writeFileAtomic } from "../node/files.ts";
import { faultOf, jsonOf } from "../schema.ts";
import {
  type Answer,
  answer,
  answerLine,
  errorReply,
  type Reply,
  restoreSession,
  type Session,
  stepOf,
} from "./protocol.ts";

export interface Keeper {
  /** null before the first `init`. */
  session(): Session | null;
  /** The reply to a line; once it is there, files hold what it says. */
  line(text: string): Reply;
  /** The same for a message that is no text. */
  message(message: unknown): Reply;
}

export interface KeeperFiles {
  /** Where the session is kept, and gone on from if it is there. */
  readonly state: string | null;
  /** Where the weights are written for those who look at a file. */
  readonly weights: string | null;
}

/** Throws `checkpoint` for a state that cannot be gone on from, `io` for files that cannot be read or written. */
export function createKeeper(files: KeeperFiles): Keeper {
  let session = files.state === null || !existsSync(files.state) ? null : readSession(files.state);
  // One that was ended between its two files made the state last.
  if (session !== null) writeWeights(files.weights, session);
  const kept = (made: Answer): Reply => {
    if (made.session === session || made.session === null) return made.reply;
    try {
      if (files.state !== null) writeFileAtomic(files.state, [encoded(made.session)]);
      if (session === null || changed(session, made.session)) writeWeights(files.weights, made.session);
    } catch (error) {
      // What was not kept has not happened: the same message again does it.
      return errorReply(error);
    }
    session = made.session;
    return made.reply;
  };
  return {
    session: () => session,
    line: (text) => kept(answerLine(session, text)),
    message: (message) => kept(answer(session, message)),
  };
}

const encoded = (value: unknown): Uint8Array => new TextEncoder().encode(`${JSON.stringify(value)}\n`);

function changed(before: Session, after: Session): boolean {
  const { weights } = before.mixer.rule;
  return after.mixer.rule.weights.some((weight, i) => weight !== weights[i]);
}

function writeWeights(path: string | null, session: Session): void {
  if (path === null) return;
  const { domains, weights } = session.mixer.rule;
  const byName = Object.fromEntries(domains.map((name, i) => [name, weights[i]]));
  writeFileAtomic(path, [encoded({ version: 1, step: stepOf(session), weights: byName })]);
}

function readSession(path: string): Session {
  const text = reading(path, ({ size, read }) => {
    const bytes = new Uint8Array(size);
    read(0, bytes);
    return new TextDecoder().decode(bytes);
  });
  const source = { source: path, code: "checkpoint", advice: "to begin anew, name another file" } as const;
  const json = jsonOf(text, source);
  try {
    return restoreSession(json);
  } catch (cause) {
    const why = (cause instanceof Error ? cause.message : String(cause)).replaceAll(/\s*\n\s*/g, " ");
    throw new GradmixError("checkpoint", faultOf(source)("", why).message, { cause });
  }
}
