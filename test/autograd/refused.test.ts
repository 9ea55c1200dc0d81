/**
 * Every op on every backend is right or refused: valid random input gives the oracle's result; invalid input gives a GradmixError that names the op
 * before anything is allocated or enqueued, so other tensors stay as they were and the backend can still be used.
 */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as gradmix from "gradmix";
import { createParameters } from "gradmix/nn";
import { apply, type Op } from "#dist/autograd/op.js";
import { ops } from "#dist/autograd/ops/index.js";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { GradmixError } from "#dist/errors.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import type { Shape } from "#dist/tensor/shape.js";
import { scope, tensor, Tensor } from "#dist/tensor/tensor.js";
import { backends } from "../backends/all.ts";
import { integers, values } from "../backends/harness.ts";
import { codeOf } from "../errors.ts";
import { type Sample, samples, upload } from "./samples.ts";

const names = Object.keys(ops);
const oracle = createReferenceBackend({ precision: "f64" });

/** Attributes that may be any real number, and those among them that must be positive (or at least 0). */
const REAL: readonly string[] = ["scale", "shift", "min", "max"];
const NONNEGATIVE: readonly string[] = ["eps", "theta", "rate"];
/** Lists that may have another length. */
const ANY_LENGTH: readonly string[] = ["sum axes", "max axes", "min axes", "broadcastTo shape"];

/** Ops whose operands have the rank that they have, and no other. */
const OF_ONE_RANK = new Set(["rope", "causalAttention", "attention"]);

const noNumber = [null, undefined, "1", {}, [], true, 1n];
const noInteger = [...noNumber, NaN, 0.5, -1, -(2 ** 40), Infinity, 2 ** 53];
const noList = [null, undefined, 3, "12", {}, true];

/** Values that an attribute may never have, given one that it may have. */
function junk(op: string, name: string, valid: unknown): unknown[] {
  if (typeof valid === "boolean") return [null, undefined, 0, 1, "true", []];
  if (typeof valid === "string") return [null, undefined, "", `${valid}x`, "TANH", 0, [valid], { valid }];
  if (typeof valid === "number")
    return REAL.includes(name)
      ? noNumber
      : NONNEGATIVE.includes(name)
        ? [...noNumber, NaN, -1, Infinity]
        : noInteger;
  if (!Array.isArray(valid)) throw new Error(`an attribute ${name} of another kind`);
  const replaced = valid.flatMap((_, at) => noInteger.map((bad) => valid.with(at, bad)));
  const lengths = ANY_LENGTH.includes(`${op} ${name}`) ? [] : [[...valid, 7], valid.slice(0, -1)];
  return [...noList, ...replaced, ...(valid.length === 0 ? [] : lengths)];
}

/** The values of a list attribute, each in turn replaced by what `bad` gives for its place. */
const eachOf = (list: readonly number[], bad: (at: number) => number): number[][] =>
  list.map((_, at) => list.with(at, bad(at)));

/** Values of an attribute just beyond the last that the operands allow. */
function beyond(op: string, name: string, attrs: Readonly<Record<string, never>>, x: Shape): unknown[] {
  const rank = x.length;
  const { starts = [], sizes = [], shape = [], perm = [], axes = [], axis, headDim } = attrs;
  switch (`${op} ${name}`) {
    case "topk k":
      return [x[axis] + 1];
    case "transpose perm":
      return eachOf(perm, () => rank);
    case "slice starts":
      return eachOf(starts, (at) => x[at] - sizes[at] + 1);
    case "slice sizes":
      return eachOf(sizes, (at) => x[at] - starts[at] + 1);
    case "pad starts":
      return eachOf(starts, (at) => shape[at] - x[at] + 1);
    case "pad shape":
      return eachOf(shape, (at) => starts[at] + x[at] - 1);
    case "dropout rate":
      return [1];
    case "rope theta":
    case "causalAttention kvHeads":
      return [0];
    case "rope heads":
      return [0, Math.floor(x[2] / headDim) + 1];
    case "rope headDim":
      return [0, 1, 3];
    case "rope offset":
      return [2 ** 30 + 1];
  }
  return name === "axis" ? [rank] : name === "axes" ? eachOf(axes, () => rank) : [];
}

