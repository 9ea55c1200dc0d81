/** The folder of `gradmix prepare` while it is made: what it was begun with, and a line for each job and each shard that is done. After a kill at any moment the next command goes on from there. */
import * as nodeFs from "node:fs";
import { join, resolve } from "node:path";
import type { Tokenizer } from "../data/byte-level.ts";
import { errorCode } from "../errors.ts";
import { ioError, temporaryName, writeAll, writeFileAtomic, type WriteFs } from "../node/files.ts";
import {
  anything,
  count,
  faultOf,
  jsonOrNothing,
  object,
  optional,
  parseOrdered,
  read,
  type Schema,
  string,
} from "../schema.ts";
import { type JobFacts, jobPath } from "./prepare-jobs.ts";
import { formatPlan } from "./prepare-plan.ts";
import { preparedFiles, type SavedPlan, savedPlan, type Shard, shard } from "./prepared-folder.ts";
import { wrong } from "./values.ts";

export interface Work {
  /** Of the jobs that are done, by id. */
  readonly jobs: ReadonlyMap<string, JobFacts>;
  /** Of the labels that are done, by number. */
  readonly shards: ReadonlyMap<number, Shard>;
  jobDone(id: string, facts: JobFacts): void;
  shardDone(label: number, shard: Shard): void;
  close(): void;
}

/** What the folder was begun with; null: it is new. Throws `data` for a plan that is none. */
export function begunWith(folder: string): SavedPlan | null {
  const at = join(folder, preparedFiles.work, preparedFiles.plan);
  if (!nodeFs.existsSync(at)) return null;
  return parseOrdered(savedPlan, nodeFs.readFileSync(at, "utf8"), { source: at, code: "data" });
}

/** Writes what the folder is begun with. Throws `io`. */
export function beginWork(folder: string, plan: SavedPlan, tokenizer: Tokenizer): void {
  const work = join(folder, preparedFiles.work);
  const encode = (text: string): Uint8Array => new TextEncoder().encode(`${text}\n`);
  try {
    // First, so that the folder is known for ours whatever comes next.
    nodeFs.mkdirSync(work, { recursive: true });
  } catch (error) {
    throw ioError(work, error);
  }
  writeFileAtomic(join(folder, preparedFiles.tokenizer), [encode(JSON.stringify(tokenizer.toJSON()))]);
  writeFileAtomic(join(work, preparedFiles.plan), [encode(formatPlan(plan))]);
}

/** Opens the work of a folder that was begun. Shards that are not there any more, or were changed, are not done. Throws `io`. */
export function openWork(folder: string, fs: WriteFs = nodeFs): Work {
  const path = join(folder, preparedFiles.work, preparedFiles.done);
  const { jobs, shards, length } = readDone(path);
  let file: number;
  try {
    file = fs.openSync(path, "a");
    // What was being written when the process was killed.
    fs.ftruncateSync(file, length);
  } catch (error) {
    throw ioError(path, error);
  }
  for (const [label, { file: name, size, modified }] of shards) {
    const found = nodeFs.statSync(join(folder, name), { throwIfNoEntry: false });
    if (found?.size !== size || found.mtimeMs !== modified) shards.delete(label);
  }
  const append = (line: object): void => {
    try {
      writeAll(file, new TextEncoder().encode(`${JSON.stringify(line)}\n`), fs);
      fs.fsyncSync(file);
    } catch (error) {
      throw ioError(path, error);
    }
  };
  return {
    jobs,
    shards,
    jobDone(id, facts) {
      append({ job: id, ...facts });
      jobs.set(id, facts);
    },
    shardDone(label, shard) {
      append({ label, ...shard });
      shards.set(label, shard);
    },
    close: () => fs.closeSync(file),
  };
}

/** Whole lines, in order; a line that is cut ends them. */
function readDone(path: string): { jobs: Map<string, JobFacts>; shards: Map<number, Shard>; length: number } {
  const jobs = new Map<string, JobFacts>();
  const shards = new Map<number, Shard>();
  const written = nodeFs.existsSync(path) ? nodeFs.readFileSync(path, "utf8") : "";
  let length = 0;
  for (const line of written.split("\n").slice(0, -1)) {
    const value = jsonOrNothing(line);
    if (value === undefined) break;
    const done = read(doneLine, value, faultOf({ source: path, code: "data" }));
    if ("job" in done) jobs.set(done.job, done.facts);
    else shards.set(done.label, done.shard);
    length += Buffer.byteLength(line) + 1;
  }
  return { jobs, shards, length };
}

const kindOf = object<{ job?: unknown }>({ job: optional(anything) });
const ofJob = object<{ job: string }>({ job: string });
const jobFacts = object<JobFacts>({ documents: count, tokens: count, textBytes: count, skipped: count });
const ofShard = object<{ label: number }>({ label: count });

/** A line of a job that is done, or of a shard. */
export const doneLine: Schema<
  { readonly job: string; readonly facts: JobFacts } | { readonly label: number; readonly shard: Shard }
> = (value, at) =>
  kindOf(value, at).job !== undefined
    ? { ...ofJob(value, at), facts: jobFacts(value, at) }
    : { ...ofShard(value, at), shard: shard(value, at) };

/** Removes the tokens of jobs. */
export function removeJobs(folder: string, ids: Iterable<string>): void {
  for (const id of ids)
    for (const ending of [".bin", ".docs"]) nodeFs.rmSync(`${jobPath(folder, id)}${ending}`, { force: true });
}

/** Removes what a process left that was killed while it wrote. The lock must be held. */
export function removeRemains(folder: string): void {
  const { work, domains, targets } = preparedFiles;
  for (const name of ["", work, domains, targets]) {
    const inner = join(folder, name);
    if (!nodeFs.existsSync(inner)) continue;
    for (const entry of nodeFs.readdirSync(inner))
      if (temporaryName.test(entry) || (name === work && entry.endsWith(".tmp")))
        nodeFs.rmSync(join(inner, entry), { force: true });
  }
}

/** Removes all of the work, once the folder is whole. */
export function endWork(folder: string): void {
  nodeFs.rmSync(join(folder, preparedFiles.work), { recursive: true, force: true });
}

/** Makes the folder; gives whether it was not there. Throws `config` for one that cannot take the work: it holds something else. */
export function checkRoom(folder: string): boolean {
  let [names, isNew]: [string[], boolean] = [[], false];
  try {
    isNew = nodeFs.mkdirSync(resolve(folder), { recursive: true }) !== undefined;
    names = nodeFs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "EEXIST") throw wrong(`--out ${folder}: is a file; name a folder`);
    throw ioError(folder, error);
  }
  const isOurs = names.includes(preparedFiles.work) || names.includes(preparedFiles.manifest);
  const other = names.find((name) => !name.startsWith("lock"));
  if (!isOurs && other !== undefined)
    throw wrong(
      `--out ${folder}: is there already and holds something else (${other}); choose another folder`,
    );
  return isNew;
}

/** Removes a folder that nothing was written to. */
export function removeEmpty(folder: string): void {
  if (nodeFs.readdirSync(folder).length === 0) nodeFs.rmdirSync(folder);
}
