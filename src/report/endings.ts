/** The losses on the target with which the runs of a group end, and whether they can be compared with those of other groups. Pure. */
import { curvesOf, valueAt } from "./curves.ts";
import type { LossCurves } from "./page-data.ts";
import { type RunView, targetPoints } from "./run-data.ts";

/** How the counted runs of a group end, at the last tokens that all of them have. */
export interface Ending {
  readonly label: string;
  /** Whether the runs have reached their last step. */
  readonly done: boolean;
  /** The loss of the runs; its last point is the end. */
  readonly curves: LossCurves;
  readonly start: number;
  readonly end: number;
  /** Loss of each run at the same tokens in nats per token, with its seed. */
  readonly ends: readonly { readonly seed: number; readonly loss: number }[];
  readonly tokens: number;
}

function isDone({ gathered: { step, head } }: RunView): boolean {
  return step >= head.facts.steps;
}

/** The runs of a group that its curves and figures are of: those that have reached their last step, since one that was stopped would end them; if there are none, all. */
export function countedOf(runs: readonly RunView[]): readonly RunView[] {
  const done = runs.filter(isDone);
  return done.length > 0 ? done : runs;
}

/** The ending of a group; null if its runs were never evaluated on a target. */
export function endingOf(label: string, runs: readonly RunView[]): Ending | null {
  const members = countedOf(runs).filter(({ gathered }) => gathered.target.items.length > 0);
  const points = members.map(({ gathered }) => targetPoints(gathered));
  const curves = curvesOf(points);
  if (curves === null) return null;
  const { mean } = curves.nats;
  const tokens = curves.tokens[curves.tokens.length - 1]!;
  return {
    ...{ label, curves, tokens },
    done: members.every(isDone),
    start: mean[0]!,
    end: mean[mean.length - 1]!,
    ends: members.map(({ gathered }, i) => ({
      seed: gathered.head.facts.seed,
      loss: valueAt(points[i]!, tokens),
    })),
  };
}

/**
 * The endings that can be compared: those of groups that have reached their last step, whose lengths are their own choice; if there are none, those after
 * the same number of tokens. The loss of a run falls as long as it trains, so a run that goes on would seem worse than one that has ended.
 */
export function comparedEndings(endings: readonly (Ending | null)[]): ReadonlySet<Ending> {
  const known = endings.filter((ending) => ending !== null);
  const done = known.filter((ending) => ending.done);
  if (done.length > 0) return new Set(done);
  return new Set(known.every(({ tokens }) => tokens === known[0]!.tokens) ? known : []);
}
