"""Reads exported files with the tools' own code, where it is installed, else with an independent parser.

Usage: python3 read_back.py FOLDER, with a folder of files for each format. Prints one line of JSON: for each format
{"by": the reader, "weights": [[name or path, weight], ...]}, or {"skip": the reason}.
"""

import csv
import importlib.util
import json
import os
import sys

CHECKS = {}


def check(name):
    def register(function):
        CHECKS[name] = function
        return function

    return register


def text(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read()


def yaml_of(folder, name="mixture.yaml"):
    import yaml

    return yaml.load(text(folder, name), Loader=yaml.FullLoader)


def module(folder):
    spec = importlib.util.spec_from_file_location("mixture", os.path.join(folder, "mixture.py"))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@check("megatron")
def megatron(folder):
    from megatron.core.datasets.utils import get_blend_from_list

    # As megatron/training/utils/common_utils.py reads the two files.
    found = [get_blend_from_list(json.loads(text(folder, "per-split.json"))["train"])]
    if os.path.exists(os.path.join(folder, "data-args.txt")):
        found.append(get_blend_from_list(text(folder, "data-args.txt").split()))
    assert all(blend == found[0] for blend in found)
    paths, weights = found[0]
    return "megatron.core.datasets.utils.get_blend_from_list", list(zip(paths, weights))


@check("nemo-automodel")
def nemo_automodel(folder):
    from nemo_automodel.components.training.domain_mixture import DomainMixtureConfig, DomainWeightConfig

    domains = yaml_of(folder)["domain_mixture"]["domains"]
    built = DomainMixtureConfig(domains=tuple(DomainWeightConfig(**domain) for domain in domains)).build()
    assert all(multiplier == 1 for multiplier in built.loss_multipliers)
    return "nemo_automodel DomainMixtureConfig.build", list(zip(built.names, built.sampling_weights))


@check("hf-datasets")
def hf_datasets(folder):
    import datasets

    mixture = module(folder)
    rows = {
        name: datasets.IterableDataset.from_generator(lambda at=at: ({"at": at} for _ in iter(int, 1)))
        for at, name in enumerate(mixture.PROBABILITIES)
    }
    mixed = mixture.mix(rows, seed=1)
    drawn = [row["at"] for row in mixed.take(3000)]
    names = list(mixture.PROBABILITIES)
    counted = [drawn.count(at) / len(drawn) for at in range(len(names))]
    # Six standard errors.
    for share, name in zip(counted, names):
        p = mixture.PROBABILITIES[name]
        assert abs(share - p) <= 6 * (p * (1 - p) / len(drawn)) ** 0.5 + 1 / len(drawn), (name, share, p)
    return "datasets.interleave_datasets", list(mixture.PROBABILITIES.items())


@check("litdata")
def litdata(folder):
    import litdata

    class Folder(litdata.StreamingDataset):
        def __init__(self, path):
            self.path = path

    mixture = module(folder)
    mixture.StreamingDataset = Folder
    mixed = mixture.mix()
    paths = {path: name for name, path in mixture.PATHS.items()}
    return "litdata.CombinedStreamingDataset", [
        (paths[dataset.path], weight) for dataset, weight in zip(mixed._datasets, mixed._weights)
    ]


@check("torchtitan")
def torchtitan(folder):
    from torchtitan.components.data import DatasetMixConfig

    mixture = module(folder)
    mixed = mixture.mix({name: name for name in mixture.WEIGHTS})
    assert isinstance(mixed, DatasetMixConfig)
    return "torchtitan DatasetMixConfig", [(item.dataset, item.weight) for item in mixed.datasets]


@check("olmo-core")
def olmo_core(folder):
    from olmo_core.data.source_mixture import SourceMixtureConfig, SourceMixtureList

    sources = [SourceMixtureConfig(**source) for source in yaml_of(folder)["sources"]]
    for source in sources:
        source.validate()
    SourceMixtureList(sources=sources).validate()
    return "olmo_core SourceMixtureConfig.validate", [(source.source_name, source.target_ratio) for source in sources]


@check("llama-factory")
def llama_factory(folder):
    from llamafactory.hparams.data_args import DataArguments

    arguments = DataArguments(**yaml_of(folder))
    return "llamafactory DataArguments", list(zip(arguments.dataset, arguments.interleave_probs))


@check("olmix")
def olmix(folder):
    from olmix.fit.loaders import load_from_csv

    ratios, metrics, domains, names = load_from_csv(
        os.path.join(folder, "ratios.csv"), os.path.join(folder, "metrics.csv")
    )
    assert len(ratios) == len(metrics) == 1 and len(names) > 0
    return "olmix.fit.loaders.load_from_csv", [(name, float(ratios[name][0])) for name in domains]


@check("mosaic")
def mosaic(folder):
    streams = yaml_of(folder)["train_loader"]["dataset"]["streams"]
    for stream in streams.values():
        assert ("local" in stream) != ("remote" in stream)
    return "PyYAML", [(name, stream["proportion"]) for name, stream in streams.items()]


@check("levanter")
def levanter(folder):
    return "PyYAML", list(yaml_of(folder)["data"]["train_weights"].items())


@check("nanotron")
def nanotron(folder):
    (stage,) = yaml_of(folder)["data_stages"]
    assert stage["start_training_step"] == 1
    dataset = stage["data"]["dataset"]
    assert len(dataset["dataset_folder"]) == len(dataset["dataset_weights"])
    return "PyYAML", list(zip(dataset["dataset_folder"], dataset["dataset_weights"]))


@check("neox")
def neox(folder):
    # megatron/neox_arguments/arguments.py loads with this loader too.
    data = yaml_of(folder, "mixture.yml")
    return "PyYAML, as GPT-NeoX", list(zip(data["train-data-paths"], data["train-data-weights"]))


@check("energon")
def energon(folder):
    data = yaml_of(folder)
    assert data["__module__"] == "megatron.energon"
    return "PyYAML", [(part["path"], part["weight"]) for part in data["splits"]["train"]["blend"]]


@check("megatron-bridge")
def megatron_bridge(folder):
    dataset = yaml_of(folder)["dataset"]
    return "PyYAML", list(zip([part["path_or_dataset"] for part in dataset["source"]], dataset["source_weights"]))


@check("regmix")
def regmix(folder):
    return "PyYAML", list(yaml_of(folder)["train"].items())


@check("maxtext")
def maxtext(folder):
    # src/maxtext/input_pipeline/grain_data_processing.py reads it so.
    data = json.loads(text(folder, "mixture.json"))
    return "json, as MaxText", [(name, float(part["weight"])) for name, part in data.items()]


@check("doremi")
def doremi(folder):
    return "json", list(json.loads(text(folder, "mixture.json"))["train_domain_weights"].items())


@check("json")
def own_json(folder):
    (stage,) = json.loads(text(folder, "mixture.json"))["stages"]
    return "json", [(name, part["weight"]) for name, part in stage["domains"].items()]


@check("csv")
def own_csv(folder):
    with open(os.path.join(folder, "mixture.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return "csv", [(row["domain"], float(row["weight"])) for row in rows]


def main(folder):
    found = {}
    for name in sorted(os.listdir(folder)):
        try:
            by, weights = CHECKS[name](os.path.join(folder, name))
            found[name] = {"by": by, "weights": [[key, float(weight)] for key, weight in weights]}
        except ImportError as error:
            found[name] = {"skip": str(error)}
    json.dump(found, sys.stdout)


main(sys.argv[1])
