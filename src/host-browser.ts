/** Starting a backend in a browser, on the page's own thread or in a worker. What only one backend needs is loaded with it. */
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
 * Starts a backend and makes it the one on which tensors are created. A backend that runs already is stopped first. Throws
 * `config` for impossible options, and for those that the chosen backend does not have; `backend` when it cannot start.
 */
export function init(options: InitOptions = {}): Promise<Backend> {
  return start(browserHost, options);
}
