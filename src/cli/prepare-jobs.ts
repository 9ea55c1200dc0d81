/**
 * The two kinds of work of `gradmix prepare`, both written atomically: a job's text as tokens (`work/ID.bin`, with the positions of documents in
 * `work/ID.docs`), and the tokens of all jobs as the shard of each domain.
 */
import * as nodeFs from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { Tokenizer } from "../data/byte-level.ts";
import { linesBefore } from "../data/cuts.ts";
import { type Document, type FilePart, readPart } from "../data/sources.ts";
import {
  closeFiles,
  type FileRange,
  growing,
  type Growing,
  type Runs,
  storedTokens,
} from "../data/stored-tokens.ts";
import { littleEndianBytes, tokenBytes } from "../data/token-files.ts";
import { isWide, type StoredStream } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import { ioError, writeAll, type WriteFs } from "../node/files.ts";
import { writeMegatronBlocks, writeNanoGPTBlocks } from "../node/write-tokens.ts";
import { type ClusterFolder, clusteredDocuments } from "./cluster-folder.ts";
import { type Label, labelName } from "./labels.ts";
import { checkStamp, type Job, type PreparePlan, shardPath, stampOf } from "./prepare-plan.ts";
import { preparedFiles, type Shard } from "./prepared-folder.ts";

/** The result of a job. */
export interface JobFacts {
  readonly documents: number;
  readonly tokens: number;
  /** UTF-8 bytes of the text. */
  readonly textBytes: number;
  /** Number of lines and files that were left out. */
  readonly skipped: number;
  /** Number of documents without text, and where the first is; absent if there are none. */
  readonly empty?: number;
  readonly firstEmpty?: PlaceInPart;
}

