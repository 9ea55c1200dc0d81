/**
 * Causal attention for GPUs, by tiles in workgroup memory (Dao et al. 2022, FlashAttention; its backward pass recomputes the probabilities from the
 * log-sum-exp).
 *
 * A workgroup computes a block of rows of one head (queries; for dk and dv, keys) and goes through the blocks of the other side. Each invocation computes four
 * rows and a few columns of every block of scores, and the same four rows and every eighth vector of four along the head of the sums. Tiles hold vectors of four
 * along the head, padded to whole vectors with zeros. If there are enough registers, the next content of a tile is fetched into them while the current one is used.
 * Hidden positions have weight 0. A NaN at such a position can still reach the queries of its own block (0 · NaN), unlike in the kernels without tiles.
 * There are no atomics: separate workgroups compute dq, and dk with dv, and each sums in a fixed order.
 */
import type { View } from "../../../tensor/memory.ts";
import type { AttentionParams, Inputs, NamedViews, Outputs } from "../../kernels/index.ts";
import { byFours, type Dispatch, type KernelContext, type Operand, operandsOf } from "../context.ts";

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

/** Number of lanes along the columns: invocations that share four rows. */
const LANES = 8;

/** Returns the largest blocks that fit the workgroup's memory with `fixed` tiles of rows; null if none fits. */
function blocksFor(headDim: number, storage: number, fixed: 1 | 2): Blocks | null {
  const stride = Math.ceil(headDim / 4) + 1;
  const bytes = ({ rows, cols }: Blocks): number =>
    16 * ((fixed * rows + cols) * stride + LANES + (cols + LANES) * (rows / 4));
  return SHAPES.find((blocks) => bytes(blocks) <= storage) ?? null;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const XYZW = ["x", "y", "z", "w"] as const;

/** Largest number of vectors of a tile that an invocation fetches ahead, since they occupy registers meanwhile. */
const MOST_AHEAD = 4;
/** Largest number of vectors that it fetches together just before they are stored. */
const MOST_TURNS = 8;

/** Whether operands can be read and written as vectors of four. A position has whole heads, so all rows then begin at a multiple of four. */
export const inFours = (headDim: number): boolean => headDim % 4 === 0;

/** Returns the operands of a pass. */
export const operandsFor = (headDim: number, read: NamedViews, written: NamedViews): Operand[] =>
  inFours(headDim)
    ? byFours(operandsOf(read, written), ["qkv", "o", "d_out", "dqkv"])
    : operandsOf(read, written);

/** Returns a loop over 0 ≤ name < count, unrolled by four if that divides. The compiler then knows that the indices are within bounds. */
function unrolled(name: string, count: number, body: (index: string) => string): string {
  const turns = count % 4 === 0 ? 4 : 1;
  return `  for (var ${name} = 0u; ${name} < ${count / turns}u; ${name}++) {
${range(turns)
  .map((u) => `    {\n${body(turns === 1 ? name : `${turns}u * ${name} + ${u}u`)}\n    }`)
  .join("\n")}
  }`;
}

/** An expression for the vector `quad` of row t. */
type Fetch = (t: string, quad: string) => string;

interface Stage {
  readonly declare: string;
  load(first: string): string;
  put(first: string): string;
}

/** A workgroup's blocks for heads of a width, and what one of its invocations computes. */
interface Layout extends Blocks {
  /** Whether operands are read and written as vectors of four. */
  readonly fours: boolean;
  /** Vectors of four along the head, and from one row of a tile to the next. */
  readonly quads: number;
  readonly stride: number;
  /** Number of invocations along the rows, which is also the distance between an invocation's rows. */
  readonly high: number;
  /** Counts an invocation's rows, its columns, and its vectors along the head. */
  readonly own: readonly number[];
  readonly across: readonly number[];
  readonly along: readonly number[];
}

function layoutOf(headDim: number, { rows, cols }: Blocks): Layout {
  const quads = Math.ceil(headDim / 4);
  return {
    ...{ rows, cols, quads, fours: inFours(headDim), stride: quads + 1, high: rows / 4 },
    own: range(4),
    across: range(cols / LANES),
    along: range(Math.ceil(quads / LANES)),
  };
}

/**
 * Fills a tile of `count` rows through registers called `name`: `load` fetches it, `put` stores it. `fetch(t, quad)` is an expression for the vector `quad` of
 * row t. If the tile needs too many registers, or does not divide among the invocations, it is fetched when it is stored.
 */
function stageOf(
  { quads, stride, high }: Layout,
  name: string,
  tile: string,
  count: number,
  fetch: Fetch,
): Stage {
  const invocations = high * LANES;
  const turns = (count * quads) / invocations;
  const place = (e: string): string => `(${e} / QUADS) * ${stride}u + ${e} % QUADS`;
  const nth = (turn: number): string => (turn === 0 ? "local" : `(local + ${turn * invocations}u)`);
  const declare = range(turns)
    .map((turn) => `  var ${name}${turn}: vec4f;`)
    .join("\n");
  const load = (first: string): string =>
    range(turns)
      .map(
        (turn) => `  ${name}${turn} = ${fetch(`${first} + ${nth(turn)} / QUADS`, `${nth(turn)} % QUADS`)};`,
      )
      .join("\n");
  const put = (): string =>
    range(turns)
      .map((turn) => `  ${tile}[${place(nth(turn))}] = ${name}${turn};`)
      .join("\n");
  if (Number.isInteger(turns) && turns <= MOST_AHEAD) return { declare, load, put };
  if (Number.isInteger(turns) && turns <= MOST_TURNS)
    return {
      declare: "",
      load: () => "",
      put: (first) => `  {\n${declare}\n${load(first)}\n${put()}\n  }`,
    };
  return {
    declare: "",
    load: () => "",
    put: (first) => `  for (var e = local; e < ${count * quads}u; e += ${invocations}u) {
    ${tile}[${place("e")}] = ${fetch(`${first} + e / QUADS`, "e % QUADS")};
  }`,
  };
}

/** Fetches a tile and stores it at once. */
function fillOf(layout: Layout, tile: string, count: number, first: string, fetch: Fetch): string {
  const { declare, load, put } = stageOf(layout, `${tile}_`, tile, count, fetch);
  return `  {\n${declare}\n${load(first)}\n${put(first)}\n  }`;
}

/**
 * Stores row i of `name` into `operand` from element `first(i)` on. It stores `value(i, sum, at)` for each sum, which is one element or a vector of four; `at` is
 * the position in the operand, in elements or in vectors.
 */
function storeOf(
  { fours, own, along }: Layout,
  name: string,
  operand: string,
  first: (i: number) => string,
  value: (i: number, sum: string, at: string) => string,
): string {
  const sum = (i: number, e: number): string[] => {
    if (fours) {
      const at = `first / 4u + x + ${e * LANES}u`;
      return [
        `    if (x + ${e * LANES}u < QUADS) { set_${operand}4(${at}, ${value(i, `${name}${i}_${e}`, at)}); }`,
      ];
    }
    return range(4).map((c) => {
      const d = `4u * (x + ${e * LANES}u) + ${c}u`;
      return `    if (${d} < D) { set_${operand}(first + ${d}, ${value(i, `${name}${i}_${e}.${XYZW[c]}`, `first + ${d}`)}); }`;
    });
  };
  return own
    .map(
      (i) => `  if (row${i} < p.time) {
    let first = ${first(i)};
${along.flatMap((e) => sum(i, e)).join("\n")}
  }`,
    )
    .join("\n");
}

/** What `stepsFor` returns. */
type Steps = ReturnType<typeof stepsFor>;

/** Returns the text of the steps that the passes share. */
function stepsFor(headDim: number, blocks: Blocks) {
  const layout = layoutOf(headDim, blocks);
  const { rows, cols, quads, stride, high, own, across, along } = layout;
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
    /** Declares y, x, and the rows of the scores that belong to the invocation's four rows. */
    start: `  let y = local / ${LANES}u;
  let x = local % ${LANES}u;
${own.map((i) => `  let row${i} = row_first + y + ${i * high}u;`).join("\n")}`,
    stage: (name: string, tile: string, count: number, fetch: Fetch): Stage =>
      stageOf(layout, name, tile, count, fetch),
    fill: (tile: string, count: number, first: string, fetch: Fetch): string =>
      fillOf(layout, tile, count, first, fetch),
    zeros: (name: string): string => each((i, j) => `  var ${name}${i}${j} = 0.0;`),
    /** name[i][j] += ⟨row i of the tile, row j of the stream⟩. */
    products(name: string, tile: string): string {
      return unrolled(
        "quad",
        quads,
        (
          quad,
        ) => `${own.map((i) => `    let f${i} = ${tile}[(y + ${i * high}u) * ${stride}u + ${quad}];`).join("\n")}
${across.map((j) => `    let c${j} = stream[(x + ${j * LANES}u) * ${stride}u + ${quad}];`).join("\n")}
${each((i, j) => `    ${name}${i}${j} += dot(f${i}, c${j});`)}`,
      );
    },
    /** Stores the weights for `accumulate`. */
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
      return unrolled(
        "c",
        cols,
        (c) => `    let w = weights[(${c}) * ${high}u + y];
${along.map((e) => `    let s${e} = stream[(${c}) * ${stride}u + x + ${e * LANES}u];`).join("\n")}
${own.map((i) => along.map((e) => `    ${name}${i}_${e} = fma(vec4f(w.${XYZW[i]}), s${e}, ${name}${i}_${e});`).join(" ")).join("\n")}`,
      );
    },
    /** Combines a value over the lanes that share four rows; every lane gets the result. */
    join(name: string, value: string, first: string, combine: (a: string, b: string) => string): string {
      return `  joins[x * ${high}u + y] = ${value};
  workgroupBarrier();
  var ${name} = ${first};
  for (var lane = 0u; lane < ${LANES}u; lane++) { ${name} = ${combine(name, `joins[lane * ${high}u + y]`)}; }`;
    },
    store: (
      name: string,
      operand: string,
      first: (i: number) => string,
      value: (i: number, sum: string, at: string) => string = (_, sum) => sum,
    ): string => storeOf(layout, name, operand, first, value),
  };
}

