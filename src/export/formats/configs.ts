/** Trainers that read YAML or JSON. Each format names the source code that was read. */
import { GradmixError } from "../../errors.ts";
import { plainDecimal, wholeParts } from "../decimals.ts";
import type { Entry, ExportFormat, PlannedStage } from "../format.ts";
import { comment, type Data, decimal, jsonText } from "../text.ts";
import {
  listOfNames,
  isStripped,
  json,
  listOf,
  pathOf,
  placeStages,
  record,
  sharesOf,
  steady,
  yaml,
} from "./shared.ts";

/** mosaicml/streaming streaming/base/stream.py, Stream; llm-foundry's train_loader.dataset.streams (July 2025). */
const mosaic: ExportFormat = steady({
  name: "mosaic",
  title: "MosaicML streaming, llm-foundry: train_loader.dataset.streams with proportions, as YAML",
  unit: "windows",
  paths: "one",
  write({ entries }, plan) {
    const streams: ReadonlyMap<string, Data> = new Map(
      entries.map((entry) => {
        const path = pathOf(entry);
        const remote = /^[a-z][a-z0-9+.-]*:\/\//i.test(path);
        return [
          entry.name,
          record({ [remote ? "remote" : "local"]: path, proportion: decimal(entry.share) }),
        ];
      }),
    );
    return yaml("mixture.yaml", plan, record({ train_loader: record({ dataset: record({ streams }) }) }), [
      "mosaic: set proportion on all streams or on none; a stream with a remote path also needs local, the folder for its shards",
    ]);
  },
});

/** allenai/OLMo-core src/olmo_core/data/source_mixture.py, SourceMixtureList.from_yaml (June 2026). */
const olmoCore: ExportFormat = steady({
  name: "olmo-core",
  title: "OLMo-core: a SourceMixtureList, as YAML",
  unit: "tokens",
  paths: "many",
  repetitions: true,
  write({ entries }, plan) {
    const { repetitions } = plan.mixture;
    // OLMo-core does not accept values below 1.
    const most = repetitions === null ? null : Math.max(1, repetitions);
    const sources = entries.map(({ name, share, paths }) =>
      record({
        source_name: name,
        target_ratio: decimal(share),
        paths,
        ...(most === null ? {} : { max_repetition_ratio: decimal(plainDecimal(most)) }),
      }),
    );
    return yaml("mixture.yaml", plan, record({ sources }), [
      most === null
        ? "olmo-core: the run had no limit on repetitions; max_repetition_ratio stays at OLMo-core's default of 1, with which it refuses to repeat a source"
        : `olmo-core: max_repetition_ratio is ${plainDecimal(most)}, the run's limit${most === repetitions ? "" : ` of ${plainDecimal(repetitions ?? most)}, raised to the smallest value that it accepts`}`,
    ]);
  },
});

/** Sequences per block (mixture_block_size); each domain gets a whole number of them. */
const LEVANTER_BLOCK = 2048;

/** The shares that the domains have in a block, by name; those that get no sequence are left out. */
function sharesOfBlock({ entries }: PlannedStage): ReadonlyMap<string, Data> {
  const counts = wholeParts(
    entries.map(({ share }) => Number(share)),
    LEVANTER_BLOCK,
  );
  // A multiple of 1/2048 has at most eleven digits, and is exact also as a double: its product with the size of a block is a whole number.
  const text = (count: number): string => (count / LEVANTER_BLOCK).toFixed(11).replace(/(\.\d+?)0+$/, "$1");
  const shares = entries.map(({ name }, i) => ({ name, count: counts[i]! }));
  return new Map(
    shares.flatMap(({ name, count }) => (count > 0 ? [[name, decimal(text(count))] as const] : [])),
  );
}

/** marin-community/marin lib/levanter/src/levanter/data/mixture.py, MixtureDataset (2026). */
const levanter: ExportFormat = {
  name: "levanter",
  title: "levanter: data.train_weights, in stages that start at sequences, as YAML",
  unit: "windows",
  stages: true,
  stageStarts: "window",
  paths: "none",
  repetitions: false,
  sidecar: false,
  write(plan) {
    const { placed, notes } = placeStages(
      plan,
      plan.context * LEVANTER_BLOCK,
      `a block of ${LEVANTER_BLOCK} sequences of ${plan.context} tokens`,
    );
    const blocks = placed.map(({ start, stage }) => ({ start, shares: sharesOfBlock(stage) }));
    const [first] = blocks;
    const weights: Data =
      blocks.length === 1 && first !== undefined
        ? first.shares
        : blocks.map(({ start, shares }) => [start * LEVANTER_BLOCK, shares]);
    const small = new Set(
      placed.flatMap(({ stage }, i) =>
        stage.entries.map(({ name }) => name).filter((name) => !blocks[i]!.shares.has(name)),
      ),
    );
    return yaml("mixture.yaml", plan, record({ data: record({ train_weights: weights }) }), [
      ...notes,
      `levanter: weights are multiples of 1/${LEVANTER_BLOCK}, because it draws whole sequences of each block of ${LEVANTER_BLOCK}, and would give what is left to the largest domain`,
      ...(placed.length === 1
        ? []
        : [
            `levanter: stages start at sequences of ${plan.context} tokens, rounded to its blocks of ${LEVANTER_BLOCK}`,
          ]),
      ...(small.size === 0
        ? []
        : [
            `levanter: left out${placed.length === 1 ? "" : " of a stage"}, since their weights are too small for one of the ${LEVANTER_BLOCK} sequences of a block: ${listOfNames([...small])}; raise them (--floor 0.0005)`,
          ]),
    ]);
  },
};

