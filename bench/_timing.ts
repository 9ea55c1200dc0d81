/** Times several pieces of work in turns, so that changes of the machine's speed affect all of them equally. */

/** A piece of work that is complete when it returns. */
export interface Work {
  readonly name: string;
  call(): void;
}

export interface Turns {
  readonly rounds: number;
  /** Approximate length of a case's turn in a round; a turn makes at least one call. */
  readonly seconds: number;
}

/** The median; NaN of an empty list. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

/** The median of the ratios of two pieces of work, round by round. */
export const pairedMedian = (times: readonly number[], others: readonly number[]): number =>
  median(times.map((time, i) => time / (others[i] ?? NaN)));

/** Seconds per call of each case: medians over the rounds. Before the first round each is called for as long as a round, so that the engine has compiled it. */
export function inTurns(cases: readonly Work[], { rounds, seconds }: Turns): number[] {
  const calls = cases.map((work) => callsWithin(work, seconds));
  const times: number[][] = cases.map(() => []);
  for (let round = 0; round < rounds; round++)
    cases.forEach((work, i) => times[i]?.push(secondsOf(work, calls[i] ?? 1)));
  return times.map(median);
}

/** The number of calls that take so many seconds. */
function callsWithin(work: Work, seconds: number): number {
  let calls = 1;
  const end = performance.now() + 1000 * seconds;
  let each = secondsOf(work, 1);
  while (performance.now() < end) {
    each = secondsOf(work, calls);
    calls *= 2;
  }
  return Math.max(1, Math.round(seconds / each));
}

function secondsOf(work: Work, calls: number): number {
  const began = performance.now();
  for (let i = 0; i < calls; i++) work.call();
  return (performance.now() - began) / 1000 / calls;
}
