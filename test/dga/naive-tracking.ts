/**
 * The tracking of `dga`, written only from its documentation: the whole history of measurements is kept, and every mean, variance and error is a plain
 * sum over it, for numbers of ordinary size.
 */
export interface Measured {
  readonly alignments: readonly number[];
  readonly errors: readonly (number | null)[];
  /** 0 for domains that were not measured. */
  readonly tokens: readonly number[];
}

export interface Naive {
  /** null for domains without a measurement. */
  readonly means: readonly (number | null)[];
  readonly tokens: readonly number[];
  readonly variances: readonly number[];
  /** σ, or null if errors were never measured; and the tokens from which it was estimated. */
  readonly sigma: number | null;
  readonly behind: number;
  readonly mean: number;
  readonly tau: number;
  /** The direction of the step; NaN for domains without a measurement. */
  readonly d: readonly number[];
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Solves Σ (xᵢ − m)²/(τ² + vᵢ) = n − 1 for τ² by bisection of its logarithm. Returns τ² and m. */
function randomEffects(x: readonly number[], v: readonly number[]): { mean: number; tau: number } {
  const meanAt = (square: number): number =>
    total(x.map((value, i) => value / (square + v[i]))) / total(v.map((own) => 1 / (square + own)));
  const excess = (square: number): number =>
    total(x.map((value, i) => (value - meanAt(square)) ** 2 / (square + v[i]))) - (x.length - 1);
  const plain = total(x) / x.length;
  // A number below every spread in the tests, which stands for 0, since errors may be 0.
  let [low, high] = [-70, 10];
  if (x.length < 2 || x.every((value) => value === x[0]) || excess(Math.exp(low)) <= 0) {
    const exact = v.some((own) => own === 0);
    return { mean: exact ? plain : meanAt(0), tau: 0 };
  }
  for (let n = 0; n < 200; n++) {
    const middle = (low + high) / 2;
    if (excess(Math.exp(middle)) > 0) low = middle;
    else high = middle;
  }
  return { mean: meanAt(Math.exp(high)), tau: Math.exp(high / 2) };
}

/** The state after the history. Each measurement is clipped by the state before it. */
export function naive(history: readonly Measured[], memory: number): Naive {
  const k = history[0].tokens.length;
  const values: { i: number; t: number; n: number; value: number }[] = [];
  const noises: { t: number; n: number; sigma: number }[] = [];
  const knownAfter = (last: number): Naive => {
    const age = (t: number): number => memory ** (last - t);
    const own = Array.from({ length: k }, (_, i) => values.filter((entry) => entry.i === i));
    const tokens = own.map((entries) => total(entries.map(({ t, n }) => age(t) * n)));
    const means = own.map((entries, i) =>
      tokens[i] > 0 ? total(entries.map(({ t, n, value }) => age(t) * n * value)) / tokens[i] : null,
    );
    const variances = own.map((entries, i) =>
      tokens[i] > 0 ? total(entries.map(({ t, n }) => age(t) ** 2 * n)) / tokens[i] ** 2 : 0,
    );
    const slow = (t: number): number => Math.max(memory, 0.9) ** (last - t);
    const behind = total(noises.map(({ t, n }) => slow(t) * n));
    const sigma =
      noises.length === 0
        ? null
        : Math.sqrt(total(noises.map(({ t, n, sigma: one }) => slow(t) * n * one ** 2)) / behind);
    const known = means.flatMap((mean, i) => (mean === null ? [] : [{ i, mean }]));
    const squares = known.map(({ i }) => (sigma ?? 0) ** 2 * variances[i]);
    const { mean, tau } =
      known.length === 0
        ? { mean: 0, tau: 0 }
        : randomEffects(
            known.map((one) => one.mean),
            squares,
          );
    const d = new Array<number>(k).fill(NaN);
    known.forEach(
      (one, j) =>
        (d[one.i] = tau === 0 || sigma === null ? 0 : ((one.mean - mean) * tau) / (tau ** 2 + squares[j])),
    );
    return { means, tokens, variances, sigma, behind, mean, tau, d };
  };
  history.forEach(({ alignments, errors, tokens }, t) => {
    const before = knownAfter(t - 1);
    const { sigma, tau, mean } = before;
    const told = errors.some((error, i) => error !== null && tokens[i] > 0);
    // The distance from the mean so far, in units of the expected distance for one token with the error 1.
    const innovation = (i: number, n: number): number | null => {
      const known = before.means[i];
      return known === null ? null : Math.sqrt((alignments[i] - known) ** 2 / (1 + n * before.variances[i]));
    };
    const clips = before.means.some((one) => one !== null) && sigma !== null && (sigma > 0 || tau > 0);
    tokens.forEach((n, i) => {
      if (n === 0) return;
      const limit = clips ? 4 * Math.sqrt(sigma ** 2 / n + tau ** 2) : Infinity;
      values.push({ i, t, n, value: Math.min(mean + limit, Math.max(mean - limit, alignments[i])) });
      const error = told ? errors[i] : innovation(i, n);
      if (error === null) return;
      const most = sigma === null || sigma === 0 ? Infinity : 3 * sigma;
      noises.push({ t, n, sigma: Math.min(most, error * Math.sqrt(n)) });
    });
  });
  return knownAfter(history.length - 1);
}
