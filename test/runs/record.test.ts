/** Reading a run's folder: what was written is read back, an incomplete last line waits, and content that no run writes is refused, naming its place. */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { formatJson } from "#dist/json.js";
import { bitsPerByte, type RunFacts, type TextFacts } from "#dist/runs/facts.js";
import type { MetricsLine, StepMetrics } from "#dist/runs/lines.js";
import { METRICS_START, readRunHead, readRunRecord, readWeights, scanMetrics } from "#dist/runs/record.js";
import { codeOf, errorOf } from "../errors.ts";
import { expectNear } from "../near.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gradmix-record-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const put = (name: string, value: unknown): void => writeFileSync(join(folder, name), formatJson(value));
const putLines = (lines: readonly MetricsLine[]): void =>
  writeFileSync(join(folder, "metrics.jsonl"), lines.map((line) => `${formatJson(line)}\n`).join(""));

/** Names that objects and JSON.parse treat in a way of their own are among them; numbers only in one place, where order is checked. */
const name = fc.oneof(
  fc.constantFrom("constructor", "toString", "é", "日本", 'a"b', ""),
  fc.string({ maxLength: 5 }).map((text) => `n${text.normalize()}`),
);
const finite = fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0);
const mapOf = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<ReadonlyMap<string, T>> =>
  fc.uniqueArray(fc.tuple(name, value), { selector: ([key]) => key, maxLength: 4 }).map((all) => new Map(all));
const orNull = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(value, { nil: null });
const evaluation = fc.record({ target: orNull(finite), domains: mapOf(finite) });
const step: fc.Arbitrary<StepMetrics> = fc.record(
    {
      step: fc.nat(),
      tokens: fc.nat(),
      loss: finite,
      gradNorm: orNull(finite),
      lr: finite,
      seconds: finite,
      weights: mapOf(finite),
      domains: mapOf(
        fc.record(
          { weight: finite, loss: orNull(finite), tokens: fc.nat(), epochs: finite },
          { requiredKeys: ["loss", "tokens", "epochs"] },
        ),
      ),
      lossScale: finite,
      skipped: fc.constant(true as const),
      alignments: mapOf(
        fc.record(
          {
            value: finite,
            standardError: orNull(finite),
            norm: orNull(finite),
            tokens: fc.nat(),
            effectiveSize: finite,
          },
          { requiredKeys: ["value", "standardError", "norm"] },
        ),
      ),
      targetNorm: finite,
      targetExamples: fc.nat(),
      evaluation,
      evaluationSeconds: finite,
    },
    { requiredKeys: ["step", "tokens", "loss", "gradNorm", "lr", "seconds", "weights", "domains"] },
  );
const line: fc.Arbitrary<MetricsLine> = fc.oneof(
  step,
  fc.record({
    step: fc.constant(0 as const),
    event: fc.constant("start" as const),
    seconds: finite,
    evaluation,
    cost: fc.record({ alignment: finite, evaluation: finite }),
  }),
  fc.record({
    step: fc.nat(),
    event: fc.constant("resumed" as const),
    changes: mapOf(fc.oneof(fc.record({ from: finite, to: finite }), fc.record({ from: name, to: name }))).map(
      (changes) => Object.fromEntries(changes),
    ),
  }),
);

const text: TextFacts = {
  files: 1,
  documents: 10,
  tokens: 900,
  heldOutTokens: 100,
  heldOutBytes: 300,
  sha256: "00",
};
const facts: RunFacts = {
  version: 1,
  gradmix: "0.1.0",
  node: "v20.0.0",
  backend: "cpu",
  simd: "relaxed",
  precision: "f32",
  threads: 2,
  rule: "dga",
  seed: 1,
  dataSeed: 2,
  evaluatedTokens: 3,
  steps: 10,
  batch: 2,
  context: 8,
  parameters: 1000,
  vocabSize: 256,
  repetitions: null,
  cost: { alignment: 0.1, evaluation: 0.02 },
  // JSON.parse would put these the other way round.
  domains: new Map([
    ["10", text],
    ["2", { ...text, tokens: 5 }],
  ]),
  target: text,
  targets: new Map(),
  bases: null,
};

test("lines are read as they were written, all at once or piece by piece", () => {
  fc.assert(
    fc.property(fc.array(line, { maxLength: 6 }), fc.nat(), (lines, cut) => {
      putLines(lines);
      const all: MetricsLine[] = [];
      scanMetrics(folder, (found) => all.push(found));
      expect(all).toEqual(lines);

      // A reader that looks while the file grows, by any amount.
      const bytes = Buffer.from(lines.map((one) => `${formatJson(one)}\n`).join(""));
      const at = cut % (bytes.length + 1);
      const path = join(folder, "metrics.jsonl");
      writeFileSync(path, bytes.subarray(0, at));
      const pieces: MetricsLine[] = [];
      const position = scanMetrics(folder, (found) => pieces.push(found));
      expect(pieces).toEqual(lines.slice(0, pieces.length));
      appendFileSync(path, bytes.subarray(at));
      const end = scanMetrics(folder, (found) => pieces.push(found), position);
      expect(pieces).toEqual(lines);
      expect(end).toEqual({ bytes: bytes.length, lines: lines.length });
    }),
    { numRuns: 60 },
  );
});

