/** The WebGPU backend's kernels, by their names in the table. A missing kernel is an error of the compiler. */
import type { Launchers } from "../context.ts";
import { along } from "./along.ts";
import { attention } from "./attention.ts";
import { elementwise } from "./elementwise.ts";
import { gemm } from "./gemm.ts";
import { gemmSegmented } from "./gemm-segmented.ts";
import { maskedAttention } from "./masked-attention.ts";
import { misc } from "./misc.ts";
import { nearest } from "./nearest.ts";
import { optimizer } from "./optimizer.ts";
import { rows } from "./rows.ts";
import { tables } from "./tables.ts";

export const launchers: Launchers = {
  ...along,
  ...attention,
  ...maskedAttention,
  ...elementwise,
  ...gemm,
  ...gemmSegmented,
  ...misc,
  ...nearest,
  ...optimizer,
  ...rows,
  ...tables,
};