/** A line or row of a part of a file. */
export interface PlaceInPart {
  readonly path: string;
  /** First byte of the part. */
  readonly from: number;
  /** Number of the line in the part, counted from 1. */
  readonly line: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The name of a place in its whole file, with the number of its line. Reads the file up to there. */
export function placeInFile({ path, from, line }: PlaceInPart): string {
  return `${path}:${(from === 0 ? 0 : linesBefore(path, from)) + line}`;
}

/** Progress of a job. */
export interface JobProgress {
  /** Bytes of the input, bytes of the text, and documents since the last report. */
  readonly input: number;
  readonly text: number;
  readonly documents: number;
}

export interface JobContext {
  readonly folder: string;
  readonly plan: PreparePlan;
  readonly tokenizer: Tokenizer;
  /** The folder of clusters, if the domains are clusters. */
  readonly clusters: ClusterFolder | null;
}

/** Path of a job's tokens, without an extension. */
export function jobPath(folder: string, id: string): string {
  return join(folder, preparedFiles.work, id);
}

/** Numbers per document in `.docs`: tokens, text bytes, and label. */
const COLUMNS = 3;

/** Turns a job's text into tokens. Throws `data`, naming file or line, and `io`; then its files are removed. */
export async function encodeJob(
  job: Job,
  { folder, plan, tokenizer, clusters }: JobContext,
  onProgress: (progress: JobProgress) => void = () => {},
  fs: WriteFs = nodeFs,
): Promise<JobFacts> {
  const path = jobPath(folder, job.id);
  const tokens = columnFile(`${path}.bin`, isWide(tokenizer.vocabSize), fs);
  const table = columnFile(`${path}.docs`, true, fs);
  const facts: Mutable<JobFacts> = { documents: 0, tokens: 0, textBytes: 0, skipped: 0 };
  try {
    for (const part of job.parts) {
      checkStamp(plan.inputs[part.file]!);
      let [read, reported] = [0, { input: 0, text: facts.textBytes, documents: facts.documents }];
      const tell = (input: number): void => {
        const { textBytes: text, documents } = facts;
        onProgress({
          input: input - reported.input,
          text: text - reported.text,
          documents: documents - reported.documents,
        });
        reported = { input, text, documents };
      };
      const options = {
        textField: plan.options.textField,
        skipBadLines: plan.options.skipBadLines,
        ...(job.label < 0 && clusters === null ? { domainField: plan.options.domainField ?? "" } : {}),
        onSkip: () => void facts.skipped++,
        // The lines before the part are counted at the end, and only for the first of all.
        onEmpty(_: string, line: number) {
          facts.firstEmpty ??= { path: part.path, from: part.from, line };
          facts.empty = (facts.empty ?? 0) + 1;
        },
      };
      const documents = clustered(
        clusters,
        job.label < 0 ? part.path : null,
        readWithLines(part, options, (bytes) => {
          read = bytes;
        }),
      );
      for await (const document of documents) {
        const count = encodeTo(tokens, document, tokenizer);
        const textBytes = Buffer.byteLength(document.text);
        const label = job.label < 0 ? labelOf(plan, document) : job.label;
        table.append(Uint32Array.of(count, textBytes, label));
        facts.documents++;
        facts.tokens += count;
        facts.textBytes += textBytes;
        if (read - reported.input >= TELL || facts.textBytes - reported.text >= TELL) tell(read);
      }
      tell((part.to ?? plan.inputs[part.file]!.size) - part.from);
      checkStamp(plan.inputs[part.file]!);
    }
    tokens.end();
    table.end();
    return facts;
  } catch (error) {
    tokens.discard();
    table.discard();
    throw error;
  }
}

/** Number of bytes between two progress reports. */
const TELL = 1 << 22;

/** Like `readPart`. Line numbers are counted only for an error. */
async function* readWithLines(
  part: FilePart,
  options: Parameters<typeof readPart>[1],
  onBytes: (bytes: number) => void,
): AsyncGenerator<Document, void, undefined> {
  try {
    yield* readPart(part, options, onBytes);
  } catch (error) {
    if (part.from === 0 || !(error instanceof GradmixError)) throw error;
    // Read again, for the same error with its line number.
    const rereading = readPart({ ...part, lines: linesBefore(part.path, part.from) }, options);
    for await (const _ of rereading);
    throw error;
  }
}

function clustered(
  clusters: ClusterFolder | null,
  path: string | null,
  documents: AsyncIterable<Document>,
): AsyncIterable<Document> {
  const file = clusters?.files.find((one) => one.path === path);
  return clusters === null || file === undefined ? documents : clusteredDocuments(clusters, file, documents);
}

function labelOf({ mixed }: PreparePlan, { domain = "", source }: Document): number {
  const label = mixed?.labelOf.get(domain);
  if (label === undefined)
    throw new GradmixError(
      "data",
      `${source}: the domain ${JSON.stringify(domain)} is new, so the file changed while it was read; prepare it again`,
    );
  return label;
}

/** Writes a document and its end-of-text token, and returns the number of tokens. */
function encodeTo(file: ColumnFile, { text, source }: Document, tokenizer: Tokenizer): number {
  let count = 1;
  try {
    tokenizer.encodeBlocks(text, (ids) => {
      count += ids.length;
      file.append(ids);
    });
  } catch (error) {
    if (!(error instanceof GradmixError) || error.code === "io") throw error;
    throw new GradmixError(error.code, `${source}: ${error.message}`, { cause: error });
  }
  file.append(Uint32Array.of(tokenizer.endOfText));
  return count;
}

/** A file of numbers that is written atomically. */
interface ColumnFile {
  append(values: Uint32Array): void;
  end(): void;
  /** Removes what was written, also if it is complete. */
  discard(): void;
}

/** Numbers that are written at a time. */
const BUFFERED = 1 << 18;

function columnFile(path: string, wide: boolean, fs: WriteFs): ColumnFile {
  const temporary = `${path}.tmp`;
  const buffer = wide ? new Uint32Array(BUFFERED) : new Uint16Array(BUFFERED);
  let used = 0;
  let file: number | null = null;
  const attempt = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      throw ioError(path, error);
    }
  };
  const flush = (): void => {
    const bytes = littleEndianBytes(buffer.subarray(0, used), wide ? "u32" : "u16");
    used = 0;
    attempt(() => writeAll((file ??= fs.openSync(temporary, "w")), bytes, fs));
  };
  const close = (): void => {
    if (file !== null) fs.closeSync(file);
    file = null;
  };
  return {
    append(values) {
      for (let from = 0; from < values.length;) {
        const count = Math.min(values.length - from, buffer.length - used);
        buffer.set(values.subarray(from, from + count), used);
        used += count;
        from += count;
        if (used === buffer.length) flush();
      }
    },
    end() {
      flush();
      attempt(() => {
        if (file !== null) fs.fsyncSync(file);
        close();
        fs.renameSync(temporary, path);
      });
    },
    discard() {
      try {
        close();
      } finally {
        for (const written of [temporary, path]) fs.rmSync(written, { force: true });
      }
    },
  };
}

/** Whether the files of a job are unchanged since it wrote them. */
export function isJobWhole(
  folder: string,
  id: string,
  { documents, tokens }: JobFacts,
  wide: boolean,
): boolean {
  const size = (ending: string): number =>
    nodeFs.statSync(`${jobPath(folder, id)}${ending}`, { throwIfNoEntry: false })?.size ?? -1;
  return size(".bin") === tokens * (wide ? 4 : 2) && size(".docs") === documents * 4 * COLUMNS;
}

