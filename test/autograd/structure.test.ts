/** Functions composed of other ops, and those that order or sum along an axis, against plain loops over random shapes. */
import fc from "fast-check";
import {
  type Tensor,
  add,
  argmax,
  attention,
  broadcastTo,
  causalAttention,
  concat,
  cumsum,
  einsum,
  grad,
  less,
  mul,
  pad,
  reshape,
  scope,
  slice,
  split,
  squeeze,
  stack,
  sub as subtract,
  sum,
  takeAlongAxis,
  tensor,
  topk,
  transpose,
  unsqueeze,
  variance,
  where,
} from "gradmix";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";

beforeEach(() => void setCurrentMemory(createReferenceBackend({ precision: "f64" })));

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const filled = (shape: readonly number[], seed = 1): { data: number[]; t: Tensor } => {
  const data = values(sizeOf(shape), seed);
  return { data, t: tensor(data, shape) };
};
const shape = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 });
/** A shape with one of its axes, as it may be named. */
const withAxis = fc
  .tuple(shape, fc.nat(3), fc.boolean())
  .map(([shape, at, fromEnd]) => ({ shape, axis: at % shape.length, fromEnd }));
const named = (
  { shape, axis, fromEnd }: { shape: number[]; axis: number; fromEnd: boolean },
  rank = shape.length,
) => (fromEnd ? axis - rank : axis);

/** Where the elements of each column along an axis are. */
function columnsOf(shape: readonly number[], axis: number): number[][] {
  const inner = sizeOf(shape.slice(axis + 1));
  const outer = sizeOf(shape.slice(0, axis));
  return Array.from({ length: outer * inner }, (_, n) =>
    Array.from(
      { length: shape[axis] },
      (_, l) => (Math.floor(n / inner) * shape[axis] + l) * inner + (n % inner),
    ),
  );
}

async function expectTensor(
  t: Tensor,
  shape: readonly number[],
  data: readonly number[],
  tolerance = 1e-12,
): Promise<void> {
  expect(t.shape).toEqual(shape);
  expectNear(await numbers(t), data, tolerance, Math.max(1, ...data.map(Math.abs)));
}

