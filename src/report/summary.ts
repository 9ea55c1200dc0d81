/** The results in words and figures, and the reasons why runs cannot be compared directly. Pure. */
import type { RunHead } from "../runs/record.ts";
import { interval, mean } from "../runs/statistics.ts";
import { tokensUntil } from "./curves.ts";
import type { Ending } from "./endings.ts";
import type { GroupData, RunData } from "./page-data.ts";
import { formatCount, formatLoss, formatShare, significant } from "./page/format.ts";

/** Sentences, the most important first. `endings` are those of the groups, of which those in `compared` are ranked. */
export function summaryOf(
  endings: readonly (Ending | null)[],
  compared: ReadonlySet<Ending>,
  groups: readonly GroupData[],
  runs: readonly RunData[],
): string[] {
  const known = endings.filter((ending) => ending !== null);
  const left = [...groups.flatMap(describeLeft), ...describeUnfinished(runs)];
  if (known.length === 0) return [...describeWithoutTarget(groups), ...left];
  const ranked = known.filter((one) => compared.has(one)).sort((one, other) => one.end - other.end);
  const open = known.filter((one) => !compared.has(one));
  const [best, ...others] = ranked;
  const verb = others.length > 0 ? "ends lowest" : "has ended";
  return [
    ...(best === undefined
      ? []
      : [describeLoss(best, known.length === 1 ? "The" : `${best.label} ${verb}: its`)]),
    ...others.flatMap((other) => (best === undefined ? [] : [describeDifference(best, other)])),
    ...(others.length > 0 && ranked.some(({ ends }) => ends.length < 2)
      ? ["For a rule with a single run, the effect of the seed is not known."]
      : []),
    ...open.map((one) =>
      describeLoss(one, `${one.label} has not reached its last step, so it is not compared: its`),
    ),
    ...left,
  ];
}

function describeLeft({ label, runs, counted }: GroupData): string[] {
  const left = runs.length - counted.length;
  return left === 0
    ? []
    : [
        `The figures of ${label} are of ${counted.length} of its ${runs.length} runs; ${left === 1 ? "the other has" : "the others have"} not reached the last step.`,
      ];
}

function describeLoss({ curves, start, end, ends, tokens }: Ending, subject: string): string {
  const seeds = ends.length > 1 ? `, the mean of ${ends.length} seeds` : "";
  const { bits } = curves;
  const inBits = bits === null ? "" : ` (${formatLoss(bits.mean[bits.mean.length - 1]!)} bits per byte)`;
  if (curves.tokens.length === 1)
    return `${subject} held-out loss on the target is ${formatLoss(end)} nats per token${inBits} after ${formatCount(tokens)} tokens${seeds}.`;
  if (end === start)
    return `${subject} held-out loss on the target stayed at ${formatLoss(end)} nats per token${inBits} over ${formatCount(tokens)} tokens${seeds}.`;
  const direction = end < start ? "fell" : "rose";
  const share = formatShare(Math.abs(end / start - 1));
  return `${subject} held-out loss on the target ${direction} from ${formatLoss(start)} to ${formatLoss(end)} nats per token${inBits}, by ${share}, over ${formatCount(tokens)} tokens${seeds}.`;
}

function describeDifference(best: Ending, other: Ending): string {
  const gap = other.end - best.end;
  const noise = noiseOf(best, other);
  if (gap === 0 && noise === null) return `${other.label} ends at the same loss.`;
  const between = (noise: number): string =>
    ` (95 % interval ${formatLoss(gap - noise)} to ${formatLoss(gap + noise)})`;
  const figure = `${formatLoss(gap)} nats, ${formatShare(gap / best.end)} higher${noise === null ? "" : between(noise)}`;
  const first = `${other.label} ends at ${formatLoss(other.end)}, ${figure}`;
  if (noise !== null && gap <= noise)
    return `${first}: these seeds do not distinguish it from ${best.label}, because the interval contains 0.`;
  const reached = tokensUntil({ tokens: best.curves.tokens, loss: best.curves.nats.mean }, other.end);
  if (reached === null || other.tokens === 0) return `${first}.`;
  return `${first}; ${best.label} needed ${formatShare(reached / other.tokens)} as many tokens to reach this loss.`;
}

