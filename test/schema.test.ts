/** Each schema reads back what it wrote, and refuses a value with any broken part by the path of this part. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { savedBest } from "#dist/cli/best.js";
import { sampleFacts } from "#dist/cli/cluster-sample.js";
import { clustersDescription } from "#dist/cli/cluster-folder.js";
import { recordHead } from "#dist/cli/cluster-work.js";
import { watched } from "#dist/cli/epoch-watch.js";
import { savedContent } from "#dist/cli/text-witness.js";
import { doneLine } from "#dist/cli/prepare-work.js";
import { manifest } from "#dist/cli/prepared-folder.js";
import { savedRun } from "#dist/cli/run-folder.js";
import { samplerState } from "#dist/data/sampler.js";
import { savedState } from "#dist/dga/saved.js";
import { formatJson } from "#dist/json.js";
import { sessionSchema } from "#dist/mix/protocol.js";
import { huggingFaceJson } from "#dist/nn/huggingface/config.js";
import { shardIndex } from "#dist/nn/huggingface/weights.js";
import { savedOptimizer } from "#dist/nn/optimizer-state.js";
import { safetensorsHeader } from "#dist/nn/safetensors.js";
import { savedParts } from "#dist/nn/saved-arrays.js";
import { checkpointHeader } from "#dist/node/checkpoint-file.js";
import { metricsLine, runFacts, runWeights } from "#dist/runs/record.js";
import * as schema from "#dist/schema.js";
import { codeOf } from "./errors.ts";

const kinds = { null: null, string: "x y", number: -0.5, boolean: false, list: [[]], object: { "": [] } };
type Kind = keyof typeof kinds | "missing";

const kindOf = (value: unknown): Kind =>
  value === null ? "null" : Array.isArray(value) ? "list" : (typeof value as Kind);

/** The description of a part: its values, other kinds of values that fit, and its own parts. */
interface Model {
  readonly value: fc.Arbitrary<unknown>;
  readonly fits: readonly Kind[];
  /** Models by name or by number; of those alone. */
  readonly inside?: (value: unknown, key: string) => Model | null;
  readonly optional?: true;
  /** Others are refused. */
  readonly closed?: true;
}

const leaf = (value: fc.Arbitrary<unknown>): Model => ({ value, fits: [] });
const num = leaf(fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x || 0));
const cnt = leaf(fc.nat({ max: Number.MAX_SAFE_INTEGER }));
const str = leaf(fc.string());
const bool = leaf(fc.boolean());
const one = (...values: unknown[]): Model => leaf(fc.constantFrom(...values));
const free: Model = { value: fc.constant({ any: [1] }), fits: [...Object.keys(kinds), "missing"] as Kind[] };
const anyObject = leaf(fc.constant({ any: [1] }));
const either = (model: Model, ...fits: Kind[]): Model => ({ ...model, fits: [...model.fits, ...fits] });
const orNull = (model: Model): Model => ({
  ...either(model, "null"),
  value: fc.option(model.value, { freq: 1 }),
});
const orNothing = (model: Model): Model => either(orNull(model), "missing");
const fitsNothing = (model: Model): Model => either(model, "null", "missing");
/** Left out by half of the values. */
const may = (model: Model): Model => ({ ...fitsNothing(model), optional: true });
const name = fc.string({
  unit: fc.constantFrom("a", "B", "é", "_", "-", "3", " "),
  minLength: 1,
  maxLength: 6,
});

const list = (model: Model, length?: number): Model => ({
  value: fc.array(
    model.value,
    length === undefined ? { maxLength: 3 } : { minLength: length, maxLength: length },
  ),
  fits: [],
  inside: () => model,
});
const pair = (a: Model, b: Model): Model => ({
  value: fc.tuple(a.value, b.value),
  fits: [],
  inside: (_, key) => (key === "0" ? a : b),
});
const map = (model: Model): Model => ({
  value: fc
    .uniqueArray(fc.tuple(name, model.value), { maxLength: 3, selector: ([key]) => key })
    .map((members) => new Map(members)),
  fits: [],
  inside: () => either(model, "missing"),
});
const object = (fields: Readonly<Record<string, Model>>): Model => {
  const values = Object.fromEntries(Object.entries(fields).map(([key, { value }]) => [key, value]));
  const requiredKeys = Object.keys(fields).filter((key) => fields[key].optional !== true);
  return {
    value: fc.record(values, { requiredKeys }),
    fits: [],
    inside: (_, key) => fields[key] ?? null,
  };
};
const closed = (fields: Readonly<Record<string, Model>>): Model => ({ ...object(fields), closed: true });
/** One of several; the JSON decides which. */
const oneOf = (models: readonly Model[], which: (json: Record<string, unknown>) => number): Model => ({
  value: fc.oneof(...models.map(({ value }) => value)),
  fits: [],
  inside: (json, key) => models[which(json as Record<string, unknown>)].inside!(json, key),
});

