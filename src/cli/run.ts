/**
 * A training run from its configuration: plans it, reads the data, builds the model and the mixer, and trains. The command and the demo call it; all
 * files are written by the store of the run.
 */
import type { Backend } from "../backends/backend.ts";
import type { Checkpoint } from "../dga/checkpoint.ts";
import type { Mixer } from "../dga/mixer.ts";
import { fingerprint } from "../dga/bases.ts";
import { createTrainer, type Trainer } from "../dga/trainer.ts";
import { GradmixError } from "../errors.ts";
import { shutdown } from "../init.ts";
import { formatJson } from "../json.ts";
import { createGPT, type GPT, parameterCount } from "../nn/gpt.ts";
import { adamw } from "../nn/optimizer.ts";
import type { RunFacts } from "../runs/facts.ts";
import { checkDomains } from "./config-checks.ts";
import { costOf, formatCost, type RunCost } from "./cost.ts";
import { type Engine, engineChanges, savedEngine, startBackend } from "./engine.ts";
import {
  type EvaluationPlan,
  type HeldOut,
  heldOutOf,
  planAsRead,
  planEvaluations,
  tokensRead,
} from "./evaluations.ts";
import { type GuardedSets, guardedSets, type GuardPlan, otherSplit, planGuard } from "./guarding.ts";
import { histogramLine, histogramOf } from "./histogram.ts";
import { listInputs } from "./inputs.ts";
import { type Parts, trainLoop } from "./loop.ts";
import type { MixingPlan } from "./mixing.ts";
import { dataPlanOf, planRun, type RunPlan } from "./plan.ts";
import { type Data, readData } from "./read-data.ts";
import { readReference, type Reference, referenceModel } from "./reference.ts";
import type { RunHooks, RunResult } from "./run-events.ts";
import { savedNumbers } from "./saved-numbers.ts";
import { sampledText, type SampledText, selectionLine, startWeights } from "./selecting.ts";
import type { RunChanges } from "../runs/lines.ts";
import {
  checkSameTokenizer,
  checkStart,
  modelOf,
  readStart,
  savedModel,
  savedTokenizer,
  type Start,
} from "./start.ts";
import { contentsToSave } from "./text-witness.ts";
import type { TrainConfig } from "./train-config.ts";
import { unusedTargets } from "./prepared-options.ts";
import { unusedTeller } from "./unused-options.ts";
import { checkRepetitions, planTraining, stepChanges, type TrainingPlan, unreachedRate } from "./training.ts";

/**
 * Trains as `config` describes. `read` reads the text; a caller that already has the data can pass its own. Throws `data` and `config` before
 * anything is written, and `numeric` if the loss becomes invalid.
 */
export async function runTraining(
  config: TrainConfig,
  hooks: RunHooks,
  read: typeof readData = readData,
): Promise<RunResult> {
  // Options about domains are checked before files are searched for, unless the files determine the domains.
  const found = config.data.domainsFrom.length === 0 ? null : await listInputs(dataPlanOf(config), hooks);
  const names = [...(found ?? config.data).domains.keys()];
  if (found !== null) checkDomains(config.mixing, names);
  const plan = planRun(config, names);
  const reference = await readReferenceOf(plan.mixing, hooks.signal);
  const tellUnused = unusedTeller(config, hooks.onEvent);
  tellUnused();
  for (const line of plan.mixing.unused) hooks.onEvent(line);
  const unreached = unreachedRate(config);
  if (unreached !== null) hooks.onEvent(unreached);
  const targets = unusedTargets(config);
  if (targets !== null) hooks.onEvent(targets);
  const earlier = earlierPart(plan, reference, hooks);
  const { saved, resumed } = earlier;
  const { initFrom } = plan.model;
  const start = resumed === null && initFrom !== null ? readStart(initFrom) : null;
  if (start !== null) checkStart(start, plan.data, plan.model);
  // The backend starts before the text is read, which may take minutes.
  const then = resumed === null ? {} : savedEngine(resumed.json);
  const { backend, engine } = await startBackend(plan.engine, then, hooks.onEvent);
  tellUnused({ backend: engine.backend });
  try {
    const tokenizer = resumed === null ? (start?.tokenizer ?? null) : savedTokenizer(resumed.json);
    if (resumed !== null) checkSameTokenizer(plan.data, tokenizer);
    const known = {
      tokenizer,
      corpus: resumed?.json["corpus"],
    };
    const data = await read(plan.data, known, hooks, found);
    tellUnused({ backend: engine.backend, readsTokens: data.readsTokens });
    const model = makeModel(plan, data, start, resumed);
    tellSetUp(plan, backend, model, start, hooks);
    const mixing = await startMixing(plan, data, found?.mixed ?? null, earlier, hooks);
    const heldOut = heldOutOf(data, plan.mixing.names);
    const guarded = guardedOf(plan, data, mixing.mixer, hooks);
    const planned = planCost(plan, mixing.mixer, heldOut, guarded?.plan ?? null, model);
    const built: Built = {
      plan,
      backend,
      engine,
      data,
      model,
      reference,
      heldOut,
      guarded,
      ...mixing,
      ...planned,
    };
    const trainer = makeTrainer(built);
    checkKeepBest(built);
    hooks.onEvent(formatCost(planned.cost, planned.evaluations, mixing.mixer.rule.needs, guarded?.plan));
    if (saved !== null) {
      trainer.restore(saved.checkpoint);
      hooks.onEvent(`continuing from step ${saved.step}`);
    }
    hooks.store.begin();
    hooks.store.saveFile("run.json", `${formatJson(factsOf(built), 2)}\n`);
    if (mixing.histogram !== null)
      hooks.store.saveFile("histogram.json", `${formatJson(mixing.histogram, 2)}\n`);
    if (saved !== null)
      tellChanges(saved.step, { ...earlier.changes, ...engineChanges(then, engine) }, hooks);
    return await trainLoop(plan.cycle, hooks, partsOf(built, trainer, resumed));
  } finally {
    await shutdown();
  }
}

