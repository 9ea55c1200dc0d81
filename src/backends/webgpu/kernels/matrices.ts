/**
 * Products of small matrices, f16 operands and f32 sums, as WGSL text: on tensor cores (the experimental subgroup matrices), or made of plain WGSL, so that
 * shaders written with them can be run, slowly, on any device.
 *
 * Operands lie in the workgroup arrays tile_a and tile_b, a block for a matrix. A block is an array of its own, so that a compiler knows without a check that
 * a matrix lies within it, and how it is aligned; without that, drivers load matrices element by element. A sum belongs to a subgroup, whose invocations call
 * all of this together.
 */

import type { Dispatch, TensorCores } from "../context.ts";

/** Rows and columns of a matrix, and the depth of a product. */
export const EDGE = 16;

/** Elements from one line of a block to the next: whole vectors of 16 bytes, and eight lines fall on different banks. */
const LINE = EDGE + 8;

/** Bytes of a block. */
export const BLOCK_BYTES: number = 2 * EDGE * LINE;

/** Are the lines of an operand's blocks rows of its matrices (of A: along k; of B: along the columns), or columns? */
export interface Layouts {
  readonly a: "rows" | "columns";
  readonly b: "rows" | "columns";
}

export interface Matrices {
  /** Declares tile_a and tile_b with so many blocks. */
  declarations(blocks: { readonly a: number; readonly b: number }): string;
  /** Rounds a vec4f to f16 into a block: line `line`, from place `at`, a multiple of 4. Beyond the range is ∞, so that a loss scale that is too large shows. */
  fill(side: "a" | "b", block: string, line: string, at: string, four: string): string;
  /** An expression: `x`, which is the same in all of a subgroup. */
  same(x: string): string;
  /** `name` = 0, declared. */
  zero(name: string): string;
  /** `name` = 0 again. */
  clear(name: string): string;
  /** An expression: the matrix in a block. */
  load(side: "a" | "b", block: string): string;
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

/** What a shader enables and asks for to have them. */
export type Needs = Pick<Dispatch, "features" | "subgroupSize">;

export const tensorNeeds = ({ subgroup, sized = false, emulated = false }: TensorCores): Needs =>
  emulated
    ? {}
    : {
        features: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
        ...(sized ? { subgroupSize: subgroup } : {}),
      };

export function matricesFor({ subgroup, emulated = false }: TensorCores, layouts: Layouts): Matrices {
  return emulated ? emulation(subgroup, layouts) : subgroupMatrices(layouts);
}

function subgroupMatrices(layouts: Layouts): Matrices {
  const result = `subgroup_matrix_result<f32, ${EDGE}, ${EDGE}>`;
  return {
    // The conversion overflows to ∞ on GPUs; a device where it does not is refused (self-check.ts).
    declarations: ({ a, b }) => `var<workgroup> tile_a: array<array<f16, ${EDGE * LINE}>, ${a}>;
var<workgroup> tile_b: array<array<f16, ${EDGE * LINE}>, ${b}>;
`,
    // Written out where it is used: the compiler then knows the index, and that it is within the block.
    fill: (side, block, line, at, four) =>
      `{ let h = vec4h(${four}); ${[0, 1, 2, 3].map((c) => `tile_${side}[${block}][(${line}) * ${LINE}u + ${at} + ${c}u] = h[${c}];`).join(" ")} }`,
    same: (x) => `subgroupBroadcastFirst(${x})`,
    zero: (name) => `var ${name}: ${result};`,
    clear: (name) => `${name} = ${result}();`,
    load(side, block) {
      const type = `subgroup_matrix_${side === "a" ? "left" : "right"}<f16, ${EDGE}, ${EDGE}>`;
      return `subgroupMatrixLoad<${type}, ${layouts[side] === "rows" ? "row_major" : "col_major"}>(&tile_${side}[${block}], 0u, ${LINE}u)`;
    },
    multiply: (sum, a, b) => `${sum} = subgroupMatrixMultiplyAccumulate(${a}, ${b}, ${sum});`,
    store: (into, at, sum) => `subgroupMatrixStore<row_major>(&${into}, ${at}, ${sum}, ${EDGE}u);`,
  };
}

/** An invocation has every `subgroup`-th element of a sum; an operand is its block. */
function emulation(subgroup: number, layouts: Layouts): Matrices {
  const own = (EDGE * EDGE) / subgroup;
  const element = (side: "a" | "b"): string =>
    layouts[side] === "rows" ? `row * ${LINE}u + column` : `column * ${LINE}u + row`;
  return {
    // Two elements of f16 in a word.
    declarations: ({ a, b }) => `${HALF}
var<workgroup> tile_a: array<array<u32, ${(EDGE * LINE) / 2}>, ${a}>;
var<workgroup> tile_b: array<array<u32, ${(EDGE * LINE) / 2}>, ${b}>;
// SwiftShader packs infinity as a NaN.
fn bits_of(h: f32) -> u32 {
  return select(pack2x16float(vec2f(h, 0.0)), select(0x7c00u, 0xfc00u, h < 0.0), abs(h) == inf());
}
fn two(x: f32, y: f32) -> u32 { return bits_of(half(x)) | (bits_of(half(y)) << 16u); }
${["a", "b"]
  .map(
    (side) => `fn fill_${side}(block: u32, at: u32, x: vec4f) {
  tile_${side}[block][at / 2u] = two(x.x, x.y);
  tile_${side}[block][at / 2u + 1u] = two(x.z, x.w);
}`,
  )
  .join("\n")}
alias Sum = array<f32, ${own}>;
${(["a", "b"] as const)
  .map(
    (side) => `fn element_${side}(block: u32, row: u32, column: u32) -> f32 {
  let at = ${element(side)};
  return unpack2x16float(tile_${side}[block][at / 2u])[at % 2u];
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
    fill: (side, block, line, at, four) => `fill_${side}(${block}, (${line}) * ${LINE}u + ${at}, ${four});`,
    same: (x) => x,
    zero: (name) => `var ${name}: Sum;`,
    clear: (name) => `${name} = Sum();`,
    load: (_, block) => block,
    multiply: (sum, a, b) => `multiply(&${sum}, ${a}, ${b}, local);`,
    store: (into, at, sum) =>
      `for (var q = 0u; q < ${own}u; q++) { ${into}[${at} + local % ${subgroup}u + q * ${subgroup}u] = ${sum}[q]; }`,
  };
}
