/** No op and no transformation returns one of its inputs, or one handle twice, so each result can be disposed alone. */
import { beforeEach, describe, expect, it } from "vitest";
import * as gradmix from "gradmix";
import {
  add,
  affine,
  forwardDerivative,
  grad,
  gradients,
  jvp,
  mul,
  sum,
  sumSink,
  tensor,
  Tensor,
  valueAndGrad,
  vjp,
} from "gradmix";
import { ops } from "#dist/autograd/ops/index.js";
import * as opFunctions from "#dist/autograd/ops/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";
import { applySample, samples, upload } from "./samples.ts";

beforeEach(() => void setCurrentMemory(createReferenceBackend({ precision: "f64" })));

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());

const isUnary = (entry: [string, unknown]): entry is [string, (t: Tensor) => Tensor] =>
  typeof entry[1] === "function" && entry[1].length === 1;

/** All handles are different, and disposing any of `results` does not affect the others. */
async function independent(
  results: readonly Tensor[],
  given: readonly Tensor[],
  what: string,
): Promise<void> {
  expect(new Set([...results, ...given]).size, what).toBe(results.length + new Set(given).size);
  const want = await Promise.all(given.map(numbers));
  for (const [n, t] of results.entries()) {
    const rest = results.slice(n + 1);
    const before = await Promise.all(rest.map(numbers));
    t.dispose();
    expect(await Promise.all(rest.map(numbers)), what).toEqual(before);
  }
  expect(await Promise.all(given.map(numbers)), what).toEqual(want);
}

