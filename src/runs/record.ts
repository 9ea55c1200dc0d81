/**
 * Reads the folder of a run as plain data, during the run or after it:
 *
 *     config.json     the resolved options
 *     run.json        the facts of the run (facts.ts)
 *     metrics.jsonl   a line per step (lines.ts)
 *     weights.json    the weights, once the run has ended or was stopped
 */
import { closeSync, existsSync, openSync, readFileSync, readSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import { type Json, parseJson } from "../json.ts";
import { liesOnSimplex, sumOf } from "../dga/simplex.ts";
import { ioError } from "../node/files.ts";
import type { RunFacts, TextFacts } from "./facts.ts";
import type {
  Evaluation,
  GuardMetrics,
  MetricsLine,
  NamedWeights,
  ResumeLine,
  RunWeights,
  StartLine,
  StepMetrics,
} from "./lines.ts";
import { listOf, mapOf, member, number, optional, orNull, type Part, type Reader, text } from "./read-json.ts";

export interface RunRecord {
  readonly folder: string;
  /** The last part of the folder's path, by which tables and pages name the run. */
  readonly name: string;
  /** The options of the run; objects are Maps, in the order of the file. */
  readonly config: ReadonlyMap<string, Json>;
  readonly facts: RunFacts;
  /** The line of the evaluation before the first step; null if there was none. */
  readonly start: StartLine | null;
  readonly steps: readonly StepMetrics[];
  readonly resumes: readonly ResumeLine[];
  /** The weights; null during the run, or if it was killed. */
  readonly weights: RunWeights | null;
}

/** A run without its lines. */
export type RunHead = Pick<RunRecord, "folder" | "name" | "config" | "facts">;

/** Reads a run. Throws `data` for a folder that contains no run and for files that a run does not write, and `io` for files that cannot be read. */
export function readRunRecord(folder: string): RunRecord {
  const head = readRunHead(folder);
  let start: StartLine | null = null;
  const steps: StepMetrics[] = [];
  const resumes: ResumeLine[] = [];
  scanMetrics(folder, (line) => {
    if (!("event" in line)) steps.push(line);
    else if (line.event === "start") start = line;
    else resumes.push(line);
  });
  return { ...head, start, steps, resumes, weights: readWeights(folder) };
}

/** Reads what is known of a run before its first step. Throws like `readRunRecord`. */
export function readRunHead(folder: string): RunHead {
  const file = join(folder, "config.json");
  const source = readOrNull(file);
  if (source === null)
    throw new GradmixError("data", `${folder}: holds no run (there is no ${file}); name the folder of a run`);
  const config = parseJson(source, { source: file, code: "data" });
  if (!(config instanceof Map)) throw new GradmixError("data", `${file}: is not an object`);
  const place = join(folder, "run.json");
  const facts = readOrNull(place);
  if (facts === null)
    throw new GradmixError(
      "data",
      `${folder}: has no run.json, which a run writes before its first step; for a run of an earlier version, gradmix train --resume ${folder} writes it`,
    );
  return { folder, name: basename(resolve(folder)), config, facts: factsOf(ordered(facts, place)) };
}

/** Reads the weights of weights.json; null if it does not exist yet. Throws `data` for a file that a run does not write. */
export function readWeights(folder: string): RunWeights | null {
  const file = join(folder, "weights.json");
  const source = readOrNull(file);
  if (source === null) return null;
  const part = ordered(source, file);
  return { ...named(part), ...optional(part, "bases", named) };
}

/** How far metrics.jsonl has been read. */
export interface MetricsPosition {
  readonly bytes: number;
  readonly lines: number;
}

export const METRICS_START: MetricsPosition = { bytes: 0, lines: 0 };

/**
 * Passes the complete lines of a run's metrics.jsonl from a position on to a callback, in order, and returns the position after them, from which
 * another call continues. A last line that is still being written is left for that call. A missing file has no lines. Throws `data`, naming the line,
 * for a line that no run writes.
 */
export function scanMetrics(
  folder: string,
  visit: (line: MetricsLine) => void,
  from: MetricsPosition = METRICS_START,
): MetricsPosition {
  const path = join(folder, "metrics.jsonl");
  if (!existsSync(path)) return from;
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    throw ioError(path, error);
  }
  try {
    const chunk = Buffer.alloc(2 ** 20);
    let { bytes, lines } = from;
    let rest: Buffer = Buffer.alloc(0);
    for (;;) {
      const count = readSync(file, chunk, 0, chunk.length, bytes + rest.length);
      if (count === 0) return { bytes, lines };
      const block = Buffer.concat([rest, chunk.subarray(0, count)]);
      let start = 0;
      for (let end = block.indexOf(10); end >= 0; end = block.indexOf(10, start)) {
        lines++;
        visit(lineOf(parsed(block.toString("utf8", start, end), `${path}, line ${lines}`)));
        start = end + 1;
      }
      bytes += start;
      rest = block.subarray(start);
    }
  } finally {
    closeSync(file);
  }
}

/** Reads a file; null if it does not exist. */
function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw ioError(path, error);
  }
}

/** Names keep their order. */
function ordered(source: string, at: string): Part {
  return { at, value: parseJson(source, { source: at, code: "data" }) };
}

/** By JSON.parse, which is far faster: a long run has many lines. */
function parsed(source: string, at: string): Part {
  try {
    return { at, value: JSON.parse(source) as unknown };
  } catch (error) {
    throw new GradmixError("data", `${at}: is not JSON`, { cause: error });
  }
}

