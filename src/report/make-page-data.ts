/** Makes the contents of the page from the collected data of runs. Pure. */
import { GradmixError } from "../errors.ts";
import { formatJson } from "../json.ts";
import type { RunHead } from "../runs/record.ts";
import { shellWord } from "../shell-word.ts";
import {
  sizeRanks,
  type Names,
  type RunView,
  runData,
  targetPoints,
  domainPoints,
  trainingPoints,
} from "./run-data.ts";
import { curvesOf } from "./curves.ts";
import { comparedEndings, countedOf, type Ending, endingOf } from "./endings.ts";
import { type Group, groupRuns } from "./groups.ts";
import type { GroupData, GroupEnd, PageData } from "./page-data.ts";
import { cautionsOf, sameSeeds, summaryOf } from "./summary.ts";

/** Largest total number of values, of two bytes each, in the pictures of the weights of all runs; beyond it there are fewer points in time. */
export const MOST_WEIGHTS = 1_000_000;
/** Number of names that have a colour of their own. */
const COLOURED = 12;

/** Makes the contents of the page. Throws `data` for runs with different targets, and for a run without any measurements yet (unless `live`). */
export function makePageData(
  runs: readonly RunView[],
  { live = false, mostWeights = MOST_WEIGHTS }: { live?: boolean; mostWeights?: number } = {},
): PageData {
  const heads = runs.map(({ gathered }) => gathered.head);
  for (const head of heads) checkSameTarget(heads[0]!, head);
  if (!live) for (const run of runs) checkMeasured(run);
  const list = [...new Set(heads.flatMap(({ facts }) => [...facts.domains.keys(), ...(facts.bases ?? [])]))];
  const names: Names = { list, indices: new Map(list.map((name, i) => [name, i])) };
  const grouped = groupRuns(
    runs,
    ({ gathered }) => gathered.head.config,
    ({ label }) => label,
  );
  const groupOf = new Map(grouped.flatMap(({ members }, i) => members.map((run) => [run, i])));
  const endings = grouped.map(({ label, members }) => endingOf(label, members));
  const compared = comparedEndings(endings);
  const groups = grouped.map((group, i) => {
    const ending = endings[i] ?? null;
    const end = ending === null ? null : groupEnd(ending, compared.has(ending));
    return { ...groupData(group, runs, names), end };
  });
  const data = runs.map((run) => runData(run, names, groupOf.get(run) ?? 0, mostWeights / runs.length));
  return {
    title: titleOf(heads),
    names: list,
    runs: data,
    groups,
    heaviest: heaviestOf(runs, names),
    summary: summaryOf(endings, compared, groups, data),
    cautions: [...cautionsOf(heads), ...sameSeeds(groups, data)],
  };
}

function checkMeasured({ gathered: { head, step, target, losses } }: RunView): void {
  if (step === 0 && target.count + losses.count === 0)
    throw new GradmixError(
      "data",
      `${head.folder}: has no measurements yet; wait for its first step, or follow it with gradmix watch ${shellWord(head.folder)}`,
    );
}

function checkSameTarget(one: RunHead, other: RunHead): void {
  // The losses of the page are those on `target`. Some rules learn from further targets.
  const textOf = ({ facts: { target, targets } }: RunHead): string =>
    target?.sha256 ?? formatJson(new Map([...targets].map(([name, { sha256 }]) => [name, sha256])));
  if (textOf(one) !== textOf(other))
    throw new GradmixError(
      "data",
      `${one.folder} and ${other.folder} have different targets, so their losses cannot be compared; make one report per target`,
    );
}

function titleOf(heads: readonly RunHead[]): string {
  const names = heads.map(({ name }) => name);
  return names.length <= 3
    ? names.join(", ")
    : `${names.slice(0, 2).join(", ")} and ${names.length - 2} more`;
}

function groupEnd({ curves }: Ending, compared: boolean): GroupEnd {
  const { nats, bits } = curves;
  const last = curves.tokens.length - 1;
  return {
    compared,
    nats: nats.mean[last]!,
    band: nats.band[last] ?? null,
    bits: bits?.mean[last] ?? null,
  };
}

function groupData(
  { label, members }: Group<RunView>,
  runs: readonly RunView[],
  names: Names,
): Omit<GroupData, "end"> {
  const counted = countedOf(members);
  const gathered = counted.map((run) => run.gathered);
  const evaluated = new Set(
    gathered.flatMap(({ losses }) => losses.items.flatMap(({ loss }) => [...loss.keys()])),
  );
  return {
    label,
    runs: members.map((run) => runs.indexOf(run)),
    counted: counted.map((run) => runs.indexOf(run)),
    target: curvesOf(gathered.map(targetPoints)),
    training: curvesOf(gathered.map(trainingPoints)),
    domains: [...evaluated].flatMap((name) => {
      const domain = names.indices.get(name);
      const loss = curvesOf(gathered.map((run) => domainPoints(run, name)));
      return loss === null || domain === undefined ? [] : [{ domain, loss }];
    }),
  };
}

/** After these come the domains with the most tokens; with bases, these have no weights of their own. */
function heaviestOf(runs: readonly RunView[], { list, indices }: Names): number[] {
  const sums = list.map(() => 0);
  const trained = list.map(() => 0);
  for (const run of runs) {
    for (const [name, sum] of sizeRanks(run)) sums[indices.get(name) ?? 0]! += sum;
    for (const [name, i] of run.gathered.domains)
      trained[indices.get(name) ?? 0]! += run.gathered.trained[i]!;
  }
  return [...sums.keys()]
    .filter((i) => sums[i]! > 0 || trained[i]! > 0)
    .sort((i, j) => sums[j]! - sums[i]! || trained[j]! - trained[i]! || i - j)
    .slice(0, COLOURED);
}
