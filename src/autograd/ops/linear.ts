/** The affine layer: product with a weight, bias and activation in one kernel. Its weight gradient is passed on as factors. */
import { run } from "../../backends/backend.ts";
import { type Activation, activations } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { checkOptions, oneOf, unchecked } from "../../options.ts";
import { extentsOf, formatShape, rowsIn } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsRowsOfFirst } from "../batch.ts";
import { allocate, apply1, followed, type Op, wantType } from "../op.ts";
import { gelu, relu, silu } from "./activation.ts";
import { add, mul } from "./arithmetic.ts";
import { asRows, stretch, sumTo } from "./broadcast.ts";
import { matmul } from "./matmul.ts";

interface LinearAttrs {
  readonly activation: Activation;
}

const checkActivation = oneOf(...activations);
/** `infer` checks their values. */
const optionNames = { activation: unchecked };

export const linearOp: Op<LinearAttrs, "x weight bias?", "y", "x weight slope?"> = {
  name: "linear",
  keepsBatch: keepsRowsOfFirst,
  emits: [1, 2],
  infer([x, weight, bias], { activation }) {
    checkActivation("linear: activation", activation);
    wantType("linear", "x", x, "f32");
    wantType("linear", "the weight", weight, "f32");
    const width = x.shape.at(-1);
    if (weight.shape.length !== 2 || x.shape.length < 2 || weight.shape[1] !== width)
      throw new GradmixError(
        "shape",
        `linear: x ${formatShape(x.shape)} and the weight ${formatShape(weight.shape)} do not fit; wanted [batch, …, in] and [out, in]`,
      );
    if (bias !== undefined) wantType("linear", "the bias", bias, "f32");
    if (bias !== undefined && (bias.shape.length !== 1 || bias.shape[0] !== weight.shape[0]))
      throw new GradmixError(
        "shape",
        `linear: the bias ${formatShape(bias.shape)} does not fit the weight ${formatShape(weight.shape)}`,
      );
    return [{ shape: [...x.shape.slice(0, -1), weight.shape[0]!], dtype: "f32" }];
  },
  forward(inputs, { activation }, [spec]) {
    const [x, weight, bias = null] = inputs;
    const y = allocate(spec, x);
    // Of the activation. Only a derivative needs it.
    const slope =
      activation === "none" || !followed(bias === null ? [x, weight] : [x, weight, bias])
        ? null
        : allocate(spec, x);
    const [n, k] = extentsOf(weight.shape, 2);
    const m = rowsIn(x.shape);
    run(
      "gemm",
      {
        m,
        n,
        k,
        transA: false,
        transB: true,
        batch: 1,
        strideA: 0,
        strideB: 0,
        strideC: 0,
        alpha: 1,
        accumulate: false,
        activation,
      },
      { a: x, b: weight, bias },
      { c: y, slope },
    );
    return { outputs: [y], saved: slope === null ? [x, weight] : [x, weight, slope] };
  },
  vjp([ct], { saved: [x, weight, slope], needs, parameters, sink }) {
    if (ct === null) return needs.map(() => null);
    const dy = slope === undefined ? ct : mul(ct, slope);
    const [, weightParameter, biasParameter = null] = parameters;
    // The bias comes first, because it only reads dy, of which more is still in the cache before the product than after it.
    if (biasParameter !== null) sink.bias(biasParameter, dy);
    if (weightParameter !== null) sink.linear(weightParameter, x, dy);
    return needs.map((needed, slot) => {
      if (!needed) return null;
      if (slot === 0) return matmul(dy, weight);
      return slot === 1 ? matmul(asRows(dy), asRows(x), { transposeA: true }) : sumTo(dy, [weight.shape[0]!]);
    });
  },
  jvp(tangents, { inputs: [x, weight], outputs: [y], saved: [, , slope] }) {
    const [tx, tw, tb = null] = tangents;
    let sum: Tensor | null = null;
    // The bias's tangent is added in one of the products.
    if (tx !== null) sum = linear(tx, weight, tb ?? undefined);
    if (tw !== null) {
      const fromWeight = linear(x, tw, sum === null ? (tb ?? undefined) : undefined);
      sum = sum === null ? fromWeight : add(sum, fromWeight);
    }
    sum ??= tb === null ? null : stretch(tb, y.shape);
    return [sum === null || slope === undefined ? sum : mul(sum, slope)];
  },
  compose(inputs, { activation }) {
    const [x, weight] = inputs;
    const bias = inputs.at(2);
    const product = matmul(x, weight, { transposeB: true });
    return [activate(bias === undefined ? product : add(product, bias), activation)];
  },
};

function activate(x: Tensor, activation: Activation): Tensor {
  if (activation === "none") return x;
  return { gelu, relu, silu }[activation](x);
}

/**
 * activation(x·weightᵀ + bias): x [batch, …, in], weight [out, in], bias [out] → [batch, …, out]. If the weight and the bias are parameters, they
 * have per-example rules. Throws `shape` for shapes that do not fit.
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  bias?: Tensor,
  options: { activation?: Activation } = {},
): Tensor<"f32"> {
  checkOptions("linear", options, optionNames);
  const { activation = "none" } = options;
  return apply1(linearOp, bias === undefined ? [x, weight] : [x, weight, bias], { activation });
}
