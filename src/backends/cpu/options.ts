/** Options of the CPU backend. They use only the package's own types, none of the DOM library. */

export type SimdLevel = "relaxed" | "plain";

export type VectorBits = 128 | 256;

/** Largest default number of threads. */
export const THREADS_UNASKED = 16;

export interface CpuOptions {
  /** Number of threads that run kernels, including the calling one. Default: the number of cores, at most 16. */
  readonly threads?: number;
  /** SIMD level of the kernels. "relaxed" uses fused multiply-adds and is the default where the engine supports it; "plain" runs everywhere. */
  readonly simd?: SimdLevel;
  /**
   * Width of the vectors in bits. With 256, V8 joins pairs of 128-bit instructions, which gives the same bits. Its pass is applied to all WebAssembly of the process and stays
   * on. "auto" is 256 where this was tested, and 128 elsewhere. Default 128.
   */
  readonly vectorBits?: VectorBits | "auto";
  /** Largest number of bytes of linear memory, at most 4 GiB. Default 4 GiB. */
  readonly memoryLimit?: number;
  /** Called with one line about workers that did not start, if `threads` is not given. */
  readonly log?: (line: string) => void;
}

/** A URL as text, or an object with the URL as `href`, such as a `URL`. */
export type Place = string | { readonly href: string };

/** URLs of the CPU backend's files, for pages whose bundler does not find them. Relative URLs are relative to the page. */
export interface CpuUrls {
  /** URL of `gradmix/dist/backends/cpu/kernels-relaxed.wasm`. */
  readonly relaxed?: Place;
  /** URL of `gradmix/dist/backends/cpu/kernels-plain.wasm`. */
  readonly plain?: Place;
  /** URL of `gradmix/dist/backends/cpu/worker-browser.js`, beside the files that it imports. It must have the page's own origin. */
  readonly worker?: Place;
}
