/** Reading text: which files, which documents, and the errors for broken input. Real files in a temporary folder. */
import { spawnSync } from "node:child_process";
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { GradmixError } from "gradmix";
import {
  buildCorpus,
  byteTokenizer,
  type Document,
  listFiles,
  loadTokenizer,
  readDocuments,
  type ReadOptions,
} from "gradmix/data";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { foldIn, key, uniformAt } from "#dist/tensor/rng.js";

let folder = "";
const previous = process.cwd();
const chdir = (to: string): void => {
  // Workers of the test runner cannot change folder; these tests run in forks.
  process.chdir(to);
};
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-sources-"));
  chdir(folder);
});
afterEach(() => {
  chdir(previous);
  rmSync(folder, { recursive: true });
});

const put = (name: string, contents: string | Uint8Array): string => {
  mkdirSync(join(folder, name, ".."), { recursive: true });
  writeFileSync(join(folder, name), contents);
  return name;
};

async function read(files: string[], options: ReadOptions = {}): Promise<Document[]> {
  const out: Document[] = [];
  for await (const document of readDocuments(files, options)) out.push(document);
  return out;
}
const texts = async (files: string[], options: ReadOptions = {}): Promise<string[]> =>
  (await read(files, options)).map(({ text }) => text);

describe("files", () => {
  test("paths, folders and globs give sorted files, each once", async () => {
    for (const name of ["b.txt", "a.txt", "sub/c.md", "sub/deep/d.txt", ".hidden.txt", "sub/.git/e.txt"])
      put(name, "x");
    expect(await listFiles(["b.txt", "*.txt", "b.txt"])).toEqual(["a.txt", "b.txt"]);
    expect(await listFiles(["sub"])).toEqual(["sub/c.md", "sub/deep/d.txt"]);
    expect(await listFiles(["sub/"])).toEqual(["sub/c.md", "sub/deep/d.txt"]);
    expect(await listFiles(["**/*.txt"])).toEqual(["a.txt", "b.txt", "sub/deep/d.txt"]);
    expect(await listFiles([".hidden.txt"])).toEqual([".hidden.txt"]);
    expect(await listFiles([resolve("a.txt")])).toEqual([resolve("a.txt")]);
    // As they were named first.
    expect(await listFiles(["sub/*", `${resolve("sub")}/**`])).toEqual([
      `${resolve("sub")}/deep/d.txt`,
      "sub/c.md",
    ]);
  });

  test("names may contain spaces and glob characters", async () => {
    put("a [1] (x)*.txt", "x");
    put("odd {b}/c d.txt", "x");
    expect(await listFiles(["a [1] (x)*.txt"])).toEqual(["a [1] (x)*.txt"]);
    expect(await listFiles(["odd {b}"])).toEqual(["odd {b}/c d.txt"]);
  });

  test("of several links to a file, the file is read once; a target's file is left out under every name", async () => {
    put("a.txt", "x");
    put("sub/b.txt", "x");
    symlinkSync("a.txt", "link.txt");
    symlinkSync("..", "sub/up");
    expect(await listFiles(["**/*.txt"])).toEqual(["a.txt", "sub/b.txt"]);
    expect(await listFiles(["sub/../*.txt", "sub/up/*.txt"])).toEqual(["sub/../a.txt"]);
    expect(await listFiles(["link.txt", "a.txt"])).toEqual(["link.txt"]);
    expect(await listFiles(["*.txt", "sub/b.txt"], { exclude: new Set([resolve("link.txt")]) })).toEqual([
      "sub/b.txt",
    ]);
    await expect(listFiles(["link.txt"], { exclude: new Set([resolve("a.txt")]) })).rejects.toThrow(
      /belongs to the target/,
    );
    linkSync("a.txt", "sub/hard.txt");
    expect(await listFiles(["a.txt", "sub"])).toEqual(["a.txt", "sub/b.txt"]);
    symlinkSync("nowhere", "broken.txt");
    await expect(listFiles(["broken.txt"])).rejects.toThrow(
      /no such file: broken\.txt \(it is a link to nowhere, which does not exist\)/,
    );
    await expect(listFiles(["/dev/null"])).rejects.toThrow(/\/dev\/null is neither a file nor a folder/);
  });

  test("missing files, and files of the target, are refused", async () => {
    put("a.txt", "x");
    mkdirSync("empty");
    const fails = (patterns: string[], message: RegExp, exclude = new Set<string>()): Promise<void> =>
      expect(listFiles(patterns, { what: 'domain "d"', exclude })).rejects.toThrow(message);
    await fails(["missing.txt"], /domain "d": no such file: missing\.txt/);
    await fails(["*.md"], /domain "d": nothing matches \*\.md/);
    await fails(["empty"], /domain "d": the folder empty holds no files/);
    await fails([], /domain "d": no files were named/);
    await fails(["a.txt"], /the only file of a\.txt belongs to the target/, new Set([resolve("a.txt")]));
    put("b.txt", "x");
    expect(await listFiles(["*.txt"], { exclude: new Set([resolve("a.txt")]) })).toEqual(["b.txt"]);
  });
});

