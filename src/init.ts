/** Starting and stopping a backend, whatever the host: Node.js (host-node.ts) or a browser (host-browser.ts). */
import type { Backend } from "./backends/backend.ts";
import { createReferenceBackend } from "./backends/reference/index.ts";
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

/** Options of `init`: the backend and what it may use. */
export interface InitOptions {
  /**
   * "auto" (the default, unless the environment variable GRADMIX_BACKEND names another) takes the GPU where the machine has one that the optional package
   * `webgpu`, or the browser, can use, else the cpu; `threads` and `simd`, which only the cpu backend has, take it at once. "webgpu" insists on a GPU; a
   * software adapter is used only with GRADMIX_WEBGPU=software, or where its `device` is handed in. "reference" is slow and exact: an oracle.
   */
  readonly backend?: "auto" | "cpu" | "webgpu" | "reference";
  /**
   * A `GPUDevice` of yours, such as a browser's, in place of one that is looked for. Ask for it with the limits that its adapter has, as WebGPU's defaults bind
   * 128 MiB at most. It belongs to the backend from here on, which destroys it.
   */
  readonly device?: object;
  /**
   * Threads that run kernels of the cpu backend, the calling one included. Default: one per core. In a browser, more than one needs a page that is cross-origin
   * isolated; without, the default is 1.
   */
  readonly threads?: number;
  /** Of the cpu backend: "relaxed" fuses multiply-adds where the engine can; "plain" runs everywhere. Default: "auto", relaxed if possible. */
  readonly simd?: "auto" | "relaxed" | "plain";
  /**
   * Of the operands of matrix products; their sums, and all tensors, are f32. "f16" needs "webgpu" and a GPU with tensor cores, and loss scaling in
   * training (`lossScale`). Default: "f32".
   */
  readonly precision?: "f32" | "f16";
  /** In a browser: where the files of the cpu backend are, for a bundler that does not find them (docs/browser.md). Default: beside its modules. */
  readonly urls?: CpuUrls;
  /** Most bytes of tensors at once. */
  readonly memoryLimit?: number;
  /**
   * On webgpu the variants of a kernel are timed once for a device and a size, and the choice is kept in the user's cache folder. With `deterministic`
   * none are timed: every call takes the variant that the shape alone names. Default false. (Either way the same call gives the same bits.)
   * Other backends time nothing.
   */
  readonly deterministic?: boolean;
  /**
   * Called with one line per choice that was made: a variant of a kernel, the cpu in place of a GPU that computes wrongly, or fewer threads than cores where
   * workers could not be started.
   */
  readonly log?: (line: string) => void;
}

/** What starting a backend asks of the host. */
export interface Host {
  /** The check of the option `urls`. */
  readonly urls: OptionCheck;
  /** An environment variable; undefined where there is none, or an empty one. */
  environment(name: string): string | undefined;
  startCpu(options: CpuOptions, urls: CpuUrls | undefined): Promise<Backend>;
  /** Is there any sign of a GPU? Cheap: who only wonders asks this first. */
  mayHaveGpu(): Promise<boolean>;
  /** Throws `backend` where there is no GPU; one in software is taken only with `software`. */
  findDevice(options: { software: boolean; tensorCores: boolean }): Promise<FoundDevice>;
  /** Where choices of variants are kept for a device. */
  tuningStore(device: FoundDevice, log: InitOptions["log"]): Promise<TuningStore>;
}

/** Checks of `urls` where it can be given. */
export const cpuUrls: OptionCheck = (name, value) => {
  object(name, value);
  const place = valueThat("a URL", (given) => typeof given === "string" || hasHref(given));
  checkOptions<CpuUrls>(name, value as CpuUrls, { relaxed: place, plain: place, worker: place });
};

const hasHref = (value: unknown): boolean =>
  typeof value === "object" && value !== null && typeof Reflect.get(value, "href") === "string";

let running: Backend | null = null;
/** Calls of `init` and `shutdown` come one after the other. */
let turn: Promise<unknown> = Promise.resolve();

function inTurn<T>(task: () => Promise<T>): Promise<T> {
  const mine = turn.then(task);
  turn = mine.catch(() => undefined);
  return mine;
}

/** `init` on a host. */
export function start(host: Host, options: InitOptions): Promise<Backend> {
  return inTurn(async () => {
    checkInit(host, options);
    await stop();
    const started = await create(host, options);
    running = started;
    setCurrentMemory(started);
    return started;
  });
}

