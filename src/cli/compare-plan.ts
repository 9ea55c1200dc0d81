/** What `gradmix compare` compares, and the runs that it takes: options in, a list of runs out. Writes nothing. */
import { join } from "node:path";
import type { RuleName } from "../dga/rules/index.ts";
import { isRuleName, ruleNames, ruleTraits } from "../dga/rules/index.ts";
import type { Json } from "../json.ts";
import { isEqual, jsonLayer, type Layer } from "./config.ts";
import { ruleTakes } from "./mixing.ts";
import { type OptionRow, optionRows, optionTable } from "./options.ts";
import { comparisonFiles } from "./run-folder.ts";
import type { TrainConfig } from "./train-config.ts";
import { didYouMean, membersOf, show, wrong } from "./values.ts";

/** A rule under the name that it has in the comparison. */
export interface RuleEntry {
  readonly name: string;
  /** Options of the section `mixing`, `rule` among them. */
  readonly mixing: ReadonlyMap<string, unknown>;
}

/** What is compared. */
export interface Choice {
  /** At least one; names are unique, also as folders. */
  readonly rules: readonly RuleEntry[];
  /** Seeds of the training, each once. */
  readonly seeds: readonly number[];
  /** Name of one of the rules. */
  readonly baseline: string;
}

/** A run of the comparison. */
export interface PlannedRun {
  /** `dga/seed-1`, `dga/seed-1/exam`: its folder within that of the comparison. */
  readonly name: string;
  readonly rule: string;
  readonly seed: number;
  /** null where there is only one. */
  readonly target: string | null;
  readonly config: TrainConfig;
}

/** What is compared where nothing is said: from knowing nothing of the target to following it. */
export const usualRules = "uniform,proportional,importanceSampling,dga";
export const usualSeeds = 3;

/** More than anyone waits for; a seed in the place of a count is more. */
const MOST_SEEDS = 1000;

/** Short forms beside the rules' own names. */
const shorts: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  proportional: { rule: "temperature", ruleOptions: { exponent: 1 } },
  "dga:paper": { rule: "dga", preset: "paper" },
};

/** The rule that a short form stands for. Throws `config`, offering the nearest. */
function shortForm(name: string, label: string): ReadonlyMap<string, unknown> {
  if (Object.hasOwn(shorts, name)) return new Map(Object.entries(shorts[name] ?? {}));
  if (isRuleName(name)) return new Map([["rule", name]]);
  const known = [...ruleNames, ...Object.keys(shorts)];
  throw wrong(
    `${label}: there is no rule ${show(name)}${didYouMean(name, known) || `; there are ${known.join(", ")}`}`,
  );
}

/**
 * The rules that a config file names: a list of short forms, or an object of names and options of the section `mixing`, in which `rule` may be a short form and is
 * the name where it is left out. Throws `config`.
 */
export function rulesOfFile(value: unknown, label: string): RuleEntry[] {
  if (Array.isArray(value))
    return value.map((name: unknown) => {
      if (typeof name !== "string") throw wrong(`${label}: ${show(name)} is not the name of a rule`);
      return { name, mixing: shortForm(name, label) };
    });
  const members = membersOf(value);
  if (members === null)
    throw wrong(`${label}: ${show(value)} is neither a list of rules nor an object of names and options`);
  return members.map(([name, content]) => {
    const at = `${label}.${name}`;
    const options = membersOf(content);
    if (options === null) throw wrong(`${at}: ${show(content)} is not an object of mixing options`);
    const { rule = name, ...rest } = Object.fromEntries(options);
    if (typeof rule !== "string") throw wrong(`${at}.rule: ${show(rule)} is not the name of a rule`);
    return { name, mixing: new Map([...shortForm(rule, at), ...Object.entries(rest)]) };
  });
}

/** The rules of `--rules a,b`: those of the file by their names, and short forms. Throws `config`. */
export function rulesOfFlag(text: string, defined: readonly RuleEntry[]): RuleEntry[] {
  return text.split(",").map((word) => {
    const name = word.trim();
    const own = defined.find((entry) => entry.name === name);
    if (own !== undefined) return own;
    const near = didYouMean(
      name,
      defined.map((entry) => entry.name),
    );
    if (near !== "" && !isShort(name)) throw wrong(`--rules: there is no rule ${show(name)}${near}`);
    return { name, mixing: shortForm(name, "--rules") };
  });
}

