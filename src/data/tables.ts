/** Rows of tables as documents: CSV and TSV as a stream, Parquet a group of rows at a time. */
import { type FileHandle, open } from "node:fs/promises";
import { finished } from "node:stream/promises";
import { errorCode, GradmixError } from "../errors.ts";
import { contents, zerosProblem } from "./contents.ts";

/** A row, or its problem. */
export type Row =
  { readonly record: object; readonly place: number } | { readonly reason: string; readonly place: number };

/** Largest number of characters in a row of CSV. */
const ROW = 1 << 28;

/**
 * The rows of a CSV file (RFC 4180), or of a TSV file, in which quotes are ordinary characters. The first row names the columns; `place` counts rows
 * including this one, as spreadsheets do. With `skip`, a broken row has a reason; otherwise it ends the reading. Throws `data` for a file that is not
 * UTF-8, and for one with two columns of the name of a field.
 */
export async function* csvRows(
  file: string,
  kind: string | null,
  { fields, skip }: { readonly fields: readonly string[]; readonly skip: boolean },
): AsyncGenerator<Row, void, undefined> {
  const { CsvError, parse } = await import("csv-parse");
  // Rows are taken as they are parsed, because the buffer of a stream is lost after an error.
  const rows: Row[] = [];
  let place = 1;
  const tabs = /\.tsv(\.gz|\.zst)?$/i.test(file);
  const parser = parse({
    columns(header: readonly string[]) {
      for (const name of fields)
        if (header.indexOf(name) !== header.lastIndexOf(name)) throw twoColumns(`${file}:1`, name);
      return [...header];
    },
    bom: true,
    skip_empty_lines: true,
    max_record_size: ROW,
    relax_quotes: true,
    // With `raw`, a record comes with its characters.
    ...(tabs ? { delimiter: "\t", quote: null } : { raw: true }),
    on_record(read: object) {
      place++;
      if (tabs) rows.push({ record: read, place });
      else {
        const { record, raw } = read as Raw;
        rows.push(isWellQuoted(record, raw) ? { record, place } : { reason: AFTER_QUOTE, place });
      }
      return null;
    },
    ...(skip
      ? {
          skip_records_with_error: true,
          on_skip: (error) => void rows.push({ reason: problem(error), place: ++place }),
        }
      : {}),
  });
  parser.resume();
  // The error is reported by the calls that meet it.
  parser.on("error", () => {});
  try {
    for await (const text of strictText(file, kind)) {
      await new Promise<void>((done, fail) =>
        parser.write(text, (error) => (error instanceof Error ? fail(error) : done())),
      );
      yield* rows.splice(0);
    }
    parser.end();
    await finished(parser);
    yield* rows;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    yield* rows;
    yield { reason: problem(error), place: ++place };
  } finally {
    parser.destroy();
  }
}

/** What the parser gives for a row with `raw`. */
interface Raw {
  readonly record: object;
  readonly raw: string;
}

const AFTER_QUOTE = "the row is broken (text follows the closing quote of a cell)";

/**
 * Whether each quoted cell of a row of CSV ends at its closing quote. The parser takes quotes within a cell that is not quoted as they are (`5" pipe`),
 * and with them also `"text" more`, with its quotes; only the latter gives a value that begins with a quote without doubling it.
 */
function isWellQuoted(record: object, raw: string): boolean {
  if (!Object.values(record).some((value) => String(value).startsWith('"'))) return true;
  // Empty lines before the row.
  for (let at = raw.search(/[^\r\n]/); at >= 0 && at < raw.length; at++) {
    if (raw[at] === '"') {
      do at = raw.indexOf('"', at + 1) + 1;
      while (at > 0 && raw[at] === '"');
      // The parser reports a quote that is never closed.
      if (at === 0) return true;
      if (at < raw.length && !",\r\n".includes(raw[at] ?? "")) return false;
    }
    const comma = raw.indexOf(",", at);
    if (comma < 0) return true;
    at = comma;
  }
  return true;
}

/** The error for a table in which two columns have the name of a field, so that the text of one would be lost. */
function twoColumns(source: string, name: string): GradmixError {
  return new GradmixError(
    "data",
    `${source}: two columns have the name "${name}"; rename or remove one of them`,
  );
}

function problem(error: Error | undefined): string {
  return `the row is broken (${(error?.message ?? "").replaceAll(/\s+/g, " ").slice(0, 200)})`;
}

