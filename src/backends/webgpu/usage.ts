/** Constants of the WebGPU specification. The globals with these names do not exist in every host. */

/** Constants of `GPUBufferUsage`. */
export const USAGE = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128 };
/** Constant of `GPUMapMode`. */
export const MAP_READ = 1;
/** Constant of `GPUShaderStage`. */
export const COMPUTE = 4;
