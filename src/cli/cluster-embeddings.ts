/** Sources of the embeddings of documents: built in, a model2vec folder, files of rows, or a model of gradmix. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { CancelSignal } from "../cancel.ts";
import { type Embedder, embedTexts, toUnitLength } from "../data/cluster/embeddings.ts";
import type { Points } from "../data/cluster/points.ts";
import { openRows, type RowFile, rowsByNumber } from "../data/cluster/row-files.ts";
import { LOOKED_AT } from "../data/cluster/text-clusters.ts";
import { openTokenizer, type Tokenizer } from "../data/index.node.ts";
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import type { GPT } from "../nn/gpt.ts";
import { fromHuggingFace } from "../nn/huggingface/read.ts";
import { type ByteSource, openSafetensors } from "../nn/safetensors.ts";
import { fileSource, reading } from "../node/files.ts";
import { scope, tensor } from "../tensor/tensor.ts";
import { modelFolder } from "./run-places.ts";
import { readJson, configError } from "./values.ts";

export interface DocumentEmbeddings {
  /** Numbers per document. */
  readonly dim: number;
  /** Number of documents that it covers; null: any. */
  readonly count: number | null;
  /** Embeds documents. `numbers` counts them from 0 over all files, including those that are left out, and `texts` has their beginnings. Needs a backend. */
  embed(texts: readonly string[], numbers: ArrayLike<number>, signal: CancelSignal): Promise<Points>;
  close(): void;
}

/** The embeddings of the built-in embedder. */
export const builtIn = (embedder: Embedder): DocumentEmbeddings => ({
  dim: embedder.dim,
  count: null,
  embed: (texts, _, signal) => embedTexts(embedder, texts, signal),
  close: () => {},
});

/** The path of a file of rows without the column that it may name. */
const withoutColumn = (path: string): string => path.replace(/(\.parquet)#.*$/i, "$1");

/** The files that `embeddingsFrom` reads. Throws `config` if the path is neither a file of rows nor the folder of a model. */
export function embeddingsFiles(path: string): string[] {
  const folder = embeddingsFolder(path);
  return folder === null
    ? [withoutColumn(path)]
    : ["config.json", "model.safetensors", "tokenizer.json"]
        .map((name) => join(folder, name))
        .filter((file) => existsSync(file));
}

/** The folder of a model, or null for a file of rows. Throws `config` if the path is neither. */
function embeddingsFolder(path: string): string | null {
  const bare = withoutColumn(path);
  if (!existsSync(bare)) throw configError(`--embeddings ${path}: no such file or folder`);
  if (!statSync(bare).isDirectory()) {
    if (!/\.(npy|safetensors|parquet)$/i.test(bare))
      throw configError(
        `--embeddings ${path}: give a .npy, .safetensors or .parquet file of rows, a model2vec folder, or the folder of a run or model`,
      );
    return null;
  }
  const folder = existsSync(join(path, modelFolder, "model.safetensors")) ? join(path, modelFolder) : path;
  for (const name of ["model.safetensors", "tokenizer.json"])
    if (!existsSync(join(folder, name)))
      throw configError(
        `--embeddings ${path}: has no ${name}; give a model2vec folder, or that of a run or model`,
      );
  return folder;
}

/** The embeddings of a file or folder. Needs a backend for a model of gradmix. Throws `config` and `data`, naming the path. */
export async function embeddingsFrom(path: string, signal: CancelSignal): Promise<DocumentEmbeddings> {
  const folder = embeddingsFolder(path);
  if (folder === null) return fromRows(await openRows(path, signal));
  const json = readJson(join(folder, "tokenizer.json"), `--embeddings ${path}`);
  const tokenizer = openTokenizer(json);
  const isTable = reading(join(folder, "model.safetensors"), (source) =>
    openSafetensors(source).shapes.has("embeddings"),
  );
  return isTable ? fromTable(folder, tokenizer, unknownId(json)) : fromModel(folder, tokenizer);
}

function fromRows(file: RowFile): DocumentEmbeddings {
  const { dim, count } = file;
  return {
    ...{ dim, count },
    embed: async (_, numbers) => ({ values: await rowsByNumber(file, numbers), dim }),
    close: file.close,
  };
}

/** The id of the token for unknown text; null if there is none. */
function unknownId(json: unknown): number | null {
  if (!isObject(json) || !isObject(json["model"])) return null;
  const { unk_token: token, unk_id: id, vocab } = json["model"];
  if (typeof id === "number") return id;
  const found = typeof token === "string" && isObject(vocab) ? vocab[token] : null;
  return typeof found === "number" ? found : null;
}

/**
 * model2vec: the mean of the rows of a document's tokens, multiplied by their weights if there are any, and scaled to unit length unless config.json
 * disables it. As in model2vec, unknown text is ignored.
 */
function fromTable(folder: string, tokenizer: Tokenizer, unknown: number | null): DocumentEmbeddings {
  const path = join(folder, "model.safetensors");
  const { table, weights, mapping } = reading(path, (source) => {
    const { shapes, read } = openSafetensors(source, path);
    return {
      table: read("embeddings"),
      weights: shapes.has("weights") ? read("weights").data : null,
      mapping: shapes.has("mapping"),
    };
  });
  const [rows = 0, dim = 0] = table.shape;
  const damaged = (what: string): GradmixError => new GradmixError("data", `${path}: ${what}`);
  if (table.shape.length !== 2 || dim < 1) throw damaged('"embeddings" is not a matrix');
  if (mapping)
    throw damaged(
      'has a "mapping" of tokens to fewer rows, which gradmix does not support; save the model without it',
    );
  if (rows < tokenizer.vocabSize)
    throw damaged(`has ${rows} rows for the ${tokenizer.vocabSize} tokens of tokenizer.json`);
  if (weights !== null && weights.length !== rows)
    throw damaged(`has ${weights.length} weights for ${rows} rows`);
  const bad = table.data.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0)
    throw damaged(
      `number ${bad % dim} of row ${Math.floor(bad / dim)} is ${table.data[bad]}; all must be finite`,
    );
  const config = existsSync(join(folder, "config.json"))
    ? readJson(join(folder, "config.json"), `--embeddings ${folder}`)
    : {};
  const normalise = !(isObject(config) && "normalize" in config && config.normalize === false);
  return {
    ...{ dim, count: null },
    async embed(texts) {
      const values = new Float32Array(texts.length * dim);
      texts.forEach((text, i) => {
        const sums = new Float64Array(dim);
        const tokens = tokenizer.encode(text).filter((id) => id !== unknown);
        for (const id of tokens) {
          const weight = weights?.[id] ?? 1;
          for (let d = 0, at = id * dim; d < dim; d++, at++) sums[d]! += weight * table.data[at]!;
        }
        if (tokens.length > 0) for (let d = 0; d < dim; d++) values[i * dim + d] = sums[d]! / tokens.length;
      });
      if (normalise) toUnitLength(values, dim);
      return { values, dim };
    },
    close: () => {},
  };
}

