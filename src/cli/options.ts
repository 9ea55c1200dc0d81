/**
 * THE table of options of `gradmix train`: each key of `TrainConfig` with its flag, range, default and help. Flags,
 * config-file validation, `--help` and the list of keys that a resumed run may change all come from it.
 */
import { combinatorNames } from "../dga/combinators/index.ts";
import { estimatorNames } from "../dga/estimators.ts";
import { dgaDefaults, dgaNormalisations } from "../dga/rules/dga.ts";
import { ruleNames } from "../dga/rules/index.ts";
import { mixerDefaults } from "../dga/mixer.ts";
import { alignmentDefaults } from "../dga/trainer-options.ts";
import { presets } from "../nn/architecture.ts";
import { adamwOptions } from "../nn/optimizer.ts";
import { scheduleDefaults } from "../nn/schedules.ts";
import type { TrainConfig } from "./train-config.ts";

/** What values an option takes. */
export type Kind =
  | { type: "integer" | "number"; min: number; max: number; openMin?: boolean; openMax?: boolean }
  | { type: "bytes"; min: number; max: number }
  | { type: "choice"; choices: readonly string[] }
  | { type: "text" }
  | { type: "switch" }
  | { type: "globs" }
  | { type: "domains" }
  /** Numbers by domain, each as a `NAME=X` of a repeated flag ("<=" where `sign` says so), "*" for those that are not named. `all`: one number without a name stands for all. */
  | {
      type: "byName";
      sign: "=" | "<=";
      all: boolean;
      min: number;
      max: number;
      openMin?: boolean;
    }
  /** Domain → number ≥ 0; `sumsToOne` or any positive sum. */
  | { type: "shares"; sumsToOne: boolean }
  /** The path of a file; in a config file also the JSON object that it would hold. */
  | { type: "file" }
  /** A JSON object, or a list of objects; a text on the command line. */
  | { type: "json"; shape: "object" | "list" };

export interface OptionSpec<V> {
  flag: string;
  /** Names of before, which go on working: of the flag, and of the key with its section. */
  formerly?: { flag?: string; path: string };
  /** What stands for the value in `--help`; switches have none. */
  value?: string;
  kind: Kind;
  /** null: decided from the rest; `auto` says how. */
  default: V;
  auto?: string;
  help: string;
  /** A resumed run may change it: it does not touch the numbers that training gives. */
  free?: boolean;
  /** A resumed run may change it where that makes sense, and its metrics say so. */
  said?: boolean;
}

export type OptionTable = {
  readonly [S in keyof TrainConfig]: {
    readonly [K in keyof TrainConfig[S]]-?: OptionSpec<TrainConfig[S][K]>;
  };
};

/** Headings of the groups in `--help`, in order. */
export const groups: Readonly<Record<keyof TrainConfig, string>> = {
  data: "Data:",
  model: "Model:",
  training: "Training:",
  mixing: "Mixing (how the domain weights move):",
  alignment: "Alignment (how the rules that need it compare domains with the target):",
  run: "Run:",
};

const count = (min: number, max = 2 ** 31): Kind => ({ type: "integer", min, max });
const share = (openMax = false): Kind => ({ type: "number", min: 0, max: 1, openMax });

const adamw = adamwOptions();

