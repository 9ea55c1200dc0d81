/** LayerNorm and RMSNorm over the last axis; the gradients of gain and bias are passed on as factors. */
import { run } from "../../backends/backend.ts";
import { type NormKind, normKinds } from "../../backends/kernels/index.ts";
import { GradmixError } from "../../errors.ts";
import { boolean, numberIn, oneOf } from "../../options.ts";
import { MOST } from "../../tensor/dtype.ts";
import { formatShape, rowsIn } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { keepsRows, keepsRowsOfFirst } from "../batch.ts";
import {
  allocate,
  apply,
  apply1,
  linearIn,
  type Op,
  type Spec,
  specOf,
  transforming,
  wantType,
} from "../op.ts";
import { wantLike } from "../checks.ts";
import { rsqrt, square } from "./activation.ts";
import { add, affine, mul, sub } from "./arithmetic.ts";
import { stretch, sumTo } from "./broadcast.ts";
import { mean } from "./reduce.ts";

interface NormAttrs {
  readonly eps: number;
  /** Which of the optional inputs are present, in this order after x. */
  readonly gain: boolean;
  readonly bias: boolean;
}

/** Attributes of the ops of the rules, whose inputs are [x, stats, t] or [x, stats, gain, t]. */
interface RuleAttrs {
  readonly kind: NormKind;
  readonly gain: boolean;
}

const widthOf = (x: Spec): number => x.shape[x.shape.length - 1]!;
const rowsOf = (x: Spec): number => rowsIn(x.shape);

/** Kernels read it as an f32. */
const checkEps = numberIn({ min: 0, max: MOST });
const checkKind = oneOf(...normKinds);

/** x, and the gain and the bias if they are present. */
type Inputs<T> = readonly [T, ...T[]];
type NormOp = Op<NormAttrs, "x ...", "y", "x stats ...">;

/** Returns the specs of the outputs of a norm. Throws `shape` or `config` for operands or attributes that do not fit. */
function normSpecs(name: string, [x, ...rest]: Inputs<Spec>, { eps, gain, bias }: NormAttrs): Spec[] {
  wantType(name, "x", x, "f32");
  checkEps(`${name}: eps`, eps);
  boolean(`${name}: gain`, gain);
  boolean(`${name}: bias`, bias);
  if (x.shape.length < 2)
    throw new GradmixError("shape", `${name}: x ${formatShape(x.shape)} needs a batch and a width`);
  for (const t of rest) wantType(name, "a gain or bias", t, "f32");
  for (const t of rest)
    if (t.shape.length !== 1 || t.shape[0] !== widthOf(x))
      throw new GradmixError(
        "shape",
        `${name}: a gain or bias ${formatShape(t.shape)} does not fit x ${formatShape(x.shape)}`,
      );
  return [specOf(x)];
}

function normOp(kind: NormKind, name: string): NormOp {
  const split = <T>(inputs: Inputs<T>, { gain, bias }: NormAttrs): [T, T | null, T | null] => {
    const [x, first = null, second = null] = inputs;
    return [x, gain ? first : null, bias ? (gain ? second : first) : null];
  };
  return {
    name,
    keepsBatch: keepsRowsOfFirst,
    emits: [1, 2],
    infer: (inputs, attrs) => normSpecs(name, inputs, attrs),
    forward(inputs, attrs, [spec]) {
      const [x, gain, bias] = split(inputs, attrs);
      const rows = rowsOf(x);
      const y = allocate(spec, x);
      const stats = allocate({ shape: [rows, 2], dtype: "f32" }, x);
      run("norm", { kind, rows, width: widthOf(x), eps: attrs.eps }, { x, gain, bias }, { y, stats });
      return { outputs: [y], saved: gain === null ? [x, stats] : [x, stats, gain] };
    },
    vjp([dy], { attrs, saved, inputs, needs, parameters, sink }) {
      if (dy === null) return inputs.map(() => null);
      const [x, stats] = saved;
      const [, gainParameter, biasParameter] = split(parameters, attrs);
      if (gainParameter !== null) sink.gain(gainParameter, kind, x, stats, dy);
      if (biasParameter !== null) sink.bias(biasParameter, dy);
      const gainSlot = attrs.gain ? 1 : -1;
      return needs.map((needed, slot) => {
        if (!needed) return null;
        if (slot === 0) return apply1(normVjpOp, [...saved, dy], { kind, gain: attrs.gain });
        return sumTo(slot === gainSlot ? mul(dy, normalised(kind, x, attrs.eps)) : dy, [widthOf(x)]);
      });
    },
    jvp(tangents, { attrs, inputs, saved }) {
      const [tx, tg, tb] = split(tangents, attrs);
      const [x] = inputs;
      const parts: Tensor[] = [];
      if (tx !== null) parts.push(apply1(normJvpOp, [...saved, tx], { kind, gain: attrs.gain }));
      if (tg !== null) parts.push(mul(normalised(kind, x, attrs.eps), tg));
      if (tb !== null) parts.push(tb);
      return [parts.length === 0 ? null : stretch(parts.reduce(add), x.shape)];
    },
    compose(inputs, attrs) {
      const [x, gain, bias] = split(inputs, attrs);
      const centred = kind === "layer" ? sub(x, mean(x, -1, true)) : x;
      let y = mul(centred, rsqrt(affine(mean(square(centred), -1, true), 1, attrs.eps)));
      if (gain !== null) y = mul(y, gain);
      return [bias === null ? y : add(y, bias)];
    },
  };
}

