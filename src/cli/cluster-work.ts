/**
 * The work folder of a clustering (`OUT.partial`, beside the folder that it makes). It stores what was computed so far, so that a clustering that was
 * stopped or killed can continue, and its result has the same bytes:
 *
 *     plan.json           the arguments and files; a command with others does not continue it
 *     facts.json          documents and hash of each file, and which documents are in the sample
 *     sample.jsonl        the beginnings of the sample's texts
 *     embedder.safetensors    the built-in embedder
 *     points.f32          the embeddings of the sample so far
 *     fit.log             the completed fits of k-means, each with a checksum
 *     fit.state           the state of the current fit
 *     assigned/N.i32      the clusters of the documents of file N so far
 *     lock                the process that writes here
 *
 * If the end of a growing file is cut off, its last part is computed again.
 *
 * `gradmix divide` makes its folder in the same place, with a plan of its own (`divideWork`), and never continues.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { crc32 } from "node:zlib";
import type { FitMemory, FitState } from "../data/cluster/kmeans.ts";
import { errorCode, GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { ioError, readError, removeOwn, temporaryName, writeAll, writeFileAtomic } from "../node/files.ts";
import { makeFolders, removeEmptyFolders } from "../folders-node.ts";
import {
  anything,
  count,
  list,
  map,
  number,
  object,
  oneOf,
  pair,
  parse,
  type Schema,
  string,
} from "../schema.ts";
import { isLockName, lockFolder, removeLockRemains } from "./lock.ts";
import { configError } from "./values.ts";

export interface Work {
  readonly folder: string;
  has(name: string): boolean;
  /** The JSON stored under a name; undefined if there is none. Throws `data` if it does not fit the schema. */
  readJson<T>(name: string, schema: Schema<T>): T | undefined;
  writeJson(name: string, value: unknown): void;
  /** The bytes stored under a name; null if there are none. */
  read(name: string): Uint8Array<ArrayBuffer> | null;
  write(name: string, parts: Iterable<Uint8Array>): void;
  /** Opens a file that grows by records of `record` bytes, with the complete records in it. */
  grow(name: string, record: number): Growing;
  readonly memory: FitMemory;
  /** Closes the folder, and removes its files if `remove` is set; otherwise the next command continues from it. */
  end(remove: boolean): void;
}

export interface Growing {
  readonly bytes: Uint8Array<ArrayBuffer>;
  append(bytes: Uint8Array): void;
  close(): void;
}

/** Milliseconds between two saved states of a running fit. */
const OFTEN = 5000;
const utf8 = new TextEncoder();

/**
 * Opens the folder of a clustering with this plan, or makes it. `goesOn` is called if it existed. Throws `config` if the folder belongs to another
 * plan, contains something else or another process works in it, and `io` if it cannot be written.
 */
export function openWork(out: string, plan: Readonly<Record<string, unknown>>, goesOn: () => void): Work {
  const folder = `${resolve(out).replace(/[/\\]+$/, "")}.partial`;
  const at = (name: string): string => join(folder, name);
  checkRoom(folder, out);
  const lock = lockFolder(folder);
  const read = (name: string): Uint8Array<ArrayBuffer> | null => {
    try {
      return new Uint8Array(readFileSync(at(name)));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return null;
      throw readError(at(name), error);
    }
  };
  const write = (name: string, parts: Iterable<Uint8Array>): void => writeFileAtomic(at(name), parts);
  const readJson = <T>(name: string, schema: Schema<T>): T | undefined => {
    const bytes = read(name);
    const advice =
      "it is damaged, so the unfinished clustering is removed; run the same command again to start from the beginning";
    return bytes === null ? undefined : parse(schema, bytes, { source: at(name), code: "data", advice });
  };
  const writeJson = (name: string, value: unknown): void => write(name, [utf8.encode(JSON.stringify(value))]);
  const open = new Set<() => void>();
  const grow = (name: string, record: number): Growing => {
    const { bytes, file } = openGrowing(
      at(name),
      (bytesRead) => bytesRead.length - (bytesRead.length % record),
    );
    const close = (): void => {
      if (open.delete(close)) closeSync(file);
    };
    open.add(close);
    return {
      bytes,
      append(more) {
        try {
          writeAll(file, more);
        } catch (error) {
          throw ioError(at(name), error);
        }
      },
      close,
    };
  };
  const end = (remove: boolean): void => {
    for (const close of open) close();
    try {
      // Another command may take the lock as soon as it is released, so that is done last.
      if (remove) removeOwn(folder, ownFiles);
    } finally {
      lock.release();
    }
    if (remove) removeEmptyFolders(folder);
  };
  try {
    removeLockRemains(folder);
    removeOwn(folder, [ofTemporaries]);
    const before = readJson("plan.json", map(anything));
    const own = JSON.stringify(plan);
    if (before === undefined) writeJson("plan.json", plan);
    else if (JSON.stringify(Object.fromEntries(before)) !== own)
      throw configError(
        `--out ${out}: ${folder} belongs to ${otherWork(before, plan)}; delete it, or choose another folder`,
      );
    else goesOn();
    const memory = memoryOf(grow, read, write);
    return {
      folder,
      has: (name) => existsSync(at(name)),
      readJson,
      writeJson,
      read,
      write,
      grow,
      memory,
      end,
    };
  } catch (error) {
    end(false);
    throw error;
  }
}

