/**
 * Runs that keep their best model, and runs with guards: their files, and that they continue to the same bits after a kill at any point. In this
 * process, on a tiny corpus.
 */
import * as nodeFs from "node:fs";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { findRun, openRunFolder, type RunFolder } from "#dist/cli/run-folder.js";
import { listCheckpoints } from "#dist/cli/run-places.js";
import { runTraining } from "#dist/cli/run.js";
import type { RunResult } from "#dist/cli/run-events.js";
import type { TrainConfig } from "#dist/cli/train-config.js";
import { readStart } from "#dist/cli/start.js";
import { recoverFolder, writeFolderAtomic, type WriteFs } from "#dist/node/files.js";
import { readRunRecord } from "#dist/runs/record.js";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { expectNear } from "../near.ts";
import { timeless } from "./timeless.ts";

let root = "";
let runs = 0;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "gradmix-best-"));
  for (const [i, name] of ["a", "b", "target"].entries())
    writeFileSync(
      join(root, `${name}.jsonl`),
      Array.from(
        { length: 30 },
        (_, j) =>
          `{"text":"${["the dog sees", "x = [0] * ", "the dogs see"][i]} ${(j * 7919) % 97} houses"}\n`,
      ).join(""),
    );
});
afterAll(() => rmSync(root, { recursive: true }));

interface Some {
  readonly training?: object;
  readonly mixing?: object;
  readonly model?: object;
  readonly run?: object;
}

/** Eight steps with a checkpoint and an evaluation every second, in a folder of its own. */
function configOf({ training, mixing, model, run }: Some = {}): TrainConfig {
  const text = (name: string): string => join(root, `${name}.jsonl`);
  const json = {
    data: { domains: { a: text("a"), b: text("b") }, target: text("target"), tokenizer: "byte" },
    model: { dim: 8, layers: 1, heads: 1, context: 8, ...model },
    training: { steps: 8, batch: 2, schedule: "constant", warmup: 0, lr: 1, ...training },
    mixing: { updateEvery: 2, ...mixing },
    run: {
      ...{ backend: "cpu", threads: 1, evalEvery: 2, evalTokens: 64, checkpointEvery: 2, keepBest: true },
      out: join(root, `run${runs++}`),
      ...run,
    },
  };
  return resolveConfig([jsonLayer(json, "c.json")]);
}

/** Runs the command without its output, and collects its lines in `told`. */
async function train(
  config: TrainConfig,
  { from = null, fs = nodeFs, told = [] }: { from?: string | null; fs?: WriteFs; told?: string[] } = {},
): Promise<RunResult> {
  const folder: RunFolder = openRunFolder(config, from === null ? null : findRun(from), fs);
  try {
    return await runTraining(config, {
      onStart: (line) => folder.appendMetrics(line),
      onStep: (line) => folder.appendMetrics(line),
      onResume: (line) => folder.appendMetrics(line),
      onEvent: (line) => told.push(line),
      signal: new AbortController().signal,
      store: folder,
    });
  } finally {
    folder.close();
  }
}

/** Every file by its name, but for the checkpoints and what names the folder; metrics without their times. */
function outcome(folder: string): unknown {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .filter((name) => !/^(checkpoints|metrics|config|run\.json)/.test(name))
    .sort();
  return {
    files: names.map((name) => [name, readFileSync(join(folder, name), "base64")]),
    metrics: readFileSync(join(folder, "metrics.jsonl"), "utf8")
      .trim()
      .split("\n")
      .map((line) => timeless(JSON.parse(line) as object)),
  };
}

/** A disk that writes nothing after so many calls, as if the process was killed; its lock is removed. */
function deadAfter(calls: number): WriteFs {
  let left = calls;
  return new Proxy<WriteFs>(nodeFs, {
    get(real, name: keyof WriteFs) {
      return (...args: unknown[]): unknown => {
        if (!String(args[0]).endsWith("lock") && left-- <= 0)
          throw Object.assign(new Error("killed"), { code: "EIO" });
        return Reflect.apply(real[name], real, args) as unknown;
      };
    },
  });
}