interface Spot {
  readonly path: readonly string[];
  readonly model: Model;
}

/** All parts of a value, the whole first. */
function* spots(model: Model, json: unknown, path: readonly string[] = []): Generator<Spot> {
  yield { path, model };
  if (typeof json !== "object" || json === null || model.inside === undefined) return;
  for (const [key, member] of Object.entries(json)) {
    const inner = model.inside(json, key);
    if (inner !== null) yield* spots(inner, member, [...path, key]);
  }
}

/** The JSON with another value at a path; undefined takes the member away. */
function changed(json: unknown, [key, ...rest]: readonly string[], value: unknown): unknown {
  if (key === undefined) return value;
  const copy = (Array.isArray(json) ? [...(json as unknown[])] : { ...(json as object) }) as Record<
    string,
    unknown
  >;
  const inner = changed(copy[key], rest, value);
  if (inner === undefined) delete copy[key];
  else copy[key] = inner;
  return copy;
}

const shardFields = {
  ...{
    file: str,
    tokens: cnt,
    documents: cnt,
    textBytes: cnt,
    largest: num,
    size: cnt,
    modified: num,
    sha256: str,
  },
};
const shard = object(shardFields);
const jobFacts = { documents: cnt, tokens: cnt, textBytes: cnt, skipped: cnt, empty: may(cnt), firstEmpty: may(object({ path: str, from: cnt, line: cnt })) }; // prettier-ignore
const text = object({
  ...{ files: num, documents: num, tokens: num, heldOutTokens: num, heldOutBytes: num, sha256: str },
});
const costs = object({ alignment: num, guard: may(num), evaluation: num });
const evaluation = object({ target: orNothing(num), domains: map(num) });
const weights: Model = {
  value: fc
    .uniqueArray(fc.tuple(name, fc.integer({ min: 1, max: 9 })), {
      minLength: 1,
      maxLength: 3,
      selector: ([key]) => key,
    })
    .map(
      (all) => new Map(all.map(([key, part]) => [key, part / all.reduce((sum, [, own]) => sum + own, 0)])),
    ),
  fits: [],
  inside: () => either(num, "missing"),
};
const named = { final: weights, averaged: weights };
const scale = object({ scale: leaf(fc.integer({ min: -126, max: 126 }).map((e) => 2 ** e)), good: cnt });
const tensor = (dtype: Model): Model =>
  object({
    dtype,
    shape: list(cnt),
    data_offsets: {
      ...pair(cnt, cnt),
      value: fc.tuple(fc.nat(), fc.nat()).map(([from, size]) => [from, from + size]),
    },
  });

const stringOrNumber: Model = { value: fc.oneof(str.value, num.value), fits: ["string", "number"] };

