/**
 * A WebGPU device that runs nothing and has limits but no memory, with which the dispatches of a step of any size can be counted. Results that are read are 0.
 */

/** Limits of a large GPU. */
const LIMITS = {
  maxBufferSize: 2 ** 36,
  maxStorageBufferBindingSize: 2 ** 32 - 4,
  maxStorageBuffersPerShaderStage: 16,
  maxComputeWorkgroupStorageSize: 49_152,
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupSizeX: 1024,
};

const nothing = (): void => {};

export function createCountingDevice(): object {
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing };
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    clearBuffer: nothing,
    finish: () => ({}),
  };
  return {
    limits: LIMITS,
    // It is never lost.
    lost: new Promise<never>(nothing),
    addEventListener: nothing,
    pushErrorScope: nothing,
    popErrorScope: async () => null,
    createBuffer: () => ({
      destroy: nothing,
      mapAsync: async () => {},
      getMappedRange: (_: number, bytes: number) => new ArrayBuffer(bytes),
      unmap: nothing,
    }),
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createShaderModule: () => ({}),
    createComputePipeline: () => ({}),
    createBindGroup: () => ({}),
    createCommandEncoder: () => encoder,
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: async () => {} },
    destroy: nothing,
  };
}
