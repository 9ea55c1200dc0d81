/** `gradmix mix`: runs a rule as a process, for other trainers. docs/trainers.md describes the protocol. */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  createReadStream,
  existsSync,
  openSync,
  readFileSync,
  statSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { mixerDefaults } from "../dga/mixer.ts";
import { type CombinatorOptions, countsRunTokens, needsSizes } from "../dga/combinators/index.ts";
import { isRuleName, type RuleName, ruleTraits, suppliedByFacts } from "../dga/rules/index.ts";
import { errorCode, GradmixError } from "../errors.ts";
import type { Message } from "../mix/protocol.ts";
import { ioError } from "../node/files.ts";
import { makeFolders } from "../folders-node.ts";
import { reason } from "../node/system-errors.ts";
import { preparedAmong } from "./prepared-folder.ts";
import { clustersWithText, isClusterFolder, readClusterFolder } from "./cluster-folder.ts";
import { commandLineLayer, fileLayer, jsonLayer, type Layer, resolveConfig } from "./config.ts";
import { takeFileLock } from "./lock.ts";
import { MAX_NAMES } from "./metrics.ts";
import { mixerOptionsOf, presetOf } from "./mixing.ts";
import { unusedOptions } from "./unused-options.ts";
import { type MixFlags, takesOption } from "./mix-arguments.ts";
import type { Output } from "./output.ts";
import { checkOutputs, filesAmong } from "./outputs.ts";
import { checkNamedOnce, checkValue, fromArguments, type Raw, configError } from "./values.ts";
import { hasFactsOfRun } from "./run-names.ts";

