/**
 * Reads the folder of a run as plain data, during the run or after it:
 *
 *     config.json     the resolved options
 *     run.json        the facts of the run (facts.ts)
 *     metrics.jsonl   a line per step (lines.ts)
 *     weights.json    the weights, once the run has ended or was stopped
 */
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import { type Json, parseJson } from "../json.ts";
import { liesOnSimplex, sumOf } from "../dga/simplex.ts";
import { eachLine, readError } from "../node/files.ts";
import {
  boolean,
  count,
  faultOf,
  type Fields,
  list,
  converted,
  map,
  number,
  object,
  oneOf,
  optional,
  orNull,
  parse,
  parseOrdered,
  type Schema,
  type Source,
  string,
  stringOrNumber,
  version,
  where,
} from "../schema.ts";
import { shellWord } from "../shell-word.ts";
import type { ContaminationFacts, OverlapCounts, RunFacts, TextFacts } from "./facts.ts";
import type {
  Evaluation,
  GuardMetrics,
  MetricsLine,
  NamedWeights,
  ResumeLine,
  RunChanges,
  RunWeights,
  StartLine,
  StepMetrics,
} from "./lines.ts";

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

/**
 * Reads a run. Throws `data` for a folder that contains no run, for files that a run does not write, and for lines that do not follow each other, and
 * `io` for files that cannot be read.
 */
export function readRunRecord(folder: string): RunRecord {
  const head = readRunHead(folder);
  const weights = readOwnWeights(head);
  let start: StartLine | null = null;
  const steps: StepMetrics[] = [];
  const resumes: ResumeLine[] = [];
  scanMetrics(folder, (line) => {
    const step = steps.at(-1)?.step ?? 0;
    if (!follows(line, step)) throw misplaced(folder, line, step);
    if (!("event" in line)) steps.push(line);
    else if (line.event === "start") start = line;
    else resumes.push(line);
  });
  return { ...head, start, steps, resumes, weights };
}

/** Whether a line may follow the one of step `step` (0: none). A run writes each step once, in order. */
export function follows(line: MetricsLine, step: number): boolean {
  return line.step === ("event" in line ? step : step + 1);
}

/** The error for a line that does not follow the one of step `step`. */
export function misplaced(folder: string, line: MetricsLine, step: number): GradmixError {
  return new GradmixError(
    "data",
    `${join(folder, "metrics.jsonl")}: a line of step ${line.step} follows ${step === 0 ? "the beginning" : `one of step ${step}`}; a run writes each step once, in order`,
  );
}

/**
 * Reads the weights of a run; null if weights.json does not exist yet. Call it before the lines are read: a run writes weights.json after its last line.
 * Throws like `readWeights`, and `data` if the file does not belong to this run, or if metrics.jsonl is not complete, as after an interrupted copy.
 */
export function readOwnWeights({ folder, facts }: RunHead): RunWeights | null {
  const weights = readWeights(folder);
  if (weights === null) return null;
  const file = join(folder, "weights.json");
  for (const [own, names] of [
    [weights, new Set(facts.domains.keys())],
    [weights.bases, new Set(facts.bases)],
  ] as const)
    for (const part of own === undefined ? [] : [own.final, own.averaged]) {
      const name = [...names].find((one) => !part.has(one)) ?? [...part.keys()].find((one) => !names.has(one));
      if (name !== undefined)
        throw new GradmixError(
          "data",
          `${file}: ${part.has(name) ? `has a weight for "${name}", which run.json does not name` : `has no weight for "${name}" of run.json`}; the files belong to different runs`,
        );
    }
  // A run that was resumed in the meantime has removed weights.json.
  if (!endsWithLine(join(folder, "metrics.jsonl")) && existsSync(file))
    throw new GradmixError(
      "data",
      `${join(folder, "metrics.jsonl")}: its last line is incomplete, although the run has ended (there is ${file}); copy the whole folder again, or delete ${file} to read the lines before`,
    );
  return weights;
}

/** Whether a file ends with a line feed; true for an empty or missing file. */
function endsWithLine(path: string): boolean {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return true;
    throw readError(path, error);
  }
  try {
    const { size } = fstatSync(file);
    const last = Buffer.alloc(1);
    return size === 0 || readSync(file, last, 0, 1, size - 1) === 0 || last[0] === 10;
  } catch (error) {
    throw readError(path, error);
  } finally {
    closeSync(file);
  }
}

/** Reads what is known of a run before its first step. Throws like `readRunRecord`. */
export function readRunHead(folder: string): RunHead {
  const file = join(folder, "config.json");
  const source = readOrNull(file);
  if (source === null)
    throw new GradmixError("data", `${folder}: contains no run (there is no ${file}); give the folder of a run`);
  const config = parseJson(source, ofRun(file));
  if (!(config instanceof Map)) throw faultOf(ofRun(file))("", "is not an object");
  const place = join(folder, "run.json");
  const facts = readOrNull(place);
  if (facts === null && existsSync(join(folder, "model.safetensors")))
    throw new GradmixError(
      "data",
      `${folder}: is the folder of a model, not of a run; give ${existsSync(join(folder, "..", "run.json")) ? `that of the run, ${join(folder, "..")}` : "the folder of a run"}`,
    );
  if (facts === null)
    throw new GradmixError(
      "data",
      `${folder}: has no run.json, which a run writes before its first step; for a run of an earlier version, gradmix train --resume ${shellWord(folder)} writes it`,
    );
  const read = parseOrdered(runFacts, facts, ofRun(place));
  checkSelected(read, place);
  return { folder, name: basename(resolve(folder)), config, facts: read };
}

