/**
 * The text of a matrix product through workgroup memory.
 *
 * A workgroup computes a tile of `rows` × `cols`. Slices of `depth` elements of k go through workgroup memory as vectors of four, A and B both laid out along the
 * tile, so that an invocation reads its 4 (or 8) rows and columns in wide loads. The next slice is fetched into registers while this one is multiplied. With any
 * tile, every element of C is one chain of multiply-adds in the order of k. So all tiles give the same bits, and the fastest can be chosen by timing.
 */

export interface Tile {
  readonly rows: number;
  readonly cols: number;
  readonly depth: number;
  /** Rows and columns per invocation: 4 or 8. */
  readonly ownRows: 4 | 8;
  readonly ownCols: 4 | 8;
}

export type TileName = "64x64" | "128x128" | "128x64" | "64x64 of 8x8" | "32x32";

/** The tiles, by the names under which a timed choice is stored. */
export const tiles: { readonly [K in TileName]: Tile } = {
  "64x64": { rows: 64, cols: 64, depth: 16, ownRows: 4, ownCols: 4 },
  "128x128": { rows: 128, cols: 128, depth: 8, ownRows: 8, ownCols: 8 },
  "128x64": { rows: 128, cols: 64, depth: 16, ownRows: 8, ownCols: 4 },
  "64x64 of 8x8": { rows: 64, cols: 64, depth: 8, ownRows: 8, ownCols: 8 },
  "32x32": { rows: 32, cols: 32, depth: 16, ownRows: 4, ownCols: 4 },
};

export const tileNames: readonly TileName[] = ["64x64", "128x128", "128x64", "64x64 of 8x8", "32x32"];

export function invocations({ rows, cols, ownRows, ownCols }: Tile): number {
  return (rows / ownRows) * (cols / ownCols);
}

/** Returns the bytes of workgroup memory of a tile. */
export function storageOf({ rows, cols, depth }: Tile): number {
  return 16 * depth * (lineOf({ length: rows }) + lineOf({ length: cols }));
}

