// Matrix products: packing, the micro-kernels, the blocked product, and the alignments of rows.
//
// Packed operands are panels: A in panels of 4 rows of op(A), [panel][k][4], or, for the blocked product, of 6 rows; B in panels of 8 columns of op(B),
// [panel][k][8]; short panels are padded with zeros. A micro-kernel multiplies one panel by another. `micro` leaves a 4×8 tile in memory, `micro6` one of 6×8; each
// caller continues with it. With wide vectors, `wide6` multiplies by two panels of B at a time. The loop of a micro-kernel is written out in each, since its sums must
// stay in registers.
//
// The blocked product divides the rows of a task into panels of 6, with one or two panels of 4 at the end if that needs fewer rows of padding (`sixes`).
// Panels are contiguous, so the panel whose first row is r begins at element r·k.
import { ALIGN_CHUNK, GEMM_TILE_ROWS as SIX, TILE_COLS as NR, TILE_ROWS as MR } from "../src/backends/cpu/blocks";
import { activateBlock } from "./activation";
import { squareRange } from "./reduce";
import { copyPair, doubles, fma, fma64, scratch, storePair, sumDoubles, twoDoubles, wide } from "./simd";
import {
  AlignBlockSlots, AlignSegmentsSlots, GemmBlockSlots, GramSquaresSlots, MicroPeakSlots, PackPanelsSlots,
} from "./slots";

const TILE: usize = MR * NR * 4;
const SIX_TILE: usize = SIX * NR * 4;
const WIDE_TILE: usize = 2 * SIX_TILE;

// Writes a tile [4][8] = Σ_k a[k][4] ⊗ b[k][8], plus the bias and the elements at `c` if these addresses are not 0, to rows `ld` bytes apart. Eight accumulators just
// hide the latency of two multiply-add units and, with the operands, fit into V8's registers. Unrolled over k it spills; if it is called instead of inlined, it is
// slower by a tenth for short k.
// @ts-ignore: decorator
@inline function microTo(a: usize, stepA: usize, b: usize, stepB: usize, k: i32, c: usize, to: usize, ld: usize, bias: usize): void {
  let c00 = f32x4.splat(0), c01 = f32x4.splat(0), c10 = f32x4.splat(0), c11 = f32x4.splat(0);
  let c20 = f32x4.splat(0), c21 = f32x4.splat(0), c30 = f32x4.splat(0), c31 = f32x4.splat(0);
  while (k > 0) {
    const b0 = v128.load(b, 0), b1 = v128.load(b, 16);
    let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    x = v128.load_splat<f32>(a, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    x = v128.load_splat<f32>(a, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    x = v128.load_splat<f32>(a, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    a += stepA; b += stepB; k--;
  }
  if (bias != 0) {
    const b0 = v128.load(bias, 0), b1 = v128.load(bias, 16);
    c00 = f32x4.add(c00, b0); c01 = f32x4.add(c01, b1); c10 = f32x4.add(c10, b0); c11 = f32x4.add(c11, b1);
    c20 = f32x4.add(c20, b0); c21 = f32x4.add(c21, b1); c30 = f32x4.add(c30, b0); c31 = f32x4.add(c31, b1);
  }
  if (c != 0) {
    c00 = f32x4.add(c00, v128.load(c, 0)); c01 = f32x4.add(c01, v128.load(c, 16)); c += ld;
    c10 = f32x4.add(c10, v128.load(c, 0)); c11 = f32x4.add(c11, v128.load(c, 16)); c += ld;
    c20 = f32x4.add(c20, v128.load(c, 0)); c21 = f32x4.add(c21, v128.load(c, 16)); c += ld;
    c30 = f32x4.add(c30, v128.load(c, 0)); c31 = f32x4.add(c31, v128.load(c, 16));
  }
  v128.store(to, c00, 0); v128.store(to, c01, 16); to += ld;
  v128.store(to, c10, 0); v128.store(to, c11, 16); to += ld;
  v128.store(to, c20, 0); v128.store(to, c21, 16); to += ld;
  v128.store(to, c30, 0); v128.store(to, c31, 16);
}

// Like microTo, for a tile with 32 bytes per row.
// @ts-ignore: decorator
@inline function micro(a: usize, b: usize, k: i32, tile: usize): void {
  microTo(a, MR << 2, b, NR << 2, k, 0, tile, NR << 2, 0);
}

// A tile [6][8] = init[8] + Σ_k a[k][6] ⊗ b[k][8], into rows `ld` bytes apart. Twelve accumulators hide the latency of two multiply-add units with some to spare.
//
// The compiler of Node 20 moves all loads of a loop's body in front of its arithmetic, and would so need more registers than there are. With ways out between the
// rows, which are never taken (k is less than 2³⁰), and with nothing but stores behind the loop, each load stays behind the row before it. What is added to all
// rows stands in the accumulators from the start.
export function micro6(a: usize, stepA: usize, b: usize, stepB: usize, k: i32, never: i32, init: usize, to: usize, ld: usize): void {
  const first = v128.load(init), second = v128.load(init, 16);
  let c00 = first, c01 = second, c10 = first, c11 = second, c20 = first, c21 = second;
  let c30 = first, c31 = second, c40 = first, c41 = second, c50 = first, c51 = second;
  while (k > 0) {
    const b0 = v128.load(b, 0), b1 = v128.load(b, 16);
    let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01);
    if (k == (never | 0x40000000)) break;
    x = v128.load_splat<f32>(a, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11);
    if (k == (never | 0x40000000)) break;
    x = v128.load_splat<f32>(a, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21);
    if (k == (never | 0x40000000)) break;
    x = v128.load_splat<f32>(a, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31);
    if (k == (never | 0x40000000)) break;
    x = v128.load_splat<f32>(a, 16); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41);
    if (k == (never | 0x40000000)) break;
    x = v128.load_splat<f32>(a, 20); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51);
    a += stepA; b += stepB; k--;
  }
  v128.store(to, c00); v128.store(to, c01, 16); to += ld;
  v128.store(to, c10); v128.store(to, c11, 16); to += ld;
  v128.store(to, c20); v128.store(to, c21, 16); to += ld;
  v128.store(to, c30); v128.store(to, c31, 16); to += ld;
  v128.store(to, c40); v128.store(to, c41, 16); to += ld;
  v128.store(to, c50); v128.store(to, c51, 16);
}

