// Finds, for each row of x, the row of y with the largest score x·y + bias. Scores are screened in integers: both operands are rounded, to 7 bits if relaxed SIMD can
// multiply bytes, otherwise to 16 bits, since a core sums several times as many products of integers as of floats at once. The error of rounding is bounded (Cauchy and
// Schwarz). The few rows of y that could be the largest within these bounds are scored in floats, and the last of them in doubles. So the result is that of doubles for
// either screening, and only the largest score is written.
//
// Panels have 4 rows of x, [step][4][4 bytes], or 8 rows of y, [step][8][4 bytes]. A step is four bytes of a row, or two i16; the last one is padded. Bytes are in blocks of
// BLOCK steps. The sums of a block fit into 16 bits, since the norm of each block of a row is at most NORM (again Cauchy and Schwarz; intermediate sums may wrap around).
// Each block of y begins with the initial values of its sums.
import { NEAREST_KEPT, NEAREST_NARROW, NEAREST_STEPS as BLOCK, TILE_COLS as NR, TILE_ROWS as MR } from "../src/backends/cpu/blocks";
import { fma, scratch, sumLanes } from "./simd";
import { NearestPackSlots, NearestSlots } from "./slots";

const TILE: usize = MR * NR * 4;
// Bytes of the data of a panel's columns, 8 floats each: scale, bias, norm, norm of the rounding error; then three floats that bound the rounding error of the panel's
// scores: the coefficient of the norm of x, that of the rounding error of x, and a constant.
const COLUMNS: usize = 4 * 32 + 16;
const SCALE: usize = 0, BIAS: usize = 32, NORMS: usize = 64, CHANGES: usize = 96;
const BY_NORM: usize = 128, BY_CHANGE: usize = 132, ALWAYS: usize = 136;
// Bytes of the state of a row before its candidates: as floats the least score of a candidate, the scale, the norm, the rounding error; the number of candidates; the best
// row so far and its score (f64); the highest integer score so far. A candidate has an index and an upper bound.
const KEPT: usize = 40;
const ROW: usize = KEPT + NEAREST_KEPT * 8;
// A bound on the rounding error of single precision in an integer score, in units of its operands' norms.
const SLACK: f32 = 2e-6;
// Relaxed SIMD needs unsigned bytes of x, so this offset is added to them, and subtracted in the initial values of the sums.
const OFFSET: i32 = 64;
// Largest norm of a block: (NORM + the norm of a block's rounding error)² is below 2¹⁵.
const NORM: f32 = 176;

// @ts-ignore: decorator
@inline function isNarrow(width: i32): bool {
  return ASC_FEATURE_RELAXED_SIMD && width <= NEAREST_NARROW;
}
// @ts-ignore: decorator
@inline function stepsOf(width: i32): i32 {
  return isNarrow(width) ? (width + 3) >> 2 : (width + 1) >> 1;
}
// Bytes of a panel of y.
// @ts-ignore: decorator
@inline function panelBytes(width: i32): usize {
  const steps = stepsOf(width);
  return <usize>(isNarrow(width) ? steps + (steps + BLOCK - 1) / BLOCK : steps) << 5;
}
// Largest integer such that sums of `width` products fit into 32 bits.
function mostOf(width: i32): f32 {
  return <f32>min(32767, <i32>Math.sqrt(2147483647 / <f64>max(2, width + 1)));
}

// tile[4][8] = Σ a[step][4]·b[step][8] for i16.
function microWide(a: usize, b: usize, steps: i32, tile: usize): void {
  let c00 = i32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  while (steps > 0) {
    const b0 = v128.load(b, 0), b1 = v128.load(b, 16);
    let x = v128.load_splat<u32>(a, 0); c00 = wide(x, b0, c00); c01 = wide(x, b1, c01);
    x = v128.load_splat<u32>(a, 4); c10 = wide(x, b0, c10); c11 = wide(x, b1, c11);
    x = v128.load_splat<u32>(a, 8); c20 = wide(x, b0, c20); c21 = wide(x, b1, c21);
    x = v128.load_splat<u32>(a, 12); c30 = wide(x, b0, c30); c31 = wide(x, b1, c31);
    a += 16; b += 32; steps--;
  }
  v128.store(tile, c00, 0); v128.store(tile, c01, 16); v128.store(tile, c10, 32); v128.store(tile, c11, 48);
  v128.store(tile, c20, 64); v128.store(tile, c21, 80); v128.store(tile, c30, 96); v128.store(tile, c31, 112);
}
// @ts-ignore: decorator
@inline function wide(x: v128, y: v128, sums: v128): v128 {
  return i32x4.add(sums, i32x4.dot_i16x8_s(x, y));
}

