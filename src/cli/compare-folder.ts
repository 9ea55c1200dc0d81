/**
 * The folder of a comparison:
 *
 *     compare-plan.json           what is compared, and the given options
 *     tokenizer.json              the tokenizer of all runs, if it was trained on their text
 *     RULE/seed-N[/TARGET]/       the folders of the runs
 *     compare.json                the results
 *     report.html                 the page of all runs; with several targets one report-TARGET.html per target
 *     lock                        the process that writes here, while it runs
 */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import { temporaryName, writeFileAtomic } from "../node/files.ts";
import { reason } from "../node/system-errors.ts";
import { countedCost, type Found, type Outcome } from "../report/comparison.ts";
import { bitsPerByte } from "../runs/facts.ts";
import { readRunHead, readWeights, scanMetrics } from "../runs/record.ts";
import { anything, object, parseOrdered, string, version, withDefault } from "../schema.ts";
import { shellWord } from "../shell-word.ts";
import { type Choice, type PlannedRun, type RuleEntry, rulesOfFile, seedsOf } from "./compare-plan.ts";
import { checkSameConfig, flatten, isEqual, jsonLayer, type Layer } from "./config.ts";
import { isLockName } from "./lock.ts";
import { checkFree, findRun, recordedConfig, type ResumeFrom } from "./run-folder.ts";
import { comparisonFiles } from "./run-names.ts";
import { isRun } from "./run-names.ts";
import { modelFolder } from "./run-places.ts";
import { totalSteps } from "./train-config.ts";
import { membersOf, readInput, readText, configError } from "./values.ts";

/** Throws `config` if `folder` cannot hold a new comparison because it is not empty, or not a folder. */
export function checkEmpty(folder: string): void {
  if (existsSync(join(folder, comparisonFiles.plan)))
    throw configError(
      `--out ${folder}: already holds a comparison; choose another folder, or continue it with gradmix compare ${shellWord(folder)}`,
    );
  checkFree(folder);
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw configError(`--out ${folder}: cannot be used (${reason(error)})`, error);
  }
  // A comparison that is killed before it completes its first file leaves only these.
  const stray = names.find((name) => !isLockName(name) && !temporaryName.test(name));
  if (stray !== undefined)
    throw configError(
      `--out ${folder}: is not empty (${stray}), and a comparison needs a folder of its own; choose another`,
    );
}

/** The contents of compare-plan.json. */
export interface Plan {
  readonly choice: Choice;
  /** Rules that were named or compared at some time; the chosen ones may be among them. `--rules` can choose them again. */
  readonly defined: readonly RuleEntry[];
  readonly given: Layer;
}

export interface SavedPlan extends Plan {
  /** Names a key of the file in an error. */
  label(key: string): string;
}

export function savePlan(folder: string, plan: Plan): void {
  saveJson(folder, comparisonFiles.plan, jsonOfPlan(plan));
}

/** Whether both plans compare the same with the same options. */
export function isSamePlan(one: Plan, other: Plan): boolean {
  return isEqual(jsonOfPlan(one), jsonOfPlan(other));
}

function jsonOfPlan({ choice, defined, given }: Plan): unknown {
  const options = new Map<string, Map<string, unknown>>();
  for (const [path, value] of given.values) {
    const [section = "", key = ""] = path.split(".");
    const members = options.get(section) ?? new Map<string, unknown>();
    options.set(section, members.set(key, value));
  }
  const rules = new Map(choice.rules.map(({ name, mixing }) => [name, mixing]));
  const others = defined.filter(({ name }) => !rules.has(name));
  return {
    version: 1,
    rules,
    otherRules: new Map(others.map(({ name, mixing }) => [name, mixing])),
    seeds: choice.seeds,
    baseline: choice.baseline,
    options,
  };
}

/** The remaining fields are checked in the same way as options. */
const comparisonPlan = object<
  Record<"rules" | "otherRules" | "seeds" | "options", unknown> & { version: 1; baseline: string }
>({
  version: version(1, "start a new comparison"),
  rules: anything,
  // Plans of earlier versions have only the chosen rules.
  otherRules: withDefault(anything, {}),
  seeds: anything,
  baseline: string,
  options: anything,
});

