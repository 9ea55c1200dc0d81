/** `gradmix cluster` on text of planted topics: the clusters, the files, the refusals. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cluster } from "#dist/cli/cluster-command.js";
import { readClusterFolder } from "#dist/cli/cluster-folder.js";
import { openOutput } from "#dist/cli/output.js";
import { labelsOf } from "#dist/data/cluster/text-clusters.js";
import { decodeNpy } from "#dist/data/npy.js";
import { readRunHead } from "#dist/runs/record.js";
import { random } from "../dga/arbitraries.ts";
import { runCommand } from "./served.ts";

let folder = "";
const topics: Record<string, string[]> = {
  sea: ["wave", "harbour", "sail", "anchor", "tide", "gull"],
  code: ["loop", "compiler", "pointer", "stack", "branch", "socket"],
  food: ["onion", "butter", "oven", "pepper", "garlic", "broth"],
};
/** The topic of each document of the two files. */
const truth: string[][] = [[], []];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-cluster-"));
  const next = random(5);
  for (const [f, name] of ["one.jsonl", "two.jsonl"].entries()) {
    const lines = Array.from({ length: 60 }, (_, i) => {
      const topic = Object.keys(topics)[(i * 7 + f) % 3];
      truth[f].push(topic);
      const words = Array.from({ length: 25 }, () =>
        next() < 0.5 ? topics[topic][Math.floor(6 * next())] : `the${Math.floor(9 * next())}`,
      );
      return JSON.stringify({ text: words.join(" ") });
    });
    writeFileSync(join(folder, name), lines.map((line) => `${line}\n`).join(""));
  }
  for (const name of ["words.txt", "words.bin"]) writeFileSync(join(folder, name), "some words");
});
afterAll(() => rmSync(folder, { recursive: true }));

function gradmix(...args: string[]): { code: number | null; out: string; err: string } {
  const words = ["cluster", ...args, "--threads", "1"];
  const { status, stdout, stderr } = runCommand(words, { cwd: folder });
  return { code: status, out: stdout, err: stderr };
}

test("topics become clusters with fitting words; ids follow the order of the documents; the same seed writes the same files", () => {
  const args = ["*.jsonl", "--levels", "3", "--dim", "8", "--sample", "90"];
  const { code, out, err } = gradmix(...args, "--out", "a");
  expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
  expect(err).toContain("clusters from 90 of them");
  const written = JSON.parse(readFileSync(join(folder, "a/clusters.json"), "utf8")) as {
    clusters: Record<string, { documents: number; bytes: number; words: string[] }>;
    files: { path: string; documents: number; ids: string }[];
  };
  const names = Object.keys(written.clusters);
  expect(names.length).toBe(3);
  expect(written.files.map(({ path, documents }) => [path, documents])).toEqual([
    [join(folder, "one.jsonl"), 60],
    [join(folder, "two.jsonl"), 60],
  ]);
  const topicOf = names.map((name) => {
    const [word] = written.clusters[name].words;
    return Object.keys(topics).find((topic) => topics[topic].includes(word));
  });
  expect(new Set(topicOf)).toEqual(new Set(Object.keys(topics)));
  let bytes = 0;
  written.files.forEach(({ ids }, f) => {
    const { values, shape } = decodeNpy(readFileSync(join(folder, "a", ids)), ids);
    expect(shape).toEqual([60]);
    expect(Array.from(values, (id) => topicOf[id])).toEqual(truth[f]);
    for (const line of readFileSync(written.files[f].path, "utf8").trim().split("\n"))
      bytes += Buffer.byteLength((JSON.parse(line) as { text: string }).text);
  });
  const all = Object.values(written.clusters);
  expect(all.map(({ documents }) => documents)).toEqual([40, 40, 40]);
  expect(all.reduce((sum, own) => sum + own.bytes, 0)).toBe(bytes);
  expect(decodeNpy(readFileSync(join(folder, "a/centroids.npy")), "centroids").shape).toEqual([3, 8]);
  for (const name of names) expect(out).toContain(name);

  expect(gradmix(...args, "--out", "b", "--quiet").err).toBe("");
  for (const name of [
    "clusters.json",
    "clusters.html",
    "ids/two.npy",
    "centroids.npy",
    "embedder.safetensors",
  ])
    expect(readFileSync(join(folder, "b", name)).equals(readFileSync(join(folder, "a", name)))).toBe(true);
});

