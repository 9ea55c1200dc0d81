// Rotary positions.
import { sinQuarter } from "./functions";
import { fma, scratch } from "./simd";
import { RopeSlots } from "./slots";

// A task processes some positions of every batch item; sines and cosines are computed once per position. Scratch floats: headDim + 4.
export function rope(p: RopeSlots, task: i32): void {
  const time = p.time, cols = p.cols, heads = p.heads, half = p.headDim >> 1;
  const first = task * p.positionsPerTask, last = min(time, first + p.positionsPerTask);
  const rowBytes = <usize>cols << 2, bytes = <usize>half << 2, turned = <usize>(heads * half) << 3;
  const cosines = scratch(p), sines = cosines + bytes + 8;
  for (let t = first; t < last; t++) {
    const position = f64x2.splat(<f64>(p.inverse ? -(t + p.offset) : t + p.offset));
    for (let i = 0; i < half; i += 2) {
      const angle = f64x2.mul(position, v128.load(p.frequencies + (<usize>i << 3)));
      v128.store_lane<i64>(cosines + (<usize>i << 2), f32x4.demote_f64x2_zero(sinQuarter(angle, 1)), 0);
      v128.store_lane<i64>(sines + (<usize>i << 2), f32x4.demote_f64x2_zero(sinQuarter(angle, 0)), 0);
    }
    for (let b = 0; b < p.batch; b++) {
      const at = <usize>(b * time + t) * rowBytes;
      let x = p.x + at, y = p.y + at;
      if (x != y) memory.copy(y + turned, x + turned, rowBytes - turned);
      for (let h = 0; h < heads; h++) {
        let i: usize = 0;
        for (; i + 16 <= bytes; i += 16) {
          const c = v128.load(cosines + i), s = v128.load(sines + i);
          const u = v128.load(x + i), w = v128.load(x + bytes + i);
          v128.store(y + i, fma(f32x4.neg(w), s, f32x4.mul(u, c)));
          v128.store(y + bytes + i, fma(u, s, f32x4.mul(w, c)));
        }
        for (; i < bytes; i += 4) {
          const c = v128.load_splat<f32>(cosines + i), s = v128.load_splat<f32>(sines + i);
          const u = v128.load_splat<f32>(x + i), w = v128.load_splat<f32>(x + bytes + i);
          v128.store_lane<f32>(y + i, fma(f32x4.neg(w), s, f32x4.mul(u, c)), 0);
          v128.store_lane<f32>(y + bytes + i, fma(u, s, f32x4.mul(w, c)), 0);
        }
        x += 2 * bytes;
        y += 2 * bytes;
      }
    }
  }
}
