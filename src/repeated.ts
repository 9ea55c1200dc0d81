/** Finds a name that a list has twice, in linear time: there can be many thousand domains. */

/** Index of the first name that has come before; −1 if all are different. */
export function firstRepeated(names: readonly string[]): number {
  const known = new Set<string>();
  for (const [i, name] of names.entries()) {
    if (known.has(name)) return i;
    known.add(name);
  }
  return -1;
}
