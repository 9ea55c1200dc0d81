/**
 * Causal attention and its derivatives. GPUs compute by tiles (attention-tiled.ts). On software adapters, and for heads that are too wide for a
 * workgroup's memory, an invocation takes a query (or, for dk and dv, a key) and goes through the keys (queries) in order with a running
 * softmax, so nothing of size T × T is stored. The head width is a constant of the shader; the query and the sums stay in private arrays.
 */
import type { View } from "../../../tensor/memory.ts";
import type { AttentionParams } from "../../kernels/index.ts";
import { elementwise as each, f32, type KernelContext, type Launchers, operandsOf, u32 } from "../context.ts";
import { EXP_NAN } from "./elementwise.ts";
import { inFours, operandsFor, tiledBackward, tiledForward, tiledForwardMode } from "./attention-tiled.ts";

const scalarsOf = ({ time, heads, kvHeads, scale }: AttentionParams) => ({
  time: u32(time),
  heads: u32(heads),
  kv_heads: u32(kvHeads),
  scale: f32(scale),
});

/** Functions that give positions in operands with the layout of `qkv`. */
const places = (d: number): string => `${EXP_NAN}
const D = ${d}u;
fn cols() -> u32 { return (p.heads + 2u * p.kv_heads) * D; }
// First element of the query (key, value) of head h at time t of item b.
fn q_of(b: u32, h: u32, t: u32) -> u32 { return (b * p.time + t) * cols() + h * D; }
fn k_of(b: u32, g: u32, t: u32) -> u32 { return (b * p.time + t) * cols() + (p.heads + g) * D; }
fn v_of(b: u32, g: u32, t: u32) -> u32 { return (b * p.time + t) * cols() + (p.heads + p.kv_heads + g) * D; }
fn o_of(b: u32, h: u32, t: u32) -> u32 { return ((b * p.time + t) * p.heads + h) * D; }
fn lse_of(b: u32, h: u32, t: u32) -> u32 { return (b * p.heads + h) * p.time + t; }
`;

/** Returns the arguments of the kernels by tiles; null on software adapters. */
const tiledWith = ({ traits }: KernelContext, params: AttentionParams) =>
  traits.software
    ? null
    : { scalars: scalarsOf(params), places: places(params.headDim), storage: traits.workgroupStorage };

/** The invocation's query: item b, head h, time t, key/value head g. */
const query = `  let t = i % p.time;
  let h = (i / p.time) % p.heads;
  let b = i / (p.time * p.heads);
  let g = h * p.kv_heads / p.heads;
  let q = q_of(b, h, t);
`;

