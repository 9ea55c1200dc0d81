/** `gradmix histogram`, and runs of a rule that counts its histogram itself: the same shares in all places, and refusals. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { formatTable } from "#dist/cli/histogram-command.js";
import { histogramLine } from "#dist/cli/histogram.js";
import { savedNumbers } from "#dist/cli/saved-numbers.js";
import { domainHistograms } from "#dist/cli/histograms.js";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { planMixing } from "#dist/cli/mixing.js";
import { contradictedAfter } from "#dist/cli/loop.js";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { runCommand } from "./served.ts";

let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-histogram-"));
  const lines = (words: string, n: number): string =>
    Array.from({ length: n }, (_, i) =>
      JSON.stringify({ text: `${words} ${(i * 7919) % 97}. `.repeat(3) }),
    ).join("\n");
  writeFileSync(join(folder, "prose.jsonl"), lines("the dog sleeps while the quick fox jumps over it", 60));
  writeFileSync(join(folder, "code.jsonl"), lines("for (let i = 0; i < n; i++) sum += items[i]", 40));
  // Names that an object would reorder.
  writeFileSync(join(folder, "7.jsonl"), lines("one, two, three, four, five, six, seven", 40));
  const target = [lines("while (j < n) total += items[j++]", 18), lines("one, two, four, six", 18)];
  writeFileSync(join(folder, "target.jsonl"), target.join("\n"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

const domains = ["prose", "code", "7"].flatMap((name) => ["--domain", `${name}=${name}.jsonl`]);
const data = [...domains, "--target", "target.jsonl", "--tokenizer", "byte", "--context", "16"];
const small =
  "--dim 16 --layers 1 --heads 2 --batch 4 --eval-tokens 64 --eval-every 0 --checkpoint-every 3 --warmup 2 --threads 1".split(
    " ",
  );
const sampling = [...data, ...small, "--rule", "importanceSampling"];

function gradmix(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = runCommand(args, { cwd: folder });
  return { code: status, out: stdout, err: stderr };
}

const text = (...path: string[]): string => readFileSync(join(folder, ...path), "utf8");
const numbersOf = (json: string): Record<string, number> => JSON.parse(json) as Record<string, number>;

test("an interruption ends the counting of the target's histogram", async () => {
  const of = (name: string): string => join(folder, `${name}.jsonl`);
  const config = resolveConfig([
    jsonLayer(
      {
        data: { domains: { prose: of("prose"), code: of("code") }, target: of("target"), tokenizer: "byte" },
        model: { context: 16 },
      },
      "c.json",
    ),
  ]);
  const controller = new AbortController();
  const reason = new Error("Ctrl-C");
  const told: string[] = [];
  const hooks = {
    signal: controller.signal,
    onInputs: () => {},
    onEvent(line: string) {
      told.push(line);
      // All text is read by then.
      if (line.startsWith("training tokens")) controller.abort(reason);
    },
  };
  await expect(domainHistograms(config, 1, hooks)).rejects.toBe(reason);
  expect(told.at(-1)).toMatch(/^training tokens/);
  const { targets } = await domainHistograms(config, 1, {
    onEvent: () => {},
    onInputs: () => {},
    signal: new AbortController().signal,
  });
  expect(targets.map(({ name }) => name)).toEqual(["target"]);
});

describe("gradmix histogram", () => {
  let printed = "";
  test("prints one line per domain, the largest first, and writes the shares in the same order", () => {
    const { code, out, err } = gradmix("histogram", ...data, "--out", "new/shares.json");
    expect(code).toBe(0);
    expect(err).toMatch(/^training tokens: .*; target [\d,]+\n$/m);
    printed = out;
    const rows = [...out.matchAll(/^(\S+) +(\d\.\d{4}) +± \d\.\d{3} +(\d+)$/gm)].map(([, name, ...x]) => [name, ...x.map(Number)]); // prettier-ignore
    expect(new Set(rows.map(([name]) => name))).toEqual(new Set(["7", "code", "prose"]));
    const sorted = rows.map(([, share]) => Number(share));
    expect(sorted).toEqual(sorted.toSorted((a, b) => b - a));
    expect(out).toMatch(/^of \d+ windows of the target\nwritten to new\/shares\.json\n$/m);
    const windows = Number(/of (\d+) windows/.exec(out)?.[1]);
    expect(rows.reduce((sum, [, , count]) => sum + Number(count), 0)).toBe(windows);
    // As text, which keeps the order.
    const written = text("new", "shares.json");
    expect([...written.matchAll(/"(\w+)":/g)].map(([, name]) => name)).toEqual(["prose", "code", "7"]);
    const shares = numbersOf(written);
    expectNear(Object.values(shares).reduce((a, b) => a + b), 1, 1e-12); // prettier-ignore
    for (const [name, share] of rows) expectNear(shares[name], Number(share), 5.1e-5, 1);
    expect(shares["prose"]).toBeLessThan(0.2);
    expect(shares["code"]).toBeGreaterThan(0.25);
    expect(shares["7"]).toBeGreaterThan(0.25);
  });

  test("its file can be used as a histogram and as initial weights", () => {
    writeFileSync(join(folder, "given.json"), '{ "prose": 0.125, "code": 0.5, "7": 0.375 }');
    for (const args of [
      ["--rule", "importanceSampling", "--histogram", "given.json"],
      ["--rule", "static", "--weights", "given.json"],
    ]) {
      const out = `from-${args[1]}`;
      expect(gradmix("train", ...data, ...small, ...args, "--steps", "1", "--out", out).code).toBe(0);
      const { final } = JSON.parse(text(out, "weights.json")) as { final: Record<string, number> };
      expect(final).toEqual({ prose: 0.125, code: 0.5, "7": 0.375 });
      // Given shares are not written as counted ones.
      expect(existsSync(join(folder, out, "histogram.json"))).toBe(false);
    }
  });

  test("histogram and prepare take the config.json that a run writes, which holds every option", () => {
    const config = join("from-importanceSampling", "config.json");
    const run = JSON.parse(text(config)) as { data: { targets: unknown } };
    expect(run.data.targets).toEqual({});
    const found = gradmix("histogram", config, "--out", "again.json");
    expect([found.code, found.out.split("\nwritten")[0]]).toEqual([0, printed.split("\nwritten")[0]]);
    expect(text("again.json")).toBe(text("new/shares.json"));
    expect(gradmix("prepare", config, "--out", "prepared")).toMatchObject({ code: 0 });
    const prepared = gradmix("histogram", "--domains", "prepared", "--context", "16", "--out", "third.json");
    expect(prepared.code).toBe(0);
    expect(text("third.json")).toBe(text("again.json"));
  });

  test("uses only the text options of a run's config file, and the tokenizer of a model", () => {
    const config = {
      data: { domains: { prose: "prose.jsonl", code: "code.jsonl", 7: "7.jsonl" }, target: "target.jsonl" },
      model: { context: 16, dim: 48, heads: 5, initFrom: "from-static" },
      mixing: { rule: "grape" },
    };
    writeFileSync(join(folder, "c.json"), JSON.stringify(config));
    const { code, out, err } = gradmix("histogram", "c.json", "--quiet");
    expect([code, err]).toEqual([0, ""]);
    const rows = (table: string): string[] =>
      table.split("\n").filter((line) => /^\S+ +[\d.]+ +± [\d.]+ +\d+$/.test(line));
    expect(rows(out)).toEqual(rows(printed));
    expect(rows(out).length).toBe(3);
  });

  test.each<[string[], RegExp]>([
    [["--target", "target.jsonl"], /no domain was given/],
    [[...domains], /^gradmix: gradmix histogram needs a target: add --target GLOB, or --targets NAME=GLOB/],
    [[...domains, "--target", "none.jsonl"], /none\.jsonl/],
    [[...data, "--lr", "1"], /^gradmix: unknown option --lr/],
    [[...data, "--vocab-sise", "300"], /did you mean --vocab-size\?/],
    [[...data, "--out", "prose.jsonl/shares.json"], /prose\.jsonl\/shares\.json/],
  ])("refuses %j", (args, message) => {
    const before = readdirSync(folder);
    const { code, out, err } = gradmix("histogram", ...args);
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(message);
    expect(readdirSync(folder)).toEqual(before);
  });

  test("the table is as wide as its names need", () => {
    const found = {
      shares: Float64Array.of(0.25, 0.75),
      standardErrors: Float64Array.of(NaN, 0.05),
      counts: Float64Array.of(0, 1),
      counted: "best windows",
      about: ["of 1 window of the target"],
    };
    const table = formatTable(["a", "中文"], found);
    expect(table.split("\n")).toEqual([
      "domain   share    error  best windows",
      "中文    0.7500  ± 0.050             1",
      "a       0.2500        –             0",
      "of 1 window of the target",
      "",
    ]);
    expect(formatTable(["a", "中文"], found, 1).split("\n").slice(1, 3)).toEqual([
      "中文    0.7500  ± 0.050             1",
      "and 1 more with 0.2500 together",
    ]);
  });

  test("the line of a run names the domains with the largest shares", () => {
    const shares = new Map([["small", 0.001], ["big", 0.9], ["b", 0.03], ["c", 0.02], ["d", 0.02], ["e", 0.015], ["f", 0.014]]); // prettier-ignore
    expect(histogramLine(shares)).toBe("histogram of the target: big 0.90, b 0.03, c 0.02, d 0.02, e 0.01, f 0.01 and 1 more"); // prettier-ignore
    expect(histogramLine(new Map([["a", 1]]))).toBe("histogram of the target: a 1.00");
  });
});

describe("a run that counts its histogram", () => {
  test("draws by the shares that the command shows, saves and reports them, and resumes to the same bits", () => {
    const steady = [...sampling, "--schedule", "constant"];
    const whole = gradmix("train", ...steady, "--steps", "6", "--out", "whole");
    expect(whole.code).toBe(0);
    expect(whole.err).toMatch(/^histogram of the target: (code|7) 0\.\d\d, .*prose 0\.\d\d$/m);
    const counted = text("whole", "histogram.json");
    expect(counted).toBe(text("new", "shares.json"));
    const { final } = JSON.parse(text("whole", "weights.json")) as { final: Record<string, number> };
    for (const [name, share] of Object.entries(numbersOf(counted))) expectNear(final[name], share, 1e-12, 1);

    gradmix("train", ...steady, "--steps", "3", "--out", "parts");
    const checkpoint = readdirSync(join(folder, "parts", "checkpoints"))[0] ?? "";
    const saved = readFileSync(join(folder, "parts", "checkpoints", checkpoint)).toString("latin1");
    for (const share of Object.values(numbersOf(counted))) expect(saved).toContain(String(share));
    // It continues with the histogram of its checkpoint, and restores the missing file.
    rmSync(join(folder, "parts", "histogram.json"));
    const { code, err } = gradmix("train", "--resume", "parts", "--steps", "6");
    expect(code).toBe(0);
    expect(err).toContain("histogram of the target: ");
    expect(text("parts", "histogram.json")).toBe(counted);
    for (const file of ["weights.json", "model/model.safetensors"])
      expect(text("parts", file)).toBe(text("whole", file));
  });

  test("needs a histogram or a target", () => {
    const none = gradmix("train", ...domains, ...small, "--rule", "importanceSampling");
    expect([none.code, none.err]).toEqual([
      2,
      "gradmix: --rule importanceSampling needs a target: add --target GLOB, or a histogram of it with --histogram NAME=X,NAME=X\n",
    ]);
    writeFileSync(join(folder, "bases.json"), JSON.stringify({ left: { prose: 1 }, right: { code: 1 } }));
    const bases = gradmix("train", ...sampling, "--bases", "bases.json");
    expect(bases.code).toBe(2);
    expect(bases.err).toMatch(/needs a histogram of the target over the bases/);
  });
});

test("a run says when its measurements correct the histogram, also if it is resumed", () => {
  const training = ["--histogram", "prose=1", "--update-every", "2", "--schedule", "constant"];
  // With all parameters aligned, this text contradicts the histogram once and for good.
  const args = [...data, ...small, ...training, "--align-block-share", "1"];
  const told = (...more: string[]): string[] => {
    const { code, out, err } = gradmix("train", ...more);
    expect(code, err).toBe(0);
    return `${out}${err}`.match(/after step \d+, the measurements disagree with the histogram.*/g) ?? [];
  };
  const [line = "", ...others] = told(...args, "--steps", "120", "--out", "wrong");
  const step = Number(/\d+/.exec(line)?.[0]);
  expect(line).toBe(contradictedAfter(step, false));
  expect(line).toMatch(/; if that histogram belongs to another target, start again without it$/);
  expect(contradictedAfter(step, true)).not.toContain("another target");
  expect(others).toEqual([]);
  const before = step - 1;
  expect(told(...args, "--steps", String(before), "--out", "cut")).toEqual([]);
  expect(told("--resume", "cut", "--steps", "120")).toEqual([line]);
  const kept = ["--rule-options", '{"correction":1}'];
  expect(told(...args, "--steps", "120", "--out", "kept", ...kept)).toEqual([]);
});

