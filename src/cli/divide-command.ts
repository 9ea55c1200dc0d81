/**
 * `gradmix divide`: divides each domain into parts by how much its documents resemble a target. It writes a folder like that of `gradmix cluster`,
 * which other commands take as domains:
 *
 *     clusters.json    the parts by name (code.1 resembles the target most): documents, bytes, tokens, likeness; the files, and how they were read
 *     ids/NAME.npy     for each file NAME.jsonl the part of every document, in order (i32)
 */
import { existsSync, realpathSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { giveTurn } from "../backends/turn.ts";
import type { Tokenizer } from "../data/byte-level.ts";
import { utf8Length } from "../data/bytes.ts";
import { type Likeness, likenessInSteps, partsByScore, partsIn } from "../data/likeness.ts";
import { encodeNpy } from "../data/npy.ts";
import { readDocuments } from "../data/sources.ts";
import { runStepsInTurns } from "../data/steps.ts";
import { isTokenFile } from "../data/token-files.ts";
import { GradmixError } from "../errors.ts";
import { makeFolders } from "../folders-node.ts";
import { formatJson } from "../json.ts";
import { ioError, writeFolderAtomic } from "../node/files.ts";
import { shellWord } from "../shell-word.ts";
import { isClusterFolder } from "./cluster-folder.ts";
import { namesOfIds } from "./cluster-ids.ts";
import { commandLineLayer, fileLayer, type Layer } from "./config.ts";
import type { DivideArguments } from "./divide-arguments.ts";
import { type Inputs, listInputs } from "./inputs.ts";
import { listenForInterrupt } from "./interrupt.ts";
import { checkOutputs, filesAmong, filesOf } from "./outputs.ts";
import { displayWidth, startProgress } from "./progress.ts";
import { readData } from "./read-data.ts";
import { textHash } from "./text-hash.ts";
import { configOf, type Outputs } from "./train.ts";
import { dataSeed, type TrainConfig } from "./train-config.ts";
import { unusedOptions } from "./unused-options.ts";
import { configError } from "./values.ts";
import { version } from "./version.ts";

/** Runs the command and returns the exit code. Throws `config`, `data` and `io`. The folder appears once it is complete. */
export async function divide(args: DivideArguments, { out, err }: Outputs): Promise<number> {
  const config = await readConfig(args);
  const outputs = [["--out", args.out] as const];
  const others = filesAmong([args.config, config.data.tokenizer, ...args.given.values()]);
  checkOutputs(outputs, others);
  if (existsSync(args.out)) throw isThere(args.out);
  const progress = startProgress(err, 0);
  const interrupt = listenForInterrupt({
    output: err,
    line: () => progress.line("stopping; Ctrl-C again to stop at once"),
    atOnce: () => {},
  });
  let report = "";
  try {
    const print = (line: string): void => {
      if (!config.run.quiet) progress.line(line);
    };
    const hooks = { onEvent: print, signal: interrupt.signal };
    const inputs = await listInputs({ ...config.data, out: null }, hooks);
    checkOutputs(outputs, [...others, ...filesOf(inputs)]);
    checkInputs(inputs);
    for (const line of unusedOptions(config, { readsTokens: filesOf(inputs).some(isTokenFile) })) print(line);
    const divided = await divideInputs(config, args.parts, inputs, hooks);
    writeParts(args, config, divided);
    report = `${formatParts(divided.parts)}files  ${args.out}\n`;
    print(`train on the parts with: gradmix train --domains ${shellWord(args.out)} --target …`);
  } catch (error) {
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
    progress.line("stopped; nothing was written");
    return interrupt.exitCode();
  } finally {
    interrupt.stop();
    progress.end();
    await err.flush();
  }
  await out.deliver(report);
  return 0;
}

async function readConfig({ config: file, given, rows }: DivideArguments): Promise<TrainConfig> {
  const taken = new Set(rows.map(({ path }) => path));
  const layers = [commandLineLayer(given), ...(file === null ? [] : [fileLayer(file)])].map(
    ({ values, label }): Layer => ({ values: new Map([...values].filter(([key]) => taken.has(key))), label }),
  );
  if (layers.find(({ values }) => values.has("data.tokenizer"))?.values.get("data.tokenizer") === "none")
    throw configError("--tokenizer none: text needs a tokenizer: bpe, byte or a tokenizer.json");
  // No rule runs, so a rule is chosen that needs nothing.
  const noRule: Layer = { values: new Map([["mixing.rule", "uniform"]]), label: (key) => key };
  const config = await configOf([noRule, ...layers]);
  const { target, domains, domainsFrom } = config.data;
  if (target.length === 0)
    throw configError(
      "gradmix divide needs a target, to which the documents are compared: add --target GLOB",
    );
  if ([domainsFrom, target, ...domains.values()].flat().includes("-"))
    throw configError(
      '"-": the standard input cannot be read again by the runs that use the parts; write it to a file first',
    );
  const clusters = domainsFrom.find(isClusterFolder);
  if (clusters !== undefined)
    throw configError(
      `--domains ${clusters}: its documents are already divided into domains; name the text itself`,
    );
  return config;
}

/** Throws `config` for files of tokens, and for a file in two domains, because each of its documents has one part. */
function checkInputs({ domains, mixed }: Inputs): void {
  const owners = new Map<string, string>();
  const lists = [...domains, ...(mixed === null ? [] : [["the documents' field", mixed.files] as const])];
  for (const [name, files] of lists)
    for (const file of files) {
      if (isTokenFile(file))
        throw configError(
          `${file}: holds tokens, but only text can be divided; name the text of its documents`,
        );
      const place = realpathSync(file);
      const owner = owners.get(place);
      if (owner !== undefined)
        throw configError(
          owner === name
            ? `${file}: is named twice in the domain "${name}"; name it once`
            : `${file}: is in the domains "${owner}" and "${name}", but each document can be in one part only; name it in one of them`,
        );
      owners.set(place, name);
    }
}

/** A part of a domain, as in clusters.json. */
interface Part {
  readonly documents: number;
  readonly bytes: number;
  readonly tokens: number;
  /** Mean score of its tokens, in nats per token. */
  readonly likeness: number;
}

interface Divided {
  readonly parts: ReadonlyMap<string, Part>;
  readonly files: readonly {
    readonly path: string;
    readonly documents: number;
    readonly sha256: string;
    readonly ids: Int32Array;
  }[];
}

interface Hooks {
  readonly onEvent: (line: string) => void;
  readonly signal: AbortSignal;
}

async function divideInputs(
  config: TrainConfig,
  count: number,
  inputs: Inputs,
  hooks: Hooks,
): Promise<Divided> {
  const { data } = config;
  // The text is scored document by document, so windows do not matter.
  const plan = { ...data, context: 1, seed: dataSeed(config), out: null };
  const read = await readData(plan, { tokenizer: null, corpus: undefined }, hooks, inputs);
  const { tokenizer, target } = read;
  if (tokenizer === null || target === null) throw configError("gradmix divide needs text and a target");
  const streams = read.domains.map(({ train }) => train.stream);
  const likeness = await runStepsInTurns(likenessInSteps(target.train.stream, streams), hooks.signal);
  hooks.onEvent("comparing the documents with the target");
  return partsOfDocuments(await scoreInputs(inputs, data, { tokenizer, likeness }, hooks), inputs, count);
}

/** The documents of a file, in order: their domains, scores and sizes. */
interface ScoredFile {
  readonly path: string;
  readonly sha256: string;
  /** Index of the domain of each document. */
  readonly domain: readonly number[];
  readonly scores: readonly number[];
  readonly tokens: readonly number[];
  readonly bytes: readonly number[];
}

interface Scoring {
  readonly tokenizer: Tokenizer;
  readonly likeness: Likeness;
}

async function scoreInputs(
  { domains, mixed }: Inputs,
  { textField, domainField, skipBadLines }: TrainConfig["data"],
  scoring: Scoring,
  { signal }: Hooks,
): Promise<ScoredFile[]> {
  const index = new Map(Array.from(domains.keys(), (name, i) => [name, i]));
  const scored: ScoredFile[] = [];
  const score = async (file: string, domainOf: (value: string | undefined) => number): Promise<void> => {
    const hash = textHash();
    const found = {
      domain: [] as number[],
      scores: [] as number[],
      tokens: [] as number[],
      bytes: [] as number[],
    };
    for await (const document of readDocuments([file], {
      ...{ textField, skipBadLines },
      ...(mixed === null || domainField === null ? {} : { domainField }),
    })) {
      await giveTurn();
      signal.throwIfAborted();
      hash.add(document.text);
      const ids = scoring.tokenizer.encode(document.text);
      found.domain.push(domainOf(document.domain));
      found.scores.push(scoring.likeness(ids));
      // With the token that ends the document.
      found.tokens.push(ids.length + 1);
      found.bytes.push(utf8Length(document.text));
    }
    scored.push({ path: file, sha256: hash.digest(), ...found });
  };
  for (const [name, files] of domains)
    for (const file of files) await score(file, () => index.get(name) ?? NaN);
  for (const file of mixed?.files ?? [])
    await score(file, (value) => {
      const at = index.get(mixed?.domainOf.get(value ?? "") ?? "");
      if (at === undefined)
        throw new GradmixError(
          "data",
          `${file}: the domain ${JSON.stringify(value)} is new, so the file changed while it was read; run the command again`,
        );
      return at;
    });
  return scored;
}

/** A document: the index of its file, its index in that, its score and its size. */
interface Placed {
  readonly f: number;
  readonly d: number;
  readonly score: number;
  readonly tokens: number;
  readonly bytes: number;
}

/** Divides the documents of each domain, over all its files. */
function partsOfDocuments(scored: readonly ScoredFile[], { domains }: Inputs, count: number): Divided {
  const parts = new Map<string, Part>();
  const ids = scored.map(({ scores }) => new Int32Array(scores.length));
  const placed = Array.from(domains.keys(), (): Placed[] => []);
  for (const [f, { domain, scores, tokens, bytes }] of scored.entries())
    domain.forEach((i, d) =>
      placed[i]!.push({ f, d, score: scores[d]!, tokens: tokens[d]!, bytes: bytes[d]! }),
    );
  for (const [i, name] of [...domains.keys()].entries()) {
    const own = placed[i]!;
    const found = partsByScore(
      own.map(({ score }) => score),
      own.map(({ tokens }) => tokens),
      count,
    );
    const first = parts.size;
    own.forEach(({ f, d }, at) => (ids[f]![d] = first + found[at]!));
    for (let part = 0; part < partsIn(found); part++) {
      const documents = own.filter((_, at) => found[at] === part);
      const sum = (of: (one: Placed) => number): number =>
        documents.reduce((total, one) => total + of(one), 0);
      const tokens = sum((one) => one.tokens);
      parts.set(`${name}.${part + 1}`, {
        documents: documents.length,
        bytes: sum((one) => one.bytes),
        tokens,
        likeness: sum((one) => one.score * one.tokens) / tokens,
      });
    }
  }
  return {
    parts,
    files: scored.map(({ path, sha256, scores }, f) => ({
      path: resolve(path),
      documents: scores.length,
      sha256,
      ids: ids[f]!,
    })),
  };
}

function isThere(folder: string): GradmixError {
  return configError(`--out ${folder}: already exists; choose another folder`);
}

function writeParts(
  { out, parts: count }: DivideArguments,
  { data, ...config }: TrainConfig,
  { parts, files }: Divided,
): void {
  const names = namesOfIds(files.map(({ path }) => path)).map((name) => `ids/${name}.npy`);
  const description = {
    version: 1,
    gradmix: version(),
    ...{ parts: count, target: data.target, textField: data.textField },
    seed: dataSeed({ data, ...config }),
    documents: files.reduce((sum, { documents }) => sum + documents, 0),
    clusters: parts,
    files: files.map(({ path, documents, sha256 }, f) => ({ path, documents, sha256, ids: names[f] })),
  };
  const contents = new Map<string, Uint8Array>([
    ["clusters.json", new TextEncoder().encode(`${formatJson(description, 2)}\n`)],
    ...files.map(({ ids }, f) => [names[f]!, encodeNpy({ shape: [ids.length], values: ids })] as const),
  ]);
  try {
    makeFolders(dirname(resolve(out)));
  } catch (error) {
    throw ioError(out, error);
  }
  if (existsSync(out)) throw isThere(out);
  writeFolderAtomic(resolve(out), contents);
}

/** Number of parts that are printed. */
const SHOWN = 100;

function formatParts(parts: ReadonlyMap<string, Part>): string {
  const shown = [...parts].slice(0, SHOWN);
  const n = (value: number): string => value.toLocaleString("en");
  const heading = ["part", "documents", "tokens", "likeness (nats per token)"];
  const rows = [
    heading,
    ...shown.map(([name, { documents, tokens, likeness }]) => [
      name,
      n(documents),
      n(tokens),
      likeness.toFixed(3).replace(/^-/, "−"),
    ]),
  ];
  const widths = heading.map((_, column) => Math.max(...rows.map((row) => displayWidth(row[column]!))));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const space = " ".repeat(widths[column]! - displayWidth(cell));
        return column === 0 ? `${cell}${space}` : `${space}${cell}`;
      })
      .join("  ");
  const rest = parts.size - shown.length;
  return `${rows.map((row) => `${line(row)}\n`).join("")}${rest > 0 ? `and ${rest} more parts\n` : ""}`;
}