export const layerNormOp: NormOp = normOp("layer", "layerNorm");
export const rmsNormOp: NormOp = normOp("rms", "rmsNorm");

/**
 * The residual connection and the norm that follows it, in one kernel each way: x + residual, and its norm. Inputs are [x, residual, gain?, bias?].
 */
function addNormOp(kind: NormKind, name: string): AddNormOp {
  const norm = (): NormOp => (kind === "layer" ? layerNormOp : rmsNormOp);
  const split = <T>(rest: readonly T[], { gain, bias }: NormAttrs): [T | null, T | null] => {
    const [first = null, second = null] = rest;
    return [gain ? first : null, bias ? (gain ? second : first) : null];
  };
  return {
    name,
    keepsBatch: (slot, inputs, output) => slot < 2 && keepsRows(slot, inputs, output),
    emits: [2, 3],
    infer([x, residual, ...rest], attrs) {
      wantType(name, "x", x, "f32");
      wantLike(name, "the residual", residual, x);
      return [...normSpecs(name, [x, ...rest], attrs), specOf(x)];
    },
    forward([x, residual, ...rest], attrs, [spec]) {
      const [gain, bias] = split(rest, attrs);
      const rows = rowsOf(x);
      const [sum, y] = [allocate(spec, x), allocate(spec, x)];
      const stats = allocate({ shape: [rows, 2], dtype: "f32" }, x);
      const params = { kind, rows, width: widthOf(x), eps: attrs.eps };
      run("norm", params, { x, gain, bias, residual }, { y, stats, sum });
      return { outputs: [y, sum], saved: gain === null ? [sum, stats] : [sum, stats, gain] };
    },
    vjp([dy, dSum], { attrs, saved, inputs, needs, parameters, sink }) {
      const [sum, stats] = saved;
      if (dy === null) return needs.map((needed, slot) => (needed && slot < 2 ? dSum : null));
      const [, , ...rest] = parameters;
      const [gainParameter, biasParameter] = split(rest, attrs);
      if (gainParameter !== null) sink.gain(gainParameter, kind, sum, stats, dy);
      if (biasParameter !== null) sink.bias(biasParameter, dy);
      const toSum = needs[0] || needs[1] ? sumCotangent(kind, saved, attrs.gain, dy, dSum) : null;
      const gainSlot = attrs.gain ? 2 : -1;
      return needs.map((needed, slot) => {
        if (!needed) return null;
        if (slot === 0) return toSum;
        // A handle of its own: the tape lets go of each.
        if (slot === 1) return toSum === null || !needs[0] ? toSum : toSum.part(toSum.shape);
        return sumTo(slot === gainSlot ? mul(dy, normalised(kind, sum, attrs.eps)) : dy, [
          widthOf(inputs[0]),
        ]);
      });
    },
    jvp([tx, tr, ...rest], { attrs, inputs: [x], saved }) {
      const t = tx === null || tr === null ? (tx ?? tr) : add(tx, tr);
      const [tg, tb] = split(rest, attrs);
      const [sum] = saved;
      const parts: Tensor[] = [];
      if (t !== null) parts.push(apply1(normJvpOp, [...saved, t], { kind, gain: attrs.gain }));
      if (tg !== null) parts.push(mul(normalised(kind, sum, attrs.eps), tg));
      if (tb !== null) parts.push(tb);
      return [parts.length === 0 ? null : stretch(parts.reduce(add), x.shape), t];
    },
    compose([x, residual, ...rest], attrs) {
      const sum = add(x, residual);
      return [apply1(norm(), [sum, ...rest], attrs), sum];
    },
  };
}

type AddNormOp = Op<NormAttrs, "x residual ...", "y sum", "sum stats ...">;

export const addLayerNormOp: AddNormOp = addNormOp("layer", "addLayerNorm");
export const addRmsNormOp: AddNormOp = addNormOp("rms", "addRmsNorm");

/** Adds the norm's cotangent of the sum to the cotangent from its other uses. */
function sumCotangent(
  kind: NormKind,
  saved: readonly [Tensor, Tensor, ...Tensor[]],
  gained: boolean,
  dy: Tensor,
  dSum: Tensor | null,
): Tensor {
  if (dSum === null || transforming()) {
    const own = apply1(normVjpOp, [...saved, dy], { kind, gain: gained });
    return dSum === null ? own : add(dSum, own);
  }
  const [x, stats, gain = null] = saved;
  const dx = allocate(x, x);
  run("normVjp", { kind, rows: rowsOf(x), width: widthOf(x) }, { x, gain, stats, dy, also: dSum }, { dx });
  return dx;
}