interface Attempt {
  readonly what: string;
  /** The attempt must be refused. */
  readonly must: boolean;
  readonly given: readonly unknown[];
  readonly run: () => unknown;
}

/** Every way to spoil one attribute or one operand of a sample. Those with `must` are never valid. */
function spoilt(name: string, sample: Sample, inputs: readonly Tensor[]): Attempt[] {
  const op = ops[name] as Op<unknown>;
  const attrs = sample.attrs as Readonly<Record<string, unknown>>;
  const call = (given: readonly unknown[], withAttrs: unknown) => ({
    given,
    run: () => apply(op, given as readonly Tensor[], withAttrs),
  });
  const byAttribute = Object.entries(attrs).flatMap(([key, valid]) =>
    [
      ...junk(name, key, valid),
      ...beyond(name, key, attrs as Readonly<Record<string, never>>, inputs[0].shape),
    ].map((bad) => ({
      what: `${key} = ${describeValue(bad)}`,
      must: true,
      ...call(inputs, { ...attrs, [key]: bad }),
    })),
  );
  const byOperand = inputs.flatMap((input, slot) => {
    const others = [
      ...[null, undefined, 1, "x", {}, [1]].map((bad) => ({ what: describeValue(bad), bad, must: true })),
      // Reading integers as f32 or the other way round, another rank, another extent.
      ...(["cast", "stopGradient", "reshape", "broadcastTo", "transpose", "slice", "pad"].includes(name)
        ? []
        : [
            {
              what: "the other type",
              bad: tensor(new Float64Array(input.size), input.shape, input.dtype === "f32" ? "i32" : "f32"),
              must: name !== "concat" || inputs.length > 1,
            },
          ]),
      ...[[...input.shape, 1], [2, ...input.shape], input.shape.map((e) => e + 1), input.shape.slice(1)].map(
        (shape) => ({
          what: `shape [${shape.join()}]`,
          bad: tensor(
            values(
              shape.reduce((a, b) => a * b, 1),
              3,
              0.5,
              2,
            ).map((x) => (input.dtype === "i32" ? 0 : x)),
            shape,
            input.dtype,
          ),
          // The shapes of saved tensors, cotangents and tangents follow from one another.
          must: /(Vjp|Jvp)$/.test(name) || (OF_ONE_RANK.has(name) && shape.length !== input.shape.length),
        }),
      ),
    ];
    return others.map(({ what, bad, must }) => ({
      what: `operand ${slot}: ${what}`,
      must,
      ...call(
        inputs.map((t, at) => (at === slot ? bad : t)),
        attrs,
      ),
    }));
  });
  return [...byAttribute, ...byOperand];
}

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());

/** The result of an attempt: numbers with their shape, or the error. */
async function outcome(
  run: () => unknown,
  given: readonly unknown[] = [],
): Promise<{ error: unknown } | { shape: string; data: number[] }> {
  let result: unknown;
  try {
    result = scope(run);
  } catch (error) {
    return { error };
  }
  const outputs = (Array.isArray(result) ? result : [result]) as unknown[];
  const [first] = outputs;
  if (!(first instanceof Tensor)) return { error: `not a tensor: ${String(first)}` };
  const found = { shape: `${first.dtype}[${first.shape.join()}]`, data: await numbers(first) };
  // Some functions return their argument.
  for (const t of outputs) if (t instanceof Tensor && !given.includes(t)) t.dispose();
  return found;
}

const close = (got: readonly number[], want: readonly number[], tolerance = 1e-4): boolean =>
  got.length === want.length &&
  got.every(
    (x, at) =>
      Object.is(x, want[at]) ||
      x === want[at] ||
      Math.abs(x - want[at]) <= tolerance * (1 + Math.abs(want[at])),
  );

/** Tensors that no call names, and a small op with a known result. */
async function intact(canaries: readonly Tensor[]): Promise<void> {
  for (const canary of canaries) expect(await numbers(canary)).toEqual([5, 6, 7, 8]);
  const total = scope(() => gradmix.sum(gradmix.mul(canaries[0], 2)));
  expect(await total.item()).toBe(52);
  total.dispose();
}

