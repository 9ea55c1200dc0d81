/**
 * The text of a matrix product on tensor cores (matrices.ts): operands rounded to f16, sums in f32.
 *
 * A workgroup computes a tile, and each of its subgroups a rectangle of the tile in matrices of 16 × 16. Operands are rounded when they are stored in workgroup
 * memory, where they keep the layout of their storage; a matrix is then loaded by rows or by columns. The next slice of k is fetched into registers while
 * this one is multiplied. Sums are stored to workgroup memory, one matrix per subgroup at a time, since the epilogue needs the position of each element.
 */
import type { TensorCores } from "../context.ts";
import { type TextOptions, type TiledText, tilePlace } from "./gemm-tiled.ts";
import { EDGE, type Matrices, matricesFor } from "./matrices.ts";

export interface TensorTile {
  readonly rows: number;
  readonly cols: number;
  /** Elements of k per slice. */
  readonly depth: number;
  /** Rows and columns per subgroup: multiples of 16. */
  readonly ownRows: number;
  readonly ownCols: number;
}

export type TensorTileName =
  | "tensor 128x128"
  | "tensor 128x128 by 16"
  | "tensor 256x128 by 16"
  | "tensor 128x128 of 64x64"
  | "tensor 64x64";

export const tensorTiles: { readonly [K in TensorTileName]: TensorTile } = {
  "tensor 128x128": { rows: 128, cols: 128, depth: 32, ownRows: 64, ownCols: 32 },
  // Shorter slices need fewer registers, so that more workgroups run at the same time; larger tiles read memory less often.
  "tensor 128x128 by 16": { rows: 128, cols: 128, depth: 16, ownRows: 64, ownCols: 32 },
  "tensor 256x128 by 16": { rows: 256, cols: 128, depth: 16, ownRows: 64, ownCols: 64 },
  "tensor 128x128 of 64x64": { rows: 128, cols: 128, depth: 16, ownRows: 64, ownCols: 64 },
  "tensor 64x64": { rows: 64, cols: 64, depth: 32, ownRows: 32, ownCols: 32 },
};

export const tensorTileNames: readonly TensorTileName[] = [
  "tensor 128x128 by 16",
  "tensor 128x128",
  "tensor 256x128 by 16",
  "tensor 128x128 of 64x64",
  "tensor 64x64",
];

