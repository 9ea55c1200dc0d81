/**
 * Corpora of tokens in files of several programs equal the corpus of their text; files that are truncated, of another type or changed are refused; and
 * files that are written here can be read by independent readers, in NumPy if it is installed.
 */
import { execFileSync, spawnSync } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import {
  bigramHistogram,
  buildCorpus,
  openTokens,
  type StoredCorpus,
  type StoredStream,
  type TokenFileFacts,
  type TokenFileOptions,
  type Tokenizer,
  type TokenStream,
  tokenWriter,
  windowsOf,
} from "gradmix/data";
import { GradmixError } from "gradmix";
import { writeMegatron, writeNanoGPT } from "gradmix/node";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { random } from "../dga/arbitraries.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-token-files-"));
});
afterAll(() => rmSync(folder, { recursive: true }));
let round = 0;
const fresh = (): string => {
  const path = join(folder, String(round++));
  mkdirSync(path);
  return path;
};

type Documents = readonly (readonly number[])[];
const END = 3;
const options: TokenFileOptions = { vocabSize: 70_000, endOfText: END, heldOut: 0.3, seed: 5 };

/** A text is its ids, apart by spaces. */
const ids = (vocabSize: number): Tokenizer => ({
  kind: "byte",
  vocabSize,
  endOfText: END,
  encode: (text) => Uint32Array.from(text.split(" "), Number),
  encodeBlocks: (text, take) => take(Uint32Array.from(text.split(" "), Number)),
  decode: (tokens) => Array.from(tokens).join(" "),
  toJSON: () => ({}),
});

const streamOf = (documents: Documents, vocabSize = options.vocabSize): TokenStream => {
  const writer = tokenWriter(vocabSize, END);
  for (const document of documents) writer.document(document);
  return writer.finish();
};

const flat = (documents: Documents): number[] => documents.flatMap((document) => [...document, END]);
const u16 = (tokens: readonly number[]): Buffer => Buffer.from(Uint16Array.from(tokens).buffer);
const u32 = (tokens: readonly number[]): Buffer => Buffer.from(Uint32Array.from(tokens).buffer);
const u64 = (numbers: readonly number[]): Buffer => Buffer.from(BigUint64Array.from(numbers, BigInt).buffer);
const endsOf = (documents: Documents): number[] => {
  let end = 0;
  return documents.map((document) => (end += document.length + 1));
};
/** As dolma writes it; a name may have a comma and a line end in it. */
const tableOf = (ends: readonly number[]): string =>
  ends.map((end, i) => `${ends[i - 1] ?? 0},${end},"doc, ${i}\n",c4/${i}.json.gz,${i}\r\n`).join("");
const llmC = (magic: number, version: number, count: number, tokens: Buffer): Buffer => {
  const header = new Int32Array(256);
  header.set([magic, version, count]);
  return Buffer.concat([Buffer.from(header.buffer), tokens]);
};

