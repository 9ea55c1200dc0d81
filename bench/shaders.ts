/**
 * The WebGPU backend's shaders as compiled by a GPU's own compiler, without the GPU: registers, spills, workgroup memory, instructions, and the number of
 * subgroups that fit. It enqueues a plain step, an aligned step and a forward derivative of a GPT, and all tiles of the matrix product; nothing runs.
 *
 * Needs Linux with Mesa's RADV from version 25 on (Debian: mesa-vulkan-drivers), which compiles for any AMD GPU, a C compiler as `cc`, and Vulkan's headers
 * (libvulkan-dev). scripts/null-gpu.c replaces the hardware. The instructions are those of AMD; spills, bounds checks and loads that are split into smaller ones
 * have mostly been the same on other GPUs.
 *
 * Options: --gpu navi31 (as RADV_FORCE_FAMILY names them), --precision f32|f16, --model 124m (of one layer) as in `step`, --batch N (8).
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { alignSink, forwardDerivative, GradmixError, gradients, scope } from "gradmix";
import { meanGradient } from "#dist/dga/passes.js";
import { adamw, arenaLike, createGPT } from "gradmix/nn";
import { createNodeDevice } from "#dist/backends/webgpu/host-node.js";
import { createWebgpuBackend } from "#dist/backends/webgpu/index.js";
import { tensorTileNames } from "#dist/backends/webgpu/kernels/gemm-tensor.js";
import { tileNames } from "#dist/backends/webgpu/kernels/gemm-tiled.js";
import { setCurrentMemory } from "#dist/tensor/memory.js";
import { windowsOf } from "./_languages.js";
import { shapeOf } from "./_models.js";
import { type OptionReader, readOptions } from "./_options.js";
import type { BenchOptions } from "./main.ts";

export async function run(options: BenchOptions): Promise<Record<string, unknown>> {
  const statistics = process.env["NULL_GPU_STATISTICS"];
  const read = readOptions(options, ["gpu", "precision", "model", "batch"]);
  return statistics === undefined ? inAnotherProcess(options, read) : compile(statistics, read);
}

/** The loader of Vulkan reads its environment when a process starts. */
function inAnotherProcess(options: BenchOptions, read: OptionReader): Record<string, unknown> {
  const folder = mkdtempSync(join(tmpdir(), "gradmix-null-gpu-"));
  try {
    const driver = join(folder, "null-gpu.so");
    const source = resolve("scripts/null-gpu.c");
    const built = spawnSync("cc", ["-shared", "-fPIC", "-O1", "-o", driver, source, "-ldl"], {
      encoding: "utf8",
    });
    if (built.status !== 0)
      throw new GradmixError(
        "config",
        `${source} does not compile (${built.error?.message ?? built.stderr.split("\n")[0] ?? ""}); it needs a C compiler and Vulkan's headers (Debian: gcc libvulkan-dev)`,
      );
    const manifest = join(folder, "null-gpu.json");
    writeFileSync(
      manifest,
      JSON.stringify({
        file_format_version: "1.0.0",
        ICD: { library_path: driver, api_version: "1.3.0" },
      }),
    );
    const given = Object.entries(options).flatMap(([name, value]) =>
      value === true ? [`--${name}`] : [`--${name}`, value],
    );
    const child = spawnSync(process.execPath, [process.argv[1] ?? "", "shaders", ...given, "--json"], {
      encoding: "utf8",
      maxBuffer: 2 ** 28,
      env: {
        ...process.env,
        NULL_GPU_STATISTICS: join(folder, "statistics.jsonl"),
        RADV_FORCE_FAMILY: read.text("gpu") ?? "navi31",
        MESA_SHADER_CACHE_DISABLE: "true",
        VK_DRIVER_FILES: manifest,
        VK_ICD_FILENAMES: manifest,
      },
    });
    if (child.status !== 0)
      throw new GradmixError(
        "backend",
        `the driver without hardware does not run (${child.signal ?? child.status}: ${child.stderr.trim()}); it needs Mesa's RADV, version 25 or later (Debian: mesa-vulkan-drivers)`,
      );
    return JSON.parse(child.stdout) as Record<string, unknown>;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function compile(statistics: string, read: OptionReader): Promise<Record<string, unknown>> {
  const precision = read.choice("precision", ["f32", "f16"], "f32");
  const { layers: _, ...shape } = shapeOf(read.text("model") ?? "124m");
  const { vocabSize, dim, heads, T } = shape;
  const examples = read.count("batch", shape.B);
  const labels: string[] = [];
  const rows: Record<string, unknown>[] = [];
  let adapter = "";
  const start = async (known: Readonly<Record<string, string>> = {}) => {
    const found = await createNodeDevice({ software: true, tensorCores: precision === "f16" });
    const { device, tensorCores } = found;
    adapter = found.adapter;
    const gpu = device as GPUDevice;
    const create = gpu.createComputePipeline.bind(gpu);
    gpu.createComputePipeline = (descriptor) => {
      labels.push(descriptor.label ?? "");
      return create(descriptor);
    };
    const backend = createWebgpuBackend({
      ...{ device, adapter, precision, tensorCores, software: false },
      tuning: { known, learn: () => {} },
    });
    setCurrentMemory(backend);
    return backend;
  };
  /** Compiles what was enqueued, and returns the error if there is one. */
  const finish = async (backend: Awaited<ReturnType<typeof start>>): Promise<void> => {
    backend.flush();
    await new Promise((resume) => setTimeout(resume, 200));
    backend.free(backend.alloc(1, "f32"));
    const lines = readFileSync(statistics, "utf8").trim().split("\n").slice(rows.length);
    for (const line of lines) {
      const found = JSON.parse(line) as Readonly<Record<string, number>>;
      rows.push({
        shader: labels[rows.length],
        registers: found["VGPRs"],
        spilled: (found["Spilled VGPRs"] ?? 0) + (found["Spilled SGPRs"] ?? 0),
        workgroupBytes: found["LDS size"],
        subgroupsPerSimd: found["Subgroups per SIMD"],
        instructions: found["Instructions"],
        codeBytes: found["Code size"],
      });
    }
  };

  const backend = await start();
  const model = createGPT({ preset: "gpt2", vocabSize, dim, layers: 1, heads, context: T });
  const { parameters } = model;
  const [gradient, direction] = [arenaLike(parameters), arenaLike(parameters)];
  const batch = windowsOf(0, examples, { time: T, vocabSize });
  meanGradient(model, batch, gradient);
  adamw(parameters).step(gradient.arena, 1e-3);
  scope(() => {
    const sink = alignSink({
      examples,
      direction: { given: (p) => direction.of(p) },
      total: { gradientOf: (p) => gradient.of(p) },
    });
    gradients(() => model.losses(batch), {
      parameters: parameters.list,
      sink,
      weights: new Float64Array(examples).fill(1 / (examples * T)),
    });
    forwardDerivative(() => model.losses(batch), new Map(parameters.list.map((p) => [p, direction.of(p)])));
  });
  await finish(backend);

  const size = 2048;
  for (const layout of ["NN", "NT", "TN"])
    for (const tile of precision === "f16" ? tensorTileNames : tileNames) {
      const bucket = `gemm ${layout} ${[1, size, size, size].join("x")}${precision === "f16" ? " f16" : ""}`;
      const own = await start({ [bucket]: tile });
      const [x, y, z] = [0, 1, 2].map(() => ({
        buffer: own.alloc(size * size, "f32"),
        ...{ offset: 0, shape: [size, size], dtype: "f32" as const },
      }));
      if (x === undefined || y === undefined || z === undefined) continue;
      const first = rows.length;
      own.run(
        "gemm",
        {
          ...{ m: size, n: size, k: size, transA: layout[0] === "T", transB: layout[1] === "T", batch: 1 },
          ...{ strideA: 0, strideB: 0, strideC: 0, alpha: 1, accumulate: false, activation: "none" },
        },
        { a: x, b: y },
        { c: z },
      );
      await finish(own);
      for (const row of rows.slice(first))
        row["shader"] = `variant ${layout} ${tile}: ${String(row["shader"])}`;
    }
  return { adapter, precision, rows };
}
