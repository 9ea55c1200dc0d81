/**
 * Basis distributions: N distributions p₁ … p_N over k domains, stored as sparse rows. Weights w on the N-simplex give the domain weights α = Σⱼ wⱼ
 * pⱼ (distribution reweighting; Fan, Grangier, Ablin 2024, Algorithm 2). Plain data and pure functions.
 */
import { GradmixError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { boolean, checkOptions, show, numberList, object, objectWith, type OptionCheck } from "../options.ts";
import { checkDomains } from "./rule.ts";
import { normalise, SUM_TOLERANCE, sumOf, type Weights } from "./simplex.ts";

/** N distributions over k domains as compressed sparse rows: the entries offsets[j] … offsets[j + 1] − 1 of `columns` and `values` belong to basis j. */
export interface Bases {
  /** Names of the N bases. */
  readonly names: readonly string[];
  /** Names of the k domains. */
  readonly domains: readonly string[];
  /** Where the entries of each row begin and end [N + 1]. */
  readonly offsets: Int32Array;
  /** Index of the domain of each entry, ascending within a row. */
  readonly columns: Int32Array;
  /** Probability of each entry, pⱼ(i) > 0; each row sums to 1. */
  readonly values: Float64Array;
}

/** One number per domain, in the order of the domains or by name; a domain that is not named has 0. */
export type Histogram = ArrayLike<number> | Readonly<Record<string, number>> | ReadonlyMap<string, number>;

/** Options of `createBases`. */
export interface BasesOptions {
  /**
   * Treats the numbers as counts (for example, how many examples of an auxiliary set fall into each domain) and divides each basis by its sum.
   * Default false: the numbers are shares, which must sum to 1 to within 1e-6.
   */
  readonly counts?: boolean;
}

/** The entries of one basis, as the user gave them. */
export interface GivenRow {
  readonly columns: number[];
  readonly values: number[];
  /** Where entry number i was given, for error messages. */
  place(i: number): string;
}

/**
 * Makes bases from named histograms over the domains. Throws `config`, naming the basis and the domain, for a number that is negative or not finite,
 * an unknown domain (the message suggests the nearest name), a wrong count of numbers, a basis without weight, and shares that do not sum to 1. It
 * also refuses an object whose order JavaScript would change: names that are whole numbers, such as "10", need a Map.
 */
export function createBases(
  given: ReadonlyMap<string, Histogram> | Readonly<Record<string, Histogram>>,
  domains: readonly string[],
  options: BasesOptions = {},
): Bases {
  checkOptions("createBases", options, { counts: boolean });
  object("createBases: given", given);
  checkDomains(domains);
  const find = domainFinder(domains);
  const rows = new Map<string, GivenRow>();
  checkOrder(given);
  for (const [name, histogram] of entriesOf(given)) {
    const what = `basis "${name}"`;
    if (typeof histogram !== "object" || histogram === null)
      throw new GradmixError(
        "config",
        `${what}: ${show(histogram)} does not fit; it must be numbers, one per domain or by name`,
      );
    const row: GivenRow = { columns: [], values: [], place: () => what };
    if (Array.isArray(histogram) || ArrayBuffer.isView(histogram)) {
      const list = histogram as ArrayLike<number>;
      if (list.length !== domains.length)
        throw new GradmixError("config", `${what}: ${list.length} values for ${domains.length} domains`);
      for (let i = 0; i < list.length; i++)
        // Only a number that is exactly 0 needs no check.
        if (list[i] !== 0) {
          row.columns.push(i);
          row.values.push(list[i]!);
        }
    } else
      for (const [domain, value] of entriesOf<number>(
        histogram as ReadonlyMap<string, number> | Readonly<Record<string, number>>,
      )) {
        row.columns.push(find(domain, "config", () => what));
        row.values.push(value);
      }
    rows.set(name, row);
  }
  return assemble(rows, domains, "config", options);
}

/**
 * Throws `config` for an object with whole numbers as keys: JavaScript lists those first, whatever the order in which they were written, but the
 * weights of bases are lists in their order.
 */
function checkOrder(given: ReadonlyMap<string, Histogram> | Readonly<Record<string, Histogram>>): void {
  // A Map keeps the order of all its keys.
  const names = Object.keys(given);
  const number = names.find((name) => /^(0|[1-9]\d*)$/.test(name));
  if (number !== undefined && names.length > 1)
    throw new GradmixError(
      "config",
      `bases: an object does not keep the order of names that are whole numbers, such as "${number}"; give a Map`,
    );
}

function entriesOf<T>(
  given: ReadonlyMap<string, T> | Readonly<Record<string, T>>,
): Iterable<readonly [string, T]> {
  return given instanceof Map ? (given as ReadonlyMap<string, T>) : Object.entries(given);
}

/** Makes a function that finds the index of a domain by its name. It throws, suggesting the nearest name, for an unknown one. */
export function domainFinder(
  domains: readonly string[],
): (name: string, code: "config" | "data", what: () => string) => number {
  // Normalised, so that é is the same name in both its Unicode forms.
  const indices = new Map(domains.map((name, i) => [name.normalize(), i]));
  const duplicate = domains.find((name, i) => indices.get(name.normalize()) !== i);
  if (duplicate !== undefined) throw new GradmixError("config", `domains: two are called "${duplicate}"`);
  return (name, code, what) => {
    const index = indices.get(name) ?? indices.get(name.normalize());
    if (index !== undefined) return index;
    const close = nearest(name, domains);
    const listed =
      domains.length <= 20 ? `the domains are ${domains.join(", ")}` : `there are ${domains.length}`;
    throw new GradmixError(
      code,
      `${what()}: there is no domain ${show(name)}; ${close === null ? listed : `did you mean "${close}"?`}`,
    );
  };
}

/** Checks the given entries and makes sparse rows of them. Not part of the package's interface. */
export function assemble(
  rows: ReadonlyMap<string, GivenRow>,
  domains: readonly string[],
  code: "config" | "data",
  { counts = false }: BasesOptions,
): Bases {
  if (domains.length === 0) throw new GradmixError("config", "domains: at least one is needed");
  if (rows.size === 0) throw new GradmixError(code, "bases: at least one is needed");
  let most = 0;
  for (const { columns } of rows.values()) most += columns.length;
  const offsets = new Int32Array(rows.size + 1);
  const columns = new Int32Array(most);
  const values = new Float64Array(most);
  let end = 0;
  let j = 0;
  for (const [name, row] of rows) {
    const start = end;
    const order = [...row.columns.keys()].sort((a, b) => row.columns[a]! - row.columns[b]!);
    let before = -1;
    for (const entry of order) {
      const [column, value] = [row.columns[entry]!, row.values[entry]];
      if (column === before)
        throw new GradmixError(code, `${row.place(entry)}: domain "${domains[column]}" is given twice`);
      before = column;
      if (typeof value !== "number" || !Number.isFinite(value) || value < 0)
        throw new GradmixError(
          code,
          `${row.place(entry)}: domain "${domains[column]}" has ${show(value)}; weights are finite and ≥ 0`,
        );
      if (value === 0) continue;
      columns[end] = column;
      values[end++] = value;
    }
    if (end === start)
      throw new GradmixError(
        code,
        `basis "${name}": it has no weight on any domain; leave it out, or give it weight`,
      );
    const own = values.subarray(start, end);
    const sum = sumOf(own);
    if (!counts && Math.abs(sum - 1) > SUM_TOLERANCE)
      throw new GradmixError(
        code,
        `basis "${name}": its weights sum to ${sum}, not to 1; divide them by their sum (in a program, the option counts does)`,
      );
    values.set(normalise(own), start);
    offsets[++j] = end;
  }
  const made: Bases = {
    names: [...rows.keys()],
    domains: [...domains],
    offsets,
    columns: columns.slice(0, end),
    values: values.slice(0, end),
  };
  known.add(made);
  return made;
}

const hasMembers = objectWith(
  "bases of createBases",
  ...["names", "domains", "offsets", "columns", "values"],
);

/** Bases that were checked, or made here. Bases are data that nobody changes, so once is enough. */
const known = new WeakSet<Bases>();

/** Accepts bases, also a copy of some, or some of your own, if their rows are distributions over the domains. */
export const checkBases: OptionCheck = (name, value) => {
  hasMembers(name, value);
  const bases = value as Bases;
  if (known.has(bases)) return;
  const fault = faultOf(bases);
  if (fault !== null) throw new GradmixError("config", `${name}: ${fault}; createBases makes bases`);
  known.add(bases);
};

/** What is wrong with the rows of bases; null if nothing is. */
function faultOf({ names, domains, offsets, columns, values }: Bases): string | null {
  const typed =
    Array.isArray(names) &&
    Array.isArray(domains) &&
    offsets instanceof Int32Array &&
    columns instanceof Int32Array &&
    values instanceof Float64Array;
  if (!typed)
    return "names and domains must be lists, offsets and columns Int32Arrays, and values a Float64Array";
  const n = names.length;
  if (offsets.length !== n + 1 || offsets[0] !== 0 || offsets[n] !== columns.length)
    return `the offsets of ${n} bases must be ${n + 1} numbers, from 0 to the ${columns.length} entries`;
  if (columns.length !== values.length)
    return `there are ${columns.length} columns for ${values.length} values`;
  for (let j = 0; j < n; j++) {
    const [from, to] = [offsets[j]!, offsets[j + 1]!];
    let before = -1;
    for (let e = from; e < to; e++) {
      const column = columns[e]!;
      if (column <= before || column >= domains.length)
        return `basis "${names[j]}" has a column ${column} after ${before}; columns ascend and are below the ${domains.length} domains`;
      if (!(values[e]! > 0)) return `basis "${names[j]}" has a value ${values[e]}; values are above 0`;
      before = column;
    }
    const sum = sumOf(values.subarray(from, to));
    if (!(Math.abs(sum - 1) <= SUM_TOLERANCE)) return `basis "${names[j]}" sums to ${sum}, not to 1`;
  }
  return null;
}

/**
 * Computes the domain weights α = Σⱼ wⱼ pⱼ [k], in `out` (overwritten) or a new array. Takes one multiply-add per non-zero entry. If w lies on the
 * simplex, so does α, up to rounding. With one basis per domain (P = I), α equals w bit for bit.
 *
 * Throws `config`, naming the basis, for weights that are negative or not finite and for arrays of other lengths; `out` is then unchanged.
 */
export function mixtureOf(bases: Bases, weights: ArrayLike<number>, out?: Weights): Weights {
  checkBases("mixtureOf: bases", bases);
  numberList("mixtureOf: weights", weights);
  const { names, domains, offsets, columns, values } = bases;
  if (weights.length !== names.length)
    throw new GradmixError("config", `weights: ${weights.length} values for ${names.length} bases`);
  if (out !== undefined && !(out instanceof Float64Array))
    throw new GradmixError("config", `mixtureOf: out: ${show(out)} is not a Float64Array`);
  if (out !== undefined && out.length !== domains.length)
    throw new GradmixError("config", `out: ${out.length} values for ${domains.length} domains`);
  for (let j = 0; j < names.length; j++)
    if (!Number.isFinite(weights[j]) || weights[j]! < 0)
      throw new GradmixError(
        "config",
        `weights: basis "${names[j]}" has ${weights[j]}; weights are finite and ≥ 0`,
      );
  // The weights may be the same memory as `out`.
  const given = out === undefined ? weights : Float64Array.from(weights);
  const alpha = out?.fill(0) ?? new Float64Array(domains.length);
  for (let j = 0; j < names.length; j++) {
    const weight = given[j]!;
    if (weight === 0) continue;
    for (let e = offsets[j]!; e < offsets[j + 1]!; e++) alpha[columns[e]!]! += weight * values[e]!;
  }
  return alpha;
}

/** Whether every basis is a single domain. Then the alignments of the bases are those of their domains. */
export function areDomains({ names, offsets }: Bases): boolean {
  return names.every((_, j) => offsets[j + 1] === offsets[j]! + 1);
}

/**
 * A hash of 64 bits of the bases, as text. A saved run can only be continued with the bases that it began with.
 * @public
 */
export function fingerprint({ names, domains, offsets, columns, values }: Bases): string {
  // FNV-1a in two lanes over 32-bit words.
  let [a, b] = [0x811c9dc5, 0x2f0b4a27];
  const word = (value: number): void => {
    a = Math.imul(a ^ value, 0x01000193);
    b = Math.imul(b ^ value ^ (a >>> 15), 0x01000193);
  };
  for (const name of [...names, "", ...domains]) {
    word(name.length);
    for (let i = 0; i < name.length; i++) word(name.charCodeAt(i));
  }
  for (const array of [offsets, columns, values])
    for (const value of new Uint32Array(array.buffer, array.byteOffset, array.byteLength / 4)) word(value);
  return [a, b].map((lane) => (lane >>> 0).toString(16).padStart(8, "0")).join("");
}
