/** Rotary positions (Su et al. 2021) and causal attention with its derivatives, one query at a time. */
import { GradmixError } from "../../errors.ts";
import type { AttentionParams } from "../kernels/index.ts";
import type { Data, Kernels } from "./kernel.ts";

/** Calls `visit` for every query (batch item, head, time), with the positions of its data in the operands. */
function forEachQuery(
  p: AttentionParams,
  visit: (at: {
    time: number;
    /** First element of the query in qkv. */
    q: number;
    /** First element of the key, and of the value, of time s in qkv. */
    k: (s: number) => number;
    v: (s: number) => number;
    /** First element of the output in o, and its element of lse. */
    o: number;
    lse: number;
  }) => void,
): void {
  const d = p.headDim;
  const cols = (p.heads + 2 * p.kvHeads) * d;
  for (let b = 0; b < p.batch; b++)
    for (let h = 0; h < p.heads; h++) {
      const kvHead = Math.floor((h * p.kvHeads) / p.heads);
      const row = (t: number): number => (b * p.time + t) * cols;
      for (let t = 0; t < p.time; t++)
        visit({
          time: t,
          q: row(t) + h * d,
          k: (s) => row(s) + (p.heads + kvHead) * d,
          v: (s) => row(s) + (p.heads + p.kvHeads + kvHead) * d,
          o: ((b * p.time + t) * p.heads + h) * d,
          lse: (b * p.heads + h) * p.time + t,
        });
    }
}

function dotAt(length: number, a: Data, ia: number, b: Data, ib: number): number {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[ia + i]! * b[ib + i]!;
  return sum;
}

export const attention: Kernels<"rope" | "attention" | "attentionVjp" | "attentionJvp"> = {
  rope: (p, { x }, { y }) => {
    if (p.headDim % 2 !== 0)
      throw new GradmixError("shape", `rope: headDim must be even, it is ${p.headDim}`);
    const half = p.headDim / 2;
    if (y !== x) y.set(x);
    for (let row = 0; row < p.batch * p.time; row++)
      for (let h = 0; h < p.heads; h++)
        for (let i = 0; i < half; i++) {
          const angle =
            (p.inverse ? -1 : 1) * (p.offset + (row % p.time)) * p.theta ** ((-2 * i) / p.headDim);
          const at = row * p.cols + h * p.headDim + i;
          const [first, second] = [x[at]!, x[at + half]!];
          y[at] = first * Math.cos(angle) - second * Math.sin(angle);
          y[at + half] = second * Math.cos(angle) + first * Math.sin(angle);
        }
  },

  attention: (p, { qkv }, { o, lse }) => {
    const d = p.headDim;
    forEachQuery(p, (at) => {
      const scores: number[] = [];
      for (let s = 0; s <= at.time; s++) scores.push(p.scale * dotAt(d, qkv, at.q, qkv, at.k(s)));
      let max = -Infinity;
      for (const score of scores) max = Math.max(max, score);
      let sum = 0;
      for (const score of scores) sum += Math.exp(score - max);
      const logSum = max + Math.log(sum);
      lse[at.lse] = logSum;
      for (let i = 0; i < d; i++) {
        let value = 0;
        for (let s = 0; s <= at.time; s++) value += Math.exp(scores[s]! - logSum) * qkv[at.v(s) + i]!;
        o[at.o + i] = value;
      }
    });
  },

  // With P the probabilities and dP = do·vᵀ: dS = P ⊙ (dP − Σ P·dP), and Σ_s P·dP = ⟨do, o⟩.
  attentionVjp: (p, { qkv, o, lse, dOut }, { dqkv }) => {
    const d = p.headDim;
    const sum = new Float64Array(dqkv.length);
    forEachQuery(p, (at) => {
      const mean = dotAt(d, dOut, at.o, o, at.o);
      for (let s = 0; s <= at.time; s++) {
        const prob = Math.exp(p.scale * dotAt(d, qkv, at.q, qkv, at.k(s)) - lse[at.lse]!);
        const dScore = p.scale * prob * (dotAt(d, dOut, at.o, qkv, at.v(s)) - mean);
        for (let i = 0; i < d; i++) {
          sum[at.q + i]! += dScore * qkv[at.k(s) + i]!;
          sum[at.k(s) + i]! += dScore * qkv[at.q + i]!;
          sum[at.v(s) + i]! += prob * dOut[at.o + i]!;
        }
      }
    });
    dqkv.set(sum);
  },

  // do = Σ_s P·(dS − Σ P·dS)·v + P·dv, and Σ_s (Σ P·dS)·P·v = (Σ P·dS)·o.
  attentionJvp: (p, { qkv, o, lse, dqkv }, { dOut }) => {
    const d = p.headDim;
    forEachQuery(p, (at) => {
      const out = new Float64Array(d);
      let mean = 0;
      for (let s = 0; s <= at.time; s++) {
        const prob = Math.exp(p.scale * dotAt(d, qkv, at.q, qkv, at.k(s)) - lse[at.lse]!);
        const dScore = p.scale * (dotAt(d, dqkv, at.q, qkv, at.k(s)) + dotAt(d, qkv, at.q, dqkv, at.k(s)));
        mean += prob * dScore;
        for (let i = 0; i < d; i++) out[i]! += prob * (dScore * qkv[at.v(s) + i]! + dqkv[at.v(s) + i]!);
      }
      for (let i = 0; i < d; i++) dOut[at.o + i] = out[i]! - mean * o[at.o + i]!;
    });
  },
};
