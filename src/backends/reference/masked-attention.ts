/** Attention with an additive mask and its derivatives, one query at a time. */
import type { MaskedAttentionParams } from "../kernels/index.ts";
import type { Data, Kernels, Optional } from "./kernel.ts";

interface Query {
  /** First element of its row in q and o, and its element of lse. */
  readonly row: number;
  readonly lse: number;
  /** First element of the key and of the value of time s. */
  readonly key: (s: number) => number;
  /** scale·⟨q, k_s⟩ + mask for the keys that it may see. */
  readonly scores: readonly number[];
}

function forEachQuery(
  p: MaskedAttentionParams,
  q: Data,
  k: Data,
  mask: Optional,
  visit: (query: Query) => void,
): void {
  const d = p.headDim;
  for (let b = 0; b < p.batch; b++)
    for (let h = 0; h < p.heads; h++) {
      const kvHead = b * p.kvHeads + Math.floor((h * p.kvHeads) / p.heads);
      const maskHead = (b % p.maskBatch) * p.maskHeads + (h % p.maskHeads);
      const key = (s: number): number => (kvHead * p.keys + s) * d;
      for (let t = 0; t < p.time; t++) {
        const lse = (b * p.heads + h) * p.time + t;
        const count = p.causal ? Math.max(0, Math.min(p.keys, t + 1 + p.keys - p.time)) : p.keys;
        const scores = Array.from({ length: count }, (_, s) => {
          const shift = mask === null ? 0 : mask[(maskHead * p.time + t) * p.keys + s]!;
          return p.scale * dotAt(d, q, lse * d, k, key(s)) + shift;
        });
        visit({ row: lse * d, lse, key, scores });
      }
    }
}

function dotAt(length: number, a: Data, ia: number, b: Data, ib: number): number {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[ia + i]! * b[ib + i]!;
  return sum;
}

/** Returns exp(score − lse) of each key; a query from which every key is hidden has lse −∞ and no weights. */
const weightsOf = ({ scores }: Query, lse: number): number[] =>
  lse === -Infinity ? [] : scores.map((score) => Math.exp(score - lse));

const doubles = (like: Data): Float64Array => new Float64Array(like.length);

export const maskedAttention: Kernels<"maskedAttention" | "maskedAttentionVjp" | "maskedAttentionJvp"> = {
  maskedAttention: (p, { q, k, v, mask = null }, { o, lse }) => {
    forEachQuery(p, q, k, mask, (query) => {
      const most = query.scores.reduce((a, b) => Math.max(a, b), -Infinity);
      const sum = query.scores.reduce((total, score) => total + Math.exp(score - most), 0);
      const logSum = most === -Infinity ? -Infinity : most + Math.log(sum);
      lse[query.lse] = logSum;
      const weights = weightsOf(query, logSum);
      for (let i = 0; i < p.headDim; i++)
        o[query.row + i] = weights.reduce((total, weight, s) => total + weight * v[query.key(s) + i]!, 0);
    });
  },

  maskedAttentionVjp: (p, { q, k, v, mask = null, o, lse, dOut }, { dq, dk, dv }) => {
    const d = p.headDim;
    const [sumQ, sumK, sumV] = [doubles(dq), doubles(dk), doubles(dv)];
    forEachQuery(p, q, k, mask, (query) => {
      const mean = dotAt(d, dOut, query.row, o, query.row);
      weightsOf(query, lse[query.lse]!).forEach((weight, s) => {
        const at = query.key(s);
        const slope = p.scale * weight * (dotAt(d, dOut, query.row, v, at) - mean);
        for (let i = 0; i < d; i++) {
          sumQ[query.row + i]! += slope * k[at + i]!;
          sumK[at + i]! += slope * q[query.row + i]!;
          sumV[at + i]! += weight * dOut[query.row + i]!;
        }
      });
    });
    dq.set(sumQ);
    dk.set(sumK);
    dv.set(sumV);
  },

  maskedAttentionJvp: (p, { q, k, v, mask = null, o, lse, dq: tq, dk: tk, dv: tv }, { dOut: to }) => {
    const d = p.headDim;
    forEachQuery(p, q, k, mask, (query) => {
      const out = new Float64Array(d);
      let mean = 0;
      weightsOf(query, lse[query.lse]!).forEach((weight, s) => {
        const at = query.key(s);
        const slope = p.scale * (dotAt(d, tq, query.row, k, at) + dotAt(d, q, query.row, tk, at));
        mean += weight * slope;
        for (let i = 0; i < d; i++) out[i]! += weight * (slope * v[at + i]! + tv[at + i]!);
      });
      for (let i = 0; i < d; i++) to[query.row + i] = out[i]! - mean * o[query.row + i]!;
    });
  },
};
