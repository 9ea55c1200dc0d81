/** One run as the page shows it. Pure. */
import { bitsPerByte, type RunFacts, sampledTokens, type TextFacts } from "../runs/facts.ts";
import type { GuardMetrics, RunWeights } from "../runs/lines.ts";
import type { Gathered } from "./collect.ts";
import { type Points, rounded } from "./curves.ts";
import type { DomainData, ExportedText, Matrix, RunData } from "./page-data.ts";
import { packFloats, packWeights } from "./page/packing.ts";
import { settingsOf } from "./settings.ts";

/** Number of domains whose epochs, and of names whose alignments, are drawn over time: those with the most epochs, and those with the largest weights. */
const DRAWN = 100;

/** A run as it was read. */
export interface RunView {
  readonly gathered: Gathered;
  /** Weights of the run; null until it has ended or was stopped. */
  readonly weights: RunWeights | null;
  readonly running: boolean;
  /** Label of its configuration; null if it is to be derived from the differences to the others. */
  readonly label: string | null;
  readonly exports: readonly ExportedText[];
}

/** All names on the page, and the index of each. */
export interface Names {
  readonly list: readonly string[];
  readonly indices: ReadonlyMap<string, number>;
}

export function runData(run: RunView, names: Names, group: number, mostWeights: number): RunData {
  const { gathered, running } = run;
  const { head, step, tokens, target } = gathered;
  const { facts } = head;
  const end = target.items.at(-1);
  const heavy = heaviestNames(run);
  return {
    name: head.name,
    folder: head.folder,
    group,
    seed: facts.seed,
    state: step >= facts.steps ? "done" : running ? "running" : "stopped",
    step,
    steps: facts.steps,
    tokens,
    mixes: facts.bases === null ? "domains" : "bases",
    weights: weightsOf(gathered, heavy, names, mostWeights),
    alignments: alignmentsOf(gathered, heavy, names),
    guards: guardsOf(gathered, names),
    epochs: epochsOf(gathered, names),
    cap: facts.repetitions,
    domains: domainsOf(run, names),
    bitsPerNat: facts.target === null ? null : bitsOf(facts.target),
    target: end === undefined ? null : { start: target.items[0]!.loss, end: end.loss },
    cost: {
      training: gathered.seconds,
      evaluation: gathered.evaluationSeconds,
      alignmentShare: facts.cost.alignment,
      guardShare: facts.cost.guard ?? 0,
      evaluationShare: facts.cost.evaluation,
    },
    settings: settingsOf(head),
    exports: run.exports,
  };
}

export function targetPoints({ target: { items }, head }: Gathered): Points {
  return {
    tokens: items.map(({ tokens }) => tokens),
    loss: items.map(({ loss }) => loss),
    bitsPerNat: head.facts.target === null ? null : bitsOf(head.facts.target),
  };
}

export function domainPoints({ losses: { items }, head }: Gathered, name: string): Points {
  const known = items.flatMap(({ tokens, loss }) => {
    const value = loss.get(name);
    return value === undefined ? [] : [{ tokens, value }];
  });
  const text = head.facts.domains.get(name);
  return {
    tokens: known.map(({ tokens }) => tokens),
    loss: known.map(({ value }) => value),
    bitsPerNat: text === undefined ? null : bitsOf(text),
  };
}

/** Means of the batches' losses in each bucket of steps. */
export function trainingPoints({ samples }: Gathered): Points {
  return {
    tokens: samples.map(({ tokens }) => tokens),
    loss: samples.map(({ lossSum, losses }) => lossSum / losses),
    bitsPerNat: null,
  };
}

function bitsOf(text: TextFacts): number | null {
  return bitsPerByte(text, 1);
}

/** The rank value of each name: the sum of its mean weight over the points in time and its final weight. */
export function sizeRanks({ gathered: { samples, head }, weights }: RunView): Map<string, number> {
  const sums = new Map<string, number>();
  const add = (name: string, weight: number): void => void sums.set(name, (sums.get(name) ?? 0) + weight);
  for (const sample of samples)
    for (const [name, weight] of sample.weights) add(name, weight / samples.length);
  const final = (head.facts.bases === null ? weights : weights?.bases)?.final ?? samples.at(-1)?.weights;
  for (const [name, weight] of final ?? []) add(name, weight);
  return sums;
}

/** Names with weights in the lines (of many names, those that were ever among the largest), the largest first; equal ones keep their order. */
function heaviestNames(run: RunView): string[] {
  const { samples, head } = run.gathered;
  const { facts } = head;
  const sums = sizeRanks(run);
  const inLines = new Set(samples.flatMap(({ weights }) => [...weights.keys()]));
  // The sort is stable.
  return (facts.bases ?? [...facts.domains.keys()])
    .filter((name) => inLines.has(name))
    .sort((one, other) => (sums.get(other) ?? 0) - (sums.get(one) ?? 0));
}

/** The last item of every group of equal size, so that at most `most` are left. */
export function thinned<T>(items: readonly T[], most: number): readonly T[] {
  const every = Math.ceil(items.length / Math.max(1, Math.floor(most)));
  return every <= 1 ? items : items.filter((_, i) => i === items.length - 1 || i % every === every - 1);
}

function rowsOf(rows: readonly string[], { indices }: Names): number[] {
  return rows.flatMap((name) => indices.get(name) ?? []);
}

