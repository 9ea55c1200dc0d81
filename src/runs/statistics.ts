/** Means with their standard errors and intervals: pure functions of numbers. */

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The variance with n − 1 as the divisor; NaN for fewer than two values. */
export function variance(values: readonly number[]): number {
  const centre = mean(values);
  return values.length < 2
    ? NaN
    : values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1);
}

/** A mean with its standard error and half the width of its 95 % interval, both null for a single value. */
export interface Interval {
  readonly mean: number;
  readonly standardError: number | null;
  readonly half: number | null;
  readonly count: number;
}

/** Student's interval for the mean of independent normal numbers. The mean of no numbers is NaN. */
export function interval(values: readonly number[]): Interval {
  const count = values.length;
  if (count < 2) return { mean: mean(values), standardError: null, half: null, count };
  const standardError = Math.sqrt(variance(values) / count);
  return {
    mean: mean(values),
    standardError,
    half: studentQuantile(0.975, count - 1) * standardError,
    count,
  };
}

/** The quantile of Student's t with `freedom` degrees of freedom: the x with P(t ≤ x) = p, ½ ≤ p < 1. Accurate to 1e-10. */
export function studentQuantile(p: number, freedom: number): number {
  // P(T > x) = ½·I_{ν/(ν+x²)}(ν/2, ½), which decreases in x.
  const upperTail = (x: number): number => incompleteBeta(freedom / (freedom + x * x), freedom / 2, 0.5) / 2;
  let [low, high] = [0, 1];
  while (upperTail(high) > 1 - p) high *= 2;
  for (let i = 0; i < 200 && high - low > 1e-12 * high; i++) {
    const middle = (low + high) / 2;
    if (upperTail(middle) > 1 - p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** I_x(a, b), the regularised incomplete beta function, by Lentz's continued fraction (Numerical Recipes 6.4). */
function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The continued fraction converges fast for x below (a + 1)/(a + b + 2).
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const tiny = 1e-300;
  const away = (value: number): number => (Math.abs(value) < tiny ? tiny : value);
  let c = 1;
  let d = 1 / away(1 - ((a + b) * x) / (a + 1));
  let fraction = d;
  for (let m = 1; m < 1000; m++) {
    for (const term of [
      (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)),
      (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1)),
    ]) {
      d = 1 / away(1 + term * d);
      c = away(1 + term / c);
      fraction *= c * d;
    }
    if (Math.abs(c * d - 1) < 1e-15) break;
  }
  const front = logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x);
  return (Math.exp(front) * fraction) / a;
}

/** ln Γ(x) for x > 0: Stirling's series, after the recurrence has raised x above 10. */
function logGamma(x: number): number {
  let shift = 0;
  while (x < 10) shift -= Math.log(x++);
  const square = 1 / (x * x);
  const series =
    (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))) / x;
  return shift + (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series;
}
