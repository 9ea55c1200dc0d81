/**
 * What a run's alignments will cost, counted before it begins: in forward passes of one example, of which a training step takes three for each example of its
 * batch (a backward pass multiplies twice as much as a forward pass). Pure counting, the same on every machine; what a pass costs beside another one was
 * measured by `npm run bench -- alignment` (README, "How fast").
 */
import { areDomains, type Bases } from "./bases.ts";
import { SHARED } from "./drawing.ts";
import { GRAM_HELD } from "./estimators.ts";
import { type Mixer, nextUpdate } from "./mixer.ts";
import { planOf } from "./plan.ts";
import type { alignmentDefaults } from "./trainer-options.ts";

/** Forward passes that a forward and a backward pass of one example are worth. */
export const GRADIENT = 3;

/** What a pass costs more that also yields every example's alignment and norm, as a share of the pass: the median of `segmented` less 1, whatever k is. */
const SINK = 0.04;

/** One sketching pass over one pass with gradients of the same examples: `sketch` is 0.6 to 0.9. */
const SKETCH = 0.75;

/** A gradient of few examples over its share of one of many: `perDomain` takes 1.2 to 1.4 times what its windows would in one pass. */
const FEW = 1.25;

/** All that the cost depends on. */
export interface CostFacts {
  readonly mixer: Mixer;
  readonly alignment: typeof alignmentDefaults;
  readonly bases: Bases | null;
  /** Of rules that ask for several. */
  readonly targets: number;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Examples in a step. */
  readonly batch: number;
}

/** Updates of the weights in a run of `steps`. */
export function updatesWithin(mixer: Mixer, steps: number): number {
  const first = nextUpdate(mixer, 0);
  return steps < first ? 0 : 1 + Math.floor((steps - first) / mixer.updateEvery);
}

/** Forward passes of one example that a run takes for what its rule asks for, beside those of its training. */
export function measuringPasses(facts: CostFacts): number {
  const { mixer, alignment, batch, steps, targets } = facts;
  const plan = planOf(mixer.rule.needs);
  const updates = updatesWithin(mixer, steps);
  const observed = observedSteps(mixer, steps);
  const target = GRADIENT * alignment.targetExamples;
  if (plan.aligns && alignment.from === "step")
    return Math.ceil(observed / alignment.refreshEvery) * target + observed * GRADIENT * batch * SINK;
  if (plan.aligns) return updates * aligning(facts);
  if (plan.gram) return updates * gramPasses(mixer.domains.length) * gradientsOfFew(alignment.domainExamples);
  if (plan.targets) return updates * targets * aligning(facts);
  // The reference model is taken to be as large as the one that is trained.
  return plan.reference ? observed * batch : 0;
}

/** Steps whose examples are looked at where training steps are: all but those of a warm-up that no update covers. */
function observedSteps(mixer: Mixer, steps: number): number {
  return Math.max(0, steps - (nextUpdate(mixer, 0) - mixer.updateEvery));
}

/** Of one target's alignments with all domains, or bases, from a batch of their own. */
function aligning({ mixer, alignment, bases }: CostFacts): number {
  const { estimator, domainExamples, targetExamples } = alignment;
  const target = GRADIENT * targetExamples;
  const shared = bases !== null && alignment.bases !== "direct" && !areDomains(bases);
  const examples = shared ? SHARED * domainExamples : mixer.domains.length * domainExamples;
  const inOnePass = GRADIENT * examples;
  switch (estimator) {
    case "segmented":
      return target + inOnePass * (1 + SINK);
    case "forward":
      // `forward` is 0.88 to 1.18 of a pass with gradients.
      return target + inOnePass;
    case "sketch":
      return (target + inOnePass) * SKETCH;
    case "perDomain":
      return target + mixer.domains.length * gradientsOfFew(domainExamples);
  }
}

const gradientsOfFew = (examples: number): number => GRADIENT * examples * FEW;

/** Gradients that a Gram matrix of k takes: those of a block, and for each block those of all domains after it. */
function gramPasses(k: number): number {
  let passes = 0;
  for (let first = 0; first < k; first += GRAM_HELD) passes += k - first;
  return passes;
}
