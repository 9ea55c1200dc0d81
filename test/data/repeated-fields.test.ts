/** A field that stands twice in a document is refused, because one of its values would be lost: in lines of JSON, however they are written, and in tables. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import fc from "fast-check";
import { readDocuments, type ReadOptions } from "gradmix/data";
import { afterAll, beforeAll, expect, test } from "vitest";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-repeated-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** The texts and domains of a file, and the lines that were left out. */
async function read(name: string, content: string | Uint8Array, options: ReadOptions = {}) {
  const path = join(folder, name);
  writeFileSync(path, content);
  const found: (readonly [text: string, domain: string | undefined])[] = [];
  const skipped: string[] = [];
  const onSkip = (source: string, reason: string): void =>
    void skipped.push(`${source.slice(folder.length + 1)}: ${reason}`);
  for await (const { text, domain } of readDocuments([path], { onSkip, ...options }))
    found.push([text, domain]);
  return { found, skipped };
}

type Value = string | number | readonly Value[] | { readonly members: readonly Member[] };
type Member = readonly [name: string, value: Value];

const names = ["text", "a", "b", "a.b", "b.a", "t", "é", 'q"', "kind", ""];
const string = fc.string({
  unit: fc.constantFrom("x", "text", '"', "\\", ":", "{", "}", ",", " ", "\n", "é", "a", '"text":'),
  maxLength: 6,
});
const { members: object } = fc.letrec<{ value: Value; members: readonly Member[] }>((tie) => ({
  members: fc
    .tuple(
      fc.array(fc.tuple(fc.constantFrom(...names), tie("value")), { maxLength: 4 }),
      fc.nat(7),
      tie("value"),
    )
    // In about half of the objects a name stands twice.
    .map(([members, at, last]) => [
      ...members,
      ...members.slice(at, at + 1).map(([name]): Member => [name, last]),
    ]),
  value: fc.oneof(
    { depthSize: "small" },
    { weight: 3, arbitrary: string },
    fc.integer(),
    fc.array(tie("value"), { maxLength: 3 }),
    tie("members").map((members) => ({ members })),
  ),
}));

/** Writes JSON in one of its spellings; `pick` chooses among them. */
function write(of: Value, pick: (n: number) => number): string {
  const space = (): string => ["", "", " ", "\t "][pick(4)] ?? "";
  const quoted = (text: string): string =>
    `"${Array.from({ length: text.length }, (_, i) => (pick(12) === 0 ? `\\u${text.charCodeAt(i).toString(16).padStart(4, "0")}` : JSON.stringify(text[i]).slice(1, -1))).join("")}"`;
  if (typeof of === "string") return quoted(of);
  if (typeof of === "number") return String(of);
  if ("members" in of)
    return `{${space()}${of.members.map(([name, own]) => `${quoted(name)}${space()}:${space()}${write(own, pick)}${space()}`).join(`,${space()}`)}}`;
  return `[${of.map((own) => `${space()}${write(own, pick)}${space()}`).join(",")}]`;
}

/** The value of a field, and whether a name on its path stands twice. */
function lookUp(members: readonly Member[], field: string): { last: Value | undefined; twice: boolean } {
  const named = (name: string): readonly Member[] => members.filter(([own]) => own === name);
  const dot = field.indexOf(".");
  const whole = named(field);
  if (whole.length > 0 || dot < 0) return { last: whole.at(-1)?.[1], twice: whole.length > 1 };
  const outer = named(field.slice(0, dot));
  const inner = outer.at(-1)?.[1];
  if (typeof inner !== "object" || !("members" in inner)) return { last: undefined, twice: false };
  const { last, twice } = lookUp(inner.members, field.slice(dot + 1));
  return { last, twice: twice || outer.length > 1 };
}

