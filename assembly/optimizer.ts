// The optimizers' steps.
import { float, fma, int, ptr } from "./simd";

// Slots: 0 sumsq, 1 scale; floats: 0 maxNorm.
export function clipScale(p: usize, task: i32): void {
  store<f32>(ptr(p, 1), min<f32>(1, float(p, 0) / sqrt<f32>(load<f32>(ptr(p, 0)))));
}

// @ts-ignore: decorator
@inline function at(vector: bool, address: usize): v128 {
  return vector ? v128.load(address) : v128.load_splat<f32>(address);
}
// @ts-ignore: decorator
@inline function put(vector: bool, address: usize, x: v128): void {
  if (vector) v128.store(address, x);
  else v128.store_lane<f32>(address, x, 0);
}

// Four elements, or one. The decay of Adam is part of the gradient, that of AdamW is not.
// @ts-ignore: decorator
@inline function adamStep(decoupled: bool, vector: bool, p: usize, scale: v128, grad: usize, value: usize, m: usize, v: usize): void {
  const x = at(vector, value), decay = f32x4.splat(float(p, 6));
  let g = f32x4.mul(at(vector, grad), scale);
  if (!decoupled) g = fma(decay, x, g);
  const first = fma(f32x4.splat(float(p, 2)), g, f32x4.mul(f32x4.splat(float(p, 1)), at(vector, m)));
  const second = fma(
    f32x4.mul(f32x4.splat(float(p, 4)), g), g,
    f32x4.mul(f32x4.splat(float(p, 3)), at(vector, v)),
  );
  put(vector, m, first);
  put(vector, v, second);
  const root = f32x4.sqrt(f32x4.mul(second, f32x4.splat(float(p, 8))));
  const step = f32x4.div(f32x4.mul(first, f32x4.splat(float(p, 7))), f32x4.add(root, f32x4.splat(float(p, 5))));
  put(vector, value, fma(f32x4.splat(-float(p, 0)), decoupled ? fma(decay, x, step) : step, x));
}

// @ts-ignore: decorator
@inline function adamTask(decoupled: bool, p: usize, task: i32): void {
  const block = int(p, 6), start = (<usize>task * <usize>block) << 2;
  const bytes = <usize>min(block, int(p, 5) - task * block) << 2;
  const grad = ptr(p, 0) + start, value = ptr(p, 2) + start, m = ptr(p, 3) + start, v = ptr(p, 4) + start;
  const scale = f32x4.splat(ptr(p, 1) ? load<f32>(ptr(p, 1)) : 1);
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) adamStep(decoupled, true, p, scale, grad + i, value + i, m + i, v + i);
  for (; i < bytes; i += 4) adamStep(decoupled, false, p, scale, grad + i, value + i, m + i, v + i);
}

// Slots: 0 grad, 1 gradScale, 2 value, 3 m, 4 v, 5 elements, 6 a task's; floats: 0 lr, 1 beta1, 2 1 − beta1, 3 beta2,
// 4 1 − beta2, 5 eps, 6 weightDecay, 7 1/(1 − beta1^step), 8 1/(1 − beta2^step).
export function adam(p: usize, task: i32): void {
  adamTask(false, p, task);
}
export function adamw(p: usize, task: i32): void {
  adamTask(true, p, task);
}

// @ts-ignore: decorator
@inline function sgdStep(heavy: bool, vector: bool, p: usize, scale: v128, grad: usize, value: usize, velocity: usize): void {
  const x = at(vector, value);
  const g = fma(f32x4.splat(float(p, 2)), x, f32x4.mul(at(vector, grad), scale));
  let step = g;
  if (heavy) {
    const momentum = f32x4.splat(float(p, 1));
    const next = fma(momentum, at(vector, velocity), g);
    put(vector, velocity, next);
    step = int(p, 6) ? fma(momentum, next, g) : next;
  }
  put(vector, value, fma(f32x4.splat(-float(p, 0)), step, x));
}

// @ts-ignore: decorator
@inline function sgdTask(heavy: bool, p: usize, task: i32): void {
  const block = int(p, 5), start = (<usize>task * <usize>block) << 2;
  const bytes = <usize>min(block, int(p, 4) - task * block) << 2;
  const grad = ptr(p, 0) + start, value = ptr(p, 2) + start, velocity = ptr(p, 3) + start;
  const scale = f32x4.splat(ptr(p, 1) ? load<f32>(ptr(p, 1)) : 1);
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) sgdStep(heavy, true, p, scale, grad + i, value + i, velocity + i);
  for (; i < bytes; i += 4) sgdStep(heavy, false, p, scale, grad + i, value + i, velocity + i);
}

// Slots: 0 grad, 1 gradScale, 2 value, 3 velocity, 4 elements, 5 a task's, 6 nesterov; floats: 0 lr, 1 momentum, 2 weightDecay.
export function sgd(p: usize, task: i32): void {
  if (ptr(p, 3)) sgdTask(true, p, task);
  else sgdTask(false, p, task);
}
