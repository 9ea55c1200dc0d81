/** Tables in Markdown from observations. */
import { interval, type Interval } from "#dist/runs/statistics.js";

export interface Observation {
  readonly row: string;
  readonly column: string;
  /** Observations of two rows are paired when column, group and seed are the same. */
  readonly group: string;
  readonly seed: number;
  readonly value: number;
}

/** A column with this name has the observations of all columns. */
export const ALL = "all";

export interface TableOptions {
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** Heading of the column with the names of the rows. */
  readonly corner: string;
  readonly digits?: number;
}

/** Returns a table of means ± half of their 95 % intervals, over groups and seeds. */
export function meansTable(observations: readonly Observation[], options: TableOptions): string {
  return table(options, (row, column) =>
    within(observations, column)
      .filter((o) => o.row === row)
      .map(({ value }) => value),
  );
}

/** Returns a table of the paired differences of the row `of` minus each other row. Negative: `of` is lower. */
export function differencesTable(
  observations: readonly Observation[],
  { of, ...options }: TableOptions & { readonly of: string },
): string {
  const rows = options.rows.filter((row) => row !== of);
  return meansTable(
    rows.flatMap((row) => paired(observations, of, row)),
    { ...options, rows },
  );
}

function within(observations: readonly Observation[], column: string): readonly Observation[] {
  return column === ALL ? observations : observations.filter((o) => o.column === column);
}

/** Returns `of` minus `from` in each pair, under the name of `from`. */
export function paired(observations: readonly Observation[], of: string, from: string): Observation[] {
  const key = ({ column, group, seed }: Observation): string => JSON.stringify([column, group, seed]);
  const others = new Map(observations.filter(({ row }) => row === from).map((o) => [key(o), o.value]));
  return observations
    .filter(({ row }) => row === of)
    .flatMap((o) => {
      const other = others.get(key(o));
      return other === undefined ? [] : [{ ...o, row: from, value: o.value - other }];
    });
}

function table(
  { rows, columns, corner, digits = 3 }: TableOptions,
  values: (row: string, column: string) => readonly number[],
): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [
    line([corner, ...columns]),
    line(["---", ...columns.map(() => "---:")]),
    ...rows.map((row) =>
      line([row, ...columns.map((column) => inWords(interval(values(row, column)), digits))]),
    ),
  ].join("\n");
}

/** "4.12 ± 0.03", with a real minus; "–" for nothing. */
function inWords({ mean, half, count }: Interval, digits: number): string {
  if (count === 0) return "–";
  const centre = number(mean, digits);
  return half === null ? centre : `${centre} ± ${half.toFixed(digits)}`;
}

export function number(value: number, digits: number): string {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}