/** The weights over time. The first column is before the first step: the weights of its batch. */
function weightsOf(
  { samples, first }: Gathered,
  heavy: readonly string[],
  names: Names,
  most: number,
): Matrix {
  const columns = [
    ...(first === null ? [] : [{ tokens: 0, weights: first }]),
    ...thinned(samples, most / Math.max(1, heavy.length) - 1),
  ];
  return {
    rows: rowsOf(heavy, names),
    tokens: columns.map(({ tokens }) => tokens),
    values: packWeights(heavy.flatMap((name) => columns.map(({ weights }) => weights.get(name) ?? NaN))),
  };
}

function alignmentsOf({ aligned }: Gathered, heavy: readonly string[], names: Names): RunData["alignments"] {
  const measured = new Set(aligned.flatMap(({ values }) => [...values.keys()]));
  const rows = heavy.filter((name) => measured.has(name)).slice(0, DRAWN);
  if (rows.length === 0) return null;
  const pack = (of: (one: { value: number; standardError: number | null }) => number | null): string =>
    packFloats(
      rows.flatMap((name) =>
        aligned.map(({ values }) => {
          const one = values.get(name);
          return one === undefined ? NaN : (of(one) ?? NaN);
        }),
      ),
    );
  return {
    rows: rowsOf(rows, names),
    tokens: aligned.map(({ tokens }) => tokens),
    values: pack(({ value }) => value),
    errors: pack(({ standardError }) => standardError),
  };
}

/** Guarded domains, those furthest above their limits at the end first. With many domains, a line has only some of them. */
function guardsOf({ guarded: { items }, head }: Gathered, names: Names): RunData["guards"] {
  const mixing = head.config.get("mixing");
  const given: unknown = mixing instanceof Map ? mixing.get("guard") : undefined;
  const limitOf = (name: string): number => {
    const limit: unknown = given instanceof Map ? (given.get(name) ?? given.get("*")) : undefined;
    return typeof limit === "number" ? limit : NaN;
  };
  const last = new Map(
    items.flatMap(({ loss }) => Array.from(loss, ([name, one]) => [name, one.loss / one.reference] as const)),
  );
  const rows = [...last.keys()]
    .sort((a, b) => (last.get(b) ?? 0) - limitOf(b) - ((last.get(a) ?? 0) - limitOf(a)))
    .slice(0, DRAWN);
  if (rows.length === 0) return null;
  const pack = (of: (one: GuardMetrics) => number | null): string =>
    packFloats(
      rows.flatMap((name) =>
        items.map(({ loss }) => {
          const one = loss.get(name);
          const value = one === undefined ? null : of(one);
          return one === undefined || value === null ? NaN : value / one.reference;
        }),
      ),
    );
  return {
    rows: rowsOf(rows, names),
    tokens: items.map(({ tokens }) => tokens),
    values: pack(({ loss }) => loss),
    errors: pack(({ standardError }) => standardError),
    limits: rows.map(limitOf),
  };
}

/** Tokens of each domain that the run samples. */
function sampledOf({ domains, selected }: RunFacts): Map<string, number> {
  return sampledTokens(
    Array.from(domains, ([name, { tokens }]) => [name, tokens]),
    selected,
  );
}

/** Epochs over time, from 0, of the domains with the most epochs, those first. */
function epochsOf({ head: { facts }, samples, trained }: Gathered, names: Names): Matrix {
  const domains = [...sampledOf(facts)].map(([name, size], i) => ({ name, size, i }));
  const rows = domains
    .sort((one, other) => trained[other.i]! / other.size - trained[one.i]! / one.size)
    .slice(0, DRAWN);
  return {
    rows: rowsOf(
      rows.map(({ name }) => name),
      names,
    ),
    tokens: [0, ...samples.map(({ tokens }) => tokens)],
    values: packFloats(
      rows.flatMap(({ size, i }) => [0, ...samples.map((sample) => sample.trained[i]! / size)]),
    ),
  };
}

/** The domains in the order of the run. */
function domainsOf({ gathered, weights }: RunView, { indices }: Names): DomainData[] {
  const { facts } = gathered.head;
  const last = facts.bases === null ? gathered.samples.at(-1)?.weights : undefined;
  const sampled = [...sampledOf(facts).values()];
  return [...facts.domains].map(([name, text], i) => {
    const { loss } = domainPoints(gathered, name);
    const requestedSum = gathered.requested.get(name);
    // With many domains, a line has only the largest weights, so their sum is not the total.
    const complete = facts.bases === null && last !== undefined && last.size === facts.domains.size;
    return {
      domain: indices.get(name) ?? 0,
      weight: weights?.final.get(name) ?? last?.get(name) ?? null,
      averaged:
        weights?.averaged.get(name) ??
        (complete && requestedSum !== undefined ? requestedSum / gathered.step : null),
      size: text.tokens,
      selected: facts.selected?.get(name) ?? null,
      sampled: sampled[i]!,
      tokens: gathered.trained[i]!,
      lossAtStart: loss.length === 0 ? null : rounded(loss[0]!),
      loss: loss.length === 0 ? null : rounded(loss[loss.length - 1]!),
      bitsPerNat: bitsOf(text),
      passed: gathered.passed.get(name) ?? null,
    };
  });
}
