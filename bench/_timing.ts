/** Times of several pieces of work, taken in turns, so that what a machine's speed does meanwhile falls on all of them. */

/** A piece of work that ends before it returns. */
export interface Work {
  readonly name: string;
  call(): void;
}

export interface Turns {
  readonly rounds: number;
  /** Of a case in each round, about; at least one call is made. */
  readonly seconds: number;
}

/** The median; NaN of nothing. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;

/** Seconds a call of each case: medians over the rounds. Before the first round each is called for as long as a round, so that the engine has compiled it. */
export function inTurns(cases: readonly Work[], { rounds, seconds }: Turns): number[] {
  const calls = cases.map((work) => callsWithin(work, seconds));
  const times: number[][] = cases.map(() => []);
  for (let round = 0; round < rounds; round++)
    cases.forEach((work, i) => times[i]?.push(secondsOf(work, calls[i] ?? 1)));
  return times.map(median);
}

/** How many calls take so many seconds, by the second half of as many. */
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
