/**
 * The segmented weight gradient on a GPU.
 *
 * A workgroup goes through the segments in order and computes one tile of each segment's W (gemm-segmented-tiles.ts). At a segment's end it reads V and sums the
 * results of its invocations.
 *
 * If there are few tiles, the segments are divided into ranges, each with its own workgroups. The totals of the ranges go to scratch and are summed in order. The
 * number of ranges depends only on shapes. If the direction is the gradient of some segments, a first walk over these computes it.
 */
import type { View } from "../../../tensor/memory.ts";
import type { KernelParams } from "../../kernels/index.ts";
import { byFours, type KernelContext, nearestPower, operandsOf, u32 } from "../context.ts";
import { addParts } from "./columns.ts";
import {
  floatTile,
  type FloatTileName,
  floatTileNames,
  type SegmentTile,
  tensorTile,
} from "./gemm-segmented-tiles.ts";
import { walkBody, walkDeclarations, walkKey, type WalkVariant } from "./gemm-segmented-walk-text.ts";
import { type Needs, tensorNeeds } from "./matrices.ts";

type Params = KernelParams["gemmSegmented"];

/**
 * Number of workgroups that a large GPU needs. Up to SPREAD workgroups are used if each has at least SPREAD_ROWS rows, since more of them finish at about the same
 * time (as for products, gemm.ts).
 */
const BUSY_WORKGROUPS = 256;
const SPREAD = 4608;
const SPREAD_ROWS = 512;

export interface Operands {
  readonly a: View;
  readonly b: View;
  readonly segments: View;
  readonly groups: View | null;
  readonly v: View | null;
  readonly total: View | null;
}

/** The division of W into tiles of workgroups, and into blocks for which partial results are written. */
interface Tiling {
  readonly tile: SegmentTile;
  readonly needs: Needs;
  readonly tilesN: number;
  readonly tiles: number;
  readonly blocksM: number;
  readonly blocksN: number;
}

export interface Tiled {
  readonly blocks: number;
  /** Writes partials[row · blocks + block]: dots, squares, groups, ‖V‖². */
  run(partials: View): void;
}

function tilingWith(tile: SegmentTile, needs: Needs, { m, n }: Params): Tiling {
  const tilesN = Math.ceil(n / tile.cols);
  const [blocksM, blocksN] = [Math.ceil(m / tile.block), Math.ceil(n / tile.block)];
  return { tile, needs, tilesN, tiles: Math.ceil(m / tile.rows) * tilesN, blocksM, blocksN };
}

/** Whether the larger of two tilings has enough workgroups and little area outside of W. If so, it is better, since it reads memory less often. */
function pays(large: Tiling, small: Tiling, segmentCount: number): boolean {
  const area = ({ tile, tiles }: Tiling): number => tiles * tile.rows * tile.cols;
  return area(large) <= 1.125 * area(small) && large.tiles * segmentCount >= BUSY_WORKGROUPS;
}

function tilingOf(context: KernelContext, params: Params, grouped: boolean): Tiling {
  const { rounds, tensorCores, workgroupStorage } = context.traits;
  const { rows, m, n, segmentCount } = params;
  if (rounds && tensorCores !== null) {
    const tiling = (size: boolean): Tiling =>
      tilingWith(tensorTile(size, tensorCores), tensorNeeds(tensorCores), params);
    const [large, small] = [tiling(true), tiling(false)];
    const fits = large.tile.bytes <= workgroupStorage;
    return !grouped && fits && pays(large, small, segmentCount) ? large : small;
  }
  const tiling = (name: FloatTileName): Tiling => tilingWith(floatTile(name), {}, params);
  // With a group's sums, larger tiles would need too many registers.
  if (grouped) return tiling("64x64");
  const fits = (name: FloatTileName): boolean => floatTile(name).bytes <= workgroupStorage;
  const larger = fits("128x64") && pays(tiling("128x64"), tiling("64x64"), segmentCount);
  const first = larger ? "128x64" : "64x64";
  const others = floatTileNames.filter((name) => name !== first && fits(name));
  const bucket = `gemmSegmented ${[segmentCount, rows, m, n].map(nearestPower).join("x")}`;
  return tiling(context.choose(bucket, [first, ...others]));
}

