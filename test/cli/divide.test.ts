/** `gradmix divide`: parts of domains by likeness to a target, as a folder that the other commands take as domains. */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeNpy } from "#dist/data/npy.js";
import { random } from "../dga/arbitraries.ts";
import { expectNear } from "../near.ts";
import { runCommand } from "./served.ts";

const command = resolve("dist/cli/main.js");
const folder = mkdtempSync(join(tmpdir(), "gradmix-divide-"));
const at = (...path: string[]): string => join(folder, ...path);
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

function gradmix(...args: string[]): {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
} {
  const { status, stdout, stderr } = runCommand(args, { cwd: folder });
  return { code: status, out: stdout, err: stderr };
}

const next = random(5);
/** Words of the target, and other words; `share` of the words of a document are the target's. */
const text = (share: number): string =>
  Array.from({ length: 40 }, () => `${next() < share ? "kelp" : "moss"}${Math.floor(8 * next())}`).join(" ");
const lines = (documents: readonly unknown[]): string =>
  documents.map((one) => `${JSON.stringify(one)}\n`).join("");
/** How much of each document of the two files is the target's: in no order. */
const shares = [0, 1].map(() => Array.from({ length: 40 }, () => next()));

const common = ["--tokenizer", "byte", "--target", "target.jsonl"];
const domains = ["--domain", "prose=prose/*.jsonl", "--domain", "code=code.jsonl"];

interface Description {
  readonly clusters: Readonly<
    Record<string, { readonly documents: number; readonly tokens: number; readonly likeness: number }>
  >;
  readonly files: readonly { readonly path: string; readonly ids: string }[];
}
const described = (parts: string): Description =>
  JSON.parse(readFileSync(at(parts, "clusters.json"), "utf8")) as Description;
const idsOf = (parts: string, name: string): number[] => {
  const path = at(parts, "ids", name);
  return Array.from(decodeNpy(new Uint8Array(readFileSync(path)), path).values);
};

beforeAll(() => {
  mkdirSync(at("prose"));
  shares.forEach((own, f) =>
    writeFileSync(
      at("prose", `${f}.jsonl`),
      lines(own.map((share) => ({ text: text(share), kind: `k${f}` }))),
    ),
  );
  writeFileSync(at("code.jsonl"), lines(Array.from({ length: 12 }, (_, i) => ({ text: text(i % 2) }))));
  writeFileSync(at("target.jsonl"), lines(Array.from({ length: 20 }, () => ({ text: text(1) }))));
  expect(gradmix("divide", ...domains, ...common, "--parts", "3", "--out", "parts")).toMatchObject({
    code: 0,
  });
});

test("part 1 of a domain has the documents that resemble the target most, over all its files, and each part a third of the text", () => {
  const { clusters, files } = described("parts");
  const names = Object.keys(clusters);
  expect(names).toEqual(
    ["prose.1", "prose.2", "prose.3", "code.1", "code.2", "code.3"].slice(0, names.length),
  );
  const ids = [idsOf("parts", "0.npy"), idsOf("parts", "1.npy")];
  const documents = shares.flatMap((own, f) => own.map((share, d) => ({ share, id: ids[f][d] })));
  const mean = (part: number): number => {
    const own = documents.filter(({ id }) => id === part);
    return own.reduce((sum, { share }) => sum + share, 0) / own.length;
  };
  expect(mean(0)).toBeGreaterThan(0.75);
  expect(mean(1)).toBeGreaterThan(0.35);
  expect(mean(1)).toBeLessThan(0.65);
  expect(mean(2)).toBeLessThan(0.25);
  // Both files have documents of every part.
  for (const own of ids) expect(new Set(own)).toEqual(new Set([0, 1, 2]));
  const whole = [0, 1, 2].map((part) => clusters[names[part]].tokens);
  for (const tokens of whole) expectNear(tokens / whole.reduce((a, b) => a + b, 0), 1 / 3, 0.05, 1);
  const likeness = [0, 1, 2].map((part) => clusters[names[part]].likeness);
  expect(likeness).toEqual([...likeness].sort((a, b) => b - a));
  expect(files.map(({ path }) => path)).toEqual([at("prose/0.jsonl"), at("prose/1.jsonl"), at("code.jsonl")]);
});

test("a run takes the parts as domains and starts from their histogram; histogram, prepare and export take them too", () => {
  const small = [
    "--dim",
    "8",
    "--layers",
    "1",
    "--heads",
    "1",
    "--context",
    "16",
    "--batch",
    "2",
    "--steps",
    "4",
  ];
  const ran = gradmix("train", "--domains", "parts", ...common, ...small, "--backend", "cpu", "--threads", "1", "--out", "run"); // prettier-ignore
  expect(ran).toMatchObject({ code: 0 });
  const shown = gradmix(
    "histogram",
    "--domains",
    "parts",
    ...common,
    "--context",
    "16",
    "--out",
    "shown.json",
  );
  expect(shown).toMatchObject({ code: 0 });
  const shares = JSON.parse(readFileSync(at("shown.json"), "utf8")) as Record<string, number>;
  expect(JSON.parse(readFileSync(at("run/histogram.json"), "utf8"))).toEqual(shares);
  expect(shares["prose.1"] + shares["code.1"]).toBeGreaterThan(0.5);
  expect(gradmix("prepare", "--domains", "parts", ...common, "--out", "prepared")).toMatchObject({ code: 0 });
  expect(gradmix("export", "run", "--to", "csv").out).toContain("\n1,0,prose.1,");
});

