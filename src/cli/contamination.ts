/**
 * Finds the domains' documents that contain held-out text of the target, on which the run is evaluated. They are counted and named and, on
 * request, left out of training.
 */
import type { Document } from "../data/index.node.ts";
import { GRAM, heldOutText, type Overlap, type OverlapIndex } from "../data/contamination.ts";
import { beginning, GradmixError } from "../errors.ts";
import type { ContaminationFacts, OverlapCounts } from "../runs/facts.ts";
import { isDomain, labelName } from "./labels.ts";
import type { LabelKind } from "./read-documents.ts";
import { configError } from "./values.ts";

export interface ContaminationCheck {
  /** Adds a held-out document of a target. All of them must come before the documents of domains. */
  readonly heldOut: (text: string) => void;
  /** Whether a document of a domain is used for training. */
  keeps(domain: string, document: Document): boolean;
  /** The documents of a domain that are used for training. Throws like `checkLeft`. */
  filter(domain: string, documents: AsyncIterable<Document>): AsyncGenerator<Document, void, undefined>;
  /** Throws `data` for a domain without any remaining document. */
  checkLeft(domain: string): void;
  /** What was found; null if there was nothing to compare with. */
  facts(): ContaminationFacts | null;
}

/** Largest number of documents that are named. */
const NAMED = 20;

/** Characters of all domains together that are compared if no document is to be left out, which takes less than a second. */
const LOOKED = 1 << 26;

interface Counted {
  /** Number of documents, and of those that were compared. */
  total: number;
  compared: number;
  /** Number of characters that were compared. */
  characters: number;
  counts: OverlapCounts;
}

/**
 * With `drops`, all documents are compared, and those that share text with held-out documents are left out. Otherwise the first documents of
 * each of `domainCount` domains are compared.
 */
export function contaminationCheck(drops: boolean, domainCount: number): ContaminationCheck {
  const text = heldOutText();
  const domains = new Map<string, Counted>();
  const examples: ContaminationFacts["examples"][number][] = [];
  const most = drops ? Infinity : LOOKED / Math.max(1, domainCount);
  let index: OverlapIndex | null = null;
  const countedOf = (domain: string): Counted => {
    const known = domains.get(domain);
    if (known !== undefined) return known;
    const fresh: Counted = { total: 0, compared: 0, characters: 0, counts: none };
    domains.set(domain, fresh);
    return fresh;
  };
  const keeps = (domain: string, { text: own, source }: Document): boolean => {
    index ??= text.index();
    const of = countedOf(domain);
    of.total++;
    if (index.documents === 0 || of.characters >= most) return true;
    of.compared++;
    of.characters += own.length;
    const overlap = index.compare(own);
    if (overlap === null) return true;
    of.counts = more(of.counts, overlap);
    if (examples.length < NAMED) examples.push({ domain, source, ...overlap });
    return !drops;
  };
  const checkLeft = (domain: string): void => {
    const { total, counts } = countedOf(domain);
    if (drops && total > 0 && counts.documents === total)
      throw new GradmixError(
        "data",
        `domain "${domain}": each of its ${total} documents holds held-out text of the target, so --drop-contaminated leaves nothing; leave the domain out, or hold out other text (--data-seed)`,
      );
  };
  return {
    heldOut: text.add,
    keeps,
    async *filter(domain, documents) {
      for await (const document of documents) if (keeps(domain, document)) yield document;
      checkLeft(domain);
    },
    checkLeft,
    facts() {
      if (index === null || index.documents === 0) return null;
      return {
        words: GRAM,
        heldOutDocuments: index.documents,
        comparedDocuments: index.looked,
        foundDocuments: index.found(),
        documents: [...domains.values()].reduce((sum, { total }) => sum + total, 0),
        lookedAt: [...domains.values()].reduce((sum, { compared }) => sum + compared, 0),
        dropped: drops,
        domains: new Map(
          [...domains].flatMap(([name, { counts }]) =>
            counts.documents === 0 ? [] : [[name, counts] as const],
          ),
        ),
        examples,
      };
    },
  };
}

const none: OverlapCounts = { documents: 0, copies: 0, nearCopies: 0 };

const more = (counts: OverlapCounts, { kind }: Overlap): OverlapCounts => ({
  documents: counts.documents + 1,
  copies: counts.copies + (kind === "copy" ? 1 : 0),
  nearCopies: counts.nearCopies + (kind === "near copy" ? 1 : 0),
});

/** A line for the user; null if nothing was found. */
export function contaminationLine(facts: ContaminationFacts): string | null {
  const { words, documents, lookedAt, heldOutDocuments, comparedDocuments, foundDocuments } = facts;
  const { domains, examples } = facts;
  const sum = (of: (counts: OverlapCounts) => number): number =>
    [...domains.values()].reduce((total, counts) => total + of(counts), 0);
  const [found, copies, near] = [sum((c) => c.documents), sum((c) => c.copies), sum((c) => c.nearCopies)];
  const firstOf = (few: number, all: number): string =>
    few < all ? `the first ${number(few)} (of ${number(all)})` : number(all);
  const heldOut = firstOf(comparedDocuments, heldOutDocuments);
  if (found === 0) return null;
  const worst = [...domains].sort(([, a], [, b]) => b.documents - a.documents);
  const shown = worst.slice(0, 3).map(([name, counts]) => `${name} ${number(counts.documents)}`);
  const rest = worst.length > 3 ? ` and ${worst.length - 3} more domains` : "";
  const { source, words: shared } = examples[0]!;
  return [
    `contamination: ${number(found)} of ${firstOf(lookedAt, documents)} documents of the domains contain text of ${number(foundDocuments)} of ${heldOut} held-out documents of the target (${words} consecutive words, or the whole document; copies: ${number(copies)}, near copies: ${number(near)}): ${shown.join(", ")}${rest}`,
    `for example ${source}: "${beginning(shared, 80)}"`,
    facts.dropped ? "they are left out" : "--drop-contaminated leaves them out",
  ].join("; ");
}

const number = (count: number): string => count.toLocaleString("en");

/**
 * Describes which data cannot be compared, because token files contain no words; null if all can. Throws `config` if `--drop-contaminated` was
 * given.
 */
export function uncomparedFiles(drops: boolean, kinds: readonly LabelKind[]): string | null {
  if (kinds.every(({ label }) => isDomain(label))) {
    if (drops)
      throw configError(
        "--drop-contaminated: there is no target whose held-out text could be in the domains",
      );
    return null;
  }
  const tokens = kinds.filter(({ kind }) => kind === "tokens").map(({ label }) => labelName(label));
  if (tokens.length === 0) return null;
  const what =
    tokens.length === 1
      ? `${tokens[0]} consists of token files`
      : `${tokens[0]} and ${tokens.length - 1} more consist of token files`;
  if (drops)
    throw configError(
      `--drop-contaminated: ${what}, which contain no words to compare; use the text that they were made from`,
    );
  return `contamination: ${what}, which contain no words; they were not compared with the target's held-out text`;
}