export interface MixArguments {
  /** Path of a config file; its other options are ignored. */
  readonly config: string | null;
  /** Flags of the table that were given, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  readonly flags: MixFlags;
}

/** Runs the command and returns the exit code. Throws `config`, `data`, `checkpoint` and `io`. */
export async function mix(args: MixArguments, err: Output): Promise<number> {
  const { flags } = args;
  checkTogether(flags);
  checkOutputs(
    Object.entries({
      // A file that exists is read.
      "--token-file": flags.tokenFile === null || existsSync(flags.tokenFile) ? null : flags.tokenFile,
      "--state-file": flags.stateFile,
      "--weights-file": flags.weightsFile,
    }).flatMap(([flag, path]) => (path === null ? [] : [[flag, path] as const])),
    filesAmong([args.config, flags.sizes, flags.tokenFile, ...args.given.values()]),
  );
  if (flags.replay !== null) return replayFile(flags.replay, args, err);
  const init = initOf(args, null, err);
  if (init !== null && !("domains" in init))
    throw configError(
      "the rule is given without domains: add --domains A,B, or give both in the first line (init)",
    );
  const { stateFile, weightsFile, listen } = flags;
  const address = listen === null ? null : addressOf(listen);
  if (stateFile !== null) lock(stateFile);
  const { createKeeper } = await import("../mix/keeper.ts");
  const keeper = createKeeper({ state: stateFile, weights: weightsFile });
  const continued = keeper.session() !== null;
  if (init !== null) {
    const reply = keeper.message(init);
    if (reply.type === "error")
      throw new GradmixError(
        "config",
        `${continued ? `--state-file ${stateFile ?? ""}: ` : ""}${reply.field === null ? "" : `${reply.field}: `}${reply.error}${continued ? "; for a new session, name another file" : ""}`,
      );
  }
  if (address !== null) {
    const [{ startServer }, { writeLine }] = await Promise.all([
      import("../mix/server.ts"),
      import("../mix/lines.ts"),
    ]);
    const { tokenFile } = flags;
    const token = tokenFile === null ? newToken() : tokenOf(tokenFile);
    const { url, close } = await startServer(keeper, { ...address, token });
    const written = await writeLine(process.stdout, {
      type: "listening",
      url,
      ...(tokenFile === null ? { token } : { tokenFile }),
    });
    if (!written) {
      await close();
      return 0;
    }
    // Serves until a signal ends the process. The state of every reply has been written to disk.
    return new Promise(() => {});
  }
  // Ctrl-C on a terminal also reaches the trainer, which may request the state a last time; this process ends when its input ends.
  if (!process.stdin.isTTY) process.on("SIGINT", () => {});
  else
    err.write('Write one message per line, first {"type":"init","domains":[…]}; Ctrl-D ends the session.\n');
  const { serveLines } = await import("../mix/lines.ts");
  await serveLines(process.stdin, process.stdout, keeper.line);
  return 0;
}

function checkTogether(flags: MixFlags): void {
  const { replay, listen, tokenFile, stateFile, weightsFile } = flags;
  if (tokenFile !== null && listen === null) throw configError("--token-file: only --listen uses a token");
  for (const [flag, value] of Object.entries({
    "--listen": listen,
    "--state-file": stateFile,
    "--weights-file": weightsFile,
  }))
    if (replay !== null && value !== null)
      throw configError(`${flag}: --replay only prints weights and saves nothing; leave one of them out`);
}

/** A run whose signals are replayed, and what is known of it. */
interface ReplayedRun {
  readonly layer: Layer;
  readonly facts: Message;
  /** Whether its alignments are those with the step that Adam would take. */
  readonly preconditioned: boolean;
  /** Whether its weights are those of bases. */
  readonly bases: boolean;
}

/**
 * The `init` message of flags, config file and run; earlier ones take precedence. null if none of them gives any options, and without
 * `domains` if none names them. The options of a run's own rule are ignored if another rule is requested. Options that the rule does not use are
 * named on `err`.
 */
function initOf(
  { config: file, given, flags }: MixArguments,
  run: ReplayedRun | null,
  err: Output,
): Message | null {
  const inFile = file === null ? null : fileLayer(file);
  if (inFile?.values.has("mixing.bases") === true)
    throw configError(
      `${inFile.label("mixing.bases")}: gradmix mix does not know what bases contain; leave them out, name the bases as domains (--domains A,B,…), and let the trainer mix the text of each basis`,
    );
  const asked = [commandLineLayer(given), ...(inFile === null ? [] : [inFile])].map(ofRule);
  const rule = firstOf(asked, "mixing.rule");
  const runs = run === null ? null : ofRule(run.layer);
  const same = rule === undefined || rule === runs?.values.get("mixing.rule");
  const layers = runs === null ? asked : [...asked, same ? runs : onlyWhen(runs)];
  const clusters = clustersOf(flags.domains, inFile);
  const domains =
    clusters?.names ??
    (flags.domains === null
      ? (namesIn(inFile, "data.domains") ?? namesIn(run?.layer ?? null, "data.domains"))
      : domainsOf(flags.domains));
  if (domains === null && flags.sizes === null && layers.every(({ values }) => values.size === 0))
    return null;
  const { targets } = Object(firstOf(layers, "mixing.ruleOptions")) as { targets?: unknown };
  const targetNames = Array.isArray(targets)
    ? targets.map(String)
    : (namesIn(inFile, "data.targets") ?? namesIn(run?.layer ?? null, "data.targets") ?? []);
  // `gradmix train` refers to files here, and this command reads none.
  const named = firstOf(layers, "mixing.rule");
  if (isRuleName(named) && ruleTraits(named).severalTargets === true && targetNames.length === 0)
    throw configError(
      `--rule ${named} needs targets: add their names with --rule-options '{"targets":["NAME",…]}'`,
    );
  const resolved = resolveConfig([placeholders(layers, domains, targetNames), ...layers]);
  const { mixing } = presetOf(resolved);
  for (const line of unusedOptions(resolved)) err.write(`${line}\n`);
  const { tokens } = resolved.training;
  const known = {
    ...run?.facts,
    ...(clusters?.sizes === undefined ? {} : { sizes: clusters.sizes }),
    ...(flags.sizes === null ? {} : { sizes: Object.fromEntries(sharesOf(flags.sizes, "--sizes")) }),
  };
  const total = tokens ?? run?.facts["tokens"];
  if (mixing.repetitionCap !== null && !("sizes" in known && typeof total === "number"))
    throw configError(
      "--repetition-cap: the number of repetitions follows from the tokens of the domain and of the run; add --sizes NAME=N,… and --tokens N",
    );
  const { rule: options, combinators } = mixerOptionsOf(mixing, targetNames, {
    // Sizes are in the domains' order; without sizes, these are only names.
    sizes: sizesOf(domains ?? [], known["sizes"]),
    ...(typeof total === "number" && "sizes" in known ? { tokens: total } : {}),
  });
  // A file of messages may have the other number in its own init.
  if (flags.replay === null || run !== null)
    for (const line of checkCounts(mixing.rule, options, combinators, {
      sizes: flags.sizes !== null,
      tokens: given.has("training.tokens"),
      known: { sizes: "sizes" in known, tokens: typeof total === "number" },
    }))
      err.write(`${line}\n`);
  return {
    type: "init",
    ...(domains === null ? {} : { domains }),
    rule: options,
    combinators,
    updateEvery: firstOf(layers, "mixing.updateEvery") ?? null,
    updateAfter: mixing.updateAfter ?? mixerDefaults.updateAfter,
    // A histogram that was given is an option of the rule.
    ...known,
    ...(tokens === null ? {} : { tokens }),
  };
}

/**
 * Throws `config` for `--sizes` without `--tokens`, or the reverse, where the rule limits repetitions only by both. Returns a line for each flag that
 * nothing uses, and for tokens of a config file, which may serve other commands too, if they alone give no limit.
 */
function checkCounts(
  rule: RuleName,
  options: Readonly<Record<string, unknown>>,
  combinators: readonly CombinatorOptions[],
  {
    known,
    ...given
  }: Readonly<Record<"sizes" | "tokens", boolean>> & {
    readonly known: Readonly<Record<"sizes" | "tokens", boolean>>;
  },
): string[] {
  const supplied = suppliedByFacts(rule, options);
  const takes = { sizes: supplied.includes("sizes"), tokens: supplied.includes("tokens") };
  const around = { sizes: needsSizes(combinators), tokens: countsRunTokens(combinators) };
  const lines: string[] = [];
  for (const [one, other, add] of [
    ["sizes", "tokens", "--tokens N, the training tokens of the whole run"],
    ["tokens", "sizes", "--sizes NAME=N,…, the tokens of each domain"],
  ] as const) {
    if (!known[one] || around[one]) continue;
    const isAlone = takes[one] && takes[other] && !known[other];
    const why = `rule ${rule} limits repetitions only if it knows the tokens of each domain and of the run`;
    if (isAlone && given[one]) throw configError(`--${one}: ${why}; add ${add}, or leave --${one} out`);
    if (isAlone && one === "tokens") lines.push(`training.tokens has no effect: ${why}; add ${add}`);
    if (!takes[one] && given[one])
      lines.push(`--${one} has no effect: rule ${rule} does not use it with these options`);
  }
  return lines;
}

function sizesOf(domains: readonly string[], given: unknown): Readonly<Record<string, number>> {
  const sizes = new Map(Object.entries((given ?? {}) as Readonly<Record<string, number>>));
  return Object.fromEntries(domains.map((name) => [name, sizes.get(name) ?? Number.MAX_SAFE_INTEGER]));
}

const ofRule = ({ values, label }: Layer): Layer => ({
  values: new Map([...values].filter(([key]) => takesOption(key))),
  label,
});

/** When the run's rule was updated, without the rule itself. */
const onlyWhen = ({ values, label }: Layer): Layer => ({
  values: new Map([...values].filter(([key]) => ["mixing.updateEvery", "mixing.updateAfter"].includes(key))),
  label,
});

function firstOf(layers: readonly Layer[], path: string): unknown {
  return layers.map(({ values }) => values.get(path)).find((value) => value !== undefined);
}

/** No text is read here, so globs and folders are placeholders that pass the checks of `gradmix train`. */
function placeholders(
  layers: readonly Layer[],
  domains: readonly string[] | null,
  targets: readonly string[],
): Layer {
  const anything = ["-"];
  const rule = firstOf(layers, "mixing.rule");
  const shares = firstOf(layers, "mixing.weights") ?? firstOf(layers, "mixing.histogram");
  const names =
    domains ?? (shares instanceof Map ? [...(shares as ReadonlyMap<string, number>).keys()] : anything);
  const values = new Map<string, unknown>([
    ["data.domains", new Map(names.map((name) => [name, anything]))],
    ["data.target", anything],
  ]);
  const { severalTargets, referenceModel } = isRuleName(rule) ? ruleTraits(rule) : {};
  if (severalTargets === true) values.set("data.targets", new Map(targets.map((name) => [name, anything])));
  if (referenceModel === true) values.set("mixing.reference", "-");
  return { values, label: (path) => path };
}

/** The run of a metrics file; null if the file is not in the folder of a run. Throws like `readRunHead` and `readOwnWeights`. */
async function runOf(metrics: string): Promise<ReplayedRun | null> {
  const folder = dirname(metrics);
  if (basename(metrics) !== "metrics.jsonl" || !hasFactsOfRun(folder)) return null;
  const { readOwnWeights, readRunHead } = await import("../runs/record.ts");
  const { sampledTokens } = await import("../runs/facts.ts");
  const head = readRunHead(folder);
  const { config, facts } = head;
  // Refuses the lines of a run that has ended if they are not complete.
  readOwnWeights(head);
  const layer = jsonLayer(config, join(folder, "config.json"));
  const counted = join(folder, "histogram.json");
  const uniform = layer.values.get("mixing.prior") === "uniform";
  const { bases, domains, selected, steps, batch, context } = facts;
  // Of the domains that were found in folders, files or fields (data.domainsFrom), the configuration does not have the names.
  const names = bases ?? [...domains.keys()];
  return {
    layer: {
      ...layer,
      values: new Map([...layer.values, ["data.domains", new Map(names.map((name) => [name, []]))]]),
    },
    facts: {
      // The run does not record the sizes of bases.
      ...(bases === null
        ? {
            sizes: Object.fromEntries(
              sampledTokens(
                Array.from(domains, ([name, { tokens }]) => [name, tokens]),
                selected,
              ),
            ),
          }
        : {}),
      tokens: steps * batch * context,
      ...(uniform || !existsSync(counted)
        ? {}
        : { histogram: Object.fromEntries(sharesOf(counted, "--replay")) }),
    },
    preconditioned: layer.values.get("mixing.normalise") === "adam",
    bases: bases !== null,
  };
}

function namesIn(layer: Layer | null, path: string): string[] | null {
  const value = layer?.values.get(path);
  // A run writes an empty list if its domains were found in folders.
  return value instanceof Map && value.size > 0 ? [...(value as ReadonlyMap<string, unknown>).keys()] : null;
}

/**
 * The clusters, or the domains of gradmix prepare, that `--domains` or `data.domainsFrom` of the config file names, with their numbers of
 * tokens if these were counted; null for other domains. Throws `data`.
 */
function clustersOf(
  domains: string | null,
  file: Layer | null,
): { readonly names: string[]; readonly sizes?: Readonly<Record<string, number>> } | null {
  const from = domains === null ? file?.values.get("data.domainsFrom") : [domains];
  const paths = Array.isArray(from) ? from.map(String) : [];
  checkNamedOnce(paths, domains === null ? (file?.label("data.domainsFrom") ?? "") : "--domains");
  const folder = paths.find(isClusterFolder);
  // A run has these domains, too, before those of the folders.
  const named = domains === null ? (namesIn(file, "data.domains") ?? []) : [];
  const other = paths.find((path) => !isClusterFolder(path) && preparedAmong([path]).length === 0);
  if (domains === null && other !== undefined)
    throw configError(
      `${file?.label("data.domainsFrom") ?? ""}: gradmix mix does not look for domains in ${other}, which is not a folder of gradmix cluster, divide or prepare; name all domains with --domains A,B,…`,
    );
  if (folder === undefined) {
    const prepared = preparedAmong(paths).flatMap(({ domains }) => [...domains]);
    if (prepared.length === 0) return null;
    return {
      names: [...named, ...prepared.map(([name]) => name)],
      // The sizes of the named domains are not known, and sizes are for all domains.
      ...(named.length > 0
        ? {}
        : { sizes: Object.fromEntries(prepared.map(([name, { tokens }]) => [name, tokens])) }),
    };
  }
  const [beside] = [...named, ...paths.filter((path) => path !== folder)];
  if (beside !== undefined)
    throw configError(
      `${file?.label(named.length > 0 ? "data.domains" : "data.domainsFrom") ?? ""}: a folder of clusters cannot be combined with other domains; leave out ${beside}`,
    );
  const clusters = readClusterFolder(folder);
  const names = clustersWithText(clusters);
  const sizes = new Map<string, number>();
  for (const [j, { documents, tokens }] of clusters.clusters.entries())
    if (documents > 0 && tokens !== null) sizes.set(clusters.names[j]!, tokens);
  return { names, ...(sizes.size === names.length ? { sizes: Object.fromEntries(sizes) } : {}) };
}

function domainsOf(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  const at = names.indexOf("");
  if (at >= 0)
    throw configError(`--domains: "${text}" has an empty name at position ${at + 1}; write names as A,B,C`);
  if (names.includes("*"))
    throw configError(
      '--domains: "*" cannot be the name of a domain, because options such as --floor *=0.1 mean all domains by it; choose another name',
    );
  // One domain alone always has the weight 1, so a folder was meant.
  if (names.length === 1 && statSync(text, { throwIfNoEntry: false })?.isDirectory() === true)
    throw configError(
      `--domains: ${text} is a folder, but not one of gradmix cluster, divide or prepare, whose domains have names; write the names as A,B,C`,
    );
  return names;
}

function sharesOf(text: string, label: string): ReadonlyMap<string, number> {
  const kind = { type: "shares", sumsToOne: false } as const;
  return checkValue(kind, fromArguments(kind, [text], label), label) as ReadonlyMap<string, number>;
}

/** Parses HOST:PORT, [HOST]:PORT or PORT. */
function addressOf(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, digits] = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?(\d+)$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535)
    throw configError(
      `--listen: "${text}" is not [HOST:]PORT, such as 8123, 127.0.0.1:8123 or 0 for any free port`,
    );
  return { host: bracketed ?? plain ?? "127.0.0.1", port };
}

