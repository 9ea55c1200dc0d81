/** What shares of a mixture its pieces show, out of scores that tell the components apart badly and are too sure of themselves. */

/** Scores of two kinds for each component and piece [components · pieces]. */
export interface Scores {
  readonly unigram: Float32Array;
  readonly bigram: Float32Array;
}

/** How scores become log-likelihoods: θ₁·unigram + θ₂·bigram + a bias of each component. */
export interface Calibration {
  readonly temperature: readonly [number, number];
  readonly bias: Float64Array;
}

/** What the temperatures are near where nothing says otherwise: tokens of a piece are far from independent. And how near, as a standard deviation. */
const USUAL: readonly [number, number] = [0.1, 0.05];
const SPREAD = 0.3;
/** Pieces that say of each component that it needs no bias. */
const NO_BIAS = 4;

/**
 * The temperatures and biases with which pieces of known components are classified best: multinomial logistic regression on the scores ("bias-corrected
 * temperature scaling", Alexandari, Kundaje and Shrikumar 2020). `labels`: each piece's component; components count alike, however many pieces they have.
 * A bias is fitted only where every component has a piece.
 */
export function calibrate(scores: Scores, labels: Int32Array, components: number): Calibration {
  const pieces = labels.length;
  const weights = equalWeights(labels, components);
  const known = new Set(labels).size;
  const bias = new Float64Array(components);
  let temperature = USUAL;
  if (pieces === 0) return { temperature, bias };
  if (known < components) return { temperature: fitTemperature(scores, labels, weights, bias), bias };
  for (let round = 0; round < 2; round++) {
    temperature = fitTemperature(scores, labels, weights, bias, temperature);
    fitBias(likelihoods(scores, { temperature, bias: new Float64Array(components) }), weights, bias);
  }
  return { temperature, bias };
}

/** Weights of labelled pieces, 1 in the mean, by which components count alike, however many pieces they have. */
export function equalWeights(labels: Int32Array, components: number): Float64Array {
  const own = new Float64Array(components);
  for (const label of labels) own[label]++;
  const known = own.reduce((n, count) => n + (count > 0 ? 1 : 0), 0);
  return Float64Array.from(labels, (label) => labels.length / (known * own[label]));
}

/** Newton's method, with steps that are halved where they overshoot. */
function fitTemperature(
  scores: Scores,
  labels: Int32Array,
  weights: Float64Array,
  bias: Float64Array,
  start: readonly [number, number] = USUAL,
): readonly [number, number] {
  let at = start;
  let here = logisticLoss(scores, labels, weights, bias, at);
  let [dx, dy] = newtonStep(here);
  for (let iteration = 0; iteration < 40; iteration++) {
    const next: readonly [number, number] = [Math.max(0, at[0] - dx), Math.max(0, at[1] - dy)];
    const there = logisticLoss(scores, labels, weights, bias, next);
    if (there.loss > here.loss) {
      [dx, dy] = [dx / 2, dy / 2];
    } else {
      [at, here] = [next, there];
      [dx, dy] = newtonStep(here);
    }
    if (Math.abs(dx) + Math.abs(dy) < 1e-4) break;
  }
  return at;
}

interface Curve {
  readonly loss: number;
  readonly gradient: readonly [number, number];
  /** xx, xy, yy. */
  readonly hessian: readonly [number, number, number];
}

function newtonStep({ gradient: [x, y], hessian: [xx, xy, yy] }: Curve): [number, number] {
  const determinant = xx * yy - xy * xy;
  return [(yy * x - xy * y) / determinant, (xx * y - xy * x) / determinant];
}

/** The weighted negative log-likelihood of the labels, with what draws the temperatures to the usual ones. */
function logisticLoss(
  { unigram, bigram }: Scores,
  labels: Int32Array,
  weights: Float64Array,
  bias: Float64Array,
  [tx, ty]: readonly [number, number],
): Curve {
  const pieces = labels.length;
  const [top, sum, sumX, sumY, sumXX, sumXY, sumYY] = Array.from(
    { length: 7 },
    () => new Float64Array(pieces),
  );
  top.fill(-Infinity);
  const each = (visit: (w: number, x: number, y: number, logit: number) => void): void => {
    for (let i = 0; i < bias.length; i++)
      for (let w = 0; w < pieces; w++) {
        const own = labels[w] * pieces + w;
        const x = unigram[i * pieces + w] - unigram[own];
        const y = bigram[i * pieces + w] - bigram[own];
        visit(w, x, y, tx * x + ty * y + bias[i] - bias[labels[w]]);
      }
  };
  each((w, _x, _y, logit) => {
    if (logit > top[w]) top[w] = logit;
  });
  each((w, x, y, logit) => {
    const p = Math.exp(logit - top[w]);
    sum[w] += p;
    sumX[w] += p * x;
    sumY[w] += p * y;
    sumXX[w] += p * x * x;
    sumXY[w] += p * x * y;
    sumYY[w] += p * y * y;
  });
  const stiffness = SPREAD ** -2;
  const [offX, offY] = [tx - USUAL[0], ty - USUAL[1]];
  let loss = (stiffness * (offX * offX + offY * offY)) / 2;
  let [gx, gy] = [stiffness * offX, stiffness * offY];
  let [xx, xy, yy] = [stiffness, 0, stiffness];
  for (let w = 0; w < pieces; w++) {
    const [x, y] = [sumX[w] / sum[w], sumY[w] / sum[w]];
    loss += weights[w] * (Math.log(sum[w]) + top[w]);
    gx += weights[w] * x;
    gy += weights[w] * y;
    xx += weights[w] * (sumXX[w] / sum[w] - x * x);
    xy += weights[w] * (sumXY[w] / sum[w] - x * y);
    yy += weights[w] * (sumYY[w] / sum[w] - y * y);
  }
  return { loss, gradient: [gx, gy], hessian: [xx, xy, yy] };
}

