/**
 * Launches WebAssembly kernels on the calling thread and its workers.
 *
 * A launch cuts its work into tasks by shape alone; every thread takes tasks from one counter, and each task writes only its own
 * outputs, so results do not depend on how many threads there are. The caller takes part and returns when all tasks are done. It waits for workers that
 * work on one, not for those that have not woken up yet.
 */
import { GradmixError } from "../../errors.ts";
import type { View } from "../../tensor/memory.ts";
import { type Allocator, createAllocator } from "./allocator.ts";
import type { WorkerHandle } from "./host.ts";
import {
  CONTROL_BYTES,
  FLOAT_SLOTS_AT,
  kernelTable,
  PARAMETER_BYTES,
  runTasks,
  SCRATCH_SLOT_AT,
  Word,
} from "./protocol.ts";

export interface Launch {
  /** Name of the exported function. */
  readonly kernel: string;
  readonly tasks: number;
  /** Integer slots from 0 on: addresses and counts. At most 32. */
  readonly ints: readonly number[];
  /** Float slots from 0 on. At most 30. */
  readonly floats?: readonly number[];
  /** Bytes of scratch each thread needs. */
  readonly scratch?: number;
  /** Rough floating-point operations (or elements moved) of all tasks; small launches stay on the calling thread. */
  readonly work: number;
}

/** What kernel launchers work with. */
export interface Runtime {
  /** Address of a view's first element; 0 where there is none. */
  address(view: View | null | undefined): number;
  launch(launch: Launch): void;
  /** Address of memory that all threads share and that lasts until the end of the current `run`; successive calls do not overlap. */
  workspace(bytes: number): number;
  /** Copies integers into fresh workspace. */
  integers(values: ArrayLike<number>): number;
  /** The integers at an address, until the next allocation. */
  words(address: number, count: number): Int32Array;
  readonly threads: number;
}

/** Launches with less work than this are not worth waking the workers for. */
const PARALLEL_WORK = 60_000;
const PAGE = 65536;
/** Looks at the workers' count before the caller sleeps. */
const SPINS = 20_000;
/** No task of a kernel takes this long, so a launch in which nothing moves for as long has lost a worker. */
const PATIENCE_MS = 60_000;

export interface CpuMachine extends Runtime {
  readonly allocator: Allocator;
  alloc(bytes: number, limit: number): number;
  floats(address: number, count: number): Float32Array;
  /** Gives back what `workspace` handed out since the last call. */
  endRun(): void;
  addressOf(buffer: number): number;
  setBuffer(buffer: number, address: number): void;
  readonly controlAt: number;
  readonly parametersAt: number;
  workers: readonly WorkerHandle[];
  /** Milliseconds without progress after which a launch is given up. */
  patience: number;
  /** Whether the calling thread may sleep while it waits for workers: a page's main thread may not. */
  maySleep: boolean;
  stop(): void;
}

