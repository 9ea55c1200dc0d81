/** How a run mixes: its bases, its rule with the combinators around it, and what is measured for it. Decided before any text is read. */
import { readFileSync } from "node:fs";
import { type Bases, createBases } from "../dga/bases.ts";
import { parseBases } from "../dga/bases-text.ts";
import { type CombinatorOptions, countsRunTokens } from "../dga/combinators/index.ts";
import { limitsOf } from "../dga/combinators/guard.ts";
import type { RunFacts } from "../dga/facts.ts";
import { createMixer, type Mixer, type MixerOptions } from "../dga/mixer.ts";
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
import type { AlignmentOptions } from "../dga/trainer-options.ts";
import { EPOCHS } from "./epoch-watch.ts";
import { sumOf } from "../dga/simplex.ts";
import type { MixingConfig, NumberByName, TrainConfig } from "./train-config.ts";
import { reason } from "../node/system-errors.ts";

/** The guards of a run. */
export interface GuardLimits {
  /** By domain, "*" for those that are not named. */
  readonly limits: Readonly<Record<string, number>>;
  /** What their evaluations may take of the training's computation. */
  readonly share: number;
}

export interface MixingPlan {
  /** The domains, in the order of the weights. */
  readonly names: readonly string[];
  readonly bases: Bases | null;
  readonly alignment: AlignmentOptions;
  /** By domain; null where none is guarded. */
  readonly guard: GuardLimits | null;
  /** How often a domain may be gone through before its held-out loss is watched: what the options say, else `EPOCHS`. */
  readonly watchedFrom: number;
  /** Folder of the run whose model gives the reference losses. */
  readonly reference: string | null;
  readonly ruleName: RuleName;
  /** The rule looks at what is measured, so that it may ask for a target. */
  readonly measures: boolean;
  /** What is around the rule counts with the tokens of the whole run, so that the run cannot be extended. */
  readonly countsTokens: boolean;
  /** The first domain whose repetitions the rule would limit otherwise in a run of so many tokens than in this one; null where there is none. */
  limitedOtherwise(tokens: number, sizes: Readonly<Record<string, number>>): string | null;
  /** How often a domain may be repeated over the run, as far as the rule or what is around it limits that; null where it is not limited. */
  readonly repetitions: number | null;
  /** By how often the run goes through the text if its repetitions are limited and the text, at that limit, is less than its tokens: no weights can keep to it then. null otherwise. */
  repeatsAnyway(sizes: Readonly<Record<string, number>>): number | null;
  /** Options that were given and change nothing, as lines for the user. */
  readonly unused: readonly string[];
  /** The rule takes a histogram of the target over the domains, and none was given: it is to be counted (`histogramOf`). */
  readonly wantsHistogram: boolean;
  /** The mixer, once the text is read. */
  mixerOf(read: ReadFacts): Mixer;
}

/** What is known of the text once it is read. */
export interface ReadFacts {
  /** Training tokens of each domain. */
  readonly sizes: Readonly<Record<string, number>>;
  /** Share of the target by domain; null where the plan wants none. */
  readonly histogram: ReadonlyMap<string, number> | null;
}

