/** Making tensors with the type of the numbers, `data()`, and printed tensors. */
import { inspect } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from "vitest";
import {
  add,
  arange,
  broadcastTo,
  type DType,
  foldIn,
  key,
  matmul,
  mul,
  ones,
  randomBits,
  reshape,
  slice,
  square,
  sum,
  tensor,
  type Tensor,
  zeros,
} from "gradmix";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { type Memory, setCurrentMemory } from "#dist/tensor/memory.js";
import { empty } from "#dist/tensor/tensor.js";
import { backends } from "../backends/all.ts";
import { codeOf } from "../errors.ts";

describe.each(backends)("on $name", ({ name, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
    setCurrentMemory(backend);
  });
  afterAll(async () => {
    await backend.dispose();
  });

  it("data() returns an array of the tensor's type, also in the TypeScript types", async () => {
    expect(await tensor([1, 2]).data()).toEqual(Float32Array.of(1, 2));
    expect(await tensor(Int32Array.of(1, -2), [2, 1]).data()).toEqual(Int32Array.of(1, -2));
    expectTypeOf(tensor([1]).data()).resolves.toEqualTypeOf<Float32Array>();
    expectTypeOf(tensor(Int32Array.of(1)).data()).resolves.toEqualTypeOf<Int32Array>();
    expectTypeOf(tensor([1], [1], "i32").data()).resolves.toEqualTypeOf<Int32Array>();
    expectTypeOf(zeros([1]).view([1]).data()).resolves.toEqualTypeOf<Float32Array>();
    expectTypeOf(arange(2, "i32").data()).resolves.toEqualTypeOf<Int32Array>();
    expectTypeOf(randomBits(key(1), [1]).data()).resolves.toEqualTypeOf<Int32Array>();
    // A plain `Tensor` stands for both.
    const either: Tensor[] = [ones([1]), ones([1], "i32")];
    expectTypeOf(either[0].data()).resolves.toEqualTypeOf<Float32Array | Int32Array>();
    for (const t of either)
      expect(await t.data()).toBeInstanceOf(t.dtype === "f32" ? Float32Array : Int32Array);
  });

  it("a tensor of a known type and a tensor of any type can replace each other; a tensor of the other type cannot", async () => {
    const layer = (t: Tensor): Tensor => add(t, t);
    let h = zeros([2]);
    h = layer(h);
    h = add(h, 1);
    expectTypeOf(h.data()).resolves.toEqualTypeOf<Float32Array>();
    expect(await h.data()).toEqual(Float32Array.of(1, 1));
    const ofBoth = (t: Tensor): DType => t.dtype;
    expect([ofBoth(h), ofBoth(arange(2, "i32"))]).toEqual(["f32", "i32"]);
    // @ts-expect-error An i32 tensor where f32 is asked for.
    const wrong: Tensor<"f32"> = arange(2, "i32");
    expect(wrong.dtype).toBe("i32");
  });

  it("prints its elements, or how to read them", () => {
    const weight = tensor([[1, 2.5, -0.1], [4, 5e-7, NaN]]); // prettier-ignore
    weight.name = "weight";
    const printed = "Tensor weight f32[2, 3]\n[[1, 2.5, -0.1],\n [4, 5e-7, NaN]]";
    const waits = name.startsWith("webgpu");
    const want = waits ? "Tensor weight f32[2, 3] (on webgpu: `await tensor.data()` reads it)" : printed;
    expect(weight.toString()).toBe(want);
    expect(inspect(weight)).toBe(want);
    expect(inspect({ a: { b: { c: weight } } })).toContain("[Tensor weight f32[2, 3]]");
    expect(backend.readNow === undefined).toBe(waits);
    weight.dispose();
    expect(inspect(weight)).toBe("Tensor weight f32[2, 3] (disposed)");
  });
});