// Like micro6, for two adjacent panels of B, the second `stride` bytes behind the first. Only for wide vectors (`wide` in simd.ts): V8 joins its 24 accumulators to
// twelve of eight numbers each. With narrow ones it would spill.
export function wide6(a: usize, stepA: usize, b: usize, stepB: usize, stride: usize, k: i32, init: usize, to: usize, ld: usize): void {
  const i0 = v128.load(init), i1 = v128.load(init, 16), i2 = v128.load(init, 32), i3 = v128.load(init, 48);
  let c00 = i0, c01 = i1, c02 = i2, c03 = i3;
  let c10 = i0, c11 = i1, c12 = i2, c13 = i3;
  let c20 = i0, c21 = i1, c22 = i2, c23 = i3;
  let c30 = i0, c31 = i1, c32 = i2, c33 = i3;
  let c40 = i0, c41 = i1, c42 = i2, c43 = i3;
  let c50 = i0, c51 = i1, c52 = i2, c53 = i3;
  let d = b + stride;
  while (k > 0) {
    const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(d), b3 = v128.load(d, 16);
    let x = v128.load_splat<f32>(a, 0); c00 = fma(x, b0, c00); c01 = fma(x, b1, c01); c02 = fma(x, b2, c02); c03 = fma(x, b3, c03);
    x = v128.load_splat<f32>(a, 4); c10 = fma(x, b0, c10); c11 = fma(x, b1, c11); c12 = fma(x, b2, c12); c13 = fma(x, b3, c13);
    x = v128.load_splat<f32>(a, 8); c20 = fma(x, b0, c20); c21 = fma(x, b1, c21); c22 = fma(x, b2, c22); c23 = fma(x, b3, c23);
    x = v128.load_splat<f32>(a, 12); c30 = fma(x, b0, c30); c31 = fma(x, b1, c31); c32 = fma(x, b2, c32); c33 = fma(x, b3, c33);
    x = v128.load_splat<f32>(a, 16); c40 = fma(x, b0, c40); c41 = fma(x, b1, c41); c42 = fma(x, b2, c42); c43 = fma(x, b3, c43);
    x = v128.load_splat<f32>(a, 20); c50 = fma(x, b0, c50); c51 = fma(x, b1, c51); c52 = fma(x, b2, c52); c53 = fma(x, b3, c53);
    a += stepA; b += stepB; d += stepB; k--;
  }
  v128.store(to, c00, 0); v128.store(to, c01, 16); v128.store(to, c02, 32); v128.store(to, c03, 48); to += ld;
  v128.store(to, c10, 0); v128.store(to, c11, 16); v128.store(to, c12, 32); v128.store(to, c13, 48); to += ld;
  v128.store(to, c20, 0); v128.store(to, c21, 16); v128.store(to, c22, 32); v128.store(to, c23, 48); to += ld;
  v128.store(to, c30, 0); v128.store(to, c31, 16); v128.store(to, c32, 32); v128.store(to, c33, 48); to += ld;
  v128.store(to, c40, 0); v128.store(to, c41, 16); v128.store(to, c42, 32); v128.store(to, c43, 48); to += ld;
  v128.store(to, c50, 0); v128.store(to, c51, 16); v128.store(to, c52, 32); v128.store(to, c53, 48);
}

