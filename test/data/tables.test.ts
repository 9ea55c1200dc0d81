/** Tables as documents, and files that are not text: what is read is what several programs wrote; other files are refused by file, row and kind. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { type Document, readDocuments, type ReadOptions } from "gradmix/data";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { binaryKind } from "#dist/data/contents.js";

const golden = JSON.parse(
  readFileSync(resolve(import.meta.dirname, "../golden/parquet.json"), "utf8"),
) as Record<string, string>;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-tables-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

let round = 0;
const put = (name: string, content: string | Uint8Array): string => {
  const path = join(folder, `${round++}-${name}`);
  writeFileSync(path, content);
  return path;
};
async function read(path: string, options: ReadOptions = {}): Promise<Document[]> {
  const out: Document[] = [];
  for await (const document of readDocuments([path], options)) out.push(document);
  return out;
}
const texts = async (path: string, options: ReadOptions = {}): Promise<string[]> =>
  (await read(path, options)).map(({ text }) => text);
/** Sources without the folder and the number. */
const sources = (documents: readonly Document[]): string[] =>
  documents.map(({ source }) => source.replace(/^.*\/\d+-/, ""));

describe("CSV", () => {
  const cell = fc.string({ unit: fc.constantFrom("a", "é", '"', ",", "\n", "\r\n", " ", "\t", "𝒜", ";") });
  const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;

  test("gives the text of quoted cells, with its row", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(cell, cell), { maxLength: 8 }),
        fc.constantFrom("\n", "\r\n"),
        fc.boolean(),
        fc.boolean(),
        async (rows, end, packed, mark) => {
          const table = [["kind", "text"], ...rows].map((row) => row.map(quoted).join(",") + end).join("");
          const content = (mark ? "\uFEFF" : "") + table;
          const path = packed ? put("t.csv.gz", gzipSync(content)) : put("t.csv", content);
          const expected = rows.flatMap(([, text], i) =>
            text === "" ? [] : [{ text, source: `${path}:${i + 2}` }],
          );
          expect(await read(path)).toEqual(expected);
        },
      ),
      { numRuns: 60 },
    );
  });

  test("gives every row if it comes in many pieces, even rows before an error", async () => {
    const rows = Array.from({ length: 30_000 }, (_, i) => `row ${i} é`);
    const table = `text,kind\n${rows.map((row) => `"${row}",a\n`).join("")}`;
    expect(await texts(put("t.csv", table))).toEqual(rows);
    const seen: string[] = [];
    const broken = put("t.csv", `${table}"never closed`);
    await expect(
      (async () => {
        for await (const { text } of readDocuments([broken])) seen.push(text);
      })(),
    ).rejects.toThrow(/t\.csv:30002: the row is broken/);
    expect(seen).toEqual(rows);
  });

  test("a .tsv file has no quoting, and a column can name the domain", async () => {
    const path = put("t.tsv", 'text\tkind\n"He" said\tweb\n5" and 6"\t7\n');
    const documents = await read(path, { domainField: "kind" });
    expect(documents.map(({ text, domain }) => [text, domain])).toEqual([
      ['"He" said', "web"],
      ['5" and 6"', "7"],
    ]);
  });

  test("a row with another number of columns, an open quote or a missing column is refused by row, or left out", async () => {
    const path = put("t.csv", 'text,kind\none,a\ntwo,a,b\nthree,c\nx"y,d\nfour,e\n"open,f\n');
    await expect(read(path)).rejects.toThrow(
      /t\.csv:3: the row is broken \(.*\); fix it, or skip it with --skip-bad-lines/,
    );
    const skipped: string[] = [];
    const options: ReadOptions = {
      skipBadLines: true,
      onSkip: (source) => skipped.push(source.replace(/.*-/, "")),
    };
    expect(await texts(path, options)).toEqual(["one", "three", 'x"y', "four"]);
    expect(skipped).toEqual(["t.csv:3", "t.csv:7"]);
    await expect(read(put("t.csv", "a,b\n1,2\n"))).rejects.toThrow(
      /t\.csv:2: the row has no field "text" \(it has a, b; --text-field names another\)/,
    );
    expect(await texts(put("t.csv", "a,b\n1,2\n"), { textField: "b" })).toEqual(["2"]);
    await expect(read(put("t.csv", Buffer.from("text\n\xff\n", "latin1")))).rejects.toThrow(
      /invalid UTF-8 near byte/,
    );
    expect(await texts(put("t.csv", "text\n"))).toEqual([]);
  });

  test("text after the closing quote of a cell is a broken row; other quotes are text", async () => {
    const rows = [
      ['"text" more', null],
      ['"text"more, still"', null],
      ['"a ""b"" c" d', null],
      ['"""a"" b"', '"a" b'],
      ['""', ""],
      ['5" pipe', '5" pipe'],
      ['say "x" twice', 'say "x" twice'],
      ['"""",', null],
      ['"\n""quoted"" line"', '\n"quoted" line'],
    ] as const;
    for (const end of ["\n", "\r\n"])
      for (const [cell, text] of rows) {
        for (const [header, row] of [
          ["n,text", `1,${cell}`],
          ["text,n", `${cell},1`],
        ] as const) {
          const path = put("q.csv", `${header}${end}${end}${row}${end}`);
          if (text === null) await expect(read(path)).rejects.toThrow(/q\.csv:2: the row is broken \(/);
          else expect(await texts(path)).toEqual(text === "" ? [] : [text]);
        }
      }
    const path = put("q.csv", 'id,text\n"a" b,x\n2,fine\n');
    await expect(read(path)).rejects.toThrow(
      "q.csv:2: the row is broken (text follows the closing quote of a cell); fix it, or skip it with --skip-bad-lines",
    );
    expect(await texts(path, { skipBadLines: true })).toEqual(["fine"]);
  });
});

