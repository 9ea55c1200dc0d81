/**
 * A checkpoint as one file, in the safetensors layout: the length of the header (u64), the header as JSON, the arrays
 * as raw little-endian data without gaps. State that is not an array stands as JSON text under `__metadata__`, beside a
 * SHA-256 of header and data, so that a file cut short or altered anywhere is recognised.
 */
import { createHash } from "node:crypto";
import type { Checkpoint, CheckpointArray } from "../dga/config.ts";
import { GradmixError } from "../errors.ts";
import { isObject } from "./values.ts";

const constructors = {
  F32: Float32Array,
  F64: Float64Array,
  I32: Int32Array,
  U32: Uint32Array,
  U8: Uint8Array,
  I64: BigInt64Array,
} as const;
type FileType = keyof typeof constructors;

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

/** The parts of the file, to be written one after another; the arrays are not copied. */
export function encodeCheckpoint(step: number, { json, arrays }: Checkpoint): Uint8Array[] {
  const tensors: Record<string, unknown> = {};
  let end = 0;
  for (const [name, array] of Object.entries(arrays)) {
    const start = end;
    end += array.byteLength;
    tensors[name] = { dtype: typeOf(array), shape: [array.length], data_offsets: [start, end] };
  }
  const data = Object.values(arrays).map(bytesOf);
  const withSum = (sum: string): Uint8Array => {
    const metadata = { format: formatName, step: String(step), json: JSON.stringify(json), sha256: sum };
    const text = new TextEncoder().encode(JSON.stringify({ __metadata__: metadata, ...tensors }));
    const header = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
    new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
    header.set(text, 8);
    return header;
  };
  return [withSum(sha256([withSum(blankSum), ...data])), ...data];
}

/** The inverse of `encodeCheckpoint`. Throws `checkpoint`, beginning with `label`, when the file is not whole. */
export function decodeCheckpoint(file: Uint8Array, label: string): { step: number; checkpoint: Checkpoint } {
  const broken = (what: string): GradmixError => new GradmixError("checkpoint", `${label}: ${what}`);
  if (file.length < 8) throw broken(`is cut short: ${file.length} bytes`);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const headerLength = Number(view.getBigUint64(0, true));
  if (headerLength > file.length - 8)
    throw broken(
      `is cut short or not a checkpoint: a header of ${headerLength} bytes in a file of ${file.length}`,
    );
  const text = new TextDecoder().decode(file.subarray(8, 8 + headerLength));
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw new GradmixError("checkpoint", `${label}: is not a checkpoint: its header is not JSON`, {
      cause: error,
    });
  }
  const metadata = isObject(header) ? header["__metadata__"] : undefined;
  if (!isObject(header) || !isObject(metadata) || metadata["format"] !== formatName)
    throw broken("is not a checkpoint of this version of gradmix");

  const tensors = Object.entries(header).filter(([name]) => name !== "__metadata__");
  const data = file.subarray(8 + headerLength);
  const size = tensors.reduce((end, [, entry]) => Math.max(end, offsets(entry)?.[1] ?? Infinity), 0);
  if (size > data.length) throw broken(`is cut short: ${data.length} of ${size} bytes of data`);
  const sum = metadata["sha256"];
  if (typeof sum !== "string" || sum.length !== 64 || sum === blankSum) throw broken("has no checksum");
  const blanked = new TextEncoder().encode(text.replace(sum, blankSum));
  if (sha256([file.subarray(0, 8), blanked, data]) !== sum)
    throw broken("does not match its checksum: the file was damaged");

  // From here on the file is what was written.
  const arrays: Record<string, CheckpointArray> = {};
  for (const [name, entry] of tensors) {
    const [start, end] = offsets(entry) ?? [0, 0];
    const constructor = constructors[(entry as { dtype: FileType }).dtype];
    // Not `slice`: a Buffer's gives a view, and an unaligned one.
    const bytes = new Uint8Array(end - start);
    bytes.set(data.subarray(start, end));
    arrays[name] = new constructor(bytes.buffer);
  }
  const json = JSON.parse(String(metadata["json"])) as Record<string, unknown>;
  return { step: Number(metadata["step"]), checkpoint: { json, arrays } };
}

function sha256(parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  // The hash takes less than 2 GiB at a time.
  const most = 2 ** 28;
  for (const part of parts)
    for (let at = 0; at < part.length; at += most) hash.update(part.subarray(at, at + most));
  return hash.digest("hex");
}

function offsets(entry: unknown): [number, number] | null {
  const pair: unknown = isObject(entry) ? entry["data_offsets"] : null;
  if (!Array.isArray(pair) || pair.length !== 2) return null;
  const [start, end] = pair as unknown[];
  return typeof start === "number" && typeof end === "number" ? [start, end] : null;
}
