/** Determines what `gradmix compare` compares: takes options and returns a list of runs. Writes nothing. */
import { join } from "node:path";
import { selectionDefaults } from "../data/defaults.ts";
import type { RuleName } from "../dga/rules/index.ts";
import { isRuleName, ruleNames, ruleTraits } from "../dga/rules/index.ts";
import type { Json } from "../json.ts";
import { isEqual, jsonLayer, type Layer } from "./config.ts";
import { ruleTakes, weighsBySize } from "./common-options.ts";
import { type OptionRow, optionRows, optionTable } from "./options.ts";
import { sameButForCase } from "./domain-names.ts";
import { isLockName } from "./lock.ts";
import { comparisonFiles } from "./run-names.ts";
import type { TrainConfig } from "./train-config.ts";
import { didYouMean, membersOf, show, configError } from "./values.ts";

/** A rule with its name in the comparison. */
export interface RuleEntry {
  readonly name: string;
  /** Options of the section `mixing`, including `rule`. */
  readonly mixing: ReadonlyMap<string, unknown>;
}

/** What is compared. */
export interface Choice {
  /** At least one rule. Their names are unique, also as names of folders. */
  readonly rules: readonly RuleEntry[];
  /** Seeds of the training, without repetition. */
  readonly seeds: readonly number[];
  /** Name of one of the rules. */
  readonly baseline: string;
}

/** One run of the comparison. */
export interface PlannedRun {
  /** The path of its folder within that of the comparison: `dga/seed-1`, or `dga/seed-1/exam` with several targets. */
  readonly name: string;
  readonly rule: string;
  readonly seed: number;
  /** Name of the target; null if there is only one. */
  readonly target: string | null;
  readonly config: TrainConfig;
}

/** The default rules, from one that does not use the target to one that follows it. */
export const usualRules = "uniform,proportional,importanceSampling,dga";
export const usualSeeds = 3;

/** Largest number of seeds. A larger number is likely a seed in place of a count. */
const MOST_SEEDS = 1000;

/** Short forms in addition to the rules' own names. */
const shorts: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  proportional: { rule: "temperature", ruleOptions: { exponent: 1 } },
  "dga:paper": { rule: "dga", preset: "paper" },
};

/** The options of a short form. Throws `config` with the nearest name for an unknown one. */
function shortForm(name: string, label: string): ReadonlyMap<string, unknown> {
  if (Object.hasOwn(shorts, name)) return new Map(Object.entries(shorts[name] ?? {}));
  if (isRuleName(name)) return new Map([["rule", name]]);
  const known = [...ruleNames, ...Object.keys(shorts)];
  throw configError(
    `${label}: there is no rule ${show(name)}${didYouMean(name, known) || `; there are ${known.join(", ")}`}`,
  );
}

/**
 * The rules of a config file: a list of short forms, or an object that maps names to options of the section `mixing`. There, `rule` may be a
 * short form; by default it is the name. Throws `config`.
 */
export function rulesOfFile(value: unknown, label: string): RuleEntry[] {
  if (Array.isArray(value))
    return value.map((name: unknown) => {
      if (typeof name !== "string") throw configError(`${label}: ${show(name)} is not the name of a rule`);
      return { name, mixing: shortForm(name, label) };
    });
  const members = membersOf(value);
  if (members === null)
    throw configError(
      `${label}: ${show(value)} is neither a list of rules nor an object of names and options`,
    );
  return members.map(([name, content]) => {
    const at = `${label}.${name}`;
    const options = membersOf(content);
    if (options === null) throw configError(`${at}: ${show(content)} is not an object of mixing options`);
    const { rule = name, ...rest } = Object.fromEntries(options);
    if (typeof rule !== "string") throw configError(`${at}.rule: ${show(rule)} is not the name of a rule`);
    return { name, mixing: new Map([...shortForm(rule, at), ...Object.entries(rest)]) };
  });
}

/** The rules of `--rules a,b`: names of rules in the file, or short forms. Throws `config`. */
export function rulesOfFlag(text: string, defined: readonly RuleEntry[]): RuleEntry[] {
  return text.split(",").map((word) => {
    const name = word.trim();
    const own = defined.find((entry) => entry.name === name);
    if (own !== undefined) return own;
    const near = didYouMean(
      name,
      defined.map((entry) => entry.name),
    );
    if (near !== "" && !isShort(name)) throw configError(`--rules: there is no rule ${show(name)}${near}`);
    return { name, mixing: shortForm(name, "--rules") };
  });
}

