/** The `init` message of `gradmix mix`, from the command line, a config file and the run that is replayed. */
import { mixerDefaults } from "../dga/mixer.ts";
import { isRuleName, ruleTraits } from "../dga/rules/index.ts";
import { isObject } from "../json.ts";
import type { Message } from "../mix/protocol.ts";
import { type UnusedFact, unusedFacts } from "../mix/unused-facts.ts";
import { commandLineLayer, fileLayer, type Layer, resolveConfig } from "./config.ts";
import { type MixArguments, takesOption } from "./mix-arguments.ts";
import { mixDomains, namesIn } from "./mix-domains.ts";
import { mixerOptionsOf, presetOf } from "./mixing.ts";
import type { Output } from "./output.ts";
import type { MixingConfig } from "./train-config.ts";
import { unusedOptions } from "./unused-options.ts";
import { checkShares, configError, fromArguments, type Raw } from "./values.ts";

/** A run whose signals are replayed, and what is known of it. */
export interface ReplayedRun {
  readonly layer: Layer;
  readonly facts: MixFacts;
  /** Whether its alignments are those with the step that Adam would take. */
  readonly preconditioned: boolean;
  /** Whether its weights are those of bases. */
  readonly bases: boolean;
}

/** The facts of a run in an `init` message, as far as they are known. */
export interface MixFacts {
  readonly sizes?: Readonly<Record<string, number>>;
  readonly tokens?: number;
  readonly histogram?: Readonly<Record<string, number>>;
}

/**
 * The `init` message of flags, config file and run; earlier ones take precedence. null if none of them gives any options, and without
 * `domains` if none names them. The options of a run's own rule are ignored if another rule is requested. Options that the rule does not use are
 * named on `err`.
 */
export function initOf(
  { config, given, flags }: MixArguments,
  run: ReplayedRun | null,
  err: Output,
): Message | null {
  const file = configLayer(config);
  const layers = ruleLayers(given, file, run);
  const { names: domains, sizes: counted } = mixDomains(flags.domains, file, run?.layer ?? null);
  if (domains === null && flags.sizes === null && layers.every(({ values }) => values.size === 0))
    return null;
  const targets = targetsOf(layers, file, run);
  const resolved = resolveConfig([placeholders(layers, domains, targets), ...layers]);
  const { mixing } = presetOf(resolved);
  for (const line of unusedOptions(resolved)) err.write(`${line}\n`);
  const { tokens } = resolved.training;
  const facts: MixFacts = {
    ...run?.facts,
    ...(counted === null ? {} : { sizes: counted }),
    ...(flags.sizes === null ? {} : { sizes: Object.fromEntries(sharesOf(flags.sizes, "--sizes")) }),
    ...(tokens === null ? {} : { tokens }),
  };
  const { rule, combinators } = ruleOf(mixing, targets, domains ?? [], facts);
  // A file of messages may have the other number in its own init.
  if (flags.replay === null || run !== null)
    for (const line of checkCounts(unusedFacts(mixing.rule, rule, combinators, facts), {
      sizes: flags.sizes !== null,
      tokens: given.has("training.tokens"),
      histogram: false,
    }))
      err.write(`${line}\n`);
  return {
    type: "init",
    ...(domains === null ? {} : { domains }),
    rule,
    combinators,
    updateEvery: firstOf(layers, "mixing.updateEvery") ?? null,
    updateAfter: mixing.updateAfter ?? mixerDefaults.updateAfter,
    // A histogram that was given is an option of the rule.
    ...facts,
  };
}

/** The config file; null if none was named. Throws `config` for a file with bases. */
function configLayer(path: string | null): Layer | null {
  if (path === null) return null;
  const file = fileLayer(path);
  if (file.values.has("mixing.bases"))
    throw configError(
      `${file.label("mixing.bases")}: gradmix mix does not know what bases contain; leave them out, name the bases as domains (--domains A,B,…), and let the trainer mix the text of each basis`,
    );
  return file;
}

/** The options of the rule, from the first source to the last. */
function ruleLayers(
  given: ReadonlyMap<string, Raw>,
  file: Layer | null,
  run: ReplayedRun | null,
): readonly Layer[] {
  const asked = [commandLineLayer(given), ...(file === null ? [] : [file])].map(ofRule);
  if (run === null) return asked;
  const own = ofRule(run.layer);
  const rule = firstOf(asked, "mixing.rule");
  const isSame = rule === undefined || rule === own.values.get("mixing.rule");
  return [...asked, isSame ? own : onlyWhen(own)];
}

