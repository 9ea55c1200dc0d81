/** Reads the documents of a run from its files, text by text: what is common to reading the data and to training a tokenizer on it. */
import { giveTurn } from "../backends/turn.ts";
import { type Document, readDocuments } from "../data/index.node.ts";
import { isTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { clusteredDocuments } from "./cluster-folder.ts";
import { type Inputs, labelledFiles, type LabelledFiles, type MixedFiles } from "./inputs.ts";
import { type Label, labelName } from "./labels.ts";
import { leftOutTally, type LeftOutTally } from "./left-out.ts";
import type { RunHooks } from "./run-events.ts";
import type { DataConfig } from "./train-config.ts";

/** What is read, and how it is divided. */
export interface DataPlan extends Readonly<DataConfig> {
  /** Tokens per window. */
  readonly context: number;
  /** Seed that decides which documents are held out. */
  readonly seed: number;
  /** The run folder, whose own files are not read as text; null if there is none. */
  readonly out: string | null;
}

/** Progress lines and the abort of a reading. */
export type DataHooks = Pick<RunHooks, "onEvent" | "signal">;

/** What the files of a label contain. */
export interface LabelKind {
  readonly label: Label;
  readonly kind: "text" | "tokens";
}

/** Whether the files of each label are text or tokens. Throws `data` for a label with both. */
export function kindsOf(inputs: Inputs): readonly LabelKind[] {
  return labelledFiles(inputs).map(kindOf);
}

/** Whether the files are text or tokens. Throws `data` if there are both. */
export function kindOf({ label, files }: LabelledFiles): LabelKind {
  const tokens = files.find(isTokenFile);
  const text = files.find((path) => !isTokenFile(path));
  if (tokens !== undefined && text !== undefined)
    throw new GradmixError(
      "data",
      `${labelName(label)}: ${text} is text, but ${tokens} is a file of tokens; put them into two domains`,
    );
  return { label, kind: tokens === undefined ? "text" : "tokens" };
}

/** Makes the function that reads the documents of a run. */
export function documentsBy(
  { textField, skipBadLines }: DataPlan,
  { signal }: DataHooks,
  leftOut: Pick<LeftOutTally, "onSkip" | "onEmpty"> = leftOutTally(),
): Documents {
  return (list, domainField) =>
    inTurns(
      readDocuments(list, {
        ...{ textField, skipBadLines, onSkip: leftOut.onSkip, onEmpty: leftOut.onEmpty },
        ...(domainField === undefined ? {} : { domainField }),
      }),
      signal,
    );
}

/** Makes the function that reads files with several domains; each document has the name of its domain. */
export function mixedDocuments(
  { clusters }: MixedFiles,
  { domainField }: Pick<DataPlan, "domainField">,
  documents: Documents,
): (list: readonly string[]) => AsyncIterable<Document> {
  if (clusters === null) return (list) => documents(list, domainField ?? "");
  const byPath = new Map(clusters.files.map((file) => [file.path, file]));
  return async function* (list) {
    for (const path of list) {
      const file = byPath.get(path);
      if (file !== undefined) yield* clusteredDocuments(clusters, file, documents([path]));
    }
  };
}

/** Returns the same items, and lets the event loop run from time to time. Throws the reason of `signal` after an abort. */
async function* inTurns<T>(items: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  for await (const item of items) {
    await giveTurn();
    signal.throwIfAborted();
    yield item;
  }
}

/** A function that reads the documents of files, with their domains if a field is given. */
export type Documents = (list: readonly string[], domainField?: string) => AsyncIterable<Document>;
