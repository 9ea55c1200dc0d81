/** The cost of a run, computed before it starts: what alignment and evaluation add to the computation of training. */
import { type CostFacts, GRADIENT, measuringPasses, updatesWithin } from "../dga/cost.ts";
import { planOf } from "../dga/plan.ts";
import { type EvaluationPlan, evaluationPasses, type EvaluationSeries } from "./evaluations.ts";
import type { GuardPlan } from "./guarding.ts";

export interface RunCost {
  readonly steps: number;
  /** Of the weights. */
  readonly updates: number;
  /** Number of updates of the weights. */
  readonly alignment: number;
  /** Computation of the passes that the rule needs, divided by that of training; 0 for a rule that needs no pass of its own. */
  readonly guard: number;
  /** The same of all other evaluations. */
  readonly evaluation: number;
}

export function costOf(
  facts: CostFacts,
  evaluations: EvaluationPlan,
  guard: GuardPlan | null = null,
): RunCost {
  const { mixer, steps, batch } = facts;
  const training = GRADIENT * batch * steps;
  return {
    steps,
    updates: updatesWithin(mixer, steps),
    alignment: measuringPasses(facts) / training,
    guard: guard === null ? 0 : (guard.times * guard.windows) / training,
    evaluation: evaluationPasses(evaluations) / training,
  };
}

/** `240 steps, 24 updates of the weights; alignment +8 %, evaluation +3 % of training (the target 7 times on 2,048 tokens, the domains once on up to 320 tokens each)` */
export function formatCost(
  { steps, updates, alignment, guard: guarding, evaluation }: RunCost,
  evaluations: EvaluationPlan,
  needs: CostFacts["mixer"]["rule"]["needs"],
  guard: GuardPlan | null = null,
): string {
  const counts = [`${count(steps)} ${steps === 1 ? "step" : "steps"}`];
  if (needs.length > 0)
    counts.push(`${count(updates)} ${updates === 1 ? "update" : "updates"} of the weights`);
  const measured = planOf(needs).reference ? "reference losses" : "alignment";
  const parts = [
    ...(alignment > 0 ? [`${measured} ${percent(alignment)}`] : []),
    ...(guard === null ? [] : [`guard ${percent(guarding)}`]),
    `evaluation ${percent(evaluation)}`,
  ];
  const { target, domains, context } = evaluations;
  const series = [
    ...(guard === null ? [] : [`guarded domains ${often(guard)} on up to ${tokensText(guard.tokens)} each`]),
    ...(target === null
      ? []
      : [`the target ${often(target)} on ${tokensText(Math.min(target.tokens, target.windows * context))}`]),
    ...(domains === null
      ? []
      : [`the domains ${often(domains)} on up to ${tokensText(domains.tokens)} each`]),
  ];
  const details = series.length === 0 ? "" : ` (${series.join(", ")})`;
  return `${counts.join(", ")}; ${parts.join(", ")} of training${details}`;
}

const often = ({ times }: Pick<EvaluationSeries, "times">): string =>
  times === 1 ? "once" : times === 2 ? "twice" : `${count(times)} times`;

const count = (n: number): string => n.toLocaleString("en");

const tokensText = (n: number): string => `${count(n)} ${n === 1 ? "token" : "tokens"}`;

/** +0.4 %, +6 %, +120 % */
function percent(share: number): string {
  const value = 100 * share;
  return `+${value < 1 ? Number(value.toPrecision(1)) : Math.round(value)} %`;
}
