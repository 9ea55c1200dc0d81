/**
 * Unpacks Zstandard archives as a stream with the reference decoder (zstd 1.5.7) as WebAssembly, from the package `zstddec`.
 *
 * It is the same on every version of Node.js, whose own decoder, if there is one, ignores everything after the last frame. Checksums are verified;
 * memory is limited to the window that a frame declares (at most `WINDOW`), whatever the size of the output. Only the compiled module of the package
 * is used: its own loop ignores errors.
 */

/** Largest window, which is also the limit of the `zstd` command. Only `--long=28` and more, or `--ultra` with such a `--zstd=wlog`, exceeds it. */
const WINDOW = 1 << 27;

/** The exports of the module that are used. Pointers and sizes have 32 bits. */
interface Zstd {
  readonly memory: WebAssembly.Memory;
  malloc(size: number): number;
  ZSTD_createDCtx(): number;
  ZSTD_freeDCtx(context: number): number;
  /** Returns the suggested number of input bytes, 0 at the end of a frame, or an error as minus its number. */
  ZSTD_decompressStream(context: number, output: number, input: number): number;
}

let compiled: Promise<WebAssembly.Module> | null = null;

async function compile(): Promise<WebAssembly.Module> {
  const { ZSTDDecoder } = await import("zstddec/stream");
  const found: WebAssembly.Module[] = [];
  class Compiled extends ZSTDDecoder {
    override _init(result: WebAssembly.WebAssemblyInstantiatedSource): void {
      found.push(result.module);
      super._init(result);
    }
  }
  await new Compiled().init();
  if (found.length === 0)
    throw new Error(
      "the package zstddec was used elsewhere in this process before gradmix; unpack the file first",
    );
  return found[0]!;
}

/** The fault of an archive, as far as its bytes show it. The message begins with the file's name. */
export class ArchiveError extends Error {}

/** The error for zstd's error code (zstd_errors.h). `isStart` means that nothing has been unpacked yet. */
export function problem(code: number, isStart: boolean): ArchiveError {
  switch (code) {
    case 10:
      return new ArchiveError(
        isStart
          ? "it is not a whole archive (it does not begin as zstd)"
          : "it is not a whole archive (the bytes after a frame are not zstd)",
      );
    case 14:
      return new ArchiveError("it is not a whole archive (its header has bits that zstd does not know)");
    case 16:
      return new ArchiveError(
        `its window is larger than ${WINDOW >> 20} MiB, the most that gradmix unpacks; pack it again with a smaller one: zstd -dc --long=31 FILE | zstd -o NEW.zst`,
      );
    case 22:
      return new ArchiveError("it is damaged: its text does not match its checksum");
    case 32:
      return new ArchiveError("it was packed with a dictionary; unpack it with zstd -D first");
    case 64:
      return new ArchiveError("there is not enough memory to unpack it");
    default:
      return new ArchiveError(`it is damaged (zstd error ${code})`);
  }
}

/** A decoder with the addresses of its buffers in its memory. */
interface Decoder {
  readonly zstd: Zstd;
  readonly input: number;
  readonly output: number;
  /** ZSTD_inBuffer and ZSTD_outBuffer: address, size, position. */
  readonly source: number;
  readonly sink: number;
}

/** Bytes that are passed to the decoder, and taken from it, at a time: a block is never larger. */
const ROOM = 1 << 17;

/** A free decoder, unless its memory has grown: memory is only freed with the whole instance. */
let idle: Decoder | null = null;
const SMALL = 1 << 25;

async function openDecoder(): Promise<Decoder> {
  const module = await (compiled ??= compile());
  if (idle !== null) {
    const decoder = idle;
    idle = null;
    return decoder;
  }
  const { exports } = new WebAssembly.Instance(module, {
    env: { emscripten_notify_memory_growth: () => {} },
  });
  const zstd = decoderOf(exports);
  const [input, output, source] = [zstd.malloc(ROOM), zstd.malloc(ROOM), zstd.malloc(24)];
  return { zstd, input, output, source, sink: source + 12 };
}

/** Throws if the package is not the version for which this was written. */
function decoderOf(exports: WebAssembly.Exports): Zstd {
  const { memory } = exports;
  if (!(memory instanceof WebAssembly.Memory)) throw new Error("the package zstddec exports no memory");
  const called = (name: string): ((...numbers: number[]) => number) => {
    const found = exports[name];
    if (typeof found !== "function") throw new Error(`the package zstddec exports no ${name}`);
    return (...numbers) => Number(Reflect.apply(found, undefined, numbers));
  };
  return {
    memory,
    malloc: called("malloc"),
    ZSTD_createDCtx: called("ZSTD_createDCtx"),
    ZSTD_freeDCtx: called("ZSTD_freeDCtx"),
    ZSTD_decompressStream: called("ZSTD_decompressStream"),
  };
}

/** Unpacks a stream of frames. Throws `ArchiveError` unless they are complete and the decoder accepts all of them. */
export async function* unpackZstd(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const decoder = await openDecoder();
  const { zstd, input, output, source, sink } = decoder;
  const context = zstd.ZSTD_createDCtx();
  // Memory may grow during a call, which detaches existing views.
  const bytes = (): Uint8Array => new Uint8Array(zstd.memory.buffer);
  const struct = (at: number): Uint32Array => new Uint32Array(zstd.memory.buffer, at, 3);
  let isStart = true;
  let hint = 1;
  try {
    for await (const chunk of chunks)
      for (let from = 0; from < chunk.length; from += ROOM) {
        const part = chunk.subarray(from, from + ROOM);
        bytes().set(part, input);
        struct(source).set([input, part.length, 0]);
        for (let [read, written] = [0, ROOM]; read < part.length || (written === ROOM && hint !== 0);) {
          struct(sink).set([output, ROOM, 0]);
          hint = zstd.ZSTD_decompressStream(context, sink, source);
          if (hint < 0) throw problem(-hint, isStart);
          read = struct(source)[2]!;
          written = struct(sink)[2]!;
          if (written > 0) yield bytes().slice(output, output + written);
          if (hint === 0) isStart = false;
        }
      }
  } finally {
    zstd.ZSTD_freeDCtx(context);
    if (zstd.memory.buffer.byteLength <= SMALL) idle = decoder;
  }
  // Even an empty text has a non-empty archive.
  if (hint !== 0) throw new ArchiveError("it is cut off: the archive ends too early");
}
