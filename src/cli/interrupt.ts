/**
 * Handles the signals that end a run: SIGINT (Ctrl-C), SIGTERM, and SIGHUP when its terminal closes. The first one requests a clean end. A
 * second SIGINT or SIGTERM ends the process at once, but only after the line that announces this has been shown, or could not be shown.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import type { Output } from "./output.ts";

/** Exit codes: 128 plus the number of the signal, as in shells. */
const codes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type Name = keyof typeof codes;
const names = Object.keys(codes) as Name[];

/** On a terminal, one Ctrl-C may arrive two times: from the terminal, and through npx. Nobody reads a line in a shorter time than this. */
const readingMilliseconds = 250;

export interface Interrupt {
  readonly signal: AbortSignal;
  /** Exit code of a run that a signal ended. */
  exitCode(): number;
  stop(): void;
}

export interface InterruptOptions {
  /** The output to which `line` writes. */
  readonly output: Output;
  /** Tells the user what the first signal does. */
  line(): void;
  /** Does what is necessary before the process ends at once. */
  atOnce(): void;
}

/** Listens until `stop` is called. A signal that the process was started to ignore stays ignored. */
export function listenForInterrupt({ output, line, atOnce }: InterruptOptions): Interrupt {
  const controller = new AbortController();
  let code: number = codes.SIGINT;
  let offered = false;
  const ignored = new Set<Name>(ignoresHangups() ? ["SIGHUP"] : []);
  const offer = async (): Promise<void> => {
    const shown = await output.flush();
    // Signals that arrive while the event loop is blocked are all handled before the next immediate. If nobody reads the output, a signal that
    // arrives later still ends the process.
    if (output.isTTY || !shown) setTimeout(() => (offered = true), readingMilliseconds).unref();
    else setImmediate(() => (offered = true));
  };
  const listener = (name: NodeJS.Signals): void => {
    const known = names.find((one) => one === name) ?? "SIGINT";
    if (ignored.has(known)) return;
    if (!controller.signal.aborted) {
      code = codes[known];
      line();
      void offer();
      controller.abort();
      return;
    }
    // A closing terminal sends its hang-up two times: itself, and through its shell.
    if (known === "SIGHUP" || !offered) return;
    atOnce();
    process.exit(codes[known]);
  };
  for (const name of names) process.on(name, listener);
  return {
    signal: controller.signal,
    exitCode: () => code,
    stop() {
      for (const name of names) process.off(name, listener);
    },
  };
}

/** Where a command says what it does: on a terminal, lines above one that is rewritten. */
interface Status {
  line(text: string): void;
  /** Ends the line that is rewritten. */
  end(): void;
}

/**
 * Runs `work`. Returns null if it ends by itself. If an interruption stops it, prints the line `stopped` and returns the exit code. Flushes `output` before it
 * returns.
 */
export async function untilInterrupted(
  { output, status, stopped }: { readonly output: Output; readonly status: Status; readonly stopped: string },
  work: (signal: AbortSignal) => Promise<void>,
): Promise<number | null> {
  const interrupt = listenForInterrupt({
    output,
    line: () => status.line("stopping; Ctrl-C again to stop at once"),
    atOnce: () => {},
  });
  try {
    await work(interrupt.signal);
    return null;
  } catch (error) {
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
    status.line(stopped);
    return interrupt.exitCode();
  } finally {
    interrupt.stop();
    status.end();
    await output.flush();
  }
}

/**
 * Whether the process was started so that a closing terminal does not end it. Node forgets at its start that a signal was ignored, so this
 * function looks for traces of `nohup`: its name as the last command (bash, zsh and ksh export it as `_`), the standard input that GNU's
 * version makes unreadable, or a parent that ignores hang-ups, such as a script under nohup.
 */
function ignoresHangups(): boolean {
  if (basename(process.env["_"] ?? "") === "nohup") return true;
  return process.platform === "linux" && (inputIsUnreadableNull() || parentIgnoresHangups(process.ppid));
}

function inputIsUnreadableNull(): boolean {
  try {
    const flags = /^flags:\s*(\d+)/m.exec(readFileSync("/proc/self/fdinfo/0", "utf8"))?.[1] ?? "";
    // The two lowest bits are the access mode: 0 reads, 1 writes, 2 does both.
    return readlinkSync("/proc/self/fd/0") === "/dev/null" && (Number.parseInt(flags, 8) & 3) === 1;
  } catch {
    return false;
  }
}

function parentIgnoresHangups(parent: number): boolean {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)/m.exec(readFileSync(`/proc/${parent}/status`, "utf8"))?.[1] ?? "0";
    return (BigInt(`0x${mask}`) & 1n) === 1n;
  } catch {
    return false;
  }
}