/** Returns a function in WGSL that reads four neighbours along the head, with zeros beyond its width and beyond the last position. */
const fetcher = (headDim: number, name: string, operand: string, place: string): string =>
  inFours(headDim)
    ? `fn ${name}(b: u32, h: u32, t: u32, quad: u32) -> vec4f {
  let inside = t < p.time;
  return select(vec4f(), ${operand}4(${place}(b, h, select(0u, t, inside)) / 4u + quad), inside);
}`
    : `fn ${name}(b: u32, h: u32, t: u32, quad: u32) -> vec4f {
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

/** Declares the workgroup's block of queries: row_first, h, b, g. The blocks that see the most keys come first. */
const queryBlock = ({ rows }: Blocks): string => `  let blocks = (p.time + ${rows - 1}u) / ${rows}u;
  let row_first = (blocks - 1u - group % blocks) * ${rows}u;
  let h = (group / blocks) % p.heads;
  let b = group / (blocks * p.heads);
  let g = h * p.kv_heads / p.heads;
  // Keys that any of the rows sees.
  let key_end = min(p.time, row_first + ${rows}u);`;

/** Dispatches the forward pass. Returns false if the head is too wide for the workgroup's memory. */
export function tiledForward(
  context: KernelContext,
  { batch, time, heads, headDim }: AttentionParams,
  { scalars = {}, places, storage }: Common,
  { qkv }: Inputs<"attention">,
  { o, lse }: Outputs<"attention">,
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
    operands: operandsFor(headDim, { qkv }, { o, lse }),
    scalars,
    workgroup: steps.workgroup,
    groups: batch * heads * Math.ceil(time / rows),
    declarations: () => `${places}
