/** Holds the session of a process and stores it in files. A reply is only given after the state behind it has been written. */
import * as nodeFs from "node:fs";
import { GradmixError } from "../errors.ts";
import { byName } from "./fields.ts";
import { type FileParts, reading, type WriteFs, writeFilesAtomic } from "../node/files.ts";
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

/** Holds a session and answers its messages. */
export interface Keeper {
  /** The present session; null before the first `init`. */
  session(): Session | null;
  /** Answers a line of text, after the files have been written. */
  line(text: string): Reply;
  /** Answers a message that is already parsed, after the files have been written. */
  message(message: unknown): Reply;
}

/** Paths of the files that a keeper writes. */
export interface KeeperFiles {
  /** File that stores the session. If it exists, the session continues from it. null: the session is not stored. */
  readonly state: string | null;
  /** File that receives the weights whenever they change, for processes that poll a file. null: none is written. */
  readonly weights: string | null;
}

/** Makes a keeper. Throws `checkpoint` for a stored session that cannot be continued, and `io` for files that cannot be read or written. */
export function createKeeper(files: KeeperFiles, fs: WriteFs = nodeFs): Keeper {
  let session = files.state === null || !nodeFs.existsSync(files.state) ? null : readSession(files.state);
  // A process that was killed between its two writes has stored the session but not the weights, so they are written now.
  if (session !== null && files.weights !== null) writeFilesAtomic([weightsFile(files.weights, session)], fs);
  const kept = (made: Answer): Reply => {
    if (made.session === session || made.session === null) return made.reply;
    const weighted = session === null || changed(session, made.session);
    try {
      // The state comes last: it makes the message count, also for a process that is started again. Such a process writes the weights of its state.
      writeFilesAtomic(
        [
          ...(files.weights === null || !weighted ? [] : [weightsFile(files.weights, made.session)]),
          ...(files.state === null ? [] : [{ path: files.state, parts: [encoded(made.session)] }]),
        ],
        fs,
      );
    } catch (error) {
      // The session stays as it was if it could not be stored, so the trainer can send the same message again.
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

function weightsFile(path: string, session: Session): FileParts {
  const { domains, weights } = session.mixer.rule;
  const named = byName(domains, weights);
  return { path, parts: [encoded({ version: 1, step: stepOf(session), weights: named })] };
}

function readSession(path: string): Session {
  const text = reading(path, ({ size, read }) => {
    const bytes = new Uint8Array(size);
    read(0, bytes);
    return new TextDecoder().decode(bytes);
  });
  const source = {
    source: path,
    code: "checkpoint",
    advice: "to start a new session, name another file",
  } as const;
  const json = jsonOf(text, source);
  try {
    return restoreSession(json);
  } catch (cause) {
    const why = (cause instanceof Error ? cause.message : String(cause)).replaceAll(/\s*\n\s*/g, " ");
    throw new GradmixError("checkpoint", faultOf(source)("", why).message, { cause });
  }
}
