/** Checks that a backend computes correctly, since drivers have failed without an error: a few sums with known exact results, which take milliseconds. */
import type { View } from "../tensor/memory.ts";
import type { Backend } from "./backend.ts";

/**
 * Multiplies, sums and normalises small whole numbers, which f16 represents exactly. A sum beyond the range of f16 must be exact or ∞, since a training that
 * scales its loss must see every overflow. The default `size` needs large tiles and does not divide into them.
 */
export async function computesRight(backend: Backend, size: number = 160): Promise<boolean> {
  const place = (data: Float32Array | Int32Array) => {
    const dtype = data instanceof Int32Array ? "i32" : "f32";
    const buffer = backend.alloc(data.length, dtype);
    backend.write(buffer, 0, data);
    return { buffer, offset: 0, shape: [data.length], dtype } as const;
  };
  const count = size * size;
  const half = Math.floor(size / 2);
  // Products of small whole numbers sum up exactly in any order.
  const a = Float32Array.from({ length: count }, (_, i) => ((i * 7) % 5) - 2);
  const b = Float32Array.from({ length: count }, (_, i) => ((i * 3) % 7) - 3);
  const zeros = (length: number): Float32Array => new Float32Array(length);
  const [x, y, product, shares, dot] = [
    place(a),
    place(b),
    place(zeros(count)),
    place(zeros(count)),
    place(zeros(1)),
  ];
  const [segments, total] = [place(Int32Array.of(0, half, size)), place(zeros(count))];
  const [dots, squares, square] = [place(zeros(2)), place(zeros(2)), place(zeros(1))];
  const [large, one, kept] = [
    place(Float32Array.of(70_000, -70_000, 1, -1)),
    place(Float32Array.of(1)),
    place(zeros(4)),
  ];
  const views = [x, y, product, shares, dot, segments, total, dots, squares, square, large, one, kept];
  const multiply = (m: number, n: number, k: number, a: View, b: View, c: View): void =>
    backend.run(
      "gemm",
      {
        m, n, k, transA: false, transB: false, batch: 1, strideA: 0, strideB: 0, strideC: 0,
        alpha: 1, accumulate: false, activation: "none",
      }, // prettier-ignore
      { a, b },
      { c },
    );
  try {
    multiply(size, size, size, x, y, product);
    multiply(4, 1, 1, large, one, kept);
    backend.run(
      "gemmSegmented",
      {
        rows: size, m: size, n: size, segmentCount: 2, groupCount: 0, targetSegments: 1, firstAccumulated: 0, accumulate: false,
      }, // prettier-ignore
      { a: x, b: y, segments },
      { total, dots, sumsq: squares, vSumsq: square },
    );
    backend.run("softmax", { rows: size, cols: size }, { x }, { y: shares });
    backend.run("dot", {}, { x, y }, { out: dot });
    const found = await backend.read(product.buffer, 0, count);
    const rows = await backend.read(shares.buffer, 0, count);
    const [plus = NaN, minus, ...rest] = await backend.read(kept.buffer, 0, 4);
    if (![70_000, Infinity].includes(plus) || minus !== -plus || rest.join() !== "1,-1") return false;
    let expectedDot = 0;
    for (let i = 0; i < count; i++) expectedDot += a[i]! * b[i]!;
    if ((await backend.read(dot.buffer, 0, 1))[0] !== expectedDot) return false;
    const totals = await backend.read(total.buffer, 0, count);
    let inner = 0;
    const norms: [number, number] = [0, 0];
    for (let i = 0; i < size; i++) {
      let mass = 0;
      for (let j = 0; j < size; j++) {
        let sum = 0;
        const halves: [number, number] = [0, 0];
        for (let k = 0; k < size; k++) {
          sum += a[i * size + k]! * b[k * size + j]!;
          halves[k < half ? 0 : 1] += a[k * size + i]! * b[k * size + j]!;
        }
        if (found[i * size + j] !== sum || totals[i * size + j] !== halves[0] + halves[1]) return false;
        mass += rows[i * size + j]!;
        inner += halves[0] * halves[1];
        for (const s of [0, 1] as const) norms[s] += halves[s] ** 2;
      }
      if (!(Math.abs(mass - 1) < 1e-5)) return false;
    }
    // These are too large to be exact.
    const near = (x: number, y: number): boolean => Math.abs(x - y) <= 1e-4 * Math.sqrt(norms[0] * norms[1]);
    const along = await backend.read(dots.buffer, 0, 2);
    const squared = await backend.read(squares.buffer, 0, 2);
    if (!near(along[1]!, inner) || !near(squared[0]!, norms[0]) || !near(squared[1]!, norms[1])) return false;
    return true;
  } finally {
    for (const { buffer } of views) backend.free(buffer);
  }
}