describe("split, stack, squeeze, unsqueeze", () => {
  test("split cuts into the given sizes, and concat undoes it", async () => {
    await fc.assert(
      fc.asyncProperty(withAxis, fc.array(fc.nat(2), { minLength: 1, maxLength: 4 }), async (at, sizes) => {
        const whole = at.shape.with(
          at.axis,
          sizes.reduce((a, b) => a + b, 0),
        );
        const { data, t } = filled(whole);
        const parts = split(t, sizes, named(at));
        expect(parts.map((part) => part.shape)).toEqual(sizes.map((size) => whole.with(at.axis, size)));
        await expectTensor(concat(parts, at.axis), whole, data);
        const extent = whole[at.axis];
        for (const count of [1, 2, 3].filter((n) => extent % n === 0))
          await expectTensor(concat(split(t, count, named(at)), at.axis), whole, data);
      }),
    );
  });

  test("a number divides the axis into so many equal parts, in order", async () => {
    const parts = split(tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), 2, 1); // prettier-ignore
    expect(await Promise.all(parts.map(numbers))).toEqual([[1, 2, 5, 6], [3, 4, 7, 8]]); // prettier-ignore
  });

  test("stack joins tensors along a new axis", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }), fc.nat(3), fc.integer({ min: 1, max: 3 }), fc.boolean(), async (shape, at, count, fromEnd) => {
        const axis = at % (shape.length + 1);
        const all = Array.from({ length: count }, (_, n) => filled(shape, n));
        const whole = shape.toSpliced(axis, 0, count);
        const want = new Array<number>(sizeOf(whole));
        columnsOf(whole, axis).forEach((column, c) => column.forEach((place, n) => (want[place] = all[n].data[c])));
        await expectTensor(stack(all.map(({ t }) => t), named({ shape: whole, axis, fromEnd })), whole, want);
      }),
    ); // prettier-ignore
  });

  test("squeeze undoes unsqueeze; by default it removes every axis of extent 1", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 4 }), fc.nat(4), fc.boolean(), async (shape, at, fromEnd) => {
        const axis = at % (shape.length + 1);
        const { data, t } = filled(shape);
        const wide = shape.toSpliced(axis, 0, 1);
        const name = named({ shape: wide, axis, fromEnd });
        await expectTensor(unsqueeze(t, name), wide, data);
        await expectTensor(squeeze(unsqueeze(t, name), name), shape, data);
        await expectTensor(squeeze(unsqueeze(t, name)), shape.filter((extent) => extent !== 1), data);
      }),
    ); // prettier-ignore
  });

  test("invalid arguments are refused with the reason", () => {
    const { t } = filled([2, 3]);
    expect([
      codeOf(() => split(t, 2, 1)),
      codeOf(() => split(t, [1, 1], 1)),
      codeOf(() => split(t, 0, 1)),
      codeOf(() => split(t, [4, -1], 1)),
      codeOf(() => stack([t, filled([3, 2]).t], 0)),
      codeOf(() => stack([], 0)),
      codeOf(() => stack(t as never, 0)),
      codeOf(() => concat(t as never, 0)),
      codeOf(() => concat([t, 3 as never], 0)),
      codeOf(() => squeeze(t, 1)),
      codeOf(() => unsqueeze(t, 3)),
    ]).toEqual([
      "shape: split: an axis of 3 does not divide into 2 equal parts; give their sizes",
      "shape: split: parts of [1, 1] make 2, the axis has 3",
      "config: split: the number of parts: 0 does not fit; it must be an integer of at least 1",
      "config: split: the size of a part: -1 does not fit; it must be an integer of at least 0",
      "shape: stack: tensor 1 is f32[3, 2], f32[2, 3] is needed",
      "shape: stack: no tensors were given",
      "shape: stack: what to join is an object, not a list of tensors",
      "shape: concat: what to join is an object, not a list of tensors",
      "shape: concat: operand 1 is 3, not a tensor",
      "shape: squeeze: axis 1 of [2, 3] has extent 3, not 1",
      "shape: unsqueeze: axis 3 is out of range for a tensor of rank 3",
    ]);
  });
});

describe("variance", () => {
  test("is right for each group, for any axes, correction and mean", async () => {
    const axes = shape.chain((shape) =>
      fc.record({
        shape: fc.constant(shape),
        which: fc.option(fc.subarray([...shape.keys()], { minLength: 1 }), { nil: undefined }),
        correction: fc.constantFrom(undefined, 0, 1, 0.5),
        keepDims: fc.boolean(),
        offset: fc.constantFrom(0, 1e6),
      }),
    );
    await fc.assert(
      fc.asyncProperty(axes, async ({ shape, which, correction, keepDims, offset }) => {
        const over = which ?? [...shape.keys()];
        const x = filled(shape).data.map((value) => value + offset);
        const kept = shape.map((extent, a) => (over.includes(a) ? 1 : extent));
        const groups = Array.from({ length: sizeOf(kept) }, () => new Array<number>());
        x.forEach((value, n) => {
          const place = shape.reduce(([at, rest], _, a) => {
            const stride = sizeOf(shape.slice(a + 1));
            return [at * kept[a] + (over.includes(a) ? 0 : Math.floor(rest / stride)), rest % stride];
          }, [0, n]); // prettier-ignore
          groups[place[0]].push(value);
        });
        const count = groups[0].length;
        const options = { keepDims, ...(correction !== undefined && { correction }) };
        if (count <= (correction ?? 1)) {
          expect(() => variance(tensor(x, shape), which, options)).toThrow(
            /^variance: 1 elements minus a correction of 1 leave/,
          );
          return;
        }
        const want = groups.map((group) => {
          const mean = group.reduce((a, b) => a + b) / count;
          return group.reduce((s, value) => s + (value - mean) ** 2, 0) / (count - (correction ?? 1));
        });
        const wanted = keepDims ? kept : shape.filter((_, a) => !over.includes(a));
        await expectTensor(variance(tensor(x, shape), which, options), wanted, want, 1e-9);
      }),
    );
  });

  test("its gradient is 2(x − mean)/(n − correction)", async () => {
    const x = [1, 2, 4, 9];
    const [slopes] = grad((t) => variance(t, 0))(tensor(x));
    expectNear(await numbers(slopes), x.map((value) => (2 * (value - 4)) / 3), 1e-14); // prettier-ignore
  });
});

