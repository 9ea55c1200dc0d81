/**
 * Attention with a mask, and its derivatives. An invocation takes a query (for dk and dv a key) and goes through the keys (queries) in order, so nothing of size
 * time × keys is stored except the mask. The derivatives are divided into several dispatches, because a shader may bind only eight buffers.
 */
import type { View } from "../../../tensor/memory.ts";
import type { Inputs, MaskedAttentionParams, NamedViews, Outputs } from "../../kernels/index.ts";
import { elementwise as each, f32, type KernelContext, type Launchers, operandsOf, u32 } from "../context.ts";
import { EXP_NAN } from "./elementwise.ts";

/** Returns the functions and scalars that all of these shaders share. */
function shared(p: MaskedAttentionParams, mask: View | null) {
  return {
    scalars: {
      time: u32(p.time),
      keys: u32(p.keys),
      heads: u32(p.heads),
      kv_heads: u32(p.kvHeads),
      scale: f32(p.scale),
      mask_items: u32(p.maskBatch),
      mask_heads: u32(p.maskHeads),
    },
    name: `${p.headDim} ${p.causal ? "causal" : ""} ${mask === null ? "" : "mask"}`,
    declarations: `${EXP_NAN}
const D = ${p.headDim}u;
// First element of the key or value s that query head h (counted over the batch) reads.
fn key_of(head: u32, s: u32) -> u32 {
  return (((head / p.heads) * p.kv_heads + (head % p.heads) * p.kv_heads / p.heads) * p.keys + s) * D;
}
fn mask_of(head: u32, t: u32, s: u32) -> f32 {
  ${mask === null ? "return 0.0;" : "return mask(((((head / p.heads) % p.mask_items) * p.mask_heads + (head % p.heads) % p.mask_heads) * p.time + t) * p.keys + s);"}
}
// Keys that a query sees; with a causal mask the last one sees all.
fn seen(t: u32) -> u32 {
  return ${p.causal ? "u32(max(0, min(i32(p.keys), i32(t) + 1 + i32(p.keys) - i32(p.time))))" : "p.keys"};
}`,
  };
}

/** Finds the invocation's query and loads it into registers. */
const QUERY = `  let t = i % p.time;
  let head = i / p.time;
  var own: array<f32, D>;
  for (var j = 0u; j < D; j++) { own[j] = q(i * D + j); }
`;

/** Computes the score of key s, whose first element is `at`. */
const SCORE = `    let at = key_of(head, s);
    var score = 0.0;
    for (var j = 0u; j < D; j++) { score += own[j] * k(at + j); }
    score = p.scale * score + mask_of(head, t, s);
`;

/** Returns a loop over the keys of the invocation's query with their weights, if it sees any. */
const weighted = (body: string): string => `  let log_sum = lse(i);
  let count = select(seen(t), 0u, log_sum == -inf());
  for (var s = 0u; s < count; s++) {
${SCORE}    let weight = exp_nan(score - log_sum);
${body}
  }`;

function backward(
  context: KernelContext,
  p: MaskedAttentionParams,
  { q, k, v, mask = null, o, lse, dOut }: Inputs<"maskedAttentionVjp">,
  { dq, dk, dv }: Outputs<"maskedAttentionVjp">,
): void {
  const { name, ...common } = shared(p, mask);
  const queries = p.batch * p.heads * p.time;
  const mean = context.scratch(Math.max(1, queries));
  each(context, queries, {
    key: `maskedAttentionVjp mean ${p.headDim}`,
    operands: operandsOf({ o, d_out: dOut }, { mean }),
    body: `  var sum = 0.0;
  for (var j = 0u; j < ${p.headDim}u; j++) { sum += d_out(i * ${p.headDim}u + j) * o(i * ${p.headDim}u + j); }
  set_mean(i, sum);`,
  });
  each(context, queries, {
    ...common,
    key: `maskedAttentionVjp dq ${name}`,
    operands: operandsOf({ q, k, v, mask, lse, d_out: dOut, mean }, { dq }),
    body: `${QUERY}  var sum: array<f32, D>;
  for (var j = 0u; j < D; j++) { sum[j] = 0.0; }
${weighted(`    var slope = 0.0;
    for (var j = 0u; j < D; j++) { slope += d_out(i * D + j) * v(at + j); }
    let ds = p.scale * weight * (slope - mean(i));
    for (var j = 0u; j < D; j++) { sum[j] += ds * k(at + j); }`)}
  for (var j = 0u; j < D; j++) { set_dq(i * D + j, sum[j]); }`,
  });
  /** Dispatches one invocation per key, which goes through the queries of the heads that read the key. */
  const byKey = (kernel: string, views: NamedViews, out: View, term: string): void =>
    each(context, p.batch * p.kvHeads * p.keys, {
      ...common,
      key: `maskedAttentionVjp ${kernel} ${name}`,
      operands: operandsOf({ q, k, mask, lse, d_out: dOut, ...views }, { out }),
      body: `  let s = i % p.keys;
  let readers = p.heads / p.kv_heads;
  let first = (i / p.keys) * readers;
  var own: array<f32, D>;
  var sum: array<f32, D>;
  for (var j = 0u; j < D; j++) { own[j] = k(i * D + j); sum[j] = 0.0; }
  for (var head = first; head < first + readers; head++) {
    for (var t = 0u; t < p.time; t++) {
      let query = head * p.time + t;
      let log_sum = lse(query);
      if (s >= seen(t) || log_sum == -inf()) { continue; }
      var score = 0.0;
      for (var j = 0u; j < D; j++) { score += q(query * D + j) * own[j]; }
      let weight = exp_nan(p.scale * score + mask_of(head, t, s) - log_sum);
${term}
    }
  }
  for (var j = 0u; j < D; j++) { set_out(i * D + j, sum[j]); }`,
    });
  byKey(
    "dk",
    { v, mean },
    dk,
    `      var slope = 0.0;
      for (var j = 0u; j < D; j++) { slope += d_out(query * D + j) * v(i * D + j); }
      let ds = p.scale * weight * (slope - mean(query));
      for (var j = 0u; j < D; j++) { sum[j] += ds * q(query * D + j); }`,
  );
  byKey("dv", {}, dv, `      for (var j = 0u; j < D; j++) { sum[j] += weight * d_out(query * D + j); }`);
}

