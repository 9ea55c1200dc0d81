/**
 * The options of a training run. Plain data: the command builds a `TrainConfig` from its options and a config file (options.ts holds defaults,
 * ranges and help), and writes it into the run folder. `plan.ts` turns it into the parts of a run; the modules that do the work receive only
 * their part.
 */
import type { DgaNormalisation } from "../dga/rules/dga.ts";
import type { CombinatorOptions } from "../dga/combinators/index.ts";
import type { RuleName } from "../dga/rules/index.ts";
import type { AlignmentOptions } from "../dga/alignment-options.ts";
import type { PresetName } from "../nn/architecture.ts";
import { type ScheduleName, usualWarmup } from "../nn/schedules.ts";

export type TokenizerChoice = "byte" | "bpe" | "none" | (string & {});
export type { ScheduleName } from "../nn/schedules.ts";

/** One number for all domains, or one per domain by name; "*" stands for the domains that are not named. */
export type NumberByName = number | ReadonlyMap<string, number>;

/** `null` means that the option was not given and gradmix decides. */
export interface TrainConfig {
  data: DataConfig;
  model: ModelConfig;
  training: TrainingConfig;
  mixing: MixingConfig;
  alignment: AlignmentConfig;
  run: RunConfig;
}

export interface DataConfig {
  /** Name → globs, in the order of the weights. At least one domain, here or found in `domainsFrom`. */
  domains: ReadonlyMap<string, readonly string[]>;
  /**
   * Folders in which each folder and file is a domain, and globs of which each file is one. These domains follow those of `domains`, in the
   * order of their names.
   */
  domainsFrom: string[];
  /** Name of the documents' field in `domainsFrom` that names their domain; null if their path names it. */
  domainField: string | null;
  /** Globs of the target's text. May be empty if the rule needs no target. */
  target: string[];
  /** Name → globs of several targets, for the rule "grape". */
  targets: ReadonlyMap<string, readonly string[]>;
  /** Field of the lines of .jsonl files that holds the text. */
  textField: string;
  /** Counts malformed .jsonl lines and invalid UTF-8, and continues, instead of stopping at the first one. */
  skipBadLines: boolean;
  /** Leaves out the domains' documents that contain held-out text of the target. */
  dropContaminated: boolean;
  /** Share of the documents of each domain, and of the target, that is kept for evaluation. */
  heldOut: number;
  /** Seed of the choice of held-out documents; null: the seed of the training. */
  seed: number | null;
  /** "byte", "bpe" (trained on the domains), the path of a tokenizer.json, the name of a vocabulary ("gpt2", "cl100k_base", "o200k_base", …), or "none": all data are files of tokens. */
  tokenizer: TokenizerChoice;
  /** Size of the vocabulary that "bpe" trains, or of the token files' vocabulary with "none". null: `vocabSizeOtherwise`. */
  vocabSize: number | null;
  /** Id of the token that ends each document in token files; null: the tokenizer's. */
  endOfText: number | null;
  /** Type of the tokens in files that do not declare it; null: u16 for nanoGPT's files, none for others. */
  tokenType: "u16" | "u32" | null;
}

export interface ModelConfig {
  preset: PresetName;
  dim: number;
  layers: number;
  heads: number;
  /** Number of key/value heads, a divisor of `heads`; null: as many as `heads`. */
  kvHeads: number | null;
  /** Width inside the MLP; null: 4·dim (gpt2), 8/3·dim rounded up to a multiple of 32 (llama). */
  hiddenDim: number | null;
  /** Tokens per window, T. */
  context: number;
  /** A run, a checkpoint or a Hugging Face folder from whose parameters training starts; null: random parameters. */
  initFrom: string | null;
}

export interface TrainingConfig {
  /** Number of optimizer steps. Exactly one of `steps` and `tokens` is not null. */
  steps: number | null;
  /** Number of training tokens, rounded up to whole steps. */
  tokens: number | null;
  /** Windows per step. */
  batch: number;
  lr: number;
  /** Learning rate at the end of the schedule, as a share of `lr`; null: that of `scheduleDefaults`. */
  minRatio: number | null;
  schedule: ScheduleName;
  /** Steps of the warm-up; null: `usualWarmup` of the number of steps. */
  warmup: number | null;
  weightDecay: number;
  beta1: number;
  beta2: number;
  /** Largest global norm of the gradient; a larger gradient is scaled down to it. 0 turns clipping off. */
  clip: number;
  seed: number;
}