/** `tokens` are those of the whole run, `names` those of the domains. Throws `config` for what does not go together, `data` for bases that are malformed. */
export function planMixing(
  config: Pick<TrainConfig, "mixing" | "alignment" | "data">,
  tokens: number,
  names: readonly string[] = [...config.data.domains.keys()],
): MixingPlan {
  const { data } = config;
  const { mixing, alignment } = presetOf(config);
  const bases = readBases(mixing.bases, names);
  const targets = [...data.targets.keys()];
  const of = bases?.names ?? names;
  const build = ({ sizes, histogram }: ReadFacts): Mixer =>
    mixerFor(mixing, targets, of, {
      sizes,
      tokens,
      ...(histogram === null ? {} : { histogram: Object.fromEntries(histogram) }),
    });
  const wantsHistogram = countsHistogram(mixing, data);
  // How large the domains are, and which the target resembles, is only known once they are read.
  const unread = Object.fromEntries(of.map((name) => [name, Number.MAX_SAFE_INTEGER]));
  const { combinators } = mixerOptionsOf(mixing, targets, { sizes: unread, tokens });
  const planned = build({
    sizes: unread,
    histogram: wantsHistogram ? new Map(of.map((name) => [name, 1 / of.length])) : null,
  });
  if (bases === null) checkGuarded(mixing, names);
  const { rule } = planned;
  const target = data.target.length === 0 ? null : data.target;
  if (planOf(rule.needs).aligns && target === null)
    throw new GradmixError(
      "config",
      `--rule ${mixing.rule} needs a target: add --target GLOB, text that the model should become good at, or choose --rule uniform`,
    );
  const repetitions = repetitionsOf(mixing);
  checkOptionSet({
    mixer: planned,
    domains: names,
    target,
    targets: { size: data.targets.size },
    ...(mixing.reference === null ? {} : { reference: { folder: mixing.reference } }),
    ...(mixing.guard === null ? {} : { heldOut: {} }),
    ...(bases === null ? {} : { bases }),
    alignment,
  });
  return {
    names,
    bases,
    alignment,
    guard:
      mixing.guard === null ? null : { limits: Object.fromEntries(mixing.guard), share: mixing.guardShare },
    watchedFrom: saidRepetitions(mixing) ?? EPOCHS,
    reference: mixing.reference,
    ruleName: mixing.rule,
    measures: rule.needs.length > 0,
    // How often guarded domains are evaluated, and on how much, follows from the run's length.
    countsTokens: countsRunTokens(combinators) || mixing.guard !== null,
    limitedOtherwise(otherTokens, sizes) {
      const offered = bases === null ? sizes : basisSizes(bases, sizes);
      const capsOf = (n: number): readonly number[] | null => {
        const options = limitedOptions(mixing, { sizes: offered, tokens: n });
        return options === null ? null : repetitionCapsOf(options, of);
      };
      const [own, other] = [capsOf(tokens), capsOf(otherTokens)];
      return of.find((_, i) => own?.[i] !== other?.[i]) ?? null;
    },
    repetitions,
    repeatsAnyway(sizes) {
      const offered = sumOf(Object.values(bases === null ? sizes : basisSizes(bases, sizes)));
      return repetitions !== null && repetitions * offered < tokens ? tokens / offered : null;
    },
    unused: unusedOptions(mixing).map(
      (option) => `mixing.${option} has no effect: rule ${mixing.rule} does not use it`,
    ),
    wantsHistogram,
    mixerOf: ({ sizes, histogram }) =>
      build({ sizes: bases === null ? sizes : basisSizes(bases, sizes), histogram }),
  };
}

/** Throws `config` for a guard among the combinators that looks at a domain which `--guard` does not have evaluated: it would never act. */
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

/** The published algorithm, for what was not given; null stands for what was not given to the command, and is left out for the library. */
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

/** What rules call the common options of `MixingConfig`. A rule takes one where it has an option of such a name. */
const common = {
  eta: ["eta"],
  beta: ["beta"],
  normalise: ["normalise"],
  floor: ["floor"],
  weights: ["weights", "start"],
  histogram: ["histogram", "prior"],
} as const;
type Common = keyof typeof common;

/** The rule's name of the option, where it takes it. */
function nameIn(rule: RuleName, option: Common): string | undefined {
  return common[option].find((name) => ruleHas(rule, name));
}

/** Does the rule read this option? */
export function ruleTakes(rule: RuleName, option: Common): boolean {
  return nameIn(rule, option) !== undefined;
}

