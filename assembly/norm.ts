// LayerNorm and RMSNorm over rows. `layer` is 1 for LayerNorm.
import { fma, root, storePair, sumLanes, sumPair, wide } from "./simd";
import { NormJvpSlots, NormSlots, NormVjpSlots } from "./slots";

// Mean and rstd of a row in doubles, for rows whose sums overflow.
let farMean: f32 = 0;
function farRow(x: usize, width: i32, layer: bool, eps: f32): f32 {
  let mean: f64 = 0, sum: f64 = 0;
  if (layer) {
    for (let i = 0; i < width; i++) mean += <f64>load<f32>(x + (<usize>i << 2));
    mean /= <f64>width;
  }
  for (let i = 0; i < width; i++) {
    const d = <f64>load<f32>(x + (<usize>i << 2)) - mean;
    sum += d * d;
  }
  farMean = <f32>mean;
  return <f32>(1 / sqrt<f64>(sum / <f64>width + <f64>eps));
}

// (x − mean)·rstd of four elements.
// @ts-ignore: decorator
@inline function unit(x: usize, center: v128, scale: v128): v128 {
  return f32x4.mul(f32x4.sub(v128.load(x), center), scale);
}

// @ts-ignore: decorator
@inline function ownGradient(unit: v128, d: v128, slope: v128, average: v128, scale: v128): v128 {
  return f32x4.mul(fma(unit, slope, f32x4.sub(d, average)), scale);
}

export function norm(p: NormSlots, task: i32): void {
  const width = p.width, bytes = <usize>width << 2, gain = p.gain, bias = p.bias;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  const count = <f32>width, one = f32x4.splat(1), zero = f32x4.splat(0);
  for (let r = first; r < last; r++) {
    let x = p.x + <usize>r * bytes;
    const y = p.y + <usize>r * bytes;
    let i: usize = 0;
    if (p.sum) {
      const residual = p.residual + <usize>r * bytes, sum = p.sum + <usize>r * bytes;
      for (; wide && i + 32 <= bytes; i += 32)
        storePair(sum + i, f32x4.add(v128.load(x + i), v128.load(residual + i)), f32x4.add(v128.load(x + i, 16), v128.load(residual + i, 16)));
      for (; i + 16 <= bytes; i += 16) v128.store(sum + i, f32x4.add(v128.load(x + i), v128.load(residual + i)));
      for (; i < bytes; i += 4) store<f32>(sum + i, load<f32>(x + i) + load<f32>(residual + i));
      x = sum;
      i = 0;
    }
    let mean: f32 = 0;
    if (p.layer) {
      let s0 = zero, s1 = zero;
      for (; i + 32 <= bytes; i += 32) {
        s0 = f32x4.add(s0, v128.load(x + i));
        s1 = f32x4.add(s1, v128.load(x + i, 16));
      }
      mean = sumLanes(sumPair(s0, s1));
      for (; i < bytes; i += 4) mean += load<f32>(x + i);
      mean /= count;
    }
    let center = f32x4.splat(mean);
    let q0 = zero, q1 = zero;
    for (i = 0; i + 32 <= bytes; i += 32) {
      const a = f32x4.sub(v128.load(x + i), center), b = f32x4.sub(v128.load(x + i, 16), center);
      q0 = fma(a, a, q0);
      q1 = fma(b, b, q1);
    }
    let sum = sumLanes(sumPair(q0, q1));
    for (; i < bytes; i += 4) {
      const a = load<f32>(x + i) - mean;
      sum += a * a;
    }
    let rstd: f32 = 1 / root(sum / count + p.eps);
    if (!(sum < Infinity)) {
      rstd = farRow(x, width, p.layer != 0, p.eps);
      mean = farMean;
      center = f32x4.splat(mean);
    }
    const scale = f32x4.splat(rstd);
    i = 0;
    if (gain && bias)
      for (; wide && i + 32 <= bytes; i += 32) {
        const low = fma(unit(x + i, center, scale), v128.load(gain + i), v128.load(bias + i));
        storePair(y + i, low, fma(unit(x + i + 16, center, scale), v128.load(gain + i, 16), v128.load(bias + i, 16)));
      }
    else if (gain)
      for (; wide && i + 32 <= bytes; i += 32)
        storePair(y + i, fma(unit(x + i, center, scale), v128.load(gain + i), zero), fma(unit(x + i + 16, center, scale), v128.load(gain + i, 16), zero));
    for (; i + 16 <= bytes; i += 16)
      v128.store(y + i, fma(unit(x + i, center, scale), gain ? v128.load(gain + i) : one, bias ? v128.load(bias + i) : zero));
    for (; i < bytes; i += 4) {
      const unit = f32x4.mul(f32x4.sub(v128.load_splat<f32>(x + i), center), scale);
      const g = gain ? v128.load_splat<f32>(gain + i) : one, b = bias ? v128.load_splat<f32>(bias + i) : zero;
      v128.store_lane<f32>(y + i, fma(unit, g, b), 0);
    }
    const stats = p.stats + (<usize>r << 3);
    store<f32>(stats, mean);
    store<f32>(stats, rstd, 4);
  }
}