/** Reads the plan of a comparison. Throws `config` for a folder without a comparison, and for a plan that gradmix did not write. */
export function readPlan(folder: string): SavedPlan {
  const file = join(folder, comparisonFiles.plan);
  if (!existsSync(file)) {
    throw configError(
      `${folder}: holds no comparison (there is no ${file})${isRun(folder) ? `; it holds a run; continue it with gradmix train --resume ${shellWord(folder)}` : ""}`,
    );
  }
  const source = {
    source: file,
    code: "config",
    advice: "it was not written by this version of gradmix",
  } as const;
  const plan = parseOrdered(comparisonPlan, readText(file, file), source);
  const { seeds, baseline, options } = plan;
  const label = (key: string): string => `${file}: ${key}`;
  const rules = rulesOfFile(plan.rules, label("rules"));
  return {
    choice: { rules, seeds: seedsOf(seeds, 0, label("seeds")), baseline },
    defined: [...rules, ...rulesOfFile(plan.otherRules, label("otherRules"))],
    given: jsonLayer(options, file),
    label,
  };
}

export function saveJson(folder: string, name: string, value: unknown): void {
  writeFileAtomic(join(folder, name), [new TextEncoder().encode(`${formatJson(value, 2)}\n`)]);
}

/** Whether any run has begun. */
export function isBegun(runs: readonly PlannedRun[]): boolean {
  return runs.some(({ config }) => existsSync(join(config.run.out, "config.json")));
}

/** Removes the files that a comparison wrote before its first run. */
export function discard(folder: string): void {
  for (const name of [comparisonFiles.plan, comparisonFiles.tokenizer])
    rmSync(join(folder, name), { force: true });
}

/** The state of a run that has begun; null if it has not. Throws `checkpoint` for a run with other options. */
export function begunRun({ config }: PlannedRun): ResumeFrom | null {
  const { out } = config.run;
  if (!existsSync(join(out, "config.json"))) return null;
  const begun = findRun(out);
  checkSameConfig(recordedConfig(out), flatten(config), out);
  return begun;
}

/**
 * Writes into the configuration of each begun run where the tokenizer of the comparison is now, if the folder was moved or is named in another way.
 * Reports take runs with tokenizers at two paths for runs with different tokenizers.
 */
export function renewPaths(runs: readonly PlannedRun[]): void {
  for (const { config } of runs) {
    const { out } = config.run;
    const file = join(out, "config.json");
    if (!existsSync(file) || recordedConfig(out).data.tokenizer === config.data.tokenizer) continue;
    const sections = new Map(membersOf(readInput(file, file)) ?? []);
    const renew = (section: string, key: string, value: string): void =>
      void sections.set(section, new Map([...(membersOf(sections.get(section)) ?? []), [key, value]]));
    renew("data", "tokenizer", config.data.tokenizer);
    renew("run", "out", out);
    saveJson(out, "config.json", sections);
  }
}

/** Result of the run and the facts it recorded; null unless it is finished and all its files exist. Throws `data`. */
export function outcomeOf({ rule, target, seed, config }: PlannedRun): (Outcome & Found) | null {
  const folder = config.run.out;
  // A run writes its model last, as a whole folder.
  if (!existsSync(join(folder, modelFolder)) || readWeights(folder) === null) return null;
  const { facts } = readRunHead(folder);
  const end: { step: number; loss: number | null; seconds: number } = { step: 0, loss: null, seconds: 0 };
  scanMetrics(folder, (line) => {
    if ("event" in line) return;
    end.step = line.step;
    end.loss = line.evaluation?.target ?? null;
    end.seconds += line.seconds - (line.evaluationSeconds ?? 0);
  });
  const { step, loss, seconds } = end;
  if (step !== totalSteps(config)) return null;
  if (loss === null || facts.target === null)
    throw new GradmixError("data", `${folder}: has no held-out loss of the target at its end`);
  return {
    rule,
    target,
    seed,
    folder,
    loss,
    bitsPerByte: bitsPerByte(facts.target, loss),
    cost: countedCost(facts.cost),
    seconds,
    facts,
  };
}
