/**
 * The text of a matrix product on tensor cores (matrices.ts): operands rounded to f16, sums in f32.
 *
 * A workgroup makes a tile, each of its subgroups a rectangle of it in matrices of 16 × 16. Operands are rounded while they are brought into workgroup
 * memory, where they keep the layout of their storage; a matrix is then loaded by rows or by columns. The next slice of k is fetched into registers while
 * this one is multiplied. Sums leave through workgroup memory, a matrix a subgroup at a time, since the epilogue needs to know which element is which.
 */
import type { TensorCores } from "../context.ts";
import { type TiledText, tilePlace } from "./gemm-tiled.ts";
import { EDGE, matricesFor } from "./matrices.ts";

export interface TensorTile {
  readonly rows: number;
  readonly cols: number;
  /** Of k, in a slice. */
  readonly depth: number;
  /** Rows and columns of a subgroup: multiples of 16. */
  readonly ownRows: number;
  readonly ownCols: number;
}

export type TensorTileName = "tensor 128x128" | "tensor 128x128 of 64x64" | "tensor 64x64";

export const tensorTiles: { readonly [K in TensorTileName]: TensorTile } = {
  "tensor 128x128": { rows: 128, cols: 128, depth: 32, ownRows: 64, ownCols: 32 },
  "tensor 128x128 of 64x64": { rows: 128, cols: 128, depth: 32, ownRows: 64, ownCols: 64 },
  "tensor 64x64": { rows: 64, cols: 64, depth: 32, ownRows: 32, ownCols: 32 },
};

