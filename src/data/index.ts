/**
 * From text to batches of tokens: tokenizers, corpora, windows, the sampler. This is the entry for browsers, where functions that read files throw;
 * index.node.ts is the entry for Node.js.
 */
export type { LeftOut, ListOptions } from "./files.ts";
export type { Document, ReadOptions } from "./sources.ts";
export type { KnownTokenFile, TokenFileFacts, TokenFileOptions } from "./stored-tokens.ts";
export type { FileStamp } from "./token-files.ts";
export { listFiles, openTokenizer, openTokens, readDocuments } from "./no-files.ts";
export { END_OF_TEXT, type Tokenizer } from "./byte-level.ts";
export { byteTokenizer, loadTokenizer } from "./tokenizer.ts";
export { trainBpe, type TrainBpeOptions } from "./train-bpe.ts";
export { buildCorpus, type Corpus, type CorpusOptions, type StoredCorpus } from "./corpus.ts";
export {
  evaluationWindows,
  readWindow,
  splitStream,
  type StoredStream,
  type StoredTokens,
  type TokenStream,
  tokenWriter,
  type TokenWriter,
  type WindowOptions,
  type Windows,
  windowsOf,
} from "./tokens.ts";
export { aliasTable, type Choice, cumulativeTable } from "./alias.ts";
export {
  createSampler,
  type Draw,
  type SampledDomain,
  type Sampler,
  type SamplerOptions,
  type SamplerState,
  type SamplingMode,
} from "./sampler.ts";
export { assembleBatch, type DrawnWindows } from "./batch.ts";
export { type Dataset, examplesOf, type RowBatch, rowsOf, type Table } from "./dataset.ts";
export { bigramHistogram, type Histogram, type HistogramOptions } from "./histogram.ts";
export {
  type SelectedWindows,
  type Selection,
  type SelectionOptions,
  selectWindows,
} from "./select-windows.ts";
export { divideByLikeness, type LikenessOptions } from "./likeness.ts";
export {
  kMeans,
  type KMeansOptions,
  type KMeansResult,
  type FitMemory,
  type FitState,
} from "./cluster/kmeans.ts";
export { type Nearest, nearestCentroids } from "./cluster/nearest-centroids.ts";
export type { Points } from "./cluster/points.ts";
export {
  assignClusters,
  type ClusterLevel,
  type ClusterOptions,
  type Clusters,
  fitClusters,
  leafCount,
} from "./cluster/tree.ts";
export { type Embedder, type EmbedderOptions, embedTexts, fitEmbedder } from "./cluster/embeddings.ts";
export {
  assignTexts,
  fitTextClusters,
  type TextClusterOptions,
  type TextClusters,
} from "./cluster/text-clusters.ts";
export { type ClusteredCorpus, clusterHistogram, cutTexts, groupTexts } from "./cluster/histogram.ts";
export { clusterShares, type ClusterShares, type ClusterTree } from "./cluster/shares.ts";
export { decodeNpy, encodeNpy, type NpyArray, type NpyValues } from "./npy.ts";
