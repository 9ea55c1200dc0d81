/** Standard input as a file. Text is read more than once, so it is kept in a temporary file until the command ends. */
import { createWriteStream, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { GradmixError } from "../errors.ts";
import { reason } from "../node/system-errors.ts";
import type { DataConfig } from "./train-config.ts";
import { configError } from "./values.ts";

type Globs = Pick<DataConfig, "domains" | "domainsFrom" | "target" | "targets">;

/**
 * Replaces "-" by the path of a file with the standard input. Throws `config` if "-" is given more than once or standard input is a terminal, and
 * `io` if the file cannot be written.
 */
export async function withStdin<G extends Globs>(given: G, signal: AbortSignal): Promise<G> {
  const all = [given.domainsFrom, given.target, ...given.domains.values(), ...given.targets.values()].flat();
  const times = all.filter((glob) => glob === "-").length;
  if (times === 0) return given;
  if (times > 1) throw configError(`"-": standard input can be read only once, but is named ${times} times`);
  if (process.stdin.isTTY)
    throw configError('"-": standard input is a terminal; pipe the text into the command');
  // All runs of one command read the same file.
  const path = await (kept ??= keepStdin(signal));
  const named = (globs: readonly string[]): string[] => globs.map((glob) => (glob === "-" ? path : glob));
  const each = (of: ReadonlyMap<string, readonly string[]>) =>
    new Map(Array.from(of, ([name, globs]) => [name, named(globs)] as const));
  return {
    ...given,
    domains: each(given.domains),
    domainsFrom: named(given.domainsFrom),
    target: named(given.target),
    targets: each(given.targets),
  };
}

let kept: Promise<string> | null = null;

/** The byte order mark with which a text in UTF-8 may begin. */
const mark = [0xef, 0xbb, 0xbf];

/** Makes a folder for the file. Throws `io`, naming the variable by which another place can be chosen. */
function temporaryFolder(): string {
  try {
    return mkdtempSync(join(tmpdir(), "gradmix-stdin-"));
  } catch (error) {
    throw new GradmixError(
      "io",
      `"-": standard input cannot be kept in ${tmpdir()}, the folder for temporary files (${reason(error)}); name another folder with the variable TMPDIR`,
      { cause: error },
    );
  }
}

async function keepStdin(signal: AbortSignal): Promise<string> {
  const folder = temporaryFolder();
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "stdin");
  let first: number | null = null;
  try {
    await pipeline(
      process.stdin,
      async function* (chunks: AsyncIterable<Uint8Array>) {
        for await (const chunk of chunks) {
          first ??= chunk.find((byte) => byte > 32 && !mark.includes(byte)) ?? null;
          yield chunk;
        }
      },
      createWriteStream(path),
      { signal },
    );
  } catch (error) {
    signal.throwIfAborted();
    throw new GradmixError("io", `"-": standard input cannot be kept in ${folder} (${reason(error)})`, {
      cause: error,
    });
  }
  // The ending decides how the text is read: as lines of JSON, or as plain text.
  const whole = `${path}.${first === "{".charCodeAt(0) ? "jsonl" : "txt"}`;
  renameSync(path, whole);
  return whole;
}