/** What a process that was killed was writing, also in the folder of the result. */
const ofTemporaries = /^(whole\/(ids\/)?)?\.[^/]+\.\d+\.tmp$/;

/**
 * All files that a clustering writes to its folder. They are removed in this order, so that a clustering whose removal was stopped can be continued: the
 * parts of the result come before the facts by which changed text is noticed, and the plan, by which the folder is known, is the last.
 */
const ownFiles: readonly RegExp[] = [
  ofTemporaries,
  /^whole(\/ids)?$/,
  /^whole\/(clusters\.(json|html)|centroids\.npy|embedder\.safetensors|ids\/[^/]+\.npy)$/,
  /^assigned(\/\d+\.i32)?$/,
  /^(fit\.(log|state)|points\.f32|embedder\.safetensors)$/,
  /^facts\.json$/,
  /^sample\.jsonl$/,
  /^plan\.json$/,
  /^$/,
];

/** What every plan says. */
interface AnyPlan {
  readonly version: string;
  readonly files: readonly string[];
}

const anyPlan: Schema<AnyPlan> = object<AnyPlan>({ version: string, files: list(string) });

/** Throws `config` if the folder has files, but no plan of a clustering. */
function checkRoom(folder: string, out: string): void {
  const refused = (what: string, cause?: unknown): GradmixError =>
    configError(
      `--out ${out}: ${folder}, which is for the parts of an unfinished clustering, contains something else (${what}); move it away, or choose another folder`,
      cause,
    );
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw ioError(folder, error);
  }
  const other = names.find((name) => !isLockName(name) && !temporaryName.test(name));
  if (other === undefined) return;
  if (!names.includes("plan.json")) throw refused(other);
  const source = join(folder, "plan.json");
  try {
    parse(anyPlan, readFileSync(source), { source, code: "data" });
  } catch (error) {
    throw error instanceof GradmixError ? refused(error.message, error) : readError(source, error);
  }
}

/** The member of a plan with the files on which the result depends beside the text: their size and time, by path. */
export const READ = "read";

/** The plan of `gradmix divide`, whose work never continues: the same for all options and versions, so that it says only whose folder this is. */
export const divideWork: AnyPlan & Readonly<Record<string, unknown>> = {
  version: "gradmix divide",
  files: [],
};

/** Names the work of another plan. */
function otherWork(before: ReadonlyMap<string, unknown>, plan: Readonly<Record<string, unknown>>): string {
  if (before.get("version") === divideWork.version) return "a stopped gradmix divide";
  return plan["version"] === divideWork.version
    ? "an unfinished clustering"
    : `an unfinished clustering with ${difference(before, plan)}`;
}

/** How two plans differ, for a message: the first file that has changed, if it is nothing else, or the first name. */
function difference(before: ReadonlyMap<string, unknown>, plan: Readonly<Record<string, unknown>>): string {
  const name = firstDifferent(Object.fromEntries(before), plan);
  const [known, now] = [before.get(READ), plan[READ]];
  return name === READ && isObject(known) && isObject(now)
    ? `another state of the file ${firstDifferent(known, now)}`
    : `another value of ${name}`;
}

function firstDifferent(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): string {
  return (
    Object.keys({ ...b, ...a }).find((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name])) ?? "plan"
  );
}

