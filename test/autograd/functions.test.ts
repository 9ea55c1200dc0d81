/** The public functions against plain loops in doubles: defaults, numbers as operands, negative axes, broadcasting. */
import fc from "fast-check";
import {
  abs,
  add,
  arange,
  argmax,
  broadcastTo,
  cast,
  causalAttention,
  concat,
  div,
  equal,
  eye,
  full,
  gelu,
  greater,
  greaterEqual,
  key,
  layerNorm,
  less,
  lessEqual,
  logicalAnd,
  logicalNot,
  logicalOr,
  logSumExp,
  matmul,
  max,
  maximum,
  mean,
  min,
  minimum,
  mul,
  notEqual,
  oneHot,
  ones,
  type Operand,
  pad,
  pow,
  randomBits,
  randomNormal,
  randomUniform,
  reshape,
  rmsNorm,
  rope,
  slice,
  sub,
  sum,
  tensor,
  type Tensor,
  topk,
  transpose,
  variance,
  where,
  zeros,
} from "gradmix";
import { beforeEach, describe, expect, test } from "vitest";
import { grad, jvp, vjp } from "#dist/autograd/grad.js";
import { ops } from "#dist/autograd/ops/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";
import { expectNear } from "../near.ts";
import { applySample, samples, upload } from "./samples.ts";

beforeEach(() => void setCurrentMemory(createReferenceBackend({ precision: "f64" })));

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const filled = (shape: readonly number[], seed = 1): { data: number[]; t: Tensor } => {
  const data = values(sizeOf(shape), seed);
  return { data, t: tensor(data, shape) };
};

/** The multi-index of element n. */
const indexOf = (n: number, shape: readonly number[]): number[] => {
  const index = new Array<number>(shape.length).fill(0);
  for (let axis = shape.length - 1, rest = n; axis >= 0; rest = Math.floor(rest / shape[axis]), axis--)
    index[axis] = rest % shape[axis];
  return index;
};
/** The element of `shape` at an index, of which leading axes and those of extent 1 are left out: broadcasting. */
const placeOf = (index: readonly number[], shape: readonly number[]): number =>
  shape.reduce((place, extent, axis) => {
    const i = index[axis + index.length - shape.length];
    return place * extent + (extent === 1 ? 0 : i);
  }, 0);

async function expectTensor(t: Tensor, shape: readonly number[], data: readonly number[]): Promise<void> {
  expect(t.shape).toEqual(shape);
  expectNear(await numbers(t), data, 1e-12, Math.max(1, ...data.map(Math.abs)));
}

const shape = fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 4 });

describe("reductions", () => {
  const functions: readonly [string, typeof sum, (xs: number[]) => number][] = [
    ["sum", sum, (xs) => xs.reduce((a, b) => a + b, 0)],
    ["mean", mean, (xs) => xs.reduce((a, b) => a + b, 0) / xs.length],
    ["max", max, (xs) => Math.max(...xs)],
    ["min", min, (xs) => Math.min(...xs)],
    ["logSumExp", (x, axis) => logSumExp(x, axis), (xs) => Math.log(xs.reduce((a, b) => a + Math.exp(b), 0))],
  ];

  test.each(functions)(
    "%s: over all axes, one axis, axes counted from the end, or a list of axes",
    async (name, f, of) => {
      const axes = shape.chain((shape) =>
        fc.record({
          shape: fc.constant(shape),
          which: fc.subarray([...shape.keys()], { minLength: 1 }),
          turned: fc.boolean(),
          from: fc.constantFrom("all", "start", "end"),
          keepDims:
            name === "logSumExp" ? fc.constant(undefined) : fc.option(fc.boolean(), { nil: undefined }),
        }),
      );
      await fc.assert(
        fc.asyncProperty(axes, async ({ shape, which, turned, from, keepDims }) => {
          const { data, t } = filled(shape);
          const over = from === "all" ? [...shape.keys()] : which;
          const named = (turned ? over.toReversed() : over).map((a) =>
            from === "end" ? a - shape.length : a,
          );
          const axis = from === "all" ? undefined : named.length === 1 ? named[0] : named;
          const kept = shape.map((extent, a) => (over.includes(a) ? 1 : extent));
          const groups = Array.from({ length: sizeOf(kept) }, () => new Array<number>());
          data.forEach((x, n) => groups[placeOf(indexOf(n, shape), kept)].push(x));
          const wanted = keepDims === true ? kept : shape.filter((_, a) => !over.includes(a));
          await expectTensor(f(t, axis, keepDims), wanted, groups.map(of));
        }),
      );
    },
  );
});

