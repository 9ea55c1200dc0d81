/** Predicts the time of a step with n threads from its time with one thread. */

/** The launches of one kernel in a step, measured on one thread. */
export interface KernelWork {
  readonly kernel: string;
  readonly launches: number;
  /** Tasks of all launches together. */
  readonly tasks: number;
  /** Seconds of the launches that all threads share. */
  readonly shared: number;
  /** Seconds of those that the calling thread runs alone, whatever the threads. */
  readonly alone: number;
}

export interface StepWork {
  readonly kernels: readonly KernelWork[];
  /** Seconds between launches: the host's. */
  readonly host: number;
  /** Seconds that a shared launch takes in addition to its tasks. */
  readonly handOver: number;
}

/** Seconds on one thread that no number of threads shortens. */
export const serialSeconds = ({ kernels, host }: StepWork): number =>
  kernels.reduce((sum, { alone }) => sum + alone, host);

/** Seconds with this many threads. Tasks are not divided, so t tasks take ⌈t/n⌉ times a t-th of their total; each shared launch is handed over once. */
export function predictedSeconds(work: StepWork, threads: number): number {
  return work.kernels.reduce((sum, { launches, tasks, shared }) => {
    if (shared === 0) return sum;
    const each = tasks / launches;
    const handOver = threads > 1 ? launches * work.handOver : 0;
    return sum + (shared * Math.ceil(each / threads)) / each + handOver;
  }, serialSeconds(work));
}
