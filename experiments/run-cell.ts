/** Runs a cell. */
import { GradmixError } from "gradmix";
import { evaluationWindows, selectWindows, type TokenStream, type Windows, windowsOf } from "gradmix/data";
import {
  type Bases,
  combine,
  type CombinatorOptions,
  createBases,
  createMixer,
  createRule,
  createTrainer,
  type HeldOutOptions,
  type Mixer,
  type RuleOptions,
  type Trainer,
  usualRepetitions,
} from "gradmix/dga";
import { createGPT, createSchedule, type GPT } from "gradmix/nn";
import { type Cell, guarding, type Result } from "./cell.ts";
import { type Domains, domainsOf, splitNamed, targetNamed } from "./domains.ts";
import { accuracyOf, questionsOf } from "./questions.ts";
import { mean } from "#dist/runs/statistics.js";
import { drawnWindows, firstTokens, type Text } from "./text.ts";

/** Tokens of an evaluation: on the target for a point of the curve and at the end, on each domain, and on a probed target. */
const evaluated = { curve: 4096, end: 16384, domain: 1024, probe: 8192 };
const POINTS = 8;
/** With more domains than the first number, only the last weights are kept; with more than the second, none. */
const FEW = [8, 32] as const;

/** The parts that both trainings of a cell use. */
interface Parts {
  readonly cell: Cell;
  readonly text: Text;
  readonly domains: Domains;
  /** Training text of the target. */
  readonly target: TokenStream | null;
  readonly model: GPT;
}

/** Runs a cell on the backend that `init` chose. */
export async function runCell(cell: Cell, text: Text): Promise<Result> {
  const target = targetOf(cell, text);
  const whole = await domainsOf(cell, text, target);
  const domains = cell.method.select === true ? selectedOf(cell, text, whole, target) : whole;
  const model = createGPT({ vocabSize: text.vocabulary, ...cell.model }, { seed: cell.seed });
  const parts: Parts = { cell, text, domains, target, model };
  try {
    const before =
      cell.before === undefined ? null : await trainBefore({ ...parts, domains: whole }, cell.before);
    const trainer = trainerOf(parts, mixerOf(parts), cell.steps);
    try {
      const trained = await train(parts, trainer);
      return {
        domains: domains.names.length,
        loss: await targetLoss(parts, trainer, evaluated.end),
        ...trained,
        epochs: round(Math.max(...domains.names.map((_, i) => trainer.seen(i).epochs))),
        outside: await outsideLoss(parts, trainer),
        before,
        accuracy: await accuracies(parts),
        probes: await probe(parts, trainer),
        tokens: trainer.tokens,
      };
    } finally {
      trainer.dispose();
    }
  } finally {
    model.dispose();
  }
}

/** Returns the domains with only the windows that the command would select by default; clusters of windows stay as they are. */
function selectedOf(cell: Cell, text: Text, domains: Domains, target: TokenStream | null): Domains {
  const { steps, batch, model } = cell;
  const sets = domains.sets.filter((set): set is Windows => "stream" in set);
  if (target === null || sets.length < domains.sets.length) return domains;
  const { domains: selected, sizes } = selectWindows(windowsOf("target", target, model.context), sets, {
    weights: usesHistogram(cell.method)
      ? domains.histogram(resembledBy(cell, text) ?? target)
      : sets.map(() => 1),
    tokens: steps * batch * model.context,
  });
  return { ...domains, sets: selected, sizes: [...sizes] };
}

/** Whether the first weights of a method are the histogram of its target. */
function usesHistogram({ rule }: Cell["method"]): boolean {
  return Object.values(rule).includes("histogram");
}

/** Returns the training text of the target; null if the cell has no target. */
function targetOf(
  { text: { target, targetTokens, targetDrawn }, model, seed }: Cell,
  text: Text,
): TokenStream | null {
  if (target === null) return null;
  const { train } = targetNamed(text, target);
  if (targetDrawn === undefined || targetTokens === null) return firstTokens(train, targetTokens);
  return drawnWindows(train, { most: targetTokens, time: model.context, seed });
}

