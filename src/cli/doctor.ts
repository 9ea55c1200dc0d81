/**
 * `gradmix doctor`: reports which backends run on this machine, how fast a matrix product and a copy are on each, and how long a GPU's shaders
 * take to compile.
 */
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { gradients } from "../autograd/grad.ts";
import { alignSink } from "../autograd/sinks/align.ts";
import type { Backend } from "../backends/backend.ts";
import { createCpuBackend, missingVectors } from "../backends/cpu/index.ts";
import { computesRight } from "../backends/self-check.ts";
import { createReferenceBackend } from "../backends/reference/index.ts";
import type { FoundDevice } from "../backends/webgpu/adapter-info.ts";
import { createNodeDevice, mayHaveGpu, tuningStore } from "../backends/webgpu/host-node.ts";
import { createWebgpuBackend, type WebgpuBackend } from "../backends/webgpu/index.ts";
import { meanGradient, readAndDispose } from "../dga/passes.ts";
import { GradmixError } from "../errors.ts";
import { createGPT } from "../nn/gpt.ts";
import { adamw } from "../nn/optimizer.ts";
import { arenaLike } from "../nn/parameters.ts";
import { setCurrentMemory, type View } from "../tensor/memory.ts";

interface Output {
  write(text: string): unknown;
}

/** Prints the report and returns the exit code: 1 if the cpu backend does not run or computes wrong results. */
export async function doctor(output: Output): Promise<number> {
  const print = (name: string, value: string): void => {
    output.write(`${name.padEnd(10)} ${value}\n`);
  };
  let found: FoundDevice[] = [];
  const choices: ReadonlyMap<string, string>[] = [];
  const startWebgpu = async (precision: "f32" | "f16"): Promise<Backend> => {
    if (!mayHaveGpu()) throw new GradmixError("backend", "this machine has no driver for a GPU (Vulkan)");
    // Requests the features for mixed precision, to report whether they exist.
    const node = await createNodeDevice({
      software: process.env["GRADMIX_WEBGPU"] === "software",
      tensorCores: true,
    });
    found = [node];
    const { device, adapter, software, tensorCores } = node;
    const backend = createWebgpuBackend({
      ...{ device, adapter, software, precision, tensorCores },
      ...(software ? {} : { tuning: tuningStore(node) }),
    });
    choices.push(backend.chosen);
    return backend;
  };
  print("node", `${process.version}, ${process.platform} ${process.arch}`);
  print(
    "processor",
    `${cpus()[0]?.model.trim() ?? "unknown"}, ${availableParallelism()} cores for this process`,
  );
  print("memory", `${gib(totalmem())}, ${gib(freemem())} free`);

  const cpu = await examine(() => createCpuBackend({ vectorBits: "auto" }), 512);
  print("cpu", cpu.text);
  if (cpu.threads > 1)
    print("", (await examine(() => createCpuBackend({ vectorBits: "auto", threads: 1 }), 512)).text);
  const missing = missingVectors();
  if (missing !== null)
    print("", `without 256-bit vectors, with which products are about twice as fast: ${missing}`);
  const gpu = await examine(() => startWebgpu("f32"), 256, 4096);
  print("webgpu", gpu.text);
  if (found.some(({ tensorCores }) => tensorCores !== null))
    print("", (await examine(() => startWebgpu("f16"), 256, 4096, "f16")).text);
  const chosen = new Map(choices.flatMap((choice) => [...choice]));
  for (const { details, tensorCores } of found) {
    const { features, limits, driver, vendor, architecture, matrices } = details;
    print(
      "",
      `${vendor} ${architecture}${driver === "" ? "" : `, driver ${driver}`}; features ${features.join(", ")}`,
    );
    print(
      "",
      `limits ${Object.entries(limits)
        .map(([name, value]) => `${name} ${value}`)
        .join(", ")}`,
    );
    print(
      "",
      `tensor cores ${matrices.length === 0 ? "none" : matrices.join(", ")}; --precision f16 ${tensorCores === null ? "is not possible" : "is possible"}`,
    );
    print(
      "",
      `variants of kernels: ${chosen.size === 0 ? "the default ones; none was timed" : "chosen by time"}`,
    );
    for (const [bucket, variant] of chosen) print("", `  ${bucket} takes ${variant}`);
    print("", await shaders());
  }
  print("reference", (await examine(() => Promise.resolve(createReferenceBackend()), 64)).text);
  const takesGpu = gpu.works && found.some(({ software }) => !software);
  const named = process.env["GRADMIX_BACKEND"] ?? "";
  print(
    "auto",
    named === "" || named === "auto"
      ? `takes ${takesGpu ? "webgpu" : "cpu"}`
      : `takes ${named}, because GRADMIX_BACKEND is set`,
  );
  return cpu.works ? 0 : 1;
}

/**
 * Reports how many shaders the first training steps need, plain and aligned, and how long they take to compile, as the time that the first
 * steps take beyond that of later ones. A driver may have cached shaders of an earlier run.
 */
