/** Text by which a workgroup computes a tile of one segment's gradient W: in f32 with sums in registers, or on tensor cores. */
import type { TensorCores } from "../context.ts";
import { gridPlace } from "./gemm-tiled.ts";
import { BLOCK_BYTES, EDGE as MATRIX, matricesFor } from "./matrices.ts";

export interface SegmentTile {
  readonly key: string;
  /** Rows and columns of W in the tile. */
  readonly rows: number;
  readonly cols: number;
  readonly workgroup: number;
  /** Type of the pieces that form an invocation's part of W: single elements, or four neighbours of a row. */
  readonly piece: "f32" | "vec4f";
  readonly pieces: number;
  /** Edge of the square blocks of W for which partial results are written. It divides the tile's edges. */
  readonly block: number;
  /** Returns the block of the tile, counted by rows, that contains a piece. */
  blockOf(piece: number): number;
  /** Workgroup memory for two numbers per invocation and block: an array that the walk declares, or one of the tile's that is free by then. */
  readonly lanes: "lanes" | "sums";
  /** Bytes of workgroup memory. */
  readonly bytes: number;
  /** Returns the text. `fours`: the rows of both operands consist of whole vectors of four and are read as such. */
  readonly text: (fours: boolean) => SegmentTileText;
}

/** A piece of the tile, and the variable that holds it. */
export interface Piece {
  readonly piece: number;
  readonly value: string;
}

/** Number of pieces that are used together: V is read for all of them at once. */
const TOGETHER = 8;

/**
 * The text in WGSL. It can use p.m, p.n, `local`, the tile's first row and column of W (`tile_i`, `tile_j`), and rows of the operands: the next row `r`, the
 * end of this segment `end`, and the end of all segments `rows_end`.
 */
export interface SegmentTileText {
  readonly declarations: string;
  /** Runs before the first segment. */
  readonly start: string;
  /** Runs before each segment. */
  readonly clear: string;
  /** Adds the rows from r to end; afterwards r = end. */
  readonly addRows: string;
  /** Returns statements that use the result: `use` is called for a few pieces at a time, until all were used. */
  found(use: (pieces: readonly Piece[]) => string): string;
  /** Returns row and column of W, "i, j", of the first element of a piece. */
  place(piece: number): string;
}

/** Edge of a workgroup, which has 16 × 16 invocations. */
export const EDGE = 16;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Rows and columns of W per invocation: four neighbours in every block of 64. */
const floatShapes = {
  "64x64": { high: 4, wide: 4 },
  "128x64": { high: 8, wide: 4 },
  "128x128": { high: 8, wide: 8 },
} as const;

export type FloatTileName = keyof typeof floatShapes;

export const floatTileNames: readonly FloatTileName[] = ["64x64", "128x64", "128x128"];

/** Returns a tile in f32. Slices of 16 rows of both operands go through workgroup memory. All of these tiles give the same bits, since an invocation has the same positions in each block of 64. */
export function floatTile(name: FloatTileName): SegmentTile {
  const { high, wide } = floatShapes[name];
  const across = wide / 4;
  return {
    key: `f32 ${name}`,
    rows: high * EDGE,
    cols: wide * EDGE,
    workgroup: EDGE * EDGE,
    piece: "vec4f",
    pieces: high * across,
    block: 4 * EDGE,
    blockOf: (piece) => (Math.floor(piece / across) >> 2) * across + (piece % across),
    lanes: "lanes",
    // Slices, and two numbers per invocation and block.
    bytes: 4 * EDGE * EDGE * (high + wide) + 8 * EDGE * EDGE * (high / 4) * across,
    text: (fours) => floatText(high, across, fours),
  };
}

/** Returns a function that reads four neighbours of row r, from x on. Beyond the edge of W it reads the last element (or the first vector) and returns 0. */
function rowReader(name: "a" | "b", extent: string, fours: boolean): string {
  const body = fours
    ? `  let inside = x < ${extent};
  return select(vec4f(), ${name}4(select(0u, r * ${extent} + x, inside) / 4u), inside);`
    : `  let xs = vec4u(x, x + 1u, x + 2u, x + 3u);
  let at = min(xs, vec4u(${extent} - 1u)) + r * ${extent};
  return select(vec4f(), vec4f(${name}(at.x), ${name}(at.y), ${name}(at.z), ${name}(at.w)), xs < vec4u(${extent}));`;
  return `fn row_${name}(r: u32, x: u32) -> vec4f {
${body}
}`;
}

