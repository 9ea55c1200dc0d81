/** Options of the run: where it is written, how often it is evaluated and saved, and on which backend it runs. */
import { THREADS_UNASKED } from "../../backends/cpu/options.ts";
import { bytes, choice, share, text, toggle, integer } from "./kinds.ts";
import type { SectionTable } from "./spec.ts";

/** Cost of evaluation as a share of the training's computation, if neither a share nor the steps between two evaluations are given. */
export const evalShareOtherwise = 0.03;

/** Tokens read from each held-out set, if only the steps between two evaluations are given. */
export const TOKENS_PER_EVALUATION = 8192;

export const runOptions: SectionTable<"run"> = {
  out: {
    flag: "--out",
    value: "DIR",
    kind: text,
    default: "",
    auto: "runs/DATE-TIME",
    help: "folder for the metrics, weights, model and checkpoints of the run; must not hold a run yet",
    free: true,
  },
  evalShare: {
    flag: "--eval-share",
    value: "SHARE",
    kind: share(),
    default: null,
    auto: `${evalShareOtherwise} unless --eval-every is given`,
    help: "share of the computation of training that evaluations may add, planned before the run. The target is evaluated before the first step, at the end and in between; the domains are evaluated at the end, and earlier if the share allows. The target at both ends and the domains at the end are always evaluated",
    free: true,
  },
  evalEvery: {
    flag: "--eval-every",
    value: "N",
    kind: integer(0),
    default: null,
    auto: "as --eval-share allows",
    help: "replaces --eval-share: evaluate on all held-out sets every N steps; 0: only at the end",
    free: true,
  },
  evalTokens: {
    flag: "--eval-tokens",
    value: "N",
    kind: integer(1),
    default: null,
    auto: `as --eval-share allows; ${TOKENS_PER_EVALUATION} with --eval-every`,
    help: "tokens of each held-out set per evaluation",
    free: true,
  },
  checkpointEvery: {
    flag: "--checkpoint-every",
    value: "N",
    kind: integer(0),
    default: 100,
    help: "write a checkpoint every N steps; 0: only at the end",
    free: true,
  },
  keepBest: {
    flag: "--keep-best",
    kind: toggle,
    default: false,
    help: "keep the model and the weights of the step with the lowest held-out loss on the target, in the folder best/ of the run; model/ still holds the model of the last step",
    free: true,
  },
  backend: {
    flag: "--backend",
    value: "NAME",
    kind: choice(["auto", "cpu", "webgpu", "reference"]),
    default: "auto",
    help: "auto: webgpu if there is a GPU, else cpu; cpu: WebAssembly SIMD, with threads; webgpu: the GPU, through Dawn; reference: plain TypeScript, slow, for checking. A resumed run keeps its backend by default",
    recorded: true,
  },
  threads: {
    flag: "--threads",
    value: "N",
    kind: integer(1, 64),
    default: null,
    auto: `one per core, at most ${THREADS_UNASKED}`,
    help: "threads of the cpu backend; the results do not depend on this number",
    free: true,
  },
  simd: {
    flag: "--simd",
    value: "auto|relaxed|plain",
    kind: choice(["auto", "relaxed", "plain"]),
    default: "auto",
    help: "SIMD instructions; relaxed and plain round differently. A resumed run keeps its setting by default",
    recorded: true,
  },
  vectorBits: {
    flag: "--vector-bits",
    value: "auto|128|256",
    kind: choice(["auto", "128", "256"]),
    default: "auto",
    help: "width of the vectors of the cpu backend, which does not change the results. 256 needs Node.js 24 or later on x64 with AVX2, and makes the cpu about twice as fast by an experimental pass of V8; auto: 256 where it was tested, else 128",
    free: true,
  },
  precision: {
    flag: "--precision",
    value: "f32|f16",
    kind: choice(["f32", "f16"]),
    default: "f32",
    help: "f16: matrix products with f16 operands, with loss scaling; needs --backend webgpu and a GPU with tensor cores",
  },
  deterministic: {
    flag: "--deterministic",
    kind: toggle,
    default: false,
    idle: ({ config: { run }, backend }) => {
      const name = backend ?? run.backend;
      return name === "auto" || name === "webgpu" ? null : `the ${name} backend times no kernels`;
    },
    help: "choose kernel variants by shape instead of by timing them (webgpu only)",
  },
  tensorboard: {
    flag: "--tensorboard",
    kind: toggle,
    default: false,
    help: "write event files for TensorBoard to tensorboard/ in the folder of the run, while it trains",
    free: true,
  },
  memoryLimit: {
    flag: "--memory-limit",
    value: "SIZE",
    kind: bytes({ min: 2 ** 22, max: 2 ** 40 }),
    default: null,
    auto: "the backend's own",
    help: 'limit on the memory of tensors, in bytes or as "512MiB", "2GiB"',
    free: true,
  },
  quiet: {
    flag: "--quiet",
    kind: toggle,
    default: false,
    help: "print only the result",
    free: true,
  },
};