// Like microWide for bytes: a block of steps is summed in 16 bits, then widened and added to the tile.
function microNarrow(a: usize, b: usize, steps: i32, tile: usize): void {
  memory.fill(tile, 0, TILE);
  while (steps > 0) {
    let c00 = v128.load(b), c01 = v128.load(b, 16), c10 = c00, c11 = c01, c20 = c00, c21 = c01, c30 = c00, c31 = c01;
    b += 32;
    let left = min(steps, BLOCK);
    steps -= left;
    while (left > 0) {
      const b0 = v128.load(b, 0), b1 = v128.load(b, 16);
      let x = v128.load_splat<u32>(a, 0); c00 = narrow(x, b0, c00); c01 = narrow(x, b1, c01);
      x = v128.load_splat<u32>(a, 4); c10 = narrow(x, b0, c10); c11 = narrow(x, b1, c11);
      x = v128.load_splat<u32>(a, 8); c20 = narrow(x, b0, c20); c21 = narrow(x, b1, c21);
      x = v128.load_splat<u32>(a, 12); c30 = narrow(x, b0, c30); c31 = narrow(x, b1, c31);
      a += 16; b += 32; left--;
    }
    widen(tile, c00); widen(tile + 16, c01); widen(tile + 32, c10); widen(tile + 48, c11);
    widen(tile + 64, c20); widen(tile + 80, c21); widen(tile + 96, c30); widen(tile + 112, c31);
  }
}
// @ts-ignore: decorator
@inline function narrow(x: v128, y: v128, sums: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.add(sums, i16x8.relaxed_dot_i8x16_i7x16_s(y, x));
  return sums;
}
// @ts-ignore: decorator
@inline function widen(to: usize, sums: v128): void {
  v128.store(to, i32x4.add(v128.load(to), i32x4.extadd_pairwise_i16x8_s(sums)));
}

// The largest magnitude of `count` floats; NaN if one of them is NaN.
function largest(from: usize, count: i32): f32 {
  let most = f32x4.splat(0);
  let i = 0;
  for (; i + 4 <= count; i += 4) most = f32x4.max(most, f32x4.abs(v128.load(from + (<usize>i << 2))));
  let all = max(
    max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
    max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
  );
  for (; i < count; i++) all = max(all, abs(load<f32>(from + (<usize>i << 2))));
  return all;
}

// x·y in floats, with an error of at most (count / 8 + 8)·2⁻²³ times the norms.
function dot32(x: usize, y: usize, count: i32): f32 {
  let s = f32x4.splat(0), t = s;
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    s = fma(v128.load(x), v128.load(y), s);
    t = fma(v128.load(x, 16), v128.load(y, 16), t);
    x += 32;
    y += 32;
  }
  let sum = sumLanes(f32x4.add(s, t));
  for (; i < count; i++) {
    sum += load<f32>(x) * load<f32>(y);
    x += 4;
    y += 4;
  }
  return sum;
}

// x·y in doubles.
function dot(x: usize, y: usize, count: i32): f64 {
  let s = f64x2.splat(0), t = s;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const u = v128.load(x + (<usize>i << 2)), v = v128.load(y + (<usize>i << 2));
    s = f64x2.add(s, f64x2.mul(f64x2.promote_low_f32x4(u), f64x2.promote_low_f32x4(v)));
    t = f64x2.add(
      t,
      f64x2.mul(
        f64x2.promote_low_f32x4(i64x2.shuffle(u, u, 1, 1)),
        f64x2.promote_low_f32x4(i64x2.shuffle(v, v, 1, 1)),
      ),
    );
  }
  s = f64x2.add(s, t);
  let sum = f64x2.extract_lane(s, 0) + f64x2.extract_lane(s, 1);
  for (; i < count; i++) sum += <f64>load<f32>(x + (<usize>i << 2)) * <f64>load<f32>(y + (<usize>i << 2));
  return sum;
}

// Second results of `round`: the scale of the row, and the norm of its rounding error.
let scaleOf: f32 = 0, changeOf: f32 = 0;

// The scale of a row of bytes, such that no byte is above 63 and no block's norm is above NORM.
function narrowScale(x: usize, width: i32, size: f32): f32 {
  let longest: f64 = 0;
  for (let i = 0; i < width; i += BLOCK * 4) {
    const from = x + (<usize>i << 2);
    longest = max(longest, dot(from, from, min(BLOCK * 4, width - i)));
  }
  return max(size / 63, <f32>(Math.sqrt(longest) * 1.000001) / NORM);
}

