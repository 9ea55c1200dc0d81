/** The guards of a run: which held-out text they evaluate, how often and on how much of it, and their outcomes as text. */
import type { Windows } from "../data/tokens.ts";
import { limitsOf, SURE } from "../dga/combinators/guard.ts";
import { GRADIENT } from "../dga/cost.ts";
import { nextUpdate, type Mixer } from "../dga/mixer.ts";
import type { HeldOutLosses } from "../dga/trainer.ts";
import { GradmixError } from "../errors.ts";
import type { RunFacts, TextFacts } from "../runs/facts.ts";
import { readRunHead } from "../runs/record.ts";
import { type EvaluationFacts, affordable, windowsRead } from "./evaluations.ts";
import type { GuardLimits } from "./mixing.ts";
import type { Split } from "./read-data.ts";

/** The held-out windows of each domain, in the domains' order; null for domains without a guard. */
export type GuardedSets = readonly (Windows | null)[];

/**
 * Returns the held-out sets of the guarded domains. Throws `data` for a domain that is guarded by its name and has no held-out text, and if no
 * domain has any. A domain that only "*" guards is then not guarded, which `onEvent` reports.
 */
export function guardedSets(
  { limits }: GuardLimits,
  names: readonly string[],
  domains: readonly Split[],
  onEvent: (line: string) => void,
): GuardedSets {
  const guarded = limitsOf(limits, names, "--guard");
  const without = names.filter((_, i) => guarded[i] !== null && domains[i]!.heldOut === null);
  const named = without.find((name) => Object.hasOwn(limits, name));
  if (named !== undefined)
    throw new GradmixError(
      "data",
      `--guard: domain "${named}" has no held-out text, which a guard needs; give it more documents, or raise --held-out`,
    );
  if (without.length === names.length)
    throw new GradmixError(
      "data",
      "--guard: no domain has held-out text, which a guard needs; raise --held-out",
    );
  if (without.length > 0)
    onEvent(
      `not guarded, because they have no held-out text: ${without.slice(0, 5).join(", ")}${without.length > 5 ? ` and ${without.length - 5} more` : ""}`,
    );
  return domains.map(({ heldOut }, i) => (guarded[i] === null ? null : heldOut));
}

/**
 * Returns a warning if the model of a reference run may have been trained on text that is held out here: a run's seed and files determine
 * which documents it holds out. null if both held-out texts have the same length in tokens and bytes, and are therefore taken to be the same.
 */
export function otherSplit(
  folder: string,
  sets: GuardedSets,
  found: ReadonlyMap<string, Pick<TextFacts, "heldOutTokens" | "heldOutBytes">>,
): string | null {
  let earlier: RunFacts["domains"];
  try {
    earlier = readRunHead(folder).facts.domains;
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    return `--guard: ${folder} does not record which text it held out; if its model was trained on text that is held out here, its reference losses are too low`;
  }
  const other = [...found].find(([name, { heldOutTokens, heldOutBytes }], i) => {
    const then = earlier.get(name);
    return sets[i] !== null && (then?.heldOutTokens !== heldOutTokens || then.heldOutBytes !== heldOutBytes);
  });
  return other === undefined
    ? null
    : `--guard: ${folder} held out other text of domain "${other[0]}" than this run; if its model was trained on text that is held out here, its reference losses are too low; train both runs with the same --seed and files`;
}

/** When the guarded domains are evaluated, and on how much text. */
export interface GuardPlan {
  /** Number of updates of the weights between two evaluations. */
  readonly every: number;
  /** Largest number of tokens read from each domain. */
  readonly tokens: number;
  /** Number of evaluations in the whole run: before the first step, at updates, and at the end. */
  readonly times: number;
  /** Number of windows that one evaluation reads from all guarded domains together. */
  readonly windows: number;
}

/** A guard must detect a rise early rather than precisely: n tokens of a domain are spent as √(n/32) evaluations of √(n·32) tokens. */
const TOKENS_UNIT = 32;
/** Smallest number of tokens of a domain that has that many. On fewer, noise hides a rise of a few per cent. */
const LEAST_TOKENS = 512;
/** Smallest number of evaluations: one before the first step, two in between, one at the end. */
const LEAST_TIMES = 4;

