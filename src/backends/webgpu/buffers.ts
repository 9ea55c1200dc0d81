/** The memory of the backend: tensors' buffers from a pool, and constants. */
import { GradmixError } from "../../errors.ts";
import type { DType, TensorData } from "../../tensor/dtype.ts";
import type { View } from "../../tensor/memory.ts";
import type { Commands } from "./commands.ts";
import type { Faults } from "./faults.ts";
import { createPool, type BufferPool, type PooledBuffer } from "./pool.ts";
import { USAGE } from "./usage.ts";

/** A tensor's buffer. */
export interface Entry {
  readonly pooled: PooledBuffer;
  /** Number of elements. */
  readonly count: number;
  readonly dtype: DType;
}

export interface Buffers {
  /** Allocates a buffer. Throws `memory` if the limit, or what the device can bind, is exceeded. */
  alloc(elements: number, dtype: DType): number;
  free(buffer: number): void;
  /** The entry of a buffer. Throws `backend` if it does not exist. */
  entryOf(buffer: number): Entry;
  write(buffer: number, offset: number, data: TensorData | readonly number[]): void;
  /** Constants that are made and uploaded once per key; they belong to the backend. */
  constant(key: string, values: () => Float32Array): View;
  readonly liveBytes: number;
  readonly peakBytes: number;
  /** Number of GPU buffers made so far, and bytes that exist now, in use and pooled. */
  readonly created: number;
  readonly poolBytes: number;
  destroy(): void;
}

export interface BufferLimits {
  /** Largest number of bytes of tensors at once. */
  readonly memoryLimit: number;
  /** Bytes of free buffers that are always kept. */
  readonly poolFloor: number;
}

/** Largest size of an entry that gets another buffer when it is overwritten. */
const MOST_MOVED = 2 ** 20;

/** Throws `shape` if elements are outside the buffer. */
export function checkInside(entry: Entry, offset: number, count: number): void {
  if (offset < 0 || offset + count > entry.count)
    throw new GradmixError(
      "shape",
      `webgpu: elements ${offset} to ${offset + count} are outside of a buffer of ${entry.count}`,
    );
}

/** Bytes of tensors that are live, and the most that ever were. */
interface Usage {
  live: number;
  peak: number;
}

/** `onDestroy` is called for buffers that are about to be destroyed. */
export function createBuffers(
  device: GPUDevice,
  faults: Faults,
  commands: Commands,
  { memoryLimit, poolFloor }: BufferLimits,
  onDestroy: (id: number) => void,
): Buffers {
  const mostBytes = mostBound(device);
  const usage: Usage = { live: 0, peak: 0 };
  const pool = createTensorPool(
    device,
    faults,
    commands,
    { most: mostBytes, floor: poolFloor, usage },
    { onRefused: (buffer) => constants.forget(buffer), onDestroy },
  );
  const entries = createEntries(pool);
  const write = (entry: Entry, offset: number, values: Float32Array | Int32Array): void =>
    put(device, commands, entry, offset, values);
  const constants = createConstants(entries, (entry, values) => write(entry, 0, values));

  return {
    entryOf: entries.of,
    alloc(elements, dtype) {
      faults.check();
      const bytes = elements * 4;
      checkRoom(bytes, usage.live, mostBytes, memoryLimit);
      const buffer = entries.add(elements, dtype);
      usage.live += bytes;
      usage.peak = Math.max(usage.peak, usage.live);
      return buffer;
    },
    free(buffer) {
      // As on the CPU, a tensor may be disposed after its backend.
      if (faults.disposed) return;
      usage.live -= entries.remove(buffer).count * 4;
    },
    write(buffer, offset, data) {
      faults.check();
      const entry = entries.of(buffer);
      checkInside(entry, offset, data.length);
      if (data.length === 0) return;
      const values = entry.dtype === "f32" ? Float32Array.from(data) : Int32Array.from(data);
      // An entry that is overwritten as a whole need not wait for commands: it moves to a buffer that none uses.
      const overwritesAll = values.length === entry.count && values.byteLength <= MOST_MOVED;
      const isWaiting = commands.pending(entry.pooled.id);
      write(overwritesAll && isWaiting ? entries.move(buffer, commands.pending) : entry, offset, values);
    },
    constant: constants.get,
    get liveBytes() {
      return usage.live;
    },
    get peakBytes() {
      return usage.peak;
    },
    get created() {
      return pool.created;
    },
    get poolBytes() {
      return pool.bytes;
    },
    destroy() {
      entries.clear();
      pool.destroy();
    },
  };
}

/** The pool of tensors' buffers. `onRefused` is called for a buffer for which the device had no memory, after commands that use it were dropped. */
function createTensorPool(
  device: GPUDevice,
  faults: Faults,
  commands: Commands,
  { most, floor, usage }: { readonly most: number; readonly floor: number; readonly usage: Usage },
  { onRefused, onDestroy }: { onRefused(buffer: GPUBuffer): void; onDestroy(id: number): void },
): BufferPool {
  const pool = createPool(
    (bytes) =>
      createAsked(device, faults, bytes, USAGE.storage | USAGE.copySource | USAGE.copyTarget, {
        live: usage.live,
        refused(buffer, refusal) {
          dropCommandsOf(pool.find(buffer)?.id, refusal, faults, commands);
          pool.refuse(buffer);
          onRefused(buffer);
        },
      }),
    // Beyond the floor, as many free bytes are kept as were ever live at once, so that the next step can use the buffers of this one.
    { most, cap: () => Math.max(floor, usage.peak) },
    ({ id, buffer }) => {
      // Encoded commands that use it must be submitted first: a submit with a destroyed buffer runs nothing.
      if (commands.pending(id)) commands.submit();
      faults.forget(buffer);
      onDestroy(id);
    },
  );
  return pool;
}

