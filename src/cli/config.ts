/**
 * Makes a checked `TrainConfig` from the command line and a config file. The command line takes precedence over the file, and the file over
 * the defaults. Unknown keys, wrong types and values that contradict each other are errors before anything runs.
 */
import { relative } from "node:path";
import { ruleTakes, weighsBySize } from "./common-options.ts";
import { boundsByName, lacksHistogram } from "./mixing.ts";
import { type TrainConfig, warmupOf } from "./train-config.ts";
import { gptVocabularies } from "../data/gpt-vocabularies.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import { keysOf } from "../keys.ts";
import { sumOf } from "../dga/simplex.ts";
import { checkRuleOptions, rulesWith, ruleTraits } from "../dga/rules/index.ts";
import { headsMisfit, traitsOf } from "../nn/architecture.ts";
import { type OptionRow, optionRows, optionTable } from "./options.ts";
import { evalShareOtherwise } from "./options/run.ts";
import type { OptionSpec, SpecsOf } from "./options/spec.ts";
import { stepsOtherwise } from "./options/training.ts";
import { targetAdvice } from "./prepared-folder.ts";
import {
  checkValue,
  didYouMean,
  fromArguments,
  membersOf,
  type Raw,
  readInput,
  show,
  configError,
} from "./values.ts";

/** Values by key path, such as "training.lr", and the name of a key of this source in an error. */
export interface Layer {
  values: ReadonlyMap<string, unknown>;
  label(path: string): string;
}

const rows: readonly OptionRow[] = optionRows();
const byPath: ReadonlyMap<string, OptionRow> = new Map(rows.map((row) => [row.path, row]));
const byFormerPath: ReadonlyMap<string, OptionRow> = new Map(
  rows.flatMap((row) => (row.formerly === undefined ? [] : [[row.formerly.path, row] as const])),
);

/** The flags that were given, checked. */
export function commandLineLayer(given: ReadonlyMap<string, Raw>): Layer {
  const label = (path: string): string => byPath.get(path)?.flag ?? path;
  const values = new Map<string, unknown>();
  for (const [path, raw] of given) {
    const row = byPath.get(path);
    if (row === undefined) continue;
    values.set(path, checkValue(row.kind, fromArguments(row.kind, raw, row.flag), row.flag));
  }
  return { values, label };
}

/** The layers of a command that takes some of the options: the command line, and a config file (null: none), whose other options are ignored. */
export function takenLayers(
  given: ReadonlyMap<string, Raw>,
  file: string | null,
  taken: readonly OptionRow[],
): Layer[] {
  const paths = new Set(taken.map(({ path }) => path));
  return [commandLineLayer(given), ...(file === null ? [] : [fileLayer(file)])].map(({ values, label }) => ({
    values: new Map([...values].filter(([key]) => paths.has(key))),
    label,
  }));
}

/**
 * The configuration that a run recorded, as a layer. Earlier versions recorded the defaults of all options, which cannot be told from values that were
 * given; such a value counts as not given.
 */
export function recordedLayer({ values, label }: Layer): Layer {
  const isDefault = (path: string, value: unknown): boolean => {
    const otherwise = byPath.get(path)?.otherwise;
    return otherwise !== undefined && isEqual(value, otherwise);
  };
  return { values: new Map([...values].filter(([path, value]) => !isDefault(path, value))), label };
}

/** Sections of a config file that belong to a single command, which removes them first. */
const sectionsOfOthers: readonly string[] = ["compare"];

/** A config file, checked. Throws `config`, naming the file and the key. */
export function fileLayer(path: string): Layer {
  return jsonLayer(readInput(path, path), path);
}

