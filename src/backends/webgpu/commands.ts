/**
 * What is encoded and not yet submitted: one compute pass until something has to be read. Scalars go through one uniform buffer, a slot per
 * dispatch, written once per submit.
 */
import type { GradmixError } from "../../errors.ts";
import { SLOTS } from "./blocks.ts";
import type { Faults, Owner } from "./faults.ts";
import type { PooledBuffer } from "./pool.ts";
import { USAGE } from "./usage.ts";

/** Bytes of a slot of the uniform buffer: what dynamic offsets must be multiples of. */
export const SLOT = 256;

/** A pipeline that runs alone, as the device may still say that it does not compile. */
export interface Trial {
  readonly failure: GradmixError | null;
  /** Resolves when the device has said whether it compiles. */
  readonly answered: Promise<void>;
}

export interface Commands {
  /** Bound at 0 by every dispatch, with the offset that `slot` gives. */
  readonly scalars: GPUBuffer;
  /** The memory of `scalars`, written to the device by `submit`. */
  readonly scalarData: DataView;
  /** Bytes at which the scalars of the next dispatch begin; a full buffer is submitted first. */
  slot(): number;
  /** The open pass. */
  pass(): GPUComputePassEncoder;
  /** Ends the pass, if one is open, with what is held back in it; what follows is encoded outside of it. */
  encoder(): GPUCommandEncoder;
  /** Notes a dispatch that uses these buffers. */
  used(buffers: readonly PooledBuffer[]): void;
  /** Notes that something other than a dispatch in the pass uses these buffers: what is held back, a copy. */
  holds(buffers: readonly PooledBuffer[]): void;
  /** What is held back: encoded before a submit, forgotten with what is encoded. */
  held: { encode(): void; forget(): void };
  /** Is there a command, encoded or held back, that uses this buffer? */
  pending(id: number): boolean;
  /** Whose commands the open encoder has. */
  readonly encodedBy: ReadonlySet<Owner>;
  submit(trial?: Trial | null): void;
  /** Forgets what is encoded and was not submitted. */
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
        void faults.ask(async () => {
          const error = await device.popErrorScope().catch(() => null);
          // Answers come in any order: that the pipeline does not compile is the cause, an invalid dispatch only follows from it.
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
