/** The shader by which a workgroup goes through segments (gemm-segmented-walk.ts), in WGSL. */
import { EDGE, type Piece, type SegmentTile, type SegmentTileText } from "./gemm-segmented-tiles.ts";

/** What the shader depends on. */
export interface WalkVariant {
  readonly tile: SegmentTile;
  /** Whether the rows of all operands consist of whole vectors of four. */
  readonly fours: boolean;
  /** Which operands there are. */
  readonly v: boolean;
  readonly total: boolean;
  readonly groups: boolean;
  /** Whether the result is added to what the total contains. */
  readonly adds: boolean;
  /** Whether the walk writes ‖V‖², or 0 without V. */
  readonly last: boolean;
  /** Whether V is added to the total. */
  readonly fromV: boolean;
}

/** The pieces and blocks of a variant's tile, as text for each of them. */
interface Parts {
  readonly text: SegmentTileText;
  readonly blocks: readonly number[];
  /** The value 0 of a piece. */
  readonly zero: string;
  /** The sum of a piece's elements. */
  sum(x: string): string;
  eachPiece(line: (piece: number) => string): string;
  eachBlock(line: (block: number) => string): string;
  /** Writes `value` of every block to the partial results. */
  put(row: string, value: (block: number) => string): string;
  /** One number per block for `join`: the sum of the variable `name` of the block. */
  oneSum(name: string): string;
}

export function walkKey({ tile, fours, v, total, groups, adds, last, fromV }: WalkVariant): string {
  return `gemmSegmented ${tile.key} ${[fours, v, total, groups, adds, last, fromV].join()}`;
}

function partsOf({ tile, fours }: WalkVariant): Parts {
  const pieces = Array.from({ length: tile.pieces }, (_, piece) => piece);
  const perRow = tile.cols / tile.block;
  const blocks = Array.from({ length: (tile.rows / tile.block) * perRow }, (_, block) => block);
  const sum = (x: string): string => (tile.piece === "f32" ? x : `${x}.x + ${x}.y + ${x}.z + ${x}.w`);
  return {
    text: tile.text(fours),
    blocks,
    zero: `${tile.piece}(${tile.piece === "f32" ? "0.0" : ""})`,
    sum,
    eachPiece: (line) => pieces.map(line).join("\n"),
    eachBlock: (line) => blocks.map(line).join("\n"),
    put: (row, value) =>
      `if (local == 0u) {\n${blocks.map((block) => `      put(${row}, block_i + ${Math.floor(block / perRow)}u, block_j + ${block % perRow}u, ${value(block)});`).join("\n")}\n    }`,
    oneSum: (name) => blocks.map((block) => `vec2f(${sum(`${name}${block}`)}, 0.0)`).join(", "),
  };
}

export function walkDeclarations(variant: WalkVariant): string {
  const { tile, fours, v, total, adds } = variant;
  return `${tile.text(fours).declarations}
${joinText(tile, partsOf(variant))}
// Blocks may lie beyond W.
fn put(row: u32, i: u32, j: u32, value: f32) {
  if (i < p.blocks_m && j < p.blocks_n) { set_partials((row * p.blocks_m + i) * p.blocks_n + j, value); }
}
${v ? readV(tile.piece, fours) : ""}
${total ? addTotal(tile.piece, fours, adds) : ""}`;
}

/** Returns the function that sums what the invocations of a workgroup found. */
function joinText({ lanes, workgroup }: SegmentTile, { blocks, eachBlock }: Parts): string {
  return `// A number or two of each block.
alias Found = array<vec2f, ${blocks.length}>;
${lanes === "lanes" ? `var<workgroup> lanes: array<f32, ${2 * blocks.length * workgroup}>;` : ""}
fn found_of(e: u32) -> Found {
  let at = ${2 * blocks.length}u * e;
  return Found(${blocks.map((block) => `vec2f(${lanes}[at + ${2 * block}u], ${lanes}[at + ${2 * block + 1}u])`).join(", ")});
}
fn keep_found(e: u32, x: Found) {
  let at = ${2 * blocks.length}u * e;
${eachBlock((block) => `  ${lanes}[at + ${2 * block}u] = x[${block}].x; ${lanes}[at + ${2 * block + 1}u] = x[${block}].y;`)}
}
// What all invocations found, in a fixed order; only the first is told.
fn join(x: Found, local: u32) -> Found {
  workgroupBarrier();
  keep_found(local, x);
  workgroupBarrier();
  var sum = x;
  if (local < ${EDGE}u) {
    for (var e = local + ${EDGE}u; e < ${workgroup}u; e += ${EDGE}u) {
      let other = found_of(e);
${eachBlock((block) => `      sum[${block}] += other[${block}];`)}
    }
    keep_found(local, sum);
  }
  workgroupBarrier();
  if (local == 0u) {
    for (var e = 1u; e < ${EDGE}u; e++) {
      let other = found_of(e);
${eachBlock((block) => `      sum[${block}] += other[${block}];`)}
    }
  }
  return sum;
}`;
}

