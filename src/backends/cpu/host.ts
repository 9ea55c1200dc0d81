/** What the CPU backend asks of where it runs: Node.js (host-node.ts) or a browser (host-browser.ts). */
import type { SimdLevel } from "./options.ts";
import type { WorkerSetup } from "./serve.ts";

export interface WorkerHandle {
  /** The reason, once the worker has ended or failed. */
  readonly ended: () => string | null;
  stop(): Promise<void>;
}

export interface CpuHost {
  /** Cores that threads can run on. */
  cores(): number;
  /** Turns relaxed SIMD on where it can be; says whether it is. */
  relaxedSimd(): boolean;
  /** The compiled kernels. Throws `backend` when they cannot be had. */
  kernelBytes(simd: SimdLevel): Promise<Uint8Array<ArrayBuffer>>;
  /** Why threads cannot share a memory here, and what to do; null where they can. */
  unshared(): string | null;
  /** Bytes of address space that the process may still take; Infinity where nothing limits it, or where it cannot be told. */
  addressRoom(): number;
  /** What to do where there is no room for a WebAssembly memory: the end of a sentence. */
  readonly makeRoom: string;
  /** Starts a worker and waits until it serves. Rejects with `backend` when it cannot start. */
  startWorker(setup: WorkerSetup): Promise<WorkerHandle>;
}

/** A function of one `i8x16.relaxed_swizzle`: validates only where relaxed SIMD is on. */
export const RELAXED_PROBE: Uint8Array<ArrayBuffer> = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253,
  128, 2, 11,
]); // prettier-ignore
