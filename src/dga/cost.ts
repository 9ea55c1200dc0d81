/**
 * Counts what a run's alignments cost before it begins, in forward passes of one example. A training step takes three of these per example of its
 * batch, because a backward pass multiplies twice as much as a forward pass. The count is the same on every machine; the relative costs of the passes
 * were measured once and are constants here.
 */
import type { ParameterSpec } from "../nn/parameters.ts";
import type { AlignmentOptions } from "./alignment-options.ts";
import { areDomains, type Bases } from "./bases.ts";
import { SHARED } from "./drawing.ts";
import { GRAM_HELD } from "./estimators.ts";
import { type Mixer, nextUpdate } from "./mixer.ts";
import { hardlyDrawn, measuredSteps, planOf, targetRefreshes } from "./plan.ts";
import { backwardShare } from "./selection.ts";
import { alignedParameters, resolveAlignment, type ResolvedAlignment } from "./trainer-options.ts";

/** A backward pass of one example, in forward passes. */
const BACKWARD = 2;
/** A forward and a backward pass of one example, in forward passes. */
export const GRADIENT: number = 1 + BACKWARD;

/**
 * A pass that also computes the alignment and norm of every example costs as if each example had this many more tokens: it reads every weight once
 * more per example, however long the example is. `npm run bench -- alignment`: 1.02 to 1.08 at 64 tokens; `-- step`: 1.00 to 1.02 at 256.
 */
const SINK_TOKENS = 4;
/** For very short examples, alignments are computed in another way, which costs about half a pass (`npm run bench -- segments`). */
const MOST_SINK = 0.5;

/** Cost of a sketching pass relative to one with gradients of the same examples: 0.6 to 0.9 in `bench -- alignment`. */
const SKETCH = 0.75;

/**
 * The gradient of n examples in a pass of their own costs 1 + 0.25/n times as much as in a larger pass: `perDomain` takes 1.2 to 1.4 times as long
 * for single windows in `bench -- alignment`, and 1.04 times for four windows.
 */
const SEPARATE_PASS = 0.25;

/** Cost of the gradients of a Gram matrix with their inner products, relative to the gradients alone: 1.23 with 24 domains of four windows. */
const GRAM = 1.25;

/** Everything that the cost depends on. */
export interface CostFacts {
  readonly mixer: Mixer;
  readonly alignment: AlignmentOptions;
  readonly bases: Bases | null;
  /** The parameters of the model. Where those that are aligned begin, the backward passes of the measurements end. */
  readonly specs: readonly ParameterSpec[];
  /** Number of targets, for rules that need several. */
  readonly targets: number;
  /** Training steps of the whole run. */
  readonly steps: number;
  /** Examples per step. */
  readonly batch: number;
  /** Tokens per example. */
  readonly time: number;
}

/** Number of weight updates in a run of `steps` steps. */
export function updatesWithin(mixer: Mixer, steps: number): number {
  const first = nextUpdate(mixer, 0);
  return steps < first ? 0 : 1 + Math.floor((steps - first) / mixer.updateEvery);
}

/** Forward passes of one example that a run spends on the measurements of its rule, in addition to its training. */
export function measuringPasses(facts: CostFacts): number {
  const { mixer, batch, steps, targets } = facts;
  const alignment = resolveAlignment(facts.alignment, mixer);
  const plan = planOf(mixer.rule.needs);
  const updates = updatesWithin(mixer, steps);
  const observed = observedSteps(mixer, steps);
  const { gradient, inner } = perExample(alignment, facts);
  const target = gradient * alignment.targetExamples;
  if (plan.aligns && alignment.from === "step") {
    // Measured steps and refreshes are counted from each update.
    const inAll = (of: (steps: number) => number): number =>
      Math.floor(observed / mixer.updateEvery) * of(mixer.updateEvery) + of(observed % mixer.updateEvery);
    return (
      Math.ceil(observed / mixer.updateEvery) * probing(alignment, facts) +
      inAll((count) => targetRefreshes(count, alignment)) * target +
      inAll((count) => measuredSteps(count, alignment)) * batch * inner
    );
  }
  if (plan.aligns) return updates * aligning(facts);
  if (plan.gram)
    return updates * gramPasses(mixer.domains.length) * gradient * alignment.domainExamples * GRAM;
  if (plan.targets) return updates * targets * aligning(facts);
  // The reference model is assumed to be as large as the trained one.
  return plan.reference ? observed * batch : 0;
}

/** Cost of the examples of domains that the steps hardly draw, for one update with the first weights. */
function probing(alignment: ResolvedAlignment, facts: CostFacts): number {
  const { mixer, bases, batch } = facts;
  const { gradient, inner } = perExample(alignment, facts);
  const rare = hardlyDrawn(mixer.initial.rule.weights, batch * measuredSteps(mixer.updateEvery, alignment));
  const examples = bases === null ? Math.min(alignment.probes, rare.length) : 0;
  return examples === 0 ? 0 : examples * (gradient + inner) + gradient * SEPARATE_PASS;
}

/** Number of training steps whose examples are measured if alignments come from training steps: all but those of a warm-up that no update covers. */
function observedSteps(mixer: Mixer, steps: number): number {
  return Math.max(0, steps - (nextUpdate(mixer, 0) - mixer.updateEvery));
}

/** For one example, the cost of the gradient of the aligned parameters, and what its inner product adds to a pass that computes the gradient. */
function perExample(
  alignment: ResolvedAlignment,
  { specs, time }: CostFacts,
): { readonly gradient: number; readonly inner: number } {
  const share = backwardShare(specs, alignedParameters(alignment, specs));
  return {
    gradient: 1 + share * BACKWARD,
    inner: share * GRADIENT * Math.min(MOST_SINK, SINK_TOKENS / time),
  };
}

/** Cost of one target's alignments with all domains, or bases, from a batch of their own. */
function aligning(facts: CostFacts): number {
  const { mixer, alignment, bases } = facts;
  const resolved = resolveAlignment(alignment, mixer);
  const { estimator, domainExamples, targetExamples } = resolved;
  const { gradient, inner } = perExample(resolved, facts);
  const target = gradient * targetExamples;
  const shared = bases !== null && alignment.bases !== "direct" && !areDomains(bases);
  const examples = shared ? SHARED * domainExamples : mixer.domains.length * domainExamples;
  const inOnePass = gradient * examples;
  switch (estimator) {
    case "segmented":
      return target + inOnePass + examples * inner;
    case "forward":
      // Measured at 0.88 to 1.18 of a pass with gradients.
      return target + inOnePass;
    case "sketch":
      return (target + inOnePass) * SKETCH;
    case "perDomain":
      return target + mixer.domains.length * gradient * (domainExamples + SEPARATE_PASS);
  }
}

/** Number of gradients that a Gram matrix of k domains needs: those of each block, and for each block those of all domains after it. */
function gramPasses(k: number): number {
  let passes = 0;
  for (let first = 0; first < k; first += GRAM_HELD) passes += k - first;
  return passes;
}
