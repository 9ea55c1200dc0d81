/** The options of a trainer, and every check of them that is possible before anything is allocated. */
import type { Dataset } from "../data/dataset.ts";
import type { SamplingMode } from "../data/sampler.ts";
import { commonTime } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import { checkSameKind, concatenate } from "../nn/examples.ts";
import { checkModel, type Examples, type Model, type TokenBatch } from "../nn/model.ts";
import type { Optimizer } from "../nn/optimizer.ts";
import type { Parameters, ParameterSpec } from "../nn/parameters.ts";
import type { Schedule } from "../nn/schedules.ts";
import {
  callback,
  checkOptions,
  integerIn,
  numberIn,
  object,
  oneOf,
  orNull,
  required,
  show,
  valueThat,
  withDefaults,
} from "../options.ts";
import { alignmentDefaults, type AlignmentOptions, estimatorNames } from "./alignment-options.ts";
import { type Bases, checkBases } from "./bases.ts";
import type { LossScaleOptions } from "./loss-scale.ts";
import { checkMixer, type Mixer, mixerDefaults } from "./mixer.ts";
import { checkOptionSet, listed, measuredFrom, planOf, targetRefreshes } from "./plan.ts";
import { inBlockShare } from "./selection.ts";

/** Alignment options with their defaults. */
export type ResolvedAlignment = typeof alignmentDefaults &
  Pick<AlignmentOptions, "parameters"> & { readonly from: "batch" | "step" };

/** The alignment options of a trainer with their defaults, some of which depend on the mixer. */
export function resolveAlignment(
  options: AlignmentOptions | undefined,
  { rule, updateEvery }: Mixer,
): ResolvedAlignment {
  const from = measuredFrom(options ?? {}, planOf(rule.needs));
  const usual = withDefaults({ ...mixerDefaults, ...alignmentDefaults }, rule.schedule);
  const { measureEvery, probes, blockShare } = usual;
  const resolved = withDefaults({ ...alignmentDefaults, measureEvery, probes }, options);
  if (from === "batch") return { ...resolved, from };
  const fewer = (count: number, every: number, than: number): number =>
    count === 0 ? 0 : Math.max(1, Math.round(count * Math.min(1, every / than)));
  const targetExamples = fewer(
    alignmentDefaults.targetExamples,
    updateEvery / targetRefreshes(updateEvery, resolved),
    alignmentDefaults.refreshEvery,
  );
  return {
    ...resolved,
    from,
    ...withDefaults(
      { targetExamples, probes: fewer(probes, updateEvery, usual.updateEvery), blockShare },
      options,
    ),
  };
}

/** Selects the parameters that are aligned, by name; undefined for all of them. */
export function alignedParameters(
  { parameters, blockShare }: ResolvedAlignment,
  specs: readonly ParameterSpec[],
): ResolvedAlignment["parameters"] {
  return parameters ?? inBlockShare(specs, blockShare) ?? undefined;
}

/** Held-out text that is measured for rules that need held-out losses. */
export interface HeldOutOptions<B extends Examples = TokenBatch> {
  /** Held-out examples, which are not trained on, of each domain of the mixer, in its order; null for a domain that is not measured. */
  readonly sets: readonly (Dataset<B> | null)[];
  /** Measures the first examples of each set that hold this many tokens. Default 2048. */
  readonly tokens?: number;
  /** Number of weight updates between two measurements. Default 1. */
  readonly every?: number;
}

export const heldOutDefaults = { tokens: 2048, every: 1 };

