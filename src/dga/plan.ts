/** Decides what the trainer measures for a rule, and makes the rule's signal of it. Also checks which options of a trainer can be combined. */
import { GradmixError } from "../errors.ts";
import { show } from "../options.ts";
import type { EstimatorName } from "./alignment-options.ts";
import { areDomains, type Bases } from "./bases.ts";
import type { Mixer } from "./mixer.ts";
import type { Alignments } from "./measurements.ts";
import type { Rule, Signal, SignalName } from "./rule.ts";

/** The measurements that a rule needs from the trainer. */
export interface Plan {
  /** Alignments with the one target. */
  readonly aligns: boolean;
  readonly preconditioned: boolean;
  readonly gram: boolean;
  readonly targets: boolean;
  readonly reference: boolean;
  /** Losses on held-out examples. */
  readonly heldOut: boolean;
}

export function planOf(needs: readonly SignalName[]): Plan {
  const anyOf = (...names: SignalName[]): boolean => names.some((name) => needs.includes(name));
  const targets = anyOf("targets");
  const preconditioned = anyOf("preconditionedAlignments", "preconditionedTargetNorm");
  return {
    aligns:
      preconditioned ||
      anyOf("alignments", "targetNorm", "targetLoss", "standardErrors") ||
      (!targets && anyOf("norms")),
    preconditioned,
    gram: anyOf("gram"),
    targets,
    reference: anyOf("referenceLosses"),
    heldOut: anyOf("heldOutLosses"),
  };
}

/** Number of the first `steps` training steps after an update whose examples are measured. */
export function measuredSteps(steps: number, { measureEvery }: { readonly measureEvery: number }): number {
  return Math.ceil(steps / measureEvery);
}

/**
 * How often the target's gradient is computed in the first `steps` steps after an update: at once, and at the first measured step at or after each
 * multiple of `refreshEvery` steps.
 */
export function targetRefreshes(
  steps: number,
  alignment: { readonly measureEvery: number; readonly refreshEvery: number },
): number {
  const measured = measuredSteps(steps, alignment);
  if (measured === 0) return 0;
  const last = (measured - 1) * alignment.measureEvery;
  return Math.min(measured, 1 + Math.floor(last / alignment.refreshEvery));
}

/** The domains of which fewer than one of `drawn` examples is expected; those of weight 0 are excluded from the mixture. */
export function hardlyDrawn(weights: ArrayLike<number>, drawn: number): number[] {
  return Array.from(weights).flatMap((weight, i) => (weight > 0 && weight * drawn < 1 ? [i] : []));
}

/** The default of `from`; see `AlignmentOptions`. */
export function measuredFrom(
  { from, estimator, domainExamples, bases }: NonNullable<OptionSet["alignment"]>,
  plan: Pick<Plan, "gram" | "targets">,
): "batch" | "step" {
  const ofBatches = [estimator, domainExamples, bases].some((option) => option !== undefined);
  return from ?? (ofBatches || plan.gram || plan.targets ? "batch" : "step");
}

/** The rule's signal. Throws `config`, naming the parameter, if the rule needs norms and tied weights prevent them. */
export function signalOf(rule: Rule, measured: Alignments): Signal {
  const { alignments, standardErrors, norms, tokens, targetNorm, losses, targetLoss, tied } = measured;
  wantNorms(rule, norms, tied);
  return {
    ...(planOf(rule.needs).preconditioned
      ? { preconditionedAlignments: alignments, preconditionedTargetNorm: targetNorm }
      : { alignments, targetNorm }),
    tokens,
    losses,
    targetLoss,
    ...(standardErrors === undefined ? {} : { standardErrors }),
    ...(norms === undefined ? {} : { norms }),
  };
}

/** Throws `config` if the rule needs norms and they could not be measured, which `checkFit` cannot know in advance. */
export function wantNorms(rule: Rule, norms: unknown, tied: string | undefined): void {
  if (norms !== undefined || !rule.needs.includes("norms")) return;
  throw new GradmixError(
    "config",
    `rule ${rule.name}: it needs the norms of the domains' gradients, and ${tied === undefined ? "they were not measured" : `parameter ${tied} is used twice in one pass (tied weights), so that its norm cannot be added up use by use`}; take alignment { from: "batch", estimator: "perDomain" }, which has whole gradients, or a rule without norms (rules of gradmix that have the option: normalise = raw)`,
  );
}

/** The first names of a list, for a message. */
export const listed = (names: readonly string[]): string =>
  `${names.slice(0, 5).map(show).join(", ")}${names.length > 5 ? ", …" : ""}`;

