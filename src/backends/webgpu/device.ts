/** Requests an adapter from a `GPU`, Dawn's or a browser's, and makes a device with the limits that it has. */
import { GradmixError } from "../../errors.ts";
import {
  type AdapterInfo,
  adapterName,
  type FoundDevice,
  isSoftware,
  tensorCoreFeatures,
  tensorCoresOf,
} from "./adapter-info.ts";

const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

export const limitsOf = (adapter: GPUAdapter): Record<string, number> =>
  Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]]));

/**
 * Makes a device of the fastest adapter; a software adapter is only used with `software`. `tensorCores` requests what mixed precision needs, if the
 * GPU has it. Throws `backend` with the message `none` if there is no adapter, or with the advice `takeSoftware` if there is only a software adapter.
 */
export async function requestDevice(
  gpu: GPU,
  options: { software: boolean; tensorCores: boolean; none: string; takeSoftware: string },
): Promise<FoundDevice> {
  const { software, tensorCores, none, takeSoftware } = options;
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) throw new GradmixError("backend", `webgpu: ${none}`);
  const info: AdapterInfo = adapter.info;
  const { vendor, architecture, description } = info;
  const onCpu = isSoftware(info);
  if (onCpu && !software)
    throw new GradmixError(
      "backend",
      `webgpu: the only adapter is a software one (${description || architecture}); ${takeSoftware}`,
    );
  const cores = tensorCores && !onCpu ? tensorCoresOf(adapter.features, info, adapter.limits) : null;
  const limits = limitsOf(adapter);
  const device = await adapter.requestDevice({
    requiredLimits: limits,
    ...(cores === null ? {} : { requiredFeatures: tensorCoreFeatures(cores) as GPUFeatureName[] }),
  });
  return {
    device,
    adapter: adapterName(info),
    software: onCpu,
    tensorCores: cores,
    details: {
      vendor,
      architecture,
      driver: description,
      features: [...adapter.features].sort(),
      limits,
      matrices: (info.subgroupMatrixConfigs ?? []).map(
        ({ componentType, resultComponentType, M, N, K }) =>
          `${componentType}→${resultComponentType} ${M}×${N}×${K}`,
      ),
    },
  };
}