type Call = readonly [name: string, args: readonly unknown[]];

/** A valid call of every public function that makes or takes tensors. */
function calls(): Call[] {
  const x = tensor(values(6, 1, 0.5, 2), [2, 3]);
  const x3 = tensor(values(24, 2), [2, 3, 4]);
  const x4 = tensor(values(24, 3), [2, 3, 2, 2]);
  const [row, weight, gain] = [[3], [4, 3], [4]].map((shape, n) =>
    tensor(
      values(
        shape.reduce((a, b) => a * b, 1),
        n,
      ),
      shape,
    ),
  );
  const ids = tensor([1, 0], [2], "i32");
  const condition = tensor([1, 0, 2, 0, 1, 0], [2, 3], "i32");
  const unary = [
    "neg",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "square",
    "reciprocal",
    "abs",
    "tanh",
    "sigmoid",
    "relu",
  ];
  return [
    ...[
      ...unary,
      "silu",
      "gelu",
      "sin",
      "cos",
      "erf",
      "softplus",
      "log1p",
      "expm1",
      "sign",
      "stopGradient",
      "softmax",
      "logSoftmax",
    ].map((name): Call => [name, [x]]),
    ["gelu", [x, { approximate: "none" }]],
    ...["add", "sub", "mul", "div", "pow", "maximum", "minimum"].map((name): Call => [name, [x, row]]),
    ...["equal", "notEqual", "less", "lessEqual", "greater", "greaterEqual"].map((name): Call => [
      name,
      [x, row],
    ]),
    ["less", [ids, 1]],
    ...["logicalAnd", "logicalOr"].map((name): Call => [name, [condition, condition]]),
    ["logicalNot", [condition]],
    ["dropout", [x, 0.5, { seed: 3, stream: 4 }]],
    ["oneHot", [ids, 3]],
    ["clip", [x, 0.6, 1.5]],
    ["where", [ids, ids, 7]],
    ["affine", [x, 2, -1]],
    ["where", [condition, x, row]],
    ["cast", [x, "i32"]],
    ...["sum", "mean", "max", "min"].map((name): Call => [name, [x, 1, true]]),
    ["sum", [x, [0, 1], false]],
    ["logSumExp", [x, 1]],
    ["reshape", [x, [3, -1]]],
    ["broadcastTo", [row, [2, 3]]],
    ["transpose", [x3, [2, 0, 1]]],
    ["slice", [x, [0, 1], [2, 2]]],
    ["pad", [x, [1, 0], [4, 5]]],
    ["concat", [[x, x], 1]],
    ["split", [x, 3, 1]],
    ["split", [x, [1, 0, 2], -1]],
    ["stack", [[x, x], 1]],
    ["squeeze", [tensor([1, 2, 3], [1, 3, 1]), [0, 2]]],
    ["unsqueeze", [x, 1]],
    ["variance", [x, 1, { correction: 0, keepDims: true }]],
    ["cumsum", [x, 1]],
    ["argmax", [x, 1, true]],
    ["topk", [x, 2, 1]],
    ["takeAlongAxis", [x, condition, 1]],
    ["scatterAddAlongAxis", [x, condition, 1, 3]],
    ["einsum", ["ij,kj->ik", x, weight]],
    ["gather", [weight, ids]],
    ["scatterAdd", [x, ids, 4]],
    ["embedding", [weight, ids]],
    ["matmul", [x, weight, { transposeB: true }]],
    ["linear", [x, weight, gain, { activation: "gelu" }]],
    ["layerNorm", [x3, gain, gain, 1e-5]],
    ["rmsNorm", [x3, gain, 1e-5]],
    ["rope", [x3, { heads: 1, headDim: 4, theta: 100, offset: 7 }]],
    ["causalAttention", [x3, { heads: 2, kvHeads: 1 }]],
    ["attention", [x4, x4, x4, { causal: true, mask: tensor([1, 0, 1, 1], [1, 1, 2, 2], "i32") }]],
    ["swiglu", [x3]],
    ["crossEntropy", [x, ids]],
    ["exampleLosses", [x, ids]],
    ["tensor", [[1, 2, 3], [3], "f32"]],
    ["full", [[2, 2], 3, "i32"]],
    ["zeros", [[2], "f32"]],
    ["ones", [[2], "i32"]],
    ["view", [[2, 2], 1]],
    ["write", [[3, 4], "f32"]],
    ["write", [[3, 4], "i32"]],
    ["eye", [3]],
    ["arange", [4, "f32"]],
    ...["randomBits", "randomUniform", "randomNormal"].map((name): Call => [name, [gradmix.key(3), [5]]]),
  ];
}

