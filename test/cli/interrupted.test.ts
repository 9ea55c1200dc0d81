/** Runs that are stopped, or whose disk fails, at any point continue to the same bits. In this process, on a tiny corpus. */
import * as nodeFs from "node:fs";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { init, shutdown } from "gradmix";
import { evaluationWindows, trainBpe } from "gradmix/data";
import { createMixer, createTrainer } from "gradmix/dga";
import { createGPT, createSchedule } from "gradmix/nn";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import type { WriteFs } from "#dist/node/files.js";
import { checkFree, findRun, openRunFolder, type RunFolder } from "#dist/cli/run-folder.js";
import { listCheckpoints } from "#dist/cli/run-places.js";
import { readCheckpoint } from "gradmix/node";
import { readReference } from "#dist/cli/reference.js";
import { runTraining } from "#dist/cli/run.js";
import type { RunResult } from "#dist/cli/run-events.js";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { GradmixError } from "#dist/errors.js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { timeless } from "./timeless.ts";

let root = "";
let whole: unknown;
let wholeByShare: unknown;
let runs = 0;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "gradmix-interrupted-"));
  for (const [i, name] of ["a", "b", "target"].entries())
    writeFileSync(
      join(root, `${name}.jsonl`),
      Array.from(
        { length: 30 },
        (_, j) => `{"text":"the ${["dog", "cat", "dog's"][i]} sees ${(j * 7919) % 97} houses"}\n`,
      ).join(""),
    );
  const config = newConfig();
  await train(config);
  whole = outcome(config.run.out);
  const other = newConfig(byShare);
  await train(other);
  wholeByShare = outcome(other.run.out);
});
afterAll(() => rmSync(root, { recursive: true }));

const byInterval = { evalEvery: 3, evalTokens: 64 };
/** The target before the first step and after each, the domains before the first and at the end. */
const byShare = { evalShare: 0.6, evalTokens: 16 };

/** Seven steps with a checkpoint every second and an evaluation every third, in a folder of its own. */
function newConfig(evaluation: Partial<TrainConfig["run"]> = byInterval): TrainConfig {
  const text = (name: string): string => join(root, `${name}.jsonl`);
  const json = {
    data: { domains: { a: text("a"), b: text("b") }, target: text("target"), tokenizer: "byte" },
    model: { dim: 8, layers: 1, heads: 1, context: 8 },
    training: { steps: 7, batch: 2 },
    mixing: { updateEvery: 2 },
    alignment: { domainExamples: 1, targetExamples: 1 },
    run: {
      backend: "cpu",
      threads: 1,
      ...evaluation,
      checkpointEvery: 2,
      out: join(root, `run${runs++}`),
    },
  };
  return resolveConfig([jsonLayer(json, "c.json")]);
}

interface Ways {
  /** Continues the run in the folder. */
  resume?: boolean;
  fs?: WriteFs;
  signal?: AbortSignal;
  /** Called when the folder was made, before the first step. */
  onBegin?: () => void;
  /** Called after a step's line was written. */
  onStep?: () => void;
}

/** Runs the command without its output. */
async function train(
  config: TrainConfig,
  { resume = false, fs = nodeFs, signal, onBegin, onStep }: Ways = {},
): Promise<RunResult> {
  const folder: RunFolder = openRunFolder(config, resume ? findRun(config.run.out) : null, fs);
  try {
    return await runTraining(config, {
      onStart: (line) => folder.appendMetrics(line),
      onStep(metrics) {
        folder.appendMetrics(metrics);
        onStep?.();
      },
      onResume: (line) => folder.appendMetrics(line),
      onEvent: () => {},
      signal: signal ?? new AbortController().signal,
      store: {
        ...folder,
        begin() {
          folder.begin();
          onBegin?.();
        },
      },
    });
  } finally {
    folder.close();
  }
}

/** Metrics without times, weights and model. */
function outcome(out: string): unknown {
  const lines = readFileSync(join(out, "metrics.jsonl"), "utf8").split("\n");
  expect(lines.pop()).toBe("");
  const file = (name: string): string => readFileSync(join(out, name)).toString("base64");
  return {
    metrics: lines.map((line) => timeless(JSON.parse(line) as object)),
    files: [file("weights.json"), file("model/model.safetensors")],
  };
}