/** Cases marked "otherwise" are read in another form than they are written. */
const cases: Readonly<Record<string, readonly [schema.Schema<unknown>, Model, "otherwise"?]>> = {
  "run.json": [
    runFacts,
    object({
      ...{ version: one(1), gradmix: str, node: str, backend: str, simd: str, precision: str, threads: num },
      ...{ rule: str, seed: num, dataSeed: num, steps: num, batch: num, context: num, parameters: num },
      ...{ vocabSize: num, repetitions: orNothing(num), evaluatedTokens: orNothing(num), cost: costs },
      ...{ domains: map(text), target: orNothing(text), targets: map(text), bases: orNothing(list(str)) },
      contamination: may(
        object({
          ...{
            words: cnt,
            heldOutDocuments: cnt,
            comparedDocuments: cnt,
            foundDocuments: cnt,
            documents: cnt,
          },
          ...{ lookedAt: cnt, dropped: bool },
          domains: map(object({ documents: cnt, copies: cnt, nearCopies: cnt })),
          examples: list(
            object({ domain: str, source: str, kind: one("copy", "near copy", "part"), words: str }),
          ),
        }),
      ),
    }),
  ],
  "a line of metrics.jsonl": [
    metricsLine,
    oneOf(
      [
        object({
          ...{ step: cnt, tokens: num, loss: num, gradNorm: orNothing(num), lossScale: may(num) },
          ...{ skipped: may(one(true)), lr: num, seconds: num, weights: map(num) },
          domains: map(object({ weight: may(num), loss: orNothing(num), tokens: num, epochs: num })),
          alignments: may(
            map(
              object({
                ...{ value: num, standardError: orNothing(num), norm: orNothing(num) },
                ...{ tokens: may(num), effectiveSize: may(num) },
              }),
            ),
          ),
          ...{ targetNorm: may(num), targetExamples: may(num) },
          guard: may(
            map(
              object({
                loss: num,
                reference: num,
                standardError: orNothing(num),
                multiplier: orNothing(num),
              }),
            ),
          ),
          ...{ evaluation: may(evaluation), evaluationSeconds: may(num) },
        }),
        object({ step: one(0), event: fitsNothing(one("start")), seconds: num, evaluation, cost: costs }),
        object({
          ...{ step: cnt, event: fitsNothing(one("resumed")) },
          changes: map(object({ from: stringOrNumber, to: stringOrNumber })),
        }),
      ],
      ({ event }) => (event === undefined ? 0 : event === "start" ? 1 : 2),
    ),
  ],
  "weights.json": [runWeights, object({ ...named, bases: may(object(named)) })],
  "prepared.json": [
    manifest,
    object({
      ...{
        version: one(1),
        tokenizer: object({ sha256: str, vocabSize: cnt, endOfText: cnt }),
        domains: map(shard),
        target: orNothing(shard),
      },
      targets: map(shard),
      made: object({
        ...{ gradmix: str, tokenizer: str, options: map(str), labels: list(str) },
        inputs: list(object({ path: str, size: num, modified: num })),
      }),
    }),
  ],
  "what of preparing is done": [
    doneLine,
    oneOf(
      [object({ job: fitsNothing(str), ...jobFacts }), object({ label: cnt, jobs: str, ...shardFields })],
      ({ job }) => (job === undefined ? 1 : 0),
    ),
    "otherwise",
  ],
  "clusters.json": [
    clustersDescription,
    object({
      ...{ version: one(1), seed: num },
      clusters: map(object({ documents: cnt, bytes: cnt, tokens: orNothing(cnt) })),
      files: list(object({ path: str, documents: cnt, sha256: str, ids: str })),
    }),
  ],
  "a sample of texts": [
    sampleFacts,
    object({
      ...{ ids: list(leaf(fc.integer({ min: -1 }))), numbers: list(cnt), rows: list(cnt) },
      facts: list(object({ path: str, documents: cnt, sha256: str })),
      skipped: cnt,
      ...{ empty: may(cnt), firstEmpty: may(str) },
    }),
  ],
  "the head of a fit": [
    recordHead,
    object({ name: str, numbers: list(num), arrays: list(pair(one("i32", "f32"), cnt)) }),
  ],
  "a run in a checkpoint": [
    savedRun,
    object({
      config: either(str, "object"),
      state: anyObject,
      lines: may(leaf(fc.integer({ min: -1 }))),
      unwritten: either(list(str), "missing"),
    }),
  ],
  "the text that a run read": [
    savedContent,
    object({ label: str, files: cnt, documents: cnt, tokens: cnt, sha256: str }),
  ],
  "the best step": [savedBest, object({ step: cnt, targetLoss: num, tokens: cnt, weights: str })],
  "domains that are watched": [watched, object({ last: list(pair(str, num)), warned: list(str) })],
  "parts of a checkpoint": [savedParts, object({ json: anyObject, arrays: anyObject })],
  "a trainer": [
    savedState,
    object({
      ...{ optimizer: either(str, "missing"), optimizerSteps: cnt, tokens: cnt, loss: orNothing(num) },
      ...{ gathered: free, lossScale: either(object({ step: scale, alignment: scale }), "missing") },
      ...{ directionScale: either(leaf(fc.constantFrom(1, 0.5, 1024)), "missing"), heldOut: free },
    }),
  ],
  "an optimizer": [savedOptimizer, object({ name: str, steps: cnt })],
  "a sampler": [
    samplerState(2, 7),
    object({ version: one(1), seed: one(7), draws: cnt, taken: list(cnt, 2), tokens: list(cnt, 2) }),
  ],
  "a session of the protocol": [
    sessionSchema,
    closed({
      ...{ version: one(1), setup: leaf(fc.constant({ step: 3 })), mixer: free, updatedAt: orNull(cnt) },
      multipliers: closed({
        asked: bool,
        shares: orNull(list(leaf(fc.double({ min: 0, max: 1, noNaN: true })))),
      }),
      last: orNull(
        closed({
          ...{ digest: str, changed: bool, updated: bool, measured: cnt },
          ignored: list(closed({ field: str, reason: str })),
        }),
      ),
    }),
  ],
  "the header of a safetensors file": [safetensorsHeader, map(tensor(str))],
  "the header of a checkpoint": [
    checkpointHeader,
    object({
      __metadata__: object({
        ...{
          format: one("gradmix-checkpoint-1"),
          step: may(one("3")),
          json: str,
          sha256: one("ab".repeat(32)),
        },
      }),
      x: either(tensor(one("F32", "F64", "I32", "U32", "U8", "I64")), "missing"),
    }),
    "otherwise",
  ],
  "config.json of a Llama": [
    huggingFaceJson,
    object({
      ...{ model_type: one("llama"), vocab_size: one(9), hidden_size: one(8), num_hidden_layers: one(1) },
      ...{ num_attention_heads: one(2), num_key_value_heads: may(one(1, 2)), intermediate_size: one(4) },
      ...{ max_position_embeddings: one(6), rms_norm_eps: may(one(1e-5)), rope_theta: may(one(500)) },
      ...{
        hidden_act: may(one("silu", "swish")),
        attention_bias: may(one(false)),
        mlp_bias: may(one(false)),
      },
      ...{ head_dim: may(one(4)), tie_word_embeddings: may(bool), quantization_config: one(null) },
      rope_parameters: may(object({ rope_type: may(one("default")), rope_theta: may(one(100)) })),
    }),
    "otherwise",
  ],
  "config.json of a GPT-2": [
    huggingFaceJson,
    object({
      ...{ model_type: one("gpt2"), vocab_size: one(9), n_embd: one(8), n_layer: one(1), n_head: one(2) },
      ...{ n_inner: may(one(4)), n_positions: one(6), layer_norm_epsilon: may(one(1e-5)) },
      ...{ activation_function: may(one("gelu_new")), scale_attn_weights: may(one(true)) },
      ...{ add_cross_attention: may(one(false)), tie_word_embeddings: may(bool) },
    }),
    "otherwise",
  ],
  "the files of a model's weights": [shardIndex, object({ weight_map: map(str) })],
};

