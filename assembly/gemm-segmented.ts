// The segmented weight gradient: W_s = Σ a_r b_rᵀ over the rows of each segment, of which only the product with V, the square and the total are kept.
//
// A task computes a block of W for one segment after the other, tile by tile. A tile has 6 rows and 16 columns, and its elements are contiguous. The columns of a and of
// b are read in place if they are whole tiles and not at a large power of two from row to row; otherwise a chunk of their rows is copied to scratch first.
//
// `product` writes a tile and `meet` uses it. With wide vectors, `wideStatistics` does both, and the tile stays in registers. Both ways add in the same order, so they
// give the same bits.
import { SEGMENTED_CHUNK as CHUNK, SEGMENTED_NEAR as NEAR, SEGMENTED_TILE_COLS as COLS, SEGMENTED_TILE_ROWS as ROWS } from "../src/backends/cpu/blocks";
import { micro6, wide6 } from "./gemm";
import { copyPair, fma, scratch, storePair, sumDoubles, twoDoubles, wide } from "./simd";
import { SegmentedBlockSlots, SegmentedReduceSlots } from "./slots";

/** Bytes of a row of a tile, and of a tile. */
const ROW: usize = COLS * 4;
const TILE: usize = <usize>ROWS * ROW;

// Uses a tile: its squares are added to sums[0], its products with a tile of V to sums[1], and its elements to a tile of the total. Both sums have eight lanes.
function meet(tile: usize, v: usize, total: usize, sums: usize): void {
  const zero = f32x4.splat(0);
  let s0 = zero, s1 = zero, s2 = zero, s3 = zero, d0 = zero, d1 = zero, d2 = zero, d3 = zero;
  for (const end = tile + TILE; tile < end; tile += ROW) {
    const x0 = v128.load(tile), x1 = v128.load(tile, 16), x2 = v128.load(tile, 32), x3 = v128.load(tile, 48);
    s0 = fma(x0, x0, s0); s1 = fma(x1, x1, s1); s2 = fma(x2, x2, s2); s3 = fma(x3, x3, s3);
    d0 = fma(x0, v128.load(v), d0); d1 = fma(x1, v128.load(v, 16), d1); d2 = fma(x2, v128.load(v, 32), d2); d3 = fma(x3, v128.load(v, 48), d3);
    addPair(total, x0, x1); addPair(total + 32, x2, x3);
    v += ROW; total += ROW;
  }
  storePair(sums, f32x4.add(s0, s2), f32x4.add(s1, s3));
  storePair(sums + 32, f32x4.add(d0, d2), f32x4.add(d1, d3));
}

// @ts-ignore: decorator
@inline function addPair(to: usize, low: v128, high: v128): void {
  storePair(to, f32x4.add(v128.load(to), low), f32x4.add(v128.load(to, 16), high));
}

