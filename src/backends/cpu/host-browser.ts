/** The CPU backend's host in a browser: the kernels and the worker's script by URL, and workers. */
import { GradmixError } from "../../errors.ts";
import type { Backend } from "../backend.ts";
import { startCpu } from "./backend.ts";
import { type CpuHost, RELAXED_PROBE, type WorkerHandle } from "./host.ts";
import type { CpuOptions, CpuUrls, Place, SimdLevel } from "./options.ts";
import type { WorkerSetup } from "./serve.ts";

/** Starts the backend. Throws `config` for invalid options, and `backend` if its files cannot be loaded. */
export function createCpuBackend(options: CpuOptions, urls: CpuUrls = {}): Promise<Backend> {
  return startCpu(browserHost(urls), options);
}

function browserHost(urls: CpuUrls): CpuHost {
  return {
    cores: () => navigator.hardwareConcurrency,
    relaxedSimd: () => WebAssembly.validate(RELAXED_PROBE),
    wideVectors: () => "a browser does not offer them to pages",
    kernelBytes: (simd) => fetchKernels(simd, urls[simd]),
    unshared: () =>
      typeof SharedArrayBuffer === "undefined" || !globalThis.crossOriginIsolated
        ? "threads share memory only in a page that is cross-origin isolated; send it with the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp, or leave threads out"
        : null,
    addressRoom: () => Infinity,
    makeRoom: "close other pages, or set memoryLimit",
    startWorker: (setup) => startWorker(setup, urls.worker),
  };
}

/** Returns the default URL of the kernels. Bundlers recognise exactly this form, with the name written out, and include the file. */
const defaultKernels = (simd: SimdLevel): URL =>
  simd === "relaxed"
    ? new URL("./kernels-relaxed.wasm", import.meta.url)
    : new URL("./kernels-plain.wasm", import.meta.url);

/** The first bytes of every WebAssembly module. */
const MAGIC = [0, 0x61, 0x73, 0x6d];

async function fetchKernels(simd: SimdLevel, given: Place | undefined): Promise<Uint8Array<ArrayBuffer>> {
  const url = hrefOf(given ?? defaultKernels(simd));
  const fails = (problem: string, cause?: unknown): GradmixError =>
    new GradmixError(
      "backend",
      `cpu: the kernels could not be loaded from ${url}: ${problem}; copy gradmix/dist/backends/cpu/kernels-${simd}.wasm to where the page can fetch it and give its address, init({ urls: { ${simd} } })`,
      { cause },
    );
  let bytes: Uint8Array<ArrayBuffer>;
  let status: number;
  try {
    const response = await fetch(url);
    status = response.ok ? 0 : response.status;
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw fails(cause instanceof Error ? cause.message : String(cause), cause);
  }
  if (status !== 0) throw fails(`the server answers ${status}`);
  // Servers of single-page applications answer missing files with the page.
  if (!MAGIC.every((byte, i) => bytes[i] === byte)) throw fails("what is there is not WebAssembly");
  return bytes;
}

function startWorker(setup: WorkerSetup, given: Place | undefined): Promise<WorkerHandle> {
  return new Promise((resolve, reject) => {
    let ended: string | null = null;
    const fail = (reason: string, cause?: unknown): void => {
      ended ??= reason;
      reject(new GradmixError("backend", `cpu: worker thread ${setup.thread} ${reason}`, { cause }));
    };
    let worker: Worker;
    try {
      worker =
        given === undefined
          ? new Worker(new URL("./worker-browser.js", import.meta.url), { type: "module" })
          : new Worker(hrefOf(given), { type: "module" });
    } catch (cause) {
      // The script has another origin, or the page's policy forbids it.
      fail(`could not be made: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
      return;
    }
    worker.addEventListener("error", (event) => {
      // The error is reported by the start of the backend, or by the next launch, so it is not also an error of the page.
      event.preventDefault();
      // A script that could not be loaded has no message.
      const reason = event.message === "" || event.message === undefined ? null : event.message;
      fail(
        reason === null
          ? `could not be loaded${given === undefined ? "" : ` from ${hrefOf(given)}`}; give the address of gradmix/dist/backends/cpu/worker-browser.js, init({ urls: { worker } })`
          : `failed: ${reason}`,
      );
    });
    worker.addEventListener(
      "message",
      () =>
        resolve({
          ended: () => ended,
          stop: () => {
            worker.terminate();
            return Promise.resolve();
          },
        }),
      { once: true },
    );
    worker.postMessage(setup);
  });
}

const hrefOf = (place: Place): string => (typeof place === "string" ? place : place.href);
