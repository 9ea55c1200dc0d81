/** `gradmix prepare`: tokenizes text once, on all cores, and writes it to files. prepared-folder.ts describes them. */
import { existsSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Tokenizer } from "../data/byte-level.ts";
import { formatJson } from "../json.ts";
import { writeFileAtomic } from "../node/files.ts";
import { shellWord } from "../shell-word.ts";
import { fileLayer, namesTargets } from "./config.ts";
import { listInputs } from "./inputs.ts";
import { untilInterrupted } from "./interrupt.ts";
import { formatEmpty } from "./left-out.ts";
import { isWide } from "../data/tokens.ts";
import { lockFolder, removeLockRemains } from "./lock.ts";
import { cannotDrop, type PrepareArguments } from "./prepare-arguments.ts";
import { type Label, labelName } from "./labels.ts";
import { checkWhole, indexOf, ownTokenizer } from "./prepare-check.ts";
import { isJobWhole, type PlaceInPart, placeInFile } from "./prepare-jobs.ts";
import { checkSamePlan, type Job, jobsOf, planOf, type PreparePlan, planToSave } from "./prepare-plan.ts";
import { startPool } from "./prepare-pool.ts";
import { startPrepareProgress } from "./prepare-progress.ts";
import {
  beginWork,
  savedPlanOf,
  checkRoom,
  endWork,
  jobsHash,
  openWork,
  removeJobs,
  removeRemains,
} from "./prepare-work.ts";
import { vocabSizeOtherwise } from "./options/data.ts";
import {
  type Manifest,
  preparedFiles,
  readManifest,
  type SavedPlan,
  type Shard,
  tokenizerHash,
} from "./prepared-folder.ts";
import { formatBadLines, formatCount, startStatusLine, type StatusLine } from "./progress.ts";
import { tokenizerOfPlan } from "./choose-tokenizer.ts";
import { checkTokenizes, noRule, takenLayers } from "./taken-options.ts";
import { configOf, type Outputs } from "./train.ts";
import type { TrainConfig } from "./train-config.ts";
import { configError } from "./values.ts";
import { unusedOptions } from "./unused-options.ts";
import { version } from "./version.ts";

/** Runs the command and returns the exit code. Throws `config`, `data` and `io`; finished work is kept, and the same command continues from it. */
export async function prepare(args: PrepareArguments, { out, err }: Outputs): Promise<number> {
  const config = await configOfArguments(args);
  const { quiet } = config.run;
  checkRoom(args.out);
  const lock = lockFolder(args.out);
  const status = startStatusLine(err);
  const release = (): void => lock.release();
  process.once("exit", release);
  const say = (line: string): void => {
    if (!quiet) status.line(line);
  };
  let report = "";
  try {
    const stopped = await untilInterrupted(
      { output: err, status, stopped: `stopped; run the same command again to continue ${args.out}` },
      async (signal) => {
        removeLockRemains(args.out);
        removeRemains(args.out);
        report = await work(args, config, signal, say, quiet ? null : { screen: err, status });
      },
    );
    if (stopped !== null) return stopped;
  } finally {
    release();
    process.off("exit", release);
  }
  await out.deliver(report);
  return 0;
}

async function configOfArguments({ config: file, given, rows }: PrepareArguments): Promise<TrainConfig> {
  const layers = takenLayers(given, file, rows);
  checkTokenizes(layers);
  const config = await configOf([noRule(layers.some(namesTargets)), ...layers]);
  const { domains, domainsFrom, target, targets: several } = config.data;
  if (file !== null && fileLayer(file).values.get("data.dropContaminated") === true)
    throw cannotDrop(`${file}: data.dropContaminated`);
  if ([domainsFrom, target, ...domains.values(), ...several.values()].flat().includes("-"))
    throw configError(
      '"-": standard input cannot be read again when a stopped command continues; write it to a file first',
    );
  return config;
}

type Say = (line: string) => void;

/** Where progress is shown; null if it is not. */
type Shown = { readonly screen: Outputs["err"]; readonly status: StatusLine } | null;

