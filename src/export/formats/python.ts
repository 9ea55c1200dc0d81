/** Trainers whose mixtures are made in Python. Each names the source that was read. */
import type { ExportFormat, Plan } from "../format.ts";
import { comment, type Data, jsonText } from "../text.ts";
import { pathOf, sharesOf } from "./shared.ts";

/** A module with the weights by name, and what else it says. */
function module(
  plan: Plan,
  imports: string,
  constants: readonly (readonly [string, Data])[],
  code: string,
): string {
  const lines = constants.map(([name, data]) => `${name} = ${jsonText(data)}\n`);
  return `${comment(plan.about)}${imports}\n\n${lines.join("")}\n\n${code}`;
}

/** huggingface/datasets src/datasets/combine.py, interleave_datasets (version 5.0). */
const hfDatasets: ExportFormat = {
  name: "hf-datasets",
  title: "Hugging Face datasets: a Python module that calls interleave_datasets",
  unit: "documents",
  stages: false,
  paths: "optional",
  repetitions: false,
  sidecar: false,
  write(plan) {
    const [stage] = plan.stages;
    const { entries } = stage;
    const paths: readonly (readonly [string, Data])[] = entries.every((entry) => entry.paths.length > 0)
      ? [["PATHS", new Map(entries.map((entry) => [entry.name, entry.paths]))]]
      : [];
    const text = module(
      plan,
      "from datasets import interleave_datasets",
      [["PROBABILITIES", sharesOf(stage)], ...paths],
      `def mix(datasets, seed=1, stopping_strategy="all_exhausted"):
    """Interleaves the datasets (a Dataset or IterableDataset by name), drawing each row from one of them by its probability."""
    return interleave_datasets(
        [datasets[name] for name in PROBABILITIES],
        probabilities=list(PROBABILITIES.values()),
        seed=seed,
        stopping_strategy=stopping_strategy,
    )
`,
    );
    return {
      files: [{ name: "mixture.py", text }],
      notes: [
        'hf-datasets: "all_exhausted" goes on until every dataset was read once, and repeats those that end before; bound the run by its steps',
      ],
    };
  },
};

/** Lightning-AI/litdata src/litdata/streaming/combined.py, CombinedStreamingDataset (April 2025). */
const litdata: ExportFormat = {
  name: "litdata",
  title: "LitData, LitGPT: a Python module that makes a CombinedStreamingDataset",
  unit: "windows",
  stages: false,
  paths: "one",
  repetitions: false,
  sidecar: false,
  write(plan) {
    const [stage] = plan.stages;
    const text = module(
      plan,
      "from litdata import CombinedStreamingDataset, StreamingDataset",
      [
        ["WEIGHTS", sharesOf(stage)],
        ["PATHS", new Map(stage.entries.map((entry) => [entry.name, pathOf(entry)]))],
      ],
      `def mix(seed=1, **options):
    """Streams from the folders by their weights. The options are those of StreamingDataset, such as item_loader."""
    datasets = [StreamingDataset(PATHS[name], **options) for name in WEIGHTS]
    return CombinedStreamingDataset(
        datasets, seed=seed, weights=list(WEIGHTS.values()), iterate_over_all=False
    )
`,
    );
    return {
      files: [{ name: "mixture.py", text }],
      notes: [
        "litdata: it stops when one dataset ends, and begins again with the next epoch; weights are refused with iterate_over_all=True",
      ],
    };
  },
};

/** pytorch/torchtitan torchtitan/components/data/dataset.py, DatasetMixConfig (August 2026). */
const torchtitan: ExportFormat = {
  name: "torchtitan",
  title: "torchtitan: a Python module that makes a DatasetMixConfig",
  unit: "documents",
  stages: false,
  paths: "none",
  repetitions: false,
  sidecar: false,
  write(plan) {
    const text = module(
      plan,
      "from torchtitan.components.data import DatasetMixConfig, WeightedDataset",
      [["WEIGHTS", sharesOf(plan.stages[0])]],
      `def mix(datasets):
    """The configuration of a mixture of datasets (a DatasetConfig by name)."""
    return DatasetMixConfig(
        datasets=tuple(
            WeightedDataset(dataset=datasets[name], weight=weight)
            for name, weight in WEIGHTS.items()
        )
    )
`,
    );
    return {
      files: [{ name: "mixture.py", text }],
      notes: [
        "torchtitan: children that are packed into windows before they are mixed count windows: --rows windows",
      ],
    };
  },
};

export const pythonFormats: readonly ExportFormat[] = [hfDatasets, litdata, torchtitan];
