/** Writes bases to a file that `--bases` reads: JSON, or CSV with one line per entry. */
import { csvText } from "../csv.ts";
import { formatJson } from "../json.ts";

/** A distribution over the domains. */
export interface NamedShares {
  readonly name: string;
  /** Shares of the domains, in their order; ≥ 0, sum 1. */
  readonly shares: Float64Array;
}

/** Name of the basis that is the distribution of all text. */
export const ALL_TEXT = "corpus";

/** The basis with each domain's share of all text, so that the weights can return to the natural distribution. */
export function domainBasis(sizes: readonly number[]): NamedShares {
  const sum = sizes.reduce((a, b) => a + b, 0);
  return { name: ALL_TEXT, shares: Float64Array.from(sizes, (size) => size / sum) };
}

/** The text of the file, in the format of the path's extension. Repeated names get numbers. */
export function basesText(path: string, domains: readonly string[], bases: readonly NamedShares[]): string {
  const named = new Map<string, Map<string, number>>();
  for (const { name, shares } of bases) {
    let free = name;
    for (let n = 2; named.has(free); n++) free = `${name}-${n}`;
    named.set(
      free,
      // Nine digits keep the sum at 1 within the tolerance.
      new Map(
        domains.flatMap((domain, i) => (shares[i]! > 0 ? [[domain, Number(shares[i]!.toPrecision(9))]] : [])),
      ),
    );
  }
  if (!/\.csv$/i.test(path)) return `${formatJson(named, 2)}\n`;
  const rows = [...named].flatMap(([basis, own]) =>
    Array.from(own, ([domain, weight]) => [basis, domain, String(weight)]),
  );
  return csvText([["basis", "domain", "weight"], ...rows]);
}