/** Opens a file for appending, with its complete part; `wholeOf` returns the number of bytes of that part. */
function openGrowing(
  path: string,
  wholeOf: (bytes: Uint8Array<ArrayBuffer>) => number,
): { bytes: Uint8Array<ArrayBuffer>; file: number } {
  try {
    makeFolders(dirname(path));
    const all =
      existsSync(path) && statSync(path).size > 0 ? new Uint8Array(readFileSync(path)) : new Uint8Array(0);
    const complete = wholeOf(all);
    const file = openSync(path, "a");
    if (fstatSync(file).size > complete) ftruncateSync(file, complete);
    return { bytes: all.subarray(0, complete), file };
  } catch (error) {
    throw ioError(path, error);
  }
}

function memoryOf(grow: Work["grow"], read: Work["read"], write: Work["write"]): FitMemory {
  const known = new Map<string, FitState>();
  let log: Growing | null = null;
  const logged = (): Growing => {
    if (log === null) {
      log = grow("fit.log", 1);
      for (const { name, state } of recordsOf(log.bytes)) known.set(name, state);
      // If the last record is cut off, it is written again after the rest of it: reading continues at the next complete record.
      const under = read("fit.state");
      if (under !== null)
        for (const { name, state } of recordsOf(under)) if (!known.has(name)) known.set(name, state);
    }
    return log;
  };
  let last = 0;
  return {
    recall(name) {
      logged();
      return known.get(name);
    },
    remember(name, state, done) {
      const file = logged();
      if (done) file.append(recordOf(name, state));
      else if (performance.now() - last > OFTEN) {
        write("fit.state", [recordOf(name, state)]);
        last = performance.now();
      }
    },
  };
}

/** Begins every record, so that reading finds the next one after a record that was cut off. */
const MARK = 0x66697431;

/** Mark, length of the head, checksum of what follows; the head as JSON; the arrays. */
function recordOf(name: string, { numbers, arrays }: FitState): Uint8Array {
  const head = utf8.encode(
    JSON.stringify({
      name,
      numbers,
      arrays: arrays.map((array) => [array instanceof Int32Array ? "i32" : "f32", array.length]),
    }),
  );
  const body = [
    head,
    ...arrays.map((array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)),
  ];
  const out = new Uint8Array(12 + body.reduce((sum, { length }) => sum + length, 0));
  let at = 12;
  for (const part of body) {
    out.set(part, at);
    at += part.length;
  }
  const view = new DataView(out.buffer);
  view.setUint32(0, MARK, true);
  view.setUint32(4, head.length, true);
  view.setUint32(8, crc32(out.subarray(12)), true);
  return out;
}

function* recordsOf(bytes: Uint8Array): Generator<{ name: string; state: FitState }, void, undefined> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 12 <= bytes.length;) {
    const found = view.getUint32(at, true) === MARK ? recordAt(bytes, view, at) : null;
    if (found === null) at++;
    else {
      yield found;
      at = found.end;
    }
  }
}

interface RecordHead {
  readonly name: string;
  readonly numbers: readonly number[];
  /** Type and size of each array. */
  readonly arrays: readonly (readonly ["i32" | "f32", number])[];
}

export const recordHead: Schema<RecordHead> = object<RecordHead>({
  name: string,
  numbers: list(number),
  arrays: list(pair(oneOf("i32", "f32"), count)),
});

/** Returns null if these bytes are not a head, because a record was cut off or the bytes only look like the beginning of one. */
function headOf(bytes: Uint8Array): RecordHead | null {
  try {
    return parse(recordHead, bytes, { source: "fit.log", code: "data" });
  } catch (error) {
    if (error instanceof GradmixError) return null;
    throw error;
  }
}

function recordAt(
  bytes: Uint8Array,
  view: DataView,
  at: number,
): { name: string; state: FitState; end: number } | null {
  const length = view.getUint32(at + 4, true);
  if (at + 12 + length > bytes.length) return null;
  const head = headOf(bytes.subarray(at + 12, at + 12 + length));
  if (head === null) return null;
  let place = at + 12 + length;
  const end = place + head.arrays.reduce((sum, [, size]) => sum + 4 * size, 0);
  if (end > bytes.length || crc32(bytes.subarray(at + 12, end)) !== view.getUint32(at + 8, true)) return null;
  const arrays = head.arrays.map(([type, size]) => {
    const own = bytes.slice(place, place + 4 * size).buffer;
    place += 4 * size;
    return type === "i32" ? new Int32Array(own) : new Float32Array(own);
  });
  return { name: head.name, state: { numbers: head.numbers, arrays }, end };
}
