/**
 * Makes a trainer's files from a mixture: converts the weights to the trainer's unit, prints them as decimals, leaves out those that would print as
 * 0, and collects notes on what was done.
 */
import { projectFloor } from "../dga/simplex.ts";
import { GradmixError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import {
  type OptionChecks,
  checkOptions,
  numberIn,
  oneOf,
  required,
  show,
  string,
  integerIn,
} from "../options.ts";
import { decimalsOf, SMALLEST_SHARE, plainDecimal } from "./decimals.ts";
import type { Entry, ExportedFile, ExportFormat, Plan, PlannedStage, Unit } from "./format.ts";
import { configFormats } from "./formats/configs.ts";
import { megatronFormats } from "./formats/megatron.ts";
import { pythonFormats } from "./formats/python.ts";
import { listOfNames, record } from "./formats/shared.ts";
import { tableFormats } from "./formats/tables.ts";
import { checkMixture, type Mixture, type MixtureDomain, type MixtureStage } from "./mixture.ts";
import { jsonText } from "./text.ts";

/** The formats by name. */
export const exportFormats: ReadonlyMap<string, ExportFormat> = new Map(
  [...megatronFormats, ...pythonFormats, ...configFormats, ...tableFormats].map((format) => [
    format.name,
    format,
  ]),
);

/** Formats that are not supported, with the reason. */
const refused: ReadonlyMap<string, string> = new Map([
  [
    "axolotl",
    "its weights do not define a mixture: each subsamples one dataset once, when the data is prepared; use --to hf-datasets, and give axolotl the resulting dataset",
  ],
]);

/** Options of `exportMixture`. */
export interface ExportOptions {
  /** Name of the format, a key of `exportFormats`. */
  readonly format: string;
  /**
   * Training tokens of the run that the mixture is for. Stages start at the same fraction of it, and epochs and repetitions are counted for it.
   * Default: `tokens` of the mixture.
   */
  readonly scaleTo?: number;
  /** Tokens per window of that run. Refused if nothing that is written depends on it. Default: `context` of the mixture. */
  readonly context?: number;
  /** Windows per step of that run. Refused if nothing that is written depends on it. Default: `batch` of the mixture. */
  readonly batch?: number;
  /**
   * What a row of the trainer's data is, for formats that draw rows: `documents` of any length, or `windows` of one length. Default: what is usual
   * for the trainer.
   */
  readonly rows?: "documents" | "windows";
  /** Smallest weight; smaller ones are raised to it. Default 0: weights that would print as 0 are left out. */
  readonly floor?: number;
}

/** The result of `exportMixture`. */
export interface Exported {
  /** The files, at least one; their names have no folder. */
  readonly files: readonly ExportedFile[];
  /** JSON that describes where the weights come from, to be written beside the files. Null for formats whose files contain this as a comment. */
  readonly sidecar: string | null;
  /** Lines for the user: which weights these are, in which unit, what was left out, and what the format cannot express. */
  readonly notes: readonly string[];
}

const checks: OptionChecks<ExportOptions> = {
  format: required(string),
  scaleTo: numberIn({ min: 0, openMin: true }),
  context: integerIn(1),
  batch: integerIn(1),
  rows: oneOf("documents", "windows"),
  floor: numberIn({ min: 0, max: 1 }),
};

/**
 * Makes the files of a mixture for a trainer, as text. Weights are plain decimals that sum to exactly 1 as printed, and never 0. It writes nothing to
 * disk. Throws `config` for an unknown format (the message suggests the nearest one), for options that do not fit, and for a mixture that the format
 * cannot express: a domain without a path if it needs one, stages if it has none.
 */
export function exportMixture(mixture: Mixture, options: ExportOptions): Exported {
  checkOptions("exportMixture", options, checks);
  checkMixture(mixture);
  const format = formatNamed(options.format);
  const { tokens, notes: ownNotes, ...rest } = settle(mixture, format, options);
  const about = aboutOf(mixture, format, rest.unit);
  const { stages, notes } = planStages(mixture, rest.unit, tokens, options.floor ?? 0);
  checkPaths(format, stages);
  const plan: Plan = { ...rest, tokens, stages, mixture, about };
  const output = format.write(plan);
  return {
    files: output.files,
    sidecar: format.sidecar ? sidecarOf(plan, format) : null,
    notes: [
      ...about,
      ...ownNotes,
      ...notes,
      ...repetitionNotes(plan, format),
      ...unusedPaths(mixture, format),
      ...output.notes,
    ],
  };
}

function formatNamed(name: string): ExportFormat {
  const format = exportFormats.get(name);
  if (format !== undefined) return format;
  const reason = refused.get(name);
  if (reason !== undefined) throw new GradmixError("config", `${name}: ${reason}`);
  const close = nearest(name, exportFormats.keys());
  throw new GradmixError(
    "config",
    `there is no format ${show(name)}; ${close === null ? `there are ${[...exportFormats.keys()].join(", ")}` : `did you mean ${close}?`}`,
  );
}

/** Fills in options that were left out, from the mixture or the format. */
function settle(
  mixture: Mixture,
  format: ExportFormat,
  options: ExportOptions,
): Pick<Plan, "tokens" | "context" | "batch" | "unit"> & { notes: readonly string[] } {
  const { name, unit } = format;
  const { scaleTo, context, batch, rows, floor = 0 } = options;
  if (mixture.stages !== null && mixture.stages.length > 1 && !format.stages)
    throw new GradmixError("config", `${name}: its weights cannot change during a run; leave out stages`);
  if (rows !== undefined && unit !== "documents" && unit !== "windows")
    throw new GradmixError(
      "config",
      `${name}: the option rows has no effect, since this format counts ${unit}; leave it out`,
    );
  const notes: string[] = [];
  for (const option of ["context", "batch"] as const) {
    if (options[option] === undefined || affectsFiles(option, mixture, format)) continue;
    const noEffect = `${name}: the option ${option} has no effect, since`;
    // Whether the weights of a run changed is not in the hand of the user, so the same command works for all runs.
    if (placesStages(option, format) && mixture.stages !== null)
      notes.push(`${noEffect} there is only one stage`);
    else
      throw new GradmixError(
        "config",
        `${noEffect} ${format.stages ? "no stage starts at a step or a window" : "this format has no stages"}; leave it out`,
      );
  }
  const most = 1 / mixture.domains.length;
  if (floor > most)
    throw new GradmixError(
      "config",
      `floor: ${floor} is more than 1/${mixture.domains.length}, one divided by the number of domains; choose a smaller floor`,
    );
  return {
    tokens: scaleTo ?? mixture.tokens,
    context: context ?? mixture.context,
    batch: batch ?? mixture.batch,
    unit: rows ?? unit,
    notes: [...notes, ...(floor > 0 ? [floorNote(mixture, floor)] : [])],
  };
}

/** Whether the length of a window (`context`), or the number of windows per step (`batch`), changes what is written. Not part of the package's interface. */
export function affectsFiles(
  option: "context" | "batch",
  { stages }: Pick<Mixture, "stages">,
  format: Pick<ExportFormat, "stageStarts" | "sidecar">,
): boolean {
  return format.sidecar || (placesStages(option, format) && stages !== null && stages.length > 1);
}

/** Whether the starts of stages depend on the option. */
function placesStages(
  option: "context" | "batch",
  { stageStarts }: Pick<ExportFormat, "stageStarts">,
): boolean {
  return stageStarts === "step" || (stageStarts === "window" && option === "context");
}

/** Says which domains the floor raises, in any stage. */
function floorNote({ domains, stages }: Mixture, floor: number): string {
  const own = stages ?? [{ weights: domains.map(({ weight }) => weight) }];
  const raised = domains.filter((_, i) => own.some(({ weights }) => weights[i]! < floor));
  return raised.length === 0
    ? `no weight is below the floor of ${plainDecimal(floor)}, so it changes nothing`
    : `raised to the floor of ${plainDecimal(floor)}, at the cost of the others: ${listOfNames(raised.map(({ name }) => name))}`;
}

/** Lines on where the weights come from and what they count. */
function aboutOf({ source, domains }: Mixture, { name }: ExportFormat, unit: Unit): string[] {
  const what = source.weights === "stages" ? "weights in stages" : `${source.weights} weights`;
  return [
    `gradmix ${source.gradmix}: ${what} of run ${show(source.run)}, step ${source.step}, rule ${source.rule}`,
    `${name} counts ${unit}: ${counting(unit, domains)}`,
  ];
}

function counting(unit: Unit, domains: readonly MixtureDomain[]): string {
  switch (unit) {
    case "tokens":
      return "weights are shares of the training tokens";
    case "windows":
      return "pieces of one length, so that weights are shares of the training tokens";
    case "epochs":
      return "passes over the tokens of each domain";
    case "documents": {
      const known = domains.flatMap(({ name, documentTokens }) =>
        documentTokens === null ? [] : [`${show(name)} ${plainDecimal(documentTokens)}`],
      );
      const shown = known.slice(0, 4).join(", ") + (known.length > 4 ? `, and ${known.length - 4} more` : "");
      return `weights are shares of the training tokens divided by the mean tokens of a document (${shown}); if your rows are windows of one length, choose rows windows`;
    }
  }
}

/** The stages in the format's unit, and notes on the domains that were left out. */
function planStages(
  mixture: Mixture,
  unit: Unit,
  tokens: number,
  floor: number,
): { stages: Plan["stages"]; notes: readonly string[] } {
  const { domains } = mixture;
  const own: readonly MixtureStage[] = mixture.stages ?? [
    { start: 0, weights: domains.map(({ weight }) => weight) },
  ];
  const notes: string[] = [];
  const planned = ({ start, weights }: MixtureStage, s: number): PlannedStage => {
    const raised = floor > 0 ? Array.from(projectFloor(weights, floor)) : weights;
    const shares = inUnit(raised, domains, unit, tokens);
    const left = domains.filter((_, i) => !(shares[i]! >= SMALLEST_SHARE));
    if (left.length > 0)
      notes.push(
        `${own.length > 1 ? `stage ${s + 1}: ` : ""}left out, since ${left.length === 1 ? "its weight is" : "their weights are"} 0 or would print as 0: ${listOfNames(left.map(({ name }) => name))}`,
      );
    const kept = [...domains.keys()].filter((i) => shares[i]! >= SMALLEST_SHARE);
    const printed =
      unit === "epochs" ? kept.map((i) => plainDecimal(shares[i]!)) : decimalsOf(kept.map((i) => shares[i]!));
    const entries = kept.map((i, at): Entry => {
      const { name, paths, tokens: size } = domains[i]!;
      return { name, paths, tokens: size, share: printed[at]!, weight: raised[i]! };
    });
    return { start: (start / mixture.tokens) * tokens, entries };
  };
  // `checkMixture` refuses an empty list.
  const first = planned(own[0]!, 0);
  return { stages: [first, ...own.slice(1).map((stage, i) => planned(stage, i + 1))], notes };
}

/** Shares of what the format counts; for epochs, passes over each domain. Throws `config` if the length of a domain is unknown. */
function inUnit(
  weights: readonly number[],
  domains: readonly MixtureDomain[],
  unit: Unit,
  tokens: number,
): number[] {
  if (unit === "tokens" || unit === "windows") return [...weights];
  const part = unit === "documents" ? "documentTokens" : "tokens";
  const unknown = domains
    .filter((domain, i) => weights[i]! > 0 && domain[part] === null)
    .map(({ name }) => name);
  if (unknown.length > 0)
    throw new GradmixError(
      "config",
      `the format counts ${unit}, and ${unit === "documents" ? "the mean length of a document" : "the number of tokens"} is unknown for ${listOfNames(unknown)}${unit === "documents" ? "; if your rows are windows of one length, choose rows windows" : ""}`,
    );
  const divided = domains.map((domain, i) => weights[i]! / (domain[part] ?? 1));
  if (unit === "epochs") return divided.map((share) => share * tokens);
  const total = divided.reduce((sum, share) => sum + share, 0);
  return divided.map((share) => share / total);
}

function checkPaths({ name: format, paths }: ExportFormat, stages: readonly PlannedStage[]): void {
  const entries = new Map(
    stages.flatMap((stage) => stage.entries.map((entry) => [entry.name, entry] as const)),
  );
  const namesWhere = (accepts: (count: number) => boolean): string[] =>
    [...entries.values()].filter((entry) => !accepts(entry.paths.length)).map(({ name }) => name);
  if (paths === "none" || paths === "optional") return;
  const lacking = namesWhere((count) => count > 0);
  if (lacking.length > 0)
    throw new GradmixError(
      "config",
      `${format}: each domain needs a path, and there is none for ${listOfNames(lacking)}; add --map NAME=PATH for each, or --map-file`,
    );
  const several = paths === "one" ? namesWhere((count) => count === 1) : [];
  if (several.length > 0)
    throw new GradmixError(
      "config",
      `${format}: takes one path per domain, but there are several for ${listOfNames(several)}`,
    );
}

function unusedPaths({ domains }: Mixture, { name, paths }: ExportFormat): string[] {
  return paths === "none" && domains.some((domain) => domain.paths.length > 0)
    ? [`${name}: it knows domains by name, so the paths are not written`]
    : [];
}

/** Notes on the run's limit on repetitions, for formats that cannot express it. */
function repetitionNotes(
  { stages, tokens, mixture }: Plan,
  { name, repetitions: expressesRepetitions }: ExportFormat,
): string[] {
  const { repetitions, domains } = mixture;
  if (repetitions === null) return [];
  const passes = new Map(domains.map((domain) => [domain.name, 0]));
  stages.forEach(({ start, entries }, s) => {
    const length = (stages[s + 1]?.start ?? tokens) - start;
    for (const entry of entries)
      if (entry.tokens !== null)
        passes.set(entry.name, (passes.get(entry.name) ?? 0) + (entry.weight * length) / entry.tokens);
  });
  // Sampling and rounding exceed the limit a little.
  const over = [...passes].filter(([, count]) => count > repetitions * 1.01).map(([domain]) => domain);
  // The usual limit of `dga` has as many digits as a double.
  const limit = `the run limited the repetitions of a domain to ${plainDecimal(Number(repetitions.toPrecision(4)))}`;
  if (over.length > 0)
    return [
      `${limit}; over ${plainDecimal(tokens)} tokens, and with the same text, these weights repeat these domains more often: ${listOfNames(over)}; give them more text, or find the weights with a run of that length`,
    ];
  return expressesRepetitions
    ? []
    : [
        `${name} cannot express a limit on repetitions; ${limit}, and these weights keep this limit over ${plainDecimal(tokens)} tokens of the same text`,
      ];
}

function sidecarOf(
  { mixture, unit, tokens, context, batch, stages, about }: Plan,
  format: ExportFormat,
): string {
  const { gradmix, run, step, rule, weights } = mixture.source;
  const data = record({
    ...{ gradmix, run, step, rule, weights },
    format: format.name,
    unit,
    about,
    ...{ tokens, context, batch },
    stage_starts: stages.map(({ start }) => Math.round(start)),
  });
  return `${jsonText(data)}\n`;
}
