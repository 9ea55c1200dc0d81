import { drawPanels, type Panel } from "#dist/report/chart.js";
import type { Cell, Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { ALL_TEXT, DEFAULT, methods } from "../methods.ts";
import type { Lookup } from "../results.ts";
import { differencesTable, meansTable, paired } from "../tables.ts";
import {
  fewTokens,
  gridOfTexts,
  newTargets,
  observe,
  type Run,
  type Texts,
  textsOf,
  tunedButMath,
} from "./common.ts";

const PARTS = 4;
const documents: Partial<Cell["text"]> = { cut: { by: "documents by likeness", count: PARTS } };

interface Compared {
  readonly method: Method;
  readonly text: Partial<Cell["text"]>;
}
const compared = {
  "importance sampling": { method: methods["importance sampling"], text: {} },
  "importance sampling, default limit": { method: methods["importance sampling, default limit"], text: {} },
  "DGA, all text": { method: ALL_TEXT, text: {} },
  "DGA (default)": { method: DEFAULT, text: {} },
  "DGA, parts": { method: ALL_TEXT, text: documents },
} as const satisfies Readonly<Record<string, Compared>>;
type Row = keyof typeof compared;
const own: Row = "DGA, parts";

/** One question: texts, by which name each stands in its table, and the rows. */
interface Question {
  readonly title: string;
  readonly columns: Texts;
  readonly rows: readonly Row[];
}

const questions: readonly Question[] = [
  {
    title: "24 domains with all their tokens",
    columns: textsOf({}),
    rows: ["importance sampling", "DGA, all text", "DGA (default)", own],
  },
  {
    ...newTargets,
    rows: ["importance sampling", "DGA, all text", "DGA (default)", own],
  },
  {
    title: "Few target examples: the first 1,000 tokens of the target, 24 domains",
    columns: textsOf({ targetTokens: 1_000 }, tunedButMath),
    rows: ["importance sampling", "DGA, all text", own],
  },
  {
    title: "Few generic tokens: eight domains of 6,000 tokens, 20,000 tokens of the target",
    columns: textsOf(fewTokens),
    rows: ["importance sampling, default limit", "DGA, all text", own],
  },
];

const runsOf = (question: Question, settings: Settings): Run[] =>
  gridOfTexts(question, settings, (row) => compared[row]);

function sectionOf(question: Question, settings: Settings, results: Lookup): string {
  const losses = observe(runsOf(question, settings), results, ({ loss }) => loss);
  const axes = { rows: question.rows, columns: [...Object.keys(question.columns), "all"] };
  return [
    `**${question.title}.** Loss on held-out text of each target, nats per token:`,
    meansTable(losses, { ...axes, corner: "method" }),
    "DGA on parts minus each of the others, paired by target and seed; negative is better:",
    differencesTable(losses, { ...axes, of: own, corner: "minus" }),
  ].join("\n\n");
}

function differencesPanel(question: Question, settings: Settings, results: Lookup): Panel {
  const losses = observe(runsOf(question, settings), results, ({ loss }) => loss);
  const from: Row = "importance sampling";
  const rows = question.rows.filter((row) => row !== from);
  return dotsPanel(
    rows.flatMap((row) => paired(losses, row, from).map((difference) => ({ ...difference, row }))),
    { rows, columns: Object.keys(question.columns) },
    {
      title: question.title,
      xLabel: "target",
      yLabel: "loss minus that of importance sampling, nats per token",
    },
  );
}

export const parts: Experiment = {
  name: "parts",
  title: "Parts of domains by likeness",
  about: `This experiment shows what is gained if each domain is divided into ${PARTS} parts by how much its documents resemble the target, as \`gradmix divide\` does. The parts are the domains of the run. The runs on parts, and those of all text, select no windows; the default does.`,
  cells: (settings) => questions.flatMap((question) => runsOf(question, settings)).map(({ cell }) => cell),
  report: (settings, results) => ({
    markdown: questions.map((question) => sectionOf(question, settings, results)).join("\n\n"),
    figures: [
      {
        name: "parts",
        caption: "Loss on each target minus that of importance sampling on the domains",
        svg: drawPanels([differencesPanel(questions[0], settings, results)]),
      },
    ],
  }),
};
