// Compiles the kernels in assembly/ to WebAssembly.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/**
 * Returns `{ binary, error, text }`: the module's bytes, or an error with the compiler's text. `simd` is "relaxed" or "plain"; with `names`, functions keep
 * their names, and the code is the same.
 */
export async function compileKernels(simd, { names = false } = {}) {
  const { default: asc } = await import("assemblyscript/asc");
  let binary = null;
  let text = "";
  const stream = { write: (part) => (text += part) };
  const { error } = await asc.main(
    [
      "assembly/index.ts",
      ...["--outFile", "kernels.wasm", "-O3", "--runtime", "stub", "--noAssert", "--noColors"],
      ...["--importMemory", "--sharedMemory", "--initialMemory", "16", "--maximumMemory", "65536"],
      ...[
        "--enable",
        simd === "relaxed" ? "simd,relaxed-simd,threads,bulk-memory" : "simd,threads,bulk-memory",
      ],
      ...["--use", "abort=", ...(names ? ["--debug"] : [])],
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
      stdout: stream,
      stderr: stream,
    },
  );
  return { binary, error, text };
}
