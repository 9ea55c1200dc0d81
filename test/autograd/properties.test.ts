/** Properties over random shapes, segments and masks, in double precision and on the CPU backend. */
import fc from "fast-check";
import { afterAll, beforeAll, describe, it } from "vitest";
import {
  add,
  alignSink,
  broadcastTo,
  embedding,
  exampleLosses,
  gradients,
  jvp,
  layerNorm,
  linear,
  matmul,
  mul,
  perExampleSink,
  scope,
  slice,
  tensor,
  type Tensor,
  transpose,
  vjp,
} from "gradmix";
import type { TensorFunction } from "#dist/autograd/grad.js";
import type { Backend } from "#dist/backends/backend.js";
import { createCpuBackend } from "#dist/backends/cpu/index.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { integers, values } from "../backends/harness.ts";

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const random = (shape: readonly number[], seed: number): Tensor => tensor(values(size(shape), seed), shape);
const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());
const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((s, x, n) => s + x * b[n], 0);

/** Offsets 0 = o₀ ≤ … ≤ oₙ = end. */
const offsets = (end: number): fc.Arbitrary<number[]> =>
  fc
    .array(fc.integer({ min: 0, max: end }), { maxLength: 4 })
    .map((cuts) => [0, ...cuts.sort((a, b) => a - b), end]);

