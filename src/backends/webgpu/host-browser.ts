/** The WebGPU backend's host in a browser: its adapter. */
import { GradmixError } from "../../errors.ts";
import type { FoundDevice } from "./adapter-info.ts";
import { requestDevice } from "./device.ts";

/** Makes a device of the browser's GPU; a software adapter is only used with `software`. Throws `backend` with the reason if there is none. */
export async function createBrowserDevice(options: {
  software: boolean;
  tensorCores: boolean;
}): Promise<FoundDevice> {
  // Some browsers lack `navigator.gpu`; the others have it only on pages from HTTPS or from this machine.
  const { gpu } = navigator as Partial<Navigator>;
  if (gpu === undefined)
    throw new GradmixError(
      "backend",
      `webgpu: ${globalThis.isSecureContext ? "this browser has no WebGPU" : "WebGPU needs a page that was loaded over HTTPS"}`,
    );
  return requestDevice(gpu, {
    ...options,
    none: "this browser shows no GPU",
    takeSoftware: "to use it anyway, request its device and pass it to init({ device })",
  });
}
