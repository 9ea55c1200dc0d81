/** The hash of a file's text. run.json, checkpoints and clusters.json use it to recognise the text. */
import { createHash } from "node:crypto";

export interface TextHash {
  /** Adds the next document. */
  add(text: string): void;
  /** Returns the SHA-256 of all documents in hexadecimal. */
  digest(): string;
}

export function textHash(): TextHash {
  const hash = createHash("sha256");
  return {
    // The lengths are hashed too, so that moving text from one document to the next changes the hash.
    add: (text) => void hash.update(`${text.length}\n`).update(text),
    digest: () => hash.digest("hex"),
  };
}
