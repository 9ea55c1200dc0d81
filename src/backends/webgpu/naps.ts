/**
 * How long to sleep before waiting. Dawn keeps a core busy while a result is waited for, so most of the wait is slept: four fifths of the least that as many
 * dispatches took the last few times. The least, since a wait during which the process stood still, or that was for something larger, must not be slept again.
 */
export interface Naps {
  /** Milliseconds to sleep before a result of so many dispatches; 0 where a wait is too short, or not known. */
  before(dispatches: number): number;
  took(dispatches: number, milliseconds: number): void;
}

/** Milliseconds below which a sleep is not worth its wake-up. */
const LEAST_SLEEP = 4;
/** Waits that are remembered, of each number of dispatches, and numbers. */
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
