/**
 * Exports mixtures to other trainers: makes the files that they read from a run's weights. Pure functions on plain data; nothing is read or written.
 *
 * @module gradmix/export
 */
export { exportFormats, exportMixture, type Exported, type ExportOptions } from "./export.ts";
export type { Entry, ExportedFile, ExportFormat, FormatOutput, Plan, PlannedStage, Unit } from "./format.ts";
export {
  type Mixture,
  type MixtureDomain,
  type MixtureSource,
  type MixtureStage,
  recommendedWeights,
  type WeightsKind,
} from "./mixture.ts";
export { mixtureOfRun, type OfRunOptions } from "./of-run.ts";
export { fitStages, type TrajectoryPiece } from "./stages.ts";