const isShort = (name: string): boolean => isRuleName(name) || Object.hasOwn(shorts, name);

/** The folder of a rule: its name, in which a colon is a dash, since not every file system has colons. */
function folderOf(rule: string): string {
  return rule.replaceAll(":", "-");
}

/** Throws `config` for a name that is no folder's, or that two rules have. */
export function checkRules(rules: readonly RuleEntry[]): void {
  if (rules.length === 0) throw wrong("--rules: is empty; name the rules to compare");
  const seen = new Set<string>();
  for (const { name } of rules) {
    if (!/^[\p{L}\p{N}][\p{L}\p{M}\p{N}_:.-]*$/u.test(name) || name.length > 80)
      throw wrong(
        `--rules: ${show(name)} cannot name a folder: letters with their marks, digits, "_", "-", "." and ":"`,
      );
    // File systems that know no case hold both in one folder.
    const folder = folderOf(name).toLowerCase();
    if (isOwnFile(folder))
      throw wrong(`--rules: ${show(name)} is what a comparison calls a file of its own; choose another name`);
    if (seen.has(folder))
      throw wrong(`--rules: ${show(name)} is there twice; a rule with other options needs a name of its own`);
    seen.add(folder);
  }
}

/** Names of the files that a comparison has beside the folders of its rules; what becomes of a lock begins as it does. */
function isOwnFile(name: string): boolean {
  const { lock, ...files } = comparisonFiles;
  return Object.values(files).some((file) => file === name) || name === lock || name.startsWith(`${lock}.`);
}

/** `3` is that many seeds from `first` on, `1,5,9` are these. `value` may be the number or list of a config file. Throws `config`. */
export function seedsOf(value: unknown, first: number, label: string): number[] {
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
      throw wrong(`${label}: ${show(value)} is not a list of seeds: whole numbers of at least 0`);
    if (new Set(seeds).size < seeds.length) throw wrong(`${label}: ${show(value)} has a seed twice`);
    return [...seeds];
  }
  if (!isSeed(given) || given < 1 || given > MOST_SEEDS)
    throw wrong(
      `${label}: ${show(value)} is not a number of seeds from 1 to ${MOST_SEEDS}; a list of seeds is 1,5,9, and "7," is the seed 7 alone`,
    );
  return Array.from({ length: given }, (_, i) => first + i);
}

/** The baseline that was named, or the first rule. Throws `config` for another. */
export function baselineOf(rules: readonly RuleEntry[], named: string | null): string {
  const names = rules.map(({ name }) => name);
  if (named === null) return names[0] ?? "";
  if (names.includes(named)) return named;
  throw wrong(
    `--baseline: ${show(named)} is not one of the compared rules, ${names.join(", ")}${didYouMean(named, names)}`,
  );
}

/** Options of the section `mixing` that not every rule takes. */
const particular: Readonly<Record<string, (entry: RuleEntry, given: Layer) => boolean>> = {
  eta: (entry) => ruleTakes(ruleOf(entry), "eta"),
  beta: (entry) => ruleTraits(ruleOf(entry)).fixed !== true,
  normalise: (entry) => ruleTakes(ruleOf(entry), "normalise"),
  weights: (entry) => ruleTakes(ruleOf(entry), "weights"),
  histogram: (entry) =>
    ruleTakes(ruleOf(entry), "histogram") &&
    !entry.mixing.has("preset") &&
    entry.mixing.get("prior") !== "uniform",
  preset: (entry) => ruleTraits(ruleOf(entry)).published !== undefined,
  prior: (entry) => typeof ruleTraits(ruleOf(entry)).histogram === "object" && !entry.mixing.has("preset"),
  // A guard compares with the model of a reference, whatever the rule.
  reference: (entry, given) => ruleTraits(ruleOf(entry)).referenceModel === true || hasGuard(entry, given),
  guardShare: hasGuard,
};

function hasGuard({ mixing }: RuleEntry, given: Layer): boolean {
  return mixing.has("guard") || given.values.has("mixing.guard");
}

