/** Runs that select windows: when they do, what is recorded, and that resuming and replaying them gives the same bits. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { planMixing } from "#dist/cli/mixing.js";
import { sampledText, selectionLine } from "#dist/cli/selecting.js";
import { windowsOf } from "gradmix/data";
import { expectNear } from "../near.ts";
import { timeless } from "./timeless.ts";
import { runCommand } from "./served.ts";

/** The least share that a configuration selects. */
function leastShare(mixing: object, data: object = { target: "t" }): number {
  const config = resolveConfig([jsonLayer({ data: { domains: { a: "a", b: "b" }, ...data }, mixing }, "c")]);
  return planMixing(config, 1000).leastShare;
}

describe("which runs select windows", () => {
  const histogram = { histogram: { a: 1 } };
  test.each<[string, object, number]>([
    ["the default", {}, 0.25],
    ["a histogram that was given", histogram, 0.25],
    ["no histogram", { prior: "uniform" }, 0.25],
    ["the paper's form", { preset: "paper" }, 1],
    ["cosines", { normalise: "cosine" }, 1],
    ["another rule", { rule: "importanceSampling" }, 1],
    ["uniform weights", { rule: "uniform" }, 1],
    ["a floor of 0", { floor: 0 }, 0.25],
    ["a floor", { floor: 0.01 }, 1],
    ["the floor of one domain", { floor: { a: 0.01 } }, 1],
    ["a floor of the rule", { ruleOptions: { floor: 0.01 } }, 1],
    ["a floor around the rule", { combinators: [{ name: "floor", least: 0.01 }] }, 1],
    ["a limit around the rule", { combinators: [{ name: "ceiling", most: 0.9 }] }, 0.25],
    ["a guard", { guard: { a: 1.02 } }, 1],
    ["bases", { bases: { x: { a: 1 }, y: { b: 1 } } }, 1],
  ])("%s", (_, mixing, share) => {
    expect(leastShare(mixing)).toBe(share);
    // What is asked for holds for every rule.
    for (const select of [0.5, 1]) expect(leastShare({ ...mixing, select })).toBe(select);
  });

  test("without a target, nothing is selected by default, and --select is refused", () => {
    expect(leastShare({ rule: "uniform" }, {})).toBe(1);
    expect(leastShare({ rule: "uniform", select: 1 }, {})).toBe(1);
    expect(() => leastShare({ rule: "uniform", select: 0.5 }, {})).toThrow(
      /^c: mixing\.select: windows are selected by their likeness to a target: add --target GLOB, .*leave it out$/,
    );
    for (const rule of ["temperature", "ado"]) {
      expect(leastShare({ rule, select: 1 })).toBe(1);
      expect(() => leastShare({ rule, select: 0.5 })).toThrow(
        `c: mixing.select: --rule ${rule} weighs the domains by their sizes, which a selection would change; leave it out, or choose another rule`,
      );
    }
    for (const select of [0, -1, 1.5, "x"])
      expect(() => leastShare({ select })).toThrow(/^c: mixing\.select/);
  });
});

test("the line names the domains with the largest weights, and the range of the others", () => {
  const names = ["a", "b", "c", "d", "e", "f"];
  const line = (shares: readonly number[]): string =>
    selectionLine(new Map(names.map((name, i) => [name, shares[i]])), [0, 0.4, 0.3, 0.2, 0.1, 0]);
  const first =
    "selected the windows that resemble the target most: 50 % of b, 60 % of c, 70 % of d, 100 % of e";
  expect(line([0.25, 0.5, 0.6, 0.7, 1, 0.4])).toBe(
    `${first} and 25 to 40 % of 2 more; --select 1 trains on all text`,
  );
  expect(line([0.25, 0.5, 0.6, 0.7, 1, 0.25])).toContain(" and 25 % of 2 more;");
  expect(line(names.map(() => 0.304))).toBe(
    "selected the windows that resemble the target most: 30 % of each domain; --select 1 trains on all text",
  );
});

