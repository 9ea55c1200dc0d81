/** Bytes of files: unpacks archives, and refuses files without text, naming their kind. */
import { closeSync, createReadStream, openSync, readSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createGunzip } from "node:zlib";
import { errorCode, GradmixError } from "../errors.ts";
import { ArchiveError, unpackZstd } from "./zstd.ts";

/** How a file is unpacked, by its name or kind; null if it is read as it is. */
export function packingOf(file: string, kind: string | null): "zstd" | "gzip" | null {
  if (/\.zst$/i.test(file) || kind === "zstd") return "zstd";
  return /\.gz$/i.test(file) || kind === "gzip" ? "gzip" : null;
}

/** The part of a file to read, and a callback for progress. */
export interface ByteRange {
  /** First byte to read. Default 0. A range is only possible for files that are not unpacked. */
  readonly from?: number;
  /** End of the range (excluded). Default: the end of the file. */
  readonly to?: number | null;
  /** Called with the number of bytes of the file that have been read so far. */
  readonly onBytes?: (bytes: number) => void;
}

/** Reads a file's bytes and unpacks them if its name or kind requires it. Throws `data` if it cannot be read or is cut off. */
export async function* contents(
  file: string,
  kind: string | null,
  { from = 0, to = null, onBytes }: ByteRange = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const end = to === null ? {} : { end: to - 1 };
  const stream = createReadStream(file, { highWaterMark: 1 << 18, start: from, ...end });
  const packing = packingOf(file, kind);
  const chunks: AsyncIterable<Uint8Array> =
    packing === "zstd" ? unpackZstd(stream) : packing === "gzip" ? unpackGzip(stream, file) : stream;
  try {
    for await (const chunk of chunks) {
      onBytes?.(stream.bytesRead);
      yield chunk;
    }
  } catch (cause) {
    if (cause instanceof GradmixError) throw cause;
    throw new GradmixError("data", `${file}: ${readProblem(cause)}`, { cause });
  } finally {
    stream.destroy();
  }
}

/** Kinds of files by their first bytes, in Latin-1; `at` is the position of these bytes. */
const kinds: readonly { readonly kind: string; readonly magic: string; readonly at?: number }[] = [
  { kind: "gzip", magic: "\x1f\x8b" },
  { kind: "zstd", magic: "\x28\xb5\x2f\xfd" },
  { kind: "bzip2", magic: "BZh" },
  { kind: "xz", magic: "\xfd7zXZ\x00" },
  { kind: "a 7z archive", magic: "7z\xbc\xaf\x27\x1c" },
  { kind: "a RAR archive", magic: "Rar!\x1a\x07" },
  { kind: "a ZIP archive (or a document of an office program)", magic: "PK\x03\x04" },
  { kind: "a tar archive", magic: "ustar", at: 257 },
  { kind: "a PDF document", magic: "%PDF-" },
  { kind: "a PNG picture", magic: "\x89PNG" },
  { kind: "a JPEG picture", magic: "\xff\xd8\xff" },
  { kind: "a GIF picture", magic: "GIF8" },
  { kind: "a WebP picture or RIFF sound", magic: "RIFF" },
  { kind: "an Ogg sound", magic: "OggS" },
  { kind: "an MP3 sound", magic: "ID3" },
  { kind: "an MP4 video", magic: "ftyp", at: 4 },
  { kind: "an ELF program or library", magic: "\x7fELF" },
  { kind: "a Windows program", magic: "MZ" },
  { kind: "a WebAssembly module", magic: "\x00asm" },
  { kind: "a Java class or a program of macOS", magic: "\xca\xfe\xba\xbe" },
  { kind: "a program of macOS", magic: "\xcf\xfa\xed\xfe" },
  { kind: "an SQLite database", magic: "SQLite format 3\x00" },
  { kind: "Parquet", magic: "PAR1" },
  { kind: "an Arrow file", magic: "ARROW1" },
  { kind: "an HDF5 file", magic: "\x89HDF" },
  { kind: "a NumPy array", magic: "\x93NUMPY" },
];

