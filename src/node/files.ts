/** Writes files atomically: to a temporary file beside the target, which is synced and then renamed. */
import * as nodeFs from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import { makeFolders } from "../folders-node.ts";
import type { ByteSource } from "../nn/safetensors.ts";
import { reason } from "./system-errors.ts";

/** The functions of node:fs that writing needs; tests pass ones of a disk that fills up. */
export interface WriteFs {
  openSync(path: string, flags: string): number;
  writeSync(file: number, bytes: Uint8Array, offset?: number, length?: number): number;
  fsyncSync(file: number): void;
  ftruncateSync(file: number, length: number): void;
  closeSync(file: number): void;
  renameSync(from: string, to: string): void;
  linkSync(from: string, to: string): void;
  rmSync(path: string, options?: { force?: boolean; recursive?: boolean }): void;
  mkdirSync(path: string): void;
}

/** Matches the names of temporary files that a killed writer may leave behind. */
export const temporaryName: RegExp = /^\..+\.\d+\.tmp$/;

/**
 * Removes what a program wrote to a folder and leaves everything else: the files whose paths in it match a pattern, pattern by pattern, and then the
 * folders whose paths match one and that are empty ("" is the folder itself). Paths have "/" on every system. Throws `io`.
 */
export function removeOwn(folder: string, patterns: readonly RegExp[]): void {
  try {
    const entries = nodeFs
      .readdirSync(folder, { recursive: true, encoding: "utf8" })
      .map((path) => path.replaceAll("\\", "/"));
    const isFolder = (path: string): boolean | undefined =>
      nodeFs.lstatSync(join(folder, path), { throwIfNoEntry: false })?.isDirectory();
    for (const pattern of patterns)
      for (const path of entries)
        if (pattern.test(path) && isFolder(path) === false) nodeFs.rmSync(join(folder, path));
    // The deepest come first.
    for (const path of ["", ...entries.sort()].reverse())
      if (
        patterns.some((pattern) => pattern.test(path)) &&
        isFolder(path) === true &&
        nodeFs.readdirSync(join(folder, path)).length === 0
      )
        nodeFs.rmdirSync(join(folder, path));
  } catch (error) {
    throw ioError(folder, error);
  }
}

/** The contents of a file as parts, one after another. */
export interface FileParts {
  readonly path: string;
  readonly parts: Iterable<Uint8Array>;
}

/** Replaces `path` by `parts`, one after another. Throws `io`; then the old file stays and the temporary one is removed. */
export function writeFileAtomic(path: string, parts: Iterable<Uint8Array>, fs: WriteFs = nodeFs): void {
  writeFilesAtomic([{ path, parts }], fs);
}

/**
 * Replaces several files, each atomically. All are written to disk beside their targets before the first is renamed, so if one cannot be written, the
 * others are unchanged. A symbolic link stays, and its target is replaced. Throws `io`, also if something other than a file is at the target; the
 * temporary files are then removed.
 */
