/**
 * `gradmix prepare`: the same bytes for any number of workers and of interruptions; files that change, and failures, are refused, and finished work is
 * kept.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { PassThrough } from "node:stream";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { GradmixError } from "gradmix";
import { byteTokenizer, openTokens } from "gradmix/data";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { commandLineLayer, jsonLayer, type Layer } from "#dist/cli/config.js";
import { encodeNpy } from "#dist/data/npy.js";
import { textHash } from "#dist/cli/text-hash.js";
import { optionRows } from "#dist/cli/options.js";
import { openOutput } from "#dist/cli/output.js";
import { prepareArguments, prepareTakes } from "#dist/cli/prepare-arguments.js";
import { prepare as runPrepare } from "#dist/cli/prepare-command.js";
import { clusterArguments } from "#dist/cli/cluster-arguments.js";
import { encodeJob, joinShards } from "#dist/cli/prepare-jobs.js";
import { jobsOf, type PreparePlan, stampOf } from "#dist/cli/prepare-plan.js";
import { startPool } from "#dist/cli/prepare-pool.js";
import { formatProgress } from "#dist/cli/prepare-progress.js";
import { preparedLayer } from "#dist/cli/prepared-options.js";
import { planRun } from "#dist/cli/plan.js";
import { configOf } from "#dist/cli/train.js";
import { readData } from "#dist/cli/read-data.js";
import { codeOf } from "../errors.ts";
import { runCommand } from "./served.ts";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
const rows = optionRows().filter(prepareTakes);
let folder = "";

/** Documents of a domain: words of its own, of many lengths. */
const documents = (name: string, n: number): string[] =>
  Array.from({ length: n }, (_, i) =>
    `${name} ${(i * 7919) % 97} sees é 日本 🎉 and sleeps. `.repeat(1 + (i % 13)),
  );
const jsonl = (texts: readonly string[], more: object = {}): string =>
  texts.map((text) => `${JSON.stringify({ text, ...more })}\n`).join("");

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-prepare-"));
  const corpus = join(folder, "corpus");
  mkdirSync(join(corpus, "notes"), { recursive: true });
  writeFileSync(join(corpus, "prose.jsonl"), jsonl(documents("dog", 60)));
  writeFileSync(join(corpus, "code.jsonl.gz"), gzipSync(jsonl(documents("for", 40))));
  writeFileSync(join(corpus, "rows.csv"), `text\n${documents("row", 5).map((text) => `"${text}\n"`).join("\n")}\n`); // prettier-ignore
  for (let i = 0; i < 30; i++) writeFileSync(join(corpus, "notes", `${i}.txt`), documents("note", i + 1)[i]);
  // Still being read when the others are done.
  writeFileSync(join(corpus, "large.jsonl"), jsonl(documents("large", 15_000)));
  writeFileSync(join(folder, "target.jsonl"), jsonl(documents("exam", 30)));
});
afterAll(() => rmSync(folder, { recursive: true, maxRetries: 5 }));

/** The command without a process of its own: its exit code or what it is refused with, and what it says. */
const prepareHere = async (...args: string[]): Promise<{ result: unknown; out: string; err: string }> => {
  const given = new Map<string, string[]>();
  const options: Record<string, string> = {};
  for (let i = 0; i < args.length; i += 2) {
    const row = rows.find(({ flag }) => flag === args[i]);
    if (row === undefined) options[args[i].slice(2)] = args[i + 1];
    else given.set(row.path, [...(given.get(row.path) ?? []), args[i + 1]]);
  }
  const streams = { out: new PassThrough(), err: new PassThrough() };
  const outputs = { out: openOutput(streams.out), err: openOutput(streams.err) };
  const previous = process.cwd();
  process.chdir(folder);
  let result: unknown;
  try {
    result = await runPrepare(prepareArguments(undefined, given, rows, options), outputs);
  } catch (error) {
    result = error instanceof GradmixError ? error.message : error;
  } finally {
    process.chdir(previous);
  }
  const textOf = (stream: PassThrough): string => String(stream.read() ?? "");
  return { result, out: textOf(streams.out), err: textOf(streams.err) };
};
const refusal = async (...args: string[]): Promise<unknown> => (await prepareHere(...args)).result;
/** The text of a run with these options. */
const dataOf = async (given: Record<string, unknown>) => {
  const layer: Layer = { values: new Map(Object.entries(given)), label: (path) => path };
  const config = await configOf([layer]);
  const hooks = { onEvent: () => {}, signal: new AbortController().signal };
  return readData(
    { ...config.data, context: 32, seed: 1, out: null },
    { tokenizer: null, corpus: undefined },
    hooks,
  );
};
const common = ["--domains", "corpus", "--target", "target.jsonl", "--vocab-size", "400"];
const prepare = (out: string, ...more: string[]) => prepareHere(...common, "--out", out, ...more);
/** All files of a folder, but the manifest, which has the times of its files. */
const bytesIn = (out: string): Map<string, string> =>
  new Map(
    readdirSync(join(folder, out), { recursive: true, encoding: "utf8" })
      .filter((name) => /\.(bin|idx|json)$/.test(name) && name !== "prepared.json")
      .sort()
      .map((name) => [name, readFileSync(join(folder, out, name), "base64")]),
  );
