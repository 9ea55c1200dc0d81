/**
 * What a comparison of rules says: for each target the held-out losses at the end over seeds, and their differences to one rule, the baseline, paired by seed. Pure
 * functions of plain data. Paired, since runs of one seed begin with the same parameters: what that does to the loss cancels in their difference.
 */
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import type { RunFacts } from "../runs/facts.ts";
import { interval, type Interval, mean } from "../runs/statistics.ts";

/** What one run came to. */
export interface Outcome {
  readonly rule: string;
  /** Name of the target; null where there is only one. */
  readonly target: string | null;
  readonly seed: number;
  /** Of the run. */
  readonly folder: string;
  /** Held-out loss on the target at the end, in nats per token. */
  readonly loss: number;
  /** null where nothing is held out. */
  readonly bitsPerByte: number | null;
  /** `countedCost` of the run. */
  readonly cost: number;
  /** Wall time of the steps, alignments included, evaluations not. */
  readonly seconds: number;
}

/** Computation of training with what its rule measures for it, alignments and guards, over that of training alone. */
export function countedCost({ alignment, guard = 0 }: RunFacts["cost"]): number {
  return 1 + alignment + guard;
}

/** A rule's loss less the baseline's, over the seeds that both have. */
export interface Difference extends Interval {
  /** The 95 % interval (Student's t); null for one seed. */
  readonly interval: readonly [number, number] | null;
}

/** One rule on one target. */
export interface RuleResult {
  readonly rule: string;
  readonly runs: readonly Outcome[];
  readonly loss: Interval;
  readonly bitsPerByte: number | null;
  /** null for the baseline, and where no seed has both. */
  readonly difference: Difference | null;
  /** Its counted computation over that of the baseline, on the seeds that both have; null where there are none. */
  readonly cost: number | null;
  /** Wall time of its steps over that of the baseline's, on the seeds that both have; null where there are none. */
  readonly time: number | null;
}

/** The rules in the order of `rules`, of which those without a run are left out. `outcomes` are of one target. */
export function compareRules(
  outcomes: readonly Outcome[],
  rules: readonly string[],
  baseline: string,
): RuleResult[] {
  const bySeed = new Map(outcomes.filter(({ rule }) => rule === baseline).map((o) => [o.seed, o]));
  return rules.flatMap((rule) => {
    const runs = outcomes.filter((outcome) => outcome.rule === rule);
    if (runs.length === 0) return [];
    const pairs = runs.flatMap((own) => {
      const other = bySeed.get(own.seed);
      return other === undefined ? [] : [{ own, other }];
    });
    const bits = runs.flatMap(({ bitsPerByte }) => (bitsPerByte === null ? [] : [bitsPerByte]));
    return [
      {
        rule,
        runs,
        loss: interval(runs.map(({ loss }) => loss)),
        bitsPerByte: bits.length === 0 ? null : mean(bits),
        difference:
          rule === baseline || pairs.length === 0
            ? null
            : differenceOf(pairs.map(({ own, other }) => own.loss - other.loss)),
        cost: ratio(pairs, ({ cost }) => cost),
        time: ratio(pairs, ({ seconds }) => seconds),
      },
    ];
  });
}

/** Of the means over pairs; null where there are none. */
function ratio(
  pairs: readonly { readonly own: Outcome; readonly other: Outcome }[],
  of: (outcome: Outcome) => number,
): number | null {
  if (pairs.length === 0) return null;
  return mean(pairs.map(({ own }) => of(own))) / mean(pairs.map(({ other }) => of(other)));
}

function differenceOf(values: readonly number[]): Difference {
  const found = interval(values);
  const { mean, half } = found;
  return { ...found, interval: half === null ? null : [mean - half, mean + half] };
}

/** Do the seeds tell the two rules apart? */
export function leavesOutZero({ interval }: Difference): boolean {
  return interval !== null && (interval[1] < 0 || interval[0] > 0);
}

/**
 * What the differences say, in sentences. A rule is called lower or higher where the interval of its difference leaves out 0; of the others it is said that these seeds
 * do not tell them from the baseline.
 */
