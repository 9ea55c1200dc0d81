/** Finds alignment options that were given and have no effect with the rule of a run. */
import { areDomains, type Bases } from "../dga/bases.ts";
import { measuredFrom, planOf } from "../dga/plan.ts";
import type { Rule } from "../dga/rule.ts";
import type { Mixer } from "../dga/mixer.ts";
import type { AlignmentOptions } from "../dga/alignment-options.ts";

type Name = Exclude<keyof AlignmentOptions, "parameters">;

const ofSteps: readonly Name[] = ["refreshEvery", "measureEvery", "probes"];
const ofBatches: readonly Name[] = ["estimator", "domainExamples", "bases"];

/** Returns a line for each of these options. */
export function unusedAlignment(
  given: AlignmentOptions,
  { name, needs }: Pick<Rule, "name" | "needs">,
  bases: Bases | null,
): string[] {
  const lines = (options: readonly Name[], why: string): string[] =>
    options
      .filter((option) => given[option] !== undefined)
      .map((option) => `alignment.${option} has no effect: ${why}`);
  const plan = planOf(needs);
  if (!plan.aligns && !plan.gram && !plan.targets)
    return lines(
      ["from", ...ofBatches, "targetExamples", ...ofSteps, "blockShare"],
      `rule ${name} does not compare gradients`,
    );
  const { bases: _, ...withoutBases } = given;
  if (measuredFrom(given, plan) === "step")
    return lines(ofBatches, `rule ${name} measures the training steps here`);
  return [
    ...lines(ofSteps, `rule ${name} measures a separate batch here`),
    ...(plan.gram
      ? lines(["estimator", "targetExamples"], `rule ${name} compares domains with each other`)
      : []),
    // Alone, the option asks for a separate batch, which is an effect.
    ...(measuredFrom(withoutBases, plan) === "batch" && (bases === null || areDomains(bases))
      ? lines(["bases"], "no basis mixes several domains")
      : []),
  ];
}

/** Returns a line for each interval in steps that is longer than the one between two updates, because measurements begin again at every update. */
export function clampedAlignment(
  given: AlignmentOptions,
  { rule, updateEvery }: Pick<Mixer, "rule" | "updateEvery">,
): string[] {
  const plan = planOf(rule.needs);
  if (!plan.aligns || measuredFrom(given, plan) !== "step") return [];
  return (["measureEvery", "refreshEvery"] as const).flatMap((option) => {
    const every = given[option];
    return every === undefined || every <= updateEvery
      ? []
      : [
          `alignment.${option} is ${every}, and acts like ${updateEvery}: measurements begin again after every update of the weights, which is every ${updateEvery} ${updateEvery === 1 ? "step" : "steps"} (--update-every)`,
        ];
  });
}
