/**
 * Alignments by random projection: the gradient of each domain is kept as a short sketch (autograd/sinks/sketch.ts). It can be aligned with any
 * number of targets, at any time, for the cost of a product of two short vectors each.
 */
import { objectWith } from "../options.ts";
import { gradients } from "../autograd/grad.ts";
import { sketchSink } from "../autograd/sinks/sketch.ts";
import { GradmixError } from "../errors.ts";
import { concatenate, exampleCount, tokenCount } from "../nn/examples.ts";
import type { Examples, Model } from "../nn/model.ts";
import { type Alignments, total } from "./measurements.ts";
import {
  checkBatches,
  checkEstimate,
  chunks,
  type EstimateOptions,
  exampleWeight,
  readAndDispose,
} from "./passes.ts";
import { selectedParameters } from "./selection.ts";
import { formatShape } from "../tensor/shape.ts";

/** Sketches of the gradients of mean losses per token, one per batch. Plain data. */
export interface Sketches {
  /** r: matrices were projected to r × r numbers. */
  readonly rank: number;
  /** Seed of the projections. Only sketches with the same seed can be compared. */
  readonly seed: number;
  /** Numbers per sketch. */
  readonly size: number;
  /** Names and shapes of the sketched parameters, in order. Only sketches of the same parameters can be compared. */
  readonly parameters: readonly string[];
  /** The sketches, row-major [batches, size]. */
  readonly values: Float64Array;
  /** ‖sketch‖ of each batch, an estimate of ‖∇L‖ [batches]. */
  readonly norms: Float64Array;
  /** Mean loss per token of each batch [batches]. */
  readonly losses: Float64Array;
  /** Tokens of each batch [batches]. */
  readonly tokens: Float64Array;
}

/** Sketches the gradient of every batch in one backward pass (in pieces of at most `maxExamples` examples), in which every batch is a segment. */
export async function sketchGradients<B extends Examples>(
  model: Model<NoInfer<B>>,
  batches: readonly B[],
  options: EstimateOptions = {},
): Promise<Sketches> {
  checkEstimate("sketchGradients", options);
  checkBatches("sketchGradients", model, batches);
  const { rank = 16, seed = 1 } = options.sketch ?? {};
  const parameters = selectedParameters(model, options);
  const k = batches.length;
  const tokens = Float64Array.from(batches, tokenCount);
  const losses = new Float64Array(k);
  let [size, values] = [0, new Float64Array(0)];
  for (const [first, last] of chunks(batches, options.maxExamples ?? Infinity)) {
    const part = batches.slice(first, last);
    const batch = concatenate(part);
    const segments = [0];
    for (const one of part) segments.push(segments[segments.length - 1]! + exampleCount(one));
    const weight = exampleWeight(batch, options);
    const sink = sketchSink({ segments, parameters, rank, seed });
    try {
      const summed = await readAndDispose(
        gradients(() => model.losses(batch), {
          parameters,
          sink,
          weights: new Float64Array(exampleCount(batch)).fill(weight),
        }),
      );
      const found = await sink.result();
      size = sink.size;
      if (values.length === 0) values = new Float64Array(k * size);
      for (let i = first; i < last; i++) {
        const per = Math.max(1, tokens[i]!);
        losses[i] = total(summed.subarray(segments[i - first], segments[i - first + 1])) / per;
        for (let n = 0; n < size; n++) values[i * size + n] = found[(i - first) * size + n]! / (weight * per);
      }
    } finally {
      sink.dispose();
    }
  }
  const norms = Float64Array.from({ length: k }, (_, i) => Math.sqrt(dot(values, i, values, i, size)));
  const names = Array.from(parameters, ({ name, shape }) => `${name ?? "(unnamed)"}${formatShape(shape)}`);
  return { rank, seed, size, parameters: names, values, norms, losses, tokens };
}

/**
 * Aligns the sketched domains with the first batch of `target`. Both must be sketched with the same rank and seed and of the same parameters (`config`
 * otherwise, and for a target without a batch). The
 * standard errors are those of the projection: at most √(4/r + 4/r²)·‖gᵢ‖·‖g‖, and smaller by about √L for a model of L matrices with similar weight.
 * They do not include the sampling error, and are null for a domain without tokens, which was not measured.
 */
export function alignSketches(domains: Sketches, target: Sketches): Alignments {
  const isSketch = objectWith(
    "sketches of sketchGradients",
    ...["rank", "seed", "size", "parameters", "values", "norms", "losses", "tokens"],
  );
  isSketch("alignSketches: domains", domains);
  isSketch("alignSketches: target", target);
  for (const name of ["rank", "seed", "size"] as const)
    if (domains[name] !== target[name])
      throw new GradmixError(
        "config",
        `sketches: those of the domains have ${name} ${domains[name]}, but the target's has ${target[name]}; all sketches must be made in the same way`,
      );
  const differing = domains.parameters.findIndex((name, i) => target.parameters[i] !== name);
  if (differing >= 0 || domains.parameters.length !== target.parameters.length)
    throw new GradmixError(
      "config",
      `sketches: those of the domains are of other parameters than the target's (${domains.parameters[differing] ?? "none"}, ${target.parameters[differing < 0 ? domains.parameters.length : differing] ?? "none"}); all sketches must be made in the same way`,
    );
  if (target.tokens.length === 0)
    throw new GradmixError("config", "sketches: those of the target are of no batch; sketch one batch of it");
  const { rank, size } = domains;
  const bound = Math.sqrt(4 / rank + 4 / rank ** 2) * target.norms[0]!;
  return {
    alignments: Float64Array.from(domains.tokens, (_, i) => dot(domains.values, i, target.values, 0, size)),
    standardErrors: Array.from(domains.norms, (norm, i) => (domains.tokens[i]! > 0 ? bound * norm : null)),
    // Copies, so that a caller can change the result without changing the sketches.
    norms: domains.norms.slice(),
    tokens: domains.tokens.slice(),
    losses: domains.losses.slice(),
    targetNorm: target.norms[0]!,
    targetLoss: target.losses[0]!,
  };
}

function dot(a: Float64Array, i: number, b: Float64Array, j: number, size: number): number {
  let total = 0;
  for (let n = 0; n < size; n++) total += a[i * size + n]! * b[j * size + n]!;
  return total;
}
