/** Sketches of gradients that a trainer sends: base64 of little-endian f32, of one length. What a rule needs are their inner products. */
import { MessageError, membersOf, type Names, pathOf, placeOf, shown } from "./fields.ts";

/** The name of the target's sketch among those of the domains. */
const TARGET = "target";

export interface SentSketches {
  /** By domain; null for one without a sketch. */
  readonly domains: readonly (Float64Array | null)[];
  readonly target: Float64Array | null;
}

export function sketchesOf(value: unknown, names: Names): SentSketches {
  if (names.places.has(TARGET))
    throw new MessageError(
      "sketches",
      `a domain is called "${TARGET}", so that its sketch and the target's cannot be told apart; send alignments and norms`,
    );
  const domains = names.list.map((): Float64Array | null => null);
  let target: Float64Array | null = null;
  let first: { readonly name: string; readonly length: number } | null = null;
  for (const [name, text] of membersOf(
    value,
    "sketches",
    "an object with a sketch by domain, and the target's",
  )) {
    const place = name === TARGET ? null : placeOf(name, "sketches", names);
    if (text === null) continue;
    const sketch = decoded(text, pathOf("sketches", name));
    first ??= { name, length: sketch.length };
    if (sketch.length !== first.length)
      throw new MessageError(
        pathOf("sketches", name),
        `it has ${sketch.length} numbers, and that of "${first.name}" ${first.length}; only sketches made alike can be compared`,
      );
    if (place === null) target = sketch;
    else domains[place] = sketch;
  }
  return { domains, target };
}

function decoded(text: unknown, field: string): Float64Array {
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0)
    throw new MessageError(field, `${shown(text)} is not base64 (with its padding) of little-endian f32`);
  const bytes = Buffer.from(text, "base64");
  if (bytes.length === 0 || bytes.length % 4 !== 0)
    throw new MessageError(
      field,
      `it has ${bytes.length} bytes, which is not four for each number of a sketch`,
    );
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const out = new Float64Array(bytes.length / 4);
  for (let n = 0; n < out.length; n++) {
    const number = view.getFloat32(4 * n, true);
    if (!Number.isFinite(number)) throw new MessageError(field, `its number ${n + 1} is ${number}`);
    out[n] = number;
  }
  return out;
}

/** ⟨a, b⟩. */
export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += a[n]! * b[n]!;
  return sum;
}
