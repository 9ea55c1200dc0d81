/**
 * Makes a checked `TrainConfig` from the command line and a config file. The command line takes precedence over the file, and the file over
 * the defaults. Unknown keys, wrong types and values that contradict each other are errors before anything runs.
 */
import { relative } from "node:path";
import { type TrainConfig, warmupOf } from "./train-config.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import { nearest } from "../nearest.ts";
import { keysOf } from "../keys.ts";
import { flagOfPath, type OptionRow, optionRows, optionTable } from "./options.ts";
import { evalShareOtherwise } from "./options/run.ts";
import type { OptionSpec, SpecsOf } from "./options/spec.ts";
import { stepsOtherwise } from "./options/training.ts";
import { checkValue, fromArguments, membersOf, type Raw, readInput, show, configError } from "./values.ts";
import { checkTogether } from "./config-checks.ts";

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
  const values = new Map<string, unknown>();
  for (const [path, raw] of given) {
    const row = byPath.get(path);
    if (row === undefined) continue;
    values.set(path, checkValue(row.kind, fromArguments(row.kind, raw, row.flag), row.flag));
  }
  return { values, label: flagOfPath };
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
    const name = nearest(word, candidates.keys());
    const path = name === null ? undefined : candidates.get(name);
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
  return { values, label: (path) => labels.get(path) ?? flagOfPath(path) };
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
