// @ts-check
/**
 * Unpacks the contents of the npm package @sparticuz/chromium into .cache, each once: a headless Chromium for Linux on x86-64 with the libraries that systems
 * without a desktop lack, and SwiftShader with a Vulkan loader.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The reason why the package does not run on this machine, or null. */
export const notHere =
  process.platform === "linux" && process.arch === "x64"
    ? null
    : `it comes for Linux on x86-64, this is ${process.platform} ${process.arch}`;

const SWIFTSHADER = ["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"];

/** The folder of SwiftShader, the Vulkan loader and the file that names the driver to it. */
export function unpackSwiftShader() {
  return unpack("swiftshader", SWIFTSHADER, (put) => {
    for (const { name, contents } of filesOfTar(archive("swiftshader.tar.br")))
      if (SWIFTSHADER.includes(name)) put(name, contents);
  });
}

/** The folder of `chromium`, with SwiftShader beside it, where it looks for it; `libraries` is for LD_LIBRARY_PATH. */
export function unpackChromium() {
  const folder = unpack("chromium", ["chromium", ...SWIFTSHADER, "lib/libnss3.so"], (put) => {
    put("chromium", archive("chromium.br"));
    for (const name of ["swiftshader.tar.br", "al2023.tar.br"])
      for (const { name: file, contents } of filesOfTar(archive(name))) put(file, contents);
  });
  return { executable: join(folder, "chromium"), libraries: join(folder, "lib") };
}

/**
 * @param {string} name of the folder in .cache
 * @param {readonly string[]} wanted files that say it is whole
 * @param {(put: (name: string, contents: Buffer) => void) => void} write
 */
function unpack(name, wanted, write) {
  const folder = join(root, ".cache", name);
  const isWhole = () => wanted.every((file) => existsSync(join(folder, file)));
  if (isWhole()) return folder;
  const fresh = `${folder}-${process.pid}`;
  try {
    write((file, contents) => {
      mkdirSync(dirname(join(fresh, file)), { recursive: true });
      writeFileSync(join(fresh, file), contents, { mode: 0o755 });
    });
    // Another process may have been faster.
    if (!isWhole()) {
      rmSync(folder, { recursive: true, force: true });
      renameSync(fresh, folder);
    }
  } catch (error) {
    if (!isWhole()) throw error;
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
  return folder;
}

/** @param {string} name */
function archive(name) {
  const entry = createRequire(import.meta.url).resolve("@sparticuz/chromium");
  const at = entry.lastIndexOf(join("@sparticuz", "chromium"));
  return brotliDecompressSync(
    readFileSync(join(entry.slice(0, at), "@sparticuz/chromium/bin", basename(name))),
  );
}

/** The regular files of a tar archive: headers of 512 bytes, contents padded to the same. */
function* filesOfTar(/** @type {Buffer} */ tar) {
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    const field = (/** @type {number} */ from, /** @type {number} */ length) =>
      tar.toString("utf8", at + from, at + from + length).replace(/\0.*$/s, "");
    const size = parseInt(field(124, 12), 8);
    const name = field(0, 100).replace(/^\.\//, "");
    if (field(156, 1) === "0" || field(156, 1) === "")
      yield { name, contents: tar.subarray(at + 512, at + 512 + size) };
    at += 512 + Math.ceil(size / 512) * 512;
  }
}
