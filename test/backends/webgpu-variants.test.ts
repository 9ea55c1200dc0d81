/** Variants of a kernel give the same bits; the fastest is chosen by timing, stored, and read again. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { mapInputs } from "#dist/backends/kernels/check.js";
import type { KernelParams } from "#dist/backends/kernels/index.js";
import type { View } from "#dist/tensor/memory.js";
import { computesRight } from "#dist/backends/self-check.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import type { FoundDevice } from "#dist/backends/webgpu/adapter-info.js";
import { createNodeDevice, createNullDevice, tuningStore } from "#dist/backends/webgpu/host-node.js";
import { createWebgpuBackend, type WebgpuBackend, type WebgpuOptions } from "#dist/backends/webgpu/index.js";
import { sharesOf } from "#dist/backends/webgpu/kernels/gemm.js";
import { floatTileNames } from "#dist/backends/webgpu/kernels/gemm-segmented-tiles.js";
import { tensorTileNames } from "#dist/backends/webgpu/kernels/gemm-tensor.js";
import { tileNames } from "#dist/backends/webgpu/kernels/gemm-tiled.js";
import { cases } from "./cases.ts";
import { sharedDevice } from "./device.ts";
import { difference, f, i, type Operand, out, outputsOf, runCase, values } from "./harness.ts";

const off = process.env["GRADMIX_WEBGPU"] === "off";
const open: Backend[] = [];
afterEach(async () => {
  for (const backend of open.splice(0)) await backend.dispose();
});
const start = async (options: Partial<WebgpuOptions>): Promise<WebgpuBackend> => {
  const { device, adapter } = await sharedDevice();
  const backend = createWebgpuBackend({ device, adapter, ...options });
  open.push(backend);
  return backend;
};

const params = (
  more: Partial<KernelParams["gemm"]> & { m: number; n: number; k: number },
): KernelParams["gemm"] => ({
  ...{ transA: false, transB: false, batch: 1, strideA: 0, strideB: 0, strideC: 0 },
  ...{ alpha: 1, accumulate: false, activation: "none" },
  ...more,
});

async function product(
  backend: Backend,
  p: KernelParams["gemm"],
  round = (x: number): number => x,
): Promise<Float32Array> {
  const place = (data: number[]) => {
    const buffer = backend.alloc(data.length, "f32");
    backend.write(buffer, 0, data.map(round));
    return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
  };
  const [a, b, c] = [values(p.m * p.k, 1), values(p.k * p.n, 2), values(p.m * p.n, 3)].map(place);
  if (a === undefined || b === undefined || c === undefined) throw new Error("three operands");
  backend.run("gemm", p, { a, b }, { c });
  const out = await backend.read(c.buffer, 0, p.m * p.n);
  for (const { buffer } of [a, b, c]) backend.free(buffer);
  return Float32Array.from(out);
}

const LAYOUTS = ["NN", "NT", "TN", "TT"];
/** One variant for the shapes below. */
const always = (variant: string): NonNullable<WebgpuOptions["tuning"]> => ({
  known: Object.fromEntries(LAYOUTS.map((layout) => [`gemm ${layout} 1x128x128x128`, variant])),
  learn: () => {
    throw new Error("nothing is left to time");
  },
});