describe("documents", () => {
  test("a file is one document, and so is each line of .jsonl, compressed or not", async () => {
    const lines = '{"text":"first"}\r\n\n  \n{"text":"zweites é","id":2}\n{"text":""}\n{"text":"last"}';
    put("a.jsonl", lines);
    put("b.ndjson.gz", gzipSync(lines));
    put("c.md", "# whole\n\nfile\n");
    put("d.txt.gz", gzipSync("packed"));
    put("e.txt", "");
    put("f.txt", "\ufeffwith a mark");
    expect(await read(["a.jsonl"])).toEqual([
      { text: "first", source: "a.jsonl:1" },
      { text: "zweites é", source: "a.jsonl:4" },
      { text: "last", source: "a.jsonl:6" },
    ]);
    expect(await texts(["b.ndjson.gz"])).toEqual(["first", "zweites é", "last"]);
    expect(await texts(["c.md", "d.txt.gz", "e.txt", "f.txt"])).toEqual([
      "# whole\n\nfile\n",
      "packed",
      "with a mark",
    ]);
    for (const end of ["", "\n"]) {
      put("last.jsonl", `{"text":"whole"}\nx${end}`);
      await expect(texts(["last.jsonl"])).rejects.toThrow(/last\.jsonl:2: the line is not JSON/);
    }
    put("g.jsonl", '{"body":"other field"}');
    expect(await texts(["g.jsonl"], { textField: "body" })).toEqual(["other field"]);
  });

  test("zstandard files are read, also with several frames", async () => {
    // Made by the zstd command from lines like the ones expected.
    const one = "KLUv/SQnJQEA8HsidGV4dCI6ImZpcnN0In0KendlaXRlcyDDqSJ9CgEAqZhLDsN5IA==";
    const two =
      "KLUv/SQnJQEA8HsidGV4dCI6ImZpcnN0In0KendlaXRlcyDDqSJ9CgEAqZhLDsN5ICi1L/0kGckAAHsidGV4dCI6ImFub3RoZXIgZnJhbWUifQopkC1P";
    put("a.jsonl.zst", Buffer.from(one, "base64"));
    put("b.jsonl.zst", Buffer.from(two, "base64"));
    put("cut.jsonl.zst", Buffer.from(one, "base64").subarray(0, -6));
    put("not.txt.zst", "plain text");
    expect(await texts(["a.jsonl.zst"])).toEqual(["first", "zweites é"]);
    expect(await texts(["b.jsonl.zst"])).toEqual(["first", "zweites é", "another frame"]);
    await expect(read(["cut.jsonl.zst"])).rejects.toThrow(/cut\.jsonl\.zst: it is cut off/);
    await expect(read(["not.txt.zst"])).rejects.toThrow(/not\.txt\.zst: it is not a whole archive/);
  });

  test("lines are complete, wherever the chunks of the file end", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: "grapheme", maxLength: 30 }), { maxLength: 12 }),
        fc.constantFrom(1, 40_000),
        async (values, repeat) => {
          const documents = values.map((value) => value.repeat(repeat)).filter((value) => value !== "");
          put("x.jsonl", documents.map((value) => JSON.stringify({ text: value })).join("\n"));
          expect(await texts(["x.jsonl"])).toEqual(documents);
        },
      ),
      { numRuns: 25 },
    );
  });

  const broken: [string, string | Uint8Array, RegExp][] = [
    [
      "a.jsonl",
      '{"text":"fine"}\n{"text":\n',
      /a\.jsonl:2: the line is not JSON; fix it, or skip it with --skip-bad-lines/,
    ],
    ["a.jsonl", "[1]", /a\.jsonl:1: the line is not a JSON object/],
    ["a.jsonl", '{"txt":"x"}', /a\.jsonl:1: the object has no field "text" \(--text-field names another\)/],
    [
      "a.jsonl",
      '{"text":"a\\ud800b"}',
      /a\.jsonl:1: the text has \\ud800, which is half of a character; fix it/,
    ],
    [
      "a.jsonl",
      '{"text":"\\uDE00\\uD83D"}',
      /a\.jsonl:1: the text has \\ude00, which is half of a character/,
    ],
    ["a.jsonl", '{"text":7}', /a\.jsonl:1: the field "text" is not a string/],
    ["a.jsonl", Buffer.from([0x7b, 0xff, 0x7d]), /a\.jsonl:1: invalid UTF-8 at byte 1 of the line;/],
    ["a.txt", Buffer.from([0x63, 0xe9]), /a\.txt: invalid UTF-8 at byte 2;/],
    [
      "a.txt",
      Buffer.from("\ufeffwide", "utf16le"),
      /a\.txt: invalid UTF-8 at byte 0 \(it looks like UTF-16\);/,
    ],
    ["a.txt", Buffer.from("wide", "utf16le"), /a\.txt: 4 of 8 bytes are NUL, so it is not text in UTF-8/],
    ["a.txt", Buffer.from("слова без метки ", "utf16le"), /a\.txt: 3 of 32 bytes are NUL/],
    [
      "a.jsonl",
      Buffer.from('{"text":"wide"}', "utf16le"),
      /a\.jsonl:1: 15 of 30 bytes are NUL.*save it as UTF-8;/,
    ],
  ];
  test.each(broken)("%s: %s", async (name, contents, message) => {
    put(name, contents);
    await expect(read([name])).rejects.toThrow(message);
    await expect(read([name])).rejects.toBeInstanceOf(GradmixError);
    const skipped: string[] = [];
    const left = await texts([name], { skipBadLines: true, onSkip: (source) => skipped.push(source) });
    expect(left).toEqual(name === "a.jsonl" && String(contents).includes("fine") ? ["fine"] : []);
    expect(skipped).toHaveLength(1);
  });

  test("a table in UTF-16 is refused, and a few NULs are text", async () => {
    put("wide.csv", Buffer.from("text\nwide\n", "utf16le"));
    await expect(read(["wide.csv"])).rejects.toThrow(/wide\.csv: 10 of 20 bytes are NUL.*save it as UTF-8$/);
    const few = `${"a path of some length\0".repeat(2)}${"a".repeat(20)}`;
    put("few.txt", few);
    put("one.txt", "\0");
    expect(await texts(["few.txt", "one.txt"])).toEqual([few, "\0"]);
  });

  test("an error about invalid UTF-8 gives the position of the byte", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: "grapheme", maxLength: 40 }),
        fc.string({ unit: "grapheme", maxLength: 40 }),
        async (before, after) => {
          put("a.txt", Buffer.concat([Buffer.from(before), Buffer.from([0xff]), Buffer.from(after)]));
          await expect(read(["a.txt"])).rejects.toThrow(
            new RegExp(`a\\.txt: invalid UTF-8 at byte ${Buffer.byteLength(before)};`),
          );
        },
      ),
      { numRuns: 30 },
    );
  });

  test("a large file is read in parts of at most 16 MiB, cut between lines or else between characters", async () => {
    const limit = 2 ** 24;
    const cases = ["a line of text, é\n".repeat(1_900_000), "日".repeat(12_000_000), "x".repeat(limit)];
    for (const whole of cases) {
      put("a.txt", whole);
      const documents = await read(["a.txt"]);
      expect(documents.map(({ text }) => text).join("") === whole).toBe(true);
      let at = 0;
      for (const { text, source } of documents) {
        expect(source).toBe(at === 0 ? "a.txt" : `a.txt@${at}`);
        expect(Buffer.byteLength(text)).toBeLessThanOrEqual(limit);
        at += Buffer.byteLength(text);
      }
      expect(documents.length).toBe(Math.ceil(at / limit));
      if (whole.includes("\n")) for (const { text } of documents) expect(text.endsWith("\n")).toBe(true);
    }
    const bad = Buffer.alloc(limit + 1000, "fine\n");
    bad[limit + 500] = 0xff;
    put("a.txt", bad);
    await expect(read(["a.txt"])).rejects.toThrow(`a.txt: invalid UTF-8 at byte ${limit + 500};`);
    expect(await texts(["a.txt"], { skipBadLines: true })).toHaveLength(1);
  });

  test("archives that are cut off, or are no archives, are refused", async () => {
    const whole = gzipSync('{"text":"some text that is long enough to be packed"}\n'.repeat(50));
    put("cut.jsonl.gz", whole.subarray(0, -20));
    put("not.jsonl.gz", "plain text");
    await expect(read(["cut.jsonl.gz"])).rejects.toThrow(
      /cut\.jsonl\.gz: it is cut off: the archive ends too early/,
    );
    await expect(read(["not.jsonl.gz"])).rejects.toThrow(/not\.jsonl\.gz: it is not a whole archive/);
    for (const name of ["none.txt.gz", "none.jsonl.zst"]) {
      put(name, "");
      await expect(read([name])).rejects.toThrow(/none.*: it is cut off/);
    }
    await expect(read(["gone.txt"])).rejects.toThrow(/gone\.txt: no such file/);
    mkdirSync("folder.txt");
    await expect(read(["folder.txt"])).rejects.toThrow(/folder\.txt: it cannot be read/);
  });

  test("a line of more than 256 MiB is refused by its number, or left out, and never held in memory", async () => {
    // One byte, repeated in blocks of 128 KiB: an archive of 8 KB.
    const raw = (value: string): Buffer => {
      const bytes = Buffer.from(value);
      return Buffer.concat([Buffer.from([bytes.length * 8, bytes.length >> 5, 0]), bytes]);
    };
    const run = Buffer.from([0x02, 0x00, 0x10, 120]);
    const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]);
    const first = raw('{"text":"first"}\n{"text":"');
    const last = Buffer.concat([raw('"}\n{"text":"last"}'), Buffer.from([0x01, 0, 0])]);
    put("long.jsonl.zst", Buffer.concat([header, first, ...new Array<Buffer>(2049).fill(run), last]));
    await expect(read(["long.jsonl.zst"])).rejects.toThrow(
      /long\.jsonl\.zst:2: the line is longer than 256 MiB; a document has at most that; fix it/,
    );
    const skipped: string[] = [];
    const options = { skipBadLines: true, onSkip: (source: string): void => void skipped.push(source) };
    expect(await texts(["long.jsonl.zst"], options)).toEqual(["first", "last"]);
    expect(skipped).toEqual(["long.jsonl.zst:2"]);

    // Exactly at the limit it is read, which here ends at its first byte; one byte more is too long.
    const wrong = (more: string): Buffer => {
      const start = Buffer.concat([Buffer.of(0xff), Buffer.alloc(99, "x")]);
      const end = Buffer.alloc((1 << 17) - 100, "x");
      const block = (bytes: Buffer): Buffer => {
        const size = Buffer.alloc(4);
        size.writeUInt32LE(bytes.length * 8);
        return Buffer.concat([size.subarray(0, 3), bytes]);
      };
      return Buffer.concat([
        header,
        block(start),
        ...new Array<Buffer>(2047).fill(run),
        block(end),
        raw(`${more}\n`),
        Buffer.from([0x01, 0, 0]),
      ]);
    };
    put("limit.jsonl.zst", wrong(""));
    await expect(read(["limit.jsonl.zst"])).rejects.toThrow(
      /limit\.jsonl\.zst:1: invalid UTF-8 at byte 0 of the line/,
    );
    put("limit.jsonl.zst", wrong("x"));
    await expect(read(["limit.jsonl.zst"])).rejects.toThrow(
      /limit\.jsonl\.zst:1: the line is longer than 256 MiB/,
    );

    // A line of a gigabyte takes no more than one that is just too long.
    put("longer.jsonl.zst", Buffer.concat([header, first, ...new Array<Buffer>(8192).fill(run), last]));
    const file = resolve(import.meta.dirname, "../../.cache/long-line.mjs");
    mkdirSync(resolve(file, ".."), { recursive: true });
    writeFileSync(
      file,
      `import { readDocuments } from "gradmix/data";
      const texts = [];
      let most = 0;
      const onSkip = () => (most = process.memoryUsage().rss);
      for await (const { text } of readDocuments(["longer.jsonl.zst"], { skipBadLines: true, onSkip })) texts.push(text);
      console.log(texts.join(), most < 800e6 ? "bounded" : most);`,
    );
    const { stdout, stderr } = spawnSync(process.execPath, [file], { cwd: folder, encoding: "utf8" });
    expect({ stdout, stderr }).toEqual({ stdout: "first,last bounded\n", stderr: "" });
  });

  test("a large file of lines is never held in memory as a whole", () => {
    const line = `${JSON.stringify({ text: "word ".repeat(400) })}\n`;
    put("large.jsonl", line.repeat(60_000));
    const script = `
      import { readDocuments } from "gradmix/data";
      let count = 0, most = 0;
      for await (const { text } of readDocuments(["large.jsonl"])) {
        count += text.length > 0 ? 1 : 0;
        if (count % 2000 === 0) { global.gc(); most = Math.max(most, process.memoryUsage().heapUsed + process.memoryUsage().external); }
      }
      console.log(count, most < 40e6 ? "small" : most);`;
    const file = resolve(import.meta.dirname, "../../.cache/stream.mjs");
    mkdirSync(resolve(file, ".."), { recursive: true });
    writeFileSync(file, script);
    const { stdout, stderr } = spawnSync(process.execPath, ["--expose-gc", file], {
      cwd: folder,
      encoding: "utf8",
    });
    expect({ stdout, stderr }).toEqual({ stdout: "60000 small\n", stderr: "" });
  });
});

