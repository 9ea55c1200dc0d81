// Shared SIMD helpers: fused multiply-add, per-thread scratch.
import { ScratchSlots } from "./slots";

// The relaxed build rounds once per multiply-add, the plain build twice.
// @ts-ignore: decorator
@inline export function fma(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

// Like fma, for doubles. Products of two f32 are exact in doubles, so for these both builds give the same bits.
// @ts-ignore: decorator
@inline export function fma64(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f64x2.relaxed_madd(a, b, c);
  return f64x2.add(f64x2.mul(a, b), c);
}

// Element i of a table, in all lanes. From Node.js 24 on, V8 makes a constant anew in every turn of a loop, with three instructions; to load it takes one.
// @ts-ignore: decorator
@inline export function constant(table: usize, i: usize): v128 {
  return v128.load_splat<f32>(table + (i << 2));
}

// Two f32 from memory, as doubles.
// @ts-ignore: decorator
@inline export function doubles(at: usize): v128 {
  return f64x2.promote_low_f32x4(v128.load64_zero(at));
}

// @ts-ignore: decorator
@inline export function sumDoubles(v: v128): f64 {
  return f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1);
}

// The sum of four f32, as a sum of two doubles.
// @ts-ignore: decorator
@inline export function twoDoubles(v: v128): v128 {
  return f64x2.add(f64x2.promote_low_f32x4(v), f64x2.promote_low_f32x4(v128.shuffle<f64>(v, v, 1, 0)));
}

// The bytes of v at the given positions, which are 0 to 15.
// @ts-ignore: decorator
@inline export function swizzle(v: v128, positions: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i8x16.relaxed_swizzle(v, positions);
  return i8x16.swizzle(v, positions);
}

// Loads and stores four elements (`vector`), or one.
// @ts-ignore: decorator
@inline export function at(vector: bool, address: usize): v128 {
  return vector ? v128.load(address) : v128.load_splat<f32>(address);
}
// @ts-ignore: decorator
@inline export function put(vector: bool, address: usize, x: v128): void {
  if (vector) v128.store(address, x);
  else v128.store_lane<f32>(address, x, 0);
}

let thread: usize = 0;

// Whether V8 makes 256-bit instructions of adjacent pairs of vectors, as its pass "revectorize" does. The bits are the same; kernels choose larger tiles.
export let wide: bool = false;

// Sets the number of this thread, and whether vectors are wide; called once per instance.
export function setThread(index: i32, isWide: bool): void {
  thread = <usize>index;
  wide = isWide;
}

// The square root. V8 compiles the scalar instruction to one of SSE, and Intel's processors take many cycles to change between those and 256-bit ones.
// @ts-ignore: decorator
@inline export function root(x: f32): f32 {
  return f32x4.extract_lane(f32x4.sqrt(f32x4.splat(x)), 0);
}

// V8 joins two vectors of arithmetic if both results are stored next to each other, with nothing between the two stores.
// @ts-ignore: decorator
@inline export function storePair(to: usize, low: v128, high: v128): void {
  v128.store(to, low);
  v128.store(to, high, 16);
}

// @ts-ignore: decorator
@inline export function copyPair(to: usize, from: usize): void {
  storePair(to, v128.load(from), v128.load(from, 16));
}

const MOST_THREADS = 64;
const LINE: usize = 64;
const corners = memory.data(MOST_THREADS * 64);

// The sum of the two accumulators of a loop. If vectors are wide, they go through memory, so that V8 joins the loop.
// @ts-ignore: decorator
@inline export function sumPair(s0: v128, s1: v128): v128 {
  if (!wide) return f32x4.add(s0, s1);
  const corner = corners + thread * LINE;
  storePair(corner, s0, s1);
  return f32x4.add(v128.load(corner), v128.load(corner, 16));
}

// The scratch memory of this thread, whose size the launcher chooses.
// @ts-ignore: decorator
@inline export function scratch(p: ScratchSlots): usize {
  return p.scratchAt + thread * p.scratchStride;
}

// @ts-ignore: decorator
@inline export function sumLanes(v: v128): f32 {
  return (
    f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3))
  );
}
