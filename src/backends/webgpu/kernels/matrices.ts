/**
 * Products of small matrices, f16 operands and f32 sums, as WGSL text: on tensor cores (the experimental subgroup matrices), or made of plain WGSL, so that
 * shaders written with them can be run, slowly, on any device.
 *
 * Operands lie in the workgroup arrays tile_a and tile_b. A sum belongs to a subgroup, whose invocations call all of this together.
 */

import type { TensorCores } from "../context.ts";

/** Rows and columns of a matrix, and the depth of a product. */
export const EDGE = 16;

/** An operand's place: `byRows` when a row of the matrix (of A: along k; of B: along the columns) is contiguous. */
export interface Layouts {
  readonly a: { readonly byRows: boolean; readonly stride: number };
  readonly b: { readonly byRows: boolean; readonly stride: number };
}

export interface Matrices {
  /** Declares tile_a and tile_b with so many elements. */
  declarations(elements: { readonly a: number; readonly b: number }): string;
  /** Rounds a vec4f to f16 into elements `at` to `at` + 3 of a tile, `at` a multiple of 4. Beyond the range is ∞, so that a loss scale that is too large shows. */
  fill(side: "a" | "b", at: string, four: string): string;
  /** An expression: `x`, which is the same in all of a subgroup. */
  same(x: string): string;
  /** `name` = 0, declared. */
  zero(name: string): string;
  /** `name` = 0 again. */
  clear(name: string): string;
  /** An expression: the matrix that begins at element `at` of its tile. */
  load(side: "a" | "b", at: string): string;
  /** sum += a · b. */
  multiply(sum: string, a: string, b: string): string;
  /** `sum` into the workgroup array `into` at element `at`, by rows of 16. */
  store(into: string, at: string, sum: string): string;
}

/**
 * Rounds to f16, as an f32: to the nearest, ties to even; beyond the range is ∞. (quantizeToF16 may round either way.) The numbers of mixed precision
 * without its speed.
 */
export const HALF: string = `
fn half(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let normal = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
  let value = select(normal, round(x * ${2 ** 24}.0) * ${2 ** -24}, abs(x) < ${2 ** -14});
  return select(select(value, sign(x) * inf(), abs(x) >= 65520.0), x, is_nan(x));
}
`;

/** What a shader enables for them. */
export const tensorFeatures = ({ emulated = false }: TensorCores): readonly string[] =>
  emulated ? [] : ["f16", "subgroups", "chromium_experimental_subgroup_matrix"];

export function matricesFor({ subgroup, emulated = false }: TensorCores, layouts: Layouts): Matrices {
  return emulated ? emulation(subgroup, layouts) : subgroupMatrices(layouts);
}

/** fill_a and fill_b: `rounded` makes h of x, `store` stores it. */
const fills = (rounded: string, store: (side: string) => string): string =>
  ["a", "b"]
    .map((side) => `fn fill_${side}(at: u32, x: vec4f) {\n  let h = ${rounded};\n  ${store(side)}\n}`)
    .join("\n");

function subgroupMatrices(layouts: Layouts): Matrices {
  const result = `subgroup_matrix_result<f32, ${EDGE}, ${EDGE}>`;
  return {
    declarations: ({ a, b }) => `var<workgroup> tile_a: array<f16, ${a}>;
var<workgroup> tile_b: array<f16, ${b}>;
${fills("vec4h(select(x, sign(x) * inf(), abs(x) >= vec4f(65520.0)))", (side) =>
  [0, 1, 2, 3].map((c) => `tile_${side}[at + ${c}u] = h[${c}];`).join(" "),
)}`,
    fill: (side, at, four) => `fill_${side}(${at}, ${four});`,
    same: (x) => `subgroupBroadcastFirst(${x})`,
    zero: (name) => `var ${name}: ${result};`,
    clear: (name) => `${name} = ${result}();`,
    load(side, at) {
      const { byRows, stride } = layouts[side];
      const type = `subgroup_matrix_${side === "a" ? "left" : "right"}<f16, ${EDGE}, ${EDGE}>`;
      return `subgroupMatrixLoad<${type}, ${byRows ? "row_major" : "col_major"}>(&tile_${side}, ${at}, ${stride}u)`;
    },
    multiply: (sum, a, b) => `${sum} = subgroupMatrixMultiplyAccumulate(${a}, ${b}, ${sum});`,
    store: (into, at, sum) => `subgroupMatrixStore<row_major>(&${into}, ${at}, ${sum}, ${EDGE}u);`,
  };
}

/** An invocation has every `subgroup`-th element of a sum; an operand is where it begins. */
function emulation(subgroup: number, layouts: Layouts): Matrices {
  const own = (EDGE * EDGE) / subgroup;
  const element = (side: "a" | "b"): string => {
    const { byRows, stride } = layouts[side];
    return byRows ? `row * ${stride}u + column` : `column * ${stride}u + row`;
  };
  return {
    // Two elements of f16 in a word.
    declarations: ({ a, b }) => `${HALF}
var<workgroup> tile_a: array<u32, ${a / 2}>;
var<workgroup> tile_b: array<u32, ${b / 2}>;
${fills(
  "vec4f(half(x.x), half(x.y), half(x.z), half(x.w))",
  (side) => `tile_${side}[at / 2u] = pack2x16float(h.xy); tile_${side}[at / 2u + 1u] = pack2x16float(h.zw);`,
)}
alias Sum = array<f32, ${own}>;
${(["a", "b"] as const)
  .map(
    (side) => `fn element_${side}(first: u32, row: u32, column: u32) -> f32 {
  let at = first + ${element(side)};
  return unpack2x16float(tile_${side}[at / 2u])[at % 2u];
}`,
  )
  .join("\n")}
fn multiply(sum: ptr<function, Sum>, a: u32, b: u32, local: u32) {
  for (var q = 0u; q < ${own}u; q++) {
    let e = local % ${subgroup}u + q * ${subgroup}u;
    for (var k = 0u; k < ${EDGE}u; k++) {
      (*sum)[q] = fma(element_a(a, e / ${EDGE}u, k), element_b(b, k, e % ${EDGE}u), (*sum)[q]);
    }
  }
}`,
    fill: (side, at, four) => `fill_${side}(${at}, ${four});`,
    same: (x) => x,
    zero: (name) => `var ${name}: Sum;`,
    clear: (name) => `${name} = Sum();`,
    load: (_, at) => at,
    multiply: (sum, a, b) => `multiply(&${sum}, ${a}, ${b}, local);`,
    store: (into, at, sum) =>
      `for (var q = 0u; q < ${own}u; q++) { ${into}[${at} + local % ${subgroup}u + q * ${subgroup}u] = ${sum}[q]; }`,
  };
}
