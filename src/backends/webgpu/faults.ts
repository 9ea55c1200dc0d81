/**
 * Failures of a device, and whom they concern. A GPU reports failures later: every request that it may refuse is registered (`awaitReport`), and reading results
 * waits for all reports (`settled`). If the device can continue after a failure, the failure is thrown once, at the next call of `check`; otherwise at every
 * call.
 */
import { GradmixError } from "../../errors.ts";

/** The owner of allocations and commands. The tuner works while the caller waits for other results, so memory that is refused to one does not concern the other. */
export type Owner = "caller" | "tuner";

export interface Faults {
  /** The current owner. */
  readonly owner: Owner;
  readonly disposed: boolean;
  /** Runs a task of the tuner. */
  asTuner<T>(task: () => T): T;
  fail(error: GradmixError, affected?: Owner): void;
  /** Records a failure after which the device can continue. */
  failPassing(error: GradmixError, affected: Owner): void;
  /** Records that the device refused this buffer: commands with it fail too, with this as the cause. */
  refuse(buffer: GPUBuffer, error: GradmixError, affected: Owner): void;
  /** Forgets a buffer that is no longer used. */
  forget(buffer: GPUBuffer): void;
  /** Handles an error of validation: either the consequence of a refused buffer, or a failure of its own. */
  judge(message: string): Promise<void>;
  /** Registers a report of the device, for which `settled` waits. */
  awaitReport(listen: () => Promise<void>): Promise<void>;
  /** Resolves when all registered reports have arrived. */
  settled(): Promise<void>;
  /** Throws the failure, if there is one. */
  check(affected?: Owner): void;
  dispose(): void;
}

export function createFaults(device: GPUDevice): Faults {
  let failure: GradmixError | null = null;
  let refusedToTuner: GradmixError | null = null;
  let owner: Owner = "caller";
  let disposed = false;
  const passing = new WeakSet<GradmixError>();
  const pendingReports = new Set<Promise<void>>();
  const refusals = new Map<GPUBuffer, { readonly error: GradmixError; readonly affected: Owner }>();

  const settled = async (): Promise<void> => {
    if (pendingReports.size > 0) await Promise.all(pendingReports);
  };
  const faults: Faults = {
    get owner() {
      return owner;
    },
    get disposed() {
      return disposed;
    },
    asTuner(task) {
      owner = "tuner";
      try {
        return task();
      } finally {
        owner = "caller";
      }
    },
    fail(error, affected = "caller") {
      if (affected === "caller") failure ??= error;
      else refusedToTuner ??= error;
    },
    failPassing(error, affected) {
      passing.add(error);
      faults.fail(error, affected);
    },
    refuse(buffer, error, affected) {
      refusals.set(buffer, { error, affected });
      faults.fail(error, affected);
    },
    forget: (buffer) => void refusals.delete(buffer),
    async judge(message) {
      await settled();
      const [refusal] = refusals.values();
      if (refusal === undefined) faults.fail(new GradmixError("backend", `webgpu: ${firstLine(message)}`));
      else faults.fail(refusal.error, refusal.affected);
    },
    awaitReport(listen) {
      const answer = listen();
      pendingReports.add(answer);
      void answer.finally(() => pendingReports.delete(answer));
      return answer;
    },
    settled,
    check(affected = owner) {
      if (disposed) throw new GradmixError("backend", "webgpu: the backend was disposed");
      if (affected === "tuner" && refusedToTuner !== null) {
        const thrown = refusedToTuner;
        refusedToTuner = null;
        throw thrown;
      }
      if (failure === null || (affected === "tuner" && failure.code === "memory")) return;
      const thrown = failure;
      // Running out of memory, or a kernel that does not compile, leaves the device usable.
      if (thrown.code === "memory" || passing.has(thrown)) failure = null;
      throw thrown;
    },
    dispose() {
      disposed = true;
    },
  };
  const watch = async (): Promise<void> => {
    const { reason, message } = await device.lost;
    if (!disposed)
      faults.fail(
        new GradmixError("backend", `webgpu: the device was lost (${reason}): ${firstLine(message)}`),
      );
  };
  void watch();
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    void faults.judge(event.error.message);
  });
  return faults;
}

export function firstLine(message: string): string {
  return message.split("\n")[0]!.trim();
}
