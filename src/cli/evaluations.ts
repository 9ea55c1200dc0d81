/**
 * Determines when a run measures its loss on held-out text, and on how much of it. By default the evaluations cost a share of the training's
 * computation. The plan is a pure function of the options and sizes and never of the clock, so that a resumed run does the same. Costs are
 * counted in forward passes of one window.
 */
import type { Windows } from "../data/tokens.ts";
import { GRADIENT } from "../dga/cost.ts";
import { evaluated } from "./metrics.ts";
import { TOKENS_PER_EVALUATION } from "./options/run.ts";
import type { Data } from "./read-data.ts";

/** Options of the evaluation. One of `share` and `every` is not null. */
export interface EvaluationOptions {
  /** Cost of evaluation, as an approximate share of the training's computation. */
  readonly share: number | null;
  /** Steps between two evaluations; 0: the run evaluates only at the end. */
  readonly every: number | null;
  /** Tokens read from each held-out set; null: as many as the share allows, or `TOKENS_PER_EVALUATION`. */
  readonly tokens: number | null;
}

/** Largest number of evaluations that a share determines; more points do not make a curve clearer. */
const MOST_TIMES = 100;

/** Part of the share that is spent on the domains, if there is a target too. */
const DOMAINS_PART = 1 / 3;

/**
 * n tokens of a set are spent as √(n/256) evaluations of √(n·256) tokens each: four times the tokens give twice the evaluations on twice the
 * text. For example, 16,384 tokens give 8 evaluations of 2,048.
 */
const TOKENS_UNIT = 256;

/** Smallest number of tokens on which the target is evaluated, if it has that many, however small the share: its loss is the purpose of the run. */
const LEAST_TARGET_TOKENS = 1024;

/** The held-out sets on which a run is evaluated. */
export interface HeldOut {
  readonly target: Windows | null;
  readonly domains: ReadonlyMap<string, Windows>;
}

/** The held-out sets of the target and the domains; of very many domains only every n-th one. */
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

/** Facts on which a plan depends, in addition to the options. */
export interface EvaluationFacts {
  readonly steps: number;
  /** Windows per step. */
  readonly batch: number;
  /** Tokens per window. */
  readonly context: number;
  /** Windows of the target's held-out set; null without one. */
  readonly target: number | null;
  /** Windows of each domain's held-out set that is evaluated. */
  readonly domains: readonly number[];
}

/** Evaluations of the target, or of the domains. */
export interface EvaluationSeries {
  /**
   * The steps after which an evaluation takes place, ascending, where 0 is before the first step. A number N means every N steps and the
   * end (0: only the end).
   */
  readonly after: readonly number[] | number;
  /** Largest number of tokens read from each set. */
  readonly tokens: number;
  /** Number of evaluations in the whole run. */
  readonly times: number;
  /** Number of windows that one evaluation reads from all sets together. */
  readonly windows: number;
}

export interface EvaluationPlan {
  readonly steps: number;
  /** Tokens per window. */
  readonly context: number;
  readonly target: EvaluationSeries | null;
  readonly domains: EvaluationSeries | null;
}

/**
 * Plans the evaluations of a run. With a share, the target is evaluated before the first step, at the end and between. The domains are
 * evaluated at the end and, on fewer tokens and at fewer of the same steps, before it; without a target they are evaluated like the target.
 * The evaluations of the target at both ends, and of the domains at the end, take place even if they exceed the share; all others stay within
 * it.
 */
export function planEvaluations(options: EvaluationOptions, facts: EvaluationFacts): EvaluationPlan {
  return options.every === null ? byShare(options, facts) : byInterval(options.every, options, facts);
}

function byInterval(
  every: number,
  { tokens }: EvaluationOptions,
  { steps, context, target, domains }: EvaluationFacts,
): EvaluationPlan {
  const read = tokens ?? TOKENS_PER_EVALUATION;
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
    const { times, windows } = affordable(budget, domains, context, fixed, { times: 2, most, windows: 1 });
    return { steps, context, target, domains: series(domains, spread(times, steps), windows) };
  }
  const sets = [target];
  const reserved =
    domains.length === 0 ? 0 : Math.max(budget * DOMAINS_PART, windowsRead(domains, fixed ?? 1));
  const windows = Math.ceil(LEAST_TARGET_TOKENS / context);
  const own = affordable(budget - reserved, sets, context, fixed, { times: 2, most, windows });
  const targetSteps = spread(own.times, steps);
  const ofTarget = series(sets, targetSteps, own.windows);
  if (domains.length === 0) return { steps, context, target: ofTarget, domains: null };
  // Some of the target's steps, including the last one.
  const left = budget - ofTarget.times * ofTarget.windows;
  const rest = affordable(left, domains, context, fixed, { times: 1, most: own.times, windows: 1 });
  const after = spread(rest.times, own.times - 1).map((i) => targetSteps[i]!);
  return { steps, context, target: ofTarget, domains: series(domains, after, rest.windows) };
}

