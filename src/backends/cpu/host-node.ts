/** The CPU backend's host in Node.js: the kernels' bytes, flags of the engine, worker threads. */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { Worker } from "node:worker_threads";
import { GradmixError } from "../../errors.ts";
import { type CpuHost, RELAXED_PROBE, type WorkerHandle } from "./host.ts";
import type { WorkerSetup } from "./serve.ts";

/** The flag that enables relaxed SIMD in Node 20; it is enabled by default from Node 22 on. */
const RELAXED_FLAG = "--experimental-wasm-relaxed-simd";

export const nodeHost: CpuHost = {
  cores: availableParallelism,
  relaxedSimd() {
    if (WebAssembly.validate(RELAXED_PROBE)) return true;
    setFlagsFromString(RELAXED_FLAG);
    return WebAssembly.validate(RELAXED_PROBE);
  },
  wideVectors,
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

/** The flag of V8's pass that makes 256-bit instructions of pairs of 128-bit ones. It is an experiment of V8's, off by default. */
const WIDE_FLAG = "--experimental-wasm-revectorize";
/** Versions of Node.js with whose V8 every kernel was tested. Node 22 has the pass too, but it joins nothing there. */
const WIDE_FIRST = 24;
const WIDE_LAST = 26;

/** Enables the pass for the process, in which it then stays. */
function wideVectors(known: boolean): string | null {
  const missing = missingWideVectors(known);
  if (missing === null) setFlagsFromString(WIDE_FLAG);
  return missing;
}

/**
 * Returns the reason why there are no 256-bit vectors, or null. V8 reports an unknown flag on stderr only, so whether it knows this one follows from how Node was
 * built. `known`: only where they were tested.
 */
export function missingWideVectors(known: boolean): string | null {
  const major = Number(process.versions.node.split(".")[0]);
  if (process.arch !== "x64") return `they need an x64 processor, and this is ${process.arch}`;
  if (major < WIDE_FIRST) return `they need Node.js ${WIDE_FIRST} or later, and this is ${process.version}`;
  if (Reflect.get(process.config.variables, "v8_enable_wasm_simd256_revec") !== 1)
    return "this build of Node.js was compiled without them";
  if (known && major > WIDE_LAST)
    return `they were tested up to Node.js ${WIDE_LAST}, and this is ${process.version}`;
  return hasAvx2() ? null : "they need a processor with AVX2 and FMA";
}

/** Whether the processor has AVX2 and FMA, as far as Linux reports it; other systems do not tell, and nearly all of their processors have them. */
function hasAvx2(): boolean {
  try {
    const flags = /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
    return flags === undefined || (/ avx2\b/.test(flags) && / fma\b/.test(flags));
  } catch {
    return true;
  }
}

/** Returns the bytes of address space that are free under the limit of `ulimit -v`, which only Linux reports. */
function addressRoom(): number {
  try {
    const most = /^Max address space\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    const used = /^VmSize:\s+(\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return most === undefined || used === undefined ? Infinity : Number(most) - Number(used) * 1024;
  } catch {
    return Infinity;
  }
}

/** Starts a worker, which does not keep the process alive. */
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
