/** Parameters of any model as safetensors, in memory and in files: the same bits by name; what does not fit is refused and changes nothing. */
import * as nodeFs from "node:fs";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  createGPT,
  createParameters,
  decodeSafetensors,
  encodeSafetensors,
  loadParameters,
  type Parameters,
  type ParameterSpec,
  saveParameters,
  type StoredTensor,
} from "gradmix/nn";
import { readParameters, writeParameters } from "gradmix/node";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { codeOf } from "../errors.ts";
import { configs, numbers } from "./models.ts";

const normal = { kind: "normal", deviation: 1 } as const;
/** In an order of names that is not that of the arena, with padding between them and a name that an object would move. */
const specs: readonly ParameterSpec[] = [
  { name: "tower.gain", shape: [5], init: normal, decay: false },
  { name: "tower.weight", shape: [3, 7], init: normal, decay: true },
  { name: "7", shape: [1], init: normal, decay: false },
  { name: "__proto__", shape: [2, 2, 2], init: normal, decay: true },
];
const make = (seed: number): Parameters => createParameters(specs, seed);

describe.each(backends)("on $name", ({ create }) => {
  it("reproduces every bit, for any model", async () => {
    const backend = await create();
    setCurrentMemory(backend);
    const pairs = [
      [make(1), make(2)],
      ...configs.map((config) => [1, 2].map((seed) => createGPT(config, { seed }).parameters)),
    ];
    for (const [one, other] of pairs) {
      const want = await numbers(one.value);
      expect(await numbers(other.value)).not.toEqual(want);
      const bytes = await saveParameters(one);
      loadParameters(other, bytes);
      // The padding, which stays zero, included.
      expect(await numbers(other.value)).toEqual(want);
      const file = decodeSafetensors(bytes);
      expect([...file.keys()].sort()).toEqual([...one.byName.keys()].sort());
      for (const [name, p] of one.byName)
        expect(file.get(name)).toEqual({ shape: p.shape, data: Float32Array.from(await p.data()) });
    }
    await backend.dispose();
  });
});

describe("loading or saving is refused, and nothing is changed", () => {
  const whole = async (): Promise<Map<string, StoredTensor>> =>
    decodeSafetensors(await saveParameters(make(1)));
  const gain = (data: Float32Array): StoredTensor => ({ shape: [data.length], data });
  beforeEach(() => void setCurrentMemory(createReferenceBackend()));

  it.each<[string, (file: Map<string, StoredTensor>) => unknown]>([
    ['the tensor "tower.gain" is missing', (file) => file.delete("tower.gain")],
    [
      'the model has no parameter for the tensor "tower.bias"',
      (file) => file.set("tower.bias", gain(new Float32Array(3))),
    ],
    [
      '"tower.gain" has the shape [4]; the model\'s is [5]',
      (file) => file.set("tower.gain", gain(new Float32Array(4))),
    ],
    [
      '"tower.weight" has the shape [7, 3]; the model\'s is [3, 7]',
      (file) => file.set("tower.weight", { shape: [7, 3], data: new Float32Array(21) }),
    ],
    ['"tower.gain" has NaN at 4', (file) => file.set("tower.gain", gain(Float32Array.of(1, 2, 3, 4, NaN)))],
    [
      '"tower.gain" has -Infinity at 0',
      (file) => file.set("tower.gain", gain(Float32Array.of(-Infinity, 2, 3, 4, 5))),
    ],
  ])("%s", async (message, change) => {
    const file = await whole();
    change(file);
    const parameters = make(2);
    const before = await numbers(parameters.value);
    expect(codeOf(() => loadParameters(parameters, encodeSafetensors(file), "m"))).toBe(
      `data: m: ${message}`,
    );
    expect(await numbers(parameters.value)).toEqual(before);
  });

  it("a type that cannot be read, and a broken file", async () => {
    const bytes = await saveParameters(make(1));
    const text = new TextDecoder("latin1").decode(bytes);
    const integers = Uint8Array.from(text.replace('"F32"', '"I32"'), (c) => c.charCodeAt(0));
    const parameters = make(2);
    const before = await numbers(parameters.value);
    expect(codeOf(() => loadParameters(parameters, integers))).toMatch(
      /^data: the file: "[^"]+" has the type I32; F32, F16 and BF16 can be read$/,
    );
    for (const cut of [0, 7, 60, bytes.length - 1])
      expect(codeOf(() => loadParameters(parameters, bytes.subarray(0, cut)))).toMatch(/^data: the file: /);
    expect(await numbers(parameters.value)).toEqual(before);
  });

  it("values that are not finite are not saved, nor a name that the format reserves", async () => {
    const parameters = make(1);
    parameters.byName.get("tower.weight")?.view([1], 4).write([NaN]);
    await expect(saveParameters(parameters)).rejects.toThrow(
      'saveParameters: "tower.weight" has NaN at 4; lower the learning rate',
    );
    const reserved = createParameters([{ ...specs[0], name: "__metadata__" }], 1);
    await expect(saveParameters(reserved)).rejects.toThrow('a tensor cannot have the name "__metadata__"');
  });
});

describe("files", () => {
  let root = "";
  beforeEach(() => {
    setCurrentMemory(createReferenceBackend());
    root = mkdtempSync(join(tmpdir(), "gradmix-parameters-"));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  it("are written with missing folders, and read back; the bytes are the same as in memory", async () => {
    const path = join(root, "a", "b", "model.safetensors");
    const [one, other] = [make(1), make(2)];
    await writeParameters(path, other);
    await writeParameters(path, one);
    expect(readdirSync(join(root, "a", "b"))).toEqual(["model.safetensors"]);
    expect(new Uint8Array(readFileSync(path))).toEqual(await saveParameters(one));
    readParameters(path, other);
    expect(await numbers(other.value)).toEqual(await numbers(one.value));
  });

  it("an error names the path, and an existing file is kept", async () => {
    const path = join(root, "model.safetensors");
    const parameters = make(1);
    expect(codeOf(() => readParameters(path, parameters))).toBe(
      `io: ${path}: cannot be read (no such file or folder)`,
    );
    writeFileSync(path, "not a model");
    expect(codeOf(() => readParameters(path, parameters))).toMatch(`data: ${path}: `);
    await expect(writeParameters(join(path, "x"), parameters)).rejects.toMatchObject({ code: "io" });
    parameters.value.write(new Float32Array(parameters.value.size).fill(NaN));
    await expect(writeParameters(path, parameters)).rejects.toMatchObject({ code: "numeric" });
    expect(nodeFs.readFileSync(path, "utf8")).toBe("not a model");
  });
});
