/** The input of a run: which files are read, what is reported about the others, and whether the text has changed. */
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type Inputs, listInputs } from "#dist/cli/inputs.js";
import { domainLabel, type Label, labelName, targetLabel, theTarget } from "#dist/cli/labels.js";
import {
  checkSameText,
  type Content,
  contentsToSave,
  createWitness,
  type SavedContent,
} from "#dist/cli/text-witness.js";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { encodeNpy } from "#dist/data/npy.js";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { codeOf, errorOf } from "../errors.ts";

let folder = "";
const previous = process.cwd();
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-inputs-"));
  process.chdir(folder);
});
afterEach(() => {
  process.chdir(previous);
  rmSync(folder, { recursive: true });
});

function put(...paths: string[]): void {
  for (const path of paths) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, path);
  }
}

async function list(data: object, out = "runs/new"): Promise<Inputs & { events: string[] }> {
  const events: string[] = [];
  const config = resolveConfig([jsonLayer({ data, run: { out } }, "c.json")]);
  const hooks = { onEvent: (line: string) => void events.push(line), signal: new AbortController().signal };
  return { ...(await listInputs({ ...config.data, out }, hooks)), events };
}

const runFiles = ["config.json", "metrics.jsonl", "weights.json", "model/config.json", "model/tokenizer.json", "checkpoints/step-00000001.safetensors"]; // prettier-ignore

