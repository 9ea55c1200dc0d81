/**
 * When a run measures its loss on held-out text, and on how much of it. By default evaluation takes a share of the training's computation: a pure function of
 * the plan and never of the clock, so that a resumed run does the same. Costs are counted in forward passes of one window.
 */
import type { Windows } from "../data/tokens.ts";
import { GRADIENT } from "../dga/cost.ts";
import { evaluated } from "./metrics.ts";
import { EVERY_TOKENS } from "./options/run.ts";
import type { Data } from "./read-data.ts";

/** What the options say. One of `share` and `every` is not null. */
export interface EvaluationOptions {
  /** Evaluation takes about this share of the training's computation. */
  readonly share: number | null;
  /** Steps between two evaluations; 0: only at the end. */
  readonly every: number | null;
  /** Tokens read from each held-out set; null: as the share allows, or `EVERY_TOKENS`. */
  readonly tokens: number | null;
}

/** Most evaluations by a share: more points do not make a curve any plainer. */
const MOST_TIMES = 100;

/** Of a share, the part that goes to the domains where there is a target too. */
const DOMAINS_PART = 1 / 3;

/**
 * n tokens of a set are spent as √(n/256) evaluations of √(n·256) tokens each: four times the text buys twice the evaluations on twice as much. 16,384 tokens
 * are 8 evaluations of 2,048.
 */
const TOKENS_UNIT = 256;

/** The target is measured on no less than this where it has so much, however small the share: its loss is what a run is for. */
const LEAST_TARGET_TOKENS = 1024;

/** The held-out sets that a run evaluates. */
export interface HeldOut {
  readonly target: Windows | null;
  readonly domains: ReadonlyMap<string, Windows>;
}

/** Of very many domains every so many-th. */
export function heldOutOf(
  { target, domains }: Pick<Data, "target" | "domains">,
  names: readonly string[],
): HeldOut {
  const chosen = evaluated(names.length).flatMap((i) => {
    const { heldOut } = domains[i]!;
    return heldOut === null ? [] : [[names[i]!, heldOut] as const];
  });
  return { target: target?.heldOut ?? null, domains: new Map(chosen) };
}

/** What a plan depends on beside the options. */
export interface EvaluationFacts {
  readonly steps: number;
  /** Windows in a step. */
  readonly batch: number;
  /** Tokens in a window. */
  readonly context: number;
  /** Windows of the target's held-out set; null without one. */
  readonly target: number | null;
  /** Windows of each domain's held-out set that is evaluated. */
  readonly domains: readonly number[];
}

/** The evaluations of the target, or of the domains. */
export interface EvaluationSeries {
  /** The steps after which it is done, ascending, 0 being before the first; or a number N: after every N steps (0: none), and at the end. */
  readonly after: readonly number[] | number;
  /** Tokens read from each set, at most. */
  readonly tokens: number;
  /** How often in the whole run. */
  readonly times: number;
  /** Windows that one of them reads, of all sets together. */
  readonly windows: number;
}

export interface EvaluationPlan {
  readonly steps: number;
  /** Tokens in a window. */
  readonly context: number;
  readonly target: EvaluationSeries | null;
  readonly domains: EvaluationSeries | null;
}

/**
 * The evaluations of a run. By a share: the target before the first step, at the end and between, the domains at the end and, on fewer tokens and at fewer of
 * the same steps, before it; without a target the domains as the target. The target at both ends, and the domains at the end, are evaluated
 * whatever the share; all else is within it.
 */
export function planEvaluations(options: EvaluationOptions, facts: EvaluationFacts): EvaluationPlan {
  return options.every === null ? byShare(options, facts) : byInterval(options.every, options, facts);
}

function byInterval(
  every: number,
  { tokens }: EvaluationOptions,
  { steps, context, target, domains }: EvaluationFacts,
): EvaluationPlan {
  const read = tokens ?? EVERY_TOKENS;
  const series = (sets: readonly number[]): EvaluationSeries | null =>
    sets.length === 0
      ? null
      : {
          after: every,
          tokens: read,
          times: every === 0 ? 1 : Math.ceil(steps / every),
          windows: windowsRead(sets, Math.ceil(read / context)),
        };
  return { steps, context, target: series(target === null ? [] : [target]), domains: series(domains) };
}