/** Returns a function that reads V at a piece of W. Beyond the edge it reads another element and returns 0. */
function readV(piece: SegmentTile["piece"], fours: boolean): string {
  if (piece === "f32")
    return `fn v_at(i: u32, j: u32) -> f32 {
  return select(0.0, v(min(i, p.m - 1u) * p.n + min(j, p.n - 1u)), (i < p.m) & (j < p.n));
}`;
  if (fours)
    return `fn v_at(i: u32, j: u32) -> vec4f {
  let inside = (i < p.m) & (j < p.n);
  return select(vec4f(), v4(select(0u, i * p.n + j, inside) / 4u), inside);
}`;
  return `fn v_at(i: u32, j: u32) -> vec4f {
  let js = vec4u(j, j + 1u, j + 2u, j + 3u);
  let at = min(js, vec4u(p.n - 1u)) + min(i, p.m - 1u) * p.n;
  return select(vec4f(), vec4f(v(at.x), v(at.y), v(at.z), v(at.w)), (js < vec4u(p.n)) & vec4<bool>(i < p.m));
}`;
}

/** Returns a function that writes a piece of the total; with `adds`, it adds to the elements. */
function addTotal(piece: SegmentTile["piece"], fours: boolean, adds: boolean): string {
  const set = (at: string, x: string): string => `set_total(${at}, ${adds ? `total(${at}) + ` : ""}${x});`;
  const writes =
    piece === "f32"
      ? `if (j < p.n) { ${set("at", "x")} }`
      : fours
        ? `if (j < p.n) { set_total4(at / 4u, ${adds ? "total4(at / 4u) + " : ""}x); }`
        : [0, 1, 2, 3].map((c) => `if (j + ${c}u < p.n) { ${set(`at + ${c}u`, `x[${c}]`)} }`).join(" ");
  return `fn add_total(range: u32, i: u32, j: u32, x: ${piece}) {
  if (i >= p.m) { return; }
  let at = (range * p.m + i) * p.n + j;
  ${writes}
}`;
}

export function walkBody(variant: WalkVariant): string {
  const { tile, v, total, groups, last, fromV } = variant;
  const parts = partsOf(variant);
  const { text, blocks, zero, sum, eachPiece, eachBlock, put } = parts;
  return `  let tile = group % p.tiles;
  let range = group / p.tiles;
  let tile_i = (tile / p.tiles_n) * ${tile.rows}u;
  let tile_j = (tile % p.tiles_n) * ${tile.cols}u;
  let block_i = tile_i / ${tile.block}u;
  let block_j = tile_j / ${tile.block}u;
${groups ? rangeOfGroups(parts) : rangeOfSegments}
  // What is read next lies behind what is multiplied, in this segment or the ones that follow.
  var r = u32(segments(s_first));
  let rows_end = u32(segments(s_end));
${text.start}
${total ? eachPiece((piece) => `  var t${piece} = ${zero};`) : ""}
${fromV ? `  if (range == 0u) {\n${eachPiece((piece) => `    t${piece} = v_at(${text.place(piece)});`)}\n  }` : ""}
  for (var s = s_first; s < s_end; s++) {
    let end = u32(segments(s + 1u));
    let counts = s >= p.known;
    let adds = s >= p.first;
${groups ? "    let in_group = next < groups_end && s >= u32(groups(next));" : ""}
${text.clear}
${text.addRows}
${eachBlock((block) => `    var squares${block} = ${zero};\n    var along${block} = ${zero};`)}
${text.found((pieces) => usePieces(variant, parts, pieces))}
    if (counts) {
      let found = join(Found(${blocks.map((block) => `vec2f(${sum(`along${block}`)}, ${sum(`squares${block}`)})`).join(", ")}), local);
      ${put("s", (block) => `found[${block}].x`)}
      ${put("p.segment_count + s", (block) => `found[${block}].y`)}
    }
${groups ? endGroups(tile, parts) : ""}
  }
${total ? eachPiece((piece) => `  add_total(range, ${text.place(piece)}, t${piece});`) : ""}
${last ? normOfV(tile, v, parts) : ""}`;
}

