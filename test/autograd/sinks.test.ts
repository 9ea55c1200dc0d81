/**
 * Sinks against a loop of one-example backward passes, on every backend: ragged targets, uneven domains, groups, the target first or a given direction,
 * checkpointed blocks; and their refusals.
 */
import { inspect } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  add,
  alignSink,
  checkpoint,
  customGradient,
  exampleLosses,
  forwardDerivative,
  embedding,
  grad,
  gradients,
  GradmixError,
  type GradientSink,
  linear,
  mean,
  mul,
  normSink,
  perDomainSink,
  perExampleSink,
  segmentSink,
  sketchSink,
  slice,
  square,
  sum,
  sumSink,
  tensor,
  type Tensor,
} from "gradmix";
import { splitSink } from "#dist/autograd/sinks/split.js";
import type { Backend } from "#dist/backends/backend.js";
import { createReferenceBackend } from "#dist/backends/reference/index.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { backends } from "../backends/all.ts";
import { values } from "../backends/harness.ts";
import { garbageCollected } from "../garbage.ts";
import { type TinyModel, tinyModel } from "./model.ts";

const numbers = async (t: Tensor): Promise<number[]> => Array.from(await t.data());

const every = [
  {
    name: "reference f64",
    create: async (): Promise<Backend> => createReferenceBackend({ precision: "f64" }),
    tolerance: 1e-11,
  },
  ...backends.map((backend) => ({ ...backend, tolerance: 3e-4 })),
];

/** Gradients as one long vector. */
type Vector = number[];
const plus = (a: Vector, b: Vector): Vector => a.map((x, n) => x + b[n]);
const dot = (a: Vector, b: Vector): number => a.reduce((s, x, n) => s + x * b[n], 0);
const total = (vectors: Vector[], length: number): Vector =>
  vectors.reduce(plus, new Array<number>(length).fill(0));

