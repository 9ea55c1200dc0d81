/** Finds the known word that is closest to a mistyped one, for hints such as "did you mean …?". */

/** The candidate with the smallest edit distance from `word`, or null if none is close. Case, dashes, underscores, dots and spaces are ignored. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  const plain = fold(word);
  let best: string | null = null;
  let bestDistance = Infinity;
  for (const candidate of candidates) {
    const known = fold(candidate);
    // If one word is a prefix of the other, they are closer than their edit distance.
    const prefix =
      Math.min(plain.length, known.length) >= 3 && (known.startsWith(plain) || plain.startsWith(known));
    const distance = prefix ? 0.5 : editDistance(plain, known);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  // A single letter is at a distance of 1 from every other one, so it suggests nothing.
  return bestDistance < plain.length && bestDistance <= Math.max(1, Math.floor(plain.length / 3))
    ? best
    : null;
}

function fold(word: string): string {
  return word.toLowerCase().replaceAll(/[-_. ]/g, "");
}

/** The smallest number of insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, (before[j - 2] ?? 0) + 1);
      row.push(cost);
    }
    before = previous;
    previous = row;
  }
  return previous[b.length] ?? 0;
}
