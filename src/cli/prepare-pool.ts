/** The worker threads of `gradmix prepare`, each with one task at a time. */
import { Worker } from "node:worker_threads";
import { GradmixError } from "../errors.ts";
import type { JobFacts } from "./prepare-jobs.ts";
import type { WorkerMessage, Task, WorkerSetup } from "./prepare-worker.ts";

/** Receives what a task reports before it ends. */
export type Meanwhile = (message: Exclude<WorkerMessage, { kind: "done" | "failed" }>) => void;

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
        for (const task of waiting) onDone(task, await sendTask(worker, task, meanwhile, signal));
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

function sendTask(
  worker: Worker,
  task: Task,
  meanwhile: Meanwhile,
  signal: AbortSignal,
): Promise<JobFacts | null> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: WorkerMessage): void => {
      if (message.kind === "done") settle(() => resolve(message.facts));
      else if (message.kind !== "failed") attempt(() => meanwhile(message));
      else
        settle(() =>
          reject(
            message.code === null
              ? new Error(message.message)
              : new GradmixError(message.code, message.message),
          ),
        );
    };
    const failed = (error: Error): void => settle(() => reject(error));
    const ended = (code: number): void =>
      settle(() => reject(new GradmixError("memory", `a worker thread ended with code ${code}`)));
    const aborted = (): void => settle(() => reject(signal.reason as Error));
    /** An error that is thrown while a message is handled would end the process, so it ends the task instead. */
    const attempt = (handle: () => void): void => {
      try {
        handle();
      } catch (error) {
        failed(error instanceof Error ? error : new Error(String(error)));
      }
    };
    const settle = (end: () => void): void => {
      worker.off("message", onMessage).off("error", failed).off("exit", ended);
      signal.removeEventListener("abort", aborted);
      end();
    };
    worker.on("message", onMessage).on("error", failed).on("exit", ended);
    signal.addEventListener("abort", aborted);
    if (signal.aborted) aborted();
    else worker.postMessage(task);
  });
}