const contentsOf = (out: string): string[] => readdirSync(join(folder, out)).sort();

describe("prepared", () => {
  beforeAll(async () => {
    expect((await prepare("whole", "--workers", "1")).result).toBe(0);
  });

  test("the folder is complete, and no temporary files are left", async () => {
    expect(contentsOf("whole")).toEqual([
      "domains",
      "prepared.json",
      "target.bin",
      "target.idx",
      "tokenizer.json",
    ]);
    const { result, out } = await prepare("whole");
    expect([result, out]).toEqual([0, "whole is already complete, with the same text and options\n"]);
  });

  test("a complete folder whose files are missing, cut off or changed is refused by name; a copy of it is complete", async () => {
    cpSync(join(folder, "whole"), join(folder, "checked"), { recursive: true });
    const again = () => prepare("checked");
    expect((await again()).out).toBe("checked is already complete, with the same text and options\n");
    for (const [name, damage, what] of [
      ["domains/prose.bin", null, "is missing"],
      ["domains/prose.idx", null, "is missing"],
      ["target.idx", null, "is missing"],
      ["tokenizer.json", null, "cannot be read (no such file or folder)"],
      ["domains/prose.bin", (bytes: Buffer) => bytes.subarray(0, 200), "has changed since it was written"],
      ["target.bin", (bytes: Buffer) => bytes.fill(1, 0, 2), "has changed since it was written"],
      ["domains/prose.idx", (bytes: Buffer) => bytes.subarray(0, -1), "it says 60 sequences and 61 documents, which do not fit its"], // prettier-ignore
      ["tokenizer.json", () => JSON.stringify(byteTokenizer().toJSON()), "was started with another tokenizer"], // prettier-ignore
    ] as const) {
      const path = join(folder, "checked", name);
      const bytes = readFileSync(path);
      if (damage === null) rmSync(path);
      else writeFileSync(path, damage(Buffer.from(bytes)));
      const { result } = await again();
      if (!what.startsWith("was started"))
        expect(result).toContain(`--out checked: checked/${name}: ${what}`);
      expect(result).toMatch(
        what.startsWith("was started")
          ? /was started with another tokenizer; prepare into another folder/
          : /; delete this folder and run the command again, or prepare into another one$/,
      );
      writeFileSync(path, bytes);
    }
    expect((await again()).result).toBe(0);
    // With a tokenizer that was given, the folder's own is compared too.
    const given = ["--tokenizer", "whole/tokenizer.json"];
    expect((await prepare("checked-2", ...given)).result).toBe(0);
    writeFileSync(join(folder, "checked-2/tokenizer.json"), JSON.stringify(byteTokenizer().toJSON()));
    expect((await prepare("checked-2", ...given)).result).toContain(
      "--out checked-2: checked-2/tokenizer.json: is not the tokenizer of its tokens; delete",
    );
  });

  test("the command that it prints can be copied, whatever the folder is called", async () => {
    const { out } = await prepareHere(
      "--domains",
      "target.jsonl",
      "--tokenizer",
      "byte",
      "--out",
      "it's mine",
    );
    expect(out).toContain("  train    gradmix train --domains 'it'\\''s mine'\n");
  });

  test("any number of workers writes the same bytes", async () => {
    expect((await prepare("three", "--workers", "3", "--tokenizer", "whole/tokenizer.json")).result).toBe(0);
    expect(bytesIn("three")).toEqual(bytesIn("whole"));
  });

  test("reading the folder gives the same tokenizer, documents, split and tokens as reading the text, without further options", async () => {
    const path = (name: string): string => join(folder, name);
    const found = await dataOf({ "data.domainsFrom": [path("whole")] });
    const expected = await dataOf({
      "data.domainsFrom": [path("corpus")],
      "data.target": [path("target.jsonl")],
      "data.vocabSize": 400,
    });
    expect(found.tokenizer?.toJSON()).toEqual(expected.tokenizer?.toJSON());
    expect([...found.facts.domains.keys()]).toEqual([...expected.facts.domains.keys()]);
    const all = ({ domains, target }: typeof found) => [...domains, target ?? expect.unreachable()];
    const theirs = all(expected);
    all(found).forEach(({ train, heldOut }, i) => {
      for (const [own, other] of [
        [train, theirs[i].train],
        [heldOut, theirs[i].heldOut],
      ] as const) {
        // prettier-ignore
        const [a, b] = [own, other].map((windows) => windows?.stream ?? expect.unreachable());
        expect(a.tokens.length).toBe(b.tokens.length);
        expect(Buffer.from(Uint32Array.from(a.tokens.subarray(0, a.tokens.length)).buffer).equals(Buffer.from(Uint32Array.from(b.tokens.subarray(0, b.tokens.length)).buffer))).toBe(true); // prettier-ignore
        expect(a.documents).toEqual(b.documents);
      }
    });
  });

  test("a copied folder is read completely once more; a folder whose tokens have changed is refused", async () => {
    cpSync(join(folder, "whole"), join(folder, "copy"), { recursive: true });
    const given = { "data.domainsFrom": [join(folder, "copy")] };
    expect((await dataOf(given)).domains.length).toBe(5);
    const shard = join(folder, "copy/domains/prose.bin");
    const bytes = readFileSync(shard);
    bytes[100] ^= 1;
    writeFileSync(shard, bytes);
    await expect(dataOf(given)).rejects.toThrow(
      `${shard}: its tokens have changed since they were first read`,
    );
  });

  test("a tokenizer other than the folder's is refused", async () => {
    const path = join(folder, "whole");
    await expect(dataOf({ "data.domainsFrom": [path], "data.tokenizer": "byte" })).rejects.toThrow(
      `--domains ${path}: was prepared with another tokenizer than that of this run; leave out --tokenizer, or prepare the text again with it`,
    );
  });

  test("options that have no effect with a prepared folder are refused, except defaults in a config file", () => {
    const path = join(folder, "whole");
    const from = jsonLayer({ data: { domainsFrom: path } }, "c.json");
    const flags = (...given: (readonly [string, string])[]): Layer =>
      commandLineLayer(new Map(given.map(([name, value]) => [name, [value]])));
    const text = join(folder, "target.jsonl");
    const tokens = "holds tokens, and there is no other text; leave it out";
    for (const [layer, message] of [
      [
        flags(["data.vocabSize", "1024"]),
        `--vocab-size: has no effect, because ${path} has its own tokenizer; leave it out`,
      ],
      [flags(["data.textField", "text"]), `--text-field: has no effect, because ${path} ${tokens}`],
      [
        jsonLayer({ data: { vocabSize: 400 } }, "d.json"),
        `d.json: data.vocabSize: has no effect, because ${path} has its own tokenizer; leave it out`,
      ],
      [
        jsonLayer({ data: { skipBadLines: true } }, "d.json"),
        `d.json: data.skipBadLines: has no effect, because ${path} ${tokens}`,
      ],
    ] as const)
      expect(codeOf(() => preparedLayer([layer, from]))).toBe(`config: ${message}`);
    for (const layer of [
      jsonLayer({ data: { vocabSize: 1024, textField: "text", skipBadLines: false } }, "d.json"),
      flags(["data.vocabSize", "300"], ["data.tokenizer", "none"]),
      flags(["data.textField", "body"], ["data.target", text]),
    ])
      expect(preparedLayer([layer, from]).values.get("data.tokenizer")).toBe(join(path, "tokenizer.json"));
    // It has an effect if there is text in other folders too.
    const both = jsonLayer({ data: { domainsFrom: [path, join(folder, "corpus")] } }, "c.json");
    expect(codeOf(() => preparedLayer([flags(["data.textField", "body"]), both]))).toBe("no error");
  });

  test("gradmix cluster accepts the folder as the text of its domains", () => {
    const paths = ["code", "large", "notes", "prose", "rows"].map((name) => join(folder, "whole/domains", `${name}.bin`)); // prettier-ignore
    const { files, tokenizer } = clusterArguments([join(folder, "whole"), "a.txt"], { out: "x" });
    expect([files, tokenizer]).toEqual([[...paths, "a.txt"], join(folder, "whole/tokenizer.json")]);
    expect(clusterArguments([join(folder, "corpus")], { out: "x" })).toMatchObject({ files: [join(folder, "corpus")], tokenizer: null }); // prettier-ignore
  });

  test("a command that was killed resumes where it stopped, to the same bytes", async () => {
    const done = join(folder, "killed/work/done.jsonl");
    const child = spawn(process.execPath, [command, "prepare", ...common, "--out", "killed", "--workers", "2"], { cwd: folder, stdio: "ignore" }); // prettier-ignore
    const ended = once(child, "exit");
    while (!existsSync(done) || readFileSync(done, "utf8").split("\n").length < 3) {
      expect(child.exitCode).toBeNull();
      await new Promise((next) => setTimeout(next, 1));
    }
    child.kill("SIGKILL");
    expect((await ended)[1]).toBe("SIGKILL");
    // A line that was being written, and files that were.
    appendFileSync(done, '{"job":"abc","docu');
    writeFileSync(join(folder, "killed/work/0123456789abcdef0123.bin.tmp"), "half");
    await expect(dataOf({ "data.domainsFrom": [join(folder, "killed")] })).rejects.toThrow("is not complete; run the same gradmix prepare command again"); // prettier-ignore
    const { result, err } = await prepare("killed", "--workers", "3");
    expect(result).toBe(0);
    expect(err).toMatch(/continuing: [1-9] of \d parts of the text are done/);
    expect(bytesIn("killed")).toEqual(bytesIn("whole"));
    expect(contentsOf("killed")).toEqual(contentsOf("whole"));
  });

  test("an interrupted command says that it can be resumed", async () => {
    const given = ["--tokenizer", "whole/tokenizer.json"];
    const child = spawn(process.execPath, [command, "prepare", ...common, "--out", "stopped", ...given], { cwd: folder, stdio: ["ignore", "ignore", "pipe"] }); // prettier-ignore
    let err = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text));
    const ended = once(child, "exit");
    while (!existsSync(join(folder, "stopped/work/plan.json")))
      await new Promise((next) => setTimeout(next, 1));
    child.kill("SIGINT");
    expect((await ended)[0]).toBe(130);
    expect(err).toContain("stopped; run the same command again to continue stopped\n");
    expect(existsSync(join(folder, "stopped/lock"))).toBe(false);
    expect((await prepare("stopped", ...given)).result).toBe(0);
    expect(bytesIn("stopped")).toEqual(bytesIn("whole"));
  });

  test("files for nanoGPT hold the same tokens", async () => {
    expect((await prepare("nano", "--format", "nanogpt", "--tokenizer", "whole/tokenizer.json")).result).toBe(
      0,
    );
    expect(contentsOf("nano")).toEqual(["domains", "prepared.json", "target.bin", "tokenizer.json"]);
    // A vocabulary as small has 16 bits in both.
    for (const name of readdirSync(join(folder, "nano/domains")))
      expect(readFileSync(join(folder, "nano/domains", name)).equals(readFileSync(join(folder, "whole/domains", name)))).toBe(true); // prettier-ignore
  });
});

