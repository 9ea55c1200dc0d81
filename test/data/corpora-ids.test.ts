/**
 * Token ids of real text against those of Hugging Face's library in Rust. Real text is not part of the project: GRADMIX_CORPORA names a folder with it;
 * without the variable the test is skipped.
 */
import { listFiles, openTokenizer, readDocuments, type Tokenizer, trainBpe } from "gradmix/data";
import { beforeAll, describe, expect, test } from "vitest";
import { libraryTokenizer } from "#dist/data/library-tokenizer.js";

const corpora = process.env["GRADMIX_CORPORA"];

describe.skipIf(corpora === undefined)("on all text of GRADMIX_CORPORA", () => {
  const texts: string[] = [];
  beforeAll(async () => {
    for await (const { text } of readDocuments(await listFiles([`${corpora}/**/*.jsonl.gz`])))
      texts.push(text);
    expect(texts.length).toBeGreaterThan(0);
  });

  test.each(["learned", "gpt2", "cl100k_base", "o200k_base"])(
    "the ids of %s equal those of Hugging Face's library",
    async (name) => {
      const own: Tokenizer =
        name === "learned" ? await trainBpe(texts, { vocabSize: 8192 }) : openTokenizer(name);
      const theirs = libraryTokenizer(own.toJSON(), "it is compared with");
      expect(theirs.vocabSize).toBe(own.vocabSize);
      let [ids, differ] = [0, 0];
      for (const text of texts) {
        const [found, expected] = [own.encode(text), theirs.encode(text)];
        ids += found.length;
        if (Buffer.compare(Buffer.from(found.buffer), Buffer.from(expected.buffer)) !== 0) differ++;
      }
      expect([name, differ]).toEqual([name, 0]);
      expect(ids).toBeGreaterThan(texts.length);
    },
    600_000,
  );
});