test("a resumed run samples what its checkpoint says: the saved shares, or all text if it has none", async () => {
  const random = (length: number): Uint16Array =>
    Uint16Array.from({ length }, (_, i) => ((i * 7919) ^ (i >> 3)) % 50);
  const windows = (name: string, length: number) =>
    windowsOf(name, { tokens: random(length), documents: Float64Array.of(0, length) }, 8);
  const split = (name: string, length: number) => ({ train: windows(name, length), heldOut: null });
  const read = {
    domains: [split("a", 900), split("b", 2000)],
    target: split("t", 8000),
    sizes: { a: 900, b: 2000 },
  };
  const config = resolveConfig([jsonLayer({ data: { domains: { a: "a", b: "b" }, target: "t" } }, "c")]);
  const plan = { mixing: planMixing(config, 8), tokens: 8, histogram: new Map([["a", 1]]) };
  const sampled = (json: Parameters<typeof sampledText>[2]) =>
    sampledText(plan, read, json, { signal: new AbortController().signal });
  expect((await sampled(null)).selected?.size).toBe(2);
  const earlier = await sampled({});
  expect(earlier.selected).toBeNull();
  expect(earlier.domains).toEqual(read.domains.map(({ train }) => train));
  const { selected, sizes, domains } = await sampled({ selected: [0.5, 0.25] });
  expect([...(selected ?? [])]).toEqual([
    ["a", 57 / 113],
    ["b", 63 / 250],
  ]);
  // Of 113 and 250 windows.
  expect(domains.map(({ count }) => count)).toEqual([57, 63]);
  expect(sizes).toEqual({ a: Math.round((900 * 57) / 113), b: Math.round((2000 * 63) / 250) });
});

