/** The only file that depends on Dawn and Node: it finds adapters and stores the choices of variants. */
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { GradmixError } from "../../errors.ts";
import { isObject } from "../../json.ts";
import { makeFolders } from "../../folders-node.ts";
import { type FoundDevice, tensorCoreFeatures } from "./adapter-info.ts";
import { limitsOf, requestDevice } from "./device.ts";
import { choiceLine, differenceLine, type TuningStore } from "./tuning.ts";

/**
 * The objects that Dawn's `create` returns, by its flags. They must outlive every device: if one is garbage-collected, the process crashes or hangs. globalThis
 * holds them, so that two copies of this module share them.
 */
const keeper: { gradmixDawn?: Map<string, GPU> } = globalThis as typeof globalThis & {
  gradmixDawn?: Map<string, GPU>;
};

/** Flags of Dawn for tensor cores: the first enables experimental features, and without the second f16 is hidden on NVIDIA. */
const EXPERIMENTAL: readonly string[] = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
];

/**
 * Flags of Dawn for software adapters. If a software driver clears workgroup memory, it compiles one store per element, which takes four fifths of the time in
 * which SwiftShader compiles our shaders. Without the extension, Dawn clears the memory with a loop in the shader.
 */
const IN_SOFTWARE: readonly string[] = [
  "disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension",
];

/**
 * Makes a device of the machine's GPU; a software adapter is only used with `software`. `tensorCores` requests what mixed precision needs, if the GPU
 * has it. Throws `backend` with the reason if there is none, and if the npm package `webgpu` is not installed or does not run here.
 */
export async function createNodeDevice({
  software = false,
  tensorCores = false,
}: { software?: boolean; tensorCores?: boolean } = {}): Promise<FoundDevice> {
  const flags = [
    ...(process.env["GRADMIX_WEBGPU"] === "software" ? IN_SOFTWARE : []),
    ...(tensorCores ? EXPERIMENTAL : []),
  ];
  return requestDevice(await dawn(flags), {
    software,
    tensorCores,
    none: "this machine shows no GPU (no Vulkan, Metal or Direct3D 12 adapter)",
    takeSoftware: "set GRADMIX_WEBGPU=software to use it",
  });
}

/** A device of Dawn's null backend that runs nothing: it only validates shaders, including those for tensor cores. For tests. */
export async function createNullDevice(): Promise<object> {
  const gpu = await dawn(["backend=null", ...EXPERIMENTAL]);
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new GradmixError("backend", "webgpu: Dawn has no null backend");
  return adapter.requestDevice({
    requiredFeatures: tensorCoreFeatures({ sized: true }) as GPUFeatureName[],
    requiredLimits: limitsOf(adapter),
  });
}

/** File names of software drivers; Lavapipe's file is lvp_icd.x86_64.json. */
const SOFTWARE_DRIVER = /^lvp_|swiftshader/i;

/**
 * Returns whether there is any sign of a GPU driver. This check comes before Dawn, which takes a tenth of a second to load and prints a warning if Linux has
 * no Vulkan. Software drivers do not count, unless the environment names them. On Linux, files in a few folders name the drivers (the Vulkan loader's rules);
 * other systems have a driver of their own.
 */
export function mayHaveGpu(): boolean {
  if (process.platform !== "linux") return true;
  const list = (name: string, otherwise = ""): string[] =>
    (process.env[name] ?? otherwise).split(delimiter).filter((part) => part !== "");
  const named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES"].flatMap((name) => list(name));
  if (named.some((file) => existsSync(file))) return true;
  const roots = [
    ...list("XDG_CONFIG_HOME", join(homedir(), ".config")),
    ...list("XDG_CONFIG_DIRS", "/etc/xdg"),
    "/etc",
    ...list("XDG_DATA_HOME", join(homedir(), ".local", "share")),
    ...list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"),
    // NixOS.
    "/run/opengl-driver/share",
  ];
  return roots.some((root) => {
    try {
      return readdirSync(join(root, "vulkan", "icd.d")).some(
        (file) => file.endsWith(".json") && !SOFTWARE_DRIVER.test(file),
      );
    } catch {
      return false;
    }
  });
}

async function dawn(flags: readonly string[]): Promise<GPU> {
  const key = flags.join(" ");
  const kept = (keeper.gradmixDawn ??= new Map());
  const known = kept.get(key);
  if (known !== undefined) return known;
  try {
    const { create } = (await import("webgpu")) as { create: (flags: string[]) => GPU };
    const gpu = create([...flags]);
    kept.set(key, gpu);
    return gpu;
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).split("\n")[0];
    throw new GradmixError(
      "backend",
      `webgpu: Dawn could not be loaded (${reason}); install the optional dependency with npm install webgpu`,
      { cause: error },
    );
  }
}

function discard(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // The folder does not exist.
  }
}

/** Version of the variants: it increases when the variants of a kernel change, so that older choices are ignored. */
const VARIANTS = 2;

/** Returns the file with the choices of variants: in GRADMIX_CACHE, or in gradmix's folder in the user's cache folder. */
function tuningFile(): string {
  const { env, platform } = process;
  // An empty variable counts as not set.
  const given = (name: string): string | undefined => (env[name] === "" ? undefined : env[name]);
  const base =
    given("GRADMIX_CACHE") ??
    join(
      platform === "win32"
        ? (given("LOCALAPPDATA") ?? join(homedir(), "AppData", "Local"))
        : platform === "darwin"
          ? join(homedir(), "Library", "Caches")
          : (given("XDG_CACHE_HOME") ?? join(homedir(), ".cache")),
      "gradmix",
    );
  return join(base, "webgpu-variants.json");
}

/**
 * Returns the choices that were timed on this device before, and a store for new ones. A file that cannot be read counts as empty. If the file cannot be
 * written, new choices hold only for this process.
 */
export function tuningStore(
  { adapter }: Pick<FoundDevice, "adapter">,
  log: (line: string) => void = () => {},
): TuningStore {
  const file = tuningFile();
  // The name of an adapter includes its driver.
  const device = `${adapter}, variants ${VARIANTS}`;
  const entries = (value: unknown): [string, unknown][] => (isObject(value) ? Object.entries(value) : []);
  const read = (): Record<string, unknown> => {
    try {
      return Object.fromEntries(entries(JSON.parse(readFileSync(file, "utf8"))));
    } catch {
      return {};
    }
  };
  const known = (): Record<string, string> =>
    Object.fromEntries(
      entries(read()[device]).flatMap(([bucket, variant]) =>
        typeof variant === "string" ? [[bucket, variant]] : [],
      ),
    );
  return {
    known: known(),
    learn(bucket, variant, milliseconds) {
      log(choiceLine(bucket, variant, milliseconds));
      const fresh = `${file}.${process.pid}`;
      try {
        // Another process may have added choices in the meantime.
        const all = { ...read(), [device]: { ...known(), [bucket]: variant } };
        makeFolders(dirname(file));
        writeFileSync(fresh, `${JSON.stringify(all, null, 2)}\n`);
        renameSync(fresh, file);
      } catch {
        // The folder is not writable.
        discard(fresh);
      }
    },
    differs: (...variant) => log(differenceLine(...variant)),
  };
}
