/**
 * Tests run against the built package. `/dist/` stays external, so that Node itself loads it: worker threads and
 * `new URL(…, import.meta.url)` then work as they do for users.
 */
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";
import { webgpuEnvironment } from "./scripts/software-vulkan.mjs";

// Before the tests' processes start: a loader reads its paths once.
Object.assign(process.env, webgpuEnvironment());
// On a machine with a GPU too, tests that name no backend are about the cpu; and no test writes into the user's cache.
process.env["GRADMIX_BACKEND"] ??= "cpu";
process.env["GRADMIX_CACHE"] ??= join(import.meta.dirname, ".cache", "variants");

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
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