describe.each([
  {
    name: "reference f64",
    create: async () => createReferenceBackend({ precision: "f64" }),
    tolerance: 1e-10,
  },
  { name: "cpu", create: () => createCpuBackend({ threads: 2 }), tolerance: 1e-4 },
])("on $name", ({ create, tolerance }) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await create();
    setCurrentMemory(backend);
  });
  afterAll(async () => {
    await backend.dispose();
  });

  const near = (a: number, b: number, scale = 1): boolean =>
    Math.abs(a - b) <= tolerance * Math.max(1, scale, Math.abs(b));

  /** ⟨J·t, ct⟩ = ⟨t, Jᵀ·ct⟩, and the memory is given back. */
  async function transposed(f: TensorFunction, shapes: readonly (readonly number[])[]): Promise<boolean> {
    const before = backend.liveBytes;
    const all = scope(() => {
      const x = shapes.map((shape, n) => random(shape, n + 1));
      const t = shapes.map((shape, n) => random(shape, n + 50));
      const { outputs, pullback } = vjp(f, x);
      const ct = outputs.map((o, n) => random(o.shape, n + 90));
      return { t, ct, pushed: jvp(f, x, t).tangents, pulled: pullback(ct) };
    });
    const flat = async (ts: readonly Tensor[]): Promise<number[]> => {
      const data = (await Promise.all(ts.map(numbers))).flat();
      ts.forEach((t) => t.dispose());
      return data;
    };
    const [t, ct, pushed, pulled] = [
      await flat(all.t),
      await flat(all.ct),
      await flat(all.pushed),
      await flat(all.pulled),
    ];
    return near(dot(pushed, ct), dot(t, pulled), t.length) && backend.liveBytes === before;
  }

  const extents = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 4 });

  it("the vjp of broadcasting is the transpose of its jvp for every pair of shapes", async () => {
    const shapes = extents.chain((shape) =>
      fc.tuple(
        fc.constant(shape),
        // Some axes shrunk to 1, some leading ones left out.
        fc.array(fc.boolean(), { minLength: shape.length, maxLength: shape.length }),
        fc.integer({ min: 0, max: shape.length }),
        fc.boolean(),
      ),
    );
    await fc.assert(
      fc.asyncProperty(shapes, async ([shape, shrunk, dropped, swap]) => {
        const small = shape.map((e, n) => (shrunk[n] ? 1 : e)).slice(dropped);
        const pair = swap ? [small, shape] : [shape, small];
        return (
          (await transposed((a, b) => mul(add(a, b), b), pair)) &&
          (await transposed((a) => broadcastTo(a, shape), [small]))
        );
      }),
      { numRuns: 60 },
    );
  });

  it("the same holds for windows and permutations", async () => {
    const windows = fc.array(
      fc
        .integer({ min: 1, max: 4 })
        .chain((extent) =>
          fc
            .integer({ min: 0, max: extent - 1 })
            .chain((start) =>
              fc.tuple(
                fc.constant(extent),
                fc.constant(start),
                fc.integer({ min: 1, max: extent - start }),
                fc.double({ noNaN: true }),
              ),
            ),
        ),
      { minLength: 1, maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(windows, async (axes) => {
        const column = (i: 0 | 1 | 2 | 3): number[] => axes.map((axis) => axis[i]);
        const order = column(3);
        const perm = order.map((_, n) => n).sort((a, b) => order[a] - order[b] || a - b);
        return transposed((x) => transpose(slice(x, column(1), column(2)), perm), [column(0)]);
      }),
      { numRuns: 60 },
    );
  });

  it("the same holds for matrix products, with every way of batching and transposing", async () => {
    const extent = fc.integer({ min: 1, max: 4 });
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(extent, extent, extent),
        fc.array(extent, { maxLength: 2 }),
        fc.constantFrom("both", "a", "b", "ones"),
        fc.boolean(),
        fc.boolean(),
        ([m, k, n], lead, batched, transposeA, transposeB) => {
          const a = transposeA ? [k, m] : [m, k];
          const b = transposeB ? [n, k] : [k, n];
          const one = lead.map(() => 1);
          const leadA = { both: lead, a: lead, b: [], ones: one }[batched];
          const leadB = { both: lead, a: [], b: lead, ones: lead }[batched];
          return transposed(
            (x, y) => matmul(x, y, { transposeA, transposeB }),
            [
              [...leadA, ...a],
              [...leadB, ...b],
            ],
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it("alignSink gives the inner products of the examples' gradients, for any segments, groups and masks", async () => {
    const [examples, time, dim, vocab] = [5, 3, 4, 6];
    const parameters = [
      random([vocab, dim], 1),
      random([dim], 2),
      random([dim], 3),
      random([vocab, dim], 4),
      random([vocab], 5),
    ];
    const [table, gain, bias, weight, shift] = parameters;
    const cases = offsets(examples).chain((segments) =>
      fc.tuple(
        fc.constant(segments),
        offsets(segments.length - 1),
        fc.integer({ min: 0, max: segments.length - 1 }),
        fc.integer({ min: 0, max: segments.length - 1 }),
        fc.integer({ min: 0, max: 1000 }),
        fc.boolean(),
      ),
    );
    await fc.assert(
      fc.asyncProperty(cases, async ([segments, groups, first, from, seed, isGiven]) => {
        const before = backend.liveBytes;
        const ids = tensor(integers(examples * time, seed, 0, vocab), [examples, time], "i32");
        const targets = tensor(integers(examples * time, seed + 1, -3, vocab), [examples, time], "i32");
        const loss = (): Tensor =>
          exampleLosses(linear(layerNorm(embedding(table, ids), gain, bias), weight, shift), targets);
        const each = perExampleSink(examples, parameters);
        const v = new Map(parameters.map((p, n) => [p, random(p.shape, seed + n)]));
        const total = new Map(parameters.map((p) => [p, random(p.shape, 1)]));
        const align = alignSink({
          examples,
          segments,
          groups,
          direction: isGiven ? { given: (p) => v.get(p)! } : { first },
          total: { gradientOf: (p) => total.get(p)!, from },
        });
        for (const sink of [each, align]) gradients(loss, { parameters, sink }).dispose();

        const rows = await Promise.all(parameters.map((p) => numbers(each.result().get(p)!)));
        const gradientOf = (start: number, end: number): number[] =>
          rows.flatMap((data) => {
            const width = data.length / examples;
            const out = new Array<number>(width).fill(0);
            for (let b = start; b < end; b++) for (let e = 0; e < width; e++) out[e] += data[b * width + e];
            return out;
          });
        const flat = async (m: ReadonlyMap<Tensor, Tensor>): Promise<number[]> =>
          (await Promise.all(parameters.map((p) => numbers(m.get(p)!)))).flat();
        const along = isGiven ? await flat(v) : gradientOf(segments[0], segments[first]);
        const got = await align.result();
        const summed = await flat(total);
        const want = gradientOf(segments[from], segments[segments.length - 1]);
        for (const sink of [each, align]) sink.dispose();
        for (const t of [ids, targets, ...v.values(), ...total.values()]) t.dispose();

        const scale = 1 + dot(along, along);
        const squared = (start: number, end: number): number => {
          const g = gradientOf(start, end);
          return dot(g, g);
        };
        return (
          got.dots.every((d, s) =>
            near(d, !isGiven && s < first ? 0 : dot(gradientOf(segments[s], segments[s + 1]), along), scale),
          ) &&
          got.squaredNorms.every((q, s) => near(q, squared(segments[s], segments[s + 1]))) &&
          got.groupSquaredNorms.every((q, g) =>
            near(q, squared(segments[groups[g]], segments[groups[g + 1]])),
          ) &&
          near(got.directionSquaredNorm, dot(along, along)) &&
          summed.every((x, n) => near(x, want[n])) &&
          got.groupSquaredNorms.length === groups.length - 1 &&
          backend.liveBytes === before
        );
      }),
      { numRuns: 40 },
    );
  });
});
