/**
 * A checkpoint as one file, in the safetensors layout: the length of the header (u64), the header as JSON, and the arrays as raw little-endian data
 * without gaps. All other state is JSON text under `__metadata__`, beside a SHA-256 of header and data, which detects a file that was cut short or
 * altered.
 */
import { createHash, type Hash } from "node:crypto";
import type { Checkpoint, CheckpointArray } from "../dga/checkpoint.ts";
import { GradmixError } from "../errors.ts";
import { type ByteSource, headerOf, type HeaderEntry, inMemory, METADATA } from "../nn/safetensors.ts";
import { formatJson, isObject } from "../json.ts";
import { show, string as checkPath } from "../options.ts";
import {
  faultOf,
  object,
  oneOf,
  optional,
  parse,
  plainObject,
  type Schema,
  type Source,
  string,
  where,
} from "../schema.ts";
import { reading, writeFileAtomic, type WriteFs } from "./files.ts";

type FileType = "F32" | "F64" | "I32" | "U32" | "U8" | "I64";
const constructors = {
  F32: Float32Array,
  F64: Float64Array,
  I32: Int32Array,
  U32: Uint32Array,
  U8: Uint8Array,
  I64: BigInt64Array,
} as const satisfies Readonly<Record<FileType, unknown>>;

const blankSum = "0".repeat(64);
const formatName = "gradmix-checkpoint-1";

function typeOf(array: CheckpointArray): FileType {
  for (const [type, constructor] of Object.entries(constructors))
    if (array instanceof constructor) return type as FileType;
  throw new GradmixError(
    "checkpoint",
    `checkpoint: arrays of the type ${Object.prototype.toString.call(array)} cannot be stored`,
  );
}

function bytesOf(array: CheckpointArray): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** A checkpoint with the step number that its file stores. */
export interface CheckpointFile extends Checkpoint {
  /** Number of training steps taken, so that it can be read without the state. Default: the file stores no number. */
  readonly step?: number;
}

/**
 * Writes a checkpoint of a trainer atomically: to a temporary file beside `path`, which is synced and then renamed. Missing folders are made. `json`
 * may only contain JSON, and arrays may have six types (f32, f64, i32, u32, u8, i64). Throws `checkpoint` for contents that cannot be stored, and
 * `io` if the file cannot be written; an existing file then stays.
 */
export function writeCheckpoint(path: string, checkpoint: CheckpointFile, fs?: WriteFs): void {
  checkPath("writeCheckpoint: path", path);
  writeFileAtomic(path, encodeCheckpoint(checkpoint), fs);
}

/** Reads a checkpoint and checks it against its SHA-256. Throws `checkpoint` for a file that is damaged or not a checkpoint, and `io` if it cannot be read. */
export function readCheckpoint(path: string): CheckpointFile {
  checkPath("readCheckpoint: path", path);
  return reading(path, (source) => decodeCheckpoint(source, path));
}

/** The parts of the file, to be written one after another; the arrays are not copied. */
export function encodeCheckpoint(checkpoint: CheckpointFile): Uint8Array[] {
  const given: unknown = checkpoint;
  if (given instanceof Promise) given.catch(() => {});
  if (!isObject(given) || given instanceof Promise)
    throw new GradmixError(
      "checkpoint",
      `checkpoint: ${given instanceof Promise ? "a promise is none; await trainer.save() first" : `${show(given)} is none; trainer.save() makes one`}`,
    );
  const { step, json, arrays } = checkpoint;
  for (const [name, part] of Object.entries({ json, arrays }))
    if (!isObject(part))
      throw new GradmixError("checkpoint", `checkpoint: ${name} is ${show(part)}, not an object`);
  if (step !== undefined && !Number.isSafeInteger(step))
    throw new GradmixError("checkpoint", `checkpoint: step is ${show(step)}, not a number of steps`);
  checkJson("json", json);
  // Entries, because an assignment to the member "__proto__" of an object makes no member.
  const tensors: [string, unknown][] = [];
  let end = 0;
  for (const [name, array] of Object.entries(arrays)) {
    if (name === METADATA)
      throw new GradmixError("checkpoint", `checkpoint: an array cannot have the name "${name}"`);
    const start = end;
    end += array.byteLength;
    tensors.push([name, { dtype: typeOf(array), shape: [array.length], data_offsets: [start, end] }]);
  }
  const data = Object.values(arrays).map(bytesOf);
  const withSum = (sum: string): Uint8Array => {
    const metadata = {
      format: formatName,
      ...(step === undefined ? {} : { step: String(step) }),
      json: formatJson(json),
      sha256: sum,
    };
    const contents = Object.fromEntries([[METADATA, metadata], ...tensors]);
    const text = new TextEncoder().encode(JSON.stringify(contents));
    const header = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
    new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
    header.set(text, 8);
    return header;
  };
  return [withSum(sha256([withSum(blankSum), ...data])), ...data];
}

/** The greatest depth of the state that is stored. */
const MOST_DEPTH = 100;

/**
 * Throws `checkpoint`, naming the place, for values that JSON cannot hold or would change, and for what contains itself or is nested too deeply. A member that is
 * undefined counts as absent.
 */
