/** A mixture to take elsewhere, as plain data: what a run found, or what anyone makes by hand. */
import { GradmixError } from "../errors.ts";
import { liesOnSimplex } from "../dga/simplex.ts";
import { show } from "../options.ts";

/** A domain of a mixture. */
export interface MixtureDomain {
  /** Name of the domain. */
  readonly name: string;
  /** Share of the training tokens. Those of all domains sum to 1. */
  readonly weight: number;
  /** Tokens that there are to train on; null where that is not known. */
  readonly tokens: number | null;
  /** Mean length of a document, in tokens; null where that is not known. */
  readonly documentTokens: number | null;
  /** Where the trainer finds the domain's data: a prefix, folder, file or glob, as the trainer takes it. */
  readonly paths: readonly string[];
}

/** A part of the run with weights of its own. */
export interface MixtureStage {
  /** Where it starts: training tokens seen by then. The first starts at 0, and each ends where the next starts. */
  readonly start: number;
  /** Shares of the training tokens, in the order of the domains. */
  readonly weights: readonly number[];
}

/** Weights of domains, and what is known of the run that found them. */
export interface Mixture {
  /** The domains with their weights. */
  readonly domains: readonly MixtureDomain[];
  /** Weights that change during the run; null where those of the domains hold throughout. */
  readonly stages: readonly MixtureStage[] | null;
  /** Training tokens of the run that the mixture is of. */
  readonly tokens: number;
  /** Tokens in a window, and windows in a step, of that run. */
  readonly context: number;
  /** Windows in a step of that run. */
  readonly batch: number;
  /** How often a domain may be repeated in that run; null where it was not limited. */
  readonly repetitions: number | null;
  /** Losses at the end of the run, lower is better, by what they are of. */
  readonly metrics: ReadonlyMap<string, number>;
  /** Where the mixture comes from. */
  readonly source: MixtureSource;
}

/** Where a mixture comes from: every exported file says so. */
export interface MixtureSource {
  /** Version of gradmix. */
  readonly gradmix: string;
  /** Name of the run. */
  readonly run: string;
  /** Steps done. */
  readonly step: number;
  /** Name of the rule that found the weights. */
  readonly rule: string;
  /** Which weights of the run they are. */
  readonly weights: WeightsKind;
}

/** `final`: of the last step. `averaged`: mean over the steps. `stages`: the averaged, and those of each stage. */
export type WeightsKind = "final" | "averaged" | "stages";

/**
 * Which weights of a run are taken where nothing is said. The averaged are the shares that the run was trained on, so that what it reached and the limits of repetition that it
 * kept to belong to them; docs/trainers.md has the measurement.
 */
export const recommendedWeights = "averaged";

/** Throws `config`, naming the part, for data that is no mixture. */
export function checkMixture(mixture: Mixture): void {
  const wrong = (what: string): GradmixError => new GradmixError("config", `mixture: ${what}`);
  const { domains, stages } = mixture;
  const names = new Set<string>();
  for (const { name, tokens, documentTokens, paths } of domains) {
    if (typeof name !== "string" || name === "") throw wrong("a domain has no name");
    if (names.has(name)) throw wrong(`the name ${show(name)} stands twice`);
    names.add(name);
    for (const [what, value] of Object.entries({ tokens, documentTokens }))
      if (value !== null && !(value > 0 && Number.isFinite(value)))
        throw wrong(`${what} of ${show(name)} is ${show(value)}, not a number above 0`);
    if (paths.some((path) => typeof path !== "string" || path === ""))
      throw wrong(`a path of ${show(name)} is empty`);
  }
  if (stages?.length === 0) throw wrong("the list of stages is empty; null stands for weights that stay");
  const rows = [domains.map(({ weight }) => weight), ...(stages ?? []).map(({ weights }) => weights)];
  if (rows.some((weights) => weights.length !== domains.length || !liesOnSimplex(weights)))
    throw wrong("the weights are not numbers of at least 0 that sum to 1, one for each domain");
  for (const name of ["tokens", "context", "batch"] as const)
    if (!(mixture[name] > 0 && Number.isFinite(mixture[name])))
      throw wrong(`${name} is ${show(mixture[name])}, not a number above 0`);
  const starts = (stages ?? []).map(({ start }) => start);
  if (
    starts.some((start, i) => (i === 0 ? start !== 0 : !(start > starts[i - 1]! && start < mixture.tokens)))
  )
    throw wrong(
      `the stages start at ${show(starts)}: not at 0 and then in ascending order within ${mixture.tokens} tokens`,
    );
}