export function conclusions(results: readonly RuleResult[], baseline: string): string[] {
  const others = results.flatMap(({ rule, difference }) =>
    difference === null ? [] : [{ rule, ...difference }],
  );
  if (others.length === 0) return [];
  const alone = others.filter(({ interval }) => interval === null);
  const lower = others.filter((one) => leavesOutZero(one) && one.mean < 0);
  const higher = others.filter((one) => leavesOutZero(one) && one.mean > 0);
  const open = others.filter((one) => one.interval !== null && !leavesOutZero(one));
  const most = Math.max(...others.map(({ count }) => count));
  return [
    ...(lower.length === 0 ? [] : [`${lower.map((one) => apart(one, baseline)).join("; ")}.`]),
    ...(higher.length === 0 ? [] : [`${higher.map((one) => apart(one, baseline)).join("; ")}.`]),
    ...(open.length === 0
      ? []
      : [
          `${counted(most)} do not tell ${listed(open.map(({ rule }) => rule))} from ${baseline}: ${open.length === 1 ? "the interval of the difference holds" : "the intervals of the differences hold"} 0.`,
        ]),
    ...(alone.length === 0
      ? []
      : [
          `${listed(alone.map(({ rule, mean }) => `${rule} ended ${side(mean)} ${baseline}`))}. One seed tells no interval: another seed may turn ${alone.length === 1 ? "this" : "these"} around.`,
        ]),
  ];
}

/** `dga is 0.120 nats per token below uniform (95 % interval 0.100 to 0.140)` */
function apart({ rule, mean, interval }: Difference & { readonly rule: string }, baseline: string): string {
  const ends = (interval ?? []).map(Math.abs).sort((a, b) => a - b);
  return `${rule} is ${side(mean)} ${baseline} (95 % interval ${ends.map(nats).join(" to ")})`;
}

const side = (difference: number): string =>
  `${nats(Math.abs(difference))} nats per token ${difference < 0 ? "below" : "above"}`;

const nats = (value: number): string => value.toFixed(3);

const counted = (seeds: number): string => `These ${seeds} seeds`;

/** `a, b and c` */
function listed(items: readonly string[]): string {
  const last = items.at(-1) ?? "";
  return items.length < 2 ? last : `${items.slice(0, -1).join(", ")} and ${last}`;
}

/** What must be the same in two runs of one target, so that their losses can be compared. */
const same = [
  "steps",
  "batch",
  "context",
  "parameters",
  "vocabSize",
  "dataSeed",
  "evaluatedTokens",
  "target",
  "domains",
] as const satisfies readonly (keyof RunFacts)[];

/** A run and what it found. */
export interface Found {
  readonly folder: string;
  readonly facts: RunFacts;
}

/** Throws `data`, naming both runs and what differs, unless all runs have the same text, split, tokens, size of the model and steps. */
export function checkComparable(runs: readonly Found[]): void {
  const first = runs[0];
  if (first === undefined) return;
  for (const run of runs.slice(1)) {
    const key = same.find((key) => formatJson(run.facts[key]) !== formatJson(first.facts[key]));
    if (key === undefined) continue;
    throw new GradmixError(
      "data",
      `${run.folder} cannot be compared with ${first.folder}: ${whatDiffers(key, first.facts, run.facts)}; restore what has changed and delete the run that was made otherwise, or begin a new comparison`,
    );
  }
}

function whatDiffers(key: (typeof same)[number], then: RunFacts, now: RunFacts): string {
  if (key === "target") return "the text of the target, or its tokens, are others";
  if (key !== "domains") return `its ${key} is ${now[key]}, not ${then[key]}`;
  const name = [...new Set([...then.domains.keys(), ...now.domains.keys()])].find(
    (name) => formatJson(then.domains.get(name)) !== formatJson(now.domains.get(name)),
  );
  return name === undefined
    ? "its domains are in another order"
    : `the text of domain "${name}", or its tokens, are others`;
}
