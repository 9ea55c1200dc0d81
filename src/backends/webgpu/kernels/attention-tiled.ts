/**
 * Causal attention for GPUs, by tiles through workgroup memory (Dao et al. 2022, FlashAttention; its backward pass recomputes the probabilities from the
 * log-sum-exp).
 *
 * A workgroup owns a block of rows of one head (queries; for dk and dv, keys) and walks the blocks on the other side. Of every block of scores an invocation
 * has four rows and a few columns; of what is summed it has the same four rows and every eighth vector of four along the head. Tiles hold vectors of four
 * along the head, padded to whole vectors with zeros. Positions that a query does not see weigh 0; a NaN there can still reach the queries of its own block
 * (0 · NaN), where the walk one by one would not touch it. No atomics: dq and dk, dv are made by two kernels, each adding up in a fixed order.
 */
import type { View } from "../../../tensor/memory.ts";
import type { AttentionParams } from "../../kernels.ts";
import { type Dispatch, type KernelContext, operandsOf } from "../context.ts";

/** Rows and columns of a block of scores. */
interface Blocks {
  readonly rows: number;
  readonly cols: number;
}

const SHAPES: readonly Blocks[] = [
  { rows: 64, cols: 32 },
  { rows: 32, cols: 32 },
  { rows: 32, cols: 16 },
];

/** Lanes along the columns; invocations that share four rows. */
const LANES = 8;