const isShort = (name: string): boolean => isRuleName(name) || Object.hasOwn(shorts, name);

/** Folder of a rule: its name with dashes for colons, which some file systems do not allow. */
function folderOf(rule: string): string {
  return rule.replaceAll(":", "-");
}

/** Throws `config` for a name that cannot be a folder, or that two rules share. `label` names where the rules were given. */
export function checkRules(rules: readonly RuleEntry[], label: string): void {
  if (rules.length === 0) throw configError(`${label}: is empty; name the rules to compare`);
  const seen = new Set<string>();
  for (const { name } of rules) {
    if (!/^[\p{L}\p{N}][\p{L}\p{M}\p{N}_:.-]*$/u.test(name) || name.length > 80)
      throw configError(
        `${label}: ${show(name)} cannot name a folder; such a name begins with a letter or digit, and has letters with their marks, digits, "_", "-", "." and ":"`,
      );
    // On file systems that ignore case, both names are the same folder.
    const folder = folderOf(name).toLowerCase();
    if (isOwnFile(folder))
      throw configError(
        `${label}: ${show(name)} is the name of a file of the comparison; choose another name`,
      );
    if (seen.has(folder))
      throw configError(
        `${label}: ${show(name)} is listed twice; to compare a rule with other options, give it another name in a config file`,
      );
    seen.add(folder);
  }
}

/** Whether a name is that of a file of the comparison itself. */
function isOwnFile(name: string): boolean {
  return isLockName(name) || Object.values(comparisonFiles).some((file) => file === name);
}

/**
 * Parses seeds: `3` means three seeds from `first` on, `1,5,9` means these. `value` may be the number or list of a config file. `label` and `firstLabel`
 * name where the seeds and the first seed were given. Throws `config`.
 */
export function seedsOf(value: unknown, first: number, label: string, firstLabel = "--seed"): number[] {
  const given =
    typeof value !== "string"
      ? value
      : value.includes(",")
        ? value
            .split(",")
            .filter((part, i, parts) => part.trim() !== "" || i < parts.length - 1)
            .map((part) => (part.trim() === "" ? NaN : Number(part)))
        : Number(value);
  const isSeed = (seed: unknown): seed is number => Number.isSafeInteger(seed) && Number(seed) >= 0;
  if (Array.isArray(given)) {
    const seeds: readonly unknown[] = given;
    if (seeds.length === 0 || !seeds.every(isSeed))
      throw configError(
        `${label}: ${show(value)} is not a list of seeds: whole numbers of at least 0${seeds.some((seed) => Number(seed) > Number.MAX_SAFE_INTEGER) ? ` and at most ${Number.MAX_SAFE_INTEGER}` : ""}`,
      );
    if (new Set(seeds).size < seeds.length) throw configError(`${label}: ${show(value)} has a seed twice`);
    return [...seeds];
  }
  if (!isSeed(given) || given < 1 || given > MOST_SEEDS)
    throw configError(
      `${label}: ${show(value)} is not a number of seeds from 1 to ${MOST_SEEDS}; to list seeds, write ${typeof value === "string" ? '1,5,9, or "7," for the seed 7 alone' : "[1, 5, 9]"}`,
    );
  if (first > Number.MAX_SAFE_INTEGER - (given - 1))
    throw configError(
      `${firstLabel}: ${given} seeds from ${first} on go beyond the largest seed, ${Number.MAX_SAFE_INTEGER}; begin with a smaller one, or list the seeds with --seeds A,B`,
    );
  return Array.from({ length: given }, (_, i) => first + i);
}

/** The named baseline, or by default the first rule. Throws `config` for a name that is not a rule; `label` names where it was given. */
export function baselineOf(rules: readonly RuleEntry[], named: string | null, label: string): string {
  const names = rules.map(({ name }) => name);
  if (named === null) return names[0] ?? "";
  if (names.includes(named)) return named;
  throw configError(
    `${label}: ${show(named)} is not one of the compared rules, ${names.join(", ")}${didYouMean(named, names)}`,
  );
}

