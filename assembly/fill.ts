// Slots: 0 out, 1 elements, 2 elements a task, 3 value bits.
import { int, ptr } from "./simd";

export function fill(p: usize, task: i32): void {
  const out = ptr(p, 0), value = int(p, 3);
  const first = task * int(p, 2), last = min(int(p, 1), first + int(p, 2));
  for (let i = first; i < last; i++) store<i32>(out + (<usize>i << 2), value);
}

// For tests: a kernel that fails.
export function trap(p: usize, task: i32): void {
  if (task == int(p, 0)) unreachable();
}
