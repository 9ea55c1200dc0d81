/** Estimates the shares of a mixture from scores of its pieces, although the scores separate the components badly and are overconfident. */
import { runSteps, type Steps } from "./steps.ts";

/** Scores of two kinds for each component and piece [components · pieces]. */
export interface Scores {
  readonly unigram: Float32Array;
  readonly bigram: Float32Array;
}

/** How scores become log-likelihoods: θ₁·unigram + θ₂·bigram + a bias per component. */
export interface Calibration {
  readonly temperature: readonly [number, number];
  readonly bias: Float64Array;
}

/** Usual temperatures (tokens of a piece are far from independent) and the standard deviation of the prior around them. */
const USUAL: readonly [number, number] = [0.1, 0.05];
const SPREAD = 0.3;
/** Weight of the prior that a component needs no bias, in pieces per component. */
const NO_BIAS = 4;

/**
 * Fits the temperatures and biases with which pieces of known components are classified best: multinomial logistic regression on the scores
 * ("bias-corrected temperature scaling", Alexandari, Kundaje and Shrikumar 2020). `labels` has each piece's component; components count equally,
 * however many pieces they have. A bias is only fitted if every component has a piece.
 */
export function calibrate(scores: Scores, labels: Int32Array, components: number): Calibration {
  return runSteps(calibrateInSteps(scores, labels, components));
}

/** The same, in a step for each iteration. */
export function* calibrateInSteps(
  scores: Scores,
  labels: Int32Array,
  components: number,
): Steps<Calibration> {
  const pieces = labels.length;
  const weights = equalWeights(labels, components);
  const known = new Set(labels).size;
  const bias = new Float64Array(components);
  let temperature = USUAL;
  if (pieces === 0) return { temperature, bias };
  if (known < components) return { temperature: yield* fitTemperature(scores, labels, weights, bias), bias };
  for (let round = 0; round < 2; round++) {
    temperature = yield* fitTemperature(scores, labels, weights, bias, temperature);
    yield* fitBias(likelihoods(scores, { temperature, bias: new Float64Array(components) }), weights, bias);
  }
  return { temperature, bias };
}

/** Weights of labelled pieces, 1 on average, with which components count equally, however many pieces they have. */
function equalWeights(labels: Int32Array, components: number): Float64Array {
  const own = new Float64Array(components);
  for (const label of labels) own[label]!++;
  const known = own.reduce((n, count) => n + (count > 0 ? 1 : 0), 0);
  return Float64Array.from(labels, (label) => labels.length / (known * own[label]!));
}

