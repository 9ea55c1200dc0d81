/** Batches of windows that the sampler has drawn, as rows of token ids. */
import { boolean, checkOptions, list, object } from "../options.ts";
import type { TokenBatch } from "../nn/model.ts";
import { assemble, checkDataset } from "./dataset.ts";
import type { Draw } from "./sampler.ts";
import { commonTime, type Windows } from "./tokens.ts";

/** Drawn windows, with the domain of each. */
export interface DrawnWindows extends TokenBatch {
  /** Counted targets of each example [examples]. */
  readonly tokens: Int32Array;
  /** Index of the domain of each example [examples]. */
  readonly domainOf: Int32Array;
}

/**
 * Reads the windows of `draws` into a batch, in order, or sorted by domain (stable), so that each domain's examples are adjacent. Throws `config` for
 * a draw from an unknown source, and `data`, naming two sources, if their windows have different lengths.
 */
export function assembleBatch(
  draws: readonly Draw[],
  sources: readonly Windows[],
  options: { readonly sortByDomain?: boolean } = {},
): DrawnWindows {
  checkOptions("assembleBatch", options, { sortByDomain: boolean });
  list("assembleBatch: draws", draws);
  for (const [i, draw] of draws.entries()) object(`assembleBatch: draws: ${i}`, draw);
  list("assembleBatch: sources", sources);
  for (const [i, source] of sources.entries()) checkDataset(`assembleBatch: sources: ${i}`, source);
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

/** Sorts draws by domain; the draws of one domain keep their order. */
export function byDomain(draws: readonly Draw[]): Draw[] {
  return [...draws].sort((a, b) => a.domain - b.domain);
}
