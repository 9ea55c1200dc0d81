/** Writes the report of the results: figures as SVG, and the generated part of docs/evidence.md. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import prettier from "prettier";
import { GradmixError } from "gradmix";
import { distinct, estimatedSeconds } from "./cell.ts";
import { experiments } from "./definitions/index.ts";
import { type Experiment, type Figure, type Section, type Settings, usual } from "./experiment.ts";
import { type Line, lookupIn } from "./results.ts";

const BEGIN = "<!-- experiments: begin. `npm run experiments -- report` writes what follows. -->";
const END = "<!-- experiments: end -->";

export interface Report {
  /** The whole of docs/evidence.md. */
  readonly document: string;
  readonly figures: readonly Figure[];
}

/** Returns the document with a new generated part. Equal results give equal text. */
export async function reportOf(lines: readonly Line[], document: string): Promise<Report> {
  const [from, to] = [document.indexOf(BEGIN), document.indexOf(END)];
  if (from < 0 || to < from)
    throw new GradmixError(
      "data",
      `docs/evidence.md: the lines ${BEGIN} and ${END} are missing; add them, to mark the part to write`,
    );
  const sections = experiments.map((experiment) => sectionOf(experiment, lines));
  const text = [
    document.slice(0, from) + BEGIN,
    ...sections.map(({ markdown }) => markdown),
    document.slice(to),
  ].join("\n\n");
  return {
    document: await prettier.format(text, { parser: "markdown", printWidth: 110 }),
    figures: sections.flatMap(({ figures }) => figures),
  };
}

/** Returns the settings with the largest number of seeds for which a cell has a result. */
function settingsOf(experiment: Experiment, lines: readonly Line[]): Settings {
  const results = lookupIn(lines);
  const most = Math.max(usual.seeds, ...lines.map(({ cell }) => cell.seed));
  const has = (seeds: number): boolean =>
    experiment
      .cells({ ...usual, seeds }, results)
      .some((cell) => cell.seed === seeds && results(cell) !== undefined);
  let seeds = most;
  while (seeds > usual.seeds && !has(seeds)) seeds--;
  return { ...usual, seeds };
}

/** Returns the section of one experiment, with its heading. */
export function sectionOf(experiment: Experiment, lines: readonly Line[]): Section {
  const results = lookupIn(lines);
  const settings = settingsOf(experiment, lines);
  const cells = distinct(experiment.cells(settings, results));
  const done = cells.filter((cell) => results(cell) !== undefined).length;
  const { name, title, about } = experiment;
  const head = [
    `## ${title}`,
    about,
    `\`npm run experiments -- ${name}\`, about ${minutesOf(experiment)} minutes on two cores.`,
  ];
  if (done === 0) return { markdown: [...head, "It has not been run yet."].join("\n\n"), figures: [] };
  const { markdown, figures } = experiment.report(settings, results);
  const state = done < cells.length ? [`So far ${done} of ${cells.length} runs are done.`] : [];
  const images = figures.map((figure) => `![${figure.caption}](evidence/${figure.name}.svg)`);
  return { markdown: [...head, ...state, markdown, ...images].join("\n\n"), figures };
}

/** Returns the minutes that an experiment takes at the usual settings on two processes, if no other experiment has run any of its cells. */
export function minutesOf(experiment: Experiment, settings: Settings = usual): number {
  const cells = experiment.planned?.(settings) ?? experiment.cells(settings, () => undefined);
  const seconds = distinct(cells).reduce((sum, cell) => sum + estimatedSeconds(cell), 0);
  return Math.ceil(seconds / 2 / 60);
}

/** Writes the report into `docs`. */
export async function writeReport(lines: readonly Line[], docs: string): Promise<Report> {
  const file = join(docs, "evidence.md");
  const report = await reportOf(lines, readFileSync(file, "utf8"));
  mkdirSync(join(docs, "evidence"), { recursive: true });
  for (const { name, svg } of report.figures) writeFileSync(join(docs, "evidence", `${name}.svg`), svg);
  writeFileSync(file, report.document);
  return report;
}
