/** Formats numbers for people, on the page and in the text beside it. */

const units: readonly (readonly [number, string])[] = [
  [1e12, "T"],
  [1e9, "B"],
  [1e6, "M"],
  [1e3, "k"],
];

/** Three significant digits with a unit: 51.2k, 1.23M. */
export function formatCount(value: number): string {
  for (const [size, unit] of units)
    // A value that would round to 1,000 takes the next unit.
    if (Math.abs(value) >= size * 0.9995) return `${significant(value / size, 3)}${unit}`;
  return significant(value, 3);
}

/** A number with this many significant digits, without trailing zeros, and without an exponent if it is written in full otherwise. */
export function significant(value: number, digits: number): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size < 1e-6 || size >= 1e9) return minus(value.toExponential(digits - 1));
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  const text = value.toFixed(Math.min(places, 12));
  return minus(text.includes(".") ? text.replace(/\.?0+$/, "") : text);
}

/** A loss with enough digits to distinguish runs: 2.872. */
export function formatLoss(value: number): string {
  return minus(value.toFixed(3));
}

/** A share as per cent: 12.3 %, 0.45 %, below 0.01 % "<0.01 %". */
export function formatShare(value: number): string {
  const percent = value * 100;
  if (percent === 0) return "0 %";
  if (Math.abs(percent) < 0.01) return "<0.01 %";
  return `${minus(percent.toFixed(Math.abs(percent) < 1 ? 2 : 1))} %`;
}

/** A ratio: ×1.25, ×0.08. */
export function formatTimes(value: number): string {
  return `×${significant(value, 3)}`;
}

/** A duration: 42 s, 3 min 05 s, 2 h 04 min. */
export function formatSeconds(seconds: number): string {
  const rounded = Math.round(seconds);
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (rounded < 60) return `${rounded} s`;
  const two = (n: number): string => String(n).padStart(2, "0");
  if (rounded < 3600) return `${Math.floor(rounded / 60)} min ${two(rounded % 60)} s`;
  return `${Math.floor(rounded / 3600)} h ${two(Math.floor((rounded % 3600) / 60))} min`;
}

function minus(text: string): string {
  return text.replace("-", "−");
}
