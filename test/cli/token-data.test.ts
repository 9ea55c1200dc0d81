/** Runs on files of tokens: the same bits as on their text; files that do not fit together are refused. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { init, shutdown } from "gradmix";
import { byteTokenizer, tokenWriter } from "gradmix/data";
import { createGPT, toHuggingFace } from "gradmix/nn";
import { writeMegatron, writeNanoGPT } from "gradmix/node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { commandLineLayer, jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { configOf } from "#dist/cli/train.js";
import { optionRows } from "#dist/cli/options.js";
import { readData } from "#dist/cli/read-data.js";
import { readStart } from "#dist/cli/start.js";
import { readRunRecord } from "#dist/runs/record.js";
import { runCommand } from "./served.ts";

const tokenizer = byteTokenizer();
const { vocabSize } = tokenizer;
const rows = optionRows();
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-token-data-"));
  const texts = (words: string, n: number) =>
    Array.from({ length: n }, (_, i) => `${words} ${(i * 7919) % 97}. `.repeat(3));
  for (const [name, words] of [
    ["prose", "the dog sleeps while the quick fox jumps over it"],
    ["code", "for (let i = 0; i < n; i++) sum += items[i]"],
    ["target", "while (j < n) total += items[j++]"],
  ] as const) {
    const documents = texts(words, 40);
    const lines = documents.map((text) => `${JSON.stringify({ text })}\n`).join("");
    writeFileSync(join(folder, `${name}.jsonl`), lines);
    const writer = tokenWriter(vocabSize, tokenizer.endOfText);
    for (const text of documents) writer.document(tokenizer.encode(text));
    const stream = writer.finish();
    mkdirSync(join(folder, "tokens"), { recursive: true });
    if (name === "prose") writeMegatron(join(folder, "tokens", name), stream, { vocabSize });
    else writeNanoGPT(join(folder, name === "code" ? "tokens" : ".", `${name}.bin`), stream, { vocabSize });
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

const gradmix = (...args: string[]) => {
  const { status, stderr } = runCommand(["train", ...args], { cwd: folder });
  return { code: status, err: stderr };
};
const small = "--dim 16 --layers 1 --heads 2 --context 32 --batch 4 --steps 6 --update-every 2 --align-target-examples 2 --backend cpu --threads 1".split(" "); // prettier-ignore
const fromText = "--domain code=code.jsonl --domain prose=prose.jsonl --target target.jsonl --tokenizer byte".split(" "); // prettier-ignore
const fromTokens = "--domains tokens --target target.bin".split(" ");
const none = "--tokenizer none --vocab-size 257 --end-of-text 256".split(" ");

test("a run on tokens has the same bits as a run on their text, without the tokenizer; it resumes only with the same files", () => {
  for (const [out, ...args] of [
    ["text", ...fromText],
    ["none", ...fromTokens, ...none],
  ]) {
    const { code, err } = gradmix(...args, ...small, "--out", out);
    expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
  }
  const model = (out: string): Buffer => readFileSync(join(folder, out, "model/model.safetensors"));
  expect(model("none").equals(model("text"))).toBe(true);
  const facts = (out: string) => readRunRecord(join(folder, out)).facts;
  const counts = (out: string) =>
    Array.from(facts(out).domains, ([name, { documents, tokens, heldOutTokens }]) => [name, documents, tokens, heldOutTokens]); // prettier-ignore
  expect(counts("none")).toEqual(counts("text"));
  // How many bytes tokens are of is not known.
  expect(facts("none").target?.heldOutBytes).toBe(0);
  expect(existsSync(join(folder, "none/model/tokenizer.json"))).toBe(false);
  const { tokenizer: its, tokenizerName, vocabSize: size } = readStart(join(folder, "none"));
  expect([its, tokenizerName, size]).toEqual([null, "none", 257]);

  const bytes = readFileSync(join(folder, "target.bin"));
  const changed = Buffer.from(bytes);
  changed[0] ^= 1;
  writeFileSync(join(folder, "target.bin"), changed);
  const refused = gradmix("--resume", "none");
  expect(refused.code).toBe(2);
  expect(refused.err).toContain("--resume: the text of target has changed");
  expect(refused.err).toContain("but other text");
  writeFileSync(join(folder, "target.bin"), bytes);
  expect(gradmix("--resume", "none").code).toBe(0);
});

test("without a tokenizer, the number of ids is given, or that of the prepared folder or of the model; it is never guessed", async () => {
  const layer = (json: object) => jsonLayer(json, "c.json");
  const none = { tokenizer: "none" };
  const uniform = { mixing: { rule: "uniform" } };
  const previous = process.cwd();
  process.chdir(folder);
  try {
    const refused = { message: "c.json: data.tokenizer: with none, the number of ids is not known; add --vocab-size N, the size of the vocabulary of the files" }; // prettier-ignore
    const data = { domains: { a: "tokens/code.bin" }, ...none };
    await expect(configOf([layer({ data, ...uniform })])).rejects.toMatchObject(refused);
    expect((await configOf([layer({ data: { ...data, vocabSize: 1024 }, ...uniform })])).data.vocabSize).toBe(
      1024,
    );
    // Other tokenizers have a size of their own, or train one of the default size.
    for (const tokenizer of ["bpe", "byte"])
      await configOf([layer({ data: { ...data, tokenizer }, ...uniform })]);

    const prepare = ["prepare", "--domain", "a=code.jsonl", "--format", "nanogpt", "--tokenizer", "byte", "--out", "made", "--quiet"]; // prettier-ignore
    expect(runCommand(prepare, { cwd: folder }).status).toBe(0);
    const made = await configOf([layer({ data: { ...none, domainsFrom: ["made"] }, ...uniform })]);
    expect([made.data.vocabSize, made.data.endOfText]).toEqual([vocabSize, tokenizer.endOfText]);
    const own = { ...none, domainsFrom: ["made"], vocabSize: 300, endOfText: 1 };
    const given = await configOf([layer({ data: own, ...uniform })]);
    expect([given.data.vocabSize, given.data.endOfText]).toEqual([300, 1]);

    await init({ backend: "reference" });
    const model = createGPT({ vocabSize: 270, dim: 16, layers: 1, heads: 2, context: 32 });
    const files = await toHuggingFace(model);
    model.dispose();
    await shutdown();
    mkdirSync("bare");
    for (const [name, bytes] of files) writeFileSync(join("bare", name), bytes);
    const from = await configOf([layer({ data, model: { initFrom: "bare" }, ...uniform })]);
    expect(from.data.vocabSize).toBe(270);
  } finally {
    process.chdir(previous);
  }
});

test.each([
  [
    "a tokenizer that is not theirs",
    fromTokens,
    'domain "code" consists of token files; give their tokenizer.json with --tokenizer FILE, or give --tokenizer none --vocab-size N',
  ],
  [
    "text without a tokenizer",
    ["--domain", "a=code.jsonl", "--target", "target.bin", ...none],
    '--tokenizer none: domain "a" is text, which needs a tokenizer; name the one of the files of tokens with --tokenizer FILE',
  ],
  [
    "both in one domain",
    [
      "--domain",
      "a=code.jsonl",
      "--domain",
      "a=tokens/code.bin",
      "--target",
      "target.bin",
      "--tokenizer",
      "byte",
    ],
    'domain "a": code.jsonl is text, but tokens/code.bin is a file of tokens; put them into two domains',
  ],
  [
    "a vocabulary too small",
    [...fromTokens, "--tokenizer", "none", "--vocab-size", "50"],
    "target.bin: token 0 is 119, which is not an id below 50, the size of the vocabulary; give the tokenizer that the file was made with, or another type than u16 (--token-type)",
  ],
  [
    "an end of text that is no id",
    [...fromTokens, "--tokenizer", "none", "--vocab-size", "257", "--end-of-text", "257"],
    "--end-of-text: 257 is not one of the 257 ids, which start at 0",
  ],
  [
    "an index alone",
    ["--domain", "a=tokens/prose.idx", "--target", "target.bin", ...none],
    'domain "a": tokens/prose.idx belongs to tokens/prose.bin; name that',
  ],
] as [string, string[], string][])("refused in one line: %s", async (_, args, line) => {
  const given = new Map<string, string[]>();
  for (let i = 0; i < args.length; i += 2) {
    const { path } = rows.find(({ flag }) => flag === args[i]) ?? expect.unreachable();
    given.set(path, [...(given.get(path) ?? []), args[i + 1]]);
  }
  const { data } = resolveConfig([commandLineLayer(given)]);
  const hooks = { onEvent: () => {}, signal: new AbortController().signal };
  const reading = async (): Promise<unknown> =>
    readData({ ...data, context: 32, seed: 1, out: null }, { tokenizer: null, corpus: undefined }, hooks);
  const previous = process.cwd();
  process.chdir(folder);
  try {
    await expect(reading()).rejects.toMatchObject({ name: "GradmixError", message: line });
  } finally {
    process.chdir(previous);
  }
});