/** Text of a file in pieces. */
async function* strictText(file: string, kind: string | null): AsyncGenerator<string, void, undefined> {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  let at = 0;
  try {
    for await (const bytes of contents(file, kind)) {
      const zeros = zerosProblem(bytes);
      if (zeros !== null)
        throw new GradmixError("data", `${file}: ${zeros}; a table has to be whole, so save it as UTF-8`);
      yield utf8.decode(bytes, { stream: true });
      at += bytes.length;
    }
    yield utf8.decode();
  } catch (error) {
    if (error instanceof GradmixError || !(error instanceof TypeError)) throw error;
    throw new GradmixError(
      "data",
      `${file}: invalid UTF-8 near byte ${at}; a table has to be whole, so save it as UTF-8`,
      {
        cause: error,
      },
    );
  }
}

/** Largest group of rows that is read, in bytes of the requested columns. */
const GROUP = 2 ** 31;

/**
 * The rows of a Parquet file, with the columns of the fields, a group of rows at a time. `hint` says how to name another column. `place` counts rows
 * from 1. Throws `config`, naming the package, if hyparquet is not installed, and `data` for a file that is cut off or damaged, lacks the column, has
 * it twice or uses an unknown compression.
 */
export async function* parquetRows(
  file: string,
  fields: readonly string[],
  hint = "--text-field names another",
): AsyncGenerator<Row, void, undefined> {
  const { parquetMetadataAsync, parquetReadObjects, parquetSchema, compressors } =
    await parquetPackages(file);
  const fails = (what: string, cause?: unknown): GradmixError =>
    new GradmixError("data", `${file}: ${what}`, { cause });
  let handle: FileHandle;
  try {
    handle = await open(file);
  } catch (error) {
    throw fails("it cannot be read", error);
  }
  try {
    const { size } = await handle.stat();
    const buffer = {
      byteLength: size,
      async slice(start: number, end: number = size): Promise<ArrayBuffer> {
        const bytes = new Uint8Array(end - start);
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
        if (bytesRead < bytes.length) throw new Error(`it is cut off at byte ${start + bytesRead}`);
        return bytes.buffer;
      },
    };
    const attempt = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work();
      } catch (error) {
        throw fails(
          `it is not a complete Parquet file (${error instanceof Error ? error.message : String(error)})`,
          error,
        );
      }
    };
    const metadata = await attempt(() => parquetMetadataAsync(buffer));
    const groups = metadata.row_groups;
    const names = new Set(
      groups.flatMap(({ columns }) => columns.map(({ meta_data: data }) => data?.path_in_schema[0] ?? "")),
    );
    const columns = fields.map((field) => (names.has(field) ? field : (field.split(".")[0] ?? "")));
    const missing = columns.find((column) => !names.has(column));
    if (groups.length > 0 && missing !== undefined)
      throw fails(
        `it has no column "${missing}"; its columns are ${[...names].slice(0, 12).join(", ")} (${hint})`,
      );
    for (const field of fields) {
      const repeated = repeatedColumn(parquetSchema(metadata), field);
      if (repeated !== null) throw twoColumns(file, repeated);
    }
    let rowStart = 0;
    for (const group of groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const bytes = group.columns
        .filter(({ meta_data: data }) => columns.includes(data?.path_in_schema[0] ?? ""))
        .reduce((sum, { meta_data: data }) => sum + Number(data?.total_uncompressed_size ?? 0), 0);
      if (bytes > GROUP)
        throw fails(
          `rows ${rowStart + 1} to ${rowEnd} are one group of ${bytes} bytes; write it with groups of at most 2 GiB`,
        );
      const from = rowStart;
      const rows = await attempt(() =>
        parquetReadObjects({ file: buffer, metadata, columns, rowStart: from, rowEnd, compressors }),
      );
      for (const [i, record] of rows.entries()) yield { record, place: from + i + 1 };
      rowStart = rowEnd;
    }
  } finally {
    await handle.close();
  }
}

/** A column of Parquet, with the columns nested in it. */
interface Column {
  readonly element: { readonly name: string };
  readonly children: readonly Column[];
}

/** The name of two columns in one place on the path of a field; null if there are none. */
function repeatedColumn({ children }: Column, field: string): string | null {
  const named = (name: string): readonly Column[] => children.filter(({ element }) => element.name === name);
  const dot = field.indexOf(".");
  const whole = named(field);
  const own = whole.length > 0 || dot < 0 ? whole : named(field.slice(0, dot));
  const [first, second] = own;
  if (first === undefined) return null;
  if (second !== undefined) return second.element.name;
  return own === whole ? null : repeatedColumn(first, field.slice(dot + 1));
}

async function parquetPackages(file: string) {
  try {
    const [reader, { compressors }] = await Promise.all([
      import("hyparquet"),
      import("hyparquet-compressors"),
    ]);
    return { ...reader, compressors };
  } catch (cause) {
    if (errorCode(cause) !== "ERR_MODULE_NOT_FOUND") throw cause;
    throw new GradmixError(
      "config",
      `${file}: to read Parquet, install two packages beside gradmix: npm install hyparquet hyparquet-compressors`,
      { cause },
    );
  }
}