test("a histogram is counted only for a rule that lacks one, and only with a target and without bases", () => {
  const configOf = (mixing: Partial<TrainConfig["mixing"]>, target: string[]): TrainConfig => {
    const values = new Map<string, unknown>([
      ["data.domains", new Map(["a", "b"].map((name) => [name, [`${name}.txt`]]))],
      ["data.target", target],
      ["mixing.rule", "uniform"],
    ]);
    const config = resolveConfig([{ values, label: (path) => path }]);
    return { ...config, mixing: { ...config.mixing, ...mixing } };
  };
  const wants = (mixing: Partial<TrainConfig["mixing"]>, target = ["t.txt"]): boolean =>
    planMixing(configOf(mixing, target), 100).wantsHistogram;
  const histogram = new Map([["a", 1]]);
  expect(wants({ rule: "importanceSampling" })).toBe(true);
  expect(wants({ rule: "importanceSampling", histogram })).toBe(false);
  expect(wants({ rule: "importanceSampling", ruleOptions: { histogram: [1, 2] } })).toBe(false);
  expect(wants({ rule: "importanceSampling", histogram }, [])).toBe(false);
  for (const rule of ["uniform", "rnb", "odm"] as const) expect(wants({ rule })).toBe(false);

  const plan = planMixing(configOf({ rule: "importanceSampling" }, ["t.txt"]), 100);
  const mixer = plan.mixerOf({ sizes: { a: 1, b: 1 }, histogram: new Map([["b", 0.75], ["a", 0.25]]) }); // prettier-ignore
  expect(mixer.initial.rule.weights).toEqual([0.25, 0.75]);
});

test("the histogram of a checkpoint is read by name, and one that does not fit is refused by its place", () => {
  const names = ["b", "a"];
  expect(savedNumbers({ histogram: [0.75, 0.25] }, "histogram", names)).toEqual(
    new Map([
      ["b", 0.75],
      ["a", 0.25],
    ]),
  );
  for (const none of [undefined, {}]) expect(savedNumbers(none, "histogram", names)).toBeNull();
  const cases: [histogram: unknown, problem: string][] = [
    [[0.75, null], "histogram.1 is null, not a finite number"],
    [[0.75], "histogram has 1 items, not 2"],
    ["0.75", 'histogram is "0.75", not a list of 2'],
  ];
  for (const [histogram, problem] of cases)
    expect(codeOf(() => savedNumbers({ histogram }, "histogram", names))).toBe(
      `checkpoint: checkpoint: ${problem}`,
    );
});
