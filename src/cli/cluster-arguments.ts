/** The arguments of `gradmix cluster`, checked. */
import { embedderDefaults, kMeansDefaults } from "../data/defaults.ts";
import { gptVocabularies } from "../data/gpt-vocabulary-table.ts";
import { withShards } from "./prepared-folder.ts";
import { integerOption, textOption, configError } from "./values.ts";

export interface ClusterArguments {
  readonly files: readonly string[];
  /** The folder to make. */
  readonly out: string;
  /** Clusters per cluster of the level above, from the top. */
  readonly levels: readonly number[];
  /** The flag that says or could say so. */
  readonly levelsFlag: "--clusters" | "--levels";
  /** Folder with given clusters of every document (one .npy per file); null: clusters are computed. */
  readonly ids: string | null;
  /** Number of clusters in `ids`; null: one more than its largest number. */
  readonly count: number | null;
  /** "byte", or a tokenizer.json or vocabulary with which sizes are also counted in tokens; null: tokens are not counted. */
  readonly tokenizer: string | null;
  /** File or folder of the documents' embeddings; null: the built-in ones. */
  readonly embeddings: string | null;
  /** Largest cluster size as a multiple of the mean of its level; null: no limit. */
  readonly balance: number | null;
  /** Numbers per document, for the built-in embeddings. */
  readonly dim: number;
  /** Largest number of documents to which the clusters are fitted. */
  readonly sample: number;
  readonly seed: number;
  readonly textField: string;
  /** Whether `textField` was given, also as its default. */
  readonly textFieldGiven: boolean;
  readonly skipBadLines: boolean;
  /** Number of threads; null: one per core, at most `THREADS_UNASKED`. */
  readonly threads: number | null;
  readonly quiet: boolean;
}

export const clusterDefaults: Readonly<
  Pick<ClusterArguments, "levels" | "dim" | "sample" | "seed" | "textField">
> = {
  levels: [64],
  dim: embedderDefaults.dim,
  sample: 50_000,
  seed: kMeansDefaults.seed,
  textField: "text",
};

/** Checks what commander has parsed. Throws `config`, naming the flag. */
export function clusterArguments(
  files: readonly string[],
  options: Readonly<Record<string, unknown>>,
): ClusterArguments {
  const text = (name: string): string | null => textOption(options, name);
  const integer = (name: string, min: number, max?: number): number | null =>
    integerOption(options, name, min, max);
  const clusters = integer("clusters", 1);
  const levels = text("levels");
  const ids = text("ids");
  const found = withShards(files);
  const tokenizer = text("tokenizer") ?? found.tokenizer;
  const embeddings = text("embeddings");
  const textField = text("textField");
  const dim = integer("dim", 1, 2048);
  const balance = text("balanced");
  if (embeddings !== null && dim !== null)
    throw configError("--dim and --embeddings: the dimension of given embeddings is fixed; leave out --dim");
  if (ids !== null && (embeddings !== null || balance !== null))
    throw configError(
      `--ids and --${embeddings === null ? "balanced" : "embeddings"}: the clusters are already given by --ids; leave out one of the two flags`,
    );
  if (ids !== null && levels !== null)
    throw configError("--ids and --levels: the clusters of --ids have no levels; leave out --levels");
  if (
    tokenizer !== null &&
    tokenizer !== "byte" &&
    !tokenizer.endsWith(".json") &&
    !gptVocabularies.includes(tokenizer)
  )
    throw configError(
      `--tokenizer: "${tokenizer}" is not "byte", the path of a tokenizer.json or the name of a vocabulary (${gptVocabularies.join(", ")})`,
    );
  if (clusters !== null && levels !== null)
    throw configError("--clusters and --levels: give one of them; --levels 64,64 makes up to 4,096 clusters");
  return {
    files: found.files,
    out: text("out") ?? "",
    ids,
    count: clusters,
    tokenizer,
    levels: clusters !== null ? [clusters] : levels === null ? clusterDefaults.levels : levelsOf(levels),
    levelsFlag: levels === null ? "--clusters" : "--levels",
    embeddings,
    balance: balance === null ? null : balanceOf(balance),
    dim: dim ?? clusterDefaults.dim,
    sample: integer("sample", 1) ?? clusterDefaults.sample,
    seed: integer("seed", 0, Number.MAX_SAFE_INTEGER) ?? clusterDefaults.seed,
    textField: textField ?? clusterDefaults.textField,
    textFieldGiven: textField !== null,
    skipBadLines: options["skipBadLines"] === true,
    threads: integer("threads", 1, 1024),
    quiet: options["quiet"] === true,
  };
}

function balanceOf(given: string): number {
  const value = /^\d+(\.\d+)?$/.test(given.trim()) ? Number(given) : NaN;
  if (!(value >= 1))
    throw configError(
      `--balanced: "${given}" is not a number of at least 1, such as 1.5 (the size of the largest cluster divided by the mean size)`,
    );
  return value;
}

function levelsOf(text: string): number[] {
  const parts = text.split(",").map((part) => (/^\d+$/.test(part.trim()) ? Number(part) : NaN));
  if (!parts.every((k) => Number.isSafeInteger(k) && k >= 1))
    throw configError(`--levels: "${text}" is not a list of whole numbers of at least 1, such as 64,64`);
  return parts;
}
