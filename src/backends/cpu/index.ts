/** The CPU backend in Node.js. */
import type { Backend, Capabilities } from "../backend.ts";
import { startCpu, startMachine as startMachineOn } from "./backend.ts";
import { nodeHost } from "./host-node.ts";
import type { CpuOptions } from "./options.ts";
import type { CpuMachine } from "./runtime.ts";

export { cpuBackend } from "./backend.ts";
export type { CpuOptions } from "./options.ts";

/** Starts the backend. Throws `config` for impossible options, `backend` when the asked SIMD level is not there. */
export function createCpuBackend(options: CpuOptions = {}): Promise<Backend> {
  return startCpu(nodeHost, options);
}

/** The machinery without the interface, for tests and benchmarks. */
export function startMachine(
  options: CpuOptions,
): Promise<{ machine: CpuMachine; capabilities: Capabilities }> {
  return startMachineOn(nodeHost, options);
}
