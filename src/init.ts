/** Starting and stopping a backend. */
import type { Backend } from "./backends/backend.ts";
import { createReferenceBackend } from "./backends/reference/index.ts";
import { GradmixError } from "./errors.ts";
import { setCurrentMemory } from "./tensor/memory.ts";

export interface InitOptions {
  /**
   * Default: the environment variable GRADMIX_BACKEND, or "cpu". "webgpu" needs the optional package `webgpu` and a GPU; a software adapter is used only
   * with GRADMIX_WEBGPU=software. "reference" is slow and exact: an oracle.
   */
  readonly backend?: "cpu" | "webgpu" | "reference";
  /** Threads that run kernels, the calling one included. Default: one a core. */
  readonly threads?: number;
  /** "relaxed" fuses multiply-adds where the engine can; "plain" runs everywhere. Default: "auto", relaxed if possible. */
  readonly simd?: "auto" | "relaxed" | "plain";
  /** Most bytes of tensors at once. */
  readonly memoryLimit?: number;
}

let running: Backend | null = null;

/**
 * Starts a backend and makes it the one on which tensors are created. A backend that runs already is stopped first. Throws
 * `config` for impossible options, `backend` when it cannot start.
 */
export async function init(options: InitOptions = {}): Promise<Backend> {
  const name = options.backend ?? environment("GRADMIX_BACKEND") ?? "cpu";
  await shutdown();
  running = await create(name, options);
  setCurrentMemory(running);
  return running;
}

/** Stops the backend; its tensors are gone. Without one it does nothing. */
export async function shutdown(): Promise<void> {
  const backend = running;
  running = null;
  if (backend === null) return;
  setCurrentMemory(null);
  await backend.dispose();
}

async function create(name: string, { threads, simd, memoryLimit }: InitOptions): Promise<Backend> {
  const limit = memoryLimit === undefined ? {} : { memoryLimit };
  if (name === "reference") return createReferenceBackend(limit);
  if (name === "webgpu") {
    const { createNodeDevice } = await import("./backends/webgpu/host-node.ts");
    const { createWebgpuBackend } = await import("./backends/webgpu/index.ts");
    const { device, adapter, software } = await createNodeDevice({
      software: environment("GRADMIX_WEBGPU") === "software",
    });
    return createWebgpuBackend({ device, adapter, software, ...limit });
  }
  if (name !== "cpu")
    throw new GradmixError(
      "config",
      `no backend is called "${name}"; there are "cpu", "webgpu" and "reference"`,
    );
  // Only here: the others need none of its code.
  const { createCpuBackend } = await import("./backends/cpu/index.ts");
  return createCpuBackend({
    ...limit,
    ...(threads === undefined ? {} : { threads }),
    ...(simd === undefined || simd === "auto" ? {} : { simd }),
  });
}

function environment(name: string): string | undefined {
  return typeof process === "undefined" ? undefined : process.env[name];
}
