/**
 * Tests run against the built package. `/dist/` stays external, so that Node itself loads it: worker threads and
 * `new URL(…, import.meta.url)` then work as they do for users.
 */
import { defineConfig } from "vitest/config";
import { webgpuEnvironment } from "./scripts/software-vulkan.mjs";

// Before the tests' processes start: a loader reads its paths once.
Object.assign(process.env, webgpuEnvironment());

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: process.env["CI"] === undefined ? "50%" : 2,
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
