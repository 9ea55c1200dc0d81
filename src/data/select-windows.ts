/**
 * Selects the windows of each domain that resemble a target most, if a run needs only a part of the domain's text. Windows are compared by the bigrams
 * of the target and those of all domains (`bigram-ratio.ts`). `likeness.ts` compares whole documents in the same way, for domains of their own.
 */
import { selectionDefaults } from "./defaults.ts";
import type { CancelSignal } from "../cancel.ts";
import { GradmixError } from "../errors.ts";
import type { TokenBatch } from "../nn/model.ts";
import { checkOptions, integerIn, list, numberIn, numberList, required } from "../options.ts";
import { type BigramRatio, createBigramRatio } from "./bigram-ratio.ts";
import type { Stretch } from "./bigram-scores.ts";
import type { Dataset } from "./dataset.ts";
import { GOOD_EPOCHS } from "./epochs.ts";
import { sampledSize } from "./sampled-size.ts";
import { evenly, stretchesOf } from "./stretches.ts";
import { runSteps, runStepsInTurns, type Steps } from "./steps.ts";
import { checkWindows, commonTime, type Windows, type Tokens } from "./tokens.ts";

/** Options of `selectWindows`. */
export interface SelectionOptions {
  /** The domain weights that the run is expected to have, such as the shares of `bigramHistogram`. They need not sum to 1 [k]. */
  readonly weights: ArrayLike<number>;
  /** Number of training tokens of the run: steps × windows per step × tokens per window. */
  readonly tokens: number;
  /** Smallest share of a domain's windows that is kept (default 0.25). 1 keeps all windows. */
  readonly leastShare?: number;
}

/** Windows of a domain that were selected. */
export interface SelectedWindows extends Dataset<TokenBatch> {
  /** Tokens per window. */
  readonly time: number;
  /** The windows among which they were selected; absent if none was left out. */
  readonly of?: Windows;
}

/** What `selectWindows` returns. */
export interface Selection {
  /** The selected windows of each domain, to be sampled in place of the domains. */
  readonly domains: SelectedWindows[];
  /** Share of each domain's windows that was selected, up to 1 [k]. */
  readonly shares: Float64Array;
  /** Tokens of the selected windows of each domain, the `sizes` for a mixer [k]. */
  readonly sizes: Float64Array;
  /** Why the windows of all domains were kept; null if some were left out. */
  readonly whole: string | null;
}

/** Windows are selected only if the target has more training tokens than this, since few tokens do not show which windows resemble it. */
const FEWEST_TARGET_TOKENS = 4000;
/** Most tokens that are counted: of a domain, of all domains, and of the target. */
const COUNTED = 2 ** 15;
const COUNTED_IN_ALL = 2 ** 22;
const COUNTED_OF_TARGET = 2 ** 21;
/** Most windows of a domain, of the target, and fewest of a domain if there are many, whose scores decide how much is kept. */
const SCORED = 512;
const SCORED_IN_ALL = 2 ** 17;
const LEAST_SCORED = 16;
/** Tokens that are read at a time to score windows. */
const READ_AHEAD = 4096;
/** Parts of the target; each is scored with the counts of the others. */
const TARGET_PARTS = 10;
/** Windows that are compared with each other; the best of them are kept. They are spread over the domain. */
const BLOCK = 32;
/** Windows that are kept of each block, at least. So a small share has larger blocks. */
const KEPT_OF_BLOCK = 8;

/**
 * Selects windows of each domain for a run. A run that needs only a part of a domain's text then reads the part that resembles the target most.
 *
 * A domain with n windows of T tokens keeps the largest of these shares of its windows:
 *
 * - `leastShare`;
 * - what the run is expected to read of it, α · tokens / (n·T), so that no window is repeated because of the selection;
 * - a quarter of what the run would read of it if it used all text equally often, since text may be read four times with little loss;
 * - the share whose windows resemble the target as much as the target's own windows do, on average. Own windows are scored with the bigrams of the rest
 *   of the target. So a domain that consists of text like the target keeps all of it.
 *
 * All windows are kept if the target has no more than 4,000 tokens. With n > 4,000 tokens of target, a share s becomes 1 − (1 − s)(1 − 4,000/n).
 *
 * The same text gives the same windows. Windows are compared only when they are drawn, in blocks of 32 (of 8 / share if a share is below a quarter), so
 * large domains cost no time before the run. The first call of `tokensOf` or `batchOf` for a block reads and scores its windows.
 *
 * All text must come from one tokenizer. Throws `config` for invalid options, and `data` for windows of different lengths and for files that cannot be read.
 */
