/** The memory half of a backend: where tensors live. Tensors need only this; `Backend` adds kernels (backends/backend.ts). */
import { GradmixError } from "../errors.ts";
import type { DType, TensorData } from "./dtype.ts";

/** The position of `shape` elements in a backend's buffer. Tensors are views; so are slices of an arena. */
export interface View {
  /** The backend's id of the buffer. */
  readonly buffer: number;
  /** Position of the first element, counted in elements (4 bytes each). */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

export interface Memory {
  readonly name: string;
  /** Allocates a buffer for `elements` elements with undefined contents and returns its id. Throws `memory` with the requested, live and allowed bytes. */
  alloc(elements: number, dtype: DType): number;
  /** Frees a buffer made by `alloc`. */
  free(buffer: number): void;
  /** Copies `data` into the buffer from element `offset` on; the caller may reuse `data` at once. */
  write(buffer: number, offset: number, data: ArrayLike<number>): void;
  /** Copies `count` elements out, after everything enqueued so far has run. */
  read(buffer: number, offset: number, count: number): Promise<TensorData>;
  /** The same synchronously, for backends that do not have to wait. */
  readNow?(buffer: number, offset: number, count: number): TensorData;
  /**
   * Bytes of all buffers that were allocated and not freed: those of every live tensor, with views counted once. It is the same after each step of a
   * loop that leaks no tensor. If it grows, a tensor that was made outside every `scope`, or kept, is not disposed.
   */
  readonly liveBytes: number;
  /** The largest number of bytes that were live at once; on the CPU including rounding and scratch memory. */
  readonly peakBytes: number;
}

let current: Memory | null = null;

/** The memory in which new tensors are created; `init()` sets it. */
export function currentMemory(): Memory {
  if (current === null) throw new GradmixError("backend", "no backend is running: call `await init()` first");
  return current;
}

export function setCurrentMemory(memory: Memory | null): Memory | null {
  const previous = current;
  current = memory;
  return previous;
}
