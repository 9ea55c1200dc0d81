/**
 * Best-fit allocation over the linear memory, with free blocks kept in address order and merged at once. The same requests from the same state give
 * the same addresses, so once the first steps have grown the heap, every further training step reuses exactly the same blocks.
 */

/** Blocks start and end on multiples of this: two cache lines. */
const ALIGN = 128;

const blockOf = (bytes: number): number => Math.max(ALIGN, Math.ceil(bytes / ALIGN) * ALIGN);

export interface Allocator {
  /** Returns the address of a block, or −1 if `end` would exceed the limit. */
  allocate(bytes: number): number;
  /** Frees a block of the requested size. */
  release(address: number, bytes: number): void;
  /** Bytes in use, in whole blocks. */
  readonly live: number;
  readonly peak: number;
}

/** Manages [start, limit); `grow` is called whenever the used part first extends further. */
export function createAllocator(start: number, limit: number, grow: (end: number) => void): Allocator {
  const base = Math.ceil(start / ALIGN) * ALIGN;
  let end = base;
  let live = 0;
  let peak = 0;
  // Free blocks below `end`, by address.
  const free: { at: number; bytes: number }[] = [];

  return {
    allocate(bytes) {
      const size = blockOf(bytes);
      let best = -1;
      let least = Infinity;
      for (let i = 0; i < free.length; i++) {
        const { bytes: room } = free[i]!;
        if (room < size || room >= least) continue;
        best = i;
        least = room;
        if (room === size) break;
      }
      let at: number;
      if (best >= 0) {
        const block = free[best]!;
        at = block.at;
        if (block.bytes === size) free.splice(best, 1);
        else {
          block.at += size;
          block.bytes -= size;
        }
      } else {
        // A free block at the very end is extended instead of left behind.
        const last = free.at(-1);
        const from = last !== undefined && last.at + last.bytes === end ? last.at : end;
        if (from + size > limit) return -1;
        grow(from + size);
        if (from !== end) free.pop();
        at = from;
        end = from + size;
      }
      live += size;
      peak = Math.max(peak, live);
      return at;
    },
    release(address, requested) {
      const bytes = blockOf(requested);
      live -= bytes;
      let low = 0;
      let high = free.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (free[middle]!.at < address) low = middle + 1;
        else high = middle;
      }
      const before = low > 0 ? free[low - 1] : undefined;
      const after = low < free.length ? free[low] : undefined;
      const joinsBefore = before !== undefined && before.at + before.bytes === address;
      const joinsAfter = after !== undefined && address + bytes === after.at;
      if (joinsBefore) {
        before.bytes += bytes;
        if (!joinsAfter) return;
        before.bytes += after.bytes;
        free.splice(low, 1);
      } else if (joinsAfter) {
        after.at = address;
        after.bytes += bytes;
      } else free.splice(low, 0, { at: address, bytes });
    },
    get live() {
      return live;
    },
    get peak() {
      return peak;
    },
  };
}
