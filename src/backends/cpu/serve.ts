/** A worker thread of the CPU backend: it waits for launches and takes part in them until it is stopped. */
import { controlBytes, kernelTable, runTasks, setShares, setThread, Word } from "./protocol.ts";

export interface WorkerSetup {
  /** Compiled once, shared by all threads. */
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly controlAt: number;
  readonly parametersAt: number;
  /** Number of this thread, from 1; `threads` includes the calling thread. */
  readonly thread: number;
  readonly threads: number;
  /** Whether vectors have 256 bits. */
  readonly wide: boolean;
}

/** Number of checks of the launch counter before the thread sleeps: some tens of microseconds. */
const SPINS = 4000;

/** Serves until the machine stops. `ready` is called once all further launches are seen. */
export function serve(setup: WorkerSetup, ready: () => void): void {
  const instance = new WebAssembly.Instance(setup.module, { env: { memory: setup.memory } });
  setThread(instance.exports, setup.thread, setup.wide);
  const kernels = kernelTable(instance.exports);
  const { thread, threads } = setup;
  const control = new Int32Array(setup.memory.buffer, setup.controlAt, controlBytes(threads) / 4);
  let seen = Atomics.load(control, Word.epoch);
  ready();
  for (;;) {
    for (let i = 0; i < SPINS && Atomics.load(control, Word.epoch) === seen; i++);
    Atomics.wait(control, Word.epoch, seen);
    const epoch = Atomics.load(control, Word.epoch);
    if (epoch === seen) continue;
    seen = epoch;
    if (Atomics.load(control, Word.stop) !== 0) return;
    // In this order, either the caller sees that this thread is busy, or this thread sees that the launch is over.
    Atomics.add(control, Word.busy, 1);
    if (Atomics.load(control, Word.open) !== 0) {
      try {
        const { run } = kernels[control[Word.kernel]!]!;
        runTasks(control, run, setup.parametersAt, control[Word.tasks]!, thread, threads);
      } catch {
        // The flag tells the caller; the remaining tasks are dropped.
        Atomics.store(control, Word.failed, 1 + thread);
        setShares(control, threads, "empty");
      }
    }
    Atomics.sub(control, Word.busy, 1);
    Atomics.notify(control, Word.busy);
  }
}
