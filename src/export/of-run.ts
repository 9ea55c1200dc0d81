/** Makes the mixture of a run from the files in its folder. */
import { GradmixError } from "../errors.ts";
import {
  checkOptions,
  integerIn,
  oneOf,
  type OptionChecks,
  orNull,
  valueThat,
  objectWith,
} from "../options.ts";
import { bitsPerByte, type RunFacts, type TextFacts } from "../runs/facts.ts";
import type { NamedWeights, StepMetrics } from "../runs/lines.ts";
import type { RunRecord } from "../runs/record.ts";
import { shellWord } from "../shell-word.ts";
import { plainDecimal } from "./decimals.ts";
import { type Mixture, type MixtureDomain, type MixtureStage, recommendedWeights } from "./mixture.ts";
import { fitStages } from "./stages.ts";

/** Options of `mixtureOfRun`. */
export interface OfRunOptions {
  /** Which weights of the run to take. Default: `recommendedWeights`. */
  readonly weights?: "final" | "averaged";
  /** Number of stages into which the changing weights of the run are divided. Default null: one mixture for the whole run. */
  readonly stages?: number | null;
  /** Paths at which the trainer finds each domain's data. Default: none. */
  readonly paths?: ReadonlyMap<string, readonly string[]>;
}

const checks: OptionChecks<OfRunOptions> = {
  weights: oneOf("final", "averaged"),
  stages: orNull(integerIn(1)),
  paths: valueThat("a Map of paths by domain", (value) => value instanceof Map),
};

/** Makes the mixture of a run. Throws `data` for a run that has no weights yet or is incomplete, and `config` for stages that cannot be made. */
export function mixtureOfRun(
  run: RunRecord,
  options: OfRunOptions = {},
): {
  /** The mixture, for `exportMixture`. */
  mixture: Mixture;
  /** Lines for the user on how the mixture was made. */
  notes: readonly string[];
} {
  objectWith("the record of a run", "folder", "facts", "steps", "weights")("mixtureOfRun: run", run);
  const { folder, name, facts, steps, weights } = run;
  checkOptions("mixtureOfRun", options, checks);
  const { weights: kind = recommendedWeights, stages: count = null, paths = new Map() } = options;
  const last = steps.at(-1);
  if (weights !== null && last === undefined)
    throw new GradmixError(
      "data",
      `${folder}: has weights.json, but metrics.jsonl has no line of a step; restore metrics.jsonl, or copy the whole folder again`,
    );
  if (weights === null || last === undefined)
    throw new GradmixError(
      "data",
      `${folder}: has no weights yet (weights.json is written when a run ends or is stopped); wait for its end, or continue it with gradmix train --resume ${shellWord(folder)}`,
    );
  const chosen = weights[kind];
  const domains = domainsOf(facts, chosen, paths, folder);
  const staged = count === null ? null : stagesOf(facts, steps, weights, count, folder);
  const mixture: Mixture = {
    domains,
    stages: staged?.stages ?? null,
    tokens: last.tokens,
    context: facts.context,
    batch: facts.batch,
    // The limit of a run with bases holds for each basis, and not for the domains.
    repetitions: facts.bases === null ? facts.repetitions : null,
    metrics: metricsOf(facts, steps),
    source: {
      gradmix: facts.gradmix,
      run: name,
      step: last.step,
      rule: facts.rule,
      weights: staged === null ? kind : "stages",
    },
  };
  return { mixture, notes: [...(staged?.notes ?? []), ...selectionNotes(facts)] };
}

function domainsOf(
  { domains }: RunFacts,
  weights: ReadonlyMap<string, number>,
  paths: ReadonlyMap<string, readonly string[]>,
  folder: string,
): MixtureDomain[] {
  const stranger = [...weights.keys()].find((name) => !domains.has(name));
  if (stranger !== undefined)
    throw new GradmixError(
      "data",
      `${folder}: weights.json has a weight for "${stranger}", which is not a domain of run.json; the files belong to different runs`,
    );
  return Array.from(domains, ([name, facts]) => {
    const weight = weights.get(name);
    if (weight === undefined)
      throw new GradmixError(
        "data",
        `${folder}: weights.json has no weight for the domain "${name}" of run.json; the files belong to different runs`,
      );
    return {
      name,
      weight,
      tokens: facts.tokens > 0 ? facts.tokens : null,
      documentTokens: documentTokens(facts),
      paths: paths.get(name) ?? [],
    };
  });
}

