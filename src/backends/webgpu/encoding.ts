/** From a kernel's dispatch to a command: which operands share a buffer, how each is bound, its scalars, its workgroups. */
import { GradmixError } from "../../errors.ts";
import { sizeOf } from "../../tensor/shape.ts";
import { GRID_GROUPS } from "./blocks.ts";
import { type Buffers, checkInside, type Entry } from "./buffers.ts";
import { type Commands, SLOT } from "./commands.ts";
import type { Dispatch } from "./context.ts";
import type { Pipelines } from "./pipelines.ts";
import type { ScalarType, ShaderOperand, ShaderSlot } from "./shader.ts";

/** A buffer that a dispatch binds. */
interface Slot extends ShaderSlot {
  readonly entry: Entry;
  written: boolean;
  vectors: boolean;
  /** Something in it has to be reached element by element. */
  scalars: boolean;
}

interface BoundOperand extends ShaderOperand {
  /** Its first element. */
  readonly at: number;
}

const INFINITY_BITS = 0x7f800000;

/** Encodes dispatches. Throws `backend` for a kernel that is known not to compile. */
export function createEncoding(
  buffers: Buffers,
  pipelines: Pipelines,
  commands: Commands,
): (dispatch: Dispatch) => void {
  return (dispatch) => {
    if (dispatch.groups === 0) return;
    const { slots, operands, layoutKey } = bind(buffers, dispatch);
    const made = pipelines.pipelineOf(dispatch, layoutKey, operands, slots);
    if (made.failure !== null) throw made.failure;
    // A pass with a pipeline that does not compile runs nothing: until the device has said that it does, it runs alone.
    const trial = !made.proven;
    if (trial) commands.submit();
    const pooled = slots.map(({ entry }) => entry.pooled);
    const group = pipelines.groupOf(made, commands.scalars, pooled);
    const base = commands.slot();
    const width = Math.min(dispatch.groups, GRID_GROUPS);
    putScalars(commands.scalarData, base, width, dispatch, operands);
    const pass = commands.pass();
    pass.setPipeline(made.pipeline);
    pass.setBindGroup(0, group, [base]);
    pass.dispatchWorkgroups(width, Math.ceil(dispatch.groups / width));
    made.dispatches++;
    commands.used(pooled);
    if (trial) commands.submit(made);
  };
}

/** Operands of one buffer share a slot. */
function bind(
  buffers: Buffers,
  dispatch: Dispatch,
): { slots: readonly Slot[]; operands: readonly BoundOperand[]; layoutKey: string } {
  const slots: Slot[] = [];
  const operands: BoundOperand[] = [];
  let layoutKey = "";
  for (const { name, view, written = false, fours = false } of dispatch.operands) {
    const entry = buffers.entryOf(view.buffer);
    checkInside(entry, view.offset, sizeOf(view.shape));
    let slot = 0;
    while (slot < slots.length && slots[slot]!.entry !== entry) slot++;
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

/** In the order of `scalarLayout`. */
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
