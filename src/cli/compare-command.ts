/**
 * `gradmix compare`: trains with several rules, seeds and targets, one run after another, and reports which rule ends with the lowest held-out
 * loss.
 */
import { existsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import {
  checkComparable,
  compareRules,
  conclusions,
  type Found,
  leavesOutZero,
  type Outcome,
  type RuleResult,
} from "../report/comparison.ts";
import { readRunHead } from "../runs/record.ts";
import type { StepMetrics } from "../runs/lines.ts";
import { shellWord } from "../shell-word.ts";
import {
  begunRun,
  checkEmpty,
  discard,
  holdFolder,
  isBegun,
  isSamePlan,
  outcomeOf,
  type Plan,
  readPlan,
  removeEmpty,
  renewPaths,
  type SavedPlan,
  saveJson,
  savePlan,
} from "./compare-folder.ts";
import {
  baselineOf,
  checkRules,
  type Choice,
  type CompareSection,
  type PlannedRun,
  planRuns,
  type RuleEntry,
  rulesOfFlag,
  seedsOf,
  selectionWarning,
  sharedOptions,
  splitFile,
  usualRules,
  usualSeeds,
} from "./compare-plan.ts";
import { startCompareProgress } from "./compare-progress.ts";
import { checkSameDomains, domainNames, listedOnce } from "./compare-inputs.ts";
import { formatRoughly, formatTable } from "./compare-table.ts";
import {
  checkDomains,
  commandLineLayer,
  domainPaths,
  isEqual,
  jsonLayer,
  type Layer,
  mergeLayers,
  withoutPaths,
} from "./config.ts";
import { type Interrupt, listenForInterrupt } from "./interrupt.ts";
import { optionTable } from "./options.ts";
import type { Output } from "./output.ts";
import { dataPlanOf, planRun } from "./plan.ts";
import { startStatusLine, type StatusLine } from "./progress.ts";
import { preparedLayer } from "./prepared-options.ts";
import type { readData } from "./read-data.ts";
import { comparisonFiles, openRunFolder, type ResumeFrom } from "./run-folder.ts";
import { writePage } from "./side-files.ts";
import { totalSteps } from "./train-config.ts";
import { unusedOptions } from "./unused-options.ts";
import { configOf, defaultFolder, type Outputs } from "./train.ts";
import { type Raw, readInput, configError } from "./values.ts";

export interface CompareArguments {
  /** A config file, or the folder of a comparison to continue. */
  readonly path: string | null;
  /** Flags of `gradmix train` that were given, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  /** For example `uniform,dga`. Here and in the fields below, null means that the option was not given. */
  readonly rules: string | null;
  /** The number of seeds, or a list of them. */
  readonly seeds: string | null;
  readonly baseline: string | null;
  /** The folder of a comparison to continue. */
  readonly resume: string | null;
}

/** The checked arguments as a plan. */
interface Comparison extends Plan {
  readonly folder: string;
  /** The plan of the comparison that the folder already holds; null for a new comparison. */
  readonly before: SavedPlan | null;
  readonly runs: readonly PlannedRun[];
  /** Lines for the user. */
  readonly warnings: readonly string[];
  /** The line that a run of a rule reports, with the name of the rule where it is needed. */
  lineOf(rule: string, line: string): string;
}

/** Options that may change when a comparison continues, because they do not affect the results. */
const changeable = ["run.threads", "run.memoryLimit", "run.checkpointEvery", "run.quiet"];

/** Checks all arguments and writes nothing. Throws `config`, `checkpoint`. */
async function comparisonOf(args: CompareArguments): Promise<Comparison> {
  const { path } = args;
  const isFolder = path !== null && statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  if (args.resume !== null && path !== null)
    throw configError(`--resume ${args.resume}: the folder already has its options; leave ${path} out`);
  const resume = args.resume ?? (isFolder ? path : null);
  const flags = commandLineLayer(args.given);
  return resume === null ? beginComparison(args, flags) : continueComparison(resume, args, flags);
}

async function beginComparison(
  { path, rules, seeds, baseline }: CompareArguments,
  flags: Layer,
): Promise<Comparison> {
  const { section, rest } = splitFile(path === null ? new Map() : readInput(path, path), path ?? "");
  const layers = [flags, jsonLayer(rest, path ?? "")];
  const given = mergeLayers([...layers, preparedLayer(layers, "comparison")]);
  const out = given.values.get("run.out");
  const folder = typeof out === "string" && out !== "" ? out : defaultFolder(new Date(), "compare-");
  checkEmpty(folder);
  const choice = choiceOf({ rules, seeds, baseline }, section, given);
  const defined = definitions(section.rules ?? [], choice);
  return { folder, before: null, choice, defined, given, ...(await runsOf(choice, given, folder)) };
}

async function continueComparison(folder: string, args: CompareArguments, flags: Layer): Promise<Comparison> {
  const saved = readPlan(folder);
  for (const [key, value] of flags.values)
    if (
      !changeable.includes(key) &&
      !(key === "run.out" && typeof value === "string" && resolve(value) === resolve(folder)) &&
      !isEqual(value, saved.given.values.get(key))
    )
      throw new GradmixError(
        "checkpoint",
        `${flags.label(key)}: a comparison keeps its original options; only --rules, --seeds, --baseline, --threads, --memory-limit, --checkpoint-every and --quiet may change`,
      );
  const { rules, seeds, baseline } = saved.choice;
  const { label } = saved;
  const choice = choiceOf(args, { rules, seeds, baseline, label }, saved.given, saved.defined);
  const defined = definitions(saved.defined, choice);
  const given = mergeLayers([withoutPaths(flags, domainPaths), saved.given]);
  return { folder, before: saved, choice, defined, given, ...(await runsOf(choice, given, folder)) };
}

/** The rules that were defined before, and those that are chosen now. */
function definitions(defined: readonly RuleEntry[], { rules }: Choice): readonly RuleEntry[] {
  const known = new Set(defined.map(({ name }) => name));
  return [...defined, ...rules.filter(({ name }) => !known.has(name))];
}

/** Combines the command line with the file; the command line takes precedence. `--rules` may name the rules in `defined`. */
function choiceOf(
  { rules, seeds, baseline }: Pick<CompareArguments, "rules" | "seeds" | "baseline">,
  section: CompareSection,
  given: Layer,
  defined: readonly RuleEntry[] = section.rules ?? [],
): Choice {
  const chosen: readonly RuleEntry[] =
    rules !== null ? rulesOfFlag(rules, defined) : (section.rules ?? rulesOfFlag(usualRules, []));
  checkRules(chosen, rules === null && section.rules !== null ? section.label("rules") : "--rules");
  const first = Number(given.values.get("training.seed") ?? optionTable.training.seed.default);
  const names = chosen.map(({ name }) => name);
  // An earlier baseline that is no longer compared is replaced by the first rule.
  const before =
    section.baseline !== null && rules !== null && !names.includes(section.baseline)
      ? null
      : section.baseline;
  return {
    rules: chosen,
    seeds: seedsOf(
      seeds ?? section.seeds ?? usualSeeds,
      first,
      seeds === null ? section.label("seeds") : "--seeds",
      given.label("training.seed"),
    ),
    baseline: baselineOf(
      chosen,
      baseline ?? before,
      baseline === null ? section.label("baseline") : "--baseline",
    ),
  };
}

async function runsOf(
  choice: Choice,
  given: Layer,
  folder: string,
): Promise<Pick<Comparison, "runs" | "warnings" | "lineOf">> {
  const warnings = sharedOptions(choice.rules, given);
  const ofRule = new Map<string, Set<string>>();
  const leastShares = new Map<string, number>();
  const resolve = (layers: readonly Layer[]) => configOf(layers);
  const runs = await planRuns({ choice, given, folder, resolve });
  // Errors in a rule's own options are reported before any text is read.
  const list = listedOnce();
  for (const { rule, config } of runs) {
    const names = await domainNames(config, list);
    if (config.data.domainsFrom.length > 0) checkDomains(config.mixing, names);
    const { mixing } = planRun(config, names);
    ofRule.set(rule, new Set([...unusedOptions(config), ...mixing.unused]));
    leastShares.set(rule, mixing.leastShare);
  }
  await checkSameDomains(runs, list);
  return { runs, warnings: [...warnings, ...selectionWarning(leastShares)], lineOf: lineFor(ofRule) };
}

/** Adds the name of the rule to a line about its options, unless the line is true of every rule. `ofRule` has the lines about the options of each rule. */
function lineFor(ofRule: ReadonlyMap<string, ReadonlySet<string>>): Comparison["lineOf"] {
  const all = [...ofRule.values()];
  return (rule, line) =>
    ofRule.get(rule)?.has(line) === true && all.some((lines) => !lines.has(line))
      ? `rule ${rule}: ${line}`
      : line;
}

/** Runs the command and returns the exit code. Throws `config`, `checkpoint`, `data`, `io`. */
export async function compare(args: CompareArguments, { out, err }: Outputs): Promise<number> {
  const comparison = await comparisonOf(args);
  const { folder, runs } = comparison;
  const begun = comparison.before !== null;
  const quiet = comparison.given.values.get("run.quiet") === true;
  const status = startStatusLine(err);
  const lock = holdFolder(folder);
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
    for (const page of await writePages(comparison, outcomes, tell)) out.write(`look: ${page}\n`);
    for (const { name, reason } of failures) out.write(`left out: ${name}, which failed (${reason})\n`);
    out.write(`files: ${folder}\n`);
    return failures.length > 0 ? 2 : 0;
  } finally {
    status.end();
    interrupt.stop();
    const empty = planned && !begun && !isBegun(runs);
    if (empty) discard(folder);
    release();
    if (empty) removeEmpty(folder);
    process.off("exit", release);
    await out.flush();
    await err.flush();
  }
}

