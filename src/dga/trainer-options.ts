/** The options of a trainer, and all that can be said about them before anything is made. */
import type { SamplingMode } from "../data/sampler.ts";
import { checkWindows, commonTime, type Windows } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import type { GPT } from "../nn/gpt.ts";
import type { AdamWOptions } from "../nn/optimizer.ts";
import type { Schedule } from "../nn/schedules.ts";
import {
  callback,
  checkOptions,
  integerIn,
  object,
  type OptionCheck,
  oneOf,
  orNull,
  required,
  valueThat,
} from "../options.ts";
import type { Bases } from "./bases.ts";
import { type EstimatorName, estimatorNames } from "./estimators.ts";
import type { LossScaleOptions } from "./loss-scale.ts";
import type { Mixer } from "./mixer.ts";
import type { EstimateOptions, LossModel } from "./passes.ts";
import { checkFit } from "./plan.ts";

export interface AlignmentOptions {
  /** Default "segmented". */
  readonly estimator?: EstimatorName;
  /** Default "batch". */
  readonly from?: "batch" | "step";
  /** Windows of each domain in an alignment batch. Default 4. */
  readonly domainExamples?: number;
  /** Windows of the target in an alignment. Default 16. */
  readonly targetExamples?: number;
  /** With `from: "step"`: steps between two refreshes of the target gradient, which is also refreshed after every update. Default 10. */
  readonly refreshEvery?: number;
  /** The parameters whose gradients are aligned. Default: all. */
  readonly parameters?: EstimateOptions["parameters"];
  /**
   * With bases: "shared" (default) draws one batch of 16·domainExamples windows for all of them and weighs them by importance, "direct" draws
   * domainExamples windows from each basis. Bases that are single domains are measured directly anyway: there is nothing to share. A shared batch, and the
   * training steps, do not tell the norm of a basis's gradient: cosines then divide by the root mean square of single examples' norms, which is larger.
   */
  readonly bases?: "shared" | "direct";
}

/** What `createTrainer` takes for alignments where nothing is said; all parameters are looked at. */
export const alignmentDefaults: Required<Omit<AlignmentOptions, "parameters">> = {
  estimator: "segmented",
  from: "batch",
  domainExamples: 4,
  targetExamples: 16,
  refreshEvery: 10,
  bases: "shared",
};

export interface TrainerOptions {
  readonly model: GPT;
  readonly mixer: Mixer;
  /** Training windows of each domain of the mixer, in its order. */
  readonly domains: readonly Windows[];
  /** Windows of the target to align with; null for rules that need none. */
  readonly target: Windows | null;
  /** Windows of several targets by name, for rules that ask for them. */
  readonly targets?: ReadonlyMap<string, Windows>;
  /** Gives the reference losses to rules that ask for them, on the rows of the training steps. Stays the caller's to dispose. */
  readonly reference?: LossModel;
  /** The mixer's "domains" are these bases over `domains`, which are drawn with α = Σ wⱼ pⱼ. */
  readonly bases?: Bases;
  /** Windows in a step. */
  readonly batch: number;
  readonly schedule: Schedule;
  readonly optimizer?: AdamWOptions;
  readonly alignment?: AlignmentOptions;
  /** Dynamic loss scaling, for a backend whose products are in f16. Default null: none. */
  readonly lossScale?: LossScaleOptions | null;
  readonly sampling?: SamplingMode;
  /** Of the order of the data. */
  readonly seed: number;
}

/**
 * Throws `config`, naming the option, for what there is not or does not fit together, and `data`, naming the domain, for windows of different lengths, windows
 * longer than the model's context and tokens outside of its vocabulary.
 */
export function checkTrainer(options: TrainerOptions): void {
  checkOptions("createTrainer", options, {
    model: required(thing("a model of createGPT", "config", "parameters", "losses")),
    mixer: required(thing("a mixer of createMixer", "rule", "domains", "updateEvery", "initial")),
    domains: required(
      valueThat("a list of windows", (value) => Array.isArray(value) && value.every(isWindows)),
    ),
    target: required(orNull(valueThat("windows, such as windowsOf makes", isWindows))),
    targets: valueThat(
      "a Map from names to windows",
      (value) => value instanceof Map && [...value.values()].every(isWindows),
    ),
    reference: thing("a model", "parameters", "losses"),
    bases: thing("bases of createBases", "names", "domains", "offsets"),
    batch: required(integerIn(1)),
    schedule: required(callback),
    // What is in them is checked by adamw and by lossScaleOptions.
    optimizer: object,
    alignment: object,
    lossScale: orNull(object),
    sampling: oneOf("multinomial", "systematic"),
    seed: required(integerIn(0)),
  });
  if (options.alignment !== undefined) checkAlignment("createTrainer: alignment", options.alignment);
  checkFit(options);
  const { model, domains, target, targets } = options;
  if (domains.length === 0) throw new GradmixError("config", "createTrainer: at least one domain is needed");
  commonTime(domains);
  for (const windows of [...domains, ...(target === null ? [] : [target]), ...(targets?.values() ?? [])])
    checkWindows(windows, model.config);
}

/** An object that has these. */
function thing(what: string, ...names: string[]): OptionCheck {
  return valueThat(
    what,
    (value) => typeof value === "object" && value !== null && names.every((name) => name in value),
  );
}

function isWindows(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    ["name", "stream", "time", "count", "tokensOf"].every((name) => name in value)
  );
}

/** Throws `config`, naming the option. */
function checkAlignment(where: string, alignment: AlignmentOptions): void {
  checkOptions(where, alignment, {
    estimator: oneOf(...estimatorNames),
    from: oneOf("batch", "step"),
    domainExamples: integerIn(1),
    targetExamples: integerIn(1),
    refreshEvery: integerIn(1),
    parameters: callback,
    bases: oneOf("shared", "direct"),
  });
}