// Returns the number of panels of 6 for this many rows; the remaining rows are in panels of 4. Without fused multiply-add a product needs a register, and
// twelve accumulators leave none.
// @ts-ignore: decorator
@inline function sixes(rows: i32): i32 {
  if (!ASC_FEATURE_RELAXED_SIMD) return 0;
  const rest = rows % SIX, whole = rows / SIX;
  if (rest == 0 || rest > 4) return (rows + SIX - 1) / SIX;
  return rest > 2 || whole == 0 ? whole : whole - 1;
}

// Packs 4 rows whose consecutive k are adjacent into every `step` bytes of `dst`, by transposing 4×4 blocks.
function packRows4(src: usize, ld: usize, rows: i32, k: i32, dst: usize, step: usize): void {
  let i = 0;
  if (rows >= 4) {
    const r1 = src + ld, r2 = r1 + ld, r3 = r2 + ld;
    for (; i + 4 <= k; i += 4) {
      const o = <usize>i << 2;
      const v0 = v128.load(src + o), v1 = v128.load(r1 + o), v2 = v128.load(r2 + o), v3 = v128.load(r3 + o);
      const l01 = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5), h01 = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7);
      const l23 = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5), h23 = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7);
      v128.store(dst, v128.shuffle<f64>(l01, l23, 0, 2));
      v128.store(dst + step, v128.shuffle<f64>(l01, l23, 1, 3));
      v128.store(dst + 2 * step, v128.shuffle<f64>(h01, h23, 0, 2));
      v128.store(dst + 3 * step, v128.shuffle<f64>(h01, h23, 1, 3));
      dst += 4 * step;
    }
  }
  for (; i < k; i++) {
    const o = <usize>i << 2;
    for (let r = 0; r < 4; r++)
      store<f32>(dst + (<usize>r << 2), r < rows ? load<f32>(src + <usize>r * ld + o) : <f32>0);
    dst += step;
  }
}

// Packs `width` columns of a k-major matrix into panels of 4, 8, 16, 32 or 48 columns. Rows are read whole, and as many at a time as fill 64 bytes of a panel: panels
// at a distance of a multiple of 4 KiB map to the same lines of the first-level cache, and would evict each other between one row and the next.
function packColumns(src: usize, ld: usize, width: i32, k: i32, panel: i32, dst: usize): void {
  const stride = <usize>panel * <usize>k << 2, whole = width / panel, bytes = <usize>panel << 2;
  const rows = 64 / <i32>bytes;
  let i = 0;
  for (; rows > 1 && i + rows <= k; i += rows) {
    let from = src + <usize>i * ld, to = dst + <usize>i * bytes;
    for (let j = 0; j < whole; j++) {
      const next = from + ld;
      if (panel == 8) {
        copyPair(to, from);
        copyPair(to + 32, next);
      } else {
        const third = next + ld;
        v128.store(to, v128.load(from));
        v128.store(to, v128.load(next), 16);
        v128.store(to, v128.load(third), 32);
        v128.store(to, v128.load(third + ld), 48);
      }
      from += bytes; to += stride;
    }
  }
  for (; i < k; i++) {
    let from = src + <usize>i * ld, to = dst + <usize>i * bytes;
    for (let j = 0; j < whole; j++) {
      if (panel > 4) copyPair(to, from);
      else v128.store(to, v128.load(from));
      for (let o: usize = 32; o < bytes; o += 32) copyPair(to + o, from + o);
      from += bytes; to += stride;
    }
  }
  const rest = width - whole * panel;
  if (rest == 0) return;
  for (i = 0; i < k; i++) {
    const from = src + <usize>i * ld + <usize>whole * bytes, to = dst + <usize>whole * stride + <usize>i * bytes;
    for (let c = 0; c < panel; c++) store<f32>(to + (<usize>c << 2), c < rest ? load<f32>(from + (<usize>c << 2)) : <f32>0);
  }
}

