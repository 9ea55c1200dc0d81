/** The CPU backend's kernels, by their names in the table. A missing kernel is an error of the compiler. */
import { along } from "./along.ts";
import { attention } from "./attention.ts";
import { elementwise } from "./elementwise.ts";
import { fill } from "./fill.ts";
import { gemm } from "./gemm.ts";
import { gemmSegmented } from "./gemm-segmented.ts";
import type { Launchers } from "./launcher.ts";
import { maskedAttention } from "./masked-attention.ts";
import { nearest } from "./nearest.ts";
import { norm } from "./norm.ts";
import { optimizer } from "./optimizer.ts";
import { random } from "./random.ts";
import { reduce } from "./reduce.ts";
import { softmax } from "./softmax.ts";
import { strided } from "./strided.ts";
import { table } from "./table.ts";

export const launchers: Launchers = {
  fill,
  gemm,
  gemmSegmented,
  ...along,
  ...attention,
  ...maskedAttention,
  ...elementwise,
  ...nearest,
  ...norm,
  ...optimizer,
  ...random,
  ...reduce,
  ...softmax,
  ...strided,
  ...table,
};