describe("files", () => {
  test("written by runs are left out of folders and patterns, and counted; other files in such a folder are read", async () => {
    put("a.json", "t.txt", "runs/x/notes.json", "config.json");
    for (const run of ["runs/x", "runs/y", "old"]) put(...runFiles.map((file) => `${run}/${file}`));
    const data = { domains: { j: "**/*.json" }, target: "t.txt" };
    const { domains, events } = await list(data);
    expect(domains.get("j")).toEqual(["a.json", "config.json", "runs/x/notes.json"]);
    expect(events).toEqual([
      'domain "j": left out 12 files that a run wrote: old/config.json, old/weights.json, old/model/config.json and 9 more',
    ]);
    // A folder with only some of these files is not a run folder; the run's own folder is one from its first file on.
    put("half/config.json", "half/metrics.jsonl", "mine/weights.json", "mine/b.json");
    expect((await list({ ...data, domains: { j: ["half", "mine"] } }, "mine")).domains.get("j")).toEqual([
      "half/config.json",
      "half/metrics.jsonl",
      "mine/b.json",
    ]);
    await expect(list({ ...data, domains: { j: "runs/x/model" } })).rejects.toThrow(
      'domain "j": all 2 files of runs/x/model were written by a run; to use one as text, name it by its own path',
    );
    const own = await list({ ...data, domains: { j: "runs/x/model/config.json" } });
    expect(own.domains.get("j")).toEqual(["runs/x/model/config.json"]);
  });

  test("that describe the tables beside them, and indices of token files, are not read as text", async () => {
    put(
      "h/data/train-00000-of-00001.parquet",
      "h/README.md",
      "h/dataset_infos.json",
      "h/.gitattributes",
      "d/README.md",
    );
    put(
      "t.bin",
      "m/a.bin",
      "m/a.idx",
      "m/b.ds",
      "m/b.ds.index",
      "m/b.ds.metadata",
      "m/c.npy",
      "m/c.csv.gz",
      "m/own.idx",
    );
    const { domains, events } = await list({ domains: { h: "h", d: "d", m: "m" }, target: "t.bin" });
    expect(Object.fromEntries(domains)).toEqual({
      h: ["h/data/train-00000-of-00001.parquet"],
      d: ["d/README.md"],
      m: ["m/a.bin", "m/b.ds", "m/c.npy", "m/own.idx"],
    });
    expect(events).toEqual([
      'domain "h": left out files that describe the tables: h/README.md, h/dataset_infos.json',
    ]);
  });

  test("in two domains are reported; files of a target are left out of every domain and reported, under any name", async () => {
    put("a/1.txt", "a/2.txt", "b/3.txt", "t/4.txt");
    symlinkSync("../a/1.txt", "b/link.txt");
    linkSync("a/2.txt", "b/hard.txt");
    linkSync("t/4.txt", "b/target.txt");
    const { domains, events } = await list({ domains: { a: "a", b: "b" }, target: "t" });
    expect(domains.get("b")).toEqual(["b/3.txt", "b/hard.txt", "b/link.txt"]);
    expect(events).toEqual([
      'domain "b": left out 1 file that belongs to the target: b/target.txt',
      "2 files are in more than one domain: b/hard.txt (a, b), b/link.txt (a, b)",
    ]);
  });

  // Each way to name domains beside a domain x of the same file, under the name that the message gives it.
  const together: Record<string, { data: object; named: string }> = {
    "another name": { data: { domains: { x: "d/a.jsonl", y: "d/a.jsonl" } }, named: "x, y" },
    "a folder": { data: { domains: { x: "d/a.jsonl" }, domainsFrom: ["d"] }, named: "x, a" },
    "a field": {
      data: { domains: { x: "d/a.jsonl" }, domainsFrom: ["d"], domainField: "kind" },
      named: "x, --domain-field kind",
    },
    "a folder of clusters": {
      data: { domains: { x: "d/a.jsonl" }, domainsFrom: ["cl"] },
      named: "x, --domains cl",
    },
  };
  test.each(Object.entries(together))(
    "of a domain and of %s are reported, under any name",
    async (_, { data, named }) => {
      put("d/a.jsonl", "d/b.jsonl", "t.txt");
      const lines = ["p", "q"].map((kind) => `${JSON.stringify({ text: "words", kind })}\n`).join("");
      for (const name of ["a", "b"]) writeFileSync(`d/${name}.jsonl`, lines);
      mkdirSync("cl/ids", { recursive: true });
      const sha256 = "0";
      const of = (name: string) => ({
        path: resolve(`d/${name}.jsonl`),
        documents: 2,
        sha256,
        ids: `ids/${name}.npy`,
      });
      for (const name of ["a", "b"])
        writeFileSync(`cl/ids/${name}.npy`, encodeNpy({ shape: [2], values: Int32Array.of(0, 1) }));
      const cluster = { documents: 2, bytes: 10 };
      const json = { version: 1, seed: 1, clusters: { u: cluster, v: cluster }, files: [of("a"), of("b")] };
      writeFileSync("cl/clusters.json", JSON.stringify(json));
      symlinkSync("d/a.jsonl", "link.jsonl");
      for (const x of ["d/a.jsonl", "link.jsonl"]) {
        const { events } = await list({
          target: "t.txt",
          ...data,
          domains: { ...Reflect.get(data, "domains"), x },
        });
        expect(events.map((line) => line.replace(resolve("."), ".").replace("./", ""))).toEqual([
          expect.stringMatching(
            new RegExp(`^1 file is in more than one domain: (d/a|link)\\.jsonl \\(${named}\\)$`),
          ),
        ]);
      }
    },
  );

  test("without fields, or without lines, make an option about them one without effect, which is named", async () => {
    const unused = { field: "no file is .jsonl, .ndjson, .csv, .tsv or .parquet, so none has fields", tokens: "all files hold tokens, which have no fields", lines: "all files hold tokens, which have no lines" }; // prettier-ignore
    put("a.txt", "b.jsonl", "c.bin", "d.npy", "e.csv.gz");
    put("t/c.bin");
    symlinkSync("nowhere", "t/lost.bin");
    for (const [files, textField, skipBadLines, lines] of [
      [["a.txt", "b.jsonl"], "body", true, []],
      [["a.txt", "e.csv.gz"], "body", true, []],
      [["a.txt"], "body", true, [`data.textField has no effect: ${unused.field}`]],
      [["a.txt"], "text", true, []],
      [["c.bin", "d.npy"], "body", false, [`data.textField has no effect: ${unused.tokens}`]],
      [["c.bin"], "text", true, [`data.skipBadLines has no effect: ${unused.lines}`]],
      [["c.bin"], "body", true, [`data.textField has no effect: ${unused.tokens}`, `data.skipBadLines has no effect: ${unused.lines}`]], // prettier-ignore
      [["c.bin", "a.txt"], "text", true, []],
      // Only with this option is the link left out.
      [["t"], "text", true, [expect.stringMatching(/left out 1 path/)]],
      [["c.bin"], "text", false, []],
    ] as const) {
      const { events } = await list({ domains: { d: files }, textField, skipBadLines });
      expect(events).toEqual(lines);
    }
  });

  test("that cannot be read end the command, or are left out by name with skipBadLines", async () => {
    put("d/a.txt", "t.txt");
    for (let n = 1; n < 6; n++) symlinkSync("nowhere", `d/lost-${n}`);
    const data = { domains: { d: "d" }, target: "t.txt" };
    await expect(list(data)).rejects.toThrow(
      'domain "d": d/lost-1 cannot be read: it is a link to nowhere, which does not exist (and 4 more like it); fix it, or skip it with --skip-bad-lines',
    );
    const { domains, events } = await list({ ...data, skipBadLines: true });
    expect(domains.get("d")).toEqual(["d/a.txt"]);
    expect(events.join()).toMatch(
      /^domain "d": left out 5 paths that cannot be read: d\/lost-1: it is a link/,
    );
  });
});

/** Text by label, file and document. */
type Text = Record<string, Record<string, string[]>>;