export function selectWindows(
  target: Windows,
  domains: readonly Windows[],
  options: SelectionOptions,
): Selection {
  checkOptions<SelectionOptions>("selectWindows", options, {
    weights: required(numberList),
    tokens: required(integerIn(0)),
    leastShare: numberIn({ min: 0, max: 1 }),
  });
  return runSteps(selectionSteps(target, domains, options));
}

/**
 * The same, but regularly lets the event loop run; rejects with the reason of `signal` once that is aborted. Not part of the package's interface.
 */
export function selectInTurns(
  target: Windows,
  domains: readonly Windows[],
  options: SelectionOptions,
  signal: CancelSignal,
): Promise<Selection> {
  return runStepsInTurns(selectionSteps(target, domains, options), signal);
}

/** Selects the windows of an earlier selection of the same text again, in turns. `shares` are those of that selection [k]. */
export function reselectInTurns(
  target: Windows,
  domains: readonly Windows[],
  shares: Float64Array,
  signal: CancelSignal,
): Promise<Selection> {
  return runStepsInTurns(reselectionSteps(target, domains, shares), signal);
}

function* selectionSteps(
  target: Windows,
  domains: readonly Windows[],
  options: SelectionOptions,
): Steps<Selection> {
  checkText(target, domains);
  const least = leastShares(domains, options);
  const trust = Math.max(0, 1 - FEWEST_TARGET_TOKENS / Math.max(1, target.stream.tokens.length));
  const whole = reasonForAll(target, domains, options, least);
  if (whole !== null) return allOf(domains, whole);
  const parts = partsOf(target);
  const scores = yield* scoresInSteps(parts, domains);
  const own = yield* targetScoreInSteps(parts, target.time, scores.ratio);
  const scored = Math.min(SCORED, Math.max(LEAST_SCORED, Math.floor(SCORED_IN_ALL / domains.length)));
  const shares = new Float64Array(domains.length);
  for (const [i, { count }] of domains.entries()) {
    yield;
    const sample = least[i]! >= 1 ? [] : evenly(count, scored).map((index) => scores.scoreOf(i, index));
    const share = Math.max(least[i]!, shareWithMean(sample, own));
    shares[i] = share >= 1 ? 1 : 1 - (1 - share) * trust;
  }
  const selection = selectionOf(domains, shares, scores);
  return selection.shares.every((share) => share === 1)
    ? {
        ...selection,
        whole:
          "the windows of each domain resemble the target as much as its own text does, or are too few to divide",
      }
    : selection;
}

/** Why all windows are kept, whatever they contain; null if that depends on their text. */
function reasonForAll(
  { stream }: Windows,
  domains: readonly Windows[],
  { tokens, leastShare = selectionDefaults.leastShare }: SelectionOptions,
  least: Float64Array,
): string | null {
  const n = (count: number): string => count.toLocaleString("en");
  const { length } = stream.tokens;
  if (least.every((share) => share >= 1)) {
    if (leastShare >= 1) return "all text was asked for";
    return evenReadings(domains, tokens) >= GOOD_EPOCHS
      ? `the run reads all of the text ${GOOD_EPOCHS} times or more, so it needs all of it`
      : "the run is expected to read all of each domain";
  }
  return length <= FEWEST_TARGET_TOKENS
    ? `the target has ${n(length)} training tokens, and up to ${n(FEWEST_TARGET_TOKENS)} do not show which windows resemble it`
    : null;
}

function* reselectionSteps(
  target: Windows,
  domains: readonly Windows[],
  shares: Float64Array,
): Steps<Selection> {
  checkText(target, domains);
  if (shares.every((share) => share >= 1)) return allOf(domains, "the earlier selection kept all of them");
  return selectionOf(domains, shares, yield* scoresInSteps(partsOf(target), domains));
}

