/** Dropout. */
import { run } from "../../backends/backend.ts";
import { checkOptions, integerIn, numberIn, type OptionChecks, required } from "../../options.ts";
import { foldIn, key } from "../../tensor/rng.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsElementwise } from "../batch.ts";
import { allocate, apply1, type Op, specOf, wantType } from "../op.ts";
import { moving } from "./broadcast.ts";

interface DropoutAttrs {
  readonly rate: number;
  readonly seed: number;
  readonly stream: number;
}

const checkRate = numberIn({ min: 0, max: 1, openMax: true });
const checkWhole = integerIn(0);

/** Linear in x, and its own transpose: the mask is drawn again in the backward pass, not stored. */
export const dropoutOp: Op<DropoutAttrs> = moving(
  {
    name: "dropout",
    keepsBatch: keepsElementwise,
    infer([x], { rate, seed, stream }) {
      checkRate("dropout: rate", rate);
      checkWhole("dropout: seed", seed);
      checkWhole("dropout: stream", stream);
      wantType("dropout", "x", x, "f32");
      return [specOf(x)];
    },
    forward([x], { rate, seed, stream }, [spec]) {
      if (rate === 0) return { outputs: [x.part(x.shape)] };
      const y = allocate(spec, x);
      const [key0, key1] = foldIn(key(seed), stream);
      const threshold = Math.ceil(rate * 2 ** 24);
      run("dropout", { threshold, scale: 1 / (1 - rate), key0, key1 }, { x }, { y });
      return { outputs: [y] };
    },
  },
  (t, attrs) => apply1(dropoutOp, [t], attrs),
  (ct, attrs) => apply1(dropoutOp, [ct], attrs),
);

/** Options of `dropout`. */
export interface DropoutOptions {
  /** Seed of the mask, an integer of at least 0. */
  readonly seed: number;
  /** Number of the mask among those of the seed, an integer of at least 0. Default 0. */
  readonly stream?: number;
}

const dropoutOptions: OptionChecks<DropoutOptions> = { seed: required(checkWhole), stream: checkWhole };

/**
 * x with each element set to 0 with probability `rate`, 0 ≤ rate < 1, and the others divided by 1 − rate (Srivastava et al. 2014), so that the mean
 * stays. Element i is dropped where element i of `randomUniform(foldIn(key(seed), stream), x.shape)` is below `rate`. So the same elements are
 * dropped on every backend, and again in the backward pass, which stores no mask. Each use in a model, and each training step, needs its own
 * `stream`, for example step · uses + use. With rate 0 it returns x, as an evaluation requires. Throws `shape` unless x is f32, and `config` for
 * another rate, seed or stream.
 */
export function dropout(x: Tensor, rate: number, options: DropoutOptions): Tensor<"f32"> {
  checkOptions("dropout", options, dropoutOptions);
  const { seed, stream = 0 } = options;
  return apply1(dropoutOp, [x], { rate, seed, stream });
}
