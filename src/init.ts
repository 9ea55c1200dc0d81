/** Starts and stops a backend on any host: Node.js (host-node.ts) or a browser (host-browser.ts). */
import type { Backend } from "./backends/backend.ts";
import type { CpuOptions, CpuUrls } from "./backends/cpu/options.ts";
import type { FoundDevice } from "./backends/webgpu/adapter-info.ts";
import type { TuningStore } from "./backends/webgpu/tuning.ts";
import { GradmixError } from "./errors.ts";
import {
  boolean,
  callback,
  checkOptions,
  integerIn,
  numberIn,
  object,
  oneOf,
  type OptionCheck,
  string,
  valueThat,
} from "./options.ts";
import { setCurrentMemory } from "./tensor/memory.ts";

/** Options of `init`: which backend to start, and the resources that it may use. */
export interface InitOptions {
  /**
   * The backend to start. "auto" uses a GPU if the optional package `webgpu` or the browser finds one that works, and the cpu otherwise; if `threads`,
   * `simd` or 256 `vectorBits` are set, which only the cpu backend has, it uses the cpu. "webgpu" requires a GPU; it uses a software adapter only if the environment variable
   * GRADMIX_WEBGPU is "software" or if you pass its `device`. "reference" computes in doubles, slowly; it is an oracle for tests. Default: "auto"; the
   * environment variable GRADMIX_BACKEND replaces "auto" by the name of another backend.
   */
  readonly backend?: "auto" | "cpu" | "webgpu" | "reference";
  /**
   * A `GPUDevice` for the backend "webgpu", which otherwise requests one itself. Request it with the limits of its adapter, because WebGPU's default limits
   * allow bindings of at most 128 MiB. The backend owns the device from then on and destroys it when it stops.
   */
  readonly device?: object;
  /**
   * Number of threads that run kernels of the cpu backend, including the calling thread. Default: the number of cores, at most 16. In a browser, more than
   * one thread requires a page that is cross-origin isolated; on other pages the default is 1.
   */
  readonly threads?: number;
  /**
   * SIMD instructions of the cpu backend. "relaxed" allows the engine to fuse a multiplication and an addition; "plain" runs on every engine. Default: "auto",
   * which is "relaxed" if the engine supports it.
   */
  readonly simd?: "auto" | "relaxed" | "plain";
  /**
   * Width in bits of the vectors of the cpu backend. With 256, V8 makes one instruction of two of 128 bits, so that products are about twice as fast, with the
   * same bits. V8's pass for this is experimental and off by default (`--experimental-wasm-revectorize`). Once it is on, it applies to all WebAssembly of the
   * process, and it stays on. 256 requires Node.js 24 or later on an x64 processor with AVX2, and relaxed SIMD. "auto" uses 256 where it was tested (Node.js 24
   * to 26), and 128 elsewhere. Default: 128. The command `gradmix` uses "auto".
   */
  readonly vectorBits?: 128 | 256 | "auto";
  /**
   * Precision of the operands of matrix products; the sums of the products and all tensors are f32. "f16" requires the backend "webgpu" and a GPU with tensor
   * cores, and training with it requires loss scaling (`lossScale`). Default: "f32".
   */
  readonly precision?: "f32" | "f16";
  /**
   * URLs of the files of the cpu backend in a browser, for bundlers that do not find them (docs/browser.md). Default: the files beside the backend's modules. Node.js
   * refuses this option.
   */
  readonly urls?: CpuUrls;
  /** Largest number of bytes of tensors that may be live at once; a tensor beyond it throws `memory`. Default: 4 GiB on cpu and reference, 64 GiB on webgpu. */
  readonly memoryLimit?: number;
  /**
   * Chooses the variants of webgpu kernels by shape alone. Default false: the variants are timed once per device and size, and the choice is stored in the
   * user's cache folder (in a browser, or with a `device` of yours, it is only kept in memory). In both cases the same call gives the same bits. Other
   * backends have no variants to time.
   */
  readonly deterministic?: boolean;
  /**
   * Called with one line of text per choice that is made: the variant of a kernel, the cpu instead of a GPU that does not work, or fewer threads than cores
   * because workers did not start. Default: no lines are reported.
   */
  readonly log?: (line: string) => void;
}

