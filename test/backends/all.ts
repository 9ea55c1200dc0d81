/** The backends on which the engine is tested, and those on which every kernel is tested. */
import type { Backend } from "#dist/backends/backend.js";
import type { KernelName } from "#dist/backends/kernels/index.js";
import { createCpuBackend, missingVectors } from "#dist/backends/cpu/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { createWebgpuBackend } from "#dist/backends/webgpu/index.js";
import { sharedDevice } from "./device.ts";

export interface BackendOptions {
  readonly memoryLimit?: number;
}

export interface TestedBackend {
  readonly name: string;
  /** Kernels whose shaders depend on the offsets of views. Since shaders take long to compile for a CPU, their cases use one offset each, in turn. */
  readonly marginsInTurns?: ReadonlySet<KernelName>;
  readonly create: (options?: BackendOptions) => Promise<Backend>;
}

const off = process.env["GRADMIX_WEBGPU"] === "off";

/** The WebGPU backend on the available adapter, with the variants of kernels for software adapters or those for GPUs. */
const webgpu = (name: string, software: boolean): TestedBackend => ({
  name,
  create: async (options) => {
    const { device, adapter } = await sharedDevice();
    return createWebgpuBackend({ device, adapter, software, ...options });
  },
});

/** It is made before the other backends of the cpu: V8 keeps what it compiled before the pass for 256-bit vectors was enabled. */
const wide: TestedBackend = {
  name: "cpu, 256-bit vectors",
  create: (options) => createCpuBackend({ ...options, threads: 2, vectorBits: 256 }),
};

export const backends: readonly TestedBackend[] = [
  { name: "reference", create: async (options) => createReferenceBackend(options) },
  ...(missingVectors() === null ? [wide] : []),
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

/** Backends for single kernels. Whole trainings take too long on them, because workgroup memory is slow on software adapters. */
export const kernelBackends: readonly TestedBackend[] = [
  ...backends,
  ...(off ? [] : [{ ...webgpu("webgpu, workgroup variants", false), marginsInTurns: READ_BY_FOURS }]),
];