/** Each format as the tool itself writes it; gives the path to read. */
const writers: Readonly<Record<string, (at: string, documents: Documents, wide: boolean) => string>> = {
  nanoGPT(at, documents, wide) {
    writeFileSync(`${at}.bin`, (wide ? u32 : u16)(flat(documents)));
    return `${at}.bin`;
  },
  "llm.c, the end of text after each document"(at, documents, wide) {
    const tokens = flat(documents);
    const [magic, version] = wide ? [20240801, 7] : [20240520, 1];
    writeFileSync(`${at}.bin`, llmC(magic, version, tokens.length, (wide ? u32 : u16)(tokens)));
    return `${at}.bin`;
  },
  OLMo(at, documents, wide) {
    writeFileSync(`${at}.npy`, (wide ? u32 : u16)(flat(documents)));
    return `${at}.npy`;
  },
  "OLMo, with its table"(at, documents, wide) {
    writeFileSync(`${at}.npy`, (wide ? u32 : u16)(flat(documents)));
    writeFileSync(`${at}.csv.gz`, gzipSync(tableOf(endsOf(documents))));
    return `${at}.npy`;
  },
  "datatrove, with its index and description"(at, documents, wide) {
    writeFileSync(`${at}.ds`, (wide ? u32 : u16)(flat(documents)));
    writeFileSync(`${at}.ds.index`, u64(endsOf(documents)));
    writeFileSync(`${at}.ds.metadata`, `gpt2|${wide ? 4 : 2}\n${flat(documents).length}\n1 T`);
    return `${at}.ds`;
  },
  "datatrove, with a description of before that says no type"(at, documents, wide) {
    writeFileSync(`${at}.ds`, (wide ? u32 : u16)(flat(documents)));
    writeFileSync(`${at}.ds.metadata`, `gpt2\n${flat(documents).length}\n1 T`);
    return `${at}.ds`;
  },
  "datatrove, with its index"(at, documents, wide) {
    writeFileSync(`${at}.ds`, (wide ? u32 : u16)(flat(documents)));
    writeFileSync(`${at}.ds.index`, u64(endsOf(documents)));
    return `${at}.ds`;
  },
  Megatron(at, documents, wide) {
    // Documents that are long enough have two sequences; with modes.
    const sequences = documents.flatMap((document) => {
      const whole = [...document, END];
      return whole.length < 4 ? [whole] : [whole.slice(0, 2), whole.slice(2)];
    });
    const marks = [0];
    for (const document of documents) marks.push((marks.at(-1) ?? 0) + (document.length + 1 < 4 ? 1 : 2));
    let start = 0;
    const pointers = sequences.map((sequence) => {
      start += sequence.length;
      return (start - sequence.length) * (wide ? 4 : 2);
    });
    const head = Buffer.concat([
      Buffer.from("MMIDIDX\0\0", "latin1"),
      u64([1]),
      Buffer.of(wide ? 4 : 8),
      u64([sequences.length, marks.length]),
    ]);
    const lengths = u32(sequences.map(({ length }) => length));
    const modes = Buffer.alloc(sequences.length);
    writeFileSync(`${at}.idx`, Buffer.concat([head, lengths, u64(pointers), u64(marks), modes]));
    writeFileSync(`${at}.bin`, (wide ? u32 : u16)(flat(documents)));
    return `${at}.bin`;
  },
  "Megatron, as it is written here"(at, documents, wide) {
    writeMegatron(at, streamOf(documents), { vocabSize: wide ? 70_000 : 65_499 });
    return `${at}.bin`;
  },
};
const formats = Object.keys(writers);
/** Types that the files of a format do not say themselves. */
const typeOf = (format: string, wide: boolean): Partial<TokenFileOptions> =>
  ["nanoGPT", "OLMo", "OLMo, with its table"].includes(format) ? { tokenType: wide ? "u32" : "u16" } : {};

const contentOf = ({ tokens, documents }: StoredStream) => ({
  tokens: Array.from(tokens.subarray(0, tokens.length)),
  documents: Array.from(documents),
});
const sides = ({ train, heldOut, documents, heldOutDocuments, note }: StoredCorpus) => ({
  train: contentOf(train),
  heldOut: heldOut === null ? null : contentOf(heldOut),
  counts: [documents, heldOutDocuments],
  note,
});

const anyDocuments = (most: number) =>
  fc.array(fc.array(fc.integer({ min: 4, max: most }), { minLength: 1, maxLength: 9 }), { minLength: 1, maxLength: 12 }); // prettier-ignore

