// Golden zstd archives: `node make_zstd.mjs` (Node.js 22.15 or later, with the `zstd` command) writes zstd.json beside this file.
//
// `frames` are archives with the text that they hold. `flips` are archives without a checksum in which one bit is wrong: what two decoders of the
// reference implementation (the command's and Node's own) both make of them, as a hash of the bytes, or null where both refuse.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { zstdDecompressSync } from "node:zlib";

const text = Array.from({ length: 40 }, (_, i) => `{"text":"line ${(i * 7919) % 1000} of ${i % 3 === 0 ? "prose" : "code;"}"}\n`).join("");
const long = Array.from({ length: 8_000 }, (_, i) => `${(i * 7919) % 9973} and ${(i * i) % 31} more\n`).join("");
const noise = Buffer.from(Array.from({ length: 400 }, (_, i) => (i * i * 7 + 13 * i + (i >> 3)) & 255));
const zstd = (input, ...options) => {
  const { stdout, status } = spawnSync("zstd", ["-q", "-c", ...options], { input, maxBuffer: 1 << 28 });
  return { stdout, status };
};
const pack = (input, ...options) => zstd(input, ...options).stdout;
const skippable = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
const frames = {
  "level 3": [text, pack(text)],
  "level 19": [text, pack(text, "-19")],
  "many blocks": [long, pack(long, "-1")],
  "many blocks, level 22": [long, pack(long, "--ultra", "-22")],
  "without a checksum": [text, pack(text, "--no-check")],
  "a window of 128 MiB": [text, pack(text, "--long=27")],
  "raw blocks": [noise.toString("latin1"), pack(Buffer.from(noise.toString("latin1")))],
  "a run": ["\0".repeat(200_000), pack(Buffer.alloc(200_000))],
  empty: ["", pack("")],
  "one byte": ["a", pack("a")],
  "several frames": [`${text}b`, Buffer.concat([pack(text), pack(""), skippable, pack("b")])],
  "a frame that is skipped": ["", skippable],
};
const flips = {};
for (const name of ["without a checksum"]) {
  const [, archive] = frames[name];
  flips[name] = [];
  for (let bit = 0; bit < archive.length * 8; bit += 5) {
    const broken = Buffer.from(archive);
    broken[bit >> 3] ^= 1 << (bit & 7);
    const { stdout, status } = zstd(broken, "-d");
    let own = null;
    try {
      own = zstdDecompressSync(broken);
    } catch {
      // Refused.
    }
    const theirs = status === 0 ? stdout : null;
    const hash = (bytes) => bytes && createHash("sha256").update(bytes).digest("hex").slice(0, 8);
    if (hash(theirs) === hash(own)) flips[name].push([bit, hash(own)]);
  }
}
writeFileSync(
  new URL("zstd.json", import.meta.url),
  `${JSON.stringify({
    frames: Object.entries(frames).map(([name, [content, archive]]) => ({
      name,
      bytes: Buffer.byteLength(content),
      sha256: createHash("sha256").update(content).digest("hex"),
      archive: archive.toString("base64"),
    })),
    flips,
  })}\n`,
);