test("a line may be longer than one read", () => {
  const long = new Map(Array.from({ length: 60_000 }, (_, i) => [`domain-${i}-${"x".repeat(20)}`, i / 7]));
  const lines: MetricsLine[] = [1, 2].map((at) => ({
    ...{ step: at, tokens: 1, loss: 1, gradNorm: 1, lr: 1, seconds: 1 },
    ...{ weights: long, domains: new Map() },
  }));
  putLines(lines);
  const found: MetricsLine[] = [];
  scanMetrics(folder, (one) => found.push(one));
  expect(found).toEqual(lines);
});

describe("a whole folder", () => {
  test("is read completely, with the domains in order", () => {
    put("config.json", { run: { out: "x" } });
    put("run.json", facts);
    const weights = new Map([
      ["10", 0.25],
      ["2", 0.75],
    ]);
    put("weights.json", { final: weights, averaged: weights });
    const lines: MetricsLine[] = [
      {
        ...{ step: 0, event: "start", seconds: 1, cost: facts.cost },
        evaluation: { target: 2, domains: new Map() },
      },
      { step: 0, event: "resumed", changes: { steps: { from: 5, to: 10 } } },
      {
        ...{ step: 1, tokens: 16, loss: 2, gradNorm: null, lr: 1, seconds: 1 },
        ...{ weights, domains: new Map() },
      },
    ];
    putLines(lines);
    const record = readRunRecord(`${folder}/`);
    expect(record.facts).toEqual(facts);
    expect([...record.facts.domains.keys()]).toEqual(["10", "2"]);
    expect([...(record.weights?.final.keys() ?? [])]).toEqual(["10", "2"]);
    expect([record.start, record.resumes, record.steps]).toEqual([lines[0], [lines[1]], [lines[2]]]);
    expect(record.name).toBe(folder.split("/").at(-1));
    expect(record.config).toEqual(new Map([["run", new Map([["out", "x"]])]]));
  });

  test("is refused if its parts do not belong together: weights of another run, lines that are incomplete, missing or repeated", () => {
    put("config.json", {});
    put("run.json", facts);
    const stepOf = (step: number): MetricsLine => ({
      ...{ step, tokens: 16 * step, loss: 2, gradNorm: null, lr: 1, seconds: 1 },
      ...{ weights: new Map(), domains: new Map() },
    });
    const own = (names: Readonly<Record<string, number>>) => ({ final: names, averaged: names });
    const refusal = (): string => codeOf(() => readRunRecord(folder));
    putLines([1, 2, 3].map(stepOf));
    for (const [json, message] of [
      [own({ "10": 1 }), 'weights.json: has no weight for "2" of run.json; the files belong to different runs'],
      [own({ "10": 0.5, "2": 0.5, c: 0 }), 'weights.json: has a weight for "c", which run.json does not name; '],
      [{ ...own({ "10": 0.5, "2": 0.5 }), bases: own({ b: 1 }) }, 'weights.json: has a weight for "b", which'],
    ] as const) {
      writeFileSync(join(folder, "weights.json"), JSON.stringify(json));
      expect(refusal()).toContain(message);
    }
    writeFileSync(join(folder, "weights.json"), JSON.stringify(own({ "10": 0.5, "2": 0.5 })));
    expect(readRunRecord(folder).steps.length).toBe(3);
    // While a run writes its last line, it has no weights.json yet.
    appendFileSync(join(folder, "metrics.jsonl"), '{"step":4,');
    expect(refusal()).toMatch(/^data: .*metrics\.jsonl: its last line is incomplete, although the run has ended \(there is .*weights\.json\); copy/);
    rmSync(join(folder, "weights.json"));
    expect(readRunRecord(folder).steps.length).toBe(3);
    const resumed = (step: number): MetricsLine => ({ step, event: "resumed", changes: {} });
    putLines([resumed(0), stepOf(1), stepOf(2), resumed(2), stepOf(3)]);
    expect(readRunRecord(folder).steps.length).toBe(3);
    for (const [lines, message] of [
      [[stepOf(1), stepOf(2), stepOf(2)], "a line of step 2 follows one of step 2; a run writes each step once, in order"],
      [[stepOf(1), stepOf(3)], "a line of step 3 follows one of step 1"],
      [[stepOf(2)], "a line of step 2 follows the beginning"],
      [[stepOf(1), resumed(0)], "a line of step 0 follows one of step 1"],
    ] as const) {
      putLines(lines);
      expect(refusal()).toContain(`metrics.jsonl: ${message}`);
    }
  });

  test("weights.json is refused after an edit, unless its weights still sum to 1", () => {
    const [good, bad] = [{ a: 0.25, b: 0.75 }, { a: 0.25, b: 0.7 }];
    const file = (json: object): void => writeFileSync(join(folder, "weights.json"), JSON.stringify(json));
    for (const [key, json] of [
      ["final", { final: bad, averaged: good }],
      ["averaged", { final: good, averaged: bad }],
      ["bases.final", { final: good, averaged: good, bases: { final: bad, averaged: good } }],
      ["final", { final: { a: 1.5, b: -0.5 }, averaged: good }],
    ] as const) {
      file(json);
      expect(codeOf(() => readWeights(folder))).toMatch(
        new RegExp(`^data: .*weights\\.json: ${key} has weights that are not .* that sum to 1: they sum to`),
      );
    }
    file({ final: good, averaged: good });
    expect(readWeights(folder)?.final).toEqual(new Map(Object.entries(good)));
  });

  test("is refused if something else is in the place of a file, as what cannot be read", () => {
    for (const name of ["config.json", "run.json", "weights.json", "metrics.jsonl"]) {
      const own = mkdtempSync(join(folder, "own-"));
      writeFileSync(join(own, "config.json"), "{}");
      writeFileSync(join(own, "run.json"), formatJson(facts));
      rmSync(join(own, name), { force: true });
      mkdirSync(join(own, name));
      expect(codeOf(() => readRunRecord(own))).toBe(`io: ${join(own, name)}: cannot be read (it is a folder)`);
    }
  });

  test("is refused if files of a run are missing", () => {
    const empty = mkdtempSync(join(folder, "empty-"));
    expect(codeOf(() => readRunHead(empty))).toMatch(/^data: .*: contains no run \(there is no .*config\.json\)/);
    expect(readWeights(empty)).toBeNull();
    expect(scanMetrics(empty, () => {})).toBe(METRICS_START);
    writeFileSync(join(empty, "config.json"), "{}");
    expect(codeOf(() => readRunHead(empty))).toMatch(/^data: .*: has no run\.json/);
    writeFileSync(join(empty, "run.json"), formatJson({ ...facts, version: 2 }));
    expect(codeOf(() => readRunHead(empty))).toContain("run.json: version is 2, and this gradmix reads 1; it was written by another version");
  });

  test("every part of run.json is refused by name if it is missing or of another type", () => {
    put("config.json", {});
    for (const key of Object.keys(facts) as (keyof RunFacts)[]) {
      put("run.json", { ...facts, [key]: [["no"]] });
      const error = errorOf(() => readRunHead(folder));
      expect([error.code, error.message]).toEqual(["data", expect.stringContaining(`run.json: ${key}`)]);
    }
    put("run.json", { ...facts, domains: new Map([["code", { ...text, tokens: "many" }]]) });
    expect(codeOf(() => readRunHead(folder))).toContain(
      'run.json: domains.code.tokens is "many", not a finite number',
    );
  });

  test("the selected shares are of all domains and of no others, above 0 and up to 1", () => {
    put("config.json", {});
    const selected = new Map([
      ["10", 0.25],
      ["2", 1],
    ]);
    put("run.json", { ...facts, selected });
    expect(readRunHead(folder).facts.selected).toEqual(selected);
    for (const [change, message] of [
      [{ "10": 0.25 }, 'selected has no share of "2"'],
      [{ "10": 0.25, "2": 1, c: 1 }, 'selected has a share of "c", which is not a domain'],
      [{ "10": 0, "2": 1 }, 'selected has a share of "10" that is not above 0 and up to 1'],
      [{ "10": 0.5, "2": 1.5 }, 'selected has a share of "2" that is not above 0 and up to 1'],
    ] as const) {
      put("run.json", { ...facts, selected: change });
      expect(codeOf(() => readRunHead(folder))).toMatch(/^data: /);
      expect(codeOf(() => readRunHead(folder))).toContain(message);
    }
  });

  test.each([
    ["no JSON", "{", "line 1: is not JSON"],
    ["no object", "[]", "line 1"],
    ["no step", "{}", "line 1: step is missing; it must be a whole number of at least 0"],
    ["an event of its own", '{"step":1,"event":"paused"}', 'line 1: event is "paused", not "start" or "resumed"'],
    ["a step without weights", '{"step":1,"tokens":1,"loss":1,"gradNorm":1,"lr":1,"seconds":1}', "line 1: weights is missing"],
  ])("a line that is %s is refused", (_, source, message) => {
    writeFileSync(join(folder, "metrics.jsonl"), `${source}\n`);
    expect(codeOf(() => scanMetrics(folder, () => {}))).toContain(message);
  });
});

test("bits per byte are right", () => {
  // 100 tokens of ln 2 nats are 100 bits, on 300 bytes.
  expectNear(bitsPerByte(text, Math.LN2) ?? NaN, 1 / 3, 1e-15);
  expect(bitsPerByte({ ...text, heldOutTokens: 0, heldOutBytes: 0 }, 1)).toBeNull();
});