describe("the type of the numbers", () => {
  beforeAll(() => void setCurrentMemory(createReferenceBackend()));

  it.each<[DType, () => Tensor]>([
    ["i32", () => tensor(Int32Array.of(1, 2))],
    ["i32", () => tensor(Int32Array.of(1, 2), [2, 1])],
    ["i32", () => tensor([Int32Array.of(1, 2), Int32Array.of(3, 4)])],
    ["i32", () => tensor([[Int32Array.of(1)], [[2]]])],
    ["i32", () => tensor(Int32Array.of(1), [1], "i32")],
    ["i32", () => tensor([1, 2], [2], "i32")],
    ["i32", () => tensor(Uint16Array.of(1, 2), [2], "i32")],
    ["i32", () => tensor(Int32Array.of(), [0])],
    ["f32", () => tensor(Float32Array.of(1))],
    ["f32", () => tensor(Float64Array.of(0.1))],
    ["f32", () => tensor(Uint8Array.of(255))],
    ["f32", () => tensor([1, 2])],
    ["f32", () => tensor(3)],
    ["f32", () => tensor([Float32Array.of(1), [2]], [2])],
  ])("%s of %s", (dtype, make) => {
    expect(make().dtype).toBe(dtype);
  });

  it.each([
    [() => tensor(Int32Array.of(1), [1], "f32"), /an Int32Array is i32, and the requested type is f32; convert it with Float32Array.from/],
    [() => tensor(Float32Array.of(1), [1], "i32"), /a Float32Array is f32, and the requested type is i32; convert it with Int32Array.from/],
    [() => tensor([Int32Array.of(1), Float32Array.of(1)]), /a Float32Array is f32, and there are arrays of both types/],
    [() => tensor([[1], Float32Array.of(1)], [2], "i32"), /a Float32Array is f32, and the requested type is i32/],
    [() => tensor([Int32Array.of(1), [1.5]]), /element \[1, 0\] is 1.5, not an integer of 32 bits/],
  ])("%s is refused", (make, message) => {
    expect(codeOf(make)).toMatch(message);
    expect(codeOf(make)).toMatch(/^shape: tensor: /);
  }); // prettier-ignore
});

it("foldIn refuses what is no key, and streams that would share the numbers of another", () => {
  for (const bad of [7, undefined, null, [1], [1, 2, 3], [1, -1], [0.5, 1], "1"])
    expect(codeOf(() => foldIn(bad as never, 1))).toMatch(
      /^shape: foldIn: .* is not a key; make one with key\(seed\)/,
    );
  for (const bad of [0.5, NaN, -1, Infinity, 2 ** 53, "1", undefined])
    expect(codeOf(() => foldIn(key(1), bad as never))).toMatch(/^config: foldIn: the stream: /);
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.maxSafeNat(), (a, b) => {
      expect(foldIn(key(1), a).join() === foldIn(key(1), b).join()).toBe(a === b);
    }),
  );
});

