/**
 * Reads basis distributions from JSON or CSV text. The caller reads the file; every error names the line.
 *
 * JSON: `{ "target": { "web": 0.2, "code": 0.8 }, "mmlu": [0.5, 0.5] }`, with numbers by domain name or one per domain. CSV: a header with the
 * columns basis, domain and weight in any order, then one line per entry. A domain that is left out has weight 0.
 */
import { csvFields } from "../csv.ts";
import { GradmixError } from "../errors.ts";
import { type Json, jsonLine, type JsonPath, parseJson } from "../json.ts";
import { assemble, type Bases, type BasesOptions, domainFinder, type GivenRow } from "./bases.ts";
import { numeral } from "../numeral.ts";
import { boolean, checkOptions, oneOf, required, show, string } from "../options.ts";
import { checkDomains } from "./rule.ts";

/** Options of `parseBases`. */
export interface ParseBasesOptions extends BasesOptions {
  /** Format of the text. */
  readonly format: "json" | "csv";
  /** Name of the text in error messages, such as its path. Default "bases". */
  readonly source?: string;
}

/**
 * Parses named distributions over `domains`. Throws `data`, naming the line, for text that does not have the format; its other errors are those of
 * `createBases`, with the code `data`.
 */
export function parseBases(text: string, domains: readonly string[], options: ParseBasesOptions): Bases {
  checkOptions("parseBases", options, {
    format: required(oneOf("json", "csv")),
    source: string,
    counts: boolean,
  });
  string("parseBases: text", text);
  checkDomains(domains);
  const { format, source = "bases" } = options;
  const rows = format === "csv" ? readCsv(text, new Rows(source, domains)) : readJson(text, source, domains);
  try {
    return assemble(rows, domains, "data", options);
  } catch (error) {
    // An error about a whole basis has no line, so it names only the source.
    if (error instanceof GradmixError && error.code === "data" && !error.message.startsWith(source))
      throw new GradmixError("data", `${source}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Collects the entries of each basis with their lines. */
class Rows {
  readonly rows = new Map<string, GivenRow & { readonly lines: number[] }>();
  private readonly find: ReturnType<typeof domainFinder>;
  private readonly source: string;

  constructor(source: string, domains: readonly string[]) {
    this.source = source;
    this.find = domainFinder(domains);
  }

  private open(basis: string): GivenRow & { readonly lines: number[] } {
    const known = this.rows.get(basis);
    if (known !== undefined) return known;
    const lines: number[] = [];
    const place = (i: number): string => `${this.at(lines[i])}: basis "${basis}"`;
    const made = { columns: [], values: [], lines, place };
    this.rows.set(basis, made);
    return made;
  }

  add(basis: string, domain: string, value: number, line: number): void {
    const column = this.find(domain, "data", () => `${this.at(line)}: basis "${basis}"`);
    const row = this.open(basis);
    row.columns.push(column);
    row.values.push(value);
    row.lines.push(line);
  }

  fault(line: number, what: string): GradmixError {
    return new GradmixError("data", `${this.at(line)}: ${what}`);
  }

  private at(line: number | undefined): string {
    return `${this.source}, line ${line}`;
  }
}

const COLUMNS = ["basis", "domain", "weight"] as const;

function readCsv(text: string, rows: Rows): ReadonlyMap<string, GivenRow> {
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/);
  let order: readonly [basis: number, domain: number, weight: number] | null = null;
  lines.forEach((content, i) => {
    const line = i + 1;
    if (content.trim() === "") return;
    const cells = csvFields(content);
    if (cells === null) throw rows.fault(line, "a quote is not closed or stands inside a field");
    if (order === null) {
      const header = cells.map((cell) => cell.toLowerCase());
      order = [header.indexOf("basis"), header.indexOf("domain"), header.indexOf("weight")];
      const missing = COLUMNS.filter((name) => !header.includes(name));
      if (missing.length > 0 || header.length !== COLUMNS.length)
        throw rows.fault(line, `the header must be "basis,domain,weight", it is ${show(content)}`);
      return;
    }
    if (cells.length !== COLUMNS.length)
      throw rows.fault(line, `${cells.length} fields where there should be 3 (basis, domain, weight)`);
    const [basis, domain, weight] = [cells[order[0]]!, cells[order[1]]!, cells[order[2]]!];
    const value = numeral.test(weight) ? Number(weight) : NaN;
    if (Number.isNaN(value)) throw rows.fault(line, `the weight ${show(weight)} is not a number`);
    rows.add(basis.normalize(), domain, value, line);
  });
  if (order === null) throw rows.fault(1, 'it is empty; the header must be "basis,domain,weight"');
  return rows.rows;
}

function readJson(text: string, source: string, domains: readonly string[]): Map<string, GivenRow> {
  const at = (path: JsonPath): string => `${source}, line ${jsonLine(text, path)}`;
  const fault = (path: JsonPath, what: string): GradmixError =>
    new GradmixError("data", `${at(path)}: ${what}`);
  const find = domainFinder(domains);
  const bases = parseJson(text, { source, code: "data" });
  if (!(bases instanceof Map)) throw fault([], `it is ${show(bases)}, not an object of bases`);
  const rows = new Map<string, GivenRow>();
  for (const [basis, given] of bases as ReadonlyMap<string, Json>) {
    const what = `basis "${basis}"`;
    const isList = Array.isArray(given);
    if (!isList && !(given instanceof Map))
      throw fault(
        [basis],
        `${what}: ${show(given)} does not fit; it must be numbers, one per domain or by name`,
      );
    const entries = [...(given as readonly Json[] | ReadonlyMap<string, Json>).entries()];
    if (isList && entries.length !== domains.length)
      throw fault([basis], `${what}: ${entries.length} values for ${domains.length} domains`);
    const row: GivenRow = {
      columns: [],
      values: [],
      // The position is found by parsing again, so that valid files do not pay for it.
      place: (i) => `${at([basis, entries[i]![0]])}: ${what}`,
    };
    for (const [i, [domain, value]] of entries.entries()) {
      if (typeof value !== "number") throw fault([basis, domain], `${what}: ${show(value)} is not a number`);
      row.columns.push(typeof domain === "number" ? domain : find(domain, "data", () => row.place(i)));
      row.values.push(value);
    }
    rows.set(basis, row);
  }
  return rows;
}
