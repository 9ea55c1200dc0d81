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
  "128x128": { rows: 128, cols: 128, depth: 8, ownRows: 8, ownCols: 8 },
  "128x64": { rows: 128, cols: 64, depth: 16, ownRows: 8, ownCols: 4 },
  "64x64 of 8x8": { rows: 64, cols: 64, depth: 8, ownRows: 8, ownCols: 8 },
  "32x32": { rows: 32, cols: 32, depth: 16, ownRows: 4, ownCols: 4 },
};

export const tileNames: readonly TileName[] = ["64x64", "128x128", "128x64", "64x64 of 8x8", "32x32"];

export function invocations({ rows, cols, ownRows, ownCols }: Tile): number {
  return (rows / ownRows) * (cols / ownCols);
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
 * `full`: the tile divides m, n and every share of k, so that nothing has to be checked. `emit` is called as emit(item, split, i, j, sum), once an element.
 */
export function tiledText(
  tile: Tile,
  {
    transA,
    transB,
    full,
    emit,
  }: {
    readonly transA: boolean;
    readonly transB: boolean;
    readonly full: boolean;
    readonly emit: string;
  },
): TiledText {
  const { rows, cols, depth, ownRows, ownCols } = tile;
  const count = invocations(tile);
  /** Vectors that an invocation fetches of a slice. */
  const side = (extent: number, alongTile: boolean) => ({
    quads: extent / 4,
    // One vector of padding: the writes of a warp that walks along k fall on different banks.
    stride: extent / 4 + 1,
    fetches: (extent * depth) / 4 / count,
    alongTile,
  });
  const a = { ...side(rows, transA), name: "a", extent: "p.m", origin: "row0" };
  const b = { ...side(cols, !transB), name: "b", extent: "p.n", origin: "col0" };

  // Neighbouring invocations read neighbouring elements of either storage.
  const place = ({ alongTile, quads }: typeof a, f: number): { quad: string; l: string } => {
    const e = f === 0 ? "local" : `(local + ${f * count}u)`;
    return alongTile
      ? { quad: `(${e} % ${quads}u)`, l: `(${e} / ${quads}u)` }
      : { quad: `(${e} / ${depth}u)`, l: `(${e} % ${depth}u)` };
  };
  const loader = ({ name, extent }: typeof a): string => {
    const at = (c: number): string =>
      name === "a" ? `at_a(item, first + ${c}u, l)` : `at_b(item, l, first + ${c}u)`;
    // `&`, not `&&`: a branch an element is slow everywhere, and software adapters choke on it.
    const checks = range(4).map((c) => `  let in${c} = (l < end) & (first + ${c}u < ${extent});\n`);
    const one = (c: number): string =>
      full ? `${name}(${at(c)})` : `select(0.0, ${name}(select(0u, ${at(c)}, in${c})), in${c})`;
    return `fn fetch_${name}(item: u32, first: u32, l: u32, end: u32) -> vec4f {
${full ? "" : checks.join("")}  return vec4f(${range(4).map(one).join(",\n    ")});
}`;
  };
  const fetch = (s: typeof a, from: string, declare: string): string =>
    range(s.fetches)
      .map((f) => {
        const { quad, l } = place(s, f);
        return `${declare}next_${s.name}${f} = fetch_${s.name}(item, ${s.origin} + 4u * ${quad}, ${from} + ${l}, end);`;
      })
      .join(" ");
  const store = (s: typeof a): string =>
    range(s.fetches)
      .map((f) => {
        const { quad, l } = place(s, f);
        return `tile_${s.name}[${l} * ${s.stride}u + ${quad}] = next_${s.name}${f};`;
      })
      .join(" ");

  const rowQuads = range(ownRows / 4);
  const colQuads = range(ownCols / 4);
  const across = cols / ownCols;
  const sums = range(ownRows).flatMap((i) => colQuads.map((q) => `sum${i}_${q}`));
  return {
    declarations: `var<workgroup> tile_a: array<vec4f, ${depth * a.stride}>;
var<workgroup> tile_b: array<vec4f, ${depth * b.stride}>;
${loader(a)}
${loader(b)}`,
    body: `${tilePlace(tile)}
  let y = local / ${across}u;
  let x = local % ${across}u;
${sums.map((sum) => `  var ${sum} = vec4f();`).join("\n")}
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
    for (var l = 0u; l < ${depth}u; l++) {
${rowQuads.map((q) => `      let a${q} = tile_a[l * ${a.stride}u + ${(q * rows) / rowQuads.length / 4}u + y];`).join("\n")}
${colQuads.map((q) => `      let b${q} = tile_b[l * ${b.stride}u + ${(q * cols) / colQuads.length / 4}u + x];`).join("\n")}
${range(ownRows)
  .flatMap((i) =>
    colQuads.map(
      (q) =>
        `      sum${i}_${q} = fma(vec4f(a${Math.floor(i / 4)}.${COMPONENTS[i % 4]}), b${q}, sum${i}_${q});`,
    ),
  )
  .join("\n")}
    }
  }
${range(ownRows)
  .flatMap((i) => {
    const row = `row0 + ${(Math.floor(i / 4) * rows) / rowQuads.length + (i % 4)}u + 4u * y`;
    return range(ownCols).map((j) => {
      const q = Math.floor(j / 4);
      const col = `col0 + ${(q * cols) / colQuads.length + (j % 4)}u + 4u * x`;
      const call = `${emit}(item, split, ${row}, ${col}, sum${i}_${q}.${COMPONENTS[j % 4]});`;
      return full ? `  ${call}` : `  if (${row} < p.m && ${col} < p.n) { ${call} }`;
    });
  })
  .join("\n")}`,
  };
}
