/** `gradmix compare`: which runs it makes, what it refuses, and that a comparison that was killed and continued has the same results. */
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { Writable } from "node:stream";
import { pathToFileURL } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CompareArguments } from "#dist/cli/compare-arguments.js";
import { compare } from "#dist/cli/compare-command.js";
import { pageNames } from "#dist/cli/compare-results.js";
import {
  type Choice,
  optionsFor,
  planRuns,
  type RuleEntry,
  rulesOfFile,
  rulesOfFlag,
  checkRules,
  seedsOf,
  selectionWarning,
  sharedOptions,
  splitFile,
} from "#dist/cli/compare-plan.js";
import { startCompareProgress } from "#dist/cli/compare-progress.js";
import { formatPlace, formatRoughly, formatTable, secondsAhead } from "#dist/cli/compare-table.js";
import {
  checkSameConfig,
  flatten,
  jsonLayer,
  type Layer,
  mergeLayers,
  resolveConfig,
} from "#dist/cli/config.js";
import { openOutput } from "#dist/cli/output.js";
import { planRun } from "#dist/cli/plan.js";
import { recordedConfig } from "#dist/cli/run-folder.js";
import { train } from "#dist/cli/train.js";
import { GradmixError } from "#dist/errors.js";
import { parseJson } from "#dist/json.js";
import { readRunHead, readRunRecord } from "#dist/runs/record.js";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { timeless } from "./timeless.ts";

const layer = (json: object, source = "c.json"): Layer => jsonLayer(json, source);
const data = { domains: { a: "a.txt", b: "b.txt" }, target: "t.txt" };

test("--select applies to the rules that can select, and 1 to all", () => {
  const rules = rulesOfFlag("uniform,proportional,dga", []);
  const takes = (select: number): string[] =>
    rules
      .filter((entry) => optionsFor(entry, layer({ mixing: { select } })).values.has("mixing.select"))
      .map(({ name }) => name);
  expect(takes(0.25)).toEqual(["uniform", "dga"]);
  expect(takes(1)).toEqual(["uniform", "proportional", "dga"]);
});

test("a line says which rules select text, if not all or none of them do", () => {
  const line = (given: Readonly<Record<string, number>>) =>
    selectionWarning(
      new Map(
        Object.entries(given).map(([name, leastShare]) => [
          name,
          { leastShare, canSelect: name !== "proportional" },
        ]),
      ),
    );
  expect(line({ uniform: 1, proportional: 1, dga: 0.25, odm: 1 })).toEqual([
    "on the text within each domain that resembles the target most: dga; on all text: uniform, proportional, odm. --select 1 gives all text to every rule, and --select 0.25 selects for uniform, odm too",
  ]);
  expect(line({ uniform: 0.25, proportional: 1 })).toEqual([
    "on the text within each domain that resembles the target most: uniform; on all text: proportional. --select 1 gives all text to every rule",
  ]);
  expect([line({ uniform: 1, odm: 1 }), line({ dga: 0.25, slow: 0.5 })]).toEqual([[], []]);
});

describe("the plan", () => {
  const choice = (rules: string, seeds: readonly number[]): Choice => ({
    rules: rulesOfFlag(rules, []),
    seeds,
    baseline: rules.split(",")[0],
  });
  const plan = (given: object, chosen: Choice) =>
    planRuns({
      choice: chosen,
      given: layer(given),
      folder: "out",
      resolve: async (layers) => resolveConfig(layers),
    });

  test("has all rules for each seed and all seeds for each target, with one split and one tokenizer", async () => {
    const targets = { exam: ["e.txt"], mail: ["m.txt"] };
    const runs = await plan({ data: { ...data, target: [], targets } }, choice("uniform,dga:paper", [4, 9]));
    expect(runs.map(({ name }) => name)).toEqual(
      ["exam", "mail"].flatMap((target) =>
        [4, 9].flatMap((seed) => ["uniform", "dga-paper"].map((rule) => `${rule}/seed-${seed}/${target}`)),
      ),
    );
    for (const { name, seed, target, rule, config } of runs) {
      expect(config).toMatchObject({
        training: { seed },
        data: { seed: 1, target: targets[target as "exam"], tokenizer: join("out", "tokenizer.json") },
        run: { out: join("out", ...name.split("/")) },
        mixing: rule === "uniform" ? { rule, preset: null } : { rule: "dga", preset: "paper" },
      });
      expect(config.data.targets.size).toBe(0);
    }
  });

  test("takes the data's seed from its own option, or else from the first seed of the training", async () => {
    const seeds = async (given: object): Promise<unknown[]> =>
      (await plan({ data, ...given }, choice("uniform", [7, 8]))).map(({ config }) => config.data.seed);
    expect(await seeds({ training: { seed: 7 } })).toEqual([7, 7]);
    expect(await seeds({ training: { seed: 7 }, data: { ...data, seed: 3 } })).toEqual([3, 3]);
  });

  test("keeps a tokenizer that is given", async () => {
    const [run] = await plan({ data: { ...data, tokenizer: "byte" } }, choice("uniform", [1]));
    expect(run.config.data.tokenizer).toBe("byte");
  });

  test("lets grape learn for all targets, and measures it on each", async () => {
    const targets = { exam: ["e.txt"], mail: ["m.txt"] };
    const runs = await plan({ data: { ...data, target: [], targets } }, choice("grape", [1]));
    expect(runs.map(({ config }) => [config.data.target, [...config.data.targets.keys()]])).toEqual([
      [["e.txt"], ["exam", "mail"]],
      [["m.txt"], ["exam", "mail"]],
    ]);
  });

  test.each<[object, string, string]>([
    [{ data: { ...data, target: [] } }, "uniform", "gradmix compare needs a target"],
    [{ data: { ...data, targets: { e: "e.txt" } } }, "uniform", "c.json: data.target: gradmix compare uses"],
    [
      { data: { ...data, target: [], targets: { exam: "e.txt", Exam: "f.txt" } } },
      "uniform",
      'c.json: data.targets: the runs of "exam" and "Exam" would have the same folder',
    ],
    [{ data }, "uniform,grape", "--rule grape needs targets"],
    [{ data }, "uniform,doremi", "--rule doremi needs a reference"],
    [{ data }, "static", "--rule static needs weights"],
  ])("%j with %s is refused", async (given, rules, message) => {
    const error: unknown = await plan(given, choice(rules, [1])).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(GradmixError);
    expect(String(error)).toContain(message);
  });
});