describe("ops that have nothing to compute", () => {
  const x = (...shape: number[]): Tensor => tensor(values(shape.reduce((a, b) => a * b, 1), 1, 0.5, 1), shape); // prettier-ignore
  const i = (data: number[], shape: number[]): Tensor => tensor(data, shape, "i32");
  const ones = (n: number): number[] => Array.from({ length: n }, () => 1);
  const same = (fn: (t: Tensor) => Tensor, t: () => Tensor = () => x(2, 3)): [() => Tensor, (t: Tensor) => Tensor][] => [[t, fn]]; // prettier-ignore
  const reduced = (fn: (t: Tensor, axis?: number | number[], keep?: boolean) => Tensor) => [
    ...same((t) => fn(t), () => x()),
    ...same((t) => fn(t, []), () => x(2, 3)),
    ...same((t) => fn(t, [], true), () => x(2, 3)),
    ...same((t) => fn(t, 0, true), () => x(1, 3)),
  ]; // prettier-ignore
  const bits = (): Tensor => i([1, 0, 1], [3]);
  const unary = Object.entries<unknown>(opFunctions).filter(isUnary);
  /** By public op, those of one tensor apart: inputs for which the result is the input, if there are such; a test asks for every op. */
  const cases: { readonly [name: string]: readonly [() => Tensor, (t: Tensor) => Tensor][] } = {
    ...Object.fromEntries(unary.map(([name, op]) => [name, same(op)])),
    swiglu: same(gradmix.swiglu, () => x(2, 4)),
    add: [...same((t) => add(t, 0)), ...same((t) => add(0, t)), ...same((t) => add(t, t))],
    sub: [...same((t) => gradmix.sub(t, 0)), ...same((t) => gradmix.sub(t, x(1)))],
    mul: [...same((t) => mul(t, 1)), ...same((t) => mul(1, t)), ...same((t) => mul(t, t))],
    div: same((t) => gradmix.div(t, 1)),
    affine: same((t) => affine(t, 1, 0)),
    pow: [...same((t) => gradmix.pow(t, 1)), ...same((t) => gradmix.pow(t, t), () => x(2))],
    dropout: [...same((t) => gradmix.dropout(t, 0, { seed: 1 })), ...same((t) => gradmix.dropout(t, 0.5, { seed: 1 }))],
    oneHot: same((t) => gradmix.oneHot(t, 2), bits),
    clip: same((t) => gradmix.clip(t, -9, 9)),
    ...Object.fromEntries(
      "equal notEqual less lessEqual greater greaterEqual logicalAnd logicalOr"
        .split(" ")
        .map((name) => [name, same((t) => (Reflect.get(gradmix, name) as typeof gradmix.equal)(t, t), bits)]),
    ),
    logicalNot: same(gradmix.logicalNot, bits),
    maximum: [...same((t) => gradmix.maximum(t, t)), ...same((t) => gradmix.maximum(t, -9))],
    minimum: same((t) => gradmix.minimum(t, t)),
    where: same((t) => gradmix.where(i(ones(6), [2, 3]), t, t)),
    cast: [...same((t) => gradmix.cast(t, "f32")), ...same((t) => gradmix.cast(t, "i32"), () => i([1], [1]))],
    reshape: same((t) => gradmix.reshape(t, [2, 3])),
    broadcastTo: [...same((t) => gradmix.broadcastTo(t, [2, 3])), ...same((t) => gradmix.broadcastTo(t, []), () => x())],
    sum: reduced(sum),
    mean: reduced(gradmix.mean),
    max: reduced(gradmix.max),
    min: reduced(gradmix.min),
    logSumExp: [...same((t) => gradmix.logSumExp(t), () => x()), ...same((t) => gradmix.logSumExp(t, []))],
    transpose: [...same((t) => gradmix.transpose(t, [0, 1])), ...same((t) => gradmix.transpose(t), () => x(1, 1))],
    slice: same((t) => gradmix.slice(t, [0, 0], [2, 3])),
    pad: same((t) => gradmix.pad(t, [0, 0], [2, 3])),
    concat: same((t) => gradmix.concat([t], 0)),
    gather: same((t) => gradmix.gather(t, i([0, 1], [2]))),
    scatterAdd: same((t) => gradmix.scatterAdd(t, i([0, 1], [2]), 2)),
    split: [...same((t) => gradmix.split(t, 1, 0)[0]), ...same((t) => gradmix.split(t, [3, 0], 1)[0])],
    stack: same((t) => gradmix.stack([t], 0)),
    squeeze: [...same((t) => gradmix.squeeze(t)), ...same((t) => gradmix.squeeze(t, []))],
    unsqueeze: same((t) => gradmix.unsqueeze(t, 0), () => x()),
    variance: [...same((t) => gradmix.variance(t, 1)), ...same((t) => gradmix.variance(t, [], { correction: 0 }))],
    cumsum: same((t) => gradmix.cumsum(t, 0), () => x(1, 3)),
    argmax: same((t) => gradmix.argmax(t, 1)),
    topk: same((t) => gradmix.topk(t, 2, 1).values),
    takeAlongAxis: same((t) => gradmix.takeAlongAxis(t, i([0, 0, 0, 1, 1, 1], [2, 3]), 0)),
    scatterAddAlongAxis: same((t) => gradmix.scatterAddAlongAxis(t, i([0, 0, 0, 1, 1, 1], [2, 3]), 0, 2)),
    einsum: [...same((t) => gradmix.einsum("ij->ij", t)), ...same((t) => gradmix.einsum("ij->ji", t)), ...same((t) => gradmix.einsum("ij,ij->ij", t, t))],
    matmul: same((t) => gradmix.matmul(t, gradmix.eye(3))),
    linear: same((t) => gradmix.linear(t, gradmix.eye(3))),
    embedding: same((t) => gradmix.embedding(t, i([0, 1], [2]))),
    layerNorm: same((t) => gradmix.layerNorm(t)),
    rmsNorm: same((t) => gradmix.rmsNorm(t)),
    rope: same((t) => gradmix.rope(t, { heads: 1, headDim: 2 }), () => x(1, 1, 2)),
    causalAttention: same((t) => gradmix.causalAttention(t, { heads: 1 }), () => x(1, 1, 6)),
    attention: same((t) => gradmix.attention(t, t, t), () => x(1, 1, 1, 2)),
    crossEntropy: same((t) => gradmix.crossEntropy(t, i([0, 1], [2]))),
    exampleLosses: same((t) => gradmix.exampleLosses(t, i([0, 1], [2]))),
    checkpoint: [...same((t) => gradmix.checkpoint((y) => y, t)), ...same((t) => gradmix.checkpoint(() => t, t))],
  }; // prettier-ignore

  it("the list has every public op", () => {
    const all = Object.entries(opFunctions).flatMap(([name, value]) =>
      typeof value === "function" ? [name] : [],
    );
    expect(Object.keys(cases).sort()).toEqual([...all, "checkpoint"].sort());
    for (const name of all) expect(Reflect.get(gradmix, name), name).toBeTypeOf("function");
  });

  it.each(Object.keys(cases))("%s", async (name) => {
    for (const [input, fn] of cases[name]) {
      const t = input();
      await independent([fn(t)], [t], name);
      // And the other way round.
      const result = fn(t);
      const want = await numbers(result);
      t.dispose();
      expect(await numbers(result), name).toEqual(want);
      if (["sign", "stopGradient", "argmax"].includes(name) || input().dtype === "i32") continue;
      // It passes the same gradient as the op anywhere else: along a direction, by both modes.
      const [a, v] = [input(), input()];
      const pushed = await numbers(jvp(fn, [a], [v]).tangents[0]);
      const ct = tensor(values(pushed.length, 3), fn(a).shape);
      const pulled = await numbers(vjp(fn, [a]).pullback(ct)[0]);
      const dot = (p: number[], q: number[]): number => p.reduce((s, value, n) => s + value * q[n], 0);
      const [back, ahead] = [dot(pulled, await numbers(v)), dot(pushed, await numbers(ct))];
      expect(Math.abs(back - ahead)).toBeLessThan(1e-12 * (1 + Math.abs(ahead)));
    }
  });
});

