/** Options of the rule that moves the domain weights. */
import { combinatorNames } from "../../dga/combinators/index.ts";
import { mixerDefaults } from "../../dga/mixer.ts";
import { selectionDefaults } from "../../data/defaults.ts";
import { dgaDefaults, dgaNormalisations } from "../../dga/rules/dga.ts";
import { grapeDefaults } from "../../dga/rules/grape.ts";
import { ruleNames } from "../../dga/rules/index.ts";
import {
  basesFile,
  choice,
  combinatorList,
  decimal,
  forAllOrByName,
  jsonObject,
  limitsByName,
  shares,
  text,
  integer,
} from "./kinds.ts";
import type { KnownRun, SectionTable } from "./spec.ts";
import { type Common, idleCombinators, idleCommon, idlePrior, idleWhenFixed } from "../common-options.ts";

/** Share of the computation of training that the evaluations of guarded domains may add, if none is given. */
export const guardShareOtherwise = 0.1;

const shared =
  (option: Common) =>
  ({ config: { mixing } }: KnownRun) =>
    idleCommon(mixing, option);

const ofMovingWeights = ({ config: { mixing } }: KnownRun) => idleWhenFixed(mixing);

export const mixingOptions: SectionTable<"mixing"> = {
  rule: {
    flag: "--rule",
    value: "NAME",
    kind: choice(ruleNames),
    default: "dga",
    help: "dga moves the weights towards domains whose gradients agree with the gradient of the target. These rules keep fixed weights: uniform, static (--weights), temperature (by size), importanceSampling (by the share of the target that resembles each domain). Others, for comparison: doge, grape (several --targets), rnb, doremi (--reference), odm, ado",
  },
  ruleOptions: {
    flag: "--rule-options",
    value: "JSON",
    kind: jsonObject,
    default: {},
    help: 'options of the rule without a flag of their own, such as {"towards": "target"} for doge; docs/rules.md lists them',
  },
  combinators: {
    flag: "--combinators",
    value: "JSON",
    kind: combinatorList,
    default: [],
    idle: ({ config: { mixing } }) => idleCombinators(mixing),
    help: `combinators around the rule, each of which adds a property such as a bound; the innermost first: [{"name": "repetitionCap", "repetitions": 4}]. There are ${combinatorNames.join(", ")}`,
  },
  eta: {
    flag: "--eta",
    value: "X",
    kind: decimal({ min: 0, max: 1000 }),
    default: null,
    idle: shared("eta"),
    auto: `set by the rule; dga: ${dgaDefaults.aroundPrior.eta} with a histogram, ${dgaDefaults.withoutPrior.eta} without`,
    help: "step size of an update of the weights (η); a larger value adapts faster and is noisier",
  },
  beta: {
    flag: "--beta",
    value: "X",
    kind: decimal({ min: 0, max: 1, openMin: true }),
    default: null,
    idle: shared("beta"),
    auto: `set by the rule; dga: ${dgaDefaults.aroundPrior.beta} with --normalise tracked, else ${dgaDefaults.untracked.beta}`,
    help: "share of the newest weights in the moving average that is sampled from; 1 means no average",
  },
  normalise: {
    flag: "--normalise",
    value: "NAME",
    kind: choice(dgaNormalisations),
    default: null,
    idle: shared("normalise"),
    auto: `set by the rule; dga: ${dgaDefaults.normalise}, grape: ${grapeDefaults.normalise}`,
    help: "how alignments are normalised. tracked (only dga): averaged over updates, in units of their spread. The others use only the last update: raw (unchanged gradients), clipped (to norm 1), cosine (scaled to norm 1), doge (as in DoGE), adam (aligned with the step that Adam would take)",
  },
  preset: {
    flag: "--mixing-preset",
    value: "paper",
    kind: choice(["paper"]),
    default: null,
    auto: "none",
    help: `paper: Dynamic Gradient Alignment as published, for comparison: raw alignments of batches of every domain, a uniform start, an average with beta ${dgaDefaults.untracked.beta}, no limit on repetitions. You must find its --eta by trial`,
  },
  prior: {
    flag: "--prior",
    value: "histogram|uniform",
    kind: choice(["histogram", "uniform"]),
    default: null,
    otherwise: "histogram",
    idle: ({ config: { mixing } }) => idlePrior(mixing),
    help: "for --rule dga: the weights from which the rule starts, and towards which it pulls them. histogram: the histogram of the target over the domains (from --histogram, or counted before training). uniform: equal weights",
  },
  updateEvery: {
    flag: "--update-every",
    value: "N",
    kind: integer(1),
    default: null,
    idle: ofMovingWeights,
    auto: `${mixerDefaults.updateEvery}; ${dgaDefaults.schedules.withoutPrior.updateEvery} for dga without a prior`,
    help: "update the weights every N steps",
  },
  updateAfter: {
    flag: "--update-after",
    formerly: { flag: "--rule-warmup", path: "mixing.ruleWarmup" },
    value: "N",
    kind: integer(0),
    default: null,
    otherwise: mixerDefaults.updateAfter,
    idle: ofMovingWeights,
    help: "make no update before step N",
  },
  floor: {
    flag: "--floor",
    value: "X|NAME=X",
    kind: forAllOrByName({ min: 0, max: 1 }),
    default: null,
    idle: shared("floor"),
    auto: `set by the rule; dga: ${dgaDefaults.floor}`,
    help: "smallest weight of a domain. X applies to all domains and is less than 1 / their number. NAME=X applies to one domain and is repeatable; X then applies to the others",
  },
  ceiling: {
    flag: "--ceiling",
    value: "X|NAME=X",
    kind: forAllOrByName({ min: 0, max: 1, openMin: true }),
    default: null,
    auto: "none",
    help: "largest weight of a domain; same form as --floor",
  },
  repetitionCap: {
    flag: "--repetition-cap",
    value: "N",
    kind: decimal({ min: 0, max: 1e9, openMin: true }),
    default: null,
    auto: `for dga with --normalise tracked ${dgaDefaults.repetitions.least}, or ${dgaDefaults.repetitions.beyondEven} more than if all text were used equally often, whichever is larger; else none`,
    help: "read the text of each domain at most N times, in expectation",
  },
  select: {
    flag: "--select",
    value: "SHARE",
    kind: decimal({ min: 0, max: 1, openMin: true }),
    default: null,
    auto: `${selectionDefaults.leastShare} for dga with --normalise tracked and a --target; 1 for other rules, and with --floor, --guard or --bases`,
    help: "train on the windows of each domain that resemble the target most: at least this share of them, and at least as many as the run is expected to read once. 1: train on all text",
  },
  guard: {
    flag: "--guard",
    value: "NAME<=X",
    kind: limitsByName({ min: 1, max: 1e9 }),
    default: null,
    auto: "none",
    help: `keep the held-out loss of a domain at most X times its loss at the start of the run (or of the model of --reference): a domain that approaches the limit gets more weight. Repeatable; * means all domains that are not named: --guard '*<=1.02' --guard 'code<=1'. Quote the value`,
  },
  guardShare: {
    flag: "--guard-share",
    value: "SHARE",
    kind: decimal({ min: 0, max: 1, openMin: true }),
    default: null,
    otherwise: guardShareOtherwise,
    help: "share of the computation of training that the evaluations for --guard may add, planned before the run. Every guarded domain is evaluated at the start, at the end, and at least twice in between if there are that many updates",
  },
  weights: {
    flag: "--weights",
    value: "NAME=X,…|FILE",
    kind: shares({ sumsToOne: true }),
    default: null,
    idle: shared("weights"),
    auto: "for dga with a histogram, that histogram with 1 % equal weights; else equal",
    help: "weights of --rule static, and initial weights of rules that move them. They sum to 1. FILE: the weights.json of another run; its averaged weights are used",
  },
  histogram: {
    flag: "--histogram",
    value: "NAME=X,…|FILE",
    kind: shares({ sumsToOne: false }),
    default: null,
    idle: shared("histogram"),
    auto: "counted, as by gradmix histogram",
    help: "how much of the target resembles each domain, as shares or counts: the weights of --rule importanceSampling, and the prior of --rule dga. FILE: the output of gradmix histogram",
  },
  reference: {
    flag: "--reference",
    value: "DIR",
    kind: text,
    default: null,
    help: "for --rule doremi and --guard: the folder of a finished run with the same tokenizer, usually on the same domains; its model gives the reference losses",
  },
  bases: {
    flag: "--bases",
    value: "FILE",
    kind: basesFile,
    default: null,
    help: "distributions over the domains (.json or .csv), called bases: the rule moves the weights of the bases instead of the domains. Use them for thousands of domains",
  },
};
