/** What is asked of a rule before one is made, by the command and by whoever plans a run. Each rule's own file says it; the registry has it beside the rule's options. */

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
  /** It needs a histogram of the target over the domains, or begins with one as a prior where it has one with its normalisation (undefined: the default one). */
  readonly histogram?: "needed" | { readonly priorWith: (normalise: unknown) => boolean };
  /** Its options as they were published, where the defaults are others (`--mixing-preset paper`). */
  readonly published?: () => {
    readonly normalise?: DgaNormalisation;
    readonly beta?: number;
    readonly eta?: number;
  };
  /** How often its weights let a domain be repeated over a run. */
  readonly repetitions?: {
    /** Of any domain. */
    readonly most: (options: O) => number;
    /** The largest weight of each domain; null where the options limit none. */
    readonly caps: (options: O, domains: readonly string[]) => readonly number[] | null;
  };
}