// Like packRows4, for 6 rows.
function packRows6(src: usize, ld: usize, k: i32, dst: usize): void {
  const r1 = src + ld, r2 = r1 + ld, r3 = r2 + ld, r4 = r3 + ld, r5 = r4 + ld;
  let i = 0;
  for (; i + 4 <= k; i += 4) {
    const o = <usize>i << 2;
    const v0 = v128.load(src + o), v1 = v128.load(r1 + o), v2 = v128.load(r2 + o), v3 = v128.load(r3 + o);
    const v4 = v128.load(r4 + o), v5 = v128.load(r5 + o);
    const l01 = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5), h01 = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7);
    const l23 = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5), h23 = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7);
    const l45 = v128.shuffle<f32>(v4, v5, 0, 4, 1, 5), h45 = v128.shuffle<f32>(v4, v5, 2, 6, 3, 7);
    v128.store(dst, v128.shuffle<f64>(l01, l23, 0, 2));
    v128.store(dst, v128.shuffle<f64>(l45, l01, 0, 3), 16);
    v128.store(dst, v128.shuffle<f64>(l23, l45, 1, 3), 32);
    v128.store(dst, v128.shuffle<f64>(h01, h23, 0, 2), 48);
    v128.store(dst, v128.shuffle<f64>(h45, h01, 0, 3), 64);
    v128.store(dst, v128.shuffle<f64>(h23, h45, 1, 3), 80);
    dst += 96;
  }
  for (; i < k; i++) {
    const o = <usize>i << 2;
    store<f32>(dst, load<f32>(src + o)); store<f32>(dst, load<f32>(r1 + o), 4); store<f32>(dst, load<f32>(r2 + o), 8);
    store<f32>(dst, load<f32>(r3 + o), 12); store<f32>(dst, load<f32>(r4 + o), 16); store<f32>(dst, load<f32>(r5 + o), 20);
    dst += 24;
  }
}

// Packs columns of a k-major matrix into whole panels of 6, eight rows at a time, which fill 192 bytes of a panel (see packColumns).
function packColumns6(src: usize, ld: usize, panels: i32, k: i32, dst: usize): void {
  const stride = <usize>k * 24;
  for (let i = 0; i < k; i += 8) {
    const rows = min(8, k - i);
    let from = src + <usize>i * ld, to = dst + <usize>i * 24;
    for (let j = 0; j < panels; j++) {
      let x = from, y = to;
      for (let r = 0; r < rows; r++) {
        v128.store(y, v128.load(x));
        store<u64>(y, load<u64>(x, 16), 16);
        x += ld; y += 24;
      }
      from += 24; to += stride;
    }
  }
}

// Packs rows of an operand (its columns if it is k-major) in the layout that the blocked product uses for a task.
function packTask(src: usize, ld: usize, rows: i32, k: i32, kMajor: bool, dst: usize): void {
  const whole = min(sixes(rows), rows / SIX), done = whole * SIX, rest = rows - done;
  const step = kMajor ? <usize>4 : ld;
  if (kMajor) packColumns6(src, ld, whole, k, dst);
  else for (let at = 0; at < done; at += SIX) packRows6(src + <usize>at * ld, ld, k, dst + (<usize>at * <usize>k << 2));
  if (rest == 0) return;
  src += <usize>done * step; dst += <usize>done * <usize>k << 2;
  if (sixes(rows) == whole) {
    pack(src, ld, rest, k, kMajor, MR, dst);
    return;
  }
  // The last five rows, and one of padding.
  for (let i = 0; i < k; i++) {
    for (let r = 0; r < SIX; r++)
      store<f32>(dst + (<usize>r << 2), r < rest ? load<f32>(src + (kMajor ? <usize>i * ld + (<usize>r << 2) : <usize>r * ld + (<usize>i << 2))) : <f32>0);
    dst += 24;
  }
}

