/**
 * The WebGPU backend, on a device that is handed to it: it knows neither Dawn nor Node (host-node.ts does), so a browser's device will do.
 *
 * Kernels are encoded into one compute pass until something has to be read, then submitted together. Scalars go through one uniform buffer, a slot a
 * dispatch, written once a submit. Pipelines are kept by their source, bind groups by pipeline and buffers; the pool hands out the same buffers step
 * after step, so a running training makes neither.
 */
import { GradmixError } from "../../errors.ts";
import type { DType, TensorData } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import { sizeOf } from "../../tensor/shape.ts";
import type { Backend } from "../backend.ts";
import type { KernelName, KernelParams } from "../kernels.ts";
import { GRID_GROUPS, SLOTS } from "./blocks.ts";
import { type Dispatch, type KernelContext, type Launcher, type TensorCores, textOf } from "./context.ts";
import { launchers } from "./kernels/index.ts";
import { createNaps } from "./naps.ts";
import { type BufferPool, createPool, type PooledBuffer } from "./pool.ts";
import { scalarLayout, type ShaderOperand, shaderOf, type ShaderSlot } from "./shader.ts";
import { createTuner, type Tuner, type TuningStore } from "./tuning.ts";

export interface WebgpuOptions {
  /** A `GPUDevice`. It belongs to the backend from here on, which destroys it. */
  readonly device: object;
  /** What reports call it. */
  readonly adapter?: string;
  /** Is it a software adapter? Kernels then avoid barriers. */
  readonly software?: boolean;
  /**
   * "f16": matrix products round their operands to f16 and sum in f32, on tensor cores; everything else stays f32. A software adapter computes the same
   * without being faster. Default "f32".
   */
  readonly precision?: "f32" | "f16";
  /** Given when the device has them. */
  readonly tensorCores?: TensorCores | null;
  /** Most bytes of tensors at once. Default 64 GiB: the device says no before. */
  readonly memoryLimit?: number;
  /** Bytes of free buffers that are kept in any case, for what is allocated next. Default 1 GiB. */
  readonly poolFloor?: number;
  /** Variants of kernels are timed, and the choices kept there. Without it nothing is timed: every kernel takes its default variant. */
  readonly tuning?: TuningStore;
}