export function jsonLayer(json: unknown, source: string): Layer {
  const sections = membersOf(json);
  if (sections === null)
    throw configError(`${source}: is ${show(json)}, not a JSON object with sections data, model, …`);
  const values = new Map<string, unknown>();
  const label = (path: string): string => `${source}: ${path}`;
  for (const [section, content] of sections) {
    // One file may hold options for all commands.
    if (sectionsOfOthers.includes(section)) continue;
    if (!Object.hasOwn(optionTable, section))
      throw configError(`${source}: unknown key ${show(section)}${suggest(section)}`);
    const members = membersOf(content);
    if (members === null) throw configError(`${source}: ${section}: ${show(content)} is not an object`);
    for (const [key, value] of members) {
      const path = `${section}.${key}`;
      const row = byPath.get(path) ?? byFormerPath.get(path);
      if (row === undefined) throw configError(`${source}: unknown key "${path}"${suggest(key, section)}`);
      if (values.has(row.path))
        throw configError(
          `${source}: ${row.path} is given twice, once under its former name ${row.formerly?.path ?? ""}`,
        );
      // In a resolved config, null says that gradmix decides.
      if (value === null && row.default === null) continue;
      values.set(row.path, checkValue(row.kind, value, label(path)));
    }
  }
  return { values, label };
}

/** Whether a layer names several targets. The configuration that a run writes holds every option, also `targets` without any. */
export function namesTargets({ values }: Layer): boolean {
  const targets = values.get("data.targets");
  return targets instanceof Map && targets.size > 0;
}

/** Suggests the nearest key, first in the same section, then in all. */
function suggest(word: string, section?: string): string {
  const here = rows.filter((row) => section === undefined || row.section === section).map((row) => row.path);
  const sections = section === undefined ? Object.keys(optionTable) : [];
  const keys = new Map(
    [...here, ...rows.map((row) => row.path)].map((path) => [path.split(".")[1] ?? "", path]),
  );
  const local = new Map(here.map((path) => [path.split(".")[1] ?? "", path]));
  for (const candidates of [new Map(sections.map((name) => [name, name])), local, keys]) {
    const found = didYouMean(word, candidates.keys());
    const name = /mean (.*)\?$/.exec(found)?.[1];
    const path = name === undefined ? undefined : candidates.get(name);
    if (path !== undefined) return `; did you mean ${path}?`;
  }
  return "";
}

/** Pairs of options of which only one can be set. The first source that names either decides; the third entry is the default of the first. */
const eitherOf = [
  [["training.steps", "training.tokens"], stepsOtherwise],
  [["run.evalShare", "run.evalEvery"], evalShareOtherwise],
] as const;

/** The options that say where the domains come from. */
export const domainPaths: readonly string[] = ["data.domains", "data.domainsFrom", "data.domainField"];

/** A layer without some of its options. */
export function withoutPaths({ values, label }: Layer, paths: readonly string[]): Layer {
  return { values: new Map([...values].filter(([path]) => !paths.includes(path))), label };
}

/**
 * The layers without the domains that an earlier layer replaces: the first one that names any domain, by name or by folder, decides for all. The field
 * that names domains stays if there are still folders or files in which it is looked up.
 */
export function withOneSource(layers: readonly Layer[]): readonly Layer[] {
  const names = (layer: Layer | undefined, path: string): boolean => {
    const value = layer?.values.get(path);
    return value instanceof Map ? value.size > 0 : Array.isArray(value) && value.length > 0;
  };
  const first = layers.findIndex((layer) => names(layer, "data.domains") || names(layer, "data.domainsFrom"));
  if (first < 0) return layers;
  const replaced = domainPaths.filter(
    (path) => path !== "data.domainField" || !names(layers[first], "data.domainsFrom"),
  );
  const namesNone = domainPaths.filter((path) => path !== "data.domainField");
  return layers.map((layer, i) =>
    i === first ? layer : withoutPaths(layer, i < first ? namesNone : replaced),
  );
}

/** Merges layers into one; earlier layers take precedence. */
export function mergeLayers(layers: readonly Layer[]): Layer {
  const values = new Map<string, unknown>();
  const labels = new Map<string, string>();
  const taken = new Set<string>();
  for (const { values: own, label } of withOneSource(layers)) {
    const left = [...own].filter(([path]) => !taken.has(path));
    for (const [path, value] of left) {
      values.set(path, value);
      labels.set(path, label(path));
    }
    for (const [path] of left) for (const other of alternatives(path)) taken.add(other);
  }
  return { values, label: (path) => labels.get(path) ?? byPath.get(path)?.flag ?? path };
}

/** The option and its alternatives. */
function alternatives(path: string): readonly string[] {
  return eitherOf.map(([paths]): readonly string[] => paths).find((paths) => paths.includes(path)) ?? [path];
}

