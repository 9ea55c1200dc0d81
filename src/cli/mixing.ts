/**
 * Plans how a run mixes: its bases, its rule with the combinators around it, and what is measured for it. This is decided before any text is
 * read.
 */
import { readFileSync } from "node:fs";
import { type Bases, createBases } from "../dga/bases.ts";
import { GOOD_EPOCHS } from "../data/epochs.ts";
import { selectionDefaults } from "../data/defaults.ts";
import { parseBases } from "../dga/bases-text.ts";
import { type CombinatorOptions, countsRunTokens } from "../dga/combinators/index.ts";
import { limitsOf } from "../dga/combinators/guard.ts";
import type { RunFacts } from "../dga/facts.ts";
import { createMixer, currentWeights, type Mixer, mixerDefaults, type MixerOptions } from "../dga/mixer.ts";
import { checkOptionSet, planOf } from "../dga/plan.ts";
import {
  mostRepetitionsOf,
  repetitionCapsOf,
  ruleHas,
  type RuleName,
  type RuleOptions,
  ruleOptionsFrom,
  ruleTraits,
} from "../dga/rules/index.ts";
import { GradmixError } from "../errors.ts";
import { keysOf } from "../keys.ts";
import type { AlignmentOptions } from "../dga/alignment-options.ts";
import { sumOf } from "../dga/simplex.ts";
import type { MixingConfig, NumberByName, TrainConfig } from "./train-config.ts";
import { reason } from "../node/system-errors.ts";
import { clampedAlignment, unusedAlignment } from "./unused-alignment.ts";
import { common, nameIn, normaliseOf, ownFloor, ruleTakes, weighsBySize } from "./common-options.ts";
import { targetAdvice } from "./prepared-folder.ts";
import { guardShareOtherwise } from "./options/mixing.ts";

/** The guards of a run. */
export interface GuardLimits {
  /** Limits by domain; "*" stands for the domains that are not named. */
  readonly limits: Readonly<Record<string, number>>;
  /** Cost of the guards' evaluations, as a share of the training's computation. */
  readonly share: number;
}

export interface MixingPlan {
  /** Names of the domains, in the order of the weights. */
  readonly names: readonly string[];
  readonly bases: Bases | null;
  /** Path of the file of the bases; null if there is none. */
  readonly basesFile: string | null;
  readonly alignment: AlignmentOptions;
  /** The guards; null if no domain is guarded. */
  readonly guard: GuardLimits | null;
  /** Number of times that a run may go through a domain before its held-out loss is watched: the cap in the options, or `GOOD_EPOCHS`. */
  readonly watchedFrom: number;
  /** Folder of the run whose model gives the reference losses. */
  readonly reference: string | null;
  readonly ruleName: RuleName;
  /** Whether the rule uses measurements, so that it may need a target. */
  readonly measures: boolean;
  /** Whether the combinators or guards depend on the number of tokens of the whole run, so that the run cannot be extended. */
  readonly countsTokens: boolean;
  /** The first domain whose repetitions the rule would limit differently in a run of `tokens` tokens than in this one; null if there is none. */
  limitedOtherwise(tokens: number, sizes: Readonly<Record<string, number>>): string | null;
  /** Largest number of repetitions of a domain over the run that the rule and its combinators allow for these sizes; null if there is no limit. */
  repetitions(sizes: Readonly<Record<string, number>>): number | null;
  /**
   * If repetitions are limited and the text, repeated to that limit, has fewer tokens than the run, no weights can respect the limit: returns
   * how many times the run goes through the text. null otherwise.
   */
  repeatsAnyway(sizes: Readonly<Record<string, number>>): number | null;
  /** Lines for the user about options of the alignment that were given and have no effect, or only a part of it. */
  readonly unused: readonly string[];
  /** Smallest share of a domain's windows that is selected by their likeness to the target; 1: the run uses all text. */
  readonly leastShare: number;
  /** Whether that share was given, so that it is reported if the run nevertheless uses all text. */
  readonly selectionGiven: boolean;
  /** Whether the rule uses a histogram of the target over the domains and none was given, so that it must be counted (`histogramOf`). */
  readonly wantsHistogram: boolean;
  /** Makes the mixer, once the text has been read. */
  mixerOf(read: ReadFacts): Mixer;
}