/** Steps whose lines are whole. */
const steps = (out: string): number =>
  readFileSync(join(out, "metrics.jsonl"), "utf8")
    .split("\n")
    .filter((line) => line.includes('"loss"')).length;

/** Locks, claims and temporary files. */
const remains = (out: string): string[] =>
  nodeFs.existsSync(out)
    ? readdirSync(out, { recursive: true, encoding: "utf8" }).filter((name) => /(^|\/)lock|\.tmp$/.test(name))
    : [];

const ways = [
  ["every so many steps", byInterval, () => whole],
  ["by a share", byShare, () => wholeByShare],
] as const;

test("a run that evaluates by a share evaluates before its first step and at the end", () => {
  expect(wholeByShare).toMatchObject({
    metrics: [
      {
        step: 0,
        event: "start",
        evaluation: { target: expect.any(Number), domains: { a: expect.any(Number), b: expect.any(Number) } },
        // Eight evaluations of 2 windows and two of 4, over seven steps of 2 at three each.
        cost: { alignment: expect.any(Number), evaluation: 24 / 42 },
      },
      ...[1, 2, 3, 4, 5, 6].map((step) => ({ step, evaluation: { domains: {} } })),
      { step: 7, evaluation: { domains: { a: expect.any(Number), b: expect.any(Number) } } },
    ],
  });
  // As it trains, whatever is evaluated.
  expect(wholeByShare).toMatchObject({ files: (whole as { files: unknown }).files });
});

test.each(ways)(
  "a run that is stopped before its first step has a checkpoint of step 0: %s",
  async (_, way, want) => {
    const config = newConfig(way);
    const stop = new AbortController();
    const result = await train(config, { signal: stop.signal, onBegin: () => stop.abort() });
    expect(result).toMatchObject({ step: 0, interrupted: true });
    expect(listCheckpoints(config.run.out).map(({ step }) => step)).toEqual([0]);
    expect(await train(config, { resume: true })).toMatchObject({ step: 7, interrupted: false });
    expect(outcome(config.run.out)).toEqual(want());
  },
);

test("a run that is killed before its first checkpoint begins anew, and has one line before the first step", async () => {
  const config = newConfig(byShare);
  const killed = new Error("killed");
  const onStep = (): never => {
    throw killed;
  };
  await expect(train(config, { onStep })).rejects.toBe(killed);
  expect(readFileSync(join(config.run.out, "metrics.jsonl"), "utf8").split("\n")).toHaveLength(3);
  expect(await train(config, { resume: true })).toMatchObject({ step: 7, interrupted: false });
  expect(outcome(config.run.out)).toEqual(wholeByShare);
});

test.each([
  ["every so many steps", byShare, { ...byInterval, evalShare: null }, (): unknown => whole],
  ["by a share", byInterval, { ...byShare, evalEvery: null }, (): unknown => wholeByShare],
])(
  "a run may be resumed with evaluation %s in place of the other way, and trains the same",
  async (_, from, to, want) => {
    const config = newConfig(from);
    const stop = new AbortController();
    await train(config, { signal: stop.signal, onStep: () => stop.abort() });
    await train({ ...config, run: { ...config.run, ...to } }, { resume: true });
    const found = outcome(config.run.out);
    expect(found).toMatchObject({ files: (whole as { files: unknown }).files });
    const [late, wanted] = [found, want()].map((run) =>
      (run as { metrics: { step: number }[] }).metrics.filter(({ step }) => step > 1),
    );
    expect(late).toEqual(wanted);
  },
);

/** A signal that is aborted when it is asked for the nth time by what is cut short at once: reading, and batches of evaluations. */
function abortedAt(n: number): { signal: AbortSignal; asked: () => number } {
  const controller = new AbortController();
  const { signal } = controller;
  let asked = 0;
  signal.throwIfAborted = () => {
    if (++asked === n) controller.abort();
    AbortSignal.prototype.throwIfAborted.call(signal);
  };
  return { signal, asked: () => asked };
}

