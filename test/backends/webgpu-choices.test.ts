/** Decisions about a GPU, tested without one: whether it has usable tensor cores, which variants of a kernel may be used, and which choices are stored. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GradmixError } from "gradmix";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type AdapterInfo, tensorCoreFeatures, tensorCoresOf } from "#dist/backends/webgpu/adapter-info.js";
import { createNaps } from "#dist/backends/webgpu/naps.js";
import { tuningStore } from "#dist/backends/webgpu/host-node.js";
import {
  type Call,
  choiceLine,
  createTuner,
  differenceLine,
  type TunerDevice,
} from "#dist/backends/webgpu/tuning.js";
import type { View } from "#dist/tensor/memory.js";
import { expectNear } from "../near.ts";

describe("the use of tensor cores", () => {
  const matrix = { componentType: "f16", resultComponentType: "f32", M: 16, N: 16, K: 16 };
  const info = (least: number, most: number, configs = [matrix]): AdapterInfo => ({
    ...{ vendor: "", architecture: "", device: "", description: "", isFallbackAdapter: false },
    ...{ subgroupMinSize: least, subgroupMaxSize: most, subgroupMatrixConfigs: configs },
  });
  const all = new Set(["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"]);
  const limits = { maxComputeWorkgroupStorageSize: 32_768, maxComputeInvocationsPerWorkgroup: 1024 };

  test("a GPU with one subgroup size is used with this size", () => {
    expect(tensorCoresOf(all, info(32, 32), limits)).toEqual({ subgroup: 32 });
    expect(tensorCoresOf(all, info(64, 64), limits)).toEqual({ subgroup: 64 });
  });

  test("a GPU with several subgroup sizes is used with 32, if it can be requested", () => {
    const sized = new Set([...all, "subgroup-size-control"]);
    expect(tensorCoresOf(all, info(32, 64), limits)).toBe(null);
    expect(tensorCoresOf(sized, info(32, 64), limits)).toEqual({ subgroup: 32, sized: true });
    expect(tensorCoresOf(sized, info(8, 16), limits)).toBe(null);
    expect(tensorCoreFeatures({ sized: true })).toEqual([...sized]);
    expect(tensorCoreFeatures()).toEqual([...all]);
  });

  test.each([
    ["no f16", new Set([...all].slice(1)), info(32, 32), limits],
    ["too little workgroup memory", all, info(32, 32), { ...limits, maxComputeWorkgroupStorageSize: 16_384 }],
    ["too small workgroups", all, info(64, 64), { ...limits, maxComputeInvocationsPerWorkgroup: 256 }],
    ["matrices of other sizes", all, info(32, 32, [{ ...matrix, K: 8 }]), limits],
    ["f16 sums", all, info(32, 32, [{ ...matrix, resultComponentType: "f16" }]), limits],
    ["no matrices", all, info(32, 32, []), limits],
  ])("not used: %s", (_, features, found, storage) => {
    expect(tensorCoresOf(features, found, storage)).toBe(null);
  });
});

describe("the choice of a variant", () => {
  /** A call with one output; `ran` is called for each run, with the place that it writes. */
  const callOn = (inputs: readonly View[], out: View, ran: (variant: string, out: View) => void): Call => ({
    ...{ inputs, outputs: [out] },
    run: (variant) => ran(variant, out),
    on: (input, output) => callOn(inputs.map(input), output(out), ran),
  });
  /** A device on which a call writes one number, which says what ran. */
  function fake() {
    const memory = new Map<number, number>();
    let next = 1;
    const device: TunerDevice = {
      alloc: () => {
        memory.set(next, 0);
        return next++;
      },
      free: (buffer) => memory.delete(buffer),
      copy: (from, to) => memory.set(to.buffer, memory.get(from.buffer) ?? NaN),
      randomise: ({ buffer }) => memory.set(buffer, 0),
      done: () => Promise.resolve(),
      bits: ({ buffer }) => Promise.resolve(Int32Array.of(memory.get(buffer) ?? NaN)),
    };
    return { memory, device };
  }

  test("a bucket that cannot be timed keeps its default, and is not timed again", async () => {
    const { memory, device } = fake();
    const own = { buffer: device.alloc(1, "f32"), offset: 0, shape: [1], dtype: "f32" as const };
    let asked = 0;
    const full: TunerDevice = {
      ...device,
      alloc: () => {
        asked++;
        throw new GradmixError("memory", "no room");
      },
    };
    const differing: string[] = [];
    const store = {
      known: {},
      learn: () => {
        throw new Error("nothing was timed");
      },
      differs: (_: string, variant: string) => differing.push(variant),
    };
    const index = { ...own, dtype: "i32" as const };
    let runs = 0;
    const ran = (_: string, out: View): void => void memory.set(out.buffer, runs++);
    const tuner = createTuner(store, full);
    for (let step = 0; step < 3; step++) {
      expect(tuner.choose("k", ["safe", "other"], callOn([own], own, ran))).toBe("safe");
      expect(tuner.choose("indices", ["safe", "other"], callOn([index], own, ran))).toBe("safe");
      await tuner.settle();
    }
    expect(asked).toBe(2);

    // Nothing is compared with a default that gives different results.
    const restless = createTuner(store, device);
    for (let step = 0; step < 3; step++) {
      expect(restless.choose("k", ["safe", "other"], callOn([own], own, ran))).toBe("safe");
      await restless.settle();
    }
    expect(differing).toEqual(["safe"]);
    expect([...memory.keys()]).toEqual([own.buffer]);
  });

  test("a choice is written as one line of a log", () => {
    expect(choiceLine("k", "a", { a: 1.234, b: 2 })).toBe("webgpu: k takes a (1.23 ms; b 2.00)");
    expect(choiceLine("k", "a", { a: 1 })).toBe("webgpu: k takes a (1.00 ms)");
  });

  test("a variant with a different result is not used, and this is reported", async () => {
    const { memory, device } = fake();
    const learnt: [string, string, Readonly<Record<string, number>>][] = [];
    const differing: string[] = [];
    const tuner = createTuner(
      {
        known: {},
        learn: (...choice) => learnt.push(choice),
        differs: (...variant) => differing.push(differenceLine(...variant)),
      },
      device,
    );
    const own = { buffer: device.alloc(1, "f32"), offset: 0, shape: [1], dtype: "f32" as const };
    const call = callOn([], own, (variant, out) => {
      if (variant === "failing") throw new GradmixError("backend", "the shader does not compile");
      memory.set(out.buffer, (memory.get(out.buffer) ?? NaN) + (variant === "broken" ? 2 : 1));
    });
    expect(tuner.choose("k 1", ["safe", "broken", "failing", "other"], call)).toBe("safe");
    await tuner.settle();
    expect(differing).toEqual([
      "webgpu: k 1 cannot take broken: on this device its result is not that of the default variant, or not the same twice",
      "webgpu: k 1 cannot take failing: on this device it fails (the shader does not compile)",
    ]);
    expect(learnt.map(([bucket, , times]) => [bucket, Object.keys(times)])).toEqual([
      ["k 1", ["safe", "other"]],
    ]);
    expect(["safe", "other"]).toContain(tuner.chosen.get("k 1"));
    // The call's own memory is not touched, and nothing is left.
    expect([...memory]).toEqual([[own.buffer, 0]]);
  });
});

