/** Functions that the pages of the tests share. They run in the page, or in a worker of it. */

/** Sends the results of the page to the test. */
export async function report(found: unknown): Promise<void> {
  await fetch("/report", { method: "POST", body: JSON.stringify(found) });
}

/** Returns code and message of the error with which a promise is rejected; "no error" if it is not. */
export async function refusal(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "no error";
  } catch (error) {
    const { name, code, message } = error as Error & { code?: string };
    return `${name} ${code ?? ""}: ${message}`;
  }
}

/** Returns the options for `init` from the page's address, and requests a `device` if they name one. A worker has no such address and uses the cpu. */
export async function initOptions(): Promise<object> {
  const asked = location.search.slice(1);
  const options = (asked === "" ? { backend: "cpu" } : JSON.parse(decodeURIComponent(asked))) as {
    device?: boolean;
  };
  if (options.device !== true) return options;
  const adapter = await navigator.gpu.requestAdapter();
  if (adapter === null) throw new Error("this Chromium shows no WebGPU adapter");
  const { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage } = adapter.limits;
  const device = await adapter.requestDevice({
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage },
  });
  return { ...options, device };
}

/** Reports an error of the page to the test. */
export async function reporting(run: () => Promise<unknown>): Promise<void> {
  try {
    await report(await run());
  } catch (error) {
    await report({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  }
}
