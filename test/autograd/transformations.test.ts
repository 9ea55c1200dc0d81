/** vjp, jvp, grad, checkpoint, gradients and forwardDerivative: values, nesting, lifetimes, errors. */
import { beforeEach, describe, expect, it } from "vitest";
import {
  add,
  affine,
  checkpoint,
  concat,
  crossEntropy,
  customGradient,
  embedding,
  exp,
  forwardDerivative,
  grad,
  gradients,
  type GradientSink,
  jvp,
  keep,
  linear,
  logSumExp,
  matmul,
  max,
  mean,
  mul,
  perExampleSink,
  reshape,
  scope,
  sin,
  sketchSink,
  square,
  stopGradient,
  sub,
  sum,
  sumSink,
  tanh,
  tensor,
  type Tensor,
  transpose,
  valueAndGrad,
  vjp,
  where,
  zeros,
} from "gradmix";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";
import { tinyModel } from "./model.ts";
import { expectNear } from "../near.ts";
import { codeOf } from "../errors.ts";

let backend: Backend;
beforeEach(() => {
  backend = createReferenceBackend({ precision: "f64" });
  setCurrentMemory(backend);
});

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const near = (got: readonly number[], want: readonly number[], digits = 10): void =>
  expectNear(got, want, 10 ** -digits);

describe("values", () => {
  it("valueAndGrad of Σ x³", async () => {
    const x = tensor([1, 2, -3]);
    const {
      value,
      gradients: [dx],
    } = valueAndGrad((x) => sum(mul(x, square(x))))(x);
    expect(await value.item()).toBe(-18);
    near(await numbers(dx), [3, 12, 27]);
  });

  it("a tensor that is passed twice, or captured as well, has separate gradients", async () => {
    const x = tensor([3]);
    const [a, b] = grad((a, b) => sum(mul(a, square(b))))(x, x);
    near([...(await numbers(a)), ...(await numbers(b))], [9, 18]);
    // d/dy of y·x at y = x is x.
    const [captured] = grad((y) => sum(mul(y, x)))(x);
    near(await numbers(captured), [3]);
    const { tangents } = jvp((y) => mul(y, x), [x], [tensor([1])]);
    near(await numbers(tangents[0]), [3]);
  });

  it("a function that captures its input and ignores the argument is refused, rather than given zeros", async () => {
    const [x, y] = [tensor([1, 2]), tensor([3, 4])];
    x.name = "x";
    const captured = (who: string): RegExp =>
      new RegExp(`^autograd: ${who}: the function captures its input 0 \\(x \\[2\\]\\) from outside and ignores`);
    const loss = (): Tensor => sum(square(x));
    expect(codeOf(() => grad((_x) => loss())(x))).toMatch(captured("grad"));
    expect(codeOf(() => valueAndGrad((_x, y) => mul(loss(), sum(y)))(x, y))).toMatch(captured("valueAndGrad"));
    expect(codeOf(() => vjp((_x, y) => [loss(), y], [x, y]))).toMatch(captured("vjp"));
    expect(codeOf(() => jvp(() => [x], [x], [y]))).toMatch(captured("jvp"));
    expect(codeOf(() => grad((_x) => checkpoint(() => loss(), y))(x))).toMatch(captured("grad"));
    // A tensor that was computed from the input outside of f is a constant for it, so f uses no input.
    const before = square(x);
    expect(codeOf(() => grad((_x) => sum(before))(x))).toMatch(/^autograd: grad: the function uses none of its inputs/);
    expect(codeOf(() => grad((_x) => tensor([1]))(x))).toMatch(/uses none of its inputs/);
    // Zero gradients are kept where they are right: no path leads from the input to the result, or the gradient is constant.
    expect(await numbers(grad((x) => sum(stopGradient(x)))(x)[0])).toEqual([0, 0]);
    expect(await numbers(grad((x, _y) => sum(mul(x, y)))(x, tensor([1, 1]))[1])).toEqual([0, 0]);
    const linearInX = (x: Tensor): Tensor => sum(mul(x, y));
    expect(await numbers(grad((x) => sum(grad(linearInX)(x)[0]))(x)[0])).toEqual([0, 0]);
  }); // prettier-ignore

  it("inputs that have no effect have zero gradients and zero tangents", async () => {
    const [x, y] = [tensor([1, 2]), tensor([3, 4])];
    const [, dy] = grad((x, _y) => sum(x))(x, y);
    expect(await numbers(dy)).toEqual([0, 0]);
    const { tangents } = jvp((x) => [x, stopGradient(x), y], [x], [tensor([1, 1])]);
    expect(await Promise.all(tangents.map(numbers))).toEqual([
      [1, 1],
      [0, 0],
      [0, 0],
    ]);
  });

  it("the identity", async () => {
    const x = tensor([1, 2]);
    const { outputs, pullback } = vjp((x) => x, [x]);
    const ct = tensor([5, 6]);
    const [dx] = pullback(ct);
    expect(await numbers(dx)).toEqual([5, 6]);
    dx.dispose();
    const { tangents } = jvp((x) => x, [x], [ct]);
    tangents[0].dispose();
    expect(await numbers(outputs[0])).toEqual([1, 2]);
    expect(await numbers(ct)).toEqual([5, 6]);
  });

  it("a tensor may be used many times", async () => {
    const x = tensor([0.5, -1]);
    const [dx] = grad((x) => sum(add(add(mul(x, x), x), add(x, mul(x, mul(x, x))))))(x);
    near(
      await numbers(dx),
      [0.5, -1].map((v) => 2 * v + 2 + 3 * v * v),
    );
  });

  it("reductions, logSumExp and mean have the right values and gradients", async () => {
    const x = tensor([1, 2, 3, 4, 5, 100], [2, 3]);
    near(await numbers(mean(x, 0)), [2.5, 3.5, 51.5]);
    near(await numbers(mean(x)), [115 / 6]);
    near(await numbers(logSumExp(x, -1)), [
      3 + Math.log(1 + Math.exp(-1) + Math.exp(-2)),
      100 + Math.log(1 + Math.exp(-95) + Math.exp(-96)),
    ]);
    // Equal elements share.
    near(await numbers(grad((x) => max(x))(tensor([2, 1, 2]))[0]), [0.5, 0, 0.5]);
    const [dx] = grad((x) => sum(logSumExp(x, 1)))(x);
    near(await numbers(sum(dx, 1)), [1, 1]);
  });
});

