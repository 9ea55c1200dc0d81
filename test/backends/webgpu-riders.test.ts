/** Small dispatches that others carry: the same bits as alone, in any order of memory use, with fewer dispatches. */
import { afterEach, describe, expect, test } from "vitest";
import type { Inputs, KernelName, KernelParams, Outputs } from "#dist/backends/kernels/index.js";
import { createWebgpuBackend, type WebgpuBackend, type WebgpuOptions } from "#dist/backends/webgpu/index.js";
import type { View } from "#dist/tensor/memory.js";
import { sharedDevice } from "./device.ts";
import { values } from "./harness.ts";

const off = process.env["GRADMIX_WEBGPU"] === "off";
const open: WebgpuBackend[] = [];
afterEach(async () => {
  for (const backend of open.splice(0)) await backend.dispose();
});

const ROWS = 40;
const WIDTH = 8;

/** A backend with operands of ROWS × WIDTH, all of the same size. */
interface Bench {
  readonly backend: WebgpuBackend;
  place(seed: number): View;
  run<K extends KernelName>(kernel: K, params: KernelParams[K], inputs: Inputs<K>, outputs: Outputs<K>): void;
  readonly segments: View;
}

async function benchOf(options: Partial<WebgpuOptions>, oneByOne: boolean): Promise<Bench> {
  const { device, adapter } = await sharedDevice();
  const backend = createWebgpuBackend({ device, adapter, ...options });
  open.push(backend);
  const segments: View = { buffer: backend.alloc(3, "i32"), offset: 0, shape: [3], dtype: "i32" };
  backend.write(segments.buffer, 0, [0, 21, ROWS]);
  return {
    backend,
    segments,
    place(seed) {
      const buffer = backend.alloc(ROWS * WIDTH, "f32");
      backend.write(buffer, 0, values(ROWS * WIDTH, seed));
      return { buffer, offset: 0, shape: [ROWS * WIDTH], dtype: "f32" };
    },
    run(...call) {
      backend.run(...call);
      if (oneByOne) backend.flush();
    },
  };
}

const view = ({ buffer, dtype }: View, offset: number, size: number): View => ({
  ...{ buffer, offset, dtype },
  shape: [size],
});

/** Sums of x by segment: the rider. */
function sums(bench: Bench, x: View, into: View, column = 0, accumulate = false, stride = 3 * WIDTH): void {
  const params = { rows: ROWS, width: WIDTH, segmentCount: 2, outStride: stride, accumulate };
  const out = view(into, column, stride + WIDTH);
  bench.run("segmentSum", params, { x, segments: bench.segments }, { out });
}

/** c [WIDTH, WIDTH] = aᵀ b: the carrier. */
function product(bench: Bench, a: View, b: View, c: View): void {
  bench.run(
    "gemm",
    {
      ...{ m: WIDTH, n: WIDTH, k: ROWS, transA: true, transB: false, batch: 1 },
      ...{ strideA: 0, strideB: 0, strideC: 0, alpha: 1, accumulate: false, activation: "none" },
    },
    { a, b },
    { c: view(c, 0, WIDTH * WIDTH) },
  );
}

/** The contents of a script's operands afterwards, and its number of dispatches: one by one, and with riders. */
async function both(
  options: Partial<WebgpuOptions>,
  script: (bench: Bench, operands: readonly View[]) => readonly View[] | void,
): Promise<{ found: number[][]; wanted: number[][]; dispatches: number; oneByOne: number }> {
  const results: number[][][] = [];
  const counts: number[] = [];
  for (const oneByOne of [true, false]) {
    const bench = await benchOf(options, oneByOne);
    const operands = [1, 2, 3, 4, 5].map((seed) => bench.place(seed));
    const left = script(bench, operands) ?? operands;
    const read: number[][] = [];
    // The last ones first: a read must not overtake what is held back.
    for (const { buffer } of left.toReversed())
      read.push([...(await bench.backend.read(buffer, 0, ROWS * WIDTH))]);
    results.push(read);
    counts.push(bench.backend.counters.dispatches);
  }
  const [wanted = [], found = []] = results;
  return { wanted, found, oneByOne: counts[0] ?? NaN, dispatches: counts[1] ?? NaN };
}

