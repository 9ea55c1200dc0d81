/** Lines of CSV, with fields quoted as in RFC 4180. */

/** A field. Quotes are added where a reader would otherwise split the field, or take spaces from its ends. */
export function csvField(text: string): string {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Rows of fields, each ended by a line feed. */
export function csvText(rows: readonly (readonly string[])[]): string {
  return rows.map((row) => `${row.map(csvField).join(",")}\n`).join("");
}

/**
 * The fields of a line, without spaces around those that have no quotes; null if a quote is not closed or stands inside a field. A field cannot contain a line
 * break.
 */
export function csvFields(line: string): string[] | null {
  const fields: string[] = [];
  const field = /\s*(?:"((?:[^"]|"")*)"\s*|([^",]*))(,|$)/y;
  for (;;) {
    const match = field.exec(line);
    if (match === null) return null;
    const [, inQuotes, bare = "", end] = match;
    fields.push(inQuotes === undefined ? bare.trim() : inQuotes.replaceAll('""', '"'));
    if (end === "") return fields;
  }
}