export interface TiledText {
  readonly declarations: string;
  /** The body. It needs the scalars m, n, k, split_k, tiles_m, tiles_n and splits, the functions at_a and at_b, and `emit`. */
  readonly body: string;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const COMPONENTS = ["x", "y", "z", "w"] as const;

/** Declares which tile of C a workgroup computes, from which part of k: `item`, `split`, `row0`, `col0`, `begin`, `end`. */
export const tilePlace = ({
  rows,
  cols,
}: {
  readonly rows: number;
  readonly cols: number;
}): string => `  let per_item = p.tiles_m * p.tiles_n;
  let split = (group / per_item) % p.splits;
  let item = group / (per_item * p.splits);
  // Bands of eight rows of tiles: what runs at one time shares rows of A and columns of B in the cache.
  let t = group % per_item;
  let band = t / (8u * p.tiles_n);
  let height = min(p.tiles_m - 8u * band, 8u);
  let in_band = t % (8u * p.tiles_n);
  let row0 = (8u * band + in_band % height) * ${rows}u;
  let col0 = (in_band / height) * ${cols}u;
  let begin = split * p.split_k;
  let end = min(p.k, begin + p.split_k);`;

/**
 * Declares the invocation's row and column, `y` and `x`, in a grid that is 8 or 16 wide. Many GPUs run 32 neighbours together; 8 of these are in a row, so that
 * together they read the fewest different vectors of both tiles.
 */
export const gridPlace = (across: number): string =>
  across === 16
    ? `  let y = 4u * (local / 64u) + (local / 8u) % 4u;
  let x = 8u * ((local / 32u) % 2u) + local % 8u;`
    : `  let y = local / ${across}u;
  let x = local % ${across}u;`;

/** Options of the text: how operands are read and sums are written. */
export interface TextOptions {
  readonly transA: boolean;
  readonly transB: boolean;
  /** Whether the tile divides m, n and every share of k, so that no bounds need checking. */
  readonly full: boolean;
  /** Whether a4 and b4 can be used: contiguous elements of both operands form whole vectors of four. */
  readonly fours: boolean;
  /** Name of the function that is called as emit(item, split, i, j, sum), once per element, or once per four elements with `fourSums`. */
  readonly emit: string;
  /** Whether `emit` receives a vec4f: the sums of the columns j to j + 3. */
  readonly fourSums: boolean;
}

/** Text that moves an operand's slices into workgroup memory. */
interface Loader {
  /** Fetches the first slice into registers. */
  readonly start: string;
  /** Fetches the slice after the one that begins at l0. */
  readonly next: string;
  readonly store: string;
}

interface Side {
  readonly name: "a" | "b";
  /** Elements along the tile. */
  readonly length: number;
  /** Expressions of the operand's extent, and of the tile's first element. */
  readonly extent: string;
  readonly origin: string;
  /** Whether contiguous elements run along the tile, not along k. */
  readonly alongTile: boolean;
}

/** Returns the vectors of four along the tile per line of workgroup memory, with one of padding, so that the writes of a warp along k fall on different banks. */
const lineOf = ({ length }: Pick<Side, "length">): number => length / 4 + 1;

/**
 * Number of steps of k that are unrolled: one part of a slice. Parts, lines and positions in a line are separate indices, and lines are constants in the product,
 * so that the compiler knows that they are within bounds and checks none.
 */
const PART = 4;

/**
 * Returns the loader of an operand. An invocation fetches vectors of four along the tile: as vectors if they are stored so, otherwise element by element.
 * Neighbours read neighbouring memory in both cases. Values that are the same for all slices are computed once.
 */
function loaderOf(side: Side, { depth }: Tile, count: number, full: boolean, fours: boolean): Loader {
  const { name, length, extent, origin, alongTile } = side;
  const quads = length / 4;
  /** Distance from one of its vectors to the next: lines of k, or vectors along the tile. */
  const spacing = count / (alongTile ? quads : depth);
  const fetches = range((quads * depth) / count);
  const place = (f: number): { quad: string; line: string } =>
    alongTile
      ? { quad: `quad_${name}`, line: `(line_${name} + ${f * spacing}u)` }
      : { quad: `(quad_${name} + ${f * spacing}u)`, line: `line_${name}` };
  const first = `${origin} + 4u * quad_${name}`;
  const at = name === "a" ? `at_a(item, ${first}, begin + line_a)` : `at_b(item, begin + line_b, ${first})`;
  const fetch = (from: string): string => {
    const loads = fetches.map((f) => {
      const { quad, line } = place(f);
      const element = (c: number): string =>
        `source_${name} + ${alongTile ? `${f * spacing}u * ${extent} + ${c}u` : `${4 * f * spacing + c}u * p.k`}`;
      // `&` instead of `&&`, because a branch per element is slow on GPUs and very slow on software adapters.
      const inside = (c: number): string =>
        `((${from} + ${line} < end) & (${origin} + 4u * ${quad} + ${c}u < ${extent}))`;
      const checked = (value: (index: string) => string, c: number, zero: string): string =>
        full
          ? value(element(c))
          : `select(${zero}, ${value(`select(0u, ${element(c)}, ${inside(c)})`)}, ${inside(c)})`;
      return `next_${name}${f} = ${
        fours && alongTile
          ? checked((index) => `${name}4((${index}) / 4u)`, 0, "vec4f()")
          : `vec4f(${range(4)
              .map((c) => checked((index) => `${name}(${index})`, c, "0.0"))
              .join(", ")})`
      };`;
    });
    return `${loads.join(" ")} source_${name} += ${depth}u${alongTile ? ` * ${extent}` : ""};`;
  };
  return {
    start: `let quad_${name} = local ${alongTile ? `% ${quads}u` : `/ ${depth}u`};
  let line_${name} = local ${alongTile ? `/ ${quads}u` : `% ${depth}u`};
  var source_${name} = ${at};
  ${fetches.map((f) => `var next_${name}${f}: vec4f;`).join(" ")}
  ${fetch("begin")}`,
    next: fetch(`l0 + ${depth}u`),
    store: fetches
      .map((f) => {
        const { quad, line } = place(f);
        return `tile_${name}[(${line}) / ${PART}u][(${line}) % ${PART}u][${quad}] = next_${name}${f};`;
      })
      .join(" "),
  };
}

export function tiledText(
  tile: Tile,
  { transA, transB, full, fours, emit, fourSums }: TextOptions,
): TiledText {
  const { rows, cols, depth, ownRows, ownCols } = tile;
  const count = invocations(tile);
  const a: Side = { name: "a", length: rows, extent: "p.m", origin: "row0", alongTile: transA };
  const b: Side = { name: "b", length: cols, extent: "p.n", origin: "col0", alongTile: !transB };
  const loaders = [a, b].map((side) => loaderOf(side, tile, count, full, fours));
  const rowQuads = range(ownRows / 4);
  const colQuads = range(ownCols / 4);
  const across = cols / ownCols;
  const sums = range(ownRows).flatMap((i) => colQuads.map((q) => `sum${i}_${q}`));
  const step = (u: number): string => `      {
${rowQuads.map((q) => `        let a${q} = tile_a[part][${u}][${(q * rows) / rowQuads.length / 4}u + y];`).join("\n")}
${colQuads.map((q) => `        let b${q} = tile_b[part][${u}][${(q * cols) / colQuads.length / 4}u + x];`).join("\n")}
${range(ownRows)
  .flatMap((i) =>
    colQuads.map(
      (q) =>
        `        sum${i}_${q} = fma(vec4f(a${Math.floor(i / 4)}.${COMPONENTS[i % 4]}), b${q}, sum${i}_${q});`,
    ),
  )
  .join("\n")}
      }`;
  return {
    declarations: `var<workgroup> tile_a: array<array<array<vec4f, ${lineOf(a)}>, ${PART}>, ${depth / PART}>;
var<workgroup> tile_b: array<array<array<vec4f, ${lineOf(b)}>, ${PART}>, ${depth / PART}>;`,
    body: `${tilePlace(tile)}
${gridPlace(across)}
${sums.map((sum) => `  var ${sum} = vec4f();`).join("\n")}
  ${loaders.map(({ start }) => start).join("\n  ")}
  for (var l0 = begin; l0 < end; l0 += ${depth}u) {
    workgroupBarrier();
    ${loaders.map(({ store }) => store).join("\n    ")}
    workgroupBarrier();
    if (l0 + ${depth}u < end) {
      ${loaders.map(({ next }) => next).join("\n      ")}
    }
    for (var part = 0u; part < ${depth / PART}u; part++) {
${range(PART).map(step).join("\n")}
    }
  }
${range(ownRows)
  .flatMap((i) => {
    const row = `row0 + ${(Math.floor(i / 4) * rows) / rowQuads.length + (i % 4)}u + 4u * y`;
    const put = (col: string, sum: string): string => {
      const call = `${emit}(item, split, ${row}, ${col}, ${sum});`;
      return full ? `  ${call}` : `  if (${row} < p.m && ${col} < p.n) { ${call} }`;
    };
    const first = (q: number): string => `col0 + ${(q * cols) / colQuads.length}u + 4u * x`;
    return colQuads.flatMap((q) =>
      fourSums
        ? [put(first(q), `sum${i}_${q}`)]
        : range(4).map((c) => put(`${first(q)} + ${c}u`, `sum${i}_${q}.${COMPONENTS[c]}`)),
    );
  })
  .join("\n")}`,
  };
}