/** Rounded to a few values, so that many are equal. */
const halves = (x: Tensor | number): Tensor | number =>
  typeof x === "number" ? Math.trunc(2 * x) : cast(cast(mul(x, 2), "i32"), "f32");
const absolute = (x: Tensor | number): Tensor | number => (typeof x === "number" ? Math.abs(x) : abs(x));

describe("two operands", () => {
  type Binary = (a: Operand, b: Operand) => Tensor;
  const functions: readonly [string, Binary, (a: number, b: number) => number][] = [
    ["add", add, (a, b) => a + b],
    ["sub", sub, (a, b) => a - b],
    ["mul", mul, (a, b) => a * b],
    ["div", div, (a, b) => a / b],
    ["maximum", maximum, Math.max],
    ["minimum", minimum, Math.min],
    ["pow", (a, b) => pow(absolute(a), b), (a, b) => Math.abs(a) ** b],
    ...[
      ["equal", equal, (a: number, b: number) => a === b] as const,
      ["notEqual", notEqual, (a: number, b: number) => a !== b] as const,
      ["less", less, (a: number, b: number) => a < b] as const,
      ["lessEqual", lessEqual, (a: number, b: number) => a <= b] as const,
      ["greater", greater, (a: number, b: number) => a > b] as const,
      ["greaterEqual", greaterEqual, (a: number, b: number) => a >= b] as const,
    ].map(([name, f, of]): [string, Binary, (a: number, b: number) => number] => [
      name,
      (a, b) => f(halves(a), halves(b)),
      (a, b) => Number(of(Math.trunc(2 * a), Math.trunc(2 * b))),
    ]),
    ["where", (a, b) => where(tensor([0], [1], "i32"), b, a), (a) => a],
  ];

  test.each(functions)("%s: operands broadcast, and either one may be a number", async (_, f, of) => {
    const broadcast = shape.chain((whole) =>
      fc.record({
        whole: fc.constant(whole),
        ones: fc.array(fc.boolean(), { minLength: whole.length, maxLength: whole.length }),
        lead: fc.nat(whole.length),
        turned: fc.boolean(),
      }),
    );
    await fc.assert(
      fc.asyncProperty(broadcast, async ({ whole, ones, lead, turned }) => {
        const part = whole.map((extent, a) => (ones[a] ? 1 : extent)).slice(lead);
        const [a, b] = [filled(whole, 2), filled(part, 3)];
        const want = a.data.map((x, n) => {
          const y = b.data[placeOf(indexOf(n, whole), part)];
          return turned ? of(y, x) : of(x, y);
        });
        await expectTensor(turned ? f(b.t, a.t) : f(a.t, b.t), whole, want);
        const number = 0.75;
        await expectTensor(
          f(a.t, number),
          whole,
          a.data.map((x) => of(x, number)),
        );
        await expectTensor(
          f(number, a.t),
          whole,
          a.data.map((x) => of(number, x)),
        );
      }),
      { numRuns: 50 },
    );
  });
});

test("logic: every value other than 0 counts as true; results are 0 and 1", async () => {
  const [a, b] = [
    [0, 0, 1, -3, 2],
    [0, 5, 0, -3, 1],
  ].map((data) => tensor(data, [5], "i32"));
  for (const [t, want] of [
    [logicalNot(a), [1, 1, 0, 0, 0]],
    [logicalAnd(a, b), [0, 0, 0, 1, 1]],
    [logicalOr(a, b), [0, 1, 1, 1, 1]],
    [logicalOr(a, 0), [0, 0, 1, 1, 1]],
    [equal(a, b), [1, 0, 0, 1, 0]],
  ] as const) {
    expect(t.dtype).toBe("i32");
    await expectTensor(t, [5], want);
  }
  expect(() => less(a, ones([5]))).toThrow(/^less: the operands are i32 and f32/);
  expect(() => less(a, 0.5)).toThrow(/^less: 0.5 is not an integer of 32 bits/);
  for (const [name, f] of [["logicalAnd", logicalAnd], ["logicalOr", logicalOr]] as const)
    for (const other of [ones([5]), 1])
      expect(() => f(ones([5]), other)).toThrow(new RegExp(`^${name}: the first operand is f32, i32 is needed`)); // prettier-ignore
  expect(() => logicalNot(ones([5]))).toThrow(/^logicalNot: the condition is f32, i32 is needed/);
});

