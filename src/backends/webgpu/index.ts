/**
 * The WebGPU backend on a given device. It depends on neither Dawn nor Node (only host-node.ts does), so the device can be a browser's.
 *
 * Its parts: failures of the device (`faults.ts`), commands that are encoded but not submitted (`commands.ts`), memory (`buffers.ts`), shaders and bindings
 * (`pipelines.ts`, `encoding.ts`), reading (`read-back.ts`), and the choice of the fastest variant of a kernel (`tuning.ts`).
 */
import { GradmixError } from "../../errors.ts";
import type { TensorData } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import type { Backend } from "../backend.ts";
import { mapInputs, mapOutputs } from "../kernels/check.ts";
import type { Inputs, KernelName, KernelParams, NamedViews, Outputs } from "../kernels/index.ts";
import { type Buffers, createBuffers } from "./buffers.ts";
import { type Commands, createCommands } from "./commands.ts";
import type { DeviceTraits, KernelContext, Launcher, TensorCores } from "./context.ts";
import { createEncoding } from "./encoding.ts";
import { createFaults, type Faults } from "./faults.ts";
import { launchers } from "./kernels/index.ts";
import { createPipelines, type Pipeline } from "./pipelines.ts";
import { createReadBack, type ReadBack } from "./read-back.ts";
import { type Call, createTuner, type Tuner, type TunerDevice, type TuningStore } from "./tuning.ts";

export interface WebgpuOptions {
  /** The `GPUDevice`. The backend owns it from here on and destroys it. */
  readonly device: object;
  /** Name of the adapter, for reports. */
  readonly adapter?: string;
  /** Whether it is a software adapter; kernels then avoid barriers. Default false. */
  readonly software?: boolean;
  /**
   * Precision of matrix products. "f16" rounds their operands to f16 and sums in f32, on tensor cores; everything else stays f32. A software adapter
   * computes the same without being faster. Default "f32".
   */
  readonly precision?: "f32" | "f16";
  /** The device's tensor cores, if it has them. */
  readonly tensorCores?: TensorCores | null;
  /** Largest number of bytes of tensors at once. Default 64 GiB, which is usually more than the memory of the device. */
  readonly memoryLimit?: number;
  /** Bytes of free buffers that are always kept for later allocations. Default 1 GiB. */
  readonly poolFloor?: number;
  /**
   * Store of timed choices. If given, variants of kernels are timed and the choices stored there. Default: nothing is timed, and every kernel uses
   * its default variant.
   */
  readonly tuning?: TuningStore;
}

/** Counts of what the backend has done so far, for benchmarks; during training only the first three grow. */
export interface WebgpuCounters {
  readonly dispatches: number;
  readonly submits: number;
  /** Number of dispatches by the key of their shader. */
  readonly dispatchesOf: ReadonlyMap<string, number>;
  readonly pipelines: number;
  readonly bindGroups: number;
  readonly buffers: number;
  /** Bytes of GPU buffers that exist, in use and pooled. */
  readonly poolBytes: number;
}

export interface WebgpuBackend extends Backend {
  readonly counters: WebgpuCounters;
  /** Variants of kernels that were chosen by time, by bucket. */
  readonly chosen: ReadonlyMap<string, string>;
}

const MEMORY_LIMIT = 2 ** 36;
const POOL_FLOOR = 2 ** 30;

type Launch = <K extends KernelName>(
  kernel: K,
  params: KernelParams[K],
  inputs: Inputs<K>,
  outputs: Outputs<K>,
  /** Variant to use for every choice, instead of the fastest. */
  forced?: string | null,
) => void;

