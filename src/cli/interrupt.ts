/**
 * What ends a run from outside: Ctrl-C (SIGINT), SIGTERM, and SIGHUP when its terminal goes away. The first one asks for a clean end; a
 * second SIGINT or SIGTERM ends at once, but only after the line that offers it was shown.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import type { Output } from "./output.ts";

/** 128 and the signal's number, as shells have it. */
const codes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type Name = keyof typeof codes;
const names = Object.keys(codes) as Name[];

/** On a terminal one Ctrl-C may arrive twice: from the terminal, and passed on by npx. Nobody reads a line in less than this. */
const readingMilliseconds = 250;

export interface Interrupt {
  readonly signal: AbortSignal;
  /** Of a run that a signal ended. */
  exitCode(): number;
  stop(): void;
}

export interface InterruptOptions {
  /** Where `line` goes. */
  readonly output: Output;
  /** Shows what the first signal does. */
  line(): void;
  /** Does what must be done before the process ends at once. */
  atOnce(): void;
}

/** Listens until `stop`. A signal that the process was told to ignore stays ignored. */
export function listenForInterrupt({ output, line, atOnce }: InterruptOptions): Interrupt {
  const controller = new AbortController();
  let code: number = codes.SIGINT;
  let offered = false;
  const ignored = new Set<Name>(ignoresHangups() ? ["SIGHUP"] : []);
  const offer = async (): Promise<void> => {
    if (!(await output.flush())) return;
    // Signals that came while the event loop stood still are handled one right after the other, before the next immediate.
    if (output.isTTY) setTimeout(() => (offered = true), readingMilliseconds).unref();
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
    // A closing terminal sends its hang-up twice: itself, and by its shell.
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

/**
 * Was the process started so that a closing terminal does not end it? Node itself forgets that a signal was ignored when it starts, so this looks for
 * what `nohup` leaves behind: its name as the last command (bash, zsh and ksh export it as `_`), the standard input that GNU's makes unreadable,
 * or a parent that ignores hang-ups, such as a script under nohup.
 */
function ignoresHangups(): boolean {
  if (basename(process.env["_"] ?? "") === "nohup") return true;
  return process.platform === "linux" && (inputIsUnreadableNull() || parentIgnoresHangups(process.ppid));
}

function inputIsUnreadableNull(): boolean {
  try {
    const flags = /^flags:\s*(\d+)/m.exec(readFileSync("/proc/self/fdinfo/0", "utf8"))?.[1] ?? "";
    // The two lowest bits: 0 reads, 1 writes, 2 does both.
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