test("a folder that another command makes in the meantime is refused and keeps its files, and nothing is left beside it", () => {
  const before = readdirSync(folder);
  const preload = pathToFileURL(resolve(import.meta.dirname, "preload.mjs")).href;
  const { status, stderr } = spawnSync(
    process.execPath,
    ["--import", preload, command, "divide", ...domains, ...common, "--out", "taken"],
    {
      cwd: folder,
      encoding: "utf8",
      // While the files are written, after the last look at --out.
      env: {
        ...process.env,
        MAKE: JSON.stringify({ call: "fsync", path: "clusters", nth: 1, file: at("taken", "other") }),
      },
    },
  );
  expect([status, stderr]).toEqual([
    2,
    expect.stringMatching(/gradmix: --out taken: already exists; choose another folder\n$/),
  ]);
  expect(readdirSync(at("taken"))).toEqual(["other"]);
  expect(readdirSync(folder).filter((name) => !before.includes(name))).toEqual(["taken"]);
});

test("what a killed command has left is removed by the next one, which may have other files", () => {
  const before = readdirSync(folder);
  const preload = pathToFileURL(resolve(import.meta.dirname, "preload.mjs")).href;
  const { signal } = spawnSync(
    process.execPath,
    ["--import", preload, command, "divide", ...domains, ...common, "--out", "killed"],
    {
      cwd: folder,
      env: {
        ...process.env,
        SIGNAL: JSON.stringify({ call: "fsync", path: "clusters", nth: 1, signals: ["SIGKILL"] }),
      },
    },
  );
  expect(signal).toBe("SIGKILL");
  expect(readdirSync(folder).filter((name) => !before.includes(name))).toEqual(["killed.partial"]);
  const cluster = gradmix("cluster", "code.jsonl", "--clusters", "2", "--out", "killed");
  expect(cluster.code).toBe(2);
  expect(cluster.err).toContain("killed.partial belongs to a stopped gradmix divide; delete it, or");
  const made = gradmix("divide", "--domain", "code=code.jsonl", ...common, "--parts", "3", "--out", "killed");
  expect(made).toMatchObject({ code: 0 });
  expect(readdirSync(folder).filter((name) => !before.includes(name))).toEqual(["killed"]);
  expect(readdirSync(at("killed")).sort()).toEqual(["clusters.json", "ids"]);
  expect(readdirSync(at("killed", "ids"))).toEqual(["code.npy"]);
});

test("values of a field are domains too, and the order of the files does not matter to the parts", () => {
  const made = gradmix("divide", "--domains", "prose", "--domain-field", "kind", ...common, "--parts", "2", "--out", "by-field"); // prettier-ignore
  expect(made).toMatchObject({ code: 0 });
  expect(Object.keys(described("by-field").clusters)).toEqual(["k0.1", "k0.2", "k1.1", "k1.2"]);
  expect(new Set(idsOf("by-field", "1.npy"))).toEqual(new Set([2, 3]));
});

test("held-out text of the target has no influence", () => {
  const own = (target: readonly string[]): number[] => {
    writeFileSync(at("changed.jsonl"), lines(target.map((one) => ({ text: one }))));
    rmSync(at("changed"), { recursive: true, force: true });
    expect(gradmix("divide", ...domains, "--tokenizer", "byte", "--target", "changed.jsonl", "--held-out", "0.5", "--out", "changed")).toMatchObject({ code: 0 }); // prettier-ignore
    return idsOf("changed", "0.npy");
  };
  const documents = Array.from({ length: 4 }, () => text(1));
  const before = own(documents);
  // Every document that can be replaced without a change of what is held out is either held out or not; some of them are.
  const changed = documents.map((_, i) =>
    own(documents.map((one, j) => (i === j ? text(0).repeat(20) : one))),
  );
  const same = changed.filter((ids) => ids.join() === before.join()).length;
  expect(same).toBeGreaterThan(0);
  expect(same).toBeLessThan(documents.length);
});

describe("refuses in one line, and writes nothing", () => {
  beforeAll(() => {
    writeFileSync(at("tokens.bin"), new Uint8Array(64));
    writeFileSync(at("empty.txt"), "");
    writeFileSync(at("config.json"), JSON.stringify({ data: { domains: { code: "code.jsonl" } } }));
  });
  test.each([
    [[...domains, "--tokenizer", "byte"], /needs a target/],
    [[...domains, ...common, "--parts", "1"], /--parts: .*2/],
    [[...domains, ...common, "--out", "parts"], /--out parts: already exists/],
    [["--domains", "parts", ...common], /--domains parts: its documents are already divided/],
    [["--domain", "a=code.jsonl", "--domain", "b=code.jsonl", ...common], /is in the domains "a" and "b"/],
    [["--domain", "a=tokens.bin", ...common], /tokens\.bin: holds tokens/],
    [["--domain", "a=code.jsonl", "--target", "tokens.bin"], /tokens\.bin: holds tokens/],
    [["--domain", "a=code.jsonl", "--domain", "b=empty.txt", ...common], /domain "b": .*no text/],
    [["--domain", "a=-", ...common], /"-": the standard input/],
    [["--domain", "a=prose/0.jsonl", "--domain", "a.1=prose/1.jsonl", ...common], null],
    [
      ["config.json", "--domain", "x=prose/0.jsonl", "--tokenizer", "none", "--target", "target.jsonl"],
      /--tokenizer none/,
    ],
  ])("%j", (args, message) => {
    const before = readdirSync(folder).sort();
    const out = args.includes("--out") ? [] : ["--out", "refused"];
    const { code, err } = gradmix("divide", ...args, ...out);
    if (message === null) {
      // "a.1" as the name of a domain is no part of "a".
      expect(code).toBe(0);
      rmSync(at("refused"), { recursive: true });
      return;
    }
    expect(code).toBe(2);
    expect(err.trim().split("\n").at(-1)).toMatch(message);
    expect(readdirSync(folder).sort()).toEqual(before);
    expect(existsSync(at("refused"))).toBe(false);
  });
});
