/**
 * The text of a matrix product through workgroup memory.
 *
 * A workgroup makes a tile of `rows` × `cols`; slices of `depth` of k go through workgroup memory as vectors of four, A and B both laid out along the tile,
 * so that an invocation reads its 4 (or 8) rows and columns in wide loads. The next slice is fetched into registers while this one is multiplied. Every
 * element of C is one chain of multiply-adds in the order of k, whatever the tile: all tiles give the same bits, and the fastest can be chosen by time.
 */

export interface Tile {
  readonly rows: number;
  readonly cols: number;
  readonly depth: number;
  /** Rows and columns of an invocation: 4 or 8. */
  readonly ownRows: 4 | 8;
  readonly ownCols: 4 | 8;
}

export type TileName = "64x64" | "128x128" | "128x64" | "64x64 of 8x8" | "32x32";

/** By the names that a timed choice is remembered by. */
export const tiles: { readonly [K in TileName]: Tile } = {
  "64x64": { rows: 64, cols: 64, depth: 16, ownRows: 4, ownCols: 4 },
  "128x128": { rows: 128, cols: 128, depth: 16, ownRows: 8, ownCols: 8 },
  "128x64": { rows: 128, cols: 64, depth: 16, ownRows: 8, ownCols: 4 },
  "64x64 of 8x8": { rows: 64, cols: 64, depth: 8, ownRows: 8, ownCols: 8 },
  "32x32": { rows: 32, cols: 32, depth: 16, ownRows: 4, ownCols: 4 },
};

export const tileNames: readonly TileName[] = ["64x64", "128x128", "128x64", "64x64 of 8x8", "32x32"];

export function invocations({ rows, cols, ownRows, ownCols }: Tile): number {
  return (rows / ownRows) * (cols / ownCols);
}

/** Bytes of workgroup memory. */
export function storageOf({ rows, cols, depth }: Tile): number {
  return 16 * depth * (lineOf({ length: rows }) + lineOf({ length: cols }));
}