/** What a run consists of once its text has been read, before its trainer is made. */
interface Built extends Mixing, PlannedCost {
  readonly plan: RunPlan;
  readonly backend: Backend;
  readonly engine: Engine;
  readonly data: Data;
  readonly model: GPT;
  readonly reference: Reference | null;
  readonly heldOut: HeldOut;
  readonly guarded: Guarded | null;
}

/** What the loop needs of a run. */
function partsOf(
  { plan: { mixing }, engine, data, model, reference, heldOut, evaluations, cost, histogram, sampled }: Built,
  trainer: Trainer,
  resumed: Checkpoint | null,
): Parts {
  return {
    ...{ trainer, model, data, heldOut, evaluations, cost, resumed },
    guard: mixing.guard,
    watchedFrom: mixing.watchedFrom,
    names: mixing.names,
    bases: mixing.bases,
    countedHistogram: histogram !== null,
    kept: {
      tokenizer: data.tokenizer?.toJSON() ?? null,
      corpus: contentsToSave(data.contents),
      engine,
      model: model.config,
      ...(reference === null ? {} : { reference: reference.fingerprint }),
      ...(histogram === null ? {} : { histogram: [...histogram.values()] }),
      ...(sampled.selected === null ? {} : { selected: [...sampled.selected.values()] }),
    },
  };
}

function checkKeepBest({ plan, heldOut }: Built): void {
  if (plan.cycle.keepBest && heldOut.target === null)
    throw new GradmixError(
      "data",
      "--keep-best: the target has no held-out text, which is needed to find the best step; give it more documents, or raise --held-out",
    );
}

/** The part of a run that is done already. */
interface EarlierPart {
  /** What the store has of it; null for a new run. */
  readonly saved: ReturnType<RunHooks["store"]["load"]>;
  readonly resumed: Checkpoint | null;
  /** How the whole run was planned then. */
  readonly training: TrainingPlan;
  readonly changes: RunChanges;
}

/** Reads what the store has of the run. Throws `checkpoint` if the run cannot continue as planned. */
function earlierPart(plan: RunPlan, reference: Reference | null, { store }: RunHooks): EarlierPart {
  const saved = store.load();
  const resumed = saved?.checkpoint ?? null;
  checkReference(plan.mixing, reference, resumed);
  checkBases(plan.mixing, resumed);
  const training = saved === null ? plan.training : planTraining(saved.config);
  const changes = stepChanges(training, plan.training, saved?.step ?? 0, plan.mixing.countsTokens);
  return { saved, resumed, training, changes };
}

/** What the weights of a run start from and apply to. */
interface Mixing {
  /** The counted histogram of the target; null if none was counted. */
  readonly histogram: ReadonlyMap<string, number> | null;
  readonly sampled: SampledText;
  readonly mixer: Mixer;
}

