// Threefry-2x32, 20 rounds (Salmon et al. 2011), four blocks at a time.
import { log4 } from "./functions";
import { fma, scratch } from "./simd";
import { DropoutSlots, RandomSlots } from "./slots";

// @ts-ignore: decorator
@inline function rotate(x: v128, bits: i32): v128 {
  return v128.or(i32x4.shl(x, bits), i32x4.shr_u(x, 32 - bits));
}

// Writes eight elements (four blocks from `counter` on) to `out`. Kinds: 0 bits, 1 uniform, 2 normal.
// @ts-ignore: decorator
@inline function eight(kind: i32, key0: i32, key1: i32, counter: i32, out: usize): void {
  const k0 = i32x4.splat(key0), k1 = i32x4.splat(key1);
  const k2 = i32x4.splat(key0 ^ key1 ^ 0x1bd11bda);
  let x0 = k0;
  let x1 = i32x4.add(i32x4.add(i32x4.splat(counter), i32x4(0, 1, 2, 3)), k1);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 13), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 15), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 26), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 6), x0);
  x0 = i32x4.add(x0, k1); x1 = i32x4.add(x1, i32x4.add(k2, i32x4.splat(1)));
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 17), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 29), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 16), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 24), x0);
  x0 = i32x4.add(x0, k2); x1 = i32x4.add(x1, i32x4.add(k0, i32x4.splat(2)));
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 13), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 15), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 26), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 6), x0);
  x0 = i32x4.add(x0, k0); x1 = i32x4.add(x1, i32x4.add(k1, i32x4.splat(3)));
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 17), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 29), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 16), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 24), x0);
  x0 = i32x4.add(x0, k1); x1 = i32x4.add(x1, i32x4.add(k2, i32x4.splat(4)));
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 13), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 15), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 26), x0);
  x0 = i32x4.add(x0, x1); x1 = v128.xor(rotate(x1, 6), x0);
  x0 = i32x4.add(x0, k2); x1 = i32x4.add(x1, i32x4.add(k0, i32x4.splat(5)));
  if (kind != 0) {
    const unit = f32x4.splat(5.9604644775390625e-8); // 2⁻²⁴
    const b0 = i32x4.shr_u(x0, 8), b1 = i32x4.shr_u(x1, 8);
    if (kind == 1) {
      x0 = f32x4.mul(f32x4.convert_i32x4_s(b0), unit);
      x1 = f32x4.mul(f32x4.convert_i32x4_s(b1), unit);
    } else {
      const u1 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.add(b0, i32x4.splat(1))), unit);
      const radius = f32x4.sqrt(f32x4.mul(f32x4.splat(-2), log4(u1)));
      // 2π·u2 = (quarter + rest)·π/2, exactly.
      const turns = f32x4.mul(f32x4.convert_i32x4_s(b1), f32x4.splat(2.384185791015625e-7));
      const quarter = f32x4.nearest(turns);
      const a = f32x4.mul(f32x4.sub(turns, quarter), f32x4.splat(1.5707963267948966));
      const z = f32x4.mul(a, a);
      let s = fma(f32x4.splat(-1.9515295891e-4), z, f32x4.splat(8.3321608736e-3));
      s = fma(s, z, f32x4.splat(-1.6666654611e-1));
      s = fma(f32x4.mul(s, z), a, a);
      let c = fma(f32x4.splat(2.443315711809948e-5), z, f32x4.splat(-1.388731625493765e-3));
      c = fma(c, z, f32x4.splat(4.166664568298827e-2));
      c = fma(f32x4.mul(c, z), z, fma(z, f32x4.splat(-0.5), f32x4.splat(1)));
      const q = i32x4.trunc_sat_f32x4_s(quarter);
      const odd = i32x4.eq(v128.and(q, i32x4.splat(1)), i32x4.splat(1));
      const sinSign = i32x4.shl(v128.and(q, i32x4.splat(2)), 30);
      const cosSign = i32x4.shl(v128.and(i32x4.add(q, i32x4.splat(1)), i32x4.splat(2)), 30);
      x0 = f32x4.mul(radius, v128.xor(v128.bitselect(s, c, odd), cosSign));
      x1 = f32x4.mul(radius, v128.xor(v128.bitselect(c, s, odd), sinSign));
    }
  }
  v128.store(out, i32x4.shuffle(x0, x1, 0, 4, 1, 5));
  v128.store(out, i32x4.shuffle(x0, x1, 2, 6, 3, 7), 16);
}

// There is one export per kind. Scratch bytes: 32.
// @ts-ignore: decorator
@inline function fill(kind: i32, p: RandomSlots, task: i32): void {
  const first = task * p.elementsPerTask, last = min(p.elements, first + p.elementsPerTask);
  const key0 = p.key0, key1 = p.key1, offset = p.offset, out = p.out, spare = scratch(p);
  for (let i = first; i < last; i += 8) {
    const whole = i + 8 <= last, at = out + (<usize>i << 2);
    eight(kind, key0, key1, offset + (i >> 1), whole ? at : spare);
    if (!whole) memory.copy(at, spare, <usize>(last - i) << 2);
  }
}
// Scratch bytes: 32.
export function dropout(p: DropoutSlots, task: i32): void {
  const first = task * p.elementsPerTask, last = min(p.elements, first + p.elementsPerTask);
  const key0 = p.key0, key1 = p.key1, threshold = p.threshold, words = scratch(p);
  const least = i32x4.splat(threshold), scale = p.scale, scales = f32x4.splat(scale);
  for (let i = first; i < last; i += 8) {
    const x = p.x + (<usize>i << 2), y = p.y + (<usize>i << 2);
    eight(0, key0, key1, i >> 1, words);
    if (i + 8 <= last) {
      const keep0 = i32x4.ge_s(i32x4.shr_u(v128.load(words), 8), least);
      const keep1 = i32x4.ge_s(i32x4.shr_u(v128.load(words, 16), 8), least);
      v128.store(y, v128.and(f32x4.mul(v128.load(x), scales), keep0));
      v128.store(y, v128.and(f32x4.mul(v128.load(x, 16), scales), keep1), 16);
    } else
      for (let at: usize = 0; at < <usize>(last - i) << 2; at += 4) {
        const keep = <i32>(load<u32>(words + at) >> 8) >= threshold;
        store<f32>(y + at, keep ? load<f32>(x + at) * scale : 0);
      }
  }
}

export function random_bits(p: RandomSlots, task: i32): void { fill(0, p, task); }
export function random_uniform(p: RandomSlots, task: i32): void { fill(1, p, task); }
export function random_normal(p: RandomSlots, task: i32): void { fill(2, p, task); }
