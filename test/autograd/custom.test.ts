/** Custom ops and gradients: they behave like their built-in twins on every backend and under every transformation; also refusals and lifetimes. */
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, expectTypeOf, it } from "vitest";
import {
  add,
  affine,
  checkpoint,
  cos,
  customGradient,
  defineOp,
  exp,
  forwardDerivative,
  grad,
  gradients,
  jvp,
  linear,
  matmul,
  mean,
  mul,
  neg,
  normSink,
  perExampleSink,
  scope,
  sin,
  softmax,
  square,
  sub,
  sum,
  sumSink,
  tanh,
  tensor,
  type Tensor,
  valueAndGrad,
  vjp,
} from "gradmix";
import { checkGradients } from "gradmix/testing";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";
import { codeOf } from "../errors.ts";
import { expectNear } from "../near.ts";

const [B, D] = [4, 3];
const random = (shape: readonly number[], seed: number): Tensor =>
  tensor(
    values(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
  );
const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const flat = async (ts: readonly Tensor[]): Promise<number[]> => (await Promise.all(ts.map(numbers))).flat();

const cube = defineOp({
  name: "cube",
  inputs: ["x"],
  infer: ([x]) => x,
  keepsBatch: "elementwise",
  forward: ([x]) => mul(x, square(x)),
  vjp: ([ct], { saved: [x] }) => mul(ct, affine(square(x), 3, 0)),
  jvp: ([t], { saved: [x] }) => mul(t, affine(square(x), 3, 0)),
});
/** Its rules use the output. */
const ownTanh = defineOp({
  name: "ownTanh",
  inputs: ["x"],
  infer: ([x]) => x,
  keepsBatch: "elementwise",
  forward: ([x]) => {
    const y = tanh(x);
    return { outputs: y, saved: [y] };
  },
  vjp: ([ct], { saved: [y] }) => mul(ct, affine(square(y), -1, 1)),
  jvp: ([t], { saved: [y] }) => mul(t, affine(square(y), -1, 1)),
});
const ownMul = defineOp({
  name: "ownMul",
  inputs: ["a", "b"],
  infer: ([a]) => a,
  keepsBatch: "elementwise",
  forward: ([a, b]) => mul(a, b),
  vjp: ([ct], { saved: [a, b] }) => [mul(ct, b), mul(ct, a)],
  jvp: ([ta, tb], { saved: [a, b] }) => add(mul(ta, b), mul(a, tb)),
});
const scaled = defineOp({
  name: "scaled",
  inputs: ["x"],
  attributes: { scale: 1 },
  infer: ([x]) => x,
  keepsBatch: "elementwise",
  forward: ([x], { scale }) => affine(x, scale, 0),
  vjp: ([ct], { attributes: { scale } }) => affine(ct, scale, 0),
  jvp: ([t], { attributes: { scale } }) => affine(t, scale, 0),
});
const softmaxSlope = (y: Tensor, t: Tensor): Tensor => mul(y, sub(t, sum(mul(t, y), 1, true)));
const ownSoftmax = defineOp({
  name: "ownSoftmax",
  inputs: ["x"],
  infer: ([x]) => x,
  keepsBatch: "rows",
  forward: ([x]) => {
    const y = softmax(x);
    return { outputs: [y], saved: [y] };
  },
  vjp: ([ct], { saved: [y] }) => [softmaxSlope(y, ct)],
  jvp: ([t], { saved: [y] }) => [softmaxSlope(y, t)],
});
const product = defineOp({
  name: "product",
  inputs: ["x", "w"],
  infer: ([x]) => x,
  keepsBatch: "rowsOfFirst",
  forward: ([x, w]) => matmul(x, w),
  vjp: ([ct], { saved: [x, w] }) => [
    matmul(ct, w, { transposeB: true }),
    matmul(x, ct, { transposeA: true }),
  ],
  jvp: ([tx, tw], { saved: [x, w] }) => add(matmul(tx, w), matmul(x, tw)),
});
/** Over the batch. */
const centred = defineOp({
  name: "centred",
  inputs: ["x"],
  infer: ([x]) => x,
  keepsBatch: "mixes",
  forward: ([x]) => sub(x, mean(x, 0, true)),
  vjp: ([ct]) => sub(ct, mean(ct, 0, true)),
  jvp: ([t]) => sub(t, mean(t, 0, true)),
});
const both = defineOp({
  name: "both",
  inputs: ["x"],
  infer: ([x]) => [x, x],
  keepsBatch: (slot, inputs, output) => inputs[slot].shape[0] === output.shape[0],
  forward: ([x]) => [sin(x), cos(x)],
  vjp: ([a, b], { saved: [x] }) => sub(mul(a, cos(x)), mul(b, sin(x))),
  jvp: ([t], { saved: [x] }) => [mul(t, cos(x)), neg(mul(t, sin(x)))],
});
/** x·e^x, whose rules use what is neither input nor output. */
const xExp = defineOp({
  name: "xExp",
  inputs: ["x"],
  infer: ([x]) => x,
  keepsBatch: "elementwise",
  forward: ([x]) => {
    const e = exp(x);
    return { outputs: mul(x, e), saved: [x, e] };
  },
  vjp: ([ct], { saved: [x, e] }) => mul(ct, mul(affine(x, 1, 1), e)),
  jvp: ([t], { saved: [x, e] }) => mul(t, mul(affine(x, 1, 1), e)),
  compose: ([x]) => mul(x, exp(x)),
});
const ownSin = customGradient(
  (x: Tensor) => sin(x),
  ([ct], { inputs: [x] }) => mul(ct, cos(x)),
  ([t], { inputs: [x] }) => mul(t, cos(x)),
  { keepsBatch: "elementwise" },
);
const identity = customGradient(
  (x: Tensor) => x,
  ([ct]) => ct,
  ([t]) => t,
  { keepsBatch: "elementwise" },
);

/** [B, D] → [B, D], twice: by custom ops and by built-in ones. */
const twins: readonly (readonly [string, (x: Tensor, w: Tensor) => Tensor, (x: Tensor, w: Tensor) => Tensor])[] =
  [
    ["cube", (x) => cube(x), (x) => mul(x, mul(x, x))],
    ["ownTanh", (x) => ownTanh(x), (x) => tanh(x)],
    ["ownMul", (x) => ownMul(x, ownTanh(x)), (x) => mul(x, tanh(x))],
    ["ownMul of one tensor", (x) => ownMul(x, x), (x) => mul(x, x)],
    ["scaled", (x) => scaled(x, { scale: -0.5 }), (x) => affine(x, -0.5, 0)],
    ["scaled by default", (x) => scaled(x), (x) => x],
    ["ownSoftmax", (x) => ownSoftmax(x), (x) => softmax(x)],
    ["product", (x, w) => product(x, w), (x, w) => matmul(x, w)],
    ["centred", (x) => centred(x), (x) => sub(x, mean(x, 0, true))],
    ["both", (x) => { const [s, c] = both(x); return ownMul(s, c); }, (x) => mul(sin(x), cos(x))],
    ["one of both", (x) => both(x)[1], (x) => cos(x)],
    ["xExp", (x) => xExp(x), (x) => mul(x, exp(x))],
    ["ownSin", (x) => ownSin(x), (x) => sin(x)],
    ["identity", (x) => identity(x), (x) => affine(x, 1, 0)],
    ["checkpoint", (x, w) => checkpoint((x, w) => cube(product(x, w)), x, w), (x, w) => { const y = matmul(x, w); return mul(y, mul(y, y)); }],
  ]; // prettier-ignore

describe.each(backends)("on $name", ({ create }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
    setCurrentMemory(backend);
  });
  afterAll(async () => {
    await backend.dispose();
  });

  /** Results of every transformation of a composition. */
  function everything(f: (x: Tensor, w: Tensor) => Tensor): Record<string, Tensor[]> {
    return scope(() => {
      const [x, w] = [random([B, D], 1), random([D, D], 2)];
      const [tx, tw, ct] = [random([B, D], 3), random([D, D], 4), random([B, D], 5)];
      const loss = (x: Tensor, w: Tensor): Tensor => sum(mul(f(x, w), ct));
      const pushed = jvp(f, [x, w], [tx, tw]);
      const { outputs, pullback } = vjp(f, [x, w]);
      const second = jvp((x, w) => grad(loss)(x, w), [x, w], [tx, tw]);
      const turned = grad((x, w) => sum(mul(jvp(f, [x, w], [tx, tw]).tangents[0], ct)))(x, w);
      const twice = grad((x, w) => {
        const [dx, dw] = grad(loss)(x, w);
        return add(sum(mul(dx, tx)), sum(mul(dw, tw)));
      })(x, w);
      const again = jvp((x, w) => jvp(f, [x, w], [tx, tw]).tangents, [x, w], [tx, tw]);
      // As parameters: the first used by a linear layer, the second by custom ops.
      const [p, into] = [random([D, D], 6), new Map<Tensor, Tensor>()];
      for (const q of [p, w]) into.set(q, tensor(new Float64Array(q.size), q.shape));
      const losses = gradients(() => sum(f(linear(x, p), w), 1), {
        parameters: [p, w],
        sink: sumSink({ gradientOf: (q) => into.get(q)! }),
      });
      // Forward mode detects mixing only after a parameter's rows are used; here the parameter is mixed with itself.
      const along = forwardDerivative(() => sum(f(x, w), 1), new Map([[w, tw]]));
      return {
        value: outputs,
        vjp: pullback(ct),
        jvp: pushed.tangents,
        "jvp of grad": second.tangents,
        "grad of jvp": turned,
        "grad of grad": twice,
        "jvp of jvp": again.tangents,
        gradients: [losses, ...into.values()],
        forwardDerivative: [along.losses, along.derivatives],
      };
    });
  }

  it("random compositions equal those of built-in ops, and free all their memory", async () => {
    const count = 12;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(twins.length - 1), { minLength: 1, maxLength: 4 }),
        async (program) => {
          // Every program uses w, so that every loss depends on it.
          const run = (which: 1 | 2) => (x: Tensor, w: Tensor) =>
            program.reduce((y, n) => twins[n][which](y, w), which === 1 ? product(x, w) : matmul(x, w));
          const before = backend.liveBytes;
          const [got, want] = [everything(run(1)), everything(run(2))];
          for (const [what, tensors] of Object.entries(want)) {
            const [a, b] = [await flat(got[what]), await flat(tensors)];
            expectNear(a, b, 3e-4, Math.max(1, ...b.map(Math.abs)));
          }
          for (const t of [got, want].flatMap((all) => Object.values(all).flat())) t.dispose();
          expect(backend.liveBytes).toBe(before);
        },
      ),
      { numRuns: count, examples: twins.map((_, n) => [[n]]) },
    );
  });
});

