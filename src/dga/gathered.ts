/**
 * What training steps tell about the domains between two updates of their weights: a list of examples, whatever the number of domains. Plain
 * JSON, part of a checkpoint.
 */
import { GradmixError } from "../errors.ts";
import { type Bases } from "./bases.ts";
import type { Alignments } from "./passes.ts";
import { basisAlignments } from "./reweighting.ts";
import { alignmentsByDomain } from "./statistics.ts";

export interface Gathered {
  /** Domain of every example, in the order they were drawn, like those below. */
  domainOf: number[];
  /** Counted tokens. */
  tokens: number[];
  /** Summed loss. */
  losses: number[];
  /** ⟨∇(summed loss), V⟩; empty for rules that do not align, like `squaredNorms`. */
  dots: number[];
  /** ‖gradient of the mean loss‖². */
  squaredNorms: number[];
  /** The reference model's summed loss; empty without one. */
  referenceLosses: number[];
  targetNorms: number[];
  targetLosses: number[];
}

const lists = [
  "domainOf",
  "tokens",
  "losses",
  "dots",
  "squaredNorms",
  "referenceLosses",
  "targetNorms",
  "targetLosses",
] as const satisfies readonly (keyof Gathered)[];

export function nothing(): Gathered {
  return {
    domainOf: [],
    tokens: [],
    losses: [],
    dots: [],
    squaredNorms: [],
    referenceLosses: [],
    targetNorms: [],
    targetLosses: [],
  };
}

/** Mean losses per token of k domains; 0 with 0 tokens for a domain that was never drawn. */
export function lossesOf(
  { domainOf, ...gathered }: Gathered,
  k: number,
): { tokens: Float64Array; losses: Float64Array; referenceLosses: Float64Array } {
  const sums = (values: readonly number[]): Float64Array => {
    const out = new Float64Array(k);
    values.forEach((value, e) => (out[domainOf[e]] += value));
    return out;
  };
  const tokens = sums(gathered.tokens);
  const perToken = (values: readonly number[]): Float64Array =>
    sums(values).map((sum, i) => (tokens[i] > 0 ? sum / tokens[i] : 0));
  return { tokens, losses: perToken(gathered.losses), referenceLosses: perToken(gathered.referenceLosses) };
}

/**
 * Alignments from what the steps gathered. A domain that was never drawn has 0 tokens, by which rules know that nothing was measured.
 *
 * The norm of a domain is here the root mean square of its single examples' gradients: unlike the norm of their mean it does not grow when few
 * are drawn, which would make a rare domain's cosine smaller and the domain rarer still.
 */
export function summarise(gathered: Gathered, k: number): Alignments {
  const { domainOf, dots, squaredNorms } = gathered;
  const { tokens, losses } = lossesOf(gathered, k);
  const measured = alignmentsByDomain(dots, gathered.tokens, domainOf, k);
  const squares = new Float64Array(k);
  const counts = new Float64Array(k);
  squaredNorms.forEach((square, e) => {
    squares[domainOf[e]] += square;
    counts[domainOf[e]]++;
  });
  return {
    alignments: Float64Array.from(measured, ({ alignment }) => alignment),
    standardErrors: measured.map(({ standardError }) => standardError),
    norms: squares.map((sum, i) => Math.sqrt(sum / Math.max(1, counts[i]))),
    tokens,
    targetNorm: mean(gathered.targetNorms),
    losses,
    targetLoss: mean(gathered.targetLosses),
  };
}

/** The bases' alignments from what the steps gathered, all of it drawn with the domain weights `q`. */
export function summariseBases(gathered: Gathered, bases: Bases, q: Float64Array): Alignments {
  const measured = basisAlignments(bases, q, gathered);
  return {
    ...measured,
    norms: measured.norms ?? null,
    losses: measured.losses ?? new Float64Array(bases.names.length),
    targetNorm: mean(gathered.targetNorms),
    targetLoss: mean(gathered.targetLosses),
  };
}

/** Throws `checkpoint` unless it is what `nothing()` may have grown into with k domains. */
export function checkGathered(json: unknown, k: number): Gathered {
  const wrong = (what: string): GradmixError =>
    new GradmixError("checkpoint", `checkpoint: what the steps gathered is malformed: ${what}`);
  if (typeof json !== "object" || json === null) throw wrong("it is no object");
  const given = new Map<string, unknown>(Object.entries(json));
  const out = nothing();
  for (const name of lists) {
    const value = given.get(name);
    if (!Array.isArray(value)) throw wrong(`it has no ${name}`);
    out[name] = value.map((entry: unknown) => {
      if (typeof entry !== "number" || !Number.isFinite(entry)) throw wrong(`${name} holds ${String(entry)}`);
      return entry;
    });
  }
  const examples = out.domainOf.length;
  for (const name of ["tokens", "losses", "dots", "squaredNorms", "referenceLosses"] as const) {
    const { length } = out[name];
    const optional = name !== "tokens" && name !== "losses";
    if (length !== examples && !(optional && length === 0))
      throw wrong(`${length} ${name} for ${examples} examples`);
  }
  if (!out.domainOf.every((domain) => Number.isInteger(domain) && domain >= 0 && domain < k))
    throw wrong(`an example is of none of ${k} domains`);
  return out;
}

export function total(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : total(values) / values.length;
}
