// Fills an operand with a value.
import { FillSlots, TrapSlots } from "./slots";

export function fill(p: FillSlots, task: i32): void {
  const out = p.out, value = p.bits;
  const first = task * p.elementsPerTask, last = min(p.elements, first + p.elementsPerTask);
  for (let i = first; i < last; i++) store<i32>(out + (<usize>i << 2), value);
}

// A kernel that fails, for tests.
export function trap(p: TrapSlots, task: i32): void {
  if (task == p.failing) unreachable();
}
