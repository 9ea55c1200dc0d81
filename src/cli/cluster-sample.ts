/** The sample of texts on which a clustering is fitted, and how the work folder stores it. */
import { join, resolve } from "node:path";
import { count, integerFrom, list, object, optional, parse, type Schema, string } from "../schema.ts";
import { foldIn, key, uniformAt } from "../tensor/rng.ts";
import type { ClusterArguments } from "./cluster-arguments.ts";
import { beginningOf } from "./cluster-embeddings.ts";
import { documentsWithIds, type ForeignIds, type Passed, type ReadingDocuments } from "./cluster-ids.ts";
import type { Work } from "./cluster-work.ts";
import { textHash } from "./text-hash.ts";

/** What the first pass over a file of text found. */
export interface FileFacts {
  /** Absolute path, so that the folder can be used from anywhere. */
  readonly path: string;
  readonly documents: number;
  /** SHA-256 of the text, as in a run's `run.json`. */
  readonly sha256: string;
}

/** How the documents are read, and how many are sampled. */
export type Reading = ReadingDocuments & Pick<ClusterArguments, "sample" | "seed">;

/** A sample of texts, and what is known of all files. */
export interface Sample {
  readonly texts: readonly string[];
  /** The given clusters of the texts; −1 if none is given. */
  readonly ids: Int32Array;
  /** Numbers of the documents, counted from 0 over all files and including those that are left out. */
  readonly numbers: readonly number[];
  /** Number of documents of each file, including those that are left out. */
  readonly rows: readonly number[];
  readonly facts: readonly FileFacts[];
  /** Number of lines that were skipped in all files. */
  readonly skipped: number;
  /** Number of documents without text in all files, and where the first is; absent if there are none. */
  readonly empty?: number;
  readonly firstEmpty?: string;
}

const SAMPLE = "sample.jsonl";
const FACTS = "facts.json";

/** The sample in the work folder; null if there is none. Throws `data` for one that is damaged. */
export function savedSample(work: Work): Sample | null {
  const saved = work.readJson(FACTS, sampleFacts);
  const bytes = saved === undefined ? null : work.read(SAMPLE);
  if (saved === undefined || bytes === null) return null;
  const texts: string[] = [];
  for (let from = 0, to = bytes.indexOf(10); to >= 0; from = to + 1, to = bytes.indexOf(10, from))
    texts.push(parse(string, bytes.subarray(from, to), { source: join(work.folder, SAMPLE), code: "data" }));
  return { ...saved, texts, ids: Int32Array.from(saved.ids) };
}

/** A sample without its texts. */
export const sampleFacts: Schema<Omit<Sample, "texts" | "ids"> & { readonly ids: readonly number[] }> =
  object<Omit<Sample, "texts" | "ids"> & { readonly ids: readonly number[] }>({
    ids: list(integerFrom(-1)),
    numbers: list(count),
    rows: list(count),
    facts: list(object<FileFacts>({ path: string, documents: count, sha256: string })),
    skipped: count,
    empty: optional(count),
    firstEmpty: optional(string),
  });

/** Stores a sample, unless one is stored already. */
export function saveSample(work: Work, { texts, ids, ...facts }: Sample): void {
  if (work.has(FACTS)) return;
  work.write(
    SAMPLE,
    (function* () {
      for (const text of texts) yield new TextEncoder().encode(`${JSON.stringify(text)}\n`);
    })(),
  );
  work.writeJson(FACTS, { ids: Array.from(ids), ...facts });
}

/** Samples texts, each document with the same chance (Vitter's algorithm R), and keeps their beginnings, with their given clusters. */
export async function sampleOf(
  files: readonly string[],
  foreign: ForeignIds | null,
  reading: Reading,
  signal: AbortSignal,
): Promise<Sample> {
  const { sample, seed } = reading;
  const random = foldIn(key(seed), 0x5a3);
  const texts: string[] = [];
  const ids: number[] = [];
  const numbers: number[] = [];
  const rows: number[] = [];
  const facts: FileFacts[] = [];
  let seen = 0;
  let passed = 0;
  let [skipped, empty, firstEmpty] = [0, 0, ""];
  const onPass = (why: Passed, source: string): void => {
    passed++;
    if (why === "bad") skipped++;
    else if (empty++ === 0) firstEmpty = source;
  };
  for (const [i, path] of files.entries()) {
    const hash = textHash();
    const given = foreign?.ids[i] ?? null;
    let documents = 0;
    for await (const { text, id } of documentsWithIds(path, given, reading, onPass)) {
      signal.throwIfAborted();
      hash.add(text);
      const place = seen < sample ? seen : Math.floor(uniformAt(random, seen) * (seen + 1));
      if (place < sample) {
        texts[place] = beginningOf(text);
        ids[place] = id;
        numbers[place] = seen + passed;
      }
      seen++;
      documents++;
    }
    facts.push({ path: resolve(path), documents, sha256: hash.digest() });
    rows.push(seen + passed - rows.reduce((sum, own) => sum + own, 0));
  }
  return {
    texts,
    ids: Int32Array.from(ids),
    numbers,
    rows,
    facts,
    skipped,
    ...(empty === 0 ? {} : { empty, firstEmpty }),
  };
}
