/** `gradmix export`: where files are written, which messages go where, and refusals that write nothing. */
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
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ExportArguments, exportRun } from "#dist/cli/export-command.js";
import type { Output } from "#dist/cli/output.js";
import { GradmixError } from "#dist/errors.js";

let folder = "";
const at = (...path: string[]): string => join(folder, ...path);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-export-"));
  const facts = { files: 1, documents: 4, tokens: 300, heldOutTokens: 100, heldOutBytes: 400, sha256: "x" };
  const run = {
    ...{
      version: 1,
      gradmix: "0.1.0",
      node: "v20",
      backend: "cpu",
      simd: "relaxed",
      precision: "f32",
      threads: 1,
    },
    ...{
      rule: "dga",
      seed: 1,
      dataSeed: 1,
      evaluatedTokens: null,
      steps: 2,
      batch: 4,
      context: 16,
      parameters: 1,
      vocabSize: 256,
      repetitions: 8,
    },
    ...{ cost: { alignment: 0, evaluation: 0 }, target: facts, targets: {}, bases: null },
    // Names that an object of JSON.parse would reorder.
    domains: { web: facts, "7": facts },
  };
  const line = (step: number, weights: object): string =>
    JSON.stringify({
      step,
      tokens: 64 * step,
      loss: 1,
      gradNorm: 1,
      lr: 1,
      seconds: 1,
      weights,
      domains: {},
    });
  for (const [name, weights] of [
    ["run", '{"final":{"web":0.5,"7":0.5},"averaged":{"web":0.7,"7":0.3}}'],
    ["going", null],
  ] as const) {
    mkdirSync(at(name));
    writeFileSync(at(name, "config.json"), "{}");
    writeFileSync(
      at(name, "run.json"),
      JSON.stringify(run).replace(
        /"domains":\{.*?\}\}/,
        `"domains":{"web":${JSON.stringify(facts)},"7":${JSON.stringify(facts)}}`,
      ),
    );
    writeFileSync(
      at(name, "metrics.jsonl"),
      `${line(1, { web: 0.9, "7": 0.1 })}\n${line(2, { web: 0.5, "7": 0.5 })}\n`,
    );
    if (weights !== null) writeFileSync(at(name, "weights.json"), weights);
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

const nothing: ExportArguments = {
  ...{ run: null, to: null, out: null, weights: null, stages: null, scaleTo: null },
  ...{ context: null, batch: null, rows: null, floor: null, map: [], mapFile: null },
};

async function exported(
  given: Partial<ExportArguments>,
): Promise<{ code: number; out: string; err: string }> {
  const texts = { out: "", err: "" };
  const output = (to: "out" | "err"): Output => ({
    ...{ isTTY: false, columns: undefined, behind: false, lost: null },
    write: (text) => void (texts[to] += text),
    deliver: (text) => Promise.resolve(void (texts[to] += text)),
    flush: () => Promise.resolve(true),
  });
  const code = await exportRun({ ...nothing, ...given }, { out: output("out"), err: output("err") });
  return { code, ...texts };
}

const run = (): Pick<ExportArguments, "run"> => ({ run: at("run") });
const both = ["web=/data/web", "7=/data/seven"];

