/**
 * Anything in place of an argument of a public function is accepted or refused with a GradmixError of one line. (test/autograd/refused.test.ts does the
 * same for the ops of `gradmix`, every-option.test.ts for the options of all functions.)
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as core from "gradmix";
import * as data from "gradmix/data";
import * as dga from "gradmix/dga";
import * as nn from "gradmix/nn";
import * as files from "gradmix/node";
import * as taken from "gradmix/export";
import * as kit from "gradmix/testing";
import fc from "fast-check";
import { validOptions } from "./dga/rule-samples.ts";

type Calls = { readonly [name: string]: readonly unknown[] };

const mixture: taken.Mixture = {
  domains: ["a", "b"].map((name) => ({ name, weight: 0.5, tokens: 100, documentTokens: 10, paths: [name] })),
  stages: [
    { start: 0, weights: [0.5, 0.5] },
    { start: 50, weights: [0.2, 0.8] },
  ],
  ...{ tokens: 100, context: 8, batch: 2, repetitions: null, metrics: new Map([["target", 1]]) },
  source: { gradmix: "0", run: "r", step: 3, rule: "dga", weights: "stages" },
};

let folder: string;
let calls: { readonly [entry: string]: Calls };
let methods: { readonly [object: string]: Methods };

/** Makes an object, and valid arguments of its methods; null for a method that takes none. */
interface Methods {
  readonly make: () => object;
  readonly calls: { readonly [method: string]: readonly unknown[] | null };
}