function floatText(high: number, across: number, fours: boolean): SegmentTileText {
  const rows = range(high);
  const quads = range(high / 4);
  const columns = range(across);
  const pieces = rows.flatMap((i) => columns.map((q) => ({ i, q, name: `w${i}_${q}` })));
  const load = [
    ...columns.map((q) => `next_b${q} = row_b(r + row, j0 + ${64 * q}u);`),
    ...quads.map((h) => `next_a${h} = row_a(r + row, i0 + ${64 * h}u);`),
  ].join(" ");
  const step = (k: number): string =>
    `        {
${columns.map((q) => `          let b${q} = tile_b[${q}][part][${k}][x];`).join("\n")}
${quads.map((h) => `          let a${h} = tile_a[${h}][part][${k}][y];`).join("\n")}
${pieces.map(({ i, q, name }) => `          ${name} = fma(vec4f(a${i >> 2}.${"xyzw"[i & 3]}), b${q}, ${name});`).join("\n")}
        }`;
  return {
    place(piece) {
      const i = Math.floor(piece / across);
      return `i + ${64 * (i >> 2) + (i & 3)}u, j + ${64 * (piece % across)}u`;
    },
    found: (use) =>
      range(Math.ceil(pieces.length / TOGETHER))
        .map((group) =>
          pieces
            .map(({ name }, piece) => ({ piece, value: name }))
            .slice(group * TOGETHER, (group + 1) * TOGETHER),
        )
        .map(use)
        .join("\n"),
    declarations: `
// A slice of rows. An element holds four of a row. Indices are apart and most are constants, so that bounds are not checked for every read.
alias Slice = array<array<array<vec4f, ${EDGE}>, 4>, ${EDGE / 4}>;
var<workgroup> tile_a: array<Slice, ${high / 4}>;
var<workgroup> tile_b: array<Slice, ${across}>;
${rowReader("a", "p.m", fours)}
${rowReader("b", "p.n", fours)}`,
    start: `  // What it fetches.
  let row = local / ${EDGE}u;
  let column = local % ${EDGE}u;
${gridPlace(EDGE)}
  let i0 = tile_i + 4u * column;
  let j0 = tile_j + 4u * column;
  // Its elements of W begin here.
  let i = tile_i + 4u * y;
  let j = tile_j + 4u * x;
${columns.map((q) => `  var next_b${q}: vec4f;`).join("\n")}
${quads.map((h) => `  var next_a${h}: vec4f;`).join("\n")}
  if (r + row < rows_end) { ${load} }
${pieces.map(({ name }) => `  var ${name}: vec4f;`).join("\n")}`,
    clear: pieces.map(({ name }) => `    ${name} = vec4f();`).join("\n"),
    addRows: `    while (r < end) {
      let inside = r + row < end;
      workgroupBarrier();
${columns.map((q) => `      tile_b[${q}][row / 4u][row % 4u][column] = select(vec4f(), next_b${q}, inside);`).join("\n")}
${quads.map((h) => `      tile_a[${h}][row / 4u][row % 4u][column] = select(vec4f(), next_a${h}, inside);`).join("\n")}
      workgroupBarrier();
      let depth = min(${EDGE}u, end - r);
      r += depth;
      if (r + row < rows_end) { ${load} }
      for (var part = 0u; part < ${EDGE / 4}u; part++) {
        // Rows of a slice beyond the segment are 0.
        if (4u * part >= depth) { break; }
${range(4).map(step).join("\n")}
      }
    }`,
  };
}

/**
 * Returns a tile of 64 × 64 or 128 × 128 on tensor cores, of which a subgroup computes 32 × 32 or 64 × 32 in matrices of 16 × 16. Operands are rounded to f16 when
 * they are stored in workgroup memory, in slices of 32 rows, or of 16 if the tile needs the registers. At a segment's end the sums are stored to workgroup memory,
 * one matrix at a time, because the position of an element is only defined there.
 */
export function tensorTile(large: boolean, cores: TensorCores): SegmentTile {
  const [side, high, wide, depth] = large ? ([128, 64, 32, 16] as const) : ([64, 32, 32, 32] as const);
  const subgroups = (side / high) * (side / wide);
  return {
    key: `f16 ${side}`,
    rows: side,
    cols: side,
    workgroup: subgroups * cores.subgroup,
    piece: "f32",
    pieces: (high * wide) / cores.subgroup,
    block: side,
    blockOf: () => 0,
    lanes: "sums",
    bytes: 2 * ((depth * side) / MATRIX ** 2) * BLOCK_BYTES + subgroups * 4 * MATRIX * MATRIX,
    text: (fours) => tensorText({ side, high, wide, depth, subgroups }, cores, fours),
  };
}

