/** NVIDIA's formats: Megatron-LM and NeMo, NeMo Automodel, Megatron-Bridge, Megatron-Energon. Each names the source code that was read. */
import { GradmixError } from "../../errors.ts";
import { plainDecimal } from "../decimals.ts";
import type { ExportedFile, ExportFormat } from "../format.ts";
import { shellWord } from "../../shell-word.ts";
import { comment, type Data, decimal, jsonText } from "../text.ts";
import {
  checkStripped,
  listOfNames,
  listOf,
  pathOf,
  placeStages,
  pythonSpace,
  record,
  steady,
  yaml,
} from "./shared.ts";

/** BlendedDataset stores the index of a dataset in an i16, and asserts that there are fewer than 32,767. */
const MOST_DATASETS = 32_766;

/** megatron/core/datasets/utils.py, get_blend_from_list; megatron/training/utils/common_utils.py, get_blend_and_blend_per_split (August 2026). */
const megatron: ExportFormat = {
  name: "megatron",
  title:
    "Megatron-LM, NeMo: words of --data-path, and files for --data-args-path and --per-split-data-args-path",
  unit: "windows",
  stages: true,
  stageStarts: "step",
  paths: "one",
  repetitions: false,
  sidecar: true,
  write(plan) {
    const { placed, notes } = placeStages(plan, plan.batch * plan.context, "a step");
    const files: ExportedFile[] = [];
    const entries = placed.flatMap(({ stage }) => stage.entries);
    checkStripped("megatron", entries);
    const spaced = new Set(
      entries.filter((entry) => pythonSpace.test(pathOf(entry))).map(({ name }) => name),
    );
    for (const [i, { stage }] of placed.entries()) {
      const suffix = placed.length === 1 ? "" : `.stage-${i + 1}`;
      const words = stage.entries.flatMap((entry) => [entry.share, pathOf(entry)]);
      if (stage.entries.length > MOST_DATASETS)
        throw new GradmixError(
          "config",
          `megatron: ${stage.entries.length} datasets are more than the ${MOST_DATASETS} that its index holds`,
        );
      files.push({
        name: `data-path${suffix}.sh`,
        text: `${comment(plan.about)}--data-path ${words.map(shellWord).join(" ")}\n`,
      });
      // Megatron splits the words of this file with str.split().
      if (spaced.size === 0) files.push({ name: `data-args${suffix}.txt`, text: `${words.join(" ")}\n` });
      files.push({
        name: `per-split${suffix}.json`,
        text: `${jsonText(record({ train: words, valid: null, test: null }))}\n`,
      });
    }
    const transitions = placed.slice(1).map(({ start }) => start);
    return {
      files,
      notes: [
        ...notes,
        ...(spaced.size === 0
          ? []
          : [
              `megatron: no data-args.txt, since its reader cuts at spaces, and the paths of ${listOfNames([...spaced])} have some; the other files keep them`,
            ]),
        ...(transitions.length === 0
          ? []
          : [
              `megatron: start with the files of stage 1 and --phase-transition-iterations ${transitions.join(",")}; it stops at each, to be started again from its checkpoint with the next stage's (iterations of ${plan.batch} × ${plan.context} tokens)`,
            ]),
        "megatron: valid and test of per-split.json are null: name your evaluation sets there, or leave them out",
      ],
    };
  },
};

/** nemo_automodel/components/training/domain_mixture.py, DomainMixtureConfig; datasets/llm/megatron_dataset.py, paths (2026). */
const nemoAutomodel: ExportFormat = steady({
  name: "nemo-automodel",
  title: "NeMo Automodel: domain_mixture and the paths of its Megatron dataset, as YAML",
  unit: "windows",
  paths: "one",
  write({ entries }, plan) {
    if (entries.length < 2)
      throw new GradmixError("config", "nemo-automodel: a domain_mixture needs at least two domains");
    if (entries.some(({ name }) => name === "weighted"))
      throw new GradmixError(
        "config",
        'nemo-automodel: it keeps the name "weighted" for its own sums; rename that domain',
      );
    checkStripped("nemo-automodel", entries);
    const domains = entries.map((entry) =>
      record({
        name: entry.name,
        sampling_weight: decimal(entry.share),
        objective_weight: decimal(entry.share),
        path: pathOf(entry),
      }),
    );
    const paths = entries.flatMap((entry) => [entry.share, pathOf(entry)]);
    return yaml(
      "mixture.yaml",
      plan,
      record({ dataset: record({ paths }), domain_mixture: record({ domains }) }),
      [
        "nemo-automodel: sampling and objective weights are the same; a sampler that cannot change keeps its sampling_weight, and the loss is then multiplied by objective / sampling",
      ],
    );
  },
});

/** docs/training/data-preparation.md; data/sources/hf.py, resolve_blend_weights (August 2026). */
const megatronBridge: ExportFormat = steady({
  name: "megatron-bridge",
  title: "Megatron-Bridge fine-tuning: source_weights, which are epochs of each source, as YAML",
  unit: "epochs",
  paths: "one",
  write({ entries }, plan) {
    const source = entries.map((entry) => record({ path_or_dataset: pathOf(entry) }));
    return yaml(
      "mixture.yaml",
      plan,
      record({ dataset: record({ source, source_weights: listOf(entries) }) }),
      [
        `megatron-bridge: its weights are passes over each source: weight × ${plainDecimal(plan.tokens)} tokens of the run / tokens of the domain; --scale-to is for another length`,
      ],
    );
  },
});

/** src/megatron/energon/metadataset/metadataset_v2.py, MetadatasetBlend (June 2026). */
const energon: ExportFormat = steady({
  name: "energon",
  title: "Megatron-Energon: a blend of a MetadatasetV2, as YAML",
  unit: "documents",
  paths: "one",
  write({ entries }, plan) {
    const blend: readonly Data[] = entries.map((entry) =>
      record({ weight: decimal(entry.share), path: pathOf(entry) }),
    );
    return yaml(
      "mixture.yaml",
      plan,
      record({
        __module__: "megatron.energon",
        __class__: "MetadatasetV2",
        splits: record({ train: record({ blend }) }),
      }),
      [
        "energon: versions that have Recipe take the same file with __class__: Recipe; add val and test to splits",
      ],
    );
  },
});

export const megatronFormats: readonly ExportFormat[] = [megatron, nemoAutomodel, megatronBridge, energon];
