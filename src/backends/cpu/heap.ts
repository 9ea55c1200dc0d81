/** The kernels' linear memory: views that stay valid when it grows, blocks, and workspace for a single call. */
import { GradmixError } from "../../errors.ts";
import { type Allocator, createAllocator } from "./allocator.ts";

const PAGE = 65536;

export interface Heap {
  readonly allocator: Allocator;
  /** The whole memory, as a new view after it grows. */
  f32: Float32Array;
  i32: Int32Array;
  /** Allocates a block and returns its address. Throws `memory`. */
  alloc(bytes: number): number;
  floats(address: number, count: number): Float32Array;
  words(address: number, count: number): Int32Array;
  /** Address of memory that is valid until `giveBack`; successive calls do not overlap. */
  workspace(bytes: number): number;
  giveBack(): void;
}

/** A heap over `memory`, of at most `memoryLimit` bytes. */
export function createHeap(memory: WebAssembly.Memory, memoryLimit: number): Heap {
  const grow = (end: number): void => {
    if (!growTo(memory, end)) return;
    heap.f32 = new Float32Array(memory.buffer);
    heap.i32 = new Int32Array(memory.buffer);
  };
  // The first 64 KiB hold the module's own constants.
  const allocator = createAllocator(PAGE, Math.min(memoryLimit, 65536 * PAGE - PAGE), grow);
  const workspaces: { readonly at: number; readonly bytes: number }[] = [];
  const alloc = (bytes: number): number => {
    const at = allocator.allocate(bytes);
    if (at < 0)
      throw new GradmixError(
        "memory",
        `cpu: ${bytes} bytes were asked for with ${allocator.live} of ${memoryLimit} bytes in use; free tensors that are no longer used (scope, dispose), use a smaller batch or model, or raise the memory limit`,
      );
    return at;
  };
  const heap: Heap = {
    allocator,
    f32: new Float32Array(memory.buffer),
    i32: new Int32Array(memory.buffer),
    alloc,
    floats: (at, count) => heap.f32.subarray(at / 4, at / 4 + count),
    words: (at, count) => heap.i32.subarray(at / 4, at / 4 + count),
    workspace(bytes) {
      const at = alloc(bytes);
      workspaces.push({ at, bytes });
      return at;
    },
    giveBack() {
      for (let last = workspaces.pop(); last !== undefined; last = workspaces.pop())
        allocator.release(last.at, last.bytes);
    },
  };
  return heap;
}

/** Grows the memory to `end`, and returns whether that was necessary. Throws `memory`. */
function growTo(memory: WebAssembly.Memory, end: number): boolean {
  const { byteLength } = memory.buffer;
  const missing = Math.ceil((end - byteLength) / PAGE);
  if (missing <= 0) return false;
  try {
    memory.grow(missing);
  } catch (cause) {
    throw new GradmixError(
      "memory",
      `cpu: the system gave no memory beyond ${byteLength} bytes; free tensors that are no longer used (scope, dispose), use a smaller batch or model, or end other programs`,
      { cause },
    );
  }
  return true;
}
