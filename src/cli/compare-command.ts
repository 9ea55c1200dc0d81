/**
 * `gradmix compare`: trains with several rules, seeds and targets, one run after another, and reports which rule ends with the lowest held-out
 * loss. compare-arguments.ts says what is compared, compare-plan.ts plans the runs, compare-runs.ts trains them, and compare-results.ts writes what was found.
 */
import { shellWord } from "../shell-word.ts";
import { checkEmpty, discard, isBegun, renewPaths, saveJson, savePlan } from "./compare-folder.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { lockFolder, removeLockRemains } from "./lock.ts";
import { startStatusLine } from "./progress.ts";
import { comparisonFiles } from "./run-names.ts";
import type { Outputs } from "./train.ts";
import { type CompareArguments, type Comparison, comparisonOf } from "./compare-arguments.ts";
import { runAll, doneBefore } from "./compare-runs.ts";
import { resultsOf, jsonOf, formatResults, writePages } from "./compare-results.ts";

/** Runs the command and returns the exit code. Throws `config`, `checkpoint`, `data`, `io`. */
export async function compare(args: CompareArguments, { out, err }: Outputs): Promise<number> {
  const comparison = await comparisonOf(args);
  const { folder, runs } = comparison;
  const begun = comparison.before !== null;
  const quiet = comparison.given.values.get("run.quiet") === true;
  const status = startStatusLine(err);
  const lock = lockFolder(folder);
  removeLockRemains(folder);
  let open: { close(): void } | null = null;
  let planned = false;
  const release = (): void => {
    open?.close();
    lock.release();
  };
  // The locks are released however the process ends.
  process.once("exit", release);
  const interrupt = listenForInterrupt({
    output: err,
    line: () => status.line("stopping after this step; what is done is kept. Ctrl-C again to stop at once"),
    atOnce: release,
  });
  const tell = (line: string): void => {
    if (!quiet) status.line(line);
  };
  try {
    // Another process may have used the folder before the lock was acquired.
    if (!begun) checkEmpty(folder);
    // A refused continuation leaves the plan as it was.
    const done = doneBefore(runs);
    planned = true;
    savePlan(folder, comparison);
    renewPaths(runs);
    for (const line of [planLine(comparison), ...comparison.warnings]) tell(line);
    const { outcomes, failures, stopped } = await runAll(comparison, done, {
      interrupt,
      screen: err,
      status,
      quiet,
      tell,
      hold(run) {
        open = run;
      },
    });
    status.end();
    if (stopped) {
      status.line(
        isBegun(runs)
          ? `stopped; ${outcomes.length} of ${runs.length} runs are done. Continue with: gradmix compare ${shellWord(folder)}`
          : "stopped before the first step; nothing was written",
      );
      return interrupt.exitCode();
    }
    const results = resultsOf(outcomes, comparison);
    saveJson(folder, comparisonFiles.result, jsonOf(results, comparison, failures));
    await err.flush();
    out.write(formatResults(results, comparison));
    const pages = await writePages(comparison, outcomes, tell);
    out.write(
      [
        ...pages.map((page) => `look: ${page}\n`),
        ...failures.map(({ name, reason }) => `left out: ${name}, which failed (${reason})\n`),
        `files: ${folder}\n`,
      ].join(""),
    );
    return failures.length > 0 ? 2 : 0;
  } finally {
    status.end();
    interrupt.stop();
    const empty = planned && !begun && !isBegun(runs);
    if (empty) discard(folder);
    release();
    process.off("exit", release);
    await out.flush();
    await err.flush();
  }
}

function planLine({ runs, steps, choice, before }: Comparison): string {
  const targets = new Set(runs.map(({ target }) => target)).size;
  const n = (count: number, one: string): string =>
    `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
  const parts = [
    `rules ${choice.rules.map(({ name }) => name).join(", ")}`,
    `${choice.seeds.length === 1 ? "seed" : "seeds"} ${choice.seeds.join(", ")}`,
    ...(targets > 1 ? [n(targets, "target")] : []),
  ];
  return `${before === null ? "" : "continuing: "}${n(runs.length, "run")} of ${n(steps, "step")} (${parts.join("; ")})`;
}
