/** Starting and stopping a backend, and making tensors on it. */
import { afterEach, describe, expect, it } from "vitest";
import {
  arange,
  eye,
  full,
  init,
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
import { threefry2x32 } from "#dist/tensor/rng.js";
import { expectNear } from "../near.ts";

afterEach(async () => {
  delete process.env["GRADMIX_BACKEND"];
  await shutdown();
});

describe("init", () => {
  it("starts the backend that is named; a software adapter is no GPU, so the CPU otherwise", async () => {
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

  it("needs to be called, and refuses what it does not know", async () => {
    expect(() => tensor([1])).toThrow(/call `await init\(\)` first/);
    process.env["GRADMIX_BACKEND"] = "abacus";
    await expect(init()).rejects.toThrow(
      /no backend is called "abacus"; there are "auto", "cpu", "webgpu" and "reference"/,
    );
    await expect(init()).rejects.toThrow(/^GRADMIX_BACKEND: /);
    process.env["GRADMIX_BACKEND"] = "";
    expect((await init({ threads: 1 })).name).toBe("cpu");
    await shutdown();
    await expect(init({ backend: "cpu", threads: 0 })).rejects.toThrow(/threads/);
    await expect(init({ backend: "webgpu", threads: 2 })).rejects.toThrow(
      /^threads: an option of the backend "cpu"/,
    );
    await expect(init({ backend: "webgpu", simd: "plain" })).rejects.toThrow(
      /^simd: an option of the backend "cpu"/,
    );
    await expect(init({ device: {}, threads: 2 })).rejects.toThrow(/^threads: /);
    // @ts-expect-error No such precision.
    await expect(init({ precision: "f64" })).rejects.toThrow(/^precision: there is no "f64"/);
    for (const device of [{}, "gpu", null])
      // @ts-expect-error No devices.
      await expect(init({ device })).rejects.toThrow(/^device: not a GPUDevice/);
    expect(() => tensor([1])).toThrow(/init/);
  });

  it("calls at the same time come one after the other", async () => {
    const [first, second] = await Promise.all([
      init({ backend: "reference" }),
      init({ backend: "cpu", threads: 1 }),
    ]);
    expect([first.name, second.name]).toEqual(["reference", "cpu"]);
    expect(await sum(ones([3])).item()).toBe(3);
    expect(second.liveBytes).toBeGreaterThan(0);
    expect(first.liveBytes).toBe(0);
  });

  it("keeps to the memory limit", async () => {
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

  it("random numbers come from the key alone", async () => {
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