describe.each(formats)("%s", (format) => {
  test("several files give the same corpus as their documents as text", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.boolean().chain((wide) => fc.tuple(fc.constant(wide), anyDocuments(wide ? 69_999 : 65_498))),
        fc.nat(11),
        fc.constantFrom(0, 0.3, 0.9),
        fc.nat(3),
        async ([wide, documents], cut, heldOut, seed) => {
          const at = fresh();
          const parts = [documents.slice(0, cut), documents.slice(cut)].filter(({ length }) => length > 0);
          const files = parts.map((part, i) => writers[format](join(at, `part${i}`), part, wide));
          const split = { heldOut, seed };
          const found = await openTokens("a", files, { ...options, ...split, ...typeOf(format, wide) });
          const texts = documents.map((document) => ({ text: document.join(" ") }));
          const expected = await buildCorpus("a", texts, ids(options.vocabSize), split);
          expect(sides(found)).toEqual(sides(expected));
          expect(found.train.largest).toBe(Math.max(END, ...documents.flat()));
        },
      ),
      { numRuns: 25 },
    );
  });

  test("a file that is cut off anywhere is refused by its name", async () => {
    const at = fresh();
    const documents = [[5, 6], [7, 8, 9, 10], [11]];
    const path = writers[format](join(at, "x"), documents, true);
    const type = typeOf(format, true);
    const read = () => openTokens("a", [path], { ...options, ...type });
    await read();
    const whole = readFileSync(path);
    for (let length = 0; length < whole.length; length++) {
      truncateSync(path, length);
      // Without an index or a header, the number of tokens is unknown.
      if (type.tokenType !== undefined && length > 0 && length % 4 === 0) continue;
      // The number at the start of llm.c's files distinguishes them from nanoGPT's.
      if (format.startsWith("llm.c") && length === 2) continue;
      // If only the size of the file gives the type, half of the bytes are as many tokens of half the size.
      if (
        format.startsWith("datatrove") &&
        !format.includes("and description") &&
        length === whole.length / 2
      )
        continue;
      await expect(read(), `${length} bytes`).rejects.toThrow(`${path}: `);
      writeFileSync(path, whole);
    }
    appendFileSync(path, Buffer.of(1, 2));
    await expect(read()).rejects.toThrow(`${path}: `);
  });
});

describe("tokens are read by position", () => {
  test("any part can be read, as from memory; positions beyond the ends hold no tokens", async () => {
    const draw = random(3);
    const documents = Array.from({ length: 200 }, () =>
      Array.from({ length: 1 + Math.floor(draw() * 40) }, () => 4 + Math.floor(draw() * 1000)),
    );
    const at = fresh();
    const files = [0, 70, 71].map((from, i, all) =>
      writers["nanoGPT"](join(at, `${i}`), documents.slice(from, all[i + 1]), false),
    );
    const { train, heldOut } = await openTokens("a", files, options);
    for (const stream of [train, heldOut]) {
      const { tokens } = stream ?? expect.unreachable();
      const all = Array.from(tokens.subarray(0, tokens.length));
      expect(all.length).toBe(tokens.length);
      fc.assert(
        fc.property(
          fc.integer({ min: -9, max: all.length + 9 }),
          fc.integer({ min: -9, max: 300 }),
          (from, n) => {
            expect(Array.from(tokens.subarray(from, from + n))).toEqual(
              n < 0 ? [] : all.slice(Math.max(0, from), Math.max(0, from + n)),
            );
          },
        ),
      );
    }
    // More files than are open at once.
    const many = Array.from({ length: 150 }, (_, i) =>
      writers["nanoGPT"](join(at, `m${i}`), [[i + 4]], false),
    );
    const { tokens } = (await openTokens("a", many, { ...options, heldOut: 0 })).train;
    for (const place of [298, 0, 150, 2, 298])
      expect(tokens.subarray(place, place + 1)[0]).toBe((place === 298 ? 0 : place / 2 + 1) + 4);
  });

  test("windows and histograms equal those from memory", async () => {
    const draw = random(8);
    const text = (low: number) =>
      Array.from({ length: 60 }, () => Array.from({ length: 50 }, () => low + Math.floor(draw() * 40)));
    const at = fresh();
    const pairs = await Promise.all(
      [4, 30, 20].map(async (low, i) => {
        const documents = text(low);
        const path = writers["Megatron"](join(at, `${i}`), documents, i === 1);
        const { train } = await openTokens("a", [path], { ...options, heldOut: 0 });
        return [train, streamOf([...documents.slice(1), documents[0]])].map((s) => windowsOf("a", s, 16));
      }),
    );
    const [stored, memory] = [0, 1].map((side) => pairs.map((pair) => pair[side]));
    stored.forEach((windows, i) => {
      expect(windows.count).toBe(memory[i].count);
      const some = [0, windows.count - 1, 7, 100];
      expect(windows.batchOf(some)).toEqual(memory[i].batchOf(some));
    });
    const histogram = ([first, ...rest]: typeof stored) =>
      bigramHistogram(first, rest, { domainTokens: 2000 });
    expect(histogram(stored)).toEqual(histogram(memory));
  });

  test("a file that changes in the meantime is refused", async () => {
    const path = writers["nanoGPT"](
      join(fresh(), "x"),
      [
        [5, 6],
        [7, 8],
      ],
      false,
    );
    const { train } = await openTokens("a", [path], options);
    appendFileSync(path, Buffer.alloc(2));
    expect(() => train.tokens.subarray(0, 2)).toThrow(`${path}: it has changed while it was read`);
    rmSync(path);
    expect(() => train.tokens.subarray(0, 2)).toThrow(`${path}: it cannot be read any more`);
  });
});

