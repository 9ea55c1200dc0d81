/** From text files to batches of tokens: sources, tokenizers, corpora, windows, the sampler. */
export { type LeftOut, type ListOptions, listFiles } from "./files.ts";
export { type Document, readDocuments, type ReadOptions } from "./sources.ts";
export { END_OF_TEXT, type Tokenizer } from "./byte-level.ts";
export { byteTokenizer, loadTokenizer } from "./tokenizer.ts";
export { trainBpe, type TrainBpeOptions } from "./train-bpe.ts";
export { buildCorpus, type Corpus, type CorpusOptions } from "./corpus.ts";
export {
  evaluationWindows,
  readWindow,
  splitStream,
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
