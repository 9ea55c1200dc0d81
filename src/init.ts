/** Starting and stopping a backend. */
import type { Backend } from "./backends/backend.ts";
import { createReferenceBackend } from "./backends/reference/index.ts";
import type { NodeDevice } from "./backends/webgpu/host-node.ts";
import type { TuningStore } from "./backends/webgpu/tuning.ts";
import { GradmixError } from "./errors.ts";
import { boolean, callback, checkOptions, integerIn, numberIn, oneOf, string, valueThat } from "./options.ts";
import { setCurrentMemory } from "./tensor/memory.ts";

export interface InitOptions {
  /**
   * "auto" (the default, unless the environment variable GRADMIX_BACKEND names another) takes the GPU where the machine has one that the optional package
   * `webgpu` can use, else the cpu; options that only the cpu backend has take it at once. "webgpu" insists on a GPU; a software adapter is used only with
   * GRADMIX_WEBGPU=software. "reference" is slow and exact: an oracle.
   */
  readonly backend?: "auto" | "cpu" | "webgpu" | "reference";
  /**
   * A `GPUDevice` of yours, such as a browser's, in place of one that is looked for. Ask for it with the limits that its adapter has, as WebGPU's defaults bind
   * 128 MiB at most. It belongs to the backend from here on, which destroys it.
   */
  readonly device?: object;
  /** Threads that run kernels of the cpu backend, the calling one included. Default: one a core. */
  readonly threads?: number;
  /** Of the cpu backend: "relaxed" fuses multiply-adds where the engine can; "plain" runs everywhere. Default: "auto", relaxed if possible. */
  readonly simd?: "auto" | "relaxed" | "plain";
  /**
   * Of the operands of matrix products; their sums, and all tensors, are f32. "f16" needs "webgpu" and a GPU with tensor cores, and loss scaling in
   * training (`lossScale`). Default: "f32".
   */
  readonly precision?: "f32" | "f16";
  /** Most bytes of tensors at once. */
  readonly memoryLimit?: number;
  /**
   * On webgpu the variants of a kernel are timed once for a device and a size, and the choice is kept in the user's cache folder. With `deterministic`
   * none are timed: every call takes the variant that the shape alone names. Default false. (Either way the same call gives the same bits.)
   * Other backends time nothing.
   */
  readonly deterministic?: boolean;
  /** Told, a line each, what was chosen: a variant of a kernel, or the cpu in place of a GPU that computes wrongly. */
  readonly log?: (line: string) => void;
}

let running: Backend | null = null;
/** Calls of `init` and `shutdown` come one after the other. */
let turn: Promise<unknown> = Promise.resolve();

function inTurn<T>(task: () => Promise<T>): Promise<T> {
  const mine = turn.then(task);
  turn = mine.catch(() => undefined);
  return mine;
}

/**
 * Starts a backend and makes it the one on which tensors are created. A backend that runs already is stopped first. Throws
 * `config` for impossible options, and for those that the chosen backend does not have; `backend` when it cannot start.
 */
export function init(options: InitOptions = {}): Promise<Backend> {
  return inTurn(async () => {
    checkInit(options);
    await stop();
    const started = await create(options);
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
function checkInit(options: InitOptions): void {
  checkOptions("init", options, {
    backend: string,
    device: valueThat("a GPUDevice, which is what adapter.requestDevice() resolves to", isDevice),
    threads: integerIn(1),
    simd: oneOf("auto", "relaxed", "plain"),
    precision: oneOf("f32", "f16"),
    memoryLimit: numberIn({ min: 0 }),
    deterministic: boolean,
    log: callback,
  });
}

/** Throws `config` for an option that the backend does not have, however it was chosen: `by` says how, where it was not by its name. */
function checkHas(
  backend: string,
  by: string,
  { threads, simd = "auto", precision, device }: InitOptions,
): void {
  const ofCpu = threads !== undefined ? "threads" : simd !== "auto" ? "simd" : null;
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

async function create(options: InitOptions): Promise<Backend> {
  const { backend = "auto", threads, simd, memoryLimit, device } = options;
  const limit = memoryLimit === undefined ? {} : { memoryLimit };
  // A device says what is wanted, so the environment is not asked.
  const asked = backend === "auto" && device === undefined;
  const named = asked ? environment("GRADMIX_BACKEND") : undefined;
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
    return startWebgpu(await findDevice(options, environment("GRADMIX_WEBGPU") === "software"), options);
  if (name === "auto" && threads === undefined && (simd ?? "auto") === "auto") {
    const found = await tryWebgpu(options);
    if (found !== null) return found;
  }
  // Only here: the others need none of its code.
  const { createCpuBackend } = await import("./backends/cpu/index.ts");
  return createCpuBackend({
    ...limit,
    ...(threads === undefined ? {} : { threads }),
    ...(simd === undefined || simd === "auto" ? {} : { simd }),
  });
}

/** A device, and where choices of variants are kept for it. */
interface Found extends Pick<NodeDevice, "device" | "adapter" | "software" | "tensorCores"> {
  readonly tuning: TuningStore;
}

async function findDevice({ precision, log }: InitOptions, allowSoftware: boolean): Promise<Found> {
  const { createNodeDevice, tuningStore } = await import("./backends/webgpu/host-node.ts");
  const found = await createNodeDevice({ software: allowSoftware, tensorCores: precision === "f16" });
  return { ...found, tuning: tuningStore(found, log) };
}

/** What there is to know of a device that was handed in. Its choices of variants hold as long as it does. */
async function described(device: object, { log }: InitOptions): Promise<Found> {
  const { features, limits } = device as GPUDevice;
  // Not every host has it.
  const info = (device as Partial<GPUDevice>).adapterInfo ?? {
    ...{ vendor: "", architecture: "", device: "", description: "", isFallbackAdapter: false },
  };
  const { choiceLine, differenceLine } = await import("./backends/webgpu/tuning.ts");
  const { adapterName, isSoftware, tensorCoresOf } = await import("./backends/webgpu/adapter-info.ts");
  return {
    device,
    adapter: adapterName(info) || "the given device",
    software: isSoftware(info),
    tensorCores: tensorCoresOf(features, info, limits),
    tuning: {
      known: {},
      learn: (...choice) => log?.(choiceLine(...choice)),
      differs: (...variant) => log?.(differenceLine(...variant)),
    },
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
async function tryWebgpu(options: InitOptions): Promise<Backend | null> {
  const { mayHaveGpu } = await import("./backends/webgpu/host-node.ts");
  if (!mayHaveGpu()) return null;
  let found: Found;
  try {
    found = await findDevice(options, false);
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

/** One that is empty counts as not set. */
function environment(name: string): string | undefined {
  const value = typeof process === "undefined" ? undefined : process.env[name];
  return value === "" ? undefined : value;
}

function isDevice(value: unknown): value is GPUDevice {
  if (typeof value !== "object" || value === null) return false;
  return ["queue", "limits", "features", "lost"].every(
    (name) => typeof Reflect.get(value, name) === "object",
  );
}
