/** Starts a backend in a browser, on the page's own thread or in a worker. The modules of a backend are loaded only when it is started. */
import type { Backend } from "./backends/backend.ts";
import { cpuUrls, type Host, type InitOptions, start } from "./init.ts";

const browserHost: Host = {
  urls: cpuUrls,
  environment: () => undefined,
  async startCpu(options, urls) {
    const { createCpuBackend } = await import("./backends/cpu/host-browser.ts");
    return createCpuBackend(options, urls);
  },
  mayHaveGpu: () => Promise.resolve("gpu" in navigator),
  async findDevice(options) {
    const { createBrowserDevice } = await import("./backends/webgpu/host-browser.ts");
    return createBrowserDevice(options);
  },
  async tuningStore(_, log) {
    const { tuningForNow } = await import("./backends/webgpu/tuning.ts");
    return tuningForNow(log);
  },
};

/**
 * Starts a backend and creates all later tensors on it. If a backend is already running, it is stopped first and its tensors are lost. Throws
 * `config` for values that do not fit and for options that the chosen backend does not have, and `backend` if the backend cannot start.
 */
export function init(options: InitOptions = {}): Promise<Backend> {
  return start(browserHost, options);
}
