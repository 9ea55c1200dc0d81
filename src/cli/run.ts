/**
 * A training run from its configuration: reads the data, builds the model and the mixer, trains, evaluates, saves. What the command
 * and the demo call; files go through the run's store.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  buildCorpus,
  type Corpus,
  loadTokenizer,
  readDocuments,
  type Tokenizer,
  trainBpe,
  byteTokenizer,
} from "../data/index.ts";
import { giveTurn } from "../backends/turn.ts";
import { evaluationWindows, type Windows, windowsOf } from "../data/tokens.ts";
import { type Bases, createBases } from "../dga/bases.ts";
import { parseBases } from "../dga/bases-text.ts";
import {
  type Checkpoint,
  type NamedWeights,
  type RunChanges,
  type RunHooks,
  type RunResult,
  ruleOf,
  type StepMetrics,
  totalSteps,
  type TrainConfig,
  unusedOptions,
} from "../dga/config.ts";
import { createMixer, type Mixer } from "../dga/mixer.ts";
import { checkFit, planOf } from "../dga/plan.ts";
import { type AlignmentOptions, createTrainer, type Trainer, type WeightPair } from "../dga/trainer.ts";
import type { Backend } from "../backends/backend.ts";
import { GradmixError } from "../errors.ts";
import { init, shutdown } from "../init.ts";
import { formatJson, type Json, parseJson } from "../json.ts";
import { createGPT, type GPT, parameterCount } from "../nn/gpt.ts";
import { toHuggingFace } from "../nn/huggingface.ts";
import { checkSameText, type Content, createWitness, listInputs } from "./inputs.ts";
import { createMetrics, type Evaluation, evaluated } from "./metrics.ts";
import { readReference, referenceModel } from "./reference.ts";
import { type Engine, engineChanges, savedEngine, scheduleOf, stepChanges } from "./resume.ts";
import { listCheckpoints } from "./run-folder.ts";
import { checkStart, modelOf, readStart, savedModel, type Start } from "./start.ts";
import { readJson, reason } from "./values.ts";
import { version } from "./version.ts";

/** Text that the BPE learns from, at most, taken evenly from the domains. */
const BPE_BYTES = 8_000_000;

