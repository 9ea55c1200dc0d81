/** NumPy's .npy files (format 1.0; numpy.lib.format): arrays in C order, little-endian. */
import { GradmixError } from "../errors.ts";
import { half } from "../nn/safetensors.ts";
import { object, show, showKind } from "../options.ts";
import { checkShape, sizeOf } from "../tensor/shape.ts";

/** Elements of a .npy file, as gradmix reads and writes them. */
export type NpyValues = Int32Array | Float32Array;

/** An array of a .npy file. */
export interface NpyArray {
  /** Extents of the axes. */
  readonly shape: readonly number[];
  /** The elements, row-major. */
  readonly values: NpyValues;
}

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

/** The bytes of a file. Throws `data` if the values do not fit the shape. */
export function encodeNpy(array: NpyArray): Uint8Array {
  object("encodeNpy: array", array);
  const { shape, values } = array;
  checkShape(shape, "encodeNpy");
  // Other arrays would be stored byte by byte under the type of these.
  if (!(values instanceof Int32Array || values instanceof Float32Array))
    throw new GradmixError(
      "data",
      `npy: the values are ${showKind(values)}; an Int32Array or a Float32Array is needed`,
    );
  if (sizeOf(shape) !== values.length)
    throw new GradmixError("data", `npy: ${values.length} values for the shape [${shape.join(", ")}]`);
  const descr = values instanceof Int32Array ? "<i4" : "<f4";
  const tuple = `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  // Data begins at a multiple of 64 bytes; the header ends with a line break.
  const start = Math.ceil((10 + header.length + 1) / 64) * 64;
  const out = new Uint8Array(start + values.byteLength).fill(32, 10, start);
  out.set([...MAGIC, 1, 0, (start - 10) & 255, (start - 10) >> 8]);
  out.set(new TextEncoder().encode(header), 10);
  out[start - 1] = 10;
  out.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), start);
  return out;
}

/** Number types that can be read, as i32 or f32: their size in bytes, and how one is read. */
const kinds: Readonly<
  Record<
    string,
    { readonly bytes: number; readonly integer: boolean; at(view: DataView, at: number): number }
  >
> = {
  "|u1": { bytes: 1, integer: true, at: (view, at) => view.getUint8(at) },
  "|i1": { bytes: 1, integer: true, at: (view, at) => view.getInt8(at) },
  "<u2": { bytes: 2, integer: true, at: (view, at) => view.getUint16(at, true) },
  "<i2": { bytes: 2, integer: true, at: (view, at) => view.getInt16(at, true) },
  "<u4": { bytes: 4, integer: true, at: (view, at) => view.getUint32(at, true) },
  "<i4": { bytes: 4, integer: true, at: (view, at) => view.getInt32(at, true) },
  "<i8": { bytes: 8, integer: true, at: (view, at) => Number(view.getBigInt64(at, true)) },
  "<u8": { bytes: 8, integer: true, at: (view, at) => Number(view.getBigUint64(at, true)) },
  "<f2": { bytes: 2, integer: false, at: (view, at) => half(view.getUint16(at, true)) },
  "<f4": { bytes: 4, integer: false, at: (view, at) => view.getFloat32(at, true) },
  "<f8": { bytes: 8, integer: false, at: (view, at) => view.getFloat64(at, true) },
};

/** The contents of a file's header. */
export interface NpyHeader {
  readonly shape: readonly number[];
  /** Number of bytes before the numbers, and per number. */
  readonly start: number;
  readonly bytes: number;
  readonly integer: boolean;
  /** Reads numbers from their bytes, as i32 or f32. Throws `data` for integers that do not fit. */
  read(bytes: Uint8Array): NpyValues;
}

/** Largest number of bytes of a header: NumPy itself refuses to read more. */
export const NPY_HEAD = 10_016;

/**
 * Reads the header of a file. `head` has its first NPY_HEAD bytes, or all. Throws `data`, naming the file, if it is not a .npy file, or has another
 * byte or axis order.
 */
export function readNpyHeader(head: Uint8Array, file: string): NpyHeader {
  const invalid = (what: string): GradmixError => new GradmixError("data", `${file}: ${what}`);
  if (MAGIC.some((byte, i) => head[i] !== byte) || head.length < 12)
    throw invalid("is not a .npy file of NumPy");
  const headView = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const long = head[6]! > 1;
  const start = long ? 12 + headView.getUint32(8, true) : 10 + headView.getUint16(8, true);
  const header = new TextDecoder().decode(head.subarray(long ? 12 : 10, start));
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const tuple = /'shape'\s*:\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (descr === undefined || order === undefined || tuple === undefined)
    throw invalid("its header cannot be read; save it with numpy.save");
  const kind = Object.hasOwn(kinds, descr) ? kinds[descr] : undefined;
  if (kind === undefined)
    throw invalid(
      `holds numbers of the type ${descr}; those that can be read are ${Object.keys(kinds).join(", ")}`,
    );
  if (order === "True") throw invalid("is in Fortran order; save numpy.ascontiguousarray(x) instead");
  const shape = tuple.split(",").flatMap((part) => (part.trim() === "" ? [] : [Number(part)]));
  return {
    ...{ shape, start, bytes: kind.bytes, integer: kind.integer },
    read(bytes) {
      const count = bytes.length / kind.bytes;
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const values = kind.integer ? new Int32Array(count) : new Float32Array(count);
      for (let i = 0; i < count; i++) {
        const value = kind.at(view, i * kind.bytes);
        if (kind.integer && value !== (value | 0))
          throw invalid(`number ${i} is ${value}, which does not fit into 32 bits`);
        values[i] = value;
      }
      return values;
    },
  };
}

/**
 * Reads a file of integers (as i32) or of floats (as f32). Throws `data`, naming the file, if it is not a .npy file, is cut off, has another byte or
 * axis order, or contains numbers that do not fit.
 */
export function decodeNpy(bytes: Uint8Array, file: string): NpyArray {
  if (!(bytes instanceof Uint8Array))
    throw new GradmixError("data", `${file}: its contents are ${show(bytes)}, not a Uint8Array`);
  const { shape, start, bytes: each, read } = readNpyHeader(bytes, file);
  checkNpySize({ shape, start, bytes: each }, bytes.length, file);
  return { shape, values: read(bytes.subarray(start)) };
}

/** Throws `data` if the size of the file does not match its shape. */
export function checkNpySize(
  { shape, start, bytes }: Pick<NpyHeader, "shape" | "start" | "bytes">,
  size: number,
  file: string,
): void {
  const count = sizeOf(shape);
  if (size - start !== count * bytes)
    throw new GradmixError(
      "data",
      `${file}: has ${size - start} bytes of numbers for the shape (${shape.join(", ")}), which takes ${count * bytes}`,
    );
}