describe("a printed tensor", () => {
  beforeAll(() => void setCurrentMemory(createReferenceBackend()));

  it.each<[() => Tensor, string]>([
    [() => tensor(0.1), "Tensor f32[] 0.1"],
    [() => tensor([]), "Tensor f32[0] []"],
    [() => zeros([2, 0]), "Tensor f32[2, 0]\n[[],\n []]"],
    [() => tensor(Int32Array.of(-123456789, 2)), "Tensor i32[2] [-123456789, 2]"],
    [() => tensor([1 / 3, -Infinity]), "Tensor f32[2] [0.3333333, -Infinity]"],
    [() => arange(64), `Tensor f32[64] [${Array.from({ length: 64 }, (_, i) => i).join(", ")}]`],
    [() => arange(65), "Tensor f32[65] [0, 1, 2, …, 62, 63, 64]"],
    [() => arange(8).view([2, 2, 2]), "Tensor f32[2, 2, 2]\n[[[0, 1],\n  [2, 3]],\n\n [[4, 5],\n  [6, 7]]]"],
    [() => arange(70).view([10, 7]), "Tensor f32[10, 7]\n[[0, 1, 2, …, 4, 5, 6],\n [7, 8, 9, …, 11, 12, 13],\n [14, 15, 16, …, 18, 19, 20],\n …,\n [49, 50, 51, …, 53, 54, 55],\n [56, 57, 58, …, 60, 61, 62],\n [63, 64, 65, …, 67, 68, 69]]"],
    [() => zeros([6, 11]), `Tensor f32[6, 11]\n[${Array.from({ length: 6 }, () => "[0, 0, 0, …, 0, 0, 0]").join(",\n ")}]`],
    [() => arange(4).view([2], 1), "Tensor f32[2] [1, 2]"],
  ])("%s", (make, want) => {
    expect(make().toString()).toBe(want);
  }); // prettier-ignore

  it("is short for every shape, and shows every element of small tensors in order", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 3 }), (shape) => {
        const t = empty(shape, "i32");
        t.write(Int32Array.from({ length: t.size }, (_, i) => i));
        const text = t.toString().replace(/^.*?\][ \n]?/, "");
        const shown = text.match(/\d+/g)?.map(Number) ?? [];
        expect(shown.length).toBeLessThanOrEqual(Math.max(64, 6 ** shape.length));
        if (t.size <= 64) expect(shown).toEqual(Array.from({ length: t.size }, (_, i) => i));
        expect(shown.at(-1)).toBe(t.size > 0 ? t.size - 1 : undefined);
        t.dispose();
      }),
      { numRuns: 50 },
    );
  });

  it("says why it cannot be read", () => {
    const backend = createReferenceBackend();
    const other: Memory | null = setCurrentMemory({
      ...backend,
      readNow: () => {
        throw new Error("the cable is loose");
      },
    });
    const t = ones([2]);
    setCurrentMemory(other);
    expect(t.toString()).toBe("Tensor f32[2] (cannot be read: the cable is loose)");
  });
});

it.each(backends)(
  "a tensor of a backend that was disposed cannot be read, written or used: $name",
  async ({ name, create }) => {
    const backend = await create();
    const other: Memory | null = setCurrentMemory(backend);
    const t = ones([2]);
    setCurrentMemory(other);
    await backend.dispose();
    const error = { code: "backend", message: expect.stringMatching(/dispose/) };
    await expect(t.data()).rejects.toMatchObject(error);
    expect(() => t.write([1, 2])).toThrow(expect.objectContaining(error));
    expect(() => add(t, t)).toThrow(expect.objectContaining(error));
    if (!name.startsWith("webgpu"))
      expect(t.toString()).toMatch(/^Tensor f32\[2\] \(cannot be read: .*dispose/);
    t.dispose();
  },
);

describe("the shape of a tensor", () => {
  beforeAll(() => void setCurrentMemory(createReferenceBackend()));

  it("is its own: a change of the list that was given, or of another tensor's shape, does not reach it", () => {
    const given = [2, 3];
    const made = [
      ...[zeros(given), empty(given), tensor([1, 2, 3, 4, 5, 6], given), randomBits(key(1), given)],
      ...[reshape(arange(6), given), arange(6).view(given), broadcastTo(tensor([1, 2, 3]), given)],
    ];
    const changed = zeros([2, 3]);
    const derived = [add(changed, 1), mul(changed, changed), reshape(changed, [2, 3]), square(changed)];
    for (const shape of [given, changed.shape as number[]]) shape[0] = 9;
    for (const t of [...made, ...derived]) expect(t.shape).toEqual([2, 3]);
  });

  it("is checked by every op, so that none reads beyond the elements", () => {
    const t = tensor([[1, 2], [3, 4]]); // prettier-ignore
    (t.shape as number[])[0] = 1000;
    for (const op of [
      () => add(t, t),
      () => sum(t),
      () => matmul(t, t),
      () => reshape(t, [2000]),
      () => slice(t, [500], [501]),
    ])
      expect(codeOf(op)).toMatch(
        /^shape: \w+: operand 0 has the shape \[1000, 2\] and 4 elements: its shape was changed/,
      );
  });
});
