// The steps of the optimizers.
import { at, fma, put, root, storePair, wide } from "./simd";
import { AdamSlots, AdamwSlots, ClipScaleSlots, SgdSlots } from "./slots";

export function clipScale(p: ClipScaleSlots, task: i32): void {
  const norm = root(load<f32>(p.sumsq)), most = p.maxNorm;
  // Neither NaN nor infinity is at most the largest f32.
  store<f32>(p.scale, norm <= f32.MAX_VALUE ? (norm > most ? most / norm : 1) : 0);
}

/** The factor of the gradient. 0 means that there is no step. */
// @ts-ignore: decorator
@inline function factorAt(gradScale: usize): f32 {
  return gradScale ? load<f32>(gradScale) : 1;
}

// The parts of a step. Weight decay is part of the gradient in Adam, but not in AdamW.
// @ts-ignore: decorator
@inline function gradientOf(decoupled: bool, g: v128, x: v128, scale: v128, decay: v128): v128 {
  const scaled = f32x4.mul(g, scale);
  return decoupled ? scaled : fma(decay, x, scaled);
}
// @ts-ignore: decorator
@inline function firstMoment(m: v128, g: v128, beta1: v128, rest1: v128): v128 {
  return fma(rest1, g, f32x4.mul(beta1, m));
}
// @ts-ignore: decorator
@inline function secondMoment(v: v128, g: v128, beta2: v128, rest2: v128): v128 {
  return fma(f32x4.mul(rest2, g), g, f32x4.mul(beta2, v));
}
// @ts-ignore: decorator
@inline function adamValue(
  decoupled: bool, x: v128, first: v128, second: v128, decay: v128, correction1: v128, correction2: v128, eps: v128, minusLr: v128,
): v128 {
  const root = f32x4.sqrt(f32x4.mul(second, correction2));
  const step = f32x4.div(f32x4.mul(first, correction1), f32x4.add(root, eps));
  return fma(minusLr, decoupled ? fma(decay, x, step) : step, x);
}

// Updates four elements, or one.
// @ts-ignore: decorator
@inline function adamStep(
  decoupled: bool, vector: bool, grad: usize, value: usize, m: usize, v: usize, scale: v128, decay: v128, beta1: v128, rest1: v128, beta2: v128, rest2: v128,
  correction1: v128, correction2: v128, eps: v128, minusLr: v128,
): void {
  const x = at(vector, value), g = gradientOf(decoupled, at(vector, grad), x, scale, decay);
  const first = firstMoment(at(vector, m), g, beta1, rest1), second = secondMoment(at(vector, v), g, beta2, rest2);
  put(vector, m, first);
  put(vector, v, second);
  put(vector, value, adamValue(decoupled, x, first, second, decay, correction1, correction2, eps, minusLr));
}

// The parameters are read before the loop, because the compiler cannot know that its stores leave them alone.
// @ts-ignore: decorator
@inline function adamTask(decoupled: bool, p: AdamSlots, task: i32): void {
  const factor = factorAt(p.gradScale);
  if (factor == 0) return;
  const block = p.elementsPerTask, start = (<usize>task * <usize>block) << 2;
  const bytes = <usize>min(block, p.elements - task * block) << 2;
  const grad = p.grad + start, value = p.value + start, m = p.m + start, v = p.v + start;
  const scale = f32x4.splat(factor), decay = f32x4.splat(p.weightDecay);
  const beta1 = f32x4.splat(p.beta1), rest1 = f32x4.splat(p.rest1), beta2 = f32x4.splat(p.beta2), rest2 = f32x4.splat(p.rest2);
  const correction1 = f32x4.splat(p.correction1), correction2 = f32x4.splat(p.correction2);
  const eps = f32x4.splat(p.eps), minusLr = f32x4.splat(-p.lr);
  let i: usize = 0;
  for (; wide && i + 32 <= bytes; i += 32) {
    const x = v128.load(value + i), y = v128.load(value + i, 16);
    const gx = gradientOf(decoupled, v128.load(grad + i), x, scale, decay), gy = gradientOf(decoupled, v128.load(grad + i, 16), y, scale, decay);
    const mx = firstMoment(v128.load(m + i), gx, beta1, rest1), my = firstMoment(v128.load(m + i, 16), gy, beta1, rest1);
    const vx = secondMoment(v128.load(v + i), gx, beta2, rest2), vy = secondMoment(v128.load(v + i, 16), gy, beta2, rest2);
    storePair(m + i, mx, my);
    storePair(v + i, vx, vy);
    const low = adamValue(decoupled, x, mx, vx, decay, correction1, correction2, eps, minusLr);
    storePair(value + i, low, adamValue(decoupled, y, my, vy, decay, correction1, correction2, eps, minusLr));
  }
  for (; i + 16 <= bytes; i += 16)
    adamStep(decoupled, true, grad + i, value + i, m + i, v + i, scale, decay, beta1, rest1, beta2, rest2, correction1, correction2, eps, minusLr);
  for (; i < bytes; i += 4)
    adamStep(decoupled, false, grad + i, value + i, m + i, v + i, scale, decay, beta1, rest1, beta2, rest2, correction1, correction2, eps, minusLr);
}

export function adam(p: AdamSlots, task: i32): void {
  adamTask(false, p, task);
}
export function adamw(p: AdamwSlots, task: i32): void {
  adamTask(true, p, task);
}

// @ts-ignore: decorator
@inline function sgdStep(heavy: bool, vector: bool, p: SgdSlots, scale: v128, grad: usize, value: usize, velocity: usize): void {
  const x = at(vector, value);
  const g = fma(f32x4.splat(p.weightDecay), x, f32x4.mul(at(vector, grad), scale));
  let step = g;
  if (heavy) {
    const momentum = f32x4.splat(p.momentum);
    const next = fma(momentum, at(vector, velocity), g);
    put(vector, velocity, next);
    step = p.nesterov ? fma(momentum, next, g) : next;
  }
  put(vector, value, fma(f32x4.splat(-p.lr), step, x));
}

// @ts-ignore: decorator
@inline function sgdTask(heavy: bool, p: SgdSlots, task: i32): void {
  const factor = factorAt(p.gradScale);
  if (factor == 0) return;
  const block = p.elementsPerTask, start = (<usize>task * <usize>block) << 2;
  const bytes = <usize>min(block, p.elements - task * block) << 2;
  const grad = p.grad + start, value = p.value + start, velocity = p.velocity + start;
  const scale = f32x4.splat(factor);
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) sgdStep(heavy, true, p, scale, grad + i, value + i, velocity + i);
  for (; i < bytes; i += 4) sgdStep(heavy, false, p, scale, grad + i, value + i, velocity + i);
}

export function sgd(p: SgdSlots, task: i32): void {
  if (p.velocity) sgdTask(true, p, task);
  else sgdTask(false, p, task);
}
