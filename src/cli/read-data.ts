/** Reads the text of a run as windows of tokens: finds the files and the tokenizer, holds documents out, and checks that a resumed run has the same text. */
import { join } from "node:path";
import {
  buildCorpus,
  type CorpusOptions,
  type Document,
  openTokens,
  type StoredCorpus,
  type Tokenizer,
} from "../data/index.node.ts";
import { type CorpusBuilder, corpusBuilder } from "../data/corpus.ts";
import type { KnownTokenFile } from "../data/stored-tokens.ts";
import { evaluationWindows, type Windows, windowsOf } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import {
  type ContaminationCheck,
  contaminationCheck,
  contaminationLine,
  uncomparedFiles,
} from "./contamination.ts";
import { type Inputs, type LabelledFiles, listInputs, type MixedFiles } from "./inputs.ts";
import { domainLabel, isDomain, type Label, labelName, targetLabel, theTarget } from "./labels.ts";
import { checkTokenizer, knownShards, preparedAmong } from "./prepared-folder.ts";
import { vocabSizeOtherwise } from "./options/data.ts";
import { leftOutTally, type LeftOutTally } from "./left-out.ts";
import type { RunFacts, TextFacts } from "../runs/facts.ts";
import { configError } from "./values.ts";
import {
  type DataPlan,
  type DataHooks,
  type Documents,
  kindOf,
  kindsOf,
  documentsBy,
  mixedDocuments,
} from "./read-documents.ts";
import { chooseTokenizer } from "./choose-tokenizer.ts";
import { checkSameText, type Content, createWitness, type Witness } from "./text-witness.ts";

/** What is known before the text is read. */
export interface Known {
  /** The tokenizer of the model or run that is continued; null: the plan's. */
  readonly tokenizer: Tokenizer | null;
  /** What the checkpoint of a resumed run contains about its text; undefined if there is nothing to compare with. */
  readonly corpus: unknown;
}

export interface Vocabulary {
  readonly vocabSize: number;
  /** Id of the token that ends a document; null if there is none, or if it is unknown. */
  readonly endOfText: number | null;
}

export interface Split {
  readonly train: Windows;
  readonly heldOut: Windows | null;
}

export interface Data {
  /** null if all data are tokens and no tokenizer is known. */
  readonly tokenizer: Tokenizer | null;
  readonly vocabulary: Vocabulary;
  readonly domains: readonly Split[];
  readonly target: Split | null;
  readonly targets: ReadonlyMap<string, Split>;
  /** Number of training tokens per domain. */
  readonly sizes: Readonly<Record<string, number>>;
  /** The contents that a resumed run must find again. */
  readonly contents: readonly Content[];
  readonly facts: DataFacts;
  /** Whether any of the files consists of tokens. */
  readonly readsTokens: boolean;
}

/** The facts about the text that run.json records. */
export type DataFacts = Pick<RunFacts, "domains" | "target" | "targets" | "contamination">;

/**
 * Reads the data of a run. `inputs` are the files; null: they are searched for. Throws `data`, naming the domain, file or line, and `checkpoint` if
 * the text is not the one that the run began with.
 */
export async function readData(
  plan: DataPlan,
  known: Known,
  hooks: DataHooks,
  inputs: Inputs | null = null,
): Promise<Data> {
  const files = inputs ?? (await listInputs(plan, hooks));
  hooks.signal.throwIfAborted();
  const reading = await startReading(plan, known, hooks, files);
  // The targets are read first, because their held-out text is searched for in the domains.
  const target =
    files.target.length === 0 ? null : await readPart(reading, { label: theTarget, files: files.target });
  const targets = new Map<string, Part>();
  for (const [name, list] of files.targets) {
    // A rule may learn from several targets, of which one is the target of the run. Its held-out text is searched for only once.
    const searched = list.length !== files.target.length || list.some((file, i) => file !== files.target[i]);
    targets.set(name, await readPart(reading, { label: targetLabel(name), files: list }, searched));
  }
  const domains = await readDomains(reading);
  const parts = [...(target === null ? [] : [target]), ...targets.values(), ...domains];

  tellNotes(
    parts.flatMap(({ note }) => (note === null ? [] : [note])),
    hooks,
  );
  const contents = contentsOf(reading, parts);
  const overlaps = reading.contamination.facts();
  tellReading(reading, known, contents, overlaps);
  const names = [...files.domains.keys()];
  const counts = domains.map(({ tokens }) => tokens);
  hooks.onEvent(`training tokens: ${tokensLine(names, counts, contents)}`);
  const sizes = Object.fromEntries(names.map((name, i) => [name, counts[i]!]));
  const { tokenizer, vocabulary } = reading;
  const splits = new Map(Array.from(targets, ([name, { split }]) => [name, split]));
  return {
    ...{ tokenizer, vocabulary, sizes, contents },
    domains: domains.map(({ split }) => split),
    target: target?.split ?? splits.values().next().value ?? null,
    targets: splits,
    readsTokens: reading.readsTokens,
    facts: { ...factsOf(names, [...targets.keys()], parts, contents), contamination: overlaps },
  };
}

