// Child of command.test.ts: `gradmix train` with a trainer that only counts. argv[2]: milliseconds per step after the
// first; then the config file and the folder to resume.
import { setTimeout } from "node:timers/promises";
import { train } from "#dist/cli/train.js";

const [pause, config, resume] = process.argv.slice(2);

/** The run.json from which report.html is made. */
const text = { files: 1, documents: 1, tokens: 1, heldOutTokens: 1, heldOutBytes: 1, sha256: "" };
const facts = {
  ...{ version: 1, gradmix: "0", node: "0", backend: "cpu", simd: "plain", precision: "f32", threads: 1 },
  ...{ rule: "uniform", seed: 1, dataSeed: 1, batch: 1, context: 10, parameters: 1, vocabSize: 1 },
  ...{ repetitions: null, evaluatedTokens: null, cost: { alignment: 0, evaluation: 0 } },
  ...{ domains: { a: text }, target: null, targets: {}, bases: null },
};

async function runTraining({ training, run }, { onStep, onEvent, signal, store }) {
  const loaded = store.load();
  let step = loaded?.step ?? 0;
  store.begin();
  store.saveFile("run.json", JSON.stringify({ ...facts, steps: training.steps }));
  onEvent(`from step ${step}`);
  while (step < training.steps && !signal.aborted) {
    await setTimeout(step === 0 ? 0 : Number(pause));
    step++;
    onStep({
      step,
      tokens: step * 10,
      loss: 1 / step,
      gradNorm: 1,
      lr: 1,
      seconds: 0,
      weights: new Map([["a", 1]]),
      domains: new Map(),
    });
    if (step % run.checkpointEvery === 0) store.saveCheckpoint(step, { json: { step }, arrays: {} });
  }
  store.saveCheckpoint(step, { json: { step }, arrays: {} });
  const weights = { final: new Map([["a", 1]]), averaged: new Map([["a", 1]]) };
  return {
    step,
    tokens: step * 10,
    loss: 1 / step,
    targetLoss: null,
    best: null,
    guards: null,
    weights,
    interrupted: step < training.steps,
  };
}

process.exitCode = await train(
  { config: config || null, given: new Map(), resume: resume ?? null },
  runTraining,
);