// Rounds a row to integers and writes one step every `step` bytes. With `isX` the bytes are unsigned; otherwise the initial values of the sums are written too.
function round(from: usize, width: i32, bytes: bool, isX: bool, to: usize, step: usize): void {
  const size = largest(from, width);
  // A row of smaller numbers is rounded to 0, because the reciprocal of its magnitude is not finite.
  const fits = size > 1e-30 && size < 1e18;
  scaleOf = !fits ? 0 : bytes ? narrowScale(from, width, size) : size / mostOf(width);
  const factor = f32x4.splat(fits ? 1 / scaleOf : 0), scale = f32x4.splat(scaleOf), shift = i32x4.splat(bytes && isX ? OFFSET : 0);
  let squares = f32x4.splat(0), sums = i32x4.splat(0), start = to;
  for (let i = 0, at = 0; i < width; i += 4, at++) {
    if (bytes && !isX && at % BLOCK == 0) {
      start = to;
      to += step;
      sums = i32x4.splat(0);
    }
    let v = f32x4.splat(0);
    if (i + 4 <= width) v = v128.load(from);
    else {
      v = v128.load32_zero(from);
      if (i + 1 < width) v = v128.load32_lane(from, v, 1, 4);
      if (i + 2 < width) v = v128.load32_lane(from, v, 2, 8);
    }
    const whole = f32x4.nearest(f32x4.mul(v, factor)), q = i32x4.trunc_sat_f32x4_s(whole);
    const change = f32x4.sub(v, f32x4.mul(whole, scale));
    squares = fma(change, change, squares);
    const shifted = i32x4.add(q, shift), halves = i16x8.narrow_i32x4_s(shifted, shifted);
    if (bytes) {
      v128.store32_lane(to, i8x16.narrow_i16x8_s(halves, halves), 0);
      if (!isX) {
        sums = i32x4.add(sums, q);
        store<i16>(start, <i16>(-OFFSET * (i32x4.extract_lane(sums, 0) + i32x4.extract_lane(sums, 1))));
        store<i16>(start, <i16>(-OFFSET * (i32x4.extract_lane(sums, 2) + i32x4.extract_lane(sums, 3))), 2);
      }
    } else {
      v128.store32_lane(to, halves, 0);
      if (i + 2 < width) {
        to += step;
        v128.store32_lane(to, halves, 1);
      }
    }
    from += 16;
    to += step;
  }
  changeOf = <f32>(Math.sqrt(<f64>sumLanes(squares)) * 1.0001 + 1e-30 * <f64>width);
}

// An upper bound on the norm, which allows for its own rounding.
// @ts-ignore: decorator
@inline function normOf(x: usize, width: i32): f32 {
  return <f32>(Math.sqrt(dot(x, x, width)) * 1.000001);
}

// A task packs some panels of y.
export function nearestPack(p: NearestPackSlots, task: i32): void {
  const count = p.count, width = p.width, bytes = isNarrow(width), size = panelBytes(width);
  const first = task * p.panelsPerTask, last = min((count + NR - 1) / NR, first + p.panelsPerTask);
  for (let panel = first; panel < last; panel++) {
    const to = p.panels + <usize>panel * size, facts = p.columns + <usize>panel * COLUMNS;
    let mostNorm: f32 = 0, mostChange: f32 = 0, mostBias: f32 = 0;
    for (let c = 0; c < NR; c++) {
      const j = panel * NR + c, own = facts + (<usize>c << 2), at = to + (<usize>c << 2);
      if (j >= count) {
        for (let o: usize = 0; o < size; o += 32) store<i32>(at + o, 0);
        store<f32>(own, 0, SCALE);
        store<f32>(own, -Infinity, BIAS);
        continue;
      }
      const y = p.y + ((<usize>j * <usize>width) << 2);
      round(y, width, bytes, false, at, 32);
      const norm = normOf(y, width), bias = p.bias == 0 ? <f32>0 : load<f32>(p.bias + (<usize>j << 2));
      store<f32>(own, scaleOf, SCALE);
      store<f32>(own, bias, BIAS);
      store<f32>(own, norm, NORMS);
      store<f32>(own, changeOf, CHANGES);
      mostNorm = max(mostNorm, norm);
      mostChange = max(mostChange, changeOf);
      mostBias = max(mostBias, abs(bias));
      // If bounds would not be finite, no bounds are used.
      if (!(norm < <f32>1e18 && abs(bias) < <f32>1e36)) store<i32>(p.unbounded, 1);
    }
    store<f32>(facts, mostChange + SLACK * mostNorm, BY_NORM);
    store<f32>(facts, mostNorm + mostChange, BY_CHANGE);
    store<f32>(facts, SLACK * mostBias, ALWAYS);
  }
}

