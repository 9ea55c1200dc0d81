/** The backends on which the engine is tested, and those on which every kernel is tested. */
import type { Backend } from "#dist/backends/backend.js";
import type { KernelName } from "#dist/backends/kernels/index.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { createWebgpuBackend } from "#dist/backends/webgpu/index.js";
import { sharedDevice } from "./device.ts";

export interface BackendOptions {
  readonly memoryLimit?: number;
}

export interface TestedBackend {
  readonly name: string;
  /** Of these kernels, where views begin makes other shaders, which take long to compile for a CPU: their cases take turns. */
  readonly marginsInTurns?: ReadonlySet<KernelName>;
  readonly create: (options?: BackendOptions) => Promise<Backend>;
}

const off = process.env["GRADMIX_WEBGPU"] === "off";

/** On whatever adapter there is; with the variants of kernels for software adapters, or with those for GPUs. */
const webgpu = (name: string, software: boolean): TestedBackend => ({
  name,
  create: async (options) => {
    const { device, adapter } = await sharedDevice();
    return createWebgpuBackend({ device, adapter, software, ...options });
  },
});

export const backends: readonly TestedBackend[] = [
  // One line each.
  { name: "reference", create: async (options) => createReferenceBackend(options) },
  { name: "cpu, 1 thread", create: (options) => createCpuBackend({ ...options, threads: 1 }) },
  { name: "cpu, 3 threads", create: (options) => createCpuBackend({ ...options, threads: 3 }) },
  {
    name: "cpu, plain SIMD",
    create: (options) => createCpuBackend({ ...options, threads: 1, simd: "plain" }),
  },
  ...(off ? [] : [webgpu("webgpu", true)]),
];

const READ_BY_FOURS: ReadonlySet<KernelName> = new Set([
  ...(["gemm", "gemmSegmented", "attention", "attentionVjp", "attentionJvp"] as const),
]);

/** For kernels one by one: software adapters are slow with workgroup memory, whole trainings take too long there. */
export const kernelBackends: readonly TestedBackend[] = [
  ...backends,
  ...(off ? [] : [{ ...webgpu("webgpu, workgroup variants", false), marginsInTurns: READ_BY_FOURS }]),
];