describe("rules", () => {
  test("short forms stand for rules with options", () => {
    expect(rulesOfFlag("uniform, proportional,dga:paper", [])).toEqual([
      { name: "uniform", mixing: new Map([["rule", "uniform"]]) },
      {
        name: "proportional",
        mixing: new Map<string, unknown>([
          ["rule", "temperature"],
          ["ruleOptions", { exponent: 1 }],
        ]),
      },
      {
        name: "dga:paper",
        mixing: new Map([
          ["rule", "dga"],
          ["preset", "paper"],
        ]),
      },
    ]);
  });

  const file = parseJson(
    `{"compare": {"rules": {"uniform": {}, "slow": {"rule": "dga", "eta": 0.1}}, "baseline": "slow"}, "model": {"dim": 8}}`,
    { source: "c.json" },
  );

  test("a config file can name settings; its other sections are those of gradmix train", () => {
    const { section, rest } = splitFile(file, "c.json");
    expect(section.rules).toEqual([
      { name: "uniform", mixing: new Map([["rule", "uniform"]]) },
      {
        name: "slow",
        mixing: new Map<string, unknown>([
          ["rule", "dga"],
          ["eta", 0.1],
        ]),
      },
    ]);
    expect(section).toMatchObject({ baseline: "slow", seeds: null });
    expect(rest).toEqual(new Map([["model", new Map([["dim", 8]])]]));
    expect(rulesOfFlag("odm,slow", section.rules ?? [])).toEqual([
      { name: "odm", mixing: new Map([["rule", "odm"]]) },
      section.rules?.[1],
    ]);
  });

  test.each<[() => unknown, string]>([
    [() => rulesOfFlag("unifrom", []), 'config: --rules: there is no rule "unifrom"; did you mean uniform?'],
    [() => rulesOfFlag("dga:papers", []), "did you mean dga?"],
    [() => rulesOfFlag("slw", rulesOfFile({ slow: { rule: "dga" } }, "r")), "did you mean slow?"],
    [() => rulesOfFlag("uniform,", []), 'there is no rule ""'],
    [() => rulesOfFile({ mine: {} }, "r"), 'r.mine: there is no rule "mine"'],
    [() => rulesOfFile({ mine: 3 }, "r"), "r.mine: 3 is not an object"],
    [() => rulesOfFile([3], "r"), "r: 3 is not the name of a rule"],
    [() => rulesOfFile("dga", "r"), "neither a list of rules nor an object"],
    [() => checkRules(rulesOfFlag("dga,dga", []), "--rules"), '"dga" is listed twice'],
    [
      () => checkRules(rulesOfFile({ A: { rule: "dga" }, a: { rule: "dga" } }, "r"), "--rules"),
      '"a" is listed twice',
    ],
    [
      () => checkRules(rulesOfFile({ "dga-paper": { rule: "dga" }, "dga:paper": {} }, "r"), "--rules"),
      "is listed twice",
    ],
    [
      () => checkRules(rulesOfFile({ "../a": { rule: "dga" } }, "r"), "--rules"),
      '"../a" cannot name a folder',
    ],
    ...[
      "lock",
      "Lock",
      "Lock.0123456789abcdef",
      "tokenizer.json",
      "compare.json",
      "compare-plan.json",
      "report.html",
    ].map((name): [() => unknown, string] => [
      () => checkRules(rulesOfFile({ [name]: { rule: "dga" } }, "r"), "--rules"),
      `${JSON.stringify(name)} is the name of a file of the comparison`,
    ]),
    [() => checkRules([], "--rules"), "--rules: is empty"],
    [
      () => splitFile(new Map([["compare", new Map([["rule", "dga"]])]]), "c.json"),
      'c.json: unknown key "compare.rule"; did you mean rules?',
    ],
  ])("refused: case %#", (call, message) => {
    expect(codeOf(call)).toContain(message);
  });
});