/** Number of documents per batch of a model. */
const BATCH = 16;

/** The mean of a model's last hidden states over the beginning of a document that fits into its context, scaled to unit length. */
function fromModel(folder: string, tokenizer: Tokenizer): DocumentEmbeddings {
  const model: GPT = fromHuggingFace(
    new Map<string, Uint8Array | ByteSource>([
      ["config.json", new Uint8Array(readFileSync(join(folder, "config.json")))],
      ["model.safetensors", fileSource(join(folder, "model.safetensors"))],
    ]),
  );
  const { dim, context, vocabSize } = model.config;
  if (tokenizer.vocabSize > vocabSize)
    throw new GradmixError(
      "data",
      `${folder}: tokenizer.json has ${tokenizer.vocabSize} tokens, but the model has ${vocabSize}`,
    );
  return {
    ...{ dim, count: null },
    async embed(texts, _, signal) {
      const values = new Float32Array(texts.length * dim);
      for (let from = 0; from < texts.length; from += BATCH) {
        signal.throwIfAborted();
        const ids = texts
          .slice(from, from + BATCH)
          .map((text) => tokenizer.encode(text.slice(0, 8 * context)).slice(0, context));
        const time = Math.max(1, ...ids.map(({ length }) => length));
        // The padding comes after the document, where a causal model does not attend.
        const tokens = new Int32Array(ids.length * time);
        ids.forEach((own, i) => tokens.set(own, i * time));
        const states = scope(() => model.hidden(tensor(tokens, [ids.length, time])));
        try {
          const all = await states.data();
          ids.forEach(({ length }, i) => {
            for (let t = 0; t < length; t++)
              for (let d = 0; d < dim; d++)
                values[(from + i) * dim + d]! += all[(i * time + t) * dim + d]! / length;
          });
        } finally {
          states.dispose();
        }
      }
      toUnitLength(values, dim);
      return { values, dim };
    },
    close: () => model.dispose(),
  };
}

/** The beginning of a document that embeddings use, in whole characters. */
export const beginningOf = (text: string): string =>
  text.length <= LOOKED_AT ? text : text.slice(0, LOOKED_AT).replace(/[\uD800-\uDBFF]$/, "");
