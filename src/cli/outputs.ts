/**
 * Files that a command writes under a name that the user gave. An existing file is replaced, except one that the same command reads, and one without
 * which a run, a comparison, prepared text or clusters could not be used any more.
 */
import { basename, dirname, join } from "node:path";
import { listFiles } from "../data/files.ts";
import { fileLayer } from "./config.ts";
import type { Inputs } from "./inputs.ts";
import { fileLockPath, isLockName } from "./lock.ts";
import { realPath } from "./real-path.ts";
import { configError, isFile } from "./values.ts";
import { protectedNames } from "./run-names.ts";

/** The flag that names an output, and its path. */
export type NamedOutput = readonly [flag: string, path: string];

/**
 * Throws `config`, naming the flag, for an output that would replace another output, one of the files that the command `reads`, the lock of an output that is
 * `locked`, or a file of a run.
 */
export function checkOutputs(
  outputs: readonly NamedOutput[],
  reads: Iterable<string>,
  locked: readonly NamedOutput[] = [],
): void {
  const taken = new Map<string, string>();
  for (const path of reads) taken.set(realPath(path), "the command reads this file");
  for (const [flag, path] of locked) taken.set(fileLockPath(path), `it is the lock of ${flag}`);
  for (const [flag, path] of outputs) {
    if (path === "-")
      throw configError(`${flag}: - is not the standard output here; name a file (./- for one called "-")`);
    const place = realPath(path);
    const why = taken.get(place) ?? ownerOf(place);
    if (why !== null)
      throw configError(`${flag}: ${path} would be replaced, but ${why}; choose another file`);
    taken.set(place, `${flag} writes it too`);
  }
}

/** The values among arguments that are existing files, and so are read. */
export function filesAmong(values: Iterable<unknown>): string[] {
  return [...values].flat().filter((value): value is string => typeof value === "string" && isFile(value));
}

/** The existing files that the configurations of these runs name: their text, tokenizer, weights and so on. Relative paths are those of the current folder. */
export async function filesReadBy(runs: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const run of runs) {
    const file = join(run, "config.json");
    if (!isFile(file)) continue;
    const { values } = fileLayer(file);
    found.push(...filesAmong([...values.values()].flatMap(textsOf)));
    for (const key of ["data.domains", "data.domainsFrom", "data.target", "data.targets"])
      for (const pattern of textsOf(values.get(key)))
        // Text that has been moved since the run cannot be replaced.
        found.push(...(await listFiles([pattern], { skipUnreadable: true }).catch(() => [])));
  }
  return found;
}

/** The texts in a value of a configuration. */
function textsOf(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.flatMap(textsOf);
  return value instanceof Map ? [...value.values()].flatMap(textsOf) : [];
}

/** All files of the inputs. */
export function filesOf({ domains, mixed, target, targets }: Inputs): string[] {
  return [
    ...[...domains.values()].flat(),
    ...(mixed?.files ?? []),
    ...target,
    ...[...targets.values()].flat(),
  ];
}

/** Pages and tables that are made again from the other files. */
const remade: ReadonlySet<string> = new Set(["report.html", "metrics.csv"]);

/** Whether a file is the page of the run in whose folder it is. */
export function isPageOfRun(path: string): boolean {
  const place = realPath(path);
  return basename(place) === "report.html" && isFile(place) && protectedNames(dirname(place)).size > 0;
}

/**
 * Says which folder that gradmix wrote a file belongs to: its own, or the one above that (as for model/config.json of a run). null if it belongs to
 * none.
 */
function ownerOf(place: string): string | null {
  let name = basename(place);
  let folder = dirname(place);
  for (let level = 0; level < 2; level++) {
    const own = protectedNames(folder);
    if (own.size > 0 && (isLockName(name) || (own.has(name) && !remade.has(name))))
      return `it is a part of what gradmix wrote in ${folder}`;
    name = basename(folder);
    folder = dirname(folder);
  }
  return null;
}