async function work(
  { out: folder, format, workers }: PrepareArguments,
  config: TrainConfig,
  signal: AbortSignal,
  say: Say,
  shown: Shown,
): Promise<string> {
  const hooks = { onEvent: say, signal };
  const { data } = config;
  for (const line of unusedOptions(config)) say(line);
  const inputs = await listInputs({ ...data, out: folder }, hooks);
  const { textField, domainField, skipBadLines, tokenizer: name } = data;
  const vocabSize = name === "bpe" ? (data.vocabSize ?? vocabSizeOtherwise) : null;
  const plan = planOf(inputs, { format, textField, domainField, skipBadLines, tokenizer: name, vocabSize });
  const jobs = jobsOf(plan);
  const before = savedState(folder, jobs);
  const path = join(folder, preparedFiles.tokenizer);
  // A tokenizer that was trained for this folder is not trained a second time.
  const trained = before !== null && name === "bpe";
  const tokenizer = trained
    ? ownTokenizer(folder)
    : await tokenizerOfPlan({ ...data, context: 1, seed: 0, out: folder }, inputs, hooks);
  if (format === "nanogpt" && isWide(tokenizer.vocabSize))
    throw configError(
      `--format nanogpt: its ids have 16 bits, but the tokenizer has ${tokenizer.vocabSize} tokens; leave --format out`,
    );
  const now = planToSave(plan, version(), tokenizerHash(tokenizer));
  if (before !== null) checkSamePlan(folder, before.plan, now, before.isUsed);
  if (before !== null && before.manifest !== null) {
    await checkWhole(folder, before.manifest, signal);
    endWork(folder);
    return `${folder} is already complete, with the same text and options\n`;
  }
  beginWork(folder, now, tokenizer);
  const done = await encodeAll(
    { folder, plan, jobs, tokenizer, path, workers: workers ?? availableParallelism(), signal },
    say,
    shown,
  );
  writeFileAtomic(join(folder, preparedFiles.manifest), [
    new TextEncoder().encode(`${formatJson(manifestOf(plan, now, tokenizer, done), 1)}\n`),
  ]);
  endWork(folder);
  return formatDone(folder, plan, done);
}

/** The plan with which a folder was begun, and its progress; null for a folder without any. */
function savedState(
  folder: string,
  jobs: readonly Job[],
): {
  readonly plan: SavedPlan;
  /** The manifest of a complete folder; null for one that is not. */
  readonly manifest: Manifest | null;
  readonly isUsed: boolean;
} | null {
  if (existsSync(join(folder, preparedFiles.manifest))) {
    const manifest = readManifest(folder);
    return { plan: manifest.made, manifest, isUsed: true };
  }
  const plan = savedPlanOf(folder);
  if (plan === null) return null;
  const work = openWork(folder);
  work.close();
  if (work.jobs.size === 0) return null;
  const ids = new Set(jobs.map(({ id }) => id));
  return { plan, manifest: null, isUsed: [...work.jobs.keys()].some((id) => !ids.has(id)) };
}

interface Setup {
  readonly folder: string;
  readonly plan: PreparePlan;
  readonly jobs: readonly Job[];
  readonly tokenizer: Tokenizer;
  /** Path of the tokenizer. */
  readonly path: string;
  readonly workers: number;
  readonly signal: AbortSignal;
}

interface Done {
  /** The shards, in the order of the labels. */
  readonly shards: readonly Shard[];
  readonly skipped: number;
  /** Number of documents without text. */
  readonly empty: number;
  /** Where the first of them is; null if there is none. */
  readonly firstEmpty: PlaceInPart | null;
}

/** Runs the remaining jobs, then makes the remaining shards. */
async function encodeAll(
  { folder, plan, jobs, tokenizer, path, workers, signal }: Setup,
  say: Say,
  shown: Shown,
): Promise<Done> {
  const groups = groupsOf(plan, jobs);
  const wide = isWide(tokenizer.vocabSize);
  const work = openWork(folder);
  const hashOf = new Map(
    groups.flatMap(({ labels, jobs: own }) => {
      const hash = jobsHash(own.map((job) => jobs[job]!.id));
      return labels.map((label) => [label, hash] as const);
    }),
  );
  // A shard of other jobs is made again, for example after a file was added to its domain, and so is one without its index.
  const isJoined = (label: number): boolean => {
    const joined = work.shards.get(label);
    return (
      joined !== undefined &&
      joined.jobs === hashOf.get(label) &&
      (plan.options.format !== "megatron" || existsSync(indexOf(join(folder, joined.shard.file))))
    );
  };
  const pool = startPool({ folder, plan, jobs, tokenizer: path }, workers, signal);
  try {
    // The tokens of jobs whose shard is complete have been deleted.
    const open = groups.filter(({ labels }) => !labels.every(isJoined));
    const left = open
      .flatMap((group) => group.jobs)
      .filter((job) => {
        const { id } = jobs[job]!;
        const facts = work.jobs.get(id);
        return facts === undefined || !isJobWhole(folder, id, facts, wide);
      });
    if (left.length < jobs.length)
      say(`continuing: ${jobs.length - left.length} of ${jobs.length} parts of the text are done`);
    const total = jobs.reduce((sum, { bytes }) => sum + bytes, 0);
    const ahead = left.reduce((sum, job) => sum + jobs[job]!.bytes, 0);
    const progress = shown === null ? null : startPrepareProgress(shown, { total, before: total - ahead });
    await pool.run(
      left.map((job) => ({ kind: "encode", job })),
      (task, facts) => {
        if (task.kind === "encode" && facts !== null) work.jobDone(jobs[task.job]!.id, facts);
      },
      (message) => {
        if (message.kind === "progress") progress?.add(message);
      },
    );
    if (open.length > 0) say("writing the tokens of each domain");
    await pool.run(
      open.map(({ labels, jobs: own }) => ({
        kind: "join",
        labels: labels.filter((label) => !isJoined(label)),
        jobs: own.map((job) => jobs[job]!.id),
      })),
      (task) => {
        if (task.kind === "join") removeJobs(folder, task.jobs);
      },
      (message) => {
        if (message.kind !== "shard") return;
        const { label, shard } = message;
        const hash = hashOf.get(label);
        if (hash === undefined) throw new Error(`a shard of the unknown label ${label}`);
        work.shardDone(label, { shard, jobs: hash });
      },
    );
    const facts = jobs.flatMap(({ id }) => work.jobs.get(id) ?? []);
    return {
      shards: plan.labels.map((label, i) => {
        const joined = work.shards.get(i);
        if (joined === undefined) throw new Error(`no shard of ${labelName(label)} was made`);
        return joined.shard;
      }),
      skipped: facts.reduce((sum, { skipped }) => sum + skipped, 0),
      empty: facts.reduce((sum, { empty = 0 }) => sum + empty, 0),
      firstEmpty: facts.find(({ firstEmpty }) => firstEmpty !== undefined)?.firstEmpty ?? null,
    };
  } finally {
    await pool.stop();
    work.close();
  }
}