/** The largest blocks that fit the workgroup's memory with so many tiles of rows; null when none does. */
function blocksFor(headDim: number, storage: number, fixed: 1 | 2): Blocks | null {
  const stride = Math.ceil(headDim / 4) + 1;
  const bytes = ({ rows, cols }: Blocks): number =>
    16 * ((fixed * rows + cols) * stride + LANES + (cols + LANES) * (rows / 4));
  return SHAPES.find((blocks) => bytes(blocks) <= storage) ?? null;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const XYZW = ["x", "y", "z", "w"] as const;

/** What the passes share: the text of their steps. */
function stepsFor(headDim: number, { rows, cols }: Blocks) {
  const quads = Math.ceil(headDim / 4);
  const stride = quads + 1;
  /** Invocations along the rows: an invocation's rows lie so far apart. */
  const high = rows / 4;
  const [own, across, along] = [range(4), range(cols / LANES), range(Math.ceil(quads / LANES))];
  const each = (line: (i: number, j: number) => string): string =>
    own.map((i) => across.map((j) => line(i, j)).join(" ")).join("\n");
  return {
    workgroup: high * LANES,
    own,
    across,
    each,
    declarations(fixed: 1 | 2): string {
      return `const QUADS = ${quads}u;
var<workgroup> stream: array<vec4f, ${cols * stride + LANES}>;
${range(fixed)
  .map((f) => `var<workgroup> fixed${f}: array<vec4f, ${rows * stride}>;`)
  .join("\n")}
// Of a column and four rows.
var<workgroup> weights: array<vec4f, ${cols * high}>;
var<workgroup> joins: array<vec4f, ${LANES * high}>;`;
    },
    /** y, x, and the row of the scores that each of the four is. */
    start: `  let y = local / ${LANES}u;
  let x = local % ${LANES}u;
${own.map((i) => `  let row${i} = row_first + y + ${i * high}u;`).join("\n")}`,
    /** `fetch(t, quad)` is an expression for the vector `quad` of row t. */
    fill(tile: string, count: number, first: string, fetch: (t: string, quad: string) => string): string {
      return `  for (var e = local; e < ${count * quads}u; e += ${high * LANES}u) {
    ${tile}[(e / QUADS) * ${stride}u + e % QUADS] = ${fetch(`${first} + e / QUADS`, "e % QUADS")};
  }`;
    },
    zeros: (name: string): string => each((i, j) => `  var ${name}${i}${j} = 0.0;`),
    /** name[i][j] += ⟨row i of the tile, row j of the stream⟩. */
    products(name: string, tile: string): string {
      return `  for (var quad = 0u; quad < QUADS; quad++) {
${own.map((i) => `    let f${i} = ${tile}[(y + ${i * high}u) * ${stride}u + quad];`).join("\n")}
${across.map((j) => `    let c${j} = stream[(x + ${j * LANES}u) * ${stride}u + quad];`).join("\n")}
${each((i, j) => `    ${name}${i}${j} += dot(f${i}, c${j});`)}
  }`;
    },
    /** What `accumulate` will weigh with. */
    keep: (name: string): string =>
      across
        .map(
          (j) =>
            `  weights[(x + ${j * LANES}u) * ${high}u + y] = vec4f(${own.map((i) => `${name}${i}${j}`).join(", ")});`,
        )
        .join("\n"),
    sums: (name: string): string =>
      own.map((i) => along.map((e) => `  var ${name}${i}_${e} = vec4f();`).join(" ")).join("\n"),
    scaled: (name: string, factor: string): string =>
      own.map((i) => along.map((e) => `  ${name}${i}_${e} *= ${factor}.${XYZW[i]};`).join(" ")).join("\n"),
    /** sum[row] += Σ over columns of weight · row of the stream. */
    accumulate(name: string): string {
      return `  for (var c = 0u; c < ${cols}u; c++) {
    let w = weights[c * ${high}u + y];
${along.map((e) => `    let s${e} = stream[c * ${stride}u + x + ${e * LANES}u];`).join("\n")}
${own.map((i) => along.map((e) => `    ${name}${i}_${e} = fma(vec4f(w.${XYZW[i]}), s${e}, ${name}${i}_${e});`).join(" ")).join("\n")}
  }`;
    },
    /** Every lane of four rows gets what all of them have, joined. */
    join(name: string, value: string, first: string, combine: (a: string, b: string) => string): string {
      return `  joins[x * ${high}u + y] = ${value};
  workgroupBarrier();
  var ${name} = ${first};
  for (var lane = 0u; lane < ${LANES}u; lane++) { ${name} = ${combine(name, `joins[lane * ${high}u + y]`)}; }`;
    },
    /** `set(t, d, value)` stores element d of row t. */
    store(name: string, set: (row: number, d: string, value: string) => string): string {
      return own
        .map(
          (i) => `  if (row${i} < p.time) {
${along
  .flatMap((e) =>
    range(4).map((c) => {
      const d = `4u * (x + ${e * LANES}u) + ${c}u`;
      return `    if (${d} < D) { ${set(i, d, `${name}${i}_${e}.${XYZW[c]}`)} }`;
    }),
  )
  .join("\n")}
  }`,
        )
        .join("\n");
    },
  };
}

/** A function that reads four neighbours along the head, zeros beyond its width and beyond the last position. */
const fetcher = (name: string, operand: string, place: string): string =>
  `fn ${name}(b: u32, h: u32, t: u32, quad: u32) -> vec4f {
  let inside = t < p.time;
  let at = ${place}(b, h, select(0u, t, inside)) + 4u * quad;
  return vec4f(${range(4)
    .map(
      (c) => `select(0.0, ${operand}(at + min(${c}u, D - 1u - 4u * quad)), inside & (4u * quad + ${c}u < D))`,
    )
    .join(",\n    ")});
}`;

const barrier = "  workgroupBarrier();";

type Common = Pick<Dispatch, "scalars"> & { readonly places: string; readonly storage: number };

/** The block of queries of the workgroup, the longest first: row_first, h, b, g. */
const queryBlock = ({ rows }: Blocks): string => `  let blocks = (p.time + ${rows - 1}u) / ${rows}u;
  let row_first = (blocks - 1u - group % blocks) * ${rows}u;
  let h = (group / blocks) % p.heads;
  let b = group / (blocks * p.heads);
  let g = h * p.kv_heads / p.heads;
  // Keys that any of the rows sees.
  let key_end = min(p.time, row_first + ${rows}u);`;

/** False when the head is too wide for the workgroup's memory. */
export function tiledForward(
  context: KernelContext,
  { batch, time, heads, headDim }: AttentionParams,
  { scalars = {}, places, storage }: Common,
  [qkv, o, lse]: readonly (View | null)[],
): boolean {
  const blocks = blocksFor(headDim, storage, 1);
  if (blocks === null) return false;
  const { rows, cols } = blocks;
  const steps = stepsFor(headDim, blocks);
  const { own, across } = steps;
  const rowOf = (f: (terms: string[]) => string): string =>
    `vec4f(${own.map((i) => f(across.map((j) => `s${i}${j}`))).join(", ")})`;
  context.dispatch({
    key: `attention tiled ${headDim} ${rows}x${cols}`,
    operands: operandsOf({ qkv }, { o, lse }),
    scalars,
    workgroup: steps.workgroup,
    groups: batch * heads * Math.ceil(time / rows),
    declarations: () => `${places}
${steps.declarations(1)}
${fetcher("fetch_q", "qkv", "q_of")}
${fetcher("fetch_k", "qkv", "k_of")}
${fetcher("fetch_v", "qkv", "v_of")}`,
    body: () => `${queryBlock(blocks)}
${steps.start}
${steps.fill("fixed0", rows, "row_first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
  var most = vec4f(-inf());
  // Of this lane's columns alone.
  var total = vec4f();
${steps.sums("sum")}
  for (var first = 0u; first < key_end; first += ${cols}u) {
${barrier}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_k(b, g, ${t}, ${quad})`)}
${barrier}
${steps.zeros("s")}
${steps.products("s", "fixed0")}
${steps.each((i, j) => `  s${i}${j} = select(-inf(), p.scale * s${i}${j}, first + x + ${j * LANES}u <= row${i});`)}
${steps.join(
  "next",
  rowOf((terms) => terms.reduce((a, b) => `max(${a}, ${b})`)),
  "most",
  (a, b) => `max(${a}, ${b})`,
)}
  let old = exp(most - next);
${steps.each((i, j) => `  s${i}${j} = exp(s${i}${j} - next.${XYZW[i]});`)}
  total = total * old + ${rowOf((terms) => terms.join(" + "))};
  most = next;
${steps.keep("s")}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_v(b, g, ${t}, ${quad})`)}
${barrier}
${steps.scaled("sum", "old")}
${steps.accumulate("sum")}
  }
${barrier}
${steps.join("whole", "total", "vec4f()", (a, b) => `${a} + ${b}`)}
${steps.store("sum", (i, d, value) => `set_o(o_of(b, h, row${i}) + ${d}, ${value} / whole.${XYZW[i]});`)}
${own.map((i) => `  if (x == 0u && row${i} < p.time) { set_lse(lse_of(b, h, row${i}), most.${XYZW[i]} + log(whole.${XYZW[i]})); }`).join("\n")}`,
  });
  return true;
}

