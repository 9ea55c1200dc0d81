/**
 * One software device for all backends of a test file, on which every shader is compiled once: compiling for a CPU takes up to seconds, and a file makes
 * many backends. A test that loses the device, or gives it invalid shaders, uses a device of its own (`createNodeDevice`).
 */
import { createNodeDevice } from "#dist/backends/webgpu/host-node.js";

/** Caches results of a call by its arguments. */
function once<A, R extends object>(keyOf: (given: A) => string, make: (given: A) => R): (given: A) => R {
  const made = new Map<string, R>();
  return (given) => {
    const key = keyOf(given);
    const known = made.get(key) ?? make(given);
    made.set(key, known);
    return known;
  };
}

const numbers = new WeakMap<object, number>();
let count = 0;
/** Returns a number that identifies an object. */
const numberOf = (one: object): number => {
  const known = numbers.get(one) ?? ++count;
  numbers.set(one, known);
  return known;
};

type Method = (...args: unknown[]) => unknown;

/** Wraps the functions that make shaders, so that each shader is made once. */
function shadersOf(device: GPUDevice) {
  return {
    createShaderModule: once(
      ({ code }: GPUShaderModuleDescriptor) => code,
      (given) => device.createShaderModule(given),
    ),
    createBindGroupLayout: once(
      ({ entries }: GPUBindGroupLayoutDescriptor) => JSON.stringify(entries),
      (given) => device.createBindGroupLayout(given),
    ),
    createPipelineLayout: once(
      ({ bindGroupLayouts }: GPUPipelineLayoutDescriptor) =>
        [...bindGroupLayouts].map((layout) => (layout === null ? 0 : numberOf(layout))).join(),
      (given) => device.createPipelineLayout(given),
    ),
    createComputePipeline: once(
      ({ layout, compute }: GPUComputePipelineDescriptor) =>
        `${typeof layout === "string" ? layout : numberOf(layout)} ${numberOf(compute.module)}`,
      (given) => device.createComputePipeline(given),
    ),
  };
}

/** Returns a view of the device for one backend, which may destroy it without affecting other backends. */
function lent(device: GPUDevice, shaders: ReturnType<typeof shadersOf>): GPUDevice {
  type Listen = (event: GPUUncapturedErrorEvent) => void;
  let listening: Listen | null = null;
  const own: Readonly<Record<string, unknown>> = {
    ...shaders,
    destroy() {
      if (listening !== null) device.removeEventListener("uncapturederror", listening);
    },
    addEventListener(type: "uncapturederror", listen: Listen) {
      listening = listen;
      device.addEventListener(type, listen);
    },
  };
  return new Proxy(device, {
    get(target, name) {
      if (typeof name === "string" && Object.hasOwn(own, name)) return own[name];
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? (value as Method).bind(target) : value;
    },
  });
}

let shared: ReturnType<typeof createNodeDevice> | null = null;
let shaders: ReturnType<typeof shadersOf> | null = null;

/** The shared device, the name of its adapter, and whether that computes on the CPU. */
export async function sharedDevice(): Promise<{ device: object; adapter: string; software: boolean }> {
  const { device, adapter, software } = await (shared ??= createNodeDevice({ software: true }));
  const own = device as GPUDevice;
  shaders ??= shadersOf(own);
  return { device: lent(own, shaders), adapter, software };
}