export function createMachine(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  memoryLimit: number,
  threads: number,
): CpuMachine {
  const instance = new WebAssembly.Instance(module, { env: { memory } });
  const { names, functions } = kernelTable(instance.exports);
  const numbers = new Map(names.map((name, i) => [name, i]));
  const setThread = instance.exports["setThread"];
  if (typeof setThread === "function") (setThread as (thread: number) => void)(0);

  let buffer = memory.buffer;
  let f32 = new Float32Array(buffer);
  let i32 = new Int32Array(buffer);
  const refresh = (): void => {
    buffer = memory.buffer;
    f32 = new Float32Array(buffer);
    i32 = new Int32Array(buffer);
  };
  const grow = (end: number): void => {
    const missing = Math.ceil((end - buffer.byteLength) / PAGE);
    if (missing > 0) {
      try {
        memory.grow(missing);
      } catch (cause) {
        throw new GradmixError(
          "memory",
          `cpu: the system gave no memory beyond ${buffer.byteLength} bytes; use a smaller batch or model, or end other programs`,
          { cause },
        );
      }
      refresh();
    }
  };

  // Below 64 KiB the module keeps its own constants.
  const allocator = createAllocator(PAGE, Math.min(memoryLimit, 65536 * PAGE - PAGE), grow);
  const controlAt = allocator.allocate(CONTROL_BYTES);
  const parametersAt = allocator.allocate(PARAMETER_BYTES);
  const control = new Int32Array(memory.buffer, controlAt, CONTROL_BYTES / 4);
  control.fill(0);

  const addresses = new Map<number, number>();
  let scratchAt = 0;
  let scratchStride = 0;
  let lent: number[] = [];
  // A lost worker could come back in the middle of a later launch; there are no later ones.
  let broken: string | null = null;

  const machine: CpuMachine = {
    threads,
    allocator,
    controlAt,
    parametersAt,
    workers: [],
    patience: PATIENCE_MS,
    maySleep: maySleep(),
    alloc(size) {
      const at = allocator.allocate(size);
      if (at < 0)
        throw new GradmixError(
          "memory",
          `cpu: ${size} bytes were asked for with ${allocator.live} of ${memoryLimit} bytes in use; use a smaller batch or model, or raise the memory limit`,
        );
      return at;
    },
    address: (view) =>
      view === null || view === undefined ? 0 : machine.addressOf(view.buffer) + view.offset * 4,
    addressOf(id) {
      const at = addresses.get(id);
      if (at === undefined) throw new GradmixError("backend", `cpu: buffer ${id} does not exist`);
      return at;
    },
    setBuffer(id, at) {
      if (at < 0) addresses.delete(id);
      else addresses.set(id, at);
    },
    floats: (at, count) => f32.subarray(at / 4, at / 4 + count),
    words: (at, count) => i32.subarray(at / 4, at / 4 + count),
    workspace(size) {
      const at = machine.alloc(size, memoryLimit);
      lent.push(at);
      return at;
    },
    integers(values) {
      const at = machine.workspace(values.length * 4);
      i32.set(values, at / 4);
      return at;
    },
    endRun() {
      if (lent.length === 0) return;
      for (const at of lent) allocator.release(at);
      lent = [];
    },
    launch({ kernel, tasks, ints, floats = [], scratch = 0, work }) {
      if (tasks <= 0) return;
      if (broken !== null) throw new GradmixError("backend", broken);
      for (const worker of machine.workers) {
        const reason = worker.ended();
        if (reason !== null) throw lost(kernel, reason);
      }
      const number = numbers.get(kernel);
      if (number === undefined)
        throw new GradmixError("backend", `cpu: there is no kernel function "${kernel}"`);
      if (scratch > scratchStride) {
        const stride = Math.ceil(scratch / 4096) * 4096 + 4096;
        const at = machine.alloc(stride * threads, memoryLimit);
        if (scratchStride > 0) allocator.release(scratchAt);
        scratchAt = at;
        scratchStride = stride;
      }
      const slot = parametersAt / 4;
      // One by one: `set` of a short list costs as much as a small kernel.
      for (let i = 0; i < ints.length; i++) i32[slot + i] = ints[i];
      if (floats.length > 0) f32.set(floats, slot + FLOAT_SLOTS_AT / 4);
      i32[slot + SCRATCH_SLOT_AT / 4] = scratchAt;
      i32[slot + SCRATCH_SLOT_AT / 4 + 1] = scratchStride;
      const run = functions[number];
      if (machine.workers.length === 0 || tasks === 1 || work < PARALLEL_WORK) {
        try {
          for (let t = 0; t < tasks; t++) run(parametersAt, t);
        } catch (cause) {
          throw failure(kernel, 0, cause);
        }
        return;
      }
      control[Word.kernel] = number;
      control[Word.tasks] = tasks;
      Atomics.store(control, Word.next, 0);
      Atomics.store(control, Word.open, 1);
      Atomics.add(control, Word.epoch, 1);
      Atomics.notify(control, Word.epoch);
      let failed: GradmixError | null = null;
      try {
        runTasks(control, run, parametersAt, tasks);
      } catch (cause) {
        failed = failure(kernel, 0, cause);
        Atomics.store(control, Word.next, 0x3fffffff);
      }
      join(kernel);
      if (failed !== null) throw failed;
      const thread = Atomics.exchange(control, Word.failed, 0);
      if (thread !== 0) throw failure(kernel, thread - 1, undefined);
    },
    stop() {
      Atomics.store(control, Word.stop, 1);
      Atomics.add(control, Word.epoch, 1);
      Atomics.notify(control, Word.epoch);
    },
  };

  /** Lets no more workers in and waits for those that are; one that stays away for long is reported instead of waited for. */
  function join(kernel: string): void {
    Atomics.store(control, Word.open, 0);
    for (let i = 0; i < SPINS; i++) if (Atomics.load(control, Word.busy) === 0) return;
    let progress = -1;
    let since = performance.now();
    for (;;) {
      const busy = Atomics.load(control, Word.busy);
      if (busy === 0) return;
      if (busy !== progress) {
        progress = busy;
        since = performance.now();
      }
      const most = Math.min(machine.patience, 1000);
      if (machine.maySleep ? sleepWhile(control, busy, most) : spinWhile(control, busy, most)) continue;
      // The event loop does not turn while we wait, so that a worker has ended may not have been told yet: time decides.
      if (performance.now() - since >= machine.patience) throw lost(kernel, "it stopped answering");
    }
  }

  function lost(kernel: string, reason: string): GradmixError {
    broken = `cpu: a worker thread was lost in kernel ${kernel} (${reason}); start again, with threads = 1 if it repeats`;
    return new GradmixError("backend", broken);
  }

  return machine;
}

function maySleep(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}

/** Waits while so many workers are busy; false when as many still are after so many milliseconds. */
function sleepWhile(control: Int32Array, busy: number, most: number): boolean {
  return Atomics.wait(control, Word.busy, busy, most) !== "timed-out";
}

/** The same without sleeping. */
function spinWhile(control: Int32Array, busy: number, most: number): boolean {
  const end = performance.now() + most;
  do {
    for (let i = 0; i < SPINS; i++) if (Atomics.load(control, Word.busy) !== busy) return true;
  } while (performance.now() < end);
  return false;
}

function failure(kernel: string, thread: number, cause: unknown): GradmixError {
  return new GradmixError("backend", `cpu: kernel ${kernel} failed on thread ${thread}`, { cause });
}
