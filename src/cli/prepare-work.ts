/**
 * The unfinished folder of `gradmix prepare`: its plan, and one line per finished job and shard. After a kill at any moment, the next command
 * continues from there.
 */
import * as nodeFs from "node:fs";
import { join } from "node:path";
import { createHash } from "node:crypto";
import type { Tokenizer } from "../data/byte-level.ts";
import { errorCode, GradmixError } from "../errors.ts";
import { ioError, removeOwn, temporaryName, writeAll, writeFileAtomic, type WriteFs } from "../node/files.ts";
import { makeFolders } from "../folders-node.ts";
import {
  anything,
  count,
  faultOf,
  jsonOrUndefined,
  object,
  optional,
  parseOrdered,
  read,
  type Schema,
  string,
} from "../schema.ts";
import { isLockName } from "./lock.ts";
import { type JobFacts, jobPath, type PlaceInPart } from "./prepare-jobs.ts";
import { formatPlan } from "./prepare-plan.ts";
import {
  preparedFiles,
  readManifest,
  type SavedPlan,
  savedPlan,
  type Shard,
  shard,
} from "./prepared-folder.ts";
import { configError } from "./values.ts";

/** A shard of a finished label. */
export interface JoinedShard {
  readonly shard: Shard;
  /** The jobs whose tokens it holds, as `jobsHash` names them. */
  readonly jobs: string;
}

export interface Work {
  /** Results of the finished jobs, by id. */
  readonly jobs: ReadonlyMap<string, JobFacts>;
  /** Shards of the finished labels, by index. A shard that was made of other jobs must be made again. */
  readonly shards: ReadonlyMap<number, JoinedShard>;
  jobDone(id: string, facts: JobFacts): void;
  shardDone(label: number, joined: JoinedShard): void;
  close(): void;
}

/** A hash that identifies jobs in their order, by their ids. */
export function jobsHash(ids: readonly string[]): string {
  return createHash("sha256").update(ids.join(" ")).digest("hex").slice(0, 20);
}

/** The plan with which the folder was begun; null for a new folder. Throws `data` for an invalid plan. */
export function savedPlanOf(folder: string): SavedPlan | null {
  const at = join(folder, preparedFiles.work, preparedFiles.plan);
  if (!nodeFs.existsSync(at)) return null;
  return parseOrdered(savedPlan, nodeFs.readFileSync(at, "utf8"), { source: at, code: "data" });
}

/** Writes the plan and the tokenizer of the folder. Throws `io`. */
export function beginWork(folder: string, plan: SavedPlan, tokenizer: Tokenizer): void {
  const work = join(folder, preparedFiles.work);
  const encode = (text: string): Uint8Array => new TextEncoder().encode(`${text}\n`);
  try {
    makeFolders(work);
  } catch (error) {
    throw ioError(work, error);
  }
  // Written first, so that `checkRoom` recognises the folder whatever happens next.
  writeFileAtomic(join(work, preparedFiles.plan), [encode(formatPlan(plan))]);
  writeFileAtomic(join(folder, preparedFiles.tokenizer), [encode(JSON.stringify(tokenizer.toJSON()))]);
}

/** Opens the work of an unfinished folder. Shards that are missing or changed count as not done. Throws `io`. */
export function openWork(folder: string, fs: WriteFs = nodeFs): Work {
  const path = join(folder, preparedFiles.work, preparedFiles.done);
  const { jobs, shards, length } = readDone(path);
  let file: number;
  try {
    file = fs.openSync(path, "a");
    // Removes what was being written when the process was killed.
    fs.ftruncateSync(file, length);
  } catch (error) {
    throw ioError(path, error);
  }
  for (const [
    label,
    {
      shard: { file: name, size, modified },
    },
  ] of shards) {
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
    shardDone(label, joined) {
      append({ label, jobs: joined.jobs, ...joined.shard });
      shards.set(label, joined);
    },
    close: () => fs.closeSync(file),
  };
}

/** Complete lines, in order; reading stops at a line that was cut off. */
function readDone(path: string): {
  jobs: Map<string, JobFacts>;
  shards: Map<number, JoinedShard>;
  length: number;
} {
  const jobs = new Map<string, JobFacts>();
  const shards = new Map<number, JoinedShard>();
  const written = nodeFs.existsSync(path) ? nodeFs.readFileSync(path, "utf8") : "";
  let length = 0;
  for (const line of written.split("\n").slice(0, -1)) {
    const value = jsonOrUndefined(line);
    if (value === undefined) break;
    const done = read(doneLine, value, faultOf({ source: path, code: "data" }));
    if ("job" in done) jobs.set(done.job, done.facts);
    else shards.set(done.label, done.joined);
    length += Buffer.byteLength(line) + 1;
  }
  return { jobs, shards, length };
}