/** Trains as `config` says. Throws `data` and `config` before anything is written, `numeric` when the loss is lost. */
export async function runTraining(config: TrainConfig, hooks: RunHooks): Promise<RunResult> {
  const names = [...config.data.domains.keys()];
  // Everything that can be said about the options alone comes before reading gigabytes.
  const bases = readBases(config.mixing.bases, names);
  let countsTokens = false;
  const mixerOf = (sizes: Readonly<Record<string, number>>): Mixer =>
    createMixer({
      domains: bases?.names ?? names,
      rule: ruleOf(config, {
        sizes,
        get tokens() {
          countsTokens = true;
          return totalSteps(config) * config.training.batch * config.model.context;
        },
      }),
      updateEvery: config.mixing.updateEvery,
      warmup: config.mixing.ruleWarmup,
    });
  // How large the domains are is only known once they are read.
  const planned = mixerOf(
    Object.fromEntries((bases?.names ?? names).map((name) => [name, Number.MAX_SAFE_INTEGER])),
  );
  const { rule } = planned;
  if (planOf(rule.needs).aligns && config.data.target.length === 0)
    throw new GradmixError(
      "config",
      `--target: rule ${rule.name} needs one; give the text that the model should become good at`,
    );
  const earlier =
    config.mixing.reference === null ? null : await readReference(config.mixing.reference, hooks.signal);
  const alignment: AlignmentOptions = {
    estimator: config.mixing.estimator,
    from: config.mixing.alignFrom,
    domainExamples: config.mixing.alignBatch,
    targetExamples: config.mixing.targetBatch,
    bases: config.mixing.basisAlignments,
  };
  checkFit({
    mixer: planned,
    domains: names,
    target: config.data.target.length === 0 ? null : config.data.target,
    targets: { size: config.data.targets.size },
    ...(earlier === null ? {} : { reference: earlier }),
    ...(bases === null ? {} : { bases }),
    alignment,
  });
  for (const option of unusedOptions(config.mixing))
    hooks.onEvent(`mixing.${option} has no effect: rule ${config.mixing.rule} does not look at it`);
  const resumed = hooks.store.load();
  if (resumed !== null && (earlier?.fingerprint ?? null) !== (resumed.checkpoint.json["reference"] ?? null))
    throw new GradmixError(
      "checkpoint",
      `--resume: the model in ${config.mixing.reference ?? ""} is not the one that the run began with; restore it, or start a new run`,
    );
  const changes = resumed === null ? {} : stepChanges(resumed.config, config, resumed.step, countsTokens);
  const from = resumed === null ? config.model.initFrom : null;
  const start = from === null ? null : readStart(from);
  if (start !== null) checkStart(start, config);
  // Before text is read, which may take minutes.
  const then = resumed === null ? {} : savedEngine(resumed.checkpoint.json);
  const backend = await startBackend(config, then, hooks.onEvent);
  const engine: Engine = {
    backend: backend.name,
    simd: backend.capabilities.simd,
    precision: config.run.precision,
    version: version(),
  };
  try {
    const data = await readData(config, resumed?.checkpoint ?? null, start, hooks);
    const mixer = mixerOf(bases === null ? data.sizes : basisSizes(bases, data.sizes));
    const { vocabSize } = data.tokenizer;
    const saved = resumed === null ? null : savedModel(resumed.checkpoint.json);
    const model =
      start?.model() ?? createGPT(saved ?? modelOf(config, vocabSize), { seed: config.training.seed });
    if (vocabSize > model.config.vocabSize)
      throw new GradmixError(
        "config",
        `--tokenizer: it has ${vocabSize} tokens, the model of --init-from ${config.model.initFrom ?? ""} has ${model.config.vocabSize}`,
      );
    const { threads, simd } = backend.capabilities;
    const runners = backend.name === "webgpu" ? "" : `${threads} ${threads === 1 ? "thread" : "threads"}, `;
    hooks.onEvent(
      `${backend.name} backend, ${runners}${simd}; ${config.model.preset} model of ${parameterCount(model.config).toLocaleString("en")} parameters; rule ${config.mixing.rule}`,
    );
    if (start !== null) hooks.onEvent(`beginning with the parameters of ${start.path}`);
    const reference =
      earlier === null
        ? null
        : referenceModel(earlier, {
            vocabSize: model.config.vocabSize,
            context: config.model.context,
            tokenizer: data.tokenizer,
          });
    const trainer = createTrainer({
      model,
      mixer,
      domains: data.domains.map((d) => d.train),
      target: mixer.rule.needs.length > 0 ? (data.target?.train ?? null) : null,
      targets: new Map([...data.targets].map(([name, { train }]) => [name, train])),
      ...(reference === null ? {} : { reference }),
      ...(bases === null ? {} : { bases }),
      batch: config.training.batch,
      seed: config.training.seed,
      schedule: scheduleOf(config, totalSteps(config)),
      optimizer: {
        beta1: config.training.beta1,
        beta2: config.training.beta2,
        weightDecay: config.training.weightDecay,
        clip: config.training.clip,
      },
      alignment,
      lossScale: config.run.precision === "f16" ? {} : null,
    });
    if (resumed !== null) {
      trainer.restore(resumed.checkpoint);
      hooks.onEvent(`going on from step ${resumed.step}`);
    }
    hooks.store.begin();
    if (resumed !== null) tellChanges(resumed.step, { ...changes, ...engineChanges(then, engine) }, hooks);
    return await loop(config, hooks, {
      trainer,
      model,
      data,
      names,
      bases,
      reference: earlier?.fingerprint ?? null,
      engine,
      resumed: resumed?.checkpoint ?? null,
    });
  } finally {
    await shutdown();
  }
}