/** What the backend has done so far, for benchmarks: in a running training only the first two grow. */
export interface WebgpuCounters {
  readonly dispatches: number;
  readonly submits: number;
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

type Owner = "caller" | "tuner";

interface Entry {
  readonly pooled: PooledBuffer;
  readonly count: number;
  readonly dtype: DType;
}

/** A buffer that a dispatch binds. */
interface Slot extends ShaderSlot {
  readonly entry: Entry;
  written: boolean;
  vectors: boolean;
  /** Something in it has to be reached element by element. */
  scalars: boolean;
}

interface BoundOperand extends ShaderOperand {
  /** Its first element. */
  readonly at: number;
}

interface Pipeline {
  readonly id: number;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** Bytes of its scalars. */
  readonly scalarBytes: number;
  /** The device may still say that it does not compile. */
  proven: boolean;
  failure: GradmixError | null;
  /** Resolves when the device has said whether it compiles. */
  readonly answered: Promise<void>;
}

/** Bytes of a slot of the uniform buffer: what dynamic offsets must be multiples of. */
const SLOT = 256;
const INFINITY_BITS = 0x7f800000;
const POOL_FLOOR = 2 ** 30;

// The specification's numbers; the globals with their names are not there in every host.
const USAGE = { mapRead: 1, copySource: 4, copyTarget: 8, uniform: 64, storage: 128 };
const MAP_READ = 1;
const COMPUTE = 4;

export function createWebgpuBackend(options: WebgpuOptions): WebgpuBackend {
  const device = options.device as GPUDevice;
  const { queue, limits } = device;
  const memoryLimit = options.memoryLimit ?? 2 ** 36;
  // Beyond it as much is kept as was ever live at one time: a step's buffers wait for the next step.
  const poolFloor = options.poolFloor ?? POOL_FLOOR;
  if (!(memoryLimit > 0))
    throw new GradmixError(
      "config",
      `webgpu: memoryLimit must be a positive number of bytes, it is ${memoryLimit}`,
    );
  // In whole vectors of four.
  const bindable = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  const mostBytes = bindable - (bindable % 16);
  const traits = {
    software: options.software === true,
    workgroupStorage: limits.maxComputeWorkgroupStorageSize,
    rounds: options.precision === "f16",
    tensorCores: options.tensorCores ?? null,
  };
  if (traits.rounds && !traits.software && traits.tensorCores === null)
    throw new GradmixError(
      "config",
      `webgpu: ${options.adapter ?? "this GPU"} offers no tensor cores through WebGPU (f16 products with f32 sums); use precision "f32"`,
    );

  let failure: GradmixError | null = null;
  let disposed = false;
  /**
   * Who allocates and encodes: the tuner tries things while its caller waits for something else, so memory that is refused to one is none of the other's
   * business.
   */
  let owner: Owner = "caller";
  let refusedToTuner: GradmixError | null = null;
  const fail = (error: GradmixError, whose: Owner = "caller"): void => {
    if (whose === "caller") failure ??= error;
    else refusedToTuner ??= error;
  };
  const asTuner = <T>(task: () => T): T => {
    owner = "tuner";
    try {
      return task();
    } finally {
      owner = "caller";
    }
  };
  const watch = async (): Promise<void> => {
    const { reason, message } = await device.lost;
    if (!disposed)
      fail(new GradmixError("backend", `webgpu: the device was lost (${reason}): ${firstLine(message)}`));
  };
  void watch();
  /** Errors after which the device goes on: thrown once. */
  const passing = new WeakSet<GradmixError>();
  /** What the device may yet refuse, and buffers that it refused and that are still in use: commands with one of them are errors too. */
  const asked = new Set<Promise<void>>();
  const refusals = new Map<GPUBuffer, { readonly error: GradmixError; readonly whose: Owner }>();
  const judge = async (message: string): Promise<void> => {
    if (asked.size > 0) await Promise.all(asked);
    const [refusal] = refusals.values();
    if (refusal === undefined) fail(new GradmixError("backend", `webgpu: ${firstLine(message)}`));
    else fail(refusal.error, refusal.whose);
  };
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    void judge(event.error.message);
  });
  /** Remembers the question until it is answered; whoever reads waits for that. */
  const ask = (listen: () => Promise<void>): Promise<void> => {
    const answer = listen();
    asked.add(answer);
    void answer.finally(() => asked.delete(answer));
    return answer;
  };
  const check = (whose: Owner = owner): void => {
    if (disposed) throw new GradmixError("backend", "webgpu: the backend was disposed");
    if (whose === "tuner" && refusedToTuner !== null) {
      const thrown = refusedToTuner;
      refusedToTuner = null;
      throw thrown;
    }
    if (failure === null || (whose === "tuner" && failure.code === "memory")) return;
    const thrown = failure;
    // Running out of memory, or a kernel that does not compile, leaves the device usable.
    if (thrown.code === "memory" || passing.has(thrown)) failure = null;
    throw thrown;
  };

  const bindGroups = new Map<string, { group: GPUBindGroup; buffers: readonly number[] }>();
  /** By a dispatch's key, and by how its operands are bound. */
  const pipelines = new Map<string, Map<string, Pipeline>>();
  let pipelineCount = 0;
  const make = (bytes: number, usage: number, refused: (buffer: GPUBuffer) => void): GPUBuffer => {
    device.pushErrorScope("out-of-memory");
    const buffer = device.createBuffer({ size: bytes, usage });
    const live = liveBytes;
    const whose = owner;
    // The device says later whether it had the memory; a lost one says nothing.
    void ask(async () => {
      const error = await device.popErrorScope().catch(() => null);
      if (error === null || disposed) return;
      const refusal = new GradmixError(
        "memory",
        `webgpu: the device refused ${bytes} bytes while ${live} are live; lower the batch`,
      );
      refusals.set(buffer, { error: refusal, whose });
      fail(refusal, whose);
      const { id } = pool.find(buffer) ?? {};
      if (id !== undefined && pending.has(id)) {
        // What is encoded can no longer run, and whoever encoded something has to know.
        for (const one of encodedBy) fail(refusal, one);
        drop();
      }
      refused(buffer);
    });
    return buffer;
  };
  const forget = (id: number): void => {
    for (const [key, { buffers: used }] of bindGroups) if (used.includes(id)) bindGroups.delete(key);
  };
  const pool: BufferPool = createPool(
    (bytes) =>
      make(bytes, USAGE.storage | USAGE.copySource | USAGE.copyTarget, (buffer) => {
        pool.refuse(buffer);
        for (const [key, view] of constants) {
          const entry = entries.get(view.buffer);
          if (entry?.pooled.buffer !== buffer) continue;
          constants.delete(key);
          entries.delete(view.buffer);
          pool.give(entry.pooled);
        }
      }),
    { most: mostBytes, cap: () => Math.max(poolFloor, peakBytes) },
    ({ id, buffer }) => {
      // What is encoded and uses it has to be submitted first: a submit with a destroyed buffer runs nothing.
      if (pending.has(id)) submit();
      refusals.delete(buffer);
      forget(id);
    },
  );
  const staging: BufferPool = createPool(
    (bytes) => make(bytes, USAGE.mapRead | USAGE.copyTarget, (buffer) => staging.refuse(buffer)),
    { most: limits.maxBufferSize, cap: () => 2 ** 28 },
    ({ buffer }) => refusals.delete(buffer),
  );
  const scalars = device.createBuffer({ size: SLOT * SLOTS, usage: USAGE.uniform | USAGE.copyTarget });
  const scalarBytes = new ArrayBuffer(SLOT * SLOTS);
  const scalarData = new DataView(scalarBytes);
  let usedSlots = 0;

  const entries = new Map<number, Entry>();
  let nextBuffer = 1;
  let liveBytes = 0;
  let peakBytes = 0;
  let dispatches = 0;
  let submits = 0;
  let encoder: GPUCommandEncoder | null = null;
  let pass: GPUComputePassEncoder | null = null;
  /** Pool buffers that the open encoder uses, and whose commands it has. */
  const pending = new Set<number>();
  const encodedBy = new Set<Owner>();

  const naps = createNaps();
  let nap: Promise<void> = Promise.resolve();
  let readUpTo = 0;

  const entryOf = (buffer: number): Entry => {
    const entry = entries.get(buffer);
    if (entry === undefined) throw new GradmixError("backend", `webgpu: buffer ${buffer} does not exist`);
    return entry;
  };
  const inside = (entry: Entry, offset: number, count: number): void => {
    if (offset < 0 || offset + count > entry.count)
      throw new GradmixError(
        "shape",
        `webgpu: elements ${offset} to ${offset + count} are outside of a buffer of ${entry.count}`,
      );
  };
  /** Forgets what is encoded and was not submitted. */
  const drop = (): void => {
    pass?.end();
    encoder = pass = null;
    usedSlots = 0;
    pending.clear();
    encodedBy.clear();
  };
  /** `trial`: what is encoded is a dispatch of this pipeline alone, which may turn out not to compile. */
  const submit = (trial: Pipeline | null = null): void => {
    if (encoder === null) return;
    pass?.end();
    queue.writeBuffer(scalars, 0, scalarBytes, 0, usedSlots * SLOT);
    if (trial !== null) device.pushErrorScope("validation");
    queue.submit([encoder.finish()]);
    if (trial !== null)
      void ask(async () => {
        const error = await device.popErrorScope().catch(() => null);
        // Answers come in any order: that the pipeline does not compile is the cause, an invalid dispatch only follows from it.
        await trial.answered;
        if (error !== null && !disposed && trial.failure === null) void judge(error.message);
      });
    submits++;
    pass = null;
    drop();
  };
  const open = (): GPUComputePassEncoder => {
    encoder ??= device.createCommandEncoder();
    return (pass ??= encoder.beginComputePass());
  };

  /** `layoutKey` says which operands share a binding and how each is bound; all else that a shader depends on is in the dispatch's key. */
  const pipelineOf = (
    dispatch: Dispatch,
    layoutKey: string,
    operands: readonly ShaderOperand[],
    slots: readonly ShaderSlot[],
  ): Pipeline => {
    const known = pipelines.get(dispatch.key)?.get(layoutKey);
    if (known !== undefined) return known;
    const source = {
      operands,
      slots,
      scalars: Object.entries(dispatch.scalars ?? {}).map(([name, [type]]) => [name, type] as const),
      workgroup: dispatch.workgroup ?? 64,
      ...(dispatch.declarations === undefined ? {} : { declarations: textOf(dispatch.declarations) }),
      ...(dispatch.features === undefined ? {} : { features: dispatch.features }),
      ...(dispatch.subgroupSize === undefined ? {} : { subgroupSize: dispatch.subgroupSize }),
      body: textOf(dispatch.body),
    };
    const bytes = 16 * Math.ceil(scalarLayout(source).length / 4);
    const layout = device.createBindGroupLayout({
      entries: [
        {
          binding: 0,
          visibility: COMPUTE,
          buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: bytes },
        },
        ...slots.map(({ written }, slot): GPUBindGroupLayoutEntry => ({
          binding: slot + 1,
          visibility: COMPUTE,
          buffer: { type: written ? "storage" : "read-only-storage" },
        })),
      ],
    });
    device.pushErrorScope("internal");
    device.pushErrorScope("validation");
    const pipeline = device.createComputePipeline({
      label: dispatch.key,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: {
        module: device.createShaderModule({ label: dispatch.key, code: shaderOf(source) }),
        entryPoint: "main",
      },
    });
    const whose = owner;
    const answers = [device.popErrorScope(), device.popErrorScope()];
    const answered = ask(async () => {
      const found = await Promise.all(answers).catch(() => []);
      const error = found.find((each) => each !== null) ?? null;
      made.proven = true;
      if (error === null || disposed) return;
      made.failure = new GradmixError(
        "backend",
        `webgpu: the kernel "${dispatch.key}" does not compile: ${firstLine(error.message)}`,
      );
      passing.add(made.failure);
      fail(made.failure, whose);
    });
    const made: Pipeline = {
      ...{ id: pipelineCount++, pipeline, layout, scalarBytes: bytes },
      ...{ proven: false, failure: null, answered },
    };
    const alike = pipelines.get(dispatch.key) ?? new Map<string, Pipeline>();
    pipelines.set(dispatch.key, alike.set(layoutKey, made));
    return made;
  };

  const encode = (dispatch: Dispatch): void => {
    if (dispatch.groups === 0) return;
    const slots: Slot[] = [];
    const operands: BoundOperand[] = [];
    let layoutKey = "";
    for (const { name, view, written = false, fours = false } of dispatch.operands) {
      const entry = entryOf(view.buffer);
      inside(entry, view.offset, sizeOf(view.shape));
      let slot = 0;
      while (slot < slots.length && slots[slot].entry !== entry) slot++;
      if (slot === slots.length)
        slots.push({ entry, dtype: view.dtype, written: false, vectors: false, scalars: false });
      const own = slots[slot];
      own.written ||= written;
      own.vectors ||= fours;
      // A single element of a vector can be read, but not written without its neighbours.
      own.scalars ||= fours ? view.offset % 4 !== 0 : written;
      operands.push({ name, dtype: view.dtype, slot, at: view.offset, fours });
      layoutKey += slot;
    }
    let used = "";
    for (const slot of slots) {
      slot.vectors &&= !slot.scalars;
      layoutKey += slot.written ? (slot.vectors ? "W" : "w") : slot.vectors ? "R" : "r";
      used += `,${slot.entry.pooled.id}`;
    }
    const made = pipelineOf(dispatch, layoutKey, operands, slots);
    if (made.failure !== null) throw made.failure;
    const { id, pipeline, layout, scalarBytes: bytes } = made;
    // A pass with a pipeline that does not compile runs nothing: until the device has said that it does, it runs alone.
    const trial = !made.proven;
    if (trial) submit();
    const key = id + used;
    let bound = bindGroups.get(key);
    if (bound === undefined) {
      const group = device.createBindGroup({
        layout,
        entries: [
          { binding: 0, resource: { buffer: scalars, size: bytes } },
          ...slots.map(({ entry }, slot) => ({
            binding: slot + 1,
            resource: { buffer: entry.pooled.buffer },
          })),
        ],
      });
      bound = { group, buffers: slots.map(({ entry }) => entry.pooled.id) };
      bindGroups.set(key, bound);
      madeBindGroups++;
    }
    if (usedSlots === SLOTS) submit();
    const base = usedSlots * SLOT;
    const width = Math.min(dispatch.groups, GRID_GROUPS);
    let at = base;
    const put = (type: "u32" | "i32" | "f32", value: number): void => {
      if (type === "f32") scalarData.setFloat32(at, value, true);
      else if (type === "i32") scalarData.setInt32(at, value, true);
      else scalarData.setUint32(at, value, true);
      at += 4;
    };
    put("u32", width);
    put("u32", dispatch.groups);
    put("u32", INFINITY_BITS);
    for (const operand of operands) put("u32", operand.at);
    for (const [type, value] of Object.values(dispatch.scalars ?? {})) put(type, value);
    if (at - base > SLOT) throw new GradmixError("backend", `webgpu: ${dispatch.key} has too many scalars`);
    usedSlots++;
    const current = open();
    current.setPipeline(pipeline);
    current.setBindGroup(0, bound.group, [base]);
    current.dispatchWorkgroups(width, Math.ceil(dispatch.groups / width));
    for (const { entry } of slots) pending.add(entry.pooled.id);
    encodedBy.add(owner);
    dispatches++;
    if (trial) submit(made);
  };
  let madeBindGroups = 0;

  const alloc = (elements: number, dtype: DType): number => {
    check();
    const bytes = elements * 4;
    if (bytes > mostBytes)
      throw new GradmixError(
        "memory",
        `webgpu: a tensor of ${bytes} bytes was asked for; this device binds at most ${mostBytes} bytes at once. Lower the batch or the context`,
      );
    if (liveBytes + bytes > memoryLimit)
      throw new GradmixError(
        "memory",
        `webgpu: ${bytes} bytes were requested while ${liveBytes} are live; the limit is ${memoryLimit}. Lower the batch or raise the memory limit`,
      );
    const pooled = pool.take(Math.max(4, bytes));
    const buffer = nextBuffer++;
    entries.set(buffer, { pooled, count: elements, dtype });
    liveBytes += bytes;
    peakBytes = Math.max(peakBytes, liveBytes);
    return buffer;
  };
  const free = (buffer: number): void => {
    // Tensors may outlive their backend, on the cpu too.
    if (disposed) return;
    const entry = entryOf(buffer);
    entries.delete(buffer);
    liveBytes -= entry.count * 4;
    pool.give(entry.pooled);
  };

  const constants = new Map<string, View>();
  const constant = (key: string, values: () => Float32Array): View => {
    let view = constants.get(key);
    if (view === undefined) {
      const data = values();
      const pooled = pool.take(Math.max(4, data.byteLength));
      const buffer = nextBuffer++;
      entries.set(buffer, { pooled, count: data.length, dtype: "f32" });
      if (pending.has(pooled.id)) submit();
      queue.writeBuffer(pooled.buffer, 0, data as Float32Array<ArrayBuffer>);
      view = { buffer, offset: 0, shape: [data.length], dtype: "f32" };
      constants.set(key, view);
    }
    return view;
  };

  const readBytes = async (
    buffer: number,
    offset: number,
    count: number,
    whose: Owner = "caller",
  ): Promise<ArrayBuffer> => {
    check(whose);
    const entry = entryOf(buffer);
    inside(entry, offset, count);
    if (count === 0) return new ArrayBuffer(0);
    const target = staging.take(count * 4);
    pass?.end();
    pass = null;
    encoder ??= device.createCommandEncoder();
    encoder.copyBufferToBuffer(entry.pooled.buffer, offset * 4, target.buffer, 0, count * 4);
    submit();
    const work = dispatches - readUpTo;
    readUpTo = dispatches;
    const began = performance.now();
    // Without work of its own a read waits as long as the one before.
    if (work > 0) {
      const pause = naps.before(work);
      nap = pause > 0 ? new Promise((wake) => setTimeout(wake, pause)) : Promise.resolve();
    }
    await nap;
    let bytes: ArrayBuffer;
    try {
      await target.buffer.mapAsync(MAP_READ, 0, count * 4);
      await Promise.all(asked);
      check(whose);
      bytes = target.buffer.getMappedRange(0, count * 4).slice(0);
    } catch (error) {
      await Promise.all(asked);
      check(whose);
      if (error instanceof GradmixError) throw error;
      throw new GradmixError("backend", `webgpu: a result could not be read (${firstLine(String(error))})`, {
        cause: error,
      });
    } finally {
      if (!disposed) {
        target.buffer.unmap();
        staging.give(target);
      }
    }
    if (work > 0) naps.took(work, performance.now() - began);
    return bytes;
  };

  const tuner: Tuner | null =
    options.tuning === undefined
      ? null
      : createTuner(options.tuning, {
          alloc: (elements, dtype) => asTuner(() => alloc(elements, dtype)),
          free,
          copy: (from, to) => asTuner(() => launch("cast", {}, [from], [to])),
          randomise: (view) =>
            asTuner(() => launch("random", { kind: "normal", key0: 1, key1: 2, offset: 0 }, [], [view])),
          bits: async (view, from, count) =>
            new Int32Array(await readBytes(view.buffer, view.offset + from, count, "tuner")),
          async done() {
            submit();
            await queue.onSubmittedWorkDone();
          },
        });
  function launch<K extends KernelName>(
    kernel: K,
    params: KernelParams[K],
    inputs: readonly (View | null)[],
    outputs: readonly (View | null)[],
    forced: string | null = null,
  ): void {
    check();
    const launcher: Launcher<K> = launchers[kernel];
    const temporary: number[] = [];
    const context: KernelContext = {
      traits,
      dispatch: encode,
      constant,
      choose<V extends string>(bucket: string, variants: readonly [V, ...V[]]): V {
        const name =
          forced ??
          tuner?.choose(bucket, variants, {
            inputs,
            outputs,
            run: (variant, ins, outs) => asTuner(() => launch(kernel, params, ins, outs, variant)),
          });
        return variants.find((variant) => variant === name) ?? variants[0];
      },
      scratch(elements, dtype = "f32") {
        const buffer = alloc(elements, dtype);
        temporary.push(buffer);
        return { buffer, offset: 0, shape: [elements], dtype };
      },
    };
    try {
      launcher(context, params, inputs, outputs);
    } finally {
      for (const buffer of temporary) free(buffer);
    }
  }

  return {
    name: "webgpu",
    capabilities: { threads: 1, simd: options.adapter ?? "GPU", memoryLimit },
    alloc,
    free,
    write(buffer, offset, data) {
      check();
      const entry = entryOf(buffer);
      inside(entry, offset, data.length);
      if (data.length === 0) return;
      // Writes go before what was encoded and not yet submitted, so that must not use the buffer.
      if (pending.has(entry.pooled.id)) submit();
      const values = entry.dtype === "f32" ? Float32Array.from(data) : Int32Array.from(data);
      queue.writeBuffer(entry.pooled.buffer, offset * 4, values);
    },
    async read(buffer, offset, count): Promise<TensorData> {
      check();
      const { dtype } = entryOf(buffer);
      const bytes = await readBytes(buffer, offset, count);
      await tuner?.settle();
      return dtype === "f32" ? new Float32Array(bytes) : new Int32Array(bytes);
    },
    run: launch,
    flush: () => submit(),
    chosen: tuner?.chosen ?? new Map<string, string>(),
    get liveBytes() {
      return liveBytes;
    },
    get peakBytes() {
      return peakBytes;
    },
    get counters() {
      return {
        dispatches,
        submits,
        pipelines: pipelineCount,
        bindGroups: madeBindGroups,
        buffers: pool.created,
        poolBytes: pool.bytes,
      };
    },
    async dispose() {
      if (disposed) return;
      disposed = true;
      drop();
      entries.clear();
      pool.destroy();
      staging.destroy();
      scalars.destroy();
      device.destroy();
    },
  };
}

function firstLine(message: string): string {
  return message.split("\n")[0].trim();
}