test("skipped lines are counted in the result and in clusters.json, and what is left out of FILES is reported", () => {
  const own = join(folder, "skips");
  mkdirSync(own);
  copyFileSync(join(folder, "one.jsonl"), join(own, "one.jsonl"));
  symlinkSync("nowhere", join(own, "lost.jsonl"));
  const args = [own, "--clusters", "2", "--dim", "8", "--skip-bad-lines"];
  for (const [n, bad, said] of [
    [0, "", ""],
    [1, "oops\n", "skipped  1 bad line\n"],
    [2, 'oops\n\n{"text":""}\n{"text":"a","text":"b"}\n', "skipped  2 bad lines\n"],
  ] as const) {
    writeFileSync(join(own, "bad.jsonl"), `${readFileSync(join(folder, "two.jsonl"), "utf8")}${bad}`);
    const { code, out, err } = gradmix(...args, "--out", `skips-${n}`);
    expect([code, out.split("\n").filter((line) => line.startsWith("skipped"))]).toEqual([
      0,
      said === "" ? [] : [said.trimEnd()],
    ]);
    expect(err).toMatch(/FILES: left out 1 path that cannot be read: .*lost\.jsonl: it is a link to nowhere/);
    const json = JSON.parse(readFileSync(join(folder, `skips-${n}/clusters.json`), "utf8")) as object;
    expect(json).toMatchObject({ skipped: n, documents: 120 });
  }
  // A folder of an earlier version does not say it.
  const path = join(folder, "skips-1/clusters.json");
  const { skipped, ...before } = JSON.parse(readFileSync(path, "utf8")) as { skipped: number };
  expect(skipped).toBe(1);
  writeFileSync(path, JSON.stringify(before));
  expect(readClusterFolder(join(folder, "skips-1")).names.length).toBe(2);
});

test("a folder that is not completed is removed", async () => {
  const own = join(folder, "own");
  mkdirSync(own);
  const files = ["gone-1.jsonl", "gone-2.jsonl"].map((name) => join(own, name));
  for (const file of files) copyFileSync(join(folder, "one.jsonl"), file);
  const silent = openOutput(new Writable({ write: (_chunk, _encoding, done) => done() }));
  const out = join(own, "half");
  const args = {
    levels: [3],
    levelsFlag: "--levels" as const,
    ids: null,
    count: null,
    tokenizer: null,
    embeddings: null,
    balance: null,
    dim: 8,
    sample: 90,
    textField: "text",
    textFieldGiven: false,
    skipBadLines: false,
    seed: 1,
    threads: 1,
  };
  const seen: boolean[] = [];
  const err = {
    ...silent,
    write(text: string): void {
      if (text.includes("assigning")) rmSync(files[1]);
    },
    flush: async (): Promise<boolean> => {
      seen.push(existsSync(out));
      return true;
    },
  };
  await expect(cluster({ ...args, files, out, quiet: false }, { out: silent, err })).rejects.toMatchObject({
    message: expect.stringContaining("gone-2.jsonl"),
  });
  expect(seen).toEqual([false]);
  expect([existsSync(out), existsSync(`${out}.partial`)]).toEqual([false, false]);
});