describe("Parquet", () => {
  const file = (name: string): string =>
    put("t.parquet", Buffer.from(golden[name] ?? expect.unreachable(), "base64"));

  test("files of DuckDB are read, with every compression and several row groups", async () => {
    const kinds = await read(file("snappy"), { domainField: "kind" });
    expect(kinds.map(({ text, domain }) => [text, domain])).toEqual(
      [0, 1, 2, 3, 4].map((i) => [`text ${i}`, i % 2 === 0 ? "web" : "code/ts"]),
    );
    expect(sources(kinds)).toEqual([1, 2, 3, 4, 5].map((row) => `t.parquet:${row}`));
    // Numbers of 64 bits are names as well.
    expect((await read(file("snappy"), { domainField: "id" })).map(({ domain }) => domain)).toEqual([
      "0",
      "1",
      "2",
      "3",
      "4",
    ]);
    const many = await read(file("zstd, many row groups"), { domainField: "cluster" });
    expect(many.map(({ text, domain }) => [text, domain])).toEqual(
      Array.from({ length: 2100 }, (_, i) => [
        `text ${(i * 7919) % 9973}${"!".repeat(i % 3)}`,
        String(i % 3),
      ]),
    );
    expect(sources(many).at(-1)).toBe("t.parquet:2100");
    expect(await texts(file("lz4_raw"))).toEqual(["é 0", "é 1", "é 2"]);
    expect(await texts(file("brotli"))).toEqual(["b 0", "b 1", "b 2"]);
  });

  test("text in a nested column is named by its path; lists, empty cells and missing columns are refused", async () => {
    expect(await texts(file("gzip, nested"), { textField: "doc.text" })).toEqual(
      [0, 1, 2, 3].map((i) => `inner ${i}`),
    );
    await expect(read(file("gzip, nested"))).rejects.toThrow(
      /t\.parquet: it has no column "text"; its columns are doc, source \(--text-field names another\)/,
    );
    await expect(read(file("gzip, nested"), { textField: "doc.body" })).rejects.toThrow(
      /:1: the row has no field "doc\.body"/,
    );
    await expect(read(file("messages"), { textField: "messages" })).rejects.toThrow(
      /:1: the field "messages" is a list, for example of messages, not a string/,
    );
    await expect(read(file("messages"))).rejects.toThrow(/:1: the field "text" is not a string/);
    const nulls = file("uncompressed, with nulls");
    await expect(read(nulls)).rejects.toThrow(/:2: /);
    expect(await texts(nulls, { skipBadLines: true })).toEqual(["n 0", "n 2", "n 3"]);
  });

  test("needs two packages; an error names them if they are missing", () => {
    const path = file("snappy");
    const hooks = `export async function resolve(name, context, next) {
      if (name.startsWith("hyparquet")) throw Object.assign(new Error("none"), { code: "ERR_MODULE_NOT_FOUND" });
      return next(name, context);
    }`;
    const script = `import { register } from "node:module";
      register("data:text/javascript," + encodeURIComponent(${JSON.stringify(hooks)}));
      const { readDocuments } = await import(${JSON.stringify(import.meta.resolve("gradmix/data"))});
      await readDocuments([${JSON.stringify(path)}]).next().catch(({ code, message }) => console.log(code, message));`;
    // Later versions of Node.js warn of `register`; what takes its place is not in the earlier ones.
    const args = ["--no-deprecation", "--input-type=module", "-e", script];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    expect([stdout, stderr]).toEqual([
      `config ${path}: to read Parquet, install two packages beside gradmix: npm install hyparquet hyparquet-compressors\n`,
      "",
    ]);
  });

  test("is refused if it is cut off anywhere", async () => {
    const whole = Buffer.from(golden["snappy"], "base64");
    for (let length = 0; length < whole.length; length += 7)
      await expect(read(put("t.parquet", whole.subarray(0, length)))).rejects.toThrow(
        /it is not a complete Parquet file/,
      );
  });
});