function checkText(target: Windows, domains: readonly Windows[]): void {
  checkWindows("selectWindows: target", target);
  list("selectWindows: domains", domains);
  for (const [i, domain] of domains.entries()) checkWindows(`selectWindows: domains: ${i}`, domain);
  commonTime([target, ...domains]);
}

function allOf(domains: readonly Windows[], whole: string): Selection {
  const sizes = Float64Array.from(domains, ({ stream }) => stream.tokens.length);
  return { domains: [...domains], shares: new Float64Array(domains.length).fill(1), sizes, whole };
}

function selectionOf(domains: readonly Windows[], shares: Float64Array, { scoreOf }: Scores): Selection {
  const selected = domains.map((domain, i) => bestWindows(domain, shares[i]!, (index) => scoreOf(i, index)));
  // Whole windows are kept, and at least one.
  const kept = Float64Array.from(selected, ({ count }, i) => count / Math.max(1, domains[i]!.count));
  const sizes = Float64Array.from(domains, ({ stream }, i) => sampledSize(stream.tokens.length, kept[i]!));
  return { domains: selected, shares: kept, sizes, whole: null };
}

/** How many times a run of `tokens` tokens would read all windows of all domains. */
function evenReadings(domains: readonly Windows[], tokens: number): number {
  return tokens / domains.reduce((sum, { count, time }) => sum + count * time, 0);
}

/** The share of each domain's windows that is kept at least, before any window is scored. */
function leastShares(
  domains: readonly Windows[],
  { weights, tokens, leastShare = selectionDefaults.leastShare }: SelectionOptions,
): Float64Array {
  if (weights.length !== domains.length)
    throw new GradmixError(
      "config",
      `selectWindows: weights: ${weights.length} values for ${domains.length} domains`,
    );
  const given = Array.from(weights);
  const bad = given.findIndex((value) => !(value >= 0 && Number.isFinite(value)));
  const sum = given.reduce((a, b) => a + b, 0);
  if (bad >= 0 || !(sum > 0 || given.length === 0))
    throw new GradmixError(
      "config",
      `selectWindows: weights: ${bad < 0 ? "all values are 0; one must be above 0" : `value ${bad} is ${given[bad]}; it must be a number of 0 or more`}`,
    );
  const sizes = domains.map(({ count, time }) => count * time);
  const even = evenReadings(domains, tokens) / GOOD_EPOCHS;
  return Float64Array.from(sizes, (size, i) =>
    Math.min(1, Math.max(leastShare, even, (given[i]! * tokens) / (sum * size))),
  );
}

interface Scores {
  readonly ratio: BigramRatio;
  /** The score of a window of a domain, without the window itself if it is among the counted text. */
  scoreOf(domain: number, index: number): number;
}

/** The text of the target that is counted, in parts. */
function partsOf({ stream, time }: Windows): Tokens[] {
  const { length } = stream.tokens;
  const parts = Math.max(1, Math.min(TARGET_PARTS, Math.floor(length / (time + 1))));
  const border = (part: number): number => Math.floor((part * length) / parts);
  const stretches =
    length > COUNTED_OF_TARGET
      ? stretchesOf(stream, COUNTED_OF_TARGET, time)
      : Array.from({ length: parts }, (_, part) => ({ from: border(part), to: border(part + 1) }));
  return stretches.map(({ from, to }) => stream.tokens.subarray(from, to));
}

/** Counts the target and a part of each domain. */
function* scoresInSteps(parts: readonly Tokens[], domains: readonly Windows[]): Steps<Scores> {
  const ratio = createBigramRatio();
  const most = Math.min(COUNTED, Math.floor(COUNTED_IN_ALL / domains.length));
  const counted = domains.map(({ stream, time }) => stretchesOf(stream, Math.max(most, time + 1), time));
  for (const part of parts) ratio.count("target", part);
  for (const [i, { stream }] of domains.entries())
    for (const { from, to } of counted[i]!) {
      ratio.count("other", stream.tokens.subarray(from, to));
      yield;
    }
  ratio.finish();
  const read = createReader(domains);
  return {
    ratio,
    scoreOf(domain, index) {
      const from = index * domains[domain]!.time;
      // With the token that follows it.
      const window = read(domain, from, from + domains[domain]!.time + 1);
      const isCounted = contains(counted[domain]!, { from, to: from + window.length });
      return isCounted ? ratio.scoreWithout("other", window) : ratio.score(window);
    },
  };
}

