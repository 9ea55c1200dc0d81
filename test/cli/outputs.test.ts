/** A file that a command is told to write replaces neither what the command reads nor what a run, a comparison, prepared text or clusters consist of. */
import { spawnSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makeRun } from "../report/made-runs.ts";
import { runCommand } from "./served.ts";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
let folder = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-outputs-"));
  makeRun(join(folder, "run"), { steps: 6 });
  for (const name of ["domain-0", "target"]) writeFileSync(join(folder, `${name}.txt`), "text");
  makeRun(join(folder, "patterns"), { steps: 6 });
  writeFileSync(
    join(folder, "patterns/config.json"),
    JSON.stringify({ data: { domains: { prose: ["pro*.jsonl", "gone*.jsonl"] }, target: "target.jsonl" } }),
  );
  mkdirSync(join(folder, "run/model"));
  mkdirSync(join(folder, "run/checkpoints"));
  writeFileSync(join(folder, "run/model/config.json"), "{}");
  const lines = (words: string): string =>
    Array.from({ length: 30 }, (_, i) =>
      JSON.stringify({ text: `${words} ${(i * 7919) % 97}. `.repeat(3) }),
    ).join("\n");
  writeFileSync(join(folder, "prose.jsonl"), lines("the dog sleeps while the quick fox jumps over it"));
  writeFileSync(join(folder, "code.jsonl"), lines("for (let i = 0; i < n; i++) sum += items[i]"));
  writeFileSync(join(folder, "target.jsonl"), lines("while (j < n) total += items[j++]"));
  writeFileSync(
    join(folder, "config.json"),
    JSON.stringify({
      data: { domains: { prose: "prose.jsonl", code: "code.jsonl" }, target: "target.jsonl" },
    }),
  );
  writeFileSync(join(folder, "map.json"), JSON.stringify({ "domain-0": "/data/0" }));
  writeFileSync(join(folder, "sizes.json"), JSON.stringify({ web: 1000, code: 1000 }));
  symlinkSync("target.jsonl", join(folder, "link.jsonl"));
  symlinkSync("run", join(folder, "same-run"));
  mkdirSync(join(folder, "clusters/ids"), { recursive: true });
  writeFileSync(join(folder, "clusters/clusters.json"), "{}");
  mkdirSync(join(folder, "prepared/domains"), { recursive: true });
  writeFileSync(join(folder, "prepared/prepared.json"), "{}");
  writeFileSync(join(folder, "prepared/domains/web.bin"), "tokens");
  mkdirSync(join(folder, "compared"));
  writeFileSync(join(folder, "compared/compare-plan.json"), "{}");
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

function gradmix(args: readonly string[], input = ""): { code: number | null; err: string } {
  // The standard input is kept until the process ends.
  const { status, stderr } =
    input === ""
      ? runCommand(args, { cwd: folder })
      : spawnSync(process.execPath, [command, ...args], { cwd: folder, encoding: "utf8", input });
  return { code: status, err: stderr };
}

/** The path and the bytes of every file in the folder. */
function contents(): Map<string, string> {
  const paths = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  return new Map(paths.map((path) => [relative(folder, path), readFileSync(path, "latin1")]));
}

const histogram = ["histogram", "config.json", "--tokenizer", "byte", "--context", "16", "--quiet"];
const exported = ["export", "run", "--to", "csv"];
const mixed = ["mix", "--domains", "web,code"];