/** huggingface/nanotron src/nanotron/config/config.py, NanosetDatasetsArgs and DatasetStageArgs (April 2026). */
const nanotron: ExportFormat = {
  name: "nanotron",
  title: "nanotron: data_stages with weighted folders, as YAML",
  unit: "windows",
  stages: true,
  stageStarts: "step",
  paths: "one",
  repetitions: false,
  sidecar: false,
  write(plan) {
    const { placed, notes } = placeStages(plan, plan.batch * plan.context, "a step");
    const stages = placed.map(({ start, stage }, i) =>
      record({
        name: `gradmix stage ${i + 1}`,
        start_training_step: start + 1,
        data: record({
          dataset: record({
            dataset_folder: stage.entries.map((entry) => pathOf(entry)),
            dataset_weights: listOf(stage.entries),
          }),
          num_loading_workers: 1,
          seed: 42,
        }),
      }),
    );
    return yaml("mixture.yaml", plan, record({ data_stages: stages }), [
      ...notes,
      ...(placed.length === 1
        ? []
        : [
            `nanotron: stages start at steps of ${plan.batch} × ${plan.context} tokens; --batch and --context are those of your run`,
          ]),
    ]);
  },
};

/** EleutherAI/gpt-neox configs/local_setup.yml; megatron/data/data_utils.py (May 2026). Its files are YAML in the style of JSON. */
const neox: ExportFormat = steady({
  name: "neox",
  title: "GPT-NeoX: train-data-paths and train-data-weights, as a .yml",
  unit: "windows",
  paths: "one",
  write({ entries }, plan) {
    const data = record({
      "train-data-paths": entries.map((entry) => pathOf(entry)),
      "train-data-weights": listOf(entries),
    });
    return {
      files: [{ name: "mixture.yml", text: `${comment(plan.about)}${jsonText(data)}\n` }],
      notes: [
        "neox: add valid-data-paths and test-data-paths; leave weight_by_num_documents off, which would override the weights",
      ],
    };
  },
});

/** AI-Hypercomputer/maxtext src/maxtext/input_pipeline/grain_data_processing.py, get_datasets (August 2026). */
const maxtext: ExportFormat = steady({
  name: "maxtext",
  title: "MaxText: the JSON file of grain_train_mixture_config_path",
  unit: "documents",
  paths: "one",
  sidecar: true,
  write({ entries }) {
    const data: ReadonlyMap<string, Data> = new Map(
      entries.map((entry) => [entry.name, record({ path: pathOf(entry), weight: decimal(entry.share) })]),
    );
    return json(data, [
      "maxtext: needs grain_file_type arrayrecord; the file may change when a run is resumed, which is how stages are made",
    ]);
  },
});

/** hiyouga/LLaMA-Factory src/llamafactory/hparams/data_args.py, DataArguments (August 2026). Both lists are cut at commas and stripped. */
const llamaFactory: ExportFormat = steady({
  name: "llama-factory",
  title: "LLaMA-Factory: dataset, mix_strategy and interleave_probs, as YAML",
  unit: "documents",
  paths: "none",
  write({ entries }, plan) {
    const bad = entries.map(({ name }) => name).filter((name) => name.includes(",") || isStripped(name));
    if (bad.length > 0)
      throw new GradmixError(
        "config",
        `llama-factory: it splits its list of datasets at commas and strips spaces, so these names cannot be used: ${listOfNames(bad)}`,
      );
    const joined = (of: (entry: Entry) => string): string => entries.map(of).join(",");
    return yaml(
      "mixture.yaml",
      plan,
      record({
        dataset: joined(({ name }) => name),
        mix_strategy: "interleave_under",
        interleave_probs: joined(({ share }) => share),
      }),
      [
        "llama-factory: the names are those of dataset_info.json; interleave_under stops when the first dataset is used up, interleave_over when the last is",
      ],
    );
  },
});

/** sangmichaelxie/doremi configs/pile_uniform.json; doremi/dataloader.py, get_preprocessed_mixed_dataset (2023). */
const doremi: ExportFormat = steady({
  name: "doremi",
  title: "DoReMi: train_domain_weights, as JSON",
  unit: "windows",
  paths: "none",
  sidecar: true,
  write(stage) {
    return json(record({ train_domain_weights: sharesOf(stage) }), [
      "doremi: the names are those of its folders of preprocessed text; add eval_domain_weights",
    ]);
  },
});

/** sail-sg/regmix mixture_config/synthesize_mixture.py (October 2024). */
const regmix: ExportFormat = steady({
  name: "regmix",
  title: "RegMix: the train group of a mixture's YAML",
  unit: "windows",
  paths: "none",
  write(stage, plan) {
    return yaml("mixture.yaml", plan, record({ train: sharesOf(stage) }), [
      "regmix: the names are prefixes of its binary files (train_NAME there); add its valid group and the options of the model",
    ]);
  },
});

export const configFormats: readonly ExportFormat[] = [
  mosaic,
  olmoCore,
  levanter,
  nanotron,
  neox,
  maxtext,
  llamaFactory,
  doremi,
  regmix,
];