/** The backend that the options name. A resumed run goes on where it began and as it began, unless they say otherwise. */
async function startBackend(
  { run }: TrainConfig,
  then: Partial<Engine>,
  log: (line: string) => void,
): Promise<Backend> {
  const kept = run.backend === "auto" && (then.backend === "cpu" || then.backend === "webgpu");
  const backend = kept ? then.backend : run.backend;
  const keptSimd =
    run.simd === "auto" && then.backend === "cpu" && backend === "cpu" && isSimd(then.simd)
      ? then.simd
      : null;
  const simd = keptSimd ?? run.simd;
  try {
    return await init({
      backend,
      log,
      ...(run.threads === null ? {} : { threads: run.threads }),
      ...(simd === "auto" ? {} : { simd }),
      ...(run.precision === "f32" ? {} : { precision: run.precision }),
      ...(run.deterministic ? { deterministic: true } : {}),
      ...(run.memoryLimit === null ? {} : { memoryLimit: run.memoryLimit }),
    });
  } catch (error) {
    if (!(kept || keptSimd !== null) || !(error instanceof GradmixError) || error.code !== "backend")
      throw error;
    throw new GradmixError(
      "backend",
      `${error.message}. The run began on ${then.backend ?? ""}${keptSimd === null ? "" : ` with ${keptSimd} SIMD`} and goes on so, since others round differently; ${keptSimd === null ? "--backend" : "--simd or --backend"} names another, and the metrics say it`,
      { cause: error },
    );
  }
}

const isSimd = (level: string | undefined): level is "relaxed" | "plain" =>
  level === "relaxed" || level === "plain";

/** One line for the user and one for metrics.jsonl. */
function tellChanges(step: number, changes: RunChanges, hooks: RunHooks): void {
  const all = Object.entries(changes);
  if (all.length === 0) return;
  hooks.onEvent(
    `from here on otherwise than before: ${all.map(([name, { from, to }]) => `${name} ${to} (was ${from})`).join(", ")}`,
  );
  hooks.onResume({ step, event: "resumed", changes });
}

/** What a run is made of once it is set up. */
interface Parts {
  readonly trainer: Trainer;
  readonly model: GPT;
  readonly data: Data;
  readonly names: readonly string[];
  readonly bases: Bases | null;
  /** The reference model's fingerprint. */
  readonly reference: string | null;
  readonly engine: Engine;
  /** What the run goes on from. */
  readonly resumed: Checkpoint | null;
}

