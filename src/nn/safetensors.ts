/** Writes and reads the safetensors format (huggingface/safetensors): the length of the header in 8 bytes, a JSON header, raw little-endian data. */
import { GradmixError } from "../errors.ts";
import { describe, hasMembers, show, showKind } from "../options.ts";
import {
  count,
  inside,
  list,
  membersOf,
  object,
  pair,
  parse,
  problem,
  type Schema,
  string,
} from "../schema.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";

/** A tensor of a file. */
export interface StoredTensor {
  /** Extents of the axes. */
  readonly shape: Shape;
  /** The elements, row-major. */
  readonly data: Float32Array;
}

/** The only member of a header that is not a tensor. */
export const METADATA = "__metadata__";

/**
 * Encodes f32 tensors as one file, in the order of the map. Throws `data` for a shape that does not fit the number of values, and for the name
 * `__metadata__`, which the format reserves.
 */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, StoredTensor>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Uint8Array {
  const given: unknown = tensors;
  if (!(given instanceof Map))
    throw new GradmixError("data", `safetensors: the tensors are ${show(given)}; a Map by name is needed`);
  if (!hasMembers(metadata))
    throw new GradmixError("data", `safetensors: the metadata are ${describe(metadata)}, not an object`);
  for (const [key, value] of Object.entries(metadata))
    if (typeof value !== "string")
      throw new GradmixError("data", `safetensors: metadata: ${key} is ${show(value)}, not a string`);
  const header: [string, unknown][] = [[METADATA, metadata]];
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    if (name === METADATA)
      throw new GradmixError("data", `safetensors: a tensor cannot have the name "${name}"`);
    if (typeof name !== "string")
      throw new GradmixError("data", `safetensors: ${show(name)} is not the name of a tensor`);
    checkStored(name, shape, data);
    if (sizeOf(shape) !== data.length)
      throw new GradmixError(
        "data",
        `safetensors: "${name}" has ${data.length} values for the shape [${shape.join(", ")}]`,
      );
    header.push([name, { dtype: "F32", shape, data_offsets: [offset, offset + data.length * 4] }]);
    offset += data.length * 4;
  }
  const head = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const padded = Math.ceil(head.length / 8) * 8;
  const out = new Uint8Array(8 + padded + offset);
  out.fill(32, 8, 8 + padded);
  new DataView(out.buffer).setBigUint64(0, BigInt(padded), true);
  out.set(head, 8);
  let at = 8 + padded;
  for (const { data } of tensors.values()) {
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return out;
}

/** Throws `data` for what is not a tensor of a file: its bytes would be stored as they are. */
function checkStored(name: string, shape: unknown, data: unknown): void {
  const isShape =
    Array.isArray(shape) && shape.every((extent) => Number.isSafeInteger(extent) && Number(extent) >= 0);
  if (isShape && data instanceof Float32Array) return;
  throw new GradmixError(
    "data",
    `safetensors: "${name}" has ${isShape ? `as data ${showKind(data)}, not a Float32Array; convert it with Float32Array.from` : `as shape ${show(shape)}, not a list of extents`}`,
  );
}

/** Bytes that are read in parts, such as those of a file. Only the requested bytes are in memory, so a source may be larger than the largest array. */
export interface ByteSource {
  /** Number of bytes. */
  readonly size: number;
  /** Fills `into` with the bytes from `at` on. */
  read(at: number, into: Uint8Array): void;
}

/** Makes a `ByteSource` of bytes in memory. */
export function inMemory(bytes: Uint8Array): ByteSource {
  return {
    size: bytes.length,
    read: (at, into) => into.set(bytes.subarray(at, at + into.length)),
  };
}

/** Throws `data` for a value that is neither a Uint8Array nor a `ByteSource`, such as an ArrayBuffer. */
export function checkSource(file: string, source: unknown): void {
  if (
    typeof source !== "object" ||
    source === null ||
    !(
      "size" in source &&
      typeof source.size === "number" &&
      "read" in source &&
      typeof source.read === "function"
    )
  )
    throw new GradmixError(
      "data",
      `${file}: its contents are ${source instanceof ArrayBuffer ? "an ArrayBuffer; pass new Uint8Array(…) of it" : `${show(source)}, not a Uint8Array`}`,
    );
}

/** Bytes per element of the types that can be read. */
const WIDTHS: ReadonlyMap<string, number> = new Map([
  ["F32", 4],
  ["F16", 2],
  ["BF16", 2],
]);

/** Largest number of bytes of a header, as in the format's own reader. The length that a file declares is checked before the header is read. */
const LONGEST_HEADER = 100_000_000;

/** A file whose header has been checked. Tensors are read on request. */
export interface SafetensorsFile {
  /** Shape of each tensor, by name. */
  readonly shapes: ReadonlyMap<string, Shape>;
  /** Reads a tensor as f32. Throws `data` if it is missing or has a type other than F32, F16 and BF16. */
  read(name: string): StoredTensor;
  /** Reads `count` elements of a tensor as f32, beginning with element `first` in row-major order. Throws the same errors as `read`. */
  readPart(name: string, first: number, count: number): Float32Array;
}

