/** Tokenizers of any kind: Hugging Face's library in Rust against itself in Python, and OpenAI's vocabularies against tiktoken. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { GradmixError } from "gradmix";
import { byteTokenizer, loadTokenizer, openTokenizer } from "gradmix/data";
import { describe, expect, test } from "vitest";
import { gptVocabularies } from "#dist/data/gpt-vocabulary-table.js";

const read = (name: string): unknown =>
  JSON.parse(readFileSync(resolve(import.meta.dirname, "../golden", name), "utf8"));

interface File {
  readonly added_tokens: readonly { readonly content: string; readonly id: number }[];
  readonly model: { readonly vocab: Record<string, number> | readonly [string, number][] };
}
const golden = read("library-tokenizers.json") as readonly {
  readonly name: string;
  readonly file: File;
  /** A text, its ids, and what they decode to. */
  readonly texts: readonly [string, string, string][];
}[];

describe.each(golden)("a tokenizer.json of another kind: $name", ({ file, texts }) => {
  test("gives the ids of Hugging Face's library, and decodes them", () => {
    const tokenizer = openTokenizer(file);
    for (const [text, ids, back] of texts) {
      const found = tokenizer.encode(text);
      expect([text, [...found].join(" ")]).toEqual([text, ids]);
      expect([text, tokenizer.decode(found)]).toEqual([text, back]);
      const blocks: number[] = [];
      tokenizer.encodeBlocks(text, (block) => {
        expect(block.length).toBeGreaterThan(0);
        blocks.push(...block);
      });
      expect(blocks).toEqual([...found]);
    }
    const vocab = Array.isArray(file.model.vocab)
      ? file.model.vocab.length
      : Object.keys(file.model.vocab).length;
    expect([tokenizer.kind === "byte", tokenizer.vocabSize]).toEqual([false, vocab]);
    const end = file.added_tokens.find(({ id }) => id === tokenizer.endOfText);
    expect(["</s>", "[SEP]"]).toContain(end?.content);
    expect(tokenizer.decode([tokenizer.endOfText, tokenizer.vocabSize + 3])).toBe(end?.content);
  });

  test("is stored unchanged, and is not read as byte-level BPE", () => {
    expect(openTokenizer(file).toJSON()).toEqual(file);
    expect(() => loadTokenizer(file)).toThrow(/^tokenizer\.json: .*; byte-level BPE can be read$/);
  });

  test("text that looks like a special token is encoded as text", () => {
    const tokenizer = openTokenizer(file);
    const specials = file.added_tokens.filter(({ content }) => !/unk/i.test(content));
    const piece = fc.constantFrom(...specials.map(({ content }) => content), "fox", " ", "the", "a\n");
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 6 }), (parts) => {
        const ids = new Set(tokenizer.encode(parts.join("")));
        for (const { id } of specials) expect([parts, ids.has(id)]).toEqual([parts, false]);
      }),
      { numRuns: 50 },
    );
  });
});

test("broken files are refused by both readers", () => {
  const [bert, t5] = golden.map(({ file }) => file as unknown as Record<string, Record<string, unknown>>);
  const cases: [unknown, RegExp][] = [
    [{ ...bert, model: { ...bert["model"], dropout: 0.1 } }, /the model has dropout/],
    [{ ...bert, model: { ...bert["model"], type: "Guess" } }, /the model is "Guess"/],
    [{ ...bert, normalizer: { type: "Guess" } }, /it cannot be read \(Hugging Face's library: /],
    [
      { ...t5, model: { ...t5["model"], vocab: [["a"], 3] } },
      /entry 1 of the vocabulary is not a token with a score/,
    ],
    [{ ...t5, model: { ...t5["model"], vocab: 3 } }, /it has no vocabulary/],
  ];
  for (const [file, message] of cases) {
    expect(() => openTokenizer(file)).toThrow(message);
    expect(() => openTokenizer(file)).toThrow(GradmixError);
  }
});

test("byte-level BPE needs no extra package", () => {
  const own = byteTokenizer().toJSON();
  expect(openTokenizer(own).kind).toBe("byte");
  expect(openTokenizer(own).toJSON()).toEqual(own);
});

const gpt = read("gpt-ids.json") as {
  readonly texts: readonly string[];
  readonly vocabularies: readonly { name: string; size: number; endOfText: number; ids: readonly string[] }[];
};

test.each(gpt.vocabularies)(
  "the vocabulary $name has the ids of tiktoken",
  ({ name, size, endOfText, ids }) => {
    expect(gptVocabularies).toContain(name);
    const tokenizer = openTokenizer(name);
    expect([tokenizer.vocabSize, tokenizer.endOfText]).toEqual([size, endOfText]);
    expect(tokenizer.decode([endOfText])).toBe("<|endoftext|>");
    gpt.texts.forEach((text, i) => {
      const found = tokenizer.encode(text);
      expect([text, [...found].join(" ")]).toEqual([text, ids[i]]);
      expect(tokenizer.decode(found)).toBe(text);
    });
  },
);

test("an unknown name is refused, and the message lists the known ones", () => {
  expect(() => openTokenizer("gpt5")).toThrow(/no vocabulary "gpt5"; there are gpt2, r50k_base, /);
});

test("packages that are not installed are named in one line", () => {
  const folder = mkdtempSync(join(tmpdir(), "gradmix-"));
  try {
    // A copy of the built package, beside which only its own dependencies are.
    const dist = dirname(dirname(fileURLToPath(import.meta.resolve("#dist/data/open-tokenizer.js"))));
    cpSync(dist, join(folder, "dist"), {
      recursive: true,
      filter: (path) => !/\.(d\.ts|map|wasm)$/.test(path),
    });
    mkdirSync(join(folder, "node_modules"));
    const modules = resolve(dist, "../node_modules");
    symlinkSync(join(modules, "oniguruma-to-es"), join(folder, "node_modules/oniguruma-to-es"));
    const script = `import { openTokenizer } from ${JSON.stringify(join(folder, "dist/data/open-tokenizer.js"))};
      for (const source of [${JSON.stringify(golden[0].file)}, "gpt2"])
        try { openTokenizer(source); } catch ({ code, message }) { console.log(code, message); }`;
    const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module"], {
      input: script,
      encoding: "utf8",
    });
    expect([stdout, stderr]).toEqual([
      'config tokenizer.json: the model is "WordPiece", not BPE; to read any tokenizer, install Hugging Face\'s library beside gradmix: npm install tokenizers\n' +
        'config the vocabulary "gpt2" comes with another package; install it beside gradmix: npm install gpt-tokenizer\n',
      "",
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