const functions: Readonly<Record<string, unknown>> = {
  ...gradmix,
  topk(...args: Parameters<typeof gradmix.topk>) {
    const { values, indices } = gradmix.topk(...args);
    return [values, indices];
  },
  view: (shape: readonly number[], offset: number) => tensor([1, 2, 3, 4, 5, 6]).view(shape, offset),
  write(data: readonly number[], dtype: "f32" | "i32") {
    const x = tensor([1, 2], [2], dtype === "i32" ? dtype : "f32");
    x.write(data);
    return x;
  },
};
function callPublic([name, args]: Call): unknown {
  const fn = functions[name];
  if (typeof fn !== "function") throw new Error(`gradmix has no function ${name}`);
  return Reflect.apply(fn, undefined, args);
}

/** Anything that JavaScript may hand over in place of an argument. */
const anything: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    ...[NaN, 0.5, -1, 0, 1, 2, -7, 2 ** 31, 2 ** 32, 2 ** 53, 1e300, Infinity, -Infinity],
    ...[
      [3, 4.5],
      [3, -(2 ** 31)],
      [2 ** 31, 1],
      [1, NaN],
      new Float64Array([1, 2.5]),
      new Float32Array([1, NaN]),
    ],
    ...["", "tanh", "f16", "int", "f64", null, true, 1n, Symbol("x"), () => 1, {}, new Map()],
    ...[[], [NaN], [-1], [0.5], [2 ** 53], [1e300, 1e300], [null], ["1"], [[1], [2, 3]], [[1, 2], 3]],
    ...[new BigInt64Array(2), new DataView(new ArrayBuffer(8)), Object.create(null)],
  ),
  fc.record({ heads: fc.double(), headDim: fc.double(), activation: fc.string(), transposeB: fc.string() }),
  fc.array(fc.double(), { maxLength: 4 }),
  fc.double(),
  fc.string(),
);

interface Given {
  readonly shape: readonly number[];
  readonly low?: number;
  readonly ids?: number;
}

/** Random valid calls: shapes of operands, and the arguments after them. */
const extent = fc.integer({ min: 0, max: 5 });
const shapes = (min: number, max: number): fc.Arbitrary<number[]> =>
  fc.array(extent, { minLength: min, maxLength: max });