describe.skipIf(off)("variants", () => {
  test.each(LAYOUTS)("all tiles give the same bits, whole and with ragged edges (%s)", async (layout) => {
    for (const [m, n, k] of [
      [128, 128, 128],
      // With vectors of four, and without.
      [132, 148, 100],
      [131, 150, 101],
    ] as const) {
      const p = params({ m, n, k, transA: layout[0] === "T", transB: layout[1] === "T" });
      const oracle = await product(createReferenceBackend({ precision: "f64" }), p);
      let first: Float32Array | null = null;
      for (const tile of tileNames) {
        const found = await product(await start({ software: false, tuning: always(tile) }), p);
        first ??= found;
        expect({ tile, found }).toEqual({ tile, found: first });
      }
      first?.forEach((value, i) => expect(Math.abs(value - (oracle[i] ?? NaN))).toBeLessThan(1e-4));
      await Promise.all(open.splice(0).map((backend) => backend.dispose()));
    }
  });

  // 130 × 100: blocks of 64 that a larger tile has beyond W, and ranges of segments; 132 × 100 by fours.
  test.each([130, 132])(
    "all tiles of the segmented weight gradient give the same bits (%i × 100)",
    async (m) => {
      const ends = [0, 33, 33, 70, 71, 150];
      const c = {
        name: "tiles",
        params: {
          ...{ rows: 150, m, n: 100, segmentCount: 5, groupCount: 0 },
          ...{ targetSegments: 0, firstAccumulated: 1, accumulate: true },
        },
        inputs: {
          ...{ a: f(values(150 * m, 1)), b: f(values(150 * 100, 2)), segments: i(ends) },
          v: f(values(100 * m, 3)),
        },
        outputs: { total: f(values(100 * m, 4)), dots: out(5), sumsq: out(5), vSumsq: out(1) },
        scale: 20,
      };
      const wanted = await runCase(createReferenceBackend({ precision: "f64" }), "gemmSegmented", c, 0);
      const bucket = "gemmSegmented 4x128x128x128";
      const learn = (): void => {
        throw new Error("nothing is left to time");
      };
      const run = async (tile: string) =>
        runCase(
          await start({ software: false, tuning: { known: { [bucket]: tile }, learn } }),
          "gemmSegmented",
          c,
          0,
        );
      const [least, ...larger] = floatTileNames;
      const first = await run(least);
      expect(difference("gemmSegmented", c, first, wanted)).toBe(null);
      for (const tile of larger) expect({ tile, found: await run(tile) }).toEqual({ tile, found: first });

      // Timed, on copies of the segments.
      const learned: string[] = [];
      const tuning = { known: {}, learn: (name: string, tile: string) => learned.push(`${name} ${tile}`) };
      const timed = await start({ software: false, tuning });
      expect(await runCase(timed, "gemmSegmented", c, 0)).toEqual(first);
      expect(learned.join()).toMatch(/^gemmSegmented 4x128x128x128 (64x64|128x64|128x128)$/);
      expect(timed.liveBytes).toBe(0);
    },
  );

  test("a long k is divided into shares that depend only on the shape, and their sum is right", async () => {
    const p = params({ m: 40, n: 30, k: 1500, transA: true });
    expect(sharesOf(p)).toBe(2);
    expect(sharesOf({ ...p, k: 1000 })).toBe(1);
    expect(sharesOf({ ...p, m: 4096, n: 4096 })).toBe(1);
    // A weight gradient of a GPT of 124M: 36 tiles of 128 × 128 would leave most of a large GPU idle.
    expect(sharesOf({ ...p, m: 768, n: 768, k: 8192 })).toBe(12);
    const oracle = await product(createReferenceBackend({ precision: "f64" }), p);
    const found = await product(await start({ software: false }), p);
    found.forEach((value, i) => expect(Math.abs(value - (oracle[i] ?? NaN))).toBeLessThan(1e-3));
  });

  test("a new bucket is timed once, when a result is awaited, and the choice is then kept", async () => {
    const folder = mkdtempSync(join(tmpdir(), "gradmix-variants-"));
    const before = process.env["GRADMIX_CACHE"];
    process.env["GRADMIX_CACHE"] = join(folder, "deep");
    try {
      const found = await createNodeDevice({ software: true });
      const lines: string[] = [];
      const p = params({ m: 12, n: 9, k: 10 });
      const plain = await product(await start({ software: true }), p);

      const first = await start({ software: true, tuning: tuningStore(found, (line) => lines.push(line)) });
      expect(first.chosen.size).toBe(0);
      const live = first.liveBytes;
      expect(await product(first, p)).toEqual(plain);
      expect(first.liveBytes).toBe(live);
      const bucket = "gemm NN 1x16x8x8";
      const variant = first.chosen.get(bucket) ?? "";
      expect(["strip", "block"]).toContain(variant);
      expect(lines.join("\n")).toMatch(
        /^webgpu: gemm NN 1x16x8x8 takes (strip|block) \(.* ms; (strip|block) .*\)$/,
      );
      const { dispatches } = first.counters;
      expect(await product(first, p)).toEqual(plain);
      expect(first.counters.dispatches).toBe(dispatches + 1);

      const file = join(folder, "deep", "webgpu-variants.json");
      const kept = JSON.parse(readFileSync(file, "utf8")) as Record<string, Record<string, string>>;
      expect(Object.values(kept)).toEqual([{ [bucket]: variant }]);
      const second = await start({ software: true, tuning: tuningStore(found, (line) => lines.push(line)) });
      expect(await product(second, p)).toEqual(plain);
      expect(second.counters.dispatches).toBe(1);
      expect(lines).toHaveLength(1);

      writeFileSync(file, "no JSON");
      expect(tuningStore(found).known).toEqual({});
    } finally {
      if (before === undefined) delete process.env["GRADMIX_CACHE"];
      else process.env["GRADMIX_CACHE"] = before;
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("without a store, nothing is timed", async () => {
    const backend = await start({ software: true });
    await product(backend, params({ m: 5, n: 5, k: 5 }));
    expect(backend.counters.dispatches).toBe(1);
    expect(backend.chosen.size).toBe(0);
  });

  test("the check of a GPU before its use accepts right results", async () => {
    expect(await computesRight(await start({ software: true }), 24)).toBe(true);
    const cores = { subgroup: 32, emulated: true };
    expect(
      await computesRight(await start({ software: false, precision: "f16", tensorCores: cores }), 24),
    ).toBe(true);
  });
});

/** The nearest f16, as a double: 10 bits of mantissa, subnormals down to 2⁻²⁴. */
function half(x: number): number {
  if (Math.abs(x) >= 65520) return Math.sign(x) * Infinity;
  const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(x) || 1))) - 10);
  const whole = x / step;
  const down = Math.floor(whole);
  const rest = whole - down;
  return (rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down) * step;
}