export interface MixingConfig {
  rule: RuleName;
  /** Options of the rule that have no key here, under the rule's own names. They take precedence over the keys below. */
  ruleOptions: Record<string, unknown>;
  /** Combinators around the rule, the innermost first. */
  combinators: CombinatorOptions[];
  /** Step size η of the mirror step. Here and in the options below, null means the rule's own default. */
  eta: number | null;
  /** Weight of the new value in the moving average of the weights; 1 turns averaging off. */
  beta: number | null;
  normalise: DgaNormalisation | null;
  /** "paper": the options that are not given are those of the published algorithm; null: those of gradmix. */
  preset: "paper" | null;
  /** Weights to which "dga" is pulled back: "histogram", the target's histogram over the domains, or "uniform". null: "histogram". */
  prior: "histogram" | "uniform" | null;
  /** T_r: steps between two updates of the weights; null: the schedule of the rule. */
  updateEvery: number | null;
  /** Steps before the first update; null: that of `mixerDefaults`. */
  updateAfter: number | null;
  /** Lower bound of the domains' weights: one number, or one per domain; "*" stands for those that are not named. */
  floor: NumberByName | null;
  /** Upper bound of the domains' weights, in the same form. */
  ceiling: NumberByName | null;
  /** How often the run may go through a domain, in expectation. null: the rule's default. */
  repetitionCap: number | null;
  /**
   * Smallest share of a domain's windows that is selected by their likeness to the target; 1: all text. null: `selectionDefaults.leastShare` for a rule
   * that can take steps around a prior, 1 for other rules, and with a floor, a guard or bases.
   */
  select: number | null;
  /** Largest ratio of a domain's held-out loss to its reference, by domain; "*" stands for those that are not named. null: no domain is guarded. */
  guard: ReadonlyMap<string, number> | null;
  /** Cost of the guarded domains' evaluations, as an approximate share of the training's computation; null: `guardShareOtherwise`. */
  guardShare: number | null;
  /** Domain → weight: the weights of "static", and the initial weights of other rules. They sum to 1. null: uniform. */
  weights: ReadonlyMap<string, number> | null;
  /**
   * Domain → share or count of the target, for "importanceSampling", and as the prior of "dga"; domains that are not named have 0. null:
   * counted once the text is read.
   */
  histogram: ReadonlyMap<string, number> | null;
  /** Folder of an earlier run whose model gives the reference losses of "doremi" and of `guard`. */
  reference: string | null;
  /**
   * Basis distributions over the domains, whose weights the rule then moves: the path of a .json or .csv file, or the bases by name. null: the
   * rule moves the weights of the domains themselves.
   */
  bases: string | ReadonlyMap<string, ReadonlyMap<string, number> | readonly number[]> | null;
}

/** The keys and their meanings are those of the library's `AlignmentOptions`. null means that an option was not given, so that `measuredFrom` and `resolveAlignment` decide. */
export type AlignmentConfig = {
  readonly [K in Exclude<keyof AlignmentOptions, "parameters">]-?: NonNullable<AlignmentOptions[K]> | null;
};

export interface RunConfig {
  /** Cost of evaluation, as an approximate share of the training's computation. Exactly one of `evalShare` and `evalEvery` is not null. */
  evalShare: number | null;
  /** Steps between two evaluations; 0: the run evaluates only at the end. */
  evalEvery: number | null;
  /** Tokens read from each held-out set per evaluation; null: as many as the share allows, or `TOKENS_PER_EVALUATION` with `evalEvery`. */
  evalTokens: number | null;
  /** Steps between two checkpoints; 0: the run saves one only at the end. */
  checkpointEvery: number;
  /** Keeps the model with the lowest held-out target loss in `best/`. */
  keepBest: boolean;
  /** The run folder. */
  out: string;
  /** "auto": a GPU if there is one, otherwise the CPU; a resumed run keeps its backend. */
  backend: "auto" | "cpu" | "webgpu" | "reference";
  /** Number of CPU threads; null: one per core, at most `THREADS_UNASKED`. */
  threads: number | null;
  simd: "auto" | "relaxed" | "plain";
  /** Width of the vectors of the backend "cpu", in bits. "auto": 256 where it was tested, 128 elsewhere. */
  vectorBits: "auto" | "128" | "256";
  /** "f16": the operands of matrix products are 16-bit floats, with loss scaling. Only with the backend "webgpu". */
  precision: "f32" | "f16";
  /** Fixes the variants of kernels, which are otherwise chosen by their measured time. Has an effect only with the backend "webgpu". */
  deterministic: boolean;
  /** Largest number of bytes of tensors at one time; null: the backend's own limit. */
  memoryLimit: number | null;
  /** Also writes event files for TensorBoard. */
  tensorboard: boolean;
  quiet: boolean;
}

/** The seed that chooses the held-out documents: `data.seed`, or that of the training. */
export function dataSeed({ data, training }: Pick<TrainConfig, "data" | "training">): number {
  return data.seed ?? training.seed;
}

/** Number of steps of a run: `steps`, or enough steps for `tokens`. */
export function totalSteps(config: TrainConfig): number {
  const { steps, tokens, batch } = config.training;
  return steps ?? Math.ceil((tokens ?? 0) / (batch * config.model.context));
}

/** Number of warm-up steps of a run. */
export function warmupOf(config: TrainConfig): number {
  return config.training.warmup ?? usualWarmup(totalSteps(config));
}