const valid: { readonly [name: string]: fc.Arbitrary<{ given: Given[]; rest: unknown[] }> } = {
  tanh: shapes(0, 3).map((shape) => ({ given: [{ shape }], rest: [] })),
  add: fc
    .tuple(shapes(0, 3), fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }))
    .map(([shape, ones]) => ({
      given: [{ shape }, { shape: shape.map((e, n) => (ones[n] ? 1 : e)) }],
      rest: [],
    })),
  div: fc
    .tuple(shapes(1, 3), fc.nat(2))
    .map(([shape, drop]) => ({ given: [{ shape: shape.slice(drop) }, { shape, low: 0.5 }], rest: [] })),
  sum: fc
    .tuple(shapes(1, 4), fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }), fc.boolean())
    .map(([shape, some, keep]) => ({
      given: [{ shape }],
      rest: [shape.flatMap((_, n) => (some[n] ? [n - (keep ? shape.length : 0)] : [])), keep],
    })),
  logSumExp: shapes(1, 3).map((shape) => ({ given: [{ shape }], rest: [-1] })),
  logSoftmax: shapes(1, 3).map((shape) => ({ given: [{ shape }], rest: [] })),
  softmax: shapes(1, 3).map((shape) => ({ given: [{ shape }], rest: [] })),
  transpose: shapes(2, 4)
    .chain((shape) =>
      fc.tuple(
        fc.constant(shape),
        fc.shuffledSubarray(
          shape.map((_, n) => n),
          { minLength: shape.length, maxLength: shape.length },
        ),
      ),
    )
    .map(([shape, perm]) => ({ given: [{ shape }], rest: [perm] })),
  slice: fc.array(fc.tuple(fc.nat(2), fc.nat(3), fc.nat(2)), { minLength: 1, maxLength: 3 }).map((axes) => ({
    given: [{ shape: axes.map(([a, b, c]) => a + b + c) }],
    rest: [axes.map(([a]) => a), axes.map(([, b]) => b)],
  })),
  pad: fc.array(fc.tuple(fc.nat(2), fc.nat(3), fc.nat(2)), { minLength: 1, maxLength: 3 }).map((axes) => ({
    given: [{ shape: axes.map(([, b]) => b) }],
    rest: [axes.map(([a]) => a), axes.map(([a, b, c]) => a + b + c)],
  })),
  gather: fc.tuple(fc.integer({ min: 1, max: 5 }), shapes(0, 2), shapes(0, 2)).map(([rows, width, ids]) => ({
    given: [{ shape: [rows, ...width] }, { shape: ids, ids: rows + 1 }],
    rest: [],
  })),
  cumsum: shapes(1, 3).map((shape) => ({ given: [{ shape }], rest: [shape.length - 1] })),
  topk: fc
    .tuple(fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 3 }), fc.nat(5), fc.nat(2))
    .map(([shape, k, at]) => {
      const axis = at % shape.length;
      return { given: [{ shape }], rest: [Math.min(k, shape[axis]), axis] };
    }),
  takeAlongAxis: fc.tuple(shapes(1, 3), extent, fc.nat(2)).map(([shape, count, at]) => {
    const axis = at % shape.length;
    const index = shape.map((e, n) => (n === axis ? count : e));
    return { given: [{ shape }, { shape: index, ids: shape[axis] + 1 }], rest: [axis] };
  }),
  scatterAddAlongAxis: fc.tuple(shapes(1, 3), extent, fc.nat(2)).map(([shape, rows, at]) => {
    const axis = at % shape.length;
    return { given: [{ shape }, { shape, ids: rows + 1 }], rest: [axis, rows] };
  }),
  variance: fc
    .array(fc.integer({ min: 2, max: 5 }), { minLength: 1, maxLength: 3 })
    .map((shape) => ({ given: [{ shape }], rest: [-1, { keepDims: true }] })),
  matmul: fc
    .tuple(extent, extent, extent, shapes(0, 1), fc.boolean(), fc.boolean())
    .map(([m, k, n, lead, transposeA, transposeB]) => ({
      given: [
        { shape: [...lead, ...(transposeA ? [k, m] : [m, k])] },
        { shape: transposeB ? [n, k] : [k, n] },
      ],
      rest: [{ transposeA, transposeB }],
    })),
  linear: fc
    .tuple(extent, extent, extent, fc.constantFrom("none", "gelu", "relu", "silu"))
    .map(([m, k, n, activation]) => ({
      given: [{ shape: [2, m, k] }, { shape: [n, k] }, { shape: [n] }],
      rest: [{ activation }],
    })),
  layerNorm: fc.tuple(extent, fc.integer({ min: 2, max: 9 })).map(([rows, width]) => ({
    given: [{ shape: [rows, width] }, { shape: [width] }, { shape: [width] }],
    rest: [0.1],
  })),
  rope: fc
    .tuple(extent, extent, fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }), fc.nat(3))
    .map(([batch, time, heads, half, more]) => ({
      given: [{ shape: [batch, time, 2 * heads * half + more] }],
      rest: [{ heads, headDim: 2 * half, theta: more === 0 ? 0.25 : 50, offset: 9 * more }],
    })),
  causalAttention: fc
    .tuple(
      extent,
      extent,
      fc.integer({ min: 1, max: 2 }),
      fc.integer({ min: 1, max: 2 }),
      fc.integer({ min: 1, max: 5 }),
    )
    .map(([batch, time, kvHeads, group, width]) => ({
      given: [{ shape: [batch, time, (kvHeads * group + 2 * kvHeads) * width] }],
      rest: [{ heads: kvHeads * group, kvHeads }],
    })),
  attention: fc
    .tuple(
      extent,
      extent,
      extent,
      fc.integer({ min: 1, max: 2 }),
      fc.integer({ min: 1, max: 2 }),
      fc.integer({ min: 1, max: 5 }),
      fc.boolean(),
    )
    .map(([batch, time, keys, kvHeads, group, width, causal]) => ({
      given: [
        { shape: [batch, kvHeads * group, time, width] },
        ...[1, 2].map(() => ({ shape: [batch, kvHeads, keys, width] })),
      ],
      rest: [{ causal }],
    })),
  crossEntropy: fc
    .tuple(shapes(1, 2), fc.integer({ min: 1, max: 6 }))
    .map(([rows, cols]) => ({ given: [{ shape: [...rows, cols] }, { shape: rows, ids: cols }], rest: [] })),
};

