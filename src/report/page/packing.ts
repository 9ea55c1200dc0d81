/** Packs lists of numbers into text, for JSON: written in Node, read on the page. */

/**
 * 16-bit codes of weights: 0 means unknown, 1 means zero, and codes from 2 on are logarithms from `LEAST` to 1 at equal distances, so that the error
 * is less than 0.02 %.
 */
const LEAST = 1e-9;
const CODES = 65_533;

export function packFloats(values: readonly number[]): string {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, i) => view.setFloat32(i * 4, value, true));
  return toBase64(new Uint8Array(view.buffer));
}

export function unpackFloats(text: string): number[] {
  const view = viewOf(text);
  return Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(i * 4, true));
}

/** Packs weights from 0 to 1; NaN means unknown. Positive weights below 1e-9 become 1e-9. */
export function packWeights(values: readonly number[]): string {
  const view = new DataView(new ArrayBuffer(values.length * 2));
  values.forEach((value, i) => view.setUint16(i * 2, codeOf(value), true));
  return toBase64(new Uint8Array(view.buffer));
}

export function unpackWeights(text: string): number[] {
  const view = viewOf(text);
  return Array.from({ length: view.byteLength / 2 }, (_, i) => {
    const code = view.getUint16(i * 2, true);
    return code === 0 ? NaN : code === 1 ? 0 : LEAST ** (1 - (code - 2) / CODES);
  });
}

function codeOf(weight: number): number {
  if (Number.isNaN(weight)) return 0;
  if (weight <= 0) return 1;
  const share = 1 - Math.log(Math.min(1, Math.max(LEAST, weight))) / Math.log(LEAST);
  return 2 + Math.round(share * CODES);
}

function toBase64(bytes: Uint8Array): string {
  let text = "";
  // In parts, because the number of arguments is limited.
  for (let at = 0; at < bytes.length; at += 0x8000)
    text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

function viewOf(text: string): DataView {
  const found = atob(text);
  return new DataView(Uint8Array.from(found, (letter) => letter.charCodeAt(0)).buffer);
}