/** Writes the biases with which every component is expected as often as it is there, by iterative scaling. */
function fitBias(likelihood: Float32Array, weights: Float64Array, bias: Float64Array): void {
  const pieces = weights.length;
  const share = pieces / bias.length;
  const factor = bias.map(Math.exp);
  for (let iteration = 0; iteration < 10; iteration++) {
    const total = mixtureOf(likelihood, factor, pieces);
    for (let i = 0; i < factor.length; i++) {
      let expected = 0;
      for (let w = 0; w < pieces; w++)
        expected += (weights[w] * likelihood[i * pieces + w] * factor[i]) / total[w];
      factor[i] *= (share + NO_BIAS) / (expected + NO_BIAS);
    }
  }
  factor.forEach((value, i) => (bias[i] = Math.log(value)));
}

/** The likelihood of each piece under each component [components · pieces], the largest of a piece being 1. */
function likelihoods({ unigram, bigram }: Scores, { temperature, bias }: Calibration): Float32Array {
  const components = bias.length;
  const pieces = unigram.length / components;
  const [x, y] = temperature;
  const out = new Float32Array(unigram.length);
  const top = new Float64Array(pieces).fill(-Infinity);
  for (let i = 0; i < components; i++)
    for (let w = 0; w < pieces; w++) {
      const at = i * pieces + w;
      out[at] = x * unigram[at] + y * bigram[at] + bias[i];
      if (out[at] > top[w]) top[w] = out[at];
    }
  for (let i = 0; i < components; i++)
    for (let w = 0; w < pieces; w++) out[i * pieces + w] = Math.exp(out[i * pieces + w] - top[w]);
  return out;
}

/** Σᵢ shares[i]·likelihood[i, w] of each piece. */
function mixtureOf(likelihood: Float32Array, shares: Float64Array, pieces: number): Float64Array {
  const total = new Float64Array(pieces);
  for (let i = 0; i < shares.length; i++)
    for (let w = 0; w < pieces; w++) total[w] += shares[i] * likelihood[i * pieces + w];
  return total;
}

/** Probabilities of the components for each piece, with equal shares, as the scores have them [components · pieces]. None is 0. */
export function posteriors(scores: Scores, calibration: Calibration): Float32Array {
  const components = calibration.bias.length;
  const out = likelihoods(scores, calibration);
  const pieces = out.length / components;
  const total = mixtureOf(out, new Float64Array(components).fill(1), pieces);
  for (let i = 0; i < components; i++)
    for (let w = 0; w < pieces; w++)
      out[i * pieces + w] = Math.max(LEAST_PROBABILITY, out[i * pieces + w] / total[w]);
  return out;
}

const LEAST_PROBABILITY = 1e-20;
/** Parts of the pieces, each of which is once left out; and the blocks that a part is made of, at most. */
const FOLDS = 3;
const BLOCKS = 8;
const MOST_ITERATIONS = 10;
/** In nats a piece: what an iteration must gain on pieces that were left out. */
const LEAST_GAIN = 1e-3;

/** Pieces that are known to be of the components themselves, as examples of what is taken for what. */
export interface Examples {
  /** [components · pieces] */
  readonly posteriors: Float32Array;
  /** How much each counts [pieces]. */
  readonly weights: Float64Array;
}

/**
 * The shares of the components in the mixture that some pieces are drawn from, by their posteriors [components · pieces].
 *
 * Pieces of component j are on average taken for component c as Cⱼ says, C of the examples: Cⱼ(c) ∝ Σₑ wₑ pₑ(j) pₑ(c). The shares are those whose mixture of the Cⱼ comes
 * nearest to the mean posterior h of the pieces, argmax Σ_c h(c) ln Σⱼ αⱼ Cⱼ(c), by expectation maximisation from equal shares (D'Agostini's iterative
 * unfolding, 1995), for as many iterations as bring nearer the posteriors of pieces that were left out. A mixture's pieces are thereby unmixed; shares that they do not tell apart stay
 * near each other, a few pieces move little, and pieces that are like none of the components are not given to the one that is least unlike.
 */
