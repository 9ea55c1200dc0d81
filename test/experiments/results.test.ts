/** Results in files, and the processes that compute them: an interrupted run continues to the same file. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Cell, keyOf, type Result } from "../../experiments/cell.ts";
import { experiments } from "../../experiments/definitions/index.ts";
import { usual } from "../../experiments/experiment.ts";
import { runPool } from "../../experiments/pool.ts";
import { openStore, readLines, readResults } from "../../experiments/results.ts";
import { codeOf } from "../errors.ts";

const worker = join(import.meta.dirname, "echo-worker.mjs");
const cells = experiments[0].cells({ ...usual, seeds: 1 }, () => undefined).slice(0, 6);
const resultOf = (loss: number): Result => ({
  ...{ domains: 8, loss, curve: [], weights: null, epochs: 1, outside: 3, before: null },
  ...{ accuracy: null, probes: null, cpuSeconds: 1, tokens: 10 },
});

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-experiments-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe("keys", () => {
  test("depend on every value, but not on the order of fields", () => {
    const [cell] = cells;
    const turned = Object.fromEntries(Object.entries(cell).reverse()) as unknown as Cell;
    expect(keyOf(turned)).toBe(keyOf(cell));
    expect(keyOf({ ...cell, questions: undefined } as unknown as Cell)).toBe(keyOf(cell));
    const others: Cell[] = [
      { ...cell, seed: 2 },
      { ...cell, steps: 241 },
      { ...cell, text: { ...cell.text, cap: 5 } },
      { ...cell, method: { ...cell.method, updateEvery: 3 } },
      { ...cell, before: 1 },
    ];
    expect(new Set([cell, ...others].map(keyOf)).size).toBe(others.length + 1);
  });
});

describe("a file of results", () => {
  test("returns what was added, also in a store that is opened later", () => {
    const store = openStore(folder, "one", "hash");
    store.add(cells[0], resultOf(1));
    expect(store.lookup(cells[0])).toEqual(resultOf(1));
    expect(store.lookup(cells[1])).toBeUndefined();
    // Results of another experiment count too.
    expect(openStore(folder, "two", "hash").lookup(cells[0])).toEqual(resultOf(1));
  });

  test("drops an incomplete last line, and continues with complete lines", () => {
    const store = openStore(folder, "one", "hash");
    for (const cell of cells.slice(0, 3)) store.add(cell, resultOf(1));
    const file = join(folder, "one.jsonl");
    const whole = readFileSync(file, "utf8");
    truncateSync(file, whole.length - 20);
    const again = openStore(folder, "one", "hash");
    expect(cells.slice(0, 3).map((cell) => again.lookup(cell) !== undefined)).toEqual([true, true, false]);
    again.add(cells[2], resultOf(1));
    expect(readFileSync(file, "utf8")).toBe(whole);
  });

  test("refuses a damaged line by file and line, and results of other text", () => {
    const store = openStore(folder, "one", "hash");
    for (const cell of cells.slice(0, 2)) store.add(cell, resultOf(1));
    const file = join(folder, "one.jsonl");
    const [first, second] = readFileSync(file, "utf8").split("\n");
    expect(codeOf(() => openStore(folder, "two", "other"))).toMatch(/^data: .*other text than these corpora/);
    writeFileSync(file, `${first.slice(0, 50)}\n${second}\n`);
    expect(codeOf(() => readLines(file))).toMatch(/^data: .*one\.jsonl, line 1: this is not a result/);
    // A cell that was changed by hand does not fit its key.
    writeFileSync(file, `${first}\n${second.replace('"seed":1', '"seed":9')}\n`);
    expect(codeOf(() => readLines(file))).toMatch(/line 2/);
  });
});

describe("the pool", () => {
  const run = (
    jobs: readonly number[],
    more: { processes?: number; signal?: AbortSignal; onResult?: (n: number) => void } = {},
  ): Promise<[number[], string[]]> => {
    const found: number[] = [];
    return runPool<{ n: number }, number>(
      jobs.map((n) => ({ n })),
      {
        worker,
        processes: more.processes ?? 2,
        ...(more.signal === undefined ? {} : { signal: more.signal }),
        onResult: ({ n }, result) => {
          expect(result).toBe(2 * n);
          found.push(n);
          more.onResult?.(n);
        },
      },
    ).then((failures) => [
      found.sort((a, b) => a - b),
      failures.map(({ job, reason }) => `${job.n}: ${reason}`).sort(),
    ]);
  };

  test("does every job once, for any number of processes", async () => {
    for (const processes of [1, 2, 9])
      expect(await run([1, 2, 3, 4, 5], { processes })).toEqual([[1, 2, 3, 4, 5], []]);
    expect(await run([])).toEqual([[], []]);
  });

  test("continues with other jobs if a job fails or its process dies", async () => {
    expect(await run([1, -1, 2, -2, 3, -1, 4], { processes: 1 })).toEqual([
      [1, 2, 3, 4],
      ["-1: its process ended (3)", "-1: its process ended (3)", "-2: no such number"],
    ]);
  });

  test("continues to the same results after an interruption in the middle of a line", async () => {
    const store = openStore(folder, "one", "hash");
    const stop = new AbortController();
    const key = (n: number): Cell => cells[n];
    const indices = [...cells.keys()];
    await expect(
      run(indices, {
        processes: 1,
        signal: stop.signal,
        onResult: (n) => {
          store.add(key(n), resultOf(n));
          if (n === 3) stop.abort(new Error("stopped"));
        },
      }),
    ).rejects.toThrow("stopped");
    const file = join(folder, "one.jsonl");
    truncateSync(file, readFileSync(file).length - 5);

    const again = openStore(folder, "one", "hash");
    const left = indices.filter((n) => again.lookup(key(n)) === undefined);
    expect(left).toEqual([3, 4, 5]);
    await run(left, { processes: 1, onResult: (n) => again.add(key(n), resultOf(n)) });
    expect(readResults(folder).map(({ cell, result }) => [keyOf(cell), result.loss])).toEqual(
      indices.map((n) => [keyOf(key(n)), n]),
    );
  });
});
