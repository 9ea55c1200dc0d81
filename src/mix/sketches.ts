/** Reads sketches of gradients that a trainer sends: base64 of little-endian f32, all of the same length. A rule needs only their inner products. */
import { inside, membersOf, misfit, type Place, problem, type Schema } from "../schema.ts";
import { type Names, placeOf } from "./fields.ts";

/** The name of the target's sketch among the sketches of the domains. */
const TARGET = "target";

/** The sketches of a message. */
export interface SentSketches {
  /** One per domain, in the order of the domains; null for a domain without a sketch. */
  readonly domains: readonly (Float64Array | null)[];
  /** The target's sketch; null if it was not sent. */
  readonly target: Float64Array | null;
}

/** Accepts an object with sketches by domain, and the target's. Refuses sketches of different lengths, and a domain that is called "target". */
export function sketchesFor(names: Names): Schema<SentSketches> {
  return (value, at) => {
    if (names.places.has(TARGET))
      throw problem(
        at,
        `is ambiguous, because a domain has the name "${TARGET}" of the target's sketch; send alignments and norms instead`,
      );
    const domains = names.list.map((): Float64Array | null => null);
    let target: Float64Array | null = null;
    let first: { readonly name: string; readonly length: number } | null = null;
    for (const [name, text] of membersOf(
      value,
      at,
      "an object with a sketch per domain, and the target's sketch",
    )) {
      const place = name === TARGET ? null : placeOf(name, at, names);
      if (text === null) continue;
      const sketch = decoded(text, inside(at, name));
      first ??= { name, length: sketch.length };
      if (sketch.length !== first.length)
        throw problem(
          inside(at, name),
          `has ${sketch.length} numbers, but the sketch of "${first.name}" has ${first.length}; all sketches must be made in the same way`,
        );
      if (place === null) target = sketch;
      else domains[place] = sketch;
    }
    return { domains, target };
  };
}

function decoded(text: unknown, at: Place): Float64Array {
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4 !== 0)
    throw misfit(text, at, "base64 (with its padding) of little-endian f32");
  const bytes = Buffer.from(text, "base64");
  if (bytes.length === 0 || bytes.length % 4 !== 0)
    throw problem(at, `has ${bytes.length} bytes, not four per number of a sketch`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const out = new Float64Array(bytes.length / 4);
  for (let n = 0; n < out.length; n++) {
    const number = view.getFloat32(4 * n, true);
    if (!Number.isFinite(number))
      throw problem(at, `has the number ${number} at index ${n}; all numbers must be finite`);
    out[n] = number;
  }
  return out;
}

/** The inner product ⟨a, b⟩ of vectors of equal length. */
export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let n = 0; n < a.length; n++) sum += a[n]! * b[n]!;
  return sum;
}
