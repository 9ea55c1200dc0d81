/** Compressed files: damaged, truncated or oversized ones are refused; the text that is read is the text that was packed. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { GradmixError } from "gradmix";
import { readDocuments } from "gradmix/data";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ArchiveError, problem, unpackZstd } from "#dist/data/zstd.js";
import { random } from "../dga/arbitraries.ts";

interface Golden {
  readonly frames: readonly { name: string; bytes: number; sha256: string; archive: string }[];
  readonly flips: Readonly<Record<string, readonly [bit: number, hash: string | null][]>>;
}
const golden = JSON.parse(
  readFileSync(resolve(import.meta.dirname, "../golden/zstd.json"), "utf8"),
) as Golden;
const archives = golden.frames.map((frame) => ({ ...frame, packed: Buffer.from(frame.archive, "base64") }));
const named = (name: string): Buffer =>
  archives.find((archive) => archive.name === name)?.packed ?? expect.unreachable();
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** The unpacked bytes, or null when the archive is refused. */
async function unpack(archive: Uint8Array, step = archive.length): Promise<Buffer | null> {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < archive.length; at += step) yield archive.subarray(at, at + step);
  }
  const parts: Uint8Array[] = [];
  try {
    for await (const part of unpackZstd(chunks())) {
      expect(part.length).toBeGreaterThan(0);
      parts.push(part);
    }
  } catch (error) {
    expect(error).toBeInstanceOf(ArchiveError);
    return null;
  }
  return Buffer.concat(parts);
}

const flipped = (archive: Uint8Array, bit: number): Buffer => {
  const out = Buffer.from(archive);
  out[bit >> 3] ^= 1 << (bit & 7);
  return out;
};

