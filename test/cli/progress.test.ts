/** The progress line, as pure text and on a simulated screen. */
import {
  displayWidth,
  formatCount,
  formatDuration,
  formatProgress,
  formatResult,
  formatWeights,
  startProgress,
} from "#dist/cli/progress.js";
import type { StepMetrics } from "#dist/runs/lines.js";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

const weights = (of: Record<string, number>): Map<string, number> => new Map(Object.entries(of));

function metrics(step: number, extra: Partial<StepMetrics> = {}): StepMetrics {
  return {
    step,
    tokens: step * 2048,
    loss: 2.34567,
    gradNorm: 1,
    lr: 0.001,
    seconds: 0.1,
    weights: weights({ code: 0.62, prose: 0.3, mail: 0.08 }),
    domains: new Map(),
    ...extra,
  };
}

describe("formats", () => {
  test("counts have three digits and a unit", () => {
    expect([0, 950, 999.9, 1000, 12_345, 999_960, 4_560_000, 2e9].map(formatCount)).toEqual([
      "0", "950", "1.00k", "1.00k", "12.3k", "1.00M", "4.56M", "2.00G",
    ]); // prettier-ignore
    expect([999_960_000_000, 1.5e12, 9.99e14].map(formatCount)).toEqual(["1.00T", "1.50T", "999T"]);
    fc.assert(
      fc.property(fc.double({ min: 0, max: 9.99e14, noNaN: true }), (n) =>
        /^(\d{1,3}|\d\.\d\d|\d\d\.\d)[kMGT]?$/.test(formatCount(n)),
      ),
    );
  });

  test("durations", () => {
    expect([0, 7, 59.6, 185, 3723, NaN, -1].map(formatDuration)).toEqual([
      "0:00", "0:07", "1:00", "3:05", "1:02:03", "?", "0:00",
    ]); // prettier-ignore
  });

  test("weights are shown with the largest first, and small ones are not shown as 0", () => {
    expect(formatWeights(weights({ a: 0.001, b: 0.999 }))).toBe("b 100% a <1%");
    expect(formatWeights(weights({ a: 0.1, b: 0.2, c: 0.3, d: 0.4, e: 0 }), 2)).toBe("d 40% c 30% +3");
  });

  test("the whole line", () => {
    const state = { totalSteps: 1000, speed: { tokensPerSecond: 12_345, secondsLeft: 185 }, targetLoss: 2.1 };
    expect(formatProgress(metrics(120), state)).toBe(
      "step  120/1000  loss 2.346  target 2.100  12.3k tok/s  3:05 left  code 62% prose 30% mail 8%",
    );
    expect(formatProgress(metrics(1), { totalSteps: 1000, speed: null, targetLoss: null })).toBe(
      "step    1/1000  loss 2.346  code 62% prose 30% mail 8%",
    );
  });

  test("the line fits any width of the terminal", () => {
    const state = { totalSteps: 9, speed: null, targetLoss: null };
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 200 }), (width) => {
        expect(formatProgress(metrics(1), state, width).length).toBeLessThan(width);
      }),
    );
  });

  test("it also fits with names in any script: wide letters take two columns, combining marks none, and no letter is cut in two", () => {
    // Columns by the letters' own tables: CJK and Hangul 2, Latin and Devanagari letters and spacing signs 1, combining marks 0.
    const letters: [string, number][] = [
      ["a", 1], ["中", 2], ["ウ", 2], ["한", 2], ["e\u0301", 1], ["न्", 1], ["का", 2], ["ก็", 1], ["𠮷", 2], ["é", 1],
    ]; // prettier-ignore
    const state = { totalSteps: 9, speed: null, targetLoss: null };
    const named = fc.array(fc.constantFrom(...letters), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(named, fc.integer({ min: 2, max: 90 }), (parts, width) => {
        const name = parts.map(([letter]) => letter).join("");
        const columns = parts.reduce((n, [, wide]) => n + wide, 0);
        expect(displayWidth(name)).toBe(columns);
        const only = metrics(1, { weights: new Map([[name, 1]]) });
        const whole = formatProgress(only, state);
        const line = formatProgress(only, state, width);
        expect(displayWidth(line)).toBeLessThan(width);
        const fits = whole.length - name.length + columns < width;
        expect(line === whole).toBe(fits);
        if (fits) return;
        const kept = line.slice(0, -1);
        expect(whole.startsWith(kept)).toBe(true);
        expect(whole.slice(kept.length)).not.toMatch(/^[\p{M}\udc00-\udfff]/u);
        // The first letter that is cut off would not have fitted. A virama joins letters to one that may be wider than two columns.
        const graphemes = [...new Intl.Segmenter().segment(whole)].map(({ segment }) =>
          displayWidth(segment),
        );
        expect(displayWidth(line)).toBeGreaterThanOrEqual(width - Math.max(2, ...graphemes));
      }),
    );
  });

  test("after an interruption, the result says how to continue", () => {
    const named = { final: weights({ a: 1 }), averaged: weights({ a: 1 }) };
    const result = {
      ...{ step: 5, tokens: 10_240, loss: 2, targetLoss: 1.5, weights: named, interrupted: true },
      ...{ guards: null, best: null },
    };
    expect(formatResult(result, "runs/a")).toContain("gradmix train --resume runs/a");
    expect(formatResult(result, "runs/a 2")).toContain("gradmix train --resume 'runs/a 2'\n");
    expect(formatResult({ ...result, interrupted: false }, "runs/a")).toContain(
      "done: 5 steps, 10.2k tokens",
    );
    expect(formatResult({ ...result, step: 1, interrupted: false }, "runs/a")).toContain("done: 1 step, ");
    expect(formatResult(result, "runs/a")).not.toMatch(/guards|best/);
  });

  test("the result says which step was best, and which guards held", () => {
    const named = { final: weights({ a: 1 }), averaged: weights({ a: 1 }) };
    const text = formatResult(
      {
        ...{ step: 5, tokens: 10_240, loss: 2, targetLoss: 1.5, weights: named, interrupted: false },
        best: { step: 3, targetLoss: 1.25, tokens: 1024 },
        guards: [{ name: "a", limit: 1.02, ratio: 1.05, error: 0.004 }],
      },
      "runs/a",
    );
    expect(text).toContain("\n  best     held-out target 1.250 after step 3, kept in runs/a/best\n");
    expect(text).toContain("\n  guards   0 of 1 held; did not hold: a +5 % ± 0.4 (limit +2 %)\n");
  });
});

