/** Who frees a tensor: the caller's scope frees results, the garbage collector frees unreachable tensors, and nothing is freed twice. */
import { setTimeout as wait } from "node:timers/promises";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  arange,
  checkpoint,
  exp,
  eye,
  forwardDerivative,
  full,
  grad,
  gradients,
  GradmixError,
  jvp,
  keep,
  key,
  linear,
  mul,
  ones,
  randomBits,
  randomNormal,
  randomUniform,
  scope,
  sum,
  sumSink,
  tensor,
  type Tensor,
  valueAndGrad,
  vjp,
  zeros,
} from "gradmix";
import { adamw, createGPT } from "gradmix/nn";
import { meanGradient, readAndDispose } from "#dist/dga/passes.js";
import { arenaLike } from "#dist/nn/parameters.js";
import { apply, type Op } from "#dist/autograd/op.js";
import { ops } from "#dist/autograd/ops/index.js";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { codeOf } from "../errors.ts";
import { garbageCollected } from "../garbage.ts";
import { applySample, samples, upload } from "./samples.ts";

let backend: Backend;
beforeEach(() => {
  backend = createReferenceBackend();
  setCurrentMemory(backend);
});

describe("what a function returns belongs to the caller's scope", () => {
  const x = (): Tensor => tensor([1, 2, 3, 4], [2, 2]);
  it.each<[string, (t: Tensor) => unknown]>([
    ["tensor", x],
    ["zeros", () => zeros([2])],
    ["ones", () => ones([2])],
    ["full", () => full([2], 3)],
    ["eye", () => eye(2)],
    ["arange", () => arange(3)],
    ["randomBits", () => randomBits(key(1), [2])],
    ["randomUniform", () => randomUniform(key(1), [2])],
    ["randomNormal", () => randomNormal(key(1), [2])],
    ["scope", () => scope(x)],
    ["checkpoint", (t) => checkpoint(exp, t)],
    ["vjp", (t) => vjp(exp, [t]).pullback(x())],
    ["jvp", (t) => jvp(exp, [t], [t])],
    ["grad", (t) => grad((y) => sum(mul(y, y)))(t)],
    ["valueAndGrad", (t) => valueAndGrad((y) => sum(mul(y, y)))(t)],
    ["gradients", (t) => gradients(() => sum(linear(t, t), 1), { parameters: [t], sink: sumSink({ gradientOf: x }) })],
    ["forwardDerivative", (t) => forwardDerivative(() => sum(linear(t, t), 1), new Map([[t, t]]))],
    ...Object.keys(ops).map((name): [string, () => unknown] => [
      `op ${name}`,
      () => samples[name].map((sample) => applySample(ops[name], sample.inputs().map(upload), sample.attrs)),
    ]),
  ])("%s", (_, fn) => {
    const t = x();
    const before = backend.liveBytes;
    scope(() => void fn(t));
    expect(backend.liveBytes).toBe(before);
  }); // prettier-ignore

  it.each(Object.keys(ops))("outside of a scope, op %s leaves only its outputs", (name) => {
    for (const sample of samples[name]) {
      const inputs = sample.inputs().map(upload);
      const before = backend.liveBytes;
      for (const output of apply(ops[name] as Op<unknown>, inputs, sample.attrs)) output.dispose();
      expect(backend.liveBytes).toBe(before);
      for (const input of inputs) input.dispose();
    }
  });

  it("linear computes the slope of its activation only if a derivative may need it", () => {
    const slopes: boolean[] = [];
    const watched = Object.create(backend, {
      run: {
        value: (...call: Parameters<Backend["run"]>) => {
          const [kernel, , , outputs] = call;
          if (kernel === "gemm") slopes.push("slope" in outputs && outputs.slope !== null);
          backend.run(...call);
        },
      },
    }) as Backend;
    setCurrentMemory(watched);
    const [t, other] = [x(), x()];
    const layer = (weight: Tensor): Tensor => linear(t, weight, undefined, { activation: "gelu" });
    for (const [expected, fn] of [
      [false, () => layer(other)],
      [true, () => vjp(layer, [other])],
      [true, () => jvp(layer, [other], [other])],
      // The tape follows y, which the layer does not use.
      [false, () => vjp((y) => mul(y, layer(other)), [t])],
    ] as const) {
      slopes.length = 0;
      scope(() => void fn());
      expect(slopes[0]).toBe(expected);
    }
  });

  it("models, optimizers and passes leave no memory in use", async () => {
    const model = createGPT({ vocabSize: 5, dim: 4, layers: 1, heads: 2, context: 3 });
    const optimizer = adamw(model.parameters);
    const into = arenaLike(model.parameters);
    const batch = { inputs: Int32Array.of(0, 1, 2), targets: Int32Array.of(1, 2, 3), tokens: [3], time: 3 };
    const tokens = tensor([0, 1, 2], [1, 3], "i32");
    const known = tensor([1]);
    const before = backend.liveBytes;
    for (const fn of [
      () => model.logits(tokens),
      () => model.losses({ inputs: tokens, targets: tokens }),
      () => meanGradient(model, batch, into),
      () => optimizer.step(into.arena, 0.1),
      () => optimizer.step(into.arena, 0.1, { lossScale: 2, squaredNorm: known }),
    ]) {
      scope(() => void fn());
      expect(backend.liveBytes).toBe(before);
      // Outside of a scope it is the caller's, alone.
      const own = fn();
      expect(own.disposed).toBe(false);
      own.dispose();
    }
    // A norm that is handed in stays the caller's.
    const squaredNorm = tensor([4]);
    optimizer.step(into.arena, 0.1, { squaredNorm }).dispose();
    expect(await squaredNorm.item()).toBe(4);
    // Numbers that are still on their way when the scope ends.
    let numbers: Promise<Float64Array> = Promise.resolve(new Float64Array(0));
    scope(() => void (numbers = readAndDispose(tensor([1, 2]))));
    expect([...(await numbers)]).toEqual([1, 2]);
  });
});

