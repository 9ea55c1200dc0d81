/** Runs a launch on the calling thread and its workers: each takes the tasks of its own share and then of the others', and the caller waits for busy workers. */
import { GradmixError } from "../../errors.ts";
import type { WorkerHandle } from "./host.ts";
import { type KernelFunction, runTasks, setShares, Word } from "./protocol.ts";

/** Number of checks of the workers' count before the caller sleeps. */
const SPINS = 20_000;
/** Milliseconds without progress after which a worker counts as lost; no task of a kernel takes this long. */
const PATIENCE_MS = 60_000;

export interface Team {
  readonly control: Int32Array;
  /** Number of threads: the calling one and the workers that were asked for. The tasks of a launch are divided into this many shares. */
  readonly threads: number;
  workers: readonly WorkerHandle[];
  /** Milliseconds without progress after which a launch fails. */
  patience: number;
  /** Whether the calling thread may sleep while it waits for workers: a page's main thread may not. */
  maySleep: boolean;
  /** The reason why nothing can be launched any more; null if launches work. After a worker is lost nothing is launched, because it could return during a later launch. */
  broken: string | null;
}

export function createTeam(control: Int32Array, threads: number): Team {
  control.fill(0);
  return { control, threads, workers: [], patience: PATIENCE_MS, maySleep: maySleep(), broken: null };
}

/** Throws `backend` if a worker was lost, now or before. */
export function checkTeam(team: Team, kernel: string): void {
  if (team.broken !== null) throw new GradmixError("backend", team.broken);
  for (const worker of team.workers) {
    const reason = worker.ended();
    if (reason !== null) throw lost(team, kernel, reason);
  }
}

/** Runs all tasks on the calling thread. */
export function runAlone(kernel: string, run: KernelFunction, parameters: number, tasks: number): void {
  try {
    for (let t = 0; t < tasks; t++) run(parameters, t);
  } catch (cause) {
    throw failure(kernel, 0, cause);
  }
}

/** Runs the tasks on all threads; `number` identifies the kernel for the workers. */
export function runTogether(
  team: Team,
  kernel: string,
  number: number,
  run: KernelFunction,
  parameters: number,
  tasks: number,
): void {
  const { control, threads } = team;
  control[Word.kernel] = number;
  control[Word.tasks] = tasks;
  setShares(control, threads, "whole");
  Atomics.store(control, Word.open, 1);
  Atomics.add(control, Word.epoch, 1);
  Atomics.notify(control, Word.epoch);
  let failed: GradmixError | null = null;
  try {
    runTasks(control, run, parameters, tasks, 0, threads);
  } catch (cause) {
    failed = failure(kernel, 0, cause);
    setShares(control, threads, "empty");
  }
  join(team, kernel);
  if (failed !== null) throw failed;
  const thread = Atomics.exchange(control, Word.failed, 0);
  if (thread !== 0) throw failure(kernel, thread - 1, undefined);
}

/** Tells the workers to end. */
export function stopTeam({ control }: Team): void {
  Atomics.store(control, Word.stop, 1);
  Atomics.add(control, Word.epoch, 1);
  Atomics.notify(control, Word.epoch);
}

/** Closes the launch to further workers and waits for the busy ones; a worker that does not finish in time is reported as lost. */
function join(team: Team, kernel: string): void {
  const { control } = team;
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
    const most = Math.min(team.patience, 1000);
    if (team.maySleep ? sleepWhile(control, busy, most) : spinWhile(control, busy, most)) continue;
    // The event loop does not run while we wait, so the end of a worker may not have been reported yet; only time can decide.
    if (performance.now() - since >= team.patience) throw lost(team, kernel, "it stopped answering");
  }
}

function lost(team: Team, kernel: string, reason: string): GradmixError {
  team.broken = `cpu: a worker thread was lost in kernel ${kernel} (${reason}); start again, with threads = 1 if it repeats`;
  return new GradmixError("backend", team.broken);
}

function maySleep(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}

/** Waits while this many workers are busy; returns false if as many still are after `most` milliseconds. */
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
