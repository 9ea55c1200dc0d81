/** Computations of the report before anything is drawn: packing, thinning, curves of seeds, groups of runs, sentences. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addItem, addLine, EVALUATIONS, gather, POINTS, type Thinned } from "#dist/report/collect.js";
import { curvesOf, meanAndBand, tokensUntil, valueAt } from "#dist/report/curves.js";
import { groupRuns, type Options } from "#dist/report/groups.js";
import { joinModules, readAssets } from "#dist/report/page-script.js";
import { makePageData, MOST_WEIGHTS } from "#dist/report/make-page-data.js";
import { formatCount, formatSeconds, significant } from "#dist/report/page/format.js";
import { packFloats, packWeights, unpackFloats, unpackWeights } from "#dist/report/page/packing.js";
import { dark, heat, light, runStroke } from "#dist/report/page/theme.js";
import { sortedRows } from "#dist/report/page/table.js";
import { type RunView, thinned } from "#dist/report/run-data.js";
import type { RunFacts } from "#dist/runs/facts.js";
import { escapeScript } from "#dist/report/render.js";
import { errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { domainNames, madeFacts, madeLines, type MadeRun, TOKENS_PER_BYTE, weightsAt } from "./made-runs.ts";

function viewOf(run: MadeRun, name = "made"): RunView {
  const facts = madeFacts(run);
  const mixing = new Map(Object.entries({ rule: facts.rule, ...run.mixing })) as Options;
  const config: Options = new Map([
    ["training", new Map([["seed", facts.seed]])],
    ["mixing", mixing],
    ["run", new Map([["out", name]])],
  ]);
  const gathered = gather({ folder: `runs/${name}`, name, config, facts });
  for (const line of madeLines(run)) expect(addLine(gathered, line)).toBe(true);
  return { gathered, weights: null, running: false, label: null, exports: [] };
}

describe("packing", () => {
  test("weights are restored within 0.02 %; zero and unknown values exactly", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.double({ min: 0, max: 1, noNaN: true }), fc.constant(NaN))),
        (weights) => {
          const back = unpackWeights(packWeights(weights));
          expect(back.length).toBe(weights.length);
          weights.forEach((weight, i) => {
            if (Number.isNaN(weight) || weight === 0) expect(back[i]).toBe(weight);
            else expectNear(back[i], Math.max(weight, 1e-9), 2e-4);
          });
        },
      ),
    );
  });

  test("floats are restored bit by bit", () => {
    fc.assert(
      fc.property(fc.array(fc.float()), (values) => {
        expect(unpackFloats(packFloats(values))).toEqual(values);
      }),
    );
  });

  test("a long list is packed in parts", () => {
    const values = Array.from({ length: 100_000 }, (_, i) => i);
    expect(unpackFloats(packFloats(values))).toEqual(values);
  });
});

describe("thinning", () => {
  test("a list of evaluations keeps the first, the last, and evenly spaced ones between", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1000 }), (count) => {
        const list: Thinned<number> = { items: [], count: 0, every: 1 };
        for (let i = 0; i < count; i++) {
          addItem(list, i);
          if (list.items.length > EVALUATIONS || list.items[0] !== 0 || list.items.at(-1) !== i)
            expect.fail(`after ${i}: ${list.items.join(" ")}`);
        }
        const gaps = list.items.slice(1, -1).map((item, i) => item - list.items[i]);
        expect(new Set(gaps).size).toBeLessThanOrEqual(1);
        expect(list.items.length).toBeGreaterThan(Math.min(count, EVALUATIONS / 2 - 1) - 1);
      }),
      { numRuns: 20 },
    );
  });

  test("a list keeps at most the given number of items, and the last one", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 1, max: 500 }), (count, most) => {
        const kept = thinned([...Array(count).keys()], most);
        expect(kept.length).toBeLessThanOrEqual(most + 1);
        if (count > 0) expect(kept.at(-1)).toBe(count - 1);
        expect([...kept].sort((a, b) => a - b)).toEqual(kept);
      }),
    );
  });

  test.each([1, POINTS - 1, POINTS, POINTS + 1, 2 * POINTS + 7])(
    "of %i steps a bounded number of points is kept, with the last step at the end",
    (steps) => {
      const { gathered } = viewOf({ steps, domains: domainNames(2) });
      expect(gathered.samples.length).toBeLessThanOrEqual(POINTS);
      expect(gathered.samples.at(-1)?.step).toBe(steps);
      // Every step's loss is in one mean.
      expect(gathered.samples.reduce((sum, { losses }) => sum + losses, 0)).toBe(steps);
    },
  );

  test("lines that are read in two parts give the same as all at once; a line that does not follow the last one is reported", () => {
    const run = { steps: 900, domains: domainNames(3) };
    const whole = viewOf(run).gathered;
    const lines = madeLines(run);
    const parts = gather(whole.head);
    for (const line of lines.slice(0, 333)) addLine(parts, line);
    const seen = structuredClone(parts.samples.length);
    for (const line of lines.slice(333)) addLine(parts, line);
    expect(parts).toEqual(whole);
    expect(seen).toBeLessThan(parts.samples.length);
    expect(addLine(parts, lines[5])).toBe(false);
    expect(addLine(parts, lines[0])).toBe(false);
  });
});

describe("curves of seeds", () => {
  const run = fc
    .array(fc.tuple(fc.integer({ min: 1, max: 50 }), fc.double({ min: 0.1, max: 10, noNaN: true })), {
      minLength: 1,
      maxLength: 8,
    })
    .map((steps) => {
      let at = 0;
      return {
        tokens: [0, ...steps.map(([gap]) => (at += gap))],
        loss: [5, ...steps.map(([, loss]) => loss)],
        bitsPerNat: 0.4,
      };
    });

  test("means and bands exist at all shared token counts", () => {
    fc.assert(
      fc.property(fc.array(run, { minLength: 1, maxLength: 4 }), (runs) => {
        const curves = curvesOf(runs);
        const end = Math.min(...runs.map(({ tokens }) => tokens.at(-1) ?? 0));
        const wanted = [...new Set(runs.flatMap(({ tokens }) => tokens))].filter((at) => at <= end);
        expect(curves?.tokens).toEqual(wanted.sort((a, b) => a - b));
        curves?.tokens.forEach((at, i) => {
          const values = runs.map((one) => valueAt(one, at));
          const mean = values.reduce((sum, value) => sum + value) / values.length;
          expectNear(curves.nats.mean[i], mean, 1e-5);
          expectNear(curves.bits?.mean[i], 0.4 * mean, 1e-5);
          if (runs.length === 1) expect(curves.nats.band[i]).toBeNull();
          else {
            // The variance by all pairs, an other formula than the one that is tested.
            let pairs = 0;
            for (const a of values) for (const b of values) pairs += (a - b) ** 2 / 2;
            const variance = pairs / (values.length * (values.length - 1));
            expectNear(
              curves.nats.band[i],
              2 * Math.sqrt(variance / values.length),
              1e-4,
              Math.max(1e-3, mean),
            );
          }
        });
      }),
    );
  });

  test("the number of tokens until a loss is right", () => {
    fc.assert(
      fc.property(run, fc.double({ min: 0.1, max: 10, noNaN: true }), (one, wanted) => {
        const at = tokensUntil(one, wanted);
        if (at === null) expect(Math.min(...one.loss)).toBeGreaterThan(wanted);
        else {
          // There it is reached, and a little before it is not.
          expect(valueAt(one, at)).toBeLessThanOrEqual(wanted * (1 + 1e-9));
          if (at > 0) expect(valueAt(one, at * (1 - 1e-6))).toBeGreaterThan(wanted * (1 - 1e-4) - 1e-9);
        }
      }),
    );
  });

  test("without runs there are no points", () => {
    expect(curvesOf([{ tokens: [], loss: [], bitsPerNat: null }])).toBeNull();
    expect(meanAndBand([3])).toEqual({ mean: 3, band: null });
  });
});

describe("groups", () => {
  const config = (rule: string, seed: number, more: Record<string, number | null> = {}, out = "a"): Options =>
    new Map([
      ["training", new Map([["seed", seed]])],
      ["mixing", new Map<string, string | number | null>([["rule", rule], ...Object.entries(more)])],
      ["run", new Map([["out", out]])],
    ]);
  const labels = (configs: Options[]): (readonly [string, number])[] =>
    groupRuns(configs, (one) => one).map(({ label, members }) => [label, members.length]);

  test("runs that differ only in the seed and in their folder form one group", () => {
    expect(labels([config("dga", 1), config("uniform", 1), config("dga", 2, {}, "b")])).toEqual([
      ["dga", 2],
      ["uniform", 1],
    ]);
  });

  test("an option that is null and one that an earlier version did not have are the same", () => {
    expect(labels([config("dga", 1), config("dga", 2, { eta: null })])).toEqual([["dga", 2]]);
    // Nor does the order of the options matter.
    expect(labels([config("dga", 1, { eta: 1, beta: 2 }), config("dga", 2, { beta: 2, eta: 1 })])).toEqual([["dga", 2]]); // prettier-ignore
  });

  test("a run may have a label of its own", () => {
    const found = groupRuns(
      [config("dga", 1), config("dga", 1, { eta: 2 })],
      (one) => one,
      () => "mine",
    );
    expect(found.map(({ label }) => label)).toEqual(["mine", "mine"]);
  });

  test("labels name the differences, and are all different", () => {
    expect(
      labels([config("dga", 1, { eta: 1 }), config("dga", 1, { eta: 2 }), config("uniform", 1)]),
    ).toEqual([
      ["dga, eta 1", 1],
      ["dga, eta 2", 1],
      ["uniform, eta –", 1],
    ]);
    // An option that was not given is null in config.json.
    expect(labels([config("dga", 1, { eta: 1 }), config("dga", 1, { eta: null })])).toEqual([
      ["dga, eta 1", 1],
      ["dga, eta –", 1],
    ]);
    // The seed of the data is not that of the run.
    const withData = (seed: number, own: number): Options =>
      new Map([...config("dga", seed), ["data", new Map([["seed", own]])]]);
    expect(labels([withData(5, 1), withData(6, 2)])).toEqual([
      ["dga, data seed 1", 1],
      ["dga, data seed 2", 1],
    ]);
    const long = Array.from({ length: 9 }, (_, i) => [`option-${i}`, 0] as const);
    const found = labels([config("dga", 1, Object.fromEntries(long)), config("dga", 1)]);
    expect(new Set(found.map(([label]) => label)).size).toBe(2);
  });
});

describe("the page's data", () => {
  test("the mixture, its matrices and its figures match the lines", () => {
    const run = { steps: 40, domains: domainNames(5), cap: 1 };
    const page = makePageData([viewOf(run)]);
    const [one] = page.runs;
    const lines = madeLines(run).flatMap((line) => ("event" in line ? [] : [line]));
    const { rows, tokens, values } = one.weights;
    expect(tokens).toEqual([0, ...lines.map((line) => line.tokens)]);
    const weights = unpackWeights(values);
    rows.forEach((name, row) => {
      const wanted = [
        weightsAt(5, 0)[name],
        ...lines.map((line) => line.weights.get(page.names[name]) ?? NaN),
      ];
      expectNear(weights.slice(row * tokens.length, (row + 1) * tokens.length), wanted, 3e-4);
    });
    // The heaviest at the end is the first row, and has the first colour.
    const final = weightsAt(5, 39 / 40);
    expect(rows[0]).toBe(final.indexOf(Math.max(...final)));
    expect(page.heaviest[0]).toBe(rows[0]);
    for (const { domain, tokens: trained, size, passed, averaged } of one.domains) {
      const last = lines.at(-1)?.domains.get(page.names[domain]);
      expect(trained).toBe(last?.tokens);
      const first = lines.find((line) => (line.domains.get(page.names[domain])?.epochs ?? 0) > 1);
      expect(passed).toBe(first?.tokens ?? null);
      if (trained > size) expect(passed).not.toBeNull();
      const mean =
        lines.reduce((sum, line) => sum + (line.weights.get(page.names[domain]) ?? NaN), 0) / lines.length;
      expectNear(averaged, mean, 1e-12);
    }
    expect(one.domains.some(({ passed }) => passed !== null)).toBe(true);
    expectNear(one.cost.training, 40 * 0.5, 1e-9);
    expectNear(one.cost.evaluation, 0.25 * 11, 1e-9);
    expect(one.state).toBe("done");
    // Step 0 is on it.
    expect(page.groups[0].target?.tokens[0]).toBe(0);
    const nats = page.groups[0].target?.nats.mean ?? [];
    expectNear(
      page.groups[0].target?.bits?.mean,
      nats.map((loss) => (loss * TOKENS_PER_BYTE) / Math.LN2),
      1e-5,
    );
  });

  test("with bases, the weights over time are those of the bases; the weights of the domains are known if weights.json exists", () => {
    const { gathered: plain } = viewOf({ domains: ["a", "b"] });
    const gathered = gather({ ...plain.head, facts: { ...plain.head.facts, bases: ["x", "y", "z"] } });
    const weights = new Map([
      ["x", 0.5],
      ["y", 0.3],
      ["z", 0.2],
    ]);
    for (const line of madeLines({ domains: ["a", "b"] }))
      addLine(gathered, "event" in line ? line : { ...line, weights });
    const view = { gathered, weights: null, running: true, label: null, exports: [] };
    const page = makePageData([view]);
    const [{ mixes, weights: shown, domains }] = page.runs;
    expect([mixes, shown.rows.map((i) => page.names[i])]).toEqual(["bases", ["x", "y", "z"]]);
    expect(domains.map(({ weight, averaged }) => [weight, averaged])).toEqual([
      [null, null],
      [null, null],
    ]);
    expect(page.heaviest.map((i) => page.names[i]).slice(0, 3)).toEqual(["x", "y", "z"]);
    expect(page.heaviest.length).toBe(5);
    const named = {
      final: new Map([
        ["a", 0.4],
        ["b", 0.6],
      ]),
      averaged: new Map([
        ["a", 0.1],
        ["b", 0.9],
      ]),
    };
    const ended = makePageData([{ ...view, weights: named }]).runs[0].domains;
    expect(ended.map(({ weight, averaged }) => [weight, averaged])).toEqual([
      [0.4, 0.1],
      [0.6, 0.9],
    ]);
  });

  test("guarded domains are shown with their references and limits, the worst first", () => {
    const { gathered: plain } = viewOf({ domains: ["a", "b"] });
    const mixing = new Map([
      [
        "guard",
        new Map([
          ["*", 1.05],
          ["b", 1],
        ]),
      ],
    ]);
    const gathered = gather({ ...plain.head, config: new Map([["mixing", mixing]]) });
    const guard = (a: number, b: number) =>
      new Map([
        ["a", { loss: a, reference: 2, standardError: 0.1, multiplier: 0 }],
        ["b", { loss: b, reference: 4, standardError: null, multiplier: null }],
      ]);
    for (const line of madeLines({ domains: ["a", "b"] }))
      addLine(
        gathered,
        "event" in line || line.step > 2 ? line : { ...line, guard: guard(line.step, 4 + line.step) },
      );
    const [{ guards }] = makePageData([
      { gathered, weights: null, running: false, label: null, exports: [] },
    ]).runs;
    expect(guards?.rows).toEqual([1, 0]);
    expect([guards?.limits, guards?.tokens]).toEqual([
      [1, 1.05],
      [1000, 2000],
    ]);
    expectNear(unpackFloats(guards?.values ?? ""), [1.25, 1.5, 0.5, 1], 1e-6);
    expect(unpackFloats(guards?.errors ?? "").map((error) => Number(error.toFixed(6)))).toEqual([
      NaN,
      NaN,
      0.05,
      0.05,
    ]);
    expect(makePageData([viewOf({})]).runs[0].guards).toBeNull();
  });

  test("with many domains and runs, the amount of numbers and text is bounded", () => {
    const domains = domainNames(1000);
    const views = [1, 2].map((seed) =>
      viewOf({ domains, steps: 120, seed, evaluateEvery: 60 }, `run-${seed}`),
    );
    const page = makePageData(views);
    const numbers = page.runs.map(({ weights }) => weights.rows.length * weights.tokens.length);
    expect(numbers.reduce((sum, count) => sum + count)).toBeLessThanOrEqual(MOST_WEIGHTS);
    const fewer = makePageData(views, { mostWeights: 20_000 }).runs.map(({ weights }) => weights);
    for (const { rows, tokens } of fewer) {
      expect(rows.length * tokens.length).toBeLessThanOrEqual(10_000);
      expect([tokens[0], tokens.at(-1)]).toEqual([0, 120_000]);
    }
    expect(JSON.stringify(page).length).toBeLessThan(3.5e6);
    expect(page.runs[0].weights.rows.length).toBeGreaterThanOrEqual(100);
    expect(page.heaviest.length).toBe(12);
  });

  test("runs with different targets, and runs without measurements, are refused in one line that names them", () => {
    const mixed = errorOf(() => makePageData([viewOf({}, "a"), viewOf({ target: "other" }, "b")]));
    expect([mixed.code, mixed.message]).toEqual([
      "data",
      "runs/a and runs/b have different targets, so their losses cannot be compared; make one report per target",
    ]);
    expect(errorOf(() => makePageData([viewOf({}, "a"), viewOf({ target: null }, "b")])).code).toBe("data");
    // A rule may learn from further targets; the losses are those on the same one.
    const further = viewOf({}, "b");
    const { head } = further.gathered;
    const targets = new Map([...head.facts.domains].slice(0, 1));
    const learns = { ...further, gathered: { ...further.gathered, head: { ...head, facts: { ...head.facts, targets } } } }; // prettier-ignore
    expect(makePageData([viewOf({}, "a"), learns]).runs.length).toBe(2);
    const empty = viewOf({}, "a");
    const view = { ...empty, gathered: gather(empty.gathered.head) };
    expect(errorOf(() => makePageData([view])).message).toMatch(/^runs\/a: has no measurements yet/);
    const { gathered } = view;
    const spaced = { ...gathered, head: { ...gathered.head, folder: "my runs/a" } };
    expect(errorOf(() => makePageData([{ ...view, gathered: spaced }])).message).toMatch(
      /follow it with gradmix watch 'my runs\/a'$/,
    );
    expect(makePageData([view], { live: true }).runs[0].step).toBe(0);
  });
});

describe("sentences", () => {
  const summary = (...runs: MadeRun[]): string[] => [
    ...makePageData(runs.map((run, i) => viewOf(run, `run-${i}`))).summary,
  ];
  const endOf = (run: MadeRun): number =>
    madeLines(run)
      .flatMap((line) => ("event" in line ? [] : (line.evaluation?.target ?? [])))
      .at(-1) ?? NaN;

  test("of one run: loss at the start and the end, bits, share, tokens", () => {
    const [start] = madeLines({});
    const from = "event" in start && start.event === "start" ? (start.evaluation.target ?? NaN) : NaN;
    const to = endOf({});
    expect(summary({})).toEqual([
      `The held-out loss on the target fell from ${from.toFixed(3)} to ${to.toFixed(3)} nats per token (${((to * TOKENS_PER_BYTE) / Math.LN2).toFixed(3)} bits per byte), by ${(100 * (1 - to / from)).toFixed(1)} %, over 40k tokens.`,
    ]);
  });

  test("of two groups: the difference, paired by seed, and its interval", () => {
    const runs = [1, 2, 3].flatMap((seed) => [{ seed }, { seed, rule: "uniform", worse: 0.3 }]);
    const found = summary(...runs);
    expect(found[0]).toMatch(
      /^dga ends lowest: its held-out loss on the target fell from .*, the mean of 3 seeds\.$/,
    );
    // The two rules have the same noise of the seed, so that the difference has none.
    expect(found[1]).toMatch(
      /^uniform ends at \d\.\d{3}, 0\.300 nats, \d+\.\d % higher \(95 % interval 0\.300 to 0\.300\); dga needed \d+\.\d % as many tokens to reach this loss\.$/,
    );
    expect(found.length).toBe(2);
  });

  test("a difference within the noise is reported as such, and so is a single seed", () => {
    const near = [0, 1, 2].flatMap((i) => [
      { seed: i, worse: 0.2 * i },
      { seed: i + 3, rule: "uniform", worse: 0.2 * i + 0.1 },
    ]);
    expect(summary(...near)[1]).toContain(
      "these seeds do not distinguish it from dga, because the interval contains 0",
    );
    expect(summary({}, { rule: "uniform", worse: 0.3 })).toContain(
      "For a rule with a single run, the effect of the seed is not known.",
    );
  });

  describe("of runs that have not reached their last step", () => {
    const seeds = (count: number, run: MadeRun): MadeRun[] =>
      Array.from({ length: count }, (_, i) => ({ ...run, seed: i + 1 }));
    const pageOf = (...runs: MadeRun[]): ReturnType<typeof makePageData> =>
      makePageData(runs.map((run, i) => viewOf(run, `run-${i}`)));
    const uniform = { rule: "uniform", worse: 0.3 };

    test("the figures of a group are of its other runs", () => {
      const whole = pageOf(...seeds(2, {}), ...seeds(3, uniform));
      const page = pageOf(...seeds(2, {}), ...seeds(3, uniform), { seed: 3, done: 8 });
      const [dga, other] = whole.groups;
      // The lines, too: they would end where the shortest run ends.
      expect(page.groups).toEqual([{ ...dga, runs: [0, 1, 5], counted: [0, 1] }, other]);
      expect(dga.end?.compared).toBe(true);
      expect(page.summary).toEqual([
        ...whole.summary,
        "The figures of dga are of 2 of its 3 runs; the other has not reached the last step.",
        "run-5 was stopped: 8 of 40 steps are done.",
      ]);
    });

    test("the same holds without a target", () => {
      const whole = pageOf(...seeds(2, { target: null }));
      const page = pageOf(...seeds(2, { target: null }), { target: null, seed: 3, done: 8 });
      expect(page.groups).toEqual([{ ...whole.groups[0], runs: [0, 1, 2], counted: [0, 1] }]);
      expect(page.summary.slice(0, 2)).toEqual([
        ...whole.summary,
        "The figures of dga are of 2 of its 3 runs; the other has not reached the last step.",
      ]);
    });

    test("a group of such runs is not ranked among those that have ended, whatever its loss", () => {
      fc.assert(
        fc.property(
          fc.integer({ min: 1, max: 39 }),
          fc.double({ min: -2, max: 2, noNaN: true }),
          (done, worse) => {
            const { summary: found, groups } = pageOf({ done, worse }, { rule: "uniform" }, { rule: "odm", worse: 0.1 }); // prettier-ignore
            expect(groups.map(({ end }) => end?.compared)).toEqual([false, true, true]);
            expect(found[0]).toMatch(/^uniform ends lowest/);
            expect(found[1]).toMatch(/^odm ends at /);
            expect(found.join(" ")).not.toMatch(/dga ends/);
            expect(found.join(" ")).toMatch(/ dga has not reached its last step, so it is not compared: its held-out loss .* (over|after) \d+k? tokens/); // prettier-ignore
          },
        ),
        { numRuns: 20 },
      );
    });

    test("the only group that has ended is not called the lowest", () => {
      expect(pageOf({ done: 8 }, uniform).summary[0]).toMatch(/^uniform has ended: its held-out loss on the target fell from /); // prettier-ignore
    });

    test("groups that were all stopped are ranked after the same tokens only, and their interval is that of the losses there", () => {
      const stopped = (run: MadeRun, ...done: number[]): MadeRun[] =>
        done.map((steps, i) => ({ ...run, done: steps, seed: i + 1 }));
      const [first, second] = pageOf(...stopped({}, 20, 28), ...stopped(uniform, 28, 20)).summary;
      expect(first).toMatch(/^dga ends lowest: .* over 20k tokens, the mean of 2 seeds\.$/);
      // Half of the way, the loss is half of 0.3 higher for every seed.
      expect(second).toContain("0.150 nats");
      expect(second).toContain("(95 % interval 0.150 to 0.150)");
      const other = pageOf(...stopped({}, 20, 28), ...stopped(uniform, 28, 24));
      expect(other.groups.map(({ end }) => end?.compared)).toEqual([false, false]);
      expect(other.summary.join(" ")).not.toMatch(/ends|higher/);
    });
  });

  test("losses that are equal are not said to differ", () => {
    expect(summary({}, { rule: "uniform", worse: 0 })).toContain("uniform ends at the same loss.");
    const { gathered, ...view } = viewOf({});
    for (const item of gathered.target.items) Object.assign(item, { loss: 3 });
    expect(makePageData([{ gathered, ...view }]).summary[0]).toMatch(
      /^The held-out loss on the target stayed at 3\.000 nats per token \(\d\.\d{3} bits per byte\) over 40k tokens\.$/,
    );
  });

  test("a run that was stopped, and one without a target", () => {
    expect(summary({ steps: 40, done: 20 }).at(-1)).toBe("run-0 was stopped: 20 of 40 steps are done.");
    expect(summary({ target: null })[0]).toMatch(
      /^dga: there is no target; the mean of the held-out losses of 4 domains went from 5\.\d+ to 3\.\d+ nats/,
    );
    expect(summary({ target: null, domains: ["only"] })[0]).toMatch(
      /^dga: there is no target; the held-out loss of the domain went from 5\.\d+ to /,
    );
  });

  test("the order of the domains is not other text, but other text is", () => {
    const pageOf = (...orders: string[][]): ReturnType<typeof makePageData> =>
      makePageData(orders.map((domains, i) => viewOf({ domains }, `run-${i}`)));
    const fingerprints = ({ runs }: ReturnType<typeof makePageData>): number =>
      new Set(runs.map(({ settings }) => settings.find(({ name }) => name === "fingerprint")?.value)).size;
    const same = pageOf(["a", "10", "b"], ["b", "a", "10"]);
    expect([same.cautions, fingerprints(same)]).toEqual([[expect.stringContaining("same seed")], 1]);
    const other = pageOf(["a", "10", "b"], ["b", "a", "9"]);
    expect(other.cautions[0]).toBe("The runs were trained on different domains or different text.");
    expect(fingerprints(other)).toBe(2);
  });

  test("a caution is given for other held-out text, whether the seed of the split, its share or the evaluated part differs, and for selected text", () => {
    const cautionsFor = (other: (facts: RunFacts) => RunFacts): readonly string[] => {
      const view = viewOf({ rule: "uniform" }, "other");
      const { head } = view.gathered;
      const changed = {
        ...view,
        gathered: { ...view.gathered, head: { ...head, facts: other(head.facts) } },
      };
      return makePageData([viewOf({}, "one"), changed]).cautions;
    };
    const evaluated =
      /^The runs were evaluated on different text of the target \(--held-out, --eval-tokens\); /;
    const { target } = madeFacts({});
    if (target === null) expect.unreachable();
    const tokens = { ...target, heldOutBytes: 0 };
    expect(cautionsFor((facts) => facts)).toEqual([]);
    for (const [other, caution] of [
      [
        { dataSeed: 2, evaluatedTokens: 7 },
        /^The runs hold out different text, since the split follows the seed/,
      ],
      [{ target: { ...target, heldOutBytes: 5 } }, evaluated],
      [{ target: tokens }, evaluated],
      [{ evaluatedTokens: 999 }, evaluated],
      [
        { selected: new Map([...madeFacts({}).domains.keys()].map((name) => [name, 0.5])) },
        /^Some runs were trained on the text that resembles the target most, others on all text/,
      ],
    ] as const)
      expect(cautionsFor((facts) => ({ ...facts, ...other }))).toEqual([expect.stringMatching(caution)]);
    // Another tokenizer cuts the same text into other numbers of tokens.
    const other = { vocabSize: 999, evaluatedTokens: 5, target: { ...target, heldOutTokens: 5 } };
    expect(cautionsFor((facts) => ({ ...facts, ...other }))).toEqual([
      expect.stringContaining("different tokenizers"),
    ]);
  });

  test("a caution is given for different tokenizers and lengths", () => {
    const { cautions } = makePageData([viewOf({}, "a"), viewOf({ vocabSize: 1024, steps: 50 }, "b")]);
    expect(cautions.join(" ")).toMatch(/different tokenizers.*different lengths/);
    expect(makePageData([viewOf({}, "a"), viewOf({ seed: 2 }, "b")]).cautions).toEqual([]);
    expect(makePageData([viewOf({}, "a"), viewOf({}, "b")]).cautions).toEqual([
      "dga: two of its runs have the same seed; bands and errors treat them as independent.",
    ]);
  });
});

describe("small functions", () => {
  test("significant digits are kept", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 1e-5, max: 9.99e8, noNaN: true }),
        fc.integer({ min: 1, max: 6 }),
        (value, digits) => {
          const text = significant(value, digits);
          expect(text).not.toMatch(/e|\.\d*0$|\.$/);
          expectNear(Number(text), value, 0.5 * 10 ** (1 - digits) * (1 + 1e-9));
        },
      ),
    );
  });

  test("counts and times have units", () => {
    expect([0, 999, 999.6, 1000, 51_234, 1.5e6, 2e12].map(formatCount)).toEqual([
      "0",
      "999",
      "1k",
      "1k",
      "51.2k",
      "1.5M",
      "2T",
    ]);
    expect([0.04, 9.96, 59, 125, 7440].map(formatSeconds)).toEqual([
      "0.0 s",
      "10 s",
      "59 s",
      "2 min 05 s",
      "2 h 04 min",
    ]);
    expect([-1.5, 0, NaN].map((value) => significant(value, 2))).toEqual(["−1.5", "0", "–"]);
  });

  test("no text in JSON can end a script", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const found = escapeScript(JSON.stringify([text, "</script>", "<!--", "\u2028"]));
        expect(found).not.toMatch(/[<\u2028\u2029]/);
        expect(JSON.parse(found)).toEqual([text, "</script>", "<!--", "\u2028"]);
      }),
    );
  });

  test("rows are sorted; equal rows keep their order, and unknown values come last", () => {
    fc.assert(
      fc.property(fc.array(fc.option(fc.integer({ max: 5 }))), fc.boolean(), (keys, descending) => {
        const rows = keys.map((key, i) => ({ key, i }));
        const sorted = sortedRows(rows, ({ key }) => key, descending);
        const known = sorted.filter(({ key }) => key !== null);
        expect(sorted.slice(known.length).every(({ key }) => key === null)).toBe(true);
        known.slice(1).forEach((row, i) => {
          const order = (descending ? -1 : 1) * ((row.key ?? 0) - (known[i].key ?? 0));
          expect(order > 0 || (order === 0 && row.i > known[i].i)).toBe(true);
        });
        expect([...sorted].sort((a, b) => a.i - b.i)).toEqual(rows);
      }),
    );
  });
});

describe("the page's script", () => {
  test("has each module once, before the modules that import it, and without imports and exports", () => {
    const files: Readonly<Record<string, string>> = {
      "file:///main.js":
        'import { b } from "./b.js";\nimport { c as d } from "./c.js";\nimport { c } from "./c.js";\nb(c);\n',
      "file:///b.js":
        'import {\n  c,\n} from "./c.js";\nexport function b(x) {}\n//# sourceMappingURL=b.js.map',
      "file:///c.js": "export const c = 1;\nexport {};\n",
    };
    const read = ({ href }: URL): string => files[href];
    // A name that is changed on the way would not be found.
    expect(() => joinModules(new URL("file:///main.js"), read)).toThrow("import { c as d }");
    const plain = {
      ...files,
      "file:///main.js": files["file:///main.js"].replace('import { c as d } from "./c.js";\n', ""),
    };
    const joined = joinModules(new URL("file:///main.js"), ({ href }) => plain[href as keyof typeof plain]);
    expect(joined.split("\n").filter((line) => line !== "")).toEqual([
      "const c = 1;",
      "function b(x) {}",
      "b(c);",
    ]);
    expect(readAssets().charts).toContain("Permission is hereby granted");
    expect(readAssets().script).not.toMatch(/^\s*(import|export)\b/m);
  });
});

describe("colours", () => {
  const part = (colour: string, at: number): number => {
    const share = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const luminance = (colour: string): number =>
    0.2126 * part(colour, 1) + 0.7152 * part(colour, 3) + 0.0722 * part(colour, 5);
  const contrast = (one: string, other: string): number => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };

  describe.each([
    ["light", light],
    ["dark", dark],
  ])("%s", (_, theme) => {
    test("text has the contrast of WCAG's AA, and lines that of graphics", () => {
      for (const ink of [theme.ink, theme.muted, theme.accent, theme.warning])
        for (const ground of [theme.background, theme.panel])
          expect(contrast(ink, ground)).toBeGreaterThanOrEqual(4.5);
      for (const line of [...theme.runs, ...theme.domainLines])
        expect(contrast(line, theme.background), line).toBeGreaterThanOrEqual(3);
    });

    test("the colours of runs and domains are all different, and neighbouring domains differ in lightness", () => {
      const all = [...theme.runs, ...new Set([...theme.domains, ...theme.domainLines]), theme.others];
      expect(new Set(all).size).toBe(all.length);
      theme.domains
        .slice(1)
        .forEach((colour, i) => expect(contrast(colour, theme.domains[i])).toBeGreaterThan(1.3));
    });

    test("16 runs can be distinguished by colour and dash together", () => {
      const strokes = Array.from({ length: 16 }, (_, i) => JSON.stringify(runStroke(theme, i)));
      expect(new Set(strokes).size).toBe(16);
    });
  });

  test("the colours of the heat map become lighter without exception", () => {
    const shades = Array.from({ length: 65 }, (_, i) => {
      const [r, g, b] = heat(i / 64);
      return luminance(`#${[r, g, b].map((value) => value.toString(16).padStart(2, "0")).join("")}`);
    });
    shades.slice(1).forEach((shade, i) => expect(shade).toBeGreaterThan(shades[i]));
  });
});