describe("nesting", () => {
  const f = (x: Tensor): Tensor => sum(mul(sin(x), exp(affine(x, 0.5, 0))));
  // With u = sin x, w = e^{x/2}: f″ = (cos x − ¾ sin x)·w.
  const second = (x: number): number => (Math.cos(x) - 0.75 * Math.sin(x)) * Math.exp(x / 2);
  const points = [0.3, -1.2, 2];
  const direction = [1, 0.5, -2];

  it("Hessian-vector products four ways", async () => {
    const [x, v] = [tensor(points), tensor(direction)];
    const want = points.map((p, n) => second(p) * direction[n]);
    near(await numbers(jvp((x) => grad(f)(x), [x], [v]).tangents[0]), want);
    near(await numbers(grad((x) => sum(mul(grad(f)(x)[0], v)))(x)[0]), want);
    near(await numbers(grad((x) => jvp(f, [x], [v]).tangents[0])(x)[0]), want);
    const along = jvp((x) => jvp(f, [x], [v]).tangents, [x], [v]).tangents[0];
    near(await numbers(along), [points.reduce((s, p, n) => s + second(p) * direction[n] ** 2, 0)]);
  });

  it("third derivatives are right", async () => {
    const cube = (x: Tensor): Tensor => sum(mul(x, mul(x, x)));
    const second = (x: Tensor): Tensor => sum(grad((y) => sum(grad(cube)(y)[0]))(x)[0]);
    near(await numbers(grad(second)(tensor([2, 5]))[0]), [6, 6]);
  });

  it("the pullback is linear, and can itself be differentiated in both modes", async () => {
    const x = tensor(values(6, 3), [2, 3]);
    const w = tensor(values(6, 4), [2, 3]);
    const ct = tensor(values(4, 5), [2, 2]);
    const pull = (ct: Tensor): Tensor[] => vjp((x) => tanh(linear(x, w)), [x]).pullback(ct);
    const { outputs, tangents } = jvp((ct) => pull(ct), [ct], [ct]);
    near(await numbers(tangents[0]), await numbers(outputs[0]));
    // Its transpose is the jvp.
    const t = tensor(values(6, 6), [2, 3]);
    const back = vjp((ct) => pull(ct), [ct]).pullback(t)[0];
    near(await numbers(back), await numbers(jvp((x) => tanh(linear(x, w)), [x], [t]).tangents[0]));
  });

  it("Hessian-vector product of a whole model, against differences of gradients", async () => {
    const model = tinyModel();
    const loss = (...p: Tensor[]): Tensor => sum(model.losses(p));
    const v = model.parameters.map((p, n) => tensor(values(p.size, 70 + n), p.shape));
    const product = await Promise.all(
      jvp((...p) => grad(loss)(...p), model.parameters, v).tangents.map(numbers),
    );
    const at = async (step: number): Promise<number[][]> =>
      Promise.all(grad(loss)(...model.parameters.map((p, n) => add(p, affine(v[n], step, 0)))).map(numbers));
    const [up, down] = [await at(1e-5), await at(-1e-5)];
    product.forEach((got, p) =>
      near(
        got,
        up[p].map((x, n) => (x - down[p][n]) / 2e-5),
        6,
      ),
    );
  });
});