// Without fused multiply-add a product needs a register, and twelve accumulators leave none: three rows of eight columns of a tile.
function plainTile(a: usize, stepA: usize, b: usize, stepB: usize, k: i32, to: usize): void {
  let c00 = f32x4.splat(0), c01 = f32x4.splat(0), c10 = f32x4.splat(0), c11 = f32x4.splat(0), c20 = f32x4.splat(0), c21 = f32x4.splat(0);
  while (k > 0) {
    const b0 = v128.load(b, 0), b1 = v128.load(b, 16);
    let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(a, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(a, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    a += stepA; b += stepB; k--;
  }
  v128.store(to, c00); v128.store(to, c01, 16);
  v128.store(to, c10, 64); v128.store(to, c11, 80);
  v128.store(to, c20, 128); v128.store(to, c21, 144);
}

// Writes a tile Σ_k a[k][6] ⊗ b[k][16].
function product(a: usize, stepA: usize, b: usize, stepB: usize, k: i32, zeros: usize, tile: usize): void {
  if (wide) {
    wide6(a, stepA, b, stepB, 32, k, zeros, tile, ROW);
    return;
  }
  for (let half: usize = 0; half < ROW; half += 32) {
    if (ASC_FEATURE_RELAXED_SIMD) micro6(a, stepA, b + half, stepB, k, k, zeros, tile + half, ROW);
    else {
      plainTile(a, stepA, b + half, stepB, k, tile + half);
      plainTile(a + 12, stepA, b + half, stepB, k, tile + half + 3 * ROW);
    }
  }
}

// @ts-ignore: decorator
@inline function lanes(sums: usize): v128 {
  return twoDoubles(f32x4.add(v128.load(sums), v128.load(sums, 16)));
}

function addTile(to: usize, tile: usize): void {
  for (let o: usize = 0; o < TILE; o += 32) addPair(to + o, v128.load(tile + o), v128.load(tile + o, 16));
}

// Multiplies and uses a tile (`product`, `meet`) while it is in registers. Only for wide vectors. V8 must join all that is done with the sums, or it takes them apart in
// every step of the loop: stores next to each other have constant offsets from one address, and both loads of a pair come before its stores.
function wideStatistics(a: usize, stepA: usize, b: usize, stepB: usize, k: i32, zeros: usize, v: usize, total: usize, sums: usize): void {
  const i0 = v128.load(zeros), i1 = v128.load(zeros, 16), i2 = v128.load(zeros, 32), i3 = v128.load(zeros, 48);
  let c00 = i0, c01 = i1, c02 = i2, c03 = i3;
  let c10 = i0, c11 = i1, c12 = i2, c13 = i3;
  let c20 = i0, c21 = i1, c22 = i2, c23 = i3;
  let c30 = i0, c31 = i1, c32 = i2, c33 = i3;
  let c40 = i0, c41 = i1, c42 = i2, c43 = i3;
  let c50 = i0, c51 = i1, c52 = i2, c53 = i3;
  while (k > 0) {
    const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(b, 32), b3 = v128.load(b, 48);
    let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01); c02 = fma(x, b2, c02); c03 = fma(x, b3, c03);
    x = v128.load_splat<f32>(a, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11); c12 = fma(x, b2, c12); c13 = fma(x, b3, c13);
    x = v128.load_splat<f32>(a, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21); c22 = fma(x, b2, c22); c23 = fma(x, b3, c23);
    x = v128.load_splat<f32>(a, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31); c32 = fma(x, b2, c32); c33 = fma(x, b3, c33);
    x = v128.load_splat<f32>(a, 16); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41); c42 = fma(x, b2, c42); c43 = fma(x, b3, c43);
    x = v128.load_splat<f32>(a, 20); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51); c52 = fma(x, b2, c52); c53 = fma(x, b3, c53);
    a += stepA; b += stepB; k--;
  }
  let d0 = f32x4.mul(c00, v128.load(v)); let d1 = f32x4.mul(c01, v128.load(v, 16));
  d0 = fma(c10, v128.load(v, 64), d0); d1 = fma(c11, v128.load(v, 80), d1);
  d0 = fma(c20, v128.load(v, 128), d0); d1 = fma(c21, v128.load(v, 144), d1);
  d0 = fma(c30, v128.load(v, 192), d0); d1 = fma(c31, v128.load(v, 208), d1);
  d0 = fma(c40, v128.load(v, 256), d0); d1 = fma(c41, v128.load(v, 272), d1);
  d0 = fma(c50, v128.load(v, 320), d0); d1 = fma(c51, v128.load(v, 336), d1);
  let d2 = f32x4.mul(c02, v128.load(v, 32)); let d3 = f32x4.mul(c03, v128.load(v, 48));
  d2 = fma(c12, v128.load(v, 96), d2); d3 = fma(c13, v128.load(v, 112), d3);
  d2 = fma(c22, v128.load(v, 160), d2); d3 = fma(c23, v128.load(v, 176), d3);
  d2 = fma(c32, v128.load(v, 224), d2); d3 = fma(c33, v128.load(v, 240), d3);
  d2 = fma(c42, v128.load(v, 288), d2); d3 = fma(c43, v128.load(v, 304), d3);
  d2 = fma(c52, v128.load(v, 352), d2); d3 = fma(c53, v128.load(v, 368), d3);
  v128.store(sums, f32x4.add(d0, d2), 32); v128.store(sums, f32x4.add(d1, d3), 48);
  let s0 = f32x4.mul(c00, c00); let s1 = f32x4.mul(c01, c01);
  s0 = fma(c10, c10, s0); s1 = fma(c11, c11, s1);
  s0 = fma(c20, c20, s0); s1 = fma(c21, c21, s1);
  s0 = fma(c30, c30, s0); s1 = fma(c31, c31, s1);
  s0 = fma(c40, c40, s0); s1 = fma(c41, c41, s1);
  s0 = fma(c50, c50, s0); s1 = fma(c51, c51, s1);
  let s2 = f32x4.mul(c02, c02); let s3 = f32x4.mul(c03, c03);
  s2 = fma(c12, c12, s2); s3 = fma(c13, c13, s3);
  s2 = fma(c22, c22, s2); s3 = fma(c23, c23, s3);
  s2 = fma(c32, c32, s2); s3 = fma(c33, c33, s3);
  s2 = fma(c42, c42, s2); s3 = fma(c43, c43, s3);
  s2 = fma(c52, c52, s2); s3 = fma(c53, c53, s3);
  v128.store(sums, f32x4.add(s0, s2)); v128.store(sums, f32x4.add(s1, s3), 16);
  let low = f32x4.add(v128.load(total), c00), high = f32x4.add(v128.load(total, 16), c01); v128.store(total, low); v128.store(total, high, 16);
  low = f32x4.add(v128.load(total, 32), c02); high = f32x4.add(v128.load(total, 48), c03); v128.store(total, low, 32); v128.store(total, high, 48);
  low = f32x4.add(v128.load(total, 64), c10); high = f32x4.add(v128.load(total, 80), c11); v128.store(total, low, 64); v128.store(total, high, 80);
  low = f32x4.add(v128.load(total, 96), c12); high = f32x4.add(v128.load(total, 112), c13); v128.store(total, low, 96); v128.store(total, high, 112);
  low = f32x4.add(v128.load(total, 128), c20); high = f32x4.add(v128.load(total, 144), c21); v128.store(total, low, 128); v128.store(total, high, 144);
  low = f32x4.add(v128.load(total, 160), c22); high = f32x4.add(v128.load(total, 176), c23); v128.store(total, low, 160); v128.store(total, high, 176);
  low = f32x4.add(v128.load(total, 192), c30); high = f32x4.add(v128.load(total, 208), c31); v128.store(total, low, 192); v128.store(total, high, 208);
  low = f32x4.add(v128.load(total, 224), c32); high = f32x4.add(v128.load(total, 240), c33); v128.store(total, low, 224); v128.store(total, high, 240);
  low = f32x4.add(v128.load(total, 256), c40); high = f32x4.add(v128.load(total, 272), c41); v128.store(total, low, 256); v128.store(total, high, 272);
  low = f32x4.add(v128.load(total, 288), c42); high = f32x4.add(v128.load(total, 304), c43); v128.store(total, low, 288); v128.store(total, high, 304);
  low = f32x4.add(v128.load(total, 320), c50); high = f32x4.add(v128.load(total, 336), c51); v128.store(total, low, 320); v128.store(total, high, 336);
  low = f32x4.add(v128.load(total, 352), c52); high = f32x4.add(v128.load(total, 368), c53); v128.store(total, low, 352); v128.store(total, high, 368);
}

