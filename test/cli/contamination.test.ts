/** Held-out text of the target in the domains: the messages, run.json, and the documents that are left out. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { labelName } from "#dist/cli/labels.js";
import { type Data, readData } from "#dist/cli/read-data.js";
import { byteTokenizer } from "gradmix/data";
import { afterEach, beforeEach, expect, test } from "vitest";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-contamination-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const path = (name: string): string => join(folder, name);
const lines = (name: string, items: readonly object[]): string => {
  writeFileSync(path(name), items.map((item) => `${JSON.stringify(item)}\n`).join(""));
  return path(name);
};

async function read(data: object): Promise<Data & { events: readonly string[] }> {
  const events: string[] = [];
  const given = { tokenizer: "byte", heldOut: 0.25, ...data };
  const { data: config } = resolveConfig([
    jsonLayer({ data: given, mixing: { rule: "targets" in data ? "grape" : "uniform" } }, "c.json"),
  ]);
  const hooks = { onEvent: (line: string) => void events.push(line), signal: new AbortController().signal };
  const known = { tokenizer: null, corpus: undefined };
  return { ...(await readData({ ...config, context: 4, seed: 3, out: null }, known, hooks)), events };
}

const words = (name: string, count: number): string =>
  Array.from({ length: count }, (_, i) => `${name}${i}`).join(" ");
const texts = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"].map((name) => words(name, 20));
const target = (): string => lines("target.jsonl", texts.map((text) => ({ text }))); // prettier-ignore
/** The held-out documents of the target. */
const heldOutOf = ({ target }: Data): string[] => {
  const stream = target?.heldOut?.stream ?? expect.unreachable();
  return Array.from(stream.documents.slice(1), (end, i) =>
    byteTokenizer().decode(stream.tokens.subarray(stream.documents[i], end - 1)),
  );
};
const contamination = (events: readonly string[]): string[] =>
  events.filter((line) => line.startsWith("contamination"));