/** The segments of a range: from `s_first` to before `s_end`. */
const rangeOfSegments = `  // Segments times ranges may be too much for 32 bits.
  let count = p.end - p.begin;
  let share = count / p.ranges;
  let more = count % p.ranges;
  let s_first = p.begin + range * share + min(range, more);
  let s_end = s_first + share + select(0u, 1u, range < more);`;

/** The same for whole groups; `next` is the group whose sums come next. */
function rangeOfGroups({ eachPiece, put, zero }: Parts): string {
  return `  // Ranges of whole groups; the first and the last have the segments outside of them too.
  let share = p.group_count / p.ranges;
  let more = p.group_count % p.ranges;
  var next = range * share + min(range, more);
  let groups_end = next + share + select(0u, 1u, range < more);
  let s_first = select(u32(groups(next)), min(p.begin, u32(groups(0u))), range == 0u);
  let s_end = select(u32(groups(groups_end)), p.end, range + 1u == p.ranges);
  while (next < groups_end && u32(groups(next + 1u)) <= s_first) {
    ${put("2u * p.segment_count + next", () => "0.0")}
    next++;
  }
${eachPiece((piece) => `  var g${piece} = ${zero};`)}`;
}

/** Adds pieces of a segment's gradient to its results, to the total and to its group. */
function usePieces(
  { tile, v, total, groups }: WalkVariant,
  { text }: Parts,
  pieces: readonly Piece[],
): string {
  const lines = (line: (piece: number, value: string) => string): string =>
    pieces.map(({ piece, value }) => line(piece, value)).join("\n");
  return `    if (counts) {
${v ? lines((piece) => `      let v${piece} = v_at(${text.place(piece)});`) : ""}
${lines((piece, value) => `      squares${tile.blockOf(piece)} += ${value} * ${value};`)}
${v ? lines((piece, value) => `      along${tile.blockOf(piece)} += ${value} * v${piece};`) : ""}
    }
${total ? `    if (adds) {\n${lines((piece, value) => `      t${piece} += ${value};`)}\n    }` : ""}
${groups ? `    if (in_group) {\n${lines((piece, value) => `      g${piece} += ${value};`)}\n    }` : ""}`;
}

/** Writes the squared norms of the groups that end with this segment. */
function endGroups(tile: SegmentTile, { zero, eachPiece, eachBlock, put, oneSum }: Parts): string {
  return `    while (next < groups_end && s + 1u >= u32(groups(next + 1u))) {
${eachBlock((block) => `      var group_squares${block} = ${zero};`)}
${eachPiece((piece) => `      group_squares${tile.blockOf(piece)} += g${piece} * g${piece};\n      g${piece} = ${zero};`)}
      let group_found = join(Found(${oneSum("group_squares")}), local);
      ${put("2u * p.segment_count + next", (block) => `group_found[${block}].x`)}
      next++;
    }`;
}

/** Writes ‖V‖², or 0 without V. */
function normOfV(
  tile: SegmentTile,
  v: boolean,
  { text, zero, eachPiece, eachBlock, put, oneSum }: Parts,
): string {
  if (!v) return `  ${put("2u * p.segment_count + p.group_count", () => "0.0")}`;
  return `  if (range == 0u) {
${eachBlock((block) => `    var v_squares${block} = ${zero};`)}
${eachPiece((piece) => `    { let x = v_at(${text.place(piece)}); v_squares${tile.blockOf(piece)} += x * x; }`)}
    let v_found = join(Found(${oneSum("v_squares")}), local);
    ${put("2u * p.segment_count + p.group_count", (block) => `v_found[${block}].x`)}
  }`;
}