/** The file of each target's page. On file systems that ignore case, two targets may have one name; then all but the first are numbered. */
export function pageNames(targets: readonly (string | null)[]): Map<string | null, string> {
  const taken = new Set<string>();
  const freeName = (target: string): string => {
    let name = `report-${target}.html`;
    for (let n = 2; taken.has(name.toLowerCase()); n++) name = `report-${target}-${n}.html`;
    taken.add(name.toLowerCase());
    return name;
  };
  return new Map(
    [...new Set(targets)].map((target) => [
      target,
      target === null ? comparisonFiles.page : freeName(target),
    ]),
  );
}

/** Writes one page with all runs of each target; losses on different targets cannot be compared. */
async function writePages(
  { folder, runs }: Comparison,
  outcomes: readonly Outcome[],
  tell: (line: string) => void,
): Promise<string[]> {
  const pages: string[] = [];
  for (const [target, file] of pageNames(runs.map(({ target }) => target))) {
    const rules = new Map(
      outcomes.filter((one) => one.target === target).map(({ folder, rule }) => [folder, rule]),
    );
    if (rules.size === 0) continue;
    const page = await writePage([...rules.keys()], tell, join(folder, file), {
      labelOf: (run) => rules.get(run) ?? "",
    });
    if (page !== null) pages.push(page);
  }
  return pages;
}