/** Counts the histogram, selects the text and makes the mixer, and tells the user about each. A resumed run has the same as before. */
async function startMixing(
  { mixing, training }: RunPlan,
  data: Data,
  mixed: Parameters<typeof histogramOf>[2],
  { resumed, training: before, changes }: EarlierPart,
  hooks: RunHooks,
): Promise<Mixing> {
  const histogram = mixing.wantsHistogram
    ? (savedNumbers(resumed?.json, "histogram", mixing.names) ??
      (await histogramOf(data, mixing.names, mixed, hooks)))
    : null;
  if (histogram !== null) hooks.onEvent(histogramLine(histogram));
  const { tokens } = training;
  const sampled = await sampledText({ mixing, tokens, histogram }, data, resumed?.json ?? null, hooks);
  const { sizes, selected, whole } = sampled;
  if (mixing.selectionGiven && whole !== null) hooks.onEvent(`mixing.select has no effect: ${whole}`);
  checkRepetitions(before, training, mixing.limitedOtherwise(before.tokens, sizes));
  const mixer = mixing.mixerOf({ sizes, histogram });
  if (selected !== null) hooks.onEvent(selectionLine(selected, startWeights(mixer, mixing.bases)));
  if (selected !== null && changes.steps !== undefined)
    hooks.onEvent(
      `these are the windows that were selected for ${changes.steps.from} steps; a new run of ${changes.steps.to} steps might select more`,
    );
  const repeated = mixing.repeatsAnyway(sizes);
  if (repeated !== null)
    hooks.onEvent(
      `too little text: the run reads all of it ${Number(repeated.toPrecision(3))} times, more often than the limit of ${mixing.repetitions(sizes)}, so the weights follow the sizes of the domains; use more text or fewer steps, so that the rule can choose`,
    );
  return { histogram, sampled, mixer };
}

async function readReferenceOf({ reference }: MixingPlan, signal: AbortSignal): Promise<Reference | null> {
  return reference === null ? null : readReference(reference, signal);
}

/** Throws `checkpoint` unless a resumed run has the reference with which it began. */
function checkReference(
  { reference: folder }: MixingPlan,
  reference: Reference | null,
  resumed: Checkpoint | null,
): void {
  if (resumed !== null && (reference?.fingerprint ?? null) !== (resumed.json["reference"] ?? null))
    throw new GradmixError(
      "checkpoint",
      `--resume: the model in ${folder ?? ""} is not the one that the run began with; restore it, or start a new run`,
    );
}

/** Throws `checkpoint` unless a resumed run has the bases with which it began: their file may have changed. */
function checkBases({ bases, basesFile }: MixingPlan, resumed: Checkpoint | null): void {
  if (resumed === null || bases === null || resumed.json["bases"] === fingerprint(bases)) return;
  throw new GradmixError(
    "checkpoint",
    `--resume: the bases${basesFile === null ? "" : ` in ${basesFile}`} are not those with which the run began; restore them, or start a new run from the checkpoint with --init-from`,
  );
}

/** Makes the initial model of the run. Throws `config` if the tokenizer has more tokens than the model. */
function makeModel(plan: RunPlan, data: Data, start: Start | null, resumed: Checkpoint | null): GPT {
  const { vocabSize } = data.vocabulary;
  const saved = resumed === null ? null : savedModel(resumed.json);
  const model =
    start?.model() ?? createGPT(saved ?? modelOf(plan.model, vocabSize), { seed: plan.model.seed });
  if (vocabSize > model.config.vocabSize)
    throw new GradmixError(
      "config",
      `--tokenizer: it has ${vocabSize} tokens, but the model of --init-from ${plan.model.initFrom ?? ""} has ${model.config.vocabSize}`,
    );
  return model;
}

interface Guarded {
  readonly sets: GuardedSets;
  readonly plan: GuardPlan;
}

/** The held-out sets of guards and the plan of their evaluations; null without guards. */
function guardedOf(
  { mixing, training: { steps, batch }, data: { context } }: RunPlan,
  data: Data,
  mixer: Mixer,
  { onEvent }: RunHooks,
): Guarded | null {
  if (mixing.guard === null) return null;
  const sets = guardedSets(mixing.guard, mixing.names, data.domains, onEvent);
  const note = mixing.reference === null ? null : otherSplit(mixing.reference, sets, data.facts.domains);
  if (note !== null) onEvent(note);
  const guarded = sets.filter((set) => set !== null);
  const counts = guarded.map(({ count }) => count);
  const plan = planGuard(mixing.guard.share, counts, mixer, { steps, batch, context });
  return { sets, plan: { ...plan, tokens: tokensRead(plan.tokens, context, guarded) } };
}

/** What a run evaluates, and what its measurements cost. */
interface PlannedCost {
  readonly evaluations: EvaluationPlan;
  readonly cost: RunCost;
}

