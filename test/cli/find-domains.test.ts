/** Domains that are found by paths or by a field: their names are valid and unique, and their order is fixed. */
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { checkDomains } from "#dist/cli/config-checks.js";
import { cleanName, compareNames, domainName, shardSet, withoutEndings } from "#dist/cli/domain-names.js";
import { type Inputs, listInputs } from "#dist/cli/inputs.js";
import { checkSameText, contentsToSave } from "#dist/cli/text-witness.js";
import { type Data, readData } from "#dist/cli/read-data.js";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { errorOf } from "../errors.ts";

let folder = "";
const previous = process.cwd();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-domains-"));
  process.chdir(folder);
});
afterEach(() => {
  process.chdir(previous);
  rmSync(folder, { recursive: true });
});

function put(path: string, text: string = path): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

const lines = (items: readonly object[]): string => items.map((item) => `${JSON.stringify(item)}\n`).join("");

const run = (data: object) => {
  const events: string[] = [];
  const { data: config } = resolveConfig([jsonLayer({ data, mixing: { rule: "uniform" } }, "c.json")]);
  const hooks = { onEvent: (line: string) => void events.push(line), signal: new AbortController().signal };
  return { config, events, hooks };
};

async function list(data: object): Promise<Inputs & { events: string[] }> {
  const { config, events, hooks } = run(data);
  return { ...(await listInputs({ ...config, out: null }, hooks)), events };
}

async function read(data: object): Promise<Data & { events: string[] }> {
  const { config, events, hooks } = run({ tokenizer: "byte", heldOut: 0.25, ...data });
  const known = { tokenizer: null, corpus: undefined };
  return { ...(await readData({ ...config, context: 4, seed: 3, out: null }, known, hooks)), events };
}

describe("names", () => {
  test("are accepted by --domain, or the text is refused because nothing in it can name a domain", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "grapheme" }), fc.string({ unit: "binary" })), (text) => {
        if (!/[\p{L}\p{N}]/u.test(text.normalize())) {
          expect(errorOf(() => cleanName(text, "here")).message).toMatch(
            /^here: .*, so it cannot name a domain$/,
          );
          return;
        }
        const name = cleanName(text, "here");
        expect(name).toMatch(domainName);
        expect(cleanName(name, "here")).toBe(name);
        // Nothing that a name may have is lost between its first and its last letter.
        if (domainName.test(text.normalize()) && /[\p{L}\p{N}]$/u.test(text))
          expect(name).toBe(text.normalize());
      }),
      { numRuns: 300 },
    );
    expect(errorOf(() => cleanName("x".repeat(201), "here")).message).toMatch(/longer than 200/);
  });

  test("have a total order in which numbers sort by value", () => {
    const texts = fc.array(fc.constantFrom("a", "b", "-", "0", "1", "9", "10", "002"), { maxLength: 5 }).map((parts) => parts.join("")); // prettier-ignore
    fc.assert(
      fc.property(texts, texts, texts, (a, b, c) => {
        expect(Math.sign(compareNames(a, b))).toBe(-Math.sign(compareNames(b, a)) + 0);
        expect(compareNames(a, b) === 0).toBe(a === b);
        if (compareNames(a, b) <= 0 && compareNames(b, c) <= 0)
          expect(compareNames(a, c)).toBeLessThanOrEqual(0);
      }),
    );
    const numbered = Array.from({ length: 300 }, (_, i) => `cluster-${i}`);
    expect([...numbered].sort().sort(compareNames)).toEqual(numbered);
  });

  test.each([
    ["a.jsonl.gz", "a"], ["a.b.txt", "a.b"], ["a.TXT.ZST", "a"], ["x/train-00003-of-00010.parquet", "x/train"], ["main.ts", "main.ts"],
    ["a.ds", "a"], ["a.gz.jsonl", "a.gz"],
  ])("%s without its endings is %s", (path, stem) => expect(withoutEndings(path)).toBe(stem)); // prettier-ignore

  test("of shards give the set and the number of shards", () => {
    expect(shardSet("d/train-00003-of-00010.parquet")).toEqual({
      set: "d/train-*-of-00010.parquet",
      count: 10,
    });
    expect(shardSet("d/a_001-of-002.jsonl.gz")).toEqual({ set: "d/a_*-of-002.jsonl.gz", count: 2 });
    expect(shardSet("one-of-two.txt")).toBeNull();
  });
});

