/** The text of a run as windows of tokens: which files, which tokenizer, what is held out, and a check that a resumed run finds the same. */
import { giveTurn } from "../backends/turn.ts";
import {
  buildCorpus,
  byteTokenizer,
  type Corpus,
  loadTokenizer,
  readDocuments,
  type Tokenizer,
  trainBpe,
} from "../data/index.node.ts";
import { evaluationWindows, type Windows, windowsOf } from "../data/tokens.ts";
import { checkSameText, type Content, createWitness, listInputs } from "./inputs.ts";
import type { RunFacts, TextFacts } from "../runs/facts.ts";
import type { RunHooks } from "./run-events.ts";
import type { DataConfig } from "./train-config.ts";
import { readJson } from "./values.ts";

export interface DataPlan extends Readonly<DataConfig> {
  /** Tokens in a window. */
  readonly context: number;
  /** Of the choice of held-out documents. */
  readonly seed: number;
  /** The run folder, whose own files are not read as text; null: there is none. */
  readonly out: string | null;
}

/** What is settled before the text is read. */
export interface Known {
  /** The tokenizer of a model or a run that is gone on with; null: the one of the plan. */
  readonly tokenizer: Tokenizer | null;
  /** What the checkpoint of a resumed run says of its text; undefined: nothing to compare with. */
  readonly corpus: unknown;
}

type DataHooks = Pick<RunHooks, "onEvent" | "signal">;

/** Text that the BPE learns from, at most, taken evenly from the domains. */
const BPE_BYTES = 8_000_000;

export interface Split {
  readonly train: Windows;
  readonly heldOut: Windows | null;
}

export interface Data {
  readonly tokenizer: Tokenizer;
  readonly domains: readonly Split[];
  readonly target: Split | null;
  readonly targets: ReadonlyMap<string, Split>;
  /** Training tokens of each domain. */
  readonly sizes: Readonly<Record<string, number>>;
  /** What a resumed run must find again. */
  readonly contents: readonly Content[];
  readonly facts: DataFacts;
}

/** What run.json tells of the text. */
export type DataFacts = Pick<RunFacts, "domains" | "target" | "targets">;

/** Throws `data`, naming domain, file or line; `checkpoint` when the text is not what the run began with. */
export async function readData(plan: DataPlan, known: Known, hooks: DataHooks): Promise<Data> {
  const files = await listInputs(plan, hooks.onEvent);
  hooks.signal.throwIfAborted();

  const skipped = { lines: 0 };
  const documents = (list: readonly string[]) =>
    inTurns(
      readDocuments(list, {
        textField: plan.textField,
        skipBadLines: plan.skipBadLines,
        onSkip: () => skipped.lines++,
      }),
      hooks.signal,
    );
  const tokenizer =
    known.tokenizer ?? (await chooseTokenizer(plan, [...files.domains.values()], documents, hooks));
  // Learning a tokenizer reads text that is read again below; its bad lines count once.
  skipped.lines = 0;

  const witness = createWitness();
  const tokens = new Map<string, number>();
  const heldOut = new Map<string, Pick<TextFacts, "heldOutTokens" | "heldOutBytes">>();
  const read = async (what: string, label: string, list: readonly string[]): Promise<Corpus> => {
    const corpus = await buildCorpus(what, witness.watch(label, list, documents), tokenizer, {
      heldOut: plan.heldOut,
      seed: plan.seed,
    });
    if (corpus.note !== null) hooks.onEvent(corpus.note);
    tokens.set(label, corpus.train.tokens.length);
    heldOut.set(label, {
      heldOutTokens: corpus.heldOut?.tokens.length ?? 0,
      heldOutBytes: corpus.heldOutBytes,
    });
    return corpus;
  };
  const split = (corpus: Corpus): Split => ({
    train: windowsOf(corpus.name, corpus.train, plan.context),
    heldOut: corpus.heldOut === null ? null : evaluationWindows(corpus.name, corpus.heldOut, plan.context),
  });
  const domains: Split[] = [];
  for (const [name, list] of files.domains) domains.push(split(await read(name, `domain "${name}"`, list)));
  let target = files.target.length === 0 ? null : split(await read("target", "target", files.target));
  const targets = new Map<string, Split>();
  for (const [name, list] of files.targets)
    targets.set(name, split(await read(`target ${name}`, `target "${name}"`, list)));
  target ??= targets.values().next().value ?? null;
  const contents = witness.contents(tokens);
  const unchecked = known.corpus === undefined ? null : checkSameText(known.corpus, contents);
  for (const line of [...witness.copies(), ...(unchecked === null ? [] : [unchecked])]) hooks.onEvent(line);
  if (skipped.lines > 0)
    hooks.onEvent(`skipped ${skipped.lines} bad ${skipped.lines === 1 ? "line" : "lines"}`);
  const names = [...files.domains.keys()];
  const counts = domains.map(({ train }) => train.stream.tokens.length);
  hooks.onEvent(`training tokens: ${tokensLine(names, counts, contents)}`);
  const sizes = Object.fromEntries(names.map((name, i) => [name, counts[i]]));
  const facts = dataFacts(names, [...files.targets.keys()], (label) => {
    const content = contents.find((other) => other.label === label);
    const own = heldOut.get(label);
    if (content === undefined || own === undefined) return null;
    const { label: _label, ...read } = content;
    return { ...read, ...own };
  });
  return { tokenizer, domains, target, targets, sizes, contents, facts };
}