test("Megatron's types of ids with 8 and 64 bits are read, and ids that are too large or negative are refused", async () => {
  const documents = [[5, 6], [200], [7, 8, 9]];
  for (const [code, bytes, tokens] of [
    [1, 1, Buffer.from(flat(documents))],
    [5, 8, u64(flat(documents))],
  ] as const) {
    const path = writers["Megatron"](join(fresh(), "x"), documents, false);
    const at = path.replace(".bin", ".idx");
    const index = readFileSync(at);
    index.writeUInt8(code, 17);
    const sequences = Number(index.readBigUInt64LE(18));
    for (let i = 0; i < sequences; i++) {
      const place = 34 + 4 * sequences + 8 * i;
      index.writeBigUInt64LE((index.readBigUInt64LE(place) / 2n) * BigInt(bytes), place);
    }
    writeFileSync(at, index);
    writeFileSync(path, tokens);
    const { train } = await openTokens("a", [path], { ...options, heldOut: 0 });
    expect(contentOf(train).tokens).toEqual([...flat(documents.slice(1)), ...flat(documents.slice(0, 1))]);
    if (bytes === 1) continue;
    for (const id of [2n ** 32n + 5n, -1n]) {
      const wrong = Buffer.from(tokens);
      wrong.writeBigInt64LE(id, 8);
      writeFileSync(path, wrong);
      await expect(openTokens("a", [path], options)).rejects.toThrow(
        /token 1 is 4294967295, which is not an id/,
      );
    }
  }
});

describe("documents", () => {
  const documentsOf = async (tokens: readonly number[], more: Partial<TokenFileOptions> = {}) => {
    const path = join(fresh(), "x.bin");
    writeFileSync(path, u16(tokens));
    const { train, documents, note } = await openTokens("a", [path], { ...options, heldOut: 0, ...more });
    return [documents, contentOf(train), note] as const;
  };

  test("may have the end of text after them, before them, or not at all; repeated ends belong to the document", async () => {
    for (const [tokens, count, starts] of [
      [[5, END, 6, END], 2, [2, 4, 0]],
      [[END, 5, END, 6], 2, [3, 4, 0]],
      [[5, END, END, 6, END, END], 2, [2, 6, 0]],
      [[END, END], 1, [0, 2]],
      [[5, 6, 7], 1, [0, 3]],
    ] as const) {
      const [documents, { tokens: found }] = await documentsOf(tokens);
      expect([documents, found.length]).toEqual([count, tokens.length]);
      // The first document stands last.
      const first = starts.length === 3 ? starts[0] : 0;
      expect(found).toEqual([...tokens.slice(first), ...tokens.slice(0, first)]);
    }
  });

  test("without ends form one document, whose last tokens are held out", async () => {
    const tokens = Array.from({ length: 100 }, (_, i) => i % 4);
    const [documents, train, note] = await documentsOf(tokens, { endOfText: null, heldOut: 0.25 });
    expect([documents, train.tokens]).toEqual([1, tokens.slice(0, 75)]);
    expect(note).toBe('"a" is a single document: its last 25 % of tokens are held out');
  });
});

