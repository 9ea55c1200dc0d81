/** Random programs with checkpoints around random parts of them have the same gradients as without. */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import {
  add,
  checkpoint,
  exp,
  grad,
  gradients,
  GradmixError,
  jvp,
  linear,
  mul,
  reshape,
  scope,
  sin,
  square,
  stopGradient,
  sum,
  sumSink,
  tanh,
  tensor,
  type Tensor,
  vjp,
} from "gradmix";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { values } from "../backends/harness.ts";
import { codeOf } from "../errors.ts";

let backend: Backend;
beforeEach(() => {
  backend = createReferenceBackend({ precision: "f64" });
  setCurrentMemory(backend);
});

const N = 2;
const random = (seed: number): Tensor => tensor(values(N * N, seed), [N, N]);
const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const many = (ts: readonly Tensor[]): Promise<number[][]> => Promise.all(ts.map(numbers));
const close = (got: readonly number[][], want: readonly number[][], what: string): void => {
  expect(got.length).toBe(want.length);
  want.forEach((row, i) => {
    const scale = Math.max(1, ...row.map(Math.abs));
    row.forEach((value, n) => {
      if (!(Math.abs(got[i][n] - value) <= 1e-9 * scale))
        expect.fail(`${what}: ${i}, element ${n} is ${got[i][n]}, not ${value}`);
    });
  });
};

/** An op on two of the values at hand; or a part of the program, with the values that are handed to it (the same ones perhaps twice). */
type Step =
  | { readonly kind: "op"; readonly op: number; readonly a: number; readonly b: number }
  | {
      readonly kind: "part";
      readonly inputs: readonly number[];
      readonly steps: readonly Step[];
      readonly outputs: number;
    };

const { program } = fc.letrec<{ program: readonly Step[]; step: Step; op: Step; part: Step }>((tie) => ({
  program: fc.array(tie("step"), { minLength: 1, maxLength: 5 }),
  step: fc.oneof({ maxDepth: 3, withCrossShrink: true }, { arbitrary: tie("op"), weight: 3 }, { arbitrary: tie("part"), weight: 2 }),
  op: fc.record({ kind: fc.constant("op"), op: fc.nat(8), a: fc.nat(20), b: fc.nat(20) }),
  part: fc.record({
    kind: fc.constant("part"),
    inputs: fc.array(fc.nat(20), { minLength: 1, maxLength: 3 }),
    steps: tie("program"),
    outputs: fc.nat(3),
  }),
})); // prettier-ignore

interface Context {
  readonly checkpointed: boolean;
  readonly weight: Tensor;
  readonly constant: Tensor;
}

/** Runs the steps on `values`; the last one is the result. `captured` are handles from outside. */
function execute(
  steps: readonly Step[],
  values: readonly Tensor[],
  { checkpointed, weight, constant }: Context,
): Tensor[] {
  const found = [...values];
  const at = (n: number): Tensor => found[found.length - 1 - (n % found.length)];
  for (const step of steps) {
    if (step.kind === "op") {
      const [a, b] = [at(step.a), at(step.b)];
      const made = [
        () => mul(a, b),
        () => add(a, b),
        () => tanh(a),
        () => sin(a),
        () => linear(a, weight),
        () => mul(a, constant),
        // Made inside, and gone at the end of its scope.
        () => mul(a, tensor([1, 2, 3, 4], [N, N])),
        () => add(a, stopGradient(b)),
        () => reshape(reshape(a, [N * N]), [N, N]),
      ][step.op]();
      found.push(made);
    } else {
      const inputs = step.inputs.map(at);
      const part = (...given: Tensor[]): Tensor[] => {
        // Both what is given and the handles themselves.
        const all = execute(step.steps, [...inputs, ...given], { checkpointed, weight, constant });
        // Inputs and repeated handles are results, too.
        return [all[all.length - 1], all[step.outputs % all.length]];
      };
      found.push(...(checkpointed ? checkpoint(part, ...inputs) : scope(() => part(...inputs))));
    }
  }
  return found;
}

