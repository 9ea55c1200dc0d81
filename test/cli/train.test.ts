/** Whole runs through the command, on small generated text: results, resuming, kills, bad data. */
import { type ChildProcess, spawn } from "node:child_process";
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
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { init, shutdown, tensor } from "gradmix";
import { fromHuggingFace } from "gradmix/nn";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { readRunRecord } from "#dist/runs/record.js";
import { timeless } from "./timeless.ts";
import { lastGiven } from "./last-given.ts";
import { runCommand } from "./served.ts";

const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-train-"));
  const lines = (words: string, n: number): string =>
    Array.from(
      { length: n },
      (_, i) => `{"text":${JSON.stringify(`${words} ${(i * 7919) % 97}. `.repeat(3))}}`,
    ).join("\n");
  writeFileSync(join(folder, "prose.jsonl"), lines("the dog sleeps while the quick fox jumps over it", 60));
  writeFileSync(
    join(folder, "code.jsonl.gz"),
    gzipSync(lines("for (let i = 0; i < n; i++) sum += items[i]", 60)),
  );
  writeFileSync(join(folder, "target.jsonl"), lines("while (j < n) total += items[j++]", 24));
});
const children: ChildProcess[] = [];
afterEach(() => {
  // A test that failed must not leave its run behind.
  for (const child of children.splice(0)) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
});

const small = [
  ...["--domain", "prose=prose.jsonl", "--domain", "code=code.jsonl.gz", "--target", "target.jsonl"],
  ...[
    "--tokenizer",
    "byte",
    "--dim",
    "32",
    "--layers",
    "1",
    "--heads",
    "2",
    "--context",
    "32",
    "--batch",
    "4",
  ],
  ...[
    "--update-every",
    "3",
    "--align-domain-examples",
    "2",
    "--align-target-examples",
    "2",
    "--eval-tokens",
    "128",
    "--eval-every",
    "6",
  ],
  ...["--checkpoint-every", "5", "--warmup", "2"],
];

interface Ended {
  code: number | null;
  out: string;
  err: string;
}

function gradmix(...args: string[]): Ended {
  const { status, stdout, stderr } = runCommand(["train", ...lastGiven(args)], { cwd: folder });
  return { code: status, out: stdout, err: stderr };
}

function start(...args: string[]): ChildProcess {
  const child = spawn(process.execPath, [command, "train", ...lastGiven(args)], {
    cwd: folder,
    stdio: "ignore",
  });
  children.push(child);
  return child;
}

interface Line {
  step: number;
  loss: number;
  seconds?: number;
  weights: Record<string, number>;
  tokens: number;
  alignments?: Record<string, { value: number; standardError: number | null; norm: number | null }>;
  evaluation?: { target: number; domains: Record<string, number> };
}

/** Whole lines of metrics so far, while a run is writing them. */
const lineCount = (run: string): number =>
  readFileSync(join(folder, run, "metrics.jsonl"), "utf8").split("\n").length - 1;

