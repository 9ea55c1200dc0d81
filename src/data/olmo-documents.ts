/**
 * Finds the documents of an OLMo `.npy` by the table that dolma writes beside it: `NAME.csv.gz`, one row per document, without a header, of
 * `start,end,id,src,loc`, the first two in tokens (dolma, python/dolma/tokenizer/memmap_writer.py).
 */
import { existsSync } from "node:fs";
import { GradmixError } from "../errors.ts";
import { contents } from "./contents.ts";
import type { TokenFile } from "./token-files.ts";

/** The file with the ends of its documents, if a table beside it has them. Throws `data` for a table that is cut off or does not belong to the file. */
export async function withDocuments(file: TokenFile): Promise<TokenFile> {
  const table = file.path.replace(/\.npy$/i, ".csv.gz");
  if (file.format !== "OLMo" || !existsSync(table)) return file;
  const ends = await readEnds(table);
  const last = ends.at(-1) ?? 0;
  if (last !== file.length)
    throw new GradmixError(
      "data",
      `${file.path}: ${table} says ${last} tokens, but the file has ${file.length}: one of them is cut off, or the table belongs to another file; move the table away, so that documents are found by their end of text`,
    );
  return { ...file, ends: Float64Array.from(ends) };
}

const numberOf = (value = ""): number => (/^\d+$/.test(value) ? Number(value) : NaN);

async function readEnds(table: string): Promise<number[]> {
  const { CsvError, parse } = await import("csv-parse");
  const fails = (what: string, cause?: unknown): GradmixError =>
    new GradmixError("data", `${table}: ${what}`, { cause });
  const ends: number[] = [];
  let row = 0;
  const parser = parse({
    relax_column_count: true,
    skip_empty_lines: true,
    on_record(record: readonly string[]) {
      row++;
      if (row === 1 && record[0] === "start") return null;
      const [start, end] = [numberOf(record[0]), numberOf(record[1])];
      if (!(end >= start) || start !== (ends.at(-1) ?? 0))
        throw fails(
          `row ${row} covers tokens ${record[0] ?? ""} to ${record[1] ?? ""}, but the document before it ends at ${ends.at(-1) ?? 0}`,
        );
      ends.push(end);
      return null;
    },
  });
  parser.resume();
  // The error is reported by the calls that meet it.
  parser.on("error", () => {});
  const write = (bytes: Uint8Array): Promise<void> =>
    new Promise((done, fail) =>
      parser.write(bytes, (error) => (error instanceof Error ? fail(error) : done())),
    );
  try {
    for await (const bytes of contents(table, "gzip")) await write(bytes);
    await new Promise<void>((done, fail) => {
      parser.on("error", fail).on("end", done);
      parser.end();
    });
  } catch (error) {
    throw error instanceof CsvError ? fails(`it is not a table (${error.message})`, error) : error;
  } finally {
    parser.destroy();
  }
  return ends;
}