describe("gradmix export", () => {
  test("prints one file with the averaged weights, and its notes on standard error", async () => {
    const { code, out, err } = await exported({ ...run(), to: "levanter" });
    expect(code).toBe(0);
    expect(out).toMatch(/^# gradmix 0\.1\.0: averaged weights of run "run", step 2, rule dga\n/);
    expect(out).toContain('\ndata:\n  train_weights:\n    web: 0.7001953125\n    "7": 0.2998046875\n');
    expect(err).toContain('averaged weights of run "run"');
    expect((await exported({ ...run(), to: "levanter", weights: "final" })).out).toContain("web: 0.5\n");
  });

  test("refuses every option that a missing --to makes useless, and lists the formats without any", async () => {
    const values: Partial<ExportArguments> = {
      ...{ out: "x", weights: "final", stages: "2", scaleTo: "3B", context: "8", batch: "2" },
      ...{ rows: "windows", floor: "0.1", map: ["web=x"], mapFile: "x.csv" },
    };
    for (const [name, value] of Object.entries(values))
      await expect(exported({ ...run(), [name]: value })).rejects.toMatchObject({
        code: "config",
        message: `--${name.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`)}: the format is missing; add --to FORMAT (gradmix export without options lists the formats)`,
      });
    const { code, out } = await exported(run());
    expect([code, out]).toEqual([0, expect.stringMatching(/^levanter +\S/m)]);
  });

  test("writes one file to the given path, or a format's files into a folder; a format without comments gets a file of notes", async () => {
    await exported({ ...run(), to: "olmo-core", map: both, out: at("a", "mine.yaml") });
    expect(readdirSync(at("a"))).toEqual(["mine.yaml"]);
    await exported({ ...run(), to: "maxtext", map: both, out: at("b", "mine.json") });
    expect(readdirSync(at("b")).sort()).toEqual(["mine.json", "mine.json.gradmix.json"]);
    const { err } = await exported({ ...run(), to: "megatron", map: both, out: at("c") });
    expect(readdirSync(at("c")).sort()).toEqual([
      "data-args.txt",
      "data-path.sh",
      "mixture.gradmix.json",
      "per-split.json",
    ]);
    expect(err).toContain(`written: ${at("c", "data-args.txt")}\n`);
    expect(readFileSync(at("c", "data-args.txt"), "utf8")).toBe("0.7 /data/web 0.3 /data/seven\n");
    // A folder that is there takes one file too.
    await exported({ ...run(), to: "regmix", out: at("c") });
    expect(existsSync(at("c", "mixture.yaml"))).toBe(true);
  });

  test("names the files of an earlier export with other stages, which the trainer would still find", async () => {
    const megatron = async (more: Partial<ExportArguments>): Promise<string> =>
      (await exported({ ...run(), to: "megatron", map: both, out: at("staged"), ...more })).err;
    const staged = { stages: "2", scaleTo: "100steps" };
    for (let turn = 0; turn < 2; turn++) expect(await megatron(staged)).not.toContain("not of this export");
    const files = ["data-args", "data-path", "per-split"].flatMap((name) =>
      [1, 2].map((stage) =>
        at("staged", `${name}.stage-${stage}.${{ "data-args": "txt", "data-path": "sh" }[name] ?? "json"}`),
      ),
    );
    expect(await megatron({})).toContain(
      `not of this export, but of one with other stages: ${files.join(", ")}; delete them\n`,
    );
    expect(await megatron(staged)).toContain(`: ${["data-args.txt", "data-path.sh", "per-split.json"].map((name) => at("staged", name)).join(", ")}; delete`); // prettier-ignore
  });

  test("several files are written together or not at all", async () => {
    mkdirSync(at("half", "per-split.json"), { recursive: true });
    const error: unknown = await exported({ ...run(), to: "megatron", map: both, out: at("half") }).catch(
      (reason: unknown) => reason,
    );
    expect((error as GradmixError).message).toContain("per-split.json: cannot be written (it is a folder)");
    expect(readdirSync(at("half"))).toEqual(["per-split.json"]);
  });

  test("exports stages, and a run scaled to another length in tokens or steps", async () => {
    const nanotron = async (scaleTo: string): Promise<string[]> => {
      const { out } = await exported({
        ...run(),
        to: "nanotron",
        map: both,
        stages: "2",
        scaleTo,
        context: "100",
        batch: "10",
      });
      return out.match(/(?<=start_training_step: )\d+/g) ?? [];
    };
    expect(await nanotron("1000steps")).toEqual(["1", "501"]);
    expect(await nanotron("1 step")).toEqual(["1"]);
    expect(await nanotron("1M")).toEqual(["1", "501"]);
    expect(await nanotron("0.002B")).toEqual(["1", "1001"]);
  });

  test("takes the size of a step for a length in steps, also where the format does not need it", async () => {
    const tokens = async (given: Partial<ExportArguments>): Promise<unknown> =>
      (JSON.parse((await exported({ ...run(), to: "json", ...given })).out) as { tokens: unknown }).tokens;
    expect(await tokens({ scaleTo: "10steps", context: "100", batch: "20" })).toBe(20_000);
    expect(await tokens({ scaleTo: "10 steps" })).toBe(10 * 4 * 16);
    for (const [scaleTo, wanted] of [
      ["2.30B", 2.3e9],
      ["100", 100],
      ["10.0steps", 640],
      ["4.35k", 4350],
    ] as const)
      expect(await tokens({ scaleTo })).toBe(wanted);
    // A step's size is used, and so is a side file's.
    const csv = { ...run(), to: "csv", batch: "20" };
    expect((await exported({ ...csv, scaleTo: "10steps" })).code).toBe(0);
    expect((await exported({ ...csv, out: at("side.csv") })).code).toBe(0);
    expect(readFileSync(at("side.csv.gradmix.json"), "utf8")).toContain('"batch": 20');
  });

  test("takes paths from JSON and CSV, which --map overrides", async () => {
    writeFileSync(at("map.json"), '{"7": ["/json/a", "/json/b"], "web": "/json/web"}');
    writeFileSync(at("map.csv"), '\uFEFFname,path\r\nweb,"/csv/a, ""b"""\r\n7,/csv/x\r\n7,/csv/y\r\n');
    const of = async (mapFile: string, map: readonly string[] = []): Promise<string> =>
      (await exported({ ...run(), to: "olmo-core", mapFile, map })).out;
    expect(await of(at("map.json"))).toContain('paths: ["/json/a", "/json/b"]');
    const csv = await of(at("map.csv"));
    expect(csv).toContain('paths: ["/csv/a, \\"b\\""]');
    expect(csv).toContain('paths: ["/csv/x", "/csv/y"]');
    expect(await of(at("map.json"), ["7=/flag"])).toContain('paths: ["/flag"]');
  });

  test("refuses in one line each, and writes nothing", async () => {
    writeFileSync(at("bad.csv"), "web,/x\n7\n");
    writeFileSync(at("file"), "");
    const before = readdirSync(folder).sort();
    const refused: [Partial<ExportArguments>, RegExp][] = [
      [{ to: "json" }, /name the folder of a run/],
      [{ run: at("none"), to: "json" }, /contains no run/],
      [{ run: at("going"), to: "json" }, /has no weights yet/],
      [{ ...run(), to: "megatorn" }, /did you mean megatron\?/],
      [{ ...run(), to: "mosaic", map: ["web=/x"] }, /no path|none for "7"/],
      [{ ...run(), to: "mosaic", map: ["wbe=/x"] }, /--map: the run has no domain "wbe"; did you mean web\?/],
      [{ ...run(), to: "mosaic", map: ["web"] }, /NAME=/],
      [{ ...run(), to: "mosaic", mapFile: at("bad.csv") }, /bad\.csv, line 2/],
      [{ ...run(), to: "mosaic", mapFile: at("none.json") }, /cannot be read/],
      [{ ...run(), to: "levanter", stages: "-1" }, /--stages: -1 is not a whole number of at least 1/],
      [{ ...run(), to: "levanter", stages: "2.5" }, /--stages/],
      [{ ...run(), to: "levanter", stages: "2", weights: "final" }, /leave out one of the two/],
      [{ ...run(), to: "olmix", stages: "2" }, /cannot change during a run/],
      [{ ...run(), to: "levanter", weights: "last" }, /--weights: "last" is not one of final, averaged/],
      [{ ...run(), to: "levanter", scaleTo: "much" }, /--scale-to: "much"/],
      [{ ...run(), to: "levanter", scaleTo: "0" }, /--scale-to/],
      ...["2.5", "10.5steps", "1.2345k", "0.5"].map((scaleTo): [Partial<ExportArguments>, RegExp] => [
        { ...run(), to: "csv", scaleTo },
        /--scale-to: ".*" is not a whole number of tokens/,
      ]),
      [
        { ...run(), to: "csv", batch: "7", out: null },
        /--batch: of csv, only the side file that --out writes holds it/,
      ],
      [
        { ...run(), to: "doremi", context: "7", scaleTo: "9M", out: null },
        /--context: of doremi, only the side file/,
      ],
      [{ ...run(), to: "levanter", batch: "0" }, /--batch/],
      [{ ...run(), to: "levanter", batch: "8" }, /levanter: the option batch has no effect/],
      [{ ...run(), to: "json", context: "8", scaleTo: "9M" }, /json: the option context has no effect/],
      [{ ...run(), to: "levanter", floor: "-1" }, /--floor/],
      [{ ...run(), to: "hf-datasets", rows: "lines" }, /--rows: "lines" is not one of documents, windows/],
      [{ ...run(), to: "megatron", map: both }, /name a folder for them: --out DIR/],
      [{ ...run(), to: "megatron", map: both, out: at("file") }, /is a file/],
    ];
    for (const [given, why] of refused) {
      const out = given.out === undefined && given.to !== "megatron" ? { out: at("never") } : {};
      const error: unknown = await exported({ ...out, ...given }).catch((reason: unknown) => reason);
      expect(error, String(why)).toBeInstanceOf(GradmixError);
      expect((error as GradmixError).message).toMatch(why);
      expect((error as GradmixError).message).not.toContain("\n");
    }
    expect(readdirSync(folder).sort()).toEqual(before);
  });

  test("as a command, takes a list of formats, and refuses in one line with exit code 2", () => {
    const gradmix = (...args: string[]) =>
      spawnSync(
        process.execPath,
        [resolve(import.meta.dirname, "../../dist/cli/main.js"), "export", ...args],
        { encoding: "utf8" },
      );
    const list = gradmix();
    expect(list.status).toBe(0);
    expect(list.stdout).toMatch(/^megatron +\S.*\n[^]*^json +\S/m);
    const { status, stdout, stderr } = gradmix(at("run"), "--to", "yaml");
    expect({ status, stdout, lines: stderr.trimEnd().split("\n").length }).toEqual({
      status: 2,
      stdout: "",
      lines: 1,
    });
    const { stdout: printed } = gradmix(at("run"), "--to", "doremi", "--weights", "final");
    expect(JSON.parse(printed)).toEqual({ train_domain_weights: { web: 0.5, "7": 0.5 } });
  });
});