async function validCalls(): Promise<typeof calls> {
  const spec = { name: "w", shape: [2], init: { kind: "constant", value: 1 }, decay: true } as const;
  const parameters = nn.createParameters([spec], 1);
  const optimizer = nn.sgd(parameters, { momentum: 0.9 });
  const model = nn.createGPT({ vocabSize: 256, dim: 8, layers: 1, heads: 2, context: 8 });
  const tokenizer = data.byteTokenizer();
  const text = "hello world, hello there. ".repeat(20);
  const { train } = await data.buildCorpus("a", [{ text }], tokenizer, { heldOut: 0, seed: 1 });
  const windows = data.windowsOf("a", train, 8);
  const batch = windows.batchOf([0, 1]);
  const sketches = await dga.sketchGradients(model, [batch]);
  const mixer = dga.createMixer({ domains: ["a", "b"], rule: { name: "dga" } });
  const state = mixer.initial;
  const uniform = dga.createMixer({ domains: ["a", "b"], rule: { name: "uniform" } });
  const bases = dga.createBases({ x: { a: 1 }, y: { b: 1 } }, ["a", "b"]);
  const direction = nn.arenaLike(model.parameters);
  const draws = [{ domain: 0, window: 0, epoch: 0 }];
  const sampled = { domainOf: [0, 1], tokens: [1, 1], dots: [1, 2] };
  const points = { values: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), dim: 2 };
  const { clusters } = await data.fitClusters(points, { levels: [2] });
  const texts = ["some words here", "other words there", "words of a third"];
  const textClusters = await data.fitTextClusters(texts, { levels: [2], dim: 2 });
  const { embedder } = textClusters;
  const file = join(folder, "a.txt");
  writeFileSync(file, text);
  files.writeCheckpoint(join(folder, "a.ck"), { json: {}, arrays: {} });
  await files.writeParameters(join(folder, "a.st"), parameters);
  const half = [0.5, 0.5];
  const ofRule = ["rule", state.rule];
  return {
    nn: {
      createParameters: [[spec], 1],
      arenaLike: [parameters],
      assign: [core.zeros([2]), core.zeros([2])],
      sgd: [parameters, {}],
      adam: [parameters, {}],
      adamw: [parameters, {}],
      saveOptimizer: [optimizer],
      restoreOptimizer: [optimizer, await nn.saveOptimizer(optimizer)],
      createGPT: [model.config, {}],
      parameterCount: [model.config],
      resolveGPTConfig: [model.config],
      saveParameters: [parameters],
      loadParameters: [parameters, await nn.saveParameters(parameters), "file"],
      generate: [model, [1], { maxTokens: 1 }],
      sampleToken: [[1, 2], 1, 0, 0.5],
      toHuggingFace: [model, {}],
      fromHuggingFace: [await nn.toHuggingFace(model)],
      decodeSafetensors: [await nn.saveParameters(parameters), "file"],
      encodeSafetensors: [new Map([["a", { shape: [1], data: new Float32Array(1) }]]), {}],
      createSchedule: [{ name: "constant", lr: 1, steps: 3 }],
      usualWarmup: [3],
    },
    data: {
      byteTokenizer: [],
      loadTokenizer: [{}],
      openTokenizer: [{}],
      trainBpe: [["hello world"], { vocabSize: 260 }],
      buildCorpus: ["a", [{ text: "hello" }], tokenizer, { heldOut: 0, seed: 1 }],
      listFiles: [[file], {}],
      readDocuments: [[file], {}],
      openTokens: ["a", [file], { vocabSize: 9, endOfText: null }],
      windowsOf: ["a", train, 8, {}],
      evaluationWindows: ["a", train, 8],
      readWindow: [windows, 0, new Int32Array(8), new Int32Array(8), 0],
      splitStream: [train, 10],
      tokenWriter: [10, 1],
      aliasTable: [half],
      cumulativeTable: [half],
      createSampler: [{ domains: [windows], seed: 1 }],
      assembleBatch: [draws, [windows], {}],
      examplesOf: ["a", batch],
      rowsOf: ["a", { inputs: new Float32Array(4), width: 2, targets: new Int32Array(2) }],
      bigramHistogram: [windows, [windows, windows], {}],
      selectWindows: [windows, [windows, windows], { weights: [1, 1], tokens: 10 }],
      divideByLikeness: [train, [train, train], {}],
      kMeans: [points, { clusters: 2 }],
      nearestCentroids: [points, points],
      fitClusters: [points, { levels: [2] }],
      assignClusters: [clusters, points],
      leafCount: [clusters],
      fitEmbedder: [texts, { dim: 2 }],
      embedTexts: [embedder, texts],
      fitTextClusters: [texts, { levels: [2], dim: 2 }],
      assignTexts: [textClusters, texts],
      cutTexts: [texts, 100],
      clusterHistogram: [texts, { ...textClusters, sizes: [2, 1], characters: 100 }],
      groupTexts: [texts, embedder, { groups: 1, seed: 1 }],
      clusterShares: [
        [0, 1],
        [0, 1],
        [1, 1],
      ],
      encodeNpy: [{ shape: [2], values: new Float32Array(2) }],
      decodeNpy: [data.encodeNpy({ shape: [2], values: new Float32Array(2) }), "file"],
    },
    dga: {
      createMixer: [{ domains: ["a"], rule: { name: "uniform" } }],
      advance: [state, 1],
      averageWeights: [state],
      currentWeights: [state],
      updateDue: [mixer, state],
      update: [uniform, uniform.initial, {}],
      restoreMixer: [mixer, state],
      createRule: [{ name: "dga" }, {}],
      combine: [dga.rules.uniform(), [], {}],
      mirrorStep: [half, { eta: 0.1, direction: Float64Array.of(1, 2), among: null }],
      initialState: ["rule", ["a", "b"], half, {}],
      need: [...ofRule, { losses: [1, 2] }, "losses"],
      needErrors: [...ofRule, { standardErrors: [1, 2] }],
      needGram: [...ofRule, { gram: [1, 0, 0, 1] }],
      needTargetNorm: ["rule", { targetNorm: 1 }],
      measuredDomains: [...ofRule, {}],
      heldOutNumbers: [...ofRule, {}],
      domainAlignments: [
        [1, 2],
        [1, 1],
      ],
      alignmentsByDomain: [[1, 2], [1, 1], [0, 1], 2],
      createBases: [{ x: { a: 1 } }, ["a", "b"]],
      parseBases: ['{"x": {"a": 1}}', ["a"], { format: "json" }],
      mixtureOf: [bases, half],
      proposal: [bases, half, {}],
      basisChoice: [bases, 0],
      basisAlignments: [bases, half, sampled],
      lastBlocks: [model, 1],
      meanGradient: [model, batch, direction],
      targetDirection: [model, batch, direction],
      exampleNumbers: [model, batch, direction],
      estimateAlignments: ["segmented", model, batch, [batch]],
      estimateGram: [model, [batch]],
      sketchGradients: [model, [batch]],
      alignSketches: [sketches, sketches],
      createTrainer: [{}],
      paper: [{}],
      usualRepetitions: [[10, 20], 10],
      checkRange: ["x", 1, { min: 0, max: 2 }],
      uniformWeights: [2],
      sumOf: [half],
      normalise: [half],
      exponentiatedGradient: [half, [1, 2], 0.1],
      movingAverage: [half, half, 0.5],
      projectFloor: [half, 0.1],
      projectBounds: [half, [0, 0], [1, 1]],
      spreadExcess: [half, [1, 1]],
      limitByCaps: [half, [1, 1]],
      within: [half, null, (part: Float64Array) => part],
      mixUniform: [Float64Array.from(half), 0.1],
      checkSimplex: [half, ["a", "b"]],
      liesOnSimplex: [half],
      entropy: [half],
      klDivergence: [half, half],
    },
    export: {
      exportMixture: [mixture, { format: "json" }],
      fitStages: [[{ tokens: 5, weights: half }], 1],
      mixtureOfRun: [{ folder: "r", name: "r", facts: {}, steps: [], weights: null }, {}],
    },
    testing: {
      alignments: [2],
      checkGradients: [(x: core.Tensor) => core.mul(x, x), [core.ones([2])], {}],
      checkRule: [() => dga.rules.uniform(), {}],
      histogram: [2],
      names: [2],
      nearlyDegenerate: [2],
      signal: [2, {}],
      simplexPoint: [2, {}],
      updateSequence: [2, {}],
      vertex: [2],
    },
    node: {
      writeCheckpoint: [join(folder, "b.ck"), { json: {}, arrays: {} }],
      readCheckpoint: [join(folder, "a.ck")],
      writeParameters: [join(folder, "b.st"), parameters],
      readParameters: [join(folder, "a.st"), parameters],
      writeMegatron: [join(folder, "m"), train, { vocabSize: 300 }],
      writeNanoGPT: [join(folder, "n.bin"), train, { vocabSize: 300 }],
    },
  };
}