/** Dawn's null device, presented as a GPU with more workgroup memory than its 16 KiB: shaders are checked up to this limit. */
async function nullDeviceWith(bytes: number): Promise<object> {
  const device = (await createNullDevice()) as GPUDevice;
  const limits = new Proxy(device.limits, {
    get: (target, name) =>
      name === "maxComputeWorkgroupStorageSize" ? bytes : (Reflect.get(target, name) as unknown),
  });
  return new Proxy(device, {
    get(target, name) {
      if (name === "limits") return limits;
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

/**
 * Returns whether the null device refuses only its 16 KiB of workgroup memory, and the 32 KiB of a GPU are enough. This limit is checked after everything
 * else in a shader.
 */
function withinOtherLimits(error: unknown): boolean {
  const found = /workgroup storage \((\d+) bytes\) is larger/.exec(String(error));
  return found !== null && Number(found[1]) <= 32_768;
}

describe.skipIf(off)("mixed precision", () => {
  const edges = [
    0,
    1,
    -1,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    65504,
    65519,
    65520,
    -1e6,
    2 ** -14,
    2 ** -25,
    3e-8,
    1e-9,
  ];

  test("operands are rounded to f16, sums are f32", async () => {
    const backend = await start({ software: true, precision: "f16" });
    const place = (data: number[]) => {
      const buffer = backend.alloc(data.length, "f32");
      backend.write(buffer, 0, data);
      return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
    };
    const [x, one, c] = [place(edges), place([1]), place(edges)];
    const p = params({ m: edges.length, n: 1, k: 1 });
    backend.run("gemm", p, { a: x, b: one }, { c });
    const rounded = await backend.read(c.buffer, 0, edges.length);
    // Subnormals may be flushed; what remains is the nearest f16.
    edges.forEach((value, i) => {
      if (rounded[i] !== 0 || Math.abs(value) >= 2 ** -14) expect(rounded[i]).toBe(half(value));
    });

    const size = params({ m: 37, n: 29, k: 70, transB: true });
    const found = await product(backend, size);
    const wanted = await product(createReferenceBackend({ precision: "f64" }), size, half);
    found.forEach((value, i) => expect(Math.abs(value - (wanted[i] ?? NaN))).toBeLessThan(2e-5));
  });

  // With the plain kernels on a software adapter, and with the shaders for tensor cores. The emulation multiplies tiles of 128 × 128 slowly, so it leaves out the
  // largest cases; their sizes are there for the blocks of the CPU.
  test.each([
    ["by hand", { software: true }, Infinity],
    ["emulated tensor cores", { software: false, tensorCores: { subgroup: 32, emulated: true } }, 3_000_000],
  ] as const)(
    "the segmented weight gradient of rounded operands (%s)",
    async (_, options, largest) => {
      const backend = await start({ ...options, precision: "f16" });
      const oracle = createReferenceBackend({ precision: "f64" });
      const fitting = cases.gemmSegmented().filter(({ params: { rows, m, n } }) => rows * m * n <= largest);
      const rounded = fitting.map((c) => ({
        ...c,
        inputs: {
          ...c.inputs,
          a: f(Array.from(c.inputs.a.data, half)),
          b: f(Array.from(c.inputs.b.data, half)),
        },
      }));
      for (const [at, c] of rounded.entries()) {
        const wanted = await runCase(oracle, "gemmSegmented", c, 0);
        const found = await runCase(backend, "gemmSegmented", c, at % 2 === 0 ? 0 : 3);
        expect(difference("gemmSegmented", c, found, wanted)).toBe(null);
      }
    },
    120_000,
  );

  test("a GPU without tensor cores refuses mixed precision in one line", async () => {
    const { device } = await createNodeDevice({ software: true });
    expect(() => createWebgpuBackend({ device, adapter: "Some GPU", precision: "f16" })).toThrow(
      /^webgpu: Some GPU offers no tensor cores .* use precision "f32"$/,
    );
  });

  test("the tensor-core shaders of the segmented weight gradient are valid (on Dawn's null backend)", async () => {
    const beyond: string[] = [];
    for (const c of cases.gemmSegmented()) {
      const backend = createWebgpuBackend({
        device: await nullDeviceWith(32_768),
        ...{ precision: "f16", tensorCores: { subgroup: 32 } },
      });
      const place = (operand: Operand) => ({
        buffer: backend.alloc(Math.max(1, operand.data.length), operand.dtype),
        ...{ offset: 0, shape: [operand.data.length], dtype: operand.dtype },
      });
      try {
        const inputs = mapInputs<"gemmSegmented", Operand, View>(c.inputs, place);
        const outputs = outputsOf("gemmSegmented", c, inputs, place);
        backend.run("gemmSegmented", c.params, inputs, outputs);
        await backend.read(outputs.vSumsq.buffer, 0, 1);
      } catch (error) {
        if (!withinOtherLimits(error)) throw error;
        beyond.push(c.name);
      }
      await backend.dispose();
    }
    expect(beyond.map((name) => name.split(" rows")[0])).toEqual(["many segments"]);
  });

  test.each(LAYOUTS)(
    "the tensor-core shaders are valid (%s; on Dawn's null backend, which runs nothing)",
    async (layout) => {
      const beyond: string[] = [];
      for (const tile of tensorTileNames)
        for (const [m, n, k, batch] of [
          [128, 128, 64, 1],
          [130, 70, 45, 2],
          [64, 64, 4096, 1],
        ] as const) {
          const bucket = [batch, m, n, k].map((v) => 2 ** Math.round(Math.log2(v))).join("x");
          const backend = createWebgpuBackend({
            device: await createNullDevice(),
            precision: "f16",
            // As for GPUs with subgroups of one size, and of several.
            tensorCores: { subgroup: 32, sized: batch === 2 },
            tuning: { known: { [`gemm ${layout} ${bucket} f16`]: tile }, learn: () => {} },
          });
          const place = (elements: number) => {
            const buffer = backend.alloc(elements, "f32");
            return { buffer, offset: 0, shape: [elements], dtype: "f32" as const };
          };
          const [a, b, c] = [place(batch * m * k), place(batch * k * n), place(batch * m * n)];
          const p = params({
            ...{ m, n, k, batch, strideA: m * k, strideB: k * n, strideC: m * n },
            ...{ transA: layout[0] === "T", transB: layout[1] === "T", activation: "gelu" },
          });
          try {
            backend.run("gemm", p, { a, b, bias: place(n) }, { c, slope: place(batch * m * n) });
            await backend.read(c.buffer, 0, 1);
            expect(backend.counters.dispatches).toBe(k === 4096 ? 2 : 1);
          } catch (error) {
            if (!withinOtherLimits(error)) throw error;
            beyond.push(tile);
          }
          await backend.dispose();
        }
      expect(beyond).not.toContain("tensor 64x64");
    },
  );

  const WHOLE = [128, 128, 128] as const;
  const RAGGED = [131, 150, 101] as const;
  const FOURS = [132, 148, 100] as const;
  const checkTile = async (
    tile: string,
    layout: string,
    [m, n, k]: readonly [number, number, number],
    { device, adapter, tensorCores = null }: Pick<FoundDevice, "device" | "adapter"> & Partial<FoundDevice>,
  ): Promise<void> => {
    const backend = createWebgpuBackend({
      ...{ device, adapter, precision: "f16" },
      tensorCores: tensorCores ?? { subgroup: 32, emulated: true },
      tuning: { known: { [`gemm ${layout} 1x128x128x128 f16`]: tile }, learn: () => {} },
    });
    const p = params({ m, n, k, transA: layout[0] === "T", transB: layout[1] === "T" });
    const found = await product(backend, p);
    const wanted = await product(createReferenceBackend({ precision: "f64" }), p, half);
    found.forEach((value, i) => expect(Math.abs(value - (wanted[i] ?? NaN))).toBeLessThan(1e-4));
    await backend.dispose();
  };

  test.for(LAYOUTS)("on tensor cores: the products of rounded operands (%s)", async (layout, { skip }) => {
    for (const tile of tensorTileNames)
      for (const shape of [WHOLE, RAGGED]) {
        const found = await createNodeDevice({ software: true, tensorCores: true });
        if (found.tensorCores === null)
          skip(
            `${found.adapter} has no tensor cores: their shaders are validated, and run with emulated ones`,
          );
        await checkTile(tile, layout, shape, found);
      }
  });

  // Both layouts of both operands, and of the tiles each; compiling them for a CPU takes seconds.
  test.each([
    ["tensor 64x64", "NN", RAGGED],
    ["tensor 64x64", "TT", WHOLE],
    ["tensor 128x128", "TT", RAGGED],
    ["tensor 128x128", "NT", FOURS],
    ["tensor 128x128 by 16", "NT", RAGGED],
    ["tensor 256x128 by 16", "TN", RAGGED],
    ["tensor 256x128 by 16", "NN", FOURS],
    ["tensor 128x128 of 64x64", "NN", RAGGED],
  ] as const)(
    "on emulated tensor cores: the products of rounded operands (%s, %s, %o)",
    async (tile, layout, shape) => {
      await checkTile(tile, layout, shape, await sharedDevice());
    },
  );
});

test("the check of a GPU before its use refuses wrong results", async () => {
  const cpu = await createCpuBackend({ threads: 1 });
  open.push(cpu);
  expect(await computesRight(cpu)).toBe(true);
  for (const broken of ["gemm", "gemmSegmented", "softmax", "dot"] as const)
    expect(
      await computesRight({
        ...cpu,
        alloc: cpu.alloc,
        run: (kernel, ...rest) => {
          if (kernel !== broken) cpu.run(kernel, ...rest);
        },
      }),
    ).toBe(false);
});