/** Makes the backend. Throws `config` for options that do not fit the device. */
export function createWebgpuBackend(options: WebgpuOptions): WebgpuBackend {
  const device = options.device as GPUDevice;
  const { memoryLimit = MEMORY_LIMIT, poolFloor = POOL_FLOOR } = options;
  if (!(memoryLimit > 0))
    throw new GradmixError(
      "config",
      `webgpu: memoryLimit must be a positive number of bytes, it is ${memoryLimit}`,
    );
  const traits = traitsOf(device, options);
  const faults = createFaults(device);
  const commands = createCommands(device, faults);
  const pipelines = createPipelines(device, faults);
  const buffers = createBuffers(device, faults, commands, { memoryLimit, poolFloor }, pipelines.forget);
  const encoding = createEncoding(
    ...([buffers, pipelines, commands, device.limits.maxStorageBuffersPerShaderStage] as const),
  );
  const readBack = createReadBack(device, faults, buffers, commands);
  const launch: Launch = (kernel, params, inputs, outputs, forced = null) => {
    faults.check();
    const launcher: Launcher<typeof kernel> = launchers[kernel];
    const temporary: number[] = [];
    const context: KernelContext = {
      traits,
      dispatch: encoding.dispatch,
      ride: encoding.ride,
      constant: buffers.constant,
      choose<V extends string>(bucket: string, variants: readonly [V, ...V[]]): V {
        const name =
          forced ?? tuner?.choose(bucket, variants, callOf(faults, launch, kernel, params, inputs, outputs));
        return variants.find((variant) => variant === name) ?? variants[0];
      },
      scratch(elements, dtype = "f32") {
        const buffer = buffers.alloc(elements, dtype);
        temporary.push(buffer);
        return { buffer, offset: 0, shape: [elements], dtype };
      },
    };
    try {
      launcher(context, params, inputs, outputs);
    } finally {
      for (const buffer of temporary) buffers.free(buffer);
    }
  };
  const tuner: Tuner | null =
    options.tuning === undefined
      ? null
      : createTuner(options.tuning, tunerDevice(device, faults, commands, buffers, readBack, launch));

  return {
    name: "webgpu",
    capabilities: { threads: 1, simd: options.adapter ?? "GPU", memoryLimit },
    alloc: buffers.alloc,
    free: buffers.free,
    write: buffers.write,
    async read(buffer, offset, count): Promise<TensorData> {
      faults.check();
      const { dtype } = buffers.entryOf(buffer);
      const bytes = await readBack.read(buffer, offset, count);
      await tuner?.settle();
      return dtype === "f32" ? new Float32Array(bytes) : new Int32Array(bytes);
    },
    run: launch,
    flush: () => commands.submit(),
    chosen: tuner?.chosen ?? new Map<string, string>(),
    get liveBytes() {
      return buffers.liveBytes;
    },
    get peakBytes() {
      return buffers.peakBytes;
    },
    get counters() {
      const { dispatches, submits } = commands;
      const { created, poolBytes } = buffers;
      return {
        dispatches,
        submits,
        dispatchesOf: dispatchesOf(pipelines.made),
        pipelines: pipelines.made.length,
        bindGroups: pipelines.bindGroups,
        buffers: created,
        poolBytes,
      };
    },
    async dispose() {
      if (faults.disposed) return;
      faults.dispose();
      commands.drop();
      buffers.destroy();
      readBack.destroy();
      commands.destroy();
      device.destroy();
    },
  };
}

/** Counts the dispatches by key. Several pipelines may have the same key, because they differ in how their operands are bound. */
function dispatchesOf(pipelines: readonly Pipeline[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const { key, dispatches } of pipelines) counts.set(key, (counts.get(key) ?? 0) + dispatches);
  return counts;
}

/** Returns a kernel call in the form that the tuner can repeat. */
function callOf<K extends KernelName>(
  faults: Faults,
  launch: Launch,
  kernel: K,
  params: KernelParams[K],
  inputs: Inputs<K>,
  outputs: Outputs<K>,
): Call {
  return {
    inputs: viewsOf(inputs),
    outputs: viewsOf(outputs),
    run: (variant) => faults.asTuner(() => launch(kernel, params, inputs, outputs, variant)),
    on: (input, output) =>
      callOf(
        ...([faults, launch, kernel, params] as const),
        mapInputs<K, View, View>(inputs, input),
        mapOutputs<K, View, View>(outputs, output),
      ),
  };
}

const viewsOf = (operands: NamedViews): View[] =>
  Object.values(operands).filter((view) => view !== null && view !== undefined);

/** Returns the properties of the device that kernels may use. Throws `config` for a precision that the device does not support. */
function traitsOf(device: GPUDevice, options: WebgpuOptions): DeviceTraits {
  const traits = {
    software: options.software === true,
    workgroupStorage: device.limits.maxComputeWorkgroupStorageSize,
    rounds: options.precision === "f16",
    tensorCores: options.tensorCores ?? null,
  };
  if (traits.rounds && !traits.software && traits.tensorCores === null)
    throw new GradmixError(
      "config",
      `webgpu: ${options.adapter ?? "this GPU"} offers no tensor cores through WebGPU (f16 products with f32 sums); use precision "f32"`,
    );
  return traits;
}

/** Returns the device for the tuner, which becomes the owner of its allocations and commands. */
function tunerDevice(
  { queue }: GPUDevice,
  faults: Faults,
  commands: Commands,
  buffers: Buffers,
  readBack: ReadBack,
  launch: Launch,
): TunerDevice {
  return {
    alloc: (elements, dtype) => faults.asTuner(() => buffers.alloc(elements, dtype)),
    free: buffers.free,
    copy: (from, to) => faults.asTuner(() => launch("cast", {}, { x: from }, { y: to })),
    randomise: (view) =>
      faults.asTuner(() =>
        launch("random", { kind: "normal", key0: 1, key1: 2, offset: 0 }, {}, { out: view }),
      ),
    bits: async (view, from, count) =>
      new Int32Array(await readBack.read(view.buffer, view.offset + from, count, "tuner")),
    async done() {
      commands.submit();
      await queue.onSubmittedWorkDone();
    },
  };
}