describe.each(backends)("on $name", ({ name: backendName, create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
  });
  afterAll(async () => {
    await backend.dispose();
  });
  const slow = backendName.startsWith("webgpu");

  /** Runs every attempt on the backend: it is refused with the op's name or, unless it must be refused, gives the oracle's result. */
  async function judge(op: string, attempts: (memory: Backend) => readonly Attempt[]): Promise<string[]> {
    const wrong: string[] = [];
    const [mine, theirs] = [backend, oracle].map((memory) => {
      setCurrentMemory(memory);
      return attempts(memory);
    });
    setCurrentMemory(backend);
    const canaries = [tensor([5, 6, 7, 8]), tensor([5, 6, 7, 8], [2, 2], "i32"), tensor([5, 6, 7, 8])];
    for (const [at, { what, must, run, given }] of mine.entries()) {
      setCurrentMemory(backend);
      const live = backend.liveBytes;
      const found = await outcome(run, given);
      if ("error" in found) {
        const { error } = found;
        if (!(error instanceof GradmixError)) wrong.push(`${what}: ${String(error)}`);
        else if (error.code !== "memory" && !error.message.startsWith(`${op}:`))
          wrong.push(`${what}: does not name ${op}: ${error.message}`);
      } else if (must) wrong.push(`${what}: accepted, gives ${found.shape} ${found.data.join()}`);
      else {
        setCurrentMemory(oracle);
        const want = await outcome(theirs[at].run, theirs[at].given);
        if ("error" in want || want.shape !== found.shape || !close(found.data, want.data.map(Math.fround)))
          wrong.push(`${what}: ${JSON.stringify(found)}, the oracle says ${JSON.stringify(want)}`);
      }
      // It may be less, because the garbage collector may have freed memory of an earlier attempt.
      if (backend.liveBytes > live) wrong.push(`${what}: leaves ${backend.liveBytes - live} bytes behind`);
    }
    setCurrentMemory(backend);
    await intact(canaries);
    for (const canary of canaries) canary.dispose();
    return wrong.map((line) => `${op}: ${line}`);
  }

  it.each(names)("%s refuses invalid arguments", async (name) => {
    for (const sample of samples[name].slice(0, slow ? 1 : undefined))
      expect(await judge(name, () => spoilt(name, sample, sample.inputs().map(upload)))).toEqual([]);
  });

  it("a scalar cannot be a table of rows", () => {
    scope(() => {
      const [table, ids] = [tensor([1], []), tensor([0, 0], [2], "i32")];
      expect(codeOf(() => gradmix.gather(table, ids))).toMatch(
        /^shape: gather: a scalar cannot be a table for indices/,
      );
    });
  });

  it("public functions refuse any value in place of an argument, or accept it and give the right result", async () => {
    setCurrentMemory(backend);
    const [mine, theirs] = [backend, oracle].map((memory) => {
      setCurrentMemory(memory);
      return calls();
    });
    const wrong: string[] = [];
    for (const [at, [name, args]] of mine.entries())
      for (const slot of args.keys()) {
        const some = fc.sample(anything, { numRuns: slow ? 15 : 60, seed: 1000 * at + slot });
        const bad = [null, undefined, {}, [], 1, ...some];
        const spoil = ([, given]: Call, value: unknown): Call => [name, given.with(slot, value)];
        const found = await judge(name, (memory) =>
          bad.map((value) => {
            const spoiltCall = spoil(memory === backend ? mine[at] : theirs[at], value);
            const what = `argument ${slot} = ${describeValue(value)}`;
            return { what, must: false, given: spoiltCall[1].flat(), run: () => callPublic(spoiltCall) };
          }),
        );
        wrong.push(...found);
      }
    expect(wrong).toEqual([]);
  });

  it.each(Object.keys(valid))(
    "%s gives the result of the reference backend for random valid input",
    async (name) => {
      await fc.assert(
        fc.asyncProperty(valid[name], fc.nat(1000), async ({ given, rest }, seed) => {
          const run = (memory: Backend) => () => {
            setCurrentMemory(memory);
            const operands = given.map(({ shape, low = -1, ids }, n) => {
              const count = shape.reduce((a, b) => a * b, 1);
              return ids === undefined
                ? tensor(values(count, seed + n, low), shape)
                : tensor(integers(count, seed, -1, ids), shape, "i32");
            });
            return callPublic([name, [...operands, ...rest]]);
          };
          const want = await outcome(run(oracle));
          const found = await outcome(run(backend));
          expect(found).not.toHaveProperty("error");
          if ("error" in found || "error" in want) throw new Error(JSON.stringify([found, want]));
          expect(found.shape).toBe(want.shape);
          if (!close(found.data, want.data)) expect(found.data).toEqual(want.data);
        }),
        { numRuns: slow ? 8 : 40 },
      );
    },
  );
});

