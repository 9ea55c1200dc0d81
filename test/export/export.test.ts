/** exportMixture's notes and refusals, and the mixture of a run. */
import { exportFormats, exportMixture, type Mixture, mixtureOfRun } from "gradmix/export";
import { describe, expect, test } from "vitest";
import type { RunRecord } from "#dist/runs/record.js";
import { codeOf, errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";
import { readers } from "./readers.ts";

/** Weights by name, with what the mixture may be otherwise. */
function mixture(weights: Readonly<Record<string, number>>, other: Partial<Mixture> = {}): Mixture {
  return {
    domains: Object.entries(weights).map(([name, weight], i) => ({
      name,
      weight,
      tokens: 1000 * (i + 1),
      documentTokens: 100 * 4 ** i,
      paths: [`/data/${name}`],
    })),
    stages: null,
    tokens: 10_000,
    context: 64,
    batch: 16,
    repetitions: null,
    metrics: new Map(),
    source: { gradmix: "0.1.0", run: "first", step: 10, rule: "dga", weights: "averaged" },
    ...other,
  };
}

const half = mixture({ web: 0.5, code: 0.5 });
const notes = (of: Mixture, options: Parameters<typeof exportMixture>[1]): string =>
  exportMixture(of, options).notes.join("\n");

test("documents: a domain with documents four times as long is drawn a quarter as often, and a note says so", () => {
  const exported = exportMixture(half, { format: "llama-factory" });
  expect(readers["llama-factory"](exported)[0].weights).toEqual([
    ["web", "0.8"],
    ["code", "0.2"],
  ]);
  expect(exported.notes.join("\n")).toMatch(
    /counts documents: .*mean tokens of a document \("web" 100, "code" 400\)/,
  );
  expect(
    readers["llama-factory"](exportMixture(half, { format: "llama-factory", rows: "windows" }))[0].weights[0],
  ).toEqual(["web", "0.5"]);
  // A length that is not known is only needed where it counts.
  const unknown = mixture({ web: 0.5, code: 0.5, none: 0 });
  const domains = unknown.domains.map((domain) =>
    domain.name === "web" ? domain : { ...domain, documentTokens: null },
  );
  const { message } = errorOf(() => exportMixture({ ...unknown, domains }, { format: "llama-factory" }));
  expect(message).toContain('"code"');
  expect(message).not.toContain('"none"');
  expect(exportMixture({ ...unknown, domains }, { format: "levanter" }).files.length).toBe(1);
});

test("epochs: the weight times the length of the run, divided by the tokens of the domain", () => {
  const of = (scaleTo?: number): number[] =>
    readers["megatron-bridge"](
      exportMixture(half, { format: "megatron-bridge", ...(scaleTo === undefined ? {} : { scaleTo }) }),
    )[0].weights.map(([, passes]) => Number(passes));
  expectNear(of(), [5, 2.5], 1e-6);
  expectNear(of(30_000), [15, 7.5], 1e-6);
});

describe.each([...exportFormats.values()])("$name: context and batch", (format) => {
  const stages = [
    { start: 0, weights: [0.9, 0.1] },
    { start: 5000, weights: [0.1, 0.9] },
  ];
  test.each([
    ["one stage", half] as const,
    ...(format.stages ? [["two", { ...half, stages }] as const] : []),
  ])("change what is written, or are refused (%s)", (_, of) => {
    const evaluated = { ...of, metrics: new Map([["target_bpb", 1]]) };
    for (const option of ["context", "batch"] as const) {
      const written = (value: number): string => {
        try {
          const options = { format: format.name, scaleTo: 1e9, [option]: value };
          const { files, sidecar } = exportMixture(evaluated, options);
          return JSON.stringify([files, sidecar]);
        } catch (error) {
          return String(error);
        }
      };
      const [one, other] = [written(32), written(512)];
      if (one === other) expect(one).toContain(`the option ${option} has no effect`);
      else expect(one + other).not.toContain("Error");
    }
  });
});

describe("what is left out", () => {
  const some = mixture({ web: 0.75, none: 0, tiny: 1e-10, code: 0.25 - 1e-10 });
  test("weights that would print as 0 are left out, which a note says", () => {
    const exported = exportMixture(some, { format: "levanter" });
    expect(readers["levanter"](exported)[0].weights.map(([name]) => name)).toEqual(["web", "code"]);
    expect(exported.notes).toContain(
      'left out, since their weights are 0 or would print as 0: "none", "tiny"',
    );
  });
  test("with a floor no weight is left out, and none is below the floor", () => {
    const exported = exportMixture(some, { format: "levanter", floor: 0.01 });
    const [{ weights }] = readers["levanter"](exported);
    expect(weights.map(([name]) => name)).toEqual(["web", "none", "tiny", "code"]);
    expect(Math.min(...weights.map(([, share]) => Number(share)))).toBe(20 / 2048);
    const raised = some.domains.flatMap(({ name, weight }) => (weight < 0.01 ? [name] : []));
    expect(raised.length).toBeGreaterThan(0);
    expect(exported.notes).toContain(
      `raised to the floor of 0.01, at the cost of the others: ${raised.map((name) => `"${name}"`).join(", ")}`,
    );
    expect(notes(mixture({ web: 0.5, code: 0.5 }), { format: "levanter", floor: 0.01 })).toContain(
      "no weight is below the floor of 0.01, so it changes nothing",
    );
    expect(codeOf(() => exportMixture(some, { format: "levanter", floor: 0.26 }))).toMatch(/^config: floor/);
  });
  test("levanter leaves out what gets no sequence of a block; a note names only these domains", () => {
    const lines = notes(mixture({ web: 1 - 1 / 2047 - 1 / 9000, more: 1 / 2047, less: 1 / 9000 }), {
      format: "levanter",
    });
    expect(lines).toContain('too small for one of the 2048 sequences of a block: "less"; raise');
  });
  test("levanter's many equal domains stay equal, but for one sequence of a block", () => {
    const names = Array.from({ length: 300 }, (_, i) => `c${i}`);
    const many = mixture(Object.fromEntries(names.map((name) => [name, 1 / 300])));
    const [{ weights }] = readers["levanter"](exportMixture(many, { format: "levanter" }));
    const counts = weights.map(([, share]) => Number(share) * 2048);
    expect([counts.length, Math.min(...counts), Math.max(...counts)]).toEqual([300, 6, 7]);
    expect(counts.reduce((a, b) => a + b, 0)).toBe(2048);
  });
});

test("formats that cannot express the limit on repetitions say so; at another length, a note names the domains beyond the limit", () => {
  const limited = mixture({ web: 0.5, code: 0.5 }, { repetitions: 5 });
  for (const { name, repetitions } of exportFormats.values()) {
    const of = name === "olmix" ? { ...limited, metrics: new Map([["loss", 1]]) } : limited;
    expect(notes(of, { format: name }).includes(`${name} cannot express a limit on repetitions`)).toBe(
      !repetitions,
    );
    // 0.5 · 12,000 / 1,000 is 6 times; the other domain is twice as large.
    const beyond = exportMixture(of, { format: name, scaleTo: 12_000 }).notes.find((note) =>
      note.includes("repeat these domains more often"),
    );
    expect(beyond).toMatch(/these weights repeat these domains more often: "web";/);
  }
  expect(exportMixture(limited, { format: "olmo-core" }).files[0].text).toContain(
    "max_repetition_ratio: 5\n",
  );
  expect(exportMixture(half, { format: "olmo-core" }).files[0].text).not.toContain("max_repetition_ratio");
  const long = mixture({ web: 0.5, code: 0.5 }, { repetitions: 3 + 245_760 / 47_999 });
  expect(notes(long, { format: "nanotron" })).toContain(
    "the run limited the repetitions of a domain to 8.12,",
  );
  const less = exportMixture({ ...limited, repetitions: 0.5 }, { format: "olmo-core", scaleTo: 100 });
  expect(less.files[0].text).toContain("max_repetition_ratio: 1\n");
  expect(less.notes.join("\n")).toContain("limit of 0.5, raised");
});

test("the length of a step is no error if all stages of a run are one, as the weights did not change", () => {
  const one = { ...half, stages: [{ start: 0, weights: [0.5, 0.5] }] };
  for (const format of ["nanotron", "levanter"])
    expect(notes(one, { format, context: 128 })).toContain(
      `${format}: the option context has no effect, since there is only one stage`,
    );
  expect(codeOf(() => exportMixture(one, { format: "levanter", batch: 8 }))).toMatch(/^config: levanter: the option batch/); // prettier-ignore
  expect(codeOf(() => exportMixture(half, { format: "nanotron", batch: 8 }))).toMatch(/^config: nanotron: the option batch/); // prettier-ignore
});

describe("stages", () => {
  const staged = mixture(
    { web: 0.4, code: 0.6 },
    {
      stages: [
        { start: 0, weights: [0.9, 0.1] },
        { start: 2000, weights: [0, 1] },
        { start: 5000, weights: [0.5, 0.5] },
      ],
    },
  );
  test("start at the same share of a run of another length, in steps of that run", () => {
    const read = (scaleTo: number, batch: number) =>
      readers["nanotron"](exportMixture(staged, { format: "nanotron", scaleTo, batch, context: 100 }));
    expect(read(1e6, 10).map(({ start }) => start)).toEqual([0, 200, 500]);
    expect(read(1e6, 20).map(({ start }) => start)).toEqual([0, 100, 250]);
    expect(read(1e6, 10)[1].weights).toEqual([["/data/code", "1.0"]]);
    expect(notes(staged, { format: "nanotron", scaleTo: 1e6 })).toContain(
      'stage 2: left out, since its weight is 0 or would print as 0: "web"',
    );
    expect(notes(staged, { format: "megatron", scaleTo: 1e6, batch: 10, context: 100 })).toContain(
      "--phase-transition-iterations 200,500;",
    );
  });
  test("that are shorter than the trainer can count are left out, which a note says; the others cover the run", () => {
    for (const [scaleTo, starts] of [
      [128 * 2048 * 10, [0, 2 * 2048, 5 * 2048]],
      // 0.9 of a block, 2.2 and 4.5: the second starts at one, the third at two.
      [128 * 2048 * 4.5, [0, 2048, 2 * 2048]],
      [128 * 2048 * 2, [0, 2048]],
      [1000, [0]],
    ] as const) {
      const exported = exportMixture(staged, { format: "levanter", scaleTo, context: 128 });
      expect(readers["levanter"](exported).map(({ start }) => start)).toEqual(starts);
      expect(exported.notes.some((note) => note.includes("shorter than a block"))).toBe(starts.length < 3);
    }
  });
});

test("refusals are one line that names the remedy", () => {
  const refused: [Mixture, Parameters<typeof exportMixture>[1], RegExp][] = [
    [half, { format: "megatorn" }, /there is no format "megatorn"; did you mean megatron\?/],
    [half, { format: "zzzzzzzz" }, /there are megatron, .*json/],
    [half, { format: "axolotl" }, /axolotl: its weights do not define a mixture/],
    [half, { format: "olmix" }, /the run has no evaluations/],
    [mixture({ web: 1 }), { format: "nemo-automodel" }, /at least two domains/],
    [mixture({ web: 0.5, weighted: 0.5 }), { format: "nemo-automodel" }, /"weighted"/],
    [mixture({ web: 0.5, "a,b": 0.5 }), { format: "llama-factory" }, /"a,b"/],
    [mixture({ web: 0.5, index: 0.5 }, { metrics: new Map([["loss", 1]]) }), { format: "olmix" }, /"index"/],
    [mixture({ web: 0.7, code: 0.7 }), { format: "json" }, /sum to 1/],
    [mixture({ web: 1.5, code: -0.5 }), { format: "json" }, /at least 0/],
    [{ ...half, tokens: 0 }, { format: "json" }, /tokens is 0/],
    [
      { ...half, stages: [{ start: 5, weights: [1, 0] }] },
      { format: "json" },
      /the stages start at 5: not at 0/,
    ],
    [
      { ...half, stages: [0, 0].map((start) => ({ start, weights: [1, 0] })) },
      { format: "json" },
      /stages start/,
    ],
    [
      { ...half, domains: [half.domains[0], half.domains[0]] },
      { format: "json" },
      /two domains have the name "web"/,
    ],
    [{ ...half, stages: [] }, { format: "olmix" }, /the list of stages is empty/],
  ];
  for (const [of, options, why] of refused) {
    const { code, message } = errorOf(() => exportMixture(of, options));
    expect(code).toBe("config");
    expect(message).toMatch(why);
  }
  const [web, code] = half.domains;
  for (const path of [" /x", "/x\u0085"])
    for (const format of ["megatron", "nemo-automodel"])
      expect(
        codeOf(() => exportMixture({ ...half, domains: [{ ...web, paths: [path] }, code] }, { format })),
      ).toMatch(/strips/);
  // A table has one field for all paths.
  const lists = {
    ...half,
    domains: [
      { ...web, paths: ["/a b", "/c"] },
      { ...code, paths: ["/d e"] },
    ],
  };
  expect(notes(lists, { format: "csv" })).toMatch(
    /csv: paths of a domain are separated by spaces, and those of "web" contain some; the format json keeps them apart$/,
  );
  const unknown = { ...half, domains: [{ ...web, documentTokens: null }, code] };
  expect(codeOf(() => exportMixture(unknown, { format: "energon" }))).toMatch(
    /unknown for "web"; if your rows are windows of one length, choose rows windows$/,
  );
  expect(exportMixture(unknown, { format: "energon", rows: "windows" }).files.length).toBe(1);
  const some = { ...half, domains: [web, { ...code, paths: [] }] };
  expect(notes(some, { format: "hf-datasets" })).toMatch(
    /the paths are not written, since there is none for "code"$/m,
  );
  const none = { ...half, domains: some.domains.map((domain) => ({ ...domain, paths: [] })) };
  for (const other of [half, none]) expect(notes(other, { format: "hf-datasets" })).not.toContain("paths");
  // Megatron's BlendedDataset asserts `len(datasets) < 32767`.
  const many = (count: number): Mixture => ({
    ...half,
    domains: Array.from({ length: count }, (_, i) => ({ ...web, name: `d${i}`, weight: 1 / count })),
  });
  expect(codeOf(() => exportMixture(many(32_767), { format: "megatron" }))).toMatch(
    /^config: megatron: 32767 datasets are more than the 32766 that its index holds/,
  );
  expect(exportMixture(many(32_766), { format: "megatron" }).files.length).toBe(3);
  // A space within is kept where the file can, and the one that cannot is left out.
  const spaced = exportMixture(
    { ...half, domains: [{ ...web, paths: ["/a b"] }, code] },
    { format: "megatron" },
  );
  expect(spaced.files.map(({ name }) => name)).toEqual(["data-path.sh", "per-split.json"]);
  expect(spaced.notes.join("\n")).toMatch(/no data-args\.txt.*"web"/);
});

/** A run of ten steps whose weights change after the fourth. */
function runOf(k = 2, other: Partial<RunRecord> = {}): RunRecord {
  const names = Array.from({ length: k }, (_, i) => `d${i}`);
  const facts = { files: 1, documents: 10, tokens: 900, heldOutTokens: 100, heldOutBytes: 400, sha256: "" };
  const even = new Map(names.map((name) => [name, 1 / k]));
  const first = new Map(names.map((name, i) => [name, i === 0 ? 1 : 0]));
  return {
    folder: "runs/first",
    name: "first",
    config: new Map(),
    facts: {
      ...{
        version: 1,
        gradmix: "0.1.0",
        node: "v20",
        backend: "cpu",
        simd: "relaxed",
        precision: "f32",
        threads: 1,
      },
      ...{
        rule: "dga",
        seed: 1,
        dataSeed: 1,
        evaluatedTokens: null,
        steps: 10,
        batch: 4,
        context: 16,
        parameters: 1,
        vocabSize: 256,
        repetitions: 8,
      },
      ...{ cost: { alignment: 0, evaluation: 0 }, target: facts, targets: new Map(), bases: null },
      domains: new Map(names.map((name) => [name, facts])),
    },
    start: null,
    steps: Array.from({ length: 10 }, (_, i) => ({
      ...{ step: i + 1, tokens: 64 * (i + 1), loss: 1, gradNorm: 1, lr: 1, seconds: 1, domains: new Map() },
      weights: i < 4 ? first : even,
      ...(i === 9 ? { evaluation: { target: 2, domains: new Map([["d1", 3]]) } } : {}),
    })),
    resumes: [],
    weights: {
      final: even,
      averaged: new Map(names.map((name, i) => [name, i === 0 ? 0.4 + 0.6 / k : 0.6 / k])),
    },
    ...other,
  };
}

describe("mixtureOfRun", () => {
  test("has the averaged weights by default, and the facts that the run recorded about each domain", () => {
    const weightsOf = (options?: Parameters<typeof mixtureOfRun>[1]): number[] =>
      mixtureOfRun(runOf(), options).mixture.domains.map(({ weight }) => weight);
    expectNear(weightsOf(), [0.7, 0.3], 1e-12);
    expect(weightsOf({ weights: "averaged" })).toEqual(weightsOf());
    expect(weightsOf({ weights: "final" })).toEqual([0.5, 0.5]);
    const { mixture: of } = mixtureOfRun(runOf(), { paths: new Map([["d1", ["/x"]]]) });
    expect(of.domains[1]).toEqual({
      name: "d1",
      weight: 0.6 / 2,
      tokens: 900,
      documentTokens: 100,
      paths: ["/x"],
    });
    expect(of.tokens).toBe(640);
    expect(of.source).toEqual({ gradmix: "0.1.0", run: "first", step: 10, rule: "dga", weights: "averaged" });
    // Bits per byte: nats · tokens / (bytes · ln 2).
    expectNear(of.metrics.get("target_bpb"), (2 * 100) / (400 * Math.LN2), 1e-12);
    expectNear(of.metrics.get("d1_bpb"), (3 * 100) / (400 * Math.LN2), 1e-12);
  });

  test("has stages at changes of the weights", () => {
    const { mixture: of, notes: lines } = mixtureOfRun(runOf(), { stages: 3 });
    expect(of.stages?.map(({ start }) => start)).toEqual([0, 256]);
    expectNear(of.stages?.[1].weights, [0.5, 0.5], 1e-12);
    expect(of.source.weights).toBe("stages");
    expect(lines.join("\n")).toMatch(/start at 0 %, 40 % of the run[^]*changed 1 times/);
  });

  test("if lines list only the heaviest domains, the others share the remaining weight as in their average", () => {
    const run = runOf(3);
    const steps = run.steps.map((line) => ({ ...line, weights: new Map([["d0", 0.4]]) }));
    const averaged = new Map([["d0", 0.4], ["d1", 0.15], ["d2", 0.45]]); // prettier-ignore
    const { mixture: of, notes: lines } = mixtureOfRun(
      { ...run, steps, weights: { final: averaged, averaged } },
      { stages: 1 },
    );
    expectNear(of.stages?.[0].weights, [0.4, 0.15, 0.45], 1e-12);
    expect(lines.join("\n")).toContain("only the domains with the largest weights (of 3)");
  });

  test("has the run's limit on repetitions, unless that is one of bases", () => {
    const { facts } = runOf();
    const limitOf = (bases: string[] | null): number | null =>
      mixtureOfRun(runOf(2, { facts: { ...facts, repetitions: 4, bases } })).mixture.repetitions;
    expect(limitOf(null)).toBe(4);
    expect(limitOf(["a"])).toBe(null);
  });

  test("tells that the run was trained on selected windows, with their shares", () => {
    const { facts } = runOf();
    const notesWith = (...shares: number[]): string =>
      mixtureOfRun(
        runOf(2, { facts: { ...facts, selected: new Map(shares.map((share, i) => [`d${i}`, share])) } }),
      ).notes.join("\n");
    expect(mixtureOfRun(runOf(2)).notes.join()).not.toContain("windows");
    expect(notesWith(0.25, 0.6)).toMatch(/^the run was trained on the 25 to 60 % of each domain's windows/);
    expect(notesWith(0.25, 0.254)).toContain("on the 25 % of each domain's windows");
  });

  test("refuses a run without weights, one of two runs, and stages of bases", () => {
    expect(codeOf(() => mixtureOfRun(runOf(2, { weights: null })))).toMatch(
      /^data: runs\/first: has no weights yet/,
    );
    expect(codeOf(() => mixtureOfRun(runOf(2, { steps: [] })))).toMatch(
      /^data: runs\/first: has weights\.json, but metrics\.jsonl has no line of a step; /,
    );
    const { weights } = runOf(1);
    expect(codeOf(() => mixtureOfRun(runOf(2, { weights })))).toMatch(/^data: .*"d1"/);
    expect(codeOf(() => mixtureOfRun({ ...runOf(1), weights: runOf(2).weights }))).toMatch(
      /^data: runs\/first: weights\.json has a weight for "d1", which is not a domain of run\.json; /,
    );
    const { facts } = runOf();
    expect(
      codeOf(() => mixtureOfRun(runOf(2, { facts: { ...facts, bases: ["a"] } }), { stages: 2 })),
    ).toMatch(/^config: .*bases/);
  });
});
