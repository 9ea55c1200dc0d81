/** Jobs on a few child processes. Each takes one job at a time, as a message, and answers `{ result }` or `{ error }`. */
import { type ChildProcess, fork } from "node:child_process";

export interface PoolOptions<J, R> {
  /** The module that the processes run, and its arguments. */
  readonly worker: string;
  readonly args?: readonly string[];
  readonly processes: number;
  /** Called with each result as soon as it is known. */
  readonly onResult: (job: J, result: R) => void;
  /** Ends all processes immediately; their current jobs are lost. */
  readonly signal?: AbortSignal;
}

export interface Failure<J> {
  readonly job: J;
  readonly reason: string;
}

/** Runs the jobs and returns those that failed. If a process dies, its current job has failed, and a new process replaces it. Rejects with the signal's reason. */
export async function runPool<J, R>(jobs: readonly J[], options: PoolOptions<J, R>): Promise<Failure<J>[]> {
  const { processes, signal } = options;
  const queue = [...jobs];
  const failures: Failure<J>[] = [];
  const lane = async (): Promise<void> => {
    let child: ChildProcess | null = null;
    try {
      for (let job = queue.shift(); job !== undefined; job = queue.shift()) {
        signal?.throwIfAborted();
        child ??= fork(options.worker, [...(options.args ?? [])]);
        const answer = await ask<R>(child, job, signal);
        if ("result" in answer) options.onResult(job, answer.result);
        else failures.push({ job, reason: answer.error });
        if (child.exitCode !== null || child.signalCode !== null || !child.connected) child = null;
      }
    } finally {
      child?.kill();
    }
  };
  await Promise.all(Array.from({ length: Math.min(processes, jobs.length) }, lane));
  return failures;
}

type Answer<R> = { readonly result: R } | { readonly error: string };

async function ask<R>(
  child: ChildProcess,
  job: unknown,
  signal: AbortSignal | undefined,
): Promise<Answer<R>> {
  return new Promise((resolve, reject) => {
    const settle = (end: () => void): void => {
      child.off("message", answered).off("exit", exited).off("error", failed);
      signal?.removeEventListener("abort", aborted);
      end();
    };
    const answered = (answer: unknown): void => settle(() => resolve(answer as Answer<R>));
    const exited = (code: number | null, name: string | null): void =>
      settle(() => resolve({ error: `its process ended (${name ?? code})` }));
    const failed = (error: Error): void => settle(() => resolve({ error: error.message }));
    const aborted = (): void => settle(() => reject(signal?.reason as Error));
    child.on("message", answered).on("exit", exited).on("error", failed);
    signal?.addEventListener("abort", aborted);
    child.send(job as object, (error) => {
      if (error !== null) failed(error);
    });
  });
}
