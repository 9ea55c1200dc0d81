/** How a workgroup makes the tile of W of one segment of rows: in f32 with its sums in registers, or on tensor cores. */
import type { TensorCores } from "../context.ts";
import { EDGE as MATRIX, matricesFor } from "./matrices.ts";

export interface SegmentTile {
  readonly key: string;
  /** Of W. */
  readonly rows: number;
  readonly cols: number;
  readonly workgroup: number;
  /** An invocation's share of W comes in pieces: an element, or four of a row, `EDGE` apart. */
  readonly piece: "f32" | "vec4f";
  readonly pieces: number;
  /** What is found of W is joined by square blocks with this edge, which divides the tile's. */
  readonly block: number;
  /** The block of the tile, by rows, that a piece lies in. */
  blockOf(piece: number): number;
  /** Bytes of workgroup memory. */
  readonly bytes: number;
  readonly text: () => SegmentTileText;
}

/**
 * It knows p.m, p.n and `local`, the tile's first row and column of W (`tile_i`, `tile_j`), and rows of the operands: the next, `r`, where this segment
 * ends, `end`, and where all do, `rows_end`.
 */
export interface SegmentTileText {
  readonly declarations: string;
  /** Before the first segment. */
  readonly start: string;
  /** Before each segment. */
  readonly clear: string;
  /** Takes the rows from r to end; then r = end. */
  readonly take: string;
  /** What came out of it: `use` is called once for each piece. */
  found(use: (piece: number, value: string) => string): string;
  /** Row and column of W, "i, j", of a piece's (first) element. */
  place(piece: number): string;
}

/** Invocations of a workgroup go 16 × 16. */
export const EDGE = 16;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Rows and columns of W that an invocation has: each 16 from the next, so that neighbours read and write neighbouring memory. */
const floatShapes = {
  "64x64": { high: 4, wide: 4 },
  "128x64": { high: 8, wide: 4 },
  "128x128": { high: 8, wide: 8 },
} as const;

export type FloatTileName = keyof typeof floatShapes;

export const floatTileNames: readonly FloatTileName[] = ["64x64", "128x64", "128x128"];

/** Slices of 16 rows of both operands go through workgroup memory. All of these tiles give the same bits: an invocation has the same places in each block of 64. */
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
    // Slices, and two numbers of every invocation and block.
    bytes: 4 * EDGE * EDGE * (high + wide) + 8 * EDGE * EDGE * (high / 4) * across,
    text: () => floatText(high, across),
  };
}

