/** Textbook formulas that share no code with the backends: operands that some kernels take from an earlier one, and attention. */
import type {
  Activation,
  AttentionParams,
  KernelParams,
  MaskedAttentionParams,
} from "#dist/backends/kernels/index.js";

const activations: { readonly [K in Activation]: (x: number) => number } = {
  none: (x) => x,
  relu: (x) => Math.max(0, x),
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

const ROOT = Math.sqrt(2 / Math.PI);
const slopes: { readonly [K in Activation]: (x: number) => number } = {
  none: () => 1,
  relu: (x) => Number(x > 0),
  silu: (x) => (1 + Math.exp(-x) * (1 + x)) / (1 + Math.exp(-x)) ** 2,
  gelu: (x) => {
    const t = Math.tanh(ROOT * (x + 0.044715 * x ** 3));
    return 0.5 * (1 + t + x * (1 - t ** 2) * ROOT * (1 + 0.134145 * x ** 2));
  },
};

/** One element of a product before its activation: row i, column j of an item; `old` is the previous element of c. */
export function naiveElement(
  p: KernelParams["gemm"],
  a: Float32Array,
  b: Float32Array,
  bias: Float32Array | null,
  old: number,
  [item, i, j]: readonly [item: number, i: number, j: number],
): number {
  const [stepA, stepB] = [p.transA ? p.m : 1, p.transB ? 1 : p.n];
  let atA = item * p.strideA + (p.transA ? i : i * p.k);
  let atB = item * p.strideB + (p.transB ? j * p.k : j);
  let sum = 0;
  for (let l = 0; l < p.k; l++) {
    sum += a[atA] * b[atB];
    atA += stepA;
    atB += stepB;
  }
  return p.alpha * sum + (bias === null ? 0 : bias[j]) + (p.accumulate ? old : 0);
}

/** A product with its epilogue: c, and the slope of the activation. Elements between items keep their values. */
export function naiveGemm(
  p: KernelParams["gemm"],
  a: Float32Array,
  b: Float32Array,
  bias: Float32Array | null,
  c: Float32Array,
): { c: Float64Array; slope: Float64Array } {
  const out = Float64Array.from(c);
  const slope = Float64Array.from(c);
  for (let item = 0; item < p.batch; item++)
    for (let i = 0; i < p.m; i++)
      for (let j = 0; j < p.n; j++) {
        const at = item * p.strideC + i * p.n + j;
        const x = naiveElement(p, a, b, bias, c[at], [item, i, j]);
        out[at] = activations[p.activation](x);
        slope[at] = slopes[p.activation](x);
      }
  return { c: out, slope };
}

/** (mean, rstd) of each row. */
export function naiveStats(
  x: readonly number[],
  width: number,
  kind: "layer" | "rms",
  eps: number,
): number[] {
  const stats: number[] = [];
  for (let start = 0; start < x.length; start += width) {
    const row = x.slice(start, start + width);
    const mean = kind === "layer" ? row.reduce((a, b) => a + b, 0) / width : 0;
    const variance = row.reduce((a, b) => a + (b - mean) * (b - mean), 0) / width;
    stats.push(mean, 1 / Math.sqrt(variance + eps));
  }
  return stats;
}

/** log Σ exp of each row. */
export function naiveLse(x: readonly number[], cols: number): number[] {
  const result: number[] = [];
  for (let start = 0; start < x.length; start += cols) {
    const row = x.slice(start, start + cols);
    const max = Math.max(...row);
    result.push(max + Math.log(row.reduce((sum, value) => sum + Math.exp(value - max), 0)));
  }
  return result;
}

/** Causal attention with whole T×T matrices per head: softmax of masked scores, with key/value heads repeated for grouped queries. */
export function naiveAttention(p: AttentionParams, qkv: readonly number[]): { o: number[]; lse: number[] } {
  const { batch, time, heads, kvHeads, headDim } = p;
  const cols = (heads + 2 * kvHeads) * headDim;
  const o = new Array<number>(batch * time * heads * headDim).fill(0);
  const lse: number[] = [];
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++) {
      const block = (first: number): number[][] =>
        Array.from({ length: time }, (_, t) => {
          const start = (b * time + t) * cols + first * headDim;
          return qkv.slice(start, start + headDim);
        });
      const shared = Math.floor(h / (heads / kvHeads));
      const [q, k, v] = [block(h), block(heads + shared), block(heads + kvHeads + shared)];
      const scores = q.map((qt, t) =>
        k.map((ks, s) => (s > t ? -Infinity : p.scale * qt.reduce((sum, x, j) => sum + x * ks[j], 0))),
      );
      scores.forEach((row, t) => {
        const logSum = naiveLse(row, time)[0];
        lse.push(logSum);
        for (let j = 0; j < headDim; j++)
          o[((b * time + t) * heads + h) * headDim + j] = row.reduce(
            (sum, score, s) => sum + Math.exp(score - logSum) * v[s][j],
            0,
          );
      });
    }
  return { o, lse };
}

/** Attention with a mask, with whole matrices per head. A row in which every key is hidden is 0. */
export function naiveMaskedAttention(
  p: MaskedAttentionParams,
  {
    q,
    k,
    v,
    mask,
  }: Readonly<Record<"q" | "k" | "v", readonly number[]>> & { mask: readonly number[] | null },
): { o: number[]; lse: number[] } {
  const d = p.headDim;
  const row = (data: readonly number[] | null, at: number): readonly number[] =>
    data?.slice(at * d, (at + 1) * d) ?? [];
  const o: number[] = [];
  const lse: number[] = [];
  for (let b = 0; b < p.batch; b++)
    for (let h = 0; h < p.heads; h++)
      for (let t = 0; t < p.time; t++) {
        const shared = b * p.kvHeads + Math.floor(h / (p.heads / p.kvHeads));
        const own = (p.maskBatch === 1 ? 0 : b) * p.maskHeads + (p.maskHeads === 1 ? 0 : h);
        const query = row(q, (b * p.heads + h) * p.time + t);
        const scores = Array.from({ length: p.keys }, (_, s) => {
          const key = row(k, shared * p.keys + s);
          const score = p.scale * query.reduce((total, x, j) => total + x * key[j], 0);
          // The last query is at the position of the last key.
          if (p.causal && p.keys - 1 - s < p.time - 1 - t) return -Infinity;
          return score + (mask?.[(own * p.time + t) * p.keys + s] ?? 0);
        });
        const logSum = scores.every((score) => score === -Infinity) ? -Infinity : naiveLse(scores, p.keys)[0];
        lse.push(logSum);
        for (let j = 0; j < d; j++)
          o.push(
            logSum === -Infinity
              ? 0
              : scores.reduce(
                  (total, score, s) => total + Math.exp(score - logSum) * row(v, shared * p.keys + s)[j],
                  0,
                ),
          );
      }
  return { o, lse };
}
