/**
 * The trainer: trains a model while its mixer finds the weights of the domains (Fan, Grangier, Ablin 2024, Algorithm 1).
 *
 * Every step draws a batch from mix(α) and takes an optimizer step. Every T_r steps the alignments of all domains with the target are
 * measured at the new parameters, and the rule moves the weights. The alignments come either from a separate batch (`from: "batch"`, the
 * paper's way) or from the training steps themselves (`from: "step"`): each training gradient then also yields the inner product of every example
 * with a target gradient that is refreshed now and then.
 *
 * No files and no clock: what a step did is returned, the whole state can be saved and restored, and the same state goes on to the same bits.
 */
import { gradients } from "../autograd/grad.ts";
import { alignSink } from "../autograd/sinks/align.ts";
import { run } from "../backends/backend.ts";
import { assembleBatch, type TokenBatch } from "../data/batch.ts";
import { createSampler, type SamplingMode } from "../data/sampler.ts";
import type { Windows } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import type { GPT } from "../nn/gpt.ts";
import { adamw, type AdamWOptions } from "../nn/optimizer.ts";
import { arenaLike } from "../nn/parameters.ts";
import type { Schedule } from "../nn/schedules.ts";
import { empty, keep, scope, type Tensor } from "../tensor/tensor.ts";
import {
  type Alignments,
  type Batch,
  estimateAlignments,
  type EstimatorName,
  exampleCount,
  meanGradient,
  take,
  tokenCount,
  upload,
} from "./estimators.ts";
import type { Checkpoint } from "./config.ts";
import {
  advance,
  averageWeights,
  currentWeights,
  type Mixer,
  type MixerState,
  restoreMixer,
  update,
  updateDue,
} from "./mixer.ts";
import type { Signal } from "./rule.ts";
import { domainAlignments } from "./statistics.ts";

export interface AlignmentOptions {
  /** Default "segmented". */
  readonly estimator?: EstimatorName;
  /** Default "batch". */
  readonly from?: "batch" | "step";
  /** Windows of each domain in an alignment batch. Default 4. */
  readonly domainExamples?: number;
  /** Windows of the target in an alignment. Default 16. */
  readonly targetExamples?: number;
  /** With `from: "step"`: steps between two refreshes of the target gradient. Default 10, at most T_r. */
  readonly refreshEvery?: number;
}

export interface TrainerOptions {
  readonly model: GPT;
  readonly mixer: Mixer;
  /** Training windows of each domain of the mixer, in its order. */
  readonly domains: readonly Windows[];
  /** Windows of the target to align with; null for rules that need none. */
  readonly target: Windows | null;
  /** Windows in a step. */
  readonly batch: number;
  readonly schedule: Schedule;
  readonly optimizer?: AdamWOptions;
  readonly alignment?: AlignmentOptions;
  readonly sampling?: SamplingMode;
  /** Of the order of the data. */
  readonly seed: number;
}

/** What one step did; arrays have one entry a domain. */
export interface TrainStep {
  /** Steps done, this one included. */
  readonly step: number;
  /** Training tokens seen so far. */
  readonly tokens: number;
  /** Mean loss per token, in nats. */
  readonly loss: number;
  /** Of the gradient before clipping. */
  readonly gradNorm: number;
  readonly lr: number;
  /** The weights that the batch was drawn with. */
  readonly weights: Float64Array;
  /** Mean loss per token of the domain's windows; null where the batch had none. */
  readonly domainLosses: readonly (number | null)[];
  readonly domainTokens: readonly number[];
  readonly domainEpochs: readonly number[];
  /** On steps after which the weights were updated. */
  readonly alignments: Alignments | null;
}

export interface Trainer {
  readonly model: GPT;
  /** Takes one step. Throws `numeric`, with the step, when the loss or the gradient is not finite; the trainer is then spoiled. */
  step(): Promise<TrainStep>;
  readonly steps: number;
  /** Training tokens seen so far. */
  readonly tokens: number;
  /** Mean loss per token of the last step; null before the first. */
  readonly loss: number | null;
  readonly mixer: MixerState;
  /** Weights sampled now, and their mean over the steps so far. */
  weights(): { final: Float64Array; averaged: Float64Array };
  /** Mean loss per token over the first windows that hold `tokens` tokens. */
  evaluate(windows: Windows, tokens: number): Promise<number>;
  /** Everything that `restore` needs to go on to the same bits. Throws `numeric` when a parameter is not finite. */
  save(): Promise<Checkpoint>;
  /** Throws `checkpoint`, naming what does not fit; then nothing was changed. */
  restore(checkpoint: Checkpoint): void;
  dispose(): void;
}

