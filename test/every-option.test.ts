/**
 * Every public function with an options object refuses unknown names, with the nearest name if one is near, and invalid values, with the option's name.
 * The functions are enumerated from the package's declarations: a new one without a line here fails.
 */
import * as core from "gradmix";
import * as data from "gradmix/data";
import * as dga from "gradmix/dga";
import * as taken from "gradmix/export";
import * as nn from "gradmix/nn";
import * as kit from "gradmix/testing";
import fc from "fast-check";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { language, tiny, windows } from "./dga/languages.ts";
import { validOptions } from "./dga/rule-samples.ts";

const dist = resolve(import.meta.dirname, "../dist");

/** Functions whose declaration names an options object. */
function optionsTaking(): string[] {
  const declarations = readdirSync(dist, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".d.ts"))
    .map((file) => readFileSync(resolve(dist, file), "utf8"))
    .join("\n");
  const found = new Set<string>();
  const entries = [core, data, dga, dga.rules, dga.combinators, taken, nn, kit];
  for (const [name, value] of entries.flatMap((part) => Object.entries<unknown>({ ...part }))) {
    if (typeof value !== "function" || /^[A-Z]/.test(name)) continue;
    // A function is exported under the name that it was declared with, but for `rules.static`.
    const own = name === "static" ? value.name : name;
    const declared = new RegExp(`export declare (?:async )?(?:function\\*? ${own}\\b|const ${own}:)`);
    const from = declarations.search(declared);
    expect(from, `the declaration of ${name}`).toBeGreaterThanOrEqual(0);
    // The parameters: up to the parenthesis that closes them.
    let depth = 0;
    let end = declarations.indexOf("(", from);
    do {
      if (declarations[end] === "(") depth++;
      if (declarations[end] === ")") depth--;
      end++;
    } while (depth > 0);
    const parameters = declarations.slice(from, end);
    if (/\b(?:options|specs|config|given)\??: |: (?:SumTarget|\w+Options)\b/.test(parameters))
      found.add(name);
  }
  return [...found];
}

interface Case {
  readonly call: (options: never) => unknown;
  /** Options that are taken. */
  readonly valid: object | (() => object);
  /** Values of options that are refused, beside those that no option takes. */
  readonly wrong?: Readonly<Record<string, readonly unknown[]>>;
  /** Options that take anything. */
  readonly free?: readonly string[];
}

const counts = [0, -1, 2.5, "2"];
const text = (): string => new URL("../README.md", import.meta.url).pathname;
const names = ["a", "b"];
const tokens = join(mkdtempSync(join(tmpdir(), "gradmix-options-")), "a.bin");
const stream = () => windows("a", [language(1, 200)]).stream;
const schedule = (): number => 0.1;
const points: data.Points = { values: Float32Array.of(1, 2, 3, 4), dim: 2 };
const domains = () => [1, 2].map((seed) => windows(names[seed - 1], [language(seed, 200)]));
const bases = () => dga.createBases({ x: [1, 0], y: [0, 1] }, names);
let model: nn.GPT;
let batch: nn.TokenBatch;
let direction: nn.Arena;

beforeAll(async () => {
  writeFileSync(tokens, Uint16Array.of(1, 2, 3, 4));
  await core.init({ backend: "cpu", threads: 1 });
  model = tiny();
  batch = data.assembleBatch([{ domain: 0, window: 0, epoch: 0 }], domains());
  direction = nn.arenaLike(model.parameters);
});
afterAll(async () => {
  rmSync(dirname(tokens), { recursive: true });
  await core.shutdown();
});

/** Disposes the result of a call. */
const freed = (made: { dispose(): unknown }): void => void made.dispose();
const gpt = { vocabSize: 5, dim: 4, layers: 1, heads: 1, context: 4 };
const wrongGpt = Object.fromEntries(
  ["vocabSize", "dim", "layers", "heads", "kvHeads", "hiddenDim", "context"].map((name) => [name, counts]),
);
const wrongEstimate = { maxExamples: counts, lossScale: [0, 3, "1"], parameters: ["head"] };
const x = () => core.ones([2, 3]);
const parameter = () => model.parameters.list[0];
const rule = () => dga.rules.dga();
const training = (): object => ({
  model,
  mixer: dga.createMixer({ domains: names, rule: { name: "dga" } }),
  domains: domains(),
  target: domains()[0],
  batch: 1,
  schedule,
  seed: 1,
});