// Packs rows [0, width) of an operand (its columns if it is k-major) into panels of 4, 8, 16, 32 or 48.
function pack(src: usize, ld: usize, width: i32, k: i32, kMajor: bool, panel: i32, dst: usize): void {
  if (kMajor) {
    packColumns(src, ld, width, k, panel, dst);
    return;
  }
  const step = <usize>panel << 2;
  for (let at = 0; at < width; at += panel) {
    const to = dst + (<usize>at * <usize>k << 2), from = src + <usize>at * ld;
    for (let half = 0; half < panel; half += 4)
      packRows4(from + <usize>half * ld, ld, width - at - half, k, to + (<usize>half << 2), step);
  }
}

// A task packs some panels of an operand.
export function packPanels(p: PackPanelsSlots, task: i32): void {
  const width = p.width, k = p.k, kMajor = p.kMajor != 0, panel = p.panel;
  const ld = <usize>p.ld << 2;
  const at = task * p.panelsPerTask * panel;
  const from = p.from + (kMajor ? <usize>at << 2 : <usize>at * ld), to = p.to + (<usize>at * <usize>k << 2);
  const rows = min(width - at, p.panelsPerTask * panel);
  if (panel == SIX) packTask(from, ld, rows, k, kMajor, to);
  else pack(from, ld, rows, k, kMajor, panel, to);
}

// Writes a part of a tile, or one that is scaled: c = alpha·tile (+ c) (+ bias).
function writeTile(tile: usize, c: usize, ldc: usize, rows: i32, cols: i32, alpha: f32, add: bool, bias: usize): void {
  for (let r = 0; r < rows; r++) {
    if (cols == NR) {
      const scale = f32x4.splat(alpha);
      let v0 = fma(v128.load(tile, 0), scale, bias != 0 ? v128.load(bias, 0) : f32x4.splat(0));
      let v1 = fma(v128.load(tile, 16), scale, bias != 0 ? v128.load(bias, 16) : f32x4.splat(0));
      if (add) {
        v0 = f32x4.add(v0, v128.load(c, 0));
        v1 = f32x4.add(v1, v128.load(c, 16));
      }
      v128.store(c, v0, 0);
      v128.store(c, v1, 16);
    } else
      for (let j = 0; j < cols; j++) {
        const o = <usize>j << 2;
        let v = load<f32>(tile + o) * alpha;
        if (bias != 0) v += load<f32>(bias + o);
        if (add) v += load<f32>(c + o);
        store<f32>(c + o, v);
      }
    tile += 32;
    c += ldc;
  }
}

// Two vectors of a row of a tile, added to a row of C.
// @ts-ignore: decorator
@inline function addRow(tile: usize, c: usize, bias0: v128, bias1: v128): void {
  storePair(c, f32x4.add(f32x4.add(v128.load(tile), bias0), v128.load(c)), f32x4.add(f32x4.add(v128.load(tile, 16), bias1), v128.load(c, 16)));
}

// c = tile + c + bias, of a whole tile of 6 rows that are `ld` bytes apart.
function addSix(tile: usize, ld: usize, c: usize, ldc: usize, bias: usize): void {
  const bias0 = v128.load(bias), bias1 = v128.load(bias, 16);
  addRow(tile, c, bias0, bias1); c += ldc; tile += ld;
  addRow(tile, c, bias0, bias1); c += ldc; tile += ld;
  addRow(tile, c, bias0, bias1); c += ldc; tile += ld;
  addRow(tile, c, bias0, bias1); c += ldc; tile += ld;
  addRow(tile, c, bias0, bias1); c += ldc; tile += ld;
  addRow(tile, c, bias0, bias1);
}

