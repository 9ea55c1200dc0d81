/** Alignment options without effect are named. The oracle is a trainer: it does the same with and without such an option. */
import { init, shutdown } from "gradmix";
import {
  type AlignmentOptions,
  createBases,
  createMixer,
  createTrainer,
  type RuleOptions,
  type TrainerOptions,
} from "gradmix/dga";
import { afterAll, beforeAll, expect, test } from "vitest";
import { clampedAlignment, unusedAlignment } from "#dist/cli/unused-alignment.js";
import { language, tiny, windows } from "../dga/languages.ts";
import { codeOf } from "../errors.ts";

beforeAll(async () => void (await init({ backend: "cpu", threads: 1 })));
afterAll(shutdown);

const names = ["a", "b", "c"];
const bases = createBases({ x: [0.5, 0.5, 0], y: [0, 0.5, 0.5] }, names);
const other = windows("other", [language(3, 150)]);
/** With the number of pairs of `from` and another option that a trainer accepts. */
const setups: readonly [string, RuleOptions, Partial<TrainerOptions>, number][] = [
  ["alignments", { name: "dga", prior: [98, 1, 1] }, {}, 24],
  ["alignments of bases", { name: "dga", prior: [1, 1] }, { bases }, 19],
  ["a Gram matrix", { name: "rnb" }, {}, 16],
  ["several targets", { name: "grape", targets: ["other"] }, { targets: new Map([["other", other]]) }, 14],
  ["losses", { name: "odm" }, {}, 24],
  ["nothing", { name: "uniform" }, {}, 24],
];
/** For each option a value that is not the default. */
const changes: readonly AlignmentOptions[] = [
  { estimator: "forward" },
  { domainExamples: 2 },
  { targetExamples: 3 },
  { refreshEvery: 2 },
  { measureEvery: 3 },
  { probes: 1 },
  { blockShare: 0.5 },
  { bases: "direct" },
];

const UPDATE_EVERY = 5;

/** What a trainer does with these options; null if it refuses them. */
async function doneWith(
  rule: RuleOptions,
  more: Partial<TrainerOptions>,
  alignment: AlignmentOptions,
): Promise<unknown> {
  const make = (): ReturnType<typeof createTrainer> =>
    createTrainer({
      model: tiny(),
      mixer: createMixer({ domains: more.bases?.names ?? names, rule, updateEvery: UPDATE_EVERY }),
      domains: names.map((name, i) => windows(name, [language(i + 1, 40 * i + 340)])),
      target: windows("target", [language(1, 300)]),
      batch: 4,
      schedule: () => 0.01,
      seed: 3,
      ...more,
      alignment,
    });
  if (codeOf(() => make().dispose()) !== "no error") return null;
  const trainer = make();
  const done = [];
  for (let i = 0; i < 10; i++) done.push(await trainer.step());
  trainer.dispose();
  return done;
}

test.each(setups)("%s", async (_, rule, more, accepted) => {
  const { rule: made } = createMixer({ domains: more.bases?.names ?? names, rule });
  let compared = 0;
  for (const from of [{}, { from: "step" }, { from: "batch" }] as const) {
    const without = await doneWith(rule, more, from);
    if (without === null) continue;
    for (const change of changes) {
      const found = await doneWith(rule, more, { ...from, ...change });
      if (found === null) continue;
      compared++;
      const same = JSON.stringify(found) === JSON.stringify(without);
      const [option] = Object.keys(change);
      const lines = unusedAlignment({ ...from, ...change }, made, more.bases ?? null).filter(
        (line) => !line.startsWith("alignment.from "),
      );
      expect(lines.length, `${rule.name} ${JSON.stringify({ ...from, ...change })}`).toBe(same ? 1 : 0);
      if (same) expect(lines[0]).toMatch(new RegExp(`^alignment\\.${option} has no effect: `));
    }
  }
  expect(compared).toBe(accepted);
});

test("an interval that is longer than the one between two updates is named, with the one that a trainer keeps to", async () => {
  const [, rule, more] = setups[0];
  const mixer = createMixer({ domains: names, rule, updateEvery: UPDATE_EVERY });
  for (const option of ["measureEvery", "refreshEvery"] as const)
    for (let every = 1; every <= 3 * UPDATE_EVERY; every++) {
      const longest = await doneWith(rule, more, { [option]: UPDATE_EVERY });
      const clamped = clampedAlignment({ [option]: every }, mixer);
      if (every > UPDATE_EVERY) expect(await doneWith(rule, more, { [option]: every })).toEqual(longest);
      expect(clamped).toEqual(
        every <= UPDATE_EVERY
          ? []
          : [
              `alignment.${option} is ${every}, and acts like 5: measurements begin again after every update of the weights, which is every 5 steps (--update-every)`,
            ],
      );
      // A separate batch has no such interval, which unusedAlignment says.
      expect(clampedAlignment({ from: "batch", [option]: every }, mixer)).toEqual([]);
    }
});