/** Scripts on operands x, y, z, u, v, and how many dispatches they take. */
const scripts: readonly [
  name: string,
  dispatches: number,
  script: (bench: Bench, operands: readonly View[]) => readonly View[] | void,
][] = [
  [
    "a product that has nothing to do with it carries it",
    1,
    (b, [x, y, z, u]) => {
      sums(b, x, z);
      product(b, x, y, u);
    },
  ],
  [
    "two riders, in columns of the same rows",
    1,
    (b, [x, y, z, u]) => {
      sums(b, x, z);
      sums(b, y, z, WIDTH);
      product(b, x, y, u);
    },
  ],
  [
    "three riders: a carrier has two at most",
    3,
    (b, [x, y, z, u, v]) => {
      sums(b, x, z);
      sums(b, y, z, WIDTH);
      sums(b, u, z, 2 * WIDTH);
      product(b, x, y, v);
    },
  ],
  [
    "two riders on the same elements",
    2,
    (b, [x, y, z, u]) => {
      sums(b, x, z);
      sums(b, y, z, 0, true);
      product(b, x, y, u);
    },
  ],
  [
    "two riders on columns that overlap",
    2,
    (b, [x, y, z, u]) => {
      sums(b, x, z, WIDTH);
      sums(b, y, z, WIDTH + 3, true);
      product(b, x, y, u);
    },
  ],
  [
    "the product reads what the rider writes",
    2,
    (b, [x, y, z, u]) => {
      sums(b, x, z);
      product(b, z, y, u);
    },
  ],
  [
    "the product writes what the rider reads",
    2,
    (b, [x, y, z, u]) => {
      sums(b, u, z);
      product(b, x, y, u);
    },
  ],
  [
    "the product writes what the rider writes",
    2,
    (b, [x, y, u]) => {
      sums(b, x, u);
      product(b, x, y, u);
    },
  ],
  [
    "a kernel that carries nothing comes next, and reads the sums",
    2,
    (b, [x, , z, u]) => {
      sums(b, x, z);
      b.run("affine", { scale: 2, shift: 1 }, { x: z }, { y: u });
    },
  ],
  [
    "its input is overwritten from the host as a whole, which gives it another buffer",
    1,
    (b, [x, y, z, u]) => {
      sums(b, x, z);
      b.backend.write(x.buffer, 0, values(ROWS * WIDTH, 9));
      product(b, x, y, u);
    },
  ],
  [
    "a part of its input is overwritten from the host",
    2,
    (b, [x, y, z, u]) => {
      sums(b, x, z);
      b.backend.write(x.buffer, 3, [5, 6, 7]);
      product(b, x, y, u);
    },
  ],
  [
    "its input is freed, and its memory becomes what the product writes and another reads",
    3,
    (b, [x, y, z, u, v]) => {
      sums(b, x, z);
      b.backend.free(x.buffer);
      const next: View = { ...x, buffer: b.backend.alloc(ROWS * WIDTH, "f32") };
      product(b, u, y, next);
      product(b, next, y, v);
      return [y, z, u, v];
    },
  ],
  [
    "nothing follows",
    1,
    (b, [x, , z]) => {
      sums(b, x, z);
    },
  ],
];

describe.skipIf(off)("riders", () => {
  test.each(scripts)("%s: %i dispatches", async (_, wanted, script) => {
    const { found, wanted: alone, dispatches } = await both({ software: true }, script);
    expect(dispatches).toBe(wanted);
    expect(found).toEqual(alone);
  });

  const always = (tile: string): NonNullable<WebgpuOptions["tuning"]> => ({
    known: { "gemm TN 1x8x8x32": tile, "gemmSegmented 2x32x8x8": "64x64" },
    learn: () => {
      throw new Error("nothing is left to time");
    },
  });
  // A GPU adds up ranges of segments with a dispatch of its own.
  test.each<[string, number, Partial<WebgpuOptions>]>([
    ["without barriers", 0, { software: true }],
    ["in tiles of 32", 1, { software: false, tuning: always("32x32") }],
    ["in tiles of 64", 1, { software: false, tuning: always("64x64") }],
  ])("sums and segmented results have the same bits as without riders, %s", async (_, more, options) => {
    const { found, wanted, dispatches, oneByOne } = await both(options, (b, [x, y, z, u, v]) => {
      const one = view(v, 0, 1);
      b.run(
        "gemmSegmented",
        {
          ...{ rows: ROWS, m: WIDTH, n: WIDTH, segmentCount: 2, groupCount: 0 },
          ...{ targetSegments: 0, firstAccumulated: 0, accumulate: false },
        },
        { a: x, b: y, segments: b.segments, v: view(y, 0, WIDTH * WIDTH) },
        {
          ...{ total: view(z, 0, WIDTH * WIDTH), dots: view(v, 8, 2), sumsq: view(v, 10, 2) },
          vSumsq: one,
        },
      );
      sums(b, x, z, WIDTH * WIDTH);
      product(b, x, y, u);
      const shape = { kind: "layer" as const, rows: ROWS, width: WIDTH };
      const stats = view(x, 0, 2 * ROWS);
      b.run(
        "normGainGrad",
        { ...shape, segmentCount: 2, outStride: 3 * WIDTH, accumulate: false },
        { x: x, stats, dy: y, segments: b.segments },
        { dgain: view(z, 160, 4 * WIDTH) },
      );
      sums(b, y, z, 160 + WIDTH);
      b.run("normVjp", shape, { x: x, stats, dy: y }, { dx: u });
    });
    expect([oneByOne, dispatches]).toEqual([7 + more, 3 + more]);
    expect(found).toEqual(wanted);
  });
});