function floatText(high: number, across: number): SegmentTileText {
  const rows = range(high);
  const quads = range(high / 4);
  const columns = range(across);
  const pieces = rows.flatMap((i) => columns.map((q) => ({ i, q, name: `w${i}_${q}` })));
  const load = [
    ...columns.map((q) => `next_b${q} = b4(r + row, j0 + ${64 * q}u);`),
    ...quads.map((h) => `next_a${h} = a4(r + row, i0 + ${64 * h}u);`),
  ].join(" ");
  const step = (k: number): string =>
    `        {
${columns.map((q) => `          let b${q} = tile_b[${q}][part][${k}][column];`).join("\n")}
${quads.map((h) => `          let a${h} = tile_a[${h}][part][${k}][row];`).join("\n")}
${pieces.map(({ i, q, name }) => `          ${name} = fma(vec4f(a${i >> 2}.${"xyzw"[i & 3]}), b${q}, ${name});`).join("\n")}
        }`;
  return {
    place: (piece) => `i + ${Math.floor(piece / across) * EDGE}u, j0 + ${64 * (piece % across)}u`,
    found: (use) => pieces.map(({ name }, piece) => use(piece, name)).join("\n"),
    declarations: `
// A slice of rows. An element holds four of a row, ${EDGE} apart, as they are read from memory; invocations write whole elements. Indices are apart
// and most are constants, so that bounds are not checked for every read.
alias Slice = array<array<array<vec4f, ${EDGE}>, 4>, ${EDGE / 4}>;
var<workgroup> tile_a: array<Slice, ${high / 4}>;
var<workgroup> tile_b: array<Slice, ${across}>;
fn four(j: u32) -> vec4u { return vec4u(j, j + ${EDGE}u, j + ${2 * EDGE}u, j + ${3 * EDGE}u); }
// Beyond the edge of W the last element is read again and counts 0.
fn a4(r: u32, i: u32) -> vec4f {
  let at = min(four(i), vec4u(p.m - 1u)) + r * p.m;
  return select(vec4f(), vec4f(a(at.x), a(at.y), a(at.z), a(at.w)), four(i) < vec4u(p.m));
}
fn b4(r: u32, j: u32) -> vec4f {
  let at = min(four(j), vec4u(p.n - 1u)) + r * p.n;
  return select(vec4f(), vec4f(b(at.x), b(at.y), b(at.z), b(at.w)), four(j) < vec4u(p.n));
}`,
    start: `  let row = local / ${EDGE}u;
  let column = local % ${EDGE}u;
  let i0 = tile_i + column;
  let j0 = tile_j + column;
  // Its elements of W begin here.
  let i = tile_i + row;
${columns.map((q) => `  var next_b${q}: vec4f;`).join("\n")}
${quads.map((h) => `  var next_a${h}: vec4f;`).join("\n")}
  if (r + row < rows_end) { ${load} }
${pieces.map(({ name }) => `  var ${name}: vec4f;`).join("\n")}`,
    clear: pieces.map(({ name }) => `    ${name} = vec4f();`).join("\n"),
    take: `    while (r < end) {
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

/** Rows of a slice. */
const DEPTH = 32;
/** Against bank conflicts; matrices must begin at multiples of 16 bytes. */
const PADDING = 8;

/**
 * 64 × 64, or 128 × 128; a subgroup has 32 × 32 or 64 × 32 of it in matrices of 16 × 16. Operands are rounded to f16 on their way into workgroup memory, in
 * slices of 32 rows. At a segment's end its sums leave through workgroup memory, a matrix at a time: only there is it known which element is which.
 */
export function tensorTile(large: boolean, cores: TensorCores): SegmentTile {
  const [side, high, wide] = large ? ([128, 64, 32] as const) : ([64, 32, 32] as const);
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
    bytes: 2 * 2 * DEPTH * (side + PADDING) + subgroups * (4 * MATRIX * MATRIX + 8 * cores.subgroup),
    text: () => tensorText({ side, high, wide, subgroups }, cores),
  };
}

function tensorText(
  {
    side,
    high,
    wide,
    subgroups,
  }: { readonly side: number; readonly high: number; readonly wide: number; readonly subgroups: number },
  cores: TensorCores,
): SegmentTileText {
  const { subgroup } = cores;
  const workgroup = subgroups * subgroup;
  const stride = side + PADDING;
  const quads = side / 4;
  const fetches = (side * DEPTH) / 4 / workgroup;
  // Rows of the operands are contiguous along W's rows and columns.
  const matrices = matricesFor(cores, { a: { byRows: false, stride }, b: { byRows: true, stride } });
  const [down, across] = [range(high / MATRIX), range(wide / MATRIX)];
  /** An invocation's elements of a matrix. */
  const own = range((MATRIX * MATRIX) / subgroup);
  const element = (q: number): string => `(lane + ${q * subgroup}u)`;
  const line = (f: number): string => `(local + ${f * workgroup}u) / ${quads}u`;
  const quad = (f: number): string => `4u * ((local + ${f * workgroup}u) % ${quads}u)`;
  const load = range(fetches)
    .map(
      (f) =>
        `    if (r + ${line(f)} < rows_end) { next_a${f} = a4(r + ${line(f)}, tile_i + ${quad(f)}); next_b${f} = b4(r + ${line(f)}, tile_j + ${quad(f)}); }`,
    )
    .join("\n");
  const four = (name: "a" | "b", extent: string): string => `fn ${name}4(r: u32, x: u32) -> vec4f {
  let at = min(vec4u(x, x + 1u, x + 2u, x + 3u), vec4u(${extent} - 1u)) + r * ${extent};
  return select(vec4f(), vec4f(${name}(at.x), ${name}(at.y), ${name}(at.z), ${name}(at.w)), vec4u(x, x + 1u, x + 2u, x + 3u) < vec4u(${extent}));
}`;
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
${own.map((q) => `    let e${first + q} = sums[own * ${MATRIX * MATRIX}u + ${element(q)}];\n${use(first + q, `e${first + q}`)}`).join("\n")}`;
          }),
        )
        .join("\n"),
    declarations: `${matrices.declarations({ a: DEPTH * stride, b: DEPTH * stride })}
var<workgroup> sums: array<f32, ${subgroups * MATRIX * MATRIX}>;
// Beyond the edge of W the last element is read again and counts 0.
${four("a", "p.m")}
${four("b", "p.n")}`,
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
    take: `    while (r < end) {
      workgroupBarrier();
${range(fetches)
  .flatMap((f) =>
    (["a", "b"] as const).map(
      (name) =>
        `      ${matrices.fill(name, `(${line(f)}) * ${stride}u + ${quad(f)}`, `select(vec4f(), next_${name}${f}, r + ${line(f)} < end)`)}`,
    ),
  )
  .join("\n")}
      workgroupBarrier();
      let depth = min(${DEPTH}u, end - r);
      r += depth;
${load}
      for (var l = 0u; l < depth; l += ${MATRIX}u) {
${down.map((y) => `        let a${y} = ${matrices.load("a", `l * ${stride}u + y0 + ${y * MATRIX}u`)};`).join("\n")}
${across.map((x) => `        let b${x} = ${matrices.load("b", `l * ${stride}u + x0 + ${x * MATRIX}u`)};`).join("\n")}
${down.flatMap((y) => across.map((x) => `        ${matrices.multiply(`w${y}_${x}`, `a${y}`, `b${x}`)}`)).join("\n")}
      }
    }`,
  };
}
