/** What an experiment is. */
import type { Cell } from "./cell.ts";
import type { Lookup } from "./results.ts";

export interface Settings {
  /** Runs of each kind, with the seeds 1, 2, …. */
  readonly seeds: number;
  /** Steps of a run, in place of the experiment's own; for trials. */
  readonly steps: number | null;
}

export interface Figure {
  /** Of its file in docs/evidence, without the ending. */
  readonly name: string;
  /** What a reader who does not see it is told. */
  readonly caption: string;
  readonly svg: string;
}

export interface Section {
  /** Paragraphs and tables. */
  readonly markdown: string;
  readonly figures: readonly Figure[];
}

export interface Experiment {
  /** As it is typed. */
  readonly name: string;
  readonly title: string;
  /** What it asks, and how: the first paragraph of its section. */
  readonly about: string;
  /** Its runs. Those that depend on others' results are there once these are. */
  cells(settings: Settings, results: Lookup): Cell[];
  /** As many and as long as those will be, where that is not what `cells` gives before there are results. */
  planned?(settings: Settings): Cell[];
  /** What the results say, as far as they are there. */
  report(settings: Settings, results: Lookup): Section;
}

export const usual: Settings = { seeds: 3, steps: null };