const kindOf = object<{ job?: unknown }>({ job: optional(anything) });
const ofJob = object<{ job: string }>({ job: string });
const jobFacts = object<JobFacts>({
  documents: count,
  tokens: count,
  textBytes: count,
  skipped: count,
  empty: optional(count),
  firstEmpty: optional(object<PlaceInPart>({ path: string, from: count, line: count })),
});
const ofShard = object<{ label: number; jobs: string }>({ label: count, jobs: string });

/** A line of a job that is done, or of a shard. */
export const doneLine: Schema<
  | { readonly job: string; readonly facts: JobFacts }
  | { readonly label: number; readonly joined: JoinedShard }
> = (value, at) => {
  if (kindOf(value, at).job !== undefined) return { ...ofJob(value, at), facts: jobFacts(value, at) };
  const { label, jobs } = ofShard(value, at);
  return { label, joined: { jobs, shard: shard(value, at) } };
};

/** Removes the tokens of jobs. */
export function removeJobs(folder: string, ids: Iterable<string>): void {
  for (const id of ids)
    for (const ending of [".bin", ".docs"]) nodeFs.rmSync(`${jobPath(folder, id)}${ending}`, { force: true });
}

/** The tokens of a job in the work folder, also while they are written. */
const ofJobs = /^[\da-f]{20}\.(bin|docs)(\.tmp)?$/;

/** Removes what a process left behind that was killed while writing. The lock must be held. */
export function removeRemains(folder: string): void {
  const { work, domains, targets } = preparedFiles;
  for (const name of ["", work, domains, targets]) {
    const inner = join(folder, name);
    if (!nodeFs.existsSync(inner)) continue;
    for (const entry of nodeFs.readdirSync(inner))
      if (temporaryName.test(entry) || (name === work && entry.endsWith(".tmp") && ofJobs.test(entry)))
        nodeFs.rmSync(join(inner, entry), { force: true });
  }
}

/** Removes the work files once the folder is complete; the plan, by which they are known, is the last. Throws `io`. */
export function endWork(folder: string): void {
  const work = join(folder, preparedFiles.work);
  if (!nodeFs.existsSync(work)) return;
  // Without our plan, the files in a folder of this name are not ours.
  const own = hasPlan(folder) ? [ofJobs, temporaryName, /^done\.jsonl$/, /^plan\.json$/] : [];
  removeOwn(work, [...own, /^$/]);
}

function hasPlan(folder: string): boolean {
  try {
    return savedPlanOf(folder) !== null;
  } catch (error) {
    if (error instanceof GradmixError) return false;
    throw error;
  }
}

/**
 * Throws `config` for a folder with something else in it: with files, but neither a plan nor a manifest of this command. The folder may be missing.
 */
export function checkRoom(folder: string): void {
  let names: string[];
  try {
    names = nodeFs.readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    if (errorCode(error) === "ENOTDIR") throw configError(`--out ${folder}: is a file; give a folder`);
    throw ioError(folder, error);
  }
  const other = names.find((name) => !isLockName(name) && !(name === preparedFiles.work && isBegun(folder)));
  if (other !== undefined && !isOurs(folder, names))
    throw configError(
      `--out ${folder}: exists and contains something else (${other}); choose another folder`,
    );
}

/** Whether the work folder contains at most temporary files, so that no plan was written yet. */
function isBegun(folder: string): boolean {
  const work = join(folder, preparedFiles.work);
  return (
    nodeFs.statSync(work, { throwIfNoEntry: false })?.isDirectory() === true &&
    nodeFs.readdirSync(work).every((name) => temporaryName.test(name))
  );
}

/** Whether the folder has a plan or a manifest of this command. Throws `config` for a file of such a name that is something else. */
function isOurs(folder: string, names: readonly string[]): boolean {
  try {
    if (names.includes(preparedFiles.manifest)) readManifest(folder);
    else if (savedPlanOf(folder) === null) return false;
    return true;
  } catch (error) {
    if (!(error instanceof GradmixError)) throw error;
    throw configError(
      `--out ${folder}: exists and contains something else (${error.message}); choose another folder`,
      error,
    );
  }
}
