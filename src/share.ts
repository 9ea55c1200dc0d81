/** Exact shares of whole numbers. A share means the decimal number that it is written as, not the binary fraction that is nearest to it. */

/**
 * n·share as a whole number: rounded down, up, or to the nearest whole number (halves are rounded down). n must be an integer ≥ 0, and `share` finite and
 * ≥ 0. In doubles 1000·(1 − 0.9) is slightly less than 100, so its floor would be 99.
 */
export function timesShare(n: number, share: number, round: "down" | "nearest" | "up"): number {
  const [digits = "", exponent = "0"] = String(share).split("e");
  const [whole, fraction = ""] = digits.split(".");
  // share = numerator / denominator
  const power = Number(exponent) - fraction.length;
  const numerator = BigInt(whole + fraction) * 10n ** BigInt(Math.max(0, power));
  const denominator = 10n ** BigInt(Math.max(0, -power));
  const product = BigInt(n) * numerator;
  switch (round) {
    case "down":
      return Number(product / denominator);
    case "nearest":
      return Number((2n * product + denominator - 1n) / (2n * denominator));
    case "up":
      return Number((product + denominator - 1n) / denominator);
  }
}
