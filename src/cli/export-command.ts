/** `gradmix export`: writes the mixture of a run in the formats of other trainers. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { csvFields } from "../csv.ts";
import { onOneLine } from "../errors.ts";
import { formatJson, type Json } from "../json.ts";
import { writeFilesAtomic } from "../node/files.ts";
import type { Output } from "./output.ts";
import { checkOutputs, filesAmong, filesReadBy } from "./outputs.ts";
import {
  checkNumber,
  checkChoice,
  checkGlobs,
  didYouMean,
  fromArguments,
  integerOf,
  membersOf,
  readInput,
  readText,
  show,
  configError,
  flagOf,
} from "./values.ts";

/** The given values as text; null if a value was not given. */
export interface ExportArguments {
  /** Folder of the run. */
  readonly run: string | null;
  readonly to: string | null;
  readonly out: string | null;
  readonly weights: string | null;
  readonly stages: string | null;
  readonly scaleTo: string | null;
  readonly context: string | null;
  readonly batch: string | null;
  readonly rows: string | null;
  readonly floor: string | null;
  /** Entries of the form NAME=PATH. */
  readonly map: readonly string[];
  readonly mapFile: string | null;
}

/** Runs the command and returns the exit code. Throws `config`, `data` and `io`; in that case nothing was written. */
export async function exportRun(
  given: ExportArguments,
  { out, err }: { out: Output; err: Output },
): Promise<number> {
  // Loaded here, because `--help` does not need this code.
  const [
    { exportFormats, exportMixture, affectsFiles },
    { mixtureOfRun },
    { readRunRecord },
    { recommendedWeights },
  ] = await Promise.all([
    import("../export/export.ts"),
    import("../export/of-run.ts"),
    import("../runs/record.ts"),
    import("../export/mixture.ts"),
  ]);
  if (given.to === null) {
    const flag = givenFlags(given)[0];
    if (flag !== undefined)
      throw configError(
        `${flag}: the format is missing; add --to FORMAT (gradmix export without options lists the formats)`,
      );
    const width = Math.max(...Array.from(exportFormats.keys(), (name) => name.length));
    for (const { name, title } of exportFormats.values()) out.write(`${name.padEnd(width)}  ${title}\n`);
    err.write(`gradmix export RUN --to FORMAT writes one of these\n`);
    return 0;
  }
  if (given.run === null) throw configError("gradmix export: name the folder of a run");
  if (given.weights !== null && given.stages !== null)
    throw configError("--weights: --stages writes the weights of each stage; leave out one of the two");
  const stages = given.stages === null ? null : positiveInteger(given.stages, "--stages");
  const kind = checkChoice(["final", "averaged"], given.weights ?? recommendedWeights, "--weights");
  const context = given.context === null ? undefined : positiveInteger(given.context, "--context");
  const batch = given.batch === null ? undefined : positiveInteger(given.batch, "--batch");
  const record = readRunRecord(given.run);
  const { facts } = record;
  const paths = readPaths(given, [...facts.domains.keys()]);
  const { mixture, notes } = mixtureOfRun(record, { weights: kind, stages, paths });
  const stepTokens = (batch ?? facts.batch) * (context ?? facts.context);
  const format = exportFormats.get(given.to);
  // An option that only `--scale-to` in steps uses is not passed on, since the format would refuse it.
  const isForFiles = (option: "context" | "batch"): boolean =>
    !inSteps(given.scaleTo) || format === undefined || affectsFiles(option, mixture, format);
  checkSideOptions(given, (option) => {
    // Without `--out`, the side file is not written.
    const printed = format?.sidecar === true && given.out === null && !inSteps(given.scaleTo);
    return printed && !affectsFiles(option, mixture, { ...format, sidecar: false });
  });
  const exported = exportMixture(mixture, {
    format: given.to,
    ...(given.scaleTo === null ? {} : { scaleTo: lengthOf(given.scaleTo, stepTokens) }),
    ...(context === undefined || !isForFiles("context") ? {} : { context }),
    ...(batch === undefined || !isForFiles("batch") ? {} : { batch }),
    ...(given.rows === null ? {} : { rows: checkChoice(["documents", "windows"], given.rows, "--rows") }),
    ...(given.floor === null ? {} : { floor: numberOf(given.floor, "--floor") }),
  });
  const written = place(given, exported.files, exported.sidecar);
  checkOutputs(
    written.map(({ path }) => ["--out", path] as const),
    [...filesAmong([given.mapFile]), ...(await filesReadBy([given.run]))],
  );
  writeFilesAtomic(written.map(({ path, text }) => ({ path, parts: [new TextEncoder().encode(text)] })));
  for (const line of [...notes, ...exported.notes]) err.write(`${line}\n`);
  if (given.out === null) await out.deliver(exported.files[0]!.text);
  else {
    for (const { path } of written) err.write(`written: ${onOneLine(path)}\n`);
    const stale = staleStages(written.map(({ path }) => path));
    if (stale.length > 0)
      err.write(`not of this export, but of one with other stages: ${stale.join(", ")}; delete them\n`);
  }
  await out.flush();
  await err.flush();
  return 0;
}

/** Throws `config` for an option that would only change a side file which is not written. */
function checkSideOptions(
  given: Pick<ExportArguments, "to" | "context" | "batch">,
  isIdle: (option: "context" | "batch") => boolean,
): void {
  const idle = (["context", "batch"] as const).find((option) => given[option] !== null && isIdle(option));
  if (idle !== undefined)
    throw configError(
      `--${idle}: of ${given.to ?? ""}, only the side file that --out writes holds it; add --out FILE, or leave it out`,
    );
}

