/**
 * Basis distributions from text: JSON or CSV. Reading the file is the caller's; every complaint says on which line.
 *
 * JSON: `{ "target": { "web": 0.2, "code": 0.8 }, "mmlu": [0.5, 0.5] }`, numbers by domain name or one a domain. CSV: a header with the columns
 * basis, domain and weight in any order, then a line an entry. A domain that is left out has 0.
 */
import { GradmixError } from "../errors.ts";
import { assemble, type Bases, type BasesOptions, domainFinder, type GivenRow } from "./bases.ts";
import { show } from "../options.ts";

export interface ParseBasesOptions extends BasesOptions {
  readonly format: "json" | "csv";
  /** What messages call the text, such as its path. Default "bases". */
  readonly source?: string;
}

/** Throws `data`, naming the line, for text that is not of this form; otherwise like `createBases`, with the code `data`. */
export function parseBases(text: string, domains: readonly string[], options: ParseBasesOptions): Bases {
  const { format, source = "bases" } = options;
  const plain = text.replace(/^\uFEFF/, "");
  const rows = new Rows(source, domains);
  if (format === "csv") readCsv(plain, rows);
  else readJson(plain, rows);
  try {
    return assemble(rows.rows, domains, "data", options);
  } catch (error) {
    // What concerns a whole basis has no line; it gets the source.
    if (error instanceof GradmixError && error.code === "data" && !error.message.startsWith(source))
      throw new GradmixError("data", `${source}: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Collects entries with their lines. */
class Rows {
  readonly rows = new Map<string, GivenRow>();
  private readonly lines = new Map<string, number[]>();
  private readonly find: ReturnType<typeof domainFinder>;
  private readonly source: string;
  readonly count: number;

  constructor(source: string, domains: readonly string[]) {
    this.source = source;
    this.count = domains.length;
    this.find = domainFinder(domains);
  }

  has(basis: string): boolean {
    return this.rows.has(basis);
  }

  /** A basis, which may stay without entries. */
  open(basis: string): { row: GivenRow; lines: number[] } {
    const row = this.rows.get(basis);
    const lines = this.lines.get(basis);
    if (row !== undefined && lines !== undefined) return { row, lines };
    const fresh: number[] = [];
    const made: GivenRow = {
      columns: [],
      values: [],
      place: (i) => `${this.at(fresh[i])}: basis "${basis}"`,
    };
    this.rows.set(basis, made);
    this.lines.set(basis, fresh);
    return { row: made, lines: fresh };
  }

  add(basis: string, domain: string | number, value: number, line: number): void {
    const column =
      typeof domain === "number" ? domain : this.find(domain, "data", `${this.at(line)}: basis "${basis}"`);
    const { row, lines } = this.open(basis);
    row.columns.push(column);
    row.values.push(value);
    lines.push(line);
  }

  fault(line: number, what: string): GradmixError {
    return new GradmixError("data", `${this.at(line)}: ${what}`);
  }

  private at(line: number | undefined): string {
    return `${this.source}, line ${line}`;
  }
}

const COLUMNS = ["basis", "domain", "weight"] as const;

function readCsv(text: string, rows: Rows): void {
  const lines = text.split(/\r\n|\n|\r/);
  let order: readonly number[] | null = null;
  lines.forEach((content, i) => {
    const line = i + 1;
    if (content.trim() === "") return;
    const cells = csvCells(content, line, rows);
    if (order === null) {
      const header = cells.map((cell) => cell.toLowerCase());
      order = COLUMNS.map((name) => header.indexOf(name));
      const missing = COLUMNS.filter((name) => !header.includes(name));
      if (missing.length > 0 || header.length !== COLUMNS.length)
        throw rows.fault(line, `the header must be "basis,domain,weight", it is ${show(content)}`);
      return;
    }
    if (cells.length !== COLUMNS.length)
      throw rows.fault(line, `${cells.length} fields where there should be 3 (basis, domain, weight)`);
    const [basis, domain, weight] = order.map((at) => cells[at]);
    // Number("") is 0 and Number("0x10") is 16; neither is meant.
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(weight) ? Number(weight) : NaN;
    if (Number.isNaN(value)) throw rows.fault(line, `the weight ${show(weight)} is not a number`);
    rows.add(basis, domain, value, line);
  });
  if (order === null) throw rows.fault(1, 'it is empty; the header must be "basis,domain,weight"');
}

/** Fields of a line; those with commas or quotes are quoted as in RFC 4180, quotes doubled. No line breaks inside fields. */
function csvCells(content: string, line: number, rows: Rows): string[] {
  const cells: string[] = [];
  const field = /\s*(?:"((?:[^"]|"")*)"\s*|([^",]*))(,|$)/y;
  for (;;) {
    const match = field.exec(content);
    if (match === null) throw rows.fault(line, "a quote is not closed or stands inside a field");
    cells.push(match[1] === undefined ? match[2].trim() : match[1].replaceAll('""', '"'));
    if (match[3] === "") return cells;
  }
}

/** `JSON.parse` tells no line for much of what it refuses, and drops keys given twice without a word. */
function readJson(text: string, rows: Rows): void {
  const token = /[ \t\r\n]*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\.)*")|([^\s{}[\],:"]+)|([^])|$)/y;
  let line = 1;
  let counted = 0;
  let word = "";
  let kind: "sign" | "string" | "other" | "end" = "end";
  const advance = (): void => {
    const match = token.exec(text);
    const end = token.lastIndex;
    // A token holds no line break, so counting up to its end gives the line that it stands on.
    for (; counted < end; counted++) if (text.charCodeAt(counted) === 10) line++;
    const [sign, string, other, stray] = match === null ? [] : match.slice(1);
    if (sign !== undefined) [word, kind] = [sign, "sign"];
    else if (string !== undefined) [word, kind] = [string, "string"];
    else if ((other ?? stray) !== undefined) [word, kind] = [other ?? stray, "other"];
    else [word, kind] = ["", "end"];
  };
  const found = (): string => (kind === "end" ? "the end" : kind === "string" ? word : `"${word}"`);
  const expected = (what: string): GradmixError => rows.fault(line, `${what} expected, not ${found()}`);
  const isSign = (sign: string): boolean => kind === "sign" && word === sign;
  const eat = (sign: string): void => {
    if (!isSign(sign)) throw expected(`"${sign}"`);
    advance();
  };
  const string = (what: string): string => {
    if (kind !== "string") throw expected(what);
    try {
      return JSON.parse(word) as string;
    } catch {
      throw rows.fault(line, `${word} is not a JSON string`);
    }
  };
  const number = (): number => {
    if (kind !== "other" || !/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(word)) throw expected("a number");
    return Number(word);
  };
  /** Members of an object or a list, up to and with its closing sign. */
  const each = (close: "}" | "]", member: () => void): void => {
    advance();
    if (!isSign(close))
      for (;;) {
        member();
        if (isSign(close)) break;
        if (!isSign(",")) throw expected(`"," or "${close}"`);
        advance();
      }
    advance();
  };

  advance();
  if (!isSign("{")) throw expected('an object of bases, "{",');
  each("}", () => {
    const basis = string("the name of a basis");
    const start = line;
    if (rows.has(basis)) throw rows.fault(line, `there are two bases "${basis}"`);
    rows.open(basis);
    advance();
    eat(":");
    if (isSign("[")) {
      let at = 0;
      each("]", () => {
        const value = number();
        if (at < rows.count) rows.add(basis, at, value, line);
        at++;
        advance();
      });
      if (at !== rows.count)
        throw rows.fault(start, `basis "${basis}": ${at} values for ${rows.count} domains`);
    } else if (isSign("{"))
      each("}", () => {
        const domain = string("the name of a domain");
        const at = line;
        advance();
        eat(":");
        rows.add(basis, domain, number(), at);
        advance();
      });
    else throw expected(`basis "${basis}": "{" or "["`);
  });
  if (kind !== "end") throw expected("the end");
}