describe("a corpus", () => {
  const tokenizer = byteTokenizer();
  const documents = (count: number): { text: string }[] =>
    Array.from({ length: count }, (_, i) => ({ text: String.fromCodePoint(0x100 + i).repeat((i % 5) + 1) }));
  const decode = (tokens: ArrayLike<number>): string[] =>
    tokenizer.decode(tokens).split("<|endoftext|>").slice(0, -1).sort();

  test("is split by documents: each is in exactly one part, and each part has at least one", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 30 }),
        fc.double({ min: 0.001, max: 0.95, noNaN: true }),
        fc.maxSafeNat(),
        async (count, heldOut, seed) => {
          const all = documents(count);
          const corpus = await buildCorpus("d", all, tokenizer, { heldOut, seed });
          const [train, held] = [decode(corpus.train.tokens), decode(corpus.heldOut?.tokens ?? [])];
          expect([...train, ...held].sort()).toEqual(all.map(({ text }) => text).sort());
          expect(train.length).toBeGreaterThan(0);
          expect(held.length).toBeGreaterThan(0);
          expect([corpus.documents, corpus.heldOutDocuments, corpus.note]).toEqual([
            count,
            held.length,
            null,
          ]);
          const again = await buildCorpus("d", all, tokenizer, { heldOut, seed });
          expect(again).toEqual(corpus);
        },
      ),
    );
  });

  test("holds out the documents whose number is below the share, and moves the first one only to a part that would be empty", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 12 }),
        fc.double({ min: 0.01, max: 0.95, noNaN: true }),
        fc.maxSafeNat(),
        async (count, heldOut, seed) => {
          const all = documents(count);
          const corpus = await buildCorpus("d", all, tokenizer, { heldOut, seed });
          const stream = foldIn(key(seed), 0x5b17);
          const below = all.map((_, i) => uniformAt(stream, i) < heldOut);
          const others = below.slice(1);
          if (others.every((isHeldOut) => isHeldOut === others[0])) below[0] = !others[0];
          expect(decode(corpus.heldOut?.tokens ?? [])).toEqual(
            all.flatMap(({ text }, i) => (below[i] ? [text] : [])).sort(),
          );
        },
      ),
    );
  });

  test("splits a single document at the token nearest to the share", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 300 }),
        fc.double({ min: 0, max: 0.99, noNaN: true }),
        async (length, heldOut) => {
          const text = Array.from({ length }, (_, i) => String.fromCharCode(32 + (i % 90))).join("");
          const { train, heldOut: held } = await buildCorpus("d", [{ text }], tokenizer, {
            heldOut,
            seed: 1,
          });
          expect(train.tokens.length).toBe(
            heldOut === 0 ? length + 1 : Math.round((length + 1) * (1 - heldOut)),
          );
          expect(tokenizer.decode([...train.tokens, ...(held?.tokens ?? [])])).toBe(`${text}<|endoftext|>`);
        },
      ),
    );
  });

  test("refuses a document that has no text, and does not encode it without end", async () => {
    for (const [wrong, what] of [
      [{ text: 3 }, "has 3 as its text"],
      [{ text: null }, "has null as its text"],
      [{}, "has undefined as its text"],
      ["text", 'is "text"'],
      [undefined, "is undefined"],
    ] as const) {
      const given = [{ text: "good" }, wrong] as unknown as { text: string }[];
      await expect(buildCorpus("d", given, tokenizer, { heldOut: 0, seed: 1 })).rejects.toMatchObject({
        code: "data",
        message: `"d": document 2 ${what}; a document is an object with its text, { text: "…" }`,
      });
    }
  });

  test("holds nothing out with a share of 0, and splits a single document at a token", async () => {
    const whole = await buildCorpus("d", documents(5), tokenizer, { heldOut: 0, seed: 1 });
    expect([whole.heldOut, whole.heldOutDocuments]).toEqual([null, 0]);
    const text = "0123456789".repeat(10);
    const single = await buildCorpus("d", [{ text }], tokenizer, { heldOut: 0.2, seed: 1 });
    expect(single.note).toMatch(/"d" is a single document: its last 20 % of tokens are held out/);
    const parts = [...single.train.tokens, ...(single.heldOut?.tokens ?? [])];
    expect(tokenizer.decode(parts)).toBe(`${text}<|endoftext|>`);
    expect(single.train.tokens.length).toBe(81);
  });

  test("refuses empty input, and shares out of range", async () => {
    await expect(buildCorpus("d", [], tokenizer, { heldOut: 0.1, seed: 1 })).rejects.toThrow(
      /"d": it is empty/,
    );
    for (const heldOut of [-0.1, 1, NaN])
      await expect(buildCorpus("d", documents(3), tokenizer, { heldOut, seed: 1 })).rejects.toThrow(
        /heldOut/,
      );
  });

  test("takes little more memory than its tokens need", () => {
    const script = `
      import { buildCorpus, byteTokenizer } from "gradmix/data";
      const [count, size] = [60, 1e6];
      let most = 0;
      const look = () => (most = Math.max(most, process.memoryUsage().rss));
      function* documents() {
        for (let i = 0; i < count; i++, look()) yield { text: Buffer.alloc(size, "some words of text, ").toString("latin1") };
      }
      const before = look();
      const { train } = await buildCorpus("d", documents(), byteTokenizer(), { heldOut: 0, seed: 1 });
      // The tokens take two bytes each; a second copy of them would make it four.
      const bytes = (look() - before) / size / count;
      console.log(train.tokens.length, bytes < 3.2 ? "little" : bytes);`;
    const file = resolve(import.meta.dirname, "../../.cache/corpus.mjs");
    mkdirSync(resolve(file, ".."), { recursive: true });
    writeFileSync(file, script);
    // A small heap, so that the texts are collected soon.
    const flags = ["--max-old-space-size=32", "--max-semi-space-size=1"];
    const { stdout, stderr } = spawnSync(process.execPath, [...flags, file], {
      cwd: folder,
      encoding: "utf8",
    });
    expect({ stdout, stderr }).toEqual({ stdout: "60000060 little\n", stderr: "" });
  });

  test("names the document that the tokenizer cannot express", async () => {
    const json = JSON.parse(JSON.stringify(tokenizer.toJSON())) as {
      model: { vocab: Record<string, number> };
      added_tokens: { id: number }[];
    };
    // Without the letter z.
    const kept = Object.keys(json.model.vocab).filter((token) => token !== "z" && token !== "<|endoftext|>");
    json.model.vocab = Object.fromEntries([...kept, "<|endoftext|>"].map((token, id) => [token, id]));
    json.added_tokens[0].id = 255;
    const given = [
      { text: "plain", source: "a.jsonl:1" },
      { text: "fuzz", source: "a.jsonl:2" },
    ];
    await expect(buildCorpus("d", given, loadTokenizer(json), { heldOut: 0, seed: 1 })).rejects.toThrow(
      /^a\.jsonl:2: the tokenizer has no token for the byte 0x7a/,
    );
  });

  test("counts the bytes and documents that it read", async () => {
    const corpus = await buildCorpus("d", [{ text: "é" }, { text: "ab" }], tokenizer, {
      heldOut: 0,
      seed: 1,
    });
    expect([corpus.bytes, corpus.documents]).toEqual([4, 2]);
    expect([...corpus.train.documents].at(-1)).toBe(6);
  });
});