/** The flags that were given. */
function givenFlags({ run: _run, ...flags }: ExportArguments): string[] {
  return Object.entries(flags).flatMap(([name, value]: [string, string | readonly string[] | null]) =>
    value === null || value.length === 0 ? [] : [flagOf(name)],
  );
}

/** Files beside the written ones that an earlier export with another number of stages has left. */
function staleStages(written: readonly string[]): string[] {
  const plain = (path: string): string => path.replace(/\.stage-\d+(?=\.\w+$)/, "");
  const [now, forms] = [new Set(written), new Set(written.map(plain))];
  return [...new Set(written.map((path) => dirname(path)))]
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .filter((path) => !now.has(path) && forms.has(plain(path)))
    .sort();
}

interface Written {
  readonly path: string;
  readonly text: string;
}

/** Where the files are written: `--out` names the file if there is one, and otherwise the folder. Without `--out`, a single file is printed. */
function place(
  { out, to }: ExportArguments,
  files: readonly { readonly name: string; readonly text: string }[],
  sidecar: string | null,
): readonly Written[] {
  if (out === null) {
    if (files.length > 1)
      throw configError(
        `${to ?? ""}: the format has ${files.length} files (${files.map(({ name }) => name).join(", ")}); name a folder for them: --out DIR`,
      );
    return [];
  }
  const isFolder = existsSync(out) && statSync(out).isDirectory();
  if (files.length > 1 && existsSync(out) && !isFolder)
    throw configError(
      `--out: ${show(out)} is a file, but the format ${to ?? ""} has ${files.length} files; name a folder`,
    );
  const folder = isFolder || files.length > 1 || /[/\\]$/.test(out);
  const placed = files.map(({ name, text }) => ({ path: folder ? join(out, name) : out, text }));
  if (sidecar === null) return placed;
  const { path } = placed[0]!;
  const name = files.length > 1 ? "mixture" : basename(path);
  return [...placed, { path: join(dirname(path), `${name}.gradmix.json`), text: sidecar }];
}

function positiveInteger(text: string, label: string): number {
  return integerOf(text, label, 1, Number.MAX_SAFE_INTEGER);
}

function numberOf(text: string, label: string): number {
  const kind = { type: "number", min: 0, max: 1 } as const;
  return checkNumber(kind, fromArguments(kind, [text], label), label);
}

const multiples: Readonly<Record<string, number>> = { "": 1, k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12 };

const inSteps = (scaleTo: string | null): boolean => scaleTo !== null && /steps?\s*$/i.test(scaleTo);

/** Parses `--scale-to`: tokens, such as 300B, or steps of `stepTokens` tokens, such as 20000steps. */
function lengthOf(text: string, stepTokens: number): number {
  const [, number = "", unit = ""] = /^(\d+(?:\.\d+)?)\s*(steps?|[kmbgt]?)$/i.exec(text.trim()) ?? [];
  const [whole, fraction = ""] = number
    .replace(/\.?0*$/, (end) => (number.includes(".") ? "" : end))
    .split(".");
  const of = inSteps(unit) ? 1 : (multiples[unit.toLowerCase()] ?? NaN);
  // Half a token, or half a step, is not a length.
  const counted = 10 ** fraction.length > of ? NaN : Math.round(Number(`${whole ?? ""}.${fraction}`) * of);
  const tokens = counted * (inSteps(unit) ? stepTokens : 1);
  if (!(tokens > 0 && Number.isFinite(tokens)))
    throw configError(
      `--scale-to: ${show(text)} is not a whole number of tokens such as 5000000 or 300B, or of steps such as 20000steps`,
    );
  return tokens;
}

/** Paths by domain: those of `--map-file`, with those of `--map` in their place. */
function readPaths(
  { map, mapFile }: ExportArguments,
  names: readonly string[],
): ReadonlyMap<string, readonly string[]> {
  const paths = new Map<string, readonly string[]>(mapFile === null ? [] : readMapFile(mapFile));
  const given = fromArguments({ type: "domains" }, map, "--map") as ReadonlyMap<string, readonly string[]>;
  for (const [name, list] of given) paths.set(name, list);
  for (const name of paths.keys())
    if (!names.includes(name))
      throw configError(
        `${given.has(name) ? "--map" : `--map-file ${mapFile ?? ""}`}: the run has no domain ${show(name)}${didYouMean(name, names)}`,
      );
  return paths;
}

/** Reads JSON, {"name": "path"} or {"name": ["path", …]}, or CSV with lines name,path. */
function readMapFile(path: string): [string, readonly string[]][] {
  const label = `--map-file ${path}`;
  if (!/\.csv$/i.test(path)) {
    const json: Json = readInput(path, label);
    const members = membersOf(json);
    if (members === null)
      throw configError(
        `${label}: ${formatJson(json).slice(0, 60)} is not an object with a path for each domain`,
      );
    return members.map(([name, value]) => [name.normalize(), checkGlobs(value, `${label}: ${show(name)}`)]);
  }
  const found = new Map<string, string[]>();
  readText(path, label)
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .forEach((line, i) => {
      if (line.trim() === "" || (i === 0 && /^(?:name|domain)\s*,\s*path\s*$/i.test(line.trim()))) return;
      const [name, place, ...more] = csvFields(line) ?? [];
      if (name === undefined || name === "" || place === undefined || place === "" || more.length > 0)
        throw configError(`${label}, line ${i + 1}: ${show(line)} is not NAME,PATH`);
      found.set(name.normalize(), [...(found.get(name.normalize()) ?? []), place]);
    });
  return [...found];
}
