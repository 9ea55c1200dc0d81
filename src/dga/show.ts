/** Values in error messages. */

/** A value of any kind in a few words on one line, for messages. `String` would fail on an object that has its own `toString`. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  return String(value);
}
