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
import type { Choice } from "../data/alias.ts";
import { createSampler } from "../data/sampler.ts";
import type { Windows } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import type { GPT } from "../nn/gpt.ts";
import { adamw, type AdamW, type AdamWOptions, adamwOptions } from "../nn/optimizer.ts";
import { type Arena, arenaLike, orDispose, type Parameters } from "../nn/parameters.ts";
import { checkRange, show, withDefaults } from "../options.ts";
import { empty, keep, scope, type Tensor } from "../tensor/tensor.ts";
import { areDomains, fingerprint, mixtureOf } from "./bases.ts";
import type { Checkpoint } from "./config.ts";
import { estimateAlignments, estimateGram, exampleNumbers, targetDirection } from "./estimators.ts";
import { lossesOf, nothing, summarise, summariseBases, total } from "./gathered.ts";
import { meanLoss } from "./evaluation.ts";
import { backoff, firstScales, grow, lossScaleOptions } from "./loss-scale.ts";
import {
  advance,
  averageWeights,
  currentWeights,
  type MixerState,
  nextUpdate,
  update,
  updateDue,
} from "./mixer.ts";
import {
  type Alignments,
  type Batch,
  type EstimateOptions,
  exampleCount,
  type LossModel,
  meanGradient,
  take,
  tokenCount,
  upload,
} from "./passes.ts";
import { planOf, signalOf } from "./plan.ts";
import { basisAlignments, basisChoice, proposal } from "./reweighting.ts";
import type { Signal } from "./rule.ts";
import { readSaved } from "./saved.ts";
import { alignmentDefaults, checkTrainer, type TrainerOptions } from "./trainer-options.ts";
import { createTurns } from "./turns.ts";

export type { AlignmentOptions, TrainerOptions } from "./trainer-options.ts";

/** What a step did with one domain. */
export interface TrainedDomain {
  readonly domain: number;
  /** Mean loss per token of the domain's windows in the batch. */
  readonly loss: number;
  /** Training tokens of the domain so far. */
  readonly tokens: number;
  /** Epochs of the domain so far, as a fraction. */
  readonly epochs: number;
}

/** What one step did. `weights` and `alignments` have one entry a domain, with bases one a basis. */
export interface TrainStep {
  /** Steps done, this one included. */
  readonly step: number;
  /** Training tokens seen so far. */
  readonly tokens: number;
  /** Mean loss per token, in nats. */
  readonly loss: number;
  /** Of the gradient before clipping; not finite on a skipped step. */
  readonly gradNorm: number;
  /** What the losses of the step were multiplied by for the backward pass; null without loss scaling. */
  readonly lossScale: number | null;
  /** The gradient overflowed, and the optimizer took no step: data was seen, parameters and moments are what they were. Only with loss scaling. */
  readonly skipped: boolean;
  readonly lr: number;
  /** The weights of the step. */
  readonly weights: Float64Array;
  /** What the batch was drawn with, one entry a domain: `weights`, or with bases their mixture. */
  readonly domainWeights: Float64Array;
  /** The domains that the batch held, ascending; a step costs nothing for the others. */
  readonly trained: readonly TrainedDomain[];
  /** On steps after which the weights were updated. */
  readonly alignments: Alignments | null;
}

export interface WeightPair {
  readonly final: Float64Array;
  readonly averaged: Float64Array;
}

export interface Trainer {
  readonly model: GPT;
  /**
   * Takes one step. Throws `numeric`, with the step, when the loss or the gradient is not finite, with loss scaling only when the loss is not or
   * no smaller scale is left. After an error in the middle of a step only `restore` goes on.
   *
   * One call of `step`, `evaluate`, `save`, `restore` and `dispose` at a time: a second one throws `busy` and changes nothing.
   */
  step(): Promise<TrainStep>;
  readonly steps: number;
  /** Training tokens seen so far. */
  readonly tokens: number;
  /** Mean loss per token of the last step; null before the first. */
  readonly loss: number | null;
  readonly mixer: MixerState;
  /** Weights sampled now, and their mean over the steps so far; with bases `domains` has what they make of the domains. */
  weights(): WeightPair & { readonly domains: WeightPair };
  /** Training tokens and epochs of one domain so far. */
  seen(domain: number): { readonly tokens: number; readonly epochs: number };
  /** Mean loss per token over the first windows that hold `tokens` tokens. Rejects with the reason of `signal` once that is aborted. */
  evaluate(windows: Windows, tokens: number, signal?: AbortSignal): Promise<number>;
  /** Everything that `restore` needs to go on to the same bits. Throws `numeric` when a parameter is not finite. */
  save(): Promise<Checkpoint>;
  /** Throws `checkpoint`, naming what does not fit; then nothing was changed. */
  restore(checkpoint: Checkpoint): void;
  dispose(): void;
}

