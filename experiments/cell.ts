/** A cell describes one run as plain data. It contains everything that determines the results, except the text, which has its own hash. */
import { createHash } from "node:crypto";
import {
  type AlignmentOptions,
  combine,
  type CombinatorOptions,
  createBases,
  createMixer,
  createRule,
  type Mixer,
  type RuleOptions,
} from "gradmix/dga";
import { isRuleName, ruleTraits } from "#dist/dga/rules/index.js";
import { GRADIENT, measuringPasses, updatesWithin } from "#dist/dga/cost.js";
import { parameterSpecs } from "#dist/nn/gpt.js";

/** How weights are found. */
export interface Method {
  /**
   * The options of a rule. In place of numbers, "histogram" stands for the target's histogram over the domains (one number per domain), "counts" for a simpler histogram, "sizes" for the tokens of the domains, and "tokens" for those of the run.
   */
  readonly rule: Readonly<Record<string, unknown>> & { readonly name: string };
  readonly combinators?: readonly CombinatorOptions[];
  /** "histogram" is that of this target, not of the run's own: a file of `targets/`. */
  readonly histogramOf?: string;
  /** Trains on the windows of each domain that resemble the target most, as the command does by default with `dga`. */
  readonly select?: true;
  /** Limits repetitions as the default of `dga` does. */
  readonly usualCap?: true;
  readonly alignment?: Pick<
    AlignmentOptions,
    | "estimator"
    | "from"
    | "domainExamples"
    | "targetExamples"
    | "refreshEvery"
    | "measureEvery"
    | "probes"
    | "blockShare"
  >;
  readonly updateEvery?: number;
  /** The rule's "domains" are these bases: the histograms of these targets over the domains, and the sizes of the domains as one more. */
  readonly bases?: readonly string[];
  /** Raised when the library's default changes, so that its cells run again. */
  readonly revision?: number;
}

