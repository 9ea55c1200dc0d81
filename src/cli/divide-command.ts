/**
 * `gradmix divide`: divides each domain into parts by how much its documents resemble a target. It writes a folder like that of `gradmix cluster`,
 * which other commands take as domains:
 *
 *     clusters.json    the parts by name (code.1 resembles the target most): documents, bytes, tokens, likeness; the files, and how they were read
 *     ids/NAME.npy     for each file NAME.jsonl the part of every document, in order (i32)
 */
import { existsSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { giveTurn } from "../backends/turn.ts";
import type { Tokenizer } from "../data/byte-level.ts";
import { utf8Length } from "../data/bytes.ts";
import { buildCorpus } from "../data/corpus.ts";
import { documentSizes, likenessInSteps, partsByScore, partsIn } from "../data/likeness.ts";
import { encodeNpy } from "../data/npy.ts";
import { readDocuments } from "../data/sources.ts";
import { runStepsInTurns } from "../data/steps.ts";
import { isTokenFile } from "../data/token-files.ts";
import { type TokenStream, tokenWriter } from "../data/tokens.ts";
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import { shellWord } from "../shell-word.ts";
import { isClusterFolder, isThere, moveToOut } from "./cluster-folder.ts";
import { namesOfIds } from "./cluster-ids.ts";
import { divideWork, openWork, type Work } from "./cluster-work.ts";
import type { DivideArguments } from "./divide-arguments.ts";
import { type Inputs, listInputs } from "./inputs.ts";
import { untilInterrupted } from "./interrupt.ts";
import { leftOutTally, type LeftOutTally } from "./left-out.ts";
import { checkOutputs, filesAmong, filesOf } from "./outputs.ts";
import { formatRows, startProgress } from "./progress.ts";
import { tokenizerOfPlan } from "./choose-tokenizer.ts";
import { checkTokenizes, noRule, takenLayers } from "./taken-options.ts";
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
  const print = (line: string): void => {
    if (!config.run.quiet) progress.line(line);
  };
  let report = "";
  const stopped = await untilInterrupted(
    { output: err, status: progress, stopped: "stopped; nothing was written" },
    async (signal) => {
      const hooks = { onEvent: print, signal };
      const inputs = await listInputs({ ...config.data, out: null }, hooks);
      checkOutputs(outputs, [...others, ...filesOf(inputs)]);
      checkInputs(inputs);
      for (const line of unusedOptions(config, { readsTokens: false })) print(line);
      const work = openEmptyWork(args.out);
      let divided: Divided;
      try {
        divided = await divideInputs(config, args.parts, inputs, hooks);
        writeParts(work, args, config, divided);
      } finally {
        work.end(true);
      }
      report = `${formatParts(divided.parts)}files  ${args.out}\n`;
      print(`train on the parts with: gradmix train --domains ${shellWord(args.out)} --target …`);
    },
  );
  if (stopped !== null) return stopped;
  await out.deliver(report);
  return 0;
}

