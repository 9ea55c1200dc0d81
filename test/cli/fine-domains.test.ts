/**
 * From a corpus without labels to the weights of its clusters: the commands one after another, on text of planted topics; given clusters; and refusals.
 * All in one process.
 */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { clusterArguments } from "#dist/cli/cluster-arguments.js";
import { cluster } from "#dist/cli/cluster-command.js";
import { readClusterFolder } from "#dist/cli/cluster-folder.js";
import { exportArguments } from "#dist/cli/export-arguments.js";
import { exportRun } from "#dist/cli/export-command.js";
import { histogramArguments, histogramTakes } from "#dist/cli/histogram-arguments.js";
import { showHistogram } from "#dist/cli/histogram-command.js";
import type { MixFlags } from "#dist/cli/mix-arguments.js";
import { mix } from "#dist/cli/mix-command.js";
import { optionRows } from "#dist/cli/options.js";
import { openOutput } from "#dist/cli/output.js";
import { report } from "#dist/cli/report-command.js";
import { train } from "#dist/cli/train.js";
import { decodeNpy, encodeNpy } from "#dist/data/npy.js";
import { GradmixError } from "#dist/errors.js";
import { random } from "../dga/arbitraries.ts";
import { expectNear } from "../near.ts";

let folder = "";
const at = (...path: string[]): string => join(folder, ...path);
const next = random(17);
const TOPICS = 8;

/** A text about a topic: half of its words are the topic's. */
const about = (topic: number): string =>
  Array.from({ length: 24 }, () =>
    next() < 0.5
      ? `${"abcdefgh"[topic]}${"xyzuvw"[Math.floor(6 * next())]}${"klmn"[topic % 4]}`
      : `c${Math.floor(20 * next())}`,
  ).join(" ");
const lines = (texts: readonly string[]): string =>
  texts.map((text) => `${JSON.stringify({ text })}\n`).join("");
/** The topic of each document, file by file. */
const truth = [0, 1].map((f) => Array.from({ length: 80 }, (_, i) => (3 * i + f) % TOPICS));

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-fine-"));
  mkdirSync(at("documents"));
  truth.forEach((topics, f) => writeFileSync(at("documents", `shard_${f}.jsonl`), lines(topics.map(about))));
  // Three quarters of topic 2, one of topic 5.
  writeFileSync(at("target.jsonl"), lines(Array.from({ length: 40 }, (_, i) => about(i % 4 === 0 ? 5 : 2))));
  writeFileSync(at("other.jsonl"), lines(Array.from({ length: 20 }, () => about(7))));
  await run(
    "cluster",
    at("documents"),
    "--levels",
    "4,4",
    "--dim",
    "16",
    "--tokenizer",
    "byte",
    "--out",
    at("clusters"),
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

interface Printed {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command as the program does, flags given as `--flag value`; throws what it throws. */
async function run(
  command: "cluster" | "histogram" | "train" | "export",
  ...args: string[]
): Promise<Printed> {
  const sink = () => {
    const parts: string[] = [];
    const stream = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        parts.push(chunk.toString());
        done();
      },
    });
    return { output: openOutput(stream), text: () => parts.join("") };
  };
  const [out, err] = [sink(), sink()];
  const outputs = { out: out.output, err: err.output };
  const flags = new Map<string, string[]>();
  const words: string[] = [];
  for (let i = 0; i < args.length; i++)
    if (args[i].startsWith("--")) flags.set(args[i], [...(flags.get(args[i]) ?? []), args[++i]]);
    else words.push(args[i]);
  const camel = (flag: string): string =>
    flag.slice(2).replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
  const given = new Map(
    optionRows().flatMap(({ flag, path }) =>
      flags.has(flag) ? [[path, flags.get(flag) ?? []] as const] : [],
    ),
  );
  const last = Object.fromEntries(Array.from(flags, ([flag, values]) => [camel(flag), values.at(-1)]));
  const code =
    command === "cluster"
      ? await cluster(clusterArguments(words, last), outputs)
      : command === "export"
        ? await exportRun(exportArguments(words[0], last), outputs)
        : command === "train"
          ? await train(
              { config: words[0] ?? null, given, resume: flags.get("--resume")?.[0] ?? null },
              undefined,
              outputs,
            )
          : await showHistogram(
              {
                config: words[0] ?? null,
                given: new Map([...given].filter(([path]) => path !== "run.out" && path !== "mixing.bases")),
                rows: optionRows().filter(histogramTakes),
                ...histogramArguments({ ...last, mixture: flags.get("--mixture") }),
              },
              outputs,
            );
  return { code, out: out.text(), err: err.text() };
}

