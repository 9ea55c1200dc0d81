/** Measures what the rule needs at the current parameters, and makes the rule's signal of it. */
import { tokenCount } from "../nn/examples.ts";
import type { Examples } from "../nn/model.ts";
import { areDomains, type Bases } from "./bases.ts";
import { estimateAlignments, estimateGram, exampleNumbers, targetDirection } from "./estimators.ts";
import { gather, gatheredAlignments, lossesByDomain } from "./gathered.ts";
import { allFinite, backoff, grow } from "./loss-scale.ts";
import type { Alignments } from "./measurements.ts";
import { currentWeights } from "./mixer.ts";
import type { EstimateOptions } from "./passes.ts";
import { hardlyDrawn, measuredSteps, signalOf, wantNorms } from "./plan.ts";
import { basisAlignments, proposal } from "./reweighting.ts";
import type { Signal } from "./rule.ts";
import { currentMixture, directionOf, type Training } from "./training.ts";

/** A signal, with those measurements that a log shows. */
export interface Measured {
  readonly signal: Signal;
  readonly alignments: Alignments | null;
}

/** Measures everything that the rule needs. */
export async function measure<B extends Examples>(training: Training<B>): Promise<Measured> {
  const { plan, drawing, gathers, options } = training;
  const tokensSeen = { tokensSeen: drawing.tokens() };
  if (plan.aligns) {
    const alignments = gathers ? fromSteps(training) : await fromBatch(training);
    const ofTarget = options.target === null ? {} : { targetExamples: options.target.count };
    return {
      signal: { ...signalOf(options.mixer.rule, alignments), ...ofTarget, ...tokensSeen },
      alignments,
    };
  }
  const signal = plan.gram
    ? await gramOf(training)
    : plan.targets
      ? await targetsOf(training)
      : lossesOfSteps(training);
  return { signal: { ...signal, ...tokensSeen }, alignments: null };
}

/**
 * Computes the target's gradient into `direction`, for the next training steps. With `probing`, at the first measured step after an update, it also
 * measures the probes with it.
 */
export async function refreshDirection<B extends Examples>(
  training: Training<B>,
  probing: boolean,
): Promise<void> {
  const { options, drawing, state } = training;
  const direction = directionOf(training);
  const target = drawing.target(0);
  const domainOf = probing ? probedDomains(training) : [];
  const probes = domainOf.length === 0 ? null : drawing.examplesOf(domainOf);
  const found = await measured(training, async (estimation) => {
    state.directionScale = estimation.lossScale ?? 1;
    const ofTarget = await targetDirection(options.model, target, direction, estimation);
    return probes === null
      ? { ...ofTarget, ...nothingProbed }
      : { ...ofTarget, ...(await exampleNumbers(options.model, probes, direction, estimation)) };
  });
  state.gathered.targetLosses.push(found.targetLoss);
  state.gathered.targetNorms.push(found.targetNorm);
  const { tokens, losses, dots, squaredNorms = [] } = found;
  gather(state.gathered, { domainOf, tokens, losses, dots, squaredNorms, referenceLosses: [], pairs: [] });
}

const nothingProbed = { tokens: [], losses: new Float64Array(0), dots: new Float64Array(0) };

/**
 * The domains to probe, one example each: those whose turn it is among the domains that the steps up to the next update hardly draw. While the set of
 * these domains stays the same, each has its turn equally often.
 */
function probedDomains<B extends Examples>(training: Training<B>): number[] {
  const { options, alignment, state } = training;
  if (alignment.probes === 0 || options.bases !== undefined) return [];
  const { domainWeights } = currentMixture(training);
  const rare = hardlyDrawn(
    domainWeights,
    options.batch * measuredSteps(options.mixer.updateEvery, alignment),
  );
  return inTurn(rare, state.mixer.rule.updates, alignment.probes);
}

/** The domains of this turn, ascending. Each turn takes the next `most` domains, and `turns` turns have passed. */
function inTurn(domains: readonly number[], turns: number, most: number): number[] {
  const count = Math.min(most, domains.length);
  return Array.from({ length: count }, (_, j) => domains[(turns * most + j) % domains.length]!).sort(
    (a, b) => a - b,
  );
}

/** Alignments from what the training steps collected. */
function fromSteps<B extends Examples>(training: Training<B>): Alignments {
  const { options, state } = training;
  const { domainWeights } = currentMixture(training);
  return gatheredAlignments(state.gathered, options.domains.length, options.bases, domainWeights);
}

