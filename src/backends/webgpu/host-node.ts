/** The one file that knows Dawn and Node: finds an adapter and makes a device with the limits that it has. */
import { GradmixError } from "../../errors.ts";

export interface NodeDevice {
  /** A `GPUDevice`. */
  readonly device: object;
  readonly adapter: string;
  readonly software: boolean;
  /** For reports. */
  readonly details: {
    readonly vendor: string;
    readonly architecture: string;
    readonly driver: string;
    readonly features: readonly string[];
    readonly limits: Readonly<Record<string, number>>;
  };
}

/**
 * Whatever `create` returns must outlive every device: if it is collected, the process crashes or hangs. globalThis keeps it even when this module
 * is loaded twice.
 */
const keeper: { gradmixDawn?: GPU } = globalThis as typeof globalThis & { gradmixDawn?: GPU };

const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/**
 * The machine's GPU; a software adapter only with `software`. Throws `backend`, saying why, when there is none, and when the npm package `webgpu`
 * is not installed or does not run here.
 */
export async function createNodeDevice({
  software = false,
}: { software?: boolean } = {}): Promise<NodeDevice> {
  const gpu = (keeper.gradmixDawn ??= await loadDawn());
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null)
    throw new GradmixError(
      "backend",
      "webgpu: this machine shows no GPU (no Vulkan, Metal or Direct3D 12 adapter)",
    );
  const { vendor, architecture, device: name, description } = adapter.info;
  const isSoftware =
    adapter.info.isFallbackAdapter ||
    /swiftshader|llvmpipe|lavapipe/i.test(`${architecture} ${name} ${description}`);
  if (isSoftware && !software)
    throw new GradmixError(
      "backend",
      `webgpu: the only adapter is a software one (${description || architecture}); set GRADMIX_WEBGPU=software to use it`,
    );
  const limits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]]));
  const device = await adapter.requestDevice({ requiredLimits: limits });
  return {
    device,
    adapter: [name || architecture || vendor, description].filter((part) => part !== "").join(", "),
    software: isSoftware,
    details: { vendor, architecture, driver: description, features: [...adapter.features].sort(), limits },
  };
}

async function loadDawn(): Promise<GPU> {
  try {
    const { create } = (await import("webgpu")) as { create: (flags: string[]) => GPU };
    return create([]);
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).split("\n")[0];
    throw new GradmixError(
      "backend",
      `webgpu: Dawn could not be loaded (${reason}); install the optional dependency with npm install webgpu`,
      { cause: error },
    );
  }
}
