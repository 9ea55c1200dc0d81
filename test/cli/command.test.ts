/** The command through a real child process: help, refusals, signals. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
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
import { missingVectors } from "#dist/backends/cpu/index.js";
import { optionRows } from "#dist/cli/options.js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runCommand } from "./served.ts";

const stub = join(import.meta.dirname, "stub-train.mjs");

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-command-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

interface Ended {
  code: number | null;
  out: string;
  err: string;
}

function gradmix(...args: string[]): Ended {
  const { status, stdout, stderr } = runCommand(args, { cwd: folder });
  return { code: status, out: stdout, err: stderr };
}

/** The names in the lines of `gradmix --help`. */
const commandsOf = (help: string): string[] =>
  [...help.matchAll(/^ {2}([a-z]+) /gm)].map(([, name = ""]) => name);

describe("help", () => {
  test("without arguments and with --help, it lists the commands", () => {
    for (const args of [[], ["--help"], ["-h"]]) {
      const { code, out, err } = gradmix(...args);
      expect([code, err]).toEqual([0, ""]);
      // A terminal of 80 columns and 24 lines, the last of which is the prompt.
      const lines = out.trimEnd().split("\n");
      expect(lines.length).toBeLessThanOrEqual(23);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
      expect(commandsOf(out).sort()).toEqual(
        [
          "cluster",
          "compare",
          "divide",
          "doctor",
          "export",
          "histogram",
          "mix",
          "prepare",
          "report",
          "train",
          "watch",
        ].sort(),
      );
      // A summary that is too long would continue in a line without a name.
      expect(lines.filter((line) => /^ {3}/.test(line))).toEqual([]);
    }
  });

  test("the help of every command begins with an example, and lists the options of the example", () => {
    const helps = new Map(
      commandsOf(gradmix("--help").out).map((name) => [name, gradmix(name, "--help").out] as const),
    );
    const flags = (text: string | undefined): string[] => text?.match(/--[a-z][a-z-]*/g) ?? [];
    for (const [name, out] of helps) {
      const [example = "", rest] = out.split("\nUsage: ");
      expect(example, name).toMatch(/^Examples?:/);
      const lines = example
        .replaceAll(/\\\n/g, " ")
        .split("\n")
        .filter((line) => line.trimStart().startsWith("$ gradmix "));
      expect(lines[0], name).toMatch(new RegExp(`\\$ gradmix ${name}\\b`));
      for (const line of lines) {
        const [, of = ""] = /\$ gradmix ([a-z]+)/.exec(line) ?? [];
        const own = of === name ? rest : helps.get(of)?.split("\nUsage: ")[1];
        for (const flag of flags(line)) expect(flags(own), `${name}: ${line}`).toContain(flag);
      }
    }
  });

  test("help with or without a command prints what --help does", () => {
    expect(gradmix("help")).toEqual(gradmix("--help"));
    expect(gradmix("help", "--help")).toEqual(gradmix("--help"));
    expect(gradmix("help", "export")).toEqual(gradmix("export", "--help"));
  });

  test("train --help has every option of the table, with its help, and an example", () => {
    const { code, out } = gradmix("train", "--help");
    expect(code).toBe(0);
    const text = out.replaceAll(/\s+/g, " ");
    for (const row of optionRows()) {
      expect(text).toContain(`${row.flag}${row.value === undefined ? "" : ` <${row.value}>`} `);
      expect(text).toContain(row.help);
    }
    expect(text).toContain("--resume <DIR>");
    expect(text).toContain("$ gradmix train --domain");
    for (const line of out.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
  });

  test("--version prints the version of the package", () => {
    const manifest = JSON.parse(readFileSync(resolve(import.meta.dirname, "../../package.json"), "utf8"));
    expect(gradmix("--version")).toEqual({ code: 0, out: `${manifest.version}\n`, err: "" });
  });
});

test("doctor lists the backends, their settings, and a measured speed for each", () => {
  const { code, out, err } = gradmix("doctor");
  expect([code, err]).toEqual([0, ""]);
  expect(out).toMatch(/^node +v\d+/);
  const missing = missingVectors();
  const width = missing === null ? 256 : 128;
  expect(out).toMatch(
    new RegExp(`^cpu +\\d+ threads?, relaxed, ${width}-bit vectors, at most 4\\.0 GiB, [\\d.]+ GFLOP/s`, "m"),
  );
  const why = /^ +without 256-bit vectors, with which products are about twice as fast: (.*)$/m.exec(out);
  expect(why?.[1] ?? null).toBe(missing);
  expect(out).toMatch(/^reference +1 thread, .* GFLOP\/s/m);
  expect(out).not.toContain("WRONG");
  if (process.env["GRADMIX_WEBGPU"] === "software")
    expect(out).toMatch(
      /^ +shaders: the first training steps need [1-9]\d*, which took [\d.]+(e-\d+)? s to compile \(on the CPU/m,
    );
});

describe("bad input: one line, exit code 2, nothing written", () => {
  const valid = ["--domain", "a=a.txt", "--target", "t.txt"];
  const cases: [args: string[], message: string | RegExp][] = [
    [["trian"], "unknown command trian; did you mean train?"],
    [["help", "trian"], "unknown command trian; did you mean train?"],
    [["--helpp"], "unknown option --helpp; did you mean --help?"],
    [["train", "--lrr", "1"], "unknown option --lrr; did you mean --lr?"],
    [["train", "--lrr=1"], "unknown option --lrr; did you mean --lr?"],
    [["train", "--lr"], "--lr: a value is missing (--lr <X>)"],
    [["train", "a.json", "b.json"], /^too many arguments: a.json b.json; quote globs/],
    [["train"], /^no domain was given/],
    [["train", "none.json"], "none.json: cannot be read (no such file or folder)"],
    [["train", "."], ".: cannot be read (it is a folder)"],
    [["train", "--domain", "a.txt"], /^--domain: "a.txt" is not of the form NAME=GLOB/],
    [["train", "--domain", "a=a.txt"], /^--rule dga needs a target/],
    [["train", ...valid, "--eta", "-1"], "--eta: -1 is not a number of at least 0 and at most 1000"],
    [["train", ...valid, "--beta", "2"], "--beta: 2 is not a number above 0 and at most 1"],
    [["train", ...valid, "--beta", "NaN"], '--beta: "NaN" is not a number above 0 and at most 1'],
    [["train", ...valid, "--steps", "0x10"], '--steps: "0x10" is not a whole number of at least 1'],
    [["train", ...valid, "--weights", "a=0.5"], "--weights: the weights sum to 0.5, not to 1"],
    [["train", ...valid, "--weights", "a=0.5,a=0.5"], '--weights: names the domain "a" twice'],
    [["train", ...valid, "--weights", "none.json"], /^--weights none.json: cannot be read/],
    [["train", "--resume", "none"], /^--resume none: holds no run/],
    [["train", "--domains", ".", "--domains", "."], "--domains: . is named twice; name it once"],
    [
      ["train", "--domains", ".", "--domains", "./"],
      "--domains: ./ is named twice (also as .); name it once",
    ],
    [["train", "--domains", "*.md", "--domains", "*.md"], "--domains: *.md is named twice; name it once"],
    [["train", ...valid, "--out", ""], "--out: is empty"],
    [["train", "--resume", ""], "--resume: is empty"],
    [["doctor", "x"], "doctor: takes no arguments (x)"],
    [["watch", "a", "b"], /^too many arguments: a b; quote globs/],
    [
      ["train", ...valid, "--min-lr", "0.1", "--min-ratio", "0.1"],
      "--min-lr is the former name of --min-ratio; give one of them",
    ],
    // A flag under its former name is the same flag.
    ...optionRows().flatMap(({ flag, formerly }): [string[], RegExp][] =>
      formerly?.flag === undefined
        ? []
        : [[["train", ...valid, formerly.flag, "nothing"], new RegExp(`^${flag}: "nothing" is not `)]],
    ),
  ];
  test.each(cases)("gradmix %j", (args, message) => {
    const { code, out, err } = gradmix(...args);
    expect(err).toMatch(/^gradmix: [^\n]+\n$/);
    const line = err.slice("gradmix: ".length, -1);
    if (typeof message === "string") expect(line).toBe(message);
    else expect(line).toMatch(message);
    expect([code, out]).toEqual([2, ""]);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("an unknown key in a config file is refused with the nearest key", () => {
    writeFileSync(join(folder, "c.json"), '{ "mixing": { "rul": "dga" } }');
    const { code, err } = gradmix("train", "c.json");
    expect([code, err]).toEqual([
      2,
      'gradmix: c.json: unknown key "mixing.rul"; did you mean mixing.rule?\n',
    ]);
  });

  test("a folder that already holds a run is refused and not changed", () => {
    mkdirSync(join(folder, "run"));
    writeFileSync(join(folder, "run/metrics.jsonl"), "precious\n");
    const { code, err } = gradmix("train", ...valid, "--out", "run");
    expect(code).toBe(2);
    expect(err).toBe(
      "gradmix: --out run: already holds a run (metrics.jsonl); choose another folder, or continue it with --resume run\n",
    );
    expect(readdirSync(join(folder, "run"))).toEqual(["metrics.jsonl"]);
    expect(readFileSync(join(folder, "run/metrics.jsonl"), "utf8")).toBe("precious\n");
  });

  test("a resumed run cannot change its configuration or its folder", () => {
    writeConfig(2);
    expect(spawnSync(process.execPath, [stub, "0", "c.json"], { cwd: folder }).status).toBe(0);
    const lr = gradmix("train", "--resume", "run", "--lr", "0.5");
    expect(lr.err).toMatch(/^gradmix: run was made with training.lr = 0.002, not 0.5; [^\n]*\n$/);
    const moved = gradmix("train", "--resume", "run", "--out", "other");
    expect(moved.err).toBe("gradmix: --out: a resumed run stays in its folder, run\n");
    expect([lr.code, moved.code, existsSync(join(folder, "other"))]).toEqual([2, 2, false]);
  });

  test.each([
    ["--resume", "run", "--out", "./run"],
    ["run/config.json", "--resume", "./run"],
  ])("train %s %s %s continues: the folder of the run may be written in another way", (...args) => {
    writeConfig(2);
    expect(spawnSync(process.execPath, [stub, "0", "c.json"], { cwd: folder }).status).toBe(0);
    // The stub's checkpoint has no tokenizer, which is noticed only after the folder was accepted.
    expect(gradmix("train", ...args).err).toMatch(/^gradmix: tokenizer\.json: /);
  });
});

function writeConfig(steps: number): void {
  const config = {
    data: { domains: { a: "a.txt" }, target: "t.txt" },
    training: { steps },
    run: { out: "run", checkpointEvery: 2 },
  };
  writeFileSync(join(folder, "c.json"), JSON.stringify(config));
}

function steps(): number[] {
  const text = readFileSync(join(folder, "run/metrics.jsonl"), "utf8");
  return text
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { step: number }).step);
}

/** Starts the stub; sends each signal when its text has been printed; waits for the end. */
async function interrupted(args: string[], signals: [text: string, name: NodeJS.Signals][]): Promise<Ended> {
  const child = spawn(process.execPath, [stub, ...args], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
    const next = signals[0];
    if (next === undefined || !err.includes(next[0])) return;
    signals.shift();
    child.kill(next[1]);
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, out, err };
}

describe("a run of the command", () => {
  test("prints plain lines and the result, and writes its files", () => {
    writeConfig(5);
    const { status, stdout, stderr } = spawnSync(process.execPath, [stub, "0", "c.json"], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(status).toBe(0);
    expect(stderr).toMatch(
      /^from step 0\nstep 1\/5 {2}loss 1\.000 [^\n]*\n(step [^\n]*\n)*step 5\/5 [^\n]*\n$/,
    );
    expect(stdout).toMatch(/^done: 5 steps, 50 tokens\n/);
    expect(steps()).toEqual([1, 2, 3, 4, 5]);
    expect(existsSync(join(folder, "run/lock"))).toBe(false);
    expect(stdout).toContain("  look     run/report.html\n");
    expect(readFileSync(join(folder, "run/report.html"), "utf8")).toContain(
      "<title>run – gradmix report</title>",
    );
  });

  test("ends with a checkpoint after Ctrl-C, and --resume continues from it", async () => {
    writeConfig(200);
    const { code, out, err } = await interrupted(["10", "c.json"], [["loss", "SIGINT"]]);
    expect(code).toBe(130);
    expect(err).toContain("stopping after this step, with a checkpoint; Ctrl-C again to stop at once\n");
    const stopped = Number(
      /^stopped after step (\d+); continue with: gradmix train --resume run\n/.exec(out)?.[1],
    );
    expect(stopped).toBeLessThan(200);
    expect(readFileSync(join(folder, "run/report.html"), "utf8")).toContain(
      `run was stopped: ${stopped} of 200 steps`,
    );
    expect(steps()).toEqual(Array.from({ length: stopped }, (_, i) => i + 1));

    const again = await interrupted(["0", "", "run"], []);
    expect(again.code).toBe(0);
    expect(again.err).toMatch(new RegExp(`^from step ${stopped}\n`));
    expect(steps()).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
  });

  test("ends the same way after SIGTERM, with another exit code", async () => {
    writeConfig(200);
    const { code, out } = await interrupted(["10", "c.json"], [["loss", "SIGTERM"]]);
    expect(code).toBe(143);
    expect(out).toMatch(/^stopped after step/);
  });

  test("ends at once after a second Ctrl-C", async () => {
    writeConfig(3);
    const { code, out } = await interrupted(["60000", "c.json"], [["loss", "SIGINT"], ["stopping after", "SIGINT"]]); // prettier-ignore
    expect([code, out]).toEqual([130, ""]);
    // Its lock went with it.
    expect(readdirSync(join(folder, "run"))).not.toContain("lock");
  });
});