describe("checkpoint", () => {
  it("gives the same gradients inside grad and inside nested transformations", async () => {
    const model = tinyModel();
    const plain = (...p: Tensor[]): Tensor => sum(model.losses(p));
    const saved = (...p: Tensor[]): Tensor => checkpoint((...q) => sum(model.losses(q)), ...p);
    const want = await Promise.all(grad(plain)(...model.parameters).map(numbers));
    const got = await Promise.all(grad(saved)(...model.parameters).map(numbers));
    got.forEach((g, n) => near(g, want[n]));
    const v = model.parameters.map((p, n) => tensor(values(p.size, 70 + n), p.shape));
    const hvp = (f: typeof plain): Promise<number[][]> =>
      Promise.all(jvp((...p) => grad(f)(...p), model.parameters, v).tangents.map(numbers));
    const [a, b] = [await hvp(plain), await hvp(saved)];
    a.forEach((g, n) => near(b[n], g));
    const forward = (f: typeof plain): Tensor => jvp(f, model.parameters, v).tangents[0];
    near(await numbers(forward(saved)), await numbers(forward(plain)));
  });

  it("outside of a backward pass, it only calls the function", async () => {
    expect(await numbers(checkpoint((x) => exp(x), tensor([0])))).toEqual([1]);
  });

  it("may be nested, and may have several outputs", async () => {
    const f = (x: Tensor): Tensor => {
      const [u, w] = checkpoint((x) => [checkpoint((x) => sin(x), x), exp(x)], x);
      return sum(mul(u, w));
    };
    const [dx] = grad(f)(tensor([0.4]));
    near(await numbers(dx), [(Math.sin(0.4) + Math.cos(0.4)) * Math.exp(0.4)]);
  });

  it("refuses a captured tensor whose gradient would be lost", () => {
    const f = (x: Tensor): Tensor => {
      const y = exp(x);
      return sum(checkpoint((x) => mul(x, y), x));
    };
    expect(codeOf(() => grad(f)(tensor([1])))).toMatch(
      /^autograd: checkpoint: mul uses a tensor that depends on/,
    );
  });

  it("saves memory", () => {
    const x = keep(tensor(values(1000, 1)));
    const deep = (x: Tensor): Tensor => {
      for (let i = 0; i < 20; i++) x = sin(x);
      return x;
    };
    const bytes = (f: (x: Tensor) => Tensor): number => {
      const before = backend.liveBytes;
      const { outputs, dispose } = vjp(f, [x]);
      outputs.forEach((t) => t.dispose());
      const saved = backend.liveBytes - before;
      dispose();
      expect(backend.liveBytes).toBe(before);
      return saved;
    };
    expect(bytes(deep)).toBe(19 * 8000);
    expect(bytes((x) => checkpoint(deep, x))).toBe(0);
  });
});

