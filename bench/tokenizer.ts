/**
 * The speed of encoding text on one core: our encoder and other JavaScript tokenizers, all with the vocabulary that `trainBpe` learns from the same text, in turns.
 * Options: --corpus GLOB, text as `gradmix train` reads it (this repository's sources and documentation); --mb N, at most this many megabytes of it (12); --vocab-size N
 * (8192); --rounds N (9), of which the first does not count; --peers DIR, a folder whose node_modules has some of js-tiktoken, gpt-tokenizer and ai-tokenizer, which are not
 * among our dependencies. @huggingface/tokenizers always takes part.
 *
 * Speeds are megabytes per second of processor time, summed over all threads of the process (one collects garbage), which depends less on other load than elapsed time. Each
 * tokenizer keeps its cache between rounds, so rounds measure text like that of earlier rounds. `sameIds` is the share of documents with the same ids as ours; the other
 * tokenizers split at JavaScript's white space, which is not Unicode's.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { listFiles, loadTokenizer, readDocuments, type Tokenizer, trainBpe } from "gradmix/data";
import { readBytes } from "#dist/data/byte-level.js";
import { readOptions } from "./_options.js";
import { median } from "./_timing.js";
import type { BenchOptions } from "./main.ts";

type Encode = (text: string) => ArrayLike<number>;

/** GPT-2's pattern, as the peers take it. */
const PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["corpus", "mb", "vocab-size", "rounds", "peers"]);
  const most = read.positive("mb", 12) * 1e6;
  const files = await listFiles([read.text("corpus") ?? "{src/**/*.ts,docs/*.md,test/**/*.ts}"]);
  const documents: string[] = [];
  let bytes = 0;
  for await (const { text } of readDocuments(files)) {
    documents.push(text);
    bytes += Buffer.byteLength(text);
    if (bytes >= most) break;
  }
  const learned = await trainBpe(documents, { vocabSize: read.count("vocab-size", 8192, 257) });
  const ours = loadTokenizer(learned.toJSON());
  const all = new Map<string, Encode>([["gradmix", (text) => ours.encode(text)]]);
  for (const [name, encode] of await peers(learned, read.text("peers"))) all.set(name, encode);

  const times = new Map<string, number[]>(Array.from(all.keys(), (name) => [name, []]));
  for (let round = 0; round < read.count("rounds", 9, 2); round++)
    for (const [name, encode] of all) {
      const before = process.cpuUsage();
      for (const text of documents) encode(text);
      const { user, system } = process.cpuUsage(before);
      if (round > 0) times.get(name)?.push(bytes / (user + system));
    }
  const medianOf = (name: string): number => median(times.get(name) ?? []);
  const own = medianOf("gradmix");
  return {
    documents: documents.length,
    megabytes: Number((bytes / 1e6).toFixed(2)),
    vocabSize: ours.vocabSize,
    tokenizers: Array.from(all, ([name, encode]) => ({
      name,
      medianMBs: Number(medianOf(name).toFixed(2)),
      least: Number(Math.min(...(times.get(name) ?? [])).toFixed(2)),
      largest: Number(Math.max(...(times.get(name) ?? [])).toFixed(2)),
      gradmixIs: Number((own / medianOf(name)).toFixed(2)),
      sameIds: Number(
        (
          documents.filter((text) => isSame(encode(text), ours.encode(text))).length / documents.length
        ).toFixed(4),
      ),
    })),
  };
}

function isSame(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && Array.from(a).every((id, i) => id === b[i]);
}

async function peers(learned: Tokenizer, folder: string | null): Promise<[string, Encode][]> {
  const json = learned.toJSON();
  const huggingFace = new HuggingFaceTokenizer(json, { tokenizer_class: "PreTrainedTokenizer" });
  const found: [string, Encode][] = [
    ["@huggingface/tokenizers", (text) => huggingFace.encode(text, { add_special_tokens: false }).ids],
  ];
  if (folder === null) return found;
  const require = createRequire(join(folder, "package.json"));
  const load = async (path: string): Promise<Record<string, never> | null> => {
    try {
      return (await import(pathToFileURL(require.resolve(path)).href)) as Record<string, never>;
    } catch {
      process.stderr.write(`${path} is not in ${folder}\n`);
      return null;
    }
  };
  // Ranks are ids: the bytes first, then the merges in order.
  const tokens = tokensOf(learned);
  const texts = tokens.map((token) => textOf(token));

  const tiktoken = await load("js-tiktoken/lite");
  if (tiktoken !== null) {
    const { Tiktoken } = tiktoken as unknown as { Tiktoken: new (ranks: object) => { encode: Encode } };
    const lines = [["!", 0, ...tokens.map((token) => Buffer.from(token).toString("base64"))].join(" ")];
    const encoder = new Tiktoken({ pat_str: PATTERN, special_tokens: {}, bpe_ranks: lines.join("\n") });
    found.push(["js-tiktoken", (text) => encoder.encode(text)]);
  }
  const gpt = await load("gpt-tokenizer/BytePairEncodingCore");
  if (gpt !== null) {
    const { BytePairEncodingCore } = gpt as unknown as {
      BytePairEncodingCore: new (options: object) => { encodeNative: Encode };
    };
    const encoder = new BytePairEncodingCore({
      bytePairRankDecoder: tokens.map((token, id) => texts[id] ?? [...token]),
      tokenSplitRegex: new RegExp(PATTERN, "gu"),
    });
    found.push(["gpt-tokenizer", (text) => encoder.encodeNative(text)]);
  }
  const ai = await load("ai-tokenizer");
  if (ai !== null) {
    const { Tokenizer: AiTokenizer } = ai as unknown as {
      Tokenizer: new (encoding: object) => { encode: Encode };
    };
    const encoder = new AiTokenizer({
      name: "learned",
      pat_str: PATTERN,
      special_tokens: {},
      stringEncoder: Object.fromEntries(texts.flatMap((text, id) => (text === null ? [] : [[text, id]]))),
      binaryEncoder: tokens.flatMap((token, id) => (texts[id] === null ? [[token, id]] : [])),
      decoder: Object.fromEntries(tokens.map((token, id) => [id, texts[id] ?? token])),
    });
    found.push(["ai-tokenizer", (text) => encoder.encode(text)]);
  }
  return found;
}

/** The bytes of each token but the last, the end of text, out of its spelling in the vocabulary. */
function tokensOf(tokenizer: Tokenizer): Uint8Array[] {
  const { model } = tokenizer.toJSON() as { model: { vocab: Record<string, number> } };
  return Object.entries(model.vocab)
    .sort(([, a], [, b]) => a - b)
    .slice(0, -1)
    .map(([token]) => readBytes(token) ?? new Uint8Array(0));
}

/** null for bytes that are not UTF-8. */
function textOf(token: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(token);
  } catch {
    return null;
  }
}