/** A copy of lists of numbers, at any depth. */
const copyOf = (value: unknown): unknown => (Array.isArray(value) ? value.map(copyOf) : value);

/** Changes lists of numbers, at any depth. */
function spoilLists(value: unknown): void {
  if (!Array.isArray(value)) return;
  value.forEach(spoilLists);
  value.splice(0, value.length, 3, 1, 4, 1, 5, 9, 2, 6);
}

it("lists that a call was given may change after it: neither shapes nor gradients change with them", async () => {
  setCurrentMemory(oracle);
  const results = async (call: Call, spoil: boolean): Promise<unknown> => {
    const args = call[1].map(copyOf);
    const slots = args.flatMap((t, slot) => (t instanceof Tensor && t.dtype === "f32" ? [slot] : []));
    const run = (...given: Tensor[]): Tensor[] => {
      const result = callPublic([
        call[0],
        args.map((arg, slot) => (slots.includes(slot) ? given[slots.indexOf(slot)] : arg)),
      ]);
      return (Array.isArray(result) ? result : [result]).filter((t) => t.dtype === "f32");
    };
    const { outputs, pullback } = gradmix.vjp(
      run,
      slots.map((slot) => args[slot] as Tensor),
    );
    if (spoil) spoilLists(args);
    const found = [
      ...outputs,
      ...pullback(outputs.map((t) => tensor(values(t.size, 3), t.shape))),
      // An op that reads the shape.
      ...outputs.map((t) => gradmix.sum(t)),
    ];
    return Promise.all(found.map(async (t) => [t.shape, await numbers(t)]));
  };
  for (const call of calls()) expect(await results(call, true), call[0]).toEqual(await results(call, false));
  const shape = [2, 3];
  const specs = [{ name: "w", shape, init: { kind: "constant", value: 1 }, decay: true }] as const;
  const parameters = createParameters(specs, 1);
  shape[0] = 50;
  expect(parameters.list[0].shape).toEqual([2, 3]);
});

function describeValue(value: unknown): string {
  if (typeof value === "bigint" || typeof value === "symbol") return value.toString();
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return Object.getPrototypeOf(value) === null ? "an object without a prototype" : value.constructor.name;
  if (Array.isArray(value)) return `[${value.map(describeValue).join()}]`;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
