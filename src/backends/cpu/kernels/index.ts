/** The CPU backend's kernels, by their names in the table: one line each. */
import { fill } from "./fill.ts";
import { gemm, gemmSegmented } from "./gemm.ts";
import type { Launchers } from "./launcher.ts";

export const launchers: Partial<Launchers> = {
  fill,
  gemm,
  gemmSegmented,
};
