/**
 * Trains a small model on the CPU backend and prints, as JSON, `liveBytes` after each step and the process's memory after
 * collecting garbage: after the warm-up steps, and after the others. For the test of memory; run with --expose-gc.
 */
import { gradients, init, shutdown, sumSink, tensor } from "gradmix";
import { adamw, arenaLike, createGPT } from "gradmix/nn";

const [warmUp, steps] = process.argv.slice(2).map(Number);
const backend = await init({ backend: "cpu", threads: 2 });
const model = createGPT({ vocabSize: 64, dim: 32, layers: 2, heads: 4, kvHeads: 2, context: 32 });
const gradient = arenaLike(model.parameters);
const sink = sumSink({ gradientOf: gradient.of });
const optimizer = adamw(model.parameters);

const [batch, time] = [8, 32];
const live = [];
const losses = [];
async function step(n) {
  const ids = Array.from({ length: batch * (time + 1) }, (_, i) => (i * i + 7 * n) % 64);
  const rows = (shift) =>
    tensor(
      Array.from({ length: batch * time }, (_, i) => ids[i + Math.floor(i / time) + shift]),
      [batch, time],
      "i32",
    );
  const [tokens, targets] = [rows(0), rows(1)];
  const each = gradients(() => model.losses({ inputs: tokens, targets }), {
    parameters: model.parameters.list,
    sink,
    weights: new Array(batch).fill(1 / (batch * time)),
  });
  const norm = optimizer.step(gradient.arena, 1e-3);
  losses.push((await each.data()).reduce((a, b) => a + b, 0) / (batch * time));
  for (const t of [each, norm, tokens, targets]) t.dispose();
  live.push(backend.liveBytes);
}

/** Resident bytes, and bytes of JavaScript objects, without garbage. */
function memory() {
  globalThis.gc();
  globalThis.gc();
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heapUsed };
}

for (let n = 0; n < warmUp; n++) await step(n);
const before = memory();
const peakBefore = backend.peakBytes;
for (let n = 0; n < steps; n++) await step(warmUp + n);
const after = memory();
console.log(JSON.stringify({ live, losses, before, after, peaks: [peakBefore, backend.peakBytes] }));
await shutdown();
