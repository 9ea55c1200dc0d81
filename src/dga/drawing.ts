/** Draws domains from the weights, and batches from the domains, for training, alignments and targets. Each has its own random stream from one seed. */
import type { Choice } from "../data/alias.ts";
import { byDomain } from "../data/batch.ts";
import { assemble } from "../data/dataset.ts";
import { createSampler, type Draw, type Sampler, type SamplerState } from "../data/sampler.ts";
import type { Examples } from "../nn/model.ts";
import { mixtureOf } from "./bases.ts";
import { basisChoice } from "./reweighting.ts";
import type { Weights } from "./simplex.ts";
import { resolveAlignment, type TrainerOptions } from "./trainer-options.ts";

/** A batch with the domain of each of its examples. */
export interface Drawn<B extends Examples> {
  readonly batch: B;
  readonly domainOf: Int32Array;
}

/** Weights of the mixer, the domain weights that follow from them, and the prepared sampler for these. */
export interface Mixture {
  readonly weights: Weights;
  /** One weight per domain: `weights`, or with bases their mixture. */
  readonly domainWeights: Weights;
  readonly choice: Choice;
}

export interface Drawing<B extends Examples> {
  /** Prepares a mixture for any number of steps with these weights. */
  prepare(weights: Weights): Mixture;
  /** The next training batch, sorted by domain. */
  training(mixture: Mixture): Drawn<B>;
  /** One example of each of these domains, for an alignment. */
  examplesOf(domains: readonly number[]): B;
  /** A batch of every domain, or of every basis, for an alignment. */
  alignment(): B[];
  /** One batch for all bases, drawn with the weights `q` of the domains. */
  shared(q: Weights): Drawn<B>;
  /** The next batch of target t. Target 0 is `target` if there is one; `targets` follow in their order. */
  target(t: number): B;
  /** Training tokens of every domain so far. */
  tokens(): readonly number[];
  /** Training tokens and epochs of one domain so far. */
  seen(domain: number): { readonly tokens: number; readonly epochs: number };
  state(): DrawingState;
  /** Continues from a saved state. Throws `checkpoint`; then nothing has changed. */
  restore(state: Readonly<Record<keyof DrawingState, unknown>>): void;
}

/** The state as it is saved in a checkpoint. */
export interface DrawingState {
  readonly sampler: SamplerState;
  readonly alignmentSampler: SamplerState;
  readonly targetSampler: SamplerState;
}

const ALIGNMENT_STREAM = 1_000_003;
const TARGET_STREAM = 2_000_003;

/** Examples of a shared batch per `domainExamples`. */
export const SHARED = 16;

/** The seed of another stream: the sum modulo 2⁵³. Every seed has one, and different seeds give different ones for the same constant. */
function streamSeed(seed: number, stream: number): number {
  const room = Number.MAX_SAFE_INTEGER - seed;
  return stream <= room ? seed + stream : stream - room - 1;
}

export function createDrawing<B extends Examples>(options: TrainerOptions<B>): Drawing<B> {
  const { domains, bases, seed, batch, sampling } = options;
  const { domainExamples, targetExamples } = resolveAlignment(options.alignment, options.mixer);
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
    examplesOf: (of) =>
      assemble(
        of.flatMap((domain) => alignmentSampler.drawFrom(domain, 1)),
        domains,
      ),
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

/** Restores all samplers or none. */
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