/** Newton's method, with steps that are halved if they overshoot. */
function* fitTemperature(
  scores: Scores,
  labels: Int32Array,
  weights: Float64Array,
  bias: Float64Array,
  start: readonly [number, number] = USUAL,
): Steps<readonly [number, number]> {
  let at = start;
  let current = logisticLoss(scores, labels, weights, bias, at);
  let [dx, dy] = newtonStep(current);
  for (let iteration = 0; iteration < 40; iteration++) {
    yield;
    const next: readonly [number, number] = [Math.max(0, at[0] - dx), Math.max(0, at[1] - dy)];
    const candidate = logisticLoss(scores, labels, weights, bias, next);
    if (candidate.loss > current.loss) {
      [dx, dy] = [dx / 2, dy / 2];
    } else {
      [at, current] = [next, candidate];
      [dx, dy] = newtonStep(current);
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

/** The weighted negative log-likelihood of the labels, with the prior of the temperatures. */
function logisticLoss(
  { unigram, bigram }: Scores,
  labels: Int32Array,
  weights: Float64Array,
  bias: Float64Array,
  [tx, ty]: readonly [number, number],
): Curve {
  const pieces = labels.length;
  const perPiece = (): Float64Array => new Float64Array(pieces);
  const [top, sum] = [perPiece(), perPiece()];
  const [sumX, sumY] = [perPiece(), perPiece()];
  const [sumXX, sumXY, sumYY] = [perPiece(), perPiece(), perPiece()];
  top.fill(-Infinity);
  const each = (visit: (w: number, x: number, y: number, logit: number) => void): void => {
    for (let i = 0; i < bias.length; i++)
      for (let w = 0; w < pieces; w++) {
        const own = labels[w]! * pieces + w;
        const x = unigram[i * pieces + w]! - unigram[own]!;
        const y = bigram[i * pieces + w]! - bigram[own]!;
        visit(w, x, y, tx * x + ty * y + bias[i]! - bias[labels[w]!]!);
      }
  };
  each((w, _x, _y, logit) => {
    if (logit > top[w]!) top[w] = logit;
  });
  each((w, x, y, logit) => {
    const p = Math.exp(logit - top[w]!);
    sum[w]! += p;
    sumX[w]! += p * x;
    sumY[w]! += p * y;
    sumXX[w]! += p * x * x;
    sumXY[w]! += p * x * y;
    sumYY[w]! += p * y * y;
  });
  const stiffness = SPREAD ** -2;
  const [offX, offY] = [tx - USUAL[0], ty - USUAL[1]];
  let loss = (stiffness * (offX * offX + offY * offY)) / 2;
  let [gx, gy] = [stiffness * offX, stiffness * offY];
  let [xx, xy, yy] = [stiffness, 0, stiffness];
  for (let w = 0; w < pieces; w++) {
    const [x, y] = [sumX[w]! / sum[w]!, sumY[w]! / sum[w]!];
    loss += weights[w]! * (Math.log(sum[w]!) + top[w]!);
    gx += weights[w]! * x;
    gy += weights[w]! * y;
    xx += weights[w]! * (sumXX[w]! / sum[w]! - x * x);
    xy += weights[w]! * (sumXY[w]! / sum[w]! - x * y);
    yy += weights[w]! * (sumYY[w]! / sum[w]! - y * y);
  }
  return { loss, gradient: [gx, gy], hessian: [xx, xy, yy] };
}

/** Writes the biases with which the expected frequency of every component equals its actual one, by iterative scaling. */
function* fitBias(likelihood: Float32Array, weights: Float64Array, bias: Float64Array): Steps<void> {
  const pieces = weights.length;
  const share = pieces / bias.length;
  const factor = bias.map(Math.exp);
  for (let iteration = 0; iteration < 10; iteration++) {
    yield;
    const total = mixtureOf(likelihood, factor, pieces);
    for (let i = 0; i < factor.length; i++) {
      let expected = 0;
      for (let w = 0; w < pieces; w++)
        expected += (weights[w]! * likelihood[i * pieces + w]! * factor[i]!) / total[w]!;
      factor[i]! *= (share + NO_BIAS) / (expected + NO_BIAS);
    }
  }
  factor.forEach((value, i) => (bias[i] = Math.log(value)));
}

const LEAST_LIKELIHOOD = 1e-20;

/** The likelihood of each piece under each component [components · pieces], scaled so that the largest of a piece is 1. None is 0. */
export function likelihoods({ unigram, bigram }: Scores, { temperature, bias }: Calibration): Float32Array {
  const components = bias.length;
  const pieces = unigram.length / components;
  const [x, y] = temperature;
  const out = new Float32Array(unigram.length);
  const top = new Float64Array(pieces).fill(-Infinity);
  for (let i = 0; i < components; i++)
    for (let w = 0; w < pieces; w++) {
      const at = i * pieces + w;
      out[at] = x * unigram[at]! + y * bigram[at]! + bias[i]!;
      if (out[at] > top[w]!) top[w] = out[at];
    }
  for (let i = 0; i < components; i++)
    for (let w = 0; w < pieces; w++)
      out[i * pieces + w] = Math.max(LEAST_LIKELIHOOD, Math.exp(out[i * pieces + w]! - top[w]!));
  return out;
}

/** Σᵢ shares[i]·likelihood[i, w] of each piece. */
function mixtureOf(likelihood: Float32Array, shares: Float64Array, pieces: number): Float64Array {
  const total = new Float64Array(pieces);
  for (let i = 0; i < shares.length; i++)
    for (let w = 0; w < pieces; w++) total[w]! += shares[i]! * likelihood[i * pieces + w]!;
  return total;
}

/** Number of parts of the pieces, each of which is left out once, and the largest number of blocks in a part. */
const FOLDS = 3;
const BLOCKS = 8;
/** More iterations would give everything to one of several similar components. */
const MOST_ITERATIONS = 5;
/** Gain on left-out pieces that an iteration must have, in nats per piece. */
const LEAST_GAIN = 1e-3;

/**
 * Estimates the shares of the components in the mixture from which pieces are drawn, by their likelihoods [components · pieces]: a few iterations of
 * expectation maximisation from equal shares (Saerens, Latinne and Decaestecker 2002), as long as they make left-out pieces more likely. So the
 * shares of components that the pieces hardly distinguish stay close to each other, and a few pieces change little.
 */
export function mixtureShares(likelihood: Float32Array, components: number): Float64Array {
  return runSteps(mixtureSharesInSteps(likelihood, components));
}

/** The same, in a step for each iteration. */
export function* mixtureSharesInSteps(likelihood: Float32Array, components: number): Steps<Float64Array> {
  const pieces = likelihood.length / components;
  const all = new Uint8Array(pieces).fill(1);
  let shares: Float64Array = new Float64Array(components).fill(1 / components);
  const iterations = yield* iterationsThatHelp(likelihood, shares, pieces);
  for (let t = 0; t < iterations; t++)
    shares = maximise(likelihood, shares, mixtureOf(likelihood, shares, pieces), all);
  return shares;
}

/** One iteration on the pieces whose entry in `among` is 1; `mixture` has the likelihoods under `shares`. */
function maximise(
  likelihood: Float32Array,
  shares: Float64Array,
  mixture: Float64Array,
  among: Uint8Array,
): Float64Array {
  const pieces = mixture.length;
  const per = mixture.map((value, w) => among[w]! / value);
  const next = shares.map((share, i) => {
    let sum = 0;
    for (let w = 0; w < pieces; w++) sum += per[w]! * likelihood[i * pieces + w]!;
    return share * sum;
  });
  const sum = next.reduce((a, b) => a + b, 0);
  return next.map((value) => value / sum);
}

function* iterationsThatHelp(likelihood: Float32Array, start: Float64Array, pieces: number): Steps<number> {
  // A single piece cannot be left out.
  if (pieces < 2) return 1;
  const count = Math.min(FOLDS, pieces);
  const blocks = Math.min(BLOCKS * count, pieces);
  // Neighbours, which are often from one document, are left out together, and each part has pieces from the beginning and from the end.
  const partOf = (w: number): number => Math.floor((w * blocks) / pieces) % count;
  const folds = Array.from({ length: count }, (_, part) => ({
    kept: Uint8Array.from({ length: pieces }, (_, w) => (partOf(w) === part ? 0 : 1)),
    shares: start,
  }));
  let [best, bestGain] = [0, -Infinity];
  for (let t = 0; t <= MOST_ITERATIONS; t++) {
    yield;
    let gain = 0;
    for (const fold of folds) {
      const mixture = mixtureOf(likelihood, fold.shares, pieces);
      for (let w = 0; w < pieces; w++) if (fold.kept[w] === 0) gain += Math.log(mixture[w]!) / pieces;
      fold.shares = maximise(likelihood, fold.shares, mixture, fold.kept);
    }
    if (gain > bestGain + LEAST_GAIN) [best, bestGain] = [t, gain];
  }
  return best;
}