/** `factsOf` is by label. */
function dataFacts(
  domains: readonly string[],
  targets: readonly string[],
  factsOf: (label: string) => TextFacts | null,
): DataFacts {
  const all = (names: readonly string[], kind: string): ReadonlyMap<string, TextFacts> =>
    new Map(
      names.flatMap((name) => {
        const facts = factsOf(`${kind} "${name}"`);
        return facts === null ? [] : [[name, facts] as const];
      }),
    );
  const further = all(targets, "target");
  return {
    domains: all(domains, "domain"),
    target: factsOf("target") ?? further.values().next().value ?? null,
    targets: further,
  };
}

/** The same items, with a turn for the event loop now and then; ends with the reason of `signal` once that is aborted. */
async function* inTurns<T>(items: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  for await (const item of items) {
    await giveTurn();
    signal.throwIfAborted();
    yield item;
  }
}

/** Tokens of every domain, or of the largest of many, and of the targets. */
function tokensLine(
  names: readonly string[],
  counts: readonly number[],
  contents: readonly Content[],
): string {
  const order = [...names.keys()];
  const shown = names.length <= 12 ? order : order.sort((i, j) => counts[j] - counts[i]).slice(0, 8);
  const rest = names.length - shown.length;
  const n = (count: number): string => count.toLocaleString("en");
  const targets = contents.filter(({ label }) => label.startsWith("target"));
  return `${shown.map((i) => `${names[i]} ${n(counts[i])}`).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}${targets.map(({ label, tokens }) => `; ${label} ${n(tokens)}`).join("")}`;
}

/** The tokenizer that a run with "bpe" would train on this text. Throws `data`. */
export async function learnTokenizer(plan: DataPlan, hooks: DataHooks): Promise<Tokenizer> {
  const files = await listInputs(plan, hooks.onEvent);
  const { textField, skipBadLines } = plan;
  const documents: Documents = (list) =>
    inTurns(readDocuments(list, { textField, skipBadLines }), hooks.signal);
  return trainTokenizer(plan, [...files.domains.values()], documents, hooks);
}

async function chooseTokenizer(
  plan: DataPlan,
  files: readonly (readonly string[])[],
  documents: Documents,
  hooks: DataHooks,
): Promise<Tokenizer> {
  const { tokenizer } = plan;
  if (tokenizer === "byte") return byteTokenizer();
  if (tokenizer !== "bpe") return loadTokenizer(readJson(tokenizer, `--tokenizer ${tokenizer}`));
  return trainTokenizer(plan, files, documents, hooks);
}

type Documents = (list: readonly string[]) => AsyncIterable<{ readonly text: string }>;

async function trainTokenizer(
  { vocabSize }: DataPlan,
  files: readonly (readonly string[])[],
  documents: Documents,
  hooks: DataHooks,
): Promise<Tokenizer> {
  const share = BPE_BYTES / files.length;
  async function* sample(): AsyncGenerator<string> {
    for (const list of files) {
      let left = share;
      for await (const { text } of documents(list)) {
        if (left <= 0) break;
        yield text.length > left ? text.slice(0, left) : text;
        left -= text.length;
      }
    }
  }
  const began = performance.now();
  const trained = await trainBpe(sample(), { vocabSize, signal: hooks.signal });
  hooks.onEvent(
    `trained a tokenizer of ${trained.vocabSize} tokens in ${((performance.now() - began) / 1000).toFixed(1)} s`,
  );
  return trained;
}