/** What the training steps since the last update have told about the domains. */
interface Gathered {
  /** ⟨∇(summed loss of example), V⟩ of the domain's examples. */
  dots: number[][];
  tokens: number[][];
  /** ‖gradient of the example's mean loss‖². */
  squaredNorms: number[][];
  /** Summed losses of the examples. */
  losses: number[][];
  targetNorms: number[];
  targetLosses: number[];
}

/** Independent streams of data order from one seed. */
const ALIGNMENT_STREAM = 1_000_003;
const TARGET_STREAM = 2_000_003;

/** Throws `config` when the options do not fit together. The model stays the caller's to dispose. */
export function createTrainer(options: TrainerOptions): Trainer {
  const { model, mixer, domains, target, batch, schedule, seed } = options;
  const {
    estimator = "segmented",
    from = "batch",
    domainExamples = 4,
    targetExamples = 16,
  } = options.alignment ?? {};
  const k = domains.length;
  const names = mixer.domains;
  if (k !== names.length)
    throw new GradmixError("config", `${k} domains of windows for a mixer of ${names.length}`);
  const measures = mixer.rule.needs.length > 0;
  if (measures && target === null)
    throw new GradmixError(
      "config",
      `rule ${mixer.rule.name}: it aligns domains with a target, and there is none; give a target`,
    );
  if (estimator === "forward" && from === "batch" && mixer.rule.needs.includes("norms"))
    throw new GradmixError(
      "config",
      `estimator forward: it gives no gradient norms, which rule ${mixer.rule.name} asks for; use normalise = raw or estimator = segmented`,
    );
  const refreshEvery = Math.min(options.alignment?.refreshEvery ?? 10, mixer.updateEvery);
  const gathers = measures && from === "step";

  const { parameters } = model;
  const optimizer = adamw(parameters, options.optimizer);
  const gradient = arenaLike(parameters);
  const direction = measures ? arenaLike(parameters) : null;
  const sampler = createSampler({
    domains,
    seed,
    ...(options.sampling === undefined ? {} : { mode: options.sampling }),
  });
  const alignmentSampler = createSampler({ domains, seed: seed + ALIGNMENT_STREAM });
  const targetSampler = createSampler({
    domains: target === null ? [] : [target],
    seed: seed + TARGET_STREAM,
  });

  let state = mixer.initial;
  let seen = 0;
  let lastLoss: number | null = null;
  let gathered = nothing(k);

  const targetBatch = (windows: Windows): Batch =>
    assembleBatch(targetSampler.drawFrom(0, targetExamples), [windows]);

  /** Alignments from a separate batch of every domain, at the current parameters. */
  async function alignBatch(windows: Windows): Promise<Alignments> {
    const batches = domains.map((_, i) =>
      assembleBatch(alignmentSampler.drawFrom(i, domainExamples), domains),
    );
    return estimateAlignments(estimator, model, targetBatch(windows), batches, {
      maxExamples: Math.max(batch, domainExamples),
      ...(direction === null ? {} : { direction }),
    });
  }

  /** The training gradient into `gradient`; the examples' summed losses. */
  async function trainingGradient(rows: TokenBatch): Promise<Float64Array> {
    if (!gathers || direction === null) {
      const losses = meanGradient(model, rows, gradient);
      return take(losses);
    }
    const sink = alignSink({
      examples: exampleCount(rows),
      direction: { given: direction.of },
      total: { gradientOf: gradient.of },
    });
    const tokens = tokenCount(rows);
    try {
      const losses = keep(
        scope(() => {
          const { inputs, targets } = upload(rows);
          return gradients(() => model.losses(inputs, targets), {
            parameters: parameters.list,
            sink,
            weights: new Float64Array(exampleCount(rows)).fill(1 / tokens),
          });
        }),
      );
      const values = await take(losses);
      const { dots, squaredNorms } = await sink.result();
      rows.domainOf.forEach((domain, j) => {
        // The pass weighed every loss with 1/tokens; what is gathered is of the unweighted sums and of the examples' own means.
        gathered.dots[domain].push(dots[j] * tokens);
        gathered.tokens[domain].push(rows.tokens[j]);
        gathered.squaredNorms[domain].push(squaredNorms[j] * (tokens / rows.tokens[j]) ** 2);
        gathered.losses[domain].push(values[j]);
      });
      return values;
    } finally {
      sink.dispose();
    }
  }

  async function refreshDirection(windows: Windows): Promise<void> {
    if (direction === null) return;
    const rows = targetBatch(windows);
    const losses = await take(meanGradient(model, rows, direction));
    const sumsq = keep(empty([1], "f32", parameters.value.memory));
    run("sumSquares", {}, [direction.arena], [sumsq]);
    gathered.targetLosses.push(total(losses) / Math.max(1, tokenCount(rows)));
    gathered.targetNorms.push(Math.sqrt((await take(sumsq))[0]));
  }

  const trainer: Trainer = {
    model,
    get steps() {
      return state.steps;
    },
    get tokens() {
      return seen;
    },
    get loss() {
      return lastLoss;
    },
    get mixer() {
      return state;
    },
    weights: () => ({ final: currentWeights(state), averaged: averageWeights(state) }),
    async step() {
      const step = state.steps + 1;
      const weights = currentWeights(state);
      const lr = schedule(state.steps);
      if (
        gathers &&
        target !== null &&
        (gathered.targetNorms.length === 0 || state.steps % refreshEvery === 0)
      )
        await refreshDirection(target);
      const rows = assembleBatch(sampler.draw(weights, batch), domains, { sortByDomain: true });
      const losses = await trainingGradient(rows);
      const sumsq = optimizer.step(gradient.arena, lr);
      const gradNorm = Math.sqrt((await take(sumsq))[0]);
      const tokens = tokenCount(rows);
      const loss = total(losses) / tokens;
      if (!Number.isFinite(loss) || !Number.isFinite(gradNorm))
        throw new GradmixError(
          "numeric",
          `the ${Number.isFinite(loss) ? "gradient" : "loss"} became ${Number.isFinite(loss) ? gradNorm : loss} at step ${step}; go on from the last checkpoint with a smaller learning rate`,
        );
      seen += tokens;
      lastLoss = loss;
      state = advance(state);
      let alignments: Alignments | null = null;
      if (target !== null && updateDue(mixer, state)) {
        alignments = gathers ? summarise(gathered) : await alignBatch(target);
        gathered = nothing(k);
        state = update(mixer, state, signalOf(alignments));
      }
      return {
        step,
        tokens: seen,
        loss,
        gradNorm,
        lr,
        weights,
        domainLosses: meanByDomain(losses, rows, k),
        domainTokens: sampler.tokens(),
        domainEpochs: sampler.epochs(),
        alignments,
      };
    },
    async evaluate(windows, tokens) {
      let sum = 0;
      let count = 0;
      for (let first = 0; first < windows.count && count < tokens; first += batch) {
        const draws = [];
        let planned = count;
        for (let w = first; w < Math.min(windows.count, first + batch) && planned < tokens; w++) {
          draws.push({ domain: 0, window: w, epoch: 0 });
          planned += windows.tokensOf(w);
        }
        const rows = assembleBatch(draws, [windows]);
        const losses = keep(
          scope(() => {
            const { inputs, targets } = upload(rows);
            return model.losses(inputs, targets);
          }),
        );
        sum += total(await take(losses));
        count = planned;
      }
      return sum / Math.max(1, count);
    },
    async save() {
      const array = async (t: Tensor): Promise<Float32Array> => Float32Array.from(await t.data());
      const value = await array(parameters.value);
      // The last update may have overflowed where loss and gradient had not; such a state must not replace a good one.
      if (!value.every(Number.isFinite))
        throw new GradmixError(
          "numeric",
          `the parameters are no longer finite after step ${state.steps}; go on from the last checkpoint with a smaller learning rate`,
        );
      return {
        json: {
          mixer: state,
          sampler: sampler.state(),
          alignmentSampler: alignmentSampler.state(),
          targetSampler: targetSampler.state(),
          optimizerSteps: optimizer.steps,
          tokens: seen,
          loss: lastLoss,
          gathered,
        },
        arrays: {
          value,
          m: await array(optimizer.m.arena),
          v: await array(optimizer.v.arena),
          ...(gathers && direction !== null ? { direction: await array(direction.arena) } : {}),
        },
      };
    },
    restore({ json, arrays }) {
      const restored = restoreMixer(mixer, json["mixer"]);
      const number = (name: string): number => {
        const value = json[name];
        if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
          throw new GradmixError("checkpoint", `checkpoint: ${name} is ${String(value)}`);
        return value;
      };
      const [steps, tokens] = [number("optimizerSteps"), number("tokens")];
      const kept = checkGathered(json["gathered"], k);
      const wanted = new Map<string, Tensor>([
        ["value", parameters.value],
        ["m", optimizer.m.arena],
        ["v", optimizer.v.arena],
      ]);
      if (gathers && direction !== null) wanted.set("direction", direction.arena);
      for (const [name, arena] of wanted) {
        const found = arrays[name]?.length ?? 0;
        if (found !== arena.size)
          throw new GradmixError(
            "checkpoint",
            `checkpoint: ${name} has ${found} values, the model has ${arena.size}`,
          );
      }
      sampler.restore(json["sampler"]);
      alignmentSampler.restore(json["alignmentSampler"]);
      targetSampler.restore(json["targetSampler"]);
      for (const [name, arena] of wanted) {
        const values = arrays[name];
        if (values instanceof Float32Array) arena.write(values);
      }
      optimizer.steps = steps;
      seen = tokens;
      lastLoss = typeof json["loss"] === "number" ? json["loss"] : null;
      gathered = kept;
      state = restored;
    },
    dispose() {
      optimizer.dispose();
      gradient.dispose();
      direction?.dispose();
    },
  };
  return trainer;
}

