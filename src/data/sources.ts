/**
 * Text sources: which files a pattern means, and the documents in them, as a stream.
 *
 * `.jsonl` and `.ndjson` hold a document a line; any other file is one document. `.gz` and `.zst` are unpacked on the way. A file of
 * lines is never held whole, so it may be larger than memory.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { createGunzip } from "node:zlib";
import { Decompress } from "fzstd";
import { escapePath, glob, isDynamicPattern } from "tinyglobby";
import { GradmixError } from "../errors.ts";

export interface ListOptions {
  /** What the files are for, in errors: 'domain "code"'. */
  readonly what?: string;
  /** Absolute paths that are left out: a target's files are never also in a domain. */
  readonly exclude?: ReadonlySet<string>;
}

/**
 * The files that paths, folders and glob patterns mean, sorted, each once. Throws `data` for a path that does not exist and a pattern that
 * matches nothing.
 */
export async function listFiles(patterns: readonly string[], options: ListOptions = {}): Promise<string[]> {
  const { what = "files", exclude = new Set() } = options;
  // By absolute path, so that a file that two patterns reach in two ways is read once.
  const found = new Map<string, string>();
  for (const pattern of patterns)
    for (const file of await expand(pattern, what))
      if (!found.has(resolve(file))) found.set(resolve(file), file);
  const kept = [...found].flatMap(([path, file]) => (exclude.has(path) ? [] : [file])).sort();
  if (kept.length === 0)
    throw new GradmixError(
      "data",
      found.size > 0
        ? `${what}: all ${found.size} files of ${patterns.join(", ")} belong to the target too; a target file cannot be in a domain`
        : `${what}: no files were named`,
    );
  return kept;
}

async function expand(pattern: string, what: string): Promise<string[]> {
  const info = await stat(pattern).catch(() => null);
  if (info?.isFile() === true) return [pattern];
  // Typed dots are meant; hidden files that a star would match are not.
  const options = { onlyFiles: true, dot: /(^|\/)\.[^./]/.test(pattern), expandDirectories: false };
  if (info?.isDirectory() === true) {
    const inside = await glob(`${escapePath(pattern.replace(/\/+$/, ""))}/**`, options);
    if (inside.length === 0) throw new GradmixError("data", `${what}: the folder ${pattern} holds no files`);
    return inside;
  }
  if (!isDynamicPattern(pattern)) throw new GradmixError("data", `${what}: no such file: ${pattern}`);
  const matches = await glob(pattern, options);
  if (matches.length === 0) throw new GradmixError("data", `${what}: nothing matches ${pattern}`);
  return matches;
}

export interface Document {
  readonly text: string;
  /** The file, and in a file of lines the line: "a.jsonl.gz:12". */
  readonly source: string;
}

export interface ReadOptions {
  /** Field of a line's object that holds the text. Default "text". */
  readonly textField?: string;
  /** Broken lines and files of invalid UTF-8 are left out instead of ending the read. */
  readonly skipBadLines?: boolean;
  /** Told of each one left out. */
  readonly onSkip?: (source: string, reason: string) => void;
}

/**
 * The documents of files, in order; empty ones are left out. Throws `data`, naming the file and line, for a line that is not JSON or has no text, for
 * invalid UTF-8 and for archives that are cut off.
 */
export async function* readDocuments(
  files: Iterable<string>,
  options: ReadOptions = {},
): AsyncGenerator<Document, void, undefined> {
  const bad = (source: string, reason: string): void => {
    if (options.skipBadLines !== true)
      throw new GradmixError("data", `${source}: ${reason}; mend it, or leave it out with --skip-bad-lines`);
    options.onSkip?.(source, reason);
  };
  for (const file of files) {
    if (/\.(jsonl|ndjson)(\.gz|\.zst)?$/i.test(file)) {
      let number = 0;
      for await (const line of lines(file)) {
        number++;
        const source = `${file}:${number}`;
        const text = decode(line);
        if (text === null) bad(source, "invalid UTF-8");
        else if (text.trim() !== "") {
          const parsed = parseLine(text, options.textField ?? "text");
          if ("reason" in parsed) bad(source, parsed.reason);
          else if (parsed.text !== "") yield { text: parsed.text, source };
        }
      }
      continue;
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of contents(file)) chunks.push(chunk);
    const text = decode(join(chunks));
    if (text === null) bad(file, "invalid UTF-8");
    else if (text !== "") yield { text, source: file };
  }
}

function parseLine(line: string, field: string): { text: string } | { reason: string } {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { reason: "the line is not JSON" };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return { reason: "the line is not a JSON object" };
  const text = new Map<string, unknown>(Object.entries(value)).get(field);
  if (text === undefined)
    return { reason: `the object has no field "${field}" (--text-field names another)` };
  return typeof text === "string" ? { text } : { reason: `the field "${field}" is not a string` };
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(bytes: Uint8Array): string | null {
  try {
    return utf8.decode(bytes);
  } catch {
    return null;
  }
}

function join(chunks: readonly Uint8Array[]): Uint8Array {
  if (chunks.length === 1) return chunks[0];
  const out = new Uint8Array(chunks.reduce((n, chunk) => n + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

/** Lines without their ends. What is held is one chunk and the line that lies across it. */
async function* lines(file: string): AsyncGenerator<Uint8Array, void, undefined> {
  let rest: Uint8Array[] = [];
  for await (const chunk of contents(file)) {
    let from = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      rest.push(chunk.subarray(from, end));
      yield join(rest);
      rest = [];
      from = end + 1;
    }
    // A copy, since streams reuse their chunks' memory.
    if (from < chunk.length) rest.push(chunk.slice(from));
  }
  if (rest.length > 0) yield join(rest);
}

/** A file's bytes, unpacked. Throws `data` when it cannot be read or is cut off. */
async function* contents(file: string): AsyncGenerator<Uint8Array, void, undefined> {
  const stream = createReadStream(file, { highWaterMark: 1 << 18 });
  try {
    if (/\.zst$/i.test(file)) yield* zstd(stream);
    else if (/\.gz$/i.test(file)) yield* stream.pipe(forwardErrors(stream, createGunzip()));
    else yield* stream;
  } catch (cause) {
    if (cause instanceof GradmixError) throw cause;
    throw new GradmixError("data", `${file}: ${readProblem(cause)}`, { cause });
  } finally {
    stream.destroy();
  }
}

function forwardErrors<T extends { destroy(error?: Error): unknown }>(from: NodeJS.ReadableStream, to: T): T {
  from.on("error", (error: Error) => to.destroy(error));
  return to;
}

async function* zstd(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  let out: Uint8Array[] = [];
  let ended = false;
  const unpack = new Decompress((chunk, final) => {
    out.push(chunk);
    ended = final === true;
  });
  for await (const chunk of stream) {
    // fzstd keeps views of what it is given.
    unpack.push(chunk.slice());
    const ready = out;
    out = [];
    yield* ready;
  }
  unpack.push(new Uint8Array(0), true);
  yield* out;
  if (!ended) throw new Error("unexpected EOF");
}

function readProblem(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  const code = typeof cause === "object" && cause !== null && "code" in cause ? String(cause.code) : "";
  if (code === "ENOENT") return "no such file";
  if (code === "EACCES" || code === "EPERM") return "it may not be read (permission denied)";
  if (code === "Z_BUF_ERROR" || /unexpected (EOF|end)/i.test(message))
    return "it is cut off: the archive ends too early";
  if (code.startsWith("Z_") || /zst|magic|frame|huffman|block/i.test(message))
    return `it is not a whole archive (${message})`;
  return `it cannot be read (${message})`;
}
