/** The CPU backend in Node.js. */
import type { Backend, Capabilities } from "../backend.ts";
import { startCpu, startMachine as startMachineOn } from "./backend.ts";
import { missingWideVectors, nodeHost } from "./host-node.ts";
import type { CpuOptions } from "./options.ts";
import type { CpuMachine } from "./runtime.ts";

export { cpuBackend } from "./backend.ts";
export type { CpuOptions } from "./options.ts";

/** Starts the backend. Throws `config` for invalid options, and `backend` if the requested SIMD level is not supported here. */
export function createCpuBackend(options: CpuOptions = {}): Promise<Backend> {
  return startCpu(nodeHost, options);
}

/** Returns the reason why `vectorBits: "auto"` uses no 256-bit vectors here, or null. */
export function missingVectors(): string | null {
  return missingWideVectors(true);
}

/** Starts the parts below the backend interface, for tests and benchmarks. */
export function startMachine(
  options: CpuOptions,
): Promise<{ machine: CpuMachine; capabilities: Capabilities }> {
  return startMachineOn(nodeHost, options);
}
