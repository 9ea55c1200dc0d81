/** The tokenizer of a run: one that exists, or one that is trained on the text of its domains. */
import { byteTokenizer, type Document, openTokenizer, type Tokenizer, trainBpe } from "../data/index.node.ts";
import { gptVocabularies } from "../data/gpt-vocabulary-table.ts";
import { GradmixError } from "../errors.ts";
import { type Inputs, listInputs } from "./inputs.ts";
import { labelName } from "./labels.ts";
import { vocabSizeOtherwise } from "./options/data.ts";
import { formatCount } from "./progress.ts";
import { readJson, configError } from "./values.ts";
import {
  type DataPlan,
  type DataHooks,
  type Documents,
  kindsOf,
  documentsBy,
  mixedDocuments,
} from "./read-documents.ts";

/** The BPE is trained on at most this many characters, divided equally among the domains. */
const BPE_CHARACTERS = 8_000_000;

/** Trains the tokenizer that a run with "bpe" would train on this text. Throws `data`. */
export async function learnTokenizer(plan: DataPlan, hooks: DataHooks): Promise<Tokenizer> {
  const files = await listInputs(plan, hooks);
  return trainTokenizer(plan, files, documentsBy(plan, hooks), hooks);
}

/** Returns the tokenizer of a run on this text, unless it is "none". Throws `data` and `config`. */
export function tokenizerOfPlan(plan: DataPlan, files: Inputs, hooks: DataHooks): Promise<Tokenizer> {
  return chooseTokenizer(plan, files, documentsBy(plan, hooks), hooks);
}

export async function chooseTokenizer(
  plan: DataPlan,
  files: Inputs,
  documents: Documents,
  hooks: DataHooks,
): Promise<Tokenizer> {
  const { tokenizer } = plan;
  if (tokenizer === "byte") return byteTokenizer();
  if (tokenizer !== "bpe") return readTokenizer(tokenizer);
  return trainTokenizer(plan, files, documents, hooks);
}

/** Opens an existing tokenizer: a `tokenizer.json`, or a vocabulary by its name. */
export function readTokenizer(name: string): Tokenizer {
  try {
    return openTokenizer(gptVocabularies.includes(name) ? name : readJson(name, `--tokenizer ${name}`));
  } catch (error) {
    if (!(error instanceof GradmixError) || error.message.startsWith("--tokenizer")) throw error;
    throw new GradmixError(error.code, `--tokenizer ${name}: ${error.message}`, { cause: error });
  }
}

async function trainTokenizer(
  { vocabSize, domainField }: DataPlan,
  files: Inputs,
  documents: Documents,
  hooks: DataHooks,
): Promise<Tokenizer> {
  const given = kindsOf(files).find(({ kind }) => kind === "tokens");
  if (given !== undefined)
    throw configError(
      `${labelName(given.label)} consists of token files; give their tokenizer.json with --tokenizer FILE, or give --tokenizer none --vocab-size N`,
    );
  const share = BPE_CHARACTERS / files.domains.size;
  let isSample = false;
  /** Returns texts until each of `count` domains has given `share` characters; the last text of a domain is cut. */
  async function* sharesOf(
    list: readonly string[],
    count: number,
    documentsOf: (list: readonly string[]) => AsyncIterable<Document>,
  ): AsyncGenerator<string> {
    const left = new Map<string, number>();
    let open = count;
    for await (const { text, domain = "" } of documentsOf(list)) {
      const rest = left.get(domain) ?? share;
      if (rest <= 0) continue;
      yield text.length > rest ? text.slice(0, rest) : text;
      left.set(domain, rest - text.length);
      isSample ||= rest <= text.length;
      if (rest <= text.length && --open === 0) return;
    }
  }
  async function* sample(): AsyncGenerator<string> {
    for (const list of files.domains.values()) yield* sharesOf(list, 1, documents);
    const { mixed } = files;
    if (mixed !== null)
      yield* sharesOf(mixed.files, mixed.domainOf.size, mixedDocuments(mixed, { domainField }, documents));
  }
  const began = performance.now();
  const trained = await trainBpe(sample(), {
    vocabSize: vocabSize ?? vocabSizeOtherwise,
    signal: hooks.signal,
  });
  const of = isSample ? ` on the first ${formatCount(share)} characters of each domain` : "";
  hooks.onEvent(
    `trained a tokenizer of ${trained.vocabSize} tokens${of} in ${((performance.now() - began) / 1000).toFixed(1)} s`,
  );
  return trained;
}
