/**
 * Products of small matrices, with f16 operands and f32 sums, as WGSL text: on tensor cores (the experimental subgroup matrices), or in plain WGSL, so that
 * shaders that use them can run, slowly, on any device.
 *
 * Operands are in the workgroup arrays tile_a and tile_b, which have one block per matrix. Each block is a separate array, so that the compiler knows its alignment, and
 * that a matrix is within it. Otherwise drivers load matrices element by element. A sum belongs to a subgroup, whose invocations execute all of this
 * text together.
 */

import type { Dispatch, TensorCores } from "../context.ts";

/** Rows and columns of a matrix, and the depth of a product. */
export const EDGE = 16;

/** Elements from one line of a block to the next: whole vectors of 16 bytes, such that eight lines fall on different banks. */
const LINE = EDGE + 8;

/** Bytes of a block. */
export const BLOCK_BYTES: number = 2 * EDGE * LINE;

/** For each operand, whether the lines of its blocks are rows (of A: along k; of B: along the columns) or columns of its matrices. */
export interface Layouts {
  readonly a: "rows" | "columns";
  readonly b: "rows" | "columns";
}

export interface Matrices {
  /** Declares tile_a and tile_b with these numbers of blocks. */
  declarations(blocks: { readonly a: number; readonly b: number }): string;
  /** Rounds a vec4f to f16 and stores it in a block: in line `line`, from position `at`, a multiple of 4. Numbers out of range become ∞, so that a loss scale that is too large is noticed. */
  fill(side: "a" | "b", block: string, line: string, at: string, four: string): string;
  /** Returns an expression of `x`, which has the same value in all invocations of a subgroup. */
  same(x: string): string;
  /** Declares `name` = 0. */
  zero(name: string): string;
  /** Sets `name` to 0. */
  clear(name: string): string;
  /** Returns an expression of the matrix in a block. */
  load(side: "a" | "b", block: string): string;
  /** Returns sum += a · b. */
  multiply(sum: string, a: string, b: string): string;
  /** Stores `sum` in the workgroup array `into` from element `at` on, by rows of 16. */
  store(into: string, at: string, sum: string): string;
}

/**
 * Rounds an f32 to a number of f16: to the nearest, ties to even; numbers out of range become ∞. (WGSL's quantizeToF16 may round either way.) Software adapters
 * compute with it the same numbers as tensor cores, without their speed.
 */
export const HALF: string = `
fn half(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let normal = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
  let value = select(normal, round(x * ${2 ** 24}.0) * ${2 ** -24}, abs(x) < ${2 ** -14});
  return select(select(value, sign(x) * inf(), abs(x) >= 65520.0), x, is_nan(x));
}
`;

/** The features and the subgroup size that a shader with these matrices needs. */
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
    // The text is inlined, so that the compiler knows the index, and that it is within the block.
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

/** Matrices in plain WGSL. An invocation holds every `subgroup`-th element of a sum; an operand is its block. */
function emulation(subgroup: number, layouts: Layouts): Matrices {
  const own = (EDGE * EDGE) / subgroup;
  const element = (side: "a" | "b"): string =>
    layouts[side] === "rows" ? `row * ${LINE}u + column` : `column * ${LINE}u + row`;
  return {
    // A word holds two elements of f16.
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