/** Independent streams of data order from one seed. */
const ALIGNMENT_STREAM = 1_000_003;
const TARGET_STREAM = 2_000_003;

/** The seed of another stream: the sum modulo 2⁵³, so that every seed has one, and different ones from the same constant are different. */
function streamSeed(seed: number, stream: number): number {
  const room = Number.MAX_SAFE_INTEGER - seed;
  return stream <= room ? seed + stream : stream - room - 1;
}

/**
 * Throws `config` when the options do not fit together and `data`, naming the domain, when its windows do not fit the model. The model stays the
 * caller's to dispose.
 */
export function createTrainer(options: TrainerOptions): Trainer {
  checkTrainer(options);
  const { model, mixer, domains, target, batch, schedule, seed } = options;
  const { estimator, from, domainExamples, targetExamples, refreshEvery } = withDefaults(
    alignmentDefaults,
    options.alignment,
  );
  const { bases } = options;
  const k = domains.length;
  const scaling =
    options.lossScale === undefined || options.lossScale === null
      ? null
      : lossScaleOptions(options.lossScale);
  const plan = planOf(mixer.rule.needs);
  const direct = bases === undefined || options.alignment?.bases === "direct" || areDomains(bases);
  /** The steps measure every example's alignment. */
  const gathers = plan.aligns && from === "step";
  /** The steps note losses, which is all that some rules ask for. */
  const notes = gathers || (mixer.rule.needs.length > 0 && !plan.aligns);

  const { parameters } = model;
  const { beta2, eps } = adamwOptions(options.optimizer);
  const sampler = createSampler({
    domains,
    seed,
    ...(options.sampling === undefined ? {} : { mode: options.sampling }),
  });
  const alignmentSampler = createSampler({ domains, seed: streamSeed(seed, ALIGNMENT_STREAM) });
  const targetWindows = [...(target === null ? [] : [target]), ...(options.targets?.values() ?? [])];
  const targetSampler = createSampler({ domains: targetWindows, seed: streamSeed(seed, TARGET_STREAM) });

  const { optimizer, gradient, direction, ...arenas } = makeArenas(
    parameters,
    options.optimizer,
    plan.aligns || plan.targets,
  );

  let state = mixer.initial;
  let seen = 0;
  let lastLoss: number | null = null;
  let gathered = nothing();
  let scale = firstScales(scaling);
  /** What the target's gradient in `direction` is multiplied by. */
  let directionScale = 1;

  /** The next windows of target t. */
  const targetBatch = (t = 0): Batch =>
    assembleBatch(targetSampler.drawFrom(t, targetExamples), targetWindows);

  /** What the domains are drawn with, made ready once for all steps until the next update. */
  let drawn: { weights: Float64Array; alpha: Float64Array; choice: Choice } | null = null;
  const drawing = (): NonNullable<typeof drawn> => {
    if (drawn === null) {
      const weights = currentWeights(state);
      const alpha = bases === undefined ? weights : mixtureOf(bases, weights);
      drawn = { weights, alpha, choice: sampler.prepare(alpha) };
    }
    return drawn;
  };

  const estimation = (): EstimateOptions => ({
    maxExamples: Math.max(batch, domainExamples),
    ...(direction === null ? {} : { direction }),
    ...(options.alignment?.parameters === undefined ? {} : { parameters: options.alignment.parameters }),
    // Before the first step there are no moments yet.
    ...(plan.preconditioned && optimizer.steps > 0
      ? {
          precondition: {
            v: optimizer.v,
            bias: 1 - beta2 ** optimizer.steps,
            eps,
          },
        }
      : {}),
  });

  /** Measures; with loss scaling again at half the scale while an overflow spoils the numbers, which is no reason to end a run. */
  async function measured<T extends Partial<Pick<Alignments, "losses" | "targetLoss">>>(
    pass: (options: EstimateOptions) => Promise<T>,
  ): Promise<T> {
    for (;;) {
      if (scaling === null || scale === null) return pass(estimation());
      const { alignment } = scale;
      const found = await pass({ ...estimation(), lossScale: alignment.scale });
      const good = allFinite(found);
      scale.alignment = good ? grow(alignment, scaling) : backoff(alignment, scaling);
      // Losses that are not finite are of the forward pass, which has no scale.
      if (good || alignment.scale === scaling.min || !allFinite([found.losses, found.targetLoss]))
        return found;
    }
  }

  /** A batch of every domain, or of every basis. */
  const domainBatches = (): Batch[] => {
    if (bases === undefined)
      return domains.map((_, i) => assembleBatch(alignmentSampler.drawFrom(i, domainExamples), domains));
    return bases.names.map((_, j) => {
      const only = bases.offsets[j + 1] - bases.offsets[j] === 1 ? bases.columns[bases.offsets[j]] : null;
      const draws =
        only === null
          ? alignmentSampler.draw(basisChoice(bases, j), domainExamples)
          : alignmentSampler.drawFrom(only, domainExamples);
      return assembleBatch(draws, domains);
    });
  };

  /** Alignments from a separate batch, at the current parameters. */
  async function alignBatch(): Promise<Alignments> {
    const ofTarget = targetBatch();
    if (bases === undefined || direct) {
      const batches = domainBatches();
      return measured((options) => estimateAlignments(estimator, model, ofTarget, batches, options));
    }
    if (direction === null) throw new GradmixError("config", "bases: the rule aligns nothing");
    const q = proposal(bases, currentWeights(state));
    const rows = assembleBatch(
      alignmentSampler.draw(alignmentSampler.prepare(q), SHARED * domainExamples),
      domains,
    );
    const { targetLoss, targetNorm, ...numbers } = await measured(async (options) => ({
      ...(await targetDirection(model, ofTarget, direction, options)),
      ...(await exampleNumbers(model, rows, direction, options)),
    }));
    const found = basisAlignments(bases, q, {
      domainOf: rows.domainOf,
      tokens: rows.tokens,
      dots: numbers.dots,
      losses: numbers.losses,
      squaredNorms: numbers.squaredNorms.map((square, e) => square / Math.max(1, rows.tokens[e]) ** 2),
    });
    return {
      ...found,
      targetLoss,
      targetNorm,
      norms: found.norms ?? null,
      losses: found.losses ?? new Float64Array(bases.names.length),
    };
  }

  /** Everything that the rule asks for, at the current parameters; and what of it is worth a line in a log. */
  async function measure(): Promise<{ signal: Signal; alignments: Alignments | null }> {
    const tokensSeen = { tokensSeen: sampler.tokens() };
    if (gathers) {
      const alignments =
        bases === undefined ? summarise(gathered, k) : summariseBases(gathered, bases, drawing().alpha);
      return { signal: { ...signalOf(alignments, plan), ...tokensSeen }, alignments };
    }
    if (plan.aligns) {
      const alignments = await alignBatch();
      return { signal: { ...signalOf(alignments, plan), ...tokensSeen }, alignments };
    }
    if (plan.gram) {
      const batches = domainBatches();
      const { gram, losses } = await measured((options) => estimateGram(model, batches, options));
      return { signal: { gram, losses, ...tokensSeen }, alignments: null };
    }
    if (plan.targets) {
      // One batch of the domains serves all targets.
      const batches = domainBatches();
      const found = [];
      for (const [t, name] of [...(options.targets?.keys() ?? [])].entries()) {
        const at = t + (target === null ? 0 : 1);
        const ofTarget = targetBatch(at);
        const own = await measured((options) =>
          estimateAlignments(estimator, model, ofTarget, batches, options),
        );
        found.push({ name, own });
      }
      const signal: Signal = {
        targets: found.map(({ name, own }) => ({
          name,
          alignments: own.alignments,
          norm: own.targetNorm,
          loss: own.targetLoss,
        })),
        losses: found[0].own.losses,
        ...(found[0].own.norms === null ? {} : { norms: found[0].own.norms }),
        ...tokensSeen,
      };
      return { signal, alignments: null };
    }
    const { tokens, losses, referenceLosses } = lossesOf(gathered, k);
    return {
      signal: { tokens, losses, ...(plan.reference ? { referenceLosses } : {}), ...tokensSeen },
      alignments: null,
    };
  }

  /** Notes what a step told of its examples. */
  function note(rows: TokenBatch, told: Told): void {
    rows.domainOf.forEach((domain, j) => {
      gathered.domainOf.push(domain);
      gathered.tokens.push(rows.tokens[j]);
      for (const name of ["losses", "dots", "squaredNorms", "referenceLosses"] as const)
        if (told[name].length > 0) gathered[name].push(told[name][j]);
    });
    for (const { domain, dots, tokens } of told.pairs) {
      gathered.pairDomains.push(domain);
      gathered.pairDots.push(dots);
      gathered.pairTokens.push(tokens);
    }
  }

  /** The training gradient, times the loss scale, into `gradient`. */
  async function trainingGradient(
    rows: TokenBatch,
    lossScale: number,
    aligned: boolean,
    compared: boolean,
  ): Promise<Told> {
    if (!aligned || direction === null)
      return {
        losses: await take(meanGradient(model, rows, gradient, false, parameters.list, lossScale)),
        dots: [],
        squaredNorms: [],
        pairs: [],
        referenceLosses:
          compared && options.reference !== undefined ? await referenceOf(options.reference, rows) : [],
      };
    const groups = domainOffsets(rows);
    const sink = alignSink({
      examples: exampleCount(rows),
      groups,
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
            weights: new Float64Array(exampleCount(rows)).fill(lossScale / tokens),
          });
        }),
      );
      const values = await take(losses);
      const { dots, squaredNorms, groupSquaredNorms } = await sink.result();
      // The pass weighed every loss with S/tokens; what is gathered is of the unweighted sums and of the examples' own means.
      const unweighted = (square: number): number => (square / lossScale ** 2) * tokens ** 2;
      return {
        losses: values,
        dots: Array.from(dots, (dot) => (dot / (lossScale * directionScale)) * tokens),
        squaredNorms: Array.from(
          squaredNorms,
          (square, j) => unweighted(square) / Math.max(1, rows.tokens[j]) ** 2,
        ),
        pairs: pairsOf(rows, groups, squaredNorms.map(unweighted), groupSquaredNorms.map(unweighted)),
        // No rule aligns and compares with a reference at once.
        referenceLosses: [],
      };
    } finally {
      sink.dispose();
    }
  }

  async function refreshDirection(): Promise<void> {
    if (direction === null) return;
    const ofTarget = targetBatch();
    const found = await measured((options) => {
      directionScale = options.lossScale ?? 1;
      return targetDirection(model, ofTarget, direction, options);
    });
    gathered.targetLosses.push(found.targetLoss);
    gathered.targetNorms.push(found.targetNorm);
  }

  /** An optimizer step with what `trainingGradient` left; ‖gradient‖. With loss scaling and an overflow none is taken, and the scale halves. */
  async function optimize(lr: number, told: Told): Promise<{ gradNorm: number; overflowed: boolean }> {
    if (scaling === null || scale === null) {
      const sumsq = optimizer.step(gradient.arena, lr);
      return { gradNorm: Math.sqrt((await take(sumsq))[0]), overflowed: false };
    }
    const { step } = scale;
    const squaredNorm = keep(empty([1], "f32", gradient.arena.memory));
    try {
      run("sumSquares", {}, [gradient.arena], [squaredNorm]);
      const gradNorm = Math.sqrt((await squaredNorm.data())[0]) / step.scale;
      if (Number.isFinite(gradNorm))
        optimizer.step(gradient.arena, lr, { lossScale: step.scale, squaredNorm }).dispose();
      // Numbers of single examples may overflow where their sum does not.
      const overflowed = !allFinite([gradNorm, told.dots, told.squaredNorms, told.pairs]);
      scale.step = overflowed ? backoff(step, scaling) : grow(step, scaling);
      return { gradNorm, overflowed };
    } finally {
      squaredNorm.dispose();
    }
  }

  /** What a step that failed half-way left no state to go on from by. */
  let spoiled: unknown = null;
  const unspoiled = (): void => {
    if (spoiled === null) return;
    throw new GradmixError(
      spoiled instanceof GradmixError ? spoiled.code : "numeric",
      `the trainer cannot go on after an error (${spoiled instanceof Error ? spoiled.message : show(spoiled)}); restore a checkpoint`,
      { cause: spoiled },
    );
  };

  async function step(): Promise<TrainStep> {
    unspoiled();
    const lr = schedule(state.steps);
    checkRange(`schedule(${state.steps})`, lr, { min: 0, max: Infinity, openMax: true });
    let trained;
    try {
      trained = await train(lr);
    } catch (error) {
      spoiled = error;
      throw error;
    }
    let alignments: Alignments | null = null;
    if (updateDue(mixer, state)) {
      // Where all steps overflowed there is nothing to ask the rule about.
      const found = gathers && gathered.domainOf.length === 0 ? null : await measure();
      gathered = nothing();
      if (found !== null) {
        ({ alignments } = found);
        state = updated(found.signal);
        drawn = null;
      }
    }
    return { ...trained, alignments };
  }

  /** The mixer's state after a signal. What was measured at parameters that blew up is not finite, so the advice is that of a lost loss. */
  function updated(signal: Signal): MixerState {
    try {
      return update(mixer, state, signal);
    } catch (error) {
      if (!(error instanceof GradmixError) || error.code !== "numeric") throw error;
      throw new GradmixError("numeric", `${error.message}, at step ${state.steps}; lower the learning rate`, {
        cause: error,
      });
    }
  }

  /** The optimizer's step, without the mixer's. */
  async function train(lr: number): Promise<Omit<TrainStep, "alignments">> {
    const step = state.steps + 1;
    const { weights, alpha, choice } = drawing();
    // Steps of a warm-up that no update covers measure nothing.
    const since = state.steps - (nextUpdate(mixer, state.steps) - mixer.updateEvery);
    const observed = notes && since >= 0;
    const aligned = gathers && observed;
    if (aligned && (gathered.targetNorms.length === 0 || since % refreshEvery === 0))
      await refreshDirection();
    const rows = assembleBatch(sampler.draw(choice, batch), domains, { sortByDomain: true });
    const lossScale = scale?.step.scale ?? null;
    const told = await trainingGradient(rows, lossScale ?? 1, aligned, observed && plan.reference);
    const { losses } = told;
    const { gradNorm, overflowed } = await optimize(lr, told);
    const skipped = overflowed && !Number.isFinite(gradNorm);
    const tokens = tokenCount(rows);
    const loss = total(losses) / tokens;
    if (
      !Number.isFinite(loss) ||
      (!Number.isFinite(gradNorm) && (lossScale === null || lossScale === scaling?.min))
    )
      throw new GradmixError(
        "numeric",
        `the ${Number.isFinite(loss) ? "gradient" : "loss"} became ${Number.isFinite(loss) ? gradNorm : loss} at step ${step}; lower the learning rate`,
      );
    // The losses of a step that overflowed are right, its alignments are not.
    if (observed && !(overflowed && gathers)) note(rows, told);
    seen += tokens;
    lastLoss = loss;
    state = advance(state);
    return {
      step,
      tokens: seen,
      loss,
      gradNorm,
      lossScale,
      skipped,
      lr,
      weights,
      domainWeights: alpha,
      trained: lossByDomain(losses, rows).map(([domain, loss]) => ({
        domain,
        loss,
        ...sampler.seen(domain),
      })),
    };
  }

  async function save(): Promise<Checkpoint> {
    unspoiled();
    const array = async (t: Tensor): Promise<Float32Array> => Float32Array.from(await t.data());
    const value = await array(parameters.value);
    // The last update may have overflowed where loss and gradient had not; such a state must not replace a good one.
    if (!value.every(Number.isFinite))
      throw new GradmixError(
        "numeric",
        `the parameters are no longer finite after step ${state.steps}; lower the learning rate`,
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
        gathered: structuredClone(gathered),
        ...(scale === null ? {} : { lossScale: { ...scale } }),
        ...(directionScale === 1 ? {} : { directionScale }),
        ...(bases === undefined ? {} : { bases: fingerprint(bases) }),
      },
      arrays: {
        value,
        m: await array(optimizer.m.arena),
        v: await array(optimizer.v.arena),
        ...(gathers && direction !== null ? { direction: await array(direction.arena) } : {}),
      },
    };
  }

  function restore(checkpoint: Checkpoint): void {
    const wanted = new Map<string, Tensor>([
      ["value", parameters.value],
      ["m", optimizer.m.arena],
      ["v", optimizer.v.arena],
    ]);
    if (gathers && direction !== null) wanted.set("direction", direction.arena);
    const sizes = new Map([...wanted].map(([name, arena]) => [name, arena.size]));
    const { json, arrays, ...saved } = readSaved(checkpoint, { mixer, bases, domains: k, scaling, sizes });
    const samplers = { sampler, alignmentSampler, targetSampler };
    const before = Object.values(samplers).map((one) => [one, one.state()] as const);
    try {
      for (const [name, one] of Object.entries(samplers)) one.restore(json[name]);
    } catch (error) {
      for (const [one, own] of before) one.restore(own);
      throw error;
    }
    // From here on nothing can be wrong with the checkpoint. A device that fails half-way leaves no state to go on from.
    spoiled = new GradmixError("checkpoint", "the checkpoint was not written whole to the device");
    for (const [name, arena] of wanted) arena.write(arrays.get(name) ?? []);
    optimizer.steps = saved.optimizerSteps;
    ({ tokens: seen, loss: lastLoss, gathered, scales: scale, directionScale, mixer: state } = saved);
    drawn = null;
    spoiled = null;
  }

  const turns = createTurns("trainer");
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
    weights() {
      const own = { final: currentWeights(state), averaged: averageWeights(state) };
      const domainsOwn =
        bases === undefined
          ? own
          : { final: mixtureOf(bases, own.final), averaged: mixtureOf(bases, own.averaged) };
      return { ...own, domains: domainsOwn };
    },
    seen: (domain) => sampler.seen(domain),
    step: () => turns.run("step", step),
    evaluate: (windows, tokens, signal) =>
      turns.run("evaluate", () => meanLoss(model, windows, tokens, batch, signal)),
    save: () => turns.run("save", save),
    restore: (checkpoint) => turns.now("restore", () => restore(checkpoint)),
    dispose: () => turns.end("dispose", arenas.dispose),
  };
  return trainer;
}