test("a prepared folder supplies options that are not given", async () => {
  expect(await refusal(..."--domains target.jsonl --tokenizer byte --out none".split(" "))).toBe(0);
  for (const [out, tokenizer] of [
    ["several", "byte"],
    ["other", "whole/tokenizer.json"],
  ])
    expect(await refusal(...["--domains", "target.jsonl", "--targets", "x=corpus/rows.csv", "--targets", "y=corpus/prose.jsonl", "--tokenizer", tokenizer, "--out", out])).toBe(0); // prettier-ignore
  const path = (name: string): string => join(folder, name);
  const layerOf = (
    given: Record<string, unknown>,
    use: "run" | "comparison" = "run",
  ): Record<string, unknown> =>
    Object.fromEntries(
      preparedLayer([{ values: new Map(Object.entries(given)), label: (key) => key }], use).values,
    );
  const from = [path("several")];
  const tokenizer = path("several/tokenizer.json");
  expect(layerOf({ "data.domainsFrom": from })).toEqual({ "data.tokenizer": tokenizer });
  expect(layerOf({ "data.domainsFrom": from, "mixing.rule": "grape" })).toEqual({
    "data.tokenizer": tokenizer,
    "data.targets": new Map([
      ["x", [path("several/targets/x.bin")]],
      ["y", [path("several/targets/y.bin")]],
    ]),
  });
  expect(layerOf({ "data.domainsFrom": from, "model.initFrom": "run" })).toEqual({});
  // A comparison takes them whatever the rules are, from any of the folders, unless the user names others.
  const targets = new Map(["x", "y"].map((name) => [name, [path(`several/targets/${name}.bin`)]]));
  const compared = (...folders: string[]) => ({ "data.domainsFrom": folders.map(path) });
  expect(layerOf(compared("several"), "comparison")).toEqual({ "data.tokenizer": tokenizer, "data.targets": targets }); // prettier-ignore
  expect(layerOf(compared("none", "several"), "comparison")["data.targets"]).toEqual(targets);
  expect(layerOf(compared("whole"), "comparison")["data.target"]).toEqual([path("whole/target.bin")]);
  for (const named of [{ "data.target": ["t"] }, { "data.targets": new Map([["z", ["t"]]]) }])
    expect(layerOf({ ...compared("whole", "other"), ...named }, "comparison")).toEqual({
      "data.tokenizer": path("whole/tokenizer.json"),
    });
  expect(codeOf(() => layerOf(compared("several", "other"), "comparison"))).toBe(
    `config: --domains: ${path("several/targets/x.bin")} and ${path("other/targets/x.bin")} are both the target x; name the targets with --targets NAME=FILE`,
  );
  expect(codeOf(() => layerOf(compared("whole", "other"), "comparison"))).toBe(
    `config: --domains: ${path("whole/target.bin")} is a target, and there are also the targets x, y; name one with --target FILE, or several with --targets NAME=FILE`,
  );
  // The error of a rule with one target names them.
  const advice = `${path("several")} has the targets x, y; name one with --target ${path("several/targets/x.bin")}`;
  for (const [given, message] of [
    [{}, `--rule dga needs a target: ${advice}, or choose --rule uniform`],
    [{ "mixing.rule": "importanceSampling" }, `--rule importanceSampling needs a target: ${advice}, or a histogram of it with --histogram NAME=X,NAME=X`],
    [{ "mixing.rule": "uniform", "run.keepBest": true }, `run.keepBest: the best step is the one with the lowest loss on a target, and there is no target; ${advice}`],
  ] as const) // prettier-ignore
    await expect(
      configOf([
        { values: new Map<string, unknown>([["data.domainsFrom", from], ...Object.entries(given)]), label: (key) => key },
      ]).then((config) => planRun(config, ["target"])),
    ).rejects.toThrow(message); // prettier-ignore
  expect(layerOf({ "data.domainsFrom": [path("whole")], "model.initFrom": "run" })).toEqual({ "data.target": [path("whole/target.bin")] }); // prettier-ignore
  expect(layerOf({ "data.domainsFrom": [path("corpus")] })).toEqual({});
  // If no target is named, only one folder may have one.
  expect(codeOf(() => layerOf({ "data.domainsFrom": [path("whole"), path("nano")] }))).toBe(
    `config: --domains: ${path("whole/target.bin")} and ${path("nano/target.bin")} are both targets; name one with --target`,
  );
  const named = { "data.domainsFrom": [path("whole"), path("nano")], "data.target": ["target.jsonl"] };
  expect(layerOf(named)["data.tokenizer"]).toBe(path("whole/tokenizer.json"));
  expect(layerOf({ "data.domainsFrom": [path("other"), path("whole")] })["data.target"]).toEqual([
    path("whole/target.bin"),
  ]);
  expect(codeOf(() => layerOf({ "data.domainsFrom": [path("several"), path("other")] }))).toBe(
    `config: --domains: ${path("several")} and ${path("other")} were prepared with two tokenizers; prepare one of them again with the other's (--tokenizer)`,
  );
});