// Whether `width` columns of k rows that are `ld` bytes apart are read in place. Rows at a distance of a large power of two fall into few sets of the first-level cache;
// at most eight rows may fall into one set.
// @ts-ignore: decorator
@inline function inPlace(width: i32, tile: i32, ld: usize, k: i32): bool {
  return width % tile == 0 && <usize>k * (ld & (0 - ld)) <= <usize>NEAR;
}

// Copies columns of k rows, with zeros up to `step` bytes per row.
function copyColumns(from: usize, ld: usize, width: i32, k: i32, to: usize, step: usize): void {
  const whole = <usize>(width & ~7) << 2, end = <usize>width << 2;
  for (; k > 0; k--) {
    let o: usize = 0;
    for (; o < whole; o += 32) copyPair(to + o, from + o);
    for (; o < end; o += 4) store<f32>(to + o, load<f32>(from + o));
    for (; o < step; o += 4) store<f32>(to + o, 0);
    from += ld; to += step;
  }
}

// A task computes a block of the segmented weight gradient. partials (f64): for each task S dots, S squares of segments, G squares of groups, 1 square of V.
// Scratch: a tile, the copies of a and b, and the blocks of V, of the total, of the group and of the gradient of a segment of several chunks, tile by tile.
export function segmentedBlock(p: SegmentedBlockSlots, task: i32): void {
  const a = p.a, b = p.b, segments = p.segments, groups = p.groups, v = p.v, total = p.total;
  const m = p.m, n = p.n, segmentCount = p.segmentCount, groupCount = p.groupCount;
  const targets = v != 0 ? 0 : p.targetSegments, from = p.firstAccumulated, accumulate = p.accumulate != 0;
  const blockRows = p.rowsPerTask, blockCols = p.columnsPerTask, columnBlocks = p.columnBlocks;
  const row0 = (task / columnBlocks) * blockRows, col0 = (task % columnBlocks) * blockCols;
  const height = min(blockRows, m - row0), width = min(blockCols, n - col0);
  const tilesA = (height + ROWS - 1) / ROWS, tilesB = (width + COLS - 1) / COLS;
  const stats = p.partials + ((<usize>task * <usize>(2 * segmentCount + groupCount + 1)) << 3);
  const dots = stats, squares = dots + (<usize>segmentCount << 3);
  const groupSquares = squares + (<usize>segmentCount << 3), vSquare = groupSquares + (<usize>groupCount << 3);
  const ldA = <usize>m << 2, ldB = <usize>n << 2;
  const ownA = <usize>tilesA * ROWS << 2, ownB = <usize>tilesB * ROW;
  const used = <usize>(tilesA * tilesB) * TILE;
  const zeros = scratch(p), tile = zeros + 64, sums = tile + TILE, none = sums + 64, copyA = none + TILE, copyB = copyA + <usize>CHUNK * ownA;
  const blockV = copyB + <usize>CHUNK * ownB, blockT = blockV + used, blockG = blockT + used, blockW = blockG + used;
  memory.fill(zeros, 0, ROW);
  memory.fill(stats, 0, (2 * segmentCount + groupCount + 1) << 3);

  const hasV = v != 0 || targets > 0;
  const corner = ((<usize>row0 * <usize>n + <usize>col0) << 2);
  if (v != 0) copyBlock(blockV, v + corner, ldB, height, width, true);
  else memory.fill(blockV, 0, used);
  if (total != 0) {
    if (accumulate) copyBlock(blockT, total + corner, ldB, height, width, true);
    else memory.fill(blockT, 0, used);
  }
  if (v != 0) store<f64>(vSquare, squareBlock(blockV, used, sums, none));

  let group = 0;
  while (group < groupCount && emptyGroup(groups, group)) group++;
  let inGroup = false;
  for (let s = 0; s < segmentCount; s++) {
    if (s == targets && targets > 0) store<f64>(vSquare, squareBlock(blockV, used, sums, none));
    if (group < groupCount && s == load<i32>(groups + (<usize>group << 2))) {
      memory.fill(blockG, 0, used);
      inGroup = true;
    }
    const start = load<i32>(segments + (<usize>s << 2)), end = load<i32>(segments + (<usize>s << 2), 4);
    const isTarget = s < targets, isTotal = total != 0 && s >= from, isDot = hasV && !isTarget;
    const single = end - start <= CHUNK, alone = wide && single && !isTarget && !inGroup;
    let dot = f64x2.splat(0), square = f64x2.splat(0);
    for (let first = start; first < end; first += CHUNK) {
      const k = min(CHUNK, end - first), last = first + k == end;
      let panelsA = a + <usize>first * ldA + (<usize>row0 << 2), stepA = ldA;
      let panelsB = b + <usize>first * ldB + (<usize>col0 << 2), stepB = ldB;
      if (!inPlace(height, ROWS, ldA, k)) {
        copyColumns(panelsA, ldA, height, k, copyA, ownA);
        panelsA = copyA; stepA = ownA;
      }
      if (!inPlace(width, COLS, ldB, k)) {
        copyColumns(panelsB, ldB, width, k, copyB, ownB);
        panelsB = copyB; stepB = ownB;
      }
      let at: usize = 0;
      for (let j = 0; j < tilesB; j++) {
        let panelA = panelsA;
        for (let i = 0; i < tilesA; i++) {
          const tileV = isDot ? blockV + at : none, tileT = isTotal ? blockT + at : none;
          if (alone) wideStatistics(panelA, stepA, panelsB, stepB, k, zeros, tileV, tileT, sums);
          else {
            let w = tile;
            if (!single && first == start) w = blockW + at;
            product(panelA, stepA, panelsB, stepB, k, zeros, w);
            if (!single && first > start) {
              addTile(blockW + at, tile);
              w = blockW + at;
            }
            if (last) {
              meet(w, tileV, tileT, sums);
              if (isTarget) addTile(blockV + at, w);
              if (inGroup) addTile(blockG + at, w);
            }
          }
          if (last) {
            square = f64x2.add(square, lanes(sums));
            if (isDot) dot = f64x2.add(dot, lanes(sums + 32));
          }
          panelA += 4 * ROWS; at += TILE;
        }
        panelsB += ROW;
      }
    }
    store<f64>(dots + (<usize>s << 3), sumDoubles(dot));
    store<f64>(squares + (<usize>s << 3), sumDoubles(square));
    if (inGroup && s + 1 == load<i32>(groups + (<usize>group << 2), 4)) {
      store<f64>(groupSquares + (<usize>group << 3), squareBlock(blockG, used, sums, none));
      inGroup = false;
      group++;
      while (group < groupCount && emptyGroup(groups, group)) group++;
    }
  }
  if (targets > 0 && targets >= segmentCount) store<f64>(vSquare, squareBlock(blockV, used, sums, none));
  if (total != 0) copyBlock(blockT, total + corner, ldB, height, width, false);
}