describe("a folder that is replaced", () => {
  let place = "";
  beforeEach(() => {
    place = join(mkdtempSync(join(root, "folder-")), "best");
  });
  const files = (of: number): ReadonlyMap<string, Uint8Array> =>
    new Map(["x", "y"].map((name) => [name, Uint8Array.of(of, name.charCodeAt(0))]));
  const found = (): unknown =>
    existsSync(place)
      ? readdirSync(place)
          .sort()
          .map((name) => [name, readFileSync(join(place, name))[0]])
      : null;
  const whole = (of: number): unknown => [["x", of], ["y", of]]; // prettier-ignore

  test("is complete, old or new, at whatever point its writer was killed", () => {
    const seen = new Set<unknown>();
    for (let calls = 0; ; calls++) {
      rmSync(place, { recursive: true, force: true });
      writeFolderAtomic(place, files(1));
      let killed = false;
      try {
        writeFolderAtomic(place, files(2), deadAfter(calls));
      } catch (error) {
        expect(error).toMatchObject({ code: "io" });
        killed = true;
      }
      // Before it is recovered it may be missing for a moment, and is never half a folder.
      expect([null, whole(1), whole(2)]).toContainEqual(found());
      seen.add(JSON.stringify(found()));
      recoverFolder(place);
      expect([whole(1), whole(2)]).toContainEqual(found());
      expect(readdirSync(join(place, ".."))).toEqual(["best"]);
      if (!killed && JSON.stringify(found()) === JSON.stringify(whole(2)) && calls > 25) break;
    }
    expect(seen.size).toBe(3);
  });

  test("stays as it was if the disk fails and the process continues", () => {
    writeFolderAtomic(place, files(1));
    let renames = 0;
    const failing = new Proxy<WriteFs>(nodeFs, {
      get: (real, name: keyof WriteFs) =>
        name === "renameSync"
          ? (from: string, to: string): void => {
              // The two files, the old folder away, the new one in its place, which fails.
              if (++renames === 4) throw Object.assign(new Error("full"), { code: "ENOSPC" });
              real.renameSync(from, to);
            }
          : real[name],
    });
    expect(() => writeFolderAtomic(place, files(2), failing)).toThrow("best: cannot be written");
    expect([whole(1), whole(2)]).toContainEqual(found());
    expect(readdirSync(join(place, ".."))).toEqual(["best"]);
  });
});

test("the best model is that of the step with the lowest held-out target loss", async () => {
  const config = configOf({ training: { steps: 4 } });
  const { out } = config.run;
  const { best, step } = await train(config);
  const { start, steps } = readRunRecord(out);
  const losses = [start, ...steps].flatMap((line) => {
    const target = line?.evaluation?.target ?? null;
    return line === null || target === null ? [] : [{ step: line.step, target }];
  });
  const lowest = losses.reduce((low, one) => (one.target < low.target ? one : low));
  // The learning rate is such that the model is at its best in the middle.
  expect([0, step]).not.toContain(lowest.step);
  expect(best).toEqual({ step: lowest.step, targetLoss: lowest.target, tokens: 64 });
  const json = (name: string): unknown => JSON.parse(readFileSync(join(out, "best", name), "utf8"));
  expect(json("best.json")).toEqual(best);
  // A run that ends there has the same model and weights.
  const shorter = configOf({ training: { steps: lowest.step }, run: { keepBest: false } });
  await train(shorter);
  for (const name of ["model.safetensors", "config.json", "tokenizer.json"])
    expect(readFileSync(join(out, "best", name))).toEqual(readFileSync(join(shorter.run.out, "model", name)));
  expect(json("weights.json")).toEqual(
    JSON.parse(readFileSync(join(shorter.run.out, "weights.json"), "utf8")),
  );
  expect(readFileSync(join(out, "model/model.safetensors"))).not.toEqual(
    readFileSync(join(out, "best/model.safetensors")),
  );
  expect(existsSync(join(shorter.run.out, "best"))).toBe(false);
  // A new run may begin with the last step or with the best.
  expect(readStart(out).source).toBe(
    `${out}, after step 4 (its best step by the target is in ${join(out, "best")})`,
  );
  expect(readStart(join(out, "best")).source).toBe(join(out, "best"));
  expect(readStart(shorter.run.out).source).toBe(`${shorter.run.out}, after step ${lowest.step}`);
});

describe("a run that keeps its best model and guards its domains is killed anywhere and resumes to the same bits", () => {
  const guarded = { rule: "static", weights: { a: 1, b: 0 }, guard: { "*": 1 }, guardShare: 1 };
  let whole: unknown;
  let calls = 0;
  beforeAll(async () => {
    const config = configOf({ mixing: guarded });
    const counted = new Proxy<WriteFs>(nodeFs, {
      get(real, name: keyof WriteFs) {
        calls++;
        return real[name];
      },
    });
    await train(config, { fs: counted });
    whole = outcome(config.run.out);
  });
  test("from the files that it had written", async () => {
    for (const share of [0.3, 0.45, 0.6, 0.75, 0.9, 0.97]) {
      const config = configOf({ mixing: guarded });
      const { out } = config.run;
      await expect(train(config, { fs: deadAfter(Math.floor(share * calls)) })).rejects.toMatchObject({
        code: "io",
      });
      await train(config, { from: out });
      expect(outcome(out), `${share}`).toEqual(whole);
    }
  });
  test("from an earlier checkpoint, whatever best/ contains by then", async () => {
    const config = configOf({ mixing: guarded });
    const { out } = config.run;
    await train(config);
    const [{ path }] = listCheckpoints(out);
    rmSync(join(out, "best/model.safetensors"));
    writeFileSync(join(out, "best/best.json"), "{}");
    await train(config, { from: path });
    expect(outcome(out)).toEqual(whole);
    // A finished run does not change either.
    await train(config, { from: out });
    expect(outcome(out)).toEqual(whole);
  });
});

