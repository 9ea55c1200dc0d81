/** The facts of a run beside its configuration: the file run.json, as plain data. In the file, Maps are objects. */
import { sampledSize } from "../data/sampled-size.ts";

/** Facts about text that was read, of a domain or of a target. */
export interface TextFacts {
  readonly files: number;
  readonly documents: number;
  /** Training tokens, including one end-of-text token per document. */
  readonly tokens: number;
  /** Tokens that are held out for evaluation. */
  readonly heldOutTokens: number;
  /**
   * UTF-8 bytes of the held-out text, 0 if they are unknown (files of tokens). A loss of L nats per token is L · heldOutTokens / (heldOutBytes · ln
   * 2) bits per byte.
   */
  readonly heldOutBytes: number;
  /** SHA-256 of the text, or of the bytes of token files, file by file. */
  readonly sha256: string;
}

/** Counts of a domain's documents that contain held-out text of a target. */
export interface OverlapCounts {
  /** All such documents, including copies and near copies. */
  readonly documents: number;
  /** Documents with the same words as a held-out document. */
  readonly copies: number;
  /** Documents of which at least 80 % of the runs of words occur in held-out documents. */
  readonly nearCopies: number;
}

export interface ContaminationFacts {
  /** Length of the runs of words that must be the same. */
  readonly words: number;
  readonly heldOutDocuments: number;
  /** Number of held-out documents that were searched for. */
  readonly comparedDocuments: number;
  /** Number of these that were found in a domain. */
  readonly foundDocuments: number;
  /** Number of documents of all domains. */
  readonly documents: number;
  /** Number of these that were compared: if the text is long, the first of each domain; if found documents are dropped, all. */
  readonly lookedAt: number;
  /** Whether the found documents were left out of training. */
  readonly dropped: boolean;
  /** The domains in which documents were found. */
  readonly domains: ReadonlyMap<string, OverlapCounts>;
  /** The first documents that were found, with the first words that they share. */
  readonly examples: readonly {
    readonly domain: string;
    readonly source: string;
    readonly kind: "copy" | "near copy" | "part";
    readonly words: string;
  }[];
}

export interface RunFacts {
  /** Version of this layout. */
  readonly version: 1;
  /** Versions of gradmix and of Node.js. */
  readonly gradmix: string;
  readonly node: string;
  readonly backend: string;
  /** SIMD level of the cpu backend, or name of the GPU. */
  readonly simd: string;
  readonly precision: string;
  readonly threads: number;
  readonly rule: string;
  readonly seed: number;
  /** Seed that decides which documents are held out. */
  readonly dataSeed: number;
  /** Number of planned steps. */
  readonly steps: number;
  /** Windows per step. */
  readonly batch: number;
  /** Tokens per window. */
  readonly context: number;
  readonly parameters: number;
  readonly vocabSize: number;
  /** How many times the run may repeat a domain; null if the rule has no limit, or the text is too short for it. */
  readonly repetitions: number | null;
  /** Largest number of tokens of the target's held-out text that an evaluation reads; null without a target. */
  readonly evaluatedTokens: number | null;
  /** Costs counted before the run, as shares of the training's computation. */
  readonly cost: { readonly alignment: number; readonly guard?: number; readonly evaluation: number };
  /** Facts of the domains, in the order of the weights. */
  readonly domains: ReadonlyMap<string, TextFacts>;
  /** Share of each domain's windows that the run was trained on, those that resemble its target most; absent if it was trained on all text. */
  readonly selected?: ReadonlyMap<string, number>;
  /** Facts of the target; null if the run has none. */
  readonly target: TextFacts | null;
  /** Further targets by name; empty for most rules. */
  readonly targets: ReadonlyMap<string, TextFacts>;
  /** Held-out text of the targets that was found in the domains; null or absent if it was not searched for. */
  readonly contamination?: ContaminationFacts | null;
  /** Names of the bases whose weights the rule moves; null if it moves those of the domains. */
  readonly bases: readonly string[] | null;
}

/** Factor from a mean loss in nats per token to bits per byte of held-out text; null if nothing is held out or its bytes are unknown. */
export function bitsPerByte({ heldOutTokens, heldOutBytes }: TextFacts, loss: number): number | null {
  return heldOutBytes === 0 ? null : (loss * heldOutTokens) / (heldOutBytes * Math.LN2);
}

/** The number of tokens of each domain from which a run with these selected shares samples, from those of its training text. */
export function sampledTokens(
  tokens: Iterable<readonly [string, number]>,
  selected: RunFacts["selected"],
): Map<string, number> {
  const sampledOf = (name: string, n: number): number => {
    if (selected === undefined) return n;
    const share = selected.get(name);
    if (share === undefined) throw new Error(`no share of "${name}" is selected`);
    return sampledSize(n, share);
  };
  return new Map(Array.from(tokens, ([name, n]) => [name, sampledOf(name, n)]));
}
