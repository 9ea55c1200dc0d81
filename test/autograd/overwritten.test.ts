/**
 * If a tensor is overwritten between the forward and the backward pass, the gradient is that of the recorded value, or there is an error; never another
 * number.
 */
import { beforeEach, describe, expect, it } from "vitest";
import {
  affine,
  checkpoint,
  exp,
  grad,
  gradients,
  GradmixError,
  type GradientSink,
  jvp,
  linear,
  mul,
  reshape,
  square,
  sum,
  sumSink,
  tensor,
  type Tensor,
  vjp,
} from "gradmix";
import { adamw, createGPT } from "gradmix/nn";
import { ops } from "#dist/autograd/ops/index.js";
import { run } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";
import { applySample, samples, upload } from "./samples.ts";
import { codeOf } from "../errors.ts";

beforeEach(() => void setCurrentMemory(createReferenceBackend({ precision: "f64" })));

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const many = (ts: readonly Tensor[]): Promise<number[][]> => Promise.all(ts.map(numbers));

const ways: { readonly [name: string]: (t: Tensor) => void } = {
  write: (t) => t.write(new Array<number>(t.size).fill(t.dtype === "i32" ? 1 : 0.375)),
  "write through another handle": (t) => t.view([1], t.size - 1).write([t.dtype === "i32" ? 1 : 0.375]),
  "a kernel in place": (t) => run("fill", { value: 2 }, {}, { out: t }),
};

describe.each(Object.keys(ways))("%s", (way) => {
  it.each(Object.keys(ops).filter((name) => ops[name].constant !== true))(
    "is refused for the tensors that %s needs",
    async (name) => {
      let refused = 0;
      for (const sample of samples[name]) {
        const record = () => {
        const all = sample.inputs().map(upload);
        const wrt = sample.wrt?.map((slot) => (slot + all.length) % all.length) ?? all.flatMap((t, n) => (t.dtype === "f32" ? [n] : []));
        const f = (...x: Tensor[]): Tensor[] =>
          applySample(ops[name], all.map((t, n) => (wrt.includes(n) ? x[wrt.indexOf(n)] : t)), sample.attrs);
        const { outputs, pullback } = vjp(f, wrt.map((n) => all[n]));
        const ct = outputs.map((t) => tensor(values(t.size, 3), t.shape));
        return { touched: [...all, ...outputs], pull: () => pullback(ct) };
      }; // prettier-ignore
        const want = await many(record().pull());
        for (const n of record().touched.keys()) {
          const { touched, pull } = record();
          ways[way](touched[n]);
          try {
            expect(await many(pull()), `tensor ${n}`).toEqual(want);
          } catch (error) {
            if (!(error instanceof GradmixError)) throw error;
            expect(error.code).toBe("autograd");
            expect(error.message).toMatch(/was overwritten .* after it was recorded/);
            refused++;
          }
        }
      }
      // Linear ops save nothing.
      if (["exp", "mul", "linear", "layerNorm", "causalAttention", "crossEntropy"].includes(name))
        expect(refused).toBeGreaterThan(0);
    },
  );
});

describe("is noticed at every place", () => {
  const x = (): Tensor => tensor([1, 2]);

  it("a value inside the function: before its next use, and before it is returned", () => {
    const inPlace = (x: Tensor): Tensor => {
      const y = affine(x, 2, 0);
      y.write([5, 5]);
      return sum(square(y));
    };
    expect(codeOf(() => grad(inPlace)(x()))).toMatch(/^autograd: tensor \[2\].* overwritten .*before square used it/);
    expect(codeOf(() => jvp(inPlace, [x()], [x()]))).toMatch(/^autograd: tensor \[2\].* and its tangent belongs to the old values/);
    const returned = (x: Tensor): Tensor => {
      const y = sum(x);
      y.write([5]);
      return y;
    };
    expect(codeOf(() => grad(returned)(x()))).toMatch(/before the function returned it/);
    expect(codeOf(() => jvp(returned, [x()], [x()]))).toMatch(/overwritten/);
    // An input, through the handle outside; and a tangent.
    const [a, v] = [x(), x()];
    const input = (y: Tensor): Tensor => (a.write([5, 5]), sum(square(y)));
    expect(codeOf(() => grad(input)(a))).toMatch(/before square used it/);
    const tangent = (y: Tensor): Tensor => (v.write([5, 5]), sum(square(y)));
    expect(codeOf(() => jvp(tangent, [a], [v]))).toMatch(/but later ops still need it as a tangent/);
  }); // prettier-ignore

  it("the tensors that a checkpoint needs again: its inputs, what it captured, a parameter", () => {
    const c = tensor([3, 4]);
    const w = tensor([1, 2, 3, 4], [2, 2]);
    w.name = "w";
    const record = () => vjp((x) => sum(checkpoint((y) => mul(y, c), reshape(x, [2]))), [x()]);
    const ct = tensor([1], []);
    const plain = record();
    expect(codeOf(() => plain.pullback(ct))).toBe("no error");
    const { pullback } = record();
    c.write([5, 6]);
    expect(codeOf(() => pullback(ct))).toMatch(
      /^autograd: tensor \[2\].*checkpoint needs it for the gradient/,
    );
    const sink: GradientSink = sumSink({ gradientOf: () => tensor([0, 0, 0, 0], [2, 2]) });
    const loss = (): Tensor => {
      const y = checkpoint((h) => linear(exp(h), w), linear(tensor([1, 2], [1, 2]), w));
      w.write([9, 9, 9, 9]);
      return sum(y, 1);
    };
    expect(codeOf(() => gradients(loss, { parameters: [w], sink }))).toMatch(/^autograd: tensor w\[2, 2\]/);
  });

  it("parameters, by an optimizer step during the pass; a step after the pass is allowed", async () => {
    const model = createGPT({ vocabSize: 5, dim: 4, layers: 1, heads: 2, context: 3 });
    const optimizer = adamw(model.parameters);
    const gradient = tensor(values(model.parameters.value.size, 3));
    const tokens = tensor([0, 1, 2], [1, 3], "i32");
    const { list } = model.parameters;
    const pass = (): Tensor =>
      gradients(() => model.losses({ inputs: tokens, targets: tokens }), {
        parameters: list,
        sink: sumSink({ gradientOf: (p) => gradient.view(p.shape, p.offset) }),
      });
    for (let step = 0; step < 2; step++) {
      pass();
      optimizer.step(gradient, 0.1);
    }
    const recorded = (): ReturnType<typeof vjp> =>
      vjp((y) => linear(y, list[2]), [tensor([1, 2, 3, 4], [1, 4])]);
    const before = recorded();
    optimizer.step(gradient, 0.1);
    const after = recorded();
    expect(codeOf(() => before.pullback(before.outputs))).toMatch(
      /^autograd: tensor blocks.0.qkv.weight\[12, 4\]/,
    );
    expect(codeOf(() => after.pullback(after.outputs))).toBe("no error");
  });
});
