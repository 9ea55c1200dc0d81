/**
 * Makes a shader from the operands, the scalars and the WGSL body of a kernel.
 *
 * Operands are bound as whole buffers, and the first element of each view is a scalar. Operands in the same buffer share a binding, since WebGPU does not allow
 * two writable bindings of one buffer. The body does not depend on this: it reads `x(i)` and writes `set_y(i, value)`.
 *
 * An operand with `fours` can also be read as `x4(i)`, the elements 4i to 4i + 3. If it is written, it is written only with `set_x4(i, value)`. If all operands in
 * its buffer allow it, the binding is an array of vectors, and a GPU moves 16 bytes at once; otherwise the accessor combines four elements.
 */
import type { DType } from "../../tensor/dtype.ts";

/** An operand of a shader. */
export interface ShaderOperand {
  readonly name: string;
  readonly dtype: DType;
  /** Index of its binding. */
  readonly slot: number;
  readonly fours?: boolean;
}

export interface ShaderSlot {
  readonly dtype: DType;
  readonly written: boolean;
  /** Whether it is bound as vectors of four. */
  readonly vectors?: boolean;
}

export type ScalarType = "u32" | "i32" | "f32";

export interface ShaderSource {
  readonly operands: readonly ShaderOperand[];
  readonly slots: readonly ShaderSlot[];
  readonly scalars: readonly (readonly [name: string, type: ScalarType])[];
  readonly workgroup: number;
  readonly features?: readonly string[];
  readonly subgroupSize?: number;
  /** Declarations at module scope: functions, workgroup memory. */
  readonly declarations?: string;
  /**
   * Statements of the entry point. They can use `local` (the invocation in its workgroup), `group` (the workgroup, counted over the whole grid) and
   * `thread` = group · workgroup size + local, all u32; the scalars as p.name; and inf(), nan(), is_nan(x).
   */
  readonly body: string;
  /** Declarations and statements of the workgroups beyond `p.groups`; they can use `group` and `local` too. */
  readonly more?: { readonly declarations: string; readonly body: string } | null;
}

/** Scalars that every shader has, before its own: the width of the grid, the number of workgroups, and the bits of ∞, for which WGSL has no literal. */
const COMMON: readonly (readonly [string, ScalarType])[] = [
  ["grid_width", "u32"],
  ["groups", "u32"],
  ["inf_bits", "u32"],
];

/** The scalars in the order of the parameter block, 4 bytes each: the common ones, each operand's first element, the kernel's own. */
export function scalarLayout(
  source: Pick<ShaderSource, "operands" | "scalars">,
): (readonly [string, ScalarType])[] {
  return [...COMMON, ...source.operands.map(({ name }) => [`${name}_at`, "u32"] as const), ...source.scalars];
}

/** The feature of subgroup matrices. */
const MATRICES = "chromium_experimental_subgroup_matrix";

const wgslType = (dtype: DType): string => (dtype === "f32" ? "f32" : "i32");

/** Returns the functions that read and write an operand. */
function accessorsOf(
  { name, dtype, slot, fours = false }: ShaderOperand,
  { written, vectors = false }: ShaderSlot,
): string {
  const type = wgslType(dtype);
  const at = `p.${name}_at`;
  const lines = vectors
    ? [`fn ${name}(i: u32) -> ${type} { return slot${slot}[(${at} + i) / 4u][(${at} + i) % 4u]; }`]
    : [`fn ${name}(i: u32) -> ${type} { return slot${slot}[${at} + i]; }`];
  if (written && !vectors)
    lines.push(`fn set_${name}(i: u32, value: ${type}) { slot${slot}[${at} + i] = value; }`);
  if (fours) {
    const four = (read: (c: number) => string): string => [0, 1, 2, 3].map(read).join(", ");
    lines.push(
      `fn ${name}4(i: u32) -> vec4<${type}> { return ${vectors ? `slot${slot}[${at} / 4u + i]` : `vec4(${four((c) => `${name}(4u * i + ${c}u)`)})`}; }`,
    );
    if (written)
      lines.push(
        `fn set_${name}4(i: u32, value: vec4<${type}>) { ${
          vectors
            ? `slot${slot}[${at} / 4u + i] = value;`
            : [0, 1, 2, 3].map((c) => `set_${name}(4u * i + ${c}u, value[${c}]);`).join(" ")
        } }`,
      );
  }
  return lines.join("\n");
}

export function shaderOf(source: ShaderSource): string {
  const {
    operands,
    slots,
    workgroup,
    declarations = "",
    features = [],
    subgroupSize,
    body,
    more = null,
  } = source;
  const fields = scalarLayout(source).map(([name, type]) => `  ${name}: ${type},`);
  const bindings = slots.map(
    ({ dtype, written, vectors = false }, slot) =>
      `@group(0) @binding(${slot + 1}) var<storage, ${written ? "read_write" : "read"}> slot${slot}: array<${vectors ? `vec4<${wgslType(dtype)}>` : wgslType(dtype)}>;`,
  );
  const accessors = operands.map((operand) => accessorsOf(operand, slots[operand.slot]!));
  // The index of the subgroup is uniform within a subgroup, but the compiler cannot prove it.
  const directives = [
    ...features.map((feature) => `enable ${feature};\n`),
    ...(subgroupSize === undefined ? [] : ["enable subgroup_size_control;\n"]),
    ...(features.includes(MATRICES) ? ["diagnostic(off, chromium.subgroup_matrix_uniformity);\n"] : []),
  ];
  return `${directives.join("")}struct Scalars {
${fields.join("\n")}
}
@group(0) @binding(0) var<uniform> p: Scalars;
${bindings.join("\n")}
${accessors.join("\n")}
fn inf() -> f32 { return bitcast<f32>(p.inf_bits); }
fn nan() -> f32 { return bitcast<f32>(p.inf_bits | 0x400000u); }
// Compilers may take x != x for false; bits they leave alone.
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
${declarations}${more === null ? "" : `\n${more.declarations}`}
@compute @workgroup_size(${workgroup})${subgroupSize === undefined ? "" : ` @subgroup_size(${subgroupSize})`}
fn main(@builtin(workgroup_id) workgroup_id: vec3u, @builtin(local_invocation_index) local: u32) {
  let group = workgroup_id.y * p.grid_width + workgroup_id.x;
  if (group >= p.groups) {
${more === null ? "" : `${more.body}\n`}    return;
  }
  let thread = group * ${workgroup}u + local;
${body}
}
`;
}
