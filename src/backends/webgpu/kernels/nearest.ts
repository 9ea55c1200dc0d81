/** The largest score of each row. For one block of rows at a time, `gemm` computes the scores, always in single precision, and then the largest of each row is found. */
import type { View } from "../../../tensor/memory.ts";
import { NEAREST_SCORES } from "../blocks.ts";
import { type Launchers } from "../context.ts";
import { along } from "./along.ts";
import { gemm } from "./gemm.ts";

export const nearest: Pick<Launchers, "nearest"> = {
  nearest(context, { rows, count, width }, { x, y, bias = null }, { ids, scores }) {
    const block = Math.max(1, Math.floor(NEAREST_SCORES / count));
    const single = { ...context, traits: { ...context.traits, rounds: false } };
    const all = context.scratch(Math.min(rows, block) * count);
    const part = ({ buffer, offset, dtype }: View, from: number, size: number): View => ({
      ...{ buffer, offset: offset + from, shape: [size], dtype },
    });
    for (let first = 0; first < rows; first += block) {
      const m = Math.min(block, rows - first);
      const found = part(all, 0, m * count);
      gemm.gemm(
        single,
        {
          ...{ m, n: count, k: width, transA: false, transB: true, batch: 1 },
          ...{ strideA: 0, strideB: 0, strideC: 0, alpha: 1, accumulate: false, activation: "none" },
        },
        { a: part(x, first * width, m * width), b: y, bias },
        { c: found },
      );
      const own = part(ids, first, m);
      along.topk(context, { outer: m, length: count, inner: 1, k: 1 }, { x: found }, { indices: own });
      along.takeAlong(
        context,
        { outer: m, length: count, inner: 1, count: 1 },
        { x: found, indices: own },
        { out: part(scores, first, m) },
      );
    }
  },
};
