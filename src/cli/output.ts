/**
 * Standard output and standard error. What a run says is written in the background, so that a reader that does not read (a pager, a stopped
 * program) delays nothing. The result of a command, such as an exported mixture, waits for its reader. Text that cannot be written (a reader that
 * exited, a full disk, a closed terminal) is dropped, and `lost` gives the reason.
 */
import type { Writable } from "node:stream";
import { errorCode } from "../errors.ts";

export interface Output {
  /** Writes in the background. Drops text for a reader that is far behind. */
  write(text: string): void;
  /** Writes all of a text of any length, and waits as long as its reader takes. */
  deliver(text: string): Promise<void>;
  /** Whether the output is a terminal that can erase a line. */
  readonly isTTY: boolean;
  /** Width of the terminal; undefined if it is unknown, or the output is not a terminal. */
  readonly columns: number | undefined;
  /** Whether more text is waiting than an active reader would leave. */
  readonly behind: boolean;
  /** The system's error code (EPIPE, ENOSPC, …) for the first dropped text; null if none was dropped. */
  readonly lost: string | null;
  /** Resolves to true once all text has been written, and to false if some was dropped or `milliseconds` have passed. */
  flush(milliseconds?: number): Promise<boolean>;
}

/** The type of a stream such as `process.stdout`. */
export type OutputStream = Writable & { readonly isTTY?: boolean; readonly columns?: number };

const BEHIND_BYTES = 1 << 12;
/** Largest amount of waiting text for a reader that does not read; text beyond it is dropped. */
const MOST_BYTES = 1 << 20;

/** `terminal`: the kind of the terminal, as the system names it; one that is "dumb" cannot erase a line. */
export function openOutput(stream: OutputStream, terminal: string | undefined = process.env["TERM"]): Output {
  let pending = 0;
  let lost: string | null = null;
  let stuck = false;
  let idle: (() => void)[] = [];
  const drop = (error: unknown): void => {
    lost ??= errorCode(error) === "" ? "EIO" : errorCode(error);
  };
  // A stream without a listener for errors throws. The write's own callback may report the error too, or only that of a later write.
  stream.on("error", drop);
  const written = (error?: Error | null): void => {
    if (error !== undefined && error !== null) drop(error);
    pending--;
    stuck = false;
    if (pending > 0) return;
    const done = idle;
    idle = [];
    for (const resolve of done) resolve();
  };

  return {
    isTTY: stream.isTTY === true && terminal !== "dumb",
    get columns() {
      // A terminal that does not know its width reports 0.
      return stream.columns === 0 ? undefined : stream.columns;
    },
    get behind() {
      return stream.writableLength > BEHIND_BYTES;
    },
    get lost() {
      return lost;
    },
    write(text) {
      if (stream.writableLength + text.length > MOST_BYTES) {
        lost ??= "EAGAIN";
        return;
      }
      pending++;
      stream.write(text, written);
    },
    async deliver(text) {
      await new Promise<void>((resolve) => {
        pending++;
        stream.write(text, (error) => {
          written(error);
          resolve();
        });
      });
    },
    async flush(milliseconds = 2000) {
      // A reader that has not read anything for that long is not waited for another time.
      if (!stuck && pending > 0) {
        let timer: NodeJS.Timeout | undefined;
        const timeout = new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds)));
        await Promise.race([new Promise<void>((resolve) => idle.push(resolve)), timeout]);
        clearTimeout(timer);
        stuck = pending > 0;
        if (stuck) lost ??= "EAGAIN";
      }
      return pending === 0 && lost === null;
    },
  };
}