describe("gradients and forwardDerivative", () => {
  it("agree with grad, with weights, with and without checkpoints", async () => {
    const model = tinyModel();
    const weights = [1, -0.5, 2];
    const want = await Promise.all(
      grad((...p) => sum(mul(model.losses(p), tensor(weights))))(...model.parameters).map(numbers),
    );
    for (const checkpointed of [false, true]) {
      const sums = new Map(model.parameters.map((p) => [p, tensor(new Float64Array(p.size), p.shape)]));
      const losses = gradients(() => model.losses(model.parameters, checkpointed), {
        parameters: model.parameters,
        sink: sumSink({ gradientOf: (p) => sums.get(p)! }),
        weights,
      });
      near(await numbers(losses), await numbers(model.losses(model.parameters)));
      for (const [n, p] of model.parameters.entries()) near(await numbers(sums.get(p)!), want[n]);
    }
    const v = new Map(model.parameters.map((p, n) => [p, tensor(values(p.size, 30 + n), p.shape)]));
    const { derivatives } = forwardDerivative(() => model.losses(model.parameters), v);
    const along = await numbers(derivatives);
    let dot = 0;
    for (const [n, p] of model.parameters.entries())
      (await numbers(v.get(p)!)).forEach((x, e) => (dot += x * want[n][e]));
    expectNear(
      along.reduce((s, d, b) => s + d * weights[b], 0),
      dot,
      1e-9,
    );
  });

  it("a parameter that the loss does not use gets zeros, unless the sink accumulates; uses by several ops are summed", async () => {
    const [p, unused] = [tensor([1, 2, 3, 4], [2, 2]), tensor([7])];
    const [dp, du] = [tensor([9, 9, 9, 9], [2, 2]), tensor([9])];
    const x = tensor([1, 0, 0, 1, 1, 1], [3, 2]);
    // Used by linear (factors) and by mul (dense).
    const loss = (): Tensor => sum(linear(x, mul(p, p)), 1);
    const run = (accumulate: boolean): void => {
      gradients(loss, {
        parameters: [p, unused],
        sink: sumSink({ gradientOf: (q) => (q === p ? dp : du), accumulate }),
      });
    };
    run(false);
    near(await numbers(dp), [4, 8, 12, 16]);
    expect(await numbers(du)).toEqual([0]);
    run(true);
    near(await numbers(dp), [8, 16, 24, 32]);
    expect(await numbers(du)).toEqual([0]);
  });

  it("a weight used twice is summed", async () => {
    const w = tensor([1, 2, 3, 4], [2, 2]);
    const dw = tensor([0, 0, 0, 0], [2, 2]);
    const x = tensor([1, -1], [1, 2]);
    const loss = (w: Tensor): Tensor => sum(linear(linear(x, w), w), 1);
    gradients(() => loss(w), { parameters: [w], sink: sumSink({ gradientOf: () => dw }) });
    near(await numbers(dw), await numbers(grad((w) => sum(loss(w)))(w)[0]));
  });

  it("errors say what is wrong", () => {
    const p = tensor([1, 2], [1, 2]);
    const sink = sumSink({ gradientOf: () => p });
    const run = (loss: () => Tensor, weights?: number[]): string =>
      codeOf(() => gradients(loss, { parameters: [p], sink, ...(weights && { weights }) }));
    expect(run(() => sum(p))).toMatch(/^autograd: gradients: the loss has the shape \[\]/);
    expect(run(() => tensor([1]))).toMatch(/depends on none of the parameters/);
    expect(run(() => sum(p, 1), [1, 2])).toBe("shape: gradients: 2 weights for 1 losses");
    expect(codeOf(() => grad((x) => (run(() => sum(p, 1)), sum(x)))(p))).toBe("no error");
    expect(codeOf(() => grad((x) => gradients(() => sum(x, 1), { parameters: [p], sink }))(p))).toMatch(
      /gradients: cannot run inside/,
    );
    expect(codeOf(() => forwardDerivative(() => sum(p), new Map([[p, p]])))).toMatch(/one loss per example/);
    expect(codeOf(() => grad((x) => x)(p))).toMatch(/grad: the function gave \[1, 2\]/);
    expect(codeOf(() => jvp((x) => x, [p], []))).toMatch(/0 tangents were given for 1/);
    expect(codeOf(() => jvp((x) => x, [p], [tensor([1])]))).toMatch(
      /^shape: jvp: the tangent of a tensor \[1, 2\] is f32\[1\]; f32\[1, 2\] is needed/,
    );
    expect(codeOf(() => grad((x) => sum(x))(tensor([1], [1], "i32")))).toMatch(
      /i32; only f32 has derivatives/,
    );
    const { pullback } = vjp((x) => x, [p]);
    expect(codeOf(() => pullback(tensor([1])))).toMatch(/^shape: vjp: cotangent 0 is f32\[1\]; f32\[1, 2\]/);
    // A refused call uses nothing up.
    expect(codeOf(() => pullback(p))).toBe("no error");
    expect(codeOf(() => pullback(p))).toMatch(/pullback was used already/);
    const given = vjp((x) => x, [p]);
    given.dispose();
    expect(codeOf(() => given.pullback(p))).toBe(
      "disposed: vjp: the pullback was disposed; call vjp again to get a new one",
    );
    for (const [options, message] of [
      [{ parameters: [p], sink, weight: [1] }, /there is no option "weight"; did you mean "weights"/],
      [{ parameters: [p] }, /sink is missing/],
      [{ sink }, /parameters is missing/],
      [{ parameters: [p], sink, weights: 1 }, /weights: 1 does not fit/],
    ] as const)
      expect(codeOf(() => gradients(() => square(p), options as never))).toMatch(
        new RegExp(`^config: gradients: ${message.source}`),
      );
  });
});