/** Merges layers, of which earlier ones take precedence, and checks options that depend on each other. */
export function resolveConfig(given: readonly Layer[]): TrainConfig {
  const layers = withOneSource(given);
  const values = new Map<string, unknown>();
  const labels = new Map<string, string>();
  for (const { path, flag } of rows) {
    const layer = layers.find(({ values }) => values.has(path));
    if (layer !== undefined) values.set(path, layer.values.get(path));
    labels.set(path, layer?.label(path) ?? flag);
  }
  for (const [paths, otherwise] of eitherOf) {
    const layer = layers.find(({ values }) => paths.some((path) => values.has(path)));
    for (const path of paths) values.set(path, layer?.values.get(path) ?? null);
    if (layer === undefined) values.set(paths[0], otherwise);
  }
  const label = (path: string): string => labels.get(path) ?? path;
  const read = <V>(path: string, spec: OptionSpec<V>): V => {
    const value = values.get(path) ?? null;
    return value === null ? spec.default : spec.kind.check(value, label(path));
  };
  const section = <S extends keyof TrainConfig>(name: S): TrainConfig[S] =>
    readAll<TrainConfig[S]>(optionTable[name], (key, spec) => read(`${name}.${key}`, spec));
  const config: TrainConfig = {
    data: section("data"),
    model: section("model"),
    training: section("training"),
    mixing: section("mixing"),
    alignment: section("alignment"),
    run: section("run"),
  };
  checkTogether(config, label);
  // The default is the size that bpe trains. Nothing but the tokenizer of the files says how many ids they have.
  if (config.data.tokenizer === "none" && config.data.vocabSize === null)
    throw configError(
      `${label("data.tokenizer")}: with none, the number of ids is not known; add --vocab-size N, the size of the vocabulary of the files`,
    );
  // Recorded as a number, so that a resumed run with more steps has the same warm-up.
  return { ...config, training: { ...config.training, warmup: warmupOf(config) } };
}

/** An object with one value for each row of a table. */
function readAll<T extends object>(specs: SpecsOf<T>, read: <V>(key: string, spec: OptionSpec<V>) => V): T {
  const out: Partial<T> = {};
  for (const key of keysOf(specs)) out[key] = read(key, specs[key]);
  // A table has a row for every member.
  return out as T;
}

/** Smallest vocabulary of "bpe": the bytes and the end of text. */
const LEAST_BPE = 257;

/** Names a key in an error. */
type Label = (path: string) => string;

/** Checks options that depend on each other. Throws `config`, naming one of them. */
function checkTogether(config: TrainConfig, label: Label): void {
  checkData(config.data, label);
  checkTexts(config, label);
  checkTokenizer(config, label);
  checkLengths(config, label);
  checkModel(config.model, label);
  checkRule(config, label);
  if (config.data.domainsFrom.length === 0)
    // Domains that are found later are checked once they are found.
    checkDomains(config.mixing, [...config.data.domains.keys()], label);
  checkAlignment(config, label);
  checkEngine(config.run, label);
}

function checkData(data: TrainConfig["data"], label: Label): void {
  if (data.domains.size === 0 && data.domainsFrom.length === 0)
    throw configError(
      'no domain was given: add --domain NAME=GLOB or --domains DIR, or "data": {"domains": {…}} in a config file',
    );
  if (data.domainField !== null && data.domainsFrom.length === 0)
    throw configError(
      `${label("data.domainField")}: needs --domains, whose documents it assigns to domains; add --domains GLOB`,
    );
}

/**
 * Checks the texts that the rule needs beside the domains: several targets, and the text of a reference model. `planMixing` checks whether it
 * needs one target, because that depends on what the rule measures.
 */
