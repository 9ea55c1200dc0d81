/** Concatenates, cuts and picks batches of any kind that follow the convention of `Examples`. */
import { GradmixError } from "../errors.ts";
import { isNumberList, numberList, show, showKind } from "../options.ts";
import type { Examples } from "./model.ts";

/** Array types whose numbers belong to examples. */
const kinds = [
  Float32Array,
  Int32Array,
  Float64Array,
  Uint32Array,
  Int16Array,
  Uint16Array,
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
] as const;
type Column = InstanceType<(typeof kinds)[number]>;

const kindOf = (value: unknown): (typeof kinds)[number] | undefined =>
  kinds.find((kind) => value instanceof kind);

function isColumn(value: unknown): value is Column {
  return kindOf(value) !== undefined;
}

export function exampleCount({ tokens }: Examples): number {
  return tokens.length;
}

/** Counted tokens of the whole batch. */
export function tokenCount({ tokens }: Examples): number {
  let sum = 0;
  for (let i = 0; i < tokens.length; i++) sum += tokens[i]!;
  return sum;
}

/** Throws `data` for something other than a batch, such as a promise of one. */
function checkIsBatch(where: string, batch: unknown): void {
  if (batch instanceof Promise) batch.catch(() => {});
  const tokens: unknown =
    typeof batch === "object" && batch !== null ? Reflect.get(batch, "tokens") : undefined;
  if (!isNumberList(tokens))
    throw new GradmixError(
      "data",
      `${where}: ${batch instanceof Promise ? "a promise is not a batch; batchOf is synchronous, so read everything before training" : `${show(batch)} is not a batch; a batch is an object with tokens, a list of one number per example`}`,
    );
}

/**
 * Throws `shape`, naming `where` and the field, for a typed array that does not have the same number of values per example, and `data` for invalid
 * token counts and for what is not a batch.
 */
export function checkExamples(where: string, batch: Examples): void {
  checkIsBatch(where, batch);
  const { tokens } = batch;
  for (let e = 0; e < tokens.length; e++)
    if (!(Number.isSafeInteger(tokens[e]) && tokens[e]! >= 0))
      throw new GradmixError(
        "data",
        `${where}: tokens of example ${e} are ${show(tokens[e])}; they are the number of terms of its loss, a whole number`,
      );
  for (const [field, value] of Object.entries(batch)) {
    if (!isColumn(value) || field === "tokens") continue;
    if (tokens.length === 0 ? value.length > 0 : value.length % tokens.length !== 0)
      throw new GradmixError(
        "shape",
        `${where}: ${value.length} ${field} cannot be divided evenly among the ${tokens.length} examples in tokens`,
      );
  }
}

/**
 * Concatenates batches into one with all examples, in order. Throws `shape`, naming the batches and the field, if they are not compatible: different
 * fields, arrays of different types or with different numbers of values per example, numbers or strings that differ, and values of other types.
 */
export function concatenate<B extends Examples>(batches: readonly B[]): B {
  batches.forEach((batch, i) => checkExamples(`batch ${i}`, batch));
  const [first] = batches;
  if (first === undefined) throw new GradmixError("shape", "there is no batch to join");
  if (batches.length === 1) return first;
  const fields = Object.keys(first);
  batches.forEach((batch, i) => {
    for (const field of new Set([...fields, ...Object.keys(batch)]))
      if (field !== "tokens") checkAlike(field, i, first, batch);
  });
  const join = (field: string): unknown => {
    const parts = batches.map((batch) => valueOf(batch, field));
    return field === "tokens" ? joinCounts(parts as ArrayLike<number>[]) : joinColumns(parts);
  };
  return { ...first, ...Object.fromEntries(fields.map((field) => [field, join(field)])) };
}

/**
 * Throws `shape`, naming the field, unless a model that takes the one batch can take the other: the same fields of the same types, with equally many
 * numbers per example. Windows may differ in length (`time`), since they are not joined.
 */
export function checkSameKind(first: Examples, batch: Examples): void {
  checkExamples("batch 0", first);
  checkExamples("batch 1", batch);
  const times = [first, batch].map((one) => valueOf(one, "time"));
  const lengthsDiffer = times.every((time) => typeof time === "number") && times[0] !== times[1];
  for (const field of new Set([...Object.keys(first), ...Object.keys(batch)])) {
    if (field === "tokens" || (lengthsDiffer && field === "time")) continue;
    const [a, b] = [valueOf(first, field), valueOf(batch, field)];
    if (lengthsDiffer && isColumn(a) && kindOf(a) === kindOf(b)) continue;
    checkAlike(field, 1, first, batch);
  }
}