describe("the garbage collector", () => {
  /** Made in a function of its own, so that nothing on the stack holds them. */
  const forget = (make: () => unknown): void => void make();

  it.each<[string, () => unknown]>([
    ["made outside of every scope", () => [zeros([100]), zeros([100]).view([50]), exp(zeros([100]))]],
    ["returned from the outermost scope", () => scope(() => scope(() => [exp(zeros([100]))]))],
    ["kept, or a view of it", () => scope(() => [keep(zeros([100])), keep(zeros([100]).view([10]))].length)],
    ["saved for a pullback that nobody calls", () => vjp((y) => exp(exp(y)), [zeros([100])])],
    ["the same, with the function alone", () => {
      const { pullback, outputs } = vjp((y) => exp(exp(y)), [zeros([100])]);
      for (const t of outputs) t.dispose();
      return pullback;
    }],
  ])("frees what was %s", async (_, make) => {
    const before = backend.liveBytes;
    for (let i = 0; i < 20; i++) forget(make);
    expect(backend.liveBytes).toBeGreaterThan(before);
    await garbageCollected(() => backend.liveBytes === before);
    expect(backend.liveBytes).toBe(before);
  }); // prettier-ignore

  it("frees no memory that a handle still reaches, and frees none twice", async () => {
    const view = ((): Tensor => tensor([1, 2, 3, 4]).view([2], 2))();
    const recorded = ((): ReturnType<typeof vjp> => vjp((y) => mul(y, tensor([2, 2])), [tensor([3, 4])]))();
    const before = backend.liveBytes;
    forget(() => zeros([100]).dispose());
    const freed = backend.liveBytes;
    forget(() => zeros([100]));
    await garbageCollected(() => backend.liveBytes === before);
    expect(backend.liveBytes).toBe(before);
    expect(freed).toBe(before);
    expect(Array.from(await view.data())).toEqual([3, 4]);
    const [dx] = recorded.pullback(tensor([1, 1]));
    expect(Array.from(await dx.data())).toEqual([2, 2]);
  });

  it("causes no error if the backend was already shut down", async () => {
    const errors: unknown[] = [];
    const note = (error: unknown): void => void errors.push(error);
    process.on("uncaughtException", note);
    const old = backend;
    forget(() => vjp(exp, [zeros([100])]));
    // Only the tape holds what it saved.
    forget(() => {
      for (const t of vjp((y) => exp(exp(y)), [zeros([100])]).outputs) t.dispose();
    });
    await old.dispose();
    backend = createReferenceBackend();
    setCurrentMemory(backend);
    forget(() => zeros([100]));
    await garbageCollected(() => backend.liveBytes === 0);
    process.off("uncaughtException", note);
    expect(backend.liveBytes).toBe(0);
    expect(errors).toEqual([]);
  });
});

