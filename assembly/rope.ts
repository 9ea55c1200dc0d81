// Rotary positions.
import { sinQuarter } from "./functions";
import { fma, int, ptr, scratch } from "./simd";

// A task takes some positions of every batch item; sines and cosines are made once a position.
// Slots: 0 x, 1 y, 2 batch, 3 time, 4 positions a task, 5 cols, 6 heads, 7 headDim, 8 frequencies (f64, headDim/2, one more when
// that is odd), 9 inverse, 10 position of the first row. Scratch floats: headDim + 4.
export function rope(p: usize, task: i32): void {
  const time = int(p, 3), cols = int(p, 5), heads = int(p, 6), half = int(p, 7) >> 1;
  const first = task * int(p, 4), last = min(time, first + int(p, 4));
  const rowBytes = <usize>cols << 2, bytes = <usize>half << 2, turned = <usize>(heads * half) << 3;
  const cosines = scratch(p), sines = cosines + bytes + 8;
  for (let t = first; t < last; t++) {
    const position = f64x2.splat(<f64>(int(p, 9) ? -(t + int(p, 10)) : t + int(p, 10)));
    for (let i = 0; i < half; i += 2) {
      const angle = f64x2.mul(position, v128.load(ptr(p, 8) + (<usize>i << 3)));
      v128.store_lane<i64>(cosines + (<usize>i << 2), f32x4.demote_f64x2_zero(sinQuarter(angle, 1)), 0);
      v128.store_lane<i64>(sines + (<usize>i << 2), f32x4.demote_f64x2_zero(sinQuarter(angle, 0)), 0);
    }
    for (let b = 0; b < int(p, 2); b++) {
      const at = <usize>(b * time + t) * rowBytes;
      let x = ptr(p, 0) + at, y = ptr(p, 1) + at;
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
