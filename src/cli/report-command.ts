/** `gradmix report`: writes an HTML page of runs, and their metrics for other tools. */
import { join, resolve, sep } from "node:path";
import { onOneLine } from "../errors.ts";
import { writeCsv, writeFigures, writeReport } from "../report/index.ts";
import { checkEvents, writeEvents } from "../report/tensorboard.ts";
import { isClusterFolder } from "./cluster-folder.ts";
import { isLocked } from "./lock.ts";
import type { Output } from "./output.ts";
import { checkOutputs, filesReadBy, isPageOfRun } from "./outputs.ts";
import { pageExports } from "./page-exports.ts";
import { configError } from "./values.ts";

export interface ReportArguments {
  /** Folders of the runs. */
  readonly runs: readonly string[];
  /** The file to write; null: report.html, in the folder of the run if there is only one. */
  readonly out: string | null;
  /** Folder for the figures as SVG; null: none are written. */
  readonly svg: string | null;
  /** Folder for event files; null: none are written. */
  readonly tensorboard: string | null;
  /** Whether to write metrics.csv to the folder of each run. */
  readonly csv: boolean;
}

/** Runs the command and returns the exit code. Throws `data` and `io`; invalid runs are refused before anything is written. */
export async function report(
  { runs, out: file, svg, tensorboard, csv }: ReportArguments,
  out: Output,
): Promise<number> {
  const clusters = runs.find(isClusterFolder);
  if (clusters !== undefined)
    throw configError(
      `${clusters} is a folder of clusters, not of a run; open its page instead: ${join(clusters, "clusters.html")}`,
    );
  const path = file ?? (runs.length === 1 ? join(runs[0]!, "report.html") : "report.html");
  if (file === null && runs.length > 1 && isPageOfRun(path))
    throw configError(
      `${path} here is the page of a single run; name another file for the page of these ${runs.length} runs with --out FILE`,
    );
  if (file !== null) checkOutputs([["--out", file]], await filesReadBy(runs));
  const names = namesOf(runs);
  if (tensorboard !== null) runs.forEach((run, i) => checkEvents(run, tensorboard, names[i]!));
  const data = writeReport(runs, path, { isRunning: isLocked, exportsOf: pageExports(runs.length) });
  const written = [
    path,
    ...(svg === null ? [] : writeFigures(data, svg)),
    ...(tensorboard === null ? [] : runs.map((run, i) => writeEvents(run, tensorboard, names[i]))),
    ...(csv ? runs.map((run) => writeCsv(run)) : []),
  ];
  for (const sentence of [...data.summary, ...data.cautions]) out.write(`${sentence}\n`);
  for (const one of written) out.write(`written to ${onOneLine(one)}\n`);
  return 0;
}

/** The last part of each run's path, with as many parts before it as tell the runs apart. Equal paths have equal names. */
function namesOf(runs: readonly string[]): string[] {
  const paths = runs.map((run) => resolve(run).split(sep));
  const end = (path: readonly string[], parts: number): string => path.slice(-parts).join("/");
  return paths.map((path) => {
    let parts = 1;
    const isTaken = (): boolean =>
      paths.some((other) => other !== path && end(other, parts) === end(path, parts));
    while (parts < path.length && isTaken()) parts++;
    return end(path, parts);
  });
}
