/** Starts a backend in Node.js. The modules of a backend are loaded only when it is started. */
import type { Backend } from "./backends/backend.ts";
import { GradmixError } from "./errors.ts";
import { type Host, type InitOptions, start } from "./init.ts";

const nodeHost: Host = {
  urls(name) {
    throw new GradmixError(
      "config",
      `${name}: this option is only for browsers; leave it out, because Node.js finds the files itself`,
    );
  },
  environment: (name) => (process.env[name] === "" ? undefined : process.env[name]),
  async startCpu(options) {
    const { createCpuBackend } = await import("./backends/cpu/index.ts");
    return createCpuBackend(options);
  },
  async mayHaveGpu() {
    const { mayHaveGpu } = await import("./backends/webgpu/host-node.ts");
    return mayHaveGpu();
  },
  async findDevice(options) {
    const { createNodeDevice } = await import("./backends/webgpu/host-node.ts");
    return createNodeDevice(options);
  },
  async tuningStore(device, log) {
    const { tuningStore } = await import("./backends/webgpu/host-node.ts");
    return tuningStore(device, log);
  },
};

/**
 * Starts a backend and creates all later tensors on it. If a backend is already running, it is stopped first and its tensors are lost. Throws
 * `config` for values that do not fit and for options that the chosen backend does not have, and `backend` if the backend cannot start.
 */
export function init(options: InitOptions = {}): Promise<Backend> {
  return start(nodeHost, options);
}
