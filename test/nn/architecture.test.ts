/** The description of a GPT against the parameters of a model, and against the shapes of the layers. */
import { expect, it } from "vitest";
import { createGPT, createParameters, resolveGPTConfig, toHuggingFace } from "gradmix/nn";
import { lastBlocks } from "gradmix/dga";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { architectureOf, gptSpecs, layersOf, pathOf } from "#dist/nn/architecture.js";
import { decodeSafetensors } from "#dist/nn/safetensors.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { sum } from "gradmix";
import { configs, numbers } from "./models.ts";
import { codeOf } from "../errors.ts";

it.each(configs)(
  "$preset: every parameter belongs to one layer, in the order of the forward pass",
  (given) => {
    setCurrentMemory(createReferenceBackend());
    const config = resolveGPTConfig(given);
    const { parameters } = createGPT(given);
    const layers = layersOf(architectureOf(config));
    expect(new Set(layers.map(pathOf)).size).toBe(layers.length);
    const names = layers.flatMap((layer) =>
      layer.bias ? [`${pathOf(layer)}.weight`, `${pathOf(layer)}.bias`] : [`${pathOf(layer)}.weight`],
    );
    expect(parameters.list.map(({ name }) => name)).toEqual(names);
    expect(parameters.specs).toEqual(gptSpecs(architectureOf(config)));
    for (const layer of layers) {
      const rows = layer.rows.reduce((a, b) => a + b, 0);
      const weight = parameters.byName.get(`${pathOf(layer)}.weight`);
      expect(weight?.shape).toEqual(layer.columns === null ? [rows] : [rows, layer.columns]);
      if (layer.bias) expect(parameters.byName.get(`${pathOf(layer)}.bias`)?.shape).toEqual([rows]);
    }
    // Before the blocks, each block in turn, after them.
    const places = layers.map(({ block }) =>
      block === null ? -1 : block === "after" ? config.layers : block,
    );
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(new Set(places).size).toBe(config.layers + 2);
  },
);

it.each(configs)(
  "$preset: packed layers are stored divided or whole, with every value once",
  async (given) => {
    setCurrentMemory(createReferenceBackend());
    const model = createGPT(given, { seed: 3 });
    const file = decodeSafetensors((await toHuggingFace(model)).get("model.safetensors") ?? new Uint8Array());
    const sorted = (values: readonly number[]): Float64Array => Float64Array.from(values).sort();
    const stored = [...file.values()].flatMap(({ data }) => [...data]);
    const own = (await Promise.all(model.parameters.list.map(numbers))).flat();
    expect(sorted(stored)).toEqual(sorted(own));
  },
);

it.each(configs)("$preset: the last blocks include the norm and the head after them", (given) => {
  setCurrentMemory(createReferenceBackend());
  const model = createGPT(given);
  const { layers } = model.config;
  const after = ["norm.", "head."];
  for (let count = 0; count <= layers; count++) {
    const places = [...after, ...Array.from({ length: count }, (_, i) => `blocks.${layers - 1 - i}.`)];
    const wanted = [...model.parameters.byName.keys()].filter((name) =>
      places.some((at) => name.startsWith(at)),
    );
    expect([...model.parameters.byName.keys()].filter(lastBlocks(model, count))).toEqual(wanted);
  }
  for (const count of [-1, 0.5, layers + 1, NaN])
    expect(codeOf(() => lastBlocks(model, count))).toBe(
      `config: lastBlocks: ${count} is not a number of blocks from 0 to ${layers}`,
    );
});

it("the blocks of a custom model come from its specs, rather than from names", () => {
  setCurrentMemory(createReferenceBackend());
  const spec = { shape: [1], init: { kind: "constant", value: 0 }, decay: false } as const;
  const parameters = createParameters(
    [
      { ...spec, name: "blocks.9.looks-like-one" },
      { ...spec, name: "a", block: 0 },
      { ...spec, name: "b", block: 1 },
      { ...spec, name: "c", block: "after" },
    ],
    0,
  );
  const model = { parameters, losses: () => sum(parameters.value, []) };
  const of = (count: number): string[] => [...parameters.byName.keys()].filter(lastBlocks(model, count));
  expect([0, 1, 2].map(of)).toEqual([["c"], ["b", "c"], ["a", "b", "c"]]);
  expect(codeOf(() => lastBlocks(model, 3))).toContain("from 0 to 2");
});
