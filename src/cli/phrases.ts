/** Phrases of messages about many things. */

/** The number with its noun: "1 file", "2 files". */
export const countOf = (n: number, one: string, many: string): string => `${n} ${n === 1 ? one : many}`;

/** The first three items, and how many more there are. */
export function firstFew(items: readonly string[]): string {
  return items.slice(0, 3).join(", ") + (items.length > 3 ? ` and ${items.length - 3} more` : "");
}
