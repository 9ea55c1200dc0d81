/** Reads a run's folder for the page. */
import { type MetricsPosition, misplaced, readRunHead, scanMetrics } from "../runs/record.ts";
import { addLine, gather, type Gathered } from "./collect.ts";

/** Collects everything that is in the folder, and the position after it. Throws like `readRunRecord`, and `data` for lines that do not follow each other. */
export function gatherFolder(folder: string): { gathered: Gathered; position: MetricsPosition } {
  const gathered = gather(readRunHead(folder));
  const position = scanMetrics(folder, (line) => {
    const { step } = gathered;
    if (!addLine(gathered, line)) throw misplaced(folder, line, step);
  });
  return { gathered, position };
}