/** Trains for some steps with uniform weights, and returns the losses after them. */
async function trainBefore(parts: Parts, steps: number): Promise<Result["before"]> {
  const mixer = createMixer({ domains: parts.domains.names, rule: { name: "uniform" } });
  const trainer = trainerOf(parts, { mixer, bases: undefined }, steps);
  try {
    for (let step = 0; step < steps; step++) await trainer.step();
    return {
      loss: await targetLoss(parts, trainer, evaluated.end),
      outside: await outsideLoss(parts, trainer),
    };
  } finally {
    trainer.dispose();
  }
}

/** Trains for all steps, and returns the loss and the weights at some of them. */
async function train(
  parts: Parts,
  trainer: Trainer,
): Promise<Pick<Result, "curve" | "weights" | "cpuSeconds">> {
  const { steps } = parts.cell;
  const curve: { step: number; loss: number }[] = [];
  const weights = [{ step: 0, weights: rounded(trainer.weights().domains.final) }];
  const every = Math.ceil(steps / POINTS);
  let microseconds = 0;
  for (let step = 1; step <= steps; step++) {
    const start = process.cpuUsage();
    await trainer.step();
    const { user, system } = process.cpuUsage(start);
    microseconds += user + system;
    if (step % every !== 0 && step !== steps) continue;
    weights.push({ step, weights: rounded(trainer.weights().domains.final) });
    const loss = await targetLoss(parts, trainer, evaluated.curve);
    if (loss !== null) curve.push({ step, loss });
  }
  const { length } = parts.domains.names;
  const kept = length <= FEW[0] ? weights : length <= FEW[1] ? weights.slice(-1) : null;
  return { curve, weights: kept, cpuSeconds: round(microseconds / 1e6) };
}

interface Mixing {
  readonly mixer: Mixer;
  readonly bases: Bases | undefined;
}

function trainerOf(
  { cell, text, domains, target, model }: Parts,
  { mixer, bases }: Mixing,
  steps: number,
): Trainer {
  const { batch, lr, seed, method } = cell;
  const windows = target === null ? null : windowsOf("target", target, cell.model.context);
  return createTrainer({
    ...{ model, mixer, batch, seed },
    domains: domains.sets,
    target: windows,
    schedule: createSchedule({ name: "cosine", lr, steps, warmup: cell.warmup }),
    ...(windows === null ? {} : { targets: new Map([["target", windows]]) }),
    ...(method.alignment === undefined ? {} : { alignment: method.alignment }),
    ...(bases === undefined ? {} : { bases }),
    ...(mixer.rule.needs.includes("heldOutLosses") ? { heldOut: guardedText(cell, text) } : {}),
  });
}

/**
 * Returns the windows that a guard evaluates: held-out windows of each domain after those of the result's own evaluation. A domain with too few uses the same windows for both.
 * Throws `config` if the text was divided into other domains, because these have no held-out text.
 */
function guardedText({ text: { domains, cut }, model }: Cell, text: Text): HeldOutOptions {
  if (cut !== undefined)
    throw new GradmixError(
      "config",
      "guard: clusters and pieces have no held-out text; use the domains of the corpora",
    );
  const measured = Math.ceil(evaluated.domain / model.context);
  const sets = domains.map((name) => {
    const windows = evaluationWindows(name, splitNamed("domains", text, name).heldOut, model.context);
    if (windows === null) throw new GradmixError("data", `${name}: the held-out text has only one token`);
    const first = windows.count >= 2 * measured ? measured : 0;
    return {
      name,
      count: windows.count - first,
      tokensOf: (index: number) => windows.tokensOf(first + index),
      batchOf: (indices: readonly number[]) => windows.batchOf(indices.map((index) => first + index)),
    };
  });
  return { sets, ...guarding };
}

const round = (value: number): number => Number(value.toFixed(4));
const rounded = (weights: ArrayLike<number>): number[] => Array.from(weights, round);

