// @ts-check
/**
 * A software Vulkan that needs no root: SwiftShader and a Vulkan loader (unpack-chromium.mjs), and the environment variables with which a process must start
 * so that Dawn finds them.
 *
 * GRADMIX_WEBGPU chooses the driver: "software" (the default of the tests; another software driver, such as Mesa's lavapipe, if VK_DRIVER_FILES names its file),
 * "hardware" (the machine's own Vulkan, Metal or Direct3D 12), or "off".
 */
import { join } from "node:path";
import { notHere, unpackSwiftShader } from "./unpack-chromium.mjs";

/** @returns {Record<string, string>} The variables, with GRADMIX_WEBGPU and, if it is "off", GRADMIX_WEBGPU_REASON. */
export function webgpuEnvironment(env = process.env) {
  const choice = env["GRADMIX_WEBGPU"] ?? "software";
  if (choice === "hardware") return { GRADMIX_WEBGPU: "hardware" };
  const off = (/** @type {string} */ reason) => ({ GRADMIX_WEBGPU: "off", GRADMIX_WEBGPU_REASON: reason });
  if (choice !== "software") return off("GRADMIX_WEBGPU=off");
  if (env["GRADMIX_WEBGPU"] === "software" && env["VK_DRIVER_FILES"]) return { GRADMIX_WEBGPU: "software" };
  if (notHere !== null) return off(`SwiftShader: ${notHere}; GRADMIX_WEBGPU=hardware tests on the GPU`);
  try {
    const folder = unpackSwiftShader();
    const library = env["LD_LIBRARY_PATH"];
    const driver = join(folder, "vk_swiftshader_icd.json");
    return {
      GRADMIX_WEBGPU: "software",
      LD_LIBRARY_PATH: library === undefined || library === "" ? folder : `${folder}:${library}`,
      VK_DRIVER_FILES: driver,
      VK_ICD_FILENAMES: driver,
    };
  } catch (error) {
    return off(
      `SwiftShader could not be unpacked (${error instanceof Error ? error.message : String(error)})`,
    );
  }
}