/** Half of the 95 % interval of the difference of two means, paired if both have the same seeds; null if a group has one run. */
function noiseOf(one: Ending, other: Ending): number | null {
  const bySeed = new Map(other.ends.map(({ seed, loss }) => [seed, loss]));
  const pairs = one.ends.flatMap(({ seed, loss }) => {
    const against = bySeed.get(seed);
    return against === undefined ? [] : [against - loss];
  });
  if (pairs.length === one.ends.length && bySeed.size === pairs.length && other.ends.length === pairs.length)
    return interval(pairs).half;
  const halfOf = ({ ends }: Ending): number | null => interval(ends.map(({ loss }) => loss)).half;
  const [a, b] = [halfOf(one), halfOf(other)];
  // At least as wide as the interval for unequal variances.
  return a === null || b === null ? null : Math.hypot(a, b);
}

function describeWithoutTarget(groups: readonly GroupData[]): string[] {
  return groups.flatMap(({ label, domains }) => {
    if (domains.length === 0) return [];
    const meanOf = (at: number): number => mean(domains.map(({ loss }) => loss.nats.mean.at(at) ?? NaN));
    const several = domains.every(({ loss }) => loss.tokens.length > 1);
    const from = several ? `went from ${formatLoss(meanOf(0))} to` : "is";
    return `${label}: there is no target; the ${domains.length === 1 ? "held-out loss of the domain" : `mean of the held-out losses of ${domains.length} domains`} ${from} ${formatLoss(meanOf(-1))} nats per token.`;
  });
}

function describeUnfinished(runs: readonly RunData[]): string[] {
  const open = runs.filter(({ state }) => state !== "done");
  const [first] = open;
  if (first === undefined) return [];
  return open.length === 1
    ? [
        `${first.name} ${first.state === "running" ? "is running" : "was stopped"}: ${significant(first.step, 9)} of ${significant(first.steps, 9)} steps are done.`,
      ]
    : [`${open.length} of the ${runs.length} runs have not reached their last step.`];
}

export function cautionsOf(heads: readonly RunHead[]): string[] {
  const differ = (of: (head: RunHead) => unknown): boolean =>
    new Set(heads.map((head) => JSON.stringify(of(head)))).size > 1;
  const found: string[] = [];
  const tokenizers = differ(({ facts, config }) => [facts.vocabSize, tokenizerOf(config)]);
  if (tokenizers)
    found.push("The runs have different tokenizers: compare bits per byte, not nats per token.");
  // The order in which domains are given changes nothing about their text.
  if (differ(({ facts }) => Array.from(facts.domains, ([name, { sha256 }]) => `${name}\n${sha256}`).sort()))
    found.push("The runs were trained on different domains or different text.");
  if (differ(({ facts }) => facts.parameters)) found.push("The runs have models of different sizes.");
  if (differ(({ facts }) => facts.steps * facts.batch * facts.context))
    found.push("The runs have different lengths.");
  if (differ(({ facts }) => facts.selected === undefined))
    found.push(
      "Some runs were trained on the text that resembles the target most, others on all text (--select).",
    );
  if (differ(({ facts }) => facts.dataSeed))
    found.push(
      "The runs hold out different text, since the split follows the seed; part of the difference of their losses comes from this (--data-seed keeps the split).",
    );
  else if (
    // Numbers of tokens depend on the tokenizer, and numbers of bytes are not known for files of tokens.
    differ(({ facts: { target } }) =>
      target === null ? null : target.heldOutBytes || target.heldOutTokens,
    ) ||
    (!tokenizers && differ(({ facts }) => facts.evaluatedTokens))
  )
    found.push(
      "The runs were evaluated on different text of the target (--held-out, --eval-tokens); part of the difference of their losses comes from this.",
    );
  return found;
}

/** Runs with the same configuration and seed are the same run, and would give a band of width 0. */
export function sameSeeds(groups: readonly GroupData[], runs: readonly RunData[]): string[] {
  return groups
    .filter(({ runs: members }) => new Set(members.map((i) => runs[i]!.seed)).size < members.length)
    .map(
      ({ label }) =>
        `${label}: two of its runs have the same seed; bands and errors treat them as independent.`,
    );
}

function tokenizerOf(config: RunHead["config"]): unknown {
  const data = config.get("data");
  return data instanceof Map ? data.get("tokenizer") : undefined;
}