/** Options of `createTrainer`. B is the type of batch that the domains supply and the model accepts: windows of tokens for a GPT. */
export interface TrainerOptions<B extends Examples = TokenBatch> {
  /** The model to train. The trainer changes its parameters but does not dispose them. */
  readonly model: Model<NoInfer<B>>;
  /** The rule and its domains, made by `createMixer`. */
  readonly mixer: Mixer;
  /** Training examples of each domain of the mixer, in its order. Text with the name of another of its domains is refused. */
  readonly domains: readonly Dataset<B>[];
  /** Examples of the target to align with; null for rules that need no target, which ignore it. */
  readonly target: Dataset<NoInfer<B>> | null;
  /** Examples of several targets by name, for rules that need several targets; other rules ignore them. The order is that of the rule's option `targets`. */
  readonly targets?: ReadonlyMap<string, Dataset<NoInfer<B>>>;
  /**
   * Reference model for rules that need reference losses, measured on the examples of the training steps and on those of `heldOut`. Without it, the
   * held-out references are the losses of the model before the first step. Other rules ignore it. The caller disposes it.
   */
  readonly reference?: Model<NoInfer<B>>;
  /** Held-out examples for rules that need held-out losses; other rules ignore them. */
  readonly heldOut?: HeldOutOptions<NoInfer<B>>;
  /** Basis distributions over `domains`. The "domains" of the mixer are then these bases, and domains are drawn with α = Σ wⱼ pⱼ. Default: none. */
  readonly bases?: Bases;
  /** Examples per training step. */
  readonly batch: number;
  /** Learning rate per step, made by `createSchedule`. */
  readonly schedule: Schedule;
  /** Makes the optimizer; the trainer disposes it. Default: `adamw` with its defaults. */
  readonly optimizer?: (parameters: Parameters) => Optimizer;
  /** How alignments are measured. Every option has a default. */
  readonly alignment?: AlignmentOptions;
  /** Options of dynamic loss scaling, for a backend whose matrix products are in f16. Default null: no loss scaling. */
  readonly lossScale?: LossScaleOptions | null;
  /** How domains are drawn; see `SamplingMode`. Default "multinomial". */
  readonly sampling?: SamplingMode;
  /** Seed of the order in which examples are drawn. */
  readonly seed: number;
}

/**
 * Throws `config`, naming the option, for options that are invalid or do not fit together, and `data`, naming the domain, for examples that do not
 * fit into one batch or that the model refuses (`Model.check`).
 */
export function checkTrainer<B extends Examples>(options: TrainerOptions<B>): void {
  checkOptions("createTrainer", options, {
    model: required(checkModel),
    mixer: required(checkMixer),
    domains: required(
      valueThat("a list of datasets", (value) => Array.isArray(value) && value.every(isDataset)),
    ),
    target: required(orNull(valueThat("a dataset, such as windowsOf makes", isDataset))),
    targets: valueThat(
      "a Map from names to datasets",
      (value) => value instanceof Map && [...value.values()].every(isDataset),
    ),
    reference: checkModel,
    heldOut: object,
    bases: checkBases,
    batch: required(integerIn(1)),
    schedule: required(callback),
    optimizer: valueThat(
      "a function from parameters to an optimizer, such as (parameters) => adamw(parameters)",
      (value) => typeof value === "function",
    ),
    alignment: object,
    // lossScaleOptions checks its contents.
    lossScale: orNull(object),
    sampling: oneOf("multinomial", "systematic"),
    seed: required(integerIn(0)),
  });
  if (options.heldOut !== undefined) checkHeldOut("createTrainer: heldOut", options.heldOut);
  if (options.alignment !== undefined) checkAlignment("createTrainer: alignment", options.alignment);
  checkOptionSet(options);
  const { model, mixer, bases, reference, domains, target, targets, heldOut } = options;
  if (heldOut !== undefined && heldOut.sets.length !== mixer.domains.length)
    throw new GradmixError(
      "config",
      `createTrainer: heldOut: ${heldOut.sets.length} sets for ${mixer.domains.length} domains`,
    );
  const sets = heldOut?.sets.filter((set) => set !== null) ?? [];
  if (heldOut !== undefined && sets.length === 0)
    throw new GradmixError(
      "config",
      "createTrainer: heldOut: every set is null, so nothing would be measured; give the examples of one domain or more",
    );
  if (domains.length === 0) throw new GradmixError("config", "createTrainer: at least one domain is needed");
  checkOrder(domains, bases === undefined ? mixer.domains : bases.domains);
  checkTogether(domains);
  checkSameKinds(domains, [
    ...(target === null ? [] : [{ what: "the target", source: target }]),
    ...Array.from(targets ?? [], ([name, source]) => ({ what: `the target ${show(name)}`, source })),
    ...(heldOut?.sets ?? []).flatMap((source, i) =>
      source === null ? [] : [{ what: `the held-out set of ${show(mixer.domains[i])}`, source }],
    ),
  ]);
  for (const source of [
    ...domains,
    ...(target === null ? [] : [target]),
    ...(targets?.values() ?? []),
    ...sets,
  ])
    model.check?.(source);
  for (const source of [...domains, ...sets]) aboutReference(() => reference?.check?.(source));
}