/** Everything that is needed to read the parts of a run's text. */
interface Reading {
  readonly plan: DataPlan;
  readonly hooks: DataHooks;
  readonly files: Inputs;
  /** Whether any of the files consists of tokens. */
  readonly readsTokens: boolean;
  /** null if all data are tokens and no tokenizer is known. */
  readonly tokenizer: Tokenizer | null;
  readonly vocabulary: Vocabulary;
  readonly documents: Documents;
  readonly leftOut: LeftOutTally;
  /** What is known about files of tokens, and which of them contain clusters. */
  readonly prepared: {
    readonly files: ReadonlyMap<string, KnownTokenFile>;
    readonly clusters: ReadonlySet<string>;
  };
  readonly witness: Witness;
  readonly contamination: ContaminationCheck;
}

/** Finds the tokenizer and what is known about the files. Throws `config` and `data` for a tokenizer that does not fit. */
async function startReading(plan: DataPlan, known: Known, hooks: DataHooks, files: Inputs): Promise<Reading> {
  const leftOut = leftOutTally();
  const documents = documentsBy(plan, hooks, leftOut);
  const kinds = kindsOf(files);
  const tokenizer =
    plan.tokenizer === "none" && known.tokenizer === null
      ? null
      : (known.tokenizer ?? (await chooseTokenizer(plan, files, documents, hooks)));
  const vocabulary = vocabularyOf(plan, tokenizer);
  const prepared = preparedAmong(plan.domainsFrom);
  if (tokenizer !== null) checkTokenizer(prepared, tokenizer);
  // Training a tokenizer reads text that is read again later, so what it leaves out must not count twice.
  leftOut.clear();
  const missed = uncomparedFiles(plan.dropContaminated, kinds);
  if (missed !== null) hooks.onEvent(missed);
  const clusters = prepared.flatMap(({ folder, domains, clusters: are }) =>
    are ? Array.from(domains.values(), ({ file }) => join(folder, file)) : [],
  );
  return {
    ...{ plan, hooks, files, tokenizer, vocabulary, documents, leftOut },
    readsTokens: kinds.some(({ kind }) => kind === "tokens"),
    prepared: { files: knownShards(prepared), clusters: new Set(clusters) },
    witness: createWitness(plan.dropContaminated),
    contamination: contaminationCheck(plan.dropContaminated, files.domains.size),
  };
}

/** The text of a domain or of a target after it was read. */
interface Part {
  readonly label: Label;
  readonly split: Split;
  /** Number of tokens for training. */
  readonly tokens: number;
  readonly heldOut: Pick<TextFacts, "heldOutTokens" | "heldOutBytes">;
  /** A line for the user; null if there is nothing to report. */
  readonly note: string | null;
}

/** Makes a part of a corpus. A cluster may contain only a few words, and may then be shorter than a window. */
function partOf(label: Label, corpus: StoredCorpus, context: number, isCluster: boolean): Part {
  const { name, train, heldOut, heldOutBytes, note } = corpus;
  const short = isCluster ? evaluationWindows(name, train, context) : null;
  return {
    ...{ label, note },
    split: {
      train: short ?? windowsOf(name, train, context),
      heldOut: heldOut === null ? null : evaluationWindows(name, heldOut, context),
    },
    tokens: train.tokens.length,
    heldOut: { heldOutTokens: heldOut?.tokens.length ?? 0, heldOutBytes },
  };
}

