// Child of command.test.ts: `gradmix train` with a trainer that only counts. argv[2]: milliseconds a step after the
// first; then the config file and what to resume.
import { setTimeout } from "node:timers/promises";
import { train } from "#dist/cli/train.js";

const [pause, config, resume] = process.argv.slice(2);

async function runTraining({ training, run }, { onStep, onEvent, signal, store }) {
  const loaded = store.load();
  let step = loaded?.step ?? 0;
  store.begin();
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