describe("on a screen", () => {
  function play(isTTY: boolean, times: readonly number[], evaluated: readonly number[] = []): string[] {
    const written: string[] = [];
    let time = 0;
    const progress = startProgress(
      { write: (text) => written.push(text), isTTY, columns: 200 },
      times.length,
      () => time,
    );
    times.forEach((at, i) => {
      time = at;
      const evaluation = { target: 1.5, domains: new Map<string, number>() };
      progress.step(metrics(i + 1, evaluated.includes(i + 1) ? { evaluation } : {}));
    });
    progress.end();
    return written;
  }

  test("a terminal gets one line, which is rewritten and ended once", () => {
    const text = play(true, [0, 500, 1000]).join("");
    expect(text.split("\n")).toHaveLength(2);
    expect(text.split("\r\u001b[2K")).toHaveLength(3);
    expect(text).toContain("step 3/3");
  });

  test("other outputs get whole lines: about one per second, each evaluation, and the last step", () => {
    const lines = play(false, [0, 300, 600, 900, 1100, 1200], [3]);
    expect(lines.map((line) => /step (\d)/.exec(line)?.[1])).toEqual(["1", "3", "6"]);
    for (const line of lines) expect(line).toMatch(/^[^\r\u001b\n]*\n$/);
    expect(lines[1]).toContain("target 1.500");
    expect(lines[2]).toContain("target 1.500");
  });

  test("the loss on the target before the first step is shown until there is a newer one", () => {
    for (const isTTY of [true, false]) {
      const written: string[] = [];
      const progress = startProgress({ write: (text) => written.push(text), isTTY, columns: 200 }, 120);
      progress.start({ target: 6.93147, domains: new Map() });
      progress.step(metrics(1));
      progress.end();
      const [first, ...rest] = written;
      expect(first).toBe(`step   0/120  target 6.931${isTTY ? "" : "\n"}`);
      expect(rest.join("")).toContain("step   1/120  loss 2.346  target 6.931");
      expect(rest.join("").startsWith("\r\u001b[2K")).toBe(isTTY);
    }
    const silent: string[] = [];
    startProgress({ write: (text) => silent.push(text) }, 9).start({ target: null, domains: new Map() });
    expect(silent).toEqual([]);
  });

  test("the speed is measured with the clock", () => {
    expect(play(false, [0, 1000]).at(-1)).toContain("2.05k tok/s");
  });
});
