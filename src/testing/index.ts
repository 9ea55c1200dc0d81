/**
 * Tests for rules and ops of one's own: random input for rules, `checkRule`, `checkGradients`. Needs fast-check, which is an optional peer.
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