/** What is known once the text has been read. */
export interface ReadFacts {
  /** Number of training tokens of each domain. */
  readonly sizes: Readonly<Record<string, number>>;
  /** Share of the target by domain; null if the plan needs no histogram. */
  readonly histogram: ReadonlyMap<string, number> | null;
}

/**
 * `tokens` are those of the whole run, `names` those of the domains. Throws `config` for options that contradict each other, `data` for
 * malformed bases.
 */
export function planMixing(
  config: Pick<TrainConfig, "mixing" | "alignment" | "data">,
  tokens: number,
  names: readonly string[] = [...config.data.domains.keys()],
): MixingPlan {
  const { data } = config;
  const { mixing, alignment } = presetOf(config);
  const bases = readBases(mixing.bases, names);
  const targets = [...data.targets.keys()];
  if (bases !== null) checkBasisNames(mixing, bases.names);
  const of = bases?.names ?? names;
  const build = ({ sizes, histogram }: ReadFacts): Mixer =>
    mixerFor(mixing, targets, of, {
      sizes,
      tokens,
      ...(histogram === null ? {} : { histogram: Object.fromEntries(histogram) }),
    });
  const wantsHistogram = countsHistogram(mixing, data);
  // The sizes of the domains, and which of them the target resembles, are known only once they have been read.
  const unread = Object.fromEntries(of.map((name) => [name, Number.MAX_SAFE_INTEGER]));
  const { combinators } = mixerOptionsOf(mixing, targets, { sizes: unread, tokens });
  const planned = build({
    sizes: unread,
    histogram: wantsHistogram ? new Map(of.map((name) => [name, 1 / of.length])) : null,
  });
  checkPlanned(planned, { mixing, alignment, data, names, bases });
  /** Sizes of what the rule weighs. */
  const offered = (sizes: Readonly<Record<string, number>>): Readonly<Record<string, number>> =>
    bases === null ? sizes : basisSizes(bases, sizes);
  const repetitions = (sizes: Readonly<Record<string, number>>): number | null =>
    repetitionsOf(mixing, of, { sizes: offered(sizes), tokens });
  return {
    names,
    bases,
    basesFile: typeof mixing.bases === "string" ? mixing.bases : null,
    alignment,
    guard:
      mixing.guard === null
        ? null
        : { limits: Object.fromEntries(mixing.guard), share: mixing.guardShare ?? guardShareOtherwise },
    watchedFrom: givenRepetitions(mixing) ?? GOOD_EPOCHS,
    reference: mixing.reference,
    ruleName: mixing.rule,
    measures: planned.rule.needs.length > 0,
    // The length of the run determines how often guarded domains are evaluated, and on how much text.
    countsTokens: countsRunTokens(combinators) || mixing.guard !== null,
    limitedOtherwise(otherTokens, sizes) {
      const capsOf = (n: number): readonly number[] | null => {
        const options = limitedOptions(mixing, { sizes: offered(sizes), tokens: n });
        return options === null ? null : repetitionCapsOf(options, of);
      };
      const [own, other] = [capsOf(tokens), capsOf(otherTokens)];
      return of.find((_, i) => own?.[i] !== other?.[i]) ?? null;
    },
    repetitions,
    repeatsAnyway(sizes) {
      const text = sumOf(Object.values(offered(sizes)));
      const most = repetitions(sizes);
      return most !== null && most * text < tokens ? tokens / text : null;
    },
    unused: [
      ...idleBounds(mixing, targets, of),
      ...unusedAlignment(alignment, planned.rule, bases),
      ...clampedAlignment(alignment, planned),
    ],
    leastShare: mixing.select ?? (selectsOtherwise(mixing, data) ? selectionDefaults.leastShare : 1),
    selectionGiven: mixing.select !== null,
    wantsHistogram,
    mixerOf: ({ sizes, histogram }) => build({ sizes: offered(sizes), histogram }),
  };
}