/** Options of the section `mixing` that only some rules accept, each with a test of whether a rule does. */
const particular: Readonly<Record<string, (entry: RuleEntry, given: Layer) => boolean>> = {
  eta: (entry) => ruleTakes(ruleOf(entry), "eta"),
  beta: (entry) => ruleTraits(ruleOf(entry)).fixed !== true,
  normalise: (entry) => ruleTakes(ruleOf(entry), "normalise"),
  weights: (entry) => ruleTakes(ruleOf(entry), "weights"),
  histogram: (entry) =>
    ruleTakes(ruleOf(entry), "histogram") &&
    !entry.mixing.has("preset") &&
    entry.mixing.get("prior") !== "uniform",
  // A rule that weighs by size can only be told to use all text, as it does anyway.
  select: (entry, { values }) => Number(values.get("mixing.select")) >= 1 || !weighsBySize(ruleOf(entry)),
  preset: (entry) => ruleTraits(ruleOf(entry)).published !== undefined,
  prior: (entry) => typeof ruleTraits(ruleOf(entry)).histogram === "object" && !entry.mixing.has("preset"),
  // A guard compares with the model of a reference under any rule.
  reference: (entry, given) => ruleTraits(ruleOf(entry)).referenceModel === true || hasGuard(entry, given),
  guardShare: hasGuard,
};

function hasGuard({ mixing }: RuleEntry, given: Layer): boolean {
  return mixing.has("guard") || given.values.has("mixing.guard");
}

const ruleOf = ({ mixing }: RuleEntry): RuleName => mixing.get("rule") as RuleName;

const rows: readonly OptionRow[] = optionRows();

/** The given options of `gradmix train` that apply to a rule. An option that the rule does not accept applies only to the other rules. */
export function optionsFor(entry: RuleEntry, given: Layer): Layer {
  const takes = (path: string): boolean => {
    const key = /^mixing\.(.*)$/.exec(path)?.[1];
    if (key === undefined) return true;
    if (key === "rule") return false;
    if (key === "ruleOptions") return given.values.get("mixing.rule") === ruleOf(entry);
    return particular[key]?.(entry, given) ?? true;
  };
  return { ...given, values: new Map([...given.values].filter(([path]) => takes(path))) };
}

/**
 * One line for each option that some of the rules do not accept. Throws `config` for an option that no rule accepts, and for options of a
 * single rule that do not name it.
 */
export function sharedOptions(rules: readonly RuleEntry[], given: Layer): string[] {
  return [...given.values].flatMap(([path, value]) => {
    const row = rows.find((row) => row.path === path);
    if (row?.section !== "mixing" || row.key === "rule" || isEqual(value, row.default)) return [];
    const label = given.label(path);
    const taking = rules.filter((entry) => optionsFor(entry, given).values.has(path));
    const names = taking.map(({ name }) => name).join(", ");
    if (taking.length === 0)
      throw configError(
        row.key === "ruleOptions"
          ? `${label}: it is not clear which rule the options belong to; set them per rule in a config file: {"compare": {"rules": {"mine": {"rule": "doge", "ruleOptions": {…}}}}}`
          : `${label}: none of the compared rules has this option`,
      );
    return taking.length === rules.length
      ? []
      : [`${label} applies to ${names}; the other rules do not have this option`];
  });
}

/** A rule of a comparison, and what its runs select. */
export interface RuleSelection {
  /** Smallest share of a domain's windows that is selected; 1: all text. */
  readonly leastShare: number;
  /** Whether the rule can train on selected windows. */
  readonly canSelect: boolean;
}

/** A line if some of the rules train on selected windows and others on all text. */
export function selectionWarning(rules: ReadonlyMap<string, RuleSelection>): string[] {
  const named = (chosen: (rule: RuleSelection) => boolean): string =>
    [...rules].flatMap(([name, rule]) => (chosen(rule) ? [name] : [])).join(", ");
  const selecting = named(({ leastShare }) => leastShare < 1);
  const others = named(({ leastShare }) => leastShare >= 1);
  const could = named(({ leastShare, canSelect }) => leastShare >= 1 && canSelect);
  if (selecting === "" || others === "") return [];
  const advice =
    could === "" ? "" : `, and --select ${selectionDefaults.leastShare} selects for ${could} too`;
  return [
    `on the text within each domain that resembles the target most: ${selecting}; on all text: ${others}. --select 1 gives all text to every rule${advice}`,
  ];
}

/** What the runs depend on in addition to the choice. */
export interface PlanFacts {
  readonly choice: Choice;
  /** The options that were given for all runs. */
  readonly given: Layer;
  /** The folder of the comparison. */
  readonly folder: string;
  /** Resolves the options of one rule; earlier layers take precedence. Throws `config`. */
  resolve(layers: readonly Layer[]): Promise<TrainConfig>;
}

/**
 * The runs in order: for each target all seeds, for each seed all rules. All runs hold out the same text, determined by `data.seed` or the
 * first seed, and use the same tokenizer. Throws `config`, naming the rule, for a run that is not possible.
 */