describe("options of mixing", () => {
  const rules = (names: string): readonly RuleEntry[] => rulesOfFlag(names, []);
  const etaOf = (name: string, given: Layer): unknown =>
    optionsFor(rules(name)[0], given).values.get("mixing.eta");

  test("apply to the rules that have them, and a line says to which", () => {
    const given = layer({ mixing: { eta: 2, updateEvery: 5, rule: "odm" } });
    expect([etaOf("dga", given), etaOf("uniform", given)]).toEqual([2, undefined]);
    expect(optionsFor(rules("uniform")[0], given).values).toEqual(new Map([["mixing.updateEvery", 5]]));
    expect(sharedOptions(rules("uniform,dga,doge"), given)).toEqual([
      "c.json: mixing.eta applies to dga, doge; the other rules do not have this option",
    ]);
    expect(sharedOptions(rules("dga,doge"), given)).toEqual([]);
  });

  test("a histogram does not apply to a form of dga without a prior", () => {
    const given = layer({ mixing: { histogram: { a: 1, b: 2 } } });
    expect(sharedOptions(rules("dga,dga:paper"), given)).toEqual([
      "c.json: mixing.histogram applies to dga; the other rules do not have this option",
    ]);
  });

  test.each([
    ["reference", "runs/first", ["doremi", "own"]],
    ["guardShare", 0.3, ["own"]],
  ])("%s applies to every rule with a guard", (key, value, without) => {
    const takers = (mixing: object): string[] => {
      const given = layer({ mixing: { [key]: value, ...mixing } });
      return [...rules("uniform,doremi"), ...rulesOfFile({ own: { rule: "dga", guard: { a: 1 } } }, "r")]
        .filter((entry) => optionsFor(entry, given).values.has(`mixing.${key}`))
        .map(({ name }) => name);
    };
    expect(takers({})).toEqual(without);
    expect(takers({ guard: { "*": 1.02 } })).toEqual(["uniform", "doremi", "own"]);
  });

  test("are refused if no rule has them, or if they belong to a rule that is not compared", () => {
    expect(codeOf(() => sharedOptions(rules("uniform"), layer({ mixing: { eta: 2 } })))).toContain(
      "c.json: mixing.eta: none of the compared rules has this option",
    );
    const given = { mixing: { ruleOptions: { towards: "target" } } };
    expect(codeOf(() => sharedOptions(rules("doge"), layer(given)))).toContain(
      "it is not clear which rule the options belong to",
    );
    const named = layer({ mixing: { ...given.mixing, rule: "doge" } });
    expect(optionsFor(rules("doge")[0], named).values.has("mixing.ruleOptions")).toBe(true);
    expect(optionsFor(rules("ado")[0], named).values.has("mixing.ruleOptions")).toBe(false);
  });
});

test("seeds are counted from the first one, or are listed", () => {
  expect(seedsOf("3", 5, "s")).toEqual([5, 6, 7]);
  expect(seedsOf(2, 1, "s")).toEqual([1, 2]);
  expect(seedsOf("9,0,4", 5, "s")).toEqual([9, 0, 4]);
  expect(seedsOf("7,", 5, "s")).toEqual([7]);
  expect(seedsOf([8], 5, "s")).toEqual([8]);
  for (const wrong of ["0", "-1", "x", "1.5", "1,1", "1,,2", ",", "", 1001, [], [-1], {}, null])
    expect(codeOf(() => seedsOf(wrong, 1, "--seeds"))).toMatch(/^config: --seeds: /);
});

test("the first of two layers overrides the second, also for options that exclude each other", () => {
  const merged = mergeLayers([
    layer({ training: { steps: 5 } }, "first"),
    layer({ training: { tokens: 99, lr: 0.1, batch: 3 } }, "second"),
  ]);
  expect([...merged.values]).toEqual([
    ["training.steps", 5],
    ["training.lr", 0.1],
    ["training.batch", 3],
  ]);
  expect(merged.label("training.lr")).toBe("second: training.lr");
});

test("the seed of the split is that of the training unless it is given", () => {
  const splitOf = (json: object): unknown => planRun(resolveConfig([layer(json)])).data.seed;
  expect(splitOf({ data, training: { seed: 4 } })).toBe(4);
  expect(splitOf({ data: { ...data, seed: 9 }, training: { seed: 4 } })).toBe(9);
});

