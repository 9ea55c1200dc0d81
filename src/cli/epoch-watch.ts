/** Detects domains that the model memorises: those that training has repeated more than a few times while the loss on their held-out text rises. */
import { list, number, object, pair, parse, type Schema, string } from "../schema.ts";

export interface EpochWatch {
  /**
   * Returns a line for each domain that is detected for the first time. The `losses` of one `source` are always measured on the same held-out
   * text.
   */
  note(source: "evaluation" | "guard", losses: ReadonlyMap<string, number>): string[];
  /** The state for a checkpoint, from which `createEpochWatch` continues. */
  saved(): string;
}

/** `epochsOf` returns how many times training has gone through a domain. */
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
  // Older checkpoints contain no such state.
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
