/** Options of the CPU backend. They are the package's own types, and name none of the DOM library's. */

export type SimdLevel = "relaxed" | "plain";

/** Threads at most, where nobody says how many. */
export const THREADS_UNASKED = 16;

export interface CpuOptions {
  /** Threads that run kernels, the calling one included. Default: the machine's cores, at most 16. */
  readonly threads?: number;
  /** "relaxed" fuses multiply-adds where the engine allows it (the default there); "plain" runs everywhere. */
  readonly simd?: SimdLevel;
  /** Most bytes of linear memory, at most 4 GiB (the default). */
  readonly memoryLimit?: number;
  /** Told, in a line, of workers that did not start where no number of threads was asked for. */
  readonly log?: (line: string) => void;
}

/** A URL as text, or anything that has it as `href`, such as a `URL`. */
export type Place = string | { readonly href: string };

/** Where the files of the CPU backend are, for pages whose bundler does not find them. Relative ones begin at the page. */
export interface CpuUrls {
  /** `gradmix/dist/backends/cpu/kernels-relaxed.wasm`. */
  readonly relaxed?: Place;
  /** `gradmix/dist/backends/cpu/kernels-plain.wasm`. */
  readonly plain?: Place;
  /** `gradmix/dist/backends/cpu/worker-browser.js`, with what it imports. It must be of the page's own origin. */
  readonly worker?: Place;
}