const refused: [what: string, args: readonly string[], flag: string, path: string, why: RegExp][] = [
  ["export, the weights of the run", [...exported, "--out", "run/weights.json"], "--out", "run/weights.json", /part of what gradmix wrote in .*run$/],
  ["export, by another path", [...exported, "--out", "same-run/metrics.jsonl"], "--out", "same-run/metrics.jsonl", /part of what gradmix wrote in .*run$/],
  ["export, in a folder of the run", [...exported, "--out", "run/model/config.json"], "--out", "run/model/config.json", /part of what gradmix wrote in .*run$/],
  ["export, a checkpoint to come", [...exported, "--out", "run/checkpoints/new"], "--out", "run/checkpoints/new", /part of what gradmix wrote in .*run$/],
  ["export, the map of paths", [...exported, "--map-file", "map.json", "--out", "map.json"], "--out", "map.json", /the command reads this file$/],
  ["export, a text of the run", [...exported, "--out", "domain-0.txt"], "--out", "domain-0.txt", /the command reads this file$/],
  ["export, a text of a pattern of the run", ["export", "patterns", "--to", "csv", "--out", "prose.jsonl"], "--out", "prose.jsonl", /the command reads this file$/],
  ["report, the target of the run", ["report", "run", "--out", "target.txt"], "--out", "target.txt", /the command reads this file$/],
  ["mix, one new file for the token and the state", [...mixed, "--listen", "0", "--token-file", "t", "--state-file", "t"], "--state-file", "t", /--token-file writes it too$/],
  ["report, the metrics of the run", ["report", "run", "--out", "run/metrics.jsonl"], "--out", "run/metrics.jsonl", /part of what gradmix wrote/],
  ["histogram, the target", [...histogram, "--out", "target.jsonl"], "--out", "target.jsonl", /the command reads this file$/],
  ["histogram, the target behind a link", [...histogram, "--out", "link.jsonl"], "--out", "link.jsonl", /the command reads this file$/],
  ["histogram, a config file", [...histogram, "--bases", "config.json"], "--bases", "config.json", /the command reads this file$/],
  ["histogram, one file for both", [...histogram, "--out", "new.json", "--bases", "./new.json"], "--bases", "./new.json", /--out writes it too$/],
  ["histogram, the clusters", [...histogram, "--out", "clusters/clusters.json"], "--out", "clusters/clusters.json", /part of what gradmix wrote in .*clusters$/],
  ["histogram, prepared text", [...histogram, "--out", "prepared/domains/web.bin"], "--out", "prepared/domains/web.bin", /part of what gradmix wrote in .*prepared$/],
  ["histogram, a comparison", [...histogram, "--out", "compared/compare-plan.json"], "--out", "compared/compare-plan.json", /part of what gradmix wrote in .*compared$/],
  ["mix, the weights of a run", [...mixed, "--weights-file", "run/weights.json"], "--weights-file", "run/weights.json", /part of what gradmix wrote/],
  ["mix, sizes", [...mixed, "--sizes", "sizes.json", "--weights-file", "sizes.json"], "--weights-file", "sizes.json", /the command reads this file$/],
  ["mix, one file for both", [...mixed, "--state-file", "s.json", "--weights-file", "./s.json"], "--weights-file", "./s.json", /--state-file writes it too$/],
]; // prettier-ignore

test.each(refused)("%s", (_, args, flag, path, why) => {
  const before = contents();
  const { code, err } = gradmix(args);
  const [start, end] = [`gradmix: ${flag}: ${path} would be replaced, but `, "; choose another file\n"];
  expect(err).toMatch(/^[^\n]*\n$/);
  expect([err.slice(0, start.length), err.slice(-end.length)]).toEqual([start, end]);
  expect(err.slice(start.length, -end.length)).toMatch(why);
  expect(code).toBe(2);
  expect(contents()).toEqual(before);
});

test("a page, a table, other files in the folder of a run, and files that the same command wrote before are replaced", () => {
  for (const path of ["run/mixture.csv", "run/report.html", "mixture.csv"])
    for (const _ of [1, 2]) expect(gradmix([...exported, "--out", path]).code).toBe(0);
  for (const _ of [1, 2])
    expect(gradmix([...histogram, "--out", "shares.json", "--bases", "bases.csv"]).code).toBe(0);
  for (const _ of [1, 2])
    expect(gradmix([...mixed, "--state-file", "state.json", "--weights-file", "w.json"]).code).toBe(0);
});

test("a file cannot be called -, which elsewhere means the standard output", () => {
  const before = contents();
  for (const [args, flag] of [
    [[...exported, "--out", "-"], "--out"],
    [["report", "run", "--out", "-"], "--out"],
    [[...histogram, "--out", "-"], "--out"],
    [[...mixed, "--weights-file", "-"], "--weights-file"],
  ] as const)
    expect(gradmix(args)).toEqual({
      code: 2,
      err: `gradmix: ${flag}: - is not the standard output here; name a file (./- for one called "-")\n`,
    });
  expect(contents()).toEqual(before);
});

test.runIf(process.platform === "linux")(
  "a folder that cannot be made ends a command with one line",
  () => {
    for (const args of [
      ["train", "config.json", "--tokenizer", "byte", "--steps", "1", "--out", "/proc/x/y"],
      [...exported, "--out", "/proc/x/y"],
      [...mixed, "--state-file", "/proc/x/y"],
    ]) {
      const { code, err } = gradmix(args);
      expect([args.join(" "), code]).toEqual([args.join(" "), 2]);
      expect(err).toMatch(/(^|\n)gradmix: [^\n]*\/proc\/x[^\n]*\n$/);
    }
  },
  60_000,
);

test("histogram writes both of its files or neither", () => {
  const before = contents();
  const { code, err } = gradmix([...histogram, "--out", "fresh.json", "--bases", "config.json/bases.csv"]);
  expect([code, err]).toEqual([
    2,
    expect.stringMatching(/^gradmix: config\.json\/bases\.csv: cannot be written/),
  ]);
  expect(contents()).toEqual(before);
});