const train = (options: Partial<dga.TrainerOptions>): void =>
  freed(dga.createTrainer({ ...training(), ...options } as dga.TrainerOptions));

/** A run of one step. */
const record = (): Parameters<typeof taken.mixtureOfRun>[0] => {
  const facts = { files: 1, documents: 1, tokens: 8, heldOutTokens: 0, heldOutBytes: 0, sha256: "" };
  const weights = new Map(names.map((name) => [name, 0.5]));
  return {
    ...{ folder: "runs/a", name: "a", config: new Map(), start: null, resumes: [] },
    facts: {
      ...{
        version: 1,
        gradmix: "0",
        node: "0",
        backend: "cpu",
        simd: "",
        precision: "f32",
        threads: 1,
        rule: "dga",
      },
      ...{
        seed: 1,
        dataSeed: 1,
        evaluatedTokens: null,
        steps: 1,
        batch: 1,
        context: 4,
        parameters: 1,
        vocabSize: 5,
        repetitions: null,
        bases: null,
      },
      ...{ cost: { alignment: 0, evaluation: 0 }, target: null, targets: new Map() },
      domains: new Map(names.map((name) => [name, facts])),
    },
    steps: [{ step: 1, tokens: 4, loss: 1, gradNorm: 1, lr: 1, seconds: 1, weights, domains: new Map() }],
    weights: { final: weights, averaged: weights },
  };
};

