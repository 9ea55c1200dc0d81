/** Starting and stopping a backend, and making tensors on it. */
import { afterEach, describe, expect, it } from "vitest";
import {
  arange,
  eye,
  full,
  init,
  type InitOptions,
  key,
  ones,
  randomBits,
  randomNormal,
  randomUniform,
  shutdown,
  sum,
  tensor,
  zeros,
} from "gradmix";
import { missingVectors } from "#dist/backends/cpu/index.js";
import { threefry2x32 } from "#dist/tensor/rng.js";
import { expectNear } from "../near.ts";

afterEach(async () => {
  delete process.env["GRADMIX_BACKEND"];
  await shutdown();
});

describe("init", () => {
  it('starts the named backend; "auto" does not count a software adapter as a GPU, and starts the CPU', async () => {
    expect((await init({ backend: "reference" })).name).toBe("reference");
    expect((await init({ threads: 1 })).name).toBe("cpu");
    if (process.env["GRADMIX_WEBGPU"] !== "hardware") {
      expect((await init({ backend: "auto" })).name).toBe("cpu");
      expect((await init()).name).toBe("cpu");
    }
    process.env["GRADMIX_BACKEND"] = "reference";
    expect((await init()).name).toBe("reference");
    expect((await init({ backend: "cpu", threads: 2, simd: "plain" })).capabilities).toMatchObject({
      threads: 2,
      simd: "plain",
    });
  });

  it("has vectors of 128 bits, and wider ones on request where there are any", async () => {
    const bits = async (options: InitOptions): Promise<unknown> =>
      (await init({ ...options, backend: "cpu", threads: 1 })).capabilities.vectorBits;
    const missing = missingVectors();
    expect(await bits({})).toBe(128);
    expect(await bits({ vectorBits: "auto" })).toBe(missing === null ? 256 : 128);
    expect(await bits({ vectorBits: "auto", simd: "plain" })).toBe(128);
    expect(
      (await init({ backend: "reference", vectorBits: "auto" })).capabilities.vectorBits,
    ).toBeUndefined();
    if (missing === null) expect(await bits({ vectorBits: 256 })).toBe(256);
    else
      await expect(init({ vectorBits: 256 })).rejects.toMatchObject({
        code: "backend",
        message: `cpu: there are no 256-bit vectors: ${missing}; use vectorBits = 128`,
      });
  });

  it("must be called before tensors are made, and refuses unknown names and options", async () => {
    expect(() => tensor([1])).toThrow(/call `await init\(\)` first/);
    process.env["GRADMIX_BACKEND"] = "abacus";
    await expect(init()).rejects.toThrow(
      /there is no backend "abacus"; the backends are "auto", "cpu", "webgpu" and "reference"/,
    );
    await expect(init()).rejects.toThrow(/^GRADMIX_BACKEND: /);
    process.env["GRADMIX_BACKEND"] = "";
    expect((await init({ threads: 1 })).name).toBe("cpu");
    await shutdown();
    await expect(init({ backend: "cpu", threads: 0 })).rejects.toThrow(/threads/);
    await expect(init({ backend: "webgpu", threads: 2 })).rejects.toThrow(
      /^threads: only the backend "cpu" has this option/,
    );
    await expect(init({ backend: "webgpu", simd: "plain" })).rejects.toThrow(
      /^simd: only the backend "cpu" has this option/,
    );
    await expect(init({ backend: "webgpu", vectorBits: 256 })).rejects.toThrow(
      /^vectorBits: only the backend "cpu" has this option/,
    );
    await expect(init({ simd: "plain", vectorBits: 256 })).rejects.toMatchObject({
      code: "config",
      message: "vectorBits: 256-bit vectors need relaxed SIMD, not plain",
    });
    await expect(init({ backend: "cpu", urls: {} })).rejects.toThrow(
      /^init: urls: this option is only for browsers; /,
    );
    for (const name of ["reference", "webgpu"]) {
      process.env["GRADMIX_BACKEND"] = name;
      for (const [option, value] of [
        ["threads", 2],
        ["simd", "plain"],
        ["vectorBits", 256],
      ])
        await expect(init({ [option as string]: value })).rejects.toThrow(
          `${option}: only the backend "cpu" has this option; leave it out with the backend "${name}", which GRADMIX_BACKEND sets`,
        );
    }
    process.env["GRADMIX_BACKEND"] = "cpu";
    await expect(init({ precision: "f16" })).rejects.toThrow(
      'precision: "f16" needs the backend "webgpu", not "cpu", which GRADMIX_BACKEND sets',
    );
    process.env["GRADMIX_BACKEND"] = "";
    // @ts-expect-error No such precision.
    await expect(init({ precision: "f64" })).rejects.toThrow(/^init: precision: "f64" is not known/);
    for (const device of [{}, "gpu", null])
      // @ts-expect-error No devices.
      await expect(init({ device })).rejects.toThrow(/^init: device: .* must be a GPUDevice/);
    expect(() => tensor([1])).toThrow(/init/);
  });

  it("keeps the running backend and its tensors if it refuses the options of another one", async () => {
    await init({ backend: "cpu", threads: 1 });
    const kept = ones([3]);
    process.env["GRADMIX_BACKEND"] = "abacus";
    await expect(init()).rejects.toThrow(/there is no backend "abacus"/);
    process.env["GRADMIX_BACKEND"] = "";
    const refused: InitOptions[] = [
      { backend: "webgpu", threads: 2 },
      { backend: "reference", simd: "plain" },
      { backend: "cpu", precision: "f16" },
      { simd: "plain", vectorBits: 256 },
      { threads: 0 },
    ];
    for (const options of refused) await expect(init(options)).rejects.toMatchObject({ code: "config" });
    expect(await sum(kept).item()).toBe(3);
    await shutdown();
  });

  it("runs concurrent calls one after the other", async () => {
    const [first, second] = await Promise.all([
      init({ backend: "reference" }),
      init({ backend: "cpu", threads: 1 }),
    ]);
    expect([first.name, second.name]).toEqual(["reference", "cpu"]);
    const three = sum(ones([3]));
    expect(await three.item()).toBe(3);
    expect(second.liveBytes).toBeGreaterThan(0);
    expect(three.memory).toBe(second);
    expect(first.liveBytes).toBe(0);
  });

  it("respects the memory limit", async () => {
    await init({ backend: "reference", memoryLimit: 100 });
    expect(() => zeros([26])).toThrow(/104 bytes/);
    expect(await sum(ones([20])).item()).toBe(20);
  });
});

