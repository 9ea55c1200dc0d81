/** Embeddings stored in files, one row per document, read by position: .npy, .safetensors and Parquet. They are never all in memory. */
import { closeSync, fstatSync, openSync } from "node:fs";
import type { CancelSignal } from "../../cancel.ts";
import { GradmixError } from "../../errors.ts";
import { openSafetensors } from "../../nn/safetensors.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { checkNpySize, NPY_HEAD, readNpyHeader } from "../npy.ts";
import { parquetRows } from "../tables.ts";
import { readAt } from "../token-files.ts";

export interface RowFile {
  readonly path: string;
  /** Number of rows, and of numbers per row. */
  readonly count: number;
  readonly dim: number;
  /** Reads `count` rows from row `first` on [count · dim]. For Parquet, going back before the last rows that were read means reading from the beginning. */
  read(first: number, count: number): Promise<Float32Array>;
  close(): void;
}

/** Number of rows that are checked at once. */
const BLOCK = 4096;

/**
 * Opens embeddings and reads them once to check that all are finite. `given` is a path; for Parquet, "PATH#COLUMN" names the column, by default
 * "embedding". Throws `data`, naming file and row, for rows of another length or with numbers that are not finite, and for files that are cut off or
 * of another kind.
 */
export async function openRows(given: string, signal?: CancelSignal): Promise<RowFile> {
  const file = /\.parquet(#|$)/i.test(given)
    ? await parquetFile(given)
    : /\.safetensors$/i.test(given)
      ? positional(given, safetensorsLayout)
      : positional(given, npyLayout);
  try {
    for (let first = 0; first < file.count; first += BLOCK) {
      signal?.throwIfAborted();
      const count = Math.min(BLOCK, file.count - first);
      const values = await file.read(first, count);
      const bad = values.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0)
        throw new GradmixError(
          "data",
          `${file.path}: number ${bad % file.dim} of row ${first + Math.floor(bad / file.dim)} is ${values[bad]}; all must be finite`,
        );
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return file;
}

/** Rows by their numbers, in the given order. */
export async function rowsByNumber(file: RowFile, numbers: ArrayLike<number>): Promise<Float32Array> {
  const { dim } = file;
  const out = new Float32Array(numbers.length * dim);
  const order = Array.from(numbers, (number, at) => ({ number, at })).sort((a, b) => a.number - b.number);
  let [first, count] = [0, 0];
  let block: Float32Array = new Float32Array(0);
  for (const { number, at } of order) {
    if (number >= first + count) {
      [first, count] = [number, Math.min(BLOCK, file.count - number)];
      block = await file.read(first, count);
    }
    out.set(block.subarray((number - first) * dim, (number - first + 1) * dim), at * dim);
  }
  return out;
}

interface Layout {
  readonly shape: readonly number[];
  part(first: number, count: number): Float32Array;
}

interface Open {
  readonly path: string;
  readonly size: number;
  read(at: number, into: Uint8Array): void;
}

function positional(path: string, layoutOf: (file: Open) => Layout): RowFile {
  let handle: number;
  try {
    handle = openSync(path, "r");
  } catch (error) {
    throw new GradmixError("data", `${path}: cannot be read`, { cause: error });
  }
  try {
    const size = fstatSync(handle).size;
    const { shape, part } = layoutOf({ path, size, read: (at, into) => readAt(handle, path, at, into) });
    const [count = 0, dim = 0] = shape;
    if (shape.length !== 2 || dim < 1)
      throw new GradmixError(
        "data",
        `${path}: holds numbers of the shape (${shape.join(", ")}); it must have one row per document`,
      );
    return {
      ...{ path, count, dim },
      read: (first, rows) => Promise.resolve(part(first * dim, rows * dim)),
      close: () => closeSync(handle),
    };
  } catch (error) {
    closeSync(handle);
    throw error;
  }
}

function npyLayout({ path, size, read }: Open): Layout {
  const head = new Uint8Array(Math.min(size, NPY_HEAD));
  read(0, head);
  const header = readNpyHeader(head, path);
  checkNpySize(header, size, path);
  return {
    shape: header.shape,
    part(first, count) {
      const bytes = new Uint8Array(count * header.bytes);
      read(header.start + first * header.bytes, bytes);
      return Float32Array.from(header.read(bytes));
    },
  };
}

/** The only matrix of the file, or the one named "embeddings". */
function safetensorsLayout({ path, size, read }: Open): Layout {
  const { shapes, readPart } = openSafetensors({ size, read }, path);
  const matrices = [...shapes].filter(([, shape]) => shape.length === 2).map(([name]) => name);
  const name = matrices.includes("embeddings") ? "embeddings" : matrices[0];
  if (name === undefined || (matrices.length > 1 && name !== "embeddings"))
    throw new GradmixError(
      "data",
      `${path}: has ${matrices.length} matrices; it must have a single one, or one with the name "embeddings"`,
    );
  const shape = shapes.get(name) ?? [];
  return {
    shape,
    part: (first, count) => (sizeOf(shape) === 0 ? new Float32Array(0) : readPart(name, first, count)),
  };
}

async function parquetFile(given: string): Promise<RowFile> {
  const [path = "", column = "embedding"] = given.split("#");
  const fails = (row: number, what: string): GradmixError =>
    new GradmixError("data", `${path}: row ${row}: "${column}" ${what}`);
  let dim = 0;
  const rowOf = (row: number, value: unknown): Float32Array => {
    if (!(Array.isArray(value) || ArrayBuffer.isView(value))) throw fails(row, "is not a list of numbers");
    const numbers = Float32Array.from(value as ArrayLike<number>, Number);
    if (dim > 0 && numbers.length !== dim)
      throw fails(row, `has ${numbers.length} numbers, but the rows before it have ${dim}`);
    if (numbers.length === 0) throw fails(row, "is empty");
    dim = numbers.length;
    return numbers;
  };
  async function* rows(): AsyncGenerator<Float32Array, void, undefined> {
    let row = 0;
    for await (const found of parquetRows(path, [column], `--embeddings ${path}#NAME names another`)) {
      const record = "record" in found ? (found.record as Readonly<Record<string, unknown>>) : {};
      yield rowOf(row++, record[column]);
    }
  }
  let count = 0;
  for await (const row of rows()) count += row.length > 0 ? 1 : 0;
  let [at, reader] = [0, rows()];
  return {
    ...{ path, count, dim },
    async read(first, rowCount) {
      if (first < at) {
        await reader.return();
        [at, reader] = [0, rows()];
      }
      const out = new Float32Array(rowCount * dim);
      for (; at < first + rowCount; at++) {
        const { value } = await reader.next();
        if (value === undefined) throw new GradmixError("data", `${path}: has fewer rows than before`);
        if (at >= first) out.set(value, (at - first) * dim);
      }
      return out;
    },
    close: () => void reader.return(),
  };
}
