/**
 * Kernels that work row by row: softmax, norms, cross-entropy, reductions.
 *
 * A workgroup processes a row: each of its invocations goes through the row with a stride, then a tree in workgroup memory combines their results, always in
 * the same order. On a software adapter one invocation processes a whole row, without barriers. The same text serves both: `LANES` is the number of invocations
 * per row, and join_sum, join_max and join_min combine their results.
 */
import type { View } from "../../../tensor/memory.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import type { ReduceKind } from "../../kernels/index.ts";
import {
  type Dispatch,
  elementwise as each,
  f32,
  type KernelContext,
  type Launchers,
  operandsOf,
  textOf,
  u32,
} from "../context.ts";
import {
  DOT_SHARE as SHARE,
  REDUCE_PART as PART,
  REDUCE_ROW as LONG,
  ROW_LANES as LANES,
} from "../blocks.ts";
import { EXP_NAN, MATH, PRECISE } from "./elementwise.ts";

/** Dispatches a kernel by rows. The body can use `row`, `lane`, LANES, and join_sum(x), join_max(x) and join_min(x), which return the same value in all lanes of a row. */
export function byRow(
  context: KernelContext,
  rows: number,
  dispatch: Omit<Dispatch, "groups" | "workgroup">,
): void {
  if (rows === 0) return;
  const scalars = { ...dispatch.scalars, rows: u32(rows) };
  if (context.traits.software) {
    context.dispatch({
      ...dispatch,
      scalars,
      key: `${dispatch.key} alone`,
      groups: Math.ceil(rows / 64),
      workgroup: 64,
      declarations: () => `${MAX}${SUM}
const LANES = 1u;
fn join_sum(x: f32) -> f32 { return x; }
fn join_max(x: f32) -> f32 { return x; }
fn join_min(x: f32) -> f32 { return x; }
${textOf(dispatch.declarations ?? "")}`,
      body: () =>
        `  let row = thread;\n  let lane = 0u;\n  if (row >= p.rows) { return; }\n${textOf(dispatch.body)}`,
    });
    return;
  }
  const tree = (name: string, join: string): string => `fn ${name}(x: f32) -> f32 {
  workgroupBarrier();
  lanes[lane_index] = x;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane_index < half) {
      let y = lanes[lane_index + half];
      lanes[lane_index] = ${join};
    }
  }
  workgroupBarrier();
  return lanes[0];
}`;
  context.dispatch({
    ...dispatch,
    scalars,
    groups: rows,
    workgroup: LANES,
    declarations: () => `${MAX}${SUM}
const LANES = ${LANES}u;
var<workgroup> lanes: array<f32, ${LANES}>;
var<private> lane_index: u32;
${tree("join_sum", "lanes[lane_index] + y")}
${tree("join_max", "max_nan(lanes[lane_index], y)")}
${tree("join_min", "min_nan(lanes[lane_index], y)")}
${textOf(dispatch.declarations ?? "")}`,
    body: () => `  let row = group;\n  let lane = local;\n  lane_index = local;\n${textOf(dispatch.body)}`,
  });
}

/** max, min and exp that keep NaN, which those of WGSL need not do. */
const MAX = `
${EXP_NAN}
fn max_nan(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  if (is_nan(b)) { return b; }
  return max(a, b);
}
fn min_nan(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  if (is_nan(b)) { return b; }
  return min(a, b);
}
`;

/**
 * Neumaier's compensated sum, which keeps the last bits of a long sum of one large number and many small ones. All statistics are summed in this way, in every lane
 * and when parts are combined.
 */
export const SUM = `
struct Sum { total: f32, lost: f32 }
fn plus(sum: Sum, x: f32) -> Sum {
  let next = sum.total + x;
  return Sum(next, sum.lost + select((x - next) + sum.total, (sum.total - next) + x, abs(sum.total) >= abs(x)));
}
fn whole(sum: Sum) -> f32 { return sum.total + select(sum.lost, 0.0, is_nan(sum.lost)); }
`;