async function readConfig({ config: file, given, rows }: DivideArguments): Promise<TrainConfig> {
  const layers = takenLayers(given, file, rows);
  checkTokenizes(layers);
  const config = await configOf([noRule(false), ...layers]);
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
function checkInputs(inputs: Inputs): void {
  const tokens = filesOf(inputs).find(isTokenFile);
  if (tokens !== undefined)
    throw configError(
      `${tokens}: holds tokens, but gradmix divide compares text; name the text of its documents`,
    );
  const { domains, mixed } = inputs;
  const owners = new Map<string, string>();
  const lists = [...domains, ...(mixed === null ? [] : [["the documents' field", mixed.files] as const])];
  for (const [name, files] of lists)
    for (const file of files) {
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

/** A file, as in clusters.json, with the part of each of its documents. */
interface DividedFile {
  readonly path: string;
  readonly documents: number;
  readonly sha256: string;
  readonly ids: Int32Array;
}

interface Divided {
  readonly parts: ReadonlyMap<string, Part>;
  readonly files: readonly DividedFile[];
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
  const seed = dataSeed(config);
  // The tokenizer does not depend on windows.
  const tokenizer = await tokenizerOfPlan({ ...data, context: 1, seed, out: null }, inputs, hooks);
  const { textField, skipBadLines, heldOut } = data;
  const leftOut = leftOutTally();
  const { onSkip, onEmpty } = leftOut;
  const documents = readDocuments(inputs.target, { textField, skipBadLines, onSkip, onEmpty });
  // As in a run, so that the text on which it is evaluated decides nothing.
  const { train: target } = await buildCorpus("target", documents, tokenizer, { heldOut, seed });
  const read = await readDomains(inputs, { ...data, onSkip, onEmpty }, tokenizer, hooks.signal);
  for (const line of leftOut.lines()) hooks.onEvent(line);
  hooks.onEvent("comparing the documents with the target");
  const streams = read.domains.map(({ stream }) => stream);
  const scores = await runStepsInTurns(likenessInSteps(target, streams), hooks.signal);
  return dividedBy(scores, read, count);
}

/** The text of the domains, with the place of each document. */
interface ReadDomains {
  readonly domains: readonly {
    readonly name: string;
    readonly stream: TokenStream;
    /** For each document: the index of its file, its index in that, and its UTF-8 bytes. */
    readonly places: readonly (readonly [file: number, document: number, bytes: number])[];
  }[];
  readonly files: readonly Omit<DividedFile, "ids">[];
}

async function readDomains(
  { domains, mixed }: Inputs,
  {
    textField,
    domainField,
    skipBadLines,
    onSkip,
    onEmpty,
  }: TrainConfig["data"] & Pick<LeftOutTally, "onSkip" | "onEmpty">,
  tokenizer: Tokenizer,
  signal: AbortSignal,
): Promise<ReadDomains> {
  const reading = new Map(
    Array.from(domains.keys(), (name) => [
      name,
      {
        writer: tokenWriter(tokenizer.vocabSize, tokenizer.endOfText),
        places: [] as [number, number, number][],
      },
    ]),
  );
  const files: Omit<DividedFile, "ids">[] = [];
  const read = async (file: string, nameOf: (value: string) => string | undefined): Promise<void> => {
    const hash = textHash();
    let documents = 0;
    for await (const { text, domain = "" } of readDocuments([file], {
      ...{ textField, skipBadLines, onSkip, onEmpty },
      ...(mixed === null || domainField === null ? {} : { domainField }),
    })) {
      await giveTurn();
      signal.throwIfAborted();
      hash.add(text);
      const own = reading.get(nameOf(domain) ?? "");
      if (own === undefined)
        throw new GradmixError(
          "data",
          `${file}: the domain ${JSON.stringify(domain)} is new, so the file changed while it was read; run the command again`,
        );
      own.writer.document(tokenizer.encode(text));
      own.places.push([files.length, documents, utf8Length(text)]);
      documents++;
    }
    files.push({ path: resolve(file), documents, sha256: hash.digest() });
  };
  for (const [name, list] of domains) for (const file of list) await read(file, () => name);
  for (const file of mixed?.files ?? []) await read(file, (value) => mixed?.domainOf.get(value));
  const empty = [...reading].find(([, { places }]) => places.length === 0);
  if (empty !== undefined) throw new GradmixError("data", `domain "${empty[0]}": its files have no text`);
  return {
    domains: Array.from(reading, ([name, { writer, places }]) => ({ name, places, stream: writer.finish() })),
    files,
  };
}

/** Divides the documents of each domain, over all its files. */
function dividedBy(scores: readonly Float64Array[], { domains, files }: ReadDomains, count: number): Divided {
  const parts = new Map<string, Part>();
  const ids = files.map(({ documents }) => new Int32Array(documents));
  for (const [i, { name, stream, places }] of domains.entries()) {
    const own = scores[i]!;
    const sizes = documentSizes(stream);
    const found = partsByScore(own, sizes, count);
    const first = parts.size;
    const sums = Array.from({ length: partsIn(found) }, () => ({
      documents: 0,
      bytes: 0,
      tokens: 0,
      score: 0,
    }));
    for (const [at, [file, document, bytes]] of places.entries()) {
      const part = found[at]!;
      ids[file]![document] = first + part;
      const sum = sums[part]!;
      sum.documents++;
      sum.bytes += bytes;
      sum.tokens += sizes[at]!;
      sum.score += own[at]! * sizes[at]!;
    }
    for (const [part, { score, ...sum }] of sums.entries())
      parts.set(`${name}.${part + 1}`, { ...sum, likeness: score / sum.tokens });
  }
  return { parts, files: files.map((file, f) => ({ ...file, ids: ids[f]! })) };
}

/** Opens the folder in which the result is made, without what a command that was killed has left there: all of it is quickly made again. */
function openEmptyWork(out: string): Work {
  let isLeft = false;
  const open = (): Work => openWork(out, divideWork, () => (isLeft = true));
  const work = open();
  if (!isLeft) return work;
  work.end(true);
  return open();
}

function writeParts(
  work: Work,
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
  files.forEach(({ ids }, f) =>
    work.write(join("whole", names[f]!), [encodeNpy({ shape: [ids.length], values: ids })]),
  );
  work.write(join("whole", "clusters.json"), [new TextEncoder().encode(`${formatJson(description, 2)}\n`)]);
  moveToOut(join(work.folder, "whole"), out);
}

/** Number of parts that are printed. */
const SHOWN = 100;

function formatParts(parts: ReadonlyMap<string, Part>): string {
  const shown = [...parts].slice(0, SHOWN);
  const n = (value: number): string => value.toLocaleString("en");
  const rows = [
    ["part", "documents", "tokens", "likeness (nats per token)"],
    ...shown.map(([name, { documents, tokens, likeness }]) => [
      name,
      n(documents),
      n(tokens),
      likeness.toFixed(3).replace(/^-/, "−"),
    ]),
  ];
  const rest = parts.size - shown.length;
  return `${formatRows(rows)}${rest > 0 ? `and ${rest} more parts\n` : ""}`;
}
