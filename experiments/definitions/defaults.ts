import type { Experiment, Settings } from "../experiment.ts";
import { ALL_ALIGNED, ALL_TEXT, COUNTED, DEFAULT, FORMER, methods, WITHOUT_PRIOR } from "../methods.ts";
import type { Lookup } from "../results.ts";
import { drawPanels } from "#dist/report/chart.js";
import { ALL_EVENLY } from "../domains.ts";
import { dotsPanel } from "../figures.ts";
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

const compared = {
  uniform: methods.uniform,
  "importance sampling, counts": COUNTED,
  "importance sampling": methods["importance sampling"],
  "importance sampling, limit 8": methods["importance sampling, limit 8"],
  "DGA (default)": DEFAULT,
  "DGA, all text": ALL_TEXT,
  "DGA, all text, all parameters aligned": ALL_ALIGNED,
  "DGA (default), no histogram": WITHOUT_PRIOR,
  "DGA (former default)": FORMER,
} as const;
const rows = Object.keys(compared) as (keyof typeof compared)[];
const own = "DGA (default)";

const fourDomains = ["ethereum-eips", "masc-fiction", "masc-newspaper", "state-of-the-union"];

/** One question: texts, and by which name each stands in its table. */
interface Part {
  readonly title: string;
  readonly columns: Texts;
  readonly rows: readonly (keyof typeof compared)[];
}

const without = (...left: (keyof typeof compared)[]): Part["rows"] =>
  rows.filter((row) => !left.includes(row));

const parts: readonly Part[] = [
  {
    title: "24 domains with all their tokens",
    columns: textsOf({}),
    rows: without("importance sampling, limit 8"),
  },
  {
    ...newTargets,
    rows: without(
      "importance sampling, limit 8",
      "importance sampling, counts",
      "DGA (former default)",
      "DGA, all text, all parameters aligned",
    ),
  },
  {
    title: "Few generic tokens: eight domains of 6,000 tokens, 20,000 tokens of the target",
    columns: textsOf(fewTokens),
    rows: without(
      "DGA (default), no histogram",
      "importance sampling, counts",
      "DGA, all text, all parameters aligned",
    ),
  },
  {
    title: "Few target examples: the first 1,000 tokens of the target, 24 domains",
    columns: textsOf({ targetTokens: 1_000 }, tunedButMath),
    rows: ["importance sampling, counts", "importance sampling", own],
  },
  {
    title: "Few target examples from all over the target: 15 windows of 64 tokens, drawn anew for each seed",
    columns: textsOf({ targetTokens: 1_000, targetDrawn: true }, tunedButMath),
    rows: ["importance sampling, counts", "importance sampling", own],
  },
  {
    title: "Four domains with all their tokens",
    columns: textsOf({ domains: fourDomains }),
    rows: ["uniform", "importance sampling", own],
  },
  {
    title: "A target of all 24 domains in equal parts (640 tokens of each, held out of training)",
    columns: { "all domains": { target: ALL_EVENLY } },
    rows: ["uniform", own],
  },
];

const runsOf = (part: Part, settings: Settings): Run[] =>
  gridOfTexts(part, settings, (row) => ({ method: compared[row] }));

function sectionOf(part: Part, settings: Settings, results: Lookup): string {
  const losses = observe(runsOf(part, settings), results, ({ loss }) => loss);
  return lossSection(losses, part, { of: own, subject: "The default" });
}

export const defaults: Experiment = {
  name: "defaults",
  title: "The default compared with its alternatives",
  about:
    'This experiment compares the default, which is what `gradmix train` does without options, with other methods, on several divisions of the text. All methods train on equal tokens (240 steps, 245,760 tokens). "Limit 8" means that no domain is read more than 8 times. "Counts" is importance sampling with a simpler histogram: each window of the target counts for the domain whose bigram model gives it the highest likelihood. The other histograms are those of the library, from which the default also starts. The former default steps on cosines of batches of every domain, from uniform weights.',
  cells: (settings) => parts.flatMap((part) => runsOf(part, settings)).map(({ cell }) => cell),
  report: (settings, results) => ({
    markdown: parts.map((part) => sectionOf(part, settings, results)).join("\n\n"),
    figures: [
      {
        name: "defaults",
        caption: "Final loss on each target, by method: with all tokens, and with few",
        svg: drawPanels(
          [parts[0], parts[2]].map((part) =>
            dotsPanel(
              observe(runsOf(part, settings), results, ({ loss }) => loss).filter(
                // It would stretch the axis until nothing else could be told apart.
                ({ row }) => part !== parts[2] || row !== "importance sampling",
              ),
              { rows: part.rows, columns: Object.keys(part.columns) },
              { title: part.title.split(":")[0], xLabel: "target", yLabel: "loss, nats per token" },
            ),
          ),
        ),
      },
    ],
  }),
};