const numbers = mapOf(number);

/** Weights may have been edited, and what is made of them would be off without a word. */
const weights: Reader<ReadonlyMap<string, number>> = (part) => {
  const read = numbers(part);
  const values = [...read.values()];
  if (!liesOnSimplex(values))
    throw new GradmixError(
      "data",
      `${part.at} has weights that are not numbers of at least 0 that sum to 1: they sum to ${Number(sumOf(values).toPrecision(9))}, and the least is ${values.reduce((a, b) => Math.min(a, b), Infinity)}`,
    );
  return read;
};

const named: Reader<NamedWeights> = (part) => ({
  final: member(part, "final", weights),
  averaged: member(part, "averaged", weights),
});

const evaluation: Reader<Evaluation> = (part) => ({
  target: member(part, "target", orNull(number)),
  domains: member(part, "domains", numbers),
});

const changed = mapOf((part) => {
  const either: Reader<string | number> = (inner) =>
    typeof inner.value === "number" ? number(inner) : text(inner);
  return { from: member(part, "from", either), to: member(part, "to", either) };
});

const trained: Reader<{ weight?: number; loss: number | null; tokens: number; epochs: number }> = (part) => ({
  ...optional(part, "weight", number),
  loss: member(part, "loss", orNull(number)),
  tokens: member(part, "tokens", number),
  epochs: member(part, "epochs", number),
});

const alignment: Reader<{
  value: number;
  standardError: number | null;
  norm: number | null;
  tokens?: number;
  effectiveSize?: number;
}> = (part) => ({
  value: member(part, "value", number),
  standardError: member(part, "standardError", orNull(number)),
  norm: member(part, "norm", orNull(number)),
  ...optional(part, "tokens", number),
  ...optional(part, "effectiveSize", number),
});

const guarded: Reader<GuardMetrics> = (part) => ({
  loss: member(part, "loss", number),
  reference: member(part, "reference", number),
  standardError: member(part, "standardError", orNull(number)),
  multiplier: member(part, "multiplier", orNull(number)),
});

/** A line that tells what a step did. */
export const stepLine: Reader<StepMetrics> = (part) => ({
  step: member(part, "step", number),
  tokens: member(part, "tokens", number),
  loss: member(part, "loss", number),
  gradNorm: member(part, "gradNorm", orNull(number)),
  ...optional(part, "lossScale", number),
  ...(member(part, "skipped", (inner) => inner.value === true) ? { skipped: true as const } : {}),
  lr: member(part, "lr", number),
  seconds: member(part, "seconds", number),
  weights: member(part, "weights", numbers),
  domains: member(part, "domains", mapOf(trained)),
  ...optional(part, "alignments", mapOf(alignment)),
  ...optional(part, "targetNorm", number),
  ...optional(part, "targetExamples", number),
  ...optional(part, "guard", mapOf(guarded)),
  ...optional(part, "evaluation", evaluation),
  ...optional(part, "evaluationSeconds", number),
});

const lineOf: Reader<MetricsLine> = (part) => {
  const step = member(part, "step", number);
  const event = member(part, "event", orNull(text));
  if (event === "resumed")
    return { step, event, changes: Object.fromEntries(member(part, "changes", changed)) };
  if (event === "start")
    return {
      step: 0,
      event,
      seconds: member(part, "seconds", number),
      evaluation: member(part, "evaluation", evaluation),
      cost: member(part, "cost", costs),
    };
  if (event !== null)
    throw new GradmixError("data", `${part.at}.event is "${event}", which this version of gradmix does not know`);
  return stepLine(part);
};

const costs: Reader<RunFacts["cost"]> = (part) => ({
  alignment: member(part, "alignment", number),
  ...optional(part, "guard", number),
  evaluation: member(part, "evaluation", number),
});

const textFacts: Reader<TextFacts> = (part) => ({
  files: member(part, "files", number),
  documents: member(part, "documents", number),
  tokens: member(part, "tokens", number),
  heldOutTokens: member(part, "heldOutTokens", number),
  heldOutBytes: member(part, "heldOutBytes", number),
  sha256: member(part, "sha256", text),
});

const factsOf: Reader<RunFacts> = (part) => {
  const version = member(part, "version", number);
  if (version !== 1)
    throw new GradmixError(
      "data",
      `${part.at}: was written by another version of gradmix (layout ${version}, not 1)`,
    );
  return {
    version: 1,
    gradmix: member(part, "gradmix", text),
    node: member(part, "node", text),
    backend: member(part, "backend", text),
    simd: member(part, "simd", text),
    precision: member(part, "precision", text),
    threads: member(part, "threads", number),
    rule: member(part, "rule", text),
    seed: member(part, "seed", number),
    dataSeed: member(part, "dataSeed", number),
    steps: member(part, "steps", number),
    batch: member(part, "batch", number),
    context: member(part, "context", number),
    parameters: member(part, "parameters", number),
    vocabSize: member(part, "vocabSize", number),
    repetitions: member(part, "repetitions", orNull(number)),
    evaluatedTokens: member(part, "evaluatedTokens", orNull(number)),
    cost: member(part, "cost", costs),
    domains: member(part, "domains", mapOf(textFacts)),
    target: member(part, "target", orNull(textFacts)),
    targets: member(part, "targets", mapOf(textFacts)),
    bases: member(part, "bases", orNull(listOf(text))),
  };
};