/** A line for each bound that was given although the weights never move and keep it anyway, whatever the text is. */
function idleBounds(mixing: MixingConfig, targets: readonly string[], names: readonly string[]): string[] {
  const { rule, guard, repetitionCap, combinators, floor } = mixing;
  const { fixed = false, histogram } = ruleTraits(rule);
  const moves = !fixed || guard !== null || repetitionCap !== null || combinators.length > 0;
  // Weights that depend on the text may need the bound.
  if (moves || weighsBySize(rule) || histogram !== undefined) return [];
  const sizes = Object.fromEntries(names.map((name) => [name, 1]));
  const weightsOf = (given: MixingConfig): Float64Array =>
    currentWeights(mixerFor(given, targets, names, { sizes }).initial);
  const weights = weightsOf(mixing);
  return (["floor", "ceiling"] as const).flatMap((option) => {
    if (mixing[option] === null || (option === "floor" && floor === 0)) return [];
    const without = weightsOf({ ...mixing, [option]: null });
    return without.some((weight, i) => Math.abs(weight - weights[i]!) > 1e-12)
      ? []
      : [`mixing.${option} has no effect: the weights of rule ${rule} are fixed, and already keep it`];
  });
}

/** Throws `config` for a mixer that cannot run with the other options. */
function checkPlanned(
  planned: Mixer,
  {
    mixing,
    alignment,
    data,
    names,
    bases,
  }: ReturnType<typeof presetOf> & Pick<TrainConfig, "data"> & Pick<MixingPlan, "names" | "bases">,
): void {
  if (bases === null) checkGuarded(mixing, names);
  const target = data.target.length === 0 ? null : data.target;
  if (planOf(planned.rule.needs).aligns && target === null)
    throw new GradmixError(
      "config",
      `--rule ${mixing.rule} needs a target: ${targetAdvice(data.domainsFrom, "add --target GLOB, text that the model should become good at")}, or choose --rule uniform`,
    );
  checkOptionSet({
    mixer: planned,
    domains: names,
    target,
    targets: data.targets,
    ...(mixing.reference === null ? {} : { reference: { folder: mixing.reference } }),
    ...(mixing.guard === null ? {} : { heldOut: {} }),
    ...(bases === null ? {} : { bases }),
    alignment,
  });
}

/**
 * Throws `config` if a guard among the combinators refers to a domain that `--guard` does not have evaluated, because such a guard would never
 * act.
 */
function checkGuarded({ guard, combinators }: MixingConfig, names: readonly string[]): void {
  const evaluated = guard === null ? names.map(() => null) : limitsOf(Object.fromEntries(guard), names);
  for (const [i, one] of combinators.entries()) {
    if (one.name !== "guard") continue;
    const blind = limitsOf(one.limits, names).findIndex(
      (limit, at) => limit !== null && evaluated[at] === null,
    );
    if (blind >= 0)
      throw new GradmixError(
        "config",
        `mixing.combinators[${i}]: its guard needs evaluations of "${names[blind]}", and a run evaluates only domains that --guard names; add --guard "${names[blind]}<=X", instead of this guard or in addition`,
      );
  }
}

/** Throws `config` for an option that names something other than a basis, such as a domain, where the rule moves the weights of bases. */
function checkBasisNames(
  { floor, ceiling, weights, histogram }: MixingConfig,
  names: readonly string[],
): void {
  const known = new Set(["*", ...names]);
  for (const [option, given] of Object.entries({ floor, ceiling, weights, histogram })) {
    if (given === null || typeof given === "number") continue;
    const other = [...given.keys()].find((name) => !known.has(name));
    if (other !== undefined)
      throw new GradmixError(
        "config",
        `--${option}: "${other}" is not a basis; with --bases the rule moves the weights of the bases: ${names.slice(0, 20).join(", ")}${names.length > 20 ? ", …" : ""}`,
      );
  }
}