test("with domains from a field and a large vocabulary, each document is in its domain", async () => {
  const [one, two] = [documents("one", 30), documents("two", 20)];
  writeFileSync(join(folder, "mixed.jsonl"), one.map((text, i) => jsonl([text], { lang: "1" }) + (i < 20 ? jsonl([two[i]], { lang: "2" }) : "")).join("")); // prettier-ignore
  const wide = byteTokenizer().toJSON() as { model: { vocab: Record<string, number> } };
  for (let id = 257; id < 66_000; id++) wide.model.vocab[`!${id}`] = id;
  writeFileSync(join(folder, "wide.json"), JSON.stringify(wide));
  const args = "--domains mixed.jsonl --domain-field lang --tokenizer wide.json --out mixed".split(" ");
  expect(await refusal(...args)).toBe(0);
  for (const [name, texts] of Object.entries({ 1: one, 2: two }))
    expect(await documentsIn(join(folder, "mixed/domains", `${name}.bin`))).toEqual(bytesOf(texts));
});

/** Tokens of a shard, the first document last. */
const documentsIn = async (path: string): Promise<number[]> => {
  const { tokens } = (await openTokens(path, [path], { vocabSize: 66_000, heldOut: 0, seed: 0 })).train;
  return [...tokens.subarray(0, tokens.length)];
};
const bytesOf = (texts: readonly string[]): number[] => {
  const [first = [], ...others] = texts.map((text) => [...byteTokenizer().encode(text), 256]);
  return [...others, first].flat();
};