const fault = schema.faultOf({ source: "x", code: "data" });
/** JSON as a program reads it. */
const jsonOf = (value: unknown): unknown => JSON.parse(formatJson(value));

test.each(Object.entries(cases).filter(([, [, , read]]) => read !== "otherwise"))(
  "%s is the same after reading and writing",
  (_, [of, model]) => {
    fc.assert(
      fc.property(model.value, (value) => {
        for (const parse of [schema.parse, schema.parseOrdered])
          expect(jsonOf(parse(of, formatJson(value, 2), { source: "x", code: "data" }))).toEqual(
            jsonOf(value),
          );
      }),
    );
  },
);

describe.each(Object.entries(cases))("%s", (_, [of, model]) => {
  test("is refused by the path of a broken part", () => {
    fc.assert(
      fc.property(
        model.value,
        fc.nat(),
        fc.constantFrom(...Object.keys(kinds), "missing"),
        (value, at, kind) => {
          const json = jsonOf(value);
          const all = [...spots(model, json)].slice(1);
          fc.pre(all.length > 0);
          const { path, model: part } = all[at % all.length];
          const before = path.reduce((inner, key) => (inner as Record<string, unknown>)[key], json);
          fc.pre(!part.fits.includes(kind as Kind) && kindOf(before) !== kind && before !== null);
          // Taken away from a list, an item is not missing: the next one stands there.
          fc.pre(
            kind !== "missing" ||
              !Array.isArray(
                path.slice(0, -1).reduce((inner, key) => (inner as Record<string, unknown>)[key], json),
              ),
          );
          const broken = changed(
            json,
            path,
            kind === "missing" ? undefined : kinds[kind as keyof typeof kinds],
          );
          expect(codeOf(() => schema.read(of, broken, fault))).toMatch(`data: x: ${path.join(".")} `);
        },
      ),
    );
  });

  test("is refused if it has another type, or an unknown field where only its own are allowed", () => {
    fc.assert(
      fc.property(model.value, fc.nat(), (value, at) => {
        const json = jsonOf(value);
        for (const [kind, other] of Object.entries(kinds))
          if (kind !== kindOf(json))
            expect(codeOf(() => schema.read(of, other, fault))).toMatch(/^data: x: is .*, not an object$/);
        const places = [...spots(model, json)].filter(
          ({ model: { closed: own }, path }) =>
            own === true &&
            kindOf(path.reduce((inner, key) => (inner as Record<string, unknown>)[key], json)) === "object",
        );
        if (places.length === 0) return;
        const path = [...places[at % places.length].path, "stranger"];
        expect(codeOf(() => schema.read(of, changed(json, path, 1), fault))).toMatch(
          `data: x: ${path.join(".")} is an unknown field`,
        );
      }),
    );
  });
});
