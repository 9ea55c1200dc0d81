/** Numbers of the specification, because the globals with their names do not exist in every host. */

/** Of `GPUBufferUsage`. */
export const USAGE = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128 };
/** Of `GPUMapMode`. */
export const MAP_READ = 1;
/** Of `GPUShaderStage`. */
export const COMPUTE = 4;