/** Reads parts of the domains. If a part begins shortly behind the one before, the text that follows is read with it. */
function createReader(domains: readonly Windows[]): (domain: number, from: number, to: number) => Tokens {
  let held: { readonly domain: number; readonly from: number; readonly tokens: Tokens } | null = null;
  /** Where the part before ends. */
  let last = 0;
  return (domain, from, to) => {
    const { tokens } = domains[domain]!.stream;
    const end = Math.min(to, tokens.length);
    const isNear = held?.domain === domain && from >= held.from && from < last + READ_AHEAD / 4;
    if (held === null || !isNear || end > held.from + held.tokens.length)
      held = { domain, from, tokens: tokens.subarray(from, Math.max(end, isNear ? from + READ_AHEAD : 0)) };
    last = end;
    return held.tokens.subarray(from - held.from, end - held.from);
  };
}

/** Whether one of the stretches contains a part. */
function contains(stretches: readonly Stretch[], { from, to }: Stretch): boolean {
  return stretches.some((stretch) => stretch.from <= from && to <= stretch.to);
}

/** The mean score of the target's own windows, those of each part with the counts of the others. */
function* targetScoreInSteps(parts: readonly Tokens[], time: number, ratio: BigramRatio): Steps<number> {
  let [sum, scored] = [0, 0];
  for (const part of parts) {
    yield;
    const windows = Math.max(1, Math.floor((part.length - 1) / time));
    const some = evenly(windows, Math.ceil(SCORED / parts.length));
    ratio.without("target", part, () => {
      for (const w of some) sum += ratio.score(part.subarray(w * time, (w + 1) * time + 1));
    });
    scored += some.length;
  }
  return sum / scored;
}

/** The largest share of the best scores whose mean is at least `mean`; 0 if even the best is below it. */
function shareWithMean(scores: readonly number[], mean: number): number {
  const sorted = Float64Array.from(scores).sort().reverse();
  let [sum, kept] = [0, 0];
  while (kept < sorted.length && sum + sorted[kept]! >= mean * (kept + 1)) sum += sorted[kept++]!;
  return scores.length === 0 ? 0 : kept / scores.length;
}

/** Windows per block, if `kept` of `count` windows are kept. It depends on nothing else, so that the share of an earlier selection gives the same blocks. */
function blockSize(kept: number, count: number): number {
  const least = KEPT_OF_BLOCK / BLOCK;
  // A share that is the least one is rounded to whole windows.
  return kept + 0.5 >= least * count ? BLOCK : Math.ceil((KEPT_OF_BLOCK * count) / kept);
}

/**
 * The windows with the best scores, as a source. Window w belongs to block w mod B of B blocks, so each block is spread over the domain, and example g of
 * the source is one of block g mod B. A block is scored when one of its examples is first requested.
 */
function bestWindows(windows: Windows, share: number, scoreOf: (index: number) => number): SelectedWindows {
  const { name, time, count } = windows;
  const kept = Math.max(1, Math.round(share * count));
  if (kept >= count) return windows;
  const blocks = Math.ceil(count / blockSize(kept, count));
  const chosen = new Uint32Array(kept);
  const known = new Uint8Array(blocks);
  const choose = (block: number): void => {
    const own = Array.from({ length: Math.ceil((count - block) / blocks) }, (_, j) => {
      const index = block + j * blocks;
      return { index, score: scoreOf(index) };
    });
    own.sort((a, b) => b.score - a.score || a.index - b.index);
    for (let g = block, j = 0; g < kept; g += blocks, j++) chosen[g] = own[j]!.index;
    known[block] = 1;
  };
  const windowOf = (index: number): number => {
    if (!Number.isInteger(index) || index < 0 || index >= kept)
      throw new GradmixError("data", `"${name}": there is no selected window ${index}; it has ${kept}`);
    const block = index % blocks;
    if (known[block] === 0) choose(block);
    return chosen[index]!;
  };
  return {
    ...{ name, time, count: kept, of: windows },
    tokensOf: (index) => windows.tokensOf(windowOf(index)),
    batchOf: (indices) => windows.batchOf(indices.map(windowOf)),
  };
}
