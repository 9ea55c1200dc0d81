/** Names of the variants of some kernels. Backends number the variants in the order of each list. */

export type UnaryKind =
  | "neg" | "exp" | "log" | "sqrt" | "rsqrt" | "square" | "reciprocal" | "abs"
  | "tanh" | "sigmoid" | "relu" | "silu"
  /** Tanh approximation, as in GPT-2 ("gelu_new"). */
  | "gelu" | "sin" | "cos"
  /** The error function, and the exact GELU x·Φ(x), where Φ is the distribution function of the standard normal (Hendrycks & Gimpel 2016). */
  | "erf" | "geluErf"
  /** "softplus" is log(1 + eˣ); "log1p" is log(1 + x) and "expm1" is eˣ − 1, both without cancellation near 0. */
  | "softplus" | "log1p" | "expm1"; // prettier-ignore
export const unaryKinds: readonly UnaryKind[] = [
  "neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "abs",
  "tanh", "sigmoid", "relu", "silu", "gelu", "sin", "cos",
  "erf", "geluErf", "softplus", "log1p", "expm1",
]; // prettier-ignore

/** Operations of `binary`. "pow" follows C: xᵖ with x < 0 is NaN unless p is an integer; 1ᵖ and x⁰ are 1, also for NaN. */
export type BinaryKind = "add" | "sub" | "mul" | "div" | "max" | "min" | "pow";
export const binaryKinds: readonly BinaryKind[] = ["add", "sub", "mul", "div", "max", "min", "pow"];

/** Operations of `compare`. "and" and "or" treat every value other than 0 as true. */
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
