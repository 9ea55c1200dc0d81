/** The run: where it is written, how often it is evaluated and saved, and on what it runs. */
import { THREADS_UNASKED } from "../../backends/cpu/options.ts";
import { bytes, choice, share, text, toggle, whole } from "./kinds.ts";
import type { SectionTable } from "./spec.ts";

/** Share of the training's computation for evaluation, where neither a share nor the steps between two evaluations are given. */
export const evalShareOtherwise = 0.03;

/** Tokens read from each held-out set where only the steps between two evaluations are given. */
export const EVERY_TOKENS = 8192;

export const runOptions: SectionTable<"run"> = {
  out: {
    flag: "--out",
    value: "DIR",
    kind: text,
    default: "",
    auto: "runs/DATE-TIME",
    help: "the run folder: metrics, weights, model, checkpoints; must not hold a run yet",
    free: true,
  },
  evalShare: {
    flag: "--eval-share",
    value: "SHARE",
    kind: share(),
    default: null,
    auto: `${evalShareOtherwise} unless --eval-every is given`,
    help: "how much of the training's computation evaluation may take, counted before the run: the target is evaluated before the first step, at the end and between, the domains at the end and, where there is room, before it. The target at both ends and the domains at the end are evaluated whatever the share",
    free: true,
  },
  evalEvery: {
    flag: "--eval-every",
    value: "N",
    kind: whole(0),
    default: null,
    auto: "as --eval-share allows",
    help: "instead of --eval-share: steps between two evaluations on all held-out sets; 0: only at the end",
    free: true,
  },
  evalTokens: {
    flag: "--eval-tokens",
    value: "N",
    kind: whole(1),
    default: null,
    auto: `as --eval-share allows; ${EVERY_TOKENS} with --eval-every`,
    help: "tokens read from each held-out set for an evaluation",
    free: true,
  },
  checkpointEvery: {
    flag: "--checkpoint-every",
    value: "N",
    kind: whole(0),
    default: 100,
    help: "steps between two checkpoints; 0: only at the end",
    free: true,
  },
  keepBest: {
    flag: "--keep-best",
    kind: toggle,
    default: false,
    help: "keep the model and the weights of the step with the best held-out target loss in the folder best/ of the run; model/ is of the last step all the same",
    free: true,
  },
  backend: {
    flag: "--backend",
    value: "NAME",
    kind: choice(["auto", "cpu", "webgpu", "reference"]),
    default: "auto",
    help: "auto: webgpu where there is a GPU, else cpu; cpu: WebAssembly SIMD on all cores; webgpu: the GPU, through Dawn; reference: plain TypeScript, slow, for checking. A resumed run goes on where it began, unless this says otherwise",
    said: true,
  },
  threads: {
    flag: "--threads",
    value: "N",
    kind: whole(1, 64),
    default: null,
    auto: `one per core, at most ${THREADS_UNASKED}`,
    help: "threads of the cpu backend; the results do not depend on it",
    free: true,
  },
  simd: {
    flag: "--simd",
    value: "auto|relaxed|plain",
    kind: choice(["auto", "relaxed", "plain"]),
    default: "auto",
    help: "SIMD instructions; relaxed and plain round differently. A resumed run goes on as it began, unless this says otherwise",
    said: true,
  },
  precision: {
    flag: "--precision",
    value: "f32|f16",
    kind: choice(["f32", "f16"]),
    default: "f32",
    help: "f16: matrix products with f16 operands on GPUs that have tensor cores, with loss scaling; needs --backend webgpu",
  },
  deterministic: {
    flag: "--deterministic",
    kind: toggle,
    default: false,
    help: "pins kernel variants instead of timing them; webgpu only",
  },
  tensorboard: {
    flag: "--tensorboard",
    kind: toggle,
    default: false,
    help: "write event files for TensorBoard to tensorboard/ in the run's folder, while the run goes on",
    free: true,
  },
  memoryLimit: {
    flag: "--memory-limit",
    value: "SIZE",
    kind: bytes({ min: 2 ** 22, max: 2 ** 40 }),
    default: null,
    auto: "the backend's own",
    help: 'most memory for tensors, in bytes or like "512MiB", "2GiB"',
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
