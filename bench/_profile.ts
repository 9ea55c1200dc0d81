/** Measures the time of each kernel in a piece of work on the cpu backend, relative to the limits of the machine. */
import { peakFlops } from "./_models.js";
import type { Backend, Capabilities } from "gradmix";
import { cpuBackend, type CpuOptions, startMachine } from "#dist/backends/cpu/index.js";
import { type CpuMachine, PARALLEL_WORK } from "#dist/backends/cpu/runtime.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";

/** One kind of call: a kernel, for products with layout and sizes. */
export interface ProfileRow {
  readonly kernel: string;
  /** Per repetition of the work. */
  readonly calls: number;
  readonly milliseconds: number;
  /** Share of the total time, in percent. */
  readonly share: number;
  /** The part of `milliseconds` that its launches took; the rest is spent on the host. */
  readonly launched: number;
  readonly launches: number;
  /** The part of `launched` that packing operands took. */
  readonly packing: number;
  /** The part of `launched` that ran only on the calling thread. */
  readonly alone: number;
  /** Products and attention: GFLOP/s; all others GB/s of their operands, each counted once. */
  readonly rate: number;
  readonly unit: "GFLOP/s" | "GB/s";
  /** Share of the machine's limit: multiply-adds of the micro-kernel, or bytes of `affine` in the second-level cache, times the number of threads. */
  readonly ofLimit: number;
}

export interface Profile {
  readonly limits: { readonly gflops: number; readonly gigabytes: number };
  /** Time of one repetition. */
  readonly milliseconds: number;
  /** Percent of the time outside of all kernels' calls: autodiff, tensors, the optimizer's host part. */
  readonly between: number;
  /** Percent of the time in which one thread works: `between`, the host's part of calls, and launches of one task or little work. */
  readonly serial: number;
  readonly kernels: readonly ProfileRow[];
}

const WARM_MS = 1500;

interface Tally {
  calls: number;
  seconds: number;
  launched: number;
  launches: number;
  packing: number;
  alone: number;
  flops: number;
  bytes: number;
}

/** A backend, made the current one, that keeps a tally while it is asked to. */
export interface ProfiledBackend {
  readonly backend: Backend;
  /** Runs `work` the given number of times, and returns where the time went. */
  profile(work: () => Promise<void>, repetitions: number): Promise<Profile>;
}

export async function startProfiled(options: CpuOptions): Promise<ProfiledBackend> {
  const { machine, capabilities } = await startMachine(options);
  const limits = limitsOf(machine, capabilities);
  const tallies = new Map<string, Tally>();
  let tally: Tally | null = null;
  /** Seconds that this module itself took, beside the calls; they are no part of the work. */
  let keeping = 0;
  const watched: CpuMachine = {
    ...machine,
    launch(launch) {
      const began = performance.now();
      machine.launch(launch);
      if (tally === null) return;
      const took = (performance.now() - began) / 1000;
      tally.launches++;
      tally.launched += took;
      if (launch.kernel === "packPanels") tally.packing += took;
      if (machine.workers.length > 0 && (launch.tasks <= 1 || launch.work < PARALLEL_WORK))
        tally.alone += took;
    },
  };
  const own = cpuBackend(watched, capabilities);
  const backend: Backend = Object.create(own, {
    run: {
      value: (...call: Parameters<Backend["run"]>) => {
        const entered = performance.now();
        const [kernel, params, inputs, outputs] = call;
        const views = [...Object.values(inputs), ...Object.values(outputs)];
        const name = nameOf(kernel, params);
        tally = tallies.get(name) ?? null;
        if (tally === null) {
          tally = {
            calls: 0,
            seconds: 0,
            launched: 0,
            launches: 0,
            packing: 0,
            alone: 0,
            flops: 0,
            bytes: 0,
          };
          tallies.set(name, tally);
        }
        const began = performance.now();
        own.run(...call);
        const ended = performance.now();
        tally.seconds += (ended - began) / 1000;
        tally.calls++;
        tally.flops += flopsOf(kernel, params);
        for (const view of views)
          if (view !== null && view !== undefined) tally.bytes += 4 * view.shape.reduce((a, b) => a * b, 1);
        tally = null;
        keeping += (began - entered + performance.now() - ended) / 1000;
      },
    },
  }) as Backend;
  setCurrentMemory(backend);
  return {
    backend,
    async profile(work, repetitions) {
      // Repeated until V8 has compiled the code.
      const warm = performance.now();
      for (let i = 0; i < 3 || performance.now() - warm < WARM_MS; i++) await work();
      tallies.clear();
      keeping = 0;
      const began = performance.now();
      for (let i = 0; i < repetitions; i++) await work();
      const seconds = (performance.now() - began) / 1000 - keeping;
      return profileOf(tallies, seconds, repetitions, limits);
    },
  };
}