/** Stops the backend; its tensors are gone. Without one it does nothing. */
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

/** Throws `config` for an option that there is not, or a value that no backend takes. */
function checkInit(host: Host, options: InitOptions): void {
  checkOptions("init", options, {
    backend: string,
    device: valueThat("a GPUDevice, which is what adapter.requestDevice() resolves to", isDevice),
    threads: integerIn(1),
    simd: oneOf("auto", "relaxed", "plain"),
    precision: oneOf("f32", "f16"),
    urls: host.urls,
    memoryLimit: numberIn({ min: 0 }),
    deterministic: boolean,
    log: callback,
  });
}

/** Throws `config` for an option that the backend does not have, however it was chosen: `by` says how, where it was not by its name. */
function checkHas(
  backend: string,
  by: string,
  { threads, simd = "auto", urls, precision, device }: InitOptions,
): void {
  const ofCpu =
    threads !== undefined ? "threads" : simd !== "auto" ? "simd" : urls !== undefined ? "urls" : null;
  if (ofCpu !== null && backend !== "cpu" && backend !== "auto")
    throw new GradmixError(
      "config",
      `${ofCpu}: an option of the backend "cpu"; leave it out with "${backend}"${by}`,
    );
  if (device !== undefined && backend !== "webgpu")
    throw new GradmixError("config", `device: a GPUDevice needs the backend "webgpu", not "${backend}"${by}`);
  if (precision === "f16" && backend !== "webgpu")
    throw new GradmixError("config", `precision: "f16" needs the backend "webgpu", not "${backend}"${by}`);
}

async function create(host: Host, options: InitOptions): Promise<Backend> {
  const { backend = "auto", threads, simd, memoryLimit, device, log } = options;
  const limit = memoryLimit === undefined ? {} : { memoryLimit };
  // A device says what is wanted, so the environment is not asked.
  const asked = backend === "auto" && device === undefined;
  const named = asked ? host.environment("GRADMIX_BACKEND") : undefined;
  const name = named ?? (backend === "auto" && device !== undefined ? "webgpu" : backend);
  if (!["auto", "cpu", "webgpu", "reference"].includes(name))
    throw new GradmixError(
      "config",
      `${named === undefined ? "" : "GRADMIX_BACKEND: "}no backend is called "${name}"; there are "auto", "cpu", "webgpu" and "reference"`,
    );
  checkHas(name, named === undefined ? "" : ", which GRADMIX_BACKEND names", options);
  if (device !== undefined) return startWebgpu(await described(device, options), options);
  if (name === "reference") return createReferenceBackend(limit);
  if (name === "webgpu")
    return startWebgpu(
      await findDevice(host, options, host.environment("GRADMIX_WEBGPU") === "software"),
      options,
    );
  if (name === "auto" && threads === undefined && (simd ?? "auto") === "auto") {
    const found = await tryWebgpu(host, options);
    if (found !== null) return found;
  }
  return host.startCpu(
    {
      ...limit,
      ...(threads === undefined ? {} : { threads }),
      ...(simd === undefined || simd === "auto" ? {} : { simd }),
      ...(log === undefined ? {} : { log }),
    },
    options.urls,
  );
}

/** A device, and where choices of variants are kept for it. */
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

/** What there is to know of a device that was handed in. Its choices of variants hold as long as it does. */
async function described(device: object, { log }: InitOptions): Promise<Found> {
  const { features, limits } = device as GPUDevice;
  // Not every host has it.
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

/** A GPU must compute a few known sums right first: drivers have been known to fail silently. */
async function startWebgpu(found: Found, options: InitOptions): Promise<Backend> {
  const { memoryLimit, precision = "f32", deterministic = false } = options;
  const { createWebgpuBackend } = await import("./backends/webgpu/index.ts");
  const { computesRight } = await import("./backends/self-check.ts");
  const { device, adapter, software, tensorCores, tuning } = found;
  const backend = createWebgpuBackend({
    ...{ device, adapter, software, precision, tensorCores },
    ...(memoryLimit === undefined ? {} : { memoryLimit }),
    // A software adapter is for checking; what is fast on it is nobody's question.
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

/** The GPU, if there is one that works; else null. */
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
    options.log?.(`${error.message}; the cpu is used`);
    return null;
  }
}

function isDevice(value: unknown): value is GPUDevice {
  if (typeof value !== "object" || value === null) return false;
  return ["queue", "limits", "features", "lost"].every(
    (name) => typeof Reflect.get(value, name) === "object",
  );
}