function checkTexts({ data, mixing, run }: TrainConfig, label: Label): void {
  const { severalTargets = false, referenceModel = false } = ruleTraits(mixing.rule);
  if (severalTargets && data.targets.size === 0)
    throw configError(`--rule ${mixing.rule} needs targets: add --targets NAME=GLOB for each`);
  if (!severalTargets && data.targets.size > 0)
    throw configError(
      `${label("data.targets")}: --rule ${mixing.rule} does not use several targets; use --target`,
    );
  if (referenceModel && mixing.reference === null)
    throw configError(
      `--rule ${mixing.rule} needs a reference model: train one with --rule uniform, then add --reference DIR`,
    );
  if (!referenceModel && mixing.guard === null && mixing.reference !== null)
    throw configError(
      `${label("mixing.reference")}: --rule ${mixing.rule} does not use a reference model (--guard does)`,
    );
  if (mixing.guard === null && mixing.guardShare !== null)
    throw configError(
      `${label("mixing.guardShare")}: limits the evaluations for --guard, which is not given; add --guard NAME<=X`,
    );
  if (run.keepBest && data.target.length === 0 && data.targets.size === 0)
    throw configError(
      `${label("run.keepBest")}: the best step is the one with the lowest loss on a target, and there is no target; ${targetAdvice(data.domainsFrom, "add --target GLOB")}`,
    );
}

function checkTokenizer({ data, mixing }: TrainConfig, label: Label): void {
  const tokenizers = ["bpe", "byte", "none", ...gptVocabularies];
  if (!tokenizers.includes(data.tokenizer) && !data.tokenizer.endsWith(".json"))
    throw configError(
      `${label("data.tokenizer")}: ${show(data.tokenizer)} is not "bpe", "byte", "none", the path of a tokenizer.json or the name of a vocabulary (${gptVocabularies.join(", ")})${didYouMean(data.tokenizer, tokenizers)}`,
    );
  if (data.tokenizer === "bpe" && data.vocabSize !== null && data.vocabSize < LEAST_BPE)
    throw configError(
      `${label("data.vocabSize")}: ${data.vocabSize} is not a whole number of at least ${LEAST_BPE}: the vocabulary of bpe contains all bytes and the end of text`,
    );
  if (data.tokenizer === "none" && mixing.reference !== null)
    throw configError(
      `${label("mixing.reference")}: the two runs must have the same tokenizer; name the one of the files with --tokenizer FILE`,
    );
}

/** The options of which one is given. */
function checkLengths({ training, run }: TrainConfig, label: Label): void {
  if (training.steps !== null && training.tokens !== null)
    throw configError(
      `${label("training.steps")} and ${label("training.tokens")}: give one of them, not both`,
    );
  if (run.evalShare !== null && run.evalEvery !== null)
    throw configError(`${label("run.evalShare")} and ${label("run.evalEvery")}: give one of them, not both`);
}

function checkModel(model: TrainConfig["model"], label: Label): void {
  const misfit = headsMisfit({ ...model, kvHeads: model.kvHeads ?? model.heads }, traitsOf(model.preset));
  if (misfit !== null) throw configError(`${label(`model.${misfit.field}`)}: ${misfit.problem}`);
}

