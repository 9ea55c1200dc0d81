/**
 * GPU buffers that are reused. Sizes are divided into classes. Of the free buffers, the one that was made first is taken, and free buffers beyond a
 * cap are destroyed. Which buffers a step gets depends on what is free when it begins, not on the order in which they became free. So a training step
 * that requests the same sizes in the same order gets the same buffers, and the bind groups for them can be reused.
 */
export interface PooledBuffer {
  readonly buffer: GPUBuffer;
  /** Size of the class. */
  readonly bytes: number;
  /** Identifies it in keys of bind groups. */
  readonly id: number;
}

export interface BufferPool {
  /** Takes a buffer. `avoided` returns whether a free buffer should not be used. */
  acquire(bytes: number, avoided?: (id: number) => boolean): PooledBuffer;
  /** Returns a buffer. It may be taken again at once: commands run in their order. */
  release(buffer: PooledBuffer): void;
  find(buffer: GPUBuffer): PooledBuffer | undefined;
  /** Removes a buffer for which the device had no memory, and destroys free buffers to make room. */
  refuse(buffer: GPUBuffer): void;
  /** Buffers made so far, and bytes that exist now, in use and free. */
  readonly created: number;
  readonly bytes: number;
  readonly freeBytes: number;
  destroy(): void;
}

/** Returns the class of a size: multiples of 256 bytes, or above 4 KiB numbers with four significant bits, which waste at most an eighth. */
function sizeClass(bytes: number): number {
  const least = Math.max(256, Math.ceil(bytes / 256) * 256);
  if (least <= 4096) return least;
  const step = 2 ** (Math.floor(Math.log2(least)) - 3);
  return Math.ceil(least / step) * step;
}

/** `most` is the largest size of a buffer; sizes are not rounded up beyond it. `cap` is the largest number of free bytes. */
export function createPool(
  make: (bytes: number) => GPUBuffer,
  { most, cap }: { readonly most: number; readonly cap: () => number },
  onDestroy: (entry: PooledBuffer) => void,
): BufferPool {
  const free = new Map<number, PooledBuffer[]>();
  const all = new Set<PooledBuffer>();
  const refused = new Set<PooledBuffer>();
  let created = 0;
  let bytes = 0;
  let freeBytes = 0;
  const destroy = (entry: PooledBuffer): void => {
    all.delete(entry);
    refused.delete(entry);
    bytes -= entry.bytes;
    onDestroy(entry);
    entry.buffer.destroy();
  };
  /** Destroys free buffers until at most `allowed` bytes are free. */
  const trim = (allowed: number): void => {
    for (const [size, others] of free)
      while (freeBytes > allowed) {
        const last = others.pop();
        if (last === undefined) break;
        freeBytes -= size;
        destroy(last);
      }
  };
  const find = (buffer: GPUBuffer): PooledBuffer | undefined => {
    for (const entry of all) if (entry.buffer === buffer) return entry;
    return undefined;
  };
  return {
    acquire(requested, avoided = () => false) {
      const size = Math.max(requested, Math.min(sizeClass(requested), most));
      const others = free.get(size);
      const at = others?.findIndex(({ id }) => !avoided(id)) ?? -1;
      const [found] = at < 0 ? [] : (others?.splice(at, 1) ?? []);
      if (found !== undefined) {
        freeBytes -= size;
        return found;
      }
      const entry = { buffer: make(size), bytes: size, id: ++created };
      all.add(entry);
      bytes += size;
      return entry;
    },
    release(entry) {
      if (refused.has(entry)) {
        destroy(entry);
        return;
      }
      const stack = free.get(entry.bytes) ?? [];
      free.set(entry.bytes, stack);
      // The stack has the order in which buffers were made; most are returned near its end, so the search begins there.
      let at = stack.length;
      while (at > 0 && stack[at - 1]!.id > entry.id) at--;
      stack.splice(at, 0, entry);
      freeBytes += entry.bytes;
      trim(cap());
    },
    find,
    refuse(buffer) {
      const entry = find(buffer);
      if (entry !== undefined) refused.add(entry);
      trim(0);
    },
    get created() {
      return created;
    },
    get bytes() {
      return bytes;
    },
    get freeBytes() {
      return freeBytes;
    },
    destroy() {
      for (const entry of all) destroy(entry);
      free.clear();
      freeBytes = 0;
    },
  };
}