/** The name of a label's corpus, in messages about its tokens. */
const corpusName = ({ kind, name }: Label): string =>
  kind === "domain" ? name : kind === "target" ? "target" : `target ${name}`;

/** Reads the files of a label. The text of a domain is compared with the held-out text of the targets that are `searched` for. */
async function readPart(
  reading: Reading,
  { label, files: list }: LabelledFiles,
  searched: boolean = true,
): Promise<Part> {
  const { plan, hooks, tokenizer, vocabulary, documents, prepared, witness, contamination, leftOut } =
    reading;
  const options = { heldOut: plan.heldOut, seed: plan.seed };
  const what = corpusName(label);
  if (kindOf({ label, files: list }).kind === "text") {
    const encoder = encoderOf(tokenizer, labelName(label));
    const texts = leftOut.some(labelName(label), witness.watch(label, list, documents));
    const corpus = isDomain(label)
      ? buildCorpus(what, contamination.filter(label.name, texts), encoder, options)
      : buildCorpus(what, texts, encoder, {
          ...options,
          ...(searched ? { onHeldOut: contamination.heldOut } : {}),
        });
    return partOf(label, await corpus, plan.context, false);
  }
  const witnessed = witness.open(label);
  const corpus = await openTokens(what, list, {
    ...options,
    ...vocabulary,
    tokenType: plan.tokenType,
    known: prepared.files,
    onFile: (path, { sha256, documents: count }) => witnessed.tokens(path, sha256, count),
    signal: hooks.signal,
  });
  witnessed.end();
  return partOf(
    label,
    corpus,
    plan.context,
    list.every((path) => prepared.clusters.has(path)),
  );
}

/** Reads the domains that have files of their own, and those that share files. */
async function readDomains(reading: Reading): Promise<readonly Part[]> {
  const { plan, files, tokenizer, documents, witness, contamination } = reading;
  const mixed =
    files.mixed === null
      ? null
      : await readMixed(
          files.mixed,
          mixedDocuments(files.mixed, plan, documents),
          encoderOf(tokenizer, "--domains"),
          { heldOut: plan.heldOut, seed: plan.seed, witness, contamination },
        );
  const ofClusters = (files.mixed?.clusters ?? null) !== null;
  const domains: Part[] = [];
  for (const [name, list] of files.domains) {
    const label = domainLabel(name);
    const corpus = mixed?.get(name);
    if (corpus !== undefined) contamination.checkLeft(name);
    domains.push(
      corpus === undefined
        ? await readPart(reading, { label, files: list })
        : partOf(label, corpus.finish(), plan.context, ofClusters),
    );
  }
  return domains;
}

/** The contents that were read per label, the domains first. */
function contentsOf({ witness }: Reading, parts: readonly Part[]): readonly Content[] {
  const tokens = new Map(parts.map((part) => [labelName(part.label), part.tokens]));
  const contents = witness.contents(tokens);
  const ofDomains = contents.filter(({ label }) => isDomain(label));
  const ofTargets = contents.filter(({ label }) => !isDomain(label));
  return [...ofDomains, ...ofTargets];
}

/** Reports what was found while reading. Throws `checkpoint` if the text is not the one that the run began with. */
function tellReading(
  { witness, hooks, leftOut }: Reading,
  known: Known,
  contents: readonly Content[],
  overlaps: DataFacts["contamination"],
): void {
  const overlapLine = overlaps === null || overlaps === undefined ? null : contaminationLine(overlaps);
  if (overlapLine !== null) hooks.onEvent(overlapLine);
  const unchecked = known.corpus === undefined ? null : checkSameText(known.corpus, contents);
  for (const line of [...witness.copies(), ...(unchecked === null ? [] : [unchecked])]) hooks.onEvent(line);
  for (const line of leftOut.lines()) hooks.onEvent(line);
}