/** Labels whose tokens come from the same jobs. */
interface Group {
  readonly labels: readonly number[];
  readonly jobs: readonly number[];
}

function groupsOf({ labels, mixed }: PreparePlan, jobs: readonly Job[]): Group[] {
  const byLabel = new Map<number, number[]>();
  jobs.forEach(({ label }, i) => {
    const own = byLabel.get(label);
    if (own === undefined) byLabel.set(label, [i]);
    else own.push(i);
  });
  const several = new Set(mixed?.labelOf.values());
  const alone = [...labels.keys()].filter((label) => !several.has(label));
  return [
    ...alone.map((label) => ({ labels: [label], jobs: byLabel.get(label) ?? [] })),
    ...(several.size === 0 ? [] : [{ labels: [...several], jobs: byLabel.get(-1) ?? [] }]),
  ];
}

function manifestOf(
  plan: PreparePlan,
  made: SavedPlan,
  tokenizer: Tokenizer,
  { shards, skipped, empty }: Done,
): Record<string, unknown> {
  const of = (kind: Label["kind"]): ReadonlyMap<string, Shard> =>
    new Map(
      plan.labels.flatMap((label, i) => (label.kind === kind ? [[label.name, shards[i]!] as const] : [])),
    );
  const { kind, vocabSize, endOfText } = tokenizer;
  return {
    version: 1,
    gradmix: made.gradmix,
    format: plan.options.format,
    tokenizer: { file: preparedFiles.tokenizer, sha256: made.tokenizer, kind, vocabSize, endOfText },
    skipped,
    empty,
    domains: of("domain"),
    target: of("target").get("") ?? null,
    targets: of("targets"),
    made,
  };
}

/** Number of domains shown, the largest first. */
const SHOWN = 8;

function formatDone(folder: string, plan: PreparePlan, { shards, skipped, empty, firstEmpty }: Done): string {
  const sum = (part: (shard: Shard) => number): number => shards.reduce((all, shard) => all + part(shard), 0);
  const [tokens, documents, bytes] = [sum((s) => s.tokens), sum((s) => s.documents), sum((s) => s.textBytes)];
  const domains = plan.labels
    .flatMap((label, i) => (label.kind === "domain" ? [{ name: label.name, tokens: shards[i]!.tokens }] : []))
    .sort((a, b) => b.tokens - a.tokens);
  const rest = domains.length - SHOWN;
  return [
    `${formatCount(tokens)} tokens of ${formatCount(documents)} documents, ${(bytes / tokens).toFixed(2)} bytes per token`,
    `  domains  ${domains
      .slice(0, SHOWN)
      .map(({ name, tokens: own }) => `${name} ${formatCount(own)}`)
      .join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`,
    ...(skipped === 0 ? [] : [`  skipped  ${formatBadLines(skipped)}`]),
    ...(firstEmpty === null ? [] : [`  empty    ${formatEmpty(empty, placeInFile(firstEmpty))}`]),
    `  train    gradmix train --domains ${shellWord(folder)}`,
    "",
  ].join("\n");
}