test("pow: at b = 0 the derivative by a is 0, and the derivative of that by b is a^−1", async () => {
  const [a, b] = [tensor([0.5, 2, 64]), tensor([0, 0, 0])];
  const slope = (b: Tensor): Tensor => grad((a) => sum(pow(a, b)))(a)[0];
  await expectTensor(slope(b), [3], [0, 0, 0]);
  await expectTensor(grad((b) => sum(slope(b)))(b)[0], [3], [2, 0.5, 1 / 64]);
});

test("oneHot returns one row per index: zeros for a negative index, NaN for an index beyond the classes", async () => {
  const t = oneHot(tensor([1, -1, 0, 3], [2, 2], "i32"), 3);
  await expectTensor(slice(t, [0, 0, 0], [1, 2, 3]), [1, 2, 3], [0, 1, 0, 0, 0, 0]);
  expect((await numbers(t)).slice(6)).toEqual([1, 0, 0, NaN, NaN, NaN]);
});

test("gelu uses the tanh approximation by default, and x·Φ(x) on request; the two differ by less than 5e-4", async () => {
  const x = tensor(Array.from({ length: 2001 }, (_, n) => n / 100 - 10));
  const [byDefault, byTanh, exact] = await Promise.all(
    [gelu(x), gelu(x, { approximate: "tanh" }), gelu(x, { approximate: "none" })].map(numbers),
  );
  expect(byDefault).toEqual(byTanh);
  const apart = Math.max(...exact.map((y, n) => Math.abs(y - byTanh[n])));
  expect(apart).toBeGreaterThan(4e-4);
  expect(apart).toBeLessThan(5e-4);
});

describe("shapes", () => {
  test("transpose swaps the last two axes, or applies a permutation whose axes may count from either end", async () => {
    const permuted = shape
      .filter((shape) => shape.length >= 2)
      .chain((shape) =>
        fc.record({
          shape: fc.constant(shape),
          perm: fc.option(fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }), {
            nil: undefined,
          }),
          fromEnd: fc.boolean(),
        }),
      );
    await fc.assert(
      fc.asyncProperty(permuted, async ({ shape, perm, fromEnd }) => {
        const { data, t } = filled(shape);
        const rank = shape.length;
        const order = perm ?? [...Array(rank - 2).keys(), rank - 1, rank - 2];
        const turned = order.map((a) => shape[a]);
        const want = new Array<number>(data.length);
        data.forEach((x, n) => {
          const index = indexOf(n, shape);
          want[
            placeOf(
              order.map((a) => index[a]),
              turned,
            )
          ] = x;
        });
        await expectTensor(transpose(t, fromEnd ? perm?.map((a) => a - rank) : perm), turned, want);
      }),
    );
  });

  test("concat undoes slice, along an axis counted from either end; pad puts a window back in its place", async () => {
    const cuts = shape.chain((shape) =>
      fc.record({
        shape: fc.constant(shape),
        axis: fc.nat(shape.length - 1),
        cut: fc.nat(3),
        fromEnd: fc.boolean(),
      }),
    );
    await fc.assert(
      fc.asyncProperty(cuts, async ({ shape, axis, cut, fromEnd }) => {
        const { data, t } = filled(shape);
        const at = Math.min(cut, shape[axis]);
        const window = (from: number, to: number): [number[], number[]] => [
          shape.map((_, a) => (a === axis ? from : 0)),
          shape.map((extent, a) => (a === axis ? to - from : extent)),
        ];
        const parts = [slice(t, ...window(0, at)), slice(t, ...window(at, shape[axis]))];
        await expectTensor(concat(parts, fromEnd ? axis - shape.length : axis), shape, data);
        const [starts] = window(at, shape[axis]);
        const want = data.map((x, n) => (indexOf(n, shape)[axis] >= at ? x : 0));
        await expectTensor(pad(parts[1], starts, shape), shape, want);
      }),
    );
  });

  test("reshape infers one extent; broadcastTo repeats", async () => {
    await fc.assert(
      fc.asyncProperty(shape, fc.nat(3), fc.nat(2), async (shape, at, lead) => {
        const { data, t } = filled(shape);
        const axis = at % shape.length;
        await expectTensor(
          reshape(
            t,
            shape.map((extent, a) => (a === axis ? -1 : extent)),
          ),
          shape,
          data,
        );
        const wide = [...[2, 3].slice(0, lead), ...shape.map((extent) => (extent === 1 ? 2 : extent))];
        const want = Array.from({ length: sizeOf(wide) }, (_, n) => data[placeOf(indexOf(n, wide), shape)]);
        await expectTensor(broadcastTo(t, wide), wide, want);
      }),
    );
  });

  test("matmul broadcasts leading axes", async () => {
    const [a, b] = [filled([2, 1, 2, 3], 4), filled([3, 3, 2], 5)];
    const want = Array.from({ length: 2 * 3 * 2 * 2 }, (_, n) => {
      const [i, j, r, c] = indexOf(n, [2, 3, 2, 2]);
      return [0, 1, 2].reduce((s, k) => s + a.data[(i * 2 + r) * 3 + k] * b.data[(j * 3 + k) * 2 + c], 0);
    });
    await expectTensor(matmul(a.t, b.t), [2, 3, 2, 2], want);
    const both = matmul(transpose(a.t), transpose(b.t), { transposeA: true, transposeB: true });
    await expectTensor(both, [2, 3, 2, 2], want);
  });
});