describe.each(every)("on $name", ({ create, tolerance }) => {
  let backend: Backend;
  let model: TinyModel;
  /** Each example's gradient, by a backward pass over it alone. */
  let alone: Vector[];
  let size: number;

  beforeAll(async () => {
    backend = await create();
    setCurrentMemory(backend);
    model = tinyModel();
    size = model.parameters.reduce((n, p) => n + p.size, 0);
    alone = [];
    for (let b = 0; b < model.examples; b++) alone.push(await sumOf((m) => m.lossOf(m.parameters, b)));
  });
  afterAll(async () => {
    await backend.dispose();
  });
  beforeEach(() => void setCurrentMemory(backend));

  const close = (got: ArrayLike<number>, want: readonly number[], what = "value"): void => {
    const scale = Math.max(1, ...want.map(Math.abs));
    expect(got.length, what).toBe(want.length);
    want.forEach((w, n) => {
      if (!(Math.abs(got[n] - w) <= tolerance * scale)) expect.fail(`${what} ${n} is ${got[n]}, not ${w}`);
    });
  };

  /** Tensors like the parameters. */
  const buffers = (fill = NaN): Map<Tensor, Tensor> =>
    new Map(model.parameters.map((p) => [p, tensor(new Array<number>(p.size).fill(fill), p.shape)]));
  const flat = async (tensors: ReadonlyMap<Tensor, Tensor>): Promise<Vector> =>
    (await Promise.all(model.parameters.map((p) => numbers(tensors.get(p)!)))).flat();

  async function sumOf(loss: (m: TinyModel) => Tensor): Promise<Vector> {
    const into = buffers();
    const sink = sumSink({ gradientOf: (p) => into.get(p)! });
    gradients(() => loss(model), { parameters: model.parameters, sink });
    return flat(into);
  }

  const pass = (sink: GradientSink, checkpointed = false, weights?: number[]): Tensor =>
    gradients(() => model.losses(model.parameters, checkpointed), {
      parameters: model.parameters,
      sink,
      ...(weights && { weights }),
    });

  it("sumSink sums the examples' gradients, applies weights, and can add to the old content", async () => {
    close(await sumOf((m) => m.losses(m.parameters)), total(alone, size));
    const into = buffers(1);
    pass(sumSink({ gradientOf: (p) => into.get(p)!, accumulate: true }), false, [1, 0, -2]);
    const want = total([alone[0], alone[2].map((x) => -2 * x)], size).map((x) => x + 1);
    close(await flat(into), want);
  });

  it("perExampleSink and perDomainSink, with an empty domain, with and without checkpoints", async () => {
    for (const checkpointed of [false, true]) {
      const examples = perExampleSink(3, model.parameters);
      const domains = perDomainSink([0, 2, 2, 3], model.parameters);
      pass(examples, checkpointed);
      pass(domains, checkpointed);
      const domainVectors = [plus(alone[0], alone[1]), new Array<number>(size).fill(0), alone[2]];
      for (const [sink, want] of [
        [examples, alone],
        [domains, domainVectors],
      ] as const) {
        const rows = await Promise.all(model.parameters.map((p) => numbers(sink.result().get(p)!)));
        want.forEach((vector, s) => {
          const got = rows.flatMap((data) => data.slice((s * data.length) / 3, ((s + 1) * data.length) / 3));
          close(got, vector, `segment ${s}, element`);
        });
        sink.dispose();
      }
    }
  });

  const direction = (): Map<Tensor, Tensor> =>
    new Map(model.parameters.map((p, n) => [p, tensor(values(p.size, 40 + n), p.shape)]));

  it("alignSink with a given direction: inner products, norms, groups, the sum", async () => {
    const v = direction();
    const along = await flat(v);
    for (const checkpointed of [false, true]) {
      const into = buffers();
      const sink = alignSink({
        examples: 3,
        groups: [0, 2, 2, 3],
        direction: { given: (p) => v.get(p)! },
        total: { gradientOf: (p) => into.get(p)!, from: 1 },
      });
      pass(sink, checkpointed);
      const got = await sink.result();
      close(
        got.dots,
        alone.map((g) => dot(g, along)),
        "dot",
      );
      close(
        got.squaredNorms,
        alone.map((g) => dot(g, g)),
        "squared norm",
      );
      const both = plus(alone[0], alone[1]);
      close(got.groupSquaredNorms, [dot(both, both), 0, dot(alone[2], alone[2])], "group");
      close([got.directionSquaredNorm], [dot(along, along)], "‖V‖²");
      close(await flat(into), plus(alone[1], alone[2]));
      sink.dispose();
    }
    // Forward mode gives the same without a backward pass.
    const { derivatives } = forwardDerivative(() => model.losses(model.parameters), v);
    close(
      await numbers(derivatives),
      alone.map((g) => dot(g, along)),
    );
  });

  it("alignSink with the target first, in uneven segments, and with weights", async () => {
    const into = buffers(5);
    const sink = alignSink({
      examples: 3,
      segments: [0, 1, 3],
      direction: { first: 1 },
      total: { gradientOf: (p) => into.get(p)!, accumulate: true },
    });
    pass(sink, false, [2, 1, -1]);
    const got = await sink.result();
    const target = alone[0].map((x) => 2 * x);
    const rest = plus(
      alone[1],
      alone[2].map((x) => -x),
    );
    close(got.dots, [0, dot(rest, target)], "dot");
    close(got.squaredNorms, [dot(target, target), dot(rest, rest)], "squared norm");
    close([got.directionSquaredNorm], [dot(target, target)], "‖V‖²");
    expect(got.groupSquaredNorms.length).toBe(0);
    close(
      await flat(into),
      plus(target, rest).map((x) => x + 5),
    );
    // Two target examples, and the same sink again: a pass starts anew.
    const two = alignSink({ examples: 3, direction: { first: 2 } });
    pass(two);
    pass(two);
    const both = plus(alone[0], alone[1]);
    const again = await two.result();
    close(again.dots, [0, 0, dot(alone[2], both)]);
    close([again.directionSquaredNorm], [dot(both, both)]);
    sink.dispose();
    two.dispose();
  });

  it("normSink needs no direction", async () => {
    const sink = normSink({ examples: 3, groups: [0, 3] });
    pass(sink);
    const got = await sink.result();
    close(
      got.squaredNorms,
      alone.map((g) => dot(g, g)),
    );
    const sum = total(alone, size);
    close(got.groupSquaredNorms, [dot(sum, sum)]);
    expect([...got.dots, got.directionSquaredNorm]).toEqual([0, 0, 0, 0]);
    sink.dispose();
  });

  it("a parameter that the loss does not use has zeros in the sum, and its part of the direction counts in ‖V‖²", async () => {
    const unused = tensor([1, 2], [2]);
    const p = tensor([1, 2], [1, 2]);
    const into = new Map([p, unused].map((q) => [q, tensor([9, 9], q.shape)]));
    const v = tensor([3, 4], [2]);
    const sink = alignSink({
      examples: 3,
      direction: { given: (q) => (q === unused ? v : p) },
      total: { gradientOf: (q) => into.get(q)! },
    });
    const x = tensor([1, 0, 0, 1, 1, 1], [3, 2]);
    gradients(() => sum(linear(x, p), 1), { parameters: [p, unused], sink });
    const got = await sink.result();
    close(got.dots, [1, 2, 3]);
    close([got.directionSquaredNorm], [1 + 4 + 9 + 16]);
    expect(await numbers(into.get(unused)!)).toEqual([0, 0]);
    expect(await numbers(into.get(p)!)).toEqual([2, 2]);
    sink.dispose();
  });

  it("a sink keeps no numbers of parameters that only an earlier pass used", async () => {
    const [p, q] = [tensor([1, 2], [1, 2]), tensor([3, -1], [1, 2])];
    const x = tensor([1, 0, 0, 1, 1, 1], [3, 2]);
    const sinkOf = () =>
      alignSink({ examples: 3, groups: [0, 1, 3], direction: { given: (t) => (t === p ? q : p) } });
    const one = (): Tensor => sum(linear(x, p), 1);
    const both = (): Tensor => sum(mul(linear(x, p), linear(x, q)), 1);
    const after = async (losses: readonly (() => Tensor)[]): Promise<Record<string, unknown>> => {
      const sink = sinkOf();
      for (const loss of losses) gradients(loss, { parameters: [p, q], sink });
      const { dots, squaredNorms, groupSquaredNorms, directionSquaredNorm } = await sink.result();
      sink.dispose();
      return { dots, squaredNorms, groupSquaredNorms, directionSquaredNorm };
    };
    expect(await after([both, one])).toEqual(await after([one]));
    expect(await after([one, both])).toEqual(await after([both]));
    expect((await after([one]))["squaredNorms"]).toEqual(Float64Array.of(1, 1, 2));
  });

  it("sums have memory of their own: with any overlap the numbers are right, or the pass is refused", async () => {
    const shapes = { "w.in": [3, 4], bias: [3], "w.out": [2, 3] };
    const names = Object.keys(shapes) as (keyof typeof shapes)[];
    const ROOM = 60;
    /** Where a tensor lies: in memory of its own (null), or at an offset of one block that others may share. */
    const place = fc.option(fc.nat(ROOM - 12), { nil: null });
    const places = fc.record({ "w.in": place, bias: place, "w.out": place });
    const x = tensor(values(20, 1), [5, 4]);
    const run = async (
      [parameters, sums, directions]: readonly Readonly<Record<string, Tensor>>[],
      accumulate: boolean,
    ): Promise<readonly number[][]> => {
      const of = new Map(names.map((name) => [parameters[name], name]));
      const at = (list: Readonly<Record<string, Tensor>>) => (p: Tensor) => list[of.get(p)!];
      const loss = (): Tensor =>
        sum(mul(linear(linear(x, parameters["w.in"], parameters["bias"]), parameters["w.out"]), 0.5), [1]);
      const sink = alignSink({
        examples: 5,
        direction: { given: at(directions) },
        total: { gradientOf: at(sums), accumulate },
      });
      try {
        gradients(loss, { parameters: Object.values(parameters), sink });
        const { dots, squaredNorms, directionSquaredNorm } = await sink.result();
        const written = await Promise.all(names.map((name) => numbers(sums[name])));
        return [[...dots], [...squaredNorms], [directionSquaredNorm], ...written];
      } finally {
        sink.dispose();
      }
    };
    await fc.assert(
      fc.asyncProperty(fc.tuple(places, places, places), fc.boolean(), async (where, accumulate) => {
        const block = tensor(values(ROOM, 2), [ROOM]);
        const contents = await numbers(block);
        let seed = 3;
        const made = where.map((each) =>
          Object.fromEntries(
            names.map((name) => {
              const [shape, offset] = [shapes[name], each[name]];
              const size = shape.reduce((a, b) => a * b);
              return [
                name,
                offset === null ? tensor(values(size, seed++), shape) : block.view(shape, offset),
              ];
            }),
          ),
        );
        const apart: Record<string, Tensor>[] = [];
        for (const each of made) {
          const copies = names.map(async (name) => tensor(await numbers(each[name]), shapes[name]));
          const own = await Promise.all(copies);
          apart.push(Object.fromEntries(names.map((name, i) => [name, own[i]])));
        }
        const wanted = await run(apart, accumulate);
        let found: readonly number[][];
        try {
          found = await run(made, accumulate);
        } catch (error) {
          expect(error).toMatchObject({ code: "autograd" });
          expect(where[1]).not.toEqual({ "w.in": null, bias: null, "w.out": null });
          // A pass also notices that a block with parameters was written to, whichever part of it.
          if (String(error).includes("was overwritten")) return;
          expect(String(error)).toMatch(/total: gradientOf: for parameter .* it returns the memory of /);
          expect(await numbers(block)).toEqual(contents);
          return;
        }
        // Sums that are added up in the same place are those of several parameters.
        const shared = accumulate ? wanted.slice(0, 3) : wanted;
        shared.forEach((want, i) => close(found[i], want, `number ${i}`));
      }),
      { numRuns: 60 },
    );
  });

  it("segments may have one row of one number; a sink that cannot be made holds no memory", async () => {
    const p = tensor([2], [1, 1]);
    const sink = segmentSink({ segments: [0, 1, 1, 3], parameters: [p], examples: 3 });
    gradients(() => sum(linear(tensor([3, 5, 7], [3, 1]), p), 1), { parameters: [p], sink });
    expect(await numbers(sink.result().get(p)!)).toEqual([3, 0, 12]);
    sink.dispose();
    // A parameter of one number that a second pass does not reach.
    const [q, x] = [tensor([4], [1, 1]), tensor([3, 5, 7], [3, 1])];
    const whole = segmentSink({ segments: [0, 3], parameters: [p, q] });
    for (const used of [q, p]) gradients(() => sum(linear(x, used), 1), { parameters: [p, q], sink: whole });
    expect([await numbers(whole.result().get(p)!), await numbers(whole.result().get(q)!)]).toEqual([
      [15],
      [0],
    ]);
    whole.dispose();
    const before = backend.liveBytes;
    const failing = function* (): Generator<Tensor> {
      yield p;
      throw new Error("no more of them");
    };
    expect(() => segmentSink({ segments: [0, 3], parameters: failing() })).toThrow("no more of them");
    expect(backend.liveBytes).toBe(before);
  });

  it.each([
    ["the head", (n: number, last: number) => n === last],
    ["every second parameter", (n: number) => n % 2 === 1],
    ["none", () => false],
    ["all", () => true],
  ] as const)(
    "a split pass measures the chosen parameters only, and sums all of them: %s",
    async (_, chooses) => {
      const last = model.parameters.length - 1;
      const chosen = new Set(model.parameters.filter((_, n) => chooses(n, last)));
      const masked = (vector: Vector): Vector => {
        let at = 0;
        return model.parameters.flatMap((p) => {
          const own = vector.slice(at, (at += p.size));
          return chosen.has(p) ? own : own.map(() => 0);
        });
      };
      for (const checkpointed of [false, true]) {
        const [v, into] = [direction(), buffers()];
        const along = masked(await flat(v));
        const gradientOf = (p: Tensor): Tensor => into.get(p)!;
        const measuring = alignSink({
          examples: 3,
          groups: [0, 2, 3],
          direction: { given: (p) => v.get(p)! },
          total: { gradientOf },
        });
        const rest = sumSink({ gradientOf });
        pass(splitSink(chosen, measuring, rest), checkpointed);
        const own = alone.map(masked);
        const found = await measuring.result();
        close(
          found.dots,
          own.map((g) => dot(g, along)),
        );
        close(
          found.squaredNorms,
          own.map((g) => dot(g, g)),
        );
        close(
          found.groupSquaredNorms,
          [plus(own[0], own[1]), own[2]].map((g) => dot(g, g)),
        );
        close([found.directionSquaredNorm], [dot(along, along)]);
        close(await flat(into), total(alone, size));
        for (const sink of [measuring, rest]) sink.dispose();
      }
    },
  );

  it("segments may leave examples out", async () => {
    const into = buffers();
    const v = direction();
    const along = await flat(v);
    const sink = alignSink({
      examples: 3,
      segments: [1, 2],
      direction: { given: (p) => v.get(p)! },
      total: { gradientOf: (p) => into.get(p)! },
    });
    pass(sink);
    close((await sink.result()).dots, [dot(alone[1], along)]);
    close(await flat(into), alone[1]);
    sink.dispose();
  });

  it("for a parameter that is used twice, sums, segments and inner products with a given direction are right; norms are refused by name", async () => {
    const w = tensor([0.5, -1, 2, 0.25], [2, 2]);
    w.name = "tied";
    const x = tensor(values(12, 9), [3, 2, 2]);
    const targets = tensor([0, 1, 1, -1, 0, 0], [3, 2], "i32");
    const loss = (): Tensor => exampleLosses(linear(linear(x, w), w), targets);
    const run = (sink: GradientSink): Tensor => gradients(loss, { parameters: [w], sink });
    const examples = perExampleSink(3, [w]);
    run(examples);
    const rows = await numbers(examples.result().get(w)!);
    const g = [0, 1, 2].map((s) => rows.slice(s * 4, s * 4 + 4));
    const sums = tensor(new Float64Array(4), [2, 2]);
    run(sumSink({ gradientOf: () => sums }));
    close(await numbers(sums), total(g, 4));
    const v = tensor(values(4, 2), [2, 2]);
    const sink = alignSink({ examples: 3, direction: { given: () => v }, total: { gradientOf: () => sums } });
    run(sink);
    const got = await sink.result();
    const along = await numbers(v);
    close(
      got.dots,
      g.map((row) => dot(row, along)),
    );
    close([got.directionSquaredNorm], [dot(along, along)]);
    close(await numbers(sums), total(g, 4));
    expect(got.groupSquaredNorms.length).toBe(0);
    expect(() => got.squaredNorms).toThrow(/parameter tied is used twice in one pass, so squaredNorms/);
    const first = alignSink({ examples: 3, direction: { first: 1 }, groups: [0, 3] });
    run(first);
    const refused = await first.result();
    for (const field of ["dots", "squaredNorms", "groupSquaredNorms", "directionSquaredNorm"] as const)
      expect(() => refused[field]).toThrow(GradmixError);
    for (const s of [examples, sink, first]) s.dispose();
  });

  // Many rows, which are summed in parts; and few.
  it.each([600, 2])(
    "sums of vectors that are adjacent in memory are finished together: %i rows per example, in every order, with gaps, one unused, one used twice",
    async (T) => {
      const widths = [3, 4, 5];
      const biases = widths.map((width, n) => tensor(values(width, n), [width]));
      const [x, w] = [tensor(new Float64Array(3 * T), [3, T, 1]), tensor([0], [1, 1])];
      const factors = widths.map((width, n) => values(3 * T * width, 10 + n));
      // The gradient of an example's loss is the sum of the factor's rows.
      const lossOf = (n: number): Tensor => {
        const weight = tensor(new Float64Array(widths[n]), [widths[n], 1]);
        return sum(mul(linear(x, weight, biases[n]), tensor(factors[n], [3, T, widths[n]])), [1, 2]);
      };
      const rowsOf = (n: number, times: number): Vector[] =>
        [0, 1, 2].map((s) =>
          Array.from({ length: widths[n] }, (_, j) => {
            let g = 0;
            for (let t = 0; t < T; t++) g += factors[n][(s * T + t) * widths[n] + j];
            return times * g;
          }),
        );
      /** Views of one tensor of `fill`, the next from each offset on. */
      const placed = (offsets: readonly number[], fill: (i: number) => number) => {
        const arena = tensor(
          Float64Array.from({ length: 20 }, (_, i) => fill(i)),
          [20],
        );
        return { arena, of: new Map(biases.map((b, n) => [b, arena.view([widths[n]], offsets[n])])) };
      };
      for (const offsets of [
        [0, 3, 7],
        [9, 5, 0],
        [1, 5, 15],
      ])
        for (const times of [
          [1, 1, 1],
          [1, 0, 1],
          [1, 2, 1],
          [0, 0, 1],
        ]) {
          const loss = (): Tensor =>
            times
              .flatMap((count, n) => new Array<number>(count).fill(n))
              .map(lossOf)
              .reduce(add, sum(linear(x, w), [1, 2]));
          const v = placed(offsets, (i) => Math.sin(i));
          const [summed, aligned] = [placed(offsets, () => 7), placed(offsets, () => 7)];
          const run = (sink: GradientSink): Tensor => gradients(loss, { parameters: biases, sink });
          const ends = sumSink({ gradientOf: (p) => summed.of.get(p)! });
          run(ends);
          const sink = alignSink({
            examples: 3,
            groups: [0, 2, 3],
            direction: { given: (p) => v.of.get(p)! },
            total: { gradientOf: (p) => aligned.of.get(p)! },
          });
          run(sink);
          const first = alignSink({ examples: 3, direction: { first: 1 } });
          run(first);
          const wanted = new Array<number>(20).fill(7);
          const g: Vector[] = [[], [], []];
          const along: Vector = [];
          biases.forEach((_, n) => {
            const rows = rowsOf(n, times[n]);
            const own = total(rows, widths[n]);
            own.forEach((value, j) => (wanted[offsets[n] + j] = value));
            rows.forEach((row, s) => g[s].push(...row));
            for (let j = 0; j < widths[n]; j++) along.push(Math.sin(offsets[n] + j));
          });
          const scale = T;
          const near = (got: ArrayLike<number>, want: readonly number[], what: string): void =>
            close(
              Array.from(got, (value) => value / scale),
              want.map((value) => value / scale),
              `${what}, ${offsets.join()}, ${times.join()}:`,
            );
          for (const { arena } of [summed, aligned]) near(await numbers(arena), wanted, "sum");
          const got = await sink.result();
          near(
            got.dots,
            g.map((row) => dot(row, along)),
            "dot",
          );
          near([got.directionSquaredNorm], [dot(along, along)], "‖V‖²");
          const byTarget = await first.result();
          if (!times.includes(2)) {
            near(
              got.squaredNorms,
              g.map((row) => dot(row, row)),
              "norm",
            );
            const both = plus(g[0], g[1]);
            near(got.groupSquaredNorms, [dot(both, both), dot(g[2], g[2])], "group");
            near(byTarget.dots, [0, dot(g[1], g[0]), dot(g[2], g[0])], "dot with the first");
          } else expect(() => got.squaredNorms).toThrow(/is used twice in one pass/);
          for (const s of [ends, sink, first]) s.dispose();
        }
    },
  );

  it("50 passes with every sink leave no memory in use", async () => {
    const v = direction();
    const into = buffers();
    // Tensors of earlier tests must not be freed during the measurement.
    await garbageCollected();
    const before = backend.liveBytes;
    let peak = 0;
    for (let step = 0; step < 50; step++) {
      const given = alignSink({
        examples: 3,
        groups: [0, 1, 3],
        direction: { given: (p) => v.get(p)! },
        total: { gradientOf: (p) => into.get(p)! },
      });
      const first = alignSink({ examples: 3, direction: { first: 1 } });
      const segments = perExampleSink(3, model.parameters);
      for (const sink of [given, first, segments]) {
        pass(sink, step % 2 === 0).dispose();
      }
      await Promise.all([given.result(), first.result()]);
      for (const sink of [given, first, segments]) sink.dispose();
      expect(backend.liveBytes).toBe(before);
      if (step === 1) peak = backend.peakBytes;
    }
    expect(backend.peakBytes).toBe(peak);
  });

  // The examples of a table are single rows, so that a bias's gradient by example is dy itself.
  it.each([
    ["one row per segment", [0, 1, 2, 3, 4, 5], { given: true }],
    ["one row per segment, and the direction the first two", [0, 1, 2, 3, 4, 5], { given: false }],
    ["as many segments as rows, with empty and longer ones", [0, 2, 2, 3, 3, 5], { given: true }],
    ["the rows from the first on", [0, 1, 2, 3], { given: true }],
  ] as const)("a bias that is used in one row per example: %s", async (_, segments, { given }) => {
    const examples = segments.at(-1)!;
    const wave = (n: number, by: number): number[] =>
      Array.from({ length: n }, (_, i) => Math.sin(by * (i + 1)));
    const [inner, out] = [3, 4];
    const [weightValues, biasValues] = [wave(out * inner, 0.7), wave(out, 1.3)];
    const parameters = [tensor(weightValues, [out, inner]), tensor(biasValues, [out])];
    const [weight, bias] = parameters;
    const [xs, ys] = [wave(examples * inner, 0.37), wave(examples * out, 0.91)];
    const [x, y] = [tensor(xs, [examples, inner]), tensor(ys, [examples, out])];
    const [v, vb] = [wave(out * inner, 2.1), wave(out, 3.3)];
    const along = new Map(parameters.map((p, i) => [p, tensor([v, vb][i], p.shape)]));
    const into = new Map(parameters.map((p) => [p, tensor(new Array<number>(p.size).fill(2), p.shape)]));
    const from = 1;
    const sink = alignSink({
      examples,
      segments,
      groups: [0, 2, segments.length - 1],
      direction: given ? { given: (p) => along.get(p)! } : { first: 2 },
      total: { gradientOf: (p) => into.get(p)!, accumulate: true, from },
    });
    // The derivative of Σ h²/2 + h·y with respect to h is h + y.
    gradients(
      () => {
        const h = linear(x, weight, bias);
        return sum(add(mul(mul(h, h), 0.5), mul(h, y)), [1]);
      },
      { parameters, sink },
    );
    const ofExample = Array.from({ length: examples }, (_, b) => {
      const row = xs.slice(b * inner, (b + 1) * inner);
      const dy = biasValues.map(
        (own, o) => own + dot(row, weightValues.slice(o * inner, (o + 1) * inner)) + ys[b * out + o],
      );
      return [...dy.flatMap((d) => row.map((value) => d * value)), ...dy];
    });
    const length = out * inner + out;
    const bySegment = segments.slice(1).map((end, s) => total(ofExample.slice(segments[s], end), length));
    const direction = given ? [...v, ...vb] : total(bySegment.slice(0, 2), length);
    const found = await sink.result();
    close(
      found.dots,
      bySegment.map((g, s) => (!given && s < 2 ? 0 : dot(g, direction))),
      "dot",
    );
    close(
      found.squaredNorms,
      bySegment.map((g) => dot(g, g)),
      "squared norm",
    );
    const grouped = [bySegment.slice(0, 2), bySegment.slice(2)].map((part) => total(part, length));
    close(
      found.groupSquaredNorms,
      grouped.map((g) => dot(g, g)),
      "group",
    );
    close([found.directionSquaredNorm], [dot(direction, direction)]);
    const sums = (await Promise.all(parameters.map((p) => numbers(into.get(p)!)))).flat();
    close(
      sums,
      total(bySegment.slice(from), length).map((value) => value + 2),
      "total",
    );
    sink.dispose();
  });
});

