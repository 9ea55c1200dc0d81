/** What the experiments have in common: text, model, and the runs of a grid. */
import { usualWarmup } from "gradmix/nn";
import type { Cell, Method, Result } from "../cell.ts";
import type { Settings } from "../experiment.ts";
import type { Lookup } from "../results.ts";
import { ALL, differencesTable, meansTable, type Observation } from "../tables.ts";

const masc = [
  ...["blog", "debate-transcript", "email", "essays", "face-to-face", "ficlets", "fiction", "govt-docs"],
  ...["jokes", "journal", "letters", "movie-script", "newspaper", "non-fiction", "spam", "telephone"],
  "twitter",
].map((genre) => `masc-${genre}`);

/** All 24. */
const allDomains = [
  "ethereum-eips",
  "law-german",
  ...masc,
  ...["math-word-problems", "python-peps", "rust-rfcs", "shakespeare", "state-of-the-union"],
];

export const eightDomains = [
  ...["ethereum-eips", "masc-essays", "masc-fiction", "masc-newspaper", "math-word-problems"],
  ...["python-peps", "shakespeare", "state-of-the-union"],
];

/** Targets by the names that they have in tables. */
export const targets = {
  inaugural: "inaugural-addresses",
  math: "math-word-problems-test",
  travel: "masc-travel-guides",
  court: "masc-court-transcript",
  technical: "masc-technical",
} as const;
export type TargetName = keyof typeof targets;

/** The targets on which the default was tuned. */
export const tunedTargets: readonly TargetName[] = ["inaugural", "math", "travel", "court"];

/** Those of them that are tried with few examples too. */
export const tunedButMath: readonly TargetName[] = tunedTargets.filter((name) => name !== "math");

export const STEPS = 240;

/** The cell of a method on a target; by default with the base model, on all text of all domains. */
export function cellOf(
  {
    method,
    target,
    seed,
    ...rest
  }: Pick<Cell, "method" | "seed"> & {
    readonly target: TargetName | null;
    readonly text?: Partial<Cell["text"]>;
    readonly steps?: number;
  } & Partial<Pick<Cell, "before" | "questions" | "probes">>,
  settings: Settings,
): Cell {
  const { text, steps: own = STEPS, ...asked } = rest;
  const steps = settings.steps ?? own;
  return {
    text: {
      vocabulary: 1024,
      domains: allDomains,
      cap: null,
      target: target === null ? null : targets[target],
      targetTokens: null,
      ...text,
    },
    method,
    model: { dim: 96, layers: 3, heads: 4, context: 64 },
    steps,
    batch: 16,
    lr: 0.003,
    warmup: usualWarmup(steps),
    seed,
    ...asked,
  };
}

/** A cell with its place in the tables. */
export interface Run {
  /** What is compared: the method. */
  readonly row: string;
  readonly column: string;
  /** What it is paired within, beside the seed: the target. */
  readonly group: string;
  readonly cell: Cell;
}

export function seedsOf({ seeds }: Settings): number[] {
  return Array.from({ length: seeds }, (_, i) => i + 1);
}

type CellText = Partial<Cell["text"]>;
/** Texts with their targets, by the names that they have in tables. */
export type Texts = Readonly<Record<string, CellText & { readonly target: string }>>;

/** A text with each of several targets. */
export const textsOf = (text: CellText, names: readonly TargetName[] = tunedTargets): Texts =>
  Object.fromEntries(names.map((name) => [name, { ...text, target: targets[name] }]));

/** Few generic tokens. */
export const fewTokens: CellText = { domains: eightDomains, cap: 6_000, targetTokens: 20_000 };

/** Targets, and a tokenizer, on which nothing was tuned. */
export const newTargets: { readonly title: string; readonly columns: Texts } = {
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
};

/** All runs of rows × texts × seeds. A row has a method, and may change the text. */
export const gridOfTexts = <Row extends string>(
  { rows, columns }: { readonly rows: readonly Row[]; readonly columns: Texts },
  settings: Settings,
  make: (row: Row) => { readonly method: Method; readonly text?: CellText },
): Run[] =>
  rows.flatMap((row) =>
    Object.entries(columns).flatMap(([column, text]) =>
      seedsOf(settings).map((seed) => {
        const { method, text: own } = make(row);
        const { text: usual, ...cell } = cellOf({ method, target: null, seed }, settings);
        return { row, column, group: column, cell: { ...cell, text: { ...usual, ...text, ...own } } };
      }),
    ),
  );

/** All runs of rows × columns × targets × seeds; null leaves one out. */
export function gridOf<Row extends string>(
  axes: {
    readonly rows: readonly Row[];
    readonly columns: readonly string[];
    readonly groups: readonly TargetName[];
  },
  settings: Settings,
  make: (row: Row, column: string, group: TargetName, seed: number) => Cell | null,
): Run[] {
  return axes.rows.flatMap((row) =>
    axes.columns.flatMap((column) =>
      axes.groups.flatMap((group) =>
        seedsOf(settings).flatMap((seed) => {
          const cell = make(row, column, group, seed);
          return cell === null ? [] : [{ row, column, group, cell }];
        }),
      ),
    ),
  );
}

/** All runs of rows × targets × seeds, for tables with one column per target. */
export const gridByTarget = <Row extends string>(
  { rows, groups }: { readonly rows: readonly Row[]; readonly groups: readonly TargetName[] },
  settings: Settings,
  make: (row: Row, target: TargetName, seed: number) => Cell | null,
): Run[] =>
  gridOf({ rows, columns: [ALL], groups }, settings, (row, _column, target, seed) =>
    make(row, target, seed),
  ).map((run) => ({ ...run, column: run.group }));

/** A number of each result that is there. */
export function observe(
  runs: readonly Run[],
  results: Lookup,
  value: (result: Result, run: Run) => number | null | undefined,
): Observation[] {
  return runs.flatMap((run) => {
    const result = results(run.cell);
    const found = result === undefined ? null : value(result, run);
    const { row, column, group } = run;
    return typeof found === "number" ? [{ row, column, group, seed: run.cell.seed, value: found }] : [];
  });
}

export const namesOf = (by: Readonly<Record<string, Method>>): string[] => Object.keys(by);

/** The losses of rows on texts as a section: their means, and the differences of the row `of`, whose name in the sentence is `subject`, from the others. */
export function lossSection(
  losses: readonly Observation[],
  question: { readonly title: string; readonly columns: Texts; readonly rows: readonly string[] },
  { of, subject }: { readonly of: string; readonly subject: string },
): string {
  const axes = { rows: question.rows, columns: [...Object.keys(question.columns), ALL] };
  return [
    `**${question.title}.** Loss on held-out text of each target, nats per token:`,
    meansTable(losses, { ...axes, corner: "method" }),
    `${subject} minus each of the others, paired by target and seed; negative is better:`,
    differencesTable(losses, { ...axes, of, corner: "minus" }),
  ].join("\n\n");
}