function nothing(k: number): Gathered {
  const lists = (): number[][] => Array.from({ length: k }, () => []);
  return {
    dots: lists(),
    tokens: lists(),
    squaredNorms: lists(),
    losses: lists(),
    targetNorms: [],
    targetLosses: [],
  };
}

/**
 * Alignments from what the steps gathered. A domain that was never drawn has 0 tokens, by which rules know that nothing was measured.
 *
 * The norm of a domain is here the root mean square of its single examples' gradients: unlike the norm of their mean it does not grow when few
 * are drawn, which would make a rare domain's cosine smaller and the domain rarer still.
 */
function summarise(gathered: Gathered): Alignments {
  const mean = (values: readonly number[]): number =>
    values.length === 0 ? 0 : total(values) / values.length;
  const tokens = Float64Array.from(gathered.tokens, total);
  const measured = gathered.dots.map((dots, i) => domainAlignments(dots, gathered.tokens[i]));
  return {
    alignments: Float64Array.from(measured, ({ alignment }) => alignment),
    standardErrors: measured.map(({ standardError }) => standardError),
    norms: Float64Array.from(gathered.squaredNorms, (squares) => Math.sqrt(mean(squares))),
    tokens,
    targetNorm: mean(gathered.targetNorms),
    losses: Float64Array.from(gathered.losses, (losses, i) =>
      tokens[i] > 0 ? total(losses) / tokens[i] : 0,
    ),
    targetLoss: mean(gathered.targetLosses),
  };
}