describe("transformations", () => {
  it.each(Object.keys(ops))("vjp and jvp of %s return separate handles, even if f returns its inputs and results twice", async (name) => {
    for (const sample of samples[name]) {
      const all = sample.inputs().map(upload);
      const wrt = sample.wrt?.map((slot) => (slot + all.length) % all.length) ?? all.flatMap((t, n) => (t.dtype === "f32" ? [n] : []));
      if (wrt.length === 0) continue;
      const primals = wrt.map((n) => all[n]);
      const f = (...x: Tensor[]): Tensor[] => {
        const y = applySample(ops[name], all.map((t, n) => (wrt.includes(n) ? x[wrt.indexOf(n)] : t)), sample.attrs);
        return [...y, ...x, ...y, ...all];
      };
      const { outputs, pullback } = vjp(f, primals);
      const ct = outputs.map((t) => tensor(values(t.size, 3), t.shape));
      const pulled = pullback(ct);
      await independent([...outputs, ...pulled], [...all, ...ct], `vjp of ${name}`);
      const v = primals.map((t) => tensor(values(t.size, 4), t.shape));
      const pushed = jvp(f, primals, v);
      await independent([...pushed.outputs, ...pushed.tangents], [...all, ...v], `jvp of ${name}`);
    }
  }); // prettier-ignore

  it("a gradient of two inputs, a value that is its own gradient, and a tangent of two results have separate handles", async () => {
    const [x, y] = [tensor([1, 2]), tensor([3, 4])];
    const found = grad((a, b) => sum(add(a, b)))(x, y);
    await independent(found, [x, y], "grad");
    const again = grad((a, b) => sum(add(a, b)))(x, y);
    again[0].write([7, 7]);
    expect(await numbers(again[1])).toEqual([1, 1]);
    const one = tensor([5]);
    const { value, gradients } = valueAndGrad((a) => a)(one);
    await independent([value, ...gradients], [one], "valueAndGrad");
    const moved = jvp((a) => {
      const b = mul(a, a);
      return [affine(b, 1, 1), affine(b, 1, 2)];
    }, [x], [y]);
    await independent([...moved.outputs, ...moved.tangents], [x, y], "jvp");
  }); // prettier-ignore

  it("derivatives have memory of their own, even if a rule only changes the shape", async () => {
    const [x, ct] = [tensor([1, 2]), tensor([3, 4], [2, 1])];
    const [dx] = vjp((x) => gradmix.reshape(x, [2, 1]), [x]).pullback(ct);
    const moved = jvp((x) => gradmix.reshape(x, [2, 1]), [x], [x]).tangents[0];
    for (const t of [dx, moved]) t.write([9, 9]);
    expect([await numbers(x), await numbers(ct)]).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  it("losses and derivatives that equal parameters and directions have separate handles", async () => {
    const [p, v] = [tensor([1, 2]), tensor([3, 4])];
    const { losses, derivatives } = forwardDerivative(() => p, new Map([[p, v]]));
    await independent([losses, derivatives], [p, v], "forwardDerivative");
    const into = tensor([0, 0]);
    const weights = tensor([1, 1]);
    const out = gradients(() => affine(p, 1, 0), { parameters: [p], sink: sumSink({ gradientOf: () => into }), weights });
    await independent([out], [p, into, weights], "gradients");
    const whole = gradients(() => p, { parameters: [p], sink: sumSink({ gradientOf: () => into }) });
    expect(await numbers(into)).toEqual([1, 1]);
    await independent([whole], [p, into], "gradients of a parameter");
  }); // prettier-ignore

  it("functions that create tensors return separate handles", () => {
    const made = [
      gradmix.zeros([2]),
      gradmix.ones([2]),
      gradmix.full([2], 1),
      gradmix.arange(2),
      gradmix.eye(2),
    ];
    expect(new Set(made).size).toBe(made.length);
    for (const t of made) expect(t).toBeInstanceOf(Tensor);
  });
});
