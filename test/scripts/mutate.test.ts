/** `npm run mutate`: its mutants are the edits that they name, they do not change messages, and the sample is fair. */
import { existsSync, readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { findMutants, instrument } from "../../scripts/mutate/mutants.mjs";
import { drawSample, interval, summarise } from "../../scripts/mutate/sample.mjs";
import { expectNear } from "../near.ts";

/** A source map that maps a module to itself. */
const identityMap = (code: string): string =>
  JSON.stringify({
    version: 3,
    sources: ["it.ts"],
    sourcesContent: [code],
    names: [],
    mappings: code
      .split("\n")
      .map((_, i) => (i === 0 ? "AAAA" : "AACA"))
      .join(";"),
  });

const mutantsOf = (code: string): ReturnType<typeof findMutants> => findMutants(code, identityMap(code));
const changesOf = (code: string): string[] => mutantsOf(code).map(({ change }) => change);

const module = (text: string): string => `data:text/javascript,${encodeURIComponent(text)}`;

/** The results of `f` for many numbers, or what it throws. */
async function behaviour(code: string): Promise<unknown[]> {
  const { f } = (await import(/* @vite-ignore */ module(code))) as { f: (x: number) => unknown };
  return [-2, -1, 0, 1, 2, 3, 10].map((x) => {
    try {
      return f(x);
    } catch (error) {
      return String(error);
    }
  });
}

const every = `
const limits = [3, 1, 2];
class Counter { #n = 0; constructor(by = 1) { this.by = by; } next() { return this.#n += this.by; } }
function pick(list, { least = 1, most, up = true } = {}) {
    const fit = list.filter((x) => x >= least && (most === undefined || x <= most)).slice(1);
    return up ? fit.sort((a, b) => a - b) : fit;
}
export function f(x) {
    if (x === -2)
        throw new RangeError(\`x: \${x + 1} is \${x > 0 ? "large" : "small"}\`);
    if (x < 0) return [x, -x, !x];
    let sum = 1.5 * x;
    for (let i = 0; i < limits.length; i++) {
        if (i === x) continue;
        if (!(limits[i] > 0)) break;
        sum += limits[i] ** 2 / (1 + i);
        if (x > 5) { sum -= 1; sum--; }
    }
    const given = { x, ...(x ? { sum } : {}) };
    given.y ??= x?.toFixed(x % 3).trim().startsWith("1") ?? false;
    const counter = new Counter(x || undefined);
    counter.next();
    switch (x) {
        case 3: return pick([1, x, 2, x + 4], { least: 2, up: false });
        case 10: return [pick(limits, { most: 5 }), Math.max(x, sum), Math.floor(sum), 7n & BigInt(x)];
    }
    return [given, counter.next(), limits.some((n) => n > x), Math.abs(x - 2), Number.isFinite(1 / x)];
}
`;

describe("mutants", () => {
  test("each mutant behaves like its edit of the text; without an active mutant nothing changes", async () => {
    const mutants = mutantsOf(every);
    expect(mutants.length).toBeGreaterThan(80);
    const run = (active: number): Promise<unknown[]> =>
      behaviour(
        instrument(every, mutants, 100, module(`export const __mutant = (id) => id === ${active + 100};`)),
      );
    const plain = await behaviour(every);
    expect(await run(-1)).toEqual(plain);
    let seen = 0;
    for (const [i, { from, to, text }] of mutants.entries()) {
      const edited = await behaviour(every.slice(0, from) + text + every.slice(to));
      expect(await run(i), mutants[i].change).toEqual(edited);
      if (!isDeepStrictEqual(edited, plain)) seen++;
    }
    expect(seen).toBeGreaterThan(70);
  });

  test("mutants are named by line and change", () => {
    expect(mutantsOf("f();\nconst a = b < 7;\n").map(({ line, change }) => `${line}: ${change}`)).toEqual([
      "1: removed: f();",
      "2: b < 7 → b <= 7",
      "2: b < 7 → b >= 7",
      "2: 7 → 8",
    ]);
  });

  test.each([
    ["a ?? b", ["a ?? b → undefined ?? b", "a ?? b → a"]],
    ["g(a, { b: 1 })", ["g(a, { b: 1 }) → g(a)", "{ b: 1 } → { }", "1 → 0"]],
    ["c ? 2 : 0.5", ["c → !(c)", "2 → 3", "0.5 → 1"]],
    ["Math.min(a, b)", ["Math.min(a, b) → Math.max(a, b)"]],
    // A name that every object has.
    ["valueOf(a, b)", ["valueOf(a, b) → valueOf(a)"]],
    ["a?.b.every(c)", ["a?.b.every(c) → a?.b.some(c)"]],
    ["{ ...a, b }", ["{ ...a, b } → { b }"]],
    ["a && b", ["a && b → a || b"]],
    ["`a` + b", []],
    ["'text'", []],
  ])("the mutants of %s", (text, changes) => {
    expect(changesOf(`const x = ${text};`).map((change) => change.replaceAll(/\s+/g, " "))).toEqual(changes);
  });

  test("error messages, imports and helpers of the compiler have no mutants", () => {
    const throws = 'throw new Error(a < 1 ? "x" : `${b + 1}`);';
    expect(changesOf(`if (c) {\n${throws}\n}`)).toEqual(["c → !(c)", `removed: ${throws}`]);
    expect(changesOf('import { a } from "b" with { type: "json" };')).toEqual([]);
    expect(changesOf("const wrong = (n) => new GradmixError('data', `${n + 1}`);")).toEqual([]);
    const disposal = "const env_1 = { error: void 0, hasError: false }; __disposeResources(env_1);";
    expect(changesOf(disposal)).toEqual([]);
  });
});

interface Equivalent {
  readonly file: string;
  readonly line?: string;
}

test("every entry of equivalent.json names code that exists", () => {
  const entries = JSON.parse(readFileSync("scripts/mutate/equivalent.json", "utf8")) as Equivalent[];
  const stale = entries.filter(({ file, line }) => {
    if (line === undefined) return !existsSync(file);
    return !(existsSync(file) ? readFileSync(file, "utf8") : "")
      .split("\n")
      .some((text) => text.trim() === line);
  });
  expect(stale, "correct or remove these entries: their lines have changed").toEqual([]);
});

describe("the sample", () => {
  const items = Array.from({ length: 40 }, (_, i) => i);

  test("has no item twice, keeps the order, and depends only on the seed", () => {
    fc.assert(
      fc.property(fc.nat(50), fc.nat(), (count, seed) => {
        const drawn = drawSample(items, count, seed);
        expect(drawn).toEqual([...new Set(drawn)].toSorted((a, b) => a - b));
        expect(drawn).toHaveLength(Math.min(count, items.length));
        expect(drawSample(items, count, seed)).toEqual(drawn);
      }),
    );
  });

  test("draws every item equally often", () => {
    const counts = items.map(() => 0);
    for (let seed = 0; seed < 4000; seed++) for (const item of drawSample(items, 10, seed)) counts[item]++;
    // 1,000 expected; five standard deviations.
    for (const count of counts)
      expect(Math.abs(count - 1000)).toBeLessThan(5 * Math.sqrt(4000 * 0.25 * 0.75));
  });

  test("the interval is that of Wilson's formula", () => {
    const { low, high } = interval(90, 100);
    expectNear([low, high], [0.82563, 0.94477], 1e-5);
    expectNear(interval(0, 10).low, 0, 1e-12, 1);
    expect(interval(0, 0)).toEqual({ low: 0, high: 1 });
  });

  test("the table counts per place, and counts equivalent mutants separately", () => {
    const mutant = (file: string, reason: string | null = null): { file: string; reason: string | null } => ({
      file,
      reason,
    });
    const mutants = [mutant("a/x"), mutant("a/y"), mutant("a/z", "cache"), mutant("b/x")];
    const outcomes = ["killed", "survived"].map((verdict, i) => ({ ...mutants[i], verdict }));
    const rows = summarise(["a", "b"], outcomes, mutants, ({ file }) => file.slice(0, 1));
    expect(rows.map((row) => row.trim().split(/\s{2,}/))).toEqual([
      ["mutants", "equivalent", "tried", "killed", "survived", "not covered", "share killed"],
      ["a", "3", "1", "2", "1", "1", "0", "50.0 %"],
      ["b", "1", "0", "0", "0", "0", "0", "–"],
    ]);
  });
});
