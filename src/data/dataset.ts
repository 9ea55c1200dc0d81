/** Sources of examples: what the sampler draws from, and how what it drew becomes a batch. */
import { GradmixError } from "../errors.ts";
import { checkExamples, concatenate, exampleCount, pickExamples } from "../nn/examples.ts";
import type { Examples } from "../nn/model.ts";
import { checkOptions, integerIn, object, required } from "../options.ts";
import type { Draw, SampledDomain } from "./sampler.ts";

/**
 * A source of examples by index, such as the windows of a text (`windowsOf`), the rows of a table (`rowsOf`) or any batch in memory (`examplesOf`). One of
 * your own is an object of these four: it may read from wherever it likes, as long as index i always is the same example.
 */
export interface Dataset<B extends Examples> extends SampledDomain {
  /** The examples of these indices, in order. Batches of sources that are drawn from together must go together (`Examples`). */
  batchOf(indices: readonly number[]): B;
}

/**
 * The examples of `draws`, in order. Throws `config` for a draw that is of no source, `shape` for a source whose batch has not the examples that were asked
 * for, and for batches that do not go together.
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
    if (exampleCount(part) !== indices.length)
      throw new GradmixError(
        "shape",
        `"${source.name}": a batch of ${exampleCount(part)} examples where ${indices.length} were asked for`,
      );
    parts.push(part);
  }
  return concatenate(parts);
}

/**
 * A batch in memory as a source of its examples. Throws `data` for one without examples, and `shape` for arrays that have no row for each of them, or hold
 * what cannot be picked from (`Examples`).
 */
export function examplesOf<B extends Examples>(name: string, all: B): Dataset<B> {
  checkExamples(`"${name}"`, all);
  const count = exampleCount(all);
  if (count === 0) throw new GradmixError("data", `"${name}": it has no examples`);
  // Refuses now what would be refused at the first draw.
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

/** Rows of a table: features, and what is to be told from them. */
export interface Table {
  /** Features, row by row [rows · width]. */
  readonly inputs: Float32Array;
  /** Features of a row. */
  readonly width: number;
  /** A class of each row [rows], or numbers, row by row [rows · any]. */
  readonly targets: Int32Array | Float32Array;
}

/** Rows of a table; each counts 1. */
export interface RowBatch extends Table, Examples {
  readonly tokens: Float64Array;
}

/**
 * A table as a source of its rows. Throws `config` for what is no table, `shape` for arrays that have not a row of `width` features and as many targets for
 * each row, and `data` for a table without rows.
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