describe("is refused in one line with the name of the file", () => {
  const bytes = (name: string, content: Uint8Array | string): string => {
    const path = join(fresh(), name);
    writeFileSync(path, content);
    return path;
  };
  const index = (change: (index: Buffer) => void): string => {
    const path = writers["Megatron"](join(fresh(), "x"), [[5, 6, 7], [8]], false);
    const at = path.replace(".bin", ".idx");
    const content = readFileSync(at);
    change(content);
    writeFileSync(at, content);
    return path;
  };
  const cases: [string, () => string, RegExp, Partial<TokenFileOptions>?][] = [
    ["an id past the vocabulary", () => bytes("x.bin", u16([1, 2, 999, 3])), /x\.bin: token 2 is 999, which is not an id below 900/, { vocabSize: 900 }],
    ["another type", () => bytes("x.bin", u32([1, 2, 999, 70000])), /token 6 is 4464, which is not an id below 1000.*--token-type/, { vocabSize: 1000 }],
    ["a negative id", () => bytes("x.bin", Buffer.from(Int32Array.of(1, -2).buffer)), /token 1 is 4294967294/, { tokenType: "u32" }],
    ["half a token", () => bytes("x.bin", Buffer.alloc(7)), /its 7 bytes are not a whole number of u16 tokens/],
    ["nothing", () => bytes("x.bin", ""), /x\.bin: it is empty/],
    ["no type", () => bytes("x.npy", u16([1])), /add --token-type u16 or --token-type u32/],
    ["NumPy's own", () => bytes("x.npy", Buffer.from("\x93NUMPY\x01\0v\0{'descr': '<u2'}", "latin1")), /NumPy array with a header/, { tokenType: "u16" }],
    ["an evaluation of llm.c", () => bytes("x.bin", llmC(20240522, 1, 1, Buffer.alloc(4))), /evaluation file of llm\.c/],
    ["another version of llm.c", () => bytes("x.bin", llmC(20240520, 2, 2, Buffer.alloc(4))), /llm\.c of version 2; version 1 can be read/],
    ["llm.c, cut off", () => bytes("x.bin", llmC(20240520, 1, 3, Buffer.alloc(4))), /its header says 3 tokens, which are 1030 bytes, but it has 1028/],
    ["datatrove without a type", () => bytes("x.ds", u16([1])), /neither .*x\.ds\.metadata nor .*x\.ds\.index, so the type of its tokens is unknown/],
    ["another ending", () => bytes("x.dat", u16([1])), /x\.dat: it is not a file of tokens, whose name ends in \.bin, \.ds or \.npy/],
    ["no file", () => join(folder, "none.bin"), /none\.bin: no such file/],
    ["an index of something else", () => index((b) => b.write("MMIDIDY")), /x\.idx: it is not an index of Megatron/],
    ["another version", () => index((b) => b.writeBigUInt64LE(2n, 9)), /version 2; version 1 can be read/],
    ["numbers that are no ids", () => index((b) => b.writeUInt8(7, 17)), /type float32, which cannot hold ids/],
    ["an unknown type", () => index((b) => b.writeUInt8(99, 17)), /type 99, which cannot hold ids/],
    ["more sequences than there are", () => index((b) => b.writeBigUInt64LE(9n, 18)), /9 sequences and 3 documents, which do not fit its/],
    ["a negative length", () => index((b) => b.writeInt32LE(-1, 34)), /sequence 0 has -1 tokens/],
    ["sequences apart", () => index((b) => b.writeBigInt64LE(6n, 34 + 12 + 8)), /sequence 1 begins at byte 6, not where the one before it ends/],
    ["documents that go back", () => index((b) => b.writeBigInt64LE(9n, 34 + 36 + 8)), /documents of the index are not made of its sequences/],
    ["lengths that the tokens do not have", () => index((b) => { b.writeInt32LE(3, 34 + 8); }), /its index says 7 tokens, which are 14 bytes, but it has 12/],
  ]; // prettier-ignore
  test.each(cases)("%s", async (_, make, message, more = {}) => {
    const path = make();
    await expect(openTokens("a", [path], { ...options, ...more })).rejects.toThrow(message);
  });

  test("documents of OLMo follow the table, whatever ends of text the file has", async () => {
    const path = join(fresh(), "x.npy");
    const table = path.replace(".npy", ".csv.gz");
    writeFileSync(path, u16([5, END, 6, 7, 8]));
    const open = () => openTokens("a", [path], { ...options, tokenType: "u16", heldOut: 0 });
    for (const head of ["", "start,end,id,src,loc\n"]) {
      writeFileSync(table, gzipSync(`${head}0,3,a,b,1\n3,4,a,b,2\n4,5,a,b,3`));
      // The first document stands last.
      expect(contentOf((await open()).train)).toEqual({ tokens: [7, 8, 5, END, 6], documents: [0, 1, 2, 5] });
    }
    for (const [text, message] of [
      ["0,3,a\n", /x\.npy: .*x\.csv\.gz says 3 tokens, but the file has 5/],
      ["0,3,a\n4,5,b\n", /x\.csv\.gz: row 2 covers tokens 4 to 5, but the document before it ends at 3/],
      ["0,5,a\n5,4,b\n", /row 2 covers tokens 5 to 4/],
      ["0\n", /row 1 covers tokens 0 to ,/],
      ["0,x\n", /row 1 covers tokens 0 to x/],
      ["", /says 0 tokens, but the file has 5/],
      ['"0,5', /it is not a table/],
    ] as const) {
      writeFileSync(table, gzipSync(text));
      await expect(open()).rejects.toThrow(message);
    }
    writeFileSync(table, gzipSync("0,5,a\n").subarray(0, 12));
    await expect(open()).rejects.toThrow(GradmixError);
  });

  test("an index of datatrove that does not fit its tokens", async () => {
    const path = writers["datatrove, with its index"](join(fresh(), "x"), [[5], [6, 7]], false);
    for (const [ends, message] of [
      [[2, 1, 5], /document 1 ends at token 1, before it begins/],
      [[2, 4], /its index says 4 tokens, but it has 10 bytes/],
    ] as const) {
      writeFileSync(`${path}.index`, u64(ends));
      await expect(openTokens("a", [path], options)).rejects.toThrow(message);
    }
    writeFileSync(`${path}.index`, Buffer.alloc(5));
    await expect(openTokens("a", [path], options)).rejects.toThrow(/its size is not a multiple of 8 bytes/);
    writeFileSync(`${path}.index`, u64([2, 5]));
    writeFileSync(`${path}.metadata`, "gpt2|8");
    await expect(openTokens("a", [path], options)).rejects.toThrow(
      /its first line ends in \|8, the bytes of a token/,
    );
    writeFileSync(`${path}.metadata`, "gpt2|2");
    writeFileSync(`${path}.loss`, Buffer.alloc(5));
    await expect(openTokens("a", [path], options)).rejects.toThrow(
      /x\.ds\.loss says which of its tokens count, but gradmix cannot use this/,
    );
  });

  test("a hash and a count distinguish files", async () => {
    const facts: TokenFileFacts[] = [];
    const onFile = (_: string, found: TokenFileFacts) => void facts.push(found);
    const paths = [
      [5, 6],
      [5, 7],
      [5, 6],
    ].map((document, i) => writers[formats[i]](join(fresh(), "x"), [document], false));
    await openTokens(
      "a",
      paths.filter((path) => path.endsWith(".bin")),
      { ...options, onFile },
    );
    expect(facts[0]).toMatchObject({ format: "nanoGPT", tokens: 3, documents: 1, largest: 6 });
    expect(new Set(facts.map(({ sha256 }) => sha256)).size).toBe(2);
    const stopped = AbortSignal.abort(new Error("stopped"));
    await expect(openTokens("a", [paths[0]], { ...options, signal: stopped })).rejects.toThrow("stopped");
  });
});