test("the default ε is 1e-5, and the default θ of rope is 10,000", async () => {
  const { t } = filled([2, 3, 4]);
  const tiny = mul(t, 1e-3);
  const plain = ones([4]);
  await expectTensor(layerNorm(tiny), [2, 3, 4], await numbers(layerNorm(tiny, plain, zeros([4]), 1e-5)));
  await expectTensor(rmsNorm(tiny), [2, 3, 4], await numbers(rmsNorm(tiny, plain, 1e-5)));
  const heads = { heads: 1, headDim: 4 };
  await expectTensor(rope(t, heads), [2, 3, 4], await numbers(rope(t, { ...heads, theta: 10_000 })));
});

test.each(["sum", "max", "min"])(
  "the op %s itself refuses axes that are unsorted, repeated or missing",
  (name) => {
    const { t } = filled([2, 3]);
    for (const axes of [[0, 0], [1, 0], [2], [-1], [0, 1, 1], [0.5]])
      expect(() => applySample(ops[name], [t], { axes, keepDims: false })).toThrow(/axis/);
  },
);

test("argmax refuses an axis without elements", () => {
  for (const shape of [[0], [2, 0], [0, 0]])
    expect(() => argmax(zeros(shape), -1)).toThrow(/^argmax: the extent of the axis: 0 does not fit/);
  expect(argmax(zeros([0, 2]), 1).shape).toEqual([0]);
});

test("invalid arguments are refused with the reason", () => {
  const { t } = filled([1, 2, 4]);
  for (const [heads, headDim] of [[2, 4], [3, 2], [1, 5], [1, 3]])
    expect(() => rope(t, { heads, headDim })).toThrow(
      `rope: ${heads} heads of ${headDim} columns do not fit x [1, 2, 4]; wanted [batch, time, columns] and an even head size`,
    ); // prettier-ignore
  expect(() => rope(filled([1, 2, 4, 4]).t, { heads: 1, headDim: 4 })).toThrow(/^rope: 1 heads of 4/);
  expect(() => rope(zeros([1, 2, 4], "i32"), { heads: 1, headDim: 4 })).toThrow(/^rope: x is i32, f32 is/);
  for (const theta of [0, -1])
    expect(() => rope(t, { heads: 1, headDim: 4, theta })).toThrow(/^rope: theta: -?\d does not fit/);
  expect(() => topk(t, 3, 1)).toThrow(
    /^topk: k: 3 does not fit; it must be an integer, at least 0 and at most 2$/,
  );
  for (const derive of [vjp, jvp])
    expect(() => derive((x) => x, [ones([1], "i32")], [ones([1])])).toThrow(
      new RegExp(`^${derive.name}: an input is i32; only f32 has derivatives`),
    );
  expect(() => variance(ones([3], "i32"))).toThrow(/^variance: x is i32, f32 is needed/);
  expect(() => reshape(t, [3, -1])).toThrow(
    /reshape: \[1, 2, 4\] has 8 elements, which do not divide into \[3, -1\]/,
  );
  // [0 query, 1 key and 1 value] heads of 2 would fill it.
  expect(() => causalAttention(t, { heads: 0, kvHeads: 1 })).toThrow(
    /causalAttention: heads: 0 does not fit/,
  );
});

