/**
 * The GPT against PyTorch: logits, losses, gradients, their Gram matrix, and the optimizers, for both presets, through the
 * Hugging Face folder. test/golden/make_golden.py makes the numbers.
 */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { alignSink, gradients, scope, sumSink, tensor, type Tensor } from "gradmix";
import {
  adam,
  adamw,
  arenaLike,
  createGPT,
  decodeSafetensors,
  encodeSafetensors,
  fromHuggingFace,
  type GPT,
  sgd,
  type StoredTensor,
  toHuggingFace,
} from "gradmix/nn";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";

type Summary = Readonly<
  Record<string, { sum: number; norm: number; at: readonly number[]; values: readonly number[] }>
>;

interface Golden {
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: Readonly<Record<string, { shape: number[]; scale: number; shift: number }>>;
  readonly tokens: readonly number[][];
  readonly targets: readonly number[][];
  readonly logits: readonly number[];
  readonly losses: readonly number[];
  readonly gradients: Summary;
  readonly gram: readonly number[][];
  readonly optimizers: Readonly<
    Record<
      keyof typeof optimizers,
      {
        readonly lr: number;
        readonly options: object;
        readonly steps: readonly { loss: number; gradientNorm: number }[];
        readonly parameters: Summary;
      }
    >
  >;
}

const optimizers = { adamw, adam, sgd, nesterov: sgd } as const;
const optimizerNames = ["adamw", "adam", "sgd", "nesterov"] as const;

const load = (name: string): Golden =>
  JSON.parse(readFileSync(new URL(`../golden/${name}.json`, import.meta.url), "utf8")) as Golden;

/** The weights' formula, as in make_golden.py. */
function formula(t: number, { shape, scale, shift }: Golden["tensors"][string]): StoredTensor {
  const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
  for (let j = 0; j < data.length; j++) {
    let x = (Math.imul(j, 0x9e3779b1) + Math.imul(t, 0x85ebca6b) + 1) >>> 0;
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad) >>> 0;
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97) >>> 0;
    x = (x ^ (x >>> 15)) >>> 0;
    data[j] = shift + scale * (x / 2 ** 31 - 1);
  }
  return { shape, data };
}

/** A Hugging Face folder's files, as make_golden.py thinks of them. */
function folder({ config, tensors }: Golden): Map<string, Uint8Array> {
  const names = Object.keys(tensors).sort();
  return new Map([
    ["config.json", new TextEncoder().encode(JSON.stringify(config))],
    [
      "model.safetensors",
      encodeSafetensors(new Map(names.map((name, t) => [name, formula(t, tensors[name])]))),
    ],
  ]);
}

/** Numbers in the layout of the parameters, by their Hugging Face names and in those layouts. */
async function named(model: GPT, arena: Tensor): Promise<ReadonlyMap<string, StoredTensor>> {
  const twin = createGPT(model.config);
  twin.parameters.value.write(await arena.data());
  const files = await toHuggingFace(twin);
  twin.dispose();
  return decodeSafetensors(files.get("model.safetensors") ?? new Uint8Array());
}

const every = [
  {
    name: "reference f64",
    create: async (): Promise<Backend> => createReferenceBackend({ precision: "f64" }),
    tolerance: 1e-10,
  },
  ...backends.map((backend) => ({ ...backend, tolerance: 2e-5 })),
];