test.each([
  ["a folder that is there", ["*.jsonl", "--out", "."], "--out .: already exists"],
  [
    "more clusters than documents",
    ["*.jsonl", "--out", "x", "--clusters", "121"],
    "--clusters: 120 documents cannot make 121 clusters",
  ],
  [
    "more clusters than documents, by levels",
    ["*.jsonl", "--out", "x", "--levels", "121,2"],
    "--levels: 120 documents cannot make 121 clusters; use fewer clusters, or more text",
  ],
  [
    "more clusters than documents in the sample",
    ["*.jsonl", "--out", "x", "--clusters", "30", "--sample", "10"],
    "--sample 10: 10 documents cannot make 30 clusters (--clusters); use a sample of at least 30, or fewer clusters",
  ],
  [
    "more clusters than the sample, by levels",
    ["*.jsonl", "--out", "x", "--levels", "30,2", "--sample", "1"],
    "--sample 1: 1 document cannot make 30 clusters (--levels); use",
  ],
  ["both", ["*.jsonl", "--out", "x", "--clusters", "2", "--levels", "2"], "--clusters and --levels"],
  ["no number", ["*.jsonl", "--out", "x", "--levels", "4,many"], '--levels: "4,many" is not a list'],
  ["no file", ["*.md", "--out", "x"], "*.md"],
  ["no field", ["*.jsonl", "--out", "x", "--text-field", "body"], "body"],
  [
    "a field of files without fields",
    ["words.txt", "--out", "x", "--text-field", "text"],
    "--text-field: has no effect, because no file is .jsonl, .ndjson, .csv, .tsv or .parquet, so none has fields; leave it out",
  ],
  [
    "a field of tokens",
    ["words.bin", "--out", "x", "--tokenizer", "byte", "--text-field", "body"],
    "--text-field: has no effect, because all files hold tokens, which have no fields; leave it out",
  ],
  [
    "lines of tokens",
    ["words.bin", "--out", "x", "--tokenizer", "byte", "--skip-bad-lines"],
    "--skip-bad-lines: has no effect, because all files hold tokens, which have no lines; leave it out",
  ],
  ["a mistyped option", ["*.jsonl", "--out", "x", "--cluster", "3"], "did you mean --clusters?"],
])("%s is refused", (_, args, message) => {
  const { code, err } = gradmix(...args);
  expect(err).toContain(message);
  expect(code).toBe(2);
  expect(err.trimEnd().split("\n").at(-1)).toContain(message);
  expect(existsSync(join(folder, "x"))).toBe(false);
});

describe("as the domains of a run", () => {
  const train = (...args: string[]) =>
    runCommand(
      [
        ..."train --domains a --target sea.txt --tokenizer byte --steps 3".split(" "),
        ..."--dim 16 --layers 1 --heads 1 --context 16 --batch 2 --threads 1".split(" "),
        ...args,
      ],
      { cwd: folder },
    );
  const facts = (run: string) => readRunHead(join(folder, run)).facts.domains;

  test("each document is in its cluster; text that has changed since is refused, and a target is left out", () => {
    writeFileSync(join(folder, "sea.txt"), "the gull sails over the harbour with the tide. ".repeat(9));
    const { status, stderr } = train("--out", "run");
    expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
    const { clusters } = JSON.parse(readFileSync(join(folder, "a/clusters.json"), "utf8")) as {
      clusters: Record<string, { documents: number; bytes: number }>;
    };
    expect(
      [...facts("run")].map(([name, { documents, tokens, heldOutTokens }]) => [
        name,
        documents,
        tokens + heldOutTokens,
      ]),
    ).toEqual(
      // Bytes are tokens, and each document ends with one.
      Object.entries(clusters).map(([name, { documents, bytes }]) => [name, documents, bytes + documents]),
    );

    const text = readFileSync(join(folder, "two.jsonl"), "utf8");
    const other = (changed: string): string => {
      writeFileSync(join(folder, "two.jsonl"), changed);
      const { status: code, stderr: err } = train("--out", "x");
      writeFileSync(join(folder, "two.jsonl"), text);
      expect(code).toBe(2);
      expect(existsSync(join(folder, "x"))).toBe(false);
      return err;
    };
    expect(other(text.replace("the1", "the2"))).toContain("its text has changed since it was clustered");
    expect(other(`${text}{"text":"more"}\n`)).toContain(
      "it has more documents than the 60 that were clustered",
    );
    expect(other(text.slice(0, text.indexOf("\n") + 1))).toContain(
      "it has 1 documents, but 60 were clustered",
    );

    const target = train("--target", "two.jsonl", "--out", "half");
    expect(target.status).toBe(0);
    expect([...facts("half").values()].reduce((sum, { documents }) => sum + documents, 0)).toBe(60);
    expect(train("--out", "x", "--domain-field", "kind").stderr).toContain("which are already domains");
    expect(train("--out", "x", "--domains", "one.jsonl").stderr).toContain(
      "a folder of clusters cannot be combined",
    );
  });
});

describe("labels", () => {
  test("are words that are frequent in a cluster and rare in others, but not those of a single text", () => {
    const texts = ["the cat purrs", "the cat sleeps oddly", "the dog barks", "the dog sleeps", "the bird"];
    expect(labelsOf(texts, Int32Array.of(0, 0, 1, 1, 3), 4)).toEqual([["cat"], ["dog"], [], []]);
  });
});