/** x̂, without gain and bias. */
function normalised(kind: NormKind, x: Tensor, eps: number): Tensor {
  return apply1(kind === "layer" ? layerNormOp : rmsNormOp, [x], { eps, gain: false, bias: false });
}

/** Maps [x, stats, gain?, dy] to the cotangent of x; linear in dy, with `normJvp` as its transpose. */
export const normVjpOp: RuleOp = normRule("normVjp");
/** Maps [x, stats, gain?, tangent of x] to the tangent of y. */
export const normJvpOp: RuleOp = normRule("normJvp");

type RuleOp = Op<RuleAttrs, "x stats ...", "y">;

function normRule(kernel: "normVjp" | "normJvp"): RuleOp {
  const rule = (name: "normVjp" | "normJvp"): RuleOp => (name === "normVjp" ? normVjpOp : normJvpOp);
  const other = kernel === "normVjp" ? "normJvp" : "normVjp";
  const linear = (slot: number): Required<Pick<Op<RuleAttrs, string, "y">, "vjp" | "jvp">> =>
    linearIn(
      kernel,
      slot,
      (constants, t, attrs) => apply1(rule(kernel), [...constants, t], attrs),
      (constants, ct, attrs) => apply1(rule(other), [...constants, ct], attrs),
    );
  const [plain, gained] = [linear(2), linear(3)];
  return {
    name: kernel,
    // [x, stats, gain?, t]
    keepsBatch: (slot, inputs, output, attrs) =>
      !(attrs.gain && slot === 2) && keepsRows(slot, inputs, output),
    infer([x, stats, ...rest], { kind, gain }) {
      checkKind(`${kernel}: kind`, kind);
      boolean(`${kernel}: gain`, gain);
      wantType(kernel, "x", x, "f32");
      wantLike(kernel, "stats", stats, { shape: [rowsOf(x), 2], dtype: "f32" });
      if (gain) wantLike(kernel, "the gain", rest[0]!, { shape: [widthOf(x)], dtype: "f32" });
      wantLike(kernel, "the last operand", rest[gain ? 1 : 0]!, x);
      return [specOf(x)];
    },
    forward([x, stats, ...rest], attrs, [spec]) {
      const { kind } = attrs;
      const out = allocate(spec, x);
      const params = { kind, rows: rowsOf(x), width: widthOf(x) };
      const [gain, t] = attrs.gain ? [rest[0]!, rest[1]!] : [null, rest[0]!];
      if (kernel === "normVjp") run("normVjp", params, { x, gain, stats, dy: t }, { dx: out });
      else run("normJvp", params, { x, gain, stats, dx: t }, { dy: out });
      return { outputs: [out], saved: gain === null ? [x, stats] : [x, stats, gain] };
    },
    vjp: (cotangents, context) => (context.attrs.gain ? gained : plain).vjp(cotangents, context),
    jvp: (tangents, context) => (context.attrs.gain ? gained : plain).jvp(tangents, context),
  };
}

function norm(op: NormOp, x: Tensor, gain?: Tensor, bias?: Tensor, eps = 1e-5): Tensor {
  const inputs = [x, gain, bias].filter((t) => t !== undefined);
  return apply1(op, inputs, { eps, gain: gain !== undefined, bias: bias !== undefined });
}

/** (x − mean)/√(var + eps) ⊙ gain + bias over the last axis (Ba et al. 2016): x [batch, …, width], gain and bias [width]. */
export function layerNorm(x: Tensor, gain?: Tensor, bias?: Tensor, eps = 1e-5): Tensor<"f32"> {
  return norm(layerNormOp, x, gain, bias, eps);
}

/** x/√(mean x² + eps) ⊙ gain over the last axis (Zhang & Sennrich 2019): x [batch, …, width], gain [width]. */
export function rmsNorm(x: Tensor, gain?: Tensor, eps = 1e-5): Tensor<"f32"> {
  return norm(rmsNormOp, x, gain, undefined, eps);
}

/**
 * x + residual, and its norm over the last axis (`layerNorm` or `rmsNorm`, which has no bias): a residual connection with the norm behind it, in one kernel. x and
 * the residual [batch, …, width], gain and bias [width] → [the norm, x + residual]. Throws `shape`.
 */
export function addNorm(
  kind: NormKind,
  x: Tensor,
  residual: Tensor,
  gain?: Tensor,
  bias?: Tensor,
  eps = 1e-5,
): [y: Tensor<"f32">, sum: Tensor<"f32">] {
  const inputs = [x, residual, gain, bias].filter((t) => t !== undefined);
  const op = kind === "layer" ? addLayerNormOp : addRmsNormOp;
  const outputs = apply(op, inputs, { eps, gain: gain !== undefined, bias: bias !== undefined });
  return [outputs[0]!, outputs[1]!];
}
