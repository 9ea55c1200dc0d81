/**
 * Matrix products: on GPUs through workgroup memory (gemm-tiled.ts), on software adapters without barriers. The fastest tile depends on the GPU and the
 * shape and is chosen by timing; all tiles give the same bits.
 *
 * A product with few tiles and a long k, such as a weight gradient, would leave most of a GPU idle, so k is divided into shares, and a second kernel adds their sums
 * in order. The number of shares depends only on the shape.
 */
import type { KernelParams } from "../../kernels/index.ts";
import { GEMM_SHARE } from "../blocks.ts";
import {
  byFours,
  type Dispatch,
  elementwise,
  f32,
  type KernelContext,
  nearestPower,
  type Launchers,
  type Operand,
  operandsOf,
  u32,
} from "../context.ts";
import { activated, activationSlopes, MATH } from "./elementwise.ts";
import {
  tensorInvocations,
  tensorText,
  type TensorTileName,
  tensorTileNames,
  tensorTiles,
} from "./gemm-tensor.ts";
import { HALF, type Needs, tensorNeeds } from "./matrices.ts";
import {
  invocations,
  storageOf,
  type TextOptions,
  type TiledText,
  type TileName,
  tiledText,
  tileNames,
  tiles,
} from "./gemm-tiled.ts";

type Params = KernelParams["gemm"];

/** The parts that the variants share: operands, scalars, and the functions that find elements and finish sums. */
interface Shared {
  readonly operands: readonly Operand[];
  readonly scalars: NonNullable<Dispatch["scalars"]>;
  readonly declarations: () => string;
  /** Like `declarations`, with a `finish` that takes the sums of four neighbours of a row. */
  readonly finish4: () => string;
  /** Identifies the transposes and the epilogue in the key of the shader. */
  readonly kind: string;
}

export const gemm: Pick<Launchers, "gemm"> = {
  gemm(context, params, { a, b, bias = null }, { c, slope = null }) {
    const { m, n, k, batch, strideA, strideB, strideC, alpha, transA, transB } = params;
    if (m === 0 || n === 0 || batch === 0) return;
    const layout = `${transA ? "T" : "N"}${transB ? "T" : "N"}`;
    const shared: Shared = {
      operands: operandsOf({ a, b, bias }, { c, slope }),
      scalars: {
        m: u32(m),
        n: u32(n),
        k: u32(k),
        stride_a: u32(strideA),
        stride_b: u32(strideB),
        stride_c: u32(strideC),
        alpha: f32(alpha),
        batch: u32(batch),
      },
      declarations: () => `${MATH}${finders(params)}
fn finish(item: u32, i: u32, j: u32, sum: f32) {
  let at = item * p.stride_c + i * p.n + j;
  let x = p.alpha * sum${bias === null ? "" : " + bias(j)"}${params.accumulate ? " + c(at)" : ""};
${slope === null ? "" : `  set_slope(at, ${activationSlopes[params.activation]});\n`}  set_c(at, ${activated[params.activation]});
}`,
      finish4: () => `${MATH}${finders(params)}
fn activated(x: f32) -> f32 { return ${activated[params.activation]}; }
${slope === null ? "" : `fn slope_at(x: f32) -> f32 { return ${activationSlopes[params.activation]}; }`}
fn finish(item: u32, i: u32, j: u32, sum: vec4f) {
  let at = (item * p.stride_c + i * p.n + j) / 4u;
  let x = p.alpha * sum${bias === null ? "" : " + bias4(j / 4u)"}${params.accumulate ? " + c4(at)" : ""};
${slope === null ? "" : "  set_slope4(at, vec4f(slope_at(x.x), slope_at(x.y), slope_at(x.z), slope_at(x.w)));\n"}  set_c4(at, ${params.activation === "none" ? "x" : "vec4f(activated(x.x), activated(x.y), activated(x.z), activated(x.w))"});
}`,
      kind: [layout, params.accumulate, params.activation, bias !== null, slope !== null].join(),
    };
    const bucket = `gemm ${layout} ${[batch, m, n, k].map(nearestPower).join("x")}`;
    const { software, rounds, tensorCores } = context.traits;
    if (rounds && tensorCores !== null) {
      const tile = tensorTiles[context.choose(`${bucket} f16`, tensorCandidates(params))];
      tiled(context, params, shared, {
        ...tile,
        key: `f16 ${tile.ownRows}x${tile.ownCols} by ${tile.depth}`,
        workgroup: tensorInvocations(tile, tensorCores),
        needs: tensorNeeds(tensorCores),
        reads: "all",
        text: (options) => tensorText(tile, { ...options, cores: tensorCores }),
      });
    } else if (software) {
      const height = context.choose(bucket, ["block", "strip"]) === "strip" ? 1 : 4;
      plain(context, params, shared, height);
    } else {
      const tile = tiles[context.choose(bucket, candidates(params, context.traits.workgroupStorage))];
      tiled(context, params, shared, {
        ...tile,
        key: `${tile.ownRows}x${tile.ownCols}`,
        workgroup: invocations(tile),
        reads: "along the tile",
        text: (options) => tiledText(tile, options),
      });
    }
  },
};