describe("a run", () => {
  let folder = "";
  const gradmix = (...args: string[]): { code: number | null; out: string; err: string } => {
    const { status, stdout, stderr } = runCommand(args, { cwd: folder });
    return { code: status, out: stdout, err: stderr };
  };
  const read = (run: string, file: string): string => readFileSync(join(folder, run, file), "utf8");
  const lines = (run: string): object[] =>
    read(run, "metrics.jsonl")
      .trim()
      .split("\n")
      .map((line) => timeless(JSON.parse(line) as object));

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "gradmix-selecting-"));
    const write = (name: string, n: number, words: (i: number) => string): void =>
      writeFileSync(
        join(folder, `${name}.jsonl`),
        Array.from({ length: n }, (_, i) => JSON.stringify({ text: words(i) })).join("\n"),
      );
    const prose = (i: number): string =>
      `the dog ${(i * 7919) % 97} sleeps while the quick fox jumps over it. `.repeat(4);
    const code = (i: number): string =>
      `for (let i = ${(i * 104_729) % 89}; i < n; i++) sum += items[i]; `.repeat(4);
    write("mixed", 120, (i) => (i % 2 === 0 ? prose(i) : code(i)));
    write("prose", 120, prose);
    write("target", 60, (i) => `while (j < ${(i * 31) % 53}) total += items[j++]; `.repeat(3));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

  const options = [
    ..."train --domain mixed=mixed.jsonl --domain prose=prose.jsonl --target target.jsonl".split(" "),
    ..."--tokenizer byte --dim 16 --layers 1 --heads 2 --context 16 --batch 4 --update-every 2 --warmup 2".split(
      " ",
    ),
    ..."--eval-tokens 64 --eval-every 0 --checkpoint-every 0 --schedule constant --threads 1".split(" "),
  ];
  interface Facts {
    readonly selected?: Readonly<Record<string, number>>;
    readonly domains: Readonly<Record<string, { readonly tokens: number }>>;
  }
  const factsOf = (run: string): Facts => JSON.parse(read(run, "run.json")) as Facts;

  test("records the shares, and continues and replays to the same bits", () => {
    const whole = gradmix(...options, "--steps", "8", "--out", "whole");
    expect(whole.err).toContain("selected the windows that resemble the target most: ");
    expect(whole.code).toBe(0);
    const { selected, domains } = factsOf("whole");
    expect(Object.keys(selected ?? {})).toEqual(["mixed", "prose"]);
    const share = selected?.["mixed"] ?? NaN;
    expect(share).toBeGreaterThan(0.25);
    expect(share).toBeLessThan(0.9);
    // The epochs are those of the selected windows.
    const last = lines("whole").at(-1) as {
      readonly domains: Record<string, { readonly tokens: number; readonly epochs: number }>;
    };
    const { tokens, epochs } = last.domains["mixed"];
    expectNear(epochs, tokens / (domains["mixed"].tokens * share), 0.05);

    // A longer run would expect to read more, but continues with the same windows.
    expect(gradmix(...options, "--steps", "4", "--out", "part").code).toBe(0);
    const rest = gradmix("train", "--resume", "part", "--steps", "8");
    expect(rest.code).toBe(0);
    expect(rest.err).toContain(
      "these are the windows that were selected for 4 steps; a new run of 8 steps might select more",
    );
    expect(factsOf("part").selected).toEqual(selected);
    const steps = (run: string): object[] => lines(run).filter((line) => "loss" in line && "step" in line);
    const without = (line: object): object => ({ ...line, evaluation: null });
    expect(steps("part").map(without)).toEqual(steps("whole").map(without));
    expect(read("part", "weights.json")).toBe(read("whole", "weights.json"));

    const replayed = gradmix("mix", "--replay", "whole");
    expect(replayed.code).toBe(0);
    const { final } = JSON.parse(read("whole", "weights.json")) as { final: Record<string, number> };
    const answers = replayed.out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { weights: Record<string, number> });
    expect(answers.at(-1)?.weights).toEqual(final);

    const all = gradmix(...options, "--steps", "4", "--select", "1", "--out", "all");
    expect(all.err).not.toContain("selected");
    expect(factsOf("all").selected).toBeUndefined();
    expect(gradmix("train", "--resume", "all", "--steps", "8").code).toBe(0);
    expect(factsOf("all").selected).toBeUndefined();
    expect(steps("all").map(without)).not.toEqual(steps("whole").map(without));
  });

  test("a share that was given and selects nothing is reported, with the reason", () => {
    const few = "mixing.select has no effect: the target has ";
    const train = options.map((one) => (one === "target.jsonl" ? "few.jsonl" : one));
    writeFileSync(join(folder, "few.jsonl"), read(".", "target.jsonl").split("\n").slice(0, 20).join("\n"));
    for (const rule of ["dga", "uniform"]) {
      const given = [...train, "--rule", rule, "--select", "0.5", "--out", `few-${rule}`];
      expect(gradmix(...given, "--steps", "2").err).toContain(few);
      expect(gradmix("train", "--resume", `few-${rule}`, "--steps", "4").err).toContain(
        "mixing.select has no effect: the run began with all text, and continues with it\n",
      );
    }
    const compared = gradmix("compare", ...train.slice(1), ..."--rules dga,uniform --select 0.5 --steps 2".split(" "), "--out", "few"); // prettier-ignore
    expect(compared.err).toContain(few);
    // Nothing was asked for, so nothing was ignored.
    expect(gradmix(...train, "--steps", "2", "--out", "none").err).not.toContain("mixing.select");
    expect(gradmix(...options, "--steps", "2", "--select", "0.5", "--out", "half").err).not.toContain("no effect"); // prettier-ignore
  });

  test("other rules select if they are told to", () => {
    for (const rule of ["uniform", "importanceSampling"]) {
      const { code } = gradmix(...options, "--rule", rule, "--select", "0.25", "--steps", "2", "--out", rule);
      expect(code).toBe(0);
      expect(factsOf(rule).selected?.["mixed"]).toBeLessThan(0.9);
    }
  });
});
