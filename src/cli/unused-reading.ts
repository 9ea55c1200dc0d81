/** Finds options of reading that were given and have no effect on the files of a command. */
import { hasFields } from "../data/sources.ts";
import { isTokenFile } from "../data/token-files.ts";

export interface UnusedReading {
  readonly key: "textField" | "skipBadLines";
  readonly why: string;
}

/**
 * Returns each given option without effect, and why. `files` are all files that are read, and `unreadable` is the number of paths that were left out
 * because they cannot be read, which `skipBadLines` alone allows.
 */
export function unusedReading(
  files: readonly string[],
  unreadable: number,
  given: { readonly [K in UnusedReading["key"]]: boolean },
): UnusedReading[] {
  const unused: UnusedReading[] = [];
  if (files.length === 0) return unused;
  const isTokens = files.every(isTokenFile);
  if (given.textField && !files.some(hasFields))
    unused.push({
      key: "textField",
      why: isTokens
        ? "all files hold tokens, which have no fields"
        : "no file is .jsonl, .ndjson, .csv, .tsv or .parquet, so none has fields",
    });
  if (given.skipBadLines && isTokens && unreadable === 0)
    unused.push({ key: "skipBadLines", why: "all files hold tokens, which have no lines" });
  return unused;
}