/** What the functions of the package return, if it has methods. */
async function validMethods(): Promise<typeof methods> {
  const spec = { name: "w", shape: [2], init: { kind: "constant", value: 1 }, decay: true } as const;
  const parameters = nn.createParameters([spec], 1);
  const model = nn.createGPT({ vocabSize: 257, dim: 8, layers: 1, heads: 2, context: 8 });
  const tokenizer = data.byteTokenizer();
  const text = "hello world, hello there. ".repeat(20);
  const { train } = await data.buildCorpus("a", [{ text }], tokenizer, { heldOut: 0, seed: 1 });
  const windows = data.windowsOf("a", train, 8);
  const rows = { inputs: new Float32Array(4), width: 2, targets: new Int32Array(2) };
  const half = [0.5, 0.5];
  const sampler = data.createSampler({ domains: [windows, windows], seed: 1 });
  const trainer = (): dga.Trainer =>
    dga.createTrainer({
      ...{ model, domains: [windows], target: null, batch: 1, schedule: () => 0.1, seed: 1 },
      mixer: dga.createMixer({ domains: ["a"], rule: { name: "uniform" } }),
    });
  const never = new AbortController().signal;
  const saved = trainer();
  const checkpoint = await saved.save();
  saved.dispose();
  const source = { batchOf: [[0]], tokensOf: [0] };
  const optimizer = { step: [core.zeros([parameters.value.size]), 0.1, {}], dispose: null };
  return {
    tokenizer: {
      make: () => tokenizer,
      calls: { encode: [text], encodeBlocks: [text, () => {}], decode: [[1, 2]], toJSON: null },
    },
    windows: { make: () => windows, calls: source },
    rows: { make: () => data.rowsOf("a", rows), calls: source },
    examples: { make: () => data.examplesOf("a", windows.batchOf([0, 1])), calls: source },
    sampler: {
      make: () => data.createSampler({ domains: [windows, windows], seed: 1 }),
      calls: {
        prepare: [half],
        draw: [half, 2],
        drawFrom: [0, 1],
        seen: [0],
        epochs: [0],
        tokens: null,
        state: null,
        restore: [sampler.state()],
      },
    },
    tokenWriter: {
      make: () => data.tokenWriter(300, 256),
      calls: { append: [[1]], end: null, document: [[1]], finish: null },
    },
    schedule: {
      make: () => ({ call: nn.createSchedule({ name: "cosine", lr: 1, steps: 3 }) }),
      calls: { call: [0] },
    },
    arena: {
      make: () => nn.arenaLike(parameters),
      calls: { of: [parameters.list[0]], dispose: null },
    },
    sgd: { make: () => nn.sgd(parameters, { momentum: 0.5 }), calls: optimizer },
    adamw: { make: () => nn.adamw(parameters), calls: { ...optimizer, preconditioner: null } },
    ...Object.fromEntries(
      Object.entries(validOptions).map(([name, options]): [string, Methods] => {
        const rule = dga.createRule(options);
        const domains = kit.names(3);
        const [signal] = fc.sample(kit.signal(3, { mild: true }), { numRuns: 1, seed: 1 });
        // The library calls memoryFault itself, with a memory whose names and lengths it has checked.
        const make = (): object => ({ ...rule, memoryFault: null });
        return [`rule ${name}`, { make, calls: { init: [domains], update: [rule.init(domains), signal] } }];
      }),
    ),
    trainer: {
      make: trainer,
      calls: {
        step: null,
        evaluate: [windows, 8, never],
        heldOut: [never],
        weights: null,
        seen: [0],
        save: null,
        restore: [checkpoint],
        dispose: null,
      },
    },
  };
}