const valueOf = (batch: Examples, field: string): unknown => Reflect.get(batch, field);

/** Throws `shape` unless the field of batch `i` can be appended to that of batch 0. */
function checkAlike(field: string, i: number, first: Examples, batch: Examples): void {
  const [a, b] = [valueOf(first, field), valueOf(batch, field)];
  const incompatible = (what: string): GradmixError =>
    new GradmixError("shape", `batches 0 and ${i} do not go together: ${field} is ${what}`);
  if (!isColumn(a) || !isColumn(b)) {
    wantScalar(field, a);
    if (a !== b) throw incompatible(`${showKind(a)} in the one and ${showKind(b)} in the other`);
    return;
  }
  if (kindOf(a) !== kindOf(b))
    throw incompatible(`${showKind(a)} in the one and ${showKind(b)} in the other`);
  // Batches without examples have no width.
  const [m, n] = [exampleCount(first), exampleCount(batch)];
  if (m > 0 && n > 0 && a.length / m !== b.length / n)
    throw incompatible(`${a.length / m} numbers per example in the one and ${b.length / n} in the other`);
}

/** Throws `shape` for a value that cannot be shared by several examples. */
function wantScalar(field: string, value: unknown): void {
  const scalar =
    value === null || ["number", "string", "boolean", "undefined"].includes(typeof value) || isColumn(value);
  if (!scalar)
    throw new GradmixError(
      "shape",
      `a batch's ${field} is ${showKind(value)}; examples can be joined and cut where everything is a typed array with a row for each of them, or a number, a word or a boolean for all`,
    );
}

/** Joins token counts, which may be lists or typed arrays. */
function joinCounts(parts: readonly ArrayLike<number>[]): ArrayLike<number> {
  const [first] = parts;
  const kind = kindOf(first);
  if (kind !== undefined && parts.every((part) => kindOf(part) === kind)) return joinColumns(parts) as Column;
  const all = parts.flatMap((part) => Array.from(part));
  return parts.every((part) => Array.isArray(part)) ? all : Float64Array.from(all);
}

/** Joins typed arrays of one type; any other value is the same for all, and the first is returned. */
function joinColumns(parts: readonly unknown[]): unknown {
  const kind = kindOf(parts[0]);
  if (kind === undefined) return parts[0];
  const columns = parts.filter(isColumn);
  const out = new kind(columns.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of columns) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The examples from `first` (included) to `end` (excluded); the arrays share the batch's memory. Throws like `concatenate`. */
export function cutExamples<B extends Examples>(batch: B, first: number, end: number): B {
  const count = exampleCount(batch);
  return mapColumns(batch, (column) => {
    const width = column.length / count;
    return column.subarray(first * width, end * width);
  });
}

/** The examples with these indices, in order. Throws `config` for an index that the batch does not have, otherwise like `concatenate`. */
export function pickExamples<B extends Examples>(batch: B, indices: readonly number[]): B {
  const count = exampleCount(batch);
  numberList("batchOf: indices", indices);
  for (const index of indices)
    if (!Number.isInteger(index) || index < 0 || index >= count)
      throw new GradmixError("config", `there is no example ${show(index)} in a batch of ${count}`);
  return mapColumns(batch, (column) => {
    const width = column.length / count;
    const kind = kindOf(column) ?? Float64Array;
    const out = new kind(indices.length * width);
    indices.forEach((index, e) => out.set(column.subarray(index * width, (index + 1) * width), e * width));
    return out;
  });
}

function mapColumns<B extends Examples>(batch: B, map: (column: Column) => Column): B {
  const entries = Object.entries(batch).map(([field, value]): [string, unknown] => {
    if (isColumn(value)) return [field, map(value)];
    if (field === "tokens") {
      const counts = map(Float64Array.from(value as ArrayLike<number>));
      return [field, Array.isArray(value) ? Array.from(counts) : counts];
    }
    wantScalar(field, value);
    return [field, value];
  });
  return { ...batch, ...Object.fromEntries(entries) };
}