/** Returns the error with which a command is refused. */
async function refusal(...args: Parameters<typeof run>): Promise<string> {
  try {
    await run(...args);
  } catch (error) {
    if (error instanceof GradmixError) return error.message;
    throw error;
  }
  return "no error";
}

const json = (...path: string[]): unknown => JSON.parse(readFileSync(at(...path), "utf8"));
type Numbers = Record<string, number>;
const total = (numbers: Numbers): number => Object.values(numbers).reduce((a, b) => a + b, 0);

/** The topic that most documents of each cluster are of. */
function topicsOf(name: string): Map<string, number> {
  const { names, files } = readClusterFolder(at(name));
  const counts = names.map(() => new Array<number>(TOPICS).fill(0));
  files.forEach(({ ids }, f) => ids.forEach((id, i) => counts[id][truth[f][i]]++));
  return new Map(counts.map((own, j) => [names[j], own.indexOf(Math.max(...own))]));
}
const shareOf = (numbers: Numbers, topic: number, name = "clusters"): number => {
  const topics = topicsOf(name);
  return total(
    Object.fromEntries(Object.entries(numbers).filter(([cluster]) => topics.get(cluster) === topic)),
  );
};

const small = {
  model: { dim: 16, layers: 1, heads: 2, context: 32 },
  training: { steps: 20, batch: 4, warmup: 2 },
  run: { threads: 1, evalEvery: 0, checkpointEvery: 0, backend: "cpu" },
};

test("the command chain works: clusters, bases, a run that moves the weights of the bases, and its mixture of clusters", async () => {
  const config = {
    ...small,
    data: { domainsFrom: [at("clusters")], target: [at("target.jsonl")], tokenizer: "byte" },
    mixing: { bases: at("bases.json"), eta: 3, updateEvery: 4 },
    run: { ...small.run, out: at("run") },
  };
  writeFileSync(at("config.json"), JSON.stringify(config));
  const shown = await run("histogram", at("config.json"), "--groups", "2", "--bases", at("bases.json"));
  expect(shown.out).toMatch(
    /^of 36 pieces of 36 documents of the target; \d+ % of the shares come from the pieces/m,
  );
  const bases = json("bases.json") as Record<string, Numbers>;
  expect(Object.keys(bases).length).toBe(4);
  for (const basis of Object.values(bases)) expectNear(total(basis), 1, 1e-6);
  expectNear(shareOf(bases["target"], 2), 0.75, 0.2);
  expectNear(shareOf(bases["target"], 5), 0.25, 0.4);
  expectNear(shareOf(bases["corpus"], 2), 1 / TOPICS, 0.2);
  // The groups are the two topics of the target.
  const groups = Object.entries(bases).filter(([name]) => name.startsWith("group-"));
  for (const topic of [2, 5])
    expect(groups.filter(([, basis]) => shareOf(basis, topic) > 0.6).length).toBe(1);

  const trained = await run("train", at("config.json"));
  expect(trained.code).toBe(0);
  const weights = json("run", "weights.json") as { averaged: Numbers; bases: { averaged: Numbers } };
  expect(Object.keys(weights.bases.averaged)).toEqual(Object.keys(bases));
  expectNear(total(weights.averaged), 1, 1e-9);
  // For any weights of the bases, the clusters have the weights of their mixture.
  for (const name of Object.keys(weights.averaged))
    expectNear(
      weights.averaged[name],
      Object.entries(bases).reduce(
        (sum, [basis, own]) => sum + weights.bases.averaged[basis] * (own[name] ?? 0),
        0,
      ),
      1e-6,
      1,
    );
  expect((await run("export", at("run"), "--to", "csv", "--out", at("weights.csv"))).code).toBe(0);
  const rows = readFileSync(at("weights.csv"), "utf8").trim().split("\n");
  expect(rows.length).toBe(1 + Object.keys(weights.averaged).length);

  // The bases, and a histogram, of one clustering are not those of another.
  await run(
    "cluster",
    at("documents"),
    "--clusters",
    "5",
    "--dim",
    "8",
    "--seed",
    "4",
    "--out",
    at("others"),
  );
  const other = {
    ...config,
    data: { ...config.data, domainsFrom: [at("others")] },
    run: { ...config.run, out: at("x") },
  };
  writeFileSync(at("other.json"), JSON.stringify(other));
  expect(await refusal("train", at("other.json"))).toMatch(
    /bases\.json, line \d+: basis "target": there is no domain/,
  );
  await run("histogram", at("config.json"), "--out", at("shares.json"));
  writeFileSync(at("other.json"), JSON.stringify({ ...other, mixing: { histogram: at("shares.json") } }));
  expect(await refusal("train", at("other.json"))).toMatch(
    /^--histogram: "\d+-.*" is not a domain of this run; its domains are \d+-/,
  );
  expect(existsSync(at("x"))).toBe(false);
});

