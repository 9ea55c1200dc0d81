/** The properties of a rule that are needed before the rule is made, by the command and by code that plans a run. The file of each rule defines them; the registry has them beside its options. */

import type { DgaNormalisation } from "./dga.ts";

export interface RuleTraits<O = unknown> {
  /** The weights never move. */
  readonly fixed?: true;
  /** It needs the names of several targets, as its option `targets`, in place of one target. */
  readonly severalTargets?: true;
  /** It needs the losses of a reference model. */
  readonly referenceModel?: true;
  /** It needs weights: there is no default. */
  readonly needsWeights?: true;
  /** "needed": it needs a histogram of the target over the domains. Otherwise, whether it starts from one as a prior with the given normalisation (undefined: the default). */
  readonly histogram?: "needed" | { readonly priorWith: (normalise: unknown) => boolean };
  /** Whether its step already accounts for the standard errors of alignments with the given normalisation (undefined: the default), so that `shrinkage` changes nothing. */
  readonly countsErrors?: (normalise: unknown) => boolean;
  /** The published values of options whose defaults differ (`--mixing-preset paper`). */
  readonly published?: () => {
    readonly normalise?: DgaNormalisation;
    readonly beta?: number;
    readonly eta?: number;
  };
  /** How often its weights let a domain be repeated over a run. */
  readonly repetitions?: {
    /** Largest number of repetitions of any domain; Infinity if it is not limited. */
    readonly most: (options: O, domains: readonly string[]) => number;
    /** The largest weight of each domain; null if the options limit none. */
    readonly caps: (options: O, domains: readonly string[]) => readonly number[] | null;
  };
}
