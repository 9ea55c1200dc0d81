/** Property tests for rules of one's own: random input for them, and `checkRule`. Needs fast-check, which is an optional peer. */
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
