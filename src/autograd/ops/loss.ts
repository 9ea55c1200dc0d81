/** Softmax cross-entropy, one loss per token. */
import { run } from "../../backends/backend.ts";
import { GradmixError } from "../../errors.ts";
import { integerIn } from "../../options.ts";
import { formatShape, sameShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsElementwise, type KeepsBatch, keepsRows } from "../batch.ts";
import {
  allocate,
  apply1,
  filled,
  linearIn,
  type None,
  none,
  type Op,
  type Spec,
  specOf,
  transforming,
  wantType,
} from "../op.ts";
import { wantLike, wantTensors } from "../checks.ts";
import { mul, sub } from "./arithmetic.ts";
import { sum } from "./broadcast.ts";
import { logSumExp } from "./reduce.ts";

const sizes = (logits: Spec, targets: Tensor): { rows: number; cols: number } => ({
  rows: targets.size,
  cols: logits.shape[logits.shape.length - 1]!,
});

function check(name: string, logits: Spec, targets: Spec): void {
  wantType(name, "the logits", logits, "f32");
  wantType(name, "the targets", targets, "i32");
  if (logits.shape.length === 0 || !sameShape(logits.shape.slice(0, -1), targets.shape))
    throw new GradmixError(
      "shape",
      `${name}: logits ${formatShape(logits.shape)} and targets ${formatShape(targets.shape)} do not fit; wanted [batch, …, vocabulary] and [batch, …]`,
    );
}

export const crossEntropyOp: Op<None, "logits targets", "y", "logits targets lse"> = {
  name: "crossEntropy",
  keepsBatch: keepsRows,
  infer([logits, targets]) {
    check("crossEntropy", logits, targets);
    return [{ shape: targets.shape, dtype: "f32" }];
  },
  forward([logits, targets], _, [spec]) {
    const losses = allocate(spec, logits);
    const lse = allocate(spec, logits);
    run("crossEntropy", sizes(logits, targets), { logits, targets }, { losses, lse });
    return { outputs: [losses], saved: [logits, targets, lse] };
  },
  vjp([ct], { saved }) {
    if (ct === null) return [null, null];
    const [logits, targets, lse] = saved;
    if (logits.unshared && !transforming()) {
      // The logits are not used again, so the largest tensor of the pass becomes its own gradient.
      run(
        "crossEntropyVjp",
        sizes(logits, targets),
        { logits, targets, lse, dlosses: ct },
        { dlogits: logits },
      );
      return [logits, null];
    }
    return [apply1(crossEntropyVjpOp, [...saved, ct], none), null];
  },
  jvp([tangent], { saved }) {
    return [tangent === null ? null : apply1(crossEntropyJvpOp, [...saved, tangent], none)];
  },
  compose([logits, targets]) {
    const target = oneHot(targets, logits.shape[logits.rank - 1]!);
    const counted = sum(target, -1);
    return [sub(mul(logSumExp(logits, -1), counted), sum(mul(logits, target), -1))];
  },
};

const checkClasses = integerIn(0);

export const oneHotOp: Op<{ classes: number }, "indices", "y"> = {
  name: "oneHot",
  keepsBatch: keepsElementwise,
  constant: true,
  infer([indices], { classes }) {
    wantType("oneHot", "the indices", indices, "i32");
    checkClasses("oneHot: classes", classes);
    return [{ shape: [...indices.shape, classes], dtype: "f32" }];
  },
  forward([targets], _, [spec]) {
    // (softmax − onehot)·(−1) where the softmax is exp(−1000) = 0.
    const zeros = filled(0, spec, targets);
    const far = filled(1000, { shape: targets.shape, dtype: "f32" }, targets);
    const minus = filled(-1, { shape: targets.shape, dtype: "f32" }, targets);
    const out = allocate(spec, targets);
    run(
      "crossEntropyVjp",
      sizes(spec, targets),
      { logits: zeros, targets, lse: far, dlosses: minus },
      { dlogits: out },
    );
    // This turns −0 into 0.
    run("affine", { scale: 1, shift: 0 }, { x: out }, { y: out });
    for (const t of [zeros, far, minus]) t.dispose();
    return { outputs: [out] };
  },
};

