/** `checkGradients` accepts right rules and catches wrong ones: for every mutant of a rule it reports the input, the element and both numbers. */
import { beforeAll, describe, expect, it } from "vitest";
import {
  add,
  affine,
  cast,
  broadcastTo,
  customGradient,
  defineOp,
  exp,
  gather,
  log,
  matmul,
  mean,
  mul,
  neg,
  ones,
  relu,
  reshape,
  scatterAdd,
  scope,
  softmax,
  square,
  sub,
  sum,
  takeAlongAxis,
  tensor,
  type Tensor,
  where,
} from "gradmix";
import { checkGradients, type CheckGradientsOptions } from "gradmix/testing";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import type { Backend } from "#dist/backends/backend.js";
import { currentMemory, setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";

let backend: Backend;
beforeAll(async () => {
  backend = await createCpuBackend({ threads: 1 });
  setCurrentMemory(backend);
  return () => backend.dispose();
});

const refusal = async (run: Promise<void>): Promise<string> =>
  run.then(
    () => "no error",
    (error: unknown) => String(error),
  );

type Rule = (saved: readonly Tensor[], given: readonly Tensor[]) => readonly (Tensor | null)[];
/** a·b² of two tensors of one shape, with rules that may be replaced. */
const product = (vjp: Rule, jvp: Rule) =>
  defineOp({
    name: "product",
    inputs: ["a", "b"],
    infer: ([a]) => a,
    keepsBatch: "elementwise",
    forward: ([a, b]) => mul(a, square(b)),
    vjp: (given, { saved }) => vjp(saved, given),
    jvp: (given, { saved }) => jvp(saved, given),
  });
const slopes = (a: Tensor, b: Tensor): [Tensor, Tensor] => [square(b), affine(mul(a, b), 2, 0)];
const rightVjp: Rule = ([a, b], [ct]) => slopes(a, b).map((slope) => mul(ct, slope));
const rightJvp: Rule = ([a, b], [ta, tb]) => {
  const [da, db] = slopes(a, b);
  return [add(mul(ta, da), mul(tb, db))];
};
/** 1 but for one element of [2, 3]. */
const but = (value: number, at: number): Tensor =>
  tensor(
    Array.from({ length: 6 }, (_, n) => (n === at ? value : 1)),
    [2, 3],
  );
const first = (change: (t: Tensor) => Tensor): Rule => (saved, given) => {
  const [da, db] = rightVjp(saved, given);
  return [change(da!), db];
}; // prettier-ignore
const second = (change: (t: Tensor) => Tensor): Rule => (saved, given) => {
  const [da, db] = rightVjp(saved, given);
  return [da, change(db!)];
}; // prettier-ignore

const inputs = (): [Tensor, Tensor] => [
  tensor(values(6, 1, 0.5, 2), [2, 3]),
  tensor(values(6, 2, 0.5, 2), [2, 3]),
];

describe("rules of an op", () => {
  it("that are right pass up to the second order; no memory is left in use, and the caller's backend is current again", async () => {
    const before = backend.liveBytes;
    const given = inputs();
    await checkGradients(product(rightVjp, rightJvp), given, { order: 2 });
    for (const t of given) t.dispose();
    expect(backend.liveBytes).toBe(before);
    expect(currentMemory()).toBe(backend);
  });

  it.each<[string, Rule, RegExp]>([
    ["a factor", first((t) => affine(t, 1.0001, 0)), /input 0, element \[0, 0\]: the vjp gives/],
    ["a small factor of the other input", second((t) => affine(t, 0.9999, 0)), /input 1, element \[0, 0\]/],
    ["a sign", second(neg), /input 1, element \[0, 0\]: the vjp gives/],
    ["one element that is off", first((t) => mul(t, but(1.001, 4))), /input 0, element \[1, 1\]: the vjp gives/],
    ["one element that is missing", second((t) => mul(t, but(0, 5))), /input 1, element \[1, 2\]: the vjp gives 0, central differences give/],
    ["a shift", first((t) => affine(t, 1, 0.01)), /input 0/],
    ["a derivative that is missing", (s, g) => [rightVjp(s, g)[0], null], /input 1, element \[0, 0\]: the vjp gives 0/],
    ["derivatives that are exchanged", (s, g) => [...rightVjp(s, g)].reverse(), /input 0/],
    ["a cotangent that is forgotten", ([a, b]) => slopes(a, b), /input 0/],
    ["a derivative that is NaN", first((t) => log(neg(square(t)))), /input 0, element \[0, 0\]: the vjp gives NaN/],
    ["a power", second((t) => mul(t, t)), /input 1/],
  ])("whose vjp has %s are caught", async (_, vjp, message) => {
    const found = await refusal(checkGradients(product(vjp, rightJvp), inputs()));
    expect(found).toMatch(/^GradmixError: checkGradients: /);
    expect(found).toMatch(message);
    expect(currentMemory()).toBe(backend);
  }); // prettier-ignore

  it.each<[string, Rule, RegExp]>([
    ["a factor", (s, g) => [affine(rightJvp(s, g)[0]!, 1.0001, 0)], /input 0, element \[0, 0\]: the jvp gives .*, the vjp gives/],
    ["a sign", (s, [a, b]) => rightJvp(s, [a, neg(b)]), /input 1, element \[0, 0\]: the jvp gives/],
    ["an input that is missing", (s, [a]) => rightJvp(s, [a, affine(a, 0, 0)]), /input 1, element \[0, 0\]: the jvp gives 0, the vjp gives/],
    ["one element that is off", (s, [a, b]) => rightJvp(s, [mul(a, but(1.001, 3)), b]), /input 0, element \[1, 0\]: the jvp gives/],
    ["no tangent", () => [null], /input 0, element \[0, 0\]: the jvp gives 0/],
    ["a square, which is 1 along each element", (s, [a, b]) => rightJvp(s, [square(a), b]), /input 0: the jvp gives ⟨J·t, ct⟩ = .*must be linear/],
  ])("whose jvp has %s are caught", async (_, jvp, message) => {
    expect(await refusal(checkGradients(product(rightVjp, jvp), inputs()))).toMatch(message);
    await checkGradients(product(rightVjp, jvp), inputs(), { forwardMode: false });
  }); // prettier-ignore

  it("an error gives both numbers, and they are right", async () => {
    const f = customGradient((x: Tensor) => square(x), ([ct], { inputs: [x] }) => mul(ct, affine(x, 3, 0))); // prettier-ignore
    const found = await refusal(checkGradients((x) => f(x), [tensor([3])], { forwardMode: false }));
    const [, got, want] =
      /element \[0\]: the vjp gives (\S+), central differences give (\S+)$/.exec(found) ?? [];
    expect(Number(got) / Number(want)).toBeGreaterThan(1.4999);
    expect(Number(got) / Number(want)).toBeLessThan(1.5001);
  });

  it("small derivatives are checked to the same number of digits", async () => {
    const f = (factor: number) =>
      customGradient((x: Tensor) => affine(square(x), 1e-6, 0), ([ct], { inputs: [x] }) => mul(ct, affine(x, 2e-6 * factor, 0))); // prettier-ignore
    const options = { forwardMode: false };
    await checkGradients(f(1), [tensor([3, 4])], options);
    expect(await refusal(checkGradients(f(1.0001), [tensor([3, 4])], options))).toMatch(/input 0/);
    const slope = (x: Tensor): Tensor => affine(x, 2e-6, 0);
    const pushed = (factor: number) =>
      customGradient(
        (x: Tensor) => affine(square(x), 1e-6, 0),
        ([ct], { inputs: [x] }) => mul(ct, slope(x)),
        ([t], { inputs: [x] }) => mul(t, affine(slope(x), factor, 0)),
      );
    await checkGradients(pushed(1), [tensor([3, 4])]);
    expect(await refusal(checkGradients(pushed(1.0001), [tensor([3, 4])]))).toMatch(/the jvp gives/);
    // A derivative of 0 passes too.
    await checkGradients((x) => affine(x, 0, 0), [tensor([3, 4])]);
  });

  it("wrong second derivatives are caught only at the second order", async () => {
    // Saved as if it were a constant: the slope is right, its own slope is lost.
    const op = defineOp({
      name: "frozen",
      inputs: ["x"],
      infer: ([x]) => x,
      keepsBatch: "elementwise",
      forward: ([x]) => exp(x),
      vjp: ([ct], { saved: [x] }) => mul(ct, exp(x)),
      jvp: ([t], { saved: [x] }) => mul(t, exp(x)),
      compose: ([x]) => affine(exp(x), 1, 0),
    });
    const wrong = defineOp({
      name: "wrong",
      inputs: ["x"],
      infer: ([x]) => x,
      keepsBatch: "elementwise",
      forward: ([x]) => exp(x),
      vjp: ([ct], { saved: [x] }) => mul(ct, exp(x)),
      jvp: ([t], { saved: [x] }) => mul(t, exp(x)),
      // The same at 0.5, with twice the slope.
      compose: ([x]) => affine(exp(x), 2, -Math.exp(0.5)),
    });
    await checkGradients(op, [tensor([0.5])], { order: 2 });
    await checkGradients(wrong, [tensor([0.5])]);
    expect(await refusal(checkGradients(wrong, [tensor([0.5])], { order: 2 }))).toMatch(
      /input 0, element \[0\]: the vjp of the gradient gives/,
    );
  });
});

describe("options", () => {
  /** x² with a slope and a slope of the slope that are off by these factors. */
  const off = (first: number, second = 1) =>
    defineOp({
      name: "off",
      inputs: ["x"],
      infer: ([x]) => x,
      keepsBatch: "elementwise",
      forward: ([x]) => square(x),
      vjp: ([ct], { saved: [x] }) => mul(ct, affine(x, 2 * first, 0)),
      compose: ([x]) => affine(square(x), second, 0),
    });
  const alone = { forwardMode: false } as const;
  const outcome = async (f: (x: Tensor) => Tensor, options: CheckGradientsOptions): Promise<boolean> =>
    (await refusal(checkGradients(f, [tensor([3])], { ...alone, ...options }))) === "no error";

  it("tolerance: the allowed error of a derivative, 1e-6 by default; ten times that at the second order", async () => {
    for (const [options, tolerance] of [
      [{}, 1e-6],
      [{ tolerance: 1e-4 }, 1e-4],
    ] as const)
      for (const [share, fine] of [
        [0.97, true],
        [1.03, false],
      ] as const) {
        const error = share * tolerance;
        for (const sign of [1, -1]) {
          expect(await outcome(off(1 + sign * error), options)).toBe(fine);
          expect(await outcome(off(1, 1 + sign * error), { ...options, order: 2 })).toBe(true);
        }
        // The gradient is the rule's, and its own slope that of the composition.
        const second = off(1, 1 / (1 + 10 * error));
        expect(await outcome(second, { ...options, order: 2 })).toBe(fine);
        // So far may the composition differ, too.
        expect(await outcome(second, options)).toBe(fine);
      }
  });

  it("step: the distance by which elements are moved, times their size above 1; 1e-5 by default", async () => {
    for (const [options, step] of [
      [{}, 1e-5],
      [{ step: 1e-3 }, 1e-3],
    ] as const) {
      const seen = new Set<number>();
      const f = (x: Tensor): Tensor => {
        for (const value of Array.from(x.memory.readNow?.(x.buffer, x.offset, x.size) ?? [])) seen.add(value);
        return sum(square(x));
      };
      await checkGradients(f, [tensor([0.5, -4])], { ...alone, ...options });
      const moved = [0.5, 0.5 + step, 0.5 - step, -4, -4 + 4 * step, -4 - 4 * step];
      expect(seen).toEqual(new Set(moved));
    }
  });

  it("seed: that of the directions, 1 by default; the same seed gives the same result", async () => {
    const told = (options: CheckGradientsOptions) =>
      refusal(checkGradients(off(2), [tensor([3])], { ...alone, ...options }));
    const [byDefault, one, two] = [await told({}), await told({ seed: 1 }), await told({ seed: 2 })];
    expect(byDefault).toMatch(/the vjp gives/);
    expect([one, await told({})]).toEqual([byDefault, byDefault]);
    expect(two).not.toBe(one);
    expect(await told({ seed: 0 })).toMatch(/the vjp gives/);
  });

  it("a tangent may deviate from linearity only by rounding", async () => {
    const pushed = (error: number) =>
      customGradient(
        (x: Tensor) => square(x),
        ([ct], { inputs: [x] }) => mul(ct, affine(x, 2, 0)),
        ([t], { inputs: [x] }) => mul(t, affine(x, 2 + error, 0)),
      );
    await checkGradients(pushed(1e-12), [tensor([3])]);
    expect(await refusal(checkGradients(pushed(1e-7), [tensor([3])]))).toMatch(/a derivative must be linear/);
  });

  it("wrt: the positions of f32 inputs", async () => {
    const given = (): Tensor[] => [tensor([1, 2]), tensor(Int32Array.of(1)), tensor([3, 4])];
    const f = (x: Tensor, _: Tensor, y: Tensor): Tensor => mul(x, y);
    for (const wrt of [[0], [2], [2, 0]])
      await checkGradients((...all) => f(all[0], all[1], all[2]), given(), { wrt });
    for (const wrong of [-1, -3, 1, 3, 0.5, NaN, "0", null])
      for (const wrt of [[wrong], [0, wrong]])
        expect(await refusal(checkGradients(square, given(), { wrt: wrt as number[] }))).toMatch(
          /^GradmixError: checkGradients: wrt: input .* is not one of the f32 inputs$/,
        );
    expect(await refusal(checkGradients(square, given(), { wrt: [3, -1] }))).toMatch(/input 3 is not one of/);
    expect(await refusal(checkGradients(square, given(), { wrt: [] }))).toMatch(
      /wrt: there is no f32 input to differentiate/,
    );
  });

  it.each<[object, RegExp]>([
    [{ order: 0 }, /order: 0 does not fit/],
    [{ order: 3 }, /order: 3 does not fit/],
    [{ step: 0 }, /step: 0 does not fit/],
    [{ tolerance: 0 }, /tolerance: 0 does not fit/],
    [{ seed: -1 }, /seed: -1 does not fit/],
    [{ forwardMode: 1 }, /forwardMode: 1 does not fit/],
    [{ wrt: 0 }, /wrt: 0 does not fit/],
    [{ tolerence: 1 }, /there is no option "tolerence"/],
  ])("%j is refused", async (options, message) => {
    expect(await refusal(checkGradients(square, [tensor([1])], options))).toMatch(message);
  });
});

describe("what ops declare about axis 0", () => {
  const centred = (keepsBatch: "mixes" | "elementwise" | (() => boolean)) =>
    defineOp({
      name: "centred",
      inputs: ["x"],
      infer: ([x]) => x,
      keepsBatch,
      forward: ([x]) => sub(x, mean(x, 0, true)),
      vjp: ([ct]) => sub(ct, mean(ct, 0, true)),
      jvp: ([t]) => sub(t, mean(t, 0, true)),
    });
  const x = (): Tensor => tensor(values(12, 6), [4, 3]);

  it("is checked: a wrong declaration is caught, even between other ops and in a flattened batch", async () => {
    await checkGradients((x) => exp(centred("mixes")(x)), [x()]);
    for (const wrong of ["elementwise", () => true] as const) {
      const op = centred(wrong);
      for (const f of [op, (x: Tensor) => exp(op(square(x))), (x: Tensor) => op(reshape(x, [12]))])
        expect(await refusal(checkGradients(f, [x()]))).toMatch(
          /^GradmixError: checkGradients: input 0, element \[\d, \d\]: block 0 of the 4 blocks of rows of output 0 depends on it, and .*centred.* declare in keepsBatch/,
        );
    }
    // Whichever rows meet, wherever they stand.
    const moved = (...rows: number[]) =>
      defineOp({
        name: "moved",
        inputs: ["x"],
        infer: ([x]) => x,
        keepsBatch: "rows",
        forward: ([x]) => gather(x, tensor(Int32Array.from(rows))),
        vjp: ([ct]) => scatterAdd(ct, tensor(Int32Array.from(rows)), 4),
        jvp: ([t]) => gather(t, tensor(Int32Array.from(rows))),
      });
    await checkGradients(moved(0, 1, 2, 3), [x()], { order: 2 });
    for (const [rows, message] of [
      [[0, 0, 2, 3], /element \[0, 0\]: block 1 of the 4 blocks of rows of output 1 depends/],
      [[0, 1, 3, 2], /element \[3, 0\]: block 2 of the 4 blocks of rows of output 1 depends/],
    ] as const)
      expect(await refusal(checkGradients((x, y) => [square(y), moved(...rows)(x)], [x(), x()]))).toMatch(
        message,
      );
    // A scalar has no rows, whatever an op says.
    const spread = defineOp({
      name: "spread",
      inputs: ["x"],
      infer: () => ({ shape: [4], dtype: "f32" as const }),
      keepsBatch: () => true,
      forward: ([x]) => broadcastTo(x, [4]),
      vjp: ([ct]) => sum(ct),
      jvp: ([t]) => broadcastTo(t, [4]),
    });
    await checkGradients(spread, [tensor([2], [])]);
    // A batch that was mixed before is no batch.
    await checkGradients((x) => centred("elementwise")(centred("mixes")(x)), [x()]);
  });
});

describe("functions", () => {
  it("may have integers, several outputs, and only some inputs of interest", async () => {
    const table = tensor(values(12, 3), [4, 3]);
    const ids = tensor(Int32Array.of(3, 0, 3));
    await checkGradients((table, ids) => [gather(table, ids), ids, square(table)], [table, ids], {
      order: 2,
    });
    const stuck = customGradient((a: Tensor, b: Tensor) => matmul(a, b), ([ct], { inputs: [, b] }) => [matmul(ct, b, { transposeB: true }), null]); // prettier-ignore
    const [a, b] = [tensor(values(6, 4), [2, 3]), tensor(values(6, 5), [3, 2])];
    const some = { forwardMode: false };
    await checkGradients(stuck, [a, b], { ...some, wrt: [0] });
    expect(await refusal(checkGradients(stuck, [a, b], { ...some, wrt: [1] }))).toMatch(/input 1, element/);
  });

  it("must return something that can be checked", async () => {
    const found = (f: unknown): Promise<string> => refusal(checkGradients(f as never, [tensor([1, 2])]));
    expect(await found(undefined)).toMatch(/^GradmixError: checkGradients: f: undefined does not fit/);
    expect(await found(() => undefined)).toMatch(
      /^GradmixError: checkGradients: the function returned nothing/,
    );
    expect(await found(() => Promise.resolve(1))).toMatch(/^GradmixError: checkGradients: .* a promise/);
    for (const f of [() => [], (x: Tensor) => cast(x, "i32")])
      expect(await found(f)).toBe(
        "GradmixError: checkGradients: the function returned no f32 tensor, so there is nothing to check",
      );
    expect(await refusal(checkGradients(square, tensor([1]) as never))).toMatch(
      /^GradmixError: checkGradients: inputs: an object does not fit; it must be a list/,
    );
  });

  it("may have scalars, and tensors without elements", async () => {
    await checkGradients((x, y) => mul(x, square(y)), [tensor([3], []), tensor([2], [])], { order: 2 });
    await checkGradients((x, y) => [square(x), exp(y)], [tensor([], [0]), tensor([2])], { order: 2 });
  });

  it("may have large or small inputs, and sums that cancel", async () => {
    await checkGradients((x) => sum(square(x)), [tensor([1e6, -3, 1e-3])]);
    await checkGradients((x) => sum(sub(affine(x, 1e4, 1e4), affine(x, 9999, 1e4))), [tensor([1, -2, 3])]);
    await checkGradients(
      (x, mask) => softmax(add(x, mask)),
      [tensor([1, 2, 3]), tensor([0.5, -Infinity, 0])],
    );
    await checkGradients((x) => log(x), [tensor([0.01, 1, 50])], { step: 1e-6 });
  });

  it("may have indices and masks of type i32 as inputs, which are not differentiated", async () => {
    const [x, ids, mask] = [tensor([1, 2, 3]), tensor(Int32Array.of(2, 0)), tensor(Int32Array.of(1, 0, 1))];
    await checkGradients((x, ids) => square(takeAlongAxis(x, ids, 0)), [x, ids], { order: 2 });
    await checkGradients((mask, x) => where(mask, square(x), 0), [mask, x], { order: 2 });
    const wrong = customGradient(
      (x: Tensor) => mul(x, 2),
      ([ct]) => mul(ct, 3),
    );
    expect(
      await refusal(
        checkGradients((ids, x) => takeAlongAxis(wrong(x), ids, 0), [ids, x], { forwardMode: false }),
      ),
    ).toMatch(/checkGradients: input 1, element \[0\]: the vjp gives/);
  });

  it.each<[string, () => Promise<void>, RegExp]>([
    ["not finite", () => checkGradients((x) => log(x), [tensor([0])]), /the function is not finite at the inputs/],
    ["not of tensors", () => checkGradients(square, [3 as never]), /input 0 is 3, not a tensor/],
    ["of integers alone", () => checkGradients((x) => x, [tensor(Int32Array.of(1))]), /no f32 input/],
    ["captured from another backend", () => { const other = ones([1]); return checkGradients((x) => mul(x, other), [tensor([1])]); }, /checkGradients: f uses the f32 tensor \[1\] from outside; pass it as an input/],
    ["of captured indices", () => { const ids = tensor(Int32Array.of(1, 0)); ids.name = "ids"; return checkGradients((x) => takeAlongAxis(x, ids, 0), [tensor([1, 2])]); }, /uses the i32 tensor ids\[2\] from outside; pass it as an input \(tensors of type i32 may be inputs too\)/],
    ["returned from outside", () => { const other = ones([1]); return checkGradients(() => other, [tensor([1])]); }, /uses the f32 tensor \[1\] from outside/],
    ["without a jvp", () => checkGradients(customGradient((x: Tensor) => exp(x), ([ct], { outputs: [y] }) => mul(ct, y)), [tensor([1])]), /has no jvp rule/],
    ["at a kink", () => checkGradients((x) => relu(x), [tensor([0])]), /input 0, element \[0\]/],
  ])("invalid use is refused: %s", async (_, run, message) => {
    expect(await refusal(run())).toMatch(message);
    expect(currentMemory()).toBe(backend);
    expect(scope(() => square(tensor([1])).dtype)).toBe("f32");
  }); // prettier-ignore
});

describe("another form of an op", () => {
  /** 2·exp(x), with a composition of its own. */
  const doubled = (compose: (x: Tensor) => Tensor | readonly Tensor[]): ((x: Tensor) => Tensor) =>
    defineOp({
      name: "doubled",
      inputs: ["x"],
      infer: ([x]) => x,
      keepsBatch: "elementwise",
      forward: ([x]) => affine(exp(x), 2, 0),
      vjp: ([ct], { saved: [x] }) => mul(ct, affine(exp(x), 2, 0)),
      jvp: ([t], { saved: [x] }) => mul(t, affine(exp(x), 2, 0)),
      compose: ([x]) => compose(x) as Tensor,
    });
  const x = (): Tensor => tensor([[0.3, -0.7], [1.2, 0.4]]); // prettier-ignore

  it("that gives the same numbers passes, also inside of scopes", async () => {
    const op = doubled((t) => affine(exp(t), 2, 0));
    for (const order of [1, 2] as const) {
      await checkGradients(op, [x()], { order });
      await checkGradients((t) => scope(() => mul(op(t), op(affine(t, 0.5, 0)))), [x()], { order });
    }
    await checkGradients(
      doubled((t) => add(exp(t), exp(t))),
      [x()],
      { order: 2 },
    );
  });

  it.each<[string, (x: Tensor) => Tensor]>([
    ["a factor", (t) => affine(exp(t), 2.0001, 0)],
    ["a shift, which no derivative shows", (t) => affine(exp(t), 2, 1)],
    ["one element", (t) => mul(affine(exp(t), 2, 0), tensor([[1, 1], [1.001, 1]]))], // prettier-ignore
    ["NaN", (t) => log(neg(exp(t)))],
  ])("that differs by %s is caught at every order", async (_, compose) => {
    for (const order of [1, 2] as const)
      expect(await refusal(checkGradients(doubled(compose), [x()], { order }))).toMatch(
        /checkGradients: doubled: output 0, element \[\d, \d\]: compose gives .*, forward gives .*; both must be the same function/,
      );
  });
});

it("inputs without elements leave nothing to check", async () => {
  for (const inputs of [[tensor([])], [tensor([], [0, 3]), tensor([], [3, 0])]])
    expect(await refusal(checkGradients((t) => exp(t), inputs))).toMatch(
      /checkGradients: no input to differentiate has an element, so there is nothing to check/,
    );
  await checkGradients((a, b) => mul(sum(a), sum(b)), [tensor([1]), tensor([])]);
});
