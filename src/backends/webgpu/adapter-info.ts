/** What a `GPUAdapterInfo` says: a name for reports, whether it is software, whether it has the tensor cores that mixed precision needs. */
import type { TensorCores } from "./context.ts";

/** Features that the shaders for tensor cores need. */
export const tensorCoreFeatures: readonly string[] = [
  "shader-f16",
  "subgroups",
  "chromium-experimental-subgroup-matrix",
];

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

export function adapterName({ vendor, architecture, device, description }: AdapterInfo): string {
  return [device || architecture || vendor, description].filter((part) => part !== "").join(", ");
}

export function isSoftware({ architecture, device, description, isFallbackAdapter }: AdapterInfo): boolean {
  return (
    isFallbackAdapter || /swiftshader|llvmpipe|lavapipe/i.test(`${architecture} ${device} ${description}`)
  );
}

/** Tiles are cut for one size of subgroups, matrices of 16 × 16 × 16 from f16 to f32, and 32 KiB of workgroup memory. Null if any of that is missing. */
export function tensorCoresOf(
  features: { has(feature: string): boolean },
  info: AdapterInfo,
  limits: { readonly maxComputeWorkgroupStorageSize: number },
): TensorCores | null {
  const { subgroupMinSize = 0, subgroupMaxSize = 0, subgroupMatrixConfigs = [] } = info;
  const usable =
    limits.maxComputeWorkgroupStorageSize >= 32_768 &&
    tensorCoreFeatures.every((feature) => features.has(feature)) &&
    subgroupMinSize > 0 &&
    subgroupMinSize === subgroupMaxSize &&
    subgroupMatrixConfigs.some(
      ({ componentType, resultComponentType, M, N, K }) =>
        componentType === "f16" && resultComponentType === "f32" && M === 16 && N === 16 && K === 16,
    );
  return usable ? { subgroup: subgroupMinSize } : null;
}
