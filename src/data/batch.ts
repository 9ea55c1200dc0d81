/** Batches: windows drawn by the sampler, as rows of token ids. */
import { GradmixError } from "../errors.ts";
import { boolean, checkOptions } from "../options.ts";
import type { Draw } from "./sampler.ts";
import { commonTime, readWindow, type Windows } from "./tokens.ts";

export interface TokenBatch {
  /** Token ids, [examples · time]. */
  readonly inputs: Int32Array;
  /** Next tokens, [examples · time]; −1 where nothing counts. */
  readonly targets: Int32Array;
  /** Counted targets of each example. */
  readonly tokens: Int32Array;
  /** Domain of each example. */
  readonly domainOf: Int32Array;
  /** T. */
  readonly time: number;
}

/**
 * The windows of `draws`, in order, or sorted by domain (stable) so that each domain's examples are adjacent. Throws `config` for a draw that is of no
 * source, and `data`, naming two sources, when their windows are of different lengths.
 */
export function assembleBatch(
  draws: readonly Draw[],
  sources: readonly Windows[],
  options: { readonly sortByDomain?: boolean } = {},
): TokenBatch {
  checkOptions("assembleBatch", options, { sortByDomain: boolean });
  const rows = options.sortByDomain === true ? [...draws].sort((a, b) => a.domain - b.domain) : draws;
  for (const { domain, window } of rows)
    if (
      ![domain, window].every((n) => Number.isInteger(n) && n >= 0) ||
      !(window < (sources.at(domain)?.count ?? 0))
    )
      throw new GradmixError("config", `assembleBatch: source ${domain} has no window ${window}`);
  const time = commonTime(rows.map(({ domain }) => sources[domain]));
  const inputs = new Int32Array(rows.length * time);
  const targets = new Int32Array(rows.length * time);
  const tokens = new Int32Array(rows.length);
  const domainOf = new Int32Array(rows.length);
  rows.forEach(({ domain, window }, row) => {
    const source = sources[domain];
    readWindow(source, window, inputs, targets, row);
    tokens[row] = source.tokensOf(window);
    domainOf[row] = domain;
  });
  return { inputs, targets, tokens, domainOf, time };
}