async function loop(
  config: TrainConfig,
  hooks: RunHooks,
  { trainer, model, data, names, bases, reference, engine, resumed }: Parts,
): Promise<RunResult> {
  const steps = totalSteps(config);
  const { evalEvery, evalTokens, checkpointEvery } = config.run;
  const { signal } = hooks;
  const metricsOf = createMetrics(names, bases, trainer.seen);
  let last: StepMetrics | null = null;
  /** The last step's line, as long as its evaluation is still to come. */
  let unevaluated = unevaluatedOf(resumed);
  /** The step of the newest checkpoint. */
  let saved = resumed === null ? null : trainer.steps;
  let saving = false;
  const save = async (): Promise<void> => {
    if (trainer.steps === saved) return;
    saving = true;
    const state = await trainer.save();
    hooks.store.saveCheckpoint(
      trainer.steps,
      {
        json: {
          ...state.json,
          tokenizer: data.tokenizer.toJSON(),
          corpus: data.contents,
          engine,
          model: model.config,
          ...(reference === null ? {} : { reference }),
          ...(unevaluated === null ? {} : { unevaluated: formatJson(unevaluated) }),
        },
        arrays: state.arrays,
      },
      // A line without its evaluation is written anew.
      unevaluated === null ? trainer.steps : trainer.steps - 1,
    );
    saved = trainer.steps;
    saving = false;
  };
  const tell = (metrics: StepMetrics): void => {
    last = metrics;
    hooks.onStep(metrics);
  };
  /** Evaluates the last step and tells of it. Cut short by the signal, it tells what is known; the evaluation is made up for when the run goes on. */
  const finishStep = async (step: StepMetrics): Promise<void> => {
    unevaluated = step;
    const start = performance.now();
    try {
      const evaluation = await evaluate(trainer, data, names, evalTokens, signal);
      unevaluated = null;
      tell({ ...step, seconds: step.seconds + (performance.now() - start) / 1000, evaluation });
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
      tell(step);
    }
  };
  try {
    if (unevaluated !== null) await finishStep(unevaluated);
    while (trainer.steps < steps && !signal.aborted) {
      const start = performance.now();
      const step = await trainer.step();
      const metrics = metricsOf(step, null, (performance.now() - start) / 1000);
      if ((evalEvery > 0 && step.step % evalEvery === 0) || step.step === steps) await finishStep(metrics);
      else tell(metrics);
      if (checkpointEvery > 0 && step.step % checkpointEvery === 0) await save();
      // Lets signals and timers have their turn: kernels on the CPU never wait.
      await new Promise((next) => setImmediate(next));
    }
    await save();
    return await finish();
  } catch (error) {
    // Where a file other than the checkpoint found no room, the checkpoint may.
    if (error instanceof GradmixError && error.code === "io" && !saving)
      await save().catch(() => {
        // The first error is the one to tell.
      });
    throw withCheckpoint(error, trainer.steps, saved, config);
  }

  /** What the run leaves: the weights, and the model when it is done. */
  async function finish(): Promise<RunResult> {
    const interrupted = trainer.steps < steps || unevaluated !== null;
    const evaluation =
      last?.evaluation ?? (interrupted ? null : await evaluate(trainer, data, names, evalTokens, signal));
    const weights = trainer.weights();
    const named = (of: readonly string[], { final, averaged }: WeightPair): NamedWeights => ({
      final: new Map(of.map((name, i) => [name, final[i]])),
      averaged: new Map(of.map((name, i) => [name, averaged[i]])),
    });
    const result: RunResult = {
      step: trainer.steps,
      tokens: trainer.tokens,
      loss: trainer.loss ?? NaN,
      targetLoss: evaluation?.target ?? null,
      weights: {
        ...named(names, weights.domains),
        ...(bases === null ? {} : { bases: named(bases.names, weights) }),
      },
      interrupted,
    };
    hooks.store.saveFile("weights.json", `${formatJson(result.weights, 2)}\n`);
    if (!interrupted) {
      const files = await toHuggingFace(model, {
        tokenizer: data.tokenizer.toJSON(),
        endOfText: data.tokenizer.endOfText,
      });
      for (const [name, contents] of files) hooks.store.saveFile(`model/${name}`, contents);
    }
    return result;
  }
}

/** The line of a checkpoint's step, when the run was stopped while it evaluated. */
function unevaluatedOf(resumed: Checkpoint | null): StepMetrics | null {
  // The checkpoint's checksum says that it is what was written.
  const text = resumed?.json["unevaluated"];
  if (typeof text !== "string") return null;
  const line = parseJson(text, { source: "the last step", code: "checkpoint" });
  return line instanceof Map
    ? (Object.fromEntries(line as ReadonlyMap<string, Json>) as unknown as StepMetrics)
    : null;
}

/** What is left of a run whose loss, device, memory or disk was lost: the last checkpoint, and how to go on from it. */
function withCheckpoint(error: unknown, steps: number, saved: number | null, config: TrainConfig): unknown {
  if (!(error instanceof GradmixError)) return error;
  const { code, message } = error;
  const ends = `${message}. The run ends after step ${steps}`;
  const told = (rest: string): GradmixError => new GradmixError(code, `${ends}; ${rest}`, { cause: error });
  if (code === "numeric") {
    // Parameters that gave no loss once will not give one again.
    const good = listCheckpoints(config.run.out).findLast(({ step }) => step < steps) ?? null;
    const from = good === null ? "" : ` from the checkpoint of step ${good.step}`;
    return told(`to begin again${from} with a lower learning rate: ${lowerRate(config, good?.path ?? null)}`);
  }
  if (!["backend", "memory", "io"].includes(code)) return error;
  if (saved === null) return told("there was no checkpoint yet (--checkpoint-every)");
  return told(
    `the checkpoint of step ${saved} is kept, gradmix train --resume ${shellWord(config.run.out)} goes on from it`,
  );
}

