/** The arguments of `gradmix compare`, checked, and the comparison that they describe: a new one, or the rest of one that was stopped. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { GradmixError } from "../errors.ts";
import { checkEmpty, type Plan, readPlan, type SavedPlan } from "./compare-folder.ts";
import {
  baselineOf,
  checkRules,
  type Choice,
  type CompareSection,
  type PlannedRun,
  planRuns,
  type RuleEntry,
  type RuleSelection,
  rulesOfFlag,
  seedsOf,
  selectionWarning,
  sharedOptions,
  splitFile,
  usualRules,
  usualSeeds,
} from "./compare-plan.ts";
import { checkSameDomains, domainNames, listedOnce } from "./compare-inputs.ts";
import {
  commandLineLayer,
  domainPaths,
  isEqual,
  jsonLayer,
  type Layer,
  mergeLayers,
  withoutPaths,
} from "./config.ts";
import { checkDomains } from "./config-checks.ts";
import { optionTable } from "./options.ts";
import { planRun } from "./plan.ts";
import { preparedLayer } from "./prepared-options.ts";
import { totalSteps } from "./train-config.ts";
import { unusedOptions } from "./unused-options.ts";
import { configOf, defaultFolder } from "./train.ts";
import { type Raw, readInput, configError } from "./values.ts";
import { weighsBySize } from "./common-options.ts";

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
export interface Comparison extends Plan {
  readonly folder: string;
  /** The plan of the comparison that the folder already holds; null for a new comparison. */
  readonly before: SavedPlan | null;
  readonly runs: readonly PlannedRun[];
  /** Number of training steps of each run. */
  readonly steps: number;
  /** Lines for the user. */
  readonly warnings: readonly string[];
  /** The line that a run of a rule reports, with the name of the rule where it is needed. */
  lineOf(rule: string, line: string): string;
}

/** Options that may change when a comparison continues, because they do not affect the results. */
const changeable = ["run.threads", "run.vectorBits", "run.memoryLimit", "run.checkpointEvery", "run.quiet"];

/** Checks all arguments and writes nothing. Throws `config`, `checkpoint`. */
export async function comparisonOf(args: CompareArguments): Promise<Comparison> {
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
        `${flags.label(key)}: a comparison keeps its original options; only --rules, --seeds, --baseline, --threads, --vector-bits, --memory-limit, --checkpoint-every and --quiet may change`,
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
): Promise<Pick<Comparison, "runs" | "steps" | "warnings" | "lineOf">> {
  const warnings = sharedOptions(choice.rules, given);
  const ofRule = new Map<string, Set<string>>();
  const selections = new Map<string, RuleSelection>();
  const runs = await planRuns({ choice, given, folder, resolve: configOf });
  // Errors in a rule's own options are reported before any text is read.
  const list = listedOnce();
  for (const { rule, config } of runs) {
    const names = await domainNames(config, list);
    if (config.data.domainsFrom.length > 0) checkDomains(config.mixing, names);
    const { mixing } = planRun(config, names);
    ofRule.set(rule, new Set([...unusedOptions(config), ...mixing.unused]));
    selections.set(rule, { leastShare: mixing.leastShare, canSelect: !weighsBySize(config.mixing.rule) });
  }
  await checkSameDomains(runs, list);
  // There are at least one rule, one seed and one target, and all runs have the same length.
  const steps = totalSteps(runs[0]!.config);
  return { runs, steps, warnings: [...warnings, ...selectionWarning(selections)], lineOf: lineFor(ofRule) };
}

/** Adds the name of the rule to a line about its options, unless the line is true of every rule. `ofRule` has the lines about the options of each rule. */
function lineFor(ofRule: ReadonlyMap<string, ReadonlySet<string>>): Comparison["lineOf"] {
  const all = [...ofRule.values()];
  return (rule, line) =>
    ofRule.get(rule)?.has(line) === true && all.some((lines) => !lines.has(line))
      ? `rule ${rule}: ${line}`
      : line;
}