describe("of paths", () => {
  test("each folder and file of a folder is a domain, in the order of names; files that are not data are reported", async () => {
    put("d/c10/x.txt");
    put("d/c2/y/z.txt");
    put("d/mail.jsonl.gz");
    put("d/README.md");
    put("d/.cache/x.txt");
    put("x.txt");
    const { domains, events } = await list({ domains: { own: "x.txt" }, domainsFrom: "d/" });
    expect([...domains]).toEqual([
      ["own", ["x.txt"]],
      ["c2", ["d/c2/y/z.txt"]],
      ["c10", ["d/c10/x.txt"]],
      ["mail", ["d/mail.jsonl.gz"]],
    ]);
    expect(events).toEqual(["--domains d: left out files that are not data: README.md"]);
  });

  test("each file of a pattern is a domain, named by its path below the first star; shards form one domain, and missing shards are reported", async () => {
    for (const path of ["d/a/train.jsonl", "d/b/train.jsonl", "d/b/more.txt"]) put(path);
    expect([...(await list({ domainsFrom: "d/**" })).domains.keys()]).toEqual([
      "a-train",
      "b-more",
      "b-train",
    ]);
    expect([...(await list({ domainsFrom: ["./d/a/*", "d/b/more.txt"] })).domains.keys()]).toEqual([
      "more",
      "train",
    ]);
    process.chdir("d");
    expect([...(await list({ domainsFrom: "**/*.jsonl" })).domains.keys()]).toEqual(["a-train", "b-train"]);
    process.chdir("..");
    put("h/train-00000-of-00003.jsonl");
    put("h/train-00002-of-00003.jsonl");
    for (const domainsFrom of ["h", "h/*"]) {
      const { domains, events } = await list({ domainsFrom });
      expect([...domains]).toEqual([
        ["train", ["h/train-00000-of-00003.jsonl", "h/train-00002-of-00003.jsonl"]],
      ]);
      expect(events).toEqual(["--domains: only 2 of the 3 shards of h/train-00000-of-00003.jsonl exist"]);
    }
  });

  test("two domains with the same name are refused, and both files are named", async () => {
    put("d/a-b.txt");
    put("d/a/b.jsonl");
    await expect(list({ domainsFrom: "d/**" })).rejects.toThrow(
      'd/a/b.jsonl and d/a-b.txt would both be the domain "a-b"; rename one of them, or give it another name with --domain NAME=…',
    );
    await expect(list({ domainsFrom: ["d", "./d/a-b.txt"] })).rejects.toThrow(
      '--domains: names ./d/a-b.txt twice, as the domain "a-b"; name it once',
    );
    put("e/x.txt");
    put("e/x/y.txt");
    await expect(list({ domainsFrom: "e" })).rejects.toThrow(/^e\/x\.txt and e\/x would both be/);
    await expect(list({ domains: { x: "d" }, domainsFrom: "e/*.txt" })).rejects.toThrow(
      /^e\/x\.txt and --domain x would both be/,
    );
    put("f/???.txt");
    await expect(list({ domainsFrom: "f" })).rejects.toThrow(/"\?\?\?" has no letter or digit/);
  });

  test("files of a target are in no domain; a file under two names is in both domains, which is reported", async () => {
    for (const path of ["d/a/1.txt", "d/b/2.txt", "d/t/3.txt"]) put(path);
    linkSync("d/a/1.txt", "d/b/1.txt");
    symlinkSync("a", "d/linked");
    const { domains, events } = await list({ domainsFrom: "d", target: "d/t" });
    expect([...domains]).toEqual([
      ["a", ["d/a/1.txt"]],
      ["b", ["d/b/1.txt", "d/b/2.txt"]],
      ["linked", ["d/linked/1.txt"]],
    ]);
    expect(events).toEqual([
      "--domains: left out 1 file that belongs to the target: d/t/3.txt",
      "2 files are in more than one domain: d/b/1.txt (a, b), d/linked/1.txt (a, linked)",
    ]);
  });

  test("files of earlier runs are left out, and a folder without domains is refused", async () => {
    for (const name of ["config.json", "metrics.jsonl", "checkpoints/a", "note.txt"]) put(`r/${name}`);
    expect([...(await list({ domainsFrom: "r" })).domains.keys()]).toEqual(["note"]);
    mkdirSync("none");
    await expect(list({ domainsFrom: "none" })).rejects.toThrow("--domains: none holds no domains");
    await expect(list({ domainsFrom: "nowhere" })).rejects.toThrow(/no such file: nowhere/);
  });
});