const cases: Readonly<Record<string, Case | readonly Case[]>> = {
  mixtureOfRun: {
    call: (options: taken.OfRunOptions) => taken.mixtureOfRun(record(), options),
    valid: { weights: "final", stages: 1, paths: new Map() },
    wrong: { weights: ["last", 1], stages: counts, paths: [{}, "x"] },
  },
  exportMixture: {
    call: (options: taken.ExportOptions) =>
      taken.exportMixture(taken.mixtureOfRun(record()).mixture, options),
    valid: { format: "doremi", scaleTo: 100, context: 8, batch: 2, rows: "windows", floor: 0.1 },
    wrong: {
      format: ["yaml", 1],
      scaleTo: [0, -1, "1"],
      context: counts,
      batch: counts,
      rows: ["lines", 1],
      floor: [-1, 0.6, "1"],
    },
  },
  alignSink: [
    {
      call: (options: core.AlignSinkOptions) => freed(core.alignSink(options)),
      valid: { examples: 2, direction: null, segments: [0, 1, 2], groups: [0, 2] },
      wrong: {
        examples: [-1, 1.5],
        segments: [[0, 3], 3],
        groups: [[0, 9]],
        direction: [{ frist: 1 }, "first"],
      },
    },
    {
      call: (first: object) => freed(core.alignSink({ examples: 2, direction: first as { first: number } })),
      valid: { first: 1 },
      wrong: { first: [-1, 0.5, "1"] },
    },
    {
      call: (total: core.SumTarget) => freed(core.alignSink({ examples: 2, direction: null, total })),
      valid: { gradientOf: parameter, accumulate: true, from: 1 },
      wrong: { from: [-1, 3], accumulate: [1] },
    },
  ],
  normSink: {
    call: (options: core.AlignSinkOptions) => freed(core.normSink(options)),
    valid: { examples: 2 },
    wrong: { examples: [-1, 1.5] },
  },
  segmentSink: {
    call: (options: core.SegmentSinkOptions) => freed(core.segmentSink(options)),
    valid: { segments: [0, 1], parameters: [] },
  },
  sketchSink: {
    call: (options: core.SketchSinkOptions) => freed(core.sketchSink(options)),
    valid: { segments: [0, 1], parameters: [], rank: 2, seed: 3 },
    wrong: { rank: counts, seed: [-1, 0.5] },
  },
  sumSink: {
    call: (target: core.SumTarget) => core.sumSink(target),
    valid: { gradientOf: parameter, accumulate: false },
    wrong: { accumulate: [1, "yes"] },
  },
  linear: {
    call: (options: object) => core.linear(x(), core.ones([4, 3]), undefined, options),
    valid: { activation: "relu" },
    wrong: { activation: ["tanh", 1] },
  },
  gelu: {
    call: (options: object) => core.gelu(x(), options),
    valid: { approximate: "none" },
    wrong: { approximate: ["erf", true] },
  },
  dropout: {
    call: (options: { seed: number }) => core.dropout(x(), 0.5, options),
    valid: { seed: 1, stream: 2 },
    wrong: { seed: [-1, 0.5, 2 ** 53], stream: [-1, 0.5, 2 ** 53] },
  },
  matmul: {
    call: (options: object) => core.matmul(x(), core.ones([3, 4]), options),
    valid: { transposeA: false, transposeB: false },
    wrong: { transposeA: [1], transposeB: ["yes"] },
  },
  variance: {
    call: (options: core.VarianceOptions) => core.variance(x(), 1, options),
    valid: { correction: 0, keepDims: true },
    wrong: { correction: [-1, Infinity, "1", 3], keepDims: [1] },
  },
  causalAttention: {
    call: (options: { heads: number }) => core.causalAttention(core.ones([1, 2, 12]), options),
    valid: { heads: 2, kvHeads: 2 },
    wrong: { heads: counts, kvHeads: counts },
  },
  attention: {
    call: (options: core.AttentionOptions) =>
      core.attention(core.ones([1, 2, 3, 4]), core.ones([1, 1, 5, 4]), core.ones([1, 1, 5, 4]), options),
    valid: () => ({ causal: true, mask: core.ones([1, 2, 3, 5], "i32") }),
    wrong: { causal: [1, "yes"], mask: [1, [1]] },
  },
  rope: {
    call: (options: { heads: number; headDim: number }) => core.rope(core.ones([1, 2, 8]), options),
    valid: { heads: 2, headDim: 2, theta: 100, offset: 3 },
    wrong: { heads: [-1, 0.5], headDim: [-2, 0.5], theta: [NaN, "1"], offset: [-1, 0.5, 2 ** 31] },
  },
  sgd: {
    call: (options: nn.SGDOptions) => freed(nn.sgd(model.parameters, options)),
    valid: { momentum: 0.5, nesterov: true, weightDecay: 0, clip: 0 },
    wrong: { momentum: [1, -0.1], nesterov: [1], weightDecay: [-1], clip: [-1, Infinity] },
  },
  adam: {
    call: (options: nn.AdamOptions) => freed(nn.adam(model.parameters, options)),
    valid: { beta1: 0.5, beta2: 0.5, eps: 1e-6, weightDecay: 0, clip: 0 },
    wrong: { beta1: [1, -0.1], beta2: [1], eps: [0], weightDecay: [-1], clip: [-1, Infinity] },
  },
  adamw: {
    call: (options: nn.AdamWOptions) => freed(nn.adamw(model.parameters, options)),
    valid: { beta1: 0.5, beta2: 0.5, eps: 1e-6, weightDecay: 0, clip: 0 },
    wrong: { beta1: [1, -0.1], beta2: [1], eps: [0], weightDecay: [-1], clip: [-1, Infinity] },
  },
  createGPT: [
    {
      call: (config: nn.GPTConfig) => freed(nn.createGPT(config)),
      valid: { ...gpt, heads: 2 },
      wrong: wrongGpt,
    },
    {
      call: (options: nn.GPTOptions) => freed(nn.createGPT({ ...gpt, heads: 2 }, options)),
      valid: { seed: 1, checkpoint: true },
      wrong: { seed: [-1, 0.5], checkpoint: [1] },
    },
  ],
  resolveGPTConfig: { call: nn.resolveGPTConfig, valid: { ...gpt, heads: 2 }, wrong: wrongGpt },
  parameterCount: { call: nn.parameterCount, valid: { ...gpt, heads: 2 }, wrong: wrongGpt },
  createParameters: [
    {
      call: (spec: nn.ParameterSpec) => freed(nn.createParameters([spec], 0)),
      valid: { name: "w", shape: [2], init: { kind: "constant", value: 0 }, decay: true, block: 0 },
      wrong: { decay: [1], block: [-1, 0.5, "before"], init: [{ kind: "uniform" }] },
    },
    {
      call: (init: nn.Init) => freed(nn.createParameters([{ name: "w", shape: [2], init, decay: true }], 0)),
      valid: { kind: "normal", deviation: 1 },
      wrong: { deviation: [-1, "1"] },
    },
  ],
  createSchedule: {
    call: nn.createSchedule,
    valid: { name: "wsd", lr: 1, steps: 10, minRatio: 0, warmup: 2, decayShare: 0.1 },
    wrong: { lr: [-1], steps: [-1, 0.5], minRatio: [2], warmup: [-1, 0.5], decayShare: [2], name: ["cosin"] },
  },
  generate: {
    call: (options: nn.GenerateOptions) => nn.generate(model, [1], options).next(),
    valid: { maxTokens: 1, temperature: 0, topK: 1, seed: 2, stop: 3 },
    wrong: { maxTokens: [-1, 0.5], temperature: [-1], topK: [-1, 0.5], seed: [-1], stop: [-1, 0.5] },
  },
  toHuggingFace: {
    call: (options: nn.SpecialTokens) => nn.toHuggingFace(model, options),
    valid: { endOfText: 1 },
    wrong: { endOfText: [-1, 0.5] },
    free: ["tokenizer"],
  },
  assembleBatch: {
    call: (options: object) => data.assembleBatch([], domains(), options),
    valid: { sortByDomain: true },
    wrong: { sortByDomain: [1] },
  },
  createSampler: {
    call: data.createSampler,
    valid: { domains: [], seed: 1, mode: "systematic" },
    wrong: { seed: [-1, 0.5], mode: ["random"] },
  },
  bigramHistogram: {
    call: (options: data.HistogramOptions) => {
      const text = data.windowsOf("a", stream(), 4);
      return data.bigramHistogram(text, [text], options);
    },
    valid: { windowTokens: 4, windows: 2, domainTokens: 10 },
    wrong: { windowTokens: counts, windows: counts, domainTokens: counts },
  },
  windowsOf: {
    call: (options: data.WindowOptions) => data.windowsOf("a", stream(), 4, options),
    valid: { partial: "drop" },
    wrong: { partial: ["keep"] },
  },
  createBases: {
    call: (options: dga.BasesOptions) => dga.createBases({ x: [1, 0] }, names, options),
    valid: { counts: true },
    wrong: { counts: [1] },
  },
  parseBases: {
    call: (options: dga.ParseBasesOptions) => dga.parseBases('{"x": [1, 0]}', names, options),
    valid: { format: "json", source: "here", counts: true },
    wrong: { format: ["yaml"], source: [1], counts: [1] },
  },
  proposal: {
    call: (options: dga.ProposalOptions) => dga.proposal(bases(), [0.5, 0.5], options),
    valid: { defensive: 1 },
    wrong: { defensive: [0, 2] },
  },
  createMixer: {
    call: dga.createMixer,
    valid: { domains: names, rule: { name: "dga" }, updateEvery: 1, updateAfter: 0 },
    wrong: { updateEvery: counts, updateAfter: [-1, 0.5], domains: [[]] },
  },
  createTrainer: [
    {
      call: (options: dga.TrainerOptions) => freed(dga.createTrainer(options)),
      valid: () => ({
        ...training(),
        batch: 2,
        seed: 0,
        lossScale: null,
        sampling: "systematic",
        optimizer: nn.adamw,
      }),
      wrong: {
        batch: counts,
        seed: [-1, 0.5],
        sampling: ["random"],
        lossScale: [{ max: 3 }],
        model: [{}],
        optimizer: [{}],
      },
    },
    {
      call: (heldOut: dga.HeldOutOptions) => train({ heldOut }),
      valid: () => ({ sets: domains(), tokens: 10, every: 2 }),
      wrong: { sets: [[1], []], tokens: counts, every: counts },
    },
    {
      call: (alignment: dga.AlignmentOptions) => train({ alignment }),
      valid: { from: "step", refreshEvery: 1, domainExamples: 1, targetExamples: 1, bases: "direct" },
      wrong: {
        ...{ from: ["steps"], estimator: ["segmentd"], bases: ["both"] },
        ...{ refreshEvery: counts, domainExamples: counts, targetExamples: counts },
      },
    },
    {
      call: (lossScale: dga.LossScaleOptions) => train({ lossScale }),
      valid: { initial: 2, min: 1, max: 4, growthInterval: 3 },
      wrong: { initial: [3], growthInterval: counts },
    },
  ],
  estimateAlignments: [
    {
      call: (options: dga.EstimateOptions) =>
        dga.estimateAlignments("segmented", model, batch, [batch], options),
      valid: { maxExamples: 1, lossScale: 2 },
      wrong: wrongEstimate,
    },
    {
      call: (sketch: object) => dga.estimateAlignments("sketch", model, batch, [batch], { sketch }),
      valid: { rank: 2, seed: 2 },
      wrong: { rank: counts, seed: [-1] },
    },
    {
      call: (precondition: nn.Preconditioner) =>
        dga.estimateAlignments("segmented", model, batch, [batch], { precondition }),
      valid: () => ({ v: direction, bias: 0.5, eps: 1e-8 }),
      wrong: { bias: [0, 2], eps: [0] },
    },
  ],
  estimateGram: {
    call: (options: dga.EstimateOptions) => dga.estimateGram(model, [batch], options),
    valid: { held: 1, lossScale: 1 },
    wrong: { ...wrongEstimate, held: counts },
  },
  exampleNumbers: {
    call: (options: dga.EstimateOptions) => dga.exampleNumbers(model, batch, direction, options),
    valid: { maxExamples: 1 },
    wrong: wrongEstimate,
  },
  targetDirection: {
    call: (options: dga.EstimateOptions) => dga.targetDirection(model, batch, direction, options),
    valid: { lossScale: 1 },
    wrong: wrongEstimate,
  },
  sketchGradients: {
    call: (options: dga.EstimateOptions) => dga.sketchGradients(model, [batch], options),
    valid: { sketch: { rank: 2 } },
    wrong: wrongEstimate,
  },
  ...Object.fromEntries(
    dga.ruleNames.map((name) => [name, { call: dga.rules[name], valid: validOptions[name] }]),
  ),
  dga: { call: dga.rules.dga, valid: { eta: 1 }, wrong: { eta: [-1], normalise: ["cosin"] } },
  paper: { call: dga.paper, valid: { eta: 1 }, wrong: { eta: [-1, NaN, "1"] } },
  createRule: { call: dga.createRule, valid: { name: "dga", eta: 1 }, free: ["name"] },
  combine: {
    call: (options: dga.CombinatorOptions) => dga.combine(rule(), [options]),
    valid: { name: "ema", beta: 0.5 },
    free: ["name"],
  },
  repetitionCap: {
    call: (options: Parameters<typeof dga.combinators.repetitionCap>[1]) =>
      dga.combinators.repetitionCap(rule(), options),
    valid: { sizes: [1, 2], tokens: 1, repetitions: 4 },
  },
  guard: {
    call: (options: dga.GuardOptions) => dga.combinators.guard(rule(), options).init(names),
    valid: { limits: { "*": 1.02, a: 1 }, references: [1, 2], caps: [1, 0.5], most: 0.5, rate: 10 },
    wrong: { limits: [{}, { a: 0.5 }, { c: 1 }], caps: [[1, 2]], most: [0, 1], rate: [0] },
  },
  tokenBudget: {
    call: (options: { budgets: number[]; tokens: number }) => dga.combinators.tokenBudget(rule(), options),
    valid: { budgets: [1, 2], tokens: 1 },
  },
  checkRule: {
    call: (options: kit.CheckRuleOptions) => kit.checkRule(() => dga.rules.uniform(), options),
    valid: { numRuns: 1 },
  },
  listFiles: { call: (options: data.ListOptions) => data.listFiles([text()], options), valid: {} },
  readDocuments: {
    call: (options: data.ReadOptions) => data.readDocuments([text()], options).next(),
    valid: {},
  },
  trainBpe: {
    call: (options: data.TrainBpeOptions) => data.trainBpe(["some text, some more text"], options),
    valid: { vocabSize: 260 },
    wrong: { vocabSize: counts },
  },
  selectWindows: {
    call(options: data.SelectionOptions) {
      const text = { tokens: Uint16Array.of(1, 2, 1, 2), documents: Float64Array.of(0, 4) };
      const windows = data.windowsOf("a", text, 2);
      return data.selectWindows(windows, [windows], options);
    },
    valid: { weights: [1], tokens: 10, leastShare: 0.5 },
    wrong: { weights: [[-1], [1, 1], [NaN]], tokens: [-1, 0.5], leastShare: [-1, 2] },
  },
  divideByLikeness: {
    call(options: data.LikenessOptions) {
      const text = { tokens: Uint16Array.of(1, 2, 1, 2), documents: Float64Array.of(0, 2, 4) };
      return data.divideByLikeness(text, [text], options);
    },
    valid: { parts: 2 },
    wrong: { parts: counts },
  },
  kMeans: {
    call: (options: data.KMeansOptions) => data.kMeans(points, options),
    valid: { clusters: 2, iterations: 1, tolerance: 0, seed: 0, signal: new AbortController().signal },
    wrong: { clusters: counts, iterations: counts, tolerance: [-1], seed: [-1, 0.5], signal: [{}] },
  },
  fitClusters: {
    call: (options: data.ClusterOptions) => data.fitClusters(points, options),
    valid: { levels: [1, 2], iterations: 1, tolerance: 0, seed: 0, onProgress: () => {} },
    wrong: { levels: [2, [0], [1, "2"], []], iterations: counts, tolerance: [-1], onProgress: [1] },
  },
  fitEmbedder: {
    call: (options: data.EmbedderOptions) => data.fitEmbedder(["some words"], options),
    valid: { dim: 1, seed: 2 },
    wrong: { dim: [...counts, 5000], seed: [-1, 0.5], signal: [{}] },
  },
  fitTextClusters: {
    call: (options: data.TextClusterOptions) => data.fitTextClusters(["some words"], options),
    valid: { levels: [1], dim: 1, seed: 2 },
    wrong: { levels: [2, [0]], dim: [...counts, 5000], seed: [-1, 0.5] },
  },
  groupTexts: {
    call: async (options: Parameters<typeof data.groupTexts>[2]) =>
      data.groupTexts(
        ["some words", "other words"],
        await data.fitEmbedder(["some words"], { dim: 1 }),
        options,
      ),
    valid: { groups: 1, seed: 2 },
    wrong: { groups: counts, seed: [-1, 0.5], signal: [{}] },
  },
  buildCorpus: {
    call: (options: data.CorpusOptions) =>
      data.buildCorpus("a", [{ text: "one" }, { text: "two" }], data.byteTokenizer(), options),
    valid: { heldOut: 0.5, seed: 1 },
    wrong: { heldOut: [1, -0.1], seed: [-1, 0.5] },
  },
  openTokens: {
    call: (options: data.TokenFileOptions) => data.openTokens("a", [tokens], options),
    valid: { vocabSize: 9, endOfText: null, tokenType: "u16", heldOut: 0.5, seed: 1 },
    wrong: { vocabSize: counts, endOfText: [-1, 0.5], tokenType: ["i32"], heldOut: [1], seed: [-1, 0.5] },
  },
  gradients: {
    call: (options: core.GradientsOptions) => core.gradients(() => core.sum(parameter(), [1]), options),
    valid: () => ({
      parameters: [parameter()],
      sink: core.sumSink({ gradientOf: (of) => core.zeros(of.shape) }),
    }),
  },
  defineOp: {
    call: (options: never) => core.defineOp(options),
    valid: {
      name: "own",
      inputs: ["x"],
      attributes: { scale: 1 },
      infer: ([x]: core.Spec[]) => x,
      keepsBatch: "rows",
      forward: ([x]: core.Tensor[]) => core.exp(x),
      vjp: () => null,
      jvp: () => null,
      compose: ([x]: core.Tensor[]) => core.exp(x),
    },
    wrong: { inputs: [[], ["x", "x"], [1]], keepsBatch: ["row", null], attributes: [3] },
  },
  customGradient: {
    call: (options: core.CustomGradientOptions) =>
      core.customGradient(core.exp, () => null, undefined, options),
    valid: { name: "own", keepsBatch: "elementwise" },
    wrong: { keepsBatch: ["elementwize", true] },
  },
  checkGradients: {
    call: (options: kit.CheckGradientsOptions) => kit.checkGradients(core.tanh, [x()], options),
    valid: { wrt: [0], order: 2, forwardMode: true, step: 1e-5, tolerance: 1e-5, seed: 3 },
    wrong: { wrt: [[], [1], [-1], [0.5], 0], order: [0, 3], step: [0, -1], tolerance: [0], seed: [-1, 0.5] },
  },
  signal: { call: (options: object) => kit.signal(2, options), valid: { mild: true }, wrong: { mild: [1] } },
  simplexPoint: {
    call: (options: object) => kit.simplexPoint(2, options),
    valid: { positive: true },
    wrong: { positive: [1] },
  },
  updateSequence: {
    call: (options: object) => kit.updateSequence(2, options),
    valid: { mild: true },
    wrong: { mild: [1] },
  },
  // The last, as it starts another backend.
  init: {
    call: core.init,
    valid: {
      backend: "cpu",
      threads: 1,
      simd: "plain",
      vectorBits: "auto",
      precision: "f32",
      memoryLimit: 2 ** 28,
      deterministic: true,
    },
    wrong: {
      backend: ["cpuu"],
      simd: ["fast", null],
      vectorBits: [64, "256", null],
      precision: ["f64"],
      memoryLimit: [-1],
      threads: counts,
    },
  },
};