describe("messages", () => {
  test("the remaining time is that of the remaining steps, at each rule's speed", () => {
    const speed = fc.double({ min: 0.01, max: 100, noNaN: true });
    fc.assert(
      fc.property(fc.nat(500), fc.nat(500), speed, speed, (a, b, ofA, ofB) => {
        const ahead = [
          { rule: "a", steps: a },
          { rule: "b", steps: b },
        ];
        const both = new Map([
          ["a", ofA],
          ["b", ofB],
        ]);
        expectNear(secondsAhead(ahead, both), a * ofA + b * ofB, 1e-12, 1e5);
        expectNear(secondsAhead(ahead, new Map([["a", ofA]])), (a + b) * ofA, 1e-12, 1e5);
        expectNear(secondsAhead([{ rule: "c", steps: a }], both), (a * (ofA + ofB)) / 2, 1e-12, 1e5);
      }),
    );
    expect(secondsAhead([{ rule: "a", steps: 1 }], new Map())).toBeNull();
  });

  test("one line covers all runs and is updated now and then; the expected time is printed once", async () => {
    const runs = await planRuns({
      choice: { rules: rulesOfFlag("uniform,odm", []), seeds: [1, 2], baseline: "uniform" },
      given: layer({ data, training: { steps: 50 } }),
      folder: "out",
      resolve: async (layers) => resolveConfig(layers),
    });
    const lines: string[] = [];
    const shown: string[] = [];
    const status = {
      show: (text: string) => shown.push(text),
      line: (text: string) => lines.push(text),
      end() {},
    };
    let now = 0;
    const screen = { write() {}, isTTY: false };
    const progress = startCompareProgress({ screen, status, runs, done: new Set([runs[0].name]) }, () => now);
    const step = (run: number, step: number, seconds: number, loss?: number): void => {
      now += 1000 * seconds;
      const evaluation = loss === undefined ? {} : { evaluation: { target: loss, domains: new Map() } };
      const line = { tokens: 0, loss: 0, gradNorm: 1, lr: 1, weights: new Map(), domains: new Map() };
      progress.step(runs[run], { ...line, step, seconds, ...evaluation });
    };
    for (let i = 1; i <= 6; i++) step(1, i, 4);
    // 144 steps of 4 seconds were left after the sixth, and 145 after the fifth, a tenth of the run.
    expect(lines).toEqual(["about 10 minutes left, by the speed of the first run"]);
    expect(shown).toEqual(
      [
        [1, 149],
        [4, 146],
      ].map(
        ([i, left]) =>
          `run 2/4 odm/seed-1  step  ${i}/50  ${Math.floor((left * 4) / 60)}:${String((left * 4) % 60).padStart(2, "0")} left`,
      ),
    );
    progress.end(runs[1]);
    now += 10_000;
    step(2, 50, 1, 2.5);
    // One run of odm remains; of uniform, one step of one second is known.
    expect(shown.at(-1)).toBe("run 3/4 uniform/seed-2  step 50/50  target 2.500  3:20 left");
    expect(lines.length).toBe(1);
  });

  test("times are rounded, and the line names the current run", () => {
    expect([0.2, 1, 40, 89, 360, 5000, 9000].map(formatRoughly)).toEqual([
      ...["1 second", "1 second", "40 seconds", "89 seconds", "6 minutes", "83 minutes", "2.5 hours"],
    ]);
    expect(
      formatPlace({
        done: 2,
        runs: 12,
        name: "dga/seed-1",
        step: 20,
        steps: 240,
        targetLoss: 2.1,
        secondsLeft: 250,
      }),
    ).toBe("run  3/12 dga/seed-1  step  20/240  target 2.100  4:10 left");
  });

  test("the table", () => {
    const loss = { mean: 2.1, standardError: 0.01, half: 0.04, count: 3 };
    const base = { rule: "uniform", runs: [], loss, bitsPerByte: 1.5, difference: null, cost: 1, time: 1 };
    const difference = {
      mean: -0.25,
      standardError: 0.02,
      half: 0.086,
      count: 3,
      interval: [-0.336, -0.164] as const,
    };
    const alone = { mean: 0.00001, standardError: null, half: null, count: 1, interval: null };
    expect(
      formatTable(
        [
          base,
          { ...base, rule: "dga", difference, cost: 1.07, time: 1.077 },
          {
            ...base,
            rule: "b",
            loss: { ...loss, standardError: null, count: 1 },
            bitsPerByte: null,
            difference: alone,
            cost: null,
            time: null,
          },
        ],
        "uniform",
      ),
    ).toBe(
      [
        "rule     seeds           loss  bits/byte   minus uniform     95 % interval    cost    time",
        "uniform      3  2.100 ± 0.010      1.500               –                 –  × 1.00  × 1.00",
        "dga          3  2.100 ± 0.010      1.500  −0.250 ± 0.020  −0.336 to −0.164  × 1.07  × 1.08",
        "b            1          2.100          –           0.000              none       –       –",
        "",
      ].join("\n"),
    );
  });
});

