import { drawPanels, type Panel } from "#dist/report/chart.js";
import type { Cell, Method } from "../cell.ts";
import type { Experiment, Settings } from "../experiment.ts";
import { dotsPanel } from "../figures.ts";
import { DEFAULT, methods } from "../methods.ts";
import type { Lookup } from "../results.ts";
import { differencesTable, meansTable, paired } from "../tables.ts";
import {
  allDomains,
  cellOf,
  eightDomains,
  observe,
  type Run,
  seedsOf,
  targets,
  tunedTargets,
} from "./common.ts";

type Text = Partial<Cell["text"]>;

const PARTS = 4;
const documents: Text = { cut: { by: "documents by likeness", count: PARTS } };
const windows: Text = { cut: { by: "windows by likeness", count: PARTS } };

interface Compared {
  readonly method: Method;
  readonly text: Text;
}
const compared = {
  "importance sampling": { method: methods["importance sampling"], text: {} },
  "importance sampling, default limit": { method: methods["importance sampling, default limit"], text: {} },
  "DGA (default)": { method: DEFAULT, text: {} },
  "importance sampling, parts": { method: methods["importance sampling, default limit"], text: documents },
  "DGA (default), parts": { method: DEFAULT, text: documents },
  "DGA (default), parts of windows": { method: DEFAULT, text: windows },
} as const satisfies Readonly<Record<string, Compared>>;
type Row = keyof typeof compared;
const own: Row = "DGA (default), parts";

/** One question: texts, by which name each stands in its table, and the rows. */
interface Question {
  readonly title: string;
  readonly columns: Readonly<Record<string, Text & { readonly target: string }>>;
  readonly rows: readonly Row[];
}

const columnsOf = (text: Text, names = tunedTargets): Question["columns"] =>
  Object.fromEntries(names.map((name) => [name, { ...text, target: targets[name] }]));

const questions: readonly Question[] = [
  {
    title: "24 domains with all their tokens",
    columns: columnsOf({}),
    rows: [
      "importance sampling",
      "DGA (default)",
      "importance sampling, parts",
      own,
      "DGA (default), parts of windows",
    ],
  },
  {
    title:
      "New targets and a new tokenizer, on which nothing was tuned: 24 domains, a vocabulary of 512; for the target fiction, the domain fiction is left out",
    columns: {
      technical: { target: targets.technical, vocabulary: 512 },
      fiction: {
        target: "masc-fiction",
        targetTokens: 30_000,
        vocabulary: 512,
        domains: allDomains.filter((name) => name !== "masc-fiction"),
      },
    },
    rows: ["importance sampling", "DGA (default)", own],
  },
  {
    title: "Few target examples: the first 1,000 tokens of the target, 24 domains",
    columns: columnsOf(
      { targetTokens: 1_000 },
      tunedTargets.filter((name) => name !== "math"),
    ),
    rows: ["importance sampling", "DGA (default)", own],
  },
  {
    title: "Few generic tokens: eight domains of 6,000 tokens, 20,000 tokens of the target",
    columns: columnsOf({ domains: eightDomains, cap: 6_000, targetTokens: 20_000 }),
    rows: ["importance sampling, default limit", "DGA (default)", own],
  },
];

function runsOf({ columns, rows }: Question, settings: Settings): Run[] {
  return rows.flatMap((row) =>
    Object.entries(columns).flatMap(([column, text]) =>
      seedsOf(settings).map((seed) => {
        const { method, text: cut } = compared[row];
        const { text: usual, ...cell } = cellOf({ method, target: null, seed }, settings);
        return { row, column, group: column, cell: { ...cell, text: { ...usual, ...text, ...cut } } };
      }),
    ),
  );
}

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
  about: `This experiment shows what is gained if each domain is divided into ${PARTS} parts by how much its documents resemble the target, as \`gradmix divide\` does. The parts are the domains of the run. In the last row of the first table, windows of 64 tokens are divided in place of documents.`,
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
