/**
 * Files of tokens that other tools wrote: what their headers and indices say of them. All numbers are little endian.
 *
 * | ending          | format              | tokens                                    | documents                               |
 * | `.bin` + `.idx` | Megatron            | from byte 0, of the type in the index     | in the index                            |
 * | `.bin`          | llm.c               | u16 or u32 after 256 numbers of i32       | end of text before or after each        |
 * | `.bin`          | nanoGPT             | u16 from byte 0                           | end of text after each                  |
 * | `.ds`           | datatrove, nanotron | u16 or u32 from byte 0                    | in `.ds.index`, else by the end of text |
 * | `.npy`          | OLMo, dolma         | u16 or u32 from byte 0: no NumPy header   | in `.csv.gz`, else end of text after each |
 */
import { closeSync, existsSync, fstatSync, openSync, readSync } from "node:fs";
import { errorCode, GradmixError } from "../errors.ts";

export type TokenType = "u8" | "u16" | "u32" | "u64";

/** Bytes per token. Signed types of other tools are read as unsigned ones: ids are never negative, and a negative one would be too large. */
export const tokenBytes: Readonly<Record<TokenType, number>> = { u8: 1, u16: 2, u32: 4, u64: 8 };

/** Whether this machine is little-endian, like token files. */
export const littleEndian: boolean = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

/** Ids as the bytes of a file; they share memory if possible. */
export function littleEndianBytes(ids: Uint16Array | Uint32Array, type: "u16" | "u32"): Uint8Array {
  const narrow = (): Uint16Array => (ids instanceof Uint16Array ? ids : Uint16Array.from(ids));
  const wide = (): Uint32Array => (ids instanceof Uint32Array ? ids : Uint32Array.from(ids));
  const own = type === "u16" ? narrow() : wide();
  const bytes = Buffer.from(own.buffer, own.byteOffset, own.byteLength);
  if (littleEndian) return bytes;
  const swapped = Buffer.from(bytes);
  return type === "u16" ? swapped.swap16() : swapped.swap32();
}

/** Whether the path has the name of a token file. */
export function isTokenFile(path: string): boolean {
  return /\.(bin|ds|npy)$/i.test(path);
}

/** The token file to which a file belongs as its index or description; null if there is none. */
export function tokenFileOf(path: string): string | null {
  for (const [ending, own] of [
    [/\.idx$/, ".bin"],
    [/\.ds\.(index|metadata|loss)$/, ".ds"],
    [/\.csv\.gz$/, ".npy"],
  ] as const) {
    const partner = path.replace(ending, own);
    if (partner !== path && existsSync(partner)) return partner;
  }
  return null;
}

export interface TokenFile {
  readonly path: string;
  readonly format: "Megatron" | "nanoGPT" | "llm.c" | "datatrove" | "OLMo";
  readonly type: TokenType;
  /** Bytes before the first token. */
  readonly offset: number;
  /** Number of tokens. */
  readonly length: number;
  /** Where each document ends, in tokens; null if the end-of-text tokens mark it. */
  readonly ends: Float64Array | null;
  /** Size and time of the file when it was opened. */
  readonly stamp: FileStamp;
}

/** Size and time of a file, which show whether it has changed. */
export interface FileStamp {
  /** Size in bytes. */
  readonly size: number;
  /** Time of the last change, in milliseconds since 1970. */
  readonly modified: number;
}

type Fails = (what: string, cause?: unknown) => GradmixError;

/** An open file that is read by position. */
interface Open {
  readonly size: number;
  readonly stamp: FileStamp;
  /** Fills `into` from byte `at` on; throws if the file ends before. */
  read(at: number, into: Uint8Array): void;
}

function reading<T>(path: string, use: (file: Open, fails: Fails) => T): T {
  const fails: Fails = (what, cause) => new GradmixError("data", `${path}: ${what}`, { cause });
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    throw fails(errorCode(error) === "ENOENT" ? "no such file" : "it cannot be read", error);
  }
  try {
    const { size, mtimeMs: modified } = fstatSync(file);
    return use({ size, stamp: { size, modified }, read: (at, into) => readAt(file, path, at, into) }, fails);
  } finally {
    closeSync(file);
  }
}