export function mixtureShares(
  posteriors: Float32Array,
  examples: Examples,
  components: number,
): Float64Array {
  const pieces = posteriors.length / components;
  const mean = meanOf(posteriors, components, pieces, () => true);
  // Without examples each component is taken for itself.
  if (examples.weights.length === 0) return normalised(mean);
  const unfolding = unfoldingOf(examples, components);
  const iterations = iterationsThatHelp(posteriors, unfolding, components, pieces);
  let shares: Float64Array = new Float64Array(components).fill(1 / components);
  for (let t = 0; t < iterations; t++) shares = unfold(unfolding, mean, null, shares).shares;
  return shares;
}

function normalised(values: Float64Array): Float64Array {
  const sum = values.reduce((a, b) => a + b, 0);
  return values.map((value) => value / sum);
}

interface Unfolding extends Examples {
  /** Σₑ wₑ pₑ(j) [components] */
  readonly marginal: Float64Array;
}

function unfoldingOf({ posteriors, weights }: Examples, components: number): Unfolding {
  const count = weights.length;
  const marginal = new Float64Array(components);
  for (let j = 0; j < components; j++)
    for (let e = 0; e < count; e++) marginal[j] += weights[e] * posteriors[j * count + e];
  return { posteriors, weights, marginal };
}

/** One iteration towards the mean posterior `mean`; with the log-likelihood of the mean posterior `other` under the shares before it. */
function unfold(
  { posteriors, weights, marginal }: Unfolding,
  mean: Float64Array,
  other: Float64Array | null,
  shares: Float64Array,
): { readonly shares: Float64Array; readonly likelihood: number } {
  const count = weights.length;
  // Σⱼ αⱼ Cⱼ(c) = Σₑ pₑ(c) bₑ
  const b = new Float64Array(count);
  shares.forEach((share, j) => {
    const factor = share / marginal[j];
    for (let e = 0; e < count; e++) b[e] += factor * posteriors[j * count + e];
  });
  for (let e = 0; e < count; e++) b[e] *= weights[e];
  const back = new Float64Array(count);
  let likelihood = 0;
  mean.forEach((h, c) => {
    let expected = 0;
    for (let e = 0; e < count; e++) expected += posteriors[c * count + e] * b[e];
    const ratio = h / expected;
    for (let e = 0; e < count; e++) back[e] += ratio * posteriors[c * count + e];
    if (other !== null) likelihood += other[c] * Math.log(expected);
  });
  for (let e = 0; e < count; e++) back[e] *= weights[e];
  const next = shares.map((share, j) => {
    let sum = 0;
    for (let e = 0; e < count; e++) sum += posteriors[j * count + e] * back[e];
    return (share * sum) / marginal[j];
  });
  return { shares: normalised(next), likelihood };
}

function meanOf(
  posteriors: Float32Array,
  components: number,
  pieces: number,
  among: (piece: number) => boolean,
): Float64Array {
  const chosen = Array.from({ length: pieces }, (_, w) => w).filter(among);
  return Float64Array.from({ length: components }, (_, i) =>
    chosen.reduce((sum, w) => sum + posteriors[i * pieces + w] / chosen.length, 0),
  );
}

function iterationsThatHelp(
  posteriors: Float32Array,
  unfolding: Unfolding,
  components: number,
  pieces: number,
): number {
  // A single piece leaves none to be left out.
  if (pieces < 2) return 1;
  const count = Math.min(FOLDS, pieces);
  const blocks = Math.min(BLOCKS * count, pieces);
  const start: Float64Array = new Float64Array(components).fill(1 / components);
  const folds = Array.from({ length: count }, (_, fold) => {
    // Neighbours, which are often of one document, are left out together; and each part has some of the beginning and some of the end.
    const out = (w: number): boolean => Math.floor((w * blocks) / pieces) % count === fold;
    return {
      kept: meanOf(posteriors, components, pieces, (w) => !out(w)),
      out: meanOf(posteriors, components, pieces, out),
      shares: start,
    };
  });
  let [best, bestGain] = [0, -Infinity];
  for (let t = 0; t <= MOST_ITERATIONS; t++) {
    let gain = 0;
    for (const fold of folds) {
      const { shares, likelihood } = unfold(unfolding, fold.kept, fold.out, fold.shares);
      gain += likelihood / count;
      fold.shares = shares;
    }
    if (gain > bestGain + LEAST_GAIN) [best, bestGain] = [t, gain];
    else if (t >= 2 * best + 3) break;
  }
  return best;
}
