/** Options that say how rules compare the domains with the target. */
import { alignmentDefaults, estimatorNames } from "../../dga/alignment-options.ts";
import { dgaDefaults } from "../../dga/rules/dga.ts";
import { choice, integer, share } from "./kinds.ts";
import type { SectionTable } from "./spec.ts";

export const alignmentOptions: SectionTable<"alignment"> = {
  from: {
    flag: "--align-from",
    formerly: { path: "mixing.alignFrom" },
    value: "batch|step",
    kind: choice(["batch", "step"]),
    default: null,
    auto: "step; batch for rules and options that need a separate batch",
    help: "the text whose gradients are aligned with the target: step, the batch of the training step (almost no extra cost); batch, a separate batch with windows of every domain",
  },
  estimator: {
    flag: "--align-estimator",
    formerly: { flag: "--estimator", path: "mixing.estimator" },
    value: "NAME",
    kind: choice(estimatorNames),
    default: null,
    auto: alignmentDefaults.estimator,
    help: "with --align-from batch, how alignments are computed: segmented (one backward pass for all domains), perDomain (one pass per domain), forward (one jvp), sketch (random projections, with an error of a few per cent)",
  },
  domainExamples: {
    flag: "--align-domain-examples",
    formerly: { flag: "--align-batch", path: "mixing.alignBatch" },
    value: "N",
    kind: integer(1, 65_536),
    default: null,
    auto: String(alignmentDefaults.domainExamples),
    help: "with --align-from batch: windows per domain in the batch",
  },
  targetExamples: {
    flag: "--align-target-examples",
    formerly: { flag: "--target-batch", path: "mixing.targetBatch" },
    value: "N",
    kind: integer(1, 65_536),
    default: null,
    auto: `${alignmentDefaults.targetExamples}; fewer if the weights are updated more often than every ${alignmentDefaults.refreshEvery} steps`,
    help: "windows of the target from which its gradient is computed",
  },
  refreshEvery: {
    flag: "--align-refresh-every",
    value: "N",
    kind: integer(1),
    default: null,
    otherwise: alignmentDefaults.refreshEvery,
    help: "with --align-from step: recompute the gradient of the target every N steps",
  },
  measureEvery: {
    flag: "--align-measure-every",
    value: "N",
    kind: integer(1),
    default: null,
    auto: `${alignmentDefaults.measureEvery}; ${dgaDefaults.schedules.withoutPrior.measureEvery} for dga without a prior`,
    help: "with --align-from step: measure alignments in one of every N steps",
  },
  probes: {
    flag: "--align-probes",
    value: "N",
    kind: integer(0),
    default: null,
    auto: `${dgaDefaults.schedules.aroundPrior.probes} for dga with a prior, fewer if the weights are updated more often than every ${alignmentDefaults.refreshEvery} steps; ${alignmentDefaults.probes} for others, and with --bases`,
    help: "with --align-from step: per update, also measure one window each of up to N domains that the measured steps hardly draw (less than one window expected)",
  },
  blockShare: {
    flag: "--align-block-share",
    value: "S",
    kind: share(),
    default: null,
    auto: `${dgaDefaults.schedules.aroundPrior.blockShare} for dga with a prior and --align-from step, unless the head is tied to the embedding; ${alignmentDefaults.blockShare} for others`,
    help: "compare the gradients of these parameters only: this share of the model's blocks, counted from the end and rounded up, and all parameters after them. 0: only those after the last block (the head); 1: all parameters",
  },
  bases: {
    flag: "--align-bases",
    formerly: { flag: "--basis-alignments", path: "mixing.basisAlignments" },
    value: "NAME",
    kind: choice(["shared", "direct"]),
    default: null,
    auto: alignmentDefaults.bases,
    help: "with --bases and --align-from batch: shared, one batch gives the alignments of all bases, by importance weights; direct, one batch per basis",
  },
};
