/** Shares of whole numbers, exactly: a share is the decimal that it is written as, not the binary fraction next to it. */

/**
 * ⌊n·share⌋ or, "up", ⌈n·share⌉, for an integer n ≥ 0 and a finite share ≥ 0. In doubles 1000·(1 − 0.9) is just below 100.
 */
export function timesShare(n: number, share: number, round: "down" | "up"): number {
  const [digits, exponent = "0"] = String(share).split("e");
  const [whole, fraction = ""] = digits.split(".");
  // share = numerator / denominator
  const power = Number(exponent) - fraction.length;
  const numerator = BigInt(whole + fraction) * 10n ** BigInt(Math.max(0, power));
  const denominator = 10n ** BigInt(Math.max(0, -power));
  const product = BigInt(n) * numerator;
  return Number((round === "down" ? product : product + denominator - 1n) / denominator);
}