it.each([false, true])(
  "a split sink distinguishes examples only of the chosen parameters (checkpointed: %s)",
  async (checkpointed) => {
    setCurrentMemory(createReferenceBackend({ precision: "f64" }));
    const [w, gate] = [tensor(values(6, 1), [2, 3]), tensor([1.5])];
    const x = tensor(values(9, 2), [3, 3]);
    // The gate multiplies, and the mean of gated data is added to every example.
    const layer = (t: Tensor): Tensor => add(mul(linear(t, w), gate), mean(mul(t, gate)));
    const loss = (): Tensor => sum(square(checkpointed ? checkpoint(layer, x) : layer(x)), 1);
    const [into, along] = [
      new Map([w, gate].map((p) => [p, tensor(new Float32Array(p.size), p.shape)])),
      tensor(values(6, 3), [2, 3]),
    ];
    const total = { gradientOf: (p: Tensor) => into.get(p)! };
    const measuring = alignSink({ examples: 3, direction: { given: () => along }, total });
    const sink = splitSink(new Set([w]), measuring, sumSink(total));
    gradients(loss, { parameters: [w, gate], sink });
    const { dots } = await measuring.result();
    const direction = await numbers(along);
    for (const [b, found] of dots.entries()) {
      const [own] = grad((p) =>
        slice(sum(square(add(mul(linear(x, p), gate), mean(mul(x, gate)))), 1), [b], [1]),
      )(w);
      expect(Math.abs(found - dot(await numbers(own), direction))).toBeLessThan(1e-12);
    }
    const whole = grad((p, g) => sum(square(add(mul(linear(x, p), g), mean(mul(x, g))))))(w, gate);
    for (const [i, p] of [w, gate].entries())
      for (const [n, value] of (await numbers(into.get(p)!)).entries())
        expect(Math.abs(value - (await numbers(whole[i]))[n])).toBeLessThan(1e-10);
    // All of them, and mixing above the chosen one, are refused as before.
    const refused = (run: () => unknown): void =>
      expect(run).toThrow(/no per-example rule|mixes the examples/);
    refused(() =>
      gradients(loss, { parameters: [w, gate], sink: alignSink({ examples: 3, direction: null }) }),
    );
    refused(() => gradients(() => mul(loss(), mean(loss())), { parameters: [w, gate], sink }));
  },
);

