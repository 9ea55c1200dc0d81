/**
 * Text sources: the documents in files, as a stream.
 *
 * `.jsonl` and `.ndjson` have one document per line, and `.csv`, `.tsv` and `.parquet` one per row; any other file is one document, or several of at
 * most 16 MiB. `.gz` and `.zst` are unpacked while reading. Memory holds one line (of at most 256 MiB), 16 MiB, or a group of rows of Parquet, so
 * files may be larger than memory.
 */
import { isUtf8 } from "node:buffer";
import { GradmixError } from "../errors.ts";
import { isObject } from "../json.ts";
import { boolean, callback, checkOptions, string, show } from "../options.ts";
import { jsonOrUndefined } from "../schema.ts";
import { joinBytes } from "./bytes.ts";
import { type ByteRange, contents, kindOfFile, kindProblem, zerosProblem } from "./contents.ts";
import { repeatedFieldFinder, writtenValue } from "./repeated-fields.ts";
import { csvRows, parquetRows } from "./tables.ts";

/** A document that was read. */
export interface Document {
  /** The text of the document. */
  readonly text: string;
  /** Name of the file; in a file of lines with the line ("a.jsonl.gz:12"), in a large file with the first byte of the part ("a.txt@16777210"). */
  readonly source: string;
  /** Value of the field `domainField`, if that option was given. */
  readonly domain?: string;
}

/** Options of `readDocuments`. */
export interface ReadOptions {
  /** Field of a line's object that contains the text; "a.b" is b within a, unless a field has that name. Default "text". */
  readonly textField?: string;
  /** Field with the name of a document's domain, as a string or a number; a document without it, or with a number that is not kept as it is written, is a broken line. Default: none. */
  readonly domainField?: string;
  /** Leaves out broken lines, and files (or 16 MiB of one) that are not UTF-8, instead of ending the read. Default false. */
  readonly skipBadLines?: boolean;
  /** Called for each of them with the reason. */
  readonly onSkip?: (source: string, reason: string) => void;
  /** Called for each line or row with an empty text, which is not a document, with its place and its number in the file (or in the part that is read). */
  readonly onEmpty?: (source: string, number: number) => void;
}

/**
 * Reads the documents of files, in order; empty ones are left out. Throws `data`, naming the file and line, for a line that is not JSON, has no text,
 * has it twice or is longer than 256 MiB, for a table with two columns of the text, for invalid UTF-8 (with the byte) and for archives that are cut off or damaged, and `config` for invalid options.
 */
export async function* readDocuments(
  files: Iterable<string>,
  options: ReadOptions = {},
): AsyncGenerator<Document, void, undefined> {
  checkOptions<ReadOptions>("readDocuments", options, {
    textField: string,
    domainField: string,
    skipBadLines: boolean,
    onSkip: callback,
    onEmpty: callback,
  });
  const given: unknown = files;
  // A string would be read as a list of its characters.
  if (typeof given !== "object" || given === null || !(Symbol.iterator in given))
    throw new GradmixError(
      "config",
      `readDocuments: files: ${show(given)} does not fit; it must be a list of paths`,
    );
  for (const file of files) yield* readPart({ path: file, from: 0, to: null }, options);
}

/** A part of a file that can be read separately (cuts.ts). */
export interface FilePart {
  readonly path: string;
  /** Its first byte. */
  readonly from: number;
  /** The byte after its end; null if it ends with the file. */
  readonly to: number | null;
  /** Number of lines before it, for error messages. Default 0. */
  readonly lines?: number;
}

/**
 * Reads the documents of a part of a file, like `readDocuments`. `onBytes` is called with the number of bytes read so far. Not part of the package's
 * interface.
 */
export async function* readPart(
  part: FilePart,
  options: ReadOptions,
  onBytes?: (bytes: number) => void,
): AsyncGenerator<Document, void, undefined> {
  const fields = { text: options.textField ?? "text", domain: options.domainField ?? null };
  const bad = (source: string, reason: string): void => {
    if (options.skipBadLines !== true)
      throw new GradmixError("data", `${source}: ${reason}; fix it, or skip it with --skip-bad-lines`);
    options.onSkip?.(source, reason);
  };
  const range = { from: part.from, to: part.to, ...(onBytes === undefined ? {} : { onBytes }) };
  yield* documentsOf(part, range, fields, options.skipBadLines === true, bad, options.onEmpty);
}

const isLines = /\.(jsonl|ndjson)(\.gz|\.zst)?$/i;
const isTable = /\.(csv|tsv)(\.gz|\.zst)?$/i;
const isParquet = /\.parquet$/i;

/** Whether the documents of a file, by its name, have fields, of which one holds the text. Not part of the package's interface. */
export function hasFields(file: string): boolean {
  return [isLines, isTable, isParquet].some((kind) => kind.test(file));
}