test("a run on clusters begins with the shares of the nearest centroids, or of bigrams if there is no embedder, and a line says which", async () => {
  const args = ["--domains", at("clusters"), "--target", at("target.jsonl"), "--tokenizer", "byte"];
  const flags = [
    "--dim",
    "16",
    "--layers",
    "1",
    "--heads",
    "2",
    "--context",
    "32",
    "--batch",
    "4",
    "--steps",
    "1",
    "--eval-every",
    "0",
    "--backend",
    "cpu",
    "--threads",
    "1",
  ];
  await run("train", ...args, ...flags, "--out", at("plain"));
  const shares = json("plain", "histogram.json") as Numbers;
  await run("histogram", ...args, "--out", at("shown.json"));
  const shown = json("shown.json") as Numbers;
  expect(Object.keys(shares)).toEqual(Object.keys(shown));
  expect(shares).toEqual(shown);

  // The written file can be used as fixed weights, and as a histogram.
  for (const [rule, flag] of [
    ["static", "--weights"],
    ["importanceSampling", "--histogram"],
  ] as const) {
    await run("train", ...args, ...flags, "--rule", rule, flag, at("shown.json"), "--out", at(rule));
    const { final } = json(rule, "weights.json") as { final: Numbers };
    expectNear(Object.values(final), Object.values(shown), 1e-9, 1);
  }

  cpSync(at("clusters"), at("blind"), { recursive: true });
  rmSync(at("blind", "embedder.safetensors"));
  const blind = ["--domains", at("blind"), "--target", at("target.jsonl"), "--tokenizer", "byte"];
  const { err } = await run("train", ...blind, ...flags, "--out", at("byBigrams"));
  expect(err).toContain("has no embedder of gradmix cluster, so the histogram is counted with bigrams");
  const byBigrams = json("byBigrams", "histogram.json") as Numbers;
  expect(shareOf(byBigrams, 2, "blind")).toBeGreaterThan(0.3);
  // The command counts as the run does.
  await run("histogram", ...blind, "--out", at("blind.json"));
  expect(json("blind.json")).toEqual(byBigrams);
  expect(await refusal("histogram", ...blind, "--bases", at("blind-bases.json"), "--groups", "2")).toMatch(
    /^--groups: grouping needs the embedder of gradmix cluster/,
  );

  // The clusters in the run's folder change.
  const { files } = readClusterFolder(at("blind"));
  const ids = at("blind", "ids", "shard_0.npy");
  const swapped = Int32Array.from(files[0].ids).reverse();
  writeFileSync(ids, encodeNpy({ shape: [swapped.length], values: swapped }));
  expect(await refusal("train", "--resume", at("byBigrams"), "--steps", "1")).toMatch(
    /^--resume: the text of domain ".*" has changed/,
  );
});