async function shaders(): Promise<string> {
  const before = setCurrentMemory(null);
  let backend: WebgpuBackend | null = null;
  try {
    const { device, adapter, software } = await createNodeDevice({
      software: process.env["GRADMIX_WEBGPU"] === "software",
    });
    backend = createWebgpuBackend({ device, adapter, software });
    setCurrentMemory(backend);
    const model = createGPT({ vocabSize: 64, dim: 64, layers: 1, heads: 1, context: 16 });
    const { list } = model.parameters;
    const [gradient, direction] = [arenaLike(model.parameters), arenaLike(model.parameters)];
    const optimizer = adamw(model.parameters);
    const ids = Int32Array.from({ length: 32 }, (_, i) => (i * 7) % 64);
    const batch = { inputs: ids, targets: ids, tokens: Int32Array.of(16, 16), time: 16 };
    const steps = async (): Promise<number> => {
      const began = performance.now();
      const sink = alignSink({
        examples: 2,
        direction: { given: direction.of },
        total: { gradientOf: gradient.of },
      });
      const results = [
        meanGradient(model, batch, gradient),
        gradients(() => model.losses(batch), { parameters: list, sink }),
        optimizer.step(gradient.arena, 1e-3),
      ];
      for (const result of results) await readAndDispose(result);
      await sink.result();
      sink.dispose();
      return (performance.now() - began) / 1000;
    };
    const first = await steps();
    const next = await steps();
    const { pipelines } = backend.counters;
    return `shaders: the first training steps need ${pipelines}, which took ${Math.max(0, first - next).toPrecision(2)} s to compile${software ? " (on the CPU, because the adapter is a software one)" : ""}`;
  } catch (error) {
    return `shaders: a training step does not run here: ${error instanceof Error ? error.message : String(error)}`;
  } finally {
    await backend?.dispose();
    setCurrentMemory(before);
  }
}

interface Finding {
  works: boolean;
  threads: number;
  text: string;
}

/** Starts a backend, multiplies two square matrices of `size` (of `large` if this is fast enough), checks the result and measures the time. */
async function examine(
  start: () => Promise<Backend>,
  size: number,
  large: number = size,
  precision: "f32" | "f16" = "f32",
): Promise<Finding> {
  let backend: Backend | null = null;
  try {
    backend = await start();
    const { name, capabilities } = backend;
    const { threads, simd, vectorBits, memoryLimit } = capabilities;
    const right = await computesRight(backend);
    let seconds = await product(backend, size);
    // The time grows with the cube of the size; a tenth of a second is enough for a good measurement.
    const wanted = seconds * (large / size) ** 3 < 2 ? large : size;
    if (wanted !== size) seconds = await product(backend, wanted);
    const gigaflops = (2 * wanted ** 3) / seconds / 1e9;
    // For all but the smallest size, this is larger than a cache.
    const count = Math.min(2 ** 26, 32 * wanted * wanted);
    const gigabytes = (8 * count) / (await copy(backend, count)) / 1e9;
    const runners = `${threads} ${threads === 1 ? "thread" : "threads"}, `;
    // WebGPU does not report how much memory a GPU has.
    const width = vectorBits === undefined ? "" : `, ${vectorBits}-bit vectors`;
    const what = name === "webgpu" ? simd : `${runners}${simd}${width}, at most ${gib(memoryLimit)}`;
    const speed = `${gigaflops.toPrecision(3)} GFLOP/s (${wanted}×${wanted} ${precision} product), ${gigabytes.toPrecision(3)} GB/s (copy)`;
    return { works: right, threads, text: `${what}, ${speed}${right ? "" : "; THE RESULT IS WRONG"}` };
  } catch (error) {
    return {
      works: false,
      threads: 0,
      text: `does not run here: ${error instanceof Error ? error.message : String(error)}`,
    };
  } finally {
    await backend?.dispose();
  }
}

/** Seconds per product of two square matrices. */
async function product(backend: Backend, size: number): Promise<number> {
  const square = (): View => filled(backend, size * size);
  const [x, y, z] = [square(), square(), square()];
  return timed(backend, [x, y, z], () => {
    backend.run(
      "gemm",
      {
        m: size, n: size, k: size, transA: false, transB: false, batch: 1, strideA: 0, strideB: 0, strideC: 0,
        alpha: 1, accumulate: false, activation: "none",
      }, // prettier-ignore
      { a: x, b: y },
      { c: z },
    );
  });
}

/** Seconds per copy of `count` numbers. */
async function copy(backend: Backend, count: number): Promise<number> {
  const [from, to] = [filled(backend, count), filled(backend, count)];
  return timed(backend, [from, to], () => {
    backend.run("affine", { scale: 1, shift: 0 }, { x: from }, { y: to });
  });
}

/** Approximate number of seconds per measurement. */
const BUDGET = 1;

function filled(backend: Backend, size: number): View {
  const view: View = { buffer: backend.alloc(size, "f32"), offset: 0, shape: [size], dtype: "f32" };
  backend.run("fill", { value: 0.5 }, {}, { out: view });
  return view;
}

/**
 * Seconds per call: the minimum over rounds of several calls. The result is read once per round, because on a GPU a read takes as long as a
 * small kernel. Frees the operands at the end.
 */
async function timed(
  backend: Backend,
  operands: readonly [View, ...View[]],
  call: () => void,
): Promise<number> {
  const { buffer: result } = operands.at(-1) ?? operands[0];
  const round = async (count: number): Promise<number> => {
    const began = performance.now();
    for (let i = 0; i < count; i++) call();
    await backend.read(result, 0, 1);
    return (performance.now() - began) / 1000;
  };
  await round(1);
  let count = 1;
  let least = Infinity;
  for (let spent = 0, rounds = 0; rounds < 2 || (spent < BUDGET && rounds < 50); rounds++) {
    const seconds = await round(count);
    spent += seconds;
    least = Math.min(least, seconds / count);
    if (seconds < BUDGET / 10) count *= 2;
  }
  for (const { buffer } of operands) backend.free(buffer);
  return least;
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