describe("what is passed in place of functions, tensors and their results", () => {
  const p = (): Tensor => tensor([1, 2], [1, 2]);
  const ids = (): Tensor => tensor([1, 2], [1, 2], "i32");
  const into = (parameter: Tensor): GradientSink => sumSink({ gradientOf: () => zeros(parameter.shape) });
  /** One call of each transformation with the function `f`. */
  const withFunction: { readonly [name: string]: (f: never) => unknown } = {
    grad: (f) => grad(f)(p()),
    valueAndGrad: (f) => valueAndGrad(f)(p()),
    vjp: (f) => vjp(f, [p()]),
    jvp: (f) => jvp(f, [p()], [p()]),
    checkpoint: (f) => checkpoint(f, p()),
    "checkpoint in gradients": (f) => {
      const w = p();
      return gradients(() => (checkpoint(f, p()), sum(square(w), 1)), { parameters: [w], sink: into(w) });
    },
    gradients: (f) => {
      const w = p();
      return gradients(f, { parameters: [w], sink: into(w) });
    },
    forwardDerivative: (f) => {
      const w = p();
      return forwardDerivative(f, new Map([[w, w]]));
    },
  };
  const noFunctions: readonly unknown[] = [undefined, null, 3, tensor];
  const noResults: readonly unknown[] = [undefined, null, 3, "x", {}, [undefined], [3]];

  it.each(Object.keys(withFunction))(
    "%s refuses what is no function, and what returns no tensor",
    async (name) => {
      const call = (f: unknown): string => codeOf(() => withFunction[name](f as never));
      const caller = name.split(" ")[0];
      for (const f of noFunctions.slice(0, 3))
        expect(call(f)).toMatch(new RegExp(`^config: ${caller}: (f|loss): `));
      for (const result of noResults)
        expect(
          call(() => result),
          String(result),
        ).toMatch(new RegExp(`^autograd: ${caller}: the function returned `));
      expect(call(() => undefined)).toContain("returned nothing");
      expect(call(() => Promise.reject(new Error("of the function")))).toContain("a promise");
      // The refused promise is nobody's unhandled rejection.
      await new Promise((resolve) => setTimeout(resolve));
    },
  );

  const w = p;
  const cases: readonly (readonly [what: string, call: () => unknown])[] = [
    ...[undefined, null, 3, {}, [3], [undefined]].flatMap((bad) => [
      [`vjp: primals = ${JSON.stringify(bad)}`, () => vjp((x) => x, bad as never)] as const,
      [`jvp: primals = ${JSON.stringify(bad)}`, () => jvp((x) => x, bad as never, [p()])] as const,
      [`jvp: tangents = ${JSON.stringify(bad)}`, () => jvp((x) => x, [p()], bad as never)] as const,
      [`vjp: cotangents = ${JSON.stringify(bad)}`, () => vjp((x) => x, [p()]).pullback(bad as never)] as const,
      [`gradients: sink = ${JSON.stringify(bad)}`, () => gradients(() => sum(w(), 1), { parameters: [w()], sink: bad as never })] as const,
      [`gradients: parameters = ${JSON.stringify(bad)}`, () => gradients(() => sum(w(), 1), { parameters: bad as never, sink: into(w()) })] as const,
      [`forwardDerivative: tangents = ${JSON.stringify(bad)}`, () => forwardDerivative(() => sum(w(), 1), bad as never)] as const,
      [`forwardDerivative: a tangent = ${JSON.stringify(bad)}`, () => forwardDerivative(() => sum(w(), 1), new Map([[w(), bad as never]]))] as const,
    ]),
    ["jvp: the tangent of a type", () => jvp((x) => x, [p()], [ids()])],
    ["vjp: the cotangent of a type", () => vjp((x) => x, [p()]).pullback(ids())],
    ["forwardDerivative: a tangent of a type", () => forwardDerivative(() => sum(w(), 1), new Map([[w(), ids()]]))],
    ["forwardDerivative: the loss depends on none", () => forwardDerivative(() => sum(p(), 1), new Map([[w(), w()]]))],
    ...Object.entries({ ids, "of another shape": () => tensor([1, 2]) }).map(([what, weights]) => [
      `gradients: the tensor of weights, ${what}`,
      () => {
        const used = w();
        return gradients(() => sum(used, 1), { parameters: [used], sink: into(used), weights: weights() });
      },
    ] as const),
  ]; // prettier-ignore
  it.each(cases)("%s is refused", (what, call) => {
    expect(codeOf(call)).toMatch(new RegExp(`^(shape|config|autograd): ${what.split(":")[0]}: `));
  });

  it("a view of a tensor that a transformation follows is refused, as its gradient would be lost", () => {
    const follows = /^autograd: view: derivatives do not pass through a view/;
    const x = tensor([1, 2, 3, 4], [2, 2]);
    const viewed = (t: Tensor): Tensor => add(square(t), tanh(t).view([2, 2]));
    expect(codeOf(() => grad((t) => sum(viewed(t)))(x))).toMatch(follows);
    expect(codeOf(() => jvp(viewed, [x], [x]))).toMatch(follows);
    expect(codeOf(() => vjp((t) => checkpoint(viewed, t), [x]))).toMatch(follows);
    expect(codeOf(() => grad((t) => sum(jvp(viewed, [x], [t]).tangents[0]))(x))).toMatch(follows);
    const loss = (): Tensor => sum(linear(tanh(linear(x, x)).view([2, 2]), x), 1);
    expect(codeOf(() => gradients(loss, { parameters: [x], sink: into(x) }))).toMatch(follows);
    expect(codeOf(() => forwardDerivative(loss, new Map([[x, x]])))).toMatch(follows);
    // Inside an op of one's own a view is hidden like every other step, unless it captures what has a gradient.
    const hidden = customGradient(
      (t: Tensor) => square(t.view([4]).view([2, 2])),
      ([ct]) => ct,
    );
    expect(codeOf(() => grad((t) => sum(hidden(t)))(x))).toBe("no error");
    const captures = (y: Tensor): ((t: Tensor) => Tensor) => customGradient((t: Tensor) => mul(t, y.view([2, 2])), ([ct]) => ct); // prettier-ignore
    expect(codeOf(() => grad((y) => sum(captures(y)(x)))(x))).toMatch(/not one of its inputs/);
    // Constants, and everything outside of transformations, may be viewed.
    expect(codeOf(() => grad((t) => sum(mul(t, x.view([2, 2]))))(tensor([1, 2], [1, 2])))).toBe("no error");
    expect(codeOf(() => grad((t) => sum(mul(t, stopGradient(t).view([2, 2]))))(x))).toBe("no error");
    expect(codeOf(() => x.view([4]))).toBe("no error");
  });
});