/** The rule takes a histogram, and none was given. */
export function lacksHistogram(mixing: MixingConfig): boolean {
  const { rule, histogram, ruleOptions, prior, normalise } = mixing;
  const name = nameIn(rule, "histogram");
  const { histogram: use } = ruleTraits(rule);
  const wanted =
    use === "needed" ||
    (use?.priorWith(ruleOptions["normalise"] ?? normalise ?? undefined) === true && prior === "histogram");
  return wanted && name !== undefined && histogram === null && !Object.hasOwn(ruleOptions, name);
}

/** A run counts the histogram that its rule lacks: of its target, over its domains. Where the weights are those of bases it cannot. */
function countsHistogram(mixing: MixingConfig, { target }: Pick<TrainConfig["data"], "target">): boolean {
  return lacksHistogram(mixing) && mixing.bases === null && target.length > 0;
}

/** The least of what the rule and the combinators around it allow. */
function repetitionsOf(mixing: MixingConfig): number | null {
  const options = limitedOptions(mixing, {});
  const own = options === null ? Infinity : mostRepetitionsOf(options);
  const least = Math.min(own, saidRepetitions(mixing) ?? Infinity);
  return Number.isFinite(least) ? least : null;
}

/** The least that the options say. */
function saidRepetitions({ repetitionCap, combinators, ruleOptions }: MixingConfig): number | null {
  const own = ruleOptions["repetitions"];
  const said = [
    ...(repetitionCap === null ? [] : [repetitionCap]),
    ...(typeof own === "number" ? [own] : []),
    ...combinators.flatMap((one) => (one.name === "repetitionCap" ? [one.repetitions] : [])),
  ];
  return said.length === 0 ? null : Math.min(...said);
}

/** Options that were given and change nothing with this rule. */
export function unusedOptions(mixing: MixingConfig): string[] {
  const { rule } = mixing;
  return [
    ...(mixing.eta !== null && !ruleTakes(rule, "eta") ? ["eta"] : []),
    ...(mixing.normalise !== null && !ruleTakes(rule, "normalise") ? ["normalise"] : []),
    // An average goes around any rule that moves the weights.
    ...(mixing.beta !== null && ruleTraits(rule).fixed === true ? ["beta"] : []),
  ];
}

/** What is known of a run when its rule is made. */
interface SizedFacts {
  /** Tokens of each domain, in the domains' order. */
  readonly sizes?: Readonly<Record<string, number>>;
  /** Training tokens of the whole run. */
  readonly tokens?: number;
}

/** The options of a run's rule, out of the common ones and `ruleOptions`, of which the rule checks its own. */
function ruleOptionsOf(
  mixing: MixingConfig,
  targets: readonly string[],
  facts: SizedFacts,
): Record<string, unknown> {
  const options: Record<string, unknown> = { name: mixing.rule };
  for (const option of keysOf(common)) {
    const name = nameIn(mixing.rule, option);
    const value = option === "floor" ? forAll(mixing.floor) : mixing[option];
    if (name !== undefined && value !== null)
      options[name] = value instanceof Map ? Object.fromEntries(value) : value;
  }
  const { rule, repetitionCap } = mixing;
  // A rule may take no facts by itself, such as dga without tracking, and this is asked for.
  if (limitsRepetitions(rule) && repetitionCap !== null)
    Object.assign(options, {
      repetitions: repetitionCap,
      ...(facts.tokens === undefined ? {} : { sizes: facts.sizes, tokens: facts.tokens }),
    });
  if (ruleTraits(rule).severalTargets === true) options["targets"] = targets;
  return { ...options, ...mixing.ruleOptions };
}

/** Does the rule itself limit how often a domain is repeated? */
const limitsRepetitions = (rule: RuleName): boolean => ruleHas(rule, "repetitions");

/** Of a rule that limits repetitions, checked and with the facts; null for another one. */
function limitedOptions(mixing: MixingConfig, facts: SizedFacts): RuleOptions | null {
  return limitsRepetitions(mixing.rule) ? ruleOptionsFrom(ruleOptionsOf(mixing, [], facts), facts) : null;
}

