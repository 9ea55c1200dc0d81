/**
 * What a run's alignments will cost, counted before it begins: in forward passes of one example, of which a training step takes three for each example of its
 * batch (a backward pass multiplies twice as much as a forward pass). Pure counting, the same on every machine; what one pass costs beside another was measured
 * once, and stands in the constants.
 */
import { areDomains, type Bases } from "./bases.ts";
import { SHARED } from "./drawing.ts";
import { GRAM_HELD } from "./estimators.ts";
import { type Mixer, nextUpdate } from "./mixer.ts";
import { measuredFrom, planOf } from "./plan.ts";
import { alignmentDefaults, type AlignmentOptions } from "./trainer-options.ts";
import { withDefaults } from "../options.ts";

/** Forward passes that a forward and a backward pass of one example are worth. */
export const GRADIENT = 3;

/**
 * A pass that also yields every example's alignment and norm costs as if each example had so many more tokens: every weight is met once more for each example,
 * however long that is. `npm run bench -- alignment`: 1.02 to 1.08 at 64 tokens; `-- step`: 1.00 to 1.02 at 256.
 */
const SINK_TOKENS = 4;
/** Of very short examples alignments are found in another way, which costs about half a pass (`npm run bench -- segments`). */
const MOST_SINK = 0.5;

/** A sketching pass over one with gradients of the same examples: 0.6 to 0.9 in `bench -- alignment`. */
const SKETCH = 0.75;

/**
 * The gradient of n examples alone costs 1 + 0.25/n times what it would among many: `perDomain`, of single windows, 1.2 to 1.4 times in `bench -- alignment`; of four windows
 * 1.04 times.
 */
const ALONE = 0.25;

/** Gradients of a Gram matrix with their inner products, over the gradients: 1.23 with 24 domains of four windows. */
const GRAM = 1.25;

/** All that the cost depends on. */
export interface CostFacts {
  readonly mixer: Mixer;
  readonly alignment: AlignmentOptions;
  readonly bases: Bases | null;
  /** Of rules that ask for several. */
  readonly targets: number;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Examples in a step. */
  readonly batch: number;
  /** Tokens in an example. */
  readonly time: number;
}

/** Updates of the weights in a run of `steps`. */
export function updatesWithin(mixer: Mixer, steps: number): number {
  const first = nextUpdate(mixer, 0);
  return steps < first ? 0 : 1 + Math.floor((steps - first) / mixer.updateEvery);
}

/** Forward passes of one example that a run takes for what its rule asks for, beside those of its training. */
export function measuringPasses(facts: CostFacts): number {
  const { mixer, batch, steps, targets, time } = facts;
  const alignment = withDefaults(alignmentDefaults, facts.alignment);
  const plan = planOf(mixer.rule.needs);
  const updates = updatesWithin(mixer, steps);
  const observed = observedSteps(mixer, steps);
  const target = GRADIENT * alignment.targetExamples;
  if (plan.aligns && measuredFrom(facts.alignment, plan) === "step")
    return (
      Math.ceil(observed / Math.min(mixer.updateEvery, alignment.refreshEvery)) * target +
      (observed / Math.min(mixer.updateEvery, alignment.measureEvery)) * GRADIENT * batch * sink(time)
    );
  if (plan.aligns) return updates * aligning(facts);
  if (plan.gram)
    return updates * gramPasses(mixer.domains.length) * GRADIENT * alignment.domainExamples * GRAM;
  if (plan.targets) return updates * targets * aligning(facts);
  // The reference model is taken to be as large as the one that is trained.
  return plan.reference ? observed * batch : 0;
}

/** Steps whose examples are looked at where training steps are: all but those of a warm-up that no update covers. */
function observedSteps(mixer: Mixer, steps: number): number {
  return Math.max(0, steps - (nextUpdate(mixer, 0) - mixer.updateEvery));
}

/** Of one target's alignments with all domains, or bases, from a batch of their own. */
function aligning({ mixer, alignment, bases, time }: CostFacts): number {
  const { estimator, domainExamples, targetExamples } = withDefaults(alignmentDefaults, alignment);
  const target = GRADIENT * targetExamples;
  const shared = bases !== null && alignment.bases !== "direct" && !areDomains(bases);
  const examples = shared ? SHARED * domainExamples : mixer.domains.length * domainExamples;
  const inOnePass = GRADIENT * examples;
  switch (estimator) {
    case "segmented":
      return target + inOnePass * (1 + sink(time));
    case "forward":
      // 0.88 to 1.18 of a pass with gradients.
      return target + inOnePass;
    case "sketch":
      return (target + inOnePass) * SKETCH;
    case "perDomain":
      return target + mixer.domains.length * GRADIENT * (domainExamples + ALONE);
  }
}

const sink = (time: number): number => Math.min(MOST_SINK, SINK_TOKENS / time);

/** Gradients that a Gram matrix of k takes: those of a block, and for each block those of all domains after it. */
function gramPasses(k: number): number {
  let passes = 0;
  for (let first = 0; first < k; first += GRAM_HELD) passes += k - first;
  return passes;
}