/** The names of the rule's targets. Throws `config` if it needs several and there is none. */
function targetsOf(layers: readonly Layer[], file: Layer | null, run: ReplayedRun | null): readonly string[] {
  const options = firstOf(layers, "mixing.ruleOptions");
  const given = isObject(options) ? options["targets"] : undefined;
  const targets = Array.isArray(given)
    ? given.map(String)
    : (namesIn(file, "data.targets") ?? namesIn(run?.layer ?? null, "data.targets") ?? []);
  // `gradmix train` refers to files here, and this command reads none.
  const rule = firstOf(layers, "mixing.rule");
  if (isRuleName(rule) && ruleTraits(rule).severalTargets === true && targets.length === 0)
    throw configError(
      `--rule ${rule} needs targets: add their names with --rule-options '{"targets":["NAME",…]}'`,
    );
  return targets;
}

/** The options of the rule and of its combinators. Throws `config` for a limit on repetitions that does not follow from the facts. */
function ruleOf(
  mixing: MixingConfig,
  targets: readonly string[],
  domains: readonly string[],
  { sizes, tokens }: MixFacts,
): Pick<ReturnType<typeof mixerOptionsOf>, "rule" | "combinators"> {
  const isCounted = sizes !== undefined && tokens !== undefined;
  if (mixing.repetitionCap !== null && !isCounted)
    throw configError(
      "--repetition-cap: the number of repetitions follows from the tokens of the domain and of the run; add --sizes NAME=N,… and --tokens N",
    );
  return mixerOptionsOf(mixing, targets, {
    // Sizes are in the domains' order; without sizes, these are only names.
    sizes: sizesOf(domains, sizes),
    ...(isCounted ? { tokens } : {}),
  });
}

/** What to add to a fact that has no effect without another one. */
const additions = {
  tokens: "--tokens N, the training tokens of the whole run",
  sizes: "--sizes NAME=N,…, the tokens of each domain",
} as const;

/**
 * Throws `config` for `--sizes` without `--tokens`, or the reverse, where the rule limits repetitions only by both. Returns a line for each flag that
 * nothing uses, and for tokens of a config file, which may serve other commands too, if they alone give no limit.
 */
function checkCounts(
  unused: readonly UnusedFact[],
  given: Readonly<Record<keyof MixFacts, boolean>>,
): string[] {
  return unused.flatMap(({ fact, missing, reason }) => {
    if (missing === null) return given[fact] ? [`--${fact} has no effect: ${reason}`] : [];
    if (given[fact])
      throw configError(`--${fact}: ${reason}; add ${additions[missing]}, or leave --${fact} out`);
    return fact === "tokens" ? [`training.tokens has no effect: ${reason}; add ${additions[missing]}`] : [];
  });
}

function sizesOf(
  domains: readonly string[],
  given: Readonly<Record<string, number>> = {},
): Readonly<Record<string, number>> {
  const sizes = new Map(Object.entries(given));
  return Object.fromEntries(domains.map((name) => [name, sizes.get(name) ?? Number.MAX_SAFE_INTEGER]));
}

const ofRule = ({ values, label }: Layer): Layer => ({
  values: new Map([...values].filter(([key]) => takesOption(key))),
  label,
});

/** When the run's rule was updated, without the rule itself. */
const onlyWhen = ({ values, label }: Layer): Layer => ({
  values: new Map([...values].filter(([key]) => ["mixing.updateEvery", "mixing.updateAfter"].includes(key))),
  label,
});

function firstOf(layers: readonly Layer[], path: string): unknown {
  return layers.map(({ values }) => values.get(path)).find((value) => value !== undefined);
}

/** No text is read here, so globs and folders are placeholders that pass the checks of `gradmix train`. */
function placeholders(
  layers: readonly Layer[],
  domains: readonly string[] | null,
  targets: readonly string[],
): Layer {
  const anything = ["-"];
  const rule = firstOf(layers, "mixing.rule");
  const shares = firstOf(layers, "mixing.weights") ?? firstOf(layers, "mixing.histogram");
  const names = domains ?? (shares instanceof Map ? Array.from(shares.keys(), String) : anything);
  const values = new Map<string, unknown>([
    ["data.domains", new Map(names.map((name) => [name, anything]))],
    ["data.target", anything],
  ]);
  const { severalTargets, referenceModel } = isRuleName(rule) ? ruleTraits(rule) : {};
  if (severalTargets === true) values.set("data.targets", new Map(targets.map((name) => [name, anything])));
  if (referenceModel === true) values.set("mixing.reference", "-");
  return { values, label: (path) => path };
}

/** The numbers by name of a flag, or of the file that it names. Throws `config`, naming the `label`. */
export function sharesOf(text: string, label: string): ReadonlyMap<string, number> {
  return checkShares(false, fromArguments({ type: "shares", sumsToOne: false }, [text], label), label);
}
