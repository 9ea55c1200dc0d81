/**
 * How V8 compiles the kernels for 256-bit vectors: for each function, the number of pairs of neighbouring stores from which V8 starts, how many of them it gives
 * up, and the number of pairs of instructions that it joins. V8 ends the process at a pair that it does not expect; then the function at which it did is named.
 *
 * Needs Node.js 25 or later; it compiles with the same process's Node.js. Options: --only TEXT (names that contain it), --why (the reasons that V8 gives).
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { GradmixError } from "gradmix";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

/** scripts/compile-kernels.mjs. */
interface Compiler {
  compileKernels(
    simd: "relaxed",
    options: { names: boolean },
  ): Promise<{ binary: Uint8Array | null; text: string }>;
}

interface Row {
  readonly function: string;
  readonly seeds: number;
  readonly failed: number;
  readonly joined: number;
  readonly why?: string;
}

const FLAGS = [
  ...["--experimental-wasm-revectorize", "--trace-wasm-revectorize"],
  ...["--no-liftoff", "--no-wasm-lazy-compilation", "--wasm-num-compilation-tasks=0"],
];
/** The text before the trace of a function. */
const BEGIN = "Begin revec function ";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["only", "why"]);
  const only = read.text("only") ?? "";
  const why = read.flag("why");
  const { compileKernels } = (await import(
    pathToFileURL(resolve("scripts/compile-kernels.mjs")).href
  )) as Compiler;
  const { binary, text } = await compileKernels("relaxed", { names: true });
  if (binary === null) throw new GradmixError("config", `the kernels do not compile: ${text}`);
  const trace = traceOf(binary);
  const rows = trace
    .split(BEGIN)
    .slice(1)
    .map((part) => rowOf(part, why))
    .filter((row) => row.function.includes(only) && (row.seeds > 0 || only !== ""));
  return { node: process.version, functions: rows };
}

/** What V8 writes about the compilation of a module. */
function traceOf(binary: Uint8Array): string {
  const folder = mkdtempSync(join(tmpdir(), "gradmix-vectors-"));
  try {
    const file = join(folder, "kernels.wasm");
    writeFileSync(file, binary);
    const program = `new WebAssembly.Module(require("node:fs").readFileSync(${JSON.stringify(file)}))`;
    const { stdout, stderr, status, signal } = spawnSync(process.execPath, [...FLAGS, "-e", program], {
      encoding: "utf8",
      maxBuffer: 2 ** 28,
    });
    if (status === 0) return stdout;
    const last = stdout.split(BEGIN).at(-1)?.split("\n")[0] ?? "?";
    throw new GradmixError(
      "backend",
      `Node.js ${process.version} ended with ${signal ?? `status ${String(status)}`} at the function ${last}: ${stderr.trim().split("\n").slice(0, 4).join(" ")}`,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Reads the trace of a function, whose first line is its name. */
function rowOf(part: string, why: boolean): Row {
  const lines = part.split("\n");
  const ends = lines.flatMap((line, i) => (line.includes("Building SLP tree failed") ? [i] : []));
  const reasons = new Set(
    ends.map((i) => (lines[i - 1] ?? "").replace(/^Revec: \w+ \d+: |#?\d+/g, "").trim()),
  );
  return {
    function: (lines[0] ?? "").replace("assembly/", "").trim(),
    seeds: lines.filter((line) => line === "{").length,
    failed: ends.length,
    joined: Number(/Decided to vectorize, (\d+) revectorizable nodes/.exec(part)?.[1] ?? 0),
    ...(why ? { why: [...reasons].join("; ") } : {}),
  };
}
