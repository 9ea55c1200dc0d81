/**
 * What a training run is told (`TrainConfig`) and what it tells back while it runs. Plain data: the command builds a
 * `TrainConfig` from its options and a config file (cli/options.ts holds defaults, ranges and help), writes it into the
 * run folder and hands it to `runTraining`.
 */
import type { EstimatorName } from "./estimators.ts";
import type { Normalisation } from "./rules/normalisation.ts";
import { type CombinatorOptions, combine, type RunFacts } from "./combinators/index.ts";
import type { Rule } from "./rule.ts";
import { createRule, type RuleName, type RuleOptions } from "./rules/index.ts";

export type TokenizerChoice = "byte" | "bpe" | (string & {});
export type ModelPreset = "llama" | "gpt2";
export type ScheduleName = "cosine" | "wsd" | "constant";

/** `null` means: not given, decide for me. */
export interface TrainConfig {
  data: DataConfig;
  model: ModelConfig;
  training: TrainingConfig;
  mixing: MixingConfig;
  run: RunConfig;
}

export interface DataConfig {
  /** Name → globs, in the order of the weights. At least one domain. */
  domains: ReadonlyMap<string, readonly string[]>;
  /** Globs of the target set. May be empty for a rule that needs no target. */
  target: string[];
  /** Name → globs of several targets, for "grape". */
  targets: ReadonlyMap<string, readonly string[]>;
  /** Field of .jsonl lines that holds the text. */
  textField: string;
  /** Counts broken .jsonl lines and invalid UTF-8 instead of stopping at the first. */
  skipBadLines: boolean;
  /** Share of the documents of each domain, and of the target, kept for evaluation. */
  heldOut: number;
  /** "byte", "bpe" (trained on the domains), or the path of a tokenizer.json. */
  tokenizer: TokenizerChoice;
  /** Size of the vocabulary that "bpe" trains. */
  vocabSize: number;
}

export interface ModelConfig {
  preset: ModelPreset;
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
  minLr: number;
  schedule: ScheduleName;
  warmupSteps: number;
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
  normalise: Normalisation | null;
  /** T_r: steps between two updates of the weights. */
  updateEvery: number;
  /** Steps before the first update. */
  ruleWarmup: number;
  /** No domain's weight falls below this. */
  floor: number | null;
  /** Domain → weight, for "static"; where other rules start. They sum to 1. null: uniform. */
  weights: ReadonlyMap<string, number> | null;
  /** Domain → share or count of the target, for "importanceSampling"; a domain that is not named has 0. */
  histogram: ReadonlyMap<string, number> | null;
  /** Folder of an earlier run, whose model gives the reference losses of "doremi". */
  reference: string | null;
  /** Basis distributions over the domains, whose weights the rule then moves: a path (.json or .csv) or by name; null: the domains themselves. */
  bases: string | ReadonlyMap<string, ReadonlyMap<string, number> | readonly number[]> | null;
  /** "shared": all bases from one batch by importance weights; "direct": a batch each. */
  basisAlignments: "shared" | "direct";
  estimator: EstimatorName;
  /** "batch": a separate alignment batch; "step": the training batch itself. */
  alignFrom: "batch" | "step";
  /** Windows per domain in an alignment batch. */
  alignBatch: number;
  /** Windows of the target in an alignment. */
  targetBatch: number;
}

export interface RunConfig {
  /** Steps between two evaluations; 0: only at the end. */
  evalEvery: number;
  /** Tokens read from each held-out set for an evaluation. */
  evalTokens: number;
  /** Steps between two checkpoints; 0: only at the end. */
  checkpointEvery: number;
  /** The run folder. */
  out: string;
  /** "auto": a GPU if there is one, else the cpu; a resumed run goes on where it began. */
  backend: "auto" | "cpu" | "webgpu" | "reference";
  /** null: one a core. */
  threads: number | null;
  simd: "auto" | "relaxed" | "plain";
  /** "f16": of the operands of matrix products, with loss scaling. With backend "webgpu" only. */
  precision: "f32" | "f16";
  /** Kernel variants are pinned, not chosen by timing them. Matters to backend "webgpu" only. */
  deterministic: boolean;
  /** Most bytes of tensors at once. null: the backend's own limit. */
  memoryLimit: number | null;
  quiet: boolean;
}

/** Steps that a run takes: `steps`, or enough for `tokens`. */
export function totalSteps(config: TrainConfig): number {
  const { steps, tokens, batch } = config.training;
  return steps ?? Math.ceil((tokens ?? 0) / (batch * config.model.context));
}

/** Which of the common options of `MixingConfig` a rule takes, and under what name. */
const common: {
  readonly [K in RuleName]: Partial<
    Record<"eta" | "beta" | "normalise" | "floor" | "weights" | "histogram", string>
  >;
} = {
  uniform: {},
  static: { weights: "weights" },
  temperature: {},
  importanceSampling: { histogram: "histogram" },
  dga: { eta: "eta", beta: "beta", normalise: "normalise", floor: "floor", weights: "start" },
  doge: { eta: "eta", weights: "start" },
  grape: { eta: "eta", beta: "beta", normalise: "normalise", weights: "start" },
  rnb: {},
  doremi: { eta: "eta", weights: "start" },
  odm: {},
  ado: { floor: "floor", weights: "start" },
};

/** Does the rule read this option? */
export function ruleTakes(rule: RuleName, option: keyof (typeof common)["dga"]): boolean {
  return common[rule][option] !== undefined;
}