/** Fills `into` from byte `at` on. Throws `data` if the file ends before. */
export function readAt(file: number, path: string, at: number, into: Uint8Array): void {
  for (let done = 0; done < into.length;) {
    // At most 1 GiB per call: the system call itself stops slightly below 2 GiB.
    const count = readSync(file, into, done, Math.min(into.length - done, 2 ** 30), at + done);
    if (count === 0) throw new GradmixError("data", `${path}: it is cut off at byte ${at + done}`);
    done += count;
  }
}

const bytesAt = (file: Open, at: number, count: number): Buffer => {
  const out = Buffer.alloc(count);
  file.read(at, out);
  return out;
};

/**
 * Reads what a token file's name, header and index state. `type` is the token type for files that do not state it. Throws `data` for a file that is
 * not a token file, is cut off or is inconsistent.
 */
export function describeTokenFile(path: string, type: TokenType | null): TokenFile {
  const ending = /\.[a-z]+$/i.exec(path)?.[0].toLowerCase();
  return reading(path, (file, fails) => {
    if (file.size === 0) throw fails("it is empty");
    if (ending === ".ds") return datatrove(path, file, type, fails);
    if (ending === ".npy") return olmo(path, file, type, fails);
    if (ending !== ".bin") throw fails("it is not a file of tokens, whose name ends in .bin, .ds or .npy");
    const index = path.replace(/\.bin$/i, ".idx");
    if (existsSync(index)) return megatron(path, file, index, fails);
    return llmC(path, file, fails) ?? raw(path, file, "nanoGPT", type ?? "u16", fails);
  });
}

/** A file without a header. */
function raw(
  path: string,
  { size, stamp }: Open,
  format: TokenFile["format"],
  type: TokenType,
  fails: Fails,
): TokenFile {
  const length = size / tokenBytes[type];
  if (!Number.isInteger(length))
    throw fails(
      `its ${size} bytes are not a whole number of ${type} tokens: it is cut off, or its tokens have another type (--token-type)`,
    );
  return { path, format, type, offset: 0, length, ends: null, stamp };
}

function olmo(path: string, file: Open, type: TokenType | null, fails: Fails): TokenFile {
  const isNumpy = file.size >= 6 && bytesAt(file, 0, 6).toString("latin1") === "\x93NUMPY";
  if (isNumpy)
    throw fails(
      "it is a NumPy array with a header, but the .npy files of OLMo have none; write only its tokens: numpy.load(FILE).astype('<u4').tofile('NEW.bin'), and read them with --token-type u32",
    );
  if (type === null)
    throw fails("the file does not state the type of its tokens; add --token-type u16 or --token-type u32");
  return raw(path, file, "OLMo", type, fails);
}

/** Numbers at the start of llm.c's files, with their version and token type. */
const llmCMagic = new Map<number, { version: number; type: TokenType }>([
  [20240520, { version: 1, type: "u16" }],
  [20240801, { version: 7, type: "u32" }],
]);
const LLM_C_EVALUATION = 20240522;
const LLM_C_HEADER = 1024;

/** Reads the header; null for a file that does not begin like those of llm.c. */
function llmC(path: string, file: Open, fails: Fails): TokenFile | null {
  const header = Buffer.alloc(12);
  file.read(0, header.subarray(0, Math.min(file.size, header.length)));
  const [magic, version, length] = [header.readInt32LE(0), header.readInt32LE(4), header.readInt32LE(8)];
  if (magic === LLM_C_EVALUATION)
    throw fails("it is an evaluation file of llm.c (multiple choice), which holds no text to train on");
  const known = llmCMagic.get(magic);
  if (known === undefined) return null;
  if (file.size < LLM_C_HEADER)
    throw fails(
      `it begins like a file of llm.c, but its ${file.size} bytes are fewer than the header: it is cut off`,
    );
  if (version !== known.version)
    throw fails(`it is a file of llm.c of version ${version}; version ${known.version} can be read`);
  const expected = LLM_C_HEADER + length * tokenBytes[known.type];
  if (file.size !== expected)
    throw fails(
      `its header says ${length} tokens, which are ${expected} bytes, but it has ${file.size}: it is cut off, or something was appended`,
    );
  return {
    path,
    format: "llm.c",
    type: known.type,
    offset: LLM_C_HEADER,
    length,
    ends: null,
    stamp: file.stamp,
  };
}

