import { drawPanels } from "#dist/report/chart.js";
import type { Cell, Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { differencesPanel } from "../figures.ts";
import { ALL_TEXT, DEFAULT, methods } from "../methods.ts";
import type { Lookup } from "../results.ts";
import {
  fewTokens,
  gridOfTexts,
  lossSection,
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

const lossesOf = (question: Question, settings: Settings, results: Lookup) =>
  observe(runsOf(question, settings), results, ({ loss }) => loss);

export const parts: Experiment = {
  name: "parts",
  title: "Parts of domains by likeness",
  about: `This experiment shows what is gained if each domain is divided into ${PARTS} parts by how much its documents resemble the target, as \`gradmix divide\` does. The parts are the domains of the run. The runs on parts, and those of all text, select no windows; the default does.`,
  cells: (settings) => questions.flatMap((question) => runsOf(question, settings)).map(({ cell }) => cell),
  report: (settings, results) => ({
    markdown: questions
      .map((question) =>
        lossSection(lossesOf(question, settings, results), question, { of: own, subject: "DGA on parts" }),
      )
      .join("\n\n"),
    figures: [
      {
        name: "parts",
        caption: "Loss on each target minus that of importance sampling on the domains",
        svg: drawPanels([
          differencesPanel(lossesOf(questions[0], settings, results), questions[0], "importance sampling"),
        ]),
      },
    ],
  }),
};
