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
  /**
   * Of the operands of matrix products; their sums, and all tensors, are f32. "f16" needs "webgpu", and loss scaling in training. Default:
   * "f32".
   */
  readonly precision?: "f32" | "f16";
  /** Kernel variants are pinned, not chosen by timing them, on "webgpu"; the other backends time none. Default: false. */
  readonly deterministic?: boolean;
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

async function create(name: string, options: InitOptions): Promise<Backend> {
  const { threads, simd, precision, deterministic, memoryLimit } = options;
  const limit = memoryLimit === undefined ? {} : { memoryLimit };
  if (precision === "f16" && (name === "cpu" || name === "reference"))
    throw new GradmixError("config", `precision: "f16" needs the backend "webgpu", not "${name}"`);
  if (name === "reference") return createReferenceBackend(limit);
  if (name === "webgpu") {
    const { createNodeDevice } = await import("./backends/webgpu/host-node.ts");
    const { createWebgpuBackend } = await import("./backends/webgpu/index.ts");
    const { device, adapter, software } = await createNodeDevice({
      software: environment("GRADMIX_WEBGPU") === "software",
    });
    return createWebgpuBackend({
      device,
      adapter,
      software,
      ...limit,
      ...(precision === undefined ? {} : { precision }),
      ...(deterministic === undefined ? {} : { deterministic }),
    });
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
