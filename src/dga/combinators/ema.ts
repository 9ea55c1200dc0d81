/** The moving average of a rule's weights. */
import { checkRange } from "../../options.ts";
import { type Rule } from "../rule.ts";
import { movingAverage } from "../simplex.ts";
import { wrap } from "./wrap.ts";

/**
 * Samples with the moving average (1 − β)·sampled + β·weights of the rule's weights. β, 0 < β ≤ 1, is the weight of the NEW value; with 1 there is no
 * averaging. DGA's paper uses β = 0.1.
 */
export function ema(rule: Rule, beta: number): Rule {
  checkRange("ema: beta", beta, { min: 0, max: 1, openMin: true });
  return wrap(rule, {
    name: "ema",
    weights: (inner, before) => (before === null ? inner : movingAverage(before, inner, beta)),
  });
}
