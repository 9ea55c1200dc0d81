/** Random fill and dropout from Threefry-2x32 (tensor/rng.ts). */
import { threefry2x32 } from "../../tensor/rng.ts";
import type { Kernels } from "./kernel.ts";

const STEP = 2 ** -24;

export const random: Kernels<"random" | "dropout"> = {
  random: (p, _inputs, { out }) => {
    for (let i = 0; i < out.length; i += 2) {
      const words = threefry2x32(p.key0, p.key1, 0, (p.offset + i / 2) >>> 0);
      const pair = p.kind === "normal" ? boxMuller(words) : p.kind === "uniform" ? words.map(unit) : words;
      out[i] = pair[0]!;
      if (i + 1 < out.length) out[i + 1] = pair[1]!;
    }
  },

  dropout: (p, { x }, { y }) => {
    for (let i = 0; i < x.length; i++) {
      const word = threefry2x32(p.key0, p.key1, 0, (i >> 1) >>> 0)[i & 1]!;
      y[i] = word >>> 8 < p.threshold ? 0 : p.scale * x[i]!;
    }
  },
};

/** Returns a number in [0, 1) from the top 24 bits. */
function unit(word: number): number {
  return (word >>> 8) * STEP;
}

function boxMuller([first, second]: [number, number]): [number, number] {
  const radius = Math.sqrt(-2 * Math.log(((first >>> 8) + 1) * STEP));
  const angle = 2 * Math.PI * unit(second);
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}