/** Alignments from a separate batch. */
async function fromBatch<B extends Examples>(training: Training<B>): Promise<Alignments> {
  const { options, alignment, drawing } = training;
  const { model, bases } = options;
  const target = drawing.target(0);
  if (bases !== undefined && alignment.bases !== "direct" && !areDomains(bases))
    return fromShared(training, bases, target);
  const batches = drawing.alignment();
  return measured(training, (estimation) =>
    estimateAlignments(alignment.estimator, model, target, batches, estimation),
  );
}

/** Alignments of the bases from one batch that all of them share. */
async function fromShared<B extends Examples>(
  training: Training<B>,
  bases: Bases,
  target: B,
): Promise<Alignments> {
  const { options, drawing, state } = training;
  const direction = directionOf(training);
  const q = proposal(bases, currentWeights(state.mixer));
  const { batch, domainOf } = drawing.shared(q);
  const { targetLoss, targetNorm, tied, ...numbers } = await measured(training, async (estimation) => ({
    ...(await targetDirection(options.model, target, direction, estimation)),
    ...(await exampleNumbers(options.model, batch, direction, estimation)),
  }));
  const found = basisAlignments(bases, q, { ...numbers, domainOf });
  const { losses = new Float64Array(bases.names.length) } = found;
  return { ...found, losses, targetLoss, targetNorm, ...(tied === undefined ? {} : { tied }) };
}

async function gramOf<B extends Examples>(training: Training<B>): Promise<Signal> {
  const batches = training.drawing.alignment();
  const { model } = training.options;
  const { gram, losses } = await measured(training, (estimation) => estimateGram(model, batches, estimation));
  return { gram, losses, tokens: Float64Array.from(batches, tokenCount) };
}

/** Alignments with every target; all of them use the same batch of the domains. */
async function targetsOf<B extends Examples>(training: Training<B>): Promise<Signal> {
  const { options, alignment, drawing } = training;
  const { model, mixer, target, targets = new Map<string, unknown>() } = options;
  const batches = drawing.alignment();
  const found = [];
  for (const [t, name] of [...targets.keys()].entries()) {
    const ofTarget = drawing.target(t + (target === null ? 0 : 1));
    const own = await measured(training, (estimation) =>
      estimateAlignments(alignment.estimator, model, ofTarget, batches, estimation),
    );
    found.push({ name, own });
  }
  // A plan with several targets has at least one.
  const { norms, tied, losses } = found[0]!.own;
  wantNorms(mixer.rule, norms, tied);
  return {
    targets: found.map(({ name, own }) => ({
      name,
      alignments: own.alignments,
      norm: own.targetNorm,
      loss: own.targetLoss,
    })),
    losses,
    tokens: Float64Array.from(batches, tokenCount),
    ...(norms === undefined ? {} : { norms }),
  };
}

function lossesOfSteps<B extends Examples>({ options, plan, state }: Training<B>): Signal {
  const { referenceLosses, ...own } = lossesByDomain(state.gathered, options.domains.length);
  return { ...own, ...(plan.reference ? { referenceLosses } : {}) };
}

/** Runs a measurement. With loss scaling, it is repeated at half the scale while the numbers overflow, since an overflow does not end a run. */
async function measured<B extends Examples, T extends Partial<Pick<Alignments, "losses" | "targetLoss">>>(
  training: Training<B>,
  pass: (options: EstimateOptions) => Promise<T>,
): Promise<T> {
  const { scaling, state } = training;
  const estimation = estimationOf(training);
  for (;;) {
    if (scaling === null || state.scales === null) return pass(estimation);
    const { alignment } = state.scales;
    const found = await pass({ ...estimation, lossScale: alignment.scale });
    const finite = allFinite(found);
    state.scales.alignment = finite ? grow(alignment, scaling) : backoff(alignment, scaling);
    // Losses that are not finite come from the forward pass, where no scale is applied.
    if (finite || alignment.scale === scaling.min || !allFinite([found.losses, found.targetLoss]))
      return found;
  }
}

function estimationOf<B extends Examples>({
  options,
  alignment,
  plan,
  device,
}: Training<B>): EstimateOptions {
  const { domainExamples, parameters } = alignment;
  const { direction, optimizer } = device;
  // Before the first step there are no moments yet.
  const precondition = plan.preconditioned ? (optimizer.preconditioner?.() ?? null) : null;
  return {
    maxExamples: Math.max(options.batch, domainExamples),
    ...(direction === null ? {} : { direction }),
    ...(parameters === undefined ? {} : { parameters }),
    ...(precondition === null ? {} : { precondition }),
  };
}