function datatrove(path: string, file: Open, given: TokenType | null, fails: Fails): TokenFile {
  const [index, mask] = [`${path}.index`, `${path}.loss`];
  if (existsSync(mask))
    throw fails(
      `${mask} says which of its tokens count, but gradmix cannot use this; move it away to train on all tokens`,
    );
  const ends = existsSync(index) ? datatroveEnds(index) : null;
  const metadata = datatroveMetadata(`${path}.metadata`);
  const count = ends?.at(-1) ?? metadata.count;
  const type =
    metadata.type ??
    given ??
    (["u16", "u32"] as const).find((type) => count !== null && count * tokenBytes[type] === file.size);
  const source = ends === null ? "description" : "index";
  if (type === undefined)
    throw fails(
      count === null
        ? `there is neither ${path}.metadata nor ${index}, so the type of its tokens is unknown; add --token-type u16 or u32`
        : `its ${source} says ${count} tokens, but it has ${file.size} bytes: it is cut off, or the ${source} belongs to another file`,
    );
  const described = raw(path, file, "datatrove", type, fails);
  if (count !== null && described.length !== count)
    throw fails(
      `its ${source} says ${count} tokens, but it has ${described.length} of ${type}: it is cut off, or the ${source} belongs to another file`,
    );
  return { ...described, ends };
}

function datatroveEnds(index: string): Float64Array {
  return reading(index, (file, fails) => {
    if (file.size === 0 || file.size % 8 !== 0)
      throw fails("it is not an index: its size is not a multiple of 8 bytes");
    const ends = new Float64Array(file.size / 8);
    eachBlock(ends.length, (from, count) => ends.set(numbersAt(file, 8 * from, count), from));
    for (let i = 0; i < ends.length; i++)
      if (ends[i]! < (i === 0 ? 0 : ends[i - 1]!))
        throw fails(`document ${i} ends at token ${ends[i]}, before it begins`);
    return ends;
  });
}

/** Line 1 is `tokenizer|bytes per token`, in older files only the tokenizer; line 2 is the number of tokens. null for what is missing. */
function datatroveMetadata(metadata: string): {
  readonly type: TokenType | null;
  readonly count: number | null;
} {
  if (!existsSync(metadata)) return { type: null, count: null };
  return reading(metadata, (file, fails) => {
    const [line = "", second = ""] = bytesAt(file, 0, Math.min(file.size, 4096)).toString("utf8").split("\n");
    const size = /\|(\d+)\s*$/.exec(line)?.[1];
    if (size !== undefined && size !== "2" && size !== "4")
      throw fails(`its first line ends in |${size}, the bytes of a token; 2 and 4 can be read`);
    const count = /^\d+$/.test(second.trim()) ? Number(second) : null;
    return { type: size === undefined ? null : size === "2" ? "u16" : "u32", count };
  });
}

const MEGATRON_MAGIC = "MMIDIDX\x00\x00";
const MEGATRON_HEADER = 34;
/** Types by their number in an index; types that cannot hold ids have their name. */
const megatronTypes: readonly (TokenType | { readonly refused: string })[] = [
  { refused: "0" },
  "u8",
  { refused: "int8" },
  { refused: "int16" },
  "u32",
  "u64",
  { refused: "float64" },
  { refused: "float32" },
  "u16",
];

