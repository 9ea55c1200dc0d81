/** `gradmix mix`: a rule as a process, for trainers of one's own. docs/trainers.md has the protocol. */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { errorCode, GradmixError } from "../errors.ts";
import type { Message } from "../mix/protocol.ts";
import { ioError } from "../node/files.ts";
import { reason } from "../node/system-errors.ts";
import { commandLineLayer, fileLayer, type Layer, resolveConfig } from "./config.ts";
import { takeFileLock } from "./lock.ts";
import { mixerOptionsOf, presetOf } from "./mixing.ts";
import type { OptionRow } from "./options.ts";
import type { Output } from "./output.ts";
import { checkValue, fromArguments, type Raw, wrong } from "./values.ts";

/** Help of the options of `gradmix train` that mean the same here, in few words. */
const taken: Readonly<Record<string, string>> = {
  "mixing.rule": "the rule (default: dga)",
  "mixing.ruleOptions": "options of the rule, as docs/rules.md names them",
  "mixing.combinators": "what goes around the rule, in order",
  "mixing.eta": "step size η of the rule",
  "mixing.beta": "moving average of the weights: share of the newest",
  "mixing.normalise": "what a step is made of",
  "mixing.preset": "paper: Dynamic Gradient Alignment as it was published",
  "mixing.updateEvery": "steps between two updates (default: each observe is one)",
  "mixing.updateAfter": "steps before the first update",
  "mixing.floor": "no weight falls below this",
  "mixing.weights": "weights of --rule static; where other rules start",
  "mixing.histogram": "share of the target by domain: the prior of dga",
  "training.tokens": "training tokens of the whole run, for caps",
};

/** The rows of the table that the command takes, with help and defaults of their own. */
export function mixRows(rows: readonly OptionRow[]): OptionRow[] {
  return rows
    .filter(({ path }) => Object.hasOwn(taken, path))
    .map(({ formerly: _, auto: _auto, ...row }) => ({ ...row, help: taken[row.path] ?? "", default: null }));
}

/** Flags that `gradmix train` does not have: what stands for the value, and the help. */
export const mixFlags = {
  domains: ["A,B,…", "the domains, in place of an init on the first line"],
  sizes: ["NAME=N,…|FILE", "tokens of each domain, for caps and rules by size"],
  stateFile: ["FILE", "keeps the state, so that kill -9 loses nothing; goes on from it"],
  weightsFile: ["FILE", "the weights as JSON, replaced whenever they change"],
  listen: ["[HOST:]PORT", "HTTP on this machine in place of the standard input; 0: any port"],
  tokenFile: ["FILE", "holds the token that HTTP asks for; made if it is not there"],
  replay: ["FILE", "prints the weights that a metrics.jsonl, or messages, would have given"],
} as const;

export type MixFlags = { readonly [F in keyof typeof mixFlags]: string | null };

export interface MixArguments {
  /** Path of a config file, whose other options are left aside. */
  readonly config: string | null;
  /** Flags of the table that were given, by key path. */
  readonly given: ReadonlyMap<string, Raw>;
  readonly flags: MixFlags;
}

export const mixExample = `Example: your trainer starts this, writes a line and reads a line (it was given
two domains, and aligned them with its target at step 10):
  $ gradmix mix --domains web,code --state-file mix.json
  {"type":"observe","step":10,"alignments":{"web":0.1,"code":0.4}}
  {"type":"weights","step":10,"changed":true,"weights":{"web":0.28,"code":0.72},…}
`;