function documentTokens({ tokens, heldOutTokens, documents }: TextFacts): number | null {
  return documents > 0 && tokens + heldOutTokens > 0 ? (tokens + heldOutTokens) / documents : null;
}

/** What the weights do not say about a run that was trained on selected windows. */
function selectionNotes({ selected }: RunFacts): string[] {
  const shares = [...(selected?.values() ?? [])];
  if (shares.length === 0) return [];
  const [least, most] = [Math.min(...shares), Math.max(...shares)].map((share) => (100 * share).toFixed(0));
  return [
    `the run was trained on the ${least === most ? least : `${least} to ${most}`} % of each domain's windows that resemble its target most, but the weights are those of whole domains; for a mixture that holds without a selection, train with --select 1, and for one of selected text, divide the domains first with gradmix divide and train on the parts with --select 1`,
  ];
}

/** Divides the weights of the run over time into stages. */
function stagesOf(
  facts: RunFacts,
  steps: readonly StepMetrics[],
  { averaged }: NamedWeights,
  count: number,
  folder: string,
): { stages: readonly MixtureStage[]; notes: readonly string[] } {
  if (facts.bases !== null)
    throw new GradmixError(
      "config",
      `${folder}: the run moved the weights of bases, and metrics.jsonl contains only those; leave out --stages`,
    );
  const names = [...facts.domains.keys()];
  let incomplete = false;
  const trajectory = steps.map(({ tokens, weights }, i) => {
    const missing = names.filter((name) => !weights.has(name));
    const known = names.reduce((sum, name) => sum + (weights.get(name) ?? 0), 0);
    // Domains that a line leaves out share the rest in proportion to their average weights.
    const average = missing.reduce((sum, name) => sum + (averaged.get(name) ?? 0), 0);
    if (missing.length > 0) incomplete = true;
    const rest = Math.max(0, 1 - known);
    const own = names.map(
      (name) =>
        weights.get(name) ??
        (average > 0 ? (rest * (averaged.get(name) ?? 0)) / average : rest / missing.length),
    );
    const total = own.reduce((sum, weight) => sum + weight, 0);
    return { tokens: tokens - (steps[i - 1]?.tokens ?? 0), weights: own.map((weight) => weight / total) };
  });
  const stages = fitStages(trajectory, count);
  return {
    stages,
    notes: [
      `${stages.length} ${stages.length === 1 ? "stage" : "stages"}, closest to the run's weights in KL, weighted by tokens; each has the mean weights of its part, and they start at ${stages.map(({ start }) => `${plainDecimal((100 * start) / (steps.at(-1)?.tokens ?? 1))} %`).join(", ")} of the run`,
      ...(stages.length < count
        ? [`the run's weights changed ${stages.length - 1} times, so there are fewer than ${count} stages`]
        : []),
      ...(incomplete
        ? [
            `metrics.jsonl has only the domains with the largest weights (of ${names.length}); the others share the rest in proportion to their average weights`,
          ]
        : []),
    ],
  };
}

/** The last evaluation, in bits per byte if the bytes are known, else in nats per token. */
function metricsOf(facts: RunFacts, steps: readonly StepMetrics[]): ReadonlyMap<string, number> {
  const metrics = new Map<string, number>();
  const addMetric = (
    name: string,
    text: TextFacts | null | undefined,
    loss: number | null | undefined,
  ): void => {
    if (loss === null || loss === undefined || text === null || text === undefined) return;
    const bits = bitsPerByte(text, loss);
    metrics.set(`${name}_${bits === null ? "loss" : "bpb"}`, bits ?? loss);
  };
  addMetric(
    "target",
    facts.target,
    steps.findLast(({ evaluation }) => evaluation !== undefined && evaluation.target !== null)?.evaluation
      ?.target,
  );
  const last = steps.findLast(({ evaluation }) => (evaluation?.domains.size ?? 0) > 0)?.evaluation;
  for (const [name, loss] of last?.domains ?? []) addMetric(name, facts.domains.get(name), loss);
  return metrics;
}