type Bad = (source: string, reason: string) => void;

async function* documentsOf(
  { path: file, from, lines: linesBefore = 0 }: FilePart,
  range: ByteRange,
  fields: Fields,
  skip: boolean,
  bad: Bad,
  onEmpty: (source: string, number: number) => void = () => {},
): AsyncGenerator<Document, void, undefined> {
  const parsed = (number: number, found: Parsed): readonly Document[] => {
    const source = `${file}:${number}`;
    if ("reason" in found) bad(source, found.reason);
    else if (found.text !== "") return [{ ...found, source }];
    else onEmpty(source, number);
    return [];
  };
  const names = [fields.text, ...(fields.domain === null ? [] : [fields.domain])];
  if (isParquet.test(file)) {
    for await (const row of parquetRows(file, names))
      yield* parsed(row.place, "reason" in row ? row : parseRecord(row.record, fields, "row"));
    return;
  }
  const kind = kindOfFile(file);
  const refused = kindProblem(kind);
  if (refused !== null) {
    bad(file, refused);
    return;
  }
  if (isTable.test(file)) {
    for await (const row of csvRows(file, kind, { fields: names, skip }))
      yield* parsed(row.place, "reason" in row ? row : parseRecord(row.record, fields, "row"));
    return;
  }
  if (isLines.test(file)) {
    let number = linesBefore;
    const repeatedIn = repeatedFieldFinder(fields.text, fields.domain);
    for await (const line of lines(file, kind, range)) {
      number++;
      const decoded =
        line === null
          ? { reason: `the line is longer than ${LINE >> 20} MiB; a document has at most that` }
          : decode(line, " of the line");
      if ("reason" in decoded) yield* parsed(number, decoded);
      else if (decoded.text.trim() !== "") yield* parsed(number, parseLine(decoded.text, fields, repeatedIn));
    }
    return;
  }
  if (fields.domain !== null)
    throw new GradmixError(
      "data",
      `${file}: only the documents of .jsonl, .ndjson, .csv, .tsv and .parquet files have fields that could name their domain`,
    );
  for await (const { bytes, at: within } of parts(file, kind, range)) {
    const at = from + within;
    const decoded = decode(bytes, "", at);
    const source = at === 0 ? file : `${file}@${at}`;
    if ("reason" in decoded) bad(file, decoded.reason);
    else if (decoded.text !== "") yield { text: decoded.text, source };
  }
}

interface Fields {
  readonly text: string;
  readonly domain: string | null;
}

type Parsed = { readonly text: string; readonly domain?: string } | { readonly reason: string };

function parseLine(line: string, fields: Fields, repeatedIn: ReturnType<typeof repeatedFieldFinder>): Parsed {
  const value = jsonOrUndefined(line);
  if (value === undefined) return { reason: "the line is not JSON" };
  if (!isObject(value)) return { reason: "the line is not a JSON object" };
  const found = parseRecord(value, fields, "object", line);
  if ("reason" in found) return found;
  const repeated = repeatedIn(line, found.text.length);
  if (repeated !== null) return { reason: `the object has the field "${repeated}" more than once` };
  // Only an escape can write half of a surrogate pair, for which UTF-8 has no bytes.
  const half = line.includes("\\u") ? /\p{Surrogate}/u.exec(`${found.text}\n${found.domain ?? ""}`) : null;
  return half === null
    ? found
    : {
        reason: `the text has \\u${half[0].charCodeAt(0).toString(16)}, which is half of a character`,
      };
}

/** The text of an object, and its domain if that is requested. `line` is the JSON of the object, if there is one. */
function parseRecord(
  record: object,
  fields: Fields,
  what: "object" | "row",
  line: string | null = null,
): Parsed {
  const text = fieldOf(record, fields.text);
  if (text === undefined)
    return {
      reason: `the ${what} has no field "${fields.text}" (${what === "row" ? `it has ${Object.keys(record).slice(0, 12).join(", ")}; ` : ""}--text-field names another)`,
    };
  if (Array.isArray(text))
    return {
      reason: `the field "${fields.text}" is a list, for example of messages, not a string; write its text into another field`,
    };
  if (typeof text !== "string") return { reason: `the field "${fields.text}" is not a string` };
  if (fields.domain === null) return { text };
  const domain = fieldOf(record, fields.domain);
  if (domain === undefined)
    return { reason: `the ${what} has no field "${fields.domain}" that names its domain (--domain-field)` };
  const refused = (is: string): Parsed => ({
    reason: `the field "${fields.domain}", which names the domain (--domain-field), ${is}`,
  });
  if (domain === null || domain === "") return refused(domain === null ? "is null" : "is empty");
  if (typeof domain === "number") {
    const written = (line === null ? null : writtenValue(line, fields.domain)) ?? String(domain);
    return isNameable(domain, written)
      ? { text, domain: String(domain) }
      : refused(`is ${written}, a number that cannot be kept as it is written; write it as a string`);
  }
  return typeof domain === "string" || typeof domain === "bigint"
    ? { text, domain: String(domain) }
    : refused("is neither a string nor a number");
}

