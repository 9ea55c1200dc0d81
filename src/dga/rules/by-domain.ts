/** Reads numbers that a user gives by domain. */
import { GradmixError } from "../../errors.ts";
import { nearest } from "../../nearest.ts";
import { describe, hasMembers, type OptionCheck, show, valueThat } from "../../options.ts";
import { checkSimplex, normalise, uniformWeights, type Weights } from "../simplex.ts";

/** Numbers by domain: a list with one number per domain, in their order, or an object with numbers by name, in any order. */
export type ByDomain = readonly number[] | Readonly<Record<string, number>>;

/** A copy of a list or of an object. Other values stay, such as typed arrays and Maps, which are refused once the domains are known. */
function copied(value: unknown): unknown {
  if (isList(value)) return value.slice();
  return hasMembers(value) ? { ...value } : value;
}

/** A copy of options, with copies of the lists and objects in them: the user may change those after the rule was made. */
export function ownOptions<O extends object>(options: O): O {
  const own = { ...options };
  for (const name of Object.keys(own)) Reflect.set(own, name, copied(Reflect.get(own, name)));
  return own;
}

function isList(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

/** Checks an option of this type; its contents are checked once the domains are known. */
export const numbersByDomain: OptionCheck = valueThat(
  "a list with a number per domain, or numbers by name",
  (value) => typeof value === "object" && value !== null,
);

/**
 * Returns the numbers in the order of the domains. A domain that is not named gets 0, or is refused with `mustName`. Throws `config` for an unknown
 * name and for a list of another length. `of` is the word for the names in messages.
 */
export function byDomain(
  given: ByDomain,
  domains: readonly string[],
  what: string,
  {
    mustName = false,
    of = "domain",
  }: { readonly mustName?: boolean; readonly of?: "domain" | "target" } = {},
): number[] {
  if (Array.isArray(given)) {
    if (given.length !== domains.length)
      throw new GradmixError("config", `${what}: ${given.length} values for ${domains.length} ${of}s`);
    return domains.map((_, i) => (given as readonly number[])[i]!);
  }
  if (!hasMembers(given)) throw new GradmixError("config", `${what}: ${unfit(given)}`);
  const values = new Map(Object.entries(given));
  const known = new Set(domains);
  for (const name of values.keys())
    if (!known.has(name)) {
      const close = nearest(name, domains);
      const listed =
        domains.length <= 20 ? `the ${of}s are ${domains.join(", ")}` : `there are ${domains.length}`;
      throw new GradmixError(
        "config",
        `${what}: there is no ${of} "${name}"; ${close === null ? listed : `did you mean "${close}"?`}`,
      );
    }
  const unnamed = mustName ? domains.find((name) => !values.has(name)) : undefined;
  if (unnamed !== undefined)
    throw new GradmixError(
      "config",
      `${what}: there is no number for ${of} "${unnamed}"; every ${of} needs one`,
    );
  return domains.map((name) => (values.has(name) ? (values.get(name) as number) : 0));
}

/** What is wrong with a value that is neither a list nor an object with members, and what makes one of it. */
function unfit(given: unknown): string {
  const remedy = ArrayBuffer.isView(given)
    ? "Array.from makes a list of it"
    : given instanceof Map
      ? "Object.fromEntries makes an object of it"
      : "it must be a list with a number each, or an object with numbers by name";
  return `${describe(given)} does not fit; ${remedy}`;
}

/**
 * Weights that a user gives: they lie on the simplex, and every domain has one. A domain that was forgotten would have the weight 0, and a mirror step
 * never raises it from there. Throws `config`.
 */
export function weightsOf(
  given: ByDomain,
  domains: readonly string[],
  what: string,
  of: "domain" | "target" = "domain",
): Weights {
  return checkSimplex(byDomain(given, domains, what, { mustName: true, of }), domains, what);
}

/** Initial weights: the given ones, or uniform. Throws like `weightsOf`. */
export function startOf(given: ByDomain | undefined, domains: readonly string[]): Weights {
  return given === undefined ? uniformWeights(domains.length) : weightsOf(given, domains, "start");
}

/**
 * Normalises shares or counts, one per domain or by name, to the simplex; a domain that is not named has none. Throws `config`, naming the domain,
 * for negative numbers, and if all are 0.
 */
export function sharesOf(given: ByDomain, domains: readonly string[], what: string): Weights {
  const counts = byDomain(given, domains, what);
  const bad = counts.findIndex((count) => !Number.isFinite(count) || count < 0);
  if (bad >= 0)
    throw new GradmixError(
      "config",
      `${what}: "${domains[bad]}" has ${show(counts[bad])}; counts are finite and ≥ 0`,
    );
  if (counts.every((count) => count === 0))
    throw new GradmixError("config", `${what}: all counts are 0, so no domain could be drawn`);
  return normalise(counts);
}

/** One size per domain. Throws `config` for a size that is not finite and positive. */
export function sizesOf(given: ByDomain, domains: readonly string[]): number[] {
  const sizes = byDomain(given, domains, "sizes", { mustName: true });
  const bad = sizes.findIndex((size) => !Number.isFinite(size) || size <= 0);
  if (bad >= 0)
    throw new GradmixError(
      "config",
      `sizes: "${domains[bad]}" has ${show(sizes[bad])}; sizes are finite and positive`,
    );
  return sizes;
}