// The Jacobian rstd·(I − [11ᵀ/w if LayerNorm] − x̂x̂ᵀ/w) is symmetric; vjp and jvp differ only in the side of the gain.
export function normVjp(p: NormVjpSlots, task: i32): void {
  const width = p.width, bytes = <usize>width << 2, gain = p.gain;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  const count = <f32>width, one = f32x4.splat(1), zero = f32x4.splat(0);
  for (let r = first; r < last; r++) {
    const at = <usize>r * bytes, x = p.x + at, dy = p.dy + at, dx = p.dx + at, also = p.also ? p.also + at : 0;
    const stats = p.stats + (<usize>r << 3), mean = load<f32>(stats), rstd = load<f32>(stats, 4);
    const center = f32x4.splat(mean), scale = f32x4.splat(rstd);
    let s = zero, t = zero;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      const unit = f32x4.mul(f32x4.sub(v128.load(x + i), center), scale);
      const d = f32x4.mul(v128.load(dy + i), gain ? v128.load(gain + i) : one);
      s = f32x4.add(s, d);
      t = fma(unit, d, t);
    }
    let sum = sumLanes(s), along = sumLanes(t);
    for (; i < bytes; i += 4) {
      const d = load<f32>(dy + i) * (gain ? load<f32>(gain + i) : 1);
      sum += d;
      along += (load<f32>(x + i) - mean) * rstd * d;
    }
    const average = f32x4.splat(p.layer ? sum / count : 0), slope = f32x4.splat(-along / count);
    i = 0;
    if (gain && also)
      for (; wide && i + 32 <= bytes; i += 32) {
        const low = ownGradient(unit(x + i, center, scale), f32x4.mul(v128.load(dy + i), v128.load(gain + i)), slope, average, scale);
        const high = ownGradient(unit(x + i + 16, center, scale), f32x4.mul(v128.load(dy + i, 16), v128.load(gain + i, 16)), slope, average, scale);
        storePair(dx + i, f32x4.add(low, v128.load(also + i)), f32x4.add(high, v128.load(also + i, 16)));
      }
    else if (gain)
      for (; wide && i + 32 <= bytes; i += 32) {
        const low = ownGradient(unit(x + i, center, scale), f32x4.mul(v128.load(dy + i), v128.load(gain + i)), slope, average, scale);
        storePair(dx + i, low, ownGradient(unit(x + i + 16, center, scale), f32x4.mul(v128.load(dy + i, 16), v128.load(gain + i, 16)), slope, average, scale));
      }
    for (; i + 16 <= bytes; i += 16) {
      const unit = f32x4.mul(f32x4.sub(v128.load(x + i), center), scale);
      const d = f32x4.mul(v128.load(dy + i), gain ? v128.load(gain + i) : one);
      const own = f32x4.mul(fma(unit, slope, f32x4.sub(d, average)), scale);
      v128.store(dx + i, also ? f32x4.add(own, v128.load(also + i)) : own);
    }
    for (; i < bytes; i += 4) {
      const unit = f32x4.mul(f32x4.sub(v128.load_splat<f32>(x + i), center), scale);
      const d = f32x4.mul(v128.load_splat<f32>(dy + i), gain ? v128.load_splat<f32>(gain + i) : one);
      const own = f32x4.mul(fma(unit, slope, f32x4.sub(d, average)), scale);
      v128.store_lane<f32>(dx + i, also ? f32x4.add(own, v128.load_splat<f32>(also + i)) : own, 0);
    }
  }
}

export function normJvp(p: NormJvpSlots, task: i32): void {
  const width = p.width, bytes = <usize>width << 2;
  const gain = p.gain, dgain = p.dgain, dbias = p.dbias;
  const first = task * p.rowsPerTask, last = min(p.rows, first + p.rowsPerTask);
  const count = <f32>width, one = f32x4.splat(1), zero = f32x4.splat(0);
  for (let r = first; r < last; r++) {
    const at = <usize>r * bytes, x = p.x + at, dx = p.dx + at, dy = p.dy + at;
    const stats = p.stats + (<usize>r << 3), mean = load<f32>(stats), rstd = load<f32>(stats, 4);
    const center = f32x4.splat(mean), scale = f32x4.splat(rstd);
    let s = zero, t = zero;
    let i: usize = 0;
    for (; i + 16 <= bytes; i += 16) {
      const unit = f32x4.mul(f32x4.sub(v128.load(x + i), center), scale), d = v128.load(dx + i);
      s = f32x4.add(s, d);
      t = fma(unit, d, t);
    }
    let sum = sumLanes(s), along = sumLanes(t);
    for (; i < bytes; i += 4) {
      const d = load<f32>(dx + i);
      sum += d;
      along += (load<f32>(x + i) - mean) * rstd * d;
    }
    const average = f32x4.splat(p.layer ? sum / count : 0), slope = f32x4.splat(-along / count);
    for (i = 0; i + 16 <= bytes; i += 16) {
      const unit = f32x4.mul(f32x4.sub(v128.load(x + i), center), scale);
      const d = f32x4.mul(fma(unit, slope, f32x4.sub(v128.load(dx + i), average)), scale);
      const own = fma(unit, dgain ? v128.load(dgain + i) : zero, dbias ? v128.load(dbias + i) : zero);
      v128.store(dy + i, fma(d, gain ? v128.load(gain + i) : one, own));
    }
    for (; i < bytes; i += 4) {
      const unit = f32x4.mul(f32x4.sub(v128.load_splat<f32>(x + i), center), scale);
      const d = f32x4.mul(fma(unit, slope, f32x4.sub(v128.load_splat<f32>(dx + i), average)), scale);
      const dg = dgain ? v128.load_splat<f32>(dgain + i) : zero, db = dbias ? v128.load_splat<f32>(dbias + i) : zero;
      v128.store_lane<f32>(dy + i, fma(d, gain ? v128.load_splat<f32>(gain + i) : one, fma(unit, dg, db)), 0);
    }
  }
}
