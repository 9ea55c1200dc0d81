/**
 * The measurements that training steps collect between two weight updates: a list of examples, whatever the number of domains. Plain JSON, part of a
 * checkpoint.
 */
import {
  count,
  faultOf,
  list,
  converted,
  number,
  object,
  oneOf,
  orNull,
  read,
  type Schema,
  where,
  withDefault,
} from "../schema.ts";
import { areDomains, type Bases } from "./bases.ts";
import {
  type Alignments,
  type ExampleMeasurements,
  measurementsOf,
  perToken,
  squarePerToken,
  sumByDomain,
  type TargetMeasurements,
  total,
} from "./measurements.ts";
import { basisAlignments } from "./reweighting.ts";
import { domainNorms, type NormParts } from "./statistics.ts";

/** Lists of numbers. The lists of examples have one entry per example, in the order in which they were drawn, in the units of `ExampleMeasurements`. */
export interface Gathered extends ExampleMeasurements {
  domainOf: number[];
  tokens: number[];
  losses: number[];
  /** Empty for rules that do not align. `squaredNorms` is also empty if weights are tied. */
  dots: number[];
  squaredNorms: number[];
  /** The reference model's summed loss of each example; empty without such a model. */
  referenceLosses: number[];
  /** For each step in which a domain has at least two examples, the index of the domain, as in `domainOf`. */
  pairDomains: number[];
  /** Σ ⟨dₛ, dₜ⟩ over ordered pairs of the domain's examples in that step, where d are gradients of summed losses. */
  pairDots: number[];
  /** Σ nₛ nₜ over the same pairs. */
  pairTokens: number[];
  targetNorms: number[];
  targetLosses: number[];
}

/** Version of the saved form. Since version 2, all numbers of examples are those of summed losses. */
const VERSION = 2;

const ofExamples = ["domainOf", "tokens", "losses", "dots", "squaredNorms", "referenceLosses"] as const;
const ofPairs = ["pairDomains", "pairDots", "pairTokens"] as const;

export function emptyGathered(): Gathered {
  return {
    domainOf: [],
    tokens: [],
    losses: [],
    dots: [],
    squaredNorms: [],
    referenceLosses: [],
    pairDomains: [],
    pairDots: [],
    pairTokens: [],
    targetNorms: [],
    targetLosses: [],
  };
}

/** Sums over ordered pairs of one domain's examples in a step. */
export interface Pairs {
  readonly domain: number;
  readonly dots: number;
  readonly tokens: number;
}

/** What a training step measured of its examples, which are sorted by domain. Lists that were not requested are empty. */
export interface StepMeasurements extends ExampleMeasurements {
  readonly losses: ArrayLike<number>;
  readonly squaredNorms: ArrayLike<number>;
  readonly referenceLosses: ArrayLike<number>;
  readonly pairs: readonly Pairs[];
}

/** Adds the measurements of a step. */
export function gather(gathered: Gathered, step: StepMeasurements): void {
  for (const name of ofExamples)
    for (let e = 0; e < step[name].length; e++) gathered[name].push(step[name][e]!);
  for (const { domain, dots, tokens } of step.pairs) {
    gathered.pairDomains.push(domain);
    gathered.pairDots.push(dots);
    gathered.pairTokens.push(tokens);
  }
}

/** Where the examples of each domain begin, for examples sorted by domain, and where the last domain ends. */
export function domainOffsets(domainOf: ArrayLike<number>): number[] {
  const offsets = [0];
  for (let e = 1; e < domainOf.length; e++) if (domainOf[e] !== domainOf[e - 1]) offsets.push(e);
  return [...offsets, domainOf.length];
}

/** ‖Σ dₛ‖² − Σ ‖dₛ‖² and (Σ nₛ)² − Σ nₛ² of every domain with at least two examples; `groupSquares` holds ‖Σ dₛ‖² of the domains that `offsets` delimits. */
export function pairsOf(
  domainOf: ArrayLike<number>,
  tokens: Float64Array,
  offsets: readonly number[],
  squares: Float64Array,
  groupSquares: Float64Array,
): Pairs[] {
  return offsets.slice(0, -1).flatMap((first, g) => {
    const end = offsets[g + 1]!;
    const own = tokens.subarray(first, end);
    const pairs = total(own) ** 2 - total(own.map((n) => n * n));
    if (pairs === 0) return [];
    return [
      {
        domain: domainOf[first]!,
        dots: groupSquares[g]! - total(squares.subarray(first, end)),
        tokens: pairs,
      },
    ];
  });
}

/** Mean losses per token of k domains; 0, with 0 tokens, for a domain that was never drawn. */
export function lossesByDomain(
  gathered: Gathered,
  k: number,
): { tokens: Float64Array; losses: Float64Array; referenceLosses: Float64Array } {
  const sums = (values: readonly number[]): Float64Array => sumByDomain(values, gathered.domainOf, k);
  const tokens = sums(gathered.tokens);
  return {
    tokens,
    losses: perToken(sums(gathered.losses), tokens),
    referenceLosses: perToken(sums(gathered.referenceLosses), tokens),
  };
}