/**
 * Throws `config` if a domain has the name that `names` gives to another one, because domains are matched by their position, and the text of one
 * would silently get the weight of the other. Other names are only labels of the text and may differ.
 */
function checkOrder(domains: readonly { readonly name: string }[], names: readonly string[]): void {
  const places = new Map(names.map((name, i) => [name, i]));
  for (const [i, { name }] of domains.entries()) {
    const place = places.get(name);
    if (place !== undefined && place !== i && domains[place]!.name !== name)
      throw new GradmixError(
        "config",
        `createTrainer: domains[${i}] is the text of ${show(name)}, but the mixer's domain ${i} is ${show(names[i])}; give the domains in the order of the mixer: ${listed(names)}`,
      );
  }
}

/** Throws `data`, naming two domains, unless one batch can hold examples of all of them. */
function checkTogether<B extends Examples>(domains: readonly Dataset<B>[]): void {
  commonTime(domains);
  const [first, ...others] = domains.filter(({ count }) => count > 0);
  if (first === undefined) return;
  for (const other of others)
    try {
      concatenate([first.batchOf([0]), other.batchOf([0])]);
    } catch (error) {
      if (!(error instanceof GradmixError)) throw error;
      throw new GradmixError(
        "data",
        `"${first.name}" and "${other.name}" cannot be drawn into one batch: ${error.message}`,
        { cause: error },
      );
    }
}

/** Throws `data`, naming what is measured, unless its examples are of the same kind as those of the domains. */
function checkSameKinds<B extends Examples>(
  domains: readonly Dataset<B>[],
  measured: readonly { readonly what: string; readonly source: Dataset<B> }[],
): void {
  const domain = domains.find(({ count }) => count > 0);
  const first = domain?.batchOf([0]);
  if (domain === undefined || first === undefined) return;
  for (const { what, source } of measured) {
    if (source.count === 0) continue;
    try {
      checkSameKind(first, source.batchOf([0]));
    } catch (error) {
      if (!(error instanceof GradmixError)) throw error;
      throw new GradmixError(
        "data",
        `createTrainer: ${what} (${show(source.name)}) does not fit the domain ${show(domain.name)}: ${error.message}`,
        { cause: error },
      );
    }
  }
}

/** Adds to an error of the reference model that it is about the reference model. */
function aboutReference(check: () => void): void {
  try {
    check();
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    throw new GradmixError(error.code, `reference: ${error.message}`, { cause: error });
  }
}

function isDataset(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    ["name", "count", "tokensOf", "batchOf"].every((name) => name in value)
  );
}

/** Throws `config`, naming the option. */
function checkHeldOut(where: string, heldOut: object): void {
  checkOptions<HeldOutOptions<Examples>>(where, heldOut as HeldOutOptions<Examples>, {
    sets: required(
      valueThat(
        "a list of datasets and nulls",
        (value) => Array.isArray(value) && value.every((set) => set === null || isDataset(set)),
      ),
    ),
    tokens: integerIn(1),
    every: integerIn(1),
  });
}

/** Throws `config`, naming the option. */
function checkAlignment(where: string, alignment: AlignmentOptions): void {
  checkOptions(where, alignment, {
    estimator: oneOf(...estimatorNames),
    from: oneOf("batch", "step"),
    domainExamples: integerIn(1),
    targetExamples: integerIn(1),
    refreshEvery: integerIn(1),
    measureEvery: integerIn(1),
    probes: integerIn(0),
    blockShare: numberIn({ min: 0, max: 1 }),
    parameters: callback,
    bases: oneOf("shared", "direct"),
  });
}