test("every held-out document of a target is found in the domains, and no other document", async () => {
  const own = Array.from({ length: 4 }, (_, i) => ({ text: words(`own${i}x`, 30) }));
  const code = lines("code.jsonl", [...own, ...texts.map((text) => ({ text: `${words("more", 9)} ${text.toUpperCase()}` }))]); // prettier-ignore
  const web = lines("web.jsonl", [...own, { text: texts.join("\n") }]);
  const data = { domains: { code, web }, target: target() };
  const found = await read(data);
  const heldOut = heldOutOf(found);
  const n = heldOut.length;
  expect(n).toBeGreaterThan(0);
  const counts = { copies: 0, nearCopies: 0 };
  expect(found.facts.contamination).toMatchObject({
    words: 13,
    heldOutDocuments: n,
    comparedDocuments: n,
    foundDocuments: n,
    documents: 17,
    lookedAt: 17,
    dropped: false,
    domains: new Map([
      ["code", { documents: n, ...counts }],
      ["web", { documents: 1, ...counts }],
    ]),
  });
  const places = found.facts.contamination?.examples.map(({ source }) => source);
  const lineOf = (text: string): string => `${code}:${own.length + texts.indexOf(text) + 1}`;
  expect(new Set(places)).toEqual(new Set([...heldOut.map(lineOf), `${web}:5`]));
  const [line, ...more] = contamination(found.events);
  expect(more).toEqual([]);
  expect(line).toContain(
    `contamination: ${n + 1} of 17 documents of the domains contain text of ${n} of ${n} held-out documents of the target (13 consecutive words, or the whole document; copies: 0, near copies: 0): code ${n}, web 1; for example ${code}:`,
  );
  expect(line).toMatch(/"; --drop-contaminated leaves them out$/);

  const dropped = await read({ ...data, dropContaminated: true });
  expect(contamination(dropped.events)[0]).toMatch(/; they are left out$/);
  expect(dropped.facts.contamination).toMatchObject({ dropped: true, foundDocuments: n });
  const tokensOf = (one: Data): number =>
    one.domains.reduce((sum, { train, heldOut }) => sum + train.stream.tokens.length + (heldOut?.stream.tokens.length ?? 0), 0); // prettier-ignore
  const bytes = (text: string): number => Buffer.byteLength(text) + 1;
  const gone = heldOut.reduce((sum, text) => sum + bytes(`${words("more", 9)} ${text}`), 0) + bytes(texts.join("\n")); // prettier-ignore
  expect(tokensOf(dropped)).toBe(tokensOf(found) - gone);
  // A resumed run has to find the same text.
  expect(dropped.contents.map(({ sha256 }) => sha256)).toEqual(found.contents.map(({ sha256 }) => sha256));
  expect(dropped.contents.map(({ label }) => labelName(label))).toEqual([
    'domain "code"',
    'domain "web"',
    "target",
  ]);
});

test("a target of one document, several targets, and domains by a field are checked", async () => {
  const exam = lines("exam.jsonl", [{ text: words("exam", 400) }]);
  const quiz = lines("quiz.jsonl", [{ text: words("quiz", 400) }]);
  const mixed = lines("mixed.jsonl", [
    { text: words("own", 40), kind: "a" },
    { text: `so ${words("exam", 400)}`, kind: "b" },
    { text: words("other", 40), kind: "b" },
    { text: words("quiz", 400).slice(0, 1000), kind: "a" },
  ]);
  const data = { domainsFrom: [mixed], domainField: "kind", target: exam, targets: { quiz } };
  const found = await read(data);
  // The last quarter of a single document is held out; of the quiz the domain has only the first.
  expect(found.facts.contamination).toMatchObject({
    heldOutDocuments: 2,
    foundDocuments: 1,
    documents: 4,
    domains: new Map([["b", { documents: 1, copies: 0, nearCopies: 0 }]]),
  });
  const dropped = await read({ ...data, dropContaminated: true });
  expect(dropped.sizes["b"]).toBeLessThan(found.sizes["b"]);
  expect(dropped.sizes["a"]).toBe(found.sizes["a"]);
});

test("without copies there is no warning, and without a target no check; --drop-contaminated is refused where it cannot work", async () => {
  const own = lines("own.jsonl", [{ text: words("own", 40) }, { text: words("own2", 40) }]);
  const copy = lines("copy.jsonl", texts.map((text) => ({ text }))); // prettier-ignore
  const clean = await read({ domains: { own }, target: target() });
  expect(contamination(clean.events)).toEqual([]);
  expect(clean.facts.contamination).toMatchObject({ foundDocuments: 0, domains: new Map(), examples: [] });
  const alone = await read({ domains: { own } });
  expect([contamination(alone.events), alone.facts.contamination]).toEqual([[], null]);

  // A copy of the whole target: what the run says of it depends on the option.
  const same = { domains: { own, copy }, target: target() };
  const ofCopies = (events: readonly string[]): string =>
    events.filter((line) => line.includes("hold the same text")).join("\n");
  expect(ofCopies((await read(same)).events)).toMatch(
    /; the run would train on text on which it is evaluated$/,
  );
  expect(ofCopies((await read({ ...same, dropContaminated: true })).events)).toMatch(
    /; the domain is read without the documents that are held out$/,
  );

  const all = heldOutOf(clean).map((text) => ({ text: `${text} and then` }));
  const held = lines("held.jsonl", [...all, ...all]);
  await expect(read({ domains: { copy, held }, target: target(), dropContaminated: true })).rejects.toThrow(
    `domain "held": each of its ${2 * all.length} documents holds held-out text of the target, so --drop-contaminated leaves nothing`,
  );
  await expect(read({ domains: { own }, dropContaminated: true })).rejects.toThrow(
    /^--drop-contaminated: there is no target/,
  );
  writeFileSync(
    path("x.bin"),
    Uint16Array.from({ length: 90 }, (_, i) => i),
  );
  const tokens = { domains: { own, ids: path("x.bin") }, target: target(), endOfText: 256 };
  expect(contamination((await read(tokens)).events)).toEqual([
    `contamination: domain "ids" consists of token files, which contain no words; they were not compared with the target's held-out text`,
  ]);
  await expect(read({ ...tokens, dropContaminated: true })).rejects.toThrow(
    /^--drop-contaminated: domain "ids" consists of token files, which contain no words to compare/,
  );
});