export function tiled(
  context: KernelContext,
  params: Params,
  { a, b, segments, groups, v, total }: Operands,
): Tiled {
  const { m, n, segmentCount, firstAccumulated, accumulate } = params;
  const tiling = tilingOf(context, params, groups !== null);
  const targets = v === null ? params.targetSegments : 0;
  return {
    blocks: tiling.blocksM * tiling.blocksN,
    run(partials) {
      if (tiling.tiles === 0) return;
      const shared = { params, tiling, a, b, segments, partials };
      if (targets === 0) {
        walk(context, {
          ...{ ...shared, groups, v, total, accumulate },
          ...{ begin: 0, end: segmentCount, known: 0, first: firstAccumulated, last: true, fromV: false },
        });
        return;
      }
      const direction = context.scratch(m * n);
      walk(context, {
        ...{ ...shared, groups: null, v: null, total: direction, accumulate: false },
        ...{ begin: 0, end: targets, known: 0, first: 0, last: false, fromV: false },
      });
      // The second walk includes the target's segments if the total contains some of them, or if a group does.
      const fromV = total !== null && firstAccumulated === 0;
      const first = fromV || total === null ? targets : firstAccumulated;
      walk(context, {
        ...{ ...shared, groups, v: direction, total, accumulate },
        ...{ begin: Math.min(targets, first), end: segmentCount, known: targets, first, last: true, fromV },
      });
    },
  };
}

interface Walk {
  readonly params: Params;
  readonly tiling: Tiling;
  readonly a: View;
  readonly b: View;
  readonly segments: View;
  readonly groups: View | null;
  readonly v: View | null;
  readonly total: View | null;
  readonly partials: View;
  /** Segments to go through; with groups, the walk begins at the first group. */
  readonly begin: number;
  readonly end: number;
  /** Segments before this one already have their dots and squares. */
  readonly known: number;
  /** First segment that is in the total. */
  readonly first: number;
  readonly accumulate: boolean;
  /** Whether this is the walk that reads V, if there is one. */
  readonly last: boolean;
  /** Whether V is added to the total. */
  readonly fromV: boolean;
}

/** Returns the number of ranges, which depends only on shapes, so that the bits do too. */
function rangesOf({ params, tiling, begin, end, groups }: Walk): number {
  const { m, n } = params;
  const rows = (params.rows / Math.max(1, params.segmentCount)) * (end - begin);
  const blocks = tiling.blocksM * tiling.blocksN;
  const target = Math.max(
    Math.ceil(BUSY_WORKGROUPS / blocks),
    Math.min(Math.floor(SPREAD / (Math.ceil(m / 64) * Math.ceil(n / 64))), Math.floor(rows / SPREAD_ROWS)),
  );
  const total = Math.max(1, groups === null ? end - begin : params.groupCount);
  // Ranges of equal length, since the longest range determines the time.
  return Math.ceil(total / Math.ceil(total / Math.min(total, target)));
}

function walk(context: KernelContext, w: Walk): void {
  const { tiling, a, b, segments, groups, v, total, partials } = w;
  const { m, n, segmentCount, groupCount } = w.params;
  const { tile } = tiling;
  const ranges = rangesOf(w);
  const split = ranges > 1 && total !== null;
  const sums = split ? context.scratch(ranges * m * n) : total;
  const variant: WalkVariant = {
    ...{ tile, fours: m % 4 === 0 && n % 4 === 0 },
    ...{ v: v !== null, total: total !== null, groups: groups !== null },
    ...{ adds: w.accumulate && total !== null && !split, last: w.last, fromV: w.fromV },
  };
  context.dispatch({
    key: walkKey(variant),
    operands: byFours(
      operandsOf({ a, b, segments, groups, v }, { total: sums, partials }),
      variant.fours ? ["a", "b", ...(tile.piece === "vec4f" ? ["v", "total"] : [])] : [],
    ),
    scalars: {
      m: u32(m),
      n: u32(n),
      tiles_n: u32(tiling.tilesN),
      tiles: u32(tiling.tiles),
      blocks_m: u32(tiling.blocksM),
      blocks_n: u32(tiling.blocksN),
      ranges: u32(ranges),
      segment_count: u32(segmentCount),
      group_count: u32(groupCount),
      begin: u32(w.begin),
      end: u32(w.end),
      known: u32(w.known),
      first: u32(w.first),
    },
    workgroup: tile.workgroup,
    ...tiling.needs,
    groups: tiling.tiles * ranges,
    declarations: () => walkDeclarations(variant),
    body: () => walkBody(variant),
  });
  if (split && sums !== null)
    addParts(context, {
      ...{ partial: sums, parts: ranges, count: m * n, width: n, outStride: n },
      ...{ accumulate: w.accumulate, out: total },
    });
}
