/**
 * The protocol by which the calling thread and its workers share a launch: the words of the control block at the start of the free memory, and the loop that
 * takes tasks. Both sides use this file, so it imports nothing.
 */

/** Words of the control block (Int32, indices from the block's start). */
export const Word = {
  /** Counts launches; workers wait for it to change. */
  epoch: 0,
  tasks: 1,
  kernel: 2,
  /** 1 while tasks can be taken, otherwise 0. A worker that arrives later has missed the launch, and nobody waits for it. */
  open: 5,
  /** Number of workers that look for tasks or work on one. */
  busy: 32,
  /** 1 + the thread that failed, or 0. */
  failed: 3,
  stop: 4,
  /** For each thread, how many tasks of its share were taken; COUNTER_WORDS apart, each on a cache line of its own. */
  taken: 64,
} as const;

const COUNTER_WORDS = 16;

/** Bytes of the control block for so many threads. */
export const controlBytes = (threads: number): number => 4 * (Word.taken + COUNTER_WORDS * threads);

/** More tasks than any share has. */
const ALL = 0x3fffffff;

const counterOf = (thread: number): number => Word.taken + COUNTER_WORDS * thread;

/** Makes all shares whole, before a launch, or empty, so that no further task is taken. */
export function setShares(control: Int32Array, threads: number, state: "whole" | "empty"): void {
  for (let thread = 0; thread < threads; thread++)
    Atomics.store(control, counterOf(thread), state === "whole" ? 0 : ALL);
}

/** The block of a launch's parameters: 64 slots of four bytes (assembly/slots.mjs). */
export const PARAMETER_BYTES = 256;

export type KernelFunction = (parameters: number, task: number) => void;

/** Tells an instance the number of its thread, and whether vectors have 256 bits. */
export function setThread(exports: WebAssembly.Exports, thread: number, wide: boolean): void {
  const set = exports["setThread"];
  if (typeof set === "function") (set as (thread: number, wide: number) => void)(thread, wide ? 1 : 0);
}

/** Returns the kernels in the order in which both sides number them. */
export function kernelTable(exports: WebAssembly.Exports): { name: string; run: KernelFunction }[] {
  const kernels: { name: string; run: KernelFunction }[] = [];
  for (const name of Object.keys(exports).sort()) {
    const value = exports[name];
    if (name === "setThread" || typeof value !== "function") continue;
    kernels.push({ name, run: value as KernelFunction });
  }
  return kernels;
}

/**
 * Takes tasks until none are left: first those of the thread's own share, then those that are left of the others'. Each share is a range of tasks, so that in launch after
 * launch a thread works on about the same rows, which are still in its cache.
 */
export function runTasks(
  control: Int32Array,
  kernel: KernelFunction,
  parameters: number,
  tasks: number,
  thread: number,
  threads: number,
): void {
  for (let i = 0; i < threads; i++) {
    const share = (thread + i) % threads;
    const counter = counterOf(share);
    const first = Math.floor((share * tasks) / threads);
    const end = Math.floor(((share + 1) * tasks) / threads);
    for (
      let task = first + Atomics.add(control, counter, 1);
      task < end;
      task = first + Atomics.add(control, counter, 1)
    )
      kernel(parameters, task);
  }
}
