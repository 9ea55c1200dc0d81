/**
 * Compares rules: for each target, the final held-out losses over seeds and their differences to one rule, the baseline, paired by seed. Pure
 * functions on plain data. Runs of one seed begin with the same parameters, and the effect of these on the loss cancels in a paired difference.
 */
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import type { RunFacts } from "../runs/facts.ts";
import { interval, type Interval, mean } from "../runs/statistics.ts";

/** The result of one run. */
export interface Outcome {
  readonly rule: string;
  /** Name of the target; null if there is only one. */
  readonly target: string | null;
  readonly seed: number;
  /** Folder of the run. */
  readonly folder: string;
  /** Final held-out loss on the target, in nats per token. */
  readonly loss: number;
  /** Final held-out loss in bits per byte; null if nothing is held out. */
  readonly bitsPerByte: number | null;
  /** `countedCost` of the run. */
  readonly cost: number;
  /** Wall time of the steps in seconds, with alignments but without evaluations. */
  readonly seconds: number;
}

/** Computation of a run, including the measurements of its rule (alignments and guards), relative to training alone. */
export function countedCost({ alignment, guard = 0 }: RunFacts["cost"]): number {
  return 1 + alignment + guard;
}

/** A rule's loss minus that of the baseline, over the seeds that both have. */
export interface Difference extends Interval {
  /** The 95 % interval (Student's t); null with a single seed. */
  readonly interval: readonly [number, number] | null;
}

/** One rule on one target. */
export interface RuleResult {
  readonly rule: string;
  readonly runs: readonly Outcome[];
  readonly loss: Interval;
  readonly bitsPerByte: number | null;
  /** Difference to the baseline; null for the baseline itself, and if no seed has both. */
  readonly difference: Difference | null;
  /** Counted computation relative to the baseline, on the seeds that both have; null if there are none. */
  readonly cost: number | null;
  /** Wall time of the steps relative to the baseline, on the seeds that both have; null if there are none. */
  readonly time: number | null;
}

/** Compares the rules on one target, in the order of `rules`; rules without a run are left out. `outcomes` are those of one target. */
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

/** Ratio of the means over pairs; null if there are no pairs. */
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

/** Whether the seeds show a difference: 0 lies outside the interval. */
export function leavesOutZero({ interval }: Difference): boolean {
  return interval !== null && (interval[1] < 0 || interval[0] > 0);
}

/**
 * The conclusions from the differences, in sentences. A rule is called lower or higher than the baseline if the interval of its difference does not
 * contain 0; for the others, a sentence says that these seeds do not distinguish them from the baseline.
 */
export function conclusions(results: readonly RuleResult[], baseline: string): string[] {
  const others = results.flatMap(({ rule, difference }) =>
    difference === null ? [] : [{ rule, ...difference }],
  );
  if (others.length === 0) return [];
  const single = others.filter(({ interval }) => interval === null);
  const lower = others.filter((one) => leavesOutZero(one) && one.mean < 0);
  const higher = others.filter((one) => leavesOutZero(one) && one.mean > 0);
  const open = others.filter((one) => one.interval !== null && !leavesOutZero(one));
  // A rule may have fewer pairs than another, if the loss of one of its runs became NaN.
  const counts = [...new Set(open.map(({ count }) => count))].sort((a, b) => b - a);
  return [
    ...(lower.length === 0 ? [] : [`${lower.map((one) => differenceText(one, baseline)).join("; ")}.`]),
    ...(higher.length === 0 ? [] : [`${higher.map((one) => differenceText(one, baseline)).join("; ")}.`]),
    ...counts.map((count) =>
      openText(
        count,
        open.filter((one) => one.count === count).map(({ rule }) => rule),
        baseline,
      ),
    ),
    ...(single.length === 0
      ? []
      : [
          `${listed(single.map(({ rule, mean }) => `${rule} ended ${side(mean)} ${baseline}`))}. One seed gives no interval: another seed may reverse ${single.length === 1 ? "this" : "these"}.`,
        ]),
  ];
}

/** For example `dga is 0.120 nats per token below uniform (95 % interval 0.100 to 0.140)`. */
function differenceText(
  { rule, mean, interval }: Difference & { readonly rule: string },
  baseline: string,
): string {
  const ends = (interval ?? []).map(Math.abs).sort((a, b) => a - b);
  return `${rule} is ${side(mean)} ${baseline} (95 % interval ${ends.map(nats).join(" to ")})`;
}

/** For example `0.120 nats per token below`. A difference that would print as 0 is not said to be one. */
function side(difference: number): string {
  if (difference === 0) return "level with";
  const size = Math.abs(difference);
  return `${size < 0.0005 ? "less than 0.001" : nats(size)} nats per token ${difference < 0 ? "below" : "above"}`;
}

const nats = (value: number): string => value.toFixed(3);

/** For example `These 3 seeds do not distinguish a and b from uniform: …`, of rules that have this number of pairs. */
function openText(seeds: number, rules: readonly string[], baseline: string): string {
  return `These ${seeds} seeds do not distinguish ${listed(rules)} from ${baseline}: ${rules.length === 1 ? "the interval of the difference contains" : "the intervals of the differences contain"} 0.`;
}

/** For example `a, b and c`. */
function listed(items: readonly string[]): string {
  const last = items.at(-1) ?? "";
  return items.length < 2 ? last : `${items.slice(0, -1).join(", ")} and ${last}`;
}

/** The facts that two runs of one target must share for their losses to be comparable. */
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

/** A run and its facts. */
export interface Found {
  readonly folder: string;
  readonly facts: RunFacts;
}

/** Throws `data`, naming both runs and the difference, unless all runs have the same text, split, tokens, model size and steps. */
export function checkComparable(runs: readonly Found[]): void {
  const first = runs[0];
  if (first === undefined) return;
  for (const run of runs.slice(1)) {
    const key = same.find((key) => formatJson(run.facts[key]) !== formatJson(first.facts[key]));
    if (key === undefined) continue;
    throw new GradmixError(
      "data",
      `${run.folder} cannot be compared with ${first.folder}: ${whatDiffers(key, first.facts, run.facts)}; undo the change and delete the run made with it, or start a new comparison`,
    );
  }
}

function whatDiffers(key: (typeof same)[number], first: RunFacts, other: RunFacts): string {
  if (key === "target") return "the text of the target, or its tokenization, differs";
  if (key !== "domains") return `its ${key} is ${other[key]}, not ${first[key]}`;
  const name = [...new Set([...first.domains.keys(), ...other.domains.keys()])].find(
    (name) => formatJson(first.domains.get(name)) !== formatJson(other.domains.get(name)),
  );
  return name === undefined
    ? "its domains are in another order"
    : `the text of domain "${name}", or its tokenization, differs`;
}