/** Returns the mixer of the cell's method, and its bases. Throws `config` for a rule that the package does not have. */
function mixerOf({ cell, text, domains, target }: Parts): Mixing {
  const { method, steps, batch, model } = cell;
  const bases = method.bases === undefined ? undefined : basesOf(method.bases, domains, text);
  const tokens = steps * batch * model.context;
  const resembled = resembledBy(cell, text) ?? target;
  const given = { ...method.rule, ...placed(method.rule, domains, resembled, tokens) };
  // The package checks the names of the options, as in a configuration file.
  const { combinators = [], usualCap = false } = method;
  const repetitions = usualRepetitions(domains.sizes, tokens);
  const cap: CombinatorOptions[] = usualCap ? [{ name: "repetitionCap", repetitions }] : [];
  const rule = combine(createRule(given as RuleOptions), [...combinators, ...cap], {
    sizes: domains.sizes,
    tokens,
  });
  const { updateEvery } = method;
  const names = bases?.names ?? domains.names;
  const mixer = createMixer({ domains: names, rule, ...(updateEvery === undefined ? {} : { updateEvery }) });
  return { mixer, bases };
}

/** Returns the training text of the other target whose histogram the method uses; null if it uses the run's own. */
function resembledBy({ method: { histogramOf } }: Cell, text: Text): TokenStream | null {
  return histogramOf === undefined ? null : targetNamed(text, histogramOf).train;
}

/** Returns the numbers for "histogram", "counts", "sizes" and "tokens". */
function placed(
  rule: Cell["method"]["rule"],
  domains: Domains,
  target: TokenStream | null,
  tokens: number,
): Record<string, readonly number[] | number> {
  const numbers: Record<string, readonly number[] | number> = {};
  for (const [name, value] of Object.entries(rule)) {
    if (value === "sizes") numbers[name] = domains.sizes;
    if (value === "tokens") numbers[name] = tokens;
    if (value !== "histogram" && value !== "counts") continue;
    if (target === null) throw new GradmixError("config", `${rule.name}: a histogram needs a target`);
    numbers[name] = domains[value](target);
  }
  return numbers;
}

function basesOf(targets: readonly string[], domains: Domains, text: Text): Bases {
  const histograms = targets.map((name) => [name, domains.histogram(targetNamed(text, name).train)] as const);
  const rows = new Map<string, readonly number[]>([...histograms, ["all text", domains.sizes]]);
  return createBases(rows, domains.names, { counts: true });
}

async function targetLoss({ cell, text }: Parts, trainer: Trainer, tokens: number): Promise<number | null> {
  const { target } = cell.text;
  return target === null ? null : lossOn(cell, trainer, targetNamed(text, target).heldOut, tokens);
}

/** Returns the mean loss over the cell's domains, as the corpora have them. */
async function outsideLoss({ cell, text }: Parts, trainer: Trainer): Promise<number> {
  const losses: number[] = [];
  for (const name of cell.text.domains)
    losses.push(await lossOn(cell, trainer, splitNamed("domains", text, name).heldOut, evaluated.domain));
  return round(mean(losses));
}

async function probe({ cell, text }: Parts, trainer: Trainer): Promise<Result["probes"]> {
  if (cell.probes === undefined) return null;
  const losses: Record<string, number> = {};
  for (const name of cell.probes)
    losses[name] = await lossOn(cell, trainer, targetNamed(text, name).train, evaluated.probe);
  return losses;
}

async function lossOn(cell: Cell, trainer: Trainer, stream: TokenStream, tokens: number): Promise<number> {
  const windows = evaluationWindows("text", stream, cell.model.context);
  if (windows === null) throw new GradmixError("data", "a text for evaluation has only one token");
  return round(await trainer.evaluate(windows, tokens));
}

async function accuracies({ cell, text, model }: Parts): Promise<Result["accuracy"]> {
  const { questions, text: own } = cell;
  if (questions === undefined || own.target === null) return null;
  const { heldOut } = targetNamed(text, own.target);
  const others = own.domains.map((name) => splitNamed("domains", text, name).heldOut);
  return accuracyOf(model, questionsOf(heldOut, others, cell.model.context, questions));
}
