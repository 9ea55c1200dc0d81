/** Kernels along an axis: running sums, the largest elements, elements by index. */
import type { Kernels } from "./kernel.ts";

/** Calls `visit` for every outer and inner index, with a function that gives the position of element l of an axis of `length`. */
function forEachColumn(
  { outer, inner }: { outer: number; inner: number },
  visit: (at: (length: number, l: number) => number) => void,
): void {
  for (let o = 0; o < outer; o++)
    for (let i = 0; i < inner; i++) visit((length, l) => (o * length + l) * inner + i);
}

/** Whether `a` is larger than `b`. NaN is larger than all numbers. */
const larger = (a: number, b: number): boolean => (Number.isNaN(a) ? !Number.isNaN(b) : a > b);

export const along: Kernels<"cumsum" | "topk" | "takeAlong" | "scatterAddAlong"> = {
  cumsum: (p, { x }, { y }) => {
    forEachColumn(p, (at) => {
      let sum = 0;
      for (let n = 0; n < p.length; n++) {
        const l = at(p.length, p.reverse ? p.length - 1 - n : n);
        sum += x[l]!;
        y[l] = sum;
      }
    });
  },

  topk: (p, { x }, { indices }) => {
    forEachColumn(p, (at) => {
      const value = (l: number): number => x[at(p.length, l)]!;
      const order = Array.from({ length: p.length }, (_, l) => l);
      order.sort((a, b) => (larger(value(a), value(b)) ? -1 : larger(value(b), value(a)) ? 1 : a - b));
      for (let n = 0; n < p.k; n++) indices[at(p.k, n)] = order[n]!;
    });
  },

  takeAlong: (p, { x, indices }, { out }) => {
    forEachColumn(p, (at) => {
      for (let c = 0; c < p.count; c++) {
        const index = indices[at(p.count, c)]!;
        out[at(p.count, c)] = index >= 0 && index < p.length ? x[at(p.length, index)]! : NaN;
      }
    });
  },

  scatterAddAlong: (p, { y, indices }, { out }) => {
    const sum = new Float64Array(out.length);
    forEachColumn(p, (at) => {
      for (let c = 0; c < p.count; c++) {
        const index = indices[at(p.count, c)]!;
        if (index >= 0 && index < p.length) sum[at(p.length, index)]! += y[at(p.count, c)]!;
      }
    });
    out.set(sum);
  },
};
