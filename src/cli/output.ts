/**
 * Standard output and standard error, written so that a run never depends on who reads them. Text is handed over in the background, so that a
 * reader that reads nothing (a pager, a stopped program) holds nobody up; text that cannot be written (a reader that went away, a full disk, a
 * terminal that was closed) is dropped, and `lost` says why.
 */
import type { Writable } from "node:stream";
import { errorCode } from "../errors.ts";

export interface Output {
  write(text: string): void;
  readonly isTTY: boolean;
  /** Width of the terminal; undefined where there is none. */
  readonly columns: number | undefined;
  /** More text waits than a reader leaves that reads at all. */
  readonly behind: boolean;
  /** The system's code (EPIPE, ENOSPC, …) for the first text that was dropped; null while there is none. */
  readonly lost: string | null;
  /** Resolves to true once all text is written, and to false when some was dropped or `milliseconds` have passed. */
  flush(milliseconds?: number): Promise<boolean>;
}

/** `process.stdout` is one. */
export type OutputStream = Writable & { readonly isTTY?: boolean; readonly columns?: number };

const BEHIND_BYTES = 1 << 12;
/** A reader that takes nothing for long gets no more than this; what is written beyond it is dropped. */
const MOST_BYTES = 1 << 20;

export function openOutput(stream: OutputStream): Output {
  let pending = 0;
  let lost: string | null = null;
  let stuck = false;
  let idle: (() => void)[] = [];
  const drop = (error: unknown): void => {
    lost ??= errorCode(error) === "" ? "EIO" : errorCode(error);
  };
  // A stream without a listener throws. The write's own callback tells as well, or tells only of what failed after it.
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
    isTTY: stream.isTTY === true,
    get columns() {
      return stream.columns;
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
    async flush(milliseconds = 2000) {
      // Who took nothing for so long once is not waited for again.
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
