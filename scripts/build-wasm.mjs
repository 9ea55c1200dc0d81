// Writes the files that are generated from assembly/slots.mjs, and compiles assembly/ to dist/backends/cpu/kernels-{relaxed,plain}.wasm. Does nothing if the sources
// have not changed.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { SLOTS } from "../assembly/slots.mjs";
import { assemblyScript, typeScript } from "./slots.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = join(root, "dist/backends/cpu");
for (const [name, text] of [
  ["assembly/slots.ts", assemblyScript(SLOTS)],
  ["src/backends/cpu/slots.ts", typeScript(SLOTS)],
]) {
  const path = join(root, name);
  if (!existsSync(path) || readFileSync(path, "utf8") !== text) writeFileSync(path, text);
}
const sources = readdirSync(join(root, "assembly"))
  .filter((name) => name.endsWith(".ts"))
  .sort();
const hash = createHash("sha256");
for (const name of [
  ...sources.map((s) => join("assembly", s)),
  "src/backends/cpu/blocks.ts",
  "scripts/build-wasm.mjs",
  "scripts/compile-kernels.mjs",
  "node_modules/assemblyscript/package.json",
])
  hash.update(readFileSync(join(root, name)));
const digest = hash.digest("hex");
const stamp = join(out, "kernels.sha256");
const files = { relaxed: join(out, "kernels-relaxed.wasm"), plain: join(out, "kernels-plain.wasm") };
const fresh =
  existsSync(stamp) &&
  readFileSync(stamp, "utf8") === digest &&
  Object.values(files).every((file) => existsSync(file));

if (!fresh) {
  const { compileKernels } = await import("./compile-kernels.mjs");
  mkdirSync(out, { recursive: true });
  for (const [simd, file] of Object.entries(files)) {
    const { error, text, binary } = await compileKernels(simd);
    if (error !== null) {
      process.stderr.write(text);
      process.exit(1);
    }
    writeFileSync(file, binary);
  }
  writeFileSync(stamp, digest);
}