/** Fills in the options of the published algorithm that were not given. The command marks these with null, which the library expects to be absent. */
export function presetOf({ mixing, alignment }: Pick<TrainConfig, "mixing" | "alignment">): {
  mixing: MixingConfig;
  alignment: AlignmentOptions;
} {
  const given = Object.fromEntries(Object.entries(alignment).filter(([, value]) => value !== null));
  if (mixing.preset === null) return { mixing, alignment: given };
  const { normalise = null, beta = null, eta = null } = ruleTraits(mixing.rule).published?.() ?? {};
  return {
    mixing: {
      ...mixing,
      prior: "uniform",
      normalise: mixing.normalise ?? normalise,
      beta: mixing.beta ?? beta,
      eta: mixing.eta ?? eta,
    },
    alignment: { from: "batch", ...given },
  };
}

/** Whether the rule can take steps around a prior. */
function canHavePrior(mixing: MixingConfig): boolean {
  const { histogram: use } = ruleTraits(mixing.rule);
  return typeof use === "object" && use.priorWith(normaliseOf(mixing));
}

/** Whether a histogram is the prior of the rule, counted or given. */
function histogramIsPrior(mixing: MixingConfig): boolean {
  return canHavePrior(mixing) && (mixing.prior ?? "histogram") === "histogram";
}

/** Whether the rule uses a histogram and none was given. */
export function lacksHistogram(mixing: MixingConfig): boolean {
  const { rule, histogram, ruleOptions } = mixing;
  const name = nameIn(rule, "histogram");
  const wanted = ruleTraits(rule).histogram === "needed" || histogramIsPrior(mixing);
  return wanted && name !== undefined && histogram === null && !Object.hasOwn(ruleOptions, name);
}

/** Whether the run counts the histogram that its rule needs, of its target over its domains. It cannot do so if the weights are those of bases. */
function countsHistogram(mixing: MixingConfig, { target }: Pick<TrainConfig["data"], "target">): boolean {
  return lacksHistogram(mixing) && mixing.bases === null && target.length > 0;
}

/**
 * Whether a run selects windows by default. It does if its rule takes steps around a prior over the domains (a uniform one too). It does not if a floor or
 * a guard protects domains: the text of a protected domain must be typical of that domain, not of the target.
 */
function selectsOtherwise(mixing: MixingConfig, { target }: Pick<TrainConfig["data"], "target">): boolean {
  return canHavePrior(mixing) && mixing.bases === null && target.length > 0 && !remembersDomains(mixing);
}

/** Whether a floor or a guard keeps a part of each domain, or of some. */
function remembersDomains({ floor, guard, combinators, ruleOptions }: MixingConfig): boolean {
  return (
    guard !== null ||
    (floor !== null && floor !== 0) ||
    Number(ruleOptions["floor"] ?? 0) > 0 ||
    combinators.some(({ name }) => name === "guard" || name === "floor")
  );
}

/** The smallest limit of the rule and the combinators around it. */
function repetitionsOf(mixing: MixingConfig, names: readonly string[], facts: SizedFacts): number | null {
  const options = limitedOptions(mixing, facts);
  const own = options === null ? Infinity : mostRepetitionsOf(options, names);
  const least = Math.min(own, givenRepetitions(mixing) ?? Infinity);
  return Number.isFinite(least) ? least : null;
}

/** The smallest limit in the options. */
function givenRepetitions({ repetitionCap, combinators, ruleOptions }: MixingConfig): number | null {
  const own = ruleOptions["repetitions"];
  const limits = [
    ...(repetitionCap === null ? [] : [repetitionCap]),
    ...(typeof own === "number" ? [own] : []),
    ...combinators.flatMap((one) => (one.name === "repetitionCap" ? [one.repetitions] : [])),
  ];
  return limits.length === 0 ? null : Math.min(...limits);
}

/** What is known of a run when its rule is made. */
interface SizedFacts {
  /** Number of tokens of each domain, in the domains' order. */
  readonly sizes?: Readonly<Record<string, number>>;
  /** Number of training tokens of the whole run. */
  readonly tokens?: number;
}

