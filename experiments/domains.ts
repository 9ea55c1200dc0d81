/** The domains of a cell: files as they are, or all their windows cut anew, with the target's histogram over them. */
import { GradmixError } from "gradmix";
import { type Dataset, type TokenStream, type Windows, windowsOf } from "gradmix/data";
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
  /** Shares of a target's windows that belong to each domain. */
  histogram(target: TokenStream): number[];
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

export async function domainsOf(cell: Cell, text: Text): Promise<Domains> {
  const { domains, cap, cut } = cell.text;
  const time = cell.model.context;
  const streams = domains.map((name) => firstTokens(splitNamed("domains", text, name).train, cap));
  if (cut === undefined)
    return {
      names: domains,
      sets: streams.map((stream, i) => windowsOf(domains[i], stream, time)),
      sizes: streams.map(({ tokens }) => tokens.length),
      histogram: (target) => histogramOf(target, streams, { vocabulary: text.vocabulary, time }),
    };
  const whole = windowsOf("all", joinStreams(streams), time, { partial: "drop" });
  return cut.by === "pieces" ? piecesOf(whole, cut.count, text) : clusters(whole, cut.count, cell.text);
}

function piecesOf(whole: Windows, count: number, text: Text): Domains {
  const bounds = Array.from({ length: count + 1 }, (_, i) => Math.floor((i * whole.count) / count));
  const members = bounds.slice(1).map((end, i) => range(bounds[i], end));
  const stream = (i: number): TokenStream => ({
    tokens: whole.stream.tokens.subarray(bounds[i] * whole.time, bounds[i + 1] * whole.time),
    documents: new Float64Array(0),
  });
  return {
    ...subsets("piece", whole, members),
    histogram: (target) =>
      histogramOf(
        target,
        members.map((_, i) => stream(i)),
        { vocabulary: text.vocabulary, time: whole.time },
      ),
  };
}

async function clusters(whole: Windows, count: number, source: Cell["text"]): Promise<Domains> {
  const depth = Math.round(Math.log(count) / Math.log(BRANCHES));
  const key = createHash("sha256")
    .update(JSON.stringify([source.domains, source.cap, source.vocabulary, whole.time]))
    .update(whole.stream.tokens)
    .digest("hex")
    .slice(0, 16);
  const { root, idf } = await clusteringOf(key, () => windowTokens(whole.stream, whole.time));
  const nodes = clustersAt(root, depth);
  const index = new Map(nodes.map((node, i) => [node, i]));
  return {
    ...subsets(
      "cluster",
      whole,
      nodes.map(({ members }) => Array.from(members)),
    ),
    histogram(target) {
      const { rows } = tfidf(windowTokens(target, whole.time), idf);
      const found = nodes.map(() => 0);
      const windows = rows.offsets.length - 1;
      for (let row = 0; row < windows; row++)
        found[index.get(clusterOf(root, depth, rows, row)) ?? NaN] += 1 / windows;
      return found;
    },
  };
}

/** The inputs of each whole window. */
function windowTokens({ tokens }: TokenStream, time: number): (Uint16Array | Uint32Array)[] {
  const count = Math.floor((tokens.length - 1) / time);
  return Array.from({ length: count }, (_, w) => tokens.subarray(w * time, (w + 1) * time));
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

function subsets(
  word: string,
  whole: Windows,
  members: readonly (readonly number[])[],
): Pick<Domains, "names" | "sets" | "sizes"> {
  const names = members.map((_, i) => `${word} ${i + 1}`);
  return {
    names,
    sets: members.map((own, i) => ({
      name: names[i],
      count: own.length,
      tokensOf: (index: number) => whole.tokensOf(own[index]),
      batchOf: (indices: readonly number[]) => whole.batchOf(indices.map((index) => own[index])),
    })),
    sizes: members.map((own) => own.length * whole.time),
  };
}