function checkJson(place: string, value: unknown, depth = 0): void {
  if (value === null || typeof value === "string" || typeof value === "boolean" || Number.isFinite(value))
    return;
  if (depth > MOST_DEPTH)
    throw new GradmixError(
      "checkpoint",
      `checkpoint: ${place.slice(0, 60)}… is nested more than ${MOST_DEPTH} deep, or contains itself; such values cannot be stored`,
    );
  // A loop over the indices, because `forEach` leaves out the holes of a list.
  if (Array.isArray(value))
    for (let i = 0; i < value.length; i++) checkJson(`${place}[${i}]`, value[i], depth + 1);
  else if (isObject(value) && isPlain(value)) {
    for (const [name, member] of Object.entries(value))
      if (member !== undefined) checkJson(`${place}.${name}`, member, depth + 1);
  } else
    throw new GradmixError(
      "checkpoint",
      `checkpoint: ${place} is ${show(value)}, which is not JSON; numbers must be finite, objects plain`,
    );
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

/** The inverse of `encodeCheckpoint`. Throws `checkpoint`, with a message that begins with `label`, for a damaged file. */
export function decodeCheckpoint(file: ByteSource | Uint8Array, label: string): CheckpointFile {
  const source = file instanceof Uint8Array ? inMemory(file) : file;
  const { metadata, tensors, start } = verifyCheckpoint(source, label);
  const arrays: [string, CheckpointArray][] = [];
  for (const [name, { dtype, data_offsets: place }] of tensors) {
    const [from, to] = place;
    const constructor = constructors[dtype];
    if ((to - from) % constructor.BYTES_PER_ELEMENT !== 0)
      throw faultOf(ofFile(label))(
        "",
        `"${name}" has ${to - from} bytes, which is not a whole number of ${dtype} values`,
      );
    const bytes = new Uint8Array(to - from);
    source.read(start + from, bytes);
    arrays.push([name, new constructor(bytes.buffer)]);
  }
  const json = parse(plainObject, metadata.json, ofFile(label, "state"));
  const step = metadata.step === undefined ? {} : { step: Number(metadata.step) };
  return { ...step, json, arrays: Object.fromEntries(arrays) };
}

const ofFile = (source: string, part = ""): Source => ({ source, code: "checkpoint", part });

interface Metadata {
  readonly format: typeof formatName;
  readonly step?: string;
  /** All parts of the state that are not arrays, as JSON. */
  readonly json: string;
  /** SHA-256 of header and data, computed with zeros in place of the sum itself; 64 hexadecimal digits. */
  readonly sha256: string;
}

const metadataSchema = object<{ readonly [METADATA]: Metadata }>({
  [METADATA]: object<Metadata>({
    format: oneOf(formatName),
    step: optional(
      where(string, (text) =>
        Number.isSafeInteger(Number(text)) ? null : `is ${show(text)}, not a number of steps`,
      ),
    ),
    json: string,
    sha256: where(string, (sum) =>
      sum.length === 64 && sum !== blankSum ? null : "is not 64 hexadecimal digits",
    ),
  }),
});

const tensorsSchema = headerOf(oneOf<FileType>("F32", "F64", "I32", "U32", "U8", "I64"));

/** Schema of the header of a checkpoint's file. */
export const checkpointHeader: Schema<Pick<Contents, "metadata" | "tensors">> = (value, at) => ({
  metadata: metadataSchema(value, at)[METADATA],
  tensors: tensorsSchema(value, at),
});

/** The header of a file whose checksum was correct. */
interface Contents {
  readonly metadata: Metadata;
  readonly tensors: ReadonlyMap<string, HeaderEntry<FileType>>;
  /** Position of the data in the file. */
  readonly start: number;
}

/** Checks a file without keeping its arrays. Throws `checkpoint`, with a message that begins with `label`, for a damaged file. */
export function verifyCheckpoint(source: ByteSource, label: string): Contents {
  const broken = (what: string): GradmixError => new GradmixError("checkpoint", `${label}: ${what}`);
  if (source.size < 8) throw broken(`is cut short: ${source.size} bytes`);
  const head = new Uint8Array(8);
  source.read(0, head);
  const headerLength = Number(new DataView(head.buffer).getBigUint64(0, true));
  if (headerLength > Math.min(source.size - 8, mostHeaderBytes))
    throw broken(
      `is cut short or not a checkpoint: a header of ${headerLength} bytes in a file of ${source.size}`,
    );
  const headerBytes = new Uint8Array(headerLength);
  source.read(8, headerBytes);
  const { metadata, tensors } = parse(checkpointHeader, headerBytes, {
    ...ofFile(label, "header"),
    advice: "the file was damaged, or is not a checkpoint of this version of gradmix",
  });
  const start = 8 + headerLength;
  const dataBytes = source.size - start;
  const size = Array.from(tensors.values()).reduce((end, entry) => Math.max(end, entry.data_offsets[1]), 0);
  if (size > dataBytes) throw broken(`is cut short: ${dataBytes} of ${size} bytes of data`);
  const sum = metadata.sha256;
  const text = new TextDecoder().decode(headerBytes);
  const hash = createHash("sha256");
  hash.update(head).update(new TextEncoder().encode(text.replace(sum, blankSum)));
  hashSource(hash, source, start);
  if (hash.digest("hex") !== sum) throw broken("does not match its checksum: the file was damaged");
  return { metadata, tensors, start };
}

/** Largest number of bytes of a header. The length that a damaged file declares may be larger. */
const mostHeaderBytes = 2 ** 28;

/** Number of bytes that are hashed at a time. */
const hashedBytes = 2 ** 24;

function hashSource(hash: Hash, source: ByteSource, from: number): void {
  const chunk = new Uint8Array(Math.min(hashedBytes, source.size - from));
  for (let at = from; at < source.size; at += chunk.length) {
    const part = chunk.subarray(0, Math.min(chunk.length, source.size - at));
    source.read(at, part);
    hash.update(part);
  }
}

function sha256(parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  // The hash accepts less than 2 GiB at a time.
  const most = 2 ** 28;
  for (const part of parts)
    for (let at = 0; at < part.length; at += most) hash.update(part.subarray(at, at + most));
  return hash.digest("hex");
}
