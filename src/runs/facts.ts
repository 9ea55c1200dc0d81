/** What a run found and used beside its configuration: the file run.json, as plain data. In the file Maps are objects. */

/** Text as it was read: of a domain, or of a target. */
export interface TextFacts {
  readonly files: number;
  readonly documents: number;
  /** Tokens that are trained on, an end-of-text token per document included. */
  readonly tokens: number;
  /** Tokens that are held out for evaluation. */
  readonly heldOutTokens: number;
  /** UTF-8 bytes of the text that is held out, 0 where they are not known (files of tokens): a loss of L nats per token is L · heldOutTokens / (heldOutBytes · ln 2) bits per byte. */
  readonly heldOutBytes: number;
  /** SHA-256 of the text, or of the bytes of files of tokens, file by file. */
  readonly sha256: string;
}

/** Documents of a domain that hold held-out text of a target. */
export interface OverlapCounts {
  /** With copies and near copies. */
  readonly documents: number;
  /** The same words as a held-out document. */
  readonly copies: number;
  /** At least 80 % of their runs of words stand in held-out documents. */
  readonly nearCopies: number;
}

export interface ContaminationFacts {
  /** Words in a row that have to be the same. */
  readonly words: number;
  readonly heldOutDocuments: number;
  /** Of them those that were looked for. */
  readonly comparedDocuments: number;
  /** Of them those of which a domain holds some. */
  readonly foundDocuments: number;
  /** Of all domains. */
  readonly documents: number;
  /** Of them those that were compared: the first of each domain where the text is long, all where they are dropped. */
  readonly lookedAt: number;
  /** Whether those found were left out of training. */
  readonly dropped: boolean;
  /** Domains in which some was found. */
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
  /** Of this layout. */
  readonly version: 1;
  /** Versions of gradmix and of Node.js. */
  readonly gradmix: string;
  readonly node: string;
  readonly backend: string;
  /** SIMD level of the cpu backend, name of a GPU. */
  readonly simd: string;
  readonly precision: string;
  readonly threads: number;
  readonly rule: string;
  readonly seed: number;
  /** Decided which documents are held out. */
  readonly dataSeed: number;
  /** Planned. */
  readonly steps: number;
  /** Windows per step. */
  readonly batch: number;
  /** Tokens per window. */
  readonly context: number;
  readonly parameters: number;
  readonly vocabSize: number;
  /** How often a domain may be repeated over the run, as far as the rule limits it; null where it does not, or the text is too little for the limit. */
  readonly repetitions: number | null;
  /** Tokens of the target's held-out text that an evaluation reads, at most; null without a target. */
  readonly evaluatedTokens: number | null;
  /** Counted before the run, as shares of the training's computation. */
  readonly cost: { readonly alignment: number; readonly guard?: number; readonly evaluation: number };
  /** In the order of the weights. */
  readonly domains: ReadonlyMap<string, TextFacts>;
  /** null where the run has no target. */
  readonly target: TextFacts | null;
  /** Further targets by name; empty for most rules. */
  readonly targets: ReadonlyMap<string, TextFacts>;
  /** Held-out text of the targets in the domains; null or absent where it was not looked for. */
  readonly contamination?: ContaminationFacts | null;
  /** Names of the bases whose weights the rule moves; null where it moves those of the domains. */
  readonly bases: readonly string[] | null;
}

/** Bits per byte of held-out text at a mean loss in nats per token; null where nothing is held out, or its bytes are not known. */
export function bitsPerByte({ heldOutTokens, heldOutBytes }: TextFacts, loss: number): number | null {
  return heldOutBytes === 0 ? null : (loss * heldOutTokens) / (heldOutBytes * Math.LN2);
}