// A task computes a block of C.
export function gemmBlock(p: GemmBlockSlots, task: i32): void {
  const a = p.a, b = p.b, c = p.c, slope = p.slope, bias = p.bias;
  const m = p.m, n = p.n, k = p.k, kMajor = p.kMajor != 0;
  const lda = <usize>p.lda << 2, ldc = <usize>p.ldc << 2;
  const accumulate = p.accumulate != 0, activation = p.activation;
  const mb = p.rowsPerTask, nb = p.columnsPerTask, columnBlocks = p.columnBlocks, kb = p.pass;
  // A is read in place, or was packed for all tasks, or this task packs its rows.
  const inPlaceA = p.inPlaceA != 0, ready = p.packedA != 0, ldb = <usize>p.ldb << 2;
  const alpha = p.alpha;
  const row0 = (task / columnBlocks) * mb, col0 = (task % columnBlocks) * nb;
  const rows = min(mb, m - row0), col1 = min(n, col0 + nb);
  const tile = scratch(p), zeros = tile + WIDE_TILE, packed = zeros + 64;
  const sixRows = sixes(rows) * SIX;
  memory.fill(zeros, 0, 64);
  for (let k0 = 0; k0 == 0 || k0 < k; k0 += kb) {
    const kc = min(kb, k - k0);
    const last = k0 + kb >= k;
    // Where the rows of this pass begin, and the distance between rows, in panels of A.
    let panelsA = packed, strideA = <usize>kc << 2;
    if (inPlaceA) {
      panelsA = a + <usize>k0 * lda + (<usize>row0 << 2);
      strideA = 4;
    } else if (ready) {
      panelsA = a + (<usize>row0 * <usize>k << 2);
      strideA = <usize>k << 2;
    } else {
      const from = kMajor ? a + <usize>k0 * lda + (<usize>row0 << 2) : a + <usize>row0 * lda + (<usize>k0 << 2);
      packTask(from, lda, rows, kc, kMajor, packed);
    }
    // The offset of this pass in panels that are packed for all of k.
    const six = ready ? <usize>k0 * SIX << 2 : 0, four = ready ? <usize>k0 * MR << 2 : 0;
    const add = k0 > 0 || accumulate;
    const stepSix: usize = inPlaceA ? lda : SIX << 2, stepFour: usize = inPlaceA ? lda : MR << 2;
    const stepB: usize = ldb != 0 ? ldb : NR << 2, nextB: usize = ldb != 0 ? NR << 2 : <usize>k * NR << 2;
    let beside = 0;
    for (let j = col0; j < col1; j += NR) {
      const panelB = ldb != 0 ? b + <usize>k0 * ldb + (<usize>j << 2) : b + ((<usize>j * <usize>k + <usize>k0 * NR) << 2);
      const cols = min(NR, n - j);
      const shift = last && bias != 0 ? bias + (<usize>j << 2) : 0, start = shift != 0 ? shift : zeros;
      // The rows of this panel that were computed together with the panel before.
      let i = beside;
      beside = 0;
      if (wide && i == 0 && j + 2 * NR <= min(col1, n) && alpha == 1) {
        for (; i < sixRows && i + SIX <= rows; i += SIX) {
          const panel = panelsA + <usize>i * strideA + six, at = c + <usize>(row0 + i) * ldc + (<usize>j << 2);
          if (!add) wide6(panel, stepSix, panelB, stepB, nextB, kc, start, at, ldc);
          else {
            wide6(panel, stepSix, panelB, stepB, nextB, kc, zeros, tile, 2 * NR << 2);
            addSix(tile, 2 * NR << 2, at, ldc, start);
            addSix(tile + 32, 2 * NR << 2, at + 32, ldc, start + 32);
          }
        }
        beside = i;
      }
      while (i < rows) {
        const isSix = i < sixRows, height = isSix ? SIX : MR;
        const panel = panelsA + <usize>i * strideA;
        const at = <usize>(row0 + i) * ldc + (<usize>j << 2);
        // A whole tile goes to its place from the registers.
        const whole = cols == NR && i + height <= rows && alpha == 1;
        if (isSix) {
          if (whole && !add) micro6(panel + six, stepSix, panelB, stepB, kc, m, start, c + at, ldc);
          else {
            micro6(panel + six, stepSix, panelB, stepB, kc, m, zeros, tile, NR << 2);
            if (whole) addSix(tile, NR << 2, c + at, ldc, start);
            else writeTile(tile, c + at, ldc, min(SIX, rows - i), cols, alpha, add, shift);
          }
        } else {
          microTo(panel + four, stepFour, panelB, stepB, kc, whole && add ? c + at : 0, whole ? c + at : tile, whole ? ldc : NR << 2, whole ? shift : 0);
          if (!whole) writeTile(tile, c + at, ldc, min(MR, rows - i), cols, alpha, add, shift);
        }
        i += height;
      }
    }
  }
  if (activation == 0 && slope == 0) return;
  const at = <usize>row0 * ldc + (<usize>col0 << 2);
  activateBlock(activation, c + at, slope != 0 ? slope + at : 0, ldc, rows, <usize>(col1 - col0) << 2);
}