/** A tile, and the function that makes its text. */
interface Tiling {
  readonly rows: number;
  readonly cols: number;
  readonly depth: number;
  readonly key: string;
  readonly workgroup: number;
  readonly needs?: Needs;
  /** Operands that it reads as vectors of four: all, or only those that are contiguous along the tile. */
  readonly reads: "all" | "along the tile";
  readonly text: (options: TextOptions) => TiledText;
}

/** Returns the tiles for which the device has enough workgroup memory. The first is the default if nothing is timed. */
function candidates({ m, n }: Params, storage: number): readonly [TileName, ...TileName[]] {
  const least = Math.min(m, n);
  const fits = (name: TileName): boolean => storageOf(tiles[name]) <= storage;
  const first = least <= 32 ? "32x32" : least >= 128 && fits("128x128") ? "128x128" : "64x64";
  return [first, ...tileNames.filter((name) => name !== first && fits(name))];
}

function tensorCandidates({ m, n }: Params): readonly [TensorTileName, ...TensorTileName[]] {
  const first = Math.min(m, n) < 128 ? "tensor 64x64" : "tensor 128x128 by 16";
  return [first, ...tensorTileNames.filter((name) => name !== first)];
}

/** Number of tiles of 64 × 64 that fill a large GPU. */
const ENOUGH_TILES = 384;
/** Number of tiles from which the idle time while the last ones run hardly matters. To reach it, k is divided into shares of at least SPREAD_SHARE. */
const SPREAD_TILES = 4608;
const SPREAD_SHARE = 640;

/** Returns the number of shares into which k is divided. */
export function sharesOf({ m, n, k, batch }: Pick<Params, "m" | "n" | "k" | "batch">): number {
  const count = batch * Math.ceil(m / 64) * Math.ceil(n / 64);
  const filled = Math.min(Math.ceil(ENOUGH_TILES / count), Math.floor(k / GEMM_SHARE));
  const spread = Math.min(Math.floor(SPREAD_TILES / count), Math.floor(k / SPREAD_SHARE));
  return Math.max(1, Math.min(Math.max(filled, spread), 16));
}

/** Whether an operand with rows of `width` elements can be read as vectors of four. */
const inFours = (width: number, { batch }: Params, stride: number): boolean =>
  width % 4 === 0 && (batch === 1 || stride % 4 === 0);