function megatron(path: string, file: Open, index: string, fails: Fails): TokenFile {
  const { type, ends, length } = reading(index, megatronIndex);
  const expected = length * tokenBytes[type];
  if (file.size !== expected)
    throw fails(
      `its index says ${length} tokens, which are ${expected} bytes, but it has ${file.size}: it is cut off, or the index belongs to another file`,
    );
  return { path, format: "Megatron", type, offset: 0, length, ends, stamp: file.stamp };
}

function megatronIndex(file: Open, fails: Fails): { type: TokenType; ends: Float64Array; length: number } {
  if (file.size < MEGATRON_HEADER)
    throw fails("it is not an index of Megatron: it is shorter than its header");
  const header = bytesAt(file, 0, MEGATRON_HEADER);
  if (header.toString("latin1", 0, 9) !== MEGATRON_MAGIC)
    throw fails("it is not an index of Megatron: it does not begin with MMIDIDX");
  const countAt = (at: number): number => Number(header.readBigUInt64LE(at));
  const [version, sequences, marks] = [countAt(9), countAt(18), countAt(26)];
  if (version !== 1) throw fails(`it is an index of version ${version}; version 1 can be read`);
  const type = megatronTypes.at(header[17]!) ?? { refused: String(header[17]) };
  if (typeof type !== "string")
    throw fails(`its tokens have the type ${type.refused}, which cannot hold ids`);
  const lengthsAt = MEGATRON_HEADER;
  const pointersAt = lengthsAt + 4 * sequences;
  const documentsAt = pointersAt + 8 * sequences;
  const end = documentsAt + 8 * marks;
  // A mode per sequence may follow.
  if (file.size !== end && file.size !== end + sequences)
    throw fails(
      `it says ${sequences} sequences and ${marks} documents, which do not fit its ${file.size} bytes`,
    );
  const bytes = tokenBytes[type];
  // Only the ends of sequences are kept, because a corpus may have many millions.
  const starts = new Float64Array(sequences + 1);
  eachBlock(sequences, (from, count) => {
    const bytes = bytesAt(file, lengthsAt + 4 * from, 4 * count);
    const lengths = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < count; i++) {
      const length = lengths.getInt32(4 * i, true);
      if (length < 0) throw fails(`sequence ${from + i} has ${length} tokens`);
      starts[from + i + 1] = starts[from + i]! + length;
    }
  });
  eachBlock(sequences, (from, count) => {
    const pointers = numbersAt(file, pointersAt + 8 * from, count);
    let consecutive = 0;
    while (consecutive < count && pointers[consecutive] === starts[from + consecutive]! * bytes)
      consecutive++;
    if (consecutive < count)
      throw fails(
        `sequence ${from + consecutive} begins at byte ${pointers[consecutive]}, not where the one before it ends`,
      );
  });
  const ends = new Float64Array(Math.max(0, marks - 1));
  let before = 0;
  eachBlock(marks, (from, count) => {
    const numbers = numbersAt(file, documentsAt + 8 * from, count);
    for (let i = 0; i < count; i++) {
      const mark = numbers[i]!;
      if (mark > sequences || mark < before || (from + i === 0 && mark !== 0)) throw fails(apartDocuments);
      before = mark;
      if (from + i > 0) ends[from + i - 1] = starts[mark]!;
    }
  });
  if (marks === 0 || before !== sequences) throw fails(apartDocuments);
  return { type, ends, length: starts[sequences]! };
}

const apartDocuments = "the documents of the index are not made of its sequences";

/** Numbers that are read at a time. */
const NUMBERS = 2 ** 16;

function eachBlock(length: number, use: (from: number, count: number) => void): void {
  for (let from = 0; from < length; from += NUMBERS) use(from, Math.min(NUMBERS, length - from));
}

/** Numbers of 64 bits, as precisely as doubles can represent them. */
function numbersAt(file: Open, at: number, count: number): Float64Array {
  const bytes = bytesAt(file, at, 8 * count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = new Float64Array(count);
  for (let i = 0; i < count; i++)
    numbers[i] = view.getUint32(8 * i, true) + view.getUint32(8 * i + 4, true) * 2 ** 32;
  return numbers;
}