/**
 * Joins the tokens of jobs, in this order, into the shards of `labels`, and reports each once it is on disk. Throws `data` for a label without text,
 * and `io`.
 */
export function joinShards(
  labels: readonly number[],
  jobs: readonly string[],
  { folder, plan, tokenizer }: Pick<JobContext, "folder" | "plan" | "tokenizer">,
  onShard: (label: number, shard: Shard) => void,
): void {
  const { vocabSize } = tokenizer;
  const { files, of } = findDocuments(jobs, folder, isWide(vocabSize));
  try {
    for (const label of labels) {
      const own = of.get(label);
      if (own === undefined) throw emptyLabel(plan.labels[label]!);
      const documents = own.documents.toArray();
      of.delete(label);
      own.starts.push(own.length);
      const runs: Runs = { starts: own.starts.toArray(), places: own.places.toArray() };
      const stream: StoredStream = { tokens: storedTokens(files, runs, vocabSize - 1), documents };
      const hash = createHash("sha256");
      let largest = 0;
      const onBlock = (bytes: Uint8Array, ids: ArrayLike<number>): void => {
        hash.update(bytes);
        for (let i = 0; i < ids.length; i++) if (ids[i]! > largest) largest = ids[i]!;
      };
      const path = shardPath(plan.labels[label]!);
      if (plan.options.format === "megatron")
        writeMegatronBlocks(join(folder, path), stream, { vocabSize }, onBlock);
      else writeNanoGPTBlocks(join(folder, `${path}.bin`), stream, { vocabSize }, onBlock);
      const { size, modified } = stampOf(join(folder, `${path}.bin`));
      onShard(label, {
        file: `${path}.bin`,
        tokens: stream.tokens.length,
        documents: documents.length - 1,
        textBytes: own.textBytes,
        largest,
        ...{ size, modified, sha256: hash.digest("hex") },
      });
    }
  } finally {
    // The tokens of jobs are deleted next, and a deleted file keeps its place on the disk while it is open.
    closeFiles(files);
  }
}

const emptyLabel = (label: Label): GradmixError =>
  new GradmixError("data", `${labelName(label)}: it is empty; give it more text`);

/** The documents of one label. */
interface Found {
  /** Where each document begins among the label's tokens, and where the last one ends. */
  readonly documents: Growing;
  /** Runs of documents that are adjacent in the files of jobs: where they begin among the label's tokens, and among those of all jobs. */
  readonly starts: Growing;
  readonly places: Growing;
  textBytes: number;
  length: number;
  /** Position after its last document. */
  next: number;
}

/** The tokens of jobs as one sequence of files, with the label of each document. */
function findDocuments(
  jobs: readonly string[],
  folder: string,
  wide: boolean,
): { readonly files: FileRange[]; readonly of: Map<number, Found> } {
  const files: FileRange[] = [];
  const of = new Map<number, Found>();
  let place = 0;
  for (const job of jobs) {
    const path = `${jobPath(folder, job)}.bin`;
    const { size, modified } = stampOf(path);
    if (size === 0) continue;
    const type = wide ? "u32" : "u16";
    const length = size / tokenBytes[type];
    const file = { path, format: "nanoGPT", type, offset: 0, length, ends: null } as const;
    files.push({ file: { ...file, stamp: { size, modified } }, start: place, ends: new Float64Array(0) });
    for (const [tokens, textBytes, label] of rowsOf(`${jobPath(folder, job)}.docs`)) {
      let own = of.get(label);
      if (own === undefined) {
        own = {
          documents: growing(),
          starts: growing(),
          places: growing(),
          textBytes: 0,
          length: 0,
          next: -1,
        };
        own.documents.push(0);
        of.set(label, own);
      }
      if (own.next !== place) {
        own.starts.push(own.length);
        own.places.push(place);
      }
      place += tokens;
      own.length += tokens;
      own.textBytes += textBytes;
      own.next = place;
      own.documents.push(own.length);
    }
  }
  return { files, of };
}

/** The rows of `.docs`. */
function* rowsOf(path: string): Generator<readonly [tokens: number, textBytes: number, label: number]> {
  const bytes = nodeFs.readFileSync(path);
  for (let at = 0; at < bytes.length; at += 4 * COLUMNS)
    yield [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4), bytes.readUInt32LE(at + 8)];
}
