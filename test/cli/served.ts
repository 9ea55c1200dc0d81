/**
 * Runs `gradmix` in a process that stays, because most of the time of a short command is spent on loading its modules. The command begins in the state in
 * which the one before left the process, so tests of signals, of standard input and of what happens at the start or the end of a process start one of
 * their own.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const root = resolve(import.meta.dirname, "../..");
/** Longest time that a command may take. */
const MILLISECONDS = 60_000;
const NEWLINE = 10;

interface Server {
  readonly child: ChildProcess;
  readonly folder: string;
  readonly requests: number;
  readonly responses: number;
}

let server: Server | null = null;

function start(): Server {
  const folder = mkdtempSync(join(tmpdir(), "gradmix-served-"));
  const at = (name: string): string => join(folder, name);
  const [requests, responses, log] = [at("requests"), at("responses"), at("log")];
  execFileSync("mkfifo", [requests, responses]);
  // Opening a FIFO waits for its other end, unless it is opened for both, or without waiting.
  const opened = {
    requests: openSync(requests, constants.O_RDWR),
    responses: openSync(responses, constants.O_RDONLY | constants.O_NONBLOCK),
  };
  const written = openSync(log, "w");
  const child = spawn(process.execPath, [join(import.meta.dirname, "serve.mjs"), requests, responses], {
    stdio: ["ignore", written, written],
  });
  closeSync(written);
  child.unref();
  process.once("exit", () => {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  });
  return { child, folder, ...opened };
}

function stop({ child, folder, requests, responses }: Server): string {
  server = null;
  child.kill("SIGKILL");
  closeSync(requests);
  closeSync(responses);
  return readFileSync(join(folder, "log"), "utf8");
}

const clock = new Int32Array(new SharedArrayBuffer(4));

/** The next line that the server writes. Throws if it takes too long. */
function answerOf(running: Server): string {
  const until = performance.now() + MILLISECONDS;
  const chunks: Buffer[] = [];
  const chunk = Buffer.alloc(1 << 16);
  for (;;) {
    let read = 0;
    try {
      read = readSync(running.responses, chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
    if (read === 0) {
      // Nothing yet, or the process has ended.
      if (performance.now() > until || isGone(running.child))
        throw new Error(`the process that runs commands gave no answer: ${stop(running)}`);
      Atomics.wait(clock, 0, 0, 1);
      continue;
    }
    chunks.push(Buffer.from(chunk.subarray(0, read)));
    if (chunk[read - 1] === NEWLINE) return Buffer.concat(chunks).toString("utf8");
  }
}

function isGone({ pid }: ChildProcess): boolean {
  try {
    return pid === undefined || /^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return process.platform === "linux";
  }
}

/** Runs `gradmix` with the words after its name to its end. */
export function runCommand(
  args: readonly string[],
  { cwd, input = "" }: { readonly cwd: string; readonly input?: string },
): Ended {
  // Windows has no FIFOs in folders.
  if (process.platform === "win32")
    return spawnSync(process.execPath, [join(root, "dist/cli/main.js"), ...args], { cwd, input, encoding: "utf8" }); // prettier-ignore
  server ??= start();
  const request = Buffer.from(`${JSON.stringify({ args, cwd, env: process.env, input })}\n`);
  for (let at = 0; at < request.length;) at += writeSync(server.requests, request, at);
  return JSON.parse(answerOf(server)) as Ended;
}
