/** The hash of a file's text, by which run.json, checkpoints and clusters.json know it again. */
import { createHash } from "node:crypto";

export interface TextHash {
  /** The next document. */
  add(text: string): void;
  /** SHA-256 of all documents, in hexadecimal. */
  digest(): string;
}

export function textHash(): TextHash {
  const hash = createHash("sha256");
  return {
    // With lengths, so that text cannot move between documents unseen.
    add: (text) => void hash.update(`${text.length}\n`).update(text),
    digest: () => hash.digest("hex"),
  };
}