test("a run that is stopped at any check of its signal, while reading or in a batch of an evaluation, resumes to the same bits", async () => {
  const { signal, asked } = abortedAt(Infinity);
  await train(newConfig(), { signal });
  expect(asked()).toBeGreaterThan(100);
  let evaluating = 0;
  // Documents are asked for many times, so most places are taken from the evaluations at the end.
  const places = fc.oneof(
    fc.integer({ min: 1, max: asked() }),
    fc.integer({ min: asked() - 40, max: asked() }),
  );
  await fc.assert(
    fc.asyncProperty(places, async (place) => {
      const config = newConfig();
      const { out } = config.run;
      const stopped = abortedAt(place);
      const result = await train(config, { signal: stopped.signal }).catch((error: unknown) => error);
      expect(remains(out)).toEqual([]);
      if (!nodeFs.existsSync(out)) {
        expect(result).toBe(stopped.signal.reason);
        await train(config);
      } else {
        evaluating++;
        expect(result).toMatchObject({ interrupted: true, step: steps(out) });
        expect(listCheckpoints(out).at(-1)?.step).toBe(steps(out));
        await train(config, { resume: true });
      }
      expect(outcome(out)).toEqual(whole);
    }),
    { numRuns: 15 },
  );
  expect(evaluating).toBeGreaterThan(0);
});

test("a run that evaluates by a share and is stopped in any batch of its evaluations resumes to the same bits", async () => {
  const { signal, asked } = abortedAt(Infinity);
  await train(newConfig(byShare), { signal });
  // The target's eight times two windows, the domains' twice.
  for (let place = asked() - 11; place <= asked(); place++) {
    const config = newConfig(byShare);
    const { out } = config.run;
    const result = await train(config, { signal: abortedAt(place).signal });
    expect(result).toMatchObject({ interrupted: true, step: steps(out) });
    expect(listCheckpoints(out).at(-1)?.step).toBe(steps(out));
    await train(config, { resume: true });
    expect(outcome(out), String(place)).toEqual(wholeByShare);
  }
});

/** The calls that write, of which the nth fails; `forever`: and all after it that need room. */
function failingAt(
  n: number,
  code: string,
  forever: boolean,
): { fs: WriteFs; made: () => number; failed: () => string } {
  let made = 0;
  let failed = "";
  const calls = ["openSync", "writeSync", "fsyncSync", "renameSync", "linkSync", "mkdirSync"] as const;
  const fs: Record<string, unknown> = { ...nodeFs };
  for (const name of calls)
    fs[name] = (...args: unknown[]): unknown => {
      // Files are also opened for reading, to sync a folder.
      if (name !== "openSync" || args[1] !== "r") made++;
      if (made === n && failed === "") failed = `${name} ${String(args[name === "renameSync" ? 1 : 0])}`;
      if (made === n || (forever && made > n && name === "writeSync")) {
        if (!forever) made++;
        throw Object.assign(new Error(name), { code });
      }
      return (nodeFs[name] as (...all: unknown[]) => unknown)(...args);
    };
  return { fs: fs as unknown as WriteFs, made: () => made, failed: () => failed };
}

describe("a disk that fails", () => {
  test.each([
    ["once", "EIO", false, byInterval],
    ["from then on", "ENOSPC", true, byInterval],
    ["once, evaluating by a share", "EIO", false, byShare],
  ])(
    "at any call, %s: the error names the file, no lock or partial file is left, and the saved state resumes to the same bits",
    async (_, code, forever, way) => {
      const counting = failingAt(Infinity, code, false);
      await train(newConfig(way), { fs: counting.fs });
      expect(counting.made()).toBeGreaterThan(50);
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: counting.made() }), async (n) => {
          const config = newConfig(way);
          const { out } = config.run;
          const disk = failingAt(n, code, forever);
          const error = await train(config, { fs: disk.fs }).catch((caught: unknown) => caught);
          // A file system without links is served in another way.
          if (!(error instanceof GradmixError))
            throw new Error(`${disk.failed()} was not noticed`, { cause: error });
          expect(error.code).toBe("io");
          expect(error.message).toMatch(/^[^\n]* (cannot be written|cannot be read) \([^\n]*$/);
          expect(remains(out)).toEqual([]);
          const kept = /the checkpoint of step (\d+) is kept/.exec(error.message)?.[1];
          if (nodeFs.existsSync(join(out, "config.json"))) {
            const [newest, promised] = [listCheckpoints(out).at(-1)?.step ?? -1, Number(kept ?? -1)];
            // If only a sync failed, the file may exist, but it need not last.
            if (disk.failed().startsWith("fsync")) expect(newest).toBeGreaterThanOrEqual(promised);
            else expect(newest).toBe(promised);
            await train(config, { resume: true });
          } else {
            expect(kept).toBeUndefined();
            checkFree(out);
            await train(config);
          }
          expect(outcome(out)).toEqual(way === byShare ? wholeByShare : whole);
        }),
        { numRuns: way === byShare ? 10 : 20 },
      );
    },
  );
});