interface Arenas {
  readonly optimizer: AdamW;
  readonly gradient: Arena;
  readonly direction: Arena | null;
  dispose(): void;
}

/** All that a trainer holds on the device; when memory runs out, what was taken goes back. */
function makeArenas(parameters: Parameters, options: AdamWOptions | undefined, directed: boolean): Arenas {
  const made: { dispose(): void }[] = [];
  const own = <T extends { dispose(): void }>(it: T): T => {
    made.push(it);
    return it;
  };
  const dispose = (): void => {
    for (const it of made) it.dispose();
  };
  return orDispose(
    () => ({
      optimizer: own(adamw(parameters, options)),
      gradient: own(arenaLike(parameters)),
      direction: directed ? own(arenaLike(parameters)) : null,
      dispose,
    }),
    { dispose },
  );
}

/** Windows of a shared batch, for each `domainExamples`. */
const SHARED = 16;

/** What a training gradient told of its examples, like `Gathered`; lists that are not asked for are empty. */
type Told = { readonly losses: Float64Array; readonly pairs: readonly Pairs[] } & Readonly<
  Record<"dots" | "squaredNorms" | "referenceLosses", ArrayLike<number>>
>;

/** Of one domain in a step: sums over ordered pairs of its examples (gathered.ts). */
interface Pairs {
  readonly domain: number;
  readonly dots: number;
  readonly tokens: number;
}