/** The facts about the text that run.json records. */
function factsOf(
  domains: readonly string[],
  targets: readonly string[],
  parts: readonly Part[],
  contents: readonly Content[],
): DataFacts {
  const byLabel = new Map(contents.map((content) => [labelName(content.label), content]));
  const heldOut = new Map(parts.map((part) => [labelName(part.label), part.heldOut]));
  const of = (label: Label): TextFacts | null => {
    const content = byLabel.get(labelName(label));
    const own = heldOut.get(labelName(label));
    if (content === undefined || own === undefined) return null;
    const { label: _label, ...read } = content;
    return { ...read, ...own };
  };
  const all = (names: readonly string[], labelOf: (name: string) => Label): ReadonlyMap<string, TextFacts> =>
    new Map(
      names.flatMap((name) => {
        const facts = of(labelOf(name));
        return facts === null ? [] : [[name, facts] as const];
      }),
    );
  const further = all(targets, targetLabel);
  return {
    domains: all(domains, domainLabel),
    target: of(theTarget) ?? further.values().next().value ?? null,
    targets: further,
  };
}

/** Returns the vocabulary of a tokenizer, or that of the plan. Throws `config` if the end of text is not one of its ids. */
function vocabularyOf({ vocabSize, endOfText }: DataPlan, tokenizer: Tokenizer | null): Vocabulary {
  const vocabulary = {
    vocabSize: tokenizer?.vocabSize ?? vocabSize ?? vocabSizeOtherwise,
    endOfText: endOfText ?? tokenizer?.endOfText ?? null,
  };
  if (vocabulary.endOfText !== null && vocabulary.endOfText >= vocabulary.vocabSize)
    throw configError(
      `--end-of-text: ${vocabulary.endOfText} is not one of the ${vocabulary.vocabSize} ids, which start at 0`,
    );
  return vocabulary;
}

/** Returns the tokenizer. Throws `config` if text has none. */
function encoderOf(tokenizer: Tokenizer | null, what: string): Tokenizer {
  if (tokenizer !== null) return tokenizer;
  throw configError(
    `--tokenizer none: ${what} is text, which needs a tokenizer; name the one of the files of tokens with --tokenizer FILE`,
  );
}

/** Reads files that contain several domains. Returns a corpus per domain. */
async function readMixed(
  { files, domainOf }: MixedFiles,
  documents: (list: readonly string[]) => AsyncIterable<Document>,
  tokenizer: Tokenizer,
  {
    witness,
    contamination,
    ...options
  }: CorpusOptions & { readonly witness: Witness; readonly contamination: ContaminationCheck },
): Promise<ReadonlyMap<string, CorpusBuilder>> {
  const parts = new Map(
    Array.from(domainOf.values(), (name) => {
      const reading = witness.open(domainLabel(name));
      return [name, { name, reading, corpus: corpusBuilder(name, tokenizer, options) }] as const;
    }),
  );
  for (const file of files)
    for await (const document of documents([file])) {
      const part = parts.get(domainOf.get(document.domain ?? "") ?? "");
      if (part === undefined)
        throw new GradmixError(
          "data",
          `${document.source}: the domain ${JSON.stringify(document.domain)} is new, so the file changed while it was read; start the run again`,
        );
      part.reading.text(file, document.text);
      if (contamination.keeps(part.name, document)) part.corpus.add(document);
    }
  for (const { reading } of parts.values()) reading.end();
  return new Map(Array.from(parts, ([name, { corpus }]) => [name, corpus]));
}

/** Shows the notes; of more than 12 only the first three. */
function tellNotes(notes: readonly string[], { onEvent }: DataHooks): void {
  const shown = notes.length <= 12 ? notes : notes.slice(0, 3);
  for (const note of shown) onEvent(note);
  if (shown.length < notes.length) onEvent(`and so on for ${notes.length - shown.length} more`);
}

/** Formats the number of tokens of the domains (the largest ones if there are many) and of the targets. */
function tokensLine(
  names: readonly string[],
  counts: readonly number[],
  contents: readonly Content[],
): string {
  const order = [...names.keys()];
  const shown = names.length <= 12 ? order : order.sort((i, j) => counts[j]! - counts[i]!).slice(0, 8);
  const rest = names.length - shown.length;
  const n = (count: number): string => count.toLocaleString("en");
  const targets = contents.filter(({ label }) => !isDomain(label));
  return `${shown.map((i) => `${names[i]} ${n(counts[i]!)}`).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}${targets.map(({ label, tokens }) => `; ${labelName(label)} ${n(tokens)}`).join("")}`;
}
