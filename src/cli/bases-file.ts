/** Bases as a file that `--bases` takes: JSON, or CSV with a line for each entry. */
import { formatJson } from "../json.ts";

/** A distribution over the domains. */
export interface NamedShares {
  readonly name: string;
  /** In the order of the domains; ≥ 0, sum 1. */
  readonly shares: Float64Array;
}

/** Name of the basis of all text. */
export const ALL_TEXT = "corpus";

/** All text as it is, so that the weights can go back to it. */
export function domainBasis(sizes: readonly number[]): NamedShares {
  const sum = sizes.reduce((a, b) => a + b, 0);
  return { name: ALL_TEXT, shares: Float64Array.from(sizes, (size) => size / sum) };
}

/** In the format that the path's ending says. Names that stand twice get numbers. */
export function basesText(path: string, domains: readonly string[], bases: readonly NamedShares[]): string {
  const named = new Map<string, Map<string, number>>();
  for (const { name, shares } of bases) {
    let free = name;
    for (let n = 2; named.has(free); n++) free = `${name}-${n}`;
    named.set(
      free,
      // Nine digits, so that the sum is 1 within what is allowed.
      new Map(
        domains.flatMap((domain, i) => (shares[i]! > 0 ? [[domain, Number(shares[i]!.toPrecision(9))]] : [])),
      ),
    );
  }
  if (!/\.csv$/i.test(path)) return `${formatJson(named, 2)}\n`;
  const lines = Array.from(named, ([basis, own]) =>
    Array.from(own, ([domain, weight]) => `${quoted(basis)},${quoted(domain)},${weight}\n`).join(""),
  );
  return `basis,domain,weight\n${lines.join("")}`;
}

const quoted = (text: string): string => (/[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