// The products of eight elements of x and y, as two sums of doubles.
// @ts-ignore: decorator
@inline function dotRow(x: usize, y: usize): v128 {
  const v = fma(v128.load(x), v128.load(y), f32x4.mul(v128.load(x, 16), v128.load(y, 16)));
  return f64x2.add(f64x2.promote_low_f32x4(v), f64x2.promote_low_f32x4(v128.shuffle<f64>(v, v, 1, 0)));
}

// @ts-ignore: decorator
@inline function addDouble(to: usize, v: v128): void {
  store<f64>(to, load<f64>(to) + (f64x2.extract_lane(v, 0) + f64x2.extract_lane(v, 1)));
}

// Alignments of the gradients of single rows, ⟨x_r y_rᵀ, V⟩ = ⟨V x_r, y_r⟩. Each chunk of k of the product V x_r is multiplied with y_r as soon as it is computed.
export function alignBlock(p: AlignBlockSlots, task: i32): void {
  const rows = p.rows, n = p.n, k = p.k, kb = p.pass;
  const row0 = (task / p.columnBlocks) * p.rowsPerTask, block = task % p.columnBlocks, col0 = block * p.columnsPerTask;
  const row1 = min(rows, row0 + p.rowsPerTask), col1 = min(n, col0 + p.columnsPerTask);
  const tile = scratch(p), sums = tile + TILE + 64;
  memory.fill(sums, 0, (<usize>p.rowsPerTask << 3));
  for (let k0 = 0; k0 < k; k0 += kb) {
    const end = min(k, k0 + kb);
    for (let j = col0; j < col1; j += NR) {
      const panelV = p.v + (<usize>j * <usize>k << 2), panelY = p.y + (<usize>j * <usize>rows << 2);
      for (let i = row0; i < row1; i += MR) {
        const panelX = p.x + (<usize>i * <usize>k << 2), y = panelY + (<usize>i * NR << 2);
        // Elements of y beyond the last row are multiplied with padding of x, and those sums are not used.
        let s0 = f64x2.splat(0), s1 = s0, s2 = s0, s3 = s0;
        for (let at = k0; at < end; at += ALIGN_CHUNK) {
          micro(panelX + (<usize>at * MR << 2), panelV + (<usize>at * NR << 2), min(ALIGN_CHUNK, end - at), tile);
          s0 = f64x2.add(s0, dotRow(tile, y));
          s1 = f64x2.add(s1, dotRow(tile + 32, y + 32));
          s2 = f64x2.add(s2, dotRow(tile + 64, y + 64));
          s3 = f64x2.add(s3, dotRow(tile + 96, y + 96));
        }
        const to = sums + (<usize>(i - row0) << 3);
        addDouble(to, s0);
        addDouble(to + 8, s1);
        addDouble(to + 16, s2);
        addDouble(to + 24, s3);
      }
    }
  }
  if (row1 > row0) memory.copy(p.partials + ((<usize>block * <usize>rows + <usize>row0) << 3), sums, <usize>(row1 - row0) << 3);
}

// Inner products of two rows with two others, in doubles: out[4], row by row.
// @ts-ignore: decorator
@inline function dotsOfRows(x0: usize, x1: usize, y0: usize, y1: usize, bytes: usize, out: usize): void {
  let s00 = f64x2.splat(0), s01 = s00, s10 = s00, s11 = s00, t00 = s00, t01 = s00, t10 = s00, t11 = s00;
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) {
    let p = doubles(y0 + i), q = doubles(y1 + i), x = doubles(x0 + i), z = doubles(x1 + i);
    s00 = fma64(x, p, s00); s01 = fma64(x, q, s01); s10 = fma64(z, p, s10); s11 = fma64(z, q, s11);
    p = doubles(y0 + i + 8); q = doubles(y1 + i + 8); x = doubles(x0 + i + 8); z = doubles(x1 + i + 8);
    t00 = fma64(x, p, t00); t01 = fma64(x, q, t01); t10 = fma64(z, p, t10); t11 = fma64(z, q, t11);
  }
  let d00 = sumDoubles(f64x2.add(s00, t00)), d01 = sumDoubles(f64x2.add(s01, t01));
  let d10 = sumDoubles(f64x2.add(s10, t10)), d11 = sumDoubles(f64x2.add(s11, t11));
  for (; i < bytes; i += 4) {
    const p = <f64>load<f32>(y0 + i), q = <f64>load<f32>(y1 + i), x = <f64>load<f32>(x0 + i), z = <f64>load<f32>(x1 + i);
    d00 += x * p; d01 += x * q; d10 += z * p; d11 += z * q;
  }
  store<f64>(out, d00, 0); store<f64>(out, d01, 8); store<f64>(out, d10, 16); store<f64>(out, d11, 24);
}

