/** What is looked at: the data, one run of it, and a unit. Parts of the page show a view. */
import type { LossCurves, PageData, RunData } from "../page-data.ts";
import { theme } from "./screen.ts";
import { domainColour } from "./theme.ts";

export interface View {
  readonly data: PageData;
  /** Index of the run whose mixture is shown. */
  readonly run: number;
  readonly unit: Unit;
}

export type Unit = "nats" | "bits";

export const unitNames: Readonly<Record<Unit, string>> = { nats: "nats per token", bits: "bits per byte" };

export interface Part {
  readonly element: HTMLElement;
  /** Takes the place of what was shown. */
  show(view: View): void;
}

export function runOf({ data, run }: View): RunData {
  return data.runs[run]!;
}

/** What tells a run from all others: its group, and its seed where the group has several runs; its name where that is not enough. */
export function runLabel({ groups, runs }: PageData, index: number): string {
  const { group, seed, name } = runs[index]!;
  const { label, runs: members } = groups[group]!;
  if (members.length === 1) return runs.length === 1 ? name : label;
  const seeds = new Set(members.map((i) => runs[i]!.seed));
  return seeds.size === members.length ? `${label}, seed ${seed}` : `${label}, ${name}`;
}

/** The colour of a name by its index; that of the others where it has none. */
export function nameColour({ heaviest }: PageData, name: number, mark: "area" | "line"): string {
  return domainColour(theme(), heaviest.indexOf(name), mark);
}

/** In a unit; null where that is not known. */
export function inUnit(curves: LossCurves, unit: Unit): LossCurves["nats"] | null {
  return unit === "nats" ? curves.nats : curves.bits;
}

/** Row i of a matrix. */
export function rowOf(values: readonly number[], columns: number, i: number): readonly number[] {
  return values.slice(i * columns, (i + 1) * columns);
}
