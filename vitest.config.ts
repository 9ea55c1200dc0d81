/**
 * Tests run against the built package. `/dist/` stays external, so that Node itself loads it: worker threads and
 * `new URL(…, import.meta.url)` then work as they do for users.
 */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";
import { BaseSequencer } from "vitest/node";
import { webgpuEnvironment } from "./scripts/software-vulkan.mjs";

// Before the tests' processes start: a loader reads its paths once.
Object.assign(process.env, webgpuEnvironment());
// On a machine with a GPU too, tests that name no backend are about the cpu; and no test writes into the user's cache.
process.env["GRADMIX_BACKEND"] ??= "cpu";
process.env["GRADMIX_CACHE"] ??= join(import.meta.dirname, ".cache", "variants");

/** Files that take longest begin first, so that no worker is left alone with one at the end. */
const LONGEST = ["kernels", "webgpu-variants", "webgpu"].map((name) => `backends/${name}.test.ts`);

class LongestFirst extends BaseSequencer {
  override async sort(
    files: Parameters<BaseSequencer["sort"]>[0],
  ): Promise<Parameters<BaseSequencer["sort"]>[0]> {
    const rank = (file: string): number => {
      const at = LONGEST.findIndex((name) => file.endsWith(name));
      return at < 0 ? LONGEST.length : at;
    };
    return (await super.sort(files)).sort((a, b) => rank(a.moduleId) - rank(b.moduleId));
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    sequence: { sequencer: LongestFirst },
    // Some tests use threads of their own.
    maxWorkers: Math.max(2, availableParallelism() >> 1),
    server: { deps: { external: [/\/dist\//] } },
    testTimeout: 150_000,
    hookTimeout: 60_000,
    teardownTimeout: 5_000,
    reporters: [
      "default",
      ["json", { outputFile: process.env["GRADMIX_TEST_REPORT"] ?? ".cache/vitest.json" }],
    ],
  },
});
