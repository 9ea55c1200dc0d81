/**
 * What `JSON.parse` does not tell about an object: fields that stand twice, of which it keeps the last value and drops the others without a word, and how a
 * number is written, of which it keeps about 16 digits.
 */

/**
 * Returns a function that tells which field stands more than once in a line, or null. The line is valid JSON and holds an object in whose field `text`
 * a text of `length` UTF-16 units was found; `domain` is a second field, or null. A field "a.b" is b within a, unless a field has that name.
 *
 * Nearly all lines are decided by a search for the names outside of the text, which takes a few per cent of the time of reading; only the others are
 * read member by member. The text that was found is the last of its name and takes at least `length` characters of the line, so all names on its path
 * are before the last `length` characters.
 */
export function repeatedFieldFinder(
  text: string,
  domain: string | null,
): (line: string, length: number) => string | null {
  const isTextClear = quickCheck(text);
  const isDomainClear = domain === null ? null : quickCheck(domain);
  const quoted = text.includes(".") ? null : `"${text}"`;
  return (line, length) => {
    const open = line.indexOf("{");
    const head = line.slice(0, line.length - length);
    const clear = isTextClear(head);
    if (!clear && isRepeated(line, open, text)) return text;
    if (domain === null || isDomainClear === null) return null;
    const rest = clear && quoted !== null ? withoutText(line, quoted, length) : line;
    return !isDomainClear(rest) && isRepeated(line, open, domain) ? domain : null;
  };
}

/** The line without the first `length` characters of the value that follows the name, in a line that has the name once. */
function withoutText(line: string, quoted: string, length: number): string {
  for (let at = line.indexOf(quoted); at >= 0; at = line.indexOf(quoted, at)) {
    at = afterSpace(line, at + quoted.length);
    if (line[at] === ":") return line.slice(0, at) + line.slice(afterSpace(line, at + 1) + 1 + length);
  }
  return line;
}

/** The names by which a field may be found: of "a.b" these are "a.b", "a" and "b". */
function namesOf(field: string): string[] {
  const dot = field.indexOf(".");
  return dot < 0 ? [field] : [field, field.slice(0, dot), ...namesOf(field.slice(dot + 1))];
}

/** A check that is true only if no name of the field can stand twice in a part of a line: each is there at most once, and none with an escape. */
function quickCheck(field: string): (part: string) => boolean {
  const names = [...new Set(namesOf(field))];
  // For these characters JSON has no spelling but the plain one and an escape by number.
  if (!names.every((name) => /^[ !#-.0-[\]-~]*$/.test(name))) return () => false;
  const codes = new Set(names.flatMap((name) => Array.from(name, (c) => c.charCodeAt(0).toString(16))));
  const escape = codes.size === 0 ? null : new RegExp(`\\\\u00(?:${[...codes].join("|")})`, "i");
  const quoted = names.map((name) => `"${name}"`);
  return (part) =>
    quoted.every((name) => !isNamedTwice(part, name)) && (escape === null || !escape.test(part));
}

/** Whether a quoted text is followed by a colon more than once. */
function isNamedTwice(line: string, quoted: string): boolean {
  let found = false;
  for (let at = line.indexOf(quoted); at >= 0; at = line.indexOf(quoted, at)) {
    at += quoted.length;
    if (line[afterSpace(line, at)] !== ":") continue;
    if (found) return true;
    found = true;
  }
  return false;
}

/** Whether the field stands twice in the object that begins at `open`. */
function isRepeated(line: string, open: number, field: string): boolean {
  const dot = field.indexOf(".");
  const outer = dot < 0 ? null : field.slice(0, dot);
  let [whole, outers, inner] = [0, 0, 0];
  for (const { name, value } of membersOf(line, open)) {
    if (name === field) whole++;
    if (name === outer) {
      outers++;
      inner = value;
    }
  }
  if (whole > 0 || outer === null) return whole > 1;
  return outers > 1 || (outers === 1 && line[inner] === "{" && isRepeated(line, inner, field.slice(dot + 1)));
}

/** The text of the value of a field, in a line of JSON that holds an object; null if it does not have the field. Of several the last is returned. */
export function writtenValue(line: string, field: string): string | null {
  return valueIn(line, line.indexOf("{"), field);
}

/** The text of the value of a field in the object that begins at `open`. */
function valueIn(line: string, open: number, field: string): string | null {
  const dot = field.indexOf(".");
  const outer = dot < 0 ? null : field.slice(0, dot);
  let found: string | null = null;
  let inner: number | null = null;
  for (const { name, value, end } of membersOf(line, open)) {
    if (name === field) found = line.slice(value, end).trimEnd();
    if (name === outer) inner = value;
  }
  return found !== null || inner === null || line[inner] !== "{"
    ? found
    : valueIn(line, inner, field.slice(dot + 1));
}

/** The members of the object that begins at `open`: their names, and where their values begin and end. */
function* membersOf(
  line: string,
  open: number,
): Generator<{ readonly name: unknown; readonly value: number; readonly end: number }> {
  let at = afterSpace(line, open + 1);
  while (line[at] === '"') {
    const after = afterString(line, at);
    const value = afterSpace(line, afterSpace(line, after) + 1);
    const end = afterValue(line, value);
    yield { name: JSON.parse(line.slice(at, after)), value, end };
    // After the value comes a comma, or the end of the object.
    at = afterSpace(line, afterSpace(line, end) + 1);
  }
}

function afterSpace(line: string, from: number): number {
  let at = from;
  while (line[at] === " " || line[at] === "\t" || line[at] === "\n" || line[at] === "\r") at++;
  return at;
}

/** The position after the string that begins at `from`. */
function afterString(line: string, from: number): number {
  for (let at = line.indexOf('"', from + 1); at >= 0; at = line.indexOf('"', at + 1)) {
    let before = at;
    while (line[before - 1] === "\\") before--;
    // A quote after an odd number of backslashes belongs to the string.
    if ((at - before) % 2 === 0) return at + 1;
  }
  return line.length;
}

/** The position after the value that begins at `from`. */
function afterValue(line: string, from: number): number {
  let depth = 0;
  for (let at = from; at < line.length;) {
    const sign = line[at];
    if (depth === 0 && (sign === "," || sign === "}" || sign === "]")) return at;
    if (sign === "{" || sign === "[") depth++;
    else if (sign === "}" || sign === "]") depth--;
    at = sign === '"' ? afterString(line, at) : at + 1;
  }
  return line.length;
}