/** The entries by number. */
interface Entries {
  /** Adds an entry and returns its number. */
  add(count: number, dtype: DType): number;
  /** Returns an entry. Throws `backend` if it does not exist. */
  of(buffer: number): Entry;
  /** Returns an entry, or undefined if it does not exist. */
  find(buffer: number): Entry | undefined;
  /** Removes an entry, returns its buffer to the pool, and returns the entry. Throws `backend` if it does not exist. */
  remove(buffer: number): Entry;
  /** Gives an entry another buffer, one that is not `avoided`. The elements are lost. Returns the new entry. */
  move(buffer: number, avoided: (id: number) => boolean): Entry;
  clear(): void;
}

function createEntries(pool: BufferPool): Entries {
  const entries = new Map<number, Entry>();
  let next = 1;
  const bytesOf = (count: number): number => Math.max(4, count * 4);
  const of = (buffer: number): Entry => {
    const entry = entries.get(buffer);
    if (entry === undefined) throw new GradmixError("backend", `webgpu: buffer ${buffer} does not exist`);
    return entry;
  };
  return {
    of,
    find: (buffer) => entries.get(buffer),
    add(count, dtype) {
      const pooled = pool.acquire(bytesOf(count));
      const buffer = next++;
      entries.set(buffer, { pooled, count, dtype });
      return buffer;
    },
    remove(buffer) {
      const entry = of(buffer);
      entries.delete(buffer);
      pool.release(entry.pooled);
      return entry;
    },
    move(buffer, avoided) {
      const entry = of(buffer);
      const moved = { ...entry, pooled: pool.acquire(bytesOf(entry.count), avoided) };
      entries.set(buffer, moved);
      pool.release(entry.pooled);
      return moved;
    },
    clear: () => entries.clear(),
  };
}

/** Constants by key, which are entries that live as long as the backend. */
function createConstants(
  entries: Entries,
  write: (entry: Entry, values: Float32Array) => void,
): { get: Buffers["constant"]; forget(buffer: GPUBuffer): void } {
  const views = new Map<string, View>();
  return {
    get(key, values) {
      const known = views.get(key);
      if (known !== undefined) return known;
      const data = values();
      const buffer = entries.add(data.length, "f32");
      write(entries.of(buffer), data);
      const view: View = { buffer, offset: 0, shape: [data.length], dtype: "f32" };
      views.set(key, view);
      return view;
    },
    /** Forgets constants in a refused buffer, so that they are made again when they are next needed. */
    forget(refused) {
      for (const [key, view] of views) {
        if (entries.find(view.buffer)?.pooled.buffer !== refused) continue;
        views.delete(key);
        entries.remove(view.buffer);
      }
    },
  };
}

/** Largest number of bytes that the device binds at once, in whole vectors of four. */
function mostBound({ limits }: GPUDevice): number {
  const bindable = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  return bindable - (bindable % 16);
}

/** Throws `memory` for a tensor that is too large. */
function checkRoom(bytes: number, liveBytes: number, mostBytes: number, memoryLimit: number): void {
  if (bytes > mostBytes)
    throw new GradmixError(
      "memory",
      `webgpu: a tensor of ${bytes} bytes was asked for; this device binds at most ${mostBytes} bytes at once. Lower the batch or the context`,
    );
  if (liveBytes + bytes > memoryLimit)
    throw new GradmixError(
      "memory",
      `webgpu: ${bytes} bytes were requested while ${liveBytes} are live; the limit is ${memoryLimit}. Free tensors that are no longer used (scope, dispose), lower the batch, or raise the memory limit`,
    );
}

/** Drops encoded commands that use a buffer that the device refused, since they cannot run, and reports this to the owners of the commands. */
function dropCommandsOf(
  id: number | undefined,
  refusal: GradmixError,
  faults: Faults,
  commands: Commands,
): void {
  if (id === undefined || !commands.pending(id)) return;
  for (const one of commands.encodedBy) faults.fail(refusal, one);
  commands.drop();
}

/** Writes values to a buffer. A write runs before commands that are encoded but not submitted, so commands that use the buffer are submitted first. */
function put(
  { queue }: GPUDevice,
  commands: Commands,
  { pooled }: Entry,
  offset: number,
  values: Float32Array | Int32Array,
): void {
  if (commands.pending(pooled.id)) commands.submit();
  queue.writeBuffer(pooled.buffer, offset * 4, values as Float32Array<ArrayBuffer>);
}

interface Asking {
  /** Bytes of tensors that are live, for the message. */
  readonly live: number;
  refused(buffer: GPUBuffer, refusal: GradmixError): void;
}

/** Makes a buffer. The device reports later whether it had the memory; a lost device reports nothing. */
export function createAsked(
  device: GPUDevice,
  faults: Faults,
  bytes: number,
  usage: number,
  { live, refused }: Asking,
): GPUBuffer {
  device.pushErrorScope("out-of-memory");
  const buffer = device.createBuffer({ size: bytes, usage });
  const affected = faults.owner;
  void faults.awaitReport(async () => {
    const error = await device.popErrorScope().catch(() => null);
    if (error === null || faults.disposed) return;
    const refusal = new GradmixError(
      "memory",
      `webgpu: the device refused ${bytes} bytes while ${live} are live; lower the batch`,
    );
    faults.refuse(buffer, refusal, affected);
    refused(buffer, refusal);
  });
  return buffer;
}
