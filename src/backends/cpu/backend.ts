/**
 * The CPU backend: WebAssembly SIMD kernels on the calling thread and worker threads, over one linear memory.
 *
 * Kernels run before `run` returns; only the interface is asynchronous. Results are the same bits for any number of threads; the
 * relaxed and the plain SIMD builds round differently.
 */
import { GradmixError } from "../../errors.ts";
import type { TensorData } from "../../tensor/dtype.ts";
import type { Backend, Capabilities } from "../backend.ts";
import type { Inputs, KernelName, KernelParams, Outputs } from "../kernels/index.ts";
import { giveTurn } from "../turn.ts";
import type { CpuHost, WorkerHandle } from "./host.ts";
import type { Launcher } from "./kernels/launcher.ts";
import { launchers } from "./kernels/index.ts";
import { type CpuOptions, type SimdLevel, THREADS_UNASKED } from "./options.ts";
import { type CpuMachine, createMachine } from "./runtime.ts";
import type { WorkerSetup } from "./serve.ts";

const PAGE = 65536;
const MOST_BYTES = 65536 * PAGE;
const LEAST_BYTES = 64 * PAGE;
const MOST_THREADS = 64;
/** Address space of a worker thread (0.6 to 0.9 GiB were measured), and the address space that is left for the heap of the calling thread. */
const WORKER_ROOM = 2 ** 30;
const OWN_ROOM = 2 ** 28;

/** Starts the backend. Throws `config` for invalid options, and `backend` if the requested SIMD level is not supported here. */
export async function startCpu(host: CpuHost, options: CpuOptions): Promise<Backend> {
  const { machine, capabilities } = await startMachine(host, options);
  return cpuBackend(machine, capabilities);
}

/** Starts the parts below the backend interface: memory, kernels and worker threads. */
export async function startMachine(
  host: CpuHost,
  options: CpuOptions,
): Promise<{ machine: CpuMachine; capabilities: Capabilities }> {
  const threads = options.threads ?? Math.min(THREADS_UNASKED, host.cores());
  if (!Number.isInteger(threads) || threads < 1 || threads > MOST_THREADS)
    throw new GradmixError("config", `threads: ${threads} is not an integer from 1 to ${MOST_THREADS}`);
  const wanted = Math.min(options.memoryLimit ?? MOST_BYTES, MOST_BYTES);
  if (!(wanted >= LEAST_BYTES))
    throw new GradmixError("config", `memoryLimit: ${wanted} bytes; at least ${LEAST_BYTES} are needed`);
  const relaxed = options.simd !== "plain" && host.relaxedSimd();
  if (options.simd === "relaxed" && !relaxed)
    throw new GradmixError("backend", "cpu: this engine has no relaxed SIMD; use simd = plain");
  const simd: SimdLevel = relaxed ? "relaxed" : "plain";
  const wide = vectorsAreWide(host, simd, options);
  const unshared = host.unshared();
  if (unshared !== null && threads > 1 && options.threads !== undefined)
    throw new GradmixError("config", `threads: ${threads} are not possible: ${unshared}`);
  const shared = unshared === null;
  const { memory, memoryLimit } = reserve(wanted, shared, host);
  const module = await compileKernels(await host.kernelBytes(simd), shared);
  const machine = createMachine(module, memory, memoryLimit, shared ? threads : 1, wide);
  if (shared && threads > 1)
    machine.workers = await startWorkers(host, machine, { module, memory, wide }, options);
  const capabilities = {
    threads: machine.workers.length + 1,
    simd,
    vectorBits: wide ? 256 : 128,
    memoryLimit,
  } as const;
  return { machine, capabilities };
}

/** Enables 256-bit vectors as the options ask. Throws `backend` if they are required and missing. */
function vectorsAreWide(host: CpuHost, simd: SimdLevel, { vectorBits = 128 }: CpuOptions): boolean {
  if (vectorBits === 128) return false;
  const missing =
    simd === "relaxed" ? host.wideVectors(vectorBits === "auto") : "this engine has no relaxed SIMD";
  if (missing !== null && vectorBits === 256)
    throw new GradmixError("backend", `cpu: there are no 256-bit vectors: ${missing}; use vectorBits = 128`);
  return missing === null;
}

async function compileKernels(bytes: Uint8Array<ArrayBuffer>, shared: boolean): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(shared ? bytes : withUnsharedMemory(bytes));
  } catch (cause) {
    if (!(cause instanceof WebAssembly.CompileError)) throw cause;
    throw new GradmixError("backend", "cpu: this engine has no WebAssembly SIMD; use a newer one", {
      cause,
    });
  }
}

/** Starts the workers and returns those that could be started. Throws if these are fewer than `options.threads` requires. */
async function startWorkers(
  host: CpuHost,
  machine: CpuMachine,
  shared: Pick<WorkerSetup, "module" | "memory" | "wide">,
  options: CpuOptions,
): Promise<readonly WorkerHandle[]> {
  const { threads, controlAt, parametersAt } = machine;
  // A worker without room for its heap ends the whole process, so a worker is started only if there is room.
  const room = host.addressRoom();
  const helpers = Math.min(threads - 1, Math.max(0, Math.floor((room - OWN_ROOM) / WORKER_ROOM)));
  if (options.threads !== undefined && helpers < threads - 1)
    throw new GradmixError(
      "memory",
      `cpu: ${threads} threads need ${gib((threads - 1) * WORKER_ROOM + OWN_ROOM)} more of address space, and its limit (ulimit -v) leaves ${gib(Math.max(0, room))}; raise it, or take ${helpers + 1} ${helpers === 0 ? "thread" : "threads"}`,
    );
  const settled = await Promise.allSettled(
    Array.from({ length: helpers }, (_, i) =>
      host.startWorker({ ...shared, controlAt, parametersAt, thread: i + 1, threads }),
    ),
  );
  const started = settled.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  if (started.length === helpers) return started;
  const reason: unknown = settled.find((outcome) => outcome.status === "rejected")?.reason;
  if (options.threads !== undefined) {
    machine.stop();
    await Promise.all(started.map((worker) => worker.stop()));
    throw reason instanceof GradmixError
      ? reason
      : new GradmixError("backend", "cpu: worker threads did not start", { cause: reason });
  }
  // With fewer workers everything still runs, with the same results.
  const why = reason instanceof Error ? reason.message : String(reason);
  options.log?.(`${why}; ${started.length + 1} of ${threads} threads are used`);
  return started;
}

