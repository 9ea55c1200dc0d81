/**
 * Reads a `GPUAdapterInfo`: a name for reports, whether the adapter is software, and whether it has the tensor cores that mixed precision needs. It uses only
 * the package's own types, none of the DOM library, because the package's types refer to this file.
 */
import type { TensorCores } from "./context.ts";

/** Features that the shaders for tensor cores need. */
const FEATURES: readonly string[] = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"];
/** Additional feature that is needed on GPUs with subgroups of several sizes, such as those of AMD. */
const SIZED = "subgroup-size-control";
/** Size of subgroups that is requested there. */
const SIZE = 32;

/** Features to request from the device. */
export const tensorCoreFeatures = ({ sized = false }: Pick<TensorCores, "sized"> = {}): readonly string[] =>
  sized ? [...FEATURES, SIZED] : FEATURES;

/** Types and sizes of a product of small matrices that an adapter supports. */
export interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** The members of a `GPUAdapterInfo` that are used here. The optional ones are missing if the adapter has no subgroups. */
export interface AdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly isFallbackAdapter: boolean;
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly subgroupMatrixConfigs?: readonly MatrixConfig[];
}

/** A device, with facts about its adapter. */
export interface FoundDevice {
  /** A `GPUDevice`. */
  readonly device: object;
  readonly adapter: string;
  readonly software: boolean;
  /** Tensor cores, for `createWebgpuBackend`; null if there are none, or if they were not requested. */
  readonly tensorCores: TensorCores | null;
  /** Facts for reports. */
  readonly details: {
    readonly vendor: string;
    readonly architecture: string;
    readonly driver: string;
    readonly features: readonly string[];
    readonly limits: Readonly<Record<string, number>>;
    /** Shapes and types of subgroup matrices, one line for each. */
    readonly matrices: readonly string[];
  };
}

export function adapterName({ vendor, architecture, device, description }: AdapterInfo): string {
  return [device || architecture || vendor, description].filter((part) => part !== "").join(", ");
}

export function isSoftware({ architecture, device, description, isFallbackAdapter }: AdapterInfo): boolean {
  return (
    isFallbackAdapter || /swiftshader|llvmpipe|lavapipe/i.test(`${architecture} ${device} ${description}`)
  );
}

/**
 * Returns the tensor cores of an adapter. The tiles need subgroups of a known size, matrices of 16 × 16 × 16 from f16 to f32, and 32 KiB of workgroup memory;
 * returns null if any of these is missing.
 */
export function tensorCoresOf(
  features: { has(feature: string): boolean },
  info: AdapterInfo,
  limits: {
    readonly maxComputeWorkgroupStorageSize: number;
    readonly maxComputeInvocationsPerWorkgroup: number;
  },
): TensorCores | null {
  const { subgroupMinSize = 0, subgroupMaxSize = 0, subgroupMatrixConfigs = [] } = info;
  const sized = subgroupMinSize !== subgroupMaxSize;
  const usable =
    limits.maxComputeWorkgroupStorageSize >= 32_768 &&
    tensorCoreFeatures({ sized }).every((feature) => features.has(feature)) &&
    subgroupMinSize > 0 &&
    (!sized || (subgroupMinSize <= SIZE && SIZE <= subgroupMaxSize)) &&
    subgroupMatrixConfigs.some(
      ({ componentType, resultComponentType, M, N, K }) =>
        componentType === "f16" && resultComponentType === "f32" && M === 16 && N === 16 && K === 16,
    );
  const subgroup = sized ? SIZE : subgroupMinSize;
  // The largest tiles have eight subgroups.
  if (!usable || limits.maxComputeInvocationsPerWorkgroup < 8 * subgroup) return null;
  return sized ? { subgroup, sized } : { subgroup };
}
