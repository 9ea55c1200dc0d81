/** Domains that are being learnt by heart: gone through more often than a few times, while the loss on their held-out text rises. */
import { list, number, object, pair, parse, type Schema, string } from "../schema.ts";

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
  // Checkpoints of before have none.
  if (typeof saved !== "string") return { last: new Map(), warned: new Set() };
  const { last, warned } = parse(watched, saved, { source: "the domains' epochs", code: "checkpoint" });
  return { last: new Map(last), warned: new Set(warned) };
}

interface Watched {
  readonly last: readonly (readonly [string, number])[];
  readonly warned: readonly string[];
}

export const watched: Schema<Watched> = object<Watched>({
  last: list(pair(string, number)),
  warned: list(string),
});
