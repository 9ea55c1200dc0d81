/**
 * Collects what the page needs from a run's lines, one line at a time and in bounded memory. Long runs have `POINTS` points in time, which depend
 * only on the number of planned steps; so watching a run gives the same page as reading it at the end.
 */
import type { Evaluation, MetricsLine, StepMetrics } from "../runs/lines.ts";
import { follows, type RunHead } from "../runs/record.ts";

/** Largest number of points in time of a run. */
export const POINTS = 400;
/** Largest number of evaluations that are kept; beyond it every second one is removed, repeatedly. */
export const EVALUATIONS = 200;

/** A bucket of steps: the values at its last step so far, and the mean of the batches' losses. */
export interface Sample {
  step: number;
  tokens: number;
  lossSum: number;
  losses: number;
  weights: ReadonlyMap<string, number>;
  /** Trained tokens of each domain, in the order of the domains. */
  trained: Float64Array;
}

/** Held-out losses, and the number of tokens trained on before them. */
export interface Evaluated<T> {
  readonly tokens: number;
  readonly loss: T;
}

/** A list of bounded length: beyond `EVALUATIONS` items every second one is removed, repeatedly; the first and the last are always kept. */
export interface Thinned<T> {
  items: T[];
  /** Number of items so far; every `every`-th one is kept. */
  count: number;
  every: number;
}

export interface Aligned {
  step: number;
  tokens: number;
  values: NonNullable<StepMetrics["alignments"]>;
}

/** What was collected so far; `addLine` changes it. */
export interface Gathered {
  readonly head: RunHead;
  readonly domains: ReadonlyMap<string, number>;
  /** Steps in a bucket. */
  readonly stride: number;
  readonly samples: Sample[];
  readonly aligned: Aligned[];
  readonly target: Thinned<Evaluated<number>>;
  readonly losses: Thinned<Evaluated<Evaluation["domains"]>>;
  readonly guarded: Thinned<Evaluated<NonNullable<StepMetrics["guard"]>>>;
  /** Weights with which the first batch was drawn. */
  first: ReadonlyMap<string, number> | null;
  step: number;
  tokens: number;
  trained: Float64Array;
  /** Sums over the steps of the weights in the lines, and the number of steps. */
  readonly requested: Map<string, number>;
  /** Trained tokens of the run when a domain exceeded the limit on repetitions. */
  readonly passed: Map<string, number>;
  seconds: number;
  evaluationSeconds: number;
}

export function gather(head: RunHead): Gathered {
  const names = [...head.facts.domains.keys()];
  return {
    head,
    domains: new Map(names.map((name, i) => [name, i])),
    stride: Math.max(1, Math.ceil(head.facts.steps / POINTS)),
    samples: [],
    aligned: [],
    target: { items: [], count: 0, every: 1 },
    losses: { items: [], count: 0, every: 1 },
    guarded: { items: [], count: 0, every: 1 },
    first: null,
    step: 0,
    tokens: 0,
    trained: new Float64Array(names.length),
    requested: new Map(),
    passed: new Map(),
    seconds: 0,
    evaluationSeconds: 0,
  };
}

/**
 * Adds a line. Returns false if it does not follow the lines before, because the run went back to an earlier step; then the run must be read again
 * from the start.
 */
export function addLine(to: Gathered, line: MetricsLine): boolean {
  if ("event" in line) {
    if (line.event === "start") {
      if (to.step > 0 || to.target.count + to.losses.count > 0) return false;
      addEvaluation(to, 0, line.evaluation);
      to.evaluationSeconds += line.seconds;
    }
    return follows(line, to.step);
  }
  if (!follows(line, to.step)) return false;
  to.step = line.step;
  to.tokens = line.tokens;
  to.seconds += line.seconds - (line.evaluationSeconds ?? 0);
  to.evaluationSeconds += line.evaluationSeconds ?? 0;
  to.first ??= line.weights;
  for (const [name, weight] of line.weights) to.requested.set(name, (to.requested.get(name) ?? 0) + weight);
  const cap = to.head.facts.repetitions;
  for (const [name, { tokens, epochs }] of line.domains) {
    const i = to.domains.get(name);
    if (i === undefined) continue;
    to.trained[i] = tokens;
    if (cap !== null && epochs > cap && !to.passed.has(name)) to.passed.set(name, line.tokens);
  }
  addSample(to, line);
  if (line.evaluation !== undefined) addEvaluation(to, line.tokens, line.evaluation);
  if (line.guard !== undefined) addItem(to.guarded, { tokens: line.tokens, loss: line.guard });
  return true;
}

function addSample(to: Gathered, line: StepMetrics): void {
  const { step, tokens } = line;
  const begun = (step - 1) % to.stride === 0 || to.samples.length === 0;
  const before = begun ? null : to.samples.at(-1);
  const sample: Sample = {
    step,
    tokens,
    lossSum: (before?.lossSum ?? 0) + line.loss,
    losses: (before?.losses ?? 0) + 1,
    weights: line.weights,
    trained: Float64Array.from(to.trained),
  };
  if (begun) to.samples.push(sample);
  else to.samples[to.samples.length - 1] = sample;
  if (line.alignments === undefined) return;
  const last = to.aligned.at(-1);
  const bucket = (n: number): number => Math.ceil(n / to.stride);
  const aligned = { step, tokens, values: line.alignments };
  if (last !== undefined && bucket(last.step) === bucket(step)) to.aligned[to.aligned.length - 1] = aligned;
  else to.aligned.push(aligned);
}

function addEvaluation(to: Gathered, tokens: number, { target, domains }: Evaluation): void {
  if (target !== null) addItem(to.target, { tokens, loss: target });
  if (domains.size > 0) addItem(to.losses, { tokens, loss: domains });
}

export function addItem<T>(to: Thinned<T>, item: T): void {
  // The last item may have been kept only because it was the last.
  if (to.items.length > 1 && (to.count - 1) % to.every !== 0) to.items.pop();
  to.items.push(item);
  to.count++;
  if (to.items.length <= EVALUATIONS) return;
  to.every *= 2;
  const last = to.items.length - 1;
  to.items = to.items.filter((_, i) => i % 2 === 0 || i === last);
}
