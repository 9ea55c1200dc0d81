/** What share of the target each domain has, for rules that begin with it and for `gradmix histogram`. */
import { bigramHistogram, type Histogram } from "../data/histogram.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import { GradmixError } from "../errors.ts";
import type { Data } from "./read-data.ts";

/** Of the training text. Throws `config` where there is no target. */
export function measureHistogram({ domains, target }: Pick<Data, "domains" | "target">): Histogram {
  if (target === null)
    throw new GradmixError("config", "--target: there is none to count a histogram of; add one");
  return bigramHistogram(
    target.train,
    domains.map(({ train }) => train),
  );
}

/** Share of the target by domain, in the order of the domains. Throws `config` where there is no target. */
export function histogramOf(data: Data, names: readonly string[]): ReadonlyMap<string, number> {
  const { shares } = measureHistogram(data);
  return new Map(names.map((name, i) => [name, shares[i]!]));
}

/** What a checkpoint has, so that a resumed run goes on with the same bits wherever it goes on; null where it has none. */
export function savedHistogram(
  json: Checkpoint["json"] | undefined,
  names: readonly string[],
): ReadonlyMap<string, number> | null {
  // The checkpoint's checksum says that it is what was written, and its configuration has the same domains.
  const saved = json?.["histogram"];
  if (!Array.isArray(saved) || saved.length !== names.length) return null;
  return new Map(names.map((name, i) => [name, Number(saved[i])]));
}

/** `histogram of the target: state-of-the-union 0.80, essays 0.07, … and 21 more` */
export function histogramLine(histogram: ReadonlyMap<string, number>): string {
  const shown = [...histogram].sort(([, a], [, b]) => b - a).slice(0, 6);
  const rest = histogram.size - shown.length;
  return `histogram of the target: ${shown.map(([name, share]) => `${name} ${share.toFixed(2)}`).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}
