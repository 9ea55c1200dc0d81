/** What is shown: the data, one selected run, and a unit. Parts of the page show a view. */
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
  /** Replaces the previous content. */
  show(view: View): void;
}

export function runOf({ data, run }: View): RunData {
  return data.runs[run]!;
}

/** A label that identifies a run: its group, and its seed if the group has several runs; its name if that is not enough. */
export function runLabel({ groups, runs }: PageData, index: number): string {
  const { group, seed, name } = runs[index]!;
  const { label, runs: members } = groups[group]!;
  if (members.length === 1) return runs.length === 1 ? name : label;
  const seeds = new Set(members.map((i) => runs[i]!.seed));
  return seeds.size === members.length ? `${label}, seed ${seed}` : `${label}, ${name}`;
}

/** The colour of a name by its index, or that of the others if it has none. */
export function nameColour({ heaviest }: PageData, name: number, mark: "area" | "line"): string {
  return domainColour(theme(), heaviest.indexOf(name), mark);
}

/** The curve in a unit; null if it is unknown. */
export function inUnit(curves: LossCurves, unit: Unit): LossCurves["nats"] | null {
  return unit === "nats" ? curves.nats : curves.bits;
}

/** Row i of a matrix. */
export function rowOf(values: readonly number[], columns: number, i: number): readonly number[] {
  return values.slice(i * columns, (i + 1) * columns);
}
