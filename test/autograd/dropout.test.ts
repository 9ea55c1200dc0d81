/** Dropout: the mask is exact on every backend, differs by stream and is the same in the backward pass; its rate and its mean. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  dropout,
  foldIn,
  grad,
  key,
  less,
  mul,
  ones,
  randomUniform,
  sum,
  tensor,
  type Tensor,
  vjp,
} from "gradmix";
import type { Backend } from "#dist/backends/backend.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { threefry2x32 } from "#dist/tensor/rng.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";

const COUNT = 40_001;
const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
/** 1 for what stays. */
const mask = async (t: Tensor): Promise<number[]> => (await numbers(t)).map((x) => (x === 0 ? 0 : 1));

describe.each(backends)("on $name", ({ create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
    setCurrentMemory(backend);
  });
  afterAll(() => backend.dispose());

  it("drops exactly the elements whose random word is below the rate", async () => {
    for (const [rate, seed, stream] of [
      [0.1, 1, 0],
      [0.5, 2 ** 33 + 5, 7],
      [0.9, 0, 2 ** 34 + 1],
    ] as const) {
      const [key0, key1] = foldIn(key(seed), stream);
      const want = Array.from({ length: COUNT }, (_, n) =>
        threefry2x32(key0, key1, 0, n >> 1)[n & 1] >>> 8 < rate * 2 ** 24 ? 0 : 1,
      );
      expect(await mask(dropout(ones([COUNT]), rate, { seed, stream }))).toEqual(want);
      // The mask does not depend on the shape, and equals that from the public random numbers.
      const [rows, cols] = [127, 314];
      const whole = dropout(ones([rows, cols]), rate, { seed, stream });
      expect(await mask(whole)).toEqual(want.slice(0, rows * cols));
      const drawn = less(randomUniform(foldIn(key(seed), stream), [COUNT]), rate);
      const dropped = (await numbers(drawn)).map((yes) => 1 - yes);
      expect(dropped).toEqual(want);
    }
  });

  it("drops the given share, keeps the mean, and differs between seeds and between streams", async () => {
    const rate = 0.3;
    const kept: number[][] = [];
    for (const options of [{ seed: 5 }, { seed: 5, stream: 0 }, { seed: 5, stream: 1 }, { seed: 6 }]) {
      const y = await numbers(dropout(ones([COUNT]), rate, options));
      const mean = y.reduce((a, b) => a + b, 0) / COUNT;
      // Six standard deviations.
      expect(Math.abs(mean - 1)).toBeLessThan(6 * Math.sqrt(rate / (1 - rate) / COUNT));
      expect(new Set(y)).toEqual(new Set([0, Math.fround(1 / (1 - rate))]));
      kept.push(y.map((x) => (x === 0 ? 0 : 1)));
    }
    expect(kept[1]).toEqual(kept[0]);
    for (const other of [kept[2], kept[3]]) {
      // Two independent masks both keep an element with probability 0.7².
      const both = kept[0].reduce((count, yes, n) => count + yes * other[n], 0) / COUNT;
      expect(Math.abs(both - 0.49)).toBeLessThan(6 * Math.sqrt((0.49 * 0.51) / COUNT));
    }
  });

  it("uses the same mask in first and second derivatives, and stores no memory for it", async () => {
    const [x, weights] = [1, 2].map((seed) => tensor(values(501, seed, 0.5, 2), [3, 167]));
    const options = { seed: 9, stream: 4 };
    const fn = (t: Tensor): Tensor => dropout(t, 0.4, options);
    const y = await mask(fn(x));
    const [slope] = grad((t) => sum(mul(fn(t), weights)))(x);
    expect(await numbers(slope)).toEqual(await numbers(fn(weights)));
    expect(await mask(slope)).toEqual(y);
    const [twice] = grad((ct) => sum(vjp(fn, [x]).pullback([ct])[0]))(weights);
    expect(await mask(twice)).toEqual(y);
    const before = backend.liveBytes;
    const { outputs, pullback } = vjp(fn, [x]);
    const bytes = 4 * x.size;
    expect(backend.liveBytes - before).toBe(bytes);
    const [back] = pullback([weights]);
    for (const t of [...outputs, back]) t.dispose();
    expect(backend.liveBytes).toBe(before);
  });

  it("at rate 0 returns x to the bit", async () => {
    const data = [NaN, -0, Infinity, 3, 1e-42];
    const x = tensor(data);
    const same = dropout(x, 0, { seed: 1 });
    // Nothing is computed, and no memory taken.
    expect(same.buffer).toBe(x.buffer);
    const got = await numbers(same);
    expect(got.every((value, n) => Object.is(value, Math.fround(data[n])))).toBe(true);
  });
});
