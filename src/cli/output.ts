/**
 * Standard output and standard error, written so that a run never depends on who reads them. Text is handed to the system in the
 * background, so that a reader that does not read (a pager, a stopped terminal) holds nobody up; text that cannot be written (a reader that
 * went away, a full disk, a terminal that was closed) is dropped, and `lost` says why.
 */
import * as nodeFs from "node:fs";
import { isatty } from "node:tty";
import { errorCode } from "./values.ts";

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

/** The system call, and the time between two tries; tests hand in others. */
export interface OutputSystem {
  write(
    fd: number,
    bytes: Uint8Array,
    done: (error: NodeJS.ErrnoException | null, written: number) => void,
  ): void;
  readonly retryMilliseconds: number;
}

const system: OutputSystem = {
  write(fd, bytes, done) {
    // A Windows console wants text, not bytes.
    if (process.platform === "win32" && isatty(fd))
      (fd === 1 ? process.stdout : process.stderr).write(bytes, (error) => done(error ?? null, bytes.length));
    else nodeFs.write(fd, bytes, 0, bytes.length, null, done);
  },
  retryMilliseconds: 20,
};

const BEHIND_BYTES = 1 << 12;
/** A reader that takes nothing for long gets no more than this; what is written beyond it is dropped. */
const MOST_BYTES = 1 << 20;

export function openOutput(fd: 1 | 2, { write, retryMilliseconds }: OutputSystem = system): Output {
  const terminal = isatty(fd);
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  let writing = false;
  let lost: string | null = null;
  let idle: (() => void)[] = [];

  const next = (): void => {
    if (writing) return;
    if (waiting.length === 0) {
      const done = idle;
      idle = [];
      for (const resolve of done) resolve();
      return;
    }
    const bytes = waiting.length === 1 ? waiting[0] : Buffer.concat(waiting);
    waiting = [];
    waitingBytes = 0;
    writing = true;
    send(bytes);
  };
  const send = (bytes: Uint8Array): void => {
    write(fd, bytes, (error, written) => {
      const code = error === null ? "" : errorCode(error);
      // Whoever shares the terminal or the pipe may have made it one that does not wait.
      if (code === "EAGAIN" || code === "EINTR") {
        setTimeout(() => send(bytes), retryMilliseconds);
        return;
      }
      if (error === null && written < bytes.length) {
        send(bytes.subarray(written));
        return;
      }
      if (error !== null) lost ??= code === "" ? "EIO" : code;
      writing = false;
      next();
    });
  };

  return {
    isTTY: terminal,
    get columns() {
      return terminal ? (fd === 1 ? process.stdout : process.stderr).columns : undefined;
    },
    get behind() {
      return waitingBytes > BEHIND_BYTES;
    },
    get lost() {
      return lost;
    },
    write(text) {
      const bytes = new TextEncoder().encode(text);
      if (waitingBytes + bytes.length > MOST_BYTES) {
        lost ??= "EAGAIN";
        return;
      }
      waiting.push(bytes);
      waitingBytes += bytes.length;
      next();
    },
    async flush(milliseconds = 2000) {
      if (writing || waiting.length > 0) {
        let timer: NodeJS.Timeout | undefined;
        const timeout = new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds)));
        await Promise.race([new Promise<void>((resolve) => idle.push(resolve)), timeout]);
        clearTimeout(timer);
      }
      return !writing && waiting.length === 0 && lost === null;
    },
  };
}