/** Dispatches out = Σ x·y in two stages of fixed order: workgroups that sum a fixed share each, then one that sums their results. */
function dotInto(context: KernelContext, x: View, y: View, out: View): void {
  const count = sizeOf(x.shape);
  const parts = Math.max(1, Math.ceil(count / SHARE));
  const partial = context.scratch(parts);
  const same = x === y;
  byRow(context, parts, {
    key: same ? "dot same" : "dot",
    operands: operandsOf(same ? { x } : { x, y }, { partial }),
    scalars: { count: u32(count) },
    body: `  var sum = Sum();
  let end = min(p.count, (row + 1u) * ${SHARE}u);
  for (var i = row * ${SHARE}u + lane; i < end; i += LANES) {
    sum = plus(sum, x(i) * ${same ? "x" : "y"}(i));
  }
  let total = join_sum(whole(sum));
  if (lane == 0u) { set_partial(row, total); }`,
  });
  sumInto(context, partial, parts, out);
}

/** Dispatches out = Σ of `count` elements. */
function sumInto(context: KernelContext, x: View, count: number, out: View): void {
  byRow(context, 1, {
    key: "sum",
    operands: operandsOf({ x }, { out }),
    scalars: { count: u32(count) },
    body: `  var sum = Sum();
  for (var i = lane; i < p.count; i += LANES) { sum = plus(sum, x(i)); }
  let total = join_sum(whole(sum));
  if (lane == 0u) { set_out(0u, total); }`,
  });
}

const REDUCE: Record<ReduceKind, { start: string; join: (a: string, b: string) => string }> = {
  sum: { start: "0.0", join: (a, b) => `${a} + ${b}` },
  max: { start: "-inf()", join: (a, b) => `max_nan(${a}, ${b})` },
  min: { start: "inf()", join: (a, b) => `min_nan(${a}, ${b})` },
};

/** Reduces contiguous rows. A few long rows are divided into parts, whose results a second round reduces. */
function reduceRows(
  context: KernelContext,
  kind: ReduceKind,
  outer: number,
  length: number,
  x: View,
  y: View,
): void {
  const parts = Math.max(1, Math.min(Math.ceil(256 / outer), Math.ceil(length / PART)));
  const out = parts === 1 ? y : context.scratch(outer * parts);
  byRow(context, outer * parts, {
    key: `reduce row ${kind}`,
    operands: operandsOf({ x }, { out }),
    scalars: { length: u32(length), parts: u32(parts), share: u32(Math.ceil(length / parts)) },
    body: `  let base = (row / p.parts) * p.length;
  let start = (row % p.parts) * p.share;
  let end = min(p.length, start + p.share);
  var result = ${REDUCE[kind].start};
  for (var l = start + lane; l < end; l += LANES) { result = ${REDUCE[kind].join("result", "x(base + l)")}; }
  let whole = join_${kind}(result);
  if (lane == 0u) { set_out(row, whole); }`,
  });
  if (parts > 1) reduceRows(context, kind, outer, parts, out, y);
}

export const rows: Pick<
  Launchers,
  | "reduce"
  | "softmax"
  | "softmaxVjp"
  | "logSoftmax"
  | "logSoftmaxVjp"
  | "alignRows"
  | "norm"
  | "normVjp"
  | "normJvp"
  | "crossEntropy"
  | "crossEntropyVjp"
  | "crossEntropyJvp"
  | "sumSquares"
  | "dot"
  | "clipScale"
