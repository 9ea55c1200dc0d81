/** The options that prepared text in `--domains` provides. */
import { join } from "node:path";
import { isRuleName, ruleTraits } from "../dga/rules/index.ts";
import { type Layer, withOneSource } from "./config.ts";
import { optionTable } from "./options.ts";
import { type Prepared, preparedAmong, preparedFiles } from "./prepared-folder.ts";
import { shellWord } from "../shell-word.ts";
import type { TrainConfig } from "./train-config.ts";
import { checkNamedOnce, configError } from "./values.ts";

/** Whether an option that names files was not given, or names none. */
function isEmpty(value: unknown): boolean {
  return value instanceof Map ? value.size === 0 : !Array.isArray(value) || value.length === 0;
}

function add(values: Map<string, unknown>, path: string, value: unknown): void {
  if (value !== null) values.set(path, value);
}

/** The file of the target of the prepared folders; null if none of them has a target. Throws `config` if two have one. */
function targetOf(prepared: readonly Prepared[]): readonly string[] | null {
  const [target, another] = prepared.flatMap((one) =>
    one.target === null ? [] : [join(one.folder, one.target.file)],
  );
  if (another !== undefined)
    throw configError(`--domains: ${target} and ${another} are both targets; name one with --target`);
  return target === undefined ? null : [target];
}

/** The files of the several targets of all prepared folders, by name; null if there are none. Throws `config` if two have the same name. */
function targetsOf(prepared: readonly Prepared[]): ReadonlyMap<string, readonly string[]> | null {
  const all = new Map<string, readonly string[]>();
  for (const { folder, targets } of prepared)
    for (const [name, { file }] of targets) {
      const path = join(folder, file);
      const other = all.get(name);
      if (other !== undefined)
        throw configError(
          `--domains: ${other.join("")} and ${path} are both the target ${name}; name the targets with --targets NAME=FILE`,
        );
      all.set(name, [path]);
    }
  return all.size === 0 ? null : all;
}

/**
 * Throws `config` for an option that has no effect with a prepared folder: the vocabulary is fixed, and if `all` text is prepared, no file is
 * read as text. A config file may also serve other commands, so a default value in it is not an error.
 */
function checkEffect(layers: readonly Layer[], folder: string, all: boolean): void {
  const saying = (path: string): Layer | undefined => layers.find(({ values }) => values.has(path));
  const refuse = (key: "vocabSize" | "textField" | "skipBadLines", why: string): void => {
    const path = `data.${key}`;
    const layer = saying(path);
    if (layer === undefined) return;
    const { flag, default: fixed, otherwise } = optionTable.data[key];
    const label = layer.label(path);
    if (label === flag || layer.values.get(path) !== (fixed ?? otherwise))
      throw configError(`${label}: has no effect, because ${folder} ${why}; leave it out`);
  };
  if (saying("data.tokenizer")?.values.get("data.tokenizer") !== "none")
    refuse("vocabSize", "has its own tokenizer");
  const others = ["data.domains", "data.target", "data.targets"];
  if (!all || others.some((path) => saying(path) !== undefined)) return;
  refuse("textField", "holds tokens, and there is no other text");
  refuse("skipBadLines", "holds tokens, and there is no other text");
}

/** A line for a run without a target whose prepared folders have several, since its rule does not take several; null otherwise. */
export function unusedTargets({
  data: { domainsFrom, target, targets },
  mixing: { rule },
}: Pick<TrainConfig, "data" | "mixing">): string | null {
  if (target.length > 0 || targets.size > 0) return null;
  const found = targetsOf(preparedAmong(domainsFrom));
  const [one] = found ?? [];
  return one === undefined
    ? null
    : `the prepared targets ${[...(found?.keys() ?? [])].join(", ")} are not used, because rule ${rule} does not take several targets; to evaluate on one of them, add --target ${shellWord(one[1].join(""))}`;
}

/**
 * Options that a prepared folder in `--domains` provides if they are not given: its tokenizer (or, with `--tokenizer none`, what its tokens need of it),
 * its target, and its several targets for a rule that accepts them. A comparison takes either its target or its several targets, whatever the rules.
 */
export function preparedLayer(all: readonly Layer[], use: "run" | "comparison" = "run"): Layer {
  const layers = withOneSource(all);
  const given = (path: string): unknown =>
    layers.map(({ values }) => values.get(path)).find((value) => value !== undefined);
  const from = given("data.domainsFrom");
  if (Array.isArray(from)) {
    const layer = layers.find(({ values: own }) => own.has("data.domainsFrom"));
    checkNamedOnce(from.map(String), layer?.label("data.domainsFrom") ?? "--domains");
  }
  const values = new Map<string, unknown>();
  const prepared = Array.isArray(from) ? preparedAmong(from as readonly string[]) : [];
  const [first] = prepared;
  if (first !== undefined) {
    checkEffect(layers, first.folder, (from as readonly string[]).length === prepared.length);
    const { folder } = first;
    if (given("data.tokenizer") === "none") {
      values.set("data.vocabSize", first.vocabSize);
      values.set("data.endOfText", first.endOfText);
    }
    // A model to start from has its own tokenizer, which must be the same.
    if (given("model.initFrom") === undefined)
      values.set("data.tokenizer", join(folder, preparedFiles.tokenizer));
    if (use === "run") {
      if (given("data.target") === undefined) add(values, "data.target", targetOf(prepared));
      const rule = given("mixing.rule");
      if (given("data.targets") === undefined && isRuleName(rule) && ruleTraits(rule).severalTargets === true)
        add(values, "data.targets", targetsOf(prepared));
    } else if (isEmpty(given("data.target")) && isEmpty(given("data.targets"))) {
      const [target, targets] = [targetOf(prepared), targetsOf(prepared)];
      if (target !== null && targets !== null)
        throw configError(
          `--domains: ${target.join("")} is a target, and there are also the targets ${[...targets.keys()].join(", ")}; name one with --target FILE, or several with --targets NAME=FILE`,
        );
      add(values, "data.target", target);
      add(values, "data.targets", targets);
    }
    const other = prepared.find(({ tokenizer }) => tokenizer !== first.tokenizer);
    if (other !== undefined)
      throw configError(
        `--domains: ${folder} and ${other.folder} were prepared with two tokenizers; prepare one of them again with the other's (--tokenizer)`,
      );
  }
  return { values, label: (path) => `${first?.folder ?? ""}: ${path}` };
}
