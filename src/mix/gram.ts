/** Reads the Gram matrix of an `observe` message: as lists of numbers, or by the names of the domains. */
import { isObject } from "../json.ts";
import {
  anything,
  inside,
  list,
  misfit,
  number,
  object,
  orNull,
  type Place,
  problem,
  type Schema,
  string,
} from "../schema.ts";
import { type Names, numbersFor, placeOf } from "./fields.ts";

/** Reads the Gram matrix [k, k] of a message. Rows and columns of domains that were not measured are NaN. Returns null if the message has no Gram matrix. */
export function gramFor(names: Names): Schema<Float64Array | null> {
  const order = placesFor(names);
  const fields = object<{ gram: unknown; gramDomains: readonly number[] | null }>({
    gram: anything,
    gramDomains: orNull(order),
  });
  return (message, at) => {
    const { gram: value, gramDomains: places } = fields(message, at);
    if (value === undefined || value === null) {
      if (places === null) return null;
      throw problem(inside(at, "gramDomains"), "names the rows of gram, but gram is missing");
    }
    if (Array.isArray(value)) return gramOfLists(value, places, inside(at, "gram"), names);
    if (places !== null)
      throw problem(
        inside(at, "gramDomains"),
        "names the rows of gram, but gram is an object, whose rows have names already; leave gramDomains out",
      );
    return gramByName(value, inside(at, "gram"), names);
  };
}

function gramOfLists(
  value: readonly unknown[],
  order: readonly number[] | null,
  at: Place,
  { list: all }: Names,
): Float64Array {
  const k = all.length;
  const out = new Float64Array(k * k).fill(NaN);
  const places = order ?? [...all.keys()];
  const { length } = places;
  if (value.length !== length)
    throw problem(
      at,
      `has ${value.length} rows for ${length} domains; if some domains are left out, list the others in gramDomains`,
    );
  for (const [i, place] of places.entries()) {
    const row = list(anything, length)(value[i], inside(at, all[place]!));
    for (const [j, other] of places.entries())
      out[place * k + other] = number(row[j], inside(inside(at, all[place]!), all[other]!));
  }
  return out;
}

function gramByName(value: unknown, at: Place, names: Names): Float64Array {
  const k = names.list.length;
  const out = new Float64Array(k * k).fill(NaN);
  if (!isObject(value)) throw misfit(value, at, "an object with a row per domain, or a list of rows");
  const entries = numbersFor(names);
  const rows = Object.entries(value);
  const there = new Set(rows.flatMap(([name, row]) => (row === null ? [] : [placeOf(name, at, names)])));
  for (const [name, row] of rows) {
    const i = placeOf(name, at, names);
    if (row === null) continue;
    for (const [j, entry] of entries(row, inside(at, name)).entries()) {
      if (Number.isNaN(entry)) continue;
      if (!there.has(j))
        throw problem(inside(at, names.list[j]!), `has no row, but the row of "${name}" has a number for it`);
      out[i * k + j] = entry;
    }
  }
  // The matrix is symmetric, so a missing entry is copied from its mirror image.
  for (const i of there)
    for (const j of there)
      if (Number.isNaN(out[i * k + j])) {
        out[i * k + j] = out[j * k + i]!;
        if (Number.isNaN(out[i * k + j]))
          throw problem(
            inside(inside(at, names.list[i]!), names.list[j]!),
            "is missing; gram needs the inner product of every two measured domains",
          );
      }
  return out;
}

/** Accepts a list of distinct names of domains, and returns their indices. */
function placesFor(names: Names): Schema<readonly number[]> {
  const listed = list(string);
  return (value, at) => {
    const places = listed(value, at).map((name) => placeOf(name, at, names));
    if (new Set(places).size !== places.length) throw problem(at, "names a domain twice");
    return places;
  };
}
