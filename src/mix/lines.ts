/** The protocol over two streams: a line in, a line out. Lines are bounded, so that nothing that is sent takes all memory. */
import type { Writable } from "node:stream";
import { MessageError } from "./fields.ts";
import { errorReply, type Reply } from "./protocol.ts";

/** Most bytes of a message. The Gram matrix of a thousand domains, in decimals, has 20 MB. */
export const MOST_BYTES: number = 64 * 2 ** 20;

/** A line without its end, or what is wrong with it. */
export type Line = string | MessageError;

/** The lines of a stream; one without an end too, if anything is in it. */
export async function* linesOf(
  input: AsyncIterable<Uint8Array | string>,
  most: number = MOST_BYTES,
): AsyncGenerator<Line, void> {
  let parts: Uint8Array[] = [];
  let size = 0;
  const add = (part: Uint8Array): void => {
    size += part.length;
    // What is too long is counted, and not kept.
    if (size > most) parts = [];
    else if (part.length > 0) parts.push(part);
  };
  const finishLine = (): Line => {
    const line = size > most ? tooLong(most) : decoded(Buffer.concat(parts, size));
    parts = [];
    size = 0;
    return line;
  };
  for await (const chunk of input) {
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    let from = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
      add(bytes.subarray(from, end));
      yield finishLine();
      from = end + 1;
    }
    add(bytes.subarray(from));
  }
  if (size > 0) yield finishLine();
}

export function tooLong(most: number): MessageError {
  return new MessageError(null, `the message is longer than ${most} bytes, the most that is read`);
}

export function decoded(bytes: Uint8Array): Line {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new MessageError(null, "the message is not valid UTF-8");
  }
}

/** Answers line by line until the input ends or the output takes no more. */
export async function serveLines(
  input: AsyncIterable<Uint8Array | string>,
  output: Writable,
  reply: (line: string) => Reply,
): Promise<void> {
  // A stream that fails without a listener throws; the write itself tells it here.
  output.on("error", () => {});
  for await (const line of linesOf(input)) {
    const made = typeof line === "string" ? reply(line) : errorReply(line);
    if (!(await writeLine(output, made))) return;
  }
}

/** Writes a line of JSON, and waits until it is handed over. False where it cannot be: the reader went away, or the disk is full, which whoever has the stream is told by its "error". */
export async function writeLine(output: Writable, value: unknown): Promise<boolean> {
  return new Promise((resolve) => {
    output.write(`${JSON.stringify(value)}\n`, (error) => resolve(error === undefined || error === null));
  });
}
