/** `gradmix doctor`: which backends this machine gives, and how fast a matrix product and a copy are on each. */
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import type { Backend } from "../backends/backend.ts";
import { createCpuBackend } from "../backends/cpu/index.ts";
import { createReferenceBackend } from "../backends/reference/index.ts";
import { createNodeDevice, type NodeDevice } from "../backends/webgpu/host-node.ts";
import { createWebgpuBackend } from "../backends/webgpu/index.ts";

interface Output {
  write(text: string): unknown;
}

/** Prints the report; gives the exit code: 1 when the cpu backend does not run, or computes something wrong. */
export async function doctor(output: Output): Promise<number> {
  const print = (name: string, value: string): void => {
    output.write(`${name.padEnd(10)} ${value}\n`);
  };
  let found: NodeDevice[] = [];
  const startWebgpu = async (): Promise<Backend> => {
    const device = await createNodeDevice({ software: process.env["GRADMIX_WEBGPU"] === "software" });
    found = [device];
    return createWebgpuBackend({ device: device.device, adapter: device.adapter, software: device.software });
  };
  print("node", `${process.version}, ${process.platform} ${process.arch}`);
  print(
    "processor",
    `${cpus()[0]?.model.trim() ?? "unknown"}, ${availableParallelism()} cores for this process`,
  );
  print("memory", `${gib(totalmem())}, ${gib(freemem())} free`);

  const cpu = await examine(() => createCpuBackend(), 512);
  print("cpu", cpu.text);
  if (cpu.threads > 1) print("", (await examine(() => createCpuBackend({ threads: 1 }), 512)).text);
  print("webgpu", (await examine(startWebgpu, 256)).text);
  for (const device of found) {
    const { features, limits, driver, vendor, architecture } = device.details;
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
  }
  print("reference", (await examine(() => Promise.resolve(createReferenceBackend()), 64)).text);
  return cpu.works ? 0 : 1;
}

interface Finding {
  works: boolean;
  threads: number;
  text: string;
}

/** Starts a backend, multiplies two square matrices of `size`, checks the result and takes the time. */
async function examine(start: () => Promise<Backend>, size: number): Promise<Finding> {
  let backend: Backend | null = null;
  try {
    backend = await start();
    const { threads, simd, memoryLimit } = backend.capabilities;
    const { gigaflops, gigabytes, right } = await measure(backend, size);
    const what = `${threads} ${threads === 1 ? "thread" : "threads"}, ${simd}, at most ${gib(memoryLimit)}`;
    const speed = `${gigaflops.toPrecision(3)} GFLOP/s (${size}×${size} f32 product), ${gigabytes.toPrecision(3)} GB/s (copy)`;
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

/** GFLOP/s of a product and GB/s of a copy (bytes read and written), the best of several runs, within about half a second each. */
async function measure(
  backend: Backend,
  size: number,
): Promise<{ gigaflops: number; gigabytes: number; right: boolean }> {
  const place = (data: Float32Array) => {
    const buffer = backend.alloc(data.length, "f32");
    backend.write(buffer, 0, data);
    return { buffer, offset: 0, shape: [data.length], dtype: "f32" as const };
  };
  // Small whole numbers: their products sum up exactly in any order.
  const a = Float32Array.from({ length: size * size }, (_, i) => ((i * 7) % 5) - 2);
  const b = Float32Array.from({ length: size * size }, (_, i) => ((i * 3) % 7) - 3);
  const [x, y, z] = [a, b, new Float32Array(size * size)].map(place);
  const product = await best(backend, z.buffer, () => {
    backend.run(
      "gemm",
      {
        m: size, n: size, k: size, transA: false, transB: false, batch: 1, strideA: 0, strideB: 0, strideC: 0,
        alpha: 1, accumulate: false, activation: "none",
      }, // prettier-ignore
      [x, y, null],
      [z, null],
    );
  });
  const last = await backend.read(z.buffer, size * size - 1, 1);
  let expected = 0;
  for (let k = 0; k < size; k++) expected += a[(size - 1) * size + k] * b[k * size + size - 1];
  // Larger than a cache, for all but the smallest size.
  const count = 32 * size * size;
  const [from, to] = [new Float32Array(count).fill(3), new Float32Array(count)].map(place);
  const copy = await best(backend, to.buffer, () => {
    backend.run("affine", { scale: 1, shift: 0 }, [from], [to]);
  });
  const copied = await backend.read(to.buffer, count - 1, 1);
  for (const { buffer } of [x, y, z, from, to]) backend.free(buffer);
  return {
    gigaflops: (2 * size ** 3) / product / 1e9,
    gigabytes: (8 * count) / copy / 1e9,
    right: last[0] === expected && copied[0] === 3,
  };
}

/** Seconds of a call, up to a number of `result` that is read. */
async function best(backend: Backend, result: number, call: () => void): Promise<number> {
  let least = Infinity;
  for (let spent = 0, runs = 0; runs < 2 || (spent < 0.5 && runs < 50); runs++) {
    const began = performance.now();
    call();
    await backend.read(result, 0, 1);
    const seconds = (performance.now() - began) / 1000;
    spent += seconds;
    least = Math.min(least, seconds);
  }
  return least;
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
