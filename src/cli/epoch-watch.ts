/** Domains that are being learnt by heart: gone through more often than a few times, while the loss on their held-out text rises. */
import { isObject, parseJson, plainJson } from "../json.ts";

/** Where no cap says how often a domain may be gone through: up to four times repeated text is worth about as much as new (Muennighoff and others, arXiv 2305.16264). */
export const EPOCHS = 4;

export interface EpochWatch {
  /** A line for every domain of which that is true for the first time. `losses` are of held-out text that is the same each time for one `source`. */
  note(source: "evaluation" | "guard", losses: ReadonlyMap<string, number>): string[];
  /** For a checkpoint: `createEpochWatch` goes on from it. */
  saved(): string;
}

/** `epochsOf` tells how often a domain has been gone through. */
export function createEpochWatch(
  most: number,
  epochsOf: (name: string) => number,
  saved?: unknown,
): EpochWatch {
  const { last, warned } = stateOf(saved);
  return {
    note: (source, losses) =>
      [...losses].flatMap(([name, loss]) => {
        const key = `${source} ${name}`;
        const before = last.get(key) ?? Infinity;
        last.set(key, loss);
        const epochs = epochsOf(name);
        if (!(loss > before) || !(epochs > most) || warned.has(name)) return [];
        warned.add(name);
        return [
          `domain "${name}" has been read ${epochs.toFixed(1)} times and its held-out loss rises (${before.toFixed(3)}, then ${loss.toFixed(3)}): the model memorises it; --ceiling "${name}=X" or --repetition-cap limits this`,
        ];
      }),
    saved: () => JSON.stringify({ last: [...last], warned: [...warned] }),
  };
}

function stateOf(saved: unknown): { readonly last: Map<string, number>; readonly warned: Set<string> } {
  const nothing = { last: new Map<string, number>(), warned: new Set<string>() };
  if (typeof saved !== "string") return nothing;
  // The checkpoint's checksum says that it is what was written.
  const found = plainJson(parseJson(saved, { source: "the domains' epochs", code: "checkpoint" }));
  if (!isObject(found)) return nothing;
  return {
    last: new Map(found["last"] as [string, number][]),
    warned: new Set(found["warned"] as string[]),
  };
}