/**
 * Reserves a memory of at most `wanted` bytes, or less if the address space is limited. V8 reserves 10 GiB of addresses for each memory, whatever its maximum,
 * or only the maximum if Node was started with --disable-wasm-trap-handler. Throws `memory`.
 */
function reserve(
  wanted: number,
  shared: boolean,
  host: CpuHost,
): { memory: WebAssembly.Memory; memoryLimit: number } {
  const room = host.addressRoom();
  let cause: unknown;
  for (let bytes = wanted; bytes >= LEAST_BYTES; bytes /= 2) {
    if (bytes > room - OWN_ROOM && bytes / 2 >= LEAST_BYTES) continue;
    const maximum = Math.ceil(bytes / PAGE);
    try {
      const memory = new WebAssembly.Memory({ initial: 16, maximum, shared });
      return { memory, memoryLimit: Math.floor(bytes) };
    } catch (error) {
      cause = error;
    }
  }
  const leaves =
    room === Infinity
      ? "the system has no room for it"
      : `its limit (ulimit -v) leaves ${gib(Math.max(0, room))}`;
  throw new GradmixError(
    "memory",
    `cpu: WebAssembly takes 10 GiB of address space, and ${leaves}; ${host.makeRoom}`,
    { cause },
  );
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

/** Wraps a machine in the backend interface. */
export function cpuBackend(machine: CpuMachine, capabilities: Capabilities): Backend {
  let nextBuffer = 1;
  const { allocator, buffers } = machine;
  let disposed = false;
  let liveBytes = 0;
  let peakBytes = 0;
  const checkRunning = (): void => {
    if (disposed) throw new GradmixError("backend", "cpu: the backend was disposed");
  };
  const slice = (buffer: number, offset: number, count: number): Float32Array | Int32Array => {
    checkRunning();
    const entry = buffers.get(buffer);
    if (entry === undefined) throw new GradmixError("backend", `cpu: buffer ${buffer} does not exist`);
    if (offset < 0 || offset + count > entry.count)
      throw new GradmixError(
        "shape",
        `cpu: elements ${offset} to ${offset + count} are outside of a buffer of ${entry.count}`,
      );
    const at = entry.at + offset * 4;
    return entry.dtype === "f32" ? machine.floats(at, count) : machine.words(at, count);
  };
  return {
    name: "cpu",
    capabilities,
    alloc(elements, dtype) {
      checkRunning();
      const at = machine.alloc(elements * 4);
      const buffer = nextBuffer++;
      buffers.set(buffer, { dtype, count: elements, at });
      liveBytes += elements * 4;
      peakBytes = Math.max(peakBytes, allocator.live);
      return buffer;
    },
    free(buffer) {
      const entry = buffers.get(buffer);
      if (entry === undefined) throw new GradmixError("backend", `cpu: buffer ${buffer} does not exist`);
      allocator.release(entry.at, entry.count * 4);
      buffers.delete(buffer);
      liveBytes -= entry.count * 4;
    },
    write(buffer, offset, data) {
      slice(buffer, offset, data.length).set(data);
    },
    async read(buffer, offset, count): Promise<TensorData> {
      const data = slice(buffer, offset, count).slice();
      await giveTurn();
      return data;
    },
    readNow: (buffer, offset, count) => slice(buffer, offset, count).slice(),
    run<K extends KernelName>(kernel: K, params: KernelParams[K], inputs: Inputs<K>, outputs: Outputs<K>) {
      checkRunning();
      const launch: Launcher<K> | undefined = launchers[kernel];
      if (launch === undefined) throw new GradmixError("backend", `cpu: kernel ${kernel} is missing`);
      try {
        launch(machine, params, inputs, outputs);
      } finally {
        machine.endRun();
        peakBytes = Math.max(peakBytes, allocator.peak);
      }
    },
    flush: () => {},
    get liveBytes() {
      return liveBytes;
    },
    get peakBytes() {
      return peakBytes;
    },
    async dispose() {
      if (disposed) return;
      disposed = true;
      machine.stop();
      await Promise.all(machine.workers.map((worker) => worker.stop()));
    },
  };
}

/** Returns the position of the limits of the module's imported memory: flags, minimum, maximum (three LEB128 numbers). */
function memoryLimitsAt(bytes: Uint8Array): number {
  const marker = new TextEncoder().encode("memory");
  for (let i = 0; i + marker.length + 1 < bytes.length; i++)
    if (marker.every((byte, j) => bytes[i + j] === byte) && bytes[i + marker.length] === 2)
      return i + marker.length + 1;
  throw new GradmixError("backend", "cpu: the kernels' module imports no memory; build the package again");
}

/** Returns the bytes of the same kernels for a memory that is not shared. */
function withUnsharedMemory(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  copy[memoryLimitsAt(copy)] = 1;
  return copy;
}
