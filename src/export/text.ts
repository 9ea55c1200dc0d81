/** Text for other tools: quotes names and paths for each, and prints weights as plain decimals. */

/** A number in its printed form. */
export interface Decimal {
  readonly decimal: string;
}

/** Contents of the files. A Map keeps the order of its keys, whatever they are. */
export type Data = string | number | null | Decimal | readonly Data[] | ReadonlyMap<string, Data>;

export function decimal(text: string): Decimal {
  return { decimal: text };
}

/**
 * A string in double quotes that JSON, YAML 1.1 and 1.2, and Python all read as the same text. Characters that YAML does not allow in a file (DEL, C1
 * controls, the separators of Unicode, a byte-order mark, halves of a surrogate pair) are escaped.
 */
function quoted(text: string): string {
  return JSON.stringify(text).replaceAll(
    /[\u007F-\u00A0\u2028\u2029\uFEFF\uFFFE\uFFFF]/g,
    (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function isMap(data: Data): data is ReadonlyMap<string, Data> {
  return data instanceof Map;
}

function isList(data: Data): data is readonly Data[] {
  return Array.isArray(data);
}

/** JSON with each list of scalars on one line. Python reads it as the same dicts and lists, if it contains no null. */
export function jsonText(data: Data, indent = 0): string {
  const margin = `\n${"  ".repeat(indent + 1)}`;
  const end = `\n${"  ".repeat(indent)}`;
  if (isMap(data)) {
    if (data.size === 0) return "{}";
    const members = Array.from(data, ([name, value]) => `${quoted(name)}: ${jsonText(value, indent + 1)}`);
    return `{${margin}${members.join(`,${margin}`)}${end}}`;
  }
  if (isList(data)) {
    if (data.every((item) => !isMap(item) && !isList(item)))
      return `[${data.map((item) => jsonText(item)).join(", ")}]`;
    return `[${margin}${data.map((item) => jsonText(item, indent + 1)).join(`,${margin}`)}${end}]`;
  }
  return scalar(data);
}

/** YAML in block style, with every name and text in double quotes, so that no version of YAML reads them as a number, a date, null or true. */
export function yamlText(data: Data, indent = 0): string {
  const margin = "  ".repeat(indent);
  if (isMap(data)) {
    return Array.from(data, ([name, value]) => {
      const key = plainKey.test(name) ? name : quoted(name);
      return isBlock(value)
        ? `${margin}${key}:\n${yamlText(value, indent + 1)}`
        : `${margin}${key}: ${flow(value)}\n`;
    }).join("");
  }
  if (isList(data))
    return data
      .map((item) =>
        // The first member follows the dash on its line; the others are below it.
        isBlock(item) ? `${margin}- ${yamlText(item, indent + 1).trimStart()}` : `${margin}- ${flow(item)}\n`,
      )
      .join("");
  return `${margin}${scalar(data)}\n`;
}

/** Bare keys: words of the tools, none of which YAML reads as anything else. Names of domains stay bare only if they match. */
const plainKey = /^(?!(?:y|n|yes|no|on|off|true|false|null)$)[a-z_]{2,}$/;

function isBlock(data: Data): boolean {
  return (isMap(data) && data.size > 0) || (isList(data) && data.some((item) => isMap(item)));
}

function flow(data: Data): string {
  if (isList(data)) return `[${data.map(flow).join(", ")}]`;
  if (isMap(data))
    return `{${Array.from(data, ([name, value]) => `${quoted(name)}: ${flow(value)}`).join(", ")}}`;
  return scalar(data);
}

function scalar(data: string | number | null | Decimal): string {
  if (data === null) return "null";
  return typeof data === "string" ? quoted(data) : typeof data === "number" ? String(data) : data.decimal;
}

/** Lines of a comment. Characters that would end a line, or are invisible, are replaced by spaces. */
export function comment(lines: readonly string[]): string {
  return lines.map((line) => `# ${oneLine(line)}\n`).join("");
}

function oneLine(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\uFEFF]/gu, " ");
}
