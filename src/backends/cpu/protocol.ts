/**
 * The protocol by which the calling thread and its workers share a launch: the words of the control block at the start of the free memory, and the loop that
 * takes tasks. Both sides use this file, so it imports nothing.
 */

/** Words of the control block (Int32, indices from the block's start). */
export const Word = {
  /** Counts launches; workers wait for it to change. */
  epoch: 0,
  /** The next task to be taken. */
  next: 16,
  tasks: 1,
  kernel: 2,
  /** 1 while tasks can be taken, otherwise 0. A worker that arrives later has missed the launch, and nobody waits for it. */
  open: 5,
  /** Number of workers that look for tasks or work on one. */
  busy: 32,
  /** 1 + the thread that failed, or 0. */
  failed: 3,
  stop: 4,
} as const;

export const CONTROL_BYTES = 256;
/** The block of a launch's parameters: 64 slots of four bytes (assembly/slots.mjs). */
export const PARAMETER_BYTES = 256;

export type KernelFunction = (parameters: number, task: number) => void;

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

/** Takes tasks until none are left. */
export function runTasks(
  control: Int32Array,
  kernel: KernelFunction,
  parameters: number,
  tasks: number,
): void {
  for (let t = Atomics.add(control, Word.next, 1); t < tasks; t = Atomics.add(control, Word.next, 1))
    kernel(parameters, t);
}