export function tensorInvocations(
  { rows, cols, ownRows, ownCols }: TensorTile,
  { subgroup }: TensorCores,
): number {
  return (rows / ownRows) * (cols / ownCols) * subgroup;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** An operand, and how an invocation reads its slices. */
interface Side {
  readonly name: "a" | "b";
  /** Whether contiguous elements run along the tile, not along k. */
  readonly alongTile: boolean;
  /** Rows or columns of the tile. */
  readonly length: number;
  /** Elements of k per slice. */
  readonly depth: number;
  readonly extent: string;
  readonly origin: string;
  /** Vectors of four per line of the storage. */
  readonly quads: number;
  /** Vectors that an invocation fetches per slice. */
  readonly fetches: number;
  /** Lines of the storage between one vector of an invocation and the next. */
  readonly spacing: number;
}

function sideOf(
  name: "a" | "b",
  { length, depth, alongTile }: Pick<Side, "length" | "depth" | "alongTile">,
  invocations: number,
): Side {
  const line = alongTile ? length : depth;
  return {
    ...{ name, alongTile, length, depth },
    extent: name === "a" ? "p.m" : "p.n",
    origin: name === "a" ? "row0" : "col0",
    quads: line / 4,
    fetches: (length * depth) / 4 / invocations,
    spacing: (4 * invocations) / line,
  };
}

/** Returns the position of vector f in the tile: x along the tile, l along k. */
function place({ name, alongTile, spacing }: Side, f: number): { x: string; l: string } {
  const line = `(line_${name} + ${f * spacing}u)`;
  return alongTile ? { x: `quad_${name}`, l: line } : { x: line, l: `quad_${name}` };
}

/** Computes the values that are the same for all slices. */
function start(s: Side, full: boolean): string {
  const { name, alongTile, extent, origin, quads } = s;
  const { x, l } = place(s, 0);
  const at =
    name === "a"
      ? `at_a(item, ${origin} + ${x}, begin + ${l})`
      : `at_b(item, begin + ${l}, ${origin} + ${x})`;
  const inside = alongTile
    ? [`  let inside_${name} = ${origin} + ${x} < ${extent};`]
    : range(s.fetches).map((f) => `  let inside_${name}${f} = ${origin} + ${place(s, f).x} < ${extent};`);
  return `  let line_${name} = local / ${quads}u;
  let quad_${name} = 4u * (local % ${quads}u);
  var next_at_${name} = ${at};
${full ? "" : inside.join("\n")}
${range(s.fetches)
  .map((f) => `  var next_${name}${f}: vec4f;`)
  .join("\n")}`;
}

/** How operands are read. */
type Reads = Pick<TextOptions, "full" | "fours">;

/** Returns four neighbours in storage, from element `at` on; those beyond the edges are 0. */
function four(s: Side, at: string, f: number, { full, fours }: Reads): string {
  const { name, alongTile, extent, origin } = s;
  const { x, l } = place(s, f);
  const own = alongTile ? `inside_${name}` : `inside_${name}${f}`;
  if (fours) {
    if (full) return `${name}4(${at} / 4u)`;
    const inside = `${own} & (l0 + ${l} < end)`;
    return `select(vec4f(), ${name}4(select(0u, ${at}, ${inside}) / 4u), ${inside})`;
  }
  const one = (c: number): string => {
    const inside = alongTile
      ? `(${origin} + ${x} + ${c}u < ${extent}) & (l0 + ${l} < end)`
      : `${own} & (l0 + ${l} + ${c}u < end)`;
    return full
      ? `${name}(${at} + ${c}u)`
      : `select(0.0, ${name}(select(0u, ${at} + ${c}u, ${inside})), ${inside})`;
  };
  return `vec4f(${range(4).map(one).join(", ")})`;
}

/** Fetches the slice that begins at l0 into registers. */
function fetch(s: Side, reads: Reads): string {
  const { name, alongTile, extent, spacing, depth } = s;
  const stride = alongTile ? extent : "p.k";
  const loads = range(s.fetches).map(
    (f) => `  next_${name}${f} = ${four(s, `(next_at_${name} + ${f * spacing}u * ${stride})`, f, reads)};`,
  );
  return `${loads.join("\n")}
  next_at_${name} += ${alongTile ? `${depth}u * ${extent}` : `${depth}u`};`;
}

/** Stores what was fetched to workgroup memory. */
const store = (s: Side, matrices: Matrices): string =>
  range(s.fetches)
    .map((f) => {
      const { x, l } = place(s, f);
      const [line, at] = s.alongTile ? [l, x] : [x, l];
      const block = `${l} / ${EDGE}u * ${s.length / EDGE}u + ${x} / ${EDGE}u`;
      return `  ${matrices.fill(s.name, block, `${line} % ${EDGE}u`, `${at} % ${EDGE}u`, `next_${s.name}${f}`)}`;
    })
    .join("\n");

/** Adds the products of the matrices of a slice to the sums of a subgroup. */
function multiply({ depth, ownRows, ownCols }: TensorTile, a: Side, b: Side, matrices: Matrices): string {
  const [down, across] = [range(ownRows / EDGE), range(ownCols / EDGE)];
  /** Loads the matrix of A at row `x` of the tile, or of B at column `x`, at depth l. */
  const load = (s: Side, x: string, l: number): string =>
    matrices.load(s.name, `${(l / EDGE) * (s.length / EDGE)}u + ${x}`);
  return range(depth / EDGE)
    .map((u) => u * EDGE)
    .map(
      (l) => `  {
${down.map((i) => `    let a${i} = ${load(a, `block_y + ${i}u`, l)};`).join("\n")}
${across.map((j) => `    let b${j} = ${load(b, `block_x + ${j}u`, l)};`).join("\n")}
${down.flatMap((i) => across.map((j) => `    ${matrices.multiply(`sum${i}_${j}`, `a${i}`, `b${j}`)}`)).join("\n")}
  }`,
    )
    .join("\n");
}

/** Hands the sums to `emit`, one matrix per subgroup at a time, through workgroup memory. */
function results(
  { ownRows, ownCols }: TensorTile,
  { full, emit, fourSums }: TextOptions,
  { subgroup }: TensorCores,
  matrices: Matrices,
): string {
  const step = fourSums ? 4 : 1;
  const sum = fourSums ? "vec4f(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u])" : "sums[at]";
  return range(ownRows / EDGE)
    .flatMap((i) =>
      range(ownCols / EDGE).map(
        (j) => `  workgroupBarrier();
  ${matrices.store("sums", `own * ${EDGE * EDGE}u`, `sum${i}_${j}`)}
  workgroupBarrier();
  for (var e = ${fourSums ? "4u * " : ""}(local % ${subgroup}u); e < ${EDGE * EDGE}u; e += ${step * subgroup}u) {
    let i = row0 + y0 + ${i * EDGE}u + e / ${EDGE}u;
    let j = col0 + x0 + ${j * EDGE}u + e % ${EDGE}u;
    let at = own * ${EDGE * EDGE}u + e;
    ${full ? "" : "if (i < p.m && j < p.n) "}{ ${emit}(item, split, i, j, ${sum}); }
  }`,
      ),
    )
    .join("\n");
}

/** Returns the text of the product. Like `tiledText`, it needs the same scalars and functions, and calls `emit` in the same way. */
export function tensorText(
  tile: TensorTile,
  options: TextOptions & { readonly cores: TensorCores },
): TiledText {
  const { transA, transB, full, cores } = options;
  const { rows, cols, depth, ownRows, ownCols } = tile;
  const { subgroup } = cores;
  const count = tensorInvocations(tile, cores);
  const a = sideOf("a", { length: rows, depth, alongTile: transA }, count);
  const b = sideOf("b", { length: cols, depth, alongTile: !transB }, count);
  // The left matrix is rows × k, the right one k × columns. The lines of a block are lines of the storage.
  const matrices = matricesFor(cores, {
    a: a.alongTile ? "columns" : "rows",
    b: b.alongTile ? "rows" : "columns",
  });
  const zeros = range(ownRows / EDGE).flatMap((i) =>
    range(ownCols / EDGE).map((j) => `  ${matrices.zero(`sum${i}_${j}`)}`),
  );
  return {
    declarations: `${matrices.declarations({
      a: (a.length * depth) / EDGE ** 2,
      b: (b.length * depth) / EDGE ** 2,
    })}
var<workgroup> sums: array<f32, ${(count / subgroup) * EDGE * EDGE}>;`,
    body: `${tilePlace(tile)}
  let own = ${matrices.same(`local / ${subgroup}u`)};
  let y0 = (own / ${cols / ownCols}u) * ${ownRows}u;
  let x0 = (own % ${cols / ownCols}u) * ${ownCols}u;
  // Its first block along either side.
  let block_y = y0 / ${EDGE}u;
  let block_x = x0 / ${EDGE}u;
${zeros.join("\n")}
${start(a, full)}
${start(b, full)}
  {
  let l0 = begin;
${fetch(a, options)}
${fetch(b, options)}
  }
  for (var l0 = begin; l0 < end; l0 += ${depth}u) {
  workgroupBarrier();
${store(a, matrices)}
${store(b, matrices)}
  workgroupBarrier();
  if (l0 + ${depth}u < end) {
  let l0 = l0 + ${depth}u;
${fetch(a, options)}
${fetch(b, options)}
  }
${multiply(tile, a, b, matrices)}
  }
${results(tile, options, cores, matrices)}`,
  };
}
