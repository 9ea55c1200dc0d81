/** Folders of runs without training: their files are like those of real runs, and their numbers come from formulas. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatJson } from "#dist/json.js";
import type { RunFacts, TextFacts } from "#dist/runs/facts.js";
import type { Evaluation, MetricsLine, StartLine, StepMetrics } from "#dist/runs/lines.js";

export interface MadeRun {
  readonly domains?: readonly string[];
  readonly steps?: number;
  /** Number of completed steps. Default: all. */
  readonly done?: number;
  readonly rule?: string;
  readonly seed?: number;
  /** SHA-256 of the target, which identifies it; null for a run without a target. */
  readonly target?: string | null;
  readonly evaluateEvery?: number;
  readonly alignEvery?: number;
  readonly cap?: number | null;
  readonly vocabSize?: number;
  /** Added to every loss of the target at the end. */
  readonly worse?: number;
  /** Further options of the section "mixing". */
  readonly mixing?: Readonly<Record<string, unknown>>;
}

const BATCH_TOKENS = 1000;
/** Tokens per byte of the held-out text. */
export const TOKENS_PER_BYTE = 0.25;

/** Names of domains: `domain-0`, …. */
export function domainNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `domain-${i}`);
}

/** Number of tokens of domain i. */
export function sizeOfDomain(i: number): number {
  return 2000 * (1 + (i % 7));
}

/** Weights at a time from 0 to 1: they move from equal weights to weights that fall with i. */
export function weightsAt(count: number, time: number): number[] {
  const raw = Array.from({ length: count }, (_, i) => Math.exp(-time * 4 * (((i * 7) % count) / count)));
  const sum = raw.reduce((all, value) => all + value, 0);
  return raw.map((value) => value / sum);
}

const MAX_NAMES = 100;

/** The heaviest domains of many, as in metrics.jsonl. */
function heaviest(weights: readonly number[]): number[] {
  return [...weights.keys()].sort((i, j) => weights[j] - weights[i] || i - j).slice(0, MAX_NAMES);
}

export function madeFacts(run: MadeRun): RunFacts {
  const { domains = domainNames(4), steps = 40, rule = "dga", seed = 1, target = "target", cap = 8 } = run;
  const text = (tokens: number, sha256: string): TextFacts => ({
    files: 1,
    documents: 10,
    tokens,
    heldOutTokens: 1000,
    heldOutBytes: 1000 / TOKENS_PER_BYTE,
    sha256,
  });
  return {
    version: 1,
    gradmix: "0.1.0",
    node: "v20.0.0",
    backend: "cpu",
    simd: "relaxed",
    precision: "f32",
    threads: 2,
    rule,
    seed,
    dataSeed: 1,
    steps,
    batch: 10,
    context: BATCH_TOKENS / 10,
    parameters: 29_856,
    vocabSize: run.vocabSize ?? 257,
    repetitions: cap,
    evaluatedTokens: target === null ? null : 1000,
    cost: { alignment: 0.08, evaluation: 0.03 },
    domains: new Map(domains.map((name, i) => [name, text(sizeOfDomain(i), `sha ${name}`)])),
    target: target === null ? null : text(5000, target),
    targets: new Map(),
    bases: null,
  };
}

/** The lines of metrics.jsonl. */
export function madeLines(run: MadeRun): MetricsLine[] {
  const {
    domains = domainNames(4),
    steps = 40,
    done = steps,
    seed = 1,
    target = "target",
    rule = "dga",
  } = run;
  const { evaluateEvery = Math.ceil(steps / 10), alignEvery = 5, worse = 0 } = run;
  const count = domains.length;
  const evaluation = (step: number): Evaluation => {
    const time = step / steps;
    const noise = (i: number): number => 0.01 * Math.sin(12.9898 * (seed + 10 * i) + step);
    return {
      target: target === null ? null : 2.5 + 3 * Math.exp(-4 * time) + worse * time + noise(0),
      domains: new Map(
        domains
          .filter((_, i) => i % Math.ceil(count / MAX_NAMES) === 0)
          .map((name, i) => [name, 3 + 2.5 * Math.exp(-3 * time) + 0.1 * (i % 5) + noise(i + 1)]),
      ),
    };
  };
  const start: StartLine = {
    step: 0,
    event: "start",
    seconds: 0.25,
    evaluation: evaluation(0),
    cost: { alignment: 0.08, evaluation: 0.03 },
  };
  const trained = domains.map(() => 0);
  const lines: MetricsLine[] = [start];
  for (let step = 1; step <= done; step++) {
    const weights = weightsAt(count, rule === "uniform" ? 0 : (step - 1) / steps);
    const shown = count > MAX_NAMES ? heaviest(weights) : [...weights.keys()];
    weights.forEach((weight, i) => (trained[i] += weight * BATCH_TOKENS));
    const evaluates = step % evaluateEvery === 0 || step === steps;
    const aligns = rule !== "uniform" && step % alignEvery === 0;
    const line: StepMetrics = {
      step,
      tokens: step * BATCH_TOKENS,
      loss: 2.6 + 3 * Math.exp((-4 * step) / steps) + 0.05 * Math.sin(step * 7 + seed),
      gradNorm: 1,
      lr: 0.001,
      seconds: evaluates ? 0.75 : 0.5,
      weights: new Map(shown.map((i) => [domains[i], weights[i]])),
      domains: new Map(
        shown.map((i) => [domains[i], { loss: 3, tokens: trained[i], epochs: trained[i] / sizeOfDomain(i) }]),
      ),
      ...(aligns
        ? {
            alignments: new Map(
              shown.map((i) => [
                domains[i],
                { value: Math.cos(i + step / steps), standardError: i === 1 ? null : 0.1, norm: 1 },
              ]),
            ),
          }
        : {}),
      ...(evaluates ? { evaluation: evaluation(step), evaluationSeconds: 0.25 } : {}),
    };
    lines.push(line);
  }
  return lines;
}

/** Writes the folder of a run, with weights.json if all steps are completed. */
export function makeRun(folder: string, run: MadeRun = {}): string {
  const { domains = domainNames(4), steps = 40, done = steps, rule = "dga", seed = 1 } = run;
  mkdirSync(folder, { recursive: true });
  const config = {
    data: {
      domains: new Map(domains.map((name) => [name, [`${name}.txt`]])),
      target: ["target.txt"],
      tokenizer: "byte",
    },
    training: { steps, seed, lr: 0.001 },
    mixing: { rule, ...run.mixing },
    run: { out: folder },
  };
  const write = (name: string, text: string): void => writeFileSync(join(folder, name), text);
  write("config.json", formatJson(config, 2));
  write("run.json", formatJson(madeFacts(run), 2));
  write(
    "metrics.jsonl",
    madeLines(run)
      .map((line) => `${formatJson(line)}\n`)
      .join(""),
  );
  if (done === steps) {
    const time = (step: number): number => (rule === "uniform" ? 0 : step / steps);
    const sums = domains.map(() => 0);
    for (let step = 0; step < steps; step++)
      weightsAt(domains.length, time(step)).forEach((weight, i) => (sums[i] += weight / steps));
    const named = (weights: readonly number[]): Map<string, number> =>
      new Map(domains.map((name, i) => [name, weights[i]]));
    write(
      "weights.json",
      formatJson({ final: named(weightsAt(domains.length, time(steps - 1))), averaged: named(sums) }, 2),
    );
  }
  return folder;
}
