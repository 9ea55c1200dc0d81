/**
 * Everything there is to measure on a GPU, in one go: matrix products in f32 and f16, microseconds of the host a dispatch, and training steps of a GPT of
 * 124M parameters in f32 and f16, beside PyTorch's with --peer. What does not run here is left out, with the reason.
 *
 * Options: --sizes 1024,4096, --model 124m as in `step`, --rounds N (7), --peer COMMAND as in `step`. About ten minutes, shaders included.
 */
import { GradmixError } from "gradmix";
import { run as dispatch } from "./dispatch.js";
import { run as gemm } from "./gemm.js";
import { readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";
import { run as step } from "./step.js";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const read = readOptions(options, ["sizes", "model", "rounds", "peer"]);
  const sizes = read.counts("sizes", [1024, 4096]).join(",");
  const model = read.text("model") ?? "124m";
  const rounds = String(read.count("rounds", 7));
  const peer = read.text("peer");
  const found: Record<string, unknown> = {};
  const measure = async (
    name: string,
    bench: (options: BenchOptions) => Promise<Record<string, unknown>>,
    given: BenchOptions,
  ): Promise<void> => {
    console.error(name);
    found[name] = await bench({ backend: "webgpu", ...given }).catch((error: unknown) => {
      if (!(error instanceof GradmixError)) throw error;
      return { leftOut: error.message };
    });
  };
  for (const precision of ["f32", "f16"]) await measure(`gemm ${precision}`, gemm, { sizes, precision });
  await measure("dispatch", dispatch, {});
  await measure("step f32", step, { model, rounds, ...(peer === null ? {} : { peer }) });
  await measure("step f16", step, { model, rounds, precision: "f16" });
  return found;
}