export const maskedAttention: Pick<
  Launchers,
  "maskedAttention" | "maskedAttentionVjp" | "maskedAttentionJvp"
> = {
  maskedAttention(context, p, { q, k, v, mask = null }, { o, lse }) {
    const { name, ...common } = shared(p, mask);
    each(context, p.batch * p.heads * p.time, {
      ...common,
      key: `maskedAttention ${name}`,
      operands: operandsOf({ q, k, v, mask }, { o, lse }),
      body: `${QUERY}  var sum: array<f32, D>;
  for (var j = 0u; j < D; j++) { sum[j] = 0.0; }
  var most = -inf();
  var total = 0.0;
  let count = seen(t);
  for (var s = 0u; s < count; s++) {
${SCORE}    // A key that weighs nothing changes nothing; before the first that does there is nothing to keep.
    if (score == -inf()) { continue; }
    // NaN must stay: a comparison with it is false either way.
    let next = select(max(most, score), score, is_nan(score));
    let keep = select(exp_nan(most - next), 0.0, most == -inf());
    let weight = exp_nan(score - next);
    total = total * keep + weight;
    for (var j = 0u; j < D; j++) { sum[j] = sum[j] * keep + weight * v(at + j); }
    most = next;
  }
  let blind = most == -inf();
  for (var j = 0u; j < D; j++) { set_o(i * D + j, select(sum[j] / total, 0.0, blind)); }
  set_lse(i, select(select(most + log(total), total, is_nan(total)), -inf(), blind));`,
    });
  },

  maskedAttentionVjp: (context, p, inputs, outputs) => backward(context, p, inputs, outputs),

  maskedAttentionJvp(context, p, { q, k, v, mask = null, o, lse, dq: tq, dk: tk, dv: tv }, { dOut: to }) {
    const { name, ...common } = shared(p, mask);
    const dispatch = (part: string, views: NamedViews, begin: string, body: string, end: string) =>
      each(context, p.batch * p.heads * p.time, {
        ...common,
        key: `maskedAttentionJvp ${part} ${name}`,
        operands: operandsOf({ q, k, mask, lse, ...views }, { out: to }),
        body: `${QUERY}  var sum: array<f32, D>;
${begin}
${weighted(body)}
${end}`,
      });
    dispatch(
      "v",
      { tv },
      "  for (var j = 0u; j < D; j++) { sum[j] = 0.0; }",
      "    for (var j = 0u; j < D; j++) { sum[j] += weight * tv(at + j); }",
      "  for (var j = 0u; j < D; j++) { set_out(i * D + j, sum[j]); }",
    );
    const added = (part: string, views: NamedViews, product: string): void =>
      dispatch(
        part,
        { v, o, ...views },
        "  for (var j = 0u; j < D; j++) { sum[j] = 0.0; }\n  var center = 0.0;",
        `    var slope = 0.0;
    for (var j = 0u; j < D; j++) { slope += ${product}; }
    let ds = p.scale * weight * slope;
    center += ds;
    for (var j = 0u; j < D; j++) { sum[j] += ds * v(at + j); }`,
        "  for (var j = 0u; j < D; j++) { set_out(i * D + j, out(i * D + j) + sum[j] - center * o(i * D + j)); }",
      );
    added("q", { tq }, "tq(i * D + j) * k(at + j)");
    added("k", { tk }, "own[j] * tk(at + j)");
  },
};