function tensorText(
  {
    side,
    high,
    wide,
    depth,
    subgroups,
  }: {
    readonly side: number;
    readonly high: number;
    readonly wide: number;
    readonly depth: number;
    readonly subgroups: number;
  },
  cores: TensorCores,
  fours: boolean,
): SegmentTileText {
  const { subgroup } = cores;
  const workgroup = subgroups * subgroup;
  const quads = side / 4;
  const blocks = (depth * side) / MATRIX ** 2;
  const fetches = (side * depth) / 4 / workgroup;
  // The rows of the operands are contiguous along the rows and the columns of W.
  const matrices = matricesFor(cores, { a: "columns", b: "rows" });
  const [down, across] = [range(high / MATRIX), range(wide / MATRIX)];
  /** Indices of an invocation's elements of a matrix. */
  const own = range((MATRIX * MATRIX) / subgroup);
  const element = (q: number): string => `(lane + ${q * subgroup}u)`;
  const line = (f: number): string => `(local + ${f * workgroup}u) / ${quads}u`;
  const quad = (f: number): string => `4u * ((local + ${f * workgroup}u) % ${quads}u)`;
  const block = (f: number): string =>
    `(${line(f)}) / ${MATRIX}u * ${side / MATRIX}u + ${quad(f)} / ${MATRIX}u`;
  const load = range(fetches)
    .map(
      (f) =>
        `    if (r + ${line(f)} < rows_end) { next_a${f} = row_a(r + ${line(f)}, tile_i + ${quad(f)}); next_b${f} = row_b(r + ${line(f)}, tile_j + ${quad(f)}); }`,
    )
    .join("\n");
  return {
    place(piece) {
      const q = piece % own.length;
      const matrix = Math.floor(piece / own.length);
      const [i, j] = [Math.floor(matrix / across.length), matrix % across.length];
      return `i + ${i * MATRIX}u + ${element(q)} / ${MATRIX}u, j + ${j * MATRIX}u + ${element(q)} % ${MATRIX}u`;
    },
    found: (use) =>
      down
        .flatMap((i) =>
          across.map((j) => {
            const first = (i * across.length + j) * own.length;
            return `    workgroupBarrier();
    ${matrices.store("sums", `own * ${MATRIX * MATRIX}u`, `w${i}_${j}`)}
    workgroupBarrier();
${own.map((q) => `    let e${first + q} = sums[own * ${MATRIX * MATRIX}u + ${element(q)}];`).join("\n")}
${use(own.map((q) => ({ piece: first + q, value: `e${first + q}` })))}`;
          }),
        )
        .join("\n"),
    declarations: `${matrices.declarations({ a: blocks, b: blocks })}
var<workgroup> sums: array<f32, ${subgroups * MATRIX * MATRIX}>;
${rowReader("a", "p.m", fours)}
${rowReader("b", "p.n", fours)}`,
    start: `  let lane = local % ${subgroup}u;
  let own = ${matrices.same(`local / ${subgroup}u`)};
  let y0 = (own / ${side / wide}u) * ${high}u;
  let x0 = (own % ${side / wide}u) * ${wide}u;
  // Its subgroup's elements of W begin here.
  let i = tile_i + y0;
  let j = tile_j + x0;
${range(fetches)
  .map((f) => `  var next_a${f}: vec4f; var next_b${f}: vec4f;`)
  .join("\n")}
${load}
${down.flatMap((y) => across.map((x) => `  ${matrices.zero(`w${y}_${x}`)}`)).join("\n")}`,
    clear: down.flatMap((y) => across.map((x) => `    ${matrices.clear(`w${y}_${x}`)}`)).join("\n"),
    addRows: `    while (r < end) {
      workgroupBarrier();
${range(fetches)
  .flatMap((f) =>
    (["a", "b"] as const).map(
      (name) =>
        `      ${matrices.fill(name, block(f), `(${line(f)}) % ${MATRIX}u`, `${quad(f)} % ${MATRIX}u`, `select(vec4f(), next_${name}${f}, r + ${line(f)} < end)`)}`,
    ),
  )
  .join("\n")}
      workgroupBarrier();
      let rows = min(${depth}u, end - r);
      r += rows;
${load}
${range(depth / MATRIX)
  .map(
    (part) => `      if (rows > ${part * MATRIX}u) {
${down.map((y) => `        let a${y} = ${matrices.load("a", `${(part * side) / MATRIX}u + y0 / ${MATRIX}u + ${y}u`)};`).join("\n")}
${across.map((x) => `        let b${x} = ${matrices.load("b", `${(part * side) / MATRIX}u + x0 / ${MATRIX}u + ${x}u`)};`).join("\n")}
${down.flatMap((y) => across.map((x) => `        ${matrices.multiply(`w${y}_${x}`, `a${y}`, `b${x}`)}`)).join("\n")}
      }`,
  )
  .join("\n")}
    }`,
  };
}
