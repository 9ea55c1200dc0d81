/** A sink that divides the parameters of a pass between two others. */
import type { Tensor } from "../../tensor/tensor.ts";
import type { GradientSink } from "../sink.ts";

/**
 * Returns a sink that passes the gradients of the `chosen` parameters to one sink, and those of the others to another. It distinguishes examples if one
 * of the two does. The caller disposes them.
 */
export function splitSink(
  chosen: ReadonlySet<Tensor>,
  ofChosen: GradientSink,
  ofOthers: GradientSink,
): GradientSink {
  const of = (parameter: Tensor): GradientSink => (chosen.has(parameter) ? ofChosen : ofOthers);
  const both = [ofChosen, ofOthers];
  const distinguishes = ({ perExample = true }: GradientSink): boolean => perExample;
  return {
    name: ofChosen.name,
    perExample: both.some(distinguishes),
    distinguishes: (parameter) => distinguishes(of(parameter)),
    begin(parameters, examples) {
      for (const sink of both)
        sink.begin?.(new Set([...parameters].filter((parameter) => of(parameter) === sink)), examples);
    },
    end() {
      for (const sink of both) sink.end?.();
    },
    linear: (parameter, x, dy) => of(parameter).linear(parameter, x, dy),
    bias: (parameter, dy) => of(parameter).bias(parameter, dy),
    gain: (parameter, kind, x, stats, dy) => of(parameter).gain(parameter, kind, x, stats, dy),
    embedding: (parameter, ids, dy) => of(parameter).embedding(parameter, ids, dy),
    dense: (parameter, op, gradient) => of(parameter).dense(parameter, op, gradient),
  };
}