// The score of a row of x with row j of y, in doubles.
// @ts-ignore: decorator
@inline function scoreOf(p: NearestSlots, x: usize, j: i32): f64 {
  const width = p.width;
  const bias = p.bias == 0 ? <f64>0 : <f64>load<f32>(p.bias + (<usize>j << 2));
  return dot(x, p.y + ((<usize>j * <usize>width) << 2), width) + bias;
}

// Removes the candidates whose upper bound is below the least score.
function pruneCandidates(row: usize): void {
  let kept = 0;
  for (let i = 0, count = load<i32>(row, 16); i < count; i++) {
    const candidate = load<u64>(row + KEPT + (<usize>i << 3));
    if (reinterpret<f32>(<u32>(candidate >> 32)) < load<f32>(row)) continue;
    store<u64>(row + KEPT + (<usize>kept << 3), candidate);
    kept++;
  }
  store<i32>(row, kept, 16);
}

// Raises the least score to the lower bound of a score with error `around`.
// @ts-ignore: decorator
@inline function raiseLeast(row: usize, score: f32, around: f32): void {
  const least = score - around - SLACK * abs(score);
  if (least > load<f32>(row)) store<f32>(row, least);
}

// Scores a candidate in floats.
function rescore(p: NearestSlots, x: usize, row: usize, candidate: usize): void {
  const width = p.width, j = load<i32>(candidate);
  const own = p.columns + <usize>(j / NR) * COLUMNS + (<usize>(j % NR) << 2), bias = load<f32>(own, BIAS);
  const score = dot32(x, p.y + ((<usize>j * <usize>width) << 2), width) + bias;
  const off = (<f32>(width / 8) + 8) * <f32>1.2e-7 * load<f32>(row, 8) * load<f32>(own, NORMS);
  const around = off + SLACK * (abs(score) + abs(bias));
  store<f32>(candidate, score + around, 4);
  raiseLeast(row, score, around);
}

// Removes candidates by their scores in floats.
function refine(p: NearestSlots, x: usize, row: usize): void {
  pruneCandidates(row);
  const count = load<i32>(row, 16);
  if (count < 2) return;
  for (let i = 0; i < count; i++) rescore(p, x, row, row + KEPT + (<usize>i << 3));
  pruneCandidates(row);
}

// Scores the candidates in doubles and stores the best in the state of the row.
function scoreInDoubles(p: NearestSlots, x: usize, row: usize): void {
  refine(p, x, row);
  let best = load<f64>(row, 24), index = load<i32>(row, 20);
  for (let i = 0, count = load<i32>(row, 16); i < count; i++) {
    const j = load<i32>(row + KEPT + (<usize>i << 3)), score = scoreOf(p, x, j);
    if (index < 0 || score > best) {
      best = score;
      index = j;
    }
  }
  store<i32>(row, 0, 16);
  store<i32>(row, index, 20);
  store<f64>(row, best, 24);
}

// Adds the columns of a panel that could have the largest score of a row to its candidates.
function addCandidates(p: NearestSlots, x: usize, row: usize, panel: i32, facts: usize, scores: usize): void {
  const norm = load<f32>(row, 8), change = load<f32>(row, 12);
  for (let c = 0; c < NR; c++) {
    const own = facts + (<usize>c << 2), score = load<f32>(scores + (<usize>c << 2));
    const around = norm * (load<f32>(own, CHANGES) + SLACK * load<f32>(own, NORMS)) + change * (load<f32>(own, NORMS) + load<f32>(own, CHANGES)) + SLACK * abs(load<f32>(own, BIAS));
    const upper = score + around + SLACK * abs(score);
    if (panel * NR + c >= p.count || upper < load<f32>(row)) continue;
    if (load<i32>(row, 16) == NEAREST_KEPT) {
      refine(p, x, row);
      if (load<i32>(row, 16) > NEAREST_KEPT / 2) scoreInDoubles(p, x, row);
    }
    const kept = load<i32>(row, 16), candidate = row + KEPT + (<usize>kept << 3);
    store<i32>(candidate, panel * NR + c);
    store<f32>(candidate, upper, 4);
    store<i32>(row, kept + 1, 16);
    // The highest integer score so far is computed in floats at once, since it raises the least score of later candidates.
    if (score > load<f32>(row, 32)) {
      store<f32>(row, score, 32);
      rescore(p, x, row, candidate);
    }
  }
}

