/** The domains of a cell: one per file, or clusters or pieces of all their windows, with the target's histogram over them. */
import { GradmixError } from "gradmix";
import {
  bigramHistogram,
  type Dataset,
  divideByLikeness,
  type TokenStream,
  type Windows,
  windowsOf,
} from "gradmix/data";
import type { TokenBatch } from "gradmix/nn";
import { createHash } from "node:crypto";
import type { Cell } from "./cell.ts";
import { BRANCHES, clusterOf, clustersAt, tfidf } from "./clusters.ts";
import { histogramOf } from "./histogram.ts";
import { clusteringOf, firstTokens, joinStreams, type Split, type Text } from "./text.ts";

export interface Domains {
  readonly names: readonly string[];
  readonly sets: readonly Dataset<TokenBatch>[];
  /** Tokens of each. */
  readonly sizes: readonly number[];
  /** Returns the share of a target that resembles each domain: the library's estimate, or, for clusters, the share of the target's windows in each. */
  histogram(target: TokenStream): number[];
  /** Returns the same shares, counted with a simple classifier. */
  counts(target: TokenStream): number[];
}

/** Throws `data` for a domain that the corpora do not have. */
export function splitNamed(kind: "domains" | "targets", text: Text, name: string): Split {
  const found = Object.hasOwn(text[kind], name) ? text[kind][name] : undefined;
  if (found === undefined)
    throw new GradmixError(
      "data",
      `the corpora have no ${kind}/${name}.jsonl.gz, which this experiment trains on; there are ${Object.keys(text[kind]).join(", ")}`,
    );
  return found;
}

/** The name of a target that consists of all domains in equal parts. */
export const ALL_EVENLY = "all-domains-evenly";
/** The most tokens of each domain in this target's training text; its held-out text has as many. */
const EVEN_PART = 640;

/** Returns that target. Its text is held-out text of the domains, so that no run trains on it. */
function allEvenly({ domains }: Text): Split {
  const streams = Object.values(domains).map(({ heldOut }) => heldOut.tokens);
  const length = Math.min(EVEN_PART, ...streams.map((tokens) => tokens.length >> 1));
  const part = (from: number): TokenStream =>
    joinStreams(
      streams.map((tokens) => ({
        tokens: tokens.subarray(from, from + length),
        documents: Float64Array.of(0, length),
      })),
    );
  return { train: part(0), heldOut: part(length) };
}

/** Returns a target. A domain can be a target too, in runs that do not train on it. Throws `data` if the corpora have neither. */
export function targetNamed(text: Text, name: string): Split {
  if (name === ALL_EVENLY) return allEvenly(text);
  return splitNamed(Object.hasOwn(text.targets, name) ? "targets" : "domains", text, name);
}

/** `target` is the target's training text, which only parts by likeness need. */
export async function domainsOf(cell: Cell, text: Text, target: TokenStream | null = null): Promise<Domains> {
  const { domains, cap, cut } = cell.text;
  const time = cell.model.context;
  const streams = domains.map((name) => firstTokens(splitNamed("domains", text, name).train, cap));
  if (cut === undefined) {
    const sets = streams.map((stream, i) => windowsOf(domains[i], stream, time));
    const sizes = streams.map(({ tokens }) => tokens.length);
    return { names: domains, sets, sizes, ...bigrams(sets, text) };
  }
  if (cut.by !== "pieces" && cut.by !== "clusters") {
    if (target === null) throw new GradmixError("config", `${cut.by}: give the cell a target`);
    return partsOf(domains, divideByLikeness(target, streams, { parts: cut.count }), time, text);
  }
  const whole = windowsOf("all", joinStreams(streams), time, { partial: "drop" });
  return cut.by === "pieces" ? piecesOf(whole, cut.count, text) : clusters(whole, cut.count, cell.text);
}

const bigrams = (
  domains: readonly Windows<TokenStream>[],
  { vocabulary }: Text,
): Pick<Domains, "histogram" | "counts"> => ({
  histogram: (target) =>
    Array.from(bigramHistogram(windowsOf("target", target, domains[0].time), domains).shares),
  counts: (target) => histogramOf(windowsOf("target", target, domains[0].time), domains, vocabulary),
});

/** The parts of each domain as domains, without parts that are shorter than a window. */
function partsOf(
  names: readonly string[],
  parts: readonly (readonly TokenStream[])[],
  time: number,
  text: Text,
): Domains {
  const sets = parts.flatMap((own, i) =>
    own.flatMap((stream, j) =>
      stream.tokens.length > time ? [windowsOf(`${names[i]}.${j + 1}`, stream, time)] : [],
    ),
  );
  return {
    names: sets.map(({ name }) => name),
    sets,
    sizes: sets.map(({ stream }) => stream.tokens.length),
    ...bigrams(sets, text),
  };
}

function piecesOf(
  { stream, time, count: windows }: Windows<TokenStream>,
  count: number,
  text: Text,
): Domains {
  const sets = Array.from({ length: count }, (_, i) => {
    const [from, to] = [i, i + 1].map((piece) => Math.floor((piece * windows) / count) * time);
    const tokens = stream.tokens.subarray(from, to + 1);
    return windowsOf(`piece ${i + 1}`, { tokens, documents: Float64Array.of(0, tokens.length) }, time);
  });
  return {
    names: sets.map(({ name }) => name),
    sets,
    sizes: sets.map((set) => set.count * time),
    ...bigrams(sets, text),
  };
}

async function clusters(whole: Windows<TokenStream>, count: number, source: Cell["text"]): Promise<Domains> {
  const depth = Math.round(Math.log(count) / Math.log(BRANCHES));
  const key = createHash("sha256")
    .update(JSON.stringify([source.domains, source.cap, source.vocabulary, whole.time]))
    .update(whole.stream.tokens)
    .digest("hex")
    .slice(0, 16);
  const { root, idf } = await clusteringOf(key, () => windowTokens(whole.stream, whole.time));
  const nodes = clustersAt(root, depth);
  const index = new Map(nodes.map((node, i) => [node, i]));
  const counts = (target: TokenStream): number[] => {
    const { rows } = tfidf(windowTokens(target, whole.time), idf);
    const found = nodes.map(() => 0);
    const windows = rows.offsets.length - 1;
    for (let row = 0; row < windows; row++)
      found[index.get(clusterOf(root, depth, rows, row)) ?? NaN] += 1 / windows;
    return found;
  };
  return {
    names: nodes.map((_, i) => `cluster ${i + 1}`),
    sets: nodes.map(({ members }, i) => subset(`cluster ${i + 1}`, whole, members)),
    sizes: nodes.map(({ members }) => members.length * whole.time),
    histogram: counts,
    counts,
  };
}

/** Returns the inputs of each whole window. */
function windowTokens({ tokens }: TokenStream, time: number): (Uint16Array | Uint32Array)[] {
  const count = Math.floor((tokens.length - 1) / time);
  return Array.from({ length: count }, (_, w) => tokens.subarray(w * time, (w + 1) * time));
}

/** Returns a dataset of some of the windows. */
function subset(name: string, whole: Windows<TokenStream>, members: Int32Array): Dataset<TokenBatch> {
  return {
    name,
    count: members.length,
    tokensOf: (index) => whole.tokensOf(members[index]),
    batchOf: (indices) => whole.batchOf(indices.map((index) => members[index])),
  };
}