/** Options of a run's rule, from the common options and `ruleOptions`; the rule checks the latter. */
function ruleOptionsOf(mixing: MixingConfig, targets: readonly string[]): Record<string, unknown> {
  const options: Record<string, unknown> = { name: mixing.rule };
  for (const option of keysOf(common)) {
    const name = nameIn(mixing.rule, option);
    const value = option === "floor" ? forAll(mixing.floor) : mixing[option];
    if (name !== undefined && value !== null)
      options[name] = value instanceof Map ? Object.fromEntries(value) : value;
  }
  const { rule, repetitionCap } = mixing;
  if (limitsRepetitions(rule) && repetitionCap !== null) options["repetitions"] = repetitionCap;
  if (ruleTraits(rule).severalTargets === true) options["targets"] = targets;
  return { ...options, ...mixing.ruleOptions };
}

/** Whether the rule itself limits the repetitions of a domain. */
const limitsRepetitions = (rule: RuleName): boolean => ruleHas(rule, "repetitions");

/** Checked options, with the facts, of a rule that limits repetitions; null for other rules. */
function limitedOptions(mixing: MixingConfig, facts: SizedFacts): RuleOptions | null {
  return limitsRepetitions(mixing.rule) ? ruleOptionsFrom(ruleOptionsOf(mixing, []), facts) : null;
}

/** Makes the mixer of a run. Throws `config` for invalid options of the rule or the combinators. */
export function mixerFor(
  mixing: MixingConfig,
  targets: readonly string[],
  domains: readonly string[],
  facts: SizedFacts & Pick<RunFacts, "histogram">,
): Mixer {
  const { rule, ...around } = mixerOptionsOf(mixing, targets, facts);
  return createMixer({ domains, rule: ruleOptionsFrom(rule, facts), ...around, ...facts });
}

/** Options for `createMixer`: the rule of a run and its combinators. The facts of the run are passed separately. */
export function mixerOptionsOf(
  mixing: MixingConfig,
  targets: readonly string[],
  facts: SizedFacts,
): Pick<MixerOptions, "updateEvery" | "updateAfter"> & {
  readonly rule: Readonly<Record<string, unknown>>;
  readonly combinators: readonly CombinatorOptions[];
} {
  const rule = ruleOptionsOf(mixing, targets);
  checkCap(mixing, facts);
  // Combinators provide what the rule does not do itself. Bounds are around the guard, so that they hold whatever it requests.
  const added: CombinatorOptions[] = [];
  if (mixing.beta !== null && !ruleTakes(mixing.rule, "beta") && ruleTraits(mixing.rule).fixed !== true)
    added.push({ name: "ema", beta: mixing.beta });
  if (mixing.guard !== null)
    added.push({ name: "guard", limits: Object.fromEntries(mixing.guard), ...guardCaps(mixing, facts) });
  added.push(...boundsAround(mixing, facts));
  return {
    rule,
    combinators: [...added, ...mixing.combinators],
    ...(mixing.updateEvery === null ? {} : { updateEvery: mixing.updateEvery }),
    updateAfter: mixing.updateAfter ?? mixerDefaults.updateAfter,
  };
}

/** The number for all domains, or for those that are not named ("*"); null if there is none. */
const forAll = (given: NumberByName | null): number | null =>
  typeof given === "number" ? given : (given?.get("*") ?? null);

/** One number per domain; `otherwise` if none is given for it. */
export function boundsByName(
  given: NumberByName | null,
  domains: readonly string[],
  otherwise: number,
): number[] {
  const all = forAll(given) ?? otherwise;
  return domains.map((name) =>
    given instanceof Map ? ((given as ReadonlyMap<string, number>).get(name) ?? all) : all,
  );
}