describe("the field that names the domain", () => {
  /** The domain of a document of this JSON, or the reason why it has none. */
  const domainOf = async (member: string, field = "d"): Promise<string | undefined> => {
    const path = put("d.jsonl", `{ "text": "a text \\" }", ${member} }\n`);
    try {
      return (await read([path], { domainField: field }))[0]?.domain;
    } catch (error) {
      if (error instanceof GradmixError) return error.message;
      throw error;
    }
  };
  const refused = (is: string, field = "d"): string =>
    `d.jsonl:1: the field "${field}", which names the domain (--domain-field), ${is}; fix it, or skip it with --skip-bad-lines`;

  test("is refused with the reason if it is missing, empty, null or something else", async () => {
    expect(await domainOf('"e": 1')).toMatch(/the object has no field "d" that names its domain/);
    expect(await domainOf('"d": ""')).toBe(refused("is empty"));
    expect(await domainOf('"d": null')).toBe(refused("is null"));
    expect(await domainOf('"d": [1]')).toBe(refused("is neither a string nor a number"));
    const row = put("d.csv", "text,d\nwords,\n");
    await expect(read([row], { domainField: "d" })).rejects.toThrow(
      'd.csv:2: the field "d", which names the domain (--domain-field), is empty',
    );
  });

  test("may be a number whose name has all of its digits; another one is refused as it is written", async () => {
    for (const [written, name] of [
      ["7", "7"],
      ["-7", "-7"],
      ["0", "0"],
      ["-0", "0"],
      ["1.50", "1.5"],
      ["0.001", "0.001"],
      ["1e3", "1000"],
      ["25E-1", "2.5"],
      ["120.00e-1", "12"],
      ["9007199254740991", "9007199254740991"],
      ["9007199254740992", "9007199254740992"],
      ["1e20", "100000000000000000000"],
    ])
      expect([written, await domainOf(`"d": ${written} `)]).toEqual([written, name]);
    const why = (written: string): string =>
      `is ${written}, a number that cannot be kept as it is written; write it as a string`;
    for (const written of [
      "12345678901234567890",
      "12345678901234567891",
      "9007199254740993",
      "1e21",
      "1E-7",
      "1e999",
      "0.1000000000000000055",
      "1.00000000000000000001",
    ])
      expect(await domainOf(`"d": ${written}`)).toBe(refused(why(written)));
    // Wherever it is in the line, and as a string it is kept.
    const inner = '"x": {"d": 5, "e": [1]}, "m": {"k\\"": "}", "d": 12345678901234567891, "z": 1}, "n": 0';
    expect(await domainOf(inner, "m.d")).toBe(refused(why("12345678901234567891"), "m.d"));
    expect(await domainOf('"m": {"d": 1}, "m.d": 9007199254740993', "m.d")).toBe(refused(why("9007199254740993"), "m.d")); // prettier-ignore
    expect(await domainOf('"d": "12345678901234567890"')).toBe("12345678901234567890");
  });

  test("never gives two numbers one name", async () => {
    const number = fc
      .tuple(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), fc.nat(30), fc.integer({ min: -8, max: 8 }))
      .map(([digits, point, exponent]) => {
        const text = String(digits < 0n ? -digits : digits);
        const at = Math.max(1, text.length - point);
        const fraction = text.slice(at);
        return `${digits < 0n ? "-" : ""}${text.slice(0, at)}${fraction === "" ? "" : `.${fraction}`}e${exponent}`;
      });
    await fc.assert(
      fc.asyncProperty(number, async (written) => {
        const name = (await domainOf(`"d": ${written}`)) ?? "";
        if (name.startsWith("d.jsonl")) return;
        // As a fraction of whole numbers.
        const exact = (text: string): bigint => {
          const [, sign = "", whole = "", fraction = "", exponent = "0"] =
            /^(-?)(\d+)\.?(\d*)(?:e(-?\d+))?$/.exec(text) ?? expect.unreachable();
          return BigInt(`${sign}${whole}${fraction}${"0".repeat(60 - fraction.length + Number(exponent))}`);
        };
        expect(exact(name)).toBe(exact(written));
      }),
      { numRuns: 200 },
    );
  });
});