test("with clusters as domains, each document is in the domain of its cluster", async () => {
  // The last cluster has less than a window.
  const texts = [...documents("cluster", 20), "one word"];
  const path = join(folder, "clustered.jsonl");
  writeFileSync(path, jsonl(texts));
  const hash = textHash();
  for (const text of texts) hash.add(text);
  const ids = Int32Array.from(texts, (_, i) => (i < 20 ? i % 3 : 3));
  mkdirSync(join(folder, "clusters/ids"), { recursive: true });
  writeFileSync(join(folder, "clusters/ids/0.npy"), encodeNpy({ shape: [ids.length], values: ids }));
  const size = { documents: 1, bytes: 1, tokens: null };
  const described = { version: 1, seed: 0, clusters: { a: size, b: size, c: size, small: size }, files: [{ path, documents: 21, sha256: hash.digest(), ids: "ids/0.npy" }] }; // prettier-ignore
  writeFileSync(join(folder, "clusters/clusters.json"), JSON.stringify(described));
  expect(await refusal("--domains", "clusters", "--tokenizer", "byte", "--out", "of-clusters")).toBe(0);
  for (const [cluster, name] of ["a", "b", "c", "small"].entries())
    expect(await documentsIn(join(folder, "of-clusters/domains", `${name}.bin`))).toEqual(
      bytesOf(texts.filter((_, i) => ids[i] === cluster)),
    );
  const { domains } = await dataOf({
    "data.domainsFrom": [join(folder, "of-clusters")],
    "data.target": [join(folder, "target.jsonl")],
  });
  expect(domains.at(-1)?.train.stream.tokens.length).toBeLessThan(32);
  // With other domains it is refused.
  const manifest = join(folder, "of-clusters/prepared.json");
  const written = readFileSync(manifest, "utf8");
  writeFileSync(manifest, written.replace(/("--domains \(clusters\)": )"[^"]*"/, '$1"none"'));
  const refused = dataOf({
    "data.domainsFrom": [join(folder, "of-clusters")],
    "data.target": [join(folder, "target.jsonl")],
  });
  await expect(refused).rejects.toThrow("less than one window");
  writeFileSync(manifest, written);
});

test("a setting of a config file that preparing does not support is refused", () => {
  const config = join(folder, "drops.json");
  const data = { domainsFrom: ["corpus"], target: ["target.jsonl"], dropContaminated: true };
  writeFileSync(config, JSON.stringify({ data }));
  const { status, stderr } = runCommand(["prepare", config, "--out", "dropped"], { cwd: folder });
  expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringContaining("data.dropContaminated") });
  const flag = runCommand(["prepare", "--domains", "corpus", "--out", "drop", "--drop-contaminated"], { cwd: folder }); // prettier-ignore
  expect(flag.stderr).toMatch(/^gradmix: --drop-contaminated: gradmix prepare cannot compare [^\n]*; leave the option out, or train on the text itself\n$/); // prettier-ignore
  expect(existsSync(join(folder, "dropped"))).toBe(false);
});