/**
 * 1 at each index, 0 elsewhere: indices i32 [batch, …] → f32 [batch, …, classes]. Like the targets of `crossEntropy`, an index below 0 gives a row of
 * zeros, and an index of at least `classes` gives a row of NaN, so that the mistake shows. It has no gradient. Throws `shape` unless the indices are
 * i32, and `config` unless `classes` is an integer of at least 0.
 */
export function oneHot(indices: Tensor, classes: number): Tensor<"f32"> {
  return apply1(oneHotOp, [indices], { classes });
}

/** Throws unless these are the unchanged results of the forward pass. */
function wantSaved(name: string, logits: Spec, targets: Spec, lse: Spec): void {
  check(name, logits, targets);
  wantLike(name, "lse", lse, { shape: targets.shape, dtype: "f32" });
}

/** Keeps the rows of the logits, the first input. */
const keepsTokens: KeepsBatch<None> = (slot, inputs, output) =>
  inputs[0]!.shape.length > 1 && inputs[slot]!.shape[0] === output.shape[0];

/** Maps [logits, targets, lse, dlosses] to dlogits; linear in dlosses, with `crossEntropyJvp` as its transpose. */
export const crossEntropyVjpOp: Op<None, "logits targets lse ct", "y", "logits targets lse"> = {
  name: "crossEntropyVjp",
  keepsBatch: keepsTokens,
  infer([logits, targets, lse, ct]) {
    wantSaved("crossEntropyVjp", logits, targets, lse);
    wantLike("crossEntropyVjp", "the cotangent", ct, lse);
    return [specOf(logits)];
  },
  forward([logits, targets, lse, ct], _, [spec]) {
    const out = allocate(spec, logits);
    run("crossEntropyVjp", sizes(logits, targets), { logits, targets, lse, dlosses: ct }, { dlogits: out });
    return { outputs: [out], saved: [logits, targets, lse] };
  },
  ...linearIn<None>(
    "crossEntropyVjp",
    3,
    (constants, t) => apply1(crossEntropyVjpOp, [...constants, t], none),
    (constants, ct) => apply1(crossEntropyJvpOp, [...constants, ct], none),
  ),
};

/** Maps [logits, targets, lse, tangent of the logits] to the tangent of the losses. */
export const crossEntropyJvpOp: Op<None, "logits targets lse tangent", "y", "logits targets lse"> = {
  name: "crossEntropyJvp",
  keepsBatch: keepsTokens,
  infer([logits, targets, lse, tangent]) {
    wantSaved("crossEntropyJvp", logits, targets, lse);
    wantLike("crossEntropyJvp", "the tangent", tangent, logits);
    return [{ shape: targets.shape, dtype: "f32" }];
  },
  forward([logits, targets, lse, tangent], _, [spec]) {
    const out = allocate(spec, logits);
    run(
      "crossEntropyJvp",
      sizes(logits, targets),
      { logits, targets, lse, dlogits: tangent },
      { dlosses: out },
    );
    return { outputs: [out], saved: [logits, targets, lse] };
  },
  ...linearIn<None>(
    "crossEntropyJvp",
    3,
    (constants, t) => apply1(crossEntropyJvpOp, [...constants, t], none),
    (constants, ct) => apply1(crossEntropyVjpOp, [...constants, ct], none),
  ),
};

/**
 * The loss −log softmax(logits)[target] of each token, in nats: logits [batch, …, vocabulary], targets i32 [batch, …] → [batch, …]. A target < 0 is
 * ignored: its loss and its gradient are 0.
 */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor<"f32"> {
  return apply1(crossEntropyOp, [logits, targets], none);
}

/** The loss of each example, summed over its tokens, in nats: logits [batch, …, vocabulary], targets i32 [batch, …] → [batch]. */
export function exampleLosses(logits: Tensor, targets: Tensor): Tensor<"f32"> {
  wantTensors("exampleLosses", [logits, targets]);
  const losses = crossEntropy(logits, targets);
  return sum(losses, losses.shape.map((_, axis) => axis).slice(1));
}
