/** Batches: windows drawn by the sampler, as rows of token ids. */
import { boolean, checkOptions } from "../options.ts";
import type { TokenBatch } from "../nn/model.ts";
import { assemble } from "./dataset.ts";
import type { Draw } from "./sampler.ts";
import { commonTime, type Windows } from "./tokens.ts";

/** Windows that were drawn, and from where. */
export interface DrawnWindows extends TokenBatch {
  /** Counted targets of each example. */
  readonly tokens: Int32Array;
  /** Domain of each example. */
  readonly domainOf: Int32Array;
}

/**
 * The windows of `draws`, in order, or sorted by domain (stable) so that each domain's examples are adjacent. Throws `config` for a draw that is of no
 * source, and `data`, naming two sources, when their windows are of different lengths.
 */
export function assembleBatch(
  draws: readonly Draw[],
  sources: readonly Windows[],
  options: { readonly sortByDomain?: boolean } = {},
): DrawnWindows {
  checkOptions("assembleBatch", options, { sortByDomain: boolean });
  const rows = options.sortByDomain === true ? byDomain(draws) : draws;
  const domainOf = Int32Array.from(rows, ({ domain }) => domain);
  if (rows.length === 0) {
    const none = new Int32Array(0);
    return { inputs: none, targets: none, tokens: none, domainOf, time: 0 };
  }
  commonTime(sources.filter((_, domain) => domainOf.includes(domain)));
  const { tokens, ...batch } = assemble(rows, sources);
  return { ...batch, tokens: Int32Array.from(tokens), domainOf };
}

/** In the order of their domains, and within one as they came. */
export function byDomain(draws: readonly Draw[]): Draw[] {
  return [...draws].sort((a, b) => a.domain - b.domain);
}
