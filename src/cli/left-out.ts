/** What reading text leaves out: lines that `--skip-bad-lines` skips, and documents without text. Each command reports both once, at the end of its reading. */
import { GradmixError } from "../errors.ts";
import { formatBadLines } from "./progress.ts";

/** Counts what is left out, as the callbacks of `readDocuments`. */
export interface LeftOutTally {
  readonly onSkip: (source: string, reason: string) => void;
  readonly onEmpty: (source: string) => void;
  /** Passes on the documents of a label. Throws `data` if there are none because all of them were skipped. */
  some<D>(label: string, documents: AsyncIterable<D>): AsyncGenerator<D, void, undefined>;
  /** Forgets what was counted, because the text is read again. */
  clear(): void;
  /** Lines for the user, at most one of each kind. */
  lines(): string[];
}

export function leftOutTally(): LeftOutTally {
  let [bad, empty, first, last] = [0, 0, "", ""];
  return {
    onSkip(source, reason) {
      bad++;
      last = `${source}: ${reason}`;
    },
    async *some(label, documents) {
      const before = bad;
      let found = false;
      for await (const document of documents) {
        found = true;
        yield document;
      }
      if (!found && bad > before)
        throw new GradmixError(
          "data",
          `${label}: --skip-bad-lines left out all of its text (the last: ${last}); mend its files, or do not name them`,
        );
    },
    onEmpty(source) {
      if (empty === 0) first = source;
      empty++;
    },
    clear() {
      [bad, empty, first, last] = [0, 0, "", ""];
    },
    lines: () => [
      ...(bad === 0 ? [] : [`skipped ${formatBadLines(bad)}`]),
      ...(empty === 0 ? [] : [formatEmpty(empty, first)]),
    ],
  };
}

/** `1,000 empty documents were left out, the first at corpus/a.jsonl:12` */
export function formatEmpty(count: number, first: string): string {
  return count === 1
    ? `1 empty document was left out, at ${first}`
    : `${count.toLocaleString("en")} empty documents were left out, the first at ${first}`;
}