const entries: { readonly [entry: string]: object } = {
  ...{ nn, data, dga, node: files, export: taken, testing: kit },
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "arguments-"));
  await core.init({ backend: "cpu", threads: 1 });
  calls = await validCalls();
  methods = await validMethods();
});
afterAll(async () => {
  await core.shutdown();
  rmSync(folder, { recursive: true });
});

const junk: readonly unknown[] = [undefined, null, 3, "x", {}, [], [null], () => 1, Promise.resolve(1)];
const shown = (value: unknown): string =>
  typeof value === "function" ? "a function" : JSON.stringify(value);

/** Why a call fails, or null; with `typed`, what is a GradmixError of one line counts as no failure. */
async function refusal(
  entry: string,
  name: string,
  args: readonly unknown[],
  typed = false,
): Promise<string | null> {
  return refusalOf(entries[entry], name, args, typed);
}

async function refusalOf(
  owner: object,
  name: string,
  args: readonly unknown[],
  typed: boolean,
): Promise<string | null> {
  try {
    const result: unknown = Reflect.apply(Reflect.get(owner, name), owner, args);
    const isGenerator = typeof result === "object" && result !== null && "next" in result;
    await (isGenerator ? Reflect.apply(result.next as () => unknown, result, []) : result);
    return null;
  } catch (error) {
    return typed && error instanceof core.GradmixError && !error.message.includes("\n")
      ? null
      : String(error);
  }
}

