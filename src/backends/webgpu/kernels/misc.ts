/** Rotary positions, random numbers, dropout. */
import { sizeOf } from "../../../tensor/shape.ts";
import { elementwise as each, f32, type Launchers, operandsOf, u32 } from "../context.ts";
import { ROPE_BLOCK } from "../blocks.ts";
import { PRECISE } from "./elementwise.ts";

/** Returns the least power of two that is at least x. */
const powerFrom = (x: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, x)));

/** Threefry-2x32, 20 rounds (Salmon et al. 2011), of the scalars key0 and key1. */
const THREEFRY = `
fn turn(x: u32, by: u32) -> u32 { return (x << by) | (x >> (32u - by)); }
fn block(counter: u32) -> vec2u {
  let keys = array<u32, 3>(p.key0, p.key1, 0x1bd11bdau ^ p.key0 ^ p.key1);
  var x = vec2u(p.key0, counter + p.key1);
  let turns = array<array<u32, 4>, 2>(array<u32, 4>(13u, 15u, 26u, 6u), array<u32, 4>(17u, 29u, 16u, 24u));
  for (var round = 0u; round < 5u; round++) {
    for (var step = 0u; step < 4u; step++) {
      x.x += x.y;
      x.y = turn(x.y, turns[round % 2u][step]) ^ x.x;
    }
    x.x += keys[(round + 1u) % 3u];
    x.y += keys[(round + 2u) % 3u] + round + 1u;
  }
  return x;
}
`;

export const misc: Pick<Launchers, "rope" | "random" | "dropout"> = {
  rope(context, { batch, time, cols, heads, headDim, theta, offset, inverse }, { x }, { y }) {
    const half = headDim / 2;
    // cos and sin of every position and pair are computed in doubles, since single precision loses most digits of angles of thousands of radians.
    // One table serves all lengths up to the next power of two; tables of later positions begin at multiples of a block.
    const block = Math.max(ROPE_BLOCK, powerFrom(time));
    const begin = offset - (offset % block);
    const most = powerFrom(offset - begin + time);
    const angles = context.constant(`rope ${begin} ${most} ${headDim} ${theta}`, () => {
      const table = new Float32Array(2 * most * half);
      for (let t = 0; t < most; t++)
        for (let i = 0; i < half; i++) {
          const angle = (begin + t) * theta ** ((-2 * i) / headDim);
          table[2 * (t * half + i)] = Math.cos(angle);
          table[2 * (t * half + i) + 1] = Math.sin(angle);
        }
      return table;
    });
    each(context, batch * time * cols, {
      key: `rope ${headDim}`,
      operands: operandsOf({ x, angles }, { y }),
      scalars: {
        time: u32(time),
        first: u32(offset - begin),
        cols: u32(cols),
        rotated: u32(heads * headDim),
        sign: f32(inverse ? -1 : 1),
      },
      // One invocation rotates both members of a pair, so that y may be x.
      body: `  let col = i % p.cols;
  if (col >= p.rotated) { set_y(i, x(i)); return; }
  let j = col % ${headDim}u;
  if (j >= ${half}u) { return; }
  let at = 2u * ((p.first + (i / p.cols) % p.time) * ${half}u + j);
  let c = angles(at);
  let s = p.sign * angles(at + 1u);
  let a = x(i);
  let b = x(i + ${half}u);
  set_y(i, a * c - b * s);
  set_y(i + ${half}u, b * c + a * s);`,
    });
  },
  random(context, { kind, key0, key1, offset }, _, { out }) {
    const count = sizeOf(out.shape);
    each(context, Math.ceil(count / 2), {
      key: `random ${kind}`,
      operands: operandsOf({}, { out }),
      scalars: {
        key0: u32(key0 >>> 0),
        key1: u32(key1 >>> 0),
        offset: u32(offset >>> 0),
        elements: u32(count),
      },
      declarations: `${PRECISE}${THREEFRY}
fn unit(word: u32) -> f32 { return f32(word >> 8u) * ${2 ** -24}; }`,
      body: `  let words = block(p.offset + i);
${
  kind === "bits"
    ? "  let first = bitcast<i32>(words.x);\n  let second = bitcast<i32>(words.y);"
    : kind === "uniform"
      ? "  let first = unit(words.x);\n  let second = unit(words.y);"
      : `  let radius = sqrt(-2.0 * log_precise(f32((words.x >> 8u) + 1u) * ${2 ** -24}));
  let angle = 6.283185307179586 * unit(words.y);
  let first = radius * cos_precise(angle);
  let second = radius * sin_precise(angle);`
}
  set_out(2u * i, first);
  if (2u * i + 1u < p.elements) { set_out(2u * i + 1u, second); }`,
    });
  },
  dropout(context, { threshold, scale, key0, key1 }, { x }, { y }) {
    const count = sizeOf(x.shape);
    each(context, Math.ceil(count / 2), {
      key: "dropout",
      operands: operandsOf({ x }, { y }),
      scalars: {
        ...{ key0: u32(key0 >>> 0), key1: u32(key1 >>> 0), threshold: u32(threshold) },
        ...{ scale: f32(scale), elements: u32(count) },
      },
      declarations: THREEFRY,
      body: `  let words = block(i) >> vec2u(8u);
  set_y(2u * i, select(p.scale * x(2u * i), 0.0, words.x < p.threshold));
  if (2u * i + 1u < p.elements) { set_y(2u * i + 1u, select(p.scale * x(2u * i + 1u), 0.0, words.y < p.threshold)); }`,
    });
  },
};