function checkRule({ data, mixing }: TrainConfig, label: Label): void {
  const named = mixing.ruleOptions["name"] ?? mixing.rule;
  if (named !== mixing.rule)
    throw configError(
      `${label("mixing.ruleOptions")}: it names the rule ${show(named)}, but the rule is ${mixing.rule}; set the rule with --rule`,
    );
  checkRuleOptions(mixing.rule, mixing.ruleOptions, label("mixing.ruleOptions"));
  if (mixing.bases !== null && mixing.guard !== null)
    throw configError(
      `${label("mixing.guard")}: a guard moves the weights of single domains, but with --bases the rule moves the weights of bases; leave out one of the two`,
    );
  if (mixing.repetitionCap !== null && Object.hasOwn(mixing.ruleOptions, "repetitions"))
    throw configError(
      `${label("mixing.repetitionCap")}: --rule-options also sets repetitions; leave out one of the two`,
    );
  const { published, histogram, needsWeights = false } = ruleTraits(mixing.rule);
  if (mixing.preset !== null && published === undefined)
    throw configError(
      `${label("mixing.preset")}: ${mixing.preset} is a form of --rule ${rulesWith("published").join(", ")}, not of ${mixing.rule}`,
    );
  if (typeof histogram === "object" && mixing.histogram !== null) {
    if (mixing.preset !== null)
      throw configError(
        `${label("mixing.histogram")}: --mixing-preset ${mixing.preset} has no prior; to start at these shares use --weights`,
      );
    if (mixing.prior === "uniform")
      throw configError(
        `${label("mixing.histogram")}: the histogram is the prior of --rule ${mixing.rule}, and --prior uniform asks for equal weights; leave out one of them`,
      );
  }
  if (typeof histogram === "object" && mixing.prior === "histogram") {
    if (mixing.preset !== null)
      throw configError(
        `${label("mixing.prior")}: --mixing-preset ${mixing.preset} has no prior; leave out one of them`,
      );
    if (mixing.bases !== null && lacksHistogram(mixing))
      throw configError(
        `${label("mixing.prior")}: with --bases no histogram is counted; give one over the bases with --histogram NAME=X,NAME=X, or leave --prior out`,
      );
  }
  if ((mixing.select ?? 1) < 1 && weighsBySize(mixing.rule))
    throw configError(
      `${label("mixing.select")}: --rule ${mixing.rule} weighs the domains by their sizes, which a selection would change; leave it out, or choose another rule`,
    );
  if ((mixing.select ?? 1) < 1 && data.target.length === 0)
    throw configError(
      `${label("mixing.select")}: windows are selected by their likeness to a target: ${targetAdvice(data.domainsFrom, "add --target GLOB")}, or leave it out`,
    );
  if (needsWeights && mixing.weights === null)
    throw configError(`--rule ${mixing.rule} needs weights: add --weights NAME=X,NAME=X`);
  if (histogram === "needed" && lacksHistogram(mixing)) {
    if (mixing.bases !== null)
      throw configError(
        `--rule ${mixing.rule} needs a histogram of the target over the bases: add --histogram NAME=X,NAME=X`,
      );
    if (data.target.length === 0)
      throw configError(
        `--rule ${mixing.rule} needs a target: ${targetAdvice(data.domainsFrom, "add --target GLOB")}, or a histogram of it with --histogram NAME=X,NAME=X`,
      );
  }
  if (mixing.weights !== null && !ruleTakes(mixing.rule, "weights"))
    throw configError(
      `${label("mixing.weights")}: --rule ${mixing.rule} does not use weights; leave them out`,
    );
  if (mixing.histogram !== null && !ruleTakes(mixing.rule, "histogram"))
    throw configError(
      `${label("mixing.histogram")}: --rule ${mixing.rule} does not use a histogram; leave it out`,
    );
}

function checkAlignment({ mixing, alignment }: TrainConfig, label: Label): void {
  if (alignment.bases !== null && mixing.bases === null)
    throw configError(
      `${label("alignment.bases")}: says how bases are measured, and there are none; add --bases FILE, or leave it out`,
    );
  if (alignment.from === "step" && alignment.estimator !== null && alignment.estimator !== "segmented")
    throw configError(
      `${label("alignment.estimator")}: --align-from step works with segmented only, not ${alignment.estimator}`,
    );
  if (
    alignment.estimator === "forward" &&
    ruleTakes(mixing.rule, "normalise") &&
    !["raw", "tracked", null].includes(mixing.normalise)
  )
    throw configError(
      `${label("alignment.estimator")}: forward does not compute the gradient norms that --normalise ${mixing.normalise} needs; choose tracked or raw`,
    );
}

function checkEngine(run: TrainConfig["run"], label: Label): void {
  if (
    (run.backend === "webgpu" || run.backend === "reference") &&
    (run.threads !== null || run.simd !== "auto")
  )
    throw configError(
      `${label(run.threads === null ? "run.simd" : "run.threads")}: an option of the cpu backend, not of ${run.backend}; leave it out`,
    );
  if (run.precision === "f16" && run.backend !== "webgpu")
    throw configError(`${label("run.precision")}: f16 needs --backend webgpu, not ${run.backend}`);
}

/**
 * Throws `config` for options that do not match the names of the domains. With bases, the rule's weights are those of the bases, which their
 * file names.
 */
export function checkDomains(
  mixing: TrainConfig["mixing"],
  domains: readonly string[],
  label: (path: string) => string = (path) => byPath.get(path)?.flag ?? path,
): void {
  const { bases, weights, histogram } = mixing;
  if (bases !== null) return;
  checkBounds(mixing, domains, label);
  if (weights !== null) {
    const name = label("mixing.weights");
    checkNames(weights, domains, name);
    const missing = domains.find((domain) => !weights.has(domain));
    if (missing !== undefined) throw configError(`${name}: gives no weight to the domain "${missing}"`);
  }
  if (histogram !== null) checkNames(histogram, domains, label("mixing.histogram"));
}

