/** What the CPU backend needs of Node: the kernels' bytes, flags of the engine, worker threads. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import { GradmixError } from "../../errors.ts";
import type { WorkerSetup } from "./worker.ts";

export type SimdLevel = "relaxed" | "plain";

/** Node 20 has relaxed SIMD behind a flag; from 22 on it is there. */
const RELAXED_FLAG = "--experimental-wasm-relaxed-simd";

/** A function of one `i8x16.relaxed_swizzle`: validates only where relaxed SIMD is on. */
const RELAXED_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253,
  128, 2, 11,
]); // prettier-ignore

/** Turns relaxed SIMD on where it can be; says whether it is. */
export function relaxedSimd(): boolean {
  if (WebAssembly.validate(RELAXED_PROBE)) return true;
  setFlagsFromString(RELAXED_FLAG);
  return WebAssembly.validate(RELAXED_PROBE);
}

export async function kernelBytes(simd: SimdLevel): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await readFile(new URL(`./kernels-${simd}.wasm`, import.meta.url)));
}

export function cores(): number {
  return availableParallelism();
}

/**
 * Bytes of address space that this process may still take; Infinity where nothing limits it, or where it cannot be told (other systems than
 * Linux). A limit is set by `ulimit -v`.
 */
export function addressRoom(): number {
  try {
    const most = /^Max address space\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    const used = /^VmSize:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return most === undefined || used === undefined ? Infinity : Number(most) - Number(used) * 1024;
  } catch {
    return Infinity;
  }
}

export interface WorkerHandle {
  /** The reason, once the worker has ended or failed. */
  readonly ended: () => string | null;
  stop(): Promise<void>;
}

/** Starts a worker and waits until it serves. Rejects when it cannot start. It never keeps the process alive. */
export function startWorker(setup: WorkerSetup): Promise<WorkerHandle> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: setup, execArgv: [] });
    let ended: string | null = null;
    const fail = (reason: string): void => {
      ended ??= reason;
      reject(new GradmixError("backend", `cpu: worker thread ${setup.thread} ${reason}`));
    };
    worker.on("error", (error) => fail(`failed: ${error.message}`));
    worker.on("exit", (code) => fail(`ended with code ${code}`));
    worker.once("message", () => {
      worker.unref();
      resolve({
        ended: () => ended,
        stop: async () => {
          await worker.terminate();
        },
      });
    });
  });
}