function byShare({ share, tokens }: EvaluationOptions, facts: EvaluationFacts): EvaluationPlan {
  const { steps, batch, context, target, domains } = facts;
  const budget = (share ?? 0) * GRADIENT * batch * steps;
  const most = Math.min(MOST_TIMES, steps + 1);
  const fixed = tokens === null ? null : Math.ceil(tokens / context);
  const series = (sets: readonly number[], after: readonly number[], windows: number): EvaluationSeries => ({
    after,
    tokens: tokens ?? windows * context,
    times: after.length,
    windows: windowsRead(sets, windows),
  });
  if (target === null) {
    if (domains.length === 0) return { steps, context, target, domains: null };
    const { times, windows } = spend(budget, domains, context, fixed, { times: 2, most, windows: 1 });
    return { steps, context, target, domains: series(domains, spread(times, steps), windows) };
  }
  const sets = [target];
  const reserved =
    domains.length === 0 ? 0 : Math.max(budget * DOMAINS_PART, windowsRead(domains, fixed ?? 1));
  const windows = Math.ceil(LEAST_TARGET_TOKENS / context);
  const own = spend(budget - reserved, sets, context, fixed, { times: 2, most, windows });
  const targetSteps = spread(own.times, steps);
  const ofTarget = series(sets, targetSteps, own.windows);
  if (domains.length === 0) return { steps, context, target: ofTarget, domains: null };
  // At some of the target's steps, with the last of them.
  const left = budget - ofTarget.times * ofTarget.windows;
  const rest = spend(left, domains, context, fixed, { times: 1, most: own.times, windows: 1 });
  const after = spread(rest.times, own.times - 1).map((i) => targetSteps[i]!);
  return { steps, context, target: ofTarget, domains: series(domains, after, rest.windows) };
}

/** Forward passes of one window that a training step takes for each window of its batch. */
export const TRAINING: number = GRADIENT;

/** Windows that are read when `most` of each set are. */
export function windowsRead(sets: readonly number[], most: number): number {
  return sets.reduce((sum, count) => sum + Math.min(count, most), 0);
}

/** Bounds of a series: the least and the most times, and the least windows of a set that has so many; `unit` as TOKENS_UNIT, which is its default. */
export interface Bounds {
  readonly times: number;
  readonly most: number;
  readonly windows: number;
  readonly unit?: number;
}

/**
 * How often, and how many windows of each set, for `budget` windows; where they are `fixed`, how often. What the bounds ask for at least is had even where it is
 * more than the budget.
 */
export function spend(
  budget: number,
  sets: readonly number[],
  context: number,
  fixed: number | null,
  bounds: Bounds,
): { readonly times: number; readonly windows: number } {
  const within = (times: number): number => Math.max(bounds.times, Math.min(bounds.most, Math.floor(times)));
  const tokens = (Math.max(0, budget) * context) / sets.length;
  const room = budget / within(Math.sqrt(tokens / (bounds.unit ?? TOKENS_UNIT)));
  const windows = fixed ?? Math.max(Math.min(bounds.windows, Math.max(...sets)), windowsWithin(room, sets));
  // Windows are whole, and sets end: what is left over goes into more evaluations.
  return { times: within(budget / windowsRead(sets, windows)), windows };
}

/** The most windows of each set that `room` has place for. */
function windowsWithin(room: number, sets: readonly number[]): number {
  let [windows, end] = [0, Math.max(...sets)];
  while (windows < end) {
    const middle = Math.ceil((windows + end) / 2);
    if (windowsRead(sets, middle) <= room) windows = middle;
    else end = middle - 1;
  }
  return windows;
}

/** So many whole numbers from 0 to `last`, evenly; a single one is `last`. Not more than last + 1. */
function spread(count: number, last: number): number[] {
  return count === 1 ? [last] : Array.from({ length: count }, (_, i) => Math.round((i * last) / (count - 1)));
}

/** Tokens to read from the target's and from each domain's held-out set after `step` steps; null for what is not evaluated then. */
export interface Wanted {
  readonly target: number | null;
  readonly domains: number | null;
}

/** What is evaluated after `step` steps; null: nothing. */
export function evaluationAfter({ steps, target, domains }: EvaluationPlan, step: number): Wanted | null {
  const due = (series: EvaluationSeries | null): number | null => {
    if (series === null) return null;
    const { after, tokens } = series;
    const now =
      typeof after === "number"
        ? // The rest by 0 is NaN.
          step === steps || (step > 0 && step % after === 0)
        : after.includes(step);
    return now ? tokens : null;
  };
  const wanted = { target: due(target), domains: due(domains) };
  return wanted.target === null && wanted.domains === null ? null : wanted;
}

/** Windows that all evaluations of a run read: forward passes. */
export function evaluationPasses({ target, domains }: EvaluationPlan): number {
  return [target, domains].reduce(
    (sum, series) => sum + (series === null ? 0 : series.times * series.windows),
    0,
  );
}
