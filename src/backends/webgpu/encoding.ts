/** Turns a kernel's dispatch into a command: which operands share a buffer, how each is bound, the scalars, the workgroups. */
import { GradmixError } from "../../errors.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { GRID_GROUPS } from "./blocks.ts";
import { type Buffers, checkInside, type Entry } from "./buffers.ts";
import { type Commands, SLOT } from "./commands.ts";
import type { Dispatch, Operand, Rider } from "./context.ts";
import type { Pipelines } from "./pipelines.ts";
import {
  separateDispatch,
  type Bound,
  bindingsOf,
  carried,
  type Held,
  independent,
  MOST_RIDERS,
} from "./riders.ts";
import type { ScalarType, ShaderOperand, ShaderSlot } from "./shader.ts";

/** A buffer that a dispatch binds. */
interface Slot extends ShaderSlot {
  readonly entry: Entry;
  written: boolean;
  vectors: boolean;
  /** Whether some operand in it must be accessed element by element. */
  scalars: boolean;
}

interface BoundOperand extends ShaderOperand {
  /** Position of its first element in the buffer. */
  readonly at: number;
}

const INFINITY_BITS = 0x7f800000;

/** Encodes dispatches, and those that others may carry. Throws `backend` for a kernel that is known not to compile. */
export interface Encoding {
  dispatch(dispatch: Dispatch): void;
  ride(rider: Rider): void;
}

/** `bindings` is the largest number of buffers that the device binds at once. */
export function createEncoding(
  buffers: Buffers,
  pipelines: Pipelines,
  commands: Commands,
  bindings: number,
): Encoding {
  let held: Held[] = [];
  const boundOf = (operands: readonly Operand[]): Bound[] =>
    operands.map((operand) => {
      const { view } = operand;
      const entry = buffers.entryOf(view.buffer);
      checkInside(entry, view.offset, sizeOf(view.shape));
      return { operand, entry };
    });
  /** Encodes the dispatches that are held back. */
  const release = (): void => {
    const riders = held;
    held = [];
    for (const { rider, bound } of riders) encode(separateDispatch(rider), bound);
  };
  commands.held = {
    encode: release,
    forget() {
      held = [];
    },
  };
  const encode = (dispatch: Dispatch, bound: readonly Bound[]): void => {
    const { slots, operands, layoutKey } = bind(dispatch.operands, bound);
    const pipeline = pipelines.pipelineOf(dispatch, layoutKey, operands, slots);
    if (pipeline.failure !== null) throw pipeline.failure;
    // A pass with a pipeline that does not compile runs nothing, so a pipeline runs in its own pass until the device has reported success.
    const trial = !pipeline.proven;
    if (trial) commands.submit();
    const pooled = slots.map(({ entry }) => entry.pooled);
    const group = pipelines.groupOf(pipeline, commands.scalars, pooled);
    const base = commands.slot();
    const groups = dispatch.groups + (dispatch.more?.groups ?? 0);
    const width = Math.min(groups, GRID_GROUPS);
    putScalars(commands.scalarData, base, width, dispatch, operands);
    const pass = commands.pass();
    pass.setPipeline(pipeline.pipeline);
    pass.setBindGroup(0, group, [base]);
    pass.dispatchWorkgroups(width, Math.ceil(groups / width));
    pipeline.dispatches++;
    commands.used(pooled);
    if (trial) commands.submit(pipeline);
  };
  return {
    dispatch(dispatch) {
      if (dispatch.groups === 0) return;
      const own = boundOf(dispatch.operands);
      if (held.length > 0 && dispatch.carries === true) {
        const all = [...own, ...held.flatMap(({ bound }) => bound)];
        if (bindingsOf(all) <= bindings && held.every(({ bound }) => independent(bound, own))) {
          const riders = held.map(({ rider }) => rider);
          held = [];
          encode(carried(dispatch, riders), all);
          return;
        }
      }
      release();
      encode(dispatch, own);
    },
    ride(rider) {
      if (rider.groups(rider.workgroup) === 0) return;
      const bound = boundOf(rider.operands);
      // Riders on one carrier run at the same time, so they must be independent of each other.
      if (held.length === MOST_RIDERS || !held.every((other) => independent(other.bound, bound))) release();
      held.push({ rider, bound });
      commands.holds(bound.map(({ entry }) => entry.pooled));
    },
  };
}

/** Assigns operands to slots; operands in the same buffer share a slot. */
function bind(
  given: readonly Operand[],
  bound: readonly Bound[],
): { slots: readonly Slot[]; operands: readonly BoundOperand[]; layoutKey: string } {
  const slots: Slot[] = [];
  const operands: BoundOperand[] = [];
  let layoutKey = "";
  for (const [i, { name, view, written = false, fours = false }] of given.entries()) {
    const { entry } = bound[i]!;
    let slot = 0;
    // Buffers are compared, not tensors: a dispatch that is held back may use a buffer that has since been given to another tensor.
    while (slot < slots.length && slots[slot]!.entry.pooled !== entry.pooled) slot++;
    if (slot === slots.length)
      slots.push({ entry, dtype: view.dtype, written: false, vectors: false, scalars: false });
    const own = slots[slot]!;
    own.written ||= written;
    own.vectors ||= fours;
    // A single element of a vector can be read, but not written without its neighbours.
    own.scalars ||= fours ? view.offset % 4 !== 0 : written;
    operands.push({ name, dtype: view.dtype, slot, at: view.offset, fours });
    layoutKey += slot;
  }
  for (const slot of slots) {
    slot.vectors &&= !slot.scalars;
    layoutKey += slot.written ? (slot.vectors ? "W" : "w") : slot.vectors ? "R" : "r";
  }
  return { slots, operands, layoutKey };
}

/** Writes the scalars of a dispatch in the order of `scalarLayout`. */
function putScalars(
  data: DataView,
  base: number,
  width: number,
  dispatch: Dispatch,
  operands: readonly BoundOperand[],
): void {
  let at = base;
  const put = (type: ScalarType, value: number): void => {
    if (at - base >= SLOT) throw new GradmixError("backend", `webgpu: ${dispatch.key} has too many scalars`);
    if (type === "f32") data.setFloat32(at, value, true);
    else if (type === "i32") data.setInt32(at, value, true);
    else data.setUint32(at, value, true);
    at += 4;
  };
  put("u32", width);
  put("u32", dispatch.groups);
  put("u32", INFINITY_BITS);
  for (const operand of operands) put("u32", operand.at);
  for (const [type, value] of Object.values(dispatch.scalars ?? {})) put(type, value);
}