test("constants have the given shape, type and value", async () => {
  for (const dtype of ["f32", "i32", undefined] as const) {
    const type = dtype ?? "f32";
    for (const [t, want] of [
      [zeros([2, 2], dtype), [0, 0, 0, 0]],
      [ones([2, 2], dtype), [1, 1, 1, 1]],
      [full([2, 2], 7, dtype), [7, 7, 7, 7]],
    ] as const) {
      expect(t.dtype).toBe(type);
      await expectTensor(t, [2, 2], want);
    }
    expect(arange(3, dtype).dtype).toBe(type);
    await expectTensor(arange(3, dtype), [3], [0, 1, 2]);
  }
  await expectTensor(eye(0), [0, 0], []);
  await expectTensor(eye(3), [3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1]);
  for (const [n, make] of [randomBits, randomUniform, randomNormal].entries()) {
    expect(make(key(1), [0, 2]).shape).toEqual([0, 2]);
    const [a, b, c] = [key(1), key(1), key(2)].map((k) => make(k, [5, 5]));
    expect(a.dtype).toBe(n === 0 ? "i32" : "f32");
    expect(await numbers(a)).toEqual(await numbers(b));
    expect(await numbers(a)).not.toEqual(await numbers(c));
  }
});

/** The samples of ops with more than one input to differentiate. */
const several = Object.keys(ops).flatMap((name) => {
  const some = samples[name].filter(
    ({ wrt, inputs }) => wrt === undefined && inputs().filter(({ dtype }) => dtype === "f32").length > 1,
  );
  return some.length > 0 ? [[name, some] as const] : [];
});

/** Subsets of one or two inputs, and their complements: rules sum terms of single inputs and of pairs. */
function subsets(all: readonly number[]): number[][] {
  const chosen: number[][] = [];
  for (let mask = 1; mask < 2 ** all.length - 1; mask++) {
    const some = all.filter((_, n) => (mask & (1 << n)) !== 0);
    if (Math.min(some.length, all.length - some.length) <= 2) chosen.push(some);
  }
  return chosen;
}

test.each(several)(
  "%s: derivatives by some inputs equal those by all inputs, with the others held constant",
  async (name, some) => {
    const op = ops[name];
    for (const sample of some) {
      const all = sample.inputs().map(upload);
      const wrt = all.flatMap((t, slot) => (t.dtype === "f32" ? [slot] : []));
      const along = (chosen: readonly number[]) => ({
        f: (...given: Tensor[]): Tensor[] =>
          applySample(
            op,
            all.map((t, slot) => (chosen.includes(slot) ? given[chosen.indexOf(slot)] : t)),
            sample.attrs,
          ),
        primals: chosen.map((slot) => all[slot]),
      });
      const whole = along(wrt);
      const tangents = new Map(
        wrt.map((slot) => [slot, tensor(values(all[slot].size, 7 + slot), all[slot].shape)]),
      );
      const outputs = whole.f(...whole.primals);
      const cotangents = outputs.map((t, n) => tensor(values(t.size, 20 + n), t.shape));
      const pulled = vjp(whole.f, whole.primals).pullback(cotangents);
      for (const chosen of subsets(wrt)) {
        const { f, primals } = along(chosen);
        const still = wrt.map((slot) =>
          chosen.includes(slot) ? (tangents.get(slot) ?? expect.unreachable()) : zeros(all[slot].shape),
        );
        const want = jvp(whole.f, whole.primals, still).tangents;
        const got = jvp(
          f,
          primals,
          chosen.map((slot) => tangents.get(slot) ?? expect.unreachable()),
        ).tangents;
        for (const [n, t] of got.entries()) await expectTensor(t, want[n].shape, await numbers(want[n]));
        for (const [n, t] of vjp(f, primals).pullback(cotangents).entries()) {
          const all = pulled[wrt.indexOf(chosen[n])];
          await expectTensor(t, all.shape, await numbers(all));
        }
      }
    }
  },
);
