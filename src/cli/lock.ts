/**
 * The lock of a run folder: a file that names the process that writes there. The file is created atomically, as a link to a file that is
 * already complete. If the process of a lock has ended, exactly one other process takes the lock over, however many try at the same time.
 */
import { createHash, randomUUID } from "node:crypto";
import * as nodeFs from "node:fs";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { errorCode, type GradmixError } from "../errors.ts";
import { makeFolders, removeEmptyFolders } from "../folders-node.ts";
import { ioError, writeAll, type WriteFs } from "../node/files.ts";
import { realPath } from "./real-path.ts";
import { configError } from "./values.ts";

export interface Lock {
  /** Removes the lock if it still belongs to this process. */
  release(): void;
}

/** The process that holds a lock. "-" stands for what the system does not report. */
interface Owner {
  readonly pid: number;
  readonly host: string;
  /** Start time of the process, because process ids are reused, especially in containers. */
  readonly start: string;
  /** Identifies the boot of the system. */
  readonly boot: string;
  /** Distinguishes machines with the same host name. */
  readonly machine: string;
}

/** Only a system without links can leave an incomplete lock. While such a lock is being written, it is younger than this. */
const writtenMilliseconds = 10_000;

/** More attempts than this do not occur in a race. */
const mostAttempts = 1000;

/** What is locked, for messages. */
interface Locked {
  readonly kind: "folder" | "file";
  readonly path: string;
}

/** Locks an existing folder. Throws `config` if a running process holds the lock, `io` if the lock cannot be written. */
export function takeLock(folder: string, fs: WriteFs = nodeFs): Lock {
  return takeLockOf({ kind: "folder", path: folder }, join(folder, "lock"), fs);
}

/**
 * Makes a folder if it is missing, and locks it. If nothing was written to a folder that was made here, `release` also removes it, with the folders above it
 * that were made. Throws like `takeLock`; then the folders are removed at once.
 */
export function lockFolder(folder: string, fs: WriteFs = nodeFs): Lock {
  let made: string | null;
  try {
    made = makeFolders(folder, fs);
  } catch (error) {
    throw ioError(folder, error);
  }
  const tidy = (): void => {
    if (made !== null) removeEmptyFolders(folder, made);
  };
  try {
    const { release } = takeLock(folder, fs);
    return {
      release() {
        release();
        tidy();
      },
    };
  } catch (error) {
    tidy();
    throw error;
  }
}

/** Locks a file that only one process may write, in an existing folder, in the same way. */
export function takeFileLock(file: string, fs: WriteFs = nodeFs): Lock {
  return takeLockOf({ kind: "file", path: file }, fileLockPath(file), fs);
}

/** The lock of a file: beside the file itself, so that two links to it have one lock. */
export function fileLockPath(file: string): string {
  return `${realPath(file)}.lock`;
}

function takeLockOf(locked: Locked, path: string, fs: WriteFs): Lock {
  const own = contents();
  try {
    acquire(path, own, locked, fs);
  } catch (error) {
    throw ioError(path, error);
  }
  return {
    release() {
      if (read(path) === own) fs.rmSync(path, { force: true });
    },
  };
}

/** Whether a process writes to `folder`, as far as this can be determined here: a lock of another machine counts. */
export function isLocked(folder: string): boolean {
  const path = join(folder, "lock");
  const held = read(path);
  return held !== null && stateOf(held, path) !== "ended";
}

/** The names of what acquiring a lock writes beside it: files that become a lock, and claims, which may be claimed too. */
const remains = /^lock\.(new-[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}|[\da-f]{16}(\.[\da-f]{16})*)$/;

/** Whether a file of this name in a folder is its lock, or was written to acquire it. */
export function isLockName(name: string): boolean {
  return name === "lock" || remains.test(name);
}

/** Removes files of processes that were killed while they acquired the lock. The caller must hold the lock. */
export function removeLockRemains(folder: string, fs: WriteFs = nodeFs): void {
  for (const name of nodeFs.readdirSync(folder)) {
    if (!remains.test(name)) continue;
    const path = join(folder, name);
    const held = read(path);
    if (held !== null && stateOf(held, path) === "ended") fs.rmSync(path, { force: true });
  }
}

/**
 * Creates the file `path` with our contents. If the process of the existing lock has ended, a process must first create a second lock, the claim. The
 * name of the claim contains a hash of the old lock, so only one process can replace that lock. Contents never repeat, so a process that comes late sees
 * that the lock has changed.
 */