> = {
  reduce(context, { kind, outer, length, inner }, { x }, { y }) {
    if (!context.traits.software && inner === 1 && length >= LONG) {
      reduceRows(context, kind, outer, length, x, y);
      return;
    }
    each(context, outer * inner, {
      key: `reduce ${kind}`,
      operands: operandsOf({ x }, { y }),
      scalars: { length: u32(length), inner: u32(inner) },
      declarations: MAX,
      body: `  let base = (i / p.inner) * p.length * p.inner + i % p.inner;
  var result = ${REDUCE[kind].start};
  for (var l = 0u; l < p.length; l++) { result = ${REDUCE[kind].join("result", "x(base + l * p.inner)")}; }
  set_y(i, result);`,
    });
  },
  softmax(context, { rows: count, cols }, { x }, { y }) {
    byRow(context, count, {
      key: "softmax",
      operands: operandsOf({ x }, { y }),
      scalars: { cols: u32(cols) },
      // The output may be the input, since every lane has read its elements of the row before it writes them.
      body: `  let base = row * p.cols;
  var top = -inf();
  for (var j = lane; j < p.cols; j += LANES) { top = max_nan(top, x(base + j)); }
  let most = join_max(top);
  var sum = 0.0;
  for (var j = lane; j < p.cols; j += LANES) { sum += exp(x(base + j) - most); }
  let total = join_sum(sum);
  for (var j = lane; j < p.cols; j += LANES) {
    let value = exp(x(base + j) - most) / total;
    // A row of −∞ only, or with +∞ or NaN, is NaN.
    set_y(base + j, select(value, nan(), is_nan(most) || abs(most) == inf()));
  }`,
    });
  },
  softmaxVjp(context, { rows: count, cols }, { y, dy }, { dx }) {
    byRow(context, count, {
      key: "softmaxVjp",
      operands: operandsOf({ y, dy }, { dx }),
      scalars: { cols: u32(cols) },
      body: `  let base = row * p.cols;
  var sum = 0.0;
  for (var j = lane; j < p.cols; j += LANES) { sum += y(base + j) * dy(base + j); }
  let mean = join_sum(sum);
  for (var j = lane; j < p.cols; j += LANES) { set_dx(base + j, y(base + j) * (dy(base + j) - mean)); }`,
    });
  },
  logSoftmax(context, { rows: count, cols }, { x }, { y }) {
    byRow(context, count, {
      key: "logSoftmax",
      operands: operandsOf({ x }, { y }),
      scalars: { cols: u32(cols) },
      declarations: PRECISE,
      body: `  let base = row * p.cols;
  var top = -inf();
  for (var j = lane; j < p.cols; j += LANES) { top = max_nan(top, x(base + j)); }
  let most = join_max(top);
  var sum = 0.0;
  for (var j = lane; j < p.cols; j += LANES) { sum += exp(x(base + j) - most); }
  let total = log_precise(join_sum(sum));
  for (var j = lane; j < p.cols; j += LANES) {
    // A row of −∞ only, or with +∞ or NaN, is NaN.
    set_y(base + j, select((x(base + j) - most) - total, nan(), is_nan(most) || abs(most) == inf()));
  }`,
    });
  },
  logSoftmaxVjp(context, { rows: count, cols }, { y, dy }, { dx }) {
    byRow(context, count, {
      key: "logSoftmaxVjp",
      operands: operandsOf({ y, dy }, { dx }),
      scalars: { cols: u32(cols) },
      body: `  let base = row * p.cols;
  var sum = 0.0;
  for (var j = lane; j < p.cols; j += LANES) { sum += dy(base + j); }
  let total = join_sum(sum);
  for (var j = lane; j < p.cols; j += LANES) { set_dx(base + j, dy(base + j) - exp_nan(y(base + j)) * total); }`,
    });
  },
  alignRows(context, { rows: count, width }, { g, v }, { dots, sumsq }) {
    byRow(context, count, {
      key: "alignRows",
      operands: operandsOf({ g, v }, { dots, sumsq }),
      scalars: { width: u32(width) },
      body: `  var along = Sum();
  var square = Sum();
  for (var j = lane; j < p.width; j += LANES) {
    let value = g(row * p.width + j);
    along = plus(along, value * v(j));
    square = plus(square, value * value);
  }
  let dot = join_sum(whole(along));
  let norm = join_sum(whole(square));
  if (lane == 0u) {
    set_dots(row, dot);
    set_sumsq(row, norm);
  }`,
    });
  },
  norm(
    context,
    { kind, rows: count, width, eps },
    { x, gain = null, bias = null, residual = null },
    { y, stats, sum = null },
  ) {
    const at = residual === null ? "x(base + j)" : "(x(base + j) + residual(base + j))";
    byRow(context, count, {
      key: `norm ${kind} ${[gain, bias, residual].map((v) => (v === null ? 0 : 1)).join("")}`,
      operands: operandsOf({ x, gain, bias, residual }, { y, stats, sum }),
      scalars: { width: u32(width), eps: f32(eps) },
      body: `  let base = row * p.width;
  var center = 0.0;
${
  kind === "layer"
    ? `  var sum = 0.0;
  for (var j = lane; j < p.width; j += LANES) { sum += ${at}; }
  center = join_sum(sum) / f32(p.width);`
    : ""
}
  // Squares of numbers from 2⁶⁴ on overflow: these are summed in smaller units, beside which eps is nothing.
  var squares = 0.0;
  var far = 0.0;
  for (var j = lane; j < p.width; j += LANES) {
    let d = ${at} - center;
    squares += d * d;
    far += (d * ${2 ** -64}) * (d * ${2 ** -64});
  }
  let near_mean = join_sum(squares) / f32(p.width) + p.eps;
  let far_mean = join_sum(far) / f32(p.width);
  let rstd = select(1.0 / sqrt(near_mean), ${2 ** -64} / sqrt(far_mean), near_mean == inf());
  for (var j = lane; j < p.width; j += LANES) {
    let row_sum = ${at};
    let unit = (row_sum - center) * rstd;${sum === null ? "" : "\n    set_sum(base + j, row_sum);"}
    set_y(base + j, unit${gain === null ? "" : " * gain(j)"}${bias === null ? "" : " + bias(j)"});
  }
  if (lane == 0u) {
    set_stats(2u * row, center);
    set_stats(2u * row + 1u, rstd);
  }`,
    });
  },
  normVjp(context, { kind, rows: count, width }, { x, gain = null, stats, dy, also = null }, { dx }) {
    byRow(context, count, {
      key: `normVjp ${kind} ${gain === null ? "" : "gain"} ${also === null ? "" : "also"}`,
      carries: true,
      operands: operandsOf({ x, gain, stats, dy, also }, { dx }),
      scalars: { width: u32(width) },
      body: `  let base = row * p.width;
  let mean = stats(2u * row);
  let rstd = stats(2u * row + 1u);
  var sum = 0.0;
  var along = 0.0;
  for (var j = lane; j < p.width; j += LANES) {
    let d = dy(base + j)${gain === null ? "" : " * gain(j)"};
    sum += d;
    along += (x(base + j) - mean) * rstd * d;
  }
  let center = ${kind === "layer" ? "join_sum(sum) / f32(p.width)" : "0.0"};
  let slope = join_sum(along) / f32(p.width);
  for (var j = lane; j < p.width; j += LANES) {
    let d = dy(base + j)${gain === null ? "" : " * gain(j)"};
    let own = rstd * (d - center - (x(base + j) - mean) * rstd * slope);
    set_dx(base + j, own${also === null ? "" : " + also(base + j)"});
  }`,
    });
  },
  normJvp(
    context,
    { kind, rows: count, width },
    { x, gain = null, stats, dx, dgain = null, dbias = null },
    { dy },
  ) {
    byRow(context, count, {
      key: `normJvp ${kind} ${[gain, dgain, dbias].map((v) => (v === null ? 0 : 1)).join("")}`,
      operands: operandsOf({ x, gain, stats, dx, dgain, dbias }, { dy }),
      scalars: { width: u32(width) },
      body: `  let base = row * p.width;
  let mean = stats(2u * row);
  let rstd = stats(2u * row + 1u);
  var sum = 0.0;
  var along = 0.0;
  for (var j = lane; j < p.width; j += LANES) {
    let d = dx(base + j);
    sum += d;
    along += (x(base + j) - mean) * rstd * d;
  }
  let center = ${kind === "layer" ? "join_sum(sum) / f32(p.width)" : "0.0"};
  let slope = join_sum(along) / f32(p.width);
  for (var j = lane; j < p.width; j += LANES) {
    let unit = (x(base + j) - mean) * rstd;
    let d = rstd * (dx(base + j) - center - unit * slope);
    set_dy(base + j, d${gain === null ? "" : " * gain(j)"}${dgain === null ? "" : " + unit * dgain(j)"}${dbias === null ? "" : " + dbias(j)"});
  }`,
    });
  },
  crossEntropy(context, { rows: count, cols }, { logits, targets }, { losses, lse }) {
    byRow(context, count, {
      key: "crossEntropy",
      operands: operandsOf({ logits, targets }, { losses, lse }),
      scalars: { cols: u32(cols) },
      body: `  let base = row * p.cols;
  var top = -inf();
  for (var j = lane; j < p.cols; j += LANES) { top = max_nan(top, logits(base + j)); }
  let most = join_max(top);
  var sum = 0.0;
  for (var j = lane; j < p.cols; j += LANES) { sum += exp(logits(base + j) - most); }
  let total = join_sum(sum);
  if (lane == 0u) {
    let log_sum = select(most + log(total), nan(), is_nan(most) || abs(most) == inf());
    set_lse(row, log_sum);
    let goal = targets(row);
    if (goal < 0) { set_losses(row, 0.0); }
    else if (u32(goal) >= p.cols) { set_losses(row, nan()); }
    else { set_losses(row, log_sum - logits(base + u32(goal))); }
  }`,
    });
  },
  crossEntropyVjp(context, { rows: count, cols }, { logits, targets, lse, dlosses }, { dlogits }) {
    each(context, count * cols, {
      key: "crossEntropyVjp",
      operands: operandsOf({ logits, targets, lse, dlosses }, { dlogits }),
      scalars: { cols: u32(cols) },
      declarations: EXP_NAN,
      body: `  let row = i / p.cols;
  let goal = targets(row);
  if (goal < 0) { set_dlogits(i, 0.0); }
  else if (u32(goal) >= p.cols) { set_dlogits(i, nan()); }
  else {
    let hit = select(0.0, 1.0, i % p.cols == u32(goal));
    set_dlogits(i, (exp_nan(logits(i) - lse(row)) - hit) * dlosses(row));
  }`,
    });
  },
  crossEntropyJvp(context, { rows: count, cols }, { logits, targets, lse, dlogits }, { dlosses }) {
    byRow(context, count, {
      key: "crossEntropyJvp",
      operands: operandsOf({ logits, targets, lse, dlogits }, { dlosses }),
      scalars: { cols: u32(cols) },
      body: `  let base = row * p.cols;
  let log_sum = lse(row);
  var sum = 0.0;
  for (var j = lane; j < p.cols; j += LANES) { sum += exp_nan(logits(base + j) - log_sum) * dlogits(base + j); }
  let total = join_sum(sum);
  if (lane == 0u) {
    let goal = targets(row);
    if (goal < 0) { set_dlosses(row, 0.0); }
    else if (u32(goal) >= p.cols) { set_dlosses(row, nan()); }
    else { set_dlosses(row, total - dlogits(base + u32(goal))); }
  }`,
    });
  },
  sumSquares(context, _, { x }, { out }) {
    const view = x;
    dotInto(context, view, view, out);
  },
  dot(context, _, { x, y }, { out }) {
    dotInto(context, x, y, out);
  },
  clipScale(context, { maxNorm }, { sumsq }, { scale }) {
    each(context, 1, {
      key: "clipScale",
      operands: operandsOf({ sumsq }, { scale }),
      scalars: { most: f32(maxNorm) },
      declarations: MATH,
      body: `  let norm = sqrt_ieee(sumsq(0u));
  var value = 1.0;
  if (is_nan(norm) || norm == inf()) { value = 0.0; }
  else if (norm > p.most) { value = p.most / norm; }
  set_scale(0u, value);`,
    });
  },
};