/** Runs the command; gives the exit code. Throws `config`, `data`, `checkpoint` and `io`. */
export async function mix(args: MixArguments, err: Output): Promise<number> {
  const { flags } = args;
  checkTogether(flags);
  const init = initOf(args);
  if (flags.replay !== null) return replayFile(flags.replay, init);
  if (init !== null && !("domains" in init))
    throw wrong(
      "the rule is given, and the domains are not: add --domains A,B, or say both in the first line (init)",
    );
  const { stateFile, weightsFile, listen } = flags;
  const address = listen === null ? null : addressOf(listen);
  if (stateFile !== null) lock(stateFile);
  const { createKeeper } = await import("../mix/keeper.ts");
  const keeper = createKeeper({ state: stateFile, weights: weightsFile });
  if (init !== null) {
    const reply = keeper.message(init);
    if (reply.type === "error")
      throw new GradmixError("config", `${reply.field === null ? "" : `${reply.field}: `}${reply.error}`);
  }
  if (address !== null) {
    const [{ startServer }, { writeLine }] = await Promise.all([
      import("../mix/server.ts"),
      import("../mix/lines.ts"),
    ]);
    const { tokenFile } = flags;
    const token = tokenFile === null ? newToken() : tokenOf(tokenFile);
    const { url } = await startServer(keeper, { ...address, token });
    await writeLine(process.stdout, {
      type: "listening",
      url,
      ...(tokenFile === null ? { token } : { tokenFile }),
    });
    // Until a signal ends the process: whatever was replied is on disk.
    return new Promise(() => {});
  }
  // Ctrl-C at a terminal reaches the trainer too, which may want the state once more; this process ends with its input.
  if (!process.stdin.isTTY) process.on("SIGINT", () => {});
  else err.write('one message a line, {"type":"init","domains":[…]} first; Ctrl-D ends\n');
  const { serveLines } = await import("../mix/lines.ts");
  await serveLines(process.stdin, process.stdout, keeper.line);
  return 0;
}

function checkTogether(flags: MixFlags): void {
  const { replay, listen, tokenFile, stateFile, weightsFile } = flags;
  if (tokenFile !== null && listen === null) throw wrong("--token-file: only --listen asks for a token");
  for (const [flag, value] of Object.entries({
    "--listen": listen,
    "--state-file": stateFile,
    "--weights-file": weightsFile,
  }))
    if (replay !== null && value !== null)
      throw wrong(`${flag}: --replay prints what would have been and keeps nothing; leave one of them out`);
  if (stateFile !== null && weightsFile !== null && resolve(stateFile) === resolve(weightsFile))
    throw wrong(`--weights-file: ${weightsFile} is the file of --state-file; choose another`);
}

/** The `init` that flags and config file make; null where they say nothing. Without `domains` where they name none. */
function initOf({ config: file, given, flags }: MixArguments): Message | null {
  const own = new Set(Object.keys(taken));
  const inFile = file === null ? null : fileLayer(file);
  const layers = [commandLineLayer(given), ...(inFile === null ? [] : [inFile])].map(
    ({ values, label }): Layer => ({ values: new Map([...values].filter(([key]) => own.has(key))), label }),
  );
  const domains = flags.domains === null ? namesIn(inFile, "data.domains") : domainsOf(flags.domains);
  if (domains === null && flags.sizes === null && layers.every(({ values }) => values.size === 0))
    return null;
  const valueOf = (path: string): unknown =>
    layers.map(({ values }) => values.get(path)).find((value) => value !== undefined);
  // No text is read here: globs and folders stand for what the checks of `gradmix train` ask for.
  const anything = ["-"];
  const rule = valueOf("mixing.rule");
  const { targets } = Object(valueOf("mixing.ruleOptions")) as { targets?: unknown };
  const targetNames = Array.isArray(targets) ? targets.map(String) : (namesIn(inFile, "data.targets") ?? []);
  const named = domains ?? [
    ...(
      (valueOf("mixing.weights") ?? valueOf("mixing.histogram") ?? new Map([["-", 1]])) as Map<string, number>
    ).keys(),
  ];
  const placeholders = new Map<string, unknown>([
    ["data.domains", new Map(named.map((name) => [name, anything]))],
    ["data.target", anything],
    ...(rule === "grape"
      ? [["data.targets", new Map(targetNames.map((name) => [name, anything]))] as const]
      : []),
    ...(rule === "doremi" ? [["mixing.reference", "-"] as const] : []),
  ]);
  const resolved = resolveConfig([{ values: placeholders, label: (path) => path }, ...layers]);
  const { mixing } = presetOf(resolved);
  const chosen = mixerOptionsOf(mixing, targetNames);
  const { tokens } = resolved.training;
  return {
    type: "init",
    ...(domains === null ? {} : { domains }),
    rule: chosen.rule,
    combinators: chosen.combinators,
    updateEvery: valueOf("mixing.updateEvery") ?? null,
    updateAfter: mixing.updateAfter,
    ...(tokens === null ? {} : { tokens }),
    ...(flags.sizes === null ? {} : { sizes: Object.fromEntries(sharesOf(flags.sizes, "--sizes")) }),
    // A rule that was given a histogram has it already.
  };
}