/** The bounds that the rule does not enforce itself, or that a guard inside them would violate. */
function boundsAround(mixing: MixingConfig, { sizes = {} }: SizedFacts): CombinatorOptions[] {
  const { floor, ceiling, repetitionCap, guard, rule } = mixing;
  const names = Object.keys(sizes);
  const byName = (given: NumberByName, otherwise: number): number | Record<string, number> =>
    typeof given === "number"
      ? given
      : {
          ...Object.fromEntries(boundsByName(given, names, otherwise).map((bound, i) => [names[i]!, bound])),
          // A name that is not a domain's is then refused.
          ...Object.fromEntries([...given].filter(([name]) => name !== "*")),
        };
  const own = ownFloor(floor, rule, guard);
  return [
    ...(floor === null || floor === 0 || own ? [] : [{ name: "floor", least: byName(floor, 0) } as const]),
    ...(ceiling === null ? [] : [{ name: "ceiling", most: byName(ceiling, 1) } as const]),
    ...(repetitionCap === null || limitsRepetitions(rule)
      ? []
      : [{ name: "repetitionCap", repetitions: repetitionCap } as const]),
  ];
}

/** Caps that keep a guard from requesting more than the rule may sample. */
function guardCaps(mixing: MixingConfig, facts: SizedFacts): { readonly caps?: Record<string, number> } {
  const options = limitedOptions(mixing, facts);
  if (options === null || facts.sizes === undefined) return {};
  const names = Object.keys(facts.sizes);
  const caps = repetitionCapsOf(options, names);
  return caps === null ? {} : { caps: Object.fromEntries(names.map((name, i) => [name, caps[i]!])) };
}

/**
 * Throws `config` if the run cannot respect the cap, because there is too little text or a floor requires more. (A limit among the options of `dga`
 * itself distributes too little text in proportion.)
 */
function checkCap({ repetitionCap, floor }: MixingConfig, { sizes = {}, tokens }: SizedFacts): void {
  if (repetitionCap === null || tokens === undefined) return;
  const names = Object.keys(sizes);
  const offered = Object.values(sizes).map((size) => repetitionCap * size);
  const n = (count: number): string => Math.floor(count).toLocaleString("en");
  if (sumOf(offered) < tokens)
    throw new GradmixError(
      "config",
      `--repetition-cap ${repetitionCap}: with these repetitions the domains have ${n(sumOf(offered))} tokens, but the run needs ${n(tokens)}; train fewer steps, or allow more repetitions`,
    );
  const floors = boundsByName(floor, names, 0);
  const bad = names.findIndex((_, i) => floors[i]! * tokens > offered[i]!);
  if (bad >= 0)
    throw new GradmixError(
      "config",
      `--repetition-cap ${repetitionCap}: domain "${names[bad]}" is then at most ${Number((offered[bad]! / tokens).toPrecision(3))} of the run, and its floor is ${floors[bad]}; lower --floor, or allow more repetitions`,
    );
}

/** Reads the bases of a file, or those given. Throws `config` for a file that cannot be read, `data` with the line for an error in it. */
function readBases(path: MixingConfig["bases"], domains: readonly string[]): Bases | null {
  if (path === null) return null;
  if (typeof path === "object") return inlineBases(path, domains);
  const format = /\.(json|csv)$/i.exec(path)?.[1]?.toLowerCase();
  if (format !== "json" && format !== "csv")
    throw new GradmixError("config", `--bases: ${path} ends in neither .json nor .csv`);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new GradmixError("config", `--bases: ${path} cannot be read (${reason(error)})`, { cause: error });
  }
  return parseBases(text, domains, { format, source: path });
}

function inlineBases(
  given: Exclude<MixingConfig["bases"], string | null>,
  domains: readonly string[],
): Bases {
  try {
    return createBases(given, domains);
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    throw new GradmixError(error.code, `mixing.bases: ${error.message}`, { cause: error });
  }
}

/** The number of tokens available to each basis: those of the domains from which it draws. */
function basisSizes(bases: Bases, sizes: Readonly<Record<string, number>>): Record<string, number> {
  const { names, domains, offsets, columns } = bases;
  return Object.fromEntries(
    names.map((name, j) => {
      let size = 0;
      for (let e = offsets[j]!; e < offsets[j + 1]!; e++) size += sizes[domains[columns[e]!]!]!;
      return [name, size];
    }),
  );
}