/** Throws `data` unless run.json has a selected share of every domain, or of none. */
function checkSelected({ domains, selected }: RunFacts, place: string): void {
  if (selected === undefined) return;
  const missing = [...domains.keys()].find((name) => !selected.has(name));
  const [wrong] = [...selected].find(([name, share]) => !domains.has(name) || !(share > 0 && share <= 1)) ?? [];
  const fault = faultOf(ofRun(place));
  if (missing !== undefined) throw fault("selected", `has no share of "${missing}"`);
  if (wrong !== undefined)
    throw fault(
      "selected",
      domains.has(wrong)
        ? `has a share of "${wrong}" that is not above 0 and up to 1`
        : `has a share of "${wrong}", which is not a domain`,
    );
}

/** Reads the weights of weights.json; null if it does not exist yet. Throws `data` for a file that a run does not write. */
export function readWeights(folder: string): RunWeights | null {
  const file = join(folder, "weights.json");
  const source = readOrNull(file);
  return source === null ? null : parseOrdered(runWeights, source, ofRun(file));
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
    throw readError(path, error);
  }
  try {
    let { bytes, lines } = from;
    eachLine(file, bytes, (line, end) => {
      lines++;
      // Parses JSON by JSON.parse, which is much faster: a long run has many lines.
      visit(parse(metricsLine, line, ofRun(`${path}, line ${lines}`)));
      bytes = end;
      return true;
    });
    return { bytes, lines };
  } catch (error) {
    throw errorCode(error) === "" ? error : readError(path, error);
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
    throw readError(path, error);
  }
}

const ofRun = (source: string): Source => ({ source, code: "data" });

const numbers = map(number);

/** Weights may have been edited by hand, and results made from them would be silently off. */
const weights = where(numbers, (read) => {
  const values = [...read.values()];
  return liesOnSimplex(values)
    ? null
    : `has weights that are not numbers of at least 0 that sum to 1: they sum to ${Number(sumOf(values).toPrecision(9))}, and the smallest is ${values.reduce((a, b) => Math.min(a, b), Infinity)}`;
});

const named: Fields<NamedWeights> = { final: weights, averaged: weights };

/** Schema of weights.json. */
export const runWeights: Schema<RunWeights> = object<RunWeights>({ ...named, bases: optional(object(named)) });

const evaluation = object<Evaluation>({ target: orNull(number), domains: numbers });

const changes = converted(
  map(object<RunChanges[string]>({ from: stringOrNumber, to: stringOrNumber })),
  (read): RunChanges => Object.fromEntries(read),
);

const costs = object<RunFacts["cost"]>({ alignment: number, guard: optional(number), evaluation: number });

/** Reads the line of a step. */
export const stepLine: Schema<StepMetrics> = object<StepMetrics>({
  step: count,
  tokens: number,
  loss: number,
  gradNorm: orNull(number),
  lossScale: optional(number),
  skipped: optional(oneOf(true)),
  lr: number,
  seconds: number,
  weights: numbers,
  domains: map(
    object<ValueOf<StepMetrics["domains"]>>({
      weight: optional(number),
      loss: orNull(number),
      tokens: number,
      epochs: number,
    }),
  ),
  alignments: optional(
    map(
      object<ValueOf<NonNullable<StepMetrics["alignments"]>>>({
        value: number,
        standardError: orNull(number),
        norm: orNull(number),
        tokens: optional(number),
        effectiveSize: optional(number),
      }),
    ),
  ),
  targetNorm: optional(number),
  targetExamples: optional(number),
  guard: optional(
    map(
      object<GuardMetrics>({
        loss: number,
        reference: number,
        standardError: orNull(number),
        multiplier: orNull(number),
      }),
    ),
  ),
  evaluation: optional(evaluation),
  evaluationSeconds: optional(number),
});

type ValueOf<M> = M extends ReadonlyMap<string, infer V> ? V : never;

const startLine = object<StartLine>({
  step: oneOf(0),
  event: oneOf("start"),
  seconds: number,
  evaluation,
  cost: costs,
});

const resumeLine = object<ResumeLine>({ step: count, event: oneOf("resumed"), changes });

const eventOf = object<{ event: StartLine["event"] | ResumeLine["event"] | null }>({
  event: orNull(oneOf("start", "resumed")),
});

/** Any line of metrics.jsonl. */
export const metricsLine: Schema<MetricsLine> = (value, at) => {
  const { event } = eventOf(value, at);
  return (event === null ? stepLine : event === "start" ? startLine : resumeLine)(value, at);
};

const textFacts = object<TextFacts>({
  files: number,
  documents: number,
  tokens: number,
  heldOutTokens: number,
  heldOutBytes: number,
  sha256: string,
});

const contamination = object<ContaminationFacts>({
  words: count,
  heldOutDocuments: count,
  comparedDocuments: count,
  foundDocuments: count,
  documents: count,
  lookedAt: count,
  dropped: boolean,
  domains: map(object<OverlapCounts>({ documents: count, copies: count, nearCopies: count })),
  examples: list(
    object<ContaminationFacts["examples"][number]>({
      domain: string,
      source: string,
      kind: oneOf("copy", "near copy", "part"),
      words: string,
    }),
  ),
});

/** Schema of run.json. */
export const runFacts: Schema<RunFacts> = object<RunFacts>({
  version: version(1, "it was written by another version of gradmix"),
  gradmix: string,
  node: string,
  backend: string,
  simd: string,
  precision: string,
  threads: number,
  rule: string,
  seed: number,
  dataSeed: number,
  steps: number,
  batch: number,
  context: number,
  parameters: number,
  vocabSize: number,
  repetitions: orNull(number),
  evaluatedTokens: orNull(number),
  cost: costs,
  domains: map(textFacts),
  selected: optional(map(number)),
  target: orNull(textFacts),
  targets: map(textFacts),
  contamination: optional(contamination),
  bases: orNull(list(string)),
});