function namesIn(layer: Layer | null, path: string): string[] | null {
  const value = layer?.values.get(path);
  return value instanceof Map ? [...(value as ReadonlyMap<string, unknown>).keys()] : null;
}

function domainsOf(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  const at = names.indexOf("");
  if (at >= 0) throw wrong(`--domains: "${text}" has no name at place ${at + 1}; names are A,B,C`);
  return names;
}

function sharesOf(text: string, label: string): ReadonlyMap<string, number> {
  const kind = { type: "shares", sumsToOne: false } as const;
  return checkValue(kind, fromArguments(kind, [text], label), label) as ReadonlyMap<string, number>;
}

/** HOST:PORT, [HOST]:PORT or PORT. */
function addressOf(text: string): { readonly host: string; readonly port: number } {
  const [, bracketed, plain, digits] = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?(\d+)$/.exec(text) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535)
    throw wrong(
      `--listen: "${text}" is not [HOST:]PORT, such as 8123, 127.0.0.1:8123 or 0 for any free port`,
    );
  return { host: bracketed ?? plain ?? "127.0.0.1", port };
}

/** However the process ends that handles its end, the lock goes with it; that of one that was killed is taken over. */
function lock(file: string): void {
  try {
    mkdirSync(resolve(dirname(file)), { recursive: true });
  } catch (error) {
    throw ioError(file, error);
  }
  const { release } = takeFileLock(file);
  process.once("exit", release);
}

const newToken = (): string => randomBytes(32).toString("base64url");

/** Short ones can be guessed. */
const SHORTEST_TOKEN = 16;

/** The token in a file, or a new one that is written there, for this user alone. */
function tokenOf(path: string): string {
  try {
    if (!existsSync(path)) {
      const token = newToken();
      mkdirSync(resolve(dirname(path)), { recursive: true });
      const file = openSync(path, "wx", 0o600);
      try {
        writeSync(file, `${token}\n`);
      } finally {
        closeSync(file);
      }
      return token;
    }
    const token = readFileSync(path, "utf8").trim();
    if (token.length < SHORTEST_TOKEN || /\s/.test(token))
      throw wrong(
        `--token-file: ${path} holds no token of at least ${SHORTEST_TOKEN} characters; delete it, and one is made`,
      );
    // Windows has no such modes.
    if (process.platform !== "win32" && (statSync(path).mode & 0o077) !== 0)
      throw wrong(`--token-file: others can read ${path}; chmod 600 it`);
    return token;
  } catch (error) {
    if (error instanceof GradmixError) throw error;
    throw new GradmixError("io", `--token-file: ${path} cannot be used (${reason(error)})`, { cause: error });
  }
}

async function replayFile(path: string, init: Message | null): Promise<number> {
  const [{ linesOf, writeLine }, { replay }] = await Promise.all([
    import("../mix/lines.ts"),
    import("../mix/replay.ts"),
  ]);
  const input = createReadStream(path);
  try {
    const given = Object.fromEntries(Object.entries(init ?? {}).filter(([, value]) => value !== null));
    for await (const reply of replay(linesOf(input), { source: path, init: given }))
      if (!(await writeLine(process.stdout, reply))) break;
  } catch (error) {
    if (error instanceof GradmixError || errorCode(error) === "") throw error;
    throw new GradmixError("io", `--replay: ${path} cannot be read (${reason(error)})`, { cause: error });
  } finally {
    input.destroy();
  }
  return 0;
}
