/** `gradmix cluster` continues after a kill, and accepts given embeddings. */
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { clusterArguments } from "#dist/cli/cluster-arguments.js";
import { cluster } from "#dist/cli/cluster-command.js";
import { embeddingsFrom } from "#dist/cli/cluster-embeddings.js";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { listInputs } from "#dist/cli/inputs.js";
import { openOutput } from "#dist/cli/output.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { decodeNpy, encodeNpy } from "#dist/data/npy.js";
import { byteTokenizer } from "#dist/data/tokenizer.js";
import { createGPT } from "#dist/nn/gpt.js";
import { toHuggingFace } from "#dist/nn/huggingface/write.js";
import { encodeSafetensors } from "#dist/nn/safetensors.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { random } from "../dga/arbitraries.ts";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
const topics = [
  ["wave", "harbour", "sail", "anchor"],
  ["loop", "compiler", "pointer", "stack"],
  ["onion", "butter", "oven", "pepper"],
];
let folder = "";
/** Documents of the first file. */
const FIRST = 2100;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-cluster-work-"));
  const next = random(3);
  const document = (i: number): string =>
    JSON.stringify({
      text: Array.from({ length: 12 }, () =>
        next() < 0.6 ? topics[i % 3][Math.floor(4 * next())] : `the${Math.floor(40 * next())}`,
      ).join(" "),
    });
  for (const [name, count] of [
    ["one.jsonl", FIRST],
    ["two.jsonl", 2060],
    ["small.jsonl", 60],
  ] as const)
    writeFileSync(join(folder, name), Array.from({ length: count }, (_, i) => `${document(i)}\n`).join(""));
});
afterAll(() => rmSync(folder, { recursive: true }));

const at = (...names: string[]): string => join(folder, ...names);
const silent = openOutput(new Writable({ write: (_chunk, _encoding, done) => done() }));

/** Runs the command here, with one thread. */
async function made(files: string, out: string, options: Record<string, unknown> = {}): Promise<string> {
  const lines: string[] = [];
  const args = clusterArguments([at(files)], { out: at(out), threads: "1", ...options });
  await cluster(args, { out: silent, err: { ...silent, write: (text: string) => void lines.push(text) } });
  return lines.join("");
}

/** Every file of a folder with its bytes. */
const contents = (name: string): Map<string, string> =>
  new Map(
    readdirSync(at(name), { recursive: true, encoding: "utf8" })
      .filter((own) => statSync(at(name, own)).isFile())
      .sort()
      .map((own) => [own, readFileSync(at(name, own)).toString("base64")]),
  );

/** Runs the command until its nth write to a file that matches `path`; before this write, it kills itself. Returns whether it was killed. */
async function killed(args: readonly string[], path: string, nth: number): Promise<boolean> {
  const preload = pathToFileURL(resolve(import.meta.dirname, "preload.mjs")).href;
  const rule = JSON.stringify({ call: "write", path, nth, signals: ["SIGKILL"] });
  const child = spawn(process.execPath, ["--import", preload, command, "cluster", ...args], {
    ...{ cwd: folder, stdio: "ignore" },
    env: { ...process.env, SIGNAL: rule },
  });
  return new Promise((done) => child.once("exit", (_, signal) => done(signal === "SIGKILL")));
}

test("if killed in the sample, the embedding, the fit or the assignment, the command resumes to the same bytes", async () => {
  const options = { levels: "3,4", dim: "8", balanced: "1.5" };
  await made("[ot][nw][eo].jsonl", "whole", options);
  const args = ["[ot][nw][eo].jsonl", "--out", "again", "--levels", "3,4", "--dim", "8", "--balanced", "1.5"];
  for (const [path, nth] of [
    ["points\\.f32$", 1],
    ["points\\.f32$", 2],
    ["fit\\.log$", 3],
    ["assigned/1\\.i32$", 1],
  ] as const)
    expect([path, await killed([...args, "--threads", "2"], path, nth)]).toEqual([path, true]);
  expect(existsSync(at("again"))).toBe(false);
  // Another command does not continue it.
  await expect(made("[ot][nw][eo].jsonl", "again", { ...options, seed: "2" })).rejects.toThrow(
    "belongs to an unfinished clustering with another value of seed",
  );
  // After a kill, the end of a file may be cut off, or contain anything.
  const log = at("again.partial", "fit.log");
  writeFileSync(log, Buffer.concat([readFileSync(log).subarray(0, -5), Buffer.from("1tif")]));
  expect(await made("[ot][nw][eo].jsonl", "again", options)).toContain("continuing where it was stopped");
  expect(contents("again")).toEqual(contents("whole"));
  expect(existsSync(at("again.partial"))).toBe(false);
  const ids = decodeNpy(readFileSync(at("whole", "ids/one.npy")), "ids").values;
  expect(ids.length).toBe(FIRST);
  const { largest } = JSON.parse(readFileSync(at("whole", "clusters.json"), "utf8")) as { largest: number };
  expect(largest).toBeLessThan(1.5 * 1.5 + 0.01);
});