describe("runs", () => {
  const command = resolve(import.meta.dirname, "../../dist/cli/main.js");
  const preload = pathToFileURL(join(import.meta.dirname, "preload.mjs")).href;
  let root = "";
  let config = "";
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "gradmix-compare-"));
    for (const [i, name] of ["a", "b", "target"].entries())
      writeFileSync(
        join(root, `${name}.jsonl`),
        Array.from(
          { length: 30 },
          (_, j) => `{"text":"the ${["dog", "cat", "dog's"][i]} sees ${(j * 7919) % 97} houses"}\n`,
        ).join(""),
      );
    config = join(root, "c.json");
    const text = (name: string): string => join(root, `${name}.jsonl`);
    writeFileSync(
      config,
      JSON.stringify({
        data: { domains: { a: text("a"), b: text("b") }, target: text("target"), tokenizer: "byte" },
        model: { dim: 16, layers: 1, heads: 1, context: 8 },
        training: { steps: 6, batch: 2 },
        mixing: { updateEvery: 2 },
        run: { backend: "cpu", threads: 1, checkpointEvery: 2 },
        compare: { rules: { proportional: {}, mine: { rule: "dga", eta: 3 } }, seeds: 2, baseline: "mine" },
      }),
    );
  });
  afterAll(() => rmSync(root, { recursive: true }));

  interface Ended {
    readonly code: number;
    readonly out: string;
    readonly err: string;
  }

  async function compared(args: Partial<CompareArguments>): Promise<Ended> {
    const [out, err] = ["", ""].map((text) => {
      const kept = { text };
      const stream = new Writable({
        write(chunk, _encoding, done) {
          kept.text += String(chunk);
          done();
        },
      });
      return { kept, output: openOutput(stream) };
    });
    const none = { path: null, given: new Map(), rules: null, seeds: null, baseline: null, resume: null };
    const code = await compare({ ...none, ...args }, { out: out.output, err: err.output });
    return { code, out: out.kept.text, err: err.kept.text };
  }
  const refusalOf = async (args: Partial<CompareArguments>): Promise<string> =>
    compared(args).then(
      () => "nothing was refused",
      (error: unknown) => (error instanceof GradmixError ? `${error.code}: ${error.message}` : String(error)),
    );
  const into = (folder: string): ReadonlyMap<string, readonly string[]> => new Map([["run.out", [folder]]]);

  /** A process that sends itself a signal at a certain call. */
  function signalled(
    args: readonly string[],
    signal: object,
  ): { code: number | null; signal: string | null; err: string } {
    const {
      status,
      signal: by,
      stderr,
    } = spawnSync(process.execPath, ["--import", preload, command, "compare", ...args], {
      encoding: "utf8",
      env: { ...process.env, SIGNAL: JSON.stringify(signal) },
    });
    return { code: status, signal: by, err: stderr };
  }

  /** compare.json, without times and without the name of the folder. */
  const told = (folder: string): unknown =>
    JSON.parse(
      readFileSync(join(folder, "compare.json"), "utf8")
        .replaceAll(/"(seconds|time)": [\d.e-]+/g, '"$1": 0')
        .replaceAll(folder, "DIR"),
    );
  const names = ["proportional/seed-1", "mine/seed-1", "proportional/seed-2", "mine/seed-2"];

  test("a comparison that was stopped, killed and resumed gives the same result as an uninterrupted one", async () => {
    const whole = join(root, "whole");
    const { code, out, err } = await compared({ path: config, given: into(whole) });
    expect([code, out]).toEqual([0, expect.stringContaining("minus mine")]);
    expect(out).toContain(`gradmix compare ${whole} --seeds 1,2,3,4\n`);
    expect(err).toContain("4 runs of 6 steps (rules proportional, mine; seeds 1, 2)");
    expect(err).toMatch(/^about \d+ seconds? left, by the speed of the first run$/m);
    for (const name of names) expect(err).toContain(`${name}: held-out target`);
    // One page for all runs, whose lines have the rules' names.
    expect(out).toContain(`look: ${join(whole, "report.html")}\n`);
    expect(readFileSync(join(whole, "report.html"), "utf8")).toMatch(/(mine|proportional) ends lowest/);

    const cut = join(root, "cut");
    // In the evaluation of the second run's fourth step, or soon after.
    const stop = signalled([config, "--out", cut], {
      call: "rename",
      path: "step-00000004",
      nth: 2,
      signals: ["SIGINT"],
    });
    expect(stop.code).toBe(130);
    expect(stop.err).toContain(`stopped; 1 of 4 runs are done. Continue with: gradmix compare ${cut}`);
    // Just before the third run's second checkpoint is complete.
    const kill = signalled([cut], {
      call: "rename",
      path: "proportional.seed-2.*step-00000004",
      nth: 1,
      signals: ["SIGKILL"],
    });
    expect(kill.signal).toBe("SIGKILL");
    expect(existsSync(join(cut, "compare.json"))).toBe(false);
    const end = await compared({ resume: cut });
    expect(end.code).toBe(0);
    expect(end.err).toContain("2 of 4 runs are done already");
    expect(told(cut)).toEqual(told(whole));
    const table = (text: string, folder: string): string =>
      text.replaceAll(/(× \d\.\d\d) +× [\d.]+/g, "$1").replaceAll(folder, "DIR");
    expect(table(end.out, cut)).toBe(table(out, whole));
    for (const name of names) {
      const [there, here] = [whole, cut].map((folder) => readRunRecord(join(folder, ...name.split("/"))));
      expect(here.steps.map(timeless)).toEqual(there.steps.map(timeless));
    }
    expect(
      readdirSync(cut, { recursive: true, encoding: "utf8" }).filter((name) => /lock|\.tmp$/.test(name)),
    ).toEqual([]);

    // Each is a run of gradmix train, on the text of the first seed.
    const alone = join(root, "alone");
    const quiet = openOutput(new Writable({ write: (_chunk, _encoding, done) => done() }));
    await train(
      { config: join(whole, "mine", "seed-2", "config.json"), given: into(alone), resume: null },
      undefined,
      { out: quiet, err: quiet },
    );
    expect(readRunRecord(alone).steps.map(timeless)).toEqual(
      readRunRecord(join(whole, "mine", "seed-2")).steps.map(timeless),
    );
    const { facts } = readRunHead(join(whole, "mine", "seed-2"));
    expect([facts.seed, facts.dataSeed]).toEqual([2, 1]);

    // A comparison can be continued with other rules, another baseline, and options that change no number, but with no others.
    const fewer = await compared({
      path: whole,
      given: new Map([["run.vectorBits", ["128"]]]),
      rules: "proportional,mine",
      seeds: "1",
      baseline: "proportional",
    });
    expect(fewer.out).toContain("One seed gives no interval");
    expect(await refusalOf({ path: whole, given: new Map([["training.lr", ["0.1"]]]) })).toContain(
      "checkpoint: --lr: a comparison keeps its original options",
    );
    expect(await refusalOf({ path: whole, rules: "uniform,mine", baseline: "proportional" })).toContain(
      'config: --baseline: "proportional" is not one of the compared rules, uniform, mine',
    );
    expect(await refusalOf({ path: config, given: into(whole) })).toBe(
      `config: --out ${whole}: already holds a comparison; choose another folder, or continue it with gradmix compare ${whole}`,
    );

    // Text that has changed in between.
    appendFileSync(join(root, "b.jsonl"), '{"text":"one more"}\n');
    expect(await refusalOf({ path: whole, seeds: "3" })).toMatch(
      /^data: proportional\/seed-3: .*seed-3 cannot be compared with .*seed-1: the text of domain "b", or its tokenization, differs; /,
    );
  });

  test("a run whose loss is no longer finite is left out and named", async () => {
    const lost = join(root, "lost");
    // Each step multiplies what decays by 1 − 100.
    const given = new Map<string, readonly string[]>([
      ...into(lost),
      ["training.lr", ["10"]],
      ["training.weightDecay", ["10"]],
      ["training.warmup", ["0"]],
      ["training.schedule", ["constant"]],
      ["training.steps", ["40"]],
    ]);
    const { code, out } = await compared({ path: config, given, seeds: "1" });
    expect(code).toBe(2);
    for (const rule of ["proportional", "mine"])
      expect(out).toMatch(
        new RegExp(
          `^left out: ${rule}/seed-1, which failed \\(the gradient became [^.]*lower the learning rate\\)$`,
          "m",
        ),
      );
    expect(JSON.parse(readFileSync(join(lost, "compare.json"), "utf8"))).toMatchObject({
      targets: [],
      failures: [{ name: "proportional/seed-1" }, { name: "mine/seed-1" }],
    });
  });

  test.each<[object, Partial<CompareArguments>, string]>([
    [{ rules: {} }, {}, "compare.rules: is empty"],
    [{ rules: ["uniform", "uniform"] }, {}, 'compare.rules: "uniform" is listed twice'],
    [{ rules: ["uniform"], baseline: "dga" }, {}, 'compare.baseline: "dga" is not one of the compared rules'],
    [{ baseline: 3 }, {}, "compare.baseline: 3 is not the name of a rule"],
    [{ seeds: true }, {}, "compare.seeds: true is not a number of seeds from 1 to 1000; to list seeds, write [1, 5, 9]"], // prettier-ignore
    [{ rules: { x: { rule: "unifrom" } } }, {}, 'compare.rules.x: there is no rule "unifrom"'],
    [{ rules: { x: { rule: "dga", ruleOptions: { foo: 1 } } } }, {}, 'rule x: mixing.ruleOptions: dga: there is no option "foo"'], // prettier-ignore
    // What the command line gives is blamed on its flag.
    [{ seeds: true, baseline: "dga" }, { rules: "odm,odm" }, '--rules: "odm" is listed twice'],
    [{ rules: ["uniform"] }, { baseline: "dga" }, '--baseline: "dga" is not one'],
    [{ seeds: true }, { seeds: "0" }, "--seeds: "],
  ])(
    "a wrong section %j is named with its file, wrong flags with theirs: %j",
    async (section, args, message) => {
      const file = join(root, "section.json");
      const whole = JSON.parse(readFileSync(config, "utf8")) as object;
      writeFileSync(file, JSON.stringify({ ...whole, compare: section }));
      const where = /^(--|rule x)/.test(message) ? "" : `${file}: `;
      const refused = await refusalOf({ path: file, given: into(join(root, "section")), ...args });
      expect(refused.slice(0, `config: ${where}${message}`.length)).toBe(`config: ${where}${message}`);
    },
  );

  test("seeds beyond the largest one are refused before the first run", async () => {
    const folder = join(root, "beyond");
    const given = new Map([...into(folder), ["training.seed", [String(2 ** 53 - 1)]] as const]);
    expect(await refusalOf({ path: config, given, seeds: "3" })).toBe(
      "config: --seed: 3 seeds from 9007199254740991 on go beyond the largest seed, 9007199254740991; begin with a smaller one, or list the seeds with --seeds A,B",
    );
    expect(existsSync(folder)).toBe(false);
    // Seeds that the command offers are seeds.
    const { out } = await compared({ path: config, given, seeds: "9007199254740990,9007199254740991" });
    expect(out).toContain("--seeds 9007199254740990,9007199254740991,0,1\n");
  });

  test("rules of the file may be left out and chosen again; a refused continuation leaves the plan as it was", async () => {
    const file = join(root, "again.json");
    const { compare: _, ...rest } = JSON.parse(readFileSync(config, "utf8")) as { compare: object };
    const rules = { uniform: {}, dga: { eta: 0.1 }, slow: { rule: "dga", eta: 0.2 } };
    writeFileSync(file, JSON.stringify({ ...rest, compare: { rules, seeds: 1 } }));
    const folder = join(root, "again");
    const plan = join(folder, "compare-plan.json");
    await compared({ path: file, rules: "uniform,dga", given: into(folder) });
    expect((await compared({ path: folder, rules: "uniform" })).out).not.toContain("dga");
    const { err } = await compared({ path: folder, rules: "uniform,dga" });
    expect(err).toContain("2 of 2 runs are done already");
    // A rule that was never compared is known, too.
    expect((await compared({ path: folder, rules: "uniform,slow" })).code).toBe(0);
    expect((await compared({ path: folder, rules: "dga,slow" })).err).toContain("2 of 2 runs are done");
    const text = readFileSync(plan, "utf8");

    // A plan of an earlier version has only the chosen rules.
    const { otherRules: _others, ...older } = JSON.parse(text) as { otherRules: object; rules: object };
    writeFileSync(plan, JSON.stringify({ ...older, rules: { uniform: {} }, baseline: "uniform" }));
    const earlier = readFileSync(plan, "utf8");
    expect(await refusalOf({ path: folder, rules: "uniform,dga", seeds: "2" })).toContain(
      "was made with mixing.eta = 0.1, not null",
    );
    expect(readFileSync(plan, "utf8")).toBe(earlier);
    expect((await compared({ path: folder })).code).toBe(0);
    writeFileSync(plan, text.replace('"baseline": "dga"', '"baseline": "odm"'));
    expect(await refusalOf({ path: folder })).toContain(`config: ${plan}: baseline: "odm" is not one of`);
    writeFileSync(plan, text);
    appendFileSync(join(root, "a.jsonl"), '{"text":"one more"}\n');
    // The new text is found only when the first new run reads it.
    expect(await refusalOf({ path: folder, seeds: "2" })).toMatch(
      /; the comparison keeps its earlier plan; gradmix compare .* continues from the finished runs$/,
    );
    expect(readFileSync(plan, "utf8")).toBe(text);
    expect((await compared({ path: folder })).err).toContain("2 of 2 runs are done already");
  });

  test("a comparison continues under another path, also with the tokenizer that it trained", async () => {
    const file = join(root, "moved.json");
    const { data, ...rest } = JSON.parse(readFileSync(config, "utf8")) as { data: object };
    const text = (name: string): string => join(root, `${name}.jsonl`);
    const bpe = { ...data, tokenizer: "bpe", vocabSize: 260 };
    const compare = { rules: ["uniform"], seeds: 1 };
    writeFileSync(file, JSON.stringify({ ...rest, data: bpe, compare }));
    const [first, second] = ["first", "second"].map((name) => join(root, name));
    await compared({ path: file, given: into(first) });
    const configIn = (folder: string, seed: number): unknown =>
      JSON.parse(readFileSync(join(folder, "uniform", `seed-${seed}`, "config.json"), "utf8"));
    const sameFolder = relative(process.cwd(), first);
    expect((await compared({ path: sameFolder, seeds: "2", given: into(first) })).err).toContain(
      "1 of 2 runs are done already",
    );
    // The last run is cut off after its second checkpoint.
    const stop = { call: "rename", path: "seed-3.*step-00000004", nth: 1, signals: ["SIGINT"] };
    expect(signalled([first, "--seeds", "3"], stop).code).toBe(130);
    renameSync(first, second);
    const { out, err } = await compared({ path: second, seeds: "4" });
    expect(err).toContain("2 of 4 runs are done already");
    expect(out).toMatch(/^uniform +4 /m);
    for (const seed of [1, 2, 3, 4])
      expect(configIn(second, seed)).toMatchObject({
        data: {
          ...bpe,
          domains: { a: [text("a")] },
          target: [text("target")],
          vocabSize: null,
          tokenizer: join(second, "tokenizer.json"),
        },
        run: { out: join(second, "uniform", `seed-${seed}`), checkpointEvery: 2 },
      });
    // The page has one group of four runs, with one tokenizer.
    const page = readFileSync(join(second, "report.html"), "utf8");
    expect(page).toContain("the mean of 4 seeds");
    expect(page).not.toContain("different tokenizers");
    // Another tokenizer is still another one.
    const other = join(root, "other-tokenizer.json");
    writeFileSync(other, readFileSync(join(second, "tokenizer.json")));
    expect(await refusalOf({ path: second, given: new Map([["data.tokenizer", [other]]]) })).toContain(
      "--tokenizer: a comparison keeps its original options",
    );
    const recorded = recordedConfig(join(second, "uniform", "seed-1"));
    const wanted = flatten({ ...recorded, data: { ...recorded.data, tokenizer: other } });
    expect(codeOf(() => checkSameConfig(recorded, wanted, second))).toContain("was made with data.tokenizer");
  });

  test("every target has a page of its own, whatever its name", async () => {
    const { data, ...rest } = JSON.parse(readFileSync(config, "utf8")) as { data: object };
    const file = join(root, "pages.json");
    const targets = { "x y": join(root, "target.jsonl"), x_y: join(root, "target.jsonl") };
    const compare = { rules: ["uniform"], seeds: 1 };
    writeFileSync(file, JSON.stringify({ ...rest, data: { ...data, target: [], targets }, compare }));
    const folder = join(root, "pages");
    const { out } = await compared({ path: file, given: into(folder) });
    const pages = ["report-x y.html", "report-x_y.html"];
    for (const page of pages) expect(out).toContain(`look: ${join(folder, page)}\n`);
    expect(
      readdirSync(folder)
        .filter((name) => name.endsWith(".html"))
        .sort(),
    ).toEqual(pages);
    expect(readFileSync(join(folder, pages[0]), "utf8")).toContain("x y");

    const names = fc.stringMatching(/^[aA][ _eEé]{0,2}(-2)?b$/);
    fc.assert(
      fc.property(fc.uniqueArray(names), (targets) => {
        const files = [...pageNames([...targets, ...targets]).values()];
        expect(new Set(files.map((name) => name.toLowerCase())).size).toBe(targets.length);
      }),
    );
    expect([...pageNames(["Exam", "exam", "exam-2", null]).values()]).toEqual([
      ...["report-Exam.html", "report-exam-2.html", "report-exam-2-2.html", "report.html"],
    ]);
  });

  test("the several targets of prepared text are compared in turn", async () => {
    const text = (name: string): string => join(root, `${name}.jsonl`);
    const prepared = join(root, "prepared");
    const { status } = spawnSync(
      process.execPath,
      [command, "prepare", "--domain", `a=${text("a")}`, "--domain", `b=${text("b")}`, "--targets", `x=${text("target")}`, "--targets", `y=${text("target")}`, "--tokenizer", "byte", "--out", prepared],
    ); // prettier-ignore
    expect(status).toBe(0);
    const { data: _data, ...rest } = JSON.parse(readFileSync(config, "utf8")) as { data: object };
    const file = join(root, "of-prepared.json");
    writeFileSync(file, JSON.stringify({ ...rest, data: { domainsFrom: prepared } }));
    const folder = join(root, "of-prepared");
    const { out } = await compared({ path: file, rules: "uniform,grape", baseline: "uniform", seeds: "1", given: into(folder) }); // prettier-ignore
    for (const target of ["x", "y"]) expect(out).toContain(`held-out loss on the target ${target} after`);
    const { err } = await compared({ path: folder });
    expect(err).toContain("4 of 4 runs are done already");
  });

  test("files of tokens are compared without a tokenizer, and finished runs are found again", async () => {
    const tokens = (name: string, step: number): string => {
      const path = join(root, `${name}.bin`);
      const ids = Uint16Array.from({ length: 600 }, (_, i) => (i % 20 === 19 ? 31 : (i * step) % 30));
      writeFileSync(path, new Uint8Array(ids.buffer));
      return path;
    };
    const file = join(root, "of-tokens.json");
    const { data: _data, compare: section, ...rest } = JSON.parse(readFileSync(config, "utf8")) as { data: object; compare: object }; // prettier-ignore
    const domains = { a: tokens("a", 1), b: tokens("b", 7) };
    const data = { domains, target: tokens("target", 3), tokenizer: "none", vocabSize: 32, endOfText: 31 };
    writeFileSync(file, JSON.stringify({ ...rest, data, compare: { ...section, seeds: 1 } }));
    const folder = join(root, "of-tokens");
    const { code, out } = await compared({ path: file, given: into(folder) });
    expect([code, out]).toEqual([0, expect.stringContaining("held-out loss on the target after")]);
    expect(existsSync(join(folder, "mine/seed-1/model/tokenizer_config.json"))).toBe(false);
    expect((await compared({ path: folder })).err).toContain("2 of 2 runs are done already");

    const path = join(folder, "mine/seed-1/metrics.jsonl");
    const lines = readFileSync(path, "utf8");
    writeFileSync(path, lines.slice(0, lines.lastIndexOf("\n", lines.length - 2) + 1));
    await expect(compared({ path: folder })).rejects.toThrow(
      /^mine\/seed-1: .*metrics\.jsonl: its lines of steps end at step 5, but the checkpoint was made after step 6; put the whole file back/,
    );
    writeFileSync(path, lines);
    rmSync(join(folder, "mine/seed-1/model"), { recursive: true });
    const again = await compared({ path: folder });
    expect([again.code, again.out]).toEqual([0, out]);
    expect(again.err).toContain("1 of 2 runs are done already");
    expect(existsSync(join(folder, "mine/seed-1/model/model.safetensors"))).toBe(true);
  });

  test("a line on options without effect names the rule that has them", async () => {
    const file = join(root, "unused.json");
    const { data, model } = JSON.parse(readFileSync(config, "utf8")) as { data: object; model: object };
    const training = { steps: 2, batch: 2, schedule: "constant", minRatio: 0.5 };
    const section = { rules: { x: { rule: "uniform", eta: 0.1 }, proportional: {} }, seeds: 1 };
    writeFileSync(file, JSON.stringify({ data, model, training, run: { threads: 1 }, compare: section }));
    const { err } = await compared({ path: file, given: into(join(root, "unused")) });
    expect(err).toContain("rule x: mixing.eta has no effect: rule uniform does not use it\n");
    // What all rules have in common names none.
    expect(err).toContain("\ntraining.minRatio has no effect: ");
  });

  test("rules that would train on other text than each other are refused before the first run", async () => {
    const file = join(root, "targets.json");
    const text = (name: string): string => join(root, `${name}.jsonl`);
    const { data, ...rest } = JSON.parse(readFileSync(config, "utf8")) as { data: object };
    const targets = { exam: text("target"), mail: text("b") };
    const folder = join(root, "other-text");
    for (const domains of [
      { domainsFrom: [join(root, "{a,b}.jsonl")] },
      { domains: { ab: [text("a"), text("b")] } },
    ]) {
      const shared = { ...data, domains: {}, ...domains, target: [], targets };
      writeFileSync(file, JSON.stringify({ ...rest, data: shared, compare: { seeds: 1 } }));
      for (const rules of ["uniform,grape", "grape,uniform"])
        expect(await refusalOf({ path: file, rules, given: into(folder) })).toBe(
          `config: rule grape learns for all targets, and ${text("b")} is text of one of them and of a domain; the rules would train on different text. Leave this file out of the domains, or compare grape on its own`,
        );
      expect(existsSync(folder)).toBe(false);
    }
    expect((await compared({ path: file, rules: "grape", given: into(folder) })).code).toBe(0);
  });

  test("a folder with other content is refused, and nothing is written", async () => {
    const other = join(root, "other");
    mkdirSync(join(other, "uniform", "seed-1"), { recursive: true });
    expect(await refusalOf({ path: config, given: into(other) })).toBe(
      `config: --out ${other}: is not empty (uniform), and a comparison needs a folder of its own; choose another`,
    );
    const named = join(root, "named");
    mkdirSync(named);
    writeFileSync(join(named, "lock.txt"), "");
    expect(await refusalOf({ path: config, given: into(named) })).toContain("is not empty (lock.txt)");
    writeFileSync(join(other, "config.json"), "{}");
    expect(await refusalOf({ path: config, given: into(other) })).toContain(
      "already holds a run (config.json)",
    );
    writeFileSync(join(other, "metrics.jsonl"), "");
    expect(await refusalOf({ path: other })).toContain(
      `it holds a run; continue it with gradmix train --resume ${other}`,
    );
    expect(await refusalOf({ path: config, given: into(join(root, "new")), rules: "mine,doremi" })).toContain(
      "--rule doremi needs a reference",
    );
    // Refused when the text is read, before anything is written.
    const missing = new Map([...into(join(root, "new")), ["data.target", [join(root, "missing")]] as const]);
    expect(await refusalOf({ path: config, given: missing })).toMatch(
      /^data: proportional\/seed-1: .*missing[^;]*$/,
    );
    expect(existsSync(join(root, "new"))).toBe(false);
    expect(readdirSync(other).sort()).toEqual(["config.json", "metrics.jsonl", "uniform"]);
  });
});
