/** The memory interface of every backend; and the strictness of the reference. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { GradmixError } from "#dist/errors.js";
import { backends } from "./all.ts";
import type { View } from "#dist/tensor/memory.js";
import { type Case, difference, f, i, out, runCase } from "./harness.ts";
import { errorOf } from "../errors.ts";

describe.each(backends)("$name: memory", ({ create }) => {
  let backend: Backend;
  beforeEach(async () => {
    backend = await create();
  });
  afterEach(async () => {
    await backend.dispose();
  });

  it("writes and reads parts of f32 and i32 buffers", async () => {
    const floats = backend.alloc(5, "f32");
    backend.write(floats, 0, [1, 2, 3, 4, 5]);
    backend.write(floats, 2, [0.1]);
    expect(Array.from(await backend.read(floats, 1, 3))).toEqual([2, Math.fround(0.1), 4]);
    const integers = backend.alloc(2, "i32");
    backend.write(integers, 0, [-7, 2147483647]);
    const read = await backend.read(integers, 0, 2);
    expect(read).toBeInstanceOf(Int32Array);
    expect(Array.from(read)).toEqual([-7, 2147483647]);
    expect(Array.from(await backend.read(floats, 5, 0))).toEqual([]);
  });

  it("copies data, so that neither the source array nor an array that was read shares memory with the buffer", async () => {
    const source = Float32Array.of(1, 2);
    const buffer = backend.alloc(2, "f32");
    backend.write(buffer, 0, source);
    source[0] = 9;
    const read = await backend.read(buffer, 0, 2);
    backend.write(buffer, 0, [5, 6]);
    expect(Array.from(read)).toEqual([1, 2]);
  });

  it("counts live and peak bytes", () => {
    expect(backend.liveBytes).toBe(0);
    const a = backend.alloc(1000, "f32");
    const afterOne = backend.liveBytes;
    expect(afterOne).toBeGreaterThanOrEqual(4000);
    const b = backend.alloc(500, "i32");
    const peak = backend.liveBytes;
    expect(peak).toBeGreaterThanOrEqual(afterOne + 2000);
    backend.free(b);
    expect(backend.liveBytes).toBe(afterOne);
    backend.free(a);
    backend.free(backend.alloc(0, "f32"));
    expect(backend.liveBytes).toBe(0);
    // A backend may count its own scratch memory and rounding.
    expect(backend.peakBytes).toBeGreaterThanOrEqual(peak);
  });

  it("refuses unknown buffers, and ranges outside of a buffer", async () => {
    const buffer = backend.alloc(3, "f32");
    for (const action of [
      () => backend.write(buffer, 1, [1, 2, 3]),
      () => backend.write(buffer, -1, [1]),
      () => backend.write(987_654, 0, [1]),
      () => backend.free(987_654),
    ])
      expect(["backend", "shape"]).toContain(errorOf(action).code);
    await expect(backend.read(buffer, 2, 2)).rejects.toBeInstanceOf(GradmixError);
    await expect(backend.read(987_654, 0, 1)).rejects.toMatchObject({ code: "backend" });
    backend.free(buffer);
    expect(errorOf(() => backend.free(buffer)).code).toBe("backend");
    await expect(backend.read(buffer, 0, 1)).rejects.toMatchObject({ code: "backend" });
    expect(backend.liveBytes).toBe(0);
  });

  it("refuses a request beyond its memory limit before it changes anything", async () => {
    const limit = 1 << 24;
    const limited = await create({ memoryLimit: limit });
    expect(limited.capabilities.memoryLimit).toBe(limit);
    const buffer = limited.alloc(1_500_000, "f32");
    const live = limited.liveBytes;
    const error = errorOf(() => limited.alloc(3_000_000, "f32"));
    expect(error.code).toBe("memory");
    expect(error.message).toMatch(/free tensors that are no longer used \(scope, dispose\)/i);
    const numbers = (error.message.match(/\d+/g) ?? []).map(Number);
    expect(numbers).toEqual(expect.arrayContaining([12_000_000, limit]));
    expect(numbers.some((bytes) => bytes >= live && bytes < 12_000_000)).toBe(true);
    expect(limited.liveBytes).toBe(live);
    limited.free(buffer);
    limited.free(limited.alloc(3_000_000, "f32"));
    await limited.dispose();
  });

  it("refuses every call after dispose, except to free", async () => {
    const other = await create();
    const view = { buffer: other.alloc(3, "f32"), offset: 0, shape: [3], dtype: "f32" } as const;
    await other.dispose();
    for (const call of [
      () => other.alloc(1, "f32"),
      () => other.run("fill", { value: 1 }, {}, { out: view }),
      () => other.write(view.buffer, 0, [1]),
      () => other.readNow?.(view.buffer, 0, 1) ?? other.alloc(1, "f32"),
    ])
      expect(errorOf(call).code).toBe("backend");
    await expect(other.read(view.buffer, 0, 1)).rejects.toMatchObject({ code: "backend" });
    // A tensor may be disposed after its backend.
    other.free(view.buffer);
  });
});

describe("the reference is strict", () => {
  const backend = createReferenceBackend();
  const buffer = backend.alloc(10, "f32");
  const view = (offset: number, size: number, dtype: "f32" | "i32" = "f32") => ({
    buffer,
    offset,
    shape: [size],
    dtype,
  });

  it("fills fresh memory with NaN", async () => {
    expect(Array.from(await backend.read(backend.alloc(2, "f32"), 0, 2))).toEqual([NaN, NaN]);
  });

  it("refuses sizes and offsets that are not integers, and every call after dispose", async () => {
    const other = createReferenceBackend();
    const id = other.alloc(3, "f32");
    const actions = [
      () => other.alloc(-1, "f32"),
      () => other.alloc(1.5, "f32"),
      () => other.write(id, 0.5, [1]),
      () => other.write(id, 1, [1, 2, 3]),
    ];
    for (const action of actions) expect(errorOf(action).code).toBe("backend");
    await other.dispose();
    expect(errorOf(() => other.write(id, 0, [1])).message).toContain("dispose()");
    await expect(other.read(id, 0, 1)).rejects.toMatchObject({ code: "backend" });
  });

  it("checks operands against the table", () => {
    const error = errorOf(() => backend.run("unary", { kind: "exp" }, { x: view(0, 3) }, { y: view(4, 2) }));
    expect(error.code).toBe("shape");
    expect(error.message).toContain('unary: operand "y"');
    expect(
      errorOf(() => backend.run("unary", { kind: "exp" }, { x: view(0, 3) }, { y: view(8, 3) })).code,
    ).toBe("backend");
    const ids = view(0, 2, "i32");
    const gather = { rows: 2, width: 1, tableRows: 1 };
    expect(
      errorOf(() => backend.run("gather", gather, { table: view(4, 1), ids }, { out: view(6, 2) })).message,
    ).toContain("i32");
  });

  it("refuses overlaps that the table does not allow", () => {
    const relu = { kind: "relu" } as const;
    expect(errorOf(() => backend.run("unary", relu, { x: view(0, 4) }, { y: view(2, 4) })).message).toBe(
      'unary: output "y" overlaps input "x"',
    );
    expect(
      errorOf(() => backend.run("accumulate", { scale: 1 }, { x: view(0, 4) }, { y: view(0, 4) })).code,
    ).toBe("backend");
    const norm = { kind: "rms", rows: 1, width: 2, eps: 0 } as const;
    expect(
      errorOf(() => backend.run("norm", norm, { x: view(0, 2) }, { y: view(4, 2), stats: view(5, 2) }))
        .message,
    ).toBe('norm: outputs "y" and "stats" overlap');
  });

  it.each([[[0, 3, 2]], [[-1, 2, 3]], [[0, 2, 5]]])(
    "refuses segment offsets %j of 4 rows",
    async (offsets) => {
      const c: Case<"segmentSum"> = {
        name: "broken offsets",
        params: { rows: 4, width: 1, segmentCount: 2, outStride: 1, accumulate: false },
        inputs: { x: f([1, 2, 3, 4]), segments: i(offsets) },
        outputs: { out: out(2) },
      };
      await expect(runCase(createReferenceBackend(), "segmentSum", c, 0)).rejects.toMatchObject({
        code: "backend",
      });
    },
  );

  it("refuses addresses outside of an operand, an odd headDim, groups left out, a wrong type of random bits", () => {
    const copy = { shape: [3], inStrides: [2], inOffset: 0, outStrides: [1], outOffset: 0 };
    expect(errorOf(() => backend.run("stridedCopy", copy, { x: view(0, 3) }, { y: view(4, 3) })).code).toBe(
      "shape",
    );
    const rope = { batch: 1, time: 1, cols: 3, heads: 1, headDim: 3, theta: 10, offset: 0, inverse: false };
    expect(errorOf(() => backend.run("rope", rope, { x: view(0, 3) }, { y: view(4, 3) })).message).toContain(
      "headDim",
    );
    const bits = { kind: "bits", key0: 0, key1: 0, offset: 0 } as const;
    expect(errorOf(() => backend.run("random", bits, {}, { out: view(0, 3) })).code).toBe("shape");
    const align = { rows: 0, width: 1, tableRows: 1, segmentCount: 0, groupCount: 1 };
    const other = backend.alloc(1, "i32");
    backend.write(other, 0, [0]);
    const offsets = { buffer: other, offset: 0, shape: [1], dtype: "i32" } as const;
    const none = { ...offsets, shape: [0] };
    const call = () =>
      backend.run(
        "embeddingAlign",
        align,
        { dy: view(0, 0), ids: none, segments: offsets },
        { dots: view(0, 0), sumsq: view(0, 0), groupSumsq: view(0, 1) },
      );
    expect(errorOf(call).message).toContain("groups");
  });

  it("stores doubles in f64 mode, and counts 8 bytes for each", async () => {
    const double = createReferenceBackend({ precision: "f64" });
    const id = double.alloc(2, "f32");
    double.write(id, 0, [0.1, 1e300]);
    const read = await double.read(id, 0, 2);
    expect(read).toBeInstanceOf(Float64Array);
    expect(Array.from(read)).toEqual([0.1, 1e300]);
    expect(double.liveBytes).toBe(16);
    double.free(double.alloc(2, "i32"));
    expect(double.peakBytes).toBe(24);
    expect(double.capabilities.simd).toBe("f64");
  });

  it("refuses an invalid memory limit", () => {
    expect(errorOf(() => createReferenceBackend({ memoryLimit: 0 })).code).toBe("config");
    expect(errorOf(() => createReferenceBackend({ memoryLimit: NaN })).code).toBe("config");
  });
});

describe("the harness sees", () => {
  const c: Case<"affine"> = {
    name: "x + 1",
    params: { scale: 1, shift: 1 },
    inputs: { x: f([1, 2, 3]) },
    outputs: { y: out(3) },
  };
  /** A reference whose kernels are followed by `sabotage`. */
  function broken(sabotage: (backend: Backend, input: number, output: number) => void): Backend {
    const good = createReferenceBackend();
    return Object.assign(Object.create(good) as Backend, {
      run(...[kernel, params, inputs, outputs]: Parameters<Backend["run"]>): void {
        good.run(kernel, params, inputs, outputs);
        const [[input], [output]] = [Object.values<View | null>(inputs), Object.values<View | null>(outputs)];
        sabotage(good, input?.buffer ?? 0, output?.buffer ?? 0);
      },
    });
  }

  it("a wrong element, a NaN and an infinity", () => {
    const want = [Float64Array.of(2, 3, 4)];
    expect(difference("affine", c, [Float32Array.of(2, 3, 4)], want)).toBeNull();
    expect(difference("affine", c, [Float32Array.of(2, 3.0001, 4)], want)).toContain("element 1");
    expect(difference("affine", c, [Float32Array.of(2, 3, NaN)], want)).toContain("element 2");
    expect(difference("affine", c, [Float32Array.of(Infinity, 3, 4)], want)).toContain("element 0");
    expect(difference("affine", c, [Float32Array.of(1, 2, 3)], [Float64Array.of(NaN, 2, 3)])).toContain(
      "element 0",
    );
  });

  it("a write before or behind the output, and a changed input", async () => {
    const before = broken((b, _, output) => b.write(output, 2, [0]));
    const behind = broken((b, _, output) => b.write(output, 6, [0]));
    const changed = broken((b, input) => b.write(input, 4, [0]));
    await expect(runCase(before, "affine", c, 3)).rejects.toThrow("written outside, at its element -1");
    await expect(runCase(behind, "affine", c, 3)).rejects.toThrow("written outside, at its element 3");
    await expect(runCase(changed, "affine", c, 3)).rejects.toThrow('input "x" was changed at element 1');
  });
});
