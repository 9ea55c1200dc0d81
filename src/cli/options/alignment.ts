/** How the rules that need it compare domains with the target. */
import { estimatorNames } from "../../dga/estimators.ts";
import { alignmentDefaults } from "../../dga/trainer-options.ts";
import { choice, whole } from "./kinds.ts";
import type { SectionTable } from "./spec.ts";

export const alignmentOptions: SectionTable<"alignment"> = {
  from: {
    flag: "--align-from",
    formerly: { path: "mixing.alignFrom" },
    value: "batch|step",
    kind: choice(["batch", "step"]),
    default: null,
    auto: "step; batch for rules that steps cannot measure for, and with options that only a batch has",
    help: "align the training step's own batch with the target (nearly free), or a separate batch with windows of every domain",
  },
  estimator: {
    flag: "--align-estimator",
    formerly: { flag: "--estimator", path: "mixing.estimator" },
    value: "NAME",
    kind: choice(estimatorNames),
    default: null,
    auto: alignmentDefaults.estimator,
    help: "with --align-from batch, how alignments are computed: segmented (one backward pass for all domains), perDomain (one each), forward (one jvp), sketch (random projections, in error by some per cent)",
  },
  domainExamples: {
    flag: "--align-domain-examples",
    formerly: { flag: "--align-batch", path: "mixing.alignBatch" },
    value: "N",
    kind: whole(1, 65_536),
    default: null,
    auto: String(alignmentDefaults.domainExamples),
    help: "with --align-from batch: windows per domain in an alignment batch",
  },
  targetExamples: {
    flag: "--align-target-examples",
    formerly: { flag: "--target-batch", path: "mixing.targetBatch" },
    value: "N",
    kind: whole(1, 65_536),
    default: alignmentDefaults.targetExamples,
    help: "windows of the target in an alignment",
  },
  refreshEvery: {
    flag: "--align-refresh-every",
    value: "N",
    kind: whole(1),
    default: alignmentDefaults.refreshEvery,
    help: "with --align-from step: steps between two refreshes of the target's gradient",
  },
  measureEvery: {
    flag: "--align-measure-every",
    value: "N",
    kind: whole(1),
    default: alignmentDefaults.measureEvery,
    help: "with --align-from step: of so many steps one measures its windows",
  },
  bases: {
    flag: "--align-bases",
    formerly: { flag: "--basis-alignments", path: "mixing.basisAlignments" },
    value: "NAME",
    kind: choice(["shared", "direct"]),
    default: null,
    auto: alignmentDefaults.bases,
    help: "with --bases and --align-from batch: shared, the alignments of all bases from one batch, by importance weights; direct, a batch for each basis",
  },
};
