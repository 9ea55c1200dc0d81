/** A worker thread of `gradmix prepare`: takes tasks one at a time, and answers each. */
import { parentPort, workerData } from "node:worker_threads";
import { openTokenizer } from "../data/index.node.ts";
import { type ErrorCode, GradmixError } from "../errors.ts";
import { readClusterFolder } from "./cluster-folder.ts";
import { encodeJob, type JobContext, type JobFacts, type JobProgress, joinShards } from "./prepare-jobs.ts";
import type { Job, PreparePlan } from "./prepare-plan.ts";
import type { Shard } from "./prepared-folder.ts";
import { readJson } from "./values.ts";

export interface WorkerSetup {
  readonly folder: string;
  readonly plan: PreparePlan;
  readonly jobs: readonly Job[];
  /** Path of the tokenizer. */
  readonly tokenizer: string;
}

export type Task =
  | { readonly kind: "encode"; readonly job: number }
  | { readonly kind: "join"; readonly labels: readonly number[]; readonly jobs: readonly string[] };

/** A message of a worker. "done" and "failed" end its task. */
export type WorkerMessage =
  | ({ readonly kind: "progress" } & JobProgress)
  | { readonly kind: "shard"; readonly label: number; readonly shard: Shard }
  | { readonly kind: "done"; readonly facts: JobFacts | null }
  | { readonly kind: "failed"; readonly code: ErrorCode | null; readonly message: string };

const port = parentPort;
if (port !== null) {
  const send = (message: WorkerMessage): void => port.postMessage(message);
  const fail = (error: unknown): void =>
    send({
      kind: "failed",
      code: error instanceof GradmixError ? error.code : null,
      message: error instanceof Error ? error.message : String(error),
    });
  const { folder, plan, jobs, tokenizer } = workerData as WorkerSetup;
  let context: JobContext | null = null;
  const work = async (task: Task): Promise<JobFacts | null> => {
    context ??= {
      ...{ folder, plan },
      tokenizer: openTokenizer(readJson(tokenizer, tokenizer)),
      clusters:
        plan.mixed === null || plan.mixed.clusters === null ? null : readClusterFolder(plan.mixed.clusters),
    };
    if (task.kind === "encode")
      return encodeJob(jobs[task.job]!, context, (progress) => send({ kind: "progress", ...progress }));
    joinShards(task.labels, task.jobs, context, (label, shard) => send({ kind: "shard", label, shard }));
    return null;
  };
  port.on("message", (task: Task) => {
    work(task).then((facts) => send({ kind: "done", facts }), fail);
  });
}