// Finds the largest score of all rows of y in doubles, for rows without bounds. NaN is larger than all numbers.
function plain(p: NearestSlots, x: usize, row: usize): void {
  let best = scoreOf(p, x, 0), index = 0;
  for (let j = 1, count = p.count; j < count; j++) {
    if (best != best) break;
    const score = scoreOf(p, x, j);
    if (score > best || score != score) {
      best = score;
      index = j;
    }
  }
  store<i32>(row, index, 20);
  store<f64>(row, best, 24);
}

// A task processes some rows of x. Scratch: a tile, the panels of x, the states of the rows.
export function nearest(p: NearestSlots, task: i32): void {
  const width = p.width, count = p.count, narrow = isNarrow(width), steps = stepsOf(width);
  const first = task * p.rowsPerTask, rows = min(p.rows - first, p.rowsPerTask);
  const bytes = <usize>width << 2, x = p.x + <usize>first * bytes;
  const tile = scratch(p), packed = tile + TILE;
  const blocks = (rows + MR - 1) / MR, states = packed + <usize>blocks * <usize>steps * 16;
  const bounded = load<i32>(p.unbounded) == 0;
  let any = false;
  for (let r = 0; r < blocks * MR; r++) {
    const row = states + <usize>r * ROW, to = packed + <usize>(r / MR) * <usize>steps * 16 + (<usize>(r % MR) << 2);
    store<i32>(row, 0, 16);
    store<i32>(row, -1, 20);
    const from = x + <usize>r * bytes, norm = bounded && r < rows ? normOf(from, width) : <f32>Infinity;
    if (norm < <f32>1e18) {
      round(from, width, narrow, true, to, 16);
      store<f32>(row, -f32.MAX_VALUE);
      store<f32>(row, scaleOf, 4);
      store<f32>(row, norm, 8);
      store<f32>(row, changeOf, 12);
      store<f32>(row, -Infinity, 32);
      any = true;
    } else {
      // Rows without bounds, and the padding of the last panel, have no candidates.
      for (let i = 0; i < steps; i++) store<i32>(to + (<usize>i << 4), 0);
      store<f32>(row, Infinity);
      store<f32>(row, 0, 4);
      store<f32>(row, 0, 8);
      store<f32>(row, 0, 12);
    }
  }
  if (any)
    for (let panel = 0, panels = (count + NR - 1) / NR, size = panelBytes(width); panel < panels; panel++) {
      const facts = p.columns + <usize>panel * COLUMNS, b = p.panels + <usize>panel * size;
      const scale0 = v128.load(facts, SCALE), scale1 = v128.load(facts, SCALE + 16), bias0 = v128.load(facts, BIAS), bias1 = v128.load(facts, BIAS + 16);
      const byNorm = load<f32>(facts, BY_NORM), byChange = load<f32>(facts, BY_CHANGE), always = load<f32>(facts, ALWAYS);
      for (let block = 0; block < blocks; block++) {
        const a = packed + <usize>block * <usize>steps * 16;
        if (narrow) microNarrow(a, b, steps, tile);
        else microWide(a, b, steps, tile);
        for (let r = 0; r < MR; r++) {
          const row = states + <usize>(block * MR + r) * ROW, sums = tile + (<usize>r << 5);
          const scale = v128.load_splat<f32>(row, 4), least = load<f32>(row);
          const v0 = fma(f32x4.mul(f32x4.convert_i32x4_s(v128.load(sums)), scale), scale0, bias0);
          const v1 = fma(f32x4.mul(f32x4.convert_i32x4_s(v128.load(sums, 16)), scale), scale1, bias1);
          const limit = f32x4.splat(least - abs(least) * SLACK - (load<f32>(row, 8) * byNorm + load<f32>(row, 12) * byChange + always));
          if (v128.any_true(v128.or(f32x4.ge(v0, limit), f32x4.ge(v1, limit)))) {
            v128.store(sums, v0);
            v128.store(sums, v1, 16);
            addCandidates(p, x + <usize>(block * MR + r) * bytes, row, panel, facts, sums);
          }
        }
      }
    }
  for (let r = 0; r < rows; r++) {
    const row = states + <usize>r * ROW, from = x + <usize>r * bytes;
    if (load<f32>(row) == <f32>Infinity) plain(p, from, row);
    else scoreInDoubles(p, from, row);
    store<i32>(p.ids + (<usize>(first + r) << 2), load<i32>(row, 20));
    store<f32>(p.scores + (<usize>(first + r) << 2), <f32>load<f64>(row, 24));
  }
}