describe("by a field", () => {
  const documents = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      text: `text ${i}`,
      meta: { kind: ["web", "code/ts", 7][(i * i + (i >> 2)) % 3] },
    }));

  test("each document goes to its domain, as if every domain had its own files", async () => {
    const all = documents(60);
    put("d/1.jsonl", lines(all.slice(0, 25)));
    put("d/2.jsonl", lines(all.slice(25)));
    put("own.txt", "own text");
    for (const kind of ["web", "code/ts", 7])
      put(
        `apart/${String(kind).replace("/", "-")}.jsonl`,
        lines(all.filter(({ meta }) => meta.kind === kind)),
      );
    const own = { domains: { own: "own.txt" } };
    const mixed = await read({ ...own, domainsFrom: "d", domainField: "meta.kind" });
    const apart = await read({ ...own, domainsFrom: "apart" });
    expect([...mixed.facts.domains.keys()]).toEqual(["own", "7", "code-ts", "web"]);
    expect([...apart.facts.domains.keys()]).toEqual(["own", "7", "code-ts", "web"]);
    const streams = (data: Data) =>
      data.domains.map(({ train, heldOut }) => [train, heldOut].map((windows) => windows?.stream));
    expect(streams(mixed)).toEqual(streams(apart));
    const facts = (data: Data) =>
      Array.from(data.facts.domains.values(), ({ documents, tokens, heldOutBytes }) => [documents, tokens, heldOutBytes]); // prettier-ignore
    expect(facts(mixed)).toEqual(facts(apart));
    expect(mixed.facts.domains.get("web")?.files).toBe(2);
    // The text that a resumed run must find again.
    const saved = contentsToSave(mixed.contents);
    expect(checkSameText(saved, mixed.contents)).toBeNull();
    put("d/2.jsonl", lines([...all.slice(25), { text: "more of it", meta: { kind: "new" } }]));
    const more = await read({ ...own, domainsFrom: "d", domainField: "meta.kind" });
    expect(errorOf(() => checkSameText(saved, more.contents)).message).toMatch(
      /domain "new" has changed \(then none/,
    );
    expect(errorOf(() => checkSameText(contentsToSave(more.contents), mixed.contents)).message).toMatch(
      /domain "new" has changed .*now none/,
    );
  });

  test("a tokenizer is trained on the same amount of text per domain", async () => {
    put("d.jsonl", lines(documents(60)));
    const { tokenizer } = await read({
      domainsFrom: "d.jsonl",
      domainField: "meta.kind",
      tokenizer: "bpe",
      vocabSize: 260,
    });
    expect(tokenizer?.vocabSize).toBe(260);
    expect(tokenizer?.encode("text").length).toBeLessThan(4);
  });

  test("a document without the field is refused with file and line, or counted", async () => {
    put("d.jsonl", lines([...documents(20), { text: "x" }, { text: "x", meta: { kind: null } }, { text: "x", meta: { kind: ["web"] } }])); // prettier-ignore
    put("same.jsonl", '{"text":"a","of":"A"}\n{"text":"b","of":"A "}\n');
    await expect(list({ domainsFrom: "same.jsonl", domainField: "of" })).rejects.toThrow(
      'same.jsonl:2: of "A " and same.jsonl:1: of "A" would both be the domain "A"; change one of the two values in the documents',
    );
    const data = { domainsFrom: "d.jsonl", domainField: "meta.kind" };
    await expect(read(data)).rejects.toThrow(
      'd.jsonl:21: the object has no field "meta.kind" that names its domain (--domain-field); fix it, or skip it with --skip-bad-lines',
    );
    const { events, facts } = await read({ ...data, skipBadLines: true });
    expect(events).toContain("skipped 3 bad lines");
    expect([...facts.domains.values()].reduce((n, { documents }) => n + documents, 0)).toBe(20);
    await expect(
      read({ domainsFrom: "d.jsonl", domainField: "nothing", skipBadLines: true }),
    ).rejects.toThrow('--domains d.jsonl: no document has the field "nothing"');
  });

  test("values that would give the same name, and files without fields, are refused", async () => {
    put("d.jsonl", lines(["a/b", "a-b"].map((kind) => ({ text: "x", kind }))));
    await expect(read({ domainsFrom: "d.jsonl", domainField: "kind" })).rejects.toThrow(
      'd.jsonl:2: kind "a-b" and d.jsonl:1: kind "a/b" would both be the domain "a-b"',
    );
    put("e/a.txt");
    await expect(read({ domainsFrom: "e", domainField: "kind" })).rejects.toThrow(
      "e/a.txt: only the documents of .jsonl, .ndjson, .csv, .tsv and .parquet files have fields that could name their domain",
    );
    expect(errorOf(() => run({ domains: { a: "a" }, domainField: "kind" })).message).toMatch(/add --domains/);
  });
});

test("options that name domains are checked once the domains are found", () => {
  const resolve = (mixing: object) =>
    resolveConfig([
      jsonLayer({ data: { domainsFrom: "d" }, mixing: { rule: "static", ...mixing } }, "c.json"),
    ]).mixing;
  const weights = resolve({ weights: { a: 0.5, c: 0.5 } });
  expect(() => checkDomains(weights, ["a", "c"])).not.toThrow();
  expect(errorOf(() => checkDomains(weights, ["a", "b"])).message).toMatch(
    /^--weights: "c" is not a domain of this run/,
  );
  expect(errorOf(() => checkDomains(weights, ["a", "b", "c"])).message).toBe(
    '--weights: gives no weight to the domain "b"',
  );
  const floor = resolve({ weights: { a: 1 }, floor: 0.5 });
  expect(errorOf(() => checkDomains(floor, ["a", "b"])).message).toMatch(/^--floor: 0.5 is not below 1 \/ 2/);
});