/** The definition of einsum: for every index of the result, the sum over all others. */
function naiveEinsum(terms: readonly string[], result: string, extents: ReadonlyMap<string, number>, operands: readonly (readonly number[])[]): number[] {
  const labels = [...new Set((result + terms.join("")).split(""))];
  const sizes = labels.map((label) => extents.get(label) ?? 0);
  const place = (term: string, index: ReadonlyMap<string, number>): number =>
    term.split("").reduce((at, label) => at * (extents.get(label) ?? 0) + (index.get(label) ?? 0), 0);
  const out = new Array<number>(sizeOf(result.split("").map((label) => extents.get(label) ?? 0))).fill(0);
  for (let n = 0; n < sizeOf(sizes); n++) {
    const index = new Map<string, number>();
    let rest = n;
    labels.forEach((label, at) => {
      index.set(label, rest % sizes[at]);
      rest = Math.floor(rest / sizes[at]);
    });
    out[place(result, index)] += terms.reduce((product, term, o) => product * operands[o][place(term, index)], 1);
  }
  return out;
} // prettier-ignore

describe("einsum", () => {
  const term = fc.shuffledSubarray("abcd".split(""), { maxLength: 4 }).map((labels) => labels.join(""));
  const specs = fc.array(term, { minLength: 1, maxLength: 3 }).chain((terms) =>
    fc.record({
      terms: fc.constant(terms),
      result: fc.option(fc.shuffledSubarray([...new Set(terms.join("").split(""))]).map((labels) => labels.join("")), { nil: null }),
      extents: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 4, maxLength: 4 }),
      spaced: fc.boolean(),
    }),
  ); // prettier-ignore

  test("sums over the labels that the result does not have, for random specifications", async () => {
    await fc.assert(
      fc.asyncProperty(specs, async ({ terms, result, extents, spaced }) => {
        const extent = new Map("abcd".split("").map((label, n) => [label, extents[n]]));
        const all = terms.map((labels, n) => filled(labels.split("").map((label) => extent.get(label) ?? 0), n)); // prettier-ignore
        const count = (label: string): number => terms.join("").split(label).length - 1;
        const implied = "abcd"
          .split("")
          .filter((label) => count(label) === 1)
          .join("");
        const spec =
          terms.join(spaced ? " , " : ",") +
          (result === null ? "" : spaced ? " -> " + result : "->" + result);
        const wanted = result ?? implied;
        const found = einsum(spec, ...all.map(({ t }) => t));
        await expectTensor(found, wanted.split("").map((label) => extent.get(label) ?? 0), naiveEinsum(terms, wanted, extent, all.map(({ data }) => data))); // prettier-ignore
      }),
      { numRuns: 300 },
    );
  });

  test("its gradient by one operand is an einsum of the cotangent and the other operand", async () => {
    const [a, b, ct] = [filled([2, 3, 4], 1), filled([4, 3, 5], 2), filled([3, 5, 2], 3)];
    const slopes = grad((x, y) => sum(mul(einsum("bij,jik->ikb", x, y), ct.t)))(a.t, b.t);
    const extents = new Map("bijk".split("").map((label, n) => [label, [2, 3, 4, 5][n]]));
    await expectTensor(slopes[0], [2, 3, 4], naiveEinsum(["ikb", "jik"], "bij", extents, [ct.data, b.data]));
    await expectTensor(slopes[1], [4, 3, 5], naiveEinsum(["ikb", "bij"], "jik", extents, [ct.data, a.data]));
  });

  test.each([
    ["ii->i", /repeats "i" within "ii"; diagonals are not supported/],
    ["ij->ii", /repeats "i" within "ii"/],
    ["...j->j", /has an ellipsis, which is not supported/],
    ["i1->i", /has "1", which is not a label/],
    ["ij->k", /wants "k" in the result, but no operand has it/],
    ["ij->i->j", /has more than one "->"/],
    ["ij,jk->ik", /names 2 operands, but 1 were given/],
    ["i->i", /labels 1 axes of operand 0, which is \[2, 3\]/],
    ["", /labels 0 axes of operand 0/],
  ])("%j is refused", (spec, why) => {
    const { t } = filled([2, 3]);
    expect(codeOf(() => einsum(spec, t))).toMatch(why);
    expect(codeOf(() => einsum(spec, t))).toMatch(/^shape: einsum: /);
  });

  test("extents of one label must agree", () => {
    expect(codeOf(() => einsum("ij,kj->ik", filled([2, 3]).t, filled([2, 1]).t))).toBe(
      'shape: einsum: "ij,kj->ik" has "j" with extents 3 and 1 (operand 1 is [2, 1])',
    );
  });
});

