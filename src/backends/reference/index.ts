/**
 * The reference backend: every kernel in plain TypeScript, with all arithmetic in doubles. It is slow, and is the oracle
 * for the tests of other backends. With precision "f64" it also stores f32 tensors as doubles, for
 * finite-difference checks.
 *
 * It is stricter than a fast backend: fresh memory is filled with NaN (f32) or the least integer (i32), operands are
 * checked against the table on every call, and overlaps that the table does not allow are errors.
 */
import { GradmixError } from "../../errors.ts";
import type { TensorData } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import type { Backend } from "../backend.ts";
import { checkCall, mapInputs, mapOutputs } from "../kernels/check.ts";
import type { Inputs, KernelName, KernelParams, Outputs } from "../kernels/index.ts";
import { along } from "./along.ts";
import { attention } from "./attention.ts";
import { elementwise } from "./elementwise.ts";
import { gather } from "./gather.ts";
import { gemm } from "./gemm.ts";
import type { KernelFunction, Kernels } from "./kernel.ts";
import { loss } from "./loss.ts";
import { maskedAttention } from "./masked-attention.ts";
import { createMemory, type Precision } from "./memory.ts";
import { norm } from "./norm.ts";
import { optimizer } from "./optimizer.ts";
import { checkOverlap } from "./overlap.ts";
import { random } from "./random.ts";
import { reduce } from "./reduce.ts";

/** All kernels of the table; a missing one is an error of the compiler. */
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
  /** Type in which f32 tensors are stored; arithmetic is in doubles with either. Default "f32". */
  readonly precision?: Precision;
  /** Largest number of bytes that may be live at once. Default 4 GiB. */
  readonly memoryLimit?: number;
}

/** Makes a reference backend with its own memory. Throws `config` for a memory limit that is not a positive number. */
export function createReferenceBackend(options: ReferenceOptions = {}): Backend {
  const { precision = "f32", memoryLimit = 2 ** 32 } = options;
  if (!(memoryLimit > 0))
    throw new GradmixError(
      "config",
      `reference: memoryLimit must be a positive number of bytes, it is ${memoryLimit}`,
    );
  const memory = createMemory(precision, memoryLimit);
  return {
    name: "reference",
    capabilities: { threads: 1, simd: precision, memoryLimit },
    get liveBytes() {
      return memory.liveBytes;
    },
    get peakBytes() {
      return memory.peakBytes;
    },
    alloc: memory.alloc,
    free: memory.free,
    write: memory.write,
    read: memory.read,
    readNow: memory.readNow,
    run<K extends KernelName>(kernel: K, params: KernelParams[K], inputs: Inputs<K>, outputs: Outputs<K>) {
      checkCall(kernel, params, inputs, outputs);
      checkOverlap(kernel, inputs, outputs);
      const implementation: KernelFunction<K> = implementations[kernel];
      const data = (view: View): TensorData => memory.elementsOf(view, kernel);
      implementation(
        params,
        mapInputs<K, View, TensorData>(inputs, data),
        mapOutputs<K, View, TensorData>(outputs, data),
      );
    },
    flush() {},
    async dispose() {
      memory.clear();
    },
  };
}
