/**
 * What a training run is told. Plain data: the command builds a `TrainConfig` from its options and a config file (options.ts holds defaults, ranges and help),
 * and writes it into the run folder. `plan.ts` turns it into the parts of a run; below that nobody sees the whole of it.
 */
import type { DgaNormalisation } from "../dga/rules/dga.ts";
import type { CombinatorOptions } from "../dga/combinators/index.ts";
import type { RuleName } from "../dga/rules/index.ts";
import type { EstimatorName } from "../dga/estimators.ts";
import type { AlignmentOptions } from "../dga/trainer-options.ts";
import type { PresetName } from "../nn/architecture.ts";

export type TokenizerChoice = "byte" | "bpe" | "none" | (string & {});
export type ScheduleName = "cosine" | "wsd" | "constant";

/** One number for all, or by name; "*" stands for those that are not named. */
export type NumberByName = number | ReadonlyMap<string, number>;

/** `null` means: not given, decide for me. */
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
  /** Folders of which each folder and file is a domain, and globs of which each file is; they come after `domains`, in the order of their names. */
  domainsFrom: string[];
  /** Field of the documents in `domainsFrom` that names their domain; null: their path does. */
  domainField: string | null;
  /** Globs of the target set. May be empty for a rule that needs no target. */
  target: string[];
  /** Name → globs of several targets, for "grape". */
  targets: ReadonlyMap<string, readonly string[]>;
  /** Field of .jsonl lines that holds the text. */
  textField: string;
  /** Counts broken .jsonl lines and invalid UTF-8 instead of stopping at the first. */
  skipBadLines: boolean;
  /** Leaves documents of the domains out that hold held-out text of the target. */
  dropContaminated: boolean;
  /** Share of the documents of each domain, and of the target, kept for evaluation. */
  heldOut: number;
  /** Of the choice of held-out documents; null: the seed of the training. */
  seed: number | null;
  /** "byte", "bpe" (trained on the domains), the path of a tokenizer.json, the name of a vocabulary ("gpt2", "cl100k_base", "o200k_base", …), or "none": all data are files of tokens. */
  tokenizer: TokenizerChoice;
  /** Size of the vocabulary that "bpe" trains, or that "none" has. */
  vocabSize: number;
  /** Id that ends documents in files of tokens; null: the tokenizer's. */
  endOfText: number | null;
  /** Type of the tokens in files that do not say it; null: u16 in nanoGPT's, none in others. */
  tokenType: "u16" | "u32" | null;
}

export interface ModelConfig {
  preset: PresetName;
  dim: number;
  layers: number;
  heads: number;
  /** Key/value heads; null: as many as `heads`. Divides `heads`. */
  kvHeads: number | null;
  /** Width inside the MLP; null: 4·dim (gpt2), 8/3·dim rounded up to a multiple of 32 (llama). */
  hiddenDim: number | null;
  /** Tokens in a window, T. */
  context: number;
  /** A run, a checkpoint or a Hugging Face folder whose parameters are begun with; null: random ones. */
  initFrom: string | null;
}

export interface TrainingConfig {
  /** Optimizer steps. Exactly one of `steps` and `tokens` is not null. */
  steps: number | null;
  /** Training tokens; rounded up to whole steps. */
  tokens: number | null;
  /** Windows in a step. */
  batch: number;
  lr: number;
  /** Where the schedule ends, as a share of `lr`. */
  minRatio: number;
  schedule: ScheduleName;
  warmup: number;
  weightDecay: number;
  beta1: number;
  beta2: number;
  /** Global-norm clipping; 0 turns it off. */
  clip: number;
  seed: number;
}