function tiled(context: KernelContext, params: Params, shared: Shared, tile: Tiling): void {
  const { m, n, k, batch, transA, transB } = params;
  const wanted = sharesOf(params);
  const share = Math.max(32, 32 * Math.ceil(k / wanted / 32));
  const splits = Math.max(1, Math.ceil(k / share));
  const [tilesM, tilesN] = [Math.ceil(m / tile.rows), Math.ceil(n / tile.cols)];
  const full = m % tile.rows === 0 && n % tile.cols === 0 && k % tile.depth === 0;
  const fours =
    inFours(transA ? m : k, params, params.strideA) && inFours(transB ? k : n, params, params.strideB);
  const all = tile.reads === "all";
  const byFour = fours ? [...(all || transA ? ["a"] : []), ...(all || !transB ? ["b"] : [])] : [];
  const fourSums = inFours(n, params, params.strideC);
  const name = `${tile.rows}x${tile.cols} ${tile.key} ${[full, fours, fourSums].join()}`;
  const scalars = {
    ...shared.scalars,
    tiles_m: u32(tilesM),
    tiles_n: u32(tilesN),
    split_k: u32(share),
    splits: u32(splits),
  };
  const groups = batch * splits * tilesM * tilesN;
  if (splits === 1) {
    const text = (): TiledText => tile.text({ transA, transB, full, fours, emit: "finish_split", fourSums });
    context.dispatch({
      key: `gemm ${name} ${shared.kind}`,
      carries: true,
      operands: byFours(shared.operands, [...byFour, ...(fourSums ? ["bias", "c", "slope"] : [])]),
      scalars,
      workgroup: tile.workgroup,
      ...tile.needs,
      groups,
      declarations: () => `${fourSums ? shared.finish4() : shared.declarations()}
fn finish_split(item: u32, split: u32, i: u32, j: u32, sum: ${fourSums ? "vec4f" : "f32"}) { finish(item, i, j, sum); }
${text().declarations}`,
      body: () => text().body,
    });
    return;
  }
  const partial = context.scratch(batch * splits * m * n);
  // The shares' sums have their own memory, so this condition does not depend on the layout of C.
  const fourParts = n % 4 === 0;
  const text = (): TiledText => tile.text({ transA, transB, full, fours, emit: "keep", fourSums: fourParts });
  const factors = shared.operands.filter(({ name: operand }) => operand === "a" || operand === "b");
  const layout = shared.kind.slice(0, 2);
  context.dispatch({
    key: `gemm ${name} ${layout} shares ${fourParts}`,
    carries: true,
    operands: byFours(
      [...factors, { name: "partial", view: partial, written: true }],
      [...byFour, ...(fourParts ? ["partial"] : [])],
    ),
    scalars,
    workgroup: tile.workgroup,
    ...tile.needs,
    groups,
    declarations: () => `${finders(params)}
fn keep(item: u32, split: u32, i: u32, j: u32, sum: ${fourParts ? "vec4f" : "f32"}) {
  let at = (((item * p.splits) + split) * p.m + i) * p.n + j;
  ${fourParts ? "set_partial4(at / 4u, sum);" : "set_partial(at, sum);"}
}
${text().declarations}`,
    body: () => text().body,
  });
  elementwise(context, batch * m * n, {
    key: `gemm join ${shared.kind}`,
    operands: [
      ...shared.operands.filter(({ name: operand }) => operand !== "a" && operand !== "b"),
      { name: "partial", view: partial },
    ],
    scalars,
    declarations: shared.declarations,
    body: () => `  let item = i / (p.m * p.n);
  let inside = i % (p.m * p.n);
  var sum = 0.0;
  for (var split = 0u; split < p.splits; split++) {
    sum += partial((item * p.splits + split) * p.m * p.n + inside);
  }
  finish(item, inside / p.n, inside % p.n, sum);`,
  });
}

/** Functions that return the elements at_a(item, i, l) and at_b(item, l, j). */
const finders = ({ transA, transB }: Params): string => `
fn at_a(item: u32, i: u32, l: u32) -> u32 { return item * p.stride_a + ${transA ? "l * p.m + i" : "i * p.k + l"}; }
fn at_b(item: u32, l: u32, j: u32) -> u32 { return item * p.stride_b + ${transB ? "j * p.k + l" : "l * p.n + j"}; }`;

/** Dispatches the product without barriers: an invocation computes a block of `height` × 4. */
function plain(
  context: KernelContext,
  { m, n, batch }: Params,
  { kind, operands, scalars, declarations }: Shared,
  height: 1 | 4,
): void {
  const four = [0, 1, 2, 3];
  const rows = four.slice(0, height);
  const strips = Math.ceil(n / 4);
  const { rounds } = context.traits;
  const round = (x: string): string => (rounds ? `half(${x})` : x);
  context.dispatch({
    operands,
    scalars,
    declarations: () => `${declarations()}${rounds ? HALF : ""}`,
    key: `gemm plain ${height} ${rounds ? "rounded" : ""} ${kind}`,
    carries: true,
    groups: Math.ceil((batch * Math.ceil(m / height) * strips) / 64),
    body: () => `  let strips = (p.n + 3u) / 4u;
  let bands = (p.m + ${height - 1}u) / ${height}u;
  if (thread >= p.batch * bands * strips) { return; }
  let item = thread / (bands * strips);
  let i = ((thread / strips) % bands) * ${height}u;
  let j = (thread % strips) * 4u;
  // Beyond the last row or column the last one is read again, and not written.
${rows.map((r) => `  let i${r} = min(i + ${r}u, p.m - 1u);`).join("\n")}
${four.map((c) => `  let j${c} = min(j + ${c}u, p.n - 1u);`).join("\n")}
${rows.map((r) => four.map((c) => `  var sum${r}${c} = 0.0;`).join("")).join("\n")}
  for (var l = 0u; l < p.k; l++) {
${four.map((c) => `    let b${c} = ${round(`b(at_b(item, l, j${c}))`)};`).join("\n")}
${rows.map((r) => `    let a${r} = ${round(`a(at_a(item, i${r}, l))`)};\n${four.map((c) => `    sum${r}${c} = fma(a${r}, b${c}, sum${r}${c});`).join("\n")}`).join("\n")}
  }
${rows.flatMap((r) => four.map((c) => `  if (i + ${r}u < p.m && j + ${c}u < p.n) { finish(item, i${r}, j${c}, sum${r}${c}); }`)).join("\n")}`,
  });
}