describe.each(Object.keys(entries))("gradmix/%s", (entry) => {
  test("the list has every function", () => {
    const functions = Object.entries(entries[entry]).flatMap(([name, value]) =>
      typeof value === "function" ? [name] : [],
    );
    expect(functions.filter((name) => !Object.hasOwn(calls[entry], name))).toEqual([]);
  });

  test("the calls of the list are valid, but for those that would need more than is here", async () => {
    const failed: string[] = [];
    for (const [name, args] of Object.entries(calls[entry])) {
      const message = await refusal(entry, name, args);
      if (message !== null) failed.push(`${name}: ${message}`);
    }
    expect(failed.map((line) => line.split(":")[0])).toEqual(
      {
        data: ["loadTokenizer", "openTokenizer", "openTokens"],
        dga: ["createTrainer"],
        export: ["mixtureOfRun"],
      }[entry] ?? [],
    );
  });

  test("any value in place of an argument is accepted, or refused with a typed error of one line", async () => {
    const wrong: string[] = [];
    for (const [name, args] of Object.entries(calls[entry]))
      for (const slot of args.keys())
        for (const bad of junk) {
          // A file of this name could be written.
          if (entry === "node" && slot === 0 && typeof bad === "string") continue;
          const message = await refusal(entry, name, args.with(slot, bad), true);
          if (message !== null) wrong.push(`${name}, argument ${slot} = ${shown(bad)}: ${message}`);
        }
    expect(wrong).toEqual([]);
  });
});

test("the table of methods has every method", () => {
  for (const [name, { make, calls }] of Object.entries(methods)) {
    const functions = Object.entries(make()).flatMap(([key, value]) =>
      typeof value === "function" ? [key] : [],
    );
    expect(Object.keys(calls).sort(), name).toEqual(functions.sort());
  }
});

test("any value in place of an argument of a method is accepted, or refused with a typed error of one line", async () => {
  const wrong: string[] = [];
  for (const [name, { make, calls }] of Object.entries(methods))
    for (const [method, args] of Object.entries(calls)) {
      const valid = await refusalOf(make(), method, args ?? [], false);
      if (valid !== null) wrong.push(`${name}.${method}: ${valid}`);
      for (const slot of args?.keys() ?? [])
        for (const bad of [...junk, -1, 0.5, NaN]) {
          const message = await refusalOf(make(), method, args!.with(slot, bad), true);
          if (message !== null) wrong.push(`${name}.${method}, argument ${slot} = ${shown(bad)}: ${message}`);
        }
    }
  expect(wrong).toEqual([]);
});

test("anything in place of a part of a mixture is exported or refused, in every format", () => {
  const parts: string[][] = [];
  const visit = (value: object, path: string[]): void => {
    for (const [name, part] of Object.entries(value)) {
      parts.push([...path, name]);
      if (typeof part === "object" && part !== null) visit(part as object, [...path, name]);
    }
  };
  visit(mixture, []);
  const wrong: string[] = [];
  for (const path of parts)
    for (const bad of [...junk, -1, 0.5, NaN, Infinity, "", true, 1n, ["a"], new Map()]) {
      const changed = structuredClone(mixture);
      const owner = path.slice(0, -1).reduce<object>((at, name) => Reflect.get(at, name) as object, changed);
      Reflect.set(owner, path.at(-1), bad);
      for (const format of taken.exportFormats.keys())
        try {
          const { files: made, notes } = taken.exportMixture(changed, { format });
          const text = [...made.map((file) => file.text), ...notes].join("\n");
          if (/undefined|NaN|\[object/.test(text))
            wrong.push(`${path.join(".")} = ${String(bad)}: ${format}`);
        } catch (error) {
          if (!(error instanceof core.GradmixError) || error.message.includes("\n"))
            wrong.push(`${path.join(".")} = ${String(bad)}: ${String(error)}`);
        }
    }
  expect(wrong).toEqual([]);
});