export function writeFilesAtomic(files: readonly FileParts[], fs: WriteFs = nodeFs): void {
  const written: { readonly path: string; readonly place: string; readonly temporary: string }[] = [];
  let current = "";
  try {
    for (const { path, parts } of files) {
      current = path;
      const place = placeOf(path);
      const temporary = join(dirname(place), `.${basename(place)}.${process.pid}.tmp`);
      makeFolders(dirname(place), fs);
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
    // The first error is the one to report.
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

/**
 * The path that is renamed over: the end of the symbolic links. Throws `io` for what a rename must not replace, such as a folder, or a device, which
 * root could replace.
 */
function placeOf(path: string): string {
  const stats = nodeFs.statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) {
    // A link to a file that does not exist yet. A circle of links has made `statSync` fail.
    const isLink = nodeFs.lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
    return isLink ? placeOf(resolve(dirname(path), nodeFs.readlinkSync(path))) : path;
  }
  if (stats.isFile()) return nodeFs.lstatSync(path).isSymbolicLink() ? nodeFs.realpathSync(path) : path;
  const what = stats.isDirectory() ? "a folder" : "a device, pipe or socket";
  throw new GradmixError("io", `${path}: cannot be written (it is ${what}); name a file`);
}

/**
 * Replaces the folder `path` by one with these files: they are written and synced in a folder beside it, which is then renamed. Throws `io`; then the
 * old folder stays. If the writer is killed between the two renames, there is no folder of that name, and `recoverFolder` moves the new one there.
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
  try {
    syncFolder(dirname(path), fs);
  } catch (error) {
    throw ioError(path, error);
  }
  quietly(() => fs.rmSync(former, { recursive: true, force: true }));
}

/**
 * Recovers after a writer was killed: if the old folder had been moved away, the new one is complete and takes its place. All other remains are
 * removed. Throws `io`.
 */
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

/** The temporary folders beside a folder: `next` receives the new files, and `former` is the old folder until the new one is in place. */
function besideFolder(path: string): { readonly next: string; readonly former: string } {
  const place = (what: string): string => join(dirname(path), `.${basename(path)}.${what}`);
  return { next: place("next"), former: place("former") };
}

/** Ignores errors, where an earlier error is the one to report or nothing can be done. */
export function quietly(task: () => void): void {
  try {
    task();
  } catch {
    // An earlier error is reported, or the cleanup is optional.
  }
}

/** Writes all bytes; `writeSync` may write fewer than it was given. */
export function writeAll(file: number, bytes: Uint8Array, fs: WriteFs = nodeFs): void {
  // At most 1 GiB per call: the system call itself stops slightly below 2 GiB.
  for (let at = 0; at < bytes.length;)
    at += fs.writeSync(file, bytes, at, Math.min(bytes.length - at, 2 ** 30));
}

/** Syncs a folder, so that a rename survives a power failure. */
function syncFolder(folder: string, fs: WriteFs): void {
  let handle: number;
  try {
    handle = fs.openSync(folder, "r");
  } catch {
    // Not every system can open a folder; then there is nothing to sync.
    return;
  }
  try {
    fs.fsyncSync(handle);
  } catch (error) {
    // Not every file system can sync a folder.
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
          // At most 1 GiB per call: the system call itself stops slightly below 2 GiB.
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

/** A file of any size, which is opened whenever a part of it is read. Throws the error of the system if it does not exist. */
export function fileSource(path: string): ByteSource {
  const { size } = nodeFs.statSync(path);
  return { size, read: (at, into) => withFile(path, (source) => source.read(at, into)) };
}

/**
 * Passes the lines of an open file from byte `from` on to `visit`, each with the offset after it, until `visit` returns false. A last line that has no end
 * yet is left out. Throws the error of the system.
 */
export function eachLine(file: number, from: number, visit: (line: string, end: number) => boolean): void {
  const chunk = Buffer.alloc(2 ** 20);
  let rest = Buffer.alloc(0);
  for (let bytes = from; ;) {
    const count = nodeFs.readSync(file, chunk, 0, chunk.length, bytes + rest.length);
    if (count === 0) return;
    const block = Buffer.concat([rest, chunk.subarray(0, count)]);
    let start = 0;
    for (let end = block.indexOf(10); end >= 0; end = block.indexOf(10, start)) {
      if (!visit(block.toString("utf8", start, end), bytes + end + 1)) return;
      start = end + 1;
    }
    bytes += start;
    rest = block.subarray(start);
  }
}

/** Makes the `io` error for a file that cannot be written; a GradmixError is returned unchanged. */
export function ioError(path: string, error: unknown): GradmixError {
  if (error instanceof GradmixError) return error;
  return new GradmixError("io", `${path}: cannot be written (${reason(error)})`, { cause: error });
}

/** The error for a path that cannot be read. */
export function readError(path: string, error: unknown): GradmixError {
  if (error instanceof GradmixError) return error;
  return new GradmixError("io", `${path}: cannot be read (${reason(error)})`, { cause: error });
}

/** Returns the result of `use` on an open file. Throws `io` if it cannot be read; a GradmixError of `use` passes unchanged. */
export function reading<T>(path: string, use: (source: ByteSource) => T): T {
  try {
    return withFile(path, use);
  } catch (error) {
    throw readError(path, error);
  }
}