describe("writing tokens", () => {
  const documents = [[5, 6], [65_498], [7, 8, 9]];

  test("refuses ids that do not fit, and leaves no partial files", () => {
    const at = fresh();
    const stream = streamOf(documents);
    expect(() => writeNanoGPT(join(at, "x.bin"), stream, { vocabSize: 65_498 })).toThrow(
      /token 3 is 65498, which is not an id below 65498/,
    );
    expect(() => writeMegatron(join(at, "x"), stream, { vocabSize: 100 })).toThrow(/token 3 is 65498/);
    expect(() => writeNanoGPT(join(at, "x.bin"), stream, { vocabSize: 65_537 })).toThrow(/vocabSize/);
    expect(execFileSync("ls", ["-A", at], { encoding: "utf8" })).toBe("");
    // An index stays with the tokens that it is of.
    writeMegatron(join(at, "x"), stream, { vocabSize: 70_000 });
    expect(() => writeMegatron(join(at, "x"), stream, { vocabSize: 100 })).toThrow(/token 3/);
    expect(execFileSync("ls", ["-A", at], { encoding: "utf8" })).toBe("x.bin\n");
  });

  const numpy = spawnSync("python3", ["-c", "import numpy; print(numpy.__version__)"], { encoding: "utf8" });
  test.skipIf(numpy.status !== 0)(
    "NumPy reads the files in the way of Megatron and nanoGPT (skipped without python3 and numpy)",
    () => {
      const at = fresh();
      writeNanoGPT(join(at, "n.bin"), streamOf(documents), { vocabSize: 65_499 });
      writeMegatron(join(at, "narrow"), streamOf(documents), { vocabSize: 65_499 });
      writeMegatron(join(at, "wide"), streamOf(documents), { vocabSize: 65_500 });
      const script = `
import json, sys, struct, numpy
def megatron(prefix):
    with open(prefix + ".idx", "rb") as f:
        assert f.read(9) == b"MMIDIDX\\x00\\x00"
        assert struct.unpack("<Q", f.read(8)) == (1,)
        dtype = {8: numpy.uint16, 4: numpy.int32}[struct.unpack("<B", f.read(1))[0]]
        count = struct.unpack("<Q", f.read(8))[0]
        marks = struct.unpack("<Q", f.read(8))[0]
        offset = f.tell()
    raw = numpy.memmap(prefix + ".idx", mode="r", order="C")
    lengths = numpy.frombuffer(raw, dtype=numpy.int32, count=count, offset=offset)
    pointers = numpy.frombuffer(raw, dtype=numpy.int64, count=count, offset=offset + lengths.nbytes)
    documents = numpy.frombuffer(raw, dtype=numpy.int64, count=marks, offset=offset + lengths.nbytes + pointers.nbytes)
    tokens = numpy.memmap(prefix + ".bin", mode="r", order="C")
    sequences = [numpy.frombuffer(tokens, dtype=dtype, count=l, offset=p).tolist() for l, p in zip(lengths, pointers)]
    return [numpy.dtype(dtype).name, sequences, documents.tolist()]
at = sys.argv[1]
print(json.dumps([numpy.memmap(at + "/n.bin", dtype=numpy.uint16, mode="r").tolist(), megatron(at + "/narrow"), megatron(at + "/wide")]))
`;
      const read: unknown = JSON.parse(execFileSync("python3", ["-c", script, at], { encoding: "utf8" }));
      const sequences = documents.map((document) => [...document, END]);
      expect(read).toEqual([
        flat(documents),
        ["uint16", sequences, [0, 1, 2, 3]],
        ["int32", sequences, [0, 1, 2, 3]],
      ]);
    },
  );
});