it.each([undefined, null, 3, "x", {}, [], [3]])(
  "%j is no tensor to keep, no function for a scope, no list of parameters",
  (bad) => {
    expect(codeOf(() => keep(bad as never))).toMatch(/^shape: keep: .* is not a tensor$/);
    expect(codeOf(() => scope(bad as never))).toMatch(
      /^config: scope: .* does not fit; it must be a function$/,
    );
    if (Array.isArray(bad) && bad.length === 0) return;
    expect(codeOf(() => perExampleSink(1, bad as never))).toMatch(/^config: segmentSink: parameters/);
    expect(codeOf(() => sketchSink({ segments: [0, 1], parameters: bad as never }))).toMatch(
      /^(config|shape): sketchSink: parameter/,
    );
  },
);

describe("shape errors name both shapes", () => {
  const t = (...shape: number[]): Tensor => tensor(new Float64Array(shape.reduce((a, b) => a * b, 1)), shape);
  it.each([
    [() => add(t(2, 3), t(4)), /add: shapes \[2, 3\] and \[4\]/],
    [() => add(1, 2), /add: one of the operands must be a tensor/],
    [() => matmul(t(2, 3), t(2, 3)), /matmul: \[2, 3\] and \[2, 3\] do not multiply: inner sizes 3 and 2/],
    [() => matmul(t(2, 2, 3), t(3, 3, 3)), /matmul: shapes \[2\] and \[3\] do not broadcast/],
    [() => linear(t(2, 3), t(4, 2)), /linear: x \[2, 3\] and the weight \[4, 2\]/],
    [() => linear(t(2, 3), t(4, 3), t(3)), /linear: the bias \[3\] does not fit the weight \[4, 3\]/],
    [() => embedding(t(2, 3), t(2)), /embedding: the index is f32, i32 is needed/],
    [() => crossEntropy(t(2, 3), tensor([1], [1], "i32")), /logits \[2, 3\] and targets \[1\]/],
    [() => concat([t(2, 3), t(3, 2)], 0), /concat: f32\[2, 3\] and f32\[3, 2\]/],
    [() => reshape(t(2, 3), [4, -1]), /reshape/],
    [() => transpose(t(2)), /fewer than two axes/],
    [() => sum(t(2), 1), /axis 1 is out of range/],
    [() => sum(t(2, 2), [0, -2]), /named twice/],
    [() => where(t(2), t(2), t(2)), /the condition is f32/],
  ])("%s", (fn, message) => {
    expect(codeOf(fn)).toMatch(message);
    expect(codeOf(fn)).toMatch(/^shape: /);
  });
});

