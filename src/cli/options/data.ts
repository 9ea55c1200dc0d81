/** Options of the text: the domains, the target, and how text becomes tokens. */
import { GRAM } from "../../data/contamination.ts";
import { choice, decimal, domains, globs, text, toggle, integer } from "./kinds.ts";
import type { Idle, KnownRun, SectionTable } from "./spec.ts";

/** Size of the vocabulary if none is given. */
export const vocabSizeOtherwise = 1024;

const ofDomain =
  "a domain of training text: its name and its files. Repeat for each domain, and for several globs of one domain. Replaces all domains of the config file. Files may be plain text, .jsonl, .csv, .tsv or .parquet";
const ofTokenizer =
  "bpe: train a byte-level BPE on the domains; byte: one token per byte; FILE: read a tokenizer.json; NAME: a vocabulary of OpenAI (gpt2, cl100k_base, o200k_base; needs the package gpt-tokenizer)";

function withoutTokens({ readsTokens }: KnownRun): Idle {
  return readsTokens === false ? "no domain and no target consists of files of tokens" : null;
}

export const dataOptions: SectionTable<"data"> = {
  domains: {
    flag: "--domain",
    value: "NAME=GLOB",
    kind: domains,
    default: new Map(),
    auto: "required, unless --domains is given",
    help: `${ofDomain}, each of these but .parquet also as .gz or .zst, tokens (.bin, .ds, .npy), or - for standard input`,
    helpForText: `${ofDomain}, each of these but .parquet also as .gz or .zst`,
  },
  domainsFrom: {
    flag: "--domains",
    value: "DIR|GLOB",
    kind: globs,
    default: [],
    auto: "none",
    help: "many domains at once: each folder and each file in DIR, or each file that matches GLOB, is a domain with the name of its path. Repeatable, also together with --domain. Replaces all domains of the config file",
  },
  domainField: {
    flag: "--domain-field",
    value: "NAME",
    kind: text,
    default: null,
    auto: "none",
    help: "with --domains: the field of a document that holds the name of its domain",
  },
  target: {
    flag: "--target",
    value: "GLOB",
    kind: globs,
    default: [],
    auto: "required by rules that align, such as dga, and by importanceSampling",
    help: "the small set of text at which the model should become good. Repeatable",
  },
  targets: {
    flag: "--targets",
    value: "NAME=GLOB",
    kind: domains,
    default: new Map(),
    auto: "required by --rule grape",
    help: "one of several targets: its name and its files. Repeatable. Without --target, the run is evaluated on the first of these",
  },
  textField: {
    flag: "--text-field",
    value: "NAME",
    kind: text,
    default: "text",
    help: "the field of .jsonl lines, or the column of a table, that holds the text; a.b is the field b within a",
  },
  skipBadLines: {
    flag: "--skip-bad-lines",
    kind: toggle,
    default: false,
    help: "skip and count broken lines and rows, invalid UTF-8 and files that are not text, instead of stopping",
  },
  dropContaminated: {
    flag: "--drop-contaminated",
    kind: toggle,
    default: false,
    help: `leave out documents of the domains that share ${GRAM} consecutive words, or all their words, with a held-out document of the target`,
  },
  heldOut: {
    flag: "--held-out",
    value: "SHARE",
    kind: decimal({ min: 0, max: 0.9, openMin: true }),
    default: 0.1,
    help: "share of the documents of each domain and of the target that is held out for evaluation",
  },
  seed: {
    flag: "--data-seed",
    value: "N",
    kind: integer(0, Number.MAX_SAFE_INTEGER),
    default: null,
    auto: "the value of --seed",
    help: "seed that decides which documents are held out; set it to evaluate runs with different --seed on the same text",
  },
  tokenizer: {
    flag: "--tokenizer",
    value: "bpe|byte|NAME|FILE",
    kind: text,
    default: "bpe",
    help: `${ofTokenizer}; none: all data are files of tokens, and --vocab-size gives the number of ids (a prepared folder and --init-from know it)`,
    helpForText: ofTokenizer,
  },
  vocabSize: {
    flag: "--vocab-size",
    value: "N",
    kind: integer(2, 1_000_000),
    default: null,
    otherwise: vocabSizeOtherwise,
    idle: ({ config: { data } }) =>
      data.tokenizer === "bpe" || data.tokenizer === "none"
        ? null
        : `the tokenizer ${data.tokenizer} has a vocabulary of its own`,
    helpForText: "size of the vocabulary that bpe trains (257 or more)",
    help: "size of the vocabulary that bpe trains (257 or more), or of the files of tokens with --tokenizer none, which has no default",
  },
  endOfText: {
    flag: "--end-of-text",
    value: "ID",
    kind: integer(0),
    default: null,
    auto: "the tokenizer's",
    idle: withoutTokens,
    help: "id of the token that ends a document, for files of tokens without an index (.bin, .npy)",
  },
  tokenType: {
    flag: "--token-type",
    value: "u16|u32",
    kind: choice(["u16", "u32"]),
    default: null,
    auto: "u16 in .bin",
    idle: withoutTokens,
    help: "type of the tokens, for files that do not state it (.npy of OLMo, .bin of nanoGPT)",
  },
};
