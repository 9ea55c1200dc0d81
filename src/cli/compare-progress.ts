/** Shows the progress of a comparison: one line for all runs, with the remaining time once it can be estimated. */
import type { StepMetrics } from "../runs/lines.ts";
import type { PlannedRun } from "./compare-plan.ts";
import { type Ahead, formatPlace, formatRoughly, secondsAhead } from "./compare-table.ts";
import type { Screen, StatusLine } from "./progress.ts";
import { totalSteps } from "./train-config.ts";

export interface CompareProgress {
  step(run: PlannedRun, metrics: StepMetrics): void;
  /** Called when a run has no more steps. */
  end(run: PlannedRun): void;
}

export interface CompareProgressOptions {
  readonly screen: Screen;
  readonly status: StatusLine;
  readonly runs: readonly PlannedRun[];
  /** Names of the runs that were finished before. */
  readonly done: ReadonlySet<string>;
}

/** Milliseconds between two lines. */
const plainInterval = 10_000;
const terminalInterval = 100;
/** The speed is estimated after this share of a run's steps, and at least the following number of steps. */
const KNOWN_SHARE = 0.1;
const KNOWN_STEPS = 5;

/** `now` gives milliseconds. */
export function startCompareProgress(
  { screen, status, runs, done }: CompareProgressOptions,
  now: () => number = (): number => performance.now(),
): CompareProgress {
  const ahead = new Map<string, Ahead>(
    runs.map(({ name, rule, config }) => [name, { rule, steps: done.has(name) ? 0 : totalSteps(config) }]),
  );
  /** Steps and seconds of this process, by rule. */
  const taken = new Map<string, { steps: number; seconds: number }>();
  let finished = done.size;
  let target: { readonly run: string; readonly loss: number } | null = null;
  let shown = -Infinity;
  let estimated = false;
  return {
    step(run, { step, seconds, evaluation }) {
      const { name, rule, config } = run;
      const steps = totalSteps(config);
      ahead.set(name, { rule, steps: steps - step });
      const before = taken.get(rule) ?? { steps: 0, seconds: 0 };
      const own = { steps: before.steps + 1, seconds: before.seconds + seconds };
      taken.set(rule, own);
      const perStep = new Map([...taken].map(([rule, of]) => [rule, of.seconds / of.steps]));
      const secondsLeft = secondsAhead([...ahead.values()], perStep);
      const loss = evaluation?.target ?? null;
      if (loss !== null) target = { run: name, loss };
      if (
        !estimated &&
        secondsLeft !== null &&
        (own.steps >= Math.max(KNOWN_STEPS, KNOWN_SHARE * steps) || step === steps)
      ) {
        estimated = true;
        status.line(`about ${formatRoughly(secondsLeft)} left, by the speed of the first run`);
      }
      const time = now();
      if (screen.behind === true || time - shown < (screen.isTTY === true ? terminalInterval : plainInterval))
        return;
      shown = time;
      status.show(
        formatPlace({
          done: finished,
          runs: runs.length,
          name,
          step,
          steps,
          targetLoss: target?.run === name ? target.loss : null,
          secondsLeft,
        }),
      );
    },
    end({ name, rule }) {
      ahead.set(name, { rule, steps: 0 });
      finished++;
    },
  };
}