describe("lifetimes", () => {
  it("50 passes leave no memory in use", async () => {
    const model = tinyModel();
    const sums = new Map(model.parameters.map((p) => [p, tensor(new Float64Array(p.size), p.shape)]));
    const v = model.parameters.map((p, n) => tensor(values(p.size, 30 + n), p.shape));
    const before = backend.liveBytes;
    let peak = 0;
    for (let step = 0; step < 50; step++) {
      scope(() => {
        gradients(() => model.losses(model.parameters, step % 2 === 0), {
          parameters: model.parameters,
          sink: sumSink({ gradientOf: (p) => sums.get(p)! }),
        });
        forwardDerivative(() => model.losses(model.parameters), sums);
        grad((...p) => sum(model.losses(p)))(...model.parameters);
        if (step % 10 === 0)
          jvp((...p) => grad((...q) => sum(model.losses(q, true)))(...p), model.parameters, v);
        vjp((...p) => model.losses(p), model.parameters).dispose();
      });
      expect(backend.liveBytes).toBe(before);
      if (step === 1) peak = backend.peakBytes;
    }
    expect(backend.peakBytes).toBe(peak);
  });

  it("without a scope, only the results keep memory, and disposing them frees it", () => {
    const model = tinyModel();
    const before = backend.liveBytes;
    const found = grad((...p) => sum(model.losses(p)))(...model.parameters);
    expect(backend.liveBytes - before).toBe(8 * model.parameters.reduce((n, p) => n + p.size, 0));
    found.forEach((t) => t.dispose());
    expect(backend.liveBytes).toBe(before);
  });

  it("an error in the loss, in a rule or in a sink leaves no memory in use", () => {
    const model = tinyModel();
    const before = backend.liveBytes;
    const fail = (): never => {
      throw new Error("planted");
    };
    const quiet = { name: "quiet", linear() {}, bias() {}, gain() {}, embedding() {}, dense() {} };
    const attempt = (fn: () => unknown): void => {
      expect(fn).toThrow("planted");
      expect(backend.liveBytes).toBe(before);
    };
    const { parameters } = model;
    attempt(() => gradients(() => (model.losses(parameters), fail()), { parameters, sink: quiet }));
    for (const method of ["linear", "gain", "embedding", "bias"])
      for (const checkpointed of [false, true])
        attempt(() =>
          gradients(() => model.losses(parameters, checkpointed), {
            parameters,
            sink: { ...quiet, [method]: fail },
          }),
        );
    attempt(() => grad((...p) => (model.losses(p), fail()))(...parameters));
    attempt(() => jvp((...p) => (model.losses(p), fail()), parameters, parameters));
  });

  it("a disposed tensor cannot be used, and the error names it", () => {
    const [kept, gone] = scope(() => [keep(tensor([1])), tensor([2])].slice(0, 1)).concat(
      scope(() => ({ hidden: [tensor([2])] })).hidden,
    );
    gone.dispose();
    gone.name = "w";
    expect(codeOf(() => add(kept, gone))).toMatch(/^disposed: tensor w\[1\] was used after it was freed/);
    expect(codeOf(() => sub(kept, 1))).toBe("no error");
  });

  it("disposing a tensor that a tape still needs has no effect on the gradient", async () => {
    const x = tensor([0.5, 1]);
    const before = backend.liveBytes;
    const [dx] = grad((x) => {
      const y = exp(x);
      const z = mul(y, y);
      y.dispose();
      const loss = sum(z);
      z.dispose();
      return loss;
    })(x);
    near(await numbers(dx), [2 * Math.exp(1), 2 * Math.exp(2)]);
    dx.dispose();
    expect(backend.liveBytes).toBe(before);
  });

  it("a tensor that was disposed and then adopted again belongs to one scope only", () => {
    const before = backend.liveBytes;
    const kept = scope(() => {
      // Internal members are in no declaration.
      const t = tensor([1, 2]).retain() as Tensor & { adopt(): Tensor };
      t.dispose();
      t.dispose();
      const again = scope(() => keep(t.adopt()));
      t.release();
      expect(again.unshared).toBe(true);
      return null;
    });
    expect(kept).toBe(null);
    expect(backend.liveBytes).toBe(before + 16);
  });

  it("the gradient overwrites the logits only if nothing else uses them", async () => {
    const [x, w] = [tensor(values(6, 1), [2, 3]), tensor(values(12, 2), [4, 3])];
    const targets = tensor([1, 3], [2], "i32");
    let seen: Tensor | null = null;
    const loss = (w: Tensor): Tensor => {
      const logits = linear(x, w);
      seen = keep(logits);
      return sum(crossEntropy(logits, targets));
    };
    const [held] = grad(loss)(w);
    near(await numbers(seen!), await numbers(linear(x, w)));
    const [free] = grad((w) => sum(crossEntropy(linear(x, w), targets)))(w);
    near(await numbers(free), await numbers(held));
    // A view of the logits is a use as well.
    const [viewed] = grad((w) => {
      const logits = linear(x, w);
      return add(sum(crossEntropy(logits, targets)), sum(square(reshape(logits, [8]))));
    })(w);
    const [other] = grad((w) => sum(square(linear(x, w))))(w);
    near(await numbers(viewed), await numbers(add(held, other)));
  });
});