/** Plans when the run is evaluated, and what the evaluations and the rule will cost. */
function planCost(
  { training: { steps, batch }, data: { context, targets }, mixing: { alignment, bases }, cycle }: RunPlan,
  mixer: Mixer,
  heldOut: HeldOut,
  guard: GuardPlan | null,
  { parameters: { specs } }: GPT,
): PlannedCost {
  const planned = planEvaluations(cycle.evaluation, {
    steps,
    batch,
    context,
    target: heldOut.target?.count ?? null,
    domains: Array.from(heldOut.domains.values(), ({ count }) => count),
  });
  const evaluations = planAsRead(planned, heldOut);
  const cost = costOf(
    { mixer, alignment, bases, specs, targets: targets.size, steps, batch, time: context },
    evaluations,
    guard,
  );
  return { evaluations, cost };
}

function makeTrainer({ plan, data, sampled, model, mixer, reference, guarded }: Built): Trainer {
  const { mixing, training } = plan;
  const { vocabSize } = model.config;
  const { tokenizer } = data;
  const { context } = plan.data;
  return createTrainer({
    model,
    mixer,
    domains: sampled.domains,
    target: mixing.measures ? (data.target?.train ?? null) : null,
    targets: new Map([...data.targets].map(([name, { train }]) => [name, train])),
    ...(reference === null || tokenizer === null
      ? {}
      : { reference: referenceModel(reference, { vocabSize, context, tokenizer }) }),
    ...(mixing.bases === null ? {} : { bases: mixing.bases }),
    ...(guarded === null
      ? {}
      : { heldOut: { sets: guarded.sets, tokens: guarded.plan.tokens, every: guarded.plan.every } }),
    alignment: mixing.alignment,
    batch: training.batch,
    seed: training.seed,
    schedule: training.schedule,
    optimizer: (parameters) => adamw(parameters, training.optimizer),
    lossScale: training.lossScale,
  });
}

/** Prints the backend, the model and the rule. */
function tellSetUp(plan: RunPlan, backend: Backend, model: GPT, start: Start | null, hooks: RunHooks): void {
  const { threads, simd, vectorBits } = backend.capabilities;
  const runners = backend.name === "webgpu" ? "" : `${threads} ${threads === 1 ? "thread" : "threads"}, `;
  const width = vectorBits === undefined ? "" : `, ${vectorBits}-bit vectors`;
  hooks.onEvent(
    `${backend.name} backend, ${runners}${simd}${width}; ${plan.model.preset} model of ${parameterCount(model.config).toLocaleString("en")} parameters; rule ${plan.mixing.ruleName}`,
  );
  if (start === null) return;
  hooks.onEvent(`starting from the parameters of ${start.source}`);
  if (start.tied)
    hooks.onEvent(
      `the head of ${start.path} is tied to the embedding (tie_word_embeddings), which gradmix does not train: the run has a head of its own, which starts as a copy of the embedding`,
    );
}

/** The facts for run.json. */
function factsOf({ plan, data, sampled, backend, engine, model, evaluations, cost }: Built): RunFacts {
  const { mixing, training } = plan;
  const { sizes, selected } = sampled;
  const { target } = evaluations;
  const { alignment, guard, evaluation } = cost;
  return {
    version: 1,
    gradmix: engine.version,
    node: process.version,
    backend: engine.backend,
    simd: engine.simd,
    precision: engine.precision,
    threads: backend.capabilities.threads,
    rule: mixing.ruleName,
    seed: training.seed,
    dataSeed: plan.data.seed,
    steps: training.steps,
    batch: training.batch,
    context: plan.data.context,
    parameters: parameterCount(model.config),
    vocabSize: model.config.vocabSize,
    // A limit that the run cannot keep is not recorded.
    repetitions: mixing.repeatsAnyway(sizes) === null ? mixing.repetitions(sizes) : null,
    evaluatedTokens: target === null ? null : target.tokens,
    cost: { alignment, ...(mixing.guard === null ? {} : { guard }), evaluation },
    ...data.facts,
    ...(selected === null ? {} : { selected }),
    bases: mixing.bases?.names ?? null,
  };
}

/** Reports the changes to the user and to metrics.jsonl. */
function tellChanges(step: number, changes: RunChanges, hooks: RunHooks): void {
  const all = Object.entries(changes);
  if (all.length === 0) return;
  hooks.onEvent(
    `changed from here on: ${all.map(([name, { from, to }]) => `${name} ${to} (was ${from})`).join(", ")}`,
  );
  hooks.onResume({ step, event: "resumed", changes });
}
