/** The hash of a file of any size, which a signal can stop. */
import type { Hash } from "node:crypto";
import { createReadStream } from "node:fs";

/** Adds the contents of a file to a hash, in parts, so that the event loop can run between them. Throws the error of the system, and the reason of `signal`. */
export async function hashFile(hash: Hash, path: string, signal: AbortSignal): Promise<void> {
  for await (const part of createReadStream(path, { highWaterMark: 1 << 22 })) {
    signal.throwIfAborted();
    hash.update(part as Uint8Array);
  }
}
