/** The safetensors format (huggingface/safetensors): an 8-byte header length, a JSON header, raw little-endian data. */
import { GradmixError } from "../errors.ts";
import { type Shape, sizeOf } from "../tensor/shape.ts";

export interface StoredTensor {
  readonly shape: Shape;
  readonly data: Float32Array;
}

/** One file of f32 tensors, in the map's order. */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, StoredTensor>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    if (sizeOf(shape) !== data.length)
      throw new GradmixError(
        "data",
        `safetensors: "${name}" has ${data.length} values for the shape [${shape.join(", ")}]`,
      );
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + data.length * 4] };
    offset += data.length * 4;
  }
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(text.length / 8) * 8, " ");
  const head = new TextEncoder().encode(text);
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

/** Reads F32, F16 and BF16 tensors as f32. Throws `data`, saying what is broken. */
export function decodeSafetensors(bytes: Uint8Array, file = "model.safetensors"): Map<string, StoredTensor> {
  const wrong = (what: string): GradmixError => new GradmixError("data", `${file}: ${what}`);
  if (bytes.length < 8) throw wrong(`${bytes.length} bytes are no safetensors file`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerLength = Number(view.getBigUint64(0, true));
  if (headerLength > bytes.length - 8) throw wrong(`the header of ${headerLength} bytes is cut off`);
  const header = parseHeader(bytes.subarray(8, 8 + headerLength), wrong);
  const start = 8 + headerLength;
  const out = new Map<string, StoredTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const {
      dtype,
      shape,
      data_offsets: offsets,
    } = checkEntry(entry, () => wrong(`the entry of "${name}" is malformed`));
    const width = { F32: 4, F16: 2, BF16: 2 }[dtype];
    if (width === undefined) throw wrong(`"${name}" has the type ${dtype}; F32, F16 and BF16 can be read`);
    const count = sizeOf(shape);
    if (offsets[1] - offsets[0] !== count * width)
      throw wrong(`"${name}" has offsets that do not fit its shape [${shape.join(", ")}]`);
    if (start + offsets[1] > bytes.length) throw wrong(`"${name}" is cut off: the file is truncated`);
    const data = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const at = start + offsets[0] + i * width;
      data[i] =
        dtype === "F32"
          ? view.getFloat32(at, true)
          : dtype === "F16"
            ? half(view.getUint16(at, true))
            : bfloat(view.getUint16(at, true));
    }
    out.set(name, { shape, data });
  }
  return out;
}

function parseHeader(bytes: Uint8Array, wrong: (what: string) => GradmixError): Record<string, unknown> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw wrong("the header is not JSON");
  }
  if (typeof header !== "object" || header === null || Array.isArray(header))
    throw wrong("the header is not an object");
  return Object.fromEntries(Object.entries(header));
}

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

function checkEntry(entry: unknown, wrong: () => GradmixError): Entry {
  const isCount = (value: unknown): value is number =>
    typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
  if (typeof entry !== "object" || entry === null) throw wrong();
  const { dtype, shape, data_offsets: offsets }: Partial<Record<keyof Entry, unknown>> = entry;
  if (typeof dtype !== "string" || !Array.isArray(shape) || !shape.every(isCount)) throw wrong();
  if (!Array.isArray(offsets)) throw wrong();
  const [from, to] = offsets as unknown[];
  if (offsets.length !== 2 || !isCount(from) || !isCount(to) || from > to) throw wrong();
  return { dtype, shape, data_offsets: [from, to] };
}

const scratch = new DataView(new ArrayBuffer(4));

function bfloat(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
