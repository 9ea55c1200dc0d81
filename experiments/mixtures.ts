/** Mixtures found by trying some and predicting the rest (RegMix; Q. Liu and others, arXiv 2407.01492). */
import { dirichlet, randomOf } from "./random.ts";
import { mean } from "#dist/runs/statistics.js";
import { bestRidge, type Linear, predict } from "./statistics.ts";

/** Candidates of which the predicted best are averaged. */
const simulated = { candidates: 4000, taken: 40 };
const penalties = [0.01, 0.1, 1, 10, 100];
/** Weights below this are as good as none. */
const LEAST = 0.01;

/** `count` points of the simplex, evenly distributed (Dirichlet with all concentrations 1), with six digits that sum to 1. */
export function mixturesOf(count: number, domains: number, seed: number): number[][] {
  const random = randomOf(seed);
  return Array.from({ length: count }, () => exact(dirichlet(new Array<number>(domains).fill(1), random)));
}

/** The heaviest takes what rounding leaves. */
function exact(weights: readonly number[]): number[] {
  const millionths = weights.map((weight) => Math.round(weight * 1e6));
  const heaviest = millionths.indexOf(Math.max(...millionths));
  millionths[heaviest] += 1e6 - millionths.reduce((a, b) => a + b, 0);
  return millionths.map((weight) => weight / 1e6);
}

/** What one more of a domain is worth falls with what there is: a loss is taken as linear in the logarithms of the weights. */
const features = (weights: readonly number[]): number[] => weights.map((weight) => Math.log(weight + LEAST));

/** A regression of losses on mixtures; the penalty is the one that predicts each from the others best. */
export function lossModel(mixtures: readonly (readonly number[])[], losses: readonly number[]): Linear {
  return bestRidge(mixtures.map(features), losses, penalties);
}

/** The mean of the mixtures whose loss the regression predicts to be lowest. */
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