/** Options that were given and change nothing with this rule. */
export function unusedOptions(mixing: MixingConfig): string[] {
  const { rule } = mixing;
  const fixed = ["uniform", "static", "temperature", "importanceSampling"].includes(rule);
  return [
    ...(mixing.eta !== null && !ruleTakes(rule, "eta") ? ["eta"] : []),
    ...(mixing.normalise !== null && !ruleTakes(rule, "normalise") ? ["normalise"] : []),
    // An average goes around any rule that moves the weights.
    ...(mixing.beta !== null && fixed ? ["beta"] : []),
  ];
}

/**
 * The rule of a run, for `createMixer`: its options out of the common ones and `ruleOptions`, with the combinators around it. `facts` fill in
 * what the data says. Throws `config`.
 */
export function ruleOf({ mixing, data }: TrainConfig, facts: RunFacts): Rule {
  const options: Record<string, unknown> = { name: mixing.rule };
  for (const [option, name] of Object.entries(common[mixing.rule])) {
    const value = mixing[option as keyof (typeof common)["dga"]];
    if (value !== null) options[name] = value instanceof Map ? Object.fromEntries(value) : value;
  }
  if ((mixing.rule === "temperature" || mixing.rule === "ado") && facts.sizes !== undefined)
    options["sizes"] = facts.sizes;
  if (mixing.rule === "grape") options["targets"] = [...data.targets.keys()];
  // The rule checks its own options, whatever their source.
  const rule = createRule({ ...options, ...mixing.ruleOptions } as unknown as RuleOptions);
  // What a rule does not do itself is put around it.
  const around: CombinatorOptions[] = [];
  if (mixing.beta !== null && !ruleTakes(mixing.rule, "beta") && rule.needs.length > 0)
    around.push({ name: "ema", beta: mixing.beta });
  if (mixing.floor !== null && mixing.floor > 0 && !ruleTakes(mixing.rule, "floor"))
    around.push({ name: "floor", least: mixing.floor });
  return combine(combine(rule, around), mixing.combinators, facts);
}

/**
 * One line of metrics.jsonl, in which Maps are objects: what a step did. Of more than 100 domains (or bases) `weights` and `alignments` hold the 100 heaviest, `domains` those
 * that the batch held, and every ⌈k/100⌉-th domain is evaluated.
 */
export interface StepMetrics {
  /** Steps done, this one included. */
  step: number;
  /** Training tokens seen so far. */
  tokens: number;
  /** Mean loss per token of this step's batch, in nats. */
  loss: number;
  /** null where it overflowed. */
  gradNorm: number | null;
  /** With loss scaling: the scale of the step. */
  lossScale?: number;
  /** With loss scaling, where the gradient overflowed: the optimizer took no step. */
  skipped?: true;
  lr: number;
  /** Wall time of this step. The only field that differs between two runs of one configuration. */
  seconds: number;
  /** The weights that this step's batch was drawn with; with bases, theirs. */
  weights: ReadonlyMap<string, number>;
  /** `loss` is null where the batch held nothing of the domain. With bases, or many domains, only those that it held, with what they weighed. */
  domains: ReadonlyMap<string, { weight?: number; loss: number | null; tokens: number; epochs: number }>;
  /** On steps that updated the weights: the domains (bases) that were measured. */
  alignments?: ReadonlyMap<
    string,
    { value: number; standardError: number | null; norm: number | null; effectiveSize?: number }
  >;
  /** On steps that evaluated: mean loss per token on the held-out sets. */
  evaluation?: { target: number | null; domains: ReadonlyMap<string, number> };
}

/** What a resumed run does otherwise than the run before it, by name. */
export type RunChanges = Readonly<
  Record<string, { readonly from: string | number; readonly to: string | number }>
>;

/** A line of metrics.jsonl after step `step`, where a run was resumed and does something otherwise. */
export interface ResumeLine {
  step: number;
  event: "resumed";
  changes: RunChanges;
}

export interface NamedWeights {
  final: ReadonlyMap<string, number>;
  averaged: ReadonlyMap<string, number>;
}

/** What `runTraining` says when it ends. */
export interface RunResult {
  step: number;
  tokens: number;
  loss: number;
  /** On the held-out target; null without a target. */
  targetLoss: number | null;
  /** Of the domains; with bases also theirs. */
  weights: NamedWeights & { bases?: NamedWeights };
  /** The signal ended it before the last step. */
  interrupted: boolean;
}

export type CheckpointArray =
  Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array | BigInt64Array;

/** Everything that a run needs to go on: small state as JSON, large state as arrays. */
export interface Checkpoint {
  json: Record<string, unknown>;
  arrays: Record<string, CheckpointArray>;
}

/** Where a run keeps its files; the command gives a folder (cli/run-folder.ts). All writes are whole or not at all. */
export interface RunStore {
  /** The state to continue from, with the configuration that led to it, or null for a fresh start. Reads only. */
  load(): { step: number; checkpoint: Checkpoint; config: TrainConfig } | null;
  /** Called once, when all input has been validated and before the first step: makes the folder. */
  begin(): void;
  /**
   * The state after `step` steps. Metrics are on disk before it is; of those a run that goes on from it keeps the lines up to the step `lines`, by default
   * `step`.
   */
  saveCheckpoint(step: number, checkpoint: Checkpoint, lines?: number): void;
  /** `name` is relative to the run folder, e.g. "model/config.json"; folders are made. */
  saveFile(name: string, contents: string | Uint8Array): void;
}

export interface RunHooks {
  /** After each step, in order. */
  onStep(metrics: StepMetrics): void;
  /** Before the first step of a resumed run that does something otherwise. */
  onResume(line: ResumeLine): void;
  /** Something worth a line: a tokenizer was trained, lines were skipped. */
  onEvent(line: string): void;
  /** Aborted: finish the step, save a checkpoint, return with `interrupted`. */
  signal: AbortSignal;
  store: RunStore;
}

export type RunTraining = (config: TrainConfig, hooks: RunHooks) => Promise<RunResult>;
