/** Finds a mixture by training on some mixtures and predicting the loss of others (RegMix; Q. Liu and others, arXiv 2407.01492). */
import { dirichlet, randomOf } from "./random.ts";
import { mean } from "#dist/runs/statistics.js";
import { bestRidge, type Linear, predict } from "./statistics.ts";

/** Number of simulated candidates, and of the best ones that are averaged. */
const simulated = { candidates: 4000, taken: 40 };
const penalties = [0.01, 0.1, 1, 10, 100];
/** Weights below this number have almost no effect. */
const LEAST = 0.01;

/** Returns `count` points of the simplex, uniformly distributed (Dirichlet with all concentrations 1), with six digits that sum to 1. */
export function mixturesOf(count: number, domains: number, seed: number): number[][] {
  const random = randomOf(seed);
  return Array.from({ length: count }, () => exact(dirichlet(new Array<number>(domains).fill(1), random)));
}

/** Rounds the weights; the largest one takes the rounding error. */
function exact(weights: readonly number[]): number[] {
  const millionths = weights.map((weight) => Math.round(weight * 1e6));
  const heaviest = millionths.indexOf(Math.max(...millionths));
  millionths[heaviest] += 1e6 - millionths.reduce((a, b) => a + b, 0);
  return millionths.map((weight) => weight / 1e6);
}

/** The loss is modelled as linear in the logarithms of the weights, because additional text of a domain helps less the more of it there is. */
const features = (weights: readonly number[]): number[] => weights.map((weight) => Math.log(weight + LEAST));

/** Returns a regression of losses on mixtures, with the penalty that predicts each loss best from the others. */
export function lossModel(mixtures: readonly (readonly number[])[], losses: readonly number[]): Linear {
  return bestRidge(mixtures.map(features), losses, penalties);
}

/** Returns the mean of the mixtures with the lowest predicted losses. */
export function predictedBest(
  mixtures: readonly (readonly number[])[],
  losses: readonly number[],
  seed: number,
): number[] {
  const model = lossModel(mixtures, losses);
  const best = mixturesOf(simulated.candidates, mixtures[0].length, seed)
    .map((weights) => ({ weights, loss: predict(model, features(weights)) }))
    .sort((a, b) => a.loss - b.loss)
    .slice(0, simulated.taken);
  return exact(best[0].weights.map((_, i) => mean(best.map(({ weights }) => weights[i]))));
}