test("gradmix histogram uses the targets of a prepared folder, and gradmix mix its domains", () => {
  const run = (...args: string[]) => runCommand(args, { cwd: folder, input: '{"type":"init"}\n' });
  const targets = ["--targets", "one=target.jsonl", "--targets", "two=corpus/rows.csv"];
  const made = run("prepare", "--domain", "prose=corpus/prose.jsonl", "--domain", "code=corpus/code.jsonl.gz", ...targets, "--tokenizer", "byte", "--out", "two-targets"); // prettier-ignore
  expect(made.stderr).not.toContain("gradmix:");
  const { stdout } = run("histogram", "--domains", "two-targets", "--context", "32");
  expect(stdout).toMatch(/^one\n[^]*^two\n/m);
  expect(run("mix", "--domains", "two-targets").stdout).toContain('"weights":{"prose":0.5,"code":0.5}');

  // A rule that takes no target trains, and a line says that it evaluates on none of them.
  const uniform = ["train", "--domains", "two-targets", "--rule", "uniform", "--steps", "1", "--context", "16", "--dim", "8", "--layers", "1", "--heads", "1", "--batch", "2", "--backend", "cpu"]; // prettier-ignore
  const unused = /the prepared targets one, two are not used, because rule uniform .* --target (\S+)\n/;
  const [, path] = unused.exec(run(...uniform, "--out", "no-target").stderr) ?? [];
  expect(existsSync(join(folder, path))).toBe(true);
  expect(run(...uniform, "--target", path, "--out", "with-target").stderr).not.toMatch(unused);
});

