/** A mixture as plain data, found by a run or written by hand. */
import { GradmixError } from "../errors.ts";
import { liesOnSimplex } from "../dga/simplex.ts";
import {
  checkOptions,
  integerIn,
  list,
  numberIn,
  object,
  oneOf,
  type OptionChecks,
  orNull,
  required,
  show,
  string,
  unchecked,
  valueThat,
} from "../options.ts";

/** A domain of a mixture. */
export interface MixtureDomain {
  /** Name of the domain. */
  readonly name: string;
  /** Share of the training tokens; the shares of all domains sum to 1. */
  readonly weight: number;
  /** Tokens of its training text; null if unknown. */
  readonly tokens: number | null;
  /** Mean length of a document in tokens; null if unknown. */
  readonly documentTokens: number | null;
  /** Paths at which the trainer finds the domain's data: prefixes, folders, files or globs, as the trainer accepts them. */
  readonly paths: readonly string[];
}

/** A part of the run with its own weights. */
export interface MixtureStage {
  /** Training tokens before the stage starts. The first stage starts at 0, and each ends where the next one starts. */
  readonly start: number;
  /** Shares of the training tokens, in the order of the domains. */
  readonly weights: readonly number[];
}

/** Weights of domains, with facts about the run that found them. */
export interface Mixture {
  /** The domains with their weights. */
  readonly domains: readonly MixtureDomain[];
  /** Weights that change during the run; null if those of `domains` hold throughout. */
  readonly stages: readonly MixtureStage[] | null;
  /** Training tokens of the run. */
  readonly tokens: number;
  /** Tokens per window of the run. */
  readonly context: number;
  /** Windows per step of the run. */
  readonly batch: number;
  /** How many times the run may repeat a domain; null if this was not limited. */
  readonly repetitions: number | null;
  /** Losses at the end of the run by the name of the text, lower is better. */
  readonly metrics: ReadonlyMap<string, number>;
  /** Where the mixture comes from. */
  readonly source: MixtureSource;
}

/** The source of a mixture; every exported file states it. */
export interface MixtureSource {
  /** Version of gradmix. */
  readonly gradmix: string;
  /** Name of the run. */
  readonly run: string;
  /** Number of training steps done. */
  readonly step: number;
  /** Name of the rule that found the weights. */
  readonly rule: string;
  /** Which weights of the run these are. */
  readonly weights: WeightsKind;
}

/** Kinds of weights of a run. `final`: those of the last step. `averaged`: the mean over the steps. `stages`: the averaged weights and those of each stage. */
export type WeightsKind = "final" | "averaged" | "stages";

/**
 * The default kind of weights. The averaged weights are the shares on which the run was trained, so its final losses and its limits of repetition
 * belong to them; docs/trainers.md has the measurement.
 */
export const recommendedWeights = "averaged";

/** Its value is checked together with others. */
const present = required((name, value) => unchecked(name, value));

const mixtureChecks: OptionChecks<Mixture> = {
  domains: required(list),
  stages: required(orNull(list)),
  ...{ tokens: present, context: present, batch: present },
  repetitions: required(orNull(numberIn({ min: 0, openMin: true }))),
  metrics: required(
    valueThat(
      "a Map from names of texts to losses",
      (value) =>
        value instanceof Map &&
        Array.from(value).every(([text, loss]) => typeof text === "string" && typeof loss === "number"),
    ),
  ),
  source: required(object),
};
const domainChecks: OptionChecks<MixtureDomain> = {
  ...{ name: present, weight: present, tokens: present, documentTokens: present },
  paths: required(list),
};
const stageChecks: OptionChecks<MixtureStage> = {
  start: required(valueThat("a number of tokens", (value) => typeof value === "number")),
  weights: required(list),
};
const sourceChecks: OptionChecks<MixtureSource> = {
  gradmix: required(string),
  run: required(string),
  step: required(integerIn(0)),
  rule: required(string),
  weights: required(oneOf("final", "averaged", "stages")),
};

/** Throws `config`, naming the part, for data that is not a mixture. */
export function checkMixture(mixture: Mixture): void {
  const invalid = (what: string): GradmixError => new GradmixError("config", `mixture: ${what}`);
  checkOptions("mixture", mixture, mixtureChecks);
  const { domains, stages, source } = mixture;
  for (const [i, domain] of domains.entries()) checkOptions(`mixture: domains[${i}]`, domain, domainChecks);
  for (const [i, stage] of (stages ?? []).entries())
    checkOptions(`mixture: stages[${i}]`, stage, stageChecks);
  checkOptions("mixture: source", source, sourceChecks);
  if (domains.length === 0) throw invalid("it has no domain");
  const names = new Set<string>();
  for (const { name, tokens, documentTokens, paths } of domains) {
    if (typeof name !== "string" || name === "") throw invalid("a domain has no name");
    if (names.has(name)) throw invalid(`two domains have the name ${show(name)}`);
    names.add(name);
    for (const [what, value] of Object.entries({ tokens, documentTokens }))
      if (value !== null && !(value > 0 && Number.isFinite(value)))
        throw invalid(`${what} of ${show(name)} is ${show(value)}, not a number above 0`);
    if (paths.some((path) => typeof path !== "string" || path === ""))
      throw invalid(`a path of ${show(name)} is empty`);
  }
  if (stages?.length === 0) throw invalid("the list of stages is empty; use null for constant weights");
  const rows = [domains.map(({ weight }) => weight), ...(stages ?? []).map(({ weights }) => weights)];
  if (rows.some((weights) => weights.length !== domains.length || !liesOnSimplex(weights)))
    throw invalid("the weights must be numbers of at least 0 that sum to 1, one per domain");
  for (const name of ["tokens", "context", "batch"] as const)
    if (!(mixture[name] > 0 && Number.isFinite(mixture[name])))
      throw invalid(`${name} is ${show(mixture[name])}, not a number above 0`);
  const starts = (stages ?? []).map(({ start }) => start);
  if (
    starts.some((start, i) => (i === 0 ? start !== 0 : !(start > starts[i - 1]! && start < mixture.tokens)))
  )
    throw invalid(
      `the stages start at ${starts.join(", ")}: not at 0 and then in ascending order within ${mixture.tokens} tokens`,
    );
}
