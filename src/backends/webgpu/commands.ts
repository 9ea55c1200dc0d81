/**
 * Commands that are encoded but not yet submitted, in one compute pass until a result is read. Scalars are in one uniform buffer with one slot per
 * dispatch, which is written once per submit.
 */
import type { GradmixError } from "../../errors.ts";
import { SLOTS } from "./blocks.ts";
import type { Faults, Owner } from "./faults.ts";
import type { PooledBuffer } from "./pool.ts";
import { USAGE } from "./usage.ts";

/** Bytes per slot of the uniform buffer; dynamic offsets must be multiples of it. */
export const SLOT = 256;

/** A pipeline that runs in a pass of its own, because the device may still report that it does not compile. */
export interface Trial {
  readonly failure: GradmixError | null;
  /** Resolves when the device has reported whether it compiles. */
  readonly answered: Promise<void>;
}

export interface Commands {
  /** The uniform buffer, which every dispatch binds at 0 with the offset that `slot` returns. */
  readonly scalars: GPUBuffer;
  /** The memory of `scalars`, written to the device by `submit`. */
  readonly scalarData: DataView;
  /** Byte offset of the scalars of the next dispatch; a full buffer is submitted first. */
  slot(): number;
  /** The open pass. */
  pass(): GPUComputePassEncoder;
  /** Ends the open pass, if any, after encoding the held-back dispatches; later commands are outside it. */
  encoder(): GPUCommandEncoder;
  /** Records a dispatch that uses these buffers. */
  used(buffers: readonly PooledBuffer[]): void;
  /** Records another use of these buffers, by a held-back dispatch or a copy. */
  holds(buffers: readonly PooledBuffer[]): void;
  /** The held-back dispatches: encoded before a submit, and forgotten together with the encoded commands. */
  held: { encode(): void; forget(): void };
  /** Returns whether a command, encoded or held back, uses this buffer. */
  pending(id: number): boolean;
  /** Owners of the commands in the open encoder. */
  readonly encodedBy: ReadonlySet<Owner>;
  submit(trial?: Trial | null): void;
  /** Forgets encoded commands that were not submitted. */
  drop(): void;
  readonly dispatches: number;
  readonly submits: number;
  destroy(): void;
}

export function createCommands(device: GPUDevice, faults: Faults): Commands {
  const { queue } = device;
  const scalars = device.createBuffer({ size: SLOT * SLOTS, usage: USAGE.uniform | USAGE.copyTarget });
  const scalarBytes = new ArrayBuffer(SLOT * SLOTS);
  let usedSlots = 0;
  let dispatches = 0;
  let submits = 0;
  let encoder: GPUCommandEncoder | null = null;
  let pass: GPUComputePassEncoder | null = null;
  const pending = new Set<number>();
  const encodedBy = new Set<Owner>();
  const commands: Commands = {
    scalars,
    scalarData: new DataView(scalarBytes),
    encodedBy,
    slot() {
      if (usedSlots === SLOTS) commands.submit();
      return usedSlots++ * SLOT;
    },
    pass() {
      encoder ??= device.createCommandEncoder();
      return (pass ??= encoder.beginComputePass());
    },
    encoder() {
      commands.held.encode();
      pass?.end();
      pass = null;
      return (encoder ??= device.createCommandEncoder());
    },
    held: { encode() {}, forget() {} },
    holds(buffers) {
      for (const { id } of buffers) pending.add(id);
      encodedBy.add(faults.owner);
    },
    used(buffers) {
      commands.holds(buffers);
      dispatches++;
    },
    pending: (id) => pending.has(id),
    submit(trial = null) {
      commands.held.encode();
      if (encoder === null) return;
      pass?.end();
      pass = null;
      queue.writeBuffer(scalars, 0, scalarBytes, 0, usedSlots * SLOT);
      if (trial !== null) device.pushErrorScope("validation");
      queue.submit([encoder.finish()]);
      if (trial !== null)
        void faults.awaitReport(async () => {
          const error = await device.popErrorScope().catch(() => null);
          // Reports arrive in any order. A pipeline that does not compile is the cause of an invalid dispatch, so its report is awaited first.
          await trial.answered;
          if (error !== null && !faults.disposed && trial.failure === null) void faults.judge(error.message);
        });
      submits++;
      commands.drop();
    },
    drop() {
      commands.held.forget();
      pass?.end();
      encoder = pass = null;
      usedSlots = 0;
      pending.clear();
      encodedBy.clear();
    },
    get dispatches() {
      return dispatches;
    },
    get submits() {
      return submits;
    },
    destroy: () => scalars.destroy(),
  };
  return commands;
}
