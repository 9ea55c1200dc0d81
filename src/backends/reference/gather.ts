/** Embedding kernels: the row with the largest score, gather rows, scatter-add their gradients, and align those gradients without a table. */
import { GradmixError } from "../../errors.ts";
import { dotProduct, type Kernels, segmentRanges } from "./kernel.ts";

/** Returns ‖W‖² of a gradient, given by its nonzero rows. */
function squaredNorm(rows: ReadonlyMap<number, Float64Array>): number {
  let sum = 0;
  for (const row of rows.values()) sum += dotProduct(row, row);
  return sum;
}

export const gather: Kernels<"nearest" | "gather" | "scatterAdd" | "embeddingAlign"> = {
  nearest: (p, { x, y, bias }, { ids, scores }) => {
    for (let r = 0; r < p.rows; r++) {
      let best = -Infinity;
      let id = 0;
      for (let j = 0; j < p.count; j++) {
        let score = bias?.[j] ?? 0;
        for (let d = 0; d < p.width; d++) score += x[r * p.width + d]! * y[j * p.width + d]!;
        // NaN is larger than all numbers.
        if (j > 0 && !(score > best || (Number.isNaN(score) && !Number.isNaN(best)))) continue;
        best = score;
        id = j;
      }
      ids[r] = id;
      scores[r] = best;
    }
  },

  gather: (p, { table, ids }, { out }) => {
    for (let r = 0; r < p.rows; r++) {
      const id = ids[r]!;
      const known = id >= 0 && id < p.tableRows;
      for (let j = 0; j < p.width; j++) out[r * p.width + j] = known ? table[id * p.width + j]! : NaN;
    }
  },

  scatterAdd: (p, { x, ids }, { out }) => {
    const sum = p.accumulate ? Float64Array.from(out) : new Float64Array(out.length);
    for (let r = 0; r < p.rows; r++) {
      const id = ids[r]!;
      if (id < 0 || id >= p.tableRows) continue;
      for (let j = 0; j < p.width; j++) sum[id * p.width + j]! += x[r * p.width + j]!;
    }
    out.set(sum);
  },

  embeddingAlign: (p, { dy, ids, segments, groups = null, v = null }, { dots, sumsq, groupSumsq = null }) => {
    const ranges = segmentRanges("embeddingAlign", segments, p.rows);

    /** The rows of the table's gradient to which the rows start … end−1 contribute, each summed. */
    const touched = (start: number, end: number): Map<number, Float64Array> => {
      const gradient = new Map<number, Float64Array>();
      for (let r = start; r < end; r++) {
        const id = ids[r]!;
        if (id < 0 || id >= p.tableRows) continue;
        const row = gradient.get(id) ?? new Float64Array(p.width);
        gradient.set(id, row);
        for (let j = 0; j < p.width; j++) row[j]! += dy[r * p.width + j]!;
      }
      return gradient;
    };

    ranges.forEach(([start, end], s) => {
      const gradient = touched(start, end);
      let along = 0;
      if (v !== null)
        for (const [id, row] of gradient)
          along += dotProduct(row, v.subarray(id * p.width, (id + 1) * p.width));
      dots[s] = along;
      sumsq[s] = squaredNorm(gradient);
    });

    if (groupSumsq === null) return;
    if (groups === null)
      throw new GradmixError("shape", `embeddingAlign: "groupSumsq" needs the operand "groups"`);
    segmentRanges("embeddingAlign", groups, p.segmentCount).forEach(([first, last], g) => {
      // The segments of a group are consecutive, and so are their rows.
      groupSumsq[g] = squaredNorm(touched(segments[first]!, segments[last]!));
    });
  },
};