// @ts-ignore: decorator
@inline function product(x: usize, y: usize, at: usize): f64 {
  return load<f64>(x + at) * load<f64>(y + at);
}

// The squared norm of a gradient Σ a_r b_rᵀ of few rows, by their inner products: Σ_{r, q} ⟨a_r, a_q⟩⟨b_r, b_q⟩, in doubles. Scratch: 64 bytes.
export function gramSquares(p: GramSquaresSlots, task: i32): void {
  const bytesA = <usize>p.m << 2, bytesB = <usize>p.n << 2;
  const last = min(p.ranges, (task + 1) * p.rangesPerTask);
  const dotsA = scratch(p), dotsB = dotsA + 32;
  for (let range = task * p.rangesPerTask; range < last; range++) {
    const first = load<i32>(p.offsets + (<usize>range << 2)), end = load<i32>(p.offsets + (<usize>range << 2), 4);
    if (end - first > p.most) continue;
    const a = p.a + <usize>first * bytesA, b = p.b + <usize>first * bytesB;
    const rows = end - first;
    let sum: f64 = 0;
    if (rows == 1) sum = squareRange(a, bytesA) * squareRange(b, bytesB);
    else
      for (let r = 0; r < rows; r += 2)
        for (let q = 0; q <= r; q += 2) {
          // A last single row is paired with itself, and the pair is not counted.
          const r1 = min(r + 1, rows - 1), q1 = min(q + 1, rows - 1);
          dotsOfRows(a + <usize>r * bytesA, a + <usize>r1 * bytesA, a + <usize>q * bytesA, a + <usize>q1 * bytesA, bytesA, dotsA);
          dotsOfRows(b + <usize>r * bytesB, b + <usize>r1 * bytesB, b + <usize>q * bytesB, b + <usize>q1 * bytesB, bytesB, dotsB);
          const first = product(dotsA, dotsB, 0), pair = r1 > r;
          if (q == r) {
            sum += first;
            if (pair) sum += product(dotsA, dotsB, 24) + 2 * product(dotsA, dotsB, 16);
          } else {
            sum += 2 * (first + product(dotsA, dotsB, 8));
            if (pair) sum += 2 * (product(dotsA, dotsB, 16) + product(dotsA, dotsB, 24));
          }
        }
    // Rounding can give a negative sum if rows cancel.
    store<f32>(p.squares + (<usize>range << 2), <f32>(sum < 0 ? 0 : sum));
  }
}

// Sums of the rows' alignments by segment.
export function alignSegments(p: AlignSegmentsSlots, task: i32): void {
  const rows = p.rows, segments = p.segments, aligned = p.aligned;
  const row0 = load<i32>(segments + (<usize>aligned << 2));
  for (let s = 0; s < p.segmentCount; s++) {
    const start = load<i32>(segments + (<usize>s << 2)) - row0, end = load<i32>(segments + (<usize>s << 2), 4) - row0;
    let sum: f64 = 0;
    if (s >= aligned)
      for (let block = 0; block < p.columnBlocks; block++)
        for (let r = start; r < end; r++) sum += load<f64>(p.partials + (<usize>(block * rows + r) << 3));
    store<f32>(p.dots + (<usize>s << 2), <f32>sum);
  }
}

// For the benchmark of the machine's peak: runs the product's micro-kernel `rounds` times on one pair of panels in the first-level cache.
export function microPeak(p: MicroPeakSlots, task: i32): void {
  const tile = scratch(p), a = tile + 512, b = a + SIX * 4 * 128;
  for (let i = 0; i < p.rounds; i++) {
    if (wide) wide6(a, SIX << 2, b, NR << 2, 128 * NR << 2, 128, a, tile, 2 * NR << 2);
    else if (ASC_FEATURE_RELAXED_SIMD) micro6(a, SIX << 2, b, NR << 2, 128, p.rounds, a, tile, NR << 2);
    else micro(a, b, 128, tile);
  }
}