test("several targets and their mixtures become bases; a target without text is refused", async () => {
  const domains = ["--domains", at("clusters")];
  const targets = ["--targets", `exam=${at("target.jsonl")}`, "--targets", `mail=${at("other.jsonl")}`];
  const { out } = await run(
    "histogram",
    ...domains,
    ...targets,
    "--bases",
    at("several.csv"),
    "--mixture",
    "both=exam:3,mail",
  );
  expect(out).toMatch(/^exam\ndomain /m);
  const bases = new Map<string, Numbers>();
  for (const row of readFileSync(at("several.csv"), "utf8").trim().split("\n").slice(1)) {
    const [basis, domain, weight] = row.split(",");
    bases.set(basis, { ...bases.get(basis), [domain]: Number(weight) });
  }
  expect([...bases.keys()]).toEqual(["exam", "mail", "both", "corpus"]);
  for (const [domain, weight] of Object.entries(bases.get("both") ?? {}))
    expectNear(
      weight,
      0.75 * (bases.get("exam")?.[domain] ?? 0) + 0.25 * (bases.get("mail")?.[domain] ?? 0),
      1e-8,
      1,
    );

  const one = [...domains, "--target", at("target.jsonl")];
  writeFileSync(at("tokens.bin"), new Uint8Array(64));
  writeFileSync(at("drop.json"), '{"data":{"dropContaminated":true}}');
  for (const [args, message] of [
    [[...domains], /^gradmix histogram needs a target/],
    [
      [...domains, ...targets, "--out", at("x.json")],
      /^--out: holds the shares of one target, but there are 2/,
    ],
    [[...one, "--bases", at("x.txt")], /ends in neither \.json nor \.csv$/],
    [
      [...domains, "--targets", `corpus=${at("target.jsonl")}`, "--bases", at("x.json")],
      /^--targets: "corpus" is the name of the basis of all text/,
    ],
    [[at("drop.json"), ...one], /^--drop-contaminated: the histogram over clusters reads the target only/],
    [[...one, "--groups", "2"], /^--groups: the groups become bases/],
    [
      [...one, "--groups", "37", "--bases", at("x.json")],
      /^--groups: 36 documents of the target cannot make 37 groups/,
    ],
    [[...one, "--groups", "0", "--bases", at("x.json")], /^--groups: 0 is not/],
    [
      [
        "--domain",
        `a=${at("other.jsonl")}`,
        "--target",
        at("target.jsonl"),
        "--groups",
        "2",
        "--bases",
        at("x.json"),
      ],
      /^--groups: .* name a folder of gradmix cluster/,
    ],
    [
      [...one, "--mixture", "a=target", "--mixture", "a=target", "--bases", at("x.json")],
      /^--mixture: two mixtures have the name "a"$/,
    ],
    [
      [...one, "--mixture", "a=exam", "--bases", at("x.json")],
      /^--mixture: a: there is no target "exam"; the targets are target$/,
    ],
    [
      [...one, "--mixture", "target=target", "--bases", at("x.json")],
      /^--mixture: a target is called "target"/,
    ],
    [
      [...one, "--mixture", "a=target:0", "--bases", at("x.json")],
      /^--mixture: "a=target:0" is not NAME=A:X,B:Y/,
    ],
    [[...one, "--mixture", "a=target"], /^--mixture: the mixture becomes a basis/],
    [
      [...one, "--domains", at("documents")],
      /a folder of clusters cannot be combined with other domains; leave out/,
    ],
    [[...domains, "--target", at("tokens.bin")], /tokens\.bin: holds tokens/],
  ] as const)
    expect(await refusal("histogram", ...args), args.join(" ")).toMatch(message);
  for (const name of ["x.json", "x.txt"]) expect(existsSync(at(name))).toBe(false);
});

