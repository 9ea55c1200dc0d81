/** Reads numbers that a run saved in its checkpoint, one for each domain. */
import type { Checkpoint } from "../dga/checkpoint.ts";
import { faultOf, list, number, read } from "../schema.ts";

/**
 * The numbers under `key`, by the names of the domains, which have the order of the run; null if the checkpoint has none, or if there is no checkpoint.
 * Throws `checkpoint` for anything but one finite number per domain.
 */
export function savedNumbers(
  json: Checkpoint["json"] | undefined,
  key: string,
  names: readonly string[],
): ReadonlyMap<string, number> | null {
  const saved = json?.[key];
  if (saved === undefined) return null;
  const fault = faultOf({ source: "checkpoint", part: key, code: "checkpoint" });
  const numbers = read(list(number, names.length), saved, fault);
  return new Map(names.map((name, i) => [name, numbers[i]!]));
}