/**
 * Whether a number can name a domain: it has the value that was written, so that no two numbers have one name, and its digits are all there. In a name,
 * 1e21 would become "1e-21".
 */
function isNameable(value: number, written: string): boolean {
  const digits = decimalOf(String(value));
  return digits !== null && !/e/i.test(String(value)) && digits === decimalOf(written);
}

/** One spelling for all that write the same decimal number; null for what is not a number. */
function decimalOf(written: string): string | null {
  const [, sign, whole, fraction = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i.exec(written) ?? [];
  if (sign === undefined || whole === undefined) return null;
  const digits = `${whole}${fraction}`.replace(/^0+/, "");
  const significant = digits.replace(/0+$/, "");
  if (significant === "") return "0";
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`;
}

/** A field of an object, or of nested objects for a path "a.b"; undefined if it does not exist. */
function fieldOf(record: object, name: string): unknown {
  if (Object.hasOwn(record, name)) return Reflect.get(record, name);
  const dot = name.indexOf(".");
  if (dot < 0) return undefined;
  const inner = fieldOf(record, name.slice(0, dot));
  return isObject(inner) ? fieldOf(inner, name.slice(dot + 1)) : undefined;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The text of bytes that start at byte `at` of the source `where`, or the problem with them. */
function decode(bytes: Uint8Array, where: string, at = 0): { text: string } | { reason: string } {
  try {
    const text = utf8.decode(bytes);
    const zeros = zerosProblem(bytes);
    return zeros === null ? { text } : { reason: `${zeros}; save it as UTF-8` };
  } catch {
    if (isUtf8(bytes)) return { reason: `${bytes.length} bytes are too many for one document` };
    const wide = at === 0 && bytes.length > 1 && 0xfe + 0xff === bytes[0]! + bytes[1]!;
    return {
      reason: `invalid UTF-8 at byte ${at + firstInvalid(bytes)}${where}${wide ? " (it looks like UTF-16)" : ""}`,
    };
  }
}

/** Index of the first invalid byte, or the length if the end is missing. */
function firstInvalid(bytes: Uint8Array): number {
  let [valid, invalid] = [0, bytes.length + 1];
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >> 1;
    try {
      // As the start of a stream, so that a character cut at `middle` is not an error.
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, middle), { stream: true });
      valid = middle;
    } catch {
      invalid = middle;
    }
  }
  return Math.min(valid, bytes.length);
}

/** Largest number of bytes of a document in a file without lines. */
export const PART: number = 1 << 24;

/** A file as a whole, or cut after line ends (or between characters, if lines are long) into parts of at most PART bytes. */
async function* parts(
  file: string,
  kind: string | null,
  range: ByteRange,
): AsyncGenerator<{ bytes: Uint8Array; at: number }, void, undefined> {
  let held: Uint8Array[] = [];
  let size = 0;
  let at = 0;
  for await (const chunk of contents(file, kind, range)) {
    held.push(chunk);
    size += chunk.length;
    while (size > PART) {
      const bytes = joinBytes(held);
      let end = bytes.subarray(0, PART).lastIndexOf(10) + 1;
      if (end < PART / 2) for (end = PART; end > PART - 4 && (bytes[end]! & 0xc0) === 0x80;) end--;
      yield { bytes: bytes.subarray(0, end), at };
      held = [bytes.slice(end)];
      size -= end;
      at += end;
    }
  }
  if (size > 0) yield { bytes: joinBytes(held), at };
}

/** Largest number of bytes of a line: half of the longest string, so that its text always fits. */
const LINE = 1 << 28;

/** The lines of a file without their ends; null for a line longer than LINE, whose text is dropped. Memory holds one chunk and the line that crosses it. */
async function* lines(
  file: string,
  kind: string | null,
  range: ByteRange,
): AsyncGenerator<Uint8Array | null, void, undefined> {
  let rest: Uint8Array[] = [];
  let size = 0;
  const endLine = (): Uint8Array | null => {
    const line = size > LINE ? null : joinBytes(rest);
    rest = [];
    size = 0;
    return line;
  };
  for await (const chunk of contents(file, kind, range)) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      rest.push(chunk.subarray(from, end));
      size += end - from;
      yield endLine();
      from = end + 1;
    }
    if (from === chunk.length) continue;
    size += chunk.length - from;
    // A copy, so that the rest of the chunk can be freed.
    if (size > LINE) rest = [];
    else rest.push(chunk.slice(from));
  }
  if (size > 0) yield endLine();
}