test("a reference model in a file of more than 2 GiB is read in parts, and a signal ends the reading", async () => {
  const config = newConfig();
  await train(config);
  const whole = await readReference(config.run.out, new AbortController().signal);
  expect(whole.fingerprint).toMatch(/^[0-9a-f]{64}$/);
  // Zeros that take no room on the disk.
  nodeFs.truncateSync(join(config.run.out, "model/model.safetensors"), 2 ** 31 + 1024);
  const controller = new AbortController();
  const reading = readReference(config.run.out, controller.signal);
  setTimeout(() => controller.abort(), 50);
  await expect(reading).rejects.toMatchObject({ name: "AbortError" });
});

describe("the event loop can run", () => {
  /** Aborts as soon as the event loop turns. */
  function soon(): AbortSignal {
    const controller = new AbortController();
    setImmediate(() => controller.abort());
    return controller.signal;
  }

  test("while a tokenizer is learnt", async () => {
    const words = Array.from({ length: 20_000 }, (_, i) => ((i * 2_654_435_761) % 2 ** 32).toString(36));
    await expect(trainBpe([words.join(" ")], { vocabSize: 20_000, signal: soon() })).rejects.toMatchObject({
      name: "AbortError",
    });
  });

  test.each(["cpu", "reference"] as const)("during an evaluation on the backend %s", async (backend) => {
    await init({ backend });
    const model = createGPT({ vocabSize: 64, dim: 32, layers: 2, heads: 2, context: 64 });
    const tokens = Uint16Array.from({ length: 400_000 }, (_, i) => (i * i) % 64);
    const windows = evaluationWindows("text", { tokens, documents: Float64Array.of(0, tokens.length) }, 64)!;
    const trainer = createTrainer({
      model,
      mixer: createMixer({ domains: ["text"], rule: { name: "uniform" }, updateEvery: 1 }),
      domains: [windows],
      target: null,
      batch: 4,
      schedule: createSchedule({ name: "constant", lr: 0.1, steps: 1 }),
      seed: 0,
    });
    await expect(trainer.evaluate(windows, tokens.length, soon())).rejects.toMatchObject({
      name: "AbortError",
    });
    await shutdown();
  });
});

test.each([
  0,
  1,
  2 ** 32,
  Number.MAX_SAFE_INTEGER - 1_500_000,
  Number.MAX_SAFE_INTEGER - 1,
  Number.MAX_SAFE_INTEGER,
])("a run accepts the seed %i, and resumes with it", async (seed) => {
  const config = newConfig();
  config.training.seed = seed;
  const stop = new AbortController();
  const stopped = train(config, { signal: stop.signal, onBegin: () => stop.abort() });
  expect((await stopped).step).toBe(0);
  // Three streams of data order, from one seed.
  const { json } = readCheckpoint(listCheckpoints(config.run.out)[0].path);
  const { sampler, alignmentSampler, targetSampler } = json["state"] as Record<string, { seed: number }>;
  const seeds = [sampler.seed, alignmentSampler.seed, targetSampler.seed];
  expect(new Set(seeds).size).toBe(3);
  for (const one of seeds) expect(Number.isSafeInteger(one) && one >= 0).toBe(true);
  expect(await train(config, { resume: true })).toMatchObject({ step: 7 });
  const again = { ...config, run: { ...config.run, out: join(root, `run${runs++}`) } };
  await train(again);
  expect(outcome(again.run.out)).toEqual(outcome(config.run.out));
  if (seed !== newConfig().training.seed) expect(outcome(config.run.out)).not.toEqual(whole);
});