/** The command of a run like this one with a tenth of its learning rate. */
function lowerRate({ run, training }: TrainConfig, checkpoint: string | null): string {
  let out = run.out;
  for (let n = 2; existsSync(out); n++) out = `${run.out.replace(/\/+$/, "")}-${n}`;
  const from = checkpoint === null ? [] : ["--init-from", checkpoint];
  const lr = String(Number((training.lr / 10).toPrecision(3)));
  const words = ["gradmix", "train", join(run.out, "config.json"), ...from, "--lr", lr, "--out", out];
  return words.map(shellWord).join(" ");
}

const shellWord = (word: string): string =>
  /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

async function evaluate(
  trainer: Trainer,
  data: Data,
  names: readonly string[],
  tokens: number,
  signal: AbortSignal,
): Promise<Evaluation> {
  const domains = new Map<string, number>();
  for (const i of evaluated(names.length)) {
    const { heldOut } = data.domains[i];
    if (heldOut !== null) domains.set(names[i], await trainer.evaluate(heldOut, tokens, signal));
  }
  const held = data.target?.heldOut ?? null;
  return { target: held === null ? null : await trainer.evaluate(held, tokens, signal), domains };
}

interface Split {
  readonly train: Windows;
  readonly heldOut: Windows | null;
}

interface Data {
  readonly tokenizer: Tokenizer;
  readonly domains: readonly Split[];
  readonly target: Split | null;
  readonly targets: ReadonlyMap<string, Split>;
  /** Training tokens of each domain. */
  readonly sizes: Readonly<Record<string, number>>;
  /** What a resumed run must find again. */
  readonly contents: readonly Content[];
}

async function readData(
  config: TrainConfig,
  resumed: Checkpoint | null,
  start: Start | null,
  hooks: RunHooks,
): Promise<Data> {
  const { data, model, training } = config;
  const names = [...data.domains.keys()];
  const files = await listInputs(config, hooks.onEvent);
  hooks.signal.throwIfAborted();

  const skipped = { lines: 0 };
  const documents = (list: readonly string[]) =>
    inTurns(
      readDocuments(list, {
        textField: data.textField,
        skipBadLines: data.skipBadLines,
        onSkip: () => skipped.lines++,
      }),
      hooks.signal,
    );
  const tokenizer = await chooseTokenizer(
    config,
    resumed,
    start,
    [...files.domains.values()],
    documents,
    hooks,
  );
  // Learning a tokenizer reads text that is read again below; its bad lines count once.
  skipped.lines = 0;

  const witness = createWitness();
  const tokens = new Map<string, number>();
  const read = async (what: string, label: string, list: readonly string[]): Promise<Corpus> => {
    const corpus = await buildCorpus(what, witness.watch(label, list, documents), tokenizer, {
      heldOut: data.heldOut,
      seed: training.seed,
    });
    if (corpus.note !== null) hooks.onEvent(corpus.note);
    tokens.set(label, corpus.train.tokens.length);
    return corpus;
  };
  const split = (corpus: Corpus): Split => ({
    train: windowsOf(corpus.name, corpus.train, model.context),
    heldOut: corpus.heldOut === null ? null : evaluationWindows(corpus.name, corpus.heldOut, model.context),
  });
  const domains: Split[] = [];
  for (const [name, list] of files.domains) domains.push(split(await read(name, `domain "${name}"`, list)));
  let target = files.target.length === 0 ? null : split(await read("target", "target", files.target));
  const targets = new Map<string, Split>();
  for (const [name, list] of files.targets)
    targets.set(name, split(await read(`target ${name}`, `target "${name}"`, list)));
  target ??= targets.values().next().value ?? null;
  const contents = witness.contents(tokens);
  const unchecked = resumed === null ? null : checkSameText(resumed.json["corpus"], contents);
  for (const line of [...witness.copies(), ...(unchecked === null ? [] : [unchecked])]) hooks.onEvent(line);
  if (skipped.lines > 0)
    hooks.onEvent(`skipped ${skipped.lines} bad ${skipped.lines === 1 ? "line" : "lines"}`);
  const counts = domains.map(({ train }) => train.stream.tokens.length);
  hooks.onEvent(`training tokens: ${tokensLine(names, counts, contents)}`);
  const sizes = Object.fromEntries(names.map((name, i) => [name, counts[i]]));
  return { tokenizer, domains, target, targets, sizes, contents };
}