describe("the command is refused, and its finished work is kept", () => {
  const args = ["--domains", "small", "--tokenizer", "byte", "--out", "some", "--workers", "1"];
  const file = (name: string): string => join(folder, "small", name);
  const begin = (): void => {
    for (const name of ["small", "some"]) rmSync(join(folder, name), { recursive: true, force: true });
    mkdirSync(join(folder, "small"));
    writeFileSync(file("a.jsonl"), jsonl(documents("a", 9)));
    utimesSync(file("a.jsonl"), 1e9, 1e9);
    writeFileSync(file("b.jsonl.gz"), gzipSync(jsonl(documents("b", 9))).subarray(0, 60));
    const { status, stderr } = runCommand(["prepare", ...args], { cwd: folder });
    expect({ status, stderr }).toEqual({ status: 2, stderr: "gradmix: small/b.jsonl.gz: it is cut off: the archive ends too early\n" }); // prettier-ignore
    expect(readdirSync(join(folder, "some/work")).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  };
  beforeAll(begin);

  test.each([
    [
      "another option",
      ["--text-field", "body"],
      "--text-field was text when it was started, but is body now",
    ],
    [
      "another tokenizer",
      ["--tokenizer", "bpe"],
      "--vocab-size was not used when it was started, but is 1024 now",
    ],
    [
      "another format",
      ["--format", "nanogpt"],
      "--format was megatron when it was started, but is nanogpt now",
    ],
    ["another domain", ["--domain", "c=target.jsonl"], "was started with other domains or targets, or in another order"], // prettier-ignore
  ])("%s", async (_, more, reason) => {
    const given = args.filter((_, i) => !more.includes(args[i]) && !more.includes(args[i - 1]));
    expect(await refusal(...given, ...more)).toBe(`--out some: ${reason}; prepare into another folder, or delete this one`); // prettier-ignore
  });

  test("refuses if a file was changed after it was read; resumes if a file was repaired before it was read", async () => {
    utimesSync(file("a.jsonl"), 1e9, 1e9 + 1);
    expect(await refusal(...args)).toContain(
      "a.jsonl has changed since it was started; prepare into another folder",
    );
    utimesSync(file("a.jsonl"), 1e9, 1e9);
    writeFileSync(file("b.jsonl.gz"), gzipSync(jsonl(documents("b", 9))));
    const { result, err } = await prepareHere(...args);
    expect({ result, going: err.includes("continuing: 1 of 2") }).toEqual({ result: 0, going: true });
  });

  test.each([
    ["standard input", ["--domain", "a=-"], '"-": standard input cannot be read again'],
    [
      "no tokenizer",
      ["--domain", "a=target.jsonl", "--tokenizer", "none"],
      "--tokenizer none: text needs a tokenizer",
    ],
    ["a file", ["--domain", "a=target.jsonl", "--out", "target.jsonl"], "--out target.jsonl: is a file; give a folder"], // prettier-ignore
    ["a folder of something else", ["--domain", "a=target.jsonl", "--out", "corpus"], "--out corpus: exists and contains something else"], // prettier-ignore
    ["an empty domain", ["--domain", "a=empty.jsonl", "--tokenizer", "byte"], 'domain "a": it is empty'],
    ["names that are one file for some", ["--domain", "a=target.jsonl", "--domain", "A=target.jsonl"], '"a" and "A" would be the same file'], // prettier-ignore
    ["targets that are one file for some", ["--domain", "a=corpus/prose.jsonl", "--targets", "t=target.jsonl", "--targets", "T=target.jsonl"], '"t" and "T" would be the same file'], // prettier-ignore
    ["a number that is none", ["--domain", "a=target.jsonl", "--workers", "0"], "--workers: 0 is not"],
    ["no folder", ["--domain", "a=target.jsonl", "--out", ""], "--out: is empty"],
  ])("%s", async (_, given, reason) => {
    writeFileSync(join(folder, "empty.jsonl"), '{"text":""}\n');
    const out = given.includes("--out") ? [] : ["--out", "nothing"];
    expect(await refusal(...given, ...out)).toContain(reason);
    // The folder exists only if text was read.
    expect(existsSync(join(folder, "nothing"))).toBe(given.includes("a=empty.jsonl"));
    rmSync(join(folder, "nothing"), { recursive: true, force: true });
  });
});

describe("a folder with files of the user", () => {
  const args = ["--domains", "target.jsonl", "--tokenizer", "byte", "--workers", "1"];
  const put = (...files: readonly (readonly [path: string, text: string])[]): string => {
    const own = mkdtempSync(join(folder, "own-"));
    for (const [path, text] of files) {
      mkdirSync(dirname(join(own, path)), { recursive: true });
      writeFileSync(join(own, path), text);
      // Not of a process that is about to write a lock.
      utimesSync(join(own, path), 1e9, 1e9);
    }
    return basename(own);
  };
  /** The names and contents in a folder. */
  const all = (out: string): unknown =>
    readdirSync(join(folder, out), { recursive: true, encoding: "utf8" })
      .sort()
      .map((name) => [name, fs.statSync(join(folder, out, name)).isFile() ? readFileSync(join(folder, out, name), "utf8") : null]); // prettier-ignore

  test.each<[string, readonly (readonly [string, string])[], string]>([
    ["a folder named work", [["work/notes.txt", "mine"], ["tokenizer.json", "mine"]], "tokenizer.json"], // prettier-ignore
    ["only a folder named work", [["work/notes.txt", "mine"]], "work"],
    ["a file named work", [["work", "mine"]], "work"],
    ["what is left before the plan, and more", [["work/.plan.json.12.tmp", ""], ["tokenizer.json", "mine"]], "tokenizer.json"], // prettier-ignore
    ["a plan of something else", [["work/plan.json", '{"steps":[]}'], ["tokenizer.json", "mine"]], "OUT/work/plan.json: gradmix is missing; it must be a string"], // prettier-ignore
    ["a manifest of something else", [["prepared.json", "{}"], ["work/plan.json", "mine"]], "OUT/prepared.json: version is missing; it must be 1"], // prettier-ignore
    ["a name that begins like a lock", [["lock.txt", "mine"]], "lock.txt"],
    ["another such name", [["locks", "mine"]], "locks"],
  ])("%s is refused, and nothing changes", async (_, files, what) => {
    const out = put(...files);
    const before = all(out);
    expect(await refusal(...args, "--out", out)).toBe(
      `--out ${out}: exists and contains something else (${what.replace("OUT", out)}); choose another folder`,
    );
    expect(all(out)).toEqual(before);
  });

  test("one that was begun is continued, also before its plan was written; files of others stay", async () => {
    const begun = put(["work/.plan.json.12.tmp", ""], [`lock.${"0".repeat(16)}`, "1 elsewhere\n"]);
    expect(await refusal(...args, "--out", begun)).toBe(0);
    const mine = [["lock.txt", "mine"], ["work/notes.txt", "mine"], ["work/notes.tmp", "mine"]] as const; // prettier-ignore
    const left = (): unknown[] =>
      mine.map(([name]) => [name, readFileSync(join(folder, begun, name), "utf8")]);
    for (const plan of ['{"steps":[]}', null]) {
      for (const [name, text] of mine) {
        mkdirSync(dirname(join(folder, begun, name)), { recursive: true });
        writeFileSync(join(folder, begun, name), text);
        utimesSync(join(folder, begun, name), 1e9, 1e9);
      }
      const at = join(folder, begun, "work/plan.json");
      if (plan !== null) writeFileSync(at, plan);
      else {
        const { made } = JSON.parse(readFileSync(join(folder, begun, "prepared.json"), "utf8")) as { made: object }; // prettier-ignore
        writeFileSync(at, JSON.stringify(made));
        writeFileSync(join(folder, begun, "work", `${"a".repeat(20)}.docs`), "ours");
      }
      expect((await prepareHere(...args, "--out", begun)).out).toContain("is already complete");
      expect(left()).toEqual(mine);
      expect(readdirSync(join(folder, begun, "work")).sort()).toEqual(
        ["notes.tmp", "notes.txt", ...(plan === null ? [] : ["plan.json"])].sort(),
      );
    }
  });
});

test("a domain that was already joined is joined again if a file was added to it since", async () => {
  for (const name of ["grows/a", "grows/b"]) mkdirSync(join(folder, name), { recursive: true });
  // Nearly as large as a part of the text, so that the next file is a part of its own.
  writeFileSync(join(folder, "grows/a/large.txt"), "words ".repeat(Math.floor((2 ** 24 - 9) / 6)));
  writeFileSync(join(folder, "grows/b/b.txt"), "other words");
  const args = (out: string): string[] => ["--domains", "grows", "--tokenizer", "byte", "--workers", "1", "--out", out]; // prettier-ignore
  // After the lines of two parts and of one domain.
  const rule = { call: "write", path: "done\\.jsonl$", nth: 4, signals: ["SIGKILL"] };
  const preload = pathToFileURL(resolve(import.meta.dirname, "preload.mjs")).href;
  const { signal } = spawnSync(
    process.execPath,
    ["--import", preload, command, "prepare", ...args("grown")],
    { cwd: folder, stdio: "ignore", env: { ...process.env, SIGNAL: JSON.stringify(rule) } },
  );
  const lines = readFileSync(join(folder, "grown/work/done.jsonl"), "utf8");
  expect({ signal, joined: [...lines.matchAll(/"file":"(.*?)"/g)].map(([, file]) => file) }).toEqual({
    signal: "SIGKILL",
    joined: ["domains/a.bin"],
  });
  writeFileSync(join(folder, "grows/a/new.txt"), "the added file");
  expect(await refusal(...args("grown"))).toBe(0);
  expect(await refusal(...args("fresh"))).toBe(0);
  expect(bytesIn("grown")).toEqual(bytesIn("fresh"));
  expect(readFileSync(join(folder, "grown/prepared.json"), "utf8")).toContain("new.txt");
});

test("a bad line deep in a file is named by its number; a full disk and a changing file leave no partial files", async () => {
  const [path, broken] = [join(folder, "long.jsonl"), join(folder, "broken.jsonl")];
  const lines = Array.from({ length: 19 }, () => JSON.stringify({ text: "x".repeat(2 ** 20) }));
  writeFileSync(path, lines.join("\n"));
  lines[17] = "no JSON";
  writeFileSync(broken, lines.join("\n"));
  const out = join(folder, "jobs");
  mkdirSync(join(out, "work"), { recursive: true });
  const planFor = (file: string): PreparePlan => ({
    labels: [{ kind: "domain", name: "a" }],
    inputs: [stampOf(file)],
    files: [[0]],
    mixed: null,
    options: { format: "megatron", textField: "text", domainField: null, skipBadLines: false, tokenizer: "byte", vocabSize: null }, // prettier-ignore
  });
  const context = (plan: PreparePlan) => ({ folder: out, plan, tokenizer: byteTokenizer(), clusters: null });
  const plan = planFor(broken);
  const jobs = jobsOf(plan);
  expect(jobs.length).toBeGreaterThan(1);
  await expect(encodeJob(jobs.at(-1) ?? expect.unreachable(), context(plan))).rejects.toThrow(`${broken}:18: the line is not JSON`); // prettier-ignore

  const good = planFor(path);
  const job = jobsOf(good).at(-1) ?? expect.unreachable();
  for (const failing of ["writeSync", "fsyncSync", "renameSync"] as const) {
    const full = { ...fs, [failing]: () => { throw Object.assign(new Error("full"), { code: "ENOSPC" }); } }; // prettier-ignore
    await expect(encodeJob(job, context(good), undefined, full)).rejects.toMatchObject({ code: "io", message: `${join(out, "work", job.id)}.bin: cannot be written (the disk is full)` }); // prettier-ignore
    expect(readdirSync(join(out, "work"))).toEqual([]);
  }
  let renames = 0;
  const second = { ...fs, renameSync(from: string, to: string) {
    if (++renames === 2) throw Object.assign(new Error("full"), { code: "ENOSPC" });
    fs.renameSync(from, to);
  } }; // prettier-ignore
  await expect(encodeJob(job, context(good), undefined, second)).rejects.toMatchObject({ code: "io", message: `${join(out, "work", job.id)}.docs: cannot be written (the disk is full)` }); // prettier-ignore
  expect([renames, readdirSync(join(out, "work"))]).toEqual([2, []]);
  const later = { ...good, inputs: [{ ...good.inputs[0], modified: 1 }] };
  await expect(encodeJob(job, context(later))).rejects.toThrow(`${path}: it changed while it was prepared`);

  // An error in what a message of a worker leads to ends the command like any other.
  const tokenizer = join(folder, "byte.json");
  writeFileSync(tokenizer, JSON.stringify(byteTokenizer().toJSON()));
  const never = new AbortController().signal;
  const pool = startPool({ folder: out, plan: good, jobs: jobsOf(good), tokenizer }, 1, never);
  const failed = pool.run([{ kind: "encode", job: 0 }], () => expect.unreachable(), () => {
    throw new GradmixError("io", "done.jsonl: cannot be written (the disk is full)");
  }); // prettier-ignore
  await expect(failed).rejects.toThrow("done.jsonl: cannot be written (the disk is full)");
  await pool.stop();

  // The reported amounts add up to the totals.
  const told = { input: 0, text: 0, documents: 0 };
  const facts = await encodeJob(job, context(good), ({ input, text, documents: n }) => {
    told.input += input;
    told.text += text;
    told.documents += n;
  });
  expect(told).toEqual({ input: job.bytes, text: facts.textBytes, documents: facts.documents });

  // The tokens of jobs are not open once they are joined, so that deleting them frees the disk.
  joinShards([0], [job.id], context(good), () => {});
  if (process.platform === "linux") {
    const open = readdirSync("/proc/self/fd").map((name) => linkOf(join("/proc/self/fd", name)));
    expect(open.filter((name) => name.includes(job.id))).toEqual([]);
  }
});

/** Where a link leads; "" if it is gone. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

test("progress shows the share of the input and the speed in text", () => {
  expect(formatProgress({ input: 100, text: 3e6, documents: 1234 }, { total: 1000, before: 300 }, 2)).toBe(
    " 40%  1.5 MB/s  1.23k documents  0:12 left",
  );
});