function acquire(path: string, own: string, locked: Locked, fs: WriteFs): void {
  for (let attempt = 0; attempt < mostAttempts; attempt++) {
    if (create(path, own, fs)) return;
    const held = read(path);
    if (held === null) continue;
    const state = stateOf(held, path);
    if (state !== "ended") throw refusal(state, held, path, locked);
    const claim = `${path}.${createHash("sha256").update(held).digest("hex").slice(0, 16)}`;
    acquire(claim, own, locked, fs);
    try {
      if (read(path) === held) {
        withTemporary(path, own, fs, (temporary) => fs.renameSync(temporary, path));
        return;
      }
    } finally {
      fs.rmSync(claim, { force: true });
    }
  }
  throw configError(`${locked.path}: its lock keeps changing; delete ${path} if no process writes there`);
}

/** Returns false if the file exists. */
function create(path: string, own: string, fs: WriteFs): boolean {
  return withTemporary(path, own, fs, (temporary) => {
    try {
      fs.linkSync(temporary, path);
      return true;
    } catch (error) {
      // Network file systems may report a failure of an operation that succeeded.
      if ((nodeFs.statSync(temporary, { throwIfNoEntry: false })?.nlink ?? 1) > 1) return true;
      if (errorCode(error) === "EEXIST") return false;
      if (
        !["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EACCES", "UNKNOWN"].includes(
          errorCode(error),
        )
      )
        throw error;
    }
    // The file system has no links.
    try {
      write(path, own, "wx", fs);
      return true;
    } catch (error) {
      if (errorCode(error) === "EEXIST") return false;
      throw error;
    }
  });
}

function withTemporary<T>(path: string, own: string, fs: WriteFs, use: (temporary: string) => T): T {
  const temporary = join(dirname(path), `lock.new-${randomUUID()}`);
  try {
    write(temporary, own, "wx", fs);
    return use(temporary);
  } finally {
    fs.rmSync(temporary, { force: true });
  }
}

/** Writes a new file completely, or not at all. */
function write(path: string, text: string, flags: string, fs: WriteFs): void {
  const file = fs.openSync(path, flags);
  try {
    try {
      writeAll(file, new TextEncoder().encode(text), fs);
    } finally {
      fs.closeSync(file);
    }
  } catch (error) {
    fs.rmSync(path, { force: true });
    throw error;
  }
}

/** The contents of the lock; null if there is none. */
function read(path: string): string | null {
  try {
    return nodeFs.readFileSync(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw error;
  }
}

type State = "lives" | "elsewhere" | "ended" | "being written";

function stateOf(held: string, path: string): State {
  const owner = parse(held);
  if (owner === null) {
    const written = nodeFs.statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    return Date.now() - written > writtenMilliseconds ? "ended" : "being written";
  }
  const own = ownOwner();
  const differs = (a: string, b: string): boolean => a !== "-" && b !== "-" && a !== b;
  if (owner.host !== own.host || differs(owner.machine, own.machine)) return "elsewhere";
  if (differs(owner.boot, own.boot)) return "ended";
  return isAlive(owner.pid) && !differs(owner.start, startOf(owner.pid)) ? "lives" : "ended";
}

function refusal(state: State, held: string, path: string, { kind, path: name }: Locked): GradmixError {
  const owner = parse(held);
  if (owner === null || state === "being written")
    return configError(`${name}: another process is about to write there; wait, or choose another ${kind}`);
  return state === "lives"
    ? configError(`${name}: is being written by process ${owner.pid}; wait for it, or choose another ${kind}`)
    : configError(
        `${name}: is being written by process ${owner.pid} on ${owner.host}; if that has ended, delete ${path}`,
      );
}

function contents(): string {
  const { pid, host, start, boot, machine } = ownOwner();
  return `${pid} ${host} ${start} ${boot} ${machine} ${randomUUID()}\n`;
}

function parse(held: string): Owner | null {
  const [pid = "", host = "", start = "-", boot = "-", machine = "-"] = held.trim().split(" ");
  if (!held.endsWith("\n") || !/^\d+$/.test(pid) || host === "") return null;
  return { pid: Number(pid), host, start, boot, machine };
}

let known: Owner | null = null;
function ownOwner(): Owner {
  known ??= {
    pid: process.pid,
    host: hostname().replaceAll(/\s/g, "_") || "-",
    start: startOf(process.pid),
    boot: hashOfFile("/proc/sys/kernel/random/boot_id"),
    machine: hashOfFile("/etc/machine-id"),
  };
  return known;
}

/** A hash of the contents of a system file, because the id of a machine is private. */
function hashOfFile(path: string): string {
  try {
    const text = nodeFs.readFileSync(path, "utf8").trim();
    return text === "" ? "-" : createHash("sha256").update(text).digest("hex").slice(0, 12);
  } catch {
    return "-";
  }
}

/** Start time of a process, in the system's own units. */
function startOf(pid: number): string {
  try {
    // The 22nd field of /proc/PID/stat (proc(5)). The second one, in parentheses, may contain spaces.
    const stat = nodeFs.readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "-";
  } catch {
    return "-";
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return pid > 0;
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
}