/** Advice on kinds that can be converted to text. The message begins with the file's name. */
const advice: Readonly<Record<string, string>> = {
  xz: "it is packed with xz, which gradmix cannot unpack; pack it again: xz -dc FILE.xz | zstd -o FILE.zst",
  bzip2:
    "it is packed with bzip2, which gradmix cannot unpack; pack it again: bzip2 -dc FILE.bz2 | zstd -o FILE.zst",
  Parquet: "it is Parquet, but its name does not end in .parquet; rename it",
};

/** The kind of a file with this beginning; null if it may be text. */
export function binaryKind(start: Uint8Array): string | null {
  const latin1 = Buffer.from(start.buffer, start.byteOffset, start.length).toString("latin1");
  const found = kinds.find(({ magic, at = 0 }) => latin1.startsWith(magic, at));
  if (found === undefined) return null;
  // Text may begin with the same letters.
  return isText(start) && found.kind !== "a PDF document" ? null : found.kind;
}

/** Whether the bytes are UTF-8 (possibly cut within a character) without a NUL. */
function isText(start: Uint8Array): boolean {
  try {
    return !new TextDecoder("utf-8", { fatal: true }).decode(start, { stream: true }).includes("\0");
  } catch {
    return false;
  }
}

/** The kind of a file, from its first bytes; null if it may be text. Throws `data` if it cannot be read. */
export function kindOfFile(file: string): string | null {
  const start = new Uint8Array(512);
  try {
    const handle = openSync(file, "r");
    try {
      return binaryKind(start.subarray(0, readSync(handle, start, 0, start.length, 0)));
    } finally {
      closeSync(handle);
    }
  } catch (cause) {
    throw new GradmixError("data", `${file}: ${readProblem(cause)}`, { cause });
  }
}

/** Why files of a kind cannot be read; null if they can. */
export function kindProblem(kind: string | null): string | null {
  return kind === null || kind === "gzip" || kind === "zstd"
    ? null
    : (advice[kind] ?? `it is ${kind}, not text`);
}

/** Text with a larger share of NUL bytes than this, and with at least two of them, is not UTF-8. In UTF-16, every space has one. */
const MOST_ZEROS = 1 / 32;

/** The reason to refuse bytes that have many NULs, although UTF-8 allows them; null if they may be text. */
export function zerosProblem(bytes: Uint8Array): string | null {
  let zeros = 0;
  for (let at = bytes.indexOf(0); at >= 0; at = bytes.indexOf(0, at + 1)) zeros++;
  const n = (count: number): string => count.toLocaleString("en");
  return zeros < 2 || zeros <= MOST_ZEROS * bytes.length
    ? null
    : `${n(zeros)} of ${n(bytes.length)} bytes are NUL, so it is not text in UTF-8 (it looks like UTF-16)`;
}

function forwardErrors<T extends { destroy(error?: Error): unknown }>(from: NodeJS.ReadableStream, to: T): T {
  from.on("error", (error: Error) => to.destroy(error));
  return to;
}

/** Unpacks the members one after another. Only zeros may follow them, which pad tapes; zlib would silently ignore anything else. */
async function* unpackGzip(
  stream: NodeJS.ReadableStream,
  file: string,
): AsyncGenerator<Uint8Array, void, undefined> {
  const unpack = createGunzip();
  yield* stream.pipe(forwardErrors(stream, unpack));
  const end = unpack.bytesWritten;
  if ((await stat(file)).size <= end) return;
  for await (const chunk of createReadStream(file, { start: end }))
    if ((chunk as Uint8Array).some((byte) => byte !== 0))
      throw new ArchiveError(`it is not a whole archive (the bytes from ${end} on are not gzip)`);
}

function readProblem(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  if (cause instanceof ArchiveError) return message;
  const code = errorCode(cause);
  if (code === "ENOENT") return "no such file";
  if (code === "EACCES" || code === "EPERM") return "it may not be read (permission denied)";
  if (code === "Z_BUF_ERROR") return "it is cut off: the archive ends too early";
  if (code.startsWith("Z_")) return `it is not a whole archive (${message})`;
  return `it cannot be read (${message})`;
}
