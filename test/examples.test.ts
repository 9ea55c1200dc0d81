/** The programs in examples/ that a test can run show what they claim. */
import { init, shutdown } from "gradmix";
import { afterAll, beforeAll, expect, test } from "vitest";
import { run as tabular } from "../examples/tabular.ts";
import { run as tied } from "../examples/tied.ts";

beforeAll(async () => {
  await init({ backend: "cpu", threads: 1 });
});
afterAll(shutdown);

test.each([1, 2, 3])("tabular: the planted mixture of tables is found (seed %i)", async (seed) => {
  const found = await tabular(seed);
  const planted = [0.7, 0.3, 0, 0];
  // Uniform would be a distance of 1; a vertex, 0.6.
  expect(planted.reduce((sum, share, i) => sum + Math.abs(share - found[i]), 0)).toBeLessThan(0.25);
  expect(found[0]).toBeGreaterThan(found[1]);
  expect(found[1]).toBeGreaterThan(5 * Math.max(found[2], found[3]));
});

const raw = { name: "dga", normalise: "raw", eta: 2 } as const;
const cosine = { name: "dga", normalise: "cosine" } as const;

test.each([
  ["the default", undefined, undefined],
  ["the default, one pass", { from: "batch" }, undefined],
  ["cosines, whole gradients", { estimator: "perDomain" }, cosine],
  ["cosines, sketches", { estimator: "sketch" }, cosine],
  ["raw, one pass", { from: "batch" }, raw],
  ["raw, forward", { estimator: "forward" }, raw],
  ["raw, from the steps", { from: "step" }, raw],
] as const)("tied: the target's language is found (%s)", async (_, alignment, rule) => {
  const [first, ...others] = await tied(alignment, rule);
  expect(first).toBeGreaterThan(0.6);
  for (const other of others) expect(other).toBeLessThan(0.25);
});

test.each([
  ["one pass", { from: "batch" }],
  ["from the steps", { from: "step" }],
] as const)(
  "tied: a rule that needs norms is refused, and the error names the parameter and the remedy (%s)",
  async (_, alignment) => {
    await expect(tied(alignment, cosine)).rejects.toMatchObject({
      code: "config",
      message:
        'rule dga: it needs the norms of the domains\' gradients, and parameter embedding is used twice in one pass (tied weights), so that its norm cannot be added up use by use; take alignment { from: "batch", estimator: "perDomain" }, which has whole gradients, or a rule without norms (rules of gradmix that have the option: normalise = raw)',
    });
  },
);