describe("files that are not text", () => {
  const cases: [string, string | Uint8Array, RegExp][] = [
    ["a picture", Buffer.from("\x89PNG\r\n\x1a\n\0\0", "latin1"), /x\.txt: it is a PNG picture, not text; fix it, or skip it/],
    ["a document", "%PDF-1.7\nplain", /it is a PDF document/],
    ["a ZIP archive", Buffer.from("PK\x03\x04\x14\0", "latin1"), /it is a ZIP archive/],
    ["a program", Buffer.from("\x7fELF\x02\x01\x01\0", "latin1"), /it is an ELF program or library/],
    ["a database", "SQLite format 3\0more", /it is an SQLite database/],
    ["a tar archive", Buffer.concat([Buffer.alloc(257, "a\0"), Buffer.from("ustar\0")]), /it is a tar archive/],
    ["xz", Buffer.from("\xfd7zXZ\0\0", "latin1"), /packed with xz, which gradmix cannot unpack; pack it again: xz -dc FILE\.xz \| zstd -o FILE\.zst/],
    ["bzip2", Buffer.from("BZh91AY&SY\x9b", "latin1"), /packed with bzip2.*bzip2 -dc/],
    ["Parquet", Buffer.from(golden["snappy"], "base64"), /it is Parquet, but its name does not end in \.parquet; rename it/],
  ]; // prettier-ignore
  test.each(cases)(
    "%s is refused by its type, whatever its name, or left out",
    async (_, content, message) => {
      const path = put("x.txt", content);
      await expect(read(path)).rejects.toThrow(message);
      const skipped: string[] = [];
      expect(await texts(path, { skipBadLines: true, onSkip: (_, reason) => skipped.push(reason) })).toEqual(
        [],
      );
      expect(skipped).toHaveLength(1);
      for (const name of ["x.jsonl", "x.csv"])
        await expect(read(put(name, content))).rejects.toThrow(/: it is /);
    },
  );

  test("text may begin with the same letters; compressed files are recognised without their endings", async () => {
    for (const text of ["BZh is a name", "GIF89a", "MZ", "RIFF raff", "ID3", "PK\x03\x04", "é".repeat(600)]) {
      expect(binaryKind(Buffer.from(text).subarray(0, 511))).toBeNull();
      expect(await texts(put("x.txt", text))).toEqual([text]);
    }
    const lines = '{"text":"one"}\n{"text":"two"}\n';
    expect(await texts(put("x.jsonl", gzipSync(lines)))).toEqual(["one", "two"]);
    const zstd = Buffer.from("KLUv/SQDGQAAb25l1f2XOg==", "base64");
    expect(binaryKind(zstd)).toBe("zstd");
  });
});