function signalOf(measured: Alignments): Signal {
  const { alignments, standardErrors, norms, tokens, targetNorm, losses, targetLoss } = measured;
  return {
    alignments,
    tokens,
    targetNorm,
    losses,
    targetLoss,
    ...(standardErrors === null ? {} : { standardErrors }),
    ...(norms === null ? {} : { norms }),
  };
}

function meanByDomain(losses: Float64Array, rows: TokenBatch, k: number): (number | null)[] {
  const sums = new Float64Array(k);
  const tokens = new Float64Array(k);
  losses.forEach((loss, j) => {
    sums[rows.domainOf[j]] += loss;
    tokens[rows.domainOf[j]] += rows.tokens[j];
  });
  return Array.from(sums, (sum, i) => (tokens[i] > 0 ? sum / tokens[i] : null));
}

function total(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}

function checkGathered(json: unknown, k: number): Gathered {
  const wrong = (): GradmixError =>
    new GradmixError("checkpoint", "checkpoint: what the steps gathered is malformed");
  if (typeof json !== "object" || json === null) throw wrong();
  const given = new Map<string, unknown>(Object.entries(json));
  const numbers = (value: unknown): number[] => {
    if (!Array.isArray(value)) throw wrong();
    return value.map((entry: unknown) => {
      if (typeof entry !== "number") throw wrong();
      return entry;
    });
  };
  const lists = (name: string): number[][] => {
    const value = given.get(name);
    if (!Array.isArray(value) || value.length !== k) throw wrong();
    return value.map(numbers);
  };
  return {
    dots: lists("dots"),
    tokens: lists("tokens"),
    squaredNorms: lists("squaredNorms"),
    losses: lists("losses"),
    targetNorms: numbers(given.get("targetNorms")),
    targetLosses: numbers(given.get("targetLosses")),
  };
}
