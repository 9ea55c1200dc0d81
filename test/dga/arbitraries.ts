/** Random weights, alignments and signals for the tests of the mixture. */
import { GradmixError } from "#dist/errors.js";
import { normalise, type Signal } from "#dist/dga/index.js";
import fc from "fast-check";

export const names = (k: number): string[] => Array.from({ length: k }, (_, i) => `domain${i}`);

/** Points of the simplex: ordinary ones, vertices, faces, and weights down to 1e-300. */
export function simplexPoint(k: number, options: { positive?: boolean } = {}): fc.Arbitrary<Float64Array> {
  const exponent = fc.double({ min: -300, max: 0, noNaN: true }).map((e) => 10 ** e);
  const ordinary = fc.double({ min: 1e-3, max: 1, noNaN: true });
  const weight = options.positive
    ? fc.oneof({ weight: 3, arbitrary: ordinary }, exponent)
    : fc.oneof({ weight: 3, arbitrary: ordinary }, exponent, fc.constant(0));
  return fc
    .tuple(fc.nat(k - 1), fc.array(weight, { minLength: k, maxLength: k }))
    .map(([sure, values]) =>
      normalise(values.map((value, i) => (i === sure ? Math.max(value, 0.1) : value))),
    );
}

/** Alignments: mostly of order 1, some tiny, some up to 1e30, some equal. */
export function alignments(k: number): fc.Arbitrary<number[]> {
  const magnitude = fc
    .tuple(fc.double({ min: -30, max: 30, noNaN: true }), fc.boolean())
    .map(([e, minus]) => (minus ? -1 : 1) * 10 ** e);
  const one = fc.oneof(
    { weight: 4, arbitrary: fc.double({ min: -3, max: 3, noNaN: true }) },
    magnitude,
    fc.constantFrom(0, 1, -1e30, 1e30),
  );
  return fc.array(one, { minLength: k, maxLength: k });
}

/** Everything that a built-in rule can ask for. */
export function signal(
  k: number,
): fc.Arbitrary<Required<Pick<Signal, "alignments" | "norms" | "targetNorm">>> {
  const norm = fc.oneof(fc.double({ min: 0, max: 10, noNaN: true }), fc.constantFrom(0, 1, 1e-300, 1e15));
  return fc.record({
    alignments: alignments(k),
    norms: fc.array(norm, { minLength: k, maxLength: k }),
    targetNorm: norm,
  });
}

export function errorOf(fn: () => unknown): GradmixError {
  try {
    fn();
  } catch (error) {
    if (error instanceof GradmixError) {
      if (error.message.includes("\n"))
        throw new Error(`more than one line: ${error.message}`, { cause: error });
      return error;
    }
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** A small fast generator for tests that need many numbers (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function gaussian(next: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}
