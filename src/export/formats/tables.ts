/** Plain tables: CSV, JSON, and the two files of Olmix. */
import { GradmixError } from "../../errors.ts";
import { plainDecimal } from "../decimals.ts";
import type { Entry, ExportFormat, Plan } from "../format.ts";
import { csvText } from "../../csv.ts";
import { type Data, decimal } from "../text.ts";
import { listOfNames, json as jsonFile, record, steady } from "./shared.ts";

/** Column names that olmix/fit/loaders.py does not read as domains. */
const olmixOwn = /^(?:run|run_id|name|index|Unnamed.*)$/;

/** allenai/olmix olmix/fit/loaders.py, load_from_csv (March 2026). */
const olmix: ExportFormat = steady({
  name: "olmix",
  title: "Olmix: ratios.csv and metrics.csv, a row for the run",
  unit: "tokens",
  paths: "none",
  sidecar: true,
  write({ entries }, { mixture: { source, metrics } }) {
    const bad = [...entries.map(({ name }) => name), ...metrics.keys()].filter((name) => olmixOwn.test(name));
    if (bad.length > 0)
      throw new GradmixError(
        "config",
        `olmix: it reserves columns with these names: ${listOfNames(bad)}; rename the domains`,
      );
    if (metrics.size === 0)
      throw new GradmixError(
        "config",
        "olmix: it fits weights to losses, but the run has no evaluations, so no metrics are written",
      );
    const about = [source.run, source.run, "0"];
    const ratios = [
      ["run", "name", "index", ...entries.map(({ name }) => name)],
      [...about, ...entries.map(({ share }) => share)],
    ];
    const measured = [
      ["run", "name", "index", ...metrics.keys()],
      [...about, ...Array.from(metrics.values(), (value) => plainDecimal(value))],
    ];
    return {
      files: [
        { name: "ratios.csv", text: csvText(ratios) },
        { name: "metrics.csv", text: csvText(measured) },
      ],
      notes: [
        "olmix: a fit needs the rows of many runs: append the rows of other runs, with equal column names, and with 0 if a run leaves out a domain",
        ...(source.weights === "final"
          ? ["olmix: the losses are of the averaged weights, not of the final ones that are written"]
          : []),
      ],
    };
  },
});

function epochs({ tokens, weight }: Entry, length: number): string | null {
  return tokens === null || weight === 0 ? null : plainDecimal((weight * length) / tokens);
}

/** Tokens of each stage. */
function lengths({ stages, tokens }: Plan): number[] {
  return stages.map(({ start }, i) => (stages[i + 1]?.start ?? tokens) - start);
}

const csv: ExportFormat = {
  name: "csv",
  title: "a table: a line for each domain (and stage) with its weight, tokens and epochs",
  unit: "tokens",
  stages: true,
  stageStarts: "token",
  paths: "optional",
  repetitions: false,
  sidecar: true,
  write(plan) {
    const long = lengths(plan);
    const rows = plan.stages.flatMap(({ start, entries }, i) =>
      entries.map((entry) => [
        String(i + 1),
        String(Math.round(start)),
        entry.name,
        entry.share,
        entry.tokens === null ? "" : String(entry.tokens),
        epochs(entry, long[i]!) ?? "",
        entry.paths.join(" "),
      ]),
    );
    const header = ["stage", "start_token", "domain", "weight", "tokens", "epochs", "path"];
    const unclear = plan.mixture.domains.filter(
      ({ paths }) => paths.length > 1 && paths.some((path) => /\s/.test(path)),
    );
    return {
      files: [{ name: "mixture.csv", text: csvText([header, ...rows]) }],
      notes:
        unclear.length === 0
          ? []
          : [
              `csv: paths of a domain are separated by spaces, and those of ${listOfNames(unclear.map(({ name }) => name))} contain some; the format json keeps them apart`,
            ],
    };
  },
};

const json: ExportFormat = {
  name: "json",
  title: "JSON: everything that is known of the mixture, by name",
  unit: "tokens",
  stages: true,
  stageStarts: "token",
  paths: "optional",
  repetitions: true,
  sidecar: false,
  write(plan) {
    const { source, repetitions } = plan.mixture;
    const long = lengths(plan);
    const stages: readonly Data[] = plan.stages.map(({ start, entries }, i) =>
      record({
        start: Math.round(start),
        domains: new Map(
          entries.map((entry) => {
            const passes = epochs(entry, long[i]!);
            return [
              entry.name,
              record({
                weight: decimal(entry.share),
                tokens: entry.tokens,
                epochs: passes === null ? null : decimal(passes),
                ...(entry.paths.length === 0 ? {} : { paths: entry.paths }),
              }),
            ];
          }),
        ),
      }),
    );
    const { gradmix, run, step, rule, weights } = source;
    const data = record({
      ...{ gradmix, run, step, rule, weights },
      tokens: plan.tokens,
      repetitions: repetitions === null ? null : decimal(plainDecimal(repetitions)),
      stages,
    });
    return jsonFile(data);
  },
};

export const tableFormats: readonly ExportFormat[] = [olmix, csv, json];
