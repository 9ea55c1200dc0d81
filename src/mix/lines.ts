/** The protocol over two streams: one line of output per line of input. The length of a line is limited, so that no message can use up the memory. */
import type { Writable } from "node:stream";
import { MessageError } from "./fields.ts";
import { errorReply, type Reply } from "./protocol.ts";

/** Largest number of bytes of a message. The Gram matrix of a thousand domains takes 20 MB as decimals. */
export const MOST_BYTES: number = 64 * 2 ** 20;

/** A line without its newline, or the error for a line that cannot be read. */
export type Line = string | MessageError;

/**
 * Yields the lines of a stream, including a last line without a newline unless it is empty, or `unfinished` is "drop". A line of more than `most`
 * bytes, or one that is not UTF-8, yields an error.
 */
export async function* linesOf(
  input: AsyncIterable<Uint8Array | string>,
  most: number = MOST_BYTES,
  unfinished: "take" | "drop" = "take",
): AsyncGenerator<Line, void> {
  let parts: Uint8Array[] = [];
  let size = 0;
  const add = (part: Uint8Array): void => {
    size += part.length;
    // The bytes of a line that is too long are counted but not stored.
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
  if (size > 0 && unfinished === "take") yield finishLine();
}

/** The error for a message of more than `most` bytes. */
export function tooLong(most: number): MessageError {
  return new MessageError(null, `the message is longer than ${most} bytes, the most that is read`);
}

/** Decodes bytes as UTF-8; an error if they are not valid UTF-8. */
export function decoded(bytes: Uint8Array): Line {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new MessageError(null, "the message is not valid UTF-8");
  }
}

/** Answers every line until the input ends or the output cannot be written. */
export async function serveLines(
  input: AsyncIterable<Uint8Array | string>,
  output: Writable,
  reply: (line: string) => Reply,
): Promise<void> {
  // A stream without a listener throws when it fails; here the callback of `write` reports the failure.
  output.on("error", () => {});
  for await (const line of linesOf(input)) {
    const made = typeof line === "string" ? reply(line) : errorReply(line);
    if (!(await writeLine(output, made))) return;
  }
}

/**
 * Writes a value as a line of JSON and waits until the stream has accepted it. Returns false if the write fails, because the reader closed the stream or the
 * disk is full.
 */
export async function writeLine(output: Writable, value: unknown): Promise<boolean> {
  return new Promise((resolve) => {
    output.write(`${JSON.stringify(value)}\n`, (error) => resolve(error === undefined || error === null));
  });
}