describe("clusters made elsewhere", () => {
  /** Given clusters of each document, by file. */
  const given = (values: Readonly<Record<string, readonly number[]>>): string => {
    const ids = mkdtempSync(at("ids-"));
    for (const [name, numbers] of Object.entries(values))
      writeFileSync(
        join(ids, name),
        encodeNpy({ shape: [numbers.length], values: Int32Array.from(numbers) }),
      );
    return ids;
  };

  test("in WebOrganizer's layout become a normal folder of clusters, with sizes, words and centroids", async () => {
    // A document without text has an id too.
    const text = readFileSync(at("documents", "shard_0.jsonl"), "utf8");
    mkdirSync(at("annotated"));
    writeFileSync(at("annotated", "shard_0.jsonl"), `{"text":""}\n${text}`);
    copyFileSync(at("documents", "shard_1.jsonl"), at("annotated", "shard_1.jsonl"));
    const ids = given({ "shard_0__choice.npy": [9, ...truth[0]], "shard_1.npy": truth[1] });
    const { code, err } = await run(
      "cluster",
      at("annotated"),
      "--ids",
      ids,
      "--clusters",
      "10",
      "--dim",
      "16",
      "--out",
      at("taken"),
    );
    expect(code).toBe(0);
    // Topics are far apart.
    expect(Number(/nearest centroid in the right cluster for (\d+) %/.exec(err)?.[1])).toBeGreaterThan(90);
    const { clusters, files } = readClusterFolder(at("taken"));
    expect(files.map((file) => Array.from(file.ids))).toEqual(truth);
    expect(clusters.map(({ documents }) => documents)).toEqual([20, 20, 20, 20, 20, 20, 20, 20, 0, 0]);
    expect([...topicsOf("taken").values()].slice(0, 8)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    cpSync(at("taken"), at("taken without ids"), { recursive: true });
    rmSync(at("taken without ids", "ids"), { recursive: true });
    expect(() => readClusterFolder(at("taken without ids"))).toThrow(
      /ids.*\.npy: cannot be read \(no such file or folder\)/,
    );
    await run(
      "histogram",
      "--domains",
      at("taken"),
      "--target",
      at("target.jsonl"),
      "--out",
      at("ofTaken.json"),
    );
    const shares = json("ofTaken.json") as Numbers;
    // Empty clusters are not domains.
    expect(Object.keys(shares).length).toBe(8);
    expectNear(shareOf(shares, 2, "taken"), 0.75, 0.2);
  });

  test("of files with the same name belong to the right one; one .npy never serves two files", async () => {
    // The topics of the second file are those of the first in reverse.
    const topics = [truth[0], truth[0].toReversed()];
    const files = ["d1", "d2"].map((name, f) => {
      mkdirSync(at("same", name), { recursive: true });
      writeFileSync(at("same", name, "x.jsonl"), lines(topics[f].map(about)));
      return at("same", name, "x.jsonl");
    });
    const args = (ids: string): string[] => ["--ids", ids, "--dim", "16", "--out"];
    const ids = given({ "x.npy": topics[0], "x-2.npy": topics[1] });
    await run("cluster", ...files, ...args(ids), at("same-1"));
    const found = (out: string) =>
      readClusterFolder(at(out)).files.map((file) => [file.path, Array.from(file.ids)]);
    expect(found("same-1")).toEqual(files.map((file, f) => [file, topics[f]]));
    // What gradmix itself wrote says which file each .npy belongs to, also for some of the files.
    await run("cluster", files[1], ...args(at("same-1", "ids")), at("same-2"));
    expect(found("same-2")).toEqual([[files[1], topics[1]]]);

    const one = given({ "x.npy": topics[0] });
    expect(await refusal("cluster", ...files, ...args(one), at("x"))).toBe(
      `--ids ${one}: has no x-2.npy for the documents of ${files[1]}; x.npy is for another file of that name`,
    );
    copyFileSync(files[0], at("same", "x__a.jsonl"));
    const more = [files[0], at("same", "x__a.jsonl")];
    const both = given({ "x__a__choice.npy": topics[0] });
    expect(await refusal("cluster", ...more, ...args(both), at("x"))).toBe(
      `--ids ${both}: x__a__choice.npy fits the names of ${more[0]} and ${more[1]}, but has the documents of one file; rename one of them`,
    );
    const apart = given({ "x.npy": topics[0], "x__a.npy": topics[0] });
    await run("cluster", ...more, ...args(apart), at("same-3"));
    expect(existsSync(at("x"))).toBe(false);
  });

  test("are refused by file and number if they do not fit, and nothing is written", async () => {
    const good = { "shard_0.npy": truth[0], "shard_1.npy": truth[1] };
    const floats = given(good);
    writeFileSync(join(floats, "shard_1.npy"), encodeNpy({ shape: [80], values: new Float32Array(80) }));
    const table = given(good);
    writeFileSync(join(table, "shard_1.npy"), encodeNpy({ shape: [40, 2], values: new Int32Array(80) }));
    const cut = given(good);
    writeFileSync(join(cut, "shard_1.npy"), readFileSync(join(cut, "shard_0.npy")).subarray(0, 200));
    for (const [ids, args, message] of [
      [
        given({ "shard_0.npy": truth[0] }),
        [],
        /^--ids .*: has no shard_1\.npy for the documents of .*shard_1\.jsonl$/,
      ],
      [
        given({ ...good, "shard_1__b.npy": truth[1] }),
        [],
        /has shard_1\.npy and shard_1__b\.npy for the documents of/,
      ],
      [
        given({ ...good, "shard_1.npy": truth[1].slice(1) }),
        [],
        /shard_1\.npy: has 79 ids, but .*shard_1\.jsonl has 80 documents$/,
      ],
      [
        given({ ...good, "shard_1.npy": [...truth[1], 0] }),
        [],
        /shard_1\.npy: has 81 ids, but .*shard_1\.jsonl has 80 documents$/,
      ],
      [
        given({ ...good, "shard_1.npy": truth[1].with(5, -1) }),
        [],
        /shard_1\.npy: document 5 is in cluster -1, but clusters go from 0 to/,
      ],
      [
        given(good),
        ["--clusters", "7"],
        /shard_0\.npy: document \d+ is in cluster 7, but clusters go from 0 to 6$/,
      ],
      [floats, [], /shard_1\.npy: holds numbers with fractions of the shape \(80\)/],
      [table, [], /shard_1\.npy: holds whole numbers of the shape \(40, 2\)/],
      [cut, [], /shard_1\.npy: has \d+ bytes of numbers/],
      [at("nowhere"), [], /^--ids: .*nowhere is not a readable folder$/],
      [given(good), ["--levels", "2,2"], /^--ids and --levels/],
    ] as const)
      expect(await refusal("cluster", at("documents"), "--ids", ids, ...args, "--out", at("x"))).toMatch(
        message,
      );
    expect(await refusal("cluster", at("documents"), "--tokenizer", "bpe", "--out", at("x"))).toMatch(
      /^--tokenizer: "bpe" is not/,
    );
    expect(existsSync(at("x"))).toBe(false);
  });
});

describe("the folder", () => {
  test("has correct sizes, ids in files named like their inputs, and a page with all clusters and sample texts", async () => {
    const { files, clusters, names } = readClusterFolder(at("clusters"));
    const bytes = [0, 1].map((f) => readFileSync(at("documents", `shard_${f}.jsonl`), "utf8"));
    const texts = bytes.map((text) => text.trim().split("\n").map((line) => (JSON.parse(line) as { text: string }).text)); // prettier-ignore
    clusters.forEach((own, j) => {
      const of = texts.flatMap((list, f) => list.filter((_, i) => files[f].ids[i] === j));
      const size = of.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
      // A byte is a token, and each document ends with one.
      expect(own).toEqual({ documents: of.length, bytes: size, tokens: size + of.length });
    });
    for (const [f, name] of ["shard_0.npy", "shard_1.npy"].entries())
      expect(decodeNpy(readFileSync(at("clusters", "ids", name)), name).values).toEqual(files[f].ids);
    const page = readFileSync(at("clusters", "clusters.html"), "utf8");
    const data = JSON.parse(
      /<script type="application\/json" id="data">(.*)<\/script>/.exec(page)?.[1] ?? "",
    ) as {
      rows: { name: string; documents: number; examples: string[] }[];
    };
    expect(data.rows.map(({ name }) => name).sort()).toEqual([...names].sort());
    for (const { name, documents, examples } of data.rows) {
      expect(examples.length).toBe(Math.min(3, documents));
      const j = names.indexOf(name);
      const own = texts.flatMap((list, f) => list.filter((_, i) => files[f].ids[i] === j));
      for (const one of examples)
        expect(own.some((text) => text.startsWith(one.replace("…", "")))).toBe(true);
    }
    await expect(
      report(
        { runs: [at("clusters")], out: null, svg: null, tensorboard: null, csv: false },
        openOutput(new Writable()),
      ),
    ).rejects.toThrow(
      /clusters is a folder of clusters, not of a run; open its page instead: .*clusters\.html/,
    );
  });

  test("gives gradmix mix its domains and their tokens", async () => {
    const flags = (own: Partial<MixFlags>): MixFlags => ({
      ...{
        domains: null,
        sizes: null,
        stateFile: null,
        weightsFile: null,
        listen: null,
        tokenFile: null,
        replay: null,
      },
      ...own,
    });
    const replay = at("observed.jsonl");
    const { names, clusters } = readClusterFolder(at("clusters"));
    writeFileSync(replay, "");
    const err = openOutput(new Writable({ write: (_chunk, _encoding, done) => done() }));
    const given = new Map([
      ["mixing.repetitionCap", ["2"]],
      ["training.tokens", [String(10 ** 9)]],
      ["mixing.rule", ["uniform"]],
    ]);
    // There is too little text for so many tokens; this message shows that the sizes are known.
    const all = clusters.reduce((sum, { tokens }) => sum + (tokens ?? 0), 0);
    await expect(
      mix({ config: null, given, flags: flags({ domains: at("clusters"), replay }) }, err),
    ).rejects.toMatchObject({
      message: expect.stringContaining(
        `with these repetitions the domains have ${(2 * all).toLocaleString("en")} tokens`,
      ),
    });
    writeFileSync(
      at("mix.json"),
      JSON.stringify({
        data: { domainsFrom: [at("clusters")] },
        mixing: { weights: { [names[0]]: 1 }, rule: "static" },
      }),
    );
    await expect(
      mix({ config: at("mix.json"), given: new Map(), flags: flags({ replay }) }, err),
    ).rejects.toMatchObject({
      message: expect.stringContaining(`gives no weight to the domain "${names[1]}"`),
    });
  });
});