export const tensorTileNames: readonly TensorTileName[] = [
  "tensor 128x128",
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

/** As `tiledText`: needs the same scalars and functions, calls `emit` in the same way. */
export function tensorText(
  tile: TensorTile,
  {
    transA,
    transB,
    full,
    emit,
    cores,
  }: {
    readonly transA: boolean;
    readonly transB: boolean;
    readonly full: boolean;
    readonly emit: string;
    readonly cores: TensorCores;
  },
): TiledText {
  const { rows, cols, depth, ownRows, ownCols } = tile;
  const { subgroup } = cores;
  const count = tensorInvocations(tile, cores);
  const subgroups = count / subgroup;
  /** `alongTile`: what is contiguous in storage runs along the tile, not along k. */
  const side = (name: "a" | "b", extent: number, alongTile: boolean) => ({
    name,
    alongTile,
    extent: name === "a" ? "p.m" : "p.n",
    origin: name === "a" ? "row0" : "col0",
    /** Vectors of four in a line of the storage. */
    quads: (alongTile ? extent : depth) / 4,
    // Padding against bank conflicts; multiples of 16 bytes, as matrices must be aligned.
    stride: (alongTile ? extent : depth) + 8,
    lines: alongTile ? depth : extent,
    fetches: (extent * depth) / 4 / count,
  });
  const a = side("a", rows, transA);
  const b = side("b", cols, !transB);
  // The left matrix is rows × k, the right one k × columns.
  const matrices = matricesFor(cores, {
    a: { byRows: !a.alongTile, stride: a.stride },
    b: { byRows: b.alongTile, stride: b.stride },
  });
  const place = ({ quads }: typeof a, f: number): { quad: string; line: string } => {
    const e = f === 0 ? "local" : `(local + ${f * count}u)`;
    return { quad: `(${e} % ${quads}u)`, line: `(${e} / ${quads}u)` };
  };
  const loader = ({ name, alongTile, extent }: typeof a): string => {
    // Four neighbours in storage: from (x, l) along the tile or along k.
    const x = (c: number): string => (alongTile ? `x + ${c}u` : "x");
    const l = (c: number): string => (alongTile ? "l" : `l + ${c}u`);
    const at = (c: number): string =>
      name === "a" ? `at_a(item, ${x(c)}, ${l(c)})` : `at_b(item, ${l(c)}, ${x(c)})`;
    const checks = range(4).map((c) => `  let in${c} = (${l(c)} < end) & (${x(c)} < ${extent});\n`);
    const one = (c: number): string =>
      full ? `${name}(${at(c)})` : `select(0.0, ${name}(select(0u, ${at(c)}, in${c})), in${c})`;
    return `fn fetch_${name}(item: u32, x: u32, l: u32, end: u32) -> vec4f {
${full ? "" : checks.join("")}  return vec4f(${range(4).map(one).join(",\n    ")});
}`;
  };
  const fetch = (s: typeof a, from: string, declare: string): string =>
    range(s.fetches)
      .map((f) => {
        const { quad, line } = place(s, f);
        const [x, l] = s.alongTile ? [`4u * ${quad}`, line] : [line, `4u * ${quad}`];
        return `  ${declare}next_${s.name}${f} = fetch_${s.name}(item, ${s.origin} + ${x}, ${from} + ${l}, end);`;
      })
      .join("\n");
  const store = (s: typeof a): string =>
    range(s.fetches)
      .map((f) => {
        const { quad, line } = place(s, f);
        return `  ${matrices.fill(s.name, `${line} * ${s.stride}u + 4u * ${quad}`, `next_${s.name}${f}`)}`;
      })
      .join("\n");
  /** A matrix of A at row `x` of the tile and depth l, or of B at column `x`. */
  const load = (s: typeof a, x: string, l: string): string =>
    matrices.load(s.name, s.alongTile ? `${l} * ${s.stride}u + ${x}` : `${x} * ${s.stride}u + ${l}`);
  const [down, across] = [range(ownRows / EDGE), range(ownCols / EDGE)];
  return {
    declarations: `${matrices.declarations({ a: a.lines * a.stride, b: b.lines * b.stride })}
var<workgroup> sums: array<f32, ${subgroups * EDGE * EDGE}>;
${loader(a)}
${loader(b)}`,
    body: `${tilePlace(tile)}
  let own = ${matrices.same(`local / ${subgroup}u`)};
  let y0 = (own / ${cols / ownCols}u) * ${ownRows}u;
  let x0 = (own % ${cols / ownCols}u) * ${ownCols}u;
${down.flatMap((i) => across.map((j) => `  ${matrices.zero(`sum${i}_${j}`)}`)).join("\n")}
${fetch(a, "begin", "var ")}
${fetch(b, "begin", "var ")}
  for (var l0 = begin; l0 < end; l0 += ${depth}u) {
  workgroupBarrier();
${store(a)}
${store(b)}
  workgroupBarrier();
  if (l0 + ${depth}u < end) {
${fetch(a, `l0 + ${depth}u`, "")}
${fetch(b, `l0 + ${depth}u`, "")}
  }
  for (var l = 0u; l < ${depth}u; l += ${EDGE}u) {
${down.map((i) => `    let a${i} = ${load(a, `(y0 + ${i * EDGE}u)`, "l")};`).join("\n")}
${across.map((j) => `    let b${j} = ${load(b, `(x0 + ${j * EDGE}u)`, "l")};`).join("\n")}
${down.flatMap((i) => across.map((j) => `    ${matrices.multiply(`sum${i}_${j}`, `a${i}`, `b${j}`)}`)).join("\n")}
  }
  }
${down
  .flatMap((i) =>
    across.map(
      (j) => `  workgroupBarrier();
  ${matrices.store("sums", `own * ${EDGE * EDGE}u`, `sum${i}_${j}`)}
  workgroupBarrier();
  for (var e = local % ${subgroup}u; e < ${EDGE * EDGE}u; e += ${subgroup}u) {
    let i = row0 + y0 + ${i * EDGE}u + e / ${EDGE}u;
    let j = col0 + x0 + ${j * EDGE}u + e % ${EDGE}u;
    ${full ? "" : "if (i < p.m && j < p.n) "}{ ${emit}(item, split, i, j, sums[own * ${EDGE * EDGE}u + e]); }
  }`,
    ),
  )
  .join("\n")}`,
  };
}
