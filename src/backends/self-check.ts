/** Does a backend compute? A few sums whose results are known exactly, in milliseconds: drivers have been known to fail silently. */
import type { Backend } from "./backend.ts";

/** Multiplies, sums and normalises small whole numbers. */
export async function computesRight(backend: Backend, size: number = 96): Promise<boolean> {
  const place = (data: Float32Array) => {
    const buffer = backend.alloc(data.length, "f32");
    backend.write(buffer, 0, data);
    return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
  };
  const count = size * size;
  // Products of small whole numbers sum up exactly in any order.
  const a = Float32Array.from({ length: count }, (_, i) => ((i * 7) % 5) - 2);
  const b = Float32Array.from({ length: count }, (_, i) => ((i * 3) % 7) - 3);
  const views = [a, b, new Float32Array(count), new Float32Array(count), new Float32Array(1)].map(place);
  const [x, y, product, shares, dot] = views;
  try {
    backend.run(
      "gemm",
      {
        m: size, n: size, k: size, transA: false, transB: false, batch: 1, strideA: 0, strideB: 0, strideC: 0,
        alpha: 1, accumulate: false, activation: "none",
      }, // prettier-ignore
      [x, y, null],
      [product, null],
    );
    backend.run("softmax", { rows: size, cols: size }, [x], [shares]);
    backend.run("dot", {}, [x, y], [dot]);
    const found = await backend.read(product.buffer, 0, count);
    const rows = await backend.read(shares.buffer, 0, count);
    let wanted = 0;
    for (let i = 0; i < count; i++) wanted += a[i] * b[i];
    if ((await backend.read(dot.buffer, 0, 1))[0] !== wanted) return false;
    for (let i = 0; i < size; i++) {
      let total = 0;
      for (let j = 0; j < size; j++) {
        let sum = 0;
        for (let k = 0; k < size; k++) sum += a[i * size + k] * b[k * size + j];
        if (found[i * size + j] !== sum) return false;
        total += rows[i * size + j];
      }
      if (!(Math.abs(total - 1) < 1e-5)) return false;
    }
    return true;
  } finally {
    for (const { buffer } of views) backend.free(buffer);
  }
}