describe("what a sink is given, and when it has a result", () => {
  beforeEach(() => void setCurrentMemory(createReferenceBackend({ precision: "f64" })));
  const w = (): Tensor => tensor(values(6, 1), [2, 3]);
  const x = (rows: number): Tensor => tensor(values(3 * rows, rows), [rows, 3]);
  const losses =
    (parameter: Tensor, rows = 2) =>
    (): Tensor =>
      sum(linear(x(rows), parameter), 1);
  const message = async (call: () => unknown): Promise<string> => {
    try {
      await call();
      return "no error";
    } catch (error) {
      return error instanceof GradmixError ? `${error.code}: ${error.message}` : String(error);
    }
  };
  const zerosLike = (t: Tensor): Tensor => tensor(new Float32Array(t.size), t.shape);

  it.each<[string, (parameter: Tensor) => GradientSink & { result(): unknown }]>([
    ["alignSink", () => alignSink({ examples: 2, direction: null })],
    ["normSink", () => normSink({ examples: 2 })],
    ["segmentSink", (parameter) => perExampleSink(2, [parameter])],
    ["sketchSink", (parameter) => sketchSink({ segments: [0, 1, 2], parameters: [parameter], rank: 2 })],
  ])(
    "%s has no result before a pass, after one that failed, and after it was disposed",
    async (name, make) => {
      const parameter = w();
      const sink = make(parameter);
      const none = new RegExp(`^autograd: ${name}: result: there is no result`);
      const run = (loss: () => Tensor): unknown => gradients(loss, { parameters: [parameter], sink });
      expect(await message(() => sink.result())).toMatch(none);
      run(losses(parameter));
      expect(await message(() => sink.result())).toBe("no error");
      // Of another size, and one that fails in the middle of the backward pass.
      expect(await message(() => run(losses(parameter, 3)))).toMatch(/^shape: /);
      expect(await message(() => sink.result())).toMatch(none);
      run(losses(parameter));
      const broken = customGradient((t: Tensor) => mul(t, 2), () => { throw new Error("broken"); }, undefined, { keepsBatch: "rows" }); // prettier-ignore
      const half = (): Tensor =>
        sum(linear(broken(linear(x(2), parameter)), tensor(values(4, 2), [2, 2])), 1);
      expect(await message(() => run(half))).toMatch(/broken/);
      expect(await message(() => sink.result())).toMatch(none);
      run(losses(parameter));
      expect(await message(() => sink.result())).toBe("no error");
      Reflect.get(sink, "dispose").call(sink);
      const disposed = `disposed: ${name}: the sink was disposed; make a new one`;
      expect(await message(() => sink.result())).toBe(disposed);
      expect(await message(() => run(losses(parameter)))).toBe(disposed);
    },
  );

  it("the result of alignSink is plain values; with tied weights, fields that are invalid throw, and the others can be copied and printed", async () => {
    const parameter = w();
    parameter.name = "w";
    const sink = alignSink({ examples: 2, groups: [0, 2], direction: { given: zerosLike } });
    gradients(losses(parameter), { parameters: [parameter], sink });
    const plain = await sink.result();
    const fields = ["dots", "squaredNorms", "groupSquaredNorms", "directionSquaredNorm", "tied"];
    expect(Object.keys(plain)).toEqual(fields);
    for (const { get } of Object.values(Object.getOwnPropertyDescriptors(plain))) expect(get).toBeUndefined();
    const twice = (): Tensor => add(losses(parameter)(), losses(parameter)());
    gradients(twice, { parameters: [parameter], sink });
    const tied = await sink.result();
    const copy = { ...tied };
    expect(Object.keys(copy)).toEqual(["dots", "directionSquaredNorm", "tied"]);
    expect(copy.tied).toBe("w");
    expect(JSON.parse(JSON.stringify(tied))).toMatchObject({ directionSquaredNorm: 0, tied: "w" });
    expect(inspect(tied)).toContain("tied: 'w'");
    for (const read of [() => tied.squaredNorms, () => tied.groupSquaredNorms])
      expect(await message(read)).toMatch(/^autograd: alignSink: parameter w is used twice/);
    const first = alignSink({ examples: 2, direction: { first: 1 } });
    gradients(twice, { parameters: [parameter], sink: first });
    const fromTarget = await first.result();
    expect(Object.keys(fromTarget)).toEqual(["groupSquaredNorms", "tied"]);
    for (const read of [() => fromTarget.dots, () => fromTarget.directionSquaredNorm])
      expect(await message(read)).toMatch(/^autograd: alignSink: parameter w is used twice/);
  });

  it.each([1e39, -1e39, Infinity, NaN])(
    "the weight %d is refused, since f32 does not hold it",
    async (weight) => {
      const parameter = w();
      const sink = sumSink({ gradientOf: () => zerosLike(parameter) });
      const run = (weights: number[]): unknown =>
        gradients(losses(parameter), { parameters: [parameter], sink, weights });
      expect(await message(() => run([1, weight]))).toMatch(/^config: gradients: weights: 1: /);
      expect(await message(() => run([3.4e38, -3.4e38]))).toBe("no error");
    },
  );

  it.each(["3", 2.5, 1e9, NaN, -1, null])("%j is no number of examples", async (bad) => {
    const examples = bad as number;
    expect(await message(() => perExampleSink(examples, [w()]))).toMatch(
      /^config: perExampleSink: examples: /,
    );
    expect(await message(() => alignSink({ examples, direction: null }))).toMatch(
      /^config: (alignSink: )?examples: /,
    );
  });

  it("a result that was asked for before the next pass began is that of its own pass", async () => {
    const [first, second] = [w(), tensor(values(4, 2), [2, 2])];
    const parameters = [first, second];
    const align = alignSink({ examples: 2, direction: { given: (p) => p } });
    const sketch = sketchSink({ segments: [0, 1, 2], parameters, rank: 2 });
    const run = (sink: GradientSink, scale: number): void =>
      void gradients(() => mul(sum(linear(linear(x(2), first), second), 1), scale), { parameters, sink });
    for (const [sink, read] of [
      [align, async () => Array.from((await align.result()).dots)],
      [sketch, async () => Array.from(await sketch.result())],
    ] as const) {
      run(sink, 1);
      const alone = await read();
      const before = read();
      run(sink, 100);
      expect(await before).toEqual(alone);
      expect(await read()).not.toEqual(alone);
    }
  });

  it.each([
    ["undefined", () => undefined, "is undefined, not a tensor"],
    [
      "of the transposed shape",
      () => tensor(new Float32Array(6), [3, 2]),
      "is f32[3, 2]; f32[2, 3] is needed",
    ],
    ["of integers", () => tensor(new Int32Array(6), [2, 3]), "is i32[2, 3]; f32[2, 3] is needed"],
  ])("a gradient or a direction %s is refused, with the parameter's name", async (_, wrong, want) => {
    const parameter = w();
    parameter.name = "w";
    const of = wrong as unknown as (p: Tensor) => Tensor;
    const run = (sink: GradientSink): Promise<string> =>
      message(() => gradients(losses(parameter), { parameters: [parameter], sink }));
    expect(await run(sumSink({ gradientOf: of }))).toBe(
      `shape: sumSink: what gradientOf returns for w ${want}`,
    );
    expect(await run(alignSink({ examples: 2, direction: { given: of } }))).toBe(
      `shape: alignSink: what direction.given returns for w ${want}`,
    );
    const total = { gradientOf: of };
    expect(await run(alignSink({ examples: 2, direction: { given: zerosLike }, total }))).toBe(
      `shape: alignSink: what gradientOf returns for w ${want}`,
    );
  });

  it("segments may be changed after the sink was made", async () => {
    const parameter = w();
    for (const make of [segmentSink, sketchSink]) {
      const segments = [0, 1, 2];
      const sink = make({ segments, parameters: [parameter] });
      segments[1] = 2;
      gradients(losses(parameter), { parameters: [parameter], sink });
      const result = await sink.result();
      const found = result instanceof Float32Array ? result : await result.get(parameter)?.data();
      expect(Array.from(found ?? []).some((value) => value === 0)).toBe(false);
    }
  });
});

