/** From what a rule needs to what the trainer measures, and back to the rule's signal. */
import type { Bases } from "./bases.ts";
import type { Alignments } from "./passes.ts";
import type { Signal, SignalName } from "./rule.ts";

/** What a rule asks the trainer to measure. */
export interface Plan {
  /** Alignments with the one target. */
  readonly aligns: boolean;
  readonly preconditioned: boolean;
  readonly gram: boolean;
  readonly targets: boolean;
  readonly reference: boolean;
}

export function planOf(needs: readonly SignalName[]): Plan {
  const any = (...names: SignalName[]): boolean => names.some((name) => needs.includes(name));
  const targets = any("targets");
  const preconditioned = any("preconditionedAlignments", "preconditionedTargetNorm");
  return {
    aligns:
      preconditioned ||
      any("alignments", "targetNorm", "targetLoss", "standardErrors") ||
      (!targets && any("norms")),
    preconditioned,
    gram: any("gram"),
    targets,
    reference: any("referenceLosses"),
  };
}

/** Is every basis a single domain, each domain one? Then the bases' alignments are the domains' own. */
export function areDomains(bases: Bases): boolean {
  return (
    bases.columns.length === bases.names.length &&
    bases.names.every((_, j) => bases.offsets[j + 1] - bases.offsets[j] === 1)
  );
}

export function signalOf(measured: Alignments, { preconditioned }: Plan): Signal {
  const { alignments, standardErrors, norms, tokens, targetNorm, losses, targetLoss } = measured;
  return {
    ...(preconditioned
      ? { preconditionedAlignments: alignments, preconditionedTargetNorm: targetNorm }
      : { alignments, targetNorm }),
    tokens,
    losses,
    targetLoss,
    ...(standardErrors === null ? {} : { standardErrors }),
    ...(norms === null ? {} : { norms }),
  };
}