/** Locks a file until the process exits. The lock of a process that was killed is taken over. */
function lock(file: string): void {
  try {
    makeFolders(dirname(file));
  } catch (error) {
    throw ioError(file, error);
  }
  const { release } = takeFileLock(file);
  process.once("exit", release);
}

const newToken = (): string => randomBytes(32).toString("base64url");

/** Shorter tokens can be guessed. */
const SHORTEST_TOKEN = 16;

/** Reads the token in a file, or writes a new one there that only this user can read. */
function tokenOf(path: string): string {
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) {
      const token = newToken();
      makeFolders(dirname(path));
      const file = openSync(path, "wx", 0o600);
      try {
        writeSync(file, `${token}\n`);
      } finally {
        closeSync(file);
      }
      return token;
    }
    // A pipe may bring the token. Reading a device may never end.
    if (!stats.isFile() && !stats.isFIFO())
      throw configError(
        `--token-file: ${path} is ${stats.isDirectory() ? "a folder" : "a device or socket"}, not a file; name a file with a token, or a path at which gradmix creates one`,
      );
    const token = readFileSync(path, "utf8").trim();
    if (token.length < SHORTEST_TOKEN || /\s/.test(token))
      throw configError(
        `--token-file: ${path} holds no token of at least ${SHORTEST_TOKEN} characters; ${stats.isFile() ? "delete it, and gradmix creates one" : "write one into the pipe"}`,
      );
    // Windows has no such modes.
    if (process.platform !== "win32" && (stats.mode & 0o077) !== 0)
      throw configError(`--token-file: others can read ${path}; chmod 600 it`);
    return token;
  } catch (error) {
    if (error instanceof GradmixError) throw error;
    throw new GradmixError("io", `--token-file: ${path} cannot be used (${reason(error)})`, { cause: error });
  }
}

