/**
 * Small dispatches that are carried by others. A GPU needs some microseconds to start a dispatch after the previous one has ended, which is longer
 * than sums of a few columns take. So a small dispatch (a rider) is held back. If the next dispatch may carry others and is independent of it, both
 * become one: additional workgroups run the rider. The results do not change, because what a rider computes does not depend on the size of its
 * workgroups.
 */
import type { Dispatch, Operand, Rider } from "./context.ts";
import type { Entry } from "./buffers.ts";

/** An operand with the buffer that contains it. */
export interface Bound {
  readonly operand: Operand;
  readonly entry: Entry;
}

/** A rider that is held back, with its operands' buffers. */
export interface Held {
  readonly rider: Rider;
  readonly bound: readonly Bound[];
}

/** Largest number of riders that are held back. */
export const MOST_RIDERS = 2;

/** The rider as a separate dispatch. */
export const separateDispatch = (rider: Rider): Dispatch => ({
  key: rider.key,
  operands: rider.operands,
  scalars: rider.scalars,
  workgroup: rider.workgroup,
  groups: rider.groups(rider.workgroup),
  declarations: () => rider.declarations(rider.workgroup, ""),
  body: () => rider.body(rider.workgroup, ""),
});

/** Whether two dispatches use no memory that one of them writes, so that they may run at the same time. */
export function independent(some: readonly Bound[], others: readonly Bound[]): boolean {
  return some.every(({ entry, operand }) =>
    others.every(
      (other) =>
        other.entry.pooled !== entry.pooled ||
        !(operand.written === true || other.operand.written === true) ||
        disjoint(operand, other.operand),
    ),
  );
}

/** Whether two operands of one buffer have no element in common. */
function disjoint(a: Operand, b: Operand): boolean {
  const sizeOf = ({ view: { shape } }: Operand): number => shape.reduce((n, extent) => n * extent, 1);
  if (a.view.offset + sizeOf(a) <= b.view.offset || b.view.offset + sizeOf(b) <= a.view.offset) return true;
  // Two ranges of columns in rows of the same stride.
  if (a.columns === undefined || b.columns === undefined || a.columns.stride !== b.columns.stride)
    return false;
  const { stride } = a.columns;
  const [first, second] = [a.view.offset % stride, b.view.offset % stride];
  const fits = first + a.columns.width <= stride && second + b.columns.width <= stride;
  return fits && (first + a.columns.width <= second || second + b.columns.width <= first);
}

/** A dispatch that runs the carrier and the riders. The names of the riders' operands and scalars begin with their tags. */
export function carried(carrier: Dispatch, riders: readonly Rider[]): Dispatch {
  const { workgroup = 64 } = carrier;
  const tags = riders.map((_, i) => `ride${i}_`);
  const scalars: Record<string, NonNullable<Dispatch["scalars"]>[string]> = { ...carrier.scalars };
  const operands = [...carrier.operands];
  let more = 0;
  riders.forEach((rider, i) => {
    const groups = rider.groups(workgroup);
    more += groups;
    scalars[`${tags[i]}groups`] = ["u32", groups];
    for (const [name, value] of Object.entries(rider.scalars)) scalars[`${tags[i]}${name}`] = value;
    for (const operand of rider.operands) operands.push({ ...operand, name: `${tags[i]}${operand.name}` });
  });
  return {
    ...carrier,
    key: [carrier.key, ...riders.map(({ key }) => key)].join(" with "),
    operands,
    scalars,
    more: {
      groups: more,
      text: () => ({
        declarations: riders
          .map(
            (rider, i) => `${rider.declarations(workgroup, tags[i]!)}
fn ride${i}(group: u32, local: u32) {
  let thread = group * ${workgroup}u + local;
${rider.body(workgroup, tags[i]!)}
}`,
          )
          .join("\n"),
        body: `  var rest = group - p.groups;
${tags.map((tag, i) => `  if (rest < p.${tag}groups) { ride${i}(rest, local); return; }\n  rest -= p.${tag}groups;`).join("\n")}`,
      }),
    },
  };
}

/** Number of bindings that a dispatch needs: one per buffer. */
export const bindingsOf = (bound: readonly Bound[]): number =>
  new Set(bound.map(({ entry }) => entry.pooled)).size;
