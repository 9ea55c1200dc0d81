// @ts-check
/**
 * A software Vulkan without root: the npm package @sparticuz/chromium carries SwiftShader and a Vulkan loader. Unpacks them once into .cache/swiftshader and
 * says what the environment of a process must hold, from its start, for Dawn to find them.
 *
 * GRADMIX_WEBGPU chooses: "software" (the default of the tests; another driver in software, such as Mesa's lavapipe, if VK_DRIVER_FILES names its file),
 * "hardware" (the machine's own Vulkan, Metal or Direct3D 12), "off".
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const wanted = ["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"];

/** @returns {Record<string, string>} GRADMIX_WEBGPU, and with "off" GRADMIX_WEBGPU_REASON. */
export function webgpuEnvironment(env = process.env) {
  const choice = env["GRADMIX_WEBGPU"] ?? "software";
  if (choice === "hardware") return { GRADMIX_WEBGPU: "hardware" };
  const off = (/** @type {string} */ reason) => ({ GRADMIX_WEBGPU: "off", GRADMIX_WEBGPU_REASON: reason });
  if (choice !== "software") return off("GRADMIX_WEBGPU=off");
  if (env["GRADMIX_WEBGPU"] === "software" && env["VK_DRIVER_FILES"]) return { GRADMIX_WEBGPU: "software" };
  if (process.platform !== "linux" || process.arch !== "x64")
    return off(
      `SwiftShader comes for Linux on x86-64, this is ${process.platform} ${process.arch}; GRADMIX_WEBGPU=hardware tests on the GPU`,
    );
  try {
    const folder = unpack();
    const library = env["LD_LIBRARY_PATH"];
    const driver = join(folder, "vk_swiftshader_icd.json");
    return {
      GRADMIX_WEBGPU: "software",
      LD_LIBRARY_PATH: library === undefined || library === "" ? folder : `${folder}:${library}`,
      VK_DRIVER_FILES: driver,
      VK_ICD_FILENAMES: driver,
    };
  } catch (error) {
    return off(
      `SwiftShader could not be unpacked (${error instanceof Error ? error.message : String(error)})`,
    );
  }
}

function unpack() {
  const folder = join(root, ".cache", "swiftshader");
  if (wanted.every((name) => existsSync(join(folder, name)))) return folder;
  const entry = createRequire(import.meta.url).resolve("@sparticuz/chromium");
  const at = entry.lastIndexOf(join("@sparticuz", "chromium"));
  const archive = join(entry.slice(0, at), "@sparticuz", "chromium", "bin", "swiftshader.tar.br");
  const fresh = `${folder}-${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  for (const { name, contents } of filesOfTar(brotliDecompressSync(readFileSync(archive))))
    if (wanted.includes(name)) writeFileSync(join(fresh, name), contents, { mode: 0o755 });
  // Another process may have been faster.
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
  return folder;
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