async function replayFile(path: string, args: MixArguments, err: Output): Promise<number> {
  const isFolder = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
  const metrics = isFolder ? join(path, "metrics.jsonl") : path;
  const run = await runOf(metrics);
  if (isFolder && run === null)
    throw configError(
      `--replay: ${path} is a folder, but not of a run (it has no run.json); give the folder of a run, or a file of messages`,
    );
  if (run === null && basename(metrics) === "metrics.jsonl")
    err.write(
      `${metrics} is not in the folder of a run, so the rule and the facts of its run are not known; the weights follow from the given options\n`,
    );
  const init = Object.fromEntries(
    Object.entries(initOf(args, run, err) ?? {}).filter(([, value]) => value !== null),
  );
  const many = namesIn(run?.layer ?? null, "data.domains")?.length ?? 0;
  if (many > MAX_NAMES)
    err.write(
      `${metrics} has the alignments of the ${MAX_NAMES} heaviest of ${many} domains; the others count as not measured, so the weights differ from those of the run\n`,
    );
  if (run?.bases === true && args.flags.sizes === null)
    err.write(
      `${metrics} does not have the tokens of the bases, which limit their repetitions; without --sizes BASIS=N,… the weights may differ from those of the run\n`,
    );
  const [{ linesOf, MOST_BYTES, writeLine }, { replay }] = await Promise.all([
    import("../mix/lines.ts"),
    import("../mix/replay.ts"),
  ]);
  const input = createReadStream(metrics);
  try {
    const { preconditioned = false, bases = false } = run ?? {};
    const options = { source: metrics, init, preconditioned, bases, isRun: run !== null };
    // A run that still trains, or was killed, may have written only a part of its last line.
    const lines = linesOf(input, MOST_BYTES, run === null ? "take" : "drop");
    for await (const reply of replay(lines, options)) if (!(await writeLine(process.stdout, reply))) break;
  } catch (error) {
    if (error instanceof GradmixError || errorCode(error) === "") throw error;
    throw new GradmixError("io", `--replay: ${metrics} cannot be read (${reason(error)})`, { cause: error });
  } finally {
    input.destroy();
  }
  return 0;
}