/** What a host provides so that a backend can be started. */
export interface Host {
  /** Checks the option `urls`. */
  readonly urls: OptionCheck;
  /** The value of an environment variable; undefined if it is unset or empty. */
  environment(name: string): string | undefined;
  startCpu(options: CpuOptions, urls: CpuUrls | undefined): Promise<Backend>;
  /** Whether the host may have a GPU. A cheap test that comes before `findDevice`. */
  mayHaveGpu(): Promise<boolean>;
  /** Requests a GPU device. Uses a software adapter only if `software` is true. Throws `backend` if there is no GPU. */
  findDevice(options: { software: boolean; tensorCores: boolean }): Promise<FoundDevice>;
  /** Opens the store of the kernel variants that were chosen for a device. */
  tuningStore(device: FoundDevice, log: InitOptions["log"]): Promise<TuningStore>;
}

/** Checks `urls` on hosts that have the option. */
export const cpuUrls: OptionCheck = (name, value) => {
  object(name, value);
  const place = valueThat("a URL", (given) => typeof given === "string" || hasHref(given));
  checkOptions<CpuUrls>(name, value as CpuUrls, { relaxed: place, plain: place, worker: place });
};

const hasHref = (value: unknown): boolean =>
  typeof value === "object" && value !== null && typeof Reflect.get(value, "href") === "string";

let running: Backend | null = null;
/** Ends when the last call of `init` or `shutdown` has ended; calls run one after another. */
let turn: Promise<unknown> = Promise.resolve();

function inTurn<T>(task: () => Promise<T>): Promise<T> {
  const mine = turn.then(task);
  turn = mine.catch(() => undefined);
  return mine;
}

/** Starts a backend on a host: the implementation of `init`. */
export function start(host: Host, options: InitOptions): Promise<Backend> {
  return inTurn(async () => {
    checkInit(host, options);
    const name = backendOf(host, options);
    // Stopping frees all tensors, so refused options must not get here.
    await stop();
    const started = await create(host, name, options);
    running = started;
    setCurrentMemory(started);
    return started;
  });
}

/** Stops the running backend and frees all of its tensors. Does nothing if no backend is running. */
export function shutdown(): Promise<void> {
  return inTurn(stop);
}

async function stop(): Promise<void> {
  const backend = running;
  running = null;
  if (backend === null) return;
  setCurrentMemory(null);
  await backend.dispose();
}

/** Throws `config` for an unknown option, and for values that no backend accepts, alone or together. */
function checkInit(host: Host, options: InitOptions): void {
  checkOptions("init", options, {
    backend: string,
    device: valueThat("a GPUDevice, as adapter.requestDevice() returns", isDevice),
    threads: integerIn(1),
    simd: oneOf("auto", "relaxed", "plain"),
    vectorBits: oneOf(128, 256, "auto"),
    precision: oneOf("f32", "f16"),
    urls: host.urls,
    memoryLimit: numberIn({ min: 0 }),
    deterministic: boolean,
    log: callback,
  });
  if (options.vectorBits === 256 && options.simd === "plain")
    throw new GradmixError("config", "vectorBits: 256-bit vectors need relaxed SIMD, not plain");
}

/**
 * Throws `config` for an option that the backend does not have. `by` ends the message with how the backend was chosen, or is "" if the option `backend` names
 * it.
 */
function checkHas(
  backend: string,
  by: string,
  { threads, simd = "auto", vectorBits, urls, precision, device }: InitOptions,
): void {
  const ofCpu = [
    threads !== undefined ? "threads" : null,
    simd !== "auto" ? "simd" : null,
    vectorBits === 256 ? "vectorBits" : null,
    urls !== undefined ? "urls" : null,
  ].find((name) => name !== null);
  if (ofCpu !== undefined && backend !== "cpu" && backend !== "auto")
    throw new GradmixError(
      "config",
      `${ofCpu}: only the backend "cpu" has this option; leave it out with the backend "${backend}"${by}`,
    );
  if (device !== undefined && backend !== "webgpu")
    throw new GradmixError("config", `device: a GPUDevice needs the backend "webgpu", not "${backend}"${by}`);
  if (precision === "f16" && backend !== "webgpu")
    throw new GradmixError("config", `precision: "f16" needs the backend "webgpu", not "${backend}"${by}`);
}

/** The name of the backend that the options or the environment ask for. Throws `config` for an unknown one, and for options that it does not have. */
function backendOf(host: Host, options: InitOptions): string {
  const { backend = "auto", device } = options;
  // A device implies the backend, so the environment variable is not read.
  const asked = backend === "auto" && device === undefined;
  const named = asked ? host.environment("GRADMIX_BACKEND") : undefined;
  const name = named ?? (backend === "auto" && device !== undefined ? "webgpu" : backend);
  if (!["auto", "cpu", "webgpu", "reference"].includes(name))
    throw new GradmixError(
      "config",
      `${named === undefined ? "" : "GRADMIX_BACKEND: "}there is no backend "${name}"; the backends are "auto", "cpu", "webgpu" and "reference"`,
    );
  checkHas(name, named === undefined ? "" : ", which GRADMIX_BACKEND sets", options);
  return name;
}