/** The metrics without the time that steps took. */
function metrics(run: string): Line[] {
  const lines = readFileSync(join(folder, run, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n");
  return lines.map((line) => {
    const whole = JSON.parse(line) as Line;
    expect(whole.seconds).toBeGreaterThan(0);
    return timeless(whole);
  });
}

const model = (run: string): Buffer => readFileSync(join(folder, run, "model/model.safetensors"));
const weights = (run: string): unknown => JSON.parse(readFileSync(join(folder, run, "weights.json"), "utf8"));

/** Two runs that must be the same to the bit. */
function expectSame(a: string, b: string): void {
  expect(metrics(a)).toEqual(metrics(b));
  expect(weights(a)).toEqual(weights(b));
  expect(model(a).equals(model(b))).toBe(true);
}

test("a run writes metrics, weights and a model that loads; DGA prefers the domain that resembles the target", async () => {
  const { code, out, err } = gradmix(
    ...small,
    "--steps",
    "24",
    "--eta",
    "3",
    "--tensorboard",
    "--out",
    "run",
  );
  expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
  expect(out).toContain("files    run");
  expect(readFileSync(join(folder, "run/report.html"), "utf8")).toMatch(
    /held-out loss on the target (fell|rose) from [\d.]+ to/,
  );
  const [events, ...others] = readdirSync(join(folder, "run/tensorboard"));
  expect(others).toEqual([]);
  expect(readFileSync(join(folder, "run/tensorboard", events), "utf8")).toMatch(
    /training\/loss[^]*held_out\/target[^]*weights\/code/,
  );
  const lines = metrics("run");
  expect(lines.map((line) => line.step)).toEqual(Array.from({ length: 24 }, (_, i) => i + 1));
  for (const { step, alignments, evaluation, weights: drawn } of lines) {
    expect(alignments !== undefined).toBe(step % 3 === 0);
    expect(evaluation !== undefined).toBe(step % 6 === 0);
    expectNear(
      Object.values(drawn).reduce((a, b) => a + b, 0),
      1,
      1e-12,
    );
  }
  const last = lines.at(-1);
  expect(last?.tokens).toBeLessThanOrEqual(24 * 4 * 32);
  expect(last?.loss).toBeLessThan(lines[0]?.loss ?? 0);
  expect(last?.alignments?.["code"]?.standardError).toBeGreaterThan(0);
  const { final } = weights("run") as { final: Record<string, number> };
  expect(final["code"]).toBeGreaterThan(0.6);

  const files = new Map(
    readdirSync(join(folder, "run/model")).map((name) => [
      name,
      new Uint8Array(readFileSync(join(folder, "run/model", name))),
    ]),
  );
  expect([...files.keys()].sort()).toEqual([
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  await init({ backend: "reference" });
  const loaded = fromHuggingFace(files);
  const logits = await loaded.logits(tensor([1, 2, 3], [1, 3], "i32")).data();
  expect(logits.length).toBe(3 * 257);
  expect(logits.every(Number.isFinite)).toBe(true);
  await shutdown();
});

test("by default, a share of the cost goes to evaluation, before the first step, between and at the end; the cost is printed first", () => {
  const silent = new Set(["--eval-tokens", "128", "--eval-every", "6"]);
  const args = small.filter((word) => !silent.has(word));
  const { code, err } = gradmix(...args, "--steps", "120", "--out", "run");
  expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
  const line = err.split("\n").findIndex((text) => text.startsWith("120 steps, 40 updates of the weights; "));
  expect(err.split("\n")[line]).toMatch(
    /; alignment \+\d+ %, evaluation \+\d+ % of training \(the target 3 times on [\d,]+ tokens, the domains (once|twice|\d+ times) on up to [\d,]+ tokens each\)$/,
  );
  expect(err.split("\n")[line + 1]).toMatch(/^step {3}0\/120 {2}target [\d.]+$/);
  const [start, ...lines] = metrics("run");
  expect(start).toMatchObject({ step: 0, event: "start" });
  expect(Object.keys((start as unknown as { cost: object }).cost)).toEqual(["alignment", "evaluation"]);
  // A model that knows nothing.
  expectNear(start.evaluation?.target, Math.log(257), 0.02);
  expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: 120 }, (_, i) => i + 1));
  const evaluations = lines.filter(({ evaluation }) => evaluation !== undefined);
  expect(evaluations.length).toBeGreaterThan(0);
  expect(evaluations.length).toBeLessThan(30);
  const last = lines.at(-1)?.evaluation;
  expect(last?.target).toBeLessThan(4);
  expect(Object.keys(last?.domains ?? {})).toEqual(["prose", "code"]);

  const rows = readFileSync(join(folder, "run/metrics.csv"), "utf8").split("\n");
  expect(rows[0]).toMatch(/^step,tokens,of,name,/);
  // With the line of before the first step.
  expect(rows.filter((row) => /^\d+,\d+,run,/.test(row)).length).toBe(121);

  // The files of a run can be read back.
  const record = readRunRecord(join(folder, "run"));
  expect(record.start?.evaluation.target).toBe(start.evaluation?.target);
  expect(record.steps.map(({ step }) => step)).toEqual(lines.map(({ step }) => step));
  expect(Object.fromEntries(record.weights?.final ?? [])).toEqual(
    (weights("run") as { final: object }).final,
  );
  const { domains, target, ...facts } = record.facts;
  expect(facts).toMatchObject({
    rule: "dga",
    steps: 120,
    batch: 4,
    context: 32,
    vocabSize: 257,
    repetitions: 4,
  });
  expect([...domains.keys()]).toEqual(["prose", "code"]);
  // Bytes are tokens here, and each document has an end-of-text token.
  const held = [...domains.values(), ...(target === null ? [] : [target])];
  expect(held.length).toBe(3);
  for (const { heldOutTokens, heldOutBytes, documents } of held) {
    expect(heldOutTokens - heldOutBytes).toBeGreaterThan(0);
    expect(heldOutTokens - heldOutBytes).toBeLessThan(documents / 2);
  }
  const evaluated = record.steps.filter(({ evaluation }) => evaluation !== undefined);
  for (const { seconds, evaluationSeconds } of evaluated) {
    expect(evaluationSeconds).toBeGreaterThan(0);
    expect(evaluationSeconds).toBeLessThan(seconds);
  }
});

test.each([
  ["the thread count", ["--threads", "1"], ["--threads", "3"]],
  ["quiet and evaluation", ["--quiet"], ["--checkpoint-every", "3"]],
])("the bits do not depend on %s", (_, first, second) => {
  expect(gradmix(...small, "--steps", "8", "--out", "a", ...first).code).toBe(0);
  expect(gradmix(...small, "--steps", "8", "--out", "b", ...second).code).toBe(0);
  expectSame("a", "b");
});

describe("a run that is resumed", () => {
  const modes: [string, string[]][] = [
    ["alignments from a batch, segmented", []],
    ["alignments from the steps", ["--align-from", "step", "--update-every", "4"]],
    [
      "perDomain, clipped, with a floor",
      ["--align-estimator", "perDomain", "--normalise", "clipped", "--floor", "0.1"],
    ],
    ["forward, raw", ["--align-estimator", "forward", "--normalise", "raw", "--preset", "gpt2"]],
  ];
  test.each(modes)(
    "has the same bits as an uninterrupted one, after a kill at any moment: %s",
    async (_, options) => {
      const args = [...small, "--steps", "17", "--threads", "2", ...options];
      expect(gradmix(...args, "--out", "whole").code).toBe(0);
      const process = start(...args, "--out", "cut");
      const ended = once(process, "exit");
      // After the checkpoint of step 5 or 10, somewhere on the way.
      const checkpoints = join(folder, "cut/checkpoints");
      while (!existsSync(checkpoints) || readdirSync(checkpoints).length === 0) await sleep(5);
      await sleep(20);
      process.kill("SIGKILL");
      await ended;
      const { code, err } = gradmix("--resume", "cut");
      expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
      expectSame("whole", "cut");
    },
  );

  test("Ctrl-C ends with a checkpoint of the last step", async () => {
    const args = [...small, "--steps", "4000", "--checkpoint-every", "0"];
    const process = start(...args, "--out", "cut");
    const ended = once(process, "exit");
    while (!existsSync(join(folder, "cut/metrics.jsonl")) || lineCount("cut") < 3) await sleep(20);
    process.kill("SIGINT");
    expect(await ended).toEqual([130, null]);
    const steps = metrics("cut").length;
    expect(readdirSync(join(folder, "cut/checkpoints"))).toEqual([
      `step-${String(steps).padStart(8, "0")}.safetensors`,
    ]);
    expect(existsSync(join(folder, "cut/weights.json"))).toBe(true);
  });

  test("a run whose folder is deleted still ends", async () => {
    mkdirSync(join(folder, "inner"));
    for (const name of ["prose.jsonl", "code.jsonl.gz", "target.jsonl"])
      writeFileSync(join(folder, "inner", name), readFileSync(join(folder, name)));
    const child = spawn(process.execPath, [command, "train", ...small, "--steps", "30", "--out", "cut"], {
      cwd: join(folder, "inner"),
      stdio: "ignore",
    });
    children.push(child);
    const ended = once(child, "exit");
    while (!existsSync(join(folder, "inner/cut/metrics.jsonl"))) await sleep(5);
    // The run may write a file between a look into the folder and its removal: then there is another try.
    for (let tries = 0; existsSync(join(folder, "inner")) && tries < 100; tries++)
      try {
        rmSync(join(folder, "inner"), { recursive: true, force: true });
      } catch {
        await sleep(5);
      }
    expect(existsSync(join(folder, "inner"))).toBe(false);
    expect(await ended).not.toEqual([null, "SIGKILL"]);
  });

  test("becomes the run that would have begun with more steps, and its metrics record the change", () => {
    const args = [...small, "--schedule", "constant", "--checkpoint-every", "4"];
    expect(gradmix(...args, "--steps", "12", "--out", "whole").code).toBe(0);
    expect(gradmix(...args, "--steps", "8", "--out", "short").code).toBe(0);
    const { code, err } = gradmix("--resume", "short", "--steps", "12");
    expect(code).toBe(0);
    expect(err).toContain("changed from here on: steps 12 (was 8)");
    const line = { step: 8, event: "resumed", changes: { steps: { from: 8, to: 12 } } };
    const lines = readFileSync(join(folder, "short/metrics.jsonl"), "utf8").trim().split("\n");
    expect(lines.length).toBe(13);
    expect(JSON.parse(lines[8])).toEqual(line);
    expect(model("short").equals(model("whole"))).toBe(true);
    expect(weights("short")).toEqual(weights("whole"));
  });

  test("is refused with more steps, in one line, if dga limits the repetitions of a domain; a larger limit allows it", () => {
    const args = [...small, "--schedule", "constant", "--checkpoint-every", "4", "--steps", "8"];
    const limit = (repetitions: number): string[] => ["--rule-options", JSON.stringify({ repetitions })];
    expect(gradmix(...args, ...limit(0.1), "--out", "tight").code).toBe(0);
    const before = readFileSync(join(folder, "tight/metrics.jsonl"));
    const { code, err } = gradmix("--resume", "tight", "--steps", "12");
    expect(code).toBe(2);
    expect(err).toMatch(
      /\ngradmix: --steps: the run of 8 steps cannot become a run of 12 steps: the rule's limit on the repetitions of domain "(prose|code)" depends on the number of tokens of the run \(--rule-options '\{"repetitions": …\}' sets the limit\); to continue from its parameters, .*--init-from\n$/,
    );
    expect(readFileSync(join(folder, "tight/metrics.jsonl"))).toEqual(before);
    expect(gradmix(...args, ...limit(2), "--out", "wide").code).toBe(0);
    expect(gradmix("--resume", "wide", "--steps", "12").code).toBe(0);
  });

  test("--mixing-preset paper takes the same steps as the options that it stands for", () => {
    const args = [...small, "--steps", "9"];
    const options = ["--normalise", "raw", "--eta", "1", "--beta", "0.1", "--prior", "uniform"];
    expect(gradmix(...args, "--mixing-preset", "paper", "--out", "preset").code).toBe(0);
    expect(gradmix(...args, ...options, "--align-from", "batch", "--out", "explicit").code).toBe(0);
    expect(gradmix(...args, "--out", "own").code).toBe(0);
    expectSame("explicit", "preset");
    expect(existsSync(join(folder, "preset/histogram.json"))).toBe(false);
    expect(existsSync(join(folder, "own/histogram.json"))).toBe(true);
    expect(weights("own")).not.toEqual(weights("preset"));
  });

  test("keeps the SIMD level with which it began, and changes it only on request", () => {
    const args = [...small, "--backend", "cpu", "--steps", "8", "--checkpoint-every", "4"];
    expect(gradmix(...args, "--simd", "plain", "--out", "whole").code).toBe(0);
    for (const out of ["kept", "changed"]) {
      expect(gradmix(...args, "--simd", "plain", "--out", out).code).toBe(0);
      // As if "auto" had found no relaxed instructions when it began.
      const file = join(folder, out, "config.json");
      writeFileSync(file, readFileSync(file, "utf8").replace('"simd": "plain"', '"simd": "auto"'));
      rmSync(join(folder, out, "checkpoints/step-00000008.safetensors"));
    }
    const kept = gradmix("--resume", "kept");
    expect([kept.code, kept.err.includes("otherwise")]).toEqual([0, false]);
    expectSame("whole", "kept");
    const changed = gradmix("--resume", "changed", "--simd", "relaxed");
    expect(changed.code).toBe(0);
    expect(changed.err).toContain("changed from here on: simd relaxed (was plain)");
    const line = readFileSync(join(folder, "changed/metrics.jsonl"), "utf8").split("\n")[4] ?? "";
    expect(JSON.parse(line)).toEqual({
      step: 4,
      event: "resumed",
      changes: { simd: { from: "plain", to: "relaxed" } },
    });
  });

  test("a finished run is not continued", () => {
    expect(gradmix(...small, "--steps", "6", "--out", "run").code).toBe(0);
    const before = metrics("run");
    const { code, out } = gradmix("--resume", "run");
    expect(code).toBe(0);
    expect(out).not.toContain("NaN");
    expect(metrics("run")).toEqual(before);
  });

  test("works with a tokenizer of any kind, but not with one that has changed", () => {
    const golden = JSON.parse(
      readFileSync(resolve(import.meta.dirname, "../golden/library-tokenizers.json"), "utf8"),
    ) as readonly { name: string; file: object }[];
    const file = golden.find(({ name }) => name === "t5")?.file ?? expect.unreachable();
    const path = join(folder, "t5.json");
    writeFileSync(path, JSON.stringify(file));
    const data = small.map((one) => (one === "byte" ? "t5.json" : one));
    expect(gradmix(...data, "--steps", "3", "--out", "run").code).toBe(0);
    expect(JSON.parse(readFileSync(join(folder, "run/model/tokenizer.json"), "utf8"))).toEqual(file);
    writeFileSync(path, JSON.stringify({ ...file, normalizer: null }));
    const { code, err } = gradmix("--resume", "run", "--steps", "4");
    expect([code, err]).toEqual([
      2,
      "gradmix: --resume: the tokenizer t5.json has changed since the run began; restore it, or start a new run\n",
    ]);
    // A file with another layout has the same content.
    writeFileSync(path, JSON.stringify(file, null, 2));
    expect(gradmix("--resume", "run", "--steps", "4").code).toBe(0);
  });

  test("is refused if its text has changed", () => {
    expect(gradmix(...small, "--steps", "6", "--out", "run").code).toBe(0);
    writeFileSync(
      join(folder, "prose.jsonl"),
      `${readFileSync(join(folder, "prose.jsonl"), "utf8")}\n{"text":"more of it"}`,
    );
    const { code, err } = gradmix("--resume", "run");
    expect(code).toBe(2);
    expect(err).toMatch(
      /^gradmix: --resume: the text of domain "prose" has changed \(then 1 file, 60 documents, .*; now 1 file, 61 documents, .*\n$/,
    );
  });
});

describe("a run that begins with the parameters of another", () => {
  test("has the same parameters to the bit, taken from the run, its checkpoint or its model, and takes its tokenizer and shape", () => {
    const texts = small.slice(0, 6);
    const shape = ["--dim", "32", "--layers", "1", "--heads", "2", "--kv-heads", "1", "--context", "32"];
    const quick = ["--batch", "4", "--eval-every", "0", "--steps", "2", "--align-domain-examples", "2"];
    const first = gradmix(
      ...texts,
      ...shape,
      ...quick,
      "--tokenizer",
      "bpe",
      "--vocab-size",
      "300",
      "--out",
      "run",
    );
    expect(first.code).toBe(0);
    // With a learning rate near 0 the parameters do not change.
    const still = [...texts, ...quick, "--lr", "1e-300", "--warmup", "2", "--rule", "uniform"];
    const checkpoint = "run/checkpoints/step-00000002.safetensors";
    for (const [n, from] of ["run", checkpoint, "run/model"].entries()) {
      const out = `from-${n}`;
      const { code, err } = gradmix(...still, "--init-from", from, "--out", out);
      expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
      const step = from === "run/model" ? "" : ", after step 2";
      expect(err).toContain(`starting from the parameters of ${from}${step}\n`);
      expect(model(out).equals(model("run"))).toBe(true);
      for (const name of ["tokenizer.json", "config.json"])
        expect(readFileSync(join(folder, out, "model", name))).toEqual(
          readFileSync(join(folder, "run/model", name)),
        );
    }
    // The model may be trained on shorter windows, and the run continues after the model that it began with was deleted.
    expect(gradmix(...still, "--init-from", "run/model", "--context", "16", "--out", "shorter").code).toBe(0);
    rmSync(join(folder, "run"), { recursive: true });
    expect(gradmix("--resume", "shorter", "--steps", "3").code).toBe(0);
    expect(JSON.parse(readFileSync(join(folder, "shorter/model/config.json"), "utf8"))).toMatchObject({
      max_position_embeddings: 32,
      num_key_value_heads: 1,
    });
  });
});

describe("bad data: one line, exit code 2, nothing written", () => {
  const cases: [string, string[], RegExp][] = [
    ["a file that is not there", ["--domain", "x=missing.txt"], /domain "x": no such file: missing\.txt/],
    ["a glob without a match", ["--domain", "x=*.nothing"], /domain "x": nothing matches \*\.nothing/],
    ["a short domain", ["--domain", "x=short.txt"], /"x": \d+ tokens are less than one window of 32 \+ 1/],
    ["an empty target", ["--target", "empty.txt"], /"target": it is empty/],
    [
      "a broken line",
      ["--domain", "x=broken.jsonl"],
      /broken\.jsonl:2: the line is not JSON; .*--skip-bad-lines/,
    ],
    ["a missing field", ["--text-field", "body"], /target\.jsonl:1: the object has no field "body"/],
    ["invalid UTF-8", ["--domain", "x=latin1.txt"], /latin1\.txt: invalid UTF-8/],
    [
      "the target's own file",
      ["--domain", "x=target.jsonl"],
      /domain "x": the only file of target\.jsonl belongs to the target/,
    ],
    [
      "a forward estimator with cosines",
      ["--align-estimator", "forward", "--normalise", "cosine"],
      /--align-estimator: forward does not compute the gradient norms/,
    ],
    ["a floor that does not fit", ["--floor", "0.6"], /--floor: 0\.6 is not below 1 \/ 2/],
    [
      "weights of an unknown domain",
      ["--rule", "static", "--weights", "prose=0.5,cod=0.5"],
      /--weights: "cod" is not a domain of this run; did you mean code/,
    ],
    ["weights off the simplex", ["--rule", "static", "--weights", "prose=0.5,code=0.6"], /weights.*sum/],
    ["heads that do not divide", ["--heads", "3"], /heads: 3 .*divide/],
    ["a threadless machine", ["--threads", "0"], /--threads/],
  ];
  test.each(cases)("%s", (_, options, message) => {
    writeFileSync(join(folder, "short.txt"), "too short");
    writeFileSync(join(folder, "empty.txt"), "");
    writeFileSync(join(folder, "broken.jsonl"), '{"text":"fine"}\n{"text":\n');
    writeFileSync(join(folder, "latin1.txt"), Buffer.from([0x63, 0x61, 0x66, 0xe9]));
    const target = options.includes("--target")
      ? small.filter((_, i) => small[i] !== "--target" && small[i - 1] !== "--target")
      : small;
    const { code, out, err } = gradmix(...target, "--steps", "3", "--out", "run", ...options);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err.trimEnd().split("\n").at(-1)).toMatch(message);
    expect(existsSync(join(folder, "run"))).toBe(false);
  });

  test.each(["byte", "bpe"])("bad lines can be skipped, and are counted once (%s)", (tokenizer) => {
    writeFileSync(
      join(folder, "broken.jsonl"),
      `${readFileSync(join(folder, "prose.jsonl"), "utf8")}\n{"text":\n{}\n`,
    );
    const { code, err } = gradmix(
      ...small,
      "--domain",
      "x=broken.jsonl",
      "--tokenizer",
      tokenizer,
      "--skip-bad-lines",
      "--steps",
      "2",
      "--out",
      "run",
    );
    expect(code).toBe(0);
    expect(err).toContain("skipped 2 bad lines");
  });

  test("a domain of which every line is skipped is named, with the reason", () => {
    writeFileSync(join(folder, "latin.txt"), Buffer.from("caf\xe9 cr\xe8me", "latin1"));
    const args = [...small, "--domain", "x=latin.txt", "--domain", "p=prose.jsonl", "--tokenizer", "byte"];
    const { code, err } = gradmix(...args, "--skip-bad-lines", "--steps", "2", "--out", "run");
    expect(code).toBe(2);
    expect(err.trimEnd().split("\n").at(-1)).toBe(
      'gradmix: domain "x": --skip-bad-lines left out all of its text (the last: latin.txt: invalid UTF-8 at byte 4); mend its files, or do not name them',
    );
  });

  test("a number that is too large is shown as it was typed", () => {
    expect(gradmix(...small, "--lr", "1e400", "--out", "run").err).toBe(
      'gradmix: --lr: "1e400" is not a number above 0 and at most 10\n',
    );
    expect(gradmix(...small, "--weights", "", "--out", "run").err).toBe("gradmix: --weights: is empty\n");
    const mixed = runCommand(["mix", "--domains", "a,b", "--weights-file", ""], { cwd: folder });
    expect(mixed.stderr).toBe("gradmix: --weights-file: is empty\n");
  });

  test("a resumed run may go to another backend, whatever it was told about the cpu", () => {
    const begun = gradmix(
      ...small,
      "--threads",
      "1",
      "--steps",
      "2",
      "--schedule",
      "constant",
      "--out",
      "run",
    );
    expect(begun.code).toBe(0);
    const { code, err } = gradmix("--resume", "run", "--steps", "3", "--backend", "reference");
    expect({ code, err: code === 0 ? "" : err }).toEqual({ code: 0, err: "" });
    expect(err).toContain("backend reference (was cpu)");
    const both = gradmix("--resume", "run", "--steps", "4", "--backend", "reference", "--threads", "1");
    expect(both.err).toBe(
      "gradmix: --threads: an option of the cpu backend, not of reference; leave it out\n",
    );
  });

  test("a loss that is not finite stops the run at its step; the last checkpoint is good", () => {
    const { code, err } = gradmix(
      ...small,
      "--steps",
      "40",
      "--lr",
      "10",
      "--weight-decay",
      "1",
      "--schedule",
      "constant",
      "--warmup",
      "4",
      "--checkpoint-every",
      "1",
      "--out",
      "run",
    );
    expect(code).toBe(2);
    expect(err).toMatch(
      /gradmix: (the (loss became|gradient became|parameters are no longer finite)|dga: alignments of domain).* step \d+; lower the learning rate\. The run ends after step \d+; to start again from the checkpoint of step \d+ /,
    );
    const advised = /lower learning rate: gradmix (train .*)\n$/.exec(err)?.[1] ?? "";
    expect(advised).toMatch(
      /^train run\/config\.json --init-from run\/checkpoints\/step-\d+\.safetensors --lr 1 --out run-2$/,
    );
    const again = gradmix(...advised.split(" ").slice(1));
    expect({ code: again.code, err: again.code === 0 ? "" : again.err }).toEqual({ code: 0, err: "" });
    expect(again.err).toContain("starting from the parameters of run/checkpoints");
    expect(metrics("run").every(({ loss }) => Number.isFinite(loss))).toBe(true);
    expect(readdirSync(join(folder, "run/checkpoints")).length).toBeGreaterThan(0);
  });

  test("too little memory is reported with the bytes before the first step", () => {
    const { code, err } = gradmix(
      ...small,
      "--dim",
      "128",
      "--batch",
      "64",
      "--context",
      "64",
      "--steps",
      "3",
      "--memory-limit",
      "8MiB",
      "--out",
      "run",
    );
    expect(code).toBe(2);
    expect(err).toMatch(/gradmix: cpu: \d+ bytes were asked for with \d+ of 8388608 bytes in use/);
  });
});