describe("a scope passes on the tensors in what its function returns", () => {
  /** Objects, lists, Maps and Sets, with tensors at any depth, and now and then with themselves or an outer value inside. */
  const wrapped = fc.array(fc.tuple(fc.constantFrom("list", "map", "set", "object", "bare"), fc.boolean()), {
    maxLength: 6,
  });

  it("from values nested in any way, also in themselves", () => {
    fc.assert(
      fc.property(wrapped, (layers) => {
        const before = backend.liveBytes;
        const made: Tensor[] = [];
        scope(() => {
          let value: unknown = null;
          for (const [kind, closes] of layers) {
            const t = tensor([1]);
            made.push(t);
            const inner = value;
            if (kind === "list") {
              const list: unknown[] = [t, inner];
              if (closes) list.push(list);
              value = list;
            } else if (kind === "map") {
              const map = new Map<string, unknown>([
                ["t", t],
                ["inner", inner],
              ]);
              if (closes) map.set("self", map);
              value = map;
            } else if (kind === "set") {
              const set = new Set<unknown>([t, inner]);
              if (closes) set.add(set);
              value = set;
            } else {
              const object: Record<string, unknown> = kind === "object" ? {} : Object.create(null);
              Object.assign(object, { t, inner, ...(closes ? { self: object } : {}) });
              if (closes) object["self"] = object;
              value = object;
            }
          }
          tensor([2]);
          return value;
        });
        expect(made.map(({ disposed }) => disposed)).toEqual(made.map(() => false));
        for (const t of made) t.dispose();
        expect(backend.liveBytes).toBe(before);
      }),
    );
  });

  it("from a list that is nested deeply", () => {
    const [t, deep] = scope(() => {
      const own = tensor([1]);
      let value: unknown = own;
      for (let depth = 0; depth < 100_000; depth++) value = [value];
      return [own, value] as const;
    });
    expect(t.disposed).toBe(false);
    expect(deep).toHaveLength(1);
    t.dispose();
  });

  it("and frees all others also where the result cannot be read", () => {
    const before = backend.liveBytes;
    const hostile = (): object => {
      tensor([1, 2]);
      return Object.defineProperty({}, "x", {
        enumerable: true,
        get: () => {
          throw new Error("planted");
        },
      });
    };
    expect(() => scope(hostile)).toThrow("planted");
    expect(backend.liveBytes).toBe(before);
  });
});

it("a scope refuses iterators, which make their tensors after it has ended", () => {
  const before = backend.liveBytes;
  function* some(): Generator<Tensor> {
    yield tensor([1]);
  }
  async function* later(): AsyncGenerator<Tensor> {
    yield tensor([1]);
  }
  for (const fn of [some, later, () => [tensor([1])].values(), () => new Map([[1, tensor([1])]]).entries()])
    expect(codeOf(() => scope(fn as () => unknown))).toMatch(
      /^autograd: scope: the function returned an iterator, such as a generator, .*; return an array of them$/,
    );
  expect(backend.liveBytes).toBe(before);
});

describe("a scope of a function that returns a promise", () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  beforeEach(() => {
    unhandled.length = 0;
    process.on("unhandledRejection", note);
  });
  afterEach(() => void process.off("unhandledRejection", note));

  it("is refused with the remedy; its tensors are freed, and its later failure is ignored", async () => {
    const before = backend.liveBytes;
    const work = async (): Promise<number> => {
      const t = tensor([1, 2]);
      await wait(0);
      return exp(t).item();
    };
    const refused = (fn: () => unknown): GradmixError => {
      try {
        scope(fn);
      } catch (error) {
        if (error instanceof GradmixError) return error;
      }
      return expect.fail("it was not refused");
    };
    // A promise of another realm is not an instance of our Promise.
    const foreign = (): unknown => runInNewContext(`Promise.reject(new Error("planted"))`);
    for (const fn of [work, () => Promise.reject(new Error("planted")), foreign]) {
      const { code, message } = refused(fn);
      expect(code).toBe("autograd");
      expect(message).toMatch(
        /a scope is synchronous: return the tensor from it, and await its data outside/,
      );
      expect(backend.liveBytes).toBe(before);
    }
    await wait(20);
    expect(unhandled).toEqual([]);
    // The enclosing scope is not affected.
    expect(scope(() => (refused(work), tensor([1]))).disposed).toBe(false);
  });
});