test("a line of JSON is refused exactly if its text or its domain stands there twice, in any spelling", async () => {
  let [refused, kept] = [0, 0];
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(object, fc.option(string)), { minLength: 1, maxLength: 20 }),
      fc.constantFrom(...names.filter((name) => name !== "")),
      fc.option(fc.constantFrom(...names.filter((name) => name !== ""))),
      fc.infiniteStream(fc.nat(11)),
      async (objects, textField, domainField, choices) => {
        const pick = (n: number): number => (choices.next().value ?? 0) % n;
        const wanted: (readonly [string, string | undefined])[] = [];
        const lines: string[] = [];
        const twice: string[] = [];
        for (const [some, last] of objects) {
          const members: readonly Member[] = last === null ? some : [...some, [textField, last]];
          const text = lookUp(members, textField);
          const domain = domainField === null ? null : lookUp(members, domainField);
          const named = typeof domain?.last === "number" ? String(domain.last) : domain?.last;
          if (typeof text.last !== "string" || text.last === "") continue;
          if (domain !== null && (typeof named !== "string" || named === "")) continue;
          lines.push(write({ members }, pick));
          const name = text.twice ? textField : domain?.twice === true ? domainField : null;
          if (name === null) wanted.push([text.last, typeof named === "string" ? named : undefined]);
          else twice.push(`f.jsonl:${lines.length}: the object has the field "${name}" more than once`);
        }
        const { found, skipped } = await read("f.jsonl", lines.join("\n"), {
          ...{ textField, skipBadLines: true },
          ...(domainField === null ? {} : { domainField }),
        });
        expect({ found, skipped }).toEqual({ found: wanted, skipped: twice });
        refused += twice.length;
        kept += wanted.length;
      },
    ),
    { numRuns: 400 },
  );
  expect(Math.min(refused, kept)).toBeGreaterThan(50);
});

test("the error names the file, the line and the field", async () => {
  await expect(read("one.jsonl", '{"text":"a"}\n{"text":"b","id":1,"text":"c"}\n')).rejects.toMatchObject({
    code: "data",
    message: `${join(folder, "one.jsonl")}:2: the object has the field "text" more than once; fix it, or skip it with --skip-bad-lines`,
  });
});

const golden = JSON.parse(
  readFileSync(resolve(import.meta.dirname, "../golden/parquet.json"), "utf8"),
) as Record<string, string>;
/** A Parquet file in which one column has got the name of another, of the same length. */
const renamed = (file: string, from: string, to: string): Uint8Array =>
  Buffer.from(
    Buffer.from(golden[file] ?? expect.unreachable(), "base64")
      .toString("latin1")
      .replaceAll(from, to),
    "latin1",
  );

test.each<[name: string, content: string | Uint8Array, options: ReadOptions, twice: string | null]>([
  ["a.csv", "text,text\nx,y\n", {}, "text"],
  ["a.csv", "\uFEFFtext,id,text\nx,1,y\n", {}, "text"],
  ["a.csv", '"text",id,text\nx,1,y\n', { textField: "id" }, null],
  ["a.csv", "kind,text,kind\nx,1,y\n", {}, null],
  ["a.csv", "kind,text,kind\nx,1,y\n", { domainField: "kind" }, "kind"],
  ["a.tsv", "text\ttext\nx\ty\n", {}, "text"],
  ["a.parquet", renamed("snappy", "kind", "text"), {}, "text"],
  ["a.parquet", renamed("snappy", "kind", "text"), { textField: "id" }, null],
  ["a.parquet", renamed("snappy", "text", "kind"), { textField: "id", domainField: "kind" }, "kind"],
])("two columns of a table: %#, %s", async (name, content, options, twice) => {
  const both = [options, { ...options, skipBadLines: true }];
  for (const own of both)
    if (twice === null) await read(name, content, { ...own, skipBadLines: true });
    else
      await expect(read(name, content, own)).rejects.toMatchObject({
        code: "data",
        message: `${join(folder, name)}${name.endsWith("parquet") ? "" : ":1"}: two columns have the name "${twice}"; rename or remove one of them`,
      });
});