/**
 * The same plan with the numbers of tokens that are really read, since whole windows are, up to the end of a set. An evaluation on these
 * tokens reads the same windows.
 */
export function planAsRead(plan: EvaluationPlan, { target, domains }: HeldOut): EvaluationPlan {
  const read = (series: EvaluationSeries | null, sets: readonly Windows[]): EvaluationSeries | null =>
    series === null ? null : { ...series, tokens: tokensRead(series.tokens, plan.context, sets) };
  return {
    ...plan,
    target: read(plan.target, target === null ? [] : [target]),
    domains: read(plan.domains, [...domains.values()]),
  };
}

/** Largest number of tokens that an evaluation on `tokens` tokens of each set reads from one of them. */
export function tokensRead(tokens: number, context: number, sets: readonly Windows[]): number {
  // The first token of a set is not predicted.
  const largest = sets.reduce((most, { stream }) => Math.max(most, stream.tokens.length - 1), 0);
  return Math.min(Math.ceil(tokens / context) * context, largest);
}

/** Number of windows read if at most `most` windows of each set are read. */
export function windowsRead(sets: readonly number[], most: number): number {
  return sets.reduce((sum, count) => sum + Math.min(count, most), 0);
}

/**
 * Bounds of a series: the smallest (`times`) and largest (`most`) number of evaluations, and the smallest number of windows read from a set
 * that has so many. `unit` replaces TOKENS_UNIT.
 */
export interface Bounds {
  readonly times: number;
  readonly most: number;
  readonly windows: number;
  readonly unit?: number;
}

/**
 * Returns how many evaluations `budget` windows pay for, and how many windows each reads per set. `fixed` sets the number of windows. The
 * lower bounds hold even if they exceed the budget.
 */
export function affordable(
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
  // Windows are whole and sets are finite, so a remaining budget is spent on more evaluations.
  return { times: within(budget / windowsRead(sets, windows)), windows };
}

/** Largest number of windows per set for which `room` windows in total suffice. */
function windowsWithin(room: number, sets: readonly number[]): number {
  let [windows, end] = [0, Math.max(...sets)];
  while (windows < end) {
    const middle = Math.ceil((windows + end) / 2);
    if (windowsRead(sets, middle) <= room) windows = middle;
    else end = middle - 1;
  }
  return windows;
}

/** `count` whole numbers from 0 to `last`, evenly spaced, and at most last + 1; a single one is `last`. */
function spread(count: number, last: number): number[] {
  return count === 1 ? [last] : Array.from({ length: count }, (_, i) => Math.round((i * last) / (count - 1)));
}

/** Number of tokens to read from the target's and from each domain's held-out set after a step; null if it is not evaluated then. */
export interface Wanted {
  readonly target: number | null;
  readonly domains: number | null;
}

/** The evaluation after `step` steps; null if there is none. */
export function evaluationAfter({ steps, target, domains }: EvaluationPlan, step: number): Wanted | null {
  const due = (series: EvaluationSeries | null): number | null => {
    if (series === null) return null;
    const { after, tokens } = series;
    const now =
      typeof after === "number"
        ? // The remainder of a division by 0 is NaN.
          step === steps || (step > 0 && step % after === 0)
        : after.includes(step);
    return now ? tokens : null;
  };
  const wanted = { target: due(target), domains: due(domains) };
  return wanted.target === null && wanted.domains === null ? null : wanted;
}

/** Number of windows that all evaluations of a run read, each of which is one forward pass. */
export function evaluationPasses({ target, domains }: EvaluationPlan): number {
  return [target, domains].reduce(
    (sum, series) => sum + (series === null ? 0 : series.times * series.windows),
    0,
  );
}