/** Returns the message with which the call is refused, or null. Other errors are rethrown. */
async function refusal(call: (options: never) => unknown, options: unknown): Promise<string | null> {
  try {
    await call(options as never);
  } catch (error) {
    if (!(error instanceof core.GradmixError)) throw error;
    expect(error.message).not.toContain("\n");
    return error.message;
  }
  return null;
}

const checked = Object.entries(cases).flatMap(([name, of]) => [of].flat().map((one) => [name, one] as const));

test("the list has every function that takes options", () => {
  expect(optionsTaking().filter((name) => !(name in cases))).toEqual([]);
});

describe.each(checked)("%s", (name, { call, valid: given, wrong = {}, free = [] }) => {
  let valid: object = {};
  beforeAll(() => {
    valid = typeof given === "function" ? (given as () => object)() : given;
  });
  /** As its refusal of an unknown one lists them. */
  const options = async (): Promise<string[]> => {
    const message = (await refusal(call, { ...valid, "no option is called this": 1 })) ?? "";
    const [, listed] = /its options are (.*)$/.exec(message) ?? [];
    expect(listed, message).toBeDefined();
    return (listed ?? "").split(", ");
  };

  test("accepts valid options, and refuses unknown names", async () => {
    expect(await refusal(call, valid)).toBeNull();
    const known = await options();
    expect(Object.keys(valid).filter((option) => !known.includes(option) && !free.includes(option))).toEqual(
      [],
    );
    await fc.assert(
      fc.asyncProperty(
        fc.string().filter((key) => !known.includes(key) && key !== "__proto__" && key !== "name"),
        async (key) => {
          expect(await refusal(call, { ...valid, [key]: 1 })).toContain(`there is no option "${key}"`);
        },
      ),
      { numRuns: 20 },
    );
    for (const option of known) {
      const near = `${option}s`;
      if (option.length < 4 || known.includes(near)) continue;
      const [, offered] =
        /did you mean "(.*)"\?$/.exec((await refusal(call, { ...valid, [near]: 1 })) ?? "") ?? [];
      // Another may be as near.
      expect(known).toContain(offered);
      expect(offered?.slice(0, 4)).toBe(option.slice(0, 4));
    }
  });

  test("refuses invalid values, and names the option", async () => {
    for (const option of await options())
      for (const value of [
        ...(free.includes(option) ? [] : [5n, Symbol("s"), NaN]),
        ...(wrong[option] ?? []),
      ]) {
        const message = await refusal(call, { ...valid, [option]: value });
        expect(message, `${name}: ${option} = ${String(value)}`).toContain(option);
      }
    for (const nothing of [5, "text", [], true]) expect(await refusal(call, nothing)).not.toBeNull();
    // What has no members would count as options that were all left out.
    for (const held of [new Map(Object.entries(valid)), new Set(), Promise.resolve(valid), new Date(0)])
      expect(await refusal(call, held)).not.toBeNull();
  });
});