/** Plans the evaluations of guarded domains. A pure function of its arguments, like all plans of evaluations. */
export function planGuard(
  share: number,
  sets: readonly number[],
  mixer: Mixer,
  { steps, batch, context }: Pick<EvaluationFacts, "steps" | "batch" | "context">,
): GuardPlan {
  const multiples = Math.floor(steps / mixer.updateEvery);
  const most = Math.max(LEAST_TIMES, multiples + 2);
  const { times, windows } = affordable(share * GRADIENT * batch * steps, sets, context, null, {
    times: LEAST_TIMES,
    most,
    windows: Math.ceil(LEAST_TOKENS / context),
    unit: TOKENS_UNIT,
  });
  let every = Math.max(1, Math.ceil(multiples / (times - 1)));
  // The evaluation at the end may be one too many.
  while (timesOf(every, mixer, steps) > times) every++;
  return {
    every,
    tokens: windows * context,
    times: timesOf(every, mixer, steps),
    windows: windowsRead(sets, windows),
  };
}

/** Number of evaluations before the first step, at every `every`-th update and at the end. */
function timesOf(every: number, mixer: Mixer, steps: number): number {
  const period = every * mixer.updateEvery;
  const first = Math.ceil(nextUpdate(mixer, 0) / period) * period;
  const checks = steps < first ? 0 : 1 + Math.floor((steps - first) / period);
  const atEnd = checks > 0 && steps % period === 0;
  return 1 + checks + (atEnd ? 0 : 1);
}

/** Outcome of one guard. */
export interface GuardOutcome {
  readonly name: string;
  readonly limit: number;
  /** Held-out loss at the end divided by its reference, and the standard error of this ratio. */
  readonly ratio: number;
  readonly error: number | null;
}

/** Outcomes for the evaluated domains, sorted by how far they exceed their limit, the furthest first. */
export function guardOutcomes(
  { limits }: GuardLimits,
  names: readonly string[],
  { losses, references, standardErrors }: HeldOutLosses,
): GuardOutcome[] {
  return limitsOf(limits, names)
    .flatMap((limit, i) => {
      const [loss, reference, error] = [losses[i] ?? null, references[i] ?? null, standardErrors[i] ?? null];
      if (limit === null || loss === null || reference === null || reference === 0) return [];
      return [
        {
          name: names[i]!,
          limit,
          ratio: loss / reference,
          error: error === null ? null : error / reference,
        },
      ];
    })
    .sort((a, b) => b.ratio - b.limit - (a.ratio - a.limit));
}

/**
 * Formats the outcomes: `all 8 held; nearest to its limit: code +1.2 % ± 0.3 (limit +2 %)`, or which did not hold. A rise over the reference
 * within twice its error, on which no guard acts, counts as held.
 */
export function formatGuards(outcomes: readonly GuardOutcome[]): string {
  const broken = outcomes.filter((one) => one.ratio > one.limit && !withinError(one));
  const count = outcomes.length;
  if (broken.length > 0) {
    const more = broken.length > 5 ? ` and ${broken.length - 5} more` : "";
    return `${count - broken.length} of ${count} held; did not hold: ${broken.slice(0, 5).map(shown).join(", ")}${more}`;
  }
  const [nearest] = outcomes;
  const at = nearest === undefined ? "" : `; nearest to its limit: ${shown(nearest)}`;
  return `${count === 1 ? "held" : `all ${count} held`}${at}`;
}

const withinError = ({ ratio, error }: GuardOutcome): boolean => error !== null && ratio - 1 <= SURE * error;

/** Formats an outcome: `code +3.1 % ± 0.4 (limit +2 %)`. */
function shown(outcome: GuardOutcome): string {
  const { name, limit, ratio, error } = outcome;
  const doubt = error === null ? "" : ` ± ${digits(100 * error)}`;
  const noise = ratio > limit && withinError(outcome) ? ", within twice its error" : "";
  return `${name} ${signed(ratio)} %${doubt} (limit ${signed(limit)} %${noise})`;
}

const signed = (ratio: number): string => `${ratio < 1 ? "−" : "+"}${digits(Math.abs(100 * (ratio - 1)))}`;
/** Small values have more digits, since an error that is shown as 0 looks like none. */
const digits = (value: number): string =>
  String(Number(value.toFixed(value < 0.05 ? 3 : value < 10 ? 1 : 0)));