describe(".zst", () => {
  test.each(archives)(
    "$name is unpacked, whatever the size of its chunks",
    async ({ bytes, sha256: hash, packed }) => {
      for (const step of [packed.length, 1000, 7]) {
        if (packed.length / step > 10_000) continue;
        const out = await unpack(packed, step);
        expect([out?.length, sha256(out ?? Buffer.of(1))]).toEqual([bytes, hash]);
      }
    },
  );

  test.each(archives)("$name is refused if it is cut off", async ({ name, packed }) => {
    // An archive of several frames may end after each of them.
    const ends = name === "several frames" ? 3 : 0;
    const step = name === "several frames" ? 1 : Math.max(1, Math.floor(packed.length / 60));
    let whole = 0;
    for (let length = 0; length < packed.length; length += step)
      if ((await unpack(packed.subarray(0, length))) !== null) whole++;
    expect(whole).toBe(ends);
  });

  test.each(archives)("$name is refused if bytes follow it", async ({ packed }) => {
    for (const more of ["\0", "\0\0\0\0\0\0", "(", "some text after it", "\x1f\x8b\x08"])
      expect(await unpack(Buffer.concat([packed, Buffer.from(more, "latin1")]))).toBeNull();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 40 }), async (more) => {
        expect(await unpack(Buffer.concat([packed, more]))).toBeNull();
      }),
      { numRuns: 10 },
    );
  });

  // The oracle is the archive's own checksum: of a frame that has one, no other text is ever read.
  test.each(archives.filter(({ name }) => !/without|skipped/.test(name)))(
    "$name with a wrong bit is refused or gives the same text",
    async ({ name, bytes, sha256: hash, packed }) => {
      // Every bit of the first, some of the others.
      const step = name === "level 19" ? 1 : Math.max(1, Math.floor((packed.length * 8) / 150));
      for (let bit = 0; bit < packed.length * 8; bit += step) {
        const out = await unpack(flipped(packed, bit));
        if (out !== null) expect([bit, out.length, sha256(out)]).toEqual([bit, bytes, hash]);
      }
    },
  );

  test("an archive that is damaged in any way is refused or gives the same text", async () => {
    const checked = archives.filter(({ name }) => /level 3|level 19|raw|a run|128/.test(name));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...checked),
        fc.array(fc.tuple(fc.nat(), fc.nat(3), fc.uint8Array({ maxLength: 5 })), {
          minLength: 1,
          maxLength: 3,
        }),
        async ({ packed, sha256: hash }, edits) => {
          let broken = packed;
          for (const [pick, removed, added] of edits) {
            const at = pick % (broken.length + 1);
            broken = Buffer.concat([broken.subarray(0, at), added, broken.subarray(at + removed)]);
          }
          const out = await unpack(broken, 100);
          if (out !== null) expect(sha256(out)).toBe(hash);
        },
      ),
      { numRuns: 300 },
    );
  });

  test("without a checksum, a damaged archive gives what the reference decoder gives", async () => {
    for (const [name, flips] of Object.entries(golden.flips))
      for (const [bit, hash] of flips) {
        const out = await unpack(flipped(named(name), bit));
        expect([name, bit, out === null ? null : sha256(out).slice(0, 8)]).toEqual([name, bit, hash]);
      }
  });

  test("zstd's memory error is reported as such, and errors without a text by number", () => {
    // ZSTD_error_memory_allocation and ZSTD_error_corruption_detected of zstd_errors.h.
    expect(problem(64, false).message).toBe("there is not enough memory to unpack it");
    expect(problem(20, false).message).toBe("it is damaged (zstd error 20)");
  });

  const refused: [string, Buffer, RegExp][] = [
    ["nothing", Buffer.alloc(0), /it is cut off/],
    ["text", Buffer.from("plain text"), /it is not a whole archive \(it does not begin as zstd\)/],
    [
      "text after a frame",
      Buffer.concat([named("level 3"), Buffer.from("more text")]),
      /it is not a whole archive \(the bytes after a frame are not zstd\)/,
    ],
    [
      "a dictionary",
      Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 1, 0x38, 5, 9, 0, 0, 97]),
      /it was packed with a dictionary; unpack it with zstd -D first/,
    ],
    [
      "a bit of the header that zstd does not know",
      Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x08, 0x38, 1, 0, 0]),
      /it is not a whole archive \(its header has bits that zstd does not know\)/,
    ],
    [
      "a frame of before 2016",
      Buffer.from([0x27, 0xb5, 0x2f, 0xfd, 0, 0x38, 1, 0, 0]),
      /it does not begin as zstd/,
    ],
    // Ten bytes whose window descriptor says 1.9 GiB.
    [
      "a window of 1.9 GiB",
      Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0xa7, 1, 0, 0, 0]),
      /its window is larger than 128 MiB, the most that gradmix unpacks; pack it again with a smaller one: zstd -dc --long=31/,
    ],
    // A frame that says it is one segment of 2^62 bytes.
    [
      "a size of 2^62",
      Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0]),
      /its window is larger than 128 MiB/,
    ],
    [
      "a checksum that is wrong",
      flipped(named("level 3"), named("level 3").length * 8 - 1),
      /does not match its checksum/,
    ],
  ];
  test.each(refused)("%s: says what is wrong", async (_, archive, message) => {
    async function* chunks(): AsyncGenerator<Uint8Array> {
      yield archive;
    }
    const read = async (): Promise<void> => {
      for await (const part of unpackZstd(chunks())) expect(part.length).toBeGreaterThan(0);
    };
    await expect(read()).rejects.toThrow(message);
  });

  test("text that comes after the last input is awaited", async () => {
    // A block of 1,000 bytes and one of 128 KiB, which together are more than is taken at a time.
    const small = Buffer.concat([Buffer.from([0x40, 0x1f, 0]), Buffer.alloc(1000, "a")]);
    const last = Buffer.from([0x03, 0x00, 0x10, 98]);
    const out = await unpack(Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]), small, last]));
    expect(out?.toString()).toBe("a".repeat(1000) + "b".repeat(1 << 17));
  });

  /** A frame of raw blocks: what is in it, as it is. */
  function rawFrame(text: Buffer): Buffer {
    const blocks: Buffer[] = [];
    for (let at = 0; at < text.length; at += 100_000) {
      const block = text.subarray(at, at + 100_000);
      const header = Buffer.alloc(4);
      header.writeUInt32LE(block.length * 8 + Number(at + 100_000 >= text.length));
      blocks.push(header.subarray(0, 3), block);
    }
    return Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]), ...blocks]);
  }

  test("chunks may have any length, and several archives can be read at a time without affecting each other", async () => {
    const [a, b] = [1, 2].map((seed) => {
      const next = random(seed);
      return Buffer.from(Uint8Array.from({ length: 700_000 }, () => 256 * next()));
    });
    const whole = await Promise.all([
      unpack(rawFrame(a)),
      unpack(rawFrame(b), 50_000),
      unpack(rawFrame(a), 1 << 18),
    ]);
    expect(whole.map((out, i) => out?.equals([a, b, a][i]))).toEqual([true, true, true]);
  });

  /** What a process says that uses the package zstddec itself, before or after the library does. */
  const other = `
    import { mkdtempSync, writeFileSync } from "node:fs";
    import { tmpdir } from "node:os";
    import { join } from "node:path";
    import { readDocuments } from "gradmix/data";
    import { ZSTDDecoder } from "zstddec/stream";
    const archive = Buffer.from(process.argv[2], "base64");
    const file = join(mkdtempSync(join(tmpdir(), "gradmix-zstddec-")), "a.txt.zst");
    writeFileSync(file, archive);
    const ours = async () => {
      let length = 0;
      for await (const { text } of readDocuments([file])) length += Buffer.byteLength(text);
      return length;
    };
    const theirs = async () => {
      const decoder = new ZSTDDecoder();
      await decoder.init();
      return decoder.decode(archive).length;
    };
    for (const read of process.argv[3] === "after" ? [ours, theirs] : [theirs, ours])
      console.log(await read().catch((error) => error.message.replace(/^.*: it/, "it")));`;
  test.each(["after", "before"])(
    "if other code uses the package zstddec %s gradmix, archives are read, or the conflict is reported",
    (when) => {
      const script = resolve(import.meta.dirname, "../../.cache/zstddec.mjs");
      mkdirSync(resolve(script, ".."), { recursive: true });
      writeFileSync(script, other);
      const packed = rawFrame(Buffer.from("some text"));
      const { stdout, stderr } = spawnSync(process.execPath, [script, packed.toString("base64"), when], {
        encoding: "utf8",
      });
      expect(stderr).toBe("");
      expect(stdout.trim().split("\n")).toEqual([
        "9",
        when === "after"
          ? "9"
          : "it cannot be read (the package zstddec was used elsewhere in this process before gradmix; unpack the file first)",
      ]);
    },
  );

  test("the output is never held in memory as a whole", async () => {
    // A gigabyte of zeros in 32 KB: blocks of 128 KiB that say "this byte so often".
    const block = Buffer.from([0x02, 0x00, 0x10, 0]);
    const blocks = 8192;
    const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]);
    const last = Buffer.from([0x01, 0, 0]);
    let [length, most] = [0, 0];
    async function* chunks(): AsyncGenerator<Uint8Array> {
      yield Buffer.concat([header, ...new Array<Buffer>(blocks).fill(block), last]);
    }
    const before = process.memoryUsage().rss;
    for await (const part of unpackZstd(chunks())) {
      length += part.length;
      if (length % (1 << 26) === 0) most = Math.max(most, process.memoryUsage().rss - before);
    }
    expect(length).toBe(blocks << 17);
    expect(most).toBeLessThan(200e6);
  });
});

