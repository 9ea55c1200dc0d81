/** Variants of some kernels by name; the order of each list is the numbering of the backends. */

export type UnaryKind =
  | "neg" | "exp" | "log" | "sqrt" | "rsqrt" | "square" | "reciprocal" | "abs"
  | "tanh" | "sigmoid" | "relu" | "silu"
  /** Tanh approximation, as in GPT-2 ("gelu_new"). */
  | "gelu" | "sin" | "cos"
  /** The error function; and GELU by it, x·Φ(x) with the normal distribution's Φ (Hendrycks & Gimpel 2016). */
  | "erf" | "geluErf"
  /** log(1 + eˣ); log(1 + x) and eˣ − 1 without cancellation near 0. */
  | "softplus" | "log1p" | "expm1"; // prettier-ignore
export const unaryKinds: readonly UnaryKind[] = [
  "neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "abs",
  "tanh", "sigmoid", "relu", "silu", "gelu", "sin", "cos",
  "erf", "geluErf", "softplus", "log1p", "expm1",
]; // prettier-ignore

/** "pow" is that of C: xᵖ with x < 0 is NaN unless p is an integer; 1ᵖ and x⁰ are 1, also for NaN. */
export type BinaryKind = "add" | "sub" | "mul" | "div" | "max" | "min" | "pow";
export const binaryKinds: readonly BinaryKind[] = ["add", "sub", "mul", "div", "max", "min", "pow"];

/** "and" and "or" treat every value other than 0 as true. */
export type CompareKind =
  | "equal" | "notEqual" | "less" | "lessEqual" | "greater" | "greaterEqual" | "and" | "or"; // prettier-ignore
export const compareKinds: readonly CompareKind[] = [
  "equal", "notEqual", "less", "lessEqual", "greater", "greaterEqual", "and", "or",
]; // prettier-ignore

/** Activation that a kernel applies to its result; "none" leaves the result as it is. */
export type Activation = "none" | "gelu" | "relu" | "silu";
export const activations: readonly Activation[] = ["none", "gelu", "relu", "silu"];

export type ReduceKind = "sum" | "max" | "min";
export const reduceKinds: readonly ReduceKind[] = ["sum", "max", "min"];

export type NormKind = "layer" | "rms";
export const normKinds: readonly NormKind[] = ["layer", "rms"];

export type RandomKind = "bits" | "uniform" | "normal";
export const randomKinds: readonly RandomKind[] = ["bits", "uniform", "normal"];
