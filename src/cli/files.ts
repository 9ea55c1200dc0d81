/** Writing files whole or not at all: to a temporary file beside the target, synced, then renamed over it. */
import * as nodeFs from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import { reason } from "./values.ts";

/** The calls that writing needs; tests hand in a disk that fills up. */
export type WriteFs = Pick<
  typeof nodeFs,
  "openSync" | "writeSync" | "fsyncSync" | "closeSync" | "renameSync" | "rmSync" | "mkdirSync"
>;

/** Names of files that a killed writer may leave behind. */
export const temporaryName: RegExp = /^\..+\.\d+\.tmp$/;

/** Replaces `path` with `parts`, one after another. Throws `io`; the old file stays, the temporary one goes. */
export function writeFileAtomic(path: string, parts: readonly Uint8Array[], fs: WriteFs = nodeFs): void {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${process.pid}.tmp`);
  try {
    // Absolute: Node's recursive mkdir never returns when the current folder is gone and the path is relative.
    fs.mkdirSync(resolve(folder), { recursive: true });
    const file = fs.openSync(temporary, "w");
    try {
      for (const part of parts) writeAll(file, part, fs);
      fs.fsyncSync(file);
    } finally {
      fs.closeSync(file);
    }
    fs.renameSync(temporary, path);
  } catch (error) {
    try {
      fs.rmSync(temporary, { force: true });
    } catch {
      // The first error is the one to tell.
    }
    throw ioError(path, error);
  }
  syncFolder(folder, fs);
}

/** `writeSync` may write less than it was given. */
export function writeAll(file: number, bytes: Uint8Array, fs: WriteFs = nodeFs): void {
  // At most 1 GiB a call: the system call itself stops a little below 2 GiB.
  for (let at = 0; at < bytes.length;)
    at += fs.writeSync(file, bytes, at, Math.min(bytes.length - at, 2 ** 30));
}

/** Makes a rename last through a power cut. Not every system can open a folder; then there is nothing to do. */
function syncFolder(folder: string, fs: WriteFs): void {
  try {
    const handle = fs.openSync(folder, "r");
    try {
      fs.fsyncSync(handle);
    } finally {
      fs.closeSync(handle);
    }
  } catch {
    // Windows.
  }
}

/** A whole file, also one over 2 GiB, which `readFileSync` refuses. */
export function readWhole(path: string): Uint8Array {
  const file = nodeFs.openSync(path, "r");
  try {
    const bytes = new Uint8Array(nodeFs.fstatSync(file).size);
    let at = 0;
    while (at < bytes.length) {
      const count = nodeFs.readSync(file, bytes, at, Math.min(bytes.length - at, 2 ** 30), null);
      if (count === 0) break;
      at += count;
    }
    return bytes.subarray(0, at);
  } finally {
    nodeFs.closeSync(file);
  }
}

export function ioError(path: string, error: unknown): GradmixError {
  if (error instanceof GradmixError) return error;
  return new GradmixError("io", `${path}: cannot be written (${reason(error)})`, { cause: error });
}
