/**
 * Mixing: simplex arithmetic, rules, the mixer, alignment estimators, the trainer.
 *
 * @module gradmix/dga
 */
export * from "./simplex.ts";
export { alignmentsByDomain, type DomainAlignment, domainAlignments } from "./statistics.ts";
export { checkRange, type Range } from "../options.ts";
export type { ByDomain } from "./rules/by-domain.ts";
export type { Checkpoint, CheckpointArray } from "./checkpoint.ts";
export { mirrorStep } from "./mirror-step.ts";
export {
  type ChangeStep,
  type DomainNumbers,
  heldOutNumbers,
  type HeldOutNumbers,
  initialState,
  measuredDomains,
  need,
  needErrors,
  needGram,
  needTargetNorm,
  type Rule,
  type RuleState,
  type Signal,
  type RuleSchedule,
  type SignalName,
  type Step,
  type TargetSignal,
} from "./rule.ts";
export { createRule, ruleNames, type RuleName, type RuleOptions } from "./rules/index.ts";
export * as rules from "./rules/public.ts";
export {
  dgaDefaults,
  type DgaNormalisation,
  dgaNormalisations,
  type DgaOptions,
  paper,
  usualRepetitions,
} from "./rules/dga.ts";
export { type Normalisation, normalisations } from "./rules/normalisation.ts";
export type { AdoOptions } from "./rules/ado.ts";
export type { DogeOptions } from "./rules/doge.ts";
export type { DoremiOptions } from "./rules/doremi.ts";
export type { GrapeOptions } from "./rules/grape.ts";
export type { OdmOptions } from "./rules/odm.ts";
export type { RnbOptions } from "./rules/rnb.ts";
export type { TemperatureOptions } from "./rules/temperature.ts";
export type { ImportanceSamplingOptions } from "./rules/importance-sampling.ts";
export type { StaticOptions } from "./rules/static.ts";
export type { UniformOptions } from "./rules/uniform.ts";
export * as combinators from "./combinators/public.ts";
export { combinatorNames, type CombinatorOptions, combine } from "./combinators/index.ts";
export type { RunFacts } from "./facts.ts";
export { guardDefaults, type GuardOptions } from "./combinators/guard.ts";
export { type Bases, type BasesOptions, createBases, type Histogram, mixtureOf } from "./bases.ts";
export { parseBases, type ParseBasesOptions } from "./bases-text.ts";
export {
  basisAlignments,
  basisChoice,
  type BasisMeasurements,
  proposal,
  type ProposalOptions,
} from "./reweighting.ts";
export {
  advance,
  averageWeights,
  createMixer,
  currentWeights,
  type Mixer,
  type MixerOptions,
  type MixerState,
  restoreMixer,
  update,
  updateDue,
} from "./mixer.ts";
export type { Alignments, ExampleMeasurements, Measurements, TargetMeasurements } from "./measurements.ts";
export { type EstimateOptions, meanGradient } from "./passes.ts";
export { lastBlocks, type Selection } from "./selection.ts";
export { type EstimatorName, estimatorNames } from "./alignment-options.ts";
export { estimateAlignments, estimateGram, exampleNumbers, targetDirection } from "./estimators.ts";
export { type LossScaleOptions } from "./loss-scale.ts";
export { alignSketches, type Sketches, sketchGradients } from "./sketches.ts";
export {
  type AlignmentOptions,
  createTrainer,
  type HeldOutLosses,
  type HeldOutOptions,
  type TrainedDomain,
  type Trainer,
  type TrainerOptions,
  type TrainStep,
  type WeightPair,
} from "./trainer.ts";
