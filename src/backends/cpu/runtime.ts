/**
 * Launches WebAssembly kernels on the calling thread and its workers.
 *
 * The division of a launch into tasks depends only on shapes, except where no result depends on the division. Every thread takes tasks (protocol.ts), and each task
 * writes only its own outputs, so results do not depend on the number of threads. The caller takes part and returns when all tasks are done. It waits for workers that
 * are processing a task, but not for those that have not woken up yet.
 */
import { GradmixError } from "../../errors.ts";
import type { DType } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import type { Allocator } from "./allocator.ts";
import { createHeap, type Heap } from "./heap.ts";
import { controlBytes, type KernelFunction, kernelTable, PARAMETER_BYTES, setThread } from "./protocol.ts";
import { type KernelSlots, writeScratch, writeSlots } from "./slots.ts";
import { checkTeam, createTeam, runAlone, runTogether, stopTeam, type Team } from "./team.ts";

export interface Launch<K extends keyof KernelSlots> {
  /** Name of the kernel, and of its exported function. */
  readonly kernel: K;
  /** Name of the exported function, if the kernel has one function per kind. */
  readonly entry?: `${NoInfer<K>}_${string}`;
  readonly tasks: number;
  /** Addresses, counts and numbers, by the names that the kernel reads. All launches write them in the same order, because V8 reads objects of one shape fastest. */
  readonly slots: KernelSlots[K];
  /** Bytes of scratch each thread needs. */
  readonly scratch?: number;
  /** Rough floating-point operations (or elements moved) of all tasks; small launches stay on the calling thread. */
  readonly work: number;
}

/** Memory and launches for the kernel launchers. */
export interface Runtime {
  /** Returns the address of a view's first element; 0 if there is no view. */
  address(view: View | null | undefined): number;
  launch<K extends keyof KernelSlots>(launch: Launch<K>): void;
  /** Returns the address of memory that all threads share and that lasts until the end of the current `run`. Successive calls do not overlap. */
  workspace(bytes: number): number;
  /** Copies integers into fresh workspace. */
  integers(values: ArrayLike<number>): number;
  /** The integers at an address, until the next allocation. */
  words(address: number, count: number): Int32Array;
  readonly threads: number;
}

/** Launches with less work than this run on the calling thread, because waking the workers costs more. */
export const PARALLEL_WORK = 60_000;

/** Memory of a tensor. */
export interface Buffer {
  readonly at: number;
  readonly count: number;
  readonly dtype: DType;
}

export interface CpuMachine extends Runtime, Team {
  readonly allocator: Allocator;
  /** Tensors' memory by id. */
  readonly buffers: Map<number, Buffer>;
  alloc(bytes: number): number;
  floats(address: number, count: number): Float32Array;
  /** Frees all memory that `workspace` returned since the last call. */
  endRun(): void;
  readonly controlAt: number;
  readonly parametersAt: number;
  stop(): void;
}

interface Kernel {
  readonly number: number;
  readonly run: KernelFunction;
}

export function createMachine(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  memoryLimit: number,
  threads: number,
  wide: boolean,
): CpuMachine {
  const kernels = kernelsOf(module, memory, wide);
  const heap = createHeap(memory, memoryLimit);
  const controlAt = heap.alloc(controlBytes(threads));
  const parametersAt = heap.alloc(PARAMETER_BYTES);
  const scratch: Scratch = { at: 0, stride: 0 };
  const buffers = new Map<number, Buffer>();
  const machine: CpuMachine = {
    ...createTeam(new Int32Array(memory.buffer, controlAt, controlBytes(threads) / 4), threads),
    ...{ controlAt, parametersAt },
    allocator: heap.allocator,
    buffers,
    alloc: heap.alloc,
    floats: heap.floats,
    words: heap.words,
    workspace: heap.workspace,
    endRun: heap.giveBack,
    integers(values) {
      const at = heap.workspace(values.length * 4);
      heap.i32.set(values, at / 4);
      return at;
    },
    address(view) {
      if (view === null || view === undefined) return 0;
      const buffer = buffers.get(view.buffer);
      if (buffer === undefined)
        throw new GradmixError("backend", `cpu: buffer ${view.buffer} does not exist`);
      return buffer.at + view.offset * 4;
    },
    launch(launch) {
      const { kernel: layout, entry: name = layout, tasks, work } = launch;
      if (tasks <= 0) return;
      checkTeam(machine, name);
      const kernel = kernels.get(name);
      if (kernel === undefined)
        throw new GradmixError("backend", `cpu: there is no kernel function "${name}"`);
      const { scratch: bytes = 0 } = launch;
      if (bytes > scratch.stride) reserve(scratch, heap, threads, bytes);
      const at = parametersAt / 4;
      writeScratch(heap, at, scratch.at, scratch.stride);
      writeSlots[layout](heap, at, launch.slots);
      if (machine.workers.length === 0 || tasks === 1 || work < PARALLEL_WORK)
        runAlone(name, kernel.run, parametersAt, tasks);
      else runTogether(machine, name, kernel.number, kernel.run, parametersAt, tasks);
    },
    stop: () => stopTeam(machine),
  };
  return machine;
}

/** Instantiates the kernels of the calling thread, which has number 0. */
function kernelsOf(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  wide: boolean,
): ReadonlyMap<string, Kernel> {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  setThread(exports, 0, wide);
  return new Map(kernelTable(exports).map(({ name, run }, number) => [name, { number, run }]));
}

/** Separate memory for each thread, as large as the largest request of a launch so far. */
interface Scratch {
  at: number;
  /** Bytes per thread. */
  stride: number;
}

/** Makes room for this many bytes per thread. Throws `memory`. */
function reserve(scratch: Scratch, heap: Heap, threads: number, bytes: number): void {
  const stride = Math.ceil(bytes / 4096) * 4096 + 4096;
  const at = heap.alloc(stride * threads);
  if (scratch.stride > 0) heap.allocator.release(scratch.at, scratch.stride * threads);
  scratch.at = at;
  scratch.stride = stride;
}
