/** Comparisons of numbers with relative tolerances, so that a test requires the same digits at any scale. */
import { expect } from "vitest";

/**
 * Checks |got − want| ≤ tolerance·scale for every number. The scale is |want|, or for a list the largest |want|. If the wanted number is a sum that
 * cancels, give the size of its terms as the scale. A missing number is not near to any.
 */
export function expectNear(
  got: number | ArrayLike<number> | null | undefined,
  want: number | ArrayLike<number>,
  tolerance: number,
  scale?: number,
): void {
  const [found, wanted] = [got ?? NaN, want].map((x) => (typeof x === "number" ? [x] : Array.from(x)));
  expect(found.length).toBe(wanted.length);
  const size = scale ?? Math.max(0, ...wanted.map(Math.abs));
  wanted.forEach((x, i) => {
    const difference = Math.abs(found[i] - x);
    // Doubles below this have fewer digits.
    if (!(difference <= Math.max(tolerance * size, 1e-300)))
      expect.fail(
        `${wanted.length > 1 ? `number ${i} is ` : ""}${found[i]}, not ${x}: off by ${(difference / size).toPrecision(3)}, with ${tolerance} allowed`,
      );
  });
}