/** The labels of the texts below, by name. */
const labels = new Map<string, Label>(
  [domainLabel("a"), domainLabel("b"), domainLabel("10"), theTarget, targetLabel("x y")].map((label) => [labelName(label), label]), // prettier-ignore
);

async function contentsOf(
  text: Text,
): Promise<{ contents: Content[]; saved: SavedContent[]; copies: string[] }> {
  const witness = createWitness();
  for (const [name, files] of Object.entries(text)) {
    const label = labels.get(name)!;
    async function* documents(paths: readonly string[]): AsyncGenerator<{ text: string }> {
      for (const path of paths) for (const text of files[path]) yield { text };
    }
    const given = Object.values(files).flat();
    const passed: string[] = [];
    for await (const { text } of witness.watch(label, Object.keys(files), documents)) passed.push(text);
    expect(passed).toEqual(given);
  }
  // As a checkpoint keeps it.
  const contents = witness.contents(new Map(Object.keys(text).map((label) => [label, 7])));
  const saved = JSON.parse(JSON.stringify(contentsToSave(contents))) as SavedContent[];
  return { contents, saved, copies: witness.copies() };
}

describe("text", () => {
  const files = fc.dictionary(fc.constantFrom("f", "g", "h"), fc.array(fc.string({ maxLength: 4 }), { maxLength: 3 }), { noNullPrototype: true }); // prettier-ignore
  const texts = fc.record(
    { 'domain "a"': files, 'domain "10"': files, target: files },
    { noNullPrototype: true },
  );

  test("counts as unchanged only if every document of every file is; otherwise the first label that differs is named", async () => {
    await fc.assert(
      fc.asyncProperty(texts, texts, fc.boolean(), async (then, other, same) => {
        const now = same ? structuredClone(then) : other;
        const { saved } = await contentsOf(then);
        const found = (await contentsOf(now)).contents;
        // Files without text only change the number of files.
        const order = (of: Text, label: string): string => JSON.stringify(Object.values(of[label]).filter((d) => d.length > 0)); // prettier-ignore
        const label = Object.keys(then).find((label) => order(then, label) !== order(now, label));
        if (label === undefined) expect(checkSameText(saved, found)).toBeNull();
        else {
          const { code, message } = errorOf(() => checkSameText(saved, found));
          expect([code, message.split(" has changed")[0]]).toEqual([
            "checkpoint",
            `--resume: the text of ${label}`,
          ]);
        }
      }),
    );
  });

  test("that has changed but has as many tokens is reported as changed", async () => {
    const { saved } = await contentsOf({ 'domain "a"': { f: ["one", "two"] } });
    const found = (await contentsOf({ 'domain "a"': { f: ["one", "owt"] } })).contents;
    expect(errorOf(() => checkSameText(saved, found)).message).toBe(
      '--resume: the text of domain "a" has changed (then 1 file, 2 documents, 7 training tokens; now 1 file, 2 documents, 7 training tokens, but other text); restore it, or start a new run from the checkpoint with --init-from',
    );
    expect(errorOf(() => checkSameText([], found)).message).toContain("(then none; now 1 file");
  });

  test("of a checkpoint that has something else is refused by its place", async () => {
    const { contents, saved } = await contentsOf({ 'domain "a"': { f: ["one"] } });
    const broken = [{ ...saved[0], tokens: null }];
    expect(codeOf(() => checkSameText(broken, contents))).toBe(
      "checkpoint: checkpoint: corpus.0.tokens is null, not a whole number of at least 0",
    );
  });

  test("of an old checkpoint without hashes is compared by its tokens, and a line says that the rest was not checked", async () => {
    const { contents } = await contentsOf({ 'domain "a"': {}, target: {}, 'target "x y"': {} });
    const old = { a: 7, "(target)": 7, "(target x y)": 7 };
    expect(checkSameText(old, contents)).toMatch(/has no hash of the text/);
    for (const name of Object.keys(old))
      expect(errorOf(() => checkSameText({ ...old, [name]: 8 }, contents)).message).toMatch(
        /\(then 8 tokens; now 7 tokens\)/,
      );
    expect(errorOf(() => checkSameText(undefined, contents)).code).toBe("checkpoint");
  });

  test("that is read under two labels is reported, with the consequence if one of them is the target", async () => {
    const { copies } = await contentsOf({
      'domain "a"': { "a/1": ["same"], "a/2": ["own", "x"], "a/3": ["same"] },
      'domain "b"': { "b/1": ["same"], "b/2": ["ownx"], "a/2": ["own", "x"] },
      target: { "t/1": ["own", "x"], "t/2": [] },
    });
    expect(copies).toEqual([
      'domain "a" and domain "b" hold the same text in 1 file each: a/1 and b/1',
      'domain "a" and target hold the same text in 1 file each: a/2 and t/1; the run would train on text on which it is evaluated',
    ]);
  });
});
