/**
 * Mixtures for other trainers: from a run's weights to the files that they read. Pure functions of plain data; nothing is read or written.
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
