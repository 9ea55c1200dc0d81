/** Writing files whole or not at all: to a temporary file beside the target, synced, then renamed over it. */
import * as nodeFs from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import type { ByteSource } from "../nn/safetensors.ts";
import { reason } from "./system-errors.ts";

/** The calls of node:fs that writing needs; tests hand in a disk that fills up. */
export interface WriteFs {
  openSync(path: string, flags: string): number;
  writeSync(file: number, bytes: Uint8Array, offset?: number, length?: number): number;
  fsyncSync(file: number): void;
  ftruncateSync(file: number, length: number): void;
  closeSync(file: number): void;
  renameSync(from: string, to: string): void;
  linkSync(from: string, to: string): void;
  rmSync(path: string, options?: { force?: boolean; recursive?: boolean }): void;
  mkdirSync(path: string, options: { recursive: true }): string | undefined;
}

/** Names of files that a killed writer may leave behind. */
export const temporaryName: RegExp = /^\..+\.\d+\.tmp$/;

/** What a file is to hold: its parts, one after another. */
export interface FileParts {
  readonly path: string;
  readonly parts: Iterable<Uint8Array>;
}

/** Replaces `path` with `parts`, one after another. Throws `io`; the old file stays, the temporary one goes. */
export function writeFileAtomic(path: string, parts: Iterable<Uint8Array>, fs: WriteFs = nodeFs): void {
  writeFilesAtomic([{ path, parts }], fs);
}

/**
 * Replaces several files, each whole or not at all: all are on the disk beside their places before the first takes its own, so that one that cannot be written leaves the others as
 * they were. A symbolic link stays, and what it leads to is replaced. Throws `io`, also for a place where something else than a file is; the temporary files go.
 */
export function writeFilesAtomic(files: readonly FileParts[], fs: WriteFs = nodeFs): void {
  const written: { readonly path: string; readonly place: string; readonly temporary: string }[] = [];
  let current = "";
  try {
    for (const { path, parts } of files) {
      current = path;
      const place = placeOf(path);
      const temporary = join(dirname(place), `.${basename(place)}.${process.pid}.tmp`);
      // Absolute: Node's recursive mkdir never returns when the current folder is gone and the path is relative.
      fs.mkdirSync(resolve(dirname(place)), { recursive: true });
      written.push({ path, place, temporary });
      const file = fs.openSync(temporary, "w");
      try {
        for (const part of parts) writeAll(file, part, fs);
        fs.fsyncSync(file);
      } finally {
        fs.closeSync(file);
      }
    }
    for (const { path, place, temporary } of written) {
      current = path;
      fs.renameSync(temporary, place);
    }
  } catch (error) {
    // The first error is the one to tell.
    for (const { temporary } of written) quietly(() => fs.rmSync(temporary, { force: true }));
    throw ioError(current, error);
  }
  for (const folder of new Set(written.map(({ place }) => dirname(place))))
    try {
      syncFolder(folder, fs);
    } catch (error) {
      throw ioError(current, error);
    }
}

/** Where a file is replaced by a rename: the end of its symbolic links. Throws `io` for what a rename must not replace, such as a folder, or a device, which root could. */
function placeOf(path: string): string {
  const there = nodeFs.statSync(path, { throwIfNoEntry: false });
  if (there === undefined) return path;
  if (there.isFile()) return nodeFs.lstatSync(path).isSymbolicLink() ? nodeFs.realpathSync(path) : path;
  const what = there.isDirectory() ? "a folder" : "a device, pipe or socket";
  throw new GradmixError("io", `${path}: cannot be written (it is ${what}); name a file`);
}

/**
 * Replaces the folder `path` by one with these files: they are written and synced in a folder beside it, which is then renamed. Throws `io`; the old folder stays. A writer that is
 * killed between the two renames leaves no folder of that name, and `recoverFolder` puts the new one there.
 */
