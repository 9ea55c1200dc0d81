/**
 * Tests for your own rules and ops: random input for rules, `checkRule`, `checkGradients`. It needs fast-check, an optional peer dependency.
 *
 * @module gradmix/testing
 */
export {
  alignments,
  type FullSignal,
  histogram,
  names,
  nearlyDegenerate,
  nonFinite,
  signal,
  simplexPoint,
  targetNames,
  updateSequence,
  vertex,
} from "./arbitraries.ts";
export { checkRule, type CheckRuleOptions, type Replay } from "./check-rule.ts";
export { type Knobs, type MakeRule, type Promises } from "./invariant.ts";
export { checkGradients, type CheckGradientsOptions } from "./check-gradients.ts";