function planLine({ runs, choice, before }: Comparison): string {
  const steps = runs.length === 0 ? 0 : totalSteps(runs[0]!.config);
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

/** A run whose loss became invalid. */
interface Failure {
  readonly name: string;
  readonly reason: string;
}

/** The result of a finished run, and the facts that it recorded. */
type Done = Outcome & Found;

interface AllRuns {
  readonly outcomes: readonly Done[];
  readonly failures: readonly Failure[];
  readonly stopped: boolean;
}

interface Session {
  readonly interrupt: Interrupt;
  readonly screen: Output;
  readonly status: StatusLine;
  readonly quiet: boolean;
  tell(line: string): void;
  /** Sets the folder of the current run; null between two runs. */
  hold(run: { close(): void } | null): void;
}

/**
 * Runs the remaining runs, and adds their results to `done`. A run whose loss becomes invalid is skipped; any other error ends the comparison.
 */
async function runAll(comparison: Comparison, done: (Done | null)[], session: Session): Promise<AllRuns> {
  const { runs, folder } = comparison;
  const { interrupt, tell } = session;
  const outcomes: Done[] = [];
  const failures: Failure[] = [];
  const printed = new Set<string>();
  const tellOnce = (line: string): void => {
    if (!printed.has(line)) tell(line);
    printed.add(line);
  };
  const read = sharedReader();
  const comparable = (found: Found, { target }: PlannedRun): void => {
    const first = done.find((one) => one?.target === target) ?? null;
    if (first !== null) checkComparable([first, found]);
  };
  const names = new Set(runs.flatMap(({ name }, i) => (done[i] === null ? [] : [name])));
  const { screen, status } = session;
  const progress = startCompareProgress({ screen, status, runs, done: names });
  const kept = names.size;
  if (kept > 0) tell(`${kept} of ${runs.length} runs are done already`);
  for (const [i, run] of runs.entries()) {
    const before = done[i] ?? null;
    if (before !== null) {
      outcomes.push(before);
      continue;
    }
    try {
      await makeTokenizer(run, comparison, { onEvent: tellOnce, signal: interrupt.signal });
      const stopped = await runOne(run, begunRun(run), read, {
        ...session,
        onEvent: (line) => tellOnce(comparison.lineOf(run.rule, line)),
        onFacts: (facts) => comparable({ folder: run.config.run.out, facts }, run),
        onStep(metrics) {
          if (!session.quiet) progress.step(run, metrics);
        },
      });
      if (stopped) return { outcomes, failures, stopped: true };
    } catch (error) {
      if (interrupt.signal.aborted && error === interrupt.signal.reason)
        return { outcomes, failures, stopped: true };
      if (!(error instanceof GradmixError)) throw error;
      if (error.code === "numeric") {
        // The advice for a single run does not apply: all runs share one learning rate.
        const { message } = error.cause instanceof GradmixError ? error.cause : error;
        failures.push({ name: run.name, reason: message });
        tell(`${run.name} is left out: ${message}`);
        progress.end(run);
        continue;
      }
      const refused = refusals.includes(error.code) && done.filter((one) => one !== null).length === kept;
      const restored = refused && restorePlan(comparison) ? "; the comparison keeps its earlier plan" : "";
      const more = isBegun(runs)
        ? `${restored}; gradmix compare ${shellWord(folder)} continues from the finished runs`
        : "";
      throw new GradmixError(error.code, `${run.name}: ${error.message}${more}`, { cause: error });
    }
    const outcome = outcomeOf(run);
    if (outcome === null)
      throw new Error(`${run.name} ended without a complete result; run the same command again`);
    done[i] = outcome;
    outcomes.push(outcome);
    progress.end(run);
    tell(
      `${run.name}: held-out target ${outcome.loss.toFixed(3)}, ${formatRoughly(outcome.seconds)} of training`,
    );
  }
  return { outcomes, failures, stopped: false };
}

/** Codes of errors by which a run is refused before its first step. */
const refusals: readonly string[] = ["config", "data", "checkpoint"];

/** Writes the plan of before a continuation again; false if the continuation did not change it. */
function restorePlan(comparison: Comparison): boolean {
  const { before, folder } = comparison;
  if (before === null || isSamePlan(before, comparison)) return false;
  savePlan(folder, before);
  return true;
}

/** Results of the finished runs; null for the others. Throws `checkpoint` for a run with other options, `data` for runs that cannot be compared. */
function doneBefore(runs: readonly PlannedRun[]): (Done | null)[] {
  const done = runs.map((run) => (begunRun(run) === null ? null : outcomeOf(run)));
  for (const target of new Set(runs.map(({ target }) => target)))
    checkComparable(done.flatMap((one) => (one !== null && one.target === target ? [one] : [])));
  return done;
}

/** Trains the tokenizer that all runs share, unless it exists. */
async function makeTokenizer(
  { config }: PlannedRun,
  { folder, runs, given }: Comparison,
  hooks: Parameters<typeof readData>[2],
): Promise<void> {
  const path = join(folder, comparisonFiles.tokenizer);
  if (config.data.tokenizer !== path || existsSync(path)) return;
  const { learnTokenizer } = await import("./read-data.ts");
  // It is trained without the text on which the runs are evaluated.
  const targets = new Map(
    runs.flatMap(({ target, config }) => (target === null ? [] : [[target, config.data.target] as const])),
  );
  const vocabSize = given.values.get("data.vocabSize");
  const data = { ...dataPlanOf(config), vocabSize: typeof vocabSize === "number" ? vocabSize : null };
  const several = targets.size > 0 ? { target: [], targets } : {};
  const tokenizer = await learnTokenizer({ ...data, ...several, tokenizer: "bpe" }, hooks);
  saveJson(folder, comparisonFiles.tokenizer, tokenizer.toJSON());
}

/** Reads the text once for all runs of a target. A resumed run reads the text itself, and compares it with the text it began with. */
function sharedReader(): typeof readData {
  const kept = new Map<string, ReturnType<typeof readData>>();
  let target = "";
  return async (plan, known, hooks, inputs) => {
    const { readData } = await import("./read-data.ts");
    if (known.corpus !== undefined) return readData(plan, known, hooks, inputs);
    if (formatJson(plan.target) !== target) kept.clear();
    target = formatJson(plan.target);
    const key = formatJson({ ...plan, out: null, tokens: known.tokenizer?.toJSON() ?? null });
    const data = kept.get(key) ?? readData(plan, known, hooks, inputs);
    kept.set(key, data);
    return data;
  };
}

interface RunListeners extends Session {
  onEvent(line: string): void;
  onFacts(facts: Found["facts"]): void;
  onStep(metrics: StepMetrics): void;
}

/** Runs one run from where it stopped. Returns whether a signal interrupted it. */
async function runOne(
  { config }: PlannedRun,
  resume: ResumeFrom | null,
  read: typeof readData,
  { interrupt, hold, onEvent, onFacts, onStep }: RunListeners,
): Promise<boolean> {
  const { runTraining } = await import("./run.ts");
  const folder = openRunFolder(config, resume);
  hold(folder);
  try {
    const { interrupted } = await runTraining(
      config,
      {
        onStart: folder.appendMetrics,
        onStep(metrics) {
          folder.appendMetrics(metrics);
          onStep(metrics);
        },
        onResume: folder.appendMetrics,
        onEvent,
        signal: interrupt.signal,
        store: {
          ...folder,
          saveFile(name, contents) {
            folder.saveFile(name, contents);
            // Whether the run can be compared is known before its first step.
            if (name === "run.json") onFacts(readRunHead(config.run.out).facts);
          },
        },
      },
      read,
    );
    return interrupted;
  } finally {
    folder.close();
    hold(null);
  }
}

/** Results on one target. */
interface TargetResult {
  /** Name of the target; null if there is only one. */
  readonly target: string | null;
  /** Tokens and bytes of the target's held-out text. */
  readonly heldOutTokens: number;
  readonly heldOutBytes: number;
  /** Largest number of these tokens on which the losses were measured. */
  readonly evaluatedTokens: number | null;
  readonly rules: readonly RuleResult[];
  readonly conclusions: readonly string[];
}

function resultsOf(outcomes: readonly Done[], { choice, runs }: Comparison): TargetResult[] {
  const rules = choice.rules.map(({ name }) => name);
  return [...new Set(runs.map(({ target }) => target))].flatMap((target) => {
    const own = outcomes.filter((outcome) => outcome.target === target);
    const facts = own[0]?.facts;
    if (facts === undefined || facts.target === null) return [];
    const { heldOutTokens, heldOutBytes } = facts.target;
    const results = compareRules(own, rules, choice.baseline);
    return [
      {
        target,
        heldOutTokens,
        heldOutBytes,
        evaluatedTokens: facts.evaluatedTokens,
        rules: results,
        conclusions: conclusions(results, choice.baseline),
      },
    ];
  });
}

/** The contents of compare.json. */
function jsonOf(
  results: readonly TargetResult[],
  { choice, runs }: Comparison,
  failures: readonly Failure[],
): unknown {
  return {
    version: 1,
    baseline: choice.baseline,
    seeds: choice.seeds,
    steps: runs.length === 0 ? 0 : totalSteps(runs[0]!.config),
    targets: results.map(({ rules, ...rest }) => ({
      ...rest,
      rules: rules.map(({ runs, ...rule }) => ({
        ...rule,
        runs: runs.map(({ seed, folder, loss, bitsPerByte, cost, seconds }) => ({
          seed,
          folder,
          loss,
          bitsPerByte,
          cost,
          seconds,
        })),
      })),
    })),
    failures,
  };
}

function formatResults(results: readonly TargetResult[], { choice, runs, folder }: Comparison): string {
  const steps = runs.length === 0 ? 0 : totalSteps(runs[0]!.config);
  const n = (count: number): string => count.toLocaleString("en");
  const tables = results.map(({ target, heldOutTokens, evaluatedTokens, rules, conclusions }) => [
    `held-out loss on ${target === null ? "the target" : `the target ${target}`} after ${n(steps)} steps, in nats per token, on ${n(Math.min(heldOutTokens, evaluatedTokens ?? heldOutTokens))} of ${n(heldOutTokens)} tokens held out`,
    "",
    formatTable(rules, choice.baseline).trimEnd(),
    "",
    ...conclusions,
    "",
  ]);
  if (results.length === 0) return "";
  const open = results.some(({ rules }) =>
    rules.some(({ difference }) => difference !== null && !leavesOutZero(difference)),
  );
  return [
    ...tables.flat(),
    "±: the standard error over seeds; cost: counted computation, and time: wall time, of the steps",
    ...(open && choice.seeds.length <= 8
      ? [
          `More seeds narrow the intervals: gradmix compare ${shellWord(folder)} --seeds ${doubled(choice.seeds).join(",")}`,
        ]
      : []),
    "",
  ].join("\n");
}

/** As many further seeds, larger than the largest one; if there are not as many of them, the smallest others. */
function doubled(seeds: readonly number[]): number[] {
  const last = Math.max(...seeds);
  const room = last <= Number.MAX_SAFE_INTEGER - seeds.length;
  const used = new Set(seeds);
  const more: number[] = [];
  for (let seed = room ? last + 1 : 0; more.length < seeds.length; seed++)
    if (!used.has(seed)) more.push(seed);
  return [...seeds, ...more];
}