const ruleOf = ({ mixing }: RuleEntry): RuleName => mixing.get("rule") as RuleName;

const rows: readonly OptionRow[] = optionRows();

/** The options of `gradmix train` that a rule gets of those that were given for all: what it does not take goes to the others alone. */
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
 * A line for each option that some of the rules do not take. Throws `config` for one that none takes, and for options of a rule where it is not said of which.
 */
export function sharedOptions(rules: readonly RuleEntry[], given: Layer): string[] {
  return [...given.values].flatMap(([path, value]) => {
    const row = rows.find((row) => row.path === path);
    if (row?.section !== "mixing" || row.key === "rule" || isEqual(value, row.default)) return [];
    const label = given.label(path);
    const taking = rules.filter((entry) => optionsFor(entry, given).values.has(path));
    const names = taking.map(({ name }) => name).join(", ");
    if (taking.length === 0)
      throw wrong(
        row.key === "ruleOptions"
          ? `${label}: it does not say for which rule; name each rule's options in a config file: {"compare": {"rules": {"mine": {"rule": "doge", "ruleOptions": {…}}}}}`
          : `${label}: none of the compared rules has this option`,
      );
    return taking.length === rules.length
      ? []
      : [`${label} applies to ${names}; the other rules do not have this option`];
  });
}

/** What the runs are made of beside the options. */
export interface PlanFacts {
  readonly choice: Choice;
  /** The options that were given for all. */
  readonly given: Layer;
  /** The folder of the comparison. */
  readonly folder: string;
  /** The options of one rule, resolved with those that go before them. Throws `config`. */
  resolve(layers: readonly Layer[]): Promise<TrainConfig>;
}

/**
 * The runs in order: all rules of a seed, all seeds of a target. All have the same text held out, decided by `data.seed` or the first seed, and the same tokenizer.
 * Throws `config`, naming the rule, for one that cannot run.
 */
export async function planRuns({ choice, given, folder, resolve }: PlanFacts): Promise<PlannedRun[]> {
  const targets = (given.values.get("data.targets") ?? new Map()) as TrainConfig["data"]["targets"];
  const target = (given.values.get("data.target") ?? []) as readonly string[];
  if (targets.size > 0 && target.length > 0)
    throw wrong(
      `${given.label("data.target")}: gradmix compare uses the targets of --targets in turn; add this one to them`,
    );
  if (targets.size === 0 && target.length === 0)
    throw wrong("gradmix compare needs a target, whose held-out loss is compared: add --target GLOB");
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
  // A model to begin with brings its own.
  const tokenizer =
    data.tokenizer === "bpe" && model.initFrom === null
      ? join(folder, comparisonFiles.tokenizer)
      : data.tokenizer;
  return {
    ...config,
    data: { ...data, seed: data.seed ?? training.seed, tokenizer },
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
}

/** A config file in two: the section `compare`, and the rest, which is one of `gradmix train`. Throws `config`. */
export function splitFile(file: Json, source: string): { section: CompareSection; rest: Json } {
  const none = { rules: null, seeds: null, baseline: null };
  if (!(file instanceof Map)) return { section: none, rest: file };
  const whole = file as ReadonlyMap<string, Json>;
  const rest = new Map([...whole].filter(([key]) => key !== "compare"));
  const compare = whole.get("compare");
  if (compare === undefined) return { section: none, rest };
  const members = membersOf(compare);
  if (members === null) throw wrong(`${source}: compare: ${show(compare)} is not an object`);
  const known = Object.keys(none);
  const stray = members.find(([key]) => !known.includes(key));
  if (stray !== undefined)
    throw wrong(`${source}: unknown key "compare.${stray[0]}"${didYouMean(stray[0], known)}`);
  const { rules, seeds = null, baseline = null } = Object.fromEntries(members);
  if (baseline !== null && typeof baseline !== "string")
    throw wrong(`${source}: compare.baseline: ${show(baseline)} is not the name of a rule`);
  return {
    section: {
      rules: rules === undefined ? null : rulesOfFile(rules, `${source}: compare.rules`),
      seeds,
      baseline,
    },
    rest,
  };
}