${steps.declarations(1)}
${fetcher(headDim, "fetch_q", "qkv", "q_of")}
${fetcher(headDim, "fetch_k", "qkv", "k_of")}
${fetcher(headDim, "fetch_v", "qkv", "v_of")}`,
    body: () => {
      const k = steps.stage("k", "stream", cols, (t, quad) => `fetch_k(b, g, ${t}, ${quad})`);
      const v = steps.stage("v", "stream", cols, (t, quad) => `fetch_v(b, g, ${t}, ${quad})`);
      return `${queryBlock(blocks)}
${steps.start}
${k.declare}
${k.load("0u")}
${steps.fill("fixed0", rows, "row_first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
  var most = vec4f(-inf());
  // Of this lane's columns alone.
  var total = vec4f();
${steps.sums("sum")}
  for (var first = 0u; first < key_end; first += ${cols}u) {
${barrier}
${k.put("first")}
${v.declare}
${v.load("first")}
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
${steps.each((i, j) => `  s${i}${j} = exp_nan(s${i}${j} - next.${XYZW[i]});`)}
  total = total * old + ${rowOf((terms) => terms.join(" + "))};
  most = next;
${steps.keep("s")}
${v.put("first")}
${k.load(`first + ${cols}u`)}
${barrier}
${steps.scaled("sum", "old")}
${steps.accumulate("sum")}
  }
${barrier}
${steps.join("whole", "total", "vec4f()", (a, b) => `${a} + ${b}`)}
${steps.store(
  "sum",
  "o",
  (i) => `o_of(b, h, row${i})`,
  (i, sum) => `${sum} / whole.${XYZW[i]}`,
)}
${own.map((i) => `  if (x == 0u && row${i} < p.time) { set_lse(lse_of(b, h, row${i}), select(most.${XYZW[i]} + log(whole.${XYZW[i]}), whole.${XYZW[i]}, is_nan(whole.${XYZW[i]}))); }`).join("\n")}`;
    },
  });
  return true;
}

/** The body of the vjp for a block of queries: dq. */
function backwardOfQueries(blocks: Blocks, steps: Steps): string {
  const { rows, cols } = blocks;
  const { own } = steps;
  const k = steps.stage("k", "stream", cols, (t, quad) => `fetch_k(b, g, ${t}, ${quad})`);
  const v = steps.stage("v", "stream", cols, (t, quad) => `fetch_v(b, g, ${t}, ${quad})`);
  return `${queryBlock(blocks)}
${steps.start}
${k.declare}
${k.load("0u")}
${steps.fill("fixed0", rows, "row_first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
${steps.fill("fixed1", rows, "row_first", (t, quad) => `fetch_d_out(b, h, ${t}, ${quad})`)}
${own.map((i) => `  let at${i} = lse_of(b, h, min(row${i}, p.time - 1u));\n  let log_sum${i} = lse(at${i});\n  let center${i} = mean(at${i});`).join("\n")}
${steps.sums("sum")}
  for (var first = 0u; first < key_end; first += ${cols}u) {
${barrier}
${k.put("first")}
${v.declare}
${v.load("first")}
${barrier}
${steps.zeros("s")}
${steps.products("s", "fixed0")}
${barrier}
${v.put("first")}
${barrier}
${steps.zeros("slope")}
${steps.products("slope", "fixed1")}
${steps.each((i, j) => `  s${i}${j} = select(0.0, p.scale * exp_nan(p.scale * s${i}${j} - log_sum${i}) * (slope${i}${j} - center${i}), first + x + ${j * LANES}u <= row${i});`)}
${barrier}
${steps.keep("s")}
${k.put("first")}
${k.load(`first + ${cols}u`)}
${barrier}
${steps.accumulate("sum")}
  }
${steps.store("sum", "dqkv", (i) => `q_of(b, h, row${i})`)}`;
}

/** The body of the vjp for a block of keys: dk and dv. Here rows are keys and columns are queries. Most queries see the first keys, so these come first. */
function backwardOfKeys({ rows, cols }: Blocks, steps: Steps): string {
  const { across } = steps;
  const q = steps.stage("q", "stream", cols, (t, quad) => `fetch_q(b, h, ${t}, ${quad})`);
  const dOuts = steps.stage("d", "stream", cols, (t, quad) => `fetch_d_out(b, h, ${t}, ${quad})`);
  return `  let blocks = (p.time + ${rows - 1}u) / ${rows}u;
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
${q.declare}
${q.load("row_first")}
  for (var first = row_first; first < p.time; first += ${cols}u) {
${barrier}
${q.put("first")}
${dOuts.declare}
${dOuts.load("first")}
${barrier}
${steps.zeros("s")}
${steps.products("s", "fixed0")}
${barrier}
${dOuts.put("first")}
${barrier}
${steps.zeros("slope")}
${steps.products("slope", "fixed1")}
${across.map((j) => `  let col${j} = first + x + ${j * LANES}u;\n  let at${j} = lse_of(b, h, min(col${j}, p.time - 1u));\n  let log_sum${j} = lse(at${j});\n  let center${j} = mean(at${j});`).join("\n")}
${steps.each((i, j) => `  s${i}${j} = select(0.0, exp_nan(p.scale * s${i}${j} - log_sum${j}), (row${i} <= col${j}) & (col${j} < p.time)); slope${i}${j} = select(0.0, p.scale * s${i}${j} * (slope${i}${j} - center${j}), (row${i} <= col${j}) & (col${j} < p.time));`)}
${steps.keep("s")}
${barrier}
${steps.accumulate("dv")}
${barrier}
${steps.keep("slope")}
${q.put("first")}
${q.load(`first + ${cols}u`)}
${barrier}
${steps.accumulate("dk")}
  }
  }
${steps.store("dk", "dqkv", (i) => `k_of(b, g, row${i})`)}
${steps.store("dv", "dqkv", (i) => `v_of(b, g, row${i})`)}`;
}

/** Dispatches the vjp: dq, and dk with dv. `mean` has ⟨do, o⟩ of every query. Returns false if the head is too wide. */
export function tiledBackward(
  context: KernelContext,
  { batch, time, heads, kvHeads, headDim }: AttentionParams,
  { scalars = {}, places, storage }: Common,
  { qkv, lse, dOut, mean }: Pick<Inputs<"attentionVjp">, "qkv" | "lse" | "dOut"> & { readonly mean: View },
  { dqkv }: Outputs<"attentionVjp">,
): boolean {
  const blocks = blocksFor(headDim, storage, 2);
  if (blocks === null) return false;
  const { rows, cols } = blocks;
  const steps = stepsFor(headDim, blocks);
  const shared = {
    operands: operandsFor(headDim, { qkv, lse, d_out: dOut, mean }, { dqkv }),
    scalars,
    workgroup: steps.workgroup,
    declarations: () => `${places}
${steps.declarations(2)}
${fetcher(headDim, "fetch_q", "qkv", "q_of")}
${fetcher(headDim, "fetch_k", "qkv", "k_of")}
${fetcher(headDim, "fetch_v", "qkv", "v_of")}
${fetcher(headDim, "fetch_d_out", "d_out", "o_of")}`,
  };
  const perHead = batch * Math.ceil(time / rows);
  context.dispatch({
    ...shared,
    key: `attentionVjp tiled ${headDim} ${rows}x${cols}`,
    groups: perHead * heads,
    body: () => backwardOfQueries(blocks, steps),
    // The keys have their own workgroups, after those of the queries. The two write to different columns.
    more: {
      groups: perHead * kvHeads,
      text: () => ({
        declarations: `fn of_keys(group: u32, local: u32) {\n${backwardOfKeys(blocks, steps)}\n}`,
        body: "  of_keys(group - p.groups, local);",
      }),
    },
  });
  return true;
}

/** Dispatches the jvp. Returns false if the head is too wide. */
export function tiledForwardMode(
  context: KernelContext,
  { batch, time, heads, headDim }: AttentionParams,
  { scalars = {}, places, storage }: Common,
  { qkv, o, lse, dqkv }: Inputs<"attentionJvp">,
  { dOut }: Outputs<"attentionJvp">,
): boolean {
  const blocks = blocksFor(headDim, storage, 2);
  if (blocks === null) return false;
  const { rows, cols } = blocks;
  const steps = stepsFor(headDim, blocks);
  const { own, across } = steps;
  context.dispatch({
    key: `attentionJvp tiled ${headDim} ${rows}x${cols}`,
    operands: operandsFor(headDim, { qkv, o, lse, dqkv }, { d_out: dOut }),
    scalars,
    workgroup: steps.workgroup,
    groups: batch * heads * Math.ceil(time / rows),
    declarations: () => `${places}
${steps.declarations(2)}
${fetcher(headDim, "fetch_q", "qkv", "q_of")}
${fetcher(headDim, "fetch_k", "qkv", "k_of")}
${fetcher(headDim, "fetch_v", "qkv", "v_of")}
${fetcher(headDim, "fetch_dq", "dqkv", "q_of")}
${fetcher(headDim, "fetch_dk", "dqkv", "k_of")}
${fetcher(headDim, "fetch_dv", "dqkv", "v_of")}`,
    body: () => {
      const stage = (name: string): Stage =>
        steps.stage(name, "stream", cols, (t, quad) => `fetch_${name}(b, g, ${t}, ${quad})`);
      const [k, dk, v, dv] = [stage("k"), stage("dk"), stage("v"), stage("dv")];
      return `${queryBlock(blocks)}
${steps.start}
${k.declare}
${k.load("0u")}
${steps.fill("fixed0", rows, "row_first", (t, quad) => `fetch_q(b, h, ${t}, ${quad})`)}
${steps.fill("fixed1", rows, "row_first", (t, quad) => `fetch_dq(b, h, ${t}, ${quad})`)}
${own.map((i) => `  let log_sum${i} = lse(lse_of(b, h, min(row${i}, p.time - 1u)));`).join("\n")}
  // Of this lane's columns alone.
  var center = vec4f();
${steps.sums("sum")}
  for (var first = 0u; first < key_end; first += ${cols}u) {
${barrier}
${k.put("first")}
${dk.declare}
${dk.load("first")}
${barrier}
${steps.zeros("s")}
${steps.zeros("slope")}
${steps.products("s", "fixed0")}
${steps.products("slope", "fixed1")}
${barrier}
${dk.put("first")}
${v.declare}
${v.load("first")}
${barrier}
${steps.products("slope", "fixed0")}
${steps.each((i, j) => `  s${i}${j} = select(0.0, exp_nan(p.scale * s${i}${j} - log_sum${i}), first + x + ${j * LANES}u <= row${i}); slope${i}${j} = select(0.0, p.scale * slope${i}${j} * s${i}${j}, first + x + ${j * LANES}u <= row${i});`)}
  center += vec4f(${own.map((i) => across.map((j) => `slope${i}${j}`).join(" + ")).join(", ")});
${barrier}
${steps.keep("slope")}
${v.put("first")}
${dv.declare}
${dv.load("first")}
${barrier}
${steps.accumulate("sum")}
${barrier}
${steps.keep("s")}
${dv.put("first")}
${k.load(`first + ${cols}u`)}
${barrier}
${steps.accumulate("sum")}
  }
${barrier}
${steps.join("whole", "center", "vec4f()", (a, b) => `${a} + ${b}`)}
${steps.store(
  "sum",
  "d_out",
  (i) => `o_of(b, h, row${i})`,
  (i, sum, at) => `${sum} - whole.${XYZW[i]} * ${inFours(headDim) ? "o4" : "o"}(${at})`,
)}`;
    },
  });
  return true;
}