describe(".gz", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "gradmix-archives-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** The text of a packed file, or what is said about it. */
  async function read(archive: Uint8Array): Promise<{ text: string } | { message: string }> {
    const file = join(folder, "a.txt.gz");
    writeFileSync(file, archive);
    let text = "";
    try {
      for await (const document of readDocuments([file])) text += document.text;
    } catch (error) {
      if (!(error instanceof GradmixError)) throw error;
      return { message: error.message };
    }
    return { text };
  }
  const text = "some text, and more of it\n".repeat(30);
  const one = gzipSync(text);

  test("several members, and zeros that pad a tape, are read", async () => {
    expect(await read(one)).toEqual({ text });
    expect(await read(Buffer.concat([one, gzipSync(""), gzipSync("b")]))).toEqual({ text: `${text}b` });
    expect(await read(Buffer.concat([one, Buffer.alloc(700)]))).toEqual({ text });
  });

  test("other bytes after a member are refused", async () => {
    for (const more of [
      Buffer.of(1),
      Buffer.of(0, 0, 5),
      Buffer.from("text"),
      Buffer.concat([Buffer.alloc(9), one]),
    ])
      expect(await read(Buffer.concat([one, more]))).toMatchObject({
        message: expect.stringMatching(/a\.txt\.gz: it is (not a whole archive|cut off)/) as string,
      });
    const far = Buffer.concat([one, Buffer.alloc(1 << 20), Buffer.of(1)]);
    expect(await read(far)).toMatchObject({
      message: expect.stringContaining(`(the bytes from ${one.length} on are not gzip)`) as string,
    });
  });

  test("an archive that is cut off anywhere is refused; one with a wrong bit is refused or gives the same text", async () => {
    for (let length = 0; length < one.length; length++)
      expect(await read(one.subarray(0, length))).toMatchObject({
        message: expect.stringContaining("a.txt.gz: it is cut off: the archive ends too early") as string,
      });
    for (let bit = 0; bit < one.length * 8; bit++) {
      const out = await read(flipped(one, bit));
      if ("text" in out) expect([bit, out.text]).toEqual([bit, text]);
    }
  });
});
