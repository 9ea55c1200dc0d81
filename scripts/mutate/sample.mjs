// @ts-check
/** Draws the mutants that are tried, and estimates the result for all of them. */

/** Returns a uniform sample of `count` of the `items`, in their order; the same seed gives the same sample (Mulberry32). */
/** @template T @param {readonly T[]} items @param {number} count @param {number} seed @returns {T[]} */
export function drawSample(items, count, seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const places = items.map((_, i) => i);
  for (let i = 0; i < Math.min(count, places.length); i++) {
    const j = i + Math.floor(uniform() * (places.length - i));
    [places[i], places[j]] = [places[j], places[i]];
  }
  return places
    .slice(0, count)
    .sort((a, b) => a - b)
    .map((i) => items[i]);
}

/** Wilson's 95 % interval of a share, of `hits` in `count` drawn. @param {number} hits @param {number} count */
export function interval(hits, count) {
  if (count === 0) return { low: 0, high: 1 };
  const z = 1.959964;
  const share = hits / count;
  const spread = z * Math.sqrt((share * (1 - share)) / count + z ** 2 / (4 * count ** 2));
  const scale = 1 + z ** 2 / count;
  const middle = share + z ** 2 / (2 * count);
  return { low: (middle - spread) / scale, high: (middle + spread) / scale };
}

/**
 * A line per place.
 * @template {{ file: string }} Outcome
 * @param {readonly string[]} places
 * @param {readonly (Outcome & { verdict: string })[]} outcomes
 * @param {readonly { file: string, reason: string | null }[]} mutants
 * @param {(mutant: { file: string }) => string} placeOf
 */
export function summarise(places, outcomes, mutants, placeOf) {
  const header = ["", "mutants", "equivalent", "tried", "killed", "survived", "not covered", "share killed"];
  const rows = places.map((place) => {
    const all = mutants.filter((mutant) => placeOf(mutant) === place);
    const equivalent = all.filter(({ reason }) => reason !== null).length;
    const tried = outcomes.filter((outcome) => placeOf(outcome) === place);
    const count = (/** @type {string} */ verdict) =>
      tried.filter((outcome) => outcome.verdict === verdict).length;
    const percent = (/** @type {number} */ share) => (100 * share).toFixed(1);
    const killed = count("killed");
    const { low, high } = interval(killed, tried.length);
    const sampled = tried.length < all.length - equivalent;
    const share =
      tried.length === 0
        ? "–"
        : `${percent(killed / tried.length)} %${sampled ? ` (95 %: ${percent(low)}–${percent(high)})` : ""}`;
    const numbers = [all.length, equivalent, tried.length, killed, count("survived"), count("not covered")];
    return [place, ...numbers.map(String), share];
  });
  const table = [header, ...rows];
  const widths = header.map((_, i) => Math.max(...table.map((row) => (row[i] ?? "").length)));
  return table.map((row) =>
    row
      .map((cell, i) =>
        i === 0 || i === header.length - 1 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0),
      )
      .join("  ")
      .trimEnd(),
  );
}
