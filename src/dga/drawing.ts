/** Drawing: from weights to draws to batches, of the training, the alignments and the targets. Each has a stream of its own from one seed. */
import type { Choice } from "../data/alias.ts";
import { byDomain } from "../data/batch.ts";
import { assemble } from "../data/dataset.ts";
import { createSampler, type Draw, type Sampler, type SamplerState } from "../data/sampler.ts";
import type { Examples } from "../nn/model.ts";
import { withDefaults } from "../options.ts";
import { mixtureOf } from "./bases.ts";
import { basisChoice } from "./reweighting.ts";
import type { Weights } from "./simplex.ts";
import { alignmentDefaults, type TrainerOptions } from "./trainer-options.ts";

/** A batch, and the domain of each of its examples. */
export interface Drawn<B extends Examples> {
  readonly batch: B;
  readonly domainOf: Int32Array;
}

/** Weights of the mixer, what they make of the domains, and this made ready to be drawn with. */
export interface Mixture {
  readonly weights: Weights;
  /** One a domain: `weights`, or with bases their mixture. */
  readonly domainWeights: Weights;
  readonly choice: Choice;
}

export interface Drawing<B extends Examples> {
  /** Ready for any number of steps with these weights. */
  prepare(weights: Weights): Mixture;
  /** The next training batch, sorted by domain. */
  training(mixture: Mixture): Drawn<B>;
  /** A batch of every domain, or of every basis, for an alignment. */
  alignment(): B[];
  /** One batch for all bases, drawn with the weights `q` of the domains. */
  shared(q: Weights): Drawn<B>;
  /** The next batch of target t: `target`, if there is one, then `targets` in their order. */
  target(t: number): B;
  /** Training tokens of every domain so far. */
  tokens(): readonly number[];
  /** Both of one domain. */
  seen(domain: number): { readonly tokens: number; readonly epochs: number };
  state(): DrawingState;
  /** Throws `checkpoint`; then nothing was changed. */
  restore(state: Readonly<Record<keyof DrawingState, unknown>>): void;
}

/** As it stands in a checkpoint. */
export interface DrawingState {
  readonly sampler: SamplerState;
  readonly alignmentSampler: SamplerState;
  readonly targetSampler: SamplerState;
}

const ALIGNMENT_STREAM = 1_000_003;
const TARGET_STREAM = 2_000_003;

/** Examples of a shared batch, for each `domainExamples`. */
export const SHARED = 16;

/** The seed of another stream: the sum modulo 2⁵³, so that every seed has one, and different ones from the same constant are different. */
function streamSeed(seed: number, stream: number): number {
  const room = Number.MAX_SAFE_INTEGER - seed;
  return stream <= room ? seed + stream : stream - room - 1;
}

export function createDrawing<B extends Examples>(options: TrainerOptions<B>): Drawing<B> {
  const { domains, bases, seed, batch, sampling } = options;
  const { domainExamples, targetExamples } = withDefaults(alignmentDefaults, options.alignment);
  const targets = [
    ...(options.target === null ? [] : [options.target]),
    ...(options.targets?.values() ?? []),
  ];
  const sampler = createSampler({ domains, seed, ...(sampling === undefined ? {} : { mode: sampling }) });
  const alignmentSampler = createSampler({ domains, seed: streamSeed(seed, ALIGNMENT_STREAM) });
  const targetSampler = createSampler({ domains: targets, seed: streamSeed(seed, TARGET_STREAM) });
  const samplers = { sampler, alignmentSampler, targetSampler };

  const drawn = (draws: readonly Draw[]): Drawn<B> => ({
    batch: assemble(draws, domains),
    domainOf: Int32Array.from(draws, ({ domain }) => domain),
  });
  return {
    prepare(weights) {
      const domainWeights = bases === undefined ? weights : mixtureOf(bases, weights);
      return { weights, domainWeights, choice: sampler.prepare(domainWeights) };
    },
    training: ({ choice }) => drawn(byDomain(sampler.draw(choice, batch))),
    alignment() {
      if (bases === undefined)
        return domains.map((_, i) => assemble(alignmentSampler.drawFrom(i, domainExamples), domains));
      return bases.names.map((_, j) => {
        const own = bases.columns.subarray(bases.offsets[j], bases.offsets[j + 1]);
        const draws =
          own.length === 1
            ? alignmentSampler.drawFrom(own[0]!, domainExamples)
            : alignmentSampler.draw(basisChoice(bases, j), domainExamples);
        return assemble(draws, domains);
      });
    },
    shared: (q) => drawn(alignmentSampler.draw(alignmentSampler.prepare(q), SHARED * domainExamples)),
    target: (t) => assemble(targetSampler.drawFrom(t, targetExamples), targets),
    tokens: sampler.tokens,
    seen: sampler.seen,
    state: () => ({
      sampler: sampler.state(),
      alignmentSampler: alignmentSampler.state(),
      targetSampler: targetSampler.state(),
    }),
    restore: (state) => restoreAll(samplers, state),
  };
}

/** All of them or none. */
function restoreAll(
  samplers: Readonly<Record<keyof DrawingState, Sampler>>,
  state: Readonly<Record<keyof DrawingState, unknown>>,
): void {
  const before = Object.values(samplers).map((one) => [one, one.state()] as const);
  try {
    samplers.sampler.restore(state.sampler);
    samplers.alignmentSampler.restore(state.alignmentSampler);
    samplers.targetSampler.restore(state.targetSampler);
  } catch (error) {
    for (const [one, own] of before) one.restore(own);
    throw error;
  }
}
