/** Trainers whose mixtures are defined in Python. Each format names the source code that was read. */
import type { ExportFormat, FormatOutput, Plan } from "../format.ts";
import { comment, type Data, jsonText } from "../text.ts";
import { listOfNames, pathOf, sharesOf, steady } from "./shared.ts";

/** A Python module with the weights by name, followed by the given code. */
function module(
  plan: Plan,
  imports: string,
  constants: readonly (readonly [string, Data])[],
  code: string,
  notes: readonly string[],
): FormatOutput {
  const lines = constants.map(([name, data]) => `${name} = ${jsonText(data)}\n`);
  const text = `${comment(plan.about)}${imports}\n\n${lines.join("")}\n\n${code}`;
  return { files: [{ name: "mixture.py", text }], notes };
}

/** huggingface/datasets src/datasets/combine.py, interleave_datasets (version 5.0). */
const hfDatasets: ExportFormat = steady({
  name: "hf-datasets",
  title: "Hugging Face datasets: a Python module that calls interleave_datasets",
  unit: "documents",
  paths: "optional",
  write(stage, plan) {
    const { entries } = stage;
    const without = entries.filter((entry) => entry.paths.length === 0).map(({ name }) => name);
    const paths: readonly (readonly [string, Data])[] =
      without.length === 0 ? [["PATHS", new Map(entries.map((entry) => [entry.name, entry.paths]))]] : [];
    return module(
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
      [
        ...(without.length === 0 || without.length === entries.length
          ? []
          : [`hf-datasets: the paths are not written, since there is none for ${listOfNames(without)}`]),
        'hf-datasets: "all_exhausted" continues until every dataset was read once, and repeats those that end earlier; limit the run by its steps',
      ],
    );
  },
});

/** Lightning-AI/litdata src/litdata/streaming/combined.py, CombinedStreamingDataset (April 2025). */
const litdata: ExportFormat = steady({
  name: "litdata",
  title: "LitData, LitGPT: a Python module that makes a CombinedStreamingDataset",
  unit: "windows",
  paths: "one",
  write(stage, plan) {
    return module(
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
      [
        "litdata: it stops when one dataset ends, and begins again with the next epoch; weights are refused with iterate_over_all=True",
      ],
    );
  },
});

/** pytorch/torchtitan torchtitan/components/data/dataset.py, DatasetMixConfig (August 2026). */
const torchtitan: ExportFormat = steady({
  name: "torchtitan",
  title: "torchtitan: a Python module that makes a DatasetMixConfig",
  unit: "documents",
  paths: "none",
  write(stage, plan) {
    return module(
      plan,
      "from torchtitan.components.data import DatasetMixConfig, WeightedDataset",
      [["WEIGHTS", sharesOf(stage)]],
      `def mix(datasets):
    """The configuration of a mixture of datasets (a DatasetConfig by name)."""
    return DatasetMixConfig(
        datasets=tuple(
            WeightedDataset(dataset=datasets[name], weight=weight)
            for name, weight in WEIGHTS.items()
        )
    )
`,
      [
        "torchtitan: children that are packed into windows before they are mixed count windows: --rows windows",
      ],
    );
  },
});

export const pythonFormats: readonly ExportFormat[] = [hfDatasets, litdata, torchtitan];
