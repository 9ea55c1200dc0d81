/** The options of `gradmix mix`: those that it shares with `gradmix train`, and its own. */
import type { OptionRow } from "./options.ts";
import type { Raw } from "./values.ts";

/** Short help of the options of `gradmix train` that have the same meaning here. */
const taken: Readonly<Record<string, string>> = {
  "mixing.rule": "the rule (default: dga)",
  "mixing.ruleOptions": "options of the rule; docs/rules.md lists them",
  "mixing.combinators": "combinators around the rule, the innermost first",
  "mixing.eta": "step size η of the rule",
  "mixing.beta": "share of the newest weights in their moving average",
  "mixing.normalise": "how alignments are normalised",
  "mixing.preset": "paper: Dynamic Gradient Alignment as published",
  "mixing.updateEvery": "update every N steps (default: at every observe)",
  "mixing.updateAfter": "make no update before step N",
  "mixing.floor": "smallest weight of a domain",
  "mixing.ceiling": "largest weight of a domain",
  "mixing.repetitionCap": "read each domain at most N times; needs --sizes, --tokens",
  "mixing.guard": "limit on held-out losses, which the trainer sends in observe",
  "mixing.weights": "weights of --rule static; initial weights of other rules",
  "mixing.histogram": "share of the target that resembles each domain: the prior of dga",
  "training.tokens":
    "training tokens of the whole run: for limits on repetitions, together with --sizes, and for token budgets",
};

/** Whether the command has an option of `gradmix train`, by its key path. */
export const takesOption = (path: string): boolean => Object.hasOwn(taken, path);

/** The rows of the table that the command accepts, with help and defaults of their own. */
export function mixRows(rows: readonly OptionRow[]): OptionRow[] {
  return rows
    .filter(({ path }) => takesOption(path))
    .map((row) => {
      const { formerly: _formerly, auto: _auto, otherwise: _otherwise, ...rest } = row;
      return { ...rest, help: taken[row.path] ?? "", default: null };
    });
}

/** Flags that `gradmix train` does not have: the placeholder of the value, and the help. */
export const mixFlags = {
  domains: [
    "A,B,…|DIR",
    "the domains: their names, or a folder of gradmix cluster, divide or prepare; replaces an init message on the first line",
  ],
  sizes: [
    "NAME=N,…|FILE",
    "tokens of each domain: for limits on repetitions, together with --tokens, and for rules that use sizes",
  ],
  stateFile: ["FILE", "keep the state in FILE and continue from it, so that kill -9 loses nothing"],
  weightsFile: ["FILE", "write the weights as JSON whenever they change"],
  listen: ["[HOST:]PORT", "serve HTTP on this machine instead of reading the standard input; 0: any port"],
  tokenFile: ["FILE", "file with the access token for HTTP; created if missing"],
  replay: [
    "RUN|FILE",
    "print the weights that the rule would give for the measurements of a run, or for a file of messages",
  ],
} as const;

export type MixFlags = { readonly [F in keyof typeof mixFlags]: string | null };

/** What the command line of `gradmix mix` gives. */
export interface MixArguments {
  /** Path of a config file; its other options are ignored. */
  readonly config: string | null;
  /** Flags of the table that were given, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  readonly flags: MixFlags;
}