describe("refusals", () => {
  let p: Tensor;
  beforeEach(() => {
    setCurrentMemory(createReferenceBackend());
    p = tensor([1, 2, 3, 4], [2, 2]);
    p.name = "w";
  });
  const x = (): Tensor => tensor([1, 2, 3, 4, 5, 6], [3, 2]);
  const run = (loss: () => Tensor, sink: GradientSink): Tensor => gradients(loss, { parameters: [p], sink });

  it("an op without a per-example rule is named, with the parameter", () => {
    const loss = (): Tensor => sum(linear(x(), mul(p, 2)), 1);
    for (const sink of [perExampleSink(3, [p]), alignSink({ examples: 3, direction: null })])
      expect(() => run(loss, sink)).toThrow(/parameter w is used by affine, which has no per-example rule/);
  });

  it("options that do not fit together", () => {
    const options =
      (o: object): (() => unknown) =>
      () =>
        alignSink({ examples: 3, direction: null, ...o });
    expect(options({ segments: [0, 4] })).toThrow(
      /^alignSink: segments is \[0, 4\]; it must be two or more whole numbers of at least 0, none smaller than the one before and none above 3/,
    );
    expect(options({ segments: [0, 2, 1] })).toThrow(/none smaller than the one before/);
    expect(options({ segments: [0] })).toThrow(/it must be two or more whole numbers/);
    expect(options({ groups: [0, 4] })).toThrow(/groups is \[0, 4\]/);
    expect(() => normSink({ examples: 3, segments: [0] })).toThrow(/^normSink: segments is \[0\];/);
    expect(options({ direction: { first: 4 } })).toThrow(/direction.first is 4; there are only 3 segments/);
    expect(options({ total: { gradientOf: () => p, from: -1 } })).toThrow(/total: from: -1/);
    expect(() => segmentSink({ segments: [1, 0.5], parameters: [] })).toThrow(GradmixError);
  });

  it("weights that are not finite", () => {
    const loss = (): Tensor => sum(linear(x(), p), 1);
    const sums = sumSink({ gradientOf: () => tensor([0, 0, 0, 0], [2, 2]) });
    for (const bad of [NaN, Infinity, -Infinity, "1", null])
      expect(() => gradients(loss, { parameters: [p], sink: sums, weights: [1, bad as number, 1] })).toThrow(
        /gradients: weights: 1: .* does not fit; it must be a finite number that f32 holds/,
      );
  });

  it("a batch of another size, and a parameter that the sink does not know", () => {
    const loss = (): Tensor => sum(linear(x(), p), 1);
    expect(() => run(loss, alignSink({ examples: 2, direction: null }))).toThrow(
      /the batch has 3 examples, the sink was made for 2/,
    );
    expect(() => run(loss, perExampleSink(4, [p]))).toThrow(/the batch has 3 examples/);
    expect(() => run(loss, perExampleSink(3, []))).toThrow(/w is not one of the sink's parameters/);
    // Ids without a batch axis would mix the examples.
    const places = tensor([0, 1], [2], "i32");
    const mixed = (): Tensor => sum(linear(x(), embedding(p, places)), 1);
    expect(() => run(mixed, alignSink({ examples: 3, direction: null }))).toThrow(
      /linear \(\[2, 2\] → \[3, 2\]\) mixes the examples along axis 0/,
    );
  });
});