async function create(host: Host, name: string, options: InitOptions): Promise<Backend> {
  const { threads, simd, vectorBits, memoryLimit, device, log } = options;
  const limit = memoryLimit === undefined ? {} : { memoryLimit };
  if (device !== undefined) return startWebgpu(await described(device, options), options);
  if (name === "reference") {
    const { createReferenceBackend } = await import("./backends/reference/index.ts");
    return createReferenceBackend(limit);
  }
  if (name === "webgpu")
    return startWebgpu(
      await findDevice(host, options, host.environment("GRADMIX_WEBGPU") === "software"),
      options,
    );
  if (name === "auto" && threads === undefined && (simd ?? "auto") === "auto" && vectorBits !== 256) {
    const found = await tryWebgpu(host, options);
    if (found !== null) return found;
  }
  return host.startCpu(
    {
      ...limit,
      ...(threads === undefined ? {} : { threads }),
      ...(simd === undefined || simd === "auto" ? {} : { simd }),
      ...(vectorBits === undefined ? {} : { vectorBits }),
      ...(log === undefined ? {} : { log }),
    },
    options.urls,
  );
}

/** A device, and the store of the kernel variants that were chosen for it. */
interface Found extends Pick<FoundDevice, "device" | "adapter" | "software" | "tensorCores"> {
  readonly tuning: TuningStore;
}

async function findDevice(
  host: Host,
  { precision, log }: InitOptions,
  allowSoftware: boolean,
): Promise<Found> {
  const found = await host.findDevice({ software: allowSoftware, tensorCores: precision === "f16" });
  return { ...found, tuning: await host.tuningStore(found, log) };
}

/** Describes a device that the caller passed. Its choices of variants are kept in memory only. */
async function described(device: object, { log }: InitOptions): Promise<Found> {
  const { features, limits } = device as GPUDevice;
  // Not every host provides `adapterInfo`.
  const info = (device as Partial<GPUDevice>).adapterInfo ?? {
    ...{ vendor: "", architecture: "", device: "", description: "", isFallbackAdapter: false },
  };
  const { tuningForNow } = await import("./backends/webgpu/tuning.ts");
  const { adapterName, isSoftware, tensorCoresOf } = await import("./backends/webgpu/adapter-info.ts");
  return {
    device,
    adapter: adapterName(info) || "the given device",
    software: isSoftware(info),
    tensorCores: tensorCoresOf(features, info, limits),
    tuning: tuningForNow(log),
  };
}

/** Starts the webgpu backend. Throws `backend` if the GPU computes a few small products wrongly, because some drivers fail silently. */
async function startWebgpu(found: Found, options: InitOptions): Promise<Backend> {
  const { memoryLimit, precision = "f32", deterministic = false } = options;
  const { createWebgpuBackend } = await import("./backends/webgpu/index.ts");
  const { computesRight } = await import("./backends/self-check.ts");
  const { device, adapter, software, tensorCores, tuning } = found;
  const backend = createWebgpuBackend({
    ...{ device, adapter, software, precision, tensorCores },
    ...(memoryLimit === undefined ? {} : { memoryLimit }),
    // A software adapter is for tests, so its speed does not matter.
    ...(deterministic || software ? {} : { tuning }),
  });
  try {
    if (software || (await computesRight(backend))) return backend;
  } catch (error) {
    await backend.dispose();
    throw error;
  }
  await backend.dispose();
  throw new GradmixError(
    "backend",
    `webgpu: ${adapter} computed small products wrongly; update its driver, or use the backend "cpu"`,
  );
}

/** Starts the webgpu backend if there is a GPU that works; null otherwise. */
async function tryWebgpu(host: Host, options: InitOptions): Promise<Backend | null> {
  if (!(await host.mayHaveGpu())) return null;
  let found: Found;
  try {
    found = await findDevice(host, options, false);
  } catch (error) {
    if (error instanceof GradmixError) return null;
    throw error;
  }
  try {
    return await startWebgpu(found, options);
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    options.log?.(`${error.message}; the backend "cpu" is used instead`);
    return null;
  }
}

function isDevice(value: unknown): value is GPUDevice {
  if (typeof value !== "object" || value === null) return false;
  return ["queue", "limits", "features", "lost"].every(
    (name) => typeof Reflect.get(value, name) === "object",
  );
}
