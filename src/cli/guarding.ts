/** The guards of a run: which held-out text they look at, how often and on how much of it, and what came of them, in words. */
import type { Windows } from "../data/tokens.ts";
import { limitsOf, SURE } from "../dga/combinators/guard.ts";
import { nextUpdate, type Mixer } from "../dga/mixer.ts";
import type { HeldOutLosses } from "../dga/trainer.ts";
import { GradmixError } from "../errors.ts";
import type { RunFacts, TextFacts } from "../runs/facts.ts";
import { readRunHead } from "../runs/record.ts";
import { type EvaluationFacts, spend, TRAINING, windowsRead } from "./evaluations.ts";
import type { GuardLimits } from "./mixing.ts";
import type { Split } from "./read-data.ts";

/** The held-out windows of every domain that is guarded; null for the others, in their order. */
export type GuardedSets = readonly (Windows | null)[];

/**
 * Throws `data` for a domain that is guarded by its name and has no held-out text. One that only "*" guards is then not guarded, and `onEvent` is told so.
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
 * A line where the model of a reference run may have been trained on text that is held out here: the documents that a run holds out follow from its seed and its files. null where they
 * are as long in tokens and bytes, and so surely the same.
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
    return `--guard: ${folder} does not say which text it held out; if its model was trained on what is held out here, its losses on it are too low to compare with`;
  }
  const other = [...found].find(([name, { heldOutTokens, heldOutBytes }], i) => {
    const then = earlier.get(name);
    return sets[i] !== null && (then?.heldOutTokens !== heldOutTokens || then.heldOutBytes !== heldOutBytes);
  });
  return other === undefined
    ? null
    : `--guard: ${folder} held out other text of domain "${other[0]}" than this run, so that its model may have been trained on what is held out here, and its losses on it are then too low to compare with; train both with the same --seed and files`;
}

/** When guarded domains are evaluated, and on how much. */
export interface GuardPlan {
  /** Updates of the weights from one time to the next. */
  readonly every: number;
  /** Tokens read of each domain, at most. */
  readonly tokens: number;
  /** How often in the whole run: before the first step, at updates, and at the end. */
  readonly times: number;
  /** Windows that one time reads, of all guarded domains together. */
  readonly windows: number;
}

/** A guard has to see a rise soon more than exactly: n tokens of a domain are spent as √(n/32) evaluations of √(n·32) tokens. */
const TOKENS_UNIT = 32;
/** Least tokens of a domain, where it has so many: on fewer a rise of some per cent is hidden by noise. */
const LEAST_TOKENS = 512;
/** Least times: before the first step, twice between, at the end. */
const LEAST_TIMES = 4;

/** A pure function of the plan, as all evaluations are. */
export function planGuard(
  share: number,
  sets: readonly number[],
  mixer: Mixer,
  { steps, batch, context }: Pick<EvaluationFacts, "steps" | "batch" | "context">,
): GuardPlan {
  const multiples = Math.floor(steps / mixer.updateEvery);
  const most = Math.max(LEAST_TIMES, multiples + 2);
  const { times, windows } = spend(share * TRAINING * batch * steps, sets, context, null, {
    times: LEAST_TIMES,
    most,
    windows: Math.ceil(LEAST_TOKENS / context),
    unit: TOKENS_UNIT,
  });
  let every = Math.max(1, Math.ceil(multiples / (times - 1)));
  // What the end adds may be one too many.
  while (timesOf(every, mixer, steps) > times) every++;
  return {
    every,
    tokens: windows * context,
    times: timesOf(every, mixer, steps),
    windows: windowsRead(sets, windows),
  };
}

/** Evaluations before the first step, at every `every`-th update and at the end. */
function timesOf(every: number, mixer: Mixer, steps: number): number {
  const period = every * mixer.updateEvery;
  const first = Math.ceil(nextUpdate(mixer, 0) / period) * period;
  const checks = steps < first ? 0 : 1 + Math.floor((steps - first) / period);
  const atEnd = checks > 0 && steps % period === 0;
  return 1 + checks + (atEnd ? 0 : 1);
}

/** What became of one guard. */
export interface GuardOutcome {
  readonly name: string;
  readonly limit: number;
  /** The held-out loss at the end over its reference, and the standard error of that. */
  readonly ratio: number;
  readonly error: number | null;
}

/** Of the domains that were looked at, those that are furthest above their limit first. */
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

/** `all 8 held; nearest to its limit: code +1.2 % ± 0.3 (limit +2 %)`, or which did not. A rise within twice its error over the reference, which no guard acts on, counts as held. */
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

/** `code +3.1 % ± 0.4 (limit +2 %)` */
function shown(outcome: GuardOutcome): string {
  const { name, limit, ratio, error } = outcome;
  const doubt = error === null ? "" : ` ± ${digits(100 * error)}`;
  const noise = ratio > limit && withinError(outcome) ? ", no more than twice its error" : "";
  return `${name} ${signed(ratio)} %${doubt} (limit ${signed(limit)} %${noise})`;
}

const signed = (ratio: number): string => `${ratio < 1 ? "−" : "+"}${digits(Math.abs(100 * (ratio - 1)))}`;
const digits = (value: number): string => String(Number(value.toFixed(value < 10 ? 1 : 0)));