/** The mixer of a run. Throws `config` for options of the rule and of what is around it that do not fit. */
export function mixerFor(
  mixing: MixingConfig,
  targets: readonly string[],
  domains: readonly string[],
  facts: SizedFacts & Pick<RunFacts, "histogram">,
): Mixer {
  const { rule, ...around } = mixerOptionsOf(mixing, targets, facts);
  return createMixer({ domains, rule: ruleOptionsFrom(rule, facts), ...around, ...facts });
}

/** The rule of a run and what goes around it, for `createMixer`, which is told the facts of the run beside them. */
export function mixerOptionsOf(
  mixing: MixingConfig,
  targets: readonly string[],
  facts: SizedFacts,
): Pick<MixerOptions, "updateEvery" | "updateAfter"> & {
  readonly rule: Readonly<Record<string, unknown>>;
  readonly combinators: readonly CombinatorOptions[];
} {
  const rule = ruleOptionsOf(mixing, targets, facts);
  checkCap(mixing, facts);
  // What a rule does not do itself is put around it. Bounds go around the guard, so that they hold whatever it asks for.
  const added: CombinatorOptions[] = [];
  if (mixing.beta !== null && !ruleTakes(mixing.rule, "beta") && ruleTraits(mixing.rule).fixed !== true)
    added.push({ name: "ema", beta: mixing.beta });
  if (mixing.guard !== null)
    added.push({ name: "guard", limits: Object.fromEntries(mixing.guard), ...guardCaps(mixing, facts) });
  added.push(...boundsAround(mixing, facts));
  return {
    rule,
    combinators: [...added, ...mixing.combinators],
    updateEvery: mixing.updateEvery,
    updateAfter: mixing.updateAfter,
  };
}

/** What one number says of all domains, or "*" of those that are not named; null for nothing. */
const forAll = (given: NumberByName | null): number | null =>
  typeof given === "number" ? given : (given?.get("*") ?? null);

/** A number for each domain; `otherwise` where nothing is said of it. */
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

/** The bounds that the rule does not keep itself, or that a guard inside would break. */
function boundsAround(mixing: MixingConfig, { sizes = {} }: SizedFacts): CombinatorOptions[] {
  const { floor, ceiling, repetitionCap, guard, rule } = mixing;
  const names = Object.keys(sizes);
  const byName = (given: NumberByName, otherwise: number): number | Record<string, number> =>
    typeof given === "number"
      ? given
      : {
          ...Object.fromEntries(boundsByName(given, names, otherwise).map((bound, i) => [names[i]!, bound])),
          // A name that is none is then refused.
          ...Object.fromEntries([...given].filter(([name]) => name !== "*")),
        };
  const own = typeof floor === "number" && ruleTakes(rule, "floor") && guard === null;
  return [
    ...(floor === null || floor === 0 || own ? [] : [{ name: "floor", least: byName(floor, 0) } as const]),
    ...(ceiling === null ? [] : [{ name: "ceiling", most: byName(ceiling, 1) } as const]),
    ...(repetitionCap === null || limitsRepetitions(rule)
      ? []
      : [{ name: "repetitionCap", repetitions: repetitionCap } as const]),
  ];
}

/** A guard asks for no more than the rule may sample. */
function guardCaps(mixing: MixingConfig, facts: SizedFacts): { readonly caps?: Record<string, number> } {
  const options = limitedOptions(mixing, facts);
  if (options === null || facts.sizes === undefined) return {};
  const names = Object.keys(facts.sizes);
  const caps = repetitionCapsOf(options, names);
  return caps === null ? {} : { caps: Object.fromEntries(names.map((name, i) => [name, caps[i]!])) };
}

/** Throws `config` where the run cannot keep to the cap: there is too little text, or a floor asks for more. (The limit that `dga` has by itself shares too little text out.) */
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

/** The bases of a file, or those given. Throws `config` for a file that cannot be read, `data` with the line for what is wrong in it. */
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

/** What a basis offers: the tokens of the domains that it draws from. */
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
