/** Long computations in steps, a generator's, so that the event loop may have a turn between two of them. */
import { giveTurn } from "../backends/turn.ts";
import type { CancelSignal } from "../cancel.ts";

/** A computation that yields between its steps and returns its outcome. */
export type Steps<T> = Generator<void, T, void>;

/** Takes all steps at once. */
export function runSteps<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** Takes all steps, with a turn for the event loop now and then; ends with the reason of `signal` once that is aborted. */
export async function runStepsInTurns<T>(steps: Steps<T>, signal: CancelSignal): Promise<T> {
  for (;;) {
    await giveTurn();
    signal.throwIfAborted();
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}