describe.each(every)("on $name", ({ create, tolerance }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(async () => {
    await backend.dispose();
  });
  beforeEach(() => void setCurrentMemory(backend));

  describe.each(["llama", "gpt2"])("%s", (preset) => {
    const golden = load(preset);
    const ids = (rows: readonly number[][]): Tensor =>
      tensor(rows.flat(), [rows.length, rows[0].length], "i32");
    let model: GPT;
    beforeEach(() => {
      model = fromHuggingFace(folder(golden));
      return () => model.dispose();
    });

    const close = (
      what: string,
      got: ArrayLike<number>,
      want: readonly number[],
      slack = tolerance,
    ): void => {
      const scale = Math.max(1, ...want.map(Math.abs));
      expect(got.length, what).toBe(want.length);
      for (const [i, w] of want.entries())
        if (!(Math.abs(got[i] - w) <= slack * scale)) expect.fail(`${what} ${i} is ${got[i]}, not ${w}`);
    };
    /** Tensors that went through a file of f32. */
    const closeSummary = (got: ReadonlyMap<string, StoredTensor>, want: Summary): void => {
      const slack = Math.max(tolerance, 1e-6);
      expect([...got.keys()].sort()).toEqual(Object.keys(want).sort());
      for (const [name, { sum, norm, at, values }] of Object.entries(want)) {
        const { data } = got.get(name) ?? expect.fail(name);
        const total = data.reduce((a, b) => a + b, 0);
        close(
          `${name}: sum, norm`,
          [total, Math.hypot(...data)],
          [sum, norm],
          slack * Math.sqrt(data.length),
        );
        close(
          `${name}: elements`,
          at.map((i) => data[i]),
          values,
          slack,
        );
      }
    };
    const losses = (): Tensor => model.losses({ inputs: ids(golden.tokens), targets: ids(golden.targets) });

    it("gives the logits and losses of the Hugging Face model", async () => {
      const [logits, each] = scope(() => [model.logits(ids(golden.tokens)), losses()]);
      close("logit", await logits.data(), golden.logits);
      close("loss", await each.data(), golden.losses);
    });

    it("gives its gradients, and the alignments and norms of the examples", async () => {
      const gradient = arenaLike(model.parameters);
      const sink = alignSink({
        examples: 3,
        direction: { first: 1 },
        groups: [0, 1, 3],
        total: { gradientOf: gradient.of },
      });
      gradients(losses, { parameters: model.parameters.list, sink });
      closeSummary(await named(model, gradient.arena), golden.gradients);
      const { gram } = golden;
      const { dots, squaredNorms, groupSquaredNorms, directionSquaredNorm } = await sink.result();
      close("dot", dots, [0, gram[0][1], gram[0][2]]);
      close("squared norm", squaredNorms, [gram[0][0], gram[1][1], gram[2][2]]);
      close("group", groupSquaredNorms, [gram[0][0], gram[1][1] + 2 * gram[1][2] + gram[2][2]]);
      close("direction", [directionSquaredNorm], [gram[0][0]]);
      sink.dispose();
      gradient.dispose();
    });

    it.each(optimizerNames)("gives the same steps of %s, with clipping and decay", async (name) => {
      const { lr, options, steps, parameters } = golden.optimizers[name];
      const optimizer = optimizers[name](model.parameters, options);
      const gradient = arenaLike(model.parameters);
      const sink = sumSink({ gradientOf: gradient.of });
      const counted = golden.targets.flat().filter((target) => target >= 0).length;
      for (const { loss, gradientNorm } of steps) {
        const each = gradients(losses, {
          parameters: model.parameters.list,
          sink,
          weights: golden.targets.map(() => 1 / counted),
        });
        const norm = optimizer.step(gradient.arena, lr);
        const total = Array.from(await each.data()).reduce((a, b) => a + b, 0);
        // torch divides by the norm + 1e-6 where it clips; elements of a step move by a little of that.
        close("loss", [total / counted], [loss], Math.max(tolerance, 2e-6));
        close("norm", [Math.sqrt(await norm.item())], [gradientNorm], Math.max(tolerance, 2e-6));
      }
      closeSummary(await named(model, model.parameters.value), parameters);
      optimizer.dispose();
      gradient.dispose();
    });

    it("writes the same folder that it read", async () => {
      const files = await toHuggingFace(model);
      const want = decodeSafetensors(folder(golden).get("model.safetensors") ?? new Uint8Array());
      const got = decodeSafetensors(files.get("model.safetensors") ?? new Uint8Array());
      expect(got).toEqual(want);
      const config: unknown = JSON.parse(new TextDecoder().decode(files.get("config.json")));
      expect(config).toMatchObject(golden.config);
    });
  });
});
