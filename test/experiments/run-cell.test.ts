/** Cells of every kind run on a tiny model and planted text, so the library accepts what the experiments request. */
import { init, shutdown } from "gradmix";
import type { TokenStream } from "gradmix/data";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Cell } from "../../experiments/cell.ts";
import { targets } from "../../experiments/definitions/common.ts";
import { ALL_EVENLY, targetNamed } from "../../experiments/domains.ts";
import { experiments } from "../../experiments/definitions/index.ts";
import { usual } from "../../experiments/experiment.ts";
import { methods } from "../../experiments/methods.ts";
import { randomOf } from "../../experiments/random.ts";
import { runCell } from "../../experiments/run-cell.ts";
import type { Split, Text } from "../../experiments/text.ts";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const vocabulary = 50;

/** Documents of 50 tokens, in which a token is followed by one of two. */
function language(seed: number, documents: number, walk: number): TokenStream {
  const table = randomOf(seed);
  const followers = Array.from({ length: vocabulary }, () =>
    [0, 1].map(() => Math.floor(table() * vocabulary)),
  );
  const random = randomOf(walk);
  const tokens = new Uint16Array(50 * documents);
  for (let t = 1; t < tokens.length; t++)
    tokens[t] = random() < 0.1 ? t % vocabulary : followers[tokens[t - 1]][random() < 0.5 ? 0 : 1];
  return { tokens, documents: Float64Array.from({ length: documents + 1 }, (_, d) => 50 * d) };
}
const split = (seed: number): Split => ({
  train: language(seed, 40, 2 * seed),
  heldOut: language(seed, 10, 2 * seed + 1),
});
const domains = ["a", "b", "c", "d", "e", "f", "g", "h"];
const text: Text = {
  vocabulary,
  domains: Object.fromEntries(domains.map((name, i) => [name, split(i)])),
  // Each target has the language of a domain.
  targets: Object.fromEntries(
    Object.values(targets).map((name, i) => [name, { ...split(i), train: language(i, 12, 100 + i) }]),
  ),
};

const tiny = (cell: Cell): Cell => ({
  ...cell,
  text: {
    ...cell.text,
    ...{ vocabulary, domains, cap: null, targetTokens: null },
    // A target that is a domain of the corpora is none of these.
    ...(cell.text.target === "masc-fiction" ? { target: targets.technical } : {}),
    ...(cell.text.cut === undefined ? {} : { cut: { ...cell.text.cut, count: 8 } }),
  },
  model: { dim: 8, layers: 1, heads: 2, context: 16 },
  ...{ steps: 10, batch: 4, warmup: 2, seed: 1 },
  ...(cell.before === undefined ? {} : { before: 2 }),
  ...(cell.questions === undefined ? {} : { questions: 5 }),
});

beforeAll(async () => {
  await init({ backend: "cpu", threads: 1 });
});
afterAll(shutdown);

describe.each(experiments.map((experiment) => [experiment.name, experiment] as const))(
  "%s",
  (_, experiment) => {
    // One of each method and kind of text.
    const kinds = new Map(
      experiment
        .cells(usual, () => undefined)
        .filter(({ method }) => method.rule.name !== "static")
        .map((cell) => [JSON.stringify([cell.method, cell.text.cut === undefined]), tiny(cell)]),
    );

    test("each method runs", async () => {
      expect(kinds.size).toBeGreaterThan(1);
      for (const cell of kinds.values()) {
        const found = await runCell(cell, text);
        expect(found.domains).toBeGreaterThan(1);
        expect(found.tokens).toBeLessThanOrEqual(cell.steps * cell.batch * 16);
        expect(found.tokens).toBeGreaterThan(0.8 * cell.steps * cell.batch * 16);
        for (const number of [found.loss, found.outside, found.epochs, found.cpuSeconds])
          expect(number).toBeGreaterThan(0);
        expect(found.curve.at(-1)?.step).toBe(cell.steps);
        for (const { weights } of found.weights ?? [])
          expectNear(
            weights.reduce((a, b) => a + b, 0),
            1,
            2e-3,
          );
        expect(found.before !== null).toBe(cell.before !== undefined);
        expect(found.accuracy !== null).toBe(cell.questions !== undefined);
      }
    });
  },
);

const [sample] = experiments[0].cells(usual, () => undefined);

test("the same cell gives the same numbers, and another seed gives others", async () => {
  const cell = tiny({ ...sample, method: methods["DGA (default)"] });
  const [{ cpuSeconds: _, ...one }, { cpuSeconds: __, ...two }] = [
    await runCell(cell, text),
    await runCell(cell, text),
  ];
  expect(two).toEqual(one);
  expect((await runCell({ ...cell, seed: 2 }, text)).loss).not.toBe(one.loss);
});

test("importance sampling draws from the domain that has the target's language", async () => {
  const { weights } = await runCell(tiny({ ...sample, method: methods["importance sampling"] }), text);
  expect(weights?.[0].weights[0]).toBeGreaterThan(0.9);
});

test("a mixture is evaluated on the requested targets, and a run without a target has no target loss", async () => {
  const probes = [targets.inaugural, targets.math];
  const weights = domains.map((_, i) => (i === 1 ? 1 : 0));
  const cell = tiny({ ...sample, method: { rule: { name: "static", weights } }, probes });
  const found = await runCell({ ...cell, steps: 60, text: { ...cell.text, target: null } }, text);
  expect([found.loss, found.curve]).toEqual([null, []]);
  // It learns the language of the second.
  expect(found.probes?.[targets.math]).toBeLessThan(found.probes?.[targets.inaugural] ?? NaN);
});

test("the target of all domains in equal parts has the same amount of each domain, and nothing twice", () => {
  const { train, heldOut } = targetNamed(text, ALL_EVENLY);
  const halves = [train, heldOut].map(({ tokens }) =>
    domains.map((_, i) => [...tokens.subarray(250 * i, 250 * (i + 1))]),
  );
  domains.forEach((name, i) => {
    expect([...halves[0][i], ...halves[1][i]]).toEqual([...text.domains[name].heldOut.tokens]);
  });
});

test("domains that the corpora do not have are refused by name", async () => {
  const cell = tiny(sample);
  const refusal = await runCell({ ...cell, text: { ...cell.text, domains: ["a", "z"] } }, text).catch(
    (error: unknown) =>
      codeOf(() => {
        throw error;
      }),
  );
  expect(refusal).toMatch(/^data: the corpora have no domains\/z\.jsonl\.gz/);
});
