/**
 * Decides how long to sleep before waiting. Dawn keeps a core busy while it waits for a result, so the process sleeps for most of the wait: for four fifths of
 * the shortest recent wait for the same number of dispatches. The shortest is used because another wait may have been longer for an unrelated reason, such as a suspended process.
 */
export interface Naps {
  /** Milliseconds to sleep before a result of this many dispatches; 0 if the wait is too short or unknown. */
  before(dispatches: number): number;
  took(dispatches: number, milliseconds: number): void;
}

/** Milliseconds below which a sleep is not worth its wake-up. */
const LEAST_SLEEP = 4;
/** Number of waits that are remembered per number of dispatches, and of such numbers. */
const REMEMBERED = 4;
const MOST_NUMBERS = 1000;

export function createNaps(): Naps {
  const waits = new Map<number, readonly number[]>();
  return {
    before(dispatches) {
      const recent = waits.get(dispatches) ?? [];
      const least = recent.length < 2 ? 0 : Math.min(...recent);
      return least > LEAST_SLEEP ? 0.8 * least : 0;
    },
    took(dispatches, milliseconds) {
      if (waits.size > MOST_NUMBERS) waits.clear();
      waits.set(dispatches, [...(waits.get(dispatches) ?? []).slice(1 - REMEMBERED), milliseconds]);
    },
  };
}
