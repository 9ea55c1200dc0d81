/** The CPU backend's host in Node.js: the kernels' bytes, flags of the engine, worker threads. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import { GradmixError } from "../../errors.ts";
import { type CpuHost, RELAXED_PROBE, type WorkerHandle } from "./host.ts";
import type { WorkerSetup } from "./serve.ts";

/** Node 20 has relaxed SIMD behind a flag; from 22 on it is enabled. */
const RELAXED_FLAG = "--experimental-wasm-relaxed-simd";

export const nodeHost: CpuHost = {
  cores: availableParallelism,
  relaxedSimd() {
    if (WebAssembly.validate(RELAXED_PROBE)) return true;
    setFlagsFromString(RELAXED_FLAG);
    return WebAssembly.validate(RELAXED_PROBE);
  },
  async kernelBytes(simd) {
    return new Uint8Array(await readFile(new URL(`./kernels-${simd}.wasm`, import.meta.url)));
  },
  unshared: () =>
    typeof SharedArrayBuffer === "undefined"
      ? "this process has no SharedArrayBuffer; leave threads out, or set it to 1"
      : null,
  addressRoom,
  makeRoom:
    "raise it with ulimit -v unlimited, or set NODE_OPTIONS=--disable-wasm-trap-handler, with which it takes as much as the memory limit",
  startWorker,
};

/** The limit of the address space is set by `ulimit -v`; only Linux reports it. */
function addressRoom(): number {
  try {
    const most = /^Max address space\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    const used = /^VmSize:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return most === undefined || used === undefined ? Infinity : Number(most) - Number(used) * 1024;
  } catch {
    return Infinity;
  }
}

/** The worker never keeps the process alive. */
function startWorker(setup: WorkerSetup): Promise<WorkerHandle> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./worker-node.js", import.meta.url), {
      workerData: setup,
      execArgv: [],
    });
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