describe("a run with a guard", () => {
  test("gives weight back to a domain whose loss rises, and reports it in its lines and at the end", async () => {
    const steady = { steps: 120, batch: 4, lr: 0.01 };
    const first = configOf({ training: steady, mixing: { rule: "uniform" }, run: { evalEvery: 0 } });
    await train(first);
    const on = (guard: object | null): TrainConfig =>
      configOf({
        training: steady,
        model: { initFrom: first.run.out },
        mixing: { rule: "static", weights: { a: 1, b: 0 }, ...(guard === null ? {} : { guard }) },
        run: { evalEvery: 0, evalTokens: 512 },
      });
    const [free, guarded] = [on({ b: 100 }), on({ "*": 1.02 })];
    const [without, told] = [await train(free), [] as string[]];
    const { guards } = await train(guarded, { told });
    const ratio = ({ guards: found }: Pick<RunResult, "guards">): number =>
      found?.find(({ name }) => name === "b")?.ratio ?? NaN;
    expect(ratio(without)).toBeGreaterThan(1.3);
    expect(ratio({ guards })).toBeLessThan(1.1);
    expect(told.find((line) => line.includes("guard +"))).toMatch(
      /^120 steps, 60 updates of the weights; guard \+\d+ %, /,
    );
    const { steps } = readRunRecord(guarded.run.out);
    const lines = steps.filter(({ guard }) => guard !== undefined);
    expect(lines.some(({ guard }) => (guard?.get("b")?.multiplier ?? 0) > 0)).toBe(true);
    // A quotient and its product with the divisor are rounded.
    const last = steps.at(-1)?.guard?.get("b");
    expectNear(ratio({ guards }) * (last?.reference ?? NaN), last?.loss ?? NaN, 1e-14);
    expect(steps.some(({ weights }) => (weights.get("b") ?? 0) > 0.05)).toBe(true);
  });

  test("compares with the model of a reference run if one is given, and resumes only with the same model", async () => {
    const first = configOf({ mixing: { rule: "uniform" }, run: { keepBest: false } });
    await train(first);
    const mixing = { rule: "uniform", guard: { "*": 1.02 }, reference: first.run.out };
    const [config, own] = [configOf({ mixing }), configOf({ mixing: { ...mixing, reference: null } })];
    const reference = (run: TrainConfig): unknown =>
      readRunRecord(run.run.out)
        .steps.find(({ guard }) => guard !== undefined)
        ?.guard?.get("a")?.reference;
    const told: string[] = [];
    await train(config, { told });
    expect(told.join()).not.toContain("held out");
    await train(own);
    // With another seed other documents are held out, which that model was trained on.
    const other = configOf({ mixing, training: { seed: 9 } });
    await train(other, { told });
    expect(told).toContainEqual(
      expect.stringMatching(/^--guard: .* held out other text of domain "[ab]" than this run/),
    );
    const again = configOf({
      model: { initFrom: first.run.out },
      mixing: { rule: "uniform", guard: { "*": 1.02 } },
    });
    await train(again);
    // The start of a run that begins with that model is the same.
    expect(reference(config)).toBe(reference(again));
    expect(reference(config)).not.toBe(reference(own));
  });

  test("cannot become longer, because the number of its measurements follows from its length", async () => {
    const config = configOf({ mixing: { rule: "uniform", guard: { "*": 1.02 } } });
    await train(config);
    await expect(
      train({ ...config, training: { ...config.training, steps: 12 } }, { from: config.run.out }),
    ).rejects.toMatchObject({
      code: "checkpoint",
      message: expect.stringContaining("cannot become a run of 12 steps"),
    });
  });
});

describe("a cap on repetitions", () => {
  test.each(["dga", "uniform"])("holds for the rule %s", async (rule) => {
    // 30 documents of some 20 tokens: 8 steps of 2 windows of 8 are less than a third of a domain's text.
    const config = configOf({ mixing: { rule, repetitionCap: 0.16 }, run: { keepBest: false } });
    await train(config);
    const { steps, facts } = readRunRecord(config.run.out);
    expect(facts.repetitions).toBe(0.16);
    const caps = [...facts.domains.values()].map(({ tokens }) => (0.16 * tokens) / (8 * 2 * 8));
    for (const { weights } of steps)
      [...weights.values()].forEach((weight, i) => expect(weight).toBeLessThanOrEqual(caps[i] + 1e-12));
  });
  test.each<[object, RegExp]>([
    ...["uniform", "dga"].map((rule): [object, RegExp] => [
      { rule, repetitionCap: 0.01 },
      /^--repetition-cap 0\.01: with these repetitions the domains have \d+ tokens, but the run needs 128;/,
    ]),
    [
      { rule: "uniform", repetitionCap: 0.2, floor: { b: 0.9 } },
      /^--repetition-cap 0\.2: domain "b" is then at most 0\.\d+ of the run, and its floor is 0\.9;/,
    ],
  ])("%j is refused", async (mixing, message) => {
    const config = configOf({ mixing });
    await expect(train(config)).rejects.toMatchObject({
      code: "config",
      message: expect.stringMatching(message),
    });
    expect(existsSync(config.run.out)).toBe(false);
  });
});
