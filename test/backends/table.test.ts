/** The table of kernels refuses every invalid parameter, and strides that leave their operand, before a backend is called. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { run } from "#dist/backends/backend.js";
import { checkCall, mapInputs, operandsOf } from "#dist/backends/kernels/check.js";
import {
  type Inputs,
  type KernelName,
  kernelNames,
  type KernelParams,
  type Outputs,
} from "#dist/backends/kernels/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { GradmixError } from "#dist/errors.js";
import type { View } from "#dist/tensor/memory.js";
import { cases } from "./cases.ts";
import { type Operand, outputsOf } from "./harness.ts";

const view = (operand: Operand): View => ({
  buffer: 1,
  offset: 0,
  shape: [operand.data.length],
  dtype: operand.dtype,
});

/** Values that a parameter may never have, given one that it may have. */
function junk(valid: unknown): unknown[] {
  const none = [null, undefined, {}, "1", 1n];
  if (typeof valid === "boolean") return [...none, 0, 1];
  if (typeof valid === "string") return [null, undefined, {}, 0, "", `${valid} `, [valid]];
  if (Array.isArray(valid))
    return [
      ...none,
      3,
      ...valid.flatMap((_, at) => [NaN, 0.5, -1, "1", null].map((bad) => valid.with(at, bad))),
      [1, 1, 1, 1, 1, 1, 1],
    ];
  return none;
}
/** Numbers that count something. */
const COUNTS =
  /^(rows|cols|width|m|n|k|batch|time|keys|mask(Batch|Heads)|heads|kvHeads|headDim|outer|length|inner|count|tableRows|step|offset|key\d|stride[ABC]|(in|out)Offset|\w+(Count|Segments|Accumulated))$/;

const message = (call: () => void): string => {
  try {
    call();
  } catch (error) {
    return error instanceof GradmixError ? error.message : `not a GradmixError: ${String(error)}`;
  }
  return "accepted";
};

describe("the table", () => {
  it.each(kernelNames)("%s refuses invalid parameters", (kernel: KernelName) => {
    const wrong: string[] = [];
    for (const c of cases[kernel]().slice(0, 5)) {
      const inputs = mapInputs<KernelName, Operand, View>(c.inputs, view);
      const outputs = outputsOf(kernel, c, inputs, view);
      const check = (params: unknown): string =>
        message(() => checkCall(kernel, params as KernelParams[KernelName], inputs, outputs));
      if (check(c.params) !== "accepted") wrong.push(`${c.name}: ${check(c.params)}`);
      for (const [name, valid] of Object.entries<unknown>({ ...c.params })) {
        const bad = [...junk(valid), ...(COUNTS.test(name) ? [NaN, 0.5, -1, Infinity, 2 ** 54] : [])];
        // As words, some negative numbers are numbers of 32 bits.
        for (const value of name.startsWith("key") || name === "offset" ? bad.filter((b) => b !== -1) : bad) {
          const found = check({ ...c.params, [name]: value });
          if (!found.startsWith(`${kernel}: `)) wrong.push(`${c.name}: ${name} = ${typeof value}: ${found}`);
        }
      }
    }
    expect(wrong.slice(0, 10)).toEqual([]);
  });

  it("an operand that is unknown or missing is refused by name", () => {
    const one = view({ data: [0], dtype: "f32" });
    const refused = (inputs: object, outputs: object): string =>
      message(() =>
        checkCall("affine", { scale: 1, shift: 0 }, inputs as Inputs<"affine">, outputs as Outputs<"affine">),
      );
    expect(refused({ x: one, bias: one }, { y: one })).toBe('affine: there is no operand "bias"');
    expect(refused({ x: one }, { y: one, x: one })).toBe('affine: there is no operand "x"');
    expect(refused({}, { y: one })).toBe('affine: operand "x" is missing');
    expect(refused({ x: one }, { y: null })).toBe('affine: operand "y" is missing');
  });

  it("for every input that may be the output too, a case uses it as the output", () => {
    const untried = kernelNames.flatMap((kernel) => {
      const allowed = operandsOf(kernel, "outputs").flatMap(({ inPlaceOf }) => inPlaceOf);
      const tried = new Set(allowed.length === 0 ? [] : cases[kernel]().map((c) => c.inPlace));
      return allowed.filter((input) => !tried.has(input)).map((input) => `${kernel} in place of ${input}`);
    });
    expect(untried).toEqual([]);
  });

  it("strides may reach every element of an operand, and no element beyond it", () => {
    const small = fc.integer({ min: 0, max: 4 });
    const axes = fc.array(fc.tuple(small, small, small), { maxLength: 4 });
    const reach = (shape: readonly number[], strides: readonly number[]): number =>
      shape.includes(0) ? -1 : shape.reduce((sum, extent, axis) => sum + (extent - 1) * strides[axis], 0);
    fc.assert(
      fc.property(axes, small, small, fc.integer({ min: -2, max: 3 }), (list, inOffset, outOffset, more) => {
        const [shape, inStrides, outStrides] = ([0, 1, 2] as const).map((n) => list.map((axis) => axis[n]));
        const [lastIn, lastOut] = [reach(shape, inStrides), reach(shape, outStrides)];
        const sizes = [inOffset + lastIn + 1 + more, outOffset + lastOut + 1].map((n) => Math.max(0, n));
        const [input, out] = sizes.map((n) => view({ data: new Float32Array(n), dtype: "f32" }));
        const params = { shape, inStrides, inOffset, outStrides, outOffset };
        const found = message(() => checkCall("stridedCopy", params, { x: input }, { y: out }));
        const fits = lastIn < 0 || inOffset + lastIn < sizes[0];
        expect(found).toMatch(fits ? /^accepted$/ : /^stridedCopy: "x" is addressed at element/);
      }),
    );
  });

  it("a momentum without a velocity is refused, because it would have no effect", () => {
    const one = view({ data: [0], dtype: "f32" });
    const check = (momentum: number, velocity: View | null): string =>
      message(() =>
        checkCall(
          "sgd",
          { lr: 1, momentum, nesterov: false, weightDecay: 0 },
          { grad: one },
          { value: one, velocity },
        ),
      );
    expect(check(0.5, null)).toBe('sgd: momentum 0.5 needs the operand "velocity"');
    expect([check(0, null), check(0, one), check(0.5, one)]).toEqual(["accepted", "accepted", "accepted"]);
  });

  it("an operand that belongs to another backend, or to none, is refused", async () => {
    const [one, other] = [createReferenceBackend(), createReferenceBackend()];
    const place = (memory: typeof one) => ({
      ...view({ data: [0], dtype: "f32" }),
      buffer: memory.alloc(1, "f32"),
      memory,
    });
    expect(() => run("affine", { scale: 1, shift: 0 }, { x: place(one) }, { y: place(other) })).toThrow(
      /^affine: operands live on different backends/,
    );
    for (const memory of [one, other]) await memory.dispose();
  });
});
