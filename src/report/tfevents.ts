/**
 * Writes event files in the format of TensorBoard without its libraries, which are larger than all of gradmix: the format is three protocol-buffer
 * messages in TFRecord framing. A record is the length of its data (u64), a masked CRC-32C of those eight bytes, the data, and a masked CRC-32C of
 * the data, little-endian (tensorboard/compat/tensorflow_stub/pywrap_tensorflow.py). The data is a message `Event` (event.proto): 1 wall_time
 * (double), 2 step (int64), 3 file_version (string), 5 summary; `Summary`: 1 value, repeated; `Summary.Value`: 1 tag (string), 2 simple_value
 * (float).
 */

export interface Scalar {
  readonly tag: string;
  readonly value: number;
}

/** The first record of a file. `wallTime` is in seconds since 1970. */
export function versionRecord(wallTime: number): Uint8Array {
  return record([...double(1, wallTime), ...text(3, "brain.Event:2")]);
}

/** A record with the scalars of one step. */
export function scalarsRecord(wallTime: number, step: number, scalars: readonly Scalar[]): Uint8Array {
  const values = scalars.flatMap(({ tag, value }) => field(1, [...text(1, tag), ...float(2, value)]));
  return record([...double(1, wallTime), ...key(2, 0), ...varint(BigInt(step)), ...field(5, values)]);
}

function record(data: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(data.length + 16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, masked(crc32c(bytes.subarray(0, 8))), true);
  bytes.set(data, 12);
  view.setUint32(12 + data.length, masked(crc32c(bytes.subarray(12, 12 + data.length))), true);
  return bytes;
}

/** TFRecord's mask, because the CRC of data that contains CRCs is weak. */
function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** CRC-32C (Castagnoli), which node:zlib does not have. The polynomial is reflected: 0x82f63b78. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 0xff]!;
  return ~crc >>> 0;
}

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  return crc;
});

/** Number and wire type of a field: 0 varint, 1 eight bytes, 2 bytes with their length, 5 four bytes. */
function key(number: number, type: 0 | 1 | 2 | 5): number[] {
  return varint(BigInt((number << 3) | type));
}

function varint(value: bigint): number[] {
  const out: number[] = [];
  for (let rest = value; ; rest >>= 7n) {
    const low = Number(rest & 0x7fn);
    if (rest < 0x80n) return [...out, low];
    out.push(low | 0x80);
  }
}

function double(number: number, value: number): number[] {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value, true);
  return [...key(number, 1), ...new Uint8Array(view.buffer)];
}

function float(number: number, value: number): number[] {
  const view = new DataView(new ArrayBuffer(4));
  view.setFloat32(0, value, true);
  return [...key(number, 5), ...new Uint8Array(view.buffer)];
}

function text(number: number, value: string): number[] {
  return field(number, [...new TextEncoder().encode(value)]);
}

function field(number: number, bytes: readonly number[]): number[] {
  return [...key(number, 2), ...varint(BigInt(bytes.length)), ...bytes];
}