/** Throws for floors and ceilings that no weights can satisfy, and for names that are not domains. */
function checkBounds(
  { floor, ceiling, guard }: TrainConfig["mixing"],
  domains: readonly string[],
  label: (path: string) => string,
): void {
  const k = domains.length;
  for (const [key, given] of Object.entries({ floor, ceiling, guard }))
    if (given instanceof Map) {
      const { ["*"]: _all, ...named } = Object.fromEntries(given as ReadonlyMap<string, number>);
      checkNames(new Map(Object.entries(named)), domains, label(`mixing.${key}`));
    }
  const floors = boundsByName(floor, domains, 0);
  const ceilings = boundsByName(ceiling, domains, 1);
  if (typeof floor === "number" && floor * k >= 1)
    throw configError(
      `${label("mixing.floor")}: ${floor} is not below 1 / ${k}, the share of each of ${k} domains`,
    );
  const total = (bounds: readonly number[]): number => Number(sumOf(bounds).toPrecision(9));
  const [low, high] = [total(floors), total(ceilings)];
  if (k > 1 && low >= 1)
    throw configError(
      `${label("mixing.floor")}: the floors of ${k} domains sum to ${low}; together they must be below 1`,
    );
  if (high < 1)
    throw configError(
      `${label("mixing.ceiling")}: the ceilings of ${k} domains sum to ${high}; together they must be at least 1`,
    );
  const above = domains.findIndex((_, i) => floors[i]! > ceilings[i]!);
  if (above >= 0)
    throw configError(
      `${label("mixing.floor")}: the floor of "${domains[above]}", ${floors[above]}, is above its ceiling, ${ceilings[above]}`,
    );
}

function checkNames(given: ReadonlyMap<string, number>, domains: readonly string[], label: string): void {
  const known = new Set(domains);
  for (const name of given.keys()) {
    if (known.has(name)) continue;
    const few = domains.length <= 20 ? `; its domains are ${domains.join(", ")}` : "";
    throw configError(
      `${label}: ${show(name)} is not a domain of this run${didYouMean(name, domains) || few}`,
    );
  }
}

/**
 * Refuses to resume a run with another configuration. Throws `checkpoint` for the first key that differs and that a resumed run may not
 * change. `wanted` may contain only some of the keys.
 */
export function checkSameConfig(
  saved: TrainConfig,
  wanted: ReadonlyMap<string, unknown>,
  source: string,
): void {
  const before = flatten(saved);
  for (const row of rows) {
    if (row.free === true || row.recorded === true || !wanted.has(row.path)) continue;
    const was = before.get(row.path) ?? row.otherwise;
    const is = wanted.get(row.path) ?? row.otherwise;
    if (
      row.path === "data.tokenizer" &&
      besideRun(was, saved.run.out) === besideRun(is, wanted.get("run.out"))
    )
      continue;
    if (canonical(was) !== canonical(is))
      throw new GradmixError(
        "checkpoint",
        `${source} was made with ${row.path} = ${show(was)}, not ${show(is)}; a resumed run keeps its configuration`,
      );
  }
}

/**
 * The path of a tokenizer as seen from the folder of its run; a value of its own for anything else. The runs of a comparison share a tokenizer in its
 * folder, which may be moved, or named in another way.
 */
function besideRun(tokenizer: unknown, out: unknown): unknown {
  return typeof tokenizer === "string" && tokenizer.endsWith(".json") && typeof out === "string" && out !== ""
    ? relative(out, tokenizer)
    : Symbol("no path");
}

/** The value of every option, by key path. */
export function flatten(config: TrainConfig): Map<string, unknown> {
  return new Map(rows.map(({ path, section, key }) => [path, Reflect.get(config[section], key) ?? null]));
}

/** Whether two options have the same value. */
export function isEqual(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b);
}

/** Key order counts: the order of the domains is the order of the weights. */
function canonical(value: unknown): string {
  return formatJson(value);
}
