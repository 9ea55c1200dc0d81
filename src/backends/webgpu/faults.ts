/**
 * Failures of a device, and whom they concern. A GPU reports later: everything that it may still refuse is asked (`ask`), and a reader of results
 * waits for all answers (`settled`). If the device can continue after a failure, it is thrown once, at the next call of `check`; otherwise at every
 * call.
 */
import { GradmixError } from "../../errors.ts";

/** Who allocates and encodes. The tuner tries things while its caller waits for something else, so memory that is refused to one does not concern the other. */
export type Owner = "caller" | "tuner";

export interface Faults {
  /** The current owner. */
  readonly owner: Owner;
  readonly disposed: boolean;
  /** Runs a task of the tuner. */
  asTuner<T>(task: () => T): T;
  fail(error: GradmixError, whose?: Owner): void;
  /** Records a failure after which the device can continue. */
  failPassing(error: GradmixError, whose: Owner): void;
  /** Records that the device refused this buffer: commands with it fail too, with this as the cause. */
  refuse(buffer: GPUBuffer, error: GradmixError, whose: Owner): void;
  /** The buffer is no longer in use. */
  forget(buffer: GPUBuffer): void;
  /** Handles an error of validation: either the consequence of a refused buffer, or a failure of its own. */
  judge(message: string): Promise<void>;
  /** Remembers the question until it is answered. */
  ask(listen: () => Promise<void>): Promise<void>;
  /** Resolves when everything that was asked has been answered. */
  settled(): Promise<void>;
  /** Throws what has failed. */
  check(whose?: Owner): void;
  dispose(): void;
}

export function createFaults(device: GPUDevice): Faults {
  let failure: GradmixError | null = null;
  let refusedToTuner: GradmixError | null = null;
  let owner: Owner = "caller";
  let disposed = false;
  const passing = new WeakSet<GradmixError>();
  const asked = new Set<Promise<void>>();
  const refusals = new Map<GPUBuffer, { readonly error: GradmixError; readonly whose: Owner }>();

  const settled = async (): Promise<void> => {
    if (asked.size > 0) await Promise.all(asked);
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
    fail(error, whose = "caller") {
      if (whose === "caller") failure ??= error;
      else refusedToTuner ??= error;
    },
    failPassing(error, whose) {
      passing.add(error);
      faults.fail(error, whose);
    },
    refuse(buffer, error, whose) {
      refusals.set(buffer, { error, whose });
      faults.fail(error, whose);
    },
    forget: (buffer) => void refusals.delete(buffer),
    async judge(message) {
      await settled();
      const [refusal] = refusals.values();
      if (refusal === undefined) faults.fail(new GradmixError("backend", `webgpu: ${firstLine(message)}`));
      else faults.fail(refusal.error, refusal.whose);
    },
    ask(listen) {
      const answer = listen();
      asked.add(answer);
      void answer.finally(() => asked.delete(answer));
      return answer;
    },
    settled,
    check(whose = owner) {
      if (disposed) throw new GradmixError("backend", "webgpu: the backend was disposed");
      if (whose === "tuner" && refusedToTuner !== null) {
        const thrown = refusedToTuner;
        refusedToTuner = null;
        throw thrown;
      }
      if (failure === null || (whose === "tuner" && failure.code === "memory")) return;
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