/** The values of those parameters of a call that affect its cost. */
function numbers(params: object): Readonly<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const [name, value] of Object.entries(params))
    if (typeof value === "number" || typeof value === "boolean") found[name] = Number(value);
  return found;
}

function nameOf(kernel: string, params: object): string {
  const { m = 0, n = 0, k = 0, rows = 0, transA = 0, transB = 0 } = numbers(params);
  if (kernel === "gemmSegmented") return `${kernel} ${m}x${n}x${rows}`;
  if (kernel !== "gemm") return "kind" in params ? `${kernel} ${String(params.kind)}` : kernel;
  const activation =
    "activation" in params && params.activation !== "none" ? ` ${String(params.activation)}` : "";
  return `gemm ${transA === 1 ? "T" : "N"}${transB === 1 ? "T" : "N"} ${m}x${n}x${k}${activation}`;
}

/** Causal products of attention: scores and values; with derivatives, five. */
const PRODUCTS: Readonly<Record<string, number>> = { attention: 2, attentionVjp: 5, attentionJvp: 5 };

/** 0 for kernels that only move bytes. */
function flopsOf(kernel: string, params: object): number {
  const { m = 0, n = 0, k = 0, rows = 0, batch = 1, time = 0, heads = 0, headDim = 0 } = numbers(params);
  if (kernel === "gemm") return 2 * batch * m * n * k;
  if (kernel === "gemmSegmented") return 2 * rows * m * n;
  return (PRODUCTS[kernel] ?? 0) * batch * heads * time * (time + 1) * headDim;
}

/** Measures the limits of the machine with this many threads. */
function limitsOf(machine: CpuMachine, capabilities: Capabilities): Profile["limits"] {
  const { threads } = capabilities;
  const rounds = 2000;
  const peak = best(() =>
    machine.launch({
      kernel: "microPeak",
      tasks: threads,
      slots: { rounds },
      scratch: 1 << 16,
      work: Infinity,
    }),
  );
  const elements = 16_384;
  const at = machine.alloc(8 * elements * threads);
  const copy = best(() => {
    for (let i = 0; i < 64; i++)
      machine.launch({
        kernel: "affine",
        tasks: 4 * threads,
        slots: {
          ...{ x: at, y: at + 4 * elements * threads, elements: elements * threads },
          ...{ elementsPerTask: elements / 4, scale: 1, shift: 0 },
        },
        work: Infinity,
      });
  });
  machine.allocator.release(at, 8 * elements * threads);
  return {
    gflops: (rounds * peakFlops(capabilities) * threads) / peak / 1e9,
    gigabytes: (64 * 8 * elements * threads) / copy / 1e9,
  };
}

/** Seconds of the fastest of thirty calls. */
function best(call: () => void): number {
  let least = Infinity;
  for (let i = 0; i < 30; i++) {
    const began = performance.now();
    call();
    least = Math.min(least, (performance.now() - began) / 1000);
  }
  return least;
}

function profileOf(
  tallies: ReadonlyMap<string, Tally>,
  seconds: number,
  repetitions: number,
  limits: Profile["limits"],
): Profile {
  const all = [...tallies];
  const total = (of: (tally: Tally) => number): number => all.reduce((sum, [, tally]) => sum + of(tally), 0);
  const percent = (part: number): number => rounded((100 * part) / seconds, 1);
  const own = total((t) => t.seconds);
  return {
    limits: { gflops: rounded(limits.gflops, 1), gigabytes: rounded(limits.gigabytes, 1) },
    milliseconds: rounded((1000 * seconds) / repetitions, 3),
    between: percent(seconds - own),
    serial: percent(seconds - total((t) => t.launched - t.alone)),
    kernels: all
      .toSorted(([, a], [, b]) => b.seconds - a.seconds)
      .map(([kernel, t]) => {
        const products = t.flops > 0;
        const rate = (products ? t.flops : t.bytes) / t.seconds / 1e9;
        const each = (value: number): number => rounded((1000 * value) / repetitions, 3);
        return {
          kernel,
          calls: t.calls / repetitions,
          milliseconds: each(t.seconds),
          share: percent(t.seconds),
          launched: each(t.launched),
          launches: t.launches / repetitions,
          packing: each(t.packing),
          alone: each(t.alone),
          rate: rounded(rate, 1),
          unit: products ? "GFLOP/s" : "GB/s",
          ofLimit: rounded(rate / (products ? limits.gflops : limits.gigabytes), 2),
        };
      }),
  };
}

const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));
