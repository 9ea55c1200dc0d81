/**
 * The memory half of a backend: where tensors live. Tensors need no more than this; kernels are added by
 * `Backend` (backends/backend.ts).
 */
import { GradmixError } from "../errors.ts";
import type { DType, TensorData } from "./dtype.ts";

/** A place for `shape` elements in a backend's buffer. Tensors are views; so are slices of an arena. */
export interface View {
  /** The backend's id of the buffer. */
  readonly buffer: number;
  /** First element, counted in elements (4 bytes each). */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

export interface Memory {
  readonly name: string;
  /** A buffer for `elements` elements, contents undefined. Throws `memory` with the bytes asked, live and allowed. */
  alloc(elements: number, dtype: DType): number;
  /** Frees a buffer of `alloc`. */
  free(buffer: number): void;
  /** Copies `data` into the buffer from element `offset` on; the caller may reuse `data` at once. */
  write(buffer: number, offset: number, data: ArrayLike<number>): void;
  /** A copy of `count` elements, after everything enqueued so far has run. */
  read(buffer: number, offset: number, count: number): Promise<TensorData>;
  /** The same at once, where results do not have to be waited for. */
  readNow?(buffer: number, offset: number, count: number): TensorData;
  /**
   * Bytes of all buffers that were allocated and not freed: of every tensor that is alive, views not counted again. The same after each step of a loop that
   * forgets no tensor; where it grows, something made outside of every `scope`, or kept, is not disposed.
   */
  readonly liveBytes: number;
  /** The most that were live at once; on the CPU with its rounding and its scratch memory. */
  readonly peakBytes: number;
}

let current: Memory | null = null;

/** The memory in which new tensors are created; set by `init()`. */
export function currentMemory(): Memory {
  if (current === null) throw new GradmixError("backend", "no backend is running: call `await init()` first");
  return current;
}

export function setCurrentMemory(memory: Memory | null): Memory | null {
  const previous = current;
  current = memory;
  return previous;
}
