/** Checks options that depend on each other, after each was checked on its own. */
import { ruleTakes, weighsBySize } from "./common-options.ts";
import { boundsByName, lacksHistogram } from "./mixing.ts";
import type { TrainConfig } from "./train-config.ts";
import { gptVocabularies } from "../data/gpt-vocabulary-table.ts";
import { sumOf } from "../dga/simplex.ts";
import { checkRuleOptions, rulesWith, ruleTraits } from "../dga/rules/index.ts";
import { headsMisfit, traitsOf } from "../nn/architecture.ts";
import { flagOfPath } from "./options.ts";
import { targetAdvice } from "./prepared-folder.ts";
import { didYouMean, show, configError } from "./values.ts";

/** Smallest vocabulary of "bpe": the bytes and the end of text. */
const LEAST_BPE = 257;

/** Names a key in an error. */
type Label = (path: string) => string;

/** Checks options that depend on each other. Throws `config`, naming one of them. */
export function checkTogether(config: TrainConfig, label: Label): void {
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

/** The options of the cpu backend, by path. */
export const cpuOptions: readonly string[] = ["run.threads", "run.simd", "run.vectorBits"];

function checkEngine(run: TrainConfig["run"], label: Label): void {
  const ofCpu = [
    run.threads !== null ? "run.threads" : null,
    run.simd !== "auto" ? "run.simd" : null,
    run.vectorBits === "256" ? "run.vectorBits" : null,
  ].find((path) => path !== null);
  if ((run.backend === "webgpu" || run.backend === "reference") && ofCpu !== undefined)
    throw configError(`${label(ofCpu)}: an option of the cpu backend, not of ${run.backend}; leave it out`);
  if (run.vectorBits === "256" && run.simd === "plain")
    throw configError(
      `${label("run.vectorBits")}: 256-bit vectors need relaxed SIMD, not --simd plain; leave out one of the two`,
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
  label: Label = flagOfPath,
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
  label: Label,
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