describe("in double precision", () => {
  let backend: Backend;
  beforeEach(() => {
    backend = createReferenceBackend({ precision: "f64" });
    setCurrentMemory(backend);
  });
  const x = (): Tensor => random([B, D], 11);
  const w = (): Tensor => random([D, D], 12);

  it.each(twins)("%s has the right first and second derivatives", async (_, custom) => {
    await checkGradients(custom, [x(), w()], { order: 2 });
  });

  describe("per-example gradients", () => {
    it.each(twins)("%s: equal to those of the built-in twin, or refused with the op's name", async (_, custom, builtin) => {
      const [data, other] = [x(), w()];
      const p = random([D, D], 13);
      const found: (number[] | string)[] = [];
      for (const f of [custom, builtin]) {
        const sink = perExampleSink(B, [p]);
        const run = (): void => void gradients(() => sum(f(linear(data, p), other), 1), { parameters: [p], sink });
        const code = codeOf(run);
        found.push(code === "no error" ? await numbers(sink.result().get(p)!) : code);
      }
      const [got, want] = found;
      if (typeof want !== "string" && typeof got !== "string") expectNear(got, want, 1e-12);
      else expect(got).toMatch(/^autograd: .*centred \(\[4, 3\] → \[4, 3\]\) mixes the examples/);
    }); // prettier-ignore

    it("a customGradient counts as mixing the examples unless it declares otherwise", () => {
      const p = random([D, D], 13);
      const f = customGradient((x: Tensor) => x, ([ct]) => ct, undefined, { name: "through" }); // prettier-ignore
      const run = (): unknown =>
        gradients(() => sum(f(linear(x(), p)), 1), { parameters: [p], sink: normSink({ examples: B }) });
      expect(codeOf(run)).toMatch(/^autograd: .*through .* mixes the examples/);
    });

    it("a parameter that a custom op uses directly is refused by name in a per-example sink, and summed in a sum sink", async () => {
      const p = w();
      p.name = "p";
      const data = x();
      const loss = (): Tensor => sum(product(data, p), 1);
      const sink = perExampleSink(B, [p]);
      expect(codeOf(() => gradients(loss, { parameters: [p], sink }))).toMatch(
        /^autograd: .*parameter p is used by product, which has no per-example rule/,
      );
      const into = tensor(new Float64Array(D * D), [D, D]);
      gradients(loss, { parameters: [p], sink: sumSink({ gradientOf: () => into }) });
      const [want] = grad((p) => sum(matmul(data, p)))(p);
      expectNear(await numbers(into), await numbers(want), 1e-12);
    });
  });

  describe("what the rules receive", () => {
    it("the gradient is the one that the rule gives, at every order, whatever f computes", async () => {
      const clipped = customGradient(
        (x: Tensor) => square(x),
        ([ct], { inputs: [x] }) => mul(ct, x),
        ([t], { inputs: [x] }) => mul(t, x),
      );
      const t = tensor([3, -1]);
      expect(await numbers(grad((x) => sum(clipped(x)))(t)[0])).toEqual([3, -1]);
      const [second] = grad((x) => sum(grad((x) => sum(clipped(x)))(x)[0]))(t);
      expect(await numbers(second)).toEqual([1, 1]);
      const { tangents } = jvp((x) => clipped(x), [t], [tensor([1, 2])]);
      expect(await numbers(tangents[0])).toEqual([3, -2]);
    });

    it("rules receive all inputs and all outputs separately", async () => {
      const saw: unknown[] = [];
      const ratio = customGradient(
        (x: Tensor, y: Tensor) => [mul(x, y), exp(x)],
        ([a, b], { inputs, outputs }) => {
          saw.push(inputs.length, outputs.length);
          return [add(mul(a, inputs[1]), mul(b, outputs[1])), mul(a, inputs[0])];
        },
        ([t, u], { inputs, outputs }) => {
          saw.push(inputs.length, outputs.length);
          return [add(mul(t, inputs[1]), mul(u, inputs[0])), mul(t, outputs[1])];
        },
      );
      await checkGradients((x, y) => ratio(x, y), [tensor([0.5, -1]), tensor([3, 2])], { order: 2 });
      expect(new Set(saw)).toEqual(new Set([2]));
    });

    it("constants may be captured, saved and returned, and still belong to the caller", async () => {
      const factor = tensor([2, 3]);
      const op = defineOp({
        name: "factored",
        inputs: ["x"],
        infer: ([x]) => x,
        keepsBatch: "elementwise",
        forward: ([x]) => ({ outputs: mul(x, factor), saved: [factor] }),
        // The gradient of the sum is the captured tensor itself.
        vjp: ([ct], { saved: [f] }) => mul(ct, f),
        jvp: ([t], { saved: [f] }) => mul(t, f),
      });
      const handed = customGradient((x: Tensor) => sum(mul(x, factor)), () => factor, () => factor); // prettier-ignore
      for (const f of [op, handed]) {
        const before = backend.liveBytes;
        const t = tensor([5, 7]);
        const gradient = scope(() => grad((x) => sum(f(x)))(t)[0]);
        expect(await numbers(gradient)).toEqual([2, 3]);
        gradient.write([0, 0]);
        for (const made of [gradient, t]) made.dispose();
        expect(await numbers(factor)).toEqual([2, 3]);
        expect(backend.liveBytes).toBe(before);
      }
      // Random numbers that depend on no input may be saved too, and differentiated past.
      const masked = defineOp({
        name: "masked",
        inputs: ["x"],
        infer: ([x]) => x,
        keepsBatch: "elementwise",
        forward: ([x]) => {
          const mask = tensor([1, 0]);
          return { outputs: mul(square(x), mask), saved: [x, mask] };
        },
        vjp: ([ct], { saved: [x, mask] }) => mul(ct, mul(affine(x, 2, 0), mask)),
      });
      const [second] = grad((x) => sum(grad((x) => sum(masked(x)))(x)[0]))(tensor([5, 7]));
      expect(await numbers(second)).toEqual([2, 0]);
    });

    it("an output that is the input, or that is returned twice, gets a handle of its own", async () => {
      const two = customGradient((x: Tensor) => [x, x], ([a, b]) => add(a, b)); // prettier-ignore
      const t = tensor([1, 2]);
      const [a, b] = two(t);
      a.dispose();
      expect(await numbers(b)).toEqual([1, 2]);
      b.dispose();
      expect(await numbers(t)).toEqual([1, 2]);
      const [dx] = grad((x) => sum(mul(two(x)[0], two(x)[1])))(t);
      expect(await numbers(dx)).toEqual([2, 4]);
    });

    it("the gradient of an integer input is null, and integer outputs pass no gradient back", async () => {
      const pick = defineOp({
        name: "pick",
        inputs: ["x", "mask"],
        infer: ([x, mask]) => [x, mask],
        keepsBatch: "elementwise",
        forward: ([x, mask]) => [square(x), mask],
        vjp: ([ct, none], { saved: [x], needs }) => {
          expect(needs).toEqual([true, false]);
          expect([none.shape, none.dtype]).toEqual([[2], "f32"]);
          return [mul(ct, affine(x, 2, 0)), null];
        },
        jvp: ([t], { saved: [x] }) => [mul(t, affine(x, 2, 0)), null],
      });
      const mask = tensor(Int32Array.of(1, 0));
      await checkGradients((x) => pick(x, tensor([1, 0], [2], "i32")), [tensor([3, 4])]);
      const greedy = customGradient(
        (x: Tensor, _mask: Tensor) => x,
        ([ct]) => [ct, ct],
      );
      expect(codeOf(() => grad((x) => sum(greedy(x, mask)))(tensor([3, 4])))).toBe(
        "autograd: customGradient: vjp gives a derivative for the input 1, which is i32; give null",
      );
      const { value, gradients } = valueAndGrad((x) => sum(pick(x, mask)[0]))(tensor([3, 4]));
      expect(await value.item()).toBe(25);
      expect(await numbers(gradients[0])).toEqual([6, 8]);
    });
  });

  describe("captured tensors", () => {
    const capturing = (captured: Tensor): [string, (x: Tensor) => Tensor][] => [
      [
        "customGradient",
        customGradient((x: Tensor) => mul(x, captured), ([ct]) => ct, ([t]) => t),
      ],
      [
        "op",
        defineOp({ name: "op", inputs: ["x"], infer: ([x]) => x, keepsBatch: "elementwise", forward: ([x]) => mul(x, captured), vjp: ([ct]) => ct, jvp: ([t]) => t }),
      ],
      // Even if it is the result, or is saved.
      ["customGradient", customGradient(() => captured, ([ct]) => ct, ([t]) => t)],
    ]; // prettier-ignore

    it("are refused by every transformation if they need a gradient or a tangent", () => {
      const p = tensor([1, 2]);
      p.name = "p";
      const before = backend.liveBytes;
      const refused = (fn: () => unknown, name: string): void => {
        expect(scope(() => codeOf(fn))).toMatch(
          new RegExp(
            `^autograd: ${name}: it uses tensor .*\\[2\\], which needs a gradient or a tangent but is not one of its inputs`,
          ),
        );
        expect(backend.liveBytes).toBe(before + 16);
      };
      const t = tensor([3, 4]);
      for (const n of [0, 1, 2]) {
        const by = (c: Tensor): ((x: Tensor) => Tensor) => capturing(c)[n][1];
        const [name] = capturing(p)[n];
        refused(() => grad((c) => sum(by(exp(c))(t)))(p), name);
        const sink = sumSink({ gradientOf: () => t });
        refused(() => gradients(() => by(p)(t), { parameters: [p], sink }), name);
        refused(() => forwardDerivative(() => by(p)(t), new Map([[p, p]])), name);
        refused(() => jvp((c) => by(exp(c))(t), [p], [p]), name);
        refused(() => grad((c) => checkpoint((c) => sum(by(exp(c))(t)), c))(p), name);
        refused(() => grad((c) => sum(grad((y) => sum(by(c)(y)))(t)[0]))(p), name);
      }
    });
  });

  describe("wrong definitions", () => {
    const fine = {
      name: "wrong",
      inputs: ["x"] as const,
      infer: ([x]: readonly [{ shape: readonly number[]; dtype: "f32" | "i32" }]) => x,
      keepsBatch: "elementwise" as const,
      forward: ([x]: readonly [Tensor]) => exp(x),
      vjp: ([ct]: readonly Tensor[]) => ct,
      jvp: ([t]: readonly Tensor[]) => t,
    };
    const make = (change: object): ((x: Tensor) => Tensor) =>
      defineOp({ ...fine, ...change } as never) as unknown as (x: Tensor) => Tensor;

    it.each([
      [{ infer: undefined }, 'config: defineOp "wrong": infer is missing'],
      [{ keepsBatch: undefined }, 'config: defineOp "wrong": keepsBatch is missing'],
      [{ forward: undefined }, 'config: defineOp "wrong": forward is missing'],
      [{ inputs: undefined }, 'config: defineOp "wrong": inputs is missing'],
      [{ name: undefined }, "config: defineOp: name is missing"],
      [{ inputs: [] }, /inputs: a list does not fit; it must be a list of different names/],
      [{ inputs: ["x", "x"] }, /a list of different names/],
      [{ keepsBatch: "elementwize" }, /keepsBatch: "elementwize" is not known; did you mean "elementwise"/],
      [{ keepsBatch: true }, /keepsBatch: true is not known/],
      [{ vjp: 3 }, /vjp: 3 does not fit; it must be a function/],
      [{ foward: exp }, /there is no option "foward"; did you mean "forward"/],
    ])("%j is refused when it is defined", (change, message) => {
      const code = codeOf(() => make(change));
      if (typeof message === "string") expect(code).toBe(message);
      else expect(code).toMatch(message);
      expect(code).toMatch(/^config: /);
    });

    it.each<[string, object, string]>([
      ["infer", { infer: () => undefined }, "infer gives undefined, not { shape, dtype }"],
      ["infer", { infer: () => null }, "infer gives null, not { shape, dtype }"],
      ["infer", { infer: () => ({ shape: [-1], dtype: "f32" }) }, "infer: [-1] is not a shape"],
      ["infer", { infer: () => ({ shape: [3], dtype: "f64" }) }, 'infer: the type "f64" is not known'],
      ["infer", { infer: () => ({ shape: [2], dtype: "f32" }) }, "forward gives f32[3], infer says f32[2]"],
      ["infer", { infer: () => ({ shape: [3], dtype: "i32" }) }, "forward gives f32[3], infer says i32[3]"],
      ["infer", { infer: ([x]: unknown[]) => [x, x] }, "forward gives 1 outputs, but infer gives 2"],
      ["forward", { forward: () => 3 }, "forward gives 3, not a tensor"],
      ["forward", { forward: ([x]: Tensor[]) => ({ outputs: exp(x), saved: [1] }) }, "forward (saved) gives 1, not a tensor"],
      ["vjp", { vjp: ([ct]: Tensor[]) => [ct, ct] }, "vjp gives 2 derivatives; 1 are needed"],
      ["vjp", { vjp: () => [] }, "vjp gives 0 derivatives; 1 are needed"],
      ["vjp", { vjp: () => undefined }, "vjp gives undefined for the input x; a tensor is needed, or null"],
      ["vjp", { vjp: ([ct]: Tensor[]) => sum(ct) }, "vjp gives f32[] for the input x, which is f32[3]"],
      ["vjp", { vjp: () => tensor(Int32Array.of(1, 2, 3)) }, "vjp gives i32[3] for the input x, which is f32[3]"],
      ["jvp", { jvp: ([t]: Tensor[]) => sum(t) }, "jvp gives f32[] for output 0, which is f32[3]"],
      ["jvp", { jvp: () => [] }, "jvp gives 0 derivatives; 1 are needed"],
      ["vjp", { vjp: undefined }, " has no vjp rule"],
      ["jvp", { jvp: undefined }, " has no jvp rule"],
      ["compose", { compose: ([x]: Tensor[]) => sum(x) }, "compose gives f32[], infer says f32[3]"],
      ["keepsBatch", { keepsBatch: () => 1 }, "keepsBatch gives 1, not true or false"],
      ["saved", { forward: ([x]: Tensor[]) => ({ outputs: exp(x), saved: [square(x)] }) }, "it saves what is neither input nor output"],
    ])("a wrong %s is refused by name: %j", (rule, change, message) => {
      const f = make(change);
      const before = backend.liveBytes;
      const code = scope(() => {
        const t = tensor([1, 2, 3]);
        const p = tensor([1, 2, 3, 4, 5, 6, 7, 8, 9], [3, 3]);
        return codeOf(() => {
          if (rule === "infer" || rule === "forward") return f(t);
          if (rule === "jvp") return jvp(f, [t], [t]);
          if (rule === "keepsBatch")
            return gradients(() => sum(f(linear(p, p)), 1), { parameters: [p], sink: normSink({ examples: 3 }) });
          if (rule === "vjp") return grad((x) => sum(f(x)))(t);
          return grad((x) => sum(grad((x) => sum(f(x)))(x)[0]))(t);
        });
      });
      expect(code).toMatch(/^(autograd|shape): wrong\b/);
      expect(code).toContain(message);
      // An error leaves no memory in use.
      expect(backend.liveBytes).toBe(before);
    }); // prettier-ignore

    it("operands and attributes that do not fit are refused", () => {
      const t = tensor([1, 2]);
      const js = (f: unknown) => f as (...args: unknown[]) => unknown;
      expect(codeOf(() => js(ownMul)(t))).toBe("shape: ownMul: 1 operands were given; it takes a, b");
      expect(codeOf(() => js(ownMul)(t, t, {}))).toBe("shape: ownMul: 3 operands were given; it takes a, b");
      expect(codeOf(() => js(ownMul)(t, 3))).toBe("shape: ownMul: b is 3, not a tensor");
      expect(codeOf(() => js(scaled)(t, { scal: 2 }))).toMatch(/^config: scaled: there is no option "scal"; did you mean "scale"/);
      expect(codeOf(() => js(scaled)(t, { scale: "2" }))).toMatch(/^config: scaled: scale: "2" does not fit; it must be a number/);
      expect(codeOf(() => js(scaled)(t, t))).toMatch(/^config: scaled: /);
      expect(codeOf(() => js(ownSin)(3))).toBe("shape: customGradient: operand 0 is 3, not a tensor");
      expect(codeOf(() => customGradient(exp, exp as never, 3 as never))).toMatch(/^config: customGradient: jvp/);
    }); // prettier-ignore

    it("attributes that are left out have their defaults in every rule", async () => {
      const seen = new Set<string>();
      const note = (rule: string, attributes: object): void =>
        void seen.add(`${rule} ${JSON.stringify(attributes)}`);
      const f = defineOp({
        name: "f",
        inputs: ["x"],
        attributes: { scale: 1, kind: "plain", axes: [0], flag: false, free: null as number | null },
        infer: ([x], attributes) => (note("infer", attributes), x),
        keepsBatch: (_slot, _inputs, _output, attributes) => (note("keepsBatch", attributes), true),
        forward: ([x], attributes) => (note("forward", attributes), affine(x, attributes.scale, 0)),
        vjp: ([ct], { attributes }) => (note("vjp", attributes), affine(ct, attributes.scale, 0)),
        jvp: ([t], { attributes }) => (note("jvp", attributes), affine(t, attributes.scale, 0)),
        compose: ([x], attributes) => (note("compose", attributes), affine(x, attributes.scale, 0)),
      });
      const given = { scale: 3, axes: [1, 2], kind: undefined } as { scale: number; axes: number[] };
      const [d, p, t] = [random([2, 2], 1), random([2, 2], 2), random([2, 1], 3)];
      gradients(() => sum(f(linear(d, p), given), 1), { parameters: [p], sink: normSink({ examples: 2 }) });
      jvp((t) => f(t, given), [t], [t]);
      grad((t) => sum(grad((t) => sum(f(t, given)))(t)[0]))(t);
      const all = JSON.stringify({ scale: 3, kind: "plain", axes: [1, 2], flag: false, free: null });
      const rules = ["infer", "keepsBatch", "forward", "vjp", "jvp", "compose"];
      expect([...seen].sort()).toEqual(rules.map((rule) => `${rule} ${all}`).sort());
      for (const [name, value] of Object.entries({ scale: "1", kind: 1, axes: 0, flag: 1 }))
        expect(codeOf(() => f(t, { [name]: value }))).toMatch(new RegExp(`^config: f: ${name}: .* does not fit`));
      expect(codeOf(() => f(t, { free: 3 }))).toBe("no error");
      // A function without attributes gets an empty object.
      const none: object[] = [];
      const g = customGradient((x: Tensor) => x, ([ct]) => ct, undefined, { keepsBatch: (_s, _i, _o, attributes) => (none.push(attributes), true) });
      gradients(() => sum(g(linear(d, p)), 1), { parameters: [p], sink: normSink({ examples: 2 }) });
      expect(none).toEqual([{}]);
    }); // prettier-ignore

    it("is typed by inputs, attributes and outputs", () => {
      expectTypeOf(ownMul).parameters.toEqualTypeOf<[Tensor, Tensor]>();
      expectTypeOf(scaled).parameters.toEqualTypeOf<[Tensor, attributes?: Partial<{ scale: number }>]>();
      expectTypeOf(both).returns.toEqualTypeOf<[Tensor, Tensor]>();
      expectTypeOf(cube).returns.toEqualTypeOf<Tensor>();
      expectTypeOf(grad((a: Tensor, b: Tensor) => sum(mul(a, b)))).returns.toEqualTypeOf<
        [Tensor<"f32">, Tensor<"f32">]
      >();
      expectTypeOf(grad((a) => sum(a)))
        .parameters.toHaveProperty("length")
        .toEqualTypeOf<1>();
    });
  });
});