describe("creation", () => {
  it("constants and ranges", async () => {
    await init({ backend: "reference" });
    expect([...(await full([2, 2], 1.5).data())]).toEqual([1.5, 1.5, 1.5, 1.5]);
    expect([...(await ones([2], "i32").data())]).toEqual([1, 1]);
    expect([...(await eye(2).data())]).toEqual([1, 0, 0, 1]);
    expect([...(await arange(3, "i32").data())]).toEqual([0, 1, 2]);
    expect(zeros([0, 3]).size).toBe(0);
    expect(() => tensor([1, 2], [3])).toThrow(/2 values do not fill the shape \[3\]/);
    expect(() => zeros([1.5])).toThrow(/is not a shape/);
  });

  it("nested lists give the shape; their innermost lists may be typed arrays", async () => {
    await init({ backend: "reference" });
    const shaped = async (...args: Parameters<typeof tensor>) => {
      const t = tensor(...args);
      return { shape: t.shape, data: [...(await t.data())] };
    };
    expect(await shaped([[1, 2], [3, 4]])).toEqual({ shape: [2, 2], data: [1, 2, 3, 4] }); // prettier-ignore
    expect(await shaped([[[1], [2]], [[3], [4]]])).toEqual({ shape: [2, 2, 1], data: [1, 2, 3, 4] }); // prettier-ignore
    expect(await shaped([Int32Array.of(1, 2), [3, 4]], [4], "i32")).toEqual({
      shape: [4],
      data: [1, 2, 3, 4],
    });
    expect(await shaped(7)).toEqual({ shape: [], data: [7] });
    expect(await shaped([])).toEqual({ shape: [0], data: [] });
    expect(await shaped([[], []])).toEqual({ shape: [2, 0], data: [] });
  });

  it("lists that are ragged or hold other values than numbers are refused with the index", async () => {
    await init({ backend: "reference" });
    const refusals: [unknown, RegExp][] = [
      [[[1, 2], [3]], /^tensor: element \[1\] has 1 elements, its neighbours have 2/],
      [[[1, 2], 3], /^tensor: element \[1\] is 3, its neighbours are lists/],
      [[[1, 2], [3, [4]]], /^tensor: element \[1, 1\] is a list, its neighbours are numbers/],
      [[[1, 2], [3, "4"]], /^tensor: element \[1, 1\] is "4", not a number/],
      [[1, null], /^tensor: element \[1\] is null, not a number/],
      [new BigInt64Array(2), /^tensor: element \[0\] is 0, not a number/],
      ["12", /^tensor: the data is "12", not a number/],
      [{}, /^tensor: the data is an object, not a number/],
    ]; // prettier-ignore
    const endless: unknown[] = [];
    endless.push(endless);
    refusals.push([endless, /^tensor: lists in lists go deeper than 32/]);
    for (const [data, message] of refusals) expect(() => tensor(data as number[])).toThrow(message);
  });

  it("refuses unknown types, values and sizes", async () => {
    await init({ backend: "reference" });
    // @ts-expect-error No such type.
    expect(() => full([1], 1.5, "int")).toThrow(
      /^full: the type "int" is not known; there are "f32" and "i32"/,
    );
    expect(() => full([1], 1.5, "i32")).toThrow(/^full: 1\.5 is not an integer of 32 bits/);
    expect(() => tensor([1, 2 ** 31], [2], "i32")).toThrow(/^tensor: element \[1\] is 2147483648/);
    expect(() => zeros([2], "i32").write([1, 0.5])).toThrow(/^write: element \[1\] is 0\.5/);
    expect(() => ones([2 ** 40, 2 ** 40])).toThrow(/^ones: .* has more elements than any memory/);
    expect(() => eye(1e9)).toThrow(/^eye: .*more elements/);
    expect(() => eye(1e6)).toThrow(/bytes/);
    expect(() => arange(2 ** 24 + 2)).toThrow(/^arange: f32 does not hold every integer/);
    expect(() => randomNormal(key(1), [NaN])).toThrow(/^randomNormal: \[NaN\] is not a shape/);
    expect(() => key(-1)).toThrow(/^key: seed/);
  });

  it("random numbers depend only on the key", async () => {
    await init({ backend: "reference" });
    const bits = await randomBits(key(7), [4]).data();
    const words = [...threefry2x32(0, 7, 0, 0), ...threefry2x32(0, 7, 0, 1)];
    expect([...bits].map((x) => x >>> 0)).toEqual(words);
    const uniform = [...(await randomUniform(key(7), [2000]).data())];
    expect(uniform.every((u) => u >= 0 && u < 1)).toBe(true);
    expectNear(uniform.reduce((a, b) => a + b, 0) / 2000, 0.5, 0.05);
    const normal = [...(await randomNormal(key(7), [2000]).data())];
    expectNear(normal.reduce((a, b) => a + b * b, 0) / 2000, 1, 0.15);
    expect([...(await randomNormal(key(7), [2000]).data())]).toEqual(normal);
  });
});
