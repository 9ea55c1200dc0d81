/** The functions that the CPU backend needs from its host: Node.js (host-node.ts) or a browser (host-browser.ts). */
import type { SimdLevel } from "./options.ts";
import type { WorkerSetup } from "./serve.ts";

export interface WorkerHandle {
  /** The reason, once the worker has ended or failed. */
  readonly ended: () => string | null;
  stop(): Promise<void>;
}

export interface CpuHost {
  /** Number of cores for threads. */
  cores(): number;
  /** Enables relaxed SIMD where possible, and returns whether it is enabled. */
  relaxedSimd(): boolean;
  /** Enables 256-bit vectors, for the whole process. Returns null, or the reason why this engine has none. `known`: only where they were tested. */
  wideVectors(known: boolean): string | null;
  /** Loads the compiled kernels. Throws `backend` if they cannot be loaded. */
  kernelBytes(simd: SimdLevel): Promise<Uint8Array<ArrayBuffer>>;
  /** Returns the reason why threads cannot share memory here, with advice; null if they can. */
  unshared(): string | null;
  /** Bytes of address space that the process may still use; Infinity if there is no limit, or it is unknown. */
  addressRoom(): number;
  /** Advice if there is no room for a WebAssembly memory; it ends the sentence of the error. */
  readonly makeRoom: string;
  /** Starts a worker and waits until it serves. Rejects with `backend` if it cannot start. */
  startWorker(setup: WorkerSetup): Promise<WorkerHandle>;
}

/** A function with one `i8x16.relaxed_swizzle`, which is only valid if relaxed SIMD is enabled. */
export const RELAXED_PROBE: Uint8Array<ArrayBuffer> = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253,
  128, 2, 11,
]); // prettier-ignore
