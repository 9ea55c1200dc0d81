/** A cell: one run as plain data, and what came of it. Everything that decides the numbers stands in the cell, except the text, which has a hash of its own. */
import { createHash } from "node:crypto";
import { mixerDefaults } from "#dist/dga/mixer.js";
import { alignmentDefaults } from "#dist/dga/trainer-options.js";
import type { AlignmentOptions, CombinatorOptions } from "gradmix/dga";

/** How weights are found. */
export interface Method {
  /**
   * A rule by its options. The text "histogram" in place of numbers stands for the target's histogram over the domains (one number per domain), "counts" for a simpler one, "sizes" for the domains' tokens, "tokens" for those of the run.
   */
  readonly rule: Readonly<Record<string, unknown>> & { readonly name: string };
  readonly combinators?: readonly CombinatorOptions[];
  readonly alignment?: Pick<
    AlignmentOptions,
    "estimator" | "from" | "domainExamples" | "targetExamples" | "refreshEvery" | "measureEvery"
  >;
  readonly updateEvery?: number;
  /** The rule's "domains" are the histograms of these targets over the domains, and their sizes as one more. */
  readonly bases?: readonly string[];
  /** Raised when the library's default changes, so that what was measured before is measured again. */
  readonly revision?: number;
}

export interface Cell {
  readonly text: {
    readonly vocabulary: number;
    /** Files of `domains/`, without their endings. */
    readonly domains: readonly string[];
    /** Training tokens of each domain, at most; null: all. */
    readonly cap: number | null;
    /** Cuts all of that text anew: clusters of windows by what is in them, or pieces of equal length in the order of the text. */
    readonly cut?: { readonly by: "clusters" | "pieces"; readonly count: number };
    /** A file of `targets/`; null when a run has no target. */
    readonly target: string | null;
    /** Training tokens of the target, at most; null: all. */
    readonly targetTokens: number | null;
  };
  readonly method: Method;
  readonly model: {
    readonly dim: number;
    readonly layers: number;
    readonly heads: number;
    readonly context: number;
  };
  readonly steps: number;
  readonly batch: number;
  readonly lr: number;
  readonly seed: number;
  /** Steps with uniform weights before the method begins. */
  readonly before?: number;
  /** Questions of each kind that the model is asked in the end. */
  readonly questions?: number;
  /** Targets whose training text the model is evaluated on in the end. */
  readonly probes?: readonly string[];
}

/** Shares of questions answered rightly, by where the wrong continuations are from; null where the text has no such questions. */
export interface Accuracy {
  readonly document: number | null;
  readonly target: number | null;
  readonly domain: number | null;
}

export interface Result {
  /** Domains, after the text was cut. */
  readonly domains: number;
  /** On held-out text of the target, nats per token. */
  readonly loss: number | null;
  readonly curve: readonly { readonly step: number; readonly loss: number }[];
  /** By domain at some steps; of runs with many domains the last ones alone, or none (null). */
  readonly weights: readonly { readonly step: number; readonly weights: readonly number[] }[] | null;
  /** Epochs of the domain that was repeated most. */
  readonly epochs: number;
  /** Mean over domains of the loss on held-out text of each. */
  readonly outside: number;
  /** The same two before the method began. */
  readonly before: { readonly loss: number | null; readonly outside: number } | null;
  readonly accuracy: Accuracy | null;
  readonly probes: Readonly<Record<string, number>> | null;
  /** CPU time of the method's training steps, with all that they measure; evaluations are apart. */
  readonly cpuSeconds: number;
  readonly tokens: number;
}

/** A cell's name in the results: equal cells have equal keys, in whatever order their fields were written. */
export function keyOf(cell: Cell): string {
  return createHash("sha256").update(canonical(cell)).digest("hex").slice(0, 16);
}

/** Each cell once. */
export function distinct(cells: readonly Cell[]): Cell[] {
  return [...new Map(cells.map((cell) => [keyOf(cell), cell])).values()];
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value)
    .filter(([, entry]) => entry !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${canonical(entry)}`).join(",")}}`;
}

/** What the trainer and the mixer take where a method says nothing. */
const usual = { ...alignmentDefaults, ...mixerDefaults };
/** Share of a step of 64-token windows that every window's inner product with the target's gradient takes (`npm run bench -- alignment`). */
const STEP_SHARE = 0.0625;
/** What guards look at of each domain, and how many updates are from one time to the next. */
export const guarding = { tokens: 512, every: 3 };
const fixed: readonly string[] = ["uniform", "static", "temperature", "importanceSampling", "odm", "ado"];

/** CPU time of a training step with this method over a plain one, by counting the windows that pass through the model. */
export function predictedCost(cell: Cell, domains: number): number {
  const { combinators = [], updateEvery = usual.updateEvery } = cell.method;
  const guarded = combinators.some(({ name }) => name === "guard");
  // A forward pass of a window is a third of what a step does with it.
  const windows = (domains * guarding.tokens) / cell.model.context;
  const guards = guarded ? windows / (3 * cell.batch * guarding.every * updateEvery) : 0;
  return guards + costOfAligning(cell, domains);
}

function costOfAligning(cell: Cell, domains: number): number {
  const { rule, bases, alignment, updateEvery = usual.updateEvery } = cell.method;
  if (fixed.includes(rule.name)) return 1;
  const { domainExamples, targetExamples, refreshEvery, measureEvery } = { ...usual, ...alignment };
  const ofBatches = alignment?.from === "batch" || ["grape", "rnb"].includes(rule.name);
  if (!ofBatches)
    return (
      1 + STEP_SHARE / measureEvery + targetExamples / (cell.batch * Math.min(refreshEvery, updateEvery))
    );
  const windows = domainExamples * (bases === undefined ? domains : 16);
  return 1 + (windows + (rule.name === "rnb" ? 0 : targetExamples)) / (cell.batch * updateEvery);
}

/** CPU seconds: of a step of the base model (d 96, 3 layers, 16 windows of 64 tokens, 1,024 tokens in the vocabulary), and of what is around the steps. */
const seconds = { step: 0.083, run: 1, domain: 0.06, cut: 1.5, question: 0.02 };
const base = 96 ** 2 * 3 * 16 * 64;

/** CPU seconds, roughly. */
export function estimatedSeconds(cell: Cell): number {
  const { model, steps, before = 0, batch, text, questions = 0 } = cell;
  const size = (model.dim ** 2 * model.layers * batch * model.context) / base;
  const domains = text.cut?.count ?? text.domains.length;
  const around =
    seconds.run + seconds.domain * text.domains.length + (text.cut === undefined ? 0 : seconds.cut);
  return (
    around +
    size * (seconds.step * (steps * predictedCost(cell, domains) + before) + seconds.question * questions)
  );
}
