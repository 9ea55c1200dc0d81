/** Reads numbers that a user gives by domain. */
import { GradmixError } from "../../errors.ts";
import { nearest } from "../../nearest.ts";
import { show } from "../../options.ts";
import { checkSimplex, uniformWeights, type Weights } from "../simplex.ts";

/** In the domains' order. A domain that is not named gets 0. Throws `config` for a name that is no domain. */
export function byDomain(
  given: readonly number[] | Readonly<Record<string, number>>,
  domains: readonly string[],
  what: string,
): number[] {
  if (typeof given !== "object" || given === null)
    throw new GradmixError(
      "config",
      `${what}: ${show(given)} does not fit; it must be numbers, one a domain or by name`,
    );
  if (Array.isArray(given)) {
    if (given.length !== domains.length)
      throw new GradmixError("config", `${what}: ${given.length} values for ${domains.length} domains`);
    return domains.map((_, i) => (given as readonly number[])[i]);
  }
  const values = new Map(Object.entries(given));
  const known = new Set(domains);
  for (const name of values.keys())
    if (!known.has(name)) {
      const close = nearest(name, domains);
      const few =
        domains.length <= 20 ? `the domains are ${domains.join(", ")}` : `there are ${domains.length}`;
      throw new GradmixError(
        "config",
        `${what}: there is no domain "${name}"; ${close === null ? few : `did you mean "${close}"?`}`,
      );
    }
  return domains.map((name) => values.get(name) ?? 0);
}

/** Where weights start: what was given, on the simplex, or uniform. Throws `config`. */
export function startOf(
  given: readonly number[] | Readonly<Record<string, number>> | undefined,
  domains: readonly string[],
): Weights {
  return given === undefined
    ? uniformWeights(domains.length)
    : checkSimplex(byDomain(given, domains, "start"), domains, "start");
}

/** One size a domain. Throws `config` for one that is not finite and positive. */
export function sizesOf(
  given: readonly number[] | Readonly<Record<string, number>>,
  domains: readonly string[],
): number[] {
  const sizes = byDomain(given, domains, "sizes");
  const bad = sizes.findIndex((size) => !Number.isFinite(size) || size <= 0);
  if (bad >= 0)
    throw new GradmixError(
      "config",
      `sizes: "${domains[bad]}" has ${show(sizes[bad])}; sizes are finite and positive`,
    );
  return sizes;
}
