/**
 * What training steps tell about the domains between two updates of their weights: a list of examples, whatever the number of domains. Plain
 * JSON, part of a checkpoint.
 */
import { GradmixError } from "../errors.ts";
import { areDomains, type Bases } from "./bases.ts";
import type { Alignments } from "./passes.ts";
import { basisAlignments } from "./reweighting.ts";
import { alignmentsByDomain, domainNorms } from "./statistics.ts";

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
  /** Of a domain with two examples or more in a step, an entry for each such step: the domain, like `domainOf`. */
  pairDomains: number[];
  /** Σ ⟨dₛ, dₜ⟩ over ordered pairs of its examples in that step, d being gradients of summed losses. */
  pairDots: number[];
  /** Σ nₛ nₜ over them. */
  pairTokens: number[];
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
  "pairDomains",
  "pairDots",
  "pairTokens",
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
    pairDomains: [],
    pairDots: [],
    pairTokens: [],
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

/** Alignments from what the steps gathered. A domain that was never drawn has 0 tokens, by which rules know that nothing was measured. */
export function summarise(gathered: Gathered, k: number): Alignments {
  const { domainOf, dots, squaredNorms, pairDomains, pairDots, pairTokens } = gathered;
  const { tokens, losses } = lossesOf(gathered, k);
  const measured = alignmentsByDomain(dots, gathered.tokens, domainOf, k);
  const parts = Array.from({ length: k }, () => ({ pairDots: 0, pairTokens: 0, squares: 0, examples: 0 }));
  squaredNorms.forEach((square, e) => {
    // An example without tokens says nothing.
    if (gathered.tokens[e] === 0) return;
    parts[domainOf[e]].squares += square;
    parts[domainOf[e]].examples++;
  });
  pairDomains.forEach((domain, p) => {
    parts[domain].pairDots += pairDots[p];
    parts[domain].pairTokens += pairTokens[p];
  });
  return {
    alignments: Float64Array.from(measured, ({ alignment }) => alignment),
    standardErrors: measured.map(({ standardError }) => standardError),
    norms: domainNorms(parts),
    tokens,
    targetNorm: mean(gathered.targetNorms),
    losses,
    targetLoss: mean(gathered.targetLosses),
  };
}

/**
 * The bases' alignments from what the steps gathered, all of it drawn with the domain weights `q`. Where each basis is a domain, they are the domains' own;
 * elsewhere the norm of a basis is the root mean square of single examples' (`basisAlignments`).
 */
export function summariseBases(gathered: Gathered, bases: Bases, q: Float64Array): Alignments {
  if (areDomains(bases)) {
    const own = summarise(gathered, bases.domains.length);
    const of = (values: Float64Array): Float64Array => Float64Array.from(bases.columns, (i) => values[i]);
    return {
      ...own,
      alignments: of(own.alignments),
      standardErrors: Array.from(bases.columns, (i) => own.standardErrors?.[i] ?? null),
      norms: own.norms === null ? null : of(own.norms),
      tokens: of(own.tokens),
      losses: of(own.losses),
    };
  }
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
    // Checkpoints from before there were pairs have none.
    const value = given.get(name) ?? (name.startsWith("pair") ? [] : undefined);
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
  for (const name of ["pairDots", "pairTokens"] as const)
    if (out[name].length !== out.pairDomains.length)
      throw wrong(`${out[name].length} ${name} for ${out.pairDomains.length} pairs`);
  for (const domain of [...out.domainOf, ...out.pairDomains])
    if (!Number.isInteger(domain) || domain < 0 || domain >= k)
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
