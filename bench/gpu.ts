/**
 * All measurements on a GPU in one run: matrix products and segmented weight gradients in f32 and f16, by variant; the host's microseconds per dispatch,
 * and the dispatches per step; training steps of a GPT of 124M parameters, plain and aligned, in f32 and f16; and PyTorch's figures beside them, if a Python with PyTorch is
 * given. Measurements that do not run here are left out, with the reason.
 *
 * Every section is written to the output file as soon as it is measured, the first after seconds, so that an interrupted run leaves figures. No section begins after
 * the time limit.
 *
 * Options: --out FILE (.cache/gpu.json), --seconds N (330), --sizes 4096,1024, --model 124m|small|tiny as in `step`, --rounds N (5), --python PYTHON (PyTorch's
 * figures, by bench/peers/gpu.py). With GRADMIX_WEBGPU=software, --sizes 64 and --model tiny it runs anywhere in a minute or two.
 */
import { execFile } from "node:child_process";
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { promisify } from "node:util";
import { GradmixError } from "gradmix";
import { run as dispatch } from "./dispatch.js";
import { run as gemm } from "./gemm.js";
import { shapeOf } from "./_models.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";
import { run as step } from "./step.js";

const PRECISIONS = ["f32", "f16"] as const;

interface Section {
  readonly name: string;
  run(): Promise<unknown>;
}

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["out", "seconds", "sizes", "model", "rounds", "python"]);
  const file = read.text("out") ?? ".cache/gpu.json";
  const budget = read.positive("seconds", 330);
  const sizes = read.counts("sizes", [4096, 1024]);
  const model = read.text("model") ?? "124m";
  const rounds = read.count("rounds", 5);
  const python = read.text("python");
  const onGpu = { backend: "webgpu" };
  const steps = (precision: (typeof PRECISIONS)[number]): Section => ({
    name: `step ${model} ${precision}`,
    run: () => step({ ...onGpu, model, precision, rounds: String(rounds), variants: "plain,aligned" }),
  });
  const sections: Section[] = [
    ...sizes.flatMap((size) =>
      PRECISIONS.map((precision) => ({
        name: `products ${size} ${precision}`,
        run: () => gemm({ ...onGpu, sizes: String(size), precision }),
      })),
    ),
    { name: "dispatch", run: () => dispatch({ ...onGpu, dispatches: "500", steps: String(rounds) }) },
    steps("f32"),
    ...(python === null ? [] : [{ name: "pytorch", run: () => peer(python, model, sizes, rounds) }]),
    steps("f16"),
  ];
  const began = performance.now();
  const elapsed = (): number => (performance.now() - began) / 1000;
  const found: Record<string, unknown> = { node: process.version };
  for (const { name, run: measure } of sections) {
    console.error(`${elapsed().toFixed(0)} s: ${name}`);
    found[name] =
      elapsed() > budget
        ? { leftOut: `the ${budget} seconds are over (--seconds)` }
        : await measure().catch((error: unknown) => ({ leftOut: reasonOf(error) }));
    found["seconds"] = elapsed();
    write(file, found);
  }
  console.error(`${elapsed().toFixed(0)} s: ${file}`);
  return found;
}

/** A driver's fault in one section must not cost the others. */
const reasonOf = (error: unknown): string =>
  error instanceof GradmixError
    ? error.message
    : error instanceof Error
      ? (error.stack ?? "")
      : String(error);

/** The file is written completely or not at all, because a run may be killed at any time. */
function write(file: string, found: Readonly<Record<string, unknown>>): void {
  mkdirSync(dirname(resolve(file)), { recursive: true });
  writeFileSync(`${file}.new`, `${JSON.stringify(found, null, 2)}\n`);
  renameSync(`${file}.new`, file);
}

/** PyTorch's figures on its CUDA device, or on the CPU where it has none. */
async function peer(
  python: string,
  model: string,
  sizes: readonly number[],
  rounds: number,
): Promise<unknown> {
  const { dim, layers, heads, T, B, vocabSize } = shapeOf(model);
  const script = resolve(import.meta.dirname, "../../bench/peers/gpu.py");
  const shape = [dim, layers, heads, T, B, vocabSize, rounds].map(String);
  const { stdout } = await promisify(execFile)(python, [script, sizes.join(","), ...shape], {
    timeout: 120_000,
  });
  return JSON.parse(stdout) as unknown;
}