/** dq, and dk with dv; `mean` has ⟨do, o⟩ of every query. False when the head is too wide. */
export function tiledBackward(
  context: KernelContext,
  { batch, time, heads, kvHeads, headDim }: AttentionParams,
  { scalars = {}, places, storage }: Common,
  [qkv, lse, dOut, mean, dqkv]: readonly (View | null)[],
): boolean {
  const blocks = blocksFor(headDim, storage, 2);
  if (blocks === null) return false;
  const { rows, cols } = blocks;
  const steps = stepsFor(headDim, blocks);
  const { own, across } = steps;
  const shared = {
    operands: operandsOf({ qkv, lse, d_out: dOut, mean }, { dqkv }),
    scalars,
    workgroup: steps.workgroup,
    declarations: () => `${places}
${steps.declarations(2)}
${fetcher("fetch_q", "qkv", "q_of")}
${fetcher("fetch_k", "qkv", "k_of")}
${fetcher("fetch_v", "qkv", "v_of")}
${fetcher("fetch_d_out", "d_out", "o_of")}`,
  };
  context.dispatch({
    ...shared,
    key: `attentionVjp tiled dq ${headDim} ${rows}x${cols}`,
    groups: batch * heads * Math.ceil(time / rows),
    body: () => `${queryBlock(blocks)}
${steps.start}
${steps.fill("fixed0", rows, "row_first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
${steps.fill("fixed1", rows, "row_first", (t, quad) => `fetch_d_out(b, h, ${t}, ${quad})`)}
${own.map((i) => `  let at${i} = lse_of(b, h, min(row${i}, p.time - 1u));\n  let log_sum${i} = lse(at${i});\n  let center${i} = mean(at${i});`).join("\n")}
${steps.sums("sum")}
  for (var first = 0u; first < key_end; first += ${cols}u) {
${barrier}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_k(b, g, ${t}, ${quad})`)}
${barrier}
${steps.zeros("s")}
${steps.products("s", "fixed0")}
${barrier}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_v(b, g, ${t}, ${quad})`)}
${barrier}
${steps.zeros("slope")}
${steps.products("slope", "fixed1")}
${steps.each((i, j) => `  s${i}${j} = select(0.0, p.scale * exp(p.scale * s${i}${j} - log_sum${i}) * (slope${i}${j} - center${i}), first + x + ${j * LANES}u <= row${i});`)}
${barrier}
${steps.keep("s")}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_k(b, g, ${t}, ${quad})`)}
${barrier}
${steps.accumulate("sum")}
  }
${steps.store("sum", (i, d, value) => `set_dqkv(q_of(b, h, row${i}) + ${d}, ${value});`)}`,
  });
  context.dispatch({
    ...shared,
    key: `attentionVjp tiled dkv ${headDim} ${rows}x${cols}`,
    groups: batch * kvHeads * Math.ceil(time / rows),
    // Here rows are keys and columns queries. The first keys are seen by most queries: they go first.
    body: () => `  let blocks = (p.time + ${rows - 1}u) / ${rows}u;
  let row_first = (group % blocks) * ${rows}u;
  let g = (group / blocks) % p.kv_heads;
  let b = group / (blocks * p.kv_heads);
