/** What several formats share. */
import { GradmixError } from "../../errors.ts";
import { show } from "../../options.ts";
import type { Entry, ExportFormat, FormatOutput, Plan, PlannedStage } from "../format.ts";
import { comment, type Data, decimal, jsonText, yamlText } from "../text.ts";

/** A format whose weights hold for the whole run, with the function that writes its one stage. `repetitions` and `sidecar` default to false. */
export interface SteadyFormat
  extends
    Omit<ExportFormat, "stages" | "stageStarts" | "repetitions" | "sidecar" | "write">,
    Partial<Pick<ExportFormat, "repetitions" | "sidecar">> {
  /** Writes the stage. Throws `config` for a mixture that the trainer would misread. */
  write(stage: PlannedStage, plan: Plan): FormatOutput;
}

export function steady({ write, ...format }: SteadyFormat): ExportFormat {
  return {
    repetitions: false,
    sidecar: false,
    ...format,
    stages: false,
    stageStarts: "token",
    write: (plan) => write(plan.stages[0], plan),
  };
}

/** Shares by domain name. */
export function sharesOf({ entries }: PlannedStage): ReadonlyMap<string, Data> {
  return new Map(entries.map(({ name, share }) => [name, decimal(share)]));
}

export function listOf(entries: readonly Entry[]): readonly Data[] {
  return entries.map(({ share }) => decimal(share));
}

/** An object that keeps the order of its members. */
export function record(members: Readonly<Record<string, Data>>): ReadonlyMap<string, Data> {
  return new Map(Object.entries(members));
}

/** Output of one YAML file. */
export function yaml(name: string, plan: Plan, data: Data, notes: readonly string[] = []): FormatOutput {
  return { files: [{ name, text: comment(plan.about) + yamlText(data) }], notes };
}

/** Output of one JSON file, which has no comments. */
export function json(data: Data, notes: readonly string[] = []): FormatOutput {
  return { files: [{ name: "mixture.json", text: `${jsonText(data)}\n` }], notes };
}

/** The one path of a domain, for formats that need it. */
export function pathOf({ name, paths }: Entry): string {
  const [path] = paths;
  if (path === undefined) throw new GradmixError("config", `domain ${show(name)} has no path`);
  return path;
}

/** The characters that Python's `str.split` and `str.strip` treat as space, and a few more. */
export const pythonSpace: RegExp = /[\s\u001C-\u001F\u0085]/;

/** Whether `str.strip` would change the text. */
export function isStripped(text: string): boolean {
  return pythonSpace.test(text.at(0) ?? "") || pythonSpace.test(text.at(-1) ?? "");
}

/** Throws `config` if the trainer would strip a path and so look elsewhere. */
export function checkStripped(format: string, entries: readonly Entry[]): void {
  const bad = entries.filter(({ paths }) => paths.some(isStripped)).map(({ name }) => name);
  if (bad.length > 0)
    throw new GradmixError(
      "config",
      `${format}: it strips spaces from both ends of a path, and the paths of ${listOfNames(bad)} begin or end with spaces; rename them`,
    );
}

export interface PlacedStage {
  /** Start in the format's own unit. */
  readonly start: number;
  readonly stage: PlannedStage;
}

/** Places stages at whole numbers of the format's own unit. Stages shorter than one unit are left out, with a note. */
export function placeStages(
  { stages, tokens }: Plan,
  perUnit: number,
  unitName: string,
): { placed: readonly PlacedStage[]; notes: readonly string[] } {
  const end = Math.max(1, Math.floor(tokens / perUnit));
  const starts = stages.map(({ start }) => Math.round(start / perUnit));
  const placed = stages.flatMap((stage, i) =>
    starts[i]! < (starts[i + 1] ?? end) ? [{ start: starts[i]!, stage }] : [],
  );
  const lost = stages.length - placed.length;
  return {
    placed,
    notes:
      lost === 0
        ? []
        : [
            `${lost} of ${stages.length} stages ${lost === 1 ? "is" : "are"} shorter than ${unitName} and left out; a longer run (--scale-to) has room for ${lost === 1 ? "it" : "them"}`,
          ],
  };
}

export function listOfNames(names: readonly string[], most = 8): string {
  const shown = names.slice(0, most).map((name) => show(name));
  const rest = names.length - shown.length;
  return shown.join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}
