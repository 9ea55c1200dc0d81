// @ts-check
/** `node scripts/test-summary.mjs STATUS REPORT.json …` summarises vitest's JSON reports in one line. */
import { existsSync, readFileSync } from "node:fs";

const [status, ...reports] = process.argv.slice(2);
let passed = 0;
let failed = 0;
let skipped = 0;
for (const path of reports.filter((path) => existsSync(path))) {
  const report = JSON.parse(readFileSync(path, "utf8"));
  passed += report.numPassedTests;
  failed += report.numFailedTests;
  skipped += report.numPendingTests + report.numTodoTests;
}
// Something other than a test failed: a check, a build, the demo, a test file that does not load.
if (status !== "0" && failed === 0) failed = 1;
process.stdout.write(`${passed} passed, ${failed} failed, ${skipped} skipped\n`);