/** Where each domain of the rows, which are sorted by it, begins, and where the last ends. */
function domainOffsets({ domainOf }: TokenBatch): number[] {
  const offsets = [0];
  for (let e = 1; e < domainOf.length; e++) if (domainOf[e] !== domainOf[e - 1]) offsets.push(e);
  return [...offsets, domainOf.length];
}

/** ‖Σ dₛ‖² − Σ ‖dₛ‖² and (Σ nₛ)² − Σ nₛ² of every domain with two examples or more. */
function pairsOf(
  { domainOf, tokens }: TokenBatch,
  offsets: readonly number[],
  squares: Float64Array,
  groupSquares: Float64Array,
): Pairs[] {
  return offsets.slice(0, -1).flatMap((first, g) => {
    const end = offsets[g + 1];
    const own = tokens.subarray(first, end);
    const pairs = total(own) ** 2 - total(own.map((n) => n * n));
    if (pairs === 0) return [];
    return [
      { domain: domainOf[first], dots: groupSquares[g] - total(squares.subarray(first, end)), tokens: pairs },
    ];
  });
}

/** Is every number in it finite? */
function allFinite(value: unknown): boolean {
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || value === null) return true;
  return Object.values(value).every(allFinite);
}

/** The reference model's summed losses of the rows. */
async function referenceOf(reference: LossModel, rows: TokenBatch): Promise<Float64Array> {
  return take(
    keep(
      scope(() => {
        const { inputs, targets } = upload(rows);
        return reference.losses(inputs, targets);
      }),
    ),
  );
}

/** Mean loss per token of each domain that the rows hold, which are sorted by domain. */
function lossByDomain(losses: Float64Array, { domainOf, tokens }: TokenBatch): [number, number][] {
  const out: [number, number][] = [];
  for (let first = 0, end = 0; first < losses.length; first = end) {
    while (end < losses.length && domainOf[end] === domainOf[first]) end++;
    const count = total(tokens.subarray(first, end));
    out.push([domainOf[first], total(losses.subarray(first, end)) / Math.max(1, count)]);
  }
  return out;
}
