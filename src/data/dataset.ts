/** Sources of examples: what the sampler draws from, and how draws become a batch. */
import { GradmixError } from "../errors.ts";
import { checkExamples, concatenate, exampleCount, pickExamples } from "../nn/examples.ts";
import type { Examples } from "../nn/model.ts";
import { checkOptions, integerIn, object, required, show, objectWith, type OptionCheck } from "../options.ts";
import type { Draw, SampledDomain } from "./sampler.ts";

/**
 * A source of examples by index, such as the windows of a text (`windowsOf`), the rows of a table (`rowsOf`) or any batch in memory (`examplesOf`).
 * Your own source is an object with the same four members. It may read from anywhere, but index i must always be the same example.
 */
export interface Dataset<B extends Examples> extends SampledDomain {
  /** Makes a batch of the examples with these indices, in order. The batches of sources that are sampled together must be compatible (`Examples`). */
  batchOf(indices: readonly number[]): B;
}

/** Accepts a source of examples. */
export const checkDataset: OptionCheck = objectWith(
  "a dataset, such as windowsOf makes",
  "name",
  "count",
  "tokensOf",
  "batchOf",
);

/**
 * Makes a batch of the examples of `draws`, in order. Throws `config` for a draw from an unknown source, and `shape` for a source whose batch does
 * not have the requested examples, and for batches that are not compatible, and `data` for a source whose batch is none or has other numbers of tokens
 * than its `tokensOf`.
 */
export function assemble<B extends Examples>(draws: readonly Draw[], sources: readonly Dataset<B>[]): B {
  for (const { domain, window } of draws)
    if (
      ![domain, window].every((n) => Number.isInteger(n) && n >= 0) ||
      !(window < (sources.at(domain)?.count ?? 0))
    )
      throw new GradmixError("config", `a batch: source ${domain} has no example ${window}`);
  const parts: B[] = [];
  for (let first = 0, end = 0; first < draws.length; first = end) {
    const { domain } = draws[first]!;
    while (end < draws.length && draws[end]!.domain === domain) end++;
    const indices = draws.slice(first, end).map(({ window }) => window);
    const source = sources[domain]!;
    const part = source.batchOf(indices);
    checkExamples(`"${source.name}": batchOf`, part);
    if (exampleCount(part) !== indices.length)
      throw new GradmixError(
        "shape",
        `"${source.name}": batchOf returned ${exampleCount(part)} examples, but ${indices.length} were requested`,
      );
    // The sampler and evaluations count with tokensOf, losses are divided by the tokens of the batch.
    for (const [e, index] of indices.entries())
      if (Math.fround(part.tokens[e]!) !== Math.fround(source.tokensOf(index)))
        throw new GradmixError(
          "data",
          `"${source.name}": tokensOf(${index}) is ${show(source.tokensOf(index))}, but batchOf gives the example ${part.tokens[e]} tokens; both must be the terms of its loss`,
        );
    parts.push(part);
  }
  return concatenate(parts);
}

/**
 * Makes a source from a batch in memory. Throws `data` for a batch without examples, and `shape` for arrays that do not have one row per example or
 * contain values that cannot be picked by example (`Examples`).
 */
export function examplesOf<B extends Examples>(name: string, all: B): Dataset<B> {
  checkExamples(`"${name}"`, all);
  const count = exampleCount(all);
  if (count === 0) throw new GradmixError("data", `"${name}": it has no examples`);
  // Finds errors now that would otherwise appear at the first draw.
  pickExamples(all, [0]);
  return {
    name,
    count,
    tokensOf(index) {
      const tokens = all.tokens[index];
      if (tokens === undefined)
        throw new GradmixError("config", `"${name}": there is no example ${index}; it has ${count}`);
      return tokens;
    },
    batchOf: (indices) => pickExamples(all, indices),
  };
}

/** A table of rows: features and the targets to predict from them. */
export interface Table {
  /** Features, row by row [rows · width]. */
  readonly inputs: Float32Array;
  /** Number of features per row. */
  readonly width: number;
  /** Targets: a class per row [rows], or any number of values per row, row by row. */
  readonly targets: Int32Array | Float32Array;
}

/** A batch of table rows; each row counts 1. */
export interface RowBatch extends Table, Examples {
  readonly tokens: Float64Array;
}

/**
 * Makes a source from the rows of a table. Throws `config` for a value that is not a table, `shape` for arrays that do not have `width` features and
 * equally many targets per row, and `data` for a table without rows.
 */
export function rowsOf(name: string, table: Table): Dataset<RowBatch> {
  checkOptions<Table>("rowsOf", table, {
    inputs: required(object),
    width: required(integerIn(1)),
    targets: required(object),
  });
  const { inputs, width, targets } = table;
  if (inputs.length % width !== 0)
    throw new GradmixError("shape", `"${name}": ${inputs.length} inputs are not rows of ${width}`);
  return examplesOf(name, {
    inputs,
    width,
    targets,
    tokens: new Float64Array(inputs.length / width).fill(1),
  });
}
