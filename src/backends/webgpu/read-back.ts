/** Reads results: submits encoded commands, copies the bytes to a buffer that can be mapped, and sleeps for most of the wait. */
import { GradmixError } from "../../errors.ts";
import { type Buffers, checkInside, createAsked } from "./buffers.ts";
import type { Commands } from "./commands.ts";
import { type Faults, firstLine, type Owner } from "./faults.ts";
import { createNaps } from "./naps.ts";
import { type BufferPool, createPool } from "./pool.ts";
import { MAP_READ, USAGE } from "./usage.ts";

export interface ReadBack {
  /** Reads the bytes of `count` elements. Throws earlier failures. */
  read(buffer: number, offset: number, count: number, affected?: Owner): Promise<ArrayBuffer>;
  destroy(): void;
}

/** Bytes of free staging buffers that are kept. */
const STAGING = 2 ** 28;

export function createReadBack(
  device: GPUDevice,
  faults: Faults,
  buffers: Buffers,
  commands: Commands,
): ReadBack {
  const staging: BufferPool = createPool(
    (bytes) =>
      createAsked(device, faults, bytes, USAGE.mapRead | USAGE.copyTarget, {
        live: buffers.liveBytes,
        refused: (buffer) => staging.refuse(buffer),
      }),
    { most: device.limits.maxBufferSize, cap: () => STAGING },
    ({ buffer }) => faults.forget(buffer),
  );
  const naps = createNaps();
  let nap: Promise<void> = Promise.resolve();
  let submitting: Promise<void> | null = null;
  /** Submits after the caller's turn, so that reads that begin together share a submit. */
  const submitLater = async (): Promise<void> => {
    await Promise.resolve();
    submitting = null;
    commands.submit();
  };
  const submitted = (): Promise<void> => (submitting ??= submitLater());
  /** Number of dispatches for which an earlier read has waited. */
  let readUpTo = 0;
  return {
    async read(buffer, offset, count, affected = "caller") {
      faults.check(affected);
      const entry = buffers.entryOf(buffer);
      checkInside(entry, offset, count);
      if (count === 0) return new ArrayBuffer(0);
      // First, because it encodes what was held back, which may fail.
      const encoder = commands.encoder();
      const target = staging.acquire(count * 4);
      encoder.copyBufferToBuffer(entry.pooled.buffer, offset * 4, target.buffer, 0, count * 4);
      commands.holds([entry.pooled]);
      const work = commands.dispatches - readUpTo;
      readUpTo = commands.dispatches;
      const began = performance.now();
      // A read without new work waits for the sleep of the read before.
      if (work > 0) {
        const pause = naps.before(work);
        nap = pause > 0 ? new Promise((wake) => setTimeout(wake, pause)) : Promise.resolve();
      }
      let bytes: ArrayBuffer;
      try {
        await submitted();
        await nap;
        await target.buffer.mapAsync(MAP_READ, 0, count * 4);
        await faults.settled();
        faults.check(affected);
        bytes = target.buffer.getMappedRange(0, count * 4).slice(0);
      } catch (error) {
        await faults.settled();
        faults.check(affected);
        if (error instanceof GradmixError) throw error;
        throw new GradmixError(
          "backend",
          `webgpu: a result could not be read (${firstLine(String(error))})`,
          {
            cause: error,
          },
        );
      } finally {
        if (!faults.disposed) {
          target.buffer.unmap();
          staging.release(target);
        }
      }
      if (work > 0) naps.took(work, performance.now() - began);
      return bytes;
    },
    destroy: () => staging.destroy(),
  };
}