export interface MixingConfig {
  rule: RuleName;
  /** Options of the rule that have no key here, as the rule itself names them; they go before those below. */
  ruleOptions: Record<string, unknown>;
  /** Put around the rule in this order. */
  combinators: CombinatorOptions[];
  /** Step size η of the mirror step. null, here and below: the rule's own default. */
  eta: number | null;
  /** Weight of the NEW value in the moving average of the weights; 1 is no average. */
  beta: number | null;
  normalise: DgaNormalisation | null;
  /** "paper": the published algorithm, for what is not given otherwise; null: our own form of it. */
  preset: "paper" | null;
  /** What "dga" moves the weights around: "histogram", that of the target over the domains, or "uniform". */
  prior: "histogram" | "uniform";
  /** T_r: steps between two updates of the weights. */
  updateEvery: number;
  /** Steps before the first update. */
  updateAfter: number;
  /** No domain's weight falls below this: one number, or by domain, "*" for those that are not named. */
  floor: NumberByName | null;
  /** No domain's weight rises above this. */
  ceiling: NumberByName | null;
  /** How often the run may go through a domain, in expectation. null: as the rule does; 8 for a tracked "dga". */
  repetitionCap: number | null;
  /** How much of its reference a domain's held-out loss may be, by domain, "*" for those that are not named. null: none is guarded. */
  guard: ReadonlyMap<string, number> | null;
  /** The evaluations of guarded domains take about this share of the training's computation. */
  guardShare: number;
  /** Domain → weight, for "static"; where other rules start. They sum to 1. null: uniform. */
  weights: ReadonlyMap<string, number> | null;
  /** Domain → share or count of the target, for "importanceSampling", and the prior of "dga"; a domain that is not named has 0. null: counted when the text is read. */
  histogram: ReadonlyMap<string, number> | null;
  /** Folder of an earlier run, whose model gives the reference losses of "doremi", and of `guard`. */
  reference: string | null;
  /** Basis distributions over the domains, whose weights the rule then moves: a path (.json or .csv) or by name; null: the domains themselves. */
  bases: string | ReadonlyMap<string, ReadonlyMap<string, number> | readonly number[]> | null;
}

/** Keys and meanings are those of the library's `AlignmentOptions`. */
export type AlignmentConfig = Required<
  Omit<AlignmentOptions, "parameters" | "from" | "estimator" | "domainExamples" | "bases">
> & {
  /** null, for each: not given, so that `measuredFrom` decides. */
  readonly from: "batch" | "step" | null;
  readonly estimator: EstimatorName | null;
  readonly domainExamples: number | null;
  readonly bases: "shared" | "direct" | null;
};

export interface RunConfig {
  /** Evaluation takes about this share of the training's computation. Exactly one of `evalShare` and `evalEvery` is not null. */
  evalShare: number | null;
  /** Steps between two evaluations; 0: only at the end. */
  evalEvery: number | null;
  /** Tokens read from each held-out set for an evaluation; null: as the share allows, with `evalEvery` 8192. */
  evalTokens: number | null;
  /** Steps between two checkpoints; 0: only at the end. */
  checkpointEvery: number;
  /** Keeps the model at the best held-out target loss in `best/`. */
  keepBest: boolean;
  /** The run folder. */
  out: string;
  /** "auto": a GPU if there is one, else the cpu; a resumed run goes on where it began. */
  backend: "auto" | "cpu" | "webgpu" | "reference";
  /** null: one per core. */
  threads: number | null;
  simd: "auto" | "relaxed" | "plain";
  /** "f16": of the operands of matrix products, with loss scaling. With backend "webgpu" only. */
  precision: "f32" | "f16";
  /** Kernel variants are pinned, not chosen by timing them. Matters to backend "webgpu" only. */
  deterministic: boolean;
  /** Most bytes of tensors at once. null: the backend's own limit. */
  memoryLimit: number | null;
  /** Event files are written as well. */
  tensorboard: boolean;
  quiet: boolean;
}

/** The seed of the choice of held-out documents. */
export function dataSeed({ data, training }: Pick<TrainConfig, "data" | "training">): number {
  return data.seed ?? training.seed;
}

/** Steps that a run takes: `steps`, or enough for `tokens`. */
export function totalSteps(config: TrainConfig): number {
  const { steps, tokens, batch } = config.training;
  return steps ?? Math.ceil((tokens ?? 0) / (batch * config.model.context));
}