describe("random programs with checkpoints", () => {
  const leaves = (): Tensor[] => [random(1), random(2)];
  const f = (steps: readonly Step[], checkpointed: boolean) => (...x: Tensor[]): Tensor => {
    // Captured constants that are disposed after the forward pass.
    const [weight, constant] = [random(3), random(4)];
    const all = scope(() => execute(steps, x, { checkpointed, weight, constant }));
    return sum(add(all[all.length - 1], all[Math.max(0, all.length - 2)]));
  }; // prettier-ignore

  it("have the same first and second derivatives as without checkpoints", async () => {
    await fc.assert(
      fc.asyncProperty(program, async (steps) => {
        const before = backend.liveBytes;
        const results = scope(() => {
          const [x, v] = [leaves(), [random(5), random(6)]];
          return [true, false].map((checkpointed) => {
            const loss = f(steps, checkpointed);
            return [
              ...grad(loss)(...x),
              ...jvp(loss, x, v).tangents,
              ...jvp((...y) => grad(loss)(...y), x, v).tangents,
              ...grad((...y) => {
                const [a, b] = grad(loss)(...y);
                return sum(add(square(a), b));
              })(...x),
            ];
          });
        });
        const [got, want] = [await many(results[0]), await many(results[1])];
        for (const t of results.flat()) t.dispose();
        close(got, want, "derivative");
        expect(backend.liveBytes).toBe(before);
      }),
      { numRuns: 150 },
    );
  });

  it("give the sink the same gradients of their parameters as without checkpoints", async () => {
    await fc.assert(
      fc.asyncProperty(program, async (steps) => {
        const [weight, constant, into] = [random(3), random(4), random(0)];
        const pass = async (checkpointed: boolean): Promise<number[][]> => {
          const loss = (): Tensor => {
            const all = execute(steps, [linear(random(1), weight)], { checkpointed, weight, constant });
            return sum(all[all.length - 1], 1);
          };
          try {
            const sink = sumSink({ gradientOf: () => into });
            return await many([into, gradients(loss, { parameters: [weight], sink })]);
          } catch (error) {
            if (error instanceof GradmixError && /depends on none/.test(error.message)) return [];
            throw error;
          }
        };
        close(await pass(true), await pass(false), "gradient");
      }),
      { numRuns: 100 },
    );
  });
});

describe("tensors around a checkpoint", () => {
  const one = (x: number): Tensor => tensor([x]);
  const at = async (f: (x: Tensor) => Tensor, x: number): Promise<number> =>
    (await numbers(grad(f)(one(x))[0]))[0];

  it("an input may also be captured: d/dx (x²)² at 2 is 32", async () => {
    const f = (x: Tensor): Tensor => {
      const h = square(x);
      return sum(checkpoint((y) => mul(y, h), h));
    };
    expect(await at(f, 2)).toBe(32);
    expect(await at((x) => grad(f)(x)[0], 2)).toBe(48);
  });

  it("a tensor may be passed twice, an input or one result twice may be returned, and a captured constant may be disposed", async () => {
    expect(await at((x) => sum(checkpoint((a, b) => mul(a, b), x, x)), 3)).toBe(6);
    expect(
      await at(
        (x) =>
          sum(
            mul(
              checkpoint((y) => y, x),
              x,
            ),
          ),
        3,
      ),
    ).toBe(6);
    const twice = (x: Tensor): Tensor => {
      const [a, b] = checkpoint((y) => {
        const z = square(y);
        return [z, z];
      }, x);
      return sum(mul(a, b));
    };
    expect(await at(twice, 2)).toBe(32);
    const gone = (x: Tensor): Tensor =>
      scope(() => {
        const c = tensor([5]);
        return sum(checkpoint((y) => mul(square(y), c), x));
      });
    expect(await at(gone, 3)).toBe(30);
  });

  it("a parameter may be the result", async () => {
    const [w, dw] = [tensor([1, 2, 3, 4], [N, N]), random(0)];
    const loss = (): Tensor =>
      sum(
        mul(
          checkpoint((x) => (void exp(x), w), linear(random(1), w)),
          random(2),
        ),
        1,
      );
    gradients(loss, { parameters: [w], sink: sumSink({ gradientOf: () => dw }) });
    close(await many([dw]), await many([random(2)]), "gradient");
  });

  it("a captured tensor that depends on parameters is refused at any depth, and so is a changed number of results", () => {
    const captured = (x: Tensor): Tensor => {
      const y = exp(x);
      return sum(checkpoint((x) => checkpoint((x) => mul(x, y), x), x));
    };
    expect(codeOf(() => grad(captured)(one(1)))).toMatch(
      /^autograd: checkpoint: mul uses a tensor that depends/,
    );
    const inner = (x: Tensor): Tensor =>
      sum(
        checkpoint((x) => {
          const y = exp(x);
          return checkpoint((x) => mul(x, y), x);
        }, x),
      );
    expect(codeOf(() => grad(inner)(one(1)))).toMatch(
      /^autograd: checkpoint: mul uses a tensor that depends/,
    );
    let calls = 0;
    const changing = (x: Tensor): Tensor =>
      sum(checkpoint((x) => Array.from({ length: ++calls }, () => exp(x)), x)[0]);
    expect(codeOf(() => grad(changing)(one(1)))).toMatch(/gave 1 outputs at first and 2 when it ran again/);
  });

  it("a disposed tape frees the captured tensors", () => {
    const x = one(2);
    const before = backend.liveBytes;
    const f = (x: Tensor): Tensor => scope(() => (([c]) => checkpoint((y) => mul(y, c), x))([tensor([5])]));
    vjp(f, [x]).outputs[0].dispose();
    for (const t of grad((x) => sum(f(x)))(x)) t.dispose();
    scope(() => vjp(f, [x]).dispose());
    // The first one still holds its constant.
    expect(backend.liveBytes).toBe(before + 8);
  });
});