export async function planRuns({ choice, given, folder, resolve }: PlanFacts): Promise<PlannedRun[]> {
  const targets = (given.values.get("data.targets") ?? new Map()) as TrainConfig["data"]["targets"];
  const target = (given.values.get("data.target") ?? []) as readonly string[];
  if (targets.size > 0 && target.length > 0)
    throw configError(
      `${given.label("data.target")}: gradmix compare uses the targets of --targets in turn; add this one to them`,
    );
  if (targets.size === 0 && target.length === 0)
    throw configError("gradmix compare needs a target, whose held-out loss is compared: add --target GLOB");
  const same = sameButForCase(targets.keys());
  if (same !== null)
    throw configError(
      `${given.label("data.targets")}: the runs of ${show(same[0])} and ${show(same[1])} would have the same folder on a case-insensitive file system; rename one of the targets`,
    );
  const runs: PlannedRun[] = [];
  for (const [name, globs] of targets.size === 0 ? [[null, target] as const] : targets) {
    const configs = new Map<string, TrainConfig>();
    for (const entry of choice.rules)
      configs.set(entry.name, await configFor(entry, globs, { given, targets, resolve }));
    for (const seed of choice.seeds)
      for (const [rule, config] of configs) {
        const parts = [folderOf(rule), `seed-${seed}`, ...(name === null ? [] : [name])];
        runs.push({
          name: parts.join("/"),
          rule,
          seed,
          target: name,
          config: configOfRun(config, seed, folder, join(folder, ...parts)),
        });
      }
  }
  return runs;
}

function configOfRun(config: TrainConfig, seed: number, folder: string, out: string): TrainConfig {
  const { data, model, training, run } = config;
  // A model to start from has its own tokenizer.
  const shared = data.tokenizer === "bpe" && model.initFrom === null;
  // The size of the vocabulary is then that of the tokenizer.
  const own = shared ? { tokenizer: join(folder, comparisonFiles.tokenizer), vocabSize: null } : {};
  return {
    ...config,
    data: { ...data, seed: data.seed ?? training.seed, ...own },
    training: { ...training, seed },
    run: { ...run, out },
  };
}

async function configFor(
  entry: RuleEntry,
  target: readonly string[],
  {
    given,
    targets,
    resolve,
  }: Pick<PlanFacts, "given" | "resolve"> & { readonly targets: TrainConfig["data"]["targets"] },
): Promise<TrainConfig> {
  const own = jsonLayer(new Map([["mixing", entry.mixing]]), `rule ${entry.name}`);
  const several =
    ruleTraits(ruleOf(entry)).severalTargets === true ? targets : optionTable.data.targets.default;
  const data: Layer = {
    values: new Map<string, unknown>([
      ["data.target", target],
      ["data.targets", several],
    ]),
    label: given.label,
  };
  return resolve([data, own, optionsFor(entry, given)]);
}

/** The section `compare` of a config file. */
export interface CompareSection {
  readonly rules: readonly RuleEntry[] | null;
  readonly seeds: unknown;
  readonly baseline: string | null;
  /** Names a key of the section in an error. */
  label(key: "rules" | "seeds" | "baseline"): string;
}

/** Splits a config file into the section `compare` and the remaining sections, which are those of `gradmix train`. Throws `config`. */
export function splitFile(file: Json, source: string): { section: CompareSection; rest: Json } {
  const label: CompareSection["label"] = (key) => `${source}: compare.${key}`;
  const none = { rules: null, seeds: null, baseline: null, label };
  if (!(file instanceof Map)) return { section: none, rest: file };
  const whole = file as ReadonlyMap<string, Json>;
  const rest = new Map([...whole].filter(([key]) => key !== "compare"));
  const compare = whole.get("compare");
  if (compare === undefined) return { section: none, rest };
  const members = membersOf(compare);
  if (members === null) throw configError(`${source}: compare: ${show(compare)} is not an object`);
  const known = ["rules", "seeds", "baseline"];
  const stray = members.find(([key]) => !known.includes(key));
  if (stray !== undefined)
    throw configError(`${source}: unknown key "compare.${stray[0]}"${didYouMean(stray[0], known)}`);
  const { rules, seeds = null, baseline = null } = Object.fromEntries(members);
  if (baseline !== null && typeof baseline !== "string")
    throw configError(`${label("baseline")}: ${show(baseline)} is not the name of a rule`);
  return {
    section: {
      rules: rules === undefined ? null : rulesOfFile(rules, label("rules")),
      seeds,
      baseline,
      label,
    },
    rest,
  };
}