export function writeFolderAtomic(
  path: string,
  files: ReadonlyMap<string, Uint8Array>,
  fs: WriteFs = nodeFs,
): void {
  const { next, former } = besideFolder(path);
  try {
    fs.rmSync(next, { recursive: true, force: true });
    fs.rmSync(former, { recursive: true, force: true });
    for (const [name, contents] of files) writeFileAtomic(join(next, name), [contents], fs);
    if (nodeFs.existsSync(path)) fs.renameSync(path, former);
    fs.renameSync(next, path);
  } catch (error) {
    quietly(() => recoverFolder(path, fs));
    throw ioError(path, error);
  }
  quietly(() => fs.rmSync(former, { recursive: true, force: true }));
  try {
    syncFolder(dirname(path), fs);
  } catch (error) {
    throw ioError(path, error);
  }
}

/** After a writer was killed: where it had moved the old folder away, the new one is whole and takes its place. What else it left goes. Throws `io`. */
export function recoverFolder(path: string, fs: WriteFs = nodeFs): void {
  const { next, former } = besideFolder(path);
  try {
    if (!nodeFs.existsSync(path) && nodeFs.existsSync(former))
      fs.renameSync(nodeFs.existsSync(next) ? next : former, path);
    for (const left of [next, former]) fs.rmSync(left, { recursive: true, force: true });
  } catch (error) {
    throw ioError(path, error);
  }
}

/** Where a folder is put together, and where the one before it waits. */
function besideFolder(path: string): { readonly next: string; readonly former: string } {
  const place = (what: string): string => join(dirname(path), `.${basename(path)}.${what}`);
  return { next: place("next"), former: place("former") };
}

/** Where an earlier error is the one to tell, or there is nothing to be done about it. */
function quietly(task: () => void): void {
  try {
    task();
  } catch {
    // See above.
  }
}

/** `writeSync` may write less than it was given. */
export function writeAll(file: number, bytes: Uint8Array, fs: WriteFs = nodeFs): void {
  // At most 1 GiB a call: the system call itself stops a little below 2 GiB.
  for (let at = 0; at < bytes.length;)
    at += fs.writeSync(file, bytes, at, Math.min(bytes.length - at, 2 ** 30));
}

/** Makes a rename last through a power cut. */
function syncFolder(folder: string, fs: WriteFs): void {
  let handle: number;
  try {
    handle = fs.openSync(folder, "r");
  } catch {
    // Not every system can open a folder; then there is nothing to do.
    return;
  }
  try {
    fs.fsyncSync(handle);
  } catch (error) {
    // Nor can every file system sync one.
    if (!["EINVAL", "ENOTSUP", "EPERM", "EACCES", "EBADF", "EISDIR"].includes(errorCode(error))) throw error;
  } finally {
    fs.closeSync(handle);
  }
}

/** Opens a file of any size for `use`, and closes it. */
function withFile<T>(path: string, use: (source: ByteSource) => T): T {
  const file = nodeFs.openSync(path, "r");
  try {
    return use({
      size: nodeFs.fstatSync(file).size,
      read(from, into) {
        for (let at = 0; at < into.length;) {
          // At most 1 GiB a call: the system call itself stops a little below 2 GiB.
          const count = nodeFs.readSync(file, into, at, Math.min(into.length - at, 2 ** 30), from + at);
          if (count === 0) throw new Error(`the file became shorter while it was read`);
          at += count;
        }
      },
    });
  } finally {
    nodeFs.closeSync(file);
  }
}

/** A file of any size, opened whenever a part of it is read. Throws what the system says when it is not there. */
export function fileSource(path: string): ByteSource {
  const { size } = nodeFs.statSync(path);
  return { size, read: (at, into) => withFile(path, (source) => source.read(at, into)) };
}

export function ioError(path: string, error: unknown): GradmixError {
  if (error instanceof GradmixError) return error;
  return new GradmixError("io", `${path}: cannot be written (${reason(error)})`, { cause: error });
}

/** What `use` makes of an open file. Throws `io` when it cannot be read; a GradmixError of `use` as it is. */
export function reading<T>(path: string, use: (source: ByteSource) => T): T {
  try {
    return withFile(path, use);
  } catch (error) {
    if (error instanceof GradmixError) throw error;
    throw new GradmixError("io", `${path}: cannot be read (${reason(error)})`, { cause: error });
  }
}
