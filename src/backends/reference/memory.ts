/** The reference backend's memory: one typed array per buffer, whose bounds and types are checked at every use. */
import { GradmixError } from "../../errors.ts";
import type { DType, TensorData } from "../../tensor/dtype.ts";
import type { Memory, View } from "../../tensor/memory.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { giveTurn } from "../turn.ts";

export interface ReferenceMemory extends Omit<Memory, "name" | "readNow" | "write"> {
  /** The elements of a view. Throws `backend`, beginning with `what`, for a view that is not within a buffer of its type. */
  elementsOf(view: View, what: string): TensorData;
  write(buffer: number, offset: number, data: ArrayLike<number>): void;
  readNow(buffer: number, offset: number, count: number): TensorData;
  /** Frees all buffers. Nothing can be allocated afterwards. */
  clear(): void;
}

export type Precision = "f32" | "f64";

export function createMemory(precision: Precision, memoryLimit: number): ReferenceMemory {
  const buffers = new Map<number, TensorData>();
  let nextId = 1;
  let liveBytes = 0;
  let peakBytes = 0;
  let disposed = false;

  function bufferOf(id: number, what: string): TensorData {
    const data = buffers.get(id);
    if (data !== undefined) return data;
    throw new GradmixError(
      "backend",
      disposed
        ? `reference: ${what} after dispose(); create a new backend`
        : `reference: ${what} of buffer ${id}, which was freed or never allocated`,
    );
  }
  const slice = (id: number, offset: number, count: number, what: string): TensorData =>
    sliceOf(bufferOf(id, what), id, offset, count, what);

  return {
    get liveBytes() {
      return liveBytes;
    },
    get peakBytes() {
      return peakBytes;
    },
    alloc(elements, dtype) {
      if (disposed)
        throw new GradmixError("backend", "reference: alloc after dispose(); create a new backend");
      const bytes = elements * bytesPerElement(dtype, precision);
      const data = allocate(elements, dtype, precision, { bytes, liveBytes, memoryLimit });
      const id = nextId++;
      buffers.set(id, data);
      liveBytes += bytes;
      peakBytes = Math.max(peakBytes, liveBytes);
      return id;
    },
    free(buffer) {
      // As on the other backends, a tensor may be disposed after its backend.
      if (disposed) return;
      liveBytes -= bufferOf(buffer, "free").byteLength;
      buffers.delete(buffer);
    },
    write(buffer, offset, data) {
      slice(buffer, offset, data.length, "write").set(data);
    },
    async read(buffer, offset, count) {
      const data = slice(buffer, offset, count, "read").slice();
      await giveTurn();
      return data;
    },
    readNow: (buffer, offset, count) => slice(buffer, offset, count, "read").slice(),
    elementsOf(view, what) {
      const data = slice(view.buffer, view.offset, sizeOf(view.shape), `${what}: use`);
      if ((view.dtype === "i32") !== data instanceof Int32Array)
        throw new GradmixError(
          "backend",
          `reference: ${what}: a view of type ${view.dtype} on a buffer of another type`,
        );
      return data;
    },
    clear() {
      disposed = true;
      buffers.clear();
      liveBytes = 0;
    },
  };
}

/** Returns the elements offset … offset+count−1 of a buffer. Throws if the buffer does not contain them. */
function sliceOf(data: TensorData, id: number, offset: number, count: number, what: string): TensorData {
  if (
    !Number.isInteger(offset) ||
    !Number.isInteger(count) ||
    offset < 0 ||
    count < 0 ||
    offset + count > data.length
  )
    throw new GradmixError(
      "backend",
      `reference: ${what} of ${count} elements from element ${offset}, but buffer ${id} has ${data.length}`,
    );
  return data.subarray(offset, offset + count);
}

function bytesPerElement(dtype: DType, precision: Precision): number {
  return dtype === "f32" && precision === "f64" ? 8 : 4;
}

interface Room {
  readonly bytes: number;
  readonly liveBytes: number;
  readonly memoryLimit: number;
}

/** Allocates memory filled with values that expose reads of unwritten elements. Throws `memory` if there is no room. */
function allocate(
  elements: number,
  dtype: DType,
  precision: Precision,
  { bytes, liveBytes, memoryLimit }: Room,
): TensorData {
  if (!Number.isSafeInteger(elements) || elements < 0)
    throw new GradmixError("backend", `reference: cannot allocate ${elements} elements`);
  if (liveBytes + bytes > memoryLimit)
    throw new GradmixError(
      "memory",
      `reference: ${bytes} bytes were requested while ${liveBytes} are live; the limit is ${memoryLimit}. ` +
        "Free tensors that are no longer used (scope, dispose), lower the batch, or raise memoryLimit",
    );
  try {
    if (dtype === "i32") return new Int32Array(elements).fill(-2147483648);
    return (precision === "f64" ? new Float64Array(elements) : new Float32Array(elements)).fill(NaN);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new GradmixError(
      "memory",
      `reference: the system refused ${bytes} bytes while ${liveBytes} are live (limit ${memoryLimit})`,
    );
  }
}