/**
 * Opens a file and checks its header. Like the format's own reader it requires that the tensors fill the file without gaps and overlaps. Throws `data`,
 * with a message that begins with `file`, for a header that is broken. Uses no memory except for the header.
 */
export function openSafetensors(bytes: Uint8Array | ByteSource, file = "model.safetensors"): SafetensorsFile {
  const fileError = (what: string): GradmixError => new GradmixError("data", `${file}: ${what}`);
  const source = bytes instanceof Uint8Array ? inMemory(bytes) : bytes;
  checkSource(file, source);
  const part = (at: number, length: number): Uint8Array<ArrayBuffer> => {
    const out = new Uint8Array(length);
    source.read(at, out);
    return out;
  };
  if (source.size < 8) throw fileError(`${source.size} bytes are not a safetensors file`);
  const headerLength = Number(new DataView(part(0, 8).buffer).getBigUint64(0, true));
  if (headerLength > source.size - 8) throw fileError(`the header of ${headerLength} bytes is cut off`);
  if (headerLength > LONGEST_HEADER)
    throw fileError(`the header has ${headerLength} bytes; the format allows ${LONGEST_HEADER}`);
  const entries = parse(safetensorsHeader, part(8, headerLength), {
    source: file,
    code: "data",
    part: "header",
  });

  const start = 8 + headerLength;
  let end = start;
  const inOrder = [...entries].sort(
    ([, { data_offsets: a }], [, { data_offsets: b }]) => a[0] - b[0] || a[1] - b[1],
  );
  for (const [name, { data_offsets: place }] of inOrder) {
    if (start + place[0] !== end) throw fileError(`"${name}" does not begin where the tensor before it ends`);
    end = start + place[1];
  }
  if (end > source.size) throw fileError(`it has ${source.size} of ${end} bytes; it is cut off`);
  if (end < source.size) throw fileError(`${source.size - end} bytes at its end belong to no tensor`);

  return {
    shapes: new Map([...entries].map(([name, { shape }]) => [name, shape])),
    read(name) {
      const { shape, data } = placeOf(name);
      return { shape, data: data(0, sizeOf(shape)) };
    },
    readPart: (name, first, count) => placeOf(name).data(first, count),
  };

  function placeOf(name: string): {
    readonly shape: Shape;
    readonly data: (first: number, count: number) => Float32Array;
  } {
    const entry = entries.get(name);
    if (entry === undefined) throw fileError(`the tensor "${name}" is missing`);
    const { dtype, shape } = entry;
    const [from, to] = entry.data_offsets;
    const width = WIDTHS.get(dtype);
    if (width === undefined)
      throw fileError(`"${name}" has the type ${dtype}; F32, F16 and BF16 can be read`);
    if (to - from !== sizeOf(shape) * width)
      throw fileError(`"${name}" has ${to - from} bytes for ${dtype} [${shape.join(", ")}]`);
    return {
      shape,
      data: (first, count) =>
        readValues(new DataView(part(start + from + first * width, count * width).buffer), count, dtype),
    };
  }
}

function readValues(view: DataView, count: number, dtype: string): Float32Array {
  const data = new Float32Array(count);
  for (let i = 0; i < count; i++)
    data[i] =
      dtype === "F32"
        ? view.getFloat32(4 * i, true)
        : dtype === "F16"
          ? half(view.getUint16(2 * i, true))
          : bfloat(view.getUint16(2 * i, true));
  return data;
}

/**
 * Reads the tensors for which `wanted` returns true (default: all) as f32. Other tensors are not read and may have any type. Throws `data` for a header that
 * is broken and for a wanted tensor with a type other than F32, F16 and BF16.
 */
export function decodeSafetensors(
  bytes: Uint8Array | ByteSource,
  file = "model.safetensors",
  wanted: (name: string) => boolean = () => true,
): Map<string, StoredTensor> {
  const { shapes, read } = openSafetensors(bytes, file);
  return new Map([...shapes.keys()].filter(wanted).map((name) => [name, read(name)]));
}

/** A tensor in the header of a file. */
export interface HeaderEntry<D = string> {
  readonly dtype: D;
  readonly shape: Shape;
  /** Offsets of the first byte and of the byte after the last, counted from the end of the header. */
  readonly data_offsets: readonly [number, number];
}

/** Makes a schema of the tensors in a header, by name. `dtype` is the schema of their types. */
export function headerOf<D>(dtype: Schema<D>): Schema<ReadonlyMap<string, HeaderEntry<D>>> {
  const entry = object<HeaderEntry<D>>({ dtype, shape: list(count), data_offsets: offsets });
  return (value, at) =>
    new Map(
      Array.from(membersOf(value, at))
        .filter(([name]) => name !== METADATA)
        .map(([name, member]) => [name, entry(member, inside(at, name))]),
    );
}

const offsets: Schema<readonly [number, number]> = (value, at) => {
  const [from, to] = pair(count, count)(value, at);
  if (from > to) throw problem(at, `begins at ${from} and ends before it, at ${to}`);
  return [from, to];
};

export const safetensorsHeader: Schema<ReadonlyMap<string, HeaderEntry>> = headerOf(string);

const scratch = new DataView(new ArrayBuffer(4));

function bfloat(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

/** Decodes 16 bits as a number of IEEE 754's binary16 (F16). */
export function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
