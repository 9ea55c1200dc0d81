/** What an experiment is. */
import type { Cell } from "./cell.ts";
import type { Lookup } from "./results.ts";

export interface Settings {
  /** Number of seeds of each kind of run: 1, 2, …. */
  readonly seeds: number;
  /** Steps of a run, in place of the experiment's own; for trials. */
  readonly steps: number | null;
}

export interface Figure {
  /** Name of its file in docs/evidence, without the ending. */
  readonly name: string;
  /** The text for readers who cannot see the figure. */
  readonly caption: string;
  readonly svg: string;
}

export interface Section {
  /** Paragraphs and tables. */
  readonly markdown: string;
  readonly figures: readonly Figure[];
}

export interface Experiment {
  /** The name on the command line. */
  readonly name: string;
  readonly title: string;
  /** The question and the method: the first paragraph of its section. */
  readonly about: string;
  /** Returns its runs. Runs that depend on the results of others are included once those results exist. */
  cells(settings: Settings, results: Lookup): Cell[];
  /** Returns cells that take as long as all runs, if `cells` without results does not. */
  planned?(settings: Settings): Cell[];
  /** Returns the section on the results that exist. */
  report(settings: Settings, results: Lookup): Section;
}

export const usual: Settings = { seeds: 3, steps: null };