export interface Cell {
  readonly text: {
    readonly vocabulary: number;
    /** Files of `domains/`, without their endings. */
    readonly domains: readonly string[];
    /** Training tokens of each domain, at most; null: all. */
    readonly cap: number | null;
    /**
     * Divides all of that text into other domains: clusters of windows with similar content, or pieces of equal length in the order of the text. Or
     * divides each domain into `count` parts, by how much its documents resemble the target.
     */
    readonly cut?: {
      readonly by: "clusters" | "pieces" | "documents by likeness";
      readonly count: number;
    };
    /** A file of `targets/`; null when a run has no target. */
    readonly target: string | null;
    /** Training tokens of the target, at most; null: all. */
    readonly targetTokens: number | null;
    /** The target's tokens are windows that are drawn at random for each seed, instead of the start of its text. */
    readonly targetDrawn?: true;
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
  /** Steps of the warm-up. */
  readonly warmup: number;
  readonly seed: number;
  /** Steps with uniform weights before the method begins. */
  readonly before?: number;
  /** Questions of each kind that the model answers at the end. */
  readonly questions?: number;
  /** Targets on whose training text the model is evaluated at the end. */
  readonly probes?: readonly string[];
}

/** Shares of questions with a right answer, by the source of the wrong continuations; null if the text has no such questions. */
export interface Accuracy {
  readonly document: number | null;
  readonly target: number | null;
  readonly domain: number | null;
}

export interface Result {
  /** Number of domains, after the text was divided. */
  readonly domains: number;
  /** On held-out text of the target, nats per token. */
  readonly loss: number | null;
  readonly curve: readonly { readonly step: number; readonly loss: number }[];
  /** By domain at some steps; with many domains, only those of the last step, or null. */
  readonly weights: readonly { readonly step: number; readonly weights: readonly number[] }[] | null;
  /** Epochs of the domain that was repeated most. */
  readonly epochs: number;
  /** Mean over the domains of the loss on their held-out text. */
  readonly outside: number;
  /** The same two losses before the method began. */
  readonly before: { readonly loss: number | null; readonly outside: number } | null;
  readonly accuracy: Accuracy | null;
  readonly probes: Readonly<Record<string, number>> | null;
  /** CPU time of the method's training steps with their measurements, without evaluations. */
  readonly cpuSeconds: number;
  readonly tokens: number;
}

/** Returns a cell's name in the results. Equal cells have equal keys, whatever the order of their fields. */
export function keyOf(cell: Cell): string {
  return createHash("sha256").update(canonical(cell)).digest("hex").slice(0, 16);
}

/** Returns each cell once. */
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

/** Tokens of each domain on which a guard evaluates, and the number of updates between two evaluations. */
export const guarding = { tokens: 512, every: 3 };

/** Returns the computation of a training step with this method, divided by that of a plain one, as the library counts it before a run (`dga/cost.ts`), with the evaluations of guards. */
export function predictedCost(cell: Cell, domains: number): number {
  const { method, model, steps, batch } = cell;
  const names = Array.from({ length: domains }, (_, i) => `domain ${i}`);
  const rows = [...(method.bases ?? []), "all text"].map((name) => [name, names.map(() => 1)] as const);
  const bases = method.bases === undefined ? null : createBases(new Map(rows), names, { counts: true });
  const mixer = plannedMixer(cell, bases?.names ?? names);
  const training = GRADIENT * batch * steps;
  const { targets } = method.rule;
  const measured = measuringPasses({
    ...{ mixer, bases, steps, batch, time: model.context },
    specs: parameterSpecs({ vocabSize: cell.text.vocabulary, ...model }),
    alignment: method.alignment ?? {},
    targets: Array.isArray(targets) ? targets.length : 0,
  });
  const guarded = (method.combinators ?? []).some(({ name }) => name === "guard");
  const windows = (domains * guarding.tokens) / model.context;
  const guards = guarded ? (windows * updatesWithin(mixer, steps)) / guarding.every : 0;
  return 1 + (measured + guards) / training;
}

/** Returns the mixer of a method before the text is known, with arbitrary numbers in place of those of the text. */
function plannedMixer({ method, model, steps, batch }: Cell, names: readonly string[]): Mixer {
  const tokens = steps * batch * model.context;
  // Most of the target resembles one domain, so that the others are measured by probes.
  const [shares, sizes] = [names.map((_, i) => (i === 0 ? 1 : 0)), names.map(() => tokens)];
  const numbers: Readonly<Record<string, unknown>> = { histogram: shares, counts: shares, sizes, tokens };
  const options = Object.entries(method.rule).map(([option, value]) => [
    option,
    typeof value === "string" && option !== "name" ? (numbers[value] ?? value) : value,
  ]);
  const { name } = method.rule;
  // The cost does not depend on the values of fixed weights, which may not be known yet.
  const fixed = isRuleName(name) && ruleTraits(name).fixed === true;
  const rule = createRule(fixed ? { name: "uniform" } : (Object.fromEntries(options) as RuleOptions));
  const { combinators = [], updateEvery } = method;
  return createMixer({
    domains: names,
    rule: combine(rule, combinators, { sizes, tokens }),
    ...(updateEvery === undefined ? {} : { updateEvery }),
  });
}

/** CPU seconds of a step of the base model (d 96, 3 layers, 16 windows of 64 tokens, a vocabulary of 1,024), and of the work before and after the steps. */
const seconds = { step: 0.07, run: 1, domain: 0.06, cut: 1.5, question: 0.02 };
const base = 96 ** 2 * 3 * 16 * 64;

/** Returns the largest number of domains into which the text is divided. */
export function domainCount({ domains, cut }: Cell["text"]): number {
  if (cut === undefined) return domains.length;
  return cut.by === "clusters" || cut.by === "pieces" ? cut.count : cut.count * domains.length;
}

/** Returns roughly the CPU seconds of a cell. */
export function estimatedSeconds(cell: Cell): number {
  const { model, steps, before = 0, batch, text, questions = 0 } = cell;
  const size = (model.dim ** 2 * model.layers * batch * model.context) / base;
  const domains = domainCount(text);
  const around =
    seconds.run + seconds.domain * text.domains.length + (text.cut === undefined ? 0 : seconds.cut);
  return (
    around +
    size * (seconds.step * (steps * predictedCost(cell, domains) + before) + seconds.question * questions)
  );
}