export interface TiledText {
  readonly declarations: string;
  /** Needs the scalars m, n, k, split_k, tiles_m, tiles_n and splits, the functions at_a and at_b, and `emit`. */
  readonly body: string;
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const COMPONENTS = ["x", "y", "z", "w"] as const;

/** Which tile of C a workgroup makes, and of which rows of k: `item`, `split`, `row0`, `col0`, `begin`, `end`. */
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
 * The invocation's row and column, `y` and `x`, in a grid that is 8 or 16 wide. Of 32 neighbours, which many GPUs run together, 8 are in a row: they read the
 * fewest different vectors of both tiles.
 */
export const gridPlace = (across: number): string =>
  across === 16
    ? `  let y = 4u * (local / 64u) + (local / 8u) % 4u;
  let x = 8u * ((local / 32u) % 2u) + local % 8u;`
    : `  let y = local / ${across}u;
  let x = local % ${across}u;`;

/** How operands are read and sums written. */
export interface TextOptions {
  readonly transA: boolean;
  readonly transB: boolean;
  /** The tile divides m, n and every share of k, so that nothing has to be checked. */
  readonly full: boolean;
  /** a4 and b4 can be used: what is contiguous in either operand comes in whole fours. */
  readonly fours: boolean;
  /** Called as emit(item, split, i, j, sum), once an element; */
  readonly emit: string;
  /** with `fourSums` sum is a vec4f, of the columns j to j + 3. */
  readonly fourSums: boolean;
}

/** An operand's slice on its way into workgroup memory. */
interface Loader {
  readonly declarations: string;
  /** Fetches the first slice into registers. */
  readonly start: string;
  /** Fetches the slice after the one that begins at l0. */
  readonly next: string;
  readonly store: string;
}

interface Side {
  readonly name: "a" | "b";
  /** Of the tile. */
  readonly length: number;
  /** Of the operand, and where the tile begins. */
  readonly extent: string;
  readonly origin: string;
  /** What is contiguous in storage runs along the tile, not along k. */
  readonly alongTile: boolean;
}

/** Vectors of four along the tile in a line of workgroup memory, with one of padding: the writes of a warp that walks along k fall on different banks. */
const lineOf = ({ length }: Pick<Side, "length">): number => length / 4 + 1;

/**
 * Steps of k that are written out one after the other: a part of a slice. Parts, lines and places in a line are indices of their own, and lines are constants
 * where the product is made: the compiler then knows that they are within bounds, and checks none.
 */
const PART = 8;

/** Line `l` of a tile in workgroup memory, at vector `quad`. */
const placeIn = (name: "a" | "b", l: string, quad: string): string =>
  `tile_${name}[(${l}) / ${PART}u][(${l}) % ${PART}u][${quad}]`;

/** Element by element, whatever the shape. All invocations fetch of both operands; neighbours read neighbouring elements of either storage. */
function elementLoader(side: Side, { depth }: Tile, count: number, full: boolean): Loader {
  const { name, length, extent, origin, alongTile } = side;
  const quads = length / 4;
  const fetches = (length * depth) / 4 / count;
  const place = (f: number): { quad: string; l: string } => {
    const e = f === 0 ? "local" : `(local + ${f * count}u)`;
    return alongTile
      ? { quad: `(${e} % ${quads}u)`, l: `(${e} / ${quads}u)` }
      : { quad: `(${e} / ${depth}u)`, l: `(${e} % ${depth}u)` };
  };
  const at = (c: number): string =>
    name === "a" ? `at_a(item, first + ${c}u, l)` : `at_b(item, l, first + ${c}u)`;
  // `&`, not `&&`: a branch an element is slow everywhere, and software adapters choke on it.
  const checks = range(4).map((c) => `  let in${c} = (l < end) & (first + ${c}u < ${extent});\n`);
  const one = (c: number): string =>
    full ? `${name}(${at(c)})` : `select(0.0, ${name}(select(0u, ${at(c)}, in${c})), in${c})`;
  const fetch = (from: string, declare: "var " | ""): string =>
    range(fetches)
      .map((f) => {
        const { quad, l } = place(f);
        return `${declare}next_${name}${f} = fetch_${name}(item, ${origin} + 4u * ${quad}, ${from} + ${l}, end);`;
      })
      .join(" ");
  return {
    declarations: `fn fetch_${name}(item: u32, first: u32, l: u32, end: u32) -> vec4f {
${full ? "" : checks.join("")}  return vec4f(${range(4).map(one).join(",\n    ")});
}`,
    start: fetch("begin", "var "),
    next: fetch(`l0 + ${depth}u`, ""),
    store: range(fetches)
      .map((f) => {
        const { quad, l } = place(f);
        return `${placeIn(name, l, quad)} = next_${name}${f};`;
      })
      .join(" "),
  };
}

/**
 * By fours. An invocation fetches four vectors of one operand, the first invocations of A, the next ones of B: four neighbours along the tile, or a block of
 * 4 × 4 along k, which is turned on its way. The two share their registers, and what does not change from slice to slice is worked out once.
 */
function foursLoader(sides: readonly Side[], { depth }: Tile, full: boolean): Loader {
  const bounds = sides.map(({ length }) => (length * depth) / 16);
  const parts = sides.map((side, i) => ({ side, begin: i === 0 ? 0 : bounds[0], count: bounds[i] }));
  const each = (text: (part: (typeof parts)[number]) => string): string =>
    parts
      .map((part, i) => `${i === 0 ? "" : "else "}if (local < ${part.begin + part.count}u) { ${text(part)} }`)
      .join(" ");
  /** Lines of k from one vector along the tile to the next. */
  const apart = depth / 4;
  const begin = ({ side, begin: first }: (typeof parts)[number]): string => {
    const { name, origin, extent, length, alongTile } = side;
    const own = first === 0 ? "local" : `(local - ${first}u)`;
    const [quad, line] = alongTile
      ? [`${own} % ${length / 4}u`, `${own} / ${length / 4}u`]
      : [`${own} / ${depth / 4}u`, `4u * (${own} % ${depth / 4}u)`];
    const element = name === "a" ? "at_a(item, x, begin + line)" : "at_b(item, begin + line, x)";
    const inside = alongTile
      ? `inside0 = x < ${extent};`
      : range(4)
          .map((f) => `inside${f} = x + ${f}u < ${extent};`)
          .join(" ");
    return `quad = ${quad}; line = ${line}; let x = ${origin} + 4u * quad; at = ${element} / 4u; ${full ? "" : inside}`;
  };
  const fetches = each(({ side: { name, extent, alongTile } }) => {
    const stride = alongTile ? `${apart}u * (${extent} / 4u)` : "(p.k / 4u)";
    const loads = range(4).map((f) => {
      const own = `at + ${f}u * ${stride}`;
      if (full) return `next${f} = ${name}4(${own});`;
      const inside = alongTile
        ? `inside0 & (l0 + line + ${f * apart}u < end)`
        : `inside${f} & (l0 + line < end)`;
      return `{ let inside = ${inside}; next${f} = select(vec4f(), ${name}4(select(0u, ${own}, inside)), inside); }`;
    });
    return `${loads.join(" ")} at += ${alongTile ? `${depth}u * (${extent} / 4u)` : `${depth / 4}u`};`;
  });
  return {
    declarations: "",
    start: `var at = 0u; var quad = 0u; var line = 0u; ${
      full
        ? ""
        : range(4)
            .map((f) => `var inside${f} = false;`)
            .join(" ")
    }
  ${range(4)
    .map((f) => `var next${f}: vec4f;`)
    .join(" ")}
  ${each(begin)}
  { let l0 = begin; ${fetches} }
  let part_line = line / ${PART}u; let own_line = line % ${PART}u;`,
    next: `{ let l0 = l0 + ${depth}u; ${fetches} }`,
    store: each(({ side: { name, alongTile } }) =>
      range(4)
        .map((f) => {
          if (alongTile) return `${placeIn(name, `line + ${f * apart}u`, "quad")} = next${f};`;
          const turned = range(4).map((c) => `next${c}.${COMPONENTS[f]}`);
          // Blocks lie within parts.
          return `tile_${name}[part_line][own_line + ${f}u][quad] = vec4f(${turned.join(", ")});`;
        })
        .join(" "),
    ),
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
  const loaders = fours
    ? [foursLoader([a, b], tile, full)]
    : [a, b].map((side) => elementLoader(side, tile, count, full));
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
var<workgroup> tile_b: array<array<array<vec4f, ${lineOf(b)}>, ${PART}>, ${depth / PART}>;
${loaders.map(({ declarations }) => declarations).join("\n")}`,
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