/** Alignments from what the steps collected. A domain that was never drawn has 0 tokens, which tells rules that it was not measured. */
function summarise(gathered: Gathered, k: number): ReturnType<typeof measurementsOf> & TargetMeasurements {
  // With tied weights, each example has a dot but no norm.
  const normed = gathered.squaredNorms.length === gathered.dots.length;
  const norms = normed ? domainNorms(normParts(gathered, k)) : undefined;
  return { ...measurementsOf(gathered, k, norms), ...targetOf(gathered) };
}

function normParts(gathered: Gathered, k: number): NormParts[] {
  const parts = Array.from({ length: k }, () => ({ pairDots: 0, pairTokens: 0, squares: 0, examples: 0 }));
  gathered.squaredNorms.forEach((square, e) => {
    const tokens = gathered.tokens[e]!;
    // An example without tokens carries no information.
    if (tokens === 0) return;
    const part = parts[gathered.domainOf[e]!]!;
    part.squares += squarePerToken(square, tokens);
    part.examples++;
  });
  gathered.pairDomains.forEach((domain, p) => {
    parts[domain]!.pairDots += gathered.pairDots[p]!;
    parts[domain]!.pairTokens += gathered.pairTokens[p]!;
  });
  return parts;
}

function targetOf({ targetNorms, targetLosses }: Gathered): TargetMeasurements {
  return { targetNorm: mean(targetNorms), targetLoss: mean(targetLosses) };
}

/**
 * Alignments of k domains, or of the bases, from what the steps collected, drawn with the domain weights `q`. If each basis is a domain, they are
 * those of the domains; otherwise the norm of a basis is the root mean square over single examples (`basisAlignments`).
 */
export function gatheredAlignments(
  gathered: Gathered,
  k: number,
  bases: Bases | undefined,
  q: Float64Array,
): Alignments {
  if (bases === undefined) return summarise(gathered, k);
  if (areDomains(bases)) {
    const own = summarise(gathered, k);
    const perEntry = (values: Float64Array): Float64Array =>
      Float64Array.from(bases.columns, (i) => values[i]!);
    return {
      ...own,
      alignments: perEntry(own.alignments),
      standardErrors: Array.from(bases.columns, (i) => own.standardErrors[i] ?? null),
      ...(own.norms === undefined ? {} : { norms: perEntry(own.norms) }),
      tokens: perEntry(own.tokens),
      losses: perEntry(own.losses),
    };
  }
  const { squaredNorms, ...linear } = gathered;
  const normed = squaredNorms.length === gathered.dots.length;
  const measured = basisAlignments(bases, q, normed ? gathered : linear);
  const { losses = new Float64Array(bases.names.length) } = measured;
  return { ...measured, losses, ...targetOf(gathered) };
}

/** A copy for a checkpoint. */
export function savedGathered(gathered: Gathered): Gathered & { readonly version: number } {
  return { ...structuredClone(gathered), version: VERSION };
}

/** Reads saved measurements back. Throws `checkpoint` unless they are valid for k domains. */
export function checkGathered(json: unknown, k: number): Gathered {
  const fault = faultOf({ source: "checkpoint: what the steps gathered", code: "checkpoint" });
  const { version, ...out } = read(gatheredSchema(k), json, fault);
  const examples = out.domainOf.length;
  for (const name of ofExamples) {
    const { length } = out[name];
    const optional = name !== "domainOf" && name !== "tokens" && name !== "losses";
    if (length !== examples && !(optional && length === 0))
      throw fault("", `has ${length} ${name} for ${examples} examples`);
  }
  if (out.tokens.some((tokens) => tokens < 0)) throw fault("tokens", "has a number below 0");
  for (const name of ofPairs)
    if (out[name].length !== out.pairDomains.length)
      throw fault("", `has ${out[name].length} ${name} for ${out.pairDomains.length} pairs`);
  // Checkpoints without a version hold the squared norms of mean losses.
  if (version === null)
    out.squaredNorms = out.squaredNorms.map((square, e) => square * Math.max(1, out.tokens[e]!) ** 2);
  return out;
}

function gatheredSchema(k: number): Schema<Gathered & { version: typeof VERSION | null }> {
  const numbers: Schema<number[]> = (value, at) => [...list(number)(value, at)];
  const domain = where(count, (i) => (i < k ? null : `is ${i}, but there are ${k} domains`));
  const domains: Schema<number[]> = (value, at) => [...list(domain)(value, at)];
  // Old checkpoints have no pairs.
  const orNone = (schema: Schema<number[]>): Schema<number[]> =>
    converted(orNull(schema), (found) => found ?? []);
  return object<Gathered & { version: typeof VERSION | null }>({
    version: withDefault(oneOf(VERSION), null),
    domainOf: domains,
    tokens: numbers,
    losses: numbers,
    dots: numbers,
    squaredNorms: numbers,
    referenceLosses: numbers,
    pairDomains: orNone(domains),
    pairDots: orNone(numbers),
    pairTokens: orNone(numbers),
    targetNorms: numbers,
    targetLosses: numbers,
  });
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : total(values) / values.length;
}
