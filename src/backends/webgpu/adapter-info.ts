/** What a `GPUAdapterInfo` says: a name for reports, whether it is software, whether it has the tensor cores that mixed precision needs. Of the DOM library's types it names none: the package's own lead here. */
import type { TensorCores } from "./context.ts";

/** Features that the shaders for tensor cores need. */
const FEATURES: readonly string[] = ["shader-f16", "subgroups", "chromium-experimental-subgroup-matrix"];
/** And another where a GPU has subgroups of several sizes, as AMD's have. */
const SIZED = "subgroup-size-control";
/** The size that is then asked for. */
const SIZE = 32;

/** What a device must be asked for. */
export const tensorCoreFeatures = ({ sized = false }: Pick<TensorCores, "sized"> = {}): readonly string[] =>
  sized ? [...FEATURES, SIZED] : FEATURES;

/** One of the products of small matrices that an adapter has. */
export interface MatrixConfig {
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Of a `GPUAdapterInfo` what matters here. What is optional is missing where there are no subgroups. */
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

/** A device, and what there is to know of its adapter. */
export interface FoundDevice {
  /** A `GPUDevice`. */
  readonly device: object;
  readonly adapter: string;
  readonly software: boolean;
  /** For `createWebgpuBackend`; null where there are none, or where they were not asked for. */
  readonly tensorCores: TensorCores | null;
  /** For reports. */
  readonly details: {
    readonly vendor: string;
    readonly architecture: string;
    readonly driver: string;
    readonly features: readonly string[];
    readonly limits: Readonly<Record<string, number>>;
    /** Shapes and types of subgroup matrices, a line each. */
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

/** Tiles are cut for subgroups of one size, matrices of 16 × 16 × 16 from f16 to f32, and 32 KiB of workgroup memory. Null if any of that is missing. */
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
