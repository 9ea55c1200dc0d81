/** What training steps tell about the domains between two updates of their weights. Plain JSON, part of a checkpoint. */
import { GradmixError } from "../errors.ts";
import { type Bases } from "./bases.ts";
import type { Alignments } from "./passes.ts";
import { basisAlignments, type Examples } from "./reweighting.ts";
import { domainAlignments } from "./statistics.ts";

export interface Gathered {
  /** Counted tokens of every example, a list a domain, like those below. */
  tokens: number[][];
  /** Summed loss of the example. */
  losses: number[][];
  /** ⟨∇(summed loss of example), V⟩; empty for rules that do not align. */
  dots: number[][];
  /** ‖gradient of the example's mean loss‖². */
  squaredNorms: number[][];
  /** The reference model's summed loss of the example; empty without one. */
  referenceLosses: number[][];
  targetNorms: number[];
  targetLosses: number[];
}

export function nothing(k: number): Gathered {
  const lists = (): number[][] => Array.from({ length: k }, () => []);
  return {
    tokens: lists(),
    losses: lists(),
    dots: lists(),
    squaredNorms: lists(),
    referenceLosses: lists(),
    targetNorms: [],
    targetLosses: [],
  };
}

/** Mean losses per token by domain; 0 with 0 tokens for a domain that was never drawn. */
export function lossesOf(gathered: Gathered): {
  tokens: Float64Array;
  losses: Float64Array;
  referenceLosses: Float64Array;
} {
  const tokens = Float64Array.from(gathered.tokens, total);
  const perToken = (lists: readonly number[][]): Float64Array =>
    Float64Array.from(lists, (losses, i) => (tokens[i] > 0 ? total(losses) / tokens[i] : 0));
  return { tokens, losses: perToken(gathered.losses), referenceLosses: perToken(gathered.referenceLosses) };
}

/**
 * Alignments from what the steps gathered. A domain that was never drawn has 0 tokens, by which rules know that nothing was measured.
 *
 * The norm of a domain is here the root mean square of its single examples' gradients: unlike the norm of their mean it does not grow when few
 * are drawn, which would make a rare domain's cosine smaller and the domain rarer still.
 */
export function summarise(gathered: Gathered): Alignments {
  const { tokens, losses } = lossesOf(gathered);
  const measured = gathered.dots.map((dots, i) => domainAlignments(dots, gathered.tokens[i]));
  return {
    alignments: Float64Array.from(measured, ({ alignment }) => alignment),
    standardErrors: measured.map(({ standardError }) => standardError),
    norms: Float64Array.from(gathered.squaredNorms, (squares) => Math.sqrt(mean(squares))),
    tokens,
    targetNorm: mean(gathered.targetNorms),
    losses,
    targetLoss: mean(gathered.targetLosses),
  };
}

/** The bases' alignments from what the steps gathered, all of it drawn with the domain weights `q`. */
export function summariseBases(gathered: Gathered, bases: Bases, q: Float64Array): Alignments {
  const examples: Examples = {
    domainOf: gathered.tokens.flatMap((list, i) => list.map(() => i)),
    tokens: gathered.tokens.flat(),
    dots: gathered.dots.flat(),
    losses: gathered.losses.flat(),
    squaredNorms: gathered.squaredNorms.flat(),
  };
  const measured = basisAlignments(bases, q, examples);
  return {
    ...measured,
    norms: measured.norms ?? null,
    losses: measured.losses ?? new Float64Array(bases.names.length),
    targetNorm: mean(gathered.targetNorms),
    targetLoss: mean(gathered.targetLosses),
  };
}

/** Throws `checkpoint` unless it is what `nothing(k)` grew into. */
export function checkGathered(json: unknown, k: number): Gathered {
  const wrong = (): GradmixError =>
    new GradmixError("checkpoint", "checkpoint: what the steps gathered is malformed");
  if (typeof json !== "object" || json === null) throw wrong();
  const given = new Map<string, unknown>(Object.entries(json));
  const numbers = (value: unknown): number[] => {
    if (!Array.isArray(value)) throw wrong();
    return value.map((entry: unknown) => {
      if (typeof entry !== "number") throw wrong();
      return entry;
    });
  };
  const lists = (name: string): number[][] => {
    const value = given.get(name);
    if (!Array.isArray(value) || value.length !== k) throw wrong();
    return value.map(numbers);
  };
  return {
    tokens: lists("tokens"),
    losses: lists("losses"),
    dots: lists("dots"),
    squaredNorms: lists("squaredNorms"),
    referenceLosses: lists("referenceLosses"),
    targetNorms: numbers(given.get("targetNorms")),
    targetLosses: numbers(given.get("targetLosses")),
  };
}

export function total(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : total(values) / values.length;
}