export const attention: Pick<Launchers, "attention" | "attentionVjp" | "attentionJvp"> = {
  attention(context, params, { qkv }, { o, lse }) {
    const { batch, time, heads, headDim } = params;
    const tiled = tiledWith(context, params);
    if (tiled !== null && tiledForward(context, params, tiled, { qkv }, { o, lse })) return;
    each(context, batch * heads * time, {
      key: `attention ${headDim}`,
      operands: operandsOf({ qkv }, { o, lse }),
      scalars: scalarsOf(params),
      declarations: places(headDim),
      body: `${query}  var own: array<f32, D>;
  var sum: array<f32, D>;
  for (var j = 0u; j < D; j++) { own[j] = qkv(q + j); sum[j] = 0.0; }
  var most = -inf();
  var total = 0.0;
  for (var s = 0u; s <= t; s++) {
    let k = k_of(b, g, s);
    var score = 0.0;
    for (var j = 0u; j < D; j++) { score += own[j] * qkv(k + j); }
    score *= p.scale;
    // NaN must stay: a comparison with it is false either way.
    let next = select(max(most, score), score, is_nan(score));
    let keep = select(exp_nan(most - next), 0.0, s == 0u);
    let weight = exp_nan(score - next);
    total = total * keep + weight;
    let v = v_of(b, g, s);
    for (var j = 0u; j < D; j++) { sum[j] = sum[j] * keep + weight * qkv(v + j); }
    most = next;
  }
  for (var j = 0u; j < D; j++) { set_o(o_of(b, h, t) + j, sum[j] / total); }
  set_lse(lse_of(b, h, t), select(most + log(total), total, is_nan(total)));`,
    });
  },
  attentionVjp(context, params, { qkv, o, lse, dOut }, { dqkv }) {
    const { batch, time, heads, kvHeads, headDim } = params;
    // ⟨do, o⟩ of every query, which is the mean of dP under P.
    const mean: View = context.scratch(Math.max(1, batch * heads * time));
    each(context, batch * heads * time, {
      key: `attentionVjp mean ${headDim}`,
      operands: operandsFor(headDim, { o, d_out: dOut }, { mean }),
      scalars: scalarsOf(params),
      declarations: places(headDim),
      body: () => `  let t = i % p.time;
  let h = (i / p.time) % p.heads;
  let b = i / (p.time * p.heads);
  let at = o_of(b, h, t);
  var sum = 0.0;
${
  inFours(headDim)
    ? "  for (var j = 0u; j < D / 4u; j++) { sum += dot(d_out4(at / 4u + j), o4(at / 4u + j)); }"
    : "  for (var j = 0u; j < D; j++) { sum += d_out(at + j) * o(at + j); }"
}
  set_mean(i, sum);`,
    });
    const tiled = tiledWith(context, params);
    if (tiled !== null && tiledBackward(context, params, tiled, { qkv, lse, dOut, mean }, { dqkv })) return;
    each(context, batch * heads * time, {
      key: `attentionVjp dq ${headDim}`,
      operands: operandsOf({ qkv, lse, d_out: dOut, mean }, { dqkv }),
      scalars: scalarsOf(params),
      declarations: places(headDim),
      body: `${query}  let at = o_of(b, h, t);
  let log_sum = lse(lse_of(b, h, t));
  let center = mean(i);
  var own: array<f32, D>;
  var d: array<f32, D>;
  var sum: array<f32, D>;
  for (var j = 0u; j < D; j++) { own[j] = qkv(q + j); d[j] = d_out(at + j); sum[j] = 0.0; }
  for (var s = 0u; s <= t; s++) {
    let k = k_of(b, g, s);
    let v = v_of(b, g, s);
    var score = 0.0;
    var slope = 0.0;
    for (var j = 0u; j < D; j++) {
      score += own[j] * qkv(k + j);
      slope += d[j] * qkv(v + j);
    }
    let ds = p.scale * exp_nan(p.scale * score - log_sum) * (slope - center);
    for (var j = 0u; j < D; j++) { sum[j] += ds * qkv(k + j); }
  }
  for (var j = 0u; j < D; j++) { set_dqkv(q + j, sum[j]); }`,
    });
    each(context, batch * kvHeads * time, {
      key: `attentionVjp dkv ${headDim}`,
      operands: operandsOf({ qkv, lse, d_out: dOut, mean }, { dqkv }),
      scalars: scalarsOf(params),
      declarations: places(headDim),
      // The query heads that read the same key/value head are consecutive.
      body: `  let s = i % p.time;
  let g = (i / p.time) % p.kv_heads;
  let b = i / (p.time * p.kv_heads);
  let k = k_of(b, g, s);
  let v = v_of(b, g, s);
  var key: array<f32, D>;
  var value: array<f32, D>;
  var dk: array<f32, D>;
  var dv: array<f32, D>;
  for (var j = 0u; j < D; j++) { key[j] = qkv(k + j); value[j] = qkv(v + j); dk[j] = 0.0; dv[j] = 0.0; }
  for (var h = 0u; h < p.heads; h++) {
    if (h * p.kv_heads / p.heads != g) { continue; }
    for (var t = s; t < p.time; t++) {
      let q = q_of(b, h, t);
      let at = o_of(b, h, t);
      var score = 0.0;
      var slope = 0.0;
      for (var j = 0u; j < D; j++) {
        score += qkv(q + j) * key[j];
        slope += d_out(at + j) * value[j];
      }
      let prob = exp_nan(p.scale * score - lse(lse_of(b, h, t)));
      let ds = p.scale * prob * (slope - mean(lse_of(b, h, t)));
      for (var j = 0u; j < D; j++) {
        dk[j] += ds * qkv(q + j);
        dv[j] += prob * d_out(at + j);
      }
    }
  }
  for (var j = 0u; j < D; j++) { set_dqkv(k + j, dk[j]); set_dqkv(v + j, dv[j]); }`,
    });
  },
  attentionJvp(context, params, { qkv, o, lse, dqkv }, { dOut }) {
    const { batch, time, heads, headDim } = params;
    const tiled = tiledWith(context, params);
    if (tiled !== null && tiledForwardMode(context, params, tiled, { qkv, o, lse, dqkv }, { dOut })) return;
    each(context, batch * heads * time, {
      key: `attentionJvp ${headDim}`,
      operands: operandsOf({ qkv, o, lse, dqkv }, { d_out: dOut }),
      scalars: scalarsOf(params),
      declarations: places(headDim),
      body: `${query}  let at = o_of(b, h, t);
  let log_sum = lse(lse_of(b, h, t));
  var own: array<f32, D>;
  var d: array<f32, D>;
  var sum: array<f32, D>;
  for (var j = 0u; j < D; j++) { own[j] = qkv(q + j); d[j] = dqkv(q + j); sum[j] = 0.0; }
  var center = 0.0;
  for (var s = 0u; s <= t; s++) {
    let k = k_of(b, g, s);
    let v = v_of(b, g, s);
    var score = 0.0;
    var slope = 0.0;
    for (var j = 0u; j < D; j++) {
      score += own[j] * qkv(k + j);
      slope += d[j] * qkv(k + j) + own[j] * dqkv(k + j);
    }
    let prob = exp_nan(p.scale * score - log_sum);
    let ds = p.scale * slope;
    center += prob * ds;
    for (var j = 0u; j < D; j++) { sum[j] += prob * (ds * qkv(v + j) + dqkv(v + j)); }
  }
  for (var j = 0u; j < D; j++) { set_d_out(at + j, sum[j] - center * o(at + j)); }`,
    });
  },
};