function emptyGroup(groups: usize, group: i32): bool {
  return load<i32>(groups + (<usize>group << 2)) == load<i32>(groups + (<usize>group << 2), 4);
}

function squareBlock(block: usize, bytes: usize, sums: usize, none: usize): f64 {
  let sum = f64x2.splat(0);
  for (let o: usize = 0; o < bytes; o += TILE) {
    meet(block + o, none, none, sums);
    sum = f64x2.add(sum, lanes(sums));
  }
  return sumDoubles(sum);
}

// Copies between a block of a row-major matrix and a block of tiles. Elements of the tiles outside the matrix are zero.
function copyBlock(block: usize, matrix: usize, ld: usize, height: i32, width: i32, toBlock: bool): void {
  for (let col = 0; col < width; col += COLS) {
    const cols = min(COLS, width - col);
    for (let row = 0; row < height; row += ROWS) {
      let element = matrix + <usize>row * ld + (<usize>col << 2);
      const rows = min(ROWS, height - row);
      for (let r = 0; r < rows; r++) {
        const at = block + <usize>r * ROW;
        if (cols == COLS) {
          const from = toBlock ? element : at, to = toBlock ? at : element;
          copyPair(to, from); copyPair(to + 32, from + 32);
        } else if (toBlock) {
          memory.copy(at, element, <usize>cols << 2);
          memory.fill(at + (<usize>cols << 2), 0, <usize>(COLS - cols) << 2);
        } else memory.copy(element, at, <usize>cols << 2);
        element += ld;
      }
      if (toBlock && rows < ROWS) memory.fill(block + <usize>rows * ROW, 0, <usize>(ROWS - rows) * ROW);
      block += TILE;
    }
  }
}

// Adds the tasks' partial statistics in order.
export function segmentedReduce(p: SegmentedReduceSlots, task: i32): void {
  const partials = p.partials;
  const tasks = p.tasks, segmentCount = p.segmentCount, groupCount = p.groupCount;
  const width = 2 * segmentCount + groupCount + 1;
  for (let i = 0; i < width; i++) {
    let sum: f64 = 0;
    for (let t = 0; t < tasks; t++) sum += load<f64>(partials + (<usize>(t * width + i) << 3));
    let to: usize;
    if (i < segmentCount) to = p.dots + (<usize>i << 2);
    else if (i < 2 * segmentCount) to = p.sumsq + (<usize>(i - segmentCount) << 2);
    else if (i < width - 1) to = p.groupSumsq + (<usize>(i - 2 * segmentCount) << 2);
    else to = p.vSumsq;
    store<f32>(to, <f32>sum);
  }
}
