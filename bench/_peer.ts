/** A Python program that writes one line of JSON when it is ready, and one for each line that it reads. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { GradmixError } from "gradmix";
import { isObject } from "#dist/json.js";

export interface Peer {
  /** Its first line. */
  readonly first: Readonly<Record<string, unknown>>;
  ask(line: string): Promise<Readonly<Record<string, unknown>>>;
  end(): void;
}

/** The Python that was asked for, else GRADMIX_PYTHON, else python3. */
export const pythonOf = (asked: string | null): string => asked ?? process.env["GRADMIX_PYTHON"] ?? "python3";

/** A script of bench/peers/; null where it cannot run, as when a library is missing. */
export async function startPeer(
  python: string,
  script: string,
  args: readonly string[],
): Promise<Peer | null> {
  const path = resolve(import.meta.dirname, "../../bench/peers", script);
  const child: ChildProcessWithoutNullStreams = spawn(python, [path, ...args]);
  child.stderr.resume();
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const failed = new Promise<null>((done) => child.once("error", () => done(null)));
  const next = async (): Promise<Record<string, unknown> | null> => {
    const line = await Promise.race([lines.next(), failed]);
    if (line === null || line.done === true) return null;
    const value: unknown = JSON.parse(line.value);
    return isObject(value) ? { ...value } : null;
  };
  const first = await next();
  if (first === null) return null;
  return {
    first,
    async ask(line) {
      child.stdin.write(`${line}\n`);
      const answer = await next();
      if (answer === null) throw new GradmixError("backend", `${script} has ended`);
      return answer;
    },
    end: () => void child.stdin.end(),
  };
}
