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
  const { default: asc } = await import("assemblyscript/asc");
  mkdirSync(out, { recursive: true });
  for (const [simd, file] of Object.entries(files)) {
    const { error, stderr, stdout, binary } = await compile(asc, simd);
    if (error !== null) {
      process.stderr.write(stderr + stdout);
      process.exit(1);
    }
    writeFileSync(file, binary);
  }
  writeFileSync(stamp, digest);
}

async function compile(asc, simd) {
  let binary = null;
  const { error, stderr, stdout } = await asc.main(
    [
      "assembly/index.ts",
      ...["--outFile", "kernels.wasm", "-O3", "--runtime", "stub", "--noAssert", "--noColors"],
      ...["--importMemory", "--sharedMemory", "--initialMemory", "16", "--maximumMemory", "65536"],
      ...[
        "--enable",
        simd === "relaxed" ? "simd,relaxed-simd,threads,bulk-memory" : "simd,threads,bulk-memory",
      ],
      ...["--use", "abort="],
    ],
    {
      readFile: (name, base) => {
        const path = join(base, name);
        return existsSync(path) ? readFileSync(path, "utf8") : null;
      },
      writeFile: (name, contents) => {
        if (name.endsWith(".wasm")) binary = contents;
      },
      listFiles: () => [],
    },
  );
  return { error, stderr: stderr.toString(), stdout: stdout.toString(), binary };
}