/** The same items, with a turn for the event loop now and then; ends with the reason of `signal` once that is aborted. */
async function* inTurns<T>(items: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  for await (const item of items) {
    await giveTurn();
    signal.throwIfAborted();
    yield item;
  }
}

/** Tokens of every domain, or of the largest of many, and of the targets. */
function tokensLine(
  names: readonly string[],
  counts: readonly number[],
  contents: readonly Content[],
): string {
  const order = [...names.keys()];
  const shown = names.length <= 12 ? order : order.sort((i, j) => counts[j] - counts[i]).slice(0, 8);
  const rest = names.length - shown.length;
  const n = (count: number): string => count.toLocaleString("en");
  const targets = contents.filter(({ label }) => label.startsWith("target"));
  return `${shown.map((i) => `${names[i]} ${n(counts[i])}`).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}${targets.map(({ label, tokens }) => `; ${label} ${n(tokens)}`).join("")}`;
}

/** The bases of a file, or those given. Throws `config` for a file that cannot be read, `data` with the line for what is wrong in it. */
function readBases(path: TrainConfig["mixing"]["bases"], domains: readonly string[]): Bases | null {
  if (path === null) return null;
  if (typeof path === "object") return inlineBases(path, domains);
  const format = /\.(json|csv)$/i.exec(path)?.[1]?.toLowerCase();
  if (format !== "json" && format !== "csv")
    throw new GradmixError("config", `--bases: ${path} ends in neither .json nor .csv`);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new GradmixError("config", `--bases: ${path} cannot be read (${reason(error)})`, { cause: error });
  }
  return parseBases(text, domains, { format, source: path });
}

function inlineBases(
  given: Exclude<TrainConfig["mixing"]["bases"], string | null>,
  domains: readonly string[],
): Bases {
  try {
    return createBases(given, domains);
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    throw new GradmixError(error.code, `mixing.bases: ${error.message}`, { cause: error });
  }
}

/** What a basis offers: the tokens of the domains that it draws from. */
function basisSizes(bases: Bases, sizes: Readonly<Record<string, number>>): Record<string, number> {
  const { names, domains, offsets, columns } = bases;
  return Object.fromEntries(
    names.map((name, j) => {
      let size = 0;
      for (let e = offsets[j]; e < offsets[j + 1]; e++) size += sizes[domains[columns[e]]];
      return [name, size];
    }),
  );
}

async function chooseTokenizer(
  config: TrainConfig,
  resumed: Checkpoint | null,
  start: Start | null,
  files: readonly (readonly string[])[],
  documents: (list: readonly string[]) => AsyncIterable<{ readonly text: string }>,
  hooks: RunHooks,
): Promise<Tokenizer> {
  if (resumed !== null) return loadTokenizer(resumed.json["tokenizer"]);
  if (start !== null && start.tokenizer !== null) return start.tokenizer;
  const { tokenizer, vocabSize } = config.data;
  if (tokenizer === "byte") return byteTokenizer();
  if (tokenizer !== "bpe") return loadTokenizer(readJson(tokenizer, `--tokenizer ${tokenizer}`));
  const share = BPE_BYTES / files.length;
  async function* sample(): AsyncGenerator<string> {
    for (const list of files) {
      let left = share;
      for await (const { text } of documents(list)) {
        if (left <= 0) break;
        yield text.length > left ? text.slice(0, left) : text;
        left -= text.length;
      }
    }
  }
  const began = performance.now();
  const trained = await trainBpe(sample(), { vocabSize, signal: hooks.signal });
  hooks.onEvent(
    `trained a tokenizer of ${trained.vocabSize} tokens in ${((performance.now() - began) / 1000).toFixed(1)} s`,
  );
  return trained;
}
