/** Launchers of causal attention (assembly/attention.ts) and rotary positions (assembly/rope.ts). */
import type { AttentionParams } from "../../kernels/index.ts";
import {
  ATTENTION_KEYS as KEY_CHUNK,
  ATTENTION_PART,
  ATTENTION_QUERIES as QUERIES,
  ATTENTION_STRIP as STRIP,
} from "../blocks.ts";
import type { Launchers } from "./launcher.ts";

/** Number of tasks for a large call. Below it, heads are divided into parts; each part packs the keys again. */
const TASKS = 24;
const MOST_PARTS = 8;

const roundUp = (n: number, multiple: number): number => Math.ceil(n / multiple) * multiple;

/** How the queries of a head are divided. */
function parts(p: AttentionParams): { queries: number; count: number } {
  const heads = p.batch * p.heads;
  const partsWanted = Math.min(
    MOST_PARTS,
    Math.ceil(TASKS / Math.max(1, heads)),
    Math.ceil(p.time / ATTENTION_PART),
  );
  const queries = roundUp(Math.ceil(p.time / Math.max(1, partsWanted)), STRIP);
  return { queries, count: Math.ceil(p.time / queries) };
}

/** Operations of `products` causal products over all heads. */
const work = (p: AttentionParams, products: number): number =>
  products * p.batch * p.heads * p.time * p.time * p.headDim;

export const attention: Pick<Launchers, "attention" | "attentionVjp" | "attentionJvp" | "rope"> = {
  attention(runtime, p, { qkv }, { o, lse }) {
    if (p.time === 0) return;
    const { queries, count } = parts(p);
    const size = roundUp(p.headDim, 8);
    const time = roundUp(p.time, 8);
    runtime.launch({
      kernel: "attention",
      tasks: p.batch * p.heads * count,
      slots: {
        qkv: runtime.address(qkv),
        o: runtime.address(o),
        lse: runtime.address(lse),
        time: p.time,
        heads: p.heads,
        kvHeads: p.kvHeads,
        headDim: p.headDim,
        queriesPerTask: queries,
        parts: count,
        scale: p.scale,
      },
      scratch: 4 * (2 * size * time + STRIP * (size + time) + 136),
      work: work(p, 2),
    });
  },

  attentionVjp(runtime, p, { qkv, o, lse, dOut }, { dqkv }) {
    if (p.time === 0) return;
    const size = roundUp(p.headDim, 8);
    const time = roundUp(p.time, 8);
    runtime.launch({
      kernel: "attentionVjp",
      tasks: p.batch * p.kvHeads,
      slots: {
        qkv: runtime.address(qkv),
        o: runtime.address(o),
        lse: runtime.address(lse),
        dOut: runtime.address(dOut),
        dqkv: runtime.address(dqkv),
        time: p.time,
        heads: p.heads,
        kvHeads: p.kvHeads,
        headDim: p.headDim,
        scale: p.scale,
      },
      scratch: 4 * (5 * size * time + 3 * QUERIES * size + QUERIES + 2 * QUERIES * KEY_CHUNK + 64),
      work: work(p, 5),
    });
  },

  attentionJvp(runtime, p, { qkv, o, lse, dqkv }, { dOut }) {
    if (p.time === 0) return;
    const { queries, count } = parts(p);
    const size = roundUp(p.headDim, 8);
    const time = roundUp(p.time, 8);
    runtime.launch({
      kernel: "attentionJvp",
      tasks: p.batch * p.heads * count,
      slots: {
        qkv: runtime.address(qkv),
        o: runtime.address(o),
        lse: runtime.address(lse),
        dqkv: runtime.address(dqkv),
        dOut: runtime.address(dOut),
        time: p.time,
        heads: p.heads,
        kvHeads: p.kvHeads,
        headDim: p.headDim,
        queriesPerTask: queries,
        parts: count,
        scale: p.scale,
      },
      scratch: 4 * (4 * size * time + 2 * STRIP * (size + time) + 128),
      work: work(p, 5),
    });
  },

  rope(runtime, p, { x }, { y }) {
    const half = p.headDim / 2;
    const frequencies = Float64Array.from({ length: half + (half % 2) }, (_, i) => p.theta ** (-i / half));
    const perTask = Math.max(1, Math.floor(8192 / Math.max(1, p.batch * p.cols)));
    runtime.launch({
      kernel: "rope",
      tasks: Math.ceil(p.time / perTask),
      slots: {
        x: runtime.address(x),
        y: runtime.address(y),
        batch: p.batch,
        time: p.time,
        positionsPerTask: perTask,
        cols: p.cols,
        heads: p.heads,
        headDim: p.headDim,
        frequencies: runtime.integers(new Int32Array(frequencies.buffer)),
        inverse: p.inverse ? 1 : 0,
        offset: p.offset,
      },
      scratch: 4 * (p.headDim + 8),
      work: p.batch * p.time * p.cols * 2,
    });
  },
};
