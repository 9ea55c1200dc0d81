// Child of run-folder.test.ts: writes checkpoints into the folder argv[2] until it is killed. Every number of a checkpoint is its step.
import { jsonLayer, resolveConfig } from "#dist/cli/config.js";
import { parseJson } from "#dist/json.js";
import { openRunFolder } from "#dist/cli/run-folder.js";

const config = resolveConfig([jsonLayer(parseJson(process.argv[3], { source: "argv" }), "argv")]);
const folder = openRunFolder(config);
for (let step = 1; ; step++) {
  folder.appendMetrics({ step, padding: "x".repeat(2000) });
  folder.saveCheckpoint(step, { json: { step }, arrays: { x: new Float32Array(50_000).fill(step) } });
  if (step === 1) process.stdout.write("begun\n");
}