/** The options of a trainer that depend on each other. */
interface OptionSet {
  readonly mixer: Mixer;
  readonly domains: { readonly length: number };
  readonly target: unknown;
  readonly targets?: ReadonlyMap<string, unknown>;
  readonly reference?: object;
  readonly heldOut?: object;
  readonly bases?: Bases;
  readonly alignment?: {
    readonly estimator?: EstimatorName;
    readonly from?: "batch" | "step";
    readonly domainExamples?: number;
    readonly probes?: number;
    readonly blockShare?: number;
    readonly parameters?: unknown;
    readonly bases?: "shared" | "direct";
  };
}

/** Throws `config` if the options of a trainer contradict each other. */
export function checkOptionSet(options: OptionSet): void {
  const { mixer, domains, target, targets, reference, heldOut, bases, alignment = {} } = options;
  const invalid = (what: string): GradmixError => new GradmixError("config", what);
  const { name, needs } = mixer.rule;
  const plan = planOf(needs);
  const from = measuredFrom(alignment, plan);
  const expected = bases?.domains.length ?? mixer.domains.length;
  if (domains.length !== expected)
    throw invalid(
      bases === undefined
        ? `createTrainer: domains: ${domains.length} sources of examples for a mixer of ${expected} domains`
        : `createTrainer: domains: ${domains.length} sources of examples for bases over ${expected} domains`,
    );
  if (bases !== undefined && bases.names.join("\n") !== mixer.domains.join("\n"))
    throw invalid(`bases: the mixer must have their ${bases.names.length} names as its domains`);
  if (plan.aligns && target === null)
    throw invalid(`rule ${name}: it aligns domains with a target; give a target`);
  if (plan.targets && (targets === undefined || targets.size === 0))
    throw invalid(`rule ${name}: it aligns domains with several targets; give targets`);
  const named = mixer.rule.targets;
  if (
    plan.targets &&
    named !== undefined &&
    JSON.stringify([...(targets?.keys() ?? [])]) !== JSON.stringify(named)
  )
    throw invalid(
      `rule ${name}: its targets are ${listed(named)}, but the text is of ${listed([...(targets?.keys() ?? [])])}; give the same names in the same order`,
    );
  if (plan.reference && reference === undefined)
    throw invalid(`rule ${name}: it compares with a reference model; give a reference`);
  if (plan.heldOut && heldOut === undefined)
    throw invalid(`rule ${name}: it needs losses on held-out text; give heldOut`);
  if (plan.heldOut && bases !== undefined)
    throw invalid(
      `rule ${name}: held-out losses are losses of domains, so bases do not have them; leave out the guard or the bases`,
    );
  const kinds = [plan.aligns, plan.gram, plan.targets, plan.reference].filter(Boolean).length;
  if (kinds > 1)
    throw invalid(`rule ${name}: it needs ${needs.join(", ")}, which the trainer does not measure together`);
  if (plan.preconditioned && needs.includes("alignments"))
    throw invalid(`rule ${name}: plain and preconditioned alignments are not measured together`);
  if (bases !== undefined && needs.length > 0 && !plan.aligns)
    throw invalid(
      `rule ${name}: with bases a rule can use alignments with one target only; it needs ${needs.join(", ")}`,
    );
  if (bases !== undefined && (alignment.probes ?? 0) > 0)
    throw invalid(
      "alignment: probes measure single domains, and the weights are those of bases; leave out probes",
    );
  if (from === "step" && (plan.gram || plan.targets))
    throw invalid(
      `rule ${name}: it needs ${plan.gram ? "a Gram matrix" : "several targets"}, which the training steps do not measure; leave out from, or use "batch"`,
    );
  const { estimator = "segmented" } = alignment;
  const shared = bases !== undefined && alignment.bases !== "direct" && !areDomains(bases);
  if (shared && from !== "step" && estimator !== "segmented")
    throw invalid(
      `estimator ${estimator}: a shared batch of bases takes segmented; use segmented, or bases = direct`,
    );
  if (estimator === "sketch" && from !== "step" && plan.preconditioned)
    throw invalid(
      `estimator sketch: it cannot precondition, which rule ${name} asks for; use estimator = segmented`,
    );
  if (estimator === "perDomain" && from !== "step" && needs.includes("standardErrors"))
    throw invalid(
      `estimator perDomain: it gives no standard errors, which rule ${name} asks for; use estimator = segmented`,
    );
  if (alignment.parameters !== undefined && alignment.blockShare !== undefined)
    throw invalid("alignment: parameters and blockShare both select what is aligned; leave out one of them");
  if (alignment.estimator === "forward" && from !== "step" && needs.includes("norms"))
    throw invalid(
      `estimator forward: it gives no gradient norms, which rule ${name} asks for; use estimator = segmented, or a rule without norms (rules of gradmix that have the option: normalise = raw)`,
    );
}