test("a folder OUT.partial with something else is refused, and nothing in it changes", async () => {
  const partial = at("taken.partial");
  for (const [name, text, what] of [
    ["notes.txt", "mine", "notes.txt"],
    ["lock.txt", "mine", "lock.txt"],
    ["plan.json", '{"steps":[]}', `${partial}/plan.json: version is missing; it must be a string`],
    ["plan.json", "mine", `${partial}/plan.json: is not JSON (`],
  ] as const) {
    mkdirSync(join(partial, "with", "in"), { recursive: true });
    writeFileSync(join(partial, name), text);
    const before = contents("taken.partial");
    // More clusters than documents, which fails later.
    for (const clusters of ["2", "300"])
      await expect(made("small.jsonl", "taken", { clusters, dim: "4" })).rejects.toMatchObject({
        code: "config",
        message: expect.stringContaining(
          `--out ${at("taken")}: ${partial}, which is for the parts of an unfinished clustering, contains something else (${what}`,
        ),
      });
    expect(contents("taken.partial")).toEqual(before);
    expect([existsSync(join(partial, "with/in")), existsSync(at("taken"))]).toEqual([true, false]);
    rmSync(partial, { recursive: true });
  }
});

test("files of the user in OUT.partial stay when the clustering ends or fails; an empty folder is used", async () => {
  const partial = at("mixed.partial");
  const args = ["small.jsonl", "--out", "mixed", "--clusters", "2", "--dim", "4"];
  mkdirSync(partial);
  expect(await killed(args, "points\\.f32$", 1)).toBe(true);
  for (const name of ["assigned", "whole/ids"]) mkdirSync(join(partial, name), { recursive: true });
  for (const name of ["notes.txt", "assigned/notes.txt"]) writeFileSync(join(partial, name), "mine");
  // What a process was writing when it was killed does not become a part of the result.
  for (const name of ["whole/.clusters.json.12.tmp", "whole/ids/.small.npy.12.tmp", ".facts.json.12.tmp"])
    writeFileSync(join(partial, name), "half");
  await made("small.jsonl", "mixed", { clusters: "2", dim: "4" });
  expect([...contents("mixed.partial").keys()]).toEqual(["assigned/notes.txt", "notes.txt"]);
  expect([...contents("mixed").keys()]).toEqual(
    ["centroids.npy", "clusters.html", "clusters.json", "embedder.safetensors", "ids/small.npy"], // prettier-ignore
  );
});