export const optionTable: OptionTable = {
  data: {
    domains: {
      flag: "--domain",
      value: "NAME=GLOB",
      kind: { type: "domains" },
      default: new Map(),
      auto: "required, or --domains",
      help: "a domain of training text: a name and the files it is made of; repeat for each domain, and for more globs of one domain; they replace a config file's. Reads plain text, .jsonl, .csv, .tsv and .parquet, also .gz and .zst, - for standard input, and files of tokens (.bin, .ds, .npy)",
    },
    domainsFrom: {
      flag: "--domains",
      value: "DIR|GLOB",
      kind: { type: "globs" },
      default: [],
      auto: "none",
      help: "many domains at once: each folder and file in DIR, or each file of GLOB, is one, with the name of its path; repeatable, and together with --domain",
    },
    domainField: {
      flag: "--domain-field",
      value: "NAME",
      kind: { type: "text" },
      default: null,
      auto: "none",
      help: "field of the documents in --domains that says which domain each is of",
    },
    target: {
      flag: "--target",
      value: "GLOB",
      kind: { type: "globs" },
      default: [],
      auto: "required by rules that align, such as dga, and by importanceSampling",
      help: "the small set of text that the model should become good at; repeatable",
    },
    targets: {
      flag: "--targets",
      value: "NAME=GLOB",
      kind: { type: "domains" },
      default: new Map(),
      auto: "required by --rule grape",
      help: "several targets, each a name and its files; repeatable. Evaluation is on --target, and on the first of these without one",
    },
    textField: {
      flag: "--text-field",
      value: "NAME",
      kind: { type: "text" },
      default: "text",
      help: "field of .jsonl lines, or column of a table, that holds the text; a.b is b within a",
    },
    skipBadLines: {
      flag: "--skip-bad-lines",
      kind: { type: "switch" },
      default: false,
      help: "count broken lines and rows, invalid UTF-8 and files that are no text instead of stopping",
    },
    dropContaminated: {
      flag: "--drop-contaminated",
      kind: { type: "switch" },
      default: false,
      help: "leave documents of the domains out that hold 13 words in a row, or all words, of the target's held-out documents",
    },
    heldOut: {
      flag: "--held-out",
      value: "SHARE",
      kind: { type: "number", min: 0, max: 0.9, openMin: true },
      default: 0.1,
      help: "share of the documents of each domain and of the target kept for evaluation",
    },
    seed: {
      flag: "--data-seed",
      value: "N",
      kind: count(0, Number.MAX_SAFE_INTEGER),
      default: null,
      auto: "as --seed",
      help: "decides which documents are held out, so that runs of several seeds can be measured on the same text",
    },
    tokenizer: {
      flag: "--tokenizer",
      value: "bpe|byte|FILE|NAME|none",
      kind: { type: "text" },
      default: "bpe",
      help: "train a byte-level BPE on the domains, use plain bytes, read a tokenizer.json, or take a vocabulary of OpenAI's (gpt2, cl100k_base, o200k_base; needs the package gpt-tokenizer); none: all data are files of tokens, and --vocab-size says how many ids they have",
    },
    vocabSize: {
      flag: "--vocab-size",
      value: "N",
      kind: count(2, 1_000_000),
      default: 1024,
      help: "tokens in the vocabulary that bpe trains (257 or more), or of files of tokens with --tokenizer none",
    },
    endOfText: {
      flag: "--end-of-text",
      value: "ID",
      kind: count(0),
      default: null,
      auto: "the tokenizer's",
      help: "id that ends documents in files of tokens without an index (.bin, .npy)",
    },
    tokenType: {
      flag: "--token-type",
      value: "u16|u32",
      kind: { type: "choice", choices: ["u16", "u32"] },
      default: null,
      auto: "u16 in .bin",
      help: "type of the tokens in files that do not say it themselves (.npy of OLMo, .bin of nanoGPT)",
    },
  },
  model: {
    preset: {
      flag: "--preset",
      value: "llama|gpt2",
      kind: { type: "choice", choices: Object.keys(presets) },
      default: "llama",
      help: "llama: RMSNorm, RoPE, SwiGLU, no biases; gpt2: LayerNorm, biases, learned positions, GELU",
    },
    dim: { flag: "--dim", value: "N", kind: count(1, 65_536), default: 128, help: "width of the model" },
    layers: { flag: "--layers", value: "N", kind: count(1, 1024), default: 4, help: "number of blocks" },
    heads: {
      flag: "--heads",
      value: "N",
      kind: count(1, 1024),
      default: 4,
      help: "attention heads; must divide the width",
    },
    kvHeads: {
      flag: "--kv-heads",
      value: "N",
      kind: count(1, 1024),
      default: null,
      auto: "as many as heads",
      help: "key/value heads; must divide the heads (llama only)",
    },
    hiddenDim: {
      flag: "--hidden-dim",
      value: "N",
      kind: count(1, 1_048_576),
      default: null,
      auto: "from the width",
      help: "width inside the MLP",
    },
    context: {
      flag: "--context",
      value: "T",
      kind: count(2, 65_536),
      default: 128,
      help: "tokens in a training window",
    },
    initFrom: {
      flag: "--init-from",
      value: "PATH",
      kind: { type: "text" },
      default: null,
      auto: "random parameters",
      help: "begin with the parameters of a model: a run's folder (its last checkpoint; RUN/best is what --keep-best kept), one of its checkpoints, or a Hugging Face folder. Its tokenizer is used, and the options above come from it",
    },
  },
  training: {
    steps: {
      flag: "--steps",
      value: "N",
      kind: count(1),
      default: null,
      auto: "1000 unless --tokens is given",
      help: "optimizer steps. With --resume another number extends the run, where the learning rates so far stay the same: constant, or wsd before its decay; and where dga limits no domain (8 repetitions, then and now)",
      said: true,
    },
    tokens: {
      flag: "--tokens",
      value: "N",
      kind: count(1, Number.MAX_SAFE_INTEGER),
      default: null,
      help: "training tokens, instead of --steps",
      said: true,
    },
    batch: {
      flag: "--batch",
      value: "N",
      kind: count(1, 65_536),
      default: 16,
      help: "windows in a step; a step trains on batch × context tokens",
    },
    lr: {
      flag: "--lr",
      value: "X",
      kind: { type: "number", min: 0, max: 10, openMin: true },
      default: 0.002,
      help: "peak learning rate of AdamW",
    },
    minRatio: {
      flag: "--min-ratio",
      formerly: { flag: "--min-lr", path: "training.minLr" },
      value: "SHARE",
      kind: share(),
      default: scheduleDefaults.minRatio,
      help: "where the schedule ends, as a share of --lr",
    },
    schedule: {
      flag: "--schedule",
      value: "NAME",
      kind: { type: "choice", choices: ["cosine", "wsd", "constant"] },
      default: "cosine",
      help: "after the warm-up: cosine, wsd (stable, then decay over the last fifth) or constant",
    },
    warmup: {
      flag: "--warmup",
      formerly: { flag: "--warmup-steps", path: "training.warmupSteps" },
      value: "N",
      kind: count(0),
      default: 20,
      help: "steps over which the learning rate rises from 0",
    },
    weightDecay: {
      flag: "--weight-decay",
      value: "X",
      kind: { type: "number", min: 0, max: 10 },
      default: adamw.weightDecay,
      help: "decoupled weight decay; gains and biases have none",
    },
    beta1: {
      flag: "--beta1",
      value: "X",
      kind: share(true),
      default: adamw.beta1,
      help: "AdamW's first moment",
    },
    beta2: {
      flag: "--beta2",
      value: "X",
      kind: share(true),
      default: adamw.beta2,
      help: "AdamW's second moment",
    },
    clip: {
      flag: "--clip",
      value: "X",
      kind: { type: "number", min: 0, max: 1e9 },
      default: adamw.clip,
      help: "largest gradient norm; 0 turns clipping off",
    },
    seed: {
      flag: "--seed",
      value: "N",
      kind: count(0, Number.MAX_SAFE_INTEGER),
      default: 1,
      help: "same seed, same backend, same build: same bits",
    },
  },
  mixing: {
    rule: {
      flag: "--rule",
      value: "NAME",
      kind: { type: "choice", choices: ruleNames },
      default: "dga",
      help: "dga: move the weights towards domains whose gradient points along the target's. Fixed: uniform, static (--weights), temperature (by size), importanceSampling (by what share of --target each domain has). Others, for comparison: doge, grape (several --targets), rnb, doremi (--reference), odm, ado",
    },
    ruleOptions: {
      flag: "--rule-options",
      value: "JSON",
      kind: { type: "json", shape: "object" },
      default: {},
      help: 'options of the rule that have no flag here, such as {"towards": "target"} for doge; docs/rules.md lists them',
    },
    combinators: {
      flag: "--combinators",
      value: "JSON",
      kind: { type: "json", shape: "list" },
      default: [],
      help: `what goes around the rule, in order, such as [{"name": "repetitionCap", "repetitions": 4}]: ${combinatorNames.join(", ")}`,
    },
    eta: {
      flag: "--eta",
      value: "X",
      kind: { type: "number", min: 0, max: 1000 },
      default: null,
      auto: `the rule's own; for dga ${dgaDefaults.aroundPrior.eta} around a histogram, ${dgaDefaults.withoutPrior.eta} without one`,
      help: "how far one update moves the weights (η); larger adapts faster and is noisier",
    },
    beta: {
      flag: "--beta",
      value: "X",
      kind: { type: "number", min: 0, max: 1, openMin: true },
      default: null,
      auto: "the rule's own; 1 for dga, 0.1 with a normalise other than tracked",
      help: "moving average of the weights that are sampled from: share of the newest; 1 is no average",
    },
    normalise: {
      flag: "--normalise",
      value: "NAME",
      kind: { type: "choice", choices: dgaNormalisations },
      default: null,
      auto: "the rule's own; tracked for dga, clipped for grape",
      help: "what a step is made of: alignments tracked over updates in units of their spread (tracked, dga only), or those of the last update with gradients as they are (raw), clipped to norm 1, scaled to norm 1 (cosine), as in DoGE (doge), or against the step that Adam would take (adam)",
    },
    preset: {
      flag: "--mixing-preset",
      value: "paper",
      kind: { type: "choice", choices: ["paper"] },
      default: null,
      auto: "none",
      help: "paper: Dynamic Gradient Alignment as it was published, for comparison: raw alignments of batches of every domain, a uniform start, an average with beta 0.1, no limit to repetitions. Its eta has to be found by trial",
    },
    prior: {
      flag: "--prior",
      value: "NAME",
      kind: { type: "choice", choices: ["histogram", "uniform"] },
      default: "histogram",
      help: "for --rule dga: what the weights start at and are pulled to: the histogram of the target over the domains (--histogram, or counted before training), or equal weights",
    },
    updateEvery: {
      flag: "--update-every",
      value: "N",
      kind: count(1),
      default: mixerDefaults.updateEvery,
      help: "steps between two updates of the weights",
    },
    updateAfter: {
      flag: "--update-after",
      formerly: { flag: "--rule-warmup", path: "mixing.ruleWarmup" },
      value: "N",
      kind: count(0),
      default: mixerDefaults.updateAfter,
      help: "steps before the first update",
    },
    floor: {
      flag: "--floor",
      value: "X|NAME=X",
      kind: { type: "byName", sign: "=", all: true, min: 0, max: 1 },
      default: null,
      auto: "the rule's own; 0 for dga",
      help: "no domain's weight falls below this; X for all domains is less than 1 / their number. NAME=X for one domain, repeatable; X beside it is for the others",
    },
    ceiling: {
      flag: "--ceiling",
      value: "X|NAME=X",
      kind: { type: "byName", sign: "=", all: true, min: 0, max: 1, openMin: true },
      default: null,
      auto: "none",
      help: "no domain's weight rises above this; as --floor",
    },
    repetitionCap: {
      flag: "--repetition-cap",
      value: "N",
      kind: { type: "number", min: 0, max: 1e9, openMin: true },
      default: null,
      auto: "8 for dga where it tracks, none for the others",
      help: "the run goes through no domain's text more than N times, in expectation",
    },
    guard: {
      flag: "--guard",
      value: "NAME<=X",
      kind: { type: "byName", sign: "<=", all: false, min: 1, max: 1e9 },
      default: null,
      auto: "none",
      help: `a domain's loss on held-out text may be at most X times what it was at the start of the run (or of the model of --reference): a domain in danger gets weight back. Repeatable; * for all that are not named: --guard '*<=1.02' --guard 'code<=1'. Quote it`,
    },
    guardShare: {
      flag: "--guard-share",
      value: "SHARE",
      kind: { type: "number", min: 0, max: 1, openMin: true },
      default: 0.1,
      help: "how much of the training's computation the evaluations for --guard may take, counted before the run; every guarded domain is evaluated at the start and at the end, and at least twice in between where there are as many updates",
    },
    weights: {
      flag: "--weights",
      value: "NAME=X,…|FILE",
      kind: { type: "shares", sumsToOne: true },
      default: null,
      auto: "equal",
      help: "the weights of --rule static and the first weights of the rules that move them; they sum to 1. FILE: a weights.json of another run, whose averaged weights are taken",
    },
    histogram: {
      flag: "--histogram",
      value: "NAME=X,…|FILE",
      kind: { type: "shares", sumsToOne: false },
      default: null,
      auto: "counted, as gradmix histogram does",
      help: "how much of the target belongs to each domain, as shares or counts: the weights of --rule importanceSampling, and the prior of --rule dga. FILE: what gradmix histogram wrote",
    },
    reference: {
      flag: "--reference",
      value: "DIR",
      kind: { type: "text" },
      default: null,
      help: "for --rule doremi and --guard: the folder of an earlier run, whose model gives the reference losses; same domains and tokenizer",
    },
    bases: {
      flag: "--bases",
      value: "FILE",
      kind: { type: "file" },
      default: null,
      help: "basis distributions over the domains (.json or .csv): the rule moves the weights of these instead, for thousands of domains",
    },
  },
  alignment: {
    from: {
      flag: "--align-from",
      formerly: { path: "mixing.alignFrom" },
      value: "batch|step",
      kind: { type: "choice", choices: ["batch", "step"] },
      default: null,
      auto: "step; batch for rules that steps cannot measure for, and with options that only a batch has",
      help: "align the training step's own batch with the target (nearly free), or a separate batch with windows of every domain",
    },
    estimator: {
      flag: "--align-estimator",
      formerly: { flag: "--estimator", path: "mixing.estimator" },
      value: "NAME",
      kind: { type: "choice", choices: estimatorNames },
      default: null,
      auto: alignmentDefaults.estimator,
      help: "with --align-from batch, how alignments are computed: segmented (one backward pass for all domains), perDomain (one each), forward (one jvp), sketch (random projections, in error by some per cent)",
    },
    domainExamples: {
      flag: "--align-domain-examples",
      formerly: { flag: "--align-batch", path: "mixing.alignBatch" },
      value: "N",
      kind: count(1, 65_536),
      default: null,
      auto: String(alignmentDefaults.domainExamples),
      help: "with --align-from batch: windows per domain in an alignment batch",
    },
    targetExamples: {
      flag: "--align-target-examples",
      formerly: { flag: "--target-batch", path: "mixing.targetBatch" },
      value: "N",
      kind: count(1, 65_536),
      default: alignmentDefaults.targetExamples,
      help: "windows of the target in an alignment",
    },
    refreshEvery: {
      flag: "--align-refresh-every",
      value: "N",
      kind: count(1),
      default: alignmentDefaults.refreshEvery,
      help: "with --align-from step: steps between two refreshes of the target's gradient",
    },
    measureEvery: {
      flag: "--align-measure-every",
      value: "N",
      kind: count(1),
      default: alignmentDefaults.measureEvery,
      help: "with --align-from step: of so many steps one measures its windows",
    },
    bases: {
      flag: "--align-bases",
      formerly: { flag: "--basis-alignments", path: "mixing.basisAlignments" },
      value: "NAME",
      kind: { type: "choice", choices: ["shared", "direct"] },
      default: null,
      auto: alignmentDefaults.bases,
      help: "with --bases and --align-from batch: shared, the alignments of all bases from one batch, by importance weights; direct, a batch for each basis",
    },
  },
  run: {
    out: {
      flag: "--out",
      value: "DIR",
      kind: { type: "text" },
      default: "",
      auto: "runs/DATE-TIME",
      help: "the run folder: metrics, weights, model, checkpoints; must not hold a run yet",
      free: true,
    },
    evalShare: {
      flag: "--eval-share",
      value: "SHARE",
      kind: share(),
      default: null,
      auto: "0.03 unless --eval-every is given",
      help: "how much of the training's computation evaluation may take, counted before the run: the target is evaluated before the first step, at the end and between, the domains at the end and, where there is room, before it. The target at both ends and the domains at the end are evaluated whatever the share",
      free: true,
    },
    evalEvery: {
      flag: "--eval-every",
      value: "N",
      kind: count(0),
      default: null,
      auto: "as --eval-share allows",
      help: "instead of --eval-share: steps between two evaluations on all held-out sets; 0: only at the end",
      free: true,
    },
    evalTokens: {
      flag: "--eval-tokens",
      value: "N",
      kind: count(1),
      default: null,
      auto: "as --eval-share allows; 8192 with --eval-every",
      help: "tokens read from each held-out set for an evaluation",
      free: true,
    },
    checkpointEvery: {
      flag: "--checkpoint-every",
      value: "N",
      kind: count(0),
      default: 100,
      help: "steps between two checkpoints; 0: only at the end",
      free: true,
    },
    keepBest: {
      flag: "--keep-best",
      kind: { type: "switch" },
      default: false,
      help: "keep the model and the weights of the step with the best held-out target loss in the folder best/ of the run; model/ is of the last step all the same",
      free: true,
    },
    backend: {
      flag: "--backend",
      value: "NAME",
      kind: { type: "choice", choices: ["auto", "cpu", "webgpu", "reference"] },
      default: "auto",
      help: "auto: webgpu where there is a GPU, else cpu; cpu: WebAssembly SIMD on all cores; webgpu: the GPU, through Dawn; reference: plain TypeScript, slow, for checking. A resumed run goes on where it began, unless this says otherwise",
      said: true,
    },
    threads: {
      flag: "--threads",
      value: "N",
      kind: count(1, 64),
      default: null,
      auto: "one per core, at most 16",
      help: "threads of the cpu backend; the results do not depend on it",
      free: true,
    },
    simd: {
      flag: "--simd",
      value: "auto|relaxed|plain",
      kind: { type: "choice", choices: ["auto", "relaxed", "plain"] },
      default: "auto",
      help: "SIMD instructions; relaxed and plain round differently. A resumed run goes on as it began, unless this says otherwise",
      said: true,
    },
    precision: {
      flag: "--precision",
      value: "f32|f16",
      kind: { type: "choice", choices: ["f32", "f16"] },
      default: "f32",
      help: "f16: matrix products with f16 operands on GPUs that have tensor cores, with loss scaling; needs --backend webgpu",
    },
    deterministic: {
      flag: "--deterministic",
      kind: { type: "switch" },
      default: false,
      help: "pins kernel variants instead of timing them; webgpu only",
    },
    tensorboard: {
      flag: "--tensorboard",
      kind: { type: "switch" },
      default: false,
      help: "write event files for TensorBoard to tensorboard/ in the run's folder, while the run goes on",
      free: true,
    },
    memoryLimit: {
      flag: "--memory-limit",
      value: "SIZE",
      kind: { type: "bytes", min: 2 ** 22, max: 2 ** 40 },
      default: null,
      auto: "the backend's own",
      help: 'most memory for tensors, in bytes or like "512MiB", "2GiB"',
      free: true,
    },
    quiet: {
      flag: "--quiet",
      kind: { type: "switch" },
      default: false,
      help: "print only the result",
      free: true,
    },
  },
};

/** One row of the table with its place: "training.lr". */
export interface OptionRow extends OptionSpec<unknown> {
  section: keyof TrainConfig;
  key: string;
  path: string;
}

/** The table as a list, in the order of `--help`. */
export function optionRows(): OptionRow[] {
  return Object.entries(optionTable).flatMap(([section, specs]) =>
    Object.entries(specs).map(([key, spec]: [string, OptionSpec<unknown>]) => ({
      ...spec,
      section: section as keyof TrainConfig,
      key,
      path: `${section}.${key}`,
    })),
  );
}
