/** A process that runs cells one after another, with one thread. Each message is a cell, and the answer is its result. */
import { init } from "gradmix";
import type { Cell } from "./cell.ts";
import { runCell } from "./run-cell.ts";
import { findCorpora, type Text, textOf } from "./text.ts";

const corpora = findCorpora(process.argv[2] ?? "");
const texts = new Map<number, Text>();
await init({ backend: "cpu", threads: 1, vectorBits: "auto" });

async function run(cell: Cell): Promise<void> {
  const { vocabulary } = cell.text;
  const text = texts.get(vocabulary) ?? (await textOf(corpora, vocabulary));
  texts.set(vocabulary, text);
  const result = await runCell(cell, text);
  process.send?.({ result });
}

process.on("message", (cell: Cell) => {
  run(cell).catch((error: unknown) => {
    process.send?.({ error: error instanceof Error ? error.message : String(error) });
  });
});
// The process that started this one has ended.
process.on("disconnect", () => process.exit(0));
