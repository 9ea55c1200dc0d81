/** Weights as decimals whose printed values sum to exactly 1. */

/** Number of digits after the point. */
const DIGITS = { min: 6, max: 9 } as const;

/** Weights below this would print as 0 and are left out. */
export const SMALLEST_SHARE: number = 10 ** -DIGITS.max;

/**
 * Plain decimals of positive weights that sum to 1: with 6 to 9 digits after the point, if possible enough for three significant digits of the
 * smallest weight. Rounding down leaves a remainder, which goes to the weights with the largest fractions (Hamilton's method), so each decimal is off
 * by less than one unit of its last digit, and none prints as 0.
 */
export function decimalsOf(weights: readonly number[]): string[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const shares = weights.map((weight) => weight / total);
  const least = Math.min(...shares);
  let digits: number = DIGITS.min;
  while (digits < DIGITS.max && least * 10 ** digits < 100) digits++;
  const scale = 10 ** digits;
  const units = shares.map((share) => Math.max(1, Math.floor(share * scale)));
  let rest = scale - units.reduce((sum, unit) => sum + unit, 0);
  const remainder = (i: number): number => shares[i]! * scale - units[i]!;
  // Different weights may have equal shares because of rounding.
  const order = [...shares.keys()].sort(
    (i, j) => remainder(j) - remainder(i) || weights[j]! - weights[i]! || i - j,
  );
  // What was added to raise weights to one unit is subtracted where rounding up added most, that is where the fraction is smallest.
  for (let turn = 0; rest !== 0; turn = (turn + 1) % order.length) {
    const i = rest > 0 ? order[turn]! : order[order.length - 1 - turn]!;
    if (rest < 0 && units[i] === 1) continue;
    units[i]! += Math.sign(rest);
    rest -= Math.sign(rest);
  }
  return units.map((unit) => decimal(unit, digits));
}

/** Divides a whole number of equal parts in proportion to the weights: each gets its whole parts, and what is left goes to the largest fractions (Hamilton's method). */
export function wholeParts(weights: readonly number[], parts: number): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const exact = weights.map((weight) => (weight / total) * parts);
  const counts = exact.map(Math.floor);
  const left = parts - counts.reduce((sum, count) => sum + count, 0);
  const order = [...exact.keys()].sort((i, j) => exact[j]! - counts[j]! - (exact[i]! - counts[i]!) || i - j);
  for (const i of order.slice(0, left)) counts[i]!++;
  return counts;
}

/** unit · 10^−digits without trailing zeros: "0.25", "1.0". */
function decimal(unit: number, digits: number): string {
  const text = String(unit).padStart(digits + 1, "0");
  const fraction = text.slice(-digits).replace(/0+$/, "");
  return `${text.slice(0, -digits)}.${fraction === "" ? "0" : fraction}`;
}

/** A positive number with six significant digits and without an exponent: "0.00012", "2.5", "1200". */
export function plainDecimal(value: number): string {
  const digits = Math.min(20, Math.max(0, 5 - Math.floor(Math.log10(value))));
  const text = value.toFixed(digits);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}
