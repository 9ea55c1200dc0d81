/** Finds options that were given and have no effect in a run. The table of options says when each of them has none. */
import { type OptionRow, optionRows } from "./options.ts";
import type { KnownRun } from "./options/spec.ts";
import type { TrainConfig } from "./train-config.ts";

const rows: readonly OptionRow[] = optionRows();

/** Returns a line for each of these options. What is not known yet is left out or null. */
export function unusedOptions(config: TrainConfig, known: Partial<Omit<KnownRun, "config">> = {}): string[] {
  const run: KnownRun = { config, backend: null, readsTokens: null, ...known };
  return rows.flatMap(({ path, section, key, idle }) => {
    if (idle === undefined || !isGiven(Reflect.get(config[section], key))) return [];
    const why = idle(run);
    const members =
      why === null || typeof why === "string" ? [[path, why]] : why.map((one, i) => [`${path}[${i}]`, one]);
    return members.flatMap(([what, why]) => (why === null ? [] : [`${what} has no effect: ${why}`]));
  });
}

/** Makes a function that tells these lines, each of them once, while more becomes known of a run. */
export function unusedTeller(
  config: TrainConfig,
  tell: (line: string) => void,
): (known?: Partial<Omit<KnownRun, "config">>) => void {
  const told = new Set<string>();
  return (known = {}) => {
    for (const line of unusedOptions(config, known)) {
      if (!told.has(line)) tell(line);
      told.add(line);
    }
  };
}

/** Whether the value of an option with `idle` was given; such an option is null, false or empty otherwise. */
function isGiven(value: unknown): boolean {
  return (
    value !== null && value !== undefined && value !== false && !(Array.isArray(value) && value.length === 0)
  );
}
