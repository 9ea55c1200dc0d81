/**
 * The types of results are true: `data()` is a Float32Array or an Int32Array without a cast. `npm run typecheck` checks the declarations, the test the
 * arrays.
 */
import {
  abs,
  neg,
  log,
  sqrt,
  rsqrt,
  square,
  reciprocal,
  tanh,
  sigmoid,
  relu,
  silu,
  sin,
  cos,
  erf,
  softplus,
  log1p,
  expm1,
  add,
  affine,
  arange,
  argmax,
  attention,
  broadcastTo,
  cast,
  causalAttention,
  clip,
  concat,
  crossEntropy,
  cumsum,
  div,
  dropout,
  einsum,
  embedding,
  equal,
  exampleLosses,
  exp,
  eye,
  forwardDerivative,
  full,
  gather,
  gelu,
  grad,
  gradients,
  greater,
  greaterEqual,
  init,
  jvp,
  key,
  layerNorm,
  less,
  lessEqual,
  linear,
  logicalAnd,
  logicalNot,
  logicalOr,
  logSoftmax,
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
  pad,
  perExampleSink,
  pow,
  randomBits,
  randomNormal,
  randomUniform,
  reshape,
  rmsNorm,
  rope,
  scatterAdd,
  scatterAddAlongAxis,
  shutdown,
  sign,
  slice,
  softmax,
  split,
  squeeze,
  stack,
  stopGradient,
  sub,
  sum,
  sumSink,
  swiglu,
  takeAlongAxis,
  tensor,
  type Tensor,
  topk,
  transpose,
  unsqueeze,
  valueAndGrad,
  variance,
  vjp,
  where,
  zeros,
} from "gradmix";
import { afterAll, beforeAll, expect, test } from "vitest";

beforeAll(async () => void (await init({ backend: "cpu", threads: 1 })));
afterAll(shutdown);

/** The elements of each, as `data()` declares them. A tensor of a type that is not known could stand in for one of f32, so the arrays are compared. */
const read = <R extends readonly Tensor[]>(...results: R): { [K in keyof R]: ArrayOf<R[K]> } =>
  results.map((t) => t.data()) as never;
type ArrayOf<T> = T extends Tensor<infer D> ? Promise<D extends "f32" ? Float32Array : Int32Array> : never;

/** Moves, which give what they were given; a tuple, so that each keeps its own type. */
const moved = <D extends "f32" | "i32">(t: Tensor<D>) =>
  [
    reshape(t, [4]),
    broadcastTo(t, [3, 2, 2]),
    transpose(t),
    slice(t, [0, 0], [1, 2]),
    pad(t, [0, 0], [3, 3]),
    concat([t, t], 0),
    stack([t, t], 0),
    ...split(t, 2, 0),
    squeeze(unsqueeze(t, 0)),
    stopGradient(t),
    where(tensor(Int32Array.of(1, 0)), t, t),
    where(tensor(Int32Array.of(1, 0)), t, 0),
  ] as const;

test("of f32 and of i32", async () => {
  const x = tensor([1, 2, 3, 4], [2, 2]);
  const ids = tensor(Int32Array.of(0, 1));
  const pairs = tensor(Int32Array.of(0, 1, 1, 0), [2, 2]);
  const qkv = tensor(new Float32Array(6).fill(0.5), [1, 1, 6]);
  const q = tensor(new Float32Array(4).fill(0.5), [1, 1, 2, 2]);
  const f = (t: Tensor): Tensor => sum(mul(t, t));
  const { outputs: _outputs, pullback } = vjp(f, [x]);
  const { value, gradients: both } = valueAndGrad(f)(x);
  const each = perExampleSink(2, [x]);
  const loss = (): Tensor => sum(linear(tensor([1, 0, 0, 1], [2, 2]), x), 1);
  const losses = gradients(loss, { parameters: [x], sink: each });
  const forward = forwardDerivative(loss, new Map([[x, x]]));
  const sums = gradients(loss, { parameters: [x], sink: sumSink({ gradientOf: () => zeros([2, 2]) }) });
  const found: Promise<Float32Array>[] = read(
    ...[add(x, x), sub(x, 1), mul(x, x), div(x, x), maximum(x, 2), minimum(x, x), pow(x, 2)],
    ...[
      neg(x),
      log(x),
      sqrt(x),
      rsqrt(x),
      square(x),
      reciprocal(x),
      tanh(x),
      sigmoid(x),
      relu(x),
      silu(x),
      sin(x),
      cos(x),
      erf(x),
      softplus(x),
      log1p(x),
      expm1(x),
    ],
    ...[clip(x, 1, 2), affine(x, 2, 1), sign(x), abs(x), exp(x), gelu(x), swiglu(x), cast(ids, "f32")],
    ...[sum(x), mean(x, 0), variance(x), max(x, 1), min(x), softmax(x), logSoftmax(x), logSumExp(x)],
    ...[matmul(x, x), linear(x, x), einsum("ij,jk->ik", x, x), layerNorm(x), rmsNorm(x)],
    ...[embedding(x, ids), gather(x, ids), scatterAdd(x, ids, 2), takeAlongAxis(x, pairs, 1)],
    ...[scatterAddAlongAxis(x, pairs, 1, 2), oneHot(ids, 2), crossEntropy(x, ids), exampleLosses(x, ids)],
    ...[causalAttention(qkv, { heads: 1 }), attention(q, q, q), rope(qkv, { heads: 1, headDim: 2 })],
    ...[cumsum(x, 0), topk(x, 1, 0).values, dropout(x, 0.5, { seed: 1 }), where(ids, 1, 0)],
    ...[zeros([2]), ones([2]), full([2], 3), eye(2), arange(3)],
    ...[randomNormal(key(1), [2]), randomUniform(key(1), [2])],
    ...[...pullback(tensor(1)), ...jvp(f, [x], [x]).tangents, ...grad(f)(x), value, ...both],
    ...[losses, sums, forward.losses, forward.derivatives, ...each.result().values()],
    ...moved(x),
  );
  for (const data of await Promise.all(found)) expect(data).toBeInstanceOf(Float32Array);
  const whole: Promise<Int32Array>[] = read(
    ...[equal(x, x), notEqual(x, 1), less(x, 2), lessEqual(x, 2), greater(x, 2), greaterEqual(x, 2)],
    ...[logicalAnd(ids, ids), logicalOr(ids, 1), logicalNot(ids), argmax(x, 0), topk(x, 1, 0).indices],
    ...[cast(x, "i32"), randomBits(key(1), [2]), zeros([2], "i32"), arange(3, "i32")],
    ...moved(pairs),
  );
  for (const data of await Promise.all(whole)) expect(data).toBeInstanceOf(Int32Array);
});

test("a wrong type does not compile", () => {
  const ids = tensor(Int32Array.of(0, 1));
  // @ts-expect-error Comparisons are i32.
  const one: Tensor<"f32"> = equal(ids, ids);
  // @ts-expect-error Sums are f32.
  const two: Tensor<"i32"> = sum(tensor([1]));
  // @ts-expect-error What is moved keeps its type.
  const three: Tensor<"f32"> = reshape(ids, [2, 1]);
  expect([one, two, three].map(({ dtype }) => dtype)).toEqual(["i32", "f32", "i32"]);
});
