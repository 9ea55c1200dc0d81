/**
 * The reference backend: every kernel in plain TypeScript, all arithmetic in doubles. It is slow and it is the oracle
 * that other backends are tested against. With precision "f64" it also stores f32 tensors as doubles, for
 * finite-difference checks.
 *
 * It is stricter than a fast backend: fresh memory is filled with NaN (f32) or the least integer (i32), operands are
 * checked against the table on every call, and overlaps that the table does not allow are errors.
 */
import { GradmixError } from "../../errors.ts";
import type { DType, TensorData } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { Backend } from "../backend.ts";
import { checkCall, mapInputs, mapOutputs } from "../kernels/check.ts";
import type { Inputs, KernelName, KernelParams, Outputs } from "../kernels/index.ts";
import { giveTurn } from "../turn.ts";
import { along } from "./along.ts";
import { attention } from "./attention.ts";
import { elementwise } from "./elementwise.ts";
import { gather } from "./gather.ts";
import { gemm } from "./gemm.ts";
import type { KernelFunction, Kernels } from "./kernel.ts";
import { loss } from "./loss.ts";
import { maskedAttention } from "./masked-attention.ts";
import { norm } from "./norm.ts";
import { optimizer } from "./optimizer.ts";
import { checkOverlap } from "./overlap.ts";
import { random } from "./random.ts";
import { reduce } from "./reduce.ts";

/** A kernel of the table that is missing here does not compile. */
const implementations: Kernels<KernelName> = {
  ...elementwise,
  ...reduce,
  ...gather,
  ...gemm,
  ...norm,
  ...along,
  ...attention,
  ...maskedAttention,
  ...loss,
  ...optimizer,
  ...random,
};

export interface ReferenceOptions {
  /** How f32 tensors are stored; arithmetic is in doubles either way. Default "f32". */
  readonly precision?: "f32" | "f64";
  /** Most bytes that may be live at once. Default 4 GiB. */
  readonly memoryLimit?: number;
}

/** A reference backend of its own memory. Throws `config` for a memory limit that is not a positive number. */
export function createReferenceBackend(options: ReferenceOptions = {}): Backend {
  const { precision = "f32", memoryLimit = 2 ** 32 } = options;
  if (!(memoryLimit > 0))
    throw new GradmixError(
      "config",
      `reference: memoryLimit must be a positive number of bytes, it is ${memoryLimit}`,
    );

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

  /** Elements offset … offset+count−1 of a buffer, which must have them. */
  function slice(id: number, offset: number, count: number, what: string): TensorData {
    const data = bufferOf(id, what);
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

  function operand(kernel: KernelName, view: View): TensorData {
    const data = slice(view.buffer, view.offset, sizeOf(view.shape), `${kernel}: use`);
    if ((view.dtype === "i32") !== data instanceof Int32Array)
      throw new GradmixError(
        "backend",
        `reference: ${kernel}: a view of type ${view.dtype} on a buffer of another type`,
      );
    return data;
  }

  return {
    name: "reference",
    capabilities: { threads: 1, simd: precision, memoryLimit },
    get liveBytes() {
      return liveBytes;
    },
    get peakBytes() {
      return peakBytes;
    },

    alloc(elements, dtype) {
      if (disposed)
        throw new GradmixError("backend", "reference: alloc after dispose(); create a new backend");
      if (!Number.isSafeInteger(elements) || elements < 0)
        throw new GradmixError("backend", `reference: cannot allocate ${elements} elements`);
      const bytes = elements * bytesPerElement(dtype, precision);
      if (liveBytes + bytes > memoryLimit)
        throw new GradmixError(
          "memory",
          `reference: ${bytes} bytes were requested while ${liveBytes} are live; the limit is ${memoryLimit}. ` +
            "Lower the batch or raise memoryLimit",
        );
      const data = allocate(elements, dtype, precision);
      if (data === null)
        throw new GradmixError(
          "memory",
          `reference: the system refused ${bytes} bytes while ${liveBytes} are live (limit ${memoryLimit})`,
        );
      const id = nextId++;
      buffers.set(id, data);
      liveBytes += bytes;
      peakBytes = Math.max(peakBytes, liveBytes);
      return id;
    },

    free(buffer) {
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

    run<K extends KernelName>(kernel: K, params: KernelParams[K], inputs: Inputs<K>, outputs: Outputs<K>) {
      checkCall(kernel, params, inputs, outputs);
      checkOverlap(kernel, inputs, outputs);
      const implementation: KernelFunction<K> = implementations[kernel];
      const data = (view: View): TensorData => operand(kernel, view);
      implementation(
        params,
        mapInputs<K, View, TensorData>(inputs, data),
        mapOutputs<K, View, TensorData>(outputs, data),
      );
    },

    flush() {},

    async dispose() {
      disposed = true;
      buffers.clear();
      liveBytes = 0;
    },
  };
}

function bytesPerElement(dtype: DType, precision: "f32" | "f64"): number {
  return dtype === "f32" && precision === "f64" ? 8 : 4;
}

/** Memory whose contents show when they are used unwritten; null when the system has none. */
function allocate(elements: number, dtype: DType, precision: "f32" | "f64"): TensorData | null {
  try {
    if (dtype === "i32") return new Int32Array(elements).fill(-2147483648);
    return (precision === "f64" ? new Float64Array(elements) : new Float32Array(elements)).fill(NaN);
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}
