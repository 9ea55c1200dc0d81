/** The worker threads of `gradmix prepare`, each with one task at a time. */
import { Worker } from "node:worker_threads";
import { GradmixError } from "../errors.ts";
import type { JobFacts } from "./prepare-jobs.ts";
import type { Said, Task, WorkerSetup } from "./prepare-worker.ts";

/** Receives what a task reports before it ends. */
export type Meanwhile = (said: Exclude<Said, { kind: "done" | "failed" }>) => void;

export interface Pool {
  /** Runs tasks on all workers, in order, and calls `onDone` for each. The first failure ends all of them. */
  run(
    tasks: readonly Task[],
    onDone: (task: Task, facts: JobFacts | null) => void,
    meanwhile: Meanwhile,
  ): Promise<void>;
  /** Ends the workers immediately. */
  stop(): Promise<void>;
}

/** Size of a worker's young generation in MiB: text soon becomes garbage, and this times the number of workers is memory in use. */
const YOUNG = 32;

export function startPool(setup: WorkerSetup, workers: number, signal: AbortSignal): Pool {
  const all: Worker[] = [];
  const start = (): Worker => {
    const worker = new Worker(new URL("./prepare-worker.js", import.meta.url), {
      workerData: setup,
      execArgv: [],
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG },
    });
    all.push(worker);
    return worker;
  };
  const stop = async (): Promise<void> => {
    await Promise.all(all.splice(0).map((worker) => worker.terminate()));
  };
  return {
    stop,
    async run(tasks, onDone, meanwhile) {
      const waiting = tasks.values();
      const takeTasks = async (worker: Worker): Promise<void> => {
        for (const task of waiting) onDone(task, await ask(worker, task, meanwhile, signal));
      };
      while (all.length < Math.min(workers, tasks.length)) start();
      try {
        await Promise.all(all.map(takeTasks));
      } catch (error) {
        await stop();
        throw error;
      }
    },
  };
}

function ask(
  worker: Worker,
  task: Task,
  meanwhile: Meanwhile,
  signal: AbortSignal,
): Promise<JobFacts | null> {
  return new Promise((resolve, reject) => {
    const heard = (said: Said): void => {
      if (said.kind === "done") settle(() => resolve(said.facts));
      else if (said.kind !== "failed") meanwhile(said);
      else
        settle(() =>
          reject(said.code === null ? new Error(said.message) : new GradmixError(said.code, said.message)),
        );
    };
    const failed = (error: Error): void => settle(() => reject(error));
    const ended = (code: number): void =>
      settle(() => reject(new GradmixError("memory", `a worker thread ended with code ${code}`)));
    const aborted = (): void => settle(() => reject(signal.reason as Error));
    const settle = (end: () => void): void => {
      worker.off("message", heard).off("error", failed).off("exit", ended);
      signal.removeEventListener("abort", aborted);
      end();
    };
    worker.on("message", heard).on("error", failed).on("exit", ended);
    signal.addEventListener("abort", aborted);
    if (signal.aborted) aborted();
    else worker.postMessage(task);
  });
}
