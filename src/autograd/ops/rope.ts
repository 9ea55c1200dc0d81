/** Rotary position embedding (Su et al. 2021), with the half-split pairing of the Llama code. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, checkOptions, integerIn, numberIn, unchecked } from "../../options.ts";
import { extentsOf, formatShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsRows } from "../batch.ts";
import { allocate, apply1, type Op, specOf, wantType } from "../op.ts";

/** Options of `rope`. */
export interface RopeOptions {
  /** Number of blocks of `headDim` columns that are rotated; the other columns are copied. */
  readonly heads: number;
  /** Columns per block. */
  readonly headDim: number;
  /** Base of the rotation angles. Default 10000. */
  readonly theta?: number;
  /** Position of the first row. A step of generation with cached keys passes its own position. Default 0; at most 2³⁰. */
  readonly offset?: number;
}

interface RopeAttrs extends Required<RopeOptions> {
  readonly inverse: boolean;
}

export const ropeOp: Op<RopeAttrs, "x", "y"> = {
  name: "rope",
  keepsBatch: keepsRows,
  infer([x], { heads, headDim, theta, offset, inverse }) {
    wantType("rope", "x", x, "f32");
    integerIn(1)("rope: heads", heads);
    integerIn(2)("rope: headDim", headDim);
    numberIn({ min: 0, openMin: true })("rope: theta", theta);
    integerIn(0, 2 ** 30)("rope: offset", offset);
    boolean("rope: inverse", inverse);
    if (x.shape.length !== 3 || x.shape[2]! < heads * headDim || headDim % 2 !== 0)
      throw new GradmixError(
        "shape",
        `rope: ${heads} heads of ${headDim} columns do not fit x ${formatShape(x.shape)}; wanted [batch, time, columns] and an even head size`,
      );
    return [specOf(x)];
  },
  forward([x], attrs, [spec]) {
    const y = allocate(spec, x);
    const [batch, time, cols] = extentsOf(x.shape, 3);
    run("rope", { batch, time, cols, ...attrs }, { x }, { y });
    return { outputs: [y] };
  },
  vjp([ct], { attrs }) {
    return [ct === null ? null : apply1(ropeOp, [ct], { ...attrs, inverse: !attrs.inverse })];
  },
  jvp([tangent], { attrs }) {
    return [tangent === null ? null : apply1(ropeOp, [tangent], attrs)];
  },
};

/** Rotates the first `heads` blocks of `headDim` columns of x [batch, time, columns] by their positions `offset` … offset + time − 1. */
export function rope(x: Tensor, options: RopeOptions): Tensor<"f32"> {
  checkOptions("rope", options, {
    heads: unchecked,
    headDim: unchecked,
    theta: unchecked,
    offset: unchecked,
  });
  const { heads, headDim, theta = 10000, offset = 0 } = options;
  return apply1(ropeOp, [x], { heads, headDim, theta, offset, inverse: false });
}