test("damaged facts of a killed command are refused, and the next command starts anew", async () => {
  const args = ["small.jsonl", "--out", "damaged", "--clusters", "2", "--dim", "4"];
  for (const [damage, message] of [
    [
      (facts: string) => facts.slice(0, -9),
      /facts\.json: is not JSON \(.*\); it is damaged, so the unfinished clustering is removed/,
    ],
    [
      (facts: string) => facts.replace(/"rows":\[\d+/, '"rows":["2"'),
      /\/damaged\.partial\/facts\.json: rows\.0 is "2", not a whole number of at least 0; it is damaged/,
    ],
  ] as const) {
    expect(await killed(args, "points\\.f32$", 1)).toBe(true);
    const path = at("damaged.partial", "facts.json");
    writeFileSync(path, damage(readFileSync(path, "utf8")));
    await expect(made("small.jsonl", "damaged", { clusters: "2", dim: "4" })).rejects.toThrow(message);
    expect(existsSync(at("damaged.partial"))).toBe(false);
  }
  await made("small.jsonl", "damaged", { clusters: "2", dim: "4" });
});

test("text that changes before it is assigned is refused, and no files are left", async () => {
  const lines = readFileSync(at("small.jsonl"), "utf8").split("\n");
  mkdirSync(at("changing"));
  const file = at("changing", "a.jsonl");
  writeFileSync(file, lines.join("\n"));
  const args = clusterArguments([file], { out: at("changed"), clusters: "2", dim: "4", threads: "1" });
  const err = {
    ...silent,
    write(text: string): void {
      if (text.includes("assigning")) writeFileSync(file, lines.toReversed().join("\n"));
    },
  };
  await expect(cluster(args, { out: silent, err })).rejects.toMatchObject({
    code: "data",
    message: expect.stringContaining("a.jsonl: its text changed during clustering"),
  });
  expect([existsSync(at("changed")), existsSync(at("changed.partial"))]).toEqual([false, false]);
});

/** A row for each document, near the corner of its topic. */
const rows = Float32Array.from({ length: 60 * 3 }, (_, i) =>
  Math.floor(i / 3) % 3 === i % 3 ? 4 : (i % 5) / 8,
);

test("documents in files of tokens are clustered like their text", async () => {
  const texts = readFileSync(at("small.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { text: string }).text);
  const tokenizer = byteTokenizer();
  mkdirSync(at("tokens"));
  const ids = texts.flatMap((text) => [...tokenizer.encode(text), tokenizer.endOfText]);
  writeFileSync(at("tokens", "small.bin"), new Uint8Array(Uint16Array.from(ids).buffer));
  const options = { clusters: "3", dim: "4", tokenizer: "byte" };
  await made("small.jsonl", "of-text", options);
  await made("tokens", "of-tokens", options);
  const [text, tokens] = [contents("of-text"), contents("of-tokens")];
  for (const name of ["ids/small.npy", "centroids.npy", "embedder.safetensors"])
    expect(tokens.get(name)).toBe(text.get(name));
  const sizes = (name: string): unknown =>
    (JSON.parse(readFileSync(at(name, "clusters.json"), "utf8")) as { clusters: unknown }).clusters;
  expect(sizes("of-tokens")).toEqual(sizes("of-text"));
  await expect(made("tokens", "refused", { clusters: "3" })).rejects.toThrow(
    "give the tokenizer that wrote it with --tokenizer",
  );
  const data = { domainsFrom: [at("of-tokens")], target: [at("one.jsonl")] };
  const config = resolveConfig([jsonLayer({ data, run: { out: at("run") } }, "c.json")]);
  const hooks = { onEvent: () => {}, signal: new AbortController().signal };
  await expect(listInputs({ ...config.data, out: at("run") }, hooks)).rejects.toThrow(
    /its clusters are of files of tokens \(.*\.npy|its clusters were made from token files \(.*\), so a run cannot use them as domains; cluster the original text$/,
  );
});

test("embeddings may come from rows of a file, from a model2vec folder or from the folder of a model", async () => {
  writeFileSync(at("rows.npy"), encodeNpy({ shape: [60, 3], values: rows }));
  mkdirSync(at("table"));
  mkdirSync(at("model"));
  const tokenizer = byteTokenizer();
  const json = JSON.stringify(tokenizer.toJSON());
  writeFileSync(at("table", "tokenizer.json"), json);
  writeFileSync(at("model", "tokenizer.json"), json);
  // Letters by which the topics differ.
  const table = new Float32Array(tokenizer.vocabSize * 2).fill(0.01);
  for (const [letter, place] of [
    ["v", 0],
    ["u", 0],
    ["k", 1],
    ["c", 1],
  ] as const)
    table[letter.charCodeAt(0) * 2 + place] = 1;
  writeFileSync(
    at("table", "model.safetensors"),
    encodeSafetensors(new Map([["embeddings", { shape: [tokenizer.vocabSize, 2], data: table }]])),
  );
  const backend = await createCpuBackend({ threads: 1 });
  setCurrentMemory(backend);
  const model = createGPT({
    preset: "llama",
    vocabSize: tokenizer.vocabSize,
    context: 32,
    dim: 16,
    layers: 1,
    heads: 2,
  });
  for (const [name, bytes] of await toHuggingFace(model)) writeFileSync(at("model", name), bytes);
  model.dispose();
  await backend.dispose();

  await made("small.jsonl", "of-rows", { clusters: "3", embeddings: at("rows.npy") });
  const ids = decodeNpy(readFileSync(at("of-rows", "ids/small.npy")), "ids").values;
  ids.forEach((id, i) => expect(id).toBe(ids[i % 3]));
  expect(new Set(ids).size).toBe(3);
  // Documents without text have rows too.
  const lines = readFileSync(at("small.jsonl"), "utf8").trim().split("\n");
  writeFileSync(
    at("gaps.jsonl"),
    [...lines.slice(0, 7), '{"text":""}', ...lines.slice(7), '{"text":""}', ""].join("\n"),
  );
  const gaps = Float32Array.from([...rows.subarray(0, 21), 9, 9, 9, ...rows.subarray(21), 9, 9, 9]);
  writeFileSync(at("gaps.npy"), encodeNpy({ shape: [62, 3], values: gaps }));
  await made("gaps.jsonl", "of-gaps", { clusters: "3", embeddings: at("gaps.npy") });
  expect(decodeNpy(readFileSync(at("of-gaps", "ids/gaps.npy")), "ids").values).toEqual(ids);

  for (const [name, dim] of [
    ["table", 2],
    ["model", 16],
  ] as const) {
    await made("small.jsonl", `of-${name}`, { clusters: "3", embeddings: at(name) });
    const { shape, values } = decodeNpy(readFileSync(at(`of-${name}`, "centroids.npy")), "centroids");
    expect(shape).toEqual([3, dim]);
    // Means of points of unit length.
    for (let j = 0; j < 3; j++)
      expect(Math.hypot(...values.subarray(j * dim, (j + 1) * dim))).toBeLessThan(1 + 1e-6);
    const description = JSON.parse(readFileSync(at(`of-${name}`, "clusters.json"), "utf8")) as Record<
      string,
      unknown
    >;
    expect(description).toMatchObject({ dim, embeddings: at(name) });
  }
});

test.each<[string, () => Record<string, unknown>, string]>([
  [
    "rows for other documents",
    () => ({ embeddings: put("few.npy", 59) }),
    "has 59 rows, but there are 60 documents",
  ],
  ["no file", () => ({ embeddings: at("none.npy") }), "no such file or folder"],
  ["another file", () => ({ embeddings: at("small.jsonl") }), "give a .npy, .safetensors or .parquet file"],
  ["a folder of something else", () => ({ embeddings: at("changing") }), "has no model.safetensors"],
  ["a length", () => ({ embeddings: at("rows.npy"), dim: "8" }), "leave out --dim"],
  ["clusters that are there", () => ({ ids: folder, balanced: "2" }), "--ids and --balanced"],
  ["no balance", () => ({ balanced: "0.5" }), '"0.5" is not a number of at least 1'],
])("%s is refused", async (_, options, message) => {
  const given = options();
  const more = "ids" in given ? given : { clusters: "3", ...given };
  await expect((async () => made("small.jsonl", "refused", more))()).rejects.toMatchObject({
    message: expect.stringContaining(message),
  });
  expect(existsSync(at("refused.partial"))).toBe(false);
});

describe("a command does not continue, and nothing is lost, if a file has changed on which the result depends", () => {
  const json = (): string => JSON.stringify(byteTokenizer().toJSON());
  const table = (one: number): Uint8Array => {
    const data = new Float32Array(byteTokenizer().vocabSize * 2).fill(0.01);
    data.fill(one, "v".charCodeAt(0) * 2, "w".charCodeAt(0) * 2);
    return encodeSafetensors(new Map([["embeddings", { shape: [data.length / 2, 2], data }]]));
  };
  const npyOf = (values: Float32Array | Int32Array, shape: number[]): Uint8Array =>
    encodeNpy({ shape, values });
  const ids = Int32Array.from({ length: 60 }, (_, i) => i % 3);
  test.each<[string, string, Record<string, string | Uint8Array>, string, string | Uint8Array]>([
    ["rows", "embeddings=rows.npy", { "rows.npy": npyOf(rows, [60, 3]) }, "rows.npy", npyOf(rows.toReversed(), [60, 3])], // prettier-ignore
    ["model", "embeddings=.", { "tokenizer.json": json(), "model.safetensors": table(1) }, "model.safetensors", table(2)], // prettier-ignore
    ["config", "embeddings=.", { "tokenizer.json": json(), "model.safetensors": table(1) }, "config.json", '{"normalize":false}'], // prettier-ignore
    ["ids", "ids=.", { "small.npy": npyOf(ids, [60]) }, "small.npy", npyOf(ids.toReversed(), [60])],
    ["tokenizer", "tokenizer=tokenizer.json", { "tokenizer.json": json() }, "tokenizer.json", `${json()}\n`],
  ])("%s", async (name, given, files, changing, changed) => {
    const [flag = "", value = ""] = given.split("=");
    mkdirSync(at(`of-${name}-files`));
    const own = (file: string): string => at(`of-${name}-files`, file);
    for (const [file, bytes] of Object.entries(files)) writeFileSync(own(file), bytes);
    const out = `stopped-${name}`;
    const clusters: Record<string, string> =
      flag === "ids" ? { dim: "4" } : flag === "tokenizer" ? { clusters: "3", dim: "4" } : { clusters: "3" };
    const options = { ...clusters, [flag]: own(value) };
    const args = Object.entries(options).flatMap(([key, text]) => [`--${key}`, text]);
    expect(await killed(["small.jsonl", "--out", out, ...args], "assigned/0\\.i32$", 1)).toBe(true);
    writeFileSync(own(changing), changed);
    const before = contents(`${out}.partial`);
    await expect(made("small.jsonl", out, options)).rejects.toMatchObject({
      code: "config",
      message: `--out ${at(out)}: ${at(out)}.partial belongs to an unfinished clustering with another state of the file ${own(changing)}; delete it, or choose another folder`,
    });
    before.delete("lock");
    expect(contents(`${out}.partial`)).toEqual(before);
  });

  test("nor does it end, if the file changes meanwhile", async () => {
    const file = put("meanwhile.npy", 60);
    const given = { out: at("meanwhile"), clusters: "3", embeddings: file, threads: "1" };
    const err = {
      ...silent,
      write(text: string): void {
        if (text.includes("assigning")) writeFileSync(file, encodeNpy({ shape: [60, 3], values: rows.toReversed() })); // prettier-ignore
      },
    };
    await expect(cluster(clusterArguments([at("small.jsonl")], given), { out: silent, err })).rejects.toMatchObject({ code: "data", message: `${file}: it changed during clustering; cluster the text again` }); // prettier-ignore
    expect([existsSync(at("meanwhile")), existsSync(at("meanwhile.partial"))]).toEqual([false, false]);
  });
});

function put(name: string, count: number): string {
  writeFileSync(at(name), encodeNpy({ shape: [count, 3], values: rows.slice(0, 3 * count) }));
  return at(name);
}

test("a model2vec folder with a WordPiece tokenizer leaves unknown text out", async () => {
  const saved = JSON.parse(readFileSync("test/golden/library-tokenizers.json", "utf8")) as {
    name: string;
    file: { model: { vocab: Record<string, number>; unk_token: string } };
  }[];
  const bert = saved.find(({ name }) => name === "bert");
  if (bert === undefined) throw new Error("no fixture named bert");
  const { vocab, unk_token: unknown } = bert.file.model;
  const size = Object.keys(vocab).length;
  // Each token's row is its own number; that of unknown text would outweigh all others.
  const table = Float32Array.from({ length: size * 2 }, (_, i) => (i % 2 === 0 ? (i / 2) % 7 : 1));
  table.fill(1e6, vocab[unknown] * 2, vocab[unknown] * 2 + 2);
  mkdirSync(at("bert"));
  writeFileSync(at("bert", "tokenizer.json"), JSON.stringify(bert.file));
  writeFileSync(at("bert", "config.json"), '{"normalize":false}');
  writeFileSync(
    at("bert", "model.safetensors"),
    encodeSafetensors(new Map([["embeddings", { shape: [size, 2], data: table }]])),
  );
  const { signal } = new AbortController();
  const { embed, close } = await embeddingsFrom(at("bert"), signal);
  const words = Object.keys(vocab)
    .filter((word) => /^[a-z]+$/.test(word))
    .slice(0, 2);
  const of = async (text: string) => Array.from((await embed([text], [0], signal)).values);
  const row = (word: string, place: number): number => table[vocab[word] * 2 + place];
  const text = words.join(" ");
  expect(await of(text)).toEqual(
    [0, 1].map((place) => words.reduce((sum, word) => sum + row(word, place), 0) / 2),
  );
  expect(await of(`${text} \u2603`)).toEqual(await of(text));
  close();
});