describe("the file of choices", () => {
  const before = process.env["GRADMIX_CACHE"];
  let folder = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "gradmix-choices-"));
    process.env["GRADMIX_CACHE"] = folder;
  });
  afterEach(() => {
    if (before === undefined) delete process.env["GRADMIX_CACHE"];
    else process.env["GRADMIX_CACHE"] = before;
    rmSync(folder, { recursive: true, force: true });
  });
  const file = (): string => join(folder, "webgpu-variants.json");
  const store = (adapter = "A GPU") => tuningStore({ adapter });

  test("keeps the choices of other devices and other processes", () => {
    const [mine, other] = [store(), store()];
    mine.learn("gemm a", "x", { x: 1 });
    other.learn("gemm b", "y", { y: 1 });
    store("Another GPU").learn("gemm a", "z", { z: 1 });
    expect(store().known).toEqual({ "gemm a": "x", "gemm b": "y" });
    expect(store("Another GPU").known).toEqual({ "gemm a": "z" });
    expect(readdirSync(folder)).toEqual(["webgpu-variants.json"]);
  });

  test.each([
    "",
    "no JSON",
    "[]",
    "null",
    "3",
    '{"A GPU, variants 2":"text"}',
    '{"A GPU, variants 2":[1,2]}',
  ])("a file that holds %j counts as empty, and is replaced", (text) => {
    writeFileSync(file(), text);
    expect(store().known).toEqual({});
    store().learn("gemm a", "x", { x: 1 });
    expect(store().known).toEqual({ "gemm a": "x" });
    expect(() => JSON.parse(readFileSync(file(), "utf8")) as unknown).not.toThrow();
  });

  test("a file that cannot be written leaves no partial file", () => {
    process.env["GRADMIX_CACHE"] = join(file(), "below a file");
    writeFileSync(file(), "{}");
    store().learn("gemm a", "x", { x: 1 });
    expect(store().known).toEqual({});
    expect(readdirSync(folder)).toEqual(["webgpu-variants.json"]);
  });
});

describe("sleeps before waits", () => {
  test("take most of the time of earlier waits, once it is known", () => {
    const naps = createNaps();
    expect(naps.before(10)).toBe(0);
    naps.took(10, 100);
    expect(naps.before(10)).toBe(0);
    naps.took(10, 90);
    expectNear(naps.before(10), 72, 1e-2);
    expect(naps.before(11)).toBe(0);
    naps.took(5, 1);
    naps.took(5, 1);
    expect(naps.before(5)).toBe(0);
  });

  test("do not become longer through one long interruption", () => {
    const naps = createNaps();
    // A step takes 50 ms, however long is slept before its result.
    const step = (stall = 0): number => {
      const took = Math.max(50, naps.before(7)) + stall;
      naps.took(7, took);
      return took;
    };
    for (let i = 0; i < 4; i++) expect(step()).toBe(50);
    expect(step(25_000)).toBe(25_050);
    for (let i = 0; i < 20; i++) expect(step()).toBe(50);
  });

  test("become shorter if the steps become faster", () => {
    const naps = createNaps();
    for (let i = 0; i < 4; i++) naps.took(7, 100);
    let took = 100;
    for (let i = 0; i < 20; i++) {
      took = Math.max(10, naps.before(7));
      naps.took(7, took);
    }
    expect(took).toBeLessThan(12);
  });
});
