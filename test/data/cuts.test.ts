/** Files read in parts: the documents are those of the whole file. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { readDocuments } from "gradmix/data";
import { afterAll, beforeAll, expect, test } from "vitest";
import { linesBefore, partsOf } from "#dist/data/cuts.js";
import { readPart } from "#dist/data/sources.js";

const PART = 2 ** 24;
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-cuts-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Lengths of lines that put ends, the middles of long lines, and empty lines at the places of cuts. */
const lines = [PART - 40, 7, 0, 0, 99, 12, 5];

test.each([
  ["lines", "a.jsonl", lines.map((n) => (n < 20 ? "" : JSON.stringify({ text: "é".repeat(n >> 1) })))],
  ["lines after a cut that begins one", "b.jsonl", [JSON.stringify({ text: "x".repeat(PART - 12) }), '{"text":"y"}']], // prettier-ignore
  ["text with line ends", "c.txt", lines.map((n) => "é".repeat(n >> 1))],
  [
    "text with one line end in the middle of a part",
    "d.txt",
    ["z".repeat(PART / 2 - 1), "é".repeat(PART / 4 + 9)],
  ],
  ["text with one just before", "e.txt", ["z".repeat(PART / 2 - 2), "é".repeat(PART / 4 + 9)]],
  ["text without one, in characters of three bytes", "f.txt", [`a${"日".repeat(PART / 3 + 9)}`]],
  ["small lines", "g.jsonl", ['{"text":"a"}']],
])("%s", async (_, name, parts) => {
  const path = join(folder, name);
  writeFileSync(path, `${parts.join("\n")}\n`);
  const { size } = statSync(path);
  const whole = await all(readDocuments([path]));
  const cut = partsOf(path, size);
  expect(cut.length).toBeGreaterThanOrEqual(Math.min(2, Math.ceil(size / PART)));
  const found: Awaited<ReturnType<typeof all>> = [];
  for (const [i, part] of cut.entries()) {
    expect(part.from).toBe(i === 0 ? 0 : cut[i - 1].to);
    found.push(...(await all(readPart({ ...part, lines: linesBefore(path, part.from) }, {}))));
  }
  expect(cut.at(-1)?.to).toBeNull();
  expect(found.length).toBe(whole.length);
  // Not by toEqual, which would print megabytes.
  found.forEach(({ text, source }, i) => {
    expect(source).toBe(whole[i].source);
    expect(text === whole[i].text).toBe(true);
  });
});

async function all(documents: AsyncIterable<{ text: string; source: string }>) {
  const list: { text: string; source: string }[] = [];
  for await (const document of documents) list.push(document);
  return list;
}

test("compressed files and tables are one part, whatever their names", () => {
  const large = Buffer.alloc(PART + 1, "a,b\n");
  for (const [name, bytes] of [
    ["a.csv", large],
    ["a.tsv", large],
    ["a.jsonl.gz", large],
    ["packed.jsonl", Buffer.concat([gzipSync("{}"), large])],
  ] as const) {
    writeFileSync(join(folder, name), bytes);
    expect(partsOf(join(folder, name), bytes.length)).toEqual([
      { path: join(folder, name), from: 0, to: null },
    ]);
  }
});
