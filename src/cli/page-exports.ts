/** The mixture of a run in the formats of other trainers, for its page. */
import { statSync } from "node:fs";
import { join } from "node:path";
import { GradmixError } from "../errors.ts";
import { exportFormats, exportMixture, mixtureOfRun, recommendedWeights } from "../export/index.ts";
import type { ExportedText } from "../report/page-data.ts";
import { readRunRecord, type RunRecord } from "../runs/record.ts";

/** Largest number of characters of all formats and runs on a page. */
const MOST_CHARACTERS = 400_000;
/** The formats need the whole run in memory. If the metrics are longer than this, the page contains none, and `gradmix export` remains. */
const MOST_BYTES = 2 ** 26;

/**
 * Exports for a page with this many runs. Formats that do not fit in, or that cannot express the mixture, are left out; `gradmix export` gives
 * the reason.
 */
export function pageExports(runs: number): (folder: string) => readonly ExportedText[] {
  return (folder) => {
    // A run that has not finished a step may have no such file yet.
    const size = statSync(join(folder, "metrics.jsonl"), { throwIfNoEntry: false })?.size ?? 0;
    if (size > MOST_BYTES) return [];
    const record = readRunRecord(folder);
    if (record.weights === null || record.steps.length === 0) return [];
    const all = [...exportFormats.keys()].flatMap((name) => {
      const text = textOf(record, name);
      return text === null ? [] : [{ name, text }];
    });
    // Short formats come first, so that as many as possible fit in.
    let left = MOST_CHARACTERS / runs;
    const kept = new Set(
      [...all]
        .sort((one, other) => one.text.length - other.text.length)
        .filter(({ text }) => (left -= text.length) >= 0),
    );
    return all.filter((one) => kept.has(one));
  };
}

/** The text of a format, with the name above each file if there are several; null if the format cannot express the mixture. */
function textOf(record: RunRecord, format: string): string | null {
  const needsPaths = exportFormats.get(format)?.paths !== "none";
  const names = [...record.facts.domains.keys()];
  const paths = new Map(needsPaths ? names.map((name) => [name, [`PATH/OF/${name}`]]) : []);
  try {
    const { mixture } = mixtureOfRun(record, { weights: recommendedWeights, stages: null, paths });
    const { files } = exportMixture(mixture, { format });
    return files.length === 1
      ? files[0]!.text
      : files.map(({ name, text }) => `==> ${name} <==\n${text}`).join("\n");
  } catch (error) {
    if (error instanceof GradmixError) return null;
    throw error;
  }
}