describe.each(backends)("attention on $name", ({ create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  beforeEach(() => void setCurrentMemory(backend));
  afterAll(() => backend.dispose());

  const [B, H, T, D] = [2, 2, 6, 3];
  const qkv = () => [1, 2, 3].map((seed) => filled([B, H, T, D], seed).t);

  test("with `causal` it equals causalAttention, in values and gradients", async () => {
    const columns = filled([B, T, 3 * H * D], 5).t;
    const ct = filled([B, T, H * D], 6).t;
    const apart = (x: Tensor): Tensor => {
      const [q, k, v] = split(transpose(reshape(x, [B, T, 3 * H, D]), [0, 2, 1, 3]), 3, 1);
      return reshape(transpose(attention(q, k, v, { causal: true }), [0, 2, 1, 3]), [B, T, H * D]);
    };
    const whole = (x: Tensor): Tensor => causalAttention(x, { heads: H });
    expectNear(await numbers(apart(columns)), await numbers(whole(columns)), 1e-5);
    const [own, want] = [apart, whole].map((f) => grad((x) => sum(mul(f(x), ct)))(columns)[0]);
    expectNear(await numbers(own), await numbers(want), 1e-5);
  });

  test("a query at the end of a longer row of keys gives the same as in the whole row", async () => {
    const [q, k, v] = qkv();
    const whole = attention(q, k, v, { causal: true });
    const later = attention(split(q, [4, 2], 2)[1], k, v, { causal: true });
    expectNear(await numbers(later), await numbers(split(whole, [4, 2], 2)[1]), 1e-6);
  });

  test("a mask of integers hides keys where it is 0; a row without visible keys is 0 and has no gradient", async () => {
    const [q, k, v] = qkv();
    const shown = Array.from({ length: T * T }, (_, n) => (Math.floor(n / T) === 2 ? 0 : (n * 7) % 3));
    const mask = tensor(shown, [1, 1, T, T], "i32");
    const shifts = tensor(shown.map((x) => (x === 0 ? -Infinity : 0)), [1, 1, T, T]); // prettier-ignore
    const found = await numbers(attention(q, k, v, { mask }));
    expect(found).toEqual(await numbers(attention(q, k, v, { mask: shifts })));
    const slopes = await Promise.all(
      grad((...x) => sum(attention(x[0], x[1], x[2], { mask })))(q, k, v).map(numbers),
    );
    for (const data of [found, slopes[0]])
      for (let head = 0; head < B * H; head++)
        for (let t = 0; t < T; t++) {
          const row = data.slice((head * T + t) * D, (head * T + t + 1) * D);
          if (t === 2) expect(row.map(Math.abs)).toEqual([0, 0, 0]);
          else expect(row.some((x) => x !== 0)).toBe(true);
        }
    expect(slopes.flat().every(Number.isFinite)).toBe(true);
  });

  test("the content of a hidden key has no effect", async () => {
    const [q, k, v] = qkv();
    const mask = tensor(Array.from({ length: T }, (_, s) => (s === 3 ? 0 : 1)), [1, 1, 1, T], "i32"); // prettier-ignore
    const one = split(q, T, 2)[0];
    const with9 = async (t: Tensor): Promise<Tensor> =>
      tensor((await numbers(t)).map((x, n) => (Math.floor(n / D) % T === 3 ? 9 : x)), t.shape); // prettier-ignore
    expect(await numbers(attention(one, await with9(k), await with9(v), { mask }))).toEqual(
      await numbers(attention(one, k, v, { mask })),
    );
  });
});

test("attention refuses invalid arguments with the reason", () => {
  const [q, k] = [filled([2, 4, 3, 2]).t, filled([2, 3, 5, 2]).t];
  expect(codeOf(() => attention(q, k, k))).toMatch(
    /^shape: attention: q \[2, 4, 3, 2\] and k \[2, 3, 5, 2\] do not fit/,
  );
  const mask = filled([3, 1, 3, 3]).t;
  expect(codeOf(() => attention(q, q, q, { mask }))).toBe(
    "shape: attention: the mask [3, 1, 3, 3] does not fit; wanted [2 or 1, 4 or 1, 3, 3]",
  );
  const alone = filled([1, 1, 3, 2]).t;
  expect(codeOf(() => attention(alone, alone, alone, { mask }))).toMatch(/; wanted \[1, 1, 3, 3\]$/);
  expect(codeOf(() => causalAttention(q, q as never))).toBe(
    "config: causalAttention: the options are a tensor; q, k and v are one tensor here, joined in the last axis, and attention takes them one by one",
  );
  expect(codeOf(() => attention(q, q, q, q as never))).toBe(
    "config: attention: the options are a Tensor, not an object",
  );
});

test("an op of integers and a number is refused by its own name", () => {
  const integers = tensor(Int32Array.of(1, 2));
  for (const [name, op] of Object.entries({ add, sub: subtract, mul }))
    for (const call of [() => op(integers, 2), () => op(2, integers)])
      expect(codeOf(call)).toBe(`shape: ${name}: the tensor is i32, f32 is needed`);
});

test.each(backends)("a product with a number keeps the sign of 0: on $name", async ({ create }) => {
  const backend = await create();
  setCurrentMemory(backend);
  const x = tensor([0, -0, 1, -1]);
  const signs = async (t: Tensor): Promise<string> =>
    Array.from(await t.data(), (value) => (Object.is(value, -0) ? "-0" : String(value))).join(" ");
  expect(await signs(mul(x, -1))).toBe("-0 0 -1 1");
  expect(await signs(mul(2, x))).toBe("0 -0 2 -2");
  expect(await signs(mul(x, 0))).toBe("0 -0 0 -0");
  expect(await signs(grad((t) => sum(mul(mul(t, -1), x)))(x)[0])).toBe("-0 0 -1 1");
  await backend.dispose();
});

/** Shapes of up to nine axes; those of extent 1 and those that can be merged are many, but not all. */
const manyAxes = fc
  .tuple(fc.array(fc.constantFrom<number>(1, 2, 2, 3), { minLength: 5, maxLength: 9 }), fc.nat(40))
  // Now and then an axis has no elements.
  .map(([shape, none]) => (none < shape.length ? shape.with(none, 0) : shape))
  .filter((shape) => sizeOf(shape) <= 2000);

describe.each(backends)("many axes on $name", ({ name, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  beforeEach(() => void setCurrentMemory(backend));
  afterAll(() => backend.dispose());
  const numRuns = name.startsWith("webgpu") ? 3 : 40;

  /** The element of `shape` at an index of the whole; axes of extent 1 are broadcast. */
  const placeOf = (index: readonly number[], shape: readonly number[]): number =>
    shape.reduce((at, extent, axis) => at * extent + (extent === 1 ? 0 : index[axis]), 0);
  const indices = (shape: readonly number[]): number[][] =>
    Array.from({ length: sizeOf(shape) }, (_, n) => {
      let rest = n;
      return shape
        .toReversed()
        .map((extent) => {
          const i = rest % extent;
          rest = Math.floor(rest / extent);
          return i;
        })
        .reverse();
    });

  test("every op that walks over axes is right for nine axes, and so are its derivatives", async () => {
    const given = manyAxes.chain((shape) =>
      fc.record({
        shape: fc.constant(shape),
        perm: fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }),
        ones: fc.array(fc.boolean(), { minLength: shape.length, maxLength: shape.length }),
        cut: fc.array(fc.boolean(), { minLength: shape.length, maxLength: shape.length }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(given, async ({ shape, perm, ones, cut }) => {
        const live = backend.liveBytes;
        const made = scope(() => {
          const part = shape.map((extent, a) => (ones[a] ? 1 : extent));
          const starts = shape.map((extent, a) => (cut[a] && extent > 1 ? 1 : 0));
          const window = shape.map((extent, a) => extent - starts[a]);
          const [x, y, w, ct] = [filled(shape, 1), filled(part, 2), filled(window, 3), filled(shape, 4)];
          const turned = perm.map((a) => shape[a]);
          const transposed = new Array<number>(x.data.length);
          const summed = new Array<number>(y.data.length).fill(0);
          const [sums, lower, stretched, cuts, padded] = [[], [], [], [], []] as number[][];
          indices(shape).forEach((index, n) => {
            transposed[
              placeOf(
                perm.map((a) => index[a]),
                turned,
              )
            ] = x.data[n];
            sums.push(x.data[n] - y.data[placeOf(index, part)]);
            lower.push(Math.min(x.data[n], y.data[placeOf(index, part)]));
            stretched.push(y.data[placeOf(index, part)]);
            summed[placeOf(index, part)] -= ct.data[n];
            const inside = index.map((i, a) => i - starts[a]);
            const isIn = inside.every((i) => i >= 0);
            if (isIn) cuts.push(x.data[n]);
            padded.push(isIn ? w.data[placeOf(inside, window)] : 0);
          });
          const axis = perm[0];
          return [
            [transpose(x.t, perm), turned, transposed],
            [subtract(x.t, y.t), shape, sums],
            [where(less(x.t, y.t), x.t, y.t), shape, lower],
            [broadcastTo(y.t, shape), shape, stretched],
            [slice(x.t, starts, window), window, cuts],
            [pad(w.t, starts, shape), shape, padded],
            [concat(split(x.t, [Math.min(1, shape[axis]), Math.max(0, shape[axis] - 1)], axis), axis), shape, x.data],
            [grad((b) => sum(mul(subtract(x.t, b), ct.t)))(y.t)[0], part, summed],
          ] as const; // prettier-ignore
        });
        for (const [t, shape, data] of made) {
          await expectTensor(t, shape, data, 1e-5);
          t.dispose();
        }
        expect(backend.liveBytes).toBe(live);
      }),
      { numRuns },
    );
  });
});

describe("kernel calls for many axes", () => {
  /** How often `kernel` runs in fn. */
  const callsOf = (kernel: string, fn: () => Tensor): number => {
    const backend = createReferenceBackend();
    setCurrentMemory(backend);
    const run = vi.spyOn(backend, "run");
    fn().dispose();
    return run.mock.calls.filter(([name]) => name === kernel).length;
  };
  const plain = (shape: readonly number[]): Tensor => tensor(new Float64Array(sizeOf(shape)), shape);
  const reversed = (shape: readonly number[]): number[] => [...shape.keys()].reverse();

  test("adjacent axes count as one, and axes of extent 1 do not count", () => {
    // Pairs of axes that stay together, and one in between.
    const shape = [2, 3, 1, 2, 2, 1, 3, 2];
    expect(callsOf("stridedCopy", () => transpose(plain(shape), [6, 7, 2, 5, 3, 4, 0, 1]))).toBe(1);
    expect(callsOf("binary", () => subtract(plain(shape), plain([2, 3, 1, 2, 2, 1, 1, 1])))).toBe(1);
    expect(callsOf("binary", () => subtract(plain(new Array<number>(9).fill(1)), plain([1])))).toBe(1);
  });

  test("if axes cannot be joined, extra calls loop over the shortest ones, or over the first ones for two operands", () => {
    expect(callsOf("stridedCopy", () => transpose(plain([2, 2, 2, 2, 2, 2]), reversed([2, 2, 2, 2, 2, 2])))).toBe(1); // prettier-ignore
    for (const [shape, copies, pairs] of [
      [[3, 3, 2, 3, 3, 3, 3], 2, 3],
      [[3, 2, 3, 3, 2, 3, 3, 3], 4, 6],
    ] as const) {
      expect(callsOf("stridedCopy", () => transpose(plain(shape), reversed(shape)))).toBe(copies);
      // An operand that is broadcast along every other axis, so that no axes can be joined.
      const other = shape.map((extent, a) => (a % 2 === 0 ? extent : 1));
      expect(callsOf("binary", () => subtract(plain(shape), plain(other)))).toBe(pairs);
    }
  });

  test("no handle is left over", () => {
    const backend = createReferenceBackend();
    setCurrentMemory(backend);
    const [a, b] = [plain([3, 2, 3, 3, 2, 3, 3, 3]), plain([3, 1, 3, 1, 2, 1, 3, 1])];
    for (const t of [subtract(a, b), transpose(a, reversed(a.shape)), a, b]) t.dispose();
    expect(backend.liveBytes).toBe(0);
  });
});

describe.each(backends)("along an axis on $name", ({ name, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  beforeEach(() => void setCurrentMemory(backend));
  afterAll(() => backend.dispose());
  const numRuns = name.startsWith("webgpu") ? 10 : 50;

  test("cumsum, argmax and topk work on each column; takeAlongAxis reads values at the given indices", async () => {
    const some = fc.tuple(withAxis, fc.nat(4), fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 256, maxLength: 256 })); // prettier-ignore
    await fc.assert(
      fc.asyncProperty(some, async ([at, most, levels]) => {
        const { shape, axis } = at;
        // Few levels, so that there are ties, and NaN.
        const data = Array.from({ length: sizeOf(shape) }, (_, n) => (levels[n] === 3 ? NaN : levels[n]));
        const x = tensor(data, shape);
        const k = Math.min(most, shape[axis]);
        const sums = new Array<number>(data.length);
        const first = new Array<number>();
        const top = new Array<number>(sizeOf(shape.with(axis, k)));
        const places = columnsOf(shape.with(axis, k), axis);
        columnsOf(shape, axis).forEach((column, c) => {
          column.reduce((total, place) => (sums[place] = total + data[place]), 0);
          const height = (l: number): number => (Number.isNaN(data[column[l]]) ? Infinity : data[column[l]]);
          const order = [...column.keys()].sort((a, b) => height(b) - height(a) || a - b);
          first.push(order[0]);
          for (let n = 0; n < k; n++) top[places[c][n]] = order[n];
        });
        expect(await numbers(cumsum(x, named(at)))).toEqual(sums);
        const best = argmax(x, named(at));
        expect([best.dtype, best.shape, await numbers(best)]).toEqual([
          "i32",
          shape.toSpliced(axis, 1),
          first,
        ]);
        expect(argmax(x, named(at), true).shape).toEqual(shape.with(axis, 1));
        const { values, indices } = topk(x, k, named(at));
        expect([indices.dtype, indices.shape, await numbers(indices)]).toEqual([
          "i32",
          shape.with(axis, k),
          top,
        ]);
        expect(values.shape).toEqual(indices.shape);
        expect(await numbers(values)).toEqual(await numbers(takeAlongAxis(x, indices, axis)));
      }),
      { numRuns },
    );
  });

  test("topk passes the gradient to the values that it took", async () => {
    const x = tensor([3, 1, 4, 1, 5, 9, 2, 6], [2, 4]);
    const [slopes] = grad((t) => sum(mul(topk(t, 2, 1).values, tensor([[10, 20], [30, 40]]))))(x); // prettier-ignore
    expect(await numbers(slopes)).toEqual([20, 0, 10, 0, 0, 30, 0, 40]);
  });
});
