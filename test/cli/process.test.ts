/** The real command as a process: its system calls, its signals, its readers, full disks. All on one tiny corpus and model. */
import { type ChildProcess, spawn, type SpawnOptions, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { timeless } from "./timeless.ts";
import { lastGiven } from "./last-given.ts";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
const preload = pathToFileURL(join(import.meta.dirname, "preload.mjs")).href;

const hasPython = spawnSync("python3", ["-c", "import pty"]).status === 0;

let texts = "";
let folder = "";
beforeAll(() => {
  texts = mkdtempSync(join(tmpdir(), "gradmix-texts-"));
  for (const [i, name] of ["a", "b", "target"].entries())
    writeFileSync(
      join(texts, `${name}.jsonl`),
      Array.from(
        { length: 30 },
        (_, j) => `{"text":"the ${["dog", "cat", "dog's"][i]} sees ${(j * 7919) % 97} houses and sleeps"}\n`,
      ).join(""),
    );
});
afterAll(() => rmSync(texts, { recursive: true }));
const children: ChildProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-process-"));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

/** `gradmix train` on the tiny corpus, with a checkpoint every second step and an evaluation every third. */
function tiny(...more: string[]): string[] {
  const text = (name: string): string => join(texts, `${name}.jsonl`);
  return lastGiven([
    ...["train", "--domain", `a=${text("a")}`, "--domain", `b=${text("b")}`, "--target", text("target")],
    ...["--dim", "8", "--layers", "1", "--heads", "1", "--context", "8", "--batch", "2", "--threads", "1"],
    ...[
      "--align-domain-examples",
      "1",
      "--align-target-examples",
      "1",
      "--tokenizer",
      "byte",
      "--update-every",
      "2",
    ],
    ...["--eval-every", "3", "--eval-tokens", "64", "--checkpoint-every", "2", "--out", "run", ...more],
  ]);
}

interface Ended {
  code: number | null;
  signal: string | null;
  out: string;
  err: string;
}

/** Starts Node with the command; `ended` collects what it prints. */
function start(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  options: SpawnOptions = {},
): { child: ChildProcess; ended: Promise<Ended> } {
  const flags = Object.keys(env).length === 0 ? [] : ["--import", preload];
  const child = spawn(process.execPath, [...flags, command, ...lastGiven(args)], {
    cwd: folder,
    env: { ...process.env, ...env },
    ...options,
  });
  children.push(child);
  return { child, ended: collect(child) };
}

async function collect(child: ChildProcess): Promise<Ended> {
  let out = "";
  let err = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (out += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (err += text));
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  return { code, signal, out, err };
}

const gradmix = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> =>
  start(args, env).ended;

const steps = (run = "run"): number[] =>
  readFileSync(join(folder, run, "metrics.jsonl"), "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => (JSON.parse(line) as { step: number }).step);

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

function checkpoints(run = "run"): number[] {
  return readdirSync(join(folder, run, "checkpoints")).map((name) =>
    Number(/^step-(\d+)\.safetensors$/.exec(name)?.[1]),
  );
}

/** Locks, claims and temporary files that are left anywhere below the folder. */
const remains = (): string[] =>
  readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => /(^|\/)lock|\.tmp$/.test(name));

/** Metrics without times, weights and model: what two runs that are the same have in common. */
function outcome(run: string): unknown {
  const file = (name: string): string => readFileSync(join(folder, run, name)).toString("base64");
  const lines = readFileSync(join(folder, run, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n");
  return {
    metrics: lines.map((line) => timeless(JSON.parse(line) as object)),
    files: [file("weights.json"), file("model/model.safetensors")],
  };
}

type Call = [call: string, path: string, more?: string];

describe("files are safely on disk before the run says that they are there", () => {
  const calls = (): Call[] =>
    readFileSync(join(folder, "calls"), "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Call);

  /** Each rename is of a file that was written and synced, or of a folder that was synced after its files, and is followed by a sync of the folder around it. */
  function expectLasting(all: readonly Call[]): string[] {
    const renamed: string[] = [];
    all.forEach(([call, path, from = ""], at) => {
      if (call !== "rename") return;
      renamed.push(path);
      const before = all.slice(0, at);
      const own = before.filter(([, other]) => other === from).map(([name]) => name);
      const inside = before.findLastIndex(([, other]) => dirname(other) === from);
      if (inside < 0)
        expect(own.filter((name, i, names) => name !== names[i - 1])).toEqual(["open", "write", "fsync"]);
      else
        expect(before.findLastIndex(([name, other]) => name === "fsync" && other === from)).toBeGreaterThan(
          inside,
        );
      expect(all[at + 1]).toEqual(["fsync", dirname(path)]);
    });
    return renamed;
  }

  test("in a whole run, every file but the metrics is written, synced and renamed, and its folder synced; metrics are synced before a checkpoint", async () => {
    const { code } = await gradmix(tiny("--steps", "5"), { RECORD: join(folder, "calls") });
    expect(code).toBe(0);
    const all = calls();
    const renamed = expectLasting(all);
    const step = (n: number): string => `run/checkpoints/step-0000000${n}.safetensors`;
    expect(renamed).toEqual([
      "run/config.json",
      "run/run.json",
      "run/histogram.json",
      ...[2, 4, 5].map(step),
      "run/weights.json",
      ...[
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
      ].map((name) => `run/.model.next/${name}`),
      "run/model",
      "run/report.html",
      "run/metrics.csv",
    ]);
    const index = (call: string, path: RegExp, from = 0): number =>
      all.findIndex(([name, other], i) => i >= from && name === call && path.test(other));
    for (const n of [2, 4, 5]) {
      const at = index("open", new RegExp(`step-0000000${n}`));
      const written = all.findLastIndex(
        ([name, path], i) => i < at && name === "write" && path.endsWith("metrics.jsonl"),
      );
      const synced = all.findLastIndex(
        ([name, path], i) => i < at && name === "fsync" && path.endsWith("metrics.jsonl"),
      );
      expect(synced).toBeGreaterThan(written);
      expect(written).toBeGreaterThan(0);
    }
    // The result is printed when all of it lasts.
    const reported = all.findIndex(
      ([, path, text]) => path === "stdout" && text?.startsWith("done: ") === true,
    );
    expect(reported).toBeGreaterThan(
      all.findIndex(
        ([name, path], i) => i > index("rename", /^run\/model$/) && name === "fsync" && path === "run",
      ),
    );
    // Written once the lock is held, which is a link to a whole file.
    expect(index("link", /^run\/lock$/)).toBeGreaterThan(-1);
    expect(index("link", /^run\/lock$/)).toBeLessThan(index("open", /config\.json/));
  });

  test("the same holds after Ctrl-C, before the command says how to continue", async () => {
    const { code, out } = await gradmix(tiny("--steps", "500", "--checkpoint-every", "0"), {
      RECORD: join(folder, "calls"),
      SIGNAL: JSON.stringify({ call: "write", path: "metrics.jsonl$", nth: 3, signals: ["SIGINT"] }),
    });
    expect(code).toBe(130);
    expect(out).toMatch(/^stopped after step (\d+); continue with: gradmix train --resume run\n/);
    const all = calls();
    expect(expectLasting(all)).toEqual([
      "run/config.json",
      "run/run.json",
      "run/histogram.json",
      `run/checkpoints/step-${String(steps().length).padStart(8, "0")}.safetensors`,
      "run/weights.json",
      "run/report.html",
      "run/metrics.csv",
    ]);
    const reported = all.findIndex(
      ([, path, text]) => path === "stdout" && text?.startsWith("stopped after") === true,
    );
    expect(reported).toBeGreaterThan(
      all.findLastIndex(([name, path]) => name === "fsync" && path === "run/checkpoints"),
    );
  });
});

/** Sends signals to itself when it writes the third line of its metrics. */
const atThirdStep = (...signals: string[]): Record<string, string> => ({
  SIGNAL: JSON.stringify({ call: "write", path: "metrics.jsonl$", nth: 3, signals }),
});

describe("signals", () => {
  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ])(
    "%s, even twice before the message was shown: a checkpoint, code %i, and the same bits after --resume",
    async (name, expected) => {
      const { code, err, out } = await gradmix(tiny("--steps", "40"), atThirdStep(name, name));
      expect({ code, err: code === expected ? "" : err }).toEqual({ code: expected, err: "" });
      expect(
        err.match(/stopping after this step, with a checkpoint; Ctrl-C again to stop at once\n/g),
      ).toHaveLength(1);
      const stopped = Number(/^stopped after step (\d+); /.exec(out)?.[1]);
      expect(stopped).toBeLessThan(40);
      expect(checkpoints()).toContain(stopped);
      expect(steps()).toEqual(upTo(stopped));
      expect(remains()).toEqual([]);
      if (name !== "SIGINT") return;
      expect((await gradmix(["train", "--resume", "run"])).code).toBe(0);
      expect((await gradmix(tiny("--steps", "40", "--out", "whole"))).code).toBe(0);
      expect(outcome("run")).toEqual(outcome("whole"));
    },
  );

  test("a run that is resumed without a checkpoint says that it begins again", async () => {
    expect((await gradmix(tiny("--steps", "4"))).code).toBe(0);
    const before = outcome("run");
    rmSync(join(folder, "run/checkpoints"), { recursive: true });
    const { code, err } = await gradmix(["train", "--resume", "run"]);
    expect([code, err]).toEqual([
      0,
      expect.stringMatching(/^run has no checkpoint, so the run begins again at its first step\n/),
    ]);
    expect(outcome("run")).toEqual(before);
  });

  test("while text is read: reading stops and nothing is written; a resumed run stays as it was", async () => {
    const atA = {
      SIGNAL: JSON.stringify({ call: "read", path: "a.jsonl$", nth: 1, signals: ["SIGINT"] }),
      RECORD: join(folder, "calls"),
    };
    const fresh = await gradmix(tiny("--steps", "4"), atA);
    expect(fresh.code).toBe(130);
    expect(fresh.err).toBe(
      "stopping before the first step; Ctrl-C again to stop at once\nstopped before the first step; nothing was written\n",
    );
    expect(existsSync(join(folder, "run"))).toBe(false);
    const read = readFileSync(join(folder, "calls"), "utf8")
      .split("\n")
      .filter((line) => line.startsWith('["read"'));
    expect(read.map((line) => /(\w+)\.jsonl/.exec(line)?.[1])).toEqual(["target", "a"]);

    expect((await gradmix(tiny("--steps", "4"))).code).toBe(0);
    const files = (): unknown =>
      readdirSync(join(folder, "run"), { recursive: true, encoding: "utf8", withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(
          (entry) => `${entry.name} ${readFileSync(join(entry.parentPath, entry.name)).toString("base64")}`,
        )
        .sort();
    const before = files();
    const resumed = await gradmix(["train", "--resume", "run"], atA);
    expect(resumed.code).toBe(130);
    expect(resumed.err).toMatch(/stopped before the first step; run is as it was\n$/);
    expect(files()).toEqual(before);
  });

  const linux = process.platform === "linux";
  const nohups: [string, boolean, string, string][] = [
    ["under nohup", true, 'nohup "$0" "$@"', "inherit"],
    ["under nohup, with nothing but its standard input to tell", linux, 'exec "$0" "$@"', "write-only"],
    ["in a script that ignores hang-ups", linux, 'trap "" HUP; "$0" "$@"; exit $?', "inherit"],
  ];
  test.each(nohups.filter(([, possible]) => possible))(
    "a run ignores a hang-up %s",
    async (_, __, script, input) => {
      const child = spawn(
        "bash",
        ["-c", script, process.execPath, "--import", preload, command, ...tiny("--steps", "6")],
        {
          cwd: folder,
          env: { ...process.env, ...atThirdStep("SIGHUP") },
          stdio: [input === "write-only" ? openSync("/dev/null", "w") : "ignore", "pipe", "pipe"],
        },
      );
      children.push(child);
      const { code, err } = await collect(child);
      expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
      expect(steps()).toEqual(upTo(6));
    },
  );
});

describe("the reader of the progress", () => {
  test("ends: the run continues to its end", async () => {
    const { child } = start(tiny("--steps", "60", "--eval-every", "1"));
    const exit = once(child, "exit");
    child.stderr?.once("data", () => {
      child.stderr?.destroy();
      child.stdout?.destroy();
    });
    expect(await exit).toEqual([0, null]);
    expect(steps()).toEqual(upTo(60));
    expect(existsSync(join(folder, "run/model/model.safetensors"))).toBe(true);
    expect(remains()).toEqual([]);
  });

  test("does not read: the run does not wait for it, not even at the end", async () => {
    const { child } = start(tiny("--steps", "40", "--eval-every", "1"), { FLOOD: "stderr" });
    const exit = once(child, "exit");
    child.stderr?.pause();
    expect(await exit).toEqual([0, null]);
    expect(steps()).toEqual(upTo(40));
    expect(remains()).toEqual([]);
  });

  test.runIf(existsSync("/dev/full"))(
    "is a full disk: the run continues; if the result is lost, this is reported and sets the exit code",
    async () => {
      const full = openSync("/dev/full", "w");
      const lostProgress = await start(tiny("--steps", "3"), {}, { stdio: ["ignore", "pipe", full] }).ended;
      expect(lostProgress).toMatchObject({ code: 0, out: expect.stringMatching(/^done: 3 steps/) });
      const lostResult = await start(
        tiny("--steps", "3", "--out", "second"),
        {},
        { stdio: ["ignore", full, "pipe"] },
      ).ended;
      expect(lostResult).toMatchObject({
        code: 1,
        err: expect.stringMatching(/\ngradmix: the output could not be written \(the disk is full\)\n$/),
      });
      expect(existsSync(join(folder, "second/model/model.safetensors"))).toBe(true);
      const help = await start(["--help"], {}, { stdio: ["ignore", full, "pipe"] }).ended;
      expect(help).toMatchObject({
        code: 1,
        err: "gradmix: the output could not be written (the disk is full)\n",
      });
      closeSync(full);
    },
  );

  test.runIf(hasPython)(
    "is a terminal that is closed: the run saves a checkpoint and exits with the code of a hang-up",
    async () => {
      const script = `
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0: os.execvp(sys.argv[1], sys.argv[1:])
while not (os.path.exists("run/metrics.jsonl") and os.path.getsize("run/metrics.jsonl") > 1000):
    if select.select([fd], [], [], 0.05)[0]: os.read(fd, 65536)
os.close(fd)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`;
      const child = spawn(
        "python3",
        ["-c", script, process.execPath, command, ...tiny("--steps", "1000000")],
        {
          cwd: folder,
        },
      );
      children.push(child);
      const { out, err } = await collect(child);
      expect([out.trim(), err]).toEqual(["129", ""]);
      expect(checkpoints()).toContain(steps().length);
      expect(remains()).toEqual([]);
    },
  );
});

describe("a file for which there is no room", () => {
  test("the metrics (a real limit): the run ends with a checkpoint, and the resumed run has every line", async () => {
    const args = tiny("--steps", "260", "--checkpoint-every", "100", "--eval-every", "0");
    const child = spawn("bash", ["-c", 'ulimit -f 80; exec "$0" "$@"', process.execPath, command, ...args], {
      cwd: folder,
    });
    children.push(child);
    const { code, err } = await collect(child);
    expect(code).toBe(2);
    const [, stopped, kept] =
      /\ngradmix: run\/metrics\.jsonl: cannot be written \(the file is too large\)\. The run ends after step (\d+); the checkpoint of step (\d+) is kept; to continue from it, run gradmix train --resume run\n$/.exec(
        err,
      ) ?? [err];
    expect(kept).toBe(stopped);
    expect(checkpoints()).toContain(Number(kept));
    // All lines are complete; only the one without room is missing.
    expect(steps()).toEqual(upTo(Number(stopped) - 1));
    expect(remains()).toEqual([]);
    expect((await gradmix(["train", "--resume", "run"])).code).toBe(0);
    expect(steps()).toEqual(upTo(260));
    expect((await gradmix([...args, "--out", "whole"])).code).toBe(0);
    expect(outcome("run")).toEqual(outcome("whole"));
  });

  test("a checkpoint: the previous one is kept, and no part of the new one", async () => {
    const { code, err } = await gradmix(tiny("--steps", "8"), {
      FAIL: JSON.stringify({ call: "write", path: "step-00000004", nth: 1, code: "ENOSPC" }),
    });
    expect(code).toBe(2);
    expect(err).toMatch(
      /\ngradmix: run\/checkpoints\/step-00000004\.safetensors: cannot be written \(the disk is full\)\. The run ends after step 4; the checkpoint of step 2 is kept; [^\n]*\n$/,
    );
    expect(checkpoints()).toEqual([2]);
    expect(remains()).toEqual([]);
  });
});

describe("an error leaves one line, a code, and no lock", () => {
  const cases: [string, string[], string, number][] = [
    ["in the data", ["--domain", "c=missing.jsonl"], "no such file", 2],
    ["in a domain that is too short", ["--context", "60000"], "less than one window", 2],
    ["for want of memory", ["--memory-limit", "4MiB", "--dim", "512"], "bytes were asked for", 2],
    [
      "in the loss",
      ["--lr", "10", "--weight-decay", "10", "--schedule", "constant", "--clip", "0", "--steps", "50"],
      "became|no longer finite|alignments of domain .* is (NaN|-?Infinity)",
      2,
    ],
    ["in the folder", ["--out", "/dev/null/run"], "/dev/null", 2],
  ];
  test.each(cases)("%s", async (_, options, message, expected) => {
    const { code, err } = await gradmix(tiny("--steps", "5", ...options));
    expect(err.trimEnd().split("\n").at(-1)).toMatch(new RegExp(`^gradmix: .*(${message})`));
    expect(code).toBe(expected);
    expect(remains()).toEqual([]);
  });

  test("an unexpected error in the middle of a step", async () => {
    const { code, err } = await gradmix(tiny("--steps", "50"), {
      FAIL: JSON.stringify({ call: "rm", path: "step-00000002", nth: 1, code: "EPERM" }),
    });
    expect(code).toBe(2);
    expect(err).toMatch(/\ngradmix: [^\n]*step-00000002[^\n]*\(not permitted\)[^\n]*\n$/);
    expect(remains()).toEqual([]);
  });
});