${steps.start}
${steps.fill("fixed0", rows, "row_first", (t, quad) => `fetch_k(b, g, ${t}, ${quad})`)}
${steps.fill("fixed1", rows, "row_first", (t, quad) => `fetch_v(b, g, ${t}, ${quad})`)}
${steps.sums("dk")}
${steps.sums("dv")}
  for (var h = 0u; h < p.heads; h++) {
  if (h * p.kv_heads / p.heads != g) { continue; }
  for (var first = row_first; first < p.time; first += ${cols}u) {
${barrier}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
${barrier}
${steps.zeros("s")}
${steps.products("s", "fixed0")}
${barrier}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_d_out(b, h, ${t}, ${quad})`)}
${barrier}
${steps.zeros("slope")}
${steps.products("slope", "fixed1")}
${across.map((j) => `  let col${j} = first + x + ${j * LANES}u;\n  let at${j} = lse_of(b, h, min(col${j}, p.time - 1u));\n  let log_sum${j} = lse(at${j});\n  let center${j} = mean(at${j});`).join("\n")}
${steps.each((i, j) => `  s${i}${j} = select(0.0, exp(p.scale * s${i}${j} - log_sum${j}), (row${i} <= col${j}) & (col${j} < p.time)); slope${i}${j} = select(0.0, p.scale * s${i}${j} * (slope${i}${j} - center${j}), (row${i} <= col${j}) & (col${j} < p.time));`)}
${steps.keep("s")}
${barrier}
${steps.accumulate("dv")}
${barrier}
${steps.keep("slope")}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
${barrier}
${steps.accumulate("dk")}
  }
  }
${steps.store("dk", (i, d, value) => `set_dqkv(k_of(b, g, row${i}) + ${d}, ${value});`)}
${steps.store("dv", (i, d, value) => `set_dqkv(v_of(b, g, row${i}) + ${d}, ${value});`)}`,
  });
  return true;
}

/** False when the head is too wide. */
export function tiledForwardMode(
  context: KernelContext,
  { batch, time, heads, headDim }: AttentionParams,
  { scalars = {}, places, storage }: Common,
  [qkv, o, lse, dqkv, dOut]: readonly (View | null)[],
): boolean {
  const blocks = blocksFor(headDim, storage, 2);
  if (blocks === null) return false;
  const { rows, cols } = blocks;
  const steps = stepsFor(headDim, blocks);
  const { own, across } = steps;
  context.dispatch({
    key: `attentionJvp tiled ${headDim} ${rows}x${cols}`,
    operands: operandsOf({ qkv, o, lse, dqkv }, { d_out: dOut }),
    scalars,
    workgroup: steps.workgroup,
    groups: batch * heads * Math.ceil(time / rows),
    declarations: () => `${places}
${steps.declarations(2)}
${fetcher("fetch_q", "qkv", "q_of")}
${fetcher("fetch_k", "qkv", "k_of")}
${fetcher("fetch_v", "qkv", "v_of")}
${fetcher("fetch_dq", "dqkv", "q_of")}
${fetcher("fetch_dk", "dqkv", "k_of")}
${fetcher("fetch_dv", "dqkv", "v_of")}`,
    body: () => `${queryBlock(blocks)}
${steps.start}
${steps.fill("fixed0", rows, "row_first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
${steps.fill("fixed1", rows, "row_first", (t, quad) => `fetch_dq(b, h, ${t}, ${quad})`)}
${own.map((i) => `  let log_sum${i} = lse(lse_of(b, h, min(row${i}, p.time - 1u)));`).join("\n")}
  // Of this lane's columns alone.
  var center = vec4f();
${steps.sums("sum")}
  for (var first = 0u; first < key_end; first += ${cols}u) {
${barrier}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_k(b, g, ${t}, ${quad})`)}
${barrier}
${steps.zeros("s")}
${steps.zeros("slope")}
${steps.products("s", "fixed0")}
${steps.products("slope", "fixed1")}
${barrier}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_dk(b, g, ${t}, ${quad})`)}
${barrier}
${steps.products("slope", "fixed0")}
${steps.each((i, j) => `  s${i}${j} = select(0.0, exp(p.scale * s${i}${j} - log_sum${i}), first + x + ${j * LANES}u <= row${i}); slope${i}${j} = select(0.0, p.scale * slope${i}${j} * s${i}${j}, first + x + ${j * LANES}u <= row${i});`)}
  center += vec4f(${own.map((i) => across.map((j) => `slope${i}${j}`).join(" + ")).join(", ")});
${barrier}
${steps.keep("slope")}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_v(b, g, ${t}, ${quad})`)}
${barrier}
${steps.accumulate("sum")}
${barrier}
${steps.keep("s")}
${steps.fill("stream", cols, "first", (t, quad) => `fetch_dv(b, g, ${t}, ${quad})`)}
${barrier}
${steps.accumulate("sum")}
  }
${barrier}
${steps.join("whole", "center", "vec4f()", (a, b) => `${a} + ${b}`)}
${steps.store("sum", (i, d, value) => `set_d_out(o_of(b, h, row${i}) + ${d}, ${value} - whole.${XYZW[i]} * o(o_of(b, h, row${i}) + ${d}));`)}`,
  });
  return true;
}
